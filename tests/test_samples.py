"""The committed sample: what it holds, and that its script makes it."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import ModuleType

import av
import numpy as np
import pytest
from PIL import Image

from videogender.cli.main import main
from videogender.evaluation.video_truth import parse_truth

SAMPLES = Path(__file__).resolve().parent.parent / "samples"
CLIP = SAMPLES / "clip.mp4"
TRUTH = SAMPLES / "clip.truth.jsonl"


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


def test_the_truth_names_two_women_and_two_men_on_their_portraits(script: ModuleType) -> None:
    """Whom the pillar hides, and nobody else, is left out of the count."""
    truth = parse_truth(TRUTH).of_video({frame: frame / 25 for frame in range(250)})
    assert TRUTH.stat().st_size < 10_000
    assert not truth.linked
    assert (min(truth.frames), max(truth.frames)) == (0, 249)
    women_and_men = {1: "female", 2: "female", 3: "male", 4: "male"}
    for frame, faces in truth.frames.items():
        assert {face.track: face.label for face in faces} == women_and_men, frame
        for face in faces:
            left, _, right, _ = face.box
            pillar = min(right, script.BAR_X + script.BAR_WIDTH) - max(left, script.BAR_X)
            assert face.ignore == (pillar > (right - left) / 2), (frame, face)


def test_the_labels_of_the_clip_can_be_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip, truth = tmp_path / "clip.mp4", tmp_path / "truth.jsonl"
    beginning_of(CLIP, clip, packets=40)
    lines = TRUTH.read_text(encoding="utf-8").splitlines()[:3]  # to frame 20
    truth.write_text("\n".join(lines), encoding="utf-8")
    arguments = [str(clip), str(truth), "--long-side", "480", "--threads", "1"]
    assert main(["eval", "video", *arguments, "--json", "-", "--quiet"]) == 0
    usual, by_track, by_frame = json.loads(capsys.readouterr().out)["results"]
    assert (usual["label_by"], usual["detect_fps"]) == ("track", 10.0)
    assert (usual["faces"], by_track["faces"], by_frame["faces"]) == (12, 12, 12)
    assert [track["label"] for track in by_track["tracks"]] == ["female"] * 2 + ["male"] * 2
    assert by_track["found"] >= 0.7  # boxes in the wrong place would find none
    assert by_track["label_changes"] == 0


def beginning_of(source: Path, target: Path, packets: int) -> None:
    """Copy the first packets of a video without decoding them."""
    with av.open(str(source)) as read, av.open(str(target), "w") as write:
        stream = write.add_stream_from_template(read.streams.video[0])
        for count, packet in enumerate(read.demux(video=0)):
            if count == packets:
                break
            packet.stream = stream
            write.mux(packet)
