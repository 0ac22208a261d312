"""Whether SQLite's write-ahead log beside a store is whole.

After a kill the log holds votes that are not yet in the store itself, and SQLite reads it up to
the first frame whose checksum is wrong. That is right for a frame that was cut off while it was
written, which nobody has acknowledged; but a byte that changed later hides every vote behind it.
The format is https://sqlite.org/fileformat2.html#walformat.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

MAGIC = (0x377F0682, 0x377F0683)
"""The last bit tells the byte order of the checksums."""
HEADER_BYTES, FRAME_BYTES = 32, 24
PAUSE_SECONDS = 0.1
State = Literal["whole", "torn", "damaged"]


class _Frame(NamedTuple):
    follows: bool  # salts are the log's own
    resembles: bool  # one of the two salts is
    is_good: bool  # the checksum holds
    commits: bool  # the last of a transaction


def inspect_log(store: Path) -> State:
    """Return whether the log beside a store is whole, ends in a torn frame, or is damaged.

    A server that writes meanwhile makes a log look torn; so another look is taken then.
    """
    log = store.with_name(f"{store.name}-wal")
    for _ in range(3):
        try:
            with log.open("rb") as file:
                state = _inspect(file)
        except FileNotFoundError:
            return "whole"
        if state == "whole":
            return state
        time.sleep(PAUSE_SECONDS)
    return state


def _inspect(file: BinaryIO) -> State:
    header = file.read(HEADER_BYTES)
    if len(header) < HEADER_BYTES:
        return "whole"  # nothing was ever written
    magic, _, page_bytes, _, salt_1, salt_2, *checksum = struct.unpack(">8I", header)
    order = ">" if magic & 1 else "<"
    if magic not in MAGIC or _sum(order, header[:24], (0, 0)) != tuple(checksum):
        return "damaged"
    is_broken = False
    for frame in _read_frames(file, page_bytes, order, (salt_1, salt_2), tuple(checksum)):
        if is_broken:
            # What was cut off has nothing behind it but frames of a log before this one.
            if frame.follows and frame.commits:
                return "damaged"
        elif not frame.is_good:
            if not frame.follows and not frame.resembles:
                return "whole"
            is_broken = True
    return "torn" if is_broken else "whole"


def _read_frames(
    file: BinaryIO, page_bytes: int, order: str, salts: tuple[int, int], checksum: tuple[int, ...]
) -> Iterator[_Frame]:
    while len(frame := file.read(FRAME_BYTES + page_bytes)) == FRAME_BYTES + page_bytes:
        _, n_pages, *rest = struct.unpack(">6I", frame[:FRAME_BYTES])
        checksum = _sum(order, frame[FRAME_BYTES:], _sum(order, frame[:8], checksum))
        matches = [own == known for own, known in zip(rest, salts, strict=False)]
        is_good = all(matches) and tuple(rest[2:]) == checksum
        yield _Frame(all(matches), any(matches), is_good, n_pages > 0)


def _sum(order: str, content: bytes, start: tuple[int, ...]) -> tuple[int, int]:
    """Return SQLite's checksum of the content, continued from `start`."""
    words = struct.unpack(f"{order}{len(content) // 4}I", content)
    first, second = start
    for x, y in zip(words[::2], words[1::2], strict=True):
        first = (first + x + second) & 0xFFFFFFFF
        second = (second + y + first) & 0xFFFFFFFF
    return first, second
