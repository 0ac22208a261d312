"""SimCLR and MoCo: their parts come from lightly, their loss falls, their state is whole."""

from __future__ import annotations

import copy

import lightly.loss
import lightly.models.modules.heads
import pytest
import torch

from ecofm.pretrain.encoders import Encoder, EncoderConfig
from ecofm.pretrain.methods import (
    MethodConfig,
    MoCo,
    MoCoConfig,
    SimCLR,
    SimCLRConfig,
    build_method,
)
from ecofm.types import Contract

CONTRACT = Contract(
    bands=("red", "green", "blue"),
    dtype="uint8",
    units="digital number",
    scale=1.0,
    offset=0.0,
    valid_range=(0.0, 255.0),
    gsd_m=None,
    mean=(100.0,) * 3,
    std=(40.0,) * 3,
)
SMALL = {"hidden_dim": 16, "projection_dim": 8}
CONFIGS = [SimCLRConfig(**SMALL), MoCoConfig(**SMALL, queue=32, momentum=0.9)]


def build(config: MethodConfig) -> SimCLR | MoCo:
    torch.manual_seed(0)
    return build_method(config, Encoder(EncoderConfig(backbone="resnet10t", width=0.125), CONTRACT))


def views(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    view = torch.randn(8, 3, 32, 32, generator=random)
    return view, view + 0.1 * torch.randn(view.shape, generator=random)


@pytest.mark.parametrize("config", CONFIGS, ids=["simclr", "moco"])
def test_the_loss_falls_on_a_fixed_batch(config: MethodConfig) -> None:
    method = build(config)
    optimizer = torch.optim.AdamW((p for p in method.parameters() if p.requires_grad), lr=3e-3)
    bank = None
    if isinstance(method, MoCo):
        # A batch that stands in its own queue is its own negative: queue others, and keep those.
        for seed in range(1, 5):
            method(*views(seed))
        bank = method.criterion.memory_bank.bank.clone()
    losses = []
    for step in range(40):
        torch.manual_seed(step)
        loss, embeddings = method(*views())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if bank is not None:
            method.criterion.memory_bank.bank.copy_(bank)
    assert embeddings.shape == (8, method.encoder.backbone_dim)
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5]), losses


@pytest.mark.parametrize("config", CONFIGS, ids=["simclr", "moco"])
def test_loss_and_head_are_those_of_lightly(config: MethodConfig) -> None:
    method = build(config)
    assert isinstance(method.criterion, lightly.loss.NTXentLoss)
    assert type(method.head).__module__ == lightly.models.modules.heads.__name__
    assert method.criterion.temperature == config.temperature


def test_queue_and_slow_encoder_are_in_the_state() -> None:
    method = build(CONFIGS[1])
    method(*views())
    state = copy.deepcopy(method.state_dict())
    assert any(name.startswith("slow_encoder.") for name in state)
    assert any(name.startswith("slow_head.") for name in state)
    queue = {name: value for name, value in state.items() if "bank" in name}
    assert sorted(queue) == ["criterion.memory_bank.bank", "criterion.memory_bank.bank_ptr"]
    assert int(queue["criterion.memory_bank.bank_ptr"]) == 8

    torch.manual_seed(99)
    other = build_method(CONFIGS[1], Encoder(method.encoder.config, CONTRACT))
    other.load_state_dict(state)
    torch.manual_seed(1)
    expected, _ = method(*views(1))
    torch.manual_seed(1)
    found, _ = other(*views(1))
    assert torch.equal(found, expected)


def test_the_slow_encoder_follows_slowly_and_learns_nothing_itself() -> None:
    method = build(CONFIGS[1])
    assert isinstance(method, MoCo)
    slow = [p for part in (method.slow_encoder, method.slow_head) for p in part.parameters()]
    assert slow and not any(p.requires_grad for p in slow)
    weight = next(method.head.parameters())
    before = weight.detach().clone()
    with torch.no_grad():
        weight += 1
    method(*views())
    moved = next(method.slow_head.parameters()) - before
    assert torch.allclose(moved, torch.full_like(moved, 0.1), atol=1e-5)


def test_keys_enter_the_queue_in_the_order_of_their_queries() -> None:
    """The shuffle of the keys is undone, or positives would be other places."""
    method = build(CONFIGS[1]).eval()
    assert isinstance(method, MoCo)
    method(*views())
    with torch.no_grad():
        keys = method.slow_head(method.slow_encoder.encode(views()[1]))
    bank = method.criterion.memory_bank.bank
    assert torch.allclose(bank[:8], torch.nn.functional.normalize(keys), atol=1e-5)


def test_the_bare_base_is_no_method() -> None:
    with pytest.raises(ValueError, match="choose simclr or moco"):
        build(MethodConfig(**SMALL))
