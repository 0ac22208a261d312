"""Runs that are killed at random end with the bytes of the unbroken run, for every method.

`make test` kills each method three times and `make faults` fifty times. A kill counts when the run
that follows it resumed above step 0.
"""

from __future__ import annotations

import importlib.util
import json
import os
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ecofm.pretrain.encoders import WEIGHTS, EncoderConfig, Pooling
from ecofm.pretrain.methods import METHODS
from ecofm.pretrain.run import PretrainConfig, RunConfig

KILLS = int(os.environ.get("ECOFM_KILLS", "3"))
STEPS, KILLS_A_RUN = 9, 3
Tiny = Callable[..., PretrainConfig]


def build_forge() -> Any:
    path = Path(__file__).with_name("forge.py")
    spec = importlib.util.spec_from_file_location("forge", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Forge()


@pytest.fixture(scope="module")
def forge() -> Iterator[Any]:
    forge = build_forge()
    yield forge
    forge.close()


@pytest.fixture(scope="module")
def archive(make_archive: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_archive(tmp_path_factory.mktemp("archive") / "archive")


def build_config(tiny: Tiny, method: str, variant: int) -> PretrainConfig:
    """Plain; or with accumulation, dropout and drop path; or a transformer with all of them."""
    encoder = EncoderConfig(backbone="resnet10t", width=0.125, words=8)
    if variant == 1:
        encoder.dropout, encoder.drop_path = 0.1, 0.2
    if variant == 2:
        encoder = EncoderConfig(
            backbone="test_vit", pooling=Pooling.last, words=8, dropout=0.1, drop_path=0.2
        )
    return tiny(method, steps=STEPS, accumulate=2 if variant else 1, encoder=encoder)


def run_config(**changes: Any) -> RunConfig:
    return RunConfig(accelerator="cpu", torch_threads=1, log_every=1, **changes)


@pytest.mark.parametrize("method", METHODS)
def test_a_run_killed_at_random_is_the_unbroken_run(
    method: str, archive: Path, tiny: Tiny, forge: Any, tmp_path: Path
) -> None:
    chance = random.Random(f"{method} {KILLS}")
    wholes: dict[int, bytes] = {}
    counted = runs = 0
    while counted < KILLS:
        variant = (runs + list(METHODS).index(method)) % 3
        config = build_config(tiny, method, variant)
        if variant not in wholes:
            whole = tmp_path / f"whole{variant}"
            assert forge.run(archive, whole, config, run_config(threads=0)) == 0
            wholes[variant] = (whole / "encoder" / WEIGHTS).read_bytes()
        out = tmp_path / f"run{runs}"
        counted += kill_and_finish(forge, archive, out, config, chance)
        assert (out / "encoder" / WEIGHTS).read_bytes() == wholes[variant], (method, runs)
        runs += 1
        assert runs <= KILLS + 3
    print(f"{method}: {counted} kills in {runs} runs")


def kill_and_finish(
    forge: Any, archive: Path, out: Path, config: PretrainConfig, chance: random.Random
) -> int:
    """Kill a run some times, finish it, and return how many of the kills count."""
    every = chance.choice([1, 2, 3])
    last = 0
    for _ in range(KILLS_A_RUN):
        run = run_config(threads=chance.choice([0, 4]), checkpoint_every=every)
        last = min(STEPS - 2, max(last, every) + chance.randrange(2))
        ended = forge.run(archive, out, config, run, (last, chance.choice([0, 0.02, 0.05])))
        assert ended == -signal.SIGKILL
        assert not (out / "encoder").exists()
    run = run_config(threads=chance.choice([0, 4]), checkpoint_every=every)
    assert forge.run(archive, out, config, run) == 0
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert {line["step"] for line in lines} == set(range(1, STEPS + 1))
    resumed = [line["step"] for line in lines if line.get("event") == "resume"]
    assert not list((out / "checkpoints").glob(".*"))
    return sum(step > 0 for step in resumed)
