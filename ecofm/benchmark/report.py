"""The report of a benchmark: JSON for programs, Markdown and pictures for people."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ecofm.artifact import MANIFEST, read_json, read_manifest, write_json, write_text
from ecofm.benchmark.contest import METRICS, OURS, Outcome
from ecofm.benchmark.joining import Join
from ecofm.checksums import open_file
from ecofm.errors import EcofmError
from ecofm.escaping import for_markdown, visible
from ecofm.lettering import label, make_labels, save_figure

# Blue, orange and grey differ in lightness too, so the bars read in black and white.
COLOURS = {"ours": "#0072b2", "rival": "#e69f00", "baseline": "#999999"}
TITLES = {
    "spearman": "Spearman",
    "pearson": "Pearson",
    "r2": "R²",
    "r2_log": "R² of logs",
    "spearman_given_colour": "Spearman given colour",
}
DENSE = 2_000
"""More places than this are drawn as hexagons that count."""
MAX_BASELINES = 8
"""Image statistics drawn beside ours: the best."""
LEGEND = """Spearman, Pearson and R² of a linear fit, each with its 95 % bootstrap interval over \
places. All scores of a row are judged on the same places. Image statistics are shown as |rho|: \
the sign is turned in their favour, and picking the best of them after the fact favours them too. \
R² of logs takes the logarithm of the target, and of a score where it is positive everywhere. A \
region's value is the mean over the cells that it overlaps, weighted by the area of the overlap.
"""

Record = Mapping[str, Any]


def write_report(
    folder: Path,
    outcomes: list[Outcome],
    refused: list[str],
    attribution: str,
    join: Join,
    readings: list[str],
) -> None:
    """Write report.json, report.md and the pictures of the headline contests.

    `readings` say how cells of the proxies were read that are no plain numbers.
    """
    report = {
        "contests": [outcome.contest for outcome in outcomes],
        "figures": [record for outcome in outcomes for record in outcome.figures],
        "differences": [record for outcome in outcomes for record in outcome.differences],
        "notes": [
            {**_key(outcome.contest), "period": outcome.contest["period"], "note": note}
            for outcome in outcomes
            for note in outcome.notes
        ],
        "left_out": refused,
        "join": {**join.record, "said": join.sentences},
        "readings": readings,
        "attribution": attribution,
    }
    write_json(folder / "report.json", report)
    names: list[str] = []
    times: Counter[str] = Counter()
    for outcome in _pick_headlines(outcomes):
        stem = _slug("_".join(str(outcome.contest[k]) for k in ("level", "target", "subset")))
        # Targets that differ in signs that a file's name cannot have, or only in capitals.
        times[stem.casefold()] += 1
        if (number := times[stem.casefold()]) > 1:
            stem += f"-{number}"
        names += [f"scatter_{stem}.png", f"bars_{stem}.png"]
        save_figure(draw_scatter(outcome), folder / names[-2])
        save_figure(draw_bars(outcome), folder / names[-1])
    write_text(folder / "report.md", "\n".join(render_markdown(report, names)) + "\n")


def _key(record: Record) -> dict[str, str]:
    return {name: record[name] for name in ("level", "target", "subset")}


def _slug(text: str) -> str:
    """Return the letters and digits of a text, of any script, as a file's name holds them."""
    return re.sub(r"[\W_]+", "-", text.replace(">", "above")).strip("-")[:55]


def _pick_headlines(outcomes: list[Outcome]) -> list[Outcome]:
    """Return the last contest of each level, target and subset: the mean of periods if any."""
    return list({tuple(_key(o.contest).values()): o for o in outcomes}.values())


