"""Drawing: canvases over RGB or YUV 4:2:0 pixels, and the faces that are drawn on them."""

from __future__ import annotations

from videogender.render.canvas import Canvas
from videogender.render.faces import COLOURS, draw_faces

__all__ = ["COLOURS", "Canvas", "draw_faces"]
