"""Sources as they come: SAFE folders, band sets and STAC items, and their offsets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import rasterio
from affine import Affine

from ecofm.errors import SceneError
from ecofm.tiles.assembly import SceneOptions
from ecofm.tiles.products import read_product
from ecofm.tiles.rasters import Remote
from ecofm.tiles.sources import find_sources
from ecofm.tiles.stac import read_stac

PRODUCT = "S2B_MSIL2A_20220612T101559_N0400_R065_T32TPS_20220613T134800"
GSD_M = {"B02": 10, "B03": 10, "B11": 20, "B09": 60, "SCL": 20}


def rejected(out: Path) -> dict[str, str]:
    table = pd.read_parquet(out / "rejected.parquet")
    return dict(zip(table["path"], table["reason"], strict=True))


def paint_bands(folder: Path, name: str, paint: Any, value: int = 3000) -> None:
    """Write bands of one 1280 m cell, each constant: `value` plus its number."""
    for number, (band, gsd_m) in enumerate(GSD_M.items()):
        side = -(-1280 // gsd_m)
        pixels = np.full((1, side, side), value + number, "uint16")
        if band == "SCL":
            pixels = np.full((1, side, side), 4, "uint8")
            pixels[:, :10] = 9
        x, y = paint.corner
        paint.scene(
            folder / name.format(band=band, gsd_m=gsd_m),
            pixels,
            transform=Affine(gsd_m, 0, x, 0, -gsd_m, y),
        )


def paint_safe(folder: Path, paint: Any, product: str = PRODUCT, **options: Any) -> Path:
    """Write what of a SAFE folder is read; its JPEG 2000 are GeoTIFF by another name."""
    safe = folder / f"{product}.SAFE"
    images = safe / "GRANULE" / "L2A_T32TPS" / "IMG_DATA"
    paint_bands(
        images, "T32TPS_20220612T101559_{band}_{gsd_m}m.jp2", paint, options.pop("value", 3000)
    )
    offset = options.pop("offset", "-1000")
    offsets = "".join(f'<BOA_ADD_OFFSET band_id="{n}">{offset}</BOA_ADD_OFFSET>' for n in range(13))
    fields = {
        "PRODUCT_START_TIME": "2022-06-12T10:15:59.024Z",
        "PROCESSING_BASELINE": "04.00",
        "PRODUCT_URI": f"{product}.SAFE",
        "BOA_QUANTIFICATION_VALUE": "10000",
        **options,
    }
    text = "".join(f"<{key}>{value}</{key}>" for key, value in fields.items())
    more = offsets if offset else ""
    (safe / "MTD_MSIL2A.xml").write_text(
        f'<n1:Level xmlns:n1="https://psd-14.sentinel2.eo.esa.int/">{text}{more}</n1:Level>'
    )
    return safe


def test_a_safe_folder_is_a_scene_of_its_finest_bands(tmp_path: Path, paint: Any) -> None:
    safe = paint_safe(tmp_path / "in", paint)
    for path in (tmp_path / "in", safe):
        out = tmp_path / f"out-{path.name}"
        archive = paint.tile(path, out)
        assert archive.contract.bands == ("B02", "B03", "B09", "B11")
        assert archive.contract.offset == -1000 and archive.periods == ["2022-06-12"]
        assert archive.contract.wavelengths_nm == (492.4, 559.8, 945.1, 1613.7)
        assert "BOA_ADD_OFFSET" in next(iter(archive.manifest["radiometry"].values()))
        pixels, valid = archive.read(0)
        assert not valid[:19].any() and valid[21:].all(), "SCL 9 is cloud"
        for band, value in zip(pixels, (3000, 3001, 3003, 3002), strict=True):
            assert set(np.unique(band[valid])) == {value}
    kept = paint.tile(safe, tmp_path / "kept", scl_masked=())
    assert kept.read(0)[1].all()


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"BOA_QUANTIFICATION_VALUE": "1000"}, "median reflectance of 3 at scale 0.001"),
        ({"PRODUCT_START_TIME": "2019-01-02T00:00:00"}, "by its metadata and of 2022-06-12"),
        ({"value": 400}, "seems to be applied already; give --offset 0"),
        ({"offset": "many"}, "expected a number"),
        ({"PROCESSING_BASELINE": "02.08"}, "-0.1 by BOA_ADD_OFFSET.* and 0 by processing baseline"),
        ({"PROCESSING_BASELINE": "<!ENTITY a>"}, "has entities"),
        ({"PROCESSING_BASELINE": "<"}, "cannot be read"),
    ],
)
def test_a_safe_folder_that_contradicts_itself_is_refused(
    tmp_path: Path, paint: Any, fields: Any, sentence: str
) -> None:
    safe = paint_safe(tmp_path / "in", paint, **fields)
    (source,) = find_sources([safe]).found.values()
    with pytest.raises(SceneError, match=sentence):
        read_product(source, SceneOptions())


def test_two_baselines_in_one_archive_mean_the_same(tmp_path: Path, paint: Any) -> None:
    pixels = paint.pixels((2, 128, 128)) // 4 + 2000
    tags = {"BOA_ADD_OFFSET": "-1000"}
    paint.scene(tmp_path / "in" / "a_2021.tif", pixels)
    paint.scene(tmp_path / "in" / "b_2022.tif", pixels + np.uint16(1000), tags=tags)
    archive = paint.tile(tmp_path / "in", tmp_path / "out")
    assert archive.contract.offset == -1000
    assert archive.read(0)[0].tobytes() == archive.read(1)[0].tobytes()
    assert archive.manifest["n_rejected"] == 0
    told = paint.tile(tmp_path / "in", tmp_path / "told", offset=0.0)
    assert told.contract.offset == 0
    assert told.read(0)[0].tobytes() != told.read(1)[0].tobytes()


def test_a_set_of_bands_is_one_scene(tmp_path: Path, paint: Any) -> None:
    paint_bands(tmp_path / "in" / "imgs_1", "{band}.tif", paint)
    paint_bands(tmp_path / "in" / "flat", "x_20190701_{band}_{gsd_m}m.tif", paint)
    (tmp_path / "in" / "dates.txt").write_text("date_1: 20150821\ndate_2: 20170621\n")
    archive = paint.tile(tmp_path / "in", tmp_path / "out")
    assert archive.periods == ["2015-08-21", "2019-07-01"]
    assert set(archive.manifest["inputs"]) == {"imgs_1", "flat/x_20190701"}
    chosen = paint.tile(tmp_path / "in", tmp_path / "chosen", bands=("B11", "B02"))
    assert chosen.contract.bands == ("B11", "B02")
    assert [int(band.max()) for band in chosen.read(0)[0]] == [3002, 3000]


def test_a_dark_band_of_a_set_is_not_nodata(tmp_path: Path, paint: Any) -> None:
    bright, dark = np.full((1, 128, 128), 90, "uint16"), np.full((1, 128, 128), 0, "uint16")
    bright[:, :, :5] = 0
    paint.scene(tmp_path / "in" / "a_2019_B02.tif", bright)
    paint.scene(tmp_path / "in" / "a_2019_B03.tif", dark)
    _, valid = paint.tile(tmp_path / "in", tmp_path / "out").read(0)
    assert not valid[:, :5].any() and valid[:, 5:].all()


def test_an_older_processing_of_an_acquisition_is_left_out(tmp_path: Path, paint: Any) -> None:
    older = PRODUCT.replace("N0400", "N0301")
    paint_safe(tmp_path / "in", paint, older, PROCESSING_BASELINE="03.01", offset="")
    paint_safe(tmp_path / "in", paint)
    archive = paint.tile(tmp_path / "in", tmp_path / "out")
    assert archive.n_tiles == 1 and archive.contract.offset == -1000
    reasons = rejected(tmp_path / "out")
    assert list(reasons) == [f"{older}.SAFE"] and "the later one, 0400" in reasons[f"{older}.SAFE"]


def item(folder: Path, assets: dict[str, Any], **properties: Any) -> Path:
    """Write a STAC item."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "item.json"
    fields = {"datetime": "2022-06-12T10:16:00Z", **properties}
    path.write_text(
        json.dumps(
            {"type": "Feature", "stac_version": "1.0.0", "id": "S2B_32TPS_20220612_0_L2A",
             "properties": fields, "assets": assets}
        )
    )  # fmt: skip
    return path