def summary_table(report_json: Path | Record) -> str:
    """Return a short table for the terminal: Spearman of ours, rivals and the best baseline.

    Takes report.json's path, the report's folder, or the object that it holds. Raises
    EcofmError when it is no report.
    """
    report = report_json
    if isinstance(report, Path):
        report = report / "report.json" if report.is_dir() else report
        if (folder := report.parent).joinpath(MANIFEST).is_file():
            report = open_file(folder, read_manifest(folder, "report"), report.name)
        report = read_json(report)
    if not isinstance(report, Mapping) or "contests" not in report:
        raise EcofmError(f"{report_json} is no report.json; make it with `ecofm benchmark`.")
    lines = []
    for key, contests in _group(report["contests"]):
        title = f"Spearman with {key['target']}, by {key['level']} ({key['subset']})"
        lines += ["", visible(title)]
        names = _contestants(report, key)
        rows = [["period", "n", *names, "best image statistic"]]
        for contest in contests:
            found = _by_score(report, contest, "spearman")
            row = [contest["period"], str(contest["n"])]
            row += [_number(found.get(name)) for name in names]
            best = contest["best_baseline"]
            row.append(f"{_number(found[best])} {best}" if best else "-")
            rows.append(row)
        lines += _align([[visible(cell) for cell in row] for row in rows])
    return "\n".join(lines[1:])


def _align(rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(v.ljust(w) for v, w in zip(r, widths, strict=True)).rstrip() for r in rows]


def _group(contests: list[Record]) -> Iterator[tuple[dict[str, str], list[Record]]]:
    """Yield (level, target and subset, its contests by period)."""
    ordered = sorted(contests, key=lambda record: tuple(_key(record).values()))
    for _, group in groupby(ordered, key=_key):
        members = list(group)
        yield _key(members[0]), members


def _contestants(report: Record, key: Record) -> list[str]:
    """Return our score and the rivals that appear in any period."""
    names = [f["score"] for f in report["figures"] if f["kind"] != "baseline" and _key(f) == key]
    return list(dict.fromkeys(names))


def _by_score(report: Record, contest: Record, metric: str) -> dict[str, Record]:
    return {
        f["score"]: f
        for f in report["figures"]
        if f["metric"] == metric and f["period"] == contest["period"] and _key(f) == _key(contest)
    }


def _number(record: Record | None, interval: bool = False) -> str:
    """Return `.774` or `.774 [.760, .790]`; a dash where there is none."""
    if record is None:
        return "-"
    value, lower, upper = (
        f"{record[name]:.3f}".replace("0.", ".") for name in ("value", "lower", "upper")
    )
    return f"{value} [{lower}, {upper}]" if interval else value


def render_markdown(report: Record, pictures: list[str]) -> Iterator[str]:
    """Yield the lines of report.md."""
    yield from ("# Benchmark", "", LEGEND)
    yield from ("## What was compared", "")
    yield from (f"- {for_markdown(sentence)}" for sentence in report["join"]["said"])
    yield from ("- unmatched.csv names everything without a partner.", "")
    if report["readings"]:
        yield from ("## How the proxies were read", "")
        yield from (f"- {for_markdown(sentence)}" for sentence in report["readings"])
        yield ""
    for key, contests in _group(report["contests"]):
        title = f"{key['target']}, by {key['level']}: {key['subset']}"
        yield f"## {for_markdown(title)}"
        yield from ("", *_render_periods(report, key, contests))
        yield from ("", *_render_headline(report, contests[-1]))
        yield ""
    for picture in pictures:
        yield f"![{picture}]({picture})"
    if report["notes"] or report["left_out"]:
        yield from ("", "## Left out", "")
        for note in report["notes"]:
            place = f"{note['level']}, {note['period']}, {note['target']}"
            yield f"- {for_markdown(place)}: {for_markdown(note['note'])}"
        yield from (f"- {for_markdown(sentence)}" for sentence in report["left_out"])
    if report["attribution"]:
        yield from ("", for_markdown(report["attribution"]))


def _render_periods(report: Record, key: Record, contests: list[Record]) -> Iterator[str]:
    """Yield a table of Spearman by period."""
    names = _contestants(report, key)
    heads = [*map(for_markdown, names), "best image statistic"]
    yield "| period | places | " + " | ".join(heads) + " |"
    yield "|---" * (len(names) + 3) + "|"
    for contest in contests:
        found = _by_score(report, contest, "spearman")
        cells = [_number(found.get(name), interval=True) for name in names]
        best = contest["best_baseline"]
        cells.append(f"{for_markdown(best)} {_number(found[best], interval=True)}" if best else "-")
        yield f"| {for_markdown(contest['period'])} | {contest['n']} | " + " | ".join(cells) + " |"


