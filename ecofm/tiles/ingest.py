"""The stage `tile`: scenes or chips onto a grid, committed shard by shard, manifest last."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import xxhash

from ecofm import artifact
from ecofm.errors import ArtifactError, EcofmError, SceneError
from ecofm.grid import WGS84, Cell, Grid
from ecofm.tiles.archive import (
    ATTRIBUTION,
    INDEX_COLUMNS,
    checksum_tile,
    shard_paths,
)
from ecofm.tiles.radiometry import BandStatistics, build_contract
from ecofm.tiles.scenes import (
    SUFFIXES,
    Pixels,
    Scene,
    Valid,
    parse_period,
    read_chip,
    read_onto,
    read_scene,
)
from ecofm.types import Progress, say

SYNTHETIC = "Synthetic imagery of a procedural country; no place on Earth"


@dataclass(kw_only=True, slots=True)
class TileConfig:
    """How scenes become tiles."""

    grid: str = "utm:2560"
    """`utm:2560` or `utm:1280` (metres), `xyz:14` (zoom), or `none` for chips."""
    period: str | None = None
    """Period of all given scenes; None reads it from each."""
    bands: tuple[str, ...] | None = None
    """Band names in file order; None reads them from each scene."""
    name_pattern: str | None = None
    """`{y}_{x}`: on a grid `xyz:`, the image files are tiles named by their cell."""
    min_valid_share: float = 0.0
    """Tiles with no more than this share of valid pixels are not kept."""
    shard_tiles: int = 64
    """Cells a shard."""

    def __post_init__(self) -> None:
        """Raise ValueError for values that cannot be used."""
        Grid(self.grid)
        if self.period is not None:
            parse_period(self.period)
        if self.name_pattern is not None and "{y}_{x}" not in self.name_pattern:
            raise ValueError(f"--name-pattern {self.name_pattern!r}: expected {{y}}_{{x}} in it.")
        if self.name_pattern is not None and not self.grid.startswith("xyz:"):
            raise ValueError("--name-pattern names web-mercator cells: give --grid xyz:14 with it.")
        if not 0 <= self.min_valid_share < 1 or self.shard_tiles < 1:
            raise ValueError("min_valid_share is from 0 to below 1, shard_tiles at least 1.")


@dataclass(frozen=True, slots=True)
class _Job:
    """One tile to make: the scenes that may hold its pixels, best first."""

    cell_id: str
    period: str
    group: str
    cell: Cell | None
    scenes: tuple[Scene, ...]


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
    inputs = {name: _hash_pixels(path) for name, path in files.items()}
    manifest = artifact.build_manifest("archive", asdict(config), inputs)
    if not _is_open(out) and artifact.holds_same(out, manifest, overwrite):
        say(f"{out} is done already: the same scenes and options.")
        return out
    rejected: dict[str, str] = {}
    jobs, scenes = _plan(files, config, rejected)
    if not jobs:
        raise SceneError(_nothing_usable(rejected))
    _begin(out, manifest, overwrite)
    chunks = [
        jobs[start : start + config.shard_tiles]
        for start in range(0, len(jobs), config.shard_tiles)
    ]
    statistics = BandStatistics(len(scenes[0].bands))
    parts = []
    for number, chunk in enumerate(chunks):
        part = _write_shard(out, number, chunk, config, rejected)
        parts.append(part)
        statistics.add_json(json.loads(part.attrs["statistics"]))
        if progress:
            progress(number + 1, len(chunks))
    return _finish(out, manifest, parts, statistics, scenes, config, rejected)


def find_rasters(paths: Sequence[Path]) -> dict[str, Path]:
    """Return image files by their name relative to the given folders, sorted.

    With several folders the names begin with the folder's own name. Raises SceneError for a path
    that is missing or holds no image.
    """
    found: dict[str, Path] = {}
    for path in paths:
        if not path.exists():
            raise SceneError(f"{path} does not exist; give a folder or files of imagery.")
        inside = sorted(path.rglob("*")) if path.is_dir() else [path]
        images = [p for p in inside if p.suffix.lower() in SUFFIXES and p.is_file()]
        if not images:
            raise SceneError(f"{path} holds no image ({', '.join(sorted(SUFFIXES))}).")
        root = path if path.is_dir() else path.parent
        prefix = f"{path.resolve().name}/" if path.is_dir() and len(paths) > 1 else ""
        for image in images:
            name = prefix + image.relative_to(root).as_posix()
            if found.setdefault(name, image) != image:
                raise SceneError(f"{image} and {found[name]} have the same name; rename one.")
    return dict(sorted(found.items()))


def _hash_pixels(path: Path) -> str:
    digest = xxhash.xxh3_64()
    with path.open("rb") as file:
        while block := file.read(2**22):
            digest.update(block)
    return digest.hexdigest()


def _nothing_usable(rejected: dict[str, str]) -> str:
    first, reason = next(iter(rejected.items()))
    return f"none of {len(rejected)} images is usable; the first: {first}: {reason}."


def _plan(
    files: dict[str, Path], config: TileConfig, rejected: dict[str, str]
) -> tuple[list[_Job], list[Scene]]:
    """List the tiles to make; files that cannot be used go to `rejected`."""
    grid = Grid(config.grid)
    scenes: dict[str, Scene] = {}
    for name, path in files.items():
        try:
            scenes[name] = read_scene(path, period=config.period, bands=config.bands)
        except SceneError as error:
            rejected[name] = str(error)
    is_chips = grid.kind == "none" or config.name_pattern is not None
    _keep_common(scenes, rejected, lambda scene: scene.signature, "bands, number type and offset")
    if is_chips:
        _keep_common(scenes, rejected, lambda scene: scene.shape_px, "size in pixels")
        jobs = list(_plan_chips(scenes, grid, config, rejected))
    else:
        jobs = _plan_cells(scenes, grid, rejected)
    return jobs, list(scenes.values())


def _keep_common(
    scenes: dict[str, Scene], rejected: dict[str, str], signature: Any, what: str
) -> None:
    """Move the scenes that differ from the most common signature to `rejected`."""
    counts = Counter(signature(scene) for scene in scenes.values())
    if len(counts) < 2:
        return
    common = counts.most_common(1)[0][0]
    for name in [name for name, scene in scenes.items() if signature(scene) != common]:
        found = signature(scenes.pop(name))
        rejected[name] = f"differs from most in {what}: found {found}, expected {common}"


def _plan_chips(
    scenes: dict[str, Scene], grid: Grid, config: TileConfig, rejected: dict[str, str]
) -> Iterator[_Job]:
    pattern = None
    if config.name_pattern is not None:
        pattern = re.compile(
            re.escape(config.name_pattern).replace(r"\{y\}_\{x\}", r"(?P<cell>\d+_\d+)")
        )
    for name, scene in scenes.items():
        group = scene.path.resolve().parent.name
        if pattern is None:
            yield _Job(name, "none", group, None, (scene,))
            continue
        found = pattern.fullmatch(scene.path.stem)
        try:
            if not found:
                raise ValueError(f"name does not fit {config.name_pattern}")
            if scene.shape_px != (grid.tile_px, grid.tile_px):
                raise ValueError(f"is {scene.shape_px} px, expected {grid.tile_px} px a side")
            if scene.period is None and not PERIOD_FOLDER.fullmatch(group):
                raise ValueError(NO_PERIOD)
            cell = grid.cell(found["cell"])
        except ValueError as error:
            rejected[name] = str(error)
            continue
        yield _Job(cell.cell_id, scene.period or group, group, cell, (scene,))


NO_PERIOD = "has no period: no tag `period`, no date or year in its name; give --period"
PERIOD_FOLDER = re.compile(r"(19|20)\d\d(-Q[1-4])?")


def _plan_cells(scenes: dict[str, Scene], grid: Grid, rejected: dict[str, str]) -> list[_Job]:
    cells: dict[str, Cell] = {}
    candidates: dict[tuple[str, str], list[Scene]] = {}
    for name, scene in list(scenes.items()):
        try:
            if scene.geobox is None:
                raise SceneError("has no place (CRS and transform); give --grid none for chips")
            if scene.period is None:
                raise SceneError(NO_PERIOD)
            touched = list(grid.cells(scene.geobox))
        except SceneError as error:
            rejected[name] = str(error)
            del scenes[name]
            continue
        for cell in touched:
            cells[cell.cell_id] = cell
            candidates.setdefault((scene.period, cell.cell_id), []).append(scene)
    return [
        _Job(cell_id, period, "", cells[cell_id], tuple(candidates[period, cell_id]))
        for period, cell_id in sorted(candidates)
    ]


def _is_open(out: Path) -> bool:
    """Return whether `out` is an archive that was begun and not finished."""
    return (out / "plan.json").is_file() and not (out / artifact.MANIFEST).exists()


def _begin(out: Path, manifest: dict[str, Any], overwrite: bool) -> None:
    plan = out / "plan.json"
    if _is_open(out) and artifact.read_json(plan) != manifest:
        if not overwrite:
            raise ArtifactError(
                f"{out} was begun with other scenes or options; give --overwrite, or another --out."
            )
        shutil.rmtree(out)
    elif overwrite and out.exists():
        shutil.rmtree(out)
    try:
        (out / "shards").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArtifactError(f"{out} cannot be written ({error.strerror}).") from error
    artifact.write_json(plan, manifest)


def _write_shard(
    out: Path, number: int, chunk: list[_Job], config: TileConfig, rejected: dict[str, str]
) -> pd.DataFrame:
    """Make a shard's tiles, or read its index part when an earlier run committed it."""
    pixels_path, valid_path, part_path = shard_paths(out, number)
    if part_path.exists():
        part = pd.read_parquet(part_path)
        rejected.update(json.loads(part.attrs["rejected"]))
        return part
    rows: list[dict[str, Any]] = []
    kept: list[Pixels] = []
    masks: list[Pixels] = []
    failed: dict[str, str] = {}
    statistics: BandStatistics | None = None
    for job in chunk:
        pixels, valid = _make_tile(job, failed)
        if pixels is None or valid is None or valid.mean() <= config.min_valid_share:
            continue
        statistics = statistics or BandStatistics(len(pixels))
        statistics.add(pixels, valid)
        rows.append(_describe(job, number, len(rows), pixels, valid))
        kept.append(pixels)
        masks.append(np.packbits(valid, axis=-1))
    part = pd.DataFrame(rows, columns=[*INDEX_COLUMNS, "geometry"])
    part.attrs = {
        "statistics": json.dumps(statistics.to_json() if statistics else None),
        "rejected": json.dumps(failed),
    }
    if kept:
        _save(pixels_path, np.stack(kept))
        _save(valid_path, np.stack(masks))
    beside = part_path.with_suffix(".partial")
    part.to_parquet(beside)
    beside.replace(part_path)
    rejected.update(failed)
    return part