@pytest.mark.parametrize(("applied", "offset"), [(True, 0.0), (False, -1000.0)])
def test_a_stac_item_is_a_scene(tmp_path: Path, paint: Any, applied: bool, offset: float) -> None:
    folder = tmp_path / "in" / "2022"
    paint_bands(folder / "px", "{band}.tif", paint)
    raster = [{"scale": 1e-4, "offset": -0.1}]
    assets = {
        "blue": {"href": "px/B02.tif", "raster:bands": raster, "eo:bands": [{"name": "blue"}]},
        "blue-jp2": {"href": "px/none.jp2"},
        "swir16": {"href": "./px/B11.tif", "raster:bands": raster},
        "scl": {"href": "px/SCL.tif"},
        "visual": {"href": "px/TCI.tif", "eo:bands": [{"name": n} for n in ("red", "green", "x")]},
        "thumbnail": {"href": "px/small.png"},
    }
    item(folder, assets, **{"earthsearch:boa_offset_applied": applied})
    archive = paint.tile(folder / "item.json", tmp_path / "out")
    assert archive.contract.bands == ("B02", "B11") and archive.contract.offset == offset
    _, valid = archive.read(0)
    assert not valid[:19].any() and valid[21:].all()
    assert archive.periods == ["2022-06-12"]


