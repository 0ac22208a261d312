"""Items and the files beside them: damaged items, copies of URLs, and odd fields."""

from __future__ import annotations

import codecs
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ecofm.errors import SceneError

BASELINE = {"datetime": "2019-08-17T10:30:41Z", "s2:processing_baseline": "05.00"}
BANDS = ("B03", "B04")


def rejected(out: Path) -> dict[str, str]:
    return dict(pd.read_parquet(out / "rejected.parquet").to_numpy().tolist())


def bands(folder: Path, paint: Any, value: int = 3000, **options: Any) -> None:
    for band in BANDS:
        path = folder / f"{band}.tif"
        paint.scene(path, np.full((1, 128, 128), value, "uint16"), **options)


def item(path: Path, href: str = "./{}.tif", asset: Any = None, **more: Any) -> dict[str, Any]:
    """Write an item whose assets are two bands, and return it."""
    properties = {**BASELINE, **more.pop("properties", {})}
    assets = {band: {"href": href.format(band), **(asset or {})} for band in BANDS}
    head = {"type": "Feature", "stac_version": "1.0.0", "id": path.stem, **more}
    found = {**head, "properties": properties, "assets": assets}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found))
    return found


def other(folder: Path, paint: Any) -> None:
    """Write a scene that nothing is wrong with, in a folder of its own."""
    pixels = paint.pixels((2, 128, 128)) // 2
    paint.scene(folder / "good" / "b_2020.tif", pixels, names=list(BANDS))


@pytest.mark.parametrize(
    "text",
    ["", "  \n", '{"type": "Feature", "stac_version": "1', '{"assets": {"B04"', "\x1f\x8b\0\0noise",
     '{"type":"Feature","stac_version":"1.0.0","id":"x","properties":{}}',
     '{"href": "B04.tif"', '{"stac_version": "1.0.0", "type": "Feature", "assets": {}}'],
)  # fmt: skip
def test_a_damaged_item_s_folder_is_not_read_without_it(
    tmp_path: Path, paint: Any, text: str
) -> None:
    bands(tmp_path / "in" / "20190817", paint)
    (tmp_path / "in" / "20190817" / "item.json").write_text(text)
    bands(tmp_path / "in" / "x" / "20180817", paint)
    (tmp_path / "in" / "x" / "20180817.json").write_text(text)
    other(tmp_path / "in", paint)
    archive = paint.tile(tmp_path / "in", tmp_path / "out")
    assert archive.periods == ["2020"]
    reasons = rejected(tmp_path / "out")
    assert {"20190817", "20190817/item.json", "x/20180817", "x/20180817.json"} == set(reasons)
    assert "20190817/item.json" in reasons["20190817"]


@pytest.mark.parametrize(
    "text", ['{"name": "town", "bands": 3}', "[1, 2]", "7", '{"name": "cut', "not JSON at all",
             '{"assets": ["a", "b"]}', '{"type": "FeatureCollection", "features": []}',
             '{"type": "Feature", "geometry": null, "properties": {}}'],
)  # fmt: skip
def test_the_json_of_another_tool_blocks_nothing(tmp_path: Path, paint: Any, text: str) -> None:
    bands(tmp_path / "in" / "20190817", paint)
    (tmp_path / "in" / "20190817" / "metadata.json").write_text(text)
    archive = paint.tile(tmp_path / "in", tmp_path / "out")
    assert archive.periods == ["2019-08-17"] and archive.manifest["n_rejected"] == 0


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_an_item_is_read_in_any_encoding_of_json(tmp_path: Path, paint: Any, encoding: str) -> None:
    path = tmp_path / "in" / "item.json"
    bands(tmp_path / "in", paint)
    item(path)
    path.write_bytes(path.read_text().encode(encoding))
    assert paint.tile(tmp_path / "in", tmp_path / "out").contract.offset == -1000


def test_a_file_that_starts_with_two_marks_is_still_named(tmp_path: Path, paint: Any) -> None:
    bands(tmp_path / "in", paint)
    path = tmp_path / "in" / "item.json"
    item(path)
    path.write_bytes(codecs.BOM_UTF8 + codecs.BOM_UTF16_LE + path.read_bytes())
    with pytest.raises(SceneError, match=r"item\.json is no JSON, and may have been a STAC item"):
        paint.tile(tmp_path / "in", tmp_path / "out")


@pytest.mark.parametrize("form", ["item", "collection", "list", "without a type"])
def test_an_item_that_an_api_shortened_is_one(tmp_path: Path, paint: Any, form: str) -> None:
    path = tmp_path / "in" / "item.json"
    bands(tmp_path / "in", paint)
    found = item(path)
    del found["stac_version"]
    if form == "without a type":
        del found["type"]
    shapes = {"collection": {"type": "FeatureCollection", "features": [found]}, "list": [found]}
    path.write_text(json.dumps(shapes.get(form, found)))
    archive = paint.tile(tmp_path / "in", tmp_path / "out")
    assert archive.contract.offset == -1000 and archive.manifest["n_rejected"] == 0


