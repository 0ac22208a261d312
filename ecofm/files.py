"""Files: what people give is looked at before it is opened, and read up to a size.

A named pipe without a writer never answers, and a device may never end: neither is opened.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}
MAX_PARQUET_CELLS, MAX_PARQUET_BYTES = 2**28, 2**33
"""Rows times columns, and bytes when unpacked: what a few bytes of Parquet can declare."""


class FileError(OSError):
    """What a path names is no file, or too large a one; the message is the end of a sentence."""


def kind_of(path: Path) -> str | None:
    """Return what a path names where that is there and no file: `a named pipe`, for example."""
    try:
        return KINDS.get(stat.S_IFMT(path.stat().st_mode))
    except (OSError, ValueError):
        return None


def is_special(path: Path) -> bool:
    """Return whether a path names what must not be opened: a pipe, a device or a socket."""
    return kind_of(path) not in (None, "a folder")


def require_file(path: Path, max_bytes: int | None = None) -> int:
    """Return a file's size in bytes, without opening it.

    Raises FileError for a pipe, a device, a socket, a folder, and for a file of more than
    `max_bytes`, and OSError where nothing is there.
    """
    n_bytes = path.stat().st_size
    if kind := kind_of(path):
        raise FileError(f"it is {kind}, expected a file")
    if max_bytes is not None and n_bytes > max_bytes:
        raise FileError(f"it has {n_bytes} bytes, expected at most {max_bytes}")
    return n_bytes


def read_file(path: Path, max_bytes: int) -> bytes:
    """Return a file's bytes; raises as `require_file` does."""
    require_file(path, max_bytes)
    with path.open("rb") as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:  # it grows, or its size is not told, as in /proc
        raise FileError(f"it has more than {max_bytes} bytes")
    return content


def read_start(path: Path, n_bytes: int) -> bytes:
    """Return a file's first bytes; raises as `require_file` does."""
    require_file(path)
    with path.open("rb") as file:
        return file.read(n_bytes)


def reason_of(error: Exception) -> str:
    """Return why something failed, in one line, as the system says it."""
    told = getattr(error, "strerror", None) or str(error)
    return " ".join(os.fsencode(told).decode("utf-8", "replace").split())[:200]


def require_parquet(source: Any) -> None:
    """Raise FileError where a Parquet file (a path, or bytes in Arrow) unpacks to far too much."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        told = pq.read_metadata(source)
        n_bytes = sum(told.row_group(n).total_byte_size for n in range(told.num_row_groups))
    except pa.ArrowException:
        return  # its reader says what is wrong with it
    n_cells = told.num_rows * told.num_columns
    if n_cells > MAX_PARQUET_CELLS or n_bytes > MAX_PARQUET_BYTES:
        raise FileError(
            f"it declares {told.num_rows} rows of {told.num_columns} columns and {n_bytes} bytes, "
            f"expected at most {MAX_PARQUET_CELLS} cells and {MAX_PARQUET_BYTES} bytes"
        )
