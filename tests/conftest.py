"""Shared by all tests."""

from __future__ import annotations

import os

import pytest

# the suite runs beside other work; two thread pools that compete are slower than one thread each
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture
def asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let large faces be as others are: drawn ones change when they are shrunk."""
    from videogender.network.lite import Lite

    monkeypatch.setattr(Lite, "large_face_px", None)
