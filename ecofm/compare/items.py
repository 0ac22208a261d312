"""What the web app shows: the items of an archive or of clusters, and their pictures."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from ecofm.artifact import read_manifest
from ecofm.compare.comparison import normalize_item
from ecofm.errors import ArtifactError

if TYPE_CHECKING:
    from ecofm.tiles.archive import Archive
    from ecofm.types import Contract


@runtime_checkable
class ItemSource(Protocol):
    """Items and their pictures; pictures are named by whole numbers from 0 and by nothing else."""

    @property
    def items(self) -> list[str]:
        """Normalised names, each once."""

    def members(self, item: int) -> list[int]:
        """Return the numbers of the pictures that show `items[item]`."""

    def image(self, number: int) -> bytes:
        """Return a picture as PNG or JPEG; raises IndexError when there is no such number."""


def check_items(names: list[str], path: Path) -> list[str]:
    """Return the normalised names.

    Raises ArtifactError when two of them are the same item, or there are fewer than two.
    """
    items = [normalize_item(name) for name in names]
    ((twice, n_times),) = Counter(items).most_common(1) or [("", 0)]
    if n_times > 1:
        raise ArtifactError(f"{path} names item {twice!r} {n_times} times; make it again.")
    if len(items) < 2:
        raise ArtifactError(
            f"{path} has {len(items)} item(s), expected at least two; give a larger one."
        )
    return items


class ClusterSheets:
    """Clusters, each shown by the contact sheet of exemplars that `ecofm cluster` wrote."""

    def __init__(self, path: Path) -> None:
        """Find the sheets; raises ArtifactError when the folder is not clusters or lacks one."""
        import pandas as pd

        read_manifest(path, "clusters")
        try:
            table = pd.read_parquet(path / "clusters.parquet", columns=["item"])
        except (OSError, ValueError) as error:
            raise ArtifactError(
                f"{path / 'clusters.parquet'} cannot be read ({error}); make it again with "
                "`ecofm cluster`."
            ) from error
        names = sorted(str(name) for name in table["item"].unique())
        self.items = check_items(names, path)
        self._sheets = [path / "exemplars" / f"{name}.png" for name in names]
        for name, sheet in zip(names, self._sheets, strict=True):
            # The names come from the artifact, but even they must not lead out of it.
            if Path(name).name != name or not sheet.is_file():
                raise ArtifactError(
                    f"{path} has no exemplars/{name}.png for item {name!r}; make the clusters "
                    "again with `ecofm cluster --archive DIR`."
                )

    def members(self, item: int) -> list[int]:
        """Return the one sheet of the cluster."""
        return [item]

    def image(self, number: int) -> bytes:
        """Return a sheet."""
        return self._sheets[number].read_bytes()


class ArchiveTiles:
    """The tiles of an archive, in true colour and with one contrast stretch for all of them."""

    def __init__(self, path: Path) -> None:
        """Open the archive; raises ArtifactError when it is none."""
        from ecofm.tiles.archive import open_archive

        self._archive: Archive = open_archive(path)
        self.items = check_items([str(name) for name in self._archive.index["tile_id"]], path)

    def members(self, item: int) -> list[int]:
        """Return the tile itself."""
        return [item]

    def image(self, number: int) -> bytes:
        """Return a tile."""
        if number >= len(self.items):
            raise IndexError(number)
        pixels, valid = self._archive.read(number)
        return draw_tile(pixels, valid, self._archive.contract)


def draw_tile(
    pixels: npt.NDArray[np.generic], valid: npt.NDArray[np.bool_], contract: Contract
) -> bytes:
    """Return the PNG of a tile's true colours, grey where not valid.

    `pixels` is (band, height, width) in stored numbers, `valid` (height, width). uint8 is shown as
    it is. Other types are stretched from two standard deviations of the archive below its mean to
    three above, over the three bands together: the same for every tile, so that a bright place
    stays brighter than a dark one, and hues are kept.
    """
    from PIL import Image

    bands = list(contract.true_colour())
    colours = pixels[bands].astype(np.float32)
    if contract.dtype != "uint8":
        low = min(contract.mean[band] - 2 * contract.std[band] for band in bands)
        high = max(contract.mean[band] + 3 * contract.std[band] for band in bands)
        colours = (colours - low) * (255 / max(high - low, 1e-6))
    colours = np.where(valid, np.clip(colours, 0, 255), 128).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(np.moveaxis(colours, 0, -1)).save(file, format="PNG", compress_level=1)
    return file.getvalue()
