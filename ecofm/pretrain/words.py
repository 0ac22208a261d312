"""Words: a dictionary of small patches at full resolution, and the share of a tile that each takes.

What tells places apart is often rare and small: a few modern roofs, a paved road. The mean of a
feature over the tile drowns it; the logarithm of the share of the pixels that look like one word
does not. The dictionary is k-means on whitened patches without their mean (Coates, Lee & Ng 2011,
*An analysis of single-layer networks in unsupervised feature learning*), fitted to the archive
before the contrast begins. Patches lose their mean because haze and offsets add a constant.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ecofm.errors import EcofmError
from ecofm.kmeans import fit_centres
from ecofm.tiles.archive import Archive, TileError, find_tile

PATCH_PX = 3
STRIDE_PX = 2  # a quarter of the pixels tells the shares as well as all of them
FLOOR = 2e-4  # a share of about three pixels in a tile
SAMPLE_TILES = 600
SAMPLE_PATCHES = 48_000
ITERATIONS = 25
BATCH_TILES = 4  # (tile, word, height, width) in memory at once
WHITENING = 0.1  # of the mean variance is added, so that noise is not blown up


class Words(nn.Module):
    """Normalised images to the log share of each word; random until `fit_words` has been called."""

    filters: Tensor
    bias: Tensor

    def __init__(self, n_bands: int, n_words: int) -> None:
        """Draw a random dictionary of `n_words` patches."""
        super().__init__()
        filters = torch.randn(n_words, n_bands, PATCH_PX, PATCH_PX)
        self.register_buffer("filters", filters - filters.mean(dim=(2, 3), keepdim=True))
        self.register_buffer("bias", torch.zeros(n_words))

    @property
    def n_words(self) -> int:
        """Number of words."""
        return len(self.bias)

    def forward(
        self,
        images: Float[Tensor, "batch band height width"],
        valid: Bool[Tensor, "batch height width"],
    ) -> Float[Tensor, "batch word"]:
        """Return the log share of each word among the patches without an invalid pixel."""
        starts = range(0, len(images), BATCH_TILES)
        parts = [slice(start, start + BATCH_TILES) for start in starts]
        return torch.cat([self._count(images[part], valid[part]) for part in parts])

    def _count(self, images: Tensor, valid: Tensor) -> Tensor:
        likeness = F.conv2d(images.float(), self.filters, self.bias, stride=STRIDE_PX)
        nearest = likeness.argmax(dim=1).flatten(1)
        whole = -F.max_pool2d(-valid[:, None].float(), PATCH_PX, STRIDE_PX).flatten(1)
        counts = likeness.new_zeros(len(images), self.n_words).scatter_add_(1, nearest, whole)
        return (counts / whole.sum(dim=1, keepdim=True).clamp(min=1) + FLOOR).log()


@torch.no_grad()
def fit_words(words: Words, patches: Float[Tensor, "patch band side side"], *, seed: int) -> None:
    """Replace the dictionary by the k-means centres of whitened patches.

    Raises EcofmError when there are fewer patches than words.
    """
    if len(patches) < words.n_words:
        raise EcofmError(
            f"the archives hold {len(patches)} whole patches of {PATCH_PX} px, fewer than the "
            f"{words.n_words} words of the dictionary; give encoder.words=0, or more tiles."
        )
    flat = (patches - patches.mean(dim=(2, 3), keepdim=True)).flatten(1).double()
    mean = flat.mean(dim=0)
    values, vectors = torch.linalg.eigh(torch.cov((flat - mean).T))
    kept = values > 1e-6 * values.amax()
    whitening = vectors[:, kept] * (values[kept] + WHITENING * values[kept].mean()).rsqrt()
    white = (flat - mean) @ whitening
    centres = fit_centres(white.float().numpy(), words.n_words, seed=seed, iterations=ITERATIONS)
    directions = whitening @ torch.from_numpy(centres).double().T
    # The nearest centre has the largest x.c - |c|^2 / 2, which is one convolution.
    words.bias.copy_(-(mean @ directions) - torch.from_numpy(centres).double().square().sum(1) / 2)
    filters = directions.T.reshape(words.filters.shape)
    words.filters.copy_(filters - filters.mean(dim=(2, 3), keepdim=True))


def sample_patches(
    archives: Sequence[Archive],
    normalize: Callable[[Tensor, Tensor], Tensor],
    *,
    seed: int,
    n_tiles: int = SAMPLE_TILES,
    n_patches: int = SAMPLE_PATCHES,
) -> Float[Tensor, "patch band side side"]:
    """Return `n_patches` random patches without an invalid pixel, from random tiles.

    `normalize` takes stored pixels (1, band, height, width) and valid (1, height, width). Damaged
    tiles are passed over, since the loader names them.
    """
    random = np.random.default_rng(seed)
    n_held = sum(archive.n_tiles for archive in archives)
    chosen = np.sort(random.permutation(n_held)[:n_tiles])
    patches = []
    for tile in chosen.tolist():
        archive, place = find_tile(archives, tile)
        try:
            pixels, valid = archive.read(place)
        except TileError:
            continue
        known = torch.from_numpy(valid)[None]
        image = normalize(torch.from_numpy(pixels)[None], known)
        patches.append(_cut(image, known, -(-n_patches // len(chosen)), random))
    return torch.cat(patches) if patches else torch.empty(0, 1, PATCH_PX, PATCH_PX)


def _cut(image: Tensor, valid: Tensor, count: int, random: np.random.Generator) -> Tensor:
    whole = -F.max_pool2d(-valid[:, None].float(), PATCH_PX, 1)[0, 0]
    rows, columns = whole.nonzero(as_tuple=True)
    drawn = torch.from_numpy(random.permutation(len(rows))[:count])
    windows = image[0].unfold(1, PATCH_PX, 1).unfold(2, PATCH_PX, 1)
    return windows[:, rows[drawn], columns[drawn]].movedim(0, 1)
