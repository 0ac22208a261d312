import re

import geopandas as gpd
import pandas as pd
import pytest

from ecofm.demo.synthetic import demo_synthetic
from ecofm.pretrain.encoders import EncoderConfig
from ecofm.pretrain.run import PretrainConfig, RunConfig
from ecofm.pretrain.views import ViewConfig
from ecofm.synth import CountryConfig

COUNTRY = CountryConfig(seed=5, n_cells=8, cell_px=64, periods=("2019", "2020"))
TINY = PretrainConfig(
    steps=2,
    batch_size=8,
    warmup_steps=1,
    encoder=EncoderConfig(backbone="resnet10t", width=0.25),
    views=ViewConfig(size_px=32),
)


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    run = RunConfig(threads=0)
    demo_synthetic(folder, country=COUNTRY, pretraining=TINY, run=run)
    return folder


def test_report_is_one_file_with_its_pictures_inside(out):
    page = (out / "report.html").read_text(encoding="utf-8")
    assert len(re.findall(r'src="data:image/png;base64,[A-Za-z0-9+/=]{1000,}"', page)) == 4
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    assert "synthetic" in page and "untrained_encoder" in page


def test_scenes_are_removed_and_scores_cover_the_country(out):
    assert not (out / "country" / "scenes").exists()
    scores = gpd.read_parquet(out / "scores" / "scores.parquet")
    assert set(scores["period"]) == {"2019", "2020"}
    assert scores["cell_id"].nunique() == 64
    assert (scores["lower"] <= scores["score"]).all() and (scores["score"] <= scores["upper"]).all()


def test_nothing_synthetic_is_attributed_to_copernicus(out):
    manifests = [path.read_text() for path in out.rglob("manifest.json")]
    assert any("Synthetic imagery" in text for text in manifests)
    assert not any("Copernicus" in text for text in manifests)


def test_the_ranker_is_never_told_about_held_out_districts(out):
    truth = pd.read_parquet(out / "country" / "truth.parquet")
    held_out = set((truth["cell_id"] + "@" + truth["period"])[truth["held_out"]])
    said = pd.read_csv(out / "comparisons.csv", dtype=str)
    members = pd.read_csv(out / "members.csv", dtype=str)
    assert held_out and not held_out & {*said["left"], *said["right"], *members["tile_id"]}
    judged = pd.read_parquet(out / "truth_held_out.parquet")
    assert set(judged["cell_id"] + "@" + judged["period"]) <= held_out


def test_the_same_demo_again_keeps_what_is_done(out, capsys):
    stages = ("archive", "run/encoder", "embeddings", "clusters", "ranker", "scores", "change")
    before = {stage: (out / stage / "manifest.json").stat().st_mtime_ns for stage in stages}
    demo_synthetic(out, country=COUNTRY, pretraining=TINY, run=RunConfig(threads=0))
    after = {stage: (out / stage / "manifest.json").stat().st_mtime_ns for stage in stages}
    assert after == before
