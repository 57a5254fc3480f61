"""Settings: every default of the tool stands here, once, with its range and its explanation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from videogender.config_file import Rule, load, override, rule_in, setting, to_yaml
from videogender.errors import ModelError
from videogender.zones.shapes import line_text, zone_text

__all__ = [
    "DetectSettings",
    "LabelSettings",
    "LiveSettings",
    "RenderSettings",
    "ReportSettings",
    "Rule",
    "Settings",
    "TrackSettings",
    "VideoSettings",
    "ZoneSettings",
    "flag_of",
    "load_settings",
    "rule_of",
    "to_yaml",
    "with_overrides",
]


@dataclass(frozen=True, slots=True)
class DetectSettings:
    """How faces are found."""

    model: str = setting(
        "lite", "network that finds the faces", choices=("lite", "vgg16"), error=ModelError
    )
    weights: str | None = setting(None, "a .safetensors file instead of the model's own weights")
    device: str = setting(
        "auto",
        "where the network runs; cuda:1 is the second GPU",
        choices=("auto", "cpu", "cuda", "mps"),
        pattern=r"cuda:\d+",
    )
    backend: str = setting(
        "torch",
        "what computes the network; auto takes the fastest that is installed",
        choices=("torch", "onnxruntime", "openvino", "auto"),
    )
    precision: str = setting(
        "auto",
        "number format of the network; auto takes what is fastest and safe",
        choices=("auto", "int8", "fp32", "bf16", "fp16"),
    )
    long_side: int = setting(
        640,
        "larger frames are shrunk to this many pixels for the network; 0 takes them as they are",
        least=32,
        most=16384,
        or_zero=True,
    )
    face_threshold: float = setting(0.5, "least face score that is reported", least=0, most=1)
    nms_iou: float = setting(
        0.4, "overlap (IoU) above which the weaker of two boxes is dropped", least=0, most=1
    )
    min_face_px: float = setting(
        0.0, "faces less high than this, in source pixels, are dropped", least=0
    )
    batch_size: int = setting(
        0, "frames in a forward pass; 0 lets the device decide", least=0, most=1024
    )
    threads: int = setting(0, "CPU threads of the network; 0 takes all cores", least=0, most=1024)
    refine: str | None = setting(
        None, "a .safetensors file of the recipe refeed, which looks at larger faces again"
    )
    refine_min_px: float = setting(
        32.0, "faces smaller than this, in source pixels, are not looked at again", least=0
    )
    refine_most: int = setting(
        8, "faces of a frame that are looked at again; the largest are", least=1, most=1000
    )


# In a third of a camera's frames: boxes between two looks lie between two known places.
LOOKS_A_SECOND = 10


@dataclass(frozen=True, slots=True)
class TrackSettings:
    """How faces are followed through a video."""

    label_by: str = setting(
        "track",
        "label a face by its whole time in view, or each frame by itself, without tracks",
        choices=("track", "frame"),
    )
    every: int | None = setting(
        None,
        "look for faces in every so-many-th frame, or in all if 1; between them boxes follow",
        least=1,
        most=1000,
    )
    detect_fps: float | None = setting(
        None,
        "look for faces this many times a second, or in every frame if 0; without either "
        f"{LOOKS_A_SECOND} in files whose faces are followed and not blurred",
        least=0,
        most=1000,
    )
    low_threshold: float = setting(
        0.2, "faces that are followed already may be this unsure", least=0, most=1
    )
    min_hits: int = setting(3, "a face counts once it was found this often", least=1, most=1000)
    lost_seconds: float = setting(
        1.0, "a face that comes back within this time keeps its track", least=0, most=60
    )
    bridge_seconds: float = setting(
        0.5, "gaps in a track up to this long are filled, with dashed boxes", least=0, most=60
    )
    half_life_seconds: float = setting(
        4.0, "in live video, evidence for a label counts half after this time", least=0.01
    )
    cuts: bool = setting(True, "end all tracks where the picture changes at once")

    @property
    def stride(self) -> int:
        """Every so-many-th frame may be looked at; 1 where `every` leaves it open."""
        return self.every or 1


@dataclass(frozen=True, slots=True)
class LabelSettings:
    """How probabilities become labels."""

    unsure_below: float = setting(
        0.7, "a face is `unsure` if its likelier label has less than this", least=0.5, most=1
    )


@dataclass(frozen=True, slots=True)
class RenderSettings:
    """How faces are drawn."""

    style: str = setting("box", "what is drawn around a face", choices=("box", "corners", "none"))
    labels: bool = setting(True, "write `female 0.93` beside the face")
    blur: bool = setting(False, "make faces unrecognisable")


@dataclass(frozen=True, slots=True)
class VideoSettings:
    """How annotated video is encoded."""

    codec: str = setting("libx264", "FFmpeg's name of the video encoder")
    crf: int = setting(20, "quality of the video: lower is better and larger", least=0, most=63)
    preset: str = setting("veryfast", "the encoder's trade of speed for size")
    sound: bool = setting(True, "take the sound along; voices, too, tell who speaks")


@dataclass(frozen=True, slots=True)
class LiveSettings:
    """How live video is taken in and shown."""

    size: str = setting(
        "auto",
        "what a camera is asked for, such as 1280x720; auto leaves it to the driver",
        choices=("auto",),
        pattern=r"[1-9]\d{1,4}x[1-9]\d{1,4}",
        form="WIDTHxHEIGHT",
    )
    fps: float = setting(
        0.0, "frames a second a camera is asked for; 0 leaves it to the driver", least=0, most=1000
    )
    timeout_seconds: float = setting(
        8.0, "silence after which a stream counts as lost", least=0.1, most=600
    )
    give_up_after_seconds: float = setting(
        60.0, "how long to try to bring a lost source back; 0 means for ever", least=0
    )
    hud: bool = setting(True, "write rates, latency and drops into the window's picture")


@dataclass(frozen=True, slots=True)
class ZoneSettings:
    """Where in the picture faces are counted; see `videogender.zones`."""

    zone: tuple[str, ...] = setting(
        (), "areas, each NAME:x1,y1;x2,y2;x3,y3;… in pixels or percent", item=zone_text
    )
    line: tuple[str, ...] = setting(
        (), "lines that faces cross, each NAME:x1,y1;x2,y2", item=line_text
    )


@dataclass(frozen=True, slots=True)
class ReportSettings:
    """What the report page shows."""

    thumbnails: str = setting(
        "blurred",
        "small pictures of the faces in the report; plain ones show who was there",
        choices=("none", "blurred", "plain"),
    )


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of a run, as a configuration file groups them."""

    detect: DetectSettings = field(default_factory=DetectSettings)
    track: TrackSettings = field(default_factory=TrackSettings)
    label: LabelSettings = field(default_factory=LabelSettings)
    render: RenderSettings = field(default_factory=RenderSettings)
    video: VideoSettings = field(default_factory=VideoSettings)
    zones: ZoneSettings = field(default_factory=ZoneSettings)
    report: ReportSettings = field(default_factory=ReportSettings)
    live: LiveSettings = field(default_factory=LiveSettings)

    @property
    def follow(self) -> TrackSettings:
        """How the faces of a file are followed, where `track` leaves it open.

        What shall be hidden is looked for in every frame.
        """
        track = self.track
        if track.detect_fps is not None or track.every is not None:
            return track
        every_frame = self.render.blur or track.label_by == "frame"
        return replace(track, detect_fps=0.0 if every_frame else LOOKS_A_SECOND)


def load_settings(path: str | Path | None) -> Settings:
    """Read a YAML configuration file; what it leaves out keeps its default.

    Args:
        path: the file, or None for the defaults alone.

    Raises:
        ConfigError: the file cannot be read, is not YAML, or holds an unknown or ill-typed key or
            a value out of range; the message names file, line and key.
        ModelError: the file names an unknown model.
    """
    return Settings() if path is None else load(path, Settings())


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
    return override(settings, overrides, flag_of if as_flags else str)


def rule_of(key: str) -> Rule:
    """Return the rule of a setting, e.g. of `detect.long_side`; KeyError if there is none."""
    return rule_in(Settings, key)


def flag_of(key: str) -> str:
    """Name the command line's flag for a setting: `--long-side` for `detect.long_side`."""
    return "--" + key.partition(".")[2].replace("_", "-")
