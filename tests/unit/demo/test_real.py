import geopandas as gpd
import numpy as np
import pandas as pd
import pytest

from ecofm.demo.real import compare_labels, place_below, read_labels
from ecofm.errors import ComparisonError

COLUMNS = ["annotator", "left", "right", "outcome"]


def test_uninhabited_is_placed_below_every_item_of_those_who_did_not_place_it():
    rows = [("ann", "3", "4", "tie"), ("bo", "3", "22", "left"), ("bo", "4", "3", "right")]
    placed = place_below(pd.DataFrame(rows, columns=COLUMNS))
    added = placed[len(rows) :]
    assert added.to_numpy().tolist() == [["ann", "3", "22", "left"], ["ann", "4", "22", "left"]]


def test_labels_compare_urban_before_rural_before_neither_each_pair_once():
    kinds = np.random.default_rng(0).integers(0, 3, 60)
    shares = pd.DataFrame(np.eye(3)[kinds], columns=["urban", "rural", "uninhabited"])
    labels = shares.assign(tile_id=[f"chip_{number}" for number in range(60)])
    said = compare_labels(labels)
    level = dict(zip(labels["tile_id"], 2 - kinds, strict=True))
    gap = said["left"].map(level) - said["right"].map(level)
    assert set(np.sign(gap)) == {-1, 0, 1}
    assert (said["outcome"] == np.select([gap > 0, gap < 0], ["left", "right"], "tie")).all()
    pairs = {frozenset(pair) for pair in said[["left", "right"]].to_numpy().tolist()}
    assert len(pairs) == len(said) > 1_000 and {len(pair) for pair in pairs} == {2}
    assert said.equals(compare_labels(labels))


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_labels_compare_nothing(n):
    labels = pd.DataFrame({"tile_id": ["a"] * n, "urban": [1.0] * n, "rural": [0.0] * n})
    assert compare_labels(labels).empty and list(compare_labels(labels).columns) == COLUMNS


@pytest.mark.parametrize(
    "text", ["image_id,urban\n1,1\n", "", "image_id,urban,rural,uninhabited\nx,y,z,w\n"]
)
def test_labels_that_cannot_be_read_are_refused(tmp_path, text):
    (tmp_path / "nk_annotated").mkdir()
    (tmp_path / "nk_annotated" / "labels.csv").write_text(text)
    index = gpd.GeoDataFrame({"cell_id": [], "tile_id": []})
    with pytest.raises(ComparisonError, match=r"labels\.csv cannot be read"):
        read_labels(tmp_path, index)


def test_labels_without_their_chip_are_left_out(tmp_path):
    (tmp_path / "nk_annotated").mkdir()
    table = "image_id,urban,rural,uninhabited\n7,1,0,0\n8,0,0,1\n"
    (tmp_path / "nk_annotated" / "labels.csv").write_text(table)
    cells = ["nk_annotated/0008.jpg", "nk_annotated/odd.jpg", "nk_clusters/00/0007.jpg"]
    index = gpd.GeoDataFrame({"cell_id": cells, "tile_id": [f"{c}@none" for c in cells]})
    assert read_labels(tmp_path, index)["tile_id"].tolist() == ["nk_annotated/0008.jpg@none"]
