"""Metrics: known answers, agreement with scipy, and intervals that cover."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from ecofm.benchmark.metrics import (
    bound,
    estimate_difference,
    estimate_spearman,
    partial_spearman,
    pearson,
    r2,
    r2_log,
    resample_correlations,
    spearman,
)
from ecofm.errors import EcofmError

numbers = arrays(np.float64, st.shared(st.integers(5, 30), key="n"), elements=st.integers(-9, 9))


@given(x=numbers, y=numbers)
def test_correlations_are_those_of_scipy(x: np.ndarray, y: np.ndarray) -> None:
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        assert np.isnan(spearman(x, y))
        assert np.isnan(pearson(x, y))
        return
    assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
    assert pearson(x, y) == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-12)
    assert r2(x, y) == pytest.approx(stats.linregress(x, y).rvalue ** 2, abs=1e-12)


@given(x=numbers, y=numbers)
def test_spearman_ignores_monotone_maps_and_turns_with_the_sign(
    x: np.ndarray, y: np.ndarray
) -> None:
    value = spearman(x, y)
    np.testing.assert_allclose(spearman(np.exp(x / 3), y), value, atol=1e-12)
    np.testing.assert_allclose(spearman(-x, y), -value, atol=1e-12)


def test_r2_of_logs_finds_a_power_law() -> None:
    x = np.arange(1.0, 20)
    assert r2_log(x, x**3) == pytest.approx(1)
    assert r2_log(np.log(x) - 1, x**3) == pytest.approx(1)
    with pytest.raises(EcofmError, match="above 0 everywhere"):
        r2_log(x, x - 1)


def test_missing_pairs_are_left_out_and_counted() -> None:
    x = np.array([1, 2, 3, 4, 5, np.nan, 7, np.inf])
    y = np.array([1, 2, 3, 4, 6, 1, np.nan, 2])
    assert spearman(x, y) == pytest.approx(1)
    estimate = estimate_spearman(x, y)
    assert (estimate.n, estimate.n_left_out) == (5, 3)
    with pytest.raises(EcofmError, match=r"4 of 8 places .* at least 5"):
        spearman(x, np.where(y == 6, np.nan, y))


def test_partial_spearman_removes_what_the_covariate_explains() -> None:
    rng = np.random.default_rng(0)
    colour = rng.normal(size=2_000)
    x, y = colour + rng.normal(size=(2, 2_000))
    assert spearman(x, y) > 0.4
    assert abs(partial_spearman(x, y, [colour])) < 0.06
    assert abs(partial_spearman(x, y, [colour, colour])) < 0.06
    other = rng.normal(size=2_000)
    assert partial_spearman(x, y, [other]) == pytest.approx(spearman(x, y), abs=0.03)


def test_partial_spearman_has_the_known_formula() -> None:
    x, y, z = np.random.default_rng(1).normal(size=(3, 50)) + np.linspace(0, 3, 50)
    xy, xz, yz = spearman(x, y), spearman(x, z), spearman(y, z)
    expected = (xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2))
    assert partial_spearman(x, y, [z]) == pytest.approx(expected)


@settings(max_examples=30)
@given(table=arrays(np.float64, (12, 3), elements=st.integers(0, 5)), ranks=st.booleans())
def test_resamples_are_those_of_the_plain_bootstrap(table: np.ndarray, ranks: bool) -> None:
    """The counted ranks equal ranking each resample anew, ties included."""
    found = resample_correlations(table, ranks=ranks, n_resamples=8, seed=3)
    drawn = np.random.default_rng(3).integers(0, 12, size=(8, 12))
    for matrix, rows in zip(found, drawn, strict=True):
        again = table[rows]
        again = stats.rankdata(again, axis=0) if ranks else again
        with np.errstate(invalid="ignore", divide="ignore"):
            expected = np.corrcoef(again.T)
        for i, j in ((0, 1), (1, 2)):
            if np.ptp(again[:, i]) and np.ptp(again[:, j]):
                assert matrix[i, j] == pytest.approx(expected[i, j], abs=1e-9)
            else:
                assert np.isnan(matrix[i, j])


def test_resamples_do_not_depend_on_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    table = np.random.default_rng(2).normal(size=(40, 2))
    whole = resample_correlations(table, ranks=True, n_resamples=50, seed=0)
    monkeypatch.setattr("ecofm.benchmark.metrics.BATCH_NUMBERS", 80)
    parts = resample_correlations(table, ranks=True, n_resamples=50, seed=0)
    np.testing.assert_allclose(whole, parts, atol=1e-12)


def test_intervals_cover_the_truth_in_nineteen_of_twenty() -> None:
    rng = np.random.default_rng(4)
    truth = 6 / np.pi * np.arcsin(0.7 / 2)  # Spearman of a normal pair with Pearson .7
    covered = 0
    for seed in range(100):
        x, y = rng.multivariate_normal([0, 0], [[1, 0.7], [0.7, 1]], size=100).T
        estimate = estimate_spearman(x, y, seed=seed)
        covered += estimate.lower <= truth <= estimate.upper
    assert 88 <= covered <= 100


def test_paired_differences_are_tighter_than_single_intervals() -> None:
    rng = np.random.default_rng(5)
    target = rng.normal(size=300)
    ours = target + rng.normal(size=300)
    rival = ours + 0.1 * rng.normal(size=300)
    single = estimate_spearman(ours, target)
    paired = estimate_difference(ours, rival, target)
    assert paired.upper - paired.lower < 0.5 * (single.upper - single.lower)
    back = estimate_difference(rival, ours, target)
    assert (back.value, back.lower) == pytest.approx((-paired.value, -paired.upper))
    worse = estimate_difference(ours, rng.normal(size=300), target)
    assert worse.lower > 0.3


def test_an_interval_of_constant_resamples_is_refused() -> None:
    with pytest.raises(EcofmError, match="most resamples are constant"):
        bound(np.array([np.nan, np.nan, 0.5]))
