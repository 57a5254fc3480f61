"""What the commands of `videogender eval` do before and beside measuring."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from videogender.config import DetectSettings, Settings, load_settings, with_overrides
from videogender.errors import ConfigError

if TYPE_CHECKING:
    from videogender.cli.eval_report import EvalReport
    from videogender.detector import Detector
    from videogender.evaluation.detection import FaceFinder
    from videogender.evaluation.labelled import Labelled
    from videogender.refine import RefinedDetector

__all__ = [
    "about_data",
    "all_finders",
    "at_scales",
    "check_count",
    "faces_that_count",
    "frame_bar",
    "load_detector",
    "read_data",
    "read_scales",
    "settings_of",
]


def settings_of(
    model: str | None,
    weights: str | None,
    device: str | None,
    precision: str | None,
    batch_size: int | None,
    threads: int | None,
    more: dict[str, object],
) -> Settings:
    """Return the defaults with the flags' values in their places."""
    given = {
        "detect.model": model,
        "detect.weights": weights,
        "detect.device": device,
        "detect.precision": precision,
        "detect.batch_size": batch_size,
        "detect.threads": threads,
        **more,
    }
    return with_overrides(load_settings(None), given, as_flags=True)


def read_scales(text: str | None) -> list[float]:
    """Read `0.5,1,2`."""
    if text is None:
        return [1.0]
    try:
        scales = [float(part) for part in text.split(",")]
    except ValueError:
        scales = []
    if not scales or not all(0.05 <= scale <= 8 for scale in scales):
        raise ConfigError(f"--scales should be numbers from 0.05 to 8, as 0.5,1,2, got {text!r}")
    return sorted(set(scales))


def check_count(flag: str, value: int, least: int) -> None:
    """Refuse a number that is too small."""
    if value < least:
        raise ConfigError(f"{flag} should be {least} or more, got {value}")


def read_data(data: Path, limit: int, aside: EvalReport) -> Labelled:
    """Read the pictures, or some of them, and say what is to be known about them."""
    from videogender.evaluation.labelled import evenly, read_labelled

    labelled = read_labelled(data)
    for note in labelled.notes:
        aside.note(f"{data}: {note}")
    return replace(labelled, entries=evenly(labelled.entries, limit))


def faces_that_count(labelled: Labelled) -> Iterator[dict[str, Any]]:
    """Yield the labelled faces that are not to be ignored."""
    for entry in labelled.entries:
        yield from (face for face in entry.faces if not face.get("ignore", False))


def load_detector(
    settings: DetectSettings, aside: EvalReport
) -> tuple[str, Detector | RefinedDetector]:
    """Return what we call our detector, and it."""
    from videogender.detector import Detector

    first = Detector.load(settings=settings)
    detector: Detector | RefinedDetector = first
    name = first.model_name
    if settings.weights:
        name += f" ({Path(settings.weights).name})"
    if settings.refine is not None:
        from videogender.refine import RefinedDetector

        detector = RefinedDetector.around(first, settings)
    aside.note(f"model: {detector.describe()}")
    return name, detector


def all_finders(
    settings: DetectSettings, peers: list[Path], least_score: float, aside: EvalReport
) -> list[tuple[str, Any]]:
    """Return our detector and the peers, with their names."""
    finders: list[tuple[str, Any]] = []
    if peers:
        from videogender.evaluation.peers.peer import Peer

        for file in peers:
            peer = Peer(
                file,
                long_side=settings.long_side,
                face_threshold=least_score,
                threads=settings.threads,
            )
            finders.append((peer.name, peer))
    name, detector = load_detector(replace(settings, face_threshold=least_score), aside)
    return [(name, detector), *finders]


def at_scales(finder: Any, scales: list[float], flip: bool) -> FaceFinder:
    """Wrap a detector so that it looks several times, if that is wanted."""
    from videogender.evaluation.scales import ManyScales

    plain: FaceFinder = finder
    return plain if scales == [1.0] and not flip else ManyScales(finder, scales, flip=flip)


def about_data(data: Path, labelled: Labelled, settings: DetectSettings) -> dict[str, Any]:
    """Describe what was measured, for JSON."""
    return {
        "data": str(data),
        "form": labelled.form,
        "images": len(labelled.entries),
        "model": settings.model,
        "weights": settings.weights,
        "long_side": settings.long_side,
    }


def frame_bar(aside: EvalReport, what: str) -> Any:
    """Return a progress that moves a bar, a step for each frame that is looked at."""
    from videogender.progress import Progress

    class _Bar(Progress):
        looked = False

        def start(self, job: Any, frames: int | None, position: int, count: int) -> None:
            self.step = aside.bar(what, frames)

        def look(self, faces: int) -> None:
            self.looked = True
            self.step()

        def advance(self, faces: int) -> None:
            if not self.looked:  # of two passes, the first takes all the time
                self.step()

    return _Bar()
