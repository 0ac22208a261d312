"""Recipes for people without Hydra: the same YAML differences, read onto the same dataclasses."""

from __future__ import annotations

from pathlib import Path

from ecofm.errors import UsageError
from ecofm.fields import read_fields, read_yaml
from ecofm.pretrain.methods import METHODS
from ecofm.pretrain.run import PretrainConfig

PACKAGE = Path(__file__).parent


def recipe_folder() -> Path:
    """Return where the recipes lie: inside the wheel, or configs/ of a checkout."""
    packed = PACKAGE / "recipes"
    return packed if packed.is_dir() else PACKAGE.parent / "configs" / "recipe"


def read_recipe(name: str) -> PretrainConfig:
    """Return the config of a named recipe; raises ValueError when there is none of this name."""
    names = sorted(path.stem for path in recipe_folder().glob("*.yaml"))
    if name not in names:
        raise UsageError(f"recipe {name!r} is not known; there are: {', '.join(names)}.")
    path = recipe_folder() / f"{name}.yaml"
    fields = read_yaml(path) or {}
    if not isinstance(fields, dict):
        raise UsageError(f"{path} holds {type(fields).__name__}, expected names and values.")
    config = PretrainConfig()
    for default in fields.pop("defaults", []):
        if isinstance(default, dict) and "override /method" in default:
            method = default["override /method"]
            if method not in METHODS:
                raise UsageError(f"method {method!r} is not known; choose {' or '.join(METHODS)}.")
            config.method = METHODS[method]()
    try:
        return read_fields(PretrainConfig, fields, base=config)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error
