"""Consensus and agreement: properties of the model, its errors, and the real annotators."""

import os
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import approx_fprime, check_grad
from scipy.stats import kendalltau

from ecofm.compare.agreement import measure_agreement
from ecofm.compare.comparison import COLUMNS
from ecofm.compare.consensus import ConsensusConfig, fit_consensus, write_consensus
from ecofm.compare.davidson import Posterior, count_voices, maximise
from ecofm.compare.exchange import import_files, read_comparisons
from ecofm.compare.orderings import expand_ordering
from ecofm.errors import ComparisonError

DATA = Path(os.environ.get("ECOFM_DATA", Path(__file__).parents[4] / "shared" / "data"))
FLIP = {"left": "right", "right": "left", "tie": "tie", "skip": "skip"}
ROW = st.tuples(
    st.sampled_from("ab"), st.sampled_from("pqrst"), st.sampled_from("pqrst"),
    st.sampled_from(["left", "right", "tie", "skip"]),
).filter(lambda row: row[1] != row[2])  # fmt: skip
ROWS = st.lists(ROW, min_size=1, max_size=30)


def table(rows):
    return pd.DataFrame(rows, columns=list(COLUMNS), dtype="str")


def fit(rows):
    """The consensus by item, sorted by name; cases that cannot be fitted are passed over."""
    try:
        return fit_consensus(table(rows), warn=lambda _: None).set_index("item").sort_index()
    except ComparisonError:
        assume(False)


def simulate(n_items, n_rows, seed, theta=-0.5):
    """Answers drawn from Davidson's model with known strengths."""
    rng = np.random.default_rng(seed)
    strength = rng.normal(0, 1.5, n_items)
    left = rng.integers(n_items, size=n_rows)
    right = (left + rng.integers(1, n_items, n_rows)) % n_items
    half = (strength[left] - strength[right]) / 2
    weight = np.exp(np.stack([half, -half, np.full(n_rows, theta)], axis=1))
    share = (weight / weight.sum(axis=1, keepdims=True)).cumsum(axis=1)
    answer = (rng.random(n_rows)[:, None] > share[:, :2]).sum(axis=1)
    outcome = np.array(["left", "right", "tie"])[answer]
    frame = pd.DataFrame(
        {"annotator": "a", "left": left.astype(str), "right": right.astype(str), "outcome": outcome}
    )
    return frame, (strength - strength.mean()) / strength.std()


@settings(max_examples=40)
@given(ROWS)
def test_scores_are_anchored_finite_and_inside_their_intervals(rows):
    scores = fit(rows)
    assert np.isfinite(scores.to_numpy()).all()
    assert abs(scores["score"].mean()) < 1e-9 and abs(scores["score"].std(ddof=0) - 1) < 1e-9
    assert (scores["lower"] < scores["score"]).all() and (scores["score"] < scores["upper"]).all()


@settings(max_examples=40)
@given(ROWS, st.randoms())
def test_swapped_sides_and_order_of_rows_change_nothing(rows, random):
    swapped = [(a, r, x, FLIP[o]) if random.random() < 0.5 else (a, x, r, o) for a, x, r, o in rows]
    random.shuffle(swapped)
    pd.testing.assert_frame_equal(fit(rows), fit(swapped), atol=1e-5)


@settings(max_examples=40)
@given(ROWS)
def test_swapping_every_pair_flips_the_scores(rows):
    flipped = fit([(annotator, right, left, outcome) for annotator, left, right, outcome in rows])
    scores = fit(rows)
    np.testing.assert_allclose(flipped["score"], -scores["score"], atol=1e-5)
    np.testing.assert_allclose(flipped["upper"], -scores["lower"], atol=1e-5)


@settings(max_examples=25)
@given(ROWS, st.permutations("pqrst"))
def test_relabelling_items_changes_nothing_else(rows, names):
    other = dict(zip("pqrst", names, strict=True))
    renamed = fit([(a, other[left], other[right], o) for a, left, right, o in rows])
    scores = fit(rows)
    np.testing.assert_allclose(renamed.loc[[other[i] for i in scores.index]], scores, atol=1e-5)


