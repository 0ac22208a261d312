"""Scenes compared on their common ground: copies, processings, levels and parts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ecofm.errors import SceneError
from ecofm.tiles.archive import open_archive

PRODUCT = "S2A_MSI{level}_20190612T021611_{baseline}R003_T52SCG_{made}"
NAMES = ["B04", "B03"]


def rejected(out: Path) -> dict[str, str]:
    return dict(pd.read_parquet(out / "rejected.parquet").to_numpy().tolist())


def product(level: str = "L2A", baseline: str = "N0300_", made: str = "20190612T051229") -> str:
    return PRODUCT.format(level=level, baseline=baseline, made=made)


def painted(seed: int = 0, side: int = 128) -> Any:
    return np.random.default_rng(seed).integers(500, 3000, (2, side, side)).astype("uint16")


def half_cloud() -> Any:
    classes = np.full((1, 128, 128), 4, "uint8")
    classes[:, :64] = 9
    return classes


def paint_item(folder: Path, paint: Any, pixels: Any, name: str) -> None:
    """Write an item of two bands and its cloud mask."""
    for band, values in zip(NAMES, pixels, strict=True):
        paint.scene(folder / f"{band}.tif", values[None], nodata=0)
    paint.scene(folder / "classes.tif", half_cloud())
    hrefs = {**{band: f"{band}.tif" for band in NAMES}, "SCL": "classes.tif"}
    fields = {"datetime": "2019-06-12T02:16:11Z", "s2:product_uri": name}
    found = {"type": "Feature", "stac_version": "1.0.0", "id": "i", "properties": fields}
    assets = {key: {"href": href} for key, href in hrefs.items()}
    (folder / "item.json").write_text(json.dumps({**found, "assets": assets}))


@pytest.mark.parametrize("stack", [product(), "town_20190612", "a", "z"])
@pytest.mark.parametrize("folder", ["a", "z"])
def test_a_copy_without_the_cloud_mask_fills_no_clouds(
    tmp_path: Path, paint: Any, stack: str, folder: str
) -> None:
    paint_item(tmp_path / "in" / folder, paint, painted(), product())
    place = tmp_path / "in" / ("20190612" if len(stack) == 1 else ".")
    paint.scene(place / f"{stack}.tif", painted(), names=NAMES, nodata=0)
    archive = paint.tile(tmp_path / "in", tmp_path / "out")
    assert archive.index["valid_share"].tolist() == [0.5]
    (reason,) = rejected(tmp_path / "out").values()
    assert "is a copy of" in reason or "has the same pixels as" in reason


@pytest.mark.parametrize("new_px", [96, 128, 138, 160])
def test_the_newer_processing_counts_whatever_its_extent(
    tmp_path: Path, paint: Any, new_px: int
) -> None:
    older, newer = product(made="20200101T051229"), product(made="20230101T051229")
    paint.scene(tmp_path / "in" / f"{older}.tif", painted(1), names=NAMES, nodata=0)
    paint.scene(tmp_path / "in" / f"{newer}.tif", painted(2, new_px), names=NAMES, nodata=0)
    archive = paint.tile(tmp_path / "in", tmp_path / "out")
    cell = archive.index["valid_share"].to_numpy().argmax()
    pixels, _ = archive.read(int(cell))
    side = min(new_px, 128)
    assert (pixels[:, :side, :side] == painted(2, new_px)[[0, 1], :side, :side]).all()
    names = list(rejected(tmp_path / "out"))
    assert names == ([f"{older}.tif"] if new_px >= 128 else []), "or it shows ground of its own"


@pytest.mark.parametrize("baselines", [("N0300_", ""), ("", "N0300_"), ("N0213_", "N0300_")])
def test_clips_of_other_ground_are_kept_whatever_their_baselines(
    tmp_path: Path, paint: Any, baselines: Any
) -> None:
    x, y = paint.corner
    for side, baseline in enumerate(baselines):
        path = tmp_path / "in" / f"{product(baseline=baseline)}_{side}.tif"
        paint.scene(path, painted(side), names=NAMES, nodata=0, corner=(x + 1280 * side, y))
    archive = paint.tile(tmp_path / "in", tmp_path / "out")
    assert archive.n_tiles == 2 and archive.manifest["n_rejected"] == 0


@pytest.mark.parametrize("is_known", [True, False])
def test_level_1_that_two_parts_of_level_2_cover_together_is_left_out(
    tmp_path: Path, paint: Any, is_known: bool
) -> None:
    names = [
        product(made=f"20190612T05122{n}") if is_known else f"2019-06-12_L2A_{n}" for n in (1, 2)
    ]
    for name, gone in zip(names, (slice(64, None), slice(None, 64)), strict=True):
        part = painted()
        part[:, gone] = 0
        paint.scene(tmp_path / "in" / f"{name}.tif", part, names=NAMES, nodata=0)
    level_1 = product("L1C") if is_known else "2019-06-12_L1C"
    paint.scene(tmp_path / "in" / f"{level_1}.tif", painted(3), names=NAMES, nodata=0)
    archive = paint.tile(tmp_path / "in", tmp_path / "out")
    assert (archive.read(0)[0] == painted()).all()
    assert "L2A is taken" in rejected(tmp_path / "out")[f"{level_1}.tif"]


def scene(folder: Path, paint: Any, day: int, names: list[str], dtype: str = "uint16") -> None:
    pixels = np.stack([np.full((128, 128), 200 + 100 * n, dtype) for n in range(len(names))])
    described = names if names[0] else None
    paint.scene(folder / f"a_2019-06-{day:02d}.tif", pixels, names=described)


def test_bands_in_another_order_are_brought_into_one(tmp_path: Path, paint: Any) -> None:
    for day, names in enumerate(
        (["B04", "B03", "B02"], ["B02", "B03", "B04"], ["B04", "B03", "B02"]), 1
    ):
        scene(tmp_path / "in", paint, day, names)
    archive = paint.tile(tmp_path / "in", tmp_path / "out")
    assert archive.contract.bands == ("B04", "B03", "B02") and archive.n_tiles == 3
    values = [archive.read(n)[0][:, 0, 0].tolist() for n in range(3)]
    assert values == [[200, 300, 400], [400, 300, 200], [200, 300, 400]]
    scene(tmp_path / "more", paint, 9, ["B03", "B02", "B04"])
    grown = paint.tile(tmp_path / "more", tmp_path / "out", append=True)
    assert grown.read(3)[0][:, 0, 0].tolist() == [400, 200, 300]


def test_int16_and_uint16_are_one_kind(tmp_path: Path, paint: Any) -> None:
    scene(tmp_path / "in", paint, 1, ["B04", "B03"])
    pixels = np.full((2, 128, 128), -50, "int16")
    paint.scene(tmp_path / "in" / "a_2019-06-02.tif", pixels, names=NAMES, nodata=-9999)
    archive = paint.tile(tmp_path / "in", tmp_path / "out")
    assert archive.contract.dtype == "int16" and archive.n_tiles == 2
    assert [archive.read(n)[0][0, 0, 0] for n in (0, 1)] == [200, -50]


@pytest.mark.parametrize(
    ("names", "cure"),
    [
        (["red", "green", "blue"], "B04,B03,B02"), (["B04", "B03", "B08"], "B04,B03"),
        (["B04", "B03", "B02", "B08"], "B04,B03,B02"), (["", "", ""], "B04,B03,B02"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("n_more", [0, 1])
def test_bands_that_differ_are_left_out_with_a_cure_that_works(
    tmp_path: Path, paint: Any, capsys: Any, names: list[str], cure: str, n_more: int
) -> None:
    for day in range(1, 2 + n_more):
        scene(tmp_path / "in", paint, day, ["B04", "B03", "B02"])
    scene(tmp_path / "in", paint, 9, names)
    if n_more:
        archive = paint.tile(tmp_path / "in", tmp_path / "out")
        assert archive.n_tiles == 2
        assert "as most scenes have; 1 that differ are left out" in capsys.readouterr().err
        assert f"give --bands {cure} " in rejected(tmp_path / "out")["a_2019-06-09.tif"]
    else:
        with pytest.raises(SceneError, match="nothing says which count; give --bands"):
            paint.tile(tmp_path / "in", tmp_path / "out")
    cured = paint.tile(tmp_path / "in", tmp_path / "cured", bands=tuple(cure.split(",")))
    assert cured.n_tiles == 2 + n_more and cured.manifest["n_rejected"] == 0


def test_a_scene_that_changed_is_named_when_nothing_is_new(
    tmp_path: Path, paint: Any, capsys: Any
) -> None:
    scene(tmp_path / "in", paint, 1, ["B04", "B03"])
    first = paint.tile(tmp_path / "in", tmp_path / "out")
    paint.scene(tmp_path / "in" / "a_2019-06-01.tif", painted(5), names=NAMES)
    for _ in range(2):
        capsys.readouterr()
        again = paint.tile(tmp_path / "in", tmp_path / "out", append=True)
        assert again.read(0)[0].tobytes() == first.read(0)[0].tobytes()
        assert again.manifest["n_rejected"] == 1
        assert "has changed since it was tiled" in rejected(tmp_path / "out")["a_2019-06-01.tif"]
        said = capsys.readouterr().err
        assert "a_2019-06-01.tif has changed since it was tiled" in said and "done" not in said
    assert open_archive(tmp_path / "out").n_tiles == 1


XML = (
    "<a><PROCESSING_BASELINE>{baseline}</PROCESSING_BASELINE>"
    "<PRODUCT_START_TIME>2019-06-12T02:16:11Z</PRODUCT_START_TIME>{offsets}</a>"
)


def paint_safe(folder: Path, paint: Any, tiles: list[str], offsets: str = "") -> Path:
    safe = folder / f"{product()}.SAFE"
    x, y = paint.corner
    for number, name in enumerate(tiles):
        images = safe / "GRANULE" / f"L2A_{name}_A1" / "IMG_DATA" / "R10m"
        for band, values in zip(NAMES, painted(number), strict=True):
            paint.scene(
                images / f"{name}_20190612T021611_{band}_10m.tif",
                values[None] + np.uint16(3000), nodata=0, corner=(x + 1280 * number, y),
            )  # fmt: skip
    (safe / "MTD_MSIL2A.xml").write_text(XML.format(baseline="", offsets=offsets))
    return safe


@pytest.mark.parametrize("is_turned", [False, True])
def test_offsets_of_a_safe_folder_are_listed_by_band_id(
    tmp_path: Path, paint: Any, is_turned: bool
) -> None:
    values = {number: -1000 if number == 3 else -2000 for number in range(13)}
    listed = [f'<BOA_ADD_OFFSET band_id="{n}">{v}</BOA_ADD_OFFSET>' for n, v in values.items()]
    xml = "".join(reversed(listed) if is_turned else listed)
    safe = paint_safe(tmp_path / "in", paint, ["T52SCG"], xml)
    archive = paint.tile(safe, tmp_path / "out", bands=("B04", "B03"))
    red, green = archive.read(0)[0].astype(int) + int(archive.contract.offset)
    assert (red == painted()[0] + 2000).all() and (green == painted()[1] + 1000).all()


def test_both_granules_of_a_safe_folder_are_scenes(tmp_path: Path, paint: Any) -> None:
    safe = paint_safe(tmp_path / "in", paint, ["T52SCG", "T52SDG"])
    for path in (safe, tmp_path / "in"):
        archive = paint.tile(path, tmp_path / f"out-{path.name}")
        assert archive.n_tiles == 2 and archive.manifest["n_rejected"] == 0
        scenes = [f"{safe.name}/L2A_{name}_A1" for name in ("T52SCG", "T52SDG")]
        assert sorted(archive.scenes["name"]) == scenes
