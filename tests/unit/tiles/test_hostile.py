"""Hostile and broken input, all at once: the good scene is tiled, each bad one is named.

A server on this machine stands for the network, and a file beside the inputs for a secret.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ecofm.errors import SceneError

SECRET = 4242


def vrt(source: str) -> str:
    return (
        '<VRTDataset rasterXSize="128" rasterYSize="128"><SRS>EPSG:32652</SRS>'
        "<GeoTransform>320000,10,0,4321280,0,-10</GeoTransform>"
        '<VRTRasterBand dataType="UInt16" band="1"><SimpleSource>'
        f"<SourceFilename>{source}</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"
    )


def wms(url: str) -> str:
    return (
        f'<GDAL_WMS><Service name="TMS"><ServerUrl>{url}/${{z}}/${{x}}/${{y}}.png</ServerUrl>'
        "</Service><DataWindow><UpperLeftX>0</UpperLeftX><UpperLeftY>9</UpperLeftY>"
        "<LowerRightX>9</LowerRightX><LowerRightY>0</LowerRightY><TileLevel>3</TileLevel>"
        "</DataWindow><Projection>EPSG:3857</Projection><BandsCount>1</BandsCount></GDAL_WMS>"
    )


def giant() -> bytes:
    """Return a TIFF of a few hundred bytes that declares 960 GB (400,000 px a side, 3 bands)."""
    entries = [
        (256, 4, 1, 400_000), (257, 4, 1, 400_000), (258, 3, 1, 16), (259, 3, 1, 8),
        (262, 3, 1, 1), (273, 4, 1, 8), (277, 3, 1, 3), (278, 4, 1, 256), (279, 4, 1, 8),
        (284, 3, 1, 1),
    ]  # fmt: skip
    body = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return struct.pack("<2sHIH", b"II", 42, 8, len(entries)) + body + b"\0" * 4


def stac(folder: Path, name: str, href: str) -> None:
    item = {
        "type": "Feature", "stac_version": "1.0.0", "id": name, "assets": {"B04": {"href": href}},
        "properties": {"datetime": "2019-06-01T00:00:00Z"},
    }  # fmt: skip
    (folder / f"{name}.json").write_text(json.dumps(item))


def test_each_hostile_file_is_named_and_the_good_scene_is_tiled(
    tmp_path: Path, paint: Any, network: tuple[str, list[str]]
) -> None:
    url, asked = network
    secret = paint.scene(tmp_path / "secret.tif", np.full((1, 128, 128), SECRET, "uint16"))
    folder = tmp_path / "in"
    good = paint.pixels((1, 128, 128), seed=1) // 2
    good[good == SECRET] = 1
    paint.scene(folder / "good_2019.tif", good)
    hostile = {
        "vrt_2019.tif": "is no TIFF",
        "vrt_url_2019.tif": "is no TIFF",
        "wms_2019.tif": "is no TIFF",
        "real_2019.vrt": "is a VRT, which can name any file",
        "packed_2019.zip": "is a zip; unpack it",
        "giant_2019.tif": "declares 400000x400000 px in 3 bands but holds",
        "link_2019.tif": "leads out of the given folder",
        "linked": "is a link to a folder",
        "cut_2019.tif": "cannot be read as an image",
        "flipped_2019.tif": "cannot be read as an image",
        "nodata_2020.tif": "shows no valid pixel",
        "complex_2019.tif": "has numbers of type complex64",
        "undated.tif": "has no period",
        "torn_20190601.tif": "is of 2020-02-02 by its metadata and of 2019-06-01 by its name",
        "copy_2019.tif": "has the same bytes as again_2019.tif",
        "out.json": "outside the given folder",
        "web.json": "give --remote to read them",
        "curl.json": "only files and, with --remote, https are read",
        "gone.json": "does not exist",
        "noise/noise.json": "is no JSON, and may have been a STAC item",
    }
    (folder / "vrt_2019.tif").write_text(vrt(str(secret)))
    (folder / "vrt_url_2019.tif").write_text(vrt(f"/vsicurl/{url}/vrt.tif"))
    (folder / "wms_2019.tif").write_text(wms(url))
    (folder / "real_2019.vrt").write_text(vrt("../secret.tif"))
    (folder / "packed_2019.zip").write_bytes(b"PK\3\4")
    (folder / "giant_2019.tif").write_bytes(giant())
    (folder / "link_2019.tif").symlink_to(secret)
    (folder / "linked").symlink_to(tmp_path)
    deflated = {"compress": "deflate", "tiled": True, "blockxsize": 128, "blockysize": 128}
    for name in ("cut", "flipped"):
        # A cell of its own, so that no other scene hides the damage.
        corner = (paint.corner[0] + 12800 * len(name), paint.corner[1])
        path = paint.scene(folder / f"{name}_2019.tif", good, corner=corner, **deflated)
        data = bytearray(path.read_bytes())
        middle = len(data) // 2
        data[middle : middle + 64] = b"\xff" * 64
        path.write_bytes(data[: len(data) // 2] if name == "cut" else data)
    paint.scene(folder / "nodata_2020.tif", np.zeros((1, 128, 128), "uint16"), nodata=0)
    paint.scene(folder / "complex_2019.tif", np.ones((1, 128, 128), "complex64"))
    paint.scene(folder / "undated.tif", good)
    tags = {"PRODUCT_START_TIME": "2020-02-02T10:00:00Z"}
    paint.scene(folder / "torn_20190601.tif", good, tags=tags)
    path = paint.scene(folder / "again_2019.tif", good, tags={"made": "again"})
    (folder / "copy_2019.tif").write_bytes(path.read_bytes())
    stac(folder, "out", "../secret.tif")
    stac(folder, "web", f"{url}/B04.tif")
    stac(folder, "curl", f"/vsicurl/{url}/B04.tif")
    stac(folder, "gone", "none.tif")
    (folder / "noise").mkdir()
    (folder / "noise" / "noise.json").write_text('{"type": "Feature"')

    out = tmp_path / "out"
    archive = paint.tile(folder, out, bands=("B04",))
    assert archive.n_tiles == 1 and archive.manifest["n_rejected"] == len(hostile)
    table = pd.read_parquet(out / "rejected.parquet")
    found = dict(zip(table["path"], table["reason"], strict=True))
    assert set(found) == set(hostile)
    for name, reason in hostile.items():
        assert reason in found[name], name
        assert "\n" not in found[name]
    assert not (archive.read(0)[0] == SECRET).any(), "a pixel from outside the inputs"
    assert asked == [], "a connection was opened"


@pytest.mark.parametrize(
    "path", ["/vsicurl/https://example.org/a.tif", "https://example.org/a.tif", "/vsizip/a.zip"]
)
def test_paths_of_gdal_and_urls_are_no_files(tmp_path: Path, paint: Any, path: str) -> None:
    with pytest.raises(SceneError, match="does not exist; give a folder or files of imagery"):
        paint.tile(Path(path), tmp_path / "out")


def test_a_json_that_nests_without_end_is_passed_over(tmp_path: Path, paint: Any) -> None:
    paint.scene(tmp_path / "in" / "a_2019.tif", paint.pixels((1, 128, 128)))
    (tmp_path / "in" / "deep.json").write_text("[" * 200_000)
    assert paint.tile(tmp_path / "in", tmp_path / "out").n_tiles == 1


@pytest.mark.parametrize(
    "assets", [None, [], {"B04": None}, {"B04": {"href": 3}}, {"B04": {}}, {"B04": {"href": ""}}]
)
def test_a_stac_item_of_nonsense_is_named(tmp_path: Path, paint: Any, assets: Any) -> None:
    paint.scene(tmp_path / "in" / "a_2019.tif", paint.pixels((1, 128, 128)))
    item = {"type": "Feature", "stac_version": "1.0.0", "id": 7, "assets": assets}
    (tmp_path / "in" / "x").mkdir()
    (tmp_path / "in" / "x" / "item.json").write_text(json.dumps(item))
    paint.tile(tmp_path / "in", tmp_path / "out")
    assert list(pd.read_parquet(tmp_path / "out" / "rejected.parquet")["path"]) == ["x/item.json"]