def test_gradient_hessian_and_mode_are_those_of_the_value():
    frame, _ = simulate(6, 80, seed=1)
    posterior = Posterior(count_voices(frame).pairs, 3.0)
    point = np.random.default_rng(0).normal(size=posterior.n_items + 1)
    assert check_grad(posterior.value, posterior.gradient, point) < 1e-4
    numeric = approx_fprime(point, posterior.gradient, 1e-7)
    np.testing.assert_allclose(posterior.hessian(point).toarray(), numeric, atol=1e-4)
    assert np.abs(posterior.gradient(maximise(posterior))).max() < 1e-6


def test_two_items_have_the_closed_form():
    # One win each way and two ties, no prior: exp(theta) = ties / sqrt(wins * losses).
    rows = [("a", "p", "q", o) for o in ["left"] * 4 + ["right"] + ["tie"] * 6]
    mode = maximise(Posterior(count_voices(table(rows)).pairs, 1e4))
    assert mode[0] - mode[1] == pytest.approx(np.log(4), abs=1e-5)
    assert mode[2] == pytest.approx(np.log(6 / 2), abs=1e-5)


def test_skips_are_never_fitted(capsys):
    rows = [("a", "p", "q", "left"), ("a", "q", "r", "left"), ("b", "p", "r", "tie")]
    skips = [("b", "r", "p", "skip"), ("a", "p", "z", "skip")]
    pd.testing.assert_frame_equal(fit_consensus(table(rows)), fit_consensus(table(rows + skips)))
    assert "1 item(s) such as 'z' were only skipped" in capsys.readouterr().err


def test_an_ordering_comes_back_best_first():
    frame = fit_consensus(table(expand_ordering("ada", "5>03=4>1")))
    assert frame["item"].tolist()[0] == "5" and frame["item"].tolist()[3] == "1"
    assert frame.columns.tolist() == ["item", "score", "lower", "upper"]
    assert frame["score"].is_monotonic_decreasing


def test_intervals_hold_what_they_promise():
    inside = []
    for seed in range(10):
        frame, truth = simulate(40, 1500, seed)
        scores = fit_consensus(frame).set_index("item")
        known = truth[scores.index.astype(int)]
        inside.append((scores["lower"] < known) & (known < scores["upper"]))
    assert 0.86 < np.mean(inside) < 0.94


def test_a_wider_interval_and_a_better_known_item():
    frame, _ = simulate(20, 600, seed=3)
    narrow, wide = (fit_consensus(frame, ConsensusConfig(interval=share)) for share in (0.5, 0.99))
    assert (wide["upper"] - wide["lower"] > narrow["upper"] - narrow["lower"]).all()
    twice = fit_consensus(pd.concat([frame, frame]))
    assert (twice["upper"] - twice["lower"]).mean() < (wide["upper"] - wide["lower"]).mean()


def test_a_hundred_thousand_comparisons_take_seconds():
    frame, truth = simulate(500, 100_000, seed=0)
    start = time.perf_counter()
    scores = fit_consensus(frame)
    assert time.perf_counter() - start < 20
    assert np.corrcoef(scores["score"], truth[scores["item"].astype(int)])[0, 1] > 0.99


def test_groups_never_compared_are_told_with_an_example(capsys):
    fit_consensus(table([("a", "p", "q", "left"), ("a", "r", "s", "left")]))
    said = capsys.readouterr().err
    assert "2 groups that were never compared" in said and "'p' and 'r'" in said


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([("a", "p", "q", "skip")], "none of the 1 comparisons can be fitted"),
        ([], "none of the 0"),
        ([("a", "p", "q", "tie")], "separate none of the 2 items"),
        ([("a", "p", "q", "better")], "outcome 'better'"),
        ([("a", "p", "p", "left")], "compared with itself"),
    ],
)
def test_what_cannot_be_fitted_is_refused(rows, words):
    with pytest.raises(ComparisonError, match=words):
        fit_consensus(table(rows))


