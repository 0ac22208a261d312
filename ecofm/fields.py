"""Typed reading: the dataclass that a document of names and values stands for.

Whatever comes from a file that somebody else may have written (a config, a manifest, a recipe) is
read through here: every name, type and number is checked before anything is built from it.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import reprlib
import types
import typing
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

import yaml

from ecofm.errors import UsageError
from ecofm.files import read_file, reason_of

T = TypeVar("T")
MAX_YAML_BYTES = 1_000_000
NAMES = {float: "a finite number", int: "a whole number", str: "text", bool: "true or false"}


class Partial:
    """A dataclass that stands for a part of a document: other names may stand beside its own."""

    __slots__ = ()


def read_fields(
    kind: type[T],
    given: object,
    *,
    base: T | None = None,
    name: str = "",
) -> T:
    """Return the dataclass `kind` that a mapping of names to values stands for.

    What is not given is taken from `base`, else from the dataclass's own defaults. Names that it
    does not have are refused unless it is `Partial`. `name` is what the mapping is called in its
    document. Raises UsageError, which says the field, what it holds and what was expected.
    """
    known = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    what = name or "it"
    if not isinstance(given, Mapping):
        raise _expected(what, given, "names and values")
    dot = f"{name}." if name else ""
    unknown = [] if issubclass(kind, Partial) else [key for key in given if key not in known]
    if unknown:
        raise UsageError(f"{dot}{_show(unknown[0])} is not known; expected {', '.join(known)}.")
    if missing := [field for field in known if field not in given and _must(known[field], base)]:
        raise UsageError(f"{dot}{missing[0]} is missing.")
    hints = _hints(kind)  # type: ignore[arg-type]
    values = {
        field: _read(hints[field], given[field], f"{dot}{field}", getattr(base, field, None))
        for field in known
        if field in given
    }
    try:
        return dataclasses.replace(base, **values) if base else kind(**values)  # type: ignore[type-var]
    except UsageError as error:
        raise UsageError(f"{name}: {error}" if name else str(error)) from error


def _must(field: dataclasses.Field[Any], base: object) -> bool:
    """Return whether a field has no value of its own."""
    has_default = (field.default, field.default_factory) != (dataclasses.MISSING,) * 2
    return base is None and not has_default


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _read(kind: Any, value: object, name: str, base: object = None) -> Any:
    """Return one value as its annotation says; raises UsageError."""
    if kind is Any:
        return value
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        if value is None and types.NoneType in typing.get_args(kind):
            return None
        (kind,) = (part for part in typing.get_args(kind) if part is not types.NoneType)
    origin, parts = typing.get_origin(kind) or kind, typing.get_args(kind)
    if origin in (list, tuple):
        return _read_list(origin, parts, value, name)
    if origin is dict:
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            raise _expected(name, value, "names and values")
        return {key: _read(parts[1], held, f"{name}.{key}") for key, held in value.items()}
    if dataclasses.is_dataclass(kind):
        # A subclass, such as one method of several, is what is there already.
        own = type(base) if isinstance(base, kind) else kind  # type: ignore[arg-type]
        return read_fields(own, value, base=base if base else None, name=name)  # type: ignore[arg-type]
    if issubclass(kind, Enum):
        return _read_member(kind, value, name)
    if kind is float and type(value) in (int, float):
        number = _to_float(value)
        if math.isfinite(number):
            return number
    elif type(value) is kind:
        return value
    raise _expected(name, value, NAMES[kind])


def _read_list(origin: type, parts: tuple[Any, ...], value: object, name: str) -> Any:
    if not isinstance(value, list | tuple):
        raise _expected(name, value, "a list")
    if origin is tuple and parts[-1] is not Ellipsis:
        if len(value) != len(parts):
            raise _expected(name, value, f"a list of {len(parts)}")
        kinds = parts
    else:
        kinds = parts[:1] * len(value)
    return origin(
        _read(kind, held, f"{name}[{n}]")
        for n, (kind, held) in enumerate(zip(kinds, value, strict=True))
    )


def _read_member(kind: type[Enum], value: object, name: str) -> Enum:
    for member in kind:
        if member.value == value or member is value:
            return member
    raise _expected(name, value, " or ".join(str(member.value) for member in kind))


def _to_float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:  # a whole number of hundreds of digits
        return math.inf


def _expected(name: str, value: object, expected: str) -> UsageError:
    return UsageError(f"{name} is {_show(value)}, expected {expected}.")


def _show(value: object) -> str:
    try:
        return " ".join(reprlib.repr(value).split())
    except ValueError:  # Python prints no number of more than 4,300 digits
        return f"a very long {type(value).__name__}"


def require_finite(given: object, name: str) -> None:
    """Raise UsageError where a document, or a part of it, holds a number that is not finite."""
    if isinstance(given, float) and not math.isfinite(given):
        raise _expected(name, given, NAMES[float])
    if isinstance(given, Mapping):
        for key, held in given.items():
            require_finite(held, str(key))
    elif isinstance(given, list | tuple):
        for held in given:
            require_finite(held, name)


def read_yaml(path: Path) -> object:
    """Return what a small YAML file says; raises UsageError when it is damaged or too large."""
    try:
        return yaml.safe_load(read_file(path, MAX_YAML_BYTES).decode("utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UsageError(f"{path} cannot be read as YAML ({reason_of(error)}).") from error
