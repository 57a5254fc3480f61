"""Markup that cannot be broken by what it shows: elements as values, text escaped on the way in."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

__all__ = ["Html", "Part", "join", "tag"]


class Html(str):
    """Text that is markup already; every other string is escaped before it is shown."""

    __slots__ = ()


Part = str | int | float | None
"""What an element may hold: markup, text, a number, or nothing."""

# Elements that HTML closes by itself. SVG is closed in full, which HTML's parser wants inside it.
_VOID = frozenset({"br", "col", "img", "input", "link", "meta"})


def tag(name: str, /, *parts: Part, **attributes: str | float | bool | None) -> Html:
    """Return an element.

    Args:
        name: of the element.
        parts: what it holds, in order.
        attributes: values by name. `class_` stands for `class`, `stroke_width` for
            `stroke-width`; True gives an attribute without a value, None and False give none.
    """
    shown = "".join(_attribute(key, value) for key, value in attributes.items())
    if name in _VOID:
        return Html(f"<{name}{shown}>")
    return Html(f"<{name}{shown}>{join(parts)}</{name}>")


def join(parts: Iterable[Part], between: str = "") -> Html:
    """Return parts one after the other, with markup between them."""
    return Html(between.join(_text(part) for part in parts))


def _text(part: Part) -> str:
    if isinstance(part, Html):
        return part
    if part is None:
        return ""
    return escape(_number(part) if isinstance(part, float) else str(part))


def _attribute(name: str, value: str | float | bool | None) -> str:
    if value is None or value is False:
        return ""
    name = name.rstrip("_").replace("_", "-")
    if value is True:
        return f" {name}"
    return f' {name}="{escape(_number(value) if isinstance(value, float) else str(value))}"'


def _number(value: float) -> str:
    """Write a number with as many digits as a pixel needs."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if value % 1 else f"{value:.0f}"
