"""Validates a run's averaged weights, keeps the best, and finishes them for use."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from videogender.evaluation.gender import SMALLEST, fit_temperature
from videogender.evaluation.mixing import LEAST_ANSWERS, fit_gender_mix
from videogender.evaluation.validation import (
    CRITERION,
    Validation,
    ValidationData,
    gender_answers,
    validate,
)
from videogender.network import checkpoints
from videogender.network.heads import AnchorNetwork
from videogender.training.digest import digest_of
from videogender.training.ranges import ranges_in
from videogender.training.run_folder import RunFolder

HARDLY = 0.1  # of the second stage's weight: a first stage's that is less counts as none
CHOSEN_BY = "chosen_by"  # metadata of the best weights: `digest_of` the validation data

__all__ = ["Keeper"]


class Keeper:
    """Keeps the weights that validate best (`evaluation.validation.CRITERION`).

    Args:
        folder: of the run; a best that is there already, and was chosen by the same data, is the
            one to beat.
        data: what to validate on.
        device: where to do so.
        facts: recorded in the weights.
        tell: told of each validation, its step, and whether it is the best so far.

    Attributes:
        best: the score to beat.
        forgets: whether there is a best that was chosen by other data.
    """

    def __init__(
        self,
        folder: RunFolder,
        data: ValidationData,
        device: torch.device,
        facts: Mapping[str, str],
        tell: Callable[[Validation, int, bool], None] = lambda validation, step, best: None,
    ) -> None:
        self.folder, self.data, self.device = folder, data, device
        self.facts, self.tell = dict(facts), tell
        self._content = digest_of(data.scenes, data.portraits)
        score, chosen_by = self._stored()
        self.forgets = chosen_by != self._content
        self.best = -math.inf if self.forgets else score

    def __call__(self, network: AnchorNetwork, step: int) -> None:
        """Validate, and keep the weights if they are the best so far."""
        found = validate(network, self.data, self.device)
        is_best = found.score > self.best
        self.folder.log({"kind": "validation", "step": step, "best": is_best, **found.figures()})
        if is_best:
            self.best = found.score
            facts = {"steps": str(step), "score": repr(found.score), "criterion": CRITERION}
            facts[CHOSEN_BY] = self._content
            checkpoints.save(network, self.folder.best, {**self.facts, **facts})
        self.tell(found, step, is_best)

    def finish(self) -> tuple[Validation, float]:
        """Calibrate gender of the best weights and record their figures with them.

        Where there is a second stage, it is how both stages' answers are added that is fitted, else
        a temperature. Ranges are noted for computing in integers. The file itself is measured: fp16
        weights, in the precision that will be used.

        Returns:
            The figures, and the temperature by which its gender logits are to be divided.
        """
        network, metadata = checkpoints.load(self.folder.best)
        network.ranges = ranges_in(network, self.data.scenes, self.data.portraits)
        if network.second_stage is not None and network.has_gender:
            self._fit_mix(network)
        found = validate(network, self.data, self.device)
        enough = np.count_nonzero(~np.isnan(found.answers.female)) >= LEAST_ANSWERS
        temperature = fit_temperature(found.answers) if enough else 1.0
        found = found.tempered(temperature)
        figures = {
            key: value for key, value in found.figures().items() if key not in ("score", "best")
        }
        checkpoints.save(
            network,
            self.folder.best,
            {**metadata, "temperature": f"{temperature:.4f}", "figures": json.dumps(figures)},
        )
        return found, temperature

    def _fit_mix(self, network: AnchorNetwork) -> None:
        """Fit how the gender log-odds of both stages are added; few answers leave it as it is.

        Where those of the first stage would hardly count, they do not.
        """
        stage, odds = network.second_stage, []
        assert stage is not None
        as_it_was = stage.gender_mix.clone()
        for alone in ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0)):
            stage.gender_mix.copy_(torch.tensor(alone))
            answers = gender_answers(network, self.data, self.device)
            female = answers.female.clip(SMALLEST, 1 - SMALLEST)
            odds.append(np.log(female / (1 - female)))
        stage.gender_mix.copy_(as_it_was)
        first, second = odds
        mix = fit_gender_mix(first, second, answers.is_female)
        if mix and mix[0] < HARDLY * mix[1]:
            # what has no weight is not asked for, which takes a twentieth less time a frame
            mix = fit_gender_mix(np.zeros_like(first), second, answers.is_female)
        if mix:
            stage.gender_mix.copy_(torch.tensor(mix))

    def _stored(self) -> tuple[float, str]:
        """Return the score of the best weights so far, and the digest of what chose them."""
        try:
            with safe_open(self.folder.best, framework="pt") as file:
                facts = file.metadata() or {}
            # older files tell no digest
            return float(facts.get("score", "-inf")), facts.get(CHOSEN_BY, self._content)
        except (OSError, SafetensorError, ValueError):
            return -math.inf, self._content
