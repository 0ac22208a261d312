"""The whole chain by its commands on a tiny synthetic country, each stage once and once more."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio

import ecofm
from ecofm.demo.synthetic import demo_synthetic
from ecofm.synth import (
    AnnotatorConfig,
    CountryConfig,
    generate_country,
    simulate_comparisons,
    simulate_orderings,
)
from tests.command import run

# The census needs districts, and those some cells each; change needs more than a few cells.
COUNTRY = CountryConfig(seed=11, n_cells=12, cell_px=32, periods=("2019", "2020", "2021"))
STAGES = (
    "archive", "run", "embeddings", "clusters", "ranker", "by_tiles", "scores", "change",
    "benchmark", "census",
)  # fmt: skip


def tiny_recipe(tiny: Callable[..., Any]) -> Callable[[str], Any]:
    return lambda name: replace(tiny(), steps=3, batch_size=8)


def commands(root: Path) -> dict[str, list[object]]:
    """The command of every stage; the answers must be there from `rank` on."""
    country = root / "country"
    archive, embeddings = ["--archive", root / "archive"], ["--embeddings", root / "embeddings"]
    return {
        "archive": ["tile", country / "scenes", "--grid", "utm:320"],
        "run": ["pretrain", *archive, "--recipe", "base", "--threads", 1],
        "embeddings": ["embed", *archive, "--encoder", root / "run", "--strict"],
        "clusters": ["cluster", *embeddings, *archive, "--k", 6],
        "ranker": ["rank", *embeddings, "--comparisons", root / "answers.csv",
                   "--clusters", root / "clusters", "--n-heads", 3],
        "by_tiles": ["rank", *embeddings, "--comparisons", root / "store.sqlite",
                     "--members", root / "members.csv", "--n-heads", 3],
        "scores": ["score", *embeddings, "--ranker", root / "by_tiles", "--cog"],
        "change": ["change", "--scores", root / "scores", "--from", "2019", "--to", "2021"],
        "benchmark": ["benchmark", "--scores", root / "scores", "--proxies", root / "truth.parquet",
                      *archive],
        "census": ["benchmark", "--scores", root / "scores", "--proxies", country / "census.csv",
                   "--regions", country / "districts.gpkg"],
    }  # fmt: skip


def ask(root: Path) -> None:
    """Answers about clusters and about tiles, through the store's commands."""
    truth = pd.read_parquet(root / "country" / "truth.parquet")
    truth["tile_id"] = truth["cell_id"] + "@" + truth["period"]
    known = truth.set_index("tile_id")["development"]
    clusters = pd.read_parquet(root / "clusters" / "clusters.parquet")
    clusters[["tile_id", "item"]].to_csv(root / "members.csv", index=False)
    values = {str(i): known[t].tolist() for i, t in clusters.groupby("item")["tile_id"]}
    simulate_orderings(values, AnnotatorConfig(), 0).to_csv(root / "orderings.csv", index=False)
    drawn = np.random.default_rng(0).choice(clusters["tile_id"].to_numpy(), (200, 2)).tolist()
    pairs = [(left, right) for left, right in drawn if left != right]
    compared = simulate_comparisons(pairs, known.to_dict(), AnnotatorConfig(), 0)
    compared.to_csv(root / "pairs.csv", index=False)
    store = ["--store", root / "clusters.sqlite"]
    assert run("compare", "import", root / "orderings.csv", *store) == 0
    assert run("compare", "export", *store, "--out", root / "answers.csv") == 0
    assert run("compare", "consensus", *store, "--out", root / "consensus.parquet") == 0
    both = [root / "orderings.csv", root / "pairs.csv"]
    assert run("compare", "import", *both, "--store", root / "store.sqlite") == 0
    truth[["cell_id", "period", "development"]].to_parquet(root / "truth.parquet")


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory, tiny: Callable[..., Any]) -> Path:
    """A folder with every stage's artifact, made by the commands."""
    root = tmp_path_factory.mktemp("chain")
    generate_country(root / "country", COUNTRY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ecofm.verbs.pretrain.read_recipe", tiny_recipe(tiny))
        # The grid's cells are those of the country: 32 px of 10 m.
        for name in STAGES:
            if name == "ranker":
                ask(root)
            assert run(*commands(root)[name], "--out", root / name) == 0, name
    return root


def test_every_stage_leaves_its_artifact(chain: Path) -> None:
    stages = {}
    for name in STAGES:
        folder = chain / name / "encoder" if name == "run" else chain / name
        stages[name] = json.loads((folder / "manifest.json").read_text())["stage"]
    assert stages == dict(
        zip(STAGES, ["archive", "encoder", "embeddings", "clusters", "ranker", "ranker", "scores",
                     "change", "report", "report"], strict=True)
    )  # fmt: skip
    assert not [path for path in chain.iterdir() if path.name.startswith(".")]


def test_manifests_hold_no_time_host_or_absolute_path(chain: Path) -> None:
    for path in chain.rglob("manifest.json"):
        assert str(chain) not in path.read_text(), path


def test_rows_agree_from_stage_to_stage(chain: Path) -> None:
    ids = [
        pd.read_parquet(chain / name)["tile_id"].tolist()
        for name in ("archive/index.parquet", "embeddings/index.parquet",
                     "clusters/clusters.parquet", "scores/scores.parquet")
    ]  # fmt: skip
    assert ids[0] == ids[1] == ids[2] == ids[3]
    assert len(ids[0]) == len(np.load(chain / "embeddings" / "embeddings.npy"))
    scores = gpd.read_parquet(chain / "scores" / "scores.parquet")
    assert ((scores["lower"] <= scores["score"]) & (scores["score"] <= scores["upper"])).all()
    assert sorted(scores["period"].unique()) == list(COUNTRY.periods)
    change = pd.read_parquet(chain / "change" / "change.parquet")
    assert set(change["cell_id"]) <= set(scores["cell_id"]) and change["q"].between(0, 1).all()


def test_maps_and_reports_are_there(chain: Path) -> None:
    for period in COUNTRY.periods:
        with rasterio.open(chain / "scores" / f"{period}.tif") as found:
            assert found.shape == (12, 12) and found.crs.to_epsg() == 32652
    for name in ("benchmark", "census"):
        assert (chain / name / "report.md").read_text()
        assert json.loads((chain / name / "report.json").read_text())
    consensus = pd.read_parquet(chain / "consensus.parquet")
    assert list(consensus.columns) == ["item", "score", "lower", "upper"]
    encoder, contract = ecofm.load_encoder(chain / "run")
    assert len(contract.bands) == 12 and encoder.dim > 0


def test_a_second_time_everything_is_done_already(
    chain: Path, tiny: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr("ecofm.verbs.pretrain.read_recipe", tiny_recipe(tiny))
    before = {path: path.stat().st_mtime_ns for path in chain.rglob("*") if path.is_file()}
    for name in STAGES:
        capsys.readouterr()
        assert run(*commands(chain)[name], "--out", chain / name) == 0
        assert "is done already" in capsys.readouterr().err, name
    assert {path: path.stat().st_mtime_ns for path in chain.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("name", STAGES)
def test_show_takes_every_artifact(chain: Path, tmp_path: Path, capsys: Any, name: str) -> None:
    assert run("show", chain / name, "--out", tmp_path / "pictures") == 0
    assert name != "scores" or "2019" in capsys.readouterr().out
    drawn = list(tmp_path.glob("pictures/*.png"))
    assert bool(drawn) == (name not in ("embeddings", "ranker", "by_tiles"))


def test_the_demo_ends_with_its_report(
    tiny: Callable[..., Any], tmp_path: Path, capsys: Any
) -> None:
    """The synthetic demo, a small country and hardly any training; twice, the second time quick."""
    country = replace(COUNTRY, periods=("2019", "2020"))
    for _ in range(2):
        report = demo_synthetic(tmp_path / "demo", country=country, pretraining=tiny(steps=2))
        text = report.read_text()
        assert (
            "data:image" in text
            and "synthetic" in text.lower()
            and "http://" not in text.replace("http://www.w3.org", "")
        )
        assert "development" in capsys.readouterr().out
    assert not (tmp_path / "demo" / "country" / "scenes").exists()
