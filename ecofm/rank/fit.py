"""Fitting an ensemble of heads: the penalty by held-out items, the residual by repeated answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from ecofm.rank.calibration import divide_variance, fit_scale
from ecofm.rank.evidence import Evidence, weigh_evidence
from ecofm.rank.features import Basis, Kernel
from ecofm.rank.heads import (
    HEADS,
    Ensemble,
    Heads,
    RankConfig,
    draw_laplace,
    fit_head,
)
from ecofm.rank.items import ItemFeatures, ItemPairs, Matrix, gather_features, hold_out, to_answers
from ecofm.rank.losses import LOSSES, Answers, Floats, Loss, Said, davidson_slopes
from ecofm.rank.luck import measure_luck
from ecofm.rank.unseen import judge_unseen


@dataclass(frozen=True, slots=True)
class Fit:
    """A fitted ensemble, and what held-out items say of it."""

    heads: Heads
    decay: float
    """The ridge penalty that held-out items chose."""
    held_out_loss: float | None
    """Mean negative log likelihood of comparisons with a held-out item, in nats."""
    evidence: Evidence
    """What comparisons that it had not seen say of it."""


def fit_heads(
    embeddings: Matrix,
    features: Basis | Kernel,
    pairs: ItemPairs,
    config: RankConfig,
    evidence: Evidence | None = None,
) -> Fit:
    """Fit the ensemble.

    Scores are anchored: over items, the mean of the members' mean score is 0, and its deviation
    the share of their development that the ranker tells of places it has not seen. `evidence` is
    given where the embeddings themselves have seen the comparisons.
    """
    random = np.random.default_rng(config.seed)
    items = gather_features(embeddings, features, pairs.members, config.n_heads, random)
    decay, held_out_loss = choose_decay(items, pairs, config, random)
    evidence = evidence or find_evidence(items, pairs, config, decay)
    judged = evidence.unseen.judged if evidence.unseen else None
    share, residual = divide_variance(judged, pairs, evidence.sureness)
    everybody = to_answers(pairs, pairs.weight)
    parameters, _ = fit_ensemble(
        items, LOSSES[config.loss], everybody, lambda: resample(pairs, random), decay, config,
        random,
    )  # fmt: skip
    levels = place_items(config, parameters, items)
    unit = levels.std(axis=1)
    unit = np.where(unit > 1e-12, unit, 1.0) / share
    head = HEADS[config.head]
    heads = Heads(head, features, parameters, levels.mean(axis=1), unit, residual)
    return Fit(heads, decay, held_out_loss, evidence)


def judge_embeddings(
    embeddings: Matrix, features: Basis | Kernel, pairs: ItemPairs, config: RankConfig
) -> Evidence:
    """Return what comparisons say of a ranker that would be fitted to them."""
    random = np.random.default_rng(config.seed)
    items = gather_features(embeddings, features, pairs.members, config.n_heads, random)
    return find_evidence(items, pairs, config, choose_decay(items, pairs, config, random)[0])


def find_evidence(
    items: ItemFeatures, pairs: ItemPairs, config: RankConfig, decay: float
) -> Evidence:
    """Hold comparisons out of fits of one head, and test whether they fit the items' features."""
    random = np.random.default_rng([config.seed, 1])
    head, loss = HEADS[config.head], LOSSES[config.loss]

    def fit(kept: ItemPairs) -> Floats:
        start = head.start(items.mean.shape[1], random)
        answers = to_answers(kept, kept.weight)
        parameters, _ = fit_head(head, loss, items.mean, items, answers, decay, start)
        return np.asarray(place_items(config, parameters[None], items)[0])

    unseen = judge_unseen(pairs, fit, random)
    p = measure_luck(items.mean, pairs, random)
    if unseen and not head.convex:
        # It sees straight lines only; the lesser p value counts, doubled (Bonferroni).
        p = min(1.0, 2 * min(p, unseen.new.p))
    return weigh_evidence(p, pairs, unseen)


