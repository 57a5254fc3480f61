"""Window: live pictures on the desktop, in tiles, with keys; through OpenCV."""

from __future__ import annotations

import math
import os
import socket
import sys
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from videogender.errors import ConfigError
from videogender.frames import Faces
from videogender.live.hud import draw_hud, draw_keys, draw_note
from videogender.live.stats import LiveControl, LiveStats
from videogender.live.tiling import Grid
from videogender.render import Canvas

__all__ = ["Window", "WindowControl", "load_opencv", "why_no_display"]

_TITLE = "videogender"
_LEAST_TILE_WH = (640, 480)
_STATS_SECONDS = 0.25
_KEYS_SHOWN_SECONDS = 8.0
_ESCAPE = 27
_FONTS = "/usr/share/fonts"


class WindowControl(LiveControl, Protocol):
    """What a window does to a run besides what every screen does."""

    @property
    def paused(self) -> bool:
        """Whether the user wants nothing to move."""

    def set_paused(self, value: bool) -> None:
        """Pause, or go on."""


def why_no_display() -> str | None:
    """Return why no window can be opened here, in a few words, or None if one can.

    OpenCV's windows end the whole program where there is no display, so this comes first.
    """
    if not sys.platform.startswith("linux"):
        return None
    display = os.environ.get("DISPLAY", "")
    if not display:
        return "there is no display (DISPLAY is not set)"
    host, _, rest = display.rpartition(":")
    number = rest.partition(".")[0]
    if not number.isdigit():
        return f"DISPLAY={display} names no display"
    if host in ("", "unix"):
        path = f"/tmp/.X11-unix/X{number}"
        # Servers listen at a path, at an abstract name of the same spelling, or at both.
        places: list[Any] = [(socket.AF_UNIX, path), (socket.AF_UNIX, f"\0{path}")]
    else:
        places = [(socket.AF_INET, (host, 6000 + int(number)))]
    for family, place in places:
        try:
            with socket.socket(family, socket.SOCK_STREAM) as connection:
                connection.settimeout(2.0)
                connection.connect(place)
            return None
        except OSError:
            continue
    return f"nothing answers at DISPLAY={display}"


def load_opencv() -> Any:
    """Load OpenCV with its windows, before anything loads libav.

    Both bring libraries of the X Window System along. With libav's first, OpenCV's windows link
    to a mixture of the two and hang for ever, so `videogender live` calls this before all else.

    Raises:
        ConfigError: OpenCV does not load, or comes too late.
    """
    if sys.platform.startswith("linux") and "av" in sys.modules and "cv2" not in sys.modules:
        raise ConfigError("no window: OpenCV has to be imported before av; import cv2 first")
    try:
        import cv2
    except ImportError as error:
        raise ConfigError(f"no window: OpenCV does not load ({error}); try --serve") from error
    # Its Qt complains aloud about a folder of fonts that it does not bring, and does not need.
    if not os.path.isdir(os.environ.get("QT_QPA_FONTDIR", "")):
        os.environ["QT_QPA_FONTDIR"] = _FONTS
    return cv2


