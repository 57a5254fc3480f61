"""The figures by which a network is chosen: faces found in scenes, gender told in both."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from videogender.config import DetectSettings
from videogender.dataset import Entry
from videogender.detector import Detector
from videogender.evaluation.detection import DetectionFigures, detect_all, evaluate_detection
from videogender.evaluation.gender import (
    GenderAnswers,
    GenderFigures,
    collect_answers,
    gender_figures,
)
from videogender.network.heads import AnchorNetwork

LONG_SIDE = 640
LEAST_SCORE = 0.02  # precision over recall needs the weak detections too
FACE_SCORE = 0.5  # gender is asked of faces that a user would see
LEAST_GENDER_PX = 24.0  # at the long side above; below, labels are often wrong
LEAST_AGE = 13.0  # gender is not plain to see in younger faces

CRITERION = "AP of faces >= 16 px + gender accuracy (portraits, or else scenes)"

__all__ = ["CRITERION", "Validation", "ValidationData", "gender_answers", "validate"]


@dataclass(frozen=True, slots=True)
class ValidationData:
    """Labelled pictures that nothing is learned from; either may be empty."""

    scenes: Sequence[Entry] = ()
    portraits: Sequence[Entry] = ()

    def __bool__(self) -> bool:
        return bool(self.scenes or self.portraits)


@dataclass(frozen=True, slots=True)
class Validation:
    """What `validate` found; None where there was no data for it.

    Attributes:
        tall: detection in the scenes, over faces of at least 16 px at a long side of 640.
        small: the same from 8 px.
        scenes: gender of scene faces of at least 24 px at that size.
        portraits: gender in portraits of ages from 13, or unknown.
        scene_answers, portrait_answers: what those two rest on.
    """

    tall: DetectionFigures | None
    small: DetectionFigures | None
    scenes: GenderFigures | None
    portraits: GenderFigures | None
    scene_answers: GenderAnswers
    portrait_answers: GenderAnswers

    @property
    def answers(self) -> GenderAnswers:
        """All answers on gender, for calibration."""
        return GenderAnswers.joined(self.scene_answers, self.portrait_answers)

    def tempered(self, temperature: float) -> Validation:
        """Return the figures as they are once gender logits are divided by a temperature."""
        scenes = self.scene_answers.tempered(temperature)
        portraits = self.portrait_answers.tempered(temperature)
        return replace(
            self,
            scenes=gender_figures(scenes) if self.scenes else None,
            portraits=gender_figures(portraits) if self.portraits else None,
            scene_answers=scenes,
            portrait_answers=portraits,
        )

    @property
    def score(self) -> float:
        """What the best weights are chosen by; see `CRITERION`."""
        found = self.tall.average_precision if self.tall else 0.0
        gender = next((g.accuracy for g in (self.portraits, self.scenes) if g and g.faces), 0.0)
        return found + (0.0 if math.isnan(gender) else gender)

    def figures(self) -> dict[str, Any]:
        """Return the figures as JSON holds them, rounded; what is not known is left out."""
        found: dict[str, Any] = {"score": self.score}
        if self.tall and self.small:
            found |= {
                "ap_16px": self.tall.average_precision,
                "ap_8px": self.small.average_precision,
                "recall_16px_at_tenth": self.tall.recall_at_tenth,
                "recall_16px_at_one": self.tall.recall_at_one,
                "faces_16px": self.tall.faces,
            }
        for name, gender in (("portraits", self.portraits), ("scenes", self.scenes)):
            if gender and gender.faces:
                found |= {
                    f"gender_{name}": gender.accuracy,
                    f"gender_{name}_interval": list(gender.interval),
                    f"gender_{name}_female": gender.accuracy_female,
                    f"gender_{name}_male": gender.accuracy_male,
                    f"gender_{name}_calibration_error": gender.calibration_error,
                    f"gender_{name}_found": gender.found,
                    f"gender_{name}_faces": gender.faces,
                }
        return {k: _rounded(v) for k, v in found.items() if not _unknown(v)}


def validate(
    network: AnchorNetwork,
    data: ValidationData,
    device: torch.device,
    temperature: float = 1.0,
    *,
    batch_size: int = 0,
) -> Validation:
    """Measure a network, which is left as it was.

    Args:
        network: on any device.
        data: what to measure on.
        device: where to run.
        temperature: gender logits are divided by it.
        batch_size: pictures a forward pass; 0 lets the detector decide.

    Raises:
        TrainingError: if a picture cannot be read.
    """
    settings = DetectSettings(
        long_side=LONG_SIDE, face_threshold=LEAST_SCORE, batch_size=batch_size
    )
    own = copy.deepcopy(network)  # the detector folds it
    detector = Detector(own, settings, device, temperature)
    nothing = collect_answers([])
    tall = small = scenes = portraits = None
    in_scenes = in_portraits = nothing
    if data.scenes:
        found = list(detect_all(detector, data.scenes))
        tall = evaluate_detection(found, 16.0, LONG_SIDE)
        small = evaluate_detection(found, 8.0, LONG_SIDE)
    if data.scenes and network.has_gender:
        answers = collect_answers(found, least_score=FACE_SCORE, at_long_side=LONG_SIDE)
        in_scenes = answers.select(answers.height >= LEAST_GENDER_PX)
        scenes = gender_figures(in_scenes)
    if data.portraits and network.has_gender:
        answers = collect_answers(detect_all(detector.at_threshold(FACE_SCORE), data.portraits))
        in_portraits = answers.select(np.isnan(answers.age) | (answers.age >= LEAST_AGE))
        portraits = gender_figures(in_portraits)
    return Validation(tall, small, scenes, portraits, in_scenes, in_portraits)


def gender_answers(
    network: AnchorNetwork, data: ValidationData, device: torch.device
) -> GenderAnswers:
    """Return what a network, left as it was, says of gender: the answers that `validate` judges."""
    settings = DetectSettings(long_side=LONG_SIDE, face_threshold=FACE_SCORE)
    detector = Detector(copy.deepcopy(network), settings, device)
    in_scenes = collect_answers(detect_all(detector, data.scenes), at_long_side=LONG_SIDE)
    in_portraits = collect_answers(detect_all(detector, data.portraits))
    return GenderAnswers.joined(
        in_scenes.select(in_scenes.height >= LEAST_GENDER_PX),
        in_portraits.select(np.isnan(in_portraits.age) | (in_portraits.age >= LEAST_AGE)),
    )


def _rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [_rounded(v) for v in value]
    return round(value, 4) if isinstance(value, float) else value


def _unknown(value: Any) -> bool:
    parts = value if isinstance(value, list) else [value]
    return any(isinstance(v, float) and math.isnan(v) for v in parts)
