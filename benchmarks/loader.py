"""python -m benchmarks.loader [GIGABYTES]: samples a second, side by side in one run.

Random tiles of 256x256x12 uint16 in pairs of two years, crop 224. Ours, torchgeo's sampler path,
plain rasterio, and crops from memory read the same crops of the same pixels; one untimed pass
compares the checksums of what they read, then they take turns. Then the cost of a sample and the
memory of the process at 1,000 and at 1,000,000 tiles. Figures go to benchmarks/results/loader.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import rasterio
import xxhash
from rasterio.windows import Window
from torch.utils.data import DataLoader
from torchgeo.datasets import RasterDataset

from benchmarks.record import describe_machine
from ecofm.artifact import MANIFEST, read_json, write_json, write_sealed
from ecofm.checksums import describe_files
from ecofm.tiles.archive import Archive, open_archive
from ecofm.tiles.ingest import TileConfig, tile
from ecofm.tiles.loader import PairLoader

BANDS, TILE_PX, CROP_PX, SIDE = 12, 256, 224, 10
SCENE_PX = SIDE * TILE_PX
LEFT, TOP, EPSG = 320000, 4321280, 32652
BATCH, BATCHES, REPEATS, COLD_REPEATS = 32, 6, 3, 1
SCALES, TURNS = (1_000, 1_000_000), 200
YEARS = ("20180601", "20190601")
RESULTS = Path(__file__).parent / "results" / "loader.json"
Batches = Callable[[int], Iterator[np.ndarray]]


def paint(folder: Path, gigabytes: float) -> int:
    """Write random scenes of 10 x 10 cells for both years; return the number of cells."""
    n_places = max(1, round(gigabytes * 1e9 / (2 * SCENE_PX**2 * BANDS * 2)))
    for place in range(n_places):
        for number, year in enumerate(YEARS):
            random = np.random.default_rng((place, number))
            pixels = random.integers(1, 2**16, (BANDS, SCENE_PX, SCENE_PX), dtype=np.uint16)
            with rasterio.open(
                folder / f"p{place:03d}_{year}.tif", "w", driver="GTiff", dtype="uint16",
                count=BANDS, width=SCENE_PX, height=SCENE_PX, crs=f"EPSG:{EPSG}", tiled=True,
                blockxsize=TILE_PX, blockysize=TILE_PX, interleave="band",
                transform=rasterio.Affine(10, 0, LEFT + place % 4 * 10 * SCENE_PX, 0, -10,
                                          TOP - place // 4 * 10 * SCENE_PX),
            ) as file:  # fmt: skip
                file.write(pixels)
    return n_places * SIDE**2


class Places:
    """Where the crops of a step lie on the ground: what rivals need to read the same pixels."""

    def __init__(self, archive: Archive, loader: PairLoader) -> None:
        """Take the archive, and the loader that chooses the crops."""
        self.loader = loader
        cells = archive.index["cell_id"].str.split("_", expand=True)[[1, 2]].astype(int).to_numpy()
        self.y, self.x = cells.T
        self.year = archive.index["dates"].str.replace("-", "").to_numpy()

    def of(self, step: int) -> list[tuple[int, int, int, str]]:
        """Return (tile, left in m, top in m, date) of each crop, views after each other."""
        pairs, corners = self.loader.pairs(step), self.loader.corners(step)
        found = []
        for view in (0, 1):
            for tile_index, (top, left) in zip(pairs[:, view], corners, strict=True):
                x = self.x[tile_index] * TILE_PX * 10 + int(left) * 10
                y = (self.y[tile_index] + 1) * TILE_PX * 10 - int(top) * 10
                found.append((int(tile_index), int(x), int(y), str(self.year[tile_index])))
        return found


class Scenes(RasterDataset):
    """The scenes as torchgeo reads them."""

    filename_glob = "*.tif"
    filename_regex = r".*_(?P<date>\d{8})"


def ours(archive: Archive, threads: int, check: str = "first") -> Batches:
    """Return our loader; one of `first` has hashed its tiles before the race."""
    loader = PairLoader(
        [archive], batch_size=BATCH, seed=0, threads=threads, crop_px=CROP_PX, check=check
    )

    def batches(first: int) -> Iterator[np.ndarray]:
        loader.first_step = first
        iterator = iter(loader)
        for _ in range(BATCHES):
            yield next(iterator)["pixels"].numpy().reshape(-1, BANDS, CROP_PX, CROP_PX)
        iterator.close()

    return batches


def torchgeo(folder: Path, places: Places, workers: int) -> Batches:
    """Return torchgeo's RasterDataset under a DataLoader, its boxes chosen by us."""
    dataset = Scenes(str(folder), cache=True)

    def batches(first: int) -> Iterator[np.ndarray]:
        queries = []
        for step in range(first, first + BATCHES):
            for _, x, y, year in places.of(step):
                day = pd.Timestamp(year)
                span = slice(day, day + pd.Timedelta(days=1, microseconds=-1))
                queries.append((slice(x, x + CROP_PX * 10), slice(y - CROP_PX * 10, y), span))
        yield from DataLoader(
            dataset, sampler=queries, batch_size=2 * BATCH, num_workers=workers, collate_fn=collate
        )

    return batches


