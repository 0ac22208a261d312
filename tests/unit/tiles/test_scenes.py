"""Scenes: what a raster says of itself, and the files that are refused before any pixel."""

from __future__ import annotations

import datetime
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ecofm.errors import SceneError
from ecofm.tiles import rasters as rasters_module
from ecofm.tiles import scenes
from ecofm.tiles.assembly import SceneOptions
from ecofm.tiles.periods import parse_period
from ecofm.tiles.pixels import read_chip
from ecofm.tiles.products import read_scene
from ecofm.tiles.rasters import Rasters
from ecofm.tiles.scenes import Scene


def describe(path: Path, **options: Any) -> Scene:
    return read_scene(path, path.name, SceneOptions(**options))


@pytest.mark.parametrize(
    ("count", "dtype", "names", "given_names", "expected"),
    [
        (3, "uint16", ["B2", "B03", "B8A"], None, ("B02", "B03", "B8A")),
        (3, "uint8", [], None, ("red", "green", "blue")),
        (2, "uint16", [], None, ("band1", "band2")),
        (2, "uint16", ["B02", "B02"], None, ("band1", "band2")),
        (2, "uint16", ["B02", "a\nb"], None, ("band1", "band2")),
        (2, "uint16", ["B02", "x" * 65], None, ("band1", "band2")),
        (2, "uint16", [], ("VV", "VH"), ("VV", "VH")),
        (2, "uint16", ["VV", "VH"], ("VH", "VV"), ("VH", "VV")),
        (2, "uint16", ["B02", "B03"], ("VV=B03", "VH=1"), ("VV", "VH")),
    ],
)
def test_band_names(
    tmp_path: Path, paint: Any, count: int, dtype: str, names: Any, given_names: Any, expected: Any
) -> None:
    options = {"photometric": "RGB"} if dtype == "uint8" else {}
    path = paint.scene(
        tmp_path / "a.tif", paint.pixels((count, 8, 8), dtype), names=names, **options
    )
    assert describe(path, bands=given_names).bands == expected


def test_names_that_do_not_fit_are_refused(tmp_path: Path, paint: Any) -> None:
    path = paint.scene(tmp_path / "a.tif", paint.pixels((3, 8, 8)))
    with pytest.raises(SceneError, match="has 3 bands without names, and --bands asks for a"):
        describe(path, bands=("a", "b"))
    path = paint.scene(tmp_path / "a.tif", paint.pixels((2, 8, 8)), names=["B02", "B03"])
    with pytest.raises(SceneError, match="has bands B02, B03, and --bands asks for VV"):
        describe(path, bands=("VV", "VH"))


@pytest.mark.parametrize(
    ("name", "tags", "given_period", "expected"),
    [
        ("a_2019.tif", {}, None, "2019"),
        ("a_2019-Q3_b.tif", {}, None, "2019-Q3"),
        ("S2_L2A_20220612_town.tif", {}, None, "2022-06-12"),
        ("Boadella_2020-01-18.tif", {}, None, "2020-01-18"),
        ("a_2019.tif", {"period": "2018-Q2"}, None, "2018-Q2"),
        ("a_2019.tif", {"period": "2018"}, "2017", "2017"),
        ("a_2019.tif", {"PRODUCT_START_TIME": "2021-05-06T10:00:00Z"}, None, "2021-05-06"),
        ("a_20191399.tif", {}, None, None),
        ("a_12019.tif", {}, None, None),
        ("a.tif", {}, None, None),
        ("a_1234.tif", {}, None, None),
    ],
)
def test_periods(
    tmp_path: Path, paint: Any, name: str, tags: Any, given_period: Any, expected: Any
) -> None:
    path = paint.scene(tmp_path / name, paint.pixels((1, 8, 8)), tags=tags)
    assert describe(path, period=given_period).period == expected


def test_a_name_that_is_a_cell_says_nothing_of_time(tmp_path: Path, paint: Any) -> None:
    path = paint.chip(tmp_path / "6259_2019.png")
    assert describe(path).period == "2019"
    assert describe(path, period_in_name=False).period is None


@given(st.dates())
def test_a_day_is_a_period(day: datetime.date) -> None:
    assert parse_period(day.isoformat()) == day.isoformat()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "19",
        "2019-Q5",
        "2019-13-01",
        "2019-02-30",
        "2019-6-1",
        "2019-4",
        "04_2019",
        "2019--2018",
        "2018-2019-2020",
        "0000",
        "\uff12019",
        "../x",
    ],
)
def test_what_is_no_period_is_refused(text: str) -> None:
    with pytest.raises(
        ValueError, match=r"a quarter \(2019-Q2\), a month \(2019-04\), a day .* or a range"
    ):
        parse_period(text)


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"period": "last summer"}, "bad tag"),
        ({"BOA_ADD_OFFSET": "many"}, "expected a number"),
        ({"BOA_ADD_OFFSET": "nan"}, "which no stored number needs"),
        ({"BOA_ADD_OFFSET": "1e999"}, "which no stored number needs"),
        ({"BOA_ADD_OFFSET": "-1e6"}, "which no stored number needs"),
    ],
)
def test_hostile_tags_are_refused(tmp_path: Path, paint: Any, tags: Any, reason: str) -> None:
    path = paint.scene(tmp_path / "a_2019.tif", paint.pixels((1, 8, 8)), tags=tags)
    with pytest.raises(SceneError, match=reason):
        describe(path)


