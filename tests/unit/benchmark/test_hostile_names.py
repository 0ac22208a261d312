"""Names of columns and regions that attack whatever shows them."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from PIL import Image

COLUMNS = [
    "cost $ of 10% $", "$\\frac{", "<script>alert(1)</script>", "=HYPERLINK(1)", "인구", "면적",
    "a|b", "[x](http://y)", "x" * 150, "../up", "\u202eabc", "-sum", "POP", "pop",
]  # fmt: skip


def test_columns_of_any_name_are_compared_drawn_and_shown(
    nation: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    table = pd.DataFrame({"region": nation.names})
    for number, name in enumerate(COLUMNS):
        table[name] = nation.people * (number + 1) + number
    report = nation.run(table, nation.named())
    targets = {figure["target"] for figure in report["figures"]}
    assert targets >= set(COLUMNS) - {"POP", "pop"}
    folder = nation.folder / "report"
    text = (folder / "report.md").read_text(encoding="utf-8")
    assert not any(sign in text for sign in ("<", "](http", "$", "\u202e"))
    pictures = sorted(folder.glob("*.png"))
    assert len(pictures) == 2 * len(targets)  # none in another's place
    assert len({path.name.casefold() for path in pictures}) == len(pictures)
    for path in pictures:
        assert f"]({path.name})" in text
        with Image.open(path) as image:
            image.verify()
    assert "GimCheol" not in capsys.readouterr().out


def test_regions_of_any_name_are_listed_without_power(nation: Any) -> None:
    names = [f"=R{n}" if n % 2 else f"-R{n}" for n in range(20)]
    table = pd.DataFrame({"region": [*names[:-1], "=nowhere"], "people": nation.people})
    report = nation.run(table, nation.named(names))
    assert nation.compared(report)[0] == 19
    written = (nation.folder / "report" / "unmatched.csv").read_text(encoding="utf-8")
    assert ",''=nowhere' (line 21)," in written and ",'=R19," in written
