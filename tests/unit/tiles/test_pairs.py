"""The choice of pairs: the order that tiles come in, and which tile each is paired with."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecofm.tiles.pairs import PairConfig, Season, permute
from tests.unit.tiles.test_loader import Painted, make, painted


@given(st.integers(1, 5000), st.integers(0, 2**100))
@settings(max_examples=60)
def test_the_order_is_a_permutation(n: int, key: int) -> None:
    found = permute(np.arange(n, dtype=np.int64), n, key)
    assert np.array_equal(np.sort(found), np.arange(n))
    assert np.array_equal(found[::-1], permute(np.arange(n, dtype=np.int64)[::-1], n, key))


def test_the_order_depends_on_the_key_and_looks_random() -> None:
    places = np.arange(4096, dtype=np.int64)
    one, two = permute(places, 4096, 1), permute(places, 4096, 2)
    assert (one == two).mean() < 0.01
    assert abs(np.corrcoef(places, one)[0, 1]) < 0.06
    assert (np.diff(one) == 1).mean() < 0.01


@given(st.integers(1, 60), st.integers(1, 25), st.integers(0, 2**32))
@settings(max_examples=40)
def test_each_tile_is_an_anchor_once_an_epoch(n: int, batch_size: int, seed: int) -> None:
    loader = make(painted(n, 1), batch_size=batch_size, seed=seed)
    anchors = np.concatenate([loader.pairs(step)[:, 0] for step in range(3 * n)])
    for epoch in range(2):
        assert sorted(anchors[epoch * n : (epoch + 1) * n]) == list(range(n))


def test_seeds_and_epochs_have_orders_of_their_own() -> None:
    loaders = [make(painted(16), batch_size=48, seed=seed) for seed in (0, 1)]
    orders = [loader.pairs(step)[:, 0].tolist() for loader in loaders for step in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4


def test_a_partner_is_another_period_of_the_cell() -> None:
    archive = painted(6, 3)
    loader = make(archive, batch_size=18)
    seen = set()
    for step in range(60):
        for anchor, partner in loader.pairs(step).tolist():
            assert archive.index["cell_id"][anchor] == archive.index["cell_id"][partner]
            assert archive.index["period"][anchor] != archive.index["period"][partner]
            seen.add((anchor, partner))
    assert len(seen) == 18 * 2, "every other period is chosen at some time"
    assert loader.has_temporal_pairs


def test_partners_are_drawn_anew_at_each_step() -> None:
    loader = make(painted(1, 30), batch_size=1)
    steps = [int(pair[1] - pair[0]) % 30 for step in range(60) for pair in loader.pairs(step)]
    assert len(set(steps)) > 15 and 0 not in steps


def test_without_another_period_a_tile_is_its_own_partner() -> None:
    for archive in (painted(9, 1), Painted(["a.png", "b.png"], ["none", "none"])):
        loader = make(archive)
        for step in range(5):
            pairs = loader.pairs(step)
            assert np.array_equal(pairs[:, 0], pairs[:, 1])
        assert not loader.has_temporal_pairs


def test_archives_are_paired_by_cell_and_chips_are_not() -> None:
    first = Painted(["x", "y", "x", "a.png"], ["2018", "2018", "2019", "none"])
    second = Painted(["x", "y", "a.png"], ["2018", "2018", "none"], first=4)
    loader = make([first, second], batch_size=7)
    partners: dict[int, set[int]] = {n: set() for n in range(7)}
    for step in range(60):
        for anchor, partner in loader.pairs(step).tolist():
            partners[anchor].add(partner)
    assert partners == {0: {2}, 2: {0, 4}, 4: {2}, 1: {1}, 5: {5}, 3: {3}, 6: {6}}


def pairs_of(archive: Any, n_steps: int = 40, **options: Any) -> list[tuple[int, int]]:
    """Return all pairs of some steps of 20."""
    loader = make(archive, batch_size=20, pairs=PairConfig(**options))
    return [(int(a), int(b)) for step in range(n_steps) for a, b in loader.pairs(step)]


DAYS = ["2018-06-01", "2018-12-01", "2019-06-10", "2020-05-25", "2021-12-05"]


@given(st.integers(0, 900), st.integers(0, 900), st.sampled_from(Season))
@settings(max_examples=40)
def test_partners_keep_the_gap_and_the_season(least: int, more: int, season: Season) -> None:
    archive = Painted([f"c{n}" for n in range(4) for _ in DAYS], DAYS * 4)
    options = {"min_gap_days": least, "max_gap_days": least + more, "season": season}
    day = archive.index["day"].to_numpy()

    def fits(one: int, other: int) -> bool:
        gap = abs(int(day[one] - day[other]))
        apart = min(gap % 365.25, 365.25 - gap % 365.25)
        is_same = season is Season.any or (apart <= 45) == (season is Season.same)
        return one != other and least <= gap <= least + more and is_same

    seen = set(pairs_of(archive, 12, **options))
    for anchor, partner in seen:
        others = {anchor - anchor % 5 + n for n in range(5)}
        possible = {other for other in others if fits(anchor, other)}
        assert partner in (possible or {anchor})


def test_every_partner_that_fits_is_taken_at_some_time() -> None:
    archive = Painted(["c"] * 5, DAYS)
    pairs = pairs_of(archive, season=Season.same, min_gap_days=200)
    found = {(DAYS[a], DAYS[b]) for a, b in pairs}
    summer, winter = (DAYS[0], DAYS[2], DAYS[3]), (DAYS[1], DAYS[4])
    assert found == {*permutations(summer, 2), *permutations(winter, 2)}


def test_a_share_of_the_pairs_is_of_one_period() -> None:
    pairs = pairs_of(painted(6, 3), 200, same_period_share=0.25)
    share = np.mean([a == b for a, b in pairs])
    assert abs(share - 0.25) < 0.03
    without = pairs_of(painted(6, 3), 200)
    assert all(b in (d, a) for (a, b), (_, d) in zip(pairs, without, strict=True))


def test_tiles_with_few_valid_pixels_are_in_no_pair() -> None:
    archive = painted(6, 3)
    archive.index["valid_share"] = np.linspace(0, 1, 18)
    pairs = pairs_of(archive, 3, min_valid_share=0.5)
    assert {tile for pair in pairs for tile in pair} == set(range(9, 18))
    assert sorted(a for a, _ in pairs[:9]) == list(range(9, 18)), "each is an anchor once an epoch"
    with pytest.raises(ValueError, match=r"no tile has 100\.0% valid pixels"):
        archive.index["valid_share"] = 0.9
        make(archive, pairs=PairConfig(min_valid_share=1.0))


@pytest.mark.parametrize(
    "options",
    [{"min_valid_share": 2}, {"same_period_share": -1}, {"min_gap_days": 9, "max_gap_days": 3}],
)
def test_pairs_that_cannot_be_are_refused(options: Any) -> None:
    with pytest.raises(ValueError):
        PairConfig(**options)
