"""What every contrastive method is: an encoder, a loss over views, and what follows an update."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from lightly.models.utils import deactivate_requires_grad
from torch import Tensor, nn

from ecofm.errors import UsageError
from ecofm.pretrain.encoders import Encoder

Views = Float[Tensor, "batch band size size"]
Same = Bool[Tensor, " batch"] | None
Outcome = tuple[Tensor, Tensor, Tensor]
"""The loss, and the features (batch, backbone_dim) of a view of either tile of the pairs."""


@dataclass(kw_only=True, slots=True)
class MethodConfig:
    """What the methods share."""

    hidden_dim: int = 512
    """Width of the projection head."""
    projection_dim: int = 128
    """Dimensions in which the views are compared."""

    def __post_init__(self) -> None:
        """Raise ValueError for sizes, shares and weights that are none."""
        for name in (field.name for field in fields(self)):
            value = getattr(self, name)
            if isinstance(value, int):
                is_right, expected = value >= 1, "1 or more"
            elif "momentum" in name:
                is_right, expected = 0 <= value <= 1, "0 to 1"
            elif "temperature" in name:
                is_right, expected = 0 < value < math.inf, "more than 0"
            else:
                is_right, expected = 0 <= value < math.inf, "0 or more"
            if not is_right:
                raise UsageError(f"method.{name} is {value}, expected {expected}.")


class Method(nn.Module, ABC):
    """A loss over views. Everything that it remembers is a parameter or a persistent buffer."""

    sources: ClassVar[tuple[tuple[int, int], ...]] = ((0, 0), (1, 1))
    """For each view, the tile of the pair that it shows and the stream of its randomness."""
    needs_same: ClassVar[bool] = False
    """Whether the loss asks which pairs are one tile twice."""

    def __init__(self, encoder: Encoder) -> None:
        """Take the encoder that is trained."""
        super().__init__()
        self.encoder = encoder

    @abstractmethod
    def forward(self, *views: Views, same: Same = None) -> Outcome:
        """Return the loss of a batch and what the health of the features is judged by.

        `same` says which pairs are one tile twice; None stands for none of them.
        """

    def after_update(self, progress: float) -> None:
        """Move what follows the weights; `progress` runs from 0 to 1 over the schedule."""

    def subspaces(self) -> dict[str, nn.Linear]:
        """Return the linear parts of the features that are worth taking by themselves."""
        return {}


class Teacher(nn.Module):
    """A slow copy of an encoder and a head, which learns nothing itself."""

    def __init__(self, encoder: Encoder, head: nn.Module) -> None:
        """Copy both."""
        super().__init__()
        self.encoder = copy.deepcopy(encoder)
        self.head = copy.deepcopy(head)
        deactivate_requires_grad(self)

    def follow(self, encoder: Encoder, head: nn.Module, momentum: float) -> None:
        """Keep `momentum` of the own weights and take the rest from the others."""
        # In place: lightly's update replaces tensors, whose shards FSDP would then not find.
        with torch.no_grad():
            for slow, fast in ((self.encoder, encoder), (self.head, head)):
                for own, other in zip(slow.parameters(), fast.parameters(), strict=True):
                    own.lerp_(other, 1 - momentum)


def rise_to_one(momentum: float, progress: float) -> float:
    """Return a momentum that rises to 1 along half a cosine (BYOL, equation 5)."""
    return 1 - (1 - momentum) * (math.cos(math.pi * progress) + 1) / 2


@contextmanager
def full_precision(tensor: Tensor) -> Iterator[None]:
    """Compute in fp32: logits divided by a small temperature do not fit in bf16."""
    with torch.autocast(tensor.device.type, enabled=False):
        yield
