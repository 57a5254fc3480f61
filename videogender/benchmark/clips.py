"""The ways from a clip to a result: annotated, data only, transcoded; and a clip where none is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np

from videogender.config import Settings, VideoSettings
from videogender.errors import OutputError, SourceError
from videogender.sources.video import VideoSource

__all__ = ["Annotate", "Cut", "Data", "MakeClip", "Stream", "Transcode"]

# Enough for a threaded decoder and encoder to be in full swing.
WARM_UP_SECONDS = 1.0

SYNTHETIC_WH = (1280, 720)
SYNTHETIC_RATE = 25
SYNTHETIC_SECONDS = 6


class Annotate:
    """A part: annotated video, as `videogender annotate` writes it, without loading the model."""

    def __init__(self, detect: dict[str, Any], clip: str, folder: str) -> None:
        from videogender.benchmark.network import load

        self._detector = load(detect)
        self._settings = Settings(detect=self._detector.settings)
        self._clip, self._folder = clip, Path(folder)
        self.ask(WARM_UP_SECONDS)

    def _outputs(self) -> dict[str, Any]:
        return {"output": self._folder / "annotated.mp4"}

    def facts(self) -> dict[str, Any]:
        """Return nothing; the forward pass knows the facts."""
        return {}

    def ask(self, end_seconds: float | None) -> dict[str, Any]:
        """Annotate the clip once and return seconds, frames and faces."""
        from videogender.annotation import annotate

        began = time.perf_counter()
        (summary,) = annotate(
            self._clip,
            **self._outputs(),
            detector=self._detector,
            settings=self._settings,
            end_seconds=end_seconds,
            force=True,
        )
        if summary.error is not None:
            raise summary.error
        return {
            "seconds": time.perf_counter() - began,
            "frames": summary.frames,
            "faces": summary.faces,
        }


class Data(Annotate):
    """A part: what `videogender annotate --no-video --json` writes, without loading the model."""

    def _outputs(self) -> dict[str, Any]:
        return {"video": False, "json": self._folder / "faces.jsonl"}


class Stream:
    """A part: faces of each frame, nothing written."""

    def __init__(self, detect: dict[str, Any], clip: str) -> None:
        from videogender.benchmark.network import load

        self._detector = load(detect)
        self._clip = clip
        self.ask(WARM_UP_SECONDS)

    def facts(self) -> dict[str, Any]:
        """Return nothing; the forward pass knows the facts."""
        return {}

    def ask(self, end_seconds: float | None) -> dict[str, Any]:
        """Find the faces of the clip once and return seconds and frames."""
        from videogender.pipeline import stream
        from videogender.sources import open_source

        began = time.perf_counter()
        with open_source(self._clip, end_seconds=end_seconds) as source:
            frames = sum(1 for _ in stream(source, self._detector))
        return {"seconds": time.perf_counter() - began, "frames": frames}


class Transcode:
    """A part: the clip through PyAV with annotate's encoder settings, its sound copied.

    Nothing of videogender's own sinks takes part, so that the comparison shows what they cost.
    """

    def __init__(self, clip: str, folder: str) -> None:
        self._clip, self._output = clip, Path(folder) / "transcoded.mp4"
        self.ask(25)

    def facts(self) -> dict[str, Any]:
        """Return size and length of the whole clip."""
        with VideoSource(Path(self._clip)) as source:
            return {
                "source_wh": (source.width, source.height),
                "duration_seconds": source.duration_seconds,
            }

    def ask(self, frames: int) -> dict[str, Any]:
        """Transcode the first frames once and return the seconds."""
        began = time.perf_counter()
        try:
            done = transcode(Path(self._clip), self._output, VideoSettings(), frames)
        except (av.FFmpegError, OSError) as error:
            raise OutputError(f"{self._clip}: PyAV alone cannot transcode it ({error})") from error
        return {"seconds": time.perf_counter() - began, "frames": done}


def transcode(source: Path, target: Path, settings: VideoSettings, frames: int) -> int:
    """Decode and encode the first frames of a video, as directly as PyAV allows.

    Args:
        source: any video.
        target: an MP4 file, which is overwritten.
        settings: of the encoder.
        frames: how many.

    Returns:
        how many there were.
    """
    done = 0
    with (
        av.open(f"file:{source}") as reading,
        av.open(
            f"file:{target}", "w", format="mp4", container_options={"movflags": "+faststart"}
        ) as writing,
    ):
        picture = reading.streams.video[0]
        picture.thread_type = "AUTO"
        encoder: Any = writing.add_stream(settings.codec, rate=picture.average_rate or 25)
        context = encoder.codec_context
        context.width, context.height = picture.width // 2 * 2, picture.height // 2 * 2
        context.pix_fmt, context.thread_type = "yuv420p", "AUTO"
        context.time_base = picture.time_base
        context.options = {"crf": str(settings.crf), "preset": settings.preset}
        copied = {s.index: writing.add_stream_from_template(s) for s in _copyable(reading)}
        for packet in reading.demux():
            if packet.stream.index in copied and packet.dts is not None:
                packet.stream = copied[packet.stream.index]
                writing.mux(packet)
            if packet.stream is not picture:
                continue
            for frame in packet.decode()[: frames - done]:
                assert isinstance(frame, av.VideoFrame)
                # The decoder's picture types would dictate the encoder's.
                frame.pict_type = 0
                even = frame.reformat(context.width, context.height, "yuv420p")
                writing.mux(encoder.encode(even))
                done += 1
            if done == frames:
                break
        writing.mux(encoder.encode(None))
    return done


def _copyable(reading: av.container.InputContainer) -> Iterator[Any]:
    """Yield the sound that MP4 takes as it is."""
    for stream in reading.streams.audio:
        if stream.codec_context is not None and stream.codec_context.name in ("aac", "mp3", "ac3"):
            yield stream


class Cut:
    """A part: the beginning of a clip as a file, as not every program can stop where it is told to.

    Nothing is encoded anew. Asked, it tells what is in a file that somebody wrote.
    """

    def __init__(self, clip: str, target: str, end_seconds: float | None) -> None:
        with VideoSource(Path(clip)) as source:
            self._size_wh = source.width, source.height
            length = source.duration_seconds
        self._path = clip
        if end_seconds is not None and (length is None or length > end_seconds):
            try:
                cut(Path(clip), Path(target), end_seconds)
            except (av.FFmpegError, OSError, ValueError) as error:
                raise SourceError(
                    f"{clip}: cannot be cut to {end_seconds:g} s without encoding it anew "
                    f"({error}); --seconds 0 takes all of it"
                ) from error
            self._path = target

    def facts(self) -> dict[str, Any]:
        """Return where the beginning lies, its size upright and its length."""
        found = self.ask(self._path)
        return {"path": self._path, "size_wh": self._size_wh, **found}

    def ask(self, path: str) -> dict[str, Any]:
        """Decode a video, and return its frames, its length and whether it has sound."""
        try:
            with av.open(f"file:{path}") as reading:
                has_sound = bool(reading.streams.audio)
                seconds = (reading.duration or 0) / av.time_base
                frames = sum(1 for _ in reading.decode(video=0))
        except (av.FFmpegError, OSError) as error:
            raise SourceError(f"{path}: cannot be decoded ({error})") from error
        return {"frames": frames, "seconds": seconds, "has_sound": has_sound}


def cut(source: Path, target: Path, end_seconds: float) -> None:
    """Copy the beginning of a video and its sound, packet by packet.

    Args:
        source: any video.
        target: a file of the same kind, which is overwritten.
        end_seconds: where to end, by the clock of decoding.
    """
    with av.open(f"file:{source}") as reading, av.open(f"file:{target}", "w") as writing:
        picture = reading.streams.video[0]
        copied: dict[int, Any] = {
            stream.index: writing.add_stream_from_template(stream)
            for stream in (picture, *_copyable(reading))
        }
        for packet in reading.demux([reading.streams[index] for index in copied]):
            if packet.dts is None or packet.time_base is None:
                continue
            if packet.dts * packet.time_base >= end_seconds:
                if packet.stream is picture:
                    break
                continue
            packet.stream = copied[packet.stream.index]
            writing.mux(packet)


class MakeClip:
    """A part: draws and encodes a clip for those who have none at hand."""

    def __init__(self, path: str) -> None:
        make_clip(Path(path))

    def facts(self) -> dict[str, Any]:
        """Return nothing; the clip is there."""
        return {}

    def ask(self) -> dict[str, Any]:
        """Return nothing."""
        return {}


def make_clip(path: Path, size_wh: tuple[int, int] = SYNTHETIC_WH) -> None:
    """Write a video of a drifting texture: detail and movement as in real ones, but no faces.

    Args:
        path: an MP4 file, which is overwritten.
        size_wh: width and height, even, in pixels.
    """
    width, height = size_wh
    generator = np.random.default_rng(0)
    # Blocks of several sizes on top of each other resemble the spectrum of photographs.
    field = np.zeros((height, 2 * width), np.float32)
    for step in (64, 16, 4, 1):
        rough = generator.normal(0, step**0.5, (height // step + 1, 2 * width // step + 1))
        field += rough.repeat(step, 0).repeat(step, 1)[:height, : 2 * width].astype(np.float32)
    luma = np.clip(126 + 6 * field, 16, 235).astype(np.uint8)
    chroma = np.full((height // 2, width), 128, np.uint8)  # both planes, one below the other
    try:
        with av.open(f"file:{path}", "w", format="mp4") as container:
            stream: Any = container.add_stream("libx264", rate=SYNTHETIC_RATE)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            stream.codec_context.options = {"preset": "ultrafast", "crf": "20"}
            for index in range(SYNTHETIC_RATE * SYNTHETIC_SECONDS):
                shift = 2 * index
                planes = np.concatenate([luma[:, shift : shift + width], chroma])
                frame = av.VideoFrame.from_ndarray(planes, "yuv420p")
                frame.pts, frame.time_base = index, Fraction(1, SYNTHETIC_RATE)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    except (av.FFmpegError, OSError) as error:
        raise SourceError(f"no clip was given, and none could be made ({error})") from error
