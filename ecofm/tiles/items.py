"""STAC files: items, collections of items, and what a catalog on the disk links to."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from os.path import isfile
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from ecofm.errors import SceneError
from ecofm.tiles.limits import MAX_ASSETS, MAX_FILE_BYTES, MAX_HREF_CHARS, MAX_NESTING

JSON_SUFFIXES = (".json", ".geojson")
CHILDREN = ("item", "child")
STAC_WORDS = re.compile(r'"(?:Feature|stac_\w+|assets|href|links|bbox|geometry|collection)')
HREF = re.compile(r'"href"\s*:\s*("(?:[^"\\]|\\.)*")')
MAX_DIGITS = 300
"""A whole number of more digits is no float either: it is read as infinite."""
TWICE = "\0twice"
"""The name under which an object keeps the first name that it has twice, with two values."""

Item = dict[str, Any]


def read_stac_file(path: Path) -> Item | None:
    """Return the object in a STAC file, None when a JSON file is plainly no such thing.

    Raises SceneError for one that is damaged and may have been an item: what it said of the images
    beside it is lost.
    """
    text = _text_of(path)
    try:
        found = parse(text)
    except (ValueError, RecursionError) as error:
        is_text = text.strip() and not set(text) & {"\0", "\ufffd"}
        if is_text and not STAC_WORDS.search(text):
            return None
        is_deep = isinstance(error, RecursionError)
        what = "is nested too deep" if is_deep else "is no JSON" if text.strip() else "is empty"
        raise SceneError(f"{what}, and may have been a STAC item; download it again") from error
    if isinstance(found, list):
        found = {"type": "FeatureCollection", "features": found}
    if not isinstance(found, dict):
        return None
    # A collection of items need not have a version, nor a plain GeoJSON; its features tell.
    if not ("stac_version" in found or "features" in found or is_item(found)):
        return None
    if (fault := fault_of(found, 1 if "features" in found else MAX_NESTING)) is not None:
        raise SceneError(fault)
    return _readable(found)


def parse(text: str) -> Any:
    """Return what a JSON text holds; raises ValueError or RecursionError where it cannot be.

    Python's own parser takes the last of two values of one name, and gives up on a number of
    thousands of digits with all that is beside it.
    """
    return json.loads(text, object_pairs_hook=_object, parse_int=_integer)


def _object(pairs: list[tuple[str, Any]]) -> Item:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next((key for key, value in pairs if found[key] != value), None)
        if twice is not None:
            found[TWICE] = twice
    return found


def _integer(digits: str) -> float:
    return int(digits) if len(digits) <= MAX_DIGITS else float(digits)


def fault_of(found: Item, depth: int = MAX_NESTING) -> str | None:
    """Return why an object cannot be used whatever it says, None for others.

    Of a collection it is looked at to a depth of 1: its items have faults of their own.
    """
    boxes: list[Any] = [found]
    for _ in range(depth):
        for box in boxes:
            if isinstance(box, dict) and TWICE in box:
                return f"names {shown(str(box[TWICE]))} twice, with two values; correct it"
        inner = (box.values() if isinstance(box, dict) else box for box in boxes)
        boxes = [value for values in inner for value in values if isinstance(value, dict | list)]
        if not boxes:
            break
    if boxes and depth == MAX_NESTING:
        return f"is nested in more than {MAX_NESTING} levels; it is no item that anybody writes"
    n_assets = len(assets) if isinstance(assets := found.get("assets"), dict) else 0
    if n_assets > MAX_ASSETS:
        return f"has {n_assets} assets, expected at most {MAX_ASSETS}"
    return None


def shown(text: str, n_chars: int = 80) -> str:
    """Return a text of a stranger as it may be shown: short, in one line, and of a URL no secret.

    What a URL keeps before `@` and behind `?` or `#` opens what it names.
    """
    text = text[:MAX_HREF_CHARS]
    if "://" in text:
        text = re.sub(r"(://)[^/\\?#]*@", r"\1***@", text)
        text = re.sub(r"[?#].*", "?***", text, flags=re.DOTALL)
    readable = (c if c.isprintable() else repr(c)[1:-1] for c in text[:n_chars])
    return "".join(readable)


def _text_of(path: Path) -> str:
    """Return the text of a JSON file in any of the encodings that JSON may have.

    Of a file that is too large it is the beginning. Raises SceneError where it cannot be opened.
    """
    try:
        with path.open("rb") as file:
            held = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise SceneError(f"cannot be opened ({error.strerror})") from error
    text = held.decode(json.detect_encoding(held), "replace").removeprefix("\ufeff")
    if len(held) <= MAX_FILE_BYTES:
        return text
    if '"stac_version"' in text or '"assets"' in text:
        raise SceneError(f"has more than {MAX_FILE_BYTES} bytes; give the items in smaller files")
    return "{}"


def _readable(found: Item) -> Item:
    """Return an object whose texts are Unicode: a lone surrogate becomes a question mark."""
    try:
        (text := json.dumps(found, ensure_ascii=False)).encode()
    except UnicodeEncodeError:
        return dict(json.loads(text.encode(errors="replace")))
    except RecursionError as error:
        raise SceneError(f"is nested in more than {MAX_NESTING} levels") from error
    return found


def is_item(found: Item) -> bool:
    """Return whether an object is a STAC item; an API may leave out its version or its type."""
    if found.get("type", "Feature") != "Feature":
        return False
    return ("stac_version" in found and "type" in found) or bool(list(hrefs_of(found)))


def items_of(found: Item) -> list[tuple[str, Item]]:
    """Return (name, item) of a collection of items: the id, numbered where it comes again."""
    features = found.get("features")
    if found.get("type") != "FeatureCollection" or not isinstance(features, list):
        return []
    named: dict[str, Item] = {}
    for item in features:
        if isinstance(item, dict) and is_item(item):
            name = own = shown(str(item.get("id", "item")), 200)
            number = len(named)
            while name in named:
                name, number = f"{own}~{number}", number + 1
            named[name] = item
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


def hrefs_of(item: Item) -> Iterator[str]:
    """Yield the hrefs of an item's assets."""
    assets = item.get("assets")
    for asset in assets.values() if isinstance(assets, dict) else ():
        href = asset.get("href") if isinstance(asset, dict) else None
        if isinstance(href, str):
            yield href


