"""Pickled tensors from others: a file is judged before torch opens it.

torch's restricted unpickler runs no foreign code, but it builds what a file of a few bytes asks
for, however large: arrays of bytes, and records that were packed a thousand times smaller.
"""

from __future__ import annotations

import io
import pickletools
import re
import zipfile
from pathlib import Path

ALLOWED = re.compile(
    r"collections OrderedDict"
    r"|torch\._utils _rebuild_(tensor_v2|parameter)"
    r"|torch (\w+Storage|Size|float\w*|bfloat16|u?int\w*|bool)"
)
"""What tables of tensors are made of, as pickle names it."""
N_LEGACY = 5
"""Pickles at the beginning of a file that torch wrote before version 1.6."""


def require_plain(path: Path) -> None:
    """Raise ValueError for a file that holds more than tensors in tables.

    OSError, zipfile.BadZipFile and ValueError also tell of a damaged one.
    """
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            for _ in range(N_LEGACY):
                _require_names(file)
        return
    require_unpacked(path)
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(names) != 1:
            raise ValueError("it is an archive, but none that torch wrote")
        with archive.open(names[0]) as file:
            _require_names(file)  # type: ignore[arg-type]


def require_unpacked(path: Path) -> None:
    """Raise ValueError for an archive with packed parts, which grow when they are read.

    torch stores them as they are.
    """
    with zipfile.ZipFile(path) as archive:
        parts = archive.infolist()
        if any(part.compress_type != zipfile.ZIP_STORED for part in parts):
            raise ValueError("its parts are compressed, which torch never does")
        if sum(part.file_size for part in parts) > path.stat().st_size:
            raise ValueError("its parts are larger than the file")


def _require_names(file: io.BufferedIOBase) -> None:
    """Read one pickle, without building anything, and raise ValueError for a name not allowed."""
    for code, argument, _ in pickletools.genops(file):  # type: ignore[arg-type]
        if code.name in ("STACK_GLOBAL", "INST", "OBJ", "EXT1", "EXT2", "EXT4", "NEWOBJ_EX"):
            raise ValueError(f"it asks for what tables of tensors never do ({code.name})")
        if code.name == "GLOBAL" and not ALLOWED.fullmatch(str(argument)):
            raise ValueError(f"it holds {str(argument)[:60].replace(' ', '.')}, which is no tensor")
