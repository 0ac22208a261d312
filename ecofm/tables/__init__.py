"""Tables that people give, read as their authors meant them; one place for every stage.

`reading` turns files into cells of text, `keys` compares names, `numbers` reads columns of numbers
as offices write them, `sentinels` finds the numbers that stand for nothing, and `writing` writes
CSV that spreadsheets do not run.
"""

from ecofm.tables.keys import Match, canonical, column_name, count, match_keys, quote
from ecofm.tables.numbers import Column, read_number_columns
from ecofm.tables.periods import PERIOD_COLUMNS, match_periods
from ecofm.tables.reading import Records, Table, decode, read_bytes, read_records, read_table
from ecofm.tables.writing import write_csv

__all__ = [
    "PERIOD_COLUMNS",
    "Column",
    "Match",
    "Records",
    "Table",
    "canonical",
    "column_name",
    "count",
    "decode",
    "match_keys",
    "match_periods",
    "quote",
    "read_bytes",
    "read_number_columns",
    "read_records",
    "read_table",
    "write_csv",
]
