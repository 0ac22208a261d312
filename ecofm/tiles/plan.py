"""The plan of `tile`: which tiles there will be and which files are left out, before any read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from odc.geo.geobox import GeoBox

from ecofm.errors import SceneError, UsageError
from ecofm.grid import Grid, Keys
from ecofm.tiles.area import Area
from ecofm.tiles.assembly import SceneOptions
from ecofm.tiles.bandfiles import QUALITY
from ecofm.tiles.given import absolute
from ecofm.tiles.ground import Ground
from ecofm.tiles.headers import read_header
from ecofm.tiles.jobs import Cells, Job, lay_out
from ecofm.tiles.matching import (
    drop_copies,
    harmonise,
    in_mosaic_order,
    keep_common,
    note_mixed_levels,
    unify,
)
from ecofm.tiles.periods import (
    FORMS_TOLD,
    TIMELESS,
    is_day,
    parse_period,
    period_of_folders,
    widen,
)
from ecofm.tiles.pixels import CLOUDS, Reading
from ecofm.tiles.products import read_product
from ecofm.tiles.rasters import Sign
from ecofm.tiles.rivals import leave_out_rivals
from ecofm.tiles.scenes import Hiding, Part, Scene, readable_name
from ecofm.tiles.sidecars import AUX, MASK
from ecofm.tiles.sources import FOLLOW, Source, Sources
from ecofm.tiles.stac import read_stac
from ecofm.types import Contract

NO_PERIOD = (
    "has no period: no tag `period`, and no date in its metadata, its name or its folder's name, "
    f"which may tell {FORMS_TOLD}; give --period"
)
N_ASKERS = 16  # scenes whose headers are asked for at once


@dataclass(kw_only=True, slots=True)
class TileConfig:
    """How scenes become tiles."""

    grid: str = "utm:2560"
    """`utm:2560` or `utm:1280` (metres), `xyz:14` (zoom), or `none` for chips."""
    period: str | None = None
    """Period of all given scenes: a year (2019), a quarter (2019-Q2), a month (2019-04), a day
    (2019-06-12) or a range of them (2018--2019). None reads it from each scene: from its tag
    `period`, else its metadata, else its file name (2019_04, 201904, Apr2019, 2019Q2, 20190612,
    2018-2019 and the like), else the nearest folder whose name tells it. A number that may be
    something else is not guessed; docs/ARCHIVE.md has all spellings."""
    per: Literal["date", "month", "quarter", "year"] = "date"
    """The span that the scenes' dates are gathered in; `date` keeps the period of each scene."""
    composite: Literal["first", "median", "medoid", "best"] = "first"
    """How several dates of a period become one tile: the earliest valid one, the median of each
    band, the date nearest to that median, or the date farthest from cloud and nearest to the
    middle of the period."""
    bands: tuple[str, ...] | None = None
    """The bands to read, in this order, by their names (`B04,B03,B02`); `B04=Gray` or `B04=1` gives
    a band of the files, by its own name or number, another name. Where files do not name their
    bands, as many plain names as bands name them in file order. None takes all that measure
    reflectance."""
    scale: float | None = None
    """Reflectance of 1 in the stored numbers (.0001; 1 for reflectance from 0 to 1; .01 for per
    cent); None resolves it for each scene."""
    offset: float | None = None
    """Added to stored numbers before they are scaled, -1000 or 0; None resolves it by scene."""
    quality: bool = True
    """Use quality bands beside the SCL (QA60, MSK_CLASSI_OPAQUE, MSK_CLASSI_CIRRUS, dataMask): what
    they mark as cloud or nodata is invalid."""
    scl_masked: tuple[int, ...] = CLOUDS
    """Classes of the scene classification (SCL) that are invalid."""
    resampling: Literal["bilinear", "cubic"] = "bilinear"
    """For reflectance that is not aligned with the grid; classes and masks are nearest."""
    remote: bool = False
    """Read STAC APIs and the pixels of STAC items over https; nothing opens a connection without
    it."""
    follow_links: bool = False
    """Follow links that lead out of the given folders."""
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
            self.period = parse_period(self.period)
        if self.bands is not None:
            given = [name for text in self.bands for name in text.split(",")]
            self.bands = tuple("=".join(map(str.strip, name.split("="))) for name in given)
        if self.bands is not None and (
            not all(self.bands)
            or len({text.partition("=")[0] for text in self.bands}) < len(self.bands)
            or any(not all(text.split("=")) or text.count("=") > 1 for text in self.bands)
        ):
            raise UsageError(
                f"--bands {','.join(self.bands)}: expected a name of its own for each."
            )
        if self.name_pattern is not None and self.name_pattern.count("{y}_{x}") != 1:
            raise UsageError(f"--name-pattern {self.name_pattern!r}: expected {{y}}_{{x}} in it.")
        if self.name_pattern is not None and not self.grid.startswith("xyz:"):
            raise UsageError("--name-pattern names web-mercator cells: give --grid xyz:14 with it.")
        if self.scale is not None and not 0 < self.scale <= 1:
            raise UsageError(
                f"--scale {self.scale:g}: expected the reflectance of 1, above 0 and up to 1."
            )
        if self.offset is not None and not abs(self.offset) <= 2**16:
            raise UsageError(f"--offset {self.offset:g}: no 16-bit number needs it.")
        if not 0 <= self.min_valid_share < 1 or self.shard_tiles < 1:
            raise UsageError("min_valid_share is from 0 to below 1, shard_tiles at least 1.")

    @property
    def reading(self) -> Reading:
        """How scenes are read onto cells."""
        return Reading(
            resampling=self.resampling,
            masked_classes=self.scl_masked,
            use_quality=self.quality,
        )


