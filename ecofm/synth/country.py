"""A synthetic country with known development, written as Sentinel-2 scenes, truth and census."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import rasterio
from numpy.typing import NDArray
from rasterio.transform import Affine
from shapely import box, union_all

from ecofm.errors import UsageError
from ecofm.synth import imagery, truth
from ecofm.synth.built import Built
from ecofm.synth.land import Land, make_land
from ecofm.synth.noise import derive_rng
from ecofm.synth.places import build
from ecofm.synth.styles import CLIMATES, SENSORS, STYLES
from ecofm.tables import write_csv

EPSG = 32652
GSD_M = 10
# Near the central meridian of zone 52 (500 km east) and at 40 degrees north.
_WEST_M, _SOUTH_M = 500_000, 4_427_000


@dataclass(kw_only=True, slots=True)
class CountryConfig:
    """A synthetic country: its size, its periods and how hard it is to see."""

    seed: int = 0
    """Everything random follows from it."""
    n_cells: int = 20
    """Cells along each side."""
    cell_px: int = 128
    """Pixels of 10 m along each side of a cell; a multiple of 16."""
    periods: tuple[str, ...] = ("2019", "2020", "2021", "2022")
    """Names of the periods, oldest first; the one in the middle is an early spring."""
    haze: float = 0.22
    """Typical optical depth of haze in B02; it varies twofold between periods and more in space."""
    cloud_share: float = 0.075
    """Share of the pixels under cloud, give or take a quarter, different in each period."""
    noise: float = 0.003
    """Sensor noise, standard deviation of reflectance on ground of medium brightness."""
    seam: float = 0.05
    """Gain error of one granule in every second period, relative."""
    overlap_px: int = 30
    """Overlap of the western and the eastern granule."""
    climate: str = "temperate"
    """How green the land is and what the wilderness is: `temperate`, `arid` or `humid`."""
    style: str = "northern"
    """What houses are made of and how close they stand: `northern` or `southern`."""
    sensor: str = "first"
    """Calibration, sharpness and noise of the instrument: `first` or `second`."""

    def __post_init__(self) -> None:
        """Refuse sizes that cannot be drawn."""
        if self.n_cells < 2 or self.cell_px < 16 or self.cell_px % 2:
            raise UsageError(
                f"a country needs n_cells >= 2 and an even cell_px >= 16, "
                f"not n_cells={self.n_cells}, cell_px={self.cell_px}"
            )
        if not self.periods or len(set(self.periods)) < len(self.periods):
            raise UsageError(f"periods must be distinct and at least one, not {self.periods}")
        for name, known in (("climate", CLIMATES), ("style", STYLES), ("sensor", SENSORS)):
            if getattr(self, name) not in known:
                raise UsageError(f"{name} {getattr(self, name)!r}: expected {', '.join(known)}.")

    @property
    def n_px(self) -> int:
        """Pixels along each side of the country."""
        return self.n_cells * self.cell_px

    @property
    def corner(self) -> tuple[int, int]:
        """Grid x and y of the south-western cell."""
        size_m = self.cell_px * GSD_M
        return -(-_WEST_M // size_m), -(-_SOUTH_M // size_m)


def generate_country(
    out: Path, config: CountryConfig, progress: Callable[[int, int], None] | None = None
) -> Path:
    """Write a synthetic country below `out` and return `out`.

    `scenes/{period}_{west|east}.tif` hold 12 bands of uint16 digital numbers (reflectance times
    10,000 plus 1,000), with clouds in the internal mask. `truth.parquet` has one row a cell and
    period; `districts.gpkg` and `census.csv` are by region. The same config writes the same
    bytes. `progress` is called with steps done and steps in all.
    """
    out = Path(out)
    (out / "scenes").mkdir(parents=True, exist_ok=True)
    n_steps = 2 + len(config.periods)
    report = progress or (lambda done, total: None)
    land = make_land(config.n_px, config.cell_px, config.seed, CLIMATES[config.climate])
    report(1, n_steps)
    built = build(land, config.cell_px, len(config.periods), config.seed, STYLES[config.style])
    _write_tables(out, land, built, config)
    report(2, n_steps)
    for index, period in enumerate(config.periods):
        _write_period(out / "scenes", period, index, land, built, config)
        report(3 + index, n_steps)
    return out


@contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """Give a path beside `target` to write to, and rename it when the block ends well."""
    part = target.with_name(f".part-{target.name}")
    part.unlink(missing_ok=True)
    try:
        yield part
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _write_tables(out: Path, land: Land, built: Built, config: CountryConfig) -> None:
    district = truth.divide_districts(config.n_cells, config.seed)
    table = _truth_table(land, built, district, config)
    with _beside(out / "truth.parquet") as part:
        table.to_parquet(part, index=False)
    with _beside(out / "census.csv") as part:
        write_csv(truth.take_census(table, config.seed), part)
    with _beside(out / "districts.gpkg") as part:
        # GeoPackage notes the day of writing, which would change the bytes.
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": "2022-12-31T00:00:00.000Z"})
        _districts(district, config).to_file(part, driver="GPKG", layer="districts")
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": None})


def _truth_table(
    land: Land, built: Built, district: NDArray[np.int32], config: CountryConfig
) -> pd.DataFrame:
    """Return the truth: one row a cell and period, from the north-west."""
    x, y = config.corner
    n = config.n_cells
    cell_ids = [f"{EPSG}_{y + n - 1 - row}_{x + col}" for row in range(n) for col in range(n)]
    held_out = np.isin(district, truth.hold_out(district, config.seed))
    frames = []
    for index, period in enumerate(config.periods):
        cells = truth.measure_cells(land, built, config.cell_px, index)
        # The hidden part stays the same over the years: a change is one that can be seen.
        development = truth.develop(cells, derive_rng(config.seed, "hidden"))
        columns = {name: raster.ravel() for name, raster in cells.items()}
        frames.append(
            pd.DataFrame(
                {
                    "cell_id": cell_ids,
                    "period": period,
                    "development": development.ravel(),
                    "built_share": columns.pop("built_share"),
                    "district": [_region(d) for d in district.ravel()],
                    "held_out": held_out.ravel(),
                    **columns,
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def _region(district: np.integer[Any] | int) -> str:
    return f"district-{district + 1:02d}"


def _districts(district: NDArray[np.int32], config: CountryConfig) -> gpd.GeoDataFrame:
    """Return the districts as polygons of whole cells."""
    x, y = config.corner
    size_m = config.cell_px * GSD_M
    n = config.n_cells
    shapes = []
    for index in range(district.max() + 1):
        cells = [(x + col, y + n - 1 - row) for row, col in np.argwhere(district == index)]
        squares = [
            box(i * size_m, j * size_m, (i + 1) * size_m, (j + 1) * size_m) for i, j in cells
        ]
        shapes.append(union_all(squares))
    regions = [_region(index) for index in range(len(shapes))]
    return gpd.GeoDataFrame({"region": regions}, geometry=shapes, crs=f"EPSG:{EPSG}")


def _write_period(
    folder: Path, period: str, index: int, land: Land, built: Built, config: CountryConfig
) -> None:
    """Write the two granules of one period."""
    n_px, seed = config.n_px, config.seed
    rng = derive_rng(seed, "weather", index)
    # Three to five quarters of the cloud, half to nearly twice the haze.
    share = config.cloud_share * float(rng.uniform(0.75, 1.25))
    haze = config.haze * float(rng.uniform(0.5, 1.8))
    cloud = imagery.cloud_over((n_px, n_px), config.cell_px, share, seed, index)
    middle = n_px // 2 + int(0.37 * config.cell_px)
    half = min(config.overlap_px, config.cell_px // 2) // 2
    columns = {"west": slice(0, middle + half), "east": slice(middle - half, n_px)}
    numbers = {
        side: np.empty((len(imagery.BANDS), n_px, c.stop - c.start), np.uint16)
        for side, c in columns.items()
    }
    sensor = SENSORS[config.sensor]
    tints = [imagery.tint_field(seed, index, side, config.seam) for side in (0, 1)]
    bands = imagery.render_bands(
        land, built, config.cell_px, index, seed, haze=haze, noise=config.noise,
        climate=CLIMATES[config.climate], style=STYLES[config.style], sensor=sensor,
    )  # fmt: skip
    for number, image in enumerate(bands):
        image *= np.float32(sensor.gain[number])
        image += cloud * (np.float32(0.62) - image)
        for (side, window), (gain, offset) in zip(columns.items(), tints, strict=True):
            tinted = image[:, window] * gain[number] + offset[number]
            numbers[side][number] = imagery.pack_numbers(tinted)
    for side, window in columns.items():
        valid = cloud[:, window] == 0
        _write_scene(folder / f"{period}_{side}.tif", numbers[side], valid, window, period, config)


def _write_scene(
    path: Path,
    numbers: NDArray[np.uint16],
    valid: NDArray[np.bool_],
    window: slice,
    period: str,
    config: CountryConfig,
) -> None:
    """Write one granule: tiled, uncompressed, with the clouds in its internal mask."""
    x, y = config.corner
    size_m = config.cell_px * GSD_M
    west = x * size_m + window.start * GSD_M
    north = (y + config.n_cells) * size_m
    profile = {
        "driver": "GTiff",
        "dtype": "uint16",
        "count": len(imagery.BANDS),
        "height": numbers.shape[1],
        "width": numbers.shape[2],
        "crs": f"EPSG:{EPSG}",
        "transform": Affine(GSD_M, 0, west, 0, -GSD_M, north),
        "tiled": True,
        "blockxsize": 128,
        "blockysize": 128,
        "interleave": "pixel",
    }
    with _beside(path) as part, rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        with rasterio.open(part, "w", **profile) as scene:
            scene.write(numbers)
            scene.write_mask(valid)
            scene.descriptions = imagery.BANDS
            scene.update_tags(
                period=period,
                BOA_ADD_OFFSET=str(-imagery.OFFSET),
                synthetic="yes: procedural, by ecofm.synth; not Sentinel-2 data",
                config=str(asdict(config)),
            )
