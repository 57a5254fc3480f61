"""Times, shares and counts in words, as pages show them."""

from __future__ import annotations

import math

__all__ = ["UNKNOWN", "clock", "duration", "number", "percent", "plural", "sentence_case"]

# What stands where there is no value.
UNKNOWN = "\N{EN DASH}"


def clock(seconds: float | None, digits: int = 1) -> str:
    """Write a time in a video as players do: 1:02.5, or 1:02:03.5; a dash for None."""
    if seconds is None or not math.isfinite(seconds):
        return UNKNOWN
    ticks = round(abs(seconds) * 10**digits)
    whole, part = divmod(ticks, 10**digits)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    text = f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
    sign = "\N{MINUS SIGN}" if seconds < 0 and ticks else ""
    return f"{sign}{text}.{part:0{digits}}" if digits else f"{sign}{text}"


def duration(seconds: float | None) -> str:
    """Write how long something takes: 0.4 s, 12.4 s, 3 min 20 s, 1 h 02 min; a dash for None."""
    if seconds is None or not math.isfinite(seconds):
        return UNKNOWN
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02} min"


def percent(share: float | None, digits: int = 0) -> str:
    """Write a share of 1 in per cent; a dash for None and NaN."""
    if share is None or not math.isfinite(share):
        return UNKNOWN
    return f"{100 * share:.{digits}f} %"


def number(value: object, digits: int = 2) -> str:
    """Write a number with thousands set apart, other values as text; a dash for None and NaN."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return UNKNOWN
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.{digits}f}"


def plural(count: int, name: str) -> str:
    """Write a count with its noun: 1 face, 2,000 faces."""
    return f"{count:,} {name}{'' if count == 1 else 's'}"


def sentence_case(text: str) -> str:
    """Begin a text with a capital letter."""
    return text[:1].upper() + text[1:]
