"""`ecofm embed`."""

from __future__ import annotations

from pathlib import Path

from ecofm.embed import Embeddings
from ecofm.embed import embed as run_embed
from ecofm.types import progress_bar
from ecofm.verbs.outcome import conclude


def embed(
    *,
    archive: list[Path],
    encoder: Path,
    out: Path,
    columns: str | None = None,
    overwrite: bool = False,
    strict: bool = False,
) -> None:
    """Turn every tile of some archives into a float32 vector.

    Args:
        archive: Archive folders; give the flag once for each. They may not share tiles.
        encoder: What `ecofm pretrain` wrote.
        out: The embeddings' folder.
        columns: One part of the embeddings only: features, words, or a sub-space that the
            encoder's config.json names, such as invariant or years.
        overwrite: Replace other embeddings that OUT holds.
        strict: Exit with 1 when any tile was left out.
    """
    run_embed(
        archive, encoder, out, columns=columns, overwrite=overwrite, progress=progress_bar("embed")
    )
    matrix = Embeddings(out).matrix
    conclude(out, f"{matrix.shape[0]} embeddings of {matrix.shape[1]} dimensions", strict=strict)
