"""Public data sets that the benchmarks use: where they are published, and that they are those.

Each URL names a commit or a revision. A checksum is the publisher's, torchgeo's or torchvision's
(OSCD, EuroSAT), or that of the copies that ecofm is tested with; where there is none yet, the
first download is noted in `registry.txt`, and another one is refused from then on.
"""

from __future__ import annotations

import re
import shutil
import sys
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from ecofm.artifact import unwritable, write_text
from ecofm.errors import EcofmError, UsageError
from ecofm.files import read_file, reason_of
from ecofm.types import say

REGISTRY = "registry.txt"
MAX_REGISTRY_BYTES = 2**20
"""Of pooch's own form: a line `name checksum url` for each file."""
TIMEOUT_S = 60
N_RETRIES = 2
RAW = "https://raw.githubusercontent.com"
EOTDL = f"{RAW}/earthpulse/eotdl"
WORKSHOP = "tutorials/workshops/bids23/workshop_data"
HUB = "https://huggingface.co/datasets/torchgeo"


@dataclass(frozen=True, kw_only=True, slots=True)
class DataSet:
    """What is published, where, and under which licence."""

    what: str
    licence: str
    files: dict[str, tuple[str, str | None]]
    """URL and checksum (`sha256:` or `md5:`) by file name; None is noted at the first download."""
    kept: str = ""
    """What is unpacked of zip files: paths that match from their start."""
    then: str
    """The command to go on with; FOLDER stands for the data."""


SETS = {
    "north-korea": DataSet(
        what="Kosan's tiles 2016-2019, 22 clusters with ten people's orderings, annotated chips, "
        "proxies and published scores (Ahn et al. 2023)",
        licence="MIT; contains modified Copernicus Sentinel data 2016-2019",
        files={
            "development-measure.zip": (
                "https://codeload.github.com/DonghyunAhn/development-measure/zip/"
                "f5f076e33ea55d0dffa5963609e347827e872ca3",
                None,
            )
        },
        kept=r"[^/]+/(data/(NK|nk_annotation|cluster_nk_11_11)/|Stage[23]/|LICENSE|README"
        r"|Materials/(Codes/.*\.(csv|xlsx)$|SpatialData/NK_))",
        then="ecofm tile FOLDER/development-measure/data/NK --grid xyz:14 "
        "--name-pattern '{y}_{x}' --out archive",
    ),
    "oscd": DataSet(
        what="Onera's 24 cities at two dates, Sentinel-2 L1C, with urban change (Daudt et al. "
        "2018)",
        licence="images: modified Copernicus Sentinel data 2015-2018; labels: CC BY-NC-SA, for "
        "evaluation only",
        files={
            "images.zip": (
                "https://partage.imt.fr/index.php/s/gKRaWgRnLMfwMGo/download",
                "md5:c50d4a2941da64e03a47ac4dec63d915",
            ),
            "train_labels.zip": (
                "https://partage.mines-telecom.fr/index.php/s/2D6n03k58ygBSpu/download",
                "md5:4d2965af8170c705ebad3d6ee71b6990",
            ),
            "test_labels.zip": (
                "https://partage.imt.fr/index.php/s/gpStKn4Mpgfnr63/download",
                "md5:8177d437793c522653c442aa4e66c617",
            ),
        },
        # `imgs_1_rect` is the same acquisition again, resampled.
        kept=r"(?!.*_rect/)",
        then="ecofm tile FOLDER/images --out archive",
    ),
    "boadella": DataSet(
        what="one place in Catalonia on four days of 2020-2022, 12 bands; 2020-01-18 is cloudy",
        licence="MIT; contains modified Copernicus Sentinel data 2020-2022",
        files={
            "Boadella_2020-01-13.tif": (
                f"{EOTDL}/f2d93101574e95d3969fbab55382118e63ec3683/eotdl/tests/unit/curation/stac/"
                "test_data/sentinel_2/Boadella_2020-01-13.tif",
                "sha256:b5cf3a4f1580a3e168b668ce17883b927e0b60ff334fbfe21b0a272236704709",
            ),
            "Boadella_2020-01-18.tif": (
                f"{EOTDL}/011c73a20743618132df3269451288bad0f42f73/{WORKSHOP}/sentinel_2/"
                "Boadella_2020-01-18.tif",
                "sha256:29099270e3ad327f955f39968f4d58974930debdc9df7ebb9d562a78dde46a3a",
            ),
            "Boadella_2021-06-26.tif": (
                f"{EOTDL}/011c73a20743618132df3269451288bad0f42f73/{WORKSHOP}/sentinel_2/"
                "Boadella_2021-06-26.tif",
                "sha256:c10c27d9ca462906e3506957b2f8d4260b94323aa71fb65cb204badd65c8bd6d",
            ),
            "Boadella_2022-06-01.tif": (
                f"{EOTDL}/486facae27a88038cc168440cef4ce4af4cdf040/{WORKSHOP}/sentinel_2_bck/"
                "Boadella_2022-06-01.tif",
                "sha256:4afe5a0fde3ed251b07141e254010bdad3313717bd38b08baeb1cd868837dff1",
            ),
        },
        then="ecofm tile FOLDER --bands B01,B02,B03,B04,B05,B06,B07,B08,B8A,B09,B11,B12 "
        "--out archive",
    ),
    "bolzano": DataSet(
        what="a town on 2022-06-12, Sentinel-2 L2A, four bands of 10 m and SCL",
        licence="contains modified Copernicus Sentinel data, processed by openEO Platform",
        files={
            "S2_L2A_20220612_bolzano_B04_B03_B02_B08_SCL.tif": (
                f"{RAW}/Open-EO/openeo-localprocessing-data/"
                "bd122d72005d18c0952e3a626e54946094c57cf7/sample_geotiff/S2_L2A_sample.tif",
                "sha256:60a75620b1cfa4940a74340c342c7ebb624bbdd2a9b9edc2cad1709172bb32e2",
            )
        },
        then="ecofm tile FOLDER --out archive",
    ),
    "eurosat": DataSet(
        what="27,000 chips of ten land covers, RGB, 64 px (Helber et al. 2019)",
        licence="MIT; contains modified Copernicus Sentinel data",
        files={
            "EuroSAT.zip": (
                f"{HUB}/eurosat/resolve/c877bcd43f099cd0196738f714544e355477f3fd/EuroSAT.zip",
                "md5:c8fa014336c82ac7804f0398fcb19387",
            )
        },
        then="ecofm tile FOLDER/EuroSAT --grid none --out archive",
    ),
}


