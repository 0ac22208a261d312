"""Clusters: seeded, named by size, drawn, and refused in one sentence."""

from __future__ import annotations

import builtins
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ecofm.artifact import Draft
from ecofm.cluster import SHEET_SIDE, THUMBNAIL_PX, ClusterConfig, _kmeans, cluster
from ecofm.errors import ArtifactError, EcofmError, MissingExtraError
from tests.reseal import reseal

SIZES = (30, 20, 10)


@pytest.fixture(scope="module")
def blobs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Embeddings of three far groups of 30, 20 and 10 tiles, shuffled; `group` is the truth."""
    random = np.random.default_rng(0)
    group = random.permutation(np.repeat(range(3), SIZES))
    centres = 20 * random.normal(size=(3, 8))
    matrix = (centres[group] + random.normal(size=(60, 8))).astype(np.float32)
    names = [f"{i:03d}.png" for i in range(60)]
    index = gpd.GeoDataFrame(
        {
            "tile_id": [f"{name}@none" for name in names],
            "cell_id": names,
            "period": "none",
            "group": group.astype(str),
            "valid_share": 1.0,
        },
        geometry=gpd.GeoSeries([None] * 60, crs="EPSG:4326"),
    )
    out = tmp_path_factory.mktemp("blobs") / "embeddings"
    draft = Draft(out, stage="embeddings", config={}, inputs={"encoder": "0"})
    draft.extra = {"dim": 8, "attribution": "none"}
    with draft as folder:
        index.to_parquet(folder / "index.parquet")
        np.save(folder / "embeddings.npy", matrix)
    return out


def read(out: Path) -> pd.DataFrame:
    return pd.read_parquet(out / "clusters.parquet")


def test_groups_are_found_and_named_by_size(blobs: Path, tmp_path: Path) -> None:
    table = read(cluster([blobs], tmp_path / "out", ClusterConfig(k=3)))
    assert list(table.columns) == ["tile_id", "item", "distance"]
    truth = gpd.read_parquet(blobs / "index.parquet")
    assert table["tile_id"].tolist() == truth["tile_id"].tolist()
    # The first group is the largest, so its name is "0".
    assert table["item"].tolist() == truth["group"].tolist()
    assert table["item"].value_counts().to_dict() == {"0": 30, "1": 20, "2": 10}
    assert np.isfinite(table["distance"]).all() and (table["distance"] >= 0).all()


def test_the_same_seed_gives_the_same_bytes(
    blobs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = ClusterConfig(k=7, seed=3)
    first, second = (cluster([blobs], tmp_path / name, config) for name in "ab")
    assert (first / "clusters.parquet").read_bytes() == (second / "clusters.parquet").read_bytes()
    other = cluster([blobs], tmp_path / "c", ClusterConfig(k=7, seed=4))
    assert not read(other).equals(read(first))
    cluster([blobs], first, config)
    assert "is done already" in capsys.readouterr().err
    with pytest.raises(ArtifactError, match="--overwrite"):
        cluster([blobs], first, ClusterConfig(k=6))


def test_every_item_is_whole_numbers_from_the_largest(blobs: Path, tmp_path: Path) -> None:
    sizes = read(cluster([blobs], tmp_path / "out", ClusterConfig(k=12)))["item"].value_counts()
    ordered = sizes[sorted(sizes.index, key=int)]
    assert list(ordered.index) == [str(i) for i in range(len(sizes))]
    assert ordered.is_monotonic_decreasing and sizes.sum() == 60


def test_fewer_tiles_than_clusters_is_one_sentence(blobs: Path, tmp_path: Path) -> None:
    with pytest.raises(EcofmError, match=r"60 tiles, fewer than 61 clusters; .*--k"):
        cluster([blobs], tmp_path / "out", ClusterConfig(k=61))
    assert not list(tmp_path.iterdir())
    assert len(read(cluster([blobs], tmp_path / "out", ClusterConfig(k=60)))) == 60


def test_equal_embeddings_still_give_clusters(blobs: Path, tmp_path: Path) -> None:
    same = shutil.copytree(blobs, tmp_path / "same")
    np.save(same / "embeddings.npy", np.ones((60, 8), np.float32))
    reseal(same)
    table = read(cluster([same], tmp_path / "out", ClusterConfig(k=3)))
    assert "0" in set(table["item"]) and np.isfinite(table["distance"]).all()


def test_a_missing_faiss_is_one_sentence(
    blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    normal = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "faiss":
            raise ImportError("No module named 'faiss'")
        return normal(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingExtraError, match=r"pip install 'ecofm\[cpu\]'"):
        cluster([blobs], tmp_path / "out", ClusterConfig(k=3))
    assert not list(tmp_path.iterdir())


def test_each_item_gets_a_sheet_of_its_nearest_tiles(stages: Any) -> None:
    items = set(read(stages.clusters)["item"])
    sheets = {path.stem: Image.open(path) for path in (stages.clusters / "exemplars").iterdir()}
    assert set(sheets) == items
    for sheet in sheets.values():
        assert sheet.size == (SHEET_SIDE * THUMBNAIL_PX,) * 2
        assert np.asarray(sheet)[:THUMBNAIL_PX, :THUMBNAIL_PX].std() > 1


def test_archives_that_were_not_embedded_are_refused(
    make_archive: Callable[..., Path], blobs: Path, stages: Any, tmp_path: Path
) -> None:
    other = make_archive(tmp_path / "in" / "other", grid="none")
    with pytest.raises(EcofmError, match=r"--archive"):
        cluster([blobs], tmp_path / "out", ClusterConfig(k=3), archives=[other])
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_a_tile_damaged_since_embedding_is_left_out_of_its_sheet(
    make_archive: Callable[..., Path],
    damage: Callable[[Path, int], str],
    stages: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from ecofm.embed import embed

    archive = make_archive(tmp_path / "archive", n_cells=4)
    embed([archive], stages.encoder, tmp_path / "embeddings")
    name = damage(archive, 1)
    out = cluster(
        [tmp_path / "embeddings"], tmp_path / "out", ClusterConfig(k=2), archives=[archive]
    )
    assert len(list((out / "exemplars").iterdir())) == 2
    assert name in capsys.readouterr().err


@pytest.mark.parametrize("wrong", [{"k": 1}, {"iterations": 0}, {"components": 0}])
def test_unusable_values_are_wrong_arguments(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="needed"):
        ClusterConfig(**wrong)


def test_numbers_too_large_to_compare_are_refused() -> None:
    faiss = pytest.importorskip("faiss")
    matrix = np.full((40, 8), 3e38, dtype=np.float32)
    matrix[::2] *= -1
    with pytest.raises(EcofmError, match="too large to be compared in float32"):
        _kmeans(faiss, matrix, ClusterConfig(k=4))
