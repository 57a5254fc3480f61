"""Training, validation and test sides that share no picture, no near-duplicate and no person."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from videogender.errors import ConfigError, TrainingError
from videogender.finetuning.datasets.likeness import alike_pairs
from videogender.finetuning.datasets.sample import SIDES, Labelled, Problem, Sample, Split

WAYS = ("auto", "person", "file", "given")

__all__ = ["WAYS", "split"]


def split(
    labelled: Labelled,
    *,
    val_share: float,
    test_share: float,
    seed: int,
    by: str = "auto",
    problems: list[Problem],
) -> Split:
    """Split so that each class has its share on each side, the same way for the same seed.

    What belongs together (a picture, its duplicates and near-duplicates, a person's pictures) goes
    to one side. Where the data has its own sides they are kept: training pictures that belong with
    one of validation or test are left out, and sides that the data lacks are cut from training.

    Args:
        labelled: the data.
        val_share: of faces, for choosing among weights; 0 for none.
        test_share: of faces, for the final figures; 0 for none.
        seed: of the draw.
        by: `person` keeps known persons together, `file` only pictures, `given` takes the data's
            own sides; `auto` takes the first of given, person and file that the data allows.
        problems: what is found wrong is added here; give `labelled.problems` to see it in the
            summary.

    Raises:
        ConfigError: if shares or `by` are out of range.
        TrainingError: if the data does not allow `by`, training would lack a class, or nothing is
            left for validation.
    """
    if by not in WAYS:
        raise ConfigError(f"split by {by!r}: expected one of {', '.join(WAYS)}")
    if not (0 <= val_share < 1 and 0 <= test_share < 1 and val_share + test_share < 1):
        raise ConfigError(
            f"shares of {val_share:g} and {test_share:g} leave nothing to train on; expected "
            "0 to 1 each, less than 1 together"
        )
    samples = labelled.samples
    by = _way(labelled, by)
    looks, together = _groups(labelled, problems)
    group = [(looks if by == "file" else together)[sample.path] for sample in samples]
    if by == "given":
        sides = _given_sides(samples, group, problems)
        shares = [share * (side not in sides) for side, share in ((1, val_share), (2, test_share))]
        rest = [i for i, side in enumerate(sides) if side == 0]
    else:
        sides, shares, rest = [0] * len(samples), [val_share, test_share], list(range(len(samples)))
    drawn = _draw([samples[i] for i in rest], [group[i] for i in rest], shares, seed)
    for i, side in zip(rest, drawn, strict=True):
        sides[i] = side
    train, val, test = (
        [s for s, at in zip(samples, sides, strict=True) if at == side] for side in range(3)
    )
    wanted = {0} | {side for side in sides if side > 0}
    wanted |= {side for side, share in ((1, val_share), (2, test_share)) if share > 0}
    _check_sides(labelled, (train, val, test), wanted, by, problems)
    alike = sum(size > 1 for size in Counter(looks.values()).values())
    return Split(train, val, test, by, alike, together)


def _way(labelled: Labelled, by: str) -> str:
    given = all(sample.side for sample in labelled.samples)
    persons = any(sample.person for sample in labelled.samples)
    if by == "auto":
        return "given" if given else "person" if persons else "file"
    if (by == "given" and not given) or (by == "person" and not persons):
        what = "sides of its own" if by == "given" else "persons"
        raise TrainingError(f"{labelled.name}: the data names no {what}, split it by file")
    return by


class _Sets:
    """Disjoint sets of integers that grow together."""

    def __init__(self, count: int) -> None:
        self._parent = list(range(count))

    def root(self, i: int) -> int:
        while self._parent[i] != i:
            self._parent[i] = i = self._parent[self._parent[i]]
        return i

    def join(self, a: int, b: int) -> None:
        self._parent[max(self.root(a), self.root(b))] = min(self.root(a), self.root(b))


def _groups(labelled: Labelled, problems: list[Problem]) -> tuple[dict[Path, int], dict[Path, int]]:
    """Return the group of each picture: of those that look alike, and of persons' as well."""
    samples = labelled.samples
    number = {path: i for i, path in enumerate(dict.fromkeys(s.path for s in samples))}
    on_picture: list[list[Sample]] = [[] for _ in number]
    for sample in samples:
        on_picture[number[sample.path]].append(sample)
    pictures = [labelled.pictures.get(path) for path in number]
    copies: dict[bytes, int] = {}
    pairs: list[tuple[int, int]] = []
    for i, picture in enumerate(pictures):
        if picture is not None and (first := copies.setdefault(picture.digest, i)) != i:
            pairs.append((first, i))
            text = f"the same file as {on_picture[first][0].where}"
            problems.append(Problem("duplicate-picture", text, on_picture[i][0].where))
    similar = alike_pairs([picture.print if picture else b"" for picture in pictures])
    pairs += [(int(a), int(b)) for a, b in similar]
    looks, together = _Sets(len(number)), _Sets(len(number))
    for a, b in pairs:
        looks.join(a, b)
        together.join(a, b)
    _note_contradictions(labelled, on_picture, pairs, problems)
    persons: dict[str, int] = {}
    for sample in samples:
        if sample.person is not None:
            at = number[sample.path]
            together.join(persons.setdefault(sample.person, at), at)
    return (
        {path: looks.root(i) for path, i in number.items()},
        {path: together.root(i) for path, i in number.items()},
    )


def _note_contradictions(
    labelled: Labelled,
    on_picture: list[list[Sample]],
    pairs: Iterable[tuple[int, int]],
    problems: list[Problem],
) -> None:
    """Note pictures of one face each that look alike and are labelled differently."""
    for a, b in sorted(set(pairs)):
        if len(on_picture[a]) == len(on_picture[b]) == 1:
            (one,), (other,) = on_picture[a], on_picture[b]
            if one.label != other.label:
                names = labelled.classes[other.label], labelled.classes[one.label]
                text = f"{names[0]}, but looks like {one.where}, which is {names[1]}"
                problems.append(Problem("alike-two-labels", text, other.where))


def _given_sides(samples: list[Sample], group: list[int], problems: list[Problem]) -> list[int]:
    """Return the data's sides (-1: left out), with what they have in common taken from training."""
    wanted = [SIDES.index(sample.side or "train") for sample in samples]
    last: dict[int, int] = {}
    first: dict[int, Sample] = {}
    for sample, g, side in zip(samples, group, wanted, strict=True):
        if side > last.get(g, -1):
            last[g], first[g] = side, sample
    sides = []
    for sample, g, side in zip(samples, group, wanted, strict=True):
        sides.append(side if side == last[g] else -1)
        if side != last[g]:
            other = first[g]
            same = sample.person is not None and sample.person == other.person
            what = "shows the same person as" if same else "belongs with"
            text = f"{what} {other.where} in {SIDES[last[g]]}; left out of {SIDES[side]}"
            problems.append(Problem("across-split", text, sample.where))
    return sides


def _draw(samples: list[Sample], group: list[int], held: list[float], seed: int) -> list[int]:
    """Deal groups out to sides so that each class comes close to its shares.

    `held` are the shares of validation and test.

    First every side gets a group of every class, training before validation before test, the
    rarest class first; then the largest group that is left goes where its classes lack most.
    """
    shares = np.array([1 - sum(held), *held])
    members: dict[int, list[int]] = {}
    for i, g in enumerate(group):
        members.setdefault(g, []).append(i)
    order = sorted(members)
    random.Random(seed).shuffle(order)
    classes = 1 + max((sample.label for sample in samples), default=0)
    counts = np.zeros((len(order), classes))
    for at, g in enumerate(order):
        np.add.at(counts[at], [samples[i].label for i in members[g]], 1)
    total = counts.sum(0)
    wanted = np.outer(shares, total)  # [3, C]
    has = np.zeros_like(wanted)
    side_of_group = np.full(len(order), -1)

    def put(at: int, side: int) -> None:
        side_of_group[at] = side
        has[side] += counts[at]

    for label in np.argsort(total, kind="stable"):
        for side in range(3):
            if shares[side] > 0 and has[side, label] == 0:
                free = np.flatnonzero((side_of_group < 0) & (counts[:, label] > 0))
                if len(free):
                    misfit = np.abs(counts[free, label] - wanted[side, label])
                    put(int(free[misfit.argmin()]), side)
    weight = 1 / np.maximum(total, 1) ** 2
    for at in np.argsort(-counts.sum(1), kind="stable"):
        if side_of_group[at] < 0:
            excess: NDArray[np.float64] = ((has - wanted) * counts[at] * weight).sum(1)
            excess[shares <= 0] = np.inf
            put(int(at), int(excess.argmin()))
    sides = [0] * len(samples)
    for at, g in enumerate(order):
        for i in members[g]:
            sides[i] = int(side_of_group[at])
    return sides


def _check_sides(
    labelled: Labelled,
    parts: tuple[list[Sample], ...],
    wanted: set[int],
    by: str,
    problems: list[Problem],
) -> None:
    everywhere = {sample.label for sample in labelled.samples}
    for at in sorted(wanted):
        side = SIDES[at]
        missing = sorted(everywhere - {sample.label for sample in parts[at]})
        if not missing:
            continue
        if side == "val" and not parts[at]:
            what = "persons; split by file" if by == "person" else "pictures"
            raise TrainingError(f"{labelled.name}: nothing is left for validation, too few {what}")
        names = ", ".join(labelled.classes[label] for label in missing[:5])
        if side == "train":
            raise TrainingError(f"{labelled.name}: nothing to train on is {names}")
        text = f"no face in {side} is {names}; too few persons or pictures of that class"
        problems.append(Problem("thin-side", text, labelled.name))
