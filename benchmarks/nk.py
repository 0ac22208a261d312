"""python -m benchmarks.nk DATA WORK [SEED...]: the real county beside siScore, five seeds.

Encoders are trained by the recipe rgb8_demo on the county's mosaics and all chips; rankers see the
ten annotators' orderings of the 22 clusters and the labels of annotated chips. Beside them stand
the same ranker on the encoder with random weights, on random convolutional features, and on image
statistics. What is chosen is chosen by `judge_chips` (labels of chips that were held out) and
`judge_annotators` (other people, about clusters that were held out). `judge_county` then reads
floor area, once: each year and the four-year mean, given colour, between years, with siScore,
night light and the best image statistic, bootstrap intervals and paired differences. No proxy
enters training or choice. WORK keeps each seed's runs and figures, so that the same command
continues, also seed by seed; the figures of all go to benchmarks/results/nk.json.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.stats import binomtest, spearmanr

from benchmarks.quality import random_filters
from benchmarks.record import describe_machine
from benchmarks.subspaces import embed_all, print_table, read_all
from ecofm.artifact import read_json, write_json
from ecofm.benchmark.baselines import MEAN_COLOUR, image_statistics
from ecofm.benchmark.contest import OURS, Contest, hold
from ecofm.benchmark.metrics import partial
from ecofm.benchmark.proxies import read_proxies
from ecofm.compare import read_comparisons
from ecofm.compare.consensus import ConsensusConfig, fit_consensus
from ecofm.demo.real import (
    MOSAIC,
    TARGET,
    UNINHABITED,
    compare_labels,
    find_areas,
    level_chips,
    place_below,
    prepare_comparisons,
    read_labels,
)
from ecofm.embed import embed, open_embeddings
from ecofm.pretrain.opening import load as load_encoder
from ecofm.pretrain.run import RunConfig, pretrain
from ecofm.rank.calibration import Residual, fit_residual
from ecofm.rank.fit import fit_heads
from ecofm.rank.heads import Heads, RankConfig
from ecofm.rank.items import pair_items
from ecofm.rank.run import build_features
from ecofm.rank.targets import Z_90
from ecofm.recipe import read_recipe
from ecofm.tiles.archive import open_archive
from ecofm.tiles.ingest import TileConfig, tile

SEEDS = (0, 1, 2, 3, 4)
N_FOLDS = 4
RESULTS = Path(__file__).parent / "results" / "nk.json"
PARTS = ("chips", "archive")
Figures = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Known:
    """What rankers may see, and image statistics; rows are those of the chips, then the county."""

    index: pd.DataFrame
    statistics: pd.DataFrame
    orderings: pd.DataFrame
    """The ten annotators' comparisons of clusters."""
    members: pd.DataFrame
    """Members of the clusters, without the uninhabited class."""
    labels: pd.DataFrame


def prepare(data: Path, work: Path) -> Known:
    """Tile the imagery and read what people said of it."""
    mosaics = [path for area in find_areas(data) for path in sorted(area.glob(MOSAIC))]
    tile(mosaics, work / "archive", TileConfig(grid="xyz:14"))
    chips = [data / "nk_clusters", data / "nk_annotated"]
    tile(chips, work / "chips", TileConfig(grid="none", follow_links=True))
    if not (work / "members.csv").exists():
        prepare_comparisons(data, work)
    archives = [open_archive(work / part) for part in PARTS]
    members = pd.read_csv(work / "members.csv", dtype=str)
    return Known(
        pd.concat([archive.index for archive in archives], ignore_index=True),
        pd.concat([image_statistics(archive) for archive in archives], ignore_index=True),
        read_comparisons(data / "nk_clusters" / "orderings.csv"),
        members[members["item"] != UNINHABITED],
        read_labels(data, archives[0].index),
    )


