"""A STAC API: searched, kept, tiled over http, and never believed."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest

from ecofm.cli import main
from ecofm.errors import EcofmError, SceneError
from ecofm.grid import Grid
from ecofm.tiles.archive import open_archive
from ecofm.tiles.area import read_area
from ecofm.tiles.search import SearchConfig, search

spec = importlib.util.spec_from_file_location(
    "stac_server", Path(__file__).parent / "stac_server.py"
)
assert spec is not None and spec.loader is not None
server = importlib.util.module_from_spec(spec)
spec.loader.exec_module(server)
Api = server.Api

BANDS = ("blue", "green", "red")
DATES = SearchConfig(dates="2019/2021")


@pytest.fixture
def api(tmp_path: Path, paint: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    """Return an API with three dates of 2 x 2 cells, and the area of its north-western cell."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with server.serve(tmp_path / "server") as api:
        for number, year in enumerate((2019, 2020, 2021)):
            for place, band in enumerate(BANDS):
                paint.scene(
                    api.folder / f"{year}" / f"{band}.tif",
                    paint.pixels((1, 256, 256), seed=3 * number + place) // 8 + 2000,
                )
            assets = {
                "visual": {
                    "href": f"{api.url}/{year}/none.tif",
                    "eo:bands": [{"name": name} for name in ("B04", "B03", "B02")],
                },
                **{band: {"href": f"{api.url}/{year}/{band}.tif"} for band in BANDS},
            }
            api.items.append(_item(f"S2B_{year}", year, assets, cloud=number * 10.0))
        yield api


def _item(name: str, year: int, assets: Any, cloud: float | None) -> dict[str, Any]:
    cells = [Grid("utm:1280").cell(f"32652_{y}_{x}") for y in (3374, 3375) for x in (250, 251)]
    outlines = gpd.GeoSeries([cell.polygon() for cell in cells])
    return {
        "type": "Feature", "stac_version": "1.0.0", "id": name, "collection": "sentinel-2-l2a",
        "geometry": outlines.union_all().__geo_interface__, "bbox": list(outlines.total_bounds),
        "properties": {
            "datetime": f"{year}-06-12T02:00:00Z", "platform": "sentinel-2b",
            "earthsearch:boa_offset_applied": True,
            **({} if cloud is None else {"eo:cloud_cover": cloud}),
        },
        "assets": assets, "links": [],
    }  # fmt: skip


@pytest.fixture
def area() -> str:
    """Return a place inside one cell."""
    point = Grid("utm:1280").cell("32652_3375_250").polygon().centroid
    return f"{point.x - 1e-3},{point.y - 1e-3},{point.x + 1e-3},{point.y + 1e-3}"


def run(api: Api, out: Path, area: str, *more: str) -> None:
    """Run the command as a person does."""
    words = ["--dates=2019/2021", "--grid=utm:1280", "--remote", "--workers=1", *more]
    main(["tile", api.url, f"--area={area}", f"--out={out}", *words])


def test_an_api_becomes_an_archive_of_an_area(tmp_path: Path, api: Api, area: str) -> None:
    run(api, tmp_path / "out", area, "--max-cloud=10")
    archive = open_archive(tmp_path / "out")
    assert archive.contract.bands == ("B02", "B03", "B04")
    assert list(archive.index["tile_id"]) == [
        "32652_3375_250@2019-06-12", "32652_3375_250@2020-06-12",
    ]  # fmt: skip
    asked = next(body for path, body in api.asked if path == "/search")
    assert asked["collections"] == ["sentinel-2-l2a"] and asked["query"] == {
        "eo:cloud_cover": {"lte": 10.0}
    }
    assert asked["datetime"] == "2019-01-01T00:00:00Z/2021-12-31T23:59:59Z"


