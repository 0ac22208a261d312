"""Reading and writing tables: every fault is refused with file, line and what to do."""

import pandas as pd
import pytest

from ecofm.compare.comparison import Comparison
from ecofm.compare.exchange import read_comparisons
from ecofm.compare.store import Store
from ecofm.compare.tables import write_table
from ecofm.errors import ComparisonError

HEADER = b"annotator,left,right,outcome\n"


def write(tmp_path, content, name="answers.csv"):
    path = tmp_path / name
    path.write_bytes(content)
    return path


def test_comparisons_are_read_from_csv(tmp_path):
    content = b"\xef\xbb\xbf" + HEADER + b'ada,03,"a,b",left\r\n\r\n"\xea\xb9\x80",3,4, tie \r\n'
    frame = read_comparisons(write(tmp_path, content))
    assert frame.values.tolist() == [["ada", "3", "a,b", "left"], ["김", "3", "4", "tie"]]
    assert [str(dtype) for dtype in frame.dtypes] == ["str"] * 4


def test_orderings_are_expanded_and_other_columns_ignored(tmp_path):
    path = write(tmp_path, b"note,ordering,annotator\nx,3=4>1,ada\n")
    assert read_comparisons(path).values.tolist() == [
        ["ada", "3", "4", "tie"],
        ["ada", "3", "1", "left"],
        ["ada", "4", "1", "left"],
    ]


def test_kind_is_told_by_content_not_by_suffix(tmp_path):
    frame = pd.DataFrame({"annotator": ["ada"], "left": [3], "right": [4], "outcome": ["skip"]})
    frame.to_parquet(tmp_path / "answers.txt")
    assert read_comparisons(tmp_path / "answers.txt").values.tolist() == [["ada", "3", "4", "skip"]]
    frame.astype({"outcome": "category"}).to_parquet(tmp_path / "answers.csv")
    assert read_comparisons(tmp_path / "answers.csv").loc[0, "outcome"] == "skip"
    with Store(tmp_path / "store.csv") as store:
        store.add_tables([("ordering", [Comparison("ada", "3", "4", "left")])])
    assert read_comparisons(tmp_path / "store.csv").values.tolist() == [["ada", "3", "4", "left"]]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (b",,,\n,,\n", "blank"),
        (HEADER, "no answers"),
        (b"annotator;order\nada;3>4\n", "columns are"),
        (b"annotator,left,right\nada,3,4\n", "columns are"),
        (b"annotator,annotator,ordering\nada,ada,3>4\n", "columns are"),
        (b"annotator,left,right,outcome,ordering\nada,3,4,tie,3>4\n", "columns are"),
        (HEADER + b"ada,3,4,left\nada,3,4,lft\n", "line 3: the outcome is 'lft'"),
        (HEADER + b"ada,3,4,left\nada,3,03,left\n", "line 3: .* with itself"),
        (HEADER + b"ada,3,4\n", "line 2: found 3 fields, expected 4"),
        (HEADER + b"ada,3,,left\n", "line 2: an item's name is empty"),
        (HEADER + b",3,4,left\n", "line 2: the annotator's name is empty"),
        (HEADER + b"ada,3,\x004,left\n", "line 2 holds a zero byte"),
        (HEADER + b"ada,3,\x014,left\n", "line 2: .*control character"),
        (HEADER + b'ada,3,"4\n5",left\n', "line 2: .*control character"),
        (HEADER + b"ada,3,4,left\nada,\xff,4,left\n", "line 3: byte 0xff is not UTF-8"),
        (HEADER + b"ada,3," + b"x" * 300 + b",left\n", "line 2: .* 300 characters"),
        (
            HEADER + b"ada,3," + b"x" * 200_000 + b",left\n",
            "line 2 cannot be read as a table .*limit",
        ),
        (HEADER + b'ada,3,"4,left\n', "line 2 cannot be read as a table"),
        (b"annotator,ordering\nada,3>4\nbo,3<4\n", "line 3: .*best first"),
        (b"PAR1 and then nothing", "Parquet"),
        (b"\x89PNG\r\n\x1a\n", "line 1: byte 0x89"),
        (b"SQLite format 3\x00 and then nothing", "is damaged"),
    ],
)
def test_bad_files_are_refused_with_the_line(tmp_path, content, words):
    path = write(tmp_path, content)
    with pytest.raises(ComparisonError, match=words) as caught:
        read_comparisons(path)
    message = str(caught.value)
    assert str(path) in message and message.isprintable() and len(message) < 400 + len(str(path))


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ([3.5], "row 1: an item's name is '3.5'"),
        ([None], "row 1: an item's name is empty"),
        ([["a"]], "list"),
        ([b"a"], "binary"),
    ],
)
def test_parquet_columns_of_other_types_are_refused(tmp_path, column, words):
    frame = pd.DataFrame({"annotator": ["ada"], "left": column, "right": ["4"], "outcome": ["tie"]})
    frame.to_parquet(tmp_path / "answers.parquet")
    with pytest.raises(ComparisonError, match=words):
        read_comparisons(tmp_path / "answers.parquet")


def test_parquet_faults_name_the_row(tmp_path):
    pd.DataFrame({"annotator": ["a", "b"], "ordering": ["1>2", "1"]}).to_parquet(tmp_path / "a")
    with pytest.raises(ComparisonError, match="row 2: the ordering has 1 item"):
        read_comparisons(tmp_path / "a")


def test_missing_files_and_folders_are_refused(tmp_path):
    with pytest.raises(ComparisonError, match="No such file"):
        read_comparisons(tmp_path / "none.csv")
    with pytest.raises(ComparisonError, match="it is a folder, expected a file"):
        read_comparisons(tmp_path)


def test_tables_are_written_by_suffix_or_not_at_all(tmp_path):
    frame = pd.DataFrame({"item": ["3"], "score": [0.5]})
    for name in ("deep/out.csv", "out.PARQUET"):
        write_table(frame, tmp_path / name)
    assert (tmp_path / "deep/out.csv").read_bytes() == b"item,score\n3,0.5\n"
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "out.PARQUET"), frame)
    with pytest.raises(ComparisonError, match=r"'\.xlsx', expected \.csv or \.parquet"):
        write_table(frame, tmp_path / "out.xlsx")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(ComparisonError, match="cannot be written"):
        write_table(frame, tmp_path / "folder.csv")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "folder.csv", "out.PARQUET"]
