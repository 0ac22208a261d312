"""Sources: what lies in the given folders, and nothing outside them, as things that are scenes."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import xxhash

from ecofm.errors import SceneError
from ecofm.tiles.scenes import BAND, band_name, readable_name

SUFFIXES = {".tif", ".tiff", ".jp2", ".png", ".jpg", ".jpeg"}
FOLLOW = "give its target, or --follow-links"
UNREAD = {
    ".vrt": "is a VRT, which can name any file; write it as GeoTIFF with gdal_translate",
    ".zip": "is a zip; unpack it",
}
BAND_FILE = re.compile(
    rf"(?P<scene>.*?)(?:^|[_.-])(?P<band>{BAND.pattern})(?:_(?P<gsd>[126]0)m)?", re.IGNORECASE
)
PRODUCT_FILES = ("MTD_MSIL2A.xml", "MTD_MSIL1C.xml")
MAX_JSON_BYTES = 2**24
WHOLE_BYTES = 2**26
N_SAMPLES, SAMPLE_BYTES = 64, 2**18


@dataclass(frozen=True, slots=True)
class Source:
    """What will be one scene or chip."""

    name: str
    """Path relative to the given folder."""
    kind: str
    """`raster`, `bands` (a file a band), `safe` or `stac`."""
    path: Path
    """The file, the SAFE folder, or the STAC item."""
    files: tuple[Path, ...]
    root: Path
    """The given folder: nothing outside it is read."""


@dataclass(slots=True)
class Sources:
    """What was found, by name, and what was left out, with its reason."""

    found: dict[str, Source] = field(default_factory=dict)
    rejected: dict[str, str] = field(default_factory=dict)
    _places: set[str] = field(default_factory=set)

    def add(self, source: Source) -> None:
        """Add a source; raises SceneError when another one has its name."""
        place = str(absolute(source.path)) + "|" + source.name
        if place in self._places:
            return
        self._places.add(place)
        other = self.found.setdefault(source.name, source)
        if other.path != source.path and absolute(other.path) != absolute(source.path):
            raise SceneError(f"{source.path} and {other.path} have the same name; rename one.")


def absolute(path: Path) -> Path:
    """Return a path without `..`, its links as they are: their names are the user's words."""
    return Path(os.path.abspath(path))


def is_inside(path: Path, root: Path) -> bool:
    """Return whether a path, its links followed, lies in a folder."""
    return path.resolve().is_relative_to(root.resolve())


def find_sources(
    paths: Sequence[Path], *, chips: bool = False, follow_links: bool = False
) -> Sources:
    """Return what the given files and folders hold, sorted by name.

    When the paths lie in several folders, the names begin with the folder's own name. With `chips`
    each image is one by itself; with `follow_links` links may lead out of the folders. Raises
    SceneError for a path that is missing or holds no image.
    """
    sources = Sources()
    roots = {absolute(_root_of(path)) for path in paths}
    for path in paths:
        if not path.exists():
            raise SceneError(f"{path} does not exist; give a folder or files of imagery.")
        root = _root_of(path)
        prefix = f"{absolute(root).name}/" if len(roots) > 1 else ""
        n_before = len(sources.found) + len(sources.rejected)
        n_seen = 0
        for source in _search(path, root, prefix, sources.rejected, chips, follow_links):
            sources.add(source)
            n_seen += 1
        if not n_seen and len(sources.found) + len(sources.rejected) == n_before:
            raise SceneError(f"{path} holds no image ({', '.join(sorted(SUFFIXES))}).")
    sources.found = dict(sorted(sources.found.items()))
    return sources


def _root_of(path: Path) -> Path:
    return path if path.is_dir() and not _is_product(path) else path.parent


def _is_product(folder: Path) -> bool:
    return any((folder / name).is_file() for name in PRODUCT_FILES)


def _search(
    path: Path, root: Path, prefix: str, rejected: dict[str, str], chips: bool, follow_links: bool
) -> Iterator[Source]:
    def name_of(place: Path) -> str:
        return readable_name(prefix + place.relative_to(root).as_posix())

    if not path.is_dir():
        yield from _sort([path], root, name_of, rejected, chips, given=True)
        return
    seen: set[Path] = set()
    for place, folders, files in os.walk(path, followlinks=follow_links):
        folder = Path(place)
        if follow_links:
            if (real := folder.resolve()) in seen:
                folders.clear()  # a link back to a folder above would never end
                continue
            seen.add(real)
        if not chips and _is_product(folder):
            folders.clear()
            yield Source(name_of(folder), "safe", folder, tuple(_inside(folder)), root)
            continue
        folders.sort()
        if not follow_links:
            for linked in [name for name in folders if (folder / name).is_symlink()]:
                rejected[name_of(folder / linked)] = f"is a link to a folder; {FOLLOW}"
        found = [folder / name for name in sorted(files)]
        yield from _sort(found, root, name_of, rejected, chips, given=follow_links)


def _inside(folder: Path) -> list[Path]:
    """Return the files of a product that can hold pixels or say what they are."""
    kept = {*SUFFIXES, ".xml"}
    found: list[Path] = []
    for place, folders, files in os.walk(folder):
        folders.sort()
        names = [name for name in sorted(files) if Path(name).suffix.lower() in kept]
        found += [Path(place) / name for name in names]
    return found


