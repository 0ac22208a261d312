"""An archive that grows, is verified, and meets a full disk: nothing is torn, nothing lost."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from geopandas.testing import assert_geodataframe_equal

from ecofm import artifact
from ecofm.errors import ArtifactError, SceneError
from ecofm.tiles import ingest, target
from ecofm.tiles.archive import open_archive
from ecofm.tiles.ingest import TileConfig
from ecofm.tiles.verify import verify


def paint_year(folder: Path, paint: Any, year: int, **options: Any) -> Any:
    pixels = paint.pixels((3, 256, 384), seed=year)
    paint.scene(folder / f"a_{year}.tif", pixels, nodata=0, **options)
    return pixels


def rejected(out: Path) -> dict[str, str]:
    table = pd.read_parquet(out / "rejected.parquet")
    return dict(zip(table["path"], table["reason"], strict=True))


@pytest.fixture
def grown(tmp_path: Path, paint: Any) -> Path:
    """Return an archive of 2018, beside scenes of 2018 and 2019."""
    paint_year(tmp_path / "in", paint, 2018)
    paint.tile(tmp_path / "in", tmp_path / "out", shard_tiles=4)
    paint_year(tmp_path / "in", paint, 2019)
    return tmp_path / "out"


def test_next_year_is_added_and_nothing_is_written_again(
    tmp_path: Path, paint: Any, grown: Path
) -> None:
    before = paint.hashes(grown / "shards")
    times = {path: path.stat().st_mtime_ns for path in grown.glob("shards/*")}
    with pytest.raises(ArtifactError, match="another config or input"):
        paint.tile(tmp_path / "in", grown, shard_tiles=4)
    archive = paint.tile(tmp_path / "in", grown, shard_tiles=4, append=True)
    assert archive.n_tiles == 12 and archive.periods == ["2018", "2019"]
    assert times == {path: path.stat().st_mtime_ns for path in times}
    assert before.items() <= paint.hashes(grown / "shards").items()
    whole = paint.tile(tmp_path / "in", tmp_path / "whole", shard_tiles=6)
    for tile_index, tile_id in enumerate(archive.index["tile_id"]):
        (twin,) = whole.index.index[whole.index["tile_id"] == tile_id]
        assert archive.read(tile_index)[0].tobytes() == whole.read(int(twin))[0].tobytes()
    np.testing.assert_allclose(archive.contract.mean, whole.contract.mean)
    np.testing.assert_allclose(archive.contract.std, whole.contract.std)
    assert archive.attribution.endswith("2018 2019")
    assert sorted(path.name for path in grown.iterdir()) == [
        "index.parquet", "manifest.json", "rejected.parquet", "scenes.parquet", "shards",
    ]  # fmt: skip
    hashes = paint.hashes(grown)
    paint.tile(tmp_path / "in", grown, shard_tiles=4, append=True)
    assert paint.hashes(grown) == hashes, "a second time there is nothing new"


def test_an_index_that_is_written_in_pieces_is_the_same_table(
    tmp_path: Path, paint: Any, grown: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paint.tile(tmp_path / "in" / "a_2018.tif", tmp_path / "twin", shard_tiles=1)
    monkeypatch.setattr(ingest, "INDEX_SHARDS", 2)
    paint.tile(tmp_path / "in" / "a_2018.tif", tmp_path / "pieces", shard_tiles=1)
    for name in ("twin", "pieces"):
        paint.tile(tmp_path / "in", tmp_path / name, shard_tiles=1, append=True)
    assert pq.ParquetFile(tmp_path / "pieces" / "index.parquet").num_row_groups == 1 + 3
    twin, pieces = (open_archive(tmp_path / name) for name in ("twin", "pieces"))
    assert_geodataframe_equal(twin.index, pieces.index)
    assert twin.n_tiles == pieces.n_tiles == 12 and pieces.index.crs == "EPSG:4326"
    [pieces.read(n) for n in range(12)]


def test_what_is_there_already_is_not_doubled(tmp_path: Path, paint: Any, grown: Path) -> None:
    paint.scene(tmp_path / "late" / "b_2018.tif", paint.pixels((3, 256, 384), seed=9))
    with pytest.raises(SceneError, match="adds nothing: the archive has its cells in 2018"):
        paint.tile(tmp_path / "late", grown, shard_tiles=4, append=True)
    paint_year(tmp_path / "late", paint, 2020)
    archive = paint.tile(tmp_path / "late", grown, shard_tiles=4, append=True)
    assert archive.periods == ["2018", "2020"] and archive.index["tile_id"].is_unique
    assert list(rejected(grown)) == ["b_2018.tif"]


def test_a_scene_that_changed_is_named(tmp_path: Path, paint: Any, grown: Path) -> None:
    paint.scene(tmp_path / "in" / "a_2018.tif", paint.pixels((3, 256, 384), seed=7), nodata=0)
    archive = paint.tile(tmp_path / "in", grown, shard_tiles=4, append=True)
    assert archive.n_tiles == 12
    assert "has changed since it was tiled" in rejected(grown)["a_2018.tif"]


def test_other_bands_or_options_are_not_added(tmp_path: Path, paint: Any, grown: Path) -> None:
    before = paint.hashes(grown)
    paint.scene(tmp_path / "more" / "b_2019.tif", paint.pixels((2, 256, 384)))
    with pytest.raises(SceneError, match="differs from the archive in bands"):
        paint.tile(tmp_path / "more", grown, shard_tiles=4, append=True)
    with pytest.raises(ArtifactError, match="made with grid=utm:1280"):
        paint.tile(tmp_path / "in", grown, shard_tiles=4, grid="utm:2560", append=True)
    assert paint.hashes(grown) == before


def test_an_offset_is_evened_out_with_the_archive_s(
    tmp_path: Path, paint: Any, grown: Path
) -> None:
    pixels = np.full((3, 256, 384), 1500, "uint16")
    pixels[:, :9] = 900
    tags = {"BOA_ADD_OFFSET": "-1000"}
    paint.scene(tmp_path / "late" / "b_2022.tif", pixels, tags=tags)
    archive = paint.tile(tmp_path / "late", grown, shard_tiles=4, append=True)
    last = archive.index.index[archive.index["period"] == "2022"]
    found = np.unique(np.stack([archive.read(int(n))[0] for n in last]))
    assert archive.contract.offset == 0 and found.tolist() == [0, 500]


def test_a_stopped_growth_leaves_the_archive_and_continues(
    tmp_path: Path, paint: Any, grown: Path
) -> None:
    options = {"shard_tiles": 2, "grid": "utm:1280"}
    paint.tile(tmp_path / "in" / "a_2018.tif", grown, overwrite=True, **options)
    paint.tile(tmp_path / "in" / "a_2018.tif", tmp_path / "twin", **options)
    with pytest.raises(paint.Stopped):
        paint.tile(tmp_path / "in", grown, append=True, progress=paint.stop_after(2), **options)
    archive = open_archive(grown)
    assert archive.n_tiles == 6, "a growing archive is what it was"
    [archive.read(n) for n in range(6)]
    paint.tile(tmp_path / "in", tmp_path / "twin", append=True, **options)
    kept = {path: path.stat().st_mtime_ns for path in grown.glob("shards/*")}
    paint.tile(tmp_path / "in", grown, append=True, **options)
    assert kept == {path: path.stat().st_mtime_ns for path in kept}
    assert paint.hashes(grown) == paint.hashes(tmp_path / "twin")


def test_a_stopped_growth_can_be_given_up(tmp_path: Path, paint: Any, grown: Path) -> None:
    before = paint.hashes(grown)
    with pytest.raises(paint.Stopped):
        paint.tile(tmp_path / "in", grown, shard_tiles=4, append=True, progress=paint.stop_after(1))
    paint.tile(tmp_path / "in" / "a_2018.tif", grown, shard_tiles=4)
    assert paint.hashes(grown) == before


@pytest.mark.parametrize("step", ["replace_rejected", "manifest", "tidy"])
def test_a_kill_at_any_step_of_the_commit_leaves_one_whole_archive(
    tmp_path: Path, paint: Any, grown: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    class Killed(BaseException):
        pass

    def die(*_: Any, **__: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        if step == "tidy":
            patch.setattr(target, "tidy", die)
        elif step == "manifest":
            write = artifact.write_json
            patch.setattr(
                target.artifact, "write_json",
                lambda path, value: die() if path.name == "manifest.json" else write(path, value),
            )  # fmt: skip
        else:
            patch.setattr(target.artifact, "sync_folder", die)
        with pytest.raises(Killed):
            paint.tile(tmp_path / "in", grown, shard_tiles=4, append=True)
    archive = open_archive(grown)
    assert archive.n_tiles == (12 if step == "tidy" else 6) == len(archive.index)
    [archive.read(n) for n in range(archive.n_tiles)]
    paint.tile(tmp_path / "in", grown, shard_tiles=4, append=True)
    assert open_archive(grown).n_tiles == 12
    assert not (grown / "plan.json").exists() and not (grown / "index.next.parquet").exists()


def damage(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def test_verify_takes_out_what_is_damaged_and_append_makes_it_again(
    tmp_path: Path, paint: Any, grown: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify(grown) == 0
    before = open_archive(grown)
    tile_id = before.index["tile_id"][1]
    expected = before.read(1)[0].tobytes()
    damage(grown / "shards" / "00000.npy", 128 + 3 * 128 * 128 * 2 + 5)
    assert verify(grown) == 1
    assert capsys.readouterr().err.count(f"damaged: tile {tile_id}") == 1
    archive = open_archive(grown)
    assert archive.n_tiles == 5 and tile_id not in set(archive.index["tile_id"])
    reasons = rejected(grown)
    assert "another checksum" in reasons[tile_id] and str(tmp_path) not in reasons[tile_id]
    assert verify(grown) == 0
    mended = paint.tile(tmp_path / "in" / "a_2018.tif", grown, shard_tiles=4, append=True)
    assert mended.n_tiles == 6 and rejected(grown) == {}
    (place,) = mended.index.index[mended.index["tile_id"] == tile_id]
    assert mended.read(int(place))[0].tobytes() == expected


def test_an_archive_without_a_whole_tile_is_refused(grown: Path) -> None:
    for path in grown.glob("shards/*[0-9].npy"):
        path.write_bytes(b"")
    with pytest.raises(ArtifactError, match="all 6 tiles are damaged"):
        verify(grown)


FULL = """
import signal, sys
from pathlib import Path
from ecofm.errors import ArtifactError
from ecofm.tiles.ingest import TileConfig, tile
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
try:
    tile([Path(sys.argv[1])], Path(sys.argv[2]), TileConfig(grid="utm:1280", shard_tiles=4))
