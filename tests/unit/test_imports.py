"""The import contracts of pyproject.toml: dependencies point down."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from importlinter.cli import lint_imports_command

ROOT = Path(__file__).parents[2]


def test_dependencies_point_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    done = CliRunner().invoke(lint_imports_command, ["--no-cache", "--config", "pyproject.toml"])
    assert done.exit_code == 0, done.output
    assert "0 broken" in done.output
