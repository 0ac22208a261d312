"""A survey as the DHS hands it out, from scores to the benchmark's report, by the command line."""

from __future__ import annotations

import json
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from ecofm.artifact import Draft
from ecofm.cli import main
from ecofm.grid import Grid

CORNER, N_CELLS, N_CLUSTERS = (399_360, 8_998_400), 24, 40
"""West and south of the cells in UTM 37 south, and how many lie on a side."""


@pytest.fixture
def scores(tmp_path: Path) -> Path:
    """A country near Dar es Salaam that grows richer towards its north-east."""
    random = np.random.default_rng(0)
    spec = Grid("utm:2560")
    keys = [(y, x) for y in range(N_CELLS) for x in range(N_CELLS)]
    row, column = CORNER[1] // 2560, CORNER[0] // 2560
    ids = [f"32737_{row + y}_{column + x}" for y, x in keys]
    score = np.array([y + x for y, x in keys]) / N_CELLS + random.normal(0, 0.1, len(keys))
    columns = {"tile_id": [f"{c}@2019" for c in ids], "cell_id": ids, "period": "2019"}
    columns |= {"score": score, "lower": score - 1, "upper": score + 1}
    outlines = [spec.cell(cell_id).polygon() for cell_id in ids]
    with Draft(tmp_path / "scores", stage="scores", config={}, inputs={}) as folder:
        table = gpd.GeoDataFrame(columns, geometry=outlines, crs=4326)
        table.to_parquet(folder / "scores.parquet")
    return tmp_path / "scores"


def make_households(scores: Path) -> tuple[pd.DataFrame, np.ndarray]:
    """Return households of displaced clusters, and the wealth of the clusters themselves."""
    random = np.random.default_rng(1)
    table = gpd.read_parquet(scores / "scores.parquet")
    homes = table.iloc[random.permutation(len(table))[:N_CLUSTERS]]
    wealth = homes["score"].to_numpy() + random.normal(0, 0.1, N_CLUSTERS)
    urban = np.arange(N_CLUSTERS) % 3 == 0
    middle = homes.geometry.to_crs(32737).centroid
    angle = random.uniform(0, 2 * np.pi, N_CLUSTERS)
    moved = random.uniform(0, np.where(urban, 2_000, 5_000))
    places = gpd.GeoSeries(
        gpd.points_from_xy(middle.x + moved * np.cos(angle), middle.y + moved * np.sin(angle)),
        crs=32737,
    ).to_crs(4326)
    rows = []
    for n, (place, is_urban) in enumerate(zip(places, urban, strict=True)):
        for household in range(6):
            rows.append(
                {
                    "hhid": f"{n:4d}{household:3d}", "hv001": n + 1, "hv007": 2019,
                    "hv005": random.integers(200_000, 3_000_000), "hv025": 1 if is_urban else 2,
                    "LATNUM": round(place.y, 6), "LONGNUM": round(place.x, 6),
                    "hv271": round(100_000 * (wealth[n] + random.normal(0, 0.2))),
                    "hv204": random.choice([5, 15, 30, 60, 998]),
                }
            )  # fmt: skip
    return pd.DataFrame(rows), wealth


def test_a_survey_is_walked_from_scores_to_report(
    scores: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    households, wealth = make_households(scores)
    lost = households["hv001"].isin([4, 9])
    households.loc[lost, ["LATNUM", "LONGNUM"]] = 0.0
    households.to_csv(tmp_path / "TZHR7B.csv", index=False, encoding="utf-8-sig")
    main(
        ["benchmark", "--scores", str(scores), "--proxies", str(tmp_path / "TZHR7B.csv"),
         "--targets", "hv271", "--out", str(tmp_path / "report")]
    )  # fmt: skip
    told = capsys.readouterr()
    for words in (
        "left out 12 rows with coordinates 0, 0",
        "228 rows are averaged to 38 points, by their weights",
        "38 of 38 points have scored cells within their radius",
        "5000 m for 25 points rural, 2000 m for 13 points urban",
    ):
        assert words in told.err
        assert words in (tmp_path / "report" / "report.md").read_text()
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    (found,) = [f for f in report["figures"] if f["metric"] == "spearman"]
    assert (found["n"], found["kind"]) == (38, "ours")
    kept = ~np.isin(np.arange(1, N_CLUSTERS + 1), [4, 9])
    by_cluster = households[~lost].groupby("hv001")
    mean = by_cluster.apply(lambda rows: np.average(rows["hv271"], weights=rows["hv005"]))
    assert spearmanr(mean, wealth[kept])[0] > 0.9
    assert found["value"] > 0.85
