"""Contrast: one rule for every picture, over valid pixels, and colours by their right name."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ecofm import cluster as cluster_module
from ecofm.artifact import read_manifest
from ecofm.cluster import SHEET_SIDE, THUMBNAIL_PX, ClusterConfig, cluster
from ecofm.compare.items import ExemplarSheets, MemberSheets, Tiles
from ecofm.contrast import (
    NODATA_GREY,
    draw_colours,
    draw_tile,
    find_limits,
    name_bands,
    name_colours,
    pick_bands,
    warn_of_names,
)
from ecofm.embed import embed
from ecofm.maps.looks import draw_contact_sheet
from ecofm.maps.pictures import imagery_mosaic
from ecofm.tiles.archive import open_archive
from ecofm.types import Contract
from ecofm.verbs.show import show

UNNAMED = ("band1", "band2", "band3")


def contract_of(bands: tuple[str, ...], dtype: str = "uint16", **changes: Any) -> Contract:
    n = len(bands)
    plain = Contract(
        bands=bands, dtype=dtype, units="reflectance", scale=1e-4, offset=0.0,
        valid_range=(0.0, 65535.0), gsd_m=10.0, mean=(1000.0,) * n, std=(200.0,) * n,
    )  # fmt: skip
    return replace(plain, **changes)


@pytest.mark.parametrize(
    ("bands", "shown", "name"),
    [
        (("B02", "B03", "B04", "B08"), (2, 1, 0), "True colour"),
        (("blue", "green", "red"), (2, 1, 0), "True colour"),
        (UNNAMED, (0, 1, 2), "False colour (band1, band2, band3)"),
        (("B08", "B04", "B03"), (0, 1, 2), "False colour (B08, B04, B03)"),
        (("B08",), (0, 0, 0), "Grey (B08)"),
        (("VV", "VH"), (0, 0, 0), "Grey (VV)"),
        (("band1", "band2", "band3", "band4"), (0, 0, 0), "Grey (band1)"),
    ],
)
def test_colours_are_called_true_only_where_names_say_so(
    bands: tuple[str, ...], shown: tuple[int, int, int], name: str
) -> None:
    contract = contract_of(bands)
    assert pick_bands(contract) == shown and name_colours(contract) == name
    assert (name_bands(contract) == []) == (name == "True colour")


def test_bands_without_names_are_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    for bands in (("B02", "B03", "B04"), ("VV", "VH"), ("B08",)):
        warn_of_names(contract_of(bands), Path("archive"))
    assert capsys.readouterr().err == ""
    warn_of_names(contract_of(UNNAMED), Path("archive"))
    (line,) = capsys.readouterr().err.splitlines()
    assert "false colour (band1, band2, band3)" in line and "--bands B04,B03,B02" in line


def test_uint8_is_shown_as_it_is_and_what_is_not_valid_grey() -> None:
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    valid = values != 7
    contract = contract_of(("red", "green", "blue"), "uint8")
    image = draw_tile(np.stack([values, values[::-1], values.T]), valid, contract)
    assert (image[valid][:, 0] == values[valid]).all()
    assert (image[valid][:, 1] == values[::-1][valid]).all()
    assert (image[~valid] == NODATA_GREY).all()


@given(share=st.floats(0, 0.99), filler=st.integers(0, 65535), seed=st.integers(0, 99))
def test_pixels_that_are_not_valid_change_nothing(share: float, filler: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    pixels = random.integers(500, 1500, (3, 8, 8)).astype(np.uint16)
    valid = random.random((8, 8)) >= share
    contract = contract_of(("B04", "B03", "B02"))
    whole = draw_tile(pixels, np.ones((8, 8), bool), contract)
    spoilt = draw_tile(np.where(valid, pixels, filler).astype(np.uint16), valid, contract)
    assert (spoilt[valid] == whole[valid]).all() and (spoilt[~valid] == NODATA_GREY).all()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16"])
def test_one_number_everywhere_is_neither_black_nor_white(dtype: str) -> None:
    contract = contract_of(("B08",), dtype, mean=(120.0,), std=(0.0,))
    image = draw_tile(np.full((1, 4, 4), 120, dtype), np.ones((4, 4), bool), contract)
    assert image.min() == image.max() and 100 < image[0, 0, 0] < 150
    low, high = find_limits(contract, (0, 0, 0))
    assert low < high


@given(st.lists(st.integers(0, 65535), min_size=2, max_size=30))
def test_brighter_numbers_are_never_darker(values: list[int]) -> None:
    numbers = np.sort(np.array(values, np.float32))
    drawn = draw_colours(np.stack([numbers[None]] * 3), (500.0, 4000.0))
    assert (np.diff(drawn[0, :, 0].astype(int)) >= 0).all()


@pytest.fixture
def sliced(
    make_archive: Callable[..., Path], stages: Any, tmp_path: Path
) -> tuple[Path, Path, Path]:
    """An archive whose tiles have invalid pixels, its embeddings, and their clusters."""
    archive = make_archive(tmp_path / "archive", tile_px=THUMBNAIL_PX, invalid_share=0.5)
    embed([archive], stages.encoder, tmp_path / "embeddings")
    clusters = cluster(
        [tmp_path / "embeddings"], tmp_path / "clusters", ClusterConfig(k=2), archives=[archive]
    )
    return archive, tmp_path / "embeddings", clusters


def test_the_sheet_and_the_page_show_the_same_picture(
    sliced: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, _, clusters = sliced
    page = MemberSheets([archive], clusters)
    monkeypatch.setattr("ecofm.compare.items.encode", lambda image: image.tobytes())
    for item, name in enumerate(page.items):
        sheet = np.asarray(Image.open(clusters / "exemplars" / f"{name}.png"))
        shown = page.members(item)
        assert len(shown) > 1
        for place, number in enumerate(shown):
            top, left = (THUMBNAIL_PX * part for part in divmod(place, SHEET_SIDE))
            panel = sheet[top : top + THUMBNAIL_PX, left : left + THUMBNAIL_PX]
            assert panel.tobytes() == page.image(number)[0]


def test_maps_and_contact_sheets_draw_valid_pixels_as_the_page_does(
    sliced: tuple[Path, Path, Path],
) -> None:
    archive = open_archive(sliced[0])
    pixels, valid = archive.read(0)
    tile = draw_tile(pixels, valid, archive.contract)
    mosaic = imagery_mosaic(archive, "2019", 10_000)
    assert (mosaic[..., 3] == 0).sum() > 1000
    row, column = 1, 0  # six cells in rows of four, the first in the row that lies south
    corner = mosaic[row * THUMBNAIL_PX :, column * THUMBNAIL_PX :][:THUMBNAIL_PX, :THUMBNAIL_PX]
    assert np.array_equal(corner[valid][:, :3], tile[valid])
    sheet = np.asarray(draw_contact_sheet(archive).crop((0, 14, 126, 140)))
    marked = np.where(valid[..., None], tile, np.array([255, 0, 255], np.uint8))
    assert np.array_equal(sheet, np.asarray(Image.fromarray(marked).resize((126, 126))))


def test_a_tile_half_empty_is_not_washed_out(sliced: tuple[Path, Path, Path]) -> None:
    archive = open_archive(sliced[0])
    pixels, valid = archive.read(3)
    shown = draw_tile(pixels, valid, archive.contract)[valid]
    assert shown.std() > 30 and 60 < shown.mean() < 190


def test_several_archives_have_one_contrast(
    make_archive: Callable[..., Path], stages: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sheet of two archives follows their pooled statistics, as the page does."""
    archives = [
        make_archive(tmp_path / year, seed=n, invalid_share=n / 3, periods=(year,))
        for n, year in enumerate(("2019", "2020"))
    ]
    embed(archives, stages.encoder, tmp_path / "embeddings")
    drawn = []
    monkeypatch.setattr(
        cluster_module, "draw_tile", lambda *given: drawn.append(given) or draw_tile(*given)
    )
    cluster([tmp_path / "embeddings"], tmp_path / "c", ClusterConfig(k=2), archives=archives)
    (contract,) = {given[2] for given in drawn}
    assert contract == Tiles(archives)._contract
    assert contract != open_archive(archives[0]).contract


