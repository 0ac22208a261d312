"""Stores on full, read-only and failing disks, and stores in which bytes have changed."""

import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from ecofm.cli import main
from ecofm.compare import database, wal
from ecofm.compare.comparison import Comparison
from ecofm.compare.exchange import export, import_files, read_comparisons
from ecofm.compare.people import Person
from ecofm.compare.recovery import recover
from ecofm.compare.store import Store, Vote
from ecofm.errors import ComparisonError

ADA = Person("ada", "me")
N_FLIPS = 150


def fill(path, n=40):
    """A store of votes, a session, an invitation and a claimed name."""
    rng = random.Random(0)
    with Store(path) as store:
        person = store.people.enter("ada", "b" * 43, claim=True)
        store.people.start_session(person)
        store.people.invite("bo")
        for number in range(n):
            left, right = map(str, rng.sample(range(30), 2))
            said = Comparison("ada", left, right, rng.choice(["left", "right", "tie", "skip"]))
            store.add(
                Vote(id=f"{number:032x}", comparison=said, response_ms=number, owner=person.owner)
            )
    return path


def see(path):
    """All that a store holds; opening it checks it."""
    with Store(path, create=False, read_only=True) as store:
        return [store.query(f"SELECT * FROM {table}") for table in database.TABLES]


def flip(path, out, position, bit):
    content = bytearray(path.read_bytes())
    content[position % len(content)] ^= 1 << bit
    out.write_bytes(content)


def test_no_flipped_bit_passes_for_what_was_said(tmp_path):
    path, changed = fill(tmp_path / "votes"), tmp_path / "changed"
    whole, size = see(path), path.stat().st_size
    rng = random.Random(1)
    n_refused = 0
    for _ in range(N_FLIPS):
        flip(path, changed, rng.randrange(16, size), rng.randrange(8))
        try:
            assert see(changed) == whole
        except ComparisonError as error:
            assert "is damaged (" in str(error) and "ecofm compare recover" in str(error)
            n_refused += 1
        for log in tmp_path.glob("changed-*"):
            log.unlink()
    assert n_refused > N_FLIPS / 10  # the rest fell on bytes that hold nothing


@pytest.mark.parametrize(
    ("old", "new"),
    [(b"ada", b"aba"), (b"informed", b"infosmed"), (b"CHECK", b"CHEKK"), (b"web", b"wfb"),
     (b"left", b"lefv"), (b"study", b"stuey"), (b"\xe2", b"\xe3")],
)  # fmt: skip
def test_a_changed_value_is_refused_by_every_verb_in_one_sentence(tmp_path, capsys, old, new):
    path = fill(tmp_path / "votes")
    content = path.read_bytes()
    place = content.rfind(old)
    if place < 0:
        old, new, place = b"ada", b"ad\xff", content.rfind(b"ada")  # no UTF-8
    path.write_bytes(content[:place] + new + content[place + len(old) :])
    out, table = str(tmp_path / "out.csv"), tmp_path / "a.csv"
    table.write_text("annotator,left,right,outcome\nada,1,2,left\n")
    store = ["--store", str(path)]
    for verb in (["export", *store, "--out", out], ["consensus", *store, "--out", out],
                 ["report", *store, "--out", str(tmp_path / "report")], ["names", *store],
                 ["invite", "ada", *store], ["import", str(table), *store],
                 ["import", str(path), "--store", str(tmp_path / "new")]):  # fmt: skip
        with pytest.raises(SystemExit) as ended:
            main(["compare", *verb])
        said = capsys.readouterr().err.splitlines()
        assert ended.value.code == 1 and len(said) == 1 and "is damaged (" in said[0], (verb, said)
    assert not (tmp_path / "out.csv").exists() and not (tmp_path / "new").exists()


