"""What every record of a benchmark says of the machine and the code."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from importlib.metadata import version

from ecofm.artifact import build_manifest


def describe_machine(names: Sequence[str]) -> dict[str, object]:
    """Return machine, load, versions and commit."""
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "load_average": os.getloadavg()[0],
        "versions": {name: version(name) for name in names},
        "commit": build_manifest("report", {}, {})["git_commit"],
    }
