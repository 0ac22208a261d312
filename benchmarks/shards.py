"""python -m benchmarks.shards ARCHIVE ...: ways to store tiles, measured on real ones.

For each archive the same tiles are written as `.npy`, blosc2 b2nd (LZ4 with bitshuffle), Zarr v3
sharded (the same codec) and LMDB, then read in one random order, a crop of 7/8 of the side each.
They take turns; the time is the processor's; what is read has one checksum. Figures go to
benchmarks/results/shards.json.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import blosc2
import lmdb
import numpy as np
import xxhash
import zarr

from benchmarks.record import describe_machine
from ecofm.artifact import write_json
from ecofm.tiles.archive import open_archive

SHARD_TILES, REPEATS, MAX_TILES = 64, 5, 256
RESULTS = Path(__file__).parent / "results" / "shards.json"
Reader = Callable[[int, slice, slice], np.ndarray]


def as_npy(folder: Path, tiles: np.ndarray) -> Reader:
    """Store shards as `.npy`, read through memory maps."""
    maps = []
    for start in range(0, len(tiles), SHARD_TILES):
        np.save(folder / f"{start}.npy", tiles[start : start + SHARD_TILES])
        maps.append(np.asarray(np.load(folder / f"{start}.npy", mmap_mode="r")))
    return lambda n, y, x: maps[n // SHARD_TILES][n % SHARD_TILES][:, y, x]


def as_blosc2(folder: Path, tiles: np.ndarray) -> Reader:
    """Store shards as b2nd, a tile a chunk."""
    shards = []
    for start in range(0, len(tiles), SHARD_TILES):
        some = tiles[start : start + SHARD_TILES]
        shards.append(
            blosc2.asarray(
                some, urlpath=str(folder / f"{start}.b2nd"), mode="w", chunks=(1, *some.shape[1:]),
                cparams=blosc2.CParams(codec=blosc2.Codec.LZ4, clevel=5, nthreads=1,
                                       filters=[blosc2.Filter.BITSHUFFLE]),
                dparams=blosc2.DParams(nthreads=1),
            )
        )  # fmt: skip
    return lambda n, y, x: shards[n // SHARD_TILES][n % SHARD_TILES][:, y, x]


def as_zarr(folder: Path, tiles: np.ndarray) -> Reader:
    """Store one Zarr v3 array, a tile a chunk, 64 chunks a shard."""
    blosc = zarr.codecs.BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle")
    array = zarr.create_array(
        str(folder / "tiles.zarr"), shape=tiles.shape, dtype=tiles.dtype,
        chunks=(1, *tiles.shape[1:]), shards=(SHARD_TILES, *tiles.shape[1:]), compressors=blosc,
    )  # fmt: skip
    array[:] = tiles
    return lambda n, y, x: array[n][:, y, x]


def as_lmdb(folder: Path, tiles: np.ndarray) -> Reader:
    """Store the bytes of each tile under its number."""
    environment = lmdb.open(
        str(folder / "lmdb"), map_size=2 * tiles.nbytes + 2**24, readahead=False
    )
    with environment.begin(write=True) as writer:
        for number, values in enumerate(tiles):
            writer.put(b"%08d" % number, values.tobytes())
    reader = environment.begin(buffers=True)
    shape = tiles.shape[1:]

    def read(n: int, y: slice, x: slice) -> np.ndarray:
        values = np.frombuffer(reader.get(b"%08d" % n), tiles.dtype)
        return values.reshape(shape)[:, y, x]

    return read


WAYS = {
    ".npy, mapped": as_npy,
    "blosc2 b2nd, LZ4 + bitshuffle": as_blosc2,
    "Zarr v3 sharded, LZ4 + bitshuffle": as_zarr,
    "LMDB": as_lmdb,
}


def measure(path: Path) -> dict[str, object]:
    """Return sizes and seconds of each way for the tiles of one archive."""
    archive = open_archive(path)
    chosen = np.unique(np.linspace(0, archive.n_tiles - 1, MAX_TILES).astype(int))
    tiles = np.stack([archive.read(int(n))[0] for n in chosen])
    side = tiles.shape[-1] * 7 // 8
    random = np.random.default_rng(0)
    order = random.integers(0, len(tiles), 256)
    corners = random.integers(0, tiles.shape[-1] - side + 1, (256, 2))
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    share, sums = {}, set()
    buffer = np.empty((tiles.shape[1], side, side), tiles.dtype)
    with tempfile.TemporaryDirectory() as folder:
        readers = {}
        for number, (name, store) in enumerate(WAYS.items()):
            place = Path(folder) / str(number)
            place.mkdir()
            readers[name] = store(place, tiles)
            # The blocks that are in use: LMDB's file has the size of its map.
            held = sum(p.stat().st_blocks * 512 for p in place.rglob("*") if p.is_file())
            share[name] = held / tiles.nbytes
        for repeat in range(REPEATS):
            for name, read in readers.items():
                digest = xxhash.xxh3_64()
                began = time.process_time()
                for n, (y, x) in zip(order.tolist(), corners.tolist(), strict=True):
                    np.copyto(buffer, read(n, slice(y, y + side), slice(x, x + side)))
                    if repeat == 0:
                        digest.update(buffer)
                if repeat:
                    seconds[name].append(time.process_time() - began)
                else:
                    sums.add(digest.hexdigest())
    assert len(sums) == 1, "they read other pixels"
    shape = "x".join(map(str, tiles.shape[1:]))
    print(f"{path.name}: {len(tiles)} tiles of {shape} {tiles.dtype}")
    for name in WAYS:
        print(f"  {name:36s} {256 / min(seconds[name]):8.0f} tiles/s {share[name]:7.1%} of bytes")
    return {"archive": path.name, "tile": shape, "dtype": str(tiles.dtype), "n": len(tiles),
            "cpu_s": seconds, "share_of_bytes": share, "n_read": 256}  # fmt: skip


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive", type=Path, nargs="+")
    found = [measure(path) for path in parser.parse_args().archive]
    versions = ("numpy", "blosc2", "zarr", "lmdb")
    write_json(RESULTS, {"runs": found, **describe_machine(versions)})


if __name__ == "__main__":
    main()
