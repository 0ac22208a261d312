"""How well a ranker moves to a new country, by how many comparisons are asked there.

Regions of the new country are left out, questions are asked about the others, and the transferred
ranker and one trained from scratch are judged on what was left out. It is done again with other
regions and other questions; the bands are over these draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import norm, rankdata, spearmanr

from ecofm.artifact import Draft, hash_inputs, write_json, write_text
from ecofm.benchmark.metrics import MIN_PAIRS
from ecofm.benchmark.proxies import read_proxies
from ecofm.benchmark.transfer_looks import draw_curve, render_table, summarise
from ecofm.compare import hash_comparisons, read_comparisons
from ecofm.compare.comparison import Comparison
from ecofm.compare.members import read_members
from ecofm.compare.panel import standardise
from ecofm.compare.picking import Panel, PickConfig, Picker
from ecofm.errors import ComparisonError, EcofmError, UsageError
from ecofm.rank.fit import fit_heads
from ecofm.rank.heads import Heads, RankConfig
from ecofm.rank.items import Indices, pair_items
from ecofm.rank.losses import Floats
from ecofm.rank.transfer import Target, TransferConfig, move_heads, open_target
from ecofm.tables import write_csv
from ecofm.types import Progress, require_seed, say

MAX_JUDGED = 20_000
"""Left-out tiles that a ranker is judged on, at most."""
Answer = Callable[[Sequence[tuple[str, str]], Mapping[str, float], int], pd.DataFrame]
"""Pairs of tiles, their development and a seed to annotator, left, right, outcome."""


@dataclass(kw_only=True, slots=True)
class CurveConfig:
    """What the curve is drawn of."""

    column: str | None = None
    """Column of the truth; needed when it has several."""
    region: str | None = None
    """Column of the truth that names regions to leave out; None leaves out single cells, whose
    neighbours are asked about."""
    sizes: list[int] = field(default_factory=lambda: [0, 10, 25, 50, 100, 200])
    """Numbers of questions."""
    draws: int = 10
    """Times that regions and questions are drawn anew."""
    left_out: float = 1 / 3
    """Share of the cells to leave out, in whole regions."""
    pool: int = 300
    """Tiles that may be asked about."""
    seed: int = 0
    """Seed of the draws."""

    def __post_init__(self) -> None:
        """Raise ValueError for values that cannot be used."""
        require_seed(self.seed)
        if not self.sizes or min(self.sizes) < 0 or self.draws < 1 or self.pool < 3:
            raise UsageError("sizes of 0 and more, draws >= 1 and pool >= 3 are needed.")
        if not 0 < self.left_out < 1:
            raise UsageError(f"left_out {self.left_out}: expected a share between 0 and 1.")


class Known(NamedTuple):
    """What is known of the new country's tiles: by row of the embeddings, NaN where nothing is."""

    development: Floats
    region: Indices


