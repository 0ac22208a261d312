"""Bands: their names, the choice among them, and quality bands that are no reflectance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ecofm.errors import SceneError
from ecofm.tiles.bands import band_name, choose, own_names, quality_kind, spectral_name


@pytest.mark.parametrize(
    ("name", "band"),
    [
        ("B4", "B04"), ("b04", "B04"), ("B8A", "B8A"), ("b08a", "B8A"), ("B12", "B12"),
        ("red", "B04"), ("NIR08", "B8A"), ("swir16", "B11"), ("0_B4", "B04"),
        ("B4_median", "B04"), ("B4_p25", "B04"), ("B04_10m", "B04"),
        ("20190612T021611_20190612T022353_T52SCG_B4", "B04"),
        ("B13", None), ("B0", None), ("SR_B4", None), ("NDVI", None), ("QA60", None),
        ("SCL", None), ("scl", None), ("band4", None), ("", None),
    ],
)  # fmt: skip
def test_names_of_sentinel_2(name: str, band: str | None) -> None:
    assert spectral_name(name) == band
    assert band is None or band_name(band) == band


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("SCL", "classes"), ("QA60", "bits"), ("qa60", "bits"), ("0_QA60", "bits"),
        ("MSK_CLASSI_OPAQUE", "nonzero"), ("dataMask", "zero"), ("data_mask", "zero"),
        ("MSK_CLDPRB", "unused"), ("QA10", "unused"), ("AOT", "unused"), ("WVP", "unused"),
        ("TCI_R", "unused"), ("cloud_probability", "unused"), ("Fmask", "unused"),
        ("cs_cdf", "unused"), ("QA_PIXEL", "unused"), ("B4", None), ("VV", None), ("red", None),
    ],
)  # fmt: skip
def test_names_of_quality_bands(name: str, kind: str | None) -> None:
    assert quality_kind(name) == kind


OWN = ("B02", "B03", "B04", "QA60", "NDVI")


@pytest.mark.parametrize(
    ("own", "wanted", "names", "indices"),
    [
        (OWN, None, ("B02", "B03", "B04"), (0, 1, 2)),
        (OWN, ("B04", "B02"), ("B04", "B02"), (2, 0)),
        (OWN, ("B4", "red_edge=NDVI"), ("B04", "red_edge"), (2, 4)),
        (("red", "green", "blue"), ("B02", "B03", "B04"), ("B02", "B03", "B04"), (2, 1, 0)),
        (("red", "green", "blue"), ("B04=1", "x=blue"), ("B04", "x"), (0, 2)),
        (("band1", "band2"), ("B08", "B04"), ("B08", "B04"), (0, 1)),
        (("band1", "band2"), ("B08=2",), ("B08",), (1,)),
        (("band1", "band2"), None, ("band1", "band2"), (0, 1)),
        (("VV", "VH", "ratio"), None, ("VV", "VH", "ratio"), (0, 1, 2)),
        (("band1", "band2", "band3"), ("B04", "B03", "QA60"), ("B04", "B03"), (0, 1)),
        (("band1", "band2"), ("band2", "band1"), ("band2", "band1"), (1, 0)),
        (("band1", "band2"), ("2", "1"), ("band2", "band1"), (1, 0)),
        (("BLUE", "NIR", "BROADNIR"), ("B08", "B8A"), ("B08", "B8A"), (2, 1)),
        (("nbart_red", "nbart_nir_1", "oa_fmask"), None, ("nbart_red", "nbart_nir_1"), (0, 1)),
        (("Blue", "SWIR1", "SWIR2"), None, ("Blue", "SWIR1", "SWIR2"), (0, 1, 2)),
    ],
)
def test_bands_are_chosen_and_ordered_by_name(
    own: Any, wanted: Any, names: Any, indices: Any
) -> None:
    found = choose(own, wanted)
    assert (found.names, found.indices) == (names, indices)


@pytest.mark.parametrize(
    ("own", "wanted", "sentence"),
    [
        (OWN, ("B08",), r"has bands B02, .*asks for B08: choose .*\(--bands NAME=B02\)"),
        (("band1", "band2"), ("B04",), r"has 2 bands without names.*\(--bands B04=1\)"),
        (("B02", "B03"), ("B04", "B03"), "asks for B04"),
        (("B02", "B03"), ("x=3",), "asks for 3"),
    ],
)
def test_bands_that_are_not_there_are_refused(own: Any, wanted: Any, sentence: str) -> None:
    with pytest.raises(SceneError, match=sentence):
        choose(own, wanted)


def test_names_that_are_a_guess_must_agree_with_those_given() -> None:
    """Software writes 8-bit bands as red, green and blue by default."""
    colours = ("red", "green", "blue")
    assert choose(colours, ("B04", "B03", "B02"), is_guess=True).indices == (0, 1, 2)
    assert choose(colours, ("blue", "green", "red"), is_guess=True).indices == (2, 1, 0)
    with pytest.raises(SceneError, match=r"--bands B02=1,B03=2,B04=3 if that is their order"):
        choose(colours, ("B02", "B03", "B04"), is_guess=True)


def test_own_names_are_the_file_s_where_it_has_them_all() -> None:
    assert own_names(["B4", "b3", "0_B2"], ["gray"] * 3, "a") == ("B04", "B03", "B02")
    assert own_names(["B4", None], ["gray", "undefined"], "a") == ("band1", "band2")
    assert own_names(["B4", "B04"], ["gray", "undefined"], "a") == ("band1", "band2")
    assert own_names([None] * 3, ["red", "green", "blue"], "a_B02") == ("red", "green", "blue")
    assert own_names([None] * 2, ["gray"] * 2, "town_B4_QA60") == ("B04", "QA60")


@pytest.mark.parametrize(
    ("name", "values", "share"),
    [
        ("QA60", (0, 1024), 0.5), ("QA60", (0, 2048), 0.5), ("QA60", (0, 4096), 1.0),
        ("SCL", (4, 9), 0.5), ("dataMask", (1, 0), 0.5), ("MSK_CLASSI_OPAQUE", (0, 1), 0.5),
        ("MSK_CLDPRB", (0, 99), 1.0),
    ],
)  # fmt: skip
@pytest.mark.parametrize("layout", ["one raster", "set"])
def test_a_quality_band_is_used_or_left_out_by_name(
    tmp_path: Path, paint: Any, capsys: Any, name: str, values: Any, share: float, layout: str
) -> None:
    pixels = np.full((4, 128, 128), 300, "uint16")
    pixels[3, :, :64], pixels[3, :, 64:] = values
    names = ["B4", "B3", "B2", name]
    if layout == "set":
        for band, values_of in zip(names, pixels, strict=True):
            paint.scene(tmp_path / "in" / f"a_2019_{band}.tif", values_of[None])
    else:
        paint.scene(tmp_path / "in" / "a_2019.tif", pixels, names=names)
    archive = paint.tile(tmp_path / "in", tmp_path / "out")
    assert set(archive.contract.bands) == {"B04", "B03", "B02"}
    assert archive.index["valid_share"].tolist() == [share]
    left_out = pd.read_parquet(tmp_path / "out" / "rejected.parquet").to_string()
    assert name.upper() in (capsys.readouterr().err + left_out).upper()
    unused = paint.tile(tmp_path / "in", tmp_path / "all", quality=False, scl_masked=())
    assert unused.index["valid_share"].tolist() == [1.0]


def test_a_quality_band_of_floats_with_nan_is_read(tmp_path: Path, paint: Any) -> None:
    pixels = np.full((3, 128, 128), 0.2, "float32")
    pixels[2, :64], pixels[2, 64:96], pixels[2, 96:] = 0, 1024, np.nan
    paint.scene(tmp_path / "in" / "a_2019.tif", pixels, names=["B4", "B3", "QA60"])
    archive = paint.tile(tmp_path / "in", tmp_path / "out")
    assert archive.index["valid_share"].tolist() == [0.75]


def test_a_quality_file_alone_is_no_scene(tmp_path: Path, paint: Any) -> None:
    paint.scene(tmp_path / "in" / "a_2019.tif", paint.pixels((2, 128, 128)), names=["B03", "B04"])
    paint.scene(tmp_path / "in" / "a_2019_QA60.tif", np.ones((1, 128, 128), "uint16"))
    paint.tile(tmp_path / "in", tmp_path / "out")
    (row,) = pd.read_parquet(tmp_path / "out" / "rejected.parquet").to_numpy().tolist()
    assert row[0] == "a_2019_QA60.tif" and "is a quality file by its name (QA60)" in row[1]


def test_bands_without_names_are_asked_for(tmp_path: Path, paint: Any, capsys: Any) -> None:
    paint.scene(tmp_path / "in" / "a_2019.tif", paint.pixels((3, 128, 128)))
    archive = paint.tile(tmp_path / "in", tmp_path / "out")
    assert archive.contract.bands == ("band1", "band2", "band3")
    assert "3 bands have no names" in (told := capsys.readouterr().err)
    assert "--bands B04,B03,B02" in told


@pytest.mark.parametrize("layout", ["one raster", "set"])
def test_each_name_keeps_its_own_numbers(tmp_path: Path, paint: Any, layout: str) -> None:
    """Asked for in any order, of a file with as many bands as are asked for or with more."""
    names = ["B02", "B03", "B04"]
    pixels = np.stack([np.full((128, 128), n, "uint16") for n in (200, 300, 400)])
    if layout == "set":
        for band, values in zip(names, pixels, strict=True):
            paint.scene(tmp_path / "in" / f"a_2019_{band}.tif", values[None])
    else:
        paint.scene(tmp_path / "in" / "a_2019.tif", pixels, names=names)
    for wanted in (("B04", "B03", "B02"), ("B03", "B02"), ("green", "red")):
        archive = paint.tile(tmp_path / "in", tmp_path / "-".join(wanted), bands=wanted)
        found = [int(band.max()) for band in archive.read(0)[0]]
        true = {"B02": 200, "B03": 300, "B04": 400, "green": 300, "red": 400}
        assert found == [true[band] for band in wanted]
