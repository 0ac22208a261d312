"""Synthetic Sentinel-2 L2A pixels of the country: season, crops, haze, clouds and sensor.

Season, haze, clouds and the sensor's gains are drawn without looking at how developed a
place is; they are the nuisance that a model has to see through.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from ecofm.synth.built import Built, Material
from ecofm.synth.land import Ground, Land, Line
from ecofm.synth.noise import (
    Raster,
    derive_rng,
    fractal_noise,
    hash_uniform,
    smooth_noise,
    smoothstep,
)
from ecofm.synth.styles import Climate, Sensor, Spectrum, Style

BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")
OFFSET = 1000
"""Added to the digital numbers since processing baseline 04.00 (`BOA_ADD_OFFSET=-1000`)."""

_GSD_20_M = ("B05", "B06", "B07", "B8A", "B11", "B12")
_GSD_60_M = ("B01", "B09")

# Surface reflectance in percent, one column for each of BANDS; shaped after common spectra.
_SPECTRA = {
    "plant": (2, 2.5, 5, 3, 9, 28, 36, 40, 42, 42, 19, 9),
    "wood": (1.6, 2, 3.6, 2.2, 6, 18, 23, 25, 27, 27, 11, 5),
    "brown soil": (6, 7, 9.5, 13, 15, 17, 18, 20, 21, 22, 28, 24),
    "pale soil": (12, 14, 18.5, 23, 25, 27, 28, 29, 30, 31, 37, 33),
    "rock": (8, 9, 11, 13.5, 15, 16, 17, 18, 19, 19, 24, 22),
    "water": (5, 6, 5.5, 3.5, 2.8, 2, 1.8, 1.6, 1.4, 1.3, 0.8, 0.6),
    "gravel": (13, 14.5, 17, 19, 20, 21, 22, 22.5, 23, 23, 27, 24),
    "snow": (60, 62, 62, 61, 60, 60, 59, 58, 57, 55, 10, 9),
}
_MATERIALS = {
    Material.NONE: (0,) * 12,
    Material.MUD: (10, 11, 14.5, 18.5, 20, 22, 23, 24, 25, 26, 32, 29),
    Material.THATCH: (6, 7, 9.5, 12, 14, 16, 17, 19, 20, 21, 27, 23),
    Material.CLAY: (7, 8, 10.5, 15.5, 18, 20, 21, 22, 23, 24, 29, 25),
    Material.DUST: (9.5, 11, 14.5, 18.5, 20, 22, 23, 24, 25, 26, 33, 29),
    Material.GARDEN: (3, 4, 7, 6, 11, 23, 28, 31, 33, 33, 20, 12),
    Material.ASPHALT: (8, 9, 10, 10.5, 11, 11.5, 12, 12.5, 13, 13, 15, 14),
    Material.CONCRETE: (17, 19, 21, 22.5, 23, 24, 25, 26, 26, 26, 29, 27),
    Material.WHITE: (32, 36, 38, 39, 39, 39, 39, 40, 40, 38, 40, 36),
    Material.BLUE: (19, 25, 20, 13, 14, 17, 21, 25, 26, 25, 24, 19),
    Material.TILE: (5, 6, 9, 17, 20, 22, 24, 26, 27, 27, 28, 23),
    Material.DARK: (5.5, 6, 6.5, 7, 7.5, 8, 8.5, 9, 9.5, 9.5, 11, 10),
    Material.PLASTIC: (25, 28, 30, 30, 33, 38, 41, 42, 43, 42, 36, 28),
}
# Optical depth of haze relative to B02, and the brightness of thick haze, percent.
_HAZE_DEPTH = (1.15, 1.0, 0.82, 0.68, 0.63, 0.58, 0.54, 0.48, 0.45, 0.42, 0.22, 0.15)
_HAZE_LIGHT = (27, 26, 24.5, 23.5, 23, 23, 23, 23, 23, 22, 16, 13)


@dataclass(frozen=True, slots=True)
class Season:
    """How green things are at one time of the year, 0 to 1, shadows, and snow on the heights."""

    crops: float
    crop_range: float
    trees: float
    grass: float
    shadow: float
    snow: float = 0.0


SUMMER = Season(crops=0.55, crop_range=1.0, trees=0.92, grass=0.38, shadow=0.9)
LATE_SUMMER = Season(crops=0.42, crop_range=1.1, trees=0.85, grass=0.25, shadow=1.0)
EARLY_SPRING = Season(crops=0.15, crop_range=0.8, trees=0.25, grass=0.10, shadow=1.25, snow=0.8)


def season_of(index: int, n_periods: int, climate: Climate) -> Season:
    """Return the season of a period: one in the middle is early spring, the rest are summers."""
    season = SUMMER if index % 2 == 0 else LATE_SUMMER
    if n_periods > 1 and index == n_periods // 2:
        season = EARLY_SPRING
    return replace(
        season,
        crops=season.crops * climate.crops,
        trees=season.trees * climate.trees,
        grass=season.grass * climate.grass,
        snow=season.snow * climate.snow,
    )


def cloud_over(shape: tuple[int, int], cell_px: int, share: float, seed: int, index: int) -> Raster:
    """Return the opacity of clouds, 0 to 1; it is above 0 on `share` of the pixels."""
    rng = derive_rng(seed, "clouds", index)
    thickness = fractal_noise(shape, min(1.3 * cell_px, shape[0] / 3), rng, 5, gain=0.5)
    edge = float(np.quantile(thickness, 1 - share))
    opacity: Raster = np.clip((thickness - np.float32(edge)) * 2.5, 0, 1)
    return opacity


def render_bands(
    land: Land,
    built: Built,
    cell_px: int,
    index: int,
    seed: int,
    haze: float,
    noise: float,
    climate: Climate,
    style: Style,
    sensor: Sensor,
) -> Iterator[Raster]:
    """Yield the reflectance of each of `BANDS` in period `index`, below the clouds.

    `haze` is the typical optical depth in B02 of this period, `noise` the sensor's standard
    deviation in reflectance.
    """
    season = season_of(index, built.n_periods, climate)
    weights = _ground_weights(land, season, seed, index, climate.pale_soil)
    light = _light(land, season, seed, index)
    pixels, materials, cover, roof_light = _standing(built, index)
    veil = _haze(land.tone.shape, cell_px, haze, seed, index)
    spread = _plant_spread(land)
    for number, band in enumerate(BANDS):
        image = np.zeros(land.tone.shape, np.float32)
        for name, weight in weights.items():
            image += weight * np.float32(_SPECTRA[name][number] / 100)
        if number >= 5:
            image *= spread
        image *= light
        table = _material_colours(number, season, style)
        flat = image.reshape(-1)
        flat[pixels] += cover * (table[materials] * roof_light - flat[pixels])
        image = _blur(image, band, sensor.spread)
        clear = np.exp(-veil * np.float32(_HAZE_DEPTH[number]))
        glow = np.float32(_HAZE_LIGHT[number] / 100)
        image = glow + (image - glow) * clear
        rng = derive_rng(seed, "noise", index, number)
        grain = rng.standard_normal(image.shape, dtype=np.float32)
        grain *= 0.3 + image
        image += np.float32(3 * noise * sensor.noise) * grain
        yield image


def _ground_weights(
    land: Land, season: Season, seed: int, index: int, pale_soil: float
) -> dict[str, Raster]:
    """Return the share of each spectrum in each pixel."""
    ground = land.ground
    green = np.array([0, season.trees, 0.5 * season.grass, season.grass, 0, 0.05], np.float32)[
        ground
    ]
    varied = np.array([0, 0.06, 0.6 * season.grass, 0.6 * season.grass, 0, 0.04], np.float32)
    green += varied[ground] * land.growth
    field = ground == Ground.FIELD
    crop = hash_uniform(seed * 31 + index, land.parcel)[field] - np.float32(0.5)
    green[field] = season.crops + season.crop_range * crop * land.contrast[field]
    green[field] += 0.05 * land.growth[field]
    line = land.line
    green[line == Line.BUND] += 0.10 * (season.trees - 0.5)
    green[line == Line.FARM_ROAD] *= 0.2
    np.clip(green, 0, 1, out=green)
    wet = np.array([0, 0, 0, 0, 1, 0], np.float32)[ground]
    wet[line == Line.CANAL] = 0.8
    wood = np.where(ground == Ground.FOREST, green, 0)
    plant = green - wood
    bare = (1 - green) * (1 - wet)
    stony = np.array([0, 0, 0.75, 0.1, 0, 0], np.float32)[ground] * bare
    gravel = np.array([0, 0, 0, 0, 0, 0.8], np.float32)[ground] * bare
    soil = bare - stony - gravel
    pale = soil * np.clip(land.soil + np.float32(pale_soil), 0, 1)
    weights = {
        "plant": plant * (1 - wet),
        "wood": wood * (1 - wet),
        "brown soil": soil - pale,
        "pale soil": pale,
        "rock": stony,
        "gravel": gravel,
        "water": wet,
    }
    if season.snow:
        snow = smoothstep(land.wild, 0.92, 0.985) * season.snow
        snow[(ground == Ground.WATER) | (ground == Ground.FOREST)] = 0
        for name in weights:
            weights[name] = weights[name] * (1 - snow)
        weights["snow"] = snow
    return weights


def _light(land: Land, season: Season, seed: int, index: int) -> Raster:
    """Return brightness relative to level, average ground: sun on slopes, parcels, patches."""
    tone = land.tone.copy()
    field = land.ground == Ground.FIELD
    tilled = hash_uniform(seed * 37 + 1000 + index, land.parcel)[field] - np.float32(0.5)
    tone[field] *= 1 + 0.55 * tilled * land.contrast[field]
    tone[land.line == Line.FARM_ROAD] *= 1.15
    tone *= np.clip(1 + season.shadow * land.slope, 0.3, 1.8)
    rng = derive_rng(seed, "moisture", index)
    tone *= np.clip(1 + 0.07 * smooth_noise(tone.shape, max(tone.shape) / 6, rng), 0.75, 1.25)
    return tone


def _plant_spread(land: Land) -> Raster:
    """Return the variation of the infrared plateau, which the visible bands do not show."""
    spread: Raster = np.clip(1 + 0.06 * land.growth, 0.7, 1.3)
    return spread


def _standing(
    built: Built, index: int
) -> tuple[NDArray[np.intp], NDArray[np.uint8], Raster, Raster]:
    """Return the built pixels of a period: flat index, material, cover and brightness."""
    pixels = np.flatnonzero(built.birth <= index)
    old, new = built.old.reshape(-1)[pixels], built.new.reshape(-1)[pixels]
    materials = np.where(built.renewal.reshape(-1)[pixels] <= index, new, old)
    weather = hash_uniform(11, pixels // 3)
    return pixels, materials, built.cover.reshape(-1)[pixels], 0.88 + 0.24 * weather


def _haze(shape: tuple[int, int], cell_px: int, haze: float, seed: int, index: int) -> Raster:
    """Return the optical depth of haze in B02: log-normal, features of a cell or two."""
    rng = derive_rng(seed, "haze", index)
    field = fractal_noise(shape, 1.5 * cell_px, rng, 2)
    depth: Raster = np.float32(haze) * np.exp(np.float32(0.75) * field - np.float32(0.25))
    return depth


def _material_colours(number: int, season: Season, style: Style) -> Raster:
    """Return the reflectance of each material in band `number`; gardens follow the season."""
    looks: dict[Material, Spectrum] = {**_MATERIALS, **style.colours}
    table: Raster = np.array([looks[m][number] for m in Material], np.float32)
    bare = table[Material.DUST]
    table[Material.GARDEN] = bare + (table[Material.GARDEN] - bare) * season.trees
    table *= 0.01
    return table


def _blur(image: Raster, band: str, spread: float) -> Raster:
    """Return the band at its own sharpness: 10, 20 or 60 m."""
    if band in _GSD_60_M:
        return np.asarray(uniform_filter(image, 6))
    if band in _GSD_20_M:
        return np.asarray(uniform_filter(image, 2))
    # The optics spread a point over its neighbours; 0.12 gives about the MTF of the 10 m bands.
    for axis in (0, 1):
        before, after = np.roll(image, 1, axis), np.roll(image, -1, axis)
        image = (1 - 2 * spread) * image + spread * (before + after)
    return image


def tint_field(seed: int, index: int, side: int, seam: float) -> tuple[Raster, Raster]:
    """Return the gain and offset of each band for one granule of one period.

    All granules differ by about 1 %; in every second period one granule is off by `seam`.
    """
    rng = derive_rng(seed, "sensor", index, side)
    gain = 1 + 0.01 * rng.standard_normal(len(BANDS))
    offset = 0.001 * rng.standard_normal(len(BANDS))
    if index % 2 == 1 and side == 1 - (index // 2) % 2:
        gain += rng.choice([-1, 1], len(BANDS)) * seam * rng.uniform(0.6, 1.4, len(BANDS))
        offset += rng.choice([-1, 1], len(BANDS)) * 0.1 * seam * rng.uniform(0.5, 1.5, len(BANDS))
    return gain.astype(np.float32), offset.astype(np.float32)


def pack_numbers(reflectance: Raster) -> NDArray[np.uint16]:
    """Return digital numbers: reflectance times 10,000, plus the offset, in 1 to 65535."""
    return np.clip(np.rint(reflectance * 10_000 + OFFSET), 1, 65_535).astype(np.uint16)
