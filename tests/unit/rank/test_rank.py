"""The ranker: what it learns, what it must not depend on, and what it refuses."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from ecofm.artifact import Draft, read_manifest
from ecofm.compare import Store, import_files
from ecofm.compare.comparison import Comparison
from ecofm.compare.members import read_members
from ecofm.errors import ArtifactError, ComparisonError, EcofmError
from ecofm.rank.calibration import MIN_SHARE
from ecofm.rank.features import build_basis
from ecofm.rank.fit import fit_heads
from ecofm.rank.heads import Ensemble, RankConfig
from ecofm.rank.items import gather_features, pair_items
from ecofm.rank.opening import load_ranker
from ecofm.rank.run import rank
from ecofm.types import Contract

N_TILES, DIM = 150, 12
QUICK = RankConfig(n_heads=4)
TILE_IDS = [f"{i:03d}.png@none" for i in range(N_TILES)]
random = np.random.default_rng(0)
MATRIX = random.normal(size=(N_TILES, DIM)).astype(np.float32) * np.linspace(0.5, 5, DIM) + 3
TRUTH = ((MATRIX - 3) / np.linspace(0.5, 5, DIM)) @ random.normal(size=DIM)
TRUTH = (TRUTH - TRUTH.mean()) / TRUTH.std()


def write_embeddings(
    out: Path, matrix: np.ndarray, tile_ids: list[str], encoder: str = "0"
) -> Path:
    names = [tile_id.split("@")[0] for tile_id in tile_ids]
    columns = {"tile_id": tile_ids, "cell_id": names, "period": "none", "group": ""}
    index = gpd.GeoDataFrame(
        columns | {"valid_share": 1.0}, geometry=gpd.GeoSeries([None] * len(names), crs="EPSG:4326")
    )
    draft = Draft(out, stage="embeddings", config={}, inputs={"encoder": encoder})
    contract = Contract(
        bands=("red",), dtype="uint8", units="digital number", scale=1.0, offset=0.0,
        valid_range=(0.0, 255.0), gsd_m=None, mean=(0.0,), std=(1.0,),
    )  # fmt: skip
    draft.extra = {"dim": matrix.shape[1], "attribution": "none", "contract": contract.to_json()}
    with draft as folder:
        index.to_parquet(folder / "index.parquet")
        np.save(folder / "embeddings.npy", matrix.astype(np.float32))
    return out


@pytest.fixture(scope="module")
def embeddings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_embeddings(tmp_path_factory.mktemp("rank") / "embeddings", MATRIX, TILE_IDS)


def judge(n: int, *, noise: float = 0.3, n_annotators: int = 3, seed: int = 1) -> pd.DataFrame:
    """Comparisons of tiles by annotators who see the true score with noise."""
    generator = np.random.default_rng(seed)
    rows = []
    for number in range(n):
        left, right = generator.choice(N_TILES, 2, replace=False)
        seen = TRUTH[left] - TRUTH[right] + noise * generator.standard_normal()
        outcome = "tie" if abs(seen) < 0.1 else "left" if seen > 0 else "right"
        rows.append((f"a{number % n_annotators}", TILE_IDS[left], TILE_IDS[right], outcome))
    return pd.DataFrame(rows, columns=["annotator", "left", "right", "outcome"])


def fit(out: Path, embeddings: Path, table: pd.DataFrame, **more: Any) -> np.ndarray:
    """Scores of all tiles by each head after a fit to a table."""
    table.to_csv(out.with_suffix(".csv"), index=False)
    config = more.pop("config", QUICK)
    rank([embeddings], out.with_suffix(".csv"), out, config, **more)
    return load_ranker(out)[0].predict(MATRIX)


def test_a_linear_score_is_recovered_from_noisy_comparisons(
    embeddings: Path, tmp_path: Path
) -> None:
    heads = fit(tmp_path / "ranker", embeddings, judge(1200))
    assert heads.shape == (4, N_TILES)
    assert spearmanr(heads.mean(axis=0), TRUTH)[0] > 0.9
    manifest = read_manifest(tmp_path / "ranker", "ranker")
    assert manifest["n_comparisons"] == 1200 and manifest["n_annotators"] == 3
    assert manifest["n_items"] == N_TILES and 0 < manifest["held_out_loss"] < np.log(3)


def test_intervals_are_wider_after_fewer_comparisons(embeddings: Path, tmp_path: Path) -> None:
    config = RankConfig(n_heads=12, decays=[1e-2])
    few, many = (
        fit(tmp_path / str(n), embeddings, judge(n, n_annotators=8), config=config)
        for n in (120, 3000)
    )
    assert few.std(axis=0).mean() > 1.5 * many.std(axis=0).mean()


def test_the_same_call_gives_the_same_bytes_or_is_done(
    embeddings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = judge(100)
    first, again, other = (
        fit(tmp_path / name, embeddings, table, config=RankConfig(n_heads=3, seed=seed))
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert (first == again).all() and not np.allclose(first, other)
    capsys.readouterr()
    fit(tmp_path / "a", embeddings, table, config=RankConfig(n_heads=3, seed=0))
    assert "is done already" in capsys.readouterr().err
    with pytest.raises(ArtifactError, match="--overwrite"):
        fit(tmp_path / "a", embeddings, table, config=RankConfig(n_heads=3, seed=1))


def heads_of(table: pd.DataFrame) -> np.ndarray:
    basis = build_basis(MATRIX.astype(np.float64), DIM)
    pairs = pair_items(table, pd.Series(TILE_IDS), None)
    return fit_heads(MATRIX, basis, pairs, QUICK).heads.predict(MATRIX)


@settings(max_examples=8, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 1000), share=st.sampled_from([0.3, 1.0]))
def test_swapping_sides_changes_no_score(seed: int, share: float) -> None:
    table = judge(80, seed=seed)
    turned = table.copy()
    chosen = np.random.default_rng(seed).random(len(table)) <= share
    turned.loc[chosen, ["left", "right"]] = table.loc[chosen, ["right", "left"]].to_numpy()
    swap = {"left": "right", "right": "left", "tie": "tie"}
    turned.loc[chosen, "outcome"] = table.loc[chosen, "outcome"].map(swap)
    assert np.allclose(heads_of(turned), heads_of(table))


def test_turning_every_answer_round_turns_the_scores_round() -> None:
    table = judge(150)
    opposite = table.assign(
        outcome=table["outcome"].map({"left": "right", "right": "left", "tie": "tie"})
    )
    assert np.allclose(heads_of(opposite), -heads_of(table), atol=1e-3)


def test_skips_order_and_names_of_annotators_change_nothing() -> None:
    table = judge(80)
    skips = table.assign(outcome="skip").iloc[:30]
    shuffled = pd.concat([skips, table.sample(frac=1, random_state=0)], ignore_index=True)
    renamed = shuffled.assign(annotator="x" + shuffled["annotator"])
    assert np.allclose(heads_of(renamed), heads_of(table))


def test_annotators_who_say_the_same_change_nothing() -> None:
    """A second annotator who repeats the first leaves the score; it only takes off his noise."""
    config = RankConfig(n_heads=2, decays=[1e-2])
    basis = build_basis(MATRIX.astype(np.float64), DIM)
    one = judge(200, n_annotators=1)
    copies = [pd.concat([one.assign(annotator=f"a{i}") for i in range(n)]) for n in (2, 5)]
    fits = [
        fit_heads(MATRIX, basis, pair_items(t, pd.Series(TILE_IDS), None), config).heads
        for t in copies
    ]
    found = [heads.predict(MATRIX) for heads in fits]
    # Apart from the share of development that more people can vouch for.
    assert np.allclose(*(scores / scores.std() for scores in found), atol=1e-3)


def test_scores_are_anchored_over_the_items() -> None:
    table = judge(300)
    items = sorted({*table["left"], *table["right"]})
    scores = heads_of(table)[:, [TILE_IDS.index(item) for item in items]]
    assert np.allclose(scores.mean(axis=1), 0, atol=1e-6)
    share = scores.std(axis=1)
    assert np.allclose(share, share[0], atol=1e-6) and 0.7 < share[0] < 1


@pytest.fixture
def members(tmp_path: Path) -> Path:
    """Ten items, the tenths of the true order, `00` the lowest."""
    item = np.argsort(np.argsort(TRUTH)) * 10 // N_TILES
    table = pd.DataFrame({"tile_id": TILE_IDS, "item": [f"{i:02d}" for i in item]})
    table.to_csv(tmp_path / "members.csv", index=False)
    return tmp_path / "members.csv"


def test_clusters_are_ranked_through_their_members(
    embeddings: Path, members: Path, tmp_path: Path
) -> None:
    answers = tmp_path / "answers.csv"
    answers.write_text("annotator,ordering\nada,9>8>7>6>5>4>3>2>1>0\nbo,9=8>7>6=5>4>3>2>0>1\n")
    for kind in ("csv", "parquet", "clusters"):
        given = members
        if kind == "parquet":
            given = members.with_suffix(".parquet")
            pd.read_csv(members, dtype=str).to_parquet(given)
        elif kind == "clusters":
            given = tmp_path / "clusters"
            with Draft(given, stage="clusters", config={}, inputs={}) as folder:
                table = pd.read_csv(members, dtype=str).assign(distance=0.0)
                table.to_parquet(folder / "clusters.parquet")
        out = rank([embeddings], answers, tmp_path / f"ranker-{kind}", QUICK, members=given)
        scores = load_ranker(out)[0].predict(MATRIX).mean(axis=0)
        assert spearmanr(scores, TRUTH)[0] > 0.85, kind
        assert load_ranker(out)[1]["n_items"] == 10


def test_an_item_stands_where_the_mean_of_its_members_does() -> None:
    # Two in three members of `few` are below all of `even`, but their mean is above.
    features = np.array([[0.0], [0.0], [9.0], [1.0], [1.0], [1.0]])
    members = pd.DataFrame({"tile_id": TILE_IDS[:6], "item": ["few"] * 3 + ["even"] * 3})
    said = pd.DataFrame([("ada", "few", "even", "left")] * 9, columns=judge(1).columns)
    pairs = pair_items(said, pd.Series(TILE_IDS[:6]), members)
    items = gather_features(
        features, lambda rows: rows, pairs.members, 200, np.random.default_rng(0)
    )
    assert items.mean == pytest.approx(np.array([[1.0], [3.0]]))
    drawn = items.drawn[:, 1, 0]
    assert drawn.mean() == pytest.approx(3.0, abs=0.6) and drawn.min() == 0 and drawn.max() == 9
    assert items.draw(7) == pytest.approx(items.drawn[7])
    # A head that wins for `few` must rise with the feature, though two in three members fall.
    plain = RankConfig(n_heads=2, ensemble=Ensemble.laplace)
    heads = fit_heads(features, build_basis(features, 1), pairs, plain).heads
    low, high = heads.predict(np.array([[1.0], [3.0]])).mean(axis=0)
    # Of two items none can be held out: the order stays, and tells next to nothing.
    assert high == pytest.approx(MIN_SHARE) and low == pytest.approx(-MIN_SHARE)


def test_a_store_serves_as_comparisons(embeddings: Path, tmp_path: Path) -> None:
    judge(60).to_csv(tmp_path / "answers.csv", index=False)
    import_files([tmp_path / "answers.csv"], tmp_path / "store.sqlite")
    out = rank([embeddings], tmp_path / "store.sqlite", tmp_path / "ranker", QUICK)
    assert load_ranker(out)[1]["n_comparisons"] > 50


def test_new_votes_are_seen_while_the_store_is_open(embeddings: Path, tmp_path: Path) -> None:
    """SQLite keeps them in its write-ahead log: the store's own file stays as it was."""
    store, out = tmp_path / "store.sqlite", tmp_path / "ranker"
    judge(60).to_csv(tmp_path / "answers.csv", index=False)
    import_files([tmp_path / "answers.csv"], store)
    rank([embeddings], store, out, QUICK)
    with Store(store) as server:
        bytes_before = store.read_bytes()
        server.add_tables([("comparison", [Comparison("late", A, B, "left")])])
        assert store.read_bytes() == bytes_before
        with pytest.raises(ArtifactError, match="another config or input"):
            rank([embeddings], store, out, QUICK)