def measure_curve(
    ranker: Path,
    embeddings: Sequence[Path],
    truth: Path,
    out: Path,
    config: CurveConfig,
    answer: Answer,
    *,
    transfer: TransferConfig | None = None,
    comparisons: Path | None = None,
    members: Path | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Write curve.csv, curve.json, curve.md and curve.png, and return `out`.

    `truth` is a table by cell_id (and period, if it has one). Without `comparisons`, `answer`
    says what annotators would, and pairs chosen by the picker stand beside random ones; with
    them, random parts of them are taken. Rankers are judged by Spearman's correlation with the
    truth in left-out regions, the mean over periods. Raises EcofmError, ArtifactError or
    ComparisonError when there is nothing to judge by or to learn from.
    """
    moving = transfer or TransferConfig()
    source, target, _ = open_target(ranker, embeddings, moving)
    known = _match_truth(truth, target.index, config)
    inputs = hash_inputs(ranker=ranker, embeddings=embeddings, truth=truth, members=members)
    said = None
    if comparisons:
        said = read_comparisons(comparisons)
        inputs["comparisons"] = hash_comparisons(said)
    groups = read_members(members) if members else None
    settings = {"curve": asdict(config), "transfer": asdict(moving)}
    draft = Draft(out, stage="transfer", config=settings, inputs=inputs, overwrite=overwrite)
    if draft.done:
        say(f"{out} is done already.")
        return out
    study = Study(source, target, known, config, moving, said, groups, answer)
    rows: list[dict[str, object]] = []
    for number in range(config.draws):
        rows += study.draw(number)
        if progress:
            progress(number + 1, config.draws)
    table = pd.DataFrame(rows)
    with draft as folder:
        write_csv(table, folder / "curve.csv")
        summary = summarise(table)
        write_json(folder / "curve.json", summary)
        write_text(folder / "curve.md", render_table(summary) + "\n")
        draw_curve(table, folder / "curve.png")
    return out


def _match_truth(path: Path, index: pd.DataFrame, config: CurveConfig) -> Known:
    """Return development and region of each embedded tile."""
    proxy = read_proxies(path)
    if proxy.level != "cell":
        raise EcofmError(f"{path} is by region; a curve needs a table by cell_id.")
    targets = proxy.pick_targets([config.column] if config.column else None, [])
    if len(targets) > 1:
        raise EcofmError(
            f"{path} has several columns, {', '.join(targets)}; choose one with --column."
        )
    joined = proxy.join(index["cell_id"], index["period"], "the embeddings")
    for note in [*proxy.explain(targets, False), *joined.notes]:
        say(note)
    table = joined.proxies.table
    if config.region is not None and config.region not in table:
        raise EcofmError(
            f"{path} has no column {config.region}; it has {', '.join(map(str, table.columns))}."
        )
    keys = ["unit", "period"] if "period" in table else ["unit"]
    places = index[["cell_id", "period"]].rename(columns={"cell_id": "unit"})
    wanted = [*keys, targets[0], *([config.region] if config.region else [])]
    found = places.merge(table[wanted], on=keys, how="left")
    development = found[targets[0]].to_numpy(np.float64, copy=True)
    names = found[config.region] if config.region else found["unit"]
    region, _ = pd.factorize(names)
    development[region < 0] = np.nan
    if np.isfinite(development).sum() < 2 * MIN_PAIRS:
        raise EcofmError(
            f"{path} knows {int(np.isfinite(development).sum())} of the {len(index)} embedded "
            f"tiles; expected rows by cell_id such as {index['cell_id'].iloc[0]}."
        )
    if len(np.unique(region[np.isfinite(development)])) < 2:
        raise EcofmError(f"{path} has one region only; at least two are needed to leave one out.")
    return Known(development, region.astype(np.int64))


@dataclass(frozen=True, slots=True)
class Study:
    """All that the draws have in common."""

    source: Heads
    target: Target
    known: Known
    config: CurveConfig
    moving: TransferConfig
    said: pd.DataFrame | None
    members: pd.DataFrame | None
    answer: Answer

    def draw(self, number: int) -> Iterator[dict[str, object]]:
        """Yield draw, pick, method, n and spearman for one choice of regions and questions."""
        random = np.random.default_rng([self.config.seed, number])
        usable = np.flatnonzero(np.isfinite(self.known.development))
        left_out = self._leave_out(usable, random)
        judged = usable[left_out]
        judged = random.permutation(judged)[:MAX_JUDGED]
        pool = np.sort(random.permutation(usable[~left_out])[: self.config.pool])
        start = self.judge(self.source, judged)
        for pick, table in self._ask(pool, usable[~left_out], random, number):
            for n in self.config.sizes:
                row: dict[str, object] = {"draw": number, "pick": pick, "n": n}
                if n == 0:
                    yield {**row, "method": "transfer", "spearman": start}
                elif n <= len(table):
                    for method, value in self._fit(table.head(n), judged, start, number).items():
                        yield {**row, "method": method, "spearman": value}

    def _leave_out(self, usable: Indices, random: np.random.Generator) -> np.ndarray:
        """Return which usable tiles are left out: whole regions, about the share asked for."""
        region = self.known.region[usable]
        names, counts = np.unique(region, return_counts=True)
        order = random.permutation(len(names))
        taken = np.cumsum(counts[order])
        n_left_out = int(np.searchsorted(taken, self.config.left_out * len(usable))) + 1
        return np.isin(region, names[order[: min(n_left_out, len(names) - 1)]])

    def judge(self, heads: Heads, rows: Indices) -> float:
        """Return Spearman's correlation with the truth, the mean over periods."""
        seen = np.asarray(self.target.matrix[rows], dtype=np.float64)
        scores = heads.predict(seen).mean(axis=0)
        truth, periods = self.known.development[rows], self.target.index["period"].to_numpy()[rows]
        found = []
        for period in np.unique(periods):
            chosen = periods == period
            if chosen.sum() >= MIN_PAIRS and np.ptp(truth[chosen]) and np.ptp(scores[chosen]):
                found.append(float(spearmanr(scores[chosen], truth[chosen])[0]))
        if not found:
            raise EcofmError("the left-out regions have too few different values to judge by.")
        return float(np.mean(found))

    def _ask(
        self, pool: Indices, allowed: Indices, random: np.random.Generator, number: int
    ) -> Iterator[tuple[str, pd.DataFrame]]:
        """Yield each way to pick questions, and its answers in the order asked."""
        names = self.target.index["tile_id"].to_numpy(str)
        if self.said is not None:
            yield "given", self._restrict(names[allowed]).sample(frac=1, random_state=number)
            return
        level = rankdata(self.known.development[pool])
        # Annotators see differences in rank: a proxy's own scale may be anything.
        normal = norm.ppf(level / (len(pool) + 1))
        development = dict(zip(names[pool].tolist(), normal.tolist(), strict=True))
        n_most = max(self.config.sizes)
        drawn = [random.choice(pool, 2, replace=False) for _ in range(n_most)]
        pairs = [(str(names[left]), str(names[right])) for left, right in drawn]
        yield "random", self.answer(pairs, development, number)
        yield "active", self._ask_actively(pool, development, n_most, number)

    def _ask_actively(
        self, pool: Indices, development: dict[str, float], n_most: int, number: int
    ) -> pd.DataFrame:
        """Return answers to the questions that the picker of `ecofm compare serve` asks."""
        points = standardise(np.asarray(self.target.matrix[pool]))
        panel = Panel(np.arange(len(pool)), np.ones(len(pool)), points)
        items = list(development)
        picker = Picker(items, config=PickConfig(seed=number), panel=panel)
        answers = []
        for step in range(n_most):
            question = picker.pick("anyone")
            pair = items[question.left], items[question.right]
            found = self.answer([pair], development, 1_000_003 * (number + 1) + step)
            answers.append(found)
            picker.add(Comparison("anyone", *pair, str(found["outcome"].iloc[0])))
        return pd.concat(answers, ignore_index=True)

    def _restrict(self, allowed: np.ndarray) -> pd.DataFrame:
        """Return the given comparisons of items that have members outside the left-out regions."""
        assert self.said is not None
        items = set(allowed.tolist())
        if self.members is not None:
            items |= set(self.members["item"][self.members["tile_id"].isin(items)])
        both = self.said["left"].isin(items) & self.said["right"].isin(items)
        return self.said[both]

    def _fit(
        self, table: pd.DataFrame, judged: Indices, start: float, number: int
    ) -> dict[str, float]:
        """Return the correlation of the transferred ranker and of one trained from scratch.

        Answers from which nothing can be learned leave the source as it is, and no ranker from
        scratch: NaN.
        """
        tile_ids = self.target.index["tile_id"]
        try:
            pairs = pair_items(table, tile_ids, self.members)
        except ComparisonError:
            return {"transfer": start, "scratch": float("nan")}
        moved = move_heads(self.source, self.target, pairs, self.moving)
        config = RankConfig(seed=number, components=self.moving.components)
        scratch = fit_heads(self.target.matrix, self.target.basis, pairs, config).heads
        return {
            "transfer": self.judge(moved.heads, judged),
            "scratch": self.judge(scratch, judged),
        }
