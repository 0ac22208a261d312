"""The stage `tile`: scenes or chips onto a grid, committed shard by shard, manifest last."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa

from ecofm import artifact
from ecofm.errors import ArtifactError, UsageError
from ecofm.grid import WGS84, Grid, Keys, outline_of
from ecofm.lock import Lock
from ecofm.tiles.archive import Archive
from ecofm.tiles.area import Area, read_area
from ecofm.tiles.hashes import hash_file, hash_source
from ecofm.tiles.masks import find_masks
from ecofm.tiles.periods import years_of
from ecofm.tiles.plan import Given, Plan, TileConfig, build_plan, is_for_chips, nothing_usable
from ecofm.tiles.rasters import Sign
from ecofm.tiles.scenes import say_notes
from ecofm.tiles.shards import read_part
from ecofm.tiles.sources import Sources, find_sources
from ecofm.tiles.statistics import BandStatistics, build_contract
from ecofm.tiles.target import (
    begin,
    begin_growth,
    commit,
    give_up_growth,
    is_begun,
    tidy,
    withdraw,
    write_index,
)
from ecofm.tiles.workers import make_shards
from ecofm.types import Progress, say

__all__ = ["TileConfig", "tile"]

AREA = "area:"
"""Its name among the inputs, which no file has."""
CHANGED = "has changed since it was tiled; the archive keeps that"
ATTRIBUTION = "Contains modified Copernicus Sentinel data"
OF_SCENES = ("period", "scale", "offset")
"""Options that say something of the given scenes, not of the archive."""
INDEX_SHARDS = 1024  # whose rows are in memory at once
SYNTHETIC = "Synthetic imagery of a procedural country; no place on Earth"


@dataclass(kw_only=True, slots=True)
class Order:
    """One call of `tile`: what was found, what is there already, and what there shall be."""

    out: Path
    config: TileConfig
    sources: Sources
    inputs: dict[str, str]
    masks: dict[str, Path]
    sign: Sign | None = None
    area: Area | None = None
    base: Archive | None = None
    """The archive that grows."""
    manifest: dict[str, Any] = field(default_factory=dict)

    @property
    def first_shard(self) -> int:
        """Number of the first shard to write."""
        return int(self.base.manifest["n_shards"]) if self.base else 0

    @property
    def quarantined(self) -> frozenset[str]:
        """Tiles that were damaged and taken out of the archive that grows."""
        return frozenset(self.base.manifest.get("quarantined", ()) if self.base else ())


def tile(
    paths: Sequence[Path],
    out: Path,
    config: TileConfig,
    *,
    masks: Path | None = None,
    append: bool = False,
    overwrite: bool = False,
    workers: int | None = 1,
    dask: Path | None = None,
    area: str | None = None,
    sign: Sign | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write the archive of some scenes, or of folders of chips, and return its folder.

    Files that cannot be used are left out, with the reason, in `rejected.parquet`. The same call
    continues what was interrupted. With `append` a finished archive grows by what is new, and
    nothing that it has is written again. `masks` is a folder with rasters named as the scenes are:
    what is not 0 there is invalid. `workers` are processes, `dask` a YAML of a cluster (see
    `ecofm.tiles.workers`). `area` is a file of polygons or `west,south,east,north`: other cells
    are left out. `sign` makes URLs readable. Raises SceneError when nothing is usable.
    """
    with Lock(out, "archive") as lock:
        order = _take_order(paths, out, config, masks, area)
        order.sign = sign
        artifact.recover(out)
        return _fill(order, lock, append, overwrite, workers, dask, progress)


