"""Shards: a few cells' tiles, made one at a time and committed with their part of the index."""

from __future__ import annotations

import hashlib
import io
import json
import os
import secrets
from dataclasses import dataclass, field
from functools import lru_cache
from io import BufferedWriter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from odc.geo.geobox import GeoBox
from pyarrow.lib import ArrowException

from ecofm.errors import SceneError
from ecofm.grid import Cell, Grid
from ecofm.tiles.archive import INDEX_COLUMNS, checksum_tile, map_shard, shard_paths
from ecofm.tiles.composite import Dated, compose, fill
from ecofm.tiles.jobs import Cells, Job
from ecofm.tiles.periods import day_number, is_day, sort_key, sort_periods
from ecofm.tiles.pixels import read_chip, read_onto
from ecofm.tiles.plan import TileConfig
from ecofm.tiles.rasters import Pixels, Rasters, Valid
from ecofm.tiles.scenes import Scene
from ecofm.tiles.statistics import BandStatistics


class ArrayFile:
    """A `.npy` file that grows row by row, so that a shard is never held in memory."""

    def __init__(self, path: Path) -> None:
        """Take the file's final path; it is written beside it until `commit`."""
        self.path = path
        self.n_rows = 0
        # A name of its own: a worker that was given up for dead may still be writing.
        self._beside = path.with_suffix(f".{secrets.token_hex(4)}.partial")
        self._file: BufferedWriter | None = None
        self._row: Pixels | None = None

    def append(self, row: Pixels) -> None:
        """Add a row; all have one shape and type."""
        if self._file is None:
            self._file = self._beside.open("wb")
            self._row = row
            self._write_header(self._file)
        self._file.write(np.ascontiguousarray(row).data)
        self.n_rows += 1

    def commit(self) -> None:
        """Write the number of rows into the header, and rename the file."""
        if self._file is not None:
            self._file.seek(0)
            self._write_header(self._file)
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None
            self._beside.replace(self.path)

    def close(self) -> None:
        """Close the file, whole or not."""
        if self._file is not None:
            self._file.close()
            self._file = None
        self._beside.unlink(missing_ok=True)

    def _write_header(self, file: BufferedWriter) -> None:
        # numpy pads the header so that the first axis can grow in place.
        assert self._row is not None, "written after the first row only"
        header = {
            "descr": np.lib.format.dtype_to_descr(self._row.dtype),
            "fortran_order": False,
            "shape": (self.n_rows, *self._row.shape),
        }
        np.lib.format.write_array_header_1_0(file, header)


@dataclass(slots=True)
class Log:
    """What became of the scenes of a shard, by name."""

    failed: dict[str, str] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)
    """Those that showed a valid pixel somewhere."""
    empty: set[str] = field(default_factory=set)
    """Those that were read somewhere and showed none there."""


def committed_part(out: Path, number: int) -> pd.DataFrame | None:
    """Return the index part of a shard that an earlier run committed whole, else None."""
    try:
        part = pd.read_parquet(shard_paths(out, number)[2])
        for key in ("statistics", "rejected", "seen", "empty", "n_of_several_dates"):
            json.loads(part.attrs[key])
        if part.attrs.pop("checksum", None) != _hash_part(part):
            return None
        if len(part) and any(len(values) != len(part) for values in map_shard(out, number)):
            return None
    except (OSError, ValueError, KeyError, EOFError, ArrowException):
        return None  # missing or damaged: it is made again
    return part


def read_part(out: Path, number: int) -> pd.DataFrame:
    """Return the index part of a shard of this run; raises OSError when it is gone."""
    part = committed_part(out, number)
    if part is None:
        raise OSError(5, f"shard {number} was lost after it was written")
    return part


