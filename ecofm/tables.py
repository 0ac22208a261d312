"""Tables that people give: CSV, plain or compressed, and Parquet."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from ecofm.errors import EcofmError


def read_table(path: Path, text: Iterable[str] = ()) -> pd.DataFrame:
    """Return a table; the columns `text` of a CSV stay text, for they are names.

    Raises EcofmError when it cannot be read.
    """
    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        return pd.read_csv(path, dtype=dict.fromkeys(text, str))  # type: ignore[arg-type]
    # pandas believes what a file says of itself, so that damage can raise anything.
    except Exception as error:
        raise EcofmError(
            f"{path} cannot be read as a table ({error}); write it again as CSV or Parquet."
        ) from error
