"""Reliability, intervals under dependent answers, disputes, and the report's files."""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kendalltau

from ecofm.cli import main
from ecofm.compare.agreement import tabulate_disputes
from ecofm.compare.annotators import count_repeats, tabulate_annotators
from ecofm.compare.comparison import COLUMNS
from ecofm.compare.consensus import ConsensusConfig, fit_answers, fit_consensus
from ecofm.compare.exchange import read_comparisons
from ecofm.compare.orderings import expand_ordering, format_ordering
from ecofm.compare.report import to_markdown, write_report
from ecofm.errors import ArtifactError

DATA = Path(os.environ.get("ECOFM_DATA", Path(__file__).parents[4] / "shared" / "data"))


def table(rows):
    return pd.DataFrame(rows, columns=list(COLUMNS), dtype="str")


def order_by_eye(n_items, n_annotators, noise, seed):
    """Orderings by annotators who each see every item a little wrong, and the truth."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=n_items)
    rows = []
    for annotator in range(n_annotators):
        seen = truth + noise * rng.normal(size=n_items)
        tiers = [[str(item)] for item in np.argsort(-seen)]
        rows += expand_ordering(f"a{annotator}", format_ordering(tiers))
    return table(rows), truth


def add_bad_annotators(frame, seed):
    rng = np.random.default_rng(seed)
    guesses = frame[frame["annotator"] == "a0"].assign(annotator="guess")
    guesses["outcome"] = rng.choice(["left", "right"], len(guesses))
    contrary = frame[frame["annotator"] == "a1"].assign(annotator="contrary", outcome="right")
    return pd.concat([frame, guesses, contrary], ignore_index=True)


def test_weighing_annotators_helps_where_some_are_bad():
    """By .05 over 60 seeds, with a standard error of .01."""
    taus = {True: [], False: []}
    for seed in range(40):
        frame, truth = order_by_eye(15, 3, 0.3, seed)
        for weigh, found in taus.items():
            config = ConsensusConfig(weigh=weigh)
            scores = fit_consensus(add_bad_annotators(frame, seed), config)
            known = truth[scores["item"].astype(int)]
            # Rounded, or else rounding would order the items that are even.
            found.append(kendalltau(scores["score"].round(6), known).statistic)
    assert np.mean(taus[True]) > np.mean(taus[False]) + 0.02


def test_who_answers_at_random_or_upside_down_is_found_and_counts_less():
    frame, _ = order_by_eye(15, 6, 0.2, seed=0)
    everyone = add_bad_annotators(frame, seed=1)
    crowd = fit_answers(everyone, ConsensusConfig())
    reliability = dict(zip(crowd.voices.annotators, crowd.reliability, strict=True))
    assert min(reliability[f"a{n}"] for n in range(6)) > 0.9
    assert 0.3 < reliability["guess"] < 0.75 and reliability["contrary"] < 0.2
    annotators = tabulate_annotators(everyone, crowd).set_index("annotator")
    assert annotators.loc["contrary", "with_others"] < 0.1
    assert annotators.loc["a0", "n_answers"] == 105 and np.isnan(
        annotators.loc["a0", "consistency"]
    )


def test_intervals_hold_their_promise_for_orderings_too():
    """Comparisons of one ordering hang together; without the widening a third would be missed."""
    inside = []
    for seed in range(12):
        frame, truth = order_by_eye(25, 10, 0.5, seed)
        scores = fit_consensus(frame)
        known = ((truth - truth.mean()) / truth.std())[scores["item"].astype(int)]
        inside.append((scores["lower"] < known) & (known < scores["upper"]))
    assert 0.8 < np.mean(inside) < 0.97, np.mean(inside)


def test_disputes_are_told_with_both_sides_most_even_first():
    rows = [("a", "1", "2", "left"), ("b", "1", "2", "right"), ("c", "1", "2", "right"),
            ("d", "1", "2", "tie"), ("a", "3", "4", "left"), ("b", "4", "3", "left"),
            ("a", "5", "6", "left"), ("b", "6", "5", "right"), ("c", "5", "6", "skip")]  # fmt: skip
    found = tabulate_disputes(table(rows))
    assert found.to_numpy().tolist() == [
        ["3", "4", 1, 1, 0, "a", "b"], ["2", "1", 2, 1, 1, "b, c", "a"],
    ]  # fmt: skip


def test_repeats_count_as_the_same_answer_on_either_side():
    rows = [("a", "1", "2", "left"), ("a", "2", "1", "right"), ("a", "1", "2", "right"),
            ("a", "3", "4", "tie"), ("a", "4", "3", "tie")]  # fmt: skip
    assert count_repeats(table(rows)) == (2, 3)


def test_a_report_has_its_tables_pictures_and_words(tmp_path, capsys):
    source = tmp_path / "a.csv"
    source.write_text("annotator,ordering\nada,1>2=3\nb|<o>,2>1>3\ncy,3>2>1\n")
    main(["compare", "report", "--store", str(source), "--out", str(tmp_path / "r")])
    assert "3 annotators, 3 pairs in dispute" in capsys.readouterr().err
    names = {path.name for path in (tmp_path / "r").iterdir()}
    tables = {f"{name}.csv" for name in ("consensus", "annotators", "agreement", "disputes")}
    pictures = {f"{name}.png" for name in ("levels", "agreement", "hasse")}
    assert names == {"manifest.json", "report.md"} | tables | pictures
    text = (tmp_path / "r" / "report.md").read_text()
    assert "9 comparisons of 3 items by 3 annotator(s)" in text and "<o>" not in text
    assert json.loads((tmp_path / "r" / "manifest.json").read_text())["n_disputes"] == 3
    main(["compare", "report", "--store", str(source), "--out", str(tmp_path / "r")])
    assert "is done already" in capsys.readouterr().err
    with pytest.raises(ArtifactError, match="--overwrite"):
        write_report(source, tmp_path / "r", ConsensusConfig(interval=0.5))
    write_report(source, tmp_path / "r", ConsensusConfig(interval=0.5), overwrite=True)


def test_one_annotator_and_many_items_leave_pictures_out(tmp_path):
    source = tmp_path / "a.csv"
    chain = ">".join(map(str, range(410)))
    source.write_text(f"annotator,ordering\nada,{chain}\n")
    write_report(source, tmp_path / "r")
    assert not {"hasse.png", "agreement.png"} & {path.name for path in (tmp_path / "r").iterdir()}


def test_missing_numbers_are_told_as_none():
    assert to_markdown(pd.DataFrame({"a|b": ["x|y"], "n": [np.nan]}))[2] == "| x&#124;y | none |"


@pytest.mark.skipif(not DATA.is_dir(), reason=f"no real data at {DATA}; set ECOFM_DATA")
def test_the_ten_real_annotators():
    frame = read_comparisons(DATA / "nk_clusters" / "orderings.csv")
    published = fit_consensus(read_comparisons(DATA / "nk_clusters" / "ensemble.txt"))
    rank = published.set_index("item")["score"].round(6)
    scores = fit_consensus(frame, ConsensusConfig(weigh=False))
    # A plain mean rank reaches .944.
    assert kendalltau(scores["score"], rank[scores["item"]]).statistic == pytest.approx(
        0.944, abs=2e-3
    )
    weighed = fit_consensus(frame)
    assert kendalltau(weighed["score"], rank[weighed["item"]]).statistic > 0.94
    disputes = tabulate_disputes(frame)
    sides = disputes[["item", "other"]].astype(int) <= 10
    # The study: 67 of 110 pairs within a class have annotators on both sides.
    assert (sides["item"] == sides["other"]).sum() == 67
