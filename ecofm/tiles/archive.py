"""The archive: pixel shards as `.npy`, packed valid masks, a GeoParquet index, and its reader."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from tokenize import TokenError
from typing import Any

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from ecofm.artifact import MANIFEST, read_manifest
from ecofm.checksums import find_fault, open_file
from ecofm.errors import ArtifactError, ContractError, EcofmError
from ecofm.grid import WGS84
from ecofm.meridian import cut_all
from ecofm.tiles.periods import sort_periods
from ecofm.tiles.rasters import Pixels, Valid
from ecofm.types import Contract, pool_contracts

Packed = npt.NDArray[np.uint8]
INDEX, SCENES, REJECTED = TABLES = "index.parquet", "scenes.parquet", "rejected.parquet"
INDEX_COLUMNS = [
    "tile_id", "cell_id", "period", "group", "valid_share", "shard", "row", "dates", "day",
    "checksum",
]  # fmt: skip
MAX_SHARDS_MAPPED = 4096  # two maps each; Linux allows a process 65,530


class TileError(EcofmError):
    """A tile's bytes are not those that were written."""


def checksum_tile(pixels: Pixels, valid: Valid) -> str:
    """Return the xxh3 of a tile's bytes: (band, height, width) and (height, width) bool."""
    return f"{_digest(np.ascontiguousarray(pixels), np.packbits(valid, axis=-1)):016x}"


def _digest(pixels: Pixels, packed: Pixels) -> int:
    digest = xxhash.xxh3_64(pixels.data)
    digest.update(packed.data)
    return digest.intdigest()


def _parse_checksums(column: pa.Array) -> npt.NDArray[np.uint64]:
    """Return hexadecimal checksums as numbers, 8 bytes each."""
    texts = column.cast(pa.binary()).cast(pa.binary(16))
    digits = np.frombuffer(texts.buffers()[1], np.uint8)[16 * texts.offset :][: 16 * len(texts)]
    digits = digits.reshape(-1, 16)
    nibbles = np.where(digits < ord("a"), digits - ord("0"), digits - (ord("a") - 10))
    return (
        np.ascontiguousarray(nibbles[:, ::2] << 4 | nibbles[:, 1::2])
        .view(">u8")[:, 0]
        .astype(np.uint64)
    )


def next_of(table: Path) -> Path:
    """Return where the next version of a table is written, until the manifest means that."""
    return table.with_suffix(".next.parquet")


