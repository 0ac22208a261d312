"""The same ground as Earth Engine exports it and as a catalogue's items hold it, to a survey.

One synthetic country is written three times: as it is, as an export of Earth Engine (floats with
NaN, bands B1 to B12, a mask band, cut in two files, no metadata) and as items with a file a band
(1000 added, the baseline in the item). All three must come out as one reflectance, and a survey of
points must find the scores made of them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import rasterio

from ecofm.cli import main
from ecofm.synth import CountryConfig, generate_country
from ecofm.tiles.archive import open_archive

COUNTRY = CountryConfig(seed=11, n_cells=12, cell_px=32, periods=("2019",))
BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")
PRODUCT = "S2A_MSIL2A_20190612T021611_N0500_R003_T52SCG_20230612T051229"


def run(*tokens: object) -> None:
    main([str(token) for token in tokens])


def write_export(scene: Path, folder: Path, part: int) -> None:
    """Write a scene as `Export.image.toDrive` leaves a composite: reflectance in floats."""
    with rasterio.open(scene) as source:
        numbers, hidden = source.read().astype(np.float32), source.dataset_mask() == 0
        profile = {k: source.profile[k] for k in ("crs", "transform", "height", "width")}
    reflectance = (numbers - 1000) / 10_000
    reflectance[:, hidden] = np.nan
    quality = np.where(hidden, np.nan, 0).astype(np.float32)
    if part == 1:  # the corner of the other part is seen by both
        quality[:32, :32] = 1024
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"country_2019-0000000000-{part:010d}.tif"
    with rasterio.open(path, "w", driver="GTiff", count=13, dtype="float32", **profile) as file:
        file.write(np.concatenate([reflectance, quality[None]]))
        for number, band in enumerate((*BANDS, "QA60"), start=1):
            file.set_band_description(number, band.replace("B0", "B"))


def write_item(scene: Path, folder: Path) -> None:
    """Write a scene as the Planetary Computer holds it: a file a band, and an item beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    with rasterio.open(scene) as source:
        numbers, hidden = source.read(), source.dataset_mask() == 0
        profile = {k: source.profile[k] for k in ("crs", "transform", "height", "width")}
    numbers[:, hidden] = 0
    assets: dict[str, Any] = {}
    for band, values in zip(BANDS, numbers, strict=True):
        path = folder / f"{band} 10m.tif"
        with rasterio.open(path, "w", driver="GTiff", count=1, dtype="uint16", **profile) as file:
            file.write(values, 1)
        assets[band] = {"href": f"./{band}%2010m.tif", "eo:bands": [{"name": band}]}
    properties = {
        "datetime": "2019-06-12T02:16:11.024000Z", "platform": "Sentinel-2A",
        "constellation": "Sentinel 2", "s2:processing_baseline": "05.00",
        "s2:product_uri": f"{PRODUCT}.SAFE", "proj:code": "EPSG:32652",
    }  # fmt: skip
    item = {"type": "Feature", "stac_version": "1.0.0", "id": f"{PRODUCT}_{folder.name}"}
    (folder / "item.json").write_text(
        json.dumps({**item, "properties": properties, "assets": assets})
    )


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the country's archive, and those of its export and its items."""
    root = tmp_path_factory.mktemp("field")
    generate_country(root / "country", COUNTRY)
    for part, scene in enumerate(sorted((root / "country" / "scenes").glob("*.tif"))):
        write_export(scene, root / "export", part)
        write_item(scene, root / "items" / scene.stem)
    run("tile", root / "country" / "scenes", "--grid", "utm:320", "--out", root / "true")
    run("tile", root / "export", "--grid", "utm:320", "--out", root / "exported")
    run("tile", root / "items", "--grid", "utm:320", "--per", "year", "--out", root / "held")
    return root


def reflectance_by_cell(path: Path) -> dict[str, tuple[Any, Any]]:
    """Return (reflectance, valid) of each cell."""
    archive = open_archive(path)
    assert archive.contract.bands == BANDS and archive.manifest["n_rejected"] == 0
    found = {}
    for tile_index, cell_id in enumerate(archive.index["cell_id"]):
        pixels, valid = archive.read(tile_index)
        numbers = (pixels.astype(float) + archive.contract.offset) * archive.contract.scale
        found[cell_id] = numbers, valid
    return found


@pytest.mark.parametrize(("name", "source"), [("exported", "range"), ("held", "baseline 05.00")])
def test_the_ground_has_one_reflectance_in_every_form(field: Path, name: str, source: str) -> None:
    true, found = reflectance_by_cell(field / "true"), reflectance_by_cell(field / name)
    assert len(found) >= len(true) - 1, "what the mask band calls cloud is hidden"
    n_hidden = 0
    for cell_id, (numbers, valid) in found.items():
        expected, was_valid = true[cell_id]
        assert not (valid & ~was_valid).any(), "a cloud is shown"
        n_hidden += int((was_valid & ~valid).sum())
        # Below zero reflectance an archive without an offset has no numbers.
        floor = np.maximum(expected, 0) if name == "exported" else expected
        assert np.abs(numbers - floor)[:, valid].max(initial=0) < 1e-4
    assert n_hidden <= 32 * 32
    decided = open_archive(field / name).manifest["radiometry"]
    assert all(source in text for text in decided.values())


def test_an_export_is_walked_from_tiles_to_a_survey(
    field: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = pd.read_parquet(field / "country" / "truth.parquet")
    archive = open_archive(field / "exported")
    values = truth[["cell_id", "period", "development"]]
    values.to_csv(field / "known.csv", index=False)
    run("pretrain", "--archive", field / "exported", "--recipe", "demo", "--steps", 0,
        "--out", field / "run")  # fmt: skip
    run("embed", "--archive", field / "exported", "--encoder", field / "run",
        "--out", field / "embeddings")  # fmt: skip
    run("rank", "--embeddings", field / "embeddings", "--target", field / "known.csv",
        "--column", "development", "--out", field / "ranker")  # fmt: skip
    run("score", "--embeddings", field / "embeddings", "--ranker", field / "ranker", "--cog",
        "--out", field / "scores")  # fmt: skip
    assert (field / "scores" / "2019.tif").is_file()
    places = archive.index.geometry.to_crs(32652).centroid.to_crs(4326)
    survey = pd.DataFrame(
        {
            "DHSCLUST": range(1, len(places) + 1), "LATNUM": places.y, "LONGNUM": places.x,
            "DHSYEAR": 2019.0, "URBAN_RURA": "U",
            "wealth": truth.set_index("cell_id")["development"].loc[archive.index["cell_id"]].array,
        }
    )  # fmt: skip
    survey.loc[0, ["LATNUM", "LONGNUM"]] = 0.0
    survey.to_csv(field / "survey.csv", index=False)
    capsys.readouterr()
    run("benchmark", "--scores", field / "scores", "--proxies", field / "survey.csv",
        "--radius-m", 0, "--out", field / "report")  # fmt: skip
    told = capsys.readouterr().err
    report = json.loads((field / "report" / "report.json").read_text())
    (contest,) = [c for c in report["contests"] if c["target"] == "wealth" and c["subset"] == "all"]
    assert contest["n"] == len(survey) - 1
    (rho,) = [
        f["value"]
        for f in report["figures"]
        if (f["metric"], f["kind"], f["subset"]) == ("spearman", "ours", "all")
    ]
    assert rho > 0.6, "the score was learned from the same values"
    assert "0, 0" in told or "coordinates" in told
