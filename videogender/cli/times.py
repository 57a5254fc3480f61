"""Times as the command line takes them: 1:02, 1m30 or 12.5."""

from __future__ import annotations

import re

from videogender.errors import ConfigError

__all__ = ["parse_time"]

# [HH:]MM:SS or plain seconds, with decimals.
_CLOCK = re.compile(r"(?:(?:(\d+):)?([0-5]?\d):)?(\d+(?:\.\d*)?|\.\d+)")
# 1h30m, 10m, 30s, 1.5m, 1m30.
_UNITS = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?")


def parse_time(text: str | None, flag: str) -> float | None:
    """Read seconds from `12.5`, `90s`, `1m30`, `1:02` or `01:02:03.5`.

    Raises:
        ConfigError: the text is of none of these forms; the message names the flag.
    """
    if text is None:
        return None
    given = text.strip().lower()
    clock = _CLOCK.fullmatch(given)
    if clock is not None and clock[2] is not None and float(clock[3]) >= 60:
        clock = None
    found = clock or _UNITS.fullmatch(given)
    if found is None or not any(found.groups()):
        raise ConfigError(f"{flag} should be a time such as 12.5, 90s, 1m30 or 1:02, got {text!r}")
    hours, minutes, seconds = (float(part or 0) for part in found.groups())
    return 3600 * hours + 60 * minutes + seconds
