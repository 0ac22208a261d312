"""Transfer: a ranker learned elsewhere, moved to a new country by a few comparisons there.

The source's score is the prior mean. What the new country's comparisons say beyond it is a
correction that is linear in the embeddings and held towards 0, which is a ridge towards the
source's weights; several strengths are averaged by how well each foretold comparisons that were
held out. The strongest leaves the source's order as it is, under the weakest it hardly matters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors.numpy import save_file
from scipy.optimize import minimize
from scipy.special import softmax

from ecofm import artifact
from ecofm.compare import hash_comparisons, read_comparisons
from ecofm.compare.members import read_members
from ecofm.embed import open_embeddings
from ecofm.errors import ArtifactError, ComparisonError, UsageError
from ecofm.rank.calibration import MIN_SHARE, Residual
from ecofm.rank.evidence import (
    Evidence,
    Verdict,
    require_forced,
    weigh_evidence,
)
from ecofm.rank.features import Basis, build_basis
from ecofm.rank.fit import resample
from ecofm.rank.heads import HeadName, Heads, LinearHead
from ecofm.rank.items import (
    Indices,
    ItemPairs,
    Matrix,
    choose_tiles,
    gather_features,
    hold_out,
    pair_items,
)
from ecofm.rank.losses import Floats, davidson_slopes
from ecofm.rank.luck import measure_luck
from ecofm.rank.opening import WEIGHTS, load_ranker
from ecofm.rank.resolution import describe_tiles, warn_of_tiles
from ecofm.rank.run import describe_residual, to_tensors
from ecofm.rank.unseen import judge_unseen
from ecofm.tables import write_csv
from ecofm.types import require_seed, say

MIN_COMPARISONS = 10
"""Fewer cannot choose how far the source is to be trusted."""
WEAK = 1e-3
"""Pull on the source's slope and on the tie parameter, so that both stay finite."""
N_SPLITS = 2
"""Times that the items are divided into folds anew."""
MIN_WEIGHT = 0.02
"""A strength of less weight is left out."""


@dataclass(kw_only=True, slots=True)
class TransferConfig:
    """How a ranker is moved to a new country."""

    seed: int = 0
    """Seed of folds and resampling."""
    components: int = 32
    """Directions of the new country's embeddings that the correction may use."""
    invariance: float = 0.8
    """How much of what varies between periods of one cell is taken for noise; 0 to 1."""
    strengths: list[float] = field(default_factory=lambda: [0.1, 0.3, 1.0, 3.0, 10.0, 1e4])
    """Ridge penalties towards the source, in inverse squared log odds, that are weighed by
    held-out items; the largest leaves the source's order as it is."""
    folds: int = 5
    """Folds of items for that choice."""

    def __post_init__(self) -> None:
        """Raise ValueError for values that cannot be used."""
        require_seed(self.seed)
        if self.components < 1 or not self.strengths or min(self.strengths) <= 0:
            raise UsageError("components >= 1 and strengths above 0 are needed.")
        if not 0 <= self.invariance <= 1 or self.folds < 2:
            raise UsageError("invariance from 0 to 1 and folds >= 2 are needed.")


@dataclass(frozen=True, slots=True)
class Target:
    """A new country's embeddings, and the directions in which its places differ."""

    index: pd.DataFrame
    matrix: Matrix
    basis: Basis
    chosen: Indices
    """Rows that stand for all tiles."""


@dataclass(frozen=True, slots=True)
class Moved:
    """A ranker after its transfer."""

    heads: Heads
    held_out_loss: float
    """Mean negative log likelihood of held-out comparisons, weighed by the shares, in nats."""
    shares: Floats
    """Weight of each strength, weakest first: (strength,)."""
    source_loss: float
    """Mean negative log likelihood of held-out comparisons under the source's order, in nats."""


