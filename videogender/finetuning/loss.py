"""What fine-tuning minimises, an answer at a time; all take logits and divide by nothing."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from videogender.finetuning.settings import LossSettings

__all__ = ["answer_losses"]


def answer_losses(logits: Tensor, label: Tensor, settings: LossSettings) -> Tensor:
    """Return the loss [N] of each answer.

    `bce` is the seed's: softmax, then the mean of every class's binary cross-entropy; for two
    classes that equals `ce`. `focal` is arXiv 1708.02002. `mse` compares the softmax with one-hot
    labels, averaged over classes as the seed has it.

    Args:
        logits: float [N, C].
        label: int64 [N].
        settings: which loss.
    """
    classes = logits.shape[1]
    wanted = F.one_hot(label, classes).to(logits.dtype)
    wanted = wanted * (1 - settings.smoothing) + settings.smoothing / classes
    log_p = logits.log_softmax(1)
    if settings.name == "ce":
        return -(wanted * log_p).sum(1)
    if settings.name == "focal":
        return -(wanted * (1 - log_p.exp()).pow(settings.gamma) * log_p).sum(1)
    if settings.name == "mse":
        return (log_p.exp() - wanted).square().mean(1)
    return -(wanted * log_p + (1 - wanted) * _log_rest(logits)).mean(1)


def _log_rest(logits: Tensor) -> Tensor:
    """Return log(1 − p) [N, C] of the softmax: the log-probability of all other classes."""
    classes = logits.shape[1]
    own = torch.eye(classes, dtype=torch.bool, device=logits.device)
    others = logits[:, None, :].expand(-1, classes, -1).masked_fill(own, -torch.inf)
    return others.logsumexp(2) - logits.logsumexp(1, keepdim=True)
