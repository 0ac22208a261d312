"""Losses of levels: known values, what they must not depend on, and where they are least."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import spearmanr

from ecofm.rank.losses import (
    LOSSES,
    Answers,
    Levels,
    Loss,
    LossName,
    Ordering,
    davidson,
)

N_ITEMS = 5
LEFT, RIGHT = np.triu_indices(N_ITEMS, 1)
NO_TIE = torch.tensor(0.0, dtype=torch.float64)
LEVELS = arrays(np.float64, N_ITEMS, elements=st.floats(-5, 5))
PLACES = st.lists(st.integers(0, 3), min_size=N_ITEMS, max_size=N_ITEMS)


def ordered(place: list[int], *, whole: bool) -> Answers:
    """The comparisons of one annotator who placed all items, as an ordering or one by one."""
    lead = np.sign(np.array(place)[LEFT] - np.array(place)[RIGHT])
    counts = torch.from_numpy(np.stack([lead > 0, lead < 0, lead == 0], axis=1).astype(float))
    rank = torch.tensor([sum(q < p for q in place) + (place.count(p) + 1) / 2 for p in place])
    orderings = (Ordering(torch.arange(N_ITEMS), rank.double(), 1.0),) if whole else ()
    single = torch.zeros_like(counts) if whole else counts
    return Answers(torch.from_numpy(LEFT), torch.from_numpy(RIGHT), counts, single, orderings)


def value(name: LossName, levels: np.ndarray, answers: Answers) -> float:
    return LOSSES[name](Levels(torch.from_numpy(levels)), answers, NO_TIE).item()


@pytest.mark.parametrize("name", LossName)
@pytest.mark.parametrize("whole", [False, True])
@settings(max_examples=25)
@given(LEVELS, PLACES)
def test_only_differences_count_and_numbers_of_items_do_not(
    name: LossName, whole: bool, levels: np.ndarray, place: list[int]
) -> None:
    found = value(name, levels, ordered(place, whole=whole))
    assert np.isfinite(found)
    assert np.isclose(value(name, levels + 3, ordered(place, whole=whole)), found)
    turned = value(name, levels[::-1].copy(), ordered(place[::-1], whole=whole))
    assert np.isclose(turned, found)


@pytest.mark.parametrize("name", LossName)
@pytest.mark.parametrize("whole", [False, True])
def test_the_right_order_costs_less_than_any_swap_and_the_reverse_most(
    name: LossName, whole: bool
) -> None:
    place = [0, 1, 2, 3, 4]
    answers = ordered(place, whole=whole)
    levels = np.array(place, dtype=float)
    best, worst = value(name, levels, answers), value(name, levels[::-1].copy(), answers)
    for first in range(N_ITEMS - 1):
        swapped = levels.copy()
        swapped[[first, first + 1]] = levels[[first + 1, first]]
        assert best < value(name, swapped, answers) < worst


@pytest.mark.parametrize("name", LossName)
def test_gradients_are_those_of_finite_differences(name: LossName) -> None:
    answers = ordered([0, 2, 1, 1, 3], whole=True)
    variance = torch.tensor([0.5, 0, 2, 1, 0], dtype=torch.float64)

    def loss(levels: torch.Tensor, log_tie: torch.Tensor) -> torch.Tensor:
        return LOSSES[name](Levels(levels * 0.02, variance), answers, log_tie)

    levels = torch.randn(N_ITEMS, dtype=torch.float64, requires_grad=True)
    tie = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(loss, (levels, tie))


def test_soft_ranks_of_clear_levels_give_spearman() -> None:
    place, levels = [0, 1, 2, 3, 4], np.array([3.0, 10, 1, 20, 15])
    found = value(LossName.soft_rank, levels, ordered(place, whole=True))
    assert np.isclose(found, 1 - spearmanr(place, levels)[0], atol=1e-6)


def test_plackett_luce_of_two_items_is_bradley_terry() -> None:
    one = torch.tensor([[1.0, 0, 0]], dtype=torch.float64)
    left, right = torch.tensor([1]), torch.tensor([0])
    pair = Answers(left, right, one, one)
    listed = Answers(
        left, right, one, 0 * one,
        (Ordering(torch.tensor([0, 1]), torch.tensor([1.0, 2], dtype=torch.float64), 1.0),),
    )  # fmt: skip
    levels = np.array([0.3, 1.1])
    expected = np.log1p(np.exp(-0.8))
    for answers in (pair, listed):
        assert np.isclose(value(LossName.plackett_luce, levels, answers), expected)
        assert np.isclose(value(LossName.ranknet, levels, answers), expected)


def test_items_whose_members_differ_are_less_certain_to_win() -> None:
    answers = ordered([0, 1, 2, 3, 4], whole=False)
    levels = torch.arange(5.0, dtype=torch.float64)
    loss: Loss = LOSSES[LossName.set_to_set]
    narrow, wide = (
        loss(Levels(levels, torch.full((5,), v, dtype=torch.float64)), answers, NO_TIE).item()
        for v in (0.0, 4.0)
    )
    assert np.isclose(narrow, value(LossName.davidson, levels.numpy(), answers))
    assert wide > narrow


def test_known_likelihoods_of_davidson() -> None:
    one = torch.tensor([[1.0, 0, 0]], dtype=torch.float64)
    zero = torch.zeros(1, dtype=torch.float64)
    assert np.isclose(davidson(zero, one, NO_TIE).item(), np.log(3))
    assert np.isclose(davidson(zero, one, NO_TIE - 50).item(), np.log(2))
    # Bradley-Terry: the log odds of left to right are the difference itself.
    left, right = (davidson(zero + 2, c, NO_TIE).item() for c in (one, one[:, [1, 0, 2]]))
    assert np.isclose(right - left, 2.0)
    assert np.isclose(davidson(zero + 1, 7 * one, NO_TIE), davidson(zero + 1, one, NO_TIE))
    far = davidson(zero + 2000, one[:, [1, 0, 2]], NO_TIE)
    assert torch.isfinite(far)