def _render_headline(report: Record, contest: Record) -> Iterator[str]:
    """Yield all metrics of all scores for one contest, and our differences to the others."""
    by_metric = {metric: _by_score(report, contest, metric) for metric in METRICS}
    metrics = [metric for metric in METRICS if by_metric[metric]]
    yield f"Period {for_markdown(contest['period'])}, {contest['n']} places:"
    yield ""
    yield "| score | " + " | ".join(TITLES[metric] for metric in metrics) + " |"
    yield "|---" * (len(metrics) + 1) + "|"
    for name, record in by_metric["spearman"].items():
        title = f"{name} (sign turned)" if record["turned"] else name
        cells = [_number(by_metric[metric].get(name), interval=True) for metric in metrics]
        yield f"| {for_markdown(title)} | " + " | ".join(cells) + " |"
    yield ""
    for record in report["differences"]:
        if record["period"] == contest["period"] and _key(record) == _key(contest):
            rival = for_markdown(record["rival"])
            yield f"- {OURS} less {rival}: {_number(record, interval=True)} (Spearman)"


def draw_scatter(outcome: Outcome) -> Figure:
    """Return our score against the target, place by place, with the rank correlation."""
    contest = outcome.contest
    record = next(f for f in outcome.figures if f["score"] == OURS and f["metric"] == "spearman")
    score = outcome.places[OURS].to_numpy()
    target = outcome.places[contest["target"]].to_numpy()
    figure, axes = _start(5.5, 4.5)
    if (target > 0).all():
        axes.set_yscale("log")
    elif np.ptp(target) > 100 * max(float(np.median(np.abs(target))), 1e-9):
        sizes = np.abs(target[target != 0])
        axes.set_yscale("symlog", linthresh=float(np.percentile(sizes, 10)))
    if len(score) > DENSE and (target > 0).all():
        drawn = axes.hexbin(score, target, gridsize=50, bins="log", mincnt=1, yscale="log")
        figure.colorbar(drawn, ax=axes, label="places")
    else:
        alpha = max(0.05, 0.5 * min(1, DENSE / len(score)))
        axes.scatter(score, target, s=9, alpha=alpha, color=COLOURS["ours"], edgecolors="none")
    axes.set(
        xlabel=label(f"{OURS} score, {_say_period(contest)}", 60),
        ylabel=label(contest["target"], 60),
    )
    axes.set_title(f"rho = {_number(record, interval=True)}, n = {contest['n']}", fontsize=10)
    return figure


def draw_bars(outcome: Outcome) -> Figure:
    """Return the rank correlation of ours, the rivals and the best image statistics."""
    contest = outcome.contest
    records = [f for f in outcome.figures if f["metric"] == "spearman"]
    ordered = sorted(records, key=lambda f: f["value"], reverse=True)
    baselines = [f["score"] for f in ordered if f["kind"] == "baseline"][:MAX_BASELINES]
    shown = [f for f in ordered if f["kind"] != "baseline" or f["score"] in baselines][::-1]
    figure, axes = _start(6, 1.2 + 0.32 * len(shown))
    values = np.array([f["value"] for f in shown])
    reach = np.array([[f["value"] - f["lower"], f["upper"] - f["value"]] for f in shown]).T
    names = [f"|{f['score']}|" if f["kind"] == "baseline" else f["score"] for f in shown]
    axes.barh(
        range(len(shown)),
        values,
        xerr=np.maximum(reach, 0),
        color=[COLOURS[f["kind"]] for f in shown],
        ecolor="black",
        capsize=3,
    )
    axes.set_yticks(range(len(shown)), make_labels(names))
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_xlabel("Spearman with 95 % interval; |rho| for image statistics")
    target, period = label(contest["target"]), label(_say_period(contest))
    axes.set_title(
        f"{target}, {period} ({label(contest['subset'])}, n = {contest['n']})", fontsize=10
    )
    return figure


def _say_period(contest: Record) -> str:
    return "mean of periods" if contest["period"] == "mean" else str(contest["period"])


def _start(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    return figure, figure.add_subplot()
