"""A run's folder: which run it holds, whether that is finished, and what began it."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from ecofm import artifact
from ecofm.checksums import find_faults
from ecofm.errors import ArtifactError, UsageError
from ecofm.fields import Partial, read_fields
from ecofm.pretrain.config import RunConfig, choose_precision
from ecofm.pretrain.devices import SHARDED
from ecofm.pretrain.module import Schedule
from ecofm.types import say

RUN = "run.json"
FIRST_CHOICES = {"channels_last": True, "compile": False}
"""What a run's first part settles on where it is told nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine(Partial):
    """What a run's first part settled on, which its later parts keep."""

    torch_threads: int | None = None
    """Threads of torch."""
    precision: str | None = None
    """Lightning's."""
    channels_last: bool | None = None
    """Memory format."""
    compile: bool | None = None
    """Whether the backbone was compiled."""
    sharded: bool | None = None
    """Whether parameters were spread over the devices."""

    def __post_init__(self) -> None:
        """Raise UsageError for a number of threads that is none."""
        if self.torch_threads is not None and self.torch_threads < 1:
            raise UsageError(f"torch_threads is {self.torch_threads}, expected 1 or more.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Steps(Partial):
    """How long a run is to be."""

    steps: int
    """Global batches."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Noted(Partial):
    """What a run's record says, as far as anything depends on it."""

    config: Steps
    """What the encoder depends on."""
    inputs: dict[str, str]
    """Hashes."""
    machine: Machine = field(default_factory=Machine)
    """How the run is carried out."""


def read_record(out: Path) -> dict[str, Any]:
    """Return what `begin` noted of the run in `out`; empty when there is none.

    Raises ArtifactError when it is damaged.
    """
    if not (out / RUN).is_file():
        return {}
    try:
        found = artifact.read_sealed(out / RUN)
        read_fields(Noted, found)
    except UsageError as error:
        raise ArtifactError(
            f"{out / RUN} is damaged: {error} Remove {out}, or choose another --out."
        ) from error
    except ArtifactError as error:
        raise ArtifactError(f"{error} Remove {out}, or choose another --out.") from error
    return found


def settle(run: RunConfig, found: dict[str, Any], manifest: dict[str, Any]) -> RunConfig:
    """Return the run's options with what is left open settled as when the run began.

    Another number of torch's threads adds up in another order, and another precision or kernel
    rounds otherwise: left to the machine, a resumed run would not be the unbroken one. Raises
    ArtifactError when the run began with its parameters laid out otherwise.
    """
    kept = found.get("machine", {}) if _is_same_run(found, manifest) else {}
    if kept.get("sharded", run.is_sharded) != run.is_sharded:
        began = SHARDED if kept["sharded"] else "another strategy than " + SHARDED
        raise ArtifactError(
            f"the run began with {began}, and its checkpoints number the optimizer's states as "
            f"that does; give strategy as then, or --overwrite or another --out."
        )
    chosen = {
        name: kept.get(name, first) if getattr(run, name) is None else getattr(run, name)
        for name, first in FIRST_CHOICES.items()
    }
    return replace(
        run,
        torch_threads=run.torch_threads or kept.get("torch_threads") or torch.get_num_threads(),
        precision=choose_precision(run, kept.get("precision")),
        **chosen,
    )


def is_finished(out: Path, manifest: dict[str, Any], overwrite: bool) -> bool:
    """Return whether `out` holds the finished run of this config and these inputs.

    Raises ArtifactError when it holds anything else, unless that is a run and `overwrite` is set.
    """
    record = out / RUN
    if not out.is_dir() or not any(out.iterdir()):
        if out.exists() and not out.is_dir():
            raise ArtifactError(f"{out} is no folder; choose another --out.")
        return False
    if not record.is_file():
        raise ArtifactError(f"{out} holds files that are no run; choose another --out.")
    found = read_record(out)
    if _is_same_run(found, manifest):
        is_as_long = found["config"]["steps"] == manifest["config"]["steps"]
        return is_as_long and _has_encoder(out)
    if not overwrite:
        keys = ("config", "inputs")
        differing = [key for key in keys if found.get(key) != manifest[key]]
        raise ArtifactError(
            f"{out} holds a run with another {' and '.join(differing)}{_hint(found, manifest)}; "
            "give --overwrite to start it anew, or another --out."
        )
    return False


def _has_encoder(out: Path) -> bool:
    """Return whether the run's encoder is there as it was written; a damaged one is named.

    The last checkpoint has it too, and the run makes it again from that.
    """
    folder = out / "encoder"
    if not (folder / artifact.MANIFEST).is_file():
        return False
    try:
        fault = find_faults(folder, artifact.read_manifest(folder, "encoder"))
    except ArtifactError as error:
        fault = str(error)
    if fault:
        say(f"{fault.rstrip('.')}; it is made again from the last checkpoint.")
    return fault is None


def drop_unreadable(encoder: Path) -> None:
    """Remove a run's own encoder whose manifest is no JSON any more: it can only be made again."""
    try:
        if (encoder / artifact.MANIFEST).is_file():
            artifact.read_json(encoder / artifact.MANIFEST)
    except ArtifactError:
        shutil.rmtree(encoder)


def is_first_process() -> bool:
    """Return whether this is the first of the processes that were started together for a run."""
    for name in ("RANK", "SLURM_PROCID"):  # torchrun, srun
        if name in os.environ:
            return int(os.environ[name]) == 0
    # Lightning's own children: the first process of all has none of these.
    return all(int(os.environ.get(name, 0)) == 0 for name in ("NODE_RANK", "LOCAL_RANK"))


def wait_for_first(out: Path, manifest: dict[str, Any], seconds: float = 600.0) -> None:
    """Wait until the first process has begun this run in `out`, or for so long.

    Started at once, another process would meet a folder that is half made, or half removed.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if _is_same_run(read_record(out), manifest):
                return
        except (ArtifactError, OSError):
            pass  # it is being replaced; if it stays damaged, the caller says so
        time.sleep(0.2)


def _is_same_run(found: dict[str, Any], manifest: dict[str, Any]) -> bool:
    """Return whether a run's record stands for this run, or for a shorter one that may go on."""
    if found.get("inputs") != manifest["inputs"]:
        return False
    old, new = found.get("config"), manifest["config"]
    if not isinstance(old, dict) or {**old, "steps": new["steps"]} != new:
        return False
    may_go_on = new["schedule"] == Schedule.constant.value and old["steps"] < new["steps"]
    return bool(old == new or may_go_on)


def _hint(found: dict[str, Any], manifest: dict[str, Any]) -> str:
    old, new = found.get("config"), manifest["config"]
    if isinstance(old, dict) and {**old, "steps": new["steps"]} == new:
        return (
            f" (steps {old.get('steps')} in place of {new['steps']}: only schedule=constant "
            "lets a run grow longer)"
        )
    return ""


def begin(out: Path, manifest: dict[str, Any], run: RunConfig) -> None:
    """Make the run's folder, empty unless it holds this run, and note what it is."""
    machine = {name: getattr(run, name) for name in ("torch_threads", "precision", *FIRST_CHOICES)}
    machine["sharded"] = run.is_sharded
    aside = artifact.set_aside(out)
    try:
        if (out / RUN).is_file() and not _is_same_run(read_record(out), manifest):
            # In one step: what a kill left of a run in mid-removal would be no run any more.
            shutil.rmtree(aside, ignore_errors=True)
            out.resolve().rename(aside)
        out.mkdir(parents=True, exist_ok=True)
        artifact.write_sealed(out / RUN, {**manifest, "machine": machine})
        shutil.rmtree(aside, ignore_errors=True)
    except OSError as error:
        raise artifact.unwritable(out, error) from error
