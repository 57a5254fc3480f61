"""The recipe: every default of training once, with its range; read from YAML, flags and text."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from videogender.config import Rule
from videogender.errors import ConfigError
from videogender.training import keyed
from videogender.training.keyed import differences, flat, read_recipe
from videogender.training.keyed import setting as _setting

__all__ = [
    "OPTIMIZERS",
    "PARTS",
    "CloseUpSettings",
    "CropSettings",
    "LossSettings",
    "TrainSettings",
    "differences",
    "flat",
    "keys",
    "read_recipe",
    "rule_of",
    "settings_of",
    "with_values",
]

PARTS = ("anchors", "second-stage")
# learning rate and weight decay where none is given
OPTIMIZERS = {"adamw": (2.5e-3, 0.05), "sgd": (1e-2, 5e-4)}


@dataclass(frozen=True, slots=True)
class CropSettings:
    """How crops are drawn; sizes in pixels of the canvas."""

    mosaic_share: float = _setting(0.25, "canvases that are mosaics of portraits", least=0, most=1)
    mosaic_grids: tuple[int, ...] = _setting(
        (1, 2, 2, 3, 4), "tiles along a mosaic's side, drawn evenly", least=1, most=16
    )
    mosaic_scene_share: float = _setting(
        0.15, "tiles of a mosaic that show a scene", least=0, most=1
    )
    native_share: float = _setting(
        0.5, "scene crops near the stored size; the others aim at a face size", least=0, most=1
    )
    native_zoom: tuple[float, float] = _setting((0.6, 1.6), "zoom of those", least=0.01, most=100)
    aimed_face_px: tuple[float, float] = _setting(
        (8.0, 200.0), "face heights that the others aim at", least=1
    )
    zoom_limits: tuple[float, float] = _setting(
        (0.35, 3.0), "zoom of scenes; portraits may shrink to fit", least=0.01, most=100
    )
    rotation_degrees: float = _setting(
        6.0, "standard deviation, on a third of the tiles", least=0, most=45
    )
    aspect: float = _setting(
        0.05, "standard deviation of the log of the aspect change", least=0, most=0.5
    )
    least_face_px: float = _setting(8.0, "shorter faces are ignored", least=0)
    least_visible: float = _setting(
        0.4, "share of a face that must be left by the crop", least=0, most=1
    )


@dataclass(frozen=True, slots=True)
class CloseUpSettings:
    """How close-ups are drawn when the second stage is trained."""

    batch: int = _setting(160, "close-ups a step and process", least=4, most=65536)
    portrait_share: float = _setting(0.36, "of them, portraits with gender", least=0, most=1)
    scene_share: float = _setting(
        0.3, "faces of scenes with gender, both genders as often", least=0, most=1
    )
    none_share: float = _setting(
        0.18, "boxes that hold no face; the rest are proposals that do", least=0, most=1
    )
    group_by: tuple[str, ...] = _setting(
        ("race", "skin"),
        "keys of a face; groups by the first it has, and by gender, are drawn by how wrong it "
        "still is about them",
    )
    shift: float = _setting(
        0.09, "standard deviation of a crop's shift, in sides of the face", least=0, most=1
    )
    size: float = _setting(0.15, "standard deviation of the log of its size", least=0, most=1)
    rotation_degrees: float = _setting(
        8.0, "standard deviation of its turn, on half of them", least=0, most=45
    )
    aspect: float = _setting(
        0.08, "standard deviation of the log of the aspect change", least=0, most=0.5
    )
    blend_share: float = _setting(
        0.5, "share of faces with gender into which another is blended", least=0, most=1
    )
    guess_from: float = _setting(
        0.9,
        "faces in scenes without a gender get the one of which the second stage to start from is "
        "this sure; 1 guesses none",
        least=0.5,
        most=1,
    )
    least_guessed_px: float = _setting(16.0, "longer side of those", least=1)
    label_share: float = _setting(
        0.5, "how much a label counts beside the word of --teach", least=0, most=1
    )
    coarse_share: float = _setting(
        0.4, "share that is read from a shrunk picture, as small faces are", least=0, most=1
    )
    least_seen_px: float = _setting(10.0, "longer side of a face in those", least=1)
    portrait_boxes: bool = _setting(
        False, "learn boxes from portraits too; often they are another detector's"
    )


@dataclass(frozen=True, slots=True)
class LossSettings:
    """Weights of the parts."""

    negatives: int = _setting(10, "hard background anchors for each face anchor", least=1)
    box: float = _setting(2.0, "weight of the box loss", least=0)
    gender: float = _setting(2.0, "weight of the gender loss", least=0)
    # labels are wrong in one to four of a hundred
    gender_smoothing: float = _setting(0.05, "label smoothing of gender", least=0, most=0.5)
    gender_anchors: int = _setting(512, "most anchors of a batch whose gender is learned", least=1)


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """A run of `videogender train`. Exactly one of `minutes` and `steps` is over 0."""

    part: str = _setting(
        "anchors", "what learns: the anchors' network or its second stage", choices=PARTS
    )
    minutes: float = _setting(
        0.0, "length of the schedule in minutes of training, validation not counted", least=0
    )
    steps: int = _setting(0, "length of the schedule in steps instead", least=0)
    side: int = _setting(256, "canvas in pixels, a multiple of 32", least=32, most=4096)
    batch: int = _setting(16, "canvases a step and process", least=1, most=65536)
    large_every: int = _setting(
        5, "every n-th step has canvases of twice the side, a quarter as many; 0 has none", least=0
    )
    distortion: float = _setting(
        0.5, "how often and how far pixels are distorted: colour, blur, noise", least=0, most=1
    )
    optimizer: str = _setting("adamw", "what takes the steps", choices=tuple(OPTIMIZERS))
    learning_rate: float | None = _setting(
        None, "its highest rate; null takes 0.0025 for adamw, 0.01 for sgd", least=1e-8, most=10
    )
    least_rate: float = _setting(
        0.01, "final learning rate, as a share of the highest", least=0, most=1
    )
    weight_decay: float | None = _setting(
        None, "of weights, not of biases; null takes 0.05 for adamw, 0.0005 for sgd", least=0
    )
    warmup: float = _setting(0.04, "share of the schedule in which the rate rises", least=0, most=1)
    ema: float = _setting(
        0.998, "decay of the averaged weights, which are what is kept", least=0, most=1
    )
    clip_norm: float = _setting(10.0, "longest gradient", least=0)
    seed: int = _setting(0, "start of all random numbers", least=0, most=10**9)
    checkpoint_minutes: float = _setting(3.0, "time between checkpoints", least=0)
    validate_minutes: float = _setting(10.0, "time between validations", least=0)
    least_age: float = _setting(
        3.0, "faces whose `age` is less in years teach no gender: nobody can tell", least=0
    )
    crops: CropSettings = field(default_factory=CropSettings)
    closeups: CloseUpSettings = field(default_factory=CloseUpSettings)
    loss: LossSettings = field(default_factory=LossSettings)

    def __post_init__(self) -> None:
        if (self.minutes > 0) == (self.steps > 0):
            raise ConfigError("give the length of training as either --minutes or --steps")
        if self.closeups.portrait_share + self.closeups.scene_share + self.closeups.none_share > 1:
            raise ConfigError("closeups: the shares of portraits, scenes and none come to over 1")
        if self.side % 32:
            raise ConfigError(f"side should be a multiple of 32, got {self.side}")
        batches = [(self.side, self.batch)]
        if self.large_every:
            batches.append((self.side * 2, max(1, self.batch // 4)))
        if any(math.ceil(side / 128) ** 2 * count < 2 for side, count in batches):
            # batch normalisation of the coarsest level, a cell for 128 pixels, has no variance
            raise ConfigError(f"batch {self.batch} is too small for side {self.side}; give more")

    @property
    def highest_rate(self) -> float:
        """The learning rate after warm-up."""
        return OPTIMIZERS[self.optimizer][0] if self.learning_rate is None else self.learning_rate

    @property
    def decay(self) -> float:
        """The weight decay in force."""
        return OPTIMIZERS[self.optimizer][1] if self.weight_decay is None else self.weight_decay


def with_values(
    values: Mapping[str, object], base: Mapping[str, object] | None = None, source: str = ""
) -> dict[str, object]:
    """Check values and lay them over others; see `keyed.checked`.

    Raises:
        ConfigError: a key is unknown (the message names the nearest), or a value ill-typed or out
            of range.
    """
    return keyed.checked(TrainSettings, values, base, source)


def settings_of(values: Mapping[str, object]) -> TrainSettings:
    """Build the settings from checked values by key; see `with_values`."""
    return keyed.build(TrainSettings, values)


def keys() -> dict[str, Any]:
    """Return the type of every setting by its key, inner ones as `crops.aspect`."""
    return keyed.keys(TrainSettings)


def rule_of(key: str) -> Rule:
    """Return the rule of a setting; KeyError if there is none."""
    return keyed.rule_of(TrainSettings, key)
