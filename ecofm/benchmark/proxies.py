"""Proxies: tables of statistics by cell or by region, and the regions that cells lie in."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd

from ecofm.errors import EcofmError
from ecofm.tables import read_number_columns, read_table
from ecofm.types import say

KEYS = {"cell_id": "cell", "y_x": "cell", "region": "region"}
"""Column that names the place, and the level that it means; `y_x` is the reference study's."""
NOT_STATISTICS = {"period", "county", "district", "name", "group", *KEYS}
"""Columns that name a place or a time: never a target."""
EQUAL_AREA = "EPSG:6933"
PERIOD = "{period}"


@dataclass(frozen=True, slots=True)
class Proxies:
    """Statistics by place: `table` has `unit` (cell_id or region), perhaps `period`, and numbers.

    A missing statistic is NaN.
    """

    path: Path
    level: str
    table: pd.DataFrame

    @property
    def statistics(self) -> list[str]:
        """The numeric columns."""
        numbers = self.table.select_dtypes("number").columns
        return [name for name in numbers if name not in {"unit", *NOT_STATISTICS}]

    def at(self, period: str | list[str]) -> pd.DataFrame:
        """Return the statistics by unit for one period, or the mean where all of a list exist.

        A table without periods says the same for all of them.
        """
        numbers = self.table[["unit", *self.statistics]]
        if "period" not in self.table:
            return numbers.set_index("unit")
        wanted = [period] if isinstance(period, str) else period
        chosen = numbers[self.table["period"].isin(wanted)].groupby("unit")
        mean, count = chosen.mean(), chosen.count()
        return mean.where(count == len(wanted))

    def pick_targets(self, targets: list[str] | None, beside: list[str]) -> list[str]:
        """Return the statistics to check against; raises EcofmError for one that is not there."""
        for name in targets or []:
            if name not in self.statistics:
                raise EcofmError(
                    f"{self.path} has no numeric column {name}; it has "
                    f"{', '.join(self.statistics)}; choose the targets among these."
                )
        rivals = [re.compile(re.escape(b).replace(re.escape(PERIOD), ".+")) for b in beside]
        others = [s for s in self.statistics if not any(r.fullmatch(s) for r in rivals)]
        found = targets or others
        if not found:
            raise EcofmError(f"{self.path} has no numeric column to check scores against.")
        return found


def read_proxies(path: Path) -> Proxies:
    """Read a CSV (plain or .gz) or Parquet table keyed by cell_id, y_x or region.

    Raises EcofmError when it cannot be read, has no key, or says something twice.
    """
    if not path.name.endswith((".csv", ".csv.gz", ".parquet")):
        raise EcofmError(f"{path} is no table of proxies: expected .csv, .csv.gz or .parquet.")
    given = read_table(path)
    columns = read_number_columns(given, [c for c in given.columns if c not in (*KEYS, "period")])
    table = pd.DataFrame(
        {
            name: columns[name].values
            if name in columns and columns[name].values is not None
            else given.text(name)
            for name in given.columns
        }
    )
    key = next((name for name in KEYS if name in table.columns), None)
    if key is None:
        raise EcofmError(
            f"{path} has columns {', '.join(map(str, table.columns))}; expected one of "
            f"{', '.join(KEYS)} to say which place a row is about."
        )
    table = table.rename(columns={key: "unit"})
    table["unit"] = table["unit"].astype(str)
    names = ["unit"]
    if "period" in table:
        table["period"] = table["period"].astype(str)
        names.append("period")
    twice = table[table.duplicated(names)]
    if len(twice):
        what = " in period ".join(twice.iloc[0][names])
        raise EcofmError(f"{path} has two rows for {key} {what}; keep one of them.")
    return Proxies(path, KEYS[key], table)


def resolve_rival(beside: str, table: pd.DataFrame, period: str | list[str]) -> pd.Series | None:
    """Return a rival's score by unit for a period, or its mean over a list of periods.

    `siscore_{period}` names a column for each period; a plain name is one column for all. None
    where a column is not there.
    """
    wanted = [period] if isinstance(period, str) else period
    columns = list(dict.fromkeys(beside.replace(PERIOD, p) for p in wanted))
    if not set(columns) <= set(table.columns):
        return None
    return table[columns].mean(axis=1, skipna=False)


def name_rival(beside: str) -> str:
    """Return a rival's name without its period: `siscore_{period}` is siscore."""
    return beside.replace(f"_{PERIOD}", "").replace(PERIOD, "").strip("_") or beside


def read_regions(path: Path) -> gpd.GeoDataFrame:
    """Read polygons with their names as `region` (column `region`, or else `name`).

    Raises EcofmError when the file cannot be read, or lacks names, polygons or a CRS.
    """
    try:
        table = gpd.read_file(path)
    # pyogrio's errors derive from RuntimeError, its missing files from OSError.
    except (OSError, ValueError, RuntimeError) as error:
        raise EcofmError(f"{path} cannot be read as regions ({error}).") from error
    key = next((name for name in ("region", "name") if name in table.columns), None)
    if key is None or table.crs is None or not table.geom_type.str.contains("Polygon").any():
        raise EcofmError(
            f"{path} has columns {', '.join(map(str, table.columns))} and CRS {table.crs}; "
            "expected polygons with a CRS and a column region (or name)."
        )
    regions = table[[key, "geometry"]].rename(columns={key: "region"})
    regions["region"] = regions["region"].astype(str)
    return regions.to_crs(EQUAL_AREA)


def place_cells(cells: gpd.GeoDataFrame, regions: gpd.GeoDataFrame) -> pd.DataFrame:
    """Return `region` and `area_m2` by cell_id for the cells whose centroid lies in a region.

    Where regions overlap, the first in the file has the cell. Raises EcofmError when no cell lies
    in any.
    """
    outlines = cells[["cell_id", "geometry"]].drop_duplicates("cell_id")
    outlines = outlines[outlines.geometry.notna()].to_crs(EQUAL_AREA)
    area = outlines.geometry.area
    points = outlines.assign(area_m2=area).set_geometry(outlines.geometry.centroid)
    joined = points.sjoin(regions, predicate="within").sort_values("index_right", kind="stable")
    placed = joined.drop_duplicates("cell_id").set_index("cell_id")[["region", "area_m2"]]
    if placed.empty:
        raise EcofmError(
            "no scored cell lies in any region; check that the regions cover the scores' area."
        )
    if len(placed) < len(outlines):
        say(f"{len(outlines) - len(placed)} of {len(outlines)} cells lie in no region.")
    return pd.DataFrame(placed.sort_index())


def average_regions(frame: pd.DataFrame, placed: pd.DataFrame) -> pd.DataFrame:
    """Return the area-weighted mean of each column over the cells of each region, by region.

    `frame` is complete, by cell_id. The sum over cells of score times area, divided by the sum of
    areas: a region's mean does not depend on its size.
    """
    together = frame.join(placed, how="inner")
    weight = together["area_m2"]
    sums = together[frame.columns].mul(weight, axis=0).groupby(together["region"]).sum()
    total = weight.groupby(together["region"]).sum()
    return pd.DataFrame(sums.div(total, axis=0).replace([np.inf, -np.inf], np.nan))
