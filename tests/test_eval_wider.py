"""WIDER FACE: the official protocol against a step-by-step version, and its files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from videogender.dataset import Entry
from videogender.errors import TrainingError
from videogender.evaluation.labelled import evenly, read_labelled
from videogender.evaluation.wider_protocol import LEVELS, OFFICIAL_BOXES, evaluate_wider
from videogender.frames import Faces

Found = list[tuple[Entry, Faces]]


def slow_overlap(a: list[float], b: list[float]) -> float:
    wide = min(a[2], b[2]) - max(a[0], b[0]) + 1
    high = min(a[3], b[3]) - max(a[1], b[1]) + 1
    if wide <= 0 or high <= 0:
        return 0.0
    area_a = (a[2] - a[0] + 1) * (a[3] - a[1] + 1)
    area_b = (b[2] - b[0] + 1) * (b[3] - b[1] + 1)
    return wide * high / (area_a + area_b - wide * high)


def slow_protocol(found: Found, level: str) -> float:
    """Go through pictures, thresholds and detections one by one, as the protocol is told."""
    everything = [s for _, faces in found for s in faces.scores.astype(float).tolist()]
    low, high = min(everything), max(everything)
    proposals, hits, positives = [0] * 1000, [0] * 1000, 0
    for entry, faces in found:
        counted = [f.get("wider") in LEVELS[: LEVELS.index(level) + 1] for f in entry.faces]
        positives += sum(counted)
        if not entry.faces or not len(faces):
            continue
        scores = [(s - low) / (high - low) for s in faces.scores.astype(float).tolist()]
        overlaps = [[slow_overlap(b, f["box"]) for f in entry.faces] for b in faces.boxes.tolist()]
        for step in range(1000):
            threshold = 1 - (step + 1) / 1000
            taken: set[int] = set()
            for row, score in zip(overlaps, scores, strict=True):
                if score < threshold:
                    break
                best = row.index(max(row))
                if row[best] < 0.5:
                    proposals[step] += 1
                elif counted[best]:
                    proposals[step] += 1
                    if best not in taken:
                        taken.add(best)
                        hits[step] += 1
    recall = [0.0, *(h / positives for h in hits), 1.0]
    precision = [0.0, *(h / p if p else 0.0 for h, p in zip(hits, proposals, strict=True)), 0.0]
    for i in range(len(precision) - 1, 0, -1):
        precision[i - 1] = max(precision[i - 1], precision[i])
    return sum((recall[i + 1] - recall[i]) * precision[i + 1] for i in range(len(recall) - 1))


def random_set(seed: int, images: int = 8) -> Found:
    """Make pictures with faces of all levels and detections that hit, double, miss and invent."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(images):
        corner = rng.integers(0, 600, (rng.integers(0, 9), 2))
        side = rng.integers(8, 60, (len(corner), 1))
        truth = np.hstack([corner, corner + side]).astype(float)
        names = rng.choice([*LEVELS, "none"], len(truth))
        faces: list[dict[str, Any]] = [
            {"box": b, "wider": n} if n != "none" else {"box": b, "ignore": True}
            for b, n in zip(truth.tolist(), names, strict=True)
        ]
        near = np.repeat(truth, 2, 0) + rng.normal(0, 4, (2 * len(truth), 4))
        away = rng.integers(0, 500, (rng.integers(0, 6), 2))
        boxes = np.vstack([near, np.hstack([away, away + 40])]).astype(np.float32)
        # some scores are alike, as those of a half-precision network are
        scores = np.sort(rng.beta(2, 2, len(boxes)).round(2))[::-1].astype(np.float32)
        boxes = boxes[rng.permutation(len(boxes))]
        entry = Entry(Path("a.png"), 640, 640, faces, {})
        found.append((entry, Faces(boxes, scores, np.full(len(boxes), np.nan, np.float32))))
    return found


@pytest.mark.parametrize("seed", range(4))
def test_the_protocol_is_that_of_a_slow_version(seed: int) -> None:
    found = random_set(seed)
    figures = evaluate_wider(found)
    for level in LEVELS:
        assert figures[level].average_precision == pytest.approx(slow_protocol(found, level))
    assert figures["easy"].faces < figures["medium"].faces < figures["hard"].faces


def one(faces: list[dict[str, Any]], rows: list[tuple[list[float], float]]) -> Found:
    boxes = np.array([box for box, _ in rows], np.float32).reshape(-1, 4)
    scores = np.array([score for _, score in rows], np.float32)
    nothing = np.full(len(rows), np.nan, np.float32)
    return [(Entry(Path("a.png"), 640, 640, faces, {}), Faces(boxes, scores, nothing))]


A, B, C = [0.0, 0, 40, 40], [100.0, 0, 140, 40], [200.0, 0, 240, 40]


