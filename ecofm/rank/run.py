"""The stage `rank`: embeddings and comparisons to a ranker, and the ranker's reader."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from ecofm import artifact
from ecofm.compare import hash_comparisons, read_comparisons
from ecofm.embed import open_embeddings
from ecofm.errors import ArtifactError, ComparisonError
from ecofm.rank.heads import LinearHeads, RankConfig, build_basis, fit_heads
from ecofm.rank.items import Indices, pair_items, read_members
from ecofm.types import say

WEIGHTS = "ranker.safetensors"
BASIS_TILES = 20_000


def rank(
    embeddings: Sequence[Path],
    comparisons: Path,
    out: Path,
    config: RankConfig,
    *,
    members: Path | None = None,
    overwrite: bool = False,
) -> Path:
    """Fit a ranker to comparisons and return `out`.

    Embeddings without comparisons help too: cells in several periods tell what does not matter.
    `members` is a clusters artifact or a table tile_id, item; without it items are tile ids.
    Raises ComparisonError for unknown items or when nothing can be learned.
    """
    table = read_comparisons(comparisons)
    inputs = artifact.hash_inputs(embeddings=embeddings, members=members)
    inputs["comparisons"] = hash_comparisons(table)
    index, matrix, encoder_hash = open_embeddings(embeddings)
    draft = artifact.Draft(
        out, stage="ranker", config=asdict(config), inputs=inputs, overwrite=overwrite
    )
    if draft.done:
        say(f"{out} is done already: the same embeddings, comparisons and options.")
        return out
    pairs = pair_items(table, index["tile_id"], read_members(members) if members else None)
    if len(pairs.items) < 2:
        raise ComparisonError(f"{comparisons} compares one item only; at least two are needed.")
    chosen, cells = _choose_tiles(index, config.seed)
    basis = build_basis(
        np.asarray(matrix[chosen], dtype=np.float64), config.components, cells, config.invariance
    )
    heads = fit_heads(matrix, basis, pairs, config)
    with draft as folder:
        save_file({"weights": heads.weights, "bias": heads.bias}, str(folder / WEIGHTS))
        draft.extra = {
            "encoder": encoder_hash,
            "n_items": len(pairs.items),
            "n_comparisons": int(pairs.counts.sum()),
            "n_annotators": len(pairs.counts),
            "decay": heads.decay,
            "held_out_loss": heads.held_out_loss if np.isfinite(heads.held_out_loss) else None,
        }
    return out


def _choose_tiles(index: pd.DataFrame, seed: int) -> tuple[Indices, Indices]:
    """Return the rows of up to BASIS_TILES tiles, whole cells at a time, and their cells."""
    # A chip's name says nothing of its place: each is a cell of its own.
    places = index["cell_id"].where(index["period"] != "none", index["tile_id"])
    cells, _ = pd.factorize(places)
    order = np.random.default_rng(seed).permutation(cells.max() + 1)[cells]
    chosen = np.sort(np.argsort(order, kind="stable")[:BASIS_TILES])
    return chosen, cells[chosen]


def load_ranker(path: Path) -> tuple[LinearHeads, dict[str, Any]]:
    """Return a ranker's heads and manifest; raises ArtifactError when it is none or damaged."""
    manifest = artifact.read_manifest(path, "ranker")
    try:
        stored = load_file(str(path / WEIGHTS))
        heads = LinearHeads(stored["weights"], stored["bias"], manifest["decay"], float("nan"))
    except (OSError, KeyError, SafetensorError) as error:
        raise ArtifactError(
            f"{path} is damaged ({error}); make it again with `ecofm rank`."
        ) from error
    return heads, manifest
