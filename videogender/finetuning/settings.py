"""Every default of fine-tuning once, with its range, and what each recipe changes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from videogender.config import Rule
from videogender.errors import ConfigError
from videogender.training import keyed
from videogender.training.keyed import setting

# learning rate and weight decay where none is given
OPTIMIZERS = {"adamw": (1e-3, 0.01), "sgd": (1e-2, 5e-4)}

__all__ = [
    "RECIPES",
    "FeatureSettings",
    "FinetuneSettings",
    "HeadSettings",
    "JointSettings",
    "LossSettings",
    "SplitSettings",
    "recipe_values",
    "rule_of",
    "settings_of",
    "with_values",
]


@dataclass(frozen=True, slots=True)
class FeatureSettings:
    """What the frozen trunk is shown, and what is kept of what it saw; see `bank`."""

    long_side: int = setting(
        640, "larger pictures are shrunk to this many pixels", least=32, most=16384
    )
    scales: tuple[float, ...] = setting(
        (1.0, 0.5), "a face is also learned from its picture shrunk so", least=0.02, most=1
    )
    mirror: bool = setting(True, "a face is also learned mirrored")
    min_face_px: float = setting(16.0, "faces shown smaller than this are not learned", least=0)
    gate: float = setting(0.05, "least face score of an anchor that learns", least=0, most=1)
    match_iou: float = setting(
        0.4, "least overlap of an anchor's box with the labelled face", least=0.05, most=0.95
    )
    anchors: int = setting(6, "most anchors of a face that are kept", least=1, most=100)
    levels: str = setting(
        "all", "anchors of all levels, or of the one that fits the face", choices=("all", "best")
    )
    batch: int = setting(16, "pictures in a forward pass", least=1, most=1024)
    precision: str = setting(
        "auto", "number format of the trunk", choices=("auto", "fp32", "bf16", "fp16")
    )
    memory_mb: int = setting(
        1024, "features larger than this stay on disk while they are learned from", least=0
    )
    keep: bool = setting(False, "keep the features in the cache for the next run")


@dataclass(frozen=True, slots=True)
class HeadSettings:
    """What is trained, and where it starts."""

    form: str = setting(
        "auto",
        "one convolution a level, or two more layers on it; auto: as the weights have it",
        choices=("auto", "linear", "tower"),
    )
    start: str = setting(
        "auto",
        "where heads begin: as the weights have them, from the face heads, at random; auto: the "
        "first that there is",
        choices=("auto", "weights", "face", "random"),
    )
    level: int = setting(3, "of refeed: the level that is read, 0 (finest) to 5", least=0, most=5)
    share: float = setting(0.5, "of refeed: weight of the second look", least=0, most=1)
    standardise: bool = setting(
        True, "of classifier: each feature is brought to mean 0 and deviation 1 for training"
    )


@dataclass(frozen=True, slots=True)
class LossSettings:
    """What training minimises."""

    name: str = setting("bce", "the loss", choices=("bce", "ce", "focal", "mse"))
    gamma: float = setting(2.0, "of focal: how much sure answers count less", least=0, most=10)
    smoothing: float = setting(0.0, "label smoothing", least=0, most=0.5)
    balance: bool = setting(True, "all classes weigh the same, however many faces they have")


@dataclass(frozen=True, slots=True)
class SplitSettings:
    """How the data is split."""

    val: float = setting(0.15, "share to choose and to calibrate by", least=0, most=0.9)
    test: float = setting(0.15, "share to judge by", least=0, most=0.9)
    by: str = setting(
        "auto",
        "what stays together; auto: the data's own sides, or people where they are known",
        choices=("auto", "given", "person", "file"),
    )
    folds: int = setting(
        5,
        "parts for finding wrong labels, each judged by heads that never saw it; 0 looks for none",
        most=50,
        least=2,
        or_zero=True,
    )


@dataclass(frozen=True, slots=True)
class JointSettings:
    """The recipe `joint`: see `videogender train` for what these mean."""

    steps: int = setting(400, "length of training", least=1)
    batch: int = setting(16, "canvases a step", least=1, most=65536)
    side: int = setting(256, "canvas in pixels, a multiple of 32", least=32, most=4096)
    gender_weight: float = setting(2.0, "weight of the gender loss", least=0)
    scenes: str = setting("", "more pictures with faces, so that detection is not forgotten")
    val_scenes: str = setting("", "scenes whose average precision is told before and after")


@dataclass(frozen=True, slots=True)
class FinetuneSettings:
    """A run of `videogender finetune`."""

    recipe: str = setting("heads", "what is trained, and how")
    epochs: int = setting(30, "passes over the training faces", least=1, most=100000)
    batch: int = setting(64, "faces a step, over all processes", least=1, most=65536)
    anchors: int = setting(2, "anchors of each face that a step looks at", least=1, most=100)
    optimizer: str = setting("adamw", "what takes the steps", choices=tuple(OPTIMIZERS))
    learning_rate: float | None = setting(
        None, "its highest rate; null takes 0.001 for adamw, 0.01 for sgd", least=1e-8, most=10
    )
    weight_decay: float | None = setting(
        None, "of weights, not of biases; null takes 0.01 for adamw, 0.0005 for sgd", least=0
    )
    warmup: float = setting(0.05, "share of the steps in which the rate rises", least=0, most=1)
    least_rate: float = setting(
        0.02, "final learning rate, as a share of the highest; 1 keeps it", least=0, most=1
    )
    clip_norm: float = setting(10.0, "longest gradient", least=0)
    patience: int = setting(8, "epochs without a better one that end the run; 0 never", least=0)
    choose_by: str = setting(
        "accuracy", "what the best epoch is best in, on val", choices=("accuracy", "loss")
    )
    seed: int = setting(0, "start of all random numbers", least=0, most=10**9)
    workers: int = setting(0, "threads that decode pictures; 0 takes all cores", least=0, most=256)
    tensorboard: bool = setting(False, "write TensorBoard event files as well")
    features: FeatureSettings = field(default_factory=FeatureSettings)
    head: HeadSettings = field(default_factory=HeadSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    split: SplitSettings = field(default_factory=SplitSettings)
    joint: JointSettings = field(default_factory=JointSettings)

    def __post_init__(self) -> None:
        if self.split.val + self.split.test > 0.95:
            raise ConfigError("split.val and split.test leave nothing to learn from")

    @property
    def kind(self) -> str:
        """The recipe without a variant's name: `classifier` for `classifier-notes`."""
        return self.recipe.removesuffix("-notes")

    @property
    def highest_rate(self) -> float:
        """The learning rate after warm-up."""
        return OPTIMIZERS[self.optimizer][0] if self.learning_rate is None else self.learning_rate

    @property
    def decay(self) -> float:
        """The weight decay in force."""
        return OPTIMIZERS[self.optimizer][1] if self.weight_decay is None else self.weight_decay


