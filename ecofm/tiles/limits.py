"""Limits: how much of what a stranger wrote is read before it is left out by name.

They are far above what catalogues and APIs hold, and far below what would stop a machine. `ecofm
tile --help` and docs/SOURCES.md tell them; a test holds the three together.
"""

from __future__ import annotations

MAX_FILE_BYTES = 2**26
"""Of a STAC file; a catalog of more is many files."""
MAX_ITEM_BYTES = 2**24
"""Of one item that an API gives."""
MAX_ASSETS = 1000
"""Of an item. Sentinel-2 has about sixty."""
MAX_NESTING = 100
"""Lists and objects inside each other, in one item or catalog."""
MAX_CORNERS = 1000
"""Of the outline of an item that an API gives."""
MAX_TEXT_CHARS = 1000
"""Of a text that an item says of itself: its date, platform or product."""
MAX_HREF_CHARS = 8192
"""Signed URLs have about a thousand."""

MAX_CATALOG_DEPTH = 100
"""Links from the catalog that is given to the last item."""
MAX_LINKS = 1_000_000
"""Links of catalogs that are followed in one run."""
MAX_CATALOG_BYTES = 2**34
"""Of all documents that catalogs link to."""

CONNECT_S = 10
SILENCE_S = 60
"""Between two bytes of an answer."""
ANSWER_S = 120
"""From a request to the last byte of its answer, what is asked again because of a failure
included."""
SEARCH_S = 3600
"""For all answers to one search."""
MAX_ANSWER_BYTES = 2**26
MAX_SEARCH_BYTES = 2**30
"""Of all answers to one search, unpacked."""
MAX_RETRY_AFTER_S = 20
"""A server that asks for more patience than this is asked again earlier."""