except ArtifactError as error:
    print(error)
"""


def test_a_full_disk_is_told_and_the_run_continues(tmp_path: Path, paint: Any) -> None:
    """A limit on file sizes stands for the disk: the write fails in the same place."""
    for year in (2018, 2019):
        paint_year(tmp_path / "in", paint, year)
    out = tmp_path / "out"

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    found = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path / "in"), str(out)],
        capture_output=True, text=True, check=True, preexec_fn=limit,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )  # fmt: skip
    assert "make room and give the same command again: it continues." in found.stdout
    assert not list(out.glob("shards/*.npy")) and not (out / "manifest.json").exists()
    paint.tile(tmp_path / "in", tmp_path / "whole", shard_tiles=4)
    paint.tile(tmp_path / "in", out, shard_tiles=4)
    assert paint.hashes(out) == paint.hashes(tmp_path / "whole")


def test_options_compare_without_the_period(tmp_path: Path, paint: Any) -> None:
    """A period given with --period is of the scenes, so next year's may be another."""
    paint.scene(tmp_path / "one" / "a.tif", paint.pixels((1, 128, 128)))
    paint.scene(tmp_path / "two" / "b.tif", paint.pixels((1, 128, 128), seed=1))
    paint.tile(tmp_path / "one", tmp_path / "out", period="2018")
    archive = paint.tile(tmp_path / "two", tmp_path / "out", period="2019", append=True)
    assert archive.periods == ["2018", "2019"]
    assert TileConfig(period="2018").period == "2018"
