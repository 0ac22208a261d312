"""Rasters: opened safely, and kept open for as long as they are read."""

from __future__ import annotations

import re
import time
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt
import rasterio
from pyproj.exceptions import ProjError
from rasterio._err import CPLE_BaseError  # damaged GeoTIFF keys reach properties unwrapped
from rasterio.enums import Interleaving
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window

from ecofm.errors import SceneError
from ecofm.files import read_start, reason_of
from ecofm.tiles.items import shown

# A VRT named .tif reads any local file and calls URLs, so the driver follows the first bytes.
DRIVERS = {
    b"II*\0": "GTiff",
    b"MM\0*": "GTiff",
    b"II+\0": "GTiff",
    b"MM\0+": "GTiff",
    b"\x89PNG": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"\0\0\0\x0cjP": "JP2OpenJPEG",
}
MAX_OPEN = 16
MAX_BANDS = 1000
MAX_BLOCK_BYTES = 2**28
"""Of a tile or strip when unpacked: it is decoded whole for any of its pixels."""
FREE_PX, FREE_BYTES = 2**28, 2**30
"""A raster may declare so much (16,384 px a side, 1 GiB) whatever it holds: a granule of 10,980 px
may be blank. Work follows what is declared: 40,000 px a side in 1.8 MB are 24,649 tiles."""
MAX_RATIO, MAX_SHOWN_RATIO = 1100, 100
"""A larger one may declare so many bytes for each that it holds: deflate reaches 1000:1; and so
many of pixels that show something, of which imagery packs 2:1, and classes 30:1."""
MAX_PACKED_PX = 2**32
"""Pixels of a raster that packs better than `MAX_SHOWN_RATIO`."""
CUT = "if it is right, cut it into parts: gdal_retile.py -ps 16384 16384 -targetDir PARTS FILE"
N_PROBED = 16
"""Places in a row and in a column at which such a raster is asked whether it shows something."""

MAX_OPEN_S = 600
"""A remote raster is opened anew after this time: signatures of URLs expire."""
HTTP = {
    "GDAL_HTTP_CONNECTTIMEOUT": 10,
    "GDAL_HTTP_TIMEOUT": 120,
    "GDAL_HTTP_LOW_SPEED_LIMIT": 1000,  # bytes a second, over the time below: a server that stalls
    "GDAL_HTTP_LOW_SPEED_TIME": 30,
    "GDAL_HTTP_MAX_RETRY": 3,
    "GDAL_HTTP_RETRY_DELAY": 1,
    "CPL_VSIL_CURL_USE_HEAD": False,  # a URL that is signed for GET refuses HEAD
    "GDAL_INGESTED_BYTES_AT_OPEN": 32768,  # the header of a COG in one request
}

Pixels = npt.NDArray[np.generic]
Valid = npt.NDArray[np.bool_]

Sign = Callable[[str], str]
"""Makes a URL readable, for example by adding a token to it."""


@dataclass(frozen=True, slots=True)
class Remote:
    """A raster behind a URL that someone asked to read."""

    url: str
    sign: Sign | None = None

    @property
    def name(self) -> str:
        """The end of the URL, without what signs it."""
        return self.url.partition("?")[0].rpartition("/")[2]

    def signed(self) -> str:
        """Return the URL to read, signed at this moment; raises SceneError when it cannot be."""
        url = self.url
        if self.sign is not None:
            try:
                url = self.sign(url)
            except Exception as error:  # whatever someone's own function raises
                raise SceneError(f"has a URL that could not be signed ({error})") from error
        if not isinstance(url, str) or not re.match(r"https?://", url):
            raise SceneError(
                f"names {str(url)[:80]}; only files and, with --remote, https are read"
            )
        return url


