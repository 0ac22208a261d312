"""One contest: our score, its rivals and the baselines against one target on the same places."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from ecofm.benchmark.baselines import MEAN_COLOUR
from ecofm.benchmark.metrics import (
    MIN_PAIRS,
    Floats,
    bound,
    log_if_positive,
    partial,
    resample_correlations,
)
from ecofm.errors import EcofmError

OURS = "ecofm"
METRICS = ("spearman", "pearson", "r2", "r2_log", "spearman_given_colour")


@dataclass(frozen=True, kw_only=True, slots=True)
class Contest:
    """What is compared: `frame` is by place, one column a contestant, and the target."""

    level: str
    """`cell` or `region`."""
    period: str
    """A period, or `mean` of all."""
    subset: str
    """`all`, or `target > 0`."""
    target: str
    """Column of the proxy."""
    frame: pd.DataFrame
    """Columns OURS, the rivals, the baselines and the target; NaN where one is missing."""
    rivals: list[str]
    """Columns of other scores."""
    baselines: list[str]
    """Columns of image statistics."""

    def label(self) -> dict[str, str]:
        """Return the words that name this contest in the report."""
        return {
            "level": self.level,
            "period": self.period,
            "subset": self.subset,
            "target": self.target,
        }


@dataclass(slots=True)
class Outcome:
    """The records of one contest, as report.json keeps them."""

    contest: dict[str, Any]
    figures: list[dict[str, Any]] = field(default_factory=list)
    differences: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    places: pd.DataFrame = field(default_factory=pd.DataFrame)


def hold(contest: Contest, n_bootstrap: int, seed: int) -> Outcome:
    """Return every figure of a contest with its 95 % interval.

    All contestants are judged on the places where all have a value. A baseline is turned so that
    its rank correlation is positive, and the best of them is picked on these same places: both
    favour the baseline. Raises EcofmError when too few places remain, or the target or our score
    is constant there.
    """
    outcome = Outcome({**contest.label(), "n_scored": _count_scored(contest)})
    complete = _keep_usable(contest, outcome)
    rivals = [name for name in contest.rivals if name in complete]
    baselines = [name for name in contest.baselines if name in complete]
    turned = _turn_baselines(complete, baselines, contest.target)
    names = [contest.target, OURS, *rivals, *baselines]
    table = complete[names].to_numpy(np.float64)
    outcome.places = complete
    outcome.contest |= {"n": len(complete), "best_baseline": None}
    resampled = _resample(table, n_bootstrap, seed)
    for place, name in enumerate(names[1:], start=1):
        kind = "ours" if name == OURS else "rival" if name in rivals else "baseline"
        record = {**contest.label(), "score": name, "kind": kind, "n": len(complete)}
        record["turned"] = name in turned
        for metric, (value, draws) in _measure(resampled, place).items():
            outcome.figures.append(record | _bounded(metric, value, draws))
    given = [names.index(name) for name in MEAN_COLOUR if name in names]
    if given:
        _add_given_colour(contest, outcome, resampled["rank"], names, given, rivals)
    _add_differences(contest, outcome, resampled["rank"], names, rivals, baselines)
    return outcome


def _count_scored(contest: Contest) -> int:
    return len(contest.frame.reindex(columns=[OURS, contest.target]).dropna())


def _keep_usable(contest: Contest, outcome: Outcome) -> pd.DataFrame:
    """Return the complete places, without contestants that say nothing there."""
    # A column without any value is absent from a table of regions.
    frame = contest.frame.reindex(
        columns=[OURS, contest.target, *contest.rivals, *contest.baselines]
    )
    scored = frame[[OURS, contest.target]].dropna()
    for name in [*contest.rivals, *contest.baselines]:
        both = frame[[OURS, contest.target, name]].dropna()
        if len(both) < MIN_PAIRS:
            outcome.notes.append(f"{name} has values on {len(both)} places and is left out.")
            frame = frame.drop(columns=name)
        elif (both[contest.target] != 0).all() and (scored[contest.target] == 0).any():
            # The reference study scored built cells only: its score would empty `all` of the rest.
            outcome.notes.append(
                f"{name} has no value where {contest.target} is 0: see {contest.target} > 0."
            )
            frame = frame.drop(columns=name)
    complete = frame.dropna()
    if len(complete) < MIN_PAIRS:
        raise EcofmError(
            f"only {len(complete)} places have our score, all others and {contest.target}; "
            f"at least {MIN_PAIRS} are needed"
        )
    constant = [str(name) for name in complete if complete[name].nunique() < 2]
    for name in constant:
        if name in (OURS, contest.target):
            raise EcofmError(f"{name} is the same on all {len(complete)} places")
        outcome.notes.append(f"{name} is the same on all {len(complete)} places and is left out.")
    n_scored = _count_scored(contest)
    if len(complete) < n_scored:
        outcome.notes.append(
            f"{n_scored} places have our score and the target; the {len(complete)} that all "
            "contestants have are compared."
        )
    return complete.drop(columns=constant)


def _turn_baselines(frame: pd.DataFrame, baselines: list[str], target: str) -> set[str]:
    """Turn the sign of baselines with a negative rank correlation, in place; return their names."""
    correlations = frame[baselines].corrwith(frame[target], method="spearman")
    turned = {name for name in baselines if correlations[name] < 0}
    for name in turned:
        frame[name] = -frame[name]
    return turned


def _resample(table: Floats, n_bootstrap: int, seed: int) -> dict[str, tuple[Floats, Floats]]:
    """Return (correlation matrix, resampled matrices) of ranks, values and logarithms."""
    tables = {"rank": table, "linear": table}
    if (table[:, 0] > 0).all():
        tables["log"] = np.column_stack([_log_either(column) for column in table.T])
    found: dict[str, tuple[Floats, Floats]] = {}
    for name, values in tables.items():
        ranks = name == "rank"
        draws = resample_correlations(values, ranks=ranks, n_resamples=n_bootstrap, seed=seed)
        ranked = pd.DataFrame(values).rank().to_numpy() if ranks else values
        found[name] = (np.asarray(np.corrcoef(ranked.T)), draws)
    return found


def _log_either(column: Floats) -> Floats:
    """Return logarithms of positive values, and of baselines that were positive until turned."""
    return -log_if_positive(-column) if (column < 0).all() else log_if_positive(column)


def _measure(
    resampled: dict[str, tuple[Floats, Floats]], place: int
) -> dict[str, tuple[float, Floats]]:
    """Return each metric's value and resamples for the contestant at `place`."""
    found: dict[str, tuple[float, Floats]] = {}
    for name, (matrix, draws) in resampled.items():
        value, drawn = float(matrix[0, place]), draws[:, 0, place]
        if name == "rank":
            found["spearman"] = (value, drawn)
        elif name == "linear":
            found["pearson"] = (value, drawn)
            found["r2"] = (value**2, drawn**2)
        else:
            found["r2_log"] = (value**2, drawn**2)
    return found


