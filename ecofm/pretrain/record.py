"""The callback that writes metrics.jsonl and the checkpoints, and that stops a run."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl

from ecofm.errors import EcofmError
from ecofm.pretrain.health import feature_std
from ecofm.pretrain.module import ContrastiveModule
from ecofm.pretrain.resume import StopSignals, checkpoint_path, prune
from ecofm.types import Progress, say


class Record(pl.Callback):
    """Writes metrics.jsonl and the checkpoints, draws progress, and heeds signals."""

    def __init__(
        self,
        folder: Path,
        *,
        checkpoint_every: int,
        log_every: int,
        max_skipped: int,
        signals: StopSignals,
        progress: Progress | None,
    ) -> None:
        """Take the run's folder, and how many steps lie between checkpoints and log lines."""
        self.folder = folder
        self.checkpoint_every = checkpoint_every
        self.log_every = log_every
        self.max_skipped = max_skipped
        self.signals = signals
        self.progress = progress
        self.stopped: str | None = None

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Note a resume in metrics.jsonl, and take the signals from Lightning."""
        self.signals.listen()
        step = int(cast(ContrastiveModule, module).step)
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
        if trainer.is_global_zero:
            self._log(trainer, module, step, skipped)
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

    def _log(self, trainer: pl.Trainer, module: ContrastiveModule, step: int, skipped: int) -> None:
        if skipped:
            self._append({"event": "skip", "step": step, "in_a_row": skipped})
            say(f"step {step} is skipped: its loss or gradient is not finite")
        elif step % self.log_every == 0 or step in (1, module.steps):
            values = {name: float(value) for name, value in trainer.callback_metrics.items()}
            assert module.features is not None
            values["embedding_std"] = float(feature_std(module.features[0]))
            self._append({"step": step, **values})

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
