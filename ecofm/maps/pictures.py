"""Pictures of scores, change and imagery: matplotlib figures without pyplot's global state."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import geopandas as gpd
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ecofm.contrast import draw_colours, find_limits, name_colours, pick_bands
from ecofm.errors import EcofmError
from ecofm.grid import UTM_LATITUDES
from ecofm.lettering import label, save_figure
from ecofm.meridian import cut_all, join_all, middles
from ecofm.tiles.periods import sort_periods
from ecofm.types import say

if TYPE_CHECKING:
    from ecofm.tiles.archive import Archive

# Both are read alike by colour-blind people (Nunez et al. 2018; ColorBrewer's PuOr).
SCORE_COLOURS = "viridis"
CHANGE_COLOURS = "PuOr_r"
FADED = 0.25
"""Share of the colour that changes keep which cannot be told from noise."""
ROBUST_PERCENT = (2.0, 98.0)
"""Percentiles that the colours of maps run between."""
FARTHEST_UTM_DEGREES = 6.0
FARTHEST_AZIMUTHAL_DEGREES = 60.0
"""From the middle of a map; what lies farther needs another projection."""
EQUAL_EARTH = "EPSG:8857"
DPI = 110


def draw_scores(
    scores: gpd.GeoDataFrame,
    period: str,
    title: str,
    attribution: str = "",
    limits: tuple[float, float] | None = None,
) -> Figure:
    """Return a map of the scores of one period, axes in km.

    `scores` needs period, score and geometry. Colours run between `limits` (score units), the
    2nd and 98th percentile of all periods if None, so that maps of two periods compare.
    `attribution` is the imagery's, empty for synthetic data. Raises EcofmError when no cell has
    a place.
    """
    placed = place_cells(pick_period(scores, period))
    if limits is None:
        low, high = np.percentile(scores["score"], ROBUST_PERCENT)
        limits = (float(low), float(high))
    norm = Normalize(*limits) if limits[1] > limits[0] else Normalize(limits[0] - 1, limits[0] + 1)
    figure, axes = start_map(title, attribution)
    placed.plot(
        column="score", cmap=SCORE_COLOURS, norm=norm, ax=axes, edgecolor="face", linewidth=0.2
    )
    finish_map(figure, axes, norm, SCORE_COLOURS, "score (higher is more developed)")
    return figure


def draw_change(
    change: gpd.GeoDataFrame, title: str, attribution: str = "", max_q: float = 0.1
) -> Figure:
    """Return a map of the change per cell, axes in km.

    `change` is the table of `ecofm change`. Orange is growth, purple is decline; cells with
    q > `max_q` are faded, the others have a dark outline. Raises EcofmError when no cell has a
    place.
    """
    placed = place_cells(change)
    most = float(np.percentile(np.abs(placed["change"]), ROBUST_PERCENT[1])) or 1.0
    norm = Normalize(-most, most)
    colours = colormaps[CHANGE_COLOURS](norm(placed["change"].to_numpy()))
    significant = (placed["q"] <= max_q).to_numpy()
    # Faded towards white, not by opacity: the background is grey, so that "no cell" is not "none".
    colours[~significant, :3] = 1 - FADED * (1 - colours[~significant, :3])
    figure, axes = start_map(title, attribution)
    placed.plot(color=list(colours), ax=axes, edgecolor="face", linewidth=0.2)
    if significant.any():
        placed[significant].boundary.plot(ax=axes, color="black", linewidth=0.6)
    finish_map(figure, axes, norm, CHANGE_COLOURS, "change of score, common shift removed")
    n_changed = int(significant.sum())
    axes.set_xlabel(f"km\n{n_changed} of {len(placed)} cells changed (outlined, q ≤ {max_q:g})")
    return figure


def draw_imagery(
    archive: Archive, period: str, attribution: str = "", max_px: int = 1600
) -> Figure:
    """Return the mosaic of one period as a map, axes in km; the title says which colours it has."""
    image = imagery_mosaic(archive, period, max_px)
    rows = pick_period(archive.index, period)
    west, south, east, north = place_cells(keep_one_zone(rows)[0]).total_bounds
    figure, axes = start_map(f"{name_colours(archive.contract)} {period}", attribution)
    axes.imshow(image, extent=(0, east - west, 0, north - south), interpolation="nearest")
    return figure


def imagery_mosaic(
    archive: Archive, period: str, max_px: int
) -> NDArray[np.uint8]:  # height, width, RGBA
    """Return the tiles of one period beside each other, in the contrast of all pictures.

    uint8 (height, width, RGBA), north up, at most `max_px` a side, alpha 0 where nothing is
    valid. Tiles are averaged down as they are read, so memory is bounded by `max_px`; of more
    than `max_px` cells a side every k-th is read. UTM cells of several zones: the zone with most
    cells. Raises EcofmError for an unknown period, and for chips, which have no place.
    """
    rows, places = keep_one_zone(pick_period(archive.index, period))
    places -= places.min(axis=0)
    n_cells = int(places.max()) + 1
    stride = -(-n_cells // max_px)
    cell_px = max(1, min(*archive.tile_px, max_px // n_cells))
    shape = (places.max(axis=0) // stride + 1) * cell_px
    mosaic = np.zeros((3, *shape), dtype=np.float32)
    share = np.zeros(shape, dtype=np.float32)
    bands = pick_bands(archive.contract)
    for tile_index, (row, column) in zip(rows["tile_index"], places, strict=True):
        if row % stride or column % stride:
            continue
        pixels, valid = archive.read(int(tile_index))
        top, left = row // stride * cell_px, column // stride * cell_px
        window = (slice(top, top + cell_px), slice(left, left + cell_px))
        mosaic[:, *window], share[window] = shrink_tile(pixels[list(bands)], valid, cell_px)
    image = np.zeros((*shape, 4), dtype=np.uint8)
    image[..., :3] = draw_colours(mosaic, find_limits(archive.contract, bands))
    image[..., 3] = 255
    image[share == 0] = 0
    return image


def shrink_tile(
    pixels: NDArray[np.generic], valid: NDArray[np.bool_], n_px: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the mean of the valid pixels in n_px × n_px blocks, and each block's valid share."""
    starts = [np.arange(n_px) * size // n_px for size in valid.shape]

    def add_blocks(values: NDArray[np.float32]) -> NDArray[np.float32]:
        down = np.add.reduceat(values, starts[0], axis=-2)
        return np.asarray(np.add.reduceat(down, starts[1], axis=-1), dtype=np.float32)

    weight = valid.astype(np.float32)
    count = add_blocks(weight)
    total = add_blocks(np.where(valid, pixels, 0).astype(np.float32))
    mean = (total / np.maximum(count, 1)).astype(np.float32)
    return mean, (count / add_blocks(np.ones_like(weight))).astype(np.float32)


def pick_period(table: gpd.GeoDataFrame, period: str) -> gpd.GeoDataFrame:
    """Return the rows of one period with `tile_index`, their place in the table."""
    picked = table.assign(tile_index=np.arange(len(table)))[(table["period"] == period).to_numpy()]
    if picked.empty:
        periods = ", ".join(sort_periods(table["period"]))
        raise EcofmError(f"there is no period {period}, only {periods}; choose one of these.")
    return picked


def keep_one_zone(rows: gpd.GeoDataFrame) -> tuple[gpd.GeoDataFrame, NDArray[np.int64]]:
    """Return the rows of the commonest grid zone and their (row, column), rows counted southward.

    Web-mercator ids `{y}_{x}` count southward, UTM ids `{epsg}_{y}_{x}` northward.
    """
    parsed = [re.fullmatch(r"(?:(32[67]\d\d)_)?(-?\d+)_(-?\d+)", c) for c in rows["cell_id"]]
    zones = ["" if found is None else found[1] or "xyz" for found in parsed]
    placed = [zone for zone in zones if zone]
    if not placed:
        raise EcofmError("these tiles have no place on Earth (grid none): there is no map of them.")
    best = max(sorted(set(placed)), key=placed.count)
    if len(placed) > placed.count(best):
        say(f"The picture shows the {placed.count(best)} of {len(rows)} cells in zone {best}.")
    kept = [found for found, zone in zip(parsed, zones, strict=True) if found and zone == best]
    sign = 1 if best == "xyz" else -1
    places = np.array([(sign * int(found[2]), int(found[3])) for found in kept], dtype=np.int64)
    chosen = rows[np.array(zones) == best]
    if best == "xyz":
        _turn_columns(places, chosen)
    return chosen, places


def _turn_columns(places: NDArray[np.int64], rows: gpd.GeoDataFrame) -> None:
    """Bring web mercator's columns on both sides of the 180th meridian beside each other."""
    west, _, east, _ = rows.geometry.iloc[0].bounds
    n_columns = round(360 / (east - west))
    columns = places[:, 1]
    turned = np.where(columns < n_columns // 2, columns + n_columns, columns)
    if np.ptp(turned) < np.ptp(columns):
        places[:, 1] = turned


def place_cells(table: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """Return the cells that have a geometry, in km from their south-west corner.

    In the UTM zone of their middle; where some lie farther than 6 degrees from it, or the middle
    lies near a pole, in an equal-area projection about it, or, farther than 60, in Equal Earth.
    """
    placed = cut_all(table[table.geometry.notna()])
    if placed.empty:
        raise EcofmError("no cell has a place on Earth: there is no map of chips.")
    crs = _choose_crs(middles(placed.geometry))
    if crs != EQUAL_EARTH:  # which ends at the 180th meridian, where outlines are cut
        placed = placed.set_geometry(join_all(placed.geometry))
    projected = placed.to_crs(crs)
    left, bottom, _, _ = projected.total_bounds
    outlines = projected.geometry.affine_transform([1e-3, 0, 0, 1e-3, -left / 1e3, -bottom / 1e3])
    # A CRS would make geopandas set the axes' aspect for it; these are plain kilometres.
    return projected.set_geometry(outlines.set_crs(None, allow_override=True))


def _choose_crs(places: gpd.GeoSeries) -> str:
    """Return the CRS in which places (EPSG:4326) are drawn."""
    east, north = np.radians(places.x.to_numpy()), np.radians(places.y.to_numpy())
    # As points of a sphere, they have a middle across the 180th meridian and at the poles too.
    points = np.stack([np.cos(north) * np.cos(east), np.cos(north) * np.sin(east), np.sin(north)])
    x, y, z = middle = points.mean(axis=1)
    longitude = float(np.degrees(np.arctan2(y, x)))
    latitude = float(np.degrees(np.arctan2(z, np.hypot(x, y))))
    cosine = middle @ points / max(float(np.linalg.norm(middle)), 1e-9)
    far = float(np.degrees(np.arccos(cosine.clip(-1, 1).min())))
    low, high = UTM_LATITUDES
    if far > FARTHEST_AZIMUTHAL_DEGREES:
        return EQUAL_EARTH
    if far > FARTHEST_UTM_DEGREES or not low <= latitude <= high:
        return f"+proj=laea +lat_0={latitude} +lon_0={longitude} +datum=WGS84"
    return f"EPSG:{(32600 if latitude >= 0 else 32700) + int((longitude + 180) % 360 // 6) + 1}"


def start_map(title: str, attribution: str) -> tuple[Figure, Axes]:
    """Return a figure with one map in it, and the imagery's attribution below."""
    figure = Figure(figsize=(7.5, 6.5), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    axes.set(title=label(title, 80), xlabel="km", ylabel="km", aspect="equal")
    axes.set_facecolor("0.85")
    if attribution:
        figure.supxlabel(label(attribution, 160), fontsize=7, color="0.35")
    return figure, axes


def finish_map(figure: Figure, axes: Axes, norm: Normalize, colours: str, label: str) -> None:
    """Add the colour bar, pointed where values lie beyond it."""
    bar = ScalarMappable(norm=norm, cmap=colours)
    figure.colorbar(bar, ax=axes, label=label, shrink=0.8, extend="both")
    axes.set_aspect("equal")


def save_picture(figure: Figure, path: Path) -> Path:
    """Write the figure as PNG, the same bytes for the same figure."""
    save_figure(figure, path)
    return path
