"""Names of outputs: folders and patterns, inputs that share a stem, and what is refused."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from squares import SquareDetector, write_video

from videogender.annotation import annotate
from videogender.cli.main import main
from videogender.errors import ConfigError, OutputError, SourceError
from videogender.sources import find_inputs
from videogender.targets import plan_jobs


@pytest.fixture
def arch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two days, which share a name."""
    monkeypatch.chdir(tmp_path)
    names = (
        *("arch/top.mp4", "arch/notes.txt", "arch/one.heic", "arch/two.heic", "arch/.hidden/a.mp4"),
        *("arch/day1/MVI_1.mp4", "arch/day2/MVI_1.mp4", "arch/day2/late/MVI_1.mov"),
        *("arch/day1/MVI_0.annotated.mp4", "arch/day1/readme"),
    )
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(b"x")
    return Path("arch")


def targets(*inputs: str, **options: object) -> dict[str, str]:
    """Return the copies of a plan by their sources."""
    jobs = plan_jobs(inputs, **options)  # type: ignore[arg-type]
    assert [job.error for job in jobs] == [None] * len(jobs)
    return {str(job.source): str(job.target) for job in jobs}


# --- folders and patterns ---------------------------------------------------------------------


def test_a_folder_is_taken_without_its_subfolders_and_says_so(arch: Path) -> None:
    told: list[str] = []
    assert targets("arch/", tell=told.append) == {"arch/top.mp4": "arch/top.annotated.mp4"}
    assert told == [
        "arch/: left out 2 subfolders (--recursive takes them) and 3 files of other kinds "
        "(.heic, .txt)"
    ]


def test_a_folder_with_nothing_to_leave_out_says_nothing(arch: Path) -> None:
    told: list[str] = []
    find_inputs("arch/day2/late", tell=told.append)
    find_inputs("arch/day2", recursive=True, tell=told.append)
    assert told == []


def test_a_folder_that_holds_folders_alone_says_what_to_do(arch: Path) -> None:
    Path("all").mkdir()
    arch.rename("all/arch")
    told: list[str] = []
    with pytest.raises(SourceError, match="in this folder; --recursive takes its subfolders, too"):
        find_inputs("all", tell=told.append)
    assert told == ["all: left out 1 subfolder (--recursive takes them)"]


def test_subfolders_stay_where_they_are(arch: Path) -> None:
    told: list[str] = []
    assert targets("arch", recursive=True, tell=told.append) == {
        "arch/day1/MVI_1.mp4": "arch/day1/MVI_1.annotated.mp4",
        "arch/day2/MVI_1.mp4": "arch/day2/MVI_1.annotated.mp4",
        "arch/day2/late/MVI_1.mov": "arch/day2/late/MVI_1.annotated.mp4",
        "arch/top.mp4": "arch/top.annotated.mp4",
    }
    assert told == ["arch: left out 4 files of other kinds (.heic, .txt, no suffix)"]


@pytest.mark.parametrize(
    ("given", "recursive", "copies"),
    [
        ("arch", True, ["day1/MVI_1", "day2/MVI_1", "day2/late/MVI_1", "top"]),
        ("arch/**/*.m[op][4v]", False, ["day1/MVI_1", "day2/MVI_1", "day2/late/MVI_1", "top"]),
        ("arch/day*/*.mp4", False, ["day1/MVI_1", "day2/MVI_1"]),
        ("./*/day2/**/*.mov", False, ["arch/day2/late/MVI_1"]),
        ("arch/day1/*.mp4", False, ["MVI_1"]),
        ("arch/day2/late/MVI_1.mov", True, ["MVI_1"]),
    ],
)
def test_an_output_folder_has_the_same_subfolders(
    arch: Path, given: str, recursive: bool, copies: list[str]
) -> None:
    jobs = plan_jobs([given], output="out", each={"--mot": "mot/"}, recursive=recursive)
    assert [str(job.target) for job in jobs] == [f"out/{name}.annotated.mp4" for name in copies]
    assert [str(job.data["--mot"]) for job in jobs] == [f"mot/{name}.txt" for name in copies]
    for job in jobs:
        assert job.target is not None
        assert job.target.parent.is_dir()
        assert job.data["--mot"].parent.is_dir()


def test_links_that_lead_round_in_a_circle_end(arch: Path) -> None:
    Path("arch/day1/up").symlink_to("..")
    Path("arch/elsewhere").symlink_to("../more")
    Path("more").mkdir()
    Path("more/a.mp4").write_bytes(b"x")
    found = [str(path) for path, _ in find_inputs("arch", recursive=True)]
    assert found == [
        *("arch/day1/MVI_1.mp4", "arch/day2/MVI_1.mp4", "arch/day2/late/MVI_1.mov"),
        *("arch/elsewhere/a.mp4", "arch/top.mp4"),
    ]


