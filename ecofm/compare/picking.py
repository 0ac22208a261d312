"""Which pair to ask next: the one whose answer is expected to tell most, and now and then another.

A share of the questions is drawn at random, for honest evaluation: informed pairs are closer than
pairs in general. Another share repeats what the same annotator answered before, half of it with
the sides swapped, to measure consistency.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Literal, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from ecofm.compare.belief import OUTCOME_ROW, Belief, BeliefConfig, make_prior
from ecofm.compare.comparison import Comparison
from ecofm.compare.davidson import Floats, Ints
from ecofm.errors import UsageError
from ecofm.types import require_seed

Asked = Literal["informed", "random", "repeat", "swapped"]
Pair = tuple[int, int]
T = TypeVar("T")

MAX_PANEL = 500
"""Items that questions are chosen among: a choice looks at all pairs of them, 125,000 at most."""
N_EXACT = 2000
"""Pairs whose information is computed in full, out of those that look best at a glance."""
NEARLY_BEST = 0.9
"""One of the pairs is drawn that tell at least this share of what the best would."""
MIN_GAP = 8
"""Answers between a question and its repetition, so that nobody answers from memory."""
N_TRIES = 50
"""Random pairs tried before an annotator is asked for a pair again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PickConfig:
    """How questions are chosen."""

    random_share: float = 0.1
    """Share of questions drawn at random from all pairs, for honest evaluation."""
    repeat_share: float = 0.06
    """Share of questions that repeat an earlier one of the same annotator, half of them swapped."""
    seed: int | None = None
    """Seed of the choices; None draws others at each start."""

    def __post_init__(self) -> None:
        """Check the values; raises ValueError."""
        if self.seed is not None:
            require_seed(self.seed)
        shares = (self.random_share, self.repeat_share)
        if min(shares) < 0 or sum(shares) > 1:
            raise UsageError(
                f"random_share and repeat_share are {shares}, expected shares of at most 1 together"
            )


class Panel(NamedTuple):
    """The items that questions are chosen among: all of them, or some that stand for the rest."""

    items: Ints
    """Indices of the items (n_panel,)."""
    sizes: Floats
    """How many tiles each stands for (n_panel,)."""
    embeddings: npt.NDArray[np.floating] | None
    """Embeddings of the panel's items (n_panel, dim), None where there are none."""


class Question(NamedTuple):
    """Two different items, and why they are asked for."""

    left: int
    """Index of the item to show at the left."""
    right: int
    """Index of the item to show at the right."""
    asked: Asked
    """`informed`, `random`, `repeat`, or `swapped`: a repetition with the sides exchanged."""


