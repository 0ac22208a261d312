"""The time of rows: ours that a written period falls in."""

from __future__ import annotations

import pytest

from ecofm.tables import match_periods


@pytest.mark.parametrize(
    ("written", "ours", "meant"),
    [
        ("2019", ["2018", "2019"], "2019"),
        ("2019.0", ["2019"], "2019"),
        (" 2019 ", ["2019"], "2019"),
        ("2019-01-01", ["2018", "2019"], "2019"),
        ("2019-12-31 00:00:00", ["2019", "2020"], "2019"),
        ("2019-12-31T00:00:00Z", ["2019", "2020"], "2019"),
        ("31/12/2019", ["2019", "2020"], "2019"),
        ("2019-06", ["2019-Q1", "2019-Q2"], "2019-Q2"),
        ("2019Q2", ["2019-Q1", "2019-Q2"], "2019-Q2"),
        ("2019-06-12", ["2019-06-12", "2019"], "2019-06-12"),
        ("2019-06-12", ["2019-06-11", "2019"], "2019"),
        ("mean4", ["mean4"], "mean4"),
        ("2019", ["2019-Q1", "2019-Q2"], None),
        ("2019", ["2019-06-12"], None),
        ("2019-06-12", ["2019", "2019-Q2"], None),
        ("31/12/2019", ["2019-Q4"], None),
        ("2019-13-01", ["2019"], None),
        ("1066", ["2019"], None),
        ("", ["2019"], None),
    ],
)
def test_a_row_is_of_the_period_that_holds_its_time(
    written: str, ours: list[str], meant: str | None
) -> None:
    assert match_periods([written], ours).get(written) == meant
