"""Pairs: which two tiles of a cell are looked at together, in an order that needs no list."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute

from ecofm.errors import UsageError
from ecofm.tiles.archive import Archive
from ecofm.tiles.periods import day_number

Indices = npt.NDArray[np.int64]

SEASON_DAYS = 45.0
YEAR_DAYS = 365.25


class Season(StrEnum):
    """Which days of the year may be paired."""

    any = "any"
    same = "same"
    other = "other"


@dataclass(kw_only=True, slots=True)
class PairConfig:
    """Which tiles make a pair: two of one cell, of different periods unless said otherwise."""

    min_gap_days: int = 0
    """Days between the two tiles' dates, at least."""
    max_gap_days: int | None = None
    """And at most; None sets no limit."""
    season: Season = Season.any
    """`same` pairs tiles within 45 days of the same day of the year, `other` the others."""
    min_valid_share: float = 0.0
    """Tiles with a smaller share of valid pixels are in no pair."""
    same_period_share: float = 0.0
    """Share of the pairs in which a tile is paired with itself, though it has partners."""

    def __post_init__(self) -> None:
        """Raise ValueError for values that cannot be used."""
        if not 0 <= self.min_valid_share <= 1 or not 0 <= self.same_period_share <= 1:
            raise UsageError("min_valid_share and same_period_share are shares, from 0 to 1.")
        try:
            self.season = Season(self.season)
        except ValueError as error:
            raise UsageError(
                f"season {self.season!r} is not known; choose {', '.join(Season)}."
            ) from error
        if self.max_gap_days is not None and self.max_gap_days < self.min_gap_days:
            raise UsageError(f"no gap is from {self.min_gap_days} to {self.max_gap_days} days.")


