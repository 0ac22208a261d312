"""The plan of `tile`: which tiles there will be and which files are left out, before any read."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import xxhash

from ecofm.errors import SceneError
from ecofm.grid import Grid
from ecofm.tiles.scenes import SUFFIXES, Scene, parse_period, read_scene, readable_name

NO_PERIOD = "has no period: no tag `period`, no date or year in its name; give --period"
PERIOD_FOLDER = re.compile(r"(19|20)[0-9]{2}(-Q[1-4])?")


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
        if self.bands is not None and (
            not all(self.bands) or len(set(self.bands)) < len(self.bands)
        ):
            raise ValueError(
                f"--bands {','.join(self.bands)}: expected a name of its own for each."
            )
        if self.name_pattern is not None and self.name_pattern.count("{y}_{x}") != 1:
            raise ValueError(f"--name-pattern {self.name_pattern!r}: expected {{y}}_{{x}} in it.")
        if self.name_pattern is not None and not self.grid.startswith("xyz:"):
            raise ValueError("--name-pattern names web-mercator cells: give --grid xyz:14 with it.")
        if not 0 <= self.min_valid_share < 1 or self.shard_tiles < 1:
            raise ValueError("min_valid_share is from 0 to below 1, shard_tiles at least 1.")


@dataclass(frozen=True, slots=True)
class Job:
    """One tile to make: the scenes that may hold its pixels, best first."""

    cell_id: str
    period: str
    group: str
    has_place: bool
    is_chip: bool
    scenes: tuple[Scene, ...]

    @property
    def tile_id(self) -> str:
        """Name of the tile."""
        return f"{self.cell_id}@{self.period}"


@dataclass(slots=True)
class Plan:
    """The tiles to make, and the files that are left out, each with its reason."""

    jobs: list[Job] = field(default_factory=list)
    scenes: list[Scene] = field(default_factory=list)
    rejected: dict[str, str] = field(default_factory=dict)

    def tile_bytes(self, grid: Grid) -> int:
        """Return the size of one tile on disk, its mask included."""
        scene = self.scenes[0]
        height, width = scene.shape_px if self.jobs[0].is_chip else (grid.tile_px, grid.tile_px)
        pixel_bytes = len(scene.bands) * np.dtype(scene.dtype).itemsize
        return height * (width * pixel_bytes + -(-width // 8))


def find_rasters(paths: Sequence[Path]) -> dict[str, Path]:
    """Return image files by their name relative to the given folders, sorted.

    When the paths lie in several folders, the names begin with the folder's own name. Raises
    SceneError for a path that is missing or holds no image.
    """
    found: dict[str, Path] = {}
    places: set[str] = set()
    roots = {absolute(path if path.is_dir() else path.parent) for path in paths}
    for path in paths:
        if not path.exists():
            raise SceneError(f"{path} does not exist; give a folder or files of imagery.")
        inside = sorted(path.rglob("*")) if path.is_dir() else [path]
        images = [p for p in inside if p.suffix.lower() in SUFFIXES and _is_file(p)]
        if not images:
            raise SceneError(f"{path} holds no image ({', '.join(sorted(SUFFIXES))}).")
        root = path if path.is_dir() else path.parent
        prefix = f"{absolute(root).name}/" if len(roots) > 1 else ""
        for image in images:
            if str(absolute(image)) in places:
                continue
            places.add(str(absolute(image)))
            name = readable_name(prefix + image.relative_to(root).as_posix())
            if found.setdefault(name, image) != image:
                raise SceneError(f"{image} and {found[name]} have the same name; rename one.")
    return dict(sorted(found.items()))


def _is_file(path: Path) -> bool:
    """Return whether a path is a file, or a link that leads nowhere and must be named as such."""
    return path.is_file() or (path.is_symlink() and not path.exists())


def absolute(path: Path) -> Path:
    """Return a path without `..`, its links as they are: their names are the user's words."""
    return Path(os.path.abspath(path))


def hash_pixels(path: Path) -> str:
    """Return the xxh3 of a file's bytes, or `unreadable`."""
    digest = xxhash.xxh3_64()
    try:
        with path.open("rb") as file:
            while block := file.read(2**22):
                digest.update(block)
    except OSError:
        return "unreadable"  # it is rejected by name when it is opened
    return digest.hexdigest()


def nothing_usable(rejected: dict[str, str]) -> SceneError:
    """Return what to raise when no image is left."""
    if not rejected:
        return SceneError("no tile holds a valid pixel; check the scenes' masks and nodata.")
    first, reason = next(iter(rejected.items()))
    return SceneError(f"none of {len(rejected)} images is usable; the first: {first} {reason}.")


