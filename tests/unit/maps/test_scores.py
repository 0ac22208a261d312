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
from shapely.geometry import box

from ecofm.artifact import read_manifest
from ecofm.embed import Embeddings, embed
from ecofm.errors import ArtifactError, EcofmError
from ecofm.grid import Grid
from ecofm.maps import scores as scores_module
from ecofm.maps.scores import predict_intervals, score, write_cog
from ecofm.rank.calibration import Z_90
from ecofm.rank.run import load_ranker


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
    more = make_archive(tmp_path / "more", n_cells=3, seed=8)
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
    with pytest.raises(EcofmError, match="not finite"):
        score([bad], stages.ranker, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def cells(grid: str, names: list[str]) -> gpd.GeoDataFrame:
    values = np.arange(len(names), dtype=float)
    columns = {"cell_id": names, "period": "2019", "score": values}
    columns |= {"lower": values - 1, "upper": values + 2}
    shapes = [Grid(grid).cell(name).polygon() for name in names]
    return gpd.GeoDataFrame(columns, geometry=shapes, crs="EPSG:4326")


@pytest.mark.parametrize(
    ("grid", "corner", "prefix", "north_is_up"),
    [
        ("utm:1280", (3459, 391), "32652_", True),
        ("utm:2560", (1729, 195), "32652_", True),
        ("xyz:14", (6262, 13952), "", False),
    ],
)
def test_each_cell_is_one_pixel_at_its_place(
    tmp_path: Path, grid: str, corner: tuple[int, int], prefix: str, north_is_up: bool
) -> None:
    offsets = [(0, 0), (0, 1), (2, 3), (1, 5)]
    names = [f"{prefix}{corner[0] + y}_{corner[1] + x}" for y, x in offsets]
    write_cog(cells(grid, names), tmp_path / "map.tif", "whose imagery")
    with rasterio.open(tmp_path / "map.tif") as found:
        assert found.crs.to_epsg() == (32652 if prefix else 3857)
        assert found.shape == (3, 6) and found.descriptions == ("score", "lower", "upper")
        assert found.tags()["attribution"] == "whose imagery" and found.tags()["period"] == "2019"
        assert np.isnan(found.nodata) and found.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        bands = found.read()
        side = Grid(grid).cell(names[0]).geobox
        assert found.transform.a == pytest.approx(abs(side.affine.a) * side.shape[1])
        for number, name in enumerate(names):
            middle = Grid(grid).cell(name).geobox.extent.centroid.coords[0]
            row, column = found.index(*middle)
            assert bands[:, row, column].tolist() == [number, number - 1, number + 2]
    assert np.isnan(bands[0]).sum() == 18 - len(names)


def test_the_map_of_a_run_holds_every_cell(stages: Any, tmp_path: Path) -> None:
    out = score([stages.embeddings], stages.ranker, tmp_path / "out", cog=True)
    table = pd.read_parquet(out / "scores.parquet")
    for period in ("2019", "2020"):
        with rasterio.open(out / f"{period}.tif") as found:
            values = found.read(1)
        expected = table.loc[table["period"] == period, "score"]
        assert np.allclose(sorted(values[np.isfinite(values)]), sorted(expected.astype(np.float32)))


def test_cells_too_far_apart_and_chips_have_no_map(
    make_archive: Callable[..., Path], stages: Any, tmp_path: Path
) -> None:
    far = cells("utm:1280", ["32652_3459_391", "32652_3460_391"])
    far["geometry"] = [box(129, 40, 129.0001, 40.0001), box(150, -40, 150.0001, -39.9999)]
    with pytest.raises(EcofmError, match="too far apart"):
        write_cog(far, tmp_path / "map.tif", "")
    chips = make_archive(tmp_path / "chips", grid="none")
    embed([chips], stages.encoder, tmp_path / "embeddings")
    with pytest.raises(EcofmError, match="--cog needs cells with a place"):
        score([tmp_path / "embeddings"], stages.ranker, tmp_path / "out", cog=True)
    assert not (tmp_path / "out").exists()
    out = score([tmp_path / "embeddings"], stages.ranker, tmp_path / "out")
    assert gpd.read_parquet(out / "scores.parquet").geometry.isna().all()