def collate(samples: list[dict[str, object]]) -> np.ndarray:
    """Stack the images of a batch."""
    import torch

    return torch.stack([sample["image"] for sample in samples]).numpy()


def plain_rasterio(folder: Path, places: Places) -> Batches:
    """Return windows of scenes that stay open."""
    files = {path.stem: rasterio.open(path) for path in sorted(folder.glob("*.tif"))}
    by_place = {(f.bounds.left, f.bounds.top, name[-8:]): f for name, f in files.items()}

    def batches(first: int) -> Iterator[np.ndarray]:
        for step in range(first, first + BATCHES):
            batch = []
            for _, x, y, year in places.of(step):
                left = LEFT + (x - LEFT) // (SCENE_PX * 10) * SCENE_PX * 10
                top = TOP - (TOP - y) // (SCENE_PX * 10) * SCENE_PX * 10
                window = Window((x - left) // 10, (top - y) // 10, CROP_PX, CROP_PX)
                batch.append(by_place[left, top, year].read(window=window))
            yield np.stack(batch)

    return batches


def from_memory(memory: np.ndarray, places: Places) -> Batches:
    """Return crops copied from one array into a buffer that is used again."""
    buffer = np.empty((2 * BATCH, BANDS, CROP_PX, CROP_PX), np.uint16)
    loader = places.loader

    def batches(first: int) -> Iterator[np.ndarray]:
        for step in range(first, first + BATCHES):
            pairs, corners = loader.pairs(step), loader.corners(step).tolist()
            for view in (0, 1):
                for row, (tile_index, (top, left)) in enumerate(
                    zip(pairs[:, view], corners, strict=True)
                ):
                    crop = memory[tile_index, :, top : top + CROP_PX, left : left + CROP_PX]
                    np.copyto(buffer[view * BATCH + row], crop)
            yield buffer

    return batches


def checksum(batches: Iterator[np.ndarray]) -> str:
    """Return the hash of all samples, as uint16."""
    digest = xxhash.xxh3_64()
    for batch in batches:
        digest.update(np.ascontiguousarray(batch.astype(np.uint16)))
    return digest.hexdigest()


def seconds_of(batches: Iterator[np.ndarray]) -> float:
    """Return how long it takes to take all batches."""
    began = time.perf_counter()
    for _ in batches:
        pass
    return time.perf_counter() - began


def forget(folder: Path) -> None:
    """Drop a folder's files from the page cache."""
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def race(root: Path) -> dict[str, object]:
    """Return the seconds of each contestant, cached and cold."""
    archive = open_archive(root / "archive")
    chooser = PairLoader([archive], batch_size=BATCH, seed=0, crop_px=CROP_PX)
    places = Places(archive, chooser)
    memory = np.empty((archive.n_tiles, BANDS, TILE_PX, TILE_PX), np.uint16)
    for tile_index in range(archive.n_tiles):
        memory[tile_index] = archive.read(tile_index)[0]
    scenes = root / "scenes"
    contestants: dict[str, Batches] = {
        "crop from memory": from_memory(memory, places),
        "ecofm, in process": ours(archive, 0),
        "ecofm, in process, always hashed": ours(archive, 0, "always"),
        "ecofm, 1 thread": ours(archive, 1),
        "ecofm, 2 threads": ours(archive, 2),
        "rasterio, in process": plain_rasterio(scenes, places),
        "torchgeo, in process": torchgeo(scenes, places, 0),
        "torchgeo, 2 workers": torchgeo(scenes, places, 2),
    }
    sums = {name: checksum(start(0)) for name, start in contestants.items()}
    assert len(set(sums.values())) == 1, f"they read other pixels: {sums}"
    cached: dict[str, list[float]] = {name: [] for name in contestants}
    cold: dict[str, list[float]] = {name: [] for name in contestants if "memory" not in name}
    for repeat in range(REPEATS):
        for name, start in contestants.items():
            if name.startswith("ecofm"):
                seconds_of(start(repeat * BATCHES))  # the first epoch, in which tiles are hashed
            cached[name].append(seconds_of(start(repeat * BATCHES)))
    del memory
    for repeat in range(COLD_REPEATS):
        for name in cold:
            # Pages that are mapped are not dropped, so each one starts with a fresh archive.
            fresh = open_archive(root / "archive")
            start = contestants[name]
            if name.startswith("ecofm"):
                threads = 2 if "2" in name else int("1 thread" in name)
                start = ours(fresh, threads, "always" if "always" in name else "first")
                archive._shards.clear()
            forget(root / "scenes")
            forget(root / "archive")
            cold[name].append(seconds_of(start((REPEATS + repeat) * BATCHES)))
    return {"cached_s": cached, "cold_s": cold, "checksum": sums["crop from memory"]}


def repeat_index(source: Path, out: Path, n_tiles: int) -> None:
    """Make an archive of n tiles whose index names the same 1,000 rows again and again."""
    (out).mkdir()
    (out / "shards").symlink_to(source / "shards")
    index = gpd.read_parquet(source / "index.parquet").iloc[:1000]
    n_copies = -(-n_tiles // len(index))
    table = pd.concat([index] * n_copies, ignore_index=True).iloc[:n_tiles]
    copy = np.repeat(np.arange(n_copies), len(index))[:n_tiles].astype(str)
    table["cell_id"] = table["cell_id"] + "_" + copy
    table["tile_id"] = table["cell_id"] + "@" + table["period"]
    table.to_parquet(out / "index.parquet")
    manifest = {**read_json(source / MANIFEST), "n_tiles": len(table)}
    write_sealed(out / MANIFEST, {**manifest, "files": describe_files(out)})


def scale(root: Path) -> dict[str, object]:
    """Return the cost of a sample and the memory at 1,000 and at 1,000,000 tiles.

    Both loaders take turns in one process, their pages touched before: what differs is the index.
    Memory is that of a process for each.
    """
    folders = [root / f"n{n_tiles}" for n_tiles in SCALES]
    for n_tiles, folder in zip(SCALES, folders, strict=True):
        repeat_index(root / "archive", folder, n_tiles)
    memory: dict[str, list[float]] = {}
    for _ in range(REPEATS):
        for n_tiles, folder in zip(SCALES, folders, strict=True):
            command = [sys.executable, "-m", "benchmarks.loader", "--one", str(folder)]
            out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            memory.setdefault(str(n_tiles), []).append(json.loads(out))
    loaders = [open_loader(folder) for folder in folders]
    iterators = [iter(loader) for loader in loaders]
    for loader, iterator in zip(loaders, iterators, strict=True):
        for tile_index in range(SCALES[0]):
            loader.archives[0].read(tile_index)
        for _ in range(4):  # all buffers
            next(iterator)
    seconds = np.zeros((TURNS, 2))
    for turn in range(TURNS):
        for number in (0, 1) if turn % 2 else (1, 0):
            # Processor time: the clock on the wall also shows what else the machine does.
            began = time.process_time()
            next(iterators[number])
            seconds[turn, number] = time.process_time() - began
    return {
        "anon_mb": memory,
        "sample_us": (np.median(seconds, axis=0) / (2 * BATCH) * 1e6).tolist(),
        "ratio": float(np.median(seconds[:, 1] / seconds[:, 0])),
        "ratio_quartiles": np.percentile(seconds[:, 1] / seconds[:, 0], (25, 75)).tolist(),
    }


def open_loader(folder: Path) -> PairLoader:
    """Return a loader that hashes nothing: a hash costs the same whatever the index is."""
    archive = open_archive(folder)
    return PairLoader([archive], batch_size=BATCH, seed=0, crop_px=CROP_PX, check="never")


def one(folder: Path) -> None:
    """Print the memory of this process, in MB, after some batches."""
    iterator = iter(open_loader(folder))
    for _ in range(6):
        next(iterator)
    lines = Path("/proc/self/status").read_text().splitlines()
    print(next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon")))


def report(found: dict[str, object], n_tiles: int) -> None:
    """Print the table and write the raw figures."""
    n_samples = 2 * BATCH * BATCHES
    for kind in ("cached_s", "cold_s"):
        # The fastest run is the one that the machine's other work disturbed least.
        seconds = {name: float(np.min(values)) for name, values in found[kind].items()}
        base = seconds["torchgeo, in process"]
        print(f"{kind[:-2]:38s} samples/s   x torchgeo   of memory")
        for name, value in seconds.items():
            memory = f"{seconds['crop from memory'] / value:9.2f}" if kind == "cached_s" else ""
            print(f"  {name:36s} {n_samples / value:9.0f} {base / value:12.1f} {memory}")
    for number, cost in zip(SCALES, found["sample_us"], strict=True):
        mb = float(np.median(found["anon_mb"][str(number)]))
        print(f"  {number:>9,d} tiles: {cost:.1f} us a sample, {mb:.1f} MB")
    low, high = found["ratio_quartiles"]
    print(f"  ratio of turns: {found['ratio']:.3f} (quartiles {low:.3f} to {high:.3f})")
    versions = ("torch", "numpy", "rasterio", "torchgeo", "xxhash")
    write_json(
        RESULTS,
        {
            **found, "n_tiles": n_tiles, "samples": n_samples,
            "tile": f"{BANDS} bands of {TILE_PX}x{TILE_PX} uint16, crop {CROP_PX}",
            **describe_machine(versions),
        },
    )  # fmt: skip


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("gigabytes", type=float, nargs="?", default=4.1)
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        one(options.one)
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "scenes").mkdir()
        n_cells = paint(root / "scenes", options.gigabytes)
        began = time.perf_counter()
        tile([root / "scenes"], root / "archive", TileConfig(per="year"))
        print(f"{2 * n_cells} tiles made in {time.perf_counter() - began:.1f} s")
        found = {**race(root), **scale(root)}
    report(found, 2 * n_cells)


if __name__ == "__main__":
    main()
