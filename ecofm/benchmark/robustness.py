"""How much a ranker's score depends on what does not matter: haze, colour, blur, gaps, the year.

Every shift is in units of the score's own deviation over tiles, so that rankers compare.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.ndimage import gaussian_filter
from scipy.stats import spearmanr

from ecofm import load_encoder
from ecofm.artifact import Draft, hash_input, hash_inputs, write_json, write_text
from ecofm.benchmark.baselines import MEAN_COLOUR, describe_tile
from ecofm.benchmark.metrics import MIN_PAIRS, bound, partial, resample_correlations
from ecofm.benchmark.proxies import Proxies, read_proxies
from ecofm.benchmark.robustness_looks import draw_robustness, render_table
from ecofm.errors import ArtifactError, EcofmError, UsageError
from ecofm.pretrain.encoders import Encoder, encoder_folder
from ecofm.rank.items import choose_tiles
from ecofm.rank.opening import load_ranker
from ecofm.rank.targets import Ranker
from ecofm.tables import write_csv
from ecofm.tiles.archive import Archive, TileError, open_archive
from ecofm.tiles.normalise import fit_line, read_blocks
from ecofm.tiles.rasters import Pixels, Valid
from ecofm.types import Contract, Progress, require_seed, say

HAZE = (0.68, 0.82, 1.0)
"""Optical depth of haze in red, green and blue relative to blue; other bands have 0.5."""
MIN_BLOCKS = 32
INVARIANT_SHARE = 0.5
"""Share of the cells, those that changed least, whose ground is taken as unchanged."""
Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(kw_only=True, slots=True)
class RobustnessConfig:
    """What is measured."""

    column: str | None = None
    """Column of the proxies; needed when they have several."""
    max_tiles: int = 400
    """Tiles that are perturbed, drawn at random, whole cells at a time."""
    n_bootstrap: int = 1_000
    """Resamples of the cells for the partial correlation's 95 % interval."""
    seed: int = 0
    """Seed of the tiles, perturbations and resamples."""

    def __post_init__(self) -> None:
        """Raise ValueError for values that cannot be used."""
        require_seed(self.seed)
        if self.max_tiles < MIN_PAIRS or self.n_bootstrap < 1_000:
            raise UsageError(f"max_tiles >= {MIN_PAIRS} and n_bootstrap >= 1000 are needed.")


@dataclass(frozen=True, slots=True)
class Lens:
    """One perturbation: stored pixels (band, height, width), valid and a seed to the same."""

    name: str
    apply: Callable[[Floats, Valid, Contract, np.random.Generator], tuple[Floats, Valid]]


def add_haze(share: float) -> Lens:
    """Return a veil that hides `share` of the light in blue, and shines as bright ground does."""

    def apply(
        pixels: Floats, valid: Valid, contract: Contract, random: np.random.Generator
    ) -> tuple[Floats, Valid]:
        depth = np.full(len(pixels), 0.5)
        if (colour := contract.true_colour()) is not None:
            depth[list(colour)] = HAZE
        clear = np.exp(np.log(1 - share) * depth)[:, None, None]
        glow = (np.array(contract.mean) + np.array(contract.std))[:, None, None]
        return glow + (pixels - glow) * clear, valid

    return Lens(f"haze {share:.0%}", apply)


def shift_colour(spread: float) -> Lens:
    """Return gains of each band that deviate by `spread`, others for each tile."""

    def apply(
        pixels: Floats, valid: Valid, contract: Contract, random: np.random.Generator
    ) -> tuple[Floats, Valid]:
        gain = 1 + spread * random.standard_normal(len(pixels))[:, None, None]
        return (pixels + contract.offset) * gain - contract.offset, valid

    return Lens(f"colour {spread:.0%}", apply)


def _blur(
    pixels: Floats, valid: Valid, contract: Contract, random: np.random.Generator
) -> tuple[Floats, Valid]:
    return gaussian_filter(pixels, (0, 1, 1)), valid


