"""`videogender.annotate`: copies and data, names and refusals, failures and interruptions."""

from __future__ import annotations

import csv
import json
import os
import pickle
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from squares import SquareDetector, picture, read_frames, square_x, write_video

import videogender
from videogender.annotation import AnnotationInterrupted, Progress, Summary, annotate
from videogender.config import Settings, with_overrides
from videogender.errors import ConfigError, OutputError, SourceError
from videogender.targets import Job, plan_jobs


@pytest.fixture(autouse=True)
def _no_thread_survives() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    left = [thread for thread in threading.enumerate() if thread not in before]
    assert not left, f"threads survive: {left}"


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_video(tmp_path / "clip.mp4")


@pytest.fixture
def still(tmp_path: Path) -> Path:
    path = tmp_path / "still.png"
    Image.fromarray(picture(200, 150, (20, 30, 60))).save(path)
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def records(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_package_offers_the_function() -> None:
    assert videogender.annotate is annotate


def test_a_video_gets_a_copy_beside_it(clip: Path) -> None:
    [summary] = annotate(clip, detector=SquareDetector())
    assert summary.output == clip.with_name("clip.annotated.mp4")
    assert (summary.frames, summary.faces, summary.error) == (25, 25, None)
    assert summary.fps == pytest.approx(25 / summary.seconds)
    assert names(clip.parent) == ["clip.annotated.mp4", "clip.mp4"]
    before, after = read_frames(clip), read_frames(summary.output)
    assert len(after) == 25
    for i, (old, new) in enumerate(zip(before, after, strict=True)):
        changed = np.abs(old.astype(int) - new).max(axis=2) > 60
        rows, columns = np.nonzero(changed)
        # What was drawn surrounds the square of this very frame, not of a neighbour.
        assert abs(columns.min() - square_x(i)) <= 8, f"frame {i}"
        assert rows.max() >= 40 + 32 - 2, f"frame {i}"


def test_data_says_where_the_squares_are(clip: Path, tmp_path: Path) -> None:
    jsonl, table = tmp_path / "faces.jsonl", tmp_path / "faces.csv"
    [summary] = annotate(clip, detector=SquareDetector(), json=jsonl, csv=table, video=False)
    assert summary.output is None
    assert names(tmp_path) == ["clip.mp4", "faces.csv", "faces.jsonl"]
    found = records(jsonl)
    assert [record["frame"] for record in found] == list(range(25))
    for i, record in enumerate(found):
        assert record["source"] == str(clip)
        assert record["time_s"] == pytest.approx(i / 25, abs=1e-6)
        assert (record["width"], record["height"]) == (160, 120)
        [face] = record["faces"]  # type: ignore[misc]
        x = square_x(i)
        np.testing.assert_allclose(face["box"], [x, 40, x + 32, 72], atol=2)
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["frame"]) for row in rows] == list(range(25))
    assert [float(row["x1"]) for row in rows] == [
        record["faces"][0]["box"][0]  # type: ignore[index]
        for record in found
    ]


def test_part_of_a_video(clip: Path, tmp_path: Path) -> None:
    jsonl = tmp_path / "faces.jsonl"
    annotate(
        clip,
        detector=SquareDetector(),
        json=jsonl,
        video=False,
        start_seconds=0.4,
        end_seconds=0.6,
    )
    times = [record["time_s"] for record in records(jsonl)]
    assert times == pytest.approx([0.4, 0.44, 0.48, 0.52, 0.56])


def test_a_part_that_holds_no_frame(clip: Path) -> None:
    [summary] = annotate(clip, detector=SquareDetector(), start_seconds=60)
    assert isinstance(summary.error, SourceError)
    assert names(clip.parent) == ["clip.mp4"]


