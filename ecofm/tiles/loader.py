"""The loader: whole batches of stored pixel pairs, a function of the step and of nothing else."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ecofm.errors import UsageError
from ecofm.tiles.archive import Archive, TileError, find_tile
from ecofm.tiles.pairs import Cells, Indices, PairConfig, permute
from ecofm.tiles.rasters import Pixels, Valid
from ecofm.types import say

ORDER_STREAM = 2
PARTNER_STREAM = 3
CROP_STREAM = 4
N_BUFFERS = 4  # Lightning holds one batch ahead, and one more is filled meanwhile.
MAX_SEARCH = 4096  # tiles tried in place of a damaged pair

Batch = dict[str, Any]
View = tuple[Pixels, Valid]
"""Where one tile of a pair is read to."""
Place = npt.NDArray[np.float32]
"""Where in its tiles a pair is looked at, as `Places` tell."""


@runtime_checkable
class StepPlaces(Protocol):
    """Finds where the pairs of one step are looked at."""

    def find(self, sample: int, masks: Sequence[Valid]) -> Place | None:
        """Return a place for a sample of the global batch; None if its tiles show too little."""


@runtime_checkable
class Places(Protocol):
    """Finds where pairs are looked at; a function of the step, the sample and the masks."""

    @property
    def least_valid_share(self) -> float:
        """Share of a tile's pixels without which it has no place."""

    def at(self, step: int) -> StepPlaces:
        """Return what finds the places of one step."""


