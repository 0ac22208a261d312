"""The training step under Lightning: a function of our own step counter and of nothing else."""

from __future__ import annotations

import math
from enum import Enum
from typing import Any, cast

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from ecofm.pretrain.devices import shard
from ecofm.pretrain.method import Method
from ecofm.pretrain.places import PlaceFinder
from ecofm.pretrain.prefetch import Parts, Prefetch
from ecofm.pretrain.rendering import render_tiles
from ecofm.pretrain.views import ViewConfig, ViewParameters, draw_parameters
from ecofm.tiles.archive import Archive
from ecofm.tiles.loader import PairLoader
from ecofm.tiles.pairs import PairConfig

RUNS_AHEAD = ("cuda",)
"""Devices on which views are made while the model works on those before."""


class Schedule(Enum):
    """How the learning rate goes on after the warm-up."""

    cosine = "cosine"
    constant = "constant"


class Positives(Enum):
    """What the views of a pair show."""

    periods = "periods"
    tile = "tile"


class ContrastiveModule(pl.LightningModule):
    """One update a global batch; `step` counts the batches, skipped ones too.

    Optimisation is manual so that a step is a step: Lightning's own counter repeats under
    accumulation, and a step that is skipped has to leave every state as it was.
    """

    step: Tensor
    skipped_in_a_row: Tensor
    n_replaced: Tensor
    """Pairs so far that others stood in for, because they showed too few valid pixels."""

    def __init__(
        self,
        method: Method,
        views: ViewConfig,
        archives: list[Archive],
        *,
        batch_size: int,
        seed: int,
        steps: int,
        warmup_steps: int,
        learning_rate: float,
        weight_decay: float,
        threads: int,
        accumulate: int = 1,
        schedule: Schedule = Schedule.cosine,
        gradient_clip: float = 0.0,
        positives: Positives = Positives.periods,
        pairs: PairConfig | None = None,
    ) -> None:
        """Take the method and everything that the batch of a step depends on."""
        super().__init__()
        self.automatic_optimization = False
        self.method = method
        self.views = views
        self.archives = archives
        self.batch_size = batch_size
        self.seed = seed
        self.steps = steps
        self.warmup_steps = warmup_steps
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.threads = threads
        self.accumulate = accumulate
        self.schedule = schedule
        self.gradient_clip = gradient_clip
        self.pairs = pairs
        self.sources = method.sources
        if positives is Positives.tile:
            self.sources = tuple((0, stream) for _, stream in method.sources)
        self.features: tuple[Tensor, Tensor] | None = None
        self.loader: PairLoader | None = None
        self.places = PlaceFinder(
            views, self.sources, seed=seed, n_global=batch_size, tile_px=archives[0].tile_px
        )
        self.register_buffer("step", torch.zeros((), dtype=torch.long))
        self.register_buffer("skipped_in_a_row", torch.zeros((), dtype=torch.long))
        self.register_buffer("n_replaced", torch.zeros((), dtype=torch.long))

    def configure_model(self) -> None:
        """Spread the parameters over the devices where the strategy has a mesh of them."""
        if self.device_mesh is not None:
            shard(self.method, self.device_mesh["data_parallel"])

    def train_dataloader(self) -> PairLoader | Prefetch:
        """Return the loader from the restored step on; on a GPU, views are made ahead."""
        self.loader = PairLoader(
            self.archives,
            batch_size=self.batch_size,
            seed=self.seed,
            first_step=int(self.step),
            threads=self.threads,
            rank=self.global_rank,
            world_size=self.trainer.world_size,
            pairs=self.pairs,
            places=self.places,
        )
        if self.device.type in RUNS_AHEAD:
            return Prefetch(self.loader, self.device, self.prepare)
        return self.loader

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return AdamW, fused: eight times as fast on a CPU. Norms and biases are not decayed."""
        trained = [p for p in self.method.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": self.weight_decay},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=self.learning_rate, fused=True)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Update the weights once from the step's pairs, or skip a step that is not finite."""
        step = int(batch["step"])
        optimizer = cast(torch.optim.Optimizer, self.optimizers())
        for group in optimizer.param_groups:
            group["lr"] = self.rate(step)
        # The model's own randomness: dropout, drop path, the order of MoCo's keys.
        torch.manual_seed((self.seed * 1_000_003 + step) * 4096 + self.global_rank)
        before = {name: value.clone() for name, value in self.method.named_buffers()}
        optimizer.zero_grad()
        loss = self._accumulate(batch)
        trained = [p for p in self.method.parameters() if p.grad is not None]
        norm = torch.nn.utils.clip_grad_norm_(trained, self.gradient_clip or math.inf)
        if isinstance(norm, DTensor):
            norm = norm.full_tensor()
        if self.trainer.world_size > 1:  # the record tells of the whole batch
            loss = self.trainer.strategy.reduce(loss.clone(), reduce_op="mean")
        is_whole = self._all_agree(bool(loss.isfinite() & norm.isfinite()))
        if is_whole:
            optimizer.step()
            self.method.after_update(
                (step + 1) / self.steps if self.schedule is Schedule.cosine else 0.0
            )
            self.skipped_in_a_row.zero_()
        else:
            optimizer.zero_grad()
            with torch.no_grad():
                for name, value in self.method.named_buffers():
                    value.copy_(before[name])
            self.skipped_in_a_row += 1
        self.step.fill_(step + 1)
        n_replaced = torch.tensor(int(batch["n_replaced"]), device=self.device)
        if self.trainer.world_size > 1:
            n_replaced = self.trainer.strategy.reduce(n_replaced, reduce_op="sum")
        self.n_replaced += n_replaced
        # The record gives them to the loggers, by our own step.
        self.log_dict({"loss": loss, "gradient_norm": norm}, logger=False)
        self.log("learning_rate", self.rate(step), logger=False)

    def prepare(self, batch: dict[str, Any]) -> Parts:
        """Return the views of all parts of a batch, and which pairs are one tile twice."""
        return [self._part(batch, part) for part in range(self.accumulate)]

    def _part(self, batch: dict[str, Any], part: int) -> tuple[list[Tensor], Tensor | None]:
        step = int(batch["step"])
        views = [self.view(batch, step, tile, stream, part) for tile, stream in self.sources]
        return views, self._is_same(batch, part) if self.method.needs_same else None

    def _accumulate(self, batch: dict[str, Any]) -> Tensor:
        """Add up the gradients of the batch's parts and return the mean of their losses.

        A part takes every n-th sample, so that it is the same one however many devices share it.
        """
        losses = []
        for part in range(self.accumulate):
            # Made one after another where nothing makes them ahead: less memory.
            views, same = batch["parts"][part] if "parts" in batch else self._part(batch, part)
            loss, *features = self.method(*views, same=same)
            self.manual_backward(loss / self.accumulate)
            losses.append(loss.detach())
        self.features = (features[0].detach(), features[1].detach())
        return torch.stack(losses).mean()

    def _all_agree(self, here: bool) -> bool:
        """Return whether something holds on every device."""
        if self.trainer.world_size == 1:
            return here
        return self.trainer.strategy.reduce_boolean_decision(here, all=True)

    def _is_same(self, batch: dict[str, Any], part: int) -> Tensor:
        """Return which pairs of a part are one tile twice: (batch,)."""
        # Views 0 and 1 show either tile of the pair, unless both are to show one.
        first, second = (
            batch["pixels"][self.sources[tile][0]][part :: self.accumulate, :, ::4, ::4]
            for tile in range(2)
        )
        if first.dtype == torch.uint16:  # has no comparison of its own
            first, second = (pixels.contiguous().view(torch.int16) for pixels in (first, second))
        return torch.eq(first, second).flatten(1).all(dim=1)

    def view(self, batch: dict[str, Any], step: int, tile: int, stream: int, part: int) -> Tensor:
        """Return a view of one tile of each pair of a part: (batch, band, size, size)."""
        encoder = self.method.encoder
        pixels, valid = (batch[name][tile][part :: self.accumulate] for name in ("pixels", "valid"))
        encoder.require_contract(pixels)
        parameters = self.draw(batch, step, stream, part)
        centre, spread = encoder.measure(pixels, valid)
        return render_tiles(pixels, valid, centre, spread, parameters, self.views.size_px)

    def draw(self, batch: dict[str, Any], step: int, stream: int, part: int) -> ViewParameters:
        """Return how the views of a part lie, and what is done to their bands."""
        _, share, n_bands, height, width = batch["pixels"].shape
        first = self.global_rank * share
        return draw_parameters(
            self.views,
            seed=self.seed,
            step=step,
            view=stream,
            samples=slice(first + part, first + share, self.accumulate),
            n_global=self.batch_size,
            n_bands=n_bands,
            tile_px=(height, width),
            places=batch["places"][part :: self.accumulate],
        )

    def rate(self, step: int) -> float:
        """Return the learning rate of a step."""
        return self.learning_rate * schedule(step, self.steps, self.warmup_steps, self.schedule)

    def tile_ids(self) -> list[str]:
        """Return the tiles of the batch that has just been taken, on this device."""
        assert self.loader is not None
        names = [tile_id for archive in self.archives for tile_id in archive.index["tile_id"]]
        pairs = self.loader.pairs(int(self.step) - 1)
        return [names[tile] for tile in dict.fromkeys(pairs.flatten().tolist())]


def schedule(step: int, steps: int, warmup_steps: int, kind: Schedule = Schedule.cosine) -> float:
    """Return the share of the learning rate: linear warm-up, then half a cosine to 0, or 1."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if kind is Schedule.constant:
        return 1.0
    progress = (step - warmup_steps) / max(1, steps - warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