def test_the_pixels_are_those_of_the_files(tmp_path: Path, api: Api, area: str, paint: Any) -> None:
    run(api, tmp_path / "out", area)
    expected = paint.pixels((1, 256, 256), seed=0)[0] // 8 + 2000
    assert np.array_equal(open_archive(tmp_path / "out").read(0)[0][0], expected[:128, :128])


def test_a_search_is_asked_once_and_again_to_grow(
    tmp_path: Path, api: Api, area: str, capsys: Any
) -> None:
    later = api.items.pop()
    run(api, tmp_path / "out", area)
    n_asked = len(api.asked)
    api.items.append(later)
    run(api, tmp_path / "out", area)
    assert len(api.asked) == n_asked and "is done already" in capsys.readouterr().err
    run(api, tmp_path / "out", area, "--append")
    assert open_archive(tmp_path / "out").periods == ["2019-06-12", "2020-06-12", "2021-06-12"]


def test_urls_are_signed_when_they_are_opened(
    tmp_path: Path, api: Api, area: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "keys.py").write_text(
        f"def sign(url):\n    return url.replace('s3://store', {api.url!r}) + '?key=1'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("site.getsitepackages", lambda: [str(tmp_path)])
    api.folder.joinpath("2019").rename(api.folder / "signed")
    del api.items[1:]
    for band in BANDS:
        api.items[0]["assets"][band]["href"] = f"s3://store/signed/{band}.tif"
    run(api, tmp_path / "out", area, "--sign=keys:sign")
    assert open_archive(tmp_path / "out").n_tiles == 1
    sys.modules.pop("keys")


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["--dates=2019", "--area=1,2,3,4"], 1, "is a URL; give --remote to read it"),
        (["--remote", "--dates=2019"], 2, "asked for --area and --dates"),
        (["--remote", "--area=1,2,3,4"], 2, "asked for --area and --dates"),
        (["--remote", "--dates=2019/2018", "--area=1,2,3,4"], 2, "expected 2019"),
        (["--remote", "--dates=2019", "--area=3,2,1,4"], 1, "west below east"),
        (["--remote", "--dates=2019", "--area=some.vrt"], 1, "expected west,south,east,north"),
        (["--sign=os:getcwd"], 2, "read with --remote only"),
        (["--remote", "--dates=2019", "--area=1,2,3,4", "--sign=no.such:f"], 1, "does not answer"),
        (["--remote", "--dates=2019", "--area=1,2,3,4"], 1, "does not answer"),
    ],
)
def test_what_was_not_asked_for_is_refused(
    tmp_path: Path, words: list[str], code: int, sentence: str, capsys: Any
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["tile", "http://127.0.0.1:9/v1", f"--out={tmp_path / 'out'}", *words])
    said = capsys.readouterr().err
    assert stopped.value.code == code and sentence in said and "Traceback" not in said
    assert not list(tmp_path.iterdir())


def _lie_in_a_loop(api: Api) -> None:
    api.page_again = True


def _lie_of_the_search(api: Api) -> None:
    api.search_link = "http://localhost:1/search"


def _lie_of_a_file(api: Api) -> None:
    api.search_link = "file:///etc/passwd"


def _lie_of_the_next(api: Api) -> None:
    api.next_link = "http://localhost:1/search"


def _lie_by_redirection(api: Api) -> None:
    api.search_link = "{url}/elsewhere"


def _lie_by_depth(api: Api) -> None:
    api.root = b"[" * 100_000


def _lie_by_type(api: Api) -> None:
    api.root = b'{"type": "Catalog", "links": 3}'


def _lie_by_size(api: Api) -> None:
    api.root = b" " * (2**26 + 1)


def _lie_of_conformance(api: Api) -> None:
    api.conforms = [f"{server.CORE}/core"]


