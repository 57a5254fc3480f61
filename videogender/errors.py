"""What can go wrong, as one tree.

    VideogenderError            exit code 1
    ├── ConfigError             2   a setting, flag or configuration file
    ├── SourceError             3   an input that is missing, empty or cannot be decoded
    ├── OutputError             4   a target that exists, cannot be written or has run full
    ├── ModelError              5   weights or a model name that cannot be used
    ├── DeviceError             6   an asked-for device that is not there
    └── TrainingError           7   data that cannot be trained on, or a loss that is not finite

A message says what was wrong, where, and what to do about it, in one line.
The command line adds 130 for Ctrl-C, 143 for SIGTERM (also where an error came after that) and 141
where nobody reads its standard output any more and nothing else was to be written; when several
inputs ran and some failed, it returns the code of the first failure.
"""

from __future__ import annotations

__all__ = [
    "ConfigError",
    "DeviceError",
    "ModelError",
    "OutputError",
    "SourceError",
    "TrainingError",
    "VideogenderError",
]


class VideogenderError(Exception):
    """Base of every error that videogender raises on purpose."""

    exit_code = 1


class ConfigError(VideogenderError):
    """A setting, flag or configuration file is unknown, ill-typed or out of range."""

    exit_code = 2


class SourceError(VideogenderError):
    """An input is missing, empty, or cannot be decoded."""

    exit_code = 3


class OutputError(VideogenderError):
    """A target exists already, cannot be written, or its disk is full."""

    exit_code = 4


class ModelError(VideogenderError):
    """Weights are corrupt, of the wrong shape, or of an unknown model."""

    exit_code = 5


class DeviceError(VideogenderError):
    """The device that was asked for is not available."""

    exit_code = 6


class TrainingError(VideogenderError):
    """Training data is unusable, or the loss is no longer finite."""

    exit_code = 7