class Window:
    """A screen on the desktop. Every call comes from one thread, the same that makes it.

    Keys: q or Esc ends the run, space pauses, s saves a still, h shows or hides the figures.
    """

    def __init__(self, control: WindowControl, *, hud: bool = True, stills: Path | None = None):
        """Open a window.

        Args:
            control: of the run that is shown.
            hud: show the figures from the beginning.
            stills: folder for stills; None takes the current one.

        Raises:
            ConfigError: there is no display, or OpenCV has no windows here.
        """
        why = why_no_display()
        if why is not None:
            raise ConfigError(f"no window: {why}; --no-display does without, --serve shows a page")
        cv2 = self._cv2 = load_opencv()
        self._control = control
        self._hud = hud
        self._folder = stills or Path()
        self._names = control.names
        self._newest: list[NDArray[np.uint8] | None] = [None] * len(self._names)
        self._grid: Grid | None = None
        self._whole = np.zeros((0, 0, 3), np.uint8)
        self._changed = True
        self._stats: list[LiveStats] = control.stats()
        self._stats_time = 0.0
        self._note = ("", 0.0)
        self._opened = time.monotonic()
        self._was_visible = False
        self._closed = False
        flags = cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | getattr(cv2, "WINDOW_GUI_NORMAL", 0)
        try:
            cv2.namedWindow(_TITLE, flags)
        except cv2.error as error:
            raise ConfigError(
                "no window: this OpenCV was built without them; install opencv-python, or use "
                "--serve"
            ) from error

    def wants(self, source: int) -> bool:
        """Tell whether pictures are looked at: not while they stand still."""
        return not self._control.paused

    def show(
        self, source: int, rgb: NDArray[np.uint8], faces: Faces, captured_seconds: float
    ) -> None:
        """Keep a picture for the next `poll`."""
        if self._newest[source] is None:
            self._grid = None  # its picture may be the largest
        self._newest[source] = rgb
        self._changed = True

    def poll(self) -> None:
        """Paint what has changed, and take in keys and the closing of the window."""
        if self._closed:
            return
        now = time.monotonic()
        if now - self._stats_time >= _STATS_SECONDS:
            self._stats_time, self._stats = now, self._control.stats()
            self._changed = True
        if self._changed:
            self._changed = False
            self._paint(now)
        self._press(self._cv2.pollKey() & 0xFF)
        visible = self._cv2.getWindowProperty(_TITLE, self._cv2.WND_PROP_VISIBLE) >= 1
        if self._was_visible and not visible:
            self._control.request_stop()
        self._was_visible = self._was_visible or visible

    def close(self) -> None:
        """Take the window down. May be called twice."""
        if not self._closed:
            self._closed = True
            self._cv2.destroyAllWindows()
            self._cv2.pollKey()

    def _paint(self, now: float) -> None:
        cv2 = self._cv2
        grid = self._grid = self._grid or self._fitting_grid()
        for position, (rgb, stats) in enumerate(zip(self._newest, self._stats, strict=True)):
            tile = grid.tile(self._whole, position)
            if rgb is None:
                tile[...] = 0
            else:
                grid.put(self._whole, position, rgb)
            self._write_on(Canvas.from_rgb(tile), stats)
        canvas = Canvas.from_rgb(self._whole)
        text, until = self._note
        if now < until:
            draw_keys(canvas, text)
        elif now - self._opened < _KEYS_SHOWN_SECONDS or self._control.paused:
            draw_keys(canvas)
        cv2.imshow(_TITLE, cv2.cvtColor(self._whole, cv2.COLOR_RGB2BGR))

    def _fitting_grid(self) -> Grid:
        """Lay out the tiles for the largest picture so far; the window changes only with them."""
        grid = Grid(len(self._names), _tile_wh([rgb for rgb in self._newest if rgb is not None]))
        width, height = grid.size_wh
        if self._whole.shape[:2] != (height, width):
            self._whole = np.zeros((height, width, 3), np.uint8)
            self._cv2.resizeWindow(_TITLE, *grid.window_wh)
        return grid

    def _write_on(self, tile: Canvas, stats: LiveStats) -> None:
        if self._control.paused:
            draw_note(tile, "paused")
        elif stats.state != "running":
            draw_note(tile, f"{stats.state}: {stats.message or stats.source}")
        if self._hud:
            draw_hud(tile, stats)

    def _press(self, key: int) -> None:
        if key in (ord("q"), ord("Q"), _ESCAPE):
            self._control.request_stop()
        elif key == ord(" "):
            self._control.set_paused(not self._control.paused)
        elif key in (ord("h"), ord("H")):
            self._hud = not self._hud
        elif key in (ord("s"), ord("S")):
            self._save_still()
        else:
            return
        self._changed = True

    def _save_still(self) -> None:
        """Write the newest pictures as PNG, in a thread: compressing takes a while."""
        moment = datetime.now().strftime("%Y%m%d-%H%M%S-%f")[:-3]
        saved = []
        for position, rgb in enumerate(self._newest, 1):
            if rgb is not None:
                number = f"-{position}" if len(self._newest) > 1 else ""
                path = self._folder / f"videogender-{moment}{number}.png"
                threading.Thread(target=_write_png, args=(path, rgb), daemon=True).start()
                saved.append(str(path))
        self._note = (f"saving {', '.join(saved) or 'nothing yet'}", time.monotonic() + 3)


def _tile_wh(pictures: list[NDArray[np.uint8]]) -> tuple[int, int]:
    """Return the size of the largest picture, grown where it is too small for a tile."""
    if not pictures:
        return _LEAST_TILE_WH
    height, width = max((rgb.shape[:2] for rgb in pictures), key=math.prod)
    grow = max(1.0, min(_LEAST_TILE_WH[0] / width, _LEAST_TILE_WH[1] / height))
    return round(grow * width), round(grow * height)


def _write_png(path: Path, rgb: NDArray[np.uint8]) -> None:
    from contextlib import suppress

    from PIL import Image

    from videogender.errors import OutputError
    from videogender.sinks.atomic import pending

    with suppress(OutputError, OSError), pending(path) as place:
        Image.fromarray(rgb).save(place, format="PNG", compress_level=3)
