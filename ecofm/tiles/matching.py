"""Matching: which scenes go into one archive together, and which are left out by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby

from ecofm.tiles.bands import UNNAMED, spectral_name
from ecofm.tiles.ground import Ground
from ecofm.tiles.periods import sort_key
from ecofm.tiles.rivals import is_lone_band
from ecofm.tiles.scenes import Scene, own_units
from ecofm.types import Contract

INTEGERS = {"int16", "uint16"}
MIXED = "is L1C, the top of the atmosphere, beside scenes of L2A: hazier and bluer numbers"


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
    """Move the scenes that differ from the most common (or expected) signature to `rejected`.

    Where as many scenes have another one, nothing says which kind is meant, and all are moved.
    """
    counts = Counter(signature(scene) for scene in scenes.values()).most_common()
    if not counts or (len(counts) < 2 and expected is None):
        return
    common = counts[0][0] if expected is None else expected
    is_tie = expected is None and counts[0][1] == counts[1][1]
    where = "most" if expected is None else "the archive"
    n_others = 0
    for name, scene in list(scenes.items()):
        found = signature(scene)
        if found == common and not is_tie:
            continue
        other = counts[1][0] if found == common else common
        told, others = _told(found), _told(other)
        why = f"differs from {where} in {what}: found {told}, expected {others}"
        if is_tie:
            why = f"has {what} {told}, and as many scenes have {others}: nothing says which count"
        rejected[name] = why + _cure(found, other, is_growing=expected is not None)
        n_others += 1
        del scenes[name]
    if n_others and expected is None:
        note = (
            f"has {what} {_told(common)}, as most scenes have; {n_others} that differ are left out"
        )
        for name, scene in scenes.items():
            scenes[name] = replace(scene, notes=(*scene.notes, note))


def _told(signature: Hashable) -> str:
    """Return bands and a number type, or another signature, as people read it."""
    match signature:
        case (tuple(bands), str(dtype)):
            return f"{', '.join(map(str, bands))} ({dtype})"
    return str(signature)


def _cure(found: Hashable, expected: Hashable, *, is_growing: bool) -> str:
    """Return what to do about two kinds of bands; empty where nothing makes them one kind."""
    match found, expected:
        case (tuple(own), str(dtype)), (tuple(theirs), str(other)):
            pass
        case _:
            return ""
    if dtype != other and "uint8" in (dtype, other):
        return "; pictures and reflectance go into archives of their own: give one kind"
    unnamed = [all(map(UNNAMED.fullmatch, bands)) for bands in (own, theirs)]
    if any(unnamed) and len(own) == len(theirs):
        names = [_label(name) for name in (theirs if unnamed[0] else own)]
    else:
        mine = {_label(name) for name in own}
        names = [label for name in theirs if (label := _label(name)) in mine]
    if not names:
        return "; if they are bands of one scene, name the files alike (town_B04.tif, town_B03.tif)"
    again = "make the archive again, of all scenes, with" if is_growing else "give"
    return f"; {again} --bands {','.join(names)} to read the same bands of both"


def _label(name: object) -> str:
    return spectral_name(str(name)) or str(name)


def unify(scenes: dict[str, Scene], base: Contract | None) -> None:
    """Bring scenes that differ only in the order of their bands, or in int16 and uint16, together.

    int16 holds what uint16 does of reflectance, and what is below zero; an archive that grows
    keeps its own type.
    """
    orders = Counter(scene.bands for scene in scenes.values())
    order: dict[frozenset[str], tuple[str, ...]] = {}
    for bands, _ in [*([(base.bands, 0)] if base else []), *orders.most_common()]:
        order.setdefault(frozenset(bands), tuple(bands))
    dtypes = {scene.dtype for scene in scenes.values()} | ({base.dtype} if base else set())
    dtype = base.dtype if base else "int16"
    for name, scene in scenes.items():
        scene = _reordered(scene, order[frozenset(scene.bands)])
        if dtypes >= INTEGERS and scene.dtype in INTEGERS and dtype in INTEGERS - {scene.dtype}:
            note = f"its numbers are stored as {dtype}, as those of other scenes are"
            scene = replace(scene, dtype=dtype, notes=(*scene.notes, note))
        scenes[name] = scene


def _reordered(scene: Scene, bands: tuple[str, ...]) -> Scene:
    """Return a scene with its bands in another order."""
    if scene.bands == bands:
        return scene
    single = [replace(part, numbers=(n,)) for part in scene.parts for n in part.numbers]
    ordered = [single[scene.bands.index(band)] for band in bands]
    joined = [
        replace(part, numbers=tuple(one.numbers[0] for one in same))
        for part, same in groupby(ordered, lambda part: replace(part, numbers=()))
    ]
    return replace(scene, bands=bands, parts=tuple(joined))


def drop_copies(
    scenes: dict[str, Scene], rejected: dict[str, str], hashes: Mapping[str, str], ground: Ground
) -> None:
    """Leave out scenes that are there twice: the same bytes, or another measurement of the same.

    Items of the same rasters that say the same of them are one scene, whatever they are called.

    Of one acquisition the ground's reflectance (L2A) counts before that at the top of the
    atmosphere (L1C), and of one level the latest processing. Parts of a granule, as ESA delivers
    them where two data strips meet, are no copies: they show other ground, and all are kept.
    """
    by_hash: dict[tuple[str, str | None], str] = {}
    by_pixels: dict[Hashable, str] = {}
    by_acquisition: dict[tuple[str, str | None], list[str]] = {}
    for name in list(scenes):
        scene = scenes[name]
        first = by_hash.setdefault((hashes.get(name, name), scene.period), name)
        shows = (scene.period, scene.level, scene.bands, repr((scene.parts, scene.hidings)))
        if first != name:
            rejected[name] = f"has the same bytes as {first}"
            del scenes[name]
        elif (same := by_pixels.setdefault(shows, name)) != name:
            rejected[name] = f"is of the same files as {same}, and says the same of them"
            del scenes[name]
        elif scene.acquisition and not is_lone_band(scene):
            by_acquisition.setdefault((scene.acquisition, scene.period), []).append(name)
    for names in by_acquisition.values():
        _drop_versions(names, scenes, rejected, ground)
    _drop_level_1(scenes, rejected, ground)


def _drop_versions(
    names: list[str], scenes: dict[str, Scene], rejected: dict[str, str], ground: Ground
) -> None:
    """Keep the latest processing of an acquisition, and others where they show more ground."""
    names.sort(key=lambda name: (_rank(scenes[name]), name), reverse=True)
    kept = [scenes[name] for name in names[:1]]
    for name in names[1:]:
        if ground.adds_nothing(scenes[name], kept):
            rejected[name] = _say_version(scenes.pop(name), kept[0])
        else:
            kept.append(scenes[name])


def _rank(scene: Scene) -> tuple[bool, str, str, bool, int]:
    """Return a sort key: the higher, the more a scene of an acquisition counts."""
    is_ground = scene.level != "L1C"
    return is_ground, scene.baseline, scene.processed, bool(scene.hidings), len(scene.bands)


def _say_version(scene: Scene, kept: Scene) -> str:
    if (scene.level, kept.level) == ("L1C", "L2A"):
        return (
            f"is L1C, the top of the atmosphere, of the acquisition of which {kept.name} is L2A, "
            "the ground; L2A is taken"
        )
    if scene.baseline != kept.baseline:
        return (
            f"is the acquisition of {kept.name} in processing baseline "
            f"{scene.baseline or 'unknown'}; the later one, "
            f"{kept.baseline or 'unknown'}, is taken"
        )
    if scene.processed == kept.processed:
        return f"is a copy of {kept.name}: the same acquisition, processing and ground"
    return (
        f"is another processing of the acquisition of {kept.name}, which shows the same "
        "ground; the later one is taken"
    )


def _drop_level_1(scenes: dict[str, Scene], rejected: dict[str, str], ground: Ground) -> None:
    """Leave out scenes of L1C whose ground and day scenes of L2A have too, whatever their names."""
    grounds: dict[str, list[Scene]] = {}
    for scene in scenes.values():
        if scene.level == "L2A" and scene.date:
            grounds.setdefault(scene.date, []).append(scene)
    for name in [n for n, scene in scenes.items() if scene.level == "L1C"]:
        others = _near(scenes[name], grounds.get(scenes[name].date or "", []), ground)
        if ground.adds_nothing(scenes[name], others):
            rejected[name] = (
                f"is L1C, the top of the atmosphere, of the day and the place of {others[0].name}, "
                "which is L2A, the ground; L2A is taken"
            )
            del scenes[name]


def _near(scene: Scene, others: Sequence[Scene], ground: Ground) -> list[Scene]:
    return [other for other in others if ground.cells(scene, other)]


def harmonise(scenes: dict[str, Scene], base: Contract | None) -> None:
    """Give all scenes of one archive one scale and offset, to which their numbers are brought.

    They are those of the archive that grows, if there is one.
    """
    if not scenes:
        return
    scale, offset = (base.scale, base.offset) if base else own_units(list(scenes.values()))
    for name, scene in scenes.items():
        scenes[name] = replace(scene, to_scale=scale, to_offset=offset)


def in_mosaic_order(scenes: Mapping[str, Scene]) -> list[tuple[str, Scene]]:
    """Return named scenes, those first that lie over others: the earliest, and of one time L2A.

    Of one time and level it is the newer processing, whatever the files are called.
    """
    newest = sorted(
        sorted(scenes.items(), key=lambda one: one[0]),
        key=lambda one: (one[1].baseline, one[1].processed),
        reverse=True,
    )
    return sorted(
        newest, key=lambda one: (sort_key(one[1].date or str(one[1].period)), one[1].level == "L1C")
    )
