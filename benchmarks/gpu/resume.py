"""A run that is stopped and continued, against one that is not; in a process of its own.

Deterministic kernels need cuBLAS told before it starts: `python -m benchmarks.gpu.resume FOLDER
ARCHIVE ACCELERATOR [tiny]` prints JSON.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from benchmarks.gpu.inputs import Bench
from ecofm.errors import EcofmError
from ecofm.pretrain.encoders import EncoderConfig
from ecofm.pretrain.run import PretrainConfig, RunConfig, pretrain
from ecofm.pretrain.views import ViewConfig


def measure_resume(bench: Bench) -> dict[str, Any]:
    """Return the largest difference of weights, by default and with deterministic kernels."""
    done = subprocess.run(
        [
            sys.executable, "-m", "benchmarks.gpu.resume", bench.work / "resume",
            bench.small_archive(), bench.accelerator, *(["tiny"] if bench.is_tiny else []),
        ],
        env=os.environ | {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"},
        stdout=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise EcofmError(f"the process that resumes ended with {done.returncode}, see above.")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def compare(folder: Path, archive: Path, config: PretrainConfig, run: RunConfig) -> dict[str, Any]:
    """Train once as a whole, once again, and once with a stop."""
    for name in ("whole", "again"):
        _train(folder / name, archive, config, run)
    try:
        _train(folder / "stopped", archive, config, run, stop_at=config.steps // 2)
        raise AssertionError("the run was not stopped")
    except EcofmError as error:
        print(error, file=sys.stderr)
    _train(folder / "stopped", archive, config, run)
    one, other, resumed = (
        load_file(str(folder / name / "encoder" / "model.safetensors"))
        for name in ("whole", "again", "stopped")
    )
    return {
        "two whole runs": _differ(one, other),
        "stopped and resumed": _differ(one, resumed),
        "largest weight": max(float(value.abs().max()) for value in one.values()),
    }


def _differ(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> dict[str, Any]:
    differences = [float((one[name].float() - other[name].float()).abs().max()) for name in one]
    same = all(torch.equal(one[name], other[name]) for name in one)
    return {"same_bytes": same, "largest_difference": max(differences)}


def _train(
    out: Path, archive: Path, config: PretrainConfig, run: RunConfig, stop_at: int | None = None
) -> None:
    def stop(done: int, total: int) -> None:
        if done == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)

    pretrain([archive], out, config, run, progress=stop)


def main(folder: Path, archive: Path, accelerator: str, is_tiny: bool) -> None:
    """Print what both kinds of kernels give, and what torch warned of."""
    config = PretrainConfig(
        steps=4 if is_tiny else 30,
        batch_size=4 if is_tiny else 32,
        warmup_steps=5,
        views=ViewConfig(size_px=32 if is_tiny else 64),
        encoder=EncoderConfig(backbone="resnet10t" if is_tiny else "resnet18", words=0),
    )
    precision = "bf16-mixed" if accelerator == "gpu" else "32-true"
    run = RunConfig(accelerator=accelerator, threads=2, precision=precision)
    found: dict[str, Any] = {"default": compare(folder / "default", archive, config, run)}
    torch.use_deterministic_algorithms(True, warn_only=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found["deterministic"] = compare(folder / "deterministic", archive, config, run)
    texts = {str(warning.message)[:200] for warning in caught}
    found["not_deterministic"] = sorted(text for text in texts if "deterministic" in text)
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], "tiny" in sys.argv[4:])