def test_a_subfolder_that_cannot_be_read_is_told(
    arch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir

    def closed(path: str) -> Iterator[os.DirEntry[str]]:
        if Path(path) == Path("arch/day1"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)  # root, who may run this, reads everything
    with pytest.raises(SourceError, match="the folder arch/day1 cannot be read: Permission"):
        find_inputs("arch", recursive=True)


def test_the_command_line_tells_what_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for flags in ([], ["-q"]):
        main(["annotate", str(tmp_path / "in"), *flags])
        said = capsys.readouterr().err
        assert ("left out 1 subfolder" in said) == (not flags), said
        assert "--recursive takes its subfolders, too" in said


# --- inputs that share a stem -----------------------------------------------------------------


def touch(*names: str) -> None:
    for name in names:
        Path(name).write_bytes(b"x")


def test_videos_of_one_stem_keep_their_suffix_whichever_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    touch("a.mov", "a.mp4", "b.mp4", "a.txt", "a.annotated.mp4")
    named = {
        "a.mov": "a.mov.annotated.mp4",
        "a.mp4": "a.mp4.annotated.mp4",
        "b.mp4": "b.annotated.mp4",
    }
    assert targets(".") == named
    assert targets("a.mp4", "b.mp4") == {name: named[name] for name in ("a.mp4", "b.mp4")}
    assert targets("a.mov", output="out/") == {"a.mov": "out/a.mov.annotated.mp4"}
    [first, second] = plan_jobs(["a.mov", "a.mp4"], video=False, each={"--vtt": "vtt/"})
    assert [str(job.data["--vtt"]) for job in (first, second)] == ["vtt/a.mov.vtt", "vtt/a.mp4.vtt"]


def test_inputs_of_other_suffixes_that_share_a_stem_are_kept_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    touch("a.foo", "a.bar", "b.foo")
    assert targets("a.foo", "a.bar", "b.foo") == {
        "a.foo": "a.foo.annotated.mp4",
        "a.bar": "a.bar.annotated.mp4",
        "b.foo": "b.annotated.mp4",
    }


def test_hard_links_are_inputs_of_their_own_and_other_links_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    touch("a.mp4")
    os.link("a.mp4", "b.mp4")
    os.symlink("a.mp4", "c.mp4")
    assert targets("a.mp4", "b.mp4", "c.mp4").keys() == {"a.mp4", "b.mp4"}


def test_a_poster_leaves_the_names_of_its_video_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    touch("a.mp4")
    Image.new("RGB", (8, 8)).save("a.jpg")
    jobs = plan_jobs(["."], each={"--mot": "mot/"})
    assert [(str(job.target), job.data["--mot"].name) for job in jobs] == [
        ("a.annotated.jpg", "a.jpg.txt"),
        ("a.annotated.mp4", "a.txt"),
    ]


def test_a_later_run_finds_the_copies_of_inputs_that_share_a_stem(tmp_path: Path) -> None:
    clips = [write_video(tmp_path / name, count=3) for name in ("a.mov", "a.mp4")]
    annotate(clips, detector=SquareDetector())
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("a.mov", "a.mov.annotated.mp4", "a.mp4", "a.mp4.annotated.mp4")
    ]
    for given in (clips, clips[:1], clips[1:], [tmp_path]):
        assert all(summary.skipped for summary in annotate(given, skip_existing=True))


def test_named_inputs_of_two_folders_that_share_a_name_are_refused(arch: Path) -> None:
    with pytest.raises(OutputError, match=r"MVI_1\.mp4 and .*MVI_1\.mp4 would both be written"):
        plan_jobs(["arch/day1/MVI_1.mp4", "arch/day2/MVI_1.mp4"], output="out/")


# --- what is no file --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("", "an input without a name; name a video, an image, a folder or a pattern"),
        ("-", "-: standard input is not read; save it to a file and name that"),
        (
            "https://joe:secret@host/a.mp4?b=[1]",
            "https://host/a.mp4?...: an address; videogender live --url reads streams, and a file "
            "is to be downloaded first",
        ),
        (
            "rtsp://door/1",
            "rtsp://door/1: an address; videogender live --url reads streams, and a file is to be "
            "downloaded first",
        ),
        ("file:///a.mp4", "file:///a.mp4: no such file; check the spelling"),
    ],
)
def test_inputs_that_are_no_files(
    arch: Path, capsys: pytest.CaptureFixture[str], given: str, said: str
) -> None:
    assert main(["annotate", given]) == 3
    assert capsys.readouterr().err.startswith(f"error: {said}\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"output": "-"}, "--output -: copies go to files, not to standard output; name a file"),
        ({"output": ""}, "--output names nothing; name a file or a folder"),
        ({"data": {"--json": ""}}, "--json names nothing; name a file or a folder"),
        ({"each": {"--vtt": ""}}, "--vtt names nothing; name a file or a folder"),
    ],
)
def test_outputs_that_are_no_files(arch: Path, arguments: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plan_jobs(["arch/top.mp4"], **arguments)  # type: ignore[arg-type]
    assert str(caught.value) == said
