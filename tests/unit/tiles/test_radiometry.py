"""Radiometry: who decides scale and offset, what is refused, and what the pixels may overrule."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecofm.errors import SceneError
from ecofm.tiles.claims import Claim, Evidence, make_claim, parse_baseline, parse_number
from ecofm.tiles.radiometry import Radiometry, resolve

LAND = np.random.default_rng(0).normal(1800, 300, 4000)
"""Reflectance x 10000 of fields and roofs: nothing dark."""
FOREST = np.random.default_rng(1).normal(300, 30, 4000)
SEA = np.random.default_rng(2).normal(-8, 12, 4000)
STATED = Claim("raster:bands", 1e-4, -0.1)
OLD, NEW = parse_baseline("02.13", "baseline"), parse_baseline("05.09", "baseline")


def decide(values: Any = LAND, dtype: str = "uint16", **known: Any) -> tuple[Radiometry, str]:
    """Return what the numbers of a lone band B04 mean, and what the manifest tells of it."""
    claims = known.pop("claims", [])
    evidence = Evidence(dtypes={"B04": dtype}, claims={"B04": claims}, **known)
    found, decided, _ = resolve(evidence, lambda: {"B04": np.asarray(values, float)})
    return found["B04"], decided


@pytest.mark.parametrize(
    ("known", "offset", "source"),
    [
        ({"claims": [STATED]}, -1000, "offset by raster:bands"),
        ({"claims": [STATED], "applied": True}, 0, "earthsearch:boa_offset_applied"),
        ({"applied": True, "baseline": NEW}, 0, "earthsearch:boa_offset_applied"),
        ({"baseline": NEW, "day": "2017-01-01"}, -1000, "offset by baseline 05.09"),
        ({"baseline": OLD, "day": "2023-01-01"}, 0, "offset by baseline 02.13"),
        ({"name": "S2A_MSIL2A_20170101T1_N0500_R1", "day": "2017-01-01"}, -1000, "name, 05.00"),
        ({"tags": "x S2A_MSIL2A_20170101T1_N0500_R1", "day": "2017"}, -1000, "name, 05.00"),
        ({"name": "S2A_MSIL2A_20230101T1", "day": "2023-01-01"}, -1000, "its date 2023-01-01"),
        ({"name": "T52SCG_20230612T021611", "day": "2023-06-12"}, -1000, "its date"),
        ({"name": "S2_SR_HARMONIZED_2023", "day": "2023"}, 0, "'HARMONIZED' in its name"),
        ({"name": "my_mosaic", "day": "2021-01-01"}, 0, "offset by default"),
        ({"name": "kosan_N3851_E12724", "day": "2019-06-12"}, 0, "offset by default"),
        ({"claims": [Claim("GDAL", 1e-4, None)], "baseline": NEW}, -1000, "baseline 05.09"),
    ],
)
def test_the_most_trusted_source_decides(known: Any, offset: float, source: str) -> None:
    """Collection-1 reprocessing of older scenes carries the offset too: never the date first."""
    stored = LAND - offset
    found, decided = decide(stored, **known)
    assert found == Radiometry(1e-4, offset)
    assert source in decided
    assert np.allclose((stored + found.offset) * found.scale, LAND / 1e4)


@pytest.mark.parametrize(
    ("known", "named"),
    [
        ({"claims": [STATED, Claim("GDAL", 5e-5, -0.1)]}, ["raster:bands", "GDAL", "--scale"]),
        ({"claims": [STATED, Claim("GDAL", None, -0.2)]}, ["raster:bands", "GDAL", "--offset"]),
        ({"claims": [STATED], "baseline": OLD}, ["raster:bands", "baseline 02.13", "--offset"]),
        ({"claims": [Claim("XML", 1e-4, 0.0)], "baseline": NEW}, ["XML", "baseline 05.09"]),
        ({"claims": [STATED], "name": "a_harmonized_b"}, ["harmonized", "raster:bands"]),
    ],
)
def test_sources_that_contradict_each_other_are_refused_with_both_named(
    known: Any, named: list[str]
) -> None:
    with pytest.raises(SceneError, match="contradict each other") as raised:
        decide(LAND + 1000, **known)
    assert all(word in str(raised.value) for word in named)
    assert decide(LAND + 1000, scale=1e-4, offset=-1000.0, **known)[0].offset == -1000


def test_a_stated_zero_and_pixels_that_agree_outweigh_a_baseline() -> None:
    """A mirror that took the 1000 off, says so in its item, and keeps the product's name."""
    assert decide(FOREST, claims=[Claim("raster:bands", 1e-4, 0.0)], baseline=NEW)[0].offset == 0


