"""WIDER FACE as its authors hand it out: pictures by event, labels as text, levels as MATLAB files.

    WIDER_val/images/0--Parade/0_Parade_….jpg
    wider_face_split/wider_face_val_bbx_gt.txt
    eval_tools/ground_truth/wider_{face,easy,medium,hard}_val.mat

The last four files, from the authors' evaluation tools, say which faces count as easy, medium and
hard. They may lie anywhere below the folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from videogender.dataset import Entry
from videogender.errors import ConfigError, TrainingError
from videogender.evaluation.labelled import picture_size_wh
from videogender.evaluation.wider_protocol import LEVELS, OFFICIAL_BOXES

SPLIT = "wider_face_val_bbx_gt.txt"
INVALID = 7  # the field of a face's line that says that nobody could label it

Face = dict[str, Any]

__all__ = ["find_split", "read_wider"]


def find_split(folder: Path) -> Path | None:
    """Return the text file of labels below a folder, the validation part's if there is one."""
    usual = [folder / "wider_face_split" / SPLIT, folder / SPLIT]
    named = [path for path in usual if path.exists()]
    others = sorted(folder.glob("wider_face_split/*_bbx_gt.txt"))
    return next(iter(named + others), None)


def read_wider(split: Path, folder: Path) -> tuple[list[Entry], tuple[str, ...]]:
    """Read the labels, and the levels where they are given.

    Args:
        split: the text file.
        folder: where the pictures and the MATLAB files are looked for.

    Returns:
        the pictures, and notes for the user.

    Raises:
        TrainingError: if the text is not as it should be, or a picture is missing.
        ConfigError: if there are MATLAB files and nothing to read them with.
    """
    pictures = _picture_folder(split, folder)
    levels = _levels(folder)
    entries = []
    for name, faces in _read_text(split):
        boxes = _mark_levels(split, name, faces, levels) if levels is not None else len(faces)
        kept = [face for face in faces if face["box"][2] > face["box"][0] and _is_high(face)]
        width, height = picture_size_wh(pictures / name)
        more = {"source": name, OFFICIAL_BOXES: boxes}
        entries.append(Entry(pictures / name, width, height, kept, more))
    if not entries:
        raise TrainingError(f"{split}: lists no pictures")
    if levels is None:
        missing = "no wider_easy_val.mat here, so there are no official easy, medium, hard figures"
        return entries, (missing,)
    return entries, ()


def _is_high(face: Face) -> bool:
    return bool(face["box"][3] > face["box"][1])


def _picture_folder(split: Path, folder: Path) -> Path:
    part = split.name.removeprefix("wider_face_").removesuffix("_bbx_gt.txt")
    places = [folder / f"WIDER_{part}" / "images", folder / "images", folder]
    return next((place for place in places if place.is_dir()), folder)


def _read_text(split: Path) -> Iterator[tuple[str, list[Face]]]:
    """Yield each picture's name and its faces, in the order of the file."""
    try:
        lines = split.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(f"{split}: cannot be read as text ({error})") from error
    at = 0
    while at < len(lines):
        name = lines[at].strip()
        if not name:
            at += 1
            continue
        if not lines[at + 1 : at + 2] or not lines[at + 1].strip().isdigit():
            raise TrainingError(f"{split}:{at + 2}: expected the number of faces of {name}")
        count = int(lines[at + 1])
        # a picture without faces has one line of zeros all the same
        rows = range(at + 2, at + 2 + max(count, 1))
        faces = [_face(split, number + 1, lines[number : number + 1]) for number in rows]
        yield name, faces[:count]
        at = rows.stop


def _face(split: Path, number: int, line: list[str]) -> Face:
    try:
        fields = [int(float(text)) for text in line[0].split()]
        x, y, width, height = fields[:4]
    except (IndexError, ValueError) as error:
        raise TrainingError(f"{split}:{number}: expected x, y, width, height of a face") from error
    face: Face = {"box": [float(x), float(y), float(x + width), float(y + height)]}
    if fields[INVALID : INVALID + 1] == [1]:
        face["ignore"] = True
    return face


def _levels(folder: Path) -> dict[str, tuple[Any, dict[str, set[int]]]] | None:
    """Return, for each picture's name, its official boxes [N, 4] and the faces of each level."""
    files = {level: _below(folder, f"wider_{level}_val.mat") for level in ("face", *LEVELS)}
    if any(path is None for path in files.values()):
        return None
    try:
        loadmat = import_module("scipy.io").loadmat
    except ImportError as error:
        raise ConfigError(
            f"{files['easy']}: MATLAB files need scipy: pip install 'videogender[wider]'"
        ) from error
    try:
        tables = {level: loadmat(path) for level, path in files.items()}
        truth = tables["face"]
        result = {}
        for event, (folder_name,) in enumerate(truth["event_list"].reshape(-1, 1)):
            names = truth["file_list"][event, 0].ravel()
            for row, name in enumerate(names):
                boxes = np.asarray(truth["face_bbx_list"][event, 0].ravel()[row], np.float64)
                counted = {
                    level: set(
                        (tables[level]["gt_list"][event, 0].ravel()[row].ravel() - 1).tolist()
                    )
                    for level in LEVELS
                }
                result[f"{folder_name[0]}/{name[0]}.jpg"] = (boxes.reshape(-1, 4), counted)
    except Exception as error:  # scipy's own classes for faulty files are not public
        place = files["easy"]
        raise TrainingError(
            f"{place.parent if place else folder}: not the MATLAB files of WIDER FACE's "
            f"evaluation tools ({type(error).__name__}: {error})"
        ) from error
    return result


def _below(folder: Path, name: str) -> Path | None:
    for pattern in (name, f"*/{name}", f"*/*/{name}"):
        for path in sorted(folder.glob(pattern)):
            return path
    return None


def _mark_levels(
    split: Path,
    name: str,
    faces: list[Face],
    levels: dict[str, tuple[Any, dict[str, set[int]]]],
) -> int:
    """Give each face the easiest level that counts it; return how many boxes the files hold."""
    if name not in levels:
        raise TrainingError(f"{split}: {name} is not in the MATLAB files of the levels")
    boxes, counted = levels[name]
    # a picture without faces has one box of zeros there
    if len(boxes) != len(faces) and boxes.any():
        raise TrainingError(
            f"{split}: {name} has {len(faces)} faces, and {len(boxes)} in the MATLAB files"
        )
    for row, face in enumerate(faces):
        for level in reversed(LEVELS):
            if row in counted[level]:
                face["wider"] = level
    return len(boxes)
