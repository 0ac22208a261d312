"""The stage `embed`: archives and an encoder to one float32 vector a tile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from ecofm import artifact, load_encoder
from ecofm.checksums import open_file
from ecofm.disk import create_array
from ecofm.errors import ArtifactError, EcofmError
from ecofm.meridian import cut_all
from ecofm.pretrain.encoders import Encoder, encoder_folder
from ecofm.tiles.archive import Archive, TileError, open_archives
from ecofm.types import Contract, Progress, say

BATCH_TILES = 32
COLUMNS = ["tile_id", "cell_id", "period", "group", "valid_share", "geometry"]

Matrix = npt.NDArray[np.float32]


class Embeddings:
    """Embeddings on disk: `matrix` float32 (n_tiles, dim), and `index` in the same row order."""

    def __init__(self, path: Path) -> None:
        """Open the artifact; raises ArtifactError when it is none or is damaged."""
        self.path = path
        self.manifest: dict[str, Any] = artifact.read_manifest(path, "embeddings")
        try:
            self.index = cut_all(gpd.read_parquet(open_file(path, self.manifest, "index.parquet")))
            self.matrix: Matrix = np.load(
                open_file(path, self.manifest, "embeddings.npy"), mmap_mode="r"
            )
        except (OSError, ValueError, EOFError) as error:
            raise ArtifactError(
                f"{path} is damaged ({error}); make it again with `ecofm embed`."
            ) from error
        dim = self.manifest.get("dim")
        if self.matrix.shape != (len(self.index), dim) or self.matrix.dtype != np.float32:
            raise ArtifactError(
                f"{path} has {self.matrix.shape} embeddings of {self.matrix.dtype} for "
                f"{len(self.index)} tiles of dimension {dim}; make it again with `ecofm embed`."
            )
        inputs = self.manifest.get("inputs")
        if not isinstance(inputs, dict) or "encoder" not in inputs:
            raise ArtifactError(f"{path} names no encoder; make it again with `ecofm embed`.")
        columns = self.manifest.get("config", {}).get("columns")
        self.encoder_hash: str = inputs["encoder"] + (f" {columns}" if columns else "")
        """Which encoder, and which part of its embeddings, these come from."""

    def warn_of_resolution(self) -> None:
        """Say so when the tiles' ground resolution is another than the encoder's."""
        known = Contract.from_json(self.manifest["contract"])
        for gsd_m in dict.fromkeys(self.manifest.get("archive_gsd_m", [])):
            known.warn_of_resolution(replace(known, gsd_m=gsd_m), "the encoder", str(self.path))


def require_tiles_once(parts: Sequence[tuple[Path, pd.DataFrame]], stage: str) -> None:
    """Raise ArtifactError when artifacts of one stage that are used together share a tile.

    `parts` are their folders with cell_id and period of their tiles. Each tile counts once: twice
    it would weigh twice, and have two scores.
    """
    keys = ["cell_id", "period"]
    whole = pd.concat([table[keys] for _, table in parts], keys=range(len(parts)))
    twice = whole[whole.duplicated()]
    if twice.empty:
        return
    cell_id, period = twice.iloc[0]
    alike = whole[(whole["cell_id"] == cell_id) & (whole["period"] == period)]
    one, other = (int(part) for part, _ in alike.index[:2])
    first, second = parts[one][0], parts[other][0]
    if one == other:
        raise ArtifactError(
            f"{first} holds {len(twice.loc[[one]])} tiles twice, first cell {cell_id} in period "
            f"{period}; make it again with `{artifact.MADE_BY[stage]}`."
        )
    shared = whole.loc[[one]].drop_duplicates().merge(whole.loc[[other]].drop_duplicates())
    cure = (
        "tile both folders of chips in one call (`ecofm tile FOLDER FOLDER --grid none --out DIR`),"
        " which puts each folder's name before its chips"
        if period == "none"
        else "tile the scenes of both into one archive (`ecofm tile SCENES... --out DIR`)"
    )
    raise ArtifactError(
        f"--{stage} {first} and --{stage} {second} share {len(shared)} tiles, first cell {cell_id} "
        f"in period {period}, and a tile counts once; give one of the two, or {cure} and embed "
        "that."
    )


def open_embeddings(paths: Sequence[Path]) -> tuple[gpd.GeoDataFrame, Matrix, str]:
    """Return (index, matrix, encoder hash) of embeddings that are used together.

    Raises ArtifactError when they come from different encoders, hold values that are not finite or
    share tiles.
    """
    parts = [Embeddings(path) for path in paths]
    for part in parts[1:]:
        if part.encoder_hash != parts[0].encoder_hash:
            raise ArtifactError(
                f"{part.path} and {parts[0].path} come from different encoders; embed both "
                "archives with one."
            )
    for part in parts:
        bad = ~np.isfinite(part.matrix).all(axis=1)
        if bad.any():
            tile_id = part.index["tile_id"].iloc[int(bad.argmax())]
            raise ArtifactError(
                f"{part.path} has {int(bad.sum())} embeddings that are not finite, first "
                f"{tile_id}; make it again with `ecofm embed`."
            )
    require_tiles_once([(part.path, part.index) for part in parts], "embeddings")
    index = pd.concat([part.index for part in parts], ignore_index=True)
    # One part stays a memory map.
    matrix = parts[0].matrix if len(parts) == 1 else np.concatenate([p.matrix for p in parts])
    return index, matrix, parts[0].encoder_hash


def embed(
    archives: Sequence[Path],
    encoder: Path,
    out: Path,
    *,
    columns: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Write the embedding of every tile and return `out`.

    `columns` takes one part of the embeddings only, by a name that the encoder's config.json has.
    Tiles whose bytes are damaged are left out by name in `rejected.parquet`. Raises
    ContractError when the archives break the encoder's contract, ArtifactError when they share
    tiles, ValueError when the encoder has no such columns.
    """
    opened, contract = open_archives(list(archives))
    model, known = load_encoder(encoder)
    known.require_match(contract, str(encoder), str(archives[0]))
    for archive in opened:
        known.warn_of_resolution(archive.contract, str(encoder), str(archive.path))
    require_tiles_once([(archive.path, archive.index) for archive in opened], "archive")
    chosen = slice(0, model.dim) if columns is None else model.find_columns(columns)
    dim = chosen.stop - chosen.start
    inputs = artifact.hash_inputs(archive=archives, encoder=encoder_folder(encoder))
    config = {} if columns is None else {"columns": columns}
    draft = artifact.Draft(
        out, stage="embeddings", config=config, inputs=inputs, overwrite=overwrite
    )
    if draft.done:
        say(f"{out} is done already: the same archives and encoder.")
        return out
    n_tiles = sum(archive.n_tiles for archive in opened)
    with draft as folder:
        rejected: dict[str, str] = {}
        kept: list[int] = []
        matrix = create_array(folder / "all.npy", (n_tiles, dim))
        for rows, vectors in _embed_tiles(opened, model, rejected):
            matrix[rows] = vectors[:, chosen]
            kept.extend(rows)
            if progress:
                progress(min(rows[-1] + 1, n_tiles), n_tiles)
        if not kept:
            raise EcofmError(f"no tile of {archives[0]} can be read; tile its scenes again.")
        index = pd.concat([a.index[COLUMNS] for a in opened], ignore_index=True)
        _write(folder, matrix, index, kept, rejected)
        draft.extra = {
            "dim": dim,
            "n_tiles": len(kept),
            "n_rejected": len(rejected),
            "contract": known.to_json(),
            "archive_tile_px": [list(archive.tile_px) for archive in opened],
            "archive_gsd_m": [archive.contract.gsd_m for archive in opened],
            "attribution": "; ".join(dict.fromkeys(a.attribution for a in opened)),
        }
    return out