@pytest.mark.parametrize(
    ("start", "end", "said"),
    [
        (5, 5, r"--end \(5 s\) should be later than --start \(5 s\)"),
        (None, 0, r"--end \(0 s\) should be later than 0"),
    ],
)
def test_end_before_start(clip: Path, start: float | None, end: float, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        annotate(clip, start_seconds=start, end_seconds=end)


def test_a_span_between_two_frames_tells_the_length_of_the_whole(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "a.mp4", count=250)
    [summary] = annotate(clip, detector=SquareDetector(), start_seconds=0.01, end_seconds=0.02)
    assert str(summary.error) == f"{clip}: shows nothing in that span; it lasts about 10.0 s"


def test_a_span_of_images_is_told_once_and_changes_nothing(clip: Path, still: Path) -> None:
    done = annotate([clip, still], detector=SquareDetector(), start_seconds=0.5)
    assert [summary.frames for summary in done] == [12, 1]
    assert [summary.warnings for summary in done] == [
        (),
        ("--start and --end are for videos; images have no time",),
    ]


def test_an_image_keeps_its_format_and_is_drawn_on(still: Path) -> None:
    [summary] = annotate(still, detector=SquareDetector())
    assert summary.output == still.with_name("still.annotated.png")
    with Image.open(summary.output) as image:
        assert (image.format, image.size) == ("PNG", (200, 150))
        after = np.asarray(image.convert("RGB")).astype(int)
    changed = np.abs(after - picture(200, 150, (20, 30, 60))).max(axis=2) > 30
    rows, columns = np.nonzero(changed)
    assert abs(columns.min() - 20) <= 6
    assert abs(rows.max() - 90) <= 6
    assert not changed[120:, :].any(), "the rest is untouched"
    assert not changed[:, 160:].any(), "the rest is untouched"


def test_a_jpeg_keeps_profile_and_exif_but_for_its_orientation(tmp_path: Path) -> None:
    from PIL import ImageCms

    path = tmp_path / "photo.JPG"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Camera Works"  # turned to the right; the maker
    shown = picture(120, 160, (20, 30, 60))
    stored = np.rot90(shown)  # 6: the first row of the file is the right side of the picture
    Image.fromarray(stored).save(path, quality=95, exif=exif, icc_profile=profile)

    [summary] = annotate(path, detector=SquareDetector())
    assert summary.output == tmp_path / "photo.annotated.JPG"
    with Image.open(summary.output) as image:
        assert image.size == (120, 160)
        assert image.info["icc_profile"] == profile
        assert image.getexif().get(0x010F) == "Camera Works"
        assert image.getexif().get(0x0112, 1) == 1
        assert np.asarray(image)[60, 50].min() > 200, "the square is where it is seen"

    blurred = with_overrides(Settings(), {"render.blur": True})
    annotate(path, detector=SquareDetector(), settings=blurred, force=True)
    with Image.open(summary.output) as image:
        assert not image.getexif(), "a small copy of the picture may hide there"
        assert image.info["icc_profile"] == profile


def test_nothing_drawn_gives_the_same_pixels(still: Path) -> None:
    plain = with_overrides(Settings(), {"render.style": "none", "render.labels": False})
    [summary] = annotate(still, detector=SquareDetector(), settings=plain)
    assert summary.output is not None
    with Image.open(summary.output) as image:
        np.testing.assert_array_equal(np.asarray(image), picture(200, 150, (20, 30, 60)))


def test_several_inputs_share_the_data_and_the_folder(clip: Path, still: Path) -> None:
    folder = clip.parent / "out" / "deep"
    jsonl = clip.parent / "faces.jsonl"
    summaries = annotate([clip, still, clip], output=folder, json=jsonl, detector=SquareDetector())
    assert [summary.frames for summary in summaries] == [25, 1], "an input named twice runs once"
    assert names(folder) == ["clip.annotated.mp4", "still.annotated.png"]
    found = records(jsonl)
    assert [record["source"] for record in found] == [str(clip)] * 25 + [str(still)]
    assert found[-1]["time_s"] is None


def test_a_failing_input_leaves_the_others_alone(clip: Path, still: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.mp4").write_bytes(b"this is no video")
    inputs = [tmp_path / "notes.mp4", clip, tmp_path / "missing.mp4", still]
    jsonl = tmp_path / "faces.jsonl"
    seen: list[str] = []

    class Seen(Progress):
        def start(self, job: Job, frames: int | None, position: int, count: int) -> None:
            seen.append(f"start {position + 1}/{count} {job.source.name}")

        def finish(self, summary: Summary) -> None:
            seen.append(f"finish {Path(summary.source).name} {summary.frames}")

    summaries = annotate(inputs, detector=SquareDetector(), json=jsonl, progress=Seen())
    assert [summary.frames for summary in summaries] == [0, 25, 0, 1]
    assert [type(summary.error) for summary in summaries] == [
        SourceError,
        type(None),
        SourceError,
        type(None),
    ]
    assert len(records(jsonl)) == 26
    assert seen == [
        *("finish notes.mp4 0", "start 2/4 clip.mp4", "finish clip.mp4 25"),
        *("finish missing.mp4 0", "start 4/4 still.png", "finish still.png 1"),
    ]
    assert names(tmp_path) == [
        *("clip.annotated.mp4", "clip.mp4", "faces.jsonl", "notes.mp4"),
        *("still.annotated.png", "still.png"),
    ]


def test_where_all_inputs_fail_nothing_appears(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    [summary] = annotate(
        tmp_path / "empty.mp4", detector=SquareDetector(), json=tmp_path / "faces.jsonl"
    )
    assert "empty" in str(summary.error)
    assert names(tmp_path) == ["empty.mp4"]


class FailsLate(SquareDetector):
    """A detector that fails after two batches."""

    error: type[BaseException] = SourceError

    def detect(self, scaled, sizes_wh):  # type: ignore[no-untyped-def]
        if len(self.batches) == 2:
            raise self.error("late")
        return super().detect(scaled, sizes_wh)


def test_an_input_that_fails_halfway_leaves_nothing(clip: Path, still: Path) -> None:
    jsonl = clip.parent / "faces.jsonl"
    [first, second] = annotate([clip, still], detector=FailsLate(), json=jsonl)
    assert (first.frames, str(first.error)) == (0, "late")
    assert second.error is not None, "this detector stays broken"
    assert names(clip.parent) == ["clip.mp4", "still.png"]


def test_a_defect_leaves_nothing_of_its_input_and_the_others_alone(clip: Path, still: Path) -> None:
    class Odd(SquareDetector):
        def detect(self, scaled, sizes_wh):  # type: ignore[no-untyped-def]
            if (160, 120) in sizes_wh and len(self.batches) == 2:
                raise KeyError("of two\nlines")
            return super().detect(scaled, sizes_wh)

    jsonl = clip.parent / "faces.jsonl"
    first, second = annotate([clip, still], detector=Odd(), json=jsonl)
    assert str(first.error) == f"{clip}: unexpected KeyError: 'of two\\nlines'"
    assert first.error is not None
    assert first.error.exit_code == 1
    [trace] = pickle.loads(pickle.dumps(first.error)).__notes__  # processes tell it to each other
    assert "in detect" in trace
    assert (second.error, second.faces) == (None, 1)
    assert {record["source"] for record in records(jsonl)} == {str(still)}
    assert names(clip.parent) == ["clip.mp4", "faces.jsonl", "still.annotated.png", "still.png"]


class Stops(Progress):
    """Presses Ctrl-C after some frames."""

    def __init__(self, after: int) -> None:
        self.left = after

    def advance(self, faces: int) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


def test_ctrl_c_keeps_what_was_done(tmp_path: Path, still: Path) -> None:
    long = write_video(tmp_path / "long.mp4", count=400)
    jsonl = tmp_path / "faces.jsonl"
    with pytest.raises(AnnotationInterrupted) as caught:
        annotate([long, still], detector=SquareDetector(), json=jsonl, progress=Stops(30))
    [summary] = caught.value.summaries
    assert summary.interrupted
    assert 30 <= summary.frames < 400
    assert summary.output == tmp_path / "long.annotated.mp4"
    before, after = read_frames(long), read_frames(summary.output)
    assert len(after) == len(records(jsonl)) == summary.frames
    for old, new in zip(before, after, strict=False):
        assert np.abs(old.astype(int) - new)[80:].max() < 40, "frames keep their place"


def test_ctrl_c_before_the_first_frame_leaves_nothing(clip: Path) -> None:
    class AtOnce(Progress):
        def start(self, job: Job, frames: int | None, position: int, count: int) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        annotate(clip, detector=SquareDetector(), progress=AtOnce())
    assert isinstance(caught.value, AnnotationInterrupted)
    assert names(clip.parent) == ["clip.mp4"]


def test_existing_outputs_are_refused_before_any_work(clip: Path, still: Path) -> None:
    target = clip.with_name("clip.annotated.mp4")
    target.write_text("precious")
    detector = SquareDetector()
    with pytest.raises(OutputError) as caught:
        annotate([still, clip], detector=detector)
    assert str(caught.value) == f"{target}: exists already; --force replaces it"
    assert detector.batches == []
    assert target.read_text() == "precious"
    annotate([still, clip], detector=detector, force=True)
    assert len(read_frames(target)) == 25


def test_an_output_that_is_an_input_is_refused_even_with_force(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = clip.read_bytes()
    (tmp_path / "sub").mkdir()
    (tmp_path / "link.mp4").symlink_to(clip)
    os.link(clip, tmp_path / "hard.mp4")
    monkeypatch.chdir(tmp_path)
    for name in ("clip.mp4", "sub/../clip.mp4", "link.mp4", "hard.mp4", str(clip)):
        with pytest.raises(OutputError, match="this output is the input"):
            annotate(clip, output=name, detector=SquareDetector(), force=True)
        with pytest.raises(OutputError, match="this output is the input"):
            annotate(clip, json=name, detector=SquareDetector(), force=True)
    assert clip.read_bytes() == content


def test_an_output_that_is_another_input_is_refused(clip: Path, tmp_path: Path) -> None:
    annotated = write_video(tmp_path / "clip.annotated.mp4", count=3)
    with pytest.raises(OutputError, match="this output is the input"):
        annotate([clip, annotated], detector=SquareDetector(), force=True)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"video": False}, ConfigError, "--no-video leaves nothing to write"),
        (
            {"video": False, "json": "a", "output": "b.mp4"},
            ConfigError,
            "--output b.mp4 has no use",
        ),
        ({"json": "-", "csv": "-"}, ConfigError, "only one of --json and --csv"),
        ({"json": "same", "csv": "same"}, OutputError, "--json and --csv would both be written"),
        ({"output": "none/out.mp4"}, OutputError, "the folder none does not exist"),
        ({"json": "none/out.jsonl"}, OutputError, "the folder none does not exist"),
        ({"json": "."}, OutputError, "this is a folder"),
        ({"json": "clip.mp4/out"}, OutputError, "clip.mp4 is not a folder"),
        ({"output": "clip.annotated.mp4", "csv": "clip.annotated.mp4"}, OutputError, "would both"),
    ],
)
def test_refusals(
    clip: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: dict[str, object],
    error: type[Exception],
    message: str,
) -> None:
    monkeypatch.chdir(clip.parent)
    with pytest.raises(error, match=message):
        annotate("clip.mp4", detector=SquareDetector(), **arguments)  # type: ignore[arg-type]
    assert names(clip.parent) == ["clip.mp4"]


