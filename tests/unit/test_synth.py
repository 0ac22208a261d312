"""The synthetic country: what it promises, computed from the written scenes."""

import hashlib
from dataclasses import replace
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.gridspec import GridSpec
from rasterio.transform import Affine
from scipy.stats import norm, rankdata, spearmanr

from ecofm.synth import (
    AnnotatorConfig,
    CountryConfig,
    annotator_noise,
    generate_country,
    simulate_comparisons,
    simulate_orderings,
)
from ecofm.synth.imagery import BANDS

# Not used while tuning. 16 by 16 cells are enough for the correlations, two periods of which
# the second is the early spring.
UNSEEN_SEED = 20_241
LAYOUT = CountryConfig(seed=UNSEEN_SEED, n_cells=16, periods=("2019", "2020"))
TINY = CountryConfig(seed=5, n_cells=4, cell_px=64, periods=("2019", "2020"))


@pytest.fixture(scope="module")
def country(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate_country(tmp_path_factory.mktemp("country"), LAYOUT)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate_country(tmp_path_factory.mktemp("tiny"), TINY)


@pytest.fixture(scope="module")
def truth(country: Path) -> pd.DataFrame:
    return pd.read_parquet(country / "truth.parquet")


@pytest.fixture(scope="module")
def tiles(country: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Reflectance and validity of each tile, in the order of the truth."""
    out = []
    for period in LAYOUT.periods:
        numbers, valid = _mosaic(country, period)
        size = LAYOUT.cell_px
        for row in range(LAYOUT.n_cells):
            for col in range(LAYOUT.n_cells):
                window = np.s_[row * size : (row + 1) * size, col * size : (col + 1) * size]
                pixels = numbers[(slice(None), *window)].astype(np.float32)
                out.append(((pixels - 1000) / 10_000, valid[window]))
    return out


def _mosaic(country: Path, period: str) -> tuple[np.ndarray, np.ndarray]:
    """The two granules of a period side by side: the west on top."""
    with (
        rasterio.open(country / "scenes" / f"{period}_west.tif") as west,
        rasterio.open(country / "scenes" / f"{period}_east.tif") as east,
    ):
        start = round((east.bounds.left - west.bounds.left) / 10)
        numbers = np.concatenate([west.read()[:, :, :start], east.read()], axis=2)
        mask = np.concatenate([west.dataset_mask()[:, :start], east.dataset_mask()], axis=1)
    return numbers, mask > 0


def _statistics(reflectance: np.ndarray, valid: np.ndarray) -> dict[str, float]:
    """What a sceptic would try first; nothing where a tile is mostly cloud."""
    if valid.mean() < 0.3:
        return {}
    means = dict(zip(BANDS, reflectance[:, valid].mean(axis=1), strict=True))
    out = {f"mean {band}": float(value) for band, value in means.items()}
    for a, b in (("B02", "B04"), ("B03", "B04"), ("B02", "B03"), ("B11", "B08")):
        out[f"{a}-{b}"] = float(means[a] - means[b])
        out[f"{a}/{b}"] = float(means[a] / means[b])
    for name, a, b in (("NDVI", 7, 3), ("NDBI", 10, 7)):
        out[name] = float(
            ((reflectance[a] - reflectance[b]) / (reflectance[a] + reflectance[b]))[valid].mean()
        )
    for band in ("B02", "B03", "B04", "B08", "B11"):
        image = reflectance[BANDS.index(band)]
        squares = (
            np.lib.stride_tricks.sliding_window_view(image, (8, 8))[::8, ::8],
            np.lib.stride_tricks.sliding_window_view(valid, (8, 8))[::8, ::8],
        )
        clear = squares[1].all(axis=(2, 3))
        out[f"local variance {band}"] = float(squares[0].var(axis=(2, 3))[clear].mean())
        step = np.diff(image, axis=1)[:-1] ** 2 + np.diff(image, axis=0)[:, :-1] ** 2
        out[f"gradient energy {band}"] = float(step[valid[:-1, :-1]].mean())
    return out


def _partial(a: pd.Series, b: pd.Series, given_: pd.Series) -> float:
    """Spearman's partial rank correlation."""
    r = np.corrcoef([rankdata(a), rankdata(b), rankdata(given_)])
    return (r[0, 1] - r[0, 2] * r[1, 2]) / np.sqrt((1 - r[0, 2] ** 2) * (1 - r[1, 2] ** 2))


def test_the_same_config_gives_the_same_bytes(tiny: Path, tmp_path: Path) -> None:
    again = generate_country(tmp_path, TINY)
    files = sorted(p.relative_to(tiny) for p in tiny.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(again) for p in again.rglob("*") if p.is_file())
    assert len(files) == 3 + 2 * len(TINY.periods)
    for file in files:
        hashes = [hashlib.sha256((root / file).read_bytes()).digest() for root in (tiny, again)]
        assert hashes[0] == hashes[1], file


def test_another_seed_gives_another_country(tiny: Path, tmp_path: Path) -> None:
    other = generate_country(tmp_path, CountryConfig(seed=6, n_cells=4, cell_px=64, periods=("a",)))
    first, _ = _mosaic(tiny, "2019")
    second, _ = _mosaic(other, "a")
    assert (first != second).mean() > 0.9


def test_the_default_country_looks_as_it_always_did(tiny: Path) -> None:
    """Band means of both periods, and development; remake with `_mosaic(tiny, ...)`."""
    table = pd.read_parquet(tiny / "truth.parquet")
    assert table.development.mean() == pytest.approx(0.78586, abs=1e-4)
    assert table.development.std() == pytest.approx(0.55123, abs=1e-4)
    with rasterio.open(tiny / "scenes" / "2019_east.tif") as scene:
        found = scene.read().mean(axis=(1, 2))
    known = [2518.03, 2455.40, 2501.18, 2459.31, 2681.71, 3375.89]
    np.testing.assert_allclose(found[:6], known, atol=0.5)
    with rasterio.open(tiny / "scenes" / "2020_west.tif") as scene:
        found = scene.read().mean(axis=(1, 2))
    known = [3542.97, 3705.91, 3825.91, 3872.84, 3901.81, 3447.11]
    np.testing.assert_allclose(found[6:], known, atol=0.5)


def test_climate_style_and_sensor_change_looks_and_not_the_layout(
    tiny: Path, tmp_path: Path
) -> None:
    first, _ = _mosaic(tiny, "2019")
    development = pd.read_parquet(tiny / "truth.parquet").development
    for name, value in (("climate", "arid"), ("style", "southern"), ("sensor", "second")):
        config = replace(TINY, **{name: value})
        other = generate_country(tmp_path / value, config)
        found, _ = _mosaic(other, "2019")
        assert (found != first).mean() > 0.02, name
        truth_ = pd.read_parquet(other / "truth.parquet").development
        assert spearmanr(truth_, development)[0] > (0.999 if name == "sensor" else 0.6), name
    arid, _ = _mosaic(tmp_path / "arid", "2019")
    greenness = [(x[7] - x[3]).astype(float).mean() for x in (first.astype(int), arid.astype(int))]
    assert greenness[1] < 0.8 * greenness[0]


def test_cells_are_those_of_the_grid(tiny: Path) -> None:
    grid = GridSpec("EPSG:32652", tile_shape=(TINY.cell_px, TINY.cell_px), resolution=10)
    with rasterio.open(tiny / "scenes" / "2019_west.tif") as west:
        corner = west.transform @ (0.5, 0.5)
        assert west.crs == "EPSG:32652"
        x, y = grid.pt2idx(*corner).xy
    table = pd.read_parquet(tiny / "truth.parquet")
    # The first row of the truth is the north-western cell.
    assert table.cell_id[0] == f"32652_{y}_{x}"
    box = grid[x, y]
    assert west.transform @ (0, 0) == pytest.approx(box.affine @ (0, 0))
    assert west.transform[0] == 10


@pytest.mark.parametrize("cell_px", [32, 64, 128])
def test_granules_overlap_and_do_not_end_at_a_cell(cell_px: int, tmp_path: Path) -> None:
    config = CountryConfig(n_cells=4, cell_px=cell_px, periods=("2019",))
    generate_country(tmp_path, config)
    with (
        rasterio.open(tmp_path / "scenes" / "2019_west.tif") as west,
        rasterio.open(tmp_path / "scenes" / "2019_east.tif") as east,
    ):
        size_m = cell_px * 10
        assert west.bounds.left % size_m == 0 == west.bounds.bottom % size_m
        assert east.bounds.right - west.bounds.left == 4 * size_m
        assert east.bounds.left % size_m and west.bounds.right % size_m
        assert west.bounds.right - east.bounds.left == 10 * min(30, cell_px // 2)
        assert west.transform == Affine(10, 0, west.bounds.left, 0, -10, west.bounds.top)


def test_scenes_say_what_they_are(tiny: Path) -> None:
    for path in (tiny / "scenes").iterdir():
        with rasterio.open(path) as scene:
            assert scene.descriptions == BANDS
            assert scene.dtypes == ("uint16",) * 12
            tags = scene.tags()
        assert tags["BOA_ADD_OFFSET"] == "-1000"
        assert tags["period"] == path.name[:4]
        assert tags["synthetic"].startswith("yes")


def test_clouds_are_masked_bright_and_move(country: Path) -> None:
    masks = []
    for period in LAYOUT.periods:
        numbers, valid = _mosaic(country, period)
        assert 0.05 <= 1 - valid.mean() <= 0.10
        assert not list((country / "scenes").glob("*.msk"))
        blue = numbers[1]
        assert np.median(blue[~valid]) > np.quantile(blue[valid], 0.99)
        assert numbers.min() > 0
        masks.append(~valid)
    assert (masks[0] & masks[1]).sum() < 0.5 * masks[0].sum()


def test_one_granule_of_the_second_period_has_other_colours(country: Path) -> None:
    with (
        rasterio.open(country / "scenes" / "2020_west.tif") as west,
        rasterio.open(country / "scenes" / "2020_east.tif") as east,
    ):
        both = round((west.bounds.right - east.bounds.left) / 10)
        a = west.read()[:, :, -both:].mean(axis=(1, 2)) - 1000
        b = east.read()[:, :, :both].mean(axis=(1, 2)) - 1000
    assert 0.02 < np.abs(a / b - 1).max() < 0.25


def test_districts_are_whole_cells_and_a_third_is_held_out(country: Path) -> None:
    table = pd.read_parquet(country / "truth.parquet")
    regions = gpd.read_file(country / "districts.gpkg")
    assert regions.crs == "EPSG:32652"
    cell_m2 = (LAYOUT.cell_px * 10) ** 2
    first = table[table.period == "2019"]
    counts = first.groupby("district").size()
    areas = regions.set_index("region").area / cell_m2
    pd.testing.assert_series_equal(
        counts.astype(float), areas, check_names=False, check_index_type=False
    )
    assert regions.geometry.geom_type.eq("Polygon").all()
    by_district = first.groupby("district").held_out
    assert (by_district.nunique() == 1).all()
    assert 0.2 < by_district.first().mean() < 0.45
    census = pd.read_csv(country / "census.csv")
    assert set(census.region) == set(regions.region)
    assert len(census) == len(regions) * len(LAYOUT.periods)
    assert (census[["population", "establishments", "employees"]] > 0).all(axis=None)


def test_census_follows_development(country: Path, truth: pd.DataFrame) -> None:
    census = pd.read_csv(country / "census.csv", dtype={"period": str})
    total = truth.groupby(["district", "period"]).development.sum()
    counts = census.set_index(["region", "period"]).loc[total.index]
    for name in ("establishments", "employees"):
        assert spearmanr(total, counts[name])[0] > 0.5


def test_a_tiny_country_is_whole(tmp_path: Path) -> None:
    config = CountryConfig(n_cells=4, cell_px=32, periods=("2019", "2020"))
    table = pd.read_parquet(generate_country(tmp_path, config) / "truth.parquet")
    assert table.district.nunique() >= 2
    assert 0 < table.held_out.mean() < 1
    assert table.development.std() > 0.1
    assert table.cell_id.nunique() == 16


def test_progress_ends_at_its_total(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    config = CountryConfig(n_cells=2, cell_px=32, periods=("2019",))
    generate_country(tmp_path, config, lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == list(range(1, seen[-1][1] + 1))


@pytest.mark.parametrize(
    "wrong",
    [
        {"n_cells": 1},
        {"cell_px": 33},
        {"periods": ()},
        {"periods": ("a", "a")},
        {"climate": "polar"},
        {"style": "gothic"},
        {"sensor": "third"},
    ],
)
def test_impossible_countries_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError):
        CountryConfig(**wrong)


def test_development_is_not_built_share(truth: pd.DataFrame) -> None:
    for _, table in truth.groupby("period"):
        assert _partial(table.development, table.building_quality, table.built_share) >= 0.3
        assert spearmanr(table.development, table.built_share)[0] < 0.85
        # What is left after built share is explained by things that can be seen.
        visible = sum(
            rankdata(table[name]) for name in ("building_quality", "road_density", "mechanisation")
        )
        assert _partial(table.development, visible, table.built_share) >= 0.5


def test_development_varies_everywhere_and_grows_in_places(truth: pd.DataFrame) -> None:
    first = truth[truth.period == "2019"]
    empty = (first.built_share < 0.002) & (first.field_share < 0.4)
    assert 0.10 < empty.mean() < 0.40
    assert first.development[empty].median() < first.development.quantile(0.3)
    table = truth.pivot(index="cell_id", columns="period", values="development")
    change = table.iloc[:, -1] - table.iloc[:, 0]
    assert 0.02 < (change > 0.05).mean() < 0.5
    assert change.abs().median() < 0.02


def test_colour_and_energy_do_not_give_development_away(
    truth: pd.DataFrame, tiles: list[tuple[np.ndarray, np.ndarray]]
) -> None:
    table = pd.DataFrame([_statistics(*tile) for tile in tiles])
    for rows in (slice(None), *(truth.period == p for p in LAYOUT.periods)):
        for name in table:
            rho = spearmanr(table[name][rows], truth.development[rows], nan_policy="omit")[0]
            limit = 0.7 if "variance" in name or "energy" in name else 0.6
            assert abs(rho) < limit, f"{name}: {rho:.2f}"


def test_annotators_err_at_the_known_rates() -> None:
    rng = np.random.default_rng(0)
    development = dict(zip(map(str, range(400)), rng.normal(3.0, 2.0, 400), strict=True))
    pairs = [tuple(map(str, rng.choice(400, 2, replace=False))) for _ in range(20_000)]
    config = AnnotatorConfig(noise=0, tie_width=0, lapse_rate=0.3, skip_rate=0.1)
    table = simulate_comparisons(pairs, development, config, seed=1)
    assert list(table.columns) == ["annotator", "left", "right", "outcome"]
    assert (table.outcome == "skip").mean() == pytest.approx(0.1, abs=0.01)
    assert (table.outcome == "tie").mean() == pytest.approx(0.1, abs=0.01)
    gap = table.left.map(development) - table.right.map(development)
    judged = table.outcome.isin(["left", "right"])
    wrong = (table.outcome == "left") != (gap > 0)
    assert (wrong & judged).mean() == pytest.approx(0.1, abs=0.01)


def test_noise_of_each_annotator_is_recovered() -> None:
    config = AnnotatorConfig(n_annotators=4, tie_width=0, lapse_rate=0, skip_rate=0)
    development = {"a": 0.4, "b": 0.0, "c": 1.0, "d": -1.0}
    unit = np.std(list(development.values()))
    table = simulate_comparisons([("a", "b")] * 40_000, development, config, seed=3)
    right = table.groupby("annotator").outcome.agg(lambda o: (o == "left").mean())
    noise = annotator_noise(config, seed=3)
    assert noise.nunique() == 4
    expected = norm.cdf(0.4 / unit / (np.sqrt(2) * noise))
    np.testing.assert_allclose(right[noise.index], expected, atol=0.02)


@settings(max_examples=25)
@given(width=st.floats(0, 1), seed=st.integers(0, 2**31))
def test_ties_are_those_within_the_width(width: float, seed: int) -> None:
    config = AnnotatorConfig(noise=0, lapse_rate=0, skip_rate=0, tie_width=width)
    rng = np.random.default_rng(seed)
    development = dict(zip("abcdefgh", rng.normal(size=8), strict=True))
    pairs = [(a, b) for a in development for b in development if a < b]
    table = simulate_comparisons(pairs, development, config, seed)
    unit = np.std(list(development.values()))
    gap = (table.left.map(development) - table.right.map(development)) / unit
    assert ((table.outcome == "tie") == (gap.abs() < width)).all()
    assert (gap[table.outcome == "left"] > 0).all()
    assert (gap[table.outcome == "right"] < 0).all()


def test_repeats_ask_different_annotators() -> None:
    config = AnnotatorConfig(n_annotators=4, n_repeats=3)
    table = simulate_comparisons([("a", "b"), ("b", "c")], dict(a=0, b=1, c=2), config, 0)
    assert len(table) == 6
    assert not table.duplicated(["annotator", "left", "right"]).any()
    assert simulate_comparisons([], {"a": 0.0}, config, 0).empty


def test_orderings_parse_and_agree_with_the_truth() -> None:
    rng = np.random.default_rng(0)
    values = {str(k): rng.normal(k, 0.5, 30).tolist() for k in range(8)}
    table = simulate_orderings(values, AnnotatorConfig(n_annotators=6), seed=0)
    assert list(table.columns) == ["annotator", "ordering"]
    assert table.annotator.nunique() == len(table) == 6
    for ordering in table.ordering:
        tiers = [tier.split("=") for tier in ordering.split(">")]
        assert sorted(item for tier in tiers for item in tier) == sorted(values)
        place = {item: -k for k, tier in enumerate(tiers) for item in tier}
        assert spearmanr([place[str(k)] for k in range(8)], range(8))[0] > 0.9
    assert table.equals(simulate_orderings(values, AnnotatorConfig(n_annotators=6), seed=0))


def test_wide_ties_make_one_tier_and_bad_items_are_refused() -> None:
    values = {"a": [0.0, 1.0], "b": [0.5], "c": [2.0]}
    table = simulate_orderings(values, AnnotatorConfig(tie_width=1e9), seed=0)
    assert (table.ordering.str.count("=") == 2).all()
    for bad in ({"a": []}, {"a>b": [1.0]}):
        with pytest.raises(ValueError, match="item"):
            simulate_orderings(bad, AnnotatorConfig(), seed=0)
    with pytest.raises(ValueError, match="n_repeats"):
        AnnotatorConfig(n_annotators=2, n_repeats=3)
