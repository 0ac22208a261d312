"""The store: what is acknowledged stays, what comes twice counts once, what is foreign is out."""

import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecofm.compare.comparison import OUTCOMES, Comparison, normalize_annotator, normalize_item
from ecofm.compare.exchange import export, import_files, read_comparisons
from ecofm.compare.people import Person
from ecofm.compare.schema import digest_row
from ecofm.compare.store import RECORD, Store, Vote
from ecofm.errors import ComparisonError

ADA = Person("ada", "me")


def is_name(text):
    """Whether a text can name anything; 1.5, nan and blanks cannot."""
    try:
        return bool(normalize_item(text))
    except ComparisonError:
        return False


TEXT = st.text(
    st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=12
).filter(is_name)  # fmt: skip
ROWS = st.lists(
    st.builds(
        Comparison,
        TEXT.map(normalize_annotator),
        TEXT.map(normalize_item),
        TEXT.map(normalize_item),
        st.sampled_from(OUTCOMES),
    ).filter(lambda row: row.left != row.right),
    min_size=1,
    max_size=20,
)


def make_vote(number, outcome="left", annotator="ada"):
    comparison = Comparison(annotator, "3", "4", outcome)
    return Vote(id=f"{number:032x}", comparison=comparison, response_ms=900, owner="me")


def test_a_vote_is_kept_with_all_that_belongs_to_it(tmp_path):
    with Store(tmp_path / "votes") as store:
        assert store.add(make_vote(1))
    row = sqlite3.connect(tmp_path / "votes").execute("SELECT * FROM vote").fetchone()
    assert row[:6] == (f"{1:032x}", "ada", "3", "4", "left", 900)
    assert row[6].endswith("+00:00")
    assert row[7:13] == ("0.1.0", "web", None, "3", "informed", "me") and row[13] == digest_row(
        *row[:13]
    )


def test_wal_and_full_synchronisation_are_on(tmp_path):
    with Store(tmp_path / "votes") as store:
        assert store.query("PRAGMA journal_mode") == [("wal",)]
        assert store.query("PRAGMA synchronous") == [(2,)]


def test_a_retry_is_the_same_vote_and_another_answer_is_refused(tmp_path):
    with Store(tmp_path / "votes") as store:
        assert [store.add(make_vote(1)) for _ in range(3)] == [True, False, False]
        assert store.count_votes("ada") == 1
        with pytest.raises(ComparisonError, match="another answer"):
            store.add(make_vote(1, outcome="right"))
        for malformed in ("", "short", "x" * 65, "x" * 20 + "'", "x" * 20 + "\n"):
            with pytest.raises(ComparisonError, match="malformed"):
                store.add(Vote(id=malformed, comparison=make_vote(1).comparison, response_ms=1))


def test_undo_takes_back_own_web_votes_only_and_for_good(tmp_path):
    with Store(tmp_path / "votes") as store:
        store.add(make_vote(1))
        store.add_tables([("comparison", [Comparison("ada", "5", "6", "tie")])])
        imported = store.query("SELECT id FROM vote WHERE response_ms IS NULL")[0][0]
        assert store.undo(f"{1:032x}", Person("bo", "me")) is None
        assert store.undo(f"{1:032x}", Person("ada", "another")) is None
        assert store.undo(imported, ADA) is None
        assert store.undo(f"{1:032x}", ADA) == Comparison("ada", "3", "4", "left")
        assert store.undo(f"{1:032x}", ADA) is None
        store.add(make_vote(1))  # a late retry
        assert store.comparisons() == [Comparison("ada", "5", "6", "tie")]
        assert "3" not in [row[2] for row in store.records()]


def test_sessions_are_found_by_their_token_only(tmp_path):
    with Store(tmp_path / "votes") as store:
        token = store.people.start_session(ADA)
        assert store.people.find(token) == ADA
        assert store.people.find(token + "x") is None and store.people.find("") is None
    assert token.encode() not in (tmp_path / "votes").read_bytes()


def test_importing_twice_adds_nothing(tmp_path):
    first, second = tmp_path / "a.csv", tmp_path / "b.csv"
    first.write_text("annotator,ordering\nada,1>2>3\nada,1>2\n")
    second.write_text("annotator,left,right,outcome\nada,1,2,left\nbo,1,2,skip\n")
    summary = import_files([first, second], tmp_path / "store")
    assert [(file.n_added, file.n_known) for file in summary.files] == [(4, 0), (1, 1)]
    assert (summary.n_added, summary.n_known) == (5, 1)
    assert import_files([second, first], tmp_path / "store").n_added == 0
    export(tmp_path / "store", tmp_path / "out.csv")
    assert import_files([tmp_path / "out.csv", tmp_path / "store"], tmp_path / "store").n_added == 0


