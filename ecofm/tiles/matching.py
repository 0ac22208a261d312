"""Matching: which scenes go into one archive together, and which are left out by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from dataclasses import replace

from ecofm.tiles.scenes import Scene


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
    """Leave out scenes that are there twice: the same bytes, or an older processing."""
    by_hash: dict[tuple[str, str | None], str] = {}
    by_product: dict[tuple[str, str | None], str] = {}
    for name in list(scenes):
        scene = scenes[name]
        first = by_hash.setdefault((hashes.get(name, name), scene.period), name)
        if first != name:
            rejected[name] = f"has the same bytes as {first}"
            del scenes[name]
            continue
        if not scene.product:
            continue
        other = by_product.setdefault((scene.product, scene.period), name)
        if other == name:
            continue
        newer, older = sorted((name, other), key=lambda n: (scenes[n].baseline, n), reverse=True)
        by_product[scene.product, scene.period] = newer
        rejected[older] = (
            f"is the acquisition of {newer} in processing baseline "
            f"{scenes[older].baseline or 'unknown'}; the later one, "
            f"{scenes[newer].baseline or 'unknown'}, is taken"
        )
        del scenes[older]


def harmonise(scenes: dict[str, Scene], offset: float | None) -> float:
    """Give all scenes one offset by shifting their numbers; return it.

    It is the lowest of all, by which nothing is lost, or that of the archive that grows: then
    numbers below zero reflectance become 0.
    """
    common = min(scene.offset for scene in scenes.values()) if offset is None else offset
    for name, scene in scenes.items():
        scenes[name] = replace(scene, shift=round(scene.offset - common))
    return common
