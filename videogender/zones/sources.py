"""Which zones and lines hold for which of several sources that are watched at once."""

from __future__ import annotations

import re
from dataclasses import replace

from videogender.config import ZoneSettings
from videogender.errors import ConfigError
from videogender.text import printable

__all__ = ["of_source"]

# `door@2` is the zone `door` of the second source.
_OF_ONE = re.compile(r"(?P<name>.*\S)\s*@(?P<number>\d{1,4})")


def of_source(settings: ZoneSettings, number: int, count: int) -> ZoneSettings:
    """Return the zones and lines of one of several sources.

    They hold for every source, each counting for itself, unless their names end in `@N`: then for
    the N-th source alone, which knows them by what stands before. So `door@1` and `door@2` may lie
    in different places.

    Args:
        settings: of all sources.
        number: of the source, from 1.
        count: how many sources there are.

    Raises:
        ConfigError: a name asks for a source that there is not.
    """
    return replace(
        settings,
        zone=_kept(settings.zone, number, count),
        line=_kept(settings.line, number, count),
    )


def _kept(texts: tuple[str, ...], number: int, count: int) -> tuple[str, ...]:
    kept = []
    for text in map(printable, texts):
        name, _, points = text.partition(":")
        found = _OF_ONE.fullmatch(name)
        if found is None:
            kept.append(text)
            continue
        wanted = int(found["number"])
        if not 1 <= wanted <= count:
            there = "one source" if count == 1 else f"{count} sources"
            raise ConfigError(
                f"{name!r} is of source {wanted}, and there {'is' if count == 1 else 'are'} {there}"
            )
        if wanted == number:
            kept.append(f"{found['name']}:{points}")
    return tuple(kept)
