"""Labels of pictures: whatever a name holds, it is drawn, and drawn as it is."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from PIL import Image

from ecofm import lettering
from ecofm.lettering import Fonts, label, make_labels, save_figure, spell_latin

NAMES = [
    "김철수",
    "金哲秀",
    "ខ្មែរ",
    "မြန်မာ",
    "नेपाली",
    "ລາວ",
    "বাংলা",
    "שלום",
    "مرحبا",
    "サクラ",
    "Żółw",
]
HOSTILE = [
    "cost $ of 10% $", "$\\frac{", "$x$", r"\$\$", "a\nb\x1b[3m", "\ud800", "x" * 300, "_", "", " ",
    "\u202eabc", "é" + "\u0302" * 40, "😀", "{}%s", "\0", "{\\bf",
]  # fmt: skip


@pytest.fixture
def no_fonts(monkeypatch):
    """A machine with matplotlib's own fonts only."""
    own = [entry for entry in font_manager.fontManager.ttflist if "matplotlib" in entry.fname]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", own)
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [])
    fonts = Fonts()
    monkeypatch.setattr(lettering, "open_fonts", lambda: fonts)


def draw(labels, path):
    figure = Figure(figsize=(6, 0.5 + 0.3 * len(labels)), layout="constrained")
    axes = figure.add_subplot()
    axes.set_yticks(range(len(labels)), labels)
    axes.set_title(labels[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # such as of a glyph that is missing
        save_figure(figure, path)
    return np.asarray(Image.open(path).convert("L"))


@pytest.mark.parametrize("names", [NAMES, HOSTILE])
def test_every_name_is_drawn_without_a_warning(no_fonts, tmp_path, names):
    shown = make_labels(names)
    assert draw(shown, tmp_path / "a.png").min() < 100
    assert len(set(shown)) == len(names)


def test_scripts_without_a_font_are_spelled_in_latin_letters_and_said_once(no_fonts, capsys):
    assert make_labels(["김철수", "नेपाली", "Kim"]) == ["GimCheolSu", "nepali", "Kim"]
    make_labels(["이영희"])
    said = capsys.readouterr().err
    assert said.count("no font of this machine") == 1 and "김철수 as GimCheolSu" in said


def test_a_font_of_the_machine_is_used(no_fonts, tmp_path):
    stix = next(e for e in font_manager.fontManager.ttflist if e.name == "STIXGeneral")
    own = FT2Font(font_manager.findfont("DejaVu Sans"))
    odd = next(
        chr(code) for code in sorted(FT2Font(stix.fname).get_charmap())
        if not own.get_char_index(code) and chr(code).isprintable()
    )  # fmt: skip
    assert make_labels([odd]) == [odd]
    assert len(lettering.open_fonts().families) == 2
    assert (draw([odd], tmp_path / "b.png") != draw([" "], tmp_path / "a.png")).any()


def test_fonts_installed_since_matplotlib_made_its_list_are_found(no_fonts, monkeypatch):
    own = list(font_manager.fontManager.ttflist)
    stix = next(entry.fname for entry in own if entry.name == "STIXGeneral")
    monkeypatch.setattr(
        font_manager.fontManager, "ttflist", [e for e in own if e.name == "DejaVu Sans"]
    )
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [stix, "/no/such/font.ttf"])
    assert "STIXGeneral" in [entry.name for entry in lettering._list_fonts()]


def test_a_script_that_needs_shaping_is_spelled_where_matplotlib_cannot(no_fonts, monkeypatch):
    monkeypatch.setattr(lettering.open_fonts(), "_can_shape", False)
    assert make_labels(["שלום", "Kim"]) == ["slvm", "Kim"]


@settings(max_examples=200)
@given(st.lists(st.text(max_size=60), unique=True, max_size=8), st.integers(5, 40))
def test_labels_are_short_and_never_mathematics(names, most):
    shown = make_labels(names, most)
    assert len(shown) == len(names)
    for text in shown:
        assert len(text.replace(r"\$", "$")) <= most + 4  # a number that tells it apart
        assert "$" not in text.replace(r"\$", "") and "\n" not in text


def test_long_names_are_cut_and_told_apart():
    names = ["x" * 50 + end for end in "abc"]
    assert make_labels(names, 6) == ["xxxxx…", "xxxxx… (2)", "xxxxx… (3)"]
    assert make_labels(["x", "x"]) == ["x", "x"]  # the same name
    assert label("cost $ of 10% $") == r"cost \$ of 10% \$"
    assert spell_latin("밴드 1\n") == "BaenDeu 1\\x0a"
