"""Every byte is checked: what changed since it was written is told, by the file's name."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from ecofm import checksums, load_encoder
from ecofm.artifact import MANIFEST, Draft, read_manifest, write_json
from ecofm.checksums import find_faults, hash_file, is_whole, open_file, seal
from ecofm.compare.members import read_members
from ecofm.embed import embed, open_embeddings
from ecofm.errors import ArtifactError, EcofmError
from ecofm.maps.change import read_scores
from ecofm.pretrain.encoders import encoder_folder
from ecofm.pretrain.run import pretrain
from ecofm.rank.opening import load_ranker
from ecofm.tiles.archive import open_archive
from ecofm.tiles.shards import committed_part
from tests.command import run

READERS: dict[str, Callable[[Path], Any]] = {
    "embeddings": lambda path: open_embeddings([path]),
    "clusters": read_members,
    "ranker": load_ranker,
    "encoder": load_encoder,
    "scores": read_scores,
}
READ = {
    "embeddings": ["embeddings.npy", "index.parquet", MANIFEST],
    "clusters": ["clusters.parquet", MANIFEST],
    "ranker": ["ranker.safetensors", MANIFEST],
    "encoder": ["model.safetensors", "config.json", MANIFEST],
    "scores": ["scores.parquet", MANIFEST],
}


def copy(stages: Any, stage: str, out: Path) -> Path:
    source = getattr(stages, stage)
    return shutil.copytree(encoder_folder(source) if stage == "encoder" else source, out)


def flip(path: Path, at: int, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1 << bit
    path.write_bytes(content)


@pytest.mark.parametrize("stage", READERS)
def test_a_flipped_bit_of_any_file_is_told(stages: Any, tmp_path: Path, stage: str) -> None:
    """In a manifest some bits say nothing: spaces between words, or the name of the checksum."""
    random_ = random.Random(stage)
    folder = copy(stages, stage, tmp_path / stage)
    READERS[stage](folder)
    clean = json.loads((folder / MANIFEST).read_text())
    for name in READ[stage]:
        path = folder / name
        content = path.read_bytes()
        for _ in range(8):
            flip(path, random_.randrange(len(content)), random_.randrange(8))
            try:
                READERS[stage](folder)
            except ArtifactError as error:
                assert name in str(error) and "\n" not in str(error)
            except EcofmError as error:
                assert name in str(error)
            else:
                assert name == MANIFEST and json.loads(path.read_text()) == clean
            path.write_bytes(content)


@pytest.mark.parametrize("stage", READERS)
@pytest.mark.parametrize("damage", ["gone", "short", "empty", "long", "folder"])
def test_files_that_are_missing_or_of_another_length_are_told(
    stages: Any, tmp_path: Path, stage: str, damage: str
) -> None:
    folder = copy(stages, stage, tmp_path / stage)
    path = folder / READ[stage][0]
    content = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage != "gone":
        path.write_bytes({"short": content[:-1], "empty": b"", "long": content + b"\0"}[damage])
    with pytest.raises(EcofmError, match=r"again with `ecofm|does not exist"):
        READERS[stage](folder)


def test_sha256sum_finds_what_the_manifest_has(stages: Any) -> None:
    files = read_manifest(stages.scores, "scores")["files"]
    assert set(files) == {path.name for path in stages.scores.iterdir()} - {MANIFEST}
    for name, told in files.items():
        content = (stages.scores / name).read_bytes()
        assert told == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def test_what_is_damaged_is_not_done_already(stages: Any, tmp_path: Path, capsys: Any) -> None:
    out = shutil.copytree(stages.embeddings, tmp_path / "out")
    expected = (out / "embeddings.npy").read_bytes()
    flip(out / "embeddings.npy", 400)
    given = ["embed", "--archive", stages.archive, "--encoder", stages.encoder, "--out", out]
    assert run(*given) == 1
    said = capsys.readouterr().err
    assert "embeddings.npy is damaged" in said and "give --overwrite to make it again" in said
    assert run(*given, "--overwrite") == 0
    assert (out / "embeddings.npy").read_bytes() == expected
    assert run(*given) == 0 and "is done already" in capsys.readouterr().err


@pytest.mark.parametrize("at", ["model.safetensors", MANIFEST, "config.json"])
def test_a_run_makes_a_damaged_encoder_again_from_its_last_checkpoint(
    make_archive: Callable[..., Path],
    tiny: Callable[..., Any],
    tmp_path: Path,
    at: str,
    capsys: Any,
) -> None:
    archive = make_archive(tmp_path / "archive")
    out = pretrain([archive], tmp_path / "run", tiny(steps=1))
    path = out / "encoder" / at
    expected = path.read_bytes()
    flip(path, 0 if at == MANIFEST else len(expected) - 20)
    pretrain([archive], out, tiny(steps=1))
    assert path.read_bytes() == expected
    assert "it is made again from the last checkpoint" in capsys.readouterr().err
    assert len((out / "metrics.jsonl").read_text().splitlines()) == 1


def test_a_run_whose_record_is_damaged_is_refused(
    make_archive: Callable[..., Path], tiny: Callable[..., Any], tmp_path: Path
) -> None:
    """It would be continued with another number of threads, and end in other bytes."""
    archive = make_archive(tmp_path / "archive")
    out = pretrain([archive], tmp_path / "run", tiny(steps=1))
    record = json.loads((out / "run.json").read_text())
    record["machine"]["torch_threads"] += 1
    write_json(out / "run.json", record)
    with pytest.raises(ArtifactError, match=r"run.json is damaged"):
        pretrain([archive], out, tiny(steps=1))


def test_a_file_is_read_once_in_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draft = Draft(tmp_path / "out", stage="clusters", config={}, inputs={})
    with draft as folder:
        (folder / "a.txt").write_text("a")
    manifest = read_manifest(tmp_path / "out", "clusters")
    monkeypatch.setattr(checksums, "SETTLED_S", -1.0)
    n_read = 0
    hash_file = checksums.hash_file

    def count(path: Path) -> str:
        nonlocal n_read
        n_read += 1
        return hash_file(path)

    monkeypatch.setattr(checksums, "hash_file", count)
    for _ in range(3):
        open_file(tmp_path / "out", manifest, "a.txt")
    assert n_read == 1
    (tmp_path / "out" / "a.txt").write_text("b")
    with pytest.raises(ArtifactError, match=r"a.txt is damaged: its sha256 is"):
        open_file(tmp_path / "out", manifest, "a.txt")


def test_older_artifacts_are_read_with_one_warning(
    stages: Any, tmp_path: Path, capsys: Any
) -> None:
    old = shutil.copytree(stages.embeddings, tmp_path / "old")
    manifest = json.loads((old / MANIFEST).read_text())
    del manifest["files"], manifest["checksum"]
    write_json(old / MANIFEST, manifest)
    for _ in range(2):
        open_embeddings([old])
    said = capsys.readouterr().err
    assert said.count("was made before artifacts had checksums") == 1
    embed([stages.archive], stages.encoder, old)
    assert "is done already" in capsys.readouterr().err


def test_an_older_archive_has_the_checksum_of_its_index(
    make_archive: Callable[..., Path], tmp_path: Path, capsys: Any
) -> None:
    path = make_archive(tmp_path / "old")
    manifest = json.loads((path / MANIFEST).read_text())
    told = manifest.pop("files")["index.parquet"]["sha256"]
    del manifest["checksum"]
    write_json(path / MANIFEST, {**manifest, "index_hash": told})
    assert len(open_archive(path).index) == 12 and open_archive(path).rejected.empty
    assert not capsys.readouterr().err
    flip(path / "index.parquet", 700)
    with pytest.raises(ArtifactError, match=r"index.parquet is damaged"):
        _ = open_archive(path).index


def test_a_shards_part_that_changed_is_made_again(tmp_path: Path) -> None:
    """A resumed `tile` takes rows and sums from the parts that an earlier run left."""
    chips = tmp_path / "chips"
    chips.mkdir()
    for n in range(3):
        Image.new("RGB", (16, 16), (90 * n, 40, 60)).save(chips / f"{n}.png")
    assert run("tile", chips, "--grid", "none", "--out", tmp_path / "out") == 0
    path = tmp_path / "out" / "shards" / "00000.parquet"
    assert committed_part(tmp_path / "out", 0) is not None
    part = pd.read_parquet(path)
    renamed, recounted = part.assign(cell_id=part["cell_id"] + "x"), part.copy()
    recounted.attrs["n_of_several_dates"] = "1"
    for changed in (renamed, recounted):
        changed.to_parquet(path)
        assert committed_part(tmp_path / "out", 0) is None
    part.to_parquet(path)
    assert committed_part(tmp_path / "out", 0) is not None


def test_a_manifest_names_no_file_outside_its_folder(tmp_path: Path) -> None:
    for name in ("../secret", "/etc/passwd"):
        fields = {"schema": 1, "stage": "scores", "files": {name: {"bytes": 0, "sha256": ""}}}
        assert "outside its folder" in str(find_faults(tmp_path, seal(fields)))


@pytest.mark.parametrize("files", [[], "x", {"a.txt": 1}, {"a.txt": {}}, {"a.txt": {"sha256": 1}}])
def test_checksums_of_wrong_types_are_told(tmp_path: Path, files: Any) -> None:
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(ArtifactError, match=r"a.txt"):
        open_file(tmp_path, seal({"stage": "scores", "files": files}), "a.txt")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)  # fmt: skip


@given(st.dictionaries(st.text(), VALUES))
@example({"checksum": "x"})
@example({"a": -0.0, "b": 1e-310, "é": "\ud800"})
@settings(max_examples=60)
def test_sealed_fields_are_whole_after_any_way_through_json(fields: dict[str, Any]) -> None:
    sealed = seal(fields)
    again = json.loads(json.dumps(sealed, indent=3))
    assert is_whole(again)
    changed = {**again, "another": 1} if "another" not in again else {**again, "another": [again]}
    assert not is_whole(changed)


@pytest.mark.parametrize("kind", ["device", "pipe", "folder"])
def test_what_is_no_file_is_not_hashed(tmp_path: Path, kind: str) -> None:
    """A device never ends: `--regions` that leads to one hung while inputs were hashed."""
    path = tmp_path / "districts.gpkg"
    if kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    with pytest.raises(
        OSError, match=r"districts.gpkg cannot be read: it is a .*, expected a file"
    ):
        hash_file(path)
