"""Labelled faces from CSV files, folders, JSON Lines, YOLO and COCO exports, checked and split.

    labelled = read_labelled(Path("celebs"))
    sides = split(labelled, val_share=0.15, test_share=0.15, seed=0, problems=labelled.problems)
    print("\\n".join(summary_lines(labelled, sides)))

Every picture is decoded once while reading, so what can be read now can be read later.
"""

from __future__ import annotations

from videogender.dataset import read_rgb
from videogender.finetuning.datasets.check import read_labelled
from videogender.finetuning.datasets.sample import (
    Labelled,
    Picture,
    Problem,
    Sample,
    Split,
    raise_if,
)
from videogender.finetuning.datasets.splitting import split
from videogender.finetuning.datasets.summary import (
    content_key,
    problem_lines,
    summary,
    summary_lines,
)

__all__ = [
    "Labelled",
    "Picture",
    "Problem",
    "Sample",
    "Split",
    "content_key",
    "problem_lines",
    "raise_if",
    "read_labelled",
    "read_rgb",
    "split",
    "summary",
    "summary_lines",
]
