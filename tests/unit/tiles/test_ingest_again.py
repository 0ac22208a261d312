"""The stage `tile` run again: after a stop or a kill, with other options, over an old archive."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ecofm.errors import ArtifactError, SceneError
from ecofm.tiles.archive import open_archive
from tests.unit.tiles.test_ingest import masked, paint_years


@pytest.mark.parametrize("n_shards", [1, 3])
def test_a_stopped_run_continues_to_the_same_bytes(
    tmp_path: Path, paint: Any, n_shards: int
) -> None:
    paint_years(tmp_path / "in", paint)
    (tmp_path / "in" / "letter_2018.tif").write_text("a letter")
    cut_short = paint.scene(
        tmp_path / "in" / "b_2018.tif", paint.pixels((3, 256, 384)), compress="deflate"
    )
    cut_short.write_bytes(cut_short.read_bytes()[:-200_000])
    paint.tile(tmp_path / "in", tmp_path / "whole", shard_tiles=5)
    out = tmp_path / "out"
    with pytest.raises(paint.Stopped):
        paint.tile(tmp_path / "in", out, shard_tiles=5, progress=paint.stop_after(n_shards))
    with pytest.raises(ArtifactError, match="is not finished: run the same `ecofm tile` again"):
        open_archive(out)
    kept = {path: path.stat().st_mtime_ns for path in out.glob("shards/*.parquet")}
    archive = paint.tile(tmp_path / "in", out, shard_tiles=5)
    assert len(kept) == n_shards
    assert kept == {path: path.stat().st_mtime_ns for path in kept}, "a shard was made twice"
    assert archive.index["tile_id"].is_unique
    assert paint.hashes(out) == paint.hashes(tmp_path / "whole")


def test_a_damaged_shard_of_a_stopped_run_is_made_again(tmp_path: Path, paint: Any) -> None:
    paint_years(tmp_path / "in", paint)
    paint.tile(tmp_path / "in", tmp_path / "whole", shard_tiles=5)
    out = tmp_path / "out"
    for name, content in (
        ("00000.npy", b"cut"), ("00000.valid.npy", None), ("00000.parquet", b"PAR1"),
    ):  # fmt: skip
        with pytest.raises(paint.Stopped):
            paint.tile(
                tmp_path / "in", out, shard_tiles=5, progress=paint.stop_after(2), overwrite=True
            )
        path = out / "shards" / name
        path.write_bytes(content) if content else path.unlink()
        paint.tile(tmp_path / "in", out, shard_tiles=5)
        assert paint.hashes(out) == paint.hashes(tmp_path / "whole")
        paint.tile(tmp_path / "in", out, shard_tiles=6, overwrite=True)


KILLED = """
import sys, time
from pathlib import Path
from ecofm.tiles.ingest import TileConfig, tile
def progress(done, total):
    print(done, flush=True)
    time.sleep(0.05)
tile([Path(sys.argv[1])], Path(sys.argv[2]), TileConfig(grid="utm:1280", shard_tiles=1),
     progress=progress)
"""


def test_kill_minus_nine_loses_nothing(tmp_path: Path, paint: Any) -> None:
    paint_years(tmp_path / "in", paint)
    paint.tile(tmp_path / "in", tmp_path / "whole", shard_tiles=1)
    out = tmp_path / "out"
    command = [sys.executable, "-c", KILLED, str(tmp_path / "in"), str(out)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as run:
        assert run.stdout is not None
        run.stdout.readline()
        time.sleep(0.08)
        run.send_signal(signal.SIGKILL)
    assert run.returncode == -signal.SIGKILL
    n_done = len(list(out.glob("shards/*.parquet")))
    assert 1 <= n_done < 12
    paint.tile(tmp_path / "in", out, shard_tiles=1)
    assert paint.hashes(out) == paint.hashes(tmp_path / "whole")


def test_a_second_call_is_done_and_rewrites_nothing(
    tmp_path: Path, paint: Any, capsys: Any
) -> None:
    paint_years(tmp_path / "in", paint)
    out = tmp_path / "out"
    paint.tile(tmp_path / "in", out)
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    capsys.readouterr()
    for overwrite in (False, True):
        paint.tile(tmp_path / "in", out, overwrite=overwrite)
    assert times == {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert capsys.readouterr().err.count("is done already") == 2


def test_other_options_or_scenes_are_refused_until_overwritten(tmp_path: Path, paint: Any) -> None:
    paint_years(tmp_path / "in", paint)
    out = tmp_path / "out"
    paint.tile(tmp_path / "in", out)
    before = paint.hashes(out)
    with pytest.raises(ArtifactError, match="--overwrite"):
        paint.tile(tmp_path / "in", out, grid="utm:2560")
    paint.scene(tmp_path / "in" / "a_2018.tif", paint.pixels((3, 128, 128), seed=9))
    with pytest.raises(ArtifactError, match="--overwrite"):
        paint.tile(tmp_path / "in", out)
    assert paint.hashes(out) == before
    archive = paint.tile(tmp_path / "in", out, grid="utm:2560", overwrite=True)
    assert archive.tile_px == (256, 256)
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == ["out"]


def test_an_unfinished_run_with_other_options_is_refused(tmp_path: Path, paint: Any) -> None:
    paint_years(tmp_path / "in", paint)
    out = tmp_path / "out"
    with pytest.raises(paint.Stopped):
        paint.tile(tmp_path / "in", out, shard_tiles=5, progress=paint.stop_after(1))
    with pytest.raises(ArtifactError, match="was begun with other scenes or options"):
        paint.tile(tmp_path / "in", out, shard_tiles=6)
    paint.tile(tmp_path / "in", tmp_path / "whole", shard_tiles=6)
    paint.tile(tmp_path / "in", out, shard_tiles=6, overwrite=True)
    assert paint.hashes(out) == paint.hashes(tmp_path / "whole")


def test_an_overwrite_that_fails_brings_the_old_archive_back(tmp_path: Path, paint: Any) -> None:
    paint_years(tmp_path / "in", paint)
    out = tmp_path / "out"
    paint.tile(tmp_path / "in", out)
    before = paint.hashes(out)
    masked(tmp_path, paint)
    with pytest.raises(SceneError, match="shows no valid pixel"):
        paint.tile(tmp_path / "a_2019.tif", out, overwrite=True)
    assert paint.hashes(out) == before
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == ["out"]


def test_two_runs_write_the_same_bytes(tmp_path: Path, paint: Any) -> None:
    for side in ("left", "right"):
        paint_years(tmp_path / side / "in", paint)
        masked_scene = paint.pixels((3, 300, 300), seed=5)
        paint.scene(
            tmp_path / side / "in" / "shifted_2018.tif", masked_scene, corner=(321283.0, 4321277.0)
        )
        paint.tile(tmp_path / side / "in", tmp_path / side / "out", shard_tiles=7)
    assert paint.hashes(tmp_path / "left" / "out") == paint.hashes(tmp_path / "right" / "out")
    manifest = (tmp_path / "left" / "out" / "manifest.json").read_text()
    assert str(tmp_path) not in manifest and set(json.loads(manifest)["inputs"]) == {
        "a_2018.tif", "a_2019.tif", "shifted_2018.tif",
    }  # fmt: skip
