"""Files as Excel, pandas, Google Sheets and Label Studio leave them: the good answers are taken."""

import json

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecofm.cli import main
from ecofm.compare.comparison import SPELLINGS, normalize_item, parse_outcome
from ecofm.compare.exchange import import_files, name_rejected, read_comparisons
from ecofm.compare.members import read_members
from ecofm.compare.store import Store
from ecofm.errors import ComparisonError

HEADER = "annotator,left,right,outcome"
ROWS = [
    ["ada", "1", "2", "left"], ["ada", "2", "3", "left"],
    ["bo", "1", "3", "right"], ["bo", "3", "2", "tie"],
]  # fmt: skip
LINES = [HEADER, *map(",".join, ROWS)]
TEXT = "\n".join(LINES) + "\n"
PAIRWISE = {"type": "pairwise", "from_name": "pw", "to_name": "left,right"}
TIE = {"type": "choices", "from_name": "tie", "to_name": "left", "value": {"choices": ["tie"]}}
DATA = {"left": "1", "right": "2"}


def write(folder, content, name="answers.csv"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def take(folder, content, name="answers.csv"):
    """Import a file; returns what the store holds then, and what was left out."""
    found = import_files([write(folder, content, name)], folder / "votes")
    with Store(folder / "votes") as store:
        return [list(row) for row in store.comparisons()], found.rejected


@pytest.mark.parametrize(
    "content",
    [
        TEXT.replace(",", ";"),
        TEXT.replace(",", "\t"),
        "sep=;\r\n" + TEXT.replace(",", ";").replace("\n", "\r\n"),
        '"sep=\t"\n' + TEXT.replace(",", "\t"),
        b"\xef\xbb\xbfSEP=,\r\n" + TEXT.encode(),
        TEXT.replace(",", "\t").encode("utf-16"),
        b"\xfe\xff" + TEXT.encode("utf-16-be"),
        TEXT.replace("\n", "\r"),
        TEXT.replace("\n", ",,,\r\n"),
        ",,,\n\n" + TEXT.replace("\n", "\n ,,,\n") + ",,,\n",
        HEADER + "\n" + ",,\n".join(LINES[1:]),
        TEXT.replace(HEADER, ' Annotator, "Left" ,RIGHT,Outcome ').replace('"', ""),
        "\n".join(",".join(f'"{cell}"' for cell in line.split(",")) for line in LINES),
        HEADER + ",note\n" + "\n".join(LINES[1:]),
    ],
    ids=["semicolons", "tabs", "sep line", "quoted sep line", "sep line after a mark", "utf-16",
         "utf-16 big", "returns", "trailing commas", "blank rows", "commas after rows only",
         "header", "quotes", "short rows"],
)  # fmt: skip
def test_tables_of_spreadsheets_are_read(tmp_path, content):
    assert take(tmp_path, content) == (ROWS, [])


def test_what_pandas_writes_is_read(tmp_path):
    frame = pd.DataFrame([*ROWS, [None] * 4], columns=HEADER.split(","))
    frame = frame.astype({"left": float, "right": float})
    frame.to_csv(tmp_path / "index.csv")
    frame.iloc[[0, 2, 3, 4]].to_csv(tmp_path / "gaps.csv")
    frame.set_index(pd.Index([4, 5, 6, 7, 8], name="n")).to_parquet(tmp_path / "a.parquet")
    for name, expected in (("index.csv", ROWS), ("gaps.csv", [ROWS[0], *ROWS[2:]])):
        assert read_comparisons(tmp_path / name).to_numpy().tolist() == expected
    assert read_comparisons(tmp_path / "a.parquet").to_numpy().tolist() == ROWS


def test_good_rows_are_taken_and_bad_ones_named(tmp_path, capsys):
    bad = ["bo,1,1.0,left", ",1,2,left", "bo,1,2,lft", "bo,1,2", "bo,Paris, Lyon,2,left", "bo,4,5,"]
    path = write(tmp_path, TEXT + "\n".join([*bad, "cy,7,8,RIGHT"]))
    main(["compare", "import", str(path), "--store", str(tmp_path / "votes")])
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith(f"{path}, line 6: item '1' is compared with itself")
    assert len(said) == 5 + 2 and said[-2].endswith("5 comparisons added, 0 known already")
    assert said[-1].startswith("6 answers were left out;")
    table = pd.read_csv(name_rejected(tmp_path / "votes"))
    assert table["place"].tolist() == [f"line {number}" for number in range(6, 12)]
    assert "found 3 fields" in table["reason"][3] and "found 5 fields" in table["reason"][4]
    assert "no outcome yet" in table["reason"][5] and set(table["file"]) == {str(path)}
    with Store(tmp_path / "votes") as store:
        assert [list(row) for row in store.comparisons()] == [*ROWS, ["cy", "7", "8", "right"]]
    # The same again adds nothing; a file without faults takes the table away.
    assert import_files([path], tmp_path / "votes").n_added == 0
    import_files([write(tmp_path, TEXT)], tmp_path / "votes")
    assert not name_rejected(tmp_path / "votes").exists()


def test_strict_imports_nothing(tmp_path, capsys):
    path = write(tmp_path, TEXT + "bo,1,2,lft\n")
    with pytest.raises(SystemExit, match="1"):
        main(["compare", "import", str(path), "--store", str(tmp_path / "votes"), "--strict"])
    assert "line 6: the outcome is 'lft'" in capsys.readouterr().err
    assert not (tmp_path / "votes").exists() and name_rejected(tmp_path / "votes").exists()


def test_other_verbs_refuse_a_fault_and_say_how_to_go_on(tmp_path):
    path = write(tmp_path, TEXT + "bo,1,2,lft\n")
    with pytest.raises(ComparisonError, match=r"line 6: .* 1 of 5 answers .*ecofm compare import"):
        read_comparisons(path)
    said = []
    assert len(read_comparisons(write(tmp_path, TEXT + "bo,1,2,\n"), said.append)) == 4
    assert said == [f"{path}: 1 question without an answer left out."]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (f"{HEADER}\nada,1,2,left\nada,1,2,x\nada,1,2,y\n", "line 3: .*2 of 3 answers .*Nothing"),
        (f"{HEADER}\nada,1,2,\nbo,1,2,\n", "2 questions and no answers"),
        ("annotator;ordering\nada;1<2\nbo;3>4\ncy;2<1\n", "line 2: .*2 of 3 answers"),
        ("annotator;ordering;outcome;left;right\nada;1>2;left;1;2\n", "the columns are"),
        ("annotator,Left,left,right,outcome\nada,1,2,3,left\n", "the columns are"),
        ("Timestamp,Which is richer?\n2024,Left\n", "the columns are"),
        ("\n\nada,1,2,left\nbo,1,2,left\n", "line 3: the columns are"),
        (b"PK\x03\x04 and more", "save it as CSV"),
        ((HEADER + "\nJosé,1,2,left").encode("latin-1"), "line 2: byte 0xe9 is not UTF-8"),
        (TEXT + 'ada,"1,2,left\nbo,1,2,left\n', "line 6 cannot be read"),
        (f"{HEADER}\nada,1.0,1.1,left\nada,2.0,1.0,left\n", "'1.0' and '1.1': .* cannot be told"),
        ("annotator,ordering\nada,2.0>1.0>1.5\n", "'1.0' and '1.5'"),
    ],
)
def test_files_of_another_kind_are_refused_as_a_whole(tmp_path, content, words):
    with pytest.raises(ComparisonError, match=words):
        take(tmp_path, content)
    assert not (tmp_path / "votes").exists()


