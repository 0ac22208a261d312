"""The stage `finetune`: encoder and head together, from comparisons of items.

An item stands at the mean score of a few of its members. The ranking loss is joined by a
consistency loss: the same cell in another colour and haze, and in another period where it has one,
must score alike. A large difference costs no more than its size, for the ground may have changed.
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import final

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrize import (
    is_parametrized,
    register_parametrization,
    remove_parametrizations,
)

from ecofm import artifact, load_encoder
from ecofm.compare import hash_comparisons, read_comparisons
from ecofm.compare.members import read_members
from ecofm.embed import embed, open_embeddings, require_tiles_once
from ecofm.errors import EcofmError, UsageError
from ecofm.fields import require_finite
from ecofm.lock import Lock
from ecofm.pretrain import encoders
from ecofm.pretrain.encoders import Encoder, encoder_folder
from ecofm.pretrain.places import PlaceFinder
from ecofm.pretrain.rendering import render_tiles
from ecofm.pretrain.views import ViewConfig, draw_parameters
from ecofm.rank.evidence import Evidence, weigh_evidence
from ecofm.rank.fit import judge_embeddings
from ecofm.rank.heads import RankConfig
from ecofm.rank.items import Indices, ItemPairs, number_cells, pair_items
from ecofm.rank.losses import davidson
from ecofm.rank.run import build_features, rank
from ecofm.rank.unseen import deal_places
from ecofm.tiles.archive import Archive, TileError, find_tile, open_archives
from ecofm.tiles.rasters import Pixels, Valid
from ecofm.types import Progress, require_seed, say

Tile = tuple[Pixels, Valid]


class Trained(Enum):
    """Which part of the encoder learns."""

    last = "last"
    lora = "lora"
    all = "all"


@dataclass(kw_only=True, slots=True)
class FinetuneConfig:
    """How an encoder learns from comparisons."""

    steps: int = 200
    """Number of batches."""
    pairs: int = 8
    """Pairs of items a step."""
    exemplars: int = 4
    """Members that stand for an item in a step, drawn anew each time."""
    seed: int = 0
    """Seed of pairs, members and views."""
    learning_rate: float = 1e-4
    """Learning rate of the encoder; the head's is ten times as large."""
    trained: Trained = Trained.last
    """`last`: the last child module of the backbone; `lora`: a change of low rank to every weight;
    `all`: everything."""
    lora_rank: int = 8
    """Rank of that change."""
    consistency: float = 0.5
    """Weight of the squared score difference between two renderings of a cell."""
    views: ViewConfig = field(default_factory=lambda: ViewConfig(size_px=128))
    """The renderings."""
    rank: RankConfig = field(default_factory=RankConfig)
    """The ranker that is fitted on the tuned embeddings at the end."""

    def __post_init__(self) -> None:
        """Raise ValueError for values that cannot be used."""
        require_seed(self.seed)
        require_finite(self.learning_rate, "learning_rate")
        require_finite(self.consistency, "consistency")
        few = min(self.steps, self.pairs, self.exemplars, self.lora_rank) < 1
        if few or self.learning_rate <= 0 or self.consistency < 0:
            raise UsageError(
                "steps, pairs, exemplars, lora_rank >= 1, learning_rate > 0, consistency >= 0 are "
                "needed."
            )


