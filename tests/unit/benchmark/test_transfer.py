"""The curve of a transfer: what it is judged on, that it is repeatable, and what is refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ecofm.artifact import read_json
from ecofm.benchmark.transfer import CurveConfig, Study, _match_truth, measure_curve
from ecofm.benchmark.transfer_looks import summarise
from ecofm.errors import EcofmError
from ecofm.rank.heads import RankConfig
from ecofm.rank.run import rank
from ecofm.rank.transfer import TransferConfig, open_target

N_CELLS, DIM = 120, 10
random = np.random.default_rng(2)
MATRIX = np.tile(random.normal(size=(N_CELLS, DIM)), (2, 1))
MATRIX += 0.05 * random.normal(size=MATRIX.shape)
WEIGHTS = random.normal(size=DIM)
LEVEL = MATRIX @ WEIGHTS
PERIODS = ("2019", "2020")
QUICK = TransferConfig(components=DIM, strengths=[0.1, 1.0, 1e4])
SMALL = CurveConfig(column="level", region="district", sizes=[0, 10, 30], draws=2, pool=60)


def answer(pairs: Sequence[tuple[str, str]], level: Mapping[str, float], seed: int) -> pd.DataFrame:
    """Two annotators who see levels as they are."""
    said = [
        (f"a{(seed + n) % 2}", left, right, "left" if level[left] > level[right] else "right")
        for n, (left, right) in enumerate(pairs)
    ]
    return pd.DataFrame(said, columns=["annotator", "left", "right", "outcome"])


@pytest.fixture(scope="module")
def folder(make_embeddings: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("curve")
    make_embeddings(root / "embeddings", MATRIX, periods=PERIODS)
    names = [f"c{i:03d}" for i in range(N_CELLS)]
    truth = pd.DataFrame(
        {
            "cell_id": names * 2,
            "period": np.repeat(PERIODS, N_CELLS),
            "level": LEVEL,
            "other": 1.0,
            "district": [f"d{i // 20}" for i in range(N_CELLS)] * 2,
        }
    )
    truth.to_parquet(root / "truth.parquet")
    tiles = (truth["cell_id"] + "@" + truth["period"]).to_numpy()
    # The source knows eight of ten directions.
    known = dict(zip(tiles, MATRIX[:, 2:] @ WEIGHTS[2:], strict=True))
    drawn = np.random.default_rng(0).choice(tiles, (400, 2))
    pairs = [(str(a), str(b)) for a, b in drawn if a != b]
    answer(pairs, known, 0).to_csv(root / "source.csv", index=False)
    config = RankConfig(n_heads=3, components=DIM)
    rank([root / "embeddings"], root / "source.csv", root / "ranker", config)
    return root


def measure(folder: Path, out: Path, config: CurveConfig = SMALL, **more: Any) -> pd.DataFrame:
    measure_curve(
        folder / "ranker", [folder / "embeddings"], more.pop("truth", folder / "truth.parquet"),
        out, config, answer, transfer=QUICK, **more,
    )  # fmt: skip
    return pd.read_csv(out / "curve.csv")


def test_the_curve_starts_at_the_source_and_rises(folder: Path, tmp_path: Path) -> None:
    table = measure(folder, tmp_path / "curve")
    assert set(table["pick"]) == {"random", "active"}
    start = table[table["n"] == 0]
    assert set(start["method"]) == {"transfer"} and len(start) == 4
    median = table.groupby(["method", "n"])["spearman"].median()
    assert median["transfer", 30] > median["transfer", 0]
    assert median["transfer", 10] > median["scratch", 10]
    found = read_json(tmp_path / "curve" / "curve.json")
    ten = [
        r for r in found["curve"] if (r["pick"], r["method"], r["n"]) == ("random", "scratch", 10)
    ]
    values = table.query("pick == 'random' and method == 'scratch' and n == 10")["spearman"]
    assert ten[0]["median"] == pytest.approx(values.median()) and ten[0]["n_draws"] == 2
    assert "| 30 |" in (tmp_path / "curve" / "curve.md").read_text()
    with Image.open(tmp_path / "curve" / "curve.png") as picture:
        assert min(picture.size) > 300


def test_the_same_call_gives_the_same_curve(folder: Path, tmp_path: Path) -> None:
    first, second = (measure(folder, tmp_path / name) for name in ("a", "b"))
    pd.testing.assert_frame_equal(first, second)


def test_nothing_is_asked_about_left_out_regions(folder: Path) -> None:
    source, target, _ = open_target(folder / "ranker", [folder / "embeddings"], QUICK)
    known = _match_truth(folder / "truth.parquet", target.index, SMALL)
    asked: set[str] = set()

    def listen(
        pairs: Sequence[tuple[str, str]], level: Mapping[str, float], seed: int
    ) -> pd.DataFrame:
        asked.update(name for pair in pairs for name in pair)
        return answer(pairs, level, seed)

    judged: list[np.ndarray] = []

    class Watched(Study):
        def judge(self, heads: Any, rows: np.ndarray) -> float:
            judged.append(rows)
            return super().judge(heads, rows)

    study = Watched(source, target, known, SMALL, QUICK, None, None, listen)
    list(study.draw(0))
    districts = {int(name[1:4]) // 20 for name in asked}
    left_out = {int(row) % N_CELLS // 20 for row in np.concatenate(judged)}
    assert districts and left_out and not districts & left_out
    assert len(left_out) == 2


def test_given_comparisons_are_taken_in_part(folder: Path, tmp_path: Path) -> None:
    table = measure(folder, tmp_path / "curve", comparisons=folder / "source.csv")
    assert set(table["pick"]) == {"given"}
    assert set(table["n"]) == {0, 10, 30}


def test_answers_without_information_leave_the_source(folder: Path, tmp_path: Path) -> None:
    tied = pd.read_csv(folder / "source.csv").assign(outcome="tie")
    tied.to_csv(tmp_path / "ties.csv", index=False)
    table = measure(folder, tmp_path / "curve", comparisons=tmp_path / "ties.csv")
    wide = table.pivot(index=["draw", "n"], columns="method", values="spearman")
    assert wide["scratch"].isna().all()
    assert wide["transfer"].groupby("draw").nunique().eq(1).all()
    found = read_json(tmp_path / "curve" / "curve.json")["curve"]
    assert {r["n_missing"] for r in found if r["method"] == "scratch"} == {2}


def test_differences_are_paired() -> None:
    rows = [
        {"draw": d, "pick": "random", "method": m, "n": 10, "spearman": 0.1 * d + gain}
        for d in range(5)
        for m, gain in (("transfer", 0.05), ("scratch", 0.0))
    ]
    (found,) = summarise(pd.DataFrame(rows))["differences"]
    assert found["lower"] == pytest.approx(0.05) == found["upper"]
    assert found["share_above_0"] == 1 and found["n_draws"] == 5


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (CurveConfig(), "several columns, level, other; choose one with --column"),
        (CurveConfig(column="floor"), "no numeric column floor"),
        (CurveConfig(column="level", region="county"), "has no column county"),
        (CurveConfig(column="other", region="district"), "too few different values"),
    ],
)
def test_a_truth_that_cannot_be_used_is_one_sentence(
    folder: Path, tmp_path: Path, config: CurveConfig, said: str
) -> None:
    with pytest.raises(EcofmError, match=said):
        measure(folder, tmp_path / "curve", config)
    assert not (tmp_path / "curve").exists()


def test_other_places_and_one_region_are_refused(folder: Path, tmp_path: Path) -> None:
    table = pd.read_parquet(folder / "truth.parquet")
    table.assign(cell_id="x" + table["cell_id"]).to_csv(tmp_path / "far.csv", index=False)
    with pytest.raises(EcofmError, match="knows 0 of the 240 embedded tiles"):
        measure(folder, tmp_path / "curve", truth=tmp_path / "far.csv")
    table.assign(district="d").to_csv(tmp_path / "one.csv", index=False)
    with pytest.raises(EcofmError, match="one region only"):
        measure(folder, tmp_path / "curve", truth=tmp_path / "one.csv")


@pytest.mark.parametrize("wrong", [{"sizes": []}, {"sizes": [-1]}, {"draws": 0}, {"pool": 2}])
def test_unusable_values_are_wrong_arguments(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="needed"):
        CurveConfig(**wrong)
    with pytest.raises(ValueError, match="left_out"):
        CurveConfig(left_out=1.0)
