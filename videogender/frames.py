"""The values that walk through the rooms: pictures, frames and the faces found in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from videogender.squares import cut_squares

MEAN_RGB = (123, 117, 104)  # of the networks' input; a picture's rim in this colour becomes zeros

__all__ = [
    "MEAN_RGB",
    "Faces",
    "Frame",
    "Label",
    "NoPicture",
    "Picture",
    "RgbPicture",
    "Track",
    "as_picture",
]

Label = Literal["female", "male", "unsure"]
_VERDICTS: dict[int, Label] = {1: "female", -1: "male", 0: "unsure"}


class Picture(Protocol):
    """Pixels of one upright frame, kept in whatever form the source had them."""

    @property
    def width(self) -> int:
        """Width in pixels, after rotation metadata has been applied."""

    @property
    def height(self) -> int:
        """Height in pixels, after rotation metadata has been applied."""

    def to_rgb(self, size_wh: tuple[int, int] | None = None) -> NDArray[np.uint8]:
        """Return HWC uint8 **RGB**, contiguous; scaled to `size_wh` (width, height) if given."""

    def brightness(self, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> NDArray[np.uint8]:
        """Return how bright some pixels are, 0 to 255, in whatever form that is cheapest to read.

        Args:
            rows, columns: int [R, 1] and [1, C], within the picture.

        Returns:
            uint8 [R, C].
        """

    def squares_rgb(self, squares: NDArray[np.int64], side_px: int) -> NDArray[np.uint8]:
        """Return squares of the picture, each scaled to `side_px`, without converting the rest.

        Args:
            squares: int64 [K, 3], left, top and side in pixels, even numbers, as many a video has
                its colours only for every other pixel; they may reach beyond the picture.
            side_px: width and height of the result.

        Returns:
            uint8 [K, side_px, side_px, 3] **RGB**; `MEAN_RGB` where there is no picture.
        """


@dataclass(frozen=True, slots=True, eq=False)
class RgbPicture:
    """A picture held as one HWC uint8 **RGB** array."""

    array: NDArray[np.uint8]

    def __post_init__(self) -> None:
        if self.array.ndim != 3 or self.array.shape[2] != 3 or self.array.dtype != np.uint8:
            raise ValueError(
                f"expected HWC uint8 RGB, got {self.array.shape} of {self.array.dtype}"
            )

    @property
    def width(self) -> int:
        """Width in pixels."""
        return int(self.array.shape[1])

    @property
    def height(self) -> int:
        """Height in pixels."""
        return int(self.array.shape[0])

    def to_rgb(self, size_wh: tuple[int, int] | None = None) -> NDArray[np.uint8]:
        """Return the array, scaled to `size_wh` (width, height) with area-aware filtering."""
        if size_wh is None or size_wh == (self.width, self.height):
            return np.ascontiguousarray(self.array)
        from PIL import Image

        scaled = Image.fromarray(self.array).resize(size_wh, Image.Resampling.BILINEAR)
        return np.array(scaled)

    def brightness(self, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> NDArray[np.uint8]:
        """Return the green of some pixels, which stands for brightness."""
        seen: NDArray[np.uint8] = self.array[rows, columns, 1]
        return seen

    def squares_rgb(self, squares: NDArray[np.int64], side_px: int) -> NDArray[np.uint8]:
        """Return squares cut out of the array; see `Picture.squares_rgb`."""
        return cut_squares(self.array, squares, side_px, np.array(MEAN_RGB, np.uint8))


@dataclass(frozen=True, slots=True)
class NoPicture:
    """Stands where a picture was: its size is all that is left."""

    width: int
    height: int

    def to_rgb(self, size_wh: tuple[int, int] | None = None) -> NDArray[np.uint8]:
        """Raise RuntimeError, as the next two do."""
        raise self._error()

    def brightness(self, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> NDArray[np.uint8]:
        """See `to_rgb`."""
        raise self._error()

    def squares_rgb(self, squares: NDArray[np.int64], side_px: int) -> NDArray[np.uint8]:
        """See `to_rgb`."""
        raise self._error()

    def _error(self) -> RuntimeError:
        return RuntimeError("the pixels of this frame were not kept")


def as_picture(image: NDArray[np.uint8] | Frame | Picture) -> Picture:
    """Return the picture of an HWC uint8 **RGB** array, a frame or a picture."""
    if isinstance(image, Frame):
        return image.picture
    return RgbPicture(image) if isinstance(image, np.ndarray) else image


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One frame of a source.

    Attributes:
        picture: the pixels, upright.
        index: position in the source, from 0, counting every frame of the source.
        pts_seconds: presentation time in seconds on the source's own clock, or None for a still.
        source: what the user named: a path or an address without credentials.
    """

    picture: Picture
    index: int
    pts_seconds: float | None
    source: str

    @property
    def width(self) -> int:
        """Width in pixels."""
        return self.picture.width

    @property
    def height(self) -> int:
        """Height in pixels."""
        return self.picture.height

    def __repr__(self) -> str:
        return (
            f"Frame({self.source!r}, index={self.index}, pts_seconds={self.pts_seconds}, "
            f"{self.width}x{self.height})"
        )


def _no_ids() -> NDArray[np.int64]:
    return np.zeros(0, np.int64)


def _no_flags() -> NDArray[np.bool_]:
    return np.zeros(0, bool)


def _no_verdicts() -> NDArray[np.int8]:
    return np.zeros(0, np.int8)


