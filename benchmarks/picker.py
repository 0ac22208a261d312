"""python -m benchmarks.picker: comparisons until the order is right, by how pairs are chosen.

Simulated annotators answer by the error rates that the reference study's ten annotators show in
`nk_clusters/orderings.csv`: for each of them, how often they say the contrary of the other nine's
mean rank, or a tie, at each distance of ranks (kernel smoothed; no model of ours). Three pickers
ask: ours as it is shipped, with its random questions and repetitions; random pairs; and the
published idea of ASAP (Mikhailiuk et al. 2020, arXiv:2004.05691): message passing, expected
information of all pairs, and batches that span a minimum tree. All answers are fitted by the same
estimator, and its order is compared with the truth by Kendall's tau.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import csr_array
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.stats import kendalltau, norm, rankdata

from ecofm.artifact import write_json
from ecofm.compare.comparison import Comparison
from ecofm.compare.consensus import ConsensusConfig, fit_answers
from ecofm.compare.orderings import parse_ordering
from ecofm.compare.picking import PickConfig, Picker

Floats = npt.NDArray[np.float64]
DATA = Path(os.environ.get("ECOFM_DATA", Path(__file__).parents[2] / "shared" / "data"))
RESULTS = Path(__file__).parent / "results"
BANDWIDTH, OWN_WEIGHT = 0.04, 0.5
TARGET = 0.9
OUTCOMES = ("left", "right", "tie")


class Annotators:
    """The ten annotators' chances of each answer by the distance of ranks."""

    def __init__(self, orderings: Path) -> None:
        """Measure each annotator against the mean rank of the other nine."""
        table = pd.read_csv(orderings)
        ranks = {}
        for name, text in zip(table["annotator"], table["ordering"], strict=True):
            tiers = parse_ordering(text)
            items = [item for tier in tiers for item in tier]
            places = rankdata([n for n, tier in enumerate(tiers) for _ in tier])
            ranks[name] = pd.Series(-places / (len(items) - 1), index=items).sort_index()
        frame = pd.DataFrame(ranks)
        self.names = list(frame.columns)
        first, second = np.triu_indices(len(frame), 1)
        self._distance, self._answer = [], []
        for name in self.names:
            others = frame.drop(columns=name).mean(axis=1).to_numpy()
            own = frame[name].to_numpy()
            distance, sign = others[first] - others[second], np.sign(own[first] - own[second])
            # Each pair read both ways: no side is favoured.
            self._distance.append(np.concatenate([distance, -distance]))
            self._answer.append(np.concatenate([sign, -sign]))

    def chances(self, annotator: int, distance: float) -> Floats:
        """Return the chance of left, right and tie at a signed distance of ranks (of 1)."""
        every = self._smooth(np.concatenate(self._distance), np.concatenate(self._answer), distance)
        own = self._smooth(self._distance[annotator], self._answer[annotator], distance)
        mixed: Floats = own * OWN_WEIGHT + every * (1 - OWN_WEIGHT)
        return mixed / mixed.sum()

    def _smooth(self, distances: Floats, answers: Floats, distance: float) -> Floats:
        weight = np.exp(-(((distances - distance) / BANDWIDTH) ** 2) / 2)
        return np.array([weight[answers == sign].sum() for sign in (1, -1, 0)]) / weight.sum()


class World:
    """One simulated set of items and what annotators would say about any pair."""

    def __init__(self, annotators: Annotators, n_items: int, seed: int) -> None:
        """Draw the truth: a random order of equally spaced levels."""
        self.rng = np.random.default_rng([seed, 1])
        self.truth = self.rng.permutation(n_items) / (n_items - 1)
        self.annotators = annotators
        self._tables = {
            (who, steps): annotators.chances(who, steps / (n_items - 1))
            for who in range(len(annotators.names))
            for steps in range(-n_items + 1, n_items)
        }
        self._said: dict[tuple[int, int, int], str] = {}

    def answer(self, who: int, left: int, right: int) -> str:
        """Return what the annotator says; the same pair again gets the same answer."""
        if (who, left, right) not in self._said:
            steps = round((self.truth[left] - self.truth[right]) * (len(self.truth) - 1))
            said = int(self.rng.choice(3, p=self._tables[who, steps]))
            self._said[who, left, right] = OUTCOMES[said]
            self._said[who, right, left] = OUTCOMES[(1, 0, 2)[said]]
        return self._said[who, left, right]


Ask = Callable[[int], tuple[int, int]]
Tell = Callable[[Comparison], None]


