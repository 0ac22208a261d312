"""Moving a ranker: what few comparisons may change, what they may not, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import check_grad
from scipy.stats import spearmanr

from ecofm.artifact import read_manifest
from ecofm.errors import ArtifactError, ComparisonError, EcofmError
from ecofm.rank.heads import RankConfig
from ecofm.rank.opening import load_ranker
from ecofm.rank.run import rank
from ecofm.rank.transfer import (
    TransferConfig,
    fit_towards,
    transfer,
    weigh_strengths,
)

N_TILES, DIM = 240, 40
random = np.random.default_rng(5)
SOURCE_MATRIX = random.normal(size=(N_TILES, DIM))
MATRIX = 1.3 * random.normal(size=(N_TILES, DIM)) + 0.5
WEIGHTS = random.normal(size=DIM) / DIM**0.5
# The new country agrees with the source in three of four directions.
OTHER = np.where(np.arange(DIM) % 4, WEIGHTS, random.normal(size=DIM) / DIM**0.5)
TRUTH = (MATRIX - MATRIX.mean(axis=0)) @ OTHER
QUICK = TransferConfig(components=DIM, invariance=0, strengths=[0.1, 1.0, 1e4])


def judge(levels: np.ndarray, n: int, *, seed: int = 0, noise: float = 0.2) -> pd.DataFrame:
    """Comparisons of n random pairs by two annotators who see levels with noise."""
    generator = np.random.default_rng(seed)
    rows = []
    for number in range(n):
        left, right = generator.choice(len(levels), 2, replace=False)
        seen = levels[left] - levels[right] + noise * generator.standard_normal()
        outcome = "tie" if abs(seen) < 0.05 else "left" if seen > 0 else "right"
        rows.append((f"a{number % 2}", f"c{left:03d}@2019", f"c{right:03d}@2019", outcome))
    return pd.DataFrame(rows, columns=["annotator", "left", "right", "outcome"])


@pytest.fixture(scope="module")
def source(make_embeddings: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("source")
    make_embeddings(root / "embeddings", SOURCE_MATRIX)
    judge(SOURCE_MATRIX @ WEIGHTS, 800).to_csv(root / "answers.csv", index=False)
    config = RankConfig(n_heads=4, components=DIM)
    return rank([root / "embeddings"], root / "answers.csv", root / "ranker", config)


@pytest.fixture(scope="module")
def embeddings(
    make_embeddings: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return make_embeddings(tmp_path_factory.mktemp("target") / "embeddings", MATRIX)


def move(
    source: Path, embeddings: Path, root: Path, table: pd.DataFrame, **more: Any
) -> np.ndarray:
    """Scores of the new country's tiles by each head, after a transfer to a table."""
    root.mkdir(parents=True, exist_ok=True)
    table.to_csv(root / "answers.csv", index=False)
    config = more.pop("config", QUICK)
    out = transfer(source, [embeddings], root / "answers.csv", root / "moved", config, **more)
    return load_ranker(out)[0].predict(MATRIX)


def agree(scores: np.ndarray, truth: np.ndarray = TRUTH) -> float:
    return float(spearmanr(scores.mean(axis=0), truth)[0])


def test_answers_improve_on_the_source_and_on_starting_from_nothing(
    source: Path, embeddings: Path, tmp_path: Path
) -> None:
    before = agree(load_ranker(source)[0].predict(MATRIX))
    few, many = (
        agree(move(source, embeddings, tmp_path / str(n), judge(TRUTH, n))) for n in (25, 400)
    )
    judge(TRUTH, 25).to_csv(tmp_path / "few.csv", index=False)
    config = RankConfig(n_heads=4, components=DIM, invariance=0)
    out = rank([embeddings], tmp_path / "few.csv", tmp_path / "r", config, force=True)
    alone = load_ranker(out)[0]
    assert few > agree(alone.predict(MATRIX)) + 0.1
    assert few > before - 0.05
    assert many > before + 0.1 and many > 0.9


