"""Recipes for people without Hydra: the same YAML differences, read onto the same dataclasses."""

from __future__ import annotations

import dataclasses
from enum import Enum
from pathlib import Path
from typing import Any

import yaml

from ecofm.pretrain.methods import MethodConfig, MoCoConfig, SimCLRConfig
from ecofm.pretrain.run import PretrainConfig

METHODS: dict[str, type[MethodConfig]] = {"simclr": SimCLRConfig, "moco": MoCoConfig}
PACKAGE = Path(__file__).parent


def recipe_folder() -> Path:
    """Return where the recipes lie: inside the wheel, or configs/ of a checkout."""
    packed = PACKAGE / "recipes"
    return packed if packed.is_dir() else PACKAGE.parent / "configs" / "recipe"


def read_recipe(name: str) -> PretrainConfig:
    """Return the config of a named recipe; raises ValueError when there is none of this name."""
    names = sorted(path.stem for path in recipe_folder().glob("*.yaml"))
    if name not in names:
        raise ValueError(f"recipe {name!r} is not known; there are: {', '.join(names)}.")
    fields = yaml.safe_load((recipe_folder() / f"{name}.yaml").read_text(encoding="utf-8"))
    config = PretrainConfig()
    for default in fields.pop("defaults", []):
        if isinstance(default, dict) and "override /method" in default:
            config.method = METHODS[default["override /method"]]()
    return _apply(config, fields)


def _apply(config: Any, fields: dict[str, Any]) -> Any:
    """Return the dataclass with some fields replaced; raises ValueError for a wrong name."""
    changes = {}
    for name, value in fields.items():
        if name not in {field.name for field in dataclasses.fields(config)}:
            raise ValueError(f"{type(config).__name__} has no field {name!r}.")
        old = getattr(config, name)
        if dataclasses.is_dataclass(old):
            changes[name] = _apply(old, value)
        else:
            changes[name] = type(old)(value) if isinstance(old, Enum | float) else value
    return dataclasses.replace(config, **changes)
