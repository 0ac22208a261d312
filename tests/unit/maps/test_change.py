"""Change: the false discovery rate holds, and every check rejects."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from shapely.geometry import box

from ecofm.artifact import Draft, read_manifest
from ecofm.errors import ArtifactError, EcofmError
from ecofm.maps.change import ChangeConfig, change, fit_noise, judge_pairs, scale_by_width
from tests.reseal import reseal

N_SIDE = 12
SHIFT = 0.7


def make_scores(
    out: Path,
    by_period: dict[str, Sequence[float]],
    width: float = 0.5,
    cell_ids: dict[str, list[str]] | None = None,
    placed: bool = True,
) -> Path:
    """Write a scores artifact: one list of scores a period, cells on a grid of N_SIDE columns."""
    rows = []
    for period, scores in by_period.items():
        for i, score in enumerate(scores):
            y, x = divmod(i, N_SIDE)
            cell_id = cell_ids[period][i] if cell_ids else f"{6300 - y}_{14000 + x}"
            outline = box(127 + 0.02 * x, 39 + 0.017 * y, 127.02 + 0.02 * x, 39.017 + 0.017 * y)
            row = {"tile_id": f"{cell_id}@{period}", "cell_id": cell_id, "period": period}
            row |= {"score": score, "lower": score - width, "upper": score + width}
            rows.append({**row, "geometry": outline if placed else None})
    table = gpd.GeoDataFrame(rows, geometry="geometry", crs="EPSG:4326")
    draft = Draft(out, stage="scores", config={}, inputs={})
    draft.extra["attribution"] = "Contains modified Copernicus Sentinel data 2016 2019"
    with draft as folder:
        table.to_parquet(folder / "scores.parquet")
    return out


def simulate_pairs(
    share: float, n_cells: int, rng: np.random.Generator
) -> tuple[gpd.GeoDataFrame, np.ndarray]:
    """Return pairs with a common shift, unit noise and growth of 4 ± 2 in a share of cells."""
    grows = rng.random(n_cells) < share
    growth = np.where(grows, rng.gamma(4, 1, n_cells), 0)
    difference = SHIFT + rng.normal(size=n_cells) + growth
    return make_pairs(difference, rng.uniform(1, 2, n_cells)), grows


def make_pairs(difference: np.ndarray, width: np.ndarray) -> gpd.GeoDataFrame:
    cell_ids = [f"c{i:05d}" for i in range(len(difference))]
    columns = {"cell_id": cell_ids, "from": "2016", "to": "2019"}
    columns |= {"difference": difference, "width": width}
    return gpd.GeoDataFrame(columns, geometry=[None] * len(difference), crs="EPSG:4326")


@pytest.mark.parametrize("n_cells", [30, 300])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.3])
def test_false_discovery_rate_holds_at_ten_percent(n_cells: int, share: float) -> None:
    """Mean false discovery proportion over 40 maps, within its Monte Carlo error (2 s.e. = .06)."""
    rng = np.random.default_rng(0)
    false_share, power, shifts = [], [], []
    for _ in range(40):
        pairs, grows = simulate_pairs(share, n_cells, rng)
        result, noise, _ = judge_pairs(pairs, ChangeConfig())
        found = (result["q"] <= 0.1).to_numpy()
        false_share.append((found & ~grows).sum() / max(found.sum(), 1))
        power.append((found & grows).sum() / max(grows.sum(), 1))
        shifts.append(noise.shift)
    assert np.mean(false_share) <= 0.1 + 0.06
    if n_cells >= 100:
        assert np.median(shifts) == pytest.approx(SHIFT, abs=0.12)
        assert share == 0 or np.mean(power) > 0.5


def test_heavy_noise_without_change_is_not_called_change() -> None:
    rng = np.random.default_rng(1)
    flagged = 0
    for _ in range(30):
        pairs = make_pairs(rng.standard_t(4, 300), np.ones(300))
        flagged += bool((judge_pairs(pairs, ChangeConfig())[0]["q"] <= 0.1).any())
    assert flagged <= 6  # 10 % nominal; the median and MAD flag 29 of 30


def test_interval_of_unchanged_cells_covers_zero_nine_times_in_ten() -> None:
    pairs, grows = simulate_pairs(0.2, 2_000, np.random.default_rng(2))
    result, _, _ = judge_pairs(pairs, ChangeConfig())
    covers = ((result["lower"] <= 0) & (result["upper"] >= 0))[~grows]
    assert covers.mean() == pytest.approx(0.9, abs=0.03)


def test_p_values_of_unchanged_cells_are_uniform() -> None:
    pairs, grows = simulate_pairs(0.2, 2_000, np.random.default_rng(3))
    result, _, _ = judge_pairs(pairs, ChangeConfig())
    assert stats.kstest(result["p"][~grows], "uniform").pvalue > 0.001


@settings(max_examples=12)
@given(
    seed=st.integers(0, 10_000),
    share=st.sampled_from([0.0, 0.2, 0.4]),
    n_cells=st.sampled_from([10, 50, 300, 5_000]),
)
def test_swapping_the_periods_flips_the_signs(seed: int, share: float, n_cells: int) -> None:
    pairs, _ = simulate_pairs(share, n_cells, np.random.default_rng(seed))
    there, noise, _ = judge_pairs(pairs, ChangeConfig())
    back, reverse, _ = judge_pairs(pairs.assign(difference=-pairs["difference"]), ChangeConfig())
    np.testing.assert_allclose(back["change"], -there["change"], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(back["lower"], -there["upper"], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(back["q"], there["q"], rtol=1e-6, atol=1e-9)
    assert reverse.shift == pytest.approx(-noise.shift, abs=1e-6)


@settings(max_examples=12)
@given(seed=st.integers(0, 10_000), scale=st.floats(0.01, 100), shift=st.floats(-5, 5))
def test_noise_follows_the_units_of_the_score(seed: int, scale: float, shift: float) -> None:
    difference = np.random.default_rng(seed).normal(size=200)
    plain, moved = fit_noise(difference), fit_noise(scale * (difference + shift))
    assert moved.scale == pytest.approx(scale * plain.scale, rel=1e-3)
    assert moved.shift == pytest.approx(scale * (plain.shift + shift), abs=1e-3 * scale)


def test_noise_scale_follows_the_interval_width_only_where_it_does() -> None:
    rng = np.random.default_rng(4)
    width = rng.uniform(0.5, 4, 2_000)
    assert scale_by_width(rng.normal(size=2_000), width) is None
    relative = scale_by_width(rng.normal(size=2_000) * width, width)
    assert relative is not None
    assert np.corrcoef(relative, width)[0, 1] > 0.95
    assert scale_by_width(rng.normal(size=100) * width[:100], width[:100]) is None
    assert scale_by_width(rng.normal(size=2_000), np.full(2_000, np.nan)) is None


def test_uneven_noise_is_judged_by_each_cells_own_scale() -> None:
    rng = np.random.default_rng(5)
    width = rng.uniform(0.5, 4, 2_000)
    pairs = make_pairs(SHIFT + rng.normal(size=2_000) * width, width)
    result, noise, follows = judge_pairs(pairs, ChangeConfig())
    assert follows
    assert noise.shift == pytest.approx(SHIFT, abs=0.1)
    assert (result["p"][width > 3] < 0.05).mean() == pytest.approx(0.05, abs=0.03)
    assert (result["p"][width < 1] < 0.05).mean() <= 0.08  # one scale for all would give 0
    _, _, follows = judge_pairs(pairs, ChangeConfig(noise_by_width=False))
    assert not follows


def test_change_writes_table_map_and_manifest(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    before = rng.normal(size=144)
    after = before + SHIFT + 0.2 * rng.normal(size=144)
    after[:20] += 2
    scores = make_scores(tmp_path / "scores", {"2016": before, "2019": after})
    out = change(scores, "2016", "2019", tmp_path / "change", ChangeConfig())
    table = gpd.read_parquet(out / "change.parquet")
    expected = ["cell_id", "from", "to", "change", "lower", "upper", "p", "q", "geometry"]
    assert list(table.columns) == expected
    assert table.crs.to_epsg() == 4326
    assert table["cell_id"].is_monotonic_increasing
    grown = {f"{6300 - i // N_SIDE}_{14000 + i % N_SIDE}" for i in range(20)}
    assert grown <= set(table["cell_id"][table["q"] <= 0.1])
    manifest = read_manifest(out, "change")
    assert manifest["shift"] == pytest.approx(SHIFT, abs=0.1)
    assert manifest["n_changed"] >= 20
    assert manifest["attribution"].startswith("Contains modified Copernicus")
    assert (out / "change.png").stat().st_size > 10_000
    first_bytes = (out / "change.parquet").read_bytes()
    assert change(scores, "2016", "2019", out, ChangeConfig()) == out
    again = change(scores, "2016", "2019", tmp_path / "again", ChangeConfig())
    assert (again / "change.parquet").read_bytes() == first_bytes
    assert (again / "change.png").read_bytes() == (out / "change.png").read_bytes()
    with pytest.raises(ArtifactError, match="--overwrite"):
        change(scores, "2019", "2016", out, ChangeConfig())


def test_scores_without_a_place_give_a_table_and_no_map(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    scores = make_scores(
        tmp_path / "s", {"a": rng.normal(size=30), "b": rng.normal(size=30)}, placed=False
    )
    out = change(scores, "a", "b", tmp_path / "change", ChangeConfig())
    assert sorted(path.name for path in out.iterdir()) == ["change.parquet", "manifest.json"]


def test_bad_input_is_refused_in_one_sentence(tmp_path: Path) -> None:
    rng = np.random.default_rng(8)
    values = list(rng.normal(size=20))
    two = make_scores(tmp_path / "two", {"2016": values, "2019": values[::-1]})
    out = tmp_path / "out"
    with pytest.raises(EcofmError, match=r"no period 2018, only 2016, 2019"):
        change(two, "2016", "2018", out, ChangeConfig())
    with pytest.raises(EcofmError, match="from and to are both 2016"):
        change(two, "2016", "2016", out, ChangeConfig())
    few = make_scores(tmp_path / "few", {"2016": values[:9], "2019": values[9:18]})
    with pytest.raises(EcofmError, match=r"only 9 cells .* fewer than 10"):
        change(few, "2016", "2019", out, ChangeConfig())
    ids = {"2016": [f"1_{i}" for i in range(20)], "2019": [f"2_{i}" for i in range(20)]}
    apart = make_scores(tmp_path / "apart", {"2016": values, "2019": values}, cell_ids=ids)
    with pytest.raises(EcofmError, match="no cell with a score in both"):
        change(apart, "2016", "2019", out, ChangeConfig())
    same = make_scores(tmp_path / "same", {"2016": values, "2019": values})
    with pytest.raises(EcofmError, match="no noise to test against"):
        change(same, "2016", "2019", out, ChangeConfig())
    broken = make_scores(tmp_path / "nan", {"2016": [np.nan, *values[1:]], "2019": values})
    with pytest.raises(EcofmError, match=r"1 scores that are not finite, first of tile 6300_14000"):
        change(broken, "2016", "2019", out, ChangeConfig())
    ids["2016"][1] = ids["2016"][0]
    twice = make_scores(tmp_path / "twice", {"2016": values, "2019": values}, cell_ids=ids)
    with pytest.raises(EcofmError, match="scores 1 cells twice, first 1_0 in period 2016"):
        change(twice, "2016", "2019", out, ChangeConfig())
    with pytest.raises(ArtifactError, match="ecofm score"):
        change(tmp_path / "nowhere", "2016", "2019", out, ChangeConfig())
    (two / "scores.parquet").write_bytes(b"PAR1 not a table")
    with pytest.raises(EcofmError, match="is damaged"):
        change(two, "2016", "2019", out, ChangeConfig())
    reseal(two)
    with pytest.raises(EcofmError, match="cannot be read"):
        change(two, "2016", "2019", out, ChangeConfig())
    assert not out.exists()


def test_config_rejects_values_that_mean_nothing() -> None:
    with pytest.raises(ValueError, match="false_discovery_rate"):
        ChangeConfig(false_discovery_rate=1.5)
    with pytest.raises(ValueError, match="min_cells"):
        ChangeConfig(min_cells=3)