def test_escaped_hrefs_of_a_damaged_item_are_its_files(tmp_path: Path, paint: Any) -> None:
    bands(tmp_path / "in" / "20190817" / "px", paint)
    path = tmp_path / "in" / "20190817" / "item.json"
    item(path, "./px/{}.tif")
    path.write_text(path.read_text().replace("/", "\\/")[:-3])
    other(tmp_path / "in", paint)
    assert paint.tile(tmp_path / "in", tmp_path / "out").periods == ["2020"]


URL = "https://example.org/{}"


def test_copies_beside_two_items_of_one_name_are_nobody_s(tmp_path: Path, paint: Any) -> None:
    bands(tmp_path / "in", paint)
    for year in ("2019", "2022"):
        date = {"datetime": f"{year}-08-17T10:30:41Z"}
        item(tmp_path / "in" / f"{year}.json", f"{URL.format(year)}/{{}}.tif", properties=date)
    other(tmp_path / "in", paint)
    archive = paint.tile(tmp_path / "in", tmp_path / "out")
    assert archive.periods == ["2020"]
    reasons = rejected(tmp_path / "out")
    assert set(reasons) == {"2019.json", "2022.json"}, "and the files are not read bare"
    assert "B03.tif beside it may be the copy of another item's" in reasons["2019.json"]
    one = tmp_path / "in" / "2019.json"
    with pytest.raises(SceneError, match="may be the copy of another item's"):
        paint.tile(one, tmp_path / "one")


@pytest.mark.parametrize("folder", ["", "town", "item"])
@pytest.mark.parametrize("is_collection", [False, True])
def test_copies_of_one_item_are_its_files(
    tmp_path: Path, paint: Any, folder: str, is_collection: bool
) -> None:
    """Beside it, or in a folder called as its id or its file."""
    bands(tmp_path / "in" / folder, paint)
    path = tmp_path / "in" / "item.json"
    found = item(path, URL + ".tif?token=1", id="town")
    if is_collection:
        path.write_text(json.dumps({"type": "FeatureCollection", "features": [found]}))
    archive = paint.tile(tmp_path / "in", tmp_path / "out")
    assert archive.contract.offset == -1000 and archive.manifest["n_rejected"] == 0


def test_copies_in_folders_of_ids_are_told_apart(tmp_path: Path, paint: Any) -> None:
    for year, value in (("2019", 2000), ("2022", 3000)):
        bands(tmp_path / "in" / year, paint, value)
        date = {"datetime": f"{year}-08-17T10:30:41Z"}
        item(tmp_path / "in" / f"{year}.json", f"{URL.format(year)}/{{}}.tif", properties=date)
    archive = paint.tile(tmp_path / "in", tmp_path / "out")
    assert [archive.read(n)[0].max() for n in (0, 1)] == [2000, 3000]
    assert archive.manifest["n_rejected"] == 0


@pytest.mark.parametrize("href", ["/data/of/a/{}.tif", "C:\\data\\{}.tif", "s3://x/{}.tif"])
def test_files_called_as_an_item_s_that_is_elsewhere_are_not_read_bare(
    tmp_path: Path, paint: Any, href: str
) -> None:
    bands(tmp_path / "in" / "20190817", paint)
    item(tmp_path / "in" / "20190817" / "a.json", href)
    item(tmp_path / "in" / "20190817" / "b.json", href.replace("data", "b").replace("x", "y"))
    other(tmp_path / "in", paint)
    archive = paint.tile(tmp_path / "in", tmp_path / "out")
    assert archive.periods == ["2020"]


def test_an_item_may_name_files_in_any_given_folder(tmp_path: Path, paint: Any) -> None:
    bands(tmp_path / "in" / "px", paint)
    path = tmp_path / "in" / "items" / "item.json"
    item(path, "../px/{}.tif")
    for given in (
        [path.parent, tmp_path / "in" / "px"],
        [path, tmp_path / "in" / "px" / "B03.tif"],
    ):
        archive = paint.tile(None, tmp_path / f"out-{given[0].name}", paths=given)
        assert archive.contract.offset == -1000 and archive.manifest["n_rejected"] == 0
    with pytest.raises(SceneError, match=rf"give the folder above both, {tmp_path / 'in'}"):
        paint.tile(path, tmp_path / "one")


NODATA = [{"nodata": 1}]


