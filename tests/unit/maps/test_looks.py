"""Looks at an archive: what the contact sheet shows, and seams where there are some."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine

from ecofm.maps import granules, looks
from ecofm.tiles.archive import Archive, open_archive
from ecofm.tiles.ingest import TileConfig, tile


def land(height: int, width: int, seed: int = 0) -> Any:
    """Return smooth land of three bands with fine noise."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / 60
    waves = np.stack([np.sin(x + n) + np.cos(0.7 * y - n) for n in range(3)])
    return (1500 + 300 * waves + random.normal(0, 30, (3, height, width))).astype("uint16")


def archive_of(
    folder: Path,
    scenes: dict[str, tuple[Any, int]],
    epsg: int = 32652,
    corner: tuple[int, int] = (320000, 4321280),
) -> Archive:
    """Tile scenes of (pixels, column of their left side) onto utm:1280."""
    (folder / "in").mkdir()
    for name, (pixels, left) in scenes.items():
        place = Affine(10, 0, corner[0] + 10 * left, 0, -10, corner[1])
        with rasterio.open(
            folder / "in" / f"{name}.tif", "w", driver="GTiff", count=3, dtype="uint16",
            height=pixels.shape[1], width=pixels.shape[2], crs=f"EPSG:{epsg}", transform=place,
            nodata=0,
        ) as file:  # fmt: skip
            file.write(pixels)
    tile([folder / "in"], folder / "out", TileConfig(grid="utm:1280", per="year"))
    return open_archive(folder / "out")


def test_a_brighter_granule_is_a_seam(tmp_path: Path) -> None:
    pixels = land(512, 1024)
    left, right = pixels[:, :, :512], pixels[:, :, 512:]
    smooth = {"a_20190601": (left, 0), "b_20190701": (right, 512), "c_2020": (pixels, 0)}
    bright = {**smooth, "b_20190701": (right + np.uint16(400), 512)}
    for name, scenes in (("smooth", smooth), ("bright", bright)):
        (tmp_path / name).mkdir()
        seams = looks.measure_seams(archive_of(tmp_path / name, scenes))
        found = seams.summary().set_index("period")
        assert found["edges"].tolist() == [4 * 7 + 3 * 8] * 2
        assert found["edges_of_other_dates"].tolist() == [4, 0]
        assert 0.5 < found["ratio"]["2020"] < 2
        ratio = found["ratio_of_other_dates"]["2019"]
        assert (ratio > 5) if name == "bright" else (ratio < 2)
        worst = seams.table.sort_values("step").tail(4)
        assert (not worst["same_dates"].any()) == (name == "bright")
        looks.draw_seams(seams, "2019")


@pytest.mark.parametrize("brighter", [0, 400])
def test_the_edge_of_a_granule_inside_tiles_is_located(tmp_path: Path, brighter: int) -> None:
    """The edge is at column 450 of the scene: in the fourth column of cells, 66 px into them."""
    pixels = land(512, 1024)
    right = pixels[:, :, 450:] + np.uint16(brighter)
    scenes = {"a_20190601": (pixels[:, :, :450], 0), "b_20190701": (right, 450)}
    archive = archive_of(tmp_path, {**scenes, "c_2020": (pixels, 0)})
    assert archive.scenes["name"].tolist() == ["a_20190601.tif", "b_20190701.tif", "c_2020.tif"]
    found = granules.measure_scene_edges(archive)
    columns = {tile_id.split("@")[0].split("_")[2] for tile_id in found["tile_id"]}
    assert set(found["period"]) == {"2019"} and columns == {"253"}
    assert len(found) == 2 * 4 and set(found["edge_px"]) == {128}, "both scenes end there"
    (ratio,) = granules.summarise(found)["ratio"]
    assert (ratio > 5) if brighter else (ratio < 2)


def test_edges_beside_the_180th_meridian_are_located(tmp_path: Path) -> None:
    """Scenes of zone 1 begin west of it; one ends 450 columns on, east of it, inside tiles."""
    pixels = land(512, 1024)
    scenes = {"a_20190601": (pixels[:, :, :450], 0)}
    scenes["b_20190701"] = (pixels[:, :, 450:] + np.uint16(400), 450)
    archive = archive_of(tmp_path, scenes, 32701, (176640, 8140800))
    outlines = dict(zip(archive.scenes["name"], archive.scenes.geometry, strict=True))
    assert outlines["a_20190601.tif"].geom_type == "MultiPolygon"
    found = granules.measure_scene_edges(archive)
    columns = {tile_id.split("@")[0].split("_")[2] for tile_id in found["tile_id"]}
    assert columns == {"141"} and len(found) == 2 * 4 and set(found["edge_px"]) == {128}
    (ratio,) = granules.summarise(found)["ratio"]
    assert ratio > 5


def test_a_slanted_edge_is_located_and_the_outer_edge_is_none(tmp_path: Path) -> None:
    """A scene in degrees ends aslant; where nothing lies beyond an edge there is no step."""
    pixels = land(512, 512)
    place = Affine(1.2e-4, 0, 126.93, 0, -0.9e-4, 39.01)
    (tmp_path / "in").mkdir()
    for name, crs, transform, more in (
        ("a_20190601", "EPSG:4326", place, 500),
        ("b_20190701", "EPSG:32652", Affine(10, 0, 320000, 0, -10, 4321280), 0),
    ):
        with rasterio.open(
            tmp_path / "in" / f"{name}.tif", "w", driver="GTiff", count=3, dtype="uint16",
            height=512, width=512, crs=crs, transform=transform, nodata=0,
        ) as file:  # fmt: skip
            file.write(pixels + np.uint16(more))
    tile([tmp_path / "in"], tmp_path / "out", TileConfig(grid="utm:1280", per="year"))
    found = granules.measure_scene_edges(open_archive(tmp_path / "out"))
    inner = found[found["scene"] == "a_20190601.tif"]
    assert len(inner) and inner["step"].median() > 3 * inner["step_beside"].median()
    assert found["edge_px"].between(1, 2 * 128 + 64).all()


def test_the_sheet_shows_each_period_and_marks_nodata(tmp_path: Path) -> None:
    pixels = land(256, 256)
    hole = pixels.copy()
    hole[:, :128, :64] = 0
    archive = archive_of(tmp_path, {"a_2019": (pixels, 0), "b_2020": (hole, 0)})
    sheet = np.asarray(looks.draw_contact_sheet(archive))
    assert sheet.shape == (2 * (14 + 128), 12 * 128, 3)
    magenta = (sheet == (255, 0, 255)).all(axis=-1)
    assert not magenta[:142].any() and 0.4 < magenta[156:].sum() / 126**2 < 0.6


def test_pictures_are_drawn_for_each_period(tmp_path: Path) -> None:
    archive = archive_of(
        tmp_path, {"a_2019": (land(256, 256), 0), "b_2020": (land(256, 256, 1), 0)}
    )
    shares = looks.draw_valid_share(archive)
    assert [axes.get_title() for axes in shares.axes][:2] == ["2019: 100.0%", "2020: 100.0%"]
    histograms = looks.draw_histograms(archive)
    assert [axes.get_title() for axes in histograms.axes] == ["band1", "band2", "band3"]
    assert [line.get_label() for line in histograms.axes[0].lines] == ["2019", "2020"]


def test_many_periods_are_picked_evenly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = land(128, 128)
    archive = archive_of(tmp_path, {f"a_{year}": (pixels, 0) for year in range(2001, 2007)})
    monkeypatch.setattr(looks, "MAX_PERIODS", 3)
    assert looks.pick_periods(archive) == ["2001", "2003", "2006"]
