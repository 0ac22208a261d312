"""The training step under Lightning: a function of our own step counter and of nothing else."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.io import CheckpointIO
from torch import Tensor, nn

from ecofm.errors import EcofmError
from ecofm.pretrain.methods import MoCo, SimCLR
from ecofm.pretrain.views import ViewConfig, cut_windows, draw_parameters, render_views
from ecofm.tiles.archive import Archive
from ecofm.tiles.loader import PairLoader
from ecofm.types import say

KEEP_CHECKPOINTS = 2


class ContrastiveModule(pl.LightningModule):
    """Two views of a place are pulled together; `step` counts global batches."""

    step: Tensor

    def __init__(
        self,
        method: SimCLR | MoCo,
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
    ) -> None:
        """Take the method and everything that the batch of a step depends on."""
        super().__init__()
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
        self.register_buffer("step", torch.zeros((), dtype=torch.long))

    def train_dataloader(self) -> PairLoader:
        """Return the loader from the restored step on."""
        return PairLoader(
            self.archives,
            batch_size=self.batch_size,
            seed=self.seed,
            first_step=int(self.step),
            threads=self.threads,
            rank=self.global_rank,
            world_size=self.trainer.world_size,
        )

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return AdamW; norms and biases are not decayed."""
        trained = [p for p in self.method.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": self.weight_decay},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=self.learning_rate)

    def on_train_batch_start(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Set the learning rate and the model's own randomness for this step."""
        step = int(batch["step"])
        rate = self.learning_rate * schedule(step, self.steps, self.warmup_steps)
        for group in cast(torch.optim.Optimizer, self.optimizers()).param_groups:
            group["lr"] = rate
        torch.manual_seed((self.seed * 1_000_003 + step) * 4096 + self.global_rank)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Return the loss of the step's pairs."""
        step = int(batch["step"])
        views = [self._view(batch, view) for view in range(2)]
        loss, embeddings = self.method(*views)
        self.step.fill_(step + 1)
        self.log_dict({"loss": loss.detach(), "embedding_std": feature_std(embeddings)})
        return cast(Tensor, loss)

    def _view(self, batch: dict[str, Any], view: int) -> Tensor:
        """Return the batch's view 0 or 1: (batch, band, size, size)."""
        encoder = self.method.encoder
        pixels, valid = batch["pixels"][view], batch["valid"][view]
        encoder.require_contract(pixels)
        share = len(pixels)
        parameters = draw_parameters(
            self.views,
            seed=self.seed,
            step=int(batch["step"]),
            view=view,
            samples=slice(self.global_rank * share, (self.global_rank + 1) * share),
            n_global=self.batch_size,
            n_bands=pixels.shape[1],
            tile_px=(pixels.shape[2], pixels.shape[3]),
        )
        centre, spread = encoder.measure(pixels, valid)
        windows, mask, parameters = cut_windows(pixels, valid, parameters)
        tiles = (windows.float() - centre).div_(spread).mul_(mask[:, None])
        return render_views(tiles, parameters, self.views.size_px)


def schedule(step: int, steps: int, warmup_steps: int) -> float:
    """Return the share of the learning rate: linear warm-up, then half a cosine to 0."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, steps - warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def feature_std(embeddings: Tensor) -> Tensor:
    """Return the mean std of normalised features times sqrt(dim): 1 is healthy, 0 collapsed."""
    unit = nn.functional.normalize(embeddings.detach().float(), dim=1)
    return cast(Tensor, unit.std(dim=0).mean() * unit.shape[1] ** 0.5)


class AtomicCheckpointIO(CheckpointIO):
    """Checkpoints written beside their target, flushed and renamed; read with weights_only."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Write a checkpoint so that a kill at any moment leaves the old or the new one whole."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = target.with_name(f".{target.name}.partial")
        with beside.open("wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(target)

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint without unpickling anything but tensors and plain values."""
        loaded = torch.load(path, map_location=map_location or "cpu", weights_only=True)
        return cast(dict[str, Any], loaded)

    def remove_checkpoint(self, path: Any) -> None:
        """Delete a checkpoint."""
        Path(path).unlink(missing_ok=True)


def newest_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint that can be read; damaged ones are named and passed over."""
    for path in sorted(folder.glob("step-*.ckpt"), reverse=True):
        try:
            AtomicCheckpointIO().load_checkpoint(path)
        except (OSError, RuntimeError, ValueError, EOFError, KeyError) as error:
            reason = " ".join(str(error).split())[:120]
            say(f"checkpoint {path} is damaged ({reason}); taking the one before.")
        except Exception as error:
            # Flipped bytes make the restricted unpickler raise nearly anything.
            if type(error).__module__ not in ("pickle", "_pickle", "zipfile"):
                raise
            say(f"checkpoint {path} is damaged ({type(error).__name__}); taking the one before.")
        else:
            return path
    return None


class Record(pl.Callback):
    """Writes metrics.jsonl and the checkpoints, and draws progress."""

    def __init__(self, folder: Path, every: int, log_every: int, progress: Any) -> None:
        """Take the run's folder and how many steps lie between checkpoints and log lines."""
        self.folder = folder
        self.every = every
        self.log_every = log_every
        self.progress = progress

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Note a resume in metrics.jsonl."""
        step = int(cast(ContrastiveModule, module).step)
        if step and trainer.is_global_zero:
            self._append({"event": "resume", "step": step})
            say(f"resumed at step {step}")

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, *unused: Any
    ) -> None:
        """Log and save where the step says so."""
        step = int(cast(ContrastiveModule, module).step)
        steps = cast(ContrastiveModule, module).steps
        if trainer.is_global_zero and (step % self.log_every == 0 or step in (1, steps)):
            values = {name: float(value) for name, value in trainer.callback_metrics.items()}
            if not math.isfinite(values["loss"]):
                raise EcofmError(
                    f"the loss is {values['loss']} at step {step}; lower learning_rate, or look "
                    "for tiles without valid pixels."
                )
            self._append({"step": step, **values})
        if trainer.is_global_zero and self.progress is not None:
            self.progress(step, steps)
        if step % self.every == 0 and step < steps:
            trainer.save_checkpoint(self.folder / "checkpoints" / f"step-{step:09d}.ckpt")
            if trainer.is_global_zero:
                for old in sorted((self.folder / "checkpoints").glob("step-*.ckpt"))[
                    :-KEEP_CHECKPOINTS
                ]:
                    old.unlink()

    def _append(self, line: dict[str, Any]) -> None:
        with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
