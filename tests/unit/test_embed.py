"""Embeddings: rows as the index says, damaged tiles left out by name, other contracts refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import torch

import ecofm
from ecofm.embed import BATCH_TILES, Embeddings, embed, open_embeddings, require_tiles_once
from ecofm.errors import ArtifactError, ContractError, EcofmError
from ecofm.tiles.archive import open_archive
from tests.reseal import reseal


def test_rows_follow_the_index_over_several_archives(
    make_archive: Callable[..., Path], stages: Any, tmp_path: Path
) -> None:
    more = make_archive(
        tmp_path / "more",
        n_cells=BATCH_TILES // 2 + 3,
        seed=4,
        invalid_share=0.2,
        corner=(3400, 391),
    )
    seen: list[tuple[int, int]] = []
    out = embed(
        [more, stages.archive], stages.encoder, tmp_path / "out",
        progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    found = Embeddings(out)
    archives = [open_archive(more), open_archive(stages.archive)]
    expected = pd.concat([archive.index["tile_id"] for archive in archives], ignore_index=True)
    assert found.index["tile_id"].tolist() == expected.tolist()
    assert found.matrix.dtype == np.float32
    assert seen[-1] == (len(expected), len(expected)) and seen == sorted(seen)
    encoder, _ = ecofm.load_encoder(stages.encoder)
    for archive, first in zip(archives, (0, archives[0].n_tiles), strict=True):
        for row in (0, archive.n_tiles // 2, archive.n_tiles - 1):
            pixels, valid = (torch.from_numpy(part)[None] for part in archive.read(row))
            with torch.inference_mode():
                vector = encoder(pixels, valid)[0].numpy()
            assert np.allclose(found.matrix[first + row], vector, atol=1e-4)


def test_index_and_manifest_carry_what_later_stages_need(stages: Any) -> None:
    found = Embeddings(stages.embeddings)
    assert list(found.index.columns) == [
        "tile_id", "cell_id", "period", "group", "valid_share", "geometry",
    ]  # fmt: skip
    assert found.index.crs.to_epsg() == 4326 and found.index.geometry.notna().all()
    assert found.manifest["dim"] == found.matrix.shape[1]
    assert found.manifest["attribution"] == "Synthetic imagery of a test"
    assert found.manifest["contract"]["bands"] == ["B02", "B03", "B04", "B08"]
    assert pd.read_parquet(stages.embeddings / "rejected.parquet").empty
    assert sorted(p.name for p in stages.embeddings.iterdir()) == [
        "embeddings.npy", "index.parquet", "manifest.json", "rejected.parquet",
    ]  # fmt: skip


def test_the_same_call_gives_the_same_bytes_or_is_done(
    stages: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = embed([stages.archive], stages.encoder, tmp_path / "out")
    for name in ("embeddings.npy", "index.parquet"):
        assert (out / name).read_bytes() == (stages.embeddings / name).read_bytes()
    embed([stages.archive], stages.encoder / "encoder", out)
    assert "is done already" in capsys.readouterr().err


def test_a_damaged_tile_is_left_out_by_name(
    make_archive: Callable[..., Path],
    damage: Callable[[Path, int], str],
    stages: Any,
    tmp_path: Path,
) -> None:
    archive = make_archive(tmp_path / "archive")
    whole = Embeddings(embed([archive], stages.encoder, tmp_path / "whole"))
    names = [damage(archive, row) for row in (2, 7)]
    found = Embeddings(embed([archive], stages.encoder, tmp_path / "out"))
    rejected = pd.read_parquet(tmp_path / "out" / "rejected.parquet")
    assert sorted(rejected["path"]) == sorted(names)
    assert rejected["reason"].str.contains("checksum").all()
    assert found.manifest["n_rejected"] == 2 and found.manifest["n_tiles"] == 10
    kept = ~whole.index["tile_id"].isin(names)
    assert found.index["tile_id"].tolist() == whole.index["tile_id"][kept].tolist()
    assert np.allclose(found.matrix, whole.matrix[kept], atol=1e-5)
    assert not (tmp_path / "out" / "all.npy").exists()


def test_an_archive_without_a_whole_tile_is_refused_and_leaves_nothing(
    make_archive: Callable[..., Path],
    damage: Callable[[Path, int], str],
    stages: Any,
    tmp_path: Path,
) -> None:
    archive = make_archive(tmp_path / "in" / "archive", n_cells=2, periods=("2019",))
    for row in range(2):
        damage(archive, row)
    with pytest.raises(EcofmError, match=r"no tile of .*archive can be read"):
        embed([archive], stages.encoder, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize(
    "other", [{"bands": ("B02", "B03", "B04", "B11")}, {"dtype": "int16"}, {"bands": ("B02",)}]
)
def test_other_pixels_than_the_encoder_knows_are_refused(
    make_archive: Callable[..., Path], stages: Any, tmp_path: Path, other: dict[str, Any]
) -> None:
    archive = make_archive(tmp_path / "in" / "archive", **other)
    with pytest.raises(ContractError, match=f"differ in {next(iter(other))}"):
        embed([archive], stages.encoder, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_mean_and_std_are_no_part_of_the_match(
    make_archive: Callable[..., Path], stages: Any, tmp_path: Path
) -> None:
    other = make_archive(tmp_path / "other", seed=9, invalid_share=0.5)
    assert len(Embeddings(embed([other], stages.encoder, tmp_path / "out")).index) == 12


def test_embeddings_of_two_encoders_are_not_mixed(
    make_archive: Callable[..., Path], stages: Any, tiny: Callable[..., Any], tmp_path: Path
) -> None:
    from ecofm.pretrain.run import pretrain

    pretrain([stages.archive], tmp_path / "run", tiny(steps=0, seed=1))
    other = embed([stages.archive], tmp_path / "run", tmp_path / "other")
    with pytest.raises(ArtifactError, match="different encoders"):
        open_embeddings([stages.embeddings, other])
    with pytest.raises(ArtifactError, match="--overwrite"):
        embed([stages.archive], stages.encoder, other)
    more = make_archive(tmp_path / "more", corner=(3400, 391))
    embed([more], stages.encoder, other, overwrite=True)
    index, matrix, encoder_hash = open_embeddings([stages.embeddings, other])
    assert len(index) == len(matrix) == 24 + 12
    assert encoder_hash == Embeddings(other).encoder_hash


def test_a_tile_that_two_inputs_share_is_refused_wherever_they_are_used_together(
    make_archive: Callable[..., Path], stages: Any, answer: Callable[..., Path], tmp_path: Path
) -> None:
    """Cells 3459_393 and 3459_394 are in both archives, in one of the second one's periods."""
    from ecofm.cluster import ClusterConfig, cluster
    from ecofm.maps.scores import score
    from ecofm.rank.finetune import FinetuneConfig, finetune
    from ecofm.rank.heads import RankConfig
    from ecofm.rank.run import rank

    beside = make_archive(
        tmp_path / "beside", n_cells=4, periods=("2020", "2021"), corner=(3459, 393)
    )
    shared = r"share 2 tiles, first cell 32652_3459_393 in period 2020.*ecofm tile SCENES"
    with pytest.raises(
        ArtifactError, match=rf"--archive {stages.archive} and --archive .*{shared}"
    ):
        embed([stages.archive, beside], stages.encoder, tmp_path / "out")
    answers = answer(tmp_path / "answers.csv", stages.archive)
    with pytest.raises(ArtifactError, match=shared):
        finetune(
            [stages.archive, beside], stages.encoder, answers, tmp_path / "out", FinetuneConfig()
        )
    other = embed([beside], stages.encoder, tmp_path / "other")
    both = [stages.embeddings, other]
    for run in (
        lambda out: score(both, stages.ranker, out),
        lambda out: rank(both, stages.answers, out, RankConfig(n_heads=3)),
        lambda out: cluster(both, out, ClusterConfig(k=2)),
        lambda out: open_embeddings([other, stages.embeddings, stages.embeddings]),
    ):
        with pytest.raises(ArtifactError, match=r"--embeddings .* and --embeddings .* share"):
            run(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_same_input_twice_and_rows_twice_in_one_are_refused(
    stages: Any, tmp_path: Path
) -> None:
    with pytest.raises(ArtifactError, match=r"share 24 tiles.*give one of the two"):
        embed([stages.archive, stages.archive], stages.encoder, tmp_path / "out")
    twice = shutil.copytree(stages.embeddings, tmp_path / "twice")
    table = gpd.read_parquet(twice / "index.parquet")
    for column in ("tile_id", "cell_id", "period"):
        table.loc[[3, 4], column] = table[column][2]
    table.to_parquet(twice / "index.parquet")
    reseal(twice)
    with pytest.raises(ArtifactError, match=r"holds 2 tiles twice, first cell .*`ecofm embed`"):
        open_embeddings([twice])


def test_chips_of_one_name_are_told_apart_by_tiling_their_folders_together(
    stages: Any, tmp_path: Path
) -> None:
    from PIL import Image

    from ecofm.tiles.ingest import TileConfig, tile

    pixels = np.random.default_rng(0).integers(0, 255, (2, 32, 32, 3), dtype=np.uint8)
    for folder, image in zip(("north", "south"), pixels, strict=True):
        (tmp_path / folder).mkdir()
        Image.fromarray(image).save(tmp_path / folder / "a.png")
        tile([tmp_path / folder], tmp_path / f"{folder}_tiles", TileConfig(grid="none"))
    parts = [
        (path, open_archive(path).index)
        for path in (tmp_path / "north_tiles", tmp_path / "south_tiles")
    ]
    with pytest.raises(ArtifactError, match=r"share 1 tiles, first cell a.png .*FOLDER FOLDER"):
        require_tiles_once(parts, "archive")
    tile([tmp_path / "north", tmp_path / "south"], tmp_path / "all", TileConfig(grid="none"))
    index = open_archive(tmp_path / "all").index
    assert sorted(index["cell_id"]) == ["north/a.png", "south/a.png"]
    require_tiles_once([(tmp_path / "all", index)], "archive")


def test_one_part_of_the_embeddings_is_taken_and_not_mixed_with_the_whole(
    stages: Any, tiny: Callable[..., Any], tmp_path: Path
) -> None:
    from ecofm.maps.scores import score
    from ecofm.pretrain.run import pretrain
    from ecofm.rank.heads import RankConfig
    from ecofm.rank.run import rank

    run = pretrain([stages.archive], tmp_path / "run", tiny("change_preserving", steps=1))
    whole = Embeddings(embed([stages.archive], run, tmp_path / "whole"))
    columns = json.loads((run / "encoder" / "config.json").read_text())["columns"]
    assert sorted(columns, key=columns.get) == ["features", "words", "invariant", "years"]
    assert columns["years"][1] == whole.matrix.shape[1]
    encoder, _ = ecofm.load_encoder(run)
    features = torch.from_numpy(whole.matrix[:, slice(*columns["features"])].copy())
    for name in ("invariant", "years"):
        part = Embeddings(embed([stages.archive], run, tmp_path / name, columns=name))
        assert np.array_equal(part.matrix, whole.matrix[:, slice(*columns[name])])
        with torch.inference_mode():
            own = encoder.subspaces[name](features).numpy()
        assert np.allclose(own, part.matrix, atol=1e-5) and part.matrix.std() > 0
        with pytest.raises(ArtifactError, match="different encoders"):
            open_embeddings([whole.path, part.path])
    rank([tmp_path / "years"], stages.answers, tmp_path / "ranker", RankConfig(n_heads=3))
    score([tmp_path / "years"], tmp_path / "ranker", tmp_path / "scores")
    with pytest.raises(ArtifactError, match="another encoder"):
        score([tmp_path / "whole"], tmp_path / "ranker", tmp_path / "other")
    with pytest.raises(ValueError, match="no 'seasons'; it has features, words, invariant, years"):
        embed([stages.archive], run, tmp_path / "none", columns="seasons")


def test_another_ground_resolution_is_said_where_it_is_embedded_scored_and_finetuned(
    make_archive: Callable[..., Path], stages: Any, answer: Callable[..., Path], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    from ecofm.maps.scores import score
    from ecofm.pretrain.views import ViewConfig
    from ecofm.rank.finetune import FinetuneConfig, finetune
    from ecofm.rank.heads import RankConfig

    fine = make_archive(tmp_path / "fine", tile_px=64)
    warning = "ground resolution of 40 m and"
    embeddings = embed([fine], stages.encoder, tmp_path / "embeddings")
    assert warning in capsys.readouterr().err
    score([embeddings], stages.ranker, tmp_path / "scores")
    assert warning in capsys.readouterr().err
    config = FinetuneConfig(
        steps=1, pairs=2, views=ViewConfig(size_px=16), rank=RankConfig(n_heads=3)
    )
    answers = answer(tmp_path / "answers.csv", fine)
    finetune([fine], stages.encoder, answers, tmp_path / "tuned", config)
    assert capsys.readouterr().err.count(warning) == 3  # at first, to judge, and as it embeds
    score([stages.embeddings], stages.ranker, tmp_path / "same")
    assert "warning" not in capsys.readouterr().err


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-60])