@pytest.mark.parametrize(
    ("lie", "sentence"),
    [
        (_lie_in_a_loop, "the same page again and again"),
        (_lie_of_the_search, "leads to http://localhost:1"),
        (_lie_of_a_file, "a link leads to file:"),
        (_lie_of_the_next, "leads to http://localhost:1"),
        (_lie_by_redirection, "leads to http://localhost:1"),
        (_lie_by_depth, "no STAC API that can be searched"),
        (_lie_by_type, "no STAC API that can be searched"),
        (_lie_by_size, "longer than"),
        (_lie_of_conformance, "no STAC API that can be searched"),
    ],
)
def test_an_api_that_lies_is_named(
    tmp_path: Path, api: Api, area: str, lie: Any, sentence: str
) -> None:
    lie(api)
    with pytest.raises(SceneError, match=sentence):
        search(api.url, tmp_path / "items", read_area(area), DATES)
    assert not (tmp_path / "items").exists()


def test_more_items_than_asked_for_are_refused(tmp_path: Path, api: Api, area: str) -> None:
    with pytest.raises(SceneError, match="more than 2 items"):
        search(
            api.url, tmp_path / "items", read_area(area), SearchConfig(dates="2019", max_items=2)
        )


def test_items_that_lie_are_left_out_by_name(tmp_path: Path, api: Api, area: str) -> None:
    good = api.items[0]
    api.items += [
        {**good, "id": "../../escape"},
        {**good, "id": "placeless", "geometry": {"type": "Polygon", "coordinates": [[["x"]]]}},
        {**good, "id": "clear", "properties": {"datetime": "2019-06-12T02:00:00Z"}},
        {**good, "id": "table", "type": "Table"},
        {**good, "id": "huge", "description": "x" * 2**24},
        {**good, "id": "relative", "assets": {"blue": {"href": "../../../etc/passwd"}}},
    ]
    config = SearchConfig(dates="2019", max_cloud=50)
    items = search(api.url, tmp_path / "items", read_area(area), config)
    table = pd.read_parquet(items / "rejected.parquet")
    assert dict(zip(table["path"], table["reason"], strict=True)) == {
        "../../escape": "has an id that is no file name",
        "clear": "has no eo:cloud_cover, which --max-cloud asks for",
        "huge": "is longer than 16777216 bytes",
        "placeless": "has no geometry",
        "table": "is no STAC item",
    }
    kept = json.loads((items / "relative.json").read_text())
    assert kept["assets"]["blue"]["href"] == ""


def test_an_area_is_a_file_in_any_crs(tmp_path: Path, area: str) -> None:
    shape = read_area(area).shape
    table = gpd.GeoDataFrame(geometry=[shape], crs="EPSG:4326").to_crs("EPSG:32652")
    table.to_file(tmp_path / "area.gpkg")
    cells = [Grid("utm:1280").cell(f"32652_3375_{x}") for x in (250, 251)]
    assert read_area(str(tmp_path / "area.gpkg")).touches(cells).tolist() == [True, False]
    pd.DataFrame({"area": [1]}).to_parquet(tmp_path / "nowhere.parquet")
    with pytest.raises(EcofmError, match="cannot be read as polygons"):
        read_area(str(tmp_path / "nowhere.parquet"))


def test_an_area_of_local_scenes(tmp_path: Path, paint: Any, area: str) -> None:
    for year in (2019, 2020):
        paint.scene(tmp_path / "in" / f"a_{year}.tif", paint.pixels((1, 256, 256), seed=year))
    far = (paint.corner[0] + 12800, paint.corner[1])
    paint.scene(tmp_path / "in" / "b_2019.tif", paint.pixels((1, 128, 128)), corner=far)
    archive = paint.tile(tmp_path / "in", tmp_path / "out", area=area)
    assert set(archive.index["cell_id"]) == {"32652_3375_250"} and archive.n_tiles == 2
    assert list(archive.rejected["reason"]) == ["lies outside the area that was asked for"]
    grown = paint.tile(tmp_path / "in", tmp_path / "out", append=True)
    assert grown.n_tiles == 9 and grown.manifest["n_rejected"] == 0
