"""What nobody said is not learned: refusals, held-out figures, and intervals that follow them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecofm.errors import EcofmError
from ecofm.rank.evidence import (
    Evidence,
    Verdict,
    weigh_evidence,
)
from ecofm.rank.features import build_basis
from ecofm.rank.fit import fit_heads
from ecofm.rank.heads import HeadName, RankConfig
from ecofm.rank.items import ItemPairs, pair_items
from ecofm.rank.luck import exchange_places, measure_luck
from ecofm.rank.unseen import deal_places, fit_consensus_alone, judge_unseen
from tests.unit.rank.test_rank import MATRIX, N_TILES, TILE_IDS, TRUTH

COLUMNS = ["annotator", "left", "right", "outcome"]
QUICK = RankConfig(n_heads=3, decays=[1e-2])
FEATURES = MATRIX.astype(np.float64)
BASIS = build_basis(FEATURES, 12)


def vote(n: int, seed: int = 0, *, guess: float = 0.0, people: int = 3) -> pd.DataFrame:
    """Answers about n pairs of tiles, each by one of `people`, a share of them guessed."""
    random = np.random.default_rng(seed)
    rows = []
    for number in range(n):
        left, right = random.choice(N_TILES, 2, replace=False)
        ahead = TRUTH[left] - TRUTH[right] + 0.3 * random.standard_normal() > 0
        if random.random() < guess:
            ahead = random.random() < 0.5
        sides = TILE_IDS[left], TILE_IDS[right]
        rows.append((f"a{number % people}", *sides, "left" if ahead else "right"))
    return pd.DataFrame(rows, columns=COLUMNS)


ITEM = np.argsort(np.argsort(np.random.default_rng(4).normal(TRUTH, 0.5))) * 22 // N_TILES
MEMBERS = pd.DataFrame({"tile_id": TILE_IDS, "item": [f"k{i}" for i in ITEM]})


def order(seed: int = 0, *, honest: bool, people: int = 1) -> pd.DataFrame:
    """22 clusters ordered by each of some people, from the truth or at random."""
    random = np.random.default_rng(seed)
    levels = pd.Series(TRUTH).groupby(ITEM).mean().to_numpy()
    rows = []
    for number in range(people):
        seen = levels + 0.1 * random.standard_normal(22) if honest else random.standard_normal(22)
        for i in range(22):
            for j in range(i):
                outcome = "left" if seen[i] > seen[j] else "right"
                rows.append((f"a{number}", f"k{i}", f"k{j}", outcome))
    return pd.DataFrame(rows, columns=COLUMNS)


def pair(table: pd.DataFrame) -> ItemPairs:
    members = MEMBERS if table["left"].iloc[0].startswith("k") else None
    return pair_items(table, pd.Series(TILE_IDS), members)


def weigh(table: pd.DataFrame) -> Evidence:
    return fit_heads(FEATURES, BASIS, pair(table), QUICK).evidence


def p_of(table: pd.DataFrame, seed: int = 0) -> float:
    pairs = pair(table)
    shown = np.array([BASIS(FEATURES[rows]).mean(axis=0) for rows in pairs.members])
    return measure_luck(shown, pairs, np.random.default_rng(seed))


@pytest.mark.parametrize(
    ("honest", "guessed"),
    [
        (lambda seed: vote(40, seed), lambda seed: vote(40, seed, guess=1)),
        (lambda seed: vote(300, seed), lambda seed: vote(300, seed, guess=1)),
        (lambda seed: order(seed, honest=True), lambda seed: order(seed, honest=False)),
        (
            lambda seed: order(seed, honest=True, people=3),
            lambda seed: order(seed, honest=False, people=3),
        ),
    ],
    ids=["40 votes", "300 votes", "one ordering", "three orderings"],
)
def test_guesses_pass_one_time_in_twenty_and_good_answers_always(honest: Any, guessed: Any) -> None:
    assert sum(p_of(guessed(seed)) <= 0.05 for seed in range(40)) <= 6
    assert sum(p_of(honest(seed)) <= 0.05 for seed in range(20)) >= 19


def test_guesses_about_similar_places_pass_no_more_often() -> None:
    """Pairs that are alike differ in other directions than pairs in general do."""

    def ask(seed: int) -> pd.DataFrame:
        random = np.random.default_rng(seed)
        rows = []
        for left in random.integers(0, N_TILES, 60).tolist():
            others = np.setdiff1d(random.integers(0, N_TILES, 15), left)
            apart = np.square(BASIS(FEATURES[others]) - BASIS(FEATURES[[left]])).sum(axis=1)
            sides = TILE_IDS[left], TILE_IDS[others[apart.argmin()]]
            rows.append(("a", *sides, random.choice(["left", "right"])))
        return pd.DataFrame(rows, columns=COLUMNS)

    assert sum(p_of(ask(seed)) <= 0.05 for seed in range(40)) <= 6


def test_ten_people_who_say_the_same_are_no_more_evidence_than_one() -> None:
    """A random ordering that ten people copy from each other is as random as before."""
    copies = [pd.concat([order(3, honest=False).assign(annotator=f"a{i}") for i in range(n)])
              for n in (1, 10)]  # fmt: skip
    assert p_of(copies[0]) == p_of(copies[1]) > 0.05


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000))
def test_the_test_does_not_depend_on_which_side_or_which_end_is_up(seed: int) -> None:
    table = vote(60, seed)
    swap = {"left": "right", "right": "left"}
    turned = table.assign(outcome=table["outcome"].map(swap))
    sides = table.assign(left=table["right"], right=table["left"], outcome=turned["outcome"])
    assert p_of(table, seed) == p_of(turned, seed) == p_of(sides, seed)


def test_features_without_any_difference_tell_nothing() -> None:
    from scipy.sparse import csr_array

    n = 12
    said, graph = np.arange(n)[:, None] - 5.5, csr_array(np.eye(n))
    alone, none = np.arange(n), np.zeros(n, dtype=bool)
    random = np.random.default_rng(0)
    assert exchange_places(np.ones((n, 2)), said, graph, alone, none, random) == 1
    assert exchange_places(said, said, graph, alone, none, random) == pytest.approx(1 / 200)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), people=st.integers(1, 4), repeats=st.integers(1, 3))
def test_no_place_no_pair_and_no_person_is_on_both_sides(
    seed: int, people: int, repeats: int
) -> None:
    """Every fit sees other places, and other people where there are several."""
    once = vote(30, seed, people=people)
    whole = pd.concat([once.assign(annotator=f"a{(seed + i) % people}") for i in range(repeats)])
    pairs = pair(whole)
    n_people = len(pairs.counts)

    def spy(kept: ItemPairs) -> np.ndarray:
        assert kept.counts.any() and (len(kept.counts) < n_people or n_people == 1)
        known = np.isin(np.arange(len(pairs.items)), [kept.left, kept.right])
        return np.where(known, np.arange(len(known)) + 1.0, 0.0)

    unseen = judge_unseen(pairs, spy, np.random.default_rng(seed))
    assert unseen is not None and 0 < unseen.new.n <= len(whole)
    # Places that no fit has seen are all alike to it: neither is ever ahead.
    assert not unseen.judged.gap.any() and unseen.new.won == 0.5


def test_periods_of_a_place_are_held_out_together() -> None:
    names = pd.Series([f"c{i // 2}@{2018 + i % 2}" for i in range(40)])
    random = np.random.default_rng(0)
    rows = [("a", *names[random.choice(40, 2, replace=False)], "left") for _ in range(60)]
    pairs = pair_items(pd.DataFrame(rows, columns=COLUMNS), names, None)
    folds = deal_places(pairs, 5, random)
    for place in np.unique(pairs.places):
        assert len(np.unique(folds[pairs.places == place])) == 1


def test_compared_places_share_folds_so_that_few_answers_suffice() -> None:
    pairs = pair(vote(30))
    folds = deal_places(pairs, 5, np.random.default_rng(0))
    together = folds[pairs.left] == folds[pairs.right]
    assert together.mean() > 0.7 and len(np.unique(folds)) == 5
    star = pd.DataFrame([("a", TILE_IDS[0], other, "left") for other in TILE_IDS[1:30]],
                        columns=COLUMNS)  # fmt: skip
    assert judge_unseen(pair(star), lambda kept: np.zeros(30), np.random.default_rng(0)) is None


def test_a_random_ordering_is_foretold_by_knowing_its_other_items_only() -> None:
    """Three in four comparisons with a known cluster are won by knowing where that one stands."""
    found = [weigh(order(seed, honest=False)).unseen for seed in range(6)]
    new, alone = (
        np.mean([part.new.won for part in found if part]),
        np.mean([part.consensus or 0 for part in found if part]),
    )
    assert abs(new - 0.5) < 0.12 and alone > 0.68


def test_the_consensus_knows_nothing_of_an_item_that_was_not_compared() -> None:
    pairs = pair(vote(40))
    first = pairs.left == pairs.left[0]
    kept = ItemPairs(pairs.items, pairs.members, pairs.places, pairs.left[first],
                     pairs.right[first], pairs.counts[:, first], pairs.weight)  # fmt: skip
    levels = fit_consensus_alone(kept)
    assert np.count_nonzero(levels) <= first.sum() + 1 < len(levels)


def test_good_answers_win_where_they_were_not_seen() -> None:
    evidence = weigh(vote(400))
    assert evidence.verdict is Verdict.better and evidence.unseen is not None
    new, known = evidence.unseen.new, evidence.unseen.known
    assert 0.75 < new.lower < new.won < new.upper <= 1
    assert known is not None and known.won > (evidence.unseen.consensus or 1) + 0.1
    assert evidence.sureness > 0.9


@pytest.mark.parametrize(
    ("table", "verdict"),
    [(vote(10, guess=1), Verdict.few), (vote(200, guess=1), Verdict.chance),
     (vote(200), Verdict.better), (order(honest=True), Verdict.better),
     (order(honest=False), Verdict.chance)],
    ids=["few guesses", "many guesses", "votes", "ordering", "random ordering"],
)  # fmt: skip
def test_the_verdict(table: pd.DataFrame, verdict: Verdict) -> None:
    assert weigh(table).verdict is verdict


def test_held_out_answers_that_lose_are_no_better_than_chance_whatever_p_says() -> None:
    evidence = weigh(vote(200))
    assert evidence.unseen is not None
    pairs = pair(vote(200))
    turned = judge_unseen(
        pairs, lambda kept: -TRUTH[[TILE_IDS.index(i) for i in pairs.items]],
        np.random.default_rng(0),
    )  # fmt: skip
    assert weigh_evidence(0.005, pairs, turned).verdict is Verdict.chance
    assert weigh_evidence(0.005, pairs, None).verdict is Verdict.few


def widths(table: pd.DataFrame) -> tuple[float, float]:
    """Half the median interval, and how far scores differ, in units of development."""
    heads = fit_heads(FEATURES, BASIS, pair(table), QUICK).heads
    scores = heads.predict(FEATURES)
    return float(np.median(heads.spread(scores))), float(scores.mean(axis=0).std())


def crowd(n: int, seed: int, *, contrary: int = 0, guess: bool = False) -> pd.DataFrame:
    """Ten people answer the same n pairs; some say the opposite of what they see."""
    said = [vote(n, seed, people=1).assign(annotator=f"a{i}") for i in range(10)]
    random = np.random.default_rng(seed)
    for part in said[:contrary]:
        part["outcome"] = part["outcome"].map({"left": "right", "right": "left"})
    if guess:
        said = [p.assign(outcome=random.choice(["left", "right"], n)) for p in said]
    return pd.concat(said)


def test_intervals_grow_and_scores_shrink_where_answers_do_not_agree() -> None:
    kinds = {
        "ten experts": crowd(120, 1),
        "one expert": vote(120, 1, people=1),
        "three of ten say the opposite": crowd(120, 1, contrary=3),
        "guesses": crowd(120, 1, guess=True),
    }
    found = {name: widths(table) for name, table in kinds.items()}
    half, deviation = zip(*found.values(), strict=True)
    assert list(half) == sorted(half), found
    assert list(deviation) == sorted(deviation, reverse=True), found
    assert deviation[-1] < 0.1 and half[-1] > 0.95 and half[0] < 0.6


def test_a_lone_annotator_who_guesses_is_not_believed() -> None:
    half, deviation = widths(vote(100, 2, guess=1, people=1))
    assert deviation < 0.1 and half > 0.95


def test_curved_heads_are_not_refused_for_what_a_straight_line_misses() -> None:
    random = np.random.default_rng(3)
    truth = np.abs(FEATURES[:, 0] - 3) / 0.5
    rows = []
    for _ in range(400):
        left, right = random.choice(N_TILES, 2, replace=False)
        outcome = "left" if truth[left] > truth[right] else "right"
        rows.append(("a", TILE_IDS[left], TILE_IDS[right], outcome))
    pairs = pair(pd.DataFrame(rows, columns=COLUMNS))
    few = RankConfig(n_heads=2, decays=[1e-3], head=HeadName.mlp)
    assert fit_heads(FEATURES, BASIS, pairs, few).evidence.verdict is Verdict.better


def test_two_thousand_answers_are_dealt_once() -> None:
    table = vote(2100, people=4)
    calls: list[int] = []
    pairs = pair(table)

    def count(kept: ItemPairs) -> np.ndarray:
        calls.append(1)
        return TRUTH[[TILE_IDS.index(item) for item in pairs.items]]

    unseen = judge_unseen(pairs, count, np.random.default_rng(0))
    assert unseen is not None and len(calls) == 5 and unseen.new.won > 0.8


def test_wrong_evidence_is_one_sentence() -> None:
    evidence = weigh(vote(200, guess=1))
    with pytest.raises(EcofmError, match=r"compare report.*compare serve.*--force") as found:
        evidence.require("votes.csv", force=False)
    assert "\n" not in str(found.value)
    evidence.require("votes.csv", force=True)
