"""Configs that were written to do harm or by a clumsy hand: a sentence and code 1 or 2, no more."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

from train import pretrain
from train.door import enter

BASE = ["archive=a", "out=b"]
CALL = "_target_=os.system"
TOKENS: dict[str, list[str]] = {
    "a call in the method": ["method._target_=os.system"],
    "a call put into the method": ["+method._target_=os.system"],
    "a call for the archive": ["archive={_target_:os.system,_args_:[touch bang]}"],
    "a call in Hydra's callbacks": [
        "+hydra.callbacks.x._target_=pathlib.Path.touch", "+hydra.callbacks.x._args_=[bang]",
    ],
    "a call for the launcher": [f"hydra.launcher.{CALL}", "-m"],
    "a call for the sweeper": [f"hydra.sweeper.{CALL}", "-m"],
    "a call inside the launcher": [f"+hydra.launcher.x.{CALL}", "-m"],
    "variables for others": ["+hydra.job.env_set.PYTHONSTARTUP=x"],
    "a logger that is code": ["+hydra.job_logging.formatters.x={'()':os.getcwd}"],
    "logging that is Hydra's": ["hydra/job_logging=default"],
    "a package of configs": ["hydra.searchpath=[pkg://evil]"],
    "another folder of configs": ["--config-path=/tmp"],
    "another config": ["--config-name=x"],
    "a folder that is none": ["--config-dir=/no/such/folder"],
    "a variable that is not set": ["out=${oc.env:NO_SUCH_VARIABLE}"],
    "a resolver that is none": ["out=${nothing:x}"],
    "the time as a number": ["steps=${now:%Y}x"],
    "a value of nothing": ["out=${nowhere}"],
    "a value of itself": ["out=${out}"],
    "two values of each other": ["seed=${steps}", "steps=${seed}"],
    "half a value": ["out=${"],
    "half a list": ["archive=[a"],
    "half a quotation": ["out='b"],
    "an empty name": ["=3"],
    "a lone plus": ["+"],
    "a name twice": ["+steps=3"],
    "a name that is none": ["stepps=3"],
    "a name put in": ["+stepps=3"],
    "a name taken out": ["~steps"],
    "a group taken out": ["~method"],
    "a group that is none": ["+nothing/else=3"],
    "text for a number": ["steps=many"],
    "a list for a number": ["steps=[1]"],
    "a table for a number": ["steps={a:1}"],
    "nothing for a number": ["steps=null"],
    "a fraction for a count": ["steps=1.5"],
    "text for a switch": ["overwrite=perhaps"],
    "a number that is none": ["learning_rate=nan"],
    "a number without end": ["views.max_zoom=inf"],
    "a share that is none": ["views.haze=7"],
    "a temperature of 0": ["method.temperature=0"],
    "a width below 0": ["method.hidden_dim=-1"],
    "a warm-up below 0": ["warmup_steps=-1"],
    "no devices": ["devices=0"],
    "a table for the folder": ["archive={a:b}"],
    "no folder": ["archive=null"],
    "nothing for the folder": ["out=null"],
    "a missing value": ["out=???"],
    "an option that is none": ["--nothing"],
    "resolving nothing": ["--resolve"],
    "two things at once": ["-m", "--cfg=job"],
    "a recipe outside": ["recipe=../pretrain"],
    "a recipe of a list": ["recipe=[base]"],
    "a control character": ["out=a\x01b", "steps=x"],
}  # fmt: skip
GLOBAL = "# @package _global_\n"
RECIPES: dict[str, str] = {
    "callbacks": "hydra:\n  callbacks:\n    x: {_target_: pathlib.Path.touch, _args_: [bang]}\n",
    "callbacks of a group": "defaults: [{override /hydra/callbacks: x}]\n",
    "logging": "hydra: {job_logging: {formatters: {x: {'()': os.getcwd}}, version: 1}}\n",
    "Hydra's own logging": "hydra:\n  hydra_logging:\n    handlers: {x: {class: os.system}}\n",
    "variables": "hydra: {job: {env_set: {PYTHONSTARTUP: x}}}\n",
    "a launcher": "hydra: {launcher: {_target_: os.system}}\n",
    "a place for configs": "hydra: {searchpath: ['pkg://evil']}\n",
    "a call": "method: {_target_: os.system}\n",
    "a call for everything": "_target_: os.system\n",
    "a tag of Python": "steps: !!python/object/apply:os.system ['touch bang']\n",
    "a tag that is none": "steps: !nothing 3\n",
    "no YAML": "steps: [1\n",
    "a list": "- steps\n",
    "text": "steps\n",
    "a number": "3\n",
    "deep": "a: " + "[" * 3000 + "\n",
    "an anchor of itself": "views: &a {gain: *a}\n",
    "a name twice": "steps: 1\nsteps: 2\n",
    "bytes": "steps: \udcff\n",
    "defaults that are none": "defaults: 3\n",
    "defaults of defaults": "defaults: [mine]\n",
    "a variable": "seed: ${oc.env:NO_SUCH_VARIABLE}\n",
    "a name that is none": "stepps: 3\n",
    "text for a number": "steps: many\n",
    "a date for a number": "steps: 2019-01-01\n",
}


def start(*tokens: str) -> int:
    """Return the exit code of `python -m train.pretrain TOKENS`, run in this process."""
    GlobalHydra.instance().clear()
    # argparse takes what is no option in one piece.
    options, values = (
        [t for t in tokens if t.startswith("-") is wanted] for wanted in (True, False)
    )
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "argv", ["train/pretrain.py", *options, *BASE, *values])
        patched.setenv("HYDRA_FULL_ERROR", "1")
        try:
            enter(pretrain.main)
        except SystemExit as ended:
            return int(ended.code or 0)
    return 0


def require_refusal(tokens: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = set(folder.rglob("*"))
    code, said = start(*tokens), capsys.readouterr().err.splitlines()
    assert code in (1, 2), f"code {code}: {said[-3:]}"
    # argparse says its own, with the usage before.
    errors = [line for line in said if "error: " in line]
    assert len(errors) == 1 and errors[0] == said[-1], said
    assert "Traceback" not in errors[0] and "fault of ecofm" not in errors[0]
    assert set(folder.rglob("*")) == before, "something was written"


@pytest.mark.parametrize("name", TOKENS)
def test_what_is_no_config_is_refused_in_a_sentence(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    require_refusal(TOKENS[name], tmp_path, capsys)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_from_elsewhere_runs_nothing(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "recipe").mkdir()
    data = (GLOBAL + RECIPES[name]).encode(errors="surrogateescape")
    (tmp_path / "recipe" / "mine.yaml").write_bytes(data)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    require_refusal([f"--config-dir={tmp_path}", "recipe=mine"], tmp_path, capsys)


def test_a_recipe_of_ones_own_is_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "recipe").mkdir()
    (tmp_path / "recipe" / "mine.yaml").write_text(GLOBAL + "steps: 7\nencoder: {words: 0}\n")
    monkeypatch.chdir(tmp_path)
    assert start(f"--config-dir={tmp_path}", "recipe=mine", "--cfg=job") == 0
    assert "steps: 7" in capsys.readouterr().out
