"""Layers, shapes, anchors and heads of both networks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from videogender.network.anchors import anchors_for, level_offsets
from videogender.network.heads import AnchorNetwork, grids_of
from videogender.network.lite import ConvUnit, Lite
from videogender.network.s3fd import S3FD, L2Norm, Mode

# The published layers: name, outputs, inputs, kernel.
VGG16_CONVOLUTIONS = """
    conv1_1 64 3 3      conv1_2 64 64 3
    conv2_1 128 64 3    conv2_2 128 128 3
    conv3_1 256 128 3   conv3_2 256 256 3   conv3_3 256 256 3
    conv4_1 512 256 3   conv4_2 512 512 3   conv4_3 512 512 3
    conv5_1 512 512 3   conv5_2 512 512 3   conv5_3 512 512 3
    fc6 1024 512 3      fc7 1024 1024 1
    conv6_1 256 1024 1  conv6_2 512 256 3
    conv7_1 128 512 1   conv7_2 256 128 3
    conv3_3_norm_mbox_conf 4 256 3   conv3_3_norm_mbox_loc 4 256 3
    conv4_3_norm_mbox_conf 2 512 3   conv4_3_norm_mbox_loc 4 512 3
    conv5_3_norm_mbox_conf 2 512 3   conv5_3_norm_mbox_loc 4 512 3
    fc7_mbox_conf 2 1024 3           fc7_mbox_loc 4 1024 3
    conv6_2_mbox_conf 2 512 3        conv6_2_mbox_loc 4 512 3
    conv7_2_mbox_conf 2 256 3        conv7_2_mbox_loc 4 256 3
"""
VGG16_GENDER = """
    conv3_3_norm_gender 2 256 3  conv4_3_norm_gender 2 512 3  conv5_3_norm_gender 2 512 3
    fc7_gender 2 1024 3          conv6_2_gender 2 512 3       conv7_2_gender 2 256 3
"""
VGG16_NORMS = {"conv3_3_norm": (256, 10.0), "conv4_3_norm": (512, 8.0), "conv5_3_norm": (512, 5.0)}


def convolution_shapes(table: str) -> dict[str, tuple[int, ...]]:
    words = table.split()
    shapes: dict[str, tuple[int, ...]] = {}
    for name, *numbers in zip(words[0::4], words[1::4], words[2::4], words[3::4], strict=True):
        outputs, inputs, kernel = map(int, numbers)
        shapes[f"{name}.weight"] = (outputs, inputs, kernel, kernel)
        shapes[f"{name}.bias"] = (outputs,)
    return shapes


def parameter_count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.fixture(scope="module")
def vgg16() -> S3FD:
    torch.manual_seed(0)
    return S3FD(gender=True).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def lite() -> Lite:
    """A network whose normalisations have seen something, unlike a fresh one's."""
    torch.manual_seed(0)
    network = Lite()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
    return network.eval().requires_grad_(False)


@pytest.fixture(params=["lite", "vgg16"])
def network(request: pytest.FixtureRequest) -> AnchorNetwork:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, AnchorNetwork)
    return found


def picture(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 60


def test_vgg16_has_the_published_names_and_shapes() -> None:
    expected = convolution_shapes(VGG16_CONVOLUTIONS)
    expected |= {f"{name}.weight": (n,) for name, (n, _) in VGG16_NORMS.items()}
    network = S3FD()
    assert {k: tuple(v.shape) for k, v in network.state_dict().items()} == expected
    assert parameter_count(network) == 22_459_110
    for name, (_, scale) in VGG16_NORMS.items():
        assert (network.get_parameter(f"{name}.weight") == scale).all()


def test_vgg16_gender_heads_add_their_six_convolutions(vgg16: S3FD) -> None:
    plain = S3FD()
    assert not plain.has_gender
    assert vgg16.has_gender
    added = {k: tuple(v.shape) for k, v in vgg16.state_dict().items() if "gender" in k}
    assert added == convolution_shapes(VGG16_GENDER)
    assert parameter_count(vgg16) - parameter_count(plain) == 55_308


def test_lite_is_small(lite: Lite) -> None:
    assert parameter_count(lite) <= 1_500_000
    half_bytes = sum(v.numel() for v in lite.state_dict().values()) * 2
    assert half_bytes <= 4_000_000


def test_lite_without_gender_heads() -> None:
    network = Lite(gender=False)
    assert not network.has_gender
    assert not any("gender" in key for key in network.state_dict())


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="none of padded, dilated"):
        S3FD("floor")  # type: ignore[arg-type]


