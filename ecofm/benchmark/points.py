"""Survey points: their coordinates, the households of each, and how far they were displaced."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import geopandas as gpd
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pyproj import Geod

from ecofm.errors import EcofmError
from ecofm.meridian import close_ring
from ecofm.tables import Column, Table, canonical, column_name, count, read_number_columns

if TYPE_CHECKING:
    from ecofm.benchmark.columns import ProxyOptions

Floats = NDArray[np.float64]

ENDS = r"(?:_?(?:dd|mod|modified|deg|degrees|wgs84))*"
LATITUDE = re.compile(rf"_*(?:\w*gps\w*?_*)?lat(?:num|itude)?{ENDS}")
LONGITUDE = re.compile(rf"_*(?:\w*gps\w*?_*)?(?:lon|long|lng|longnum|longitude){ENDS}")
WEIGHTS = ("hv005", "v005", "hh_weight", "hhweight", "sample_weight", "weight", "wgt", "wt")
SETTINGS = ("urban_rura", "hv025", "v025", "urban_rural", "urbanrural", "urban", "rural")
CLUSTERS = ("dhsid", "dhsclust", "hv001", "v001", "cluster_id", "cluster", "clusterid", "ea_id")
ABOUT_SURVEY = {*CLUSTERS, "dhscc", "dhsregco", "dhsregna"}
"""Columns of a table of points that describe the survey: a target only where one says so."""
URBAN, RURAL = {"u", "urban", "1", "true", "yes"}, {"r", "rural", "0", "2", "false", "no"}
DISPLACED_M = {"urban": 2_000.0, "rural": 5_000.0, "not told": 5_000.0}
"""How far the DHS displaces its clusters at most (one in a hundred rural ones up to 10 km);
where nothing is told, the larger of the two."""
NO_DEGREES = [float("9" * n) for n in range(3, 9)]
"""What stands where coordinates are not known, of either sign."""
N_CORNERS = 64
"""Corners of the polygon that stands for a circle; its area is .16 % smaller."""


@dataclass(frozen=True, slots=True)
class Survey:
    """Which columns of a table of points describe it."""

    is_survey: bool = False
    weight: str | None = None
    setting: str | None = None
    """Urban or rural."""
    cluster: str | None = None


@dataclass(frozen=True, slots=True)
class Points:
    """Where the units of a table of points lie: one row a place, by `unit`."""

    frame: pd.DataFrame
    """By unit: lat, lon (degrees) and setting (`urban`, `rural` or `not told`)."""

    def radii_m(self, radius_m: float | None) -> pd.Series:
        """Return the radius in which cells are looked for, in metres, by unit."""
        by_setting = self.frame["setting"].map(DISPLACED_M)
        return by_setting if radius_m is None else by_setting * 0 + radius_m

    def circles(self, radius_m: float | None, swapped: bool = False) -> gpd.GeoDataFrame:
        """Return a circle round each point as `region` and geometry (EPSG:4326)."""
        radii = self.radii_m(radius_m).clip(lower=1.0)
        lat, lon = (self.frame[name].to_numpy() for name in ("lat", "lon"))
        if swapped:
            radii = radii[np.abs(lon) <= 90]
            lat, lon = lon[np.abs(lon) <= 90], lat[np.abs(lon) <= 90]
        angle = np.linspace(0, 360, N_CORNERS, endpoint=False)
        geod = Geod(ellps="WGS84")
        shapes = []
        for x, y, radius in zip(lon, lat, radii, strict=True):
            n = np.ones(N_CORNERS)
            around = geod.fwd(x * n, y * n, angle, radius * n)
            shapes.append(close_ring(np.asarray(around[0]), np.asarray(around[1])))
        return gpd.GeoDataFrame({"region": radii.index}, geometry=shapes, crs="EPSG:4326")


def is_coordinate(name: str) -> bool:
    """Return whether a column is called like a latitude or longitude."""
    called = column_name(name)
    return any(pattern.fullmatch(called) for pattern in (LATITUDE, LONGITUDE))


def find_survey(given: Table, options: ProxyOptions, targets: Iterable[str]) -> Survey:
    """Return the columns of weights, of urban or rural, and of clusters that are no target."""
    wanted = set(map(column_name, targets))
    known = (WEIGHTS, SETTINGS, CLUSTERS)
    weights, settings, clusters = (
        [name for n in names if n not in wanted and (name := given.find(n))] for names in known
    )
    if options.weight is not None:
        weights = [given.find(options.weight) or options.weight]
    settings = [name for name in settings if _may_be_setting(given, name)]
    return Survey(True, *(next(iter(names), None) for names in (weights, settings, clusters)))


def _may_be_setting(given: Table, name: str) -> bool:
    """Return whether no cell is a number other than a code: a share of 0.4 is a statistic."""
    numbers = pd.to_numeric(pd.Series(given.text(name)), errors="coerce").dropna()
    return bool(numbers.isin([0, 1, 2, *map(float, range(3, 10)), 99]).all())


def find_coordinates(columns: Iterable[str]) -> tuple[str, str] | None:
    """Return the columns of latitude and longitude, None where a table has no such pair.

    Raises EcofmError where several columns may be meant.
    """
    found = []
    for pattern, flag in ((LATITUDE, "--lat"), (LONGITUDE, "--lon")):
        names = [name for name in columns if pattern.fullmatch(column_name(name))]
        if not names:
            return None
        if len(names) > 1:
            raise EcofmError(
                f"columns {' and '.join(names[:2])} may both hold coordinates; choose one with "
                f"{flag} (and the other one with {'--lon' if flag == '--lat' else '--lat'})."
            )
        found.append(names[0])
    return found[0], found[1]


def read_points(
    given: Table,
    coordinates: tuple[str, str],
    options: ProxyOptions,
    survey: Survey,
    table: pd.DataFrame,
    places: pd.Series,
    times: pd.Series,
    notes: list[str],
) -> tuple[Points, pd.DataFrame, pd.Series]:
    """Return the points, their statistics by `unit`, and where each stands in the file.

    Rows of one place and period, such as the households of a cluster, become one by the weighted
    mean of each column; `times` tells the period of each row. `notes` are added to.
    """
    frame = _read_places(given, coordinates, options, survey, notes).loc[table.index]
    is_known = frame[["lat", "lon"]].notna().all(axis=1)
    frame, table, places = frame[is_known], table[is_known], places[is_known]
    if frame.empty:
        raise EcofmError(f"{given.path} has no row with coordinates.")
    keys = [frame["cluster"], frame["lat"], frame["lon"], times.loc[table.index]]
    number = pd.Series(pd.MultiIndex.from_arrays(keys).factorize()[0], index=table.index)
    place = pd.Series(pd.MultiIndex.from_arrays(keys[:3]).factorize()[0], index=table.index)
    firsts = frame[~place.duplicated()]
    if firsts["cluster"].ne("").all() and not firsts["cluster"].duplicated().any():
        names = dict(zip(place[firsts.index], firsts["cluster"], strict=True))
    else:
        names = {place[row]: places[row] for row in firsts.index}
    frame = frame.assign(unit=place.map(names))
    weight = _read_weights(given, survey.weight).loc[table.index]
    if number.duplicated().any():
        numbers = table.select_dtypes("number").columns
        table = _average_rows(table, numbers, number, weight, notes)
    elif weight.nunique() > 1:
        notes.append(
            "weights are not used: every point has one row, and correlations count each point once."
        )
    table = table.assign(unit=frame.loc[table.index, "unit"])
    points = frame[~frame["unit"].duplicated()].set_index("unit")[["lat", "lon", "setting"]]
    return Points(points), table, places[table.index]


def _read_places(
    given: Table,
    coordinates: tuple[str, str],
    options: ProxyOptions,
    survey: Survey,
    notes: list[str],
) -> pd.DataFrame:
    """Return lat, lon, setting and cluster by row; coordinates are NaN where none are known."""
    read = read_number_columns(
        given, coordinates, decimal=options.decimal, missing=["none"], thousands=False
    )
    values = [_require_degrees(given, read[name], limit)
              for name, limit in zip(coordinates, (90, 180), strict=True)]  # fmt: skip
    frame = pd.DataFrame({"lat": values[0], "lon": values[1]})
    # The DHS writes 0, 0 where it has no GPS reading; nobody lives there.
    at_zero = (frame.abs() < 1e-6).all(axis=1)
    unknown = frame.isna().any(axis=1)
    frame[at_zero | unknown] = np.nan
    for rows, what in ((at_zero, "with coordinates 0, 0"), (unknown, "without coordinates")):
        if rows.any():
            where = ", ".join(given.at(row) for row in np.flatnonzero(rows)[:5])
            more = ", ..." if rows.sum() > 5 else ""
            notes.append(f"left out {count(int(rows.sum()), 'row')} {what}: {where}{more}.")
    frame["setting"] = _read_setting(given, survey.setting, notes)
    cluster = survey.cluster
    frame["cluster"] = [canonical(t) for t in given.text(cluster)] if cluster else ""
    _say_taken(survey, notes)
    return frame


def _require_degrees(given: Table, column: Column, limit: float) -> Floats:
    """Return coordinates; raises EcofmError where they are no degrees of that range."""
    if column.values is None:
        raise EcofmError(
            f"{given.path}: {column.fault}; expected degrees such as 39.25, and -39.25 in the "
            "south or west."
        )
    values = np.where(np.isin(np.abs(column.values), NO_DEGREES), np.nan, column.values)
    outside = np.flatnonzero(np.abs(values) > limit)
    if len(outside):
        raise EcofmError(
            f"{given.path}, {given.at(outside[0])}: {column.name} is "
            f"{values[outside[0]]:g}, expected degrees within -{limit:g} to {limit:g}; are "
            "latitude and longitude swapped, or the coordinates in metres?"
        )
    return values


def _say_taken(survey: Survey, notes: list[str]) -> None:
    """Say which columns describe the survey, and so are no targets."""
    roles = ((survey.weight, "weights"), (survey.setting, "urban or rural"),
             (survey.cluster, "clusters"))  # fmt: skip
    if told := [f"{name} tells {role}" for name, role in roles if name]:
        notes.append(f"left out of the targets unless --targets names it: {', '.join(told)}.")


def _read_setting(given: Table, name: str | None, notes: list[str]) -> list[str]:
    """Return for each row whether its point is urban or rural, or that it is not told."""
    if name is None:
        return ["not told"] * len(given.lines)
    is_rural = column_name(name) == "rural"
    found = []
    odd: dict[str, str] = {}
    for row, text in enumerate(given.text(name)):
        word = canonical(text).casefold()
        setting = "urban" if word in URBAN else "rural" if word in RURAL else "not told"
        if is_rural and word not in ("u", "r", "urban", "rural"):
            turned = {"urban": "rural", "rural": "urban"}
            setting = turned.get(setting, setting)
        if setting == "not told":
            odd.setdefault(text, given.at(row))
        found.append(setting)
    if odd:
        text, where = next(iter(odd.items()))
        notes.append(
            f"{name}: {text!r} ({where}) tells neither urban nor rural; such points count as not "
            "told."
        )
    return found


def _read_weights(given: Table, name: str | None) -> pd.Series:
    """Return each row's weight, 1 where the table has none."""
    if name is None:
        return pd.Series(1.0, index=range(len(given.lines)))
    found = given.find(name)
    if found is None:
        raise EcofmError(f"{given.path} has no column {name}; it has {', '.join(given.columns)}.")
    column = read_number_columns(given, [found], missing=["none"])[found]
    if column.values is None or (column.values < 0).any():
        reason = column.fault or f"{found} has weights below zero"
        raise EcofmError(f"{given.path}: {reason}; choose the column of weights with --weight.")
    return pd.Series(column.values)


def _average_rows(
    table: pd.DataFrame,
    numbers: pd.Index,
    number: pd.Series,
    weight: pd.Series,
    notes: list[str],
) -> pd.DataFrame:
    """Return one row for each number: weighted means, and the first of what is no number."""
    n_points = number.nunique()
    weighted = weight.nunique() > 1
    notes.append(
        f"{len(table)} rows are averaged to {count(n_points, 'point')}, "
        f"{'by their weights' if weighted else 'unweighted'}; correlations count each point once."
    )
    if n_lost := int(weight.isna().sum()):
        notes.append(f"left out {count(n_lost, 'row')} without a weight.")
    known = table[numbers].notna()
    share = known.mul(weight.fillna(0), axis=0)
    total = table[numbers].fillna(0).mul(weight.fillna(0), axis=0).groupby(number).sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        means = total / share.groupby(number).sum().replace(0, np.nan)
    first = table[~number.duplicated()]
    found = first.copy()
    found[numbers] = means.loc[number[first.index]].to_numpy()
    return found
