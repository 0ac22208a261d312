"""Items as the Planetary Computer, Earth Search, Collection 1 and CDSE write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

TRUE = {"B02": 0.04, "B04": 0.06, "B08": 0.3, "B11": 0.2}
GSD_M = {"B02": 10, "B04": 10, "B08": 10, "B11": 20}
UUID = "S2A_MSIL2A_20220817T103041_{baseline}_R108_T52SCG_20220817T175100"


def planetary_computer(folder: str) -> dict[str, Any]:
    """Return an item with platform and constellation spelled with blanks, and no scale anywhere."""
    product = UUID.format(baseline="N0400")
    assets = {
        band: {
            "href": f"{folder}/{band}.tif", "roles": ["data"],
            "type": "image/tiff; application=geotiff; profile=cloud-optimized",
            "gsd": GSD_M[band], "eo:bands": [{"name": band, "common_name": "x"}],
        }
        for band in TRUE
    }  # fmt: skip
    assets["SCL"] = {"href": f"{folder}/SCL.tif", "roles": ["data"]}
    assets["AOT"] = {"href": f"{folder}/none.tif", "roles": ["data"]}
    assets["visual"] = {"href": f"{folder}/none.tif", "eo:bands": [{"name": b} for b in TRUE]}
    properties = {
        "datetime": "2022-08-17T10:30:41.024000Z", "platform": "Sentinel-2A",
        "constellation": "Sentinel 2", "proj:code": "EPSG:32652", "instruments": ["msi"],
        "s2:processing_baseline": "04.00", "s2:product_uri": f"{product}.SAFE",
        "s2:datatake_type": "INS-NOBS", "s2:mgrs_tile": "52SCG",
    }  # fmt: skip
    return {"stac_version": "1.0.0", "id": product, "properties": properties, "assets": assets}


def earth_search(folder: str, *, applied: bool) -> dict[str, Any]:
    """Return an item with common names, whose bands state the offset though it was applied."""
    common = {"B02": "blue", "B04": "red", "B08": "nir", "B11": "swir16"}
    raster = [{"nodata": 0, "data_type": "uint16", "scale": 0.0001, "offset": -0.1}]
    assets: dict[str, Any] = {}
    for band, key in common.items():
        asset = {"roles": ["data", "reflectance"], "raster:bands": raster}
        assets[f"{key}-jp2"] = {**asset, "href": f"s3://sentinel-s2-l2a/{band}.jp2"}
        bands = [{"name": key, "common_name": key}]
        assets[key] = {**asset, "href": f"{folder}/{band}.tif", "eo:bands": bands}
    assets["scl"] = {"href": f"{folder}/SCL.tif", "roles": ["data", "reflectance"]}
    names = [{"name": n, "common_name": n} for n in ("red", "green", "blue")]
    assets["visual"] = {"href": f"{folder}/none.tif", "roles": ["visual"], "eo:bands": names}
    assets["thumbnail"] = {"href": f"{folder}/none.jpg", "roles": ["thumbnail"]}
    properties = {
        "datetime": "2022-08-17T10:40:00Z", "platform": "sentinel-2a",
        "constellation": "sentinel-2", "earthsearch:boa_offset_applied": applied,
        "s2:processing_baseline": "04.00", "processing:software": {"sentinel2-to-stac": "0.1.0"},
        "s2:product_uri": UUID.format(baseline="N0400") + ".SAFE", "proj:epsg": 32652,
    }  # fmt: skip
    name = "S2A_52SCG_20220817_0_L2A"
    return {"stac_version": "1.0.0", "id": name, "properties": properties, "assets": assets}


def collection_1(folder: str) -> dict[str, Any]:
    """Return an item of Element 84's Collection 1, of a scene of 2018 that was processed again."""
    found = earth_search(folder, applied=False)
    del found["properties"]["earthsearch:boa_offset_applied"]
    found["properties"] |= {
        "datetime": "2018-08-17T10:40:00Z", "s2:processing_baseline": "05.00",
        "s2:product_uri": UUID.format(baseline="N0500").replace("2022", "2018") + ".SAFE",
    }  # fmt: skip
    return {**found, "id": "S2A_T52SCG_20180817T103041_L2A"}


