"""The chain on real imagery, with hardly any training: Kosan and its proxies, where they are."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas as gpd
import pandas as pd
import pytest

from ecofm.cli import main
from ecofm.demo.real import demo_real
from ecofm.errors import ComparisonError, SceneError
from ecofm.pretrain.run import RunConfig

DATA = Path(os.environ.get("ECOFM_DATA", Path(__file__).parents[3] / "shared" / "data"))
pytestmark = pytest.mark.skipif(
    not (DATA / "kosan").is_dir(), reason=f"the real imagery is not in {DATA}"
)
N_CHIPS = 2
N_CELLS = [106, 97]  # of Kosan with pixels, in 2016 and in 2019


def link_data(folder: Path, periods: tuple[str, ...]) -> Path:
    """The area's mosaics of some periods, a few chips of every cluster, some annotated chips."""
    (folder / "kosan").mkdir(parents=True)
    for period in periods:
        name = f"S2_RGB_{period}.tif"
        (folder / "kosan" / name).symlink_to(DATA / "kosan" / name)
    for cluster in sorted(p for p in (DATA / "nk_clusters").iterdir() if p.is_dir()):
        (folder / "nk_clusters" / cluster.name).mkdir(parents=True)
        for chip in sorted(cluster.iterdir())[:N_CHIPS]:
            (folder / "nk_clusters" / cluster.name / chip.name).symlink_to(chip)
    orderings = DATA / "nk_clusters" / "orderings.csv"
    (folder / "nk_clusters" / "orderings.csv").symlink_to(orderings)
    (folder / "nk_annotated").mkdir()
    labels = pd.read_csv(DATA / "nk_annotated" / "labels.csv")
    agreed = {f"{int(i):04d}.jpg" for i in labels["image_id"][labels["uninhabited"] >= 1]}
    chips = sorted((DATA / "nk_annotated").glob("*.jpg"))
    for chip in [chip for chip in chips if chip.name in agreed][:4]:
        (folder / "nk_annotated" / chip.name).symlink_to(chip)
    (folder / "nk_annotated" / "labels.csv").symlink_to(DATA / "nk_annotated" / "labels.csv")
    return folder


def run(data: Path, out: Path, tiny: Callable[..., Any]) -> Path:
    return demo_real(data, out, pretraining=tiny(steps=2, batch_size=8), run=RunConfig(threads=1))


@pytest.fixture(scope="module")
def two_periods(tmp_path_factory: pytest.TempPathFactory, tiny: Callable[..., Any]) -> Path:
    """The chain's output on two periods, with the real proxies."""
    root = tmp_path_factory.mktemp("real")
    data = link_data(root / "data", ("2016", "2019"))
    (data / "nk_tables").symlink_to(DATA / "nk_tables")
    run(data, root / "out", tiny)
    return root / "out"


def test_every_cell_is_scored_and_checked(two_periods: Path) -> None:
    scores = gpd.read_parquet(two_periods / "scores" / "scores.parquet")
    archive = gpd.read_parquet(two_periods / "archive" / "index.parquet")
    assert scores["tile_id"].tolist() == archive["tile_id"].tolist()
    assert scores["period"].value_counts().tolist() == N_CELLS
    assert scores["score"].notna().all()
    report = (two_periods / "benchmark" / "report.md").read_text()
    assert "siscore" in report.lower() and "viirs" in report.lower()
    text = (two_periods / "report.html").read_text()
    assert "data:image" in text and "Copernicus Sentinel" in text
    assert (two_periods / "change" / "change.parquet").is_file()
    said = pd.read_csv(two_periods / "orderings.csv", dtype=str)
    lowest = said[said["right"] == "22"]
    assert lowest.groupby("annotator")["left"].nunique().tolist() == [22] * 10
    assert (lowest["outcome"] == "left").all() and "22" not in set(said["left"])


def test_one_period_and_no_proxies_leave_out_what_needs_them(
    tiny: Callable[..., Any], tmp_path: Path, capsys: Any
) -> None:
    data = link_data(tmp_path / "data", ("2019",))
    run(data, tmp_path / "out", tiny)
    said = capsys.readouterr()
    assert "warning: no cell has two periods" in said.err
    assert "no change map: 2019 is the only period" in said.err
    assert "no benchmark" in said.out and "does not exist" in said.out
    assert not (tmp_path / "out" / "change").exists()
    assert not (tmp_path / "out" / "benchmark").exists()
    assert len(gpd.read_parquet(tmp_path / "out" / "scores" / "scores.parquet")) == N_CELLS[1]
    assert (tmp_path / "out" / "report.html").is_file()

    # Proxies for other cells only; everything before is done already.
    (data / "nk_tables").mkdir()
    table = pd.read_csv(DATA / "nk_tables" / "tiles.csv.gz", nrows=5)
    table["y_x"] = [f"1_{x}" for x in range(5)]
    table.to_csv(data / "nk_tables" / "tiles.csv.gz", index=False)
    run(data, tmp_path / "out", tiny)
    said = capsys.readouterr()
    assert "is done already" in said.err and "for the area's cells" in said.out


def test_what_the_chain_cannot_do_without_is_named(
    tiny: Callable[..., Any], tmp_path: Path, capsys: Any
) -> None:
    data = tmp_path / "data"
    (data / "kosan").mkdir(parents=True)
    (data / "kosan" / "S2_RGB_2019.tif").symlink_to(DATA / "kosan" / "S2_RGB_2019.tif")
    with pytest.raises(SceneError, match="nk_clusters does not exist"):
        run(data, tmp_path / "out", tiny)
    (data / "nk_clusters" / "01").mkdir(parents=True)
    chip = (
        next(iter(sorted((DATA / "nk_clusters" / "00").iterdir())), None)
        if (DATA / "nk_clusters" / "00").is_dir()
        else next(iter((DATA / "nk_clusters").glob("*/*")))
    )
    (data / "nk_clusters" / "01" / chip.name).symlink_to(chip)
    with pytest.raises(ComparisonError, match=r"orderings\.csv does not exist"):
        run(data, tmp_path / "out", tiny)
    assert not (tmp_path / "out").exists()
    with pytest.raises(SystemExit) as ended:
        main(["demo", "--data", str(data), "--out", str(tmp_path / "out")])
    assert ended.value.code == 1 and "orderings.csv" in capsys.readouterr().err