def ask_ours(world: World, seed: int) -> tuple[Ask, Tell]:
    """The picker of `ecofm compare serve`, as it is shipped."""
    picker = Picker([str(n) for n in range(len(world.truth))], config=PickConfig(seed=seed))

    def ask(who: int) -> tuple[int, int]:
        return picker.pick(world.annotators.names[who])[:2]

    return ask, picker.add


def ask_random(world: World, seed: int) -> tuple[Ask, Tell]:
    """Pairs drawn at random, none twice of one annotator."""
    rng = np.random.default_rng([seed, 2])
    asked: set[tuple[int, frozenset[int]]] = set()

    def ask(who: int) -> tuple[int, int]:
        while True:
            left, right = (int(n) for n in rng.choice(len(world.truth), 2, replace=False))
            if (who, frozenset((left, right))) not in asked:
                asked.add((who, frozenset((left, right))))
                return left, right

    return ask, lambda vote: None


def ask_asap(world: World, seed: int) -> tuple[Ask, Tell]:
    """ASAP's idea: message passing, information of all pairs, batches that span a tree."""
    rng = np.random.default_rng([seed, 3])
    wins: list[tuple[int, int]] = []
    batch: list[tuple[int, int]] = []

    def ask(who: int) -> tuple[int, int]:
        if not batch:
            batch.extend(span(*pass_messages(wins, len(world.truth)), rng))
        left, right = batch.pop()
        return (left, right) if rng.random() < 0.5 else (right, left)

    def tell(vote: Comparison) -> None:
        # It knows no ties: one counts as a win of either, drawn.
        left, right = int(vote.left), int(vote.right)
        won = vote.outcome == "left" or (vote.outcome == "tie" and rng.random() < 0.5)
        wins.append((left, right) if won else (right, left))

    return ask, tell


def pass_messages(wins: list[tuple[int, int]], n: int, rounds: int = 5) -> tuple[Floats, Floats]:
    """Return mean and variance of each item: TrueSkill's expectation propagation, noise 1/√2 each.

    Messages of all wins are renewed at once and damped, until five rounds have passed.
    """
    precision, shift = np.full(n, 1 / 0.5), np.zeros(n)
    if not wins:
        return shift, 1 / precision
    ends = np.array(wins)
    sent_p, sent_s = np.zeros(ends.shape), np.zeros(ends.shape)
    for _ in range(rounds):
        cavity_p = precision[ends] - sent_p
        cavity_s = shift[ends] - sent_s
        mean, variance = cavity_s / cavity_p, 1 / cavity_p
        total = np.sqrt(variance.sum(axis=1) + 1)
        t = (mean[:, 0] - mean[:, 1]) / total
        v = np.exp(norm.logpdf(t) - norm.logcdf(t))
        w = v * (v + t)
        sign = np.array([1.0, -1.0])
        new_mean = mean + sign * variance * (v / total)[:, None]
        new_variance = variance * np.maximum(1 - variance * (w / total**2)[:, None], 1e-6)
        sent_p = 0.5 * sent_p + 0.5 * (1 / new_variance - cavity_p)
        sent_s = 0.5 * sent_s + 0.5 * (new_mean / new_variance - cavity_s)
        precision = 1 / 0.5 + np.bincount(ends.ravel(), sent_p.ravel(), n)
        shift = np.bincount(ends.ravel(), sent_s.ravel(), n)
    return shift / precision, 1 / precision


