"""Places: views show enough valid pixels, as a function of the step and of the masks alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ecofm.artifact import read_manifest
from ecofm.errors import EcofmError
from ecofm.pretrain.places import PlaceFinder, measure_share
from ecofm.pretrain.rendering import render_views
from ecofm.pretrain.run import PretrainConfig, RunConfig, pretrain
from ecofm.pretrain.views import ViewConfig, ViewParameters, draw_parameters, draw_places
from ecofm.tiles.archive import Archive, open_archive
from ecofm.tiles.loader import PairLoader
from tests.reseal import reseal

TILE_PX = 64
BOTH = ((0, 0), (1, 1))
RUN = RunConfig(accelerator="cpu", torch_threads=1, threads=0, log_every=1)
Writer = Callable[..., Path]


def finder_of(sources: Any = BOTH, n: int = 32, **changes: Any) -> PlaceFinder:
    config = ViewConfig(**{"size_px": 16, **changes})
    return PlaceFinder(config, sources, seed=3, n_global=n, tile_px=(TILE_PX, TILE_PX))


def bordered(seed: int, share: float) -> np.ndarray:
    """A mask whose left part, right of a slanted line, is empty as at the edge of an orbit."""
    y, x = np.mgrid[:TILE_PX, :TILE_PX]
    slant = np.random.default_rng(seed).uniform(-0.3, 0.3)
    return x + slant * (y - TILE_PX / 2) >= TILE_PX * (1 - share)


def shares_of(finder: PlaceFinder, masks: list[Any], places: Any, step: int = 5) -> np.ndarray:
    """Valid share of each view (view, sample), by sampling the masks as the views are."""
    n = len(places)
    found = []
    for tile, stream in finder.sources:
        drawn = draw_parameters(
            finder.config, seed=3, step=step, view=stream, samples=slice(0, n), n_global=n,
            n_bands=1, tile_px=finder.tile_px, places=places,
        )  # fmt: skip
        plain = ViewParameters(
            drawn.spatial, torch.ones(n, 1, 1), torch.zeros(n, 1), torch.zeros(n)
        )
        stack = torch.from_numpy(np.stack([pair[tile] for pair in masks]))[:, None].float()
        found.append(render_views(stack, plain, finder.config.size_px).mean(dim=(1, 2, 3)).numpy())
    return np.array(found)


def test_the_first_choice_stays_where_all_is_valid() -> None:
    whole = [np.ones((TILE_PX, TILE_PX), bool)] * 2
    places = finder_of().at(5).choose([whole] * 32)
    assert np.array_equal(places, draw_places(3, 5, 32))
    plain = draw_parameters(
        ViewConfig(size_px=16), seed=3, step=5, view=0, samples=slice(0, 32), n_global=32,
        n_bands=2, tile_px=(TILE_PX, TILE_PX),
    )  # fmt: skip
    given_places = draw_parameters(
        ViewConfig(size_px=16), seed=3, step=5, view=0, samples=slice(0, 32), n_global=32,
        n_bands=2, tile_px=(TILE_PX, TILE_PX), places=places,
    )  # fmt: skip
    assert torch.equal(plain.spatial, given_places.spatial)


def test_every_view_shows_enough_wherever_the_border_lies() -> None:
    """Six of eight pairs were blank before; none is now."""
    masks = [[bordered(n, 0.3), bordered(n + 50, 0.35)] for n in range(32)]
    finder = finder_of(min_valid_share=0.5)
    first = shares_of(finder, masks, draw_places(3, 5, 32))
    assert (first.min(axis=0) < 0.5).mean() > 0.6, "the first choice is often blank"
    places = finder.at(5).choose(masks)
    assert all(finder.at(5).find(n, pair) is not None for n, pair in enumerate(masks))
    # Edges are rounded to whole pixels, of 16 a side.
    assert shares_of(finder, masks, places).min() > 0.44
    kept = first.min(axis=0) > 0.56
    assert kept.any() and np.array_equal(places[kept], draw_places(3, 5, 32)[kept])


def test_places_that_only_views_without_shifts_fit_into_are_found() -> None:
    strip = np.zeros((TILE_PX, TILE_PX), bool)
    strip[:, 30:44] = True
    finder = finder_of(max_shift=2.0, min_valid_share=0.6)
    masks = [[strip, strip]] * 32
    places = finder.at(5).choose(masks)
    assert all(finder.at(5).find(n, pair) is not None for n, pair in enumerate(masks))
    assert set(places[:, 2]) == {0, 1} and shares_of(finder, masks, places).min() > 0.5


@settings(max_examples=40)
@given(seed=st.integers(0, 999), share=st.floats(0.02, 1), wanted=st.floats(0.1, 1))
def test_none_is_said_only_where_no_place_of_a_fine_search_serves(
    seed: int, share: float, wanted: float
) -> None:
    mask = np.random.default_rng(seed).random((TILE_PX, TILE_PX)) < share
    finder = finder_of(((0, 0),), 1, min_valid_share=wanted, max_shift=0.0)
    found = finder.at(5).find(0, [mask, mask])
    line = np.linspace(0, 1, 33, dtype=np.float32)
    fine = np.array([(x, y, 1) for x in line for y in line], np.float32)
    best = max(float(shares_of(finder, [[mask]], place[None])[0, 0]) for place in fine[::7])
    if found is None:
        assert best < wanted + 0.12
    else:
        assert shares_of(finder, [[mask]], found[None])[0, 0] > wanted - 0.12


def test_shares_are_those_of_counting() -> None:
    random = np.random.default_rng(0)
    mask = random.random((20, 30)) < 0.5
    sums = np.pad(mask.cumsum(0).cumsum(1), ((1, 0), (1, 0))).astype(np.int32)
    centre = np.array([[0.0, 0.0], [-0.5, 0.5], [2 / 30, -0.6]])
    span = np.array([[1.0, 1.0], [0.5, 0.5], [4 / 30, 0.4]])
    expected = [mask.mean(), mask[10:, :15].mean(), mask[:8, 14:18].mean()]
    assert np.allclose(measure_share(sums, centre, span), expected)


def test_only_the_tiles_that_views_show_count() -> None:
    empty, whole = np.zeros((TILE_PX, TILE_PX), bool), np.ones((TILE_PX, TILE_PX), bool)
    assert finder_of(((0, 0), (0, 1))).at(0).find(0, [whole, empty]) is not None
    assert finder_of().at(0).find(0, [whole, empty]) is None
    assert finder_of(min_valid_share=0.0).at(0).find(0, [whole, empty]) is not None


def spoil(path: Path, masks: dict[int, np.ndarray]) -> Archive:
    """Make pixels of some tiles invalid, as `tile` would have written them."""
    archive = open_archive(path)
    normal = archive.read_into

    def read_into(row: int, pixels: Any, valid: Any, *more: Any, **options: Any) -> None:
        normal(row, pixels, valid, *more, **options)
        if row in masks:
            valid[:] = masks[row]
            pixels[:, ~valid] = 0

    archive.read_into = read_into  # type: ignore[method-assign]
    return archive


@pytest.fixture
def archive(make_archive: Writer, tmp_path: Path) -> Archive:
    """Six cells of two periods; the first cell is empty in both, the second in 2020 alone."""
    empty = np.zeros((TILE_PX, TILE_PX), bool)
    path = make_archive(tmp_path / "archive", tile_px=TILE_PX)
    return spoil(path, {0: empty, 6: empty, 7: empty, 2: bordered(1, 0.4)})


def batches(archive: Archive, n: int = 6, **options: Any) -> Iterator[dict[str, Any]]:
    loader = PairLoader(
        [archive],
        **{"batch_size": 6, "seed": 3, "places": finder_of(n=6), **options},  # type: ignore[arg-type]
    )
    for batch, _ in zip(loader, range(n), strict=False):
        yield {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in batch.items()}


def test_a_pair_without_a_place_gives_way_and_is_counted(archive: Archive) -> None:
    replaced = 0
    for batch in batches(archive):
        assert batch["valid"].float().mean(dim=(2, 3)).min() > 0.3
        pairs = PairLoader([archive], batch_size=6, seed=3).pairs(batch["step"])
        bad = [set(pair) & {0, 6, 7} for pair in pairs.tolist()]
        assert batch["n_replaced"] == sum(map(bool, bad))
        replaced += batch["n_replaced"]
        for row, (anchor, partner) in enumerate(pairs.tolist()):
            if bad[row] and anchor not in (0, 6, 7):  # the tile stands in for its partner
                assert torch.equal(batch["pixels"][0, row], batch["pixels"][1, row])
                own = archive.read(anchor)[0]
                assert np.array_equal(batch["pixels"][0, row].numpy(), own)
            assert partner != anchor
    assert replaced > 6


@pytest.mark.parametrize("options", [{"threads": 3}, {"first_step": 2}, {"world_size": 2}], ids=str)
def test_batches_are_a_function_of_the_step(archive: Archive, options: dict[str, int]) -> None:
    plain = list(batches(archive))
    first = options.get("first_step", 0)
    for rank in range(options.get("world_size", 1)):
        half = slice(rank * 3, rank * 3 + 3) if "world_size" in options else slice(None)
        for before, now in zip(plain[first:], batches(archive, 6 - first, rank=rank, **options),
                               strict=True):  # fmt: skip
            assert before["step"] == now["step"]
            assert np.array_equal(before["places"][half], now["places"])
            for name in ("pixels", "valid"):
                assert torch.equal(before[name][:, half], now[name])


def test_an_archive_without_any_place_is_refused_with_the_cure(
    make_archive: Writer, tmp_path: Path
) -> None:
    path = make_archive(tmp_path / "archive", tile_px=TILE_PX)
    half = np.zeros((TILE_PX, TILE_PX), bool)
    half[::5] = True
    with pytest.raises(EcofmError, match=r"lower views\.min_valid_share"):
        next(batches(spoil(path, dict.fromkeys(range(12), half))))


def shade(path: Path, rows: list[int], share: float) -> Path:
    """Rewrite an archive's masks so that some tiles are valid on a part only."""
    import geopandas as gpd

    from ecofm.tiles.archive import checksum_tile, shard_paths

    pixels_path, valid_path, _ = shard_paths(path, 0)
    pixels, packed = np.load(pixels_path), np.load(valid_path)
    index = gpd.read_parquet(path / "index.parquet")
    for row in rows:
        valid = bordered(row, share)
        pixels[row][:, ~valid] = 0
        packed[row] = np.packbits(valid, axis=-1)
        index.loc[row, "valid_share"] = valid.mean()
        index.loc[row, "checksum"] = checksum_tile(pixels[row], valid)
    np.save(pixels_path, pixels)
    np.save(valid_path, packed)
    index.to_parquet(path / "index.parquet")
    reseal(path)
    return path


