"""100 CPU steps of a small run follow the recorded losses.

Remake with: ECOFM_REMAKE_GOLDEN=1 pytest tests/golden/test_loss_curve.py
Tolerance: .2 % of each loss in the first 12 steps, and 5 % of the mean of each further twenty.
Another processor's rounding was seen to move these by .003 % and .6 %, at four times the learning
rate by 1.2 % and 1.6 %: training spreads what rounding begins, the faster the larger its steps.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ecofm.pretrain.run import RunConfig, pretrain

CURVE = Path(__file__).with_name("loss_curve.json")
STEPS = 100


def test_losses_follow_the_recorded_curve(
    make_archive: Callable[..., Path], tiny: Callable[..., Any], tmp_path: Path
) -> None:
    archive = make_archive(tmp_path / "archive", n_cells=24)
    config = tiny(steps=STEPS, batch_size=16, learning_rate=2.5e-4, warmup_steps=5)
    run = RunConfig(accelerator="cpu", torch_threads=1, threads=0, log_every=1, precision="32-true")
    pretrain([archive], tmp_path / "run", config, run)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    found = np.array([json.loads(line)["loss"] for line in lines])
    if os.environ.get("ECOFM_REMAKE_GOLDEN"):
        CURVE.write_text(json.dumps([round(loss, 5) for loss in found.tolist()]) + "\n")
    golden = np.array(json.loads(CURVE.read_text()))
    assert len(found) == STEPS
    assert np.allclose(found[:12], golden[:12], rtol=0.002)
    means = [curve[20:].reshape(-1, 20).mean(1) for curve in (found, golden)]
    assert np.allclose(*means, rtol=0.05)
    # The curve means something only where the loss falls.
    assert golden[-20:].mean() < golden[:10].mean() - 0.1
