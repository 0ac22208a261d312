"""Tensors and arrays from disk: what their header promises is judged before it is read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tokenize import TokenError

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ecofm.errors import ArtifactError

Header = dict[str, tuple[str, tuple[int, ...]]]
"""The number type and shape of each tensor by its name, as safetensors writes them."""
DTYPES = {"torch.float32": "F32", "torch.float64": "F64", "torch.int64": "I64"}


def read_header(path: Path) -> Header:
    """Return what a safetensors file holds, without reading it; raises ArtifactError."""
    if not path.is_file():
        found = "is no file" if path.exists() else "does not exist"
        raise ArtifactError(f"{path} {found}, expected weights.")
    try:
        with safe_open(str(path), framework="pt") as file:
            parts = {name: file.get_slice(name) for name in file.keys()}
            return {
                name: (str(part.get_dtype()), tuple(part.get_shape()))
                for name, part in parts.items()
            }
    except (OSError, SafetensorError) as error:
        raise ArtifactError(f"{path} cannot be read as safetensors ({error}).") from error


def require_header(path: Path, wanted: Mapping[str, Tensor]) -> None:
    """Raise ArtifactError unless a file holds tensors of these names, types and shapes.

    `wanted` may lie on the meta device, where they take no memory.
    """
    found = read_header(path)
    expected = {
        name: (DTYPES.get(str(value.dtype), "another type"), tuple(value.shape))
        for name, value in wanted.items()
    }
    for name in sorted(found.keys() | expected.keys()):
        if found.get(name) != expected.get(name):
            raise ArtifactError(
                f"{path} has {name[:80]!r} {_describe(found.get(name))}, expected "
                f"{_describe(expected.get(name))}."
            )


def _describe(part: tuple[str, tuple[int, ...]] | None) -> str:
    return "absent" if part is None else f"as {part[0]} of shape {list(part[1])}"


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file; raises ArtifactError for one that is not finite."""
    header = read_header(path)
    for name, (dtype, _) in header.items():
        if dtype not in DTYPES.values():
            raise ArtifactError(f"{path} has {name[:80]!r} as {dtype}, expected F32 or F64.")
    with safe_open(str(path), framework="pt") as file:
        found = {name: file.get_tensor(name) for name in header}
    for name, value in found.items():
        require_finite_tensor(value, f"{path} has {name[:80]!r} with")
    return found


def require_finite_tensor(value: Tensor, what: str) -> None:
    """Raise ArtifactError for a number that is not finite, or a variance below 0."""
    if not value.numel():
        return
    if value.is_floating_point() and not all(part.isfinite() for part in value.aminmax()):
        raise ArtifactError(f"{what} numbers that are not finite.")
    if "running_var" in what and value.min() < 0:
        raise ArtifactError(f"{what} numbers below 0, expected variances.")


def map_array(path: Path) -> npt.NDArray[np.generic]:
    """Return a memory map of a `.npy` file; raises ArtifactError for anything else.

    `numpy.load` would open archives and pickles under this name too.
    """
    try:
        if not path.is_file():
            raise ValueError("it is no file" if path.exists() else "it does not exist")
        with np.errstate(all="raise"):  # a shape beyond count would wrap round
            found: npt.NDArray[np.generic] = np.lib.format.open_memmap(path, mode="r")
    # TokenError: numpy reads the header as Python.
    except (
        OSError, ValueError, EOFError, ArithmeticError, MemoryError, TypeError, TokenError
    ) as error:  # fmt: skip
        reason = " ".join(str(error).split())[:200]
        raise ArtifactError(f"{path} cannot be read as an array ({reason}).") from error
    return found