def write_shard(
    out: Path, number: int, jobs: list[Job] | Cells, config: TileConfig, rasters: Rasters
) -> pd.DataFrame:
    """Make a shard's tiles and return its part of the index.

    The part's attributes hold, as JSON, the sums of the pixels and the scenes that failed.
    """
    pixels_path, valid_path, part_path = shard_paths(out, number)
    grid = Grid(config.grid)
    rows: list[dict[str, Any]] = []
    n_dated = 0
    log = Log()
    statistics: BandStatistics | None = None
    kept, masks = ArrayFile(pixels_path), ArrayFile(valid_path)
    try:
        for job in jobs:
            made = make_tile(job, config, rasters, log)
            if made is None or made[1].mean() <= config.min_valid_share:
                continue
            pixels, valid, _ = made
            statistics = statistics or BandStatistics(len(pixels))
            statistics.add(pixels, valid)
            rows.append(_describe(job, grid, number, len(rows), made))
            n_dated += len({scene.date for scene in job.scenes if scene.date}) > 1
            kept.append(pixels)
            masks.append(np.packbits(valid, axis=-1))
        kept.commit()
        masks.commit()
    finally:
        kept.close()
        masks.close()
    part = pd.DataFrame(rows, columns=[*INDEX_COLUMNS, "geometry"])
    part.attrs = {
        "statistics": json.dumps(statistics.to_json() if statistics else None),
        "rejected": json.dumps(log.failed),
        "seen": json.dumps(sorted(log.seen)),
        "empty": json.dumps(sorted(log.empty - log.seen)),
        "n_of_several_dates": json.dumps(n_dated),
    }
    beside = part_path.with_suffix(f".{secrets.token_hex(4)}.partial")
    try:
        # As it will be read: columns without a value have another type then.
        stored = io.BytesIO()
        part.to_parquet(stored)
        sealed = pd.read_parquet(stored)
        sealed.attrs["checksum"] = _hash_part(sealed)
        sealed.to_parquet(beside)
        beside.replace(part_path)
    finally:
        beside.unlink(missing_ok=True)
    return part


def _hash_part(part: pd.DataFrame) -> str:
    """Return the sha256 of a part's rows and attributes: Parquet checks neither."""
    told = json.dumps(part.attrs, sort_keys=True)
    return hashlib.sha256(f"{told}\n{part.to_csv(index=False)}".encode()).hexdigest()


@lru_cache(maxsize=16)
def cell_of(grid: str, cell_id: str) -> Cell:
    """Return a cell of the plan; kept, for a tile asks for it with each scene."""
    return Grid(grid).cell(cell_id)


def make_tile(
    job: Job, config: TileConfig, rasters: Rasters, log: Log
) -> tuple[Pixels, Valid, list[str]] | None:
    """Read a tile: its pixels, what is valid, and the dates that are in it.

    Scenes of one date are mosaicked, the first one's valid pixels before the others'; dates are
    made into one by `config.composite`. Invalid pixels are 0. A scene that cannot be read there is
    named in the log.
    """
    target = None if job.is_chip else cell_of(config.grid, job.cell_id).geobox
    layers: dict[str, Dated] = {}
    for scene in job.scenes if target is None else _best_first(job, target):
        # Scenes of one day are pieces of one picture; two of a month or a year need not be.
        key = str(scene.date) if is_day(scene.date) else f"{scene.date}|{scene.name}"
        if key in layers and layers[key].valid.all():
            continue
        try:
            if target is None:
                pixels, valid = read_chip(scene, rasters, config.reading)
            else:
                pixels, valid = read_onto(scene, target, rasters, config.reading)
        except SceneError as error:
            log.failed.setdefault(
                scene.name, str(error) if job.is_chip else f"{error} at {job.tile_id}"
            )
            continue
        (log.seen if valid.any() else log.empty).add(scene.name)
        if key in layers:
            fill(layers[key], pixels, valid)
        else:
            layers[key] = Dated(scene.date or "", pixels, valid)
        if (
            config.composite == "first"
            and np.logical_or.reduce([layer.valid for layer in layers.values()]).all()
        ):
            break
    if not layers:
        return None
    pixels, valid, dates = compose(list(layers.values()), config.composite, job.period)
    return pixels, valid, sort_periods(date for date in dates if date)


def _best_first(job: Job, target: GeoBox) -> list[Scene]:
    """Return a job's scenes, the earliest first, and of one time those in the cell's own CRS."""

    def rank(scene: Scene) -> tuple[object, bool]:
        is_foreign = scene.geobox is None or scene.geobox.crs != target.crs
        return sort_key(scene.date or job.period), is_foreign

    return sorted(job.scenes, key=rank)


def _describe(
    job: Job, grid: Grid, shard: int, row: int, made: tuple[Pixels, Valid, list[str]]
) -> dict[str, Any]:
    pixels, valid, dates = made
    return {
        "tile_id": job.tile_id,
        "cell_id": job.cell_id,
        "period": job.period,
        "group": job.group,
        "valid_share": float(valid.mean()),
        "shard": shard,
        "row": row,
        "dates": ",".join(dates),
        "day": day_number(job.period, dates),
        "checksum": checksum_tile(pixels, valid),
        "geometry": cell_of(grid.name, job.cell_id).polygon().wkb if job.has_place else None,
    }