def _bounded(metric: str, value: float, draws: Floats) -> dict[str, Any]:
    lower, upper = bound(draws)
    return {"metric": metric, "value": value, "lower": lower, "upper": upper}


def _add_given_colour(
    contest: Contest,
    outcome: Outcome,
    ranked: tuple[Floats, Floats],
    names: list[str],
    given: list[int],
    rivals: list[str],
) -> None:
    """Add the rank correlation that remains when the mean colour is given."""
    matrix, draws = ranked
    for name in [OURS, *rivals]:
        chosen = np.ix_([names.index(name), 0, *given], [names.index(name), 0, *given])
        value = float(partial(matrix[chosen]))
        drawn = partial(draws[:, chosen[0], chosen[1]])
        kind = "ours" if name == OURS else "rival"
        record = {**contest.label(), "score": name, "kind": kind, "turned": False}
        record["n"] = outcome.contest["n"]
        outcome.figures.append(record | _bounded(METRICS[-1], value, drawn))


def _add_differences(
    contest: Contest,
    outcome: Outcome,
    ranked: tuple[Floats, Floats],
    names: list[str],
    rivals: list[str],
    baselines: list[str],
) -> None:
    """Add our rank correlation less that of each rival and of the best baseline."""
    matrix, draws = ranked
    contestants = list(rivals)
    if baselines:
        best = max(baselines, key=lambda name: matrix[0, names.index(name)])
        outcome.contest["best_baseline"] = best
        contestants.append(best)
    for name in contestants:
        place = names.index(name)
        value = float(matrix[0, 1] - matrix[0, place])
        record = {**contest.label(), "rival": name, "n": outcome.contest["n"]}
        drawn = draws[:, 0, 1] - draws[:, 0, place]
        outcome.differences.append(record | _bounded("spearman", value, drawn))
