"""A second look at faces: each is cut out, fed to a network at a fitting size, and asked again.

Where the pixels come from. The first look sees pictures that were shrunk to `detect.long_side`. A
crop of such a picture is as good as one of the source where the face is already as large in it as
the second look wants it, or where nothing was shrunk. Only else is the source read, around the face
alone.

What it costs is bounded: the `refine_most` largest faces of a frame are looked at, of those that
are at least `refine_min_px` on their longer side; a crop is as large as 7 strides of the head's
level (224 px at level 3).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from videogender.closeup import CloseUp, sharpest_crops
from videogender.config import DetectSettings
from videogender.detector import Detector
from videogender.errors import ModelError
from videogender.frames import Faces, Frame, Picture, as_picture
from videogender.network.attributes import RefeedHead
from videogender.network.trained import GENDERS

__all__ = ["RefinedDetector", "Refiner"]

DEFAULTS = DetectSettings()
_SURE = 1e-6  # probabilities nearer to 0 or 1 than this count as this near


class Refiner:
    """Looks again at faces that were found.

    Args:
        closeup: the network and its refeed head.
        min_face_px: faces whose longer side is less than this, in source pixels, are left alone.
        most: faces of a frame that are looked at; the largest are.
    """

    def __init__(
        self,
        closeup: CloseUp,
        min_face_px: float = DEFAULTS.refine_min_px,
        most: int = DEFAULTS.refine_most,
    ) -> None:
        head = closeup.head
        if not isinstance(head, RefeedHead):
            raise ModelError(
                f"--refine takes weights whose task is refeed; this one's is {closeup.facts.task}"
            )
        self._closeup, self._face_px = closeup, head.face_px
        self.min_face_px, self.most = min_face_px, most

    @classmethod
    def load(
        cls,
        weights: str | Path,
        *,
        device: torch.device | None = None,
        precision: str = "auto",
        min_face_px: float = DEFAULTS.refine_min_px,
        most: int = DEFAULTS.refine_most,
    ) -> Refiner:
        """Load the weights of a second look.

        Raises:
            ModelError: the file is missing, corrupt, or its task is not refeed.
        """
        from videogender.network import checkpoints
        from videogender.weights_store import resolve

        trained = checkpoints.load_trained(resolve("", str(weights)))
        if trained.facts.task != "refeed":
            raise ModelError(
                f"{weights}: its task is {trained.facts.task}, but a second look needs weights "
                "of `videogender finetune --recipe refeed`"
            )
        return cls(CloseUp(trained, device, precision), min_face_px, most)

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes that it tells apart."""
        return self._closeup.facts.labels

    @property
    def answers_gender(self) -> bool:
        """Whether these are female and male."""
        return self.labels == GENDERS

    def __call__(
        self,
        found: Sequence[Faces],
        scaled: Sequence[NDArray[np.uint8]],
        sizes_wh: Sequence[tuple[int, int]],
        pictures: Sequence[Picture] | None = None,
    ) -> list[Faces]:
        """Return the faces with their labels seen twice; all crops go through the network together.

        Args:
            found: the faces of each picture, boxes in its own pixels.
            scaled: HWC uint8 **RGB**, the pictures as the first look saw them.
            sizes_wh: their own width and height.
            pictures: the pictures themselves, if there are more pixels to be had.
        """
        chosen = [self._chosen(faces) for faces in found]
        boxes = [np.zeros((0, 4), np.float32)]
        for faces, rows, shown, (width, height) in zip(
            found, chosen, scaled, sizes_wh, strict=True
        ):
            shrunk = np.array([shown.shape[1] / width, shown.shape[0] / height] * 2, np.float32)
            boxes.append(faces.boxes[rows] * shrunk)
        image = np.repeat(np.arange(len(found)), [len(rows) for rows in chosen])
        crops, _ = sharpest_crops(
            scaled,
            [None] * len(scaled) if pictures is None else pictures,
            image,
            np.concatenate(boxes),
            self._closeup.side_px,
            self._face_px,
        )
        answers = self._closeup(crops)
        refined, start = [], 0
        for faces, rows in zip(found, chosen, strict=True):
            refined.append(self._together(faces, rows, answers[start : start + len(rows)]))
            start += len(rows)
        return refined

    def _chosen(self, faces: Faces) -> NDArray[np.intp]:
        """Return the rows of the faces that are worth a second look, in order."""
        longer = (faces.boxes[:, 2:] - faces.boxes[:, :2]).max(1, initial=0.0)
        largest = np.argsort(-longer, kind="stable")[: self.most]
        return np.sort(largest[longer[largest] >= self.min_face_px])

    def _together(self, faces: Faces, rows: NDArray[np.intp], second: NDArray[np.float32]) -> Faces:
        """Average the log-probabilities [K, C] of the second look with those of the first."""
        share = self._closeup.facts.share
        if self.answers_gender:
            first = np.stack([faces.female, 1 - faces.female], 1)
            female = faces.female.copy()
            female[rows] = _mean(first[rows], second, share)[:, 0]
            return replace(faces, female=female)
        attributes = np.full((len(faces), len(self.labels)), np.nan, np.float32)
        if faces.classes == self.labels:
            attributes[:] = faces.attributes
        attributes[rows] = _mean(attributes[rows], second, share)
        return replace(faces, attributes=attributes, classes=self.labels)


