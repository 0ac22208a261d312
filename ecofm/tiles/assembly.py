"""Assembly: bands, wherever they lie, and what is told of them, made into one scene."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from ecofm.errors import SceneError
from ecofm.tiles.bands import SENTINEL, UNNAMED, Choice, choose
from ecofm.tiles.claims import Claim, Evidence, Sample, baseline_of_name, parse_baseline
from ecofm.tiles.headers import Header, read_header
from ecofm.tiles.kept import Kept
from ecofm.tiles.periods import period_or
from ecofm.tiles.radiometry import Radiometry, resolve, telling
from ecofm.tiles.rasters import Pixels, Rasters, Remote, Sign
from ecofm.tiles.samples import sample_part, undeclared_nodata
from ecofm.tiles.scenes import Hiding, Part, Scene, own_units, shape_of

NODATA = 0.0
"""Sentinel-2 products keep 0 for nodata, and most files do not say so."""
IDENTITY = re.compile(
    r"(S2[A-Z])_MSI(L1C|L2A)_([0-9]{8}T[0-9]{6})(?:_N([0-9]{4}))?_R[0-9]{3}_(T[0-9A-Z]{5})"
    r"(?:_([0-9]{8}T[0-9]{6}))?"
)
# Element 84's items: S2A_52SCG_20190612_0_L2A, S2A_T52SCG_20190612T021611_L2A.
ITEM_IDENTITY = re.compile(
    r"(S2[A-Z])_T?([0-9]{2}[A-Z]{3})_([0-9]{8}(?:T[0-9]{6})?)(_[0-9]+)?_(L1C|L2A)"
)
GRANULE = re.compile(r"(?<![A-Z0-9])(T[0-9]{2}[A-Z]{3}_[0-9]{8}T[0-9]{6})(?![0-9])")
LEVEL = re.compile(r"(?<![A-Z0-9])(?:MSI)?(L1C|L2A)(?![A-Z0-9])")

HLS_LANDSAT = re.compile(r"HLS[._]L30", re.IGNORECASE)
BASELINE_TAG = "PROCESSING_BASELINE"
"""As GDAL's own reader of SAFE folders leaves it."""

Place = tuple[Path | Remote, int]
"""A raster and the number of a band in it, from 1."""


Decision = tuple[list[Part], dict[str, Radiometry], str, list[str]]
"""The parts with what their numbers mean, and what people must be told."""
N_KEPT = 1024
N_SAMPLES_KEPT = 16  # a MB or two each


@dataclass(kw_only=True, slots=True)
class SceneOptions:
    """What people say of all scenes; it overrides what the scenes say."""

    period: str | None = None
    bands: tuple[str, ...] | None = None
    scale: float | None = None
    offset: float | None = None
    period_in_name: bool = True
    remote: bool = False
    """Whether assets with a URL may be read."""
    sign: Sign | None = None
    headers: Kept[Header] = field(default_factory=lambda: Kept(N_KEPT))
    samples: Kept[Pixels] = field(default_factory=lambda: Kept(N_SAMPLES_KEPT))
    decisions: Kept[Decision] = field(default_factory=lambda: Kept(N_KEPT))
    """What the last rasters said: many items may name one."""


@dataclass(kw_only=True, slots=True)
class Told:
    """What a product says of itself."""

    name: str = ""
    """Where a date may be, least trusted."""
    dates: list[str] = field(default_factory=list)
    product_id: str = ""
    tag: str | None = None
    applied: bool = False
    """`earthsearch:boa_offset_applied`."""
    claims: dict[str, list[Claim]] = field(default_factory=dict)
    """What is said of the numbers of each band."""
    nodata: dict[str, float] = field(default_factory=dict)
    """What is said of each band's nodata."""
    baseline: Claim | None = None
    baseline_digits: str = ""
    synthetic: bool = False


@dataclass(frozen=True, slots=True)
class Identity:
    """Which acquisition a product's id names; texts are empty where it does not tell."""

    acquisition: str = ""
    level: str = ""
    baseline: str = ""
    processed: str = ""


def identify(text: str) -> Identity:
    """Return what a product's, an item's or a granule's id says of the acquisition."""
    level = found[1] if (found := LEVEL.search(text.replace("_", " "))) else ""
    if full := IDENTITY.search(text):
        acquisition = "_".join((full[1], full[3], full[5]))
        return Identity(acquisition, full[2], full[4] or "", full[6] or "")
    if item := ITEM_IDENTITY.search(text):
        acquisition = "_".join((item[1], item[3] + (item[4] or ""), "T" + item[2]))
        return Identity(acquisition, item[5], baseline_of_name(text))
    if granule := GRANULE.search(text):
        return Identity(granule[1], level, baseline_of_name(text))
    return Identity("", level, baseline_of_name(text))