def test_unnamed_bands_are_told_wherever_they_are_shown(
    make_archive: Callable[..., Path],
    stages: Any,
    tiny: Callable[..., Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from ecofm.pretrain.run import pretrain

    archive = make_archive(tmp_path / "archive", bands=UNNAMED)
    pretrain([archive], tmp_path / "run", tiny(steps=0))
    embed([archive], tmp_path / "run", tmp_path / "embeddings")
    capsys.readouterr()
    cluster([tmp_path / "embeddings"], tmp_path / "c", ClusterConfig(k=2), archives=[archive])
    assert "--bands" in capsys.readouterr().err
    assert read_manifest(tmp_path / "c", "clusters")["bands_shown"] == list(UNNAMED)
    for source in (Tiles([archive]), MemberSheets([archive], tmp_path / "c"),
                   ExemplarSheets(tmp_path / "c")):  # fmt: skip
        assert source.bands_shown == list(UNNAMED)
    assert "--bands" in capsys.readouterr().err
    show(archive)
    assert "--bands" in capsys.readouterr().err
    names = {path.name for path in (tmp_path / "archive-pictures").iterdir()}
    assert "false_colour_2019.png" in names and not any("true" in name for name in names)
    assert Image.open(io.BytesIO(Tiles([archive]).image(0)[0])).size == (32, 32)
