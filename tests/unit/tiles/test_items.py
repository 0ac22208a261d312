"""Files of many items, catalogs, and links inside SAFE and STAC folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ecofm.errors import SceneError
from ecofm.tiles.hashes import hash_source
from ecofm.tiles.sources import find_sources

SAFE = "S2B_MSIL2A_20220612T101559_N0400_R065_T32TPS_20220613T134800.SAFE"


def rejected(out: Path) -> dict[str, str]:
    table = pd.read_parquet(out / "rejected.parquet")
    return dict(zip(table["path"], table["reason"], strict=True))


def feature(name: str, href: str, day: str) -> dict[str, Any]:
    return {
        "type": "Feature", "stac_version": "1.0.0", "id": name, "assets": {"B04": {"href": href}},
        "properties": {"datetime": f"{day}T00:00:00Z"},
    }  # fmt: skip


def write(path: Path, found: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found))
    return path


def catalog(kind: str, *links: tuple[str, str]) -> dict[str, Any]:
    return {
        "type": kind, "stac_version": "1.0.0", "id": "c",
        "links": [{"rel": rel, "href": href} for rel, href in links],
    }  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, paint: Any) -> Path:
    """Return a folder with a raster of one cell for each of two days, and a secret beside it."""
    for seed, name in enumerate(["in/px/a.tif", "in/px/b.tif", "secret.tif"]):
        paint.scene(tmp_path / name, paint.pixels((1, 128, 128), seed=seed))
    return tmp_path / "in"


@pytest.mark.parametrize("suffix", [".json", ".geojson"])
def test_a_collection_of_items_is_a_scene_for_each(
    tmp_path: Path, paint: Any, folder: Path, suffix: str
) -> None:
    features = [
        feature("a", "px/a.tif", "2019-06-01"), feature("b", "px/b.tif", "2020-06-01"),
        feature("a", "px/b.tif", "2021-06-01"), feature("out", "../secret.tif", "2021-06-01"),
        {"type": "Feature", "id": "no item"}, 7,
    ]  # fmt: skip
    path = write(folder / f"found{suffix}", {"type": "FeatureCollection", "features": features})
    archive = paint.tile(path, tmp_path / "out")
    assert archive.periods == ["2019-06-01", "2020-06-01", "2021-06-01"]
    names = {name for name in archive.manifest["inputs"] if "#" in name}
    assert names == {f"found{suffix}#{name}" for name in ("a", "b", "a~2", "out")}
    assert "outside the given folder" in rejected(tmp_path / "out")[f"found{suffix}#out"]
    features.append(feature("new", "px/a.tif", "2022-06-01"))
    write(path, {"type": "FeatureCollection", "features": features})
    grown = paint.tile(path, tmp_path / "out", append=True)
    assert grown.n_tiles == 4 and f"found{suffix}#a" not in rejected(tmp_path / "out")


def test_masks_of_items_in_one_file(tmp_path: Path, paint: Any, folder: Path) -> None:
    found = {"type": "FeatureCollection", "features": [feature("a", "px/a.tif", "2019-06-01")]}
    path = write(folder / "found.json", found)
    mask = np.zeros((1, 128, 128), "uint8")
    mask[:, :64] = 1
    paint.scene(tmp_path / "masks" / "found" / "a.tif", mask)
    archive = paint.tile(path, tmp_path / "out", masks=tmp_path / "masks")
    assert archive.index["valid_share"].tolist() == [0.5]


def test_a_plain_geojson_and_a_json_of_anything_are_passed_over(
    tmp_path: Path, paint: Any, folder: Path
) -> None:
    write(folder / "area.geojson", {"type": "FeatureCollection", "features": [{"type": "Feature"}]})
    write(folder / "list.json", [1, 2])
    write(folder / "odd.json", {"type": "FeatureCollection", "features": 3})
    paint.tile(folder, tmp_path / "out", period="2019", composite="median", bands=("B04",))
    assert set(rejected(tmp_path / "out")) <= {"px/b.tif"}


def test_a_catalog_is_followed_inside_its_folder(tmp_path: Path, paint: Any, folder: Path) -> None:
    links = (
        ("child", "./sub/collection.json"), ("item", "https://example.org/item.json"),
        ("item", "../outside.json"), ("item", "gone.json"), ("child", "catalog.json"),
        ("self", "https://example.org/catalog.json"),
    )  # fmt: skip
    path = write(folder / "catalog.json", catalog("Catalog", *links))
    inner = catalog("Collection", ("item", "a.json"), ("item", "b/b.json"), ("child", "."))
    write(folder / "sub" / "collection.json", inner)
    write(folder / "sub" / "a.json", feature("a", "../px/a.tif", "2019-06-01"))
    write(folder / "sub" / "b" / "b.json", feature("b", "../../px/b.tif", "2020-06-01"))
    write(tmp_path / "outside.json", feature("o", "secret.tif", "2020-06-01"))
    archive = paint.tile(path, tmp_path / "out")
    assert archive.periods == ["2019-06-01", "2020-06-01"]
    assert {k for k in archive.manifest["inputs"] if "#" not in k} == {
        "sub/a.json", "sub/b/b.json",
    }  # fmt: skip
    reasons = rejected(tmp_path / "out")
    assert (
        "is a URL; give the URL of a STAC API"
        in reasons["catalog.json#https://example.org/item.json"]
    )
    assert reasons["catalog.json#../outside.json"] == "is outside the given folder"
    assert reasons["catalog.json#gone.json"] == "does not exist"
    assert reasons["sub/collection.json#."] == "is no file"
    whole = paint.tile(folder, tmp_path / "whole", period="2019", composite="median")
    assert "sub/b/b.json" in whole.manifest["inputs"], "a folder's items need no catalog"


def test_a_catalog_of_nothing_is_one_sentence(tmp_path: Path, paint: Any) -> None:
    path = write(tmp_path / "in" / "collection.json", catalog("Collection"))
    with pytest.raises(SceneError, match="holds no image"):
        paint.tile(path, tmp_path / "out")


def safe(folder: Path, paint: Any) -> Path:
    """Write a SAFE folder of two bands."""
    images = folder / SAFE / "GRANULE" / "L2A" / "IMG_DATA"
    for seed, band in enumerate(["B02", "B03"]):
        name = f"T32TPS_20220612T101559_{band}_10m.jp2"
        paint.scene(images / name, paint.pixels((1, 128, 128), seed=seed))
    (folder / SAFE / "MTD_MSIL2A.xml").write_text(
        "<a><PRODUCT_START_TIME>2022-06-12T10:15:59Z</PRODUCT_START_TIME>"
        "<BOA_ADD_OFFSET>0</BOA_ADD_OFFSET></a>"
    )
    return folder / SAFE


@pytest.mark.parametrize("what", ["band", "metadata", "folder"])
@pytest.mark.parametrize("is_given", [False, True])
def test_links_in_a_safe_are_named_or_followed(
    tmp_path: Path, paint: Any, what: str, is_given: bool
) -> None:
    """Also where the SAFE itself is given: then what lies beside it is not inside."""
    product = safe(tmp_path / "in", paint)
    images = product / "GRANULE" / "L2A" / "IMG_DATA"
    place = {
        "band": images / "T32TPS_20220612T101559_B03_10m.jp2",
        "metadata": product / "MTD_MSIL2A.xml",
        "folder": images,
    }[what]
    elsewhere = tmp_path / ("in" if is_given else "store") / place.name
    elsewhere.parent.mkdir(exist_ok=True)
    place.rename(elsewhere)
    place.symlink_to(elsewhere)
    given = product if is_given else tmp_path / "in"
    with pytest.raises(SceneError, match=rf"holds a link, .*{place.name}, .*--follow-links"):
        paint.tile(given, tmp_path / "out")
    archive = paint.tile(given, tmp_path / "out", follow_links=True)
    assert archive.contract.bands == ("B02", "B03") and archive.periods == ["2022-06-12"]


def test_links_in_a_stac_folder_are_named_or_followed(
    tmp_path: Path, paint: Any, folder: Path
) -> None:
    (folder / "px" / "a.tif").unlink()
    (folder / "px" / "a.tif").symlink_to(tmp_path / "secret.tif")
    write(folder / "a.json", feature("a", "px/a.tif", "2019-06-01"))
    write(tmp_path / "elsewhere.json", feature("b", "px/b.tif", "2020-06-01"))
    (folder / "b.json").symlink_to(tmp_path / "elsewhere.json")
    # What a link leads to may be read; a path of the item's own out of the folder may not.
    write(folder / "c.json", feature("c", "../secret.tif", "2021-06-01"))
    (folder / "deep").symlink_to(tmp_path / "in" / "px")
    write(folder / "d.json", feature("d", "deep/../../secret.tif", "2021-06-01"))
    with pytest.raises(SceneError):
        paint.tile(folder / "a.json", tmp_path / "none")
    out = tmp_path / "out"
    sources = find_sources([folder])
    assert "leads out of the given folder" in sources.rejected["b.json"]
    before = hash_source(sources.found["a.json"])
    paint.scene(tmp_path / "secret.tif", paint.pixels((1, 128, 128), seed=9))
    assert hash_source(sources.found["a.json"]) == before, "what is not followed is not read"
    archive = paint.tile(folder, out, follow_links=True, bands=("B04",), period="2019")
    assert {"a.json", "b.json"} <= archive.manifest["inputs"].keys()
    reasons = rejected(out)
    assert not {"a.json", "b.json"} & {k for k, v in reasons.items() if "outside" in v}
    assert "outside the given folder" in reasons["c.json"]
    assert "outside the given folder" in reasons["d.json"]


def test_a_mask_that_leads_out_is_refused_and_not_passed_over(
    tmp_path: Path, paint: Any, folder: Path
) -> None:
    masks = tmp_path / "masks" / "px"
    masks.mkdir(parents=True)
    (masks / "a.tif").symlink_to(tmp_path / "secret.tif")
    options = {"masks": tmp_path / "masks", "period": "2019"}
    with pytest.raises(SceneError, match=r"a\.tif is a mask that leads out of .*--follow-links"):
        paint.tile(folder, tmp_path / "out", **options)
    with pytest.raises(SceneError, match="no valid pixel"):
        # The secret is above 0 everywhere, and a.tif is the scene of that cell.
        paint.tile(folder / "px" / "a.tif", tmp_path / "o2", period="2019", follow_links=True,
                   masks=masks)  # fmt: skip
