"""A nation of twenty districts of two by two cells, scored, with people that nearly follow."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
from pyproj import Transformer
from shapely.geometry import Polygon, box

from ecofm.artifact import Draft
from ecofm.benchmark.benchmark import BenchmarkConfig, benchmark

EPSG, SIDE_M, CORNER = 32652, 2560, (120, 1600)
TO_LONLAT = Transformer.from_crs(EPSG, 4326, always_xy=True)


@dataclass
class Nation:
    """What the tests of the join share."""

    folder: Path
    polygons: gpd.GeoDataFrame
    """Its districts, in metres, without names."""
    means: np.ndarray
    """The mean score of each district."""
    people: np.ndarray
    names: list[str] = field(default_factory=lambda: [f"D{n:02d}" for n in range(20)])

    def spearman(self, values: Sequence[Any]) -> float:
        """Return the rank correlation of the districts' scores with numbers, None left out."""
        given = pd.Series(list(values), dtype=float)
        return float(given.corr(pd.Series(self.means), method="spearman"))

    def middle(self, district: int, cell: int = 0) -> tuple[float, float]:
        """Return longitude and latitude of the middle of a district's cell."""
        west, south, *_ = self.polygons.geometry[district].bounds
        i, j = divmod(cell, 2)
        return TO_LONLAT.transform(west + (i + 0.5) * SIDE_M, south + (j + 0.5) * SIDE_M)

    def named(self, names: Sequence[Any] | None = None, column: str = "region") -> Path:
        """Write the polygons under these names."""
        path = self.folder / "districts.gpkg"
        named = self.polygons.assign(**{column: list(names or self.names)})
        named.to_file(path)
        return path

    def run(
        self,
        table: pd.DataFrame | str,
        regions: Path | None = None,
        name: str = "census.csv",
        **config: Any,
    ) -> dict[str, Any]:
        """Benchmark against a table or the text of one; returns report.json."""
        path = self.folder / name
        if isinstance(table, str):
            path.write_text(table, encoding="utf-8", newline="")
        elif path.suffix == ".parquet":
            table.to_parquet(path)
        else:
            table.to_csv(path, index=False)
        out = benchmark(
            self.folder / "scores", path, self.folder / "report", regions, None,
            BenchmarkConfig(**config), overwrite=True,
        )  # fmt: skip
        report: dict[str, Any] = json.loads((out / "report.json").read_text())
        return report

    def compared(self, report: dict[str, Any], target: str = "people") -> tuple[int, float]:
        """Return on how many places a target was compared, and Spearman of our score."""
        wanted = {"target": target, "subset": "all", "kind": "ours", "metric": "spearman"}
        (found,) = [f for f in report["figures"] if wanted.items() <= f.items()]
        return found["n"], found["value"]

    def unmatched(self) -> list[tuple[str, str, str]]:
        """Return the rows of unmatched.csv."""
        table = pd.read_csv(self.folder / "report" / "unmatched.csv", dtype=str)
        return [tuple(row) for row in table.to_numpy().tolist()]


@pytest.fixture
def nation(tmp_path: Path) -> Nation:
    rng = np.random.default_rng(4)
    development = rng.permutation(np.linspace(-2, 2, 20))
    people = np.rint(np.exp(development + rng.normal(0, 0.5, 20)) * 20_000).astype(int)
    ids, outlines, districts = [], [], []
    for number in range(20):
        x, y = CORNER[0] + 2 * (number % 5), CORNER[1] + 2 * (number // 5)
        districts.append(box(x, y, x + 2, y + 2))
        for i in (0, 1):
            for j in (0, 1):
                corners = np.array(box(x + i, y + j, x + i + 1, y + j + 1).exterior.coords)
                outlines.append(Polygon(np.stack(TO_LONLAT.transform(*corners.T * SIDE_M), axis=1)))
                ids.append(f"{EPSG}_{y + j}_{x + i}")
    score = np.repeat(development, 4) + rng.normal(0, 0.05, 80)
    columns = {"tile_id": [f"{c}@2019" for c in ids], "cell_id": ids, "period": "2019"}
    columns |= {"score": score, "lower": score - 1, "upper": score + 1}
    with Draft(tmp_path / "scores", stage="scores", config={}, inputs={}) as folder:
        table = gpd.GeoDataFrame(columns, geometry=outlines, crs=4326)
        table.to_parquet(folder / "scores.parquet")
    scaled = gpd.GeoSeries(districts, crs=EPSG).scale(SIDE_M, SIDE_M, origin=(0, 0))
    polygons = gpd.GeoDataFrame(geometry=scaled)
    return Nation(tmp_path, polygons, score.reshape(20, 4).mean(axis=1), people)
