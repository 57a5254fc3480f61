"""`annotate --jobs N`: the same data as one process, Ctrl-C, dead workers; `--skip-existing`."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image
from squares import SquareDetector, picture, read_frames, write_video
from stopping import StopsAfter

from videogender.annotation import AnnotationInterrupted, annotate
from videogender.cores import cores
from videogender.errors import ConfigError, OutputError
from videogender.jobs.division import processes_for, threads_for
from videogender.jobs.spool import Spool
from videogender.jobs.stops import Stops
from videogender.targets import plan_jobs

HERE = Path(__file__).parent
DATA = ("--json", "--csv", "--coco", "--summary", "--report", "--mot", "--vtt")

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")


def start(
    *arguments: str,
    cwd: Path,
    env: dict[str, str] | None = None,
    before: Callable[[], None] | None = None,
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(HERE / "run_squares.py"), "annotate", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(HERE.parent), **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=before,
    )


def run(
    *arguments: str,
    cwd: Path,
    env: dict[str, str] | None = None,
    before: Callable[[], None] | None = None,
) -> tuple[int, str, str]:
    """Return exit code, stdout and stderr."""
    process = start(*arguments, cwd=cwd, env=env, before=before)
    try:
        out, err = process.communicate(timeout=500)
    finally:
        process.kill()
    return process.returncode, out, err


def data_flags(name: str) -> list[str]:
    """Name every kind of data file after `name`; each input has some for itself in a folder."""
    return [part for flag in DATA for part in (flag, f"{name}{flag}{end(flag)}")]


def end(flag: str) -> str:
    return "/" if flag in ("--mot", "--vtt") else ".txt"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def workers_of(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [
        int(child)
        for child in children
        if "spawn_main" in Path(f"/proc/{child}/cmdline").read_text()
    ]


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def timeless(file: Path) -> str:
    """Read a file; a report says at which minute it was made."""
    return re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d", "then", file.read_text())


def pending(folder: Path) -> int:
    return len(list(folder.glob(".videogender-*.mp4")))


def stopped(
    process: subprocess.Popen[str],
    folder: Path,
    at_work: int,
    stop: Callable[[], object],
    *,
    after: float,
    within: float = 60,
) -> str:
    """Stop a run some seconds after so many of its inputs are at work; return what stderr says."""
    try:
        wait_for(lambda: pending(folder) >= at_work)
        time.sleep(after)
        stop()
        _, err = process.communicate(timeout=within)
    finally:
        process.kill()
    return err


# --- data -------------------------------------------------------------------------------------


def test_data_are_those_of_one_process_to_the_byte(tmp_path: Path) -> None:
    """The first input is the longest, and one fails: the others wait for their turn."""
    for i, count in enumerate((70, 20, 10)):
        write_video(tmp_path / f"clip{i}.mp4", count=count, size_wh=(160 + 16 * i, 120))
    Image.fromarray(picture(160, 120, (20, 30, 40))).save(tmp_path / "still.png")
    (tmp_path / "broken.mp4").write_bytes(b"this is no video")
    inputs = [
        *("clip0.mp4", "broken.mp4", "clip1.mp4", "still.png", "gone.mp4"),
        "clip2.mp4",
    ]
    zone = ("--zone", "left:0,0;50%,0;50%,100%;0,100%", "--line", "gate:50,120;50,0")
    said = {}
    for name, jobs in (("one", "1"), ("many", "3")):
        code, out, said[name] = run(
            *(*inputs, "-o", name, *data_flags(name), *zone, "--jobs", jobs),
            cwd=tmp_path,
        )
        assert (code, out) == (3, ""), said[name]
    for flag in DATA:
        one, many = tmp_path / f"one{flag}{end(flag)}", tmp_path / f"many{flag}{end(flag)}"
        if one.is_dir():
            assert names(one) == names(many)
            assert len(names(one)) >= 3
            for name in names(one):
                assert (one / name).read_bytes() == (many / name).read_bytes(), name
        else:
            assert one.stat().st_size > 500
            assert timeless(one) == timeless(many), flag
    assert names(tmp_path / "one") == names(tmp_path / "many")
    for i in range(3):
        copies = [tmp_path / name / f"clip{i}.annotated.mp4" for name in ("one", "many")]
        assert len(read_frames(copies[0])) == len(read_frames(copies[1]))
    assert said["many"].startswith("model: squares, cpu, in 3 processes\n")
    lines = {
        name: {line.split(" -> ")[0] for line in said[name].splitlines() if "mp4" in line}
        for name in said
    }
    assert lines["one"] == lines["many"], "each input is told of, in whatever order"
    assert re.search(r"^6 inputs, 2 failed: 101 frames, 101 faces", said["many"], re.M)
    assert not [name for name in names(tmp_path) if name.startswith(".")]


def test_standard_output_takes_merged_data(tmp_path: Path) -> None:
    for i in range(2):
        write_video(tmp_path / f"{i}.mp4", count=20 - 15 * i)
    code, out, err = run(
        *("0.mp4", "1.mp4", "--json", "-", "--no-video", "-q", "-j", "2"), cwd=tmp_path
    )
    assert (code, err) == (0, "")
    found = [(row["source"], row["frame"]) for row in map(json.loads, out.splitlines())]
    assert found == [("0.mp4", i) for i in range(20)] + [("1.mp4", i) for i in range(5)]
    assert names(tmp_path) == ["0.mp4", "1.mp4"]


def test_no_room_for_data_fails_with_a_line_each(tmp_path: Path) -> None:
    for i in range(2):
        write_video(tmp_path / f"{i}.mp4", count=60)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))

    arguments = ("0.mp4", "1.mp4", "--json", "a.jsonl", "--no-video", "-j", "2")
    code, _, err = run(*arguments, cwd=tmp_path, before=limit)
    assert code == 4, err
    assert len(re.findall("^error: ", err, re.M)) == 2
    assert "Traceback" not in err
    assert names(tmp_path) == ["0.mp4", "1.mp4"]


# --- workers ----------------------------------------------------------------------------------


def test_an_input_that_kills_its_process_fails_alone(tmp_path: Path) -> None:
    for name, wide in (("a", 160), ("bad", 200), ("b", 160), ("c", 160)):
        write_video(tmp_path / f"{name}.mp4", count=10, size_wh=(wide, 120))
    code, _, err = run(
        *("a.mp4", "bad.mp4", "b.mp4", "c.mp4", "-o", "out/", "--json", "x.jsonl", "-j", "2"),
        cwd=tmp_path,
        env={"SQUARES_FATAL_WIDTH": "200"},
    )
    assert code == 1
    assert re.findall("^error: .*", err, re.M) == [
        "error: bad.mp4: its process was killed (SIGKILL), twice; is memory short? "
        "Fewer --jobs need less"
    ]
    assert [name for name in names(tmp_path / "out") if name[0] != "."] == [
        *("a.annotated.mp4", "b.annotated.mp4", "c.annotated.mp4")
    ]
    rows = [json.loads(row)["source"] for row in (tmp_path / "x.jsonl").read_text().splitlines()]
    assert rows == ["a.mp4"] * 10 + ["b.mp4"] * 10 + ["c.mp4"] * 10


def test_an_input_whose_process_was_killed_is_tried_again(tmp_path: Path) -> None:
    for name, wide in (("a", 160), ("b", 200)):
        write_video(tmp_path / f"{name}.mp4", count=10, size_wh=(wide, 120))
    code, out, err = run(
        *("a.mp4", "b.mp4", "--json", "-", "--no-video", "-j", "2"),
        cwd=tmp_path,
        env={"SQUARES_FATAL_WIDTH": "200", "SQUARES_FATAL_ONCE": str(tmp_path / "died")},
    )
    assert code == 0, err
    assert (tmp_path / "died").exists()
    assert "warning: b.mp4: its process was killed; a second try went well" in err
    found = [(row["source"], row["frame"]) for row in map(json.loads, out.splitlines())]
    assert found == [(name, i) for name in ("a.mp4", "b.mp4") for i in range(10)]


def test_where_no_worker_finds_its_weights_nothing_runs(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_video(tmp_path / f"{name}.mp4", count=2)
    code, _, err = run(
        *("a.mp4", "b.mp4", "--json", "x", "-j", "2"), cwd=tmp_path, env={"SQUARES_MODELLESS": "1"}
    )
    assert (code, err) == (5, "error: no such squares\n")
    assert names(tmp_path) == ["a.mp4", "b.mp4"]


def test_workers_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_video(tmp_path / f"{name}.mp4", count=200)
    process = start("a.mp4", "b.mp4", "-j", "2", cwd=tmp_path, env={"SQUARES_DELAY": "0.2"})
    try:
        wait_for(lambda: pending(tmp_path) == 2)
        workers = workers_of(process.pid)
        assert len(workers) == 2
        process.kill()
        wait_for(lambda: not any(Path(f"/proc/{pid}/fd/0").exists() for pid in workers))
    finally:
        process.kill()
        process.communicate(timeout=30)
    assert not list(tmp_path.glob("*.annotated.mp4")), "nothing looks finished"


# --- Ctrl-C -----------------------------------------------------------------------------------


def test_ctrl_c_leaves_files_that_play_of_all_that_run(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write_video(tmp_path / f"{name}.mp4", count=400)
    process = start(
        *("a.mp4", "b.mp4", "c.mp4", "--json", "x.jsonl", "-j", "2"),
        cwd=tmp_path,
        env={"SQUARES_DELAY": "0.05"},
    )
    try:
        wait_for(lambda: pending(tmp_path) == 2)
        time.sleep(1.0)  # of about 5 s in all
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        began = time.monotonic()
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Traceback" not in err
    assert time.monotonic() - began < 30
    held = re.findall(
        r"^warning: interrupted: (.)\.annotated\.mp4 holds the first (\d+) ", err, re.M
    )
    assert [name for name, _ in held] == ["a", "b"], err
    assert names(tmp_path) == [
        *("a.annotated.mp4", "a.mp4", "b.annotated.mp4", "b.mp4", "c.mp4", "x.jsonl")
    ]
    rows = [json.loads(row)["source"] for row in (tmp_path / "x.jsonl").read_text().splitlines()]
    assert rows == [f"{name}.mp4" for name, count in held for _ in range(int(count))]
    for name, count in held:
        assert 0 < int(count) < 400
        assert len(read_frames(tmp_path / f"{name}.annotated.mp4")) == int(count)


@pytest.fixture
def stops() -> Iterator[Stops]:
    before = signal.getsignal(signal.SIGINT)
    yield Stops()
    signal.signal(signal.SIGINT, before)


def test_stops_come_where_they_are_awaited_and_once_each(stops: Stops) -> None:
    signal.raise_signal(signal.SIGINT)  # the terminal's own does nothing
    stops.ask()
    time.sleep(0)
    seen = []
    with pytest.raises(KeyboardInterrupt), stops.armed():
        seen.append("never")

    def send() -> None:
        signal.raise_signal(signal.SIGINT)
        seen.append("still here")
        with stops.held():
            stops.ask()
            time.sleep(0)
            seen.append("message sent")
        seen.append("never")

    with pytest.raises(KeyboardInterrupt), stops.armed():
        send()
    assert seen == ["still here", "message sent"]


# --- going on ---------------------------------------------------------------------------------


def test_a_second_run_does_what_is_missing(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write_video(tmp_path / f"{name}.mp4", count=5)
    copies = {name: tmp_path / "out" / f"{name}.annotated.mp4" for name in ("a", "b", "c")}
    again = ("a.mp4", "b.mp4", "c.mp4", "-o", "out/", "--skip-existing")
    assert run(*again, "-j", "2", cwd=tmp_path)[0] == 0
    copies["b"].unlink()
    made = {name: copies[name].stat().st_mtime_ns for name in ("a", "c")}
    code, _, err = run(*again, "-j", "2", cwd=tmp_path)
    assert code == 0
    assert "a.mp4: skipped, as out/a.annotated.mp4 is there and up to date" in err
    assert re.search("^3 inputs, 2 skipped: 5 frames", err, re.M)
    assert copies["b"].exists()
    assert {name: copies[name].stat().st_mtime_ns for name in ("a", "c")} == made


def test_copies_count_while_they_are_newer_than_their_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = [write_video(tmp_path / f"{name}.mp4", count=3) for name in ("a", "b")]
    copies = [tmp_path / f"{name}.annotated.mp4" for name in ("a", "b")]
    annotate(clips, detector=SquareDetector())
    made = [copy.stat().st_mtime_ns for copy in copies]
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "videogender.detector", None)  # importing it fails
        done = annotate(clips, skip_existing=True, jobs=0)
    assert [summary.skipped for summary in done] == [True, True]
    assert [summary.output for summary in done] == copies

    later = copies[1].stat().st_mtime + 5
    os.utime(clips[1], (later, later))
    with pytest.raises(OutputError) as caught:
        annotate(clips, detector=SquareDetector(), skip_existing=True)
    said = f"{copies[1]}: exists already, older than its input; --force replaces it"
    assert str(caught.value) == said
    annotate(clips, detector=SquareDetector(), skip_existing=True, force=True)
    assert copies[0].stat().st_mtime_ns == made[0]
    assert copies[1].stat().st_mtime_ns > made[1]


@pytest.mark.parametrize("stopping", [{"looks": 30}, {"writes": 30}])
def test_ctrl_c_never_leaves_a_part_that_counts_as_finished(
    tmp_path: Path, stopping: dict[str, int]
) -> None:
    clip = write_video(tmp_path / "a.mp4", count=300)
    with pytest.raises(AnnotationInterrupted):
        annotate(
            clip, detector=SquareDetector(), skip_existing=True, progress=StopsAfter(**stopping)
        )
    assert names(tmp_path) == ["a.mp4"], "a run that goes on later keeps no part"
    with pytest.raises(AnnotationInterrupted):
        annotate(clip, detector=SquareDetector(), progress=StopsAfter(**stopping))
    assert names(tmp_path) == ["a.annotated.mp4", "a.mp4"]
    [job] = plan_jobs([clip], skip_existing=True, force=True)
    assert not job.is_done


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"skip_existing": True, "json": "x"}, "--skip-existing leaves inputs out.*without x"),
        ({"skip_existing": True, "json": "x"}, "or use --force instead of --skip-existing to do"),
        ({"skip_existing": True, "video": False, "mot": "x"}, "--skip-existing leaves inputs out"),
        ({"jobs": -1}, "--jobs should be 0 or a number of processes, got -1"),
        ({"jobs": 2}, "processes of --jobs load their own detector"),
    ],
)
def test_refusals(tmp_path: Path, arguments: dict[str, object], message: str) -> None:
    clip = write_video(tmp_path / "a.mp4", count=2)
    with pytest.raises(ConfigError, match=message):
        annotate(clip, detector=SquareDetector(), **arguments)  # type: ignore[arg-type]


# --- parts ------------------------------------------------------------------------------------


def test_cores_are_divided() -> None:
    assert processes_for(5, 3) == 3
    assert processes_for(2, 9) == 2
    assert 1 <= processes_for(0, 1000) <= max(1, cores() // 2)
    assert threads_for(1) == cores()
    assert threads_for(10 * cores()) == 1


def test_a_spool_returns_what_waits_and_needs_few_files(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    before = len(os.listdir("/proc/self/fd"))
    for key in range(300):
        for part in range(key % 4):
            spool.add(key, b"%d.%d;" % (key, part) * (key + 1))
        spool.add(1000, b"%d" % key)  # one that goes on coming in all the time
        spool.put_by(key)
    assert len(os.listdir("/proc/self/fd")) <= before + 2
    assert os.listdir(tmp_path) == []
    for key in range(0, 300, 7):
        spool.drop(key)
    for key in range(300):
        expected = [b"%d.%d;" % (key, part) * (key + 1) for part in range(key % 4)]
        assert list(spool.take(key)) == ([] if key % 7 == 0 else expected)
        assert list(spool.take(key)) == [], "once"
    assert b"".join(spool.take(1000)) == b"".join(b"%d" % key for key in range(300))
    spool.close()
