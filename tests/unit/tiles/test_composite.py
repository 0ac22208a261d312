"""Composites: dates made into one tile, clouds and masks left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecofm.errors import SceneError
from ecofm.tiles.composite import Dated, compose, median_of


def layers(seed: int, n: int, dtype: str = "uint16") -> list[Dated]:
    """Return n dates of (3, 5, 4) random pixels, about a third of them invalid."""
    random = np.random.default_rng(seed)
    low, high = (-900, 30000) if dtype == "int16" else (0, np.iinfo(dtype).max)
    return [
        Dated(
            f"2019-{month + 1:02d}-15",
            random.integers(low, high, (3, 5, 4)).astype(dtype),
            random.random((5, 4)) > 0.3,
        )
        for month in range(n)
    ]


@given(st.integers(0, 1000), st.integers(1, 7), st.sampled_from(["uint8", "uint16", "int16"]))
@settings(max_examples=60)
def test_the_median_is_numpy_s_over_what_is_valid(seed: int, n: int, dtype: str) -> None:
    given_layers = layers(seed, n, dtype)
    stack = np.stack([layer.pixels for layer in given_layers])
    seen = np.stack([layer.valid for layer in given_layers])
    found = median_of(stack, seen)
    for y, x in np.ndindex(5, 4):
        values = stack[seen[:, y, x], :, y, x].astype(float)
        expected = np.rint(np.median(values, axis=0)) if len(values) else np.zeros(3)
        assert np.array_equal(found[:, y, x], expected)


@given(st.integers(0, 1000), st.integers(2, 6), st.sampled_from(["first", "medoid", "best"]))
@settings(max_examples=60)
def test_a_chosen_pixel_is_one_date_s_valid_spectrum(seed: int, n: int, how: str) -> None:
    given_layers = layers(seed, n)
    spectra = [(layer.pixels.copy(), layer.valid.copy()) for layer in given_layers]
    pixels, valid, dates = compose(given_layers, how, "2019")
    assert np.array_equal(valid, np.any([seen for _, seen in spectra], axis=0))
    for y, x in np.ndindex(5, 4):
        if valid[y, x]:
            assert any(
                seen[y, x] and np.array_equal(pixels[:, y, x], values[:, y, x])
                for values, seen in spectra
            )
        else:
            assert not pixels[:, y, x].any()
    assert dates == sorted(dates) and set(dates) <= {layer.date for layer in given_layers}


def test_the_medoid_is_nearest_to_the_median_and_an_outlier_is_never_taken() -> None:
    values = (100, 110, 120, 60000)
    made = [
        Dated(f"2019-0{n + 1}-01", np.full((2, 1, 1), v, "uint16"), np.ones((1, 1), bool))
        for n, v in enumerate(values)
    ]
    pixels, _, dates = compose(made, "medoid", "2019")
    assert pixels[0, 0, 0] in (110, 120) and len(dates) == 1


def test_the_best_pixel_is_far_from_cloud_and_near_the_middle() -> None:
    def date(day: str, value: int, cloudy: bool) -> Dated:
        valid = np.ones((1, 200), bool)
        valid[:, :20] = not cloudy
        return Dated(day, np.full((1, 1, 200), value, "uint16"), valid)

    made = [date("2019-07-01", 1, True), date("2019-06-20", 2, False), date("2019-01-01", 3, False)]
    pixels, valid, dates = compose(made, "best", "2019")
    assert valid.all() and dates == ["2019-07-01", "2019-06-20"]
    assert set(pixels[0, 0, :40].tolist()) == {2}, "beside the cloud the next date is better"
    assert set(pixels[0, 0, 80:].tolist()) == {1}


def paint_dates(folder: Path, paint: Any) -> dict[str, Any]:
    """Three dates of one cell; the second one comes in two halves."""
    painted = {}
    for number, day in enumerate(["20190601", "20190611", "20190621"]):
        pixels = paint.pixels((2, 128, 128), seed=number)
        painted[day] = pixels
        if number == 1:
            left, right = pixels.copy(), pixels.copy()
            left[:, :, 64:], right[:, :, :64] = 0, 0
            paint.scene(folder / f"west_{day}.tif", left, nodata=0)
            paint.scene(folder / f"east_{day}.tif", right, nodata=0)
        else:
            paint.scene(folder / f"a_{day}.tif", pixels, nodata=0)
    return painted


def test_granules_of_a_date_are_one_before_dates_are_compared(tmp_path: Path, paint: Any) -> None:
    painted = paint_dates(tmp_path / "in", paint)
    archive = paint.tile(tmp_path / "in", tmp_path / "out", per="year", composite="median")
    assert archive.periods == ["2019"] and archive.n_tiles == 1
    expected = np.median(np.stack(list(painted.values())), axis=0)
    assert np.array_equal(archive.read(0)[0], expected)
    assert archive.index["dates"][0] == "2019-06-01,2019-06-11,2019-06-21"
    by_date = paint.tile(tmp_path / "in", tmp_path / "dates")
    assert by_date.periods == ["2019-06-01", "2019-06-11", "2019-06-21"]
    assert by_date.index["dates"].tolist() == by_date.periods
    quarter = paint.tile(tmp_path / "in", tmp_path / "q", per="quarter")
    assert quarter.periods == ["2019-Q2"] and quarter.index["dates"][0] == "2019-06-01"
    assert quarter.read(0)[0].tobytes() == painted["20190601"].tobytes()


def test_a_mask_of_the_user_hides_what_it_marks(tmp_path: Path, paint: Any) -> None:
    painted = paint_dates(tmp_path / "in", paint)
    cloud = np.zeros((1, 64, 64), "uint8")
    cloud[:, :16] = 7
    x, y = paint.corner
    from affine import Affine

    place = Affine(20, 0, x, 0, -20, y)
    paint.scene(tmp_path / "masks" / "a_20190601.tif", cloud, transform=place)
    options = {"per": "year", "composite": "first", "masks": tmp_path / "masks"}
    archive = paint.tile(tmp_path / "in", tmp_path / "out", **options)
    pixels, valid = archive.read(0)
    assert valid.all() and archive.index["dates"][0] == "2019-06-01,2019-06-11"
    assert pixels[:, :32].tobytes() == painted["20190611"][:, :32].tobytes()
    assert pixels[:, 32:].tobytes() == painted["20190601"][:, 32:].tobytes()
    assert any(name.startswith("mask:") for name in archive.manifest["inputs"])
    with pytest.raises(SceneError, match="holds no mask named as a scene"):
        (tmp_path / "none").mkdir()
        paint.tile(tmp_path / "in", tmp_path / "out2", masks=tmp_path / "none")


def test_a_cloudy_date_leaves_few_valid_pixels(tmp_path: Path, paint: Any) -> None:
    pixels = paint.pixels((3, 128, 128))
    pixels[2] = 4
    pixels[2, 20:] = 9
    paint.scene(tmp_path / "in" / "a_20190601.tif", pixels, names=["B04", "B03", "SCL"])
    archive = paint.tile(tmp_path / "in", tmp_path / "out")
    assert archive.contract.bands == ("B04", "B03")
    assert archive.index["valid_share"][0] == 20 / 128
    with pytest.raises(SceneError, match="no tile holds a valid pixel"):
        paint.tile(tmp_path / "in", tmp_path / "none", min_valid_share=0.5)
    whole = paint.tile(tmp_path / "in", tmp_path / "all", scl_masked=())
    assert whole.index["valid_share"][0] == 1


def test_a_year_is_no_quarter(tmp_path: Path, paint: Any) -> None:
    paint.scene(tmp_path / "in" / "a_2019.tif", paint.pixels((1, 128, 128)))
    with pytest.raises(SceneError, match="lies in no single quarter; give --per year"):
        paint.tile(tmp_path / "in", tmp_path / "out", per="quarter")