class Rasters:
    """Rasters that are open: the last few stay so, because opening costs as much as a tile.

    2560 x 2560 x 12 uint16 onto utm:1280, 400 tiles, one core: 2.1 s against 3.8 s uncompressed,
    1.4 s against 2.5 s with ZSTD.
    """

    def __init__(self) -> None:
        """Start with none open."""
        self._open: OrderedDict[Path | Remote, tuple[rasterio.DatasetReader, ExitStack, float]] = (
            OrderedDict()
        )

    def __enter__(self) -> Rasters:
        """Return itself; all is closed at the end."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        """Close every raster."""
        while self._open:
            self._open.popitem()[1][1].close()

    @contextmanager
    def use(self, path: Path | Remote) -> Iterator[rasterio.DatasetReader]:
        """Give an open raster; what GDAL complains of while it is read becomes SceneError."""
        with explained():
            if isinstance(path, Remote) and path in self._open:
                if time.monotonic() - self._open[path][2] > MAX_OPEN_S:
                    self._open.pop(path)[1].close()
            if path not in self._open:
                with ExitStack() as stack:
                    dataset = stack.enter_context(_open(path))
                    _require_sane_size(dataset, path)
                    self._open[path] = dataset, stack.pop_all(), time.monotonic()
                if len(self._open) > MAX_OPEN:
                    self._open.popitem(last=False)[1][1].close()
            self._open.move_to_end(path)
            yield self._open[path][0]


@contextmanager
def explained() -> Iterator[None]:
    """Turn what GDAL and PROJ complain of into SceneError."""
    try:
        # The empty list of neighbours keeps .aux.xml, .msk and world files out, which no hash sees.
        with rasterio.Env(
            GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR", GDAL_ERROR_ON_LIBJPEG_WARNING=True, **HTTP
        ):
            yield
    except (RasterioError, CPLE_BaseError, ProjError, ValueError, OSError) as error:
        reason = shown(" ".join(str(error.__cause__ or error).split()), 200)
        raise SceneError(f"cannot be read as an image ({reason})") from error


def _open(path: Path | Remote) -> rasterio.DatasetReader:
    if isinstance(path, Remote):
        # Nothing that can point elsewhere.
        driver = "JP2OpenJPEG" if path.name.lower().endswith(".jp2") else "GTiff"
        return rasterio.open(f"/vsicurl/{path.signed()}", driver=driver)
    driver = _driver_of(path)
    # Chips have no place on Earth, and need none.
    with warnings.catch_warnings(action="ignore", category=NotGeoreferencedWarning):
        return rasterio.open(path.resolve(), driver=driver)


def _driver_of(path: Path) -> str:
    try:
        start = read_start(path, 8)
    except OSError as error:
        raise SceneError(f"cannot be opened ({reason_of(error)})") from error
    if not start:
        raise SceneError("is empty")
    for magic, driver in DRIVERS.items():
        if start.startswith(magic):
            return driver
    raise SceneError(f"is no TIFF, JPEG 2000, PNG or JPEG (it starts with {start!r})")


def _require_sane_size(dataset: rasterio.DatasetReader, path: Path | Remote) -> None:
    if dataset.count > MAX_BANDS:
        raise SceneError(f"has {dataset.count} bands, expected at most {MAX_BANDS}")
    item_bytes = max(np.dtype(dtype).itemsize for dtype in dataset.dtypes)
    n_px = dataset.width * dataset.height
    declared = n_px * dataset.count * item_bytes
    # Of a remote raster nothing is known before its pixels are read.
    held = path.stat().st_size if isinstance(path, Path) else declared
    is_large = n_px > FREE_PX or declared > FREE_BYTES
    is_packed = is_large and declared > MAX_SHOWN_RATIO * held
    said = f"declares {dataset.width}x{dataset.height} px in {dataset.count} bands but holds {held}"
    if is_packed and (declared > MAX_RATIO * held or n_px > MAX_PACKED_PX):
        raise SceneError(f"{said} bytes; {CUT}")
    # A block is read whole, with all its bands where they are interleaved by pixel.
    together = dataset.count if dataset.interleaving == Interleaving.pixel else 1
    block_px = max(height * width for height, width in dataset.block_shapes)
    if block_px * item_bytes * together > MAX_BLOCK_BYTES:
        raise SceneError(
            f"is stored in blocks of {block_px * item_bytes * together / 1e6:.0f} MB; rewrite it "
            "with gdal_translate -co TILED=YES"
        )
    if is_packed and not 0 < (shown := _share_shown(dataset)) * declared <= MAX_SHOWN_RATIO * held:
        what = f"about {shown:.0%} of its pixels show" if shown else "none of its pixels shows"
        raise SceneError(f"{said} bytes, and by some probes {what} something; {CUT}")


def _share_shown(dataset: rasterio.DatasetReader) -> float:
    """Return which share of a raster shows something, by places from all over it."""
    rows, columns = (
        np.linspace(0, side - 1, N_PROBED).astype(int).tolist()
        for side in (dataset.height, dataset.width)
    )
    shown = 0
    for row in rows:
        for column in columns:
            place = Window(column, row, 1, 1)
            value = dataset.read(1, window=place)[0, 0]
            # A picture may be black; 0 of other numbers is nodata where nothing is declared.
            is_shown = np.isfinite(value) and (value != 0 or dataset.dtypes[0] == "uint8")
            shown += bool(is_shown and dataset.read_masks(1, window=place)[0, 0])
    return shown / N_PROBED**2
