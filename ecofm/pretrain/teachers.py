"""Methods with a slow teacher: MoCo v2, MoCo v3, BYOL and DINO."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import final

import torch
from lightly.loss import DINOLoss, NegativeCosineSimilarity, NTXentLoss
from lightly.models.modules import MoCoProjectionHead
from lightly.models.modules.heads import BYOLPredictionHead, BYOLProjectionHead, DINOProjectionHead
from torch import Tensor, nn

from ecofm.pretrain.encoders import Encoder
from ecofm.pretrain.method import (
    Method,
    MethodConfig,
    Outcome,
    Same,
    Teacher,
    Views,
    full_precision,
    rise_to_one,
)


@dataclass(kw_only=True, slots=True)
class MoCoConfig(MethodConfig):
    """MoCo v2: negatives come from a queue, keys from a slow encoder (Chen et al. 2020b)."""

    temperature: float = 0.2
    """Softmax temperature of the contrast."""
    queue: int = 4096
    """Number of negatives that are remembered."""
    momentum: float = 0.99
    """Share of the slow encoder that stays at each step."""


@dataclass(kw_only=True, slots=True)
class MoCoV3Config(MethodConfig):
    """MoCo v3, for vision transformers: no queue, a predictor, both ways (Chen et al. 2021)."""

    temperature: float = 0.2
    """Softmax temperature of the contrast."""
    momentum: float = 0.99
    """Share of the slow encoder that stays at the first step; it rises to 1."""


@dataclass(kw_only=True, slots=True)
class BYOLConfig(MethodConfig):
    """BYOL: no negatives; a predictor follows a slow encoder (Grill et al. 2020)."""

    momentum: float = 0.99
    """Share of the slow encoder that stays at the first step; it rises to 1."""


@dataclass(kw_only=True, slots=True)
class DINOConfig(MethodConfig):
    """DINO: self-distillation with a centred, sharpened teacher (Caron et al. 2021)."""

    projection_dim: int = 256
    """Width of the bottleneck before the prototypes."""
    prototypes: int = 4096
    """Number of output dimensions that teacher and student agree on."""
    momentum: float = 0.996
    """Share of the slow encoder that stays at the first step; it rises to 1."""
    student_temperature: float = 0.1
    """Softmax temperature of the student."""
    teacher_temperature: float = 0.04
    """Softmax temperature of the teacher."""
    center_momentum: float = 0.9
    """Share of the teacher's centre that stays at each step."""


@final
class MoCo(Method):
    """MoCo v2 with lightly's queue; queue and slow encoder are part of the checkpoint."""

    def __init__(self, encoder: Encoder, config: MoCoConfig, distributed: bool) -> None:
        """Add the head, the slow encoder and the queue to an encoder."""
        super().__init__(encoder)
        self.head = MoCoProjectionHead(
            encoder.backbone_dim, config.hidden_dim, config.projection_dim
        )
        self.momentum = config.momentum
        self.teacher = Teacher(encoder, self.head)
        self.criterion = NTXentLoss(
            config.temperature,
            memory_bank_size=(config.queue, config.projection_dim),
            gather_distributed=distributed,
        )
        # lightly leaves its queue out of the state dict: a resumed run would see random negatives.
        self.criterion.memory_bank._non_persistent_buffers_set.clear()

    def forward(self, *views: Views, same: Same = None) -> Outcome:
        """Contrast the first view with the teacher's second one and with the queue."""
        features = self.encoder.encode(views[0])
        query = self.head(features).float()
        encode, project = self.teacher.encoder.encode, self.teacher.head
        with torch.no_grad():
            # Keys pass in another order, so that BatchNorm does not tell them from negatives.
            order = torch.randperm(len(views[1]), device=views[1].device)
            slow = encode(views[1][order])[torch.argsort(order)]
            keys = project(slow).float()
        with full_precision(query):
            return self.criterion(query, keys), features.detach(), slow

    def after_update(self, progress: float) -> None:
        """Let the slow encoder follow."""
        self.teacher.follow(self.encoder, self.head, self.momentum)


class Followed(Method):
    """A method whose teacher follows ever more slowly."""

    head: nn.Module
    teacher: Teacher
    momentum: float

    def after_update(self, progress: float) -> None:
        """Let the slow encoder follow."""
        momentum = rise_to_one(self.momentum, progress)
        self.teacher.follow(self.encoder, self.head, momentum)


