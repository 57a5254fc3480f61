"""The video sink: same frames, same times, same sound; drawn on, upright, playable in browsers."""

from __future__ import annotations

import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from media import (
    CLIPS,
    NEAR,
    Clip,
    Sound,
    Text,
    cut_short,
    decoded_luma,
    decoded_times,
    make_video,
    packets_of,
    shown,
    upright_luma,
)

from videogender.annotation import annotate
from videogender.config import Settings, VideoSettings, with_overrides
from videogender.errors import ConfigError, OutputError
from videogender.render import Canvas
from videogender.sinks.video import VideoSink
from videogender.sources import open_source

FAST = VideoSettings(crf=12, preset="ultrafast")


def copy(
    path: Path, settings: VideoSettings = FAST, *, draw=None, name: str = "out.mp4", **span: float
) -> tuple[Path, list[str]]:
    """Send a whole file through source and sink."""
    out = path.with_name(name)
    source = open_source(path, **span)
    with source, VideoSink(out, source, settings) as sink:
        for frame in source:
            sink.write(frame, draw)
    return out, source.warnings


@pytest.mark.parametrize("name", CLIPS)
def test_every_frame_at_its_own_time(tmp_path: Path, name: str) -> None:
    file, clip = CLIPS[name]
    path = make_video(tmp_path / file, clip)
    out, warnings = copy(path)
    assert warnings == []
    times, before = decoded_times(out), decoded_times(path)
    assert len(times) == len(clip.times)
    assert [t - times[0] for t in times] == [t - before[0] for t in before]
    with av.open(str(out)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.codec_context.pix_fmt in ("yuv420p", "yuvj420p")
        frame = next(container.decode(stream))
        assert frame.rotation == 0
        assert "DISPLAYMATRIX" not in frame.side_data
    high, wide = upright_luma(clip, 0).shape
    for index, picture in enumerate(decoded_luma(out)):
        assert picture.shape == (high + high % 2, wide + wide % 2)
        expected = upright_luma(clip, index).astype(float)
        if clip.pix_fmt in ("gray", "bgr0"):  # these become limited range
            expected = 16 + shown(clip, index) * 219 / 255
        error = np.abs(picture[:high, :wide] - expected)
        error[high // 2 - 4 : high // 2 + 4] = 0
        error[:, wide // 2 - 4 : wide // 2 + 4] = 0
        assert error.max() <= NEAR
        if high % 2:
            assert np.abs(picture[high].astype(int) - picture[high - 1]).max() <= NEAR
        if wide % 2:
            assert np.abs(picture[:, wide].astype(int) - picture[:, wide - 1]).max() <= NEAR


@pytest.mark.parametrize("name", ["constant", "odd", "turned-90", "full-range", "10-bit-422"])
def test_drawing_lands_where_it_was_drawn(tmp_path: Path, name: str) -> None:
    file, clip = CLIPS[name]
    high, wide = upright_luma(clip, 0).shape
    seen = set()

    def draw(canvas: Canvas) -> None:
        seen.add((canvas.width, canvas.height))
        canvas.fill((wide - 20, 4, wide - 4, 20), (255, 255, 255))

    path = make_video(tmp_path / file, clip)
    plain = decoded_luma(copy(path)[0])
    drawn = decoded_luma(copy(path, draw=draw, name="drawn.mp4")[0])
    assert seen == {(wide, high)}
    white = 255 if clip.pix_fmt == "yuvj420p" else 235
    for before, after in zip(plain, drawn, strict=True):
        assert np.abs(after[7:17, wide - 17 : wide - 7].astype(int) - white).max() <= NEAR
        assert np.abs(after[26:].astype(int) - before[26:]).max() <= NEAR
        assert np.abs(after[:, : wide - 26].astype(int) - before[:, : wide - 26]).max() <= NEAR


def test_drawing_leaves_the_frame_itself_alone(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", Clip(frames=3))
    with open_source(path) as source, VideoSink(tmp_path / "out.mp4", source, FAST) as sink:
        for frame in source:
            before = frame.picture.to_rgb()
            sink.write(frame, lambda canvas: canvas.fill((0, 0, 64, 48), (255, 0, 0)))
            np.testing.assert_array_equal(frame.picture.to_rgb(), before)


@pytest.mark.parametrize("codec", ["aac", "ac3", "libopus", "flac", "libmp3lame", "alac", "mp2"])
@pytest.mark.parametrize("file", ["a.mp4", "a.mkv"])
def test_sound_is_copied(tmp_path: Path, codec: str, file: str) -> None:
    path = make_video(tmp_path / file, Clip(b_frames=2, sounds=[Sound(codec, language="fra")]))
    out, warnings = copy(path)
    assert warnings == []
    (before,), (after,) = packets_of(path, "audio"), packets_of(out, "audio")
    assert [data for _, data in after] == [data for _, data in before]
    for (time, _), (other, _) in zip(before, after, strict=True):
        assert abs(time - other) <= Fraction(1, 1000)
    with av.open(str(out)) as container:
        assert container.streams.audio[0].language == "fra"


def test_several_sounds_keep_their_order(tmp_path: Path) -> None:
    sounds = [Sound(language="eng"), Sound("libopus", layout="mono", language="deu")]
    path = make_video(tmp_path / "a.mkv", Clip(sounds=sounds))
    out, _ = copy(path)
    assert [[d for _, d in s] for s in packets_of(out, "audio")] == [
        [d for _, d in s] for s in packets_of(path, "audio")
    ]
    with av.open(str(out)) as container:
        assert [s.language for s in container.streams.audio] == ["eng", "deu"]


def samples_of(path: Path) -> tuple[np.ndarray, float]:
    """Return the first channel as float and the time of its first sample."""
    parts, start = [], None
    with av.open(str(path)) as container:
        rate = container.streams.audio[0].rate
        for frame in container.decode(audio=0):
            start = frame.time if start is None else start
            data = frame.to_ndarray()[0]
            if not frame.format.is_planar:
                data = data[:: len(frame.layout.channels)]
            parts.append(data / 32768 if data.dtype == np.int16 else data)
    assert rate == 48000
    return np.concatenate(parts), float(start)


@pytest.mark.parametrize(
    ("file", "sound"),
    [
        ("a.mkv", Sound("pcm_s16le", layout="mono")),
        ("a.mov", Sound("pcm_s16le")),
        ("a.mkv", Sound("pcm_s16le", start_seconds=0.4)),
        ("a.mkv", Sound("wavpack")),
    ],
)
def test_other_sound_becomes_aac_in_step(tmp_path: Path, file: str, sound: Sound) -> None:
    path = make_video(tmp_path / file, Clip(frames=50, sounds=[sound]))
    out, warnings = copy(path)
    assert warnings == []
    with av.open(str(out)) as container:
        stream = container.streams.audio[0]
        assert stream.codec_context.name == "aac"
        assert len(stream.layout.channels) == len(av.AudioLayout(sound.layout).channels)
    (before, begins), (after, starts) = samples_of(path), samples_of(out)
    # An encoder's lead-in may come first; what follows lies where it lay, in phase: a lag of one
    # sample would turn 440 Hz by 3.3 degrees.
    lead = round((begins - starts) * 48000)
    assert 0 <= lead <= 1026
    span = slice(4800, 4800 + 24000)
    assert np.corrcoef(before[span], after[lead:][span])[0, 1] > 0.9995
    assert len(after) - lead == pytest.approx(len(before), abs=1024)


def test_sound_of_a_transport_stream_loses_only_its_packaging(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.ts", Clip(sounds=[Sound()], b_frames=2))
    out, _ = copy(path)
    (before, begins), (after, starts) = samples_of(path), samples_of(out)
    np.testing.assert_array_equal(before[: len(after)], after[: len(before)])
    # Both began late; picture and sound keep their distance.
    lag = starts - float(decoded_times(out)[0])
    assert lag == pytest.approx(begins - float(decoded_times(path)[0]), abs=0.001)
    assert min(starts, decoded_times(out)[0]) == pytest.approx(0, abs=0.001)


def test_picture_that_starts_after_the_sound(tmp_path: Path) -> None:
    late = Clip(time_base=Fraction(1, 1000), pts=range(500, 1500, 40), sounds=[Sound(seconds=1.5)])
    path = make_video(tmp_path / "a.mp4", late)
    out, _ = copy(path)
    assert decoded_times(out) == decoded_times(path)
    assert decoded_times(out)[0] == Fraction(1, 2)
    assert packets_of(out, "audio") == packets_of(path, "audio")


def test_sound_beyond_the_picture_is_kept(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", Clip(sounds=[Sound(seconds=4)]))
    out, _ = copy(path)
    assert packets_of(out, "audio") == packets_of(path, "audio")


def lines_of(path: Path) -> list[list[tuple[float, float, str]]]:
    """Return (begin, end, text) of every subtitle, a list a stream."""
    found = []
    with av.open(str(path)) as container:
        for number in range(len(container.streams.subtitles)):
            container.seek(0)
            lines = []
            for packet in container.demux(subtitles=number):
                if packet.pts is None:
                    continue
                for line in packet.decode():
                    if line.dialogue:
                        begin = float(packet.pts * packet.time_base)
                        end = begin + float(packet.duration * packet.time_base)
                        lines.append((round(begin, 3), round(end, 3), line.dialogue.decode()))
            found.append(lines)
    return found


LINES = ((0.2, 0.6, "first line"), (0.7, 0.9, "zweite Zeile, mit Komma"))


@pytest.mark.parametrize(
    ("file", "codec"),
    [("a.mp4", "mov_text"), ("a.mkv", "subrip"), ("a.mkv", "ass"), ("a.mkv", "webvtt")],
)
def test_subtitles_come_along(tmp_path: Path, file: str, codec: str) -> None:
    clip = Clip(texts=[Text(codec, LINES), Text(codec, LINES[:1], language="ita")])
    path = make_video(tmp_path / file, clip)
    out, warnings = copy(path)
    assert warnings == []
    assert lines_of(out) == [list(LINES), list(LINES[:1])]
    if codec == "mov_text":
        assert packets_of(out, "subtitle") == packets_of(path, "subtitle")
    with av.open(str(out)) as container:
        assert [s.codec_context.name for s in container.streams.subtitles] == ["mov_text"] * 2
        assert [s.language for s in container.streams.subtitles] == ["deu", "ita"]


def test_what_cannot_come_along_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        picture = container.add_stream("libx264", rate=25, width=64, height=48)
        text = container.add_mux_stream("pgssub")
        container.add_attachment("font.ttf", "font/ttf", b"letters")
        second = container.add_stream("libx264", rate=25, width=32, height=32)
        for stream in (picture, second):
            for index in range(5):
                frame = av.VideoFrame(stream.width, stream.height, "yuv420p")
                frame.pts = index
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        packet = av.Packet(b"\0" * 20)
        packet.stream, packet.time_base = text, Fraction(1, 1000)
        packet.pts = packet.dts = 100
        container.mux(packet)
    _, (warning,) = copy(path)
    assert "subtitles (pgssub)" in warning
    assert "attachment" in warning
    assert "a further video (h264)" in warning


CHAPTERS = [(0.0, 0.5, "Opening"), (0.5, 2.0, "The end")]


@pytest.mark.parametrize("file", ["a.mp4", "a.mkv"])
@pytest.mark.parametrize("extra", [{}, {"mood": "calm"}])
def test_chapters_tags_and_cover(tmp_path: Path, file: str, extra: dict[str, str]) -> None:
    tags = {"title": "A walk", "comment": "by the sea", **extra}
    muxer = {"movflags": "use_metadata_tags"} if file.endswith("mp4") and extra else {}
    clip = Clip(frames=50, chapters=CHAPTERS, tags=tags, muxer=muxer)
    path = make_video(tmp_path / file, clip)
    out, warnings = copy(path)
    assert warnings == []
    with av.open(str(out)) as container:
        kept = {key.lower(): value for key, value in container.metadata.items()}
        assert kept.items() >= tags.items()
        found = [
            (c["start"] * c["time_base"], c["end"] * c["time_base"], c["metadata"]["title"])
            for c in container.chapters()
        ]
    assert found == CHAPTERS


def test_cover_picture_comes_along(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", Clip(cover=True, sounds=[Sound()]))
    out, warnings = copy(path)
    assert warnings == []
    assert packets_of(out, "video")[1][0][1] == packets_of(path, "video")[1][0][1]
    with av.open(str(out)) as container:
        assert container.streams.video[1].disposition & av.stream.Disposition.attached_pic


def test_a_cover_picture_stays_behind_where_faces_are_hidden(tmp_path: Path) -> None:
    from squares import SquareDetector

    path = make_video(tmp_path / "a.mp4", Clip(cover=True, sounds=[Sound()]))
    hidden = with_overrides(Settings(), {"render.blur": True})
    [done] = annotate(path, detector=SquareDetector(), settings=hidden)
    assert done.warnings == (f"{path}: its cover picture was left out, as it may show faces",)
    assert done.output is not None
    with av.open(str(done.output)) as container:
        assert [stream.type for stream in container.streams] == ["video", "audio"]


def test_sound_that_outlasts_the_picture_is_kept(tmp_path: Path) -> None:
    from squares import SquareDetector

    path = make_video(tmp_path / "a.mp4", Clip(sounds=[Sound(seconds=4)]))
    [done] = annotate(path, detector=SquareDetector())
    assert done.output is not None
    assert packets_of(done.output, "audio") == packets_of(path, "audio")


@pytest.mark.parametrize(
    ("layout", "channels", "said"),
    [("4.0", 4, []), ("6.1", 6, ["its sound of 7 channels is mixed to 6"])],
)
def test_sound_keeps_its_channels_where_aac_has_them(
    tmp_path: Path, layout: str, channels: int, said: list[str]
) -> None:
    sound = Sound(codec="pcm_s16le", layout=layout)
    out, warnings = copy(make_video(tmp_path / "a.mkv", Clip(sounds=[sound])))
    with av.open(str(out)) as container:
        assert container.streams.audio[0].channels == channels
    assert len(warnings) == len(said)
    assert all(text in line for text, line in zip(said, warnings, strict=True))


def test_titles_stay_where_players_look_for_them(tmp_path: Path) -> None:
    """Beside a place, and beside what Matroska keeps of the MP4 that it was made from."""
    for file, tags in (
        ("a.mp4", {"location": "+52.5200+013.4050/", "location-eng": "+52.5200+013.4050/"}),
        ("a.mkv", {"MAJOR_BRAND": "isom", "COMPATIBLE_BRANDS": "isomiso2"}),
    ):
        muxer = {"movflags": "use_metadata_tags"} if file == "a.mp4" else {}
        clip = Clip(tags={"title": "A walk", "artist": "Somebody", **tags}, muxer=muxer)
        out, _ = copy(make_video(tmp_path / file, clip))
        data = out.read_bytes()
        assert b"\xa9nam" in data
        assert b"mdta" not in data
        with av.open(str(out)) as container:
            assert container.metadata["title"] == "A walk"
            assert container.metadata.get("location", "").startswith("+52.52") == (
                "location" in tags
            )


def test_sound_stays_behind_where_that_is_wished(tmp_path: Path) -> None:
    from squares import SquareDetector

    path = make_video(tmp_path / "a.mp4", Clip(cover=True, sounds=[Sound()]))
    silent = with_overrides(Settings(), {"video.sound": False})
    [done] = annotate(path, detector=SquareDetector(), settings=silent)
    assert done.warnings == ()
    assert done.output is not None
    with av.open(str(done.output)) as container:
        assert [stream.type for stream in container.streams] == ["video", "video"]  # the cover


@pytest.mark.parametrize("place", ["location", "com.apple.quicktime.location.ISO6709"])
def test_tags_tell_no_place_where_faces_are_hidden(tmp_path: Path, place: str) -> None:
    from squares import SquareDetector

    tags = {"title": "A walk", place: "+52.5200+013.4050/"}
    clip = Clip(tags=tags, muxer={"movflags": "use_metadata_tags"})
    path = make_video(tmp_path / "a.mp4", clip)
    for blur in (False, True):
        settings = with_overrides(Settings(), {"render.blur": blur})
        [done] = annotate(path, detector=SquareDetector(), settings=settings, force=True)
        assert done.output is not None
        with av.open(str(done.output)) as container:
            assert container.metadata["title"] == "A walk"
            assert (place in container.metadata) is not blur


@pytest.mark.parametrize("colours", [(1, 1, 1, 1), (1, 5, 6, 5), (2, 1, 13, 1), (1, 9, 16, 9)])
def test_colour_tags_stay(tmp_path: Path, colours: tuple[int, int, int, int]) -> None:
    deep = colours[1] == 9
    clip = Clip(colours=colours, pix_fmt="yuv420p10le" if deep else "yuv420p")
    out, warnings = copy(make_video(tmp_path / "a.mp4", clip))
    hdr = [
        f"{tmp_path / 'a.mp4'}: HDR: the copy has 8 bits a colour, so smooth shades may show bands"
    ]
    assert warnings == (hdr if deep else [])
    with av.open(str(out)) as container:
        frame = next(container.decode(video=0))
        found = (frame.color_range, frame.color_primaries, frame.color_trc, frame.colorspace)
    assert found == colours
    assert b"colr" in out.read_bytes()


@pytest.mark.parametrize(
    ("rotation", "expected"), [(0, Fraction(4, 3)), (90, Fraction(3, 4)), (180, Fraction(4, 3))]
)
def test_pixel_aspect_stays(tmp_path: Path, rotation: int, expected: Fraction) -> None:
    clip = Clip(pixel_aspect=Fraction(4, 3), rotation=rotation)
    out, _ = copy(make_video(tmp_path / "a.mp4", clip))
    with av.open(str(out)) as container:
        assert container.streams.video[0].sample_aspect_ratio == expected


def test_last_frame_stays_as_long_as_it_did(tmp_path: Path) -> None:
    clip = Clip(frames=10, time_base=Fraction(1, 1000), step=40, last_seconds=Fraction(7, 10))
    for file in ("a.mp4", "a.mov"):
        out, _ = copy(make_video(tmp_path / file, clip))
        with av.open(str(out)) as container:
            stream = container.streams.video[0]
            assert stream.duration * stream.time_base == Fraction(36 + 70, 100)


def test_recordings_joined_end_to_end(tmp_path: Path) -> None:
    """The clock begins anew in the middle; everything plays behind what came before."""
    whole = tmp_path / "joined.ts"
    for name in ("a.ts", "b.ts"):
        part = make_video(tmp_path / name, Clip(frames=50, sounds=[Sound()]))
        with whole.open("ab") as file:
            file.write(part.read_bytes())
    out, warnings = copy(whole)
    assert any("no usable time" in w for w in warnings)
    times = decoded_times(out)
    assert len(times) == 100
    assert times[-1] - times[0] == pytest.approx(99 * 0.04, abs=0.05)
    (packets,) = packets_of(out, "audio")
    assert packets[-1][0] == pytest.approx(4, abs=0.1)


def test_damaged_sound_does_not_cost_the_picture(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.ts", Clip(frames=50, sounds=[Sound()]))
    with av.open(str(path)) as container:
        places = [p.pos for p in container.demux(audio=0) if p.pos is not None]
    data = bytearray(path.read_bytes())
    for place in places[3::4]:
        data[place + 20 : place + 100] = bytes(80)
    path.write_bytes(data)
    out, warnings = copy(path)
    assert any("of sound or subtitles were left out" in w for w in warnings)
    assert len(decoded_times(out)) == 50
    assert len(packets_of(out, "audio")[0]) > 20


def test_file_starts_to_play_at_once(tmp_path: Path) -> None:
    out, _ = copy(make_video(tmp_path / "a.mp4"))
    data = out.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_default_settings_use_b_frames_and_keep_times(tmp_path: Path) -> None:
    clip = Clip(time_base=Fraction(1, 90_000), frames=60, step=3003, rate=Fraction(30000, 1001))
    path = make_video(tmp_path / "a.mp4", clip)
    out, _ = copy(path, VideoSettings())
    assert decoded_times(out) == decoded_times(path)
    with av.open(str(out)) as container:
        kinds = {frame.pict_type for frame in container.decode(video=0)}
    assert av.video.frame.PictureType.B in kinds


def test_no_drift_over_an_hour(tmp_path: Path) -> None:
    """Two frames at the far end of an hour of 29.97 fps lie on the very same ticks."""
    pts = [0, 1001, 2002, 3600 * 30000 - 1001, 3600 * 30000]
    clip = Clip(time_base=Fraction(1, 30000), pts=pts, rate=Fraction(30000, 1001))
    path = make_video(tmp_path / "a.mp4", clip)
    out, _ = copy(path)
    assert decoded_times(out) == [Fraction(p, 30000) for p in pts]


@pytest.mark.parametrize("file", ["a.mp4", "a.mkv"])
def test_span_starts_at_zero_with_its_sound(tmp_path: Path, file: str) -> None:
    clip = Clip(
        frames=100,
        sounds=[Sound(seconds=4), Sound("libopus", start_seconds=1.5, seconds=2)],
        texts=[Text("mov_text" if file == "a.mp4" else "subrip",
                    [(0.1, 0.4, "gone"), (0.8, 1.4, "half"), (1.6, 1.8, "all"), (3, 3.5, "late")])],
        chapters=[(0, 1.2, "one"), (1.2, 4, "two")],
    )  # fmt: skip
    path = make_video(tmp_path / file, clip)
    out, warnings = copy(path, start_seconds=1.0, end_seconds=2.0)
    assert warnings == []
    assert decoded_times(out) == [Fraction(n, 25) for n in range(25)]
    expected = decoded_luma(path)[25:50]
    for picture, other in zip(decoded_luma(out), expected, strict=True):
        assert np.abs(picture.astype(int) - other).max() <= 2 * NEAR
    for stream, begin in ((0, 0.0), (1, 0.5)):
        before = packets_of(path, "audio")[stream]
        after = packets_of(out, "audio")[stream]
        payloads = [data for _, data in before]
        first = payloads.index(after[0][1])
        assert [d for _, d in after] == payloads[first : first + len(after)]
        shift = before[first][0] - after[0][0]
        assert shift == pytest.approx(1, abs=0.001)
        assert begin - 0.13 <= after[0][0] <= begin + 0.001
        assert 0.95 < after[-1][0] < 1
    assert lines_of(out) == [[(0.0, 0.4, "half"), (0.6, 0.8, "all")]]
    with av.open(str(out)) as container:
        chapters = [(float(c["start"] * c["time_base"]), float(c["end"] * c["time_base"]))
                    for c in container.chapters()]  # fmt: skip
    assert chapters == [(0.0, 0.2), (0.2, 1.0)]


def test_span_of_reencoded_sound(tmp_path: Path) -> None:
    sound = Sound("pcm_s16le", start_seconds=1.5, seconds=2)
    path = make_video(tmp_path / "a.mkv", Clip(frames=100, sounds=[sound]))
    out, _ = copy(path, start_seconds=1.0, end_seconds=3.0)
    (before, begins), (after, starts) = samples_of(path), samples_of(out)
    lead = round((begins - 1.0 - starts) * 48000)
    assert 0 <= lead <= 1026
    span = slice(4800, 4800 + 24000)
    assert np.corrcoef(before[span], after[lead:][span])[0, 1] > 0.9995
    assert starts + len(after) / 48000 == pytest.approx(2, abs=0.05)


def test_picture_types_of_the_source_do_not_bind_the_encoder(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", Clip(pix_fmt="yuv420p10le", gop=1))
    out, _ = copy(path)
    with av.open(str(out)) as container:
        keys = [p.is_keyframe for p in container.demux(video=0) if p.size]
    assert sum(keys) == 1


@pytest.mark.parametrize("sound", ["aac", "pcm_s16le"])
@pytest.mark.parametrize("fails", [False, True])
def test_interrupted_file_plays(tmp_path: Path, sound: str, fails: bool) -> None:
    clip = Clip(frames=100, sounds=[Sound(sound, seconds=4)], texts=[Text("subrip", LINES)])
    path, out = make_video(tmp_path / "a.mkv", clip), tmp_path / "out.mp4"

    def run() -> None:
        with open_source(path) as source, VideoSink(out, source, FAST) as sink:
            for frame in source:
                if frame.index == 30:
                    if fails:
                        raise KeyboardInterrupt
                    break
                sink.write(frame)

    if fails:
        with pytest.raises(KeyboardInterrupt):
            run()
    else:
        run()
    assert decoded_times(out) == [Fraction(n, 25) for n in range(30)]
    (packets,) = packets_of(out, "audio")
    assert 1.1 < packets[-1][0] <= 1.25
    assert lines_of(out) == [list(LINES)]


def test_reader_that_ran_ahead_does_not_make_it_complete(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", Clip(sounds=[Sound()]))
    with open_source(path) as source, VideoSink(tmp_path / "out.mp4", source, FAST) as sink:
        for frame in list(source)[:10]:
            sink.write(frame)
    (packets,) = packets_of(tmp_path / "out.mp4", "audio")
    assert packets[-1][0] <= 0.42


def test_nothing_written_closes_quietly(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", Clip(sounds=[Sound()]))
    with open_source(path) as source, VideoSink(tmp_path / "out.mp4", source, FAST) as sink:
        sink.close()
        sink.close()


def test_truncated_source_keeps_what_decodes(tmp_path: Path) -> None:
    clip = Clip(frames=100, sounds=[Sound(seconds=4)], muxer={"movflags": "+faststart"})
    path = cut_short(make_video(tmp_path / "a.mp4", clip), 0.7)
    out, warnings = copy(path)
    assert any("cut short" in w for w in warnings)
    assert len(decoded_times(out)) > 20
    assert len(packets_of(out, "audio")[0]) > 20


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        (VideoSettings("libx265", 28, "ultrafast"), "hevc"),
        (VideoSettings("hevc", 28, "ultrafast"), "hevc"),
        (VideoSettings("h264", 28, "ultrafast"), "h264"),
        (VideoSettings("libsvtav1", 40, "12"), "libdav1d"),
        (VideoSettings("mpeg4", 20), "mpeg4"),
    ],
)
def test_other_encoders(tmp_path: Path, settings: VideoSettings, name: str) -> None:
    path = make_video(tmp_path / "a.mp4", Clip(width=128, height=128, frames=10))
    out, _ = copy(path, settings)
    with av.open(str(out)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == name
        if name == "hevc":
            assert stream.codec_context.codec_tag == "hvc1"
        luma = next(container.decode(stream)).to_ndarray()[:128]
    assert np.abs(luma[100:, 100:].astype(int) - upright_luma(Clip(), 0)[-1, -1]).max() <= 12
    assert decoded_times(out) == decoded_times(path)


def test_quality_and_speed_reach_the_encoder(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", Clip(codec="libx264", width=320, height=240))
    out, _ = copy(path, VideoSettings(crf=33, preset="slow"))
    data = out.read_bytes()  # x264 writes its settings into the stream
    assert b"crf=33.0" in data
    assert b"subme=8" in data
    assert b"sliced_threads=0" in data


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (VideoSettings("libx2644"), "unknown video encoder 'libx2644'; do you mean libx264"),
        (VideoSettings("aac"), "'aac' encodes audio, not video"),
        (VideoSettings("prores_ks"), "'prores_ks' does not take 8-bit 4:2:0"),
        (VideoSettings("libx264", preset="warp"), "does not open with crf 20 and preset 'warp'"),
        (VideoSettings("libvpx"), "encoder 'libvpx' does not open|MP4"),
    ],
)
def test_bad_settings(tmp_path: Path, settings: VideoSettings, message: str) -> None:
    path = make_video(tmp_path / "a.mp4")
    with open_source(path) as source, pytest.raises(ConfigError, match=message) as caught:
        VideoSink(tmp_path / "out.mp4", source, settings)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out.mp4").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing/out.mp4", "cannot be written: No such file"),
        ("out.avi", "annotated video is MP4"),
        (".", "annotated video is MP4"),
    ],
)
def test_bad_targets(tmp_path: Path, name: str, message: str) -> None:
    with (
        open_source(make_video(tmp_path / "a.mp4")) as source,
        pytest.raises(OutputError, match=message),
    ):
        VideoSink(tmp_path / name, source, FAST)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
@pytest.mark.parametrize("frames", [3, 400])
def test_full_disk(tmp_path: Path, frames: int) -> None:
    path = make_video(tmp_path / "a.mp4", Clip(frames=frames, width=160, height=128))
    (tmp_path / "out.mp4").symlink_to("/dev/full")
    with pytest.raises(OutputError, match="the disk is full"):
        copy(path)


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
@pytest.mark.slow  # encodes some thousand frames to see that nothing piles up
def test_memory_does_not_grow(tmp_path: Path) -> None:
    code = """
import re, sys
from pathlib import Path
from videogender.config import VideoSettings
from videogender.sinks.video import VideoSink
from videogender.sources import open_source
path = Path(sys.argv[1])
with open_source(path) as source:
    with VideoSink(path.with_name("out.mp4"), source, VideoSettings(preset="ultrafast")) as sink:
        for frame in source:
            sink.write(frame)
print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""
    peaks = []
    for frames in (500, 3000):
        path = tmp_path / f"{frames}.mkv"
        make_video(path, Clip(frames=frames, sounds=[Sound("pcm_s16le"), Sound("libopus")]))
        ran = subprocess.run(
            [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
        )
        peaks.append(int(ran.stdout) / 1024)
    assert peaks[1] - peaks[0] < 12, f"{peaks} MiB"
