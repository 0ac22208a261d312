"""Sources: what lies in the given folders, and nothing outside them, as things that are scenes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import xxhash

from ecofm.errors import SceneError
from ecofm.tiles.bandfiles import band_sets, split_band
from ecofm.tiles.items import (
    JSON_SUFFIXES,
    Item,
    files_in_damaged,
    files_of,
    is_catalog,
    is_item,
    items_of,
    links_of,
    read_stac_file,
)
from ecofm.tiles.scenes import readable_name
from ecofm.tiles.sidecars import sidecars_of

SUFFIXES = {".tif", ".tiff", ".jp2", ".png", ".jpg", ".jpeg"}
FOLLOW = "give its target, or --follow-links"
UNREAD = {
    ".vrt": "is a VRT, which can name any file; write it as GeoTIFF with gdal_translate",
    ".zip": "is a zip; unpack it",
}
PRODUCT_FILES = ("MTD_MSIL2A.xml", "MTD_MSIL1C.xml")
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
    """What it is read from, sidecars and an item's assets too."""
    root: Path
    """The given folder: nothing outside it is read."""
    follow_links: bool = False
    """Links in it may lead elsewhere."""
    item: Item | None = None
    """The STAC item, where it is one of several in a file."""

    def may_read(self, path: Path) -> bool:
        """Return whether a path lies in the given folder, or is a link there that is followed."""
        return is_inside(path, self.root) or (
            self.follow_links and absolute(path).is_relative_to(absolute(self.root))
        )


@dataclass(slots=True)
class Sources:
    """What was found, by name, and what was left out, with its reason."""

    found: dict[str, Source] = field(default_factory=dict)
    rejected: dict[str, str] = field(default_factory=dict)
    _places: set[str] = field(default_factory=set)
    owned: dict[Path, str] = field(default_factory=dict)
    """Files that an item names, links followed, and the item's name."""

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
        search = Search(path, root, prefix, sources.rejected, chips, follow_links, sources.owned)
        for source in search.sources():
            sources.add(source)
            n_seen += 1
        if not n_seen and len(sources.found) + len(sources.rejected) == n_before:
            raise SceneError(f"{path} holds no image ({', '.join(sorted(SUFFIXES))}).")
    _drop_owned(sources)
    sources.found = dict(sorted(sources.found.items()))
    return sources


def _drop_owned(sources: Sources) -> None:
    """Take out the files that an item names: it says what they mean, also where it is refused.

    What lies in one set or SAFE folder with them belongs to the same scene.
    """
    for name, source in list(sources.found.items()):
        if source.kind == "stac":
            continue
        owners = [sources.owned.get(file.resolve()) for file in source.files]
        owner = next((owner for owner in owners if owner), None)
        if owner is None:
            continue
        del sources.found[name]
        images = zip(source.files, owners, strict=True)
        more = [f.name for f, o in images if not o and split_band(f.stem) and f.suffix in SUFFIXES]
        if more:
            sources.rejected[name] = (
                f"is the scene of the item {owner}, which does not name {', '.join(more[:5])}"
            )


def _root_of(path: Path) -> Path:
    return path if path.is_dir() and not _is_product(path) else path.parent


def _is_product(folder: Path) -> bool:
    return any((folder / name).is_file() for name in PRODUCT_FILES)


