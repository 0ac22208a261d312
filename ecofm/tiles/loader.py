"""The loader: whole batches of stored pixel pairs, a function of the step and of nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from ecofm.tiles.archive import Archive

ORDER_STREAM = 2
PARTNER_STREAM = 3
N_BUFFERS = 4  # Lightning holds one batch ahead, and one more is filled meanwhile.

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
    height, width) bool, `step`. A cell with one period, and a chip, is paired with itself. The
    buffers are used again after four batches.
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
        if batch_size % world_size:
            raise ValueError(f"batch_size {batch_size} is no multiple of {world_size} devices.")
        self.archives = archives
        self.batch_size = batch_size
        self.seed = seed
        self.first_step = first_step
        self.threads = threads
        share = batch_size // world_size
        self.samples = slice(rank * share, (rank + 1) * share)
        self._starts = np.cumsum([0, *(archive.n_tiles for archive in archives)])
        self._first, self._count, self._members = _periods_of_cells(archives)
        self._buffers: list[tuple[Tensor, Tensor]] = []

    @property
    def n_tiles(self) -> int:
        """Number of tiles in all archives."""
        return int(self._starts[-1])

    @property
    def has_temporal_pairs(self) -> bool:
        """Whether any cell has more than one period."""
        return bool((self._count > 1).any())

    def pairs(self, step: int) -> Indices:
        """Return the tiles of this rank's pairs at a step: (batch, 2) global tile indices."""
        position = step * self.batch_size + np.arange(self.batch_size, dtype=np.int64)
        epochs, inside = position // self.n_tiles, position % self.n_tiles
        anchors = np.empty_like(position)
        for epoch in np.unique(epochs):
            key = (self.seed << 64) + (ORDER_STREAM << 48) + int(epoch)
            chosen = epochs == epoch
            anchors[chosen] = permute(inside[chosen], self.n_tiles, key)
        key = np.array([self.seed, PARTNER_STREAM], dtype=np.uint64)
        random = np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, step]))
        count = self._count[anchors]
        # The partner is one of the cell's other tiles: skip 1 to count-1 places round the ring.
        skip = 1 + np.floor(random.random(self.batch_size) * np.maximum(count - 1, 1)).astype(int)
        place = _place_in_cell(self._members, self._first, anchors)
        partner_place = np.where(count > 1, (place + skip) % count, 0)
        partners = self._members[self._first[anchors] + partner_place]
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
        jobs = [
            (tile, view, row)
            for row, pair in enumerate(self.pairs(step).tolist())
            for view, tile in enumerate(pair)
        ]

        def fill(job: tuple[int, int, int]) -> None:
            tile, view, row = job
            self._read(tile, pixels[view, row], valid[view, row])

        if readers is None:
            for job in jobs:
                fill(job)
        else:
            list(readers.map(fill, jobs))
        return {"pixels": pixels, "valid": valid, "step": step}

    def _read(self, tile: int, pixels: Tensor, valid: Tensor) -> None:
        number = int(np.searchsorted(self._starts, tile, side="right")) - 1
        found, mask = self.archives[number].read(int(tile - self._starts[number]))
        pixels.numpy()[:] = found
        valid.numpy()[:] = mask

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


def _periods_of_cells(archives: list[Archive]) -> tuple[Indices, Indices, Indices]:
    """Return, for each tile, the start and number of its cell's tiles in `members`, the third."""
    cells = pd.concat(
        [a.index[["cell_id", "period"]].assign(archive=i) for i, a in enumerate(archives)],
        ignore_index=True,
    )
    # A chip's place is unknown, so equal names in two archives are two places.
    is_chip = cells["period"] == "none"
    places = cells["cell_id"].where(~is_chip, cells["archive"].astype(str) + "/" + cells["cell_id"])
    codes, _ = pd.factorize(places)
    members = np.argsort(codes, kind="stable").astype(np.int64)
    counts = np.bincount(codes)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    return starts[codes].astype(np.int64), counts[codes].astype(np.int64), members


def _place_in_cell(members: Indices, first: Indices, anchors: Indices) -> Indices:
    """Return which of its cell's tiles each anchor is."""
    place = np.empty(len(members), dtype=np.int64)
    place[members] = np.arange(len(members)) - first[members]
    return place[anchors]
