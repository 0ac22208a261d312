"""The callback that writes metrics.jsonl and the checkpoints, and that stops a run."""

from __future__ import annotations

import json
import math
import os
import time
from enum import Enum
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl

from ecofm.errors import EcofmError
from ecofm.pretrain.devices import gather
from ecofm.pretrain.encoders import Encoder
from ecofm.pretrain.health import judge
from ecofm.pretrain.module import ContrastiveModule
from ecofm.pretrain.monitor import Monitor, draw_health
from ecofm.pretrain.resume import StopSignals, checkpoint_path, prune
from ecofm.types import Progress, say

MIN_STD, MIN_RANK = 0.05, 2.0
"""Below either of these the features of a batch are as good as one vector."""
COLLAPSED_LINES = 3
PICTURE_SECONDS = 60.0


class OnCollapse(Enum):
    """What is done when the features have collapsed."""

    warn = "warn"
    stop = "stop"


class Record(pl.Callback):
    """Writes metrics.jsonl and the checkpoints, draws progress, and heeds signals."""

    def __init__(
        self,
        folder: Path,
        *,
        checkpoint_every: int,
        log_every: int,
        max_skipped: int,
        on_collapse: OnCollapse,
        monitor: Monitor | None,
        monitor_every: int,
        signals: StopSignals,
        progress: Progress | None,
    ) -> None:
        """Take the run's folder, and how many steps lie between checkpoints and log lines."""
        self.folder = folder
        self.checkpoint_every = checkpoint_every
        self.log_every = log_every
        self.max_skipped = max_skipped
        self.on_collapse = on_collapse
        self.monitor = monitor
        self.monitor_every = monitor_every
        self.collapsed_lines = 0
        self.drawn = time.monotonic()
        self.signals = signals
        self.progress = progress
        self.stopped: str | None = None

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Note a resume in metrics.jsonl, and take the signals from Lightning."""
        self.signals.listen()
        step = int(cast(ContrastiveModule, module).step)
        if trainer.world_size > 1 and (first := int(trainer.strategy.broadcast(step))) != step:
            raise EcofmError(
                f"process {trainer.global_rank} resumes at step {step} and the first one at step "
                f"{first}: {self.folder} does not look the same from all machines; start again."
            )
        if trainer.is_global_zero:
            _mend(self.folder / "metrics.jsonl")
            if step:
                self._append({"event": "resume", "step": step})
                say(f"resumed at step {step}")

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *unused: Any
    ) -> None:
        """Log, save and stop where the step says so, or a signal does."""
        module = cast(ContrastiveModule, pl_module)
        step, skipped = int(module.step), int(module.skipped_in_a_row)
        watched = None
        if self.monitor and not skipped and self._is_watched(step, module.steps):
            watched = gather(module.method.encoder)
        if trainer.is_global_zero:
            self._log(trainer, module, step, skipped, watched)
        if skipped >= self.max_skipped:
            raise EcofmError(
                f"{skipped} steps in a row gave no finite loss and gradient, up to step {step}; "
                "lower learning_rate, or look at the last batch's tiles: "
                f"{', '.join(module.tile_ids())}."
            )
        stop = self.signals.received
        if trainer.world_size > 1:  # the signal may reach one device a step before another
            asked = trainer.strategy.reduce_boolean_decision(stop is not None, all=False)
            stop = (stop or "a signal to another process") if asked else None
        if step % self.checkpoint_every == 0 or step == module.steps or stop:
            trainer.save_checkpoint(checkpoint_path(self.folder / "checkpoints", step))
            if trainer.is_global_zero:
                prune(self.folder / "checkpoints")
        if stop and step < module.steps:
            self.stopped = stop
        trainer.should_stop = step >= module.steps or self.stopped is not None
        if trainer.is_global_zero and self.progress is not None:
            self.progress(step, module.steps)

    def _log(
        self,
        trainer: pl.Trainer,
        module: ContrastiveModule,
        step: int,
        skipped: int,
        watched: Encoder | None,
    ) -> None:
        if skipped:
            self._append({"event": "skip", "step": step, "in_a_row": skipped})
            say(f"step {step} is skipped: its loss or gradient is not finite")
        elif self._is_due(step, module.steps):
            values = {name: float(value) for name, value in trainer.callback_metrics.items()}
            assert module.features is not None
            values |= judge(*module.features)
            if n_replaced := int(module.n_replaced):
                values["pairs_replaced"] = n_replaced
            if self.monitor and watched is not None:
                values |= self.monitor.measure(watched)
            values = {name: value for name, value in values.items() if math.isfinite(value)}
            self._append({"step": step, **values})
            for logger in trainer.loggers:
                logger.log_metrics(values, step)
            self._alarm(step, values)
            if step == module.steps or time.monotonic() - self.drawn > PICTURE_SECONDS:
                draw_health(self.folder / "metrics.jsonl", self.folder / "health.png")
                self.drawn = time.monotonic()

    def _is_due(self, step: int, steps: int) -> bool:
        is_watched = self.monitor is not None and self._is_watched(step, steps)
        return step % self.log_every == 0 or is_watched or step in (1, steps)

    def _is_watched(self, step: int, steps: int) -> bool:
        return step % self.monitor_every == 0 or step in (1, steps)

    def _alarm(self, step: int, values: dict[str, float]) -> None:
        """Warn of collapsed features, or stop; a single bad batch is none."""
        is_bad = values["embedding_std"] < MIN_STD or values["rank"] < MIN_RANK
        self.collapsed_lines = self.collapsed_lines + 1 if is_bad else 0
        if self.collapsed_lines != COLLAPSED_LINES:
            return
        message = (
            f"the features have collapsed at step {step}: std {values['embedding_std']:.3f} "
            f"(healthy is 1), effective rank {values['rank']:.1f}; lower learning_rate, or give "
            "views more strength or the batch more pairs."
        )
        self._append({"event": "collapse", "step": step})
        if self.on_collapse is OnCollapse.stop:
            raise EcofmError(message)
        say(f"warning: {message}")

    def _append(self, line: dict[str, Any]) -> None:
        with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, allow_nan=False) + "\n")


def _mend(path: Path) -> None:
    """Cut off the half line that a kill may have left at the end of a file of lines."""
    if path.exists():
        content = path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(path, whole)
