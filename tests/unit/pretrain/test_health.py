"""The figures of health against what they are by definition, and the alarm."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from ecofm.errors import ContractError, EcofmError
from ecofm.pretrain import health, record
from ecofm.pretrain.monitor import Monitor
from ecofm.pretrain.record import OnCollapse
from ecofm.pretrain.run import PretrainConfig, RunConfig, pretrain
from ecofm.tiles.archive import open_archive

Tiny = Callable[..., PretrainConfig]


def run_config(**changes: Any) -> RunConfig:
    fields: dict[str, Any] = {
        "threads": 0, "checkpoint_every": 100, "log_every": 1, "accelerator": "cpu",
        "torch_threads": 1,
    }  # fmt: skip
    return RunConfig(**(fields | changes))


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_rank_is_the_number_of_equal_directions() -> None:
    torch.manual_seed(0)
    directions = torch.linalg.qr(torch.randn(20, 20))[0]
    for n in (1, 3, 20):
        features = directions[:n].repeat(20 // n, 1)
        assert float(health.effective_rank(features)) == pytest.approx(n, rel=1e-3)


def test_std_is_one_on_the_sphere_and_zero_when_collapsed() -> None:
    torch.manual_seed(0)
    spread = torch.randn(2000, 32)
    assert float(health.feature_std(spread)) == pytest.approx(1, abs=0.03)
    assert float(health.feature_std(torch.ones(8, 32))) == pytest.approx(0, abs=1e-6)
    assert float(health.uniformity(spread)) == pytest.approx(-3.76, abs=0.1)
    assert float(health.uniformity(torch.ones(8, 32))) == pytest.approx(0, abs=1e-6)


def test_alignment_is_the_squared_distance_on_the_sphere() -> None:
    first = torch.tensor([[2.0, 0.0], [0.0, 3.0]])
    assert float(health.alignment(first, 5 * first)) == 0
    assert float(health.alignment(first, -first)) == pytest.approx(4)
    assert float(health.alignment(first, first.flip(1))) == pytest.approx(2)


def blobs(spread: float) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    labels = np.arange(90) % 3
    centres = np.eye(3, 8) * 5
    rows = centres[labels] + spread * random.standard_normal((90, 8))
    return rows.astype(np.float32), labels


def test_knn_and_probe_find_what_is_there_and_nothing_else() -> None:
    rows, labels = blobs(0.5)
    assert health.knn_accuracy(rows, labels) == 1
    assert health.probe_accuracy(rows, labels) == 1
    noise = np.random.default_rng(1).standard_normal(rows.shape).astype(np.float32)
    assert health.knn_accuracy(noise, labels) < 0.5
    assert health.probe_accuracy(noise, labels) < 0.55


def test_the_probe_is_held_out() -> None:
    """More columns than rows fit any numbers; held out, they say nothing."""
    random = np.random.default_rng(0)
    rows = random.standard_normal((60, 200)).astype(np.float32)
    assert abs(health.probe_spearman(rows, random.standard_normal(60))) < 0.35
    assert health.probe_spearman(rows[:, :3], rows[:, 0].astype(float)) > 0.95


@pytest.fixture(scope="module")
def archive(make_archive: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_archive(tmp_path_factory.mktemp("archive") / "archive", n_cells=10)


def test_a_run_is_watched_and_drawn_and_left_as_it_was(
    make_archive: Callable[..., Path], archive: Path, tiny: Tiny, tmp_path: Path
) -> None:
    chips = make_archive(tmp_path / "chips", grid="none", n_cells=12, seed=2)
    cells = [f"32652_{3459 + i // 4}_{391 + i % 4}" for i in range(10)]
    table = pd.DataFrame({"cell_id": cells, "floor": range(10), "name": "x"})
    table.to_csv(tmp_path / "proxies.csv", index=False)
    watched = run_config(
        monitor_chips=str(chips), monitor_proxies=str(tmp_path / "proxies.csv"), monitor_every=2
    )
    run = pretrain([archive], tmp_path / "run", tiny(steps=3), watched)
    plain = pretrain([archive], tmp_path / "plain", tiny(steps=3), run_config())
    weights = [(path / "encoder" / "model.safetensors").read_bytes() for path in (run, plain)]
    assert weights[0] == weights[1]
    found = lines(run)
    assert {"loss", "rank", "embedding_std", "alignment", "uniformity", "gradient_norm"} <= set(
        found[0]
    )
    assert all(0 <= line["knn"] <= 1 and -1 <= line["probe_floor"] <= 1 for line in found)
    assert "probe_name" not in found[0]
    with Image.open(run / "health.png") as picture:
        assert picture.width > 600 and len(np.unique(np.asarray(picture))) > 20


def test_proxies_of_each_tile_are_those_of_its_own_period(archive: Path, tmp_path: Path) -> None:
    tiles = open_archive(archive)
    places = tiles.index[["cell_id", "period"]].reset_index(drop=True)
    table = pd.DataFrame({"Cell ID": places["cell_id"] + " ", "year": places["period"]})
    table["year"] = table["year"].str[:4] + ".0"
    table["floor"] = [f"1,{n:03d}" for n in range(len(table))]
    old = table.assign(year="1999", floor="7")
    path = tmp_path / "proxies.csv"
    pd.concat([old, table]).to_csv(path, index=False)
    monitor = Monitor([tiles], tiles.contract, proxies=path)
    assert monitor._tiles is not None
    assert monitor._tiles[2]["floor"].tolist() == [1000 + n for n in range(len(table))]
    pd.concat([table, table]).to_csv(path, index=False)
    with pytest.raises(EcofmError, match="has two rows for"):
        Monitor([tiles], tiles.contract, proxies=path)


def test_what_cannot_be_watched_is_refused_before_training(
    make_archive: Callable[..., Path], archive: Path, tiny: Tiny, tmp_path: Path
) -> None:
    (tmp_path / "no_key.csv").write_text("place,value\n1,2\n")
    (tmp_path / "strangers.csv").write_text("cell_id,value\na,2\n")
    other = make_archive(tmp_path / "other", grid="none", dtype="uint8")
    one = make_archive(tmp_path / "one", grid="none", n_cells=1)
    for name, value, error, said in [
        ("monitor_proxies", "no_key.csv", EcofmError, "neither a column tile_id nor cell_id"),
        ("monitor_proxies", "strangers.csv", EcofmError, "0 of the tiles"),
        ("monitor_proxies", "nothing.csv", EcofmError, "cannot be read"),
        ("monitor_chips", str(other), ContractError, "dtype"),
        ("monitor_chips", str(one), EcofmError, "one group only"),
    ]:
        with pytest.raises(error, match=said):
            pretrain(
                [archive], tmp_path / "run", tiny(), run_config(**{name: str(tmp_path / value)})
            )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("on_collapse", OnCollapse)
def test_collapse_is_said_once_or_ends_the_run(
    on_collapse: OnCollapse, archive: Path, tiny: Tiny, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    # A learning rate that collapses these features needs more steps than a test has.
    normal = record.judge
    monkeypatch.setattr(
        record, "judge", lambda a, b: normal(torch.ones_like(a) + a * 1e-4, torch.ones_like(b))
    )
    run = run_config(on_collapse=on_collapse)
    if on_collapse is OnCollapse.stop:
        with pytest.raises(EcofmError, match=r"collapsed at step 3: std 0\.00"):
            pretrain([archive], tmp_path / "run", tiny(steps=6), run)
    else:
        pretrain([archive], tmp_path / "run", tiny(steps=6), run)
        assert capsys.readouterr().err.count("collapsed at step 3") == 1
    assert {"event": "collapse", "step": 3} in lines(tmp_path / "run")
