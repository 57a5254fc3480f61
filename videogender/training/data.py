"""Training images, decoded once and kept in one flat block of memory, with their faces."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from videogender.dataset import Entry, read_picture
from videogender.errors import TrainingError
from videogender.network.heads import FEMALE, MALE

UNKNOWN_GENDER = -1
GENDER_INDEX = {"female": FEMALE, "male": MALE}
PYRAMID_LEVELS = 4  # full size to an eighth: sampling hardly ever skips a pixel

__all__ = ["GENDER_INDEX", "PYRAMID_LEVELS", "UNKNOWN_GENDER", "ImageStore"]


class ImageStore:
    """Decoded images and their faces as flat tensors that can live on any device.

    Args:
        scenes: pictures in which faces have many sizes.
        portraits: pictures of about one face each; they become tiles of mosaics.
        threads: decoders at work.
        least_age: the gender of faces whose `age` is less counts as unknown.
        group_by: keys by which faces are grouped: the first of them that a face has.
        label_share: how much a label counts beside another network's word, a face's `female`.

    Attributes:
        pixels: uint8 [bytes], every image at every pyramid level, HWC **BGR**, end to end.
        offset: int64 [I, L], where image i begins at pyramid level l.
        size_wh: int64 [I, L, 2], its width and height there.
        boxes: float32 [F, 4], xyxy in pixels of level 0; faces of image i stand together.
        gender: int64 [F], 0 female, 1 male, -1 unknown; where no label tells, what is likelier.
        male: float32 [F], the chance of a male face that is to be taught: 0 or 1 by the label, less
            sure where another network had a word; NaN unknown.
        group: int64 [F], of `groups`.
        groups: names of the groups, such as `skin V`; the first is of faces that have no such key.
        ignore: bool [F], faces that count neither way.
        young: bool [F], faces of less than `least_age`, which teach no gender.
        first_face: int64 [I + 1], where the faces of image i begin.
        scene_ids, portrait_ids: int64, images by the kind of crop that suits them.

    Raises:
        TrainingError: if there is nothing to learn from, or a picture cannot be read or has another
            size than its data file says.
    """

    def __init__(
        self,
        scenes: Sequence[Entry],
        portraits: Sequence[Entry],
        threads: int = 4,
        *,
        least_age: float = 0.0,
        group_by: Sequence[str] = (),
        label_share: float = 0.5,
    ) -> None:
        entries = [*scenes, *portraits]
        faces = [f for e in entries for f in e.faces]
        if not any(not f.get("ignore", False) for f in faces):
            raise TrainingError("no faces to learn from: give labelled scenes, portraits or both")
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
        self.boxes = torch.tensor([f["box"] for f in faces], dtype=torch.float32)
        self.male = torch.tensor([_male(f, least_age, label_share) for f in faces])
        labelled = torch.tensor([_gender(f, least_age) for f in faces])
        likelier = torch.where(self.male >= 0.5, MALE, FEMALE)
        unknown = (labelled == UNKNOWN_GENDER) & ~self.male.isnan()
        self.gender = torch.where(unknown, likelier, labelled)
        names = [_group(f, group_by) for f in faces]
        self.groups = ["", *sorted(set(names) - {""})]
        number = {name: index for index, name in enumerate(self.groups)}
        self.group = torch.tensor([number[name] for name in names])
        self.ignore = torch.tensor([bool(f.get("ignore", False)) for f in faces])
        self.young = torch.tensor([_is_younger(f, least_age) for f in faces])
        counts = torch.tensor([0] + [len(e.faces) for e in entries])
        self.first_face = counts.cumsum(0)
        self.scene_ids = torch.arange(len(scenes))
        self.portrait_ids = torch.arange(len(scenes), len(entries))

    def _decode(self, index: int, entry: Entry) -> None:
        image = Image.fromarray(read_picture(entry))
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


def _gender(face: Mapping[str, Any], least_age: float) -> int:
    if _is_younger(face, least_age):
        return UNKNOWN_GENDER
    return GENDER_INDEX.get(face.get("gender") or "", UNKNOWN_GENDER)


def _is_younger(face: Mapping[str, Any], age: float) -> bool:
    known = face.get("age")
    return isinstance(known, (int, float)) and known < age


def _male(face: Mapping[str, Any], least_age: float, label_share: float) -> float:
    gender, female = _gender(face, least_age), face.get("female")
    if female is None or _is_younger(face, least_age):
        return math.nan if gender == UNKNOWN_GENDER else float(gender == MALE)
    if gender == UNKNOWN_GENDER:
        return 1.0 - float(female)
    return label_share * (gender == MALE) + (1 - label_share) * (1.0 - float(female))


def _group(face: Mapping[str, Any], keys: Sequence[str]) -> str:
    return next((f"{key} {face[key]}" for key in keys if face.get(key) is not None), "")
