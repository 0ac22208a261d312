"""What is installed: locked with hashes, under licences that may be passed on, each told."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
LOCK = (ROOT / ".ci" / "requirements.txt").read_text(encoding="utf-8")
PIN = re.compile(
    r"^([\w.-]+)==(\S+?)(?: ;[^\\]*)? \\\n((?:    --hash=sha256:[0-9a-f]{64}.*\n)+)", re.M
)


def test_every_direct_dependency_is_locked_to_a_version_that_is_allowed() -> None:
    pinned: dict[str, set[Version]] = {}
    for name, version, _ in PIN.findall(LOCK + "\n"):
        pinned.setdefault(canonicalize_name(name), set()).add(Version(version))
    told = PROJECT["dependencies"] + [line for key in ("cpu", "app", "dev") for line in EXTRAS[key]]
    for requirement in map(Requirement, told):
        versions = pinned.get(canonicalize_name(requirement.name), set())
        assert versions, f"{requirement.name} is not in .ci/requirements.txt"
        assert all(requirement.specifier.contains(v, prereleases=True) for v in versions)


def test_every_line_of_the_lock_has_a_hash() -> None:
    starts = [line for line in LOCK.splitlines() if line and line[0] not in " #"]
    assert len(starts) == len(PIN.findall(LOCK + "\n")) > 200


def test_the_licence_of_every_direct_dependency_is_listed() -> None:
    page = (ROOT / "docs" / "DEPENDENCIES.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([\w-]+) \| [^|]+ \| (always|cpu|gpu|app|dev) \|$", page, re.M)
    told = {(Requirement(line).name, "always") for line in PROJECT["dependencies"]} | {
        (Requirement(line).name, extra) for extra, lines in EXTRAS.items() for line in lines
    }
    assert set(rows) == told


def test_nothing_that_is_installed_is_under_the_gpl() -> None:
    pinned = {canonicalize_name(name) for name, _, _ in PIN.findall(LOCK + "\n")}
    found = {}
    for each in distributions():
        metadata = each.metadata
        licence = " ".join(
            [
                metadata.get("License-Expression") or "",
                *[c for c in metadata.get_all("Classifier") or [] if c.startswith("License ::")],
            ]
        )
        if canonicalize_name(metadata["Name"]) in pinned and re.search(
            r"\bA?GPL|General Public", licence
        ):
            found[metadata["Name"]] = licence
    assert not found
