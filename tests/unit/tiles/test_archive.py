"""The archive read back: every byte is checked, and damage names the tile."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ecofm.artifact import write_sealed
from ecofm.errors import ArtifactError, ContractError
from ecofm.tiles import archive as archive_module
from ecofm.tiles.archive import (
    Archive,
    TileError,
    checksum_tile,
    open_archive,
    open_archives,
    shard_paths,
)


@pytest.fixture
def folder(tmp_path: Path, paint: Any) -> Path:
    """Return an archive of 12 tiles in three shards."""
    for year in (2018, 2019):
        pixels = paint.pixels((2, 256, 384), seed=year)
        pixels[:, :50, :70] = 0
        paint.scene(tmp_path / "in" / f"a_{year}.tif", pixels, nodata=0)
    paint.tile(tmp_path / "in", tmp_path / "out", shard_tiles=4)
    return tmp_path / "out"


def flip(path: Path, place: int, bit: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1 << bit
    path.write_bytes(data)


@given(st.integers(0, 2), st.floats(0, 1, exclude_max=True), st.integers(0, 7), st.booleans())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_flipped_bit_names_its_tile(
    folder: Path, shard: int, share: float, bit: int, in_mask: bool
) -> None:
    path = shard_paths(folder, shard)[1 if in_mask else 0]
    header = 128
    size = path.stat().st_size - header
    place = header + int(share * size)
    flip(path, place, bit)
    try:
        archive = open_archive(folder)
        hit = shard * 4 + int(share * size) // (size // 4)
        for tile_index in range(archive.n_tiles):
            if tile_index == hit:
                tile_id = archive.index["tile_id"][hit]
                with pytest.raises(TileError, match=f"tile {tile_id} of .* another checksum"):
                    archive.read(tile_index)
            else:
                archive.read(tile_index)
    finally:
        flip(path, place, bit)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def drop(path: Path) -> None:
    path.unlink()


def retype(path: Path) -> None:
    values = np.load(path)
    np.save(path, values.view("int16" if values.dtype == np.uint16 else "int8"))


def reshape(path: Path) -> None:
    values = np.load(path)
    np.save(path, values.reshape(len(values), -1))


def scalar(path: Path) -> None:
    np.save(path, np.uint16(3))


def objects(path: Path) -> None:
    np.save(path, np.array([{}] * 4, dtype=object), allow_pickle=True)


def noise(path: Path) -> None:
    path.write_bytes(b"not numpy")


def nothing(path: Path) -> None:
    path.write_bytes(b"")


def shorter(path: Path) -> None:
    np.save(path, np.load(path)[:2])


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize(
    "damage", [cut, drop, retype, reshape, scalar, objects, noise, nothing, shorter]
)
def test_a_damaged_shard_names_the_tile_and_the_others_are_read(
    folder: Path, damage: Callable[[Path], None], which: int
) -> None:
    damage(shard_paths(folder, 1)[which])
    archive = open_archive(folder)
    for tile_index in (0, 3, 8, 11):
        archive.read(tile_index)
    with pytest.raises(TileError, match=f"tile {archive.index['tile_id'][7]} of"):
        archive.read(7)


def test_a_damaged_index_is_refused(folder: Path) -> None:
    """Parquet would read a changed letter of a cell's name without a word."""
    path = folder / "index.parquet"
    place = path.read_bytes().index(b"32652_337")
    flip(path, place)
    with pytest.raises(ArtifactError, match="again with `ecofm tile`"):
        _ = open_archive(folder).index
    path.unlink()
    with pytest.raises(ArtifactError, match="again with `ecofm tile`"):
        _ = open_archive(folder).index


@pytest.mark.parametrize("field", ["contract", "tile_px", "attribution", "n_tiles", "config"])
@pytest.mark.parametrize("value", [None, [], "surprise"])
def test_a_damaged_manifest_is_refused(folder: Path, field: str, value: Any) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    if value is None:
        del manifest[field]
    else:
        manifest[field] = value
    write_sealed(path, manifest)
    if field == "attribution" and value is not None:
        return
    with pytest.raises(ArtifactError, match=r"[Mm]ake (the archive|it) again with `ecofm tile`"):
        open_archive(folder)


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="`ecofm tile`"):
        open_archive(tmp_path)
    (tmp_path / "plan.json").write_text("{}")
    with pytest.raises(ArtifactError, match="not finished: run the same `ecofm tile` again"):
        open_archive(tmp_path)


def test_threads_read_what_one_reads(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while maps are dropped and made again."""
    monkeypatch.setattr(archive_module, "MAX_SHARDS_MAPPED", 1)
    alone, shared = open_archive(folder), open_archive(folder)
    expected = [alone.read(n)[0].tobytes() for n in range(12)]
    order = np.random.default_rng(0).integers(0, 12, 400).tolist()
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda n: shared.read(n)[0].tobytes(), order))
    assert found == [expected[n] for n in order]
    assert len(shared._shards) == 1


def test_another_process_gets_the_same_archive(folder: Path) -> None:
    archive = open_archive(folder)
    archive.read(0)
    copy: Archive = pickle.loads(pickle.dumps(archive))
    assert copy.read(5)[0].tobytes() == archive.read(5)[0].tobytes()


def test_a_tile_is_the_reader_s_own(folder: Path) -> None:
    archive = open_archive(folder)
    pixels, _ = archive.read(0)
    pixels[:] = 1
    archive.read(0)


def test_archives_used_together_agree(folder: Path, tmp_path: Path, paint: Any) -> None:
    archives, contract = open_archives([folder, folder])
    assert [a.n_tiles for a in archives] == [12, 12]
    np.testing.assert_allclose(contract.mean, archives[0].contract.mean)
    paint.scene(tmp_path / "three" / "a_2019.tif", paint.pixels((3, 128, 128)))
    paint.tile(tmp_path / "three", tmp_path / "three_out")
    with pytest.raises(ContractError, match="differ in bands"):
        open_archives([folder, tmp_path / "three_out"])
    paint.tile(tmp_path / "in", tmp_path / "wide", grid="utm:2560")
    with pytest.raises(ArtifactError, match="tile them to one size"):
        open_archives([folder, tmp_path / "wide"])


@given(st.integers(0, 4 * 9 - 1), st.integers(1, 255))
def test_a_checksum_sees_every_byte(place: int, change: int) -> None:
    pixels = np.arange(4 * 9, dtype=np.uint8).reshape(4, 3, 3)
    valid = np.ones((3, 3), bool)
    before = checksum_tile(pixels, valid)
    pixels.reshape(-1)[place] ^= change
    assert checksum_tile(pixels, valid) != before
    assert checksum_tile(np.asfortranarray(pixels), valid) == checksum_tile(pixels, valid)
    hidden = valid.copy()
    hidden.reshape(-1)[place % 9] = False
    assert checksum_tile(pixels, hidden) != checksum_tile(pixels, valid)