def test_the_same_answers_in_another_file_are_the_same_input(
    embeddings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = judge(60)
    for name, table in (("one", answers), ("two", answers[::-1])):
        table.to_csv(tmp_path / f"{name}.csv", index=False)
        rank([embeddings], tmp_path / f"{name}.csv", tmp_path / "ranker", QUICK)
    assert "done already" in capsys.readouterr().err


HEADER = "annotator,left,right,outcome\n"
A, B, C = TILE_IDS[:3]


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        (f"a,{A},{B},left\na,{A},nowhere,left\na,elsewhere,{B},tie\n", "2 of 4 items.*'elsewhere'"),
        (f"a,{A},{B},skip\n", "nothing can be learned"),
        (f"a,{A},{B},tie\nb,{B},{C},tie\n", "every comparison is a tie"),
        (f"a,{A},{B},left\nb,{B},{A},left\nb,{B},{C},tie\n", "3 comparisons contradict"),
        (f"a,{A},{B},left\na,{B},{C},left\na,{C},{A},left\n", "3 comparisons contradict"),
        (f"a,{A},{A},left\n", "compared with itself"),
        ("", "answers"),
        (f"a,{A},{B},better\n", "outcome"),
    ],
    ids=["unknown", "skips", "ties", "even", "circle", "itself", "empty", "outcome"],
)
def test_unusable_comparisons_are_one_sentence(
    embeddings: Path, tmp_path: Path, answers: str, said: str
) -> None:
    (tmp_path / "answers.csv").write_text(HEADER + answers)
    with pytest.raises(ComparisonError, match=said):
        rank([embeddings], tmp_path / "answers.csv", tmp_path / "ranker", QUICK)
    assert [path.name for path in tmp_path.iterdir()] == ["answers.csv"]


