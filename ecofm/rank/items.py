"""The items that were compared, and the embedded tiles that are their members."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from scipy.sparse import csr_array
from scipy.stats import rankdata

from ecofm.compare.consensus import ConsensusConfig
from ecofm.compare.crowd import fit_crowd
from ecofm.compare.davidson import count_voices
from ecofm.compare.orderings import normalize_item
from ecofm.errors import ComparisonError
from ecofm.rank.losses import Answers, Floats, Ordering
from ecofm.tables import canonical

OUTCOMES = ("left", "right", "tie")
CHUNK_ROWS = 65_536
MIN_WEIGHT = 0.01
"""An annotator's answers are never quite nothing, since an item may have no other."""
MAX_SAMPLES, MIN_SAMPLED, MAX_SAMPLED = 200_000, 2, 32
Indices = npt.NDArray[np.int64]
Matrix = Floats | npt.NDArray[np.float32] | npt.NDArray[np.float16]


@dataclass(frozen=True, slots=True)
class ItemPairs:
    """Comparisons summed by pair of items, and the members that the items stand for."""

    items: list[str]
    """Names, sorted."""
    members: list[Indices]
    """Rows of the embeddings, for each item."""
    places: Indices
    """A number for each item: tiles of one cell share theirs, shape (item,)."""
    left: Indices
    """Item number of each pair's left side, shape (pair,)."""
    right: Indices
    """Item number of each pair's right side, shape (pair,)."""
    counts: Floats
    """How often left, right and tie were said, by annotator: shape (annotator, pair, 3)."""
    weight: Floats
    """How much each annotator's answers count, shape (annotator,): see `weigh_annotators`."""

    @property
    def summed(self) -> Floats:
        """The weighed counts of all annotators, shape (pair, 3)."""
        found: Floats = np.tensordot(self.weight, self.counts, axes=1)
        return found


def pair_items(
    comparisons: pd.DataFrame, tile_ids: pd.Series, members: pd.DataFrame | None
) -> ItemPairs:
    """Sum comparisons by pair and find each item's members among the embedded tiles.

    An item is looked for among `members` first, then among the tile ids themselves. Raises
    ComparisonError for unknown items, items without embedded members, or when nothing but
    `skip`, ties or an even contradiction was said.
    """
    fitted = comparisons[comparisons["outcome"] != "skip"]
    if fitted.empty:
        raise ComparisonError("no comparison says left, right or tie; nothing can be learned.")
    rows = pd.Series(np.arange(len(tile_ids)), index=tile_ids.to_numpy())
    items = sorted({*fitted["left"], *fitted["right"]})
    found = _find_members(items, rows, members)
    number = {item: i for i, item in enumerate(items)}
    annotators, annotator = np.unique(fitted["annotator"].to_numpy(str), return_inverse=True)
    left = fitted["left"].map(number).to_numpy(np.int64)
    right = fitted["right"].map(number).to_numpy(np.int64)
    outcome = fitted["outcome"].map(OUTCOMES.index).to_numpy(np.int64)
    # Each pair is kept in one order; a comparison seen from the other side is turned round.
    turned = left > right
    outcome = np.where(turned & (outcome < 2), 1 - outcome, outcome)
    low, high = np.minimum(left, right), np.maximum(left, right)
    pairs, pair = np.unique(low * len(items) + high, return_inverse=True)
    counts = np.zeros((len(annotators), len(pairs), 3))
    np.add.at(counts, (annotator, pair, outcome), 1)
    # A chip's name says nothing of its place, and a cluster has many.
    embedded = np.isin(items, rows.index.to_numpy(str))
    names = [
        item.rsplit("@", 1)[0] if known else item
        for item, known in zip(items, embedded, strict=True)
    ]
    places = pd.factorize(np.array(names, dtype=object))[0].astype(np.int64)
    sides = pairs // len(items), pairs % len(items)
    alike = ItemPairs(items, found, places, *sides, counts, np.ones(len(annotators)))
    _require_differences(alike)
    return replace(alike, weight=weigh_annotators(fitted))


def weigh_annotators(fitted: pd.DataFrame) -> Floats:
    """Return how much each annotator's answers count, in order of their names, (annotator,).

    It is (2 r - 1)^2 of the consensus's reliability r: next to 0 for who guesses or answers upside
    down, 1 for who agrees with what all say. One annotator alone has nobody to disagree with.
    """
    if fitted["annotator"].nunique() == 1:
        return np.ones(1)
    crowd = fit_crowd(count_voices(fitted), ConsensusConfig().prior_std)
    weights: Floats = np.maximum(2 * crowd.reliability - 1, 0) ** 2
    return np.maximum(weights, MIN_WEIGHT)


