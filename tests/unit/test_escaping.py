"""Names from anybody: terminals, Markdown, HTML and spreadsheets show them and do nothing else."""

import html
import re
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ecofm.escaping import (
    escape_cell,
    for_html,
    for_markdown,
    for_terminal,
    unescape_cell,
    visible,
)
from ecofm.types import print_result, say

SPREADSHEET = "=+-@'\"; \t\r\n,a1.e\uff1d\uff0b\u200b\ufeff\xa0é"


@given(st.text(alphabet=SPREADSHEET, max_size=9) | st.text())
@example("-Kim")
@example("'=x")
@example("'\t=x")
@example("\t")
@example("''")
def test_cells_come_back_as_they_were_and_no_spreadsheet_runs_them(cell):
    written = escape_cell(cell)
    assert unescape_cell(written) == cell
    assert not written.startswith(("\t", "\r", "\n"))
    for part in re.split("[;\t\r\n]", written):
        bare = part.lstrip(' "\xa0\u200b\ufeff')
        is_number = re.fullmatch(r"\s*[+-]?[\d.]+(e[+-]?\d+)?\s*", part, re.IGNORECASE)
        assert is_number or bare[:1] not in tuple("=+-@\uff1d\uff0b"), written


@pytest.mark.parametrize(
    "cell", ["-0.5", "+3", "1e-9", "-1E+5", "", "Kim", "'tis", "a-b", "3=4>1>0"]
)
def test_numbers_and_plain_words_stay(cell):
    assert escape_cell(cell) == unescape_cell(cell) == cell


@pytest.mark.parametrize(
    "cell",
    ['=HYPERLINK("http://x")', "@SUM(A1)", "+82 10", "-2+3+cmd|' /C calc'!A0", " =1", '"=1',
     "\uff1d1", "a;=1", "a\n=1", "'=1", "\u200b=1", "-"],
)  # fmt: skip
def test_what_a_spreadsheet_would_run_gets_an_apostrophe(cell):
    assert escape_cell(cell).count("'") == cell.count("'") + 1


@given(st.text())
def test_nothing_that_acts_or_hides_is_left(text):
    shown = visible(text)
    assert not any(unicodedata.category(sign) in ("Cc", "Cs", "Zl", "Zp") for sign in shown)
    assert not set(shown) & set("\u202e\u202d\u2066\u2069\u200e\u200f\u061c\ufeff\u00ad\U000e0041")


def test_joiners_of_scripts_and_emoji_stay():
    assert visible("क्\u200dष 👩\u200d👧") == "क्\u200dष 👩\u200d👧"


@given(st.text(min_size=1))
def test_markdown_and_html_show_the_text_itself(text):
    assert html.unescape(for_markdown(text)) == visible(text)
    assert html.unescape(for_html(text)) == visible(text, keep="\n")
    assert not set(for_markdown(text)) & set("<>|`*[]\\~$@\n")
    assert not set(for_html(text)) & set("<>\"'")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<script>alert(1)</script>", "&#60;script&#62;alert(1)&#60;/script&#62;"),
        ("![x](http://y)", "!&#91;x&#93;(http&#58;//y)"),
        ("a|b\n# c", "a&#124;b&#92;x0a&#35; c"),
        ("- item", "&#45; item"),
        ("1. item", "1&#46; item"),
        ("    code", "&#32;   code"),
        ("===", "&#61;=="),
        ("mean_blue", "mean_blue"),
        ("__init__", "&#95;&#95;init&#95;&#95;"),
        ("cost $ of 10% $", "cost &#36; of 10% &#36;"),
        ("www.x.org", "www&#46;x.org"),
        ("0.85", "0.85"),
        ("-0.5", "-0.5"),
        ("---", "&#45;--"),
    ],
)
def test_markdown_escapes(text, shown):
    assert for_markdown(text) == shown


HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31mred\u202egnp.exe\ud800\r"


def test_what_is_printed_has_no_power_over_the_terminal(capsys):
    say(f"left out: {HOSTILE}\n  and more")
    print_result(f"a\tb {HOSTILE}")
    for printed in capsys.readouterr():
        assert not set(printed) & set("\x1b\x07\x9b\u202e\ud800\r")
        assert "\\x1b[2J" in printed


def test_a_terminal_of_another_encoding_gets_codes():
    assert for_terminal("김 é", "latin-1") == "\\uae40 é"
