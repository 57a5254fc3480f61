"""Text that comes from outside and may be none, such as names of files."""

from __future__ import annotations

__all__ = ["printable"]


def printable(text: str) -> str:
    r"""Return text that every encoding of Unicode takes: what is none of it as `\udc80`."""
    return text.encode(errors="backslashreplace").decode()
