"""Heads from a table: what they recover, promise, refuse and keep."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from ecofm.artifact import read_manifest
from ecofm.errors import ArtifactError, EcofmError
from ecofm.maps.scores import score
from ecofm.rank.foretold import describe_figures
from ecofm.rank.heads import Ensemble, HeadName, RankConfig
from ecofm.rank.opening import load_ranker
from ecofm.rank.run import rank_target
from ecofm.rank.targets import Classes, fit_conformal
from ecofm.rank.transfer import TransferConfig, open_target
from tests.reseal import reseal
from tests.unit.rank.test_rank import MATRIX, N_TILES, TILE_IDS, TRUTH, write_embeddings

QUICK = RankConfig(n_heads=4, decays=[1e-3, 1e-1], folds=3)
JOBS = 200 + 40 * TRUTH + 10 * np.random.default_rng(5).normal(size=N_TILES)


@pytest.fixture(scope="module")
def embeddings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_embeddings(tmp_path_factory.mktemp("target") / "embeddings", MATRIX, TILE_IDS)


def learn(embeddings: Path, out: Path, table: pd.DataFrame, **more: Any) -> Path:
    table.to_csv(out.with_suffix(".csv"), index=False)
    config = more.pop("config", QUICK)
    return rank_target([embeddings], out.with_suffix(".csv"), out, config, **more)


def scores_of(embeddings: Path, ranker: Path) -> pd.DataFrame:
    score([embeddings], ranker, ranker.with_name(ranker.name + "_scores"))
    return gpd.read_parquet(ranker.with_name(ranker.name + "_scores") / "scores.parquet")


@pytest.mark.parametrize("head", list(HeadName))
@pytest.mark.parametrize("ensemble", list(Ensemble))
def test_numbers_are_foretold_in_their_own_unit(
    embeddings: Path, tmp_path: Path, head: HeadName, ensemble: Ensemble
) -> None:
    if (head, ensemble) == (HeadName.mlp, Ensemble.laplace):
        pytest.skip("refused by RankConfig")
    seen = np.arange(N_TILES) < 100
    table = pd.DataFrame({"tile_id": np.array(TILE_IDS)[seen], "jobs": JOBS[seen]})
    config = replace(QUICK, head=head, ensemble=ensemble, n_heads=2 if head is HeadName.mlp else 4)
    found = scores_of(embeddings, learn(embeddings, tmp_path / "r", table, config=config))
    error = found["score"].to_numpy()[~seen] - JOBS[~seen]
    # A kernel knows less of what is linear.
    most, least = (0.9, 0.7) if head is HeadName.gp else (0.5, 0.85)
    assert np.sqrt(np.square(error).mean()) < most * JOBS.std()
    assert spearmanr(found["score"][~seen], JOBS[~seen])[0] > least


def test_intervals_hold_nine_of_ten_unseen_values(tmp_path: Path) -> None:
    inside = []
    for seed in range(8):
        random = np.random.default_rng(seed)
        matrix = random.normal(size=(400, DIM := 6)).astype(np.float32)
        # Heavy tails: a normal deviation would not do.
        values = matrix @ np.arange(DIM) + 3 * random.standard_t(3, size=400)
        ids = [f"{i:03d}.png@none" for i in range(400)]
        embeddings = write_embeddings(tmp_path / f"e{seed}", matrix, ids)
        seen = np.arange(400) < 200
        table = pd.DataFrame({"tile_id": np.array(ids)[seen], "value": values[seen]})
        found = scores_of(embeddings, learn(embeddings, tmp_path / f"r{seed}", table))[~seen]
        inside.append((found["lower"] <= values[~seen]) & (values[~seen] <= found["upper"]))
    assert 0.87 <= np.mean(inside) <= 0.93


def test_the_residual_is_the_least_that_holds_nine_of_ten() -> None:
    random = np.random.default_rng(0)
    error, spread = random.standard_t(3, 199), random.uniform(0, 0.5, 199)
    residual = fit_conformal(error, spread)
    assert (np.abs(error) <= 1.6449 * np.hypot(spread, residual) + 1e-9).sum() == 180
    assert fit_conformal(np.zeros(20), np.ones(20)) == 0.0


def test_classes_have_probabilities_that_add_up(embeddings: Path, tmp_path: Path) -> None:
    levels = np.array(["bare", "rural", "urban"])[np.digitize(TRUTH, [-0.6, 0.6])]
    table = pd.DataFrame({"tile_id": TILE_IDS, "land": levels})[:110]
    ranker = learn(embeddings, tmp_path / "r", table, positive="rural")
    found = scores_of(embeddings, ranker)
    shares = found[["p_bare", "p_rural", "p_urban"]].to_numpy()
    assert np.allclose(shares.sum(axis=1), 1)
    assert np.allclose(found["score"], found["p_rural"])
    assert found["lower"].ge(0).all() and found["upper"].le(1).all()
    assert (found["class"].to_numpy() == levels)[110:].mean() > 0.75
    manifest = read_manifest(ranker, "ranker")
    held_out = pd.read_csv(ranker / "held_out.csv")
    right = (held_out["value"] == held_out["predicted"]).mean()
    assert manifest["held_out"]["accuracy"] == pytest.approx(right) and right > 0.6


def test_two_classes_are_one_head_and_its_rest(embeddings: Path, tmp_path: Path) -> None:
    table = pd.DataFrame({"tile_id": TILE_IDS, "damaged": TRUTH > 0.5})
    high, low = (
        scores_of(embeddings, learn(embeddings, tmp_path / name, table, positive=name))
        for name in ("True", "False")
    )
    assert np.allclose(high["p_True"] + high["p_False"], 1)
    assert np.allclose(high["score"], high["p_True"]) and np.allclose(low["score"], low["p_False"])
    assert spearmanr(high["score"], TRUTH)[0] > 0.9 and spearmanr(low["score"], TRUTH)[0] < -0.9
    classes, _ = load_ranker(tmp_path / "True")
    assert isinstance(classes, Classes) and len(classes.heads) == 1


def test_items_stand_at_the_mean_of_their_members(embeddings: Path, tmp_path: Path) -> None:
    district = np.arange(N_TILES) // 5
    members = pd.DataFrame({"tile_id": TILE_IDS, "item": district})
    members.to_csv(tmp_path / "members.csv", index=False)
    means = pd.Series(JOBS).groupby(district).mean()
    table = pd.DataFrame({"item": means.index, "jobs": means.to_numpy()})
    found = scores_of(
        embeddings, learn(embeddings, tmp_path / "r", table, members=tmp_path / "members.csv")
    )
    assert spearmanr(found["score"], JOBS)[0] > 0.7


def test_a_cell_without_period_is_all_of_its_tiles(tmp_path: Path) -> None:
    cells = [f"32652_1_{i}" for i in range(60)]
    ids = [f"{cell}@{period}" for period in ("2019", "2020") for cell in cells]
    matrix = np.concatenate([MATRIX[:60], MATRIX[:60] + 0.1])
    embeddings = write_embeddings(tmp_path / "e", matrix, ids)
    index = gpd.read_parquet(embeddings / "index.parquet")
    index["cell_id"], index["period"] = cells * 2, ["2019"] * 60 + ["2020"] * 60
    index.to_parquet(embeddings / "index.parquet")
    reseal(embeddings)
    whole = pd.DataFrame({"cell_id": cells, "jobs": JOBS[:60]})
    each = pd.DataFrame({"cell_id": cells, "period": "2020", "jobs": JOBS[:60]})
    assert read_manifest(learn(embeddings, tmp_path / "a", whole), "ranker")["n_items"] == 60
    assert read_manifest(learn(embeddings, tmp_path / "b", each), "ranker")["n_items"] == 60
    # Both periods of a cell are held out together, or the twin would tell the answer.
    both = pd.concat([each.assign(period="2019"), each])
    noise = both.assign(jobs=np.tile(np.random.default_rng(0).normal(size=60), 2))
    manifest = read_manifest(learn(embeddings, tmp_path / "c", noise), "ranker")
    assert manifest["held_out"]["r2"] < 0.2 and manifest["evidence"]["p"] > 0.05
    assert manifest["evidence"]["verdict"] == "no better than chance"


def table_of(**columns: Any) -> pd.DataFrame:
    return pd.DataFrame({"tile_id": TILE_IDS} | columns)


@pytest.mark.parametrize(
    ("table", "more", "said"),
    [
        (pd.DataFrame({"place": ["a"], "jobs": [1]}), {}, "expected one of tile_id, cell_id"),
        (table_of(a=JOBS, b=JOBS), {}, "no --column was given"),
        (table_of(a=JOBS), {"column": "b"}, "--column b is none of them"),
        (table_of(a=1.0), {}, "in every row"),
        (table_of(a="x"), {}, "in every row"),
        (table_of(a=["about 200", *map(str, JOBS[1:])]), {}, r"'about 200' \(line 2\)"),
        (table_of(a=[f"{v:.3f} people" for v in JOBS]), {}, "numbers written as text"),
        (pd.concat([table_of(a=JOBS)] * 2), {}, "more than one row"),
        (table_of(a=JOBS)[:9], {}, "at least 10 are needed"),
        (table_of(a=JOBS).assign(tile_id="nowhere").head(1), {}, "Check --embeddings"),
        (table_of(a=JOBS).rename(columns={"tile_id": "item"}), {}, "--members"),
        (table_of(a=JOBS), {"positive": "x"}, "is no class of a"),
        (table_of(a=np.where(TRUTH > 0, "x", "y")), {"positive": "z"}, "is no class of a"),
    ],
)
def test_tables_that_say_nothing_are_refused_in_a_sentence(
    embeddings: Path, tmp_path: Path, table: pd.DataFrame, more: dict[str, Any], said: str
) -> None:
    with pytest.raises((EcofmError, ValueError), match=said):
        learn(embeddings, tmp_path / "r", table, **more)
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("content", [b"", b"\x00\xff\xfe", b"tile_id\n"])
def test_damaged_tables_are_refused(embeddings: Path, tmp_path: Path, content: bytes) -> None:
    for suffix in (".csv", ".parquet"):
        path = tmp_path / f"t{suffix}"
        path.write_bytes(content)
        with pytest.raises(EcofmError, match=str(path)):
            rank_target([embeddings], path, tmp_path / "r", QUICK)


def test_tables_are_read_as_offices_write_them(embeddings: Path, tmp_path: Path) -> None:
    """Blanks after names, separators of thousands, secrets and -9999 change nothing but gaps."""
    jobs = [f"{value:,}" for value in np.rint(JOBS * 100).astype(int)]
    jobs[0], jobs[1], jobs[2] = "<5", "-9999", "inf"
    written = pd.DataFrame({"Tile ID": [f"{name} " for name in TILE_IDS], "Jobs": jobs})
    plain = pd.DataFrame({"tile_id": TILE_IDS, "Jobs": np.rint(JOBS * 100)})[3:]
    found, expected = (
        scores_of(embeddings, learn(embeddings, tmp_path / name, table, column="jobs"))
        for name, table in (("written", written), ("plain", plain))
    )
    np.testing.assert_allclose(found["score"], expected["score"])


def test_missing_values_are_left_out_and_counted(
    embeddings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = table_of(jobs=np.where(np.arange(N_TILES) < 20, np.nan, JOBS))
    manifest = read_manifest(learn(embeddings, tmp_path / "r", table), "ranker")
    assert manifest["n_items"] == N_TILES - 20
    assert "20 of 150 rows" in capsys.readouterr().err


def test_values_that_have_nothing_to_do_with_the_imagery_are_told_and_marked(
    embeddings: Path, tmp_path: Path, capsys: Any
) -> None:
    random = np.random.default_rng(1)
    lands = random.choice(["bare", "town"], N_TILES, p=[0.8, 0.2])
    for name, values in (("jobs", random.normal(size=N_TILES)), ("land", lands)):
        out = learn(embeddings, tmp_path / name, table_of(**{name: values}))
        told = capsys.readouterr().err
        assert f"warning: {name} of" in told and "no better than chance" in told
        assert read_manifest(out, "ranker")["evidence"]["verdict"] == "no better than chance"


def test_held_out_errors_stand_beside_those_of_the_mean_and_the_largest_class(
    embeddings: Path, tmp_path: Path
) -> None:
    numbers = read_manifest(learn(embeddings, tmp_path / "n", table_of(jobs=JOBS)), "ranker")
    held_out = pd.read_csv(tmp_path / "n" / "held_out.csv")
    told = numbers["held_out"]
    error = (held_out["value"] - held_out["predicted"]).pow(2).mean() ** 0.5
    assert told["error"] == pytest.approx(error) and told["error"] < told["error_of_mean"]
    assert told["error_of_mean"] == pytest.approx(JOBS.std())
    assert numbers["evidence"]["verdict"] == "better than chance"
    levels = np.where(TRUTH > 0.8, "town", "bare")
    classes = read_manifest(learn(embeddings, tmp_path / "c", table_of(land=levels)), "ranker")
    told = classes["held_out"]
    share = (levels == "town").mean()
    entropy = -share * np.log(share) - (1 - share) * np.log(1 - share)
    assert told["log_loss_of_shares"] == pytest.approx(entropy)
    assert told["log_loss"] < entropy
    said = describe_figures(told)
    assert f"{told['accuracy']:.1%}" in said and f"{1 - share:.1%}" in said


def test_curved_heads_of_values_are_not_refused_for_what_a_straight_line_misses(
    embeddings: Path, tmp_path: Path
) -> None:
    curved = table_of(jobs=np.abs(TRUTH))
    config = RankConfig(n_heads=2, head=HeadName.mlp, decays=[1e-3], folds=3)
    learn(embeddings, tmp_path / "r", curved, config=config)


def test_transfer_refuses_a_ranker_of_a_target(embeddings: Path, tmp_path: Path) -> None:
    ranker = learn(embeddings, tmp_path / "r", table_of(jobs=JOBS))
    with pytest.raises(ArtifactError, match="column jobs"):
        open_target(ranker, [embeddings], TransferConfig())


def test_the_same_call_is_done_and_another_is_not(embeddings: Path, tmp_path: Path) -> None:
    ranker = learn(embeddings, tmp_path / "r", table_of(jobs=JOBS))
    before = (ranker / "ranker.safetensors").stat().st_mtime_ns
    learn(embeddings, tmp_path / "r", table_of(jobs=JOBS))
    assert (ranker / "ranker.safetensors").stat().st_mtime_ns == before
    with pytest.raises(ArtifactError):
        learn(embeddings, tmp_path / "r", table_of(jobs=JOBS + 1))
