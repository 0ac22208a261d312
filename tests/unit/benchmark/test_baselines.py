"""Baselines: statistics of known images, over valid pixels only."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecofm.benchmark.baselines import image_statistics, measure_local_variance
from ecofm.errors import EcofmError, SceneError
from ecofm.types import Contract

RGB = ("red", "green", "blue")


def make_contract(bands: tuple[str, ...], scale: float = 1.0, offset: float = 0.0) -> Contract:
    n = len(bands)
    return Contract(
        bands=bands, dtype="uint16", units="digital number", scale=scale, offset=offset,
        valid_range=(0, 65535), gsd_m=10, mean=(100.0,) * n, std=(30.0,) * n,
    )  # fmt: skip


def make_archive(tiles: list[Any], contract: Contract, valid: np.ndarray | None = None) -> Any:
    """Return what `image_statistics` reads of an archive; a tile may be an error to raise."""
    names = [f"1_{i}" for i in range(len(tiles))]
    columns = {"tile_id": [f"{n}@2019" for n in names], "cell_id": names, "period": "2019"}

    def read(tile_index: int) -> tuple[np.ndarray, np.ndarray]:
        pixels = tiles[tile_index]
        if isinstance(pixels, Exception):
            raise pixels
        return pixels, np.ones(pixels.shape[1:], bool) if valid is None else valid

    index = gpd.GeoDataFrame(columns, geometry=[None] * len(tiles), crs="EPSG:4326")
    return SimpleNamespace(index=index, n_tiles=len(tiles), contract=contract, read=read)


def test_statistics_of_a_plain_tile_are_known() -> None:
    tile = np.stack([np.full((16, 16), v, np.uint16) for v in (50, 100, 150)])
    row = image_statistics(make_archive([tile], make_contract(RGB))).iloc[0]
    assert list(row[["tile_id", "cell_id", "period"]]) == ["1_0@2019", "1_0", "2019"]
    assert (row["mean_red"], row["mean_green"], row["mean_blue"]) == (50, 100, 150)
    assert row["brightness"] == pytest.approx(100)
    assert row["blue_minus_red"] == pytest.approx(100)
    assert row["blue_over_red"] == pytest.approx(3)
    assert row["saturation"] == pytest.approx(2 / 3)
    flat = row[["local_variance", "gradient_energy", "edge_density", "entropy"]]
    np.testing.assert_allclose(flat.astype(float), 0, atol=1e-9)
    assert "ndvi" not in row.index


def test_texture_of_stripes_is_known() -> None:
    stripes = np.tile(np.array([80, 120], np.uint16), (16, 8))
    row = image_statistics(make_archive([np.stack([stripes] * 3)], make_contract(RGB))).iloc[0]
    assert row["local_variance"] == pytest.approx(400)
    assert row["gradient_energy"] == pytest.approx(1600)
    assert row["edge_density"] == 1
    assert row["entropy"] == pytest.approx(1)


def test_indices_use_physical_values() -> None:
    """NDVI of digital numbers with an offset would be wrong."""
    bands = ("B02", "B03", "B04", "B08", "B11")
    values = (1500, 1500, 2000, 5000, 3000)
    tile = np.stack([np.full((8, 8), v, np.uint16) for v in values])
    contract = make_contract(bands, scale=1e-4, offset=-1000)
    row = image_statistics(make_archive([tile], contract)).iloc[0]
    assert row["ndvi"] == pytest.approx((0.4 - 0.1) / (0.4 + 0.1), abs=1e-4)
    assert row["ndbi"] == pytest.approx((0.2 - 0.4) / (0.2 + 0.4), abs=1e-4)
    assert row["mean_red"] == pytest.approx(0.1)
    assert row["mean_B08"] == pytest.approx(0.4)
    assert row["mean_B11"] == pytest.approx(0.2)


@settings(max_examples=20)
@given(seed=st.integers(0, 1000), junk=st.integers(0, 65535))
def test_invalid_pixels_say_nothing(seed: int, junk: int) -> None:
    rng = np.random.default_rng(seed)
    tile = rng.integers(50, 150, size=(3, 20, 20), dtype=np.uint16)
    valid = rng.random((20, 20)) < 0.9
    valid[:8, :8] = True
    spoiled = np.where(valid, tile, junk).astype(np.uint16)
    contract = make_contract(RGB)
    plain = image_statistics(make_archive([tile], contract, valid)).iloc[0, 3:].astype(float)
    other = image_statistics(make_archive([spoiled], contract, valid)).iloc[0, 3:].astype(float)
    np.testing.assert_allclose(plain, other)
    assert np.isfinite(plain).all()


@given(seed=st.integers(0, 1000), height=st.integers(4, 30), width=st.integers(4, 30))
def test_local_variance_is_the_mean_of_block_variances(seed: int, height: int, width: int) -> None:
    image = np.random.default_rng(seed).normal(size=(height, width)).astype(np.float32)
    blocks = [
        image[y : y + 4, x : x + 4].var()
        for y in range(0, height - 3, 4)
        for x in range(0, width - 3, 4)
    ]
    found = measure_local_variance(image, np.ones(image.shape, bool))
    assert found == pytest.approx(np.mean(blocks), rel=1e-4)


def test_a_bad_tile_is_named_and_the_others_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    tile = np.full((3, 8, 8), 100, np.uint16)
    archive = make_archive([SceneError("tile 1_0@2019 is broken"), tile], make_contract(RGB))
    calls: list[tuple[int, int]] = []
    table = image_statistics(archive, lambda done, total: calls.append((done, total)))
    assert table["brightness"].isna().tolist() == [True, False]
    assert "1_0@2019 is broken" in capsys.readouterr().err
    assert calls == [(1, 2), (2, 2)]
    with pytest.raises(EcofmError, match="no tile of the archive can be read"):
        image_statistics(make_archive([SceneError("broken")], make_contract(RGB)))


def test_tiles_without_valid_or_enough_pixels_have_no_numbers() -> None:
    tile = np.full((3, 8, 8), 100, np.uint16)
    empty = make_archive([tile], make_contract(RGB), np.zeros((8, 8), bool))
    assert image_statistics(empty).shape == (1, 3)
    small = image_statistics(make_archive([tile[:, :2, :2]], make_contract(RGB))).iloc[0]
    assert np.isnan(small["local_variance"])
    assert small["brightness"] == 100
