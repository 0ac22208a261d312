"""Catalogs: the STAC documents on the disk that one of them links to, each read once."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ecofm.tiles.items import Item, file_of, is_catalog, is_file_href, links_of
from ecofm.tiles.limits import MAX_CATALOG_BYTES, MAX_CATALOG_DEPTH, MAX_LINKS

NARROWER = "give the catalogs that are linked one at a time, with --append"
TOO_DEEP = "is more than {} links away from {}, and is not read; give it by itself"
TOO_MANY = f"has links beyond the first {{}} of this run, which are not read; {NARROWER}"
TOO_LONG = f"is linked after documents of {{}} MiB, and is not read; {NARROWER}"


@dataclass(slots=True)
class Walked:
    """What was read of catalogs: over all that are given, for one may link to another."""

    documents: set[str] = field(default_factory=set)
    """Their paths, links resolved."""
    n_links: int = 0
    n_bytes: int = 0

    def is_new(self, path: Path) -> bool:
        """Return whether a document comes for the first time, and count it."""
        real = os.path.realpath(path)
        if real in self.documents:
            return False
        self.documents.add(real)
        self.n_bytes += path.stat().st_size
        return True


@dataclass(frozen=True, slots=True)
class Reader:
    """How documents are read, and what is said of those that are not."""

    read: Callable[[Path], Item]
    may_read: Callable[[Path], bool]
    reject: Callable[[Path, str | None, str], None]
    """Called with the document, its link where it is about one, and the reason."""


def documents(first: Path, reader: Reader, walked: Walked) -> Iterator[tuple[Path, Item]]:
    """Yield a document and what its links lead to, the nearest first.

    What is not read is told to the reader: a link that leads nowhere, and whatever is beyond the
    limits.
    """
    waiting = deque([(first, 0)])
    while waiting:
        path, depth = waiting.popleft()
        if not walked.is_new(path):
            continue
        if depth > MAX_CATALOG_DEPTH:
            reader.reject(path, None, TOO_DEEP.format(MAX_CATALOG_DEPTH, first.name))
            continue
        if walked.n_bytes > MAX_CATALOG_BYTES:
            reader.reject(path, None, TOO_LONG.format(MAX_CATALOG_BYTES >> 20))
            continue
        found = reader.read(path)
        yield path, found
        if is_catalog(found):
            waiting += ((target, depth + 1) for target in _targets(path, found, reader, walked))


def _targets(path: Path, found: Item, reader: Reader, walked: Walked) -> Iterator[Path]:
    """Yield the files that a catalog links to, each once; the other links are rejected."""
    for href in dict.fromkeys(links_of(found)):
        if walked.n_links >= MAX_LINKS:
            reader.reject(path, None, TOO_MANY.format(MAX_LINKS))
            return
        walked.n_links += 1
        target = file_of(href, path)
        if "://" in href and not is_file_href(href):
            reason = "is a URL; give the URL of a STAC API with --remote, or download it"
        elif target is None:
            reason = "is no path of a file"
        elif not reader.may_read(target):
            reason = "is outside the given folder"
        elif not target.is_file():
            reason = "does not exist" if not target.exists() else "is no file"
        else:
            yield target
            continue
        reader.reject(path, href, reason)
