"""`--skip-existing`: what is finished is known by content, settings and weights."""

from __future__ import annotations

import json
import os
import pickle
import re
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from squares import SquareDetector, picture, write_video
from test_jobs import names, run, start, timeless, wait_for

import videogender.annotation as annotation
from videogender.annotation import annotate
from videogender.config import DetectSettings, Settings, VideoSettings
from videogender.errors import ConfigError, OutputError
from videogender.jobs import manifest
from videogender.jobs.manifest import NAME
from videogender.jobs.record import replay
from videogender.sinks.jsonl import JsonlSink

OTHER = "exists already, made of other content or with other settings or weights; --force"


@pytest.fixture(autouse=True)
def squares(monkeypatch: pytest.MonkeyPatch) -> list[SquareDetector]:
    """Let a run load a detector of squares; return those that were."""
    loaded: list[SquareDetector] = []

    def load(settings: Settings) -> SquareDetector:
        loaded.append(SquareDetector())
        return loaded[-1]

    monkeypatch.setattr(annotation, "load_detector", load)
    return loaded


def skips(clip: Path, settings: Settings | None = None, force: bool = False) -> bool:
    [summary] = annotate(clip, settings=settings, skip_existing=True, force=force)
    assert summary.error is None
    return summary.skipped


def age(file: Path, seconds: float) -> None:
    """Let a file seem to be changed so long after (before) it was."""
    moment = file.stat().st_mtime + seconds
    os.utime(file, (moment, moment))


def test_a_copied_archive_is_not_done_again(tmp_path: Path, squares: list[SquareDetector]) -> None:
    """The same content under a newer date is the same; other content under an old date is not."""
    clip = write_video(tmp_path / "a.mp4", count=3)
    assert not skips(clip)
    assert skips(clip)
    age(clip, 1000)
    assert skips(clip)
    assert len(squares) == 1
    write_video(clip, count=4)
    age(clip, -1000)
    with pytest.raises(OutputError, match=OTHER):
        skips(clip)
    assert not skips(clip, force=True)
    assert skips(clip, force=True)


def test_other_settings_and_weights_make_another_copy(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "a.mp4", count=3)
    weights = tmp_path / "mine.safetensors"
    weights.write_bytes(b"some numbers")
    ours = Settings(detect=DetectSettings(weights=str(weights)))
    assert not skips(clip, ours)
    assert skips(clip, ours)
    # how fast it is does not matter, nor does where the same weights lie
    moved = weights.rename(tmp_path / "moved.safetensors")
    same = Settings(detect=DetectSettings(weights=str(moved), threads=1, batch_size=2))
    assert skips(clip, same)
    for other in (
        replace(same, video=VideoSettings(crf=30)),
        replace(same, detect=replace(same.detect, face_threshold=0.4)),
        Settings(),
    ):
        with pytest.raises(OutputError, match=OTHER):
            skips(clip, other)
    moved.write_bytes(b"other numbers")
    with pytest.raises(OutputError, match=OTHER):
        skips(clip, same)


def test_a_copy_of_which_nothing_is_known_counts_by_its_date(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "a.mp4", count=3)
    copy = tmp_path / "a.annotated.mp4"
    assert not skips(clip)
    other = Settings(video=VideoSettings(crf=30))
    annotate(clip, settings=other, force=True)  # notes nothing, and the old note no longer fits
    assert skips(clip)
    age(copy, -1000)
    with pytest.raises(OutputError, match="exists already, older than its input; --force"):
        skips(clip)


def test_content_under_a_new_date_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = write_video(tmp_path / "a.mp4", count=3)
    assert not skips(clip)
    age(clip, 1000)
    read: list[Path] = []
    real = manifest.sha256_of
    monkeypatch.setattr(manifest, "sha256_of", lambda file: read.append(file) or real(file))
    assert skips(clip)
    assert skips(clip)
    assert read.count(clip) == 1


def test_a_manifest_that_was_cut_short_harms_nothing(tmp_path: Path) -> None:
    clips = [write_video(tmp_path / f"{name}.mp4", count=3) for name in "ab"]
    assert not any(skips(clip) for clip in clips)
    notes = tmp_path / NAME
    lines = [line for line in notes.read_text().splitlines() if line]
    assert len(lines) == 2
    notes.write_text(lines[0] + "\n" + lines[1][:20])
    clips.append(write_video(tmp_path / "c.mp4", count=3))
    assert not skips(clips[2])  # noted behind what was cut short
    age(clips[0], 1000)
    age(clips[2], 1000)
    assert all(skips(clip) for clip in clips)
    age(clips[1], 1000)
    with pytest.raises(OutputError, match="older than its input"):
        skips(clips[1])


