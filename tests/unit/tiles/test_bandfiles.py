"""Band files: which names and folders make one scene, and which files are no imagery."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecofm.errors import SceneError
from ecofm.tiles.bandfiles import quality_word, sort_band_files

VALUES = {"B02": 300, "B03": 600, "B04": 900}
COLOURS = {"B02": "blue", "B03": "green", "B04": "red"}
GRANULE = "T52SCG_20190612T021611"
PRODUCT = "S2A_MSIL2A_20190612T021611_N0500_R003_T52SCG_20230612T051229"


def rejected(out: Path) -> dict[str, str]:
    return dict(pd.read_parquet(out / "rejected.parquet").to_numpy().tolist())


def flat(value: int, n_bands: int = 1, dtype: str = "uint16") -> Any:
    return np.full((n_bands, 128, 128), value, dtype)


def paint_set(folder: Path, paint: Any, name: str, more: int = 0) -> list[Path]:
    """Write three bands by a pattern of their names."""
    return [
        paint.scene(
            folder / name.format(band=band, number=band[1:], colour=COLOURS[band]),
            flat(value + more),
            nodata=0,
        )
        for band, value in VALUES.items()
    ]


@pytest.mark.parametrize(
    "name",
    [
        "town_2019-06-12_{colour}.tif", "2019-06-12/{colour}.tif", "{band}/2019-06-12.tif",
        "{colour}/town_2019-06-12.tif", "final_2019-06-12_band{number}.tif",
        "{band}_2019-06-12.tif", "{band}-2019-06-12.tif", "town_{band}_2019-06-12.tif",
        f"{GRANULE}_{{band}}_10m_clip.tif", "town.2019-06-12.{band}.tif",
        "green_valley_2019-06-12_{band}.tif", "red_cross_2019-06-12_{colour}.tif",
        "{band}/{band}_2019-06-12.tif", "2019-06-12/{colour}.TIF",
    ],
)  # fmt: skip
def test_a_band_is_a_word_anywhere_in_a_name_or_its_folder(
    tmp_path: Path, paint: Any, name: str
) -> None:
    paint_set(tmp_path / "in", paint, name)
    archive = paint.tile(tmp_path / "in", tmp_path / "out")
    assert archive.contract.bands == ("B02", "B03", "B04")
    assert archive.read(0)[0][:, 0, 0].tolist() == [300, 600, 900]
    assert archive.periods == ["2019-06-12"] and archive.manifest["n_rejected"] == 0
    chosen = paint.tile(tmp_path / "in", tmp_path / "chosen", bands=("B04", "B02"))
    assert chosen.read(0)[0][:, 0, 0].tolist() == [900, 300]


@given(
    st.dictionaries(
        st.sampled_from(["town", "2019-06", "S2", "x.1"]), st.integers(0, 1), min_size=1
    )
)
def test_files_of_one_set_differ_in_nothing_but_the_band(around: dict[str, int]) -> None:
    before = "".join(f"{word}_" for word, side in around.items() if not side)
    after = "".join(f"_{word}" for word, side in around.items() if side)
    files = [Path(f"/a/{before}{band}{after}.tif") for band in (*VALUES, "SCL")]
    (found,) = sort_band_files(files, Path("/a")).sets
    assert found.bands == dict(zip((*VALUES, "SCL"), files, strict=True))


@pytest.mark.parametrize(
    "names",
    [
        ["green_valley_2019.tif", "town_2020.tif"], ["red_cross_site.tif"],
        ["town_B04_B03_B02.tif", "town_B08_B11.tif"], ["B04_2019.tif"],
        ["red_a.tif", "green_b.tif"], ["SCL_2019.tif", "dataMask_2019.tif"], ["a_TCI.tif"],
    ],
)  # fmt: skip
def test_what_is_no_set_is_none(names: list[str]) -> None:
    assert sort_band_files([Path("/a", name) for name in names], Path("/a")).sets == []


@pytest.mark.parametrize("name", ["{band}.tif", "town_{colour}.tif"])
def test_files_of_a_folder_given_one_by_one_are_its_set(
    tmp_path: Path, paint: Any, name: str
) -> None:
    """As the shell gives them for `d/*.tif`."""
    folder = tmp_path / "2019-06-12"
    paths = paint_set(folder, paint, name)
    classes = flat(4, dtype="uint8")
    classes[:, :64] = 9
    paths.append(paint.scene(folder / name.format(band="SCL", colour="SCL"), classes))
    archive = paint.tile(folder, tmp_path / "out", paths=paths, period="2019-06-12")
    assert archive.contract.bands == ("B02", "B03", "B04")
    assert archive.index["valid_share"].tolist() == [0.5]
    some = paint.tile(folder, tmp_path / "some", paths=paths[:2], period="2019-06-12")
    assert some.contract.bands == ("B02", "B03"), "only what is given is read"
    both = paint.tile(folder, tmp_path / "both", paths=[paths[0], folder], period="2019-06-12")
    assert both.contract.bands == ("B02", "B03", "B04") and both.manifest["n_rejected"] == 0


def test_files_called_band1_band2_are_not_guessed(tmp_path: Path, paint: Any) -> None:
    for number in (1, 2, 3):
        paint.scene(tmp_path / "in" / f"town_2019_band{number}.tif", flat(300 * number))
    with pytest.raises(SceneError, match="nothing says whether these are the bands of Sentinel-2"):
        paint.tile(tmp_path / "in", tmp_path / "out")


def test_a_set_whose_files_hold_several_bands_is_refused(tmp_path: Path, paint: Any) -> None:
    for band in VALUES:
        paint.scene(tmp_path / "in" / "town_2019" / f"{band}.tif", flat(300, 3))
    with pytest.raises(SceneError, match=r"B02.tif has 3 bands itself; give each date"):
        paint.tile(tmp_path / "in", tmp_path / "out")


def test_a_band_that_is_there_twice_is_named(tmp_path: Path, paint: Any) -> None:
    paint_set(tmp_path / "in" / "2019-06-12", paint, "{band}.tif")
    paint.scene(tmp_path / "in" / "2019-06-12" / "B04.tiff", flat(7))
    archive = paint.tile(tmp_path / "in", tmp_path / "out")
    assert archive.read(0)[0][:, 0, 0].tolist() == [300, 600, 900]
    (reason,) = rejected(tmp_path / "out").values()
    assert reason == "is band B04 of its scene, as B04.tif is"


@pytest.mark.parametrize(("dates", "composite"), [(("a", "b"), "first"), (("a", "b"), "median")])
def test_bands_that_nothing_names_are_not_laid_over_each_other(
    tmp_path: Path, paint: Any, dates: Any, composite: str
) -> None:
    for number, name in enumerate(dates):
        paint.scene(tmp_path / "in" / f"town_2019_{name}.tif", flat(300 + number))
    with pytest.raises(SceneError, match=r"if they are the bands of one scene.*--bands B04"):
        paint.tile(tmp_path / "in", tmp_path / "out", composite=composite)
    named = {"bands": ("B04",), "composite": "median"}
    assert paint.tile(tmp_path / "in", tmp_path / "named", **named).n_tiles == 1


def test_unnamed_bands_of_a_known_acquisition_are_refused_too(tmp_path: Path, paint: Any) -> None:
    for number in (1, 2):
        paint.scene(tmp_path / "in" / f"{GRANULE}_{number}.tif", flat(300 * number))
    with pytest.raises(SceneError, match="if they are the bands of one scene"):
        paint.tile(tmp_path / "in", tmp_path / "out")


QUALITY = (
    "x_FRE_CLM_R1", "x_MG2_R1", "x_EDG_R2", "x_SAT_R1", "x_DFP_R1", "x.Fmask", "x.SAA", "x.VZA",
    "x_QA_PIXEL", "x_QA_RADSAT", "x_SR_QA_AEROSOL", "x_ST_B10", "x_ST_QA", "20190612_BOA_QAI",
    "x_CLD", "x_SNW", "x_ANG", "oa_fmask", "x_oa_fmask", "MSK_CLDPRB_20m", "x_AOT_10m", "x_WVP",
    "x_SCL_20m", "QA60", "x_cloud_mask", "mask", "x_MASK", "x_solar_zenith",
)  # fmt: skip


@pytest.mark.parametrize("stem", QUALITY)
def test_a_quality_file_is_known_by_the_end_of_its_name(stem: str) -> None:
    assert quality_word(stem)


@pytest.mark.parametrize(
    "stem",
    ["town_sat", "cloudless_2019", "town_masked", "town_2019", "x_SR_B4", "x_B10", "town_B04_SCL",
     "maskat_2019", "a_TCI", "town_B4_QA60"],
)  # fmt: skip
def test_imagery_is_no_quality_file(stem: str) -> None:
    assert not quality_word(stem)


@pytest.mark.parametrize("grid", ["utm:1280", "none"])
def test_quality_files_do_not_outvote_the_imagery(tmp_path: Path, paint: Any, grid: str) -> None:
    paint.scene(tmp_path / "in" / "town_2019.tif", flat(300, 3), names=list(VALUES))
    for number, stem in enumerate(QUALITY):
        path = tmp_path / "in" / f"q{number}" / f"{stem}.tif"
        paint.scene(path, flat(number + 1, dtype="uint8"))
    archive = paint.tile(tmp_path / "in", tmp_path / "out", grid=grid, period="2019")
    assert archive.contract.bands == ("B02", "B03", "B04") and archive.n_tiles == 1
    reasons = rejected(tmp_path / "out")
    assert len(reasons) == len(QUALITY)
    assert all(reason.startswith("is a quality file by its name") for reason in reasons.values())


def test_what_lies_in_a_folder_of_masks_is_no_scene(tmp_path: Path, paint: Any) -> None:
    paint_set(tmp_path / "in", paint, "x_2019-06-12_FRE_{band}.tif")
    paint.scene(tmp_path / "in" / "MASKS" / "x_2019-06-12_PVI.tif", flat(1, dtype="uint8"))
    archive = paint.tile(tmp_path / "in", tmp_path / "out")
    assert archive.contract.bands == ("B02", "B03", "B04")
    assert list(rejected(tmp_path / "out")) == ["MASKS/x_2019-06-12_PVI.tif"]


def test_a_safe_folder_without_its_xml_is_one_scene_of_its_baseline(
    tmp_path: Path, paint: Any
) -> None:
    images = tmp_path / "in" / f"{PRODUCT}.SAFE" / "GRANULE" / "L2A_T52SCG" / "IMG_DATA"
    for gsd in (10, 20, 60):
        paint_set(images / f"R{gsd}m", paint, f"{GRANULE}_{{band}}_{gsd}m.tif", 1000 + gsd)
    classes = flat(4, dtype="uint8")
    classes[:, :64] = 9
    paint.scene(images / "R20m" / f"{GRANULE}_SCL_20m.tif", classes)
    paint.scene(images / "R10m" / f"{GRANULE}_TCI_10m.tif", flat(9, 3, "uint8"))
    archive = paint.tile(tmp_path / "in", tmp_path / "out")
    assert archive.contract.offset == -1000, "N0500 is in the name of the SAFE folder"
    assert archive.read(0)[0][:, 127, 0].tolist() == [1310, 1610, 1910]
    assert archive.index["valid_share"].tolist() == [0.5]
    (reason,) = rejected(tmp_path / "out").values()
    assert "is a picture of a scene" in reason
    inner = paint.tile(images / "R10m", tmp_path / "inner")
    assert inner.contract.offset == -1000


def test_the_name_of_another_product_above_has_no_say(tmp_path: Path, paint: Any) -> None:
    folder = tmp_path / "in" / PRODUCT.replace("T52SCG", "T52SDG")
    paint_set(folder, paint, f"{GRANULE}_{{band}}.tif")
    assert paint.tile(tmp_path / "in", tmp_path / "out").contract.offset == 0
