"""Words that several stages share: the radiometric contract, and what a stage left out."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from ecofm.errors import ContractError, UsageError
from ecofm.escaping import for_terminal, visible
from ecofm.fields import read_fields

Progress = Callable[[int, int], None]
"""Called with (done, total) by long work."""

DTYPES = ("uint8", "uint16", "int16")
MIN_STD = 1e-6
"""Stored numbers are whole: a smaller standard deviation is that of a constant."""
TRUE_COLOUR = (("red", "green", "blue"), ("B04", "B03", "B02"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Contract:
    """The radiometric contract: how stored numbers become physical ones.

    It is written by `tile`, and travels with the archive, the encoder and the embeddings.
    """

    bands: tuple[str, ...]
    """Band names in storage order: `B02`..., or `red`, `green`, `blue`."""
    dtype: str
    """numpy name of the stored type: uint8, uint16 or int16."""
    units: str
    """`reflectance` after scale and offset, or `digital number`."""
    scale: float
    """physical = (stored + offset) * scale."""
    offset: float
    """Added to the stored number first; -1000 for Sentinel-2 L2A of baseline 04.00 and later."""
    valid_range: tuple[float, float]
    """Smallest and largest stored number that can be valid."""
    gsd_m: float | None
    """Ground resolution in metres on the grid; None for chips without a place."""
    mean: tuple[float, ...]
    """Mean stored number of each band over valid pixels."""
    std: tuple[float, ...]
    """Standard deviation of each band, in stored numbers."""
    wavelengths_nm: tuple[float | None, ...] = ()
    """Central wavelength of each band, None where the name does not tell; empty when unknown."""

    def require_match(self, other: Contract, this: str, that: str) -> None:
        """Raise ContractError unless bands, dtype, scale and offset agree.

        Mean and std describe the data and are no part of the match.
        """
        fields = ("bands", "dtype", "scale", "offset")
        differing = [name for name in fields if getattr(self, name) != getattr(other, name)]
        if differing:
            mine = ", ".join(f"{name}={getattr(self, name)}" for name in fields)
            theirs = ", ".join(f"{name}={getattr(other, name)}" for name in fields)
            raise ContractError(
                f"{this} and {that} differ in {', '.join(differing)}: {this} has {mine}; "
                f"{that} has {theirs}; tile both with the same bands and number type."
            )

    def warn_of_resolution(self, other: Contract, this: str, that: str) -> None:
        """Say so when two ground resolutions differ by more than 20 %.

        An encoder fed at another resolution than it was trained at falls to chance unnoticed.
        """
        if not self.gsd_m or not other.gsd_m:
            return
        if max(self.gsd_m, other.gsd_m) / min(self.gsd_m, other.gsd_m) > 1.2:
            say(
                f"warning: {this} has a ground resolution of {self.gsd_m:g} m and {that} one of "
                f"{other.gsd_m:g} m; tile {that} to {self.gsd_m:g} m, or train on it."
            )

    def true_colour(self) -> tuple[int, int, int] | None:
        """Return the indices of the red, green and blue bands; None where no name tells them."""
        for names in TRUE_COLOUR:
            if all(name in self.bands for name in names):
                red, green, blue = (self.bands.index(name) for name in names)
                return red, green, blue
        return None

    def to_json(self) -> dict[str, Any]:
        """Return plain lists and numbers for a manifest."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Contract:
        """Read what `to_json` wrote; raises ContractError when it is damaged."""
        try:
            found = read_fields(cls, fields)
            found.require_sense()
        except UsageError as error:
            raise ContractError(f"the radiometric contract is damaged: {error}") from error
        return found

    def require_sense(self) -> None:
        """Raise UsageError for values that cannot describe stored numbers."""
        n_bands = len(self.bands)
        if not n_bands or len(set(self.bands)) != n_bands or not all(map(str.strip, self.bands)):
            raise UsageError(f"bands are {', '.join(self.bands)}, expected a name of its own each.")
        for name in ("mean", "std", "wavelengths_nm"):
            values = getattr(self, name)
            if len(values) != n_bands and (values or name != "wavelengths_nm"):
                raise UsageError(f"{name} has {len(values)} values for {n_bands} bands.")
        if self.dtype not in DTYPES:
            raise UsageError(f"dtype is {self.dtype!r}, expected {' or '.join(DTYPES)}.")
        if self.scale == 0:
            raise UsageError("scale is 0, expected another number.")
        low, high = self.valid_range
        if low > high:
            raise UsageError(f"valid_range is from {low:g} to {high:g}, expected it to rise.")
        limits = np.iinfo(self.dtype)
        for band, mean, std in zip(self.bands, self.mean, self.std, strict=True):
            if not limits.min <= mean <= limits.max or not 0 <= std <= limits.max - limits.min:
                raise UsageError(
                    f"mean {mean:g} and std {std:g} of {band} are not those of {self.dtype}."
                )
        lengths = {"gsd_m": (self.gsd_m,), "wavelengths_nm": self.wavelengths_nm}
        for name, values in lengths.items():
            if any(value is not None and value <= 0 for value in values):
                raise UsageError(f"{name} is {values}, expected more than 0.")

    def require_spread(self) -> None:
        """Raise ContractError for a band without spread, which nothing can be measured against."""
        flat = [band for band, std in zip(self.bands, self.std, strict=True) if std < MIN_STD]
        if flat:
            raise ContractError(
                f"band {', '.join(flat)} has the same number in every pixel (std 0), and an "
                "encoder measures pixels by their spread; tile without it (`ecofm tile --bands`)."
            )


