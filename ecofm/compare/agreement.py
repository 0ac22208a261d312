"""Agreement: how alike annotators order the pairs that both judged."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import coo_array

from ecofm.compare.davidson import count_pairs

if TYPE_CHECKING:
    import pandas as pd


def agreement(comparisons: pd.DataFrame) -> pd.DataFrame:
    """Return annotator, other, tau, n_pairs: Kendall's tau-b over the pairs that both judged.

    An annotator's repeated answers to a pair count by their majority; skips do not count. tau is
    NaN when two annotators share no pair, or one of them tied all pairs that they share. Raises
    ComparisonError as `consensus` does.
    """
    import pandas as pd

    names, sign, judged = _judge_by_pair(comparisons)
    n_pairs = (judged @ judged.T).toarray()
    concordance = (sign @ sign.T).toarray()
    # Entry (a, b): the pairs that both judged and a did not tie.
    n_untied = (abs(sign) @ judged.T).toarray()
    weight = np.sqrt(n_untied * n_untied.T)
    tau = np.divide(concordance, weight, out=np.full_like(weight, np.nan), where=weight > 0)
    rows = [
        (names[a], names[b], tau[a, b], int(n_pairs[a, b]))
        for a, b in combinations(range(len(names)), 2)
    ]
    return pd.DataFrame(rows, columns=["annotator", "other", "tau", "n_pairs"])


def _judge_by_pair(comparisons: pd.DataFrame) -> tuple[list[str], Any, Any]:
    """Return the annotators, and sparse (n_annotators, n_pairs): majority sign, and judged or not.

    The sign is 1 where the item that sorts first is more developed, -1 where the other is.
    """
    items = count_pairs(comparisons).names
    fitted = comparisons[comparisons["outcome"] != "skip"]
    left, right = (np.searchsorted(items, fitted[side].tolist()) for side in ("left", "right"))
    names, annotator = np.unique(fitted["annotator"].tolist(), return_inverse=True)
    vote = fitted["outcome"].map({"left": 1.0, "right": -1.0, "tie": 0.0}).to_numpy()
    vote = np.where(left < right, vote, -vote)
    keys = np.minimum(left, right) * len(items) + np.maximum(left, right)
    pairs, column = np.unique(keys, return_inverse=True)
    shape = (len(names), len(pairs))
    sign = coo_array((vote, (annotator, column)), shape=shape).tocsr().sign()
    judged = coo_array((np.ones(len(vote)), (annotator, column)), shape=shape).tocsr().sign()
    return names.tolist(), sign, judged
