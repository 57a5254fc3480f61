"""`annotate` that is ended early: SIGTERM, repeated Ctrl-C, and readers who have seen enough."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from pathlib import Path

import pytest
from squares import SquareDetector, read_frames, write_video
from stopping import StopsAfter
from test_jobs import names, start, stopped

from videogender.annotation import AnnotationInterrupted, Summary, annotate
from videogender.cli.report import Report
from videogender.cli.signals import Caught
from videogender.progress import DRAW_SECONDS

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")


SLOW = {"SQUARES_DELAY": "0.05"}


# --- SIGTERM ----------------------------------------------------------------------------------


@pytest.mark.parametrize("sigint", [signal.SIG_DFL, signal.SIG_IGN], ids=["", "in-background"])
def test_sigterm_leaves_a_file_that_plays(tmp_path: Path, sigint: signal.Handlers) -> None:
    """Shells switch Ctrl-C off for what they run with `&`."""
    write_video(tmp_path / "a.mp4", count=400)
    process = start(
        *("a.mp4", "--json", "x.jsonl"),
        cwd=tmp_path,
        env=SLOW,
        before=lambda: signal.signal(signal.SIGINT, sigint),
    )
    err = stopped(process, tmp_path, 1, process.terminate, after=1.0)  # of about 5 s in all
    assert process.returncode == 143, err
    assert "Traceback" not in err
    held = re.search(r"^warning: interrupted: a\.annotated\.mp4 holds the first (\d+) ", err, re.M)
    assert held, err
    assert 0 < int(held[1]) < 400
    assert len(read_frames(tmp_path / "a.annotated.mp4")) == int(held[1])
    assert len((tmp_path / "x.jsonl").read_text().splitlines()) == int(held[1])
    assert names(tmp_path) == ["a.annotated.mp4", "a.mp4", "x.jsonl"]


@pytest.mark.parametrize(("number", "seconds"), [(signal.SIGTERM, DRAW_SECONDS), (None, None)])
def test_sigterm_gives_the_drawing_a_few_seconds(number: int | None, seconds: float | None) -> None:
    """Whoever sent it kills before long; with Ctrl-C it takes what it takes."""
    with Report(quiet=True, model="lite", caught=Caught(number)) as report:
        assert report.stopped(100) == seconds
        report.begin(2, 2)
        assert report.row(0).stopped(100) == seconds


class ShortOfTime(StopsAfter):
    """Leaves less time than drawing takes, which is slow here."""

    def stopped(self, frames: int) -> float:
        return 0.5

    def advance(self, faces: int) -> None:
        time.sleep(0.02)


def test_what_is_drawn_when_time_is_up_is_kept(tmp_path: Path) -> None:
    """What was looked at for an hour takes long to draw."""
    clip, data = write_video(tmp_path / "a.mp4", count=400), tmp_path / "x.jsonl"
    with pytest.raises(AnnotationInterrupted) as caught:
        annotate(clip, detector=SquareDetector(), json=data, progress=ShortOfTime(looks=350))
    [summary] = caught.value.summaries
    assert summary.output is not None
    assert 0 < summary.frames < 350
    assert len(read_frames(summary.output)) == summary.frames
    assert len(data.read_text().splitlines()) == summary.frames


def test_sigterm_to_all_processes_of_jobs(tmp_path: Path) -> None:
    """As service managers send it."""
    for name in ("a", "b", "c"):
        write_video(tmp_path / f"{name}.mp4", count=800)
    process = start("a.mp4", "b.mp4", "c.mp4", "-j", "2", cwd=tmp_path, env=SLOW)
    err = stopped(
        process,
        tmp_path,
        2,
        lambda: os.killpg(process.pid, signal.SIGTERM),
        after=3.0,  # of about 10 s in all: on a busy machine, too, both have seen something
    )
    assert process.returncode == 143, err
    held = re.findall(r"^warning: interrupted: (.)\.annotated\.mp4 holds the", err, re.M)
    assert held == ["a", "b"], err
    assert names(tmp_path) == [*("a.annotated.mp4", "a.mp4", "b.annotated.mp4", "b.mp4", "c.mp4")]


# --- Ctrl-C again -----------------------------------------------------------------------------


class Presses(StopsAfter):
    """Presses Ctrl-C at each of so many frames that are written, from the 30th on.

    Args:
        times: how often.
        looks: once before that, after so many looks.
    """

    def __init__(self, times: int, looks: int) -> None:
        super().__init__(looks=looks)
        self.written, self.times = 0, times

    def advance(self, faces: int) -> None:
        self.written += 1
        if self.written == 30:
            time.sleep(0.5)  # let further frames be written, which are told of in the end
        if 30 <= self.written < 30 + self.times:
            raise KeyboardInterrupt


@pytest.mark.parametrize("looks", [-1, 350])
@pytest.mark.parametrize(("times", "kept"), [(1, True), (2, True), (3, False)])
def test_only_the_third_ctrl_c_gives_up_the_file(
    tmp_path: Path, times: int, looks: int, kept: bool
) -> None:
    clip = write_video(tmp_path / "a.mp4", count=400)
    with pytest.raises(AnnotationInterrupted) as caught:
        annotate(clip, detector=SquareDetector(), progress=Presses(times - (looks > 0), looks))
    [summary] = caught.value.summaries
    assert summary.interrupted
    assert names(tmp_path) == (["a.annotated.mp4", "a.mp4"] if kept else ["a.mp4"])
    if kept:
        assert summary.output is not None
        assert len(read_frames(summary.output)) == summary.frames < 400


@pytest.mark.parametrize(
    ("summaries", "data", "said"),
    [
        (
            [Summary("a", Path("b"), 9, interrupted=True)],
            [],
            "b holds the first 9 frames and plays",
        ),
        ([Summary("a", None, 9, interrupted=True)], [], "nothing was kept of a"),
        ([Summary("a", None, 9, interrupted=True)], ["x.json"], "data only"),
        ([Summary("a", None, 0, interrupted=True)], ["x.json"], "nothing was kept of a"),
        ([Summary("a", Path("b"), 9)], [], "finished copies were kept"),
        ([], [], "nothing was kept"),
    ],
)
def test_what_is_left_is_told(
    capsys: pytest.CaptureFixture[str], summaries: list[Summary], data: list[str], said: str
) -> None:
    with Report(quiet=True, model="lite", caught=Caught()) as report:
        report.interrupted(summaries, data)
    assert capsys.readouterr().err == f"warning: interrupted: {said}\n"


# --- readers ----------------------------------------------------------------------------------


def until_left(*arguments: str, cwd: Path) -> tuple[int, str]:
    """Run with a reader that leaves after the first line; return exit code and stderr."""
    process = start(*arguments, cwd=cwd, env={"SQUARES_DELAY": "0.01"})
    assert process.stdout
    assert process.stderr
    try:
        assert process.stdout.readline()
        process.stdout.close()
        err = process.stderr.read()
        return process.wait(timeout=60), err
    finally:
        process.stderr.close()
        process.kill()


@pytest.mark.parametrize("jobs", ["1", "2"])
@pytest.mark.parametrize("flag", ["--json", "--csv"])
def test_copies_are_completed_though_nobody_reads_the_data(
    tmp_path: Path, flag: str, jobs: str
) -> None:
    for name in ("a", "b"):
        write_video(tmp_path / f"{name}.mp4", count=400)
    code, err = until_left(
        *("a.mp4", "b.mp4", flag, "-", "--summary", "s.json", "-o", "out/", "-q", "-j", jobs),
        cwd=tmp_path,
    )
    line = "error: standard output: its reader left before the end; all else is written\n"
    assert (code, err) == (4, line)
    assert names(tmp_path) == ["a.mp4", "b.mp4", "out", "s.json"]
    for name in ("a", "b"):
        assert len(read_frames(tmp_path / "out" / f"{name}.annotated.mp4")) == 400


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_reader_of_all_there_is_ends_it_quietly(tmp_path: Path, jobs: str) -> None:
    for name in ("a", "b"):
        write_video(tmp_path / f"{name}.mp4", count=400)
    code, err = until_left(
        *("a.mp4", "b.mp4", "--json", "-", "--no-video", "-q", "-j", jobs), cwd=tmp_path
    )
    assert (code, err) == (141, "")
    assert names(tmp_path) == ["a.mp4", "b.mp4"]
