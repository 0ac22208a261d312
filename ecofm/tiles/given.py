"""What is given: files and folders, sorted into folders to search."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

SUFFIXES = {".tif", ".tiff", ".jp2", ".png", ".jpg", ".jpeg"}
PRODUCT_FILES = ("MTD_MSIL2A.xml", "MTD_MSIL1C.xml")


def absolute(path: Path) -> Path:
    """Return a path without `..`, its links as they are: their names are the user's words."""
    return Path(os.path.abspath(path))


def is_inside(path: Path, root: Path) -> bool:
    """Return whether a path, its links followed, lies in a folder."""
    inside, top = os.path.realpath(path), os.path.realpath(root)
    return inside == top or inside.startswith(os.path.join(top, ""))


def real(path: Path) -> Path:
    """Return a path with its links followed, as far as they lead: one in a circle leads nowhere."""
    return Path(os.path.realpath(path))


def together(paths: Sequence[Path]) -> list[tuple[Path, tuple[Path, ...]]]:
    """Return the folders to search, each with what is given of it: nothing where all of it is.

    Files of one folder may be bands of one scene; what lies in a given folder is found there.
    """
    whole = {absolute(path) for path in paths if root_of(path) == path}
    searched = {folder.resolve() for folder in whole}
    parts: dict[Path, dict[Path, None]] = {}
    for path in [absolute(path) for path in paths if root_of(path) != path]:
        is_image = path.suffix.lower() in SUFFIXES
        if not (is_image and searched.intersection(path.resolve().parents)):
            parts.setdefault(path.parent, {})[path] = None
    return [*((root, ()) for root in sorted(whole)), *((r, tuple(f)) for r, f in parts.items())]


def labels_of(paths: Sequence[Path]) -> dict[Path, str]:
    """Return the given folders, each with what the names in it begin with.

    It is as much of their ends as tells them apart, and nothing where there is one.
    """
    roots = list(dict.fromkeys(absolute(root_of(path)) for path in paths))
    if len(roots) == 1:
        return {roots[0]: ""}
    n_parts = 1
    while len({root.parts[-n_parts:] for root in roots}) < len(roots):
        n_parts += 1
    return {root: Path(*root.parts[-n_parts:]).as_posix().strip("/") + "/" for root in roots}


def root_of(path: Path) -> Path:
    """Return the folder out of which nothing is read: a given folder, or that of a given file."""
    return path if path.is_dir() and not is_product(path) else path.parent


def is_product(folder: Path) -> bool:
    """Return whether a folder is a SAFE folder, whatever it is called."""
    # Also where it is no file: then the product is damaged, and is no folder of band files.
    return any(os.path.lexists(folder / name) for name in PRODUCT_FILES)


def walk(path: Path, follow_links: bool) -> Iterator[tuple[Path, list[str], list[str]]]:
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
