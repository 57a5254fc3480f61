"""8-bit integers: near the plain network wherever they can be had, and refused where not."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from videogender.config import DetectSettings
from videogender.detector import Detector
from videogender.errors import ConfigError, ModelError
from videogender.network import checkpoints, quantized
from videogender.network.heads import AnchorNetwork
from videogender.network.layers import ConvUnit, unit_names
from videogender.network.lite import Lite
from videogender.network.quantized import (
    REDUCED,
    Levels,
    QuantizedConv,
    QuantizedNetwork,
    observing,
    quantize,
    weight_levels,
)
from videogender.network.rounded import RoundedConv, rounded_copy, rounded_pixels
from videogender.network.s3fd import S3FD
from videogender.weights_store import resolve

STILL = Path(__file__).parent.parent / "samples" / "stills" / "obama.jpg"
MEAN = (104.0, 117.0, 123.0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def levels(*shape: int, scale: float = 0.02, zero: int = 0, seed: int = 0) -> Levels:
    values = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator(seed))
    return Levels(values.contiguous(memory_format=torch.channels_last), scale, zero)


def conv(outputs: int = 16, inputs: int = 8, kernel: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    draw = generator(1)
    weight = torch.randn(outputs, inputs, kernel, kernel, generator=draw) * 0.1
    return weight, torch.randn(outputs, generator=draw)


@pytest.fixture(scope="module")
def shipped() -> AnchorNetwork:
    network, _ = checkpoints.load(resolve("lite"))
    network.fuse()
    assert network.second_stage is not None
    network.second_stage.fuse()
    return network


def test_weights_are_packed_once_however_many_pictures_there_are(shipped: AnchorNetwork) -> None:
    made = quantize(shipped, shipped.ranges, MEAN, torch.float32)
    assert made is not None
    stage = made[1]
    assert stage is not None
    crops = torch.randint(0, 256, (5, 80, 80, 3), dtype=torch.uint8, generator=generator())
    with torch.inference_mode():
        alone, together = stage(crops[:2]), stage(crops)
    for ours, theirs in zip(alone, together, strict=True):
        torch.testing.assert_close(ours, theirs[:2], atol=1e-4, rtol=1e-4)
    packed = [len(m._packed) for m in stage.modules() if isinstance(m, QuantizedConv)]
    assert packed
    assert set(packed) == {1}


# --- a convolution --------------------------------------------------------------------------------


@pytest.mark.parametrize("zero", [0, 115])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_convolution_is_that_of_the_values_it_stands_for(zero: int, stride: int) -> None:
    x, (weight, bias) = levels(2, 8, 10, 13, zero=zero), conv()
    wanted = F.conv2d(x.decoded(torch.float32), weight, bias, stride=stride, padding=1)
    plain = QuantizedConv(weight, bias, stride=(stride, stride))
    # a weight is off by half a step at most
    step = weight.abs().amax((1, 2, 3)) / weight_levels() / 2
    most = step.max() * F.conv2d(x.decoded(torch.float32).abs(), torch.ones(1, 8, 3, 3), padding=1)
    assert (plain.answer(x) - wanted).abs().max() <= most.max()
    assert (plain.answer(x) - wanted).abs().mean() < 0.02 * wanted.abs().mean()
    low, high = float(wanted.min()), float(wanted.max())
    signed = QuantizedConv(weight, bias, stride=(stride, stride), seen=(low, high))(x)
    assert signed.values.dtype == torch.uint8
    assert signed.zero > 0
    off = (signed.decoded(torch.float32) - plain.answer(x)).abs().max()
    assert off <= signed.scale * 1.01
    cut = QuantizedConv(weight, bias, stride=(stride, stride), relu=True, seen=(0.0, high))(x)
    assert (cut.decoded(torch.float32) - plain.answer(x).relu()).abs().max() <= cut.scale


def test_what_goes_beyond_the_range_is_clipped() -> None:
    x, (weight, bias) = levels(1, 8, 6, 6), conv()
    cut = QuantizedConv(weight, bias, relu=True, seen=(0.0, 0.5))(x).decoded(torch.float32)
    assert cut.max() == pytest.approx(0.5)


@pytest.mark.parametrize("coarse", [False, True])
def test_a_map_is_added_and_left_as_it_was(coarse: bool) -> None:
    x, (weight, bias) = levels(2, 8, 10, 14), conv()
    size = (5, 7) if coarse else (10, 14)
    other = levels(2, 16, *size, scale=0.03, zero=90, seed=2)
    before = other.values.clone()
    added = other.decoded(torch.float32)
    added = F.interpolate(added, (10, 14)) if coarse else added
    wanted = (QuantizedConv(weight, bias).answer(x) + added).relu()
    made = QuantizedConv(weight, bias, seen=(0.0, float(wanted.max())))
    found = made.plus(x, other)
    assert (found.decoded(torch.float32) - wanted).abs().max() <= found.scale
    assert torch.equal(other.values, before)


def test_where_products_overflow_weights_have_seven_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    real = torch.ops.onednn.qconv2d_pointwise.default

    class Saturating:
        def __call__(self, *inputs: object) -> torch.Tensor:
            found: torch.Tensor = real(*inputs)
            return found.clamp(max=32767 * 32)

    monkeypatch.setattr(torch.ops.onednn, "qconv2d_pointwise", Saturating())
    assert weight_levels.__wrapped__() == REDUCED


# --- a network ------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 128, 160), (3, 96, 256), (1, 33, 47), (2, 32, 32)])
def test_a_network_answers_nearly_as_before(
    shipped: AnchorNetwork, shape: tuple[int, int, int]
) -> None:
    made = quantize(shipped, shipped.ranges, MEAN, torch.float32)
    assert made is not None
    batch, high, wide = shape
    near = 0.15 if high == 32 else 0.1  # of few cells, all far from a face, answers hardly differ
    with Image.open(STILL) as image:
        bgr = np.asarray(image.convert("RGB").resize((wide, high)))[..., ::-1].copy()
    pixels = torch.from_numpy(bgr).expand(batch, -1, -1, -1).permute(0, 3, 1, 2)
    with torch.inference_mode():
        wanted = shipped(pixels.float() - torch.tensor(MEAN)[:, None, None])
        found = made[0](pixels.contiguous(memory_format=torch.channels_last))
    for theirs, ours in (
        (wanted.face_logits, found.face_logits),
        (wanted.box_deltas, found.box_deltas),
        *zip(wanted.features, found.features, strict=True),
    ):
        assert ours.shape == theirs.shape
        assert (ours - theirs).abs().mean() < near * theirs.std()
    assert torch.equal(found.anchors, wanted.anchors)


def test_the_second_stage_answers_nearly_as_before(shipped: AnchorNetwork) -> None:
    made = quantize(shipped, shipped.ranges, MEAN, torch.float32)
    assert made is not None
    assert made[1] is not None
    stage = shipped.second_stage
    assert stage is not None
    with Image.open(STILL) as image:
        bgr = np.asarray(image.convert("RGB").resize((160, 160)))[..., ::-1].copy()
    squares = torch.from_numpy(bgr).unfold(0, 80, 20).unfold(1, 80, 20).reshape(-1, 3, 80, 80)
    with torch.inference_mode():
        wanted = stage(squares.float() - torch.tensor(MEAN)[:, None, None])
        found = made[1](squares.permute(0, 2, 3, 1).contiguous())
    for theirs, ours in zip(wanted, found, strict=True):
        assert (ours - theirs).abs().mean() < 0.12 * theirs.std()


def test_a_rounded_convolution_is_the_one_in_integers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exports round in floating point what the integers here round; seven bits for weights."""
    monkeypatch.setattr(quantized, "weight_levels", lambda: REDUCED)
    x, other = levels(2, 8, 9, 7), levels(2, 16, 5, 4, scale=0.03, seed=1)
    weight, bias = conv()
    for stride, seen in ((1, (-1.0, 3.0)), (2, (0.0, 2.0)), (1, None)):
        shape = {"stride": (stride, stride), "relu": seen is not None, "seen": seen}
        integers, floats = QuantizedConv(weight, bias, **shape), RoundedConv(weight, bias, **shape)
        wanted = integers.answer(x) if seen is None else integers(x).decoded(torch.float32)
        found = floats(x.decoded(torch.float32))
        step = 1e-4 if seen is None else (seen[1] - seen[0]) / 255
        apart = (found - wanted).abs()
        assert apart.max() <= step * 1.01
        assert (apart > step / 2).float().mean() < 0.01
        if seen is None or stride == 2:
            continue
        wanted = integers.plus(x, other).decoded(torch.float32)
        apart = floats.plus(x.decoded(torch.float32), other.decoded(torch.float32)) - wanted
        assert apart.abs().max() <= step * 1.01


