"""The command line: exit codes by rule, one sentence, nothing half-written, quick to start."""

from __future__ import annotations

import json
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas as gpd
import pandas as pd
import pytest

from ecofm import __version__
from ecofm.cli import VERBS, build_app
from tests.command import run

Said = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def proxies(stages: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    cells = sorted(set(gpd.read_parquet(stages.scores / "scores.parquet")["cell_id"]))
    path = tmp_path_factory.mktemp("proxies") / "proxies.csv"
    pd.DataFrame({"cell_id": cells, "floor": range(len(cells))}).to_csv(path, index=False)
    return path


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom ecofm.cli import main\nmain(['--help'])\n"
        "heavy = {'torch', 'geopandas', 'pandas', 'rasterio', 'matplotlib', 'scipy', 'hydra'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    spent = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    assert done.stderr.strip() == "[]"
    assert all(verb in done.stdout for verb in (*VERBS, "compare"))
    # Processor time: the clock on the wall also shows what else the machine does.
    assert min(spent) < 1.0


def test_version_is_printed(capsys: Said) -> None:
    assert run("--version") == 0 and capsys.readouterr().out.strip() == __version__


@pytest.mark.parametrize(
    "verb", [*VERBS, *(f"compare {verb}" for verb in ("serve", "import", "export", "consensus"))]
)
def test_every_verb_has_help_with_defaults(verb: str, capsys: Said) -> None:
    assert run(*verb.split(), "--help") == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"Usage: ecofm {verb}") and "--" in shown
    assert "default" in shown or verb in ("show", "compare import", "compare export")


GOOD: dict[str, dict[str, str]] = {
    "pretrain": {"--archive": "archive"},
    "embed": {"--archive": "archive", "--encoder": "encoder"},
    "cluster": {"--embeddings": "embeddings", "--archive": "archive"},
    "rank": {"--embeddings": "embeddings", "--comparisons": "answers", "--clusters": "clusters"},
    "score": {"--embeddings": "embeddings", "--ranker": "ranker"},
    "change": {"--scores": "scores"},
    "benchmark": {"--scores": "scores", "--proxies": "proxies", "--archive": "archive"},
}
MORE = {
    "pretrain": ["--steps", "0"],
    "cluster": ["--k", "3"],
    "change": ["--from", "2019", "--to", "2020"],
}


def tokens_of(verb: str, stages: Any, table: Path, **changed: Path) -> list[str]:
    given = [verb]
    for flag, name in GOOD[verb].items():
        path = changed.get(flag[2:]) or (table if name == "proxies" else getattr(stages, name))
        given += [flag, str(path)]
    return given + MORE.get(verb, [])


def is_file(name: str) -> bool:
    return name in ("answers", "proxies")


def missing(source: Path, folder: Path) -> Path:
    return folder / "nowhere"


