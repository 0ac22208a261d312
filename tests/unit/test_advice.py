"""What a message advises exists: every `--option` in the library's texts is one of the command."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from cyclopts import App

import ecofm
from ecofm.cli import build_app

ROOT = Path(ecofm.__file__).parent
OPTION = re.compile(r"(?<![A-Za-z0-9-])--[a-z][a-z0-9-]*[a-z0-9]")
# Options of other programs, named as theirs.
OTHERS: set[str] = set()


def options_of(app: App) -> Iterator[str]:
    """Yield the options of a command and of those below it."""
    for name in app:
        if not name.startswith("-"):
            command = app[name]
            yield from options_of(command)
            if command.default_command is not None:
                for argument in command.assemble_argument_collection():
                    yield from argument.names


def texts_of(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the texts of a module with their lines."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


def test_every_option_that_a_text_names_is_one_of_the_command() -> None:
    known = {*options_of(build_app()), "--help", "--version"} | OTHERS
    assert {"--period", "--per", "--composite", "--append"} <= known
    unknown = {
        f"{path.relative_to(ROOT)}:{line} {option}"
        for path in sorted(ROOT.rglob("*.py"))
        for line, text in texts_of(path)
        for option in OPTION.findall(text)
        if option not in known
    }
    assert not unknown
