"""python -m benchmarks.loader: batches of tile pairs a second, side by side in one run.

Ours, torch's DataLoader over the same archive, plain rasterio windows of the scenes, and copies
from memory; interleaved, with the checksums of what they read compared. Figures are ratios to
torch's DataLoader; the raw seconds go to benchmarks/results/loader.json.
"""

from __future__ import annotations

import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
import rasterio
import xxhash
from rasterio.windows import Window
from torch.utils.data import DataLoader, Dataset

from ecofm.artifact import build_manifest, write_json
from ecofm.synth import CountryConfig, generate_country
from ecofm.tiles.archive import Archive, open_archive
from ecofm.tiles.ingest import TileConfig, tile
from ecofm.tiles.loader import PairLoader

N_CELLS, BATCH, BATCHES, REPEATS = 8, 32, 8, 5
RESULTS = Path(__file__).parent / "results" / "loader.json"


class PairDataset(Dataset[np.ndarray]):
    """What most people write: one pair an index, collated by the DataLoader."""

    def __init__(self, archive: Archive, pairs: np.ndarray) -> None:
        """Take the archive and the pairs to read, (pair, 2) tile indices."""
        self.archive, self.pairs = archive, pairs

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.pairs)

    def __getitem__(self, index: int) -> np.ndarray:
        """Return a pair's pixels: (2, band, height, width)."""
        return np.stack([self.archive.read(int(tile))[0] for tile in self.pairs[index]])


def main() -> None:
    """Measure and print the table."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        generate_country(root, CountryConfig(n_cells=N_CELLS))
        tile([root / "scenes"], root / "archive", TileConfig(grid="utm:1280"))
        archive = open_archive(root / "archive")
        ours = PairLoader([archive], batch_size=BATCH, seed=0, threads=2)
        pairs = np.concatenate([ours.pairs(step) for step in range(BATCHES)])
        memory = np.stack([archive.read(i)[0] for i in range(archive.n_tiles)])
        contestants: dict[str, Callable[[], Iterator[np.ndarray]]] = {
            "ecofm PairLoader, 2 threads": lambda: _take(ours),
            "torch DataLoader, 0 workers": lambda: _torch(archive, pairs, 0),
            "torch DataLoader, 2 workers": lambda: _torch(archive, pairs, 2),
            "rasterio windows": lambda: _rasterio(root / "scenes", archive, pairs),
            "copy from memory": lambda: _memory(memory, pairs),
        }
        seconds: dict[str, list[float]] = {name: [] for name in contestants}
        sums: dict[str, set[str]] = {name: set() for name in contestants}
        for _ in range(REPEATS):
            for name, start in contestants.items():
                began = time.perf_counter()
                digest = xxhash.xxh3_64()
                for batch in start():
                    digest.update(np.ascontiguousarray(batch[:, :, :, 0]))
                seconds[name].append(time.perf_counter() - began)
                sums[name].add(digest.hexdigest())
    report(seconds, sums)


def _take(loader: PairLoader) -> Iterator[np.ndarray]:
    for batch, _ in zip(loader, range(BATCHES), strict=False):
        yield batch["pixels"].numpy().swapaxes(0, 1)


def _torch(archive: Archive, pairs: np.ndarray, workers: int) -> Iterator[np.ndarray]:
    for batch in DataLoader(PairDataset(archive, pairs), batch_size=BATCH, num_workers=workers):
        yield batch.numpy()


def _rasterio(scenes: Path, archive: Archive, pairs: np.ndarray) -> Iterator[np.ndarray]:
    """Read each tile from whichever granule holds all of it; masks and seams are not mended."""
    places = [archive.index.iloc[i] for i in range(archive.n_tiles)]
    west = {p: rasterio.open(scenes / f"{p}_west.tif") for p in archive.periods}
    east = {p: rasterio.open(scenes / f"{p}_east.tif") for p in archive.periods}
    bounds = {p: west[p].bounds for p in archive.periods}
    for start in range(0, len(pairs), BATCH):
        batch = []
        for tile_index in pairs[start : start + BATCH].ravel():
            row = places[tile_index]
            _, y, x = map(int, row["cell_id"].split("_"))
            left, top = x * 1280, (y + 1) * 1280
            inside = left + 1280 <= bounds[row["period"]].right
            source = (west if inside else east)[row["period"]]
            column, line = ~source.transform * (left, top)
            window = Window(max(round(column), 0), round(line), 128, 128)
            batch.append(source.read(window=window))
        yield np.stack(batch).reshape(-1, 2, *batch[0].shape)


def _memory(memory: np.ndarray, pairs: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(pairs), BATCH):
        yield memory[pairs[start : start + BATCH]]


def report(seconds: dict[str, list[float]], sums: dict[str, set[str]]) -> None:
    """Print ratios of medians and write the raw figures."""
    exact = [name for name in seconds if name != "rasterio windows"]
    assert len(set.union(*(sums[name] for name in exact))) == 1, "the loaders read other pixels"
    base = np.median(seconds["torch DataLoader, 0 workers"])
    for name, values in seconds.items():
        rate = BATCH * BATCHES * 2 / np.median(values)
        print(f"{name:30s} {base / np.median(values):6.2f}x  {rate:8.0f} tiles/s")
    write_json(
        RESULTS,
        {
            "seconds": seconds,
            "tiles": BATCH * BATCHES * 2,
            "tile": "12 bands of 128x128 uint16",
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            "versions": {name: version(name) for name in ("torch", "numpy", "rasterio")},
            "commit": build_manifest("report", {}, {})["git_commit"],
        },
    )


if __name__ == "__main__":
    main()
