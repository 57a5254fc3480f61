"""Live video: newest frames of cameras and streams, labelled, shown, recorded and logged."""
