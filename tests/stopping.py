"""A progress that interrupts."""

from __future__ import annotations

from videogender.progress import Progress


class StopsAfter(Progress):
    """Presses Ctrl-C after some looks or frames."""

    def __init__(self, looks: int = -1, writes: int = -1) -> None:
        self.looks, self.writes = looks, writes

    def look(self, faces: int) -> None:
        self.looks -= 1
        if self.looks == 0:
            raise KeyboardInterrupt

    def advance(self, faces: int) -> None:
        self.writes -= 1
        if self.writes == 0:
            raise KeyboardInterrupt
