"""What a run is watched by: labelled chips and proxies that never enter training or stopping."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from ecofm.errors import EcofmError
from ecofm.lettering import label, save_figure
from ecofm.pretrain import health
from ecofm.pretrain.card import read_metrics
from ecofm.pretrain.encoders import Encoder
from ecofm.tables import (
    PERIOD_COLUMNS,
    column_name,
    match_keys,
    match_periods,
    read_number_columns,
    read_table,
)
from ecofm.tiles.archive import Archive, TileError, find_tile, open_archive
from ecofm.types import Contract, say

MAX_TILES = 500
BATCH_TILES = 16
KEYS = ("tile_id", "cell_id")


class Monitor:
    """A sample of labelled chips and of tiles with proxies, embedded now and then."""

    def __init__(
        self,
        archives: Sequence[Archive],
        contract: Contract,
        *,
        chips: Path | None = None,
        proxies: Path | None = None,
    ) -> None:
        """Read the samples; `group` of a chip is its label, `proxies` a CSV or Parquet table.

        Raises EcofmError when there is nothing to compare, ContractError for other chips.
        """
        self._chips: tuple[Tensor, Tensor, NDArray[np.int64]] | None = None
        self._tiles: tuple[Tensor, Tensor, pd.DataFrame] | None = None
        if chips is not None:
            self._chips = _read_chips(chips, contract)
        if proxies is not None:
            self._tiles = _read_proxies(archives, proxies)

    def measure(self, encoder: Encoder) -> dict[str, float]:
        """Return kNN accuracy and rank correlations of held-out linear probes."""
        found: dict[str, float] = {}
        if self._chips:
            pixels, valid, labels = self._chips
            found["knn"] = health.knn_accuracy(embed(encoder, pixels, valid), labels)
        if self._tiles:
            pixels, valid, values = self._tiles
            embeddings = embed(encoder, pixels, valid)
            for name in values:
                column = values[name].to_numpy(dtype=float)
                known = np.isfinite(column)
                found[f"probe_{name}"] = health.probe_spearman(embeddings[known], column[known])
        return found


def embed(encoder: Encoder, pixels: Tensor, valid: Tensor) -> NDArray[np.float32]:
    """Return embeddings (tile, dim) and leave the encoder in the mode that it was in."""
    device = encoder.mean.device
    was_training = encoder.training
    encoder.eval()
    try:
        with torch.no_grad():
            parts = [
                encoder(
                    pixels[i : i + BATCH_TILES].to(device), valid[i : i + BATCH_TILES].to(device)
                )
                for i in range(0, len(pixels), BATCH_TILES)
            ]
    finally:
        encoder.train(was_training)
    embeddings: NDArray[np.float32] = torch.cat(parts).float().cpu().numpy()
    return embeddings


def _read_chips(path: Path, contract: Contract) -> tuple[Tensor, Tensor, NDArray[np.int64]]:
    archive = open_archive(path)
    contract.require_match(archive.contract, "the run", str(path))
    rows, pixels, valid = _sample([archive], np.ones(archive.n_tiles, dtype=bool))
    labels = np.unique(archive.index["group"].to_numpy()[rows], return_inverse=True)[1]
    if labels.max() < 1:
        raise EcofmError(
            f"{path} has chips of one group only; put chips of each label into a folder and tile "
            "them with --grid none."
        )
    return pixels, valid, labels


def _read_proxies(archives: Sequence[Archive], path: Path) -> tuple[Tensor, Tensor, pd.DataFrame]:
    table = read_table(path)
    key = table.find(*KEYS)
    if key is None:
        raise EcofmError(f"{path} has neither a column tile_id nor cell_id.")
    ids = pd.concat([archive.index[column_name(key)] for archive in archives], ignore_index=True)
    given = table.text(key)
    match = match_keys(ids, given, ("the archive", str(path)))
    period = table.find(*PERIOD_COLUMNS)
    others = [name for name in table.columns if name not in (key, period)]
    columns = read_number_columns(table, others).values()
    for note in [*table.notes, *match.notes, *(note for c in columns for note in c.notes)]:
        say(note)
    for column in columns:
        if column.fault and not column.is_text:
            say(f"left out of the monitoring: {column.fault}.")
    frame = pd.DataFrame({c.name: c.values for c in columns if c.values is not None})
    ours = {theirs: mine for mine, theirs in match.pairs.items()}
    names, wanted = [pd.Series(given, dtype=object).map(ours)], [ids]
    if period is not None and column_name(key) == "cell_id":
        times = pd.concat([archive.index["period"] for archive in archives], ignore_index=True)
        written = table.text(period)
        names.append(pd.Series(written, dtype=object).map(match_periods(written, times)))
        wanted.append(times)
    frame.index = pd.MultiIndex.from_arrays(names)
    frame = frame[np.logical_and.reduce([name.notna() for name in names])]
    if (twice := frame.index.duplicated()).any():
        raise EcofmError(
            f"{path} has two rows for {' in period '.join(frame.index[twice][0])}; keep one of "
            "them, or call the column that tells their time `period`."
        )
    values = frame.reindex(pd.MultiIndex.from_arrays(wanted)).reset_index(drop=True)
    known = values.notna().any(axis=1).to_numpy()
    if known.sum() < 2 * health.N_FOLDS:
        raise EcofmError(
            f"{path} has numbers for {int(known.sum())} of the tiles; a probe needs "
            f"{2 * health.N_FOLDS}."
        )
    rows, pixels, valid = _sample(archives, known)
    values = values.iloc[rows]
    enough = [name for name in values if values[name].notna().sum() >= 2 * health.N_FOLDS]
    return pixels, valid, values[enough]


def _sample(
    archives: Sequence[Archive], eligible: NDArray[np.bool_]
) -> tuple[list[int], Tensor, Tensor]:
    """Return up to MAX_TILES rows over all archives, their pixels and their valid masks."""
    chosen = np.random.default_rng(0).permutation(np.flatnonzero(eligible))[:MAX_TILES]
    rows, tiles = [], []
    for row in np.sort(chosen).tolist():
        archive, place = find_tile(archives, row)
        try:
            tiles.append(archive.read(place))
            rows.append(row)
        except TileError as error:
            say(f"left out of the monitoring: {error}.")
    if not rows:
        raise EcofmError("none of the tiles for monitoring can be read; tile their scenes again.")
    pixels, valid = (torch.from_numpy(np.stack(part)) for part in zip(*tiles, strict=True))
    return rows, pixels, valid


def draw_health(metrics: Path, picture: Path) -> None:
    """Draw every figure of metrics.jsonl against the step, one panel each."""
    from matplotlib.figure import Figure

    series: dict[str, dict[int, float]] = {}
    for fields in read_metrics(metrics):
        if "event" not in fields:
            for name, value in fields.items():
                if isinstance(value, int | float):
                    series.setdefault(name, {})[fields["step"]] = value
    series.pop("step", None)
    if not series:
        return
    n_rows = -(-len(series) // 3)
    figure = Figure(figsize=(12, 2.6 * n_rows), layout="constrained")
    for place, (name, values) in enumerate(series.items()):
        axes = figure.add_subplot(n_rows, 3, place + 1)
        axes.plot(*zip(*sorted(values.items()), strict=True), linewidth=1, marker=".", markersize=2)
        axes.set_title(label(name), fontsize=9)
        axes.tick_params(labelsize=7)
    beside = picture.with_name(f".{picture.name}.partial")
    save_figure(figure, beside, 80)
    beside.replace(picture)
