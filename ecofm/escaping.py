"""Text that comes from anybody, made harmless for what shows it: terminals, Markdown, HTML, CSV.

Names of annotators, items, columns, regions and files are data. A terminal would obey control
sequences in them, a page would run scripts, and a spreadsheet formulas.
"""

from __future__ import annotations

import html
import re

NUMBER = re.compile(r"\s*[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?\s*")
LEAD = r"[\s\"'\x00-\x1f\x7f-\xa0\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]*"
FORMULA = re.compile(rf"{LEAD}[=+\-@\uff1d\uff0b\uff0d\uff20\u2212]")
"""What spreadsheets may take for a formula (OWASP, CSV Injection), blanks and quotes before it."""
FIELDS = re.compile(r"([;\t\r\n])")
"""What parts fields or rows where a spreadsheet's own settings are not the file's."""
LEADING_BREAK = re.compile(r"'*[\t\r\n]")
UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f"
    "\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb\ud800-\udfff"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
"""Controls, halves of surrogate pairs, and signs that turn, hide or end what stands around them.

The joiners U+200C and U+200D stay: Nepali, Persian and emoji are written with them.
"""
MARKDOWN = re.compile(
    r"[\\`*\[\]<>#|~$&@]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|:(?=//)|(?<=\bwww)\.", re.IGNORECASE
)
BLOCK = re.compile(r"^(?:[=:\s]|[-+](?=[-\s]|$)|\d+[.)](?=\s|$))")
"""What begins a list, a heading's underline or code where it stands first."""


def visible(text: str, keep: str = "") -> str:
    r"""Return a text with every sign that acts or hides written out, as `\x1b` or `\u202e`.

    The characters of `keep` stay, such as the line breaks of a text of several lines.
    """
    return UNSEEN.sub(lambda sign: sign[0] if sign[0] in keep else _spell(ord(sign[0])), text)


def _spell(code: int) -> str:
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def for_markdown(text: object) -> str:
    """Return what Markdown shows as this text, in one line, a table's cell or a heading."""
    shown = MARKDOWN.sub(_to_entity, visible(str(text)))
    return BLOCK.sub(lambda start: start[0][:-1] + _to_entity(start[0][-1]), shown)


def _to_entity(sign: re.Match[str] | str) -> str:
    return f"&#{ord(sign[0])};"


def for_terminal(text: object, encoding: str | None = None) -> str:
    """Return what a terminal shows as this text, of several lines; `encoding` is the stream's."""
    shown = visible(str(text), keep="\n\t")
    if encoding is None:
        return shown
    return shown.encode(encoding, "backslashreplace").decode(encoding)


def for_html(text: object) -> str:
    """Return what HTML shows as this text, in an element or in a quoted attribute."""
    return html.escape(visible(str(text), keep="\n"))


def escape_cell(cell: str) -> str:
    """Return a table's cell with an apostrophe where a spreadsheet would run what follows.

    Plain numbers stay. `unescape_cell` gives the cell back as it was, whatever it holds.
    """
    parts = FIELDS.split(cell)
    escaped = "".join(f"'{part}" if _is_formula(part) else part for part in parts)
    return f"'{escaped}" if LEADING_BREAK.match(escaped) else escaped


def unescape_cell(cell: str) -> str:
    """Return the cell that `escape_cell` wrote; a cell that it would not write stays."""
    if cell.startswith("'") and LEADING_BREAK.match(cell):
        cell = cell[1:]
    parts = FIELDS.split(cell) if "'" in cell else [cell]
    return "".join(
        part[1:] if part.startswith("'") and _is_formula(part[1:]) else part for part in parts
    )


def _is_formula(part: str) -> bool:
    return FORMULA.match(part) is not None and not NUMBER.fullmatch(part)
