"""The join of scores and proxies: what matched, and by name what has no partner on either side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import geopandas as gpd
import pandas as pd

from ecofm.benchmark.columns import SHOWN, list_names
from ecofm.benchmark.proxies import Joined, Proxies
from ecofm.benchmark.regions import (
    Regions,
    Shares,
    find_overlaps,
    share_cells,
)
from ecofm.errors import EcofmError
from ecofm.tables import count, write_csv

PARTLY = 0.5
"""Regions of which less than this share is scored are named, though compared."""


@dataclass(frozen=True, slots=True)
class Join:
    """Proxies under our names of places, how cells make up these places, and what was said."""

    proxies: Proxies
    shares: Shares | None
    """Which cells lie in which region or circle; None by cell without regions."""
    min_covered: float
    """Smallest share of a region that scored cells must cover."""
    record: dict[str, Any]
    """What report.json keeps."""
    sentences: list[str] = field(default_factory=list)
    """What people are told."""
    unmatched: list[tuple[str, str, str]] = field(default_factory=list)
    """Side (`scores`, `polygons` or `proxies`), name and reason: all that has no partner."""


def join_proxies(
    scores: gpd.GeoDataFrame,
    proxies: Proxies,
    regions: Regions | None,
    *,
    min_covered: float,
    radius_m: float | None,
) -> Join:
    """Join proxies to scored cells, by their level.

    Raises EcofmError when names cannot be told apart or nothing has a partner.
    """
    if proxies.level == "point":
        return _join_points(scores, proxies, regions, radius_m)
    periods = scores["period"].unique().tolist()
    shares = share_cells(scores, regions.table) if regions else None
    if regions and shares is not None and shares.parts.empty:
        raise EcofmError(
            "no scored cell lies in any region; check that the regions cover the scores' area."
        )
    if proxies.level == "cell":
        cells = scores["cell_id"].drop_duplicates()
        joined = proxies.join(cells, periods, "the scores")
        loose = [(name, joined.reason(name)) for name in joined.without_row]
        join = _tell(joined, "scored cell", "scores", len(cells), loose, shares, min_covered)
    elif regions is None or shares is None:
        raise EcofmError(f"{proxies.path} is by region: give the regions' polygons with --regions.")
    else:
        join = _join_regions(proxies, regions, shares, periods, min_covered)
    if regions and shares is not None:
        covered = shares.covered()
        has_row = set(join.proxies.table["unit"])
        by_cell = proxies.level == "cell"
        _tell_cover(join, [n for n in covered.index if n in has_row or (by_cell and covered[n])],
                    shares)  # fmt: skip
        join.sentences.extend(regions.notes)
        if pairs := find_overlaps(regions.table, shares):
            join.sentences.append(
                f"{count(len(pairs), 'pair')} of regions lie one over the other, so that their "
                f"values are not independent: {'; '.join(pairs[:SHOWN])}."
            )
            join.record["overlapping"] = pairs
    return join


def _join_regions(
    proxies: Proxies, regions: Regions, shares: Shares, periods: list[str], min_covered: float
) -> Join:
    """Join by the names of regions."""
    names = regions.table["region"].tolist()
    joined = proxies.join(names, periods, "the polygons")
    covered = shares.covered()
    lone = set(joined.without_row)
    loose = [(n, joined.reason(n)) for n in names if n in lone and covered[n] > 0]
    far = [name for name in names if name in lone and covered[name] == 0]
    join = _tell(joined, "region", "polygons", len(names), loose, shares, min_covered)
    if far:
        join.sentences.append(
            f"{count(len(far), 'region')} more of the polygons have neither a row nor a scored "
            f"cell: {list_names(far)}."
        )
    join.unmatched.extend(("polygons", n, f"{joined.reason(n)}, no scored cell") for n in far)
    join.record["n_without_row_or_cell"] = len(far)
    return join


def _tell_cover(join: Join, names: list[str], shares: Shares) -> None:
    """Tell which of some regions scored cells cover too little to be compared, or in part."""
    covered = shares.covered()
    few = [name for name in names if not covered[name] or covered[name] < join.min_covered]
    partly = [name for name in names if name not in set(few) and covered[name] < PARTLY]
    if few:
        join.sentences.append(
            f"{count(len(few), 'region')} left out, for scored cells cover less than "
            f"{join.min_covered:.0%} (--min-covered): {_with_shares(few, covered)}."
        )
    if partly:
        join.sentences.append(
            f"{count(len(partly), 'region')} compared by the part that scored cells cover: "
            f"{_with_shares(partly, covered)}."
        )
    join.unmatched.extend(("polygons", n, f"scored cells cover {covered[n]:.1%}") for n in few)
    for key, chosen in (("not_covered", few), ("partly_covered", partly)):
        join.record[key] = [{"name": n, "covered": float(covered[n])} for n in chosen]
    join.record["min_covered"] = join.min_covered


def _with_shares(names: Sequence[str], covered: pd.Series) -> str:
    shown = [f"{name} ({covered[name]:.1%})" for name in names[:SHOWN]]
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(shown) + more


def _tell(
    joined: Joined,
    place: str,
    side: str,
    n_places: int,
    loose: list[tuple[str, str]],
    shares: Shares | None,
    min_covered: float,
) -> Join:
    """Return the join with what both sides lack, in words and as a record."""
    path = joined.proxies.path
    if not joined.n_matched:
        ours, theirs = (list_names([n for n, _ in loose][:2]), ", ".join(joined.without_place[:2]))
        raise EcofmError(
            f"nothing can be compared with {path}: none of its names is one of a {place}. It has "
            f"{theirs}, the {side} {ours}; choose the column of names with --key, or, if a program "
            "made numbers of long codes, store the codes as text."
        )
    sentences = [f"{joined.n_matched} of {count(n_places, place)} have a row in {path.name}."]
    if loose:
        sentences.append(
            f"{count(len(loose), place)} without a row: {list_names([n for n, _ in loose])}."
        )
    if joined.without_place:
        more = len(joined.without_place) - SHOWN
        sentences.append(
            f"{count(len(joined.without_place), 'name')} of {path.name} without a {place}: "
            f"{', '.join(joined.without_place[:SHOWN])}{f' and {more} more' if more > 0 else ''}."
        )
    if joined.lost_periods:
        sentences.append(f"{joined.lost()}.")
    for period, names in joined.gaps.items():
        sentences.append(
            f"{count(len(names), place)} without a row of {period}, though of other periods: "
            f"{list_names(names)}."
        )
    rows = [(side, name, reason) for name, reason in loose]
    rows += [("proxies", name, f"no {place} of this name") for name in joined.without_place]
    rows += [("proxies", time, "no score of this period") for time in joined.lost_periods]
    rows += [(side, n, f"no row of {time}") for time, names in joined.gaps.items() for n in names]
    record = {
        "level": joined.proxies.level,
        "n_places": n_places,
        "n_matched": joined.n_matched,
        "without_row": [name for name, _ in loose[:100]],
        "n_without_row": len(loose),
        "without_place": joined.without_place[:100],
        "n_without_place": len(joined.without_place),
        "periods_without_score": joined.lost_periods,
        "gaps": {period: names[:100] for period, names in joined.gaps.items()},
        "spellings": joined.notes,
    }
    sentences += joined.notes
    return Join(joined.proxies, shares, min_covered, record, sentences, rows)


def _join_points(
    scores: gpd.GeoDataFrame, proxies: Proxies, regions: Regions | None, radius_m: float | None
) -> Join:
    """Join survey points to the cells within a radius."""
    points = proxies.points
    assert points is not None
    if regions is not None:
        raise EcofmError(
            f"{proxies.path} holds points, which find their cells by themselves: leave out "
            "--regions, or name the column of regions with --key."
        )
    circles = points.circles(radius_m)
    shares = share_cells(scores, circles)
    found = shares.parts["region"].unique().tolist()
    turned = 0
    if len(found) < len(points.frame):
        exchanged = share_cells(scores, points.circles(radius_m, swapped=True))
        turned = exchanged.parts["region"].nunique()
    if turned > len(found):
        raise EcofmError(
            f"{proxies.path}: {len(found)} points lie near a scored cell, and {turned} would with "
            "latitude and longitude exchanged; give the columns with --lat and --lon."
        )
    if not found:
        where = points.frame.iloc[0]
        west, south, east, north = scores.total_bounds
        raise EcofmError(
            f"nothing can be compared with {proxies.path}: no point lies near a scored cell. The "
            f"first is at latitude {where['lat']:g}, longitude {where['lon']:g}; scores reach from "
            f"{south:.3f} to {north:.3f} and {west:.3f} to {east:.3f}."
        )
    joined = proxies.join(points.frame.index, scores["period"].unique().tolist(), "the points")
    lost = [name for name in points.frame.index if name not in set(found)]
    radii = points.radii_m(radius_m)
    kinds = pd.DataFrame({"setting": points.frame["setting"], "radius_m": radii})
    told = (
        kinds.groupby(["setting", "radius_m"])
        .size()
        .reset_index(name="n_points")
        .to_dict("records")
    )
    sentences = [
        f"{len(found)} of {count(len(points.frame), 'point')} have scored cells within their "
        f"radius: {', '.join(_say_radius(kind) for kind in told)} (--radius-m sets another). A "
        "point's score is the mean of the cells in the circle, weighted by their area in it."
    ]
    if lost:
        sentences.append(f"{count(len(lost), 'point')} without a scored cell: {list_names(lost)}.")
    if joined.lost_periods:
        sentences.append(f"{joined.lost()}.")
    covered = shares.covered()[found]
    partly = int((covered < PARTLY).sum())
    if partly:
        sentences.append(
            f"scored cells cover less than half of the circle of {count(partly, 'point')}."
        )
    record = {
        "level": "point",
        "n_places": len(points.frame),
        "n_matched": len(found),
        "radii": told,
        "without_cell": lost[:100],
        "n_without_cell": len(lost),
        "n_partly_covered": partly,
        "periods_without_score": joined.lost_periods,
    }
    rows = [("proxies", str(name), "no scored cell within its radius") for name in lost]
    rows += [("proxies", time, "no score of this period") for time in joined.lost_periods]
    return Join(joined.proxies, shares, 0.0, record, sentences, rows)


def _say_radius(kind: dict[Any, Any]) -> str:
    setting = "without urban or rural" if kind["setting"] == "not told" else kind["setting"]
    return f"{kind['radius_m']:g} m for {count(kind['n_points'], 'point')} {setting}"


def write_unmatched(join: Join, folder: Path) -> None:
    """Write unmatched.csv: every name without a partner, whose side it is on, and why."""
    table = pd.DataFrame(join.unmatched, columns=["side", "name", "reason"], dtype="str")
    write_csv(table, folder / "unmatched.csv")