# The grids of fc7 and what follows it are larger in the padded mode: fc6 adds four cells.
@pytest.mark.parametrize(
    ("mode", "size_wh", "grids", "anchors"),
    [
        ("padded", (640, 640), "160x160 80x80 40x40 24x24 12x12 6x6", 34_356),
        ("padded", (640, 480), "160x120 80x60 40x30 24x19 12x10 6x5", 25_806),
        ("dilated", (640, 640), "160x160 80x80 40x40 20x20 10x10 5x5", 34_125),
        # 25 x 33 cells at stride 4: one port rounds the next level down, the other up
        ("padded", (100, 132), "25x33 12x16 6x8 7x8 4x4 2x2", 1_141),
        ("dilated", (100, 132), "25x33 13x17 6x8 3x4 2x2 1x1", 1_111),
    ],
)
def test_vgg16_anchor_counts(
    mode: Mode, size_wh: tuple[int, int], grids: str, anchors: int
) -> None:
    with torch.device("meta"):  # shapes without 100 GMAC
        network = S3FD(mode)
        features = network.features(torch.empty(1, 3, size_wh[1], size_wh[0]))
    assert " ".join(f"{columns}x{rows}" for rows, columns in grids_of(features)) == grids
    assert len(anchors_for(grids_of(features))) == anchors


def test_lite_anchor_counts(lite: Lite) -> None:
    features = lite.features(picture(1, 3, 480, 640))
    assert grids_of(features) == ((120, 160), (60, 80), (30, 40), (15, 20), (8, 10), (4, 5))


@pytest.mark.parametrize("size_hw", [(32, 32), (33, 47), (96, 128), (75, 201)])
def test_predictions_agree_in_shape(network: AnchorNetwork, size_hw: tuple[int, int]) -> None:
    with torch.inference_mode():
        found = network(picture(2, 3, *size_hw))
    count = level_offsets(grids_of(found.features))[-1]
    assert found.face_logits.shape == (2, count)
    assert found.box_deltas.shape == (2, count, 4)
    assert found.anchors.shape == (count, 3)
    assert found.face_logits.isfinite().all()


def test_anchors_are_four_strides_wide_at_cell_centres() -> None:
    grids = ((3, 4), (2, 2), (1, 2), (1, 1), (1, 1), (1, 1))
    expected = [
        ((column + 0.5) * stride, (row + 0.5) * stride, 4.0 * stride)
        for (rows, columns), stride in zip(grids, (4, 8, 16, 32, 64, 128), strict=True)
        for row in range(rows)
        for column in range(columns)
    ]
    anchors = anchors_for(grids)
    assert [tuple(row) for row in anchors.tolist()] == expected
    assert sorted(set(anchors[:, 2].tolist())) == [16, 32, 64, 128, 256, 512]
    assert level_offsets(grids) == [0, 12, 16, 18, 19, 20, 21]
    assert anchors_for(grids) is anchors


def test_l2norm_scales_each_cell() -> None:
    norm = L2Norm(256, 10.0)
    norm.weight.data.uniform_(1, 20)
    x = picture(2, 256, 3, 5).relu() * 100
    length = x.double().pow(2).sum(1, keepdim=True).sqrt() + 1e-10
    expected = x.double() / length * norm.weight.double().view(1, -1, 1, 1)
    torch.testing.assert_close(norm(x), expected.float())
    assert norm(torch.zeros(1, 256, 1, 1)).abs().max() == 0
    # 256 channels of 1500 have a squared length of 5.8e8, which fp16 cannot hold
    half = norm.half()(torch.full((1, 256, 1, 1), 1500.0).half())
    torch.testing.assert_close(half.flatten(), norm.weight / 16, atol=0.01, rtol=0.01)


def test_face_logits_take_the_largest_background_on_the_finest_level(
    network: AnchorNetwork,
) -> None:
    with torch.inference_mode():
        found = network(picture(2, 3, 64, 96))
        expected, deltas = [], []
        for level, (tap, feature) in enumerate(zip(network.taps, found.features, strict=True)):
            scores = network.get_submodule(f"{tap}_mbox_conf")(feature)
            face = scores[:, 3 if level == 0 else 1]
            background = scores[:, :3].max(1)[0] if level == 0 else scores[:, 0]
            expected.append((face - background).reshape(2, -1))
            loc = network.get_submodule(f"{tap}_mbox_loc")(feature)
            deltas.append(loc.permute(0, 2, 3, 1).reshape(2, -1, 4))
    torch.testing.assert_close(found.face_logits, torch.cat(expected, 1), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.box_deltas, torch.cat(deltas, 1), atol=1e-4, rtol=1e-4)


