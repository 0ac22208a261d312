"""Simulated annotators with known error rates, for the synthetic country."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ecofm.errors import UsageError
from ecofm.synth.noise import derive_rng

COMPARISON_COLUMNS = ["annotator", "left", "right", "outcome"]


@dataclass(kw_only=True, slots=True)
class AnnotatorConfig:
    """How many annotators there are and how they err.

    Noise and widths are in standard deviations of the development of what is judged.
    """

    n_annotators: int = 5
    """Number of annotators, named `annotator-01` and on."""
    noise: float = 0.25
    """Perception noise of the median annotator when looking at one tile."""
    noise_spread: float = 0.5
    """Spread of the log of the noise between annotators: some see better."""
    lapse_rate: float = 0.03
    """Chance of a random answer: left, right or tie."""
    skip_rate: float = 0.02
    """Chance of no answer (`skip`)."""
    tie_width: float = 0.2
    """Perceived differences below it are ties."""
    n_exemplars: int = 9
    """Members of an item that one looks at before ordering it."""
    n_repeats: int = 1
    """How many annotators judge each pair."""

    def __post_init__(self) -> None:
        """Refuse counts and rates out of range."""
        if min(self.n_annotators, self.n_exemplars, self.n_repeats) < 1:
            raise UsageError("n_annotators, n_exemplars and n_repeats must be at least 1")
        if self.n_repeats > self.n_annotators:
            raise UsageError("n_repeats cannot exceed n_annotators: one judges a pair once")
        if min(self.lapse_rate, self.skip_rate) < 0 or self.lapse_rate + self.skip_rate > 1:
            raise UsageError("lapse_rate and skip_rate must be at least 0 and sum to at most 1")
        if min(self.noise, self.noise_spread, self.tie_width) < 0:
            raise UsageError("noise, noise_spread and tie_width must not be negative")


def annotator_noise(config: AnnotatorConfig, seed: int) -> pd.Series:
    """Return the perception noise of each annotator, in standard deviations of development."""
    rng = derive_rng(seed, "annotators")
    names = [f"annotator-{k + 1:02d}" for k in range(config.n_annotators)]
    spread = np.exp(config.noise_spread * rng.standard_normal(config.n_annotators))
    return pd.Series(config.noise * spread, index=names, name="noise")


def simulate_orderings(
    values: Mapping[str, Sequence[float]], config: AnnotatorConfig, seed: int
) -> pd.DataFrame:
    """Return each annotator's weak order of the items: columns annotator and ordering.

    `values` gives the true development of the member tiles of each item. An annotator looks
    at a few members, averages what is seen, and puts neighbours within the tie width into one
    tier: `3=4>1>0`, most developed first. Items must not contain `=` or `>`.
    """
    for item, members in values.items():
        if not len(members) or "=" in item or ">" in item:
            raise UsageError(f"item {item!r} is empty or has '=' or '>' in its name")
    pooled = np.concatenate([np.asarray(v, float) for v in values.values()])
    unit = float(pooled.std()) or 1.0
    rows = []
    for index, (name, noise) in enumerate(annotator_noise(config, seed).items()):
        rng = derive_rng(seed, "orderings", index)
        seen = {
            k: _look(np.asarray(v, float) / unit, noise, config, rng) for k, v in values.items()
        }
        rows.append((name, _order(seen, config.tie_width)))
    return pd.DataFrame(rows, columns=["annotator", "ordering"])


def _look(
    members: np.ndarray, noise: float, config: AnnotatorConfig, rng: np.random.Generator
) -> float:
    count = min(config.n_exemplars, len(members))
    exemplars = rng.choice(members, count, replace=False)
    return float(np.mean(exemplars + noise * rng.standard_normal(count)))


def _order(seen: Mapping[str, float], tie_width: float) -> str:
    """Return the ordering; a tier is as wide as `tie_width` from its best item down."""
    tiers: list[list[str]] = []
    best = np.inf
    for item, value in sorted(seen.items(), key=lambda pair: (-pair[1], pair[0])):
        if not tiers or best - value > tie_width:
            tiers.append([])
            best = value
        tiers[-1].append(item)
    return ">".join("=".join(tier) for tier in tiers)


def simulate_comparisons(
    tile_pairs: Sequence[tuple[str, str]],
    development: Mapping[str, float],
    config: AnnotatorConfig,
    seed: int,
) -> pd.DataFrame:
    """Return judgements of pairs of tiles: columns annotator, left, right and outcome.

    Each pair is judged by `n_repeats` annotators. The outcome is `skip` or random at the known
    rates; else a difference perceived with the annotator's noise, or a tie where it is small.
    """
    judges = annotator_noise(config, seed)
    rng = derive_rng(seed, "comparisons")
    unit = float(np.std(list(development.values()))) or 1.0
    n_pairs = len(tile_pairs)
    who = rng.random((n_pairs, len(judges))).argsort(axis=1)[:, : config.n_repeats].ravel()
    pairs = [pair for pair in tile_pairs for _ in range(config.n_repeats)]
    true = np.array([(development[left] - development[right]) / unit for left, right in pairs])
    # Either tile is perceived with noise of its own.
    noise = np.sqrt(2) * judges.to_numpy()[who] * rng.standard_normal(len(pairs))
    seen = true.reshape(-1) + noise
    tied = np.abs(seen) < config.tie_width
    outcome = np.where(tied, "tie", np.where(seen > 0, "left", "right")).astype(object)
    chance = rng.random(len(pairs))
    random = rng.choice(np.array(["left", "right", "tie"], object), len(pairs))
    outcome = np.where(chance < config.lapse_rate, random, outcome)
    outcome[chance >= 1 - config.skip_rate] = "skip"
    left, right = zip(*pairs, strict=True) if pairs else ((), ())
    columns = [judges.index.to_numpy()[who], left, right, outcome]
    return pd.DataFrame(dict(zip(COMPARISON_COLUMNS, columns, strict=True)))