def span(mean: Floats, variance: Floats, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Return the pairs of the spanning tree of most information, in random order."""
    first, second = np.triu_indices(len(mean), 1)
    spread = variance[first] + variance[second]
    total = np.sqrt(spread + 1)
    win = norm.cdf((mean[first] - mean[second]) / total)
    # The expected Kullback-Leibler divergence between the difference after and before.
    gain = np.zeros(len(first))
    for chance, sign in ((win, 1.0), (1 - win, -1.0)):
        t = sign * (mean[first] - mean[second]) / total
        v = np.exp(norm.logpdf(t) - norm.logcdf(t))
        moved = spread * v / total
        kept = np.maximum(1 - spread * v * (v + t) / total**2, 1e-9)
        gain += chance * 0.5 * (kept - 1 - np.log(kept) + moved**2 / spread)
    graph = csr_array((1 / (gain + 1e-12), (first, second)), shape=(len(mean),) * 2)
    tree = minimum_spanning_tree(graph).tocoo()
    pairs = list(zip(tree.row.tolist(), tree.col.tolist(), strict=True))
    return [pairs[n] for n in rng.permutation(len(pairs))]


PICKERS = {"ours": ask_ours, "random": ask_random, "asap": ask_asap}


def run(
    annotators: Annotators, picker: str, seed: int, n_items: int, every: int, most: int
) -> list[float]:
    """Return Kendall's tau with the truth after each `every` comparisons."""
    world = World(annotators, n_items, seed)
    ask, tell = PICKERS[picker](world, seed)
    rows, taus = [], []
    for step in range(most):
        who = step % len(annotators.names)
        left, right = ask(who)
        outcome = world.answer(who, left, right)
        vote = Comparison(annotators.names[who], str(left), str(right), outcome)
        tell(vote)
        rows.append(vote)
        if (step + 1) % every == 0:
            taus.append(measure(rows, world.truth))
    return taus


def measure(rows: list[Comparison], truth: Floats) -> float:
    """Return tau of the estimate: plain Davidson, items that were never compared in the middle."""
    fitted = fit_answers(pd.DataFrame(rows), ConsensusConfig(weigh=False), warn=lambda _: None)
    levels = np.zeros(len(truth))
    levels[[int(name) for name in fitted.voices.pairs.names]] = fitted.point[:-1]
    return float(kendalltau(levels, truth).statistic)


def count_needed(taus: list[float], every: int) -> float:
    """Return after how many comparisons tau reaches the target; infinite when it never does."""
    reached = [n for n, tau in enumerate(taus, start=1) if tau >= TARGET]
    return float(reached[0] * every) if reached else float("inf")


def draw(curves: dict[str, npt.NDArray[np.float64]], every: int, title: str, out: Path) -> None:
    """Draw the median and the 10th to 90th percentile over the seeds."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    styles = {"ours": ("#0f6a5b", "-"), "asap": ("#b35806", "--"), "random": ("#56666b", ":")}
    for name, taus in curves.items():
        colour, dash = styles[name]
        steps = every * (1 + np.arange(taus.shape[1]))
        low, middle, high = np.quantile(taus, (0.1, 0.5, 0.9), axis=0)
        axes.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.plot(steps, middle, dash, color=colour, label=name, linewidth=2)
    axes.axhline(TARGET, color="#999999", linewidth=1)
    axes.set_xlabel("comparisons")
    axes.set_ylabel("Kendall's τ with the truth")
    axes.set_ylim(0.4, 1)
    axes.set_title(title)
    axes.legend(loc="lower right")
    figure.savefig(out, dpi=110)


def main() -> None:
    """Run all pickers over all seeds; print the table, write the raw figures and the curve."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--items", type=int, default=60)
    parser.add_argument("--most", type=int, default=1500)
    parser.add_argument("--every", type=int, default=20)
    given = parser.parse_args()
    annotators = Annotators(DATA / "nk_clusters" / "orderings.csv")
    curves, needed, seconds = {}, {}, {}
    for name in PICKERS:
        start = time.perf_counter()
        rows = [
            run(annotators, name, seed, given.items, given.every, given.most)
            for seed in range(given.seeds)
        ]
        seconds[name] = time.perf_counter() - start
        curves[name] = np.array(rows)
        needed[name] = [count_needed(taus, given.every) for taus in rows]
        low, middle, high = np.quantile(needed[name], (0.1, 0.5, 0.9), method="nearest")
        print(f"{name:7} {middle:6.0f} comparisons to reach tau {TARGET} (10-90 %: {low:.0f} to "
              f"{high:.0f}), end {np.median(curves[name][:, -1]):.3f}, {seconds[name]:.0f} s",
              flush=True)  # fmt: skip
    ratio = np.median(needed["ours"]) / np.median(needed["random"])
    print(f"ours / random: {ratio:.2f}")
    RESULTS.mkdir(exist_ok=True)
    stem = f"picker_{given.items}"
    title = f"{given.items} items, {given.seeds} seeds: median, 10th to 90th percentile"
    draw(curves, given.every, title, RESULTS / f"{stem}.png")
    found = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {name: version(name) for name in ("ecofm", "numpy", "scipy")},
        "settings": vars(given), "target": TARGET, "seconds": seconds,
        "needed": {k: [n if np.isfinite(n) else None for n in v] for k, v in needed.items()},
        "curves": {name: np.round(taus, 4).tolist() for name, taus in curves.items()},
    }  # fmt: skip
    write_json(RESULTS / f"{stem}.json", found)


if __name__ == "__main__":
    main()