def _require_differences(pairs: ItemPairs) -> None:
    """Raise ComparisonError where the likelihood is largest with all items equal."""
    wins = pairs.counts.sum(axis=0)
    if not wins[:, :2].any():
        raise ComparisonError(
            "every comparison is a tie; nothing tells the items apart. Ask for more, or for items "
            "that differ more."
        )
    net = wins[:, 0] - wins[:, 1]
    n_items = len(pairs.items)
    balance = np.bincount(pairs.left, net, n_items) - np.bincount(pairs.right, net, n_items)
    if not balance.any():
        raise ComparisonError(
            f"the {int(wins.sum())} comparisons contradict each other: every item won as often as "
            "it lost. Look at them with `ecofm compare consensus`, and ask for more."
        )


def _find_members(items: list[str], rows: pd.Series, members: pd.DataFrame | None) -> list[Indices]:
    groups: dict[str, Indices] = {}
    if members is not None:
        found = rows.reindex(members["tile_id"]).to_numpy()
        embedded = ~np.isnan(found)
        codes, names = pd.factorize(members["item"][embedded])
        named, number = np.unique([normalize_item(name) for name in names], return_inverse=True)
        owner = number[codes] if len(codes) else codes
        order = np.argsort(owner, kind="stable")
        ends = np.cumsum(np.bincount(owner, minlength=len(named)))
        parts = np.split(found[embedded].astype(np.int64)[order], ends[:-1])
        groups = dict(zip(named.tolist(), parts, strict=True)) if len(named) else {}
    tiles = _find_tiles([item for item in items if item not in groups], rows)
    own = tiles.reindex(items).to_numpy()
    unknown = [
        item for item, row in zip(items, own, strict=True) if item not in groups and np.isnan(row)
    ]
    if unknown:
        raise ComparisonError(
            f"{len(unknown)} of {len(items)} items are neither clusters nor tiles that were "
            f"embedded, first {unknown[0]!r}; check --members (or --clusters) and --embeddings."
        )
    own = np.nan_to_num(own).astype(np.int64)
    return [groups.get(item, own[number : number + 1]) for number, item in enumerate(items)]


def _find_tiles(items: list[str], rows: pd.Series) -> pd.Series:
    """Return the row of each item that is a tile, by its name in either Unicode form."""
    found = rows.reindex(items)
    if found.isna().any():
        seen = rows.set_axis([canonical(str(name)) for name in rows.index])
        found = found.fillna(seen[~seen.index.duplicated()].reindex(items))
    return found


@dataclass(frozen=True, slots=True)
class ItemFeatures:
    """Where items stand among features, whatever the number of their members."""

    mean: Floats
    """Mean over the members, shape (item, component)."""
    several: Indices
    """Items with more than one member, shape (several,)."""
    drawn: Floats
    """Means over members drawn with replacement, shape (draw, several, component)."""
    sample: Floats
    """A few members each, drawn with replacement, shape (several, member, component)."""

    def draw(self, number: int) -> Floats:
        """Return `mean` with a draw in the place of items that have several members."""
        means = self.mean.copy()
        means[self.several] = self.drawn[number]
        return means


def number_cells(index: pd.DataFrame) -> Indices:
    """Return the cell's number of each tile; each chip is one, for its name tells no place."""
    names = index["cell_id"].where(index["period"] != "none", index["tile_id"])
    return np.asarray(pd.factorize(names)[0], dtype=np.int64)


def choose_tiles(index: pd.DataFrame, seed: int, most: int = 20_000) -> tuple[Indices, Indices]:
    """Return the rows of up to `most` tiles, whole cells at a time, and their cells."""
    cells = number_cells(index)
    order = np.random.default_rng(seed).permutation(cells.max() + 1)[cells]
    chosen = np.sort(np.argsort(order, kind="stable")[:most])
    return chosen, cells[chosen]


def fold_items(places: Indices, n_folds: int, random: np.random.Generator) -> Indices:
    """Return the fold of each item, (item,): that of its place."""
    n_places = int(places.max()) + 1
    folds: Indices = random.permutation(n_places) % min(n_folds, n_places)
    return folds[places]


def hold_out(
    pairs: ItemPairs, n_folds: int, random: np.random.Generator
) -> list[npt.NDArray[np.bool_]]:
    """Return for each fold which pairs it holds out, (pair,); a place is held out as a whole.

    Folds that hold out no pair, or every pair, are left out.
    """
    fold_of_item = fold_items(pairs.places, n_folds, random)
    sides = fold_of_item[pairs.left], fold_of_item[pairs.right]
    masks = [(sides[0] == fold) | (sides[1] == fold) for fold in range(int(fold_of_item.max()) + 1)]
    return [held for held in masks if held.any() and not held.all()]


