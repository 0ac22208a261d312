"""What annotators said, through a store as a person's answers would go."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ecofm.compare import export, import_files


def collect_comparisons(out: Path, tables: Sequence[str]) -> None:
    """Import tables of `out` into a new store there, and export it as comparisons.csv."""
    store = out / "comparisons.sqlite"
    # A store only grows: one that an earlier run left would add its answers to these.
    for path in out.glob(f"{store.name}*"):
        path.unlink()
    import_files([out / table for table in tables], store)
    export(store, out / "comparisons.csv")
