"""`ecofm tile`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ecofm.errors import SceneError, UsageError
from ecofm.tiles.archive import open_archive
from ecofm.tiles.area import read_area
from ecofm.tiles.asking import is_api
from ecofm.tiles.ingest import TileConfig
from ecofm.tiles.ingest import tile as run_tile
from ecofm.tiles.items import shown
from ecofm.tiles.search import SearchConfig
from ecofm.tiles.search import search as run_search
from ecofm.tiles.signing import load_sign
from ecofm.tiles.verify import verify as run_verify
from ecofm.types import progress_bar, say
from ecofm.verbs.outcome import conclude

HOW = {
    "first": "the earliest valid pixel is taken (median, medoid and best use all)",
    "median": "the median of each band is taken",
    "medoid": "the date nearest to the median is taken, pixel by pixel",
    "best": "the date farthest from cloud and nearest to the middle is taken, pixel by pixel",
}
"""What each way of compositing does, said where it was needed."""
MAX_TOLD = 24


def tile(
    *path: str,
    out: Path,
    config: Annotated[TileConfig | None, Parameter(name="*")] = None,
    area: str | None = None,
    search: Annotated[SearchConfig | None, Parameter(name="*")] = None,
    sign: str | None = None,
    masks: Path | None = None,
    workers: int | None = None,
    dask: Path | None = None,
    append: bool = False,
    verify: bool = False,
    overwrite: bool = False,
    strict: bool = False,
) -> None:
    """Turn scenes or chips (PNG, JPEG, TIFF) into an archive of tiles.

    Scenes are GeoTIFF, COG, JPEG 2000, SAFE folders (L1C, L2A), sets of files with one band each
    (`..._B02.tif`), STAC items, and what Earth Engine and notebooks export (floats too). Scenes of
    one date are mosaicked, dates of one period composited; scenes that show the same ground at the
    same time are left out, for none of them comes first. Nodata, masks and clouds are honoured; a
    scene that is aligned with the grid is copied, not resampled.

    What the stored numbers mean (scale and offset) is read from items, metadata, the files
    themselves, processing baselines and dates, in this order, and checked against the pixels; where
    nothing decides, a scene is left out with the flag to give. docs/SOURCES.md tells it all.

    One bad input is left out by name, and the others go on: what is no file (a pipe, a device), a
    raster of more than 16,384 px a side or 1 GiB that holds less than a hundredth of what it shows,
    a tile or strip of more than 256 MiB, XML of more than 16 MiB, JSON of more than 64 MiB.

    Instead of scenes, one URL of a STAC API may be given, with --remote, --area and --dates: the
    items that it has there are kept in `OUT.items` and read over https. They are asked for once;
    --append asks again for what is new.

    Args:
        path: Scenes, or folders that are searched for them, or the URL of a STAC API. What others
            wrote is read within limits, and left out by name beyond them: 64 MiB a STAC file, 100
            levels and 1000 assets an item; of a catalog 100 links deep, 1000000 links and 16 GiB,
            each document once; of an API 120 s and 64 MiB an answer, 3600 s, 1024 MiB and
            --max-items items a search. docs/SOURCES.md has them all.
        out: The archive's folder.
        config: How scenes become tiles.
        area: Only cells that touch it: `west,south,east,north` in degrees, or a file of polygons
            (GeoPackage, GeoJSON, shapefile, FlatGeobuf, GeoParquet).
            Across the 180th meridian: 179,-17,-179,-16 or 179,-17,181,-16, or polygons that are cut
            there or have longitudes above 180.
        search: What is looked for in a STAC API.
        sign: `module:function` that makes a URL readable, as `planetary_computer:sign`. The module
            is imported, and so its code runs: it must be of a package that is installed in the
            Python of this command, and never a file of the current folder or of PYTHONPATH.
        masks: Folder of rasters named as the scenes are; what is not 0 in them is invalid.
        workers: Processes that make tiles (a local Dask cluster); one a core by default.
        dask: YAML of another cluster: `cluster: slurm`, `jobs:` and the `options:` of
            dask_jobqueue.SLURMCluster.
        append: Add what is new to the archive that OUT holds, and write nothing of it again.
        verify: Give no PATH; read every tile of OUT again, and take out what is damaged.
        overwrite: Replace another archive that OUT holds.
        strict: Exit with 1 when any input was left out.
    """
    if verify:
        _verify(path, out, strict)
        return
    if not path:
        raise UsageError("name the scenes, or folders that hold them.")
    if workers is not None and workers < 1:
        raise UsageError(f"--workers {workers}: at least one makes tiles.")
    config = config or TileConfig()
    if sign is not None and not config.remote:
        raise UsageError("--sign makes URLs readable, which are read with --remote only.")
    run_tile(
        _find(path, out, config, area, search, append=append, overwrite=overwrite),
        out,
        config,
        area=area,
        sign=load_sign(sign) if sign else None,
        masks=masks,
        workers=workers,
        dask=dask,
        append=append,
        overwrite=overwrite,
        progress=progress_bar("tile"),
    )
    archive = open_archive(out)
    periods = _told(archive.periods)
    if several := archive.manifest.get("n_of_several_dates"):
        how = archive.manifest["config"]["composite"]
        say(
            f"{several} of {archive.n_tiles} tiles have scenes of several dates; "
            f"--composite {how}: {HOW[how]}."
        )
    conclude(out, f"{archive.n_tiles} tiles, periods {periods}", strict=strict)


def _told(periods: Sequence[str]) -> str:
    """Return some periods for a line: of many the first and the last."""
    if len(periods) <= MAX_TOLD:
        return ", ".join(periods)
    return f"{periods[0]} to {periods[-1]} ({len(periods)} of them)"


def _find(
    given: tuple[str, ...],
    out: Path,
    config: TileConfig,
    area: str | None,
    search: SearchConfig | None,
    *,
    append: bool,
    overwrite: bool,
) -> list[Path]:
    """Return the scenes' paths: what was given, or the folder of what a STAC API has."""
    apis = [text for text in given if is_api(text)]
    if not apis:
        if search is not None and search != SearchConfig():
            raise UsageError("--collection, --dates, --max-cloud are for the URL of a STAC API.")
        return [Path(text) for text in given]
    if not config.remote:
        raise SceneError(
            f"{shown(apis[0])} is a URL; give --remote to read it, or a folder of imagery."
        )
    if len(given) > 1:
        raise UsageError("give one URL of a STAC API, and nothing beside it.")
    if area is None or search is None or search.dates is None:
        raise UsageError("a STAC API is asked for --area and --dates; give both.")
    items = out.with_name(f"{out.name}.items")
    run_search(apis[0], items, read_area(area), search, again=append or overwrite)
    return [items]


def _verify(paths: tuple[str, ...], out: Path, strict: bool) -> None:
    if paths:
        raise UsageError("--verify reads OUT alone: give no scenes with it.")
    n_damaged = run_verify(out, progress_bar("verify"))
    conclude(
        out, f"{open_archive(out).n_tiles} tiles are whole, {n_damaged} damaged", strict=strict
    )
