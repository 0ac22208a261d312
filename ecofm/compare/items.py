"""What the web app shows: tiles or clusters of tiles, and their pictures."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from ecofm.artifact import read_manifest
from ecofm.checksums import open_file
from ecofm.compare.comparison import normalize_item
from ecofm.compare.members import read_members
from ecofm.contrast import draw_tile, name_bands, warn_of_names
from ecofm.errors import ArtifactError
from ecofm.meridian import middle_of

if TYPE_CHECKING:
    from ecofm.tiles.archive import Archive
    from ecofm.types import Contract

Ints = npt.NDArray[np.int64]
SHEET_TILES = 9
JPEG_QUALITY = 90
FALSE_COLOUR = (("B08", "B04", "B03"), ("nir", "red", "green"))


class Place(NamedTuple):
    """Where and when a tile is from; shown only if the owner allows."""

    longitude: float | None
    """Degrees east, None for chips."""
    latitude: float | None
    """Degrees north, None for chips."""
    period: str
    """Such as 2019."""


@runtime_checkable
class ItemSource(Protocol):
    """Items and their pictures; pictures are named by whole numbers from 0 and by nothing else."""

    items: list[str]
    """Normalised names, each once."""
    sizes: npt.NDArray[np.float64]
    """How many tiles each item stands for (n_items,)."""
    styles: list[str]
    """How pictures can be drawn: `true`, and `false` where there is near infrared."""
    bands_shown: list[str]
    """The bands that the first style shows in place of true colour; none in true colour."""
    can_shuffle: bool
    """Whether other pictures can stand for an item."""
    are_clusters: bool
    """Whether names say nothing of place and year."""

    def members(self, item: int, draw: int = 0) -> list[int]:
        """Return the numbers of pictures that show `items[item]`; other ones for another draw."""

    def image(self, number: int, style: str = "true") -> tuple[bytes, str]:
        """Return a picture and its media type; raises IndexError when there is no such number."""

    def place(self, item: int) -> Place | None:
        """Return where and when an item is from, None for clusters."""


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


class ExemplarSheets:
    """Clusters without their archive: each has the one sheet that `ecofm cluster` drew."""

    styles: list[str]
    bands_shown: list[str]
    can_shuffle = False
    are_clusters = True

    def __init__(self, path: Path) -> None:
        """Find the sheets; raises ArtifactError when the folder is not clusters or lacks one."""
        sizes = read_members(path)["item"].value_counts()
        names = sorted(sizes.index)
        self.items = check_items(names, path)
        self.sizes = np.asarray(sizes[names], dtype=np.float64)
        self.styles = ["true"]
        # Clusters of before this field do not tell.
        self._manifest = read_manifest(path, "clusters")
        self.bands_shown = list(self._manifest.get("bands_shown", []))
        self._path = path
        self._sheets = [path / "exemplars" / f"{name}.png" for name in names]
        for name, sheet in zip(names, self._sheets, strict=True):
            # The names come from the artifact, but even they must not lead out of it.
            if Path(name).name != name or not sheet.is_file():
                raise ArtifactError(
                    f"{path} has no exemplars/{name}.png for item {name!r}; make the clusters "
                    "again with `ecofm cluster --archive DIR`, or give their --archive."
                )

    def members(self, item: int, draw: int = 0) -> list[int]:
        """Return the one sheet of the cluster."""
        return [item]

    def image(self, number: int, style: str = "true") -> tuple[bytes, str]:
        """Return a sheet."""
        name = self._sheets[number].relative_to(self._path).as_posix()
        return open_file(self._path, self._manifest, name).read_bytes(), "image/png"

    def place(self, item: int) -> Place | None:
        """Return None: a cluster is everywhere."""
        return None


class Tiles:
    """Tiles of one or several archives, drawn with one contrast stretch for all of them."""

    styles: list[str]
    bands_shown: list[str]
    can_shuffle = False
    are_clusters = False

    def __init__(self, paths: Sequence[Path]) -> None:
        """Open the archives; raises ArtifactError or ContractError when they do not fit."""
        from ecofm.tiles.archive import open_archives

        archives, self._contract = open_archives(list(paths))
        self._archives: list[Archive] = archives
        self.tile_ids = [str(name) for archive in archives for name in archive.index["tile_id"]]
        self.styles = ["true", "false"] if false_colour(self._contract) else ["true"]
        self.bands_shown = name_bands(self._contract)
        warn_of_names(self._contract, paths[0])
        self._name_items(paths[0])

    def _name_items(self, path: Path) -> None:
        self.items = check_items(self.tile_ids, path)
        self.sizes = np.ones(len(self.items))

    def members(self, item: int, draw: int = 0) -> list[int]:
        """Return the tile itself."""
        return [item]

    def image(self, number: int, style: str = "true") -> tuple[bytes, str]:
        """Return a tile as JPEG."""
        archive, row = self._find(number)
        pixels, valid = archive.read(row)
        bands = false_colour(self._contract) if style == "false" else None
        return encode(draw_tile(pixels, valid, self._contract, bands)), "image/jpeg"

    def place(self, item: int) -> Place | None:
        """Return the middle of the tile's cell, and its period."""
        archive, row = self._find(item)
        found = archive.index.iloc[row]
        geometry = found["geometry"]
        if geometry is None or geometry.is_empty:
            return Place(None, None, str(found["period"]))
        middle = middle_of(geometry)
        return Place(round(middle.x, 4), round(middle.y, 4), str(found["period"]))

    def _find(self, number: int) -> tuple[Archive, int]:
        from ecofm.tiles.archive import find_tile

        return find_tile(self._archives, number)


