"""LiveParts: the sources, outputs and screens of a live run, from its flags."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from videogender.config import Settings
from videogender.errors import ConfigError, OutputError

if TYPE_CHECKING:
    from videogender.cli.live_report import LiveReport
    from videogender.live.engine import Engine
    from videogender.live.stats import Screen
    from videogender.sinks.livelog import LiveLog
    from videogender.sinks.record import Recorder
    from videogender.sinks.rows import Stdout
    from videogender.sources.live import LiveSource

__all__ = ["TOKEN_VARIABLE", "LiveParts"]

TOKEN_VARIABLE = "VIDEOGENDER_TOKEN"


class LiveParts:
    """Turns flags into the parts of a run."""

    def __init__(self, settings: Settings, *, force: bool) -> None:
        self._settings = settings
        self._force = force
        self._keep: frozenset[str] = frozenset()  # real paths that no recording replaces

    def check(self, **flags: Any) -> None:
        """Refuse flags that say nothing without others."""
        if flags["record"] is None and (flags["record_raw"] or flags["segment"]):
            raise ConfigError("--record-raw and --segment go with --record FILE")
        if flags["interval"] and flags["json"] is None:
            raise ConfigError("--interval goes with --json FILE|-")
        if flags["token"] and flags["serve"] is None:
            raise ConfigError("--token goes with --serve [HOST:]PORT")
        if flags["record_raw"] and self._settings.render.blur:
            raise ConfigError(
                "--record-raw would keep the faces that --blur hides; leave one of them out"
            )

    def keep_apart(self, inputs: list[Path], json: str | None, record: str | None) -> None:
        """Refuse outputs that are inputs, each other, or there already; recorders know them."""
        kept = {os.path.realpath(path): "an input" for path in inputs}
        if json is not None and json != "-":
            _refuse(json, kept)
            self._check_new(json)
            kept[os.path.realpath(json)] = "the file of --json"
        if record is not None:
            _refuse(record, kept)
        self._keep = frozenset(kept)

    def _check_new(self, path: str) -> None:
        """Check a file that is opened only when all else is known to be right."""
        if os.path.lexists(path) and not self._force:
            raise OutputError(f"{path}: exists already; --force replaces it")
        if not Path(path).absolute().parent.is_dir():
            raise OutputError(f"{path}: the folder does not exist; make it first")

    def place(self, serve: str | None, token: str | None) -> tuple[str, int, str | None] | None:
        """Return host, port and token of the page, or None."""
        if serve is None:
            return None
        from videogender.sinks.web import generate_token, is_loopback, parse_serve

        host, port = parse_serve(serve)
        # Whoever puts a file's content there puts the end of its line there, too.
        token = token or os.environ.get(TOKEN_VARIABLE, "").strip() or None
        if token is None and not is_loopback(host):
            token = generate_token()
        return host, port, token

    def sources(
        self, cameras: list[str], urls: list[str], files: list[Path], *, loop: bool, drop: bool
    ) -> list[LiveSource]:
        """Check and return what is to be watched."""
        from videogender.sources.address import scheme_of

        for address in urls:  # a wrong one should be told before libav is loaded
            scheme_of(address)
        from videogender.sources.camera import CameraSource
        from videogender.sources.playback import Playback
        from videogender.sources.stream import StreamSource

        live = self._settings.live
        wide, _, high = live.size.partition("x")
        size_wh = (int(wide), int(high)) if high else None
        wanted = cameras or ([] if urls or files else ["0"])
        found: list[LiveSource] = []
        found += [CameraSource(name, size_wh=size_wh, fps=live.fps) for name in wanted]
        found += [StreamSource(each, timeout_seconds=live.timeout_seconds) for each in urls]
        found += [Playback(path, loop=loop, drop=drop) for path in files]
        return found

    def check_zones(self, sources: int) -> None:
        """Refuse zones and lines that cannot be counted, before the network is loaded."""
        from videogender.live.areas import areas_of
        from videogender.outputs import check_zones

        check_zones(self._settings)
        areas_of(self._settings, sources)

    def log(
        self, stack: ExitStack, target: str | None, interval: float, stdout: Stdout
    ) -> LiveLog | None:
        """Open the log, or return None; comes last, as it replaces what was there."""
        if target is None:
            return None
        from videogender.sinks.livelog import LiveLog

        return stack.enter_context(
            LiveLog(
                stdout.or_file(target),
                unsure_below=self._settings.label.unsure_below,
                interval_seconds=interval,
                follows=self._settings.track.label_by == "track",
            )
        )

    def recorders(
        self, path: str | None, sources: list[LiveSource], segment_seconds: float
    ) -> list[Recorder]:
        """Prepare a recorder a source, or none."""
        if path is None:
            return []
        from videogender.sinks.record import Recorder

        return [
            Recorder(
                path,
                self._settings.video,
                source=number if len(sources) > 1 else None,
                segment_seconds=segment_seconds,
                waits=source.waits,
                force=self._force,
                keep=self._keep,
            )
            for number, source in enumerate(sources, 1)
        ]

    def window(self, display: bool | None, *, has_page: bool) -> bool | str:
        """Tell whether to open a window, or why it cannot be; comes before libav is loaded."""
        if not (not has_page if display is None else display):
            return False
        from videogender.sinks.window import load_opencv, why_no_display

        why = why_no_display()
        if why is not None and display is None:
            return why
        if why is not None:
            raise ConfigError(f"--display: {why}; --serve PORT shows a page")
        load_opencv()
        return True

    def screens(
        self,
        engine: Engine,
        report: LiveReport,
        place: tuple[str, int, str | None] | None,
        *,
        window: bool | str,
    ) -> list[Screen]:
        """Open the screens that were asked for, or that there are."""
        screens: list[Screen] = []
        if place is not None:
            from videogender.sinks.web import WebScreen

            page = WebScreen(engine, *place)
            screens.append(page)
            report.note(f"page: {page.url}")
        if window is True:
            from videogender.sinks.window import Window

            screens.append(Window(engine, hud=self._settings.live.hud))
        elif window:
            report.note(f"no window: {window}; --serve PORT shows a page, Ctrl-C ends the run")
        if not screens:
            screens.append(report.status_line(engine))
        return screens


def _refuse(path: str, kept: dict[str, str]) -> None:
    """Refuse to write to a file, by its real path, that is something else already."""
    if (what := kept.get(os.path.realpath(path))) is not None:
        raise OutputError(f"{path}: is {what}; name another file")
