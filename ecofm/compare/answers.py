"""What was read of a file of comparisons: the good answers, and where and why others were not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from ecofm.compare.comparison import Comparison, UnansweredError
from ecofm.errors import ComparisonError
from ecofm.tables import count

MAX_SHOWN = 5
"""Faults of a file that are shown one by one; a table has all of them."""


class Rejection(NamedTuple):
    """A part of a file that gave no comparison."""

    place: str
    """Such as `line 7`."""
    reason: str
    """What was found, what was expected, and what to do."""
    unanswered: bool
    """Whether there is no fault in it: a question that nobody has answered yet."""


class Answers:
    """The comparisons of one file, read one place after the other."""

    def __init__(self, path: Path, kind: str) -> None:
        """Begin with nothing; `kind` is comparison, ordering, labelstudio or study."""
        self.path = path
        self.kind = kind
        self.rows: list[Comparison] = []
        self.rejected: list[Rejection] = []
        self.n_good = 0

    def take(self, place: str, read: Callable[[], Sequence[Comparison]]) -> None:
        """Keep the comparisons that `read` returns for a place, or why it raises."""
        try:
            self.rows += read()
            self.n_good += 1
        except ComparisonError as error:
            self.reject(place, error)

    def reject(self, place: str, error: ComparisonError) -> None:
        """Leave a place out."""
        is_unanswered = isinstance(error, UnansweredError)
        self.rejected.append(Rejection(place, str(error), is_unanswered))

    @property
    def faults(self) -> list[Rejection]:
        """What was rejected for a fault."""
        return [found for found in self.rejected if not found.unanswered]

    def settle(self) -> Answers:
        """Return the same; raises ComparisonError where no answer, or less than half, is good.

        A file in which most places are at fault is of another kind than it was taken for.
        """
        faults = self.faults
        if len(faults) > self.n_good:
            raise ComparisonError(f"{self._tell_fault()} Nothing of the file was read.")
        if not self.n_good:
            found = count(len(self.rejected), "question") if self.rejected else "a header"
            raise ComparisonError(
                f"{self.path} has {found} and no answers; give a file with answers."
            )
        return self

    def require_whole(self) -> Answers:
        """Return the same; raises ComparisonError where anything is at fault."""
        if self.faults:
            raise ComparisonError(
                f"{self._tell_fault()} Correct them, or use `ecofm compare import`, which takes "
                "the good ones and names the others."
            )
        return self

    def _tell_fault(self) -> str:
        faults = self.faults
        told = f"{self.path}, {faults[0].place}: {faults[0].reason}"
        n_all = len(faults) + self.n_good
        return told if n_all == 1 else f"{told} {len(faults)} of {n_all} answers are at fault."
