"""Features of labelled faces, kept so that the frozen trunk looks at each picture only once.

A bank is a folder: one raw file of patches a level, and who they are of. It is written beside its
name and gets it when it is complete, and it is read through memory maps unless it is small. What a
face yields depends on pictures, weights and settings alone, and the name is a digest of these.

    rows.npz       who each patch is of, best score first within a face and view
    level-N.f16    patches, half precision [rows, channels, cells, cells]
    bank.json      shapes, and how long it took
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from videogender.errors import OutputError
from videogender.weights_store import cache_dir

FORMAT = 2
STALE_SECONDS = 7 * 24 * 3600  # what a killed run left behind is kept for this long
LARGEST_HALF = 65504.0

__all__ = ["Bank", "BankWriter", "bank_folder", "drop_stale"]


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Whose patches there are, R rows of S faces in V views, in the order of faces and views.

    Attributes:
        level: int64 [R]; place: int64 [R], where a row's patch stands in its level's file.
        score: float32 [R], the anchor's face score; falls within a face and view.
        first: int64 [S · V + 1], where the rows of face s in view v begin: entry s · V + v.
    """

    level: NDArray[np.int64]
    place: NDArray[np.int64]
    score: NDArray[np.float32]
    first: NDArray[np.int64]


class Bank:
    """Patches of faces, as `BankWriter` left them.

    Args:
        folder: a finished bank.
        memory_mb: a bank of up to this size is read whole.
        device: where patches are wanted; a small bank lives there.

    Attributes:
        rows: whose patches there are.
        faces, views: how many; view 0 is the picture as `annotate` looks at it.
        boxes: float32 [S, 4], where each face was looked for or found, xyxy in pixels of its
            picture; NaN where it was not found.
        face_px: float32 [S, V], longer side of the face as the network saw it; NaN if it did not.
        extra: what else was noted, by name.
        seconds: what making it took.
        bytes: of all patches.
    """

    def __init__(self, folder: Path, memory_mb: int, device: torch.device) -> None:
        facts = json.loads((folder / "bank.json").read_text(encoding="utf-8"))
        self.folder, self.device = folder, device
        self.faces, self.views = int(facts["faces"]), int(facts["views"])
        self.seconds, self.bytes = float(facts["seconds"]), int(facts["bytes"])
        self.shapes: list[tuple[int, ...]] = [tuple(shape) for shape in facts["shapes"]]
        with np.load(folder / "rows.npz") as stored:
            self.rows = Rows(*(stored[name] for name in ("level", "place", "score", "first")))
            self.boxes, self.face_px = stored["boxes"], stored["face_px"]
            self.extra = {k[6:]: stored[k] for k in stored.files if k.startswith("extra_")}
        self._maps = [_mapped(folder, level, shape) for level, shape in enumerate(self.shapes)]
        self._held: list[Tensor] = []
        if self.bytes <= memory_mb * 2**20:
            self._held = [torch.from_numpy(np.array(m)).to(device) for m in self._maps]
        os.utime(folder)

    def count(self, face: NDArray[np.int64], view: NDArray[np.int64] | int) -> NDArray[np.int64]:
        """Return how many rows faces have in views [N]."""
        at = face * self.views + view
        rows: NDArray[np.int64] = self.rows.first[at + 1] - self.rows.first[at]
        return rows

    def patches(self, level: int, places: NDArray[np.int64]) -> Tensor:
        """Return patches of a level, float32 [N, C, p, p], on the bank's device."""
        if self._held:
            return self._held[level][torch.from_numpy(places).to(self.device)].float()
        return torch.from_numpy(self._maps[level][places]).to(self.device).float()


