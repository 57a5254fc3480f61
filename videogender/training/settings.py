"""The recipe: every default of training once, with its range; read from YAML, flags and text."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from videogender.config import Rule
from videogender.errors import ConfigError

__all__ = [
    "OPTIMIZERS",
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

T = TypeVar("T")

# learning rate and weight decay where none is given
OPTIMIZERS = {"adamw": (2.5e-3, 0.05), "sgd": (1e-2, 5e-4)}


def _setting(default: T, help: str, **rule: Any) -> T:
    return field(default=default, metadata={"rule": Rule(help, **rule)})


@dataclass(frozen=True, slots=True)
class CropSettings:
    """How crops are drawn; sizes in pixels of the canvas."""

    mosaic_share: float = _setting(0.35, "canvases that are mosaics of portraits", least=0, most=1)
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
    least_face_px: float = _setting(6.0, "shorter faces are ignored", least=0)
    least_visible: float = _setting(
        0.4, "share of a face that must be left by the crop", least=0, most=1
    )


@dataclass(frozen=True, slots=True)
class LossSettings:
    """Weights of the parts."""

    negatives: int = _setting(3, "hard background anchors for each face anchor", least=1)
    box: float = _setting(2.0, "weight of the box loss", least=0)
    gender: float = _setting(2.0, "weight of the gender loss", least=0)
    # labels are wrong in one to four of a hundred
    gender_smoothing: float = _setting(0.05, "label smoothing of gender", least=0, most=0.5)
    gender_anchors: int = _setting(512, "most anchors of a batch whose gender is learned", least=1)


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """A run of `videogender train`. Exactly one of `minutes` and `steps` is over 0."""

    minutes: float = _setting(
        0.0, "length of the schedule in minutes of training, validation not counted", least=0
    )
    steps: int = _setting(0, "length of the schedule in steps instead", least=0)
    side: int = _setting(256, "canvas in pixels, a multiple of 32", least=32, most=4096)
    batch: int = _setting(16, "canvases a step and process", least=1, most=65536)
    large_every: int = _setting(
        5, "every n-th step has canvases of twice the side, a quarter as many; 0 has none", least=0
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
    crops: CropSettings = field(default_factory=CropSettings)
    loss: LossSettings = field(default_factory=LossSettings)

    def __post_init__(self) -> None:
        if (self.minutes > 0) == (self.steps > 0):
            raise ConfigError("give the length of training as either --minutes or --steps")
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


def read_recipe(path: Path) -> dict[str, object]:
    """Read a YAML file of settings as values by key, such as `{"crops.aspect": 0.1}`.

    Raises:
        ConfigError: the file cannot be read or is not YAML; keys are checked by `with_values`.
    """
    import yaml

    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot read this file: {error.strerror or error}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(found or {}, dict):
        raise ConfigError(f"{path}: should hold `key: value` lines")
    return dict(_flatten(found or {}))


def with_values(
    values: Mapping[str, object], base: Mapping[str, object] | None = None, source: str = ""
) -> dict[str, object]:
    """Check values and lay them over others.

    Args:
        values: by key; a text where a number is due is read as YAML, as `--set` needs it.
        base: what holds otherwise, checked already.
        source: where the values are from, for messages.

    Returns:
        All values by key, for `TrainSettings` through `settings_of`.

    Raises:
        ConfigError: a key is unknown (the message names the nearest), or a value ill-typed or out
            of range.
    """
    known, prefix = keys(), f"{source}: " if source else ""
    result = dict(base or {})
    for key, value in values.items():
        if key not in known:
            near = [k for k in known if k.rpartition(".")[2] == key.rpartition(".")[2]]
            near += difflib.get_close_matches(key, known, 1, 0.5)
            hint = f"; did you mean {near[0]}?" if near else f"; known are {', '.join(known)}"
            raise ConfigError(f"{prefix}unknown key {key}{hint}")
        rule = rule_of(key)
        checked = _converted(value, known[key])
        if checked is _WRONG or not all(rule.admits(v) for v in _parts(checked)):
            allowed = f" ({rule.allowed()})" if rule.allowed() else ""
            raise ConfigError(
                f"{prefix}{key} should be {_name(known[key])}{allowed}, got {value!r}"
            )
        result[key] = checked
    return result


def settings_of(values: Mapping[str, object]) -> TrainSettings:
    """Build the settings from checked values by key; see `with_values`."""
    inner: dict[str, dict[str, Any]] = {
        name: {k.partition(".")[2]: v for k, v in values.items() if k.startswith(f"{name}.")}
        for name in ("crops", "loss")
    }
    outer: Any = {k: v for k, v in values.items() if "." not in k}
    return TrainSettings(
        **outer,
        crops=CropSettings(**inner["crops"]),
        loss=LossSettings(**inner["loss"]),
    )


def flat(settings: TrainSettings) -> dict[str, object]:
    """Return all settings by key, tuples as lists, as JSON and YAML hold them."""
    found = {}
    for key in keys():
        value: Any = settings
        for name in key.split("."):
            value = getattr(value, name)
        found[key] = list(value) if isinstance(value, tuple) else value
    return found


def differences(one: Mapping[str, object], other: Mapping[str, object]) -> list[str]:
    """Say in which keys two flat settings differ, such as `batch 16, not 32`."""
    return [
        f"{key} {_plain(one[key])}, not {_plain(other[key])}"
        for key in one
        if key in other and _plain(one[key]) != _plain(other[key])
    ]


def keys() -> dict[str, Any]:
    """Return the type of every setting by its key, inner ones as `crops.aspect`."""
    found: dict[str, Any] = {}
    for name, kind in get_type_hints(TrainSettings).items():
        if is_dataclass(kind):
            inner = get_type_hints(kind)
            found.update({f"{name}.{k}": inner[k] for k in inner})
        else:
            found[name] = kind
    return found


def rule_of(key: str) -> Rule:
    """Return the rule of a setting; KeyError if there is none."""
    section, _, name = key.rpartition(".")
    owner = {"": TrainSettings, "crops": CropSettings, "loss": LossSettings}[section]
    rule: Rule = {f.name: f.metadata["rule"] for f in fields(owner) if f.metadata}[name]
    return rule


_WRONG = object()


def _flatten(values: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _converted(value: object, kind: Any) -> object:
    """Return the value as this type, or `_WRONG`."""
    if isinstance(value, str) and kind is not str:
        import yaml

        try:
            value = yaml.safe_load(value)
        except yaml.YAMLError:
            return _WRONG
        if isinstance(value, str):  # YAML 1.1 takes 1e-3, which has no dot, for a text
            try:
                value = float(value)
            except ValueError:
                return _WRONG
    if get_origin(kind) is tuple:
        inner = get_args(kind)
        if not isinstance(value, (list, tuple)) or not value:
            return _WRONG
        if inner[-1] is not Ellipsis and len(value) != len(inner):
            return _WRONG
        parts = tuple(_converted(v, inner[0]) for v in value)
        return _WRONG if _WRONG in parts else parts
    options = get_args(kind) or (kind,)
    if value is None and type(None) in options:
        return None
    if isinstance(value, int) and not isinstance(value, bool) and float in options:
        return float(value)
    return value if type(value) in options else _WRONG


def _parts(value: object) -> tuple[object, ...]:
    return value if isinstance(value, tuple) else (value,)


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _name(kind: Any) -> str:
    if get_origin(kind) is tuple:
        inner = get_args(kind)
        count = "a list of" if inner[-1] is Ellipsis else f"{len(inner)}"
        return f"{count} {'whole ' if inner[0] is int else ''}numbers"
    options = get_args(kind) or (kind,)
    return {int: "a whole number", float: "a number", str: "a word"}[options[0]]