@pytest.mark.parametrize("sea", [SEA, SEA * 3 - 20, SEA * 5])
@pytest.mark.parametrize("known", [{"baseline": NEW}, {"claims": [STATED]}])
def test_dark_water_is_no_proof_that_an_offset_was_applied(sea: Any, known: Any) -> None:
    stored = np.concatenate([sea, sea, sea, LAND[:2000]]) + 1000
    assert decide(stored, **known)[0].offset == -1000


def test_pixels_near_zero_are_proof_that_an_offset_was_applied() -> None:
    found, decided = decide(FOREST, baseline=NEW)
    assert found.offset == 0 and "its pixels, against baseline 05.09" in decided
    with pytest.raises(SceneError, match="give --offset 0 if so"):
        decide(FOREST, claims=[STATED])


@pytest.mark.parametrize("share", [0.004, 0.01])
def test_pixels_that_leave_a_doubt_are_refused_with_both_flags(share: float) -> None:
    dark = np.full(int(share * 4000), 300.0)
    with pytest.raises(SceneError, match=r"--offset -1000 if .* or --offset 0 if not"):
        decide(np.concatenate([LAND + 1000, dark]), baseline=NEW)


@pytest.mark.parametrize("day", ["2022-01-25", "2023-06-12", "2022", "2023-Q2"])
def test_a_late_scene_that_says_nothing_is_refused_unless_dark_pixels_tell(day: str) -> None:
    """Earth Engine's harmonized exports carry no offset and no metadata."""
    assert decide(np.concatenate([LAND, FOREST]), day=day)[0].offset == 0
    with pytest.raises(SceneError, match="says nothing of an offset"):
        decide(LAND, day=day)
    assert decide(LAND, day=day, offset=0.0)[0].offset == 0
    assert decide(LAND, day="2022-01-24")[0].offset == 0


@pytest.mark.parametrize("name", ["T52SCG_20190612T021611", "S2A_MSIL2A_20190612T021611"])
def test_an_early_date_is_no_proof_that_nothing_was_added(name: str) -> None:
    """Scenes of all years have been processed again with later baselines."""
    assert decide(FOREST, name=name, day="2019-06-12")[0].offset == 0
    with pytest.raises(SceneError, match="says nothing of an offset"):
        decide(LAND, name=name, day="2019-06-12")
    evidence = Evidence(dtypes={"B04": "uint16"}, name="mosaic", day="2019")
    _, _, notes = resolve(evidence, lambda: {"B04": LAND})
    assert "nothing tells an offset" in notes[0]


@pytest.mark.parametrize("name", ["S2A_52SCG_20230612_0_L2A", "S2A_MSIL2A_20190612T1_N9999_R3"])
def test_ids_that_tell_no_baseline_leave_a_doubt(name: str) -> None:
    with pytest.raises(SceneError, match="says nothing of an offset"):
        decide(LAND, name=name, day="2023-06-12" if "52SCG" in name else "2019-06-12")


@pytest.mark.parametrize("name", ["unharmonized_2023", "not_harmonized_2023", "non-harmonised"])
def test_the_contrary_of_harmonized_is_not_harmonized(name: str) -> None:
    with pytest.raises(SceneError, match="says nothing of an offset"):
        decide(LAND, name=name, day="2023")


@pytest.mark.parametrize("junk", [np.zeros(900), np.full(20, 400.0), np.zeros(3)])
def test_a_few_dark_numbers_settle_no_doubt(junk: Any) -> None:
    """Zeros outside the scene, and edges that a resampling smeared."""
    with pytest.raises(SceneError, match="says nothing of an offset"):
        decide(np.concatenate([LAND + 1000, junk]), day="2023")


