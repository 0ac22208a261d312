"""`ecofm fetch`."""

from __future__ import annotations

from pathlib import Path

from ecofm.tiles.fetch import SETS
from ecofm.tiles.fetch import fetch as run_fetch
from ecofm.types import print_result, say


def fetch(name: str | None = None, *, out: Path = Path("data")) -> None:
    """Download a public data set that the benchmarks use, and check what came.

    Without NAME, the data sets are listed. What is there already is checked and not downloaded
    again, and so is what you put there by hand.

    Args:
        name: The data set.
        out: Where its folder is made, by its name.
    """
    if name is None:
        for known, data in SETS.items():
            print_result(f"{known}: {data.what}. Licence: {data.licence}.")
        return
    folder = run_fetch(name, out / name)
    data = SETS[name]
    say(f"{folder}: {data.what}. Licence: {data.licence}.")
    say(f"Go on with: {data.then.replace('FOLDER', str(folder))}")