def transfer(
    ranker: Path,
    embeddings: Sequence[Path],
    comparisons: Path,
    out: Path,
    config: TransferConfig,
    *,
    members: Path | None = None,
    overwrite: bool = False,
    force: bool = False,
) -> Path:
    """Move a ranker to the country of `embeddings` and return `out`, a ranker for `ecofm score`.

    `comparisons` are of the new country's tiles, or of items whose `members` are. Scores stay on
    the source's scale: over the new country's tiles each head keeps the mean and deviation that
    it had before. Raises ArtifactError for embeddings of another encoder, ComparisonError for
    fewer than 10 comparisons or when nothing can be learned from them, and EcofmError for a
    ranker that is no better than chance there, unless `force` has it written.
    """
    table = read_comparisons(comparisons)
    source, target, encoder = open_target(ranker, embeddings, config)
    require_enough(table, comparisons)
    inputs = artifact.hash_inputs(ranker=ranker, embeddings=embeddings, members=members)
    inputs["comparisons"] = hash_comparisons(table)
    draft = artifact.Draft(
        out,
        stage="ranker",
        config={**asdict(config), "head": HeadName.linear.value},
        inputs=inputs,
        overwrite=overwrite,
    )
    if draft.done:
        require_forced(artifact.read_manifest(out, "ranker"), out, force=force)
        say(f"{out} is done already: the same ranker, embeddings, comparisons and options.")
        return out
    known = read_members(members) if members else None
    pairs = pair_items(table, target.index["tile_id"], known)
    moved = move_heads(source, target, pairs, config)
    evidence = find_evidence(source, target, pairs, config, moved.shares)
    evidence.require(comparisons, force=force)
    heads = moved.heads
    if evidence.verdict is Verdict.chance:
        heads = _flatten(heads, target)
    with draft as folder:
        save_file(to_tensors(heads), str(folder / WEIGHTS))
        write_csv(evidence.tabulate(), folder / "calibration.csv")
        draft.extra = {
            "encoder": encoder,
            "tiles": describe_tiles(embeddings),
            "n_items": len(pairs.items),
            "n_comparisons": int(pairs.counts.sum()),
            "n_annotators": len(pairs.counts),
            "decay": float(np.exp(moved.shares @ np.log(sorted(config.strengths)))),
            "shares": moved.shares.tolist(),
            "held_out_loss": _finite(moved.held_out_loss),
            "source_held_out_loss": _finite(moved.source_loss),
            "evidence": evidence.to_json(),
            **describe_residual(heads.residual),
        }
    return out


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def open_target(
    ranker: Path, embeddings: Sequence[Path], config: TransferConfig
) -> tuple[Heads, Target, str]:
    """Return the source's heads, the new country, and the encoder's hash; ArtifactError."""
    source, manifest = load_ranker(ranker)
    if "target" in manifest:
        raise ArtifactError(
            f"{ranker} was fitted to the column {manifest['target']} of a table, which comparisons "
            "cannot correct; give a ranker that was fitted to comparisons."
        )
    assert isinstance(source, Heads)
    if not (isinstance(source.head, LinearHead) and isinstance(source.features, Basis)):
        raise ArtifactError(
            f"{ranker} has a head that is not linear ({manifest['config']['head']}); give "
            "one made by `ecofm rank --head linear`."
        )
    index, matrix, encoder = open_embeddings(embeddings)
    if encoder != manifest["encoder"]:
        raise ArtifactError(
            f"{embeddings[0]} comes from another encoder than {ranker} was fitted on; embed the "
            "new country's archive with that encoder (`ecofm embed`)."
        )
    warn_of_tiles(ranker, manifest, embeddings)
    return source, describe_target(index, matrix, config), encoder


def describe_target(index: pd.DataFrame, matrix: Matrix, config: TransferConfig) -> Target:
    """Return the new country with the basis of up to 20,000 of its tiles."""
    chosen, cells = choose_tiles(index, config.seed)
    exact = np.asarray(matrix[chosen], dtype=np.float64)
    basis = build_basis(exact, config.components, cells, config.invariance)
    return Target(index, matrix, basis, chosen)