def permute(positions: Indices, n: int, key: int) -> Indices:
    """Return where a keyed permutation of range(n) sends `positions`, without a list of n.

    A four-round Feistel network over the next even number of bits, walked until inside n
    (Black & Rogaway 2002, cycle walking).
    """
    half = max(1, (max(n - 1, 1).bit_length() + 1) // 2)
    mask = np.uint64((1 << half) - 1)
    keys = np.random.Generator(np.random.Philox(key=key)).integers(0, 2**63, 4, dtype=np.uint64)

    def encrypt(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        left, right = values >> np.uint64(half), values & mask
        for round_key in keys:
            mixed = (right + round_key) * np.uint64(0x9E3779B97F4A7C15)
            mixed ^= mixed >> np.uint64(29)
            mixed *= np.uint64(0xBF58476D1CE4E5B9)
            left, right = right, left ^ ((mixed >> np.uint64(32)) & mask)
        return (left << np.uint64(half)) | right

    values = encrypt(positions.astype(np.uint64))
    while (outside := values >= n).any():
        values[outside] = encrypt(values[outside])
    return values.astype(np.int64)


class Cells:
    """Which tiles show the same cell: about 13 bytes a tile, whatever the names are."""

    def __init__(self, archives: list[Archive], config: PairConfig) -> None:
        """Read the cells, periods and days of all tiles, in the order of the archives."""
        self.config = config
        cells, periods, days, shares = _codes(archives)
        # Archives may hold the same cell and period: such tiles stand next to each other.
        self._members = np.lexsort((periods, cells)).astype(np.int32)
        self._cell = cells
        self._starts = np.concatenate([[0], np.cumsum(np.bincount(cells))]).astype(np.int32)
        # 65,535 days reach to the year 2149.
        self._period, self._day = periods, days.clip(0, 65535).astype(np.uint16)
        is_usable = shares >= config.min_valid_share
        self.is_usable: npt.NDArray[np.bool_] | None = None
        self.usable: npt.NDArray[np.int32] | None = None
        if not is_usable.all():
            self.is_usable = is_usable
            self.usable = np.flatnonzero(is_usable).astype(np.int32)

    @property
    def has_other_periods(self) -> bool:
        """Whether any cell has tiles of two periods that may be paired."""
        n, step = len(self._members), 2**16
        some = np.zeros(step)
        for start in range(0, n, step):
            tiles = self._members[start : start + step].astype(np.int64)
            if (self.partner(tiles, some[: len(tiles)]) != tiles).any():
                return True
        return False

    def partner(self, tiles: Indices, random: npt.NDArray[np.float64]) -> Indices:
        """Return a partner for each tile, chosen by a number in [0, 1); else the tile itself."""
        config = self.config
        cell = self._cell[tiles]
        start, stop = self._starts[cell], self._starts[cell + 1]
        places = start[:, None] + np.arange(int((stop - start).max()))
        allowed = places < stop[:, None]
        members = self._members[np.minimum(places, len(self._members) - 1)]
        allowed &= self._period[members] != self._period[tiles][:, None]
        if self.is_usable is not None:
            allowed &= self.is_usable[members]
        if config.min_gap_days or config.max_gap_days is not None or config.season != "any":
            day = self._day[tiles].astype(np.int64)[:, None]
            gap = np.abs(self._day[members].astype(np.int64) - day)
            allowed &= gap >= config.min_gap_days
            if config.max_gap_days is not None:
                allowed &= gap <= config.max_gap_days
            if config.season != "any":
                apart = np.abs(gap - YEAR_DAYS * np.round(gap / YEAR_DAYS))
                allowed &= (apart <= SEASON_DAYS) == (config.season == "same")
        n_allowed = allowed.sum(axis=1)
        rank = np.floor(random * n_allowed).astype(np.int64)
        chosen = (allowed.cumsum(axis=1) > rank[:, None]).argmax(axis=1)
        found = members[np.arange(len(tiles)), chosen].astype(np.int64)
        return np.where(n_allowed > 0, found, tiles)


def _codes(
    archives: list[Archive],
) -> tuple[
    npt.NDArray[np.int32], npt.NDArray[np.int16], npt.NDArray[np.int32], npt.NDArray[np.float32]
]:
    """Return numbers that stand for each tile's cell and period, its day, and its valid share."""
    # One column after the other, and arrow's memory given back: names take 20 times as much.
    cell_code, n_cells = _encode([archive.columns(["cell_id"])["cell_id"] for archive in archives])
    pa.default_memory_pool().release_unused()
    tables = [archive.columns(["period", "valid_share", "day"]) for archive in archives]
    period_code, _ = _encode([table["period"] for table in tables])
    none = [pa.compute.equal(table["period"], "none").to_numpy() for table in tables]
    is_chip = np.concatenate(none)
    # A chip's place is unknown, so equal names in two archives are two places.
    if is_chip.any():
        cell_code[is_chip] = n_cells + np.flatnonzero(is_chip)
    days = [_days(table) for table in tables]
    shares = [np.asarray(table["valid_share"].to_numpy(), np.float32) for table in tables]
    del tables
    pa.default_memory_pool().release_unused()
    return cell_code, period_code.astype(np.int16), np.concatenate(days), np.concatenate(shares)


def _encode(columns: list[pa.ChunkedArray]) -> tuple[npt.NDArray[np.int32], int]:
    """Return a number for each text, the same for the same one, and how many there are."""
    chunks = [chunk for column in columns for chunk in column.chunks]
    encoded = pa.chunked_array(chunks).dictionary_encode().combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.unify_dictionaries().combine_chunks()
    return np.array(encoded.indices.to_numpy(), np.int32), len(encoded.dictionary)


def _days(table: pa.Table) -> npt.NDArray[np.int32]:
    """Return the day of each tile; archives of before the column have their periods only."""
    if "day" in table.column_names:
        return np.asarray(table["day"].to_numpy(), np.int32)
    periods = table["period"].dictionary_encode().combine_chunks()
    by_period = [day_number(str(period)) for period in periods.dictionary.to_pylist()]
    return np.asarray(np.array(by_period, np.int32)[periods.indices.to_numpy()])