def _write(
    folder: Path, matrix: Matrix, index: gpd.GeoDataFrame, kept: list[int], rejected: dict[str, str]
) -> None:
    if rejected:
        np.save(folder / "embeddings.npy", matrix[kept])
        (folder / "all.npy").unlink()
        index = index.iloc[kept].reset_index(drop=True)
    else:
        (folder / "all.npy").rename(folder / "embeddings.npy")
    index.to_parquet(folder / "index.parquet")
    table = pd.DataFrame(rejected.items(), columns=["path", "reason"], dtype=str)
    table.to_parquet(folder / "rejected.parquet")


def _embed_tiles(
    archives: list[Archive], model: Encoder, rejected: dict[str, str]
) -> Iterator[tuple[list[int], Matrix]]:
    """Yield (rows over all archives, their vectors), a batch at a time."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = model.to(device)
    start = 0
    for archive in archives:
        for first in range(0, archive.n_tiles, BATCH_TILES):
            rows: list[int] = []
            tiles = []
            for tile_index in range(first, min(first + BATCH_TILES, archive.n_tiles)):
                try:
                    tiles.append(archive.read(tile_index))
                    rows.append(start + tile_index)
                except TileError as error:
                    rejected[str(archive.index["tile_id"].iloc[tile_index])] = str(error)
            if tiles:
                pixels = torch.from_numpy(np.stack([pixels for pixels, _ in tiles])).to(device)
                valid = torch.from_numpy(np.stack([valid for _, valid in tiles])).to(device)
                with torch.inference_mode():
                    yield rows, model(pixels, valid).cpu().numpy()
        start += archive.n_tiles
