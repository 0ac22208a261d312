"""Change: the score difference of each cell between two periods, tested against noise.

The noise is learnt from the data. Most places do not change, so the bulk of the differences shows
what season, sensor and encoder do to all cells alike (the common shift) and to each cell by chance
(the scale): an empirical null after Efron (2004, "Large-scale simultaneous hypothesis testing",
JASA 99). Only the pair's own differences are used: another pair of periods has other seasons, and
on the reference study's tiles the rank correlation between years varies from .79 to .85.
"""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from ecofm.artifact import MADE_BY, Draft, hash_input, read_manifest
from ecofm.checksums import open_file
from ecofm.errors import EcofmError, UsageError
from ecofm.geotables import INDEX, read_geotable
from ecofm.tiles.periods import sort_periods
from ecofm.types import say

Floats = NDArray[np.float64]

TAILS = (np.inf, 10.0, 4.0)
"""Degrees of freedom tried for the noise: normal, and two heavier tails."""
SIDES: tuple[tuple[int, ...], ...] = ((), (1,), (-1,), (1, -1))
"""Groups of changed cells tried: none, growth, decline, both."""
MIN_SEPARATION = 2.0
"""A group of changed cells lies this many noise scales from the centre, or counts as noise."""
MAX_FIT_CELLS = 4_000
"""More cells than this are thinned to their quantiles for the fit, which costs the same then."""
N_WIDTH_BINS = 4


