"""Normalisation: periods brought to one radiometry by what does not change between them.

Relative normalisation by pseudo-invariant features (Schott et al. 1988): blocks of cells that
changed least are found and a line is fitted to each band through them, in turn until both settle
(as Canty & Nielsen 2008 reweight by no-change). The lines are stored in the new archive's manifest.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ecofm import artifact
from ecofm.errors import ArtifactError
from ecofm.tiles.archive import SCENES, Archive, checksum_tile, open_archive, shard_paths
from ecofm.tiles.rasters import Pixels, Valid
from ecofm.tiles.shards import ArrayFile
from ecofm.tiles.statistics import BandStatistics
from ecofm.types import Progress

BLOCKS = 4  # a side of a cell
MAX_CELLS = 2000
MIN_BLOCKS = 32
INVARIANT_SHARE = 0.5
N_ROUNDS = 20

Table = npt.NDArray[np.float64]


@dataclass(kw_only=True, slots=True)
class Line:
    """How a period's stored numbers become those of the reference: gain x + bias, by band."""

    gain: list[float]
    bias: list[float]
    n_blocks: int
    """Pseudo-invariant blocks that it was fitted to."""
    apart_before: float
    """Median distance of these blocks from the reference, in deviations of the bands."""
    apart_after: float


def normalise(
    folder: Path,
    out: Path,
    *,
    reference: str,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> dict[str, Line]:
    """Write an archive whose periods have the radiometry of `reference`; return the lines.

    Raises ArtifactError when a period shares too few cells with it.
    """
    archive = open_archive(folder)
    if reference not in archive.periods:
        raise ArtifactError(
            f"{folder} has no period {reference}, only {', '.join(archive.periods)}."
        )
    draft = artifact.Draft(
        out,
        stage="archive",
        config={**archive.manifest["config"], "normalise": reference},
        inputs=artifact.hash_inputs(archive=folder),
        overwrite=overwrite,
    )
    if draft.done:
        return {p: Line(**line) for p, line in read_lines(out).items()}
    lines = fit_lines(archive, reference)
    with draft as partial:
        draft.extra = _write(archive, partial, lines, progress)
        draft.extra["normalisation"] = {
            "reference": reference,
            "lines": {period: asdict(line) for period, line in lines.items()},
        }
    return lines


def read_lines(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the lines that an archive was normalised by, none when it was not."""
    found = artifact.read_manifest(folder, "archive").get("normalisation", {})
    return dict(found.get("lines", {}))


def fit_lines(archive: Archive, reference: str) -> dict[str, Line]:
    """Return the line of each other period, fitted to blocks of at most 2,000 cells."""
    index = archive.index
    by_period = {
        period: pd.Series(rows.index.to_numpy(), rows["cell_id"].to_numpy())
        for period, rows in index.groupby("period")
    }
    std = np.maximum(np.array(archive.contract.std), 1e-9)
    lines = {}
    for period in archive.periods:
        if period == reference:
            continue
        shared = sorted(set(by_period[period].index) & set(by_period[reference].index))
        pairs = [
            read_blocks(archive, int(by_period[period][cell]), int(by_period[reference][cell]))
            for cell in shared[:: -(-len(shared) // MAX_CELLS) or 1]
        ]
        x, y = (
            np.concatenate([pair[k] for pair in pairs]) if pairs else np.zeros((0, len(std)))
            for k in (0, 1)
        )
        if len(x) < MIN_BLOCKS:
            raise ArtifactError(
                f"{archive.path}: {period} shares {len(shared)} cells with {reference}, too few "
                "to compare their radiometry; choose another --reference."
            )
        lines[period] = fit_line(x, y, std)
    return lines


def read_blocks(archive: Archive, one: int, other: int) -> tuple[Table, Table]:
    """Return the means of blocks that are wholly valid in both tiles: (block, band) each."""
    (x, valid_x), (y, valid_y) = archive.read(one), archive.read(other)
    valid = _block_means((valid_x & valid_y)[None].astype(np.float32))[:, 0] == 1
    return _block_means(x)[valid], _block_means(y)[valid]


def _block_means(pixels: Pixels) -> Table:
    n_bands, height, width = pixels.shape
    y, x = height // BLOCKS, width // BLOCKS
    cut = pixels[:, : y * BLOCKS, : x * BLOCKS].astype(np.float64)
    means = cut.reshape(n_bands, BLOCKS, y, BLOCKS, x).mean(axis=(2, 4))
    return np.asarray(means.reshape(n_bands, -1).T)


def fit_line(x: Table, y: Table, std: Table) -> Line:
    """Return the line from x to y (block, band) through the half of the blocks that changed least.

    The first line goes through medians and quartiles, so that it does not depend on the change.
    """
    quartiles = [np.percentile(v, (25, 50, 75), axis=0) for v in (x, y)]
    (x25, x50, x75), (y25, y50, y75) = quartiles
    gain = np.where(x75 > x25, (y75 - y25) / np.maximum(x75 - x25, 1e-9), 1.0)
    bias = y50 - gain * x50
    kept = np.zeros(len(x), bool)
    for _ in range(N_ROUNDS):
        change = np.square((gain * x + bias - y) / std).sum(axis=1)
        invariant = change <= np.quantile(change, INVARIANT_SHARE)
        if (invariant == kept).all():
            break
        kept = invariant
        # Reduced major axis: noise is in both periods, and least squares would flatten the line.
        spread = np.maximum(x[kept].std(axis=0), 1e-9)
        gain = np.maximum(y[kept].std(axis=0), 1e-9) / spread
        bias = y[kept].mean(axis=0) - gain * x[kept].mean(axis=0)
    return Line(
        gain=gain.tolist(),
        bias=bias.tolist(),
        n_blocks=int(kept.sum()),
        apart_before=_apart(x[kept], y[kept], std),
        apart_after=_apart(gain * x[kept] + bias, y[kept], std),
    )


def _apart(x: Table, y: Table, std: Table) -> float:
    return float(np.median(np.abs((x - y) / std).mean(axis=1)))


def apply_line(pixels: Pixels, valid: Valid, line: Line | None) -> Pixels:
    """Return a tile's pixels on the reference's radiometry, rounded; invalid ones stay 0."""
    if line is None:
        return pixels
    limits = np.iinfo(str(pixels.dtype))
    gain, bias = (np.array(v, np.float32)[:, None, None] for v in (line.gain, line.bias))
    moved = np.rint(gain * pixels.astype(np.float32) + bias)
    moved = moved.clip(max(limits.min, 0), limits.max)
    moved[:, ~valid] = 0
    return np.asarray(moved, pixels.dtype)


def _write(
    archive: Archive, folder: Path, lines: dict[str, Line], progress: Progress | None
) -> dict[str, Any]:
    """Write shards and index; return what the manifest says besides the config."""
    index = archive.index.copy()
    statistics = BandStatistics(len(archive.contract.bands))
    (folder / "shards").mkdir()
    checksums, rows = index["checksum"].tolist(), index["row"].tolist()
    n_done = 0
    for shard, members in index.groupby("shard").groups.items():
        pixels_path, valid_path, _ = shard_paths(folder, int(shard))
        files = ArrayFile(pixels_path), ArrayFile(valid_path)
        for row, tile_index in enumerate(members):
            stored, valid = archive.read(int(tile_index))
            pixels = apply_line(stored, valid, lines.get(index["period"][tile_index]))
            statistics.add(pixels, valid)
            files[0].append(pixels)
            files[1].append(np.packbits(valid, axis=-1))
            checksums[tile_index], rows[tile_index] = checksum_tile(pixels, valid), row
            n_done += 1
            if progress:
                progress(n_done, len(index))
        for file in files:
            file.commit()
    index["checksum"], index["row"] = checksums, rows
    index.to_parquet(folder / "index.parquet")
    archive.rejected.to_parquet(folder / "rejected.parquet")
    archive.scenes.to_parquet(folder / SCENES)
    skipped = {*artifact.OWN_FIELDS, "n_shards", "index_hash"}
    return {
        **{key: value for key, value in archive.manifest.items() if key not in skipped},
        "contract": {
            **archive.contract.to_json(),
            "mean": list(statistics.mean),
            "std": list(statistics.std),
        },
        "statistics": statistics.to_json(),
    }
