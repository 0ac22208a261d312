"""Memory of a plan and of writing an index, by the number of tiles.

    python -m benchmarks.plan [TILES ...]

Scenes are granules of 10,980 px, headers without pixels, on two dates each; the grid is utm:2560.
Each figure is of a process of its own: what its anonymous memory grew by, and its peak.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import geopandas as gpd
import pandas as pd
import rasterio
import shapely
from affine import Affine

from benchmarks.record import describe_machine
from ecofm.artifact import write_json
from ecofm.tiles.archive import INDEX_COLUMNS
from ecofm.tiles.plan import TileConfig, build_plan
from ecofm.tiles.sources import find_sources
from ecofm.tiles.target import write_index

SIDE_PX, CELLS = 10_980, 1_850
COLUMNS = 5
YEARS = (2018, 2019)
ROWS = 65_536
RESULTS = Path(__file__).parent / "results" / "plan.json"


def paint(folder: Path, n_tiles: int) -> None:
    """Write headers of granules whose cells, in both years, are about as many as the tiles."""
    for n in range(-(-n_tiles // CELLS // len(YEARS))):
        zone, place = divmod(n, COLUMNS * 70)
        left = 220_000 + place % COLUMNS * SIDE_PX * 10
        top = 200_000 + (place // COLUMNS + 1) * SIDE_PX * 10
        for year in YEARS:
            with rasterio.open(
                folder / f"g{n:05d}_{year}0601.tif",
                "w",
                driver="GTiff",
                width=SIDE_PX,
                height=SIDE_PX,
                count=1,
                dtype="uint8",
                crs=f"EPSG:{32630 + 2 * zone}",
                transform=Affine(10, 0, left, 0, -10, top),
                sparse_ok=True,
                tiled=True,
            ):
                pass  # fmt: skip


def anon_mb() -> float:
    """Return this process's anonymous memory now."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))


def plan(folder: Path) -> int:
    """Plan the tiles of a folder, and return how many there are."""
    held.append(build_plan(find_sources([folder]), TileConfig()))
    return len(held[0].jobs)


def index(n_tiles: int) -> int:
    """Write an index of so many tiles, as a run does with the parts of its shards."""

    def parts() -> Iterator[gpd.GeoDataFrame]:
        outline = shapely.box(127.0, 39.0, 127.02, 39.02)
        for start in range(0, n_tiles, ROWS):
            ids = [
                f"32652_{n // 1000}_{n % 1000}" for n in range(start, min(start + ROWS, n_tiles))
            ]
            columns = {
                "tile_id": [f"{cell_id}@2019" for cell_id in ids], "cell_id": ids,
                "period": "2019", "group": "", "valid_share": 1.0, "shard": start // 64,
                "row": range(len(ids)), "dates": "2019-06-01", "day": 18_000,
                "checksum": [f"{n:016x}" for n in range(len(ids))],
            }  # fmt: skip
            assert list(columns) == INDEX_COLUMNS
            geometry = gpd.GeoSeries([outline] * len(ids), crs="EPSG:4326")
            yield gpd.GeoDataFrame(pd.DataFrame(columns), geometry=geometry)

    with tempfile.TemporaryDirectory() as out:
        write_index(Path(out), parts())
    return n_tiles


held: list[object] = []


def one(what: Callable[[], int]) -> None:
    """Print what a call does to this process's memory, and how long it takes."""
    before, began = anon_mb(), time.perf_counter()
    peak_before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    n_tiles = what()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        json.dumps(
            {
                "n_tiles": n_tiles,
                "held_mb": anon_mb() - before,
                "peak_mb": peak - peak_before,
                "seconds": time.perf_counter() - began,
            }
        )
    )


def measure(*words: str) -> dict[str, float]:
    """Return the figures of a process of its own."""
    command = [sys.executable, "-m", "benchmarks.plan", *words]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return dict(json.loads(out.splitlines()[-1]))


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tiles", type=int, nargs="*", default=[100_000, 1_000_000])
    parser.add_argument("--plan", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--index", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.plan:
        one(lambda: plan(options.plan))
        return
    if options.index:
        one(lambda: index(options.index))
        return
    found = []
    for n_tiles in options.tiles:
        with tempfile.TemporaryDirectory() as folder:
            paint(Path(folder), n_tiles)
            planned, written = measure("--plan", folder), measure("--index", str(n_tiles))
        found.append({"plan": planned, "index": written})
        for name, row in found[-1].items():
            print(
                f"{row['n_tiles']:>10,d} tiles, {name}: {row['held_mb']:.0f} MB held, peak "
                f"{row['peak_mb']:.0f} MB, {row['seconds']:.1f} s"
            )
    write_json(RESULTS, {"runs": found, **describe_machine(("numpy", "pyarrow", "geopandas"))})


if __name__ == "__main__":
    main()
