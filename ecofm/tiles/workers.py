"""Workers: shards made in this process, or by Dask on a local cluster or on SLURM.

A shard is a task by itself, so memory follows the number of workers, and what a killed run has
committed is not made again. `--dask FILE` is a YAML of a cluster, whose shell lines are run as they
stand:

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
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import pandas as pd

from ecofm.errors import ArtifactError, UsageError
from ecofm.fields import read_fields, read_yaml
from ecofm.tiles.jobs import Cells, Job
from ecofm.tiles.plan import Plan, TileConfig
from ecofm.tiles.rasters import Rasters
from ecofm.tiles.shards import committed_part, read_part, write_shard
from ecofm.types import Progress, say

LONG_S = 60
MIN_SHARDS = 16
"""With fewer to make, starting a cluster costs more than it saves."""
AHEAD = 2  # tasks a worker that are handed over at once


class Cluster(Enum):
    """Where the workers run."""

    local = "local"
    slurm = "slurm"


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """What a file of `--dask` says."""

    cluster: Cluster
    """Where the workers run."""
    jobs: int | None = None
    """SLURM jobs, or local processes; None: as many as `--workers`."""
    options: dict[str, Any] = field(default_factory=dict)
    """Those of the cluster."""

    def __post_init__(self) -> None:
        """Raise UsageError for a number of jobs that is none."""
        if self.jobs is not None and self.jobs < 1:
            raise UsageError(f"jobs is {self.jobs}, expected 1 or more.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Scheduler:
    """The process that hands out the work."""

    dashboard_address: str | None = None
    """Where its page is shown."""
    port: int | None = None
    """Where workers find it."""
    host: str | None = None
    """The address that it listens at."""
    interface: str | None = None
    """The network that it listens on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalOptions:
    """The options of distributed.LocalCluster that a file may set; none of them names code."""

    processes: bool | None = None
    """Whether workers are processes, or threads of this one."""
    threads_per_worker: int | None = None
    """Threads of each."""
    memory_limit: str | None = None
    """Memory of each, such as 4GB."""
    host: str | None = None
    """The address that the scheduler listens at."""
    interface: str | None = None
    """The network that it listens on."""
    scheduler_port: int | None = None
    """Where workers find it."""
    dashboard_address: str | None = None
    """Where its page is shown."""
    local_directory: str | None = None
    """Where workers write what does not fit into memory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SlurmOptions:
    """The options of dask_jobqueue.SLURMCluster that a file may set.

    Lines of the job's script, and the program that is Python there, are run as they stand.
    """

    queue: str | None = None
    """Partition."""
    account: str | None = None
    """Whose time is used."""
    cores: int | None = None
    """Cores a job."""
    processes: int | None = None
    """Workers a job."""
    memory: str | None = None
    """Memory a job, such as 16GB."""
    walltime: str | None = None
    """Longest time of a job, as "02:00:00"."""
    job_cpu: int | None = None
    """What SLURM is told in place of `cores`."""
    job_mem: str | None = None
    """What SLURM is told in place of `memory`."""
    name: str | None = None
    """Of the workers."""
    job_name: str | None = None
    """Of the jobs."""
    python: str | None = None
    """The program that is Python on the nodes."""
    shebang: str | None = None
    """First line of the job's script."""
    job_script_prologue: list[str] | None = None
    """Lines of the script before the worker starts, such as `module load`."""
    job_extra_directives: list[str] | None = None
    """More lines for sbatch."""
    job_directives_skip: list[str] | None = None
    """Lines for sbatch that are left out."""
    interface: str | None = None
    """The network between workers and scheduler."""
    local_directory: str | None = None
    """Where workers write what does not fit into memory."""
    shared_temp_directory: str | None = None
    """Where files for all nodes lie."""
    log_directory: str | None = None
    """Where jobs write their logs."""
    death_timeout: float | None = None
    """Seconds after which a worker without scheduler ends."""
    nanny: bool | None = None
    """Whether a process watches over each worker."""
    scheduler_options: Scheduler | None = None
    """The process that hands out the work."""


OPTIONS: dict[Cluster, type[LocalOptions] | type[SlurmOptions]] = {
    Cluster.local: LocalOptions,
    Cluster.slurm: SlurmOptions,
}


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
        found = read_fields(Wanted, read_yaml(path))
        read_fields(OPTIONS[found.cluster], found.options, name="options")
    except UsageError as error:
        raise ArtifactError(f"--dask {path}: {error}") from error
    jobs = workers if found.jobs is None else found.jobs
    return {"cluster": found.cluster.value, "jobs": jobs, "options": found.options}
