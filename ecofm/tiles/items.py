"""STAC files: items, collections of items, and what a catalog on the disk links to."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

JSON_SUFFIXES = (".json", ".geojson")
MAX_ITEM_BYTES = 2**24
MAX_FILE_BYTES = 2**26
"""Of a collection of items; a catalog of more is many files."""
CHILDREN = ("item", "child")

Item = dict[str, Any]


def read_stac_file(path: Path) -> Item | None:
    """Return the object in a STAC file, None when a JSON file is no such thing."""
    try:
        if not path.is_file() or path.stat().st_size > MAX_FILE_BYTES:
            return None
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    # A collection of items need not have a version, nor a plain GeoJSON; its features tell.
    is_stac = isinstance(found, dict) and ("stac_version" in found or "features" in found)
    return found if is_stac else None


def is_item(found: Item) -> bool:
    """Return whether an object is a STAC item."""
    return found.get("type") == "Feature" and "stac_version" in found


def items_of(found: Item) -> list[tuple[str, Item]]:
    """Return (name, item) of a collection of items: the id, numbered where it comes again."""
    features = found.get("features")
    if found.get("type") != "FeatureCollection" or not isinstance(features, list):
        return []
    named: dict[str, Item] = {}
    for item in features:
        if isinstance(item, dict) and is_item(item):
            name = str(item.get("id", "item"))[:200]
            named[name if name not in named else f"{name}~{len(named)}"] = item
    return list(named.items())


def is_catalog(found: Item) -> bool:
    """Return whether an object is a STAC catalog or collection, which links to its items."""
    return found.get("type") in ("Catalog", "Collection")


def links_of(found: Item) -> Iterator[str]:
    """Yield where a catalog says that its items and children are."""
    links = found.get("links")
    for link in links if isinstance(links, list) else ():
        if isinstance(link, dict) and link.get("rel") in CHILDREN:
            yield str(link.get("href", ""))


def files_of(item: Item, path: Path, *, is_alone: bool) -> Iterator[Path]:
    """Yield the files that an item in a file names (`file_of`), without what is elsewhere."""
    assets = item.get("assets")
    for asset in assets.values() if isinstance(assets, dict) else ():
        href = asset.get("href") if isinstance(asset, dict) else None
        if isinstance(href, str) and (found := file_of(href, path, is_alone=is_alone)):
            yield found


def is_file_href(href: str) -> bool:
    """Return whether an href names a file."""
    text = href.removeprefix("file://")
    return not re.match(r"[A-Za-z0-9+.-]+:", text) and not text.startswith("/vsi")


def files_in_damaged(path: Path) -> list[Path] | None:
    """Return the files named in a STAC file that is no JSON any more, None for any other file.

    Its scene is refused, and what it names must not be taken for a scene without metadata.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            return None
        text = path.read_text(encoding="utf-8", errors="replace")
        json.loads(text)
    except OSError:
        return None
    except (ValueError, RecursionError):
        is_stac = "stac_version" in text or '"assets"' in text
        hrefs = re.findall(r'"href"\s*:\s*"([^"\\]+)"', text)
        found = [file_of(href, path, is_alone=True) for href in hrefs]
        return [file for file in found if file is not None] if is_stac else None
    return None


def file_of(href: str, item: Path, *, is_alone: bool) -> Path | None:
    """Return the file that an href in an item means, None where it is elsewhere.

    An href is a URL reference: `%20` is a blank, unless a file is really called so. Of a URL it is
    the copy beside an item that has a file to itself (`is_alone`), as download scripts leave it.
    """
    if is_file_href(href):
        text = href.removeprefix("file://")
        literal = Path(os.path.abspath(item.parent / text))
        return literal if literal.exists() else Path(os.path.abspath(item.parent / unquote(text)))
    name = unquote(href.partition("?")[0].rpartition("/")[2])
    copy = item.parent / name
    is_copy = is_alone and "://" in href and name not in ("", ".", "..") and copy.is_file()
    return Path(os.path.abspath(copy)) if is_copy else None
