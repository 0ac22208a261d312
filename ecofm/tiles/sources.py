"""Sources: what lies in the given folders, and nothing outside them, as things that are scenes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ecofm.errors import SceneError
from ecofm.files import is_special, kind_of
from ecofm.tiles.bandfiles import sort_band_files, split_band
from ecofm.tiles.catalogs import Reader, Walked, documents
from ecofm.tiles.given import (
    SUFFIXES,
    absolute,
    is_inside,
    is_product,
    labels_of,
    real,
    together,
    walk,
)
from ecofm.tiles.items import (
    JSON_SUFFIXES,
    Item,
    copies_of,
    fault_of,
    file_of,
    hrefs_in_damaged,
    hrefs_of,
    is_file_href,
    is_item,
    items_of,
    read_stac_file,
    shown,
    urls_by_name,
)
from ecofm.tiles.scenes import readable_name
from ecofm.tiles.sidecars import sidecars_of

FOLLOW = "give its target, or --follow-links"
UNREAD = {
    ".vrt": "is a VRT, which can name any file; write it as GeoTIFF with gdal_translate",
    ".zip": "is a zip; unpack it",
}


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
    roots: tuple[Path, ...]
    """The given folders: nothing outside them is read."""
    follow_links: bool = False
    """Links in them may lead elsewhere."""
    item: Item | None = None
    """The STAC item, where it is one of several in a file."""
    bands: tuple[str, ...] = ()
    """Those of the first files, where each holds a band."""
    copies: Mapping[str, Path] = field(default_factory=dict)
    """The local files of an item's URLs."""

    def may_read(self, path: Path) -> bool:
        """Return whether a path lies in a given folder, or is a link there that is followed."""
        return any(
            is_inside(path, root)
            or (self.follow_links and absolute(path).is_relative_to(absolute(root)))
            for root in self.roots
        )


@dataclass(slots=True)
class Sources:
    """What was found, by name, and what was left out, with its reason."""

    found: dict[str, Source] = field(default_factory=dict)
    rejected: dict[str, str] = field(default_factory=dict)
    _places: set[str] = field(default_factory=set)
    owned: dict[Path, str] = field(default_factory=dict)
    """Files that an item names, links followed, and the item's name."""
    damaged: dict[Path, str] = field(default_factory=dict)
    """Folders with a JSON that may have been an item and says nothing now, and its name."""

    def add(self, source: Source) -> None:
        """Add a source; raises SceneError when another one has its name."""
        place = str(absolute(source.path)) + "|" + source.name
        if place in self._places:
            return
        self._places.add(place)
        other = self.found.setdefault(source.name, source)
        if other.path != source.path and absolute(other.path) != absolute(source.path):
            raise SceneError(f"{source.path} and {other.path} have the same name; rename one.")


def find_sources(
    paths: Sequence[Path], *, chips: bool = False, follow_links: bool = False
) -> Sources:
    """Return what the given files and folders hold, sorted by name.

    When the paths lie in several folders, the names begin with the folder's own name. With `chips`
    each image is one by itself; with `follow_links` links may lead out of the folders. Raises
    SceneError for a path that is missing or holds no image.
    """
    sources = Sources()
    for path in paths:
        if not path.exists():
            raise SceneError(f"{path} does not exist; give a folder or files of imagery.")
        if is_special(path):
            raise SceneError(f"{path} is {kind_of(path)}; give a folder or files of imagery.")
    labels = labels_of(paths)
    for root, given in together(paths):
        search = Search(root, given, tuple(labels), labels[root], chips, follow_links, sources)
        n_before = len(sources.found) + len(sources.rejected)
        n_seen = 0
        for source in search.sources():
            sources.add(source)
            n_seen += 1
        if not n_seen and len(sources.found) + len(sources.rejected) == n_before:
            place = given[0] if len(given) == 1 else root
            raise SceneError(f"{place} holds no image ({', '.join(sorted(SUFFIXES))}).")
    _drop_owned(sources)
    sources.found = dict(sorted(sources.found.items()))
    return sources


def _drop_owned(sources: Sources) -> None:
    """Take out the files that an item names: it says what they mean, also where it is refused.

    What lies in one set or SAFE folder with them belongs to the same scene, and what lies beside
    a damaged item to a scene of which nothing is known.
    """
    for name, source in list(sources.found.items()):
        if source.kind == "stac":
            continue
        owners = [sources.owned.get(real(file)) for file in source.files]
        owner = next((owner for owner in owners if owner), None)
        item = next(filter(None, (sources.damaged.get(real(f).parent) for f in source.files)), "")
        if owner is None and not item:
            continue
        del sources.found[name]
        if owner is None:
            sources.rejected[name] = (
                f"is beside {item}, which may have said what its numbers mean and is unusable; "
                "download that again, or move it elsewhere if it is not about this image"
            )
            continue
        images = zip(source.files, owners, strict=True)
        more = [f.name for f, o in images if not o and split_band(f.stem) and f.suffix in SUFFIXES]
        if more:
            sources.rejected[name] = (
                f"is the scene of the item {owner}, which does not name {', '.join(more[:5])}"
            )