@dataclass(kw_only=True, slots=True)
class ChangeConfig:
    """What `change` may be told."""

    false_discovery_rate: float = 0.1
    """Cells with q at or below it are counted and drawn as changed; q itself does not depend on
    it."""
    min_cells: int = 10
    """Fewest cells in both periods; below it the noise cannot be estimated."""
    noise_by_width: bool = True
    """Let the noise scale follow the width of the cells' score intervals where it demonstrably
    does (Fligner-Killeen test at .001, at least 200 cells)."""

    def __post_init__(self) -> None:
        """Raise ValueError for values that mean nothing."""
        if not 0 < self.false_discovery_rate < 1:
            raise UsageError(f"false_discovery_rate is {self.false_discovery_rate}: give 0 to 1.")
        if self.min_cells < 10:
            raise UsageError(f"min_cells is {self.min_cells}: at least 10 cells give a scale.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Noise:
    """The empirical null of score differences: what cells do that do not change."""

    shift: float
    """Common shift of all cells, in score units."""
    scale: float
    """Scale of the noise in score units; the standard deviation if `tail_df` is infinite."""
    tail_df: float
    """Degrees of freedom of Student's t that the noise follows."""
    unchanged_share: float
    """Share of the cells that the noise explains."""
    n_cells: int
    """Cells that it was estimated from."""

    def reference_df(self) -> float:
        """Return the degrees of freedom for tests: the tails, and the scale's own uncertainty.

        log scale has a variance near 1/n over the half of the cells that fix it, which is that of
        a t test with n/2 degrees of freedom.
        """
        return 1 / (1 / self.tail_df + 2 / self.n_cells)


def change(
    scores: Path,
    from_period: str,
    to_period: str,
    out: Path,
    config: ChangeConfig,
    overwrite: bool = False,
) -> Path:
    """Write the change of each cell that has a score in both periods, and a map of it.

    `change.parquet` (EPSG:4326, one row a cell, by cell_id): cell_id, from, to, geometry;
    `change`, the score in `to` minus the score in `from` minus the common shift of all cells
    (`shift` in the manifest), in score units; `lower`, `upper`, its 90 % interval; `p`, two-sided,
    against the empirical null; `q`, after Benjamini and Hochberg (1995). A change that all cells
    share cannot be told from season and sensor, and is taken out with them. Noise with a heavier
    tail on one side than Student's t looks like change. Raises EcofmError for periods that the
    scores do not have, too few common cells, or scores that are not finite.
    """
    table = read_scores(scores)
    pairs = pair_cells(table, from_period, to_period, config.min_cells)
    draft = Draft(
        out,
        stage="change",
        config={**asdict(config), "from": from_period, "to": to_period},
        inputs={"scores": hash_input(scores)},
        overwrite=overwrite,
    )
    if draft.done:
        say(f"{out} is done already.")
        return out
    result, noise, follows_width = judge_pairs(pairs, config)
    n_changed = int((result["q"] <= config.false_discovery_rate).sum())
    attribution = str(read_manifest(scores, "scores").get("attribution", ""))
    with draft as folder:
        result.to_parquet(folder / "change.parquet")
        draw_map(result, config, attribution, folder / "change.png")
        draft.extra = {**describe(noise, follows_width), "n_changed": n_changed}
        draft.extra["attribution"] = attribution
    say(
        f"{n_changed} of {len(result)} cells changed from {from_period} to {to_period} "
        f"(false discovery rate {config.false_discovery_rate:g}); common shift {noise.shift:+.3g}."
    )
    return out


def describe(noise: Noise, follows_width: bool) -> dict[str, Any]:
    """Return the noise as the manifest keeps it; None stands for normal tails."""
    tail_df = None if np.isinf(noise.tail_df) else noise.tail_df
    return {**asdict(noise), "tail_df": tail_df, "scale_follows_width": follows_width}


def draw_map(result: gpd.GeoDataFrame, config: ChangeConfig, attribution: str, path: Path) -> None:
    """Draw the change map, if the cells have a place."""
    from ecofm.maps.pictures import draw_change, save_picture

    if result.geometry.isna().all():
        say("The cells have no place on Earth: change.png is left out.")
        return
    title = f"Change of score, {result['from'].iloc[0]} to {result['to'].iloc[0]}"
    save_picture(draw_change(result, title, attribution, config.false_discovery_rate), path)


def read_scores(folder: Path) -> gpd.GeoDataFrame:
    """Return the table of a scores artifact.

    Raises ArtifactError for another artifact, EcofmError for scores that are missing or not
    finite, or a cell that is scored twice in a period.
    """
    manifest = read_manifest(folder, "scores")
    path = open_file(folder, manifest, "scores.parquet")
    numbers = dict.fromkeys(("score", "lower", "upper"), float)
    n_rows = manifest.get("n_tiles") if type(manifest.get("n_tiles")) is int else None
    table = read_geotable(path, {**INDEX, **numbers}, n_rows=n_rows, made_by=MADE_BY["scores"])
    values = table[list(numbers)].to_numpy(np.float64)
    faults = {
        "scores that are not finite": ~np.isfinite(values).all(axis=1),
        "intervals that end before they begin": values[:, 1] > values[:, 2],
    }
    for what, mask in faults.items():
        if mask.any():
            raise EcofmError(
                f"{path} has {int(mask.sum())} {what}, first of tile "
                f"{table['tile_id'][mask].iloc[0]}; run `ecofm score` again."
            )
    if table.empty:
        raise EcofmError(f"{path} holds no score; run `ecofm score` again.")
    twice = table[table.duplicated(["cell_id", "period"])]
    if len(twice):
        raise EcofmError(
            f"{path} scores {len(twice)} cells twice, first {twice['cell_id'].iloc[0]} in period "
            f"{twice['period'].iloc[0]}; run `ecofm score` with embeddings of other tiles only "
            "(it names the --embeddings that share tiles), or tile the scenes of all into one "
            "archive (`ecofm tile SCENES... --out DIR`) and embed and score that."
        )
    return table


def pair_cells(
    table: gpd.GeoDataFrame, from_period: str, to_period: str, min_cells: int
) -> gpd.GeoDataFrame:
    """Return the cells with both periods: `difference` and `width` (of the interval) by cell_id.

    Raises EcofmError for unknown or equal periods and fewer than `min_cells` common cells.
    """
    periods = sort_periods(table["period"])
    for period in (from_period, to_period):
        if period not in periods:
            raise EcofmError(
                f"the scores have no period {period}, only {', '.join(periods)}; choose two."
            )
    if from_period == to_period:
        raise EcofmError(
            f"from and to are both {to_period}: choose two of the periods {', '.join(periods)}."
        )
    first, last = (
        table[table["period"] == period].set_index("cell_id").sort_index()
        for period in (from_period, to_period)
    )
    common = first.index.intersection(last.index)
    if len(common) < min_cells:
        found = f"only {len(common)} cells" if len(common) else "no cell"
        raise EcofmError(
            f"{found} with a score in both {from_period} and {to_period}, and the noise cannot be "
            f"estimated from fewer than {min_cells}; score more cells in both periods."
        )
    first, last = first.loc[common], last.loc[common]
    # The columns are named by dict: `from` is a keyword.
    columns = {
        "cell_id": common,
        "from": from_period,
        "to": to_period,
        "difference": (last["score"] - first["score"]).to_numpy(np.float64),
        "width": np.hypot(last["upper"] - last["lower"], first["upper"] - first["lower"]),
    }
    geometry = gpd.GeoSeries(last.geometry.to_numpy(), index=common, crs=table.crs)
    return gpd.GeoDataFrame(columns, geometry=geometry, index=common).reset_index(drop=True)


def judge_pairs(
    pairs: gpd.GeoDataFrame, config: ChangeConfig
) -> tuple[gpd.GeoDataFrame, Noise, bool]:
    """Return the change table, the noise, and whether its scale follows the interval widths."""
    difference = pairs["difference"].to_numpy(np.float64)
    noise = fit_noise(difference)
    relative = None
    if config.noise_by_width:
        relative = scale_by_width(difference - noise.shift, pairs["width"].to_numpy(np.float64))
    if relative is not None:
        again = fit_noise((difference - noise.shift) / relative)
        noise = replace(again, shift=noise.shift + again.shift)
    scale = noise.scale * (1.0 if relative is None else relative)
    shifted = difference - noise.shift
    df = noise.reference_df()
    half_width = stats.t.ppf(0.95, df) * scale
    p = np.minimum(2 * stats.t.sf(np.abs(shifted) / scale, df), 1.0)
    values = {
        "change": shifted,
        "lower": shifted - half_width,
        "upper": shifted + half_width,
        "p": p,
        "q": stats.false_discovery_control(p),
    }
    result = pairs[["cell_id", "from", "to", "geometry"]].assign(**values)
    names = ["cell_id", "from", "to", *values, "geometry"]
    return result[names], noise, relative is not None


def fit_noise(difference: Floats) -> Noise:
    """Return the empirical null of score differences, of which up to half may be real change.

    A mixture is fitted by EM: noise (Student's t) and, if the Bayesian information criterion pays
    for them, groups of changed cells (normal) above or below it. The median would be pulled
    almost a whole scale towards 40 % of growing cells, and the half-sample mode is too rough to
    give a scale: with nothing changed it finds change in half of 400-cell maps, the mixture in
    4 %. Raises EcofmError when most differences are equal, for then there is no noise to measure.
    """
    ordered = np.sort(difference)
    if len(ordered) > MAX_FIT_CELLS:
        places = np.linspace(0, len(ordered) - 1, MAX_FIT_CELLS)
        ordered = np.interp(places, np.arange(len(ordered)), ordered)
    centre, scale = shortest_half(ordered)
    if scale <= 1e-12 * max(1.0, float(np.abs(ordered).max())):
        raise EcofmError(
            "the scores of most cells differ by the same amount between the two periods, so there "
            "is no noise to test against; check that the periods hold different images."
        )
    fits = (
        fit_mixture(ordered, centre, scale, tail_df, sides)
        for tail_df, sides in itertools.product(TAILS, SIDES)
    )
    return replace(min(fits, key=lambda fit: fit[0])[1], n_cells=len(difference))


def shortest_half(ordered: Floats) -> tuple[float, float]:
    """Return centre and scale (as of a normal) of the shortest interval with half the values."""
    half = len(ordered) // 2
    lengths = ordered[half:] - ordered[: len(ordered) - half]
    best = np.flatnonzero(lengths == lengths.min())
    centre = (ordered[best] + ordered[best + half]).mean() / 2
    return float(centre), float(lengths.min() / (2 * stats.norm.ppf(0.75)))


def log_density(x: Floats, centre: float, scale: float, df: float) -> Floats:
    """Return the log density of Student's t; a normal where `df` is infinite.

    Written out because scipy's logpdf takes eight times as long, and the fit calls it thousands of
    times.
    """
    square = ((x - centre) / scale) ** 2
    if np.isinf(df):
        return np.asarray(-0.5 * square - np.log(scale * np.sqrt(2 * np.pi)))
    constant = special.gammaln((df + 1) / 2) - special.gammaln(df / 2) - np.log(df * np.pi) / 2
    return np.asarray(constant - np.log(scale) - (df + 1) / 2 * np.log1p(square / df))


def fit_mixture(
    x: Floats, centre: float, scale: float, tail_df: float, sides: tuple[int, ...]
) -> tuple[float, Noise]:
    """Return the information criterion and the noise of one mixture, fitted by EM.

    Changed cells keep the noise and add their own spread, so their group is never narrower than
    the noise, nor nearer than MIN_SEPARATION scales; the noise keeps at least half of the weight.
    """
    weights = np.array([1 - 0.1 * len(sides)] + [0.1] * len(sides))
    distances = [4 * scale] * len(sides)
    spreads = [2 * scale] * len(sides)
    last = -np.inf
    for _ in range(200):
        terms = [log_density(x, centre, scale, tail_df)]
        for side, distance, spread in zip(sides, distances, spreads, strict=True):
            terms.append(log_density(x, centre + side * distance, spread, np.inf))
        joint = np.stack(terms) + np.log(weights)[:, None]
        peak = joint.max(axis=0)
        total = peak + np.log(np.exp(joint - peak).sum(axis=0))
        likelihood = float(total.sum())
        if likelihood - last < 1e-5 * len(x):
            break
        last = likelihood
        share = np.exp(joint - total)
        weights = np.maximum(share.mean(axis=1), 1e-6)
        if weights[0] < 0.5:
            weights[1:] *= 0.5 / weights[1:].sum()
            weights[0] = 0.5
        # The M step of a t: far values weigh less (Lange, Little and Taylor 1989).
        z = (x - centre) / scale
        pull = share[0] if np.isinf(tail_df) else share[0] * (tail_df + 1) / (tail_df + z**2)
        centre = float(pull @ x / pull.sum())
        scale = float(np.sqrt(pull @ (x - centre) ** 2 / share[0].sum()))
        for k, side in enumerate(sides):
            part, size = share[k + 1], share[k + 1].sum() + 1e-12
            distances[k] = max(side * float(part @ x / size - centre), MIN_SEPARATION * scale)
            spread = np.sqrt(part @ (x - centre - side * distances[k]) ** 2 / size)
            spreads[k] = max(float(spread), scale)
    n_parameters = 2 + 3 * len(sides) + int(np.isfinite(tail_df))
    noise = Noise(
        shift=centre,
        scale=scale,
        tail_df=tail_df,
        unchanged_share=float(weights[0]),
        n_cells=len(x),
    )
    return n_parameters * np.log(len(x)) - 2 * last, noise


def scale_by_width(residual: Floats, width: Floats) -> Floats | None:
    """Return the relative noise scale of each cell from its interval width; None for one scale.

    The widths' order makes the bins, the differences give each bin's scale, and cells between
    bins are interpolated; the median is 1. Residuals keep their sign only through squares and
    order, so that swapping the periods changes nothing.
    """
    if len(residual) < 200 or not np.isfinite(width).all():
        return None
    narrow, wide = np.percentile(width, (10, 90))
    if wide < 1.1 * narrow or wide == 0:
        return None
    order = np.argsort(width, kind="stable")
    bins = np.array_split(order, N_WIDTH_BINS)
    if stats.fligner(*(residual[b] for b in bins)).pvalue > 0.001:
        return None
    spreads = [shortest_half(np.sort(residual[b]))[1] for b in bins]
    if min(spreads) <= 0:
        return None
    centres = [np.median(width[b]) for b in bins]
    relative: Floats = np.exp(np.interp(width, centres, np.log(spreads)))
    return np.asarray(relative / np.median(relative))