def test_an_offset_is_read(tmp_path: Path, paint: Any) -> None:
    path = paint.scene(
        tmp_path / "a_2019.tif",
        paint.pixels((1, 8, 8)) // 2 + 1000,
        tags={"BOA_ADD_OFFSET": "-1000"},
    )
    (part,) = describe(path).parts
    assert (part.scale, part.offset) == (1e-4, -1000.0)


@pytest.mark.parametrize(
    "transform", [Affine(0, 0, 5, 0, 0, 5), Affine(float("nan"), 0, 5, 0, -10, 5)]
)
def test_a_transform_that_leads_nowhere_is_refused(
    tmp_path: Path, paint: Any, transform: Affine
) -> None:
    path = paint.scene(tmp_path / "a_2019.tif", paint.pixels((1, 8, 8)), transform=transform)
    with pytest.raises(SceneError, match="leads nowhere"):
        describe(path)


@pytest.mark.parametrize("dtype", ["int8", "complex64", "complex128"])
def test_other_number_types_are_refused(tmp_path: Path, paint: Any, dtype: str) -> None:
    path = paint.scene(tmp_path / "a_2019.tif", np.ones((1, 8, 8), dtype))
    with pytest.raises(SceneError, match=f"type {dtype}; expected one of uint8, uint16, int16"):
        describe(path)


def test_a_colour_table_is_refused(tmp_path: Path) -> None:
    image = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).convert("P")
    image.save(tmp_path / "a.png")
    with pytest.raises(SceneError, match="colour table"):
        describe(tmp_path / "a.png")


def vrt_of(secret: Path) -> bytes:
    return (
        '<VRTDataset rasterXSize="8" rasterYSize="8"><GeoTransform>5,10,0,5,0,-10</GeoTransform>'
        '<VRTRasterBand dataType="Byte" band="1">'
        f'<SimpleSource><SourceFilename relativeToVRT="0">{secret}</SourceFilename>'
        "<SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"
    ).encode()


def test_a_vrt_with_an_image_s_name_reads_no_other_file(tmp_path: Path, paint: Any) -> None:
    secret = paint.scene(tmp_path / "secret.tif", paint.pixels((1, 8, 8), "uint8"))
    disguised = tmp_path / "a_2019.tif"
    disguised.write_bytes(vrt_of(secret))
    with rasterio.open(disguised) as dataset:
        assert dataset.driver == "VRT", "GDAL itself would follow it"
    with pytest.raises(SceneError, match="is no TIFF"):
        describe(disguised)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.png", b"a letter to my aunt", "is no TIFF"),
        ("a.tif", b"", "is empty"),
        ("a.tif", b"II*\0", "cannot be read"),
        ("a.tif", b"II*\0" + b"\xff" * 500, "cannot be read"),
        ("a.png", b"\x89PNG\r\n\x1a\n" + b"\0" * 50, "cannot be read"),
        ("a.jpg", b"\xff\xd8\xff\xe0", "cannot be read"),
        ("a.jp2", b"\0\0\0\x0cjP  \r\n\x87\n", "cannot be read"),
        ("a.tif", b"http://example.org/a.tif", "is no TIFF"),
        ("a.tif", b"GIF89a", "is no TIFF"),
    ],
)
def test_files_that_are_no_image_are_refused(
    tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SceneError, match=reason):
        describe(tmp_path / name)


def test_missing_files_folders_and_broken_links_are_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.tif").mkdir()
    (tmp_path / "link.tif").symlink_to(tmp_path / "nowhere.tif")
    for name in ("none.tif", "folder.tif", "link.tif", "/vsicurl/http://127.0.0.1/a.tif"):
        with pytest.raises(SceneError, match="cannot be opened"):
            describe(tmp_path / name)


def sparse_bomb(path: Path) -> Path:
    """Write a TIFF of a few hundred kilobytes that declares 900 GB of zeros."""
    options = {"driver": "GTiff", "width": 500_000, "height": 75_000, "count": 12}
    place = {"crs": "EPSG:32652", "transform": Affine(10, 0, 3e5, 0, -10, 4.3e6)}
    layout = {"tiled": True, "blockxsize": 4096, "blockysize": 4096, "sparse_ok": True}
    with rasterio.open(
        path, "w", dtype="uint16", compress="deflate", bigtiff="YES", **options, **place, **layout
    ):
        pass
    return path