def assemble(
    name: str,
    files: Mapping[str, Place],
    told: Told,
    options: SceneOptions,
    header: Header | None = None,
) -> Scene:
    """Return the scene whose bands lie at some places, each with the name that `files` gives.

    `header` is that of the one raster that holds all bands, which need not say where it lies, and
    whose own order counts; bands of several rasters follow their wavelength. Raises SceneError for
    bands that are not there, for rasters that cannot be used, and where the radiometry is not
    decided.
    """
    own = list(files) if header else sorted(files, key=_order)
    chosen = choose(own, options.bands, is_guess=header is not None and header.is_guess)
    if not chosen.names:
        raise SceneError(
            f"has no band that measures reflectance (its own: {', '.join(own)}); name bands with "
            "--bands"
        )
    headers: dict[Path | Remote, Header] = {header.path: header} if header else {}

    def part_of(index: int, nodata: float | None) -> Part:
        path, number = files[own[index]]
        if path not in headers:
            headers[path] = options.headers.ask(path, lambda: read_header(path))
        found = headers[path]
        if number not in found.numbers:
            raise SceneError(f"has {len(found.numbers)} bands in {path.name}, expected {number}")
        if header is None and found.geobox is None:
            raise SceneError(f"has no place (CRS and transform) in {path.name}")
        # A picture may be black; numbers that measure are not 0 in all bands.
        default = nodata if found.dtype != "uint8" else None
        said = told.nodata.get(own[index]) if nodata is not None else None
        _require_same_nodata(said, found, number)
        return found.part(number, default if said is None else said)

    parts = [part_of(index, NODATA) for index in chosen.indices]
    if any(headers[part.path].has_palette for part in parts):
        raise SceneError("has a colour table; convert it to RGB")
    if HLS_LANDSAT.search(told.product_id) and not all("=" in b for b in options.bands or [""]):
        raise SceneError(
            "is of Landsat (HLS L30), whose B05 is no band of Sentinel-2's; give its bands their "
            "names there, as in --bands B8A=B05,B04=B04,B03=B03,B02=B02"
        )
    hidings = tuple(Hiding(part_of(i, None), kind) for _, i, kind in chosen.quality)
    used = [headers[part.path] for part in parts]
    tags = {key: text for one in used for key, text in one.tags.items()}
    date, period = period_or(
        options.period, told.name if options.period_in_name else "", told.tag, told.dates
    )
    claims = {
        band: told.claims.get(own[index], []) + one.claims(part.numbers[0])
        for band, index, part, one in zip(chosen.names, chosen.indices, parts, used, strict=True)
    }
    dtypes = dict(zip(chosen.names, (part.dtype for part in parts), strict=True))
    evidence = _gather(dtypes, claims, told, tags, date or period, options)
    parts, meaning, decided, notes = options.decisions.ask(
        (chosen.names, tuple(parts), repr(evidence)),
        lambda: _decide(chosen.names, parts, evidence, options.samples),
    )
    identity = identify(told.product_id)
    level = identity.level or identify(name).level
    scene = Scene(
        name=name,
        period=period,
        date=date,
        bands=chosen.names,
        parts=_joined(parts),
        dtype=_stored_dtype(parts, meaning),
        radiometry=decided,
        hidings=hidings,
        acquisition=identity.acquisition,
        level=level,
        baseline=told.baseline_digits or identity.baseline,
        processed=identity.processed,
        shape_px=header.shape_px if header else shape_of(parts),
        synthetic=told.synthetic or "synthetic" in " ".join([*tags, *tags.values()]).lower(),
        notes=(*_notes_of(chosen, any(one.has_alpha for one in used)), *notes),
    )
    scale, offset = own_units([scene])
    return replace(scene, to_scale=scale, to_offset=offset)


def _gather(
    dtypes: Mapping[str, str],
    claims: Mapping[str, Sequence[Claim]],
    told: Told,
    tags: Mapping[str, str],
    day: str | None,
    options: SceneOptions,
) -> Evidence:
    """Return all that is known of the numbers of a scene."""
    tagged = parse_baseline(tags.get(BASELINE_TAG), f"{BASELINE_TAG}, a tag,")
    return Evidence(
        dtypes=dtypes,
        claims=claims,
        applied=told.applied,
        baseline=told.baseline or tagged,
        name=telling(told.product_id),
        tags=" ".join(dict.fromkeys(tags.values())),
        day=day,
        scale=options.scale,
        offset=options.offset,
    )


