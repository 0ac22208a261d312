"""Contrastive methods: one small final class each; losses, heads and momentum from lightly."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from jaxtyping import Float
from lightly.loss import NTXentLoss
from lightly.models.modules import MoCoProjectionHead, SimCLRProjectionHead
from lightly.models.utils import deactivate_requires_grad, update_momentum
from torch import Tensor, nn

from ecofm.pretrain.encoders import Encoder

Views = Float[Tensor, "batch band size size"]


@dataclass(kw_only=True, slots=True)
class MethodConfig:
    """What the contrastive methods share."""

    temperature: float = 0.2
    """Softmax temperature of the contrast."""
    hidden_dim: int = 512
    """Width of the projection head."""
    projection_dim: int = 128
    """Dimensions in which the contrast is made."""


@dataclass(kw_only=True, slots=True)
class SimCLRConfig(MethodConfig):
    """SimCLR: negatives are the other samples of the batch (Chen et al. 2020)."""


@dataclass(kw_only=True, slots=True)
class MoCoConfig(MethodConfig):
    """MoCo v2: negatives come from a queue, keys from a slow encoder (Chen et al. 2020b)."""

    queue: int = 4096
    """Number of negatives that are remembered."""
    momentum: float = 0.99
    """Share of the slow encoder that stays at each step."""


class SimCLR(nn.Module):
    """SimCLR with lightly's NT-Xent loss."""

    def __init__(self, encoder: Encoder, config: SimCLRConfig, distributed: bool) -> None:
        """Add the projection head to an encoder."""
        super().__init__()
        self.encoder = encoder
        self.head = SimCLRProjectionHead(
            encoder.backbone_dim, config.hidden_dim, config.projection_dim
        )
        self.criterion = NTXentLoss(config.temperature, gather_distributed=distributed)

    def forward(self, view0: Views, view1: Views) -> tuple[Tensor, Tensor]:
        """Return the loss and view 0's features (batch, backbone_dim)."""
        embeddings = self.encoder.encode(torch.cat([view0, view1]))
        first, second = self.head(embeddings).float().chunk(2)
        return self.criterion(first, second), embeddings[: len(view0)]


class MoCo(nn.Module):
    """MoCo v2 with lightly's queue; queue and slow encoder are part of the checkpoint."""

    def __init__(self, encoder: Encoder, config: MoCoConfig, distributed: bool) -> None:
        """Add heads, the slow encoder and the queue to an encoder."""
        super().__init__()
        self.encoder = encoder
        self.head = MoCoProjectionHead(
            encoder.backbone_dim, config.hidden_dim, config.projection_dim
        )
        self.momentum = config.momentum
        self.slow_encoder = copy.deepcopy(encoder)
        self.slow_head = copy.deepcopy(self.head)
        deactivate_requires_grad(self.slow_encoder)
        deactivate_requires_grad(self.slow_head)
        self.criterion = NTXentLoss(
            config.temperature,
            memory_bank_size=(config.queue, config.projection_dim),
            gather_distributed=distributed,
        )
        # lightly leaves its queue out of the state dict: a resumed run would see random negatives.
        bank = self.criterion.memory_bank
        bank._non_persistent_buffers_set.clear()

    def forward(self, view0: Views, view1: Views) -> tuple[Tensor, Tensor]:
        """Return the loss and view 0's features (batch, backbone_dim)."""
        update_momentum(self.encoder, self.slow_encoder, self.momentum)
        update_momentum(self.head, self.slow_head, self.momentum)
        embeddings = self.encoder.encode(view0)
        query = self.head(embeddings).float()
        with torch.no_grad():
            # Keys pass in another order, so that BatchNorm does not tell them from negatives.
            order = torch.randperm(len(view1), device=view1.device)
            keys = self.slow_head(self.slow_encoder.encode(view1[order])).float()
            keys = keys[torch.argsort(order)]
        return self.criterion(query, keys), embeddings


def build_method(
    config: MethodConfig, encoder: Encoder, *, distributed: bool = False
) -> SimCLR | MoCo:
    """Return the method that a config stands for; raises ValueError for the bare base class."""
    if isinstance(config, SimCLRConfig):
        return SimCLR(encoder, config, distributed)
    if isinstance(config, MoCoConfig):
        return MoCo(encoder, config, distributed)
    raise ValueError(f"{type(config).__name__} is no method; choose simclr or moco.")
