"""What may differ between two synthetic countries: climate, ways of building, and the sensor.

The defaults are the country that the demo draws. Development is defined alike in all: it counts
what is built and how, whatever it is made of.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ecofm.synth.built import Material

Spectrum = tuple[float, ...]
"""Surface reflectance in percent, one number for each of the 12 bands."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Climate:
    """How green the land is, and what the wilderness is made of."""

    crops: float = 1.0
    """Greenness of crops, relative to the temperate country's; so for trees and grass."""
    trees: float = 1.0
    grass: float = 1.0
    snow: float = 1.0
    """Snow on the mountains in early spring, relative."""
    pale_soil: float = 0.0
    """Added to the share of pale soil."""
    wilderness: tuple[float, float, float] = (0.11, 0.36, 0.62)
    """Shares of the wilderness below which there is water, forest and rock; the rest is steppe."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Style:
    """What houses are made of and how close they stand."""

    poor_roofs: tuple[Material, ...] = (
        Material.MUD, Material.THATCH, Material.CLAY, Material.MUD,
    )  # fmt: skip
    """Old roofs, as often as they are named; all below `Material.ASPHALT`."""
    modern_roofs: tuple[Material, ...] = (
        Material.BLUE, Material.WHITE, *[Material.DARK] * 2, *[Material.TILE] * 2,
        *[Material.CONCRETE] * 2,
    )  # fmt: skip
    """New roofs of houses, as often as they are named."""
    hall_roofs: tuple[Material, ...] = (
        Material.WHITE, Material.BLUE, Material.CONCRETE, Material.DARK,
    )  # fmt: skip
    """Roofs of industry and markets."""
    lot: float = 1.0
    """Sides of a house's lot, relative."""
    gardens: float = 0.25
    """Least share of yards that are gardens."""
    colours: dict[Material, Spectrum] = field(default_factory=dict)
    """Materials that look different here."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sensor:
    """How the instrument differs from the default's."""

    gain: Spectrum = (1.0,) * 12
    """Factor on each band's reflectance: another calibration or spectral response."""
    spread: float = 0.12
    """Share of a 10 m pixel's light that each neighbour gets, in rows and in columns."""
    noise: float = 1.0
    """Noise, relative."""


CLIMATES = {
    "temperate": Climate(),
    "arid": Climate(
        crops=0.6, trees=0.65, grass=0.35, snow=0, pale_soil=0.35, wilderness=(0.03, 0.10, 0.55)
    ),
    "humid": Climate(
        crops=1.35, trees=1.08, grass=2.0, snow=0, pale_soil=-0.3, wilderness=(0.16, 0.72, 0.80)
    ),
}
STYLES = {
    "northern": Style(),
    "southern": Style(
        poor_roofs=(Material.THATCH, Material.CLAY, Material.CLAY),
        modern_roofs=(Material.TILE, Material.TILE, Material.CONCRETE, Material.WHITE),
        hall_roofs=(Material.CONCRETE, Material.WHITE, Material.TILE),
        lot=0.8,
        gardens=0.0,
        colours={
            # Red earth, and tiles bleached by the sun.
            Material.CLAY: (6, 7, 10, 20, 23, 26, 28, 30, 31, 31, 36, 32),
            Material.DUST: (7, 8, 12, 21, 24, 26, 28, 29, 30, 30, 37, 34),
            Material.TILE: (9, 11, 15, 25, 28, 30, 32, 34, 35, 34, 36, 31),
        },
    ),
}
SENSORS = {
    "first": Sensor(),
    "second": Sensor(
        gain=(1.06, 1.08, 1.03, 0.95, 0.97, 1.04, 1.02, 0.93, 0.95, 1.0, 1.07, 0.92),
        spread=0.17,
        noise=1.6,
    ),
}
