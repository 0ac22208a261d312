"""What the sections share: the device, the sizes, the archives, and how a rate is taken."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
import torch

from ecofm.tiles.ingest import TileConfig, tile

BANDS = 12
YEARS = ("20180601", "20190601")
LEFT, TOP, EPSG = 320_000, 4_321_280, 32652


@dataclass(kw_only=True, frozen=True, slots=True)
class Bench:
    """Where and how large everything is measured."""

    device: torch.device
    is_tiny: bool
    """Sizes with which a CPU runs every line in a minute; its figures mean nothing."""
    compiles: bool
    """Whether compiled models are measured too."""
    work: Path
    """A folder that is removed afterwards."""
    threads: int
    """The loader's threads."""

    @property
    def accelerator(self) -> str:
        """Lightning's word for the device."""
        return "gpu" if self.on_gpu else "cpu"

    @property
    def on_gpu(self) -> bool:
        """Whether this is not a rehearsal on the CPU."""
        return self.device.type == "cuda"

    @property
    def seconds(self) -> float:
        """How long a rate is measured at least."""
        return 0.0 if self.is_tiny else 2.5

    @property
    def precision(self) -> str:
        """Lightning's precision; many CPUs emulate bf16, ten times as slowly."""
        return "bf16-mixed" if self.on_gpu else "32-true"

    def archive(self, grid: str) -> Path:
        """Return an archive of random 12-band tiles of two years, made once."""
        out = self.work / f"archive_{grid.replace(':', '_')}"
        if not out.exists():
            tile([self._scenes()], out, TileConfig(grid=grid, per="year"), workers=self.threads)
        return out

    def small_archive(self) -> Path:
        """Return an archive of a few tiles of 128 px."""
        out = self.work / "archive_small"
        if not out.exists():
            scenes = sorted(self._scenes().glob("p000_*.tif"))
            tile(scenes, out, TileConfig(grid="utm:1280", per="year"), workers=self.threads)
        return out

    def _scenes(self) -> Path:
        folder = self.work / "scenes"
        if not folder.exists():
            folder.mkdir()
            n_places, side_px = (1, 2 * 256) if self.is_tiny else (2, 10 * 256)
            for place in range(n_places):
                for year in YEARS:
                    _paint(folder / f"p{place:03d}_{year}.tif", place, side_px)
        return folder


def _paint(path: Path, place: int, side_px: int) -> None:
    """Write a scene of random reflectance without a pixel missing."""
    random = np.random.default_rng((place, int(path.stem[-4:])))
    pixels = random.integers(1, 8000, (BANDS, side_px, side_px), dtype=np.uint16)
    left = LEFT + place * side_px * 10
    with rasterio.open(
        path, "w", driver="GTiff", dtype="uint16", count=BANDS, width=side_px, height=side_px,
        crs=f"EPSG:{EPSG}", tiled=True, blockxsize=256, blockysize=256, interleave="band",
        transform=rasterio.Affine(10, 0, left, 0, -10, TOP),
    ) as file:  # fmt: skip
        file.write(pixels)


def wait(device: torch.device) -> None:
    """Return when the device has done everything."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure_seconds(run: Callable[[], object], bench: Bench, warm: int = 3) -> float:
    """Return the seconds of a call, the mean of as many as take `bench.seconds`."""
    share = 1 if bench.is_tiny else 3
    for _ in range(1 if bench.is_tiny else warm):
        run()
    wait(bench.device)
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < bench.seconds or not count:
        for _ in range(share):
            run()
        count += share
        wait(bench.device)
    return (time.perf_counter() - began) / count


def peak_gib(bench: Bench) -> float | None:
    """Return the most GPU memory held since `forget_peak`; None on a CPU."""
    if not bench.on_gpu:
        return None
    return torch.cuda.max_memory_allocated(bench.device) / 2**30


def forget_peak(bench: Bench) -> None:
    """Let the peak of memory be that of what follows."""
    if bench.on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(bench.device)


class Clock:
    """Notes when each step was done; a progress callback."""

    def __init__(self) -> None:
        """Have seen no step."""
        self.moments: list[tuple[int, float]] = []

    def __call__(self, done: int, total: int) -> None:
        """Note a step."""
        self.moments.append((done, time.perf_counter()))

    def rate(self, first: int, last: int) -> float:
        """Return steps a second between two notes, which have to be different ones."""
        (one, began), (other, ended) = self.moments[first], self.moments[last]
        return (other - one) / (ended - began)


@contextmanager
def one_line(what: str) -> Iterator[None]:
    """Say how long a part took."""
    began = time.perf_counter()
    yield
    print(f"  {what}: {time.perf_counter() - began:.1f} s", flush=True)
