"""Tells whether data files still hold what they held."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from functools import cache

from videogender.dataset import Entry

__all__ = ["digest_of"]


def digest_of(*sets: Sequence[Entry]) -> str:
    """Return the SHA-256 of what sets of pictures say: places, sizes and faces, in their order."""
    real_path = cache(os.path.realpath)  # pictures share few folders
    found = hashlib.sha256()
    for entries in sets:
        for entry in entries:
            place = os.path.join(real_path(entry.path.parent), entry.path.name)
            line = [place, entry.width, entry.height, entry.faces]
            found.update(json.dumps(line, sort_keys=True).encode())
        found.update(b"\n")
    return found.hexdigest()