@dataclass(frozen=True, slots=True)
class Search:
    """How one given path is searched."""

    path: Path
    root: Path
    prefix: str
    rejected: dict[str, str]
    chips: bool
    follow_links: bool
    owned: dict[Path, str]

    def name(self, place: Path) -> str:
        """Return how people are told of a place."""
        return readable_name(self.prefix + place.relative_to(self.root).as_posix())

    def refuses(self, path: Path) -> bool:
        """Return whether a path is a link that leads out; such a link is named."""
        is_refused = (
            path.is_symlink() and path.exists() and path != self.path
            and not self.follow_links and not is_inside(path, self.root)
        )  # fmt: skip
        if is_refused:
            self.rejected[self.name(path)] = (
                f"is a link that leads out of the given folder; {FOLLOW}"
            )
        return is_refused

    def sources(self) -> Iterator[Source]:
        """Yield what there is."""
        if not self.path.is_dir():
            yield from self._sort([self.path])
            return
        for folder, folders, files in _walk(self.path, self.follow_links):
            if not self.chips and _is_product(folder):
                folders.clear()
                yield from self._safe(folder)
                continue
            if not self.follow_links:
                for linked in [name for name in folders if (folder / name).is_symlink()]:
                    self.rejected[self.name(folder / linked)] = f"is a link to a folder; {FOLLOW}"
            yield from self._sort([folder / name for name in files])

    def _safe(self, folder: Path) -> Iterator[Source]:
        """Yield a SAFE folder with the files that can hold pixels or say what they are."""
        # Given by itself, it is the folder out of which nothing is read.
        root = folder if folder == self.path else self.root
        kept, found = {*SUFFIXES, ".xml"}, []
        for place, folders, files in _walk(folder, self.follow_links):
            names = [name for name in files if Path(name).suffix.lower() in kept]
            paths = [place / name for name in names]
            for path in [place / name for name in folders] + paths:
                if (
                    not self.follow_links
                    and path.is_symlink()
                    and (path.is_dir() or not is_inside(path, root))
                ):
                    self.rejected[self.name(folder)] = (
                        f"holds a link, {path.relative_to(folder)}, that leads elsewhere; {FOLLOW}"
                    )
                    return
            found += paths
        yield Source(self.name(folder), "safe", folder, tuple(found), root, self.follow_links)

    def _sort(self, files: list[Path]) -> Iterator[Source]:
        """Yield the sources among the files of one folder; a set of band files is one."""
        images: list[Path] = []
        sets: dict[str, tuple[list[Path], list[Path]]] = {}
        for path in files:
            suffix = path.suffix.lower()
            if suffix in UNREAD:
                self.rejected[self.name(path)] = UNREAD[suffix]
            elif suffix in JSON_SUFFIXES and not self.chips and not self.refuses(path):
                yield from self._stac(path)
            elif suffix in SUFFIXES and _is_file(path) and not self.refuses(path):
                images.append(path)
        if not self.chips:
            sets = band_sets(images)
        taken: set[Path] = set()
        for scene, (members, others) in sets.items():
            folder = members[0].parent
            name = self.name(folder / scene if scene else folder)
            yield self._source(name, "bands", folder / scene, tuple(members))
            taken.update(members, others)
        for path in images:
            if path not in taken:
                yield self._source(self.name(path), "raster", path, (path,))

    def _source(
        self, name: str, kind: str, path: Path, files: tuple[Path, ...], item: Item | None = None
    ) -> Source:
        if kind != "stac":
            files += tuple(beside for file in files for beside in sidecars_of(file))
        return Source(name, kind, path, files, self.root, self.follow_links, item)

    def _stac(self, path: Path, seen: frozenset[Path] = frozenset()) -> Iterator[Source]:
        """Yield the items in a file; a catalog is followed only where it is given itself.

        In a folder that is searched its items are found without it.
        """
        name, found = self.name(path), read_stac_file(path)
        if found is None:
            if (files := files_in_damaged(path)) is not None:
                self.rejected[name] = "is a STAC file that is no JSON; download it again"
                self._own(files, name)
            return
        if is_item(found):
            yield self._item(name, path, found, (path,))
        for item_id, item in items_of(found):
            yield self._item(f"{name}#{item_id}", path, item, (), item)
        if is_catalog(found) and (seen or path == self.path):
            for href in links_of(found):
                yield from self._linked(path, href, seen | {path})

    def _item(
        self, name: str, path: Path, item: Item, files: tuple[Path, ...], inside: Item | None = None
    ) -> Source:
        """Return the source of an item, which owns the files that it names."""
        source = self._source(name, "stac", path, files, inside)
        named = list(files_of(item, path, is_alone=inside is None))
        self._own(named, name)
        assets = [f for f in named if f.suffix.lower() in SUFFIXES and source.may_read(f)]
        assets = [file for file in assets if file.is_file()]
        beside = [sidecar for file in assets for sidecar in sidecars_of(file)]
        return replace(source, files=(*files, *assets, *beside))

    def _own(self, files: Sequence[Path], name: str) -> None:
        for file in files:
            self.owned.setdefault(file.resolve(), name)

    def _linked(self, path: Path, href: str, seen: frozenset[Path]) -> Iterator[Source]:
        """Yield the items at a link of a catalog; one that is not followed is named."""
        target = absolute(path.parent / href)
        if "://" in href:
            reason = "is a URL; give the URL of a STAC API with --remote, or download it"
        elif not self._source("", "stac", path, ()).may_read(target):
            reason = "is outside the given folder"
        elif not target.is_file():
            reason = "does not exist"
        else:
            if target not in seen:
                yield from self._stac(target, seen)
            return
        self.rejected[f"{self.name(path)}#{href[:200]}"] = reason


def _walk(path: Path, follow_links: bool) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Yield folders with what is in them, sorted; a link back to a folder above is not followed."""
    seen: set[Path] = set()
    for place, folders, files in os.walk(path, followlinks=follow_links):
        folder = Path(place)
        if follow_links:
            if (real := folder.resolve()) in seen:
                folders.clear()
                continue
            seen.add(real)
        folders.sort()
        yield folder, folders, sorted(files)


def _is_file(path: Path) -> bool:
    """Return whether a path is a file, or a link that leads nowhere and must be named as such."""
    return path.is_file() or (path.is_symlink() and not path.exists())


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
            if not path.is_file():
                continue
            if not follow_links and not is_inside(path, folder):
                raise SceneError(f"{path} is a mask that leads out of {folder}; {FOLLOW}.")
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
    if source.item is not None:  # its file may get more items
        digest.update(json.dumps(source.item, sort_keys=True).encode())
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
