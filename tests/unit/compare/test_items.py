"""Items and pictures out of artifacts."""

import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ecofm.artifact import build_manifest, write_json
from ecofm.compare.items import ExemplarSheets, MemberSheets, Place, Tiles, false_colour
from ecofm.contrast import draw_tile
from ecofm.errors import ArtifactError, ComparisonError
from ecofm.types import Contract


def make_contract(dtype, bands=("red", "green", "blue"), mean=100.0, std=20.0):
    return Contract(
        bands=bands, dtype=dtype, units="digital number", scale=1, offset=0, valid_range=(0, 255),
        gsd_m=None, mean=(mean,) * len(bands), std=(std,) * len(bands),
    )  # fmt: skip


def make_clusters(folder, items, sheets=None):
    (folder / "exemplars").mkdir(parents=True)
    for item in items if sheets is None else sheets:
        Image.new("RGB", (6, 6), "green").save(folder / "exemplars" / f"{item}.png")
    pd.DataFrame({"tile_id": "t", "item": items, "distance": 0.0}).to_parquet(
        folder / "clusters.parquet"
    )
    write_json(folder / "manifest.json", build_manifest("clusters", {}, {}))
    return folder


def test_clusters_are_shown_by_their_sheets(tmp_path):
    source = ExemplarSheets(make_clusters(tmp_path / "c", ["10", "03", "10", "2"]))
    assert source.items == ["3", "10", "2"]
    assert source.members(1) == [1] and source.sizes.tolist() == [1, 2, 1]
    assert source.place(0) is None and source.styles == ["true"]
    assert Image.open(io.BytesIO(source.image(1)[0])).size == (6, 6)
    with pytest.raises(IndexError):
        source.image(3)


def test_unusable_clusters_are_refused(tmp_path):
    with pytest.raises(ArtifactError, match=r"no exemplars/2\.png"):
        ExemplarSheets(make_clusters(tmp_path / "a", ["1", "2"], sheets=["1"]))
    with pytest.raises(ArtifactError, match="2 times"):
        ExemplarSheets(make_clusters(tmp_path / "b", ["1", "01"]))
    with pytest.raises(ArtifactError, match="at least two"):
        ExemplarSheets(make_clusters(tmp_path / "c", ["1"]))
    outside = make_clusters(tmp_path / "d", ["../../b/exemplars/1", "2"], sheets=["2"])
    with pytest.raises(ArtifactError, match="no exemplars"):
        ExemplarSheets(outside)
    (outside / "clusters.parquet").write_bytes(b"PAR1")
    with pytest.raises(ComparisonError, match=r"cannot be read .* again with `ecofm cluster`"):
        ExemplarSheets(outside)
    write_json(outside / "manifest.json", build_manifest("embeddings", {}, {}))
    with pytest.raises(ArtifactError, match="expected clusters"):
        ExemplarSheets(outside)


def test_tiles_of_archives_are_items_with_pictures_and_places(make_archive, tmp_path):
    first = make_archive(tmp_path / "a", n_cells=3)
    second = make_archive(tmp_path / "b", n_cells=2, periods=("2021",))
    source = Tiles([first, second])
    assert len(source.items) == 8 and source.items[7].endswith("@2021")
    assert source.styles == ["true", "false"] and source.members(3, 5) == [3]
    true, false = (source.image(7, style) for style in source.styles)
    assert true != false and true[1] == "image/jpeg"
    assert Image.open(io.BytesIO(true[0])).size == (32, 32)
    longitude, latitude, period = source.place(7)
    assert 126 < longitude < 132 and 30 < latitude < 50 and period == "2021"
    for number in (8, -1):
        with pytest.raises(IndexError):
            source.image(number)


def test_chips_have_no_place_and_plain_colours_only(make_archive, tmp_path):
    chips = make_archive(tmp_path / "a", grid="none", bands=("red", "green", "blue"), dtype="uint8")
    source = Tiles([chips])
    assert source.place(0) == Place(None, None, "none") and source.styles == ["true"]


def test_clusters_with_their_archive_have_sheets_that_can_be_reshuffled(make_archive, tmp_path):
    archive = make_archive(tmp_path / "a", n_cells=24, periods=("2019",))
    tiles = Tiles([archive]).tile_ids
    table = pd.DataFrame({"tile_id": tiles, "item": ["07"] * 20 + ["2"] * 4})
    table["distance"] = np.arange(24)[::-1]
    table.to_parquet(tmp_path / "members.parquet")
    source = MemberSheets([archive], tmp_path / "members.parquet")
    assert source.items == ["7", "2"] and source.sizes.tolist() == [20, 4]
    assert source.members(0) == list(range(19, 10, -1))
    other = source.members(0, 1)
    assert len(set(other)) == 9 and other != source.members(0) and max(other) < 20
    assert other == source.members(0, 1) != source.members(0, 2)
    assert set(source.members(1, 3)) == {20, 21, 22, 23}
    assert source.place(0) is None and source.can_shuffle
    table.assign(tile_id="x").to_csv(tmp_path / "wrong.csv", index=False)
    with pytest.raises(ArtifactError, match=r"lacks 24 of the tiles .*wrong.csv names, first x"):
        MemberSheets([archive], tmp_path / "wrong.csv")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ComparisonError, match="expected tile_id, item"):
        MemberSheets([archive], tmp_path / "other.csv")


def test_uint8_is_drawn_as_it_is_and_grey_where_not_valid():
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)
    valid = np.array([[True, False], [True, True]])
    image = draw_tile(pixels, valid, make_contract("uint8"), (0, 1, 2))
    assert image[1, 1].tolist() == [3, 7, 11] and image[0, 1].tolist() == [128] * 3


def test_other_types_are_stretched_alike_and_clipped():
    contract = make_contract("uint16", ("B02", "B03", "B04", "B08"), mean=1000.0, std=200.0)
    pixels = np.array([[0, 600, 1100, 1600, 60000]] * 4, np.uint16)[:, None, :]
    valid = np.ones((1, 5), bool)
    image = draw_tile(pixels, valid, contract)
    assert false_colour(contract) == (3, 2, 1)
    assert image[0, :, 0].tolist() == [0, 0, 128, 255, 255]
    assert (image[..., 0] == image[..., 2]).all()
