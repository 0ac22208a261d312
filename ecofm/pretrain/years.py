"""Ours: a contrast with a sub-space that forgets season and colour, and one that keeps the year.

Views of one place in two periods that must be alike teach the encoder to forget change. Here they
must be alike in one linear sub-space of the features only; in another a view must be nearest to
the other view of its own tile, and the same place in another period is among the negatives. After
SeCo (Manas et al. 2021), with tiles that stand years apart in place of seasons.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from lightly.loss import NTXentLoss
from lightly.models.modules import SimCLRProjectionHead
from lightly.utils import dist
from torch import Tensor, nn

from ecofm.pretrain.encoders import Encoder
from ecofm.pretrain.method import Method, MethodConfig, Outcome, Same, Views, full_precision


@dataclass(kw_only=True, slots=True)
class ChangePreservingConfig(MethodConfig):
    """Change-preserving contrast: one sub-space across periods, one that tells them apart."""

    temperature: float = 0.2
    """Softmax temperature of both contrasts."""
    subspace_dim: int = 128
    """Dimensions of each sub-space."""
    years_weight: float = 1.0
    """Weight of the contrast that tells periods apart; that of the other is 1."""


@final
class ChangePreserving(Method):
    """A shared trunk, and two linear sub-spaces of it with a head each."""

    sources: ClassVar[tuple[tuple[int, int], ...]] = ((0, 0), (1, 1), (0, 3), (1, 4))
    needs_same: ClassVar[bool] = True

    def __init__(self, encoder: Encoder, config: ChangePreservingConfig, distributed: bool) -> None:
        """Add sub-spaces and heads to an encoder."""
        super().__init__(encoder)
        dim = config.subspace_dim
        self.invariant = nn.Linear(encoder.backbone_dim, dim)
        self.years = nn.Linear(encoder.backbone_dim, dim)
        self.invariant_head = SimCLRProjectionHead(dim, config.hidden_dim, config.projection_dim)
        self.years_head = SimCLRProjectionHead(dim, config.hidden_dim, config.projection_dim)
        self.criterion = NTXentLoss(config.temperature, gather_distributed=distributed)
        self.temperature = config.temperature
        self.years_weight = config.years_weight
        self.distributed = distributed

    def forward(self, *views: Views, same: Same = None) -> Outcome:
        """Contrast places across periods in one sub-space, and tiles in the other."""
        features = self.encoder.encode(torch.cat(views))
        places = self.invariant_head(self.invariant(features)).float().chunk(4)
        tiles = self.years_head(self.years(features)).float().chunk(4)
        with full_precision(features):
            across = self.criterion(places[0], places[1]) + self.criterion(places[2], places[3])
            apart = contrast_tiles(
                torch.stack(tiles), same, self.temperature, distributed=self.distributed
            )
            loss = across / 2 + self.years_weight * apart
        return (loss, *features.detach().chunk(4)[:2])

    def subspaces(self) -> dict[str, nn.Linear]:
        """Return `invariant`, which forgets the period, and `years`, which tells periods apart."""
        return {"invariant": self.invariant, "years": self.years}


def contrast_tiles(
    projections: Float[Tensor, "four batch dim"],
    same: Same,
    temperature: float,
    *,
    distributed: bool = False,
) -> Float[Tensor, ""]:
    """Return the loss that names the other view of a tile among all views.

    Views 0 and 2 show the first tile of a pair, views 1 and 3 the second one: the same place in
    another period, which is a negative, unless the pair is one tile twice (`same`). With
    `distributed`, the other processes' views are negatives too.
    """
    own = F.normalize(projections, dim=2)
    n_views, n, dim = own.shape
    everyone = torch.stack(dist.gather(own)) if distributed and dist.world_size() > 1 else own[None]
    # (view, process, sample): the order of the flattened columns.
    columns = everyone.transpose(0, 1).reshape(-1, dim)
    n_global = len(columns) // n_views
    rows = torch.arange(n, device=own.device) + (dist.rank() * n if distributed else 0)
    view = torch.arange(n_views, device=own.device)
    itself = (view[:, None] * n_global + rows).flatten()
    positive = (view.roll(2)[:, None] * n_global + rows).flatten()
    logits = own.reshape(-1, dim) @ columns.T / temperature
    logits = logits.scatter(1, itself[:, None], -torch.inf)
    if same is not None:
        for other in (1, 3):
            column = (view.roll(-other)[:, None] * n_global + rows).flatten()
            twice = torch.zeros_like(logits, dtype=torch.bool)
            twice = twice.scatter(1, column[:, None], same.repeat(n_views)[:, None])
            logits = logits.masked_fill(twice, -torch.inf)
    return F.cross_entropy(logits, positive)
