"""Recipes for people without Hydra: the same YAML differences, read onto the same dataclasses."""

from __future__ import annotations

import dataclasses
from enum import Enum
from pathlib import Path
from typing import Any

import yaml

from ecofm.errors import UsageError
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
    try:
        fields = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise UsageError(f"{path} is no YAML ({' '.join(str(error).split())}).") from error
    if not isinstance(fields, dict):
        raise UsageError(f"{path} holds {type(fields).__name__}, expected names and values.")
    config = PretrainConfig()
    for default in fields.pop("defaults", []):
        if isinstance(default, dict) and "override /method" in default:
            method = default["override /method"]
            if method not in METHODS:
                raise UsageError(f"method {method!r} is not known; choose {' or '.join(METHODS)}.")
            config.method = METHODS[method]()
    applied: PretrainConfig = _apply(config, fields)
    return applied


def _apply(config: Any, fields: Any) -> Any:
    """Return the dataclass with some fields replaced; ValueError for a wrong name or type."""
    kind = type(config).__name__
    if not isinstance(fields, dict):
        raise UsageError(f"{kind} is given {fields!r}, expected names and values.")
    changes = {}
    for name, value in fields.items():
        if name not in {field.name for field in dataclasses.fields(config)}:
            raise UsageError(f"{kind} has no field {name!r}.")
        old = getattr(config, name)
        if dataclasses.is_dataclass(old):
            changes[name] = _apply(old, value)
        elif isinstance(old, Enum):
            try:
                changes[name] = type(old)(value)
            except ValueError as error:
                known = ", ".join(str(member.value) for member in type(old))
                raise UsageError(f"{kind}.{name} is {value!r}, expected {known}.") from error
        elif old is None and type(value) is int:  # a limit that is not set
            changes[name] = value
        elif type(value) is type(old) or (isinstance(old, float) and type(value) is int):
            changes[name] = type(old)(value)
        else:
            raise UsageError(f"{kind}.{name} is {value!r}, expected {type(old).__name__}.")
    return dataclasses.replace(config, **changes)
