"""Verification: every tile of an archive read again, and what is damaged taken out by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from ecofm.errors import ArtifactError
from ecofm.lock import Lock
from ecofm.tiles.archive import Archive, TileError, open_archive
from ecofm.tiles.target import commit, write_index
from ecofm.types import Progress, say


def verify(folder: Path, progress: Progress | None = None) -> int:
    """Read every tile again and return how many were damaged.

    They leave the index for `rejected.parquet`, each with its reason; `tile --append` with their
    scenes makes them again. Raises ArtifactError when no tile is whole.
    """
    with Lock(folder, "archive"):
        return _verify(open_archive(folder), folder, progress)


def _verify(archive: Archive, folder: Path, progress: Progress | None) -> int:
    is_whole = np.ones(archive.n_tiles, bool)
    damaged: dict[str, str] = {}
    for tile_index, tile_id in enumerate(archive.index["tile_id"]):
        try:
            archive.read(tile_index)
        except TileError as error:
            say(f"damaged: {error}.")
            is_whole[tile_index] = False
            damaged[tile_id] = str(error).replace(f" of {folder}", "")
        if progress:
            progress(tile_index + 1, archive.n_tiles)
    if not is_whole.any():
        raise ArtifactError(
            f"{folder}: all {archive.n_tiles} tiles are damaged; make it again with `ecofm tile`."
        )
    if damaged:
        table = pd.DataFrame(list(damaged.items()), columns=["path", "reason"], dtype=str)
        rejected = pd.concat([archive.rejected, table], ignore_index=True)
        quarantined = [*archive.manifest.get("quarantined", []), *damaged]
        manifest = {
            **archive.manifest,
            "n_tiles": int(is_whole.sum()),
            "n_rejected": len(rejected),
            "quarantined": quarantined,
        }
        write_index(folder, [archive.index[is_whole]])
        commit(folder, manifest, rejected)
    return len(damaged)
