"""Generic ways to make a good input bad: bytes, JSON, text, and what is no file at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

STRANGE: tuple[Any, ...] = (
    None, True, -1, 0, 2**63, 1e308, "", "\0", "../..", "/dev/zero", [], {}, [[]], {"": {}},
    "x" * 100_000, "=HYPERLINK(1)", "nan", float("inf"), [None] * 1000, "\ud800", "https://[",
    "file:///etc/passwd", "NaN", ["a", 1, None], -0.0, "2019-13-45", "\u202e\u0000",
)  # fmt: skip
DEEP = 100_000

Mutation = Callable[[Path, Random], str]


def cut(path: Path, random: Random) -> str:
    data = path.read_bytes()
    at = random.randrange(len(data) + 1) if data else 0
    path.write_bytes(data[:at])
    return f"cut at byte {at}"


def flip_bits(path: Path, random: Random) -> str:
    data = bytearray(path.read_bytes())
    n = random.choice([1, 8, 64])
    for _ in range(n if data else 0):
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)
    path.write_bytes(data)
    return f"{n} bits flipped"


def overwrite_block(path: Path, random: Random) -> str:
    data = bytearray(path.read_bytes())
    size = random.choice([4, 64, 1024])
    at = random.randrange(max(1, len(data) - size))
    filler = random.choice([b"\0", b"\xff", random.randbytes(size)])
    data[at : at + size] = (filler * size)[:size]
    path.write_bytes(data)
    return f"{size} bytes overwritten at {at}"


def put_in(path: Path, random: Random) -> str:
    data = path.read_bytes()
    at = random.randrange(len(data) + 1)
    what = random.choice([b"\0", b"\xff\xfe", b"\r\n" * 50, b"x" * 100_000, b'"', b"\x1a"])
    path.write_bytes(data[:at] + what + data[at:])
    return f"{what[:4]!r} put in at {at}"


def shuffle_blocks(path: Path, random: Random) -> str:
    data = path.read_bytes()
    size = max(1, len(data) // 8)
    blocks = [data[start : start + size] for start in range(0, len(data), size)]
    random.shuffle(blocks)
    path.write_bytes(b"".join(blocks))
    return "eighths shuffled"


def make_fifo(path: Path, random: Random) -> str:
    path.unlink()
    os.mkfifo(path)
    return "a FIFO"


def make_endless(path: Path, random: Random) -> str:
    path.unlink()
    path.symlink_to("/dev/zero")
    return "a link to /dev/zero"


def make_folder(path: Path, random: Random) -> str:
    path.unlink()
    path.mkdir()
    return "a folder"


def make_dangling(path: Path, random: Random) -> str:
    path.unlink()
    path.symlink_to(path.with_name("nowhere"))
    return "a dangling link"


def make_loop(path: Path, random: Random) -> str:
    path.unlink()
    path.symlink_to(path)
    return "a link to itself"


def nest(path: Path, random: Random) -> str:
    mark = random.choice(["[", '{"a":', "("])
    path.write_text(mark * DEEP)
    return f"{DEEP} times {mark}"


def confuse(path: Path, random: Random) -> str:
    """Replace, remove or add a value somewhere in a JSON document."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return flip_bits(path, random)
    places = list(_places(document))
    holder, key = random.choice(places) if places else ([document], 0)
    value = random.choice([*STRANGE, "DELETE", "NEST"])
    if value == "DELETE":
        del holder[key]
    else:
        holder[key] = json.loads('{"a":' * 500 + "1" + "}" * 500) if value == "NEST" else value
    path.write_text(json.dumps(document))
    return f"{key} is now {str(value)[:20]!r}"


def _places(value: Any) -> Any:
    """Yield (container, key) of every value within."""
    keys = (
        value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    )
    for key in keys:
        yield value, key
        yield from _places(value[key])


def confuse_fields(path: Path, random: Random) -> str:
    """Replace a field of a text table by something strange."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except ValueError:
        return overwrite_block(path, random)
    row = random.randrange(len(lines))
    fields = lines[row].split(",")
    at = random.randrange(len(fields))
    value = random.choice([v for v in STRANGE if not isinstance(v, list | dict)])
    fields[at] = str(value)
    lines[row] = ",".join(fields)
    path.write_text("\n".join(lines), encoding="utf-8", errors="surrogatepass")
    return f"field {at} of line {row} is now {str(value)[:20]!r}"


ANY: tuple[Mutation, ...] = (
    cut, flip_bits, overwrite_block, put_in, shuffle_blocks, make_fifo, make_endless, make_folder,
    make_dangling, make_loop,
)  # fmt: skip
TEXT: tuple[Mutation, ...] = (*ANY, nest)
JSON: tuple[Mutation, ...] = (*TEXT, *(confuse,) * 12)
TABLE: tuple[Mutation, ...] = (*TEXT, *(confuse_fields,) * 8)


def mutate(path: Path, random: Random) -> str:
    """Make one file bad in one way, and say how."""
    with path.open("rb") as file:
        head = file.read(1)
    if path.suffix in (".json", ".geojson") or head == b"{":
        chosen = random.choice(JSON)
    else:
        chosen = random.choice(TABLE if path.suffix in (".csv", ".txt", ".yaml") else ANY)
    return f"{path.name}: {chosen(path, random)}"