def pool_contracts(contracts: list[Contract], weights: list[int], names: list[str]) -> Contract:
    """Return one contract for archives that are used together, mean and std pooled.

    `weights` are numbers of tiles. Raises ContractError when the archives do not match.
    """
    first = contracts[0]
    for contract, name in zip(contracts[1:], names[1:], strict=True):
        first.require_match(contract, names[0], name)
    share = np.asarray(weights, dtype=np.float64)[:, None] / sum(weights)
    mean = np.array([c.mean for c in contracts])
    square = np.array([c.std for c in contracts]) ** 2 + mean**2
    pooled_mean = (share * mean).sum(axis=0)
    pooled_std = np.sqrt(np.maximum((share * square).sum(axis=0) - pooled_mean**2, 0))
    gsds = [c.gsd_m for c in contracts if c.gsd_m is not None]
    return replace(
        first,
        gsd_m=gsds[0] if gsds else None,
        mean=tuple(float(v) for v in pooled_mean),
        std=tuple(float(v) for v in pooled_std),
    )


def require_seed(seed: int) -> None:
    """Raise UsageError for a seed that not every generator takes: numpy's, torch's, FAISS's."""
    if not 0 <= seed < 2**31:
        raise UsageError(f"seed {seed}: expected 0 to {2**31 - 1}.")


def say(message: str) -> None:
    """Print one line for a person; errors and tables have other ways."""
    print(for_terminal(message), file=sys.stderr, flush=True)


def print_result(text: object, end: str = "\n") -> None:
    """Print what was asked for to standard output, in which names have no power over terminals."""
    print(for_terminal(text, sys.stdout.encoding), end=end)


def progress_bar(label: str) -> Progress:
    """Return a progress callback: a bar on a terminal, about ten plain lines otherwise."""
    if sys.stderr.isatty():
        from tqdm import tqdm

        bar = tqdm(desc=visible(label), unit="step", leave=True)

        def draw(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)
            if done >= total:
                bar.close()

        return draw

    tenths = 0

    def print_tenths(done: int, total: int) -> None:
        nonlocal tenths
        reached = done * 10 // max(total, 1)
        if reached > tenths or done == total:
            tenths = reached
            say(f"{label}: {done}/{total}")

    return print_tenths
