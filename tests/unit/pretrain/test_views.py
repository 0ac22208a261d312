"""The two affines against plain loops, their keys, and normalisation."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ecofm.pretrain.encoders import Encoder, EncoderConfig, Normalization
from ecofm.pretrain.rendering import cut_windows, render_tiles, render_views
from ecofm.pretrain.views import ViewConfig, ViewParameters, draw_parameters
from ecofm.types import Contract

STILL = {
    "min_zoom": 1.0, "max_zoom": 1.0, "max_shift": 0.0, "gain": 0.0, "offset": 0.0, "haze": 0.0,
    "mix": 0.0, "grey_probability": 0.0, "drop_probability": 0.0,
}  # fmt: skip


def draw(config: ViewConfig, n: int = 64, **changes: Any) -> ViewParameters:
    key: dict[str, Any] = {
        "seed": 3, "step": 5, "view": 0, "samples": slice(0, n), "n_global": n, "n_bands": 3,
        "tile_px": (16, 16),
    }  # fmt: skip
    return draw_parameters(config, **(key | changes))


def by_hand(spatial: list[list[float]], n_bands: int = 1) -> ViewParameters:
    return ViewParameters(
        torch.tensor([spatial]), torch.eye(n_bands)[None], torch.zeros(1, n_bands), torch.zeros(1)
    )


def sample_plainly(tile: np.ndarray, affine: np.ndarray, size_px: int) -> np.ndarray:
    """Bilinear sampling by loops; coordinates run from -1 to 1 over the outer pixel edges."""
    n_bands, height, width = tile.shape
    view = np.zeros((n_bands, size_px, size_px))

    def reflect(place: int, n: int) -> int:
        while not 0 <= place < n:
            place = -place - 1 if place < 0 else 2 * n - place - 1
        return place

    for i, j in itertools.product(range(size_px), repeat=2):
        u, v = (2 * j + 1) / size_px - 1, (2 * i + 1) / size_px - 1
        x = ((affine[0] @ [u, v, 1] + 1) * width - 1) / 2
        y = ((affine[1] @ [u, v, 1] + 1) * height - 1) / 2
        for row, column in itertools.product((0, 1), repeat=2):
            weight = abs(1 - row - (y - math.floor(y))) * abs(1 - column - (x - math.floor(x)))
            place = reflect(math.floor(y) + row, height), reflect(math.floor(x) + column, width)
            view[:, i, j] += weight * tile[:, place[0], place[1]]
    return view


def test_identity_copies_the_tile() -> None:
    tile = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    view = render_views(tile, by_hand([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], 3), 16)
    # grid_sample's own coordinates are off by a rounding of float32.
    assert torch.allclose(view, tile, atol=1e-5)


@pytest.mark.parametrize(
    ("spatial", "expected"),
    [
        ([[-1.0, 0, 0], [0, 1.0, 0]], lambda t: t[:, :, ::-1]),
        ([[1.0, 0, 0], [0, -1.0, 0]], lambda t: t[:, ::-1, :]),
        ([[0, -1.0, 0], [1.0, 0, 0]], lambda t: np.rot90(t, 1, (1, 2))),
        ([[-1.0, 0, 0], [0, -1.0, 0]], lambda t: np.rot90(t, 2, (1, 2))),
        ([[0.5, 0, -0.5], [0, 0.5, 0.5]], lambda t: t[:, 4:, :4]),
        ([[2 / 8, 0, 0], [0, 2 / 8, 0]], lambda t: t[:, 3:5, 3:5]),
    ],
    ids=["flip x", "flip y", "quarter turn", "half turn", "corner", "centre"],
)
def test_whole_pixel_affines_copy_pixels(spatial: list[list[float]], expected: Any) -> None:
    tile = np.arange(128, dtype=np.float32).reshape(2, 8, 8)
    want = expected(tile)
    size_px = want.shape[-1]
    found = render_views(torch.from_numpy(tile)[None], by_hand(spatial, 2), size_px)[0].numpy()
    assert np.allclose(found, want, atol=1e-4)


def test_drawn_views_equal_plain_sampling() -> None:
    config = ViewConfig(**(STILL | {"size_px": 12, "min_zoom": 0.5, "max_zoom": 2, "max_shift": 1}))
    tile = np.random.default_rng(0).normal(size=(2, 16, 16)).astype(np.float32)
    parameters = draw(config, 8, n_bands=2)
    tiles = torch.from_numpy(tile).expand(8, -1, -1, -1)
    found = render_views(tiles, parameters, 12).numpy()
    for number in range(8):
        affine = parameters.spatial[number].numpy().astype(np.float64)
        assert np.allclose(found[number], sample_plainly(tile, affine, 12), atol=1e-4)


def test_still_views_are_the_eight_turns_and_flips() -> None:
    tile = torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    found = render_views(
        tile.expand(64, -1, -1, -1), draw(ViewConfig(size_px=16, **STILL), n_bands=1), 16
    )
    turns = [torch.rot90(t, k, (1, 2)) for t in (tile[0], tile[0].flip(2)) for k in range(4)]
    seen = {
        next(k for k, turn in enumerate(turns) if torch.allclose(view, turn, atol=1e-5))
        for view in found
    }
    assert seen == set(range(8))


def test_zoom_is_view_pixels_for_a_tile_pixel() -> None:
    config = ViewConfig(**(STILL | {"size_px": 8, "min_zoom": 2.0, "max_zoom": 2.0}))
    spatial = draw(config, tile_px=(16, 32)).spatial
    # 8 pixels of the view span 4 of the tile: a quarter of the height, an eighth of the width.
    assert torch.allclose(spatial[:, 0, :2].abs().sum(1), torch.tensor(4 / 32))
    assert torch.allclose(spatial[:, 1, :2].abs().sum(1), torch.tensor(4 / 16))


def test_views_stay_on_the_tile() -> None:
    config = ViewConfig(size_px=8, max_shift=3.0)
    spatial = draw(config, 256).spatial
    reach = spatial[:, :, :2].abs().sum(2) + spatial[:, :, 2].abs()
    assert reach.max() <= 1 + 1e-6


def test_known_mixing_and_offset() -> None:
    tile = torch.tensor([1.0, 2.0, 4.0])[None, :, None, None].expand(1, 3, 8, 8)
    mixing = torch.tensor([[[2.0, 0, 0], [0.5, 1, 0.25], [1 / 3, 1 / 3, 1 / 3]]])
    offset = torch.tensor([[0.0, -1, 10]])
    still = torch.tensor([[[1.0, 0, 0], [0, 1.0, 0]]])
    view = render_views(tile, ViewParameters(still, mixing, offset, torch.zeros(1)), 8)
    assert torch.allclose(view[0, :, 3, 5], torch.tensor([2.0, 2.5, 7 / 3 + 10]))


def test_each_spectral_knob_alone() -> None:
    eye = torch.eye(3).expand(64, -1, -1)

    def alone(**knob: float) -> ViewParameters:
        return draw(ViewConfig(size_px=16, **(STILL | knob)))

    plain = alone()
    assert torch.equal(plain.mixing, eye) and not plain.offset.any()
    gain = alone(gain=0.5)
    assert (gain.mixing[eye.bool()] > 0).all() and not gain.mixing[~eye.bool()].any()
    assert 0.4 < gain.mixing[eye.bool()].log().std() < 0.6 and not gain.offset.any()
    offset = alone(offset=0.5)
    assert torch.equal(offset.mixing, eye) and 0.4 < offset.offset.std() < 0.6
    mix = alone(mix=0.5).mixing
    assert torch.equal(mix[eye.bool()], torch.ones(192)) and mix[~eye.bool()].std() > 0.1
    grey = alone(grey_probability=1.0)
    assert torch.allclose(grey.mixing, torch.tensor(1 / 3)) and not grey.offset.any()
    dropped = alone(drop_probability=1.0)
    assert not dropped.mixing.any() and not dropped.offset.any()


def test_haze_takes_from_the_signal_what_it_adds_to_all_bands() -> None:
    haze = draw(ViewConfig(size_px=16, **(STILL | {"haze": 0.6})))
    left = haze.mixing.diagonal(dim1=1, dim2=2)
    assert torch.allclose(left, left[:, :1]) and left.min() >= 0.4 - 1e-6 and left.max() == 1
    assert torch.allclose(haze.offset, haze.offset[:, :1])
    is_hazy = left[:, 0] < 1
    light = haze.offset[is_hazy, 0] / (1 - left[is_hazy, 0])
    assert 8 < is_hazy.sum() < 56 and torch.allclose(light, light[0]) and light[0] > 0
    assert not haze.offset[~is_hazy].any()


def blur_plainly(view: np.ndarray, sigma: float) -> np.ndarray:
    """Weighted means by loops, over what lies inside the view."""
    height, width = view.shape[1:]
    found = np.zeros_like(view)
    for i, j in itertools.product(range(height), range(width)):
        total = 0.0
        for y, x in itertools.product(range(height), range(width)):
            weight = math.exp(-((y - i) ** 2 + (x - j) ** 2) / (2 * sigma**2))
            found[:, i, j] += weight * view[:, y, x]
            total += weight
        found[:, i, j] /= total
    return found


@pytest.mark.parametrize("autocast", [False, True])
def test_the_blur_is_that_of_the_loops(autocast: bool) -> None:
    random = np.random.default_rng(0)
    tiles = random.normal(size=(3, 2, 12, 12)).astype(np.float32)
    still = torch.tensor([[1.0, 0, 0], [0, 1.0, 0]]).expand(3, -1, -1)
    sigma = torch.tensor([0.0, 0.6, 2.5])
    given = ViewParameters(still, torch.eye(2).expand(3, -1, -1), torch.zeros(3, 2), sigma)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = render_views(torch.from_numpy(tiles), given, 12).numpy()
    assert np.allclose(found[0], tiles[0], atol=1e-5)
    for number in (1, 2):
        expected = blur_plainly(tiles[number].astype(np.float64), float(sigma[number]))
        assert np.allclose(found[number], expected, atol=1e-5)


def test_a_share_of_the_views_is_blurred_and_the_rest_of_them_stays_the_same() -> None:
    sharp = draw(ViewConfig(), 400)
    blurred = draw(ViewConfig(blur_probability=0.5, max_blur_px=2.0), 400)
    is_blurred = blurred.blur > 0
    assert not sharp.blur.any() and 150 < is_blurred.sum() < 250
    assert blurred.blur[is_blurred].min() >= 0.2 and blurred.blur.max() <= 2
    for name in ("spatial", "mixing", "offset"):
        assert torch.equal(getattr(sharp, name), getattr(blurred, name))


def test_a_batch_is_rendered_as_its_tiles_are_one_by_one() -> None:
    random = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 250, (4, 3, 48, 48), generator=random).to(torch.uint16)
    valid = torch.rand(4, 48, 48, generator=random) > 0.1
    parameters = draw(ViewConfig(size_px=16, blur_probability=0.5), 4, tile_px=(48, 48))
    for n in (1, 4):
        centre, spread = torch.full((n, 3, 1, 1), 125.0), torch.full((n, 3, 1, 1), 40.0)
        centre += torch.arange(n)[:, None, None, None]
        found = render_tiles(pixels, valid, centre, spread, parameters, 16)
        tiles = (pixels.float() - centre) / spread * valid[:, None]
        assert torch.allclose(found, render_views(tiles, parameters, 16), atol=1e-3)
        last = slice(3, 4)
        own = last if n > 1 else slice(None)
        alone = render_tiles(
            pixels[last], valid[last], centre[own], spread[own], parameters.take(last), 16
        )
        assert torch.equal(alone, found[last])


def test_two_ranks_draw_what_one_device_draws() -> None:
    config = ViewConfig(blur_probability=0.5)
    whole = draw(config)
    halves = [draw(config, samples=slice(a, a + 32)) for a in (0, 32)]
    for name in ("spatial", "mixing", "offset", "blur"):
        parts = torch.cat([getattr(half, name) for half in halves])
        assert torch.equal(getattr(whole, name), parts), name


@pytest.mark.parametrize("key", [{"seed": 4}, {"step": 6}, {"view": 1}])
def test_another_key_draws_other_views(key: dict[str, int]) -> None:
    config = ViewConfig(blur_probability=1.0)
    first, again, other = (draw(config, tile_px=(256, 256), **k) for k in ({}, {}, key))
    for name in ("spatial", "mixing", "offset", "blur"):
        assert torch.equal(getattr(first, name), getattr(again, name))
        differs = getattr(first, name) != getattr(other, name)
        differs = differs.reshape(64, -1).any(1)
        assert differs.float().mean() > 0.9, name


def test_both_views_lie_around_one_place() -> None:
    config = ViewConfig(**(STILL | {"size_px": 8, "max_shift": 0.25}))
    places = [draw(config, tile_px=(64, 64), view=view).spatial[:, :, 2] for view in (0, 1)]
    # Each may be shifted by a quarter of a view, and a view is an eighth of the tile.
    assert (places[0] - places[1]).abs().max() <= 2 * 0.25 * 8 / 64 + 1e-6
    assert places[0].std() > 0.2


@pytest.mark.parametrize(
    "wrong",
    [
        {"size_px": 4},
        {"min_zoom": 0.0},
        {"min_zoom": 2.0, "max_zoom": 1.0},
        {"blur_probability": 1.5},
        {"max_blur_px": 0.0},
    ],
)
def test_unusable_views_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="views need"):
        ViewConfig(**wrong)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int16])
@pytest.mark.parametrize("tile_px", [(64, 64), (48, 80), (12, 12)], ids=str)
def test_windows_show_what_the_whole_tiles_show(
    dtype: torch.dtype, tile_px: tuple[int, int]
) -> None:
    random = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 250, (32, 3, *tile_px), generator=random).to(dtype)
    valid = torch.rand(32, *tile_px, generator=random) > 0.1
    parameters = draw(ViewConfig(size_px=16), 32, tile_px=tile_px)
    whole = render_views(pixels.float() * valid[:, None], parameters, 16)
    windows, mask, moved = cut_windows(pixels, valid, parameters)
    assert windows.dtype == dtype and windows.shape[2:] == mask.shape[1:]
    assert windows[0].numel() <= pixels[0].numel()
    found = render_views(windows.float() * mask[:, None], moved, 16)
    assert (found - whole).abs().max() < 0.05


def normalizer(per_tile: bool) -> Encoder:
    kind = Normalization.tile if per_tile else Normalization.archive
    contract = Contract(
        bands=("red", "green", "blue"), dtype="uint16", units="digital number", scale=1.0,
        offset=0.0, valid_range=(0.0, 65535.0), gsd_m=None, mean=(100.0,) * 3, std=(25.0,) * 3,
    )  # fmt: skip
    return Encoder(EncoderConfig(backbone="resnet10t", width=0.125, normalization=kind), contract)


@pytest.mark.parametrize("per_tile", [False, True])
def test_invalid_pixels_become_zero_and_do_not_count(per_tile: bool) -> None:
    random = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 200, (2, 3, 16, 16), generator=random)
    valid = torch.rand(2, 16, 16, generator=random) > 0.3
    encoder = normalizer(per_tile)
    found = encoder.normalize(pixels.to(torch.uint16), valid)
    assert (found * ~valid[:, None] == 0).all() and (found != 0).any()
    spoilt = torch.where(valid[:, None], pixels, 60_000).to(torch.uint16)
    assert torch.equal(encoder.normalize(spoilt, valid), found)


def test_archive_normalisation_uses_the_contract() -> None:
    pixels = torch.full((1, 3, 8, 8), 150, dtype=torch.uint16)
    assert torch.equal(normalizer(False).normalize(pixels), torch.full((1, 3, 8, 8), 2.0))


def test_a_wholly_invalid_or_flat_tile_stays_finite() -> None:
    encoder = normalizer(True)
    encoder.std.zero_()
    flat = torch.full((1, 3, 8, 8), 7, dtype=torch.uint16)
    for valid in (torch.zeros(1, 8, 8, dtype=torch.bool), torch.ones(1, 8, 8, dtype=torch.bool)):
        found = encoder.normalize(flat, valid)
        assert torch.equal(found, torch.zeros_like(found))


TILE = torch.from_numpy(np.random.default_rng(0).normal(120, 25, (1, 3, 16, 16))).clamp(1).long()
GAINS = st.lists(st.integers(1, 50), min_size=3, max_size=3)
OFFSETS = st.lists(st.integers(0, 5000), min_size=3, max_size=3)


def render(gain: list[int], offset: list[int]) -> torch.Tensor:
    factor, shift = (torch.tensor(v)[None, :, None, None] for v in (gain, offset))
    return (TILE * factor + shift).to(torch.uint16)


@settings(max_examples=40)
@given(gain=GAINS, offset=OFFSETS)
def test_per_tile_normalisation_removes_any_positive_affine(
    gain: list[int], offset: list[int]
) -> None:
    """What remains of a gain is a factor near 1: flat tiles must not have their noise blown up."""
    tile = TILE.float()
    standard = (tile - tile.mean((2, 3), keepdim=True)) / tile.std(
        (2, 3), keepdim=True, correction=0
    )
    found = normalizer(True).normalize(render(gain, offset))
    scale = (found * standard).mean((2, 3), keepdim=True)
    assert torch.allclose(found, standard * scale, atol=5e-3)
    assert (scale > 0.9).all() and (scale < 1.001).all()


@settings(max_examples=40)
@given(gain=GAINS, offset=OFFSETS, per_tile=st.booleans())
def test_another_radiometry_of_the_whole_archive_changes_nothing(
    gain: list[int], offset: list[int], per_tile: bool
) -> None:
    encoder = normalizer(per_tile)
    expected = encoder.normalize(render([1, 1, 1], [0, 0, 0]))
    encoder.mean.mul_(torch.tensor(gain)).add_(torch.tensor(offset))
    encoder.std.mul_(torch.tensor(gain))
    assert torch.allclose(encoder.normalize(render(gain, offset)), expected, atol=5e-3)
