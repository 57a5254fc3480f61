"""Exports a network for other runtimes: a file that takes a picture and gives faces.

What stands around the network in `Detector` is in the graph too: the mean, the anchors, decoding
and the gender heads, asked only where faces are likely. What remains for the caller is a threshold
and non-maximum suppression. The second stage is a file of its own, which takes close-ups of what
the first proposes.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from videogender.errors import ConfigError, ModelError, OutputError
from videogender.network.anchors import SIZE_IN_STRIDES
from videogender.network.boxes import decode
from videogender.network.heads import FEMALE, MALE, AnchorNetwork, split_head
from videogender.network.layers import Ranges
from videogender.network.rounded import RoundedConv, rounded_copy, rounded_pixels
from videogender.network.second_stage import FACE_PX, SIDE_PX, SecondStage

if TYPE_CHECKING:
    from videogender.detector import Detector

__all__ = [
    "CloseUps",
    "Graph",
    "Standalone",
    "check_onnx",
    "check_openvino",
    "export_onnx",
    "export_openvino",
    "graph_of",
]

OPSET = 18
LEAST_SIDE = 128
# The finest levels have most anchors and hardly any faces: gender is asked of so many of the best.
# The smallest picture has 32 x 32, 16 x 16 and 8 x 8 cells there; coarser levels are swept whole.
ASKED_A_LEVEL = (128, 64, 32)
# By how much answers may differ from torch: where sums round the other way, a step of 255 moves on.
APART_FIRST = {"boxes": 0.05, "scores": 1e-3, "female": 1e-3}
APART_SECOND = {"face": 2e-3, "moves": 1e-3, "female": 2e-3}
ROUNDED_FIRST = {"boxes": 8.0, "scores": 0.05, "female": 0.1}
ROUNDED_SECOND = {"face": 0.5, "moves": 0.05, "female": 0.5}
FIRST = (
    "image: float32 [batch, 3, height, width], RGB, 0 to 255, sides of at least "
    f"{LEAST_SIDE}. boxes: xyxy in input pixels. scores: probability of a face. female: "
    "{female} that the presented gender is female, NaN where it was not asked. Keep scores "
    "above face_threshold, then suppress boxes that overlap by more than nms_iou."
)
ALONE, ADDED = "probability", "log-odds, to be added to the second stage's,"
SECOND = (
    f"crops: float32 [batch, 3, {SIDE_PX}, {SIDE_PX}], RGB, 0 to 255: around the middle of a box "
    f"of the first stage, scaled so that its longer side has {FACE_PX:g} px, in the colour "
    "mean_rgb beyond the picture's edge. face: log-odds of a face. moves: x and y of the centre "
    "in longer sides of that box, logarithms of width and height over that side. female: "
    "log-odds that the presented gender is female. face_mix and gender_mix are the weights of "
    "the first stage's log-odds (of a face, those of its scores), of these, and a constant. Add "
    "them: the sums are the log-odds of both stages together; divide that of female by temperature."
)


@dataclass(frozen=True, slots=True)
class Graph:
    """What is exported of a detector.

    Attributes:
        module: a plain function of tensors.
        given: the name of its input.
        example: an input to trace with.
        free: dimensions of the input that stay free.
        outputs: their names, and by how much each may differ from torch when it is run: pixels for
            boxes, else probability, log-odds or parts of a side.
        description: what goes in and comes out, for the file's metadata.
        trials: shapes of inputs to compare with.
    """

    module: nn.Module
    given: str
    example: Tensor
    free: tuple[int, ...]
    outputs: Mapping[str, float]
    description: str
    trials: tuple[tuple[int, ...], ...]


def graph_of(detector: Detector, stage: str = "first", *, rounds: bool = False) -> Graph:
    """Return what is exported of a detector.

    Args:
        detector: on the CPU, in fp32.
        stage: first or second.
        rounds: with 8-bit integers between and in the convolutions.

    Raises:
        ModelError: there is a fine-tuned head, there is no second stage, or its weights do not know
            their ranges.
    """
    if detector.head is not None:
        raise ModelError(
            f"{detector.model_name}: these weights have a fine-tuned head beside the network, "
            "which cannot be exported"
        )
    network = detector.network
    if rounds and not network.ranges:
        raise ModelError(
            f"{detector.model_name}: these weights do not know their ranges, so that they cannot "
            "become integers; those that `videogender train` writes do"
        )
    if stage == "first":
        outputs = dict(ROUNDED_FIRST if rounds else APART_FIRST)
        if network.second_stage is not None:
            outputs["female"] = (ROUNDED_SECOND if rounds else APART_SECOND)["female"]
        if not network.has_gender:
            del outputs["female"]
        return Graph(
            Standalone(detector, rounds=rounds).eval(),
            "image",
            torch.zeros(2, 3, 256, 320),
            (0, 2, 3),
            outputs,
            FIRST.format(female=ALONE if network.second_stage is None else ADDED),
            ((1, 3, 384, 640), (3, 3, 130, 257)),
        )
    if network.second_stage is None:
        raise ModelError(f"{detector.model_name}: these weights have no second stage to export")
    return Graph(
        CloseUps(network.second_stage, network.ranges if rounds else None).eval(),
        "crops",
        torch.zeros(2, 3, SIDE_PX, SIDE_PX),
        (0,),
        ROUNDED_SECOND if rounds else APART_SECOND,
        SECOND,
        ((1, 3, SIDE_PX, SIDE_PX), (5, 3, SIDE_PX, SIDE_PX)),
    )


class CloseUps(nn.Module):
    """A second stage, folded for inference, as a plain function of pixels.

    Args:
        stage: folded, on the CPU, in fp32.
        ranges: of what its units put out, if it is to round.
    """

    def __init__(self, stage: SecondStage, ranges: Ranges | None = None) -> None:
        super().__init__()
        mean_rgb = stage.pixel_mean_bgr[::-1]
        self.rounds = ranges is not None
        self.stage = stage if ranges is None else rounded_copy(stage, ranges, mean_rgb)
        self.register_buffer("mean", torch.tensor(mean_rgb)[:, None, None], persistent=False)

    def forward(self, crops: Tensor) -> tuple[Tensor, ...]:
        """Judge crops [K, 3, S, S] **RGB** of 0 to 255; see `SECOND`."""
        pixels = rounded_pixels(crops) if self.rounds else crops - self.get_buffer("mean")
        face, moves, gender = self.stage(pixels)
        return face, moves, gender[:, FEMALE] - gender[:, MALE]


class Standalone(nn.Module):
    """A detector's network as a plain function of pixels, in operations that ONNX has.

    Args:
        detector: its network, mean and temperature are used; on the CPU, in fp32.
        rounds: with 8-bit integers, which takes a network that knows its ranges.
    """

    def __init__(self, detector: Detector, *, rounds: bool = False) -> None:
        super().__init__()
        self.network: AnchorNetwork = detector.network
        self.is_alone = self.network.second_stage is None
        self.temperature = detector.temperature
        self.rounds = rounds
        mean_rgb = self.network.pixel_mean_bgr[::-1]
        if rounds:
            assert self.network.ranges is not None
            levels = range(len(self.network.taps))
            heads = [self.network.head_weights(level) for level in levels]
            self.heads = nn.ModuleList(RoundedConv(*head) for head in heads)
            self.network = rounded_copy(self.network, self.network.ranges, mean_rgb)
        self.register_buffer("mean", torch.tensor(mean_rgb)[:, None, None], persistent=False)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Find the faces of a batch.

        Args:
            image: float32 [B, 3, H, W] **RGB** of 0 to 255, sides of at least 128.

        Returns:
            boxes [B, A, 4], xyxy in input pixels; scores [B, A], the probability of a face; and,
            where the network has gender heads, female [B, A], the probability that the presented
            gender is female, or its log-odds where a second stage's are to be added: NaN at anchors
            of the three finest levels that are not among the likeliest of their level.
        """
        pixels = rounded_pixels(image) if self.rounds else image - self.get_buffer("mean")
        features = self.network.features(pixels)
        levels = [self._level(level, feature) for level, feature in enumerate(features)]
        return tuple(torch.cat(parts, 1) for parts in zip(*levels, strict=True))

    def _level(self, level: int, feature: Tensor) -> tuple[Tensor, ...]:
        network = self.network
        if self.rounds:
            out = self.heads[level](feature)
        else:
            weight, bias = network.head_weights(level)
            out = F.conv2d(feature, weight, bias, padding=1)
        background, face, boxes = split_head(out, level)
        logits = (face - background).flatten(1)  # [B, A]
        deltas = boxes.flatten(2).transpose(1, 2)
        boxes = decode(deltas, _anchors(feature, network.strides[level]))
        if not network.has_gender:
            return boxes, logits.sigmoid()
        return boxes, logits.sigmoid(), self._female(level, feature, logits)

    def _female(self, level: int, feature: Tensor, logits: Tensor) -> Tensor:
        """Return the probability of female, or its log-odds, [B, A] at one level."""
        radius = self.network.gender_radius(level)
        padded = F.pad(feature, [radius] * 4)
        if level >= len(ASKED_A_LEVEL):
            return self._told(self.network.gender_at_level(level, padded).flatten(2))
        best = logits.topk(ASKED_A_LEVEL[level], 1).indices  # [B, K]
        wide, across = feature.shape[3], 2 * radius + 1
        row = best.div(wide, rounding_mode="floor")
        corner = row * (wide + 2 * radius) + (best - row * wide)
        reach = torch.arange(across)
        inside = reach[:, None] * (wide + 2 * radius) + reach
        index = (corner[:, :, None, None] + inside).flatten(1)[..., None]  # [B, K * across²]
        cells = padded.flatten(2).transpose(1, 2)
        channels = cells.shape[2]
        patches = cells.gather(1, index.expand(-1, -1, channels))
        patches = patches.reshape(-1, across, across, channels).permute(0, 3, 1, 2)
        female = self._told(self.network.gender_at_level(level, patches).flatten(1))
        nothing = torch.full_like(logits, float("nan"))
        return nothing.scatter(1, best, female.reshape(best.shape))

    def _told(self, logits: Tensor) -> Tensor:
        """Return what is told of gender logits [N, 2, …]: [N, …]."""
        odds = logits[:, FEMALE] - logits[:, MALE]
        # temperature is for the sum of both stages' log-odds
        return (odds / self.temperature).sigmoid() if self.is_alone else odds


