"""Figures about videos and training runs, as JSON and as pages that need nothing but a browser."""
