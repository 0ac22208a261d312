"""The methods by name: one small final class each; losses and heads from lightly."""

from __future__ import annotations

from ecofm.errors import UsageError
from ecofm.pretrain.encoders import Encoder, Norm, use_group_norm
from ecofm.pretrain.method import Method, MethodConfig
from ecofm.pretrain.students import SimCLR, SimCLRConfig, VICReg, VICRegConfig
from ecofm.pretrain.teachers import (
    BYOL,
    DINO,
    BYOLConfig,
    DINOConfig,
    MoCo,
    MoCoConfig,
    MoCoV3,
    MoCoV3Config,
)
from ecofm.pretrain.years import ChangePreserving, ChangePreservingConfig

METHODS: dict[str, type[MethodConfig]] = {
    "simclr": SimCLRConfig,
    "moco": MoCoConfig,
    "moco_v3": MoCoV3Config,
    "byol": BYOLConfig,
    "vicreg": VICRegConfig,
    "dino": DINOConfig,
    "change_preserving": ChangePreservingConfig,
}


def method_name(config: MethodConfig) -> str:
    """Return the name that a method's config is chosen by; ValueError for the bare base class."""
    for name, kind in METHODS.items():
        if type(config) is kind:
            return name
    raise UsageError(f"{type(config).__name__} is no method; choose {' or '.join(METHODS)}.")


def build_method(config: MethodConfig, encoder: Encoder, *, distributed: bool = False) -> Method:
    """Return the method that a config stands for; raises ValueError for the bare base class.

    With `distributed`, what a loss compares is gathered from all processes.
    """
    method: Method
    if isinstance(config, SimCLRConfig):
        method = SimCLR(encoder, config, distributed)
    elif isinstance(config, VICRegConfig):
        method = VICReg(encoder, config, distributed)
    elif isinstance(config, MoCoConfig):
        method = MoCo(encoder, config, distributed)
    elif isinstance(config, MoCoV3Config):
        method = MoCoV3(encoder, config, distributed)
    elif isinstance(config, BYOLConfig):
        method = BYOL(encoder, config)
    elif isinstance(config, DINOConfig):
        method = DINO(encoder, config)
    elif isinstance(config, ChangePreservingConfig):
        method = ChangePreserving(encoder, config, distributed)
    else:
        method_name(config)
        raise AssertionError(config)
    if encoder.config.norm is Norm.group:
        use_group_norm(method)
    return method
