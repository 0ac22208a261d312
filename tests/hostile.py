"""Artifacts that somebody damaged on purpose: written whole again, so that only their sense is off.

A case is a name and what it does to a copy. The copy is made by `Draft`, as every artifact is, so
that whatever the manifest says of its files is true of the damaged ones.
"""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from ecofm.artifact import MANIFEST, OWN_FIELDS, Draft
from tests.command import run

Damage = Callable[[Path], object]


def rebuild(source: Path, target: Path, damage: Damage) -> Path:
    """Copy an artifact with other files, and a manifest that is right about them."""
    manifest = json.loads((source / MANIFEST).read_text())
    draft = Draft(
        target, stage=manifest["stage"], config=manifest["config"], inputs=manifest["inputs"]
    )
    draft.extra = {name: value for name, value in manifest.items() if name not in OWN_FIELDS}
    with draft as folder:
        shutil.copytree(source, folder, dirs_exist_ok=True)
        (folder / MANIFEST).unlink()
        damage(folder)
    return target


def rebuild_or_break(source: Path, target: Path, damage: Damage, *, breaks: bool) -> Path:
    """Rebuild an artifact with a damage, or rebuild it whole and break what was written then."""
    if not breaks:
        return rebuild(source, target, damage)
    damage(rebuild(source, target, lambda _: None))
    return target


def edit(name: str, change: Callable[[Any], object] | Mapping[str, Any]) -> Damage:
    """Change a JSON file: by a function of what it holds, or by dotted names and values."""

    def damage(folder: Path) -> None:
        path = folder / name
        held = json.loads(path.read_text())
        if callable(change):
            held = change(held)
        else:
            for dotted, value in change.items():
                *parents, last = dotted.split(".")
                place = held
                for parent in parents:
                    place = place[parent]
                if value is ...:
                    del place[last]
                else:
                    place[last] = value
        path.write_text(json.dumps(held))

    return damage


def write(name: str, content: str | bytes) -> Damage:
    """Put other bytes in the place of a file."""
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(data)


class Bang:
    """What a hostile pickle asks for: a file `bang` in the current folder."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, ("bang", "w"))


BANG = pickle.dumps(Bang())


def require_refusal(tokens: list[object], out: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Run `ecofm TOKENS`, require one sentence of refusal and no `out`, and return it."""
    capsys.readouterr()
    code = run(*tokens)
    said = capsys.readouterr().err.splitlines()
    assert code in (1, 2), f"code {code}: {said[-1:]}"
    errors = [line for line in said if line.startswith("error: ")]
    assert len(errors) == 1 and errors[0] == said[-1], said
    assert "Traceback" not in errors[0] and len(errors[0]) < 1500
    assert not out.exists() and not Path("bang").exists()
    return errors[0]
