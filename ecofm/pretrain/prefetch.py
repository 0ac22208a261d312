"""Prefetch: the next batch's views are made on the GPU while the model works on this one's.

A step ends by waiting for the GPU. Whatever is prepared only then, drawing parameters, copying
pixels and rendering views, would leave the GPU idle meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, final

import torch
from torch import Tensor

from ecofm.tiles.loader import Batch, PairLoader

Parts = list[tuple[list[Tensor], Tensor | None]]
"""The views of each part of a batch, and which of its pairs are one tile twice."""
Prepare = Callable[[Batch], Parts]


@final
class Prefetch:
    """Iterates over a loader's batches with `parts` in the place of `pixels` and `valid`."""

    def __init__(self, loader: PairLoader, device: torch.device, prepare: Prepare) -> None:
        """Take the loader, the GPU, and what makes the parts of a batch that lies there."""
        self.loader = loader
        self.device = device
        self.prepare = prepare

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield batches for ever, each made by a thread with a stream of its own."""
        self.stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        batches = iter(self.loader)
        with ThreadPoolExecutor(1, "prefetch") as ahead:
            waiting: Future[dict[str, Any]] = ahead.submit(self._take, batches)
            while True:
                batch = waiting.result()
                waiting = ahead.submit(self._take, batches)
                # The memory belongs to the other stream, which must not use it again too early.
                current = torch.cuda.current_stream(self.device)
                for views, same in batch["parts"]:
                    for tensor in (*views, *([] if same is None else [same])):
                        tensor.record_stream(current)
                yield batch

    def _take(self, batches: Iterator[Batch]) -> dict[str, Any]:
        batch = next(batches)
        with torch.no_grad(), torch.cuda.stream(self.stream):
            moved = {
                name: batch[name].to(self.device, non_blocking=True) for name in ("pixels", "valid")
            }
            parts = self.prepare(batch | moved)
        # The loader may use its buffers again now, and the model the views.
        self.stream.synchronize()
        kept = {name: value for name, value in batch.items() if name not in moved}
        return {**kept, "parts": parts}
