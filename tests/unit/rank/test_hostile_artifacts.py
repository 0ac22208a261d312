"""Embeddings, rankers and scores that were damaged on purpose: one sentence each, nothing run."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file, save_file

from tests.command import run
from tests.hostile import (
    BANG,
    Bang,
    Damage,
    edit,
    rebuild,
    rebuild_or_break,
    require_refusal,
    write,
)

E, X, M, R = "embeddings.npy", "index.parquet", "manifest.json", "ranker.safetensors"


def archive_of_arrays(name: str) -> Damage:
    def damage(folder: Path) -> None:
        with (folder / name).open("wb") as file:
            np.savez(file, a=np.zeros(4))

    return damage


def array(change: Any) -> Damage:
    return lambda folder: np.save(folder / E, change(np.load(folder / E)), allow_pickle=True)


def header(shape: str, descr: str = "'<f4'") -> Damage:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}".ljust(117) + "\n"
    return write(E, b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode())


def table(name: str, change: Any) -> Damage:
    """Change the rows of a GeoParquet file."""

    def damage(folder: Path) -> None:
        found = gpd.read_parquet(folder / name)
        changed = change(found)
        (found if changed is None else changed).to_parquet(folder / name)

    return damage


def metadata(name: str, **told: bytes) -> Damage:
    """Change what a Parquet file says of its columns; an empty text takes it out."""

    def damage(folder: Path) -> None:
        found = pq.read_table(folder / name)
        held = {**found.schema.metadata, **{key.encode(): value for key, value in told.items()}}
        held = {key: value for key, value in held.items() if value}
        pq.write_table(found.replace_schema_metadata(held), folder / name)

    return damage


def column(name: str, values: Any) -> Any:
    return lambda found: found.assign(**{name: values})


def geo(**changes: Any) -> bytes:
    told = {"encoding": "WKB", "geometry_types": [], "crs": None} | changes
    return json.dumps(
        {"version": "1.0.0", "primary_column": "geometry", "columns": {"geometry": told}}
    ).encode()


EMBEDDINGS: dict[str, Damage] = {
    "an archive of arrays": archive_of_arrays(E),
    "an array of objects": array(lambda a: np.array([Bang()] * len(a), dtype=object)),
    "a pickle": write(E, BANG),
    "text": write(E, "1,2,3\n"),
    "empty": write(E, b""),
    "doubles": array(lambda a: a.astype(np.float64)),
    "records": array(lambda a: np.zeros(len(a), dtype=[("a", "<f4")])),
    "one axis": array(np.ravel),
    "three axes": array(lambda a: a[:, :, None]),
    "fewer rows": array(lambda a: a[:-1]),
    "fewer columns": array(lambda a: a[:, :-1]),
    "not finite": array(lambda a: np.where(np.arange(len(a))[:, None] == 3, np.nan, a)),
    "a shape beyond the file": header("(1152921504606846976, 528)"),
    "a shape below 0": header("(-1, 528)"),
    "a shape beyond count": header(f"({10**40}, 528)"),
    "a shape that is code": header("__import__('os').system('touch bang')"),
    "a number type that is code": header("(24, 528)", "'|O'"),
    "index is text": write(X, "tile_id,cell_id\n"),
    "index is empty": write(X, b""),
    "index without places": metadata(X, geo=b""),
    "index with broken metadata": metadata(X, geo=b"{"),
    "index with pandas metadata that is none": metadata(X, pandas=b"[1]"),
    "index in another system": table(X, lambda t: t.set_crs(32652, allow_override=True)),
    "index in no system that is known": metadata(X, geo=geo(crs={"type": "none"})),
    "index with numbers for names": table(X, lambda t: t.assign(tile_id=range(len(t)))),
    "index without a name": table(X, lambda t: t.assign(tile_id=[None, *t["tile_id"][1:]])),
    "index without periods": table(X, lambda t: t.drop(columns="period")),
    "index with another period type": table(X, lambda t: t.assign(period=2019)),
    "index that is too long": table(X, lambda t: pd.concat([t, t])),
    "a tile twice": table(X, lambda t: t.assign(cell_id="c", period="2019")),
}
NOTES: dict[str, dict[str, Any]] = {
    "dim is text": {"dim": "528"},
    "dim is true": {"dim": True},
    "dim is missing": {"dim": ...},
    "dim is another": {"dim": 3},
    "inputs are none": {"inputs": None},
    "inputs have no encoder": {"inputs": {}},
    "encoder is a number": {"inputs.encoder": 3},
    "config is none": {"config": None},
    "part is a number": {"config": {"columns": 3}},
    "contract is a list": {"contract": [1]},
    "contract without std": {"contract.std": ...},
    "resolutions are a number": {"archive_gsd_m": 10},
    "resolutions are text": {"archive_gsd_m": ["ten"]},
    "sizes are text": {"archive_tile_px": ["32x32"]},
    "sizes have one side": {"archive_tile_px": [[32]]},
    "attribution is a list": {"attribution": ["me"]},
}
EMBEDDINGS |= {f"manifest: {name}": edit(M, fields) for name, fields in NOTES.items()}


def weights(change: Any) -> Damage:
    def damage(folder: Path) -> None:
        held = load_file(str(folder / R))
        change(held)
        save_file({name: np.ascontiguousarray(v) for name, v in held.items()}, str(folder / R))

    return damage


def put(name: str, change: Any) -> Damage:
    return weights(lambda held: held.update({name: change(held[name])}))


RANKERS: dict[str, Damage] = {
    "weights are an archive of arrays": archive_of_arrays(R),
    "weights are a pickle": write(R, BANG),
    "weights are empty": write(R, b""),
    "parameters are not finite": put("parameters", lambda v: v * np.nan),
    "parameters are whole numbers": put("parameters", lambda v: v.astype(np.int32)),
    "parameters are short": put("parameters", lambda v: v[:, :-1]),
    "parameters are one row": put("parameters", np.ravel),
    "one head": weights(
        lambda held: held.update({n: held[n][:1] for n in ("parameters", "offset", "unit")})
    ),
    "unit is 0": put("unit", lambda v: v * 0),
    "unit is below 0": put("unit", lambda v: -v),
    "unit is short": put("unit", lambda v: v[:-1]),
    "mean is short": put("mean", lambda v: v[:-1]),
    "projection is flat": put("projection", np.ravel),
    "of other embeddings": weights(
        lambda held: held.update({n: held[n][:-1] for n in ("mean", "projection")})
    ),
    "no offset": weights(lambda held: held.pop("offset")),
    "landmarks without a width": weights(lambda held: held.update(landmarks=np.zeros((3, 2)))),
}
RANKER_NOTES: dict[str, dict[str, Any]] = {
    "config is none": {"config": None},
    "head is another": {"config.head": "gp2"},
    "head is a list": {"config.head": ["linear"]},
    "head is missing": {"config.head": ...},
    "head has other weights": {"config.head": "mlp"},
    "encoder is missing": {"encoder": ...},
    "encoder is another": {"encoder": "0"},
    "encoder is a number": {"encoder": 3},
    "classes are text": {"classes": "ab"},
    "classes are numbers": {"classes": [1, 2]},
    "classes repeat": {"classes": ["a", "a"], "positive": "a"},
    "one class": {"classes": ["a"], "positive": "a"},
    "positive is none of them": {"classes": ["a", "b"], "positive": "c"},
    "residual is text": {"residual": "0.5"},
    "residual is below 0": {"residual": -1.0},
    "residual is missing": {"residual": ...},
    "tilt is a list": {"residual_tilt": [1]},
    "tiles are text": {"tiles": "32"},
    "tiles are numbers": {"tiles": [{"tile_px": 32}]},
    "tiles have one side": {"tiles": [{"tile_px": [32]}]},
    "evidence is a list": {"evidence": [1]},
    "verdict is a list": {"evidence.verdict": ["better"]},
    "verdict is another": {"evidence.verdict": "very good"},
    "places are text": {"evidence.new_places": "many"},
    "rate is text": {"evidence.new_places": {"n": 1, "won": "all", "lower": 0, "upper": 1}},
}
RANKERS |= {f"manifest: {name}": edit(M, fields) for name, fields in RANKER_NOTES.items()}
S = "scores.parquet"
SCORES: dict[str, Damage] = {
    "text": write(S, "tile_id,score\n"),
    "empty": write(S, b""),
    "without places": metadata(S, geo=b""),
    "scores are text": table(S, column("score", "high")),
    "scores are none": table(S, column("score", None)),
    "scores are not finite": table(S, column("score", np.nan)),
    "no scores": table(S, lambda t: t.drop(columns="score")),
    "no lower": table(S, lambda t: t.drop(columns="lower")),
    "upper is infinite": table(S, column("upper", np.inf)),
    "intervals end before they begin": table(S, lambda t: t.assign(lower=t["upper"] + 1)),
    "cells are numbers": table(S, lambda t: t.assign(cell_id=range(len(t)))),
    "periods are numbers": table(S, column("period", 2019)),
    "cells are missing": table(S, column("cell_id", None)),
    "another number of rows": table(S, lambda t: t.iloc[:-1]),
    "rows twice": table(S, lambda t: t.assign(cell_id="c")),
}


@pytest.mark.parametrize("name", EMBEDDINGS)
def test_embeddings_that_cannot_be(
    name: str, stages: Any, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    breaks = name.startswith("manifest")
    made = rebuild_or_break(stages.embeddings, tmp_path / "e", EMBEDDINGS[name], breaks=breaks)
    out = tmp_path / "out"
    command = ["rank", "--embeddings", made, "--comparisons", stages.answers, "--out", out]
    assert str(made) in require_refusal(command, out, capsys)


@pytest.mark.parametrize("name", RANKERS)
def test_rankers_that_cannot_be(
    name: str, stages: Any, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    breaks = name.startswith("manifest")
    made = rebuild_or_break(stages.ranker, tmp_path / "r", RANKERS[name], breaks=breaks)
    out = tmp_path / "out"
    command = ["score", "--embeddings", stages.embeddings, "--ranker", made, "--out", out]
    said = require_refusal(command, out, capsys)
    assert str(made) in said or "dimensions" in said


@pytest.mark.parametrize("name", SCORES)
def test_scores_that_cannot_be(
    name: str, stages: Any, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = rebuild(stages.scores, tmp_path / "s", SCORES[name])
    command = ["change", "--scores", made, "--from", "2019", "--to", "2020", "--out"]
    command.append(tmp_path / "out")
    assert str(made) in require_refusal(command, tmp_path / "out", capsys)
    require_refusal(["show", made, "--out", tmp_path / "seen"], tmp_path / "none", capsys)


def test_whole_copies_are_taken(stages: Any, tmp_path: Path) -> None:
    """What the cases above start from is read."""
    embeddings = rebuild(stages.embeddings, tmp_path / "e", lambda _: None)
    ranker = rebuild(stages.ranker, tmp_path / "r", lambda _: None)
    command = ["score", "--embeddings", embeddings, "--ranker", ranker, "--out", tmp_path / "s"]
    assert run(*command) == 0
    scores = rebuild(stages.scores, tmp_path / "t", lambda _: None)
    assert run("show", scores, "--out", tmp_path / "seen") == 0
    assert run("show", ranker) == 0


def test_pickles_would_have_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cases' pickle is a live one."""
    monkeypatch.chdir(tmp_path)
    pickle.loads(BANG).close()
    assert (tmp_path / "bang").exists()
