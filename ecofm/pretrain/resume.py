"""What makes a run survive: checkpoints that are whole or absent, and signals that are heeded."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import warnings
import zipfile
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, cast

import torch
from pytorch_lightning.plugins.io import CheckpointIO
from torch import Tensor, nn

from ecofm.artifact import sync
from ecofm.errors import EcofmError
from ecofm.pretrain.pickled import require_unpacked
from ecofm.types import say

KEEP_CHECKPOINTS = 2
INTERACTIVE = ("bash", "interactive")  # SLURM's names for jobs that have a person in front


class AtomicCheckpointIO(CheckpointIO):
    """Checkpoints written beside their target, flushed and renamed; read with weights_only."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Write a checkpoint so that a kill at any moment leaves the old or the new one whole.

        Raises EcofmError when it cannot be written; nothing of it stays then.
        """
        target = Path(path)
        beside = target.with_name(f".{target.name}.partial")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with beside.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(target)
            sync(target.parent)
        except (OSError, RuntimeError) as error:  # torch's zip writer turns a full disk into these
            _remove(beside)
            reason = " ".join(str(error).split())[:120]
            raise EcofmError(
                f"checkpoint {target} cannot be written ({reason}); free some space, and the same "
                "command continues from the checkpoint before."
            ) from error

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint without unpickling anything but tensors and plain values."""
        loaded = torch.load(path, map_location=map_location or "cpu", weights_only=True)
        return cast(dict[str, Any], loaded)

    def remove_checkpoint(self, path: Any) -> None:
        """Delete a checkpoint."""
        Path(path).unlink(missing_ok=True)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:  # the folder itself is what cannot be written
        return


def checkpoint_path(folder: Path, step: int) -> Path:
    """Return where the checkpoint after `step` batches lies."""
    return folder / f"step-{step:09d}.ckpt"


def step_of(path: Path) -> int:
    """Return the step that a checkpoint was written after."""
    return int(path.stem.removeprefix("step-"))


def prune(folder: Path) -> None:
    """Delete all checkpoints but the newest ones."""
    for old in sorted(folder.glob("step-*.ckpt"))[:-KEEP_CHECKPOINTS]:
        old.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Delete what a kill left half-written."""
    for orphan in folder.glob(".*.partial"):
        orphan.unlink(missing_ok=True)


def newest_checkpoint(folder: Path, module: nn.Module | None = None) -> Path | None:
    """Return the newest checkpoint that can be read and, where one is given, is the module's.

    Damaged ones and strangers are named and passed over.
    """
    for path in sorted(folder.glob("step-*.ckpt"), reverse=True):
        try:
            require_unpacked(path)
            # torch does not look at the checksums that it writes into its zip files.
            with zipfile.ZipFile(path) as archive:
                if bad := archive.testzip():
                    raise ValueError(f"{bad} has another checksum")
            # Mapped: the numbers have just been read, and training reads them again.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a foreign pickle's protocol, before it fails
                found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            if module is not None:
                _require_fit(found, module, step_of(path))
        except (OSError, RuntimeError, ValueError, EOFError, KeyError) as error:
            reason = " ".join(str(error).split())[:120]
            say(f"checkpoint {path} is damaged ({reason}); taking the one before.")
        except Exception as error:
            # Flipped bytes make the restricted unpickler raise nearly anything.
            if type(error).__module__ not in ("pickle", "_pickle", "zipfile", "zlib", "struct"):
                raise
            say(f"checkpoint {path} is damaged ({type(error).__name__}); taking the one before.")
        else:
            return path
    return None


PARTS = {"state_dict": dict, "optimizer_states": list, "loops": dict, "callbacks": dict}
"""What Lightning reads of a checkpoint, beside some numbers."""


def _require_fit(found: object, module: nn.Module, step: int) -> None:
    """Raise ValueError for what is no checkpoint, or one of another model or step."""
    if not isinstance(found, dict):
        raise ValueError("it holds no table")
    for name, kind in PARTS.items():
        if not isinstance(found.get(name), kind):
            raise ValueError(f"it has no {name}")
    wanted = module.state_dict()
    for name in sorted(map(str, wanted.keys() ^ found["state_dict"].keys())):
        raise ValueError(f"{name} is in one of the model and the checkpoint only")
    for name, value in found["state_dict"].items():
        if not isinstance(value, Tensor) or value.shape != wanted[name].shape:
            raise ValueError(f"{name} has another shape than the model's")
        if value.is_floating_point() and not value.isfinite().all():
            raise ValueError(f"{name} has numbers that are not finite")
    if int(found["state_dict"]["step"]) != step:
        raise ValueError(f"it was written after step {int(found['state_dict']['step'])}")


def require_room(folder: Path, n_bytes: int) -> None:
    """Raise EcofmError unless `n_bytes` more can be written into a folder, which is made.

    A full disk that shows after a day of training has cost a day.
    """
    probe = folder / ".room.partial"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with probe.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(1, n_bytes))
    except OSError as error:
        raise EcofmError(
            f"{folder} has no room for checkpoints of {n_bytes / 1e6:.0f} MB ({error.strerror}); "
            "free some space, or choose another --out."
        ) from error
    finally:
        _remove(probe)


class StopSignals:
    """Notes SIGTERM and SIGUSR1, for the training loop to act on between two steps.

    Saving inside the handler can hang (Lightning-AI/pytorch-lightning#21406).
    """

    def __init__(self) -> None:
        """Have received nothing yet."""
        self.received: str | None = None
        self._before: dict[int, Any] = {}

    def listen(self) -> None:
        """Take the signals over, also from Lightning's own handlers; main thread only."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGUSR1):
                self._before.setdefault(number, signal.getsignal(number))
                signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number).name

    def __enter__(self) -> StopSignals:
        """Listen."""
        self.listen()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        """Give the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler or signal.SIG_DFL)


def requeue() -> None:
    """Ask SLURM to queue this batch job again; outside SLURM, nothing."""
    job = os.environ.get("SLURM_JOB_ID")
    if not job or os.environ.get("SLURM_JOB_NAME") in INTERACTIVE:
        return
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    try:
        done = subprocess.run(["scontrol", "requeue", job], check=False)
    except OSError as error:
        say(f"job {job} is not requeued: scontrol cannot be run ({error.strerror}).")
        return
    say(f"job {job} is {'requeued' if done.returncode == 0 else 'not requeued by scontrol'}")
