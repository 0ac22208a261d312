"""Likelihoods of comparisons given scores."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Floats = npt.NDArray[np.float64]


def davidson_loss(
    difference: Floats, counts: Floats, log_tie: float
) -> tuple[float, Floats, float]:
    """Return minus the mean log likelihood of comparisons, and its gradients.

    Bradley-Terry with ties (Davidson 1970): P(left) ~ exp(d/2), P(right) ~ exp(-d/2) and
    P(tie) ~ exp(log_tie), where d = score(left) - score(right).

    Args:
        difference: Score differences, shape (pair,).
        counts: Weights of left, right and tie of each pair, shape (pair, 3).
        log_tie: How readily people call two places equal.

    Returns:
        The loss, its gradient in `difference` (pair,), and its gradient in `log_tie`.
    """
    logits = np.stack([difference / 2, -difference / 2, np.full_like(difference, log_tie)], axis=1)
    logits -= logits.max(axis=1, keepdims=True)
    odds = np.exp(logits)
    probability = odds / odds.sum(axis=1, keepdims=True)
    total = counts.sum()
    loss = -float((counts * np.log(probability + 1e-300)).sum() / total)
    slope = (probability * counts.sum(axis=1, keepdims=True) - counts) / total
    return loss, (slope[:, 0] - slope[:, 1]) / 2, float(slope[:, 2].sum())


def davidson_loss_torch(
    difference: Float[Tensor, " pair"], counts: Float[Tensor, "pair 3"], log_tie: Tensor
) -> Tensor:
    """Return the same loss as `davidson_loss`, for fine-tuning with gradients by autograd."""
    logits = torch.stack([difference / 2, -difference / 2, log_tie.expand_as(difference)], dim=1)
    return -(counts * F.log_softmax(logits, dim=1)).sum() / counts.sum()
