"""Settings as values by key: nested frozen dataclasses, read from YAML, flags and text.

Which settings there are is told by a dataclass whose fields carry a `Rule`; a field that is itself
such a dataclass groups the settings under it, as `loss.smoothing`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from videogender.config import Rule
from videogender.errors import ConfigError

__all__ = [
    "build",
    "checked",
    "differences",
    "flat",
    "keys",
    "read_recipe",
    "rule_of",
    "setting",
]

S = TypeVar("S")
T = TypeVar("T")


def setting(default: T, help: str, **rule: Any) -> T:
    """Declare a field with its default and its rule."""
    return field(default=default, metadata={"rule": Rule(help, **rule)})


def read_recipe(path: Path) -> dict[str, object]:
    """Read a YAML file of settings as values by key, such as `{"crops.aspect": 0.1}`.

    Raises:
        ConfigError: the file cannot be read or is not YAML; keys are checked by `checked`.
    """
    import yaml

    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot read this file: {error.strerror or error}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(found or {}, dict):
        raise ConfigError(f"{path}: should hold `key: value` lines")
    return dict(_flatten(found or {}))


def checked(
    kind: type,
    values: Mapping[str, object],
    base: Mapping[str, object] | None = None,
    source: str = "",
) -> dict[str, object]:
    """Check values and lay them over others.

    Args:
        kind: the dataclass that groups the settings.
        values: by key; a text where a number is due is read as YAML, as `--set` needs it.
        base: what holds otherwise, checked already.
        source: where the values are from, for messages.

    Returns:
        All values by key, for `build`.

    Raises:
        ConfigError: a key is unknown (the message names the nearest), or a value ill-typed or out
            of range.
    """
    known, prefix = keys(kind), f"{source}: " if source else ""
    result = dict(base or {})
    for key, value in values.items():
        if key not in known:
            near = [k for k in known if k.rpartition(".")[2] == key.rpartition(".")[2]]
            near += difflib.get_close_matches(key, known, 1, 0.5)
            hint = f"; did you mean {near[0]}?" if near else f"; known are {', '.join(known)}"
            raise ConfigError(f"{prefix}unknown key {key}{hint}")
        rule = rule_of(kind, key)
        good = _converted(value, known[key])
        if good is _WRONG or not all(rule.admits(v) for v in _parts(good)):
            allowed = f" ({rule.allowed()})" if rule.allowed() else ""
            raise ConfigError(
                f"{prefix}{key} should be {_name(known[key])}{allowed}, got {value!r}"
            )
        result[key] = good
    return result


def build(kind: type[S], values: Mapping[str, object]) -> S:
    """Build the settings from checked values by key; see `checked`."""
    own: dict[str, Any] = {k: v for k, v in values.items() if "." not in k}
    for name, inner in _groups(kind).items():
        prefix = f"{name}."
        own[name] = build(
            inner, {k.removeprefix(prefix): v for k, v in values.items() if k.startswith(prefix)}
        )
    return kind(**own)


def flat(settings: object) -> dict[str, object]:
    """Return all settings by key, tuples as lists, as JSON and YAML hold them."""
    found = {}
    for key in keys(type(settings)):
        value: Any = settings
        for name in key.split("."):
            value = getattr(value, name)
        found[key] = list(value) if isinstance(value, tuple) else value
    return found


def differences(one: Mapping[str, object], other: Mapping[str, object]) -> list[str]:
    """Say in which keys two flat settings differ, such as `batch 16, not 32`."""
    return [
        f"{key} {_plain(one[key])}, not {_plain(other[key])}"
        for key in one
        if key in other and _plain(one[key]) != _plain(other[key])
    ]


def keys(kind: type) -> dict[str, Any]:
    """Return the type of every setting by its key, inner ones as `crops.aspect`."""
    found: dict[str, Any] = {}
    groups = _groups(kind)
    for name, hint in get_type_hints(kind).items():
        if name in groups:
            found.update({f"{name}.{k}": inner for k, inner in keys(groups[name]).items()})
        else:
            found[name] = hint
    return found


def rule_of(kind: type, key: str) -> Rule:
    """Return the rule of a setting; KeyError if there is none."""
    section, _, name = key.rpartition(".")
    owner: Any = _groups(kind)[section] if section else kind
    rule: Rule = {f.name: f.metadata["rule"] for f in fields(owner) if f.metadata}[name]
    return rule


def _groups(kind: type) -> dict[str, type]:
    """Return the dataclasses that group settings within another, by field."""
    hints = get_type_hints(kind)
    return {k: hint for k, hint in hints.items() if isinstance(hint, type) and is_dataclass(hint)}


_WRONG = object()


def _flatten(values: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _converted(value: object, kind: Any) -> object:
    """Return the value as this type, or `_WRONG`."""
    if isinstance(value, str) and kind is not str:
        import yaml

        try:
            value = yaml.safe_load(value)
        except yaml.YAMLError:
            return _WRONG
        if isinstance(value, str):  # YAML 1.1 takes 1e-3, which has no dot, for a text
            try:
                value = float(value)
            except ValueError:
                return _WRONG
    if get_origin(kind) is tuple:
        inner = get_args(kind)
        if not isinstance(value, (list, tuple)) or not value:
            return _WRONG
        if inner[-1] is not Ellipsis and len(value) != len(inner):
            return _WRONG
        parts = tuple(_converted(v, inner[0]) for v in value)
        return _WRONG if _WRONG in parts else parts
    options = get_args(kind) or (kind,)
    if value is None and type(None) in options:
        return None
    if isinstance(value, int) and not isinstance(value, bool) and float in options:
        return float(value)
    return value if type(value) in options else _WRONG


def _parts(value: object) -> tuple[object, ...]:
    return value if isinstance(value, tuple) else (value,)


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _name(kind: Any) -> str:
    if get_origin(kind) is tuple:
        inner = get_args(kind)
        count = "a list of" if inner[-1] is Ellipsis else f"{len(inner)}"
        return f"{count} {'whole ' if inner[0] is int else ''}numbers"
    options = get_args(kind) or (kind,)
    names = {int: "a whole number", float: "a number", str: "a word", bool: "true or false"}
    return names[options[0]]
