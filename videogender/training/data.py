"""Training images, decoded once and kept in one flat block of memory, with their faces.

The data format is JSON Lines, one line an image, next to the folder the paths are relative to:

    {"image": "images/a.webp", "width": 640, "height": 480,
     "faces": [{"box": [x1, y1, x2, y2], "gender": "female", "ignore": false}, …]}

Boxes are pixels of the stored image. `gender` may be absent; `ignore` marks a face that counts
neither as found nor as missed. Further keys are kept for evaluation by group.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from videogender.errors import TrainingError
from videogender.network.boxes import iou_matrix
from videogender.network.heads import FEMALE, MALE

UNKNOWN_GENDER = -1
GENDER_INDEX = {"female": FEMALE, "male": MALE}
PYRAMID_LEVELS = 4  # full size to an eighth: sampling hardly ever skips a pixel

__all__ = [
    "GENDER_INDEX",
    "UNKNOWN_GENDER",
    "Entry",
    "ImageStore",
    "add_ignored",
    "read_entries",
    "read_rgb",
]


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a data file."""

    path: Path
    width: int
    height: int
    faces: list[dict[str, Any]]
    attributes: dict[str, Any]


def read_entries(path: str | Path) -> list[Entry]:
    """Read a JSON Lines file, or the `faces.jsonl` of a folder.

    Raises:
        TrainingError: with file and line, if the file is missing or a line is not as it should be.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "faces.jsonl"
    if not path.is_file():
        raise TrainingError(f"{path}: no such data file (expected JSON Lines, one line an image)")
    return list(_parse(path))


def _parse(path: Path) -> Iterator[Entry]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                item = json.loads(line)
                for face in item["faces"]:
                    x1, y1, x2, y2 = (float(v) for v in face["box"])
                    if not (x2 > x1 and y2 > y1):
                        raise ValueError(f"empty box {face['box']}")
                    if face.get("gender", "female") not in GENDER_INDEX:
                        raise ValueError(f"gender {face['gender']!r} is neither female nor male")
                yield Entry(
                    path.parent / item["image"],
                    int(item["width"]),
                    int(item["height"]),
                    item["faces"],
                    {k: v for k, v in item.items() if k not in ("image", "faces")},
                )
            except (ValueError, KeyError, TypeError) as error:
                raise TrainingError(
                    f"{path}, line {number}: {error!r}, expected an image with faces"
                ) from error


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """Decode a still as HWC uint8 RGB, upright.

    Raises:
        TrainingError: if the file is missing or not a picture.
    """
    try:
        with Image.open(path) as image:
            return np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise TrainingError(f"{path}: cannot be read as a picture ({error})") from error


class ImageStore:
    """Decoded images and their faces as flat tensors that can live on any device.

    Attributes:
        pixels: uint8 [bytes], every image at every pyramid level, HWC **BGR**, end to end.
        offset: int64 [I, L], where image i begins at pyramid level l.
        size_wh: int64 [I, L, 2], its width and height there.
        boxes: float32 [F, 4], xyxy in pixels of level 0; faces of image i stand together.
        gender: int64 [F], 0 female, 1 male, -1 unknown.
        ignore: bool [F], faces that count neither way.
        first_face: int64 [I + 1], where the faces of image i begin.
        scene_ids, portrait_ids: int64, images by the kind of crop that suits them.
    """

    def __init__(self, scenes: Sequence[Entry], portraits: Sequence[Entry], threads: int = 4):
        entries = [*scenes, *portraits]
        if not entries:
            raise TrainingError("no training images: give --scenes, --portraits or both")
        sizes = np.array([[e.width, e.height] for e in entries], np.int64)
        levels = np.stack([np.maximum(sizes >> k, 1) for k in range(PYRAMID_LEVELS)], 1)
        lengths = levels.prod(-1) * 3
        ends = lengths.reshape(-1).cumsum()
        self.offset = torch.from_numpy((ends - lengths.reshape(-1)).reshape(lengths.shape))
        self.size_wh = torch.from_numpy(levels)
        self.pixels = torch.empty(int(ends[-1]), dtype=torch.uint8)
        self._memory: NDArray[np.uint8] = self.pixels.numpy()
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(self._decode, range(len(entries)), entries))
        faces = [f for e in entries for f in e.faces]
        self.boxes = torch.tensor([f["box"] for f in faces], dtype=torch.float32).reshape(-1, 4)
        self.gender = torch.tensor(
            [GENDER_INDEX.get(f.get("gender", ""), UNKNOWN_GENDER) for f in faces]
        )
        self.ignore = torch.tensor([bool(f.get("ignore", False)) for f in faces])
        counts = torch.tensor([0] + [len(e.faces) for e in entries])
        self.first_face = counts.cumsum(0)
        self.scene_ids = torch.arange(len(scenes))
        self.portrait_ids = torch.arange(len(scenes), len(entries))

    def _decode(self, index: int, entry: Entry) -> None:
        rgb = read_rgb(entry.path)
        if rgb.shape != (entry.height, entry.width, 3):
            raise TrainingError(
                f"{entry.path}: {rgb.shape[1]}x{rgb.shape[0]} pixels, "
                f"the data file says {entry.width}x{entry.height}"
            )
        image = Image.fromarray(rgb)
        for level in range(PYRAMID_LEVELS):
            width, height = self.size_wh[index, level].tolist()
            scaled = image if level == 0 else image.resize((width, height), Image.Resampling.BOX)
            self.view(index, level)[:] = np.asarray(scaled)[..., ::-1]

    def view(self, index: int, level: int) -> NDArray[np.uint8]:
        """Return one image at one pyramid level, HWC uint8 BGR, without copying (CPU only)."""
        width, height = self.size_wh[index, level].tolist()
        start = int(self.offset[index, level])
        return self._memory[start : start + width * height * 3].reshape(height, width, 3)

    def to(self, device: torch.device) -> ImageStore:
        """Move everything to a device; on CUDA the pixels stay there for good."""
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(self, name, value.to(device))
        if device.type != "cpu":
            self._memory = np.empty(0, np.uint8)
        return self

    def __len__(self) -> int:
        return len(self.offset)


def add_ignored(
    entries: Sequence[Entry], path: str | Path, least_score: float = 0.6, most_iou: float = 0.2
) -> int:
    """Mark faces that another detector sees and the labels miss as `ignore`.

    Args:
        entries: the data, changed in place.
        path: JSON Lines of `{"image", "faces": [{"box", "score"}]}`, images named as in the data.
        least_score: weaker marks are not used.
        most_iou: a mark that overlaps a labelled face more than this is that face.

    Returns:
        How many faces were marked.
    """
    marks: dict[str, list[dict[str, Any]]] = {}
    with Path(path).open(encoding="utf-8") as lines:
        for line in lines:
            item = json.loads(line)
            marks[Path(item["image"]).name] = item["faces"]
    added = 0
    for entry in entries:
        seen = [f for f in marks.get(entry.path.name, []) if f["score"] >= least_score]
        if not seen:
            continue
        boxes = torch.tensor([f["box"] for f in seen], dtype=torch.float32)
        known = torch.tensor([f["box"] for f in entry.faces], dtype=torch.float32).reshape(-1, 4)
        new = (iou_matrix(boxes, known) <= most_iou).all(1)
        entry.faces.extend(
            {"box": f["box"], "ignore": True} for f, is_new in zip(seen, new.tolist(), strict=True) if is_new
        )
        added += int(new.sum())
    return added