def test_the_export_of_web_votes_adds_nothing_when_it_comes_back(tmp_path):
    with Store(tmp_path / "store") as store:
        store.add(make_vote(1))
        store.add(make_vote(2))
    export(tmp_path / "store", tmp_path / "out.parquet")
    assert import_files([tmp_path / "out.parquet"], tmp_path / "store").n_added == 0
    assert import_files([tmp_path / "out.parquet"], tmp_path / "other").n_added == 2


def test_a_bad_file_among_good_ones_writes_nothing(tmp_path):
    good, bad = tmp_path / "good.csv", tmp_path / "bad.csv"
    good.write_text("annotator,ordering\nada,1>2\n")
    bad.write_text("annotator,ordering\nada,1<2\n")
    with pytest.raises(ComparisonError, match=r"bad\.csv, line 2"):
        import_files([good, bad], tmp_path / "store")
    assert not (tmp_path / "store").exists()
    with pytest.raises(ComparisonError, match="no file"):
        import_files([], tmp_path / "store")


def test_a_fault_while_writing_rolls_everything_back(tmp_path):
    with Store(tmp_path / "store") as store:
        good, broken = Comparison("a", "1", "2", "tie"), Comparison("a", "1", "2", "unknown")
        store.add_tables([("comparison", [good])])
        with pytest.raises(sqlite3.OperationalError):
            with store.transaction():
                store._insert([("x" * 32, *good, None, None, None, None)], "import:comparison")
                store.query("SELECT no_such_column FROM vote")
        assert store.add_tables([("comparison", [broken])]) == [0]
        assert store.comparisons() == [good]
        store.add(make_vote(1))  # no transaction is left open


@settings(max_examples=25)
@given(ROWS, st.sampled_from(["csv", "parquet"]))
def test_export_import_export_gives_equal_tables(rows, suffix):
    with TemporaryDirectory() as name:
        folder = Path(name)
        with Store(folder / "one") as store:
            store.add_tables([("comparison", rows)])
        assert export(folder / "one", folder / f"one.{suffix}") == len(rows)
        import_files([folder / f"one.{suffix}"], folder / "two")
        export(folder / "two", folder / f"two.{suffix}")
        frames = [read_comparisons(folder / f"{name}.{suffix}") for name in ("one", "two")]
        pd.testing.assert_frame_equal(*frames)
        assert frames[0].values.tolist() == [list(row) for row in rows]


def test_what_is_no_store_is_refused(tmp_path):
    (tmp_path / "text").write_text("annotator,ordering\nada,1>2\n")
    with pytest.raises(ComparisonError, match="is not a comparison store"):
        Store(tmp_path / "text")
    with pytest.raises(ComparisonError, match="is not a comparison store"):
        Store(tmp_path)
    with pytest.raises(ComparisonError, match="does not exist"):
        Store(tmp_path / "none", create=False)
    assert not (tmp_path / "none").exists()
    with pytest.raises(ComparisonError, match="cannot be opened"):
        Store(tmp_path / "text" / "below")


def test_other_sqlite_files_and_schemas_are_refused_and_left_alone(tmp_path):
    path = tmp_path / "other"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE mine (x)")
    db.close()
    before = path.read_bytes()
    with pytest.raises(ComparisonError, match="another program"):
        Store(path)
    assert path.read_bytes() == before
    Store(tmp_path / "newer").close()
    with sqlite3.connect(tmp_path / "newer") as db:
        db.execute("PRAGMA user_version=4")
    db.close()
    with pytest.raises(ComparisonError, match="is damaged"):
        read_comparisons(tmp_path / "newer")
    with sqlite3.connect(tmp_path / "newer") as db:
        db.execute("ALTER TABLE vote ADD COLUMN mood TEXT")
    db.close()
    with pytest.raises(ComparisonError, match="a store of schema 4, expected 3; export it with"):
        read_comparisons(tmp_path / "newer")


def test_exports_are_refused_when_empty_or_of_another_suffix(tmp_path):
    Store(tmp_path / "store").close()
    with pytest.raises(ComparisonError, match="no comparisons yet"):
        export(tmp_path / "store", tmp_path / "out.csv")
    with pytest.raises(ComparisonError, match="does not exist"):
        export(tmp_path / "none", tmp_path / "out.csv")
    import_csv = tmp_path / "a.csv"
    import_csv.write_text("annotator,ordering\nada,1>2\n")
    with pytest.raises(ComparisonError, match="is not a comparison store"):
        export(import_csv, tmp_path / "out.csv")
    import_files([import_csv], tmp_path / "store")
    with pytest.raises(ComparisonError, match=r"expected \.csv, \.parquet, \.json, \.txt"):
        export(tmp_path / "store", tmp_path / "out.xlsx")


