"""Matching: which scenes go into one archive together, and which are left out by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from dataclasses import replace

from ecofm.errors import SceneError
from ecofm.grid import outline_of
from ecofm.tiles.samples import sample_both
from ecofm.tiles.scenes import Part, Scene, own_units
from ecofm.types import Contract

MIN_WITHIN = 0.9
MIXED = "is L1C, the top of the atmosphere, beside scenes of L2A: hazier and bluer numbers"
MAX_ADDED = 0.02
"""A scene with less ground of its own, of all that it shows, is no part of a granule."""


def note_mixed_levels(scenes: dict[str, Scene]) -> None:
    """Note on scenes of L1C that others of the archive are L2A: the two are not comparable."""
    if {"L1C", "L2A"} <= {scene.level for scene in scenes.values()}:
        for name, scene in scenes.items():
            if scene.level == "L1C":
                scenes[name] = replace(scene, notes=(*scene.notes, MIXED))


def keep_common(
    scenes: dict[str, Scene],
    rejected: dict[str, str],
    signature: Callable[[Scene], Hashable],
    what: str,
    expected: Hashable = None,
) -> None:
    """Move the scenes that differ from the most common (or expected) signature to `rejected`."""
    counts = Counter(signature(scene) for scene in scenes.values())
    if not counts or (len(counts) < 2 and expected is None):
        return
    common = counts.most_common(1)[0][0] if expected is None else expected
    where = "most" if expected is None else "the archive"
    for name in [name for name, scene in scenes.items() if signature(scene) != common]:
        found = signature(scenes.pop(name))
        rejected[name] = f"differs from {where} in {what}: found {found}, expected {common}"


def drop_copies(
    scenes: dict[str, Scene], rejected: dict[str, str], hashes: Mapping[str, str]
) -> None:
    """Leave out scenes that are there twice: the same bytes, or another measurement of the same.

    Of one acquisition the ground's reflectance (L2A) counts before that at the top of the
    atmosphere (L1C), and of one level the latest processing. Parts of a granule, as ESA delivers
    them where two data strips meet, are no copies: they show other ground, and all are kept.
    """
    by_hash: dict[tuple[str, str | None], str] = {}
    by_acquisition: dict[tuple[str, str | None], list[str]] = {}
    for name in list(scenes):
        scene = scenes[name]
        first = by_hash.setdefault((hashes.get(name, name), scene.period), name)
        if first != name:
            rejected[name] = f"has the same bytes as {first}"
            del scenes[name]
        elif scene.acquisition:
            by_acquisition.setdefault((scene.acquisition, scene.period), []).append(name)
    for names in by_acquisition.values():
        _drop_versions(names, scenes, rejected)
    _drop_level_1(scenes, rejected)


def _drop_versions(names: list[str], scenes: dict[str, Scene], rejected: dict[str, str]) -> None:
    """Keep the latest processing of an acquisition, with all its parts."""
    levels = {scenes[name].level for name in names}
    if "L2A" in levels:
        for name in [name for name in names if scenes[name].level == "L1C"]:
            newer = next(other for other in names if scenes[other].level == "L2A")
            rejected[name] = (
                f"is L1C, the top of the atmosphere, of the acquisition of which {newer} is L2A, "
                "the ground; L2A is taken"
            )
            del scenes[name]
        names = [name for name in names if name in scenes]
    names.sort(key=lambda n: (scenes[n].baseline, scenes[n].processed, n), reverse=True)
    kept = names[:1]
    for name in names[1:]:
        newest, scene = scenes[kept[0]], scenes[name]
        if scene.baseline != newest.baseline:
            rejected[name] = (
                f"is the acquisition of {kept[0]} in processing baseline "
                f"{scene.baseline or 'unknown'}; the later one, "
                f"{newest.baseline or 'unknown'}, is taken"
            )
        elif any(is_another_processing(scenes[other], scene) for other in kept):
            rejected[name] = (
                f"is another processing of the acquisition of {kept[0]}, which shows the same "
                "ground; the later one is taken"
            )
        else:
            kept.append(name)
            continue
        del scenes[name]


def _drop_level_1(scenes: dict[str, Scene], rejected: dict[str, str]) -> None:
    """Leave out scenes of L1C whose place and day a scene of L2A has too, whatever their names."""
    grounds: dict[str, list[tuple[str, Scene]]] = {}
    for name, scene in scenes.items():
        if scene.level == "L2A" and scene.date:
            grounds.setdefault(scene.date, []).append((name, scene))
    for name in [n for n, scene in scenes.items() if scene.level == "L1C"]:
        for other, ground in grounds.get(scenes[name].date or "", []):
            if _is_within(scenes[name], ground):
                rejected[name] = (
                    f"is L1C, the top of the atmosphere, of the day and the place of {other}, "
                    "which is L2A, the ground; L2A is taken"
                )
                del scenes[name]
                break


def _is_within(scene: Scene, other: Scene) -> bool:
    """Return whether nearly all of a scene's ground lies in another one's raster."""
    if scene.geobox is None or other.geobox is None:
        return False
    mine, theirs = outline_of(scene.geobox), outline_of(other.geobox)
    return bool(mine.intersection(theirs).area > MIN_WITHIN * mine.area)


def is_another_processing(newer: Scene, older: Scene) -> bool:
    """Return whether a scene shows hardly any ground that a newer one lacks, and other numbers.

    Parts of a granule show other ground each. A band that both have is compared where samples of
    both lie, which is all over their rasters.
    """
    shared = [band for band in newer.bands if band in older.bands]
    if newer.geobox is None or not shared or newer.geobox != older.geobox:
        return False
    try:
        found = sample_both(*(_part_of(scene, shared[0]) for scene in (newer, older)))
    except SceneError:
        return False  # it is named where its tiles are made
    (one, valid), (other, older_valid) = found
    both = valid & older_valid
    adds = (older_valid & ~valid).sum() > MAX_ADDED * max(older_valid.sum(), 1)
    return bool(both.any() and not adds and (one[both] != other[both]).any())


def _part_of(scene: Scene, band: str) -> Part:
    """Return a part with the raster of one band alone."""
    index = 0
    for part in scene.parts:
        for number in part.numbers:
            if scene.bands[index] == band:
                return replace(part, numbers=(number,))
            index += 1
    raise AssertionError(f"{band} is a band of {scene.name}")


def harmonise(scenes: dict[str, Scene], base: Contract | None) -> None:
    """Give all scenes of one archive one scale and offset, to which their numbers are brought.

    They are those of the archive that grows, if there is one.
    """
    if not scenes:
        return
    scale, offset = (base.scale, base.offset) if base else own_units(list(scenes.values()))
    for name, scene in scenes.items():
        scenes[name] = replace(scene, to_scale=scale, to_offset=offset)