@pytest.mark.parametrize(
    ("values", "dtype", "flags", "sentence"),
    [
        (LAND, "uint16", {"offset": -0.1}, "give --offset -1000"),
        (FOREST, "uint16", {"offset": -1000.0}, "tile it by itself"),
        (LAND / 1e4, "float32", {"offset": -1000.0}, "below zero reflectance"),
        (LAND / 1e4, "float32", {"scale": 1e-4}, "median reflectance"),
        (LAND * 4, "uint16", {"scale": 2.75e-5, "offset": -0.2}, "give --offset -7272.7"),
    ],
)
def test_flags_that_fit_no_ground_are_refused(
    values: Any, dtype: str, flags: Any, sentence: str
) -> None:
    with pytest.raises(SceneError, match=sentence):
        decide(values, dtype, **flags)


def test_the_user_s_scale_overrules_the_offset_beside_another() -> None:
    """Software that decodes a file to reflectance may leave its scale and offset in the tags."""
    found, _ = decide(FOREST / 1e4, "float32", scale=1.0, claims=[STATED])
    assert found == Radiometry(1.0, 0.0)


def test_each_number_type_has_its_own_default_scale() -> None:
    dtypes = {"B02": "uint16", "B04": "float32"}
    sample = {"B02": FOREST, "B04": FOREST / 1e4}
    found, _, _ = resolve(Evidence(dtypes=dtypes), lambda: sample)
    assert found == {"B02": Radiometry(1e-4, 0), "B04": Radiometry(1.0, 0)}


@pytest.mark.parametrize(("scale", "offset"), [(1.0, -1000.0), (1e-4, -1000.0), (None, -1000.0)])
def test_an_offset_in_stored_numbers_is_asked_about(scale: Any, offset: float) -> None:
    with pytest.raises(SceneError, match=r"give --scale 0.0001 --offset -1000"):
        make_claim("GDAL", scale, offset)


def test_numbers_below_zero_that_are_stored_anew_are_told(paint: Any) -> None:
    evidence = Evidence(dtypes={"B04": "float32"})
    sample = {"B04": np.concatenate([FOREST, SEA]) / 1e4}
    _, _, notes = resolve(evidence, lambda: sample)
    assert notes == ["some of its numbers are below zero reflectance, and are stored as 0"]


def test_scales_of_other_products_are_honoured() -> None:
    landsat = Claim("the file itself (GDAL)", 2.75e-5, -0.2)
    found, _ = decide((LAND / 1e4 + 0.2) / 2.75e-5, claims=[landsat])
    assert found.scale == 2.75e-5 and found.offset * found.scale == pytest.approx(-0.2)


def test_landsat_without_a_scale_is_refused() -> None:
    names = ["LC08_L2SP_115034_20200110_20200823_02_T1", "LC08_115034_20200110", "landsat8_2020"]
    for name in [*names, "x SR_B4"]:
        for dtype in ("uint16", "float64"):
            with pytest.raises(SceneError, match=r"scale 2.75e-5 .* --scale 2.75e-5 --offset -72"):
                decide(np.full(99, 9000.0), dtype, name=name)
    assert decide(name="S2_SR_B4")[0].scale == 1e-4
    assert decide(np.full(99, 0.2), "float32", name="LC08_L2SP_115034_x SR_B4")[0].scale == 1