def test_a_rounded_copy_answers_nearly_as_the_network(shipped: AnchorNetwork) -> None:
    assert shipped.ranges is not None
    pixels = torch.randint(0, 256, (1, 3, 96, 128), generator=generator()).float()
    less = pixels - torch.tensor(MEAN)[:, None, None]
    made = rounded_copy(shipped, shipped.ranges, MEAN)
    assert made.second_stage is None
    assert shipped.second_stage is not None, "the network itself is left as it was"
    for wanted, found in zip(
        shipped.features(less), made.features(rounded_pixels(pixels)), strict=True
    ):
        assert (wanted - found).abs().mean() < 0.1 * wanted.std()


def test_quantising_leaves_the_network_as_it_was(shipped: AnchorNetwork) -> None:
    before = copy.deepcopy(shipped.state_dict())
    assert quantize(shipped, shipped.ranges, MEAN, torch.float32) is not None
    assert all(torch.equal(before[name], tensor) for name, tensor in shipped.state_dict().items())


def test_what_cannot_be_quantised_is_left_alone(
    shipped: AnchorNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert quantize(shipped, None, MEAN, torch.float32) is None
    some = dict(list((shipped.ranges or {}).items())[:3])
    assert quantize(shipped, some, MEAN, torch.float32) is None
    monkeypatch.delattr(torch.ops.onednn, "qconv2d_pointwise", raising=False)
    monkeypatch.setattr(quantized.torch.ops, "onednn", object())
    assert quantize(shipped, shipped.ranges, MEAN, torch.float32) is None


def test_sums_that_go_wrong_are_noticed(
    shipped: AnchorNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight_levels()
    real = torch.ops.onednn.qconv_prepack

    def wrong(levels: torch.Tensor, *others: object) -> torch.Tensor:
        return real(levels.flip(1), *others)

    monkeypatch.setattr(torch.ops.onednn, "qconv_prepack", wrong)
    assert quantize(shipped, shipped.ranges, MEAN, torch.float32) is None


def test_observing_notes_ranges_and_puts_units_back() -> None:
    torch.manual_seed(0)
    network = Lite(gender=False).eval()
    units = [m for m in network.modules() if isinstance(m, ConvUnit)]
    x = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        x4 = network.stem(x)
        with observing(network) as seen:
            network(x)
            network(x / 2)
    assert [m for m in network.modules() if isinstance(m, ConvUnit)] == units
    assert seen["stem.1"] == (0.0, pytest.approx(float(x4.max())))
    assert seen["down8"][0] < 0  # its ReLU comes after the sum
    assert seen["side4"][0] == 0
    assert len(seen) == len(units)


# --- in the detector, and in files ----------------------------------------------------------------


def test_a_cpu_takes_integers_and_finds_the_same_faces() -> None:
    with Image.open(STILL) as image:
        picture = np.asarray(image.convert("RGB"))
    plain = Detector.load("lite", device="cpu", settings=DetectSettings(precision="fp32"))
    [wanted] = plain([picture])
    for precision in ("auto", "int8"):
        detector = Detector.load("lite", device="cpu", settings=DetectSettings(precision=precision))
        assert isinstance(detector.forward, QuantizedNetwork)
        assert "int8" in detector.describe()
        [found] = detector([picture])
        assert len(found) == len(wanted) == 1
        side = (wanted.boxes[0, 2:] - wanted.boxes[0, :2]).max()
        np.testing.assert_allclose(found.boxes, wanted.boxes, atol=0.06 * side)
        np.testing.assert_allclose(found.female, wanted.female, atol=0.1)


def test_integers_that_cannot_be_had_are_an_error() -> None:
    with pytest.raises(ConfigError, match="--precision int8: not to be had with vgg16 here"):
        Detector(S3FD(gender=False), DetectSettings(precision="int8"))
    network, _ = checkpoints.load(resolve("lite"))
    network.ranges = None
    assert not Detector(copy.deepcopy(network)).takes_pixels
    with pytest.raises(ConfigError, match="ranges"):
        Detector(network, DetectSettings(precision="int8"))


def test_files_keep_ranges_and_forget_those_of_other_weights(tmp_path: Path) -> None:
    network = Lite().eval()
    network.ranges = dict.fromkeys(unit_names(network), (-2.0, 3.5))
    checkpoints.save(network, tmp_path / "a.safetensors", {})
    again, metadata = checkpoints.load(tmp_path / "a.safetensors")
    assert again.ranges == network.ranges
    again.ranges = None
    checkpoints.save(again, tmp_path / "b.safetensors", metadata)
    assert checkpoints.load(tmp_path / "b.safetensors")[0].ranges is None


@pytest.mark.parametrize("known", [0, 1, -1])
def test_ranges_of_some_units_alone_are_none(tmp_path: Path, known: int) -> None:
    network = Lite().eval()
    network.ranges = dict.fromkeys(sorted(unit_names(network))[:known], (0.0, 1.0))
    checkpoints.save(network, tmp_path / "a.safetensors", {})
    facts = {"format": checkpoints.FORMAT, "model": "lite", "ranges": json.dumps(network.ranges)}
    save_file(load_file(tmp_path / "a.safetensors"), tmp_path / "a.safetensors", metadata=facts)
    again, _ = checkpoints.load(tmp_path / "a.safetensors")
    assert again.ranges is None


@pytest.mark.parametrize(
    "bad",
    [
        *("nonsense", "[1, 2]", '{"stem.0": 3}', '{"stem.0": ["a", 1]}', '{"stem.0": [0, 1, 2]}'),
        pytest.param("[" * 100_000, id="nested"),
        pytest.param(f'{{"stem.0": [0, 1{"0" * 400}]}}', id="huge"),
        *('{"stem.0": [0, NaN]}', '{"stem.0": [NaN, 1]}', '{"stem.0": [-1e999, 1]}'),
        *('{"stem.0": [2, 1]}', '{"stem.0": [1, 2]}', '{"head": [0, 1]}'),
    ],
)
def test_ranges_that_cannot_be_read_are_an_error(tmp_path: Path, bad: str) -> None:
    path = tmp_path / "a.safetensors"
    checkpoints.save(Lite().eval(), path, {})
    facts = {"format": checkpoints.FORMAT, "model": "lite", "ranges": bad}
    save_file(load_file(path), path, metadata=facts)
    with pytest.raises(ModelError, match="ranges"):
        checkpoints.load(path)


def test_the_weights_that_ship_know_their_ranges() -> None:
    network, metadata = checkpoints.load(resolve("lite"))
    units = {name for name, m in network.named_modules() if isinstance(m, ConvUnit)}
    assert set(network.ranges or {}) == units
    assert set(json.loads(metadata["ranges"])) == units