def _anchors(feature: Tensor, stride: int) -> Tensor:
    """Return the anchors [A, 3] of a level, of which only the graph will know the size."""
    high, wide = feature.shape[2:]
    x = ((torch.arange(wide) + 0.5) * stride).expand(high, wide)
    y = ((torch.arange(high) + 0.5) * stride)[:, None].expand(high, wide)
    size = torch.full_like(x, float(SIZE_IN_STRIDES * stride))
    return torch.stack([x, y, size], -1).reshape(-1, 3)


def export_onnx(detector: Detector, graph: Graph, path: Path, facts: Mapping[str, str]) -> None:
    """Write a graph as an ONNX file; the batch and the size of pictures stay free.

    Args:
        detector: whose graph it is.
        graph: of `graph_of`.
        path: the file, written in place.
        facts: recorded in the file's metadata beside thresholds, labels and colour order.

    Raises:
        ConfigError: the optional packages are missing.
        ModelError: the network cannot be expressed.
        OutputError: the file cannot be written.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401  # torch's exporter is built on it
    except ImportError as error:
        raise _missing("onnx and onnxscript") from error
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it speaks of torchvision, not of us
    free = dict.fromkeys(graph.free, torch.export.Dim.DYNAMIC)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                graph.module,
                (graph.example,),
                input_names=[graph.given],
                output_names=list(graph.outputs),
                opset_version=OPSET,
                dynamic_shapes={graph.given: free},
                dynamo=True,
                verbose=False,
            )
    except Exception as error:  # the exporter's own errors are many
        raise ModelError(f"this network cannot be exported: {error}".splitlines()[0]) from error
    assert program is not None
    model = program.model_proto
    model.doc_string = graph.description
    onnx.helper.set_model_props(model, {**_known(detector), **facts})
    try:
        onnx.save(model, str(path))
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error


def export_openvino(detector: Detector, graph: Graph, path: Path, facts: Mapping[str, str]) -> None:
    """Write a graph as OpenVINO IR; the batch and the size of pictures stay free.

    Args:
        detector: whose graph it is.
        graph: of `graph_of`.
        path: the `.xml` file, written in place; the weights go into a `.bin` file of its name.
        facts: recorded in the model's `model_info` beside what `export_onnx` records.

    Raises:
        ConfigError: openvino is missing.
        ModelError: the network cannot be expressed.
        OutputError: a file cannot be written.
    """
    openvino = _openvino()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = openvino.convert_model(
                graph.module,
                example_input=graph.example,
                input=[
                    openvino.PartialShape(
                        [-1 if i in graph.free else n for i, n in enumerate(graph.example.shape)]
                    )
                ],
            )
    except Exception as error:  # the converter's own errors are many
        raise ModelError(f"this network cannot be exported: {error}".splitlines()[0]) from error
    model.inputs[0].get_tensor().set_names({graph.given})
    for output, name in zip(model.outputs, graph.outputs, strict=True):
        output.get_tensor().set_names({name})
    for key, value in {**_known(detector), "description": graph.description, **facts}.items():
        model.set_rt_info(value, ["model_info", key])
    try:
        openvino.save_model(model, path, compress_to_fp16=False)
    except (OSError, RuntimeError) as error:
        raise OutputError(f"{path}: cannot be written: {error}".splitlines()[0]) from error


def check_onnx(graph: Graph, path: Path) -> dict[str, float]:
    """Run an exported ONNX file beside torch, on noise of two shapes, and compare.

    Returns:
        the largest difference of each output.

    Raises:
        ConfigError: onnxruntime is missing.
        ModelError: an output differs by more than the graph allows.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise _missing("onnxruntime") from error
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return _compare(graph, path, lambda pixels: session.run(None, {graph.given: pixels}))


