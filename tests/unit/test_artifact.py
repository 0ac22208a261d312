"""Artifacts: whole or not at all, never over foreign files, and readers that name the command."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ecofm import artifact
from ecofm.artifact import MADE_BY, MANIFEST, Draft, read_manifest, write_json, write_text
from ecofm.errors import ArtifactError


def make_draft(
    out: Path, k: int = 1, inputs: dict[str, str] | None = None, overwrite: bool = False
) -> Draft:
    return Draft(
        out, stage="clusters", config={"k": k}, inputs=inputs or {"a": "hash"}, overwrite=overwrite
    )


def write(out: Path, text: str, **options: Any) -> None:
    with make_draft(out, **options) as folder:
        (folder / "data.txt").write_text(text)


def listing(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_a_draft_is_written_beside_and_renamed(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    with make_draft(out) as folder:
        (folder / "data.txt").write_text("whole")
        assert folder.parent == out.parent and not out.exists()
    assert listing(tmp_path) == ["deep", "deep/out", "deep/out/data.txt", f"deep/out/{MANIFEST}"]
    assert read_manifest(out, "clusters")["config"] == {"k": 1}


def test_nothing_stays_after_an_exception(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), make_draft(tmp_path / "out") as folder:
        (folder / "half.txt").write_text("half")
        raise RuntimeError
    assert listing(tmp_path) == []


def test_nothing_stays_when_the_manifest_cannot_be_written(tmp_path: Path) -> None:
    draft = make_draft(tmp_path / "out")
    draft.extra = {"mean": float("nan")}
    with pytest.raises(ValueError), draft:
        pass
    assert listing(tmp_path) == []


def test_the_old_artifact_stays_when_its_replacement_fails(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(out, "old")
    with pytest.raises(RuntimeError), make_draft(out, k=2, overwrite=True):
        raise RuntimeError
    assert (out / "data.txt").read_text() == "old"
    assert listing(tmp_path) == ["out", "out/data.txt", f"out/{MANIFEST}"]


def test_same_config_and_inputs_are_done(tmp_path: Path) -> None:
    write(tmp_path / "out", "old")
    assert make_draft(tmp_path / "out").done
    assert make_draft(tmp_path / "out", overwrite=True).done
    assert not make_draft(tmp_path / "other").done


@pytest.mark.parametrize(
    "change", [{"k": 2}, {"inputs": {"a": "other"}}, {"inputs": {"b": "hash"}}]
)
def test_another_config_or_input_is_refused_without_overwrite(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    out = tmp_path / "out"
    write(out, "old")
    with pytest.raises(ArtifactError, match="--overwrite"):
        make_draft(out, **change)
    assert (out / "data.txt").read_text() == "old"
    write(out, "new", **change, overwrite=True)
    assert (out / "data.txt").read_text() == "new"
    assert listing(tmp_path) == ["out", "out/data.txt", f"out/{MANIFEST}"]


def test_another_stage_is_refused_without_overwrite(tmp_path: Path) -> None:
    write(tmp_path / "out", "old")
    with pytest.raises(ArtifactError, match="clusters"):
        Draft(tmp_path / "out", stage="scores", config={"k": 1}, inputs={"a": "hash"})


@pytest.mark.parametrize("survives", ["first", "second", "last"])
def test_a_kill_between_the_renames_of_an_overwrite_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, survives: str
) -> None:
    """Leave the disk as a kill before the first, between, or after the two renames would."""
    out = tmp_path / "out"
    write(out, "old")

    class Killed(BaseException):
        pass

    n_renames = 0
    rename: Callable[[Path, Path], Path] = Path.rename

    def rename_until_killed(self: Path, target: Path) -> Path:
        nonlocal n_renames
        n_renames += 1
        if n_renames > {"first": 0, "second": 1, "last": 2}[survives]:
            raise Killed
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename_until_killed)
        patch.setattr(artifact.shutil, "rmtree", lambda *_, **__: None)  # the dead clear nothing up
        try:
            write(out, "new", k=2, overwrite=True)
        except Killed:
            pass
    if survives == "last":
        assert make_draft(out, k=2).done
        assert listing(tmp_path) == ["out", "out/data.txt", f"out/{MANIFEST}"]
        return
    assert make_draft(out).done
    assert (out / "data.txt").read_text() == "old"
    write(out, "new", k=2, overwrite=True)
    assert (out / "data.txt").read_text() == "new"
    assert listing(tmp_path) == ["out", "out/data.txt", f"out/{MANIFEST}"]


@pytest.mark.parametrize(
    "foreign",
    [
        {"notes.txt": "mine"},
        {MANIFEST: "{ damaged"},
        {MANIFEST: json.dumps({"name": "a browser extension", "manifest_version": 3})},
        {MANIFEST: json.dumps([1])},
        {MANIFEST: json.dumps({"stage": "clusters"})},
        {MANIFEST: json.dumps({"schema": 1, "stage": "bundle"})},
    ],
)
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_is_no_artifact_is_never_overwritten(
    tmp_path: Path, foreign: dict[str, str], overwrite: bool
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for name, text in foreign.items():
        (out / name).write_text(text)
    with pytest.raises(ArtifactError, match=r"choose another --out|cannot be read"):
        make_draft(out, overwrite=overwrite)
    assert {path.name: path.read_text() for path in out.iterdir()} == foreign


def test_a_file_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(ArtifactError, match="is no folder"):
        make_draft(tmp_path / "out", overwrite=True)
    with (
        pytest.raises(ArtifactError, match="cannot be written"),
        make_draft(tmp_path / "out" / "x"),
    ):
        pass
    assert (tmp_path / "out").read_text() == "mine"


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    write(tmp_path / "out", "new")
    assert listing(tmp_path) == ["out", "out/data.txt", f"out/{MANIFEST}"]


def test_a_link_to_a_folder_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "disk" / "out")
    write(link, "old")
    write(link, "new", k=2, overwrite=True)
    assert link.is_symlink()
    assert listing(tmp_path / "disk") == ["out", "out/data.txt", f"out/{MANIFEST}"]


def test_what_an_earlier_kill_left_is_cleared(tmp_path: Path) -> None:
    partial = tmp_path / ".out.partial"
    partial.mkdir()
    (partial / "stale.npy").write_text("stale")
    write(tmp_path / "out", "new")
    assert listing(tmp_path) == ["out", "out/data.txt", f"out/{MANIFEST}"]


def test_the_manifest_has_no_place_host_or_time(tmp_path: Path) -> None:
    bytes_of = []
    for name in ("one", "two"):
        write(tmp_path / name / "out", "same")
        bytes_of.append((tmp_path / name / "out" / MANIFEST).read_bytes())
    assert bytes_of[0] == bytes_of[1]
    text = bytes_of[0].decode()
    for private in (str(tmp_path), str(Path.cwd()), socket.gethostname(), str(Path.home())):
        assert private not in text
    assert set(json.loads(text)) == {
        "schema",
        "stage",
        "config",
        "inputs",
        "ecofm",
        "git_commit",
        "files",
        "checksum",
    }


@pytest.mark.parametrize("stage", sorted(MADE_BY))
def test_readers_name_the_command_that_makes_the_right_artifact(tmp_path: Path, stage: str) -> None:
    command = f"`{MADE_BY[stage]}`"
    other = "scores" if stage != "scores" else "archive"
    for text in (
        None,
        "{ damaged",
        "[" * 100_000,
        "[1]",
        "{}",
        json.dumps({"schema": artifact.SCHEMA + 1, "stage": stage}),
        json.dumps({"schema": artifact.SCHEMA, "stage": other}),
    ):
        if text is not None:
            (tmp_path / MANIFEST).write_text(text)
        with pytest.raises(ArtifactError) as caught:
            read_manifest(tmp_path, stage)
        sentence = str(caught.value)
        assert command in sentence and sentence.endswith(".") and "\n" not in sentence
    with pytest.raises(ArtifactError, match="does not exist"):
        read_manifest(tmp_path / "nothing", stage)
    (tmp_path / MANIFEST).write_text(json.dumps({"schema": artifact.SCHEMA, "stage": stage}))
    assert read_manifest(tmp_path, stage)["stage"] == stage


def test_text_is_replaced_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError):
        write_text(path, "new")
    assert path.read_text() == "old" and listing(tmp_path) == ["a.txt"]


def test_json_refuses_what_is_no_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", {"a": float("inf")})
    assert listing(tmp_path) == []
