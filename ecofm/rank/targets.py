"""Heads from a table: numbers by squared error, classes each against the others.

The same heads, ensembles and penalties as for comparisons; a table says what items have instead of
which of two has more. Intervals of numbers are split-conformal: wide enough for 90 % of the items
that a fold held out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from scipy.special import expit
from scipy.stats import spearmanr

from ecofm.rank.calibration import Z_90, Residual
from ecofm.rank.features import Basis, Kernel
from ecofm.rank.fit import choose_penalty, fit_ensemble, place_items
from ecofm.rank.foretold import Foretold, JudgedValues, weigh_values
from ecofm.rank.heads import HEADS, Heads, RankConfig, fit_head
from ecofm.rank.items import ItemFeatures, Matrix, fold_items, gather_features
from ecofm.rank.losses import Floats, Levels, Logistic, Loss, SquaredError, Values
from ecofm.rank.table import Target

COVERAGE = 0.9


@dataclass(frozen=True, slots=True)
class Classes:
    """Heads of classes; the score is the probability of one of them."""

    names: list[str]
    positive: str
    heads: list[Heads]
    """One for each class; two classes need one, of the positive."""
    residual: None = None

    def shares(self, embeddings: Matrix) -> Floats:
        """Return the probability of each class, shape (class, head, tile), for (tile, dim)."""
        odds = np.array([heads.predict(embeddings) for heads in self.heads])
        if len(self.names) == 2:
            odds = np.concatenate([odds, -odds])
            if self.names[0] != self.positive:
                odds = odds[::-1]
        one: Floats = expit(odds)
        found: Floats = one / one.sum(axis=0)
        return found

    def predict(self, embeddings: Matrix) -> Floats:
        """Return the positive class's probability by each head, shape (head, tile)."""
        found: Floats = self.shares(embeddings)[self.names.index(self.positive)]
        return found

    def spread(self, scores: Floats) -> Floats:
        """Return the deviation of probabilities (head, tile) over the heads, (tile,)."""
        found: Floats = scores.std(axis=0, ddof=1)
        return found


Ranker = Heads | Classes
"""What turns embeddings into scores."""


@dataclass(frozen=True, slots=True)
class TargetFit:
    """Fitted heads, and what held-out items say of them."""

    ranker: Ranker
    decay: float
    held_out: pd.DataFrame
    """item, value, predicted, and for numbers lower and upper."""
    evidence: Foretold


def fit_target(
    embeddings: Matrix,
    features: Basis | Kernel,
    target: Target,
    config: RankConfig,
    positive: str | None = None,
) -> TargetFit:
    """Fit an ensemble to a table's values; scores are in the values' unit, or probabilities.

    `positive` is the class whose probability is the score, by default the last by name.
    """
    random = np.random.default_rng(config.seed)
    items = gather_features(embeddings, features, target.members, config.n_heads, random)
    fold = fold_items(target.places, config.folds, random)
    folds = [fold == number for number in np.unique(fold)]
    if not target.classes:
        centre, unit = float(target.values.mean()), float(target.values.std())
        wanted = ((target.values - centre) / unit)[None]
        loss: Loss[Values] = SquaredError()
    else:
        positive = positive or target.classes[-1]
        modelled = [positive] if len(target.classes) == 2 else target.classes
        numbers = [target.classes.index(name) for name in modelled]
        wanted = np.array([target.values == number for number in numbers], dtype=np.float64)
        centre, unit, loss = 0.0, 1.0, Logistic()
    decay, lost, foretold = _choose_decay(items, wanted, loss, folds, config, random)
    # Half a squared error is a likelihood in units of the noise's variance.
    noise = 1.0 if target.classes else max(2 * lost, 1e-6)
    everything = np.ones(len(target.items), dtype=bool)
    head, found = HEADS[config.head], []
    for row in wanted:
        parameters, own = _fit_weighted(items, row, everything, loss, decay, config, random, noise)
        offset, units = -(own + centre / unit), np.full(len(own), 1 / unit)
        found.append(Heads(head, features, parameters, offset, units, None))
    if target.classes:
        assert positive
        ranker = Classes(target.classes, positive, found)
        table, judged = _judge_classes(target, foretold, ranker)
        return TargetFit(ranker, decay, table, _weigh_evidence(items, target, judged, config))
    # Intervals need what an ensemble that had not seen an item predicts for it.
    raw = np.empty((config.n_heads, len(target.items)))
    for held in folds:
        parameters, own = _fit_weighted(items, wanted[0], ~held, loss, decay, config, random, noise)
        raw[:, held] = place_items(config, parameters, items)[:, held] + own[:, None]
    table, judged, residual = _judge_numbers(target, raw * unit + centre)
    heads = replace(found[0], residual=Residual(residual))
    return TargetFit(heads, decay, table, _weigh_evidence(items, target, judged, config))


def _weigh_evidence(
    items: ItemFeatures, target: Target, judged: JudgedValues, config: RankConfig
) -> Foretold:
    random = np.random.default_rng([config.seed, 1])
    several = np.isin(np.arange(len(target.items)), items.several)
    is_straight = HEADS[config.head].convex
    return weigh_values(items.mean, several, target, judged, random, is_straight=is_straight)