def _fill(
    order: Order,
    lock: Lock,
    append: bool,
    overwrite: bool,
    workers: int | None,
    dask: Path | None,
    progress: Progress | None,
) -> Path:
    out, config = order.out, order.config
    if append and (out / artifact.MANIFEST).exists():
        if not _grow(order):
            return _say_nothing_new(order)
    else:
        order.manifest = artifact.build_manifest("archive", asdict(config), order.inputs)
        if not is_begun(out) and artifact.holds_same(out, order.manifest, overwrite):
            give_up_growth(out)
            return _say_done(out)
    lock.require()
    plan = _plan(order)
    say_notes(plan.scenes)
    _require_room(order, plan)
    if order.base:
        begin_growth(out, order.manifest, order.first_shard)
    else:
        begin(out, order.manifest, overwrite)
    made = Made(statistics=BandStatistics(len(plan.scenes[0].bands)), quarantined=order.quarantined)
    try:
        for part in make_shards(out, order.first_shard, plan, config, workers, dask, progress):
            made.add(part, plan.rejected)
    except OSError as error:
        raise ArtifactError(
            f"{out} cannot be written ({error.strerror}) after {made.n_shards} shards; make room "
            "and give the same command again: it continues."
        ) from error
    for name in made.empty - made.seen:
        plan.rejected.setdefault(name, "shows no valid pixel in the cells that it was read for")
    if not made.n_tiles:
        withdraw(out, order.first_shard)
        raise nothing_usable(plan.rejected)
    _finish(order, plan, made)
    return out


@dataclass(kw_only=True, slots=True)
class Made:
    """What the shards of a run hold together."""

    statistics: BandStatistics
    quarantined: frozenset[str] = frozenset()
    n_shards: int = 0
    n_tiles: int = 0
    n_of_several_dates: int = 0
    """Tiles whose cell scenes of more than one date touch."""
    periods: set[str] = field(default_factory=set)
    again: set[str] = field(default_factory=set)
    """Quarantined tiles that are there again."""
    seen: set[str] = field(default_factory=set)
    empty: set[str] = field(default_factory=set)

    def add(self, part: pd.DataFrame, rejected: dict[str, str]) -> None:
        """Count a shard's part of the index; the scenes that failed in it go to `rejected`."""
        self.n_shards += 1
        self.n_tiles += len(part)
        self.periods.update(part["period"])
        if self.quarantined:
            self.again.update(self.quarantined.intersection(part["tile_id"]))
        told = {key: json.loads(text) for key, text in part.attrs.items()}
        self.n_of_several_dates += told["n_of_several_dates"]
        self.statistics.add_json(told["statistics"])
        self.seen.update(told["seen"])
        self.empty.update(told["empty"])
        for name, reason in told["rejected"].items():
            rejected.setdefault(name, reason)


def _plan(order: Order) -> Plan:
    plan = build_plan(order.sources, order.config, _given(order))
    if order.base:
        # Scenes that the archive has are asked again for quarantined tiles, and are not news.
        known = order.base.manifest["inputs"].keys() - set(order.base.rejected["path"])
        for name in known & (plan.rejected.keys() - order.sources.rejected.keys()):
            del plan.rejected[name]
    return plan


def _take_order(
    paths: Sequence[Path], out: Path, config: TileConfig, masks: Path | None, area: str | None
) -> Order:
    asked = read_area(area) if area is not None else None
    if asked and is_for_chips(config):
        raise UsageError("--area chooses cells of scenes: chips are tiles by themselves.")
    sources = find_sources(paths, chips=is_for_chips(config), follow_links=config.follow_links)
    inputs = {name: hash_source(source) for name, source in sources.found.items()}
    inputs |= dict.fromkeys(sources.rejected, "rejected")
    found = find_masks(masks, sources, config.follow_links) if masks else {}
    inputs |= {f"mask:{name}": hash_file(path) for name, path in found.items()}
    if asked:
        inputs[AREA] = asked.hash
    return Order(out=out, config=config, sources=sources, inputs=inputs, masks=found, area=asked)


def _say_done(out: Path) -> Path:
    tidy(out)
    say(f"{out} is done already: the same scenes and options.")
    return out


def _say_nothing_new(order: Order) -> Path:
    """Say that an archive has all scenes, and name those that changed since they were tiled."""
    base, left_out = order.base, order.sources.rejected
    assert base is not None, "it grows"
    changed = {name: reason for name, reason in left_out.items() if reason == CHANGED}
    if not changed:
        return _say_done(order.out)
    tidy(order.out)
    first = next(iter(changed))
    more = f" and {len(changed) - 1} others" if len(changed) > 1 else ""
    say(f"{first}{more} {CHANGED}; give --overwrite instead of --append to make it anew.")
    table = _left_out(base, changed)
    commit(order.out, {**base.manifest, "n_rejected": len(table)}, table)
    return order.out


