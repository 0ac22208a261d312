"""Pixels and embeddings that arithmetic stumbles over: constants, extremes, NaN."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from random import Random

from tests.faults.forge import Command, run, start
from tests.faults.hostile import judge
from tests.faults.lab import Lab, clear
from tests.faults.outcomes import Outcome, Try
from tests.faults.stages import Part

PAINTS = ("constant", "zero", "largest", "two values", "one hot pixel")
HOLES = ("a NaN", "all NaN", "infinite", "a constant column", "equal rows", "huge")


def paint(lab: Path, into: Path, way: str) -> None:
    """Write the country's scenes with other pixels, half of the country as it is."""
    import numpy as np
    import rasterio

    for path in (lab / "country" / "scenes").glob("*.tif"):
        shutil.copy2(path, into / path.name)
        with rasterio.open(into / path.name, "r+") as file:
            pixels = file.read()
            part = pixels[:, : pixels.shape[1] // 2]
            top = np.iinfo(pixels.dtype).max
            part[:] = {"constant": 1000, "zero": 0, "largest": top, "one hot pixel": 1000}.get(
                way, 1000
            )
            if way == "two values":
                part[:, ::2] = 1001
            if way == "one hot pixel":
                part[:, ::32, ::32] = top
            file.write(pixels)


def spoil(lab: Path, into: Path, way: str) -> None:
    """Write embeddings with such values; as a stage of before checksums would have."""
    import numpy as np

    from ecofm.artifact import OWN_FIELDS, Draft, read_manifest

    found = read_manifest(lab / "embeddings", "embeddings")
    matrix = np.load(lab / "embeddings" / "embeddings.npy")
    matrix[3, 2] = {"a NaN": np.nan, "infinite": np.inf}.get(way, matrix[3, 2])
    if way == "all NaN":
        matrix[:] = np.nan
    if way == "a constant column":
        matrix[:, 0] = 1
    if way == "equal rows":
        matrix[:] = matrix[0]
    if way == "huge":
        matrix *= 1e37
    given = {key: found[key] for key in ("config", "inputs")}
    draft = Draft(into / "embeddings", stage="embeddings", **given)
    draft.extra = {key: value for key, value in found.items() if key not in OWN_FIELDS}
    with draft as folder:
        for name in ("index.parquet", "rejected.parquet"):
            shutil.copy2(lab / "embeddings" / name, folder)
        np.save(folder / "embeddings.npy", matrix)


def check_finite(place: Path) -> None:
    """In a child: raise unless the numbers in a result are numbers."""
    import numpy as np
    import pandas as pd

    for path in place.rglob("embeddings.npy"):
        assert np.isfinite(np.load(path)).all(), path
    for path in place.rglob("scores.parquet"):
        assert np.isfinite(pd.read_parquet(path)[["score", "lower", "upper"]]).all().all(), path


def make(place: Path, function, *args) -> None:
    process = start(function, *args)
    process.join(120)
    assert process.exitcode == 0, function.__name__


def try_command(place: Path, tokens: tuple[str, ...], what: str) -> Try:
    """Run a command; what it writes must be finite."""
    found = judge(run(Command(tokens=tokens, cwd=str(place))), f"{what}, {tokens[0]}")
    process = start(check_finite, place / "out")
    process.join(120)
    if process.exitcode and not found.outcome.is_fault:
        return Try(Outcome.silent, f"{found.what}: numbers that are not finite")
    return found


def paint_and_run(lab: Lab, ways: tuple[str, ...], random: Random, work: Path) -> Iterator[Try]:
    """Tile such pixels, train on them, embed and score them."""
    for way in ways:
        place = clear(work / "try")
        (place / "in").mkdir()
        make(place, paint, lab.root, place / "in", way)
        train = [
            token for token in lab.stages["pretrain"].tokens if not token.startswith("archive")
        ]
        for tokens in (
            ("tile", "in", "--out", "out/archive", "--grid", "utm:320", "--workers", "1"),
            (*train, "archive=out/archive", "out=out/run", "steps=3"),
            ("embed", "--archive", "out/archive", "--encoder", "out/run", "--out", "out/own"),
            ("embed", "--archive", "out/archive", "--encoder", str(lab.root / "run"), "--out",
             "out/embeddings"),
            ("score", "--embeddings", "out/embeddings", "--ranker", str(lab.root / "ranker"),
             "--out", "out/scores"),
        ):  # fmt: skip
            yield try_command(place, tokens, f"{way} pixels")


def spoil_and_run(lab: Lab, ways: tuple[str, ...], random: Random, work: Path) -> Iterator[Try]:
    """Score, cluster and rank such embeddings."""
    given = ("--embeddings", "in/embeddings")
    for way in ways:
        place = clear(work / "try")
        (place / "in").mkdir()
        make(place, spoil, lab.root, place / "in", way)
        for tokens in (
            ("score", *given, "--ranker", str(lab.root / "ranker"), "--out", "out/scores"),
            ("cluster", *given, "--k", "3", "--out", "out/clusters"),
            ("rank", *given, "--comparisons", str(lab.root / "answers.csv"), "--n-heads", "2",
             "--folds", "2", "--out", "out/ranker"),
        ):  # fmt: skip
            yield try_command(place, tokens, f"{way} in embeddings")


def parts(lab: Lab, is_full: bool) -> dict[str, Part]:
    """Return odd pixels and odd embeddings."""
    return {
        "pixels": partial(paint_and_run, lab, PAINTS if is_full else PAINTS[:1]),
        "embeddings": partial(spoil_and_run, lab, HOLES if is_full else HOLES[:2]),
    }
