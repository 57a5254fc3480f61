"""Areas: the zones and lines of one live source, counted by what was seen, not by guesses."""

from __future__ import annotations

import math
import threading
from typing import Any

from videogender.config import Settings
from videogender.frames import Faces
from videogender.live.capture import Captured
from videogender.live.looking import Look
from videogender.zones.figures import GROUPS, Tallies, Whereabouts
from videogender.zones.live import LiveZones, LooseZones
from videogender.zones.plan import Plan, plan_of
from videogender.zones.sources import of_source

__all__ = ["Areas", "areas_of"]

# A look counts for no longer than this: what happens while a stream stands still nobody knows.
_LONGEST_SECONDS = 10.0


class Areas:
    """Counts in the view's thread; any thread may ask what was counted.

    Between two looks boxes run ahead on their tracks. They may run too far, so faces are counted
    where they were found, and shown as what they were counted for.

    Attributes:
        beside: zones and lines that lie wholly beside the newest picture.
    """

    def __init__(self, settings: Settings, number: int, count: int) -> None:
        """Prepare to count.

        Args:
            settings: of the run.
            number: of the source, from 1.
            count: how many sources there are.

        Raises:
            ConfigError: two zones, or two lines, of this source have one name.
        """
        self._settings = settings
        self._shapes = of_source(settings.zones, number, count)
        plan = plan_of(self._shapes, (1, 1))
        self.is_empty = plan is None
        self.beside: list[str] = []
        self._lock = threading.Lock()
        self._take = -1
        self._looked_seconds = -math.inf
        self._zones: LiveZones | LooseZones | None = None
        self._now: list[dict[str, int]] = []

    def at(self, captured: Captured, faces: Faces, look: Look | None) -> Whereabouts | None:
        """Count what is known of a frame that is shown, and return who is where in it.

        Args:
            captured: the frame.
            faces: what is drawn on it.
            look: what the newest look found; None if nothing is known.

        Returns:
            None without zones.
        """
        if self.is_empty:
            return None
        with self._lock:
            zones = self._placed(captured)
            if isinstance(zones, LooseZones):
                where = zones.at(faces, captured.frame.pts_seconds or 0.0)
            else:
                if look is not None and look.seconds != self._looked_seconds:
                    self._looked_seconds = look.seconds
                    zones.at(look.faces, look.seconds)
                where = zones.where(faces)
            self._now = where.now(faces.labels(self._settings.label.unsure_below))
        return where

    def figures(self) -> dict[str, Any] | None:
        """Return the figures so far, of `videogender.zones`; None while no frame was counted."""
        with self._lock:
            if isinstance(self._zones, LiveZones):
                return self._zones.figures()
        happened = self.happened()
        return None if happened is None else happened.figures()

    def told(self, *, in_view: bool = True) -> dict[str, Any] | None:
        """Return the figures so far, with who is in each zone `now`.

        Args:
            in_view: the last frame is still to be seen; else nobody is there.
        """
        figures = self.figures()
        if figures is not None:
            for zone, now in zip(figures["zones"], self._now, strict=True):
                zone["now"] = now if in_view else dict.fromkeys(GROUPS, 0)
        return figures

    def happened(self) -> Tallies | None:
        """Return the counts under the labels of their moments, none of which ever falls."""
        with self._lock:
            return None if self._zones is None else self._zones.happened()

    def _placed(self, captured: Captured) -> LiveZones | LooseZones:
        if self._zones is not None and captured.take == self._take:
            return self._zones
        size_wh = (captured.frame.width, captured.frame.height)
        plan = plan_of(self._shapes, size_wh)
        assert plan is not None
        self._take, self.beside = captured.take, plan.outside(size_wh)
        if self._zones is None:
            self._zones = self._begun(plan)
        else:
            self._zones.place(plan)
        return self._zones

    def _begun(self, plan: Plan) -> LiveZones | LooseZones:
        unsure_below = self._settings.label.unsure_below
        if self._settings.track.label_by == "frame":
            return LooseZones(plan, unsure_below, longest_seconds=_LONGEST_SECONDS)
        return LiveZones(plan, unsure_below, longest_seconds=_LONGEST_SECONDS)


def areas_of(settings: Settings, count: int) -> list[Areas]:
    """Return the areas of each source.

    Args:
        settings: of the run.
        count: how many sources there are.

    Raises:
        ConfigError: a zone asks for a source that there is not, or two of a source have one name.
    """
    return [Areas(settings, number, count) for number in range(1, count + 1)]
