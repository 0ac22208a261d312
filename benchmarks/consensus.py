"""python -m benchmarks.consensus: fitting 100,000 comparisons over 500 items, beside choix.

The same synthetic answers, without ties, go to our fit and to choix's (Bradley-Terry with the same
Gaussian prior), interleaved in one run; their optima are compared. Figures are ratios of time to
ours; the raw seconds go to benchmarks/results/consensus.json.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import choix
import numpy as np
import numpy.typing as npt
import pandas as pd

from ecofm.artifact import write_json
from ecofm.compare.consensus import ConsensusConfig, fit_answers

Floats = npt.NDArray[np.float64]
N_ITEMS, N_ANSWERS, REPEATS, PRIOR_STD = 500, 100_000, 3, 3.0
RESULTS = Path(__file__).parent / "results" / "consensus.json"


def simulate(seed: int) -> list[tuple[int, int]]:
    """Return (winner, loser) pairs drawn from Bradley-Terry's model."""
    rng = np.random.default_rng(seed)
    strength = rng.normal(0, 1.5, N_ITEMS)
    left = rng.integers(N_ITEMS, size=N_ANSWERS)
    right = (left + rng.integers(1, N_ITEMS, N_ANSWERS)) % N_ITEMS
    wins = rng.random(N_ANSWERS) < 1 / (1 + np.exp(strength[right] - strength[left]))
    winner, loser = np.where(wins, left, right), np.where(wins, right, left)
    return list(zip(winner.tolist(), loser.tolist(), strict=True))


def fit_ours(frame: pd.DataFrame) -> Floats:
    """Return our strengths by item number, mean 0."""
    config = ConsensusConfig(prior_std=PRIOR_STD, weigh=False)
    crowd = fit_answers(frame, config, warn=lambda _: None)
    strength = np.zeros(N_ITEMS)
    strength[[int(name) for name in crowd.voices.pairs.names]] = crowd.point[:-1]
    return strength - strength.mean()


def main() -> None:
    """Measure and print the table."""
    seconds: dict[str, list[float]] = {}
    apart: dict[str, float] = {}
    penalty = PRIOR_STD**-2 / 2
    for repeat in range(REPEATS):
        pairs = simulate(repeat)
        names = np.array(pairs).astype(str)
        frame = pd.DataFrame(
            {"annotator": "a", "left": names[:, 0], "right": names[:, 1], "outcome": "left"}
        )
        contestants: dict[str, Callable[[], Floats]] = {
            "ours": lambda frame=frame: fit_ours(frame),
            "choix opt_pairwise": lambda pairs=pairs: choix.opt_pairwise(
                N_ITEMS, pairs, alpha=penalty, tol=1e-8
            ),
            "choix ilsr": lambda pairs=pairs: choix.ilsr_pairwise(N_ITEMS, pairs, alpha=1e-4),
            "choix lsr": lambda pairs=pairs: choix.lsr_pairwise(N_ITEMS, pairs, alpha=1e-4),
        }
        found = {}
        for name, run in contestants.items():
            start = time.perf_counter()
            strength = np.asarray(run())
            seconds.setdefault(name, []).append(time.perf_counter() - start)
            found[name] = strength - strength.mean()
            distance = float(np.abs(found[name] - found["ours"]).max())
            apart[name] = max(apart.get(name, 0.0), distance)
    ours = np.median(seconds["ours"])
    print(f"{'':22}{'seconds':>9}{'ratio':>8}{'largest difference of strengths':>34}")
    for name, spent in seconds.items():
        middle = np.median(spent)
        print(f"{name:22}{middle:9.2f}{middle / ours:8.2f}{apart[name]:34.1e}")
    assert apart["choix opt_pairwise"] < 1e-3, "not the same optimum"
    write_json(
        RESULTS,
        {
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            "versions": {name: version(name) for name in ("ecofm", "choix", "numpy", "scipy")},
            "n_items": N_ITEMS, "n_answers": N_ANSWERS,
            "seconds": seconds, "largest_difference": apart,
        },
    )  # fmt: skip


if __name__ == "__main__":
    main()