class PairLoader:
    """Iterates over batches from `first_step` on; two tiles of one cell in two periods each.

    A batch is a dict: `pixels` (2, batch, band, height, width) as stored, `valid` (2, batch,
    height, width) bool, `step`; with `places`, also `places` (batch, 3) and `n_replaced`.

    A cell with one period, and a chip, is paired with itself, and so
    is a tile without the partner that `pairs` asks for. A batch is good until three more have been
    taken; then its buffers are used again.

    A damaged tile is named once and left out: the other tile of its pair stands in for it, and for
    two damaged ones the next tile in storage order, so that the batch stays a function of the step.
    The same stands in for a pair in which `places` find none; `n_replaced` counts these.
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
        pairs: PairConfig | None = None,
        crop_px: int | None = None,
        places: Places | None = None,
        check: Literal["first", "always", "never"] = "first",
    ) -> None:
        """Take the global batch size; each rank reads its own share of it.

        `crop_px` cuts one random square from both tiles of a pair. `places` say where a pair has
        enough valid pixels to be looked at. `check` says when a tile's
        bytes are hashed: `first` does so once in the life of the loader (see benchmarks/loader.py
        for what each costs).
        """
        if batch_size < 1 or batch_size % world_size or not 0 <= rank < world_size:
            raise UsageError(
                f"batch_size {batch_size} is no multiple of {world_size} devices, or rank {rank} "
                "is none of them."
            )
        if crop_px is not None and not 1 <= crop_px <= min(archives[0].tile_px):
            raise UsageError(f"crop_px {crop_px}: tiles are {archives[0].tile_px} px.")
        self.archives = archives
        self.config = pairs or PairConfig()
        self.crop_px = crop_px
        self.check = check
        self.batch_size = batch_size
        self.seed = seed
        self.first_step = first_step
        self.threads = threads
        share = batch_size // world_size
        self.samples = slice(rank * share, (rank + 1) * share)
        self.n_tiles = sum(archive.n_tiles for archive in archives)
        self.places = places
        least = max(self.config.min_valid_share, places.least_valid_share if places else 0.0)
        self._cells = Cells(archives, replace(self.config, min_valid_share=least))
        for archive in archives:
            archive.load_places()
        self._is_checked = np.zeros(self.n_tiles, bool)
        usable = self._cells.usable
        self._n_anchors = self.n_tiles if usable is None else len(usable)
        if not self._n_anchors:
            raise UsageError(
                f"no tile has {least:.1%} valid pixels, which pairs and views ask for; lower "
                "pairs.min_valid_share or views.min_valid_share."
            )
        self._buffers: list[tuple[Tensor, Tensor]] = []
        self._damaged: set[int] = set()
        self._lock = threading.Lock()

    @property
    def has_temporal_pairs(self) -> bool:
        """Whether any cell has more than one period."""
        return self._cells.has_other_periods

    @property
    def n_left_out(self) -> int:
        """Number of tiles that have too few valid pixels to be in any pair."""
        return self.n_tiles - self._n_anchors

    @property
    def n_damaged(self) -> int:
        """Number of damaged tiles met so far."""
        return len(self._damaged)

    def pairs(self, step: int) -> Indices:
        """Return the tiles of this rank's pairs at a step: (batch, 2) global tile indices."""
        position = step * self.batch_size + np.arange(self.batch_size, dtype=np.int64)
        epochs, inside = position // self._n_anchors, position % self._n_anchors
        anchors = np.empty_like(position)
        for epoch in np.unique(epochs):
            order_key = (self.seed << 64) + (ORDER_STREAM << 48) + int(epoch)
            chosen = epochs == epoch
            anchors[chosen] = permute(inside[chosen], self._n_anchors, order_key)
        if self._cells.usable is not None:
            anchors = self._cells.usable[anchors].astype(np.int64)
        random = self._random(PARTNER_STREAM, step)
        partners = self._cells.partner(anchors, random.random(self.batch_size))
        if self.config.same_period_share:
            is_alone = random.random(self.batch_size) < self.config.same_period_share
            partners = np.where(is_alone, anchors, partners)
        return np.stack([anchors, partners], axis=1)[self.samples]

    def corners(self, step: int) -> Indices:
        """Return where this rank's crops begin at a step: (batch, 2), top and left."""
        if self.crop_px is None:
            return np.zeros((self.samples.stop - self.samples.start, 2), np.int64)
        room = np.array(self.archives[0].tile_px) - self.crop_px + 1
        found = self._random(CROP_STREAM, step).integers(0, room, (self.batch_size, 2))
        return found[self.samples]

    def _random(self, stream: int, step: int) -> np.random.Generator:
        key = np.array([self.seed, stream], dtype=np.uint64)
        return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, step]))

    def __iter__(self) -> Iterator[Batch]:
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
            waiting: Future[Batch] = ahead.submit(self._load, step, readers)
            while True:
                batch = waiting.result()
                step += 1
                waiting = ahead.submit(self._load, step, readers)
                yield batch

    def _load(self, step: int, readers: ThreadPoolExecutor | None) -> Batch:
        pixels, valid = self._buffer(step)
        into = pixels.numpy(), valid.numpy()
        pairs, corners = self.pairs(step), self.corners(step)
        jobs = list(zip(range(len(pairs)), pairs.tolist(), corners.tolist(), strict=True))
        finder = self.places.at(step) if self.places else None
        places = np.zeros((len(pairs), 3), np.float32)
        is_replaced = np.zeros(len(pairs), bool)

        def fill(some: list[tuple[int, list[int], list[int]]]) -> None:
            for row, (anchor, partner), (top, left) in some:
                views = [(into[0][view, row], into[1][view, row]) for view in (0, 1)]

                def find(masks: Sequence[Valid], row: int = row) -> bool:
                    if finder is None:
                        return True
                    place = finder.find(self.samples.start + row, masks)
                    if place is None:
                        is_replaced[row] = True
                        return False
                    places[row] = place
                    return True

                self._read_pair(anchor, partner, views, (top, left), find)

        if readers is None:
            fill(jobs)
        else:
            # One job a thread: handing over each pair by itself costs as much as reading it.
            list(readers.map(fill, (jobs[n :: self.threads] for n in range(self.threads))))
        batch: Batch = {"pixels": pixels, "valid": valid, "step": step}
        if finder is not None:
            # No tensor: the affines that follow from it are drawn where it is now.
            batch |= {"places": places, "n_replaced": int(is_replaced.sum())}
        return batch

    def _read_pair(
        self,
        anchor: int,
        partner: int,
        views: list[View],
        corner: tuple[int, int],
        find: Callable[[Sequence[Valid]], bool],
    ) -> None:
        """Read both tiles of a pair, or what stands in for them; TileError when nothing does.

        `find` notes where two tiles of these masks are looked at, and returns whether it can.
        """
        has_first = self._try_read(anchor, views[0], corner)
        has_second = partner != anchor and self._try_read(partner, views[1], corner)
        pairs = ((0, 1, has_first and has_second), (0, 0, has_first), (1, 1, has_second))
        for one, other, is_whole in pairs:
            if is_whole and find((views[one][1], views[other][1])):
                if one == other:
                    _copy(views[one], views[1 - one])
                return
        self._read_next(anchor, views, corner, find)

    def _read_next(
        self,
        anchor: int,
        views: list[View],
        corner: tuple[int, int],
        find: Callable[[Sequence[Valid]], bool],
    ) -> None:
        usable = self._cells.usable
        start = anchor if usable is None else int(np.searchsorted(usable, anchor))
        for step in range(1, min(self._n_anchors, MAX_SEARCH)):
            tile = (start + step) % self._n_anchors
            tile = tile if usable is None else int(usable[tile])
            if self._try_read(tile, views[0], corner) and find((views[0][1], views[0][1])):
                _copy(views[0], views[1])
                return
        archive, place = find_tile(self.archives, anchor)
        raise TileError(
            f"tile {archive.name(place)} and all that could stand in for it are damaged, or show "
            "too few valid pixels; tile their scenes again, or lower views.min_valid_share"
        )

    def _try_read(self, tile: int, view: View, corner: tuple[int, int]) -> bool:
        archive, place = find_tile(self.archives, tile)
        is_checked = self.check == "never" or (self.check == "first" and self._is_checked[tile])
        try:
            archive.read_into(place, *view, corner, check=not is_checked)
        except TileError as error:
            with self._lock:
                is_new = tile not in self._damaged
                self._damaged.add(tile)
            if is_new:
                say(f"left out: {error}.")
            return False
        self._is_checked[tile] = True
        return True

    def _buffer(self, step: int) -> tuple[Tensor, Tensor]:
        while len(self._buffers) < N_BUFFERS:
            contract = self.archives[0].contract
            shape = (2, self.samples.stop - self.samples.start)
            dtype = getattr(torch, contract.dtype)
            pin = torch.cuda.is_available()
            size = (self.crop_px, self.crop_px) if self.crop_px else self.archives[0].tile_px
            self._buffers.append(
                (
                    torch.empty((*shape, len(contract.bands), *size), dtype=dtype, pin_memory=pin),
                    torch.empty((*shape, *size), dtype=torch.bool, pin_memory=pin),
                )
            )
        return self._buffers[step % N_BUFFERS]


def _copy(source: View, target: View) -> None:
    for whole, copy in zip(source, target, strict=True):
        np.copyto(copy, whole)
