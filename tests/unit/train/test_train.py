"""Hydra's door: every config composes and takes a step, wrong ones are refused when composed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import pandas as pd
import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException, MissingConfigException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

import ecofm
from ecofm.pretrain.methods import METHODS
from ecofm.pretrain.run import PretrainConfig, RunConfig
from ecofm.rank.finetune import FinetuneConfig
from ecofm.rank.heads import RankConfig
from ecofm.rank.opening import load_ranker
from ecofm.recipe import read_recipe, recipe_folder
from ecofm.tiles.loader import PairLoader
from ecofm.tiles.pairs import PairConfig, Season
from train import finetune, pretrain, rank
from train.config import CONFIGS, pick, to_entry, to_paths
from train.door import at_the_door

ROOT = Path(CONFIGS).parent
RECIPES = sorted(path.stem for path in (Path(CONFIGS) / "recipe").glob("*.yaml"))
ENTRIES = sorted(path.stem for path in Path(CONFIGS).glob("*.yaml") if path.stem != "entry")
# Whatever a recipe asks for, in a size for a test.
SMALL = [
    "steps=1", "batch_size=4", "warmup_steps=1", "encoder.width=1", "views.size_px=32",
    "encoder.backbone=resnet10t", "threads=0", "accelerator=cpu", "torch_threads=1",
]  # fmt: skip


@pytest.fixture(autouse=True)
def composer() -> Iterator[None]:
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(CONFIGS, version_base="1.3"):
        yield


def compose(entry: str, *overrides: str) -> DictConfig:
    config = hydra.compose(entry, list(overrides), return_hydra_config=True)
    HydraConfig.instance().set_config(config)
    del config.__dict__["_content"]["hydra"]
    return config


def run(module: Any, entry: str, *overrides: str) -> None:
    """What `python -m train.ENTRY OVERRIDES` does, in this process."""
    module.main.__wrapped__(compose(entry, *overrides))


def test_there_is_a_test_for_every_entry() -> None:
    assert ENTRIES == ["finetune", "pretrain", "rank"]
    assert recipe_folder() == Path(CONFIGS) / "recipe" and "base" in RECIPES


def test_the_choice_of_pairs_reaches_the_loader(
    stages: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    asked = []

    def remember(*args: Any, **options: Any) -> PairLoader:
        asked.append(options["pairs"])
        return PairLoader(*args, **options)

    monkeypatch.setattr("ecofm.pretrain.module.PairLoader", remember)
    run(pretrain, "pretrain", f"archive={stages.archive}", f"out={tmp_path / 'run'}", *SMALL,
        "pairs.min_gap_days=50000", "pairs.season=other", "pairs.min_valid_share=0.01")  # fmt: skip
    expected = PairConfig(min_gap_days=50000, season=Season.other, min_valid_share=0.01)
    assert asked == [expected]
    assert "no cell has two periods that may be paired" in capsys.readouterr().err
    manifest = json.loads((tmp_path / "run" / "encoder" / "manifest.json").read_text())
    assert manifest["config"]["pairs"]["season"] == "other"


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_takes_a_step(recipe: str, stages: Any, tmp_path: Path) -> None:
    run(pretrain, "pretrain", f"archive={stages.archive}", f"out={tmp_path / 'run'}",
        f"recipe={recipe}", *SMALL)  # fmt: skip
    ecofm.load_encoder(tmp_path / "run")
    manifest = json.loads((tmp_path / "run" / "encoder" / "manifest.json").read_text())
    assert manifest["recipe"] == recipe
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_reads_the_same_without_hydra(recipe: str) -> None:
    entry = to_entry(compose("pretrain", "archive=a", "out=b", f"recipe={recipe}"))
    assert pick(entry, PretrainConfig) == read_recipe(recipe)
    assert pick(entry, RunConfig) == RunConfig()


def test_the_defaults_are_those_of_the_dataclasses() -> None:
    entry = to_entry(compose("rank", "embeddings=a", "comparisons=b", "out=c"))
    assert pick(entry, RankConfig) == RankConfig()
    entry = to_entry(compose("finetune", "archive=a", "encoder=b", "comparisons=c", "out=d"))
    assert pick(entry, FinetuneConfig) == FinetuneConfig()


@pytest.mark.parametrize("method", sorted(METHODS))
def test_methods_are_a_group(method: str, stages: Any, tmp_path: Path) -> None:
    more = ["method.queue=16"] if method == "moco" else []
    archives = f"archive=[{stages.archive},{stages.archive}]"
    run(pretrain, "pretrain", archives, f"out={tmp_path}/run", f"method={method}", *SMALL, *more)
    plain = json.loads((tmp_path / "run" / "run.json").read_text())
    assert plain["config"]["method"]["name"] == method
    assert sorted(plain["inputs"]) == ["archive0", "archive1"]


def test_rank_takes_several_embeddings(stages: Any, tmp_path: Path) -> None:
    run(rank, "rank", f"embeddings=[{stages.embeddings}]", f"comparisons={stages.answers}",
        f"out={tmp_path}/ranker", "n_heads=2", "decays=[0.01,0.1]", "head=gp",
        "loss=set_to_set", "ensemble=laplace")  # fmt: skip
    config = load_ranker(tmp_path / "ranker")[1]["config"]
    assert config["decays"] == [0.01, 0.1] and config["head"] == "gp"
    assert config["loss"] == "set_to_set" and config["ensemble"] == "laplace"


def test_force_writes_what_rank_refuses(stages: Any, tmp_path: Path) -> None:
    answers = pd.read_csv(stages.answers)
    random = np.random.default_rng(3)
    names = np.unique(answers[["left", "right"]])
    rows = [("a", *random.choice(names, 2, replace=False), random.choice(["left", "right"]))
            for _ in range(100)]  # fmt: skip
    pd.DataFrame(rows, columns=answers.columns).to_csv(tmp_path / "votes.csv", index=False)
    tokens = [f"embeddings={stages.embeddings}", f"comparisons={tmp_path}/votes.csv",
              f"out={tmp_path}/ranker", "n_heads=2"]  # fmt: skip
    with pytest.raises(SystemExit):
        run(rank, "rank", *tokens)
    assert not (tmp_path / "ranker").exists()
    run(rank, "rank", *tokens, "force=true")
    assert load_ranker(tmp_path / "ranker")[1]["evidence"]["verdict"] == "no better than chance"


def test_finetune_takes_a_step(stages: Any, tmp_path: Path) -> None:
    run(finetune, "finetune", f"archive={stages.archive}", f"encoder={stages.encoder}",
        f"comparisons={stages.answers}", f"out={tmp_path}/out", "steps=1", "pairs=2",
        "views.size_px=32", "trained=all", "rank.n_heads=2")  # fmt: skip
    ecofm.load_encoder(tmp_path / "out")
    load_ranker(tmp_path / "out" / "ranker")


@pytest.mark.parametrize("value", ["a", ["a"], [Path("a")]])
def test_one_folder_or_several(value: Any) -> None:
    assert to_paths(value) == [Path("a")]


WRONG = [
    ("pretrain", "stepps=3"),
    ("pretrain", "steps=many"),
    ("pretrain", "steps=1.5"),
    ("pretrain", "encoder.depth=3"),
    ("pretrain", "encoder.normalization=none"),
    ("pretrain", "recipe=nothing"),
    ("pretrain", "method=guess"),
    ("pretrain", "method.queue=16"),
    ("pretrain", "wandb.mode=loud"),
    ("rank", "n_heads=some"),
    ("rank", "heads=3"),
    ("finetune", "trained=first"),
    ("finetune", "rank.nothing=1"),
]


@pytest.mark.parametrize(("entry", "wrong"), WRONG, ids=[wrong for _, wrong in WRONG])
def test_wrong_keys_and_types_fail_when_composed(entry: str, wrong: str) -> None:
    refusals = (ConfigCompositionException, MissingConfigException, OmegaConfBaseException)
    with pytest.raises(refusals):
        compose(entry, wrong)


@pytest.mark.parametrize(
    ("entry", "module"), [("pretrain", pretrain), ("rank", rank), ("finetune", finetune)]
)
def test_what_must_be_given_is_named(
    entry: str, module: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(module, entry)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize(
    ("overrides", "code", "said"),
    [
        (["archive=/nowhere"], 1, "/nowhere does not exist"),
        (["steps=-1"], 2, "steps >= 0"),
        (["encoder.backbone=no_such_net"], 2, "no_such_net"),
        (["views.size_px=2"], 2, "size_px"),
        (["pairs.same_period_share=2"], 2, "same_period_share"),
        (["pairs.min_gap_days=9", "pairs.max_gap_days=8"], 2, "no gap is from 9 to 8 days"),
        (["accelerator=abacus"], 2, "abacus"),
        (["precision=7"], 2, "7"),
        (["strategy=none_such"], 2, "none_such"),
        (["batch_size=4", "threads=-1"], 2, "threads"),
        (["checkpoint_every=0"], 2, "checkpoint_every"),
        (["log_every=0"], 2, "log_every"),
        (["archive=[]"], 2, "archive=[]"),
        (["archive=3"], 1, "3 does not exist"),
    ],
    ids=str,
)
def test_bad_data_is_1_and_wrong_values_2(
    stages: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    overrides: list[str], code: int, said: str,
) -> None:  # fmt: skip
    base = [f"archive={stages.archive}", f"out={tmp_path}/run", *SMALL]
    with pytest.raises(SystemExit) as ended:
        run(pretrain, "pretrain", *base, *overrides)
    assert ended.value.code == code
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", [AssertionError, ValueError, KeyError, RuntimeError])
def test_a_bug_is_written_down(
    kind: type[Exception], tmp_path: Path, monkeypatch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))

    @at_the_door
    def broken(config: DictConfig) -> None:
        raise kind("ours")

    with pytest.raises(SystemExit) as ended:
        broken(DictConfig({}))
    (written,) = tmp_path.rglob("*.txt")
    error = capsys.readouterr().err
    assert ended.value.code == 70 and str(written) in error and "Traceback" not in error
    assert f"{kind.__name__}: " in written.read_text()


@pytest.mark.parametrize(
    ("override", "said"),
    [("heads=3", "heads"), ("n_heads=some", "n_heads"), ("head=guess", "guess"),
     ("comparisons", "comparisons"), ("out=d", "out"), ("target=t", "comparisons=FILE or target")],
)  # fmt: skip
def test_what_cannot_be_composed_ends_the_process_with_2_and_a_sentence(
    override: str, said: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "train.rank", "embeddings=a", "comparisons=b", override]
    more = [] if override == "out=d" else ["out=c"]
    if override == "out=d":
        more = ["out=???"]
    done = subprocess.run(
        [*command, *more], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and line.startswith("error: ") and said in line, done.stderr
    assert not list(tmp_path.iterdir())


def test_the_id_at_wandb_is_the_runs_own_and_stays_after_a_requeue(tmp_path: Path) -> None:
    def find(out: str, *more: str) -> str:
        return pretrain.wandb_id(to_entry(compose("pretrain", "archive=a", f"out={out}", *more)))

    first = find(f"{tmp_path}/one/run")
    assert first.startswith("run-") and first == find(f"{tmp_path}/one/../one/run", "threads=7")
    assert first == find(f"{tmp_path}/one/run", "steps=9000")  # it may grow longer
    others = [
        find(f"{tmp_path}/two/run"),
        find(f"{tmp_path}/one/run", "seed=1"),
        find(f"{tmp_path}/one/run", "method=byol"),
    ]
    assert len({first, *others}) == 4
    assert not set("/#?%:\\ ") & set(find(f"'{tmp_path}/a: #1'"))


def test_wandb_is_off_by_default_and_offline_stays_in_out(
    stages: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slow: wandb starts a process of its own."""
    entry = to_entry(compose("pretrain", "archive=a", f"out={tmp_path}/run"))
    assert pretrain.build_loggers(entry) == []
    for name in ("WANDB_DIR", "WANDB_MODE", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    run(pretrain, "pretrain", f"archive={stages.archive}", f"out={tmp_path}/run",
        "wandb.mode=offline", "log_every=1", *SMALL)  # fmt: skip
    import wandb

    wandb.finish()
    ecofm.load_encoder(tmp_path / "run")
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert (tmp_path / "run" / "metrics.jsonl").is_file()