def gather_features(
    matrix: Matrix,
    features: Callable[[Matrix], Floats],
    members: Sequence[Indices],
    n_draws: int,
    random: np.random.Generator,
) -> ItemFeatures:
    """Read each member's embedding once, a chunk of rows at a time.

    Memory follows the number of items, not of tiles: a draw with replacement is a Poisson number
    of copies of each member (Chamandy et al. 2012, *Estimating uncertainty for massive data
    streams*).
    """
    sizes = np.array([len(rows) for rows in members])
    several = np.flatnonzero(sizes > 1)
    n_sampled = int(np.clip(MAX_SAMPLES // max(len(several), 1), MIN_SAMPLED, MAX_SAMPLED))
    picked = [
        members[item][random.integers(0, sizes[item], n_sampled)] for item in several.tolist()
    ]
    rows = np.concatenate([*members])
    owner = np.repeat(np.arange(len(members)), sizes)
    order = np.argsort(rows, kind="stable")
    rows, owner = rows[order], owner[order]
    place = np.full(len(members), -1)
    place[several] = np.arange(len(several))
    sums: Floats | None = None
    for start in range(0, len(rows), CHUNK_ROWS):
        part = slice(start, start + CHUNK_ROWS)
        found = features(matrix[rows[part]])
        if sums is None:
            sums = np.zeros((len(members), found.shape[1]))
            drawn = np.zeros((n_draws, len(several), found.shape[1]))
            weight = np.zeros((n_draws, len(several)))
        sums += _add_up(owner[part], np.ones(len(found)), found, len(members))
        mine = place[owner[part]] >= 0
        for draw in range(n_draws if mine.any() else 0):
            copies = random.poisson(1.0, int(mine.sum())).astype(np.float64)
            at = place[owner[part][mine]]
            drawn[draw] += _add_up(at, copies, found[mine], len(several))
            weight[draw] += np.bincount(at, copies, len(several))
    assert sums is not None
    mean = sums / sizes[:, None]
    # Two members are both left out one time in seven; the mean stands in for an empty draw.
    empty = weight == 0
    drawn = np.where(empty[..., None], mean[several], drawn / np.where(empty, 1, weight)[..., None])
    sampled = np.unique(np.concatenate(picked)) if picked else np.empty(0, np.int64)
    taken = features(matrix[sampled]) if picked else np.empty((0, mean.shape[1]))
    shape = (len(several), n_sampled, mean.shape[1])
    sample = taken[np.searchsorted(sampled, np.array(picked, dtype=np.int64).ravel())]
    return ItemFeatures(mean, several, drawn, sample.reshape(shape))


def _add_up(owner: Indices, weight: Floats, values: Floats, n: int) -> Floats:
    """Return the weighted sums of rows by owner, shape (n, component)."""
    chooser = csr_array((weight, (owner, np.arange(len(owner)))), shape=(n, len(owner)))
    found: Floats = chooser @ values
    return found


def to_answers(pairs: ItemPairs, weight: Floats) -> Answers:
    """Sum comparisons over annotators, each with a weight, shape (annotator,).

    An annotator who compared each of some items with every other has ordered them; three items
    at least make an ordering.
    """
    single = np.zeros_like(pairs.counts[0])
    orderings = []
    for counts, own in zip(pairs.counts, weight, strict=True):
        said = counts.sum(axis=1) > 0
        items = np.union1d(pairs.left[said], pairs.right[said])
        n = len(items)
        if n > 2 and said.sum() == n * (n - 1) // 2:
            net = (counts[:, 0] - counts[:, 1])[said]
            place = [np.searchsorted(items, side[said]) for side in (pairs.left, pairs.right)]
            lead = np.bincount(place[0], net, n) - np.bincount(place[1], net, n)
            if own > 0:
                orderings.append(
                    Ordering(
                        torch.from_numpy(items),
                        torch.from_numpy(rankdata(lead)),
                        float(own * counts.sum() / said.sum()),
                    )
                )
        else:
            single += own * counts
    summed = np.tensordot(weight, pairs.counts, axes=1)
    return Answers(
        torch.from_numpy(pairs.left),
        torch.from_numpy(pairs.right),
        torch.from_numpy(summed),
        torch.from_numpy(single),
        tuple(orderings),
    )