def hrefs_in_damaged(path: Path) -> list[str]:
    """Return the hrefs in a STAC file that is no JSON any more."""
    try:
        text = _text_of(path)
    except SceneError:
        return []
    found = []
    for quoted in HREF.findall(text):
        try:
            found.append(str(json.loads(quoted)))
        except ValueError:
            continue
    return found


def is_file_href(href: str) -> bool:
    """Return whether an href names a file."""
    text = href.removeprefix("file://")
    return not re.match(r"[A-Za-z0-9+.-]+:", text) and not text.startswith("/vsi")


def file_of(href: str, item: Path) -> Path | None:
    """Return the file that an href in an item means, None where it is elsewhere or no path.

    An href is a URL reference: `%20` is a blank, unless a file is really called so.
    """
    if len(href) > MAX_HREF_CHARS or not is_file_href(href):
        return None
    text = href.removeprefix("file://")
    for name in (text, unquote(text)):
        path = Path(os.path.abspath(item.parent / name))
        try:
            path.lstat()
            return path
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValueError):
            return None  # too long, not allowed, or no path at all
    return path


def copies_of(href: str, item: Path, folders: list[str]) -> list[Path]:
    """Return the files that may be copies of what an href names: those of its name beside the item.

    Download scripts leave them in its folder, or in one of `folders` there, named by the item.
    """
    if len(href) > MAX_HREF_CHARS:
        return []
    name = unquote(re.split(r"[/\\]", href.partition("?")[0])[-1])
    if not _is_name(name):
        return []
    places = [item.parent / folder for folder in folders if _is_name(folder)] + [item.parent]
    return [Path(os.path.abspath(place / name)) for place in places if isfile(place / name)]


def _is_name(text: str) -> bool:
    """Return whether a text can be the name of a file or a folder."""
    is_short = 0 < len(text.encode(errors="replace")) <= 255
    return is_short and text not in (".", "..") and not set(text) & {"/", "\\", "\0"}


def urls_by_name(folder: Path) -> dict[str, set[str]]:
    """Return the URLs that the items in a folder's files name, by the names of their files."""
    found: dict[str, set[str]] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in JSON_SUFFIXES or not path.is_file():
            continue
        try:
            stac = read_stac_file(path) or {}
        except SceneError:
            continue
        items = [item for _, item in items_of(stac)] + ([stac] if is_item(stac) else [])
        for href in (href for item in items for href in hrefs_of(item) if "://" in href):
            url = href.partition("?")[0]
            found.setdefault(unquote(url.rpartition("/")[2]), set()).add(url)
    return found
