"""A peer: another detector's ONNX file under onnxruntime, asked as ours is."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from videogender.cores import cores
from videogender.errors import ConfigError, ModelError
from videogender.evaluation.peers.forms import Floats, Form
from videogender.evaluation.peers.open_sizes import open_sizes
from videogender.frames import Faces, RgbPicture
from videogender.network.boxes import nms

FORMS = ("yunet", "scrfd", "centerface")  # modules of this package
PAD_MULTIPLE = 32
MOST_CANDIDATES = 3000
BLANK_HW = (64, 96)  # two sizes that no form takes for one another

__all__ = ["Peer"]


class Peer:
    """Finds faces with another network. They have no gender.

    Args:
        file: an ONNX file of a known form.
        long_side: larger pictures shrink to it; 0 takes them as they are.
        face_threshold: least score.
        threads: of its own session; 0 takes as many as there are cores.

    Raises:
        ConfigError: onnxruntime is not installed.
        ModelError: the file cannot be run, or is of no known form.
    """

    def __init__(
        self, file: Path, *, long_side: int, face_threshold: float, threads: int = 0
    ) -> None:
        self._file = file
        self._long_side = long_side
        self._face_threshold = face_threshold
        self._fixed_hw: tuple[int, int] | None = None
        self._session = _session(file, threads, open_sizes)
        try:
            self._form = self._recognise(BLANK_HW)
        except ModelError:  # perhaps its operators, too, are for one size
            self._session = _session(file, threads)
            self._fixed_hw = _declared_hw(self._session)
            if self._fixed_hw is None:
                raise
            self._form = self._recognise(self._fixed_hw)

    @property
    def batch_size(self) -> int:
        """Pictures that it takes together."""
        return 1

    @property
    def name(self) -> str:
        """Its form and its file, such as `YuNet (yunet.onnx)`."""
        return f"{self._form.NAME} ({self._file.name})"

    def input_size_wh(self, width: int, height: int) -> tuple[int, int]:
        """Return the size (width, height) at which a picture of this size is looked at."""
        longest = max(width, height)
        if not self._long_side or longest <= self._long_side:
            return width, height
        scale = self._long_side / longest
        return max(1, round(width * scale)), max(1, round(height * scale))

    def __call__(self, images: Sequence[NDArray[np.uint8]]) -> list[Faces]:
        """Find the faces of HWC uint8 **RGB** images, boxes in their own pixels."""
        sizes = [(image.shape[1], image.shape[0]) for image in images]
        scaled = [
            RgbPicture(image).to_rgb(self.input_size_wh(*size))
            for image, size in zip(images, sizes, strict=True)
        ]
        return self.detect(scaled, sizes)

    def detect(
        self, scaled: Sequence[NDArray[np.uint8]], sizes_wh: Sequence[tuple[int, int]]
    ) -> list[Faces]:
        """Find faces in pictures that have the network's size; boxes in pixels of `sizes_wh`."""
        return [self._find(image, size) for image, size in zip(scaled, sizes_wh, strict=True)]

    def _find(self, image: NDArray[np.uint8], size_wh: tuple[int, int]) -> Faces:
        height, width = self._fixed_hw or (
            math.ceil(image.shape[0] / PAD_MULTIPLE) * PAD_MULTIPLE,
            math.ceil(image.shape[1] / PAD_MULTIPLE) * PAD_MULTIPLE,
        )
        if image.shape[0] > height or image.shape[1] > width:
            raise ModelError(
                f"{self._file}: takes pictures of up to {width}x{height} only; "
                f"use --long-side {min(height, width)}"
            )
        padded = np.zeros((height, width, 3), np.uint8)
        padded[: image.shape[0], : image.shape[1]] = image
        outputs = self._run(self._form.prepare(padded))
        boxes, scores = self._form.decode(outputs, (height, width))
        chosen = np.flatnonzero(scores >= self._face_threshold)
        order = chosen[np.argsort(-scores[chosen], kind="stable")][:MOST_CANDIDATES]
        kept = order[nms(torch.from_numpy(boxes[order]), self._form.NMS_IOU)[0].numpy()]
        grow = np.array([size_wh[0] / image.shape[1], size_wh[1] / image.shape[0]] * 2, np.float32)
        return Faces(boxes[kept] * grow, scores[kept], np.full(len(kept), np.nan, np.float32))

    def _recognise(self, size_hw: tuple[int, int]) -> Form:
        """Find out which form the file has, by what it answers to a blank image."""
        size = f"{size_hw[1]}x{size_hw[0]}"
        try:
            outputs = self._run(np.zeros((1, 3, *size_hw), np.float32))
        except ModelError as error:
            raise _stranger(self._file, f"it does not run at {size}") from error
        for name in FORMS:
            form: Any = import_module(f"videogender.evaluation.peers.{name}")
            if form.recognises(outputs, size_hw):
                known: Form = form
                return known
        shapes = ", ".join(str(list(output.shape)) for output in outputs[:12])
        raise _stranger(self._file, f"for an image of {size} it gives {shapes}")

    def _run(self, pixels: Floats) -> list[Floats]:
        try:
            outputs = self._session.run(None, {self._session.get_inputs()[0].name: pixels})
        except Exception as error:  # onnxruntime's own classes are not public
            size = "x".join(str(n) for n in pixels.shape[:1:-1])
            raise ModelError(f"{self._file}: does not run at {size} ({_first(error)})") from error
        return [np.asarray(output, np.float32) for output in outputs]


def _session(
    file: Path, threads: int, change: Callable[[bytes], bytes] = lambda model: model
) -> Any:
    """Load a file, its bytes changed before."""
    try:
        runtime: Any = import_module("onnxruntime")
    except ImportError as error:
        raise ConfigError("--peer needs onnxruntime: pip install 'videogender[onnx]'") from error
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads or cores()
    options.inter_op_num_threads = 1
    # its threads must not keep a core busy while the other network runs
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4  # errors are told by us, in one line
    try:
        model = change(file.read_bytes())
        session = runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except OSError as error:
        raise ModelError(f"{file}: cannot be read: {error.strerror or error}") from error
    except Exception as error:
        raise ModelError(f"{file}: not an ONNX model that can be run ({_first(error)})") from error
    inputs = session.get_inputs()
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].type != "tensor(float)":
        taken = ", ".join(f"{each.name} {each.type} {each.shape}" for each in inputs)
        raise ModelError(f"{file}: expected one float image [1, 3, H, W] as input, not {taken}")
    return session


def _declared_hw(session: Any) -> tuple[int, int] | None:
    """Return the one size that a file takes, or None if it names none."""
    batch, _, height, width = session.get_inputs()[0].shape
    if batch == 1 and isinstance(height, int) and isinstance(width, int):
        return height, width
    return None


def _stranger(file: Path, why: str) -> ModelError:
    return ModelError(f"{file}: neither a YuNet nor an SCRFD nor a CenterFace ({why})")


def _first(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