def test_levels_by_hand() -> None:
    faces = [{"box": A, "wider": "easy"}, {"box": B, "wider": "hard"}, {"box": C}]
    # a hit on the face of no level counts neither way; the second look at A is a false alarm
    found = one(faces, [(A, 0.9), (C, 0.8), (A, 0.7), (B, 0.6), (B, 0.1)])
    figures = evaluate_wider(found)
    assert figures["easy"].average_precision == pytest.approx(1.0)
    assert figures["medium"].average_precision == pytest.approx(1.0)
    assert figures["hard"].average_precision == pytest.approx((1 + 2 / 3) / 2)
    assert [figures[level].faces for level in LEVELS] == [1, 1, 2]


def test_an_overlap_counts_both_ends_of_a_box() -> None:
    # 10 px and 5 px wide: IoU 1/2 as areas, 66/121 with the ends; just below at 4 px
    face = [{"box": [0.0, 0, 10, 10], "wider": "easy"}]
    for width, expected in ((5.0, 1.0), (4.0, 0.0)):
        found = one(face, [([0.0, 0, width, 10], 0.9), (B, 0.1)])
        assert evaluate_wider(found)["easy"].average_precision == pytest.approx(expected)


def test_pictures_without_faces_are_passed_over_unless_the_files_list_them() -> None:
    base = one([{"box": A, "wider": "easy"}], [(A, 0.5), (B, 0.1)])
    empty = one([], [(C, 0.9)])
    assert evaluate_wider(base + empty)["easy"].average_precision == pytest.approx(1.0)
    entry = Entry(Path("a.png"), 640, 640, [], {OFFICIAL_BOXES: 1})
    listed = evaluate_wider([*base, (entry, empty[0][1])])
    assert listed["easy"].average_precision == pytest.approx(0.5)


def test_the_interval_holds_the_figure_and_shrinks() -> None:
    def width(images: int) -> float:
        figures = evaluate_wider(random_set(1, images))["hard"]
        low, high = figures.interval
        assert low < figures.average_precision < high
        return high - low

    assert width(256) < 0.5 * width(16)  # a quarter, but for the upper end at 1


def write_wider(folder: Path) -> None:
    """Write three pictures of two events as the authors hand them out."""
    text = [
        *("0--Parade/a.jpg", "2", "10 20 30 40 0 0 0 0 0 0 ", "50 60 8 9 2 0 0 1 0 0 "),
        *("0--Parade/b.jpg", "0", "0 0 0 0 0 0 0 0 0 0 "),
        *("1--Handshaking/c.jpg", "1", "5 6 70 80 0 0 0 0 0 0 "),
    ]
    (folder / "wider_face_split").mkdir(parents=True)
    (folder / "wider_face_split/wider_face_val_bbx_gt.txt").write_text("\n".join(text) + "\n")
    for name, size in (("0--Parade/a", (200, 100)), ("0--Parade/b", (64, 64))):
        path = folder / f"WIDER_val/images/{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size).save(path)
    (folder / "WIDER_val/images/1--Handshaking").mkdir()
    Image.new("RGB", (100, 120)).save(folder / "WIDER_val/images/1--Handshaking/c.jpg")


def cell(*items: Any) -> NDArray[np.object_]:
    """Make a MATLAB cell array of one column."""
    out = np.empty((len(items), 1), object)
    for row, item in enumerate(items):
        out[row, 0] = item
    return out


def write_levels(folder: Path) -> None:
    """Write the evaluation tools' files, the first face being medium and the last one easy."""
    savemat = pytest.importorskip("scipy.io").savemat
    place = folder / "eval_tools/ground_truth"
    place.mkdir(parents=True)
    boxes = cell(
        cell(np.array([[10, 20, 30, 40], [50, 60, 8, 9]]), np.array([[0, 0, 0, 0]])),
        cell(np.array([[5, 6, 70, 80]])),
    )
    truth = {
        "event_list": cell("0--Parade", "1--Handshaking"),
        "file_list": cell(cell("a", "b"), cell("c")),
        "face_bbx_list": boxes,
    }
    savemat(place / "wider_face_val.mat", truth)
    nothing = np.zeros((0, 1))
    first = {"easy": nothing, "medium": np.array([[1]]), "hard": np.array([[1]])}
    for level, numbers in first.items():
        counted = cell(cell(numbers, nothing), cell(np.array([[1]])))
        savemat(place / f"wider_{level}_val.mat", {"gt_list": counted})


def test_a_wider_folder_is_read(tmp_path: Path) -> None:
    write_wider(tmp_path)
    labelled = read_labelled(tmp_path)
    assert labelled.form == "wider"
    assert "no official" in labelled.notes[0]
    first, second, third = labelled.entries
    assert (first.width, first.height) == (200, 100)
    assert first.faces == [
        {"box": [10, 20, 40, 60]},
        {"box": [50, 60, 58, 69], "ignore": True},
    ]
    assert second.faces == []
    assert third.path.exists()
    assert [entry.path.name for entry in evenly(labelled.entries, 2)] == ["a.jpg", "b.jpg"]


