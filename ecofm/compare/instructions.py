"""The instruction page that the owner can write: plain text, with examples that show items.

Lines: `# heading`; `- point`; `A > B: words` shows item A as more developed than B and says why;
blank lines part paragraphs. It is text and nothing else: no markup, no links.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, NamedTuple

from ecofm.compare.comparison import normalize_item
from ecofm.errors import ComparisonError
from ecofm.files import read_file, reason_of

MAX_BYTES = 65536
EXAMPLE = re.compile(r"([^<>:]{1,200})>([^<>:]{1,200}):(.*)")
Kind = Literal["heading", "point", "text", "example"]


class Block(NamedTuple):
    """One piece of the page."""

    kind: Kind
    """How it is shown."""
    text: str
    """Its words."""
    items: tuple[str, str] | None = None
    """Of an example: the more developed item, and the other."""


def read_instructions(path: Path, items: set[str]) -> list[Block]:
    """Return the blocks of an instruction file.

    Raises ComparisonError when it cannot be read, is empty or over 64 KiB, or names an unknown
    item.
    """
    try:
        content = read_file(path, MAX_BYTES)
        text = content.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ComparisonError(
            f"{path} cannot be read as instructions ({reason_of(error)})."
        ) from error
    if not text.strip():
        raise ComparisonError(f"{path} is empty, expected instructions.")
    blocks: list[Block] = []
    for number, line in enumerate(text.splitlines(), start=1):
        line = line.strip()
        example = EXAMPLE.fullmatch(line)
        if not line:
            blocks.append(Block("text", ""))
        elif line.startswith("#"):
            blocks.append(Block("heading", line.lstrip("# ")))
        elif line.startswith("- "):
            blocks.append(Block("point", line[2:].strip()))
        elif example:
            pair = normalize_item(example[1]), normalize_item(example[2])
            unknown = [item for item in pair if item not in items]
            if unknown:
                raise ComparisonError(
                    f"{path}, line {number}: item {unknown[0]!r} is not compared here; "
                    "correct the example."
                )
            blocks.append(Block("example", example[3].strip(), pair))
        elif blocks and blocks[-1].kind == "text" and blocks[-1].text:
            blocks[-1] = Block("text", f"{blocks[-1].text} {line}")
        else:
            blocks.append(Block("text", line))
    return [block for block in blocks if block.text or block.items]
