"""From labels in anyone's spelling to classes in a fixed order."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

from videogender.dataset import GENDERS
from videogender.errors import TrainingError
from videogender.finetuning.datasets.rows import plain

MOST_CLASSES = 100

_FEMALE = frozenset({"f", "female", "females", "w", "woman", "women", "girl", "girls"})
_MALE = frozenset({"m", "male", "males", "man", "men", "boy", "boys"})
# beside genders these say that nobody knows; elsewhere they may be classes of their own
_UNSURE = frozenset({"unsure", "unknown", "uncertain", "face", "x", "u"})
_BLANK = frozenset({"", "nan", "n/a", "null", "?"})
_GENDER_COLUMNS = ("gender", "sex", "presentedgender", "perceivedgender", "apparentgender")
_FLAG_COLUMNS = {"female": 0, "isfemale": 0, "male": 1, "ismale": 1}
_YES, _NO = frozenset({"1", "true", "yes"}), frozenset({"0", "-1", "false", "no"})

__all__ = ["MOST_CLASSES", "Naming", "gender_meant", "is_gender_column", "name_classes"]


@dataclass(frozen=True, slots=True)
class Naming:
    """Which class each label is.

    Attributes:
        classes: names in order: (`female`, `male`) for genders, others sorted by name.
        index: from a label, as the data spells it, to its class; labels of no class are missing.
        notes: (kind, message) of what is odd about the labels as a whole.
    """

    classes: tuple[str, ...]
    index: dict[str, int]
    notes: list[tuple[str, str]] = field(default_factory=list)


def is_gender_column(column: str) -> bool:
    """Whether a column's name alone says that it holds genders."""
    return plain(column) in _GENDER_COLUMNS or plain(column) in _FLAG_COLUMNS


def gender_meant(label: str) -> str | None:
    """Return the gender that a label means, however it is spelt; None for any other."""
    side = _gender("", label.strip().casefold())
    return GENDERS[side] if side >= 0 else None


def name_classes(column: str, labels: Counter[str]) -> Naming:
    """Decide on the classes.

    Args:
        column: where the labels come from. A column `male` or `female` may hold 0 and 1; in one
            that is called `gender` these do not say who is who, and stay what they are.
        labels: how often each spelling occurs.

    Raises:
        TrainingError: if there are more than 100 classes; too few are for the caller to judge.
    """
    folded = {label: label.strip().casefold() for label in labels}
    known = {label: key for label, key in folded.items() if key not in _BLANK}
    gender = {label: side for label, key in known.items() if (side := _gender(column, key)) >= 0}
    rest = {key for label, key in known.items() if label not in gender}
    both = len(set(gender.values())) == 2
    if gender and (is_gender_column(column) or not rest or (both and rest <= _UNSURE)):
        return Naming(GENDERS, gender)
    naming = _by_name(known, labels)
    if is_gender_column(column) and len(naming.classes) > 1:
        which = " and ".join(naming.classes[:3])
        text = (
            f"{which} do not say who is female, so they stay names of a kind of their own; "
            "spell them female and male, or call the column `male` or `female`"
        )
        naming.notes.append(("ambiguous-gender", text))
    if len(naming.classes) > MOST_CLASSES:
        raise TrainingError(
            f"{column} holds {len(naming.classes)} different labels, at most {MOST_CLASSES} can be "
            "told apart; choose another with --label-column"
        )
    return naming


def _gender(column: str, key: str) -> int:
    """Return 0 for female, 1 for male, -1 for anything else."""
    flag = _FLAG_COLUMNS.get(plain(column))
    if flag is not None and key in _YES | _NO:
        return flag if key in _YES else 1 - flag
    return 0 if key in _FEMALE else 1 if key in _MALE else -1


def _by_name(known: dict[str, str], labels: Counter[str]) -> Naming:
    """Make a class of each label; spellings that differ in case or spaces alone are one."""
    spellings: dict[str, list[str]] = {}
    for label, key in sorted(known.items()):
        spellings.setdefault(key, []).append(label)
    names = {
        key: max(variants, key=lambda v: labels[v]).strip() for key, variants in spellings.items()
    }
    order = sorted(names, key=lambda key: names[key])
    naming = Naming(
        tuple(names[key] for key in order),
        {label: i for i, key in enumerate(order) for label in spellings[key]},
    )
    for key in order:
        variants = sorted({label.strip() for label in spellings[key]})
        if len(variants) > 1:
            naming.notes.append(("label-spelling", f"{' and '.join(variants)} are taken for one"))
    naming.notes.extend(("label-spelling", text) for text in _odd_ones(naming.classes))
    return naming


def _odd_ones(classes: tuple[str, ...]) -> list[str]:
    """Find names of a numbered series that are spelt unlike the rest, as `Celeb-2` by `Celeb_1`."""
    series: dict[str, dict[str, list[str]]] = {}
    for name in classes:
        pattern = re.sub(r"\d+", "0", name)
        if pattern != name:
            series.setdefault(plain(pattern), {}).setdefault(pattern, []).append(name)
    found = []
    for spellings in series.values():
        *others, usual = sorted(spellings.values(), key=len)
        if len(usual) > 1:
            found += [f"{n} is spelt unlike {usual[0]}" for names in others for n in names]
    return found
