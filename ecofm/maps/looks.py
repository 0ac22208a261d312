"""Looks at an archive: contact sheet, valid share, histograms, and steps at the cells' edges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ecofm.contrast import Bands, draw_colours, find_limits, name_colours, pick_bands
from ecofm.errors import EcofmError
from ecofm.lettering import label, spell_latin
from ecofm.maps.pictures import (
    DPI,
    finish_map,
    keep_one_zone,
    pick_period,
    place_cells,
    shrink_tile,
    start_map,
)

if TYPE_CHECKING:
    from ecofm.tiles.archive import Archive

SHEET_COLUMNS, SHEET_ROWS, THUMBNAIL_PX, LABEL_PX = 12, 3, 128, 14
MAX_PERIODS = 12
STRIP_PX = 8
MAX_TILES = 2000
"""Tiles read for a histogram or for the steps; more add nothing to a median."""
N_BINS = 128


def pick_periods(archive: Archive) -> list[str]:
    """Return the archive's periods, at most twelve of them, evenly."""
    periods = archive.periods
    chosen = np.unique(np.linspace(0, len(periods) - 1, MAX_PERIODS).astype(int))
    return [periods[n] for n in chosen]


def draw_contact_sheet(archive: Archive) -> Image.Image:
    """Return tiles of each period under its name, in the contrast of all pictures.

    Rows are chosen evenly from the index, so the same cells stand below each other where the
    periods have the same cells.
    """
    periods = pick_periods(archive)
    n_rows = SHEET_ROWS if len(periods) > 1 else 2 * SHEET_ROWS
    chosen = {p: _evenly(archive, p, n_rows * SHEET_COLUMNS) for p in periods}
    bands = pick_bands(archive.contract)
    limits, colours = find_limits(archive.contract, bands), name_colours(archive.contract)
    images = {
        period: [_thumbnail(archive, n, bands) for n in places] for period, places in chosen.items()
    }
    heights = [
        LABEL_PX + -(-len(found) // SHEET_COLUMNS) * THUMBNAIL_PX for found in images.values()
    ]
    sheet = Image.new("RGB", (SHEET_COLUMNS * THUMBNAIL_PX, sum(heights)), "white")
    pen = ImageDraw.Draw(sheet)
    top = 0
    for (period, found), height in zip(images.items(), heights, strict=True):
        n_tiles = _count(archive, period)
        words = spell_latin(f"{period}: {len(found)} of {n_tiles} tiles, {colours}", 240)
        pen.text((2, top + 1), words, "black")
        for place, (mean, share) in enumerate(found):
            pixels = draw_colours(mean, limits)
            pixels[share == 0] = (255, 0, 255)  # nodata is told from black
            row, column = divmod(place, SHEET_COLUMNS)
            corner = (column * THUMBNAIL_PX, top + LABEL_PX + row * THUMBNAIL_PX)
            size = (THUMBNAIL_PX - 2, THUMBNAIL_PX - 2)
            sheet.paste(Image.fromarray(pixels).resize(size), corner)
        top += height
    return sheet


def _count(archive: Archive, period: str) -> int:
    return int((archive.index["period"] == period).sum())


def _evenly(archive: Archive, period: str, n: int) -> list[int]:
    places = np.flatnonzero((archive.index["period"] == period).to_numpy())
    return [int(places[k]) for k in np.unique(np.linspace(0, len(places) - 1, n).astype(int))]


def _thumbnail(
    archive: Archive, tile_index: int, bands: Bands
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    pixels, valid = archive.read(tile_index)
    return shrink_tile(pixels[list(bands)], valid, min(THUMBNAIL_PX, *valid.shape))


def draw_valid_share(archive: Archive) -> Figure:
    """Return maps of the share of valid pixels of each cell, one a period."""
    periods = pick_periods(archive)
    n_columns = min(3, len(periods))
    n_rows = -(-len(periods) // n_columns)
    figure = Figure(figsize=(4.2 * n_columns, 3.8 * n_rows), dpi=DPI, layout="constrained")
    norm = Normalize(0, 1)
    for number, period in enumerate(periods, start=1):
        axes = figure.add_subplot(n_rows, n_columns, number)
        rows = place_cells(pick_period(archive.index, period))
        rows.plot(column="valid_share", cmap="viridis", norm=norm, ax=axes, edgecolor="face")
        axes.set_title(label(f"{period}: {rows['valid_share'].mean():.1%}"), fontsize=9)
        axes.set_facecolor("0.85")
        axes.set(aspect="equal", xlabel="km", ylabel="km")
    bar = colormaps["viridis"]
    figure.colorbar(ScalarMappable(norm, bar), ax=figure.axes, label="share of valid pixels")
    figure.suptitle("Valid pixels of each cell")
    return figure


def draw_histograms(archive: Archive) -> Figure:
    """Return, for each band, the distribution of its valid stored numbers in each period."""
    bands, periods = archive.contract.bands, pick_periods(archive)
    values = {p: _sample(archive, p) for p in periods}
    n_columns = min(4, len(bands))
    n_rows = -(-len(bands) // n_columns)
    figure = Figure(figsize=(3.6 * n_columns, 2.4 * n_rows), dpi=DPI, layout="constrained")
    colours = colormaps["viridis"](np.linspace(0, 0.9, len(periods)))
    for number, band in enumerate(bands):
        axes = figure.add_subplot(n_rows, n_columns, number + 1)
        everything = np.concatenate([found[number] for found in values.values()])
        low, high = np.percentile(everything, (0.1, 99.9))
        edges = np.linspace(float(low), float(high) + 1, N_BINS + 1)
        for period, colour in zip(periods, colours, strict=True):
            density, _ = np.histogram(values[period][number], edges, density=True)
            axes.plot(edges[:-1], density, color=colour, label=label(period), linewidth=1)
        axes.set_title(label(band), fontsize=9)
        axes.set_yticks([])
    figure.axes[0].legend(fontsize=6)
    unit = f"stored number (offset {archive.contract.offset:g}, scale {archive.contract.scale:g})"
    figure.supxlabel(unit, fontsize=8)
    return figure


def _sample(archive: Archive, period: str) -> NDArray[np.generic]:
    """Return every 16th valid pixel of tiles all over a period: (band, pixel)."""
    kept = []
    for tile_index in _evenly(archive, period, MAX_TILES // MAX_PERIODS):
        pixels, valid = archive.read(tile_index)
        kept.append(pixels[:, ::4, ::4][:, valid[::4, ::4]])
    return np.concatenate(kept, axis=1)


@dataclass(slots=True)
class Seams:
    """Steps in mean radiometry across the edges of cells, in units of the bands' deviations."""

    table: pd.DataFrame
    """period, one, other (tile_ids), step, same_dates, and where the edge lies in cells."""
    inside: dict[str, float]
    """Median step across the middle of tiles, by period: what the land alone makes."""

    def summary(self) -> pd.DataFrame:
        """Return one row a period: edges, median step, and its ratio to steps inside tiles."""
        rows = []
        for period, edges in self.table.groupby("period"):
            inside = self.inside[str(period)]
            other = edges[~edges["same_dates"]]["step"]
            rows.append(
                {
                    "period": period,
                    "edges": len(edges),
                    "step": edges["step"].median(),
                    "step_inside": inside,
                    "ratio": edges["step"].median() / max(inside, 1e-9),
                    "edges_of_other_dates": len(other),
                    "ratio_of_other_dates": other.median() / max(inside, 1e-9),
                }
            )
        return pd.DataFrame(rows)


def measure_seams(archive: Archive) -> Seams:
    """Compare strips of 8 px on both sides of the edges between neighbouring cells.

    Without seams the steps are as large as those across the middle of a tile, a ratio near 1;
    cells that were rendered or acquired apart have larger ones. Of more than 2,000 tiles a
    square of cells in the middle is read. Raises EcofmError for chips.
    """
    std = np.maximum(np.array(archive.contract.std), 1e-9)
    edges, inside = [], {}
    for period in pick_periods(archive):
        rows, places = keep_one_zone(pick_period(archive.index, period))
        rows, places = _middle(rows, places, MAX_TILES // len(pick_periods(archive)))
        strips: dict[tuple[int, int], dict[str, NDArray[np.float64]]] = {}
        for tile_index, (y, x) in zip(rows["tile_index"], places.tolist(), strict=True):
            strips[y, x] = _strips(*archive.read(int(tile_index)))
        steps = [
            _step(found[one], found[other], std)
            for found in strips.values()
            for one, other in (("west of middle", "east of middle"), ("above", "below"))
        ]
        inside[period] = float(np.nanmedian(steps)) if np.isfinite(steps).any() else 0.0
        tiles = zip(rows["tile_id"], rows["dates"], strict=True)
        known = dict(zip(map(tuple, places.tolist()), tiles, strict=True))
        for (y, x), (tile_id, dates) in known.items():
            for dy, dx, one, other in ((0, 1, "east", "west"), (1, 0, "south", "north")):
                if (beside := known.get((y + dy, x + dx))) is None:
                    continue
                step = _step(strips[y, x][one], strips[y + dy, x + dx][other], std)
                if np.isfinite(step):
                    edges.append(
                        (period, tile_id, beside[0], step, bool(dates == beside[1]),
                         x + (dx + 1) / 2, y + (dy + 1) / 2, dx)
                    )  # fmt: skip
    columns = ["period", "one", "other", "step", "same_dates", "x", "y", "is_upright"]
    table = pd.DataFrame(edges, columns=columns).astype({"same_dates": bool})
    return Seams(table, inside)


def _middle(
    rows: pd.DataFrame, places: NDArray[np.int64], n: int
) -> tuple[pd.DataFrame, NDArray[np.int64]]:
    """Return the n rows that are nearest to the middle of all."""
    far = np.abs(places - np.median(places, axis=0)).max(axis=1)
    kept = np.sort(np.argsort(far, kind="stable")[:n])
    return rows.iloc[kept], places[kept]


def _strips(
    pixels: NDArray[np.generic], valid: NDArray[np.bool_]
) -> dict[str, NDArray[np.float64]]:
    """Return the mean of each band in strips along the edges and beside the middle."""
    height, width = valid.shape
    y, x, n = height // 2, width // 2, STRIP_PX
    every = slice(None)
    places = {
        "west": (every, slice(0, n)), "east": (every, slice(width - n, width)),
        "north": (slice(0, n), every), "south": (slice(height - n, height), every),
        "west of middle": (every, slice(x - n, x)), "east of middle": (every, slice(x, x + n)),
        "above": (slice(y - n, y), every), "below": (slice(y, y + n), every),
    }  # fmt: skip
    found = {}
    for name, window in places.items():
        is_valid = valid[window]
        whole = is_valid.mean() > 0.5
        values = pixels[:, *window][:, is_valid]
        found[name] = values.mean(axis=1) if whole else np.full(len(pixels), np.nan)
    return found


def _step(one: NDArray[np.float64], other: NDArray[np.float64], std: NDArray[np.float64]) -> float:
    return float(np.mean(np.abs(one - other) / std))


def draw_seams(seams: Seams, period: str, attribution: str = "") -> Figure:
    """Return a map of the steps across the edges of one period's cells."""
    edges = seams.table[seams.table["period"] == period]
    if edges.empty:
        raise EcofmError(f"no two cells of {period} lie beside each other.")
    figure, axes = start_map(f"Steps across edges {period}", attribution)
    inside = max(seams.inside[period], 1e-9)
    norm = Normalize(0, max(4.0, float(np.percentile(edges["step"] / inside, 95))))
    colours = colormaps["magma_r"](norm((edges["step"] / inside).to_numpy()))
    half = np.where(edges["is_upright"].to_numpy() == 1, 0.0, 0.5)
    x, y, tall = edges["x"].to_numpy(), edges["y"].to_numpy(), 0.5 - half
    lines = np.stack([np.stack([x - half, y - tall], 1), np.stack([x + half, y + tall], 1)], axis=1)
    axes.add_collection(LineCollection(list(lines), colors=list(colours), linewidths=2))
    axes.set_xlim(x.min() - 1, x.max() + 1)
    axes.set_ylim(y.max() + 1, y.min() - 1)
    axes.set(xlabel="cells", ylabel="cells")
    finish_map(figure, axes, norm, "magma_r", "step, 1 = as inside a tile")
    return figure