def _require_same_nodata(said: float | None, header: Header, number: int) -> None:
    """Raise SceneError where an item and a file name different nodata values."""
    own = header.sidecar.nodata.get(number, header.nodata)
    if said is None or own is None or own == said or (math.isnan(own) and math.isnan(said)):
        return
    raise SceneError(
        f"has nodata {said:g} by its item and {own:g} in {header.path.name}; correct the wrong one"
    )


def _decide(
    bands: Sequence[str], parts: Sequence[Part], evidence: Evidence, samples: Kept[Pixels]
) -> Decision:
    settled = list(parts)
    notes: list[str] = []

    def look() -> Sample:
        found = {}
        with Rasters() as rasters:
            for index, (band, part) in enumerate(zip(bands, settled, strict=True)):
                values = samples.ask(part, partial(_sample, rasters, part))
                if (nodata := undeclared_nodata(values)) is not None:
                    settled[index] = replace(part, also_nodata=(nodata,))
                    values = values[:, values[0] != nodata]
                    notes.append(f"{nodata:g} is taken for nodata, which no file declares")
                found[band] = values[0].astype("float64")
        return found

    meaning, decided, more = resolve(evidence, look)
    settled = [
        replace(part, scale=meaning[band].scale, offset=meaning[band].offset)
        for band, part in zip(bands, settled, strict=True)
    ]
    return settled, meaning, decided, list(dict.fromkeys([*notes, *more]))


def _sample(rasters: Rasters, part: Part) -> Pixels:
    with rasters.use(part.path) as dataset:
        return sample_part(dataset, part)


def _stored_dtype(parts: Sequence[Part], meaning: Mapping[str, Radiometry]) -> str:
    """Return the number type that an archive stores: that of the files, uint16 for wider ones."""
    dtypes = {part.dtype for part in parts}
    n_renderings = sum(radiometry.is_rendering for radiometry in meaning.values())
    if "uint8" in dtypes and 0 < n_renderings < len(meaning):
        raise SceneError(
            f"has numbers of types {', '.join(sorted(dtypes))}, pictures beside reflectance; "
            "choose the bands of one kind with --bands"
        )
    if dtypes == {"uint8"}:
        return "uint8" if n_renderings else "uint16"
    return "int16" if dtypes == {"int16"} else "uint16"


def _joined(parts: Sequence[Part]) -> tuple[Part, ...]:
    """Return the parts, those that follow each other in one raster and mean the same as one."""
    found: list[Part] = []
    for part in parts:
        if found and replace(found[-1], numbers=part.numbers) == part:
            part = replace(part, numbers=(*found.pop().numbers, *part.numbers))
        found.append(part)
    return tuple(found)


def _notes_of(chosen: Choice, has_alpha: bool) -> list[str]:
    notes = []
    if has_alpha:
        notes.append(
            "its last band is taken for alpha, which hides pixels; name all bands with --bands to "
            "read it"
        )
    if chosen.quality:
        kinds = ", ".join(name for name, _, _ in chosen.quality)
        notes.append(f"pixels that {kinds} marks as cloud or nodata are invalid")
    if chosen.unused:
        notes.append(
            f"{', '.join(chosen.unused)} is left out: no band of reflectance by its name; --bands "
            "takes it all the same"
        )
    if any(map(UNNAMED.fullmatch, chosen.names)):
        notes.append(
            f"its {len(chosen.names)} bands have no names, so that no picture is in true colour: "
            f"name them in file order, as in --bands {_example(len(chosen.names))}"
        )
    return notes


def _example(n_bands: int) -> str:
    """Return names that as many bands often have."""
    names = ["B04", "B03", "B02", "B08", "B11", "B12"]
    if n_bands >= len(SENTINEL) - 1:
        names = [band for band in SENTINEL if band != "B10" or n_bands >= len(SENTINEL)]
    return ",".join(names[:n_bands]) + ("" if n_bands <= len(names) else ",...")


def _order(band: str) -> tuple[int, str]:
    """Return a sort key: the order of wavelengths, in which B8A follows B08."""
    return (SENTINEL.index(band) if band in SENTINEL else len(SENTINEL)), band
