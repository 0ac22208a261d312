"""The stage `rank`: embeddings and comparisons to a ranker, and the ranker's reader."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from ecofm import artifact
from ecofm.compare import hash_comparisons, read_comparisons
from ecofm.embed import open_embeddings
from ecofm.errors import ArtifactError, ComparisonError
from ecofm.rank.features import Basis, Kernel, build_basis, build_kernel
from ecofm.rank.fit import fit_heads
from ecofm.rank.heads import HEADS, HeadName, Heads, RankConfig
from ecofm.rank.items import choose_tiles, pair_items, read_members
from ecofm.rank.losses import Floats
from ecofm.types import say

WEIGHTS = "ranker.safetensors"


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
        out, stage="ranker", config=artifact.plain(config), inputs=inputs, overwrite=overwrite
    )
    if draft.done:
        say(f"{out} is done already: the same embeddings, comparisons and options.")
        return out
    pairs = pair_items(table, index["tile_id"], read_members(members) if members else None)
    if len(pairs.items) < 2:
        raise ComparisonError(f"{comparisons} compares one item only; at least two are needed.")
    chosen, cells = choose_tiles(index, config.seed)
    seen = np.asarray(matrix[chosen], dtype=np.float64)
    basis = build_basis(seen, config.components, cells, config.invariance)
    is_kernel = config.head is HeadName.gp
    random = np.random.default_rng(config.seed)
    fit = fit_heads(
        matrix, build_kernel(basis, seen, random) if is_kernel else basis, pairs, config
    )
    if fit.heads.residual is None:
        say(
            "warning: few pairs were judged twice, so nothing tells people's slips from places "
            "that stray; intervals hold the uncertainty of the heads alone."
        )
    with draft as folder:
        save_file(to_tensors(fit.heads), str(folder / WEIGHTS))
        if fit.judged is not None:
            fit.judged.table().to_csv(folder / "calibration.csv", index=False)
        draft.extra = {
            "encoder": encoder_hash,
            "n_items": len(pairs.items),
            "n_comparisons": int(pairs.counts.sum()),
            "n_annotators": len(pairs.counts),
            "decay": fit.decay,
            "held_out_loss": fit.held_out_loss,
            "residual": fit.heads.residual,
        }
    return out


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


def load_ranker(path: Path) -> tuple[Heads, dict[str, Any]]:
    """Return a ranker's heads and manifest; raises ArtifactError when it is none or damaged."""
    manifest = artifact.read_manifest(path, "ranker")
    try:
        stored = load_file(str(path / WEIGHTS))
        basis = Basis(stored["mean"], stored["projection"])
        features: Basis | Kernel = basis
        if "landmarks" in stored:
            width = float(stored["width"][0])
            features = Kernel(basis, stored["landmarks"], stored["whitening"], width)
        heads = Heads(
            HEADS[HeadName(manifest["config"]["head"])],
            features,
            stored["parameters"],
            stored["offset"],
            stored["unit"],
            manifest["residual"],
        )
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        raise ArtifactError(
            f"{path} is damaged ({error}); make it again with `ecofm rank`."
        ) from error
    return heads, manifest
