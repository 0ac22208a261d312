"""Hashes of sources: what they were read from, so that a change is seen."""

from __future__ import annotations

import json
from pathlib import Path

import xxhash

from ecofm.files import require_file
from ecofm.tiles.sources import Source

WHOLE_BYTES = 2**26
N_SAMPLES, SAMPLE_BYTES = 64, 2**18


def hash_file(path: Path) -> str:
    """Return the xxh3 of a file, as `hash_source` does."""
    return hash_source(Source(path.name, "raster", path, (path,), (path.parent,)))


def hash_source(source: Source) -> str:
    """Return the xxh3 of a source's files, or `unreadable`.

    Files above 64 MiB are sampled at 64 places, the first and the last bytes among them: a country
    is not read twice, and what was read has a checksum of its own in every tile.
    """
    digest = xxhash.xxh3_64()
    if source.item is not None:  # its file may get more items
        digest.update(json.dumps(source.item, sort_keys=True).encode())
    try:
        for path in source.files:
            n_bytes = require_file(path)
            digest.update(n_bytes.to_bytes(8, "little"))
            with path.open("rb") as file:
                if n_bytes <= WHOLE_BYTES:
                    while block := file.read(2**22):
                        digest.update(block)
                    continue
                for sample in range(N_SAMPLES):
                    file.seek((n_bytes - SAMPLE_BYTES) * sample // (N_SAMPLES - 1))
                    digest.update(file.read(SAMPLE_BYTES))
    except OSError:
        return "unreadable"  # it is rejected by name when it is opened
    return digest.hexdigest()
