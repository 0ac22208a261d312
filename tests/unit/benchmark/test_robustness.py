"""Robustness: lenses do what their names say, figures are what they claim, bad input is refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from ecofm.artifact import read_json
from ecofm.benchmark.robustness import (
    LENSES,
    RobustnessConfig,
    measure_ground,
    measure_shift,
    robustness,
)
from ecofm.errors import ArtifactError, ContractError, EcofmError
from ecofm.pretrain.run import pretrain
from ecofm.tiles.archive import Archive, open_archive
from tests.reseal import reseal

CONFIG = RobustnessConfig()


def see(archive: Archive, name: str, tile: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A tile before and under a lens, and the lens's valid mask."""
    pixels, valid = archive.read(tile)
    (lens,) = [lens for lens in LENSES if lens.name == name]
    before = pixels.astype(float)
    after, kept = lens.apply(before.copy(), valid, archive.contract, np.random.default_rng(0))
    assert after.shape == before.shape and kept.shape == valid.shape
    return before, after, kept


def test_haze_brightens_the_dark_most_in_blue_and_flattens(stages: Any) -> None:
    archive = open_archive(stages.archive)
    red, _, blue = archive.contract.true_colour()
    before, after, _ = see(archive, "haze 40%")
    ratio = [float(after[b].std() / before[b].std()) for b in (red, blue)]
    assert ratio[1] == pytest.approx(0.6) and ratio[1] < ratio[0] < 1
    light, _, _ = see(archive, "haze 20%")
    assert np.array_equal(light, before)
    dark = before[blue] < archive.contract.mean[blue]
    assert (after[blue] > before[blue])[dark].all()


def test_colour_resolution_blur_and_gaps(stages: Any) -> None:
    archive = open_archive(stages.archive)
    before, after, _ = see(archive, "colour 10%")
    gains = (after / before).reshape(len(before), -1)
    assert np.allclose(gains, gains[:, :1]) and 0.02 < np.abs(gains[:, 0] - 1).max() < 0.5
    before, after, _ = see(archive, "half resolution")
    assert np.allclose(after[:, ::2, ::2], after[:, 1::2, 1::2])
    assert after.mean() == pytest.approx(before.mean())
    before, after, _ = see(archive, "blur 1 px")
    assert after.std() < before.std() and after.mean() == pytest.approx(before.mean(), rel=0.01)
    for share in (25, 50):
        _, _, kept = see(archive, f"nodata {share}%")
        assert 1 - kept.mean() == pytest.approx(share / 100)


def measure(stages: Any, out: Path, **more: Any) -> dict[str, Any]:
    robustness(stages.ranker, stages.encoder, stages.archive, out, CONFIG, **more)
    return dict(read_json(out / "robustness.json"))


