"""The packed network: the plain one's answers at any shape, or none at all."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from videogender.config import DetectSettings
from videogender.detector import Detector
from videogender.devices import has_native_bf16
from videogender.network import checkpoints
from videogender.network.heads import AnchorNetwork, Predictions
from videogender.network.packed import MOST_SHAPES, PackedConv, PackedNetwork, pack
from videogender.network.s3fd import S3FD
from videogender.weights_store import resolve


def plain_lite() -> AnchorNetwork:
    network, _ = checkpoints.load(resolve("lite"))
    network.fuse()
    return network


HERE = pack(plain_lite()) is not None
needs_packing = pytest.mark.skipif(not HERE, reason="this build of PyTorch cannot pack")


@pytest.fixture
def network() -> AnchorNetwork:
    return plain_lite()


def noise(batch: int, height: int, width: int, seed: int = 0) -> Tensor:
    pixels = torch.rand(batch, height, width, 3, generator=torch.Generator().manual_seed(seed))
    return (pixels * 255 - 120).permute(0, 3, 1, 2)


@torch.inference_mode()
def answers(forward: Callable[[Tensor], Predictions], x: Tensor) -> list[Tensor]:
    found = forward(x)
    return [found.face_logits, found.box_deltas, found.anchors, *found.features]


@needs_packing
@pytest.mark.parametrize(
    "shape", [(1, 480, 640), (4, 352, 640), (1, 640, 352), (3, 130, 257), (1, 33, 47), (2, 32, 32)]
)
def test_packed_answers_are_the_plain_ones(
    network: AnchorNetwork, shape: tuple[int, int, int]
) -> None:
    packed = pack(network)
    assert packed is not None
    x = noise(*shape)
    wanted = answers(network, x)
    assert wanted[0].std() > 0.1
    # laid out by channels or by rows, first and second time
    for layout in (x, x, x.contiguous()):
        for found, expected in zip(answers(packed, layout), wanted, strict=True):
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@needs_packing
def test_weights_of_a_few_shapes_are_kept(network: AnchorNetwork) -> None:
    packed = pack(network)
    assert packed is not None
    sizes = [(64, 32 * columns) for columns in range(1, MOST_SHAPES + 4)]
    for size in [*sizes, *sizes[:2]]:
        x = noise(1, *size)
        torch.testing.assert_close(
            answers(packed, x)[0], answers(network, x)[0], atol=1e-4, rtol=1e-4
        )
    kept = [len(m._packed) for m in packed.modules() if isinstance(m, PackedConv)]
    assert 1 <= min(kept) <= max(kept) <= MOST_SHAPES


@needs_packing
def test_packing_leaves_the_network_as_it_was(network: AnchorNetwork) -> None:
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    assert pack(network) is not None
    after = network.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)


@needs_packing
def test_a_detector_packs_and_keeps_the_plain_network() -> None:
    detector = Detector.load("lite", device="cpu", settings=DetectSettings(precision="fp32"))
    assert isinstance(detector.forward, PackedNetwork)
    assert isinstance(detector.network, AnchorNetwork)
    assert detector.at_threshold(0.1).forward is detector.forward


@pytest.mark.skipif(
    not has_native_bf16(torch.device("cpu")), reason="bf16 is emulated on this processor"
)
@needs_packing
def test_bf16_is_packed_and_stays_near_what_it_was(network: AnchorNetwork) -> None:
    network.to(torch.bfloat16)
    packed = pack(network)
    assert packed is not None
    x = noise(2, 96, 160).to(torch.bfloat16)
    for found, wanted in zip(answers(packed, x)[:2], answers(network, x)[:2], strict=True):
        assert (found - wanted).abs().max() < 0.1


def test_what_cannot_be_packed_is_left_alone(network: AnchorNetwork) -> None:
    assert pack(network.to(torch.float16)) is None
    assert pack(S3FD()) is None


def missing(*_: object) -> Tensor:
    raise RuntimeError("mkldnn_reorder_conv2d_weight: not built with oneDNN")


def wrong(weight: Tensor, *_: object) -> Tensor:
    return (weight.to_dense() * 1.01).to_mkldnn()


@needs_packing
@pytest.mark.parametrize("reorder", [missing, wrong])
def test_where_packing_fails_the_plain_network_answers(
    monkeypatch: pytest.MonkeyPatch, reorder: Callable[..., Tensor]
) -> None:
    monkeypatch.setattr(torch._C._nn, "mkldnn_reorder_conv2d_weight", reorder)
    detector = Detector.load("lite", device="cpu", settings=DetectSettings(precision="fp32"))
    assert detector.forward is detector.network
    assert detector.backend == "torch"
