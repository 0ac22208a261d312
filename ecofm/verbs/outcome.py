"""The last line of a verb, and what `--strict` makes of it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from ecofm.errors import EcofmError
from ecofm.types import say


def conclude(out: Path, what: str, *, strict: bool = False) -> None:
    """Say what was written and, on the last line, how much was left out.

    Raises EcofmError when something was left out and `strict` is set.
    """
    say(f"{out}: {what}")
    table = out / "rejected.parquet"
    n_rejected = len(pd.read_parquet(table)) if table.is_file() else 0
    if n_rejected and strict:
        raise EcofmError(f"{n_rejected} inputs were left out; {table} names them with reasons.")
    if n_rejected:
        say(f"{n_rejected} inputs were left out; {table} names them with reasons.")
