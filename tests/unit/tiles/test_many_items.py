"""Many items of one raster: it is read once, and its copies are named, whatever they are called."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecofm.tiles import assembly
from ecofm.tiles.claims import baseline_of_name
from ecofm.tiles.ground import Ground
from ecofm.tiles.kept import Kept
from ecofm.tiles.offsets import HARMONISED, PRODUCT
from ecofm.tiles.radiometry import LANDSAT, SENTINEL_2, telling

N = 40


def write(folder: Path, n: int, **assets: Any) -> Path:
    """Write a collection of items that name one raster, on the same day."""
    features = [
        {
            "type": "Feature", "stac_version": "1.0.0", "id": f"item{k}",
            "properties": {"datetime": f"2019-06-01T00:{k % 60:02d}:00Z"},
            "assets": {"B04": {"href": "a.tif", **{key: of(k) for key, of in assets.items()}}},
        }
        for k in range(n)
    ]  # fmt: skip
    path = folder / "found.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Return how often rasters are opened, decided about, and compared."""
    counts: Counter[str] = Counter()

    def count(owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def counting(*args: Any, **kwargs: Any) -> Any:
            counts[name] += 1
            return real(*args, **kwargs)

        monkeypatch.setattr(owner, name, counting)

    count(assembly, "read_header")
    count(assembly, "sample_part")
    count(assembly, "resolve")
    count(Ground, "compare")
    count(Ground, "adds_nothing")
    return counts


def test_items_of_one_raster_are_one_scene(
    tmp_path: Path, paint: Any, counted: Counter[str]
) -> None:
    paint.scene(tmp_path / "in" / "a.tif", paint.pixels((1, 256, 256)))
    archive = paint.tile(write(tmp_path / "in", N), tmp_path / "out")
    assert archive.n_tiles == 4 and len(archive.rejected) == N - 1
    assert set(archive.rejected["reason"]) == {
        "is of the same files as found.json#item0, and says the same of them"
    }
    assert counted == {"read_header": 1, "sample_part": 1, "resolve": 1}


def test_copies_weigh_nothing_in_a_composite(tmp_path: Path, paint: Any) -> None:
    """A median of one date and of the same date three times is that of two dates."""
    for k, name in enumerate(("a.tif", "b.tif")):
        paint.scene(tmp_path / "in" / name, paint.pixels((1, 128, 128), seed=k))
    path = write(tmp_path / "in", 4)
    found = json.loads(path.read_text())
    found["features"][3]["assets"]["B04"]["href"] = "b.tif"
    found["features"][3]["properties"]["datetime"] = "2019-07-01T00:00:00Z"
    path.write_text(json.dumps(found))
    options = {"per": "year", "composite": "median"}
    thrice = paint.tile(path, tmp_path / "thrice", **options).read(0)[0]
    found["features"] = found["features"][2:]
    path.write_text(json.dumps(found))
    once = paint.tile(path, tmp_path / "once", **options).read(0)[0]
    assert np.array_equal(thrice, once)


def test_items_that_contradict_each_other_about_one_raster_are_all_left_out(
    tmp_path: Path, paint: Any, counted: Counter[str]
) -> None:
    paint.scene(tmp_path / "in" / "a.tif", paint.pixels((1, 128, 128)))
    paint.scene(tmp_path / "in" / "good_2020.tif", paint.pixels((1, 128, 128)), names=["B04"])
    write(tmp_path / "in", N, **{"raster:scale": lambda k: 1e-4 * (1 - k / 1000)})
    archive = paint.tile(tmp_path / "in", tmp_path / "out")
    assert archive.periods == ["2020"] and len(archive.rejected) == N
    assert archive.rejected["reason"].str.contains("shows the same ground as").all()
    assert counted["compare"] == N - 1, "each is compared until it has a rival"
    # One for the raster of all, one for the good one.
    assert counted["read_header"] == 1 and counted["sample_part"] == 2


def test_rasters_of_the_same_numbers_are_compared_once_each(
    tmp_path: Path, paint: Any, counted: Counter[str]
) -> None:
    """Another compression, or another tag, makes other bytes of the same scene."""
    pixels = paint.pixels((1, 128, 128))
    for k in range(12):
        path = tmp_path / "in" / f"{k:02d}_20190601.tif"
        paint.scene(path, pixels, names=["B04"], tags={"made": str(k)})
    archive = paint.tile(tmp_path / "in", tmp_path / "out")
    assert archive.n_tiles == 1 and not len(archive.rejected)
    assert counted["compare"] == 11
    # One that differs is a rival of them all.
    paint.scene(tmp_path / "in" / "x_20190601.tif", pixels // 2, names=["B04"])
    paint.scene(tmp_path / "in" / "x_2020.tif", pixels, names=["B04"])
    archive = paint.tile(tmp_path / "in", tmp_path / "out2")
    assert archive.periods == ["2020"] and len(archive.rejected) == 13


def test_what_is_kept_is_read_once_and_so_is_what_fails() -> None:
    asked: list[int] = []

    def read(n: int) -> int:
        asked.append(n)
        if n < 0:
            raise assembly.SceneError("is damaged")
        return n

    kept: Kept[int] = Kept(2)
    assert [kept.ask(n, lambda n=n: read(n)) for n in (0, 1, 0, 2, 0, 1)] == [0, 1, 0, 2, 0, 1]
    assert asked == [0, 1, 2, 1], "the one that was asked for longest ago is forgotten"
    for _ in range(3):
        with pytest.raises(assembly.SceneError, match="is damaged"):
            kept.ask(-1, lambda: read(-1))
    assert asked.count(-1) == 1


WORDS = st.sampled_from([
    "S2A_MSIL2A_20220817T103041_N0400_R108_T52SCG", "MSIL1C_2_N0509", "harmonized",
    "not harmonized", "S2_SR_HARMONIZED", "T52SCG_20220817T103041", "LC08_L2SP_115034_20190601",
    "landsat", "S2", "S20", "sentinel-2", "town", "2019", "_", "N9999", "HLS.L30",
])  # fmt: skip


@given(st.lists(WORDS | st.text(max_size=6), max_size=6).map("_".join))
def test_what_a_name_tells_is_what_every_rule_reads_of_it(name: str) -> None:
    told = telling(name)
    assert baseline_of_name(told) == baseline_of_name(name)
    for rule in (PRODUCT, HARMONISED, LANDSAT, SENTINEL_2):
        assert bool(rule.search(told)) == bool(rule.search(name)), rule
    assert telling(told) == told
