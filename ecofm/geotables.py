"""GeoParquet of artifacts: its columns and types are judged at the door."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from shapely.errors import ShapelyError

from ecofm.errors import ArtifactError
from ecofm.meridian import cut_all

INDEX = {"tile_id": str, "cell_id": str, "period": str}
"""The columns that the tables of all stages begin with."""


def read_geotable(
    path: Path, columns: Mapping[str, type], *, n_rows: int | None = None, made_by: str
) -> gpd.GeoDataFrame:
    """Return a table that ecofm wrote, with outlines in EPSG:4326.

    `columns` are those that it needs, text (str) or numbers (float); `n_rows` is how many rows the
    manifest promises, which is asked before any is read. Raises ArtifactError, which says what is
    wrong and names the command `made_by`, for anything else.
    """
    try:
        if not path.is_file():
            raise ArtifactError("it is no file" if path.exists() else "it does not exist")
        found = pq.read_metadata(path).num_rows
        if n_rows is not None and found != n_rows:
            raise ArtifactError(f"it has {found} rows, and the artifact has {n_rows}")
        table = gpd.read_parquet(path)
        _require_columns(table, columns)
        return cut_all(table)
    # What pyarrow, pandas, pyproj and shapely raise for a file that is not what it says.
    except (
        ArtifactError,
        ShapelyError,
        OSError,
        ValueError,
        LookupError,
        TypeError,
        RuntimeError,
        AttributeError,
    ) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ArtifactError(
            f"{path} cannot be read ({reason}); make it again with `{made_by}`."
        ) from error


def _require_columns(table: gpd.GeoDataFrame, columns: Mapping[str, type]) -> None:
    if table.crs is not None and table.crs != 4326:
        raise ArtifactError(f"its outlines are in {table.crs.name}, expected EPSG:4326")
    for name, kind in columns.items():
        if name not in table.columns:
            known = ", ".join(map(str, table.columns))
            raise ArtifactError(f"it has no column {name}, only {known}")
        column = table[name]
        if kind is str:
            if column.isna().any():
                raise ArtifactError(f"its column {name} lacks {int(column.isna().sum())} names")
            if pd.api.types.infer_dtype(column, skipna=False) not in ("string", "empty"):
                raise ArtifactError(f"its column {name} holds {column.dtype}, expected text")
        elif not np.issubdtype(column.dtype, np.number):
            raise ArtifactError(f"its column {name} holds {column.dtype}, expected numbers")