def test_a_stac_item_with_one_raster_of_all_bands(tmp_path: Path, paint: Any) -> None:
    folder = tmp_path / "in"
    painted = paint.pixels((3, 128, 128))
    paint.scene(folder / "all.tif", painted)
    names = [{"name": name} for name in ("B04", "B03", "B02")]
    path = item(folder, {"data": {"href": "all.tif", "eo:bands": names}})
    archive = paint.tile(path, tmp_path / "out")
    assert archive.contract.bands == ("B02", "B03", "B04")
    assert archive.read(0)[0].tobytes() == painted[::-1].tobytes()


@pytest.mark.parametrize("is_turned", [False, True])
def test_the_order_of_assets_does_not_matter(tmp_path: Path, paint: Any, is_turned: bool) -> None:
    """A rendering names bands too, and a band may be there at three resolutions."""
    folder = tmp_path / "in"
    paint_bands(folder, "{band}.tif", paint)
    names = [{"name": name} for name in ("B04", "B03", "B02")]
    assets = {
        "visual": {"href": "none.tif", "eo:bands": names},
        "B02_60m": {"href": "none.tif"},
        "B02_10m": {"href": "B02.tif"},
        "B03-jp2": {"href": "none.jp2"},
        "B03": {"href": "B03.tif", "eo:bands": 3},
    }
    order = list(assets)[:: -1 if is_turned else 1]
    path = item(folder, {key: assets[key] for key in order})
    (source,) = find_sources([path]).found.values()
    scene = read_stac(source, SceneOptions(bands=("B02", "B03"), offset=0.0))
    assert [part.path.name for part in scene.parts] == ["B02.tif", "B03.tif"]


@pytest.mark.parametrize(
    ("properties", "asset", "sentence"),
    [
        ({"platform": "landsat-8"}, {}, "is of platform landsat-8"),
        ({"constellation": "sentinel-1"}, {}, "is of constellation sentinel-1"),
        ({"platform": "landsat-8", "constellation": "Sentinel 2"}, {}, "is of platform landsat-8"),
    ],
)
def test_another_satellite_is_not_taken_for_sentinel_2(
    tmp_path: Path, paint: Any, properties: Any, asset: Any, sentence: str
) -> None:
    paint_bands(tmp_path / "in", "{band}.tif", paint)
    path = item(tmp_path / "in", {"blue": {"href": "B02.tif", **asset}}, **properties)
    (source,) = find_sources([path]).found.values()
    with pytest.raises(SceneError, match=sentence):
        read_stac(source, SceneOptions())


@pytest.mark.parametrize(
    ("href", "sentence"),
    [
        ("https://example.org/B02.tif", "give --remote to read them"),
        ("/vsicurl/https://example.org/B02.tif", "only files and, with --remote"),
        ("s3://bucket/B02.tif", "only files and, with --remote"),
        ("../../secret.tif", "outside the given folder"),
        ("/etc/hostname", "outside the given folder"),
        ("file:///etc/hostname", "outside the given folder"),
        ("none.tif", "does not exist"),
    ],
)
def test_a_stac_item_reads_nothing_outside(
    tmp_path: Path, paint: Any, href: str, sentence: str
) -> None:
    paint.scene(tmp_path / "secret.tif", paint.pixels((1, 128, 128)))
    path = item(tmp_path / "in" / "deep", {"B02": {"href": href}})
    (source,) = find_sources([path]).found.values()
    with pytest.raises(SceneError, match=sentence):
        read_stac(source, SceneOptions())


def test_urls_are_signed_and_read_when_asked_for(
    tmp_path: Path, paint: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ecofm.tiles import rasters

    local = paint.scene(tmp_path / "b.tif", paint.pixels((1, 128, 128)))
    opened = []

    def open_here(name: Any, **options: Any) -> Any:
        opened.append((name, options))
        return rasterio_open(local)

    rasterio_open = rasterio.open
    monkeypatch.setattr(rasters.rasterio, "open", open_here)
    path = item(tmp_path / "in", {"B02": {"href": "https://example.org/B02.tif"}})
    (source,) = find_sources([path]).found.values()
    options = SceneOptions(remote=True, sign=lambda url: f"{url}?token")
    scene = read_stac(source, options)
    assert scene.parts[0].path == Remote("https://example.org/B02.tif", options.sign)
    assert {name for name, _ in opened} == {"/vsicurl/https://example.org/B02.tif?token"}
    assert all(options["driver"] == "GTiff" for _, options in opened)