def embed_arms(work: Path, known: Known, seed: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yield each way to embed the tiles of `known.index`, by name."""
    for arm, steps in ((OURS, None), ("untrained encoder", 0)):
        root = work / arm.replace(" ", "-") / str(seed)
        recipe = replace(read_recipe("rgb8_demo"), seed=seed)
        recipe = recipe if steps is None else replace(recipe, steps=steps)
        archives = [work / "archive", work / "chips"]
        run = RunConfig(accelerator="cpu", torch_threads=1, threads=1)
        pretrain(archives, root / "run", recipe, run, recipe="rgb8_demo")
        for part in PARTS:
            embed([work / part], root / "run", root / part)
        index, matrix, _ = open_embeddings([root / part for part in PARTS])
        assert (index["tile_id"] == known.index["tile_id"]).all()
        yield arm, matrix
    encoder, _ = load_encoder(work / "untrained-encoder" / str(seed) / "run")
    filters = random_filters(encoder, seed)
    parts = [embed_all(filters, *read_all(open_archive(work / part))) for part in PARTS]
    yield "random convolutional features", np.concatenate(parts)
    numbers = known.statistics.drop(columns=["tile_id", "cell_id", "period"])
    yield "image statistics", numbers.fillna(numbers.mean()).to_numpy()


def fit(
    known: Known, matrix: np.ndarray, seed: int, orderings: pd.DataFrame, labels: pd.DataFrame
) -> tuple[Heads, Residual | None]:
    """Return a ranker of some people's orderings and of some chips' labels.

    And how far clusters stray, whose members' own ways average out.
    """
    lowest = pd.DataFrame({"tile_id": labels["tile_id"][labels["uninhabited"] >= 1]})
    members = pd.concat([known.members, lowest.assign(item=UNINHABITED)], ignore_index=True)
    said = pd.concat([place_below(orderings), compare_labels(labels)], ignore_index=True)
    pairs = pair_items(said, known.index["tile_id"], members)
    config = RankConfig(seed=seed)
    features = build_features(known.index, matrix, config)
    found = fit_heads(matrix, features, pairs, config)
    unseen, stray = found.evidence.unseen, found.heads.residual
    assert unseen is not None and stray is not None
    sizes = np.array([len(rows) for rows in pairs.members])
    of_clusters = ((sizes[pairs.left] > 1) & (sizes[pairs.right] > 1))[unseen.judged.pair]
    residual = fit_residual(unseen.judged.choose(of_clusters), pairs)
    if residual is None:
        return found.heads, None
    # In the unit of the scores, which tell a share of development.
    share = (1 - stray.deviation**2) ** 0.5
    deviation, limit = residual.deviation * share, residual.limit * share
    return found.heads, Residual(deviation, residual.tilt / share, limit)


def judge_chips(known: Known, matrix: np.ndarray, seed: int) -> Figures:
    """Return how scores agree with labels of chips that the ranker has not seen.

    Rank correlations: over all held chips, over those not wholly uninhabited, and over all given
    the mean colour; the mean over halves.
    """
    row = pd.Series(np.arange(len(known.index)), index=known.index["tile_id"])
    found = []
    for half, held in _halves(known, seed):
        rows = row[held["tile_id"]].to_numpy()
        scores = _score(fit(known, matrix, seed, known.orderings, half)[0], matrix[rows])
        level = level_chips(held)
        inhabited = (held["uninhabited"] < 1).to_numpy()
        colour = known.statistics[list(MEAN_COLOUR)].to_numpy()[rows]
        found.append(
            {
                "all": float(spearmanr(scores, level)[0]),
                "inhabited": float(spearmanr(scores[inhabited], level[inhabited])[0]),
                "given_colour": given_colour(scores, level, colour),
            }
        )
    return {name: float(np.mean([one[name] for one in found])) for name in found[0]}


def _halves(known: Known, seed: int) -> Iterator[tuple[pd.DataFrame, pd.DataFrame]]:
    """Yield labels to learn from and labels to judge by, each half once in each role."""
    first = np.random.default_rng([seed, 0]).permutation(len(known.labels)) % 2 == 0
    for kept in (first, ~first):
        yield known.labels[kept], known.labels[~kept]


def judge_annotators(known: Known, matrix: np.ndarray, seed: int) -> Figures:
    """Return what other people say of clusters that the ranker has not seen.

    Half of the annotators teach, about three quarters of the clusters; the other half judge every
    comparison with a cluster that was left out: how often the one scored higher wins. Their
    consensus, anchored alike, is what the cluster's 90 % interval should hold.
    """
    people = sorted(known.orderings["annotator"].unique())
    random = np.random.default_rng(seed)
    teachers = set(random.permutation(people)[: len(people) // 2].tolist())
    teaches = known.orderings["annotator"].isin(teachers)
    taught, judged = known.orderings[teaches], known.orderings[~teaches]
    items = sorted({*judged["left"], *judged["right"]})
    folds = dict(zip(items, (random.permutation(len(items)) % N_FOLDS).tolist(), strict=True))
    others = fit_consensus(place_below(judged), ConsensusConfig()).set_index("item")["score"]
    row = pd.Series(np.arange(len(known.index)), index=known.index["tile_id"])
    groups = known.members.groupby("item")["tile_id"]
    rows = {item: row[tiles].to_numpy() for item, tiles in groups}
    won = n = covered = 0
    widths: list[float] = []
    for fold in range(N_FOLDS):
        out = [item for item in items if folds[item] == fold]
        seen = ~taught["left"].isin(out) & ~taught["right"].isin(out)
        heads, residual = fit(known, matrix, seed, taught[seen], known.labels)
        means = {item: heads.predict(matrix[rows[item]]).mean(axis=1) for item in items}
        score = {item: float(values.mean()) for item, values in means.items()}
        asked = judged[judged["left"].isin(out) | judged["right"].isin(out)]
        asked = asked[asked["outcome"].isin(["left", "right"])]
        ahead = asked["left"].map(score).to_numpy() > asked["right"].map(score).to_numpy()
        won += int((ahead == (asked["outcome"] == "left").to_numpy()).sum())
        n += len(asked)
        # The others' scale is that of the items which both know.
        shared = [item for item in items if item not in out]
        scale = np.polyfit(others[shared].to_numpy(), [score[item] for item in shared], 1)
        own = replace(heads, residual=residual)
        for item in out:
            spread = float(own.spread(means[item][:, None])[0])
            covered += abs(np.polyval(scale, others[item]) - score[item]) <= Z_90 * spread
            widths.append(2 * Z_90 * spread)
    return {
        "won": won / n,
        "n": n,
        "covered": int(covered),
        "n_items": len(widths),
        "width": float(np.mean(widths)),
    }


def judge_county(known: Known, scores: np.ndarray, proxies: Path) -> Figures:
    """Return the rank correlations of one ranker's scores with floor area, and between years."""
    wide, colours = _by_cell(known, scores)
    area = read_proxies(proxies).at(wide.columns.to_list())[TARGET].reindex(wide.index)
    figures: Figures = {}
    for subset, chosen in (("built", area > 0), ("all", area.notna())):
        for period in [*wide.columns, "mean"]:
            own = wide.mean(axis=1, skipna=False) if period == "mean" else wide[period]
            usable = chosen & own.notna()
            figures[f"{subset} {period}"] = float(spearmanr(own[usable], area[usable])[0])
        whole = chosen & wide.notna().all(axis=1)
        figures[f"{subset} given colour"] = given_colour(
            wide[whole].mean(axis=1).to_numpy(), area[whole].to_numpy(), colours[whole].to_numpy()
        )
    figures["between years"] = min_between(wide)
    return figures


def min_between(wide: pd.DataFrame) -> float:
    """Return the least rank correlation between two periods' scores."""
    pairs = (wide[list(pair)].dropna() for pair in itertools.combinations(wide.columns, 2))
    return min(float(spearmanr(pair.iloc[:, 0], pair.iloc[:, 1])[0]) for pair in pairs)


def _by_cell(known: Known, scores: np.ndarray) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return scores of the county's cells by period, and the cells' mean colour over periods."""
    county = (known.index["period"] != "none").to_numpy()
    table = known.statistics[county].assign(score=scores[county])
    wide = table.pivot(index="cell_id", columns="period", values="score")
    return wide, table.groupby("cell_id")[list(MEAN_COLOUR)].mean().reindex(wide.index)


def contest(known: Known, means: dict[str, np.ndarray], proxies: Path) -> Figures:
    """Return the figures of the seeds' mean score beside all others, with their intervals."""
    table = read_proxies(proxies)
    county = (known.index["period"] != "none").to_numpy()
    tiles = known.statistics[county].reset_index(drop=True)
    statistics = [name for name in tiles if name not in ("tile_id", "cell_id", "period")]
    arms = {name: values[county] for name, values in means.items()}
    periods = sorted(tiles["period"].unique())
    figures: Figures = {}
    for name in [*periods, "mean"]:
        wanted = periods if name == "mean" else [name]
        own = tiles.assign(**arms)[tiles["period"].isin(wanted)]
        grouped = own.drop(columns=["tile_id", "period"]).groupby("cell_id")
        frame = grouped.mean()[grouped[OURS].count() == len(wanted)]
        beside = table.at(wanted).reindex(frame.index)
        frame["siscore"] = beside[f"siscore_{name}"]
        frame["night light"] = beside["viirs_2019"]
        frame[TARGET] = beside[TARGET]
        for subset in ("all", "built"):
            chosen = frame[frame[TARGET] > 0] if subset == "built" else frame
            rivals = ["siscore", "night light", *(arm for arm in means if arm != OURS)]
            outcome = hold(
                Contest(
                    level="cell", period=name, subset=subset, target=TARGET,
                    frame=chosen, rivals=rivals, baselines=statistics,
                ), 1_000, 0,
            )  # fmt: skip
            figures[f"{subset} {name}"] = {
                "n": outcome.contest["n"],
                "best_statistic": outcome.contest["best_baseline"],
                "figures": [
                    {key: record[key] for key in ("score", "metric", "value", "lower", "upper")}
                    for record in outcome.figures
                    if record["metric"].startswith("spearman")
                ],
                "differences": [
                    {key: record[key] for key in ("rival", "value", "lower", "upper")}
                    for record in outcome.differences
                ],
                "notes": outcome.notes,
            }
    return figures


def given_colour(scores: np.ndarray, level: np.ndarray, colour: np.ndarray) -> float:
    """Return the partial rank correlation of (n,) scores and levels given (n, 3) colours."""
    ranks = pd.DataFrame(np.column_stack([scores, level, colour])).rank().to_numpy()
    return float(partial(np.corrcoef(ranks.T)))


def _score(heads: Heads, matrix: np.ndarray) -> np.ndarray:
    return heads.predict(matrix).mean(axis=0)


def judge_seed(known: Known, work: Path, seed: int, proxies: Path) -> None:
    """Write one seed's figures, and its scores of all tiles, into WORK/judged."""
    folder = work / "judged"
    folder.mkdir(exist_ok=True)
    if (folder / f"{seed}.json").exists():
        return
    figures: Figures = {"chips": {}, "annotators": {}, "county": {}}
    scores = {}
    for arm, matrix in embed_arms(work, known, seed):
        figures["chips"][arm] = judge_chips(known, matrix, seed)
        figures["annotators"][arm] = judge_annotators(known, matrix, seed)
        heads, _ = fit(known, matrix, seed, known.orderings, known.labels)
        scores[arm] = _score(heads, matrix)
        figures["county"][arm] = judge_county(known, scores[arm], proxies)
        print(seed, arm, *(figures[part][arm] for part in figures), flush=True)
    np.savez(folder / f"{seed}.npz", **scores)
    write_json(folder / f"{seed}.json", figures)


def summarise(known: Known, work: Path, proxies: Path) -> None:
    """Write the figures of the seeds that were judged so far, and print their means."""
    seeds = sorted(int(path.stem) for path in (work / "judged").glob("*.json"))
    judged = [read_json(work / "judged" / f"{seed}.json") for seed in seeds]
    scores = [np.load(work / "judged" / f"{seed}.npz") for seed in seeds]
    means = {arm: np.mean([one[arm] for one in scores], axis=0) for arm in scores[0].files}
    figures = {
        part: {arm: [one[part][arm] for one in judged] for arm in means} for part in judged[0]
    }
    covered, n_items = (
        sum(one[name] for one in figures["annotators"][OURS]) for name in ("covered", "n_items")
    )
    interval = binomtest(covered, n_items).proportion_ci(method="wilson")
    write_json(
        RESULTS,
        {
            **figures,
            "covered": [covered / n_items, interval.low, interval.high],
            "county_of_mean_score": contest(known, means, proxies),
            "between_years_of_mean_score": {
                arm: min_between(_by_cell(known, mean)[0]) for arm, mean in means.items()
            },
            "settings": {"seeds": seeds, "recipe": "rgb8_demo"},
            **describe_machine(("torch", "lightly", "timm", "scipy")),
        },
    )
    print_table(figures["chips"])
    print_table(figures["annotators"])
    print(f"covered {covered} of {n_items} [{interval.low:.2f}, {interval.high:.2f}]")
    print_table(figures["county"])


def main(data: Path, work: Path, seeds: Sequence[int]) -> None:
    """Train and judge some seeds, and write the figures of all that were judged."""
    torch.set_num_threads(1)
    known = prepare(data, work)
    proxies = data / "nk_tables" / "tiles.csv.gz"
    for seed in seeds:
        judge_seed(known, work, seed, proxies)
    summarise(known, work, proxies)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), [int(seed) for seed in sys.argv[3:]] or SEEDS)
