"""Names of annotators and items that attack whatever shows them, through the command itself."""

import html

import pandas as pd
import pytest
from PIL import Image

from ecofm.compare.exchange import read_answers
from ecofm.compare.store import Store
from tests.command import run

NAMES = [
    "-Kim", "=x", '=HYPERLINK("http://evil","Kim")', "+82 10", "@SUM(1)", "'=x", "''", "a;=1",
    '"=1', "\uff1d1", "<script>alert(1)</script>", "[a](javascript:x)", "![i](http://e)", "a|b",
    "cost $ of 10% $", "$\\frac{", "`x`", "김철수", "नेपाली", "שלום", "a\u202eb", "x" * 200, "-0.5x",
    "<img src=x onerror=alert(1)>", "__init__", "# h", "- l", "&lt;", "{label}", "%s", "../..", "=",
]  # fmt: skip


@pytest.fixture
def table(tmp_path):
    """Each name once as an annotator and in a chain of items."""
    items = [*NAMES, "base"]
    rows = [
        (who, items[place], items[(place + step) % len(items)], "left")
        for place, who in enumerate(NAMES)
        for step in (1, 2, 5)
    ]
    path = tmp_path / "given.parquet"
    columns = ["annotator", "left", "right", "outcome"]
    pd.DataFrame(rows, columns=columns, dtype="str").to_parquet(path)
    return path


def test_names_come_back_from_csv_as_they_were_and_no_spreadsheet_runs_them(table, tmp_path):
    assert run("compare", "import", table, "--store", tmp_path / "a") == 0
    assert run("compare", "export", "--store", tmp_path / "a", "--out", tmp_path / "a.csv") == 0
    cells = pd.read_csv(tmp_path / "a.csv", dtype=str, keep_default_na=False).to_numpy().ravel()
    assert not any(cell.startswith(tuple("=+-@\uff1d\t\r")) for cell in cells)
    given = read_answers(table).rows
    assert read_answers(tmp_path / "a.csv").rows == given
    assert run("compare", "import", tmp_path / "a.csv", "--store", tmp_path / "b") == 0
    with Store(tmp_path / "b", create=False) as store:
        assert store.comparisons() == given


def test_the_report_shows_names_and_obeys_none(table, tmp_path, capsys):
    assert run("compare", "report", "--store", table, "--out", tmp_path / "r") == 0
    text = (tmp_path / "r" / "report.md").read_text(encoding="utf-8")
    assert not any(sign in text for sign in ("<", "](http", "](java", "$", "\u202e"))
    shown = html.unescape(text)
    assert "<script>alert(1)</script>" in shown and "a\\u202eb" in shown and "김철수" in shown
    for picture in ("levels", "agreement", "hasse"):
        with Image.open(tmp_path / "r" / f"{picture}.png") as image:
            image.verify()
    for name in ("consensus", "annotators", "agreement", "disputes"):
        cells = pd.read_csv(
            tmp_path / "r" / f"{name}.csv", dtype=str, keep_default_na=False
        ).to_numpy().ravel()  # fmt: skip
        assert not any(cell.startswith(tuple("=+@\uff1d\t\r")) for cell in cells)
    printed = "".join(capsys.readouterr())
    assert "\u202e" not in printed and "\x1b" not in printed


def test_what_an_import_leaves_out_is_named_without_power(tmp_path, capsys):
    path = tmp_path / "bad\udcff.csv"
    path.write_text(
        "annotator,left,right,outcome\nada,1,2,left\nada,1,3,left\n\x1b[31mada,2,3,left\n"
    )
    assert run("compare", "import", path, "--store", tmp_path / "a") == 0
    kept = (tmp_path / "a.rejected.csv").read_text(encoding="utf-8")
    assert "bad\\udcff.csv" in kept and "\x1b" not in kept
    assert "\x1b" not in "".join(capsys.readouterr())
