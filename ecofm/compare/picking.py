"""Which pair to ask next: an item that was compared least, against one drawn at random."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from threading import Lock

import numpy as np

N_TRIES = 50
"""Least-compared items that are tried before an annotator is asked for a pair again."""


class Picker:
    """Chooses pairs for all annotators; counts live in memory, so that a choice is quick."""

    def __init__(
        self,
        items: Sequence[str],
        counts: Mapping[str, int],
        partners: Callable[[str, str], set[str]],
        seed: int | None = None,
    ) -> None:
        """Take the items, and how often each was compared.

        `partners(annotator, item)` gives the items that the annotator compared with `item`.
        """
        self.items = list(items)
        self._place = {item: place for place, item in enumerate(self.items)}
        self._counts = np.array([counts.get(item, 0) for item in self.items], dtype=np.int64)
        self._partners = partners
        self._random = np.random.default_rng(seed)
        self._lock = Lock()

    def __contains__(self, item: str) -> bool:
        """Return whether there is such an item."""
        return item in self._place

    def place(self, item: str) -> int:
        """Return the item's index in `items`."""
        return self._place[item]

    def count(self, left: str, right: str, by: int = 1) -> None:
        """Add a comparison of two items to the counts, or take it away with -1."""
        with self._lock:
            self._counts[[self._place[left], self._place[right]]] += by

    def pick(self, annotator: str) -> tuple[str, str]:
        """Return the items to show at the left and at the right, sides drawn at random.

        The first is one of those compared least. The second is drawn from all that this annotator
        has not compared with it, not from the least compared: pairing those would split a large
        archive into couples that nothing connects. Only when N_TRIES items have no new partner
        is a pair repeated.
        """
        with self._lock:
            order = self._order_by_count()
            for first in order:
                taken = {self._place[name] for name in self._known(annotator, int(first))}
                if len(taken) + 1 < len(self.items):
                    return self._arrange(int(first), taken)
            return self._arrange(int(order[0]), set())

    def _order_by_count(self) -> list[int]:
        """Return up to N_TRIES items, least compared first, equal ones in random order."""
        n_tries = min(N_TRIES, len(self.items))
        keys = self._counts + self._random.random(len(self.items))
        least = np.argpartition(keys, n_tries - 1)[:n_tries]
        return [int(place) for place in least[np.argsort(keys[least])]]

    def _known(self, annotator: str, place: int) -> set[str]:
        return {name for name in self._partners(annotator, self.items[place]) if name in self}

    def _arrange(self, first: int, taken: set[int]) -> tuple[str, str]:
        """Return the item with a partner that is not taken, in random order."""
        while True:
            second = int(self._random.integers(len(self.items)))
            if second != first and second not in taken:
                break
        pair = (self.items[first], self.items[second])
        return pair if self._random.random() < 0.5 else pair[::-1]
