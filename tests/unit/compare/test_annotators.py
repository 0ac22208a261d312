"""What the report says of each annotator: beside chance, and by the answers of the others alone."""

import os
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import approx_fprime

from ecofm.cli import main
from ecofm.compare.annotators import describe_annotators, tabulate_annotators
from ecofm.compare.chance import (
    BETTER,
    CONTRARY,
    GUESSING,
    TOO_FEW,
    UNKNOWN,
    judge_share,
    measure_share,
)
from ecofm.compare.comparison import COLUMNS
from ecofm.compare.consensus import ConsensusConfig, fit_answers, fit_consensus
from ecofm.compare.crowd import N_FOLDS
from ecofm.compare.exchange import read_comparisons
from ecofm.compare.report import write_report

DATA = Path(os.environ.get("ECOFM_DATA", Path(__file__).parents[4] / "shared" / "data"))
TURNED = {"left": "right", "right": "left"}


def answer(rng, annotators, n_items=22, n_votes=100, noise=0.4):
    """Random pairs: annotators called g... see the truth a little wrong, all others guess."""
    truth = rng.normal(size=n_items)
    rows = []
    for annotator in annotators:
        for _ in range(n_votes):
            left, right = rng.choice(n_items, 2, replace=False)
            lead = truth[left] - truth[right] + noise * rng.normal()
            outcome = "left" if lead > 0 else "right"
            if not annotator.startswith("g"):
                outcome = rng.choice(["left", "right"])
            rows.append((annotator, f"i{left}", f"i{right}", outcome))
    return pd.DataFrame(rows, columns=list(COLUMNS), dtype="str")


def judge(frame, **config):
    crowd = fit_answers(frame, ConsensusConfig(**config), lambda _: None)
    return tabulate_annotators(frame, crowd).set_index("annotator")


@pytest.mark.parametrize("weigh", [True, False])
def test_who_guesses_answers_one_side_or_upside_down_is_told(weigh):
    frame = answer(np.random.default_rng(0), ["g1", "g2", "g3", "g4", "x", "gcon", "side"])
    own = frame["annotator"]
    frame.loc[own == "gcon", "outcome"] = frame.loc[own == "gcon", "outcome"].map(TURNED)
    frame.loc[own == "side", "outcome"] = "left"
    found = judge(frame, weigh=weigh)
    assert (found.loc[["g1", "g2", "g3", "g4"], "verdict"] == BETTER).all()
    assert found.loc["x", "verdict"] == found.loc["side", "verdict"] == GUESSING
    assert found.loc["gcon", "verdict"] == CONTRARY
    assert found.loc["side", "n_left"] == found.loc["side", "n_compared"] == 100
    told = describe_annotators(found.reset_index())
    assert [line.split()[0] for line in told] == ["gcon", "side", "x"]
    assert "as if left and right" in told[0] and "no better than chance" in told[2]
    assert "who guesses: 50%" in told[2] and "Left was said in 100 of 100" in told[1]


def test_people_who_all_guess_are_not_found_reliable():
    """Fitted to few answers, strengths agree with them whatever they are: here to .99 and more."""
    for seed in range(4):
        found = judge(answer(np.random.default_rng(seed), ["x", "y", "z"]))
        assert found["reliability"].max() < 0.85, found["reliability"]
        assert not (found["verdict"] == BETTER).any()


def test_a_single_annotator_or_one_whom_nobody_checks_is_unknown():
    rng = np.random.default_rng(1)
    alone = judge(answer(rng, ["x"]))
    assert alone.loc["x", "verdict"] == UNKNOWN and np.isnan(alone.loc["x", "reliability"])
    (told,) = describe_annotators(alone.reset_index())
    assert "a single annotator" in told and "cannot be known" in told
    frame = answer(rng, ["g1", "g2", "x"])
    apart = frame["annotator"] == "x"
    frame.loc[apart, ["left", "right"]] = "of x, " + frame.loc[apart, ["left", "right"]]
    ties = pd.DataFrame([("t", "i1", "i2", "tie"), ("s", "i1", "i2", "skip")], columns=COLUMNS)
    found = judge(pd.concat([frame, ties.astype("str")], ignore_index=True))
    assert (found.loc[["x", "t", "s"], "verdict"] == UNKNOWN).all()
    assert found.loc[["x", "t", "s"], ["with_others", "lower", "reliability"]].isna().all(axis=None)
    assert (found.loc[["g1", "g2"], "verdict"] == BETTER).all()