def test_the_report_is_whole_and_repeatable(
    stages: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = sorted(set(open_archive(stages.archive).index["cell_id"]))
    table = pd.DataFrame({"cell_id": cells, "floor": np.arange(len(cells))})
    table.to_csv(tmp_path / "proxies.csv", index=False)
    found = measure(stages, tmp_path / "a", proxies=tmp_path / "proxies.csv")
    assert [shift["lens"] for shift in found["shifts"]] == [lens.name for lens in LENSES]
    assert found["n_tiles"] == 24 and found["score_deviation"] > 0
    (years,) = found["years"]
    assert (years["from"], years["to"], years["n_cells"]) == ("2019", "2020", 12)
    assert years["n_unchanged"] == 6 and -1 <= years["unchanged"] <= 1
    assert found["proxy"]["lower"] <= found["proxy"]["spearman"] <= found["proxy"]["upper"]
    assert -1 <= found["proxy"]["given_colour"] <= 1
    with Image.open(tmp_path / "a" / "robustness.png") as picture:
        assert min(picture.size) > 300
    assert "half resolution" in (tmp_path / "a" / "robustness.md").read_text()
    assert len(pd.read_csv(tmp_path / "a" / "robustness.csv")) == len(LENSES)
    measure(stages, tmp_path / "a", proxies=tmp_path / "proxies.csv")
    assert "done already" in capsys.readouterr().err
    again = measure(stages, tmp_path / "b", proxies=tmp_path / "proxies.csv")
    assert again == found


def test_shifts_are_in_units_of_the_scores_deviation() -> None:
    score = pd.Series([0.0, 1.0, 2.0, 3.0])
    found = pd.DataFrame({"score": score, "up": score + 2, "turned": -score})
    scale = float(score.std(ddof=1))
    up = measure_shift(found, "up", scale)
    assert up["mean_shift"] == pytest.approx(2 / scale) and up["deviation"] == pytest.approx(0)
    assert up["rank_correlation"] == pytest.approx(1)
    assert measure_shift(found, "turned", scale)["rank_correlation"] == pytest.approx(-1)
    flat = measure_shift(found.assign(flat=1.0), "flat", scale)
    assert flat["rank_correlation"] is None


def test_a_cell_that_was_built_over_counts_as_changed(
    stages: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = open_archive(stages.archive)
    std = np.array(archive.contract.std)

    def blocks(_: Archive, one: int, other: int) -> tuple[np.ndarray, np.ndarray]:
        random = np.random.default_rng(one)
        x = std * random.normal(size=(16, len(std)))
        # Another sensor's numbers, and in cell 3 another ground.
        y = 1.5 * (std * random.normal(size=x.shape) if one == 3 else x) + 40
        return x, y

    monkeypatch.setattr("ecofm.benchmark.robustness.read_blocks", blocks)
    places = pd.DataFrame({"2019": range(10), "2020": range(10, 20)})
    change = measure_ground(archive, places)
    assert change.idxmax() == 3 and change[3] > 0.5
    assert change.drop(3).max() < 0.05


def test_what_does_not_fit_together_is_one_sentence(
    stages: Any, make_archive: Callable[..., Path], tiny: Callable[..., Any], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    other = pretrain([stages.archive], tmp_path / "other", tiny(steps=0, seed=9))
    with pytest.raises(ArtifactError, match="fitted on another encoder"):
        robustness(stages.ranker, other, stages.archive, out, CONFIG)
    rgb = make_archive(tmp_path / "rgb", bands=("red", "green", "blue"), dtype="uint8")
    with pytest.raises(ContractError):
        robustness(stages.ranker, stages.encoder, rgb, out, CONFIG)
    with pytest.raises(ArtifactError, match="expected ranker"):
        robustness(stages.scores, stages.encoder, stages.archive, out, CONFIG)
    pd.DataFrame({"cell_id": ["x"], "floor": [1]}).to_csv(tmp_path / "far.csv", index=False)
    with pytest.raises(EcofmError, match="knows 0 of the 12 measured cells"):
        measure(stages, out, proxies=tmp_path / "far.csv")
    pd.DataFrame({"cell_id": ["x"], "a": [1], "b": [1]}).to_csv(tmp_path / "two.csv", index=False)
    with pytest.raises(EcofmError, match="chosen with --column"):
        robustness(
            stages.ranker, stages.encoder, stages.archive, out, CONFIG,
            proxies=tmp_path / "two.csv", progress=lambda done, total: pytest.fail("too late"),
        )  # fmt: skip
    assert not out.exists()


def test_a_score_that_never_varies_is_refused(stages: Any, tmp_path: Path) -> None:
    flat = shutil.copytree(stages.ranker, tmp_path / "flat")
    stored = load_file(str(flat / "ranker.safetensors"))
    stored["parameters"] *= 0
    save_file(stored, str(flat / "ranker.safetensors"))
    reseal(flat)
    with pytest.raises(EcofmError, match="1 different scores"):
        robustness(flat, stages.encoder, stages.archive, tmp_path / "out", CONFIG)


@pytest.mark.parametrize("wrong", [{"max_tiles": 2}, {"n_bootstrap": 10}])
def test_unusable_values_are_wrong_arguments(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="needed"):
        RobustnessConfig(**wrong)
