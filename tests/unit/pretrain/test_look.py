"""The picture of a run's views, and how `ecofm show` hands it on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ecofm.errors import ArtifactError
from ecofm.pretrain import look
from ecofm.pretrain.run import PretrainConfig, RunConfig, pretrain
from ecofm.pretrain.views import ViewConfig
from ecofm.verbs.show import show

Tiny = Callable[..., PretrainConfig]
RUN = RunConfig(accelerator="cpu", torch_threads=1, threads=0)
STILL = {
    "size_px": 32, "min_zoom": 1.0, "max_zoom": 1.0, "max_shift": 0.0, "gain": 0.0, "offset": 0.0,
    "haze": 0.0, "mix": 0.0, "grey_probability": 0.0, "drop_probability": 0.0,
}  # fmt: skip


def panels(picture: Path, n_columns: int) -> np.ndarray:
    """The sheet's panels: (row, column, height, width, band)."""
    side = look.PANEL_PX + look.GAP_PX
    sheet = np.asarray(Image.open(picture))[look.LABEL_PX :]
    assert sheet.shape[1] == n_columns * side and sheet.shape[0] % side == 0
    grid = sheet.reshape(-1, side, n_columns, side, 3).transpose(0, 2, 1, 3, 4)
    return grid[:, :, : look.PANEL_PX, : look.PANEL_PX].astype(int)


@pytest.mark.parametrize(
    ("method", "accumulate", "shown"),
    [("simclr", 1, [0, 1]), ("simclr", 2, [0, 1]), ("change_preserving", 1, [0, 1, 0, 1])],
)
def test_views_that_change_nothing_are_turns_of_the_tiles_beside_them(
    method: str, accumulate: int, shown: list[int], make_archive: Any, tiny: Tiny, tmp_path: Path
) -> None:
    archive = make_archive(tmp_path / "archive")
    config = tiny(method, steps=1, accumulate=accumulate, views=ViewConfig(**STILL))
    run = pretrain([archive], tmp_path / "run", config, RUN)
    found = panels(run / "views.png", 2 + len(shown))
    assert len(found) == 4 // accumulate
    for row in found:
        assert np.abs(row[0] - row[1]).mean() > 2  # two periods of a cell are two pictures
        for view, tile in zip(row[2:], shown, strict=True):
            turns = [np.rot90(t, k) for t in (row[tile], row[tile][:, ::-1]) for k in range(4)]
            errors = [np.abs(turn - view).mean() for turn in turns]
            assert min(errors) < 1.5 < np.median(errors)


def test_show_hands_the_pictures_of_a_run_on(
    make_archive: Any, tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = make_archive(tmp_path / "archive")
    run = pretrain([archive], tmp_path / "run", tiny(steps=1), RUN)
    show(run)
    names = {path.name for path in (tmp_path / "run-pictures").iterdir()}
    assert names == {"views.png", "health.png"}
    (run / "encoder").rename(tmp_path / "shared")
    show(tmp_path / "shared")
    assert not (tmp_path / "shared-pictures").exists()
    with pytest.raises(ArtifactError, match=r"run that has not ended.*views\.png"):
        show(run)
