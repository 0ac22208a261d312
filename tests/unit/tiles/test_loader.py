"""The loader: a batch is a function of the step, and of nothing else."""

from __future__ import annotations

import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ecofm.tiles.archive import Archive, TileError, find_tile, open_archive
from ecofm.tiles.loader import PairLoader
from ecofm.tiles.periods import day_number
from ecofm.types import Contract

CONTRACT = Contract(
    bands=("a",), dtype="uint16", units="reflectance", scale=1e-4, offset=0.0,
    valid_range=(0.0, 65535.0), gsd_m=10.0, mean=(1.0,), std=(1.0,),
)  # fmt: skip


class Painted(Archive):
    """Stands for an archive whose tile n holds the number n, so that a batch tells its tiles."""

    def __init__(self, cells: list[str], periods: list[str], first: int = 0) -> None:
        self.contract = CONTRACT
        self.tile_px = (2, 2)
        self._n_tiles = len(cells)
        self.first = first
        self.damaged: set[int] = set()
        index = pd.DataFrame({"cell_id": cells, "period": periods})
        index["tile_id"] = index["cell_id"] + "@" + index["period"]
        index["day"] = [day_number(period) for period in periods]
        index["valid_share"] = 1.0
        self.__dict__["index"] = index

    def columns(self, names: list[str]) -> pa.Table:
        return pa.Table.from_pandas(self.index[names], preserve_index=False)

    def load_places(self) -> None: ...

    def read_into(self, tile_index: int, pixels: Any, valid: Any, *_: Any, check: bool) -> None:
        if tile_index in self.damaged:
            raise TileError(f"tile {self.index['tile_id'][tile_index]} has another checksum")
        pixels[:] = self.first + tile_index
        valid[:] = True


def painted(n_cells: int = 7, n_periods: int = 3) -> Any:
    cells = [f"c{n}" for n in range(n_cells) for _ in range(n_periods)]
    return Painted(cells, [str(2016 + n) for _ in range(n_cells) for n in range(n_periods)])


def take(loader: PairLoader, n: int) -> list[list[list[int]]]:
    """Return the (view, sample) tile numbers of the first n batches."""
    return [batch["pixels"][:, :, 0, 0, 0].tolist() for batch in islice(iter(loader), n)]


def make(archive: Any, **options: Any) -> PairLoader:
    archives = archive if isinstance(archive, list) else [archive]
    return PairLoader(archives, **{"batch_size": 4, "seed": 3, **options})


@pytest.mark.parametrize("threads", [1, 4])
def test_threads_change_nothing(threads: int) -> None:
    assert take(make(painted(), threads=threads), 12) == take(make(painted()), 12)


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_share_the_batch_of_one(world_size: int) -> None:
    whole = take(make(painted()), 9)
    parts = [take(make(painted(), rank=r, world_size=world_size), 9) for r in range(world_size)]
    for step in range(9):
        joined = np.concatenate([part[step] for part in parts], axis=1)
        assert joined.tolist() == whole[step]


@given(st.integers(0, 40))
@settings(max_examples=10)
def test_starting_at_a_step_is_iterating_to_it(first_step: int) -> None:
    whole = take(make(painted()), 43)
    assert take(make(painted(), first_step=first_step), 3) == whole[first_step : first_step + 3]
    batch = next(iter(make(painted(), first_step=first_step)))
    assert batch["step"] == first_step


def test_buffers_last_three_batches() -> None:
    for threads in (0, 2):
        batches = iter(make(painted(), threads=threads))
        held: list[tuple[list[Any], torch.Tensor]] = []
        for _ in range(20):
            batch = next(batches)
            time.sleep(0.01)  # the next batch is read meanwhile
            held.append((batch["pixels"].tolist(), batch["pixels"]))
            for expected, pixels in held[-3:]:
                assert pixels.tolist() == expected
        assert len({pixels.data_ptr() for _, pixels in held}) == 4
        batches.close()


def test_a_loader_can_be_left_at_any_time() -> None:
    batches = iter(make(painted(), threads=3))
    next(batches)
    batches.close()
    assert take(make(painted(), threads=3), 2) == take(make(painted()), 2)


@pytest.mark.parametrize("threads", [0, 4])
def test_a_damaged_tile_is_replaced_by_its_partner_and_named_once(
    threads: int, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = painted(5, 2)
    archive.damaged = {5}
    loader = make(archive, threads=threads)
    batches = take(loader, 40)
    for step, (left, right) in enumerate(batches):
        for (anchor, partner), one, two in zip(
            loader.pairs(step).tolist(), left, right, strict=True
        ):
            assert one == (anchor if anchor != 5 else partner)
            assert two == (partner if partner != 5 else anchor)
    assert loader.n_damaged == 1
    assert capsys.readouterr().err.count("left out: tile c2@2017 has another checksum.") == 1


def test_two_damaged_tiles_give_way_to_the_next_one() -> None:
    archive = painted(5, 2)
    archive.damaged = {4, 5, 6}
    loader = make(archive)
    for step, views in enumerate(take(loader, 20)):
        for pair, one, two in zip(loader.pairs(step).tolist(), *views, strict=True):
            if set(pair) <= archive.damaged:
                assert one == two == 7
            assert not {one, two} & archive.damaged
    assert take(make(archive, first_step=11, threads=2), 5) == take(make(archive), 16)[11:]
    ranks = [take(make(archive, rank=rank, world_size=2), 16) for rank in (0, 1)]
    assert [np.concatenate(views, 1).tolist() for views in zip(*ranks, strict=True)] == take(
        make(archive), 16
    )


@pytest.mark.parametrize("threads", [0, 2])
def test_when_every_tile_is_damaged_the_run_ends(threads: int) -> None:
    archive = painted(3, 2)
    archive.damaged = set(range(6))
    with pytest.raises(TileError, match="all that could stand in for it are damaged"):
        next(iter(make(archive, threads=threads)))


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 5, "world_size": 2},
        {"batch_size": 0},
        {"rank": 2, "world_size": 2},
        {"rank": -1},
    ],
)
def test_shares_that_do_not_divide_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="batch_size"):
        make(painted(), **options)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16"])