INPUTS = ("a.mp4", "still.png", "b.mp4", "wide.mp4")
DATA = ("--json", "--csv", "--coco", "--summary", "--report")


def flags(name: str) -> list[str]:
    """Name every kind of data file, and what takes all kinds of values to tell."""
    zone = ("--zone", "left:0,0;50%,0;50%,100%;0,100%", "--line", "gate:50,120;50,0")
    return [*zone, *(part for flag in DATA for part in (flag, f"{name}{flag}"))]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a short clip and two longer ones, one of which is wide, and their data."""
    folder = tmp_path_factory.mktemp("clips")
    for name, count, wide in (("a", 10, 160), ("b", 150, 160), ("wide", 20, 200)):
        write_video(folder / f"{name}.mp4", count=count, size_wh=(wide, 120))
    Image.fromarray(picture(160, 120, (20, 30, 40))).save(folder / "still.png")
    assert run(*INPUTS, "--no-video", *flags("whole"), cwd=folder)[0] == 0
    return folder


def check_data(clips: Path, name: str) -> None:
    """Compare data with those of one process and one run."""
    for flag in DATA:
        assert timeless(clips / f"{name}{flag}") == timeless(clips / f"whole{flag}"), flag


def test_after_a_failure_only_that_is_done_again(clips: Path) -> None:
    call = (*INPUTS, "--no-video", *flags("f"), "--skip-existing", "-j", "2")
    code, _, err = run(*call, cwd=clips, env={"SQUARES_FATAL_WIDTH": "200"})
    assert code == 1, err
    assert "error: wide.mp4: its process was killed" in err
    assert ".f--json.videogender" in names(clips)
    code, _, err = run(*call, "--force", cwd=clips)
    assert code == 0, err
    assert "b.mp4: skipped, as its data were kept" in err
    assert re.search("^4 inputs, 3 skipped: 181 frames, 181 faces", err, re.M)
    check_data(clips, "f")
    assert ".f--json.videogender" not in names(clips), "the run is complete"


def test_kept_data_that_are_damaged_fail_alone(clips: Path) -> None:
    call = (*INPUTS, "--no-video", *flags("d"), "--skip-existing")
    assert run(*call, cwd=clips, env={"SQUARES_FATAL_WIDTH": "200"})[0] == 1
    kept = clips / ".d--json.videogender"
    for name, odd in zip(names(kept), (b"", b"\x80\x05", pickle.dumps(["no piece"])), strict=True):
        line = (kept / name).read_bytes().partition(b"\n")[0]
        (kept / name).write_bytes(line + b"\n" + len(odd).to_bytes(8, "little") + odd)
    code, _, err = run(*call, "--force", cwd=clips)
    assert code == 4, err
    told = re.findall(r"^error: (\S+): its kept data cannot be read \(\w+: ", err, re.M)
    assert sorted(told) == ["a.mp4", "b.mp4", "still.png"]
    assert "wide.mp4: 20 frames, 20 faces" in err
    with (clips / "d--json").open(encoding="utf-8") as file:
        assert {json.loads(row)["source"] for row in file} == {"wide.mp4"}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_is_stopped_goes_on(clips: Path, number: signal.Signals) -> None:
    name = number.name
    call = (*INPUTS, "--no-video", *flags(name), "--skip-existing")
    process = start(*call, cwd=clips, env={"SQUARES_DELAY": "0.1"})
    kept = clips / f".{name}--json.videogender"
    try:
        wait_for(lambda: kept.exists() and len(names(kept)) == 2)
        os.killpg(process.pid, number)
        process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == (130 if number == signal.SIGINT else -9)
    assert not [found for found in names(clips) if found.startswith(name)], "nothing looks finished"
    code, _, err = run(*call, cwd=clips)
    assert code == 0, err
    assert re.search("^4 inputs, 2 skipped: 181 frames", err, re.M)
    check_data(clips, name)
    assert not kept.exists()


def test_copies_and_data_together_are_refused(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "a.mp4", count=2)
    for wishes in ({"json": "x"}, {"json": "-", "video": False}, {"mot": "x", "video": False}):
        with pytest.raises(ConfigError, match="--skip-existing leaves inputs out"):
            annotate(clip, skip_existing=True, **wishes)  # type: ignore[arg-type]


class Hostile:
    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("touch owned",)


@pytest.mark.parametrize("piece", [Hostile(), Path, os.path.join, np.load, JsonlSink])
def test_kept_data_run_no_code(
    piece: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(pickle.UnpicklingError, match="has no place in kept data"):
        replay([pickle.dumps(piece)], None, were_kept=True)  # type: ignore[arg-type]
    assert names(tmp_path) == []
