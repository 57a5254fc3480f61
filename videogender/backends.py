"""What computes the network: PyTorch, or another runtime that reads the network as a graph.

    torch         the network itself; on a CPU in integers (`network.quantized`) or packed
                  (`network.packed`) where that is to be had
    onnxruntime   on the CPU; pip install 'videogender[onnx]'
    openvino      on the CPU; pip install 'videogender[openvino]'

A runtime replaces the network's forward pass and nothing around it: it gives face logits, box
deltas and the taps, from which gender heads are asked in PyTorch. The graph is made once for each
weights file and kept in the user's cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from videogender import __version__
from videogender.errors import ConfigError, ModelError, OutputError
from videogender.network.anchors import anchors_for
from videogender.network.heads import AnchorNetwork, Predictions, grids_of
from videogender.network.packed import answer_alike, pack
from videogender.network.quantized import quantize
from videogender.network.second_stage import SecondOpinion
from videogender.weights_store import cache_dir

RUNTIMES = ("onnxruntime", "openvino")
GRAPH_FORMAT = 1  # counts up when the graph changes under the same version of the project

Forward = Callable[[Tensor], Predictions]

__all__ = ["RUNTIMES", "Engine", "Forward", "choose_backend", "choose_engine"]


@dataclass(frozen=True, slots=True)
class Engine:
    """What computes a network.

    Attributes:
        name: `torch`, or that of another runtime.
        forward: the forward pass.
        judge: the second stage in integers, uint8 [K, S, S, 3] to what it says; None where the
            network's own is to be asked.
        takes_pixels: whether the forward pass reads uint8 pixels as they are.
    """

    name: str
    forward: Forward
    judge: Callable[[Tensor], SecondOpinion] | None = None
    takes_pixels: bool = False


def choose_engine(
    name: str,
    precision: str,
    network: AnchorNetwork,
    mean: Sequence[float],
    dtype: torch.dtype,
    *,
    threads: int,
    weights_sha256: str | None = None,
) -> Engine:
    """Return what computes a network: integers where they are wanted and to be had.

    Args:
        name: see `choose_backend`, as for the last two.
        precision: `int8`, `auto`, or another, which wants no integers.
        network: fused, in fp32 on its device; it is brought to its number format.
        mean: of the pixels that it expects to be subtracted, in its order of channels.
        dtype: its number format.
        threads, weights_sha256: see there.

    Raises:
        ConfigError: integers that were asked for are not to be had; or see there.
        ModelError: see there.
    """
    quantized = None
    if precision in ("auto", "int8") and name not in RUNTIMES:
        quantized = quantize(network, network.ranges, mean, dtype)
    if precision == "int8" and quantized is None:
        raise ConfigError(
            f"--precision int8: not to be had with {network.name} here; it takes weights that know "
            "their ranges, a CPU and --backend torch"
        )
    network.to(dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if quantized is not None:
        return Engine("torch", *quantized, takes_pixels=True)
    return Engine(*choose_backend(name, network, threads=threads, weights_sha256=weights_sha256))


def choose_backend(
    name: str, network: AnchorNetwork, *, threads: int, weights_sha256: str | None = None
) -> tuple[str, Forward]:
    """Return what computes a network, and its name.

    `auto` follows what was measured on an x86 CPU in fp32: for `lite` the packed network is the
    fastest, or as fast; for `vgg16`, and where packing is not to be had, OpenVINO comes before
    onnxruntime and that before PyTorch. What is not installed is passed over, and so are GPUs and
    half precision, which PyTorch alone serves.

    Args:
        name: `torch`, `onnxruntime`, `openvino` or `auto`.
        network: made ready for inference, on its device.
        threads: of the runtime.
        weights_sha256: of the file that the network came from; without it no graph is kept.

    Raises:
        ConfigError: the runtime is missing, or cannot compute on this device or in this precision.
        ModelError: the runtime cannot compute this network.
    """
    weight = network.input_convolution.weight
    if name in RUNTIMES:
        if weight.device.type != "cpu":
            raise ConfigError(
                f"--backend {name} computes on the CPU alone, not on {weight.device}: add "
                "--device cpu, or leave --backend out"
            )
        if weight.dtype != torch.float32:
            raise ConfigError(f"--backend {name} computes in fp32 alone: leave --precision out")
        return name, _start(name, network, threads, weights_sha256)
    packed = pack(network)
    if name == "auto" and packed is None and weight.device.type == "cpu":
        for one in ("openvino", "onnxruntime") if weight.dtype == torch.float32 else ():
            with suppress(ConfigError, ModelError):
                return one, _start(one, network, threads, weights_sha256)
    return "torch", packed or network


class _Session(Protocol):
    """A graph, ready to run."""

    def __call__(self, pixels: NDArray[np.float32]) -> Sequence[NDArray[np.float32]]: ...


class RuntimePass:
    """The forward pass of a network in another runtime.

    Args:
        session: runs the network's graph.
        network: whose graph it is; only its strides are read.
    """

    def __init__(self, session: _Session, network: AnchorNetwork) -> None:
        self._session, self._strides = session, network.strides

    def __call__(self, x: Tensor) -> Predictions:
        """Return what `AnchorNetwork.forward` returns, for float32 [B, 3, H, W] on the CPU."""
        # the detector fills its tensors row by row, so this is their memory as it lies
        pixels = x.permute(0, 2, 3, 1).contiguous().numpy()
        logits, deltas, *taps = map(torch.from_numpy, self._session(pixels))
        features = tuple(taps)
        return Predictions(logits, deltas, features, anchors_for(grids_of(features), self._strides))


class _OnnxRuntimeSession:
    extra: ClassVar[str] = "'videogender[onnx]'"

    def __init__(self, runtime: Any, graph: bytes, threads: int) -> None:
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # threads that wait for work must not keep a core from the decoder and the encoder
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 4  # errors are told by us, in one line
        self._session = runtime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def __call__(self, pixels: NDArray[np.float32]) -> Sequence[NDArray[np.float32]]:
        found: list[NDArray[np.float32]] = self._session.run(None, {"pixels": pixels})
        return found


class _OpenVinoSession:
    extra: ClassVar[str] = "'videogender[openvino]'"

    def __init__(self, runtime: Any, graph: bytes, threads: int) -> None:
        core = runtime.Core()
        self._compiled = core.compile_model(
            core.read_model(graph, b""),
            "CPU",
            {
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_NUM_THREADS": threads,
                "INFERENCE_PRECISION_HINT": "f32",  # else bf16 where the CPU has it
                "ENABLE_CPU_PINNING": False,  # several processes would share the first cores
            },
        )

    def __call__(self, pixels: NDArray[np.float32]) -> Sequence[NDArray[np.float32]]:
        request = self._compiled.create_infer_request()  # its outputs live as long as it does
        results = request.infer([pixels], share_inputs=True, share_outputs=True)
        return [results[output] for output in self._compiled.outputs]


SESSIONS: dict[str, type[_OnnxRuntimeSession] | type[_OpenVinoSession]] = {
    "onnxruntime": _OnnxRuntimeSession,
    "openvino": _OpenVinoSession,
}


def _start(name: str, network: AnchorNetwork, threads: int, digest: str | None) -> RuntimePass:
    """Load a runtime with a network's graph, kept or new, and see that it answers as it should."""
    kind = SESSIONS[name]
    try:
        runtime = import_module(name)
    except ImportError as error:
        raise ConfigError(f"--backend {name} needs {name}: pip install {kind.extra}") from error
    place = None if digest is None else _place(network, digest)
    if place is not None and place.is_file():
        with suppress(ModelError, OSError):  # a damaged one is made anew
            return _checked(name, runtime, network, place.read_bytes(), threads)
    from videogender.network.graph import network_graph

    try:
        graph = network_graph(network)
    except ImportError as error:
        raise ConfigError(f"--backend {name} needs onnx: pip install {kind.extra}") from error
    forward = _checked(name, runtime, network, graph, threads)
    if place is not None:
        _keep(graph, place)
    return forward


def _checked(
    name: str, runtime: Any, network: AnchorNetwork, graph: bytes, threads: int
) -> RuntimePass:
    """Start a runtime and compare it with PyTorch on a small picture."""
    try:
        forward = RuntimePass(SESSIONS[name](runtime, graph, threads), network)
        alike = answer_alike(network, forward)
    except Exception as error:  # runtimes have classes of their own
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise ModelError(f"--backend {name} cannot compute {network.name}: {reason}") from error
    if not alike:
        raise ModelError(f"--backend {name} computes {network.name} otherwise than PyTorch does")
    return forward


def _place(network: AnchorNetwork, digest: str) -> Path:
    name = f"{network.name}-{digest[:24]}-{__version__}-{GRAPH_FORMAT}.onnx"
    return cache_dir() / "graphs" / name


def _keep(graph: bytes, place: Path) -> None:
    """Write a graph into the cache; where that cannot be done it is made again next time."""
    from videogender.sinks.atomic import pending

    with suppress(OSError, OutputError):
        place.parent.mkdir(parents=True, exist_ok=True)
        with pending(place, force=True) as temporary:
            temporary.write_bytes(graph)
