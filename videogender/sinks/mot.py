"""MOT: the text files of the MOTChallenge, a line a face, for tools that evaluate trackers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from videogender.frames import Faces, Frame
from videogender.sinks.rows import RowSink, rounded

if TYPE_CHECKING:
    from videogender.zones.figures import Whereabouts

__all__ = ["MotSink"]


class MotSink(RowSink):
    """Writes `frame,id,left,top,width,height,score,-1,-1,-1` for each face of one input.

    As that format has it, frames and pixels count from 1 (Dendorfer et al., "MOT20: A benchmark
    for multi object tracking in crowded scenes", 2020, section 6); so frame 1 is the source's
    first and (1, 1) its top left corner. Faces that are not followed have the id -1. There is no
    place for labels.
    """

    def write(self, frame: Frame, faces: Faces, where: Whereabouts | None = None) -> None:
        """Write the faces of one frame; a frame without faces leaves no line."""
        tracks = faces.tracks.tolist() or [-1] * len(faces)
        lines = []
        for track, (x0, y0, x1, y1), score in zip(
            tracks, faces.boxes.tolist(), faces.scores.tolist(), strict=True
        ):
            numbers = [rounded(n, 1) for n in (x0 + 1, y0 + 1, x1 - x0, y1 - y0)]
            box = ",".join(f"{number:.10g}" for number in numbers)
            lines.append(f"{frame.index + 1},{track},{box},{rounded(score, 4):.4g},-1,-1,-1\n")
        if lines:
            self.put("".join(lines))