def fetch(name: str, out: Path) -> Path:
    """Download a data set into a folder, unpack its zip files, and return the folder.

    Files that are there are checked and not asked for again, so that what is downloaded by hand
    counts too. Raises EcofmError when a file cannot be reached or is another one, ValueError for a
    name that is not known.
    """
    if name not in SETS:
        raise UsageError(f"{name!r} is no data set; there are {', '.join(SETS)}.")
    known = SETS[name].files
    try:
        out.mkdir(parents=True, exist_ok=True)
        pinned = _read_registry(out / REGISTRY)
        found = {}
        for file, (url, checksum) in known.items():
            # Of another URL, an old note says nothing.
            noted = pinned[file][0] if pinned.get(file, ("", ""))[1] == url else None
            found[file] = _fetch_file(out, file, url, checksum or noted)
        for file in known:
            if file.endswith(".zip"):
                _unpack(out, file, SETS[name].kept)
        lines = [f"{file} {found[file]} {url}\n" for file, (url, _) in known.items()]
        write_text(out / REGISTRY, f"# {SETS[name].licence}\n" + "".join(lines))
    except OSError as error:
        raise unwritable(out, error) from error
    return out


def _read_registry(path: Path) -> dict[str, tuple[str, str]]:
    """Return (checksum, url) by file name of an earlier download, none when there was none."""
    if not path.exists():
        return {}
    try:
        text = read_file(path, MAX_REGISTRY_BYTES).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise EcofmError(f"{path} cannot be read ({reason_of(error)}); remove it.") from error
    lines = [line.split() for line in text.splitlines()]
    lines = [words for words in lines if words and words[0] != "#"]
    if any(len(words) != 3 for words in lines):
        raise EcofmError(f"{path}: expected lines `name checksum url`; put it right or remove it.")
    return {file: (checksum, url) for file, checksum, url in lines}


def _fetch_file(out: Path, file: str, url: str, checksum: str | None) -> str:
    """Return the checksum of a file that is there now; raises EcofmError when it is another."""
    import pooch

    algorithm = (checksum or "sha256:").partition(":")[0]
    path = out / file
    if not path.exists():
        say(f"{url} ...")
        _download(out, file, url)
        place, named = out / ".partial" / file, url
    else:
        place, named = path, str(path)
    found = f"{algorithm}:{pooch.file_hash(str(place), alg=algorithm)}"
    if checksum not in (None, found):
        shutil.rmtree(out / ".partial", ignore_errors=True)
        what = "remove it" if place == path else "it is not the file that was published before"
        raise EcofmError(f"{named} has {found}, expected {checksum}; {what}, or get it elsewhere.")
    if place != path:
        if file.endswith(".zip") and not zipfile.is_zipfile(place):
            shutil.rmtree(out / ".partial")
            raise EcofmError(
                f"{url} answers with no zip file; try again, or put {file} into {out}."
            )
        place.replace(path)
        shutil.rmtree(out / ".partial")
    return found


def _download(out: Path, file: str, url: str) -> None:
    """Put a file into `out/.partial`; raises EcofmError when it cannot be reached."""
    import pooch
    from requests.exceptions import RequestException

    shutil.rmtree(out / ".partial", ignore_errors=True)
    pooch.get_logger().setLevel("ERROR")
    asked = pooch.HTTPDownloader(timeout=TIMEOUT_S, progressbar=sys.stderr.isatty())
    source = pooch.create(
        out / ".partial", base_url="", registry={file: None}, urls={file: url},
        retry_if_failed=N_RETRIES,
    )  # fmt: skip
    try:
        source.fetch(file, downloader=asked)
    except RequestException as error:
        shutil.rmtree(out / ".partial", ignore_errors=True)
        status = getattr(error.response, "status_code", None)
        what = f"answers {status}" if status else f"cannot be reached ({type(error).__name__})"
        raise EcofmError(
            f"{url} {what}; connect and give the same command again, or put the file as {file} "
            f"into {out}."
        ) from error


def _unpack(out: Path, file: str, kept: str) -> None:
    """Unpack what is wanted of a zip file beside it, all or nothing."""
    target, partial = out / Path(file).stem, out / f".{Path(file).stem}.partial"
    if target.exists():
        return
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with zipfile.ZipFile(out / file) as packed:
            members = [m for m in packed.infolist() if re.match(kept, m.filename)]
            tops = {member.filename.partition("/")[0] for member in members}
            packed.extractall(partial, members)  # leaves out `..` and roots in names
    except (zipfile.BadZipFile, EOFError, zlib.error) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise EcofmError(
            f"{out / file} is damaged ({error}); remove it and fetch again."
        ) from error
    if not members:
        raise EcofmError(f"{out / file} holds nothing of what is looked for ({kept}).")
    only = partial / tops.pop() if len(tops) == 1 else partial
    (only if only.is_dir() else partial).rename(target)
    shutil.rmtree(partial, ignore_errors=True)
