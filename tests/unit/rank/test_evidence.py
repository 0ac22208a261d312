"""What nobody said is not learned: refusals, held-out figures, and intervals that follow them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecofm.artifact import MANIFEST, read_manifest
from ecofm.cli import main
from ecofm.errors import EcofmError
from ecofm.rank.evidence import (
    FEW_ANSWERS,
    Evidence,
    Verdict,
    exchange_in_comparisons,
    exchange_places,
    weigh_evidence,
)
from ecofm.rank.features import build_basis
from ecofm.rank.fit import fit_heads
from ecofm.rank.heads import HeadName, RankConfig
from ecofm.rank.items import ItemPairs, pair_items
from ecofm.rank.run import load_ranker, rank
from ecofm.rank.unseen import deal_places, fit_consensus_alone, judge_unseen
from tests.unit.rank.test_rank import MATRIX, N_TILES, TILE_IDS, TRUTH, write_embeddings

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
    return exchange_in_comparisons(shown, pairs, np.random.default_rng(seed))


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


# The command line.


@pytest.fixture(scope="module")
def embeddings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_embeddings(tmp_path_factory.mktemp("evidence") / "e", MATRIX, TILE_IDS)


def run(*tokens: object) -> int:
    try:
        main([str(token) for token in tokens])
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 1
    return 0


def test_random_votes_are_refused_and_force_marks_what_it_writes(
    embeddings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vote(100, 5, guess=1).to_csv(tmp_path / "votes.csv", index=False)
    out = tmp_path / "ranker"
    call = ["rank", "--embeddings", embeddings, "--comparisons", tmp_path / "votes.csv",
            "--out", out, "--n-heads", 3]  # fmt: skip
    assert run(*call) == 1
    said = capsys.readouterr().err
    assert "no better than chance" in said and "--force" in said and "the higher score won" in said
    assert not out.exists()
    assert run(*call, "--force") == 0
    last = capsys.readouterr().err.splitlines()[-1]
    assert "no better than chance" in last and "--force" in last
    assert read_manifest(out, "ranker")["evidence"]["verdict"] == "no better than chance"
    assert run(*call) == 1 and "no better than chance" in capsys.readouterr().err
    scores = tmp_path / "scores"
    assert run("score", "--embeddings", embeddings, "--ranker", out, "--out", scores) == 0
    assert "no better than chance" in capsys.readouterr().err
    found = pd.read_parquet(scores / "scores.parquet")
    assert found["score"].std() < 0.1 and (found["upper"] - found["lower"]).median() > 3
    for path in (out, scores):
        assert run("show", path, "--out", tmp_path / "p") == 0
        assert "no better than chance" in capsys.readouterr().err, path


def test_the_last_lines_the_manifest_and_the_calibration_say_the_same(
    embeddings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vote(150).to_csv(tmp_path / "votes.csv", index=False)
    out = tmp_path / "ranker"
    assert run("rank", "--embeddings", embeddings, "--comparisons", tmp_path / "votes.csv",
               "--out", out, "--n-heads", 3) == 0  # fmt: skip
    lines = capsys.readouterr().err.splitlines()
    evidence = read_manifest(out, "ranker")["evidence"]
    rate, known = evidence["new_places"], evidence["one_known_place"]
    assert lines[-2].startswith(f"On {rate['n']} comparisons of places that it had not seen by")
    assert f"won {rate['won']:.0%} [{rate['lower']:.0%}, {rate['upper']:.0%}]" in lines[-2]
    assert "chance is 50%" in lines[-2]
    assert f"won {known['won']:.0%}" in lines[-1] and lines[-1].startswith(f"On {known['n']} of")
    assert f"alone named the winner of {evidence['consensus_alone']:.0%}" in lines[-1]
    table = pd.read_csv(out / "calibration.csv").set_index("comparisons")
    assert table.loc["two new places", "won"] == pytest.approx(rate["won"])
    assert table.loc["a new place and a known one", "n"] == known["n"]
    alone = table.loc["the same by the consensus alone", "won"]
    assert alone == pytest.approx(evidence["consensus_alone"])
    assert len(table.loc["two new places, by gap"]) == 5


def test_few_people_items_and_answers_are_warned_of(
    embeddings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for n, people, expected in (
        (12, 1, ["1 annotator(s) (at least 3)", "12 answer(s)"]),
        (FEW_ANSWERS - 1, 3, [f"{FEW_ANSWERS - 1} answer(s) (at least {FEW_ANSWERS})"]),
        (FEW_ANSWERS, 3, []),
    ):
        vote(n, people=people).to_csv(tmp_path / "votes.csv", index=False)
        rank([embeddings], tmp_path / "votes.csv", tmp_path / f"r{n}", QUICK)
        said = capsys.readouterr().err
        assert all(part in said for part in expected) and ("stand behind" in said) == bool(expected)
    few = [("a", TILE_IDS[i], TILE_IDS[j], "left") for i in range(4) for j in range(i)]
    pd.DataFrame(few, columns=COLUMNS).to_csv(tmp_path / "few.csv", index=False)
    rank([embeddings], tmp_path / "few.csv", tmp_path / "few", QUICK)
    assert "4 item(s) (at least 10)" in capsys.readouterr().err
    assert read_manifest(tmp_path / "few", "ranker")["evidence"]["verdict"].startswith("too few")


def test_a_ranker_from_before_still_loads_and_says_nothing(
    embeddings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vote(100).to_csv(tmp_path / "votes.csv", index=False)
    out = rank([embeddings], tmp_path / "votes.csv", tmp_path / "ranker", QUICK)
    manifest = json.loads((out / MANIFEST).read_text())
    for name in ("evidence", "tiles", "residual_limit", "residual_tilt"):
        del manifest[name]
    (out / MANIFEST).write_text(json.dumps(manifest))
    heads, _ = load_ranker(out)
    assert heads.residual is not None and heads.residual.tilt == 0 and heads.residual.limit == 2
    capsys.readouterr()
    scores = tmp_path / "scores"
    assert run("score", "--embeddings", embeddings, "--ranker", out, "--out", scores) == 0
    assert run("show", out, "--out", tmp_path / "p") == 0
    assert "warning" not in capsys.readouterr().err


def test_two_thousand_answers_are_dealt_once(embeddings: Path, tmp_path: Path) -> None:
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
