"""Configuration files: sections of settings, read from YAML, checked by rules and written back.

Nothing here knows a setting by name: which ones there are is told by frozen dataclasses, one that
groups the sections and one a section, whose fields carry a `Rule` (see `videogender.config`).
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast, get_type_hints

from videogender.errors import ConfigError, VideogenderError

if TYPE_CHECKING:
    import yaml

__all__ = ["Rule", "load", "override", "rule_in", "setting", "to_yaml"]

T = TypeVar("T")
S = TypeVar("S")  # a dataclass of sections


@dataclass(frozen=True, slots=True)
class Rule:
    """What a setting means and which values it takes.

    Attributes:
        help: one line for `--help` and for the comments of `videogender config show`.
        choices: the allowed words, or empty if the text is free.
        pattern: a regular expression of what is allowed besides the choices.
        form: how that is written in `--help` and messages, such as WIDTHxHEIGHT.
        least: smallest allowed number, or None if the setting is no number.
        most: largest allowed number, or None for an open end.
        or_zero: 0 is allowed although it lies outside the range.
        item: for a list of texts: checks one entry, which a file may give in another form, and
            returns its text; raises ConfigError.
        error: the class raised for a value outside; it decides the exit code.
    """

    help: str
    choices: tuple[str, ...] = ()
    pattern: str = ""
    form: str = ""
    least: float | None = None
    most: float | None = None
    or_zero: bool = False
    item: Callable[[object], str] | None = None
    error: type[VideogenderError] = ConfigError

    @property
    def words(self) -> tuple[str, ...]:
        """The choices, and how else a value may be written."""
        return (*self.choices, self.form) if self.form else self.choices

    def allowed(self) -> str:
        """Say what is allowed, e.g. `0 to 1` or `box, corners or none`."""
        if words := self.words:
            return f"{', '.join(words[:-1])} or {words[-1]}"
        if self.least is None:
            return ""
        ends = f"{self.least:g} " + ("or more" if self.most is None else f"to {self.most:g}")
        return f"0, or {ends}" if self.or_zero else ends

    def admits(self, value: object) -> bool:
        """Tell whether a value of the right type lies within the rule."""
        if isinstance(value, str):
            if not self.choices or value in self.choices:
                return True
            return bool(self.pattern and re.fullmatch(self.pattern, value))
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return True
        if self.or_zero and value == 0:
            return True
        least = -math.inf if self.least is None else self.least
        most = math.inf if self.most is None else self.most
        return math.isfinite(value) and least <= value <= most


def setting(default: T, help: str, **rule: Any) -> T:
    """Declare a field with its default and its rule."""
    return field(default=default, metadata={"rule": Rule(help, **rule)})


def load(path: str | Path, defaults: S) -> S:
    """Read a YAML configuration file; what it leaves out keeps its default.

    Args:
        path: the file.
        defaults: the settings without it.

    Raises:
        ConfigError: the file cannot be read, is not YAML, or holds an unknown or ill-typed key or
            a value out of range; the message names file, line and key.
        VideogenderError: another error that the rule of a setting names.
    """
    import yaml

    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path}: cannot read this file: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not a YAML file (it is not UTF-8 text)") from error
    try:
        found = list(_entries(text, str(path), defaults))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise ConfigError(f"{where}: not valid YAML: {error.problem or error.context}") from error
    except (yaml.YAMLError, ValueError) as error:
        message = " ".join(str(error).split())
        raise ConfigError(f"{path}: not valid YAML: {message}") from error
    settings = defaults
    seen: dict[str, str] = {}
    for key, value, where, item_places in found:
        if key in seen:
            raise ConfigError(f"{where}: {key} is set twice (first at {seen[key]})")
        seen[key] = where
        settings = _assign(settings, key, value, shown=key, where=where, item_places=item_places)
    return settings


def override(settings: S, overrides: Mapping[str, object], shown: Callable[[str], str]) -> S:
    """Return settings with some of them replaced.

    Args:
        settings: what holds where nothing overrides it.
        overrides: values by key, such as `{"detect.long_side": 416}`; None changes nothing.
        shown: gives the name of a key in messages.

    Raises:
        VideogenderError: as `load`.
    """
    for key, value in overrides.items():
        if value is not None:
            settings = _assign(settings, key, value, shown=shown(key))
    return settings


def to_yaml(settings: Any) -> str:
    """Write settings as a commented configuration file, which `load` reads back."""
    import yaml

    lines = []
    for section in fields(settings):
        lines.append(f"{section.name}:")
        values = getattr(settings, section.name)
        for entry in fields(values):
            value = getattr(values, entry.name)
            value = list(value) if isinstance(value, tuple) else value
            text = yaml.safe_dump({entry.name: value}, width=10_000).strip()
            rule = _rule(entry)
            allowed = rule.allowed()
            lines.append(f"  # {rule.help}{f' ({allowed})' if allowed else ''}")
            lines += [f"  {line}" for line in text.split("\n")]
    return "\n".join(lines) + "\n"


def rule_in(settings: Any, key: str) -> Rule:
    """Return the rule of a setting, e.g. of `detect.long_side`; KeyError if there is none.

    Args:
        settings: the settings, or their class.
        key: section and name.
    """
    section, _, name = key.partition(".")
    for entry in fields(_sections(settings)[section]):
        if entry.name == name:
            return _rule(entry)
    raise KeyError(key)


def _rule(entry: Field[Any]) -> Rule:
    return cast(Rule, entry.metadata["rule"])


def _sections(settings: Any) -> dict[str, Any]:
    return get_type_hints(settings if isinstance(settings, type) else type(settings))


def _keys(settings: Any) -> list[str]:
    sections = _sections(settings)
    return [f"{name}.{entry.name}" for name, kind in sections.items() for entry in fields(kind)]


class _Entry(NamedTuple):
    key: str
    value: object
    where: str  # `file:line`
    item_places: list[str]  # the same for each entry of a list


def _entries(text: str, path: str, settings: object) -> Iterator[_Entry]:
    """Yield the settings of a configuration file."""
    import yaml

    loader = yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
        for section, body in _pairs(loader, root, path, "the file"):
            name = str(loader.construct_object(section, deep=True))
            if name not in _sections(settings):
                raise ConfigError(f"{_place(path, section)}: {_unknown(name, settings)}")
            for key, value in _pairs(loader, body, path, name):
                inner = loader.construct_object(key, deep=True)
                items = value.value if isinstance(value, yaml.SequenceNode) else []
                yield _Entry(
                    f"{name}.{inner}",
                    loader.construct_object(value, deep=True),
                    _place(path, key),
                    [_place(path, item) for item in items],
                )
    finally:
        loader.dispose()


def _pairs(
    loader: yaml.SafeLoader, node: yaml.Node | None, path: str, name: str
) -> list[tuple[yaml.Node, yaml.Node]]:
    """Return the keys and values of a mapping; an empty node is an empty mapping."""
    import yaml

    if node is None or (isinstance(node, yaml.ScalarNode) and node.tag.endswith(":null")):
        return []
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError(f"{_place(path, node)}: {name} should hold `key: value` lines")
    return list(node.value)


def _place(path: str, node: yaml.Node) -> str:
    return f"{path}:{node.start_mark.line + 1}"


def _assign(
    settings: S,
    key: str,
    value: object,
    *,
    shown: str,
    where: str = "",
    item_places: Sequence[str] = (),
) -> S:
    """Replace one setting after checking its key, type and range."""
    prefix = f"{where}: " if where else ""
    section, _, name = key.partition(".")
    if key not in _keys(settings):
        raise ConfigError(f"{prefix}{_unknown(key, settings)}")
    group = getattr(settings, section)
    kind = get_type_hints(type(group))[name]
    rule = rule_in(settings, key)
    if rule.item is not None:
        value = _items(value, rule.item, shown, prefix, item_places)
    elif isinstance(value, int) and not isinstance(value, bool) and kind in (float, float | None):
        value = float(value)
    if not _is_a(value, kind):
        raise ConfigError(f"{prefix}{shown} should be {_describe(kind, rule)}, got {value!r}")
    if not rule.admits(value):
        raise rule.error(f"{prefix}{shown} should be {_describe(kind, rule)}, got {value!r}")
    changed = replace(group, **{name: value})
    return cast(S, replace(cast(Any, settings), **{section: changed}))


def _items(
    value: object,
    read: Callable[[object], str],
    shown: str,
    prefix: str,
    places: Sequence[str],
) -> tuple[str, ...]:
    """Check the entries of a list, each with a place of its own where it comes from a file."""
    if not isinstance(value, (list, tuple)):
        raise ConfigError(f"{prefix}{shown} should be a list, got {value!r}")
    texts = []
    for position, item in enumerate(value):
        try:
            texts.append(read(item))
        except ConfigError as error:
            before = f"{places[position]}: " if places else prefix
            raise ConfigError(f"{before}{shown}: {error}") from error
    return tuple(texts)


def _is_a(value: object, kind: Any) -> bool:
    if isinstance(value, tuple):
        return True  # of texts, checked one by one
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, kind)


def _describe(kind: Any, rule: Rule) -> str:
    names = {
        int: "a whole number",
        int | None: "a whole number or null",
        float: "a number",
        float | None: "a number or null",
        bool: "true or false",
    }
    allowed = rule.allowed()
    if kind in names:
        return f"{names[kind]}{f' ({allowed})' if allowed else ''}"
    return allowed or ("a text or null" if kind == str | None else "a text")


def _unknown(key: str, settings: object) -> str:
    """Say that a key is unknown and which one was probably meant."""
    keys, sections = _keys(settings), _sections(settings)
    # A key in the wrong section, or outside all of them, is as likely as a typing error.
    last = key.rpartition(".")[2]
    near = [known for known in keys if known.partition(".")[2] == last]
    near += difflib.get_close_matches(key, [*keys, *sections], 1, 0.6)
    short = {known.partition(".")[2]: known for known in keys}
    near += [short[match] for match in difflib.get_close_matches(last, short, 1, 0.6)]
    if near:
        return f"unknown key {key}; did you mean {near[0]}?"
    return f"unknown key {key}; the sections are {', '.join(sections)}"
