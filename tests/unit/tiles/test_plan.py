"""The plan: chips by name and group, tiles by the name of their cell, and what is left out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ecofm.errors import SceneError
from ecofm.tiles.sources import find_sources


def rejected(out: Path) -> dict[str, str]:
    table = pd.read_parquet(out / "rejected.parquet")
    return dict(zip(table["path"], table["reason"], strict=True))


def test_chips_are_tiles_named_by_their_path(tmp_path: Path, paint: Any) -> None:
    folder = tmp_path / "in"
    for seed, name in enumerate(["00/a.png", "00/b.jpg", "11/deep/c.tif"]):
        paint.chip(folder / name, seed=seed)
    archive = paint.tile(folder, tmp_path / "out", grid="none")
    assert archive.index["cell_id"].tolist() == ["00/a.png", "00/b.jpg", "11/deep/c.tif"]
    assert archive.index["group"].tolist() == ["00", "00", "deep"]
    assert set(archive.index["period"]) == {"none"} and archive.grid == "none"
    assert archive.index.geometry.isna().all() and archive.contract.gsd_m is None
    assert archive.contract.bands == ("red", "green", "blue")
    for tile_index, name in enumerate(["00/a.png", "00/b.jpg", "11/deep/c.tif"]):
        found, valid = archive.read(tile_index)
        with Image.open(folder / name) as image:
            expected = np.moveaxis(np.asarray(image), -1, 0)
        assert valid.all()
        assert np.abs(found.astype(int) - expected).max() <= (2 if name.endswith("jpg") else 0)


def test_alpha_of_a_chip_is_its_mask(tmp_path: Path, paint: Any) -> None:
    values = np.random.default_rng(0).integers(1, 255, (32, 32, 4), np.uint8)
    values[..., 3] = 255
    values[:10, :, 3] = 0
    (tmp_path / "in").mkdir()
    Image.fromarray(values).save(tmp_path / "in" / "a.png")
    archive = paint.tile(tmp_path / "in", tmp_path / "out", grid="none")
    found, valid = archive.read(0)
    assert len(found) == 3 and not valid[:10].any() and valid[10:].all()
    assert not found[:, :10].any(), "what is hidden is not kept"
    assert found[:, 10:].tobytes() == np.moveaxis(values, -1, 0)[:3, 10:].tobytes()
    expected = values[10:, :, :3].reshape(-1, 3).astype(float)
    np.testing.assert_allclose(archive.contract.mean, expected.mean(axis=0))


def test_a_16_bit_png_keeps_its_numbers(tmp_path: Path, paint: Any) -> None:
    values = np.random.default_rng(0).integers(1, 10_000, (32, 32)).astype(np.uint16)
    (tmp_path / "in").mkdir()
    Image.fromarray(values).save(tmp_path / "in" / "a.png")
    archive = paint.tile(tmp_path / "in", tmp_path / "out", grid="none")
    assert archive.contract.dtype == "uint16"
    assert archive.read(0)[0][0].tobytes() == values.tobytes()


def test_chips_of_other_sizes_and_modes_are_named(tmp_path: Path, paint: Any) -> None:
    for seed in range(3):
        paint.chip(tmp_path / "in" / f"{seed}.png", seed=seed)
    paint.chip(tmp_path / "in" / "small.png", side_px=16)
    paint.chip(tmp_path / "in" / "grey.png", mode="L")
    archive = paint.tile(tmp_path / "in", tmp_path / "out", grid="none")
    assert archive.n_tiles == 3
    reasons = rejected(tmp_path / "out")
    assert "size in pixels: found (16, 16), expected (32, 32)" in reasons["small.png"]
    assert "bands" in reasons["grey.png"] and len(reasons) == 2


def test_several_folders_prefix_the_name(tmp_path: Path, paint: Any) -> None:
    for folder in ("one", "two"):
        paint.chip(tmp_path / folder / "a.png")
    paths = [tmp_path / "one", tmp_path / "x" / ".." / "two"]
    (tmp_path / "x").mkdir()
    archive = paint.tile(None, tmp_path / "out", paths=paths, grid="none")
    assert archive.index["cell_id"].tolist() == ["one/a.png", "two/a.png"]
    assert archive.index["group"].tolist() == ["one", "two"]


def test_folders_of_one_name_are_told_apart_by_more_of_their_paths(
    tmp_path: Path, paint: Any
) -> None:
    for folder in ("a/chips", "b/chips"):
        paint.chip(tmp_path / folder / "a.png")
    found = find_sources([tmp_path / "a" / "chips", tmp_path / "b" / "chips"], chips=True).found
    assert list(found) == ["a/chips/a.png", "b/chips/a.png"]


def test_an_image_given_twice_is_one(tmp_path: Path, paint: Any) -> None:
    path = paint.chip(tmp_path / "in" / "a.png")
    assert list(find_sources([tmp_path / "in", tmp_path / "in", path], chips=True).found) == [
        "a.png"
    ]


def test_files_of_the_same_name_in_several_folders_keep_their_folder(
    tmp_path: Path, paint: Any
) -> None:
    paths = [paint.chip(tmp_path / area / "S2_RGB_2019.png") for area in ("north", "south")]
    found = {n: s.path for n, s in find_sources(paths, chips=True).found.items()}
    assert list(found) == ["north/S2_RGB_2019.png", "south/S2_RGB_2019.png"]
    assert list(found.values()) == paths


def test_links_keep_the_user_s_names_and_those_that_lead_out_are_named(
    tmp_path: Path, paint: Any
) -> None:
    folder = tmp_path / "in" / "03"
    paint.chip(tmp_path / "in" / "store" / "blob.png").rename(tmp_path / "in" / "store" / "blob")
    folder.mkdir()
    (folder / "a.png").symlink_to("../store/blob")
    (folder / "b.png").symlink_to(tmp_path / "nowhere.png")
    (folder / "c.png").symlink_to(paint.chip(tmp_path / "elsewhere" / "mine.png"))
    (tmp_path / "in" / "04").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(folder / "pipe.png")
    archive = paint.tile(tmp_path / "in", tmp_path / "out", grid="none")
    assert archive.index["group"].tolist() == ["03"]
    assert archive.index["cell_id"].tolist() == ["03/a.png"]
    reasons = rejected(tmp_path / "out")
    assert list(reasons) == ["03/b.png", "03/c.png", "03/pipe.png", "04"]
    assert reasons["03/pipe.png"] == "is a named pipe, expected a file"
    assert "leads out of the given folder" in reasons["03/c.png"]
    assert "is a link to a folder" in reasons["04"]
    given = paint.tile(folder / "c.png", tmp_path / "given", grid="none")
    assert given.n_tiles == 1, "a link that is given itself is meant"
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "in")
    followed = paint.tile(tmp_path / "in", tmp_path / "followed", grid="none", follow_links=True)
    assert sorted(followed.index["cell_id"]) == ["03/a.png", "03/c.png", "04/mine.png"]


def test_a_name_that_is_no_unicode_is_told(tmp_path: Path, paint: Any) -> None:
    paint.chip(tmp_path / "in" / "a.png")
    path = paint.chip(tmp_path / "in" / "b.png")
    try:
        path.rename(tmp_path / "in" / os.fsdecode(b"caf\xe9.png"))
    except OSError:
        pytest.skip("this disk takes names in UTF-8 only")
    archive = paint.tile(tmp_path / "in", tmp_path / "out", grid="none")
    assert archive.index["cell_id"].tolist() == ["a.png"]
    assert list(rejected(tmp_path / "out")) == ["caf\\xe9.png"]


def test_files_named_by_their_cell(tmp_path: Path, paint: Any) -> None:
    """The folder says the period, and a column of 2019 is no year."""
    for period in ("2018", "2019-Q2"):
        paint.chip(tmp_path / "in" / period / "6259_13990.png", side_px=256)
        paint.chip(tmp_path / "in" / period / "6259_2019.png", side_px=256)
    archive = paint.tile(tmp_path / "in", tmp_path / "out", grid="xyz:14", name_pattern="{y}_{x}")
    assert set(archive.index["tile_id"]) == {
        f"6259_{x}@{period}" for x in (13990, 2019) for period in ("2018", "2019-Q2")
    }
    kosan = archive.index[archive.index["cell_id"] == "6259_13990"].geometry.iloc[0]
    assert 127 < kosan.centroid.x < 128 and 39 < kosan.centroid.y < 40
    assert archive.contract.gsd_m == pytest.approx(7.4, abs=0.1)


def test_a_folder_further_up_may_say_the_period(tmp_path: Path, paint: Any) -> None:
    """As the reference study's own folders do, `NK/nk_2016/0/6259_13990.png`; 0 is a county."""
    folders = {"nk_2016/0": "2016", "2017-06-12/3/deep": "2017-06-12", "2018/from_2019": "2019"}
    for folder in folders:
        paint.chip(tmp_path / "in_2015" / folder / "6259_13990.png", side_px=256)
    paint.chip(tmp_path / "in_2015" / "0" / "6259_13990.png", side_px=256)
    options = {"grid": "xyz:14", "name_pattern": "{y}_{x}"}
    archive = paint.tile(tmp_path / "in_2015", tmp_path / "out", **options)
    assert archive.periods == ["2015", "2016", "2017-06-12", "2019"]
    above = tmp_path / "in_2015" / "0"
    with pytest.raises(SceneError, match=r"has no period.*or name its folder by it"):
        paint.tile(above, tmp_path / "other", **options)