def test_threads_and_a_second_process_write_at_once(tmp_path):
    with Store(tmp_path / "votes") as store, Store(tmp_path / "votes") as other:
        with ThreadPoolExecutor(8) as pool:
            stores = [store, other] * 100
            added = pool.map(lambda n: stores[n].add(make_vote(n // 2)), range(200))
            assert sum(added) == 100
        assert len(store.comparisons()) == 100


VOTER = """
import sys
from pathlib import Path
from ecofm.compare.people import Person
from ecofm.compare.schema import digest_row
from ecofm.compare.store import RECORD, Store, Vote
from ecofm.compare.comparison import Comparison
with Store(Path(sys.argv[1])) as store:
    for number in range(10**9):
        vote_id = f"{sys.argv[2]}-{number:032d}"
        comparison = Comparison("ada", "3", "4", "tie")
        store.add(Vote(id=vote_id, comparison=comparison, response_ms=1))
        print(vote_id, flush=True)
"""


def test_no_acknowledged_vote_is_lost_to_kill_9(tmp_path):
    acknowledged = []
    for run in range(4):
        voter = subprocess.Popen(
            [sys.executable, "-c", VOTER, str(tmp_path / "votes"), f"run{run}"],
            stdout=subprocess.PIPE,
            text=True,
        )
        first = voter.stdout.readline()
        time.sleep(0.15 * (run + 1))
        voter.kill()
        printed = (first + voter.communicate()[0]).splitlines(keepends=True)
        acknowledged += [line.strip() for line in printed if line.endswith("\n")]
    with Store(tmp_path / "votes", create=False) as store:
        stored = [vote_id for (vote_id,) in store.query("SELECT id FROM vote")]
    assert len(acknowledged) > 20
    assert set(acknowledged) <= set(stored)
    # At most the one vote a run that was on the disk and not yet acknowledged.
    assert len(stored) <= len(acknowledged) + 4


def test_a_store_of_schema_1_is_brought_up_to_date(tmp_path):
    db = sqlite3.connect(tmp_path / "old")
    db.executescript(
        """CREATE TABLE vote (id TEXT PRIMARY KEY, annotator TEXT NOT NULL, "left" TEXT NOT NULL,
            "right" TEXT NOT NULL CHECK ("right" <> "left"), outcome TEXT NOT NULL,
            response_ms INTEGER, created TEXT NOT NULL, app_version TEXT NOT NULL,
            source TEXT NOT NULL, undone TEXT);
        CREATE INDEX vote_annotator ON vote (annotator, "left", "right");
        CREATE TABLE session (token_sha256 TEXT PRIMARY KEY, annotator TEXT, created TEXT);
        INSERT INTO vote VALUES ('a', 'ada', '1', '2', 'left', 5, 'x', '0.0.1', 'web', NULL);
        INSERT INTO vote VALUES ('b', 'ada', '2', '3', 'tie', NULL, 'x', '0.0.1', 'import:o', NULL);
        PRAGMA user_version=1;"""
    )
    db.execute(f"PRAGMA application_id={int.from_bytes(b'ecof', 'big')}")
    db.close()
    for _ in range(2):
        with Store(tmp_path / "old") as store:
            assert [row[5] for row in store.records()][:2] == ["1", None]
            store.add(make_vote(1))
            assert store.count_votes("ada") == 2 and not store.people.has_invites()


def test_a_full_export_has_all_that_is_kept_and_is_read_again(tmp_path):
    with Store(tmp_path / "store") as store:
        store.add(make_vote(1))
        store.add_tables([("comparison", [Comparison("bo", "5", "6", "tie")])])
    assert export(tmp_path / "store", tmp_path / "all.csv", full=True) == 2
    frame = pd.read_csv(tmp_path / "all.csv", dtype=str)
    assert frame.columns.tolist() == list(RECORD)
    assert frame["response_ms"].tolist()[0] == "900" and frame["shown_left"].isna().tolist()[1]
    assert import_files([tmp_path / "all.csv"], tmp_path / "store").n_added == 0
    export(tmp_path / "store", tmp_path / "all.parquet", "bo", full=True)
    assert read_comparisons(tmp_path / "all.parquet").values.tolist() == [["bo", "5", "6", "tie"]]


def test_what_is_deleted_is_gone_from_the_file(tmp_path):
    name = "unmistakable-annotator"
    with Store(tmp_path / "votes") as store:
        store.add(make_vote(1, annotator=name))
        person = Person(name, "me")
        store.add_tiers("t" * 32, person, [Comparison(name, "8", "9", "left")])
        assert len(store.forget(person)) == 2 and store.comparisons() == []
        assert not store.add_tiers("t" * 32, person, [Comparison(name, "8", "9", "left")])
    assert name.encode() not in (tmp_path / "votes").read_bytes()
    assert not (tmp_path / "votes-wal").exists()