def test_one_file_for_two_inputs_is_refused(clip: Path, still: Path) -> None:
    with pytest.raises(ConfigError, match="one file, but there are 2 inputs; name a folder"):
        annotate([clip, still], output="out.mp4", detector=SquareDetector())


@pytest.mark.parametrize("name", ["out.avi", "out.png"])
def test_a_wrong_suffix_is_refused_before_any_work(clip: Path, tmp_path: Path, name: str) -> None:
    target = tmp_path / name
    detector = SquareDetector()
    with pytest.raises(OutputError) as caught:
        annotate([clip], output=target, detector=detector)
    assert str(caught.value).startswith(f"{target}: annotated video is MP4")
    assert detector.batches == []
    assert names(tmp_path) == ["clip.mp4"]


def test_annotated_files_of_a_pattern_are_left_out(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4", "a.annotated.mp4"):
        write_video(tmp_path / name, count=2)
    jobs = plan_jobs([str(tmp_path / "*.mp4")], force=True)
    assert [job.source.name for job in jobs] == ["a.mp4", "b.mp4"]


def test_a_truncated_video_is_kept_and_told(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.mkv", count=100)
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    [summary] = annotate(cut, detector=SquareDetector())
    assert summary.error is None
    assert summary.output is not None
    assert 0 < summary.frames < 100
    assert len(read_frames(summary.output)) == summary.frames
    assert summary.warnings, "the user is told that the end is missing"
