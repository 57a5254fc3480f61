"""The command line in processes of its own: help, exit codes, streams, Ctrl-C."""

from __future__ import annotations

import inspect
import json
import os
import re
import resource
import shlex
import signal
import subprocess
import sys
import time
import tomllib
from importlib import import_module
from pathlib import Path

import av
import pytest
import typer
import yaml
from PIL import Image
from rich.text import Text
from squares import picture, read_frames, write_video

import videogender
from videogender.cli.annotate import looks
from videogender.cli.main import SUBCOMMANDS, main
from videogender.cli.times import parse_time
from videogender.config import Settings, load_settings, with_overrides
from videogender.errors import ConfigError

HERE = Path(__file__).parent
ROOT = HERE.parent
HEAVY = {"torch", "cv2", "av", "PIL", "numpy", "yaml", "rich.progress", "importlib.metadata"}


def run(
    *arguments: str | Path, cwd: Path, env: dict[str, str] | None = None, real: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run the command line with the detector of `squares.py`, or with the real one."""
    return subprocess.run(
        command(*arguments, real=real),
        cwd=cwd,
        env=environment(env),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def command(*arguments: str | Path, real: bool = False) -> list[str]:
    start = ["-m", "videogender"] if real else [str(HERE / "run_squares.py")]
    return [sys.executable, *start, *map(str, arguments)]


def environment(more: dict[str, str] | None = None) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    return {**kept, "PYTHONPATH": str(ROOT), **(more or {})}


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_video(tmp_path / "clip.mp4")


def test_help_lists_every_subcommand_and_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; from videogender.cli.main import main; code = main(['--help']);"
        "print(sorted(sys.modules), file=sys.stderr); sys.exit(code)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    for name, entry in SUBCOMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(entry.help)}$", ran.stdout, re.MULTILINE)
    loaded = set(eval(ran.stderr))
    assert not HEAVY & loaded
    ours = {name for name in loaded if name.startswith("videogender")}
    mine = ("videogender", "videogender.cli", "videogender.errors")
    assert ours == {*mine, "videogender.cli.ending", "videogender.cli.main"}


def test_help_is_quick(tmp_path: Path) -> None:
    """Less than 0.3 s of CPU, Python's own start included; the best of three on a busy machine."""
    taken = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert run("--help", cwd=tmp_path, real=True).returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(taken) < 0.3, taken


@pytest.mark.parametrize("name", sorted(SUBCOMMANDS))
def test_help_is_printed_as_it_is_written(name: str) -> None:
    """Paragraphs after the first are to fit 78 of the 80 columns, and hold no rich markup."""
    found = getattr(import_module(SUBCOMMANDS[name].module), SUBCOMMANDS[name].attribute)
    commands = [found]
    if isinstance(found, typer.Typer):
        commands = [info.callback for info in found.registered_commands]
    for command in commands:
        _, *rest = inspect.getdoc(command).split("\n\n")
        for line in "\n\n".join(rest).splitlines():
            assert len(line) <= 78, line
            assert Text.from_markup(line).plain == line


def test_no_arguments_and_help_say_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    bare = capsys.readouterr().out
    assert main(["--help"]) == 0
    assert capsys.readouterr().out == bare


def test_version_is_that_of_the_package(tmp_path: Path) -> None:
    ran = run("--version", cwd=tmp_path, real=True)
    assert (ran.stdout, ran.stderr, ran.returncode) == (
        f"videogender {videogender.__version__}\n",
        "",
        0,
    )
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == videogender.__version__


def test_the_public_names_are_sorted_and_there() -> None:
    assert videogender.__all__ == sorted(videogender.__all__)
    assert set(videogender._HOMES) == set(videogender.__all__)
    for name in videogender.__all__:
        assert getattr(videogender, name).__name__ == name
    assert set(videogender.__all__) <= set(dir(videogender))
    with pytest.raises(AttributeError, match="no attribute 'detect'"):
        _ = videogender.detect


@pytest.mark.parametrize(
    ("every", "detect_fps", "blur", "found"),
    [
        (None, None, None, (None, 8.0)),
        (5, None, None, (5, 0.0)),
        (1, None, None, (1, 0.0)),
        (None, 6.0, True, (1, 6.0)),
        (None, 0.0, None, (1, 0.0)),
        (None, None, True, (1, 0.0)),
    ],
)
def test_flags_about_looks_win_over_those_of_a_file(
    every: int | None, detect_fps: float | None, blur: bool | None, found: tuple[object, object]
) -> None:
    file = with_overrides(Settings(), {"track.detect_fps": 8.0})
    follow = with_overrides(
        file, {**looks(every, detect_fps, blur=blur), "render.blur": blur}
    ).follow
    assert (follow.every, follow.detect_fps) == found


def test_help_of_annotate_names_every_setting_and_its_default(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")
    assert main(["annotate", "--help"]) == 0
    text = capsys.readouterr().out
    flags = {
        *("--model", "--weights", "--device", "--long-side", "--face-threshold", "--precision"),
        *("--unsure-below", "--min-face-px", "--nms-iou", "--batch-size", "--threads"),
        *("--start", "--end", "--codec", "--crf", "--preset", "--style", "--blur", "--no-labels"),
        *("--mot", "--coco", "--vtt", "--summary", "--report", "--thumbnails", "--zone", "--line"),
        *(
            "--json",
            "--csv",
            "--no-video",
            "--output",
            "-o",
            "-r",
            "--force",
            "-f",
            "--quiet",
            "-q",
        ),
        "--config",
    }
    for flag in flags:
        assert re.search(rf"{flag}\b", text), flag
    assert re.search(r"--unsure-below .*0\.5 to 1; default 0\.7", text)
    assert re.search(r"--style +box\|corners\|none", text)


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (["anotate"], 2, r"No such command 'anotate'.*\(see videogender --help\)"),
        (["--bogus"], 2, r"No such option: --bogus.*\(see videogender --help\)"),
        (["annotate"], 2, r"Missing argument 'INPUT...' \(see videogender annotate --help\)"),
        (["annotate", "x.mp4", "--crf", "low"], 2, r"Invalid value for '--crf': .*"),
        (["annotate", "x.mp4", "--crf", "99"], 2, r"--crf should be a whole number \(0 to 63\).*"),
        (["annotate", "x.mp4", "--style", "x"], 2, "--style should be box, corners or none.*"),
        (["annotate", "x.mp4", "--start", "1:75"], 2, "--start should be a time such as .*"),
        (["annotate", "x.mp4", "--end", "0"], 2, r"--end \(0 s\) should be later than 0"),
        (["annotate", "x.mp4", "--zone", "a:1"], 2, "--zone: 'a:1': '1' should be x,y such as .*"),
        (["annotate", "x.mp4", "--line", "a:1,1"], 2, "--line: 'a:1,1' should have two points.*"),
        (["annotate", "x.mp4", "--thumbnails", "x"], 2, "--thumbnails should be none, blurred .*"),
        (
            ["annotate", "x.mp4", "--blur", "--thumbnails", "plain", "--report", "r.html"],
            2,
            "--thumbnails plain would show the faces that --blur hides; drop either.*",
        ),
        (["annotate", "x.mp4", "--config", "no.yaml"], 2, r"no\.yaml: cannot read this file: .*"),
        (["annotate", "x.mp4", "--model", "big"], 5, "--model should be lite or vgg16, got 'big'"),
        (["annotate", "x.mp4"], 3, r"x\.mp4: .*"),
        (["annotate", "x.mp4", "--no-video"], 2, "--no-video leaves nothing to write; .*"),
    ],
)
def test_errors_are_one_line_and_an_exit_code(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    line: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == code
    out, err = capfd.readouterr()
    assert out == ""
    assert re.fullmatch(rf"error: {line}\n", err), err


def test_debug_shows_the_trace(tmp_path: Path) -> None:
    for arguments in (["--debug", "annotate"], ["annotate", "--debug"]):
        ran = run(*arguments, "x.mp4", "--no-video", cwd=tmp_path, real=True)
        assert ran.returncode == 2
        assert "Traceback" in ran.stderr
        assert "in plan_jobs" in ran.stderr
        assert ran.stderr.splitlines()[-1].startswith("error: --no-video leaves nothing")


@pytest.mark.parametrize("debug", [False, True])
def test_debug_shows_the_trace_of_one_input_among_several(tmp_path: Path, debug: bool) -> None:
    code = (
        "import sys; from videogender import work; from videogender.cli.main import main\n"
        "work.load_detector = lambda settings: object()\n"
        "work.Work._annotate = lambda self, *rest: 1 / 0\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    write_video(tmp_path / "a.mp4")
    arguments = ["annotate", "a.mp4", "--no-video", "--json", "a.jsonl", *["--debug"] * debug]
    ran = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 1
    assert "a.mp4: unexpected ZeroDivisionError: division by zero" in ran.stderr
    assert ("Traceback" in ran.stderr) is debug


def test_config_show_prints_what_is_in_force(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("detect:\n  long_side: 416\n", encoding="utf-8")
    assert main(["config", "show", "--config", str(mine)]) == 0
    text = capsys.readouterr().out
    assert yaml.safe_load(text)["detect"]["long_side"] == 416
    mine.write_text(text, encoding="utf-8")
    assert load_settings(mine).detect.long_side == 416
    assert main(["config", "show"]) == 0
    mine.write_text(capsys.readouterr().out, encoding="utf-8")
    assert load_settings(mine) == Settings()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("12.5", 12.5),
        ("0", 0.0),
        (".5", 0.5),
        ("90", 90.0),
        ("1:02", 62.0),
        ("01:02:03.5", 3723.5),
        ("100:00:00", 360000.0),
        ("90s", 90.0),
        ("1m30", 90.0),
        ("1.5M", 90.0),
        ("1h30m", 5400.0),
        ("2h", 7200.0),
        ("1m5s", 65.0),
        ("75:00", None),
        ("1:60", None),
        ("-3", None),
        ("1e3", None),
        ("inf", None),
        ("1:", None),
        ("1:30s", None),
        ("1s30m", None),
        ("5x", None),
        ("s", None),
        ("", None),
    ],
)
def test_times(text: str, seconds: float | None) -> None:
    if seconds is None:
        with pytest.raises(ConfigError, match=r"^--end should be a time such as"):
            parse_time(text, "--end")
    else:
        assert parse_time(text, "--end") == seconds


def test_annotate_says_what_it_did_on_stderr(clip: Path) -> None:
    ran = run("annotate", "clip.mp4", "--json", "faces.jsonl", cwd=clip.parent)
    assert (ran.returncode, ran.stdout) == (0, "")
    lines = ran.stderr.splitlines()
    assert lines[0] == "model: squares, cpu"
    assert re.fullmatch(
        r"clip\.mp4 -> clip\.annotated\.mp4: 25 frames, 25 faces, \d+\.\d s, \d+\.\d fps", lines[1]
    )
    assert lines[2:] == ["data -> faces.jsonl"]
    assert len(read_frames(clip.with_name("clip.annotated.mp4"))) == 25


def test_quiet_is_quiet_and_stdout_holds_data_alone(clip: Path) -> None:
    ran = run("annotate", clip, "--json", "-", "--no-video", "-q", cwd=clip.parent)
    assert (ran.returncode, ran.stderr) == (0, "")
    found = [json.loads(line) for line in ran.stdout.splitlines()]
    assert [record["frame"] for record in found] == list(range(25))
    loud = run("annotate", clip, "--json", "-", "--no-video", cwd=clip.parent)
    assert loud.stdout == ran.stdout
    assert os.listdir(clip.parent) == ["clip.mp4"]


def test_flags_win_over_the_file(clip: Path) -> None:
    config = clip.with_name("mine.yaml")
    config.write_text("label: {unsure_below: 0.99}\nvideo: {crf: 63}\n", encoding="utf-8")

    def labels(*flags: str) -> set[str]:
        data = ("--json", "-", "--no-video", "--config", config)
        ran = run("annotate", clip, *data, *flags, cwd=clip.parent)
        assert ran.returncode == 0, ran.stderr
        found = [json.loads(line)["faces"][0]["label"] for line in ran.stdout.splitlines()]
        return set(found)

    assert labels() == {"unsure"}
    assert labels("--unsure-below", "0.6") == {"female"}


def test_zones_of_flags_take_the_place_of_those_of_the_file(clip: Path) -> None:
    config = clip.with_name("mine.yaml")
    config.write_text(
        "zones:\n  zone: ['old:0,0;9,0;9,9']\n"
        "  line: [{name: gate, points: [[50, 0], [50, 120]]}]\n",
        encoding="utf-8",
    )
    zones = ("--zone", "a b:0,0;50%,0;50%,100%;0,100%", "--zone", "c:0,0;1,0;1,1")
    reports = ("--summary", "s.json", "--report", "r.html", "--thumbnails", "none", "--no-video")
    ran = run("annotate", clip, "--config", config, *zones, *reports, cwd=clip.parent)
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr.splitlines()[2:] == ["data -> s.json", "data -> r.html"]
    text = clip.with_name("s.json").read_text(encoding="utf-8")
    figures = json.loads(text)["inputs"][0]["zones"]
    assert [zone["name"] for zone in figures["zones"]] == ["a b", "c"]
    assert [line["name"] for line in figures["lines"]] == ["gate"]
    assert figures["lines"][0]["out"]["all"] == 1


def test_one_bad_input_of_several_decides_the_exit_code(clip: Path) -> None:
    Image.fromarray(picture(80, 60, (8, 8, 30))).save(clip.with_name("still.png"))
    clip.with_name("empty.mp4").touch()
    ran = run("annotate", "empty.mp4", "clip.mp4", "still.png", "-o", "out/", cwd=clip.parent)
    assert ran.returncode == 3
    assert re.search(r"^error: empty\.mp4: ", ran.stderr, re.MULTILINE)
    assert re.search(r"^3 inputs, 1 failed: 26 frames, 26 faces, ", ran.stderr, re.MULTILINE)
    assert sorted(os.listdir(clip.parent / "out")) == ["clip.annotated.mp4", "still.annotated.png"]


def test_existing_output_is_refused_without_force(clip: Path) -> None:
    clip.with_name("clip.annotated.mp4").write_text("precious")
    ran = run("annotate", "clip.mp4", cwd=clip.parent)
    assert ran.returncode == 4
    assert ran.stderr == "error: clip.annotated.mp4: exists already; --force replaces it\n"
    assert run("annotate", "clip.mp4", "-f", cwd=clip.parent).returncode == 0


def test_missing_gender_heads_are_said_once_with_the_remedy(clip: Path) -> None:
    Image.fromarray(picture(80, 60, (8, 8, 30))).save(clip.with_name("still.png"))
    ran = run(
        *("annotate", "clip.mp4", "still.png", "--model", "vgg16", "--json", "-", "--no-video"),
        cwd=clip.parent,
        env={"SQUARES_GENDERLESS": "1"},
    )
    assert ran.returncode == 0
    assert ran.stderr.count("unsure") == 1
    assert "vgg16 has no gender heads" in ran.stderr
    assert "videogender finetune DATA --model" in ran.stderr
    for line in ran.stdout.splitlines():
        [face] = json.loads(line)["faces"]
        assert (face["label"], face["female"]) == ("unsure", None)


def test_ctrl_c_leaves_a_file_that_plays(tmp_path: Path) -> None:
    write_video(tmp_path / "long.mp4", count=200)
    process = subprocess.Popen(
        command("annotate", "long.mp4", "--json", "faces.jsonl"),
        cwd=tmp_path,
        env=environment({"SQUARES_DELAY": "0.1"}),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not any(tmp_path.glob(".videogender-*.mp4")):
            time.sleep(0.02)
        time.sleep(1.0)  # of about 5 s in all
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130
    said = re.search(
        r"^warning: interrupted: long\.annotated\.mp4 holds the first (\d+) frames", err, re.M
    )
    assert said, err
    assert "Traceback" not in err
    count = int(said[1])
    assert 0 < count < 200
    assert len(read_frames(tmp_path / "long.annotated.mp4")) == count
    with av.open(str(tmp_path / "long.annotated.mp4")) as container:
        assert container.duration == pytest.approx(count / 25 * 1e6, abs=0.2e6)
    assert len((tmp_path / "faces.jsonl").read_text().splitlines()) == count
    assert sorted(os.listdir(tmp_path)) == ["faces.jsonl", "long.annotated.mp4", "long.mp4"]


def test_a_reader_that_has_seen_enough_ends_it_quietly(tmp_path: Path) -> None:
    write_video(tmp_path / "long.mp4", count=400)
    process = subprocess.Popen(
        command("annotate", "long.mp4", "--json", "-", "--no-video", "-q"),
        cwd=tmp_path,
        env=environment({"SQUARES_DELAY": "0.01"}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stderr
    assert json.loads(process.stdout.readline())["frame"] == 0
    process.stdout.close()
    assert process.wait(timeout=30) == 141
    assert process.stderr.read() == ""
    process.stderr.close()


@pytest.mark.parametrize(
    ("given", "code", "said"),
    [(None, 0, ""), (3, 3, ""), ("the library is too old", 1, "the library is too old\n")],
)
def test_what_ends_itself_keeps_its_code_and_its_message(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    given: str | int | None,
    code: int,
    said: str,
) -> None:
    def leave() -> None:
        raise SystemExit(given)

    monkeypatch.setattr("videogender.cli.cameras.cameras", leave)
    assert main(["cameras"]) == code
    assert capsys.readouterr().err == said


def test_help_into_a_closed_pipe_is_quiet(tmp_path: Path) -> None:
    ran = subprocess.run(
        f"'{sys.executable}' -m videogender annotate --help | head -n 1",
        shell=True,
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.stderr == ""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
def test_a_closed_standard_output_is_no_defect(tmp_path: Path) -> None:
    still = tmp_path / "a.png"
    Image.new("RGB", (64, 64)).save(still)
    command = f"exec {shlex.quote(sys.executable)} -m videogender"
    for more, code, said in (
        ("annotate a.png --quiet >&-", 0, ""),
        ("annotate a.png --force --quiet 2>&-", 0, ""),
        ("annotate a.png --no-video --json - >&-", 4, "error: standard output: is closed\n"),
    ):
        done = subprocess.run(
            ["sh", "-c", f"{command} {more}"], cwd=tmp_path, stderr=subprocess.PIPE, text=True
        )
        assert done.returncode == code, more
        assert done.stderr.endswith(said), more
        assert "Traceback" not in done.stderr, more
