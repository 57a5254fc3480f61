"""Results of a benchmark as plain values, ready for JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

__all__ = [
    "ClipFacts",
    "Command",
    "EndToEnd",
    "Facts",
    "Forward",
    "FrameCost",
    "Missing",
    "Peer",
    "Results",
    "Rival",
    "Rivals",
    "Round",
    "Spread",
    "StageTime",
]


@dataclass(frozen=True, slots=True)
class Spread:
    """A median and how far most measurements lie from it.

    Attributes:
        median: half of the measurements are below.
        p10: a tenth of them are below.
        p90: a tenth of them are above.
        runs: how many there were.
    """

    median: float
    p10: float
    p90: float
    runs: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Summarise measurements; quantiles between two of them are interpolated.

        Raises:
            ValueError: there are none.
        """
        if not values:
            raise ValueError("nothing was measured")
        ordered = sorted(values)

        def quantile(share: float) -> float:
            place = share * (len(ordered) - 1)
            low = int(place)
            high = min(low + 1, len(ordered) - 1)
            return ordered[low] + (place - low) * (ordered[high] - ordered[low])

        return cls(quantile(0.5), quantile(0.1), quantile(0.9), len(ordered))


@dataclass(frozen=True, slots=True)
class Facts:
    """What was measured, and where.

    Attributes:
        description: the detector in a few words, such as `lite, cpu, fp32, 2 threads`.
        device_name: the GPU's or the processor's own name.
        batch_size: of the detector, in frames.
        parameters: numbers in the network.
        multiply_adds: of one forward pass at 640×480, face and box heads included; gender heads
            run only where faces are and are left out.
        cores: processor cores this process may use.
        versions: of videogender, Python and the libraries that do the work.
    """

    description: str
    model: str
    device: str
    device_name: str
    precision: str
    threads: int
    batch_size: int
    long_side: int
    parameters: int
    multiply_adds: int
    cores: int
    versions: dict[str, str]


@dataclass(frozen=True, slots=True)
class ClipFacts:
    """The video that was worked on.

    Attributes:
        path: the file as it was named, or None for a synthetic clip made for the occasion.
        width, height: upright, in pixels.
        frames: of the part that was used.
        seconds: the same in time.
        faces_per_frame: how many were found on average.
    """

    path: str | None
    width: int
    height: int
    frames: int
    seconds: float
    faces_per_frame: float


@dataclass(frozen=True, slots=True)
class Forward:
    """A forward pass of the network alone, at 640×480.

    Attributes:
        batch: images taken together.
        ms: milliseconds a batch.
        images_per_second: at the median.
        peak_device_bytes: most memory that the GPU held meanwhile, or None on other devices.
    """

    batch: int
    ms: Spread
    images_per_second: float
    peak_device_bytes: int | None


@dataclass(frozen=True, slots=True)
class FrameCost:
    """Where the time of a frame goes, in milliseconds a frame, on frames of the clip.

    Attributes:
        size_wh: at which the network sees a frame, before padding.
        batch: frames taken together.
        scale_ms: decoded samples to RGB of that size; runs in the reader's thread.
        before_ms: from there to the network's input.
        network_ms: the forward pass.
        second_ms: that of the second stage, over the faces close up.
        after_ms: thresholds, boxes, suppression; without the next two.
        cut_ms: faces cut out for the second stage, and its answers put in their places.
        gender_ms: the gender heads, at the anchors of faces.
        around_to_network: all of this but the networks (both stages and the gender heads), scaling
            too, divided by them: the median over batches.
    """

    size_wh: tuple[int, int]
    batch: int
    scale_ms: Spread
    before_ms: Spread
    network_ms: Spread
    second_ms: Spread
    after_ms: Spread
    cut_ms: Spread
    gender_ms: Spread
    around_to_network: Spread


@dataclass(frozen=True, slots=True)
class Round:
    """Seconds that each way through the clip took, one straight after the other."""

    annotate_seconds: float
    data_seconds: float
    stream_seconds: float
    transcode_seconds: float


@dataclass(frozen=True, slots=True)
class EndToEnd:
    """The clip from file to file, model already loaded.

    Attributes:
        annotate_fps: annotated video written.
        data_fps: JSON written, no video; looks as seldom as annotate does.
        stream_fps: faces found in every frame, nothing written.
        transcode_fps: decoded and encoded through PyAV with annotate's encoder settings.
        annotate_to_transcode: ratio of the times of a round.
        rounds: what these come from.
    """

    annotate_fps: Spread
    data_fps: Spread
    stream_fps: Spread
    transcode_fps: Spread
    annotate_to_transcode: Spread
    rounds: tuple[Round, ...]


@dataclass(frozen=True, slots=True)
class StageTime:
    """One stage of annotating the clip, model already loaded.

    Attributes:
        name: such as `decode`; see `videogender.benchmark.stages`.
        ms: milliseconds a frame that it is at work, passes over the video taken together.
        busy: the same as a share of the whole time. Stages run side by side.
    """

    name: str
    ms: Spread
    busy: float


@dataclass(frozen=True, slots=True)
class Command:
    """`videogender annotate CLIP --json -` as a user starts it.

    Attributes:
        first_frame_seconds: from starting the program to the data of the first frame, with
            `--label-by frame`.
        whole_seconds: to its end.
        peak_memory_bytes: most resident memory, or None where the system does not tell.
    """

    first_frame_seconds: Spread
    whole_seconds: Spread
    peak_memory_bytes: int | None


@dataclass(frozen=True, slots=True)
class Peer:
    """Our forward pass on the CPU beside that of another network, in turns.

    Attributes:
        file: the ONNX file.
        size_wh: of the input, 640×480 unless the file takes only another size.
        ours_ms: batch 1.
        peer_ms: batch 1, under onnxruntime with as many threads.
        ours_to_peer: ratio of the medians of each turn.
    """

    file: str
    size_wh: tuple[int, int]
    threads: int
    ours_ms: Spread
    peer_ms: Spread
    ours_to_peer: Spread


@dataclass(frozen=True, slots=True)
class Results:
    """Everything that `videogender bench` measured."""

    facts: Facts
    clip: ClipFacts
    forward: tuple[Forward, ...]
    frame: FrameCost
    end_to_end: EndToEnd
    stages: tuple[StageTime, ...]
    command: Command
    peer: Peer | None

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, named as the attributes are."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Rival:
    """A command that finds the faces of the clip and writes a video, ours or another.

    Attributes:
        name: of what runs.
        at: the size at which its network looks, such as `640x360`.
        fps: frames of the clip, by the seconds from the command's start to its end.
        seconds: those.
        cpu_seconds: of the processor, with all processes that it started; None if unknown.
        peak_memory_bytes: most resident memory, of its largest process; None if unknown.
        frames_written: in its video.
        has_sound: whether that has any.
        faces: found in all frames; None if it does not say.
    """

    name: str
    at: str
    fps: Spread
    seconds: Spread
    cpu_seconds: Spread | None
    peak_memory_bytes: int | None
    frames_written: int
    has_sound: bool
    faces: int | None


@dataclass(frozen=True, slots=True)
class Missing:
    """What could not be measured, and how to get it or why it failed."""

    name: str
    why: str


@dataclass(frozen=True, slots=True)
class Rivals:
    """Everything that `videogender bench --peers` measured; our own command is the first row."""

    facts: Facts
    clip: ClipFacts
    rows: tuple[Rival, ...]
    missing: tuple[Missing, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, named as the attributes are."""
        return asdict(self)