def test_a_pair_that_the_others_do_not_connect_is_not_counted():
    """The others compared 1 with 2 and 3 with 4: nothing of theirs says how 1 stands to 3."""
    rows = [(who, *pair, "left") for who in "ab" for pair in (("1", "2"), ("3", "4"))] * 3
    rows += [("c", "1", "2", "left"), ("c", "1", "3", "left"), ("c", "4", "2", "right")]
    found = judge(pd.DataFrame(rows, columns=list(COLUMNS), dtype="str"))
    assert found.loc["c", "n_compared"] == 1


def test_of_few_answers_and_of_two_people_not_too_much_is_said():
    rng = np.random.default_rng(2)
    frame = answer(rng, ["g1", "g2", "g3"])
    few = frame[frame["annotator"] == "g1"].head(3).assign(annotator="few")
    found = judge(pd.concat([frame, few], ignore_index=True))
    assert found.loc["few", "verdict"] == TOO_FEW and np.isnan(found.loc["few", "reliability"])
    assert "too few answers" in describe_annotators(found.reset_index())[0]
    two = judge(answer(rng, ["g1", "x"]))
    assert (two["verdict"] == GUESSING).all() and two["reliability"].max() < 0.8
    assert "it cannot be told who is right" in describe_annotators(two.reset_index())[-1]


def test_more_annotators_than_folds_are_judged_too():
    names = [f"g{number:02}" for number in range(N_FOLDS + 3)] + ["x"]
    found = judge(answer(np.random.default_rng(3), names, n_votes=40))
    assert (found["verdict"] == BETTER).sum() == N_FOLDS + 3
    assert found.loc["x", "verdict"] == GUESSING


@pytest.mark.parametrize("n_items", [8, 12, 22])
def test_orderings_at_random_are_seldom_found_better_than_chance(n_items):
    """One in a hundred is promised at each end; by binomial intervals it would be many more."""
    rng = np.random.default_rng(0)
    first, second = np.array(list(combinations(range(n_items), 2))).T
    verdicts = []
    for _ in range(600):
        rank = rng.permutation(n_items)
        verdicts.append(judge_share(measure_share(rank[first] < rank[second], first, second)))
    assert np.mean([verdict == BETTER for verdict in verdicts]) < 0.05
    assert np.mean([verdict == CONTRARY for verdict in verdicts]) < 0.05


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 5), st.booleans()), max_size=30))
def test_a_share_lies_in_its_interval_and_turns_with_the_answers(rows):
    first = np.array([row[0] for row in rows], dtype=np.int64)
    second = np.array([(row[0] + row[1]) % 6 for row in rows], dtype=np.int64)
    agrees = np.array([row[2] for row in rows], dtype=bool)
    found = measure_share(agrees, first, second, 0.9)
    turned = measure_share(~agrees, second, first, 0.9)
    if not rows:
        assert np.isnan(found[:3]).all()
        return
    assert 0 <= found.lower <= found.share + 1e-12 and found.share - 1e-12 <= found.upper <= 1
    expected = (1 - found.share, 1 - found.upper, 1 - found.lower)
    np.testing.assert_allclose(turned[:3], expected, atol=1e-9)


def test_the_report_says_it_on_its_page_and_on_the_terminal(tmp_path, capsys):
    frame = answer(np.random.default_rng(0), ["g1", "g2", "g3", "<x>"])
    frame.to_csv(tmp_path / "a.csv", index=False)
    main(["compare", "report", "--store", str(tmp_path / "a.csv"), "--out", str(tmp_path / "r")])
    said = capsys.readouterr().err
    assert "<x> agrees with the consensus of the others in" in said
    assert said.rstrip().endswith("1 of the annotators not shown to be better than chance")
    page = (tmp_path / "r" / "report.md").read_text()
    assert "&#60;x&#62; agrees with" in page and "no better than chance" in page
    table = pd.read_csv(tmp_path / "r" / "annotators.csv").set_index("annotator")
    assert table.loc["<x>", "verdict"] == GUESSING


def test_a_report_on_one_voice_and_one_who_only_skips(tmp_path):
    (tmp_path / "a.csv").write_text(
        "annotator,left,right,outcome\na,1,2,left\na,2,3,left\nb,1,2,skip\n"
    )
    out = write_report(tmp_path / "a.csv", tmp_path / "r", warn=lambda _: None)
    table = pd.read_csv(out / "annotators.csv")
    assert table["verdict"].tolist() == [UNKNOWN] * 2 and not (out / "agreement.png").exists()


def say_rows(seed, annotators, n_items=12, n_votes=60):
    """Random pairs; each annotator names the better item in the given share of answers."""
    rng = np.random.default_rng(seed)
    rows = []
    for annotator, share in annotators.items():
        for _ in range(n_votes):
            left, right = rng.choice(n_items, 2, replace=False)
            is_left = (left > right) == (rng.random() < share)
            rows.append((annotator, f"{left}", f"{right}", "left" if is_left else "right"))
    return pd.DataFrame(rows, columns=list(COLUMNS), dtype="str")


