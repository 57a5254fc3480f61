"""Settings: every default of the tool stands here, once, with its range and its explanation."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast, get_type_hints

from videogender.errors import ConfigError, ModelError, VideogenderError

if TYPE_CHECKING:
    import yaml

__all__ = [
    "DetectSettings",
    "LabelSettings",
    "RenderSettings",
    "Rule",
    "Settings",
    "TrackSettings",
    "VideoSettings",
    "flag_of",
    "load_settings",
    "rule_of",
    "to_yaml",
    "with_overrides",
]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Rule:
    """What a setting means and which values it takes.

    Attributes:
        help: one line for `--help` and for the comments of `videogender config show`.
        choices: the allowed words, or empty if the text is free.
        pattern: a regular expression of what is allowed besides the choices.
        least: smallest allowed number, or None if the setting is no number.
        most: largest allowed number, or None for an open end.
        or_zero: 0 is allowed although it lies outside the range.
        error: the class raised for a value outside; it decides the exit code.
    """

    help: str
    choices: tuple[str, ...] = ()
    pattern: str = ""
    least: float | None = None
    most: float | None = None
    or_zero: bool = False
    error: type[VideogenderError] = ConfigError

    def allowed(self) -> str:
        """Say what is allowed, e.g. `0 to 1` or `box, corners or none`."""
        if self.choices:
            return f"{', '.join(self.choices[:-1])} or {self.choices[-1]}"
        if self.least is None:
            return ""
        ends = f"{self.least:g} " + ("or more" if self.most is None else f"to {self.most:g}")
        return f"0, or {ends}" if self.or_zero else ends

    def admits(self, value: object) -> bool:
        """Tell whether a value of the right type lies within the rule."""
        if isinstance(value, str):
            if not self.choices or value in self.choices:
                return True
            return bool(self.pattern and re.fullmatch(self.pattern, value))
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return True
        if self.or_zero and value == 0:
            return True
        least = -math.inf if self.least is None else self.least
        most = math.inf if self.most is None else self.most
        return math.isfinite(value) and least <= value <= most


def _setting(default: T, help: str, **rule: Any) -> T:
    """Declare a field with its default and its rule."""
    return field(default=default, metadata={"rule": Rule(help, **rule)})


@dataclass(frozen=True, slots=True)
class DetectSettings:
    """How faces are found."""

    model: str = _setting(
        "lite", "network that finds the faces", choices=("lite", "vgg16"), error=ModelError
    )
    weights: str | None = _setting(None, "a .safetensors file instead of the model's own weights")
    device: str = _setting(
        "auto",
        "where the network runs; cuda:1 is the second GPU",
        choices=("auto", "cpu", "cuda", "mps"),
        pattern=r"cuda:\d+",
    )
    precision: str = _setting(
        "auto",
        "number format of the network; auto takes what is fastest and safe",
        choices=("auto", "fp32", "bf16", "fp16"),
    )
    long_side: int = _setting(
        640,
        "larger frames are shrunk to this many pixels for the network; 0 takes them as they are",
        least=32,
        most=16384,
        or_zero=True,
    )
    face_threshold: float = _setting(0.5, "least face score that is reported", least=0, most=1)
    nms_iou: float = _setting(
        0.4, "overlap (IoU) above which the weaker of two boxes is dropped", least=0, most=1
    )
    min_face_px: float = _setting(
        0.0, "faces less high than this, in source pixels, are dropped", least=0
    )
    batch_size: int = _setting(
        0, "frames in a forward pass; 0 lets the device decide", least=0, most=1024
    )
    threads: int = _setting(0, "CPU threads of the network; 0 takes all cores", least=0, most=1024)


@dataclass(frozen=True, slots=True)
class TrackSettings:
    """How faces are followed through a video."""

    label_by: str = _setting(
        "track",
        "label a face by its whole time in view, or each frame by itself, without tracks",
        choices=("track", "frame"),
    )
    every: int = _setting(
        1, "look for faces in every so-many-th frame; between them boxes follow", least=1, most=1000
    )
    detect_fps: float = _setting(
        0.0, "look for faces this many times a second; 0 means in every frame", least=0, most=1000
    )
    low_threshold: float = _setting(
        0.2, "faces that are followed already may be this unsure", least=0, most=1
    )
    min_hits: int = _setting(3, "a face counts once it was found this often", least=1, most=1000)
    lost_seconds: float = _setting(
        1.0, "a face that comes back within this time keeps its track", least=0, most=60
    )
    bridge_seconds: float = _setting(
        0.5, "gaps in a track up to this long are filled, with dashed boxes", least=0, most=60
    )
    half_life_seconds: float = _setting(
        4.0, "in live video, evidence for a label counts half after this time", least=0.01
    )
    cuts: bool = _setting(True, "end all tracks where the picture changes at once")


@dataclass(frozen=True, slots=True)
class LabelSettings:
    """How probabilities become labels."""

    unsure_below: float = _setting(
        0.65, "a face is `unsure` if its likelier label has less than this", least=0.5, most=1
    )


@dataclass(frozen=True, slots=True)
class RenderSettings:
    """How faces are drawn."""

    style: str = _setting("box", "what is drawn around a face", choices=("box", "corners", "none"))
    labels: bool = _setting(True, "write `female 0.93` beside the face")
    blur: bool = _setting(False, "make faces unrecognisable")


@dataclass(frozen=True, slots=True)
class VideoSettings:
    """How annotated video is encoded."""

    codec: str = _setting("libx264", "FFmpeg's name of the video encoder")
    crf: int = _setting(20, "quality of the video: lower is better and larger", least=0, most=63)
    preset: str = _setting("veryfast", "the encoder's trade of speed for size")


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of a run, as a configuration file groups them."""

    detect: DetectSettings = field(default_factory=DetectSettings)
    track: TrackSettings = field(default_factory=TrackSettings)
    label: LabelSettings = field(default_factory=LabelSettings)
    render: RenderSettings = field(default_factory=RenderSettings)
    video: VideoSettings = field(default_factory=VideoSettings)