def test_a_bomb_is_refused(tmp_path: Path) -> None:
    bomb = sparse_bomb(tmp_path / "bomb_2019.tif")
    assert bomb.stat().st_size < 2**22
    with pytest.raises(SceneError, match="declares 500000x75000 px in 12 bands but holds"):
        describe(bomb)


def test_one_block_of_all_bands_is_refused(tmp_path: Path, paint: Any, monkeypatch: Any) -> None:
    """A block is decoded whole: memory must not follow the scene."""
    path = paint.scene(
        tmp_path / "a_2019.tif",
        paint.pixels((6, 64, 64)),
        tiled=True,
        blockxsize=64,
        blockysize=64,
        interleave="pixel",
    )
    monkeypatch.setattr(rasters_module, "MAX_BLOCK_BYTES", 64 * 64 * 2 * 5)
    with pytest.raises(SceneError, match="gdal_translate"):
        describe(path)
    monkeypatch.setattr(rasters_module, "MAX_BLOCK_BYTES", 64 * 64 * 2 * 6)
    assert describe(path).shape_px == (64, 64)


def test_many_bands_are_refused(tmp_path: Path, paint: Any) -> None:
    path = paint.scene(tmp_path / "a_2019.tif", np.ones((1001, 1, 1), "uint8"))
    with pytest.raises(SceneError, match="has 1001 bands"):
        describe(path)


def test_a_neighbour_says_nothing_of_place_and_time(tmp_path: Path, paint: Any) -> None:
    path = paint.scene(tmp_path / "a_2019.tif", paint.pixels((1, 16, 16)), crs=None)
    before = describe(path)
    (tmp_path / "a_2019.tif.aux.xml").write_text(
        "<PAMDataset><SRS>EPSG:32652</SRS><GeoTransform>3e5,10,0,4e6,0,-10</GeoTransform>"
        '<Metadata><MDI key="period">1999</MDI></Metadata></PAMDataset>'
    )
    (tmp_path / "a_2019.tfw").write_text("10\n0\n0\n-10\n300000\n4000000\n")
    assert describe(path) == before


def test_only_the_last_few_rasters_stay_open(
    tmp_path: Path, paint: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rasters_module, "MAX_OPEN", 2)
    paths = [paint.scene(tmp_path / f"{n}.tif", paint.pixels((1, 8, 8))) for n in range(4)]
    with Rasters() as rasters:
        held = []
        for path in [*paths, paths[3], paths[0]]:
            with rasters.use(path) as dataset:
                held.append(dataset)
        assert held[3] is held[4] and held[0] is not held[5]
        assert [dataset.closed for dataset in held] == [True, True, True, False, False, False]
    assert all(dataset.closed for dataset in held)


@pytest.mark.parametrize("suffix", [".tif", ".png", ".jpg"])
def test_damaged_headers_never_escape_as_anything_but_scene_errors(
    tmp_path: Path, paint: Any, suffix: str
) -> None:
    """Flip bytes all over the header and structure: each file is read or refused."""
    if suffix == ".tif":
        path = paint.scene(tmp_path / "a.tif", paint.pixels((2, 16, 16)), compress="deflate")
    else:
        path = paint.chip(tmp_path / f"a{suffix}", side_px=16)
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    n_refused = 0
    for _ in range(120):
        data = bytearray(whole)
        for place in random.integers(0, min(len(data), 600), 3):
            data[place] ^= 1 << int(random.integers(8))
        path.write_bytes(
            data[: int(random.integers(10, len(data)))] if random.random() < 0.3 else data
        )
        try:
            scene = describe(path, period="2019")
            with Rasters() as rasters:
                if np.prod(scene.shape_px) <= 256:
                    read_chip(scene, rasters)
        except SceneError:
            n_refused += 1
    assert n_refused > 10


def test_a_tiff_with_a_giant_tag_count_is_refused(tmp_path: Path) -> None:
    header = struct.pack("<2sHIH", b"II", 42, 8, 3)
    entries = struct.pack("<HHII", 256, 4, 1, 2**31 - 1) + struct.pack(
        "<HHII", 257, 4, 1, 2**31 - 1
    )
    offsets = struct.pack("<HHII", 273, 4, 2**30, 8)
    (tmp_path / "a.tif").write_bytes(header + entries + offsets + b"\0" * 4)
    with pytest.raises(SceneError):
        describe(tmp_path / "a.tif")


def test_names_that_are_no_unicode_can_be_told(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    assert scenes.readable_name(name) == "caf\\xe9.png"
    assert scenes.readable_name("café.png") == "café.png"
