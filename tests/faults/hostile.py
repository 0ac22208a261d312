"""Hostile and broken inputs through the command line: rasters, vectors, STAC, SAFE, checkpoints,
configs and tables. A good input beside a bad one must still be read."""

from __future__ import annotations

import json
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random

from tests.faults.forge import Command, Ended, run, start
from tests.faults.lab import Lab, clear
from tests.faults.mutations import mutate
from tests.faults.outcomes import Outcome, Try
from tests.faults.stages import Part

LIMIT_S = 40.0
LINKS = "--follow-links"
SECRET = "root:"
"""How a system's list of users begins, which no input may make us read."""

Paint = Callable[[Path, Path], None]


def tile(lab: Path, *more: str) -> tuple[str, ...]:
    return ("tile", "in", "--out", "out", "--grid", "utm:320", "--workers", "1", *more)


def paint_rasters(lab: Path, into: Path) -> None:
    for path in (lab / "country" / "scenes").glob("*.tif"):
        shutil.copy2(path, into / path.name)


def paint_vectors(lab: Path, into: Path) -> None:
    import geopandas as gpd

    table = gpd.read_file(lab / "country" / "districts.gpkg")
    table.to_file(into / "districts.gpkg")
    table.to_crs(4326).to_file(into / "districts.geojson", driver="GeoJSON")
    table.to_parquet(into / "districts.parquet")


def paint_items(lab: Path, into: Path) -> None:
    for number, path in enumerate(sorted((lab / "country" / "scenes").glob("*.tif"))):
        folder = into / f"item{number}"
        folder.mkdir()
        shutil.copy2(path, folder / path.name)
        item = {
            "type": "Feature", "stac_version": "1.0.0", "id": path.stem, "links": [],
            "geometry": None, "bbox": [126, 39, 128, 41],
            "properties": {"datetime": f"{path.stem[:4]}-06-01T00:00:00Z", "proj:epsg": 32652,
                           "earthsearch:boa_offset_applied": True},
            "assets": {"image": {"href": f"./{path.name}", "type": "image/tiff",
                                 "raster:bands": [{"scale": 0.0001, "offset": 0}]}},
        }  # fmt: skip
        (folder / f"{path.stem}.json").write_text(json.dumps(item, indent=1))
    links = [{"rel": "item", "href": str(p.relative_to(into))} for p in into.rglob("*.json")]
    catalog = {"type": "Catalog", "stac_version": "1.0.0", "id": "c", "description": "",
               "links": links}  # fmt: skip
    (into / "catalog.json").write_text(json.dumps(catalog))


def paint_safe(lab: Path, into: Path) -> None:
    import numpy as np
    import rasterio

    product = "S2B_MSIL2A_20220612T101559_N0400_R065_T52TDL_20220613T134800"
    images = into / f"{product}.SAFE" / "GRANULE" / "L2A_T52TDL" / "IMG_DATA"
    images.mkdir(parents=True)
    for band, gsd_m in {"B02": 10, "B03": 10, "B11": 20, "SCL": 20}.items():
        side = 640 // gsd_m
        kind = "uint8" if band == "SCL" else "uint16"
        pixels = np.full((side, side), 4 if band == "SCL" else 3000, kind)
        profile = {"driver": "GTiff", "count": 1, "height": side, "width": side, "dtype": kind,
                   "crs": "EPSG:32652",
                   "transform": rasterio.Affine(gsd_m, 0, 320000, 0, -gsd_m, 4321280)}  # fmt: skip
        with rasterio.open(
            images / f"T52TDL_20220612T101559_{band}_{gsd_m}m.jp2", "w", **profile
        ) as f:
            f.write(pixels, 1)
    offsets = "".join(f'<BOA_ADD_OFFSET band_id="{n}">-1000</BOA_ADD_OFFSET>' for n in range(13))
    (into / f"{product}.SAFE" / "MTD_MSIL2A.xml").write_text(
        '<n1:Level xmlns:n1="https://psd-14.sentinel2.eo.esa.int/">'
        "<PRODUCT_START_TIME>2022-06-12T10:15:59.024Z</PRODUCT_START_TIME>"
        "<PROCESSING_BASELINE>04.00</PROCESSING_BASELINE>"
        f"<PRODUCT_URI>{product}.SAFE</PRODUCT_URI>"
        f"<BOA_QUANTIFICATION_VALUE>10000</BOA_QUANTIFICATION_VALUE>{offsets}</n1:Level>"
    )


def paint_checkpoint(lab: Path, into: Path) -> None:
    shutil.copytree(lab / "run" / "encoder", into / "encoder")