def test_a_bad_line_of_an_ordering_file_is_named(tmp_path):
    rows, left_out = take(tmp_path, "0.0<1\n1<02.0\nno line\n", "ada.txt")
    assert ["ada", "2", "0", "left"] in rows and len(rows) == 3
    assert len(left_out) == 1 and "ada.txt, line 3: found 'no line'" in left_out[0]


@pytest.mark.parametrize(
    ("name", "item"),
    [("1.0", "1"), ("01", "1"), ("007.00", "7"), ("0.0", "0"), ("2,0", "2"), ('="03"', "3"),
     ("v1.0", "v1.0"), ("52SCG_1.0", "52SCG_1.0"), ("1.0.0", "1.0.0"), ("12e5", "12e5"),
     (" two  words ", "two words"), ("Ko\u0308ln", "Köln"), ("NA", "NA"), ("Nan", "Nan"),
     ("52S_1_2@2019", "52S_1_2@2019")],
)  # fmt: skip
def test_names_are_taken_as_they_were_meant(name, item):
    assert normalize_item(name) == item


@pytest.mark.parametrize(
    "name", ["1.5", "1,5", "1.000", "12,000", "1.234.567", "1.2E+11", "1e+20", "nan", "NaN", ""]
)
def test_names_that_programs_spoiled_are_refused(name):
    with pytest.raises(ComparisonError):
        normalize_item(name)


