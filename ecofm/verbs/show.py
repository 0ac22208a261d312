"""`ecofm show`: what an artifact is, in a few lines and pictures."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from ecofm.artifact import MADE_BY, MANIFEST, read_json, read_manifest
from ecofm.checksums import find_faults, remake
from ecofm.compare.members import read_members
from ecofm.contrast import name_colours, warn_of_names
from ecofm.errors import ArtifactError
from ecofm.maps.change import read_scores
from ecofm.maps.granules import measure_scene_edges, summarise
from ecofm.maps.looks import (
    draw_contact_sheet,
    draw_histograms,
    draw_seams,
    draw_valid_share,
    measure_seams,
    pick_periods,
)
from ecofm.maps.pictures import draw_imagery, draw_scores, save_picture
from ecofm.rank.evidence import say_evidence
from ecofm.rank.opening import load_ranker
from ecofm.tables import write_csv
from ecofm.tiles.archive import open_archive
from ecofm.tiles.periods import sort_periods
from ecofm.types import print_result, say

MAX_LINE = 2000
RUN = "run.json"  # what `pretrain` notes at a run's beginning


def show(path: Path, *, out: Path | None = None) -> None:
    """Print a summary of any artifact, and draw its pictures.

    Args:
        path: The artifact's folder: archive, run or encoder, embeddings, clusters, ranker,
            scores, change, report or transfer curve.
        out: Folder for the pictures; beside PATH, named PATH-pictures, by default.
    """
    folder = path / "encoder" if (path / "encoder" / MANIFEST).is_file() else path
    if not (folder / MANIFEST).is_file() and (path / RUN).is_file():
        raise ArtifactError(
            f"{path} is a run that has not ended; the command that began it continues, and "
            f"{path / 'views.png'} and {path / 'health.png'} show how it is doing."
        )
    if not (folder / MANIFEST).is_file():
        raise ArtifactError(f"{path} is no artifact: it has no {MANIFEST}.")
    found = read_json(folder / MANIFEST)
    stage = str(found.get("stage")) if isinstance(found, dict) else "none"
    if stage not in MADE_BY:
        raise ArtifactError(f"{path} was made by stage {stage}, which this ecofm does not know.")
    manifest = read_manifest(folder, stage)
    if fault := find_faults(folder, manifest):
        raise ArtifactError(f"{fault}; {remake(stage)}.")
    pictures = out or path.parent / f"{path.resolve().name}-pictures"
    print_result(f"{path}: {stage}, made by `{MADE_BY[stage]}` of ecofm {manifest.get('ecofm')}")
    print_result(f"  inputs: {len(manifest.get('inputs', {}))}")
    for name in sorted(set(manifest) - {"schema", "stage", "ecofm", "inputs", "statistics"}):
        text = json.dumps(manifest[name])
        print_result(f"  {name}: {text if len(text) <= MAX_LINE else text[:MAX_LINE] + '...'}")
    if stage == "ranker":
        say_evidence(load_ranker(folder)[1])
    elif manifest.get("warning"):
        say(f"warning: {manifest['warning']}.")
    draw = DRAWERS.get(stage)
    if draw is not None:
        pictures.mkdir(parents=True, exist_ok=True)
        draw(folder, pictures, manifest)
        if any(pictures.iterdir()):
            say(f"{pictures}: pictures")
        else:
            pictures.rmdir()


def _draw_archive(folder: Path, pictures: Path, manifest: dict[str, Any]) -> None:
    archive = open_archive(folder)
    warn_of_names(archive.contract, folder)
    counts = archive.index.groupby("period")["valid_share"].agg(["size", "mean", "min"])
    for period, row in counts.iterrows():
        print_result(
            f"  {period}: {int(row['size'])} tiles, {row['mean']:.1%} of their pixels valid "
            f"(least {row['min']:.1%})"
        )
    for reason, n in archive.rejected["reason"].str.slice(0, 70).value_counts().head(5).items():
        print_result(f"  left out: {n} inputs: {reason}")
    draw_contact_sheet(archive).save(pictures / "contact_sheet.png")
    save_picture(draw_histograms(archive), pictures / "histograms.png")
    if archive.grid == "none":
        return
    save_picture(draw_valid_share(archive), pictures / "valid_share.png")
    seams = measure_seams(archive)
    if len(seams.table):
        print_result("steps in mean radiometry across the edges of cells (1 = as inside a tile):")
        print_result(seams.summary().round(3).to_string(index=False))
    crossings = measure_scene_edges(archive)
    if len(crossings):
        print_result("steps in mean radiometry across the edges of scenes inside tiles:")
        print_result(summarise(crossings).round(3).to_string(index=False))
        write_csv(crossings, pictures / "scene_edges.csv")
    # true_colour, false_colour or grey: the picture's title says which bands.
    colours = name_colours(archive.contract).split(" (")[0].lower().replace(" ", "_")
    for period in pick_periods(archive):
        save_picture(draw_imagery(archive, period), pictures / f"{colours}_{period}.png")
        if (seams.table["period"] == period).any():
            figure = draw_seams(seams, period, archive.attribution)
            save_picture(figure, pictures / f"seams_{period}.png")


def _draw_clusters(folder: Path, pictures: Path, manifest: dict[str, Any]) -> None:
    sizes = read_members(folder).groupby("item").size()
    print_result("  sizes: " + ", ".join(f"{item}: {size}" for item, size in sizes.items()))
    for sheet in sorted((folder / "exemplars").glob("*.png")):
        Image.open(sheet).save(pictures / sheet.name)


def _draw_scores(folder: Path, pictures: Path, manifest: dict[str, Any]) -> None:
    scores, attribution = read_scores(folder), str(manifest.get("attribution", ""))
    print_result(scores.groupby("period")["score"].describe().round(2).to_string())
    for period in sort_periods(scores["period"]):
        if scores.geometry.notna().any():
            figure = draw_scores(scores, period, f"Score {period}", attribution)
            save_picture(figure, pictures / f"score_{period}.png")


def _draw_own(folder: Path, pictures: Path, manifest: dict[str, Any]) -> None:
    for picture in sorted(folder.rglob("*.png")):
        Image.open(picture).save(pictures / picture.name)


def _draw_run(folder: Path, pictures: Path, manifest: dict[str, Any]) -> None:
    """Show what the run drew beside its encoder; an encoder that was copied away has nothing."""
    run = folder.resolve().parent
    for name in ("views.png", "health.png"):
        if (run / RUN).is_file() and (run / name).is_file():
            Image.open(run / name).save(pictures / name)


DRAWERS: dict[str, Callable[[Path, Path, dict[str, Any]], None]] = {
    "archive": _draw_archive,
    "encoder": _draw_run,
    "clusters": _draw_clusters,
    "scores": _draw_scores,
    "change": _draw_own,
    "report": _draw_own,
    "agreement": _draw_own,
    "transfer": _draw_own,
    "robustness": _draw_own,
}