class RefinedDetector:
    """A detector whose larger faces are looked at twice; it stands wherever a `Detector` does.

    Args:
        detector: finds the faces and labels them.
        refiner: looks at them again.

    Raises:
        ModelError: both label faces, but by different classes.
    """

    def __init__(self, detector: Detector, refiner: Refiner) -> None:
        self.detector, self.refiner = detector, refiner
        classes = detector.classes
        if classes and not refiner.answers_gender and classes != refiner.labels:
            raise ModelError(
                f"the second look tells {', '.join(refiner.labels)} apart, the first "
                f"{', '.join(classes)}; take weights of one column"
            )

    @classmethod
    def around(cls, detector: Detector, settings: DetectSettings) -> RefinedDetector:
        """Give a detector the second look that `settings.refine` names.

        Raises:
            ModelError: that file is missing, corrupt, or its task is not refeed.
        """
        if settings.refine is None:
            raise ValueError("no weights for a second look")
        refiner = Refiner.load(
            settings.refine,
            device=detector.device,
            precision=settings.precision,
            min_face_px=settings.refine_min_px,
            most=settings.refine_most,
        )
        return cls(detector, refiner)

    @property
    def has_gender(self) -> bool:
        """Whether either look answers female or male."""
        return self.detector.has_gender or self.refiner.answers_gender

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of other classes that either look tells apart; empty if there are none."""
        return self.detector.classes or (() if self.refiner.answers_gender else self.refiner.labels)

    @property
    def batch_size(self) -> int:
        """Frames a forward pass takes together."""
        return self.detector.batch_size

    @property
    def face_threshold(self) -> float:
        """Least score of the faces that are reported."""
        return self.detector.face_threshold

    def at_threshold(self, face_threshold: float, *, follows: bool = False) -> RefinedDetector:
        """Return this detector with another face threshold; see `Detector.at_threshold`."""
        other = copy.copy(self)
        other.detector = self.detector.at_threshold(face_threshold, follows=follows)
        return other

    def describe(self) -> str:
        """Say what runs where."""
        return f"{self.detector.describe()}, with a second look"

    def input_size_wh(self, width: int, height: int) -> tuple[int, int]:
        """Return the size (width, height) at which a picture of this size is first looked at."""
        return self.detector.input_size_wh(width, height)

    def __call__(self, images: Sequence[NDArray[np.uint8] | Frame | Picture]) -> list[Faces]:
        """Find the faces of each picture; see `Detector.__call__`."""
        found: list[Faces] = []
        for start in range(0, len(images), self.batch_size):
            pictures = [as_picture(image) for image in images[start : start + self.batch_size]]
            scaled = [p.to_rgb(self.input_size_wh(p.width, p.height)) for p in pictures]
            found.extend(self.detect_pictures(scaled, pictures))
        return found

    def detect(
        self, scaled: Sequence[NDArray[np.uint8]], sizes_wh: Sequence[tuple[int, int]]
    ) -> list[Faces]:
        """Find faces in pictures of the network's size; see `Detector.detect`.

        Both looks see these alone.
        """
        return self.refiner(self.detector.detect(scaled, sizes_wh), scaled, sizes_wh)

    def detect_pictures(
        self, scaled: Sequence[NDArray[np.uint8]], pictures: Sequence[Picture]
    ) -> list[Faces]:
        """Find faces as `detect` does; the second look sees the pictures as they were decoded.

        Args:
            scaled: HWC uint8 **RGB**, each of `input_size_wh` of its picture.
            pictures: what they were scaled from.
        """
        sizes = [(picture.width, picture.height) for picture in pictures]
        found = self.detector.detect_pictures(scaled, pictures)
        return self.refiner(found, scaled, sizes, pictures)


def _mean(
    first: NDArray[np.floating], second: NDArray[np.float32], share: float
) -> NDArray[np.float32]:
    """Return the probabilities [K, C] whose logarithms are the weighted mean of two answers'.

    Args:
        first: probabilities [K, C]; where they are NaN the second answer stands alone.
        second: log-probabilities [K, C].
        share: weight of the second, 0 to 1.
    """
    before = np.log(np.clip(first.astype(np.float64), _SURE, 1 - _SURE))
    unknown = np.isnan(before).any(1, keepdims=True)
    mean = np.where(unknown, second, (1 - share) * before + share * second)
    mean -= mean.max(1, keepdims=True, initial=-np.inf)
    odds = np.exp(mean)
    together: NDArray[np.float32] = (odds / odds.sum(1, keepdims=True)).astype(np.float32)
    return together
