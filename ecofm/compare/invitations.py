"""Invitations: a secret link for each annotator, for servers that others can reach."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from ecofm.compare.comparison import normalize_annotator
from ecofm.compare.people import Standing
from ecofm.compare.store import Store
from ecofm.errors import ComparisonError


def invite(
    names: Sequence[str], store: Path, url: str, *, revoke: bool = False
) -> list[tuple[str, str]]:
    """Return each annotator with a new secret link, or with what was revoked.

    The secret stands behind the `#`, which browsers send to nobody. Raises ComparisonError for
    unusable names and addresses.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ComparisonError(f"{url!r} is no address, expected such as https://lab.example.")
    annotators = [normalize_annotator(name) for name in names]
    base = f"{parts.scheme}://{parts.netloc}"
    with Store(store, create=not revoke) as opened:
        people = opened.people
        spelled = [people.spell(name) for name in annotators]
        if revoke:
            return [(name, f"{people.revoke(name)} revoked") for name in spelled]
        return [(name, f"{base}/#invite={people.invite(name)}") for name in spelled]


def list_names(store: Path) -> list[Standing]:
    """Return what a store knows of each annotator's name."""
    with Store(store, create=False, read_only=True) as opened:
        return opened.people.list_standing()
