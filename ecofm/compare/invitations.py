"""Invitations: a secret link for each annotator, for servers that others can reach."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from ecofm.compare.comparison import normalize_annotator
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
        if revoke:
            return [(name, f"{opened.revoke(name)} revoked") for name in annotators]
        return [(name, f"{base}/#invite={opened.invite(name)}") for name in annotators]