def test_files_that_are_no_cell_are_named(tmp_path: Path, paint: Any) -> None:
    folder = tmp_path / "in" / "2019"
    paint.chip(folder / "s2_6259_13990.png", side_px=256)
    paint.chip(folder / "s2_6259_99999.png", side_px=256)
    paint.chip(folder / "6259_13990.png", side_px=256)
    paint.chip(folder / "s2_6260_13990.png", side_px=128)
    paint.chip(folder / "s2_6260_13991.png", side_px=128)
    paint.chip(tmp_path / "in" / "late" / "s2_6259_13990.png", side_px=256)
    paint.chip(tmp_path / "in" / "more" / "2019" / "s2_6259_13990.png", side_px=256)
    options = {"grid": "xyz:14", "name_pattern": "s2_{y}_{x}"}
    archive = paint.tile(tmp_path / "in", tmp_path / "out", **options)
    assert archive.index["tile_id"].tolist() == ["6259_13990@2019"]
    reasons = rejected(tmp_path / "out")
    assert "is no cell of grid xyz:14" in reasons["2019/s2_6259_99999.png"]
    assert "does not fit s2_{y}_{x}" in reasons["2019/6259_13990.png"]
    assert "expected 256 px a side" in reasons["2019/s2_6260_13990.png"]
    assert "has no period" in reasons["late/s2_6259_13990.png"]
    assert (
        "is cell and period 6259_13990@2019, as 2019/s2_6259_13990.png is"
        in (reasons["more/2019/s2_6259_13990.png"])
    )
    assert len(reasons) == 6
    assert paint.tile(tmp_path / "in", tmp_path / "p", period="2017", **options).periods == ["2017"]
