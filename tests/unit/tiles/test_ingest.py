"""The stage `tile`: what goes into an archive, and what is left out by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from affine import Affine

from ecofm.errors import ArtifactError, SceneError
from ecofm.tiles import ingest
from ecofm.tiles.ingest import TileConfig


def rejected(out: Path) -> dict[str, str]:
    table = pd.read_parquet(out / "rejected.parquet")
    return dict(zip(table["path"], table["reason"], strict=True))


def paint_years(folder: Path, paint: Any, years: tuple[int, ...] = (2018, 2019)) -> dict[int, Any]:
    """Paint a scene of 3 x 2 cells for each year; return their pixels."""
    painted = {}
    for year in years:
        painted[year] = paint.pixels((3, 256, 384), seed=year)
        paint.scene(folder / f"a_{year}.tif", painted[year], nodata=0)
    return painted


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16"])
def test_aligned_scenes_are_copied_cell_by_cell(tmp_path: Path, paint: Any, dtype: str) -> None:
    pixels = paint.pixels((5, 256, 384), dtype)
    paint.scene(tmp_path / "in" / "a_2019.tif", pixels, tiled=True, blockxsize=64, blockysize=64)
    archive = paint.tile(tmp_path / "in", tmp_path / "out", shard_tiles=4)
    assert archive.n_tiles == 6 and archive.tile_px == (128, 128)
    assert archive.contract.dtype == dtype and archive.contract.gsd_m == 10.0
    for tile_index, row in archive.index.iterrows():
        found, valid = archive.read(tile_index)
        _, y, x = map(int, row.cell_id.split("_"))
        top, left = (3375 - y) * 128, (x - 250) * 128
        assert found.tobytes() == pixels[:, top : top + 128, left : left + 128].tobytes()
        assert valid.all() and row.valid_share == 1 and row.period == "2019"
        assert row.tile_id == f"{row.cell_id}@2019"
    assert len(list((tmp_path / "out" / "shards").glob("*.parquet"))) == 2


def test_two_scenes_of_a_period_are_mosaicked(tmp_path: Path, paint: Any) -> None:
    first, second = paint.pixels((2, 128, 128), seed=1), paint.pixels((2, 128, 128), seed=2)
    first[:, :, 100:] = 0
    second[:, 120:] = 0
    paint.scene(tmp_path / "in" / "a_20190601.tif", first, nodata=0)
    paint.scene(tmp_path / "in" / "b_20190701.tif", second, nodata=0)
    archive = paint.tile(tmp_path / "in", tmp_path / "out", period="2019")
    assert archive.n_tiles == 1
    found, valid = archive.read(0)
    assert found[:, :, :100].tobytes() == first[:, :, :100].tobytes()
    assert found[:, :120, 100:].tobytes() == second[:, :120, 100:].tobytes()
    assert not valid[120:, 100:].any() and valid.sum() == 128 * 128 - 8 * 28
    assert not found[:, ~valid].any()
    assert archive.index["dates"][0] == "2019-06-01,2019-07-01"


def test_periods_come_from_option_tag_and_name(tmp_path: Path, paint: Any) -> None:
    for name, tags in (("a_2018", {}), ("b", {"period": "2019-Q2"}), ("c_20200613", {})):
        paint.scene(tmp_path / "in" / f"{name}.tif", paint.pixels((1, 128, 128)), tags=tags)
    paint.scene(tmp_path / "in" / "none.tif", paint.pixels((1, 128, 128)))
    archive = paint.tile(tmp_path / "in", tmp_path / "out")
    assert archive.periods == ["2018", "2019-Q2", "2020-06-13"]
    assert list(rejected(tmp_path / "out")) == ["none.tif"]
    assert "give --period" in rejected(tmp_path / "out")["none.tif"]
    assert paint.tile(tmp_path / "in", tmp_path / "own", period="2017").periods == ["2017"]


def test_scenes_that_differ_are_named_and_the_others_go_on(tmp_path: Path, paint: Any) -> None:
    painted = paint_years(tmp_path / "in", paint)
    bad = tmp_path / "in" / "bad"
    paint.scene(bad / "bands_2020.tif", paint.pixels((4, 128, 128)))
    paint.scene(bad / "dtype_2020.tif", paint.pixels((3, 128, 128), "int16"))
    paint.scene(bad / "north_2020.tif", paint.pixels((3, 9, 9)), corner=(5e5, 9.6e6))
    (bad / "letter_2020.png").write_text("a letter")
    (bad / "empty_2020.tif").touch()
    (bad / "link_2020.tif").symlink_to("nowhere")
    paint.chip(bad / "chip_2020.png")
    archive = paint.tile(tmp_path / "in", tmp_path / "out")
    assert archive.n_tiles == 12 and archive.periods == ["2018", "2019"]
    assert archive.manifest["n_rejected"] == 7
    reasons = rejected(tmp_path / "out")
    for name, reason in {
        "bands": "differs from most in bands",
        "dtype": "differs from most in bands and number type",
        "north": "lies outside grid utm:1280",
        "letter": "is no TIFF",
        "empty": "is empty",
        "link": "cannot be opened",
        "chip": "has no place",
    }.items():
        (found,) = [text for path, text in reasons.items() if path.startswith(f"bad/{name}_")]
        assert reason in found, name
    assert painted


def test_many_unusable_scenes_do_not_outvote_the_usable(tmp_path: Path, paint: Any) -> None:
    paint_years(tmp_path / "in", paint, (2019,))
    for n in range(3):
        paint.scene(tmp_path / "in" / f"none{n}.tif", paint.pixels((1, 128, 128)))
    assert paint.tile(tmp_path / "in", tmp_path / "out").n_tiles == 6


@pytest.mark.parametrize("damage", ["truncated", "flipped"])
def test_a_scene_that_breaks_while_it_is_read_is_named(
    tmp_path: Path, paint: Any, damage: str
) -> None:
    painted = paint_years(tmp_path / "in", paint, (2018,))
    options = {"compress": "deflate", "tiled": True, "blockxsize": 128, "blockysize": 128}
    path = paint.scene(tmp_path / "in" / "b_2019.tif", painted[2018], **options)
    data = bytearray(path.read_bytes())
    if damage == "truncated":
        data = data[: len(data) * 2 // 3]
    else:
        middle = len(data) // 2
        data[middle : middle + 64] = b"\xff" * 64
    path.write_bytes(data)
    archive = paint.tile(tmp_path / "in", tmp_path / "out")
    whole = archive.index["period"] == "2018"
    assert whole.sum() == 6 and archive.manifest["n_rejected"] == 1
    (reason,) = rejected(tmp_path / "out").values()
    assert "cannot be read as an image" in reason and "2019" in reason
    for tile_index in archive.index.index[~whole]:
        found, _ = archive.read(tile_index)
        twin = archive.index["cell_id"] == archive.index["cell_id"][tile_index]
        other, _ = archive.read(int(archive.index.index[twin & whole][0]))
        assert found.tobytes() == other.tobytes(), "a tile of a damaged scene holds other pixels"


def test_a_damaged_scene_leaves_its_place_to_the_next(tmp_path: Path, paint: Any) -> None:
    good = paint.pixels((3, 128, 128))
    path = paint.scene(tmp_path / "in" / "a_2019.tif", good, compress="deflate")
    path.write_bytes(path.read_bytes()[:-2000])
    paint.scene(tmp_path / "in" / "b_2019.tif", good)
    archive = paint.tile(tmp_path / "in", tmp_path / "out")
    assert archive.read(0)[0].tobytes() == good.tobytes()
    assert list(rejected(tmp_path / "out")) == ["a_2019.tif"]


def nothing(folder: Path, paint: Any) -> None: ...


def vrt(folder: Path, paint: Any) -> None:
    secret = paint.scene(folder.parent / "secret.tif", paint.pixels((1, 128, 128)))
    (folder / "a_2019.tif").write_text(
        '<VRTDataset rasterXSize="8" rasterYSize="8"><VRTRasterBand dataType="Byte" band="1">'
        f"<SimpleSource><SourceFilename>{secret}</SourceFilename></SimpleSource>"
        "</VRTRasterBand></VRTDataset>"
    )


def text(folder: Path, paint: Any) -> None:
    (folder / "a_2019.png").write_text("a letter")


def empty(folder: Path, paint: Any) -> None:
    (folder / "a_2019.tif").touch()


def cut(folder: Path, paint: Any) -> None:
    path = paint.scene(folder / "a_2019.tif", paint.pixels((1, 128, 128)), compress="deflate")
    path.write_bytes(path.read_bytes()[:3000])


def bomb(folder: Path, paint: Any) -> None:
    options = {"tiled": True, "blockxsize": 2048, "blockysize": 2048, "compress": "deflate"}
    wide = np.broadcast_to(np.uint8(0), (1, 16384, 32768))
    paint.scene(folder / "a_2019.tif", wide, sparse_ok=True, **options)


def outside(folder: Path, paint: Any) -> None:
    paint.scene(folder / "a_2019.tif", paint.pixels((1, 9, 9)), corner=(5e5, 9.6e6))


def masked(folder: Path, paint: Any) -> None:
    paint.scene(folder / "a_2019.tif", np.zeros((1, 128, 128), "uint16"), nodata=0)


def timeless(folder: Path, paint: Any) -> None:
    paint.scene(folder / "a.tif", paint.pixels((1, 128, 128)))


def local_crs(folder: Path, paint: Any) -> None:
    crs = 'LOCAL_CS["a hall",UNIT["metre",1],AXIS["X",EAST],AXIS["Y",NORTH]]'
    paint.scene(folder / "a_2019.tif", paint.pixels((1, 128, 128)), crs=crs)


def geocentric(folder: Path, paint: Any) -> None:
    place = Affine(10, 0, 6378000, 0, -10, 2000)
    paint.scene(
        folder / "a_2019.tif", paint.pixels((1, 128, 128)), crs="EPSG:4978", transform=place
    )


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (nothing, "holds no image"),
        (vrt, "is no TIFF"),
        (text, "is no TIFF"),
        (empty, "is empty"),
        (cut, "cannot be read as an image"),
        (bomb, "declares 32768x16384 px in 1 bands but holds"),
        (outside, "lies outside grid"),
        (masked, "shows no valid pixel in the cells"),
        (timeless, "has no period"),
        (local_crs, "neither geographic nor projected|has no place"),
        (geocentric, "neither geographic nor projected"),
    ],
)
def test_nothing_usable_leaves_nothing(
    tmp_path: Path, paint: Any, make: Any, sentence: str
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    make(folder, paint)
    with pytest.raises(SceneError, match=sentence) as caught:
        paint.tile(folder, tmp_path / "out")
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value)
    assert not [path for path in tmp_path.iterdir() if "out" in path.name]


def test_missing_folders_and_folders_that_cannot_be_written(tmp_path: Path, paint: Any) -> None:
    with pytest.raises(SceneError, match="does not exist"):
        paint.tile(tmp_path / "nowhere", tmp_path / "out")
    paint_years(tmp_path / "in", paint)
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file" / "out", Path("/proc/ecofm/out")):
        with pytest.raises(ArtifactError, match=r"cannot be written|has 0 GB free"):
            paint.tile(tmp_path / "in", out)
    with pytest.raises(ArtifactError, match="is no folder"):
        paint.tile(tmp_path / "in", tmp_path / "file", overwrite=True)
    with pytest.raises(ArtifactError, match="did not write"):
        paint.tile(tmp_path / "in", tmp_path / "in", overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "in"]
    assert len(list((tmp_path / "in").iterdir())) == 2


def test_a_small_disk_is_told_before_the_work(
    tmp_path: Path, paint: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    paint_years(tmp_path / "in", paint)
    n_bytes = 12 * (3 * 2 * 128 * 128 + 128 * 16)
    usage = type("Usage", (), {"free": n_bytes // 2 - 1})
    with monkeypatch.context() as patch:
        patch.setattr(ingest.shutil, "disk_usage", lambda _: usage)
        with pytest.raises(ArtifactError, match="choose an --out on a larger disk"):
            paint.tile(tmp_path / "in", tmp_path / "out")
        assert not (tmp_path / "out").exists()
        usage.free = n_bytes // 2 + 1
        paint.tile(tmp_path / "in", tmp_path / "out")
    assert "12 tiles at most, 0.0012 GB on disk." in capsys.readouterr().err
    held = sum(path.stat().st_size for path in (tmp_path / "out").glob("shards/*.npy"))
    assert 0 <= held - n_bytes < 1000


@pytest.mark.parametrize("stop", [False, True])
def test_statistics_are_those_of_all_valid_pixels(tmp_path: Path, paint: Any, stop: bool) -> None:
    painted = paint_years(tmp_path / "in", paint)
    hole = paint.pixels((3, 256, 384), seed=3)
    hole[:, 40:90, 100:250] = 0
    paint.scene(tmp_path / "in" / "b_2020.tif", hole, nodata=0)
    out = tmp_path / "out"
    if stop:
        with pytest.raises(paint.Stopped):
            paint.tile(tmp_path / "in", out, shard_tiles=4, progress=paint.stop_after(2))
    contract = paint.tile(tmp_path / "in", out, shard_tiles=4).contract
    values = [pixels.reshape(3, -1) for pixels in painted.values()]
    values.append(hole[:, (hole != 0).any(axis=0)])
    whole = np.concatenate(values, axis=1).astype(float)
    np.testing.assert_allclose(contract.mean, whole.mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(contract.std, whole.std(axis=1), rtol=1e-9)


def test_tiles_with_too_few_valid_pixels_are_not_kept(tmp_path: Path, paint: Any) -> None:
    pixels = paint.pixels((1, 128, 384))
    pixels[:, :, 128:] = 0
    pixels[:, :, 128:192] = 7
    paint.scene(tmp_path / "in" / "a_2019.tif", pixels, nodata=0)
    for share, expected in ((0.0, [1.0, 0.5]), (0.5, [1.0])):
        archive = paint.tile(tmp_path / "in", tmp_path / f"{share}", min_valid_share=share)
        assert archive.index["valid_share"].tolist() == expected


def test_a_lonlat_scene_lands_on_its_cells(tmp_path: Path, paint: Any) -> None:
    """EPSG:4326 onto utm:1280: the cells lie where the scene does, and hold its values."""
    pixels = np.full((2, 300, 300), 700, "uint16")
    place = Affine(1e-4, 0, 127.4, 0, -1e-4, 39.04)
    paint.scene(tmp_path / "in" / "a_2019.tif", pixels, crs="EPSG:4326", transform=place)
    archive = paint.tile(tmp_path / "in", tmp_path / "out")
    outline = archive.index.geometry.union_all()
    west, south, east, north = outline.bounds
    assert west <= 127.4 and east >= 127.43 and south <= 39.01 and north >= 39.04
    n_valid = 0
    for tile_index in range(archive.n_tiles):
        found, valid = archive.read(tile_index)
        assert set(np.unique(found[:, valid])) <= {700}
        n_valid += int(valid.sum())
    area_px = (0.03 * 111_320 * np.cos(np.radians(39.025)) / 10) * (0.03 * 111_000 / 10)
    assert abs(n_valid / area_px - 1) < 0.02


@pytest.mark.parametrize(
    "options",
    [
        {"grid": "utm:77"},
        {"period": "summer"},
        {"bands": ("B02", "B02")},
        {"bands": ("B02", "")},
        {"name_pattern": "{x}"},
        {"name_pattern": "{y}_{x}", "grid": "none"},
        {"min_valid_share": 1.0},
        {"shard_tiles": 0},
    ],
)
def test_options_that_cannot_be_used_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        TileConfig(**options)


def test_attribution_follows_the_scenes(tmp_path: Path, paint: Any) -> None:
    paint_years(tmp_path / "in", paint)
    real = paint.tile(tmp_path / "in", tmp_path / "out")
    assert real.attribution == "Contains modified Copernicus Sentinel data 2018 2019"
    tags = {"DESCRIPTION": "Synthetic imagery"}
    paint.scene(tmp_path / "s" / "a_2019.tif", paint.pixels((3, 128, 128)), tags=tags)
    made = paint.tile(tmp_path / "s", tmp_path / "made")
    assert made.attribution.startswith("Synthetic imagery of a procedural country")
