"""`ecofm rank` at the command line: what it refuses, marks, warns of, and says at the end."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from ecofm.artifact import MANIFEST, read_manifest, write_sealed
from ecofm.rank.evidence import FEW_ANSWERS
from ecofm.rank.opening import load_ranker
from ecofm.rank.run import rank
from tests.command import run
from tests.unit.rank.test_evidence import COLUMNS, QUICK, vote
from tests.unit.rank.test_rank import MATRIX, TILE_IDS, write_embeddings


@pytest.fixture(scope="module")
def embeddings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_embeddings(tmp_path_factory.mktemp("evidence") / "e", MATRIX, TILE_IDS)


def test_random_votes_are_refused_and_force_marks_what_it_writes(
    embeddings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vote(100, 5, guess=1).to_csv(tmp_path / "votes.csv", index=False)
    out = tmp_path / "ranker"
    call = ["rank", "--embeddings", embeddings, "--comparisons", tmp_path / "votes.csv",
            "--out", out, "--n-heads", 3]  # fmt: skip
    assert run(*call) == 1
    said = capsys.readouterr().err
    assert "no better than chance" in said and "--force" in said and "the higher score won" in said
    assert not out.exists()
    assert run(*call, "--force") == 0
    last = capsys.readouterr().err.splitlines()[-1]
    assert "no better than chance" in last and "--force" in last
    assert read_manifest(out, "ranker")["evidence"]["verdict"] == "no better than chance"
    assert run(*call) == 1 and "no better than chance" in capsys.readouterr().err
    scores = tmp_path / "scores"
    assert run("score", "--embeddings", embeddings, "--ranker", out, "--out", scores) == 0
    assert "no better than chance" in capsys.readouterr().err
    found = pd.read_parquet(scores / "scores.parquet")
    assert found["score"].std() < 0.1 and (found["upper"] - found["lower"]).median() > 3
    for path in (out, scores):
        assert run("show", path, "--out", tmp_path / "p") == 0
        assert "no better than chance" in capsys.readouterr().err, path


def test_the_last_lines_the_manifest_and_the_calibration_say_the_same(
    embeddings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vote(150).to_csv(tmp_path / "votes.csv", index=False)
    out = tmp_path / "ranker"
    assert run("rank", "--embeddings", embeddings, "--comparisons", tmp_path / "votes.csv",
               "--out", out, "--n-heads", 3) == 0  # fmt: skip
    lines = capsys.readouterr().err.splitlines()
    evidence = read_manifest(out, "ranker")["evidence"]
    rate, known = evidence["new_places"], evidence["one_known_place"]
    assert lines[-2].startswith(f"On {rate['n']} comparisons of places that it had not seen by")
    assert f"won {rate['won']:.0%} [{rate['lower']:.0%}, {rate['upper']:.0%}]" in lines[-2]
    assert "chance is 50%" in lines[-2]
    assert f"won {known['won']:.0%}" in lines[-1] and lines[-1].startswith(f"On {known['n']} of")
    assert f"alone named the winner of {evidence['consensus_alone']:.0%}" in lines[-1]
    table = pd.read_csv(out / "calibration.csv").set_index("comparisons")
    assert table.loc["two new places", "won"] == pytest.approx(rate["won"])
    assert table.loc["a new place and a known one", "n"] == known["n"]
    alone = table.loc["the same by the consensus alone", "won"]
    assert alone == pytest.approx(evidence["consensus_alone"])
    assert len(table.loc["two new places, by gap"]) == 5


def test_few_people_items_and_answers_are_warned_of(
    embeddings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for n, people, expected in (
        (12, 1, ["1 annotator(s) (at least 3)", "12 answer(s)"]),
        (FEW_ANSWERS - 1, 3, [f"{FEW_ANSWERS - 1} answer(s) (at least {FEW_ANSWERS})"]),
        (FEW_ANSWERS, 3, []),
    ):
        vote(n, people=people).to_csv(tmp_path / "votes.csv", index=False)
        rank([embeddings], tmp_path / "votes.csv", tmp_path / f"r{n}", QUICK)
        said = capsys.readouterr().err
        assert all(part in said for part in expected) and ("stand behind" in said) == bool(expected)
    few = [("a", TILE_IDS[i], TILE_IDS[j], "left") for i in range(4) for j in range(i)]
    pd.DataFrame(few, columns=COLUMNS).to_csv(tmp_path / "few.csv", index=False)
    rank([embeddings], tmp_path / "few.csv", tmp_path / "few", QUICK)
    assert "4 item(s) (at least 10)" in capsys.readouterr().err
    assert read_manifest(tmp_path / "few", "ranker")["evidence"]["verdict"].startswith("too few")


def test_a_ranker_from_before_still_loads_and_says_nothing(
    embeddings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vote(100).to_csv(tmp_path / "votes.csv", index=False)
    out = rank([embeddings], tmp_path / "votes.csv", tmp_path / "ranker", QUICK)
    manifest = json.loads((out / MANIFEST).read_text())
    for name in ("evidence", "tiles", "residual_limit", "residual_tilt"):
        del manifest[name]
    write_sealed(out / MANIFEST, manifest)
    heads, _ = load_ranker(out)
    assert heads.residual is not None and heads.residual.tilt == 0 and heads.residual.limit == 2
    capsys.readouterr()
    scores = tmp_path / "scores"
    assert run("score", "--embeddings", embeddings, "--ranker", out, "--out", scores) == 0
    assert run("show", out, "--out", tmp_path / "p") == 0
    assert "warning" not in capsys.readouterr().err