def test_a_batch_holds_the_stored_pixels(tmp_path: Path, paint: Any, dtype: str) -> None:
    for year in (2018, 2019):
        pixels = paint.pixels((3, 256, 256), dtype, seed=year)
        pixels[:, :30] = 0
        paint.scene(tmp_path / "in" / f"a_{year}.tif", pixels, nodata=0, photometric="MINISBLACK")
    archive: Archive = paint.tile(tmp_path / "in", tmp_path / "out")
    loader = make(archive, threads=2)
    batch = next(iter(loader))
    assert batch["pixels"].dtype == getattr(torch, dtype)
    assert batch["pixels"].shape == (2, 4, 3, 128, 128) and batch["valid"].shape == (2, 4, 128, 128)
    for row, pair in enumerate(loader.pairs(0).tolist()):
        for view, tile_index in enumerate(pair):
            expected, valid = archive.read(tile_index)
            assert batch["pixels"][view, row].numpy().tobytes() == expected.tobytes()
            assert np.array_equal(batch["valid"][view, row].numpy(), valid)


def test_a_flipped_byte_on_disk_is_left_out(tmp_path: Path, paint: Any, capsys: Any) -> None:
    for year in (2018, 2019):
        paint.scene(tmp_path / "in" / f"a_{year}.tif", paint.pixels((1, 256, 256), seed=year))
    out = tmp_path / "out"
    paint.tile(tmp_path / "in", out)
    path = out / "shards" / "00000.npy"
    data = bytearray(path.read_bytes())
    data[500] ^= 1
    path.write_bytes(data)
    archive = open_archive(out)
    loader = make(archive, batch_size=8)
    next(iter(loader))
    said = capsys.readouterr().err
    assert said.count("left out: tile") == 1 and archive.index["tile_id"][0] in said
    assert loader.n_damaged == 1


def test_names_are_found_in_the_right_archive() -> None:
    first, second = painted(2, 1), Painted(["p", "q"], ["2018", "2018"], first=2)
    found = [find_tile([first, second], n) for n in range(4)]
    assert [archive.name(place) for archive, place in found] == [
        "c0@2016", "c1@2016", "p@2018", "q@2018",
    ]  # fmt: skip
    for beyond in (-1, 4):
        with pytest.raises(IndexError):
            find_tile([first, second], beyond)


@pytest.fixture
def stored(tmp_path: Path, paint: Any) -> Any:
    """Return an archive of 8 tiles of 3 bands, some pixels invalid."""
    for year in (2018, 2019):
        pixels = paint.pixels((3, 256, 256), seed=year)
        pixels[:, :30] = 0
        paint.scene(tmp_path / "in" / f"a_{year}.tif", pixels, nodata=0)
    return paint.tile(tmp_path / "in", tmp_path / "out", shard_tiles=3)


@pytest.mark.parametrize("threads", [0, 1, 4])
def test_a_crop_is_the_same_place_of_both_tiles(stored: Any, threads: int) -> None:
    loader = make(stored, threads=threads, crop_px=100, batch_size=6)
    corners = set()
    for step, batch in enumerate(islice(iter(loader), 3)):
        assert batch["pixels"].shape == (2, 6, 3, 100, 100)
        places = zip(loader.pairs(step).tolist(), loader.corners(step).tolist(), strict=True)
        for row, (pair, (top, left)) in enumerate(places):
            corners.add((top, left))
            for view, tile_index in enumerate(pair):
                pixels, valid = stored.read(tile_index)
                window = (slice(top, top + 100), slice(left, left + 100))
                assert np.array_equal(batch["pixels"][view, row].numpy(), pixels[:, *window])
                assert np.array_equal(batch["valid"][view, row].numpy(), valid[window])
    assert len(corners) == 18
    with pytest.raises(ValueError, match="crop_px 129"):
        make(stored, crop_px=129)


@pytest.mark.parametrize(("check", "hashed"), [("first", 8), ("always", 8 * 6), ("never", 0)])
def test_checks_are_made_when_they_are_asked_for(
    stored: Any, check: Any, hashed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ecofm.tiles import archive as archive_module

    found = []
    digest = archive_module._digest
    monkeypatch.setattr(archive_module, "_digest", lambda *a: found.append(1) or digest(*a))
    take(make(stored, check=check, batch_size=8), 3)
    assert len(found) == hashed


@pytest.mark.parametrize("check", ["first", "always"])
def test_a_damaged_tile_stays_left_out(stored: Any, check: Any, capsys: Any) -> None:
    path = stored.path / "shards" / "00001.npy"
    data = bytearray(path.read_bytes())
    data[500] ^= 1
    path.write_bytes(data)
    archive = open_archive(stored.path)
    loader = make(archive, check=check, batch_size=8)
    whole = {n: archive.read(n)[0][0, 0, 0] for n in range(8) if n != 3}
    for batch in islice(iter(loader), 4):
        assert set(batch["pixels"][:, :, 0, 0, 0].flatten().tolist()) <= set(whole.values())
    assert loader.n_damaged == 1 and capsys.readouterr().err.count("left out") == 1
