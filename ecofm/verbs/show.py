"""`ecofm show`: what an artifact is, in a few lines and pictures."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
from PIL import Image

from ecofm.artifact import MADE_BY, MANIFEST, read_json, read_manifest
from ecofm.errors import ArtifactError
from ecofm.maps.pictures import draw_scores, draw_true_colour, save_picture, stretch_true_colour
from ecofm.tiles.archive import open_archive
from ecofm.types import say

SHEET_TILES, SHEET_COLUMNS, THUMBNAIL_PX = 48, 8, 128


def show(path: Path, *, out: Path | None = None) -> None:
    """Print a summary of any artifact, and draw its pictures.

    Args:
        path: The artifact's folder: archive, run or encoder, embeddings, clusters, ranker,
            scores, change or report.
        out: Folder for the pictures; beside PATH, named PATH-pictures, by default.
    """
    folder = path / "encoder" if (path / "encoder" / MANIFEST).is_file() else path
    if not (folder / MANIFEST).is_file():
        raise ArtifactError(f"{path} is no artifact: it has no {MANIFEST}.")
    found = read_json(folder / MANIFEST)
    stage = str(found.get("stage")) if isinstance(found, dict) else "none"
    if stage not in MADE_BY:
        raise ArtifactError(f"{path} was made by stage {stage}, which this ecofm does not know.")
    manifest = read_manifest(folder, stage)
    pictures = out or path.parent / f"{path.resolve().name}-pictures"
    print(f"{path}: {stage}, made by `{MADE_BY[stage]}` of ecofm {manifest.get('ecofm')}")
    for name in sorted(set(manifest) - {"schema", "stage", "ecofm", "inputs"}):
        print(f"  {name}: {json.dumps(manifest[name])}")
    draw = DRAWERS.get(stage)
    if draw is not None:
        pictures.mkdir(parents=True, exist_ok=True)
        draw(folder, pictures, manifest)
        say(f"{pictures}: pictures")


def _draw_archive(folder: Path, pictures: Path, manifest: dict[str, Any]) -> None:
    archive = open_archive(folder)
    counts = archive.index.groupby("period")["valid_share"].agg(["size", "mean"])
    for period, row in counts.iterrows():
        print(f"  {period}: {int(row['size'])} tiles, {row['mean']:.1%} of their pixels valid")
    chosen = np.unique(np.linspace(0, archive.n_tiles - 1, SHEET_TILES).astype(int))
    rows = -(-len(chosen) // SHEET_COLUMNS)
    sheet = Image.new("RGB", (SHEET_COLUMNS * THUMBNAIL_PX, rows * THUMBNAIL_PX), "white")
    for place, tile_index in enumerate(chosen.tolist()):
        pixels, _ = archive.read(tile_index)
        image = Image.fromarray(stretch_true_colour(pixels, archive.contract))
        corner = (place % SHEET_COLUMNS * THUMBNAIL_PX, place // SHEET_COLUMNS * THUMBNAIL_PX)
        sheet.paste(image.resize((THUMBNAIL_PX - 4, THUMBNAIL_PX - 4)), corner)
    sheet.save(pictures / "contact_sheet.png")
    if archive.grid != "none":
        for period in archive.periods:
            figure = draw_true_colour(archive, period, f"True colour {period}")
            save_picture(figure, pictures / f"true_colour_{period}.png")


def _draw_clusters(folder: Path, pictures: Path, manifest: dict[str, Any]) -> None:
    sizes = pd.read_parquet(folder / "clusters.parquet").groupby("item").size()
    print("  sizes: " + ", ".join(f"{item}: {size}" for item, size in sizes.items()))
    for sheet in sorted((folder / "exemplars").glob("*.png")):
        Image.open(sheet).save(pictures / sheet.name)


def _draw_scores(folder: Path, pictures: Path, manifest: dict[str, Any]) -> None:
    scores = gpd.read_parquet(folder / "scores.parquet")
    print(scores.groupby("period")["score"].describe().round(2).to_string())
    for period in sorted(scores["period"].unique()):
        if scores.geometry.notna().any():
            figure = draw_scores(scores, period, f"Score {period}", manifest["attribution"])
            save_picture(figure, pictures / f"score_{period}.png")


def _draw_own(folder: Path, pictures: Path, manifest: dict[str, Any]) -> None:
    for picture in sorted(folder.rglob("*.png")):
        Image.open(picture).save(pictures / picture.name)


DRAWERS: dict[str, Callable[[Path, Path, dict[str, Any]], None]] = {
    "archive": _draw_archive,
    "clusters": _draw_clusters,
    "scores": _draw_scores,
    "change": _draw_own,
    "report": _draw_own,
}
