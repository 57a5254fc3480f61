"""Find faces in video and label presented gender, with an honest `unsure`.

Names are loaded when they are first used, so that `import videogender` costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from videogender.annotation import Progress, Summary, annotate
    from videogender.config import Settings, load_settings
    from videogender.detector import Detector
    from videogender.errors import VideogenderError
    from videogender.frames import Faces, Frame, Picture
    from videogender.pipeline import stream
    from videogender.sources import open_source

__version__ = "0.1.0"

__all__ = [
    "Detector",
    "Faces",
    "Frame",
    "Picture",
    "Progress",
    "Settings",
    "Summary",
    "VideogenderError",
    "annotate",
    "load_settings",
    "open_source",
    "stream",
]

_HOMES = {
    "Detector": "detector",
    "Faces": "frames",
    "Frame": "frames",
    "Picture": "frames",
    "Progress": "annotation",
    "Settings": "config",
    "Summary": "annotation",
    "VideogenderError": "errors",
    "annotate": "annotation",
    "load_settings": "config",
    "open_source": "sources",
    "stream": "pipeline",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'videogender' has no attribute {name!r}")
    value: object = getattr(import_module(f"videogender.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
