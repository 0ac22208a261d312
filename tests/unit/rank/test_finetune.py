"""Fine-tuning: the loss falls, what it writes loads, and a second call is done."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ecofm
from ecofm.artifact import read_manifest
from ecofm.embed import Embeddings
from ecofm.errors import ArtifactError, ComparisonError, ContractError, EcofmError
from ecofm.pretrain.views import ViewConfig
from ecofm.rank.finetune import FinetuneConfig, Trained, _group_by_cell, finetune
from ecofm.rank.heads import RankConfig
from ecofm.rank.opening import load_ranker
from ecofm.tiles.archive import open_archive


def config(**changes: Any) -> FinetuneConfig:
    fields: dict[str, Any] = {
        "steps": 3, "pairs": 4, "views": ViewConfig(size_px=32),
        "rank": RankConfig(n_heads=2),
    }  # fmt: skip
    return FinetuneConfig(**(fields | changes))


@pytest.fixture(scope="module")
def tuned(stages: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finetune(
        [stages.archive], stages.encoder, stages.answers,
        tmp_path_factory.mktemp("finetune") / "out", config(),
    )  # fmt: skip


def test_what_it_writes_loads(stages: Any, tuned: Path) -> None:
    encoder, contract = ecofm.load_encoder(tuned)
    before, known = ecofm.load_encoder(stages.encoder)
    assert contract == known and encoder.dim == before.dim
    assert not torch.equal(
        *(torch.cat([p.flatten() for p in e.parameters()]) for e in (encoder, before))
    )
    _, manifest = load_ranker(tuned / "ranker")
    assert manifest["encoder"] == Embeddings(tuned / "embeddings").encoder_hash
    assert len(Embeddings(tuned / "embeddings").index) == 24


def test_only_the_chosen_part_learns(stages: Any, tuned: Path) -> None:
    before, after = (
        dict(ecofm.load_encoder(path)[0].named_parameters()) for path in (stages.encoder, tuned)
    )
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved and all("layer4" in name for name in moved)


@pytest.mark.parametrize("trained", list(Trained))
def test_the_loss_falls(stages: Any, trained: Trained, tmp_path: Path) -> None:
    seen: list[int] = []
    longer = config(steps=40, pairs=8, trained=trained, learning_rate=1e-3, consistency=0.1)
    out = finetune(
        [stages.archive], stages.encoder, stages.answers, tmp_path / "out", longer,
        progress=lambda done, total: seen.append(done),
    )  # fmt: skip
    manifest = read_manifest(out / "encoder", "encoder")
    assert manifest["last_loss"] < 0.8 * manifest["first_loss"]
    assert seen == list(range(1, 41))


def test_every_weight_changes_by_a_low_rank(stages: Any, tmp_path: Path) -> None:
    low = config(trained=Trained.lora, lora_rank=2, learning_rate=1e-2)
    out = finetune([stages.archive], stages.encoder, stages.answers, tmp_path / "out", low)
    before, after = (
        dict(ecofm.load_encoder(path)[0].named_parameters()) for path in (stages.encoder, out)
    )
    assert list(before) == list(after)
    changes = {name: after[name] - before[name] for name in before}
    kernels = [change.flatten(1) for change in changes.values() if change.ndim > 1]
    assert not any(change.any() for change in changes.values() if change.ndim == 1)
    ranks = [int(torch.linalg.matrix_rank(kernel, rtol=1e-3)) for kernel in kernels]
    # A block whose last norm begins at zero has no slope at first.
    assert set(ranks) <= {0, 1, 2} and ranks.count(2) > 5


def test_another_period_of_a_cell_is_drawn_beside_a_tile(stages: Any) -> None:
    archive = open_archive(stages.archive)
    draw = _group_by_cell([archive])
    cells = archive.index["cell_id"].to_numpy()
    drawn = [draw(row, np.random.default_rng(seed)) for row in range(24) for seed in range(8)]
    rows = np.repeat(np.arange(24), 8)
    assert (cells[drawn] == cells[rows]).all() and 0.3 < np.mean(np.array(drawn) != rows) < 0.7


def test_the_same_call_is_done_and_gives_the_same_bytes(
    stages: Any, tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = finetune([stages.archive], stages.encoder, stages.answers, tmp_path / "out", config())
    for name in ("encoder/model.safetensors", "embeddings/embeddings.npy"):
        assert (again / name).read_bytes() == (tuned / name).read_bytes()
    capsys.readouterr()
    finetune([stages.archive], stages.encoder, stages.answers, again, config())
    assert capsys.readouterr().err.count("is done already") == 3
    with pytest.raises(ArtifactError, match="--overwrite"):
        finetune([stages.archive], stages.encoder, stages.answers, again, config(seed=1))
    finetune(
        [stages.archive], stages.encoder, stages.answers, again, config(seed=1), overwrite=True
    )
    assert not np.array_equal(
        Embeddings(again / "embeddings").matrix, Embeddings(tuned / "embeddings").matrix
    )


def test_a_killed_call_continues(
    stages: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("ecofm.rank.finetune.rank", fail)
        with pytest.raises(KeyboardInterrupt):
            finetune([stages.archive], stages.encoder, stages.answers, tmp_path / "out", config())
    written = (tmp_path / "out" / "encoder" / "model.safetensors").stat().st_mtime_ns
    finetune([stages.archive], stages.encoder, stages.answers, tmp_path / "out", config())
    assert (tmp_path / "out" / "encoder" / "model.safetensors").stat().st_mtime_ns == written
    load_ranker(tmp_path / "out" / "ranker")


def test_clusters_stand_for_their_members(stages: Any, tmp_path: Path) -> None:
    (tmp_path / "orderings.csv").write_text("annotator,ordering\nada,2>1>0\nbo,2=1>0\n")
    out = finetune(
        [stages.archive], stages.encoder, tmp_path / "orderings.csv", tmp_path / "out", config(),
        members=stages.clusters,
    )  # fmt: skip
    assert load_ranker(out / "ranker")[1]["n_items"] == 3
    with pytest.raises(ArtifactError, match=r"encoder holds encoder of another.*--overwrite"):
        finetune([stages.archive], stages.encoder, tmp_path / "orderings.csv", out, config(),
                 members=change_members(stages, tmp_path))  # fmt: skip


def change_members(stages: Any, folder: Path) -> Path:
    """Other tiles for the same three items."""
    import pandas as pd

    table = pd.read_parquet(stages.clusters / "clusters.parquet")
    table["item"] = table["item"].to_numpy()[::-1]
    table.to_csv(folder / "members.csv", index=False)
    return folder / "members.csv"


def test_bad_data_is_refused_before_any_work(
    make_archive: Callable[..., Path], stages: Any, tmp_path: Path
) -> None:
    (tmp_path / "answers.csv").write_text("annotator,left,right,outcome\na,here,there,left\n")
    with pytest.raises(ComparisonError, match="items are neither"):
        finetune(
            [stages.archive], stages.encoder, tmp_path / "answers.csv", tmp_path / "out", config()
        )
    other = make_archive(tmp_path / "other", dtype="int16")
    with pytest.raises(ContractError, match="dtype"):
        finetune([other], stages.encoder, stages.answers, tmp_path / "out", config())
    assert not (tmp_path / "out").exists()


def test_random_votes_tune_nothing(
    make_archive: Callable[..., Path], stages: Any, tmp_path: Path
) -> None:
    """An encoder that learned the votes by heart would bear them out: another one judges them."""
    archive = make_archive(tmp_path / "archive", n_cells=30, periods=("2019",))
    random, names = np.random.default_rng(3), tile_ids(archive)
    lines = ["annotator,left,right,outcome"]
    for _ in range(200):
        left, right = random.choice(names, 2, replace=False)
        lines.append(f"a,{left},{right},{random.choice(['left', 'right'])}")
    (tmp_path / "votes.csv").write_text("\n".join(lines))
    learning = config(steps=20, trained=Trained.all, learning_rate=1e-3)
    call = ([archive], stages.encoder, tmp_path / "votes.csv", tmp_path / "out", learning)
    with pytest.raises(EcofmError, match=r"no better than chance.*--force"):
        finetune(*call)
    assert not list(tmp_path.glob("out/*"))
    out = finetune(*call, force=True)
    evidence = load_ranker(out / "ranker")[1]["evidence"]
    assert evidence["verdict"] == "no better than chance"
    assert sorted(path.name for path in out.iterdir()) == ["embeddings", "encoder", "ranker"]
    with pytest.raises(EcofmError, match="no better than chance"):
        finetune(*call)


@pytest.mark.parametrize(
    "wrong", [{"steps": 0}, {"pairs": 0}, {"learning_rate": 0.0}, {"consistency": -1.0}]
)
def test_unusable_values_are_wrong_arguments(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="needed"):
        config(**wrong)


def test_a_damaged_tile_is_named(
    make_archive: Callable[..., Path],
    damage: Callable[[Path, int], str],
    answer: Callable[..., Path],
    stages: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One bad tile does not end the run."""
    archive = make_archive(tmp_path / "archive", n_cells=3, periods=("2019",))
    # The members of an item, so that others remain when one is damaged.
    (tmp_path / "members.csv").write_text(
        "tile_id,item\n" + "".join(f"{t},{i % 2}\n" for i, t in enumerate(tile_ids(archive)))
    )
    (tmp_path / "answers.csv").write_text("annotator,ordering\na,1>0\n")
    name = damage(archive, 0)
    out = finetune([archive], stages.encoder, tmp_path / "answers.csv", tmp_path / "out", config(),
                   members=tmp_path / "members.csv")  # fmt: skip
    assert name in capsys.readouterr().err
    assert len(Embeddings(out / "embeddings").index) == 2


def tile_ids(archive: Path) -> list[str]:
    import geopandas as gpd

    return list(gpd.read_parquet(archive / "index.parquet")["tile_id"])
