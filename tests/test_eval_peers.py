"""Peers: decoders against slow loops and known truth, files of one size opened, real runs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from videogender.errors import ModelError
from videogender.evaluation.peers import centerface, scrfd, yunet
from videogender.evaluation.peers.open_sizes import open_sizes

Arrays = list[NDArray[np.float32]]

HW = (64, 96)
FORMS = {"yunet": yunet, "scrfd": scrfd, "centerface": centerface}


def random_outputs(form: str, rng: np.random.Generator) -> Arrays:
    """Make outputs as the published files give them, in their order."""

    def part(*shape: int) -> NDArray[np.float32]:
        return rng.uniform(0, 1, shape).astype(np.float32)

    high, wide = HW
    if form == "centerface":
        return [part(1, channels, high // 4, wide // 4) for channels in (1, 2, 2, 10)]
    counts = [(high // s) * (wide // s) for s in (8, 16, 32)]
    if form == "yunet":
        return [part(1, n, c) for c in (1, 1, 4, 10) for n in counts]
    return [part(2 * n, c) for c in (1, 4, 10) for n in counts]


def slow_yunet(outputs: Arrays) -> list[list[float]]:
    rows = []
    for level, stride in enumerate((8, 16, 32)):
        classes, objects, boxes = outputs[level][0], outputs[3 + level][0], outputs[6 + level][0]
        wide = HW[1] // stride
        for i in range(len(boxes)):
            column, row = i % wide, i // wide
            x, y = (column + boxes[i, 0]) * stride, (row + boxes[i, 1]) * stride
            w, h = math.exp(boxes[i, 2]) * stride, math.exp(boxes[i, 3]) * stride
            score = math.sqrt(classes[i, 0] * objects[i, 0])
            rows.append([x - w / 2, y - h / 2, x + w / 2, y + h / 2, score])
    return rows


def slow_scrfd(outputs: Arrays) -> list[list[float]]:
    rows = []
    for level, stride in enumerate((8, 16, 32)):
        scores, sides = outputs[level], outputs[3 + level]
        wide = HW[1] // stride
        for i in range(len(sides)):
            x, y = (i // 2) % wide * stride, (i // 2) // wide * stride
            left, top, right, bottom = (float(v) * stride for v in sides[i])
            rows.append([x - left, y - top, x + right, y + bottom, float(scores[i, 0])])
    return rows


def slow_centerface(outputs: Arrays) -> list[list[float]]:
    heat, sizes, offsets = (output[0] for output in outputs[:3])
    rows = []
    for r in range(HW[0] // 4):
        for c in range(HW[1] // 4):
            h, w = math.exp(sizes[0, r, c]) * 4, math.exp(sizes[1, r, c]) * 4
            y, x = (r + offsets[0, r, c] + 0.5) * 4, (c + offsets[1, r, c] + 0.5) * 4
            rows.append([x - w / 2, y - h / 2, x + w / 2, y + h / 2, heat[0, r, c]])
    return rows


SLOW = {"yunet": slow_yunet, "scrfd": slow_scrfd, "centerface": slow_centerface}


@pytest.mark.parametrize("form", FORMS)
def test_decoding_is_that_of_a_slow_loop(form: str) -> None:
    outputs = random_outputs(form, np.random.default_rng(3))
    boxes, scores = FORMS[form].decode(outputs, HW)
    expected = np.array(SLOW[form](outputs))
    assert boxes == pytest.approx(expected[:, :4], rel=1e-5, abs=1e-4)
    assert scores == pytest.approx(expected[:, 4], rel=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_each_form_is_told_from_the_others(form: str) -> None:
    outputs = random_outputs(form, np.random.default_rng(0))
    assert [name for name, other in FORMS.items() if other.recognises(outputs, HW)] == [form]
    swapped = (HW[1], HW[0])
    if form == "centerface":
        assert not centerface.recognises(outputs, swapped)
    assert not any(other.recognises(outputs[:2], HW) for other in FORMS.values())


def test_a_known_face_comes_back_from_each_form() -> None:
    """One face of 24x32 px whose centre is (44, 36): its cell is filled in by hand."""
    expected = [32.0, 20.0, 56.0, 52.0]
    yu = [np.zeros_like(o) for o in random_outputs("yunet", np.random.default_rng(0))]
    cell = 4 * 12 + 5  # row 4, column 5 at stride 8
    yu[0][0, cell], yu[3][0, cell] = 0.9, 0.4
    yu[6][0, cell] = [0.5, 0.5, math.log(3), math.log(4)]
    boxes, scores = yunet.decode(yu, HW)
    assert scores.max() == pytest.approx(0.6)
    assert boxes[scores.argmax()] == pytest.approx(expected, abs=1e-4)

    sc = [np.zeros_like(o) for o in random_outputs("scrfd", np.random.default_rng(0))]
    second = 2 * cell + 1  # its second anchor; the cell's corner is (40, 32)
    sc[0][second], sc[3][second] = 0.7, [1, 1.5, 2, 2.5]
    boxes, scores = scrfd.decode(sc, HW)
    assert boxes[scores.argmax()] == pytest.approx(expected)

    ce = [np.zeros_like(o) for o in random_outputs("centerface", np.random.default_rng(0))]
    row, column = 8, 10  # of stride 4: its centre is (42, 34)
    ce[0][0, 0, row, column] = 0.8
    ce[1][0, :, row, column] = [math.log(8), math.log(6)]
    ce[2][0, :, row, column] = 0.5
    boxes, scores = centerface.decode(ce, HW)
    assert boxes[scores.argmax()] == pytest.approx(expected, abs=1e-4)


def test_pixels_go_in_as_the_authors_have_them() -> None:
    image = np.zeros((2, 3, 3), np.uint8)
    image[0, 1] = [10, 20, 30]  # red, green, blue
    assert yunet.prepare(image)[0, :, 0, 1].tolist() == [30, 20, 10]
    assert centerface.prepare(image)[0, :, 0, 1].tolist() == [10, 20, 30]
    assert scrfd.prepare(image)[0, :, 0, 1] == pytest.approx(
        [(10 - 127.5) / 128, (20 - 127.5) / 128, (30 - 127.5) / 128]
    )
    assert all(form.prepare(image).shape == (1, 3, 2, 3) for form in FORMS.values())


def random_yunet(path: Path, seed: int) -> Path:
    """Write a network of chance with the inputs and outputs of YuNet as OpenCV ships it."""
    onnx = pytest.importorskip("onnx")
    helper, floats = onnx.helper, onnx.TensorProto.FLOAT
    rng = np.random.default_rng(seed)
    nodes, weights, outputs = [], [], []

    def weight(name: str, values: NDArray[Any]) -> str:
        weights.append(onnx.numpy_helper.from_array(values, name))
        return name

    for name, channels in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)):
        for stride in (8, 16, 32):
            end = f"{name}_{stride}"
            kernel = rng.normal(0, 0.01, (channels, 3, 1, 1)).astype(np.float32)
            shape = np.array([1, -1, channels], np.int64)
            size = {"kernel_shape": [stride, stride], "strides": [stride, stride]}
            last = f"{end}_raw" if name in ("cls", "obj") else end
            nodes += [
                helper.make_node("AveragePool", ["in"], [f"{end}_mean"], **size),
                helper.make_node("Conv", [f"{end}_mean", weight(f"{end}_w", kernel)], [f"{end}_c"]),
                helper.make_node("Transpose", [f"{end}_c"], [f"{end}_t"], perm=[0, 2, 3, 1]),
                helper.make_node("Reshape", [f"{end}_t", weight(f"{end}_s", shape)], [last]),
            ]
            if last != end:
                nodes.append(helper.make_node("Sigmoid", [last], [end]))
            cells = (HW[0] // stride) * (HW[1] // stride)
            outputs.append(helper.make_tensor_value_info(end, floats, [1, cells, channels]))
    image = helper.make_tensor_value_info("in", floats, [1, 3, *HW])
    graph = helper.make_graph(nodes, "yunet", [image], outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def test_a_yunet_is_read_as_opencv_reads_it(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    cv2 = pytest.importorskip("cv2")
    if not hasattr(cv2, "FaceDetectorYN"):
        pytest.skip("this OpenCV has no YuNet")
    from videogender.evaluation.peers.peer import Peer

    path = random_yunet(tmp_path / "yunet.onnx", seed=1)
    noise = np.random.default_rng(2).integers(0, 256, (*HW, 3))
    image = np.kron(noise[::8, ::8], np.ones((8, 8, 1))).astype(np.uint8)
    theirs = cv2.FaceDetectorYN.create(str(path), "", (HW[1], HW[0]), 0.3, 1.0)
    _, rows = theirs.detect(np.ascontiguousarray(image[..., ::-1]))
    peer = Peer(path, long_side=0, face_threshold=0.3, threads=1)
    boxes, scores = yunet.decode(peer._run(yunet.prepare(image)), HW)
    chosen = np.argsort(-scores)[: (scores >= 0.3).sum()]
    assert 20 < len(chosen) == len(rows) < len(scores)
    rows = rows[np.argsort(-rows[:, 14])]
    assert scores[chosen] == pytest.approx(rows[:, 14], abs=1e-4)
    expected = np.hstack([rows[:, :2], rows[:, :2] + rows[:, 2:4]])
    assert boxes[chosen] == pytest.approx(expected, abs=0.02)
    (faces,) = peer([image])
    assert 0 < len(faces) < len(chosen)


def red_finder(path: Path, size_hw: tuple[int, int] = (32, 32)) -> Path:
    """Write a network of CenterFace's form that sees a face of 16x16 in each red 4x4 cell."""
    onnx = pytest.importorskip("onnx")
    helper, floats = onnx.helper, onnx.TensorProto.FLOAT
    maps = [size_hw[0] // 4, size_hw[1] // 4]

    def weights(name: str, values: Any) -> Any:
        return onnx.numpy_helper.from_array(np.array(values, np.float32), name)

    red_only = np.zeros((1, 3, 1, 1))
    red_only[0, 0] = 1 / 255
    nodes = [
        helper.make_node("AveragePool", ["in"], ["cells"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Conv", ["cells", "red"], ["heat"]),
        helper.make_node("Conv", ["cells", "none", "size"], ["sizes"]),
        helper.make_node("Conv", ["cells", "none"], ["offsets"]),
    ]
    named = [
        weights("red", red_only),
        weights("none", np.zeros((2, 3, 1, 1))),
        weights("size", [math.log(4)] * 2),
    ]
    graph = helper.make_graph(
        nodes,
        "red",
        # an old exporter's habit: weights stand among the inputs
        [
            helper.make_tensor_value_info("in", floats, [10, 3, *size_hw]),
            helper.make_tensor_value_info("red", floats, [1, 3, 1, 1]),
        ],
        [
            helper.make_tensor_value_info(name, floats, [10, channels, *maps])
            for name, channels in (("heat", 1), ("sizes", 2), ("offsets", 2))
        ],
        named,
        value_info=[helper.make_tensor_value_info("cells", floats, [10, 3, *maps])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path


def test_a_file_of_one_size_takes_any(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    path = red_finder(tmp_path / "red.onnx")
    before = onnx.load_from_string(path.read_bytes())
    opened = onnx.load_from_string(open_sizes(path.read_bytes()))
    onnx.checker.check_model(opened, full_check=True)
    dims = [d.dim_param or d.dim_value for d in opened.graph.input[0].type.tensor_type.shape.dim]
    assert dims == ["batch", 3, "height", "width"]
    # all that is no declared shape is as it was
    assert opened.graph.input[1] == before.graph.input[1]
    assert list(opened.graph.node) == list(before.graph.node)
    assert list(opened.graph.initializer) == list(before.graph.initializer)
    assert (opened.opset_import, opened.ir_version) == (before.opset_import, before.ir_version)


@pytest.mark.parametrize("content", [b"\xff\xff", b"PK\x03\x04 and more", b"\x3a\xff\x01"])
def test_other_files_are_not_opened(content: bytes) -> None:
    with pytest.raises(ValueError, match="not an ONNX model"):
        open_sizes(content)


def test_a_peer_finds_faces_in_pixels_of_the_picture(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from videogender.evaluation.peers.peer import Peer

    path = red_finder(tmp_path / "red.onnx")
    peer = Peer(path, long_side=100, face_threshold=0.3, threads=1)
    assert peer.name == "CenterFace (red.onnx)"
    small = np.zeros((40, 72, 3), np.uint8)  # no multiple of 32: it is padded
    small[20:24, 64:68] = [255, 0, 0]
    small[20:24, 8:12] = [0, 0, 255]
    large = np.zeros((160, 400, 3), np.uint8)  # shrunk to a quarter
    large[64:80, 32:48] = [255, 0, 0]
    first, second = peer([small, large])
    assert first.boxes.tolist() == [[58, 14, 74, 30]]
    assert first.scores == pytest.approx([1.0])
    assert np.isnan(first.female).all()
    assert second.boxes[0] == pytest.approx([8, 40, 72, 104], abs=1)
    assert len(second) == 1


def test_a_file_whose_operators_take_one_size_is_given_that(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    from videogender.evaluation.peers.peer import Peer

    model = onnx.load(red_finder(tmp_path / "red.onnx", (64, 64)))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    shape = onnx.numpy_helper.from_array(np.array([1, 1, 16, 16], np.int64), "fixed")
    model.graph.initializer.append(shape)
    model.graph.node.append(onnx.helper.make_node("Reshape", ["heat", "fixed"], ["map"]))
    model.graph.output[0].name = "map"
    for output in model.graph.output:
        output.type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, tmp_path / "fixed.onnx")
    image = np.zeros((40, 60, 3), np.uint8)
    image[20:24, 40:44] = [255, 0, 0]
    peer = Peer(tmp_path / "fixed.onnx", long_side=64, face_threshold=0.3, threads=1)
    assert peer([image])[0].boxes.tolist() == [[34, 14, 50, 30]]
    large = Peer(tmp_path / "fixed.onnx", long_side=128, face_threshold=0.3, threads=1)
    with pytest.raises(ModelError, match="up to 64x64 only; use --long-side 64"):
        large([np.zeros((100, 100, 3), np.uint8)])


def test_files_that_are_no_peers_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    from videogender.evaluation.peers.peer import Peer

    def refused(path: Path, message: str) -> None:
        with pytest.raises(ModelError, match=message):
            Peer(path, long_side=64, face_threshold=0.1, threads=1)

    refused(tmp_path / "missing.onnx", "cannot be read")
    (tmp_path / "text.onnx").write_text("hello there")
    refused(tmp_path / "text.onnx", "not an ONNX model")
    model = onnx.load(red_finder(tmp_path / "odd.onnx"))
    shape = onnx.numpy_helper.from_array(np.array([1, 1, 7], np.int64), "fixed")
    model.graph.initializer.append(shape)
    model.graph.node.append(onnx.helper.make_node("Reshape", ["heat", "fixed"], ["odd"]))
    model.graph.output[0].name = "odd"
    onnx.save(model, tmp_path / "odd.onnx")
    refused(tmp_path / "odd.onnx", r"nor a CenterFace \(it does not run at 96x64\)$")
    model = onnx.load(red_finder(tmp_path / "red.onnx"))
    del model.graph.output[2]
    onnx.save(model, tmp_path / "short.onnx")
    refused(tmp_path / "short.onnx", "neither a YuNet nor an SCRFD nor a CenterFace")
