"""Whether the features have collapsed."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn


def feature_std(embeddings: Tensor) -> Tensor:
    """Return the mean std of normalised features times sqrt(dim): 1 is healthy, 0 collapsed."""
    unit = nn.functional.normalize(embeddings.detach().float(), dim=1)
    return cast(Tensor, unit.std(dim=0).mean() * unit.shape[1] ** 0.5)