def empty(source: Path, folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


def empty_file(source: Path, folder: Path) -> Path:
    (folder / "empty.csv").write_bytes(b"")
    return folder / "empty.csv"


def another_stage(source: Path, folder: Path) -> Path:
    out = folder / "report"
    out.mkdir()
    (out / "manifest.json").write_text(
        '{"schema": 1, "stage": "report", "config": {}, "inputs": {}}'
    )
    return out


def edit_manifest(edit: Callable[[str], str]) -> Callable[[Path, Path], Path]:
    def fault(source: Path, folder: Path) -> Path:
        out = shutil.copytree(source, folder / "copy")
        inner = out / "encoder" if (out / "encoder").is_dir() else out
        manifest = inner / "manifest.json"
        manifest.write_text(edit(manifest.read_text()))
        return inner

    return fault


FOLDER_FAULTS: dict[str, Callable[[Path, Path], Path]] = {
    "missing": missing,
    "empty": empty,
    "another stage": another_stage,
    "another schema": edit_manifest(lambda text: json.dumps(json.loads(text) | {"schema": 99})),
    "unreadable manifest": edit_manifest(lambda text: text[: len(text) // 2]),
    "no manifest at all": edit_manifest(lambda text: "[]"),
    "binary manifest": edit_manifest(lambda text: "\0\1\2"),
    "bare manifest": edit_manifest(
        lambda text: json.dumps(
            {k: v for k, v in json.loads(text).items() if k in ("schema", "stage")}
        )
    ),
    "a file": empty_file,
}
FILE_FAULTS = {"missing": missing, "empty": empty, "empty file": empty_file}
CASES = [
    (verb, flag, fault)
    for verb, flags in GOOD.items()
    for flag, name in flags.items()
    for fault in (FILE_FAULTS if is_file(name) else FOLDER_FAULTS)
    # Of some stages' manifests nothing but stage and schema is needed.
    if not (fault == "bare manifest" and name in ("encoder", "clusters", "scores"))
]


@pytest.mark.parametrize(("verb", "flag", "fault"), CASES, ids=str)
def test_bad_input_ends_with_1_and_one_sentence(
    stages: Any, proxies: Path, tmp_path: Path, capsys: Said, verb: str, flag: str, fault: str
) -> None:
    name = GOOD[verb][flag]
    source = proxies if name == "proxies" else getattr(stages, name)
    inputs = tmp_path / "in"
    inputs.mkdir()
    spoilt = (FILE_FAULTS | FOLDER_FAULTS)[fault](source, inputs)
    tokens = tokens_of(verb, stages, proxies, **{flag[2:]: spoilt})
    assert run(*tokens, "--out", tmp_path / "out") == 1
    error = capsys.readouterr().err
    assert "Traceback" not in error
    last = error.strip().splitlines()[-1]
    assert last.startswith("error: ") and spoilt.name in last, error
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize("verb", GOOD)
def test_an_out_that_cannot_be_made_is_bad_data(
    stages: Any, proxies: Path, tmp_path: Path, capsys: Said, verb: str
) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.txt").write_text("mine")
    tokens = [*tokens_of(verb, stages, proxies)]
    if verb == "rank":
        tokens = tokens[:-2]
    for out in (tmp_path / "file" / "out", tmp_path / "file", tmp_path / "folder"):
        assert run(*tokens, "--out", out) == 1
        assert run(*tokens, "--out", out, "--overwrite") == 1
        error = capsys.readouterr().err
        assert "Traceback" not in error and error.strip().splitlines()[-1].startswith("error: ")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder", "thesis.txt"]
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("verb", GOOD)
def test_an_out_of_something_else_needs_overwrite(
    stages: Any, proxies: Path, tmp_path: Path, capsys: Said, verb: str
) -> None:
    out = another_stage(tmp_path, tmp_path)
    tokens = [*tokens_of(verb, stages, proxies), "--out", str(out)]
    if verb == "rank":
        del tokens[tokens.index("--clusters") : tokens.index("--clusters") + 2]
    before = (out / "manifest.json").read_text()
    assert run(*tokens) == 1
    error = capsys.readouterr().err
    assert "--overwrite" in error or "choose another --out" in error
    assert (out / "manifest.json").read_text() == before and len(list(tmp_path.rglob("*"))) == 2


@pytest.mark.parametrize(
    "tokens",
    [
        ["fly"],
        ["embed", "--archive", "a"],
        ["embed", "--archive", "a", "--encoder", "b", "--out", "c", "--nothing"],
        ["cluster", "--embeddings", "a", "--out", "b", "--k", "many"],
        ["cluster", "--embeddings", "a", "--out", "b", "--k", "1"],
        ["tile"],
        ["tile", "--out", "b"],
        ["tile", "a", "--out", "b", "--grid", "hex:7"],
        ["tile", "a", "--out", "b", "--period", "soon"],
        ["pretrain", "--archive", "a", "--out", "b", "--recipe", "nothing"],
        ["pretrain", "--archive", "a", "--out", "b", "--steps", "-1"],
        ["pretrain", "--archive", "a", "--out", "b", "--threads", "-1"],
        ["rank", "--embeddings", "a", "--comparisons", "b", "--out", "c", "--n-heads", "1"],
        ["rank", "--embeddings", "a", "--comparisons", "b", "--out", "c", "--members", "d",
         "--clusters", "e"],
        ["score", "--embeddings", "a", "--ranker", "b", "--out", "c", "stray"],
        ["change", "--scores", "a", "--from", "2019", "--out", "c"],
        ["benchmark", "--scores", "a", "--proxies", "b", "--out", "c", "--confidence", "7"],
        ["compare", "dream"],
        ["compare", "import", "--store", "a"],
        ["compare", "serve", "--store", "a"],
        ["compare", "serve", "--store", "a", "--clusters", "b", "--port", "high"],
        ["show"],
        ["demo", "--bogus"],
        ["tile", "a", "--out", "b", "--workers", "0"],
        ["cluster", "--embeddings", "a", "--out", "b", "--seed", "99999999999999"],
        ["rank", "--embeddings", "a", "--comparisons", "b", "--out", "c", "--seed", "-1"],
        ["rank", "--embeddings", "a", "--comparisons", "b", "--out", "c", "--decays", "nan"],
        ["benchmark", "--scores", "a", "--proxies", "b", "--out", "c", "--seed", "-1"],
        ["robustness", "--archive", "a", "--encoder", "b", "--ranker", "c", "--out", "d",
         "--seed", "-1"],
        ["transfer", "a", "--embeddings", "b", "--comparisons", "c", "--out", "d", "--seed", "-1"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_wrong_usage_ends_with_2(
    tokens: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Said
) -> None:
    monkeypatch.chdir(tmp_path)
    code = run(*tokens)
    error = capsys.readouterr()
    assert code == 2, error
    assert "Traceback" not in error.err and (error.err or error.out).strip()
    assert not list(tmp_path.iterdir())


def test_unknown_periods_are_told_the_known_ones(stages: Any, tmp_path: Path, capsys: Said) -> None:
    for periods in (("2019", "2030"), ("2030", "2020"), ("2019", "2019")):
        flags = ["--from", periods[0], "--to", periods[1]]
        assert run("change", "--scores", stages.scores, *flags, "--out", tmp_path / "out") in (1, 2)
        assert "20" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_unknown_items_name_the_flags_to_check(stages: Any, tmp_path: Path, capsys: Said) -> None:
    (tmp_path / "answers.csv").write_text("annotator,ordering\nada,7>8\n")
    assert (
        run("rank", "--embeddings", stages.embeddings, "--comparisons", tmp_path / "answers.csv",
            "--clusters", stages.clusters, "--out", tmp_path / "out") == 1
    )  # fmt: skip
    assert "check --members (or --clusters)" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["answers.csv"]


def test_left_out_tiles_are_counted_last_and_strict_makes_them_1(
    make_archive: Callable[..., Path],
    damage: Callable[[Path, int], str],
    stages: Any,
    tmp_path: Path,
    capsys: Said,
) -> None:
    archive = make_archive(tmp_path / "archive")
    damage(archive, 3)
    tokens = ["embed", "--archive", archive, "--encoder", stages.encoder, "--out", tmp_path / "out"]
    assert run(*tokens) == 0
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith("1 inputs were left out")
    assert run(*tokens, "--strict") == 1
    assert "error: 1 inputs were left out" in capsys.readouterr().err
    assert run("embed", "--archive", stages.archive, "--encoder", stages.encoder, "--out",
               tmp_path / "whole", "--strict") == 0  # fmt: skip


def test_an_unreadable_scene_is_left_out_and_strict_makes_it_1(
    tmp_path: Path, capsys: Said
) -> None:
    from PIL import Image

    chips = tmp_path / "chips"
    chips.mkdir()
    for name in "ab":
        Image.new("RGB", (32, 32), "green").save(chips / f"{name}.png")
    (chips / "c.png").write_bytes(b"no picture")
    tokens = ["tile", chips, "--grid", "none", "--out", tmp_path / "out"]
    assert run(*tokens) == 0
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith("1 inputs were left out")
    assert pd.read_parquet(tmp_path / "out" / "rejected.parquet")["path"].tolist() == ["c.png"]
    assert run(*tokens, "--strict") == 1


def test_a_broken_disk_is_one_sentence(
    stages: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Said
) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device", str(tmp_path / "out"))

    monkeypatch.setattr("ecofm.embed.np.lib.format.open_memmap", full)
    code = run(
        "embed", "--archive", stages.archive, "--encoder", stages.encoder, "--out", tmp_path / "out"
    )
    said = capsys.readouterr().err
    assert code == 1 and re.search(r"out cannot be written: the disk at .* is full", said)
    assert not list(tmp_path.iterdir())


def test_an_interrupt_ends_with_130_and_leaves_nothing(
    stages: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Said
) -> None:
    def stop(*args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ecofm.embed._embed_tiles", stop)
    code = run(
        "embed", "--archive", stages.archive, "--encoder", stages.encoder, "--out", tmp_path / "out"
    )
    assert code == 130 and "interrupted" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


# show takes every stage, and of a bare manifest what there is.
@pytest.mark.parametrize("fault", sorted({*FOLDER_FAULTS} - {"another stage", "bare manifest"}))
def test_show_refuses_what_it_cannot_show(
    stages: Any, tmp_path: Path, capsys: Said, fault: str
) -> None:
    spoilt = FOLDER_FAULTS[fault](stages.scores, tmp_path)
    code = run("show", spoilt)
    error = capsys.readouterr().err
    assert code == 1 and "Traceback" not in error and error.startswith("error: "), error
    assert not list(tmp_path.glob("*-pictures"))


def test_compare_verbs_refuse_missing_files(tmp_path: Path, capsys: Said) -> None:
    store, out = tmp_path / "store.sqlite", tmp_path / "out.csv"
    for tokens in (
        ["import", tmp_path / "nowhere.csv", "--store", store],
        ["export", "--store", store, "--out", out],
        ["consensus", "--store", store, "--out", out],
        ["serve", "--clusters", tmp_path / "nowhere", "--store", store],
        ["serve", "--archive", tmp_path / "nowhere", "--store", store],
    ):
        assert run("compare", *tokens) == 1, tokens
        error = capsys.readouterr().err
        assert error.startswith("error: ") and "Traceback" not in error
    assert not list(tmp_path.iterdir())


def test_demo_refuses_a_folder_without_mosaics(tmp_path: Path, capsys: Said) -> None:
    (tmp_path / "data").mkdir()
    for data in (tmp_path / "nowhere", tmp_path / "data"):
        assert run("demo", "--data", data, "--out", tmp_path / "out") == 1
        assert capsys.readouterr().err.startswith("error: ")
    assert not (tmp_path / "out").exists()


def test_the_app_knows_every_verb() -> None:
    assert set(build_app()) >= {*VERBS, "compare"}
