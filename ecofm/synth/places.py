"""What people built in the synthetic country: settlements, roads, industry, markets, greenhouses.

Each place is a turned, more or less straight lattice of lots. Poor villages are bent lattices
of small soil-coloured roofs; developed towns are straight ones, with larger blocks, paved
streets and modern roofs. How much is built and how well are drawn apart from each other.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ecofm.synth.built import NEVER, Built, Material, Place, Role
from ecofm.synth.land import Ground, Land
from ecofm.synth.noise import Raster, derive_rng, hash_uniform, smooth_noise
from ecofm.synth.routes import draw_routes
from ecofm.synth.styles import Style


def build(land: Land, cell_px: int, n_periods: int, seed: int, style: Style) -> Built:
    """Return everything built on `land` in `n_periods` periods."""
    shape = land.ground.shape
    built = Built(
        role=np.zeros(shape, np.uint8),
        birth=np.full(shape, NEVER, np.uint8),
        renewal=np.full(shape, NEVER, np.uint8),
        old=np.zeros(shape, np.uint8),
        new=np.zeros(shape, np.uint8),
        cover=np.zeros(shape, np.float32),
        order=np.zeros(shape, np.float32),
        n_periods=n_periods,
    )
    settlements = _settle(land, cell_px, n_periods, derive_rng(seed, "settle"))
    draw_routes(built, land, settlements, cell_px, derive_rng(seed, "routes"))
    rng = derive_rng(seed, "lanes")
    bends = (smooth_noise(shape, 8, rng), smooth_noise(shape, 8, rng))
    built.places = settlements + _add_sites(
        settlements, land, cell_px, n_periods, derive_rng(seed, "sites")
    )
    for place in built.places:
        _draw_place(built, land, place, bends, style)
    return built


def _settle(land: Land, cell_px: int, n_periods: int, rng: np.random.Generator) -> list[Place]:
    """Return towns, villages and farmsteads on habitable land, the large ones first."""
    n_px = land.ground.shape[0]
    n_cells = (n_px / cell_px) ** 2
    region = smooth_noise((n_px, n_px), 4 * cell_px, rng)
    kinds = (  # number, least distance and radii in cells, spread of log radius
        (n_cells / 26, 2.2, 0.62, 0.30),
        (n_cells / 5.5, 0.8, 0.25, 0.35),
        (n_cells / 2.5, 0.5, 0.11, 0.30),
    )
    places: list[Place] = []
    for size, (count, gap, radius, spread) in enumerate(kinds):
        for row, col in _spots(land, places, max(1, round(count)), gap * cell_px, rng):
            spot = int(row), int(col)
            # Rich land and rich villages go together, loosely.
            lead = 0.5 * (land.mechanisation[spot] - 0.5) * (land.ground[spot] == Ground.FIELD)
            quality = 0.5 + lead + 0.10 * region[spot] + 0.20 * rng.standard_normal()
            quality = float(np.clip(quality + (0.12, -0.08, 0)[size], 0.02, 0.98))
            # Poor villages are as wide as well-built towns: built share is not development.
            reach = radius * np.exp(spread * rng.standard_normal()) * (1.55 - 1.1 * quality)
            place = Place(
                role=Role.HOUSE,
                row=row,
                col=col,
                radius_px=min(float(reach), 1.3) * cell_px,
                quality=quality,
                angle=float(rng.uniform(0, np.pi)),
                seed=int(rng.integers(2**31)),
            )
            _let_grow(place, size, n_periods, rng)
            places.append(place)
    return places


def _let_grow(place: Place, size: int, n_periods: int, rng: np.random.Generator) -> None:
    """Let one place in three or four grow outward, be rebuilt, or begin late."""
    chance = rng.random(3)
    if chance[0] < (0.35, 0.2, 0.1)[size]:
        place.spread = float(rng.uniform(0.2, 0.5))
    if chance[1] < (0.35, 0.2, 0.1)[size]:
        place.upgrade = float(rng.uniform(0.2, 0.6) * (1 - place.quality))
    if size == 2 and chance[2] < 0.1 and n_periods > 1:
        place.opens = int(rng.integers(1, n_periods))


def _spots(
    land: Land, taken: list[Place], count: int, gap_px: float, rng: np.random.Generator
) -> Iterator[tuple[float, float]]:
    """Yield up to `count` habitable spots at least `gap_px` from each other and from `taken`."""
    n_px = land.ground.shape[0]
    occupied = [(p.row, p.col, 1.1 * p.radius_px) for p in taken]
    found = 0
    for row, col in rng.uniform(0.02 * n_px, 0.98 * n_px, (40 * count, 2)):
        if land.ground[int(row), int(col)] not in (Ground.FIELD, Ground.FOREST):
            continue
        if land.wild[int(row), int(col)] > 0.68:
            continue
        if any(np.hypot(row - r, col - c) < max(gap_px, reach) for r, c, reach in occupied):
            continue
        occupied.append((row, col, gap_px))
        found += 1
        yield float(row), float(col)
        if found == count:
            return


def _add_sites(
    settlements: list[Place],
    land: Land,
    cell_px: int,
    n_periods: int,
    rng: np.random.Generator,
) -> list[Place]:
    """Return the industry, markets and greenhouses that belong to some settlements."""
    sites = []
    for home in settlements:
        size = home.radius_px / cell_px
        if rng.random() < np.clip(1.1 * size * (0.4 + home.quality), 0, 0.8):
            reach = rng.uniform(0.12, 0.30) * cell_px
            sites.append(_site(Role.INDUSTRY, home, 1.15, reach, n_periods, rng))
        if rng.random() < (0.30 if size > 0.2 else 0.06):
            reach = rng.uniform(0.07, 0.11) * cell_px
            sites.append(_site(Role.MARKET, home, 0.25, reach, n_periods, rng))
        if rng.random() < 0.22:
            reach = rng.uniform(0.08, 0.22) * cell_px
            sites.append(_site(Role.GREENHOUSE, home, 1.4, reach, n_periods, rng))
    n_px = land.ground.shape[0]
    return [s for s in sites if 0 <= s.row < n_px and 0 <= s.col < n_px]


def _site(
    role: Role,
    home: Place,
    distance: float,
    radius_px: float,
    n_periods: int,
    rng: np.random.Generator,
) -> Place:
    """Return a site `distance` settlement radii away from the middle of `home`."""
    bearing = rng.uniform(0, 2 * np.pi)
    away = distance * home.radius_px + (0 if role == Role.MARKET else 0.7 * radius_px)
    late = n_periods > 1 and rng.random() < 0.25
    return Place(
        role=role,
        row=home.row + away * float(np.sin(bearing)),
        col=home.col + away * float(np.cos(bearing)),
        radius_px=max(float(radius_px), 5.0),
        quality=0.95,
        opens=int(rng.integers(1, n_periods)) if late else home.opens,
        angle=home.angle,
        seed=int(rng.integers(2**31)),
    )


@dataclass(slots=True)
class _Lots:
    """The lattice of one place, per pixel of its window."""

    i: NDArray[np.int32]
    j: NDArray[np.int32]
    across: Raster  # px from the lot's edge
    along: Raster
    width: float  # px of one lot
    depth: float
    distance: Raster  # of the lot's middle from the place's, 1 at its edge


def _draw_place(
    built: Built, land: Land, place: Place, bends: tuple[Raster, Raster], style: Style
) -> None:
    """Draw one place over whatever stands there, but not on water."""
    n_px = built.role.shape[0]
    reach = int(1.5 * place.radius_px) + 4
    rows = slice(max(0, int(place.row) - reach), min(n_px, int(place.row) + reach))
    cols = slice(max(0, int(place.col) - reach), min(n_px, int(place.col) + reach))
    lots = _lay_lots(place, rows, cols, [b[rows, cols] for b in bends], style.lot)
    birth = _birth(lots, place, built.n_periods)
    inside = (birth < NEVER) & (land.ground[rows, cols] != Ground.WATER)
    street, street_cover = _streets(lots, place)
    house = _houses(lots, place) & ~street
    roof = hash_uniform(place.seed + 5, lots.i, lots.j)
    old, new = _roofs(place, roof, style)
    renewal = _renewal(place, roof, built.n_periods)
    paved = place.quality > 0.45
    surface = Material.DUST
    if paved:
        surface = Material.ASPHALT if place.seed % 3 else Material.CONCRETE
    open_role = place.role if place.role in (Role.INDUSTRY, Role.MARKET) else Role.YARD
    yard = _yards(lots, place, style)
    roof_cover = 0.95 if place.quality > 0.3 else 0.8
    coats = (
        (~street & ~house, open_role, yard, yard, 0.75, 0),
        (street, Role.PAVED if paved else Role.TRACK, surface, surface, street_cover, 0),
        (house, place.role, old, new, roof_cover, renewal),
    )
    rasters = (built.role, built.old, built.new, built.cover, built.renewal)
    window = (rows, cols)
    for where, *values in coats:
        where = where & inside
        for raster, value in zip(rasters, values, strict=True):
            raster[window][where] = np.broadcast_to(np.asarray(value), where.shape)[where]
    built.birth[window][inside] = birth[inside]
    built.order[window][inside] = place.quality


def _yards(lots: _Lots, place: Place, style: Style) -> NDArray[np.uint8]:
    """Return what lies between roofs: earth, gardens or concrete, by taste and not by wealth."""
    patch = hash_uniform(place.seed + 6, lots.i // 3, lots.j // 3)
    if place.role in (Role.INDUSTRY, Role.MARKET):
        return np.where(patch < 0.5, Material.CONCRETE, Material.DUST).astype(np.uint8)
    taste = (place.seed % 1000) / 1000
    return np.where(patch < style.gardens + 0.5 * taste, Material.GARDEN, Material.DUST).astype(
        np.uint8
    )


def _lay_lots(place: Place, rows: slice, cols: slice, bends: list[Raster], lot: float) -> _Lots:
    y = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] - np.float32(place.row)
    x = np.arange(cols.start, cols.stop, dtype=np.float32)[None] - np.float32(place.col)
    cos, sin = np.float32(np.cos(place.angle)), np.float32(np.sin(place.angle))
    bent = np.float32(3.2 * (1 - place.quality) ** 1.2 if place.role == Role.HOUSE else 0)
    u = x * cos + y * sin + bent * bends[0]
    v = y * cos - x * sin + bent * bends[1]
    width, depth = {
        Role.HOUSE: (lot * (3.0 + 3.6 * place.quality), lot * (3.2 + 5.4 * place.quality)),
        Role.INDUSTRY: (11.0, 20.0),
        Role.MARKET: (5.0, 9.0),
        Role.GREENHOUSE: (3.6, 13.0),
    }[place.role]
    i, j = np.floor(u / width), np.floor(v / depth)
    middle_u, middle_v = (i + 0.5) * width, (j + 0.5) * depth
    if place.role == Role.HOUSE:
        # Old villages sprawl; planned ones fill a rounded square.
        power = 2 + 2 * place.quality
        wobble = 1 + 0.45 * (1 - place.quality) * bends[0]
        distance = (np.abs(middle_u) ** power + np.abs(middle_v) ** power) ** (1 / power) * wobble
    else:
        distance = np.maximum(np.abs(middle_u), np.abs(middle_v))
    return _Lots(
        i.astype(np.int32),
        j.astype(np.int32),
        u - i * width,
        v - j * depth,
        width,
        depth,
        distance / np.float32(place.radius_px),
    )


def _birth(lots: _Lots, place: Place, n_periods: int) -> NDArray[np.uint8]:
    """Return the first period of each lot; `NEVER` outside the place."""
    birth = np.full(lots.distance.shape, place.opens, np.float32)
    if place.spread and n_periods > 1:
        age = (lots.distance - (1 - place.spread)) / place.spread
        grown = np.ceil(age * (n_periods - 1))
        birth = np.maximum(birth, np.clip(grown, 0, n_periods - 1))
    ragged = 0.75 + 0.25 * hash_uniform(place.seed + 1, lots.i, lots.j)
    birth[lots.distance > ragged] = NEVER
    return birth.astype(np.uint8)


def _streets(lots: _Lots, place: Place) -> tuple[NDArray[np.bool_], float]:
    """Return where streets run, and the share of a pixel that they cover."""
    if place.role == Role.GREENHOUSE:
        return np.zeros(lots.i.shape, bool), 0.0
    if place.role != Role.HOUSE:
        return (lots.i % 3 == 0) & (lots.across < 1.6), 0.9
    wide = 0.7 + 1.7 * place.quality
    every = 3 if place.quality > 0.45 else 5
    street = (lots.i % every == 0) & (lots.across < wide)
    street |= (lots.j % 2 == 0) & (lots.along < wide)
    return street, 0.6 + 0.35 * place.quality


def _houses(lots: _Lots, place: Place) -> NDArray[np.bool_]:
    """Return where roofs are."""
    luck = hash_uniform(place.seed + 2, lots.i, lots.j)
    size = hash_uniform(place.seed + 3, lots.i, lots.j)
    fill = {Role.HOUSE: 0.70, Role.INDUSTRY: 0.75, Role.MARKET: 0.6, Role.GREENHOUSE: 0.92}
    gap = 1.0 if place.role != Role.INDUSTRY else 2.0
    jitter = (1 - place.quality) * (size - 0.5) * 1.5
    wide = (lots.width - gap) * (0.75 + 0.35 * size * place.quality)
    deep = (lots.depth - gap) * (0.70 + 0.35 * (1 - size))
    roof = (lots.across - gap - jitter < wide) & (lots.across - jitter >= gap)
    roof &= (lots.along >= gap) & (lots.along < gap + deep)
    if place.role == Role.HOUSE and place.quality > 0.4:
        # Blocks: two by two lots under one roof, in the better towns.
        block = hash_uniform(place.seed + 4, lots.i // 2, lots.j // 2)
        merged = block < 0.5 * (place.quality - 0.4) / 0.6
        roof |= merged & ((lots.i % 2 == 0) | (lots.across < wide)) & (lots.along > gap)
    return roof & (luck < fill[place.role])


def _roofs(place: Place, roof: Raster, style: Style) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return the old and the new material of each roof."""
    choice = ((roof * 7919) % 1 * 997).astype(np.int64)
    if place.role == Role.GREENHOUSE:
        plastic = np.full(roof.shape, Material.PLASTIC, np.uint8)
        return plastic, plastic
    if place.role in (Role.INDUSTRY, Role.MARKET):
        halls = np.array(style.hall_roofs, np.uint8)
        hall = halls[choice % len(halls)]
        return hall, hall
    poor, modern = np.array(style.poor_roofs, np.uint8), np.array(style.modern_roofs, np.uint8)
    return poor[choice % len(poor)], modern[choice % len(modern)]


def _renewal(place: Place, roof: Raster, n_periods: int) -> NDArray[np.uint8]:
    """Return the period from which each roof is modern; `NEVER` if it stays poor."""
    renewal = np.full(roof.shape, NEVER, np.uint8)
    if place.upgrade and n_periods > 1:
        late = (roof - place.quality) / place.upgrade
        turned = late < 1
        renewal[turned] = np.clip(1 + late[turned] * (n_periods - 1), 0, n_periods - 1)
    renewal[roof < place.quality] = 0
    return renewal
