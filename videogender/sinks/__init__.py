"""Where results go: video, images, JSON Lines and CSV."""
