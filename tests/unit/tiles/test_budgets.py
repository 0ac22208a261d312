"""Budgets: what a small file may ask for, and what is no file at all."""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ecofm.errors import EcofmError, SceneError
from ecofm.files import FileError, read_file
from ecofm.tables import read_table, reading
from ecofm.tiles import rasters as rasters_module
from ecofm.tiles.rasters import Rasters
from ecofm.tiles.workers import _read_cluster

SAFE = "S2A_MSIL2A_20190601T021611_N0212_R003_T52SCG_20190601T050000.SAFE"
IMAGES = "GRANULE/L2A_T52SCG_A1/IMG_DATA/R10m/T52SCG_20190601T021611"


def rejected(out: Path) -> dict[str, str]:
    table = pd.read_parquet(out / "rejected.parquet")
    return dict(zip(table["path"], table["reason"], strict=True))


def packed(paint: Any, path: Path, pixels: Any, **options: Any) -> Path:
    layout = {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate"}
    return paint.scene(path, pixels, **{**layout, **options})


def opened(path: Path) -> None:
    with Rasters() as rasters, rasters.use(path):
        pass


@pytest.fixture
def small(monkeypatch: Any) -> None:
    """Let a raster be large from 256 px a side on, and ratios be those of small blocks."""
    monkeypatch.setattr(rasters_module, "FREE_PX", 2**16)
    monkeypatch.setattr(rasters_module, "FREE_BYTES", 2**18)
    monkeypatch.setattr(rasters_module, "MAX_SHOWN_RATIO", 20)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("compress", ["deflate", "zstd", "lzw"])
def test_a_large_raster_that_shows_one_number_everywhere_is_refused(
    tmp_path: Path, paint: Any, dtype: str, compress: str
) -> None:
    pixels = np.full((1, 1024, 1024), 7, dtype)
    path = packed(paint, tmp_path / "a_2019.tif", pixels, compress=compress)
    with pytest.raises(SceneError, match=r"declares 1024x1024 px in 1 bands .* about 100% of its"):
        opened(path)


@pytest.mark.usefixtures("small")
def test_a_large_raster_in_which_nothing_shows_is_refused(tmp_path: Path, paint: Any) -> None:
    path = packed(paint, tmp_path / "a_2019.tif", np.zeros((1, 1024, 1024), "uint16"))
    with pytest.raises(SceneError, match=r"none of its pixels shows something; .*gdal_retile.py"):
        opened(path)


@pytest.mark.usefixtures("small")
def test_a_large_raster_that_is_mostly_nodata_is_read(tmp_path: Path, paint: Any) -> None:
    pixels = np.zeros((1, 1024, 1024), "uint16")
    pixels[:, 300:400, 300:400] = paint.pixels((1, 100, 100))
    path = packed(paint, tmp_path / "a_2019.tif", pixels, nodata=0)
    assert pixels.nbytes > 20 * path.stat().st_size
    opened(path)


@pytest.mark.usefixtures("small")
def test_imagery_and_a_blank_granule_of_usual_size_are_read(tmp_path: Path, paint: Any) -> None:
    opened(packed(paint, tmp_path / "a_2019.tif", paint.pixels((1, 1024, 1024))))
    opened(packed(paint, tmp_path / "b_2019.tif", np.full((1, 256, 256), 7, "uint16")))


def test_a_granule_may_be_blank_as_it_is(tmp_path: Path, paint: Any) -> None:
    side = 10_980
    assert side * side <= rasters_module.FREE_PX and 8 * side * side <= rasters_module.FREE_BYTES
    blank = np.broadcast_to(np.uint16(7), (1, side, side))
    opened(packed(paint, tmp_path / "a.tif", blank, blockxsize=1024, blockysize=1024))


def make_product(folder: Path, paint: Any) -> Path:
    for band in ("B02", "B03", "B04"):
        path = paint.scene(folder / "x.tif", paint.pixels((1, 128, 128)) // 4)
        (folder / SAFE / IMAGES).parent.mkdir(parents=True, exist_ok=True)
        path.rename(folder / SAFE / f"{IMAGES}_{band}_10m.tif")
    (folder / SAFE / "MTD_MSIL2A.xml").write_text(
        "<a><PROCESSING_BASELINE>02.12</PROCESSING_BASELINE>"
        "<BOA_QUANTIFICATION_VALUE>10000</BOA_QUANTIFICATION_VALUE></a>"
    )
    return folder / SAFE


def make_special(path: Path, kind: str) -> None:
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(path) if kind == "a named pipe" else path.symlink_to("/dev/zero")


@pytest.mark.parametrize("kind", ["a named pipe", "a device"])
@pytest.mark.parametrize(
    "file",
    ["MTD_MSIL2A.xml", f"{IMAGES}_B04_10m.tif", f"{IMAGES}_B03_10m.tif",
     "GRANULE/L2A_T52SCG_A1/MTD_TL.xml", "GRANULE/L2A_T52SCG_A1/QI_DATA/MSK_CLDPRB_20m.jp2"],
)  # fmt: skip
def test_a_product_that_holds_what_is_no_file_is_named(
    tmp_path: Path, paint: Any, file: str, kind: str
) -> None:
    folder = tmp_path / "in"
    paint.scene(
        folder / "good_20190601.tif", paint.pixels((3, 128, 128)), names=["B02", "B03", "B04"]
    )
    make_special(make_product(folder, paint) / file, kind)
    assert paint.tile(folder, tmp_path / "out", follow_links=True).n_tiles == 1
    assert f"holds {file}, which is {kind}" in rejected(tmp_path / "out")[SAFE]


@pytest.mark.parametrize("kind", ["a named pipe", "a device"])
def test_what_is_no_file_is_named_and_the_good_scene_is_tiled(
    tmp_path: Path, paint: Any, kind: str
) -> None:
    folder = tmp_path / "in"
    for name in ("good", "beside"):
        paint.scene(folder / f"{name}_20190601.tif", paint.pixels((1, 128, 128)))
    names = ("a_2019.tif", "b_2019.jp2", "c.png", "item.json", "area.geojson")
    for name in (*names, "beside_20190601.tif.aux.xml"):
        make_special(folder / name, kind)
    assert paint.tile(folder, tmp_path / "out", follow_links=True).n_tiles == 1
    found = rejected(tmp_path / "out")
    assert {name: found.pop(name) for name in names} == dict.fromkeys(
        names, f"is {kind}, expected a file"
    )
    assert list(found) == ["beside_20190601.tif"]
    assert f"aux.xml that cannot be read (it is {kind}" in found["beside_20190601.tif"]
    with pytest.raises(SceneError, match=f"is {kind}; give a folder or files of imagery"):
        paint.tile(folder, tmp_path / "other", paths=[folder / "a_2019.tif"])


def test_a_mask_that_is_no_file_hides_its_scene_instead_of_nothing(
    tmp_path: Path, paint: Any
) -> None:
    paint.scene(tmp_path / "in" / "a_2019.tif", paint.pixels((1, 128, 128)))
    make_special(tmp_path / "masks" / "a_2019.tif", "a named pipe")
    with pytest.raises(SceneError, match=r"has a mask, a_2019.tif, that cannot be opened"):
        paint.tile(tmp_path / "in", tmp_path / "out", masks=tmp_path / "masks")


def test_a_sidecar_that_leads_out_is_not_read(tmp_path: Path, paint: Any) -> None:
    for name in ("a", "b"):
        paint.scene(
            tmp_path / "in" / f"{name}_2019.tif", paint.pixels((1, 128, 128), seed=len(name))
        )
    (tmp_path / "far.xml").write_text("<PAMDataset/>")
    (tmp_path / "in" / "a_2019.tif.aux.xml").symlink_to(tmp_path / "far.xml")
    paint.tile(tmp_path / "in", tmp_path / "out", composite="median")
    assert "beside it, which leads out of its folder" in rejected(tmp_path / "out")["a_2019.tif"]
    paint.tile(tmp_path / "in", tmp_path / "all", composite="median", follow_links=True)
    assert "a_2019.tif" not in rejected(tmp_path / "all")


@pytest.mark.parametrize("kind", ["a named pipe", "a device"])
def test_tables_and_clusters_are_files(tmp_path: Path, kind: str) -> None:
    make_special(tmp_path / "a.csv", kind)
    with pytest.raises(EcofmError, match=rf"cannot be read as a table \(it is {kind}"):
        read_table(tmp_path / "a.csv")
    with pytest.raises(EcofmError, match=rf"cannot be read as YAML \(it is {kind}"):
        _read_cluster(tmp_path / "a.csv", 1)


def test_tables_that_unpack_to_far_more_than_they_look_are_refused(
    tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(reading, "MAX_BYTES", 2**16)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"a,b\n" + b"1,2\n" * 2**15))
    with pytest.raises(EcofmError, match="unpacks to more than 65536 bytes"):
        read_table(tmp_path / "a.csv.gz")
    (tmp_path / "a.csv").write_bytes(b"a,b\n" * 2**15)
    with pytest.raises(EcofmError, match="131072 bytes, expected at most 65536"):
        read_table(tmp_path / "a.csv")
    zeros = pa.table({"a": pa.array(np.zeros(2**20))})
    pq.write_table(zeros, tmp_path / "a.parquet")
    monkeypatch.setattr("ecofm.files.MAX_PARQUET_CELLS", 2**16)
    with pytest.raises(EcofmError, match="declares 1048576 rows of 1 columns"):
        read_table(tmp_path / "a.parquet")


def test_a_file_whose_size_is_not_told_is_read_up_to_the_limit() -> None:
    with pytest.raises(FileError, match="more than 4 bytes"):
        read_file(Path("/proc/self/status"), 4)
