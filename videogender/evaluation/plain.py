"""Figures as strict JSON holds them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

DIGITS = 4

__all__ = ["plain"]


def plain(value: Any) -> Any:
    """Return the value with floats rounded, NaN and infinity as None, tuples as lists."""
    if isinstance(value, float):
        return round(value, DIGITS) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    return value
