"""Text in pictures: names come from anybody, and are drawn as written, or else in Latin letters.

Fonts of the machine are added to matplotlib's own where a name needs them. A name in a script that
none of them has is spelled in Latin letters, and a sentence says so: an empty box tells nothing.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from ecofm.escaping import visible
from ecofm.types import say

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontEntry

MAX_SIGNS = 40
"""Longer labels are cut, with an ellipsis."""
PREFERRED = (
    "noto sans", "nanum", "malgun", "apple sd gothic", "source han sans", "hiragino sans",
    "pingfang", "microsoft yahei", "nirmala", "khmer", "myanmar", "lao", "padauk", "lohit",
)  # fmt: skip
"""Beginnings of families that are meant for reading; others are tried after them."""
PLACEHOLDERS = re.compile(r"last ?resort|adobe blank|tofu", re.IGNORECASE)
"""Fonts that have every sign, as a box."""
COMPLEX = re.compile("[\u0590-\u109f\u1780-\u18af\ua8e0-\uaaff\ufb1d-\ufdff\ufe70-\ufefc]")
"""Scripts whose signs change their form or order: drawn one by one, they are no words."""


class Fonts:
    """The fonts that pictures are lettered with: matplotlib's own, and others as names ask."""

    def __init__(self) -> None:
        """Begin with matplotlib's own font."""
        from matplotlib import ft2font
        from matplotlib.font_manager import FontProperties, findfont

        self.families = ["sans-serif"]
        self._can_shape = hasattr(ft2font, "__libraqm_version__")  # from matplotlib 3.11 on
        self._own = ft2font.FT2Font(findfont(FontProperties()))
        self._known: dict[str, bool] = {}
        self.has_told = False

    def find(self, signs: Iterable[str]) -> set[str]:
        """Return those of the signs that pictures can show; fonts that have them are added."""
        signs = set(signs)
        missing = set()
        for sign in signs - self._known.keys():
            drawn = bool(self._own.get_char_index(ord(sign)))
            self._known[sign] = drawn and (self._can_shape or not COMPLEX.match(sign))
            if not drawn and (self._can_shape or not COMPLEX.match(sign)):
                missing.add(sign)
        for entry in _list_fonts() if missing else ():
            if found := _pick_signs(entry, missing):
                self.families.append(entry.name)
                self._known |= dict.fromkeys(found, True)
                missing -= found
        return {sign for sign in signs if self._known[sign]}


@cache
def open_fonts() -> Fonts:
    """Return the fonts of this process's pictures."""
    return Fonts()


def _list_fonts() -> list[FontEntry]:
    """Return one font of each family on this machine, those that are meant for reading first."""
    from matplotlib.font_manager import findSystemFonts, fontManager

    # Matplotlib keeps its list of fonts from before, and does not know those installed since.
    for path in sorted(set(findSystemFonts()) - {entry.fname for entry in fontManager.ttflist}):
        with suppress(OSError, RuntimeError, ValueError):
            fontManager.addfont(path)

    def rank(entry: FontEntry) -> tuple[bool, str, bool, bool, str]:
        name = entry.name.lower()
        is_other = not name.startswith(PREFERRED)
        return is_other, name, entry.style != "normal", str(entry.weight) != "400", entry.fname

    families = {entry.name: entry for entry in sorted(fontManager.ttflist, key=rank, reverse=True)}
    return [entry for entry in reversed(families.values()) if not PLACEHOLDERS.search(entry.name)]


def _pick_signs(entry: FontEntry, signs: set[str]) -> set[str]:
    """Return those of the signs that a font has; a font that cannot be read has none."""
    from matplotlib.ft2font import FT2Font

    try:
        font = FT2Font(entry.fname)
    except (OSError, RuntimeError):
        return set()
    return {sign for sign in signs if font.get_char_index(ord(sign))}


def label(text: object, most: int = MAX_SIGNS) -> str:
    """Return a text as a picture of matplotlib shows it: in one line, and never as mathematics."""
    return make_labels([str(text)], most)[0]


def make_labels(names: Iterable[str], most: int = MAX_SIGNS) -> list[str]:
    """Return labels of names, no two alike where the names differ."""
    shown = [unicodedata.normalize("NFC", visible(name)) for name in names]
    drawn = open_fonts().find(sign for name in shown for sign in name)
    spelled = [_spell(name, drawn) for name in shown]
    told = [(name, other) for name, other in zip(shown, spelled, strict=True) if name != other]
    if told:
        _tell(*told[0])
    return [text.replace("$", r"\$") for text in _tell_apart(shown, spelled, most)]


def spell_latin(text: object, most: int = MAX_SIGNS) -> str:
    """Return a text in ASCII, as Pillow's own font can draw it, in one line."""
    return _cut(_spell(visible(str(text)), set()), most)


def _spell(name: str, drawn: set[str]) -> str:
    """Return a name with Latin letters, or its code, in place of signs that cannot be drawn."""
    from anyascii import anyascii

    def say_sign(sign: str) -> str:
        if sign.isascii() or sign in drawn:
            return sign
        latin = anyascii(sign)
        is_mark = unicodedata.category(sign).startswith("M")
        return latin if latin or is_mark else sign.encode("ascii", "backslashreplace").decode()

    spelled = "".join(map(say_sign, name))
    return spelled if spelled or not name else name.encode("ascii", "backslashreplace").decode()


def _tell_apart(names: list[str], spelled: list[str], most: int) -> list[str]:
    """Return the spelled names cut to their length, and numbered where two are alike then."""
    first: dict[str, str] = {}
    times: Counter[str] = Counter()
    for name, text in zip(names, spelled, strict=True):
        if name not in first:
            cut = _cut(text, most)
            times[cut] += 1
            first[name] = cut if times[cut] == 1 else f"{cut} ({times[cut]})"
    return [first[name] for name in names]


def _cut(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    kept = text[: most - 1]
    # A mark without its letter would stand on the ellipsis.
    while kept and unicodedata.combining(text[len(kept)]):
        kept = kept[:-1]
    return f"{kept or text[: most - 1]}…"


def _tell(name: str, spelled: str) -> None:
    """Say it once in a process: each picture of a report would say the same."""
    if not open_fonts().has_told:
        open_fonts().has_told = True
        say(
            f"pictures spell names in Latin letters, such as {name[:MAX_SIGNS]} as "
            f"{spelled[:MAX_SIGNS]}, since no font of this machine has their script; tables keep "
            "them as they are. Install a font that has it, such as Noto Sans, to see them as "
            "written."
        )


def save_figure(figure: Figure, target: Path | BytesIO, dpi: float | None = None) -> None:
    """Write a figure as PNG, in the fonts that its labels need; the same figure, the same bytes."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    families = open_fonts().families
    # Ticks are made while the figure is drawn, all other texts are there.
    with rc_context({"font.family": families}):
        for text in figure.findobj(Text):
            text.set_fontfamily(families)
        FigureCanvasAgg(figure)
        figure.savefig(target, format="png", dpi=dpi or "figure", metadata={"Software": None})
