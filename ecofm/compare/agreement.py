"""Agreement: how alike annotators order the pairs that both judged, and where they differ."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import coo_array

from ecofm.compare.davidson import VoiceCounts, count_voices
from ecofm.lettering import make_labels

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def measure_agreement(comparisons: pd.DataFrame) -> pd.DataFrame:
    """Return annotator, other, tau, n_pairs: Kendall's tau-b over the pairs that both judged.

    An annotator's repeated answers to a pair count by their majority; skips do not count. tau is
    NaN when two annotators share no pair, or one of them tied all pairs that they share. Raises
    ComparisonError as `fit_consensus` does.
    """
    import pandas as pd

    voices, sign, judged = _judge_by_pair(comparisons)
    names = voices.annotators
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


def _judge_by_pair(comparisons: pd.DataFrame) -> tuple[VoiceCounts, Any, Any]:
    """Return the counts, and sparse (n_annotators, n_pairs): majority sign, and judged or not.

    The sign is 1 where the item that sorts first is more developed, -1 where the other is.
    """
    voices = count_voices(comparisons)
    shape = (len(voices.annotators), len(voices.pairs.first))
    where = (voices.annotator, voices.pair)
    lead = np.sign(voices.counts[:, 0] - voices.counts[:, 1])
    sign = coo_array((lead, where), shape=shape).tocsr()
    judged = coo_array((np.ones(len(lead)), where), shape=shape).tocsr()
    return voices, sign, judged


def tabulate_disputes(comparisons: pd.DataFrame) -> pd.DataFrame:
    """Return the pairs with annotators on both sides, most evenly split first.

    Columns: item, other, n_item, n_other, n_tie, for_item, for_other. `item` is the one with more
    annotators behind it; the last two are their names. An annotator's repeated answers count by
    their majority. Raises ComparisonError as `fit_consensus` does.
    """
    import pandas as pd

    voices, sign, judged = _judge_by_pair(comparisons)
    names, pairs = voices.annotators, voices.pairs
    up, down = (sign > 0).tocsc(), (sign < 0).tocsc()
    n_judged = judged.sum(axis=0)
    rows = []
    for place in np.flatnonzero((up.sum(axis=0) > 0) & (down.sum(axis=0) > 0)):
        sides = [
            sorted(names[a] for a in half.indices[half.indptr[place] : half.indptr[place + 1]])
            for half in (up, down)
        ]
        pair = [pairs.names[pairs.first[place]], pairs.names[pairs.second[place]]]
        if len(sides[1]) > len(sides[0]):
            sides, pair = sides[::-1], pair[::-1]
        n_item, n_other = map(len, sides)
        n_tie = int(n_judged[place]) - n_item - n_other
        rows.append((*pair, n_item, n_other, n_tie, *(", ".join(side) for side in sides)))
    columns = ["item", "other", "n_item", "n_other", "n_tie", "for_item", "for_other"]
    frame = pd.DataFrame(rows, columns=columns)
    # How far from an even split, then the more people the earlier.
    lead = (frame["n_item"] - frame["n_other"]) / (frame["n_item"] + frame["n_other"])
    order = pd.DataFrame({"lead": lead, "n": -frame["n_other"]}).sort_values(
        ["lead", "n"], kind="stable"
    )
    return frame.loc[order.index].reset_index(drop=True)


def draw_agreement(agreement: pd.DataFrame) -> Figure:
    """Return the matrix of `measure_agreement` as a picture, annotators alike beside each other."""
    from matplotlib.figure import Figure

    tau = agreement.pivot(index="annotator", columns="other", values="tau")
    names = sorted({*agreement["annotator"], *agreement["other"]})
    tau = tau.reindex(index=names, columns=names)
    matrix = tau.fillna(tau.T).to_numpy(dtype=float, copy=True)
    np.fill_diagonal(matrix, 1.0)
    known = np.where(np.isnan(matrix), 0.0, matrix)
    # The leading eigenvector puts those who agree with most first.
    order = np.argsort(-np.abs(np.linalg.eigh(known)[1][:, -1]), kind="stable")
    matrix, names = matrix[np.ix_(order, order)], [names[place] for place in order]
    size = min(3.5 + 0.5 * len(names), 30)
    figure = Figure(figsize=(size + 1, size), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(matrix, cmap="cividis", vmin=min(0.0, float(known.min())), vmax=1)
    figure.colorbar(image, ax=axes, label="Kendall's τ", shrink=0.8)
    labels = make_labels(names, 20)
    axes.set_xticks(range(len(names)), labels, rotation=45, ha="right")
    axes.set_yticks(range(len(names)), labels)
    if len(names) <= 25:
        for row, column in np.ndindex(matrix.shape):
            value = matrix[row, column]
            text = "none" if np.isnan(value) else f"{value:.2f}".removeprefix("0")
            axes.text(column, row, text, ha="center", va="center", fontsize=8,
                      color="white" if value <= 0.6 else "black")  # fmt: skip
    axes.set_title("How alike annotators order the pairs that both judged")
    return figure
