"""Drawing: a live frame with its zones and faces, for screens and recordings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from videogender.config import Settings
from videogender.frames import Faces
from videogender.live.capture import Captured
from videogender.render import Canvas, draw_faces
from videogender.render.zones import draw_zones
from videogender.zones.figures import Whereabouts

__all__ = ["Shown", "drawn"]


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """A frame that is shown, and what is drawn on it.

    Attributes:
        captured: the frame.
        faces: as they are known by now.
        where: which zones they are in, or None without zones.
    """

    captured: Captured
    faces: Faces
    where: Whereabouts | None


def drawn(shown: Shown, settings: Settings) -> NDArray[np.uint8]:
    """Return the picture with everything drawn on it, HWC uint8 **RGB**; nobody writes to it."""
    rgb = shown.captured.frame.picture.to_rgb()
    if len(shown.faces) or shown.where is not None:
        # The network may be looking at these very pixels.
        rgb = rgb.copy() if _is_shared(rgb, shown.captured) else rgb
        canvas = Canvas.from_rgb(rgb)
        if shown.where is not None:
            draw_zones(canvas, shown.where)
        draw_faces(canvas, shown.faces, settings.label, settings.render)
    return rgb


def _is_shared(rgb: NDArray[np.uint8], captured: Captured) -> bool:
    """Tell whether the picture gave away its own array, which others may read."""
    return np.shares_memory(rgb, getattr(captured.frame.picture, "array", np.empty(0)))