@pytest.mark.parametrize(
    ("factor", "scale"), [(1e-4, 1.0), (1.0, 1e-4)], ids=["0 to 1", "0 to 10000"]
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_range_of_floats_tells_their_scale(factor: float, scale: float, dtype: str) -> None:
    found, decided = decide(LAND * factor, dtype)
    assert found == Radiometry(scale, 0) and "range of its floats" in decided


@pytest.mark.parametrize("factor", [1e-2, 1e-3, 255 / 3000, 1e3, 1e-9])
def test_floats_of_another_range_are_asked_about(factor: float) -> None:
    with pytest.raises(SceneError, match="give --scale"):
        decide(LAND * factor, "float32")
    scale = 1e-4 / factor
    assert decide(LAND * factor, "float32", scale=scale)[0].scale == scale


@pytest.mark.parametrize(
    ("values", "dtype", "claims"),
    [
        (LAND * 20, "uint16", []),
        (LAND * 6.5, "uint16", []),
        (LAND / 1e4, "float32", [Claim("raster:bands", 1e-4, 0.0)]),
        (LAND, "uint16", [Claim("raster:bands", 0.01, 0.0)]),
    ],
)
def test_a_scale_that_no_ground_reflects_is_refused(values: Any, dtype: str, claims: Any) -> None:
    with pytest.raises(SceneError, match="would have a median reflectance of"):
        decide(values, dtype, claims=claims)


def test_floats_whose_name_has_a_late_baseline_are_asked_about() -> None:
    with pytest.raises(SceneError, match=r"--offset -0.1 if .* or --offset 0 if not"):
        decide(LAND / 1e4, "float32", baseline=NEW)
    assert decide(FOREST / 1e4, "float32", baseline=NEW)[0] == Radiometry(1.0, 0.0)


def test_each_band_has_its_own_and_a_silent_one_that_of_all_others() -> None:
    dtypes = {"B02": "uint16", "B03": "uint16", "B04": "uint16"}
    claims = {"B02": [STATED], "B03": [STATED]}
    values = dict.fromkeys(dtypes, LAND + 1000)
    found, _, _ = resolve(Evidence(dtypes=dtypes, claims=claims), lambda: values)
    assert set(found.values()) == {Radiometry(1e-4, -1000)}
    claims["B03"] = [Claim("raster:bands", 5e-5, -0.1)]
    with pytest.raises(SceneError, match=r"and none of B04; give --scale"):
        resolve(Evidence(dtypes=dtypes, claims=claims), lambda: values)
    claims["B04"] = [STATED]
    found, decided, _ = resolve(Evidence(dtypes=dtypes, claims=claims), lambda: values)
    assert found["B03"] == Radiometry(5e-5, -2000) and found["B04"] == Radiometry(1e-4, -1000)
    assert "scale 5e-05, offset -2000 (B03)" in decided


def test_bytes_are_pictures_unless_a_scale_is_said() -> None:
    assert decide(LAND / 30, "uint8")[0].is_rendering
    assert decide(LAND / 30, "uint8", claims=[Claim("GDAL", 0.004, None)])[0].scale == 0.004


@pytest.mark.parametrize(
    ("text", "offset"),
    [
        ("05.09", -0.1), ("5.09", -0.1), ("99.99", None),
        ("0509", -0.1), ("N0400", -0.1), ("03.01", 0.0), (5.09, -0.1), (4, -0.1),
        (2.13, 0.0), ("3.7.12", None), ("2.11", 0.0), ("05.11.02", None), ("v05.11", None),
        ("", None), (None, None), (True, None), ([5], None),
    ],
)  # fmt: skip
def test_only_a_baseline_is_one(text: Any, offset: float | None) -> None:
    found = parse_baseline(text, "x")
    assert (None if found is None else found.offset) == offset
    # Where it may be any software's, a baseline has two digits.
    assert parse_baseline("5.09", "x", is_version=True) is None


@pytest.mark.parametrize("value", ["many", float("nan"), float("inf"), -1e6, [1], {}])
def test_numbers_of_metadata_are_checked(value: Any) -> None:
    with pytest.raises(SceneError, match=r"which no stored number needs|expected a number"):
        parse_number(value, "an offset")


@given(
    st.floats(0.01, 0.9), st.sampled_from([1e-4, 5e-5, 2.75e-5]), st.sampled_from([0.0, -0.1, -0.2])
)
def test_what_is_stated_brings_back_the_reflectance(
    reflectance: float, scale: float, offset: float
) -> None:
    stored = np.full(50, (reflectance - offset) / scale)
    found, _ = decide(stored, claims=[Claim("raster:bands", scale, offset)])
    assert (stored[0] + found.offset) * found.scale == pytest.approx(reflectance, abs=1e-6)
