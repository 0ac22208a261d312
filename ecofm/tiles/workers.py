"""Workers: shards made in this process, or by Dask on a local cluster or on SLURM.

A shard is a task by itself, so memory follows the number of workers, and what a killed run has
committed is not made again. `--dask FILE` is a YAML of a cluster:

    cluster: slurm        # or local
    jobs: 20              # SLURM jobs, or local processes
    options:              # those of dask_jobqueue.SLURMCluster (or of distributed.LocalCluster)
      queue: cpu
      cores: 4
      processes: 4
      memory: 16GB
      walltime: "02:00:00"
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from ecofm.errors import ArtifactError
from ecofm.files import read_file
from ecofm.tiles.jobs import Cells, Job
from ecofm.tiles.plan import Plan, TileConfig
from ecofm.tiles.rasters import Rasters
from ecofm.tiles.shards import committed_part, read_part, write_shard
from ecofm.types import Progress, say

LONG_S = 60
MIN_SHARDS = 16
"""With fewer to make, starting a cluster costs more than it saves."""
MAX_CLUSTER_BYTES = 2**20
AHEAD = 2  # tasks a worker that are handed over at once


def make_shards(
    out: Path,
    first: int,
    plan: Plan,
    config: TileConfig,
    workers: int | None,
    dask: Path | None,
    progress: Progress | None,
) -> Iterator[pd.DataFrame]:
    """Yield the index part of each shard, in order; committed ones are kept.

    `workers` None is one a core. Raises OSError when a shard cannot be written.
    """
    starts = range(0, len(plan.jobs), config.shard_tiles)
    missing = [n for n in range(len(starts)) if committed_part(out, first + n) is None]
    tasks = (
        (out, first + n, plan.jobs[starts[n] : starts[n] + config.shard_tiles], config)
        for n in missing
    )
    workers = workers or os.cpu_count() or 1
    if dask is None and (workers == 1 or len(missing) < MIN_SHARDS):
        made: Generator[int, None, None] = _make_here(tasks)
    else:
        made = _make_by_dask(tasks, _read_cluster(dask, workers))
    waiting = set(missing)
    first_s = None
    for n in range(len(starts)):
        while n in waiting:
            waiting.discard(next(made) - first)
            # From the second shard on: the first waits for the workers to start.
            if first_s is None:
                first_s = time.monotonic()
            elif len(waiting) == len(missing) - AHEAD:
                left_s = (time.monotonic() - first_s) * len(waiting)
                if left_s > LONG_S:
                    say(f"about {left_s / 60:.0f} minutes to go.")
        yield read_part(out, first + n)
        if progress:
            progress(n + 1, len(starts))
    made.close()


Task = tuple[Path, int, list[Job] | Cells, TileConfig]


def _make_here(tasks: Iterator[Task]) -> Generator[int, None, None]:
    with Rasters() as rasters:
        for out, number, jobs, config in tasks:
            write_shard(out, number, jobs, config, rasters)
            yield number


def make_one(out: Path, number: int, jobs: list[Job] | Cells, config: TileConfig) -> int:
    """Make a shard in a worker: nothing comes back but its number, for the disk has the rest."""
    with Rasters() as rasters:
        write_shard(out, number, jobs, config, rasters)
    return number


def _make_by_dask(tasks: Iterator[Task], wanted: dict[str, Any]) -> Generator[int, None, None]:
    """Yield the numbers of shards as workers finish them; few are handed over at a time.

    What a worker that died was making is made by another; raises ArtifactError when the same
    shard has killed several.
    """
    from distributed import Client, KilledWorker, as_completed

    with _start(wanted) as cluster, Client(cluster, set_as_default=False) as client:
        _wait_for_a_worker(client)
        running = as_completed(loop=client.loop)
        n_ahead = AHEAD * int(wanted["jobs"]) * int(wanted["options"].get("processes", 1))
        try:
            for task in tasks:
                # No hash of the arguments: each shard is made once, whatever is in it.
                running.add(client.submit(make_one, *task, pure=False))
                if running.count() >= n_ahead:
                    yield next(running).result()
            for future in running:
                yield future.result()
        except KilledWorker as error:
            raise ArtifactError(
                "a shard's workers were killed again and again, as happens where memory is short; "
                "give fewer --workers, or more memory in --dask FILE, and the same command again: "
                "it continues."
            ) from error


def _wait_for_a_worker(client: Any) -> None:
    """Wait as long as a queue may take, and say so."""
    from distributed import TimeoutError

    while True:
        try:
            client.wait_for_workers(1, timeout=LONG_S)
            return
        except TimeoutError:
            say("no worker has started yet; waiting (`squeue` shows a SLURM job's state).")


@contextmanager
def _start(wanted: dict[str, Any]) -> Iterator[Any]:
    """Start a cluster and close it at the end; ArtifactError for options that it does not take."""
    try:
        started = _build_cluster(wanted)
    except (TypeError, ValueError, RuntimeError) as error:
        if not wanted["options"]:
            raise
        reason = " ".join(str(error.__cause__ or error).split())[:200]
        raise ArtifactError(
            f"the cluster of --dask FILE cannot be started ({reason}); check its options."
        ) from error
    with started as cluster:
        if wanted["cluster"] == "slurm":
            cluster.scale(jobs=int(wanted["jobs"]))
        yield cluster


def _build_cluster(wanted: dict[str, Any]) -> Any:
    if wanted["cluster"] == "slurm":
        from dask_jobqueue.slurm import SLURMCluster

        return SLURMCluster(**wanted["options"])
    from distributed import LocalCluster

    # What fails in a worker is raised here; its own log would tell it twice, with a traceback.
    options = {
        "threads_per_worker": 1,
        "dashboard_address": "127.0.0.1:0",
        "silence_logs": logging.CRITICAL,
        **wanted["options"],
    }
    return LocalCluster(n_workers=int(wanted["jobs"]), **options)


def _read_cluster(path: Path | None, workers: int) -> dict[str, Any]:
    """Return which cluster to start; raises ArtifactError for a file that says something else."""
    if path is None:
        return {"cluster": "local", "jobs": workers, "options": {}}
    try:
        found = yaml.safe_load(read_file(path, MAX_CLUSTER_BYTES))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ArtifactError(f"{path} cannot be read as YAML ({error}).") from error
    if not isinstance(found, dict) or found.get("cluster") not in ("slurm", "local"):
        raise ArtifactError(f"{path}: expected `cluster: slurm` or `cluster: local`.")
    if unknown := set(found) - {"cluster", "jobs", "options"}:
        raise ArtifactError(f"{path}: {', '.join(sorted(unknown))} is not known beside options.")
    jobs = found.get("jobs", workers)
    if not isinstance(jobs, int) or jobs < 1:
        raise ArtifactError(f"{path}: jobs is {jobs!r}, expected a number from 1.")
    return {"cluster": found["cluster"], "jobs": jobs, "options": found.get("options") or {}}
