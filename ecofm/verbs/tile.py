"""`ecofm tile`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ecofm.tiles.archive import open_archive
from ecofm.tiles.ingest import TileConfig
from ecofm.tiles.ingest import tile as run_tile
from ecofm.tiles.verify import verify as run_verify
from ecofm.types import progress_bar
from ecofm.verbs.outcome import conclude


def tile(
    *path: Path,
    out: Path,
    config: Annotated[TileConfig | None, Parameter(name="*")] = None,
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
    (`..._B02.tif`) and STAC items. Scenes of one date are mosaicked, dates of one period
    composited; nodata, masks and clouds are honoured; a scene that is aligned with the grid is
    copied, not resampled.

    Args:
        path: Scenes, or folders that are searched for them.
        out: The archive's folder.
        config: How scenes become tiles.
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
        raise ValueError("name the scenes, or folders that hold them.")
    run_tile(
        path,
        out,
        config or TileConfig(),
        masks=masks,
        workers=workers,
        dask=dask,
        append=append,
        overwrite=overwrite,
        progress=progress_bar("tile"),
    )
    archive = open_archive(out)
    periods = ", ".join(archive.periods)
    conclude(out, f"{archive.n_tiles} tiles, periods {periods}", strict=strict)


def _verify(paths: tuple[Path, ...], out: Path, strict: bool) -> None:
    if paths:
        raise ValueError("--verify reads OUT alone: give no scenes with it.")
    n_damaged = run_verify(out, progress_bar("verify"))
    conclude(
        out, f"{open_archive(out).n_tiles} tiles are whole, {n_damaged} damaged", strict=strict
    )
