"""Garbage collection that does not make live video stutter."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["quick_collections"]


@contextmanager
def quick_collections() -> Iterator[None]:
    """Let Python look for garbage only among what is made from now on.

    Where torch is loaded, a look at everything stops all threads for half a second. What is left
    to look at is little, so that Python does it often: closed sources do not pile up.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