def paint_run(lab: Path, into: Path) -> None:
    shutil.copytree(lab / "run", into / "run")
    shutil.rmtree(into / "run" / "encoder")  # so that the run goes on from its checkpoints
    (into / "dask.yaml").write_text("cluster: slurm\njobs: 2\noptions:\n  cores: 1\n")


def paint_tables(lab: Path, into: Path) -> None:
    import pandas as pd

    shutil.copy2(lab / "answers.csv", into)
    answers = pd.read_csv(lab / "answers.csv")
    answers.to_parquet(into / "answers.parquet")
    shutil.copy2(lab / "truth.parquet", into)
    pd.read_parquet(lab / "truth.parquet").to_csv(into / "truth.csv", index=False)
    clusters = pd.read_parquet(lab / "clusters" / "clusters.parquet")
    clusters[["tile_id", "item"]].to_csv(into / "members.csv", index=False)


def use_vector(lab: Path, bad: Path, random: Random) -> tuple[str, ...]:
    if random.random() < 0.5:
        return ("tile", str(lab / "country" / "scenes"), "--out", "out", "--grid", "utm:320",
                "--workers", "1", "--area", str(bad))  # fmt: skip
    return ("benchmark", "--scores", str(lab / "scores"), "--proxies",
            str(lab / "country" / "census.csv"), "--regions", str(bad), "--out", "out",
            "--n-bootstrap", "1000")  # fmt: skip


def use_run(lab: Path, bad: Path, random: Random) -> tuple[str, ...]:
    if bad.suffix == ".yaml":
        return (*tile(lab)[:1], str(lab / "country" / "scenes"), *tile(lab)[2:], "--dask", str(bad))
    tokens = Lab(lab).stages["pretrain"].tokens
    return (*tokens, "out=in/run")


def use_table(lab: Path, bad: Path, random: Random) -> tuple[str, ...]:
    if bad.stem == "truth":
        return ("benchmark", "--scores", str(lab / "scores"), "--proxies", str(bad), "--out", "out",
                "--n-bootstrap", "1000")  # fmt: skip
    if bad.stem == "members":
        return ("cluster", "--embeddings", str(lab / "embeddings"), "--out", "out", "--k", "3"
                ) if not bad.exists() else (
            "rank", "--embeddings", str(lab / "embeddings"), "--comparisons",
            str(lab / "answers.csv"), "--members", str(bad), "--out", "out", "--n-heads", "2",
            "--folds", "2")  # fmt: skip
    return ("compare", "import", str(bad), "--store", "store")


def use_scenes(lab: Path, bad: Path, random: Random) -> tuple[str, ...]:
    return tile(lab, *([LINKS] if random.random() < 0.5 else []))


def use_encoder(lab: Path, bad: Path, random: Random) -> tuple[str, ...]:
    return ("embed", "--archive", str(lab / "archive"), "--encoder", "in/encoder", "--out", "out")


SUBJECTS: dict[str, tuple[Paint, Callable[[Path, Path, Random], tuple[str, ...]]]] = {
    "rasters": (paint_rasters, use_scenes),
    "vectors": (paint_vectors, use_vector),
    "STAC": (paint_items, use_scenes),
    "SAFE": (paint_safe, use_scenes),
    "checkpoints": (paint_checkpoint, use_encoder),
    "configs": (paint_run, use_run),
    "tables": (paint_tables, use_table),
}
"""What is painted, and which command reads it."""


def attack(
    lab: Lab, subject: str, n: int, is_full: bool, random: Random, work: Path
) -> Iterator[Try]:
    """Make one file of a good input bad, `n` times; then the crafted ones."""
    paint, use = SUBJECTS[subject]
    good = clear(work / "good")
    process = start(paint, lab.root, good)
    process.join(120)
    assert process.exitcode == 0, f"{subject} cannot be painted"
    for _ in range(n):
        place = clear(work / "try")
        shutil.copytree(good, place / "in")
        files = sorted(path for path in (place / "in").rglob("*") if path.is_file())
        bad = random.choice(files)
        tokens = use(lab.root, bad, random)
        what = f"{subject}, {mutate(bad, random)}"
        yield judge(run(Command(tokens=tokens, cwd=str(place), limit_s=LIMIT_S)), what)
    for name, craft in (CRAFTED.get(subject, {}) if is_full else {}).items():
        place = clear(work / "try")
        shutil.copytree(good, place / "in")
        tokens = craft(lab.root, place)
        yield judge(
            run(Command(tokens=tokens, cwd=str(place), limit_s=LIMIT_S)), f"{subject}, {name}"
        )


