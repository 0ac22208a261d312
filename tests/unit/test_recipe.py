"""Recipes read without Hydra; that they equal what Hydra composes is tested in train/."""

from __future__ import annotations

from pathlib import Path

import pytest

from ecofm import recipe as recipe_module
from ecofm.pretrain.methods import MoCoConfig
from ecofm.pretrain.run import PretrainConfig
from ecofm.recipe import read_recipe, recipe_folder
from ecofm.tiles.pairs import PairConfig, Season

NAMES = sorted(path.stem for path in recipe_folder().glob("*.yaml"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(recipe_module, "recipe_folder", lambda: tmp_path)
    return tmp_path


def test_the_base_recipe_changes_nothing() -> None:
    assert "base" in NAMES and read_recipe("base") == PretrainConfig()


@pytest.mark.parametrize("name", NAMES)
def test_every_header_says_command_cost_and_metric(name: str) -> None:
    text = (recipe_folder() / f"{name}.yaml").read_text()
    for word in ("command:", "cost:", "metric:"):
        assert any(line.startswith("#") and word in line for line in text.splitlines()), word


def test_unknown_recipes_are_told_the_known_ones() -> None:
    for wrong in ("nothing", "../base", "base.yaml", ""):
        with pytest.raises(ValueError, match=r"there are: .*base"):
            read_recipe(wrong)


def test_differences_land_in_their_fields(folder: Path) -> None:
    (folder / "mine.yaml").write_text(
        "defaults:\n  - override /method: moco\nsteps: 7\nlearning_rate: 1\n"
        "encoder: {normalization: tile, width: 2}\nmethod: {queue: 64}\n"
        "pairs: {season: same, max_gap_days: 400}\n"
    )
    found = read_recipe("mine")
    assert isinstance(found.method, MoCoConfig) and found.method.queue == 64
    assert (
        found.steps == 7 and found.learning_rate == 1.0 and isinstance(found.learning_rate, float)
    )
    assert found.encoder.normalization.value == "tile" and found.encoder.width == 2.0
    assert found.views == PretrainConfig().views
    assert found.pairs == PairConfig(season=Season.same, max_gap_days=400)


@pytest.mark.parametrize(
    "text",
    ["stepps: 3", "encoder: {depth: 3}", "encoder: 3", "encoder: {normalization: none}",
     "steps: many", "steps: -1", "steps: 1.5", "- steps", "steps: [1", "views: {size_px: 2}",
     "pairs: {season: winter}", "pairs: {max_gap_days: many}", "pairs: {min_valid_share: 2.0}",
     "defaults:\n  - override /method: guess\nsteps: 3"],
)  # fmt: skip
def test_wrong_keys_and_types_are_wrong_usage(folder: Path, text: str) -> None:
    (folder / "mine.yaml").write_text(text + "\n")
    with pytest.raises(ValueError, match=r"."):
        read_recipe("mine")


def test_an_empty_recipe_is_the_base(folder: Path) -> None:
    (folder / "mine.yaml").write_text("# nothing but words\n")
    assert read_recipe("mine") == PretrainConfig()
