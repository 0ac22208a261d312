"""At which chip size and ground resolution a ranker was learned, and where it is used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from ecofm.embed import read_notes
from ecofm.types import say

NEAR = 1.2
"""Ground resolutions within this ratio are taken for the same."""


def describe_tiles(embeddings: Sequence[Path]) -> list[dict[str, Any]]:
    """Return tile_px (height, width) and gsd_m of the tiles behind embeddings, None if unknown."""
    found: list[dict[str, Any]] = []
    for path in embeddings:
        notes = read_notes(path)
        for size, gsd_m in zip_longest(notes.archive_tile_px, notes.archive_gsd_m):
            tiles = {"tile_px": list(size) if size else None, "gsd_m": gsd_m}
            if tiles not in found:
                found.append(tiles)
    return found


def warn_of_tiles(ranker: Path, manifest: Mapping[str, Any], embeddings: Sequence[Path]) -> None:
    """Say so where embeddings are of tiles of another size or resolution than the ranker's."""
    known = manifest.get("tiles") or []
    for path in embeddings:
        for tiles in describe_tiles([path]):
            if known and not any(_is_near(tiles, other) for other in known):
                learned = " or ".join(_name(other) for other in known)
                say(
                    f"warning: {ranker} was learned on tiles of {learned}, and {path} holds tiles "
                    f"of {_name(tiles)}, where its scores may mean nothing; tile the scenes again "
                    "at the ranker's size and resolution, or learn a ranker on these tiles with "
                    "`ecofm rank`."
                )


def _is_near(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    sizes, gsds = (
        [tiles[name] for tiles in (one, other) if tiles[name]] for name in ("tile_px", "gsd_m")
    )
    return sizes[:1] == sizes[-1:] and (len(gsds) < 2 or max(gsds) <= NEAR * min(gsds))


def _name(tiles: Mapping[str, Any]) -> str:
    size, gsd_m = tiles["tile_px"], tiles["gsd_m"]
    pixels = f"{size[0]}x{size[1]} pixels" if size else "an unknown size"
    return f"{pixels} of {gsd_m:g} m" if gsd_m else f"{pixels} of unknown resolution"
