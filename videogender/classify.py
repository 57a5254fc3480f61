"""Classifies images by weights that were fine-tuned: whole pictures, or the largest face of each.

A file whose task is `classifier` looks at the whole picture, at 256×256 whatever its shape: it is
scaled until its longer side fits, aspect ratio kept, and stands in the middle between bars of the
network's mean colour (`fitted`); training sees the same. Files for faces (gender, attribute,
refeed) are asked about the largest face that is found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from videogender.closeup import CloseUp
from videogender.config import DetectSettings
from videogender.detector import Detector
from videogender.devices import choose_device
from videogender.errors import ModelError
from videogender.frames import MEAN_RGB, Faces, Frame, Picture, RgbPicture
from videogender.network import checkpoints
from videogender.network.trained import Trained
from videogender.refine import RefinedDetector, Refiner
from videogender.weights_store import resolve

UNSURE = "unsure"

__all__ = ["Answer", "Classifier", "fitted"]


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What a picture was taken for.

    Attributes:
        labels: the C classes.
        probabilities: float32 [C], calibrated.
        box: float32 [4], xyxy in pixels of the picture: the face that was asked about; or None
            where it was the whole picture.
    """

    labels: tuple[str, ...]
    probabilities: NDArray[np.float32]
    box: NDArray[np.float32] | None = None

    def top(self, count: int) -> list[tuple[str, float]]:
        """Return the likeliest classes with their probabilities, best first."""
        order = np.argsort(-self.probabilities, kind="stable")[:count]
        return [(self.labels[i], float(self.probabilities[i])) for i in order]

    def label(self, unsure_below: float) -> str:
        """Name the likeliest class if its probability reaches `unsure_below`, else `unsure`."""
        name, probability = self.top(1)[0]
        return name if probability >= unsure_below else UNSURE


class Classifier:
    """Asks one weights file about pictures. Build it with `Classifier.load`.

    Args:
        asked: a `CloseUp` for whole pictures, or what finds and labels faces.
        labels: the classes.
    """

    def __init__(
        self, asked: CloseUp | Detector | RefinedDetector, labels: tuple[str, ...]
    ) -> None:
        self._asked, self.labels = asked, labels

    @classmethod
    def load(cls, weights: str | Path, settings: DetectSettings | None = None) -> Classifier:
        """Load a weights file of any task.

        Args:
            weights: a `.safetensors` file, or the name of imported weights.
            settings: device, precision and, for files that look at faces, how these are found.

        Raises:
            ModelError: the file is missing or corrupt, or has no classes.
            DeviceError: if the device that was asked for is missing.
        """
        settings = replace(settings or DetectSettings(), weights=str(weights))
        path = resolve(settings.model, settings.weights)
        trained = checkpoints.load_trained(path)
        if not trained.facts.labels:
            raise ModelError(f"{path}: finds faces, but has no head that tells classes apart")
        if trained.facts.task == "classifier":
            device = choose_device(settings.device)
            return cls(CloseUp(trained, device, settings.precision), trained.facts.labels)
        return cls(_face_labeller(trained, settings), trained.facts.labels)

    @property
    def looks_at(self) -> Literal["picture", "largest face"]:
        """What it is asked about."""
        return "picture" if isinstance(self._asked, CloseUp) else "largest face"

    def __call__(
        self, images: Sequence[NDArray[np.uint8] | Frame | Picture]
    ) -> list[Answer | None]:
        """Classify pictures, in order; None where no face was found in one that should have one.

        Args:
            images: HWC uint8 **RGB** arrays, frames or pictures, of any sizes.
        """
        if isinstance(self._asked, CloseUp):
            side = self._asked.side_px
            squares = np.zeros((len(images), side, side, 3), np.uint8)
            for square, image in zip(squares, images, strict=True):
                square[:] = fitted(_picture(image), side)
            return [Answer(self.labels, row) for row in np.exp(self._asked(squares))]
        return [self._of_largest(faces) for faces in self._asked(images)]

    def _of_largest(self, faces: Faces) -> Answer | None:
        if not len(faces):
            return None
        largest = int((faces.boxes[:, 2:] - faces.boxes[:, :2]).max(1).argmax())
        female = faces.female[largest]
        probabilities = np.array([female, 1 - female], np.float32)
        if faces.classes:
            probabilities = faces.attributes[largest]
        return Answer(self.labels, probabilities, faces.boxes[largest])


def fitted(picture: Picture, side_px: int) -> NDArray[np.uint8]:
    """Return a picture at side × side pixels, aspect ratio kept, in the middle of mean colour.

    Args:
        picture: of any size; smaller ones are enlarged.
        side_px: width and height of the result.

    Returns:
        uint8 [side, side, 3] **RGB**.
    """
    scale = side_px / max(picture.width, picture.height)
    wide, high = (max(1, round(length * scale)) for length in (picture.width, picture.height))
    left, top = (side_px - wide) // 2, (side_px - high) // 2
    square = np.empty((side_px, side_px, 3), np.uint8)
    square[:] = MEAN_RGB
    square[top : top + high, left : left + wide] = picture.to_rgb((wide, high))
    return square


def _face_labeller(trained: Trained, settings: DetectSettings) -> Detector | RefinedDetector:
    """Return what finds faces and labels them by a file whose task is about faces."""
    detector = Detector.load(settings=settings)
    if trained.facts.task != "refeed":
        return detector
    # every face that is found is asked about: the largest is, whatever its size
    closeup = CloseUp(trained, detector.device, settings.precision)
    return RefinedDetector(detector, Refiner(closeup, min_face_px=0.0, most=1))


def _picture(image: NDArray[np.uint8] | Frame | Picture) -> Picture:
    if isinstance(image, Frame):
        return image.picture
    return RgbPicture(image) if isinstance(image, np.ndarray) else image