def _no_attributes() -> NDArray[np.float32]:
    return np.zeros((0, 0), np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Faces:
    """The faces of one frame, best score first.

    Attributes:
        boxes: float32 [N, 4], xyxy in pixels of the upright frame; they may reach past its edge.
        scores: float32 [N], the probability that the box holds a face.
        female: float32 [N], the calibrated probability that the presented gender is female;
            NaN where the model has no gender heads. Once tracks are labelled it is the track's.
        tracks: int64 [N], the track each face belongs to, or empty while nothing is tracked.
        predicted: bool [N], the detector looked but did not find this face, and the box is where
            its track says it is; or empty, which means False.
        verdicts: int8 [N], labels that were decided over time: 1 female, -1 male, 0 unsure; or
            empty, and the probability alone decides.
        attributes: float32 [N, C], calibrated probabilities of the classes of a fine-tuned head,
            a row of NaN where it was not asked; or empty. Once tracks are labelled it is the
            track's.
        classes: the C names, in the order of the columns; or empty.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    female: NDArray[np.float32]
    tracks: NDArray[np.int64] = field(default_factory=_no_ids)
    predicted: NDArray[np.bool_] = field(default_factory=_no_flags)
    verdicts: NDArray[np.int8] = field(default_factory=_no_verdicts)
    attributes: NDArray[np.float32] = field(default_factory=_no_attributes)
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        n = len(self.scores)
        if self.boxes.shape != (n, 4) or self.female.shape != (n,) or self.scores.shape != (n,):
            raise ValueError(
                f"shapes disagree: boxes {self.boxes.shape}, scores {self.scores.shape}, "
                f"female {self.female.shape}"
            )
        if len(self.tracks) not in (0, n):
            raise ValueError(f"{len(self.tracks)} track ids for {n} faces")
        if len(self.predicted) not in (0, n) or len(self.verdicts) not in (0, n):
            raise ValueError(
                f"{len(self.predicted)} flags and {len(self.verdicts)} verdicts for {n} faces"
            )
        if self.attributes.shape != ((n, len(self.classes)) if self.classes else (0, 0)):
            raise ValueError(
                f"attributes {self.attributes.shape} for {n} faces and {len(self.classes)} classes"
            )

    def __len__(self) -> int:
        return len(self.scores)

    def __repr__(self) -> str:
        return f"Faces({len(self)} faces)"

    @classmethod
    def empty(cls) -> Faces:
        """Return a value that holds no face."""
        return cls(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.float32))

    def only(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> Faces:
        """Return some of the faces, by rows or by flags; what a field leaves empty stays empty."""
        return Faces(
            self.boxes[rows],
            self.scores[rows],
            self.female[rows],
            self.tracks[rows] if len(self.tracks) else self.tracks,
            self.predicted[rows] if len(self.predicted) else self.predicted,
            self.verdicts[rows] if len(self.verdicts) else self.verdicts,
            self.attributes[rows] if len(self.classes) else self.attributes,
            self.classes,
        )

    def labels(self, unsure_below: float) -> list[Label]:
        """Return a label a face: the likelier gender, or `unsure` below the threshold.

        Args:
            unsure_below: least probability of the winning label, 0.5 to 1. Where verdicts were
                reached over time, these hold instead.
        """
        if len(self.verdicts):
            return [_VERDICTS[verdict] for verdict in self.verdicts.tolist()]
        return [label_of(p, unsure_below) for p in self.female.tolist()]

    def attribute_labels(self, unsure_below: float) -> list[tuple[str, float]]:
        """Return a face's likeliest class with its probability; the name may be `unsure`.

        Args:
            unsure_below: least probability of the winning class, 0.5 to 1.

        Returns:
            A pair a face, NaN where the head was not asked; or nothing where there are no classes.
        """
        if not self.classes:
            return []
        best = self.attributes.argmax(1)  # of a row of NaN the first
        values = self.attributes[np.arange(len(self)), best].tolist()
        return [
            _class_or_unsure(self.classes[i], p, unsure_below)
            for i, p in zip(best.tolist(), values, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class Track:
    """One face while it stays in view: an appearance of somebody, not a person.

    Whoever leaves and comes back, or is shown again after a cut, appears twice.

    Attributes:
        id: from 1, in the order of appearance.
        shot: number of the shot that it belongs to, from 0.
        first_seconds: time of the first frame in which it is shown, on the source's clock.
        last_seconds: time of the last one.
        frames: frames in which it is shown.
        detections: frames in which it was found.
        score: mean of its detections' scores.
        female: probability that the presented gender is female, over the whole track; or NaN.
        attributes: probability of each class of a fine-tuned head, over the whole track; NaN where
            the head was not asked. Empty without such a head.
    """

    id: int
    shot: int
    first_seconds: float
    last_seconds: float
    frames: int
    detections: int
    score: float
    female: float
    attributes: Mapping[str, float] = field(default_factory=dict)

    def attribute(self, unsure_below: float) -> tuple[str, float] | None:
        """Return the likeliest class, or `unsure`, with its probability; None without a head.

        Args:
            unsure_below: least probability of the winning class, 0.5 to 1.
        """
        if not self.attributes:
            return None
        name, p = max(self.attributes.items(), key=lambda item: item[1])  # of NaN the first
        return _class_or_unsure(name, p, unsure_below)


def _class_or_unsure(name: str, p: float, unsure_below: float) -> tuple[str, float]:
    return (name if p >= unsure_below else "unsure"), p


def label_of(female: float, unsure_below: float) -> Label:
    """Name the likelier gender if its probability reaches `unsure_below`; NaN is `unsure`."""
    if female >= unsure_below and female >= 0.5:
        return "female"
    if 1.0 - female >= unsure_below and female < 0.5:
        return "male"
    return "unsure"
