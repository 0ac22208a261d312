"""The batch files, run with stand-ins for sbatch, srun and scontrol that write down their calls."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
SLURM = ROOT / "slurm"
LONG = sorted(SLURM.glob("*.sbatch"))


@pytest.fixture
def cluster(tmp_path: Path) -> dict[str, Any]:
    """A checkout with slurm/, a .venv of stand-ins, and an environment as SLURM sets it."""
    checkout = tmp_path / "checkout"
    shutil.copytree(SLURM, checkout / "slurm")
    bin_ = checkout / ".venv" / "bin"
    bin_.mkdir(parents=True)
    (bin_ / "activate").write_text(f'export PATH="{bin_}:$PATH"\n')
    calls = tmp_path / "calls"
    calls.touch()
    for name, body in {
        "sbatch": 'echo "$((40 + $(grep -c ^sbatch "$CALLS")))"',
        "srun": 'while [[ "$1" == --* ]]; do shift; done; exec "$@"',
        "scontrol": "true",
        "ecofm": "true",
        "python": 'if [ -n "$REAL_PYTHON" ]; then exec "$REAL_PYTHON" "$@"; fi',
    }.items():
        script = bin_ / name
        script.write_text(f'#!/usr/bin/env bash\necho "{name} $*" >> "$CALLS"\n{body}\n')
        script.chmod(0o755)
    env = {k: v for k, v in os.environ.items() if not k.startswith("SLURM")}
    env |= {
        "PATH": f"{bin_}:{os.environ['PATH']}", "CALLS": str(calls), "REAL_PYTHON": "",
        "SLURM_SUBMIT_DIR": str(checkout), "SLURM_CPUS_PER_TASK": "2",
    }  # fmt: skip
    return {"checkout": checkout, "env": env, "calls": calls, "cwd": tmp_path}


def call(cluster: dict[str, Any], *command: str, **more: str) -> list[str]:
    """Run a script and return what was called, one line each."""
    done = subprocess.run(
        ["bash", *command], env=cluster["env"] | more, cwd=cluster["cwd"], capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return cluster["calls"].read_text().splitlines()


def test_there_is_a_file_for_every_long_stage() -> None:
    assert [path.stem for path in LONG] == ["embed", "finetune", "pretrain", "tile"]


@pytest.mark.parametrize("path", LONG, ids=lambda path: path.stem)
def test_every_job_can_be_requeued(path: Path) -> None:
    text = path.read_text()
    assert "#SBATCH --requeue" in text and "#SBATCH --open-mode=append" in text
    assert re.search(r"^#SBATCH --time=", text, re.MULTILINE)
    assert subprocess.run(["bash", "-n", str(path)], check=False).returncode == 0
    # Folders come from the run's name: a time in one would break the requeue.
    assert not re.search(r"\bdate\b|%j|SLURM_JOB_ID", text)


def test_pretraining_is_warned_before_its_time_is_up() -> None:
    assert "#SBATCH --signal=USR1@" in (SLURM / "pretrain.sbatch").read_text()


def test_the_chain_waits_for_each_stage_and_is_the_same_at_every_call(
    cluster: dict[str, Any],
) -> None:
    script = str(cluster["checkout"] / "slurm" / "chain.sh")
    calls = call(cluster, script, "/data/korea", "a.tif", "b c.tif", RECIPE="rgb8")
    assert len(calls) == 3 and all(line.startswith("sbatch --parsable") for line in calls)
    tile, pretrain, embed = calls
    assert tile.endswith("tile.sbatch /data/korea/archive a.tif b c.tif")
    assert "--dependency" not in tile
    assert "--dependency=afterok:41" in pretrain
    assert pretrain.endswith("pretrain.sbatch /data/korea/archive /data/korea/run recipe=rgb8")
    assert "--dependency=afterok:42" in embed
    assert embed.endswith("embed.sbatch /data/korea/archive /data/korea/run /data/korea/embeddings")
    assert "--job-name=ecofm-korea-pretrain" in pretrain
    again = call(cluster, script, "/data/korea", "a.tif", "b c.tif", RECIPE="rgb8")[3:]
    assert [re.sub(r"afterok:\d+", "", line) for line in again] == [
        re.sub(r"afterok:\d+", "", line) for line in calls
    ]


def test_the_chain_without_scenes_is_wrong_usage(cluster: dict[str, Any]) -> None:
    done = subprocess.run(
        ["bash", str(cluster["checkout"] / "slurm" / "chain.sh"), "out"], env=cluster["env"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2 and "usage" in done.stderr
    assert cluster["calls"].read_text() == ""


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ({}, "nodes=1 devices=1 precision=16-mixed"),
        (
            {"SLURM_NNODES": "2", "SLURM_NTASKS_PER_NODE": "4"},
            "nodes=2 devices=4 strategy=ddp precision=16-mixed",
        ),
    ],
    ids=["one", "eight"],
)
def test_pretrain_is_started_once_a_task(
    cluster: dict[str, Any], size: dict[str, str], expected: str
) -> None:
    script = str(cluster["checkout"] / "slurm" / "pretrain.sbatch")
    srun, python = call(cluster, script, "arc", "out", "precision=16-mixed", **size)
    command = f"python -m train.pretrain archive=arc out=out threads=2 {expected}"
    assert srun == f"srun --kill-on-bad-exit=1 {command}" and python == command


def test_the_other_stages_call_their_commands(cluster: dict[str, Any]) -> None:
    folder = cluster["checkout"] / "slurm"
    assert call(cluster, str(folder / "tile.sbatch"), "arc", "a.tif")[-1] == (
        "ecofm tile a.tif --out arc"
    )
    assert call(cluster, str(folder / "embed.sbatch"), "arc", "enc", "out")[-1] == (
        "ecofm embed --archive arc --encoder enc --out out"
    )
    finetune = call(cluster, str(folder / "finetune.sbatch"), "a", "e", "c", "o", "steps=3")[-1]
    assert finetune == "python -m train.finetune archive=a encoder=e comparisons=c out=o steps=3"


def test_a_job_that_is_signalled_saves_requeues_once_and_goes_on(
    cluster: dict[str, Any], make_archive: Callable[..., Path], tmp_path: Path
) -> None:
    """SIGUSR1 reaches the training through the batch file's srun, as --signal sends it."""
    archive = make_archive(tmp_path / "archive")
    out = tmp_path / "run"
    env = cluster["env"] | {
        "REAL_PYTHON": sys.executable, "PYTHONPATH": str(ROOT), "SLURM_JOB_ID": "41",
        "SLURM_JOB_NAME": "ecofm-pretrain", "SLURM_NTASKS": "1", "SLURM_PROCID": "0",
        "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_JOB_NODELIST": "localhost",
    }  # fmt: skip
    command = [
        "bash", str(cluster["checkout"] / "slurm" / "pretrain.sbatch"), str(archive), str(out),
        "steps=400", "batch_size=4", "warmup_steps=1", "views.size_px=32", "encoder.words=8",
        "encoder.backbone=resnet10t", "encoder.width=0.125", "accelerator=cpu", "torch_threads=1",
        "log_every=1", "checkpoint_every=1000",
    ]  # fmt: skip
    job = subprocess.Popen(
        command, env=env, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    metrics = out / "metrics.jsonl"
    deadline = time.monotonic() + 300
    while not (metrics.exists() and metrics.read_text().count("\n") >= 3):
        assert job.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    children = subprocess.run(
        ["pgrep", "-f", f"train.pretrain archive={archive}"], capture_output=True, text=True,
        check=False,
    ).stdout.split()  # fmt: skip
    for child in children:  # srun signals the step's tasks, not the batch script
        if Path(f"/proc/{child}/comm").read_text().startswith("python"):
            os.kill(int(child), signal.SIGUSR1)
    _, said = job.communicate(timeout=120)
    assert "stopped by SIGUSR1 after step" in said and "job 41 is requeued" in said
    calls = cluster["calls"].read_text().splitlines()
    assert [line for line in calls if line.startswith("scontrol")] == ["scontrol requeue 41"]
    step = int(re.search(r"after step (\d+)", said)[1])
    assert (out / "checkpoints" / f"step-{step:09d}.ckpt").is_file()
