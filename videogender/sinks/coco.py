"""COCO: one JSON document over all inputs, for annotation and evaluation tools."""

from __future__ import annotations

import io
import json
import math
import shutil
import tempfile
from pathlib import Path, PurePath
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

from videogender import __version__
from videogender.frames import Faces, Frame, Label
from videogender.sinks.rows import RowSink, Stdout, Target, rounded

if TYPE_CHECKING:
    from videogender.zones.figures import Whereabouts

__all__ = ["CocoSink"]

CATEGORIES: tuple[Label, ...] = ("female", "male", "unsure")  # ids count from 1


class CocoSink(RowSink):
    """Writes `images`, `annotations`, `categories` and `videos` when all inputs are done.

    A frame of `talk.mp4` is the image `talk/000012.jpg`, counted from 0, so that
    `ffmpeg -i talk.mp4 -fps_mode passthrough -start_number 0 talk/%06d.jpg` makes the files; where
    another video has that folder already, it is `talk.mp4/`. An image keeps its own name. Images
    carry `video_id`, `frame_id` and `time_s`; annotations carry `score`, `track_id` (of their
    video, where faces are followed) and, as `attributes`, `female`, `predicted` and, where they are
    used, `zones`. Boxes end at the picture's edge.

    Until then both lists lie in temporary files: memory does not grow with the length of a video.
    """

    def __init__(
        self, target: Target, *, unsure_below: float, name: str | Path | None = None
    ) -> None:
        super().__init__(target, unsure_below=unsure_below, name=name)
        folder = None if isinstance(target, Stdout) else target.parent
        try:
            self._images, self._annotations = _Spool(folder), _Spool(folder)
        except OSError as error:
            raise self._failed(error) from error
        self._videos: list[dict[str, Any]] = []
        self._folders: list[str] = []  # of their frames

    def write(self, frame: Frame, faces: Faces, where: Whereabouts | None = None) -> None:
        """Keep one frame and its faces."""
        try:
            image_id = self._images.add(self._image(frame))
            zones = None if where is None else where.names()
            labels = faces.labels(self.unsure_below)
            for row, label in enumerate(labels):
                found = _annotation(frame, faces, row)
                if found is None:
                    continue
                found |= {"image_id": image_id, "category_id": CATEGORIES.index(label) + 1}
                if zones is not None:
                    found["attributes"]["zones"] = zones[row]
                self._annotations.add(found)
        except OSError as error:
            raise self._failed(error) from error

    def mark(self) -> tuple[int, ...]:
        """Return a place to which `rollback` can return."""
        return (*self._images.mark(), *self._annotations.mark(), len(self._videos))

    def rollback(self, mark: tuple[int, ...]) -> None:
        """Forget what was written since `mark`."""
        self._images.rollback(mark[0:2])
        self._annotations.rollback(mark[2:4])
        del self._videos[mark[4] :], self._folders[mark[4] :]

    def finish(self) -> None:
        """Write the document."""
        start = {
            "info": {"description": "Faces by presented gender", "version": __version__},
            "licenses": [],
            "categories": [
                {"id": i, "name": name, "supercategory": "face"}
                for i, name in enumerate(CATEGORIES, 1)
            ],
            "videos": self._videos,
        }
        self.put(_json(start)[:-1])
        for key, spool in (("images", self._images), ("annotations", self._annotations)):
            self.put(f',\n"{key}":[')
            try:
                spool.copy_to(self._file)
            except BrokenPipeError:
                raise
            except OSError as error:
                raise self._failed(error) from error
            self.put("]")
        self.put("}\n")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self.finish()
        finally:
            self._images.close()
            self._annotations.close()
            super().__exit__(kind, error, trace)

    def _image(self, frame: Frame) -> dict[str, Any]:
        image: dict[str, Any] = {"width": frame.width, "height": frame.height}
        name = PurePath(frame.source)
        if frame.pts_seconds is None:
            return {**image, "file_name": name.as_posix()}
        if not self._videos or self._videos[-1]["name"] != frame.source:
            video = {"id": len(self._videos) + 1, "name": frame.source, **image}
            self._videos.append(video)
            folder = name.with_suffix("").as_posix()
            self._folders.append(name.as_posix() if folder in self._folders else folder)
        return {
            **image,
            "file_name": f"{self._folders[-1]}/{frame.index:06d}.jpg",
            "video_id": len(self._videos),
            "frame_id": frame.index,
            "time_s": rounded(frame.pts_seconds, 6),
        }


class _Spool:
    """A JSON list in a temporary file; each entry gets an `id` from 1."""

    def __init__(self, folder: Path | None) -> None:
        self._file: TextIO = tempfile.TemporaryFile(  # noqa: SIM115
            "w+", encoding="ascii", newline="", dir=folder, prefix=".videogender-"
        )
        self._count = 0

    def add(self, entry: dict[str, Any]) -> int:
        self._count += 1
        self._file.write(",\n" if self._count > 1 else "\n")
        self._file.write(_json({"id": self._count, **entry}))
        return self._count

    def mark(self) -> tuple[int, int]:
        return self._file.tell(), self._count

    def rollback(self, mark: tuple[int, ...]) -> None:
        place, self._count = mark
        self._file.seek(place)
        self._file.truncate()

    def copy_to(self, target: io.TextIOBase) -> None:
        self._file.seek(0)
        shutil.copyfileobj(self._file, target, 1 << 20)

    def close(self) -> None:
        self._file.close()


def _annotation(frame: Frame, faces: Faces, row: int) -> dict[str, Any] | None:
    """Describe a face but for its image and category; None if it lies beside the picture."""
    x0, y0, x1, y1 = faces.boxes[row].tolist()
    x0, x1 = rounded(max(x0, 0.0), 1), rounded(min(x1, frame.width), 1)
    y0, y1 = rounded(max(y0, 0.0), 1), rounded(min(y1, frame.height), 1)
    width, height = rounded(x1 - x0, 1), rounded(y1 - y0, 1)
    if width <= 0 or height <= 0:
        return None
    female = float(faces.female[row])
    found: dict[str, Any] = {
        "bbox": [x0, y0, width, height],
        "area": rounded(width * height, 1),
        "iscrowd": 0,
        "segmentation": [],
        "score": rounded(float(faces.scores[row]), 4),
        "attributes": {
            "female": None if math.isnan(female) else rounded(female, 4),
            "predicted": bool(faces.predicted[row]) if len(faces.predicted) else False,
        },
    }
    if len(faces.tracks):
        found["track_id"] = int(faces.tracks[row])
    return found


def _json(value: object) -> str:
    return json.dumps(value, allow_nan=False, separators=(",", ":"))
