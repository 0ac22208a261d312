"""Exports of cloud notebooks: floats, wide integers, NaN, undeclared nodata, and sidecars."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ecofm.errors import SceneError
from ecofm.tiles.samples import undeclared_nodata

NAMES = ["B4", "B3", "B2"]


def reflectance_of(archive: Any, tile_index: int = 0) -> Any:
    pixels, valid = archive.read(tile_index)
    contract = archive.contract
    return (pixels[:, valid].astype(float) + contract.offset) * contract.scale


@pytest.mark.parametrize(
    ("dtype", "factor"),
    [
        ("float32", 1), ("float64", 1), ("float32", 1e4), ("float64", 1e4), ("int32", 1e4),
        ("uint32", 1e4), ("int64", 1e4),
    ],
)  # fmt: skip
@pytest.mark.parametrize("corner", [(0, 0), (3, 4)], ids=["aligned", "resampled"])
def test_reflectance_comes_out_right_from_any_number_type(
    tmp_path: Path, paint: Any, dtype: str, factor: float, corner: Any
) -> None:
    random = np.random.default_rng(0)
    smooth = np.linspace(0.05, 0.4, 140)[None, None] + random.uniform(0, 0.02, (3, 1, 1))
    pixels = (np.broadcast_to(smooth, (3, 140, 140)) * factor).astype(dtype)
    nodata = np.nan if "float" in dtype else 0
    pixels[:, :, :32] = nodata
    x, y = paint.corner
    place = (x - corner[0], y + corner[1])
    paint.scene(tmp_path / "in" / "a_2019.tif", pixels, names=NAMES, corner=place)
    archive = paint.tile(tmp_path / "in", tmp_path / "out")
    assert archive.contract.bands == ("B04", "B03", "B02")
    assert (archive.contract.dtype, archive.contract.scale) == ("uint16", 1e-4)
    tile_index = archive.index["cell_id"].tolist().index("32652_3375_250")
    _, valid = archive.read(tile_index)
    assert 0.72 < valid.mean() < 0.78
    found = reflectance_of(archive, tile_index)
    assert found.min() > 0.12 and found.max() < 0.43
    if corner == (0, 0):
        assert np.abs(found - (pixels[:, :128, 32:128] / factor).reshape(3, -1)).max() < 1e-4


def test_scale_and_offset_of_the_user_count(tmp_path: Path, paint: Any) -> None:
    per_cent = np.full((2, 128, 128), 35, "float32")
    paint.scene(tmp_path / "in" / "a_2019.tif", per_cent, names=["B04", "B03"])
    archive = paint.tile(tmp_path / "in", tmp_path / "out", scale=0.01, offset=-10.0)
    assert np.allclose(reflectance_of(archive), 0.25)
    assert "--scale" in archive.manifest["radiometry"]["a_2019.tif"]


def test_scenes_of_several_scales_mean_the_same_in_one_archive(tmp_path: Path, paint: Any) -> None:
    true = np.linspace(0.02, 0.6, 128)[None, None].repeat(2, 0).repeat(128, 1)
    tags = {"BOA_ADD_OFFSET": "-1000"}
    kinds = {
        "2016": (true * 1e4, "uint16", {}),
        "2017": (true, "float32", {}),
        "2018": (true * 1e4 + 1000, "uint16", {"tags": tags}),
        "2019": (true * 1e4, "float64", {}),
    }
    for year, (pixels, dtype, options) in kinds.items():
        rounded = pixels if "float" in dtype else np.rint(pixels)
        path = tmp_path / "in" / f"a_{year}.tif"
        paint.scene(path, rounded.astype(dtype), names=["B04", "B03"], **options)
    archive = paint.tile(tmp_path / "in", tmp_path / "out")
    assert archive.periods == list(kinds) and archive.contract.offset == -1000
    for tile_index in range(4):
        assert np.abs(reflectance_of(archive, tile_index) - true.reshape(2, -1)).max() < 1e-4
    assert set(archive.manifest["radiometry"]) == {f"a_{year}.tif" for year in kinds}
    # A finished archive takes more of them.
    paint.scene(tmp_path / "in" / "a_2020.tif", true.astype("float32"), names=["B04", "B03"])
    grown = paint.tile(tmp_path / "in", tmp_path / "out", append=True)
    assert np.abs(reflectance_of(grown, 4) - true.reshape(2, -1)).max() < 1e-4


def test_scenes_of_another_offset_are_added(tmp_path: Path, paint: Any) -> None:
    """What the refusal of a scene without metadata advises: its flag, and --append."""
    true = np.random.default_rng(0).integers(1200, 3000, (2, 128, 128)).astype("uint16")
    paint.scene(tmp_path / "old" / "a_2019.tif", true, names=["B04", "B03"])
    paint.scene(tmp_path / "new" / "a_2023.tif", true + np.uint16(1000), names=["B04", "B03"])
    paint.tile(tmp_path / "old", tmp_path / "out")
    with pytest.raises(SceneError, match="are added with --append"):
        paint.tile(tmp_path / "new", tmp_path / "other")
    grown = paint.tile(tmp_path / "new", tmp_path / "out", append=True, offset=-1000.0)
    assert grown.n_tiles == 2
    assert np.allclose(reflectance_of(grown, 0), reflectance_of(grown, 1))


def test_infinite_numbers_and_nan_in_one_band_are_invalid(tmp_path: Path, paint: Any) -> None:
    pixels = np.full((3, 128, 128), 0.2, "float32")
    pixels[0, :32], pixels[1, 32:64], pixels[:, 64:96] = np.nan, np.inf, 0
    paint.scene(tmp_path / "in" / "a_2019.tif", pixels, names=NAMES)
    _, valid = paint.tile(tmp_path / "in", tmp_path / "out").read(0)
    assert not valid[:96].any() and valid[96:].all()


@pytest.mark.parametrize(
    ("dtype", "nodata"),
    [("float32", -9999), ("float32", float(np.finfo("float32").min)), ("int16", -9999),
     ("float64", float(np.finfo("float64").min)), ("uint16", 65535), ("float64", np.nan)],
)  # fmt: skip
@pytest.mark.parametrize("is_declared", [True, False])
def test_nodata_is_invalid_declared_or_not(
    tmp_path: Path, paint: Any, capsys: Any, dtype: str, nodata: float, is_declared: bool
) -> None:
    factor = 1 if "float" in dtype else 1e4
    pixels = (np.random.default_rng(0).uniform(0.05, 0.4, (3, 128, 128)) * factor).astype(dtype)
    pixels[:, :, :32] = nodata
    options = {"nodata": nodata} if is_declared else {}
    paint.scene(tmp_path / "in" / "a_2019.tif", pixels, names=NAMES, **options)
    archive = paint.tile(tmp_path / "in", tmp_path / "out")
    assert archive.index["valid_share"].tolist() == [0.75]
    assert reflectance_of(archive).max() < 0.41
    is_said = "taken for nodata, which no file declares" in capsys.readouterr().err
    assert is_said == (not is_declared and not np.isnan(nodata))


@pytest.mark.parametrize(
    ("dtype", "declared", "fill"),
    [("int16", 0, -10000), ("float32", np.nan, -9999), ("float32", np.nan, 9999)],
)
def test_a_second_nodata_beside_the_declared_one_is_invalid(
    tmp_path: Path, paint: Any, dtype: str, declared: float, fill: float
) -> None:
    factor = 1 if dtype == "float32" else 1e4
    pixels = (np.random.default_rng(0).uniform(0.05, 0.4, (3, 128, 128)) * factor).astype(dtype)
    pixels[:, :, :32] = fill
    paint.scene(tmp_path / "in" / "a_2019.tif", pixels, names=NAMES, nodata=declared)
    archive = paint.tile(tmp_path / "in", tmp_path / "out")
    assert archive.index["valid_share"].tolist() == [0.75]


def test_a_mask_and_a_number_both_hide(tmp_path: Path, paint: Any) -> None:
    pixels = np.random.default_rng(0).integers(500, 4000, (3, 128, 128)).astype("int16")
    pixels[:, :, :32] = -9999
    mask = np.full((128, 128), 255, "uint8")
    mask[:64] = 0
    paint.scene(tmp_path / "in" / "a_2019.tif", pixels, names=NAMES, mask=mask)
    archive = paint.tile(tmp_path / "in", tmp_path / "out")
    assert archive.index["valid_share"].tolist() == [0.375]


@pytest.mark.parametrize("overviews", [(), (2, 4)])
def test_what_no_sample_shows_is_invalid_all_the_same(
    tmp_path: Path, paint: Any, overviews: Any
) -> None:
    import rasterio

    pixels = np.random.default_rng(0).integers(500, 4000, (1, 1024, 1024)).astype("int16")
    pixels[:, 100:180, 100:180] = -9999
    path = paint.scene(tmp_path / "in" / "a_2019.tif", pixels, names=["B04"])
    if overviews:
        with rasterio.open(path, "r+") as file:
            file.build_overviews(list(overviews), rasterio.enums.Resampling.average)
    archive = paint.tile(tmp_path / "in", tmp_path / "out")
    assert min(archive.read(n)[0][:, archive.read(n)[1]].min() for n in range(64)) >= 500
    assert archive.index["valid_share"].mean() == pytest.approx(1 - 6400 / 1024**2, abs=1e-4)


@pytest.mark.parametrize(
    ("values", "nodata"),
    [
        ([-9999] * 20 + list(range(100, 300)), -9999),
        ([-999] * 20 + [-80] * 5 + list(range(100, 300)), -999),
        ([65535] * 20 + list(range(100, 300)), 65535),
        ([-80] * 20 + list(range(100, 300)), None),
        ([-9999] * 3 + list(range(100, 300)), None),
        (list(range(-1200, 3000)), None),
        ([-1.0] * 20 + [0.1] * 100, -1.0),
        ([-0.1] * 20 + [0.1] * 100, None),
        ([-9999] * 100, None),
        ([], None),
    ],
)
def test_what_stands_for_nodata_is_repeated_and_far_away(
    values: list[float], nodata: float | None
) -> None:
    assert undeclared_nodata(np.asarray([values])) == nodata


def pam(path: Path, fields: str, n_bands: int = 3) -> None:
    bands = "".join(
        f'<PAMRasterBand band="{n}">{fields}</PAMRasterBand>' for n in range(1, n_bands + 1)
    )
    path.with_name(f"{path.name}.aux.xml").write_text(f"<PAMDataset>{bands}</PAMDataset>")


def test_what_a_sidecar_says_of_the_numbers_counts(tmp_path: Path, paint: Any) -> None:
    pixels = np.random.default_rng(0).integers(3000, 5000, (3, 128, 128)).astype("int16")
    pixels[:, :, :32] = 2500
    path = paint.scene(tmp_path / "in" / "a_2019.tif", pixels, names=NAMES)
    fields = "<NoDataValue>2500</NoDataValue><Scale>0.0001</Scale><Offset>-0.1</Offset>"
    pam(path, f"{fields}<Metadata><MDI key='period'>1999</MDI></Metadata>")
    archive = paint.tile(tmp_path / "in", tmp_path / "out")
    assert archive.index["valid_share"].tolist() == [0.75] and archive.periods == ["2019"]
    assert 0.19 < reflectance_of(archive).min() < 0.21
    assert "a_2019.tif.aux.xml" in archive.manifest["radiometry"]["a_2019.tif"]
    before = archive.manifest["inputs"]
    pam(path, "<NoDataValue>0</NoDataValue>")
    assert paint.tile(tmp_path / "in", tmp_path / "other").manifest["inputs"] != before


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ("<NoDataValue>-1</NoDataValue>", "has nodata 0 in a_2019.tif and -1 in its .aux.xml"),
        ("<NoDataValue>many</NoDataValue>", "that cannot be read"),
        ("<Scale>", "that cannot be read"),
        ("<Scale>-1</Scale>", "has scale -1 .* give --scale"),
    ],
)
def test_a_sidecar_that_cannot_be_honoured_is_named(
    tmp_path: Path, paint: Any, fields: str, sentence: str
) -> None:
    path = paint.scene(tmp_path / "in" / "a_2019.tif", paint.pixels((3, 64, 64)), nodata=0)
    pam(path, fields)
    with pytest.raises(SceneError, match=sentence):
        paint.tile(tmp_path / "in", tmp_path / "out")


def test_a_mask_beside_the_file_is_named(tmp_path: Path, paint: Any) -> None:
    path = paint.scene(tmp_path / "in" / "a_2019.tif", paint.pixels((3, 64, 64)))
    path.with_name("a_2019.tif.msk").write_bytes(path.read_bytes())
    with pytest.raises(SceneError, match=r"a_2019.tif.msk, which is not read"):
        paint.tile(tmp_path / "in", tmp_path / "out")


def test_a_sample_of_a_large_raster_is_small_and_finds_a_corner(tmp_path: Path, paint: Any) -> None:
    from ecofm.tiles.assembly import SceneOptions
    from ecofm.tiles.products import read_scene

    pixels = np.full((1, 1500, 1500), np.nan, "float32")
    pixels[:, 700:710, 300:500] = 0.3
    path = paint.scene(tmp_path / "a_2019.tif", pixels, names=["B04"], tiled=True)
    (part,) = read_scene(path, "a", SceneOptions()).parts
    assert part.scale == 1.0
    pixels[:] = np.nan
    paint.scene(path, pixels, names=["B04"])
    with pytest.raises(SceneError, match="shows no valid number"):
        read_scene(path, "a", SceneOptions())