def test_images_of_a_batch_do_not_mix(network: AnchorNetwork) -> None:
    x = picture(2, 3, 64, 64)
    with torch.inference_mode():
        both, alone = network(x), network(x[1:])
    torch.testing.assert_close(both.face_logits[1:], alone.face_logits, atol=1e-4, rtol=1e-4)


def test_sparse_gender_logits_equal_the_dense_maps(network: AnchorNetwork) -> None:
    with torch.inference_mode():
        features = network.features(picture(2, 3, 64, 96))
        dense = network.gender_maps(features)  # [2, A, 2]
        count = dense.shape[1]
        # every anchor of both images, so corners and borders too, in no order
        order = torch.randperm(2 * count, generator=torch.Generator().manual_seed(3))
        image, anchor = order // count, order % count
        sparse = network.gender_logits(features, image, anchor)
    assert dense.std() > 1e-3
    torch.testing.assert_close(sparse, dense[image, anchor], atol=1e-4, rtol=1e-4)


def test_gender_logits_of_no_anchor(network: AnchorNetwork) -> None:
    none = torch.zeros(0, dtype=torch.long)
    with torch.inference_mode():
        features = network.features(picture(1, 3, 32, 32))
        assert network.gender_logits(features, none, none).shape == (0, 2)


def test_dense_gender_maps_are_padded_convolutions() -> None:
    torch.manual_seed(5)
    network = S3FD(gender=True).eval().requires_grad_(False)
    for tap in network.taps:
        nn.init.normal_(network.get_parameter(f"{tap}_gender.weight"), std=0.05)
    features = network.features(picture(1, 3, 64, 64))
    expected = []
    for tap, feature in zip(network.taps, features, strict=True):
        weight = network.get_parameter(f"{tap}_gender.weight")
        out = nn.functional.conv2d(
            feature, weight, network.get_parameter(f"{tap}_gender.bias"), padding=1
        )
        expected.append(out.permute(0, 2, 3, 1).reshape(1, -1, 2))
    maps = network.gender_maps(features)
    torch.testing.assert_close(maps, torch.cat(expected, 1), atol=1e-4, rtol=1e-4)


def test_gender_starts_from_the_face_channel(vgg16: S3FD) -> None:
    for level, tap in enumerate(vgg16.taps):
        face = 3 if level == 0 else 1
        weight = vgg16.get_parameter(f"{tap}_gender.weight")
        bias = vgg16.get_parameter(f"{tap}_gender.bias")
        for channel in (0, 1):
            assert torch.equal(
                weight[channel], vgg16.get_parameter(f"{tap}_mbox_conf.weight")[face]
            )
            assert torch.equal(bias[channel], vgg16.get_parameter(f"{tap}_mbox_conf.bias")[face])
    with torch.inference_mode():
        maps = vgg16.gender_maps(vgg16.features(picture(1, 3, 64, 64)))
    assert maps.abs().max() > 0.01
    torch.testing.assert_close(maps.softmax(-1), torch.full_like(maps, 0.5), atol=1e-5, rtol=0)


def test_fused_lite_gives_what_the_unfused_gives(lite: Lite) -> None:
    x = picture(2, 3, 96, 128)  # pixels minus the mean
    fused = Lite()
    fused.load_state_dict(lite.state_dict())
    fused.eval().requires_grad_(False)
    fused.fuse()
    assert not any(isinstance(m, nn.BatchNorm2d) for m in fused.modules())
    assert any(isinstance(m, ConvUnit) for m in fused.modules())
    with torch.inference_mode():
        expected, found = lite(x * lite.pixel_scale), fused(x * fused.pixel_scale)
        assert expected.face_logits.std() > 1e-3
        torch.testing.assert_close(found.face_logits, expected.face_logits, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(found.box_deltas, expected.box_deltas, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(
            fused.gender_maps(found.features),
            lite.gender_maps(expected.features),
            atol=1e-3,
            rtol=1e-3,
        )
    assert Lite.pixel_scale == 1 / 64  # the class, and so the next network, is unchanged


def test_vgg16_takes_pixels_as_they_are(vgg16: S3FD) -> None:
    assert vgg16.pixel_mean_bgr == (104.0, 117.0, 123.0)
    assert vgg16.pixel_scale == 1.0
