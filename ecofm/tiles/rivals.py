"""Rivals: scenes that show the same ground at the same time, where no rule says which one counts.

The pieces of a mosaic meet at their edges, and so do granules of one day: they are laid side by
side. Two whole mosaics of one year are something else: the one whose file's name comes first would
hide the other.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import shapely
from odc.geo.crs import CRS
from odc.geo.geobox import GeoBox

from ecofm.grid import outline_of
from ecofm.tiles.bands import UNNAMED
from ecofm.tiles.ground import Ground, bare
from ecofm.tiles.periods import is_day
from ecofm.tiles.scenes import Scene

MAX_SHARED = 0.5
"""Of the smaller scene. Neighbours share less: granules of Sentinel-2 a tenth."""


def leave_out_rivals(
    scenes: dict[str, Scene], rejected: dict[str, str], ground: Ground, composite: str
) -> None:
    """Move scenes that show the same ground at the same time to `rejected`, all of them.

    Acquisitions of known products are none: they are parts of one pass, or two. Nor are scenes of
    no known day where the dates of a period are composited, unless they have one band without a
    name, and may be the bands of one scene. A copy with the same numbers that knows less of what
    is cloud is left out alone.
    """
    groups: dict[tuple[str | None, str | None], list[Scene]] = {}
    for scene in scenes.values():
        if composite == "first" or is_day(scene.date) or is_lone_band(scene):
            groups.setdefault((scene.period, scene.date), []).append(scene)
    for members in groups.values():
        for name, reason in _rivals_among(members, ground).items():
            rejected[name] = reason
            del scenes[name]


def _rivals_among(members: list[Scene], ground: Ground) -> dict[str, str]:
    """Return what is left out of the scenes of one time, with the reasons.

    A scene is compared until it is known to have a rival, and one that shows the same as another,
    or is called the same, follows that: the pixels of a thousand scenes of one place are not read
    a million times.
    """
    found: dict[str, str] = {}
    like: dict[str, str] = {}
    for mine, theirs in _overlapping(members):
        for n, one in enumerate(mine):
            if one.name in like:
                continue
            for other in theirs[n + 1 :] if mine is theirs else theirs:
                if other.name in like or (one.name in found and other.name in found):
                    continue
                if not _may_be_rivals(one, other):
                    continue
                shared, do_differ, is_same = ground.compare(one, other)
                if do_differ and shared > MAX_SHARED:
                    found.setdefault(one.name, _say(one, other))
                    found.setdefault(other.name, _say(other, one))
                elif not do_differ and (copy := _copy_of(one, other, ground)):
                    found.setdefault(copy.name, _say_copy(one if copy is other else other))
                elif is_same and _kind(one) == _kind(other) and one.geobox == other.geobox:
                    like[other.name] = one.name
    return found | {name: found[first] for name, first in like.items() if first in found}


def _kind(scene: Scene) -> tuple[object, ...]:
    """Return what decides, beside its pixels, of which scenes one may be a rival."""
    return bool(scene.acquisition), scene.level, is_lone_band(scene), bool(scene.hidings)


def is_lone_band(scene: Scene) -> bool:
    """Return whether a scene has one band, and nothing says which one."""
    return len(scene.bands) == 1 and UNNAMED.fullmatch(scene.bands[0]) is not None


def _copy_of(one: Scene, other: Scene, ground: Ground) -> Scene | None:
    """Return that of two scenes of the same numbers which only lacks the other's cloud mask."""
    if bool(one.hidings) == bool(other.hidings):
        return None
    less, more = (other, one) if one.hidings else (one, other)
    shared, do_differ, _ = ground.compare(bare(less), bare(more))
    is_copy = shared > MAX_SHARED and not do_differ and ground.adds_nothing(less, [more])
    return less if is_copy else None


def _say_copy(kept: Scene) -> str:
    return f"has the same pixels as {kept.name}, which also says where they are cloud or nodata"


def _say(scene: Scene, rival: Scene) -> str:
    reason = _say_rival(scene, rival)
    if is_lone_band(scene) and is_lone_band(rival):
        reason += (
            "; or, if they are the bands of one scene, name the files by them (town_B04.tif, "
            "town_B03.tif), and if they all show one band, name it (--bands B04)"
        )
    return reason


def _say_rival(scene: Scene, rival: Scene) -> str:
    if is_day(scene.date):
        return (
            f"shows the same ground as {rival.name}, on {scene.date} too, and nothing says which "
            "one counts; keep one of them"
        )
    return (
        f"shows the same ground as {rival.name}, in {scene.date or scene.period} too, and nothing "
        "says which one comes first; write their months or days into their names (2019-04, "
        "2019-06-12), give each its own --period with --append, give --composite median, or keep "
        "one of them"
    )


def _overlapping(scenes: list[Scene]) -> Iterator[tuple[list[Scene], list[Scene]]]:
    """Yield the scenes of two rasters' places that cover each other for the larger part of one.

    It is the smaller one's. Scenes of one place are compared with each other.
    """
    if len(scenes) < 2 or all(one.acquisition and not is_lone_band(one) for one in scenes):
        return
    by_place: dict[GeoBox, list[Scene]] = {}
    for scene in scenes:
        if scene.geobox is not None:
            by_place.setdefault(scene.geobox, []).append(scene)
    outlines = np.array([outline_of(place) for place in by_place])
    members = list(by_place.values())
    area = shapely.area(outlines)
    first, second = shapely.STRtree(outlines).query(outlines, predicate="intersects")
    first, second = first[first <= second], second[first <= second]
    shared = shapely.area(shapely.intersection(outlines[first], outlines[second]))
    is_large = shared > MAX_SHARED * np.minimum(area[first], area[second])
    for n, m in zip(first[is_large].tolist(), second[is_large].tolist(), strict=True):
        yield members[n], members[m]


def _may_be_rivals(one: Scene, other: Scene) -> bool:
    """Return whether nothing says which of two scenes of one place and time counts.

    Of two levels the ground comes first. Neighbours in two zones may cover each other, and then a
    cell is of the one in its own zone.
    """
    is_known = not (is_lone_band(one) and is_lone_band(other)) and (
        (one.acquisition and other.acquisition) or {one.level, other.level} == {"L1C", "L2A"}
    )
    crs = [scene.geobox.crs for scene in (one, other) if scene.geobox is not None]
    return not is_known and (crs[0] == crs[1] or not all(map(_is_zone, crs)))


def _is_zone(crs: CRS | None) -> bool:
    """Return whether a CRS is a zone of UTM."""
    return crs is not None and crs.epsg is not None and crs.epsg // 100 in (326, 327)