def copernicus(folder: str) -> dict[str, Any]:
    """Return an item of CDSE: STAC 1.1, keys with a resolution, and each band three times."""
    assets: dict[str, Any] = {}
    for band, gsd_m in GSD_M.items():
        for side_m in (10, 20, 60):
            if side_m < gsd_m:
                continue
            href = f"{folder}/{band}.tif" if side_m == gsd_m else f"{folder}/none.jp2"
            assets[f"{band}_{side_m}m"] = {
                "href": href, "gsd": side_m, "nodata": 0, "data_type": "uint16",
                "raster:scale": 0.0001, "raster:offset": -0.1, "proj:code": "EPSG:32652",
                "roles": ["data", "reflectance"], "bands": [{"name": band}],
            }  # fmt: skip
    assets["SCL_20m"] = {"href": f"{folder}/SCL.tif", "roles": ["data"], "gsd": 20}
    names = [{"name": band} for band in ("B04", "B03", "B02")]
    assets["TCI_10m"] = {"href": f"{folder}/none.jp2", "roles": ["visual"], "bands": names}
    assets["product_metadata"] = {"href": f"{folder}/MTD_MSIL2A.xml", "roles": ["metadata"]}
    properties = {
        "datetime": "2022-08-17T10:30:41.024Z", "platform": "sentinel-2a",
        "constellation": "sentinel-2", "processing:version": "05.11", "processing:level": "L2",
        "processing:software": {"eometadatatool": "250706+7e8c6d1"},
        "start_datetime": "2022-08-17T10:30:41.024Z", "end_datetime": "2022-08-17T10:30:41.024Z",
    }  # fmt: skip
    product = UUID.format(baseline="N0511")
    return {"stac_version": "1.1.0", "id": product, "properties": properties, "assets": assets}


CATALOGUES = {
    "planetary_computer": (planetary_computer, 1000, "s2:processing_baseline"),
    "earth_search_applied": (
        lambda folder: earth_search(folder, applied=True), 0, "earthsearch:boa_offset_applied",
    ),
    "earth_search": (lambda folder: earth_search(folder, applied=False), 1000, "raster:bands"),
    "collection_1": (collection_1, 1000, "raster:bands"),
    "copernicus": (copernicus, 1000, "raster:scale and raster:offset"),
}  # fmt: skip


@pytest.mark.parametrize("layout", ["one file", "collection", "folder"])
@pytest.mark.parametrize("name", CATALOGUES)
def test_each_catalogue_s_item_comes_out_with_the_true_reflectance(
    tmp_path: Path, paint: Any, name: str, layout: str
) -> None:
    write, added, source = CATALOGUES[name]
    root = tmp_path / "my data"
    x, y = paint.corner
    for band, gsd_m in {**GSD_M, "SCL": 20}.items():
        side = -(-1280 // gsd_m)
        stored = round(TRUE.get(band, 0) * 1e4) + added
        pixels = np.full((1, side, side), stored, "uint16")
        if band == "SCL":
            pixels = np.full((1, side, side), 4, "uint8")
            pixels[:, : side // 4] = 9
        place = {"transform": paint.affine(gsd_m, 0, x, 0, -gsd_m, y)}
        paint.scene(root / "px" / f"{band}.tif", pixels, nodata=0, **place)
    found = {"type": "Feature", "links": [], "geometry": None, **write("px")}
    if layout == "collection":
        found = {"type": "FeatureCollection", "features": [found]}
    path = root / "item.json"
    path.write_text(json.dumps(found))
    archive = paint.tile(root if layout == "folder" else path, tmp_path / "out")
    assert archive.contract.bands == tuple(TRUE)
    assert archive.manifest["n_rejected"] == 0
    pixels, valid = archive.read(0)
    assert 0.7 < valid.mean() < 0.8, "SCL 9 is cloud"
    means = (pixels[:, valid].mean(axis=1) + archive.contract.offset) * archive.contract.scale
    assert np.allclose(means, list(TRUE.values()), atol=2e-4)
    (decided,) = archive.manifest["radiometry"].values()
    assert source in decided