def load_settings(path: str | Path | None) -> Settings:
    """Read a YAML configuration file; what it leaves out keeps its default.

    Args:
        path: the file, or None for the defaults alone.

    Raises:
        ConfigError: the file cannot be read, is not YAML, or holds an unknown or ill-typed key or
            a value out of range; the message names file, line and key.
        ModelError: the file names an unknown model.
    """
    if path is None:
        return Settings()
    import yaml

    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path}: cannot read this file: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not a YAML file (it is not UTF-8 text)") from error
    try:
        found = list(_entries(text, str(path)))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise ConfigError(f"{where}: not valid YAML: {error.problem or error.context}") from error
    except (yaml.YAMLError, ValueError) as error:
        message = " ".join(str(error).split())
        raise ConfigError(f"{path}: not valid YAML: {message}") from error
    settings = Settings()
    seen: dict[str, str] = {}
    for key, value, where in found:
        if key in seen:
            raise ConfigError(f"{where}: {key} is set twice (first at {seen[key]})")
        seen[key] = where
        settings = _assign(settings, key, value, prefix=f"{where}: ", shown=key)
    return settings


def with_overrides(
    settings: Settings, overrides: Mapping[str, object], *, as_flags: bool = False
) -> Settings:
    """Return the settings with some of them replaced.

    Args:
        settings: what holds where nothing overrides it.
        overrides: values by key, such as `{"detect.long_side": 416}`; None changes nothing.
        as_flags: messages name `--long-side`, as the command line does, not `detect.long_side`.

    Raises:
        ConfigError: a key is unknown, or a value ill-typed or out of range.
        ModelError: the model is unknown.
    """
    for key, value in overrides.items():
        if value is not None:
            shown = flag_of(key) if as_flags else key
            settings = _assign(settings, key, value, prefix="", shown=shown)
    return settings


def to_yaml(settings: Settings) -> str:
    """Write settings as a commented configuration file, which `load_settings` reads back."""
    import yaml

    lines = []
    for section in fields(settings):
        lines.append(f"{section.name}:")
        values = getattr(settings, section.name)
        for entry in fields(values):
            value = {entry.name: getattr(values, entry.name)}
            text = yaml.safe_dump(value, width=10_000).strip()
            rule = rule_of(f"{section.name}.{entry.name}")
            allowed = rule.allowed()
            lines.append(f"  # {rule.help}{f' ({allowed})' if allowed else ''}")
            lines.append(f"  {text}")
    return "\n".join(lines) + "\n"


