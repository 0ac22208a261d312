"""The items that were compared, and the embedded tiles that are their members."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from ecofm.artifact import read_manifest
from ecofm.compare.orderings import normalize_item
from ecofm.errors import ComparisonError
from ecofm.rank.losses import Floats

OUTCOMES = ("left", "right", "tie")
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ItemPairs:
    """Comparisons summed by pair of items, and the members that the items stand for."""

    items: list[str]
    """Names, sorted."""
    members: list[Indices]
    """Rows of the embeddings, for each item."""
    left: Indices
    """Item number of each pair's left side, shape (pair,)."""
    right: Indices
    """Item number of each pair's right side, shape (pair,)."""
    counts: Floats
    """How often left, right and tie were said, by annotator: shape (annotator, pair, 3)."""


def read_members(path: Path) -> pd.DataFrame:
    """Return tile_id and item from a clusters artifact, a CSV or a Parquet file."""
    is_clusters = path.is_dir()
    if is_clusters:
        read_manifest(path, "clusters")
        path = path / "clusters.parquet"
    if not path.is_file():
        raise ComparisonError(f"{path} does not exist; give --members with columns tile_id, item.")
    try:
        is_parquet = path.suffix == ".parquet"
        table = pd.read_parquet(path) if is_parquet else pd.read_csv(path, dtype=str)
    except (ValueError, OSError) as error:
        command = "make it again with `ecofm cluster`" if is_clusters else "write it again"
        raise ComparisonError(f"{path} cannot be read as a table ({error}); {command}.") from error
    if not {"tile_id", "item"} <= set(table.columns):
        raise ComparisonError(
            f"{path} has columns {', '.join(map(str, table.columns))}; expected tile_id, item."
        )
    found = table[["tile_id", "item"]]
    nameless = found.isna().any(axis=1)
    if nameless.any():
        raise ComparisonError(
            f"{path} lacks a tile_id or item in row {int(nameless.argmax()) + 1}; fill it in."
        )
    return found.astype(str)


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
    summed = ItemPairs(items, found, pairs // len(items), pairs % len(items), counts)
    _require_differences(summed)
    return summed


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
        known = members[members["tile_id"].isin(rows.index)]
        for item, tile_ids in known.groupby(known["item"].map(normalize_item))["tile_id"]:
            groups[str(item)] = rows[tile_ids.to_numpy()].to_numpy(np.int64)
    unknown = [item for item in items if item not in groups and item not in rows.index]
    if unknown:
        raise ComparisonError(
            f"{len(unknown)} of {len(items)} items are neither clusters nor tiles that were "
            f"embedded, first {unknown[0]!r}; check --members (or --clusters) and --embeddings."
        )
    return [
        groups[item] if item in groups else np.atleast_1d(np.asarray(rows[item], dtype=np.int64))
        for item in items
    ]


def mean_members(
    features: Floats, pairs: ItemPairs, random: np.random.Generator | None = None
) -> Floats:
    """Return each item's mean feature over its members: (item, component) of (row, component).

    With `random`, the mean of as many members drawn with replacement.
    """
    sizes = np.array([len(members) for members in pairs.members])
    starts = np.cumsum(sizes) - sizes
    rows = np.concatenate(pairs.members)
    if random is not None:
        owner = np.repeat(np.arange(len(sizes)), sizes)
        drawn = np.floor(random.random(len(rows)) * sizes[owner]).astype(int)
        rows = rows[starts[owner] + drawn]
    means: Floats = np.add.reduceat(features[rows], starts) / sizes[:, None]
    return means