def _save(path: Path, values: Pixels) -> None:
    beside = path.with_suffix(".partial")
    with beside.open("wb") as file:
        np.save(file, values)
    beside.replace(path)


def _make_tile(job: _Job, failed: dict[str, str]) -> tuple[Pixels | None, Valid | None]:
    """Read a tile: the first scene's valid pixels, the gaps filled from the next ones."""
    pixels: Pixels | None = None
    valid: Valid | None = None
    for scene in job.scenes:
        try:
            if job.cell is None or scene.geobox is None:
                more, more_valid = read_chip(scene)
            else:
                more, more_valid = read_onto(scene, job.cell.geobox)
        except SceneError as error:
            failed[scene.path.name] = str(error)
            continue
        if pixels is None or valid is None:
            pixels, valid = more, more_valid
            continue
        gap = more_valid & ~valid
        pixels[:, gap] = more[:, gap]
        valid |= gap
        if valid.all():
            break
    if pixels is not None and valid is not None:
        pixels[:, ~valid] = 0
    return pixels, valid


def _describe(job: _Job, shard: int, row: int, pixels: Pixels, valid: Valid) -> dict[str, Any]:
    return {
        "tile_id": f"{job.cell_id}@{job.period}",
        "cell_id": job.cell_id,
        "period": job.period,
        "group": job.group,
        "valid_share": float(valid.mean()),
        "shard": shard,
        "row": row,
        "dates": ",".join(sorted({scene.date for scene in job.scenes if scene.date})),
        "checksum": checksum_tile(pixels, valid),
        "geometry": job.cell.polygon().wkb if job.cell else None,
    }


