"""The loader: whole batches of stored pixel pairs, a function of the step and of nothing else."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from ecofm.tiles.archive import Archive, TileError
from ecofm.tiles.rasters import Pixels, Valid
from ecofm.types import say

ORDER_STREAM = 2
PARTNER_STREAM = 3
N_BUFFERS = 4  # Lightning holds one batch ahead, and one more is filled meanwhile.
MAX_SEARCH = 4096  # tiles tried in place of a damaged pair

Indices = npt.NDArray[np.int64]


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


class PairLoader:
    """Iterates over batches from `first_step` on; two tiles of one cell in two periods each.

    A batch is a dict: `pixels` (2, batch, band, height, width) as stored, `valid` (2, batch,
    height, width) bool, `step`. A cell with one period, and a chip, is paired with itself. A batch
    is good until three more have been taken; then its buffers are used again.

    A damaged tile is named once and left out: the other tile of its pair stands in for it, and for
    two damaged ones the next tile in storage order, so that the batch stays a function of the step.
    """

    def __init__(
        self,
        archives: list[Archive],
        *,
        batch_size: int,
        seed: int,
        first_step: int = 0,
        threads: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """Take the global batch size; each rank reads its own share of it."""
        if batch_size < 1 or batch_size % world_size or not 0 <= rank < world_size:
            raise ValueError(
                f"batch_size {batch_size} is no multiple of {world_size} devices, or rank {rank} "
                "is none of them."
            )
        self.archives = archives
        self.batch_size = batch_size
        self.seed = seed
        self.first_step = first_step
        self.threads = threads
        share = batch_size // world_size
        self.samples = slice(rank * share, (rank + 1) * share)
        self._starts = np.cumsum([0, *(archive.n_tiles for archive in archives)])
        self._cells = _Cells(archives)
        self._buffers: list[tuple[Tensor, Tensor]] = []
        self._damaged: set[int] = set()
        self._lock = threading.Lock()

    @property
    def n_tiles(self) -> int:
        """Number of tiles in all archives."""
        return int(self._starts[-1])

    @property
    def has_temporal_pairs(self) -> bool:
        """Whether any cell has more than one period."""
        return bool((self._cells.n_others > 0).any())

    @property
    def n_damaged(self) -> int:
        """Number of damaged tiles met so far."""
        return len(self._damaged)

    def pairs(self, step: int) -> Indices:
        """Return the tiles of this rank's pairs at a step: (batch, 2) global tile indices."""
        position = step * self.batch_size + np.arange(self.batch_size, dtype=np.int64)
        epochs, inside = position // self.n_tiles, position % self.n_tiles
        anchors = np.empty_like(position)
        for epoch in np.unique(epochs):
            order_key = (self.seed << 64) + (ORDER_STREAM << 48) + int(epoch)
            chosen = epochs == epoch
            anchors[chosen] = permute(inside[chosen], self.n_tiles, order_key)
        key = np.array([self.seed, PARTNER_STREAM], dtype=np.uint64)
        random = np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, step]))
        partners = self._cells.partner(anchors, random.random(self.batch_size))
        return np.stack([anchors, partners], axis=1)[self.samples]

    def __iter__(self) -> Iterator[dict[str, Tensor | int]]:
        """Yield batches for ever, the next ones read ahead by threads."""
        if self.threads == 0:
            step = self.first_step
            while True:
                yield self._load(step, None)
                step += 1
        with (
            ThreadPoolExecutor(1) as ahead,
            ThreadPoolExecutor(self.threads) as readers,
        ):
            step = self.first_step
            waiting: Future[dict[str, Tensor | int]] = ahead.submit(self._load, step, readers)
            while True:
                batch = waiting.result()
                step += 1
                waiting = ahead.submit(self._load, step, readers)
                yield batch

    def _load(self, step: int, readers: ThreadPoolExecutor | None) -> dict[str, Tensor | int]:
        pixels, valid = self._buffer(step)
        jobs = [(row, *pair) for row, pair in enumerate(self.pairs(step).tolist())]

        def fill(job: tuple[int, int, int]) -> None:
            row, anchor, partner = job
            for view, (found, mask) in enumerate(self._read_pair(anchor, partner)):
                pixels[view, row].numpy()[:] = found
                valid[view, row].numpy()[:] = mask

        if readers is None:
            for job in jobs:
                fill(job)
        else:
            list(readers.map(fill, jobs))
        return {"pixels": pixels, "valid": valid, "step": step}

    def _read_pair(self, anchor: int, partner: int) -> list[tuple[Pixels, Valid]]:
        """Return both tiles of a pair, or what stands in for them; TileError when nothing does."""
        found = self._try_read(anchor)
        other = found if partner == anchor else self._try_read(partner)
        if found and other:
            return [found, other]
        if one := found or other:
            return [one, one]
        for step in range(1, min(self.n_tiles, MAX_SEARCH)):
            if one := self._try_read((anchor + step) % self.n_tiles):
                return [one, one]
        raise TileError(
            f"tile {self._name(anchor)} and all that could stand in for it are damaged; "
            "tile their scenes again"
        )

    def _try_read(self, tile: int) -> tuple[Pixels, Valid] | None:
        number = self._archive_of(tile)
        try:
            return self.archives[number].read(int(tile - self._starts[number]))
        except TileError as error:
            with self._lock:
                is_new = tile not in self._damaged
                self._damaged.add(tile)
            if is_new:
                say(f"left out: {error}.")
            return None

    def _archive_of(self, tile: int) -> int:
        return int(np.searchsorted(self._starts, tile, side="right")) - 1

    def _name(self, tile: int) -> str:
        number = self._archive_of(tile)
        row = int(tile - self._starts[number])
        return str(self.archives[number].index["tile_id"].iloc[row])

    def _buffer(self, step: int) -> tuple[Tensor, Tensor]:
        while len(self._buffers) < N_BUFFERS:
            contract = self.archives[0].contract
            shape = (2, self.samples.stop - self.samples.start)
            dtype = getattr(torch, contract.dtype)
            pin = torch.cuda.is_available()
            size = self.archives[0].tile_px
            self._buffers.append(
                (
                    torch.empty((*shape, len(contract.bands), *size), dtype=dtype, pin_memory=pin),
                    torch.empty((*shape, *size), dtype=torch.bool, pin_memory=pin),
                )
            )
        return self._buffers[step % N_BUFFERS]