def finetune(
    archives: Sequence[Path],
    encoder: Path,
    comparisons: Path,
    out: Path,
    config: FinetuneConfig,
    *,
    members: Path | None = None,
    overwrite: bool = False,
    force: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Write `encoder/`, the archives' `embeddings/` and `ranker/` into `out` and return it.

    An encoder that has seen the comparisons cannot judge them: so it is tuned once without half
    of the places first, and what was said of those decides. Raises ComparisonError for unknown
    items, ContractError when the archives break the encoder's contract, and EcofmError when the
    ranker would be no better than chance, unless `force` has it written.
    """
    with Lock(out, "finetune"):
        return _finetune(
            archives, encoder, comparisons, out, config, members, overwrite, force, progress
        )


def _finetune(
    archives: Sequence[Path],
    encoder: Path,
    comparisons: Path,
    out: Path,
    config: FinetuneConfig,
    members: Path | None,
    overwrite: bool,
    force: bool,
    progress: Progress | None,
) -> Path:
    opened, contract = open_archives(list(archives))
    require_tiles_once([(archive.path, archive.index) for archive in opened], "archive")
    model, known = load_encoder(encoder)
    known.require_match(contract, str(encoder), str(archives[0]))
    for archive in opened:
        known.warn_of_resolution(archive.contract, str(encoder), str(archive.path))
    tile_ids = pd.concat([archive.index["tile_id"] for archive in opened], ignore_index=True)
    said = read_comparisons(comparisons)
    pairs = pair_items(said, tile_ids, read_members(members) if members else None)
    inputs = artifact.hash_inputs(
        archive=archives, encoder=encoder_folder(encoder), members=members
    )
    inputs["comparisons"] = hash_comparisons(said)
    plain = artifact.plain(config)
    draft = artifact.Draft(
        out / "encoder", stage="encoder", config=plain, inputs=inputs, overwrite=overwrite
    )

    @functools.cache
    def judge() -> Evidence:
        say("tuning without half of the places first, to judge what was said of them")
        return _judge(encoder, opened, pairs, config, out)

    if draft.done:
        say(f"{out / 'encoder'} is done already: the same inputs and options.")
    else:
        judge().require(comparisons, force=force)
        losses = _tune(model, opened, pairs, config, progress)
        model.attach({})  # another backbone's sub-spaces: what they knew is not theirs any more
        with draft as folder:
            encoders.save(folder, model, {"steps": config.steps, "recipe": "finetune"})
            # A step's loss is that of a few pairs; a tenth of the steps tell whether it fell.
            tenth = -(-len(losses) // 10)
            parts = (losses[:tenth], losses[-tenth:])
            first, last = (float(np.mean(part)) for part in parts)
            draft.extra = {"first_loss": first, "last_loss": last}
    embed(archives, out / "encoder", out / "embeddings", overwrite=overwrite)
    rank(
        [out / "embeddings"],
        comparisons,
        out / "ranker",
        config.rank,
        members=members,
        overwrite=overwrite,
        force=force,
        judge=judge,
    )
    return out


def _judge(
    encoder: Path, archives: list[Archive], pairs: ItemPairs, config: FinetuneConfig, out: Path
) -> Evidence:
    """Tune on one half of the places; return what comparisons within the other half say."""
    fold = deal_places(pairs, 2, np.random.default_rng([config.seed, 2]))
    sides = fold[pairs.left], fold[pairs.right]
    seen, held = (np.flatnonzero((sides[0] == n) & (sides[1] == n)) for n in (0, 1))
    if not len(seen) or not len(held) or not pairs.counts[:, held, :2].any():
        return weigh_evidence(1.0, _choose_pairs(pairs, held), None)
    model, _ = load_encoder(encoder)
    _tune(model, archives, _choose_pairs(pairs, seen), config, None)
    model.attach({})
    work = out / ".judged"
    shutil.rmtree(work, ignore_errors=True)  # of a killed run
    try:
        with artifact.Draft(work / "encoder", stage="encoder", config={}, inputs={}) as folder:
            encoders.save(folder, model, {"steps": config.steps, "recipe": "finetune"})
        embed([archive.path for archive in archives], work / "encoder", work / "embeddings")
        index, matrix, _ = open_embeddings([work / "embeddings"])
        # Damaged tiles are not embedded: the rows of the others move up.
        rows = pd.Series(np.arange(len(index)), index=index["tile_id"])
        names = pd.concat([archive.index["tile_id"] for archive in archives]).to_numpy()
        row = rows.reindex(names).to_numpy()
        members = [found[~np.isnan(found)].astype(int) for found in (row[m] for m in pairs.members)]
        half = replace(_choose_pairs(pairs, held), members=members)
        features = build_features(index, matrix, config.rank)
        evidence = judge_embeddings(matrix, features, half, config.rank)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    if evidence.unseen is None:
        return evidence
    judged = replace(evidence.unseen.judged, pair=held[evidence.unseen.judged.pair])
    return replace(evidence, unseen=replace(evidence.unseen, judged=judged))


def _choose_pairs(pairs: ItemPairs, chosen: Indices) -> ItemPairs:
    left, right = pairs.left[chosen], pairs.right[chosen]
    return replace(pairs, left=left, right=right, counts=pairs.counts[:, chosen])


def _tune(
    model: Encoder,
    archives: list[Archive],
    pairs: ItemPairs,
    config: FinetuneConfig,
    progress: Progress | None,
) -> list[float]:
    """Train in place; BatchNorm keeps the statistics of pretraining, since batches are small."""
    torch.manual_seed(config.seed)
    head = nn.Sequential(
        nn.LayerNorm(model.backbone_dim), nn.Linear(model.backbone_dim, 1, bias=False)
    )
    log_tie = nn.Parameter(torch.zeros(()))
    parameters = _choose_parameters(model, config)
    optimizer = torch.optim.AdamW(
        [
            {"params": parameters, "lr": config.learning_rate},
            {"params": [*head.parameters(), log_tie], "lr": 10 * config.learning_rate},
        ],
        weight_decay=1e-2,
    )
    losses = []
    damaged: set[int] = set()
    draw_sibling = _group_by_cell(archives)
    for step in range(config.steps):
        sides, counts = _draw_pairs(pairs, config, step)
        rows, place = np.unique(sides, return_inverse=True)
        random = np.random.default_rng([config.seed, step, 1])
        siblings = [draw_sibling(row, random) for row in rows.tolist()]
        tiles = {row: _read(archives, row, damaged) for row in sorted({*rows.tolist(), *siblings})}
        read = [tiles[row] for row in rows.tolist()]
        # Damaged tiles leave the means of their items; an item without any leaves its pair.
        known = np.array([tile is not None for tile in read])
        weight = known[place.reshape(sides.shape)].astype(np.float32)
        whole = (weight.sum(axis=2) > 0).all(axis=0)
        if not whole.any():
            continue
        both = [(tile, tiles[s] or tile) for tile, s in zip(read, siblings, strict=True) if tile]
        renderings = _render(model, both, config, step)
        scores = [head(model.encode(images))[:, 0] for images in renderings]
        number = np.where(known, np.cumsum(known) - 1, 0)[place.reshape(sides.shape)][:, whole]
        share = torch.from_numpy(weight[:, whole])
        first, second = (scores[0][number] * share).sum(dim=2) / share.sum(dim=2)
        loss = davidson(first - second, counts[torch.from_numpy(whole)], log_tie)
        loss = loss + config.consistency * 2 * F.smooth_l1_loss(*scores)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
        if progress:
            progress(step + 1, config.steps)
    if not losses:
        raise EcofmError("no compared tile can be read; tile their scenes again.")
    for part in list(model.backbone.modules()):
        if is_parametrized(part):
            remove_parametrizations(part, "weight")  # the sum stays
    model.requires_grad_(True)
    return losses


@final
class LowRank(nn.Module):
    """A weight and a change of low rank, none at first (Hu et al. 2022, *LoRA*)."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        """Draw one factor; the other is zero."""
        super().__init__()
        inputs = weight[0].numel()
        self.down = nn.Parameter(torch.randn(rank, inputs) / inputs**0.5)
        self.up = nn.Parameter(torch.zeros(len(weight), rank))

    def forward(self, weight: Tensor) -> Tensor:
        """Return the changed weight."""
        return weight + (self.up @ self.down).view(weight.shape)


def _add_low_rank(backbone: nn.Module, rank: int) -> list[nn.Parameter]:
    found = []
    for part in [m for m in backbone.modules() if isinstance(m, nn.Conv2d | nn.Linear)]:
        change = LowRank(part.weight, rank)
        register_parametrization(part, "weight", change)
        found += list(change.parameters())
    return found


def _choose_parameters(model: Encoder, config: FinetuneConfig) -> list[nn.Parameter]:
    model.requires_grad_(False)
    if config.trained is Trained.lora:
        return _add_low_rank(model.backbone, config.lora_rank)
    # The last child of a transformer is an empty head.
    children = [part for part in model.backbone.children() if any(True for _ in part.parameters())]
    part = model.backbone if config.trained is Trained.all else children[-1]
    part.requires_grad_(True)
    return [parameter for parameter in part.parameters() if parameter.requires_grad]


def _group_by_cell(archives: list[Archive]) -> Callable[[int, np.random.Generator], int]:
    """Return what draws a tile of the same cell, which may be the tile itself, by its row."""
    index = pd.concat([a.index[["tile_id", "cell_id", "period"]] for a in archives])
    cells = number_cells(index)
    order = np.argsort(cells, kind="stable")
    counts = np.bincount(cells)
    starts = np.cumsum(counts) - counts

    def draw(row: int, random: np.random.Generator) -> int:
        cell = cells[row]
        return int(order[starts[cell] + random.integers(counts[cell])])

    return draw


def _draw_pairs(pairs: ItemPairs, config: FinetuneConfig, step: int) -> tuple[np.ndarray, Tensor]:
    """Return the tiles of left and right, (2, pair, member), and counts (pair, 3) of a step."""
    random = np.random.default_rng([config.seed, step])
    counts = pairs.summed
    chosen = random.choice(len(counts), config.pairs, p=counts.sum(axis=1) / counts.sum())
    sides = [
        [random.choice(pairs.members[item], config.exemplars) for item in side[chosen]]
        for side in (pairs.left, pairs.right)
    ]
    weights = counts[chosen] / counts[chosen].sum(axis=1, keepdims=True)
    return np.array(sides), torch.from_numpy(weights).float()


def _read(archives: list[Archive], tile: int, damaged: set[int]) -> Tile | None:
    """Return a tile by its row over all archives, or None when it is damaged: said once."""
    archive, place = find_tile(archives, tile)
    try:
        return archive.read(place)
    except TileError as error:
        if tile not in damaged:
            say(f"left out: {error}.")
        damaged.add(tile)
        return None


def _render(
    model: Encoder, tiles: list[tuple[Tile, Tile]], config: FinetuneConfig, step: int
) -> list[Tensor]:
    """Return a rendering of each tile of the pairs, of one crop: (batch, band, size, size) each."""
    shape = tiles[0][0][0].shape
    finder = PlaceFinder(
        config.views, ((0, 0), (1, 0)), seed=config.seed, n_global=len(tiles), tile_px=shape[1:]
    )
    places = finder.at(step).choose([[valid for _, valid in pair] for pair in tiles])
    drawn = [
        draw_parameters(
            config.views,
            seed=config.seed,
            step=step,
            view=view,
            samples=slice(0, len(tiles)),
            n_global=len(tiles),
            n_bands=shape[0],
            tile_px=(shape[1], shape[2]),
            places=places,
        )
        for view in range(2)
    ]
    drawn[1].spatial.copy_(drawn[0].spatial)
    views = []
    for side, parameters in zip(zip(*tiles, strict=True), drawn, strict=True):
        pixels, valid = (torch.from_numpy(np.stack(part)) for part in zip(*side, strict=True))
        model.require_contract(pixels)
        centre, spread = model.measure(pixels, valid)
        views.append(render_tiles(pixels, valid, centre, spread, parameters, config.views.size_px))
    return views