def test_one_pair_of_items_is_enough(embeddings: Path, tmp_path: Path) -> None:
    (tmp_path / "answers.csv").write_text(f"{HEADER}a,{A},{B},left\n")
    out = rank([embeddings], tmp_path / "answers.csv", tmp_path / "ranker", QUICK)
    scores = load_ranker(out)[0].predict(MATRIX)
    assert np.isfinite(scores).all() and scores[:, 0].mean() > scores[:, 1].mean()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("tile_id,item\nnowhere.png@none,0\nelsewhere.png@none,1\n", "items are neither"),
        ("tile,cluster\na,1\n", "expected tile_id, item"),
        ("", "is empty"),
        ("tile_id,item\n", "items are neither"),
        (f"tile_id,item\n{A},\n{B},1\n", "item"),
    ],
    ids=["no embedded member", "columns", "empty file", "no row", "no name"],
)
def test_unusable_members_are_one_sentence(
    embeddings: Path, tmp_path: Path, content: str, said: str
) -> None:
    (tmp_path / "answers.csv").write_text("annotator,ordering\na,1>0\n")
    (tmp_path / "members.csv").write_text(content)
    with pytest.raises(ComparisonError, match=said):
        rank([embeddings], tmp_path / "answers.csv", tmp_path / "ranker", QUICK,
             members=tmp_path / "members.csv")  # fmt: skip
    assert not (tmp_path / "ranker").exists()