class Picker:
    """Chooses questions for all annotators; everything lives in memory, so that a choice is quick.

    Safe to use from several threads.
    """

    def __init__(
        self,
        items: Sequence[str],
        asked: Iterable[Comparison] = (),
        others: Iterable[Comparison] = (),
        config: PickConfig | None = None,
        panel: Panel | None = None,
        belief: BeliefConfig | None = None,
    ) -> None:
        """Take the items, the answers to questions before, and what else is known, oldest first."""
        self.config = config or PickConfig()
        self.items = list(items)
        self._place = {item: place for place, item in enumerate(self.items)}
        self._random = np.random.default_rng(self.config.seed)
        self._lock = Lock()
        self._answered: dict[str, list[Pair]] = {}
        self._ordered: dict[str, list[Pair]] = {}
        self._waiting: dict[str, Question] = {}
        self._next: dict[str, Question] = {}
        answers, more = (
            [vote for vote in votes if vote.left in self and vote.right in self]
            for votes in (asked, others)
        )
        panel = panel or choose_panel(len(self.items), count_mentions(self.items, answers + more))
        self._panel = panel.items
        self._seat = {int(item): seat for seat, item in enumerate(panel.items)}
        self._first, self._second = np.triu_indices(len(panel.items), 1)
        size = np.sqrt(panel.sizes / panel.sizes.mean())
        self._weight = (size[self._first] + size[self._second]) / 2
        config_ = belief or BeliefConfig()
        self._belief = Belief(make_prior(len(panel.items), config_, panel.embeddings), config_)
        self._votes: list[tuple[int, int, int, str]] = []
        self._n_fitted = -1
        for vote in more:
            self._keep(vote, asked=False)
        for vote in answers:
            self._keep(vote, asked=True)

    def __contains__(self, item: str) -> bool:
        """Return whether there is such an item."""
        return item in self._place

    def place(self, item: str) -> int:
        """Return the item's index in `items`."""
        return self._place[item]

    def add(self, vote: Comparison, *, asked: bool = True) -> None:
        """Learn from a vote that was stored; what was not asked for is never repeated."""
        with self._lock:
            self._move_on(vote.annotator)
            seats = self._keep(vote, asked=asked)
            if seats is not None and self._n_fitted >= 0:
                self._belief.observe(*seats, vote.outcome, vote.annotator)

    def _keep(self, vote: Comparison, *, asked: bool) -> Pair | None:
        """Keep a vote; return the seats of its items when the belief learns from it."""
        left, right = self._place[vote.left], self._place[vote.right]
        if asked:
            self._answered.setdefault(vote.annotator, []).append((left, right))
        else:
            self._ordered.setdefault(vote.annotator, []).append((left, right))
        if vote.outcome not in OUTCOME_ROW or left not in self._seat or right not in self._seat:
            return None
        seats = self._seat[left], self._seat[right]
        self._votes.append((*seats, OUTCOME_ROW[vote.outcome], vote.annotator))
        return seats

    def remove(self, vote: Comparison) -> None:
        """Forget a vote that was taken back."""
        with self._lock:
            left, right = self._place[vote.left], self._place[vote.right]
            self._move_on(vote.annotator)
            for kept in (self._answered, self._ordered):
                drop_last(kept.get(vote.annotator, []), (left, right))
            if vote.outcome in OUTCOME_ROW and left in self._seat and right in self._seat:
                seats = self._seat[left], self._seat[right]
                drop_last(self._votes, (*seats, OUTCOME_ROW[vote.outcome], vote.annotator))
                self._n_fitted = -1

    def pick(self, annotator: str) -> Question:
        """Return the next question; the same again until its answer is added.

        No pair is asked twice of an annotator except to measure consistency, or when they have
        judged all pairs.
        """
        with self._lock:
            if annotator not in self._waiting:
                self._waiting[annotator] = self._choose(annotator)
            return self._waiting[annotator]

    def peek(self, annotator: str) -> Question:
        """Return what is asked after the waiting question, so that the page can load it early."""
        with self._lock:
            if annotator not in self._next:
                self._next[annotator] = self._choose(annotator, skip=self._waiting.get(annotator))
            return self._next[annotator]

    def _move_on(self, annotator: str) -> None:
        """Let the next question wait for its answer."""
        self._waiting.pop(annotator, None)
        if annotator in self._next:
            self._waiting[annotator] = self._next.pop(annotator)

    def _choose(self, annotator: str, skip: Question | None = None) -> Question:
        answered = self._answered.get(annotator, [])
        draw = self._random.random()
        if draw < self.config.repeat_share and len(answered) > MIN_GAP:
            return self._repeat(answered)
        judged = {frozenset(pair) for pair in answered + self._ordered.get(annotator, [])}
        if skip is not None:
            judged.add(frozenset(skip[:2]))
        if draw >= self.config.repeat_share + self.config.random_share:
            pair = self._inform(annotator, judged)
            if pair is not None:
                return Question(*self._shuffle(pair), "informed")
        for _ in range(N_TRIES):
            first, second = self._draw()
            if frozenset((first, second)) not in judged:
                break
        return Question(first, second, "random")

    def _draw(self) -> Pair:
        first = int(self._random.integers(len(self.items)))
        second = int(self._random.integers(len(self.items) - 1))
        return first, second + (second >= first)

    def _repeat(self, answered: list[Pair]) -> Question:
        left, right = answered[int(self._random.integers(len(answered) - MIN_GAP))]
        if self._random.random() < 0.5:
            return Question(left, right, "repeat")
        return Question(right, left, "swapped")

    def _inform(self, annotator: str, judged: set[frozenset[int]]) -> Pair | None:
        """Return a pair whose answer by this annotator tells nearly the most; None: all judged."""
        self._refit()
        promise = self._belief.guess_information(self._first, self._second) * self._weight
        for pair in judged:
            seats = sorted(self._seat.get(item, -1) for item in pair)
            if seats[0] >= 0:
                promise[self._row(seats[0], seats[1])] = -1.0
        n_exact = min(N_EXACT, len(promise))
        best = np.argpartition(-promise, n_exact - 1)[:n_exact]
        best = best[promise[best] >= 0]
        if not len(best):
            return None
        trust = self._belief.trust(annotator)
        told = self._belief.information(self._first[best], self._second[best], trust)
        told *= self._weight[best]
        row = int(self._random.choice(best[told >= NEARLY_BEST * told.max()]))
        return int(self._panel[self._first[row]]), int(self._panel[self._second[row]])

    def _row(self, first: int, second: int) -> int:
        """Return where the pair of seats stands in `triu_indices`."""
        n_seats = len(self._panel)
        return first * n_seats - first * (first + 1) // 2 + second - first - 1

    def _refit(self) -> None:
        """Fit the belief to all votes when enough came in since the last fit."""
        n_votes = len(self._votes)
        if self._n_fitted >= 0 and n_votes - self._n_fitted < max(10, n_votes // 20):
            return
        self._n_fitted = n_votes
        if not n_votes:
            return
        left, right, outcome = np.array([vote[:3] for vote in self._votes], dtype=np.int64).T
        names, annotator = np.unique([vote[3] for vote in self._votes], return_inverse=True)
        self._belief.fit(left, right, outcome, annotator, names.tolist())

    def _shuffle(self, pair: Pair) -> Pair:
        return pair if self._random.random() < 0.5 else pair[::-1]


def drop_last(values: list[T], value: T) -> None:
    """Remove the last occurrence of a value, if there is one."""
    for place in range(len(values) - 1, -1, -1):
        if values[place] == value:
            del values[place]
            return


def count_mentions(items: Sequence[str], votes: Iterable[Comparison]) -> Ints:
    """Return how often votes name each item (n_items,); other names do not count."""
    place = {item: number for number, item in enumerate(items)}
    named = [place[item] for vote in votes for item in (vote.left, vote.right) if item in place]
    return np.bincount(np.array(named, dtype=np.int64), minlength=len(items))


def choose_panel(n_items: int, counts: Ints, sizes: Floats | None = None) -> Panel:
    """Return all items, or of more than 500 those compared most, filled up at random.

    The filling is the same at each start, so that votes add up on the same items.
    """
    sizes = np.ones(n_items) if sizes is None else sizes
    if n_items <= MAX_PANEL:
        return Panel(np.arange(n_items), sizes, None)
    keys = counts + np.random.default_rng(0).random(n_items)
    chosen = np.sort(np.argpartition(-keys, MAX_PANEL - 1)[:MAX_PANEL])
    return Panel(chosen, sizes[chosen], None)