def test_a_run_says_how_many_pairs_gave_way_and_resumes_to_the_same_bytes(
    make_archive: Writer,
    tiny: Callable[..., PretrainConfig],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = shade(make_archive(tmp_path / "archive", tile_px=TILE_PX), [1, 3, 7, 8], 0.2)
    shade(path, [0], 0.0)
    config = tiny(steps=6, views=ViewConfig(size_px=32))
    whole = pretrain([path], tmp_path / "whole", config, RUN)
    said = capsys.readouterr().err
    counts = read_manifest(whole / "encoder", "encoder")
    assert counts["n_pairs"] == 24 and counts["n_pairs_replaced"] > 0
    assert f"{counts['n_pairs_replaced']} of 24 pairs have no place" in said
    assert "1 of 12 tiles have too few valid pixels" in said
    lines = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["pairs_replaced"] == counts["n_pairs_replaced"]

    from ecofm.pretrain.record import Record

    class Stop(Exception):
        pass

    normal = Record.on_train_batch_end

    def stop(self: Any, trainer: Any, module: Any, *more: Any) -> None:
        normal(self, trainer, module, *more)
        if int(module.step) == 3:
            raise Stop

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Record, "on_train_batch_end", stop)
        with pytest.raises(Stop):
            pretrain(
                [path], tmp_path / "cut", config, RunConfig(**(vars(RUN) | {"checkpoint_every": 3}))
            )
    cut = pretrain([path], tmp_path / "cut", config, RunConfig(**(vars(RUN) | {"threads": 2})))
    weights = "encoder/model.safetensors"
    assert (cut / weights).read_bytes() == (whole / weights).read_bytes()
    assert (
        read_manifest(cut / "encoder", "encoder")["n_pairs_replaced"] == counts["n_pairs_replaced"]
    )


def test_a_run_on_whole_tiles_says_nothing_of_it(
    make_archive: Writer,
    tiny: Callable[..., PretrainConfig],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = pretrain([make_archive(tmp_path / "archive")], tmp_path / "run", tiny(steps=2), RUN)
    assert "valid pixels" not in capsys.readouterr().err
    assert "pairs_replaced" not in (run / "metrics.jsonl").read_text()
    assert read_manifest(run / "encoder", "encoder")["n_pairs_replaced"] == 0
