"""Limits: catalogs and items that nobody means are left out by name, and the run goes on."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ecofm.cli import main
from ecofm.errors import SceneError
from ecofm.tiles import catalogs, limits
from ecofm.tiles.assembly import SceneOptions
from ecofm.tiles.items import fault_of, items_of, parse, read_stac_file
from ecofm.tiles.sources import Source, find_sources
from ecofm.tiles.stac import read_stac


@pytest.fixture(autouse=True)
def soon() -> Iterator[None]:
    """End a test that would never end."""
    signal.signal(signal.SIGALRM, lambda *_: pytest.fail("takes more than a minute"))
    signal.alarm(60)
    yield
    signal.alarm(0)


def rejected(out: Path) -> dict[str, str]:
    return dict(pd.read_parquet(out / "rejected.parquet").to_numpy().tolist())


def feature(name: str, href: Any = "a.tif", **more: Any) -> dict[str, Any]:
    return {
        "type": "Feature", "stac_version": "1.0.0", "id": name,
        "properties": {"datetime": "2019-06-01T00:00:00Z", "platform": "sentinel-2a"},
        "assets": {"B04": {"href": href}}, **more,
    }  # fmt: skip


def write(path: Path, found: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(found if isinstance(found, str) else json.dumps(found))
    return path


def catalog(*hrefs: str) -> dict[str, Any]:
    links = [{"rel": "child", "href": href} for href in hrefs]
    return {"type": "Catalog", "stac_version": "1.0.0", "id": "c", "links": links}


def chain(folder: Path, n: int, *spellings: str) -> Path:
    """Write catalogs that each link to the next one in some spellings, and the last to an item."""
    for k in range(n):
        following = f"c{k + 1}.json" if k + 1 < n else "item.json"
        write(folder / f"c{k}.json", catalog(*(text.format(following) for text in spellings)))
    write(folder / "item.json", feature("item"))
    return folder / "c0.json"


def names(path: Path) -> list[str]:
    return list(find_sources([path]).found)


def test_the_help_and_the_docs_tell_the_limits(capsys: pytest.CaptureFixture[str]) -> None:
    with suppress(SystemExit):
        main(["tile", "--help"])
    told = " ".join(re.sub(r"[│╭╮╰╯─]", " ", capsys.readouterr().out).split())
    page = (Path(__file__).parents[3] / "docs" / "SOURCES.md").read_text()
    for words in (
        f"{limits.MAX_FILE_BYTES >> 20} MiB", f"{limits.MAX_NESTING} levels",
        f"{limits.MAX_ASSETS} assets", f"{limits.MAX_CATALOG_DEPTH} links",
        f"{limits.MAX_LINKS} links", f"{limits.MAX_CATALOG_BYTES >> 30} GiB",
        f"{limits.ANSWER_S} s", f"{limits.MAX_ANSWER_BYTES >> 20} MiB", f"{limits.SEARCH_S} s",
        f"{limits.MAX_SEARCH_BYTES >> 20} MiB",
    ):  # fmt: skip
        assert words in told and words in page, words
    for words in (
        f"hrefs of {limits.MAX_HREF_CHARS}", f"texts of {limits.MAX_TEXT_CHARS} characters",
        f"{limits.MAX_ITEM_BYTES >> 20} MiB, an outline of {limits.MAX_CORNERS} corners",
    ):  # fmt: skip
        assert words in page, words


@pytest.mark.parametrize(
    "spellings",
    [("{}",), ("{}", "./{}"), ("{}", "{}", "x/../{}"), ("{}", "c0.json"), ("c0.json", "{}", ".")],
)
def test_catalogs_that_link_twice_or_in_circles_are_read_once(
    tmp_path: Path, paint: Any, spellings: tuple[str, ...]
) -> None:
    (tmp_path / "x").mkdir()
    paint.scene(tmp_path / "a.tif", paint.pixels((1, 128, 128)))
    assert names(chain(tmp_path, 40, *spellings)) == ["item.json"]


def test_a_link_in_a_circle_of_folders_ends(tmp_path: Path, paint: Any) -> None:
    paint.scene(tmp_path / "a.tif", paint.pixels((1, 128, 128)))
    (tmp_path / "loop").symlink_to(".")
    (tmp_path / "self.tif").symlink_to("self.tif")
    write(tmp_path / "c.json", catalog("loop/c.json", "item.json", "self.tif"))
    write(tmp_path / "item.json", feature("item"))
    sources = find_sources([tmp_path / "c.json"])
    assert list(sources.found) == ["item.json"]
    assert sources.rejected == {"c.json#self.tif": "does not exist"}
    whole = find_sources([tmp_path])
    assert "item.json" in whole.found and "is a link to a folder" in whole.rejected["loop"]


def test_a_chain_of_thousands_is_read_to_its_limit(
    tmp_path: Path, paint: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    paint.scene(tmp_path / "a.tif", paint.pixels((1, 128, 128)))
    first = chain(tmp_path, 3000, "{}")
    sources = find_sources([first])
    assert not sources.found
    ((name, reason),) = sources.rejected.items()
    assert name == f"c{limits.MAX_CATALOG_DEPTH + 1}.json" and "more than 100 links away" in reason
    assert "give it by itself" in reason
    monkeypatch.setattr(catalogs, "MAX_CATALOG_DEPTH", 5000)
    assert names(first) == ["item.json"], "no stack bounds it"


def test_the_nearest_way_to_a_document_counts(
    tmp_path: Path, paint: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the way is that stands first."""
    monkeypatch.setattr(catalogs, "MAX_CATALOG_DEPTH", 3)
    paint.scene(tmp_path / "a.tif", paint.pixels((1, 128, 128)))
    chain(tmp_path, 10, "{}")
    sources = find_sources([write(tmp_path / "top.json", catalog("c5.json", "c0.json", "c9.json"))])
    assert list(sources.found) == ["item.json"]
    assert set(sources.rejected) == {"c3.json", "c8.json"}


