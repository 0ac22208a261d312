"""CSV as it is written: read back as it was, and harmless in a spreadsheet."""

import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from ecofm.tables import read_table, write_csv

TEXT = st.text(
    st.characters(codec="utf-8", exclude_characters="\0\r"), min_size=1, max_size=12
).filter(str.strip) | st.sampled_from(["-Kim", "=x", "'=x", "@a", "a;=b", "\t=x", '"=x', "+"])


@given(st.lists(st.tuples(TEXT, TEXT), min_size=2, max_size=6))
def test_names_come_back_as_they_were(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("csv") / "table.csv"
    frame = pd.DataFrame(rows, columns=["annotator", "item"])
    write_csv(frame, path)
    read = read_table(path)
    assert list(zip(read.text("annotator"), read.text("item"), strict=True)) == rows


def test_numbers_stay_numbers_and_names_of_columns_are_names_too(tmp_path):
    frame = pd.DataFrame({"=cmd": ["@a", None], "score": [-0.5, float("nan")], "n": [-1, 2]})
    frame["flag"] = [True, False]
    write_csv(frame, tmp_path / "a.csv")
    lines = (tmp_path / "a.csv").read_text().splitlines()
    assert lines == ["'=cmd,score,n,flag", "'@a,-0.5,-1,True", ",,2,False"]
    assert read_table(tmp_path / "a.csv").columns == ["=cmd", "score", "n", "flag"]


def test_an_empty_table_has_its_header_and_halves_of_pairs_are_written_out(tmp_path):
    write_csv(pd.DataFrame(columns=["a", "b"]), tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text() == "a,b\n"
    write_csv(pd.DataFrame({"file": ["bad\udcff.tif"]}, dtype=object), tmp_path / "b.csv")
    assert (tmp_path / "b.csv").read_text() == "file\nbad\\udcff.tif\n"


def test_two_columns_of_one_name_are_both_written(tmp_path):
    write_csv(pd.DataFrame([["=a", 1]], columns=["x", "x"]), tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text() == "x,x\n'=a,1\n"
