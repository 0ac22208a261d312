"""The stage `rank`: embeddings and comparisons, or a table, to a ranker; and its reader."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors.numpy import save_file

from ecofm import artifact
from ecofm.compare import hash_comparisons, read_comparisons
from ecofm.compare.members import read_members
from ecofm.embed import open_embeddings
from ecofm.errors import ComparisonError, UsageError
from ecofm.rank.calibration import MIN_REPEATED, Residual
from ecofm.rank.evidence import Evidence, require_forced
from ecofm.rank.features import Basis, Kernel, build_basis, build_kernel
from ecofm.rank.fit import fit_heads
from ecofm.rank.heads import HeadName, Heads, RankConfig
from ecofm.rank.items import Matrix, choose_tiles, pair_items
from ecofm.rank.losses import Floats, LossName
from ecofm.rank.opening import WEIGHTS
from ecofm.rank.resolution import describe_tiles
from ecofm.rank.table import read_target
from ecofm.rank.targets import Classes, fit_target
from ecofm.tables import write_csv
from ecofm.types import say


def rank(
    embeddings: Sequence[Path],
    comparisons: Path,
    out: Path,
    config: RankConfig,
    *,
    members: Path | None = None,
    overwrite: bool = False,
    force: bool = False,
    judge: Callable[[], Evidence] | None = None,
) -> Path:
    """Fit a ranker to comparisons and return `out`.

    Embeddings without comparisons help too: cells in several periods tell what does not matter.
    `members` is a clusters artifact or a table tile_id, item; without it items are tile ids.
    Raises ComparisonError for unknown items or when nothing can be learned, and EcofmError for a
    ranker that is no better than chance, unless `force` has it written. Where the embeddings
    themselves have seen the comparisons, `judge` says what held-out ones are worth.
    """
    table = read_comparisons(comparisons)
    inputs = artifact.hash_inputs(embeddings=embeddings, members=members)
    inputs["comparisons"] = hash_comparisons(table)
    index, matrix, encoder_hash = open_embeddings(embeddings)
    draft = artifact.Draft(
        out, stage="ranker", config=artifact.plain(config), inputs=inputs, overwrite=overwrite
    )
    if draft.done:
        require_forced(artifact.read_manifest(out, "ranker"), out, force=force)
        say(f"{out} is done already: the same embeddings, comparisons and options.")
        return out
    pairs = pair_items(table, index["tile_id"], read_members(members) if members else None)
    if len(pairs.items) < 2:
        raise ComparisonError(f"{comparisons} compares one item only; at least two are needed.")
    evidence = judge() if judge else None
    fit = fit_heads(matrix, build_features(index, matrix, config), pairs, config, evidence)
    fit.evidence.require(comparisons, force=force)
    if (pairs.counts.sum(axis=(0, 2)) > 1).sum() < MIN_REPEATED:
        say(
            f"fewer than {MIN_REPEATED} pairs were judged twice, so the annotators' reliability is "
            "unknown: every slip counts as a place that strays, and intervals are rather too wide. "
            "Have pairs judged by another person too."
        )
    with draft as folder:
        save_file(to_tensors(fit.heads), str(folder / WEIGHTS))
        write_csv(fit.evidence.tabulate(), folder / "calibration.csv")
        draft.extra = {
            "encoder": encoder_hash,
            "tiles": describe_tiles(embeddings),
            "n_items": len(pairs.items),
            "n_comparisons": int(pairs.counts.sum()),
            "n_annotators": len(pairs.counts),
            "decay": fit.decay,
            "held_out_loss": fit.held_out_loss,
            "evidence": fit.evidence.to_json(),
            **describe_residual(fit.heads.residual),
        }
    return out


def rank_target(
    embeddings: Sequence[Path],
    table: Path,
    out: Path,
    config: RankConfig,
    *,
    column: str | None = None,
    positive: str | None = None,
    members: Path | None = None,
    overwrite: bool = False,
) -> Path:
    """Fit a ranker to a column of a table, whose unit its scores then have, and return `out`.

    Rows are named as `read_target` says. For classes the score is the probability of `positive`.
    held_out.csv says what items were predicted to have by heads that had not seen them; a ranker
    that predicts them no better than their mean (their shares, of classes) is written with a
    warning, and marked. Raises EcofmError when nothing can be learned.
    """
    if config.loss is not LossName.davidson:
        raise UsageError(f"loss={config.loss.value} is for comparisons; a target has its own.")
    inputs = artifact.hash_inputs(embeddings=embeddings, members=members, target=table)
    index, matrix, encoder_hash = open_embeddings(embeddings)
    given = {"column": column, "positive": positive}
    draft = artifact.Draft(
        out, stage="ranker", config=artifact.plain(config) | given, inputs=inputs,
        overwrite=overwrite,
    )  # fmt: skip
    if draft.done:
        say(f"{out} is done already: the same embeddings, table and options.")
        return out
    target = read_target(table, column, index, read_members(members) if members else None)
    if positive is not None and positive not in target.classes:
        known = ", ".join(target.classes) or "none: its values are numbers"
        raise UsageError(f"--positive {positive} is no class of {target.column} ({known}).")
    features = build_features(index, matrix, config)
    fit = fit_target(matrix, features, target, config, positive)
    fit.evidence.warn(table, target.column)
    ranker = fit.ranker
    ensembles = ranker.heads if isinstance(ranker, Classes) else [ranker]
    with draft as folder:
        tensors = {
            f"{number}.{name}" if number else name: values
            for number, heads in enumerate(ensembles)
            for name, values in to_tensors(heads).items()
        }
        save_file(tensors, str(folder / WEIGHTS))
        write_csv(fit.held_out, folder / "held_out.csv")
        draft.extra = {
            "encoder": encoder_hash,
            "tiles": describe_tiles(embeddings),
            "target": target.column,
            "classes": target.classes,
            "positive": ranker.positive if isinstance(ranker, Classes) else None,
            "n_items": len(target.items),
            "decay": fit.decay,
            "held_out": fit.evidence.figures,
            "evidence": fit.evidence.to_json(),
            **describe_residual(ranker.residual),
        }
    return out


def build_features(index: pd.DataFrame, matrix: Matrix, config: RankConfig) -> Basis | Kernel:
    """Return what heads see of embeddings: their directions, or a kernel over them."""
    chosen, cells = choose_tiles(index, config.seed)
    seen = np.asarray(matrix[chosen], dtype=np.float64)
    basis = build_basis(seen, config.components, cells, config.invariance)
    if config.head is not HeadName.gp:
        return basis
    return build_kernel(basis, seen, np.random.default_rng(config.seed))


def describe_residual(residual: Residual | None) -> dict[str, float | None]:
    """Return what a ranker's manifest says of it."""
    names = ("residual", "residual_tilt", "residual_limit")
    return dict(zip(names, astuple(residual) if residual else (None,) * 3, strict=True))


def to_tensors(heads: Heads) -> dict[str, Floats]:
    """Return what `load_ranker` reads, by name."""
    kernel = heads.features if isinstance(heads.features, Kernel) else None
    basis = kernel.basis if kernel else heads.features
    assert isinstance(basis, Basis)
    fields = {"mean": basis.mean, "projection": basis.projection}
    fields |= {name: getattr(heads, name) for name in ("parameters", "offset", "unit")}
    if kernel:
        fields |= {"landmarks": kernel.landmarks, "whitening": kernel.whitening}
        fields["width"] = np.array([kernel.width])
    return {name: np.ascontiguousarray(value) for name, value in fields.items()}
