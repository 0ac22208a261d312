"""Methods without a teacher: SimCLR and VICReg."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from lightly.loss import NTXentLoss, VICRegLoss
from lightly.models.modules import SimCLRProjectionHead
from lightly.models.modules.heads import VICRegProjectionHead
from torch import nn

from ecofm.pretrain.encoders import Encoder
from ecofm.pretrain.method import Method, MethodConfig, Outcome, Same, Views, full_precision


@dataclass(kw_only=True, slots=True)
class SimCLRConfig(MethodConfig):
    """SimCLR: negatives are the other samples of the batch (Chen et al. 2020)."""

    temperature: float = 0.2
    """Softmax temperature of the contrast."""


@dataclass(kw_only=True, slots=True)
class VICRegConfig(MethodConfig):
    """VICReg: no negatives; variance is kept and covariance removed (Bardes et al. 2022)."""

    projection_dim: int = 512
    """Dimensions in which the views are compared; VICReg wants many."""
    invariance: float = 25.0
    """Weight of the squared distance between the views."""
    variance: float = 25.0
    """Weight of the hinge that keeps each dimension's standard deviation above 1."""
    covariance: float = 1.0
    """Weight of the squared covariance between dimensions."""


class Siamese(Method):
    """One encoder and one head for both views; `criterion` compares what they project to."""

    head: nn.Module
    criterion: nn.Module

    def forward(self, *views: Views, same: Same = None) -> Outcome:
        """Compare the two views; both pass as one batch."""
        features = self.encoder.encode(torch.cat(views))
        first, second = self.head(features).float().chunk(2)
        with full_precision(first):
            loss = self.criterion(first, second)
        return (loss, *features.detach().chunk(2))


@final
class SimCLR(Siamese):
    """SimCLR with lightly's NT-Xent loss: the views are contrasted."""

    def __init__(self, encoder: Encoder, config: SimCLRConfig, distributed: bool) -> None:
        """Add the projection head to an encoder."""
        super().__init__(encoder)
        self.head = SimCLRProjectionHead(
            encoder.backbone_dim, config.hidden_dim, config.projection_dim
        )
        self.criterion = NTXentLoss(config.temperature, gather_distributed=distributed)


@final
class VICReg(Siamese):
    """VICReg with lightly's loss and head: dimensions are kept spread and apart."""

    def __init__(self, encoder: Encoder, config: VICRegConfig, distributed: bool) -> None:
        """Add the projection head to an encoder."""
        super().__init__(encoder)
        self.head = VICRegProjectionHead(
            encoder.backbone_dim, config.hidden_dim, config.projection_dim
        )
        self.criterion = VICRegLoss(
            config.invariance, config.variance, config.covariance, gather_distributed=distributed
        )
