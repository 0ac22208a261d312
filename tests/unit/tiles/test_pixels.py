"""Pixels: copied when aligned, right within a pixel when not, and nodata never bleeds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from pyproj import Transformer

from ecofm.errors import SceneError
from ecofm.grid import Grid
from ecofm.meridian import middle_of
from ecofm.tiles import pixels as reading
from ecofm.tiles.assembly import SceneOptions
from ecofm.tiles.pixels import read_chip, read_onto
from ecofm.tiles.products import read_scene
from ecofm.tiles.rasters import Rasters

CELL = Grid("utm:1280").cell("32652_3375_250").geobox


def read(path: Path, target: GeoBox = CELL) -> tuple[Any, Any]:
    scene = read_scene(path, path.name, SceneOptions(period="2019"))
    with Rasters() as rasters:
        return read_onto(scene, target, rasters)


def no_resampling(*_: Any, **__: Any) -> None:
    raise AssertionError("an aligned scene was resampled")


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16"])
@pytest.mark.parametrize("shift_px", [0.0, 0.0009, -0.0009])
def test_an_aligned_scene_is_copied(
    tmp_path: Path, paint: Any, dtype: str, shift_px: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "reproject", no_resampling)
    pixels = paint.pixels((5, 200, 300), dtype)
    x, y = paint.corner
    path = paint.scene(tmp_path / "a.tif", pixels, corner=(x - 400 + 10 * shift_px, y + 300))
    found, valid = read(path)
    assert found.dtype == dtype and valid.all()
    assert found.tobytes() == pixels[:, 30:158, 40:168].tobytes()


def test_a_scene_that_ends_inside_a_cell_is_copied_as_far_as_it_goes(
    tmp_path: Path, paint: Any
) -> None:
    pixels = paint.pixels((2, 50, 40))
    x, y = paint.corner
    found, valid = read(paint.scene(tmp_path / "a.tif", pixels, corner=(x - 100, y + 200)))
    assert found[:, :30, :30].tobytes() == pixels[:, 20:, 10:].tobytes()
    assert valid[:30, :30].all() and valid.sum() == 900
    assert not found[:, ~valid].any()


@pytest.mark.parametrize(
    "transform",
    [
        Affine(0, 10, 320000, -10, 0, 4321280),  # transposed: both corners of the diagonal agree
        Affine(-10, 0, 321280, 0, -10, 4321280),  # mirrored
        Affine(10, 0, 320000, 0, 10, 4320000),  # south up
    ],
)
def test_turned_scenes_are_turned_back(tmp_path: Path, paint: Any, transform: Affine) -> None:
    assert paint.corner == (320000, 4321280)
    x, y = np.meshgrid(np.arange(128), np.arange(128))
    east = transform.a * (x + 0.5) + transform.b * (y + 0.5) + transform.c
    north = transform.d * (x + 0.5) + transform.e * (y + 0.5) + transform.f
    ground = np.stack([(east - 320000) / 10, (4321280 - north) / 10]) * 100
    path = paint.scene(tmp_path / "a.tif", ground.round().astype("uint16"), transform=transform)
    found, valid = read(path)
    assert valid[2:-2, 2:-2].all()
    inner = found[:, 2:-2, 2:-2].astype(float) / 100
    np.testing.assert_allclose(inner[0], x[2:-2, 2:-2] + 0.5, atol=0.1)
    np.testing.assert_allclose(inner[1], y[2:-2, 2:-2] + 0.5, atol=0.1)


def ground_gradient(geobox: GeoBox, longitude0: float, latitude0: float) -> Any:
    """Return two bands that grow by 100 a metre-pixel eastwards and southwards over the ground."""
    x, y = np.meshgrid(np.arange(geobox.width) + 0.5, np.arange(geobox.height) + 0.5)
    a = geobox.affine
    place = Transformer.from_crs(str(geobox.crs), 4326, always_xy=True).transform(
        a.a * x + a.b * y + a.c, a.d * x + a.e * y + a.f
    )
    east = ((place[0] - longitude0 + 180) % 360 - 180) * 111_320 * np.cos(np.radians(latitude0))
    south = (latitude0 - place[1]) * 110_900
    return 20_000 + np.stack([east, south]) * 10  # 100 a pixel of 10 m


@given(
    st.floats(-179.9, 179.9),
    st.floats(-70, 75),
    st.sampled_from(["own", "lonlat", "0 to 360", "polar", "half a pixel"]),
)
@example(179.999, -16.5, "lonlat")
@example(-179.95, -16.5, "0 to 360")
@example(179.999, -16.5, "own")
@example(-179.999, 60.0, "polar")
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_resampled_scene_is_right_within_a_pixel(
    tmp_path: Path, paint: Any, longitude: float, latitude: float, kind: str
) -> None:
    """A gradient over the ground, painted in one CRS and read in another, keeps its place."""
    (cell, *_) = [
        *Grid("utm:1280").cells(
            GeoBox((1, 1), Affine(1e-4, 0, longitude, 0, -1e-4, latitude), "EPSG:4326")
        ),
        None,
    ]
    if cell is None:
        return  # a seam between zones
    centre = middle_of(cell.polygon())
    epsg = {"lonlat": 4326, "0 to 360": 4326, "polar": 3413 if latitude > 0 else 3031}.get(
        kind, int(cell.cell_id[:5])
    )
    is_lonlat = epsg == 4326
    pixel = 10 / 111_320 if is_lonlat else 10.0
    x, y = Transformer.from_crs(4326, epsg, always_xy=True).transform(centre.x, centre.y)
    x = x % 360 if kind == "0 to 360" else x
    wide = int(220 / np.cos(np.radians(latitude))) if is_lonlat else 220
    wide, tall = (400, 400) if kind == "polar" else (wide, 220)
    off = 0.5 * pixel if kind == "half a pixel" else 0.123 * pixel
    place = Affine(pixel, 0, x - wide / 2 * pixel + off, 0, -pixel, y + tall / 2 * pixel + off)
    source = GeoBox((tall, wide), place, f"EPSG:{epsg}")
    painted = (
        (ground_gradient(source, centre.x, centre.y) / 4).clip(1, 65535).round().astype("uint16")
    )
    path = paint.scene(tmp_path / "a.tif", painted, crs=f"EPSG:{epsg}", transform=place)
    found, valid = read(path, cell.geobox)
    expected = ground_gradient(cell.geobox, centre.x, centre.y) / 4
    assert valid.mean() > 0.99
    assert np.abs(found - expected)[:, valid].max() < 25, "more than a pixel"


@given(st.floats(-0.5, 0.5), st.floats(-0.5, 0.5), st.floats(5, 20))
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_there_and_back_moves_nothing_by_more_than_a_pixel(
    tmp_path: Path, paint: Any, right: float, down: float, pixel_m: float
) -> None:
    """An edge read onto another raster and back stays where it was."""
    edge = 64
    pixels = np.full((1, 160, 160), 1000, "uint16")
    pixels[:, :, 16 + edge :] = 5000
    x, y = paint.corner
    path = paint.scene(tmp_path / "a.tif", pixels, corner=(x - 160, y + 160))
    n = int(1600 / pixel_m)
    affine = Affine(pixel_m, 0, x - 100 + right * pixel_m, 0, -pixel_m, y + 100 + down * pixel_m)
    there, valid = read(path, GeoBox((n, n), affine, "EPSG:32652"))
    middle = paint.scene(
        tmp_path / "b.tif", there, transform=affine, mask=(valid * 255).astype("uint8")
    )
    back, valid = read(middle)
    found = (back[0] > 3000) & valid
    columns = np.argmax(found[10:-10], axis=1)
    assert np.abs(columns - edge).max() <= max(1, pixel_m / 10)


@pytest.mark.parametrize("shift_m", [0.0, 5.0, 3.3])
@pytest.mark.parametrize("hidden", ["nodata", "mask", "far nodata"])
def test_what_is_invalid_is_honoured_and_never_bleeds(
    tmp_path: Path, paint: Any, shift_m: float, hidden: str
) -> None:
    dtype, fill = ("int16", -9999) if hidden == "far nodata" else ("uint16", 0)
    pixels = np.full((3, 160, 160), 4000, dtype)
    hole = np.zeros((160, 160), bool)
    hole[60:90, 70:100] = True
    pixels[:, hole] = 60000 if hidden == "mask" else fill
    options = (
        {"mask": np.where(hole, 0, 255).astype("uint8")} if hidden == "mask" else {"nodata": fill}
    )
    x, y = paint.corner
    path = paint.scene(
        tmp_path / "a.tif", pixels, corner=(x - 160 + shift_m, y + 160 - shift_m), **options
    )
    found, valid = read(path)
    assert set(np.unique(found[:, valid])) == {4000}, "the fill bled into its neighbours"
    expected = 900
    assert abs(int((~valid[4:-4, 4:-4]).sum()) - expected) <= (0 if shift_m == 0 else 130)
    assert not valid[46:72, 56:82].any()


def test_a_fill_value_in_one_band_hides_the_pixel_but_a_dark_band_does_not(
    tmp_path: Path, paint: Any
) -> None:
    for fill, is_hidden in ((-9999, True), (0, False)):
        pixels = np.full((2, 128, 128), 500, "int16")
        pixels[1, 5, 7] = fill
        _, valid = read(paint.scene(tmp_path / "a.tif", pixels, nodata=fill))
        assert valid[5, 7] == (not is_hidden) and valid.sum() == 128 * 128 - is_hidden


def test_nodata_that_the_type_cannot_hold_hides_nothing(tmp_path: Path, paint: Any) -> None:
    path = paint.scene(tmp_path / "a.tif", paint.pixels((1, 128, 128), "int16"), nodata=-9999)
    data = path.read_bytes()
    assert data.count(b"-9999\0") == 1
    for text in (b"nan\0\0\0", b"1e99\0\0", b"-1.5\0\0"):
        path.write_bytes(data.replace(b"-9999\0", text))
        assert read(path)[1].all()


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_alpha_is_a_mask_and_no_band(tmp_path: Path, paint: Any, dtype: str) -> None:
    pixels = paint.pixels((4, 128, 128), dtype)
    pixels[3] = np.iinfo(dtype).max
    pixels[3, :64] = 0
    path = paint.scene(tmp_path / "a.tif", pixels, photometric="RGB", alpha="YES")
    with rasterio.open(path) as dataset:
        assert dataset.colorinterp[3].name == "alpha"
    found, valid = read(path)
    assert len(found) == 3 and not valid[:64].any() and valid[64:].all()


def test_a_fourth_band_with_a_name_is_no_alpha(tmp_path: Path, paint: Any) -> None:
    pixels = paint.pixels((4, 128, 128), "uint8")
    pixels[3, :64] = 0
    for names, bands in ((["B02", "B03", "B04", "B08"], None), ([], ("B02", "B03", "B04", "B08"))):
        path = paint.scene(tmp_path / "a.tif", pixels, names=names)
        scene = read_scene(path, "a.tif", SceneOptions(period="2019", bands=bands))
        assert scene.bands == ("B02", "B03", "B04", "B08")
        with Rasters() as rasters:
            found, valid = read_onto(scene, CELL, rasters)
        assert valid.all() and found.tobytes() == pixels.tobytes()


def test_a_scene_beside_the_cell_has_nothing_valid(tmp_path: Path, paint: Any) -> None:
    for corner in ((400000.0, 4321280.0), (400003.0, 4321283.0)):
        _, valid = read(paint.scene(tmp_path / "a.tif", paint.pixels((1, 9, 9)), corner=corner))
        assert not valid.any()


def test_a_source_far_finer_than_the_grid_is_rejected(
    tmp_path: Path, paint: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "MAX_WINDOW_PX", 1000)
    path = paint.scene(tmp_path / "a.tif", paint.pixels((1, 128, 128)), corner=(320003, 4321280))
    with pytest.raises(SceneError, match="finer than the grid"):
        read(path)


def test_a_chip_too_large_is_rejected(
    tmp_path: Path, paint: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = paint.chip(tmp_path / "a.png")
    monkeypatch.setattr(reading, "MAX_CHIP_BYTES", 100)
    scene = read_scene(path, "a.png", SceneOptions())
    with Rasters() as rasters, pytest.raises(SceneError, match="too large"):
        read_chip(scene, rasters)


def test_bands_that_are_warped_together_have_the_bytes_of_each_alone(
    tmp_path: Path, paint: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = paint.pixels((5, 200, 200))
    pixels[:, 60:90, 60:90] = 0
    x, y = paint.corner
    place = Affine(9.3, 0.4, x + 203, -0.4, -9.3, y - 107)
    path = paint.scene(tmp_path / "a.tif", pixels, transform=place, nodata=0)
    together = read(path)
    monkeypatch.setattr(reading, "MAX_WARP_PX", 1)
    alone = read(path)
    assert together[1].any() and not together[1].all()
    for one, other in zip(together, alone, strict=True):
        assert one.tobytes() == other.tobytes()
