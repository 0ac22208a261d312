"""The small runs that benchmarks compare: one encoder, batch and views for all of their arms."""

from __future__ import annotations

from typing import Any

from ecofm.pretrain.encoders import EncoderConfig, Normalization, Pooling
from ecofm.pretrain.run import PretrainConfig, RunConfig
from ecofm.pretrain.students import SimCLRConfig
from ecofm.pretrain.views import ViewConfig

BATCH, VIEW_PX = 32, 48


def build_config(
    seed: int,
    steps: int,
    changes: dict[str, Any],
    normalization: Normalization = Normalization.archive,
) -> PretrainConfig:
    """Return the config of an arm, which differs from SimCLR by `changes` only."""
    fields: dict[str, Any] = {
        "steps": steps,
        "batch_size": BATCH,
        "seed": seed,
        "views": ViewConfig(size_px=VIEW_PX),
        "method": SimCLRConfig(),
        "encoder": EncoderConfig(
            backbone="resnet10t", width=0.5, normalization=normalization,
            pooling=Pooling.stages, words=0,
        ),
    }  # fmt: skip
    return PretrainConfig(**(fields | changes))


def run_config() -> RunConfig:
    """Return how all of them are carried out: one thread, saved now and then."""
    return RunConfig(accelerator="cpu", torch_threads=1, threads=1, checkpoint_every=100)