def build_plan(files: dict[str, Path], config: TileConfig) -> Plan:
    """List the tiles to make; raises SceneError when there are none."""
    grid = Grid(config.grid)
    is_chips = grid.kind == "none" or config.name_pattern is not None
    plan = Plan()
    scenes: dict[str, Scene] = {}
    for name, path in files.items():
        try:
            scenes[name] = read_scene(
                path,
                name=name,
                period=config.period,
                bands=config.bands,
                # In `6259_2019.png` the number is a column, not a year.
                period_in_name=config.name_pattern is None,
            )
        except SceneError as error:
            plan.rejected[name] = str(error)
    if is_chips:
        plan.jobs = list(_plan_chips(scenes, grid, config, plan.rejected))
    else:
        plan.jobs = _plan_cells(scenes, grid, plan.rejected)
    plan.scenes = list(scenes.values())
    if not plan.jobs:
        raise nothing_usable(plan.rejected)
    return plan


def _keep_common(
    scenes: dict[str, Scene],
    rejected: dict[str, str],
    signature: Callable[[Scene], Hashable],
    what: str,
) -> None:
    """Move the scenes that differ from the most common signature to `rejected`."""
    counts = Counter(signature(scene) for scene in scenes.values())
    if len(counts) < 2:
        return
    common = counts.most_common(1)[0][0]
    for name in [name for name, scene in scenes.items() if signature(scene) != common]:
        found = signature(scenes.pop(name))
        rejected[name] = f"differs from most in {what}: found {found}, expected {common}"


def _keep_matching(scenes: dict[str, Scene], rejected: dict[str, str]) -> None:
    _keep_common(scenes, rejected, lambda scene: scene.signature, "bands, number type and offset")


def _plan_chips(
    scenes: dict[str, Scene], grid: Grid, config: TileConfig, rejected: dict[str, str]
) -> Iterator[Job]:
    """Yield a tile for each image; those that cannot be one leave `scenes`."""
    jobs: dict[str, Job] = {}
    for name, scene in list(scenes.items()):
        group = readable_name(absolute(scene.path).parent.name)
        try:
            if config.name_pattern is None:
                job = Job(name, "none", group, False, True, (scene,))
            else:
                job = _job_by_name(scene, group, grid, config.name_pattern)
        except ValueError as error:
            rejected[name] = str(error)
            del scenes[name]
            continue
        jobs[name] = job
    _keep_matching(scenes, rejected)
    _keep_common(scenes, rejected, lambda scene: scene.shape_px, "size in pixels")
    seen: dict[str, str] = {}
    for name in list(scenes):
        first = seen.setdefault(jobs[name].tile_id, name)
        if first == name:
            yield jobs[name]
        else:
            rejected[name] = f"is cell and period {jobs[name].tile_id}, as {first} is"
            del scenes[name]


def _job_by_name(scene: Scene, group: str, grid: Grid, name_pattern: str) -> Job:
    """Return the tile that a file's name says; raises ValueError when it says none."""
    pattern = re.escape(name_pattern).replace(r"\{y\}_\{x\}", r"(?P<cell>[0-9]+_[0-9]+)")
    found = re.fullmatch(pattern, scene.path.stem)
    if not found:
        raise ValueError(f"has a name that does not fit {name_pattern}")
    if scene.shape_px != (grid.tile_px, grid.tile_px):
        raise ValueError(f"is {scene.shape_px} px, expected {grid.tile_px} px a side")
    if scene.period is None and not PERIOD_FOLDER.fullmatch(group):
        raise ValueError(f"{NO_PERIOD}, or name its folder by it")
    cell = grid.cell(found["cell"])
    return Job(cell.cell_id, scene.period or group, group, True, True, (scene,))


def _plan_cells(scenes: dict[str, Scene], grid: Grid, rejected: dict[str, str]) -> list[Job]:
    """Return a tile for each cell and period that a scene touches."""
    touched: dict[str, list[str]] = {}
    for name, scene in list(scenes.items()):
        try:
            if scene.geobox is None:
                raise SceneError("has no place (CRS and transform); give --grid none for chips")
            if scene.period is None:
                raise SceneError(NO_PERIOD)
            touched[name] = [cell.cell_id for cell in grid.cells(scene.geobox)]
        except SceneError as error:
            rejected[name] = str(error)
            del scenes[name]
    # Scenes that cannot be used at all have no say in what most are like.
    _keep_matching(scenes, rejected)
    candidates: dict[tuple[str, str], list[Scene]] = {}
    for name, scene in scenes.items():
        for cell_id in touched[name]:
            candidates.setdefault((str(scene.period), cell_id), []).append(scene)
    return [
        Job(cell_id, period, "", True, False, tuple(candidates[period, cell_id]))
        for period, cell_id in sorted(candidates)
    ]