def check_openvino(graph: Graph, path: Path) -> dict[str, float]:
    """Do for OpenVINO's files what `check_onnx` does for ONNX."""
    compiled = _openvino().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(pixels: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        results = compiled({graph.given: pixels})
        return [results[output] for output in compiled.outputs]

    return _compare(graph, path, run)


def _compare(
    graph: Graph,
    path: Path,
    run: Callable[[NDArray[np.float32]], Sequence[NDArray[np.float32]]],
) -> dict[str, float]:
    generator = torch.Generator().manual_seed(0)
    largest: dict[str, float] = {}
    for shape in graph.trials:
        pixels = torch.rand(shape, generator=generator) * 255
        with torch.inference_mode():
            wanted = graph.module(pixels)
        for name, theirs, here in zip(graph.outputs, run(pixels.numpy()), wanted, strict=True):
            there = torch.from_numpy(theirs)
            if there.shape != here.shape:
                raise ModelError(f"{path}: {name} has shape {tuple(there.shape)} when run")
            # which anchors are asked is a matter of rank, and scores may tie
            both = ~(there.isnan() | here.isnan())
            apart = float((there - here)[both].abs().max())
            largest[name] = max(largest.get(name, 0.0), apart)
    for name, apart in largest.items():
        if not apart <= graph.outputs[name]:
            raise ModelError(f"{path}: {name} differs from torch by {apart:.2g} when run")
    return largest


def _known(detector: Detector) -> dict[str, str]:
    """Return what the metadata say of a detector."""
    settings, stage = detector.settings, detector.network.second_stage
    adding = {"temperature": f"{detector.temperature:g} (applied)"}
    if stage is not None:
        adding = {
            "face_mix": json.dumps(stage.face_mix.tolist()),
            "gender_mix": json.dumps(stage.gender_mix.tolist()),
            "temperature": f"{detector.temperature:g}",
        }
    return {
        **adding,
        "colour_order": "RGB",
        "value_range": "[0, 255]",
        "mean_rgb": f"{json.dumps(detector.network.pixel_mean_bgr[::-1])} (applied)",
        "labels": json.dumps(["female", "male"] if detector.has_gender else []),
        "face_threshold": f"{settings.face_threshold:g}",
        "nms_iou": f"{settings.nms_iou:g}",
        "model": detector.model_name,
    }


def _openvino() -> Any:
    try:
        return import_module("openvino")
    except ImportError as error:
        raise ConfigError(
            "export to OpenVINO needs openvino: pip install 'videogender[openvino]'"
        ) from error


def _missing(what: str) -> ConfigError:
    return ConfigError(f"export needs {what}: pip install 'videogender[onnx]'")