def _sort(
    files: list[Path],
    root: Path,
    name_of: object,
    rejected: dict[str, str],
    chips: bool,
    *,
    given: bool,
) -> Iterator[Source]:
    """Yield the sources among the files of one folder; a set of band files is one."""
    assert callable(name_of)
    images, sets = [], {}
    for path in files:
        suffix = path.suffix.lower()
        name = name_of(path)
        if suffix in UNREAD:
            rejected[name] = UNREAD[suffix]
        elif suffix == ".json" and not chips:
            if (item := read_item(path)) is not None:
                yield Source(name, "stac", path, tuple(_assets(item, path, root)), root)
        elif suffix in SUFFIXES and _is_file(path):
            if path.is_symlink() and path.exists() and not given and not is_inside(path, root):
                rejected[name] = f"is a link that leads out of the given folder; {FOLLOW}"
                continue
            images.append(path)
    if not chips:
        sets = _band_sets(images)
    for scene, members in sets.items():
        folder = members[0].parent
        name = name_of(folder / scene) if scene else name_of(folder)
        yield Source(name, "bands", folder / scene, tuple(members), root)
    taken = {path for members in sets.values() for path in members}
    for path in images:
        if path not in taken:
            yield Source(name_of(path), "raster", path, (path,), root)


def split_band(stem: str) -> tuple[str, str, int] | None:
    """Return (scene, band, metres or 0) of a file that is named by its band."""
    found = BAND_FILE.fullmatch(stem)
    if not found:
        return None
    return found["scene"], band_name(found["band"].upper()), int(found["gsd"] or 0)


def _band_sets(images: list[Path]) -> dict[str, list[Path]]:
    """Return the files of one folder that are bands of one scene, by the scene's name."""
    sets: dict[str, dict[str, Path]] = {}
    for path in images:
        # A raster of several bands may be named by them too: then its last one is no single band.
        if (split := split_band(path.stem)) and not split_band(split[0]):
            scene, band, gsd = split
            members = sets.setdefault(scene, {})
            if band not in members or gsd < (split_band(members[band].stem) or ("", "", 0))[2]:
                members[band] = path
    return {
        scene: [members[band] for band in sorted(members)]
        for scene, members in sets.items()
        if len(members) > 1
    }


def read_item(path: Path) -> dict[str, object] | None:
    """Return a STAC item, None when a JSON file is no such thing."""
    try:
        if not path.is_file() or path.stat().st_size > MAX_JSON_BYTES:
            return None
        item = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    is_item = isinstance(item, dict) and item.get("type") == "Feature" and "stac_version" in item
    return item if is_item else None


def _assets(item: dict[str, object], path: Path, root: Path) -> Iterator[Path]:
    """Yield the item itself and its assets' files that lie in the given folder."""
    yield path
    assets = item.get("assets")
    for asset in assets.values() if isinstance(assets, dict) else ():
        href = asset.get("href") if isinstance(asset, dict) else None
        if isinstance(href, str) and "://" not in href and not href.startswith("/vsi"):
            target = path.parent / href
            if target.suffix.lower() in SUFFIXES and target.is_file() and is_inside(target, root):
                yield target


def _is_file(path: Path) -> bool:
    """Return whether a path is a file, or a link that leads nowhere and must be named as such."""
    return path.is_file() or (path.is_symlink() and not path.exists())


def find_masks(folder: Path, sources: Sources) -> dict[str, Path]:
    """Return the masks in a folder by the name of their scene; SceneError when none has one.

    The mask of `a/b.jp2` is `a/b.tif`, `a/b.png` or `a/b.jp2` in that folder.
    """
    found = {}
    for name, source in sources.found.items():
        stem = name if source.kind in ("bands", "safe") else str(Path(name).with_suffix(""))
        for suffix in sorted(SUFFIXES):
            path = folder / f"{stem}{suffix}"
            if path.is_file() and is_inside(path, folder):
                found[name] = path
                break
    if not found:
        raise SceneError(f"{folder} holds no mask named as a scene is; name them as the scenes.")
    return found


def hash_file(path: Path) -> str:
    """Return the xxh3 of a file, as `hash_source` does."""
    return hash_source(Source(path.name, "raster", path, (path,), path.parent))


def hash_source(source: Source) -> str:
    """Return the xxh3 of a source's files, or `unreadable`.

    Files above 64 MiB are sampled at 64 places, the first and the last bytes among them: a country
    is not read twice, and what was read has a checksum of its own in every tile.
    """
    digest = xxhash.xxh3_64()
    try:
        for path in source.files:
            n_bytes = path.stat().st_size
            digest.update(n_bytes.to_bytes(8, "little"))
            with path.open("rb") as file:
                if n_bytes <= WHOLE_BYTES:
                    while block := file.read(2**22):
                        digest.update(block)
                    continue
                for sample in range(N_SAMPLES):
                    file.seek((n_bytes - SAMPLE_BYTES) * sample // (N_SAMPLES - 1))
                    digest.update(file.read(SAMPLE_BYTES))
    except OSError:
        return "unreadable"  # it is rejected by name when it is opened
    return digest.hexdigest()
