"""What is true of the synthetic country: development of each cell, districts and census.

Development is computed from what is drawn, so that nearly all of it can be seen.
"""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ecofm.synth.built import Built, Material, Role
from ecofm.synth.land import Ground, Land, Line
from ecofm.synth.noise import Raster, derive_rng

HIDDEN_SHARE = 0.02
"""Share of the variance of development that nothing in the picture explains."""


def measure_cells(land: Land, built: Built, cell_px: int, index: int) -> dict[str, Raster]:
    """Return the visible components of development in period `index`, each `[rows, columns]`."""
    standing = built.birth <= index
    role = np.where(standing, built.role, 0)
    house = role == Role.HOUSE
    modern = standing & (built.renewal <= index) & (built.new >= Material.ASPHALT)
    quality = house * (0.6 * modern + 0.4 * built.order)
    field = (land.ground == Ground.FIELD) & (role == Role.NONE)

    def share(raster: NDArray[Any]) -> Raster:
        n = raster.shape[0] // cell_px
        blocks = raster.reshape(n, cell_px, n, cell_px)
        means: Raster = blocks.mean(axis=(1, 3), dtype=np.float64).astype(np.float32)
        return means

    houses = share(house)
    industry, market = share(role == Role.INDUSTRY), share(role == Role.MARKET)
    return {
        "built_share": houses + industry + market,
        "building_quality": share(quality) / np.maximum(houses, 1e-4),
        "road_density": share(role == Role.PAVED),
        "track_density": share(role == Role.TRACK),
        "industry": industry,
        "market": market,
        "greenhouse": share(role == Role.GREENHOUSE),
        "field_share": share(field),
        "mechanisation": share(land.mechanisation * field),
        "canal": share((land.line == Line.CANAL) & field),
        "wild": share(land.wild),
    }


def develop(cells: dict[str, Raster], rng: np.random.Generator) -> Raster:
    """Return the development of each cell from its components; 0 is an empty cell."""

    def fill(name: str, half: float) -> Raster:
        # Each further house or road adds less than the one before.
        return cells[name] / (cells[name] + np.float32(half))

    houses = fill("built_share", 0.04)
    visible = (
        2.8 * houses * cells["building_quality"] ** 1.5
        + 0.6 * fill("road_density", 0.06)
        + 0.8 * fill("industry", 0.07)
        + 0.7 * fill("market", 0.015)
        + 0.35 * fill("greenhouse", 0.04)
        + 0.95 * cells["mechanisation"]
        + 0.15 * cells["field_share"]
        + 0.1 * fill("canal", 0.02)
        + 0.05 * fill("track_density", 0.02)
        - 0.05 * cells["wild"]
    )
    # Less is hidden where there is less to hide.
    hidden = rng.standard_normal(visible.shape) * np.sqrt(visible.clip(0.02))
    scale = np.sqrt(HIDDEN_SHARE) * visible.std() / np.sqrt(visible.clip(0.02).mean())
    development: Raster = (visible + scale * hidden).astype(np.float32)
    return development


def divide_districts(n_cells: int, seed: int) -> NDArray[np.int32]:
    """Return the district of each cell, `[rows, columns]`: irregular, connected, of whole cells."""
    rng = derive_rng(seed, "districts")
    n_districts = min(max(2, round(n_cells**2 / 25)), n_cells**2)
    district = np.full((n_cells, n_cells), -1, np.int32)
    for index, centre in enumerate(_spread_points(n_cells, n_districts, rng)):
        district[centre] = index
    while (district < 0).any():
        # One free neighbour at a time, for the smallest district that still has one.
        sizes = np.bincount(district[district >= 0], minlength=n_districts)
        for index in np.argsort(sizes + rng.uniform(0, 0.35 * sizes.max() + 1, n_districts)):
            free = _neighbours(district == index) & (district < 0)
            if free.any():
                choice = np.argwhere(free)
                district[tuple(choice[rng.integers(len(choice))])] = index
                break
    return district


def _spread_points(n_cells: int, count: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Return `count` distinct cells, each the farthest of a few random ones from the others."""
    points = [tuple(rng.integers(n_cells, size=2))]
    while len(points) < count:
        tries = rng.integers(n_cells, size=(8, 2))
        gaps = [min(np.hypot(*(t - np.array(p))) for p in points) for t in tries]
        if max(gaps) > 0:
            points.append(tuple(tries[int(np.argmax(gaps))]))
    return [(int(r), int(c)) for r, c in points]


def _neighbours(cells: NDArray[np.bool_]) -> NDArray[np.bool_]:
    padded = np.pad(cells, 1)
    return padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]


def hold_out(district: NDArray[np.int32], seed: int) -> NDArray[np.int32]:
    """Return about a third of the districts, far from each other."""
    rng = derive_rng(seed, "held out")
    count = district.max() + 1
    middles = np.array([np.argwhere(district == d).mean(axis=0) for d in range(count)])
    chosen = [int(rng.integers(count))]
    while len(chosen) < max(1, round(count / 3)):
        gaps = np.hypot(*(middles[:, None] - middles[chosen]).transpose(2, 0, 1)).min(axis=1)
        # One of the farthest few, so that the choice changes with the seed.
        chosen.append(int(rng.choice(np.argsort(gaps)[-3:][np.sort(gaps)[-3:] > 0])))
    return np.array(sorted(chosen), np.int32)


def take_census(truth: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Return noisy counts by region and period; errors are log-normal, 15 to 25 %."""
    rng = derive_rng(seed, "census")
    wealth = truth.development.clip(lower=0)
    housed = truth.built_share - truth.industry - truth.market
    people = 60 + 90_000 * housed * (0.6 + 0.4 * (1 - truth.building_quality)) + 200 * wealth
    firms = 1 + 40 * wealth**1.5 + 1_500 * truth.market + 400 * truth.industry
    jobs = 5 + 300 * wealth**1.5 + 12_000 * truth.industry + 4_000 * truth.market
    counts = pd.DataFrame({"population": people, "establishments": firms, "employees": jobs})
    keys = [truth.district.rename("region"), truth.period]
    table = counts.groupby(keys).sum()
    errors = {"population": 0.15, "establishments": 0.20, "employees": 0.25}
    for name, error in errors.items():
        noise = rng.lognormal(0, error, len(table))
        table[name] = np.rint(table[name] * noise).astype(np.int64)
    return table.reset_index()
