"""Normalisation: a known gain and bias are undone by what did not change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecofm.errors import ArtifactError
from ecofm.tiles.archive import open_archive
from ecofm.tiles.normalise import fit_line, normalise, read_lines


@given(st.floats(0.5, 2), st.floats(-300, 300), st.integers(0, 99))
@settings(max_examples=30)
def test_the_line_is_found_though_a_third_has_changed(gain: float, bias: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    y = random.normal(2000, 400, (600, 3))
    x = (y - bias) / gain + random.normal(0, 5, y.shape)
    x[:200] += random.normal(900, 200, (200, 1))
    line = fit_line(x, y, y.std(axis=0))
    np.testing.assert_allclose(line.gain, gain, rtol=0.05)
    np.testing.assert_allclose(np.array(line.gain) * 2000 + line.bias, gain * 2000 + bias, atol=60)
    assert line.apart_after < 0.1 and line.n_blocks == 300


def paint_years(folder: Path, paint: Any) -> None:
    """Paint the same land twice; the second year is brighter, and its west has changed."""
    random = np.random.default_rng(0)
    coarse = random.normal(2000, 400, (3, 16, 24))
    land = np.kron(coarse, np.ones((16, 16))) + random.normal(0, 20, (3, 256, 384))
    changed = land.copy()
    changed[:, :, :100] += 800
    first, second = land.astype("uint16"), (changed * 1.2 + 150).astype("uint16")
    first[:, :20, :20], second[:, 200:, 300:] = 0, 0
    paint.scene(folder / "a_2018.tif", first, nodata=0)
    paint.scene(folder / "a_2019.tif", second, nodata=0)


def test_years_are_brought_together_and_the_lines_are_recorded(tmp_path: Path, paint: Any) -> None:
    paint_years(tmp_path / "in", paint)
    before = paint.tile(tmp_path / "in", tmp_path / "out", shard_tiles=5)
    lines = normalise(tmp_path / "out", tmp_path / "new", reference="2018")
    np.testing.assert_allclose(lines["2019"].gain, 1 / 1.2, rtol=0.03)
    assert lines["2019"].apart_before > 10 * lines["2019"].apart_after
    after = open_archive(tmp_path / "new")
    assert after.index["tile_id"].tolist() == before.index["tile_id"].tolist()
    values = {}
    for tile_index, period in enumerate(after.index["period"]):
        pixels, valid = after.read(tile_index)
        assert np.array_equal(valid, before.read(tile_index)[1]) and not pixels[:, ~valid].any()
        if period == "2018":
            assert pixels.tobytes() == before.read(tile_index)[0].tobytes()
        if not after.index["cell_id"][tile_index].endswith("_250"):
            values.setdefault(period, []).append(pixels[:, valid].mean())
    assert abs(np.mean(values["2019"]) / np.mean(values["2018"]) - 1) < 0.02
    assert read_lines(tmp_path / "new")["2019"]["gain"] == lines["2019"].gain
    whole = np.concatenate(
        [p[:, v] for p, v in (after.read(n) for n in range(after.n_tiles))], axis=1
    ).astype(float)
    np.testing.assert_allclose(after.contract.mean, whole.mean(axis=1))
    hashes = paint.hashes(tmp_path / "new")
    again = normalise(tmp_path / "out", tmp_path / "new", reference="2018")
    assert again == lines and paint.hashes(tmp_path / "new") == hashes
    assert after.scenes["name"].tolist() == ["a_2018.tif", "a_2019.tif"]
    paint.scene(tmp_path / "in" / "a_2020.tif", paint.pixels((3, 128, 128)))
    with pytest.raises(ArtifactError, match="is normalised to 2018; add to the archive"):
        paint.tile(tmp_path / "in", tmp_path / "new", append=True)


def test_periods_that_share_nothing_are_refused(tmp_path: Path, paint: Any) -> None:
    paint.scene(tmp_path / "in" / "a_2018.tif", paint.pixels((1, 128, 128)))
    corner = (paint.corner[0] + 12800, paint.corner[1])
    paint.scene(tmp_path / "in" / "a_2019.tif", paint.pixels((1, 128, 128)), corner=corner)
    paint.tile(tmp_path / "in", tmp_path / "out")
    with pytest.raises(ArtifactError, match="2019 shares 0 cells with 2018, too few"):
        normalise(tmp_path / "out", tmp_path / "new", reference="2018")
    with pytest.raises(ArtifactError, match="has no period 2017, only 2018, 2019"):
        normalise(tmp_path / "out", tmp_path / "new", reference="2017")
    assert not (tmp_path / "new").exists()
