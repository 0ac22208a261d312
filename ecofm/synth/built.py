"""The built things of the synthetic country as data: roles, materials, places, rasters."""

from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from ecofm.synth.noise import Raster

NEVER = 255
"""A period that does not come."""


class Role(IntEnum):
    """What a built pixel is for."""

    NONE = 0
    YARD = 1
    TRACK = 2
    PAVED = 3
    HOUSE = 4
    INDUSTRY = 5
    MARKET = 6
    GREENHOUSE = 7


class Material(IntEnum):
    """What a built pixel is made of, as seen from above."""

    NONE = 0
    MUD = 1
    THATCH = 2
    CLAY = 3
    DUST = 4
    GARDEN = 5
    ASPHALT = 6
    CONCRETE = 7
    WHITE = 8
    BLUE = 9
    TILE = 10
    DARK = 11
    PLASTIC = 12


@dataclass(kw_only=True, slots=True)
class Place:
    """One lattice of lots and what stands on it."""

    role: Role
    """What its buildings are for."""
    row: float
    """Centre, pixels from the north edge."""
    col: float
    """Centre, pixels from the west edge."""
    radius_px: float
    """About how far it reaches."""
    quality: float
    """0 bent lanes and mud roofs, 1 straight streets and modern roofs."""
    upgrade: float = 0.0
    """Share of the roofs that become modern after the first period."""
    spread: float = 0.0
    """Share of the radius that is built after the first period."""
    opens: int = 0
    """First period in which it exists."""
    angle: float = 0.0
    """Direction of its streets, radians."""
    seed: int = 0
    """Its own random numbers."""


@dataclass(kw_only=True, slots=True)
class Built:
    """Rasters of everything built, in every period, all `[height, width]`."""

    role: NDArray[np.uint8]
    """`Role` of each pixel."""
    birth: NDArray[np.uint8]
    """First period in which it stands; `NEVER` where nothing does."""
    renewal: NDArray[np.uint8]
    """First period in which it is of the new material; `NEVER` if it stays old."""
    old: NDArray[np.uint8]
    """`Material` at first."""
    new: NDArray[np.uint8]
    """`Material` from `renewal` on."""
    cover: Raster
    """Share of the pixel that it covers."""
    order: Raster
    """How straight and spacious its lattice is, 0 to 1."""
    n_periods: int
    """Number of periods."""
    places: list[Place] = field(default_factory=list)
    """The places, in the order drawn."""