def test_what_can_be_read_of_a_damaged_store_is_saved(tmp_path, capsys):
    path = fill(tmp_path / "votes", n=400)
    whole = see(path)
    content = bytearray(path.read_bytes())
    place = content.rfind(b"informed")
    content[place : place + 8] = b"infosmed"
    n_pages = len(content) // 4096
    content[4096 * (n_pages // 2) : 4096 * (n_pages // 2) + 64] = bytes(64)  # a page is gone
    path.write_bytes(content)
    before = path.read_bytes()
    main(["compare", "recover", "--store", str(path), "--out", str(tmp_path / "new")])
    said = capsys.readouterr().err
    assert "comparisons saved" in said and "vote" in said
    saved = see(tmp_path / "new")
    assert 300 < len(saved[0]) < 400 and set(saved[0]) < set(whole[0])
    assert path.read_bytes() == before
    with pytest.raises(ComparisonError, match="exists; give a new --out"):
        recover(path, tmp_path / "new")
    with pytest.raises(ComparisonError, match="is not a comparison store"):
        recover(tmp_path / "none", tmp_path / "other")


def test_a_store_whose_tables_are_defined_otherwise_is_saved_whole(tmp_path):
    path = fill(tmp_path / "votes")
    whole = see(path)
    content = path.read_bytes()
    for number, word in enumerate((b"CREATE TABLE vote (", b"outcome TEXT", b"vote_annotator ON")):
        place = content.find(word) + 3
        path.write_bytes(content[:place] + b"#" + content[place + 1 :])
        with pytest.raises(ComparisonError, match="is damaged"):
            see(path)
        new = tmp_path / f"new{number}"
        assert recover(path, new).n_lost == 0 and see(new) == whole


KILLED = """
import os, sys
from pathlib import Path
from ecofm.compare.comparison import Comparison
from ecofm.compare.store import Store, Vote
store = Store(Path(sys.argv[1]))
for number in range(12):
    said = Comparison("ada", str(number), "99", "left")
    store.add(Vote(id=f"{number:032x}", comparison=said, response_ms=1, owner="me"))
os.kill(os.getpid(), 9)
"""


def test_a_changed_byte_in_the_log_of_a_killed_server_is_noticed(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(database, "say", told.append)
    monkeypatch.setattr(wal, "PAUSE_SECONDS", 0.0)
    path, copy = tmp_path / "votes", tmp_path / "copy"
    died = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert died.returncode == -signal.SIGKILL
    log = tmp_path / "votes-wal"
    size = log.stat().st_size
    rng = random.Random(2)
    places = [0, 5, 17, 25, 40, 100, size - 1, *(rng.randrange(size) for _ in range(30))]
    for place in places:
        for name in ("", "-shm"):
            copy.with_name(f"copy{name}").unlink(missing_ok=True)
        shutil.copy(path, copy)
        flip(log, tmp_path / "copy-wal", place, place % 8)
        told.clear()
        try:
            assert len(see(copy)[0]) == 11 and "is incomplete and left out" in told[0]
        except ComparisonError as error:
            assert "copy-wal, with the latest votes" in str(error)
    shutil.copy(path, copy)
    copy.with_name("copy-shm").unlink(missing_ok=True)
    # As after a kill in the middle of a write: nobody was told that this vote is kept.
    copy.with_name("copy-wal").write_bytes(log.read_bytes()[:-1000])
    told.clear()
    assert len(see(copy)[0]) == 11 and told == []
    assert len(see(path)[0]) == 12 and told == []


def limit_pages(store, n_more):
    (n_pages,) = store.query("PRAGMA page_count")[0]
    store.query(f"PRAGMA max_page_count={n_pages + n_more}")


def test_a_full_disk_keeps_all_or_nothing_and_goes_on_when_there_is_room(tmp_path):
    rows = [Comparison("bo", str(n), str(n + 1), "tie") for n in range(3000)]
    with Store(fill(tmp_path / "votes")) as store:
        before = store.comparisons()
        limit_pages(store, 3)
        for _ in range(2):
            with pytest.raises(database.StoreError, match=r"the disk of .* is full") as found:
                store.add_tables([("comparison", rows)])
            assert found.value.status == 507 and store.comparisons() == before
        limit_pages(store, 10**6)
        assert store.add_tables([("comparison", rows)]) == [3000]
    assert len(see(tmp_path / "votes")[0]) == 3040


def test_a_page_that_votes_on_a_full_disk_is_told_and_tried_again(tmp_path, capsys):
    pytest.importorskip("fastapi", reason="the app extra is not installed")
    from tests.unit.compare.client import connect, enter, make_vote

    with Store(tmp_path / "votes") as store:
        client = connect(store, tmp_path)
        headers = enter(client)
        store.query("PRAGMA max_page_count=1")
        refused, statuses = 0, []
        body = make_vote(client, headers)
        for _ in range(300):
            body = make_vote(client, headers)
            answer = client.post("/api/vote", json=body, headers=headers)
            statuses.append(answer.status_code)
            if answer.status_code != 200:
                refused += 1
                assert answer.status_code == 507 and answer.headers["retry-after"]
                assert answer.json()["detail"] == (
                    "the server cannot keep answers now: its disk is full"
                )
                break
        assert refused and "is full" in capsys.readouterr().err
        n_before = statuses.count(200)
        assert len(store.comparisons()) == n_before
        assert client.get("/api/pair", headers=headers).status_code == 200
        limit_pages(store, 10**6)
        assert client.post("/api/vote", json=body, headers=headers).status_code == 200
        assert len(store.comparisons()) == n_before + 1
        store.query("PRAGMA query_only=ON")
        again = client.post("/api/vote", json=make_vote(client, headers), headers=headers)
        assert again.status_code == 503 and "cannot be written" in again.json()["detail"]
        store.query("PRAGMA query_only=OFF")


@pytest.mark.parametrize("limit_bytes", [0, 20_000, 60_000, 150_000])
def test_an_import_that_finds_no_room_ends_in_a_sentence(tmp_path, limit_bytes):
    table = tmp_path / "a.csv"
    lines = (f"ada,{n},{n + 1},left" for n in range(5000))
    table.write_text("\n".join(["annotator,left,right,outcome", *lines]))
    code = "from ecofm.cli import main; import sys; main(sys.argv[1:])"
    command = ["compare", "import", str(table), "--store", str(tmp_path / "votes")]
    ended = subprocess.run(
        [sys.executable, "-c", code, *command], capture_output=True, text=True, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes)),
    )  # fmt: skip
    assert ended.returncode == 1 and "Traceback" not in ended.stderr
    assert ended.stderr.count("error:") == 1 and "votes" in ended.stderr
    if (tmp_path / "votes").exists() and (tmp_path / "votes").stat().st_size:
        with Store(tmp_path / "votes") as store:
            assert store.comparisons() == []
    assert import_files([table], tmp_path / "votes").n_added == 5000


def test_a_store_in_a_folder_that_cannot_be_written_is_read(tmp_path):
    path = fill(tmp_path / "votes")
    before = path.read_bytes()
    folder = tmp_path / "locked"
    folder.mkdir()
    shutil.copy(path, folder / "votes")
    folder.chmod(0o555)
    (folder / "votes").chmod(0o444)
    try:
        assert len(read_comparisons(folder / "votes")) == 40
        assert export(folder / "votes", tmp_path / "out.csv", full=True) == 40
        if os.geteuid():  # root writes everywhere
            with pytest.raises(ComparisonError, match=r"cannot be (written|opened)"):
                Store(folder / "votes")
    finally:
        folder.chmod(0o755)
    assert path.read_bytes() == before == (folder / "votes").read_bytes()


def test_an_older_store_is_read_as_it_is_with_a_warning(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(database, "say", told.append)
    path = make_old(tmp_path / "old")
    before = path.read_bytes()
    assert read_comparisons(path).values.tolist() == [["ada", "1", "2", "left"]]
    assert path.read_bytes() == before and "has no checksums" in told[0]
    with Store(path) as store:
        assert store.query("SELECT * FROM session") == []
        assert store.people.has_invites() and len(store.comparisons()) == 1
    told.clear()
    assert len(see(path)[0]) == 1 and told == []


def test_an_older_store_with_impossible_values_is_refused(tmp_path):
    path = make_old(tmp_path / "old", response="'soon'")
    with pytest.raises(ComparisonError, match=r"is damaged \(vote.response_ms is 'soon'"):
        Store(path)
    path = make_old(tmp_path / "good")
    assert recover(path, tmp_path / "new").n_kept == 1


def make_old(path, response="5"):
    """A store of schema 2, as it was written before rows had digests."""
    db = sqlite3.connect(path)
    db.executescript(
        f"""CREATE TABLE vote (id TEXT PRIMARY KEY, annotator TEXT NOT NULL, "left" TEXT NOT NULL,
            "right" TEXT NOT NULL CHECK ("right" <> "left"), outcome TEXT NOT NULL,
            response_ms INTEGER, created TEXT NOT NULL, app_version TEXT NOT NULL,
            source TEXT NOT NULL, undone TEXT, shown_left TEXT, asked TEXT);
        CREATE INDEX vote_annotator ON vote (annotator, "left", "right");
        CREATE TABLE session (token_sha256 TEXT PRIMARY KEY, annotator TEXT, created TEXT);
        CREATE TABLE invite (token_sha256 TEXT PRIMARY KEY, annotator TEXT, created TEXT);
        INSERT INTO vote VALUES ('a', 'ada', '1', '2', 'left', {response}, 'x', '0.0.1', 'web',
            NULL, '1', 'random');
        INSERT INTO session VALUES ('t', 'ada', 'x');
        INSERT INTO invite VALUES ('i', 'ada', 'x');
        PRAGMA user_version=2;"""
    )
    db.execute(f"PRAGMA application_id={int.from_bytes(b'ecof', 'big')}")
    db.close()
    return Path(path)
