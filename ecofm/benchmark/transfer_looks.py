"""The curve of a transfer as a table and a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator, ScalarFormatter

from ecofm.lettering import save_figure

BAND = (0.1, 0.5, 0.9)
"""Quantiles over the draws: the band's ends and its middle."""
COLOURS = {"transfer": "#0072b2", "scratch": "#e69f00"}
DASHES = {"random": "-", "given": "-", "active": "--"}


def summarise(table: pd.DataFrame) -> dict[str, Any]:
    """Return quantiles over draws for each pick, method and n, and paired differences.

    `table` has draw, pick, method, n and spearman; NaN values are left out and counted.
    """
    curve = []
    for key, rows in table.groupby(["pick", "method", "n"], sort=False):
        pick, method, n = key
        values = rows["spearman"].dropna().to_numpy()
        record: dict[str, Any] = {"pick": pick, "method": method, "n": n, "n_draws": len(values)}
        record["n_missing"] = len(rows) - len(values)
        ends = np.quantile(values, BAND).tolist() if len(values) else [None] * 3
        curve.append({**record, **dict(zip(("lower", "median", "upper"), ends, strict=True))})
    wide = table.pivot(index=["draw", "n"], columns=["pick", "method"], values="spearman")
    differences = []
    picks = list(dict.fromkeys(table["pick"]))
    duels = [((pick, "transfer"), (pick, "scratch")) for pick in picks]
    if {"active", "random"} <= set(picks):
        duels += [(("active", m), ("random", m)) for m in ("transfer", "scratch")]
    for one, other in duels:
        if one not in wide or other not in wide:
            continue
        for n, gap in (wide[one] - wide[other]).dropna().groupby("n"):
            if n == 0:
                continue
            lower, median, upper = np.quantile(gap, BAND).tolist()
            differences.append(
                {"of": " ".join(one), "less": " ".join(other), "n": n, "n_draws": len(gap),
                 "lower": lower, "median": median, "upper": upper,
                 "share_above_0": float((gap > 0).mean())}
            )  # fmt: skip
    return {"quantiles": list(BAND), "curve": curve, "differences": differences}


def render_table(summary: dict[str, Any]) -> str:
    """Return the curve in Markdown: median and band, one row a number of questions."""
    columns = list(dict.fromkeys((r["pick"], r["method"]) for r in summary["curve"]))
    found = {(r["pick"], r["method"], r["n"]): r for r in summary["curve"]}
    head = ["questions", *(f"{method}, {pick}" for pick, method in columns)]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for n in sorted({r["n"] for r in summary["curve"]}):
        cells = [_cell(found.get((pick, method, n))) for pick, method in columns]
        lines.append(f"| {n} | " + " | ".join(cells) + " |")
    draws = max(r["n_draws"] for r in summary["curve"])
    lines += ["", f"Spearman with the truth in left-out regions: median of {draws} draws "
                  "[10th, 90th percentile]."]  # fmt: skip
    return "\n".join(lines)


def _cell(record: dict[str, Any] | None) -> str:
    if record is None or record["median"] is None:
        return "-"
    return f"{record['median']:.3f} [{record['lower']:.2f}, {record['upper']:.2f}]"


def draw_curve(table: pd.DataFrame, path: Path) -> None:
    """Draw median and band by the number of questions, one line a method and way to pick."""
    figure = Figure(figsize=(7.5, 4.8), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    axes.set_xscale("symlog", linthresh=10, linscale=0.6)
    for (pick, method), rows in table.groupby(["pick", "method"], sort=False):
        bands = rows.groupby("n")["spearman"].quantile(np.array(BAND)).unstack()
        colour = COLOURS[str(method)]
        axes.fill_between(
            bands.index, bands[BAND[0]], bands[BAND[2]], color=colour, alpha=0.12, linewidth=0
        )
        name = {"transfer": "transferred", "scratch": "from scratch"}[str(method)]
        label = f"{name}, {pick} pairs"
        axes.plot(
            bands.index, bands[BAND[1]], DASHES[str(pick)], color=colour, marker="o", markersize=4,
            label=label,
        )  # fmt: skip
    axes.set_xticks(sorted(table["n"].unique()))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set(xlabel="questions asked in the new country", ylabel="Spearman with the truth")
    axes.set_title(
        f"Left-out regions: median and 10th to 90th percentile of {table['draw'].nunique()} draws",
        fontsize=10,
    )
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", fontsize=9)
    save_figure(figure, path)