def test_a_source_that_is_upside_down_is_overcome_and_never_turned_round(
    source: Path, embeddings: Path, tmp_path: Path
) -> None:
    before = load_ranker(source)[0].predict(MATRIX)
    against = -before.mean(axis=0)
    scores = move(source, embeddings, tmp_path, judge(against, 400))
    assert agree(scores, against) > 0.8
    (slope, _), _ = fit_towards(
        np.array([[1.0, 0.3], [0.0, 0.1]]), np.array([0]), np.array([1]),
        np.array([[0.0, 10.0, 0.0]]), 1e4,
    )  # fmt: skip
    assert slope == pytest.approx(0, abs=1e-9)


def test_answers_that_agree_with_the_source_keep_its_order_and_scale(
    source: Path, embeddings: Path, tmp_path: Path
) -> None:
    before = load_ranker(source)[0].predict(MATRIX)
    scores = move(source, embeddings, tmp_path, judge(before.mean(axis=0), 60, noise=0))
    assert spearmanr(scores.mean(axis=0), before.mean(axis=0))[0] > 0.98
    assert np.allclose(scores.mean(axis=1), before.mean(axis=1), atol=1e-6)
    assert np.allclose(scores.std(axis=1), before.std(axis=1), atol=1e-6)


def test_the_strongest_ridge_is_the_source_itself(
    source: Path, embeddings: Path, tmp_path: Path
) -> None:
    config = TransferConfig(components=DIM, strengths=[1e12])
    scores = move(source, embeddings, tmp_path, judge(TRUTH, 50), config=config)
    assert np.allclose(scores, load_ranker(source)[0].predict(MATRIX), atol=1e-3)


def test_the_gradient_is_that_of_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    found = []

    def keep(loss: Any, start: np.ndarray, **_: Any) -> Any:
        for _ in range(3):
            point = start + generator.normal(size=len(start))
            found.append(check_grad(lambda x: loss(x)[0], lambda x: loss(x)[1], point))
        raise StopIteration

    monkeypatch.setattr("ecofm.rank.transfer.minimize", keep)
    items, counts = generator.normal(size=(9, 4)), generator.integers(0, 5, (30, 3)).astype(float)
    left, right = generator.integers(0, 9, (2, 30))
    with pytest.raises(StopIteration):
        fit_towards(items, left, right, counts + 1, 2.0)
    assert max(found) < 1e-6


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(1, 6))
def test_weights_follow_the_held_out_losses(seed: int, n_folds: int, n: int) -> None:
    losses = np.random.default_rng(seed).random((n_folds, n))
    shares = weigh_strengths(losses, n, 50)
    assert shares.sum() == pytest.approx(1) and shares.min() >= 0
    assert shares.argmax() == losses.mean(axis=0).argmin()
    assert np.allclose(weigh_strengths(losses + 3, n, 50), shares)
    assert weigh_strengths(losses + np.arange(n), n, 1000)[0] == 1
    assert weigh_strengths(np.array([]), n, 50).tolist() == [0.0] * (n - 1) + [1.0]


