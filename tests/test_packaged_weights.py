"""The network that ships: it finds the faces of the sample, labels them, and fits the package."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import videogender
from videogender.weights_store import resolve

SAMPLES = Path(__file__).resolve().parent.parent / "samples"


@pytest.fixture(scope="module")
def detector() -> videogender.Detector:
    return videogender.Detector.load("lite", device="cpu")


CALLED_MALE = pytest.mark.xfail(
    reason="the network that ships calls some women with short or covered hair male; "
    "MODEL_CARD.md gives the rates",
    strict=False,
)


def faces_of(detector: videogender.Detector, still: str) -> videogender.Faces:
    image = np.array(Image.open(SAMPLES / "stills" / f"{still}.jpg").convert("RGB"))
    return detector([image])[0]


@pytest.mark.parametrize("still", ["collins", "hopper", "obama", "biden"])
def test_stills_show_one_large_face(detector: videogender.Detector, still: str) -> None:
    """The surest face lies where a portrait has it, and no other is as large."""
    faces = faces_of(detector, still)
    width, height = Image.open(SAMPLES / "stills" / f"{still}.jpg").size
    x1, y1, x2, y2 = faces.boxes[0]
    assert faces.scores[0] > 0.9
    assert 0.2 * width < (x1 + x2) / 2 < 0.8 * width
    assert y1 < 0.5 * height
    assert 0.15 * height < y2 - y1 < 0.7 * height
    assert all(faces.boxes[1:, 3] - faces.boxes[1:, 1] < 0.2 * (y2 - y1))


@pytest.mark.parametrize(
    ("still", "label"),
    [
        ("collins", "female"),
        pytest.param("hopper", "female", marks=CALLED_MALE),
        ("obama", "male"),
        ("biden", "male"),
    ],
)
def test_stills_get_the_label_that_anyone_would_give(
    detector: videogender.Detector, still: str, label: str
) -> None:
    assert faces_of(detector, still).labels(0.5)[0] == label


def test_clip_shows_its_four_faces(detector: videogender.Detector) -> None:
    """Three or four are in nearly every frame (one may be covered), and there is some label."""
    counts: Counter[int] = Counter()
    labels: Counter[str] = Counter()
    for index, (_, faces) in enumerate(videogender.stream(SAMPLES / "clip.mp4", detector)):
        if index % 5 == 0:
            counts[len(faces)] += 1
            labels.update(faces.labels(0.65))
    assert counts.total() == 50
    assert counts[3] + counts[4] >= 40
    assert counts[3] + counts[4] + counts[5] == 50
    assert labels["male"] >= 80  # two men in 50 frames, one of them small


def test_no_face_where_there_is_none(detector: videogender.Detector) -> None:
    generator = np.random.default_rng(0)
    white = generator.integers(0, 255, (480, 640, 3), np.uint8)
    dark = generator.normal(40, 25, (480, 640, 3)).clip(0, 255).astype(np.uint8)
    noise = generator.normal(128, 40, (480, 640, 3)).clip(0, 255).astype(np.uint8)
    ramp = np.broadcast_to(np.linspace(0, 255, 640).astype(np.uint8)[None, :, None], (480, 640, 3))
    found = detector([white, dark, noise, np.ascontiguousarray(ramp)])
    assert [len(faces) for faces in found] == [0, 0, 0, 0]


def test_weights_fit_the_package() -> None:
    assert resolve("lite", None).stat().st_size <= 4_000_000


def test_annotating_needs_no_opencv(tmp_path: Path) -> None:
    """`import cv2` fails where libGL is missing; annotating never asks for it."""
    code = (
        "import sys; sys.modules['cv2'] = None\n"
        "from videogender.cli.main import main\n"
        f"sys.exit(main(['annotate', {str(SAMPLES / 'clip.mp4')!r}, '--end', '0.4', '--device', "
        f"'cpu', '-o', {str(tmp_path / 'out.mp4')!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.mp4").stat().st_size > 0


def test_loading_leaves_the_compiler_of_pytorch_alone() -> None:
    """It takes as long to load as everything else together, and nothing here compiles."""
    code = (
        "import sys, videogender; videogender.Detector.load('lite', device='cpu'); "
        "print(any(name.startswith(('torch._dynamo', 'torch._inductor')) for name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "False", done.stdout + done.stderr
