"""Runs that are killed some time after a step end with the bytes of the unbroken run.

For every method; plain, or with accumulation, dropout and drop path, or a transformer with all of
them. A kill counts when the run that follows it resumed above step 0.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Any

from tests.faults.forge import LIMIT_S, start
from tests.faults.lab import Lab
from tests.faults.outcomes import Outcome, Try
from tests.faults.stages import Part

METHODS = ("simclr", "moco", "moco_v3", "byol", "dino", "vicreg", "change_preserving")
STEPS, KILLS_A_RUN = 9, 3
MORE: dict[str, dict[str, int]] = {
    "moco": {"queue": 16}, "dino": {"prototypes": 32}, "change_preserving": {"subspace_dim": 16},
}  # fmt: skip


def build_config(method: str, variant: int) -> Any:
    from ecofm.pretrain.encoders import EncoderConfig, Pooling
    from ecofm.pretrain.methods import METHODS as KNOWN
    from ecofm.pretrain.run import PretrainConfig
    from ecofm.pretrain.views import ViewConfig

    encoder = EncoderConfig(backbone="resnet10t", width=0.125, words=8)
    if variant == 1:
        encoder.dropout, encoder.drop_path = 0.1, 0.2
    if variant == 2:
        encoder = EncoderConfig(
            backbone="test_vit", pooling=Pooling.last, words=8, dropout=0.1, drop_path=0.2
        )
    return PretrainConfig(
        steps=STEPS, batch_size=4, warmup_steps=2, accumulate=2 if variant else 1, encoder=encoder,
        views=ViewConfig(size_px=32),
        method=KNOWN[method](hidden_dim=16, projection_dim=8, **MORE.get(method, {})),
    )  # fmt: skip


def train(
    archive: str, out: str, method: str, variant: int, run: dict[str, Any], steps: Connection
) -> None:
    """In a child: carry out a run and report each step."""
    from ecofm.pretrain.run import RunConfig, pretrain

    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    config = RunConfig(accelerator="cpu", torch_threads=1, log_every=1, **run)
    pretrain(
        [Path(archive)], Path(out), build_config(method, variant), config,
        progress=lambda done, _: steps.send(done),
    )  # fmt: skip
    os._exit(0)


def carry_out(*job: Any, kill: tuple[int, float] | None = None) -> int | None:
    """Run one process; SIGKILL comes so many seconds after a step. None: it hung."""
    ours, theirs = Pipe()
    process = start(train, *job, theirs)
    theirs.close()
    try:
        while ours.poll(LIMIT_S):
            if kill and ours.recv() >= kill[0]:
                time.sleep(kill[1])
                process.kill()
                break
            if not kill:
                ours.recv()
    except EOFError:
        pass
    process.join(LIMIT_S)
    if process.is_alive():
        process.kill()
        return None
    return process.exitcode


def attack(lab: Lab, method: str, n_kills: int, random: Random, work: Path) -> Iterator[Try]:
    """Kill runs of one method until enough kills count."""
    from ecofm.pretrain.encoders import WEIGHTS

    wholes: dict[int, bytes] = {}
    archive = str(lab.root / "archive")
    counted = runs = 0
    while counted < n_kills and runs < n_kills + 3:
        variant = (runs + METHODS.index(method)) % 3
        if variant not in wholes:
            whole = work / f"whole{variant}"
            code = carry_out(archive, str(whole), method, variant, {"threads": 0})
            assert code == 0, f"{method}: {code}"
            wholes[variant] = (whole / "encoder" / WEIGHTS).read_bytes()
        out = work / f"run{runs}"
        kills = list(kill_and_finish(archive, out, method, variant, random, wholes[variant]))
        counted += len(kills)
        yield from kills
        shutil.rmtree(out)
        runs += 1


def kill_and_finish(
    archive: str, out: Path, method: str, variant: int, random: Random, whole: bytes
) -> Iterator[Try]:
    """Kill a run some times, finish it, and yield a try for each kill that counts."""
    from ecofm.pretrain.encoders import WEIGHTS

    every = random.choice([1, 2, 3])
    last, killed = 0, []
    for _ in range(KILLS_A_RUN):
        run = {"threads": random.choice([0, 4]), "checkpoint_every": every}
        last = min(STEPS - 2, max(last, every) + random.randrange(2))
        after = random.choice([0, 0.02, 0.05])
        code = carry_out(archive, str(out), method, variant, run, kill=(last, after))
        killed.append(f"{after} s after step {last}")
        if code != -signal.SIGKILL or (out / "encoder").exists():
            yield Try(Outcome.lost, f"{method}, {killed}: exit code {code}")
            return
    code = carry_out(archive, str(out), method, variant, {"threads": 0, "checkpoint_every": every})
    what = f"{method}, variant {variant}, killed {', '.join(killed)}: exit code {code}"
    if code != 0:
        yield Try(Outcome.hung if code is None else Outcome.lost, what)
        return
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    outcome = Outcome.harmless
    if (out / "encoder" / WEIGHTS).read_bytes() != whole:
        outcome = Outcome.silent
    elif {line["step"] for line in lines} != set(range(1, STEPS + 1)):
        outcome = Outcome.lost
    elif list((out / "checkpoints").glob(".*")):
        outcome = Outcome.litter
    resumed = [line["step"] for line in lines if line.get("event") == "resume"]
    yield from [Try(outcome, what) for step in resumed if step > 0]


def parts(lab: Lab, n_kills: int) -> dict[str, Part]:
    """Return the attack on each method."""
    return {method: partial(attack, lab, method, n_kills) for method in METHODS}
