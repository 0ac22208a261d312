"""Heads, losses and ensembles: each learns what it can, and intervals mean what they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from ecofm.rank.calibration import Judged, fit_residual, fit_scale
from ecofm.rank.features import Basis, Kernel, build_basis, build_kernel
from ecofm.rank.fit import Fit, fit_heads
from ecofm.rank.heads import Ensemble, HeadName, RankConfig
from ecofm.rank.items import (
    MIN_WEIGHT,
    ItemPairs,
    gather_features,
    pair_items,
    to_answers,
    weigh_annotators,
)
from ecofm.rank.losses import LossName

N_TILES, DIM = 240, 6
TILE_IDS = pd.Series([f"{i:03d}.png@none" for i in range(N_TILES)])
MATRIX = np.random.default_rng(3).normal(size=(N_TILES, DIM))
LINEAR = MATRIX @ np.array([1.0, -1, 0.5, 0, 0, 0])
CURVED = np.abs(MATRIX[:, 0]) * 2


def judge(truth: np.ndarray, n: int, *, repeats: int = 1, noise: float = 0.3) -> pd.DataFrame:
    """Comparisons of tiles by two annotators, who see the truth with logistic noise."""
    random = np.random.default_rng(5)
    rows = []
    for _ in range(n):
        left, right = random.choice(N_TILES, 2, replace=False)
        for number in range(repeats):
            seen = truth[left] - truth[right] + random.logistic(0, noise)
            rows.append(
                (f"a{number}", TILE_IDS[left], TILE_IDS[right], "left" if seen > 0 else "right")
            )
    return pd.DataFrame(rows, columns=["annotator", "left", "right", "outcome"])


def fit(table: pd.DataFrame, matrix: np.ndarray = MATRIX, **more: object) -> Fit:
    config = RankConfig(**{"n_heads": 4, "decays": [1e-3, 1e-2], "folds": 3} | more)
    features: Basis | Kernel = build_basis(matrix, DIM)
    if config.head is HeadName.gp:
        assert isinstance(features, Basis)
        features = build_kernel(features, matrix, np.random.default_rng(0))
    return fit_heads(matrix, features, pair_items(table, TILE_IDS, None), config)


@pytest.mark.parametrize("loss", LossName)
def test_each_loss_recovers_the_order(loss: LossName) -> None:
    scores = fit(judge(LINEAR, 300), loss=loss).heads.predict(MATRIX).mean(axis=0)
    assert spearmanr(scores, LINEAR)[0] > 0.9


def test_curved_heads_see_what_a_straight_one_cannot() -> None:
    table = judge(CURVED, 500)
    found = {
        head: spearmanr(fit(table, head=head).heads.predict(MATRIX).mean(axis=0), CURVED)[0]
        for head in HeadName
    }
    assert found[HeadName.linear] < 0.5
    assert min(found[HeadName.mlp], found[HeadName.gp]) > 0.8


def test_draws_from_the_posterior_narrow_with_the_answers() -> None:
    spreads = [
        fit(judge(LINEAR, n), ensemble=Ensemble.laplace, n_heads=50, decays=[1e-3])
        .heads.predict(MATRIX)
        .std(axis=0)
        .mean()
        for n in (100, 900)
    ]
    # The deviation of a posterior falls with the root of the number of answers.
    assert 2 < spreads[0] / spreads[1] < 4.5


@pytest.mark.parametrize("residual", [0.3, 0.9])
def test_repeated_answers_tell_how_far_places_stray(residual: float) -> None:
    strayed = LINEAR / LINEAR.std() + residual * np.random.default_rng(9).normal(size=N_TILES)
    told = fit(judge(strayed, 900, repeats=2)).heads
    error = told.predict(MATRIX).mean(axis=0) - (strayed - strayed.mean()) / strayed.std()
    assert told.residual is not None
    share = 1 / (1 + residual**2) ** 0.5
    assert told.residual.deviation == pytest.approx(residual * share, rel=0.35)
    assert told.predict(MATRIX).mean(axis=0).std() == pytest.approx(share, rel=0.15)
    assert abs(told.residual.tilt) < 0.35
    half_width = 1.645 * told.spread(told.predict(MATRIX))
    assert 0.84 < (np.abs(error) < half_width).mean() <= 0.99
    # Nobody was asked twice: people's slips are taken for places that stray.
    alone = fit(judge(strayed, 900, repeats=1, noise=0.6)).heads.residual
    assert alone is not None and alone.deviation > told.residual.deviation


def test_the_table_of_held_out_pairs_says_how_often_the_higher_wins() -> None:
    unseen = fit(judge(LINEAR, 900)).evidence.unseen
    assert unseen is not None
    table = unseen.judged.table()
    assert (np.diff(table["gap"]) > 0).all() and table["n"].sum() == unseen.judged.counts.sum()
    assert table["won"].iloc[-1] > 0.9 > 0.75 > table["won"].iloc[0]
    assert np.abs(table["won"] - table["expected"]).max() < 0.08


def test_the_scale_of_known_odds_is_found() -> None:
    gap = np.linspace(-2, 2, 41)
    odds = np.stack([gap * 3 / 2, -gap * 3 / 2, np.full(41, -0.5)], axis=1)
    counts = np.exp(odds) / np.exp(odds).sum(axis=1, keepdims=True) * 1000
    assert fit_scale(gap, counts) == pytest.approx([3, -0.5], abs=0.03)


def test_tiles_of_one_cell_are_held_out_together() -> None:
    tile_ids = pd.Series([f"c{i // 2}@{2018 + i % 2}" for i in range(20)])
    rows = [("a", tile_ids[i], tile_ids[i + 2], "left") for i in range(18)]
    pairs = pair_items(pd.DataFrame(rows, columns=judge(LINEAR, 1).columns), tile_ids, None)
    places = dict(zip(pairs.items, pairs.places.tolist(), strict=True))
    assert places["c3@2018"] == places["c3@2019"] != places["c4@2018"]
    assert len(set(places.values())) == 10


def test_members_are_read_in_chunks_and_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    members = [np.arange(0, 100), np.arange(50, 240), np.array([7])]
    found = []
    for rows in (1000, 16):
        monkeypatch.setattr("ecofm.rank.items.CHUNK_ROWS", rows)
        random = np.random.default_rng(0)
        found.append(gather_features(MATRIX, lambda part: part, members, 300, random))
    for items in found:
        assert items.mean == pytest.approx(np.array([MATRIX[m].mean(axis=0) for m in members]))
        assert items.several.tolist() == [0, 1]
        # A bootstrap: the deviation of a mean of n is that of one over the root of n.
        expected = np.array([MATRIX[m].std(axis=0) / len(m) ** 0.5 for m in members[:2]])
        assert items.drawn.std(axis=0) == pytest.approx(expected, rel=0.2)
        assert items.draw(3)[2] == pytest.approx(MATRIX[7])


def test_whole_orderings_are_told_from_single_comparisons() -> None:
    rows = [("ada", "c", "b", "left"), ("ada", "b", "a", "left"), ("ada", "c", "a", "left")]
    rows += [("bo", "a", "b", "tie"), ("bo", "c", "b", "left")]
    table = pd.DataFrame(rows, columns=judge(LINEAR, 1).columns)
    pairs: ItemPairs = pair_items(table, pd.Series(["a", "b", "c"]), None)
    answers = to_answers(pairs, np.array([2.0, 1.0]))
    (ordering,) = answers.orderings
    assert ordering.place.tolist() == [1, 2, 3] and ordering.weight == 2
    assert answers.counts.sum() == 8 and answers.single.sum() == 2
    assert to_answers(pairs, np.array([0.0, 1.0])).orderings == ()


def test_who_guesses_or_answers_upside_down_counts_for_little() -> None:
    """Of five annotators who answer the same 60 pairs, one guesses and one is contrary."""
    table = judge(LINEAR, 60, repeats=5)
    random = np.random.default_rng(0)
    guesses, contrary = table["annotator"] == "a3", table["annotator"] == "a4"
    table.loc[guesses, "outcome"] = random.choice(["left", "right"], guesses.sum())
    turned = {"left": "right", "right": "left"}
    table.loc[contrary, "outcome"] = table.loc[contrary, "outcome"].map(turned)
    weights = weigh_annotators(table)
    assert (weights[:3] > 0.7).all() and weights[3] < 0.4 and weights[4] == MIN_WEIGHT
    pairs = pair_items(table, TILE_IDS, None)
    assert pairs.weight.tolist() == weights.tolist()
    assert np.isclose(pairs.summed.sum(), 60 * weights.sum())
    found = spearmanr(fit(table).heads.predict(MATRIX).mean(axis=0), LINEAR)[0]
    honest = fit(table[~guesses & ~contrary]).heads.predict(MATRIX).mean(axis=0)
    assert found > spearmanr(honest, LINEAR)[0] - 0.03 and found > 0.85
    assert weigh_annotators(table[guesses]).tolist() == [1]


def test_a_posterior_for_the_hidden_layer_is_refused() -> None:
    with pytest.raises(ValueError, match="laplace needs head=linear or gp"):
        RankConfig(head=HeadName.mlp, ensemble=Ensemble.laplace)


def test_places_that_stray_the_more_the_higher_they_stand_are_told() -> None:
    level = LINEAR / LINEAR.std()
    deviation = 0.5 * np.exp(0.5 * level.clip(-2, 2))
    strayed = level + deviation * np.random.default_rng(9).normal(size=N_TILES)
    told = fit(judge(strayed, 2000, repeats=3)).heads
    assert told.residual is not None and 0.2 < told.residual.tilt < 0.8
    stray = told.residual.at(np.array([-5.0, -2, 0, 2, 5]))
    assert stray[0] == stray[1] < stray[2] < stray[3] == stray[4]


def test_too_few_repeated_pairs_tell_nothing(tmp_path: Path) -> None:
    pairs = pair_items(judge(LINEAR, 20, repeats=2), TILE_IDS, None)
    counts = pairs.counts.sum(axis=0)
    levels = np.zeros((len(counts), 2))
    judged = Judged.score(np.arange(len(counts)), levels, counts, np.array([1.0, 0.0]))
    assert fit_residual(judged, pairs) is None