def _left_out(base: Archive | None, rejected: dict[str, str]) -> pd.DataFrame:
    """Return the table of what was left out, now and before."""
    found = pd.DataFrame(sorted(rejected.items()), columns=["path", "reason"], dtype=str)
    if base is None:
        return found
    return pd.concat([base.rejected, found]).drop_duplicates("path", keep="last")


def _grow(order: Order) -> bool:
    """Keep only what is new in an order; False when nothing is.

    Raises ArtifactError when the archive has other options.
    """
    base = Archive(order.out)
    if reference := base.manifest.get("normalisation", {}).get("reference"):
        raise ArtifactError(
            f"{order.out} is normalised to {reference}; add to the archive that it was made of, "
            "and normalise that again."
        )
    old, new = base.manifest["config"], json.loads(json.dumps(asdict(order.config)))
    # Archives of before an option existed were made by its default.
    old = {**json.loads(json.dumps(asdict(TileConfig()))), **old}
    differing = [key for key in new if key not in OF_SCENES and old[key] != new[key]]
    if differing or "n_shards" not in base.manifest:
        what = ", ".join(f"{key}={old.get(key)}" for key in differing) or "an older format"
        raise ArtifactError(
            f"{order.out} was made with {what}; --append needs the same options, or make it again "
            "with --overwrite."
        )
    held: dict[str, str] = base.manifest["inputs"]
    found = order.sources.found
    # Then scenes that the archive has may be asked for more of their tiles.
    is_asked_again = base.manifest.get("quarantined") or held.get(AREA) != order.inputs.get(AREA)
    for name in [name for name in found if name in held]:
        if held[name] != order.inputs[name]:
            order.sources.rejected[name] = CHANGED
        order.inputs[name] = held[name]
        # Quarantined tiles are made again from the scenes that they were made of.
        if name in order.sources.rejected or not is_asked_again:
            del found[name]
    order.base = base
    kept = {name: hashed for name, hashed in held.items() if name != AREA}
    order.manifest = artifact.build_manifest("archive", old, {**kept, **order.inputs})
    return bool(found)


def _given(order: Order) -> Given:
    given = Given(hashes=order.inputs, masks=order.masks, sign=order.sign, area=order.area)
    if order.base:
        given.base = order.base.contract
        if is_for_chips(order.config):
            given.tile_ids = frozenset(order.base.columns(["tile_id"])["tile_id"].to_pylist())
        else:
            given.held = _held(order.base)
    return given


def _held(base: Archive) -> dict[str, Keys]:
    """Return the cells that an archive has, sorted, by period."""
    grid = Grid(base.grid)
    found: dict[str, list[Keys]] = {}
    for batch in base.batches(["cell_id", "period"]):
        keys = np.array([grid.key(cell_id) for cell_id in batch["cell_id"].to_pylist()])
        periods = np.array(batch["period"].to_pylist())
        for period in np.unique(periods).tolist():
            found.setdefault(period, []).append(keys[periods == period])
    return {period: np.unique(np.concatenate(keys)) for period, keys in found.items()}