def test_the_manifest_tells_what_was_chosen_and_the_same_call_is_done(
    source: Path, embeddings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = judge(TRUTH, 120)
    first = move(source, embeddings, tmp_path, table)
    manifest = read_manifest(tmp_path / "moved", "ranker")
    assert 0.1 <= manifest["decay"] < 1e4 and manifest["n_comparisons"] == 120
    assert sum(manifest["shares"]) == pytest.approx(1) and len(manifest["shares"]) == 3
    assert manifest["held_out_loss"] < manifest["source_held_out_loss"]
    assert np.array_equal(move(source, embeddings, tmp_path, table), first)
    assert "done already" in capsys.readouterr().err
    with pytest.raises(ArtifactError, match="--overwrite"):
        move(source, embeddings, tmp_path, judge(TRUTH, 121))


def test_items_may_be_clusters(source: Path, embeddings: Path, tmp_path: Path) -> None:
    item = pd.qcut(TRUTH, 12, labels=False)
    members = pd.DataFrame({"tile_id": [f"c{i:03d}@2019" for i in range(N_TILES)], "item": item})
    members.to_csv(tmp_path / "members.csv", index=False)
    ordering = ">".join(map(str, reversed(range(12))))
    (tmp_path / "o.csv").write_text(f"annotator,ordering\na,{ordering}\nb,{ordering}\n")
    out = transfer(
        source, [embeddings], tmp_path / "o.csv", tmp_path / "moved", QUICK,
        members=tmp_path / "members.csv",
    )  # fmt: skip
    before = agree(load_ranker(source)[0].predict(MATRIX))
    assert agree(load_ranker(out)[0].predict(MATRIX)) > before


def test_what_cannot_be_used_is_one_sentence(
    source: Path, embeddings: Path, tmp_path: Path, make_embeddings: Callable[..., Path]
) -> None:
    with pytest.raises(ComparisonError, match=r"has 9 comparisons .* at least 10"):
        move(source, embeddings, tmp_path / "few", judge(TRUTH, 9))
    skips = judge(TRUTH, 30).assign(outcome="skip")
    with pytest.raises(ComparisonError, match="has 0 comparisons"):
        move(source, embeddings, tmp_path / "skips", skips)
    ties = judge(TRUTH, 30).assign(outcome="tie")
    with pytest.raises(ComparisonError, match="tie"):
        move(source, embeddings, tmp_path / "ties", ties)
    elsewhere = judge(TRUTH, 30).replace({"left": {}}, regex=False)
    elsewhere["left"] = "nowhere@" + elsewhere["left"]
    with pytest.raises(ComparisonError, match="neither clusters nor tiles"):
        move(source, embeddings, tmp_path / "elsewhere", elsewhere)
    other = make_embeddings(tmp_path / "other", MATRIX, encoder="1")
    with pytest.raises(ArtifactError, match=r"another encoder than .* \(`ecofm embed`\)"):
        move(source, other, tmp_path / "encoder", judge(TRUTH, 30))
    spoilt = MATRIX.copy()
    spoilt[3] = np.nan
    bad = make_embeddings(tmp_path / "nan", spoilt)
    with pytest.raises(ArtifactError, match="not finite"):
        move(source, bad, tmp_path / "spoilt", judge(TRUTH, 30))
    with pytest.raises(ArtifactError, match="expected ranker"):
        move(embeddings, embeddings, tmp_path / "ranker", judge(TRUTH, 30))
    assert not list(tmp_path.glob("*/moved"))


def test_embeddings_that_are_all_alike_leave_finite_scores(
    source: Path, tmp_path: Path, make_embeddings: Callable[..., Path]
) -> None:
    flat = make_embeddings(tmp_path / "flat", np.ones((N_TILES, DIM)))
    with pytest.raises(EcofmError, match="no better than chance"):
        move(source, flat, tmp_path, judge(TRUTH, 40))
    assert np.isfinite(move(source, flat, tmp_path, judge(TRUTH, 40), force=True)).all()


def guess(n: int, seed: int = 1) -> pd.DataFrame:
    table = judge(TRUTH, n, seed=seed)
    return table.assign(outcome=np.random.default_rng(seed).choice(["left", "right"], n))


def test_random_votes_correct_nothing(source: Path, embeddings: Path, tmp_path: Path) -> None:
    with pytest.raises(EcofmError, match=r"no better than chance.*--force"):
        move(source, embeddings, tmp_path, guess(120))
    assert not (tmp_path / "moved").exists()
    scores = move(source, embeddings, tmp_path, guess(120), force=True)
    heads, manifest = load_ranker(tmp_path / "moved")
    assert manifest["evidence"]["verdict"] == "no better than chance"
    before = load_ranker(source)[0].predict(MATRIX).mean(axis=0)
    level = scores.mean(axis=0)
    assert level.std() < 0.1 * before.std()
    assert level.mean() == pytest.approx(before.mean(), abs=0.05)
    assert np.median(heads.spread(scores)) > 0.8 * before.std()
    assert (tmp_path / "moved" / "calibration.csv").is_file()


def test_a_few_answers_that_bear_the_source_out_are_enough(
    source: Path, embeddings: Path, tmp_path: Path
) -> None:
    agreed = load_ranker(source)[0].predict(MATRIX).mean(axis=0)
    move(source, embeddings, tmp_path, judge(agreed, 20))
    assert load_ranker(tmp_path / "moved")[1]["evidence"]["verdict"] == "better than chance"


@pytest.mark.parametrize(
    "wrong", [{"strengths": []}, {"strengths": [0.0]}, {"components": 0}, {"folds": 1},
              {"invariance": 2.0}],
)  # fmt: skip
def test_unusable_values_are_wrong_arguments(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="needed"):
        TransferConfig(**wrong)
