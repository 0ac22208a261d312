"""Kept answers: what was read a moment ago is not read again, for many items share a raster."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Generic, TypeVar

from ecofm.errors import SceneError

Found = TypeVar("Found")


class Kept(Generic[Found]):
    """The last few answers by what was asked; that something cannot be read is an answer, too."""

    def __init__(self, size: int) -> None:
        """Start with none; at most `size` are kept."""
        self._size = size
        self._found: OrderedDict[Hashable, Found | SceneError] = OrderedDict()
        self._lock = Lock()

    def ask(self, key: Hashable, read: Callable[[], Found]) -> Found:
        """Return what is kept of a key, else what `read` returns; raises its SceneError."""
        with self._lock:
            found = self._found.get(key)
            if found is not None:
                self._found.move_to_end(key)
        if found is None:
            try:
                found = read()
            except SceneError as error:
                found = error
            with self._lock:
                self._found[key] = found
                if len(self._found) > self._size:
                    self._found.popitem(last=False)
        if isinstance(found, SceneError):
            raise SceneError(*found.args)
        return found
