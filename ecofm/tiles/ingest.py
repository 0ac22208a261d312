"""The stage `tile`: scenes or chips onto a grid, committed shard by shard, manifest last."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import geopandas as gpd
import pandas as pd

from ecofm import artifact
from ecofm.errors import ArtifactError
from ecofm.grid import WGS84, Grid
from ecofm.tiles.plan import Plan, TileConfig, build_plan, find_rasters, hash_pixels, nothing_usable
from ecofm.tiles.radiometry import BandStatistics, build_contract
from ecofm.tiles.scenes import Rasters
from ecofm.tiles.shards import committed_part, write_shard
from ecofm.types import Progress, say

__all__ = ["TileConfig", "tile"]

PLAN = "plan.json"
ATTRIBUTION = "Contains modified Copernicus Sentinel data"
SYNTHETIC = "Synthetic imagery of a procedural country; no place on Earth"
LONG_S = 60


def tile(
    paths: Sequence[Path],
    out: Path,
    config: TileConfig,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Write the archive of some scenes, or of folders of chips, and return its folder.

    Files that cannot be used are left out, with the reason, in `rejected.parquet`. The same call
    continues what was interrupted. Raises SceneError when nothing is usable.
    """
    files = find_rasters(paths)
    inputs = {name: hash_pixels(path) for name, path in files.items()}
    manifest = artifact.build_manifest("archive", asdict(config), inputs)
    artifact.recover(out)
    if not _is_open(out) and artifact.holds_same(out, manifest, overwrite):
        (out / PLAN).unlink(missing_ok=True)  # a kill came between the last two steps
        shutil.rmtree(artifact.set_aside(out), ignore_errors=True)
        say(f"{out} is done already: the same scenes and options.")
        return out
    plan = build_plan(files, config)
    _require_room(out, plan, config)
    _begin(out, manifest, overwrite)
    parts, statistics = _write_shards(out, plan, config, progress)
    index = pd.concat([part for part in parts if len(part)] or parts, ignore_index=True)
    if index.empty:
        _withdraw(out)
        raise nothing_usable(plan.rejected)
    _finish(out, manifest, index, statistics, plan, config)
    return out


def _is_open(out: Path) -> bool:
    """Return whether `out` is an archive that was begun and not finished."""
    return (out / PLAN).is_file() and not (out / artifact.MANIFEST).exists()


def _require_room(out: Path, plan: Plan, config: TileConfig) -> None:
    """Say what the archive may need; raises ArtifactError when the disk is clearly too small."""
    n_bytes = len(plan.jobs) * plan.tile_bytes(Grid(config.grid))
    say(f"{len(plan.jobs)} tiles at most, {n_bytes / 1e9:.3g} GB on disk.")
    place = next(folder for folder in (out, *out.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(place).free
    written = sum(path.stat().st_size for path in out.glob("shards/*")) if _is_open(out) else 0
    # Cells without a valid pixel are not kept, so only half of the promise is held against it.
    if n_bytes / 2 > free + written:
        raise ArtifactError(
            f"{place} has {free / 1e9:.3g} GB free and the archive needs about "
            f"{n_bytes / 1e9:.3g} GB; choose an --out on a larger disk, or give fewer scenes."
        )


def _begin(out: Path, manifest: dict[str, Any], overwrite: bool) -> None:
    """Make the folder with its plan in one step; what it replaces waits aside until the end."""
    target, old = out.resolve(), artifact.set_aside(out)
    if _is_open(out):
        if artifact.is_same(artifact.read_json(out / PLAN), manifest):
            return
        if not overwrite:
            raise ArtifactError(
                f"{out} was begun with other scenes or options; give --overwrite, or another --out."
            )
        shutil.rmtree(target)
    elif (target / artifact.MANIFEST).exists():
        shutil.rmtree(old, ignore_errors=True)
        target.rename(old)
    beside = target.with_name(f".{target.name}.partial")
    try:
        shutil.rmtree(beside, ignore_errors=True)
        (beside / "shards").mkdir(parents=True)
        artifact.write_json(beside / PLAN, manifest)
        beside.rename(target)
    except OSError as error:
        shutil.rmtree(beside, ignore_errors=True)
        _withdraw(out)
        raise artifact.unwritable(out, error) from error


def _withdraw(out: Path) -> None:
    """Remove what was begun; the archive that it was to replace comes back."""
    target, old = out.resolve(), artifact.set_aside(out)
    shutil.rmtree(target, ignore_errors=True)
    if old.exists():
        old.rename(target)


def _write_shards(
    out: Path, plan: Plan, config: TileConfig, progress: Progress | None
) -> tuple[list[pd.DataFrame], BandStatistics]:
    """Make the shards that no earlier run has committed; the failures go to `plan.rejected`."""
    starts = range(0, len(plan.jobs), config.shard_tiles)
    statistics = BandStatistics(len(plan.scenes[0].bands))
    parts = []
    begun, n_made = time.monotonic(), 0
    with Rasters() as rasters:
        for number, start in enumerate(starts):
            part = committed_part(out, number)
            if part is None:
                jobs = plan.jobs[start : start + config.shard_tiles]
                part = write_shard(out, number, jobs, config, rasters)
                n_made += 1
                left_s = (time.monotonic() - begun) * (len(starts) - number - 1)
                if n_made == 1 and left_s > LONG_S:
                    say(f"about {left_s / 60:.0f} minutes to go.")
            parts.append(part)
            statistics.add_json(json.loads(part.attrs["statistics"]))
            for name, reason in json.loads(part.attrs["rejected"]).items():
                plan.rejected.setdefault(name, reason)
            if progress:
                progress(number + 1, len(starts))
    return parts, statistics


def _finish(
    out: Path,
    manifest: dict[str, Any],
    index: pd.DataFrame,
    statistics: BandStatistics,
    plan: Plan,
    config: TileConfig,
) -> None:
    """Write the index, the table of rejected files and, last, the manifest."""
    index.attrs = {}
    geometry = gpd.GeoSeries.from_wkb(index.pop("geometry"), crs=WGS84)
    index = gpd.GeoDataFrame(index, geometry=geometry)
    index.to_parquet(out / "index.parquet")
    left_out = pd.DataFrame(sorted(plan.rejected.items()), columns=["path", "reason"], dtype=str)
    left_out.to_parquet(out / "rejected.parquet")
    grid = Grid(config.grid)
    scene = plan.scenes[0]
    gsd_m = None
    if grid.kind != "none":
        gsd_m = grid.gsd_m(float(geometry.iloc[len(index) // 2].centroid.y))
    chip_px = scene.shape_px if plan.jobs[0].is_chip else (grid.tile_px, grid.tile_px)
    years = sorted({period[:4] for period in index["period"]} - {"none"})
    is_synthetic = all(scene.synthetic for scene in plan.scenes)
    artifact.sync_folder(out)
    artifact.write_json(
        out / artifact.MANIFEST,
        {
            **manifest,
            "contract": build_contract(scene, statistics, gsd_m).to_json(),
            "n_tiles": len(index),
            "n_rejected": len(left_out),
            "tile_px": list(chip_px),
            "attribution": SYNTHETIC if is_synthetic else " ".join([ATTRIBUTION, *years]),
            "index_hash": artifact.hash_file(out / "index.parquet"),
        },
    )
    (out / PLAN).unlink()
    shutil.rmtree(artifact.set_aside(out), ignore_errors=True)