def _halve(
    pixels: Floats, valid: Valid, contract: Contract, random: np.random.Generator
) -> tuple[Floats, Valid]:
    """Return every 2 x 2 pixels as their mean; an odd last row or column stays as it is."""
    halved = pixels.copy()
    height, width = (size - size % 2 for size in valid.shape)
    coarse = pixels[:, :height, :width].reshape(len(pixels), height // 2, 2, width // 2, 2)
    means = coarse.mean(axis=(2, 4))
    halved[:, :height, :width] = means.repeat(2, axis=1).repeat(2, axis=2)
    return halved, valid


def hide(share: float) -> Lens:
    """Return a gap over `share` of the tile, from one of its edges."""

    def apply(
        pixels: Floats, valid: Valid, contract: Contract, random: np.random.Generator
    ) -> tuple[Floats, Valid]:
        turns = int(random.integers(4))
        kept = np.rot90(valid.copy(), turns)
        kept[: round(share * len(kept))] = False
        return pixels, np.ascontiguousarray(np.rot90(kept, -turns))

    return Lens(f"nodata {share:.0%}", apply)


LENSES = (
    add_haze(0.2), add_haze(0.4), shift_colour(0.05), shift_colour(0.1), Lens("blur 1 px", _blur),
    Lens("half resolution", _halve), hide(0.25), hide(0.5),
)  # fmt: skip


def robustness(
    ranker: Path,
    encoder: Path,
    archive: Path,
    out: Path,
    config: RobustnessConfig,
    *,
    proxies: Path | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Write robustness.json, .csv, .md and .png, and return `out`.

    Shifts of the score under each of `LENSES`; the rank correlation and shift between each two
    periods, over all cells and over the half whose ground changed least; the correlation with
    mean colour; with `proxies`, the rank correlation with a proxy, alone and given mean colour.
    Raises ArtifactError when the ranker was fitted on another encoder, ContractError when the
    archive breaks the encoder's contract.
    """
    heads, manifest = load_ranker(ranker)
    model, contract = load_encoder(encoder)
    if hash_input(encoder_folder(encoder)) != manifest["encoder"]:
        raise ArtifactError(
            f"{ranker} was fitted on another encoder than {encoder}; give the one that its "
            "embeddings came from."
        )
    tiles = open_archive(archive)
    contract.require_match(tiles.contract, str(encoder), str(archive))
    inputs = hash_inputs(
        ranker=ranker, encoder=encoder_folder(encoder), archive=archive, proxies=proxies
    )
    draft = Draft(
        out, stage="robustness", config=asdict(config), inputs=inputs, overwrite=overwrite
    )
    if draft.done:
        say(f"{out} is done already.")
        return out
    proxy = choose_proxy(proxies, config) if proxies else None  # before minutes of work
    found = score_lenses(heads, model, tiles, config, progress)
    scale = float(found["score"].std(ddof=1))
    if len(found) < MIN_PAIRS or not scale > 0:
        raise EcofmError(
            f"{archive} has {len(found)} readable tiles with {found['score'].nunique()} different "
            f"scores; at least {MIN_PAIRS} tiles that differ are needed."
        )
    report: dict[str, Any] = {
        "n_tiles": len(found),
        "score_deviation": scale,
        "shifts": [measure_shift(found, lens.name, scale) for lens in LENSES],
        "years": measure_years(found, tiles, scale),
        "colour": {name: float(spearmanr(found["score"], found[name])[0]) for name in MEAN_COLOUR},
        "proxy": measure_proxy(found, *proxy, config) if proxy else None,
        "attribution": tiles.attribution,
    }
    with draft as folder:
        write_json(folder / "robustness.json", report)
        write_csv(pd.DataFrame(report["shifts"]), folder / "robustness.csv")
        write_text(folder / "robustness.md", render_table(report) + "\n")
        draw_robustness(report, folder / "robustness.png")
    return out


def score_lenses(
    heads: Ranker,
    model: Encoder,
    archive: Archive,
    config: RobustnessConfig,
    progress: Progress | None,
) -> pd.DataFrame:
    """Return tile_index, cell_id, period, mean colour, score, and the score under each lens."""
    index = archive.index
    chosen, _ = choose_tiles(index, config.seed, config.max_tiles)
    rows = []
    for step, tile_index in enumerate(chosen.tolist()):
        try:
            pixels, valid = archive.read(tile_index)
        except TileError as error:
            say(f"left out: {error}.")
            continue
        row = {"tile_index": tile_index, "cell_id": index["cell_id"].iloc[tile_index]}
        row["period"] = index["period"].iloc[tile_index]
        row |= {k: v for k, v in describe_tile(pixels, valid, archive.contract, {}).items()
                if k in MEAN_COLOUR}  # fmt: skip
        if set(MEAN_COLOUR) <= set(row):
            random = np.random.default_rng([config.seed, tile_index])
            names = ["score", *(lens.name for lens in LENSES)]
            versions = [(pixels, valid), *_look(pixels, valid, archive.contract, random)]
            rows.append(row | dict(zip(names, _score(heads, model, versions), strict=True)))
        if progress:
            progress(step + 1, len(chosen))
    return pd.DataFrame(rows, columns=None if rows else ["score"])


def _look(
    pixels: Pixels, valid: Valid, contract: Contract, random: np.random.Generator
) -> list[tuple[Pixels, Valid]]:
    """Return the tile under each lens, as stored numbers."""
    limits = np.iinfo(str(pixels.dtype))
    seen = []
    for lens in LENSES:
        changed, kept = lens.apply(pixels.astype(np.float64), valid, contract, random)
        stored = np.rint(changed).clip(limits.min, limits.max).astype(pixels.dtype)
        stored[:, ~kept] = 0
        seen.append((stored, kept))
    return seen


def _score(heads: Ranker, model: Encoder, tiles: list[tuple[Pixels, Valid]]) -> list[float]:
    """Return the ensemble's mean score of tiles."""
    stacks = (np.stack([tile[k] for tile in tiles]) for k in (0, 1))
    with torch.inference_mode():
        vectors = model(*map(torch.from_numpy, stacks)).numpy()
    return [float(value) for value in heads.predict(vectors).mean(axis=0)]


def measure_shift(found: pd.DataFrame, name: str, scale: float) -> dict[str, Any]:
    """Return mean, deviation and rank correlation of the score under a lens."""
    shift = (found[name] - found["score"]) / scale
    return {
        "lens": name,
        "mean_shift": float(shift.mean()),
        "deviation": float(shift.std(ddof=1)),
        "rank_correlation": _correlate(found[name], found["score"]),
    }


def _correlate(one: pd.Series, other: pd.Series) -> float | None:
    """Return Spearman's correlation; None where one of them is constant."""
    if one.nunique() < 2 or other.nunique() < 2:
        return None
    return float(spearmanr(one, other)[0])


def measure_years(found: pd.DataFrame, archive: Archive, scale: float) -> list[dict[str, Any]]:
    """Return for each two periods how alike their scores are, over all and unchanged cells."""
    wide = found.pivot_table(index="cell_id", columns="period", values="score")
    places = found.pivot_table(index="cell_id", columns="period", values="tile_index")
    rows = []
    for first, second in combinations(wide.columns, 2):
        both = wide[[first, second]].dropna()
        if len(both) < MIN_PAIRS:
            continue
        change = measure_ground(archive, places.loc[both.index, [first, second]].astype(int))
        row: dict[str, Any] = {"from": first, "to": second, "n_cells": len(both)}
        row["rank_correlation"] = _correlate(both[first], both[second])
        still = both[change <= change.quantile(INVARIANT_SHARE)]
        row["n_unchanged"] = len(still)
        is_enough = len(still) >= MIN_PAIRS
        row["unchanged"] = _correlate(still[first], still[second]) if is_enough else None
        row["mean_shift"] = float((still[second] - still[first]).mean() / scale) if is_enough \
            else None  # fmt: skip
        rows.append(row)
    return rows


def measure_ground(archive: Archive, places: pd.DataFrame) -> pd.Series:
    """Return how much the ground of each cell changed, in deviations of the bands; NaN unknown.

    Two columns of tile indices, by cell. What a line between the periods' radiometry through the
    least changed blocks does not explain (see `ecofm normalise`), the mean over a cell's blocks.
    """
    std = np.maximum(np.array(archive.contract.std), 1e-9)
    pairs = [read_blocks(archive, *row) for row in places.to_numpy().tolist()]
    x, y = (np.concatenate([pair[k] for pair in pairs]) for k in (0, 1))
    if len(x) < MIN_BLOCKS:
        return pd.Series(np.nan, index=places.index)
    line = fit_line(x, y, std)
    change = [
        float(np.abs((np.array(line.gain) * a + line.bias - b) / std).mean()) if len(a) else np.nan
        for a, b in pairs
    ]
    return pd.Series(change, index=places.index)


def choose_proxy(path: Path, config: RobustnessConfig) -> tuple[Proxies, str]:
    """Return the table and the column to use; raises EcofmError where that is not one by cell."""
    proxy = read_proxies(path)
    targets = proxy.pick_targets([config.column] if config.column else None, [])
    if proxy.level != "cell" or len(targets) > 1:
        raise EcofmError(
            f"{path} is by {proxy.level} with columns {', '.join(targets)}; expected a table by "
            "cell_id, and one column, chosen with --column."
        )
    return proxy, targets[0]


def measure_proxy(
    found: pd.DataFrame, proxy: Proxies, target: str, config: RobustnessConfig
) -> dict[str, Any]:
    """Return Spearman with the proxy, alone and given mean colour, of cells' means over periods."""
    means = found.groupby("cell_id")[["score", *MEAN_COLOUR]].mean()
    periods = sorted(found["period"].unique())
    joined = proxy.join(means.index, periods, "the archive")
    for note in [*proxy.explain([target], False), *joined.notes]:
        say(note)
    values = joined.proxies.at(periods)[target]
    table = means.join(values.rename("target"), how="inner").dropna()
    if len(table) < MIN_PAIRS + len(MEAN_COLOUR):
        raise EcofmError(
            f"{proxy.path} knows {len(table)} of the {len(means)} measured cells; expected rows by "
            f"cell_id such as {means.index[0]}."
        )
    columns = table[["score", "target", *MEAN_COLOUR]].to_numpy(np.float64)
    drawn = resample_correlations(
        columns, ranks=True, n_resamples=config.n_bootstrap, seed=config.seed
    )
    whole = np.corrcoef(table[["score", "target", *MEAN_COLOUR]].rank().to_numpy().T)
    plain, given = bound(drawn[:, 0, 1]), bound(partial(drawn))
    return {
        "target": target, "n_cells": len(table),
        "spearman": float(whole[0, 1]), "lower": plain[0], "upper": plain[1],
        "given_colour": float(np.clip(partial(whole), -1, 1)), "given_colour_lower": given[0],
        "given_colour_upper": given[1],
    }  # fmt: skip
