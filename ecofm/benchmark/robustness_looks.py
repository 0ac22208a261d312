"""The robustness of a ranker as a table and a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ecofm.escaping import for_markdown
from ecofm.lettering import make_labels, save_figure


def render_table(report: dict[str, Any]) -> str:
    """Return shifts, years, colour and proxy in Markdown."""
    lines = ["| lens | mean shift | deviation | rank correlation |", "|---|---|---|---|"]
    lines += [
        f"| {for_markdown(s['lens'])} | {s['mean_shift']:+.2f} | {s['deviation']:.2f} | "
        f"{_number(s['rank_correlation'])} |"
        for s in report["shifts"]
    ]
    lines += ["", f"{report['n_tiles']} tiles; shifts in deviations of the score over tiles."]
    if report["years"]:
        lines += ["", "| periods | all cells | unchanged cells | shift of unchanged |",
                  "|---|---|---|---|"]  # fmt: skip
        lines += [
            f"| {for_markdown(y['from'])} to {for_markdown(y['to'])} | "
            f"{_number(y['rank_correlation'])} ({y['n_cells']}) | "
            f"{_number(y['unchanged'])} ({y['n_unchanged']}) | {_number(y['mean_shift'], '+.2f')} |"
            for y in report["years"]
        ]
    colour = ", ".join(f"{name} {value:+.2f}" for name, value in report["colour"].items())
    lines += ["", f"Rank correlation with mean colour: {colour}."]
    if proxy := report["proxy"]:
        lines += ["", f"Rank correlation with {for_markdown(proxy['target'])} over "
                  f"{proxy['n_cells']} cells: "
                  f"{proxy['spearman']:.3f} [{proxy['lower']:.2f}, {proxy['upper']:.2f}]; given "
                  f"mean colour {proxy['given_colour']:.3f} [{proxy['given_colour_lower']:.2f}, "
                  f"{proxy['given_colour_upper']:.2f}]."]  # fmt: skip
    return "\n".join(lines)


def _number(value: float | None, style: str = ".3f") -> str:
    return "-" if value is None else format(value, style)


def draw_robustness(report: dict[str, Any], path: Path) -> None:
    """Draw each lens's shift with its deviation, and its rank correlation beside it."""
    shifts = report["shifts"][::-1]
    names = [s["lens"] for s in shifts]
    figure = Figure(figsize=(8.5, 1.4 + 0.36 * len(names)), dpi=110, layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    places = np.arange(len(names))
    left.barh(
        places, [s["mean_shift"] for s in shifts], xerr=[s["deviation"] for s in shifts],
        color="#0072b2", ecolor="#333333", capsize=3,
    )  # fmt: skip
    left.axvline(0, color="black", linewidth=0.8)
    left.set_yticks(places, make_labels(names))
    left.set_xlabel("shift of the score, in its deviations")
    left.set_title("mean, and deviation over tiles", fontsize=10)
    right.barh(places, [s["rank_correlation"] or 0 for s in shifts], color="#999999")
    right.set_xlim(0, 1)
    right.axvline(1, color="black", linewidth=0.8)
    right.set_xlabel("rank correlation with the score before")
    right.set_title(f"{report['n_tiles']} tiles", fontsize=10)
    save_figure(figure, path)