def _judge_numbers(target: Target, predicted: Floats) -> tuple[pd.DataFrame, JudgedValues, float]:
    """Return the table of held-out items, what it says in all, and the residual."""
    mean, spread = predicted.mean(axis=0), predicted.std(axis=0, ddof=1)
    residual = fit_conformal(target.values - mean, spread)
    half = Z_90 * np.hypot(spread, residual)
    columns = {"value": target.values, "predicted": mean, "lower": mean - half}
    table = pd.DataFrame({"item": target.items, **columns, "upper": mean + half})
    error = float(np.square(target.values - mean).mean())
    quality = {
        "error": error**0.5,
        "error_of_mean": float(target.values.std()),
        "r2": 1 - error / float(target.values.var()),
        "spearman": float(spearmanr(mean, target.values)[0]) if mean.std() > 0 else 0.0,
    }
    naive = np.square(target.values - target.values.mean())
    return table, JudgedValues(quality, naive - np.square(target.values - mean)), residual


def _judge_classes(
    target: Target, odds: Floats, ranker: Classes
) -> tuple[pd.DataFrame, JudgedValues]:
    """Return the table of held-out items and what it says in all, from (model, item) log odds."""
    names, value = np.array(target.classes), target.values.astype(int)
    if len(names) > 2:
        chosen = odds.argmax(axis=0)
    else:
        positive = target.classes.index(ranker.positive)
        chosen = np.where(odds[0] > 0, positive, 1 - positive)
    table = pd.DataFrame({"item": target.items, "value": names[value], "predicted": names[chosen]})
    right = chosen == value
    shares = np.bincount(value, minlength=len(names)) / len(value)
    loss, naive = _lose(odds, value, names, ranker), -np.log(shares[value])
    quality = {
        "log_loss": float(loss.mean()),
        "log_loss_of_shares": float(naive.mean()),
        "accuracy": float(right.mean()),
        "balanced_accuracy": float(np.mean([right[value == n].mean() for n in range(len(names))])),
        "share_of_largest_class": float(shares.max()),
    }
    return table, JudgedValues(quality, naive - loss)


def _lose(odds: Floats, value: np.ndarray, names: np.ndarray, ranker: Classes) -> Floats:
    """Return minus the log probability of the class that each item has, (item,), in nats."""
    found = expit(odds)
    if len(names) == 2:
        found = np.concatenate([1 - found, found])
        if names[0] == ranker.positive:
            found = found[::-1]
    found = found / found.sum(axis=0)
    loss: Floats = -np.log(found[value, np.arange(len(value))].clip(min=1e-12))
    return loss


def fit_conformal(error: Floats, spread: Floats) -> float:
    """Return the residual that makes `error` lie in 90 % of intervals Z * hypot(spread, residual).

    Split-conformal over intervals that grow with one number (Gupta et al. 2022, "Nested
    conformal prediction"): each held-out error tells how large the residual must be to hold it.
    """
    needed = np.sort(np.sqrt(np.maximum(np.square(error / Z_90) - np.square(spread), 0)))
    rank = int(np.ceil((len(needed) + 1) * COVERAGE))
    return float(needed[min(rank, len(needed)) - 1])


def _choose_decay(
    items: ItemFeatures,
    wanted: Floats,
    loss: Loss[Values],
    folds: Sequence[np.ndarray],
    config: RankConfig,
    random: np.random.Generator,
) -> tuple[float, float, Floats]:
    """Return the penalty to use; the mean loss and levels (row, item) of held-out values."""
    head, decays = HEADS[config.head], sorted(config.decays)
    losses = np.zeros((len(folds), len(decays)))
    foretold = np.empty((len(decays), *wanted.shape))
    for fold, held in enumerate(folds):
        for number, row in enumerate(wanted):
            start = head.start(items.mean.shape[1], random)
            for place in reversed(range(len(decays))):
                said, unseen = _weigh(row, ~held), _weigh(row, held)
                start, own = fit_head(head, loss, items.mean, items, said, decays[place], start)
                levels = place_items(config, start[None], items)[0]
                losses[fold, place] += _judge(loss, levels, unseen, own)
                foretold[place, number, held] = levels[held] + own
    chosen = choose_penalty(losses)
    return decays[chosen], float(losses[:, chosen].mean()), foretold[chosen]


def _judge(loss: Loss[Values], levels: Floats, said: Values, own: float) -> float:
    return float(loss(Levels(torch.from_numpy(levels)), said, torch.tensor(own)))


def _weigh(values: Floats, weight: np.ndarray) -> Values:
    return Values(torch.from_numpy(values), torch.from_numpy(weight.astype(np.float64)))


def _fit_weighted(
    items: ItemFeatures,
    values: Floats,
    seen: np.ndarray,
    loss: Loss[Values],
    decay: float,
    config: RankConfig,
    random: np.random.Generator,
    noise: float,
) -> tuple[Floats, Floats]:
    """Return what `fit_ensemble` does, for the items that are seen."""

    def resampled() -> Values:
        # The Bayesian bootstrap (Rubin 1981) leaves no item, hence no class, out altogether.
        return _weigh(values, random.standard_exponential(len(values)) * seen)

    said = _weigh(values, seen)
    return fit_ensemble(items, loss, said, resampled, decay, config, random, noise)