class MemberSheets(Tiles):
    """Clusters with their archives: a sheet of nine tiles, the nearest to the centre first."""

    can_shuffle = True
    are_clusters = True

    def __init__(self, paths: Sequence[Path], members: Path) -> None:
        """Open the archives and the members; raises ArtifactError when tiles are missing."""
        self._table = read_members(members)
        self._members_path = members
        super().__init__(paths)

    def _name_items(self, path: Path) -> None:
        rows = dict(zip(self.tile_ids, range(len(self.tile_ids)), strict=True))
        found = self._table["tile_id"].map(rows)
        if found.isna().any():
            missing = self._table["tile_id"][found.isna()]
            raise ArtifactError(
                f"{path} lacks {len(missing)} of the tiles that {self._members_path} names, first "
                f"{missing.iloc[0]}; give every --archive that was embedded."
            )
        groups = found.astype(np.int64).groupby(self._table["item"], sort=True)
        self.tiles_of: list[Ints] = [np.asarray(group, dtype=np.int64) for _, group in groups]
        names = [str(name) for name, _ in groups]
        self.items = check_items(names, self._members_path)
        self.sizes = np.array([len(rows) for rows in self.tiles_of], dtype=np.float64)

    def members(self, item: int, draw: int = 0) -> list[int]:
        """Return nine tiles: the nearest ones, or for draws from 1 on others at random."""
        rows = self.tiles_of[item]
        if draw:
            n = min(SHEET_TILES, len(rows))
            rows = np.random.default_rng([item, draw]).choice(rows, n, replace=False)
        return [int(row) for row in rows[:SHEET_TILES]]

    def place(self, item: int) -> Place | None:
        """Return None: a cluster is everywhere."""
        return None


def false_colour(contract: Contract) -> tuple[int, int, int] | None:
    """Return the bands for near infrared, red and green as red, green and blue; None without."""
    for names in FALSE_COLOUR:
        if all(name in contract.bands for name in names):
            infrared, red, green = (contract.bands.index(name) for name in names)
            return infrared, red, green
    return None


def encode(image: npt.NDArray[np.uint8]) -> bytes:
    """Return a picture as JPEG, colours at full resolution: roofs are a pixel or two."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(
        file, format="JPEG", quality=JPEG_QUALITY, subsampling=0
    )
    return file.getvalue()