class BankWriter:
    """Writes a bank; leave its block without an error and it is there.

    Args:
        folder: where it shall be.
        faces, views: how many.
        shapes: (channels, cells, cells) of a patch, a level.

    Attributes:
        boxes, face_px, extra: see `Bank`; to be filled in.
    """

    def __init__(
        self, folder: Path, faces: int, views: int, shapes: Sequence[tuple[int, ...]]
    ) -> None:
        self.folder, self.faces, self.views, self.shapes = folder, faces, views, list(shapes)
        self.boxes = np.full((faces, 4), np.nan, np.float32)
        self.face_px = np.full((faces, views), np.nan, np.float32)
        self.extra: dict[str, NDArray[Any]] = {}
        self._temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
        self._rows: list[tuple[NDArray[Any], ...]] = []
        self._written = [0] * len(self.shapes)
        self._files: list[BinaryIO] = []
        self._stack = ExitStack()
        self._began = time.monotonic()

    def __enter__(self) -> Self:
        try:
            self._temporary.mkdir(parents=True, exist_ok=True)
            for level in range(len(self.shapes)):
                file = (self._temporary / f"level-{level}.f16").open("wb")
                self._files.append(self._stack.enter_context(file))
        except OSError as error:
            raise _cannot_write(self.folder, error) from error
        return self

    def add(self, level: int, face: Tensor, view: int, score: Tensor, patches: Tensor) -> None:
        """Append the patches [N, C, p, p] of faces [N] in a view."""
        # half precision ends at 65504; features of VGG stay far below
        half = patches.float().clamp(-LARGEST_HALF, LARGEST_HALF).half().cpu().numpy()
        if half.shape[1:] != self.shapes[level]:
            raise ValueError(f"patches {half.shape} at level {level}, not {self.shapes[level]}")
        try:
            self._files[level].write(np.ascontiguousarray(half).data)
        except OSError as error:
            raise _cannot_write(self.folder, error) from error
        n = len(half)
        place = np.arange(self._written[level], self._written[level] + n)
        key = face.cpu().numpy().astype(np.int64) * self.views + view
        strength = score.float().cpu().numpy()
        self._rows.append((key, np.full(n, level, np.int64), place, strength))
        self._written[level] += n

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._stack.close()
            if kind is None:
                self._finish()
        except OSError as failure:
            raise _cannot_write(self.folder, failure) from failure
        finally:
            shutil.rmtree(self._temporary, ignore_errors=True)

    def _finish(self) -> None:
        columns = [np.concatenate(column) for column in zip(*self._rows, strict=True)]
        key, level, place, score = columns or [np.zeros(0, np.int64)] * 4
        order = np.lexsort((-score, key))
        first = np.searchsorted(key[order], np.arange(self.faces * self.views + 1))
        arrays: dict[str, Any] = {
            "level": level[order],
            "place": place[order].astype(np.int64),
            "score": score[order].astype(np.float32),
            "first": first.astype(np.int64),
            "boxes": self.boxes,
            "face_px": self.face_px,
            **{f"extra_{name}": values for name, values in self.extra.items()},
        }
        np.savez(self._temporary / "rows.npz", **arrays)
        size = sum(n * int(np.prod(s)) * 2 for n, s in zip(self._written, self.shapes, strict=True))
        facts = {
            "format": FORMAT,
            "faces": self.faces,
            "views": self.views,
            "shapes": self.shapes,
            "bytes": size,
            "seconds": time.monotonic() - self._began,
        }
        (self._temporary / "bank.json").write_text(json.dumps(facts), encoding="utf-8")
        try:
            os.rename(self._temporary, self.folder)
        except OSError:
            if not self.folder.is_dir():  # else another process has made the same one meanwhile
                raise


def bank_folder(key: str) -> Path:
    """Return where the bank of a key lives, or would."""
    return cache_dir() / "features" / key


def drop_stale() -> None:
    """Delete banks that nobody opened for a week, and what half-made ones left."""
    with suppress(OSError):
        for folder in (cache_dir() / "features").iterdir():
            if time.time() - folder.stat().st_mtime > STALE_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)


def _mapped(folder: Path, level: int, shape: tuple[int, ...]) -> NDArray[np.float16]:
    path = folder / f"level-{level}.f16"
    rows = path.stat().st_size // 2 // int(np.prod(shape))
    if not rows:  # an empty file cannot be mapped
        return np.zeros((0, *shape), np.float16)
    return np.memmap(path, np.float16, "r", shape=(rows, *shape))


def _cannot_write(folder: Path, error: OSError) -> OutputError:
    if error.errno == errno.ENOSPC:
        return OutputError(
            f"{folder.parent}: the disk is full; make room, set VIDEOGENDER_CACHE to another "
            "folder, or keep less with --set features.scales=[1] or features.anchors=2"
        )
    return OutputError(f"{folder.parent}: cannot be written: {error.strerror or error}")
