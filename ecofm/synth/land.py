"""The land of the synthetic country: relief, water, forest, bare ground and farm parcels.

Everything here stays the same over the years; seasons and crops come with the imagery.
Colour, brightness and contrast are drawn without looking at how developed a place is.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter
from scipy.spatial import cKDTree

from ecofm.synth.noise import (
    Raster,
    derive_rng,
    fractal_noise,
    hash_ids,
    hash_uniform,
    rank_field,
    smooth_noise,
    smoothstep,
)
from ecofm.synth.styles import Climate

WILD_SHARE = 0.36
"""Share of the country that is mountain, forest, steppe or water."""


class Ground(IntEnum):
    """What the ground of a pixel is, below anything built."""

    FIELD = 0
    FOREST = 1
    ROCK = 2
    STEPPE = 3
    WATER = 4
    GRAVEL = 5


class Line(IntEnum):
    """What runs along the edge of a farm parcel."""

    NONE = 0
    BUND = 1
    FARM_ROAD = 2
    CANAL = 3


@dataclass(kw_only=True, slots=True)
class Land:
    """Rasters of the unchanging ground, all `[height, width]`, north up."""

    ground: NDArray[np.uint8]
    """`Ground` of each pixel."""
    wild: Raster
    """0 in farmland, 1 in the wilderness, quantiles of one smooth field."""
    slope: Raster
    """Brightening by the sun on the relief; 0 where flat."""
    soil: Raster
    """0 brown soil to 1 pale soil."""
    tone: Raster
    """Natural brightness relative to the mean of its kind; about 1."""
    growth: Raster
    """Natural vigour of plants relative to the mean of its kind; about standard normal."""
    parcel: NDArray[np.uint32]
    """Random number of the farm parcel."""
    contrast: Raster
    """How much parcels near here differ from each other, 0 to 1."""
    mechanisation: Raster
    """0 small irregular plots to 1 large straight fields; 0 where there is no field."""
    line: NDArray[np.uint8]
    """`Line` of each pixel."""


def make_land(n_px: int, cell_px: int, seed: int, climate: Climate) -> Land:
    """Return the land of a square country of `n_px` pixels a side."""
    shape = (n_px, n_px)
    rng = derive_rng(seed, "land")
    country = min(n_px, 10 * cell_px)
    wild = rank_field(fractal_noise(shape, 0.28 * country, rng, 4))
    ground, terrain = _wilderness(wild, cell_px, rng, climate.wilderness)
    _carve_rivers(ground, cell_px, rng)
    patches = rank_field(fractal_noise(shape, 0.5 * cell_px, rng, 5, gain=0.6))
    ground[(ground == Ground.FIELD) & (patches > 0.92)] = Ground.FOREST
    slope = _relief(wild, terrain, cell_px, rng)
    grain = rng.standard_normal(shape, dtype=np.float32)
    patchy = fractal_noise(shape, 0.3 * cell_px, rng, 4, gain=0.7)
    tone = np.clip(1 + 0.10 * patchy + 0.04 * grain, 0.5, 1.7)
    # Bare land is patchy at the scale of gullies and screes, as strongly as a town.
    rough = (ground == Ground.ROCK) | (ground == Ground.STEPPE) | (ground == Ground.GRAVEL)
    fine = fractal_noise(shape, 7, rng, 3, gain=0.8, ridged=True)
    tone[rough] = np.clip(tone + 0.09 * fine, 0.4, 2)[rough]
    land = Land(
        ground=ground,
        wild=wild,
        slope=slope,
        soil=rank_field(fractal_noise(shape, 1.2 * cell_px, rng, 3)),
        tone=tone,
        growth=0.6 * smooth_noise(shape, 0.4 * cell_px, rng) + 0.6 * smooth_noise(shape, 4, rng),
        parcel=np.zeros(shape, np.uint32),
        contrast=np.zeros(shape, np.float32),
        mechanisation=np.zeros(shape, np.float32),
        line=np.zeros(shape, np.uint8),
    )
    _lay_parcels(land, cell_px, derive_rng(seed, "parcels"))
    return land


def _wilderness(
    wild: Raster, cell_px: int, rng: np.random.Generator, shares: tuple[float, float, float]
) -> tuple[NDArray[np.uint8], Raster]:
    """Return the ground and how mountainous it is, from the quantile field `wild`."""
    shape = wild.shape
    kind = fractal_noise(shape, min(1.6 * cell_px, shape[0] / 4), rng, 3)
    outside = wild > 1 - WILD_SHARE
    cuts = np.quantile(kind[outside], shares)
    which = np.digitize(kind, cuts)
    ground = np.zeros(shape, np.uint8)
    order = (Ground.WATER, Ground.FOREST, Ground.ROCK, Ground.STEPPE)
    for index, value in enumerate(order):
        ground[outside & (which == index)] = value
    # Trees thin out into rock and steppe rather than ending at a line.
    bushes = fractal_noise(shape, 0.25 * cell_px, rng, 4, gain=0.7)
    bare = (ground == Ground.ROCK) | (ground == Ground.STEPPE)
    ground[bare & (bushes > 1.1)] = Ground.FOREST
    ground[(ground == Ground.FOREST) & (bushes < -1.2)] = Ground.STEPPE
    steepness = np.array([0.12, 0.6, 0.75, 0.4, 0.0, 0.1], np.float32)[ground]
    # Some wilderness is rugged, some a plain.
    rugged = 0.15 + smoothstep(smooth_noise(shape, 1.5 * cell_px, rng), -0.6, 0.8)
    return ground, steepness * rugged * smoothstep(wild, 0.5, 0.9) + np.float32(0.05)


def _carve_rivers(ground: NDArray[np.uint8], cell_px: int, rng: np.random.Generator) -> None:
    """Lay rivers along a level line: water, and bars of gravel where they are wide."""
    shape = ground.shape
    scale = min(4.5 * cell_px, shape[0] / 2)
    course = fractal_noise(shape, scale, rng, 4, gain=0.28)
    across = np.abs(course + np.float32(0.3)) * np.float32(scale)
    width = 0.05 * cell_px * np.exp(0.7 * smooth_noise(shape, 2 * cell_px, rng)) + 2
    bars = smooth_noise(shape, 0.10 * cell_px + 3, rng)
    ground[across < width] = Ground.WATER
    bar = (across < 0.9 * width) & (bars + 1.5 * (across / width - 0.4) > 0.7) & (width > 5)
    ground[bar | ((across >= width) & (across < 1.25 * width) & (bars > 0))] = Ground.GRAVEL


def _relief(wild: Raster, terrain: Raster, cell_px: int, rng: np.random.Generator) -> Raster:
    """Return the sun's effect on ridged mountains lit from the south-east."""
    height = fractal_noise(wild.shape, 0.45 * cell_px, rng, 5, gain=0.55, ridged=True)
    height += 1.5 * wild
    # Smooth, because a step of steepness between two kinds of ground would be a cliff.
    height *= uniform_filter(terrain, 15) * np.float32(0.45 * cell_px)
    east = np.zeros_like(height)
    east[:, 1:-1] = (height[:, 2:] - height[:, :-2]) / 2
    south = np.zeros_like(height)
    south[1:-1] = (height[2:] - height[:-2]) / 2
    # Light comes from the right and below: ground that falls that way is bright.
    return np.clip(-0.25 * east - 0.20 * south, -0.75, 0.8)