@dataclass(frozen=True, slots=True)
class Search:
    """How one given folder is searched, or some given files of one."""

    root: Path
    given: tuple[Path, ...]
    """The files or SAFE folders in it that are given; none where all of it is."""
    roots: tuple[Path, ...]
    """All given folders, whose files an item may name."""
    label: str
    chips: bool
    follow_links: bool
    into: Sources
    urls: dict[Path, dict[str, set[str]]] = field(default_factory=dict)
    """Of a folder, the URLs that its items name, by file name."""
    walked: Walked = field(default_factory=Walked)

    def name(self, place: Path) -> str:
        """Return how people are told of a place."""
        if place == self.root:
            return readable_name(self.label.rstrip("/") or self.root.name)
        # A catalog may link to what lies in another given folder.
        return readable_name(self.label + Path(os.path.relpath(place, self.root)).as_posix())

    def refuses(self, path: Path) -> bool:
        """Return whether a path is a link that leads out; such a link is named."""
        is_refused = (
            path.is_symlink() and path.exists() and path not in self.given
            and not self.follow_links and not is_inside(path, self.root)
        )  # fmt: skip
        if is_refused:
            self.into.rejected[self.name(path)] = (
                f"is a link that leads out of the given folder; {FOLLOW}"
            )
        return is_refused

    def sources(self) -> Iterator[Source]:
        """Yield what there is."""
        images: list[Path] = []
        for path in self.given:
            if path.is_dir():
                yield from self._safe(path)
        files = [path for path in self.given if not path.is_dir()]
        yield from self._sort(files, images)
        for folder, folders, names in () if self.given else walk(self.root, self.follow_links):
            if not self.chips and is_product(folder):
                folders.clear()
                yield from self._safe(folder)
                continue
            if not self.follow_links:
                for linked in [name for name in folders if (folder / name).is_symlink()]:
                    reason = f"is a link to a folder; {FOLLOW}"
                    self.into.rejected[self.name(folder / linked)] = reason
            yield from self._sort([folder / name for name in names], images)
        yield from self._scenes(images)

    def _safe(self, folder: Path) -> Iterator[Source]:
        """Yield a SAFE folder with the files that can hold pixels or say what they are.

        One of several granules, as there were until 2016, is as many scenes.
        """
        # Given by itself, it is the folder out of which nothing is read.
        root = folder if folder in self.given else self.root
        kept, found = {*SUFFIXES, ".xml"}, []
        for place, folders, files in walk(folder, self.follow_links):
            names = [name for name in files if Path(name).suffix.lower() in kept]
            paths = [place / name for name in names]
            for path in [place / name for name in folders] + paths:
                if (
                    not self.follow_links
                    and path.is_symlink()
                    and (path.is_dir() or not is_inside(path, root))
                ):
                    self.into.rejected[self.name(folder)] = (
                        f"holds a link, {path.relative_to(folder)}, that leads elsewhere; {FOLLOW}"
                    )
                    return
                if is_special(path):
                    self.into.rejected[self.name(folder)] = (
                        f"holds {path.relative_to(folder)}, which is {kind_of(path)}, expected a "
                        "file; unpack the product again"
                    )
                    return
            found += paths
        granules: dict[str, list[Path]] = {}
        for path in found:
            parts = path.relative_to(folder).parts
            is_in_granule = parts[0] == "GRANULE" and len(parts) > 2
            granules.setdefault(parts[1] if is_in_granule else "", []).append(path)
        common = granules.pop("", [])
        for granule, paths in (granules or {"": []}).items():
            name = self.name(folder) + (f"/{granule}" if len(granules) > 1 else "")
            held = (*common, *paths)
            yield Source(name, "safe", folder, held, (root, *self.roots), self.follow_links)

    def _sort(self, files: list[Path], images: list[Path]) -> Iterator[Source]:
        """Yield the items among the files of one folder, and add its images to `images`."""
        for path in files:
            suffix = path.suffix.lower()
            if suffix in UNREAD:
                self.into.rejected[self.name(path)] = UNREAD[suffix]
            elif suffix in {*SUFFIXES, *JSON_SUFFIXES} and is_special(path):
                self.into.rejected[self.name(path)] = f"is {kind_of(path)}, expected a file"
            elif suffix in JSON_SUFFIXES and not self.chips and not self.refuses(path):
                yield from self._stac(path)
            elif suffix in SUFFIXES and _is_file(path) and not self.refuses(path):
                images.append(path)

    def _scenes(self, images: list[Path]) -> Iterator[Source]:
        """Yield the scenes among images; a set of band files is one."""
        found = sort_band_files(images, self.root, are_chips=self.chips)
        for one in found.sets:
            place = one.folder / one.scene
            source = self._source(self.name(place), "bands", place, tuple(one.bands.values()))
            yield replace(source, bands=tuple(one.bands))
        for path, reason in found.rejected.items():
            self.into.rejected[self.name(path)] = reason
        for path in images:
            if path not in found.taken and path not in found.rejected:
                yield self._source(self.name(path), "raster", path, (path,))

    def _source(
        self, name: str, kind: str, path: Path, files: tuple[Path, ...], item: Item | None = None
    ) -> Source:
        if kind != "stac":
            files += tuple(beside for file in files for beside in sidecars_of(file))
        return Source(name, kind, path, files, self.roots, self.follow_links, item)

    def _stac(self, path: Path) -> Iterator[Source]:
        """Yield the items in a file; a catalog is followed only where it is given itself.

        In a folder that is searched its items are found without it.
        """
        if path not in self.given:
            yield from self._items(path, self._read(path))
            return
        probe = self._source("", "stac", path, ())
        reader = Reader(self._read, probe.may_read, self._reject)
        for document, found in documents(path, reader, self.walked):
            yield from self._items(document, found)

    def _read(self, path: Path) -> Item:
        """Return what is in a STAC file, nothing where it is damaged, or is another JSON."""
        try:
            return read_stac_file(path) or {}
        except SceneError as error:
            name = self.name(path)
            self.into.rejected[name] = str(error)
            self._own((file_of(href, path) for href in hrefs_in_damaged(path)), name)
            self._distrust(path, name)
            return {}

    def _reject(self, path: Path, href: str | None, reason: str) -> None:
        link = "" if href is None else f"#{shown(href, 200)}"
        self.into.rejected[self.name(path) + link] = reason

    def _items(self, path: Path, found: Item) -> Iterator[Source]:
        """Yield the items in what a file holds; those that cannot be used are named."""
        name = self.name(path)
        if is_item(found):
            yield self._item(name, path, found, (path,))
        items = items_of(found)
        for item_id, item in items:
            one = f"{name}#{item_id}"
            if (fault := fault_of(item)) is None:
                yield self._item(one, path, item, (), item, is_alone=len(items) == 1)
            else:
                self.into.rejected[one] = fault
                self._own((file_of(href, path) for href in hrefs_of(item)), one)

    def _item(
        self,
        name: str,
        path: Path,
        item: Item,
        files: tuple[Path, ...],
        inside: Item | None = None,
        *,
        is_alone: bool = True,
    ) -> Source:
        """Return the source of an item, which owns the files that it names."""
        source = self._source(name, "stac", path, files, inside)
        own = [str(item.get("id", "")), *([path.stem] if is_alone else [])]
        named: list[Path] = []
        copies: dict[str, Path] = {}
        hrefs = list(hrefs_of(item))
        for href in hrefs:
            found = copies_of(href, path, own)
            self._own(found, name)
            # Beside several items it may be the copy of another one's URL of the same name.
            is_url = "://" in href and not is_file_href(href)
            is_in_own = bool(found) and found[0].parent != absolute(path.parent)
            if found and is_url and (is_in_own or self._is_only(path, found[0].name)):
                copies[href] = found[0]
            if file := copies.get(href) or file_of(href, path):
                named.append(file)
        self._own(named, name)
        if not hrefs:
            self._distrust(path, name)
        assets = [f for f in named if f.suffix.lower() in SUFFIXES and source.may_read(f)]
        assets = [file for file in assets if file.is_file()]
        beside = [sidecar for file in assets for sidecar in sidecars_of(file)]
        return replace(source, files=(*files, *assets, *beside), copies=copies)

    def _is_only(self, item: Path, name: str) -> bool:
        """Return whether all items of a folder mean the same URL by a file name."""
        folder = item.parent
        if folder not in self.urls:
            self.urls[folder] = urls_by_name(folder)
        return len(self.urls[folder].get(name, ())) < 2

    def _own(self, files: Iterable[Path | None], name: str) -> None:
        for file in files:
            if file is not None:
                self.into.owned.setdefault(real(file), name)

    def _distrust(self, path: Path, name: str) -> None:
        """Note that nothing is known of the images beside a file, or in the folder of its name."""
        for folder in (path.parent, path.with_suffix("")):
            self.into.damaged.setdefault(real(folder), name)


def _is_file(path: Path) -> bool:
    """Return whether a path is a file, or a link that leads nowhere and must be named as such."""
    return path.is_file() or (path.is_symlink() and not path.exists())