def test_missing_and_damaged_members_are_one_sentence(stages: Any, tmp_path: Path) -> None:
    with pytest.raises(ComparisonError, match="does not exist"):
        read_members(tmp_path / "nowhere.csv")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(ComparisonError, match="cannot be read"):
        read_members(tmp_path / "bad.parquet")
    (tmp_path / "binary.csv").write_bytes(b"tile_id,item\n\xff\xfe\x00,1\n")
    with pytest.raises(ComparisonError, match="line 2: byte 0xff is not UTF-8"):
        read_members(tmp_path / "binary.csv")
    with pytest.raises(ArtifactError, match="holds embeddings, expected clusters"):
        read_members(stages.embeddings)
    clusters = shutil.copytree(stages.clusters, tmp_path / "clusters")
    (clusters / "clusters.parquet").write_bytes(b"")
    with pytest.raises((ArtifactError, ComparisonError), match="clusters"):
        read_members(clusters)
    (clusters / "clusters.parquet").unlink()
    with pytest.raises((ArtifactError, ComparisonError), match="clusters"):
        read_members(clusters)


def test_names_match_after_leading_zeros(embeddings: Path, members: Path, tmp_path: Path) -> None:
    orderings = ("9>05>0", "009>5>000")
    found = []
    for number, ordering in enumerate(orderings):
        path = tmp_path / f"{number}.csv"
        path.write_text(f"annotator,ordering\na,{ordering}\n")
        rank([embeddings], path, tmp_path / f"r{number}", QUICK, members=members)
        found.append(load_ranker(tmp_path / f"r{number}")[0].parameters)
    assert np.array_equal(*found)


def test_embeddings_that_are_not_finite_are_refused(embeddings: Path, tmp_path: Path) -> None:
    spoilt = MATRIX.copy()
    spoilt[7, 3] = np.nan
    bad = write_embeddings(tmp_path / "embeddings", spoilt, TILE_IDS)
    judge(20).to_csv(tmp_path / "answers.csv", index=False)
    with pytest.raises(ArtifactError, match=f"not finite, first {TILE_IDS[7]}"):
        rank([bad], tmp_path / "answers.csv", tmp_path / "ranker", QUICK)
    assert not (tmp_path / "ranker").exists()


def test_constant_embeddings_tell_nothing_and_do_not_break_the_fit(tmp_path: Path) -> None:
    flat = write_embeddings(tmp_path / "embeddings", np.ones((N_TILES, DIM)), TILE_IDS)
    judge(50).to_csv(tmp_path / "answers.csv", index=False)
    with pytest.raises(EcofmError, match="no better than chance"):
        rank([flat], tmp_path / "answers.csv", tmp_path / "ranker", QUICK)
    out = rank([flat], tmp_path / "answers.csv", tmp_path / "ranker", QUICK, force=True)
    assert np.isfinite(load_ranker(out)[0].predict(MATRIX)).all()


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-8]),
        lambda path: path.write_bytes(b""),
        lambda path: path.unlink(),
    ],
)
def test_a_damaged_ranker_is_refused(
    stages: Any, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    out = shutil.copytree(stages.ranker, tmp_path / "ranker")
    damage(out / "ranker.safetensors")
    with pytest.raises(ArtifactError, match="ecofm rank"):
        load_ranker(out)
    with pytest.raises(ArtifactError, match="holds scores, expected ranker"):
        load_ranker(stages.scores)


@pytest.mark.parametrize("wrong", [{"n_heads": 1}, {"components": 0}, {"decays": []}])
def test_unusable_values_are_wrong_arguments(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="needed"):
        RankConfig(**wrong)
