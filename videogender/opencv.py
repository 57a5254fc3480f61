"""OpenCV for its quick pixel work, where it loads; nothing here opens windows."""

from __future__ import annotations

from functools import cache
from types import ModuleType

__all__ = ["opencv"]


@cache
def opencv() -> ModuleType | None:
    """Return OpenCV, or None where it cannot be loaded, as on machines without a screen."""
    try:
        import cv2
    except ImportError:
        return None
    module: ModuleType = cv2
    return module
