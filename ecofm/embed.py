"""The stage `embed`: archives and an encoder to one float32 vector a tile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from ecofm import artifact, load_encoder
from ecofm.checksums import open_file
from ecofm.disk import create_array
from ecofm.errors import ArtifactError, EcofmError, UsageError
from ecofm.fields import Partial, read_fields
from ecofm.geotables import INDEX, read_geotable
from ecofm.pretrain.encoders import Encoder, encoder_folder
from ecofm.tensors import map_array
from ecofm.tiles.archive import Archive, TileError, open_archives
from ecofm.types import Contract, Progress, say

BATCH_TILES = 32
MADE_BY = artifact.MADE_BY["embeddings"]
COLUMNS = ["tile_id", "cell_id", "period", "group", "valid_share", "geometry"]

Matrix = npt.NDArray[np.float32]


class Embeddings:
    """Embeddings on disk: `matrix` float32 (n_tiles, dim), and `index` in the same row order."""

    def __init__(self, path: Path) -> None:
        """Open the artifact; raises ArtifactError when it is none or is damaged."""
        self.path = path
        self.manifest: dict[str, Any] = artifact.read_manifest(path, "embeddings")
        self.notes = read_notes(path)
        vectors = open_file(path, self.manifest, "embeddings.npy")
        self.matrix: Matrix = _map_matrix(vectors, self.notes.dim)
        rows = open_file(path, self.manifest, "index.parquet")
        self.index = read_geotable(rows, INDEX, n_rows=len(self.matrix), made_by=MADE_BY)

    @property
    def encoder_hash(self) -> str:
        """Which encoder, and which part of its embeddings, these come from."""
        columns = self.notes.config.columns
        return self.notes.inputs["encoder"] + (f" {columns}" if columns else "")

    def warn_of_resolution(self) -> None:
        """Say so when the tiles' ground resolution is another than the encoder's."""
        known = self.notes.contract
        for gsd_m in dict.fromkeys(self.notes.archive_gsd_m) if known else ():
            assert known
            known.warn_of_resolution(replace(known, gsd_m=gsd_m), "the encoder", str(self.path))


@dataclass(frozen=True, kw_only=True, slots=True)
class Part(Partial):
    """Which part of an encoder's embeddings an artifact holds."""

    columns: str | None = None
    """Its name; None: all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Notes(Partial):
    """What the manifest of embeddings says of them, as far as anything depends on it."""

    dim: int
    """Length of a vector."""
    inputs: dict[str, str]
    """Hashes, `encoder` among them."""
    config: Part = field(default_factory=Part)
    """The options that made them."""
    contract: Contract | None = None
    """The pixels that the encoder takes; embeddings from elsewhere have none."""
    archive_tile_px: list[tuple[int, int]] = field(default_factory=list)
    """Height and width of each archive's tiles."""
    archive_gsd_m: list[float | None] = field(default_factory=list)
    """Ground resolution of each archive."""
    attribution: str = ""
    """Whose imagery it is."""


def read_notes(path: Path) -> Notes:
    """Return what a manifest of embeddings says; raises ArtifactError when it is damaged."""
    manifest = artifact.read_manifest(path, "embeddings")
    try:
        notes = read_fields(Notes, manifest)
        if notes.contract is not None:
            notes.contract.require_sense()
        if "encoder" not in notes.inputs:
            raise UsageError("it names no encoder.")
    except UsageError as error:
        raise ArtifactError(
            f"{path / artifact.MANIFEST}: {error} Make it again with `{MADE_BY}`."
        ) from error
    return notes


def _map_matrix(path: Path, dim: int) -> Matrix:
    """Return the vectors as a memory map; raises ArtifactError for what is none of theirs."""
    try:
        found = map_array(path)
        if found.ndim != 2 or found.shape[1] != dim or found.dtype != np.float32:
            raise ArtifactError(
                f"{path} has {found.shape} embeddings of {found.dtype}, expected float32 of "
                f"dimension {dim}."
            )
    except ArtifactError as error:
        raise ArtifactError(f"{error} Make it again with `{MADE_BY}`.") from error
    return cast(Matrix, found)


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
                    vectors = model(pixels, valid).cpu().numpy()
                bad = ~np.isfinite(vectors).all(axis=1)
                if bad.any():
                    tile_id = archive.name(rows[int(bad.argmax())] - start)
                    raise EcofmError(
                        f"the encoder turns tile {tile_id} of {archive.path} into numbers that are "
                        "not finite: its weights are damaged; train it again (`ecofm pretrain`)."
                    )
                yield rows, vectors
        start += archive.n_tiles
