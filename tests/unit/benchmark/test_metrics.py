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
    log_if_positive,
    partial,
    resample_correlations,
)
from ecofm.errors import EcofmError


def rank_matrix(*columns: np.ndarray) -> np.ndarray:
    return np.asarray(np.corrcoef(stats.rankdata(np.array(columns), axis=1)))


def interval(*columns: np.ndarray, rival: bool = False, seed: int = 0) -> tuple[float, float]:
    """Of Spearman of the first two columns, or of (0, 2) less (1, 2) with a rival."""
    table = np.column_stack(columns)
    drawn = resample_correlations(table, ranks=True, n_resamples=1_000, seed=seed)
    return bound(drawn[:, 0, 2] - drawn[:, 1, 2] if rival else drawn[:, 0, 1])


def test_logarithms_are_taken_of_positive_values_only() -> None:
    x = np.arange(1.0, 20)
    np.testing.assert_array_equal(log_if_positive(x), np.log(x))
    np.testing.assert_array_equal(log_if_positive(x - 1), x - 1)


def test_a_partial_correlation_removes_what_the_covariate_explains() -> None:
    rng = np.random.default_rng(0)
    colour = rng.normal(size=2_000)
    x, y = colour + rng.normal(size=(2, 2_000))
    plain = rank_matrix(x, y)[0, 1]
    assert plain > 0.4
    assert abs(partial(rank_matrix(x, y, colour))) < 0.06
    assert abs(partial(rank_matrix(x, y, colour, colour))) < 0.06
    assert partial(rank_matrix(x, y, rng.normal(size=2_000))) == pytest.approx(plain, abs=0.03)


def test_a_partial_correlation_has_the_known_formula() -> None:
    matrix = rank_matrix(*(np.random.default_rng(1).normal(size=(3, 50)) + np.linspace(0, 3, 50)))
    xy, xz, yz = matrix[0, 1], matrix[0, 2], matrix[1, 2]
    expected = (xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2))
    assert partial(matrix) == pytest.approx(expected)
    batch = partial(np.stack([matrix, np.full((3, 3), np.nan)]))
    assert batch[0] == pytest.approx(expected) and np.isnan(batch[1])


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
        lower, upper = interval(x, y, seed=seed)
        covered += lower <= truth <= upper
    assert 88 <= covered <= 100


def test_paired_differences_are_tighter_than_single_intervals() -> None:
    rng = np.random.default_rng(5)
    target = rng.normal(size=300)
    ours = target + rng.normal(size=300)
    rival = ours + 0.1 * rng.normal(size=300)
    single, paired = interval(ours, target), interval(ours, rival, target, rival=True)
    assert paired[1] - paired[0] < 0.5 * (single[1] - single[0])
    back = interval(rival, ours, target, rival=True)
    assert back == pytest.approx((-paired[1], -paired[0]))
    assert interval(ours, rng.normal(size=300), target, rival=True)[0] > 0.3


def test_an_interval_of_constant_resamples_is_refused() -> None:
    with pytest.raises(EcofmError, match="most resamples are constant"):
        bound(np.array([np.nan, np.nan, 0.5]))
