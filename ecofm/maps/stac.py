"""The maps of scores as one STAC collection: a static one, whose links are relative.

STAC 1.1.0 and its projection extension 2.0.0 (https://github.com/stac-extensions/projection): maps
of several zones have several CRSs, which no VRT can hold.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import shapely
from shapely.geometry import mapping

from ecofm.artifact import write_json
from ecofm.grid import outline_of
from ecofm.maps.cogs import BANDS, Map
from ecofm.meridian import bounding_box
from ecofm.types import say

COLLECTION = "collection.json"
STAC = {"stac_version": "1.1.0"}
PROJECTION = "https://stac-extensions.github.io/projection/v2.0.0/schema.json"
COG_TYPE = "image/tiff; application=geotiff; profile=cloud-optimized"
DAYS = re.compile(r"[0-9]{4}(?:-Q[1-4]|-[0-9]{2}(?![0-9])(?:-[0-9]{2}(?![0-9]))?)?")
"""A year, quarter, month or day; a range (`2018--2019`) has two of them."""


def write_collection(maps: Sequence[Map], folder: Path, attribution: str) -> None:
    """Write `collection.json`, and an item `{map}.json` beside each map."""
    unknown = sorted({each.period for each in maps if not DAYS.search(each.period)})
    if unknown:
        say(f"{COLLECTION} is left out: {', '.join(unknown)} is no time, which STAC asks for.")
        return
    outlines = [outline_of(each.geobox) for each in maps]
    for each, outline in zip(maps, outlines, strict=True):
        write_json(folder / f"{each.name}.json", _item(each, outline))
    times = [_interval(each.period) for each in maps]
    about = "Scores with lower and upper ends of their 90 % intervals, one pixel a cell."
    collection = {
        **STAC,
        "type": "Collection",
        "id": "scores",
        "title": "Scores of economic development",
        "description": f"{about} {attribution}".strip(),
        "license": "other",
        "extent": {
            "spatial": {"bbox": [bounding_box(shapely.union_all(outlines))]},
            "temporal": {"interval": [[min(t[0] for t in times), max(t[1] for t in times)]]},
        },
        "summaries": {"proj:code": sorted({str(each.geobox.crs) for each in maps})},
        "links": [
            _link("root", COLLECTION),
            *(_link("item", f"{each.name}.json", "application/geo+json") for each in maps),
        ],
    }
    write_json(folder / COLLECTION, collection)


def _item(each: Map, outline: Any) -> dict[str, Any]:
    first, last = _interval(each.period)
    bands = [{"name": name, "data_type": "float32", "nodata": "nan"} for name in BANDS]
    asset = {"href": f"./{each.name}.tif", "type": COG_TYPE, "roles": ["data"], "bands": bands}
    return {
        **STAC,
        "stac_extensions": [PROJECTION],
        "type": "Feature",
        "id": each.name,
        "collection": "scores",
        "geometry": mapping(outline),
        "bbox": bounding_box(outline),
        "properties": {
            "datetime": None,
            "start_datetime": first,
            "end_datetime": last,
            "proj:code": str(each.geobox.crs),
            "proj:shape": list(each.geobox.shape),
            "proj:transform": list(each.geobox.affine)[:6],
        },
        "links": [_link(rel, COLLECTION) for rel in ("root", "parent", "collection")],
        "assets": {"scores": asset},
    }


def _link(rel: str, name: str, kind: str = "application/json") -> dict[str, str]:
    return {"rel": rel, "href": f"./{name}", "type": kind}


def _interval(period: str) -> tuple[str, str]:
    """Return the first and the last second of a period."""
    days = DAYS.findall(period)
    first, last = pd.Period(days[0]).start_time, pd.Period(days[-1]).end_time
    return f"{first:%Y-%m-%dT%H:%M:%SZ}", f"{last:%Y-%m-%dT%H:%M:%SZ}"
