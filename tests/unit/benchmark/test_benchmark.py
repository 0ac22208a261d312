"""The benchmark stage: figures of known tables, the real tables, and every refusal."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
from numpy.typing import ArrayLike
from PIL import Image
from scipy.stats import spearmanr
from shapely.geometry import box

from ecofm.artifact import Draft, read_manifest
from ecofm.benchmark.baselines import MEAN_COLOUR
from ecofm.benchmark.benchmark import BenchmarkConfig, add_baselines, benchmark
from ecofm.benchmark.contest import OURS, Contest, hold
from ecofm.benchmark.proxies import name_rival, read_proxies
from ecofm.benchmark.regions import average_regions, read_regions
from ecofm.benchmark.report import summary_table
from ecofm.errors import ArtifactError, EcofmError

N_CELLS = 60
DATA = Path(os.environ.get("ECOFM_DATA", Path(__file__).parents[4] / "shared" / "data"))
needs_data = pytest.mark.skipif(
    not (DATA / "nk_tables").is_dir(), reason=f"the real tables are not in {DATA}"
)


def rank_correlation(x: ArrayLike, y: ArrayLike) -> float:
    return float(spearmanr(x, y).statistic)


def make_scores(out: Path, by_period: dict[str, np.ndarray], cell_ids: list[str]) -> Path:
    """Write a scores artifact; cells stand in a row of ten, each .02 degrees wide."""
    places = [(127 + 0.02 * (i % 10), 39 + 0.02 * (i // 10)) for i in range(len(cell_ids))]
    outlines = [box(x, y, x + 0.02, y + 0.02) for x, y in places]
    parts = []
    for period, score in by_period.items():
        tile_ids = [f"{cell_id}@{period}" for cell_id in cell_ids]
        columns = {"tile_id": tile_ids, "cell_id": cell_ids, "period": period, "score": score}
        columns |= {"lower": score - 1, "upper": score + 1}
        parts.append(gpd.GeoDataFrame(columns, geometry=outlines, crs="EPSG:4326"))
    with Draft(out, stage="scores", config={}, inputs={}) as folder:
        pd.concat(parts, ignore_index=True).to_parquet(folder / "scores.parquet")
    return out


@pytest.fixture
def country(tmp_path: Path) -> Path:
    """Scores of two periods, and proxies that follow them with noise; a third is not built."""
    rng = np.random.default_rng(0)
    cell_ids = [f"{6300 + i // 10}_{14000 + i % 10}" for i in range(N_CELLS)]
    truth = rng.normal(size=N_CELLS)
    scores = {p: truth + 0.4 * rng.normal(size=N_CELLS) for p in ("2016", "2019")}
    make_scores(tmp_path / "scores", scores, cell_ids)
    floor = np.where(truth > -0.4, np.exp(truth + 0.4 * rng.normal(size=N_CELLS)), 0)
    table = pd.DataFrame({"cell_id": cell_ids, "floor": floor, "light": rng.normal(size=N_CELLS)})
    table["siscore_2016"] = truth + rng.normal(size=N_CELLS)
    table["siscore_2019"] = truth + rng.normal(size=N_CELLS)
    table["county"] = np.arange(N_CELLS)
    table.to_csv(tmp_path / "proxies.csv.gz", index=False)
    names = [f"district {i}" for i in range(6)]
    strips = [box(126.9, 39 + 0.02 * i, 127.3, 39.02 + 0.02 * i) for i in range(6)]
    regions = gpd.GeoDataFrame({"name": names}, geometry=strips, crs="EPSG:4326")
    regions.to_file(tmp_path / "regions.gpkg")
    return tmp_path


def run(
    folder: Path,
    proxies: str = "proxies.csv.gz",
    regions: str | None = None,
    **config: Any,
) -> dict[str, Any]:
    out = benchmark(
        folder / "scores",
        folder / proxies,
        folder / "report",
        folder / regions if regions else None,
        None,
        BenchmarkConfig(**config),
        overwrite=True,
    )
    report: dict[str, Any] = json.loads((out / "report.json").read_text())
    return report


def pick(records: list[dict[str, Any]], **wanted: Any) -> dict[str, Any]:
    """Return the only record with these values."""
    found = [r for r in records if all(r[k] == v for k, v in wanted.items())]
    assert len(found) == 1, found
    return found[0]


def test_figures_are_those_of_the_tables(country: Path) -> None:
    report = run(country, targets=["floor"], beside=["siscore_{period}", "light"])
    table = pd.read_csv(country / "proxies.csv.gz")
    scores = gpd.read_parquet(country / "scores" / "scores.parquet")
    wide = scores.pivot(index="cell_id", columns="period", values="score")
    by_cell = table.set_index("cell_id").join(wide.assign(mean=wide.mean(axis=1)))
    by_cell["siscore_mean"] = by_cell[["siscore_2016", "siscore_2019"]].mean(axis=1)
    for subset, kept in (("all", by_cell), ("floor > 0", by_cell[by_cell["floor"] > 0])):
        for period in ("2016", "2019", "mean"):
            row = {"subset": subset, "period": period, "metric": "spearman"}
            ours = pick(report["figures"], score="ecofm", **row)
            assert ours["value"] == pytest.approx(rank_correlation(kept[period], kept["floor"]))
            assert ours["lower"] < ours["value"] < ours["upper"]
            assert ours["n"] == len(kept)
            rival = pick(report["figures"], score="siscore", **row)
            expected = rank_correlation(kept[f"siscore_{period}"], kept["floor"])
            assert rival["value"] == pytest.approx(expected)
            difference = pick(report["differences"], rival="siscore", **row)
            assert difference["value"] == pytest.approx(ours["value"] - rival["value"])
    built = {"score": "ecofm", "period": "mean", "subset": "floor > 0"}
    assert pick(report["figures"], metric="r2_log", **built)["value"] > 0.3
    assert not [f for f in report["figures"] if f["metric"] == "r2_log" and f["subset"] == "all"]


def test_pictures_tables_and_manifest_are_written(country: Path) -> None:
    run(country, targets=["floor"], beside=["siscore_{period}"], regions="regions.gpkg")
    out = country / "report"
    assert read_manifest(out, "report")["inputs"].keys() == {"scores", "proxies", "regions"}
    pictures = sorted(path.name for path in out.glob("*.png"))
    assert "scatter_cell-floor-all.png" in pictures
    assert "bars_cell-floor-floor-above-0.png" in pictures
    for name in pictures:
        picture = np.asarray(Image.open(out / name).convert("RGB"))
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 20
        assert name in (out / "report.md").read_text()
    text = (out / "report.md").read_text()
    assert "| mean | 60 |" in text
    assert "ecofm less siscore" in text
    short = summary_table(out)
    assert short == summary_table(json.loads((out / "report.json").read_text()))
    assert "Spearman with floor, by cell (all)" in short
    assert short.count("\n") < 30
    first_bytes = (out / "report.json").read_bytes()
    again = benchmark(
        country / "scores", country / "proxies.csv.gz", country / "again",
        country / "regions.gpkg", None,
        BenchmarkConfig(targets=["floor"], beside=["siscore_{period}"]),
    )  # fmt: skip
    assert (again / "report.json").read_bytes() == first_bytes


def test_regions_are_area_weighted_means_of_their_cells(country: Path) -> None:
    report = run(country, targets=["light"], regions="regions.gpkg")
    scores = gpd.read_parquet(country / "scores" / "scores.parquet").query("period == '2016'")
    light = pd.read_csv(country / "proxies.csv.gz")["light"].to_numpy()
    # The cells of a strip share their latitude, and so their area.
    expected = rank_correlation(
        scores["score"].to_numpy().reshape(6, 10).mean(axis=1), light.reshape(6, 10).mean(axis=1)
    )
    found = pick(report["figures"], level="region", period="2016", score="ecofm", metric="spearman")
    assert found["n"] == 6
    assert found["value"] == pytest.approx(expected)


def test_larger_cells_weigh_more_in_their_region() -> None:
    frame = pd.DataFrame({"score": [1.0, 4.0, 7.0]}, index=["a", "b", "c"])
    placed = pd.DataFrame(
        {"region": ["r", "r", "s"], "area_m2": [2.0, 1.0, 9.0]}, index=["a", "b", "c"]
    )
    assert average_regions(frame, placed)["score"].to_dict() == {"r": 2.0, "s": 7.0}


def test_proxies_by_region_and_by_period(country: Path) -> None:
    rows = [(f"district {i}", p, float(i)) for i in range(6) for p in ("2016", "2019")]
    table = pd.DataFrame(rows, columns=["region", "period", "people"])
    table.to_parquet(country / "people.parquet")
    report = run(country, "people.parquet", "regions.gpkg")
    assert {c["level"] for c in report["contests"]} == {"region"}
    assert {c["period"] for c in report["contests"]} == {"2016", "2019", "mean"}
    with pytest.raises(EcofmError, match="--regions"):
        run(country, "people.parquet")
    table[table["period"] == "2016"].to_parquet(country / "people.parquet")
    report = run(country, "people.parquet", "regions.gpkg")
    assert {c["period"] for c in report["contests"]} == {"2016"}
    assert len(report["left_out"]) == 2


def test_a_rival_of_built_cells_only_does_not_empty_the_others(country: Path) -> None:
    table = pd.read_csv(country / "proxies.csv.gz")
    table["published"] = table["siscore_2016"].where(table["floor"] > 0)
    table.to_csv(country / "proxies.csv.gz", index=False)
    report = run(country, targets=["floor"], beside=["published", "light"])
    n_built = int((table["floor"] > 0).sum())
    row = {"period": "mean", "score": "ecofm", "metric": "spearman"}
    assert pick(report["figures"], subset="all", **row)["n"] == N_CELLS
    assert pick(report["figures"], subset="floor > 0", **row)["n"] == n_built
    row["score"] = "published"
    assert not [f for f in report["figures"] if f["score"] == "published" and f["subset"] == "all"]
    assert pick(report["figures"], subset="floor > 0", **row)["n"] == n_built
    assert "published has no value where floor is 0" in json.dumps(report["notes"])


def test_rivals_with_gaps_shrink_the_row_for_all(country: Path) -> None:
    table = pd.read_csv(country / "proxies.csv.gz")
    table.loc[:9, "light"] = np.nan
    table["flat"] = 1.0
    table["rare"] = np.where(np.arange(N_CELLS) < 3, 1.0, np.nan)
    table.to_csv(country / "proxies.csv.gz", index=False)
    report = run(country, targets=["siscore_2016"], beside=["light", "flat", "rare"])
    assert {f["n"] for f in report["figures"]} == {N_CELLS - 10}
    assert {f["score"] for f in report["figures"]} == {"ecofm", "light"}
    assert pick(report["contests"], period="2016")["n_scored"] == N_CELLS
    notes = json.dumps(report["notes"])
    assert "flat is the same on all 50 places" in notes
    assert "rare has values on 3 places" in notes


def test_targets_are_all_statistics_but_rivals_and_names(country: Path) -> None:
    report = run(country, beside=["siscore_{period}"])
    assert {c["target"] for c in report["contests"]} == {"floor", "light"}
    assert name_rival("siscore_{period}") == "siscore"
    assert name_rival("viirs_2019") == "viirs_2019"


def test_baselines_stand_beside_with_their_sign_turned(
    country: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One statistic is the floor area itself, upside down: it must win with |rho| = 1."""
    table = pd.read_csv(country / "proxies.csv.gz").set_index("cell_id")
    rng = np.random.default_rng(1)

    def fake(scores: gpd.GeoDataFrame, paths: list[Path]) -> tuple[gpd.GeoDataFrame, str]:
        colour = {name: rng.normal(size=len(scores)) for name in MEAN_COLOUR}
        dark = -table.loc[scores["cell_id"], "floor"].to_numpy()
        attribution = "Contains modified Copernicus Sentinel data 2019"
        return scores.assign(**colour, darkness=dark, ndvi=1.0), attribution

    monkeypatch.setattr("ecofm.benchmark.benchmark.add_baselines", fake)
    out = benchmark(
        country / "scores", country / "proxies.csv.gz", country / "report", None,
        [country / "scores"], BenchmarkConfig(targets=["floor"]),
    )  # fmt: skip
    report = json.loads((out / "report.json").read_text())
    row = {"period": "mean", "subset": "floor > 0"}
    assert pick(report["contests"], **row)["best_baseline"] == "darkness"
    best = pick(report["figures"], score="darkness", metric="spearman", **row)
    assert (best["value"], best["turned"]) == (pytest.approx(1), True)
    assert pick(report["differences"], rival="darkness", **row)["value"] < 0
    given = pick(report["figures"], score="ecofm", metric="spearman_given_colour", **row)
    plain = pick(report["figures"], score="ecofm", metric="spearman", **row)
    assert given["value"] == pytest.approx(plain["value"], abs=0.15)
    assert "darkness" in summary_table(out)
    assert "Contains modified Copernicus" in (out / "report.md").read_text()
    assert "darkness (sign turned)" in (out / "report.md").read_text()


