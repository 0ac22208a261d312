"""Checksums: each file of an artifact has its sha256 in the manifest, which has one of its own.

What `sha256sum` prints can be compared with the manifest by hand. The pixels of an archive are
the exception: every tile has a checksum in the index, see `ecofm.tiles.archive`.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ecofm.errors import ArtifactError
from ecofm.files import FileError, require_file
from ecofm.types import say

MANIFEST = "manifest.json"
SHARDS = "shards"
SETTLED_S = 2.0
"""A file written so shortly ago may change again without another time of change."""
MADE_BY = {
    "archive": "ecofm tile",
    "items": "ecofm tile",
    "encoder": "ecofm pretrain",
    "embeddings": "ecofm embed",
    "clusters": "ecofm cluster",
    "agreement": "ecofm compare report",
    "ranker": "ecofm rank",
    "transfer": "ecofm transfer --curve",
    "scores": "ecofm score",
    "change": "ecofm change",
    "report": "ecofm benchmark",
    "robustness": "ecofm robustness",
}


_hashes: dict[tuple[str, int, int, int], str] = {}
_unsealed: set[Path] = set()


def hash_file(path: Path) -> str:
    """Return the sha256 of a file's bytes, in hexadecimal.

    Raises FileError for what is no file, as a device, which would never end.
    """
    try:
        require_file(path)
    except FileError as error:
        raise FileError(f"{path} cannot be read: {error}") from error
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_once(path: Path) -> str:
    """Return a file's sha256; the file is read once in a process while it does not change."""
    told = path.stat()
    key = (str(path), told.st_size, told.st_mtime_ns, told.st_ino)
    if key not in _hashes:
        found = hash_file(path)
        if time.time() - told.st_mtime < SETTLED_S:
            return found
        _hashes[key] = found
    return _hashes[key]


def seal(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields as JSON holds them, with the checksum of all of them."""
    stored: dict[str, Any] = json.loads(json.dumps(fields, allow_nan=False))
    stored.pop("checksum", None)
    return {**stored, "checksum": _digest(stored)}


def is_whole(fields: Mapping[str, Any]) -> bool:
    """Return whether fields have the checksum that `seal` gave; older ones without are taken."""
    own = {name: value for name, value in fields.items() if name != "checksum"}
    if "checksum" not in fields:
        return "files" not in fields
    return bool(fields["checksum"] == _digest(own))


def _digest(fields: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def describe_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Return size and sha256 of an artifact's files, flushed to the disk, by their path in it.

    The manifest is left out, and so are the shards of an archive.
    """
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name != MANIFEST and name.split("/")[0] != SHARDS:
            found[name] = describe_file(path)
    return found


def describe_file(path: Path) -> dict[str, Any]:
    """Return the size and the sha256 of a file."""
    return {"bytes": path.stat().st_size, "sha256": hash_file(path)}


def open_file(folder: Path, manifest: Mapping[str, Any], name: str) -> Path:
    """Return the path of a file of an artifact, whose bytes are those that were written.

    It is read for that once in a process. Raises ArtifactError, with the command that makes it
    again, when it is missing or has changed. Artifacts of before the checksums give a warning.
    """
    fault = find_fault(folder, manifest, name)
    if fault is not None:
        raise ArtifactError(f"{fault}; {remake(str(manifest.get('stage')))}.")
    return folder / name


def find_fault(
    folder: Path, manifest: Mapping[str, Any], name: str, path: Path | None = None
) -> str | None:
    """Return what is wrong with a file of an artifact, None when it is as it was written.

    `path` is where it lies, if not under its name.
    """
    path, files = path or folder / name, manifest.get("files")
    if not path.is_file():
        return f"{path} is missing"
    if files is None:
        _warn_unsealed(folder, str(manifest.get("stage")))
        return None
    entry = files.get(name) if isinstance(files, dict) else None
    if not isinstance(entry, dict) or "sha256" not in entry:
        return f"{folder / MANIFEST} has no checksum of {name}"
    if (n_bytes := path.stat().st_size) != entry.get("bytes", n_bytes):
        return f"{path} is damaged: it has {n_bytes} bytes, and had {entry['bytes']}"
    if (found := hash_once(path)) != entry["sha256"]:
        return f"{path} is damaged: its sha256 is {found}, and was {entry['sha256']}"
    return None


def find_faults(folder: Path, manifest: Mapping[str, Any]) -> str | None:
    """Return what is wrong with an artifact: the first fault of its manifest and its files."""
    if not is_whole(manifest):
        return f"{folder / MANIFEST} is damaged: it does not have its own checksum"
    files = manifest.get("files")
    for name in files if isinstance(files, dict) else ():
        if Path(name).is_absolute() or ".." in Path(name).parts:
            return f"{folder / MANIFEST} names a file outside its folder"
        if fault := find_fault(folder, manifest, name):
            return fault
    return None


def remake(stage: str) -> str:
    """Return what makes an artifact of a stage again, as the end of a sentence."""
    # The command that trained an encoder takes it from the last checkpoint.
    more = "" if stage == "encoder" else " and --overwrite"
    return f"make it again with `{MADE_BY.get(stage, 'ecofm')}`{more}"


def _warn_unsealed(folder: Path, stage: str) -> None:
    if folder not in _unsealed:
        _unsealed.add(folder)
        say(
            f"warning: {folder} was made before artifacts had checksums, so damage to its files "
            f"goes unnoticed; {remake(stage)} to have them."
        )