@given(st.text(max_size=8))
def test_names_stay_once_they_are_normalised(name):
    try:
        item = normalize_item(name)
    except ComparisonError:
        return
    assert normalize_item(item) == item


@given(st.sampled_from([(o, s) for o, others in SPELLINGS.items() for s in (o, *others)]))
def test_outcomes_are_read_in_every_spelling(found):
    outcome, spelling = found
    for written in (spelling, spelling.upper(), f" {spelling.title()}\t"):
        assert parse_outcome(written) == outcome
    assert parse_outcome("Can\u2019t  tell") == "skip"


def task(*annotations, data=None, **more):
    return {"id": 7, "data": data or DATA, "annotations": list(annotations), **more}


def annotate(*result, by=1, **more):
    return {"completed_by": by, "was_cancelled": False, "result": list(result), **more}


def select(side):
    return PAIRWISE | {"value": {"selected": side}}


@pytest.mark.parametrize(
    ("tasks", "outcomes", "left_out"),
    [
        ([task(annotate(select("left")), annotate())], ["left"],
         "annotation 2: its result is empty"),
        ([task(annotate(select("left"))), task()], ["left"], None),
        ([task(annotate(select("left")), *[annotate()] * 5)], ["left"], "is empty"),
        ([task(annotate(select("left"), was_cancelled=True))], ["skip"], None),
        ([task(annotate(select("left"), select("left")))], ["left"], None),
        ([task(annotate(select("right")), annotate(select("left"), select("right")))], ["right"],
         "selects both left and right"),
        ([task(annotate(select("right")), annotate(select("left"), TIE))], ["right"],
         "both left and tie"),
        ([task(annotate(TIE))], ["tie"], None),
        ([task(annotate(select("left"), {"type": "choices", "value": {"choices": ["hazy"]}}))],
         ["left"], None),
        ([task(annotate(select("left")), predictions=[annotate(select("right"))])], ["left"], None),
        ([task(annotate(select("Left")), data={"Left": 1.0, "RIGHT": "02"})], ["left"], None),
        ([task(annotate(select("left"), by={"id": 1})), task({"result": [select("left")]})],
         ["left"], "task 2, annotation 1: .*completed_by"),
        ([task(annotate(select("left"))), task(annotate(select("left")), data={"left": None,
         "right": 2})], ["left"], "task 2, annotation 1: its item left is 'None'"),
        ([task(annotate(select("left"))), 3], ["left"], "task 2: it is '3'"),
    ],
)  # fmt: skip
def test_label_studios_exports_are_read_by_annotation(tmp_path, tasks, outcomes, left_out):
    rows, rejected = take(tmp_path, json.dumps(tasks), "export.json")
    assert rows == [["1", "1", "2", outcome] for outcome in outcomes]
    if left_out is None:
        assert not rejected
    else:
        assert all(pd.Series(rejected).str.contains(left_out))


def test_label_studios_short_exports_are_read_too(tmp_path):
    base = {"annotator": 3, "annotation_id": 1, "id": 7, "lead_time": 2.5, **DATA}
    said = [{"pw": [{"selected": "left"}]}, {"pw": [], "same": "tie"}, {"pw": [], "note": "tie?"}]
    records = [base | own for own in said]
    expected = [["3", "1", "2", "left"], ["3", "1", "2", "tie"]]
    rows, rejected = take(tmp_path, json.dumps(records), "min.json")
    assert rows == expected and len(rejected) == 1 and "task 3: its result is empty" in rejected[0]
    cells = [{**record, "pw": json.dumps(record["pw"])} for record in records]
    pd.DataFrame(cells).to_csv(tmp_path / "export.csv", index=False)
    found = import_files([tmp_path / "export.csv"], tmp_path / "votes")
    assert (found.n_added, found.n_known) == (0, 2)
    assert "line 4: its result is empty" in found.rejected[0]


