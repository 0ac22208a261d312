"""Search: what a STAC API knows of an area, kept as a folder of items that `tile` reads.

The items are an artifact of their own: the run that tiles them is then a function of what lies on
the disk, whatever the API answers tomorrow.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import pandas as pd
import shapely
from shapely.geometry import mapping, shape
from shapely.geometry.base import BaseGeometry

from ecofm.artifact import Draft, unwritable, write_json
from ecofm.errors import SceneError, UsageError
from ecofm.meridian import close
from ecofm.tiles.area import Area
from ecofm.tiles.asking import OverLimit, is_api, one_host
from ecofm.tiles.items import fault_of, shown
from ecofm.tiles.limits import MAX_CORNERS, MAX_ITEM_BYTES
from ecofm.tiles.periods import read
from ecofm.types import say

PAGE_ITEMS = 100
ITEM_ID = re.compile(r"(?!(?i:manifest)$)[A-Za-z0-9][A-Za-z0-9_.-]{0,199}")
"""An item is kept in a file of its name, beside the manifest."""
CLOUD = "eo:cloud_cover"


@dataclass(kw_only=True, slots=True)
class SearchConfig:
    """What is looked for when a STAC API is given."""

    collection: str = "sentinel-2-l2a"
    """Collection of the STAC API."""
    dates: str | None = None
    """Days, months, quarters or years that are searched, both ends included: `2019/2022`,
    `2019-04-01/2019-09-30`, `2019-Q2`."""
    max_cloud: float = 100.0
    """Percent of cloud that an item may have."""
    max_items: int = 10_000
    """Items at most: a search that finds more is refused, not cut."""

    def __post_init__(self) -> None:
        """Raise ValueError for values that cannot be used."""
        if self.dates is not None:
            days_of(self.dates)
        if not 0 <= self.max_cloud <= 100 or self.max_items < 1:
            raise UsageError("--max-cloud is a percentage, and --max-items at least 1.")


def days_of(dates: str) -> str:
    """Return the first and the last day of `2019-04/2019-09` and the like, joined by a slash.

    Raises ValueError when it is no period and no two in order.
    """
    ends = dates.split("/")
    try:
        first, last = (read(end) for end in (ends[0], ends[-1]))
    except ValueError as error:
        raise UsageError(f"--dates {dates}: expected 2019, or 2019-04/2019-09 ({error}).") from None
    if len(ends) > 2 or last.first < first.first:
        raise UsageError(f"--dates {dates}: expected 2019, or 2019-04/2019-09, in order.")
    return f"{first.first}/{last.last}"


def search(api: str, out: Path, area: Area, config: SearchConfig, *, again: bool = False) -> Path:
    """Write the items of a STAC API that lie in an area as `out/ID.json`, and return `out`.

    The same search is not asked twice unless `again`. Items that do not say what the search is
    about are left out, with the reason, in `rejected.parquet`. Raises SceneError when the API does
    not answer, answers nonsense, leads to another host, or nothing is found.
    """
    told = {**asdict(config), "api": shown(api, len(api)), "area": area.hash}
    draft = Draft(out, stage="items", config=told, inputs={}, overwrite=again)
    if draft.done and not again:
        return out
    with draft as folder:
        found, rejected = _find(api, area, config)
        try:
            for name, item in found.items():
                write_json(folder / f"{name}.json", item)
            pd.DataFrame(
                sorted(rejected.items()), columns=["path", "reason"], dtype=str
            ).to_parquet(folder / "rejected.parquet")
        except OSError as error:
            raise unwritable(out, error) from error
    say(f"{len(found)} items of {config.collection} found; {len(rejected)} left out ({out}).")
    return out


def _find(
    api: str, area: Area, config: SearchConfig
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Return the items that were looked for by id, and why others are left out.

    Raises SceneError when there is none.
    """
    found: dict[str, dict[str, Any]] = {}
    rejected: dict[str, str] = {}
    for item in _ask(api, area, config):
        name = str(item.get("id"))
        try:
            if _is_wanted(item, area, config):
                found[name] = item
        except SceneError as error:
            rejected[shown(name, 200)] = str(error)
    if not found:
        more = f" ({len(rejected)} were left out)" if rejected else ""
        raise SceneError(
            f"{shown(api)} has no item of {config.collection} that was looked for{more}."
        )
    return found, rejected


