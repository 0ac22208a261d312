"""Consensus: one score per item from everybody's comparisons, with intervals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.stats import norm

from ecofm.compare.annotators import describe_doubtful, tabulate_annotators
from ecofm.compare.crowd import Crowd, fit_crowd
from ecofm.compare.davidson import PairCounts, centre, count_voices
from ecofm.compare.exchange import read_comparisons
from ecofm.compare.tables import write_table
from ecofm.errors import ComparisonError, UsageError
from ecofm.types import say

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True, slots=True)
class ConsensusConfig:
    """How scores are fitted to comparisons."""

    prior_std: float = 3.0
    """Standard deviation, in log odds, of the Gaussian prior on every strength and on theta.

    It keeps items finite that always win or always lose, and is weak: under it, three pairs of
    items in five are more lopsided than nine to one.
    """
    interval: float = 0.9
    """Share of the posterior between lower and upper."""
    weigh: bool = True
    """Count each annotator by how reliable they are; else all alike."""
    max_items: int = 5000
    """More items are refused: the intervals need the dense inverse Hessian, 200 MB at 5,000."""

    def __post_init__(self) -> None:
        """Check the values; raises ValueError."""
        if not 0 < self.prior_std < np.inf:
            raise UsageError(f"prior_std is {self.prior_std}, expected a positive, finite number")
        if not 0 < self.interval < 1:
            raise UsageError(f"interval is {self.interval}, expected a share between 0 and 1")


def fit_consensus(
    comparisons: pd.DataFrame,
    config: ConsensusConfig | None = None,
    warn: Callable[[str], None] = say,
) -> pd.DataFrame:
    """Return item, score, lower, upper, best first: all annotators' comparisons as one order.

    Scores have mean 0 and standard deviation 1 over the items; higher is more developed. The
    interval is of the Laplace approximation to the posterior, the scale taken as known, and from
    five annotators on it is widened by how much they differ (see `Crowd.covariance`): with fewer,
    orderings give intervals that are too narrow. Items that were only skipped are absent; `warn`
    is told so, when items belong to groups that were never compared with each other, and of
    annotators who are not shown to be better than chance. Raises ComparisonError when nothing can
    be fitted or the answers separate no items.
    """
    config = config or ConsensusConfig()
    crowd = fit_answers(comparisons, config, warn)
    frame = tabulate(crowd, config)
    for sentence in describe_doubtful(tabulate_annotators(comparisons, crowd)):
        warn(sentence)
    return frame


def fit_answers(
    comparisons: pd.DataFrame, config: ConsensusConfig, warn: Callable[[str], None] = say
) -> Crowd:
    """Return strengths and reliabilities; warns and raises as `fit_consensus` does."""
    voices = count_voices(comparisons)
    n_items = len(voices.pairs.names)
    if n_items > config.max_items:
        raise ComparisonError(
            f"the comparisons name {n_items} items, expected at most {config.max_items}; compare "
            "clusters instead of tiles, or raise max_items."
        )
    warn_of_gaps(voices.pairs, comparisons, warn)
    return fit_crowd(voices, config.prior_std, weigh=config.weigh)


def tabulate(crowd: Crowd, config: ConsensusConfig) -> pd.DataFrame:
    """Return item, score, lower, upper of a fit, best first; raises as `fit_consensus` does."""
    import pandas as pd

    strength = crowd.point[:-1] - crowd.point[:-1].mean()
    scale = float(strength.std())
    if scale < 1e-6:
        raise ComparisonError(
            f"the answers separate none of the {len(strength)} items, all came out equal; collect "
            "more with `ecofm compare serve`."
        )
    half = norm.ppf((1 + config.interval) / 2) * np.sqrt(centre(crowd.covariance())) / scale
    score = strength / scale
    frame = pd.DataFrame(
        {
            "item": pd.array(crowd.voices.pairs.names, dtype="str"),
            "score": score,
            "lower": score - half,
            "upper": score + half,
        }
    )
    return frame.sort_values(["score", "item"], ascending=[False, True], ignore_index=True)


def warn_of_gaps(pairs: PairCounts, comparisons: pd.DataFrame, warn: Callable[[str], None]) -> None:
    """Tell of items that only skips name, and of groups that no comparison connects."""
    size = len(pairs.names)
    skipped = sorted({*comparisons["left"], *comparisons["right"]} - set(pairs.names))
    if skipped:
        warn(f"{len(skipped)} item(s) such as {skipped[0]!r} were only skipped: they get no score.")
    edges = coo_array((np.ones(len(pairs.first)), (pairs.first, pairs.second)), shape=(size, size))
    n_groups, group = connected_components(edges, directed=False)
    if n_groups > 1:
        other = int(np.argmax(group != group[0]))
        warn(
            f"the items fall into {n_groups} groups that were never compared with each other (for "
            f"example {pairs.names[0]!r} and {pairs.names[other]!r}): how one group stands to "
            "another is not known; compare items across them."
        )


def write_consensus(
    comparisons_path: Path, out: Path, config: ConsensusConfig | None = None
) -> pd.DataFrame:
    """Write the consensus of a store or table as CSV or Parquet by suffix, and return it.

    Raises ComparisonError as `read_comparisons` and `fit_consensus` do.
    """
    frame = fit_consensus(read_comparisons(comparisons_path), config)
    write_table(frame, Path(out))
    return frame
