"""`ecofm compare report`: what people agree on and where they differ, as tables and pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ecofm.artifact import Draft, write_text
from ecofm.compare.agreement import (
    draw_agreement,
    measure_agreement,
    tabulate_disputes,
)
from ecofm.compare.annotators import describe_annotators, tabulate_annotators
from ecofm.compare.chance import BETTER, INTERVAL
from ecofm.compare.consensus import ConsensusConfig, fit_answers, tabulate
from ecofm.compare.exchange import hash_comparisons, read_comparisons
from ecofm.compare.graph import build_order, explain_contradictions
from ecofm.compare.hasse import MAX_NODES, draw_hasse
from ecofm.compare.tables import write_table
from ecofm.escaping import for_markdown
from ecofm.lettering import make_labels, save_figure
from ecofm.types import say

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

MAX_ANNOTATORS = 200
"""More annotators make a matrix that nobody can read."""
MAX_LINES = 60
"""Items in the picture of levels; of more, every k-th is drawn."""
DPI = 110


def write_report(
    comparisons: Path,
    out: Path,
    config: ConsensusConfig | None = None,
    *,
    overwrite: bool = False,
    warn: Callable[[str], None] = say,
) -> Path:
    """Write the folder `out`: consensus, annotators, agreement and disputes, and report.md.

    `comparisons` is a store or a table. Tables are CSV; pictures are levels.png, agreement.png
    and hasse.png, each left out where there is nothing to draw or too much. Raises
    ComparisonError as `read_comparisons` and `fit_consensus` do.
    """
    config = config or ConsensusConfig()
    answers = read_comparisons(comparisons)
    inputs = {"comparisons": hash_comparisons(answers)}
    draft = Draft(out, stage="agreement", config=asdict(config), inputs=inputs, overwrite=overwrite)
    if draft.done:
        say(f"{out} is done already: the same comparisons and options.")
        return out
    crowd = fit_answers(answers, config, warn)
    consensus = tabulate(crowd, config)
    tables = {
        "consensus": consensus,
        "annotators": tabulate_annotators(answers, crowd),
        "agreement": measure_agreement(answers),
        "disputes": tabulate_disputes(answers),
    }
    order = build_order(answers)
    pictures = {"levels": draw_levels(consensus, config.interval)}
    # Who only skipped is in the table, and agrees with nobody.
    if 2 <= len(crowd.voices.annotators) <= MAX_ANNOTATORS:
        pictures["agreement"] = draw_agreement(tables["agreement"])
    if len(order.names) <= MAX_NODES:
        pictures["hasse"] = draw_hasse(order, "Who stands above whom, by majority")
    contradictions = explain_contradictions(answers)
    sentences = describe_annotators(tables["annotators"])
    with draft as folder:
        for name, table in tables.items():
            write_table(table, folder / f"{name}.csv")
        for name, picture in pictures.items():
            save_figure(picture, folder / f"{name}.png", DPI)
        text = describe(len(answers), tables, contradictions, sentences, list(pictures), config)
        write_text(folder / "report.md", text)
        draft.extra = {
            "n_comparisons": len(answers),
            "n_items": len(consensus),
            "n_annotators": len(tables["annotators"]),
            "n_doubtful": int((tables["annotators"]["verdict"] != BETTER).sum()),
            "n_disputes": len(tables["disputes"]),
            "n_contradictions": len(contradictions),
        }
    for sentence in sentences:
        warn(sentence)
    return out


def describe(
    n_answers: int,
    tables: dict[str, pd.DataFrame],
    contradictions: list[str],
    sentences: list[str],
    pictures: list[str],
    config: ConsensusConfig,
) -> str:
    """Return report.md: the figures in sentences, the tables' first lines, the pictures."""
    consensus, annotators = tables["consensus"], tables["annotators"]
    tau, disputes = tables["agreement"]["tau"].dropna(), tables["disputes"]
    lines = [
        "# What people agree on",
        "",
        f"{n_answers} comparisons of {len(consensus)} items by {len(annotators)} annotator(s).",
        f"Intervals of levels hold {config.interval:.0%} of the posterior; those of an annotator's "
        f"agreement with the others hold it in {INTERVAL:.0%} of cases.",
    ]
    if len(tau):
        lines.append(
            f"Annotators agree at Kendall's τ {tau.min():.2f} to {tau.max():.2f}, "
            f"{tau.median():.2f} in the median; {len(disputes)} pairs have annotators on both "
            "sides."
        )
    lines += ["", *(f"![{name}]({name}.png)" for name in pictures), "", "## Contradictions", ""]
    lines += [f"- {for_markdown(sentence)}" for sentence in contradictions[:50]] or ["None."]
    who = [*(f"- {for_markdown(sentence)}" for sentence in sentences), ""]
    for title, name, n_rows, words in (
        ("Annotators", "annotators", 100, who),
        ("Levels", "consensus", 100, []),
        ("In dispute", "disputes", 20, []),
    ):
        lines += ["", f"## {title}", "", *words, *to_markdown(tables[name].head(n_rows))]
        rest = len(tables[name]) - n_rows
        lines += ["", f"{rest} more in {name}.csv."] if rest > 0 else []
    return "\n".join(lines) + "\n"


def to_markdown(table: pd.DataFrame) -> list[str]:
    """Return the lines of a table; numbers with two decimals, NaN as none."""
    rows = [list(table.columns), ["---"] * len(table.columns)]
    for row in table.itertuples(index=False):
        rows.append([_show(cell) for cell in row])
    return [f"| {' | '.join(row)} |" for row in rows]


def _show(cell: object) -> str:
    if isinstance(cell, float):
        return "none" if np.isnan(cell) else f"{cell:.2f}"
    return for_markdown(cell)


def draw_levels(consensus: pd.DataFrame, interval: float) -> Figure:
    """Return the items' levels with their intervals, best at the top."""
    from matplotlib.figure import Figure

    shown = consensus.iloc[:: -(-len(consensus) // MAX_LINES)]
    place = np.arange(len(shown))[::-1]
    figure = Figure(figsize=(7, 1.4 + 0.24 * len(shown)), layout="constrained")
    axes = figure.add_subplot()
    axes.hlines(place, shown["lower"], shown["upper"], color="#5b8a83", linewidth=3, alpha=0.7)
    axes.plot(shown["score"], place, "o", color="#0f3d36", markersize=5)
    axes.set_yticks(place, make_labels(shown["item"], 24))
    axes.set_ylim(-1, len(shown))
    axes.grid(axis="x", color="#dddddd")
    axes.set_axisbelow(True)
    axes.set_xlabel(f"score (standard deviations of the items; {interval:.0%} intervals)")
    left_out = len(consensus) - len(shown)
    axes.set_title(
        "Consensus levels" if not left_out else
        f"Levels: every {-(-len(consensus) // MAX_LINES)}th of {len(consensus)} items"
    )  # fmt: skip
    return figure