def _finish(
    out: Path,
    manifest: dict[str, Any],
    parts: list[pd.DataFrame],
    statistics: BandStatistics,
    scenes: list[Scene],
    config: TileConfig,
    rejected: dict[str, str],
) -> Path:
    whole = pd.concat([part for part in parts if len(part)] or parts, ignore_index=True)
    left_out = pd.DataFrame(rejected.items(), columns=["path", "reason"], dtype=str)
    if whole.empty:
        shutil.rmtree(out)
        raise SceneError(
            _nothing_usable(rejected) if rejected else "no tile holds a valid pixel; check masks."
        )
    geometry = gpd.GeoSeries.from_wkb(whole.pop("geometry"), crs=WGS84)
    index = gpd.GeoDataFrame(whole, geometry=geometry)
    _require_unique(index, out)
    index.to_parquet(out / "index.parquet")
    left_out.to_parquet(out / "rejected.parquet")
    grid = Grid(config.grid)
    shape = np.load(shard_paths(out, int(index["shard"].iloc[0]))[0], mmap_mode="r").shape
    gsd_m = None if grid.kind == "none" else _side_m(index) / shape[-1]
    years = sorted({period[:4] for period in index["period"]} - {"none"})
    attribution = SYNTHETIC if all(s.synthetic for s in scenes) else " ".join([ATTRIBUTION, *years])
    artifact.sync_folder(out)
    artifact.write_json(
        out / artifact.MANIFEST,
        {
            **manifest,
            "contract": build_contract(scenes[0], statistics, gsd_m).to_json(),
            "n_tiles": len(index),
            "n_rejected": len(left_out),
            "tile_px": list(shape[2:]),
            "attribution": attribution,
            "index_hash": artifact.hash_file(out / "index.parquet"),
        },
    )
    (out / "plan.json").unlink()
    return out


def _require_unique(index: gpd.GeoDataFrame, out: Path) -> None:
    repeated = index["tile_id"][index["tile_id"].duplicated()]
    if len(repeated):
        shutil.rmtree(out)
        raise EcofmError(
            f"{len(repeated)} tiles have the same cell and period, first {repeated.iloc[0]}; "
            "give each period its own folder or name."
        )


def _side_m(index: gpd.GeoDataFrame) -> float:
    """Return the side of a cell on the ground, in the middle of the archive."""
    cell = index.geometry.iloc[len(index) // 2]
    local = gpd.GeoSeries([cell], crs=WGS84)
    area_m2 = float(local.to_crs(local.estimate_utm_crs()).area.iloc[0])
    return area_m2**0.5