def judge(ended: Ended, what: str) -> Try:
    """Classify a command that read something bad: a sentence, or it could go on."""
    if ended.code is None:
        return Try(Outcome.hung, what)
    if ended.broke or (ended.code and not ended.refused):
        return Try(Outcome.traceback, f"{what}: {ended.code} {ended.tail}")
    if SECRET in ended.said:
        return Try(Outcome.lost, f"{what}: what others may not read was told")
    named = ended.code or "left out" in ended.said or "warning" in ended.said
    return Try(Outcome.noticed if named else Outcome.harmless, what)


def bomb(lab: Path, place: Path) -> tuple[str, ...]:
    """Write a TIFF of some megabytes that is 40,000 px a side, all zeros, in one DEFLATE strip a
    thousand rows."""
    side, rows = 40_000, 1000
    strip = zlib.compress(bytes(side * rows), 9)
    n = side // rows
    n_bytes = len(strip)
    first = 8
    offsets, counts = [first] * n, [n_bytes] * n
    tables = first + n_bytes
    entries = [
        (256, 4, 1, side), (257, 4, 1, side), (258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1),
        (273, 4, n, tables), (277, 3, 1, 1), (278, 4, 1, rows), (279, 4, n, tables + 4 * n),
        (33550, 12, 3, tables + 8 * n), (33922, 12, 6, tables + 8 * n + 24),
        (34735, 3, 16, tables + 8 * n + 72),
    ]  # fmt: skip
    geo = struct.pack("<16H", 1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32652)
    body = strip + struct.pack(f"<{2 * n}I", *offsets, *counts)
    body += struct.pack("<3d", 10, 10, 0) + struct.pack("<6d", 0, 0, 0, 500_000, 4_427_000, 0) + geo
    directory = struct.pack("<H", len(entries))
    directory += b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    head = struct.pack("<2sHI", b"II", 42, first + len(body))
    (place / "in" / "bomb_2019.tif").write_bytes(head + body + directory)
    return tile(lab)


def vrt(lab: Path, place: Path) -> tuple[str, ...]:
    (place / "in" / "a.geojson").write_text(
        '<OGRVRTDataSource><OGRVRTLayer name="a"><SrcDataSource>/etc/passwd</SrcDataSource>'
        "</OGRVRTLayer></OGRVRTDataSource>"
    )
    return use_vector(lab, place / "in" / "a.geojson", Random(0))


def catalog_chain(lab: Path, place: Path, *, links: int, n: int) -> tuple[str, ...]:
    """Write catalogs each of which links to the next."""
    for number in range(n):
        link = {"rel": "child", "href": f"c{number + 1}.json"}
        found = {"type": "Catalog", "stac_version": "1.0.0", "id": str(number), "description": "",
                 "links": [link] * links}  # fmt: skip
        (place / "in" / f"c{number}.json").write_text(json.dumps(found))
    return ("tile", "in/c0.json", "--out", "out", "--grid", "utm:320")


def override(*more: str) -> Callable[[Path, Path], tuple[str, ...]]:
    """Return a training command with more overrides."""

    def craft(lab: Path, place: Path) -> tuple[str, ...]:
        return (*Lab(lab).stages["pretrain"].tokens, "out=out", "steps=0", *more)

    return craft


Craft = Callable[[Path, Path], tuple[str, ...]]
CRAFTED: dict[str, dict[str, Craft]] = {
    "rasters": {"a DEFLATE bomb": bomb},
    "vectors": {"a VRT named .geojson": vrt},
    "STAC": {
        "a chain of 3,000 catalogs": partial(catalog_chain, links=1, n=3000),
        "40 catalogs that link twice": partial(catalog_chain, links=2, n=40),
    },
    "configs": {
        text: override(text)
        for text in (
            "+_target_=os.system", "method._target_=os.system", "++encoder._target_=builtins.eval",
            "seed=${oc.env:HOME}", "steps=${oc.decode:1}", "steps=-1", "steps=1e99", "seed=x",
            "batch_size=0", "views.size_px=0", "encoder.width=99", "encoder.backbone=no_such",
            "method=no_such", "recipe=../../x", "learning_rate=nan", "archive=[]",
            "archive=/dev/zero", "threads=-1", "hydra.run.dir=/proc/x", "encoder.width=inf",
            "+a.b.c=1", "out=",
        )
    },
}  # fmt: skip
"""Inputs that no random change would make."""


def parts(lab: Lab, n: int, is_full: bool) -> dict[str, Part]:
    """Return the attack with each kind of input; the whole one has the crafted inputs too."""
    return {subject: partial(attack, lab, subject, n, is_full) for subject in SUBJECTS}
