"""Real mosaics and scenes, where the data lie at ../shared/data or $ECOFM_DATA."""

from __future__ import annotations

import csv
import gzip
import os
from pathlib import Path
from typing import Any

import pytest
import rasterio

from ecofm.tiles.fetch import SETS, fetch

DATA = Path(os.environ.get("ECOFM_DATA", Path(__file__).parents[4] / "shared" / "data"))


def require(name: str) -> Path:
    if not (DATA / name).is_dir():
        pytest.skip(f"no real data at {DATA / name}")
    return DATA / name


def test_kosan_is_cut_into_the_cells_of_the_reference_study(tmp_path: Path, paint: Any) -> None:
    folder = require("kosan")
    archive = paint.tile(folder, tmp_path / "out", grid="xyz:14")
    counts = archive.index["period"].value_counts().to_dict()
    assert counts == {"2016": 106, "2017": 106, "2018": 106, "2019": 97}
    assert (archive.index["valid_share"] == 1).all()
    assert archive.contract.bands == ("red", "green", "blue") and archive.contract.dtype == "uint8"
    assert archive.attribution.endswith("2016 2017 2018 2019")
    with gzip.open(require("nk_tables") / "tiles.csv.gz", "rt") as file:
        expected = {row["y_x"] for row in csv.DictReader(file) if row["county"] == "0"}
    assert set(archive.index["cell_id"]) == expected
    with rasterio.open(folder / "S2_RGB_2016.tif") as dataset:
        row, column = dataset.index(*archive_corner(archive, 0))
        window = rasterio.windows.Window(column, row, 256, 256)
        assert dataset.read(window=window).tobytes() == archive.read(0)[0].tobytes()


def archive_corner(archive: Any, tile_index: int) -> tuple[float, float]:
    """Return the middle of a tile's top left pixel, by the formulas of web-mercator tiles."""
    y, x = map(int, archive.index["cell_id"][tile_index].split("_"))
    side = 2 * 20037508.342789244 / 2**14
    pixel = side / 256
    return x * side - 20037508.342789244 + pixel / 2, 20037508.342789244 - y * side - pixel / 2


@pytest.mark.parametrize("name", ["boadella", "bolzano"])
def test_other_scenes_are_tiled(tmp_path: Path, paint: Any, name: str) -> None:
    archive = paint.tile(require(name), tmp_path / "out", grid="utm:1280")
    assert archive.manifest["n_rejected"] == 0
    expected = {
        "boadella": ["2020-01-13", "2020-01-18", "2021-06-26", "2022-06-01"],
        "bolzano": ["2022-06-12"],
    }
    assert archive.periods == expected[name]
    assert archive.contract.dtype == {"boadella": "int16", "bolzano": "uint16"}[name]
    place = {"boadella": (2.8, 42.3), "bolzano": (11.3, 46.5)}[name]
    centre = archive.index.geometry.union_all().centroid
    assert abs(centre.x - place[0]) < 0.3 and abs(centre.y - place[1]) < 0.3
    for tile_index in range(archive.n_tiles):
        archive.read(tile_index)
    assert (archive.index["valid_share"] > 0.99).any()
    if name == "boadella":
        shares = archive.index.groupby("cell_id")["valid_share"]
        assert (shares.max() - shares.min()).max() < 0.05, "one footprint in four dates"


@pytest.mark.parametrize("name", ["boadella", "bolzano"])
def test_the_published_checksums_are_those_of_these_copies(tmp_path: Path, name: str) -> None:
    for file in SETS[name].files:
        (tmp_path / file).symlink_to(require(name) / file)
    fetch(name, tmp_path)
    assert (tmp_path / "registry.txt").read_text().count(" sha256:") == len(SETS[name].files)
