"""Copies, versions, levels and parts of one acquisition, and items given beside their own files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ecofm.tiles.assembly import Identity, identify

PRODUCT = "S2A_MSI{level}_20190612T021611_{baseline}_R003_T52SCG_{made}"
EARLY, LATE = "20190612T051229", "20190612T191003"


def rejected(out: Path) -> dict[str, str]:
    return dict(pd.read_parquet(out / "rejected.parquet").to_numpy().tolist())


def product(level: str = "L2A", baseline: str = "N0212", made: str = EARLY) -> str:
    return PRODUCT.format(level=level, baseline=baseline, made=made)


def item(
    path: Path, hrefs: dict[str, str], asset: Any = None, name: str = "town", **properties: Any
) -> Path:
    """Write a STAC item of Sentinel-2 whose assets have some fields in common."""
    fields = {"datetime": "2019-06-12T02:16:11Z", "platform": "sentinel-2a", **properties}
    assets = {key: {"href": href, **(asset or {})} for key, href in hrefs.items()}
    found = {"type": "Feature", "stac_version": "1.0.0", "id": name, "properties": fields}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**found, "assets": assets}))
    return path


def bands(folder: Path, paint: Any, value: Any, names: str = "{band}.tif") -> None:
    """Write B03 and B04 of one value, or of a painted cell."""
    pixels = value if isinstance(value, np.ndarray) else np.full((1, 128, 128), value, "uint16")
    for band in ("B03", "B04"):
        paint.scene(folder / names.format(band=band), pixels, nodata=0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (product(), ("S2A_20190612T021611_T52SCG", "L2A", "0212", EARLY)),
        (product("L1C"), ("S2A_20190612T021611_T52SCG", "L1C", "0212", EARLY)),
        ("S2A_52SCG_20190612_0_L2A", ("S2A_20190612_0_T52SCG", "L2A", "", "")),
        ("S2A_52SCG_20190612_1_L2A", ("S2A_20190612_1_T52SCG", "L2A", "", "")),
        ("S2A_T52SCG_20190612T021611_L1C", ("S2A_20190612T021611_T52SCG", "L1C", "", "")),
        ("T52SCG_20190612T021611", ("T52SCG_20190612T021611", "", "", "")),
        ("T52SCG_20190612T021611_L2A", ("T52SCG_20190612T021611", "L2A", "", "")),
        ("my_mosaic_2019", ("", "", "", "")),
    ],
)
def test_ids_name_the_acquisition(text: str, expected: Any) -> None:
    assert identify(text) == Identity(*expected)


@pytest.mark.parametrize("kind", ["set", "raster", "item"])
@pytest.mark.parametrize("value", [900, 1500])
def test_of_two_levels_the_ground_is_taken_and_the_other_named(
    tmp_path: Path, paint: Any, kind: str, value: int
) -> None:
    names = {product("L1C"): 1700 - value, product("L2A", made=LATE): value}
    for name, stored in names.items():
        if kind == "set":
            bands(tmp_path / "in" / name, paint, stored)
        elif kind == "raster":
            pixels = np.full((2, 128, 128), stored, "uint16")
            paint.scene(tmp_path / "in" / f"{name}.tif", pixels, names=["B03", "B04"])
        else:
            bands(tmp_path / "in" / name / "px", paint, stored)
            hrefs = {band: f"px/{band}.tif" for band in ("B03", "B04")}
            item(tmp_path / "in" / name / "item.json", hrefs, **{"s2:product_uri": f"{name}.SAFE"})
    archive = paint.tile(tmp_path / "in", tmp_path / "out")
    assert (archive.read(0)[0] == value).all()
    (reason,) = rejected(tmp_path / "out").values()
    assert reason.startswith("is L1C, the top of the atmosphere") and "L2A is taken" in reason


def test_levels_are_told_apart_without_a_product_s_name(tmp_path: Path, paint: Any) -> None:
    bands(tmp_path / "in" / "20190612_L1C", paint, 1500)
    bands(tmp_path / "in" / "20190612_L2A", paint, 900)
    bands(tmp_path / "in" / "20200612_L1C", paint, 1500)
    archive = paint.tile(tmp_path / "in", tmp_path / "out")
    assert archive.periods == ["2019-06-12", "2020-06-12"]
    assert (archive.read(0)[0] == 900).all()
    assert list(rejected(tmp_path / "out")) == ["20190612_L1C"]


def test_files_of_both_levels_in_one_folder_are_two_scenes(tmp_path: Path, paint: Any) -> None:
    bands(tmp_path / "in", paint, 800, "T52SCG_20190612T021611_{band}.tif")
    bands(tmp_path / "in", paint, 500, "T52SCG_20190612T021611_{band}_10m.tif")
    archive = paint.tile(tmp_path / "in", tmp_path / "out")
    assert set(archive.manifest["inputs"]) == {
        "T52SCG_20190612T021611",
        "T52SCG_20190612T021611_L2A",
    }
    assert len(set(archive.read(0)[0].ravel().tolist())) == 1, "bands of two levels are mixed"


@pytest.mark.parametrize("kind", ["set", "item"])
def test_parts_of_a_granule_are_mosaicked(tmp_path: Path, paint: Any, kind: str) -> None:
    whole = np.random.default_rng(0).integers(500, 3000, (1, 128, 128)).astype("uint16")
    for made, gone in ((EARLY, slice(70, None)), (LATE, slice(None, 58))):
        part = whole.copy()
        part[:, gone] = 0
        name = product(made=made)
        bands(tmp_path / "in" / name, paint, part)
        if kind == "item":
            hrefs = {band: f"{band}.tif" for band in ("B03", "B04")}
            item(tmp_path / "in" / name / "item.json", hrefs, **{"s2:product_uri": name})
    archive = paint.tile(tmp_path / "in", tmp_path / "out")
    pixels, valid = archive.read(0)
    assert valid.all() and (pixels[0] == whole[0]).all()
    assert archive.manifest["n_rejected"] == 0


def test_parts_that_were_corrected_a_little_differently_are_parts(
    tmp_path: Path, paint: Any
) -> None:
    whole = np.random.default_rng(0).integers(500, 3000, (1, 128, 128)).astype("uint16")
    for made, gone, more in ((EARLY, slice(70, None), 0), (LATE, slice(None, 40), 9)):
        part = whole + np.uint16(more)
        part[:, gone] = 0
        bands(tmp_path / "in" / product(made=made), paint, part)
    archive = paint.tile(tmp_path / "in", tmp_path / "out")
    assert archive.read(0)[1].all() and archive.manifest["n_rejected"] == 0


def test_a_level_1_scene_beside_half_of_the_ground_fills_only_the_rest(
    tmp_path: Path, paint: Any, capsys: Any
) -> None:
    half = np.full((1, 128, 128), 900, "uint16")
    half[:, :, 64:] = 0
    for band in ("B03", "B04"):
        path = tmp_path / "in" / f"20190612_L2A/{band}.tif"
        paint.scene(path, half[:, :, :64], nodata=0)
        paint.scene(
            tmp_path / "in" / f"20190612_L1C/{band}.tif",
            np.full((1, 128, 128), 1500, "uint16"),
            nodata=0,
        )
    archive = paint.tile(tmp_path / "in", tmp_path / "out")
    pixels, _ = archive.read(0)
    assert (pixels[:, :, :64] == 900).all() and (pixels[:, :, 64:] == 1500).all()
    assert "is L1C, the top of the atmosphere, beside scenes of L2A" in capsys.readouterr().err


def test_local_copies_of_an_item_s_urls_are_its_files(tmp_path: Path, paint: Any) -> None:
    folder = tmp_path / "in" / "20190612"
    bands(folder, paint, 3000)
    hrefs = {band: f"https://example.org/a/{band}.tif?token=1" for band in ("B03", "B04")}
    item(folder / "item.json", hrefs, **{"s2:processing_baseline": "05.00"})
    archive = paint.tile(tmp_path / "in", tmp_path / "out")
    assert archive.contract.offset == -1000 and archive.manifest["n_rejected"] == 0


def test_of_two_processings_of_one_baseline_the_later_counts(tmp_path: Path, paint: Any) -> None:
    painted = np.random.default_rng(0).integers(500, 3000, (1, 128, 128)).astype("uint16")
    bands(tmp_path / "in" / product(made=LATE), paint, painted + np.uint16(7))
    bands(tmp_path / "in" / product(made=EARLY), paint, painted)
    archive = paint.tile(tmp_path / "in", tmp_path / "out")
    assert (archive.read(0)[0][0] == painted[0] + 7).all()
    assert "another processing" in rejected(tmp_path / "out")[product(made=EARLY)]


def test_an_item_speaks_for_its_files(tmp_path: Path, paint: Any) -> None:
    folder = tmp_path / "in" / "20190812"
    bands(folder, paint, 3000)
    hrefs = {"B03": "./B03.tif", "B04": (folder / "B04.tif").as_uri()}
    item(folder / "item.json", hrefs, **{"s2:processing_baseline": "05.00"})
    for given in ([tmp_path / "in"], [folder / "item.json", folder], [folder, folder / "B03.tif"]):
        out = tmp_path / f"out{len(given[-1].name)}"
        archive = paint.tile(folder, out, paths=given)
        assert archive.contract.offset == -1000 and archive.manifest["n_rejected"] == 0
        assert archive.periods == ["2019-06-12"]


def test_what_an_item_hides_stays_hidden(tmp_path: Path, paint: Any) -> None:
    folder = tmp_path / "in" / "20190612"
    bands(folder, paint, 2000)
    classes = np.full((1, 128, 128), 4, "uint8")
    classes[:, :64] = 9
    paint.scene(folder / "classes.tif", classes)
    hrefs = {"B03": "B03.tif", "B04": "B04.tif", "SCL": "classes.tif"}
    item(folder / "item.json", hrefs, **{"s2:processing_baseline": "02.13"})
    archive = paint.tile(tmp_path / "in", tmp_path / "out")
    assert archive.index["valid_share"].tolist() == [0.5]


@pytest.mark.parametrize("fault", ["platform", "damaged", "asset"])
def test_the_files_of_a_refused_item_never_come_back_bare(
    tmp_path: Path, paint: Any, fault: str
) -> None:
    folder = tmp_path / "in" / "20190612"
    bands(folder, paint, 2000)
    hrefs = {"B03": "B03.tif", "B04": "gone.tif" if fault == "asset" else "B04.tif"}
    path = item(folder / "item.json", hrefs, platform="landsat-8" if fault == "platform" else "S2A")
    if fault == "damaged":
        path.write_text(path.read_text()[:-3])
    paint.scene(tmp_path / "in" / "b_2020.tif", paint.pixels((2, 128, 128)), names=["B03", "B04"])
    archive = paint.tile(tmp_path / "in", tmp_path / "out")
    assert archive.periods == ["2020"]
    assert "20190612/item.json" in rejected(tmp_path / "out")


def test_a_band_that_an_item_does_not_name_is_named(tmp_path: Path, paint: Any) -> None:
    folder = tmp_path / "in" / "20190612"
    bands(folder, paint, 2000)
    paint.scene(folder / "B02.tif", paint.pixels((1, 128, 128)))
    item(folder / "item.json", {"B03": "B03.tif", "B04": "B04.tif"})
    archive = paint.tile(tmp_path / "in", tmp_path / "out")
    assert archive.contract.bands == ("B03", "B04")
    assert "does not name B02.tif" in rejected(tmp_path / "out")["20190612"]


@pytest.mark.parametrize(
    ("properties", "offset"),
    [
        ({"s2:processing_baseline": "05.09"}, -1000), ({"s2:processing_baseline": 5.09}, -1000),
        ({"processing:version": "05.11"}, -1000),
        ({"processing:version": "05.11", "processing:software": {"tool": "1.0"}}, -1000),
        ({"processing:version": "3.7.12", "processing:software": {"FORCE": "3.7.12"}}, 0),
        ({"processing:version": "04.00", "processing:software": {"MAJA": "04.00"}}, 0),
    ],
)  # fmt: skip
def test_a_version_is_a_baseline_where_it_is_one(
    tmp_path: Path, paint: Any, properties: Any, offset: float
) -> None:
    bands(tmp_path / "in" / "px", paint, 1500)
    path = item(tmp_path / "item.json", {"B03": "in/px/B03.tif"}, **properties)
    assert paint.tile(path, tmp_path / "out").contract.offset == offset


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("platform", "Sentinel-2A"), ("platform", "sentinel-2c"), ("constellation", "Sentinel 2"),
        ("constellation", "SENTINEL-2"), ("platform", "S2B"), ("mission", "sentinel-2"),
        ("constellation", ""), ("platform", None),
    ],
)  # fmt: skip
def test_sentinel_2_is_spelled_in_many_ways(
    tmp_path: Path, paint: Any, key: str, value: Any
) -> None:
    bands(tmp_path / "in" / "px", paint, 1500)
    path = item(tmp_path / "item.json", {"B03": "in/px/B03.tif"}, **{key: value})
    assert paint.tile(path, tmp_path / "out").n_tiles == 1


@pytest.mark.parametrize("value", ["landsat-8", "Sentinel-1A", "sentinel-3", "PlanetScope", "S2X"])
def test_other_satellites_are_refused_by_name(tmp_path: Path, paint: Any, value: str) -> None:
    from ecofm.errors import SceneError

    bands(tmp_path / "in" / "px", paint, 1500)
    path = item(tmp_path / "item.json", {"blue": "in/px/B03.tif"}, platform=value)
    with pytest.raises(SceneError, match=f"is of platform {value}; items of Sentinel-2 are read"):
        paint.tile(path, tmp_path / "out")


@pytest.mark.parametrize(
    ("key", "asset"),
    [
        ("B04_10m", {}), ("red", {}), ("B04-jp2", {}), ("b04", {}),
        ("image", {"eo:bands": [{"name": "B4"}]}), ("image", {"bands": [{"name": "B04"}]}),
        ("image", {"bands": [{"eo:common_name": "red"}]}),
    ],
)  # fmt: skip
def test_an_asset_says_its_own_scale_whatever_it_is_called(
    tmp_path: Path, paint: Any, key: str, asset: Any
) -> None:
    bands(tmp_path / "my scene", paint, 3000)
    said = {"raster:scale": 1e-4, "raster:offset": -0.1, **asset}
    path = item(tmp_path / "item.json", {key: "my%20scene/B04.tif"}, said)
    archive = paint.tile(path, tmp_path / "out")
    assert archive.contract.bands == ("B04",) and archive.contract.offset == -1000


def test_a_picture_is_no_band(tmp_path: Path, paint: Any) -> None:
    from ecofm.errors import SceneError

    paint.scene(tmp_path / "TCI.tif", paint.pixels((3, 128, 128), "uint8"))
    names = {"eo:bands": [{"name": name} for name in ("B04", "B03", "B02")], "roles": ["visual"]}
    path = item(tmp_path / "item.json", {"TCI_10m": "TCI.tif"}, names)
    with pytest.raises(SceneError, match="has no asset with a band of Sentinel-2"):
        paint.tile(path, tmp_path / "out")
