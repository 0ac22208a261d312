from ecofm.compare import read_comparisons
from ecofm.demo.answers import collect_comparisons

HEADER = "annotator,left,right,outcome\n"


def test_an_earlier_run_leaves_no_answers_behind(tmp_path):
    for outcome in ("left", "right"):
        (tmp_path / "said.csv").write_text(f"{HEADER}ann,1,2,{outcome}\n")
        collect_comparisons(tmp_path, ["said.csv"])
    found = read_comparisons(tmp_path / "comparisons.csv")
    assert found.to_numpy().tolist() == [["ann", "1", "2", "right"]]
    assert read_comparisons(tmp_path / "comparisons.sqlite").equals(found)