def require_enough(table: pd.DataFrame, path: Path) -> None:
    """Raise ComparisonError for fewer comparisons than can be divided into folds."""
    n_fitted = int((table["outcome"] != "skip").sum())
    if n_fitted < MIN_COMPARISONS:
        raise ComparisonError(
            f"{path} has {n_fitted} comparisons that say left, right or tie; at least "
            f"{MIN_COMPARISONS} are needed to correct a ranker. Ask for more with `ecofm compare "
            "serve`; until then `ecofm score` uses the ranker as it is."
        )


def find_evidence(
    source: Heads, target: Target, pairs: ItemPairs, config: TransferConfig, shares: Floats
) -> Evidence:
    """Return what the new country's comparisons say of the moved ranker.

    They may fit the source's score, which a few can tell, or what its correction sees: the lesser
    p value counts, doubled (Bonferroni).
    """
    random = np.random.default_rng([config.seed, 1])
    n_heads = len(source.parameters)
    items = gather_features(target.matrix, _see_both(source, target), pairs.members, 0, random)
    centre = items.mean[:, :n_heads].mean(axis=1)
    own = np.column_stack([centre, items.mean[:, n_heads:]])
    strengths = sorted(config.strengths)

    def fit(kept: ItemPairs) -> Floats:
        rest = kept.left, kept.right, kept.summed
        fits = [
            share * fit_towards(own, *rest, strength)[0]
            for strength, share in zip(strengths, shares, strict=True)
            if share
        ]
        return np.asarray(own @ np.sum(fits, axis=0))

    p_all = measure_luck(own[:, 1:], pairs, random)
    net = pairs.summed[:, 0] - pairs.summed[:, 1]
    agrees = net @ (centre[pairs.left] - centre[pairs.right]) > 0
    p_source = measure_luck(centre[:, None], pairs, random) / 2 if agrees else 1.0
    p = min(1.0, 2 * min(p_source, p_all))
    return weigh_evidence(p, pairs, judge_unseen(pairs, fit, random))


def _flatten(heads: Heads, target: Target) -> Heads:
    """Pull a ranker that tells nothing towards its mean score, and make its intervals as wide."""
    scores = heads.predict(np.asarray(target.matrix[target.chosen], dtype=np.float64))
    deviation = max(float(scores.mean(axis=0).std()), 1e-12)
    more = (1 / MIN_SHARE - 1) * scores.mean(axis=1) * heads.unit
    residual = Residual(deviation * (1 - MIN_SHARE**2) ** 0.5)
    return replace(
        heads, unit=heads.unit / MIN_SHARE, offset=heads.offset - more, residual=residual
    )


def _see_both(source: Heads, target: Target) -> Callable[[Matrix], Floats]:
    """Return what gives the source heads' scores, then the new country's directions."""

    def describe(embeddings: Matrix) -> Floats:
        return np.column_stack([source.predict(embeddings).T, target.basis(embeddings)])

    return describe


def move_heads(source: Heads, target: Target, pairs: ItemPairs, config: TransferConfig) -> Moved:
    """Correct every head of the source by the new country's comparisons.

    Head and correction are fitted together to members and annotators drawn with replacement, one
    draw a head, so that the ensemble's spread holds the source's doubt and the new answers'.
    """
    random = np.random.default_rng(config.seed)
    n_heads = len(source.parameters)
    see = _see_both(source, target)
    items = gather_features(target.matrix, see, pairs.members, n_heads, random)
    centre = items.mean[:, :n_heads].mean(axis=1)
    losses = _hold_out(np.column_stack([centre, items.mean[:, n_heads:]]), pairs, config, random)
    strengths = np.array(sorted(config.strengths))
    shares = weigh_strengths(losses, len(strengths), float(pairs.summed.sum()))
    found = []
    for number in range(n_heads):
        drawn = items.draw(number)
        own = np.column_stack([drawn[:, number], drawn[:, n_heads:]])
        answers = resample(pairs, random)
        left, right, counts = (
            part.numpy() for part in (answers.left, answers.right, answers.counts)
        )
        fits = [
            share * fit_towards(own, left, right, counts, strength)[0]
            for strength, share in zip(strengths, shares, strict=True)
            if share
        ]
        found.append(np.sum(fits, axis=0))
    mean = losses.mean(axis=0) if len(losses) else np.full(len(strengths), np.nan)
    heads = _join(source, target, np.array(found))
    return Moved(heads, float(shares @ mean), shares, float(mean[-1]))