class _Cells:
    """Which tiles show the same cell in another period."""

    def __init__(self, archives: list[Archive]) -> None:
        tiles = pd.concat(
            [a.index[["cell_id", "period"]].assign(archive=i) for i, a in enumerate(archives)],
            ignore_index=True,
        )
        # A chip's place is unknown, so equal names in two archives are two places.
        is_chip = tiles["period"] == "none"
        own = tiles["archive"].astype(str) + "/" + tiles["cell_id"]
        cells, _ = pd.factorize(tiles["cell_id"].where(~is_chip, own))
        periods, _ = pd.factorize(tiles["period"])
        # Archives may hold the same cell and period: such tiles stand next to each other.
        self._members = np.lexsort((periods, cells)).astype(np.int64)
        cell_runs = _runs(cells[self._members])
        period_runs = _runs(np.stack([cells, periods], axis=1)[self._members])
        self._first = np.empty(len(tiles), dtype=np.int64)
        self._count = np.empty_like(self._first)
        self._after = np.empty_like(self._first)
        self.n_others = np.empty_like(self._first)
        start, count = cell_runs
        own_start, own_count = period_runs
        self._first[self._members] = start
        self._count[self._members] = count
        self._after[self._members] = own_start + own_count - start
        self.n_others[self._members] = count - own_count

    def partner(self, tiles: Indices, random: npt.NDArray[np.float64]) -> Indices:
        """Return a tile of another period for each, chosen by a number in [0, 1); else itself."""
        others = self.n_others[tiles]
        chosen = np.floor(random * others).astype(np.int64)
        # The tiles of other periods follow on those of its own, round the ring of the cell.
        place = (self._after[tiles] + chosen) % self._count[tiles]
        return np.where(others > 0, self._members[self._first[tiles] + place], tiles)


def _runs(values: npt.NDArray[np.int64]) -> tuple[Indices, Indices]:
    """Return, for each row, where its run of equal rows starts and how long it is."""
    rows = values.reshape(len(values), -1)
    is_new = np.concatenate([[True], (rows[1:] != rows[:-1]).any(axis=1)])
    starts = np.flatnonzero(is_new)
    run = np.cumsum(is_new) - 1
    lengths = np.diff([*starts, len(rows)])
    return starts[run].astype(np.int64), lengths[run].astype(np.int64)