def _require_room(order: Order, plan: Plan) -> None:
    """Say what the archive may need; raises ArtifactError when the disk is clearly too small."""
    out = order.out
    n_bytes = len(plan.jobs) * plan.tile_bytes(Grid(order.config.grid))
    say(f"{len(plan.jobs)} tiles at most, {n_bytes / 1e9:.3g} GB on disk.")
    place = next(folder for folder in (out, *out.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(place).free
    written = sum(path.stat().st_size for path in out.glob("shards/*")) if is_begun(out) else 0
    # Cells without a valid pixel are not kept, so only half of the promise is held against it.
    if n_bytes / 2 > free + written:
        raise ArtifactError(
            f"{place} has {free / 1e9:.3g} GB free and the archive needs about "
            f"{n_bytes / 1e9:.3g} GB; choose an --out on a larger disk, or give fewer scenes."
        )


def _finish(order: Order, plan: Plan, made: Made) -> None:
    """Write the index, the table of rejected files and, last, the manifest."""
    base, scene, statistics = order.base, plan.scenes[0], made.statistics
    is_synthetic = all(scene.synthetic for scene in plan.scenes)
    left_out = _left_out(base, plan.rejected)
    grid = Grid(order.config.grid)
    if base:
        left_out = left_out[~left_out["path"].isin(made.again)].reset_index(drop=True)
        # What was left out because of another area is not, once it is in.
        left_out = left_out[
            left_out["path"].isin(plan.rejected) | ~left_out["path"].isin(made.seen)
        ]
        statistics.add_json(base.manifest["statistics"])
        is_synthetic = is_synthetic and base.attribution == SYNTHETIC
        made.periods.update(base.periods)
        gsd_m = base.contract.gsd_m
    else:
        gsd_m = _gsd_m(plan, grid)
    years = sorted({year for period in made.periods for year in years_of(period)})
    radiometry = {scene.name: scene.radiometry for scene in plan.scenes}
    manifest = {
        **order.manifest,
        "contract": build_contract(scene, statistics, gsd_m).to_json(),
        "statistics": statistics.to_json(),
        "radiometry": {**(base.manifest.get("radiometry", {}) if base else {}), **radiometry},
        "quarantined": sorted(order.quarantined - made.again),
        "n_tiles": made.n_tiles + (base.n_tiles if base else 0),
        "n_of_several_dates": made.n_of_several_dates
        + (base.manifest.get("n_of_several_dates", 0) if base else 0),
        "n_shards": order.first_shard + made.n_shards,
        "n_rejected": len(left_out),
        "tile_px": list(plan.tile_px(grid)),
        "attribution": SYNTHETIC if is_synthetic else " ".join([ATTRIBUTION, *years]),
    }
    write_index(order.out, _index_parts(order, made.n_shards))
    commit(
        order.out, manifest, left_out, None if grid.kind == "none" else _scenes(order, plan, made)
    )


def _scenes(order: Order, plan: Plan, made: Made) -> gpd.GeoDataFrame:
    """Return the scenes that are in the tiles, with their outlines: where the sources meet."""
    used = [scene for scene in plan.scenes if scene.name in made.seen and scene.geobox is not None]
    columns = {key: [getattr(s, key) for s in used] for key in ("name", "period", "date")}
    outlines = [outline_of(scene.geobox) for scene in used if scene.geobox is not None]
    found = gpd.GeoDataFrame(columns, geometry=outlines, crs=WGS84)
    found = found.astype({"name": str, "period": object, "date": object})
    if order.base and len(known := order.base.scenes):
        found = pd.concat([known, found]).drop_duplicates("name", keep="last")
    return found.sort_values("name", ignore_index=True)


def _gsd_m(plan: Plan, grid: Grid) -> float | None:
    """Return the side of a pixel on the ground, at the tile in the middle."""
    if grid.kind == "none":
        return None
    middle = len(plan.jobs) // 2
    (job,) = plan.jobs[middle : middle + 1]
    return grid.gsd_m(float(grid.cell(job.cell_id).polygon().centroid.y))


def _index_parts(order: Order, n_shards: int) -> Iterator[gpd.GeoDataFrame | pa.RecordBatch]:
    """Yield the rows of the archive that grows, then those of the new shards, some at a time."""
    if order.base:
        yield from order.base.batches()
    for start in range(0, n_shards, INDEX_SHARDS):
        numbers = range(start, min(start + INDEX_SHARDS, n_shards))
        parts = [read_part(order.out, order.first_shard + n) for n in numbers]
        if not any(len(part) for part in parts):
            continue
        rows = pd.concat([part for part in parts if len(part)], ignore_index=True)
        rows.attrs = {}
        geometry = gpd.GeoSeries.from_wkb(rows.pop("geometry"), crs=WGS84)
        yield gpd.GeoDataFrame(rows, geometry=geometry)