@pytest.mark.parametrize(
    "asset",
    [{"raster:bands": NODATA}, {"bands": NODATA}, {"nodata": 1}, {"bands": [{"nodata": "1"}]}],
)  # fmt: skip
def test_an_item_s_nodata_counts_where_its_files_are_silent(
    tmp_path: Path, paint: Any, asset: Any
) -> None:
    pixels = np.full((1, 128, 128), 2000, "uint16")
    pixels[:, :32] = 1
    for band in BANDS:
        paint.scene(tmp_path / "in" / f"{band}.tif", pixels)
    item(tmp_path / "in" / "item.json", asset=asset)
    archive = paint.tile(tmp_path / "in", tmp_path / "out")
    assert archive.index["valid_share"].tolist() == [0.75]


def test_an_item_s_nodata_against_that_of_its_file_is_refused(tmp_path: Path, paint: Any) -> None:
    bands(tmp_path / "in", paint, nodata=0)
    item(tmp_path / "in" / "item.json", asset={"nodata": 1})
    with pytest.raises(SceneError, match=r"has nodata 1 by its item and 0 in B03\.tif"):
        paint.tile(tmp_path / "in", tmp_path / "out")
    item(tmp_path / "in" / "item.json", asset={"nodata": 0})
    assert paint.tile(tmp_path / "in", tmp_path / "same").n_tiles == 1


@pytest.mark.parametrize(
    ("more", "asset"),
    [
        ({"id": "a\ud800b"}, {}), ({}, {"href": "a\0b.tif"}), ({}, {"href": "x" * 5000}),
        ({}, {"href": "y/" * 3000}), ({}, {"href": "\ud800.tif"}), ({"id": "/" * 300}, {}),
        ({"id": "a\0b"}, {}), ({"id": ["a"]}, {}), ({"links": 5}, {}), ({"collection": {}}, {}),
        ({"properties": {"processing:software": {"a": {}}, "processing:version": [1]}}, {}),
        ({"properties": {"instruments": [None, {}]}}, {}), ({}, {"nodata": {}}),
        ({}, {"raster:bands": [{"nodata": "x"}]}), ({"properties": {"gsd": []}}, {}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("is_collection", [False, True])
def test_one_odd_item_does_not_end_the_run(
    tmp_path: Path, paint: Any, more: Any, asset: Any, is_collection: bool
) -> None:
    bands(tmp_path / "in" / "odd", paint)
    path = tmp_path / "in" / "odd" / "item.json"
    found = item(path, asset=asset, **more)
    if is_collection:
        path.write_text(json.dumps({"type": "FeatureCollection", "features": [found]}))
    other(tmp_path / "in", paint)
    assert "2020" in paint.tile(tmp_path / "in", tmp_path / "out").periods


@pytest.mark.parametrize("key", ["earthsearch:boa_offset_applied", "sentinel:boa_offset_applied"])
@pytest.mark.parametrize(
    ("said", "offset"), [(True, 0), ("true", 0), ("True", 0), ("false", -1000)]
)
def test_a_text_may_say_that_the_offset_was_applied(
    tmp_path: Path, paint: Any, key: str, said: Any, offset: float
) -> None:
    bands(tmp_path / "in", paint)
    item(tmp_path / "in" / "item.json", properties={key: said})
    assert paint.tile(tmp_path / "in", tmp_path / "out").contract.offset == offset


def test_assets_of_another_name_are_read_as_the_reason_advises(tmp_path: Path, paint: Any) -> None:
    bands(tmp_path / "in", paint)
    path = tmp_path / "in" / "item.json"
    found = item(path)
    keys = {"boa-green": "B03", "boa-red": "B04", "oa_fmask": "B03"}
    found["assets"] = {key: found["assets"][band] for key, band in keys.items()}
    path.write_text(json.dumps(found))
    with pytest.raises(SceneError, match="--bands B03=boa-green,B04=boa-red"):
        paint.tile(path, tmp_path / "out")
    advised = ("B03=boa-green", "B04=boa-red")
    archive = paint.tile(path, tmp_path / "advised", bands=advised)
    assert archive.contract.bands == BANDS and archive.contract.offset == -1000


@pytest.mark.parametrize(
    ("properties", "more", "found"),
    [
        ({"instruments": ["oli", "tirs"]}, {}, "instruments oli, tirs"),
        ({"instruments": ["tm"]}, {}, "instruments tm"),
        ({}, {"collection": "landsat-c2-l2"}, "collection landsat-c2-l2"),
        ({}, {"collection": "HLSL30.v2.0"}, "collection HLSL30"), ({"gsd": 30}, {}, "gsd 30"),
    ],
)  # fmt: skip
def test_another_satellite_is_known_without_its_platform(
    tmp_path: Path, paint: Any, properties: Any, more: Any, found: str
) -> None:
    bands(tmp_path / "in", paint)
    path = tmp_path / "in" / "item.json"
    item(path, properties=properties, **more)
    with pytest.raises(SceneError, match=f"is of {found}"):
        paint.tile(path, tmp_path / "out")
    item(path, properties={**properties, "platform": "sentinel-2a"}, **more)
    assert paint.tile(path, tmp_path / "stated").n_tiles == 1
