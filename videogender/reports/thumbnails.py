"""One small picture of each track, taken while a video passes for the second time."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from videogender.frames import Faces, Frame
from videogender.tracking.flat import FlatFaces, flatten
from videogender.tracking.settle import Settled

__all__ = ["KINDS", "Kind", "Thumbnails", "portrait"]

Kind = Literal["none", "blurred", "plain"]
KINDS: tuple[Kind, ...] = ("none", "blurred", "plain")

SIZE_PX = 72
# A page of more pictures than this is no longer light; the tracks longest in view come first.
MOST_TRACKS = 3000
# What is shown around a face, in sizes of its box.
MARGIN = 0.3
# A blurred picture is this many cells wide, margin included: four across the face, as in a
# blurred video (`Canvas.obscure`). All of it is blurred: bystanders may be in the margin.
_CELLS = 6


class Thumbnails:
    """Keeps a picture of each track, from the frame where it is seen best.

    Which frame that is is known beforehand, so a frame's pixels are read only if it is chosen.

    Args:
        settled: of the first pass.
        kind: `blurred` keeps a few averaged cells of each picture, so that nobody is recognised.
        size_wh: of the frames, to prefer faces that lie inside them; None if unknown.
    """

    def __init__(
        self, settled: Settled, kind: Kind = "blurred", *, size_wh: tuple[int, int] | None = None
    ) -> None:
        if kind not in KINDS:
            raise ValueError(f"thumbnails are {', '.join(KINDS)}, not {kind!r}")
        self.kind = kind
        self._settled = settled
        self._pictures: dict[int, bytes] = {}
        self._wanted: dict[int, set[int]] = {}  # ids of tracks by row of the frame
        if kind != "none":
            for track, row in _best_rows(settled, size_wh).items():
                self._wanted.setdefault(row, set()).add(track)

    def offer(self, frame: Frame, faces: Faces) -> None:
        """Take the pictures for which a frame was chosen.

        Args:
            frame: of the second pass, before anything is drawn on it.
            faces: its faces, with their tracks.
        """
        row = self._settled.row_of(frame.pts_seconds or 0.0)
        wanted = self._wanted.pop(row, None) if row is not None else None
        if not wanted:
            return
        pixels = Image.fromarray(frame.picture.to_rgb())
        for track, box in zip(faces.tracks.tolist(), faces.boxes.tolist(), strict=True):
            if track in wanted:
                self._pictures[track] = portrait(pixels, box, is_blurred=self.kind == "blurred")

    def jpeg(self, track_id: int) -> bytes | None:
        """Return the picture of a track as JPEG, or None if there is none."""
        return self._pictures.get(track_id)


def portrait(
    image: Image.Image,
    box: Sequence[float],
    *,
    is_blurred: bool,
    size_px: int = SIZE_PX,
    margin: float = MARGIN,
) -> bytes:
    """Cut a face out of a picture, with a margin, as a square JPEG.

    Args:
        image: RGB.
        box: xyxy in pixels; may reach past the edges, where the picture is continued in grey.
        is_blurred: keep a few averaged cells only.
        size_px: edge of the result.
        margin: what is shown on each side, in sizes of the box.
    """
    x0, y0, x1, y1 = box
    side = max(2.0, max(x1 - x0, y1 - y0) * (1 + 2 * margin))
    left = _place((x0 + x1 - side) / 2, side, image.width)
    top = _place((y0 + y1 - side) / 2, side, image.height)
    square = Image.new("RGB", (round(side),) * 2, (127, 127, 127))
    right = min(left + square.width, image.width)
    bottom = min(top + square.height, image.height)
    if right > max(left, 0) and bottom > max(top, 0):
        part = image.crop((max(left, 0), max(top, 0), right, bottom))
        square.paste(part, (max(-left, 0), max(-top, 0)))
    if is_blurred:
        # Pillow averages over all pixels of a cell here; what is enlarged holds nothing else.
        square = square.resize((_CELLS, _CELLS), Image.Resampling.BOX)
    small = square.resize((size_px, size_px), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    small.save(file, "JPEG", quality=70 if is_blurred else 82, optimize=True)
    return file.getvalue()


def _place(begin: float, length: float, limit: int) -> int:
    """Return where a stretch begins, moved a little if that keeps it inside a picture."""
    room = limit - round(length)
    moved = min(max(begin, 0), room) if room >= 0 else begin
    return round(moved if abs(moved - begin) <= length * MARGIN / 2 else begin)


def _best_rows(settled: Settled, size_wh: tuple[int, int] | None) -> dict[int, int]:
    """Return the row of the frame in which each track is seen best, by id."""
    flat = flatten(settled)
    if not len(flat.track):
        return {}
    # By track, the best view first.
    order = np.lexsort((-_views(flat, size_wh), flat.track))
    first = order[np.diff(flat.track[order], prepend=-1) != 0]
    shown = np.bincount(flat.track)[flat.track[first]]
    first = first[np.argsort(-shown, kind="stable")][:MOST_TRACKS]
    ids = (flat.track[first] + 1).tolist()
    return dict(zip(ids, flat.row[first].tolist(), strict=True))


def _views(flat: FlatFaces, size_wh: tuple[int, int] | None) -> NDArray[np.float64]:
    """Return how good a view of its face each box is [N]: large, sure, and inside the frame."""
    boxes = flat.boxes.astype(np.float64)
    sides = (boxes[:, 2:] - boxes[:, :2]).clip(1e-6)
    limit = np.array([np.inf, np.inf] if size_wh is None else size_wh, np.float64)
    inside = (np.minimum(boxes[:, 2:], limit) - boxes[:, :2].clip(0)).clip(0) / sides
    view: NDArray[np.float64] = np.sqrt(sides.prod(1)) * flat.scores * inside.prod(1) ** 2
    return np.where(flat.predicted, view * 1e-3, view)