def rule_of(key: str) -> Rule:
    """Return the rule of a setting, e.g. of `detect.long_side`; KeyError if there is none."""
    section, _, name = key.partition(".")
    for entry in fields(_sections()[section]):
        if entry.name == name:
            return cast(Rule, entry.metadata["rule"])
    raise KeyError(key)


def flag_of(key: str) -> str:
    """Name the command line's flag for a setting: `--long-side` for `detect.long_side`."""
    return "--" + key.partition(".")[2].replace("_", "-")


def _sections() -> dict[str, Any]:
    return get_type_hints(Settings)


def _keys() -> list[str]:
    return [f"{name}.{entry.name}" for name, kind in _sections().items() for entry in fields(kind)]


def _entries(text: str, path: str) -> Iterator[tuple[str, object, str]]:
    """Yield (key, value, `file:line`) for each setting of a configuration file."""
    import yaml

    loader = yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
        for section, body in _pairs(loader, root, path, "the file"):
            name = str(loader.construct_object(section, deep=True))
            where = f"{path}:{section.start_mark.line + 1}"
            if name not in _sections():
                raise ConfigError(f"{where}: {_unknown(name)}")
            for key, value in _pairs(loader, body, path, name):
                where = f"{path}:{key.start_mark.line + 1}"
                inner = loader.construct_object(key, deep=True)
                yield f"{name}.{inner}", loader.construct_object(value, deep=True), where
    finally:
        loader.dispose()


def _pairs(
    loader: yaml.SafeLoader, node: yaml.Node | None, path: str, name: str
) -> list[tuple[yaml.Node, yaml.Node]]:
    """Return the keys and values of a mapping; an empty node is an empty mapping."""
    import yaml

    if node is None or (isinstance(node, yaml.ScalarNode) and node.tag.endswith(":null")):
        return []
    if not isinstance(node, yaml.MappingNode):
        where = f"{path}:{node.start_mark.line + 1}"
        raise ConfigError(f"{where}: {name} should hold `key: value` lines")
    return list(node.value)


def _assign(settings: Settings, key: str, value: object, *, prefix: str, shown: str) -> Settings:
    """Replace one setting after checking its key, type and range."""
    section, _, name = key.partition(".")
    if key not in _keys():
        raise ConfigError(f"{prefix}{_unknown(key)}")
    group = getattr(settings, section)
    kind = get_type_hints(type(group))[name]
    rule = rule_of(key)
    if isinstance(value, int) and not isinstance(value, bool) and kind is float:
        value = float(value)
    if not _is_a(value, kind):
        raise ConfigError(f"{prefix}{shown} should be {_describe(kind, rule)}, got {value!r}")
    if not rule.admits(value):
        raise rule.error(f"{prefix}{shown} should be {_describe(kind, rule)}, got {value!r}")
    return replace(settings, **{section: replace(group, **{name: value})})


def _is_a(value: object, kind: Any) -> bool:
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, kind)


def _describe(kind: Any, rule: Rule) -> str:
    names = {int: "a whole number", float: "a number", bool: "true or false"}
    allowed = rule.allowed()
    if kind in names:
        return f"{names[kind]}{f' ({allowed})' if allowed else ''}"
    return allowed or ("a text or null" if kind == str | None else "a text")


def _unknown(key: str) -> str:
    """Say that a key is unknown and which one was probably meant."""
    keys = _keys()
    # A key in the wrong section, or outside all of them, is as likely as a typing error.
    last = key.rpartition(".")[2]
    near = [known for known in keys if known.partition(".")[2] == last]
    near += difflib.get_close_matches(key, [*keys, *_sections()], 1, 0.6)
    short = {known.partition(".")[2]: known for known in keys}
    near += [short[match] for match in difflib.get_close_matches(last, short, 1, 0.6)]
    if near:
        return f"unknown key {key}; did you mean {near[0]}?"
    return f"unknown key {key}; the sections are {', '.join(_sections())}"
