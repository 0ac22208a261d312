"""Which tiles each item stands for: from clusters, or a table that somebody wrote."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ecofm.artifact import read_manifest
from ecofm.checksums import open_file
from ecofm.compare.comparison import normalize_item, refuse_decimals
from ecofm.errors import ComparisonError, EcofmError
from ecofm.tables import canonical, read_table

if TYPE_CHECKING:
    import pandas as pd


def read_members(path: Path) -> pd.DataFrame:
    """Return tile_id and item, as they are written, from a clusters artifact, a CSV or a Parquet.

    Where the table has a distance, the nearest to the centre come first. Raises ComparisonError,
    naming the line, for a table that cannot be read, lacks a column or a name, or has an item that
    no comparison can name.
    """
    command = "write it again"
    if path.is_dir():
        path = open_file(path, read_manifest(path, "clusters"), "clusters.parquet")
        command = "make it again with `ecofm cluster`"
    if not path.is_file():
        raise ComparisonError(f"{path} does not exist; give --members with columns tile_id, item.")
    try:
        return _read(path)
    except ComparisonError:
        raise
    except EcofmError as error:
        raise ComparisonError(f"{error} Expected the columns tile_id, item; {command}.") from error


def _read(path: Path) -> pd.DataFrame:
    import pandas as pd

    table = read_table(path)
    tile, item = table.find("tile_id"), table.find("item")
    if tile is None or item is None:
        raise ComparisonError(
            f"{path} has columns {', '.join(table.columns)}; expected tile_id, item; write "
            "it again."
        )
    tiles, items = table.text(tile), [canonical(name) for name in table.text(item)]
    blank = [
        n
        for n, names in enumerate(zip(tiles, items, strict=True))
        if not all(map(str.strip, names))
    ]
    if blank:
        raise ComparisonError(
            f"{path} lacks a tile_id or item in {table.at(blank[0])}; fill it in."
        )
    refuse_decimals(path, table.text(item))
    for name in dict.fromkeys(items):
        try:
            normalize_item(name)
        except ComparisonError as error:
            place = table.at(items.index(name))
            raise ComparisonError(f"{path}, {place}: {error}") from error
    members = pd.DataFrame({"tile_id": tiles, "item": items}, dtype="str")
    distance = table.find("distance")
    if distance is not None:
        order = pd.to_numeric(pd.Series(table.text(distance)), errors="coerce")
        members = members.iloc[order.argsort(kind="stable").to_numpy()]
    return members.reset_index(drop=True)
