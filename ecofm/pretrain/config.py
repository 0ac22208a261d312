"""What a pretraining run is told: what the encoder depends on, and how the run is carried out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from ecofm import artifact
from ecofm.errors import UsageError
from ecofm.fields import require_finite
from ecofm.pretrain.devices import SHARDED
from ecofm.pretrain.encoders import EncoderConfig
from ecofm.pretrain.method import MethodConfig
from ecofm.pretrain.methods import method_name
from ecofm.pretrain.module import Positives, Schedule
from ecofm.pretrain.record import OnCollapse
from ecofm.pretrain.students import SimCLRConfig
from ecofm.pretrain.views import ViewConfig
from ecofm.tiles.pairs import PairConfig
from ecofm.types import require_seed


@dataclass(kw_only=True, slots=True)
class PretrainConfig:
    """Everything that the encoder depends on."""

    steps: int = 2000
    """Number of global batches; 0 writes the encoder with its random weights, as a baseline."""
    batch_size: int = 128
    """Pairs a step over all devices together."""
    accumulate: int = 1
    """Parts that a batch is worked through in, for less memory; negatives are those of a part."""
    seed: int = 0
    """Seed of weights, order, pairs and views."""
    learning_rate: float = 1e-3
    """Peak learning rate of AdamW."""
    warmup_steps: int = 50
    """Steps of linear warm-up."""
    schedule: Schedule = Schedule.cosine
    """After the warm-up: `cosine` to 0, or `constant`, under which `steps` may be raised later."""
    gradient_clip: float = 0.0
    """Largest norm of the gradient; 0 does not clip."""
    weight_decay: float = 1e-4
    """Decay of matrices and kernels; norms and biases have none."""
    positives: Positives = Positives.periods
    """`periods`: two periods of a cell where it has them; `tile`: one tile twice."""
    pairs: PairConfig = field(default_factory=PairConfig)
    """Which two periods of a cell are looked at together: gaps, season, valid share."""
    init_weights: str = ""
    """torchgeo's name of published weights to start from, such as
    `ResNet50_Weights.SENTINEL2_ALL_MOCO`; empty for random ones. With steps=0 they are written as
    they are: a frozen baseline."""
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    """The encoder."""
    views: ViewConfig = field(default_factory=ViewConfig)
    """How two views of a place may differ."""
    method: MethodConfig = field(default_factory=SimCLRConfig)
    """SimCLR, MoCo, BYOL..., see `ecofm.pretrain.methods`."""

    def __post_init__(self) -> None:
        """Raise ValueError for values that cannot be used."""
        if self.steps < 0 or self.batch_size < 2 or self.learning_rate <= 0:
            raise UsageError("steps >= 0, batch_size >= 2 and learning_rate > 0 are needed.")
        if self.accumulate < 1 or self.batch_size % self.accumulate or self.gradient_clip < 0:
            raise UsageError(
                "accumulate >= 1 that divides batch_size, and gradient_clip >= 0 are needed."
            )
        if self.warmup_steps < 0 or not self.weight_decay >= 0:
            raise UsageError("warmup_steps >= 0 and weight_decay >= 0 are needed.")
        for name in ("learning_rate", "gradient_clip", "weight_decay"):
            require_finite(getattr(self, name), name)
        require_seed(self.seed)


# No slots: the Hydra entry inherits from this class and PretrainConfig, and only one may have them.
@dataclass(kw_only=True)
class RunConfig:
    """How the run is carried out; none of it changes the encoder beyond rounding."""

    threads: int = 2
    """Loader threads; 0 reads in the training thread."""
    checkpoint_every: int = 500
    """Steps between checkpoints."""
    log_every: int = 20
    """Steps between lines of metrics.jsonl."""
    max_skipped: int = 10
    """Steps in a row without a finite loss and gradient, after which the run stops."""
    init_file: str | None = None
    """The downloaded file of init_weights, .pth or .safetensors; known by its hash."""
    on_collapse: OnCollapse = OnCollapse.warn
    """What is done when the features have collapsed: warn, or stop."""
    monitor_chips: str | None = None
    """An archive of chips, one group a label, for the kNN accuracy; never trained on."""
    monitor_proxies: str | None = None
    """A table tile_id or cell_id and numbers, for probes' rank correlations; never trained on."""
    monitor_every: int = 500
    """Steps between these two."""
    accelerator: str = "auto"
    """Lightning's accelerator: auto, cpu, gpu."""
    devices: int = 1
    """Devices a node."""
    nodes: int = 1
    """Nodes."""
    strategy: str = "auto"
    """Lightning's strategy: auto, ddp; fsdp, for models that do not fit on one device."""
    precision: str = "auto"
    """Lightning's precision: 32-true, bf16-mixed; auto is bf16-mixed where the device has it."""
    channels_last: bool | None = None
    """Images and kernels with the bands innermost; None keeps the run's first choice: yes."""
    compile: bool | None = None
    """Backbones through torch.compile; None keeps the run's first choice: no."""
    torch_threads: int | None = None
    """Threads of torch itself; None keeps the run's first choice, which is torch's own."""

    def __post_init__(self) -> None:
        """Raise ValueError for values that cannot be used."""
        counts = (self.checkpoint_every, self.log_every, self.max_skipped, self.monitor_every)
        if self.threads < 0 or min(counts) < 1:
            raise UsageError(
                "threads >= 0, and checkpoint_every, log_every, max_skipped, monitor_every >= 1 "
                "are needed."
            )
        if min(self.devices, self.nodes) < 1 or (self.torch_threads or 1) < 1:
            raise UsageError("devices, nodes and torch_threads >= 1 are needed.")

    @property
    def n_devices(self) -> int:
        """Devices over all nodes."""
        return self.devices * self.nodes

    @property
    def is_sharded(self) -> bool:
        """Whether parameters are spread over the devices."""
        return self.strategy == SHARDED

    @property
    def on_gpu(self) -> bool:
        """Whether Lightning will take GPUs."""
        return self.accelerator != "cpu" and torch.cuda.is_available()


def plain(config: Any) -> dict[str, Any]:
    """Return a config dataclass as plain values, with the class of a method by its name."""
    fields = artifact.plain(config)
    if isinstance(config, PretrainConfig):
        fields["method"]["name"] = method_name(config.method)
    return fields


def choose_precision(run: RunConfig, kept: str | None = None) -> str:
    """Return the run's precision; a device without bf16 emulates it ten times as slowly.

    `kept` is what an earlier part of the run settled on.
    """
    if run.precision != "auto":
        return run.precision
    if kept:
        return kept
    if run.on_gpu:
        has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        has_bf16 = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return "bf16-mixed" if has_bf16 else "32-true"
