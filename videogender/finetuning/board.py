"""Event files for TensorBoard: a point an epoch."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from videogender.errors import ConfigError

__all__ = ["Board"]


class Board:
    """Writes what epochs come to.

    Args:
        folder: gets the event files.

    Raises:
        ConfigError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            tensorboard: Any = import_module("torch.utils.tensorboard")
        except ImportError as error:
            raise ConfigError(
                "tensorboard is not installed: pip install 'videogender[tensorboard]'"
            ) from error
        self._writer: Any = tensorboard.SummaryWriter(str(folder))

    def add(self, row: dict[str, Any]) -> None:
        """Add the figures of an epoch."""
        for name, value in row.items():
            if name not in ("epoch", "step"):
                self._writer.add_scalar(name, value, row["epoch"])
        self._writer.flush()