def test_statistics_of_the_scored_tiles_are_joined(
    country: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = gpd.read_parquet(country / "scores" / "scores.parquet")
    columns = scores[["tile_id", "cell_id", "period"]].iloc[::-1]
    statistics = columns.assign(brightness=np.arange(len(scores), dtype=float))
    archive = SimpleNamespace(attribution="Contains modified Copernicus Sentinel data 2019")
    monkeypatch.setattr("ecofm.tiles.archive.open_archives", lambda paths: ([archive], None))
    monkeypatch.setattr("ecofm.benchmark.benchmark.image_statistics", lambda *_: statistics)
    joined, attribution = add_baselines(scores, [country])
    assert joined["brightness"].tolist() == list(range(len(scores)))[::-1]
    assert attribution == archive.attribution
    statistics["tile_id"] = "elsewhere"
    with pytest.raises(EcofmError, match="holds none of the scored tiles"):
        add_baselines(scores, [country])


def test_bad_proxies_are_refused_in_one_sentence(country: Path) -> None:
    table = pd.read_csv(country / "proxies.csv.gz")
    bad = {
        "twice.csv": (
            table.iloc[[0, 0]],
            r"two rows for cell 6300_14000: .*\(line 2\) and .*\(line 3\)",
        ),
        "nokey.csv": (table.drop(columns="cell_id"), "expected one of cell_id, y_x, region"),
        "other.csv": (table.assign(cell_id="1_1").iloc[:1], "nothing can be compared"),
        "ours.csv": (table.rename(columns={"light": "ecofm"}), "rename the column"),
        "text.csv": (table[["cell_id"]].assign(word="x"), "no numeric column"),
    }
    for name, (frame, message) in bad.items():
        frame.to_csv(country / name, index=False)
        with pytest.raises(EcofmError, match=message):
            run(country, name)
    (country / "table.xls").write_bytes(b"\xd0\xcf\x11\xe0 a workbook")
    with pytest.raises(EcofmError, match=r"old Excel workbook.*save it as CSV"):
        run(country, "table.xls")
    (country / "broken.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(EcofmError, match="cannot be read as a table"):
        run(country, "broken.parquet")
    with pytest.raises(EcofmError, match="cannot be read as a table"):
        run(country, "missing.csv")
    with pytest.raises(EcofmError, match="no numeric column people; it has floor"):
        run(country, targets=["people"])
    with pytest.raises(EcofmError, match=r"no column rival_\{period\} for any of 2016, 2019"):
        run(country, beside=["rival_{period}"])
    assert not (country / "report").exists()


def test_bad_regions_and_scores_are_refused(country: Path) -> None:
    with pytest.raises(EcofmError, match="cannot be read as regions"):
        run(country, regions="proxies.csv.gz")
    regions = gpd.read_file(country / "regions.gpkg")
    regions.rename(columns={"name": "label"}).to_file(country / "label.gpkg")
    with pytest.raises(EcofmError, match=r"column region \(or name\)"):
        run(country, regions="label.gpkg")
    regions.translate(50).to_frame("geometry").assign(name="x").to_file(country / "far.gpkg")
    with pytest.raises(EcofmError, match="no scored cell lies in any region"):
        run(country, regions="far.gpkg")
    with pytest.raises(ArtifactError, match="ecofm score"):
        run(country / "report")
    make_scores(country / "bad" / "scores", {"2016": np.full(60, np.nan)}, ["1_1"] * 60)
    with pytest.raises(EcofmError, match="60 scores that are not finite"):
        run(country / "bad")
    with pytest.raises(EcofmError, match=r"no report.json"):
        summary_table({})
    with pytest.raises(ValueError, match="n_bootstrap"):
        BenchmarkConfig(n_bootstrap=100)


@needs_data
def test_published_figures_follow_from_the_real_cells(tmp_path: Path) -> None:
    """siScore's four-year mean against floor area: .7769 on the 21,509 built cells."""
    proxies = DATA / "nk_tables" / "tiles.csv.gz"
    table = read_proxies(proxies).table.dropna(subset=["siscore_mean"])
    score = table["siscore_mean"].to_numpy()
    make_scores(tmp_path / "scores", {"mean4": score}, table["unit"].tolist())
    config = BenchmarkConfig(targets=["floor_area_2014_m2"])
    out = benchmark(tmp_path / "scores", proxies, tmp_path / "report", None, None, config)
    report = json.loads((out / "report.json").read_text())
    found = pick(report["figures"], subset="all", score="ecofm", metric="spearman")
    assert found["n"] == 21_509
    assert found["value"] == pytest.approx(0.7769, abs=5e-5)
    assert found["upper"] - found["lower"] < 0.02


@needs_data
@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ("ln(FA2014)", 0.829),
        ("ln(popden08)", 0.752),
        ("ln(market18area/1km2)", 0.699),
        ("ln(market18stall/1km2)", 0.668),
        ("ln(market18no/1km2)", 0.558),
        ("ln(company19/1km2)", 0.385),
    ],
)
def test_published_figures_follow_from_the_real_counties(column: str, expected: float) -> None:
    table = pd.read_csv(DATA / "nk_tables" / "counties.csv")
    frame = table[["ln(districtmean4years)", column]].set_axis([OURS, "target"], axis=1)
    contest = Contest(
        level="region", period="mean", subset="all", target="target", frame=frame,
        rivals=[], baselines=[],
    )  # fmt: skip
    figures = hold(contest, n_bootstrap=200, seed=0).figures
    found = pick(figures, score=OURS, metric="r2")
    assert found["value"] == pytest.approx(expected, abs=6e-4)
    assert found["lower"] < expected < found["upper"]


@needs_data
def test_real_regions_are_read() -> None:
    path = DATA / "nk_tables" / "counties.gpkg"
    with pytest.raises(EcofmError, match="expected polygons"):
        read_regions(path)