class Predicting(Followed):
    """A predictor guesses the teacher's projection of the other view, both ways."""

    predictor: nn.Module
    criterion: nn.Module

    def forward(self, *views: Views, same: Same = None) -> Outcome:
        """Compare each view's guess with the teacher's projection of the other."""
        features = self.encoder.encode(torch.cat(views))
        guesses = self.predictor(self.head(features)).float().chunk(2)
        encode, project = self.teacher.encoder.encode, self.teacher.head
        with torch.no_grad():
            targets = project(encode(torch.cat(views))).float().chunk(2)
        with full_precision(guesses[0]):
            first = self.criterion(guesses[0], targets[1])
            second = self.criterion(guesses[1], targets[0])
        return ((first + second) / 2, *features.detach().chunk(2))


@final
class MoCoV3(Predicting):
    """MoCo v3 with a frozen patch projection where the backbone is a vision transformer."""

    def __init__(self, encoder: Encoder, config: MoCoV3Config, distributed: bool) -> None:
        """Add head, predictor and the slow encoder to an encoder."""
        super().__init__(encoder)
        hidden, dim = config.hidden_dim, config.projection_dim
        self.head = MoCoProjectionHead(
            encoder.backbone_dim, hidden, dim, num_layers=3, batch_norm=True
        )
        self.predictor = MoCoProjectionHead(dim, hidden, dim, num_layers=2, batch_norm=True)
        patches = getattr(encoder.backbone, "patch_embed", None)
        if isinstance(patches, nn.Module):
            patches.requires_grad_(False)  # section 4.1: trained, it makes the loss jump
        self.momentum = config.momentum
        self.teacher = Teacher(encoder, self.head)
        self.criterion = NTXentLoss(config.temperature, gather_distributed=distributed)


@final
class BYOL(Predicting):
    """BYOL with lightly's heads and loss."""

    def __init__(self, encoder: Encoder, config: BYOLConfig) -> None:
        """Add head, predictor and the slow encoder to an encoder."""
        super().__init__(encoder)
        hidden, dim = config.hidden_dim, config.projection_dim
        self.head = BYOLProjectionHead(encoder.backbone_dim, hidden, dim)
        self.predictor = BYOLPredictionHead(dim, hidden, dim)
        self.momentum = config.momentum
        self.teacher = Teacher(encoder, self.head)
        self.criterion = NegativeCosineSimilarity()


@final
class DINO(Followed):
    """DINO with lightly's head and loss, on two global views."""

    def __init__(self, encoder: Encoder, config: DINOConfig) -> None:
        """Add the head and the slow encoder to an encoder."""
        super().__init__(encoder)
        self.head = _dino_head(encoder.backbone_dim, config)
        self.momentum = config.momentum
        self.teacher = Teacher(encoder, self.head)
        self.criterion = DINOLoss(
            config.prototypes,
            teacher_temp=config.teacher_temperature,
            student_temp=config.student_temperature,
            center_momentum=config.center_momentum,
        )

    def forward(self, *views: Views, same: Same = None) -> Outcome:
        """Predict the teacher's distribution over prototypes for the other view."""
        features = self.encoder.encode(torch.cat(views))
        encode, project = self.teacher.encoder.encode, self.teacher.head
        with torch.no_grad():
            slow = encode(torch.cat(views))
        with full_precision(features):
            guesses = list(self.head(features.float()).chunk(2))
            with torch.no_grad():
                targets: list[Tensor] = list(project(slow.float()).chunk(2))
            loss = self.criterion(targets, guesses)
        return (loss, *features.detach().chunk(2))


def _dino_head(dim: int, config: DINOConfig) -> DINOProjectionHead:
    with warnings.catch_warnings():
        # lightly still uses the weight_norm that torch deprecated, which cannot be copied.
        warnings.simplefilter("ignore", FutureWarning)
        head = DINOProjectionHead(
            dim, config.hidden_dim, config.projection_dim, config.prototypes, norm_last_layer=True
        )
        nn.utils.remove_weight_norm(head.last_layer)
    nn.utils.parametrizations.weight_norm(head.last_layer)
    norms = head.last_layer.parametrizations.weight.original0
    norms.data.fill_(1)
    norms.requires_grad_(False)
    return head
