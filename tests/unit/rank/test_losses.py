"""The likelihood of comparisons: its gradients, its twin, and what it must not depend on."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import approx_fprime

from ecofm.rank.losses import davidson_loss, davidson_loss_torch

DIFFERENCES = arrays(np.float64, 5, elements=st.floats(-20, 20))
COUNTS = arrays(np.float64, (5, 3), elements=st.floats(0.1, 10))
TIES = st.floats(-4, 4)


@settings(max_examples=50, deadline=None)
@given(DIFFERENCES, COUNTS, TIES)
def test_gradients_equal_finite_differences(
    difference: np.ndarray, counts: np.ndarray, log_tie: float
) -> None:
    _, slope, tie_slope = davidson_loss(difference, counts, log_tie)
    found = approx_fprime(
        np.append(difference, log_tie),
        lambda x: davidson_loss(x[:-1], counts, float(x[-1]))[0],
        1e-6,
    )
    assert np.allclose(np.append(slope, tie_slope), found, atol=1e-4)


@settings(max_examples=50, deadline=None)
@given(DIFFERENCES, COUNTS, TIES)
def test_the_torch_twin_is_equal_in_value_and_gradient(
    difference: np.ndarray, counts: np.ndarray, log_tie: float
) -> None:
    loss, slope, tie_slope = davidson_loss(difference, counts, log_tie)
    inputs = torch.tensor(difference, requires_grad=True), torch.tensor(log_tie, requires_grad=True)
    twin = davidson_loss_torch(inputs[0], torch.from_numpy(counts), inputs[1])
    twin.backward()
    assert np.isclose(twin.item(), loss)
    assert np.allclose(inputs[0].grad, slope) and np.isclose(inputs[1].grad, tie_slope)


@settings(max_examples=50, deadline=None)
@given(DIFFERENCES, COUNTS, TIES)
def test_swapped_sides_are_equally_likely(
    difference: np.ndarray, counts: np.ndarray, log_tie: float
) -> None:
    loss, slope, tie_slope = davidson_loss(difference, counts, log_tie)
    turned = davidson_loss(-difference, counts[:, [1, 0, 2]], log_tie)
    assert np.isclose(loss, turned[0]) and np.allclose(slope, -turned[1])
    assert np.isclose(tie_slope, turned[2])


def test_known_likelihoods() -> None:
    one = np.array([[1.0, 0, 0]])
    assert np.isclose(davidson_loss(np.zeros(1), one, 0.0)[0], np.log(3))
    assert np.isclose(davidson_loss(np.zeros(1), one, -50.0)[0], np.log(2))
    # Bradley-Terry: the log odds of left to right are the difference itself.
    left, right = (davidson_loss(np.array([2.0]), c, 0.0)[0] for c in (one, one[:, [1, 0, 2]]))
    assert np.isclose(right - left, 2.0)


def test_only_the_share_of_a_weight_counts() -> None:
    difference, counts = np.array([0.5, -2.0]), np.array([[3.0, 1, 0], [0, 2, 5]])
    assert np.isclose(
        davidson_loss(difference, counts, 0.3)[0], davidson_loss(difference, 7 * counts, 0.3)[0]
    )


def test_certain_answers_stay_finite() -> None:
    loss, slope, _ = davidson_loss(
        np.array([2000.0, -2000.0]), np.array([[0.0, 1, 0], [1, 0, 0]]), 0.0
    )
    assert np.isfinite(loss) and np.isfinite(slope).all()