def _is_wanted(item: dict[str, Any], area: Area, config: SearchConfig) -> bool:
    """Return whether an item is what was looked for; its assets' URLs become absolute.

    Raises SceneError when it does not say so, or cannot be kept.
    """
    if item.get("type") != "Feature" or "stac_version" not in item:
        raise SceneError("is no STAC item")
    name = item.get("id")
    is_text = isinstance(name, str | int) and not isinstance(name, bool)
    if not is_text or not ITEM_ID.fullmatch(str(name)):
        raise SceneError("has an id that is no file name")
    if (fault := fault_of(item)) is not None:
        raise SceneError(fault)
    is_inside = bool(shapely.intersects(_place_of(item), area.shape))
    properties = item.get("properties")
    cloud = properties.get(CLOUD) if isinstance(properties, dict) else None
    is_share = isinstance(cloud, int | float) and not isinstance(cloud, bool) and 0 <= cloud <= 100
    if config.max_cloud < 100 and not is_share:
        said = "no" if cloud is None else f"{shown(str(cloud), 40)} as its"
        raise SceneError(f"has {said} {CLOUD}, which --max-cloud asks for")
    _make_absolute(item)
    try:
        n_bytes = len(json.dumps(item, allow_nan=False))
    except ValueError as error:
        raise SceneError("holds a number that JSON has no word for (NaN or infinity)") from error
    if n_bytes > MAX_ITEM_BYTES:
        raise SceneError(f"is longer than {MAX_ITEM_BYTES} bytes")
    return is_inside and (config.max_cloud >= 100 or float(cloud or 0) <= config.max_cloud)


def _place_of(item: dict[str, Any]) -> BaseGeometry:
    """Return where an item lies; raises SceneError where it does not say so."""
    try:
        place = shape(item["geometry"])
        # To mend an outline takes the square of its corners.
        if (n := int(shapely.get_num_coordinates(place))) > MAX_CORNERS:
            raise SceneError(f"has a geometry of {n} corners, expected at most {MAX_CORNERS}")
        return shapely.make_valid(close(place))
    except (
        LookupError,
        TypeError,
        ValueError,
        ArithmeticError,
        AttributeError,
        shapely.errors.ShapelyError,
    ) as error:
        raise SceneError("has no geometry") from error


def _make_absolute(item: dict[str, Any]) -> None:
    """Complete the assets' relative URLs by the item's own, for the file lies elsewhere."""
    links = item.pop("links", None)
    own = None
    for link in links if isinstance(links, list) else ():
        if isinstance(link, dict) and link.get("rel") == "self":
            own = link.get("href")
    assets = item.get("assets")
    for asset in assets.values() if isinstance(assets, dict) else ():
        if not isinstance(asset, dict) or not isinstance(asset.get("href"), str):
            continue
        try:
            if isinstance(own, str) and is_api(own):
                asset["href"] = urljoin(own, asset["href"])
            elif not urlsplit(asset["href"]).scheme:
                asset["href"] = ""  # a path on this disk is none of the API's business
        except ValueError:  # `http://[`; where it is of a band, it is refused by name
            asset["href"] = ""


def _ask(api: str, area: Area, config: SearchConfig) -> Iterator[dict[str, Any]]:
    """Yield each item once; raises SceneError for whatever the API does not do."""
    from pystac.errors import STACError
    from pystac_client import Client
    from pystac_client.conformance import ConformanceClasses
    from pystac_client.errors import ClientTypeError
    from pystac_client.exceptions import APIError

    seen: set[str] = set()
    matched: object = None
    told = shown(api)
    try:
        # It warns of what an API does not support; what matters to us is checked here.
        with warnings.catch_warnings(action="ignore"):
            client = Client.open(api, stac_io=one_host(api))
            cloud = {CLOUD: {"lte": config.max_cloud}}
            can_query = client.conforms_to(ConformanceClasses.QUERY)
            found = client.search(
                collections=[config.collection],
                datetime=days_of(config.dates) if config.dates else None,
                # A coast has more corners than an API takes; what is outside is dropped here.
                intersects=mapping(area.hull()),
                query=cloud if config.max_cloud < 100 and can_query else None,
                limit=PAGE_ITEMS,
            )
            for page in found.pages_as_dicts():
                matched = matched or page.get("numberMatched")
                items = [one if isinstance(one, dict) else {"id": one} for one in page["features"]]
                new = [item for item in items if str(item.get("id")) not in seen]
                if not new:
                    raise SceneError(f"{told} gives the same page again and again.")
                for item in new:
                    if str(item.get("id")) not in seen:
                        seen.add(str(item.get("id")))
                        yield item
                if len(seen) > config.max_items:
                    raise SceneError(
                        f"{told} has more than {config.max_items} items of {config.collection}; "
                        "narrow --dates or --area, or give --max-items."
                    )
    except APIError as error:
        reason = _reason(error)
        if isinstance(error.__context__, OverLimit):
            raise SceneError(f"{told} is not asked any further: {reason}.") from error
        status = getattr(error, "status_code", None)
        what = f"answers {status}" if status else "does not answer"
        raise SceneError(f"{told} {what} ({reason}); is it the URL of a STAC API?") from error
    except (
        STACError, ClientTypeError, Warning, LookupError, TypeError, AttributeError, ValueError,
        RecursionError, NotImplementedError,
    ) as error:  # fmt: skip
        raise SceneError(
            f"{told} is no STAC API that can be searched ({_reason(error)})."
        ) from error
    if isinstance(matched, int) and matched > len(seen):
        say(
            f"warning: {told} says that it has {matched} items, and gave {len(seen)}; give the "
            "same command with --append later, and it asks again."
        )


def _reason(error: Exception) -> str:
    """Return what an error of a library says, in one line."""
    return shown(" ".join(str(error).split()), 200)
