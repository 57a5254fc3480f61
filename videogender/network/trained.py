"""What a weights file holds besides a network: a fine-tuned head, its classes, and its facts.

The tensors of a head stand beside the network's under `head.`. The metadata, all of them strings:

    task             gender (default), attribute, classifier or refeed
    labels           JSON list of the classes, in the order of the logits; 2 to 100
    column           what the labels were called in the training data
    recipe           how they were trained
    temperature      the task's logits are divided by it, from calibration on held-out faces
    gender_temperature   the same for gender heads in a file whose task is another
    form             of attribute heads: linear or tower       (written by `checkpoints.save`)
    level            of a refeed head: 0 to 5                  (written by `checkpoints.save`)
    share            of a refeed head: weight of the second look in the mean, 0 to 1; default 0.5

A file whose task is gender needs no head: the network's own gender heads answer. Where it has one
(`AttributeHeads` for female and male), that one answers in their place.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar, get_args

from torch import Tensor

from videogender.errors import ModelError
from videogender.network.attributes import (
    FORMS,
    TOWER_HIDDEN,
    AttributeHeads,
    Form,
    Head,
    LinearClassifier,
    RefeedHead,
)
from videogender.network.heads import AnchorNetwork

__all__ = [
    "GENDERS",
    "HEAD_PREFIX",
    "TASKS",
    "Task",
    "Trained",
    "describe_head",
    "empty_head",
    "read_facts",
]

Task = Literal["gender", "attribute", "classifier", "refeed"]
TASKS: tuple[Task, ...] = get_args(Task)
HEAD_PREFIX = "head."
GENDERS = ("female", "male")  # as the logits of gender heads
MOST_CLASSES = 100
LONGEST_LABEL = 60
RESERVED = "unsure"

T = TypeVar("T", bound=str)


@dataclass(frozen=True, slots=True)
class Facts:
    """The metadata of a file, checked.

    Attributes:
        task: what its head answers.
        labels: its classes in the order of the logits; empty if it has no head and no gender heads.
        column: what the classes were called in the training data, or empty.
        temperature: the head's logits are divided by it; without a head, the gender heads'.
        gender_temperature: the logits of the network's own gender heads are divided by it.
        share: weight of a second look in the mean of both, 0 to 1.
    """

    task: Task
    labels: tuple[str, ...]
    column: str
    temperature: float
    gender_temperature: float
    share: float


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """A weights file in full.

    Attributes:
        network: in evaluation mode, float32 on the CPU.
        head: the fine-tuned head, likewise, or None.
        facts: its metadata, checked.
        metadata: as they stand in the file.
        path: the file.
    """

    network: AnchorNetwork
    head: Head | None
    facts: Facts
    metadata: dict[str, str]
    path: Path


def read_facts(metadata: Mapping[str, str], path: Path, *, has_gender: bool) -> Facts:
    """Check the metadata of a file.

    Args:
        metadata: as they stand in the file, which nobody need trust.
        path: for messages.
        has_gender: whether the network has gender heads.

    Raises:
        ModelError: something in them is unknown, ill-formed or out of range.
    """
    task = _choice(metadata.get("task", "gender"), TASKS, "task", path)
    temperature = _number(metadata, "temperature", "1", (1e-3, 1e3), path)
    labels = _labels(metadata.get("labels"), path)
    if task == "gender":
        if labels not in ((), GENDERS):
            raise ModelError(f"{path}: its labels should be {list(GENDERS)}, as its task is gender")
        labels = GENDERS if has_gender or "form" in metadata else ()
    elif not labels:
        raise ModelError(f"{path}: its task is {task}, but its metadata name no labels")
    column = metadata.get("column", "")
    if not column.isprintable() or len(column) > LONGEST_LABEL:
        raise ModelError(f"{path}: its column is no printable name of {LONGEST_LABEL} letters")
    gender_default = str(temperature) if task == "gender" else "1"
    return Facts(
        task,
        labels,
        column,
        temperature,
        _number(metadata, "gender_temperature", gender_default, (1e-3, 1e3), path),
        _number(metadata, "share", "0.5", (0.0, 1.0), path),
    )


def empty_head(
    facts: Facts,
    state: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    network: AnchorNetwork,
    path: Path,
) -> Head | None:
    """Build the head that a file holds, for its tensors to be put into; None if it holds none.

    Args:
        facts: of `read_facts`.
        state: the head's tensors, without their prefix.
        metadata: of the file, for `form` and `level`.
        network: of the file.
        path: for messages.

    Raises:
        ModelError: the form or the level is unknown.
    """
    if facts.task == "gender" and not state and "form" not in metadata:
        return None
    classes = len(facts.labels)
    if facts.task == "classifier":
        return LinearClassifier(LinearClassifier.inputs_of(network), classes)
    if facts.task == "refeed":
        levels = tuple(str(level) for level in range(len(network.taps)))
        level = int(_choice(metadata.get("level", "nothing"), levels, "level", path))
        channels = network.tap_channels[level]
        return RefeedHead(channels, classes, level, _hidden(state.get("first.weight")))
    form: Form = _choice(metadata.get("form", "nothing"), FORMS, "form", path)
    hidden = _hidden(state.get("levels.0.weight"))
    return AttributeHeads(network.tap_channels, classes or len(GENDERS), form, hidden)


def describe_head(head: Head | None) -> dict[str, str]:
    """Return the metadata by which `empty_head` builds the same head again."""
    if isinstance(head, AttributeHeads):
        return {"form": head.form}
    return {"level": str(head.level)} if isinstance(head, RefeedHead) else {}


def _hidden(first: Tensor | None) -> int:
    """Return how many channels a tower's first layer gives, as far as its tensor can be one."""
    return len(first) if first is not None and first.ndim == 4 and len(first) else TOWER_HIDDEN


def _labels(text: str | None, path: Path) -> tuple[str, ...]:
    if text is None:
        return ()
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: its labels are no JSON list") from error
    if not isinstance(found, list) or not 2 <= len(found) <= MOST_CLASSES:
        raise ModelError(f"{path}: its labels should be a JSON list of 2 to {MOST_CLASSES} names")
    for label in found:
        good = isinstance(label, str) and label.strip() and label.isprintable()
        if not good or len(label) > LONGEST_LABEL or label == RESERVED:
            raise ModelError(
                f"{path}: {str(label)[:LONGEST_LABEL]!r} is no label: expected printable text of "
                f"at most {LONGEST_LABEL} letters, other than {RESERVED!r}"
            )
    if len(set(found)) < len(found):
        raise ModelError(f"{path}: its labels name a class twice")
    return tuple(found)


def _number(
    metadata: Mapping[str, str], key: str, default: str, least_most: tuple[float, float], path: Path
) -> float:
    text, (least, most) = metadata.get(key, default), least_most
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not least <= value <= most:
        raise ModelError(
            f"{path}: its {key} is {text[:40]!r}, expected a number of {least:g} to {most:g}"
        )
    return value


def _choice(found: str, allowed: tuple[T, ...], key: str, path: Path) -> T:
    for one in allowed:
        if one == found:
            return one
    raise ModelError(
        f"{path}: its metadata give {found[:40]!r} as {key}, expected one of {', '.join(allowed)}"
    )
