"""The stage `cluster`: embeddings to groups of like tiles, with a sheet of exemplars each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from ecofm import artifact
from ecofm.contrast import draw_tile, name_bands, warn_of_names
from ecofm.embed import Matrix, open_embeddings
from ecofm.errors import EcofmError, UsageError
from ecofm.kmeans import fit_centres, import_faiss
from ecofm.tiles.archive import Archive, TileError, open_archives
from ecofm.types import Contract, require_seed, say

SHEET_SIDE = 3
THUMBNAIL_PX = 128


@dataclass(kw_only=True, slots=True)
class ClusterConfig:
    """How tiles are grouped."""

    k: int = 20
    """Number of clusters."""
    seed: int = 0
    """Seed of FAISS's k-means."""
    iterations: int = 50
    """Lloyd iterations."""
    components: int = 64
    """Principal components that distances are taken in."""

    def __post_init__(self) -> None:
        """Raise ValueError for values that cannot be used."""
        require_seed(self.seed)
        if self.k < 2 or self.iterations < 1 or self.components < 1:
            raise UsageError("k >= 2, iterations >= 1 and components >= 1 are needed.")


def cluster(
    embeddings: Sequence[Path],
    out: Path,
    config: ClusterConfig,
    *,
    archives: Sequence[Path] = (),
    overwrite: bool = False,
) -> Path:
    """Write clusters.parquet (tile_id, item, distance) and return `out`.

    With the archives that the embeddings came from, `exemplars/{item}.png` shows the nine tiles
    nearest to each centre. Items are "0", "1"... by size, largest first.
    """
    faiss = import_faiss()
    index, matrix, _ = open_embeddings(embeddings)
    if len(index) < config.k:
        raise EcofmError(
            f"{embeddings[0]} has {len(index)} tiles, fewer than {config.k} clusters; "
            "give a smaller --k or embed more tiles."
        )
    inputs = artifact.hash_inputs(embeddings=embeddings, archive=archives)
    draft = artifact.Draft(
        out, stage="clusters", config=asdict(config), inputs=inputs, overwrite=overwrite
    )
    if draft.done:
        say(f"{out} is done already: the same embeddings and options.")
        return out
    labels, distances = _kmeans(faiss, matrix, config)
    table = pd.DataFrame(
        {"tile_id": index["tile_id"], "item": labels.astype(str), "distance": distances}
    )
    with draft as folder:
        table.to_parquet(folder / "clusters.parquet")
        draft.extra = {"n_tiles": len(table), "n_items": int(labels.max()) + 1}
        if archives:
            opened, contract = open_archives(list(archives))
            warn_of_names(contract, archives[0])
            _draw_exemplars(folder, table, opened, contract)
            draft.extra["bands_shown"] = name_bands(contract)
    return out


def _kmeans(
    faiss: Any, matrix: Matrix, config: ClusterConfig
) -> tuple[npt.NDArray[np.int64], Matrix]:
    """Return labels, by falling size, and distances to the own centre."""
    points = np.ascontiguousarray(matrix, dtype=np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        centre, spread = points.mean(axis=0), points.std(axis=0)
    if not (np.isfinite(centre).all() and np.isfinite(spread).all()):
        raise EcofmError(
            "the embeddings have numbers too large to be compared in float32; make them again "
            "with `ecofm embed`."
        )
    points = (points - centre) / (spread + 1e-6)
    n_components = min(config.components, *points.shape)
    pca = faiss.PCAMatrix(points.shape[1], n_components)
    pca.train(points)
    reduced = pca.apply(points)
    centres = fit_centres(
        reduced, config.k, seed=config.seed, iterations=config.iterations, tries=3
    )
    lookup = faiss.IndexFlatL2(n_components)
    lookup.add(centres)
    squared, nearest = lookup.search(reduced, 1)
    found, sizes = np.unique(nearest[:, 0], return_counts=True)
    rank = np.empty(config.k, dtype=np.int64)
    rank[found[np.argsort(-sizes, kind="stable")]] = np.arange(len(found))
    return rank[nearest[:, 0]], np.sqrt(np.maximum(squared[:, 0], 0))


def _draw_exemplars(
    folder: Path, table: pd.DataFrame, archives: list[Archive], contract: Contract
) -> None:
    """Write one sheet an item: the tiles nearest to its centre."""
    (folder / "exemplars").mkdir()
    places = {
        tile_id: (archive, row)
        for archive in archives
        for row, tile_id in enumerate(archive.index["tile_id"])
    }
    unknown = table["tile_id"][~table["tile_id"].isin(places.keys())]
    if len(unknown):
        raise EcofmError(
            f"{archives[0].path} lacks {len(unknown)} of the embedded tiles, first "
            f"{unknown.iloc[0]}; give every --archive that was embedded."
        )
    for item, members in table.sort_values("distance", kind="stable").groupby("item"):
        sheet = Image.new("RGB", (SHEET_SIDE * THUMBNAIL_PX,) * 2, "white")
        nearest = islice(_read_images(members["tile_id"], places, contract), SHEET_SIDE**2)
        for place, image in enumerate(nearest):
            corner = (place % SHEET_SIDE * THUMBNAIL_PX, place // SHEET_SIDE * THUMBNAIL_PX)
            sheet.paste(image.resize((THUMBNAIL_PX, THUMBNAIL_PX)), corner)
        sheet.save(folder / "exemplars" / f"{item}.png")


def _read_images(
    tile_ids: Iterable[str], places: dict[str, tuple[Archive, int]], contract: Contract
) -> Iterator[Image.Image]:
    """Yield the tiles' pictures; a tile damaged since it was embedded is named and left out."""
    for tile_id in tile_ids:
        archive, row = places[tile_id]
        try:
            pixels, valid = archive.read(row)
        except TileError as error:
            say(f"left out of the exemplars: {error}.")
        else:
            yield Image.fromarray(draw_tile(pixels, valid, contract))
