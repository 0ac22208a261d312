"""python -m benchmarks.ingest [N_CELLS ...]: MB/s of `tile` beside GDAL's warper, one core.

The same cells of 256x256x12 uint16 are written by `tile` and by GDAL's warper (what gdalwarp
runs), each cell an uncompressed GeoTIFF, from a scene on the grid and from one in EPSG:4326. They
take turns; the time is the processor's, so that other work on the machine does not count. Both
must write the same pixels where the scene is on the grid. Figures go to
benchmarks/results/ingest.json.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import rasterio
from odc.geo.geobox import GeoBox
from rasterio.warp import Resampling, reproject

from benchmarks.record import describe_machine
from ecofm.artifact import write_json
from ecofm.grid import Grid
from ecofm.tiles.archive import open_archive
from ecofm.tiles.ingest import TileConfig, tile

BANDS, TILE_PX, REPEATS = 12, 256, 3
LEFT, TOP = 320000, 4321280
RESULTS = Path(__file__).parent / "results" / "ingest.json"


def paint(path: Path, n_cells: int, on_grid: bool) -> None:
    """Write a scene of n x 10 cells: random pixels, tiled, uncompressed."""
    width, height = 10 * TILE_PX, n_cells // 10 * TILE_PX
    affine = rasterio.Affine(10, 0, LEFT, 0, -10, TOP)
    crs = "EPSG:32652"
    if not on_grid:
        affine, crs = rasterio.Affine(1.1e-4, 0, 126.92, 0, -9e-5, 39.02), "EPSG:4326"
    pixels = np.random.default_rng(0).integers(1, 2**16, (BANDS, height, width), dtype=np.uint16)
    with rasterio.open(
        path, "w", driver="GTiff", dtype="uint16", count=BANDS, width=width, height=height, crs=crs,
        transform=affine, tiled=True, blockxsize=256, blockysize=256, interleave="band", nodata=0,
    ) as file:  # fmt: skip
        file.write(pixels)


def warp(scene: Path, out: Path, cells: list[tuple[str, GeoBox]], method: Resampling) -> None:
    """Write each cell as a GeoTIFF, by GDAL's warper."""
    out.mkdir()
    with rasterio.open(scene) as source:
        numbers = list(range(1, BANDS + 1))
        for cell_id, box in cells:
            with rasterio.open(
                out / f"{cell_id}.tif", "w", driver="GTiff", dtype="uint16", count=BANDS,
                width=TILE_PX, height=TILE_PX, crs=str(box.crs), transform=box.affine, nodata=0,
                interleave="band",
            ) as target:  # fmt: skip
                reproject(
                    rasterio.band(source, numbers), rasterio.band(target, numbers),
                    resampling=method, num_threads=1,
                )  # fmt: skip


def seconds_of(make: Callable[[], object]) -> float:
    """Return the processor time of a call."""
    began = time.process_time()
    make()
    return time.process_time() - began


def measure(root: Path, n_cells: int, on_grid: bool) -> dict[str, object]:
    """Return the seconds of both for one scene."""
    scene = root / "a_2019.tif"
    paint(scene, n_cells, on_grid)
    config = TileConfig(grid="utm:2560")
    tile([scene], root / "first", config)
    archive = open_archive(root / "first")
    grid = Grid("utm:2560")
    cells = [(cell_id, grid.cell(cell_id).geobox) for cell_id in archive.index["cell_id"]]
    method = Resampling.nearest if on_grid else Resampling.bilinear
    seconds: dict[str, list[float]] = {"ecofm tile": [], "GDAL's warper": []}
    for repeat in range(REPEATS):
        out = root / f"{repeat}"
        seconds["ecofm tile"].append(seconds_of(lambda out=out: tile([scene], out, config)))
        cut = root / f"{repeat}-cut"
        seconds["GDAL's warper"].append(seconds_of(lambda cut=cut: warp(scene, cut, cells, method)))
        if repeat == 0 and on_grid:
            for number, (cell_id, _) in enumerate(cells):
                with rasterio.open(cut / f"{cell_id}.tif") as file:
                    assert np.array_equal(file.read(), archive.read(number)[0]), cell_id
        shutil.rmtree(out)
        shutil.rmtree(cut)
    n_bytes = len(cells) * BANDS * TILE_PX**2 * 2
    shutil.rmtree(root / "first")
    kind = "on the grid" if on_grid else "EPSG:4326"
    rates = {name: n_bytes / 1e6 / min(values) for name, values in seconds.items()}
    print(
        f"{kind:12s} {len(cells):5d} cells: "
        + ", ".join(f"{name} {rate:.0f} MB/s" for name, rate in rates.items())
        + f", {min(seconds['ecofm tile']) / len(cells) * 1e3:.2f} ms a cell"
    )
    return {"kind": kind, "n_cells": len(cells), "n_bytes": n_bytes, "cpu_s": seconds}


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("n_cells", type=int, nargs="*", default=[100, 200, 400])
    found = []
    for on_grid in (True, False):
        for n_cells in parser.parse_args().n_cells:
            with tempfile.TemporaryDirectory() as folder:
                found.append(measure(Path(folder), n_cells, on_grid))
    versions = ("rasterio", "numpy", "odc-geo")
    write_json(RESULTS, {"runs": found, **describe_machine(versions)})


if __name__ == "__main__":
    main()
