"""A Triton kernel that makes views of stored pixels in one pass over a GPU's memory.

What rendering does one after another, converting, normalising, masking, sampling and mixing, reads
and writes each tile ten times over. Here each pixel of a view gathers its four neighbours as they
are stored.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK_PX = 16
"""Side of the squares that a program makes: their footprints stay compact under quarter turns."""


def sample_tiles(
    pixels: Tensor,
    valid: Tensor,
    centre: Tensor,
    spread: Tensor,
    affine: tuple[Tensor, Tensor, Tensor],
    size_px: int,
) -> Tensor:
    """Return views (batch, band, size, size), channels innermost, as `render_views` describes them.

    `pixels` (batch, band, height, width) and `valid` (batch, height, width) are as stored, `centre`
    and `spread` (n, band, 1, 1) with n batch or 1; `affine` are the `spatial`, `mixing` and
    `offset` of the views' parameters on the same device.
    """
    n, n_bands, height, width = pixels.shape
    views = torch.empty(n, size_px, size_px, n_bands, device=pixels.device)
    is_uint16 = pixels.dtype == torch.uint16
    spatial, mixing, offset = (part.contiguous() for part in affine)
    centre, spread = (part.expand(n, -1, 1, 1).contiguous() for part in (centre, spread))
    n_blocks = triton.cdiv(size_px, BLOCK_PX)
    _sample[(n, n_blocks, n_blocks)](
        (pixels.view(torch.int16) if is_uint16 else pixels).contiguous(),
        valid.view(torch.uint8).contiguous(),
        centre, spread, spatial, mixing, offset, views,
        height, width, size_px,
        N_BANDS=n_bands, ROWS=triton.next_power_of_2(n_bands), IS_UINT16=is_uint16, BLOCK=BLOCK_PX,
    )  # fmt: skip
    return views.permute(0, 3, 1, 2)


@triton.jit
def _reflect(place, size):  # type: ignore[no-untyped-def]
    """Return a place inside the tile, reflected at its edges: from -.5 to size - .5."""
    span = size.to(tl.float32)
    far = tl.abs(place + 0.5)
    turns = tl.floor(far / span)
    rest = far - turns * span
    is_odd = (turns - 2 * tl.floor(turns / 2)) > 0.5
    inside = tl.where(is_odd, span - rest, rest) - 0.5
    return tl.minimum(tl.maximum(inside, 0.0), span - 1)


@triton.jit
def _sample(  # type: ignore[no-untyped-def]
    pixels, valid, centre, spread, spatial, mixing, offset, views,
    height, width, size_px,
    N_BANDS: tl.constexpr, ROWS: tl.constexpr, IS_UINT16: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Make one square of one view."""
    tile = tl.program_id(0).to(tl.int64)
    inside = tl.arange(0, BLOCK * BLOCK)
    row = tl.program_id(1) * BLOCK + inside // BLOCK
    column = tl.program_id(2) * BLOCK + inside % BLOCK
    is_here = (row < size_px) & (column < size_px)
    across = (2 * column + 1).to(tl.float32) / size_px - 1
    down = (2 * row + 1).to(tl.float32) / size_px - 1
    matrix = spatial + tile * 6
    x = tl.load(matrix) * across + (tl.load(matrix + 1) * down + tl.load(matrix + 2))
    y = tl.load(matrix + 3) * across + (tl.load(matrix + 4) * down + tl.load(matrix + 5))
    x = _reflect(((x + 1) * width - 1) / 2, width)
    y = _reflect(((y + 1) * height - 1) / 2, height)
    left, top = tl.floor(x), tl.floor(y)
    right_share, bottom_share = x - left, y - top
    x0, y0 = left.to(tl.int32), top.to(tl.int32)
    x1, y1 = tl.minimum(x0 + 1, width - 1), tl.minimum(y0 + 1, height - 1)
    a, b, c, d = y0 * width + x0, y0 * width + x1, y1 * width + x0, y1 * width + x1
    mask = valid + tile * height * width
    share_a = (1 - bottom_share) * (1 - right_share)
    share_b = (1 - bottom_share) * right_share
    share_c = bottom_share * (1 - right_share)
    share_d = bottom_share * right_share
    share_a *= tl.load(mask + a, mask=is_here, other=0).to(tl.float32)
    share_b *= tl.load(mask + b, mask=is_here, other=0).to(tl.float32)
    share_c *= tl.load(mask + c, mask=is_here, other=0).to(tl.float32)
    share_d *= tl.load(mask + d, mask=is_here, other=0).to(tl.float32)
    known = share_a + share_b + share_c + share_d
    bands = tl.arange(0, ROWS)
    is_band = bands < N_BANDS
    start = tl.load(offset + tile * N_BANDS + bands, mask=is_band, other=0.0)
    mixed = tl.zeros((BLOCK * BLOCK, ROWS), tl.float32) + start[None, :]
    for band in range(N_BANDS):
        plane = pixels + (tile * N_BANDS + band) * height * width
        value_a = tl.load(plane + a, mask=is_here, other=0).to(tl.int32)
        value_b = tl.load(plane + b, mask=is_here, other=0).to(tl.int32)
        value_c = tl.load(plane + c, mask=is_here, other=0).to(tl.int32)
        value_d = tl.load(plane + d, mask=is_here, other=0).to(tl.int32)
        if IS_UINT16:
            value_a, value_b = value_a & 0xFFFF, value_b & 0xFFFF
            value_c, value_d = value_c & 0xFFFF, value_d & 0xFFFF
        middle = tl.load(centre + tile * N_BANDS + band)
        unit = tl.load(spread + tile * N_BANDS + band)
        sampled = value_a.to(tl.float32) * share_a + value_b.to(tl.float32) * share_b
        sampled += value_c.to(tl.float32) * share_c + value_d.to(tl.float32) * share_d
        sampled = (sampled - middle * known) / unit
        weights = mixing + (tile * N_BANDS + bands) * N_BANDS + band
        weight = tl.load(weights, mask=is_band, other=0.0)
        mixed += sampled[:, None] * weight[None, :]
    place = ((tile * size_px + row) * size_px + column) * N_BANDS
    tl.store(
        views + place[:, None] + bands[None, :], mixed, mask=is_here[:, None] & is_band[None, :]
    )
