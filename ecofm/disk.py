"""The disk: room that is reserved before it is used, and the sentence for one that refuses."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ecofm.errors import ArtifactError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
CLOSED = (errno.EROFS, errno.EACCES, errno.EPERM)
BLOCK_BYTES = 2**20


class NoRoomError(OSError):
    """A disk has no room for a file of `needed_bytes`."""

    needed_bytes = 0


def reserve(path: Path, n_bytes: int) -> None:
    """Give a file its room on the disk, zeros where it has none yet.

    A full disk raises OSError here; met in a memory map it would kill the process by SIGBUS.
    """
    with path.open("r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, max(1, n_bytes))
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                refused = NoRoomError(error.errno, error.strerror, str(path))
                refused.needed_bytes = n_bytes
                raise refused from error
            # This file system cannot promise room; bytes that are written have it.
            start = file.seek(0, os.SEEK_END)
            for at in range(start, n_bytes, BLOCK_BYTES):
                file.write(bytes(min(BLOCK_BYTES, n_bytes - at)))


def create_array(path: Path, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Return a new `.npy` of float32, mapped to be written, whose room is on the disk already."""
    import numpy as np

    mapped: npt.NDArray[np.float32] = np.lib.format.open_memmap(  # type: ignore[no-untyped-call]
        path, mode="w+", dtype=np.float32, shape=shape
    )
    reserve(path, path.stat().st_size)
    return mapped


def find_refusal(error: BaseException | None) -> OSError | None:
    """Return what a disk that is full, read-only or closed to us said behind an exception, or None.

    Libraries in C++ and Rust wrap it in exceptions of their own, which keep its text only.
    """
    for each in _chain(error):
        if isinstance(each, OSError) and each.errno in (*FULL, *CLOSED):
            return each
        text = str(each)
        for number in FULL:
            if re.search(rf"{os.strerror(number)}|\bos error {number}\b", text, re.IGNORECASE):
                return OSError(number, os.strerror(number))
        # numpy's tofile, which loses the number: `4096 requested and 1024 written`.
        if isinstance(each, OSError) and re.search(r"\d+ requested and \d+ written", text):
            return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def describe_refusal(place: Path, error: OSError) -> str:
    """Return one sentence: what cannot be written, why, on which disk, and what to do."""
    what = f"{place} cannot be written"
    mount = find_mount(place)
    need = f", {size(error.needed_bytes)} are needed" if isinstance(error, NoRoomError) else ""
    if error.errno == errno.ENOSPC:
        free = size(shutil.disk_usage(mount).free)
        return (
            f"{what}: the disk at {mount} is full ({free} are free{need}); free some space, or "
            "choose another --out."
        )
    if error.errno == errno.EDQUOT:
        why = f"your quota on the disk at {mount} is used up{need}; free some space there"
    elif error.errno == errno.EFBIG:
        why = f"the disk at {mount}, or `ulimit -f`, allows no file as large{need}; raise the limit"
    elif error.errno == errno.EROFS:
        return f"{what}: the disk at {mount} is read-only; choose another --out."
    else:
        return f"{what} ({error.strerror or error}); choose another --out."
    return f"{what}: {why}, or choose another --out."


def unwritable(out: Path, error: OSError) -> ArtifactError:
    """Return what to raise when `out` cannot be written."""
    return ArtifactError(describe_refusal(out, find_refusal(error) or error))


def find_mount(path: Path) -> Path:
    """Return where the disk that holds a path, or would hold it, is mounted."""
    place = next(folder for folder in (path.resolve(), *path.resolve().parents) if folder.exists())
    while not os.path.ismount(place) and place != place.parent:
        place = place.parent
    return place


def size(n_bytes: int) -> str:
    """Return a number of bytes for a person: `0 MB`, `1.5 MB`, `12 GB`."""
    return f"{n_bytes / 1e6:.3g} MB" if n_bytes < 1e9 else f"{n_bytes / 1e9:.3g} GB"