def drop_row(path: Path) -> None:
    table = gpd.read_parquet(path)
    table.iloc[1:].to_parquet(path)


def edit_manifest(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.mark.parametrize(
    "damage",
    [
        lambda out: cut(out / "embeddings.npy"),
        lambda out: (out / "embeddings.npy").write_bytes(b""),
        lambda out: (out / "embeddings.npy").unlink(),
        lambda out: cut(out / "index.parquet"),
        lambda out: (out / "index.parquet").write_bytes(b""),
        lambda out: (out / "index.parquet").unlink(),
        lambda out: drop_row(out / "index.parquet"),
        lambda out: edit_manifest(out / "manifest.json", dim=3),
        lambda out: edit_manifest(out / "manifest.json", inputs={}),
        lambda out: edit_manifest(out / "manifest.json", dim=None),
        lambda out: np.save(out / "embeddings.npy", np.zeros((24, 2), np.float64)),
        lambda out: np.save(out / "embeddings.npy", np.array(["x"] * 24)),
        lambda out: pd.DataFrame({"a": [1]}).to_parquet(out / "index.parquet"),
    ],
)
def test_damaged_embeddings_are_refused(
    stages: Any, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    out = shutil.copytree(stages.embeddings, tmp_path / "embeddings")
    damage(out)
    with pytest.raises(ArtifactError, match="ecofm embed"):
        open_embeddings([out])
    reseal(out)  # nor when they were written so
    with pytest.raises(ArtifactError, match="ecofm embed"):
        open_embeddings([out])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused_by_name(
    stages: Any, tmp_path: Path, value: float
) -> None:
    out = shutil.copytree(stages.embeddings, tmp_path / "embeddings")
    matrix = np.load(out / "embeddings.npy")
    matrix[5, 3] = value
    np.save(out / "embeddings.npy", matrix)
    reseal(out)
    tile_id = Embeddings(out).index["tile_id"].iloc[5]
    with pytest.raises(ArtifactError, match=f"1 embeddings that are not finite, first {tile_id}"):
        open_embeddings([out])
