"""Damaged media: each ends with a result or one clear line, never a trace, a hang or a half file.

At least 300 files are made from ten good ones by flipping bits, cutting off, swapping blocks,
repeating, zeroing and writing absurd numbers over headers, with a fixed seed.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import pytest
from media import Clip, Sound, Text, make_song, make_video
from PIL import Image

MOST_SECONDS = 30
# exit codes that README documents for inputs that cannot be used, and for those that can
ENDS = {0, 3}
COPIES = 31  # of each seed file

SEEDS: dict[str, Clip] = {
    "sound.mp4": Clip(sounds=[Sound()], b_frames=2, frames=10),
    "text.mkv": Clip(texts=[Text("subrip")], frames=10, time_base=Fraction(1, 1000), step=40),
    "turned.mov": Clip(rotation=90, frames=8),
    "stream.ts": Clip(sounds=[Sound()], frames=10),
    "old.avi": Clip(codec="mpeg4", frames=8),
    "small.webm": Clip(frames=6, codec="libvpx-vp9", options={"cpu-used": "8"}),
    "deep.mp4": Clip(pix_fmt="yuv420p10le", frames=8),
    "odd.mkv": Clip(width=61, height=47, codec="ffv1", pix_fmt="yuv444p", frames=6),
}


def flip_bits(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice([1, 8, 64])):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def flip_header(data: bytearray, rng: random.Random) -> None:
    for _ in range(4):
        data[rng.randrange(min(len(data), 600))] ^= 1 << rng.randrange(8)


def truncate(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(len(data)) :]


def swap_blocks(data: bytearray, rng: random.Random) -> None:
    size = max(1, len(data) // rng.choice([4, 16]))
    a, b = (rng.randrange(len(data) - size + 1) for _ in range(2))
    data[a : a + size], data[b : b + size] = data[b : b + size], data[a : a + size]


def repeat_block(data: bytearray, rng: random.Random) -> None:
    a = rng.randrange(len(data))
    data[a:a] = data[a : a + rng.randrange(1, 4096)]


def zero_block(data: bytearray, rng: random.Random) -> None:
    a, size = rng.randrange(len(data)), rng.choice([4, 64, 1024])
    data[a : a + size] = bytes(len(data[a : a + size]))


def absurd_numbers(data: bytearray, rng: random.Random) -> None:
    """Sizes, counts and times become as large as they can."""
    for _ in range(3):
        a = rng.randrange(max(1, len(data) - 4))
        data[a : a + 4] = rng.choice(
            [b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x00\x00\x00\x00"]
        )


MUTATIONS: tuple[Callable[[bytearray, random.Random], None], ...] = (
    flip_bits,
    flip_header,
    truncate,
    swap_blocks,
    repeat_block,
    zero_block,
    absurd_numbers,
)


def absurd_boxes(data: bytes, kind: bytes, value: bytes) -> bytes:
    """Write a value over the four bytes after a box's name, wherever it stands."""
    parts = data.split(kind)
    return kind.join([parts[0], *(value + part[4:] for part in parts[1:])])


def hostile_files(folder: Path) -> Iterator[Path]:
    """Write the good files and yield them, and then all that was made from them."""
    good = [make_video(folder / name, clip) for name, clip in SEEDS.items()]
    good.append(folder / "still.png")
    Image.new("RGB", (64, 48), "grey").save(good[-1])
    good.append(folder / "moving.gif")
    frames = [Image.new("RGB", (64, 48), (40 * i, 0, 0)) for i in range(4)]
    frames[0].save(good[-1], save_all=True, append_images=frames[1:])
    yield from good
    rng = random.Random(20)
    for path in good:
        for number in range(COPIES):
            data = bytearray(path.read_bytes())
            mutate = MUTATIONS[number % len(MUTATIONS)]
            mutate(data, rng)
            hurt = folder / f"{path.stem}-{number}-{mutate.__name__}{path.suffix}"
            hurt.write_bytes(data)
            yield hurt
    movie = good[0].read_bytes()
    for kind in (b"tkhd", b"mvhd", b"stsz", b"stts", b"avc1", b"mdat", b"elst"):
        hurt = folder / f"box-{kind.decode()}.mp4"
        hurt.write_bytes(absurd_boxes(movie, kind, b"\xff\xff\xff\xff"))
        yield hurt
    yield make_song(folder / "song.m4a")
    yield make_song(folder / "cover.mp4", cover=True)
    for name, content in (("empty.mp4", b""), ("text.mp4", b"no film"), ("nul.mkv", bytes(5000))):
        (folder / name).write_bytes(content)
        yield folder / name


class Worker:
    """The process that annotates; a new one takes the place of one that died."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def annotate(self, source: Path, target: Path) -> tuple[int, str]:
        """Return exit code and messages; -1 and a reason if the process died or hung."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, Path(__file__).with_name("fuzz_worker.py")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # libraries write past Python's own
                text=True,
                env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
            )
        process = self._process
        assert process.stdin
        assert process.stdout
        process.stdin.write(json.dumps({"source": str(source), "target": str(target)}) + "\n")
        process.stdin.flush()
        timer = threading.Timer(MOST_SECONDS, process.kill)
        timer.start()
        answer = process.stdout.readline()
        timer.cancel()
        if not answer:
            self.close()
            return -1, f"died or hung (exit code {process.returncode})"
        found = json.loads(answer)
        return found["code"], found["said"]

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


@pytest.mark.slow  # more than three hundred runs of annotate
@pytest.mark.timeout(600)
def test_damaged_files_end_with_a_result_or_one_line(tmp_path: Path) -> None:
    sources, targets = tmp_path / "in", tmp_path / "out"
    sources.mkdir()
    targets.mkdir()
    worker, codes = Worker(), Counter[int]()
    faults = []
    try:
        for source in hostile_files(sources):
            suffix = ".png" if source.suffix == ".png" else ".mp4"
            target = targets / f"{source.stem}{source.suffix.replace('.', '-')}{suffix}"
            code, said = worker.annotate(source, target)
            codes[code] += 1
            if fault := fault_of(code, said, target):
                faults.append(f"{source.name}: {fault}")
    finally:
        worker.close()
    assert not faults, "\n".join(faults)
    assert sum(codes.values()) >= 300
    # both kinds of end have to occur, or the damage was none
    assert min(codes[0], codes[3]) >= 30
    assert [path for path in targets.iterdir() if path.name.startswith(".")] == []


def fault_of(code: int, said: str, target: Path) -> str:
    """Say what is wrong with how a file ended; nothing if all is well."""
    lines = said.splitlines()
    if code not in ENDS:
        return f"exit code {code}: {said}"
    if "Traceback" in said or "unexpected" in said:
        return said
    if code and (len(lines) != 1 or not lines[0].startswith("error: ")):
        return f"not one line: {lines}"
    if code and target.exists():
        return "failed, but left a file"
    if not code:
        with av.open(str(target)) as result:
            frames = sum(1 for _ in result.decode(video=0))
        if not frames:
            return "a result without a frame"
    return ""