def _join(source: Heads, target: Target, found: Floats) -> Heads:
    """Return heads on the directions of both countries, from (head, slope and correction).

    Each head keeps the mean and deviation over the new country that it had before.
    """
    assert isinstance(source.features, Basis)
    projection = np.column_stack([source.features.projection, target.basis.projection])
    old = found[:, :1] * source.parameters / source.unit[:, None]
    heads = replace(
        source,
        features=Basis(target.basis.mean, projection),
        parameters=np.column_stack([old, found[:, 1:]]),
        offset=np.zeros(len(found)),
        unit=np.ones(len(found)),
    )
    sample = np.asarray(target.matrix[target.chosen], dtype=np.float64)
    before, after = source.predict(sample), heads.predict(sample)
    usable = (after.std(axis=1) > 1e-12) & (before.std(axis=1) > 1e-12)
    unit = np.where(usable, after.std(axis=1) / np.maximum(before.std(axis=1), 1e-12), 1.0)
    return replace(heads, unit=unit, offset=after.mean(axis=1) - unit * before.mean(axis=1))


def fit_towards(
    items: Floats, left: Indices, right: Indices, counts: Floats, strength: float
) -> tuple[Floats, float]:
    """Return the source's slope (at least 0) before the correction, (1 + component,), and log_tie.

    `items` (item, 1 + component) hold the source's score and the features; `counts` (pair, 3).
    Minimises minus the log likelihood, summed over comparisons, plus strength / 2 times the
    squared correction; a score is slope times the source's plus features times correction.
    """
    total = counts.sum()
    difference = items[left] - items[right]

    def loss(parameters: Floats) -> tuple[float, Floats]:
        weights, log_tie = parameters[:-1], parameters[-1]
        value, slope, tie_slope = davidson_slopes(difference @ weights, counts, float(log_tie))
        pull = np.full(len(weights), strength / total)
        centre = np.zeros(len(weights))
        pull[0], centre[0] = WEAK, 1.0
        value += float(pull @ (weights - centre) ** 2) / 2 + WEAK * float(log_tie**2)
        gradient = difference.T @ slope + pull * (weights - centre)
        return value, np.append(gradient, tie_slope + 2 * WEAK * log_tie)

    start = np.zeros(items.shape[1] + 1)
    start[0] = 1.0
    # A source that orders the new country upside down is left out, never turned round.
    bounds = [(0, None), *[(None, None)] * items.shape[1]]
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x
    return np.asarray(found[:-1]), float(found[-1])


def _hold_out(
    items: Floats, pairs: ItemPairs, config: TransferConfig, random: np.random.Generator
) -> Floats:
    """Return the loss of comparisons with held-out items: (fold, strength), strengths sorted."""
    counts = pairs.summed
    losses = []
    for _ in range(N_SPLITS):
        for held in hold_out(pairs, config.folds, random):
            rest = pairs.left[~held], pairs.right[~held], counts[~held]
            difference = items[pairs.left[held]] - items[pairs.right[held]]
            row = []
            for strength in sorted(config.strengths):
                weights, log_tie = fit_towards(items, *rest, strength)
                row.append(davidson_slopes(difference @ weights, counts[held], log_tie)[0])
            losses.append(row)
    return np.array(losses)


def weigh_strengths(losses: Floats, n_strengths: int, n_comparisons: float) -> Floats:
    """Return the weight of each strength (strength,), from losses (fold, strength).

    By the likelihood of the comparisons when they were held out (pseudo-BMA, Yao et al. 2018):
    a few comparisons mix all strengths, many choose. Without folds the source alone counts.
    """
    if not losses.size:
        return np.asarray(np.eye(n_strengths)[-1])
    found: Floats = softmax(-n_comparisons * losses.mean(axis=0))
    kept = np.where(found >= MIN_WEIGHT, found, 0.0)
    return np.asarray(kept / kept.sum())