def test_members_are_read_as_people_write_them(tmp_path):
    path = write(tmp_path, "sep=;\nTile_ID; Item \na@2019;1.0\nb@2019;02\n;\n", "members.csv")
    assert read_members(path).to_numpy().tolist() == [["a@2019", "1"], ["b@2019", "02"]]
    frame = pd.DataFrame({"tile_id": ["a", "b"], "item": [2.0, 1.0], "distance": [0.5, 0.1]})
    frame.to_parquet(tmp_path / "members.parquet")
    expected = [["b", "1"], ["a", "2"]]
    assert read_members(tmp_path / "members.parquet").to_numpy().tolist() == expected


@pytest.mark.parametrize(
    ("rows", "words"),
    [("a,1\nb,\n", "in line 3"), (",1\n", "in line 2"), ("a,1.0\nb,1.5\n", "'1.0' and '1.5'"),
     ("a,1\nb,1.5\n", "line 3: an item's name is '1.5'"), ("a,1\nb,1,2\n", "line 3: found 3")],
)  # fmt: skip
def test_unusable_members_are_refused_with_the_line(tmp_path, rows, words):
    with pytest.raises(ComparisonError, match=words):
        read_members(write(tmp_path, "tile_id,item\n" + rows, "members.csv"))


@pytest.mark.parametrize("word", ["left", "Right ", "tie", "skip"])
@pytest.mark.parametrize("suffix", [".json", ".csv"])
def test_label_studios_choices_are_read_from_flat_exports(tmp_path, word, suffix):
    record = {
        "id": 1,
        "left": "1",
        "right": "2",
        "annotator": 1,
        "annotation_id": 1,
        "choice": word,
    }
    path = tmp_path / f"flat{suffix}"
    if suffix == ".json":
        path.write_text(json.dumps([record, record | {"choice": {"choices": [word]}}]))
    else:
        pd.DataFrame([record, record]).to_csv(path, index=False)
    expected = ["1", "1", "2", word.strip().lower()]
    assert read_comparisons(path).values.tolist() == [expected] * 2


def test_a_word_of_the_data_is_no_answer_beside_the_pairwise_tag(tmp_path):
    record = {"id": 1, "left": "1", "right": "2", "annotator": 1, "annotation_id": 1,
              "shown_first": "left", "pairwise": [{"selected": "right"}]}  # fmt: skip
    (tmp_path / "flat.json").write_text(json.dumps([record]))
    assert read_comparisons(tmp_path / "flat.json").loc[0, "outcome"] == "right"


@pytest.mark.parametrize(
    "text",
    [
        '"annotator,left,right,outcome"\r\n"ada,1,2,left"\r\n"ada,""x, y"",2,tie",,\r\n',
        '"annotator;left;right;outcome";;\n"ada;1;2;left"\n"ada;x, y;2;tie"\n',
        '"annotator,left,right,outcome"\nada,1,2,left\n"ada,""x, y"",2,tie"',
    ],
)
def test_rows_in_quotes_as_a_whole_are_read(tmp_path, text):
    (tmp_path / "a.csv").write_bytes(text.encode())
    expected = [["ada", "1", "2", "left"], ["ada", "x, y", "2", "tie"]]
    assert read_comparisons(tmp_path / "a.csv").values.tolist() == expected


def test_annotators_who_differ_in_capitals_only_are_told(tmp_path, capsys):
    rows = "annotator,left,right,outcome\nAda,1,2,left\nada,1,2,left\nbo,1,2,left\n"
    (tmp_path / "a.csv").write_text(rows)
    told = []
    assert read_comparisons(tmp_path / "a.csv", told.append)["annotator"].nunique() == 3
    assert len(told) == 1 and "'Ada' and 'ada'" in told[0] and "bo" not in told[0]
    (tmp_path / "b.csv").write_text(rows.replace("Ada,1,2,left\n", ""))
    import_files([tmp_path / "b.csv"], tmp_path / "store")
    assert "capitals" not in capsys.readouterr().err
    (tmp_path / "b.csv").write_text(rows.replace("\nada,1,2,left", ""))
    import_files([tmp_path / "b.csv"], tmp_path / "store")
    assert "'Ada' and 'ada'" in capsys.readouterr().err
