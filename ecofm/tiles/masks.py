"""Masks: rasters that people give for scenes, each named as its scene is."""

from __future__ import annotations

import os
from pathlib import Path

from ecofm.errors import SceneError
from ecofm.tiles.given import SUFFIXES, is_inside
from ecofm.tiles.sources import FOLLOW, Sources


def find_masks(folder: Path, sources: Sources, follow_links: bool = False) -> dict[str, Path]:
    """Return the masks in a folder by the name of their scene; SceneError when none has one.

    The mask of `a/b.jp2` is `a/b.tif`, `a/b.png` or `a/b.jp2` in that folder, that of the item `c`
    in `a/b.json` is `a/b/c.tif`.
    """
    found = {}
    for name, source in sources.found.items():
        file, _, item = name.partition("#") if source.item is not None else (name, "", "")
        stem = file if source.kind in ("bands", "safe") else str(Path(file).with_suffix("") / item)
        for suffix in sorted(SUFFIXES):
            path = folder / f"{stem}{suffix}"
            if not os.path.isfile(path):  # the id of an item need not be the name of a file
                continue
            if not follow_links and not is_inside(path, folder):
                raise SceneError(f"{path} is a mask that leads out of {folder}; {FOLLOW}.")
            found[name] = path
            break
    if not found:
        raise SceneError(f"{folder} holds no mask named as a scene is; name them as the scenes.")
    return found