def test_levels_come_from_the_official_files(tmp_path: Path) -> None:
    write_wider(tmp_path)
    write_levels(tmp_path)
    labelled = read_labelled(tmp_path)
    assert labelled.notes == ()
    first, second, third = labelled.entries
    assert [face.get("wider") for face in first.faces] == ["medium", None]
    assert third.faces[0]["wider"] == "easy"
    assert second.attributes[OFFICIAL_BOXES] == 1  # the tools list a box of zeros


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    write_wider(tmp_path)
    write_levels(tmp_path)
    split = tmp_path / "wider_face_split/wider_face_val_bbx_gt.txt"
    text = split.read_text()
    split.write_text(text.replace("1\n5 6 70 80", "2\n1 2 3 4 0 0 0 0 0 0\n5 6 70 80"))
    with pytest.raises(TrainingError, match="has 2 faces, and 1 in the MATLAB files"):
        read_labelled(tmp_path)
    split.write_text(text.replace("10 20 30 40", "10 20 thirty"))
    with pytest.raises(TrainingError, match=r"_gt\.txt:3: expected x, y, width, height"):
        read_labelled(tmp_path)
    split.write_text(text.replace("c.jpg\n1\n", "c.jpg\none\n"))
    with pytest.raises(TrainingError, match=r"_gt\.txt:9: expected the number of faces"):
        read_labelled(tmp_path)
    (tmp_path / "eval_tools/ground_truth/wider_easy_val.mat").write_bytes(b"not MATLAB's")
    split.write_text(text)
    with pytest.raises(TrainingError, match="not the MATLAB files"):
        read_labelled(tmp_path)


def test_coco_is_read(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    Image.new("RGB", (40, 30)).save(tmp_path / "images/b.png")
    content: dict[str, Any] = {
        "images": [
            {"id": 7, "file_name": "a.png", "width": 640, "height": 480},
            {"id": 8, "file_name": "b.png"},
        ],
        "annotations": [
            {"image_id": 7, "bbox": [10, 20, 30.5, 40], "category_id": 2},
            {"image_id": 7, "bbox": [0, 0, 5, 5], "category_id": 2, "iscrowd": 1},
            {"image_id": 7, "bbox": [0, 0, 9, 9], "category_id": 1},
            {"image_id": 8, "bbox": [1, 2, 0, 4], "category_id": 2},
            {"image_id": 8, "bbox": [1, 2, 3, 4], "category_id": 2, "attributes": {"race": "x"}},
        ],
        "categories": [{"id": 1, "name": "car"}, {"id": 2, "name": "Face"}],
    }
    path = tmp_path / "labels.json"
    path.write_text(json.dumps(content))
    labelled = read_labelled(path)
    assert labelled.form == "coco"
    assert labelled.notes == ("1 empty boxes were left out",)
    first, second = labelled.entries
    assert first.faces == [{"box": [10, 20, 40.5, 60]}, {"box": [0, 0, 5, 5], "ignore": True}]
    assert (second.width, second.height, second.path.exists()) == (40, 30, True)
    assert second.faces == [{"box": [1, 2, 4, 6], "race": "x"}]


def test_coco_of_annotate_is_read(tmp_path: Path) -> None:
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 640, "height": 480}],
        "annotations": [
            {"image_id": 1, "bbox": [0, 0, 9, 9], "category_id": 1},
            {"image_id": 1, "bbox": [0, 0, 9, 9], "category_id": 2},
            {"image_id": 1, "bbox": [0, 0, 9, 9], "category_id": 3},
            {"image_id": 1, "bbox": [0, 0, 9, 9], "category_id": 3, "gender": "Woman"},
        ],
        "categories": [
            {"id": i, "name": name} for i, name in enumerate(("Female", "male", "unsure"), 1)
        ],
    }
    path = tmp_path / "labels.json"
    path.write_text(json.dumps(content))
    (entry,) = read_labelled(path).entries
    assert [face.get("gender") for face in entry.faces] == ["female", "male", None, "female"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", "not JSON"),
        ("[]", "not COCO JSON"),
        ('{"images": [], "annotations": []}', "lists no images"),
        (
            '{"images": [{"id": 1, "file_name": "a", "width": 4, "height": 4}],'
            ' "annotations": [{"image_id": 1, "bbox": [1, 2, 3]}]}',
            "annotation 0: needs a `bbox` of four numbers",
        ),
        (
            '{"images": [{"id": 1, "file_name": "a", "width": 4, "height": 4}],'
            ' "annotations": [{"image_id": 2, "bbox": [1, 2, 3, 4]}]}',
            "name the image 2",
        ),
        (
            '{"images": [], "annotations": [],'
            ' "categories": [{"id": 1, "name": "car"}, {"id": 2, "name": "dog"}]}',
            r"none of its categories is called face \(car, dog\)",
        ),
    ],
)
def test_faulty_coco_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "labels.json"
    path.write_text(content)
    with pytest.raises(TrainingError, match=message):
        read_labelled(path)


def test_what_holds_no_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="holds no labels"):
        read_labelled(tmp_path)
    with pytest.raises(TrainingError, match="no such data"):
        read_labelled(tmp_path / "missing")
