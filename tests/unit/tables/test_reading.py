"""Files of tables: every way in which programs write them, a table or one sentence."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ecofm.errors import EcofmError
from ecofm.tables import read_table

CELLS = pd.DataFrame({"cell_id": [f"0{n}" for n in range(50)], "jobs": range(50)})
SUFFIXES = [".csv", ".csv.gz", ".parquet"]
PLAIN = "region,pop\nHanoi,12\nNA,7\n"


def write(path: Path, content: str | bytes | pd.DataFrame) -> Path:
    if isinstance(content, pd.DataFrame):
        is_parquet = path.suffix == ".parquet"
        content.to_parquet(path) if is_parquet else content.to_csv(path, index=False)
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_cells_are_text_with_their_lines(tmp_path: Path, suffix: str) -> None:
    found = read_table(write(tmp_path / f"t{suffix}", CELLS))
    assert found.text("cell_id") == CELLS["cell_id"].tolist()
    assert found.text("jobs") == [str(n) for n in range(50)]
    first = 1 if suffix == ".parquet" else 2
    assert found.lines.tolist() == list(range(first, first + 50))
    assert next(found.rows(["jobs", "cell_id"])) == (first, ("0", "00"))


@pytest.mark.parametrize(
    ("name", "content"),
    {
        "plain": PLAIN,
        "BOM and CRLF": "\ufeff" + PLAIN.replace("\n", "\r\n"),
        "old Mac": PLAIN.replace("\n", "\r"),
        "UTF-16": PLAIN.encode("utf-16"),
        "UTF-16 big": b"\xfe\xff" + PLAIN.encode("utf-16-be"),
        "gzip without its suffix": gzip.compress(PLAIN.encode(), mtime=0),
        "semicolons": PLAIN.replace(",", ";"),
        "tabs": PLAIN.replace(",", "\t"),
        "bars": PLAIN.replace(",", "|"),
        "sep=": "sep=;\r\n" + PLAIN.replace(",", ";"),
        "sep= with a mark, quoted": '\ufeff"sep=\t"\n' + PLAIN.replace(",", "\t"),
        "sep= of a rare mark": "sep=^\n" + PLAIN.replace(",", "^"),
        "empty rows": PLAIN + ",\n , \n\n\u00a0,\u00a0\n",
        "surplus separators": "region,pop,,\nHanoi,12,,,,\nNA,7\n",
        "surplus in rows only": "region,pop\nHanoi,12,\nNA,7,,\n",
        "blank names": " region ,pop  \nHanoi,12\nNA,7\n",
        "empty rows above": "\n,\nregion,pop\nHanoi,12\nNA,7\n",
        "quotes": 'region,"pop"\n"Hanoi","12"\nNA,7\n',
        "row numbers": ",region,pop\n0,Hanoi,12\n1,NA,7\n",
        "row numbers twice": "Unnamed: 0,region,pop\n0,Hanoi,12\n1,NA,7\n",
    }.items(),
)
def test_every_writing_is_the_same_table(tmp_path: Path, name: str, content: str | bytes) -> None:
    found = read_table(write(tmp_path / "t.csv", content))
    assert found.columns == ["region", "pop"]
    assert [cells for _, cells in found.rows(["region", "pop"])] == [("Hanoi", "12"), ("NA", "7")]


def test_decimal_commas_do_not_separate_fields(tmp_path: Path) -> None:
    found = read_table(write(tmp_path / "t.csv", "region;pop, total;area\nA;1,5;2,5\nB;3,5;4,5\n"))
    assert found.columns == ["region", "pop, total", "area"]
    assert found.text("area") == ["2,5", "4,5"]


def test_lines_count_what_an_editor_counts(tmp_path: Path) -> None:
    content = 'sep=;\nregion;note\n\nA;"two\nlines"\n;\nB;x\n'
    found = read_table(write(tmp_path / "t.csv", content))
    assert found.lines.tolist() == [4, 7]
    assert found.at(1) == "line 7"
    assert found.notes[-1] == "t.csv: left out 1 empty row."


def test_columns_are_found_in_any_case(tmp_path: Path) -> None:
    found = read_table(write(tmp_path / "t.csv", "Cell ID,POP\n1,2\n"))
    assert (found.find("y_x", "cell_id"), found.find("pop"), found.find("x")) == (
        "Cell ID", "POP", None,
    )  # fmt: skip


def test_parquet_keeps_long_codes_and_says_nothing_for_missing_ones(tmp_path: Path) -> None:
    code = 9_007_199_254_740_993
    table = pd.DataFrame({"code": pd.array([code, None, None], dtype="Int64")})
    table["name"] = pd.Categorical(["nan", None, None])
    table["share"] = [0.5, np.nan, np.nan]
    found = read_table(write(tmp_path / "t.parquet", table))
    assert found.text("code") == [str(code)]
    assert found.text("name") == ["nan"]
    assert found.text("share") == ["0.5"]
    assert found.notes == ("t.parquet: left out 2 empty rows.",)


def test_geometries_and_lists_of_parquet_are_left_out_and_named(tmp_path: Path) -> None:
    table = pd.DataFrame({"region": ["A", "B"], "geometry": [b"1", b"2"], "parts": [[1], [2]]})
    found = read_table(write(tmp_path / "t.parquet", table))
    assert found.columns == ["region"]
    assert found.notes == (
        "t.parquet: left out geometry (binary), parts (list<element: int64>), neither text nor "
        "numbers.",
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("region,pop\nA,1\nB\n", ["line 3", "1 field", "expected 2"]),
        ("region,pop\nA,1\nB,1,300\n", ["line 3", "3 fields", "expected 2"]),
        ("Census 2019\n\nregion,pop\nA,1\n", ["line 3", "expected 1", "line 1"]),
        ("region,,pop\nA,x,1\n", ["column 2 has no name", "'x' (line 2)", "Line 1"]),
        ("Census,\nregion,pop\nA,1\n", ["column 2 has no name", "remove a title above"]),
        ("<html><table>", ["a web page"]),
        ("region,pop,pop \nA,1,2\n", ["two columns 'pop'"]),
        ("région,pop\nA,1\n".encode("latin-1"), ["line 1", "0xe9", "UTF-8"]),
        ("region,pop\nA,1\n".encode("utf-16-le"), ["line 1", "zero byte"]),
        ('region,pop\nA,"1\n', ["line 2"]),
        (b"PK\x03\x04 xlsx", ["workbook", "CSV"]),
        (b"\xd0\xcf\x11\xe0 xls", ["Excel"]),
        ("", ["empty"]),
        (",,\n \n", ["blank lines"]),
        (gzip.compress(PLAIN.encode(), mtime=0)[:-9], ["cannot be read as a table"]),
    ],
)
def test_what_is_no_table_is_refused_by_line(
    tmp_path: Path, content: str | bytes, words: list[str]
) -> None:
    path = write(tmp_path / "t.csv", content)
    with pytest.raises(EcofmError) as error:
        read_table(path)
    assert all(word in str(error.value) for word in [str(path), *words]), str(error.value)


@pytest.mark.parametrize("suffix", SUFFIXES)
@given(place=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255), cut=st.booleans())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damage_is_answered_in_one_sentence(
    tmp_path: Path, suffix: str, place: float, flip: int, cut: bool
) -> None:
    path = write(tmp_path / f"t{suffix}", CELLS)
    content = bytearray(path.read_bytes())
    at = int(place * len(content))
    content[at] ^= flip
    path.write_bytes(content[:at] if cut else content)
    try:
        read_table(path)
    except EcofmError as error:
        assert str(path) in str(error)


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(EcofmError, match=r"missing\.csv"):
        read_table(tmp_path / "missing.csv")


FIELDS = st.text(
    st.characters(codec="utf-8", exclude_characters="\0\r"), min_size=1, max_size=8
).filter(str.strip)


@given(
    rows=st.lists(st.tuples(FIELDS, FIELDS), min_size=1),
    separator=st.sampled_from(",;\t|"),
)
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_was_written_is_read(
    tmp_path: Path, rows: list[tuple[str, str]], separator: str
) -> None:
    frame = pd.DataFrame(rows, columns=["name", "note"])
    text = f"sep={separator}\n" + frame.to_csv(index=False, sep=separator, quoting=1)
    found = read_table(write(tmp_path / "t.csv", text))
    assert [cells for _, cells in found.rows(["name", "note"])] == rows


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            "Census of 2019\n" + PLAIN,
            "if line 1, 'Census of 2019', is a title or a comment, remove",
        ),
        (
            "# source: office\n" + PLAIN,
            "line 1, '# source: office', is a title or a comment, remove",
        ),
        (PLAIN + "Source: office\n", "line 4: found 1 field, .* remove it if it is .* a footnote"),
    ],
)
def test_titles_and_footnotes_are_to_be_removed(tmp_path: Path, content: str, words: str) -> None:
    with pytest.raises(EcofmError, match=words):
        read_table(write(tmp_path / "t.csv", content))
