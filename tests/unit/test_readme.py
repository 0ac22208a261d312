import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Files that say what they are by their name alone.
UNLISTED = {".ci", ".gitignore", "README.md"}


def read_tree() -> set[str]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = text.split("## What is where")[1].split("```")[1]
    paths, folder = set(), ""
    for line in block.strip().splitlines():
        indent, name = re.match(r"( *)(\S+)", line).groups()
        assert len(line.split(None, 1)) == 2, f"{name} has no annotation"
        folder = folder if indent else name
        paths.add((folder if indent else "") + name)
    return {path.rstrip("/") for path in paths}


def tracked() -> set[str]:
    found = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if found.returncode:
        pytest.skip("not a git checkout")
    return {path for path in found.stdout.splitlines() if (ROOT / path).exists()}


def test_the_tree_names_everything_that_is_there_and_nothing_else():
    files = tracked()
    top = {path.split("/")[0] for path in files} - UNLISTED
    library = {"/".join(path.split("/")[:2]) for path in files if path.startswith("ecofm/")}
    assert read_tree() == top | library - {"ecofm/__init__.py"}


def test_the_first_screen_has_a_picture_and_the_two_commands():
    screen = (ROOT / "README.md").read_text(encoding="utf-8").split("## ")[0]
    picture = re.search(r"!\[.+\]\((.+)\)", screen)[1]
    assert (ROOT / picture).stat().st_size > 10_000
    assert "make demo" in screen and "make test" in screen
