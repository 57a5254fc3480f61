"""What a report of a problem needs to know about this installation, and a short self-test.

No private paths are told: folders under the home folder begin with `~`.
"""

from __future__ import annotations

import os
import platform
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from itertools import pairwise
from pathlib import Path

__all__ = ["Finding", "examine"]

REQUIRED = ("torch", "av", "numpy", "pillow", "safetensors", "pyyaml", "typer", "rich")
# `onnx>=1.16; extra == "peers"`: the package, and the extra that it is for
_EXTRA = re.compile(r"([\w.-]+).*;.*extra == ['\"]([\w-]+)['\"]")
DECODERS = ("h264", "hevc", "vp9", "av1", "prores", "mpeg4", "mjpeg", "aac", "mp3", "opus")
ENCODERS = ("libx264", "libx265", "libsvtav1", "aac")
HARDWARE_ENCODERS = ("h264_nvenc", "h264_videotoolbox")


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the examination.

    Attributes:
        topic: what it is about, such as `torch` or `decoders`.
        text: what was found.
        ok: False where something does not work that should.
    """

    topic: str
    text: str
    ok: bool = True


def examine() -> Iterator[Finding]:
    """Yield what is found, as it is found; the self-test comes last and takes seconds."""
    import videogender

    yield Finding("videogender", videogender.__version__)
    yield Finding("python", f"{platform.python_version()}, {platform.platform()}")
    for part in (_packages, _processor, _devices, _codecs, _screen, _cameras, _weights):
        yield from _guarded(part)
    for name, test in (
        ("network", _test_network),
        ("encode and decode", _test_codec),
    ):
        yield _timed(name, test)


def _guarded(part: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """Turn an error, of which a broken installation has many, into a finding."""
    try:
        yield from part()
    except Exception as error:
        topic = part.__name__.strip("_")
        yield Finding(topic, f"{type(error).__name__}: {_private(str(error))}", ok=False)


def _timed(name: str, test: Callable[[], str]) -> Finding:
    began = time.perf_counter()
    try:
        said = test()
    except Exception as error:
        text = f"{type(error).__name__}: {_private(str(error))}"
        return Finding(f"test: {name}", text.splitlines()[0], ok=False)
    return Finding(f"test: {name}", f"{said}, {time.perf_counter() - began:.1f} s")


def _packages() -> Iterator[Finding]:
    for name in REQUIRED:
        found = _version(name)
        yield Finding(name, found or "missing", ok=bool(found))
    there = [f"{name} {found}" for name in _optional() if (found := _version(name))]
    yield Finding("optional packages", ", ".join(there) or "none")


def _optional() -> list[str]:
    """Name the packages of all extras but `test`, as the installed package states them."""
    stated = (_EXTRA.match(line) for line in requires("videogender") or [])
    return sorted({found[1] for found in stated if found and found[2] != "test"})


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _processor() -> Iterator[Finding]:
    import torch

    from videogender.cores import cores
    from videogender.devices import has_native_bf16
    from videogender.network.quantized import FULL, weight_levels

    bf16 = "native" if has_native_bf16(torch.device("cpu")) else "not native, so fp32 stands for it"
    try:
        int8 = "int8 with VNNI" if weight_levels() == FULL else "int8 without VNNI"
    except (AttributeError, RuntimeError):
        int8 = "no int8 in this build of PyTorch"
    yield Finding(
        "processor",
        f"{platform.machine()}, {cores()} cores for us, {torch.get_num_threads()} threads, "
        f"{torch.backends.cpu.get_cpu_capability()}, {int8}, bf16 {bf16}",
    )


def _devices() -> Iterator[Finding]:
    import torch

    from videogender.devices import choose_device

    found = ["cpu"]
    for index in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(index)
        found.append(f"cuda:{index} ({facts.name}, {facts.total_memory / 2**30:.0f} GiB)")
    if torch.backends.mps.is_available():
        found.append("mps")
    build = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built for the CPU"
    yield Finding("devices", f"{', '.join(found)}; auto takes {choose_device('auto')}; {build}")


def _codecs() -> Iterator[Finding]:
    import av

    from videogender.config import VideoSettings
    from videogender.sinks.encoder import opens

    known = av.codecs_available
    library = ".".join(map(str, av.library_versions["libavcodec"]))
    decoders = ", ".join(name for name in DECODERS if name in known)
    yield Finding("decoders", f"{decoders} (libavcodec {library})")
    encoders = [name for name in ENCODERS if name in known]
    hardware = (name for name in HARDWARE_ENCODERS if name in known)
    encoders += [name for name in hardware if opens(VideoSettings(codec=name))]
    yield Finding("encoders", ", ".join(encoders), ok="libx264" in encoders)


def _screen() -> Iterator[Finding]:
    try:
        import cv2
    except ImportError as error:
        yield Finding("opencv", f"cannot be loaded ({error}): no window and no camera through it")
        return
    shown = (
        sys.platform != "linux" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )
    yield Finding("opencv", f"{cv2.__version__}, {'a' if shown else 'no'} display for a window")


def _cameras() -> Iterator[Finding]:
    from videogender.sources.cameras import list_cameras

    found = [str(camera) for camera in list_cameras()]
    yield Finding("cameras", ", ".join(found) or "none found")


def _weights() -> Iterator[Finding]:
    from videogender.weights_store import known

    for entry in known():
        if entry.size_bytes:
            text = f"{entry.path}, SHA-256 {entry.sha256[:12]}"
            said = _private(entry.problem or text)
            yield Finding(f"weights: {entry.name}", said, ok=not entry.problem)
        else:
            yield Finding(f"weights: {entry.name}", "not here")


def _test_network() -> str:
    """Look at a picture without anybody in it."""
    import numpy as np

    from videogender.detector import Detector

    detector = Detector.load("lite")
    began = time.perf_counter()
    faces = detector([np.full((480, 640, 3), 127, np.uint8)])[0]
    if len(faces):
        raise RuntimeError(f"{len(faces)} faces in a plain grey picture")
    return f"{detector.describe()}, first frame {1000 * (time.perf_counter() - began):.0f} ms"


def _test_codec() -> str:
    """Encode ten frames as annotate does, and read them back."""
    import io

    import av
    import numpy as np

    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as out:
        stream = out.add_stream("libx264", rate=25, options={"preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for level in range(0, 250, 25):
            picture = av.VideoFrame.from_ndarray(np.full((240, 320, 3), level, np.uint8))
            out.mux(stream.encode(picture))
        out.mux(stream.encode(None))
    file.seek(0)
    with av.open(file, "r") as back:
        levels = [frame.to_ndarray(format="gray").mean() for frame in back.decode(video=0)]
    if len(levels) != 10 or any(b <= a for a, b in pairwise(levels)):
        raise RuntimeError(f"{len(levels)} of 10 frames came back in order")
    return "10 frames there and back"


def _private(text: str) -> str:
    """Replace the home folder, whose name is often a person's."""
    return text.replace(str(Path.home()), "~")