@pytest.mark.parametrize(
    ("limit", "value", "sentence"),
    [
        ("MAX_LINKS", 3, "beyond the first 3 of this run"),
        ("MAX_CATALOG_BYTES", 1500, "linked after"),
    ],
)
def test_a_catalog_of_too_much_is_named_and_what_was_read_counts(
    tmp_path: Path, paint: Any, monkeypatch: pytest.MonkeyPatch, limit: str, value: int,
    sentence: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(catalogs, limit, value)
    for k in range(10):
        # A raster of its own each, for copies are another matter.
        corner = (paint.corner[0] + 12800 * k, paint.corner[1])
        paint.scene(tmp_path / f"{k}.tif", paint.pixels((1, 128, 128), seed=k), corner=corner)
        write(tmp_path / f"i{k}.json", feature(f"i{k}", f"{k}.tif"))
    first = write(tmp_path / "c.json", catalog(*(f"i{k}.json" for k in range(10))))
    out = tmp_path / "out"
    archive = paint.tile(first, out)
    assert 0 < archive.n_tiles < 10
    reasons = rejected(out).values()
    assert reasons and all(sentence in text and "one at a time" in text for text in reasons)
    with pytest.raises(SystemExit) as stopped:
        main(["tile", str(first), "--grid=utm:1280", f"--out={out}2", "--strict"])
    assert stopped.value.code == 1


def test_a_catalog_may_link_into_another_given_folder(tmp_path: Path, paint: Any) -> None:
    paint.scene(tmp_path / "b" / "a.tif", paint.pixels((1, 128, 128)))
    write(tmp_path / "b" / "item.json", feature("item"))
    first = write(tmp_path / "a" / "c.json", catalog("../b/item.json"))
    archive = paint.tile(tmp_path, tmp_path / "out", paths=[first, tmp_path / "b"])
    assert archive.n_tiles == 1
    assert [reason for reason in archive.rejected["reason"] if "same bytes" in reason]


def nested(n: int) -> Any:
    found: Any = 1
    for _ in range(n):
        found = [found]
    return found


HOSTILE = {
    "nul": (feature("a", "a\0.tif"), "none of them a control character"),
    "escape": (feature("a", "\x1b[2Ja.tif"), "none of them a control character"),
    "quoted nul": (feature("a", "a%00.tif"), "no path that can be opened"),
    "long": (feature("a", "x" * 100_000), "of 100000 characters"),
    "long name": (feature("a", "x" * 300 + ".tif"), "no path that can be opened"),
    "long URL": (feature("a", "https://x/" + "y" * 100_000), "expected a path or a URL of"),
    "device": (feature("a", "file:///dev/zero"), "outside the given folder; copy it there"),
    "data": (feature("a", "data:image/tiff;base64,AAAA"), "only files and, with --remote, https"),
    "drive": (feature("a", "C:\\town.tif"), "only files and, with --remote, https"),
    "brackets": (feature("a", "http://["), "give --remote"),
    "folder": (feature("a", "."), "which is no file"),
    "nothing": (feature("a", ""), "which is no file"),
    "number": (feature("a", 7), "which does not exist"),
    "surrogate": (feature("a", "\ud800.tif"), "which does not exist"),
    "secret": (feature("a", "https://me:hidden@x.org/b.tif?key=hidden"), "https://***@x.org/b.tif"),
    "deep": (feature("a", extra=nested(400)), "nested in more than 100 levels"),
    "assets": (feature("a", assets={str(k): {} for k in range(1001)}), "has 1001 assets"),
    "date": (feature("a", properties={"datetime": "2" * 5000}), "datetime of 5000 characters"),
    "scale": (feature("a", assets={"B04": {"href": "a.tif", "raster:scale": 10**400}}), "scale"),
    "nodata": (feature("a", assets={"B04": {"href": "a.tif", "nodata": "1" * 400 + "x"}}),
               "expected a number"),
    "platform": (feature("a", properties={"platform": "\x1b[2J"}), "is of platform \\x1b[2J"),
    "twice": ('{"type": "Feature", "stac_version": "1.0.0", "properties": {'
              '"datetime": "2019-06-01", "datetime": "2020-06-01"}, '
              '"assets": {"B04": {"href": "a.tif"}}}',
              "names datetime twice, with two values"),
    "very deep": ('{"type": "Feature", "stac_version": "1.0.0", "x":' + "[" * 99_999, "too deep"),
}  # fmt: skip


@pytest.mark.parametrize("layout", ["file", "collection"])
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_item_is_named_and_the_others_are_tiled(
    tmp_path: Path, paint: Any, name: str, layout: str
) -> None:
    item, sentence = HOSTILE[name]
    folder = tmp_path / "in"
    paint.scene(folder / "bad" / "a.tif", paint.pixels((1, 128, 128)))
    paint.scene(folder / "good" / "a.tif", paint.pixels((1, 128, 128)) // 2)
    good = feature("good", "../good/a.tif")
    if layout == "file":
        write(folder / "bad" / "item.json", item)
        write(folder / "good" / "item.json", good)
    else:
        text = item if isinstance(item, str) else json.dumps(item)
        both = f'{{"type": "FeatureCollection", "features": [{text}, {json.dumps(good)}]}}'
        write(folder / "bad" / "found.json", both)
        if name == "very deep":
            write(folder / "good" / "item.json", good)
    archive = paint.tile(folder, tmp_path / "out")
    assert archive.n_tiles == 1 and (archive.read(0)[0] <= 5000).all(), "the good scene alone"
    reasons = rejected(tmp_path / "out")
    (reason,) = [text for name, text in reasons.items() if "json" in name]
    assert sentence in reason and "hidden" not in reason
    assert reason.isprintable(), "one line that a terminal shows as it is"


def test_items_of_one_id_keep_their_numbers() -> None:
    """An id may be what another one would be called."""
    ids = ["a", "a~2", "a", "a", "b", "a~5"]
    found = items_of({"type": "FeatureCollection", "features": [feature(name) for name in ids]})
    assert len(found) == len({name for name, _ in found}) == len(ids)


def test_a_name_that_stands_twice_with_one_value_says_one_thing(tmp_path: Path) -> None:
    assert fault_of(parse('{"a": [1], "a": [1]}')) is None
    assert "twice" in str(fault_of(parse('{"a": [{"b": 1, "b": 2}]}')))
    path = write(
        tmp_path / "c.json", '{"type": "Catalog", "stac_version": "1", "links": [], "links": 1}'
    )
    with pytest.raises(SceneError, match="names links twice"):
        read_stac_file(path)


def test_a_number_of_thousands_of_digits_is_no_reason_to_lose_the_file() -> None:
    assert parse("[" + "9" * 5000 + ", -" + "9" * 400 + ", 12]") == [
        float("inf"),
        -float("inf"),
        12,
    ]


def test_masks_of_an_item_whose_id_is_no_file_name(tmp_path: Path, paint: Any) -> None:
    paint.scene(tmp_path / "in" / "a.tif", paint.pixels((1, 128, 128)))
    odd = [feature(name) for name in ("\0", "\uac00" * 200, "../../x", "good")]
    write(tmp_path / "in" / "found.json", {"type": "FeatureCollection", "features": odd})
    paint.scene(tmp_path / "masks" / "found" / "good.tif", paint.pixels((1, 128, 128)))
    with pytest.raises(SceneError, match=r"no valid pixel|is usable"):
        paint.tile(tmp_path / "in", tmp_path / "out", masks=tmp_path / "masks")


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=8)
    | st.sampled_from([10**299, -(10**299), "a.tif", "B04", "S2A", "\ud800", "\0", ""]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["href", "name", "nodata", "scale", "offset", "B04"]), inner,
                      max_size=3),
    max_leaves=8,
)  # fmt: skip
FIELDS = [
    ("type",), ("stac_version",), ("id",), ("collection",), ("properties",), ("assets",),
    ("properties", "datetime"), ("properties", "start_datetime"), ("properties", "end_datetime"),
    ("properties", "platform"), ("properties", "instruments"), ("properties", "gsd"),
    ("properties", "s2:processing_baseline"), ("properties", "processing:version"),
    ("properties", "processing:software"), ("properties", "period"), ("assets", "B04"),
    ("assets", "B04", "href"), ("assets", "B04", "roles"), ("assets", "B04", "eo:bands"),
    ("assets", "B04", "bands"), ("assets", "B04", "raster:bands"), ("assets", "B04", "nodata"),
    ("assets", "B04", "raster:scale"), ("assets", "B04", "raster:offset"),
]  # fmt: skip


@given(changes=st.lists(st.tuples(st.sampled_from(FIELDS), ANYTHING), min_size=1, max_size=3))
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_value_in_any_field_is_read_or_named(
    tmp_path: Path, paint: Any, changes: list[tuple[tuple[str, ...], Any]]
) -> None:
    if not (tmp_path / "a.tif").exists():
        paint.scene(tmp_path / "a.tif", paint.pixels((1, 128, 128)))
    item = feature("a")
    for keys, value in changes:
        place: Any = item
        for key in keys[:-1]:
            place = place.get(key) if isinstance(place, dict) else None
        if isinstance(place, dict):
            place[keys[-1]] = value
    path = write(tmp_path / "item.json", item)
    try:
        for source in find_sources([path]).found.values():
            assert isinstance(source, Source)
            read_stac(source, SceneOptions())
    except SceneError as error:
        assert "\x1b" not in str(error)
