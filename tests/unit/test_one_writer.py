"""One writer: the second is told who writes, a kill blocks nobody, no torn artifact is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ecofm import lock as locks
from ecofm.artifact import MANIFEST, Draft
from ecofm.embed import embed
from ecofm.errors import ArtifactError
from ecofm.lock import Lock
from ecofm.tiles.verify import verify
from tests.command import run

HOLD = """
import sys, time
from pathlib import Path
from ecofm.lock import Lock
with Lock(Path(sys.argv[1]), "embeddings"):
    print("held", flush=True)
    time.sleep(600)
"""


@contextmanager
def another(out: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that writes `out`."""
    command = [sys.executable, "-c", HOLD, str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        try:
            yield holder
        finally:
            holder.kill()


def make_draft(out: Path, k: int = 1, **options: Any) -> Draft:
    return Draft(out, stage="clusters", config={"k": k}, inputs={}, **options)


def write(out: Path, **options: Any) -> None:
    with make_draft(out, **options) as folder:
        (folder / "data.txt").write_text("whole")


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_the_second_writer_is_told_who_writes_and_a_kill_blocks_nobody(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with another(out) as holder:
        who = (
            rf"out is being written by process {holder.pid} on .*\(stage embeddings, since .*UTC\)"
        )
        with pytest.raises(ArtifactError, match=f"{who}; wait"):
            make_draft(out)
        assert not out.exists() and not (tmp_path / ".out.partial").exists()
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        assert names(tmp_path) == {".out.lock"}
        write(out)
    assert names(tmp_path) == {"out"}


def test_a_target_that_is_written_is_one_target_under_any_name(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "out")
    with another(tmp_path / "out"), pytest.raises(ArtifactError, match="is being written by"):
        make_draft(tmp_path / "link")
    with another(tmp_path / "deep" / ".." / "out"):
        write(tmp_path / "beside")


def test_what_is_finished_and_the_same_is_not_told_while_it_is_replaced(tmp_path: Path) -> None:
    write(tmp_path / "out")
    with another(tmp_path / "out"), pytest.raises(ArtifactError, match="is being written by"):
        make_draft(tmp_path / "out")
    assert make_draft(tmp_path / "out").done
    assert names(tmp_path) == {"out"}


@pytest.mark.parametrize(
    "command",
    [
        ["tile", "scenes"],
        ["tile", "scenes", "--append"],
        ["tile", "--verify"],
        ["pretrain", "--archive", "archive"],
    ],
)
def test_stages_without_a_draft_tell_it_too(
    stages: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    given = [str(stages.archive) if word == "archive" else word for word in command]
    with another(tmp_path / "out") as holder:
        assert run(*given, "--out", tmp_path / "out") == 1
    said = capsys.readouterr().err.splitlines()
    assert f"is being written by process {holder.pid} on " in said[-1] and "disk" not in said[-1]


def test_two_calls_of_embed_on_one_folder_leave_a_whole_one(stages: Any, tmp_path: Path) -> None:
    """The second begins while the first is between two batches, as it did in the wild."""
    out = tmp_path / "out"
    refused: list[str] = []

    def begin_another(done: int, total: int) -> None:
        def call() -> None:
            try:
                embed([stages.archive], stages.encoder, out, overwrite=True)
            except ArtifactError as error:
                refused.append(str(error))

        thread = threading.Thread(target=call)
        thread.start()
        thread.join()

    embed([stages.archive], stages.encoder, out, progress=begin_another)
    assert refused and f"by process {os.getpid()} on " in refused[0]
    expected = np.load(stages.embeddings / "embeddings.npy")
    assert (np.load(out / "embeddings.npy") == expected).all()
    assert names(tmp_path) == {"out"}


def test_a_call_that_failed_is_made_again_in_the_same_process(tmp_path: Path) -> None:
    """Its draft lives on in the traceback that a notebook keeps."""
    failed = make_draft(tmp_path / "out")
    write(tmp_path / "out")
    with failed as folder:
        (folder / "data.txt").write_text("again")
    assert (tmp_path / "out" / "data.txt").read_text() == "again"


def test_a_draft_that_is_given_up_leaves_nothing(tmp_path: Path) -> None:
    draft = make_draft(tmp_path / "new" / "deep" / "out")
    assert names(tmp_path / "new" / "deep") == {".out.lock"}
    del draft
    assert not names(tmp_path)


def test_a_fork_does_not_release_what_its_parent_holds(tmp_path: Path) -> None:
    with Lock(tmp_path / "out", "scores") as lock:
        if (child := os.fork()) == 0:
            lock.release()
            os._exit(0)
        os.waitpid(child, 0)
        note = json.loads((tmp_path / ".out.lock").read_text())
        assert note["pid"] == os.getpid() and note["stage"] == "scores"


@pytest.mark.parametrize("note", ["", "{", "[1]", "[" * 5000, '{"pid": 1}', "\udcff"])
def test_an_unreadable_note_is_another_process(tmp_path: Path, note: str) -> None:
    with another(tmp_path / "out"):
        (tmp_path / ".out.lock").write_text(note, errors="surrogateescape")
        with pytest.raises(ArtifactError, match="is being written by another process; wait"):
            make_draft(tmp_path / "out")


def test_a_lock_that_was_removed_meanwhile_is_taken_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The holder removes the file between another's opening and locking it."""
    path = tmp_path / ".out.lock"
    n_locked = 0
    flock = locks.fcntl.flock

    def remove_first(descriptor: int, how: int) -> None:
        nonlocal n_locked
        n_locked += 1
        if n_locked == 1:
            path.unlink()
        flock(descriptor, how)

    monkeypatch.setattr(locks.fcntl, "flock", remove_first)
    with Lock(tmp_path / "out", "scores"):
        assert n_locked == 2 and path.exists()
    assert not path.exists()


def test_a_link_in_the_place_of_the_lock_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / ".out.lock").symlink_to(tmp_path / "mine.txt")
    with pytest.raises(ArtifactError, match="out cannot be written"):
        make_draft(tmp_path / "out")
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_a_disk_without_locks_is_named_in_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(descriptor: int, how: int) -> None:
        raise OSError(locks.errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks.fcntl, "flock", refuse)
    write(tmp_path / "out")
    assert "has no locks (No locks available)" in capsys.readouterr().err
    assert names(tmp_path) == {"out"} and names(tmp_path / "out") == {"data.txt", MANIFEST}


@pytest.mark.parametrize("number", [locks.errno.EROFS, locks.errno.EACCES])
def test_what_is_done_stays_done_where_nothing_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    write(tmp_path / "out")
    opened = os.open

    def refuse(path: Any, *options: Any, **more: Any) -> int:
        if str(path).endswith(".lock"):
            raise OSError(number, os.strerror(number), str(path))
        return opened(path, *options, **more)

    monkeypatch.setattr(locks.os, "access", lambda *_: False)
    monkeypatch.setattr(locks.os, "open", refuse)
    assert make_draft(tmp_path / "out").done
    for make in (lambda: make_draft(tmp_path / "new"), lambda: write(tmp_path / "out", k=2)):
        with pytest.raises(ArtifactError, match=r"cannot be written|--overwrite"):
            make()


def test_verify_waits_for_nobody(stages: Any) -> None:
    with another(stages.archive), pytest.raises(ArtifactError, match="is being written by"):
        verify(stages.archive)
    assert verify(stages.archive) == 0
