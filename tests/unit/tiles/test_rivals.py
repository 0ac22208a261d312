"""Which of several scenes of a cell and period counts: time says it, or nothing is chosen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ecofm.cli import main
from ecofm.errors import SceneError
from ecofm.tiles.archive import open_archive


def flat(value: int, *, hidden: slice | None = None, width: int = 128) -> Any:
    pixels = np.full((1, 128, width), value, "uint16")
    if hidden is not None:
        pixels[:, :, hidden] = 0
    return pixels


def reasons_of(out: Path) -> dict[str, str]:
    table = pd.read_parquet(out / "rejected.parquet")
    return dict(zip(table["path"], table["reason"], strict=True))


def values_of(archive: Any) -> dict[str, float]:
    return {
        period: float(archive.read(n)[0].mean()) for n, period in enumerate(archive.index["period"])
    }


def test_months_are_periods_and_gather_into_longer_ones(tmp_path: Path, paint: Any) -> None:
    # The later month has the name that sorts first.
    paint.scene(tmp_path / "in" / "z_2019-04.tif", flat(400))
    paint.scene(tmp_path / "in" / "a_2019_05.tif", flat(500))
    months = paint.tile(tmp_path / "in", tmp_path / "m")
    assert values_of(months) == {"2019-04": 400, "2019-05": 500}
    assert values_of(paint.tile(tmp_path / "in", tmp_path / "pm", per="month")) == values_of(months)
    for per, period in (("quarter", "2019-Q2"), ("year", "2019")):
        first = paint.tile(tmp_path / "in", tmp_path / per, per=per)
        assert values_of(first) == {period: 400}, "the earliest, whatever its name"
        assert first.index["dates"].tolist() == ["2019-04"]
        assert first.manifest["n_of_several_dates"] == 1
        median = paint.tile(tmp_path / "in", tmp_path / f"{per}2", per=per, composite="median")
        assert values_of(median) == {period: 450}
        assert median.index["dates"].tolist() == ["2019-04,2019-05"]
    given = paint.tile(tmp_path / "in", tmp_path / "given", period="2019")
    assert values_of(given) == {"2019": 400}, "and --period forgets no month"


@pytest.mark.parametrize("how", ["medoid", "best"])
def test_months_are_composited_as_days_are(tmp_path: Path, paint: Any, how: str) -> None:
    for month, value in (("05", 500), ("06", 520), ("09", 900)):
        paint.scene(tmp_path / "in" / f"a_2019-{month}.tif", flat(value))
    archive = paint.tile(tmp_path / "in", tmp_path / "out", per="year", composite=how)
    assert values_of(archive) == {"2019": 520}, "the median, and the nearest to July"


def test_two_mosaics_of_a_year_are_both_left_out(tmp_path: Path, paint: Any) -> None:
    paint.scene(tmp_path / "in" / "a_2019.tif", flat(400))
    paint.scene(tmp_path / "in" / "b_2019.tif", flat(500))
    paint.scene(tmp_path / "in" / "c_2018.tif", flat(600))
    archive = paint.tile(tmp_path / "in", tmp_path / "out")
    assert values_of(archive) == {"2018": 600}
    reasons = reasons_of(tmp_path / "out")
    assert set(reasons) == {"a_2019.tif", "b_2019.tif"}
    assert "shows the same ground as b_2019.tif, in 2019 too" in reasons["a_2019.tif"]
    for cure in ("2019-04", "--period", "--append", "--composite median"):
        assert cure in reasons["b_2019.tif"]
    median = paint.tile(tmp_path / "in", tmp_path / "median", composite="median")
    assert values_of(median) == {"2018": 600, "2019": 450}


def test_each_file_with_a_period_of_its_own(tmp_path: Path, paint: Any) -> None:
    """As the reason advises."""
    for name, period, value in (("a", "2019-04", 400), ("b", "2019-05", 500)):
        path = paint.scene(tmp_path / "in" / f"{name}_2019.tif", flat(value))
        archive = paint.tile(path, tmp_path / "out", period=period, append=True)
    assert values_of(archive) == {"2019-04": 400, "2019-05": 500}


def test_two_files_of_a_day_are_both_left_out(tmp_path: Path, paint: Any) -> None:
    paint.scene(tmp_path / "in" / "a_20190612.tif", flat(400))
    paint.scene(tmp_path / "in" / "b_20190612.tif", flat(500))
    for how in ("first", "median"):
        with pytest.raises(SceneError, match=r"on 2019-06-12 too, .* keep one of them"):
            paint.tile(tmp_path / "in", tmp_path / how, composite=how)


def test_scenes_with_equal_numbers_are_no_rivals(tmp_path: Path, paint: Any) -> None:
    paint.scene(tmp_path / "in" / "a_2019.tif", flat(400))
    paint.scene(tmp_path / "in" / "b_2019.tif", flat(400), compress="deflate")
    assert values_of(paint.tile(tmp_path / "in", tmp_path / "out")) == {"2019": 400}


@pytest.mark.parametrize("when", ["2019", "2019-04", "20190612"])
def test_pieces_of_a_mosaic_lie_side_by_side(tmp_path: Path, paint: Any, when: str) -> None:
    """On one canvas, and as rasters that overlap by a strip."""
    paint.scene(tmp_path / "one" / f"a_{when}.tif", flat(400, hidden=slice(70, None)), nodata=0)
    paint.scene(tmp_path / "one" / f"b_{when}.tif", flat(500, hidden=slice(0, 60)), nodata=0)
    x, y = paint.corner
    paint.scene(tmp_path / "two" / f"a_{when}.tif", flat(400, width=70))
    paint.scene(tmp_path / "two" / f"b_{when}.tif", flat(500, width=68), corner=(x + 600, y))
    for folder in ("one", "two"):
        archive = paint.tile(tmp_path / folder, tmp_path / f"{folder}_out")
        pixels, valid = archive.read(0)
        assert archive.n_tiles == 1 and valid.all()
        assert (pixels[:, :, :70] == 400).all() and (pixels[:, :, 70:] == 500).all()


def test_a_small_mosaic_inside_a_large_one_is_a_rival(tmp_path: Path, paint: Any) -> None:
    paint.scene(tmp_path / "in" / "large_2019.tif", flat(400))
    x, y = paint.corner
    inside = (x + 300, y - 300)
    paint.scene(tmp_path / "in" / "small_2019.tif", flat(500)[:, :32, :32], corner=inside)
    with pytest.raises(SceneError, match=r"large_2019\.tif shows the same ground as small"):
        paint.tile(tmp_path / "in", tmp_path / "out")


def test_of_two_zones_a_cell_takes_its_own(tmp_path: Path, paint: Any) -> None:
    """Pieces of a mosaic, one a zone, overlap by more than half where the zones meet."""
    from affine import Affine
    from pyproj import Transformer

    to_next = Transformer.from_crs("EPSG:32652", "EPSG:32653", always_xy=True)
    x, y = paint.corner
    east, north = to_next.transform(x + 640, y - 640)
    paint.scene(tmp_path / "in" / "b_2019.tif", flat(400))
    place = Affine(10, 0, east - 1280, 0, -10, north + 1280)
    pixels = np.full((1, 256, 256), 500, "uint16")
    paint.scene(tmp_path / "in" / "a_2019.tif", pixels, crs="EPSG:32653", transform=place)
    archive = paint.tile(tmp_path / "in", tmp_path / "out")
    index = archive.index.reset_index(drop=True)
    own = index.index[index["cell_id"] == "32652_3375_250"][0]
    assert (archive.read(own)[0] == 400).all()


def test_folders_tell_a_period_where_names_do_not(
    tmp_path: Path, paint: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder, value in (("2018", 300), ("2019/04", 400), ("2019/05", 500)):
        paint.scene(tmp_path / "in" / folder / "mosaic.tif", flat(value))
    paint.scene(tmp_path / "in" / "2018" / "other_2017.tif", flat(200))
    archive = paint.tile(tmp_path / "in", tmp_path / "out")
    assert values_of(archive) == {"2017": 200, "2018": 300, "2019-04": 400, "2019-05": 500}
    said = capsys.readouterr().err
    assert "2018/mosaic.tif: its period, 2018, is that of its folder" in said
    assert "other_2017" not in said


def test_folders_of_band_files(tmp_path: Path, paint: Any) -> None:
    for folder in ("2019-04", "2019/05", "2019/06/12"):
        for band in ("B03", "B04"):
            paint.scene(tmp_path / "in" / folder / f"{band}.tif", flat(400))
    archive = paint.tile(tmp_path / "in", tmp_path / "out")
    assert archive.periods == ["2019-04", "2019-05", "2019-06-12"]
    assert archive.index["dates"].tolist() == ["", "", "2019-06-12"]


def test_an_unclear_folder_leaves_out_its_scenes_alone(tmp_path: Path, paint: Any) -> None:
    paint.scene(tmp_path / "in" / "2019_13" / "mosaic.tif", flat(300))
    paint.chip(tmp_path / "chips" / "2019_13" / "6259_13990.png", side_px=256)
    for folder in ("in", "chips"):
        options = {"grid": "xyz:14", "name_pattern": "{y}_{x}"} if folder == "chips" else {}
        with pytest.raises(SceneError, match="has a folder whose period is unclear: '2019_13'"):
            paint.tile(tmp_path / folder, tmp_path / f"{folder}_out", **options)


def test_a_range_is_a_period_of_its_own(tmp_path: Path, paint: Any) -> None:
    paint.scene(tmp_path / "in" / "median_2018-2019.tif", flat(300))
    paint.scene(tmp_path / "in" / "median_2019.tif", flat(400))
    archive = paint.tile(tmp_path / "in", tmp_path / "out")
    assert values_of(archive) == {"2018--2019": 300, "2019": 400}
    assert archive.index["tile_id"].tolist()[0].endswith("@2018--2019")
    assert "2018 2019" in archive.attribution
    by_year = paint.tile(tmp_path / "in", tmp_path / "year", per="year")
    assert values_of(by_year) == {"2019": 400}
    reason = reasons_of(tmp_path / "year")["median_2018-2019.tif"]
    assert "is of the range 2018--2019, which lies in no single year; give --per date" in reason


def test_names_of_chips_are_no_periods(tmp_path: Path, paint: Any) -> None:
    """Whatever they might be read as."""
    for name in ("2019-4", "rgb_2019_processed_2022", "04_2019"):
        paint.chip(tmp_path / "in" / f"{name}.png")
    archive = paint.tile(tmp_path / "in", tmp_path / "out", grid="none")
    assert archive.n_tiles == 3 and archive.periods == ["none"]


def test_an_item_without_a_moment_is_of_its_span(tmp_path: Path, paint: Any) -> None:
    paint.scene(tmp_path / "in" / "px" / "B04.tif", flat(400))
    item = {
        "type": "Feature", "stac_version": "1.0.0", "id": "town",
        "assets": {"B04": {"href": "./px/B04.tif"}},
        "properties": {
            "datetime": None, "start_datetime": "2019-04-01T00:00:00Z",
            "end_datetime": "2019-06-30T23:59:59Z",
        },
    }  # fmt: skip
    path = tmp_path / "in" / "item.json"
    path.write_text(json.dumps(item))
    assert paint.tile(path, tmp_path / "out").periods == ["2019-Q2"]


def test_the_command_s_last_lines_tell_of_several_dates(
    tmp_path: Path, paint: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    for day in ("20190601", "20190611"):
        paint.scene(tmp_path / "in" / f"a_{day}.tif", flat(int(day[4:])))
    words = ["tile", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--workers", "1"]
    main([*words, "--grid", "utm:1280", "--period", "201906"])
    said = capsys.readouterr().err
    assert "1 of 1 tiles have scenes of several dates; --composite first: the earliest" in said
    archive = open_archive(tmp_path / "out")
    assert archive.periods == ["2019-06"] and archive.manifest["config"]["period"] == "2019-06"
