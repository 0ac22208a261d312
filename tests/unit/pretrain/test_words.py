"""Words: the nearest patch of a dictionary, counted over what is valid."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ecofm.errors import EcofmError
from ecofm.pretrain.encoders import Encoder, EncoderConfig
from ecofm.pretrain.words import FLOOR, PATCH_PX, STRIDE_PX, Words, fit_words, sample_patches
from ecofm.tiles.archive import open_archive


def draw(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def all_valid(images: Tensor) -> Tensor:
    return torch.ones_like(images[:, 0], dtype=torch.bool)


@pytest.fixture
def fitted() -> Words:
    words = Words(2, 8)
    fit_words(words, draw((2000, 2, PATCH_PX, PATCH_PX)), seed=0)
    return words


def test_each_patch_counts_for_the_nearest_centre(fitted: Words) -> None:
    """Brute force: the k-means of the same whitened patches, one distance at a time."""
    patches = draw((2000, 2, PATCH_PX, PATCH_PX))
    flat = (patches - patches.mean(dim=(2, 3), keepdim=True)).flatten(1).double()
    mean = flat.mean(dim=0)
    values, vectors = torch.linalg.eigh(torch.cov((flat - mean).T))
    kept = values > 1e-6 * values.amax()
    whitening = vectors[:, kept] * (values[kept] + 0.1 * values[kept].mean()).rsqrt()
    image = draw((1, 2, 21, 17), seed=1)
    windows = image[0].unfold(1, PATCH_PX, STRIDE_PX).unfold(2, PATCH_PX, STRIDE_PX)
    seen = windows.permute(1, 2, 0, 3, 4).reshape(-1, 2, PATCH_PX, PATCH_PX)
    seen = (seen - seen.mean(dim=(2, 3), keepdim=True)).flatten(1).double()
    white = (seen - mean) @ whitening
    # The centres come back from filters and bias, which hold nothing else.
    centres = torch.linalg.lstsq(whitening, fitted.filters.flatten(1).double().T).solution.T
    nearest = torch.cdist(white, centres).argmin(dim=1)
    expected = torch.bincount(nearest, minlength=8) / len(nearest)
    found = fitted(image, all_valid(image))[0].exp() - FLOOR
    assert torch.allclose(found, expected.float(), atol=1e-6)


def test_shares_add_up_to_one(fitted: Words) -> None:
    images = draw((5, 2, 32, 48))
    shares = fitted(images, all_valid(images)).exp() - FLOOR
    assert torch.allclose(shares.sum(dim=1), torch.ones(5), atol=1e-4)


def test_a_constant_in_a_band_changes_nothing(fitted: Words) -> None:
    """Haze and offsets add a constant to each band."""
    images = draw((2, 2, 32, 32))
    moved = images + torch.tensor([0.7, -1.3])[:, None, None]
    assert torch.allclose(fitted(images, all_valid(images)), fitted(moved, all_valid(images)))


def test_invalid_pixels_do_not_count(fitted: Words) -> None:
    images = draw((1, 2, 32, 32))
    valid = all_valid(images)
    valid[:, :, 11:] = False
    spoiled = images.clone()
    spoiled[:, :, :, 11:] = 50
    assert torch.equal(fitted(images, valid), fitted(spoiled, valid))
    assert not torch.equal(fitted(images, all_valid(images)), fitted(images, valid))


def test_a_tile_without_a_valid_pixel_has_finite_words(fitted: Words) -> None:
    images = draw((1, 2, 32, 32))
    assert fitted(images, ~all_valid(images)).isfinite().all()


def test_rare_things_are_heard(fitted: Words) -> None:
    """Twice as much of something rare moves its word as far as twice as much of a common thing."""
    words = Words(1, 2)
    words.filters.zero_()
    words.filters[1, 0, 1, 1] = 1.0
    found = []
    for n_bright in (4, 8):
        image = torch.zeros(1, 1, 201, 201)
        image.view(-1)[1 * 201 + 1 : 1 * 201 + 1 + 2 * n_bright : 2] = 1.0
        found.append(words(image, all_valid(image))[0, 1])
    assert 0.4 < float(found[1] - found[0]) <= np.log(2) + 1e-6


def test_fitting_is_deterministic_and_depends_on_the_seed() -> None:
    patches = draw((500, 2, PATCH_PX, PATCH_PX))
    dictionaries = []
    for seed in (0, 0, 1):
        words = Words(2, 8)
        fit_words(words, patches, seed=seed)
        dictionaries.append(words.filters)
    assert torch.equal(dictionaries[0], dictionaries[1])
    assert not torch.equal(dictionaries[0], dictionaries[2])


def test_patches_come_from_what_is_valid(make_archive: Callable[..., Path], tmp_path: Path) -> None:
    archive = open_archive(make_archive(tmp_path / "archive"))

    def spoil(pixels: Tensor, valid: Tensor) -> Tensor:
        return torch.where(valid[:, None], pixels.float(), torch.tensor(1e9))

    patches = sample_patches([archive, archive], spoil, seed=0, n_tiles=5, n_patches=100)
    assert patches.shape == (100, len(archive.contract.bands), PATCH_PX, PATCH_PX)
    assert patches.max() < 1e6
    again = sample_patches([archive, archive], spoil, seed=0, n_tiles=5, n_patches=100)
    assert torch.equal(patches, again)


def test_fewer_patches_than_words_are_refused() -> None:
    with pytest.raises(EcofmError, match="hold 7 whole patches of 3 px, fewer than the 8 words"):
        fit_words(Words(2, 8), draw((7, 2, PATCH_PX, PATCH_PX)), seed=0)


def test_an_encoder_learns_its_words_from_archives(
    make_archive: Callable[..., Path], tmp_path: Path
) -> None:
    archive = open_archive(make_archive(tmp_path / "archive"))
    config = EncoderConfig(backbone="resnet10t", width=0.125, words=16)
    encoder = Encoder(config, archive.contract).eval()
    assert encoder.words is not None
    random = encoder.words.filters.clone()
    encoder.fit_words([archive], seed=0)
    assert not torch.equal(encoder.words.filters, random)
    pixels, valid = (torch.from_numpy(array)[None] for array in archive.read(0))
    assert encoder(pixels, valid).shape == (1, encoder.dim) == (1, encoder.backbone_dim + 16)


def test_no_words_leave_the_backbone_alone(
    make_archive: Callable[..., Path], tmp_path: Path
) -> None:
    archive = open_archive(make_archive(tmp_path / "archive"))
    config = EncoderConfig(backbone="resnet10t", width=0.125, words=0)
    encoder = Encoder(config, archive.contract)
    assert encoder.words is None and encoder.dim == encoder.backbone_dim
    encoder.fit_words([archive], seed=0)
    with pytest.raises(ValueError, match="words 1: expected 0, or 2 and more"):
        Encoder(EncoderConfig(backbone="resnet10t", width=0.125, words=1), archive.contract)