def table_checksums(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return a manifest as `open_file` takes it; older ones have a checksum of the index only."""
    if "files" in manifest or "index_hash" not in manifest:
        return dict(manifest)
    return {**manifest, "files": {INDEX: {"sha256": manifest["index_hash"]}}}


def find_table(folder: Path, manifest: Mapping[str, Any], name: str) -> Path:
    """Return the table that the manifest means: of a growing archive there are two for a moment.

    Raises ArtifactError when it is neither.
    """
    beside, known = next_of(folder / name), table_checksums(manifest)
    if beside.exists() and name in known.get("files", {}):
        if find_fault(folder, known, name, beside) is None:
            return beside
    return open_file(folder, known if name == INDEX else manifest, name)


def shard_paths(folder: Path, shard: int) -> tuple[Path, Path, Path]:
    """Return where a shard's pixels, valid masks and index part lie."""
    stem = folder / "shards" / f"{shard:05d}"
    return stem.with_suffix(".npy"), stem.with_suffix(".valid.npy"), stem.with_suffix(".parquet")


def map_shard(folder: Path, shard: int) -> tuple[Pixels, Pixels]:
    """Return memory maps of a shard's pixels and packed masks.

    Raises OSError, ValueError or EOFError when they are missing or damaged.
    """
    pixels_path, valid_path, _ = shard_paths(folder, shard)
    try:
        # `numpy.load` would open archives and pickles under this name too.
        pixels, valid = (
            np.lib.format.open_memmap(path, mode="r") for path in (pixels_path, valid_path)
        )
    except TokenError as error:  # numpy reads the header as Python
        raise ValueError(f"no header ({error})") from error
    return pixels, valid


class Archive:
    """Tiles on disk, read through memory maps.

    `index` has one row a tile (tile_id, cell_id, period, group, valid_share, shard, row, dates,
    checksum, geometry in EPSG:4326); `contract` says what the stored numbers mean.
    """

    def __init__(self, path: Path) -> None:
        """Open the archive; raises ArtifactError when the folder is none or is damaged."""
        self.path = path
        self.manifest: dict[str, Any] = read_manifest(path, "archive")
        try:
            self.contract = Contract.from_json(self.manifest["contract"])
            self.tile_px = (int(self.manifest["tile_px"][0]), int(self.manifest["tile_px"][1]))
            self.grid: str = self.manifest["config"]["grid"]
            self.attribution: str = self.manifest["attribution"]
            self._n_tiles = int(self.manifest["n_tiles"])
        except (ContractError, KeyError, IndexError, TypeError, ValueError) as error:
            raise ArtifactError(
                f"{path / MANIFEST} is damaged ({error}); make the archive again with `ecofm tile`."
            ) from error
        self._shards: dict[int, tuple[Pixels, Pixels]] = {}
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[Archive], tuple[Path]]:
        """An archive is its folder: another process maps the shards anew."""
        return Archive, (self.path,)

    @cached_property
    def index(self) -> gpd.GeoDataFrame:
        """The index, one row a tile, in storage order."""
        try:
            return cut_all(gpd.read_parquet(self._index_path))
        except (OSError, ValueError) as error:
            raise self._damaged_index(error) from error

    @cached_property
    def _index_path(self) -> Path:
        """Parquet has no checksum of its own, and a wrong cell_id would go unnoticed."""
        return find_table(self.path, self.manifest, INDEX)

    def _has(self, table: str) -> bool:
        files = self.manifest.get("files")
        return (self.path / table).exists() if files is None else table in files

    def _damaged_index(self, error: Exception) -> ArtifactError:
        return ArtifactError(
            f"{self.path / INDEX} cannot be read ({error}); make the archive again with "
            "`ecofm tile`."
        )

    @property
    def rejected(self) -> pd.DataFrame:
        """What was left out: path (or tile_id) and reason."""
        if not self._has(REJECTED):
            return pd.DataFrame({"path": [], "reason": []}, dtype=str)
        path = find_table(self.path, self.manifest, REJECTED)
        try:
            return pd.read_parquet(path)
        except (OSError, ValueError) as error:
            raise ArtifactError(f"{path} cannot be read ({error}).") from error

    @property
    def scenes(self) -> gpd.GeoDataFrame:
        """The scenes that are in the tiles: name, period, date, and outline in EPSG:4326."""
        if not self._has(SCENES):
            return gpd.GeoDataFrame(columns=["name", "period", "date"], geometry=[], crs=WGS84)
        path = find_table(self.path, self.manifest, SCENES)
        try:
            return cut_all(gpd.read_parquet(path))
        except (OSError, ValueError) as error:
            raise ArtifactError(f"{path} cannot be read ({error}).") from error

    def columns(self, names: list[str]) -> pa.Table:
        """Return some columns of the index, in its order; those that it lacks are left out."""
        try:
            known = set(pq.read_schema(self._index_path).names)
            return pq.read_table(
                self._index_path, columns=[n for n in names if n in known], use_threads=False
            )
        except (OSError, ValueError) as error:
            raise self._damaged_index(error) from error

    def batches(self, names: list[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield some columns of the index, or all, some rows at a time: memory stays small."""
        try:
            yield from pq.ParquetFile(self._index_path).iter_batches(
                columns=names, use_threads=False
            )
        except (OSError, ValueError) as error:
            raise self._damaged_index(error) from error

    @cached_property
    def _places(
        self,
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.uint64]]:
        """Shard, row and checksum of each tile: 16 bytes each."""
        shards, rows = (np.empty(self._n_tiles, np.int32) for _ in range(2))
        checksums = np.empty(self._n_tiles, np.uint64)
        start = 0
        try:
            # Some rows at a time: their texts take ten times the room of the numbers.
            for batch in self.batches(["shard", "row", "checksum"]):
                part = slice(start, start + len(batch))
                shards[part], rows[part] = batch["shard"].to_numpy(), batch["row"].to_numpy()
                checksums[part] = _parse_checksums(batch["checksum"])
                start = part.stop
            if start != self._n_tiles:
                raise ValueError(f"it has {start} rows and the manifest {self._n_tiles} tiles")
        except (OSError, ValueError) as error:
            raise self._damaged_index(error) from error
        pa.default_memory_pool().release_unused()
        return shards, rows, checksums

    def load_places(self) -> None:
        """Read where each tile lies now, not with the first tile; raises ArtifactError."""
        _ = self._places

    def name(self, tile_index: int) -> str:
        """Return a tile's id."""
        if "index" in self.__dict__:
            return str(self.index["tile_id"].iloc[tile_index])
        return str(self.columns(["tile_id"])["tile_id"][tile_index].as_py())

    @property
    def n_tiles(self) -> int:
        """Number of tiles."""
        return self._n_tiles

    @property
    def periods(self) -> list[str]:
        """The periods that the tiles stand for, in order."""
        return sort_periods(self.columns(["period"])["period"].unique().to_pylist())

    def _shard(self, shard: int) -> tuple[Pixels, Pixels]:
        """Return the maps of a shard's pixels and masks; safe in threads."""
        if (found := self._shards.get(shard)) is not None:
            return found
        with self._lock:
            if shard not in self._shards:
                maps = map_shard(self.path, shard)
                height, width = self.tile_px
                if (
                    maps[0].shape[1:] != (len(self.contract.bands), height, width)
                    or str(maps[0].dtype) != self.contract.dtype
                    or maps[1].shape != (len(maps[0]), height, -(-width // 8))
                    or maps[1].dtype != np.uint8
                ):
                    raise ValueError("another shape or number type than the manifest's")
                while len(self._shards) >= MAX_SHARDS_MAPPED:
                    del self._shards[next(iter(self._shards))]
                # Plain arrays: a memmap makes every view of it slower to build.
                self._shards[shard] = (np.asarray(maps[0]), np.asarray(maps[1]))
            return self._shards[shard]

    def read(self, tile_index: int) -> tuple[Pixels, Valid]:
        """Return a tile: (band, height, width) as stored, and (height, width) valid.

        Raises TileError, with the tile's id, when the bytes do not match their checksum.
        """
        row, packed = self._row(tile_index, check=True)
        valid = np.unpackbits(packed, axis=-1, count=row.shape[-1]).astype(bool)
        return np.array(row), valid

    def read_into(
        self,
        tile_index: int,
        pixels: Pixels,
        valid: Valid,
        corner: tuple[int, int] = (0, 0),
        *,
        check: bool = True,
    ) -> None:
        """Read a tile, or a window of it with its top left at `corner`, into given arrays.

        `pixels` is (band, height, width), `valid` (height, width). The bytes are hashed where they
        are mapped, and copied once. Raises TileError as `read` does.
        """
        row, packed = self._row(tile_index, check)
        (top, left), (height, width) = corner, valid.shape
        lines = slice(top, top + height)
        np.copyto(pixels, row[:, lines, left : left + width])
        bits = np.unpackbits(packed[lines], axis=-1, count=row.shape[-1])
        np.copyto(valid, bits[:, left : left + width].view(bool))

    def _row(self, tile_index: int, check: bool) -> tuple[Pixels, Packed]:
        """Return where a tile's pixels and packed mask are mapped."""
        shards, rows, checksums = self._places
        try:
            pixels, valid = self._shard(int(shards[tile_index]))
            row = int(rows[tile_index])
            if not 0 <= row < len(pixels):
                raise ValueError(f"no row {row}")
        except (OSError, ValueError, EOFError) as error:
            raise TileError(
                f"tile {self.name(tile_index)} of {self.path}: shard {shards[tile_index]} is "
                f"damaged or missing ({error}); tile its scenes again"
            ) from error
        found = pixels[row], np.asarray(valid[row], np.uint8)
        if check and _digest(*found) != checksums[tile_index]:
            raise TileError(
                f"tile {self.name(tile_index)} of {self.path} has another checksum than when it "
                "was written; tile its scenes again"
            )
        return found


def open_archive(path: Path) -> Archive:
    """Open an archive; raises ArtifactError when the folder is none."""
    if not (path / MANIFEST).exists() and (path / "plan.json").exists():
        raise ArtifactError(f"{path} is not finished: run the same `ecofm tile` again to continue.")
    return Archive(path)


def find_tile(archives: Sequence[Archive], tile: int) -> tuple[Archive, int]:
    """Return the archive that holds a tile, and the tile's number there.

    Tiles are numbered through all archives, in their order. Raises IndexError beyond the last.
    """
    place = tile
    for archive in archives:
        if 0 <= place < archive.n_tiles:
            return archive, place
        place -= archive.n_tiles
    raise IndexError(tile)


def open_archives(paths: list[Path]) -> tuple[list[Archive], Contract]:
    """Open archives that are used together, and pool their contracts.

    Raises ContractError when bands, dtype, scale or offset differ, ArtifactError when tile sizes
    do.
    """
    archives = [open_archive(path) for path in paths]
    sizes = {archive.tile_px for archive in archives}
    if len(sizes) > 1:
        raise ArtifactError(
            f"archives {', '.join(map(str, paths))} have tiles of {sorted(sizes)} px; "
            "tile them to one size."
        )
    weights = [archive.n_tiles for archive in archives]
    pooled = pool_contracts([a.contract for a in archives], weights, [str(p) for p in paths])
    return archives, pooled
