"""Workers: however many there are, and wherever, the archive has the same bytes."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import dask
import psutil
import pytest

from ecofm.errors import ArtifactError
from ecofm.tiles import workers

# distributed's own event loops and sockets are closed after the test that started them.
FAILURES = "distributed.scheduler.allowed-failures"
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")


@pytest.fixture
def scenes(tmp_path: Path, paint: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return scenes of 12 tiles, one of them damaged."""
    monkeypatch.setattr(workers, "MIN_SHARDS", 2)
    # The workers import this checkout too.
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    for year in (2018, 2019):
        paint.scene(tmp_path / "in" / f"a_{year}.tif", paint.pixels((3, 256, 384), seed=year))
    path = paint.scene(
        tmp_path / "in" / "b_2018.tif", paint.pixels((3, 256, 384)), compress="deflate",
        corner=(paint.corner[0] + 12800, paint.corner[1]),
    )  # fmt: skip
    path.write_bytes(path.read_bytes()[:-200_000])
    return tmp_path / "in"


def test_a_local_cluster_writes_the_same_bytes(tmp_path: Path, paint: Any, scenes: Path) -> None:
    paint.tile(scenes, tmp_path / "alone", shard_tiles=2)
    cluster = tmp_path / "cluster.yaml"
    cluster.write_text("cluster: local\njobs: 2\noptions:\n  processes: false\n")
    paint.tile(scenes, tmp_path / "many", shard_tiles=2, dask=cluster)
    assert paint.hashes(tmp_path / "alone") == paint.hashes(tmp_path / "many")


def kill_the_workers() -> int:
    """Kill the processes that this test's cluster started, and return how many they were."""
    started = psutil.Process().children(recursive=True)
    workers = [one for one in started if "spawn_main" in " ".join(one.cmdline())]
    for one in workers:
        one.send_signal(signal.SIGKILL)
    return len(workers)


def test_a_killed_worker_does_not_end_the_run(tmp_path: Path, paint: Any, scenes: Path) -> None:
    paint.tile(scenes, tmp_path / "alone", shard_tiles=1)
    cluster = tmp_path / "cluster.yaml"
    cluster.write_text("cluster: local\njobs: 1\n")
    n_killed = []

    def progress(done: int, _: int) -> None:
        if done == 1:
            n_killed.append(kill_the_workers())

    paint.tile(scenes, tmp_path / "killed", shard_tiles=1, dask=cluster, progress=progress)
    assert n_killed == [1]
    assert paint.hashes(tmp_path / "alone") == paint.hashes(tmp_path / "killed")


def test_a_shard_that_kills_its_workers_is_told(
    tmp_path: Path, paint: Any, scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paint.tile(scenes, tmp_path / "alone", shard_tiles=4)
    cluster = tmp_path / "cluster.yaml"
    cluster.write_text("cluster: local\njobs: 1\n")
    with monkeypatch.context() as patched, dask.config.set({FAILURES: 0}):
        patched.setattr(workers, "make_one", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        with pytest.raises(ArtifactError, match=r"killed again and again.*it continues"):
            paint.tile(scenes, tmp_path / "killed", shard_tiles=4, dask=cluster)
    paint.tile(scenes, tmp_path / "killed", shard_tiles=4)
    assert paint.hashes(tmp_path / "alone") == paint.hashes(tmp_path / "killed")


FAKE = {
    # Like sbatch it takes the script's text at once, for dask deletes the file afterwards.
    "sbatch": '#!/bin/sh\nsetsid sh -c "$(cat "$1")" >/dev/null 2>&1 &\n'
    'echo "Submitted batch job $!"\n',
    "scancel": '#!/bin/sh\nfor job in "$@"; do kill -- "-$job"; done\n',
}


def test_slurm_makes_the_same_archive(
    tmp_path: Path, paint: Any, scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two programs stand for SLURM: jobs run here, as their scripts say."""
    for name, text in FAKE.items():
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    cluster = tmp_path / "cluster.yaml"
    cluster.write_text(
        "cluster: slurm\njobs: 1\noptions:\n  cores: 1\n  processes: 1\n  memory: 1GB\n"
        f"  interface: lo\n  python: {sys.executable}\n  scheduler_options:\n"
        "    dashboard_address: 127.0.0.1:0\n"
    )
    paint.tile(scenes, tmp_path / "alone", shard_tiles=4)
    paint.tile(scenes, tmp_path / "slurm", shard_tiles=4, dask=cluster)
    assert paint.hashes(tmp_path / "alone") == paint.hashes(tmp_path / "slurm")


@pytest.mark.parametrize("kind", ["local", "slurm"])
def test_options_that_a_cluster_does_not_take_are_refused(
    kind: str, tmp_path: Path, paint: Any, scenes: Path
) -> None:
    cluster = tmp_path / "cluster.yaml"
    cluster.write_text(f"cluster: {kind}\njobs: 1\noptions: {{nonsense: 3}}\n")
    with pytest.raises(ArtifactError, match=r"options\.'nonsense' is not known; expected"):
        paint.tile(scenes, tmp_path / "out", shard_tiles=4, dask=cluster)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("cluster: cloud", "expected local or slurm"),
        ("- slurm", "expected names and values"),
        ("cluster: slurm\nqueue: cpu", "'queue' is not known; expected cluster, jobs, options"),
        ("cluster: slurm\njobs: none", "expected a whole number"),
        ("cluster: [", "cannot be read as YAML"),
    ],
)
def test_a_cluster_that_is_none_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "cluster.yaml").write_text(text)
    with pytest.raises(ArtifactError, match=sentence):
        workers._read_cluster(tmp_path / "cluster.yaml", 1)