def test_other_tables_and_too_many_items_are_refused():
    with pytest.raises(ComparisonError, match="lack the column"):
        fit_consensus(pd.DataFrame({"item": ["a"]}))
    with pytest.raises(ComparisonError, match="expected at most 2"):
        fit_consensus(table(expand_ordering("a", "1>2>3")), ConsensusConfig(max_items=2))


@pytest.mark.parametrize("wrong", [{"prior_std": 0}, {"interval": 1.0}, {"prior_std": np.nan}])
def test_wrong_config_is_refused(wrong):
    with pytest.raises(ValueError, match="expected"):
        ConsensusConfig(**wrong)


def test_consensus_is_written_from_a_table_or_a_store(tmp_path):
    source = tmp_path / "a.csv"
    source.write_text("annotator,ordering\nada,1>2=3\nbo,2>1>3\n")
    import_files([source], tmp_path / "store")
    frame = write_consensus(source, tmp_path / "one.csv")
    write_consensus(tmp_path / "store", tmp_path / "two.parquet")
    written = pd.read_csv(tmp_path / "one.csv", dtype={"item": "str"})
    pd.testing.assert_frame_equal(written, frame)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "two.parquet"), frame)


@settings(max_examples=40)
@given(st.lists(st.integers(0, 3), min_size=5, max_size=5),
       st.lists(st.integers(0, 3), min_size=5, max_size=5))  # fmt: skip
def test_agreement_is_scipys_tau_b(first, second):
    assume(len(set(first)) > 1 and len(set(second)) > 1)
    rows = []
    for annotator, ranks in (("a", first), ("b", second)):
        for i in range(5):
            for j in range(i):
                sign = np.sign(ranks[i] - ranks[j])
                outcome = {1: "left", -1: "right", 0: "tie"}[int(sign)]
                rows.append((annotator, str(i), str(j), outcome))
    (row,) = measure_agreement(table(rows)).itertuples(index=False)
    assert (row.annotator, row.other, row.n_pairs) == ("a", "b", 10)
    assert row.tau == pytest.approx(kendalltau(first, second).statistic)


def test_agreement_counts_shared_pairs_only():
    rows = [("a", "1", "2", "left"), ("a", "2", "3", "left"), ("b", "2", "1", "right"),
            ("b", "2", "1", "left"), ("b", "1", "2", "left"), ("c", "8", "9", "tie"),
            ("b", "3", "2", "skip")]  # fmt: skip
    found = measure_agreement(table(rows)).set_index(["annotator", "other"])
    assert found.loc[("a", "b"), "tau"] == 1 and found.loc[("a", "b"), "n_pairs"] == 1
    assert np.isnan(found.loc[("a", "c"), "tau"]) and found.loc[("a", "c"), "n_pairs"] == 0


def read_published_order(path):
    """Rank of each item of ensemble.txt: `a<b` says a is below b; `=` lines are its tiers."""
    lines = path.read_text().split()
    tier_of = {name: line.split("=") for line in lines if "=" in line for name in line.split("=")}
    better_of = dict(line.split("<") for line in lines if "<" in line)
    (name,) = set(better_of) - set(better_of.values())
    ranks, rank = {}, 0
    while name is not None:
        ranks.update(dict.fromkeys(tier_of.get(name, [name]), rank))
        name, rank = better_of.get(name), rank + 1
    return ranks


@pytest.mark.skipif(not DATA.is_dir(), reason=f"no real data at {DATA}; set ECOFM_DATA")
def test_the_real_annotators_consensus_follows_the_published_order():
    frame = read_comparisons(DATA / "nk_clusters" / "orderings.csv")
    assert len(frame) == 10 * 22 * 21 // 2
    scores = fit_consensus(frame).set_index("item")["score"]
    published = read_published_order(DATA / "nk_clusters" / "ensemble.txt")
    assert set(published) == {*scores.index, "22"}  # 22, the uninhabited, was not asked about
    tau = kendalltau(scores, [published[item] for item in scores.index]).statistic
    assert tau > 0.9, tau
    taus = measure_agreement(frame)["tau"]
    # The study's annotators agree at .59 to .96.
    assert len(taus) == 45 and taus.min() == pytest.approx(0.59, abs=0.01)
    assert taus.max() == pytest.approx(0.96, abs=0.01)
