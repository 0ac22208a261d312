"""Workers: shards made in this process, or by Dask on a local cluster or on SLURM."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from ecofm.tiles.plan import Plan, TileConfig
from ecofm.tiles.rasters import Rasters
from ecofm.tiles.shards import committed_part, write_shard
from ecofm.types import Progress, say

LONG_S = 60


def make_shards(
    out: Path,
    first: int,
    plan: Plan,
    config: TileConfig,
    workers: int | None,
    dask: Path | None,
    progress: Progress | None,
) -> Iterator[pd.DataFrame]:
    """Yield the index part of each shard, in order; committed ones are kept."""
    starts = range(0, len(plan.jobs), config.shard_tiles)
    begun, n_made = time.monotonic(), 0
    with Rasters() as rasters:
        for number, start in enumerate(starts):
            part = committed_part(out, first + number)
            if part is None:
                jobs = plan.jobs[start : start + config.shard_tiles]
                part = write_shard(out, first + number, jobs, config, rasters)
                n_made += 1
                left_s = (time.monotonic() - begun) * (len(starts) - number - 1)
                if n_made == 1 and left_s > LONG_S:
                    say(f"about {left_s / 60:.0f} minutes to go.")
            yield part
            if progress:
                progress(number + 1, len(starts))
