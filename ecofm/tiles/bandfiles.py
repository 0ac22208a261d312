"""Band files: sets of rasters with one band each, told apart by their names."""

from __future__ import annotations

import re
from pathlib import Path

from ecofm.tiles.bands import BAND, QUALITY_FILE, band_name

BAND_FILE = re.compile(
    rf"(?P<scene>.*?)(?:^|[_.-])(?P<band>{BAND.pattern}|{QUALITY_FILE.pattern})"
    r"(?:_(?P<gsd>[126]0)m)?",
    re.IGNORECASE,
)
GRANULE_FILE = re.compile(r"T[0-9]{2}[A-Z]{3}_[0-9]{8}T[0-9]{6}")


def split_band(stem: str) -> tuple[str, str, int] | None:
    """Return (scene, band, metres or 0) of a file that is named by its band."""
    found = BAND_FILE.fullmatch(stem)
    if not found:
        return None
    return found["scene"], band_name(found["band"].upper()), int(found["gsd"] or 0)


def band_sets(images: list[Path]) -> dict[str, tuple[list[Path], list[Path]]]:
    """Return the files of one folder that are bands of one scene, by the scene's name.

    Beside them the same bands at a coarser resolution, which are not read.
    """
    sets: dict[tuple[str, bool], dict[str, list[tuple[int, Path]]]] = {}
    for path in images:
        # A raster of several bands may be named by them too: then its last one is no single band.
        if (split := split_band(path.stem)) and not split_band(split[0]):
            scene, band, gsd = split
            # ESA's files of L2A end in their resolution, those of L1C do not.
            is_l2a = bool(GRANULE_FILE.search(scene)) and gsd > 0
            members = sets.setdefault((scene, is_l2a), {})
            members.setdefault(band, []).append((gsd, path))
    found = {}
    for (scene, is_l2a), members in sets.items():
        if len(members) < 2 or not any(BAND.fullmatch(band) for band in members):
            continue
        name = f"{scene}_L2A" if is_l2a and (scene, False) in sets else scene
        ordered = [sorted(members[band]) for band in sorted(members)]
        first = [places[0][1] for places in ordered]
        found[name] = first, [path for places in ordered for _, path in places[1:]]
    return found