def _lay_parcels(land: Land, cell_px: int, rng: np.random.Generator) -> None:
    """Divide the farmland into zones of one farming style, and each zone into parcels."""
    shape = land.ground.shape
    zone, centres = _zones(shape, min(1.25 * cell_px, shape[0] / 4), rng)
    n_zones = len(centres)
    region = smooth_noise(shape, 3 * cell_px, rng)[centres[:, 0], centres[:, 1]]
    style = 0.6 * region + rng.standard_normal(n_zones)
    level = (np.argsort(np.argsort(style)) + 0.5) / n_zones
    mechanisation = level.astype(np.float32)
    land.contrast[:] = (0.25 + 0.75 * rng.random(n_zones, dtype=np.float32))[zone]
    land.mechanisation[:] = mechanisation[zone]
    land.mechanisation[land.ground != Ground.FIELD] = 0
    u, v = _turn(shape, zone, rng.uniform(0, np.pi, n_zones).astype(np.float32))
    sway = np.float32(4.5) * (1 - mechanisation) ** 1.5
    u += sway[zone] * smooth_noise(shape, 9, rng)
    v += sway[zone] * smooth_noise(shape, 9, rng)
    size = 5 + 17 * mechanisation**1.3
    aspect = rng.uniform(1.3, 2.6, n_zones).astype(np.float32)
    i, across = _divide(u, size[zone])
    # Old plots are staggered; surveyed fields line up.
    v += hash_uniform(1, i, zone) * (size * aspect * (1 - mechanisation))[zone]
    j, along = _divide(v, (size * aspect)[zone])
    split = (hash_uniform(2, i, j, zone) < 0.4) & (across > (size / 2)[zone])
    land.parcel[:] = hash_ids(3, i, j, zone, split)
    farm = land.ground == Ground.FIELD
    large = (mechanisation > 0.5)[zone]
    wet = (rng.random(n_zones) < 0.5)[zone] & large
    edge = (across < 1) | (along < 1)
    land.line[farm & edge & ~large] = Line.BUND
    land.line[farm & large & ((along < 1.2) | ((across < 1.2) & (i % 2 == 0)))] = Line.FARM_ROAD
    land.line[farm & wet & (across < 2.2) & (i % 2 == 1)] = Line.CANAL


def _zones(
    shape: tuple[int, int], spacing_px: float, rng: np.random.Generator
) -> tuple[NDArray[np.int32], NDArray[np.intp]]:
    """Return the zone of each pixel and the row and column of each zone's centre."""
    n = int(np.ceil(shape[0] / spacing_px)) + 1
    grid = np.stack(np.meshgrid(np.arange(n), np.arange(n), indexing="ij"), -1).reshape(-1, 2)
    points = (grid + rng.uniform(-0.45, 0.45, grid.shape)) * spacing_px
    # At half resolution, because the nearest-centre search is the slowest step of the land.
    half = [np.arange(0, s, 2) for s in shape]
    rows, cols = np.meshgrid(*half, indexing="ij")
    _, nearest = cKDTree(points).query(np.stack([rows.ravel(), cols.ravel()], -1))
    coarse = nearest.astype(np.int32).reshape(rows.shape)
    zone = coarse.repeat(2, axis=0).repeat(2, axis=1)[: shape[0], : shape[1]]
    return zone, np.clip(points, 0, np.array(shape) - 1).astype(np.intp)


def _turn(
    shape: tuple[int, int], zone: NDArray[np.int32], angle: NDArray[np.float32]
) -> tuple[Raster, Raster]:
    """Return pixel coordinates turned by the angle of each pixel's zone."""
    rows = np.arange(shape[0], dtype=np.float32)[:, None]
    cols = np.arange(shape[1], dtype=np.float32)[None]
    cos, sin = np.cos(angle)[zone], np.sin(angle)[zone]
    return cols * cos + rows * sin, rows * cos - cols * sin


def _divide(x: Raster, size: Raster) -> tuple[NDArray[np.int32], Raster]:
    """Return which interval of length `size` holds `x`, and how far in."""
    index = np.floor(x / size)
    return index.astype(np.int32), x - index * size
