"""Shared by all tests."""

from __future__ import annotations

import os

# the suite runs beside other work; two thread pools that compete are slower than one thread each
os.environ.setdefault("OMP_NUM_THREADS", "1")
