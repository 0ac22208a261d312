"""Disks that take no more: one sentence, nothing half-written, and no signal that kills."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import SafetensorError

from ecofm import disk
from ecofm.artifact import Draft
from ecofm.disk import create_array, find_refusal, reserve, unwritable
from ecofm.errors import ArtifactError
from ecofm.faults import explain
from tests.command import run


@pytest.fixture
def small_files() -> Iterator[Callable[[int], None]]:
    """Lets files grow to a size only, as `ulimit -f` does: a full disk without a disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(n_bytes: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def commands(stages: Any) -> dict[str, list[object]]:
    archive, embeddings = ["--archive", stages.archive], ["--embeddings", stages.embeddings]
    answers = ["--comparisons", stages.answers]
    return {
        "embed": ["embed", *archive, "--encoder", stages.encoder],
        "cluster": ["cluster", *embeddings, *archive, "--k", 3],
        "rank": ["rank", *embeddings, *answers, "--n-heads", 3],
        "transfer": ["transfer", *embeddings, *answers, "--ranker", stages.ranker, "--force"],
        "score": ["score", *embeddings, "--ranker", stages.ranker, "--cog"],
        "change": ["change", "--scores", stages.scores, "--from", "2019", "--to", "2020"],
    }


@pytest.mark.parametrize("n_bytes", [0, 1000, 5000])
@pytest.mark.parametrize("stage", ["embed", "cluster", "rank", "transfer", "score", "change"])
def test_every_stage_tells_a_full_disk_in_a_sentence_and_leaves_nothing(
    stages: Any,
    tmp_path: Path,
    small_files: Callable[[int], None],
    capsys: pytest.CaptureFixture[str],
    stage: str,
    n_bytes: int,
) -> None:
    small_files(n_bytes)
    assert run(*commands(stages)[stage], "--out", tmp_path / "out") == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert f"{tmp_path / 'out'} cannot be written: " in last and last.endswith("another --out.")
    assert not list(tmp_path.iterdir())


def test_room_is_reserved_before_an_array_is_mapped(
    tmp_path: Path, small_files: Callable[[int], None]
) -> None:
    small_files(10_000)
    with pytest.raises(OSError) as caught:
        create_array(tmp_path / "a.npy", (1000, 10))
    assert isinstance(caught.value, OSError) and caught.value.errno in disk.FULL
    array = create_array(tmp_path / "b.npy", (100, 10))
    array[:] = 1
    array.flush()
    assert (np.load(tmp_path / "b.npy") == 1).all()
    assert os.stat(tmp_path / "b.npy").st_blocks * 512 >= 4000


def test_where_room_cannot_be_reserved_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: int) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(disk.os, "posix_fallocate", refuse)
    monkeypatch.setattr(disk, "BLOCK_BYTES", 7)
    path = tmp_path / "a"
    path.write_bytes(b"kept")
    reserve(path, 40)
    assert path.read_bytes() == b"kept" + bytes(36)


def wrapped() -> Exception:
    try:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        found = RuntimeError("a library's own")
        found.__cause__ = error
        return found


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)),
        SafetensorError(
            "Error while serializing: I/O error: No space left on device (os error 28)"
        ),
        OSError("4096 requested and 1024 written"),
        wrapped(),
    ],
)
def test_a_full_disk_is_told_whatever_a_library_makes_of_it(
    tmp_path: Path, error: Exception
) -> None:
    assert find_refusal(error) is not None
    code, sentence = explain(error)
    assert code == 1 and "cannot be written" in sentence and "free some space" in sentence
    draft = Draft(tmp_path / "out", stage="scores", config={}, inputs={})
    with pytest.raises(ArtifactError, match=r"out cannot be written: .*free some space"), draft:
        raise error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [ValueError("no disk"), KeyError("x"), OSError(5, "I/O error")])
def test_other_faults_are_told_as_before(tmp_path: Path, error: Exception) -> None:
    assert find_refusal(error) is None
    draft = Draft(tmp_path / "out", stage="scores", config={}, inputs={})
    with pytest.raises(type(error)), draft:
        raise error


def test_a_file_that_may_not_be_read_is_not_taken_for_one_that_may_not_be_written(
    tmp_path: Path,
) -> None:
    error = PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "answers.csv"))
    draft = Draft(tmp_path / "out", stage="scores", config={}, inputs={})
    with pytest.raises(PermissionError), draft:
        raise error


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, r"the disk at .* is full \(.* are free\); free some space"),
        (errno.EDQUOT, r"your quota on the disk at .* is used up; free some space"),
        (errno.EROFS, r"the disk at .* is read-only; choose"),
        (errno.EFBIG, r"`ulimit -f`, allows no file as large; raise the limit"),
        (errno.EACCES, r"\(Permission denied\); choose"),
    ],
)
def test_the_sentence_says_why_where_and_what_to_do(tmp_path: Path, number: int, said: str) -> None:
    place = tmp_path / "not" / "yet"
    with pytest.raises(ArtifactError, match=f"^{place} cannot be written.*{said}"):
        raise unwritable(place, OSError(number, os.strerror(number)))
