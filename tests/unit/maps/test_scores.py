"""Scores: the ensemble's mean and interval, one row a tile, and the map of them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio

from ecofm.artifact import read_manifest
from ecofm.embed import Embeddings, embed
from ecofm.errors import ArtifactError, EcofmError
from ecofm.maps import scores as scores_module
from ecofm.maps.scores import predict_intervals, score
from ecofm.rank.calibration import Z_90
from ecofm.rank.opening import load_ranker
from tests.reseal import reseal


def test_scores_are_the_ensemble(stages: Any) -> None:
    table = gpd.read_parquet(stages.scores / "scores.parquet")
    assert list(table.columns) == [
        "tile_id", "cell_id", "period", "score", "lower", "upper", "geometry",
    ]  # fmt: skip
    found = Embeddings(stages.embeddings)
    assert table["tile_id"].tolist() == found.index["tile_id"].tolist()
    ranker = load_ranker(stages.ranker)[0]
    heads = ranker.predict(found.matrix)
    assert np.allclose(table["score"], heads.mean(axis=0))
    assert np.allclose(table["upper"] - table["score"], Z_90 * ranker.spread(heads))
    assert np.allclose(table["score"] - table["lower"], table["upper"] - table["score"])
    assert table.crs.to_epsg() == 4326
    assert read_manifest(stages.scores, "scores")["attribution"] == "Synthetic imagery of a test"


def test_chunks_do_not_show(stages: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    heads, matrix = load_ranker(stages.ranker)[0], Embeddings(stages.embeddings).matrix
    whole = predict_intervals(matrix, heads)
    monkeypatch.setattr(scores_module, "CHUNK_TILES", 7)
    seen: list[tuple[int, int]] = []
    parts = predict_intervals(matrix, heads, lambda done, total: seen.append((done, total)))
    assert all(np.allclose(a, b) for a, b in zip(whole, parts, strict=True))
    assert seen == [(7, 24), (14, 24), (21, 24), (24, 24)]


def test_several_embeddings_are_scored_together(
    make_archive: Callable[..., Path], stages: Any, tmp_path: Path
) -> None:
    more = make_archive(tmp_path / "more", n_cells=3, seed=8, corner=(3400, 391))
    embed([more], stages.encoder, tmp_path / "embeddings")
    out = score([stages.embeddings, tmp_path / "embeddings"], stages.ranker, tmp_path / "out")
    assert len(gpd.read_parquet(out / "scores.parquet")) == 30


def test_a_ranker_of_another_encoder_is_refused(
    stages: Any, tiny: Callable[..., Any], tmp_path: Path
) -> None:
    from ecofm.pretrain.run import pretrain

    pretrain([stages.archive], tmp_path / "run", tiny(steps=0, seed=1))
    other = embed([stages.archive], tmp_path / "run", tmp_path / "embeddings")
    with pytest.raises(ArtifactError, match="comes from another encoder than"):
        score([other], stages.ranker, tmp_path / "out")
    with pytest.raises(ArtifactError, match="comes from another encoder than"):
        score([stages.embeddings, other], stages.ranker, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_same_call_is_done_and_another_is_refused(
    stages: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = score([stages.embeddings], stages.ranker, tmp_path / "out")
    assert (out / "scores.parquet").read_bytes() == (stages.scores / "scores.parquet").read_bytes()
    score([stages.embeddings], stages.ranker, out)
    assert "is done already" in capsys.readouterr().err
    with pytest.raises(ArtifactError, match="--overwrite"):
        score([stages.embeddings], stages.ranker, out, cog=True)


def test_scores_that_are_not_finite_are_refused(stages: Any, tmp_path: Path) -> None:
    bad = shutil.copytree(stages.embeddings, tmp_path / "in")
    matrix = np.load(bad / "embeddings.npy")
    matrix[4] = np.nan
    np.save(bad / "embeddings.npy", matrix)
    reseal(bad)
    with pytest.raises(EcofmError, match="not finite"):
        score([bad], stages.ranker, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_the_map_of_a_run_holds_every_cell(stages: Any, tmp_path: Path) -> None:
    out = score([stages.embeddings], stages.ranker, tmp_path / "out", cog=True)
    table = pd.read_parquet(out / "scores.parquet")
    for period in ("2019", "2020"):
        with rasterio.open(out / f"{period}.tif") as found:
            values = found.read(1)
        expected = table.loc[table["period"] == period, "score"]
        assert np.allclose(sorted(values[np.isfinite(values)]), sorted(expected.astype(np.float32)))


def test_chips_have_no_map(make_archive: Callable[..., Path], stages: Any, tmp_path: Path) -> None:
    chips = make_archive(tmp_path / "chips", grid="none")
    embed([chips], stages.encoder, tmp_path / "embeddings")
    with pytest.raises(EcofmError, match="--cog needs cells with a place"):
        score([tmp_path / "embeddings"], stages.ranker, tmp_path / "out", cog=True)
    assert not (tmp_path / "out").exists()
    out = score([tmp_path / "embeddings"], stages.ranker, tmp_path / "out")
    assert gpd.read_parquet(out / "scores.parquet").geometry.isna().all()
    out = score(
        [tmp_path / "embeddings", stages.embeddings], stages.ranker, tmp_path / "both", cog=True
    )
    assert sorted(path.stem for path in out.glob("*.tif")) == ["2019", "2020"]
