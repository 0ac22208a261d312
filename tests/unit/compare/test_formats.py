"""The reference study's ordering files and Label Studio's JSON, there and back."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecofm.compare.comparison import OUTCOMES, Comparison
from ecofm.compare.exchange import export, import_files, read_comparisons
from ecofm.compare.graph import build_order, close, condense
from ecofm.compare.labelstudio import read_labelstudio, write_labelstudio
from ecofm.compare.orderings import expand_ordering
from ecofm.compare.store import Store
from ecofm.compare.study import read_study, write_study
from ecofm.errors import ComparisonError

DATA = Path(os.environ.get("ECOFM_DATA", Path(__file__).parents[4] / "shared" / "data"))
ADA = Path("ada.txt")
ITEMS = [str(number) for number in range(7)]
TIERS = st.lists(st.integers(0, 4), min_size=2, max_size=7)
PAIR = st.tuples(st.sampled_from(ITEMS), st.sampled_from(ITEMS))
WINS = st.lists(PAIR.filter(lambda pair: pair[0] < pair[1]), min_size=1, max_size=12)
ROWS = st.lists(
    st.builds(Comparison, st.sampled_from(["ada", "<b>"]), st.just("03".lstrip("0")),
              st.sampled_from(["4", "ü&"]), st.sampled_from(OUTCOMES)),
    min_size=1, max_size=9,
)  # fmt: skip


def closure(rows):
    order = build_order(rows)
    groups, below = condense(order)
    names = [order.names[group[0]] for group in groups]
    reach = close(below)
    return {(names[u], names[v]) for u in range(len(names)) for v in range(len(names))
            if reach[u] >> v & 1}  # fmt: skip


def test_an_ordering_file_is_read_with_what_follows_from_it():
    rows = read_study(ADA, "0<01\n\n 2 < 0\n1 = 4\n9<8\n").rows
    assert {row[1:] for row in rows} == {
        ("1", "0", "left"), ("4", "0", "left"), ("1", "2", "left"), ("4", "2", "left"),
        ("0", "2", "left"), ("4", "1", "tie"), ("8", "9", "left"),
    }  # fmt: skip
    assert {row.annotator for row in rows} == {"ada"}


@settings(max_examples=60)
@given(TIERS)
def test_a_whole_ordering_comes_back_from_its_file(tiers):
    text = ">".join(
        "=".join(str(item) for item, t in enumerate(tiers) if t == tier)
        for tier in sorted(set(tiers))
    )
    rows = expand_ordering("ada", text)
    again = read_study(ADA, write_study(rows)).rows
    assert {(frozenset(row[1:3]), row.left if row.outcome == "left" else "") for row in again} == {
        (frozenset(row[1:3]), row.left if row.outcome == "left" else "") for row in rows
    }


@settings(max_examples=60)
@given(WINS)
def test_a_partial_order_keeps_its_closure(wins):
    rows = [Comparison("ada", a, b, "left") for a, b in wins]
    assert closure(read_study(ADA, write_study(rows)).rows) == closure(rows)


@pytest.mark.parametrize(
    ("text", "words"),
    [("1<2<3\n", "line 1: found '1<2<3'"), ("1<2\n3\n", "line 2"), ("1<\n", "line 1"),
     ("1<2\n2<1\n", r"cannot all hold: 1 above 2 \(ada\), 2 above 1 \(ada\)"), ("", "names 0 item"),
     ("1=2\n1<2\n", "below its own equal"), ("1>2\n", "line 1"), ("1=2<3\n", "line 1")],
)  # fmt: skip
def test_unusable_ordering_files_are_refused(text, words):
    with pytest.raises(ComparisonError, match=words):
        read_study(ADA, text).settle().require_whole()


def test_what_an_ordering_file_cannot_hold_is_refused():
    with pytest.raises(ComparisonError, match="cannot hold a contradiction"):
        write_study([Comparison("a", "1", "2", "left"), Comparison("a", "2", "3", "left"),
                     Comparison("a", "3", "1", "left")])  # fmt: skip
    with pytest.raises(ComparisonError, match="cannot carry"):
        write_study([Comparison("a", "1<", "2", "left")])


@settings(max_examples=40)
@given(ROWS)
def test_label_studio_there_and_back(rows):
    again = read_labelstudio(Path("x.json"), write_labelstudio(rows))
    assert sorted(again.rows) == sorted(rows) and not again.rejected


def test_label_studios_own_export_is_read():
    annotation = {
        "id": 7, "completed_by": 10, "was_cancelled": False, "lead_time": 4.2,
        "result": [{"id": "Dx", "from_name": "pw", "to_name": "txt-1,txt-2", "type": "pairwise",
                    "value": {"selected": "right"}, "origin": "manual"}],
    }  # fmt: skip
    cancelled = {"completed_by": {"email": "bo@example.org"}, "was_cancelled": True, "result": []}
    task = {"id": 1, "data": {"left": 3, "right": "04"}, "annotations": [annotation, cancelled]}
    assert read_labelstudio(Path("x.json"), json.dumps([task])).rows == [
        ("10", "3", "4", "right"), ("bo@example.org", "3", "4", "skip"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("tasks", "words"),
    [("{", "not JSON"), ("[" * 100_000, "not JSON"), ("{}", "no list of tasks"),
     ("[]", "no annotation"),
     ('[{"data": {"left": "1"}, "annotations": []}]', "no annotation"),
     ('[{"data": {"left": "1", "right": "2"}, "annotations": [], "predictions": [{"result": []}]}]',
      "predictions of a model and no annotation"),
     ('[{"data": {"left": "1", "right": "2"}, "annotations": [{"completed_by": 1, "result": []}]}]',
      "1 question and no answers"),
     ("[3]", "task 1: it is '3'"), ('{"text": 1}\n{"text": 2}', "one a line perhaps"),
     ('[{"data": {"left": "1", "right": "2"}}]', "no list of annotations"),
     ('[{"left": 1, "right": 2, "answer": "left"}]', "holds 'left', 'right', 'answer'"),
     ('[{"data": {"left": "1", "right": "1"}, "annotations": [{"completed_by": 1, "result": '
      '[{"type": "pairwise", "value": {"selected": "left"}}]}]}]', "compared with itself")],
)  # fmt: skip
def test_unusable_exports_of_label_studio_are_refused(tasks, words):
    with pytest.raises(ComparisonError, match=words):
        read_labelstudio(Path("x.json"), tasks).settle().require_whole()


def test_files_go_through_the_store_by_their_suffix(tmp_path):
    (tmp_path / "ada.txt").write_text("0<1\n1<2\n")
    (tmp_path / "bo.csv").write_text("annotator,ordering\nbo,2=1>0\n")
    store = tmp_path / "store"
    assert import_files([tmp_path / "ada.txt", tmp_path / "bo.csv"], store).n_added == 6
    assert export(store, tmp_path / "out.json") == 6
    assert import_files([tmp_path / "out.json"], store).n_added == 0
    assert export(store, tmp_path / "bo.txt", "bo") == 3
    assert (tmp_path / "bo.txt").read_text() == "0<1\n1=2\n"
    assert import_files([tmp_path / "bo.txt"], tmp_path / "other").n_added == 3
    with pytest.raises(ComparisonError, match="has ada, bo; choose one with --annotator"):
        export(store, tmp_path / "all.txt")
    with pytest.raises(ComparisonError, match="nobody called 'cy', expected one of ada, bo"):
        export(store, tmp_path / "cy.txt", "cy")
    assert not (tmp_path / "all.txt").exists() and not (tmp_path / "cy.txt").exists()
    with Store(store) as opened:
        assert len(opened.comparisons()) == 6


@pytest.mark.skipif(not DATA.is_dir(), reason=f"no real data at {DATA}; set ECOFM_DATA")
def test_the_studys_published_order_is_read():
    frame = read_comparisons(DATA / "nk_clusters" / "ensemble.txt")
    assert len(frame) == 23 * 22 // 2 and set(frame["annotator"]) == {"ensemble"}
    assert (frame[frame["right"] == "22"]["outcome"] == "left").all()