def fit_told(frame):
    told = []
    scores = fit_consensus(frame, warn=told.append)
    truth = scores["item"].astype(int)
    return scores, np.corrcoef(scores["score"], truth)[0, 1], told


@pytest.mark.parametrize("sides", [1, 2])
def test_between_two_sides_that_contradict_each_other_nobody_is_believed(sides):
    people = {f"a{n}": 0.95 for n in range(sides)} | {f"b{n}": 0.05 for n in range(sides)}
    for seed in range(4):
        frame = say_rows(seed, people)
        scores, _, told = fit_told(frame)
        assert (scores["upper"] - scores["lower"]).min() > 3
        assert "cannot be told who is right" in told[-1]
        crowd = fit_answers(frame, ConsensusConfig(), lambda _: None)
        assert np.ptp(crowd.reliability) < 0.1 and crowd.reliability.max() < 0.6
        found = tabulate_annotators(frame, crowd)
        contrary = found["verdict"] == CONTRARY
        assert contrary.any() and found.loc[contrary, "reliability"].isna().all()


def test_who_is_upside_down_is_turned_round_where_most_are_not():
    for seed in range(3):
        frame = say_rows(seed, {"a": 0.95, "b": 0.95, "c": 0.95, "x": 0.05})
        _, correlation, told = fit_told(frame)
        assert correlation > 0.95
        assert len(told) == 1 and told[0].startswith("x agrees") and "worse than chance" in told[0]
        assert judge(frame).loc["x", "reliability"] < 0.2


def test_two_who_contradict_each_other_beside_others_who_judge_other_items_are_not_turned():
    apart = [
        say_rows(seed, {f"g{seed}": 0.95, f"h{seed}": 0.95}).assign(
            left=lambda own, seed=seed: f"{seed}-" + own["left"],
            right=lambda own, seed=seed: f"{seed}-" + own["right"],
        )
        for seed in range(1, 4)
    ]
    frame = pd.concat([say_rows(0, {"a": 0.95, "b": 0.05}), *apart], ignore_index=True)
    crowd = fit_answers(frame, ConsensusConfig(), lambda _: None)
    reliability = dict(zip(crowd.voices.annotators, crowd.reliability, strict=True))
    assert 0.5 <= reliability["a"] < 0.6 and 0.5 <= reliability["b"] < 0.6
    assert reliability["g1"] > 0.8


def test_consensus_says_of_people_what_the_report_says_and_widens_for_guessers():
    wide, narrow = [], []
    for seed in range(6):
        frame = say_rows(seed, {"x": 0.5, "y": 0.5, "z": 0.5})
        scores, _, told = fit_told(frame)
        found = judge(frame)
        guessers = found.index[found["verdict"] == GUESSING]
        assert len(guessers) >= 2 and found.loc[guessers, "reliability"].max() < 0.75
        assert told == describe_annotators(found.reset_index())
        wide.append((scores["upper"] - scores["lower"]).mean())
        good, _, told = fit_told(say_rows(seed, {"x": 0.9, "y": 0.9, "z": 0.9}))
        narrow.append((good["upper"] - good["lower"]).mean())
        assert not told
    assert np.median(wide) > 2 * np.median(narrow)


def test_the_direction_of_the_fit_is_that_of_its_value():
    frame = say_rows(0, {"a": 0.9, "b": 0.7, "c": 0.5})
    frame.loc[::7, "outcome"] = "tie"
    crowd = fit_answers(frame, ConsensusConfig(), lambda _: None)
    point = crowd.point + np.random.default_rng(0).normal(size=13)
    numeric = approx_fprime(point, lambda at: replace(crowd, point=at).value(), 1e-6)
    np.testing.assert_allclose(replace(crowd, point=point).gradient(), numeric, atol=1e-3)
    assert np.abs(crowd.gradient()).max() < 1e-4


@pytest.mark.skipif(not DATA.is_dir(), reason=f"no real data at {DATA}; set ECOFM_DATA")
def test_the_real_experts_are_better_than_chance_and_weighed_well():
    frame = read_comparisons(DATA / "nk_clusters" / "orderings.csv")
    found = judge(frame)
    assert (found["verdict"] == BETTER).all() and found["reliability"].min() > 0.8


def test_informed_people_with_few_answers_each_are_better_than_chance():
    frame = answer(np.random.default_rng(0), [f"g{n}" for n in range(120)], 60, 60, noise=0.5)
    found = judge(frame)
    assert (found["verdict"] == BETTER).mean() > 0.97 and found["reliability"].median() > 0.85
