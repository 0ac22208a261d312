"""A ranker says so where it meets tiles of another size or resolution than it was learned at."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ecofm.artifact import MANIFEST, read_manifest, write_sealed
from ecofm.maps.scores import score
from ecofm.rank.resolution import describe_tiles, warn_of_tiles

TILES = {"tile_px": [256, 256], "gsd_m": 10.0}


def copy(embeddings: Path, out: Path, **changes: Any) -> Path:
    """The same embeddings, said to be of other tiles."""
    shutil.copytree(embeddings, out)
    manifest = json.loads((out / MANIFEST).read_text())
    for name, value in changes.items():
        manifest.pop(name, None)
        if value is not None:
            manifest[name] = value
    write_sealed(out / MANIFEST, manifest)
    return out


def test_the_ranker_keeps_the_size_and_resolution_of_its_tiles(stages: Any) -> None:
    (tiles,) = read_manifest(stages.ranker, "ranker")["tiles"]
    archive = read_manifest(stages.archive, "archive")
    assert tiles["tile_px"] == archive["tile_px"]
    assert tiles["gsd_m"] == archive["contract"]["gsd_m"]


@pytest.mark.parametrize(
    ("known", "size", "gsd_m", "warns"),
    [
        ([TILES], [256, 256], 10.0, False),
        ([TILES], [256, 256], 11.0, False),
        ([TILES], [128, 128], 10.0, True),
        ([TILES], [256, 128], 10.0, True),
        ([TILES], [256, 256], 20.0, True),
        ([TILES], [256, 256], 5.0, True),
        ([TILES], [256, 256], None, False),
        ([TILES], [64, 64], None, True),
        ([TILES, {"tile_px": [64, 64], "gsd_m": None}], [64, 64], 30.0, False),
        ([], [64, 64], 30.0, False),
    ],
)
def test_other_tiles_are_named_with_both_figures(
    stages: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    known: list[dict[str, Any]], size: list[int], gsd_m: float | None, warns: bool,
) -> None:  # fmt: skip
    found = copy(stages.embeddings, tmp_path / "e", archive_tile_px=[size], archive_gsd_m=[gsd_m])
    warn_of_tiles(Path("ranker"), {"tiles": known}, [found])
    said = capsys.readouterr().err
    assert bool(said) == warns
    if warns:
        assert "256x256 pixels of 10 m" in said and f"{size[0]}x{size[1]} pixels" in said
        assert "ecofm rank" in said and (not gsd_m or f"{gsd_m:g} m" in said)


def test_scoring_tiles_of_another_size_warns_and_goes_on(
    stages: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    make_archive: Callable[..., Path],
) -> None:  # fmt: skip
    score([stages.embeddings], stages.ranker, tmp_path / "same")
    assert "was learned on tiles" not in capsys.readouterr().err
    other = copy(stages.embeddings, tmp_path / "e", archive_tile_px=[[999, 999]])
    assert (score([other], stages.ranker, tmp_path / "out") / MANIFEST).is_file()
    said = capsys.readouterr().err
    assert "was learned on tiles of" in said and "999x999" in said


def test_embeddings_from_before_are_not_warned_of(
    stages: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = copy(stages.embeddings, tmp_path / "e", archive_tile_px=None, archive_gsd_m=None)
    assert describe_tiles([old]) == []
    score([old], stages.ranker, tmp_path / "out")
    assert "was learned on tiles" not in capsys.readouterr().err
