"""The committed sample: what it holds, and that its script makes it."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import ModuleType

import av
import numpy as np
import pytest
from PIL import Image

SAMPLES = Path(__file__).resolve().parent.parent / "samples"
CLIP = SAMPLES / "clip.mp4"


@pytest.fixture(scope="module")
def script() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("make_clip", SAMPLES / "make_clip.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_clip"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["make_clip"]


def test_the_clip_is_small_and_has_picture_and_sound() -> None:
    assert CLIP.stat().st_size <= 2_000_000
    with av.open(str(CLIP)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert len(container.streams) == 2
        assert (video.codec_context.name, audio.codec_context.name) == ("h264", "aac")
        assert (video.width, video.height, video.pix_fmt) == (1280, 720, "yuv420p")
        assert video.average_rate == 25
        assert video.codec_context.colorspace == 1  # BT.709
        pts = [frame.pts * frame.time_base for frame in container.decode(video)]
    assert pts == [Fraction(index, 25) for index in range(250)]
    with av.open(str(CLIP)) as container:
        blocks = [frame.to_ndarray() for frame in container.decode(audio=0)]
    sound = np.concatenate(blocks, axis=1)
    assert sound.shape[1] / 48000 == pytest.approx(10, abs=0.06)
    assert np.sqrt((sound**2).mean()) > 0.02  # not silence
    assert np.abs(sound).max() < 0.9


def test_the_script_draws_the_frames_of_the_clip(script: ModuleType) -> None:
    wanted = (0, 90, 249)
    with av.open(str(CLIP)) as container:
        for index, frame in enumerate(container.decode(video=0)):
            if index not in wanted:
                continue
            rgb = frame.reformat(format="rgb24", src_colorspace="ITU709").to_ndarray()
            error = rgb.astype(np.float64) - script.render_frame(index)
            assert 10 * np.log10(255**2 / (error**2).mean()) > 30, f"frame {index}"


def test_the_script_repeats_itself(script: ModuleType, tmp_path: Path) -> None:
    for name in ("first.mp4", "second.mp4"):
        script.write_clip(tmp_path / name, frame_count=4)
    assert (tmp_path / "first.mp4").read_bytes() == (tmp_path / "second.mp4").read_bytes()


def test_stills_are_small_and_each_has_its_provenance() -> None:
    readme = (SAMPLES / "README.md").read_text(encoding="utf-8")
    stills = sorted((SAMPLES / "stills").iterdir())
    assert len(stills) == 4
    for still in stills:
        assert still.stat().st_size <= 150_000
        assert still.name in readme
        with Image.open(still) as image:
            assert image.format == "JPEG"
            assert min(image.size) >= 400