@dataclass(kw_only=True, slots=True)
class Given:
    """What a plan depends on besides the scenes and the options."""

    hashes: Mapping[str, str] = field(default_factory=dict)
    """Of each source's bytes, by name."""
    masks: Mapping[str, Path] = field(default_factory=dict)
    """Masks that people gave, by the name of their scene."""
    sign: Sign | None = None
    area: Area | None = None
    """Cells outside it are not made."""
    base: Contract | None = None
    """Contract of the archive that grows."""
    tile_ids: Set[str] = frozenset()
    """Chips that are there already."""
    held: Mapping[str, Keys] = field(default_factory=dict)
    """Cells that are there already, by period."""


@dataclass(slots=True)
class Plan:
    """The tiles to make, and the files that are left out, each with its reason."""

    jobs: list[Job] | Cells = field(default_factory=list)
    scenes: list[Scene] = field(default_factory=list)
    rejected: dict[str, str] = field(default_factory=dict)

    def tile_px(self, grid: Grid) -> tuple[int, int]:
        """Return the height and width of a tile."""
        is_on_cells = isinstance(self.jobs, Cells)
        return (grid.tile_px, grid.tile_px) if is_on_cells else self.scenes[0].shape_px

    def tile_bytes(self, grid: Grid) -> int:
        """Return the size of one tile on disk, its mask included."""
        scene = self.scenes[0]
        height, width = self.tile_px(grid)
        pixel_bytes = len(scene.bands) * np.dtype(scene.dtype).itemsize
        return height * (width * pixel_bytes + -(-width // 8))


def nothing_usable(rejected: dict[str, str]) -> SceneError:
    """Return what to raise when no image is left."""
    if not rejected:
        return SceneError("no tile holds a valid pixel; check the scenes' masks and nodata.")
    # What says why no scene is left is of more use than what was never one.
    scenes = (one for one in rejected.items() if not one[1].startswith(QUALITY))
    first, reason = next(scenes, next(iter(rejected.items())))
    return SceneError(f"none of {len(rejected)} images is usable; the first: {first} {reason}.")


def is_for_chips(config: TileConfig) -> bool:
    """Return whether each image is a tile by itself."""
    return config.grid == "none" or config.name_pattern is not None


def build_plan(sources: Sources, config: TileConfig, given: Given | None = None) -> Plan:
    """List the tiles to make; raises SceneError when there are none."""
    given = given or Given()
    plan = Plan(rejected=dict(sources.rejected))
    options = SceneOptions(
        # A chip has none, whatever its name may be read as.
        period=config.period or (TIMELESS if config.grid == "none" else None),
        bands=config.bands,
        scale=config.scale,
        offset=config.offset,
        # In `6259_2019.png` the number is a column, not a year.
        period_in_name=config.name_pattern is None,
        remote=config.remote,
        sign=given.sign,
    )
    scenes: dict[str, Scene] = {}

    def read(name: str) -> Scene | SceneError:
        try:
            return _read(sources.found[name], config, options, given.masks.get(name))
        except SceneError as error:
            return error

    # Over the network nearly all of the time is waiting.
    with ThreadPoolExecutor(N_ASKERS) as askers:
        read_all = askers.map if config.remote else map
        for name, scene in zip(sources.found, read_all(read, sources.found), strict=True):
            if isinstance(scene, SceneError):
                plan.rejected[name] = str(scene)
            else:
                scenes[name] = scene
    grid = Grid(config.grid)
    if is_for_chips(config):
        chips = _plan_chips(scenes, grid, config, plan.rejected, given.base)
        plan.jobs = [job for job in chips if job.tile_id not in given.tile_ids]
    else:
        plan.jobs = _plan_cells(scenes, grid, config, plan.rejected, given)
    plan.scenes = list(scenes.values())
    if not len(plan.jobs):
        raise nothing_usable(plan.rejected)
    return plan


def _read(source: Source, config: TileConfig, options: SceneOptions, mask: Path | None) -> Scene:
    for file in source.files:
        if file.name.endswith((AUX, MASK)) and not source.may_read(file):
            raise SceneError(f"has {file.name} beside it, which leads out of its folder; {FOLLOW}")
    scene = (read_stac if source.kind == "stac" else read_product)(source, options)
    if scene.period is None and config.name_pattern is None:
        place = source.files[0] if source.kind in ("raster", "bands") else source.path
        scene = _date_by_folder(scene, place)
    if scene.period is not None and config.period is None:
        wide = widen(scene.period, config.per)
        date = scene.date or (scene.period if wide != scene.period else None)
        scene = replace(scene, period=wide, date=date)
    if mask is None:
        return scene
    given = Hiding(_mask_of(mask, scene), "nonzero", is_given=True)
    return replace(scene, hidings=(*scene.hidings, given))


def _mask_of(path: Path, scene: Scene) -> Part:
    """Return the mask that people gave for a scene."""
    if scene.geobox is None:
        return Part(path=path, numbers=(1,), geobox=None)
    try:
        header = read_header(path)
        if header.geobox is None:
            raise SceneError(f"has no place (CRS and transform) in {path.name}")
        return header.part(header.numbers[0])
    except SceneError as error:
        raise SceneError(f"has a mask, {path.name}, that {error}") from error


def _keep_matching(
    scenes: dict[str, Scene], rejected: dict[str, str], base: Contract | None
) -> None:
    expected = (base.bands, base.dtype) if base else None
    unify(scenes, base)
    keep_common(scenes, rejected, lambda s: s.signature, "bands and number type", expected)
    note_mixed_levels(scenes)
    harmonise(scenes, base)


def _plan_chips(
    scenes: dict[str, Scene],
    grid: Grid,
    config: TileConfig,
    rejected: dict[str, str],
    base: Contract | None,
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
        except (ValueError, SceneError) as error:
            rejected[name] = str(error)
            del scenes[name]
            continue
        jobs[name] = job
    _keep_matching(scenes, rejected, base)
    keep_common(scenes, rejected, lambda scene: scene.shape_px, "size in pixels")
    seen: dict[str, str] = {}
    for name in list(scenes):
        first = seen.setdefault(jobs[name].tile_id, name)
        if first == name:
            yield replace(jobs[name], scenes=(scenes[name],))
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
    period = scene.period or _period_of_folders(scene.name, scene.path)
    if period is None:
        raise ValueError(f"{NO_PERIOD}, or name its folder by it")
    cell = grid.cell(found["cell"])
    return Job(cell.cell_id, period, group, True, True, (scene,))


def _period_of_folders(name: str, place: Path) -> str | None:
    """Return the period that a scene's folders tell, of those from the given one on."""
    folders = absolute(place).parents[: len(Path(name).parts)]
    return period_of_folders([readable_name(folder.name) for folder in folders])


def _date_by_folder(scene: Scene, place: Path) -> Scene:
    """Return a scene with the period that its folders tell, and a note that says so."""
    period = _period_of_folders(scene.name, place)
    if period is None:
        return scene
    note = f"its period, {period}, is that of its folder, for its name tells none"
    return replace(
        scene,
        period=period,
        date=period if is_day(period) else None,
        notes=(*scene.notes, note),
    )


def _plan_cells(
    scenes: dict[str, Scene],
    grid: Grid,
    config: TileConfig,
    rejected: dict[str, str],
    given: Given,
) -> Cells:
    """Return a tile for each cell and period that a scene touches."""
    touched: dict[object, Keys] = {}
    for name, scene in list(scenes.items()):
        try:
            if scene.geobox is None:
                raise SceneError("has no place (CRS and transform); give --grid none for chips")
            if scene.period is None:
                raise SceneError(NO_PERIOD)
            # An orbit gives the same footprint again and again.
            if scene.geobox not in touched:
                touched[scene.geobox] = _touched(scene.geobox, grid, given.area)
            if given.area is not None and not len(touched[scene.geobox]):
                raise SceneError("lies outside the area that was asked for")
        except SceneError as error:
            rejected[name] = str(error)
            del scenes[name]
    # Scenes that cannot be used at all have no say in what most are like.
    ground = Ground(touched, grid, config.reading)
    drop_copies(scenes, rejected, given.hashes, ground)
    _keep_matching(scenes, rejected, given.base)
    leave_out_rivals(scenes, rejected, ground, config.composite)
    members: dict[str, list[Scene]] = {}
    for name, scene in in_mosaic_order(scenes):
        period, keys = str(scene.period), touched[scene.geobox]
        if len(keys) and period in given.held and np.isin(keys, given.held[period]).all():
            rejected[name] = f"adds nothing: the archive has its cells in {period} already"
            del scenes[name]
        elif len(keys):
            members.setdefault(period, []).append(scene)
    return lay_out(grid.name, members, touched, given.held)


def _touched(footprint: GeoBox, grid: Grid, area: Area | None) -> Keys:
    """Return the keys of the cells that a raster touches, of those that the area touches."""
    found = [np.zeros(0, np.int64)]
    for keys in grid.keys(footprint):
        if area is not None and len(keys):
            keys = keys[area.touches([grid.cell_at(key) for key in keys.tolist()])]
        found.append(keys)
    return np.concatenate(found)
