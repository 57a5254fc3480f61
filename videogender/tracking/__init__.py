"""Follows faces from frame to frame by where they are, never by who they look like."""
