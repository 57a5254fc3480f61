"""Another network's forward pass, from its ONNX file, under onnxruntime."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np

from videogender.benchmark.timing import SIZE_WH, time_runs
from videogender.errors import ConfigError

__all__ = ["PeerPass"]


class PeerPass:
    """A part: the peer on random pixels, batch 1, on the CPU.

    Raises:
        ConfigError: onnxruntime is not installed, or the file does not take one RGB image.
    """

    def __init__(self, file: str, threads: int) -> None:
        try:
            runtime: Any = import_module("onnxruntime")
        except ImportError as error:
            raise ConfigError("--peer needs onnxruntime: pip install onnxruntime") from error
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        # errors are told by us, in one line
        options.log_severity_level = 4
        try:
            self._session = runtime.InferenceSession(
                file, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's own classes are not public
            first = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ConfigError(f"{file}: not an ONNX model that can be run ({first})") from error
        inputs = self._session.get_inputs()
        shape = inputs[0].shape
        if len(inputs) != 1 or len(shape) != 4 or inputs[0].type != "tensor(float)":
            taken = ", ".join(f"{each.name} {each.type} {each.shape}" for each in inputs)
            raise ConfigError(
                f"{file}: expected one float image [1, 3, H, W] as input, not {taken}"
            )
        # a size that the file leaves open has a name or nothing in place of a number
        height, width = (
            given if isinstance(given, int) else usual
            for given, usual in zip(shape[2:], SIZE_WH[::-1], strict=True)
        )
        self._size_wh = (width, height)
        generator = np.random.default_rng(0)
        pixels = generator.random((1, 3, height, width), np.float32) * 255
        self._feed = {inputs[0].name: pixels}
        try:
            self._session.run(None, self._feed)
        except Exception as error:
            first = str(error).splitlines()[0]
            raise ConfigError(f"{file}: does not run at {width}x{height} ({first})") from error

    def facts(self) -> dict[str, Any]:
        """Return the size (width, height) it is measured at."""
        return {"size_wh": self._size_wh}

    def ask(self, seconds: float) -> dict[str, Any]:
        """Run for about `seconds` and return the milliseconds of each run."""
        return {"ms": time_runs(lambda: self._session.run(None, self._feed), seconds)}