# What each recipe changes; `configs/finetune/` has them written out.
RECIPES: dict[str, dict[str, object]] = {
    "heads": {},
    "tower": {"head.form": "tower", "head.start": "random", "epochs": 40},
    "best-scale": {"features.levels": "best"},
    "joint": {"learning_rate": 3e-4},
    "classifier": {
        "batch": 32,
        "anchors": 1,
        "epochs": 60,
        "patience": 15,
        "weight_decay": 0.1,
        "loss.name": "ce",
        "features.scales": (1.0,),
    },
    # as the notes have it: their loss hardly falls
    "classifier-notes": {
        "batch": 1,
        "anchors": 1,
        "epochs": 100,
        "patience": 0,
        "optimizer": "sgd",
        "learning_rate": 1e-4,
        "weight_decay": 0.0,
        "warmup": 0.0,
        "least_rate": 1.0,
        "clip_norm": 0.0,
        "loss.name": "mse",
        "loss.balance": False,
        "head.standardise": False,
        "features.scales": (1.0,),
        "features.mirror": False,
    },
    "refeed": {"anchors": 1, "epochs": 40, "features.scales": (1.0,)},
}


def recipe_values(name: str) -> dict[str, object]:
    """Return what a recipe changes of the defaults, with its name.

    Raises:
        ConfigError: there is no such recipe.
    """
    if name not in RECIPES:
        raise ConfigError(f"unknown recipe {name!r}; known are {', '.join(RECIPES)}")
    return {"recipe": name, **RECIPES[name]}


def with_values(
    values: Mapping[str, object], base: Mapping[str, object] | None = None, source: str = ""
) -> dict[str, object]:
    """Check values and lay them over others; see `keyed.checked`.

    Raises:
        ConfigError: a key is unknown (the message names the nearest), or a value ill-typed or out
            of range.
    """
    return keyed.checked(FinetuneSettings, values, base, source)


def settings_of(values: Mapping[str, object]) -> FinetuneSettings:
    """Build the settings from checked values by key; see `with_values`."""
    return keyed.build(FinetuneSettings, values)


def rule_of(key: str) -> Rule:
    """Return the rule of a setting; KeyError if there is none."""
    return keyed.rule_of(FinetuneSettings, key)


def defaults_of(recipe: str) -> dict[str, Any]:
    """Return every setting of a recipe by key, as its file in `configs/finetune/` holds them."""
    return keyed.flat(settings_of(with_values(recipe_values(recipe))))