def fit_ensemble(
    items: ItemFeatures,
    loss: Loss[Said],
    said: Said,
    resampled: Callable[[], Said],
    decay: float,
    config: RankConfig,
    random: np.random.Generator,
    noise: float = 1.0,
) -> tuple[Floats, Floats]:
    """Return the parameters (head, parameter) of an ensemble, and its losses' own (head,).

    `resampled` draws what the next head of a bootstrap is told; `noise` is as for `draw_laplace`.
    """
    head, n = HEADS[config.head], config.n_heads
    start = head.start(items.mean.shape[1], random)
    if config.ensemble is Ensemble.laplace:
        mode = fit_head(head, loss, items.mean, items, said, decay, start)
        drawn = draw_laplace(head, loss, items, said, decay, mode, n, random, noise)
        return drawn, np.full(n, mode[1])
    if head.convex:
        # Each head's search is short from here; hidden layers differ by where they start too.
        start = fit_head(head, loss, items.mean, items, said, decay, start)[0]
    fits = []
    for number in range(n):
        told = resampled()
        begin = start if head.convex else head.start(items.mean.shape[1], random)
        fits.append(fit_head(head, loss, items.draw(number), items, told, decay, begin))
    return np.array([fit[0] for fit in fits]), np.array([fit[1] for fit in fits])


def choose_decay(
    items: ItemFeatures, pairs: ItemPairs, config: RankConfig, random: np.random.Generator
) -> tuple[float, float | None]:
    """Return the penalty to use, and the loss of comparisons with held-out items under it.

    A cell is held out in all its periods: it resembles itself.
    """
    decays = sorted(config.decays)
    if len(pairs.items) < 4:
        return decays[-1], None
    masks = hold_out(pairs, config.folds, random)
    start = HEADS[config.head].start(items.mean.shape[1], random)
    losses = np.array([_judge(items, pairs, held, config, decays, start) for held in masks])
    if not losses.size:
        return decays[-1], None
    chosen = choose_penalty(losses)
    return decays[chosen], float(losses[:, chosen].mean())


def choose_penalty(losses: Floats) -> int:
    """Return the number of the penalty to use, of (fold, penalty) losses, smallest penalty first.

    It is the largest that is not worse than the best by more than the standard error of their
    difference over folds.
    """
    mean = losses.mean(axis=0)
    worse = losses - losses[:, [int(mean.argmin())]]
    error = worse.std(axis=0, ddof=1) / len(losses) ** 0.5 if len(losses) > 1 else 0.0 * mean
    return int(np.flatnonzero(worse.mean(axis=0) <= error).max())


def _judge(
    items: ItemFeatures,
    pairs: ItemPairs,
    held: np.ndarray,
    config: RankConfig,
    decays: list[float],
    start: Floats,
) -> list[float]:
    """Fit to the other pairs and return the loss of the held ones, in the scale of the others.

    One loss for each penalty; a search starts where the next larger penalty's ended.
    """
    kept = replace(
        pairs, left=pairs.left[~held], right=pairs.right[~held], counts=pairs.counts[:, ~held]
    )
    answers = to_answers(kept, kept.weight)
    head, loss = HEADS[config.head], LOSSES[config.loss]
    counts = pairs.summed
    losses = []
    for decay in reversed(decays):
        start, _ = fit_head(head, loss, items.mean, items, answers, decay, start)
        level = place_items(config, start[None], items)[0]
        level = (level - level.mean()) / max(float(level.std()), 1e-12)
        gap = level[pairs.left] - level[pairs.right]
        slope, log_tie = fit_scale(gap[~held], counts[~held])
        losses.append(davidson_slopes(slope * gap[held], counts[held], log_tie)[0])
    return losses[::-1]


def place_items(config: RankConfig, parameters: Floats, items: ItemFeatures) -> Floats:
    """Return where items stand for each head, (head, item)."""
    mean, sample, several = map(torch.from_numpy, (items.mean, items.sample, items.several))
    head, rows = HEADS[config.head], torch.from_numpy(parameters)
    return np.array([head.levels(row, mean, sample, several, False).mean.numpy() for row in rows])


def resample(pairs: ItemPairs, random: np.random.Generator) -> Answers:
    """Return answers of annotators drawn with replacement.

    One annotator alone cannot be resampled; then comparisons are, by the Bayesian bootstrap
    (Rubin 1981), which leaves none of them out altogether.
    """
    n_annotators = len(pairs.counts)
    if n_annotators > 1:
        drawn = random.multinomial(n_annotators, np.full(n_annotators, 1 / n_annotators))
        return to_answers(pairs, drawn * pairs.weight)
    counts = random.standard_gamma(pairs.counts)
    return to_answers(replace(pairs, counts=counts), pairs.weight)
