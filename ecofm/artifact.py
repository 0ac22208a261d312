"""Artifacts: folders with a manifest, written beside their target and renamed when whole."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import Enum
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

from ecofm.checksums import (
    MADE_BY,
    MANIFEST,
    describe_files,
    find_faults,
    hash_file,
    is_whole,
    remake,
    seal,
)
from ecofm.disk import describe_refusal, find_refusal, unwritable
from ecofm.errors import ArtifactError, EcofmError, UsageError
from ecofm.fields import Partial, read_fields, require_finite
from ecofm.files import read_file, reason_of
from ecofm.lock import Lock
from ecofm.types import say

__all__ = [
    "MADE_BY", "MANIFEST", "SCHEMA", "Draft", "build_manifest", "hash_file", "hash_input",
    "hash_inputs", "holds_same", "is_same", "plain", "read_json", "read_manifest", "read_sealed",
    "recover", "set_aside", "sync_folder", "unwritable", "write_json", "write_sealed", "write_text",
]  # fmt: skip
SCHEMA = 1
MAX_JSON_BYTES = 2**30
OWN_FIELDS = frozenset(
    {"schema", "stage", "config", "inputs", "ecofm", "git_commit", "files", "checksum"}
)
"""What the writer puts into every manifest; all other fields are the stage's."""


@dataclass(frozen=True, slots=True)
class Common(Partial):
    """What the manifests of all stages may hold, beside their schema and stage."""

    config: dict[str, Any] = field(default_factory=dict)
    """The stage's options."""
    inputs: dict[str, str] = field(default_factory=dict)
    """The hash of each input by its name."""


@cache
def _git_commit() -> str | None:
    """Return the commit of the checkout that this code runs from, None when installed."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None
    found = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=False
    )
    return found.stdout.strip() or None


def hash_input(path: Path) -> str:
    """Return the hash that stands for an input: of its manifest, or of the file itself."""
    return hash_file(path / MANIFEST if path.is_dir() else path)


def hash_inputs(**named: Path | Sequence[Path] | None) -> dict[str, str]:
    """Return the hash of each input by its name; the paths of a list are numbered from 0.

    None stands for an input that was not given.
    """
    hashes: dict[str, str] = {}
    for name, given in named.items():
        if isinstance(given, Path):
            hashes[name] = hash_input(given)
        else:
            hashes |= {f"{name}{n}": hash_input(path) for n, path in enumerate(given or ())}
    return hashes


def write_json(path: Path, value: Any) -> None:
    """Write JSON beside `path` and rename it: a reader sees all of it or nothing."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n")


def write_sealed(path: Path, fields: Mapping[str, Any]) -> None:
    """Write JSON with the checksum of its fields."""
    write_json(path, seal(fields))


def read_sealed(path: Path) -> dict[str, Any]:
    """Read what `write_sealed` wrote; raises ArtifactError when a byte of it says another thing."""
    found = read_json(path)
    if not isinstance(found, dict) or not is_whole(found):
        raise ArtifactError(f"{path} is damaged: it does not have its own checksum.")
    return found


def write_text(path: Path, text: str) -> None:
    """Write a text file beside `path`, fsync and rename it."""
    beside = path.with_name(f".{path.name}.partial")
    try:
        with beside.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def read_json(path: Path) -> Any:
    """Read JSON; raises ArtifactError with the file's name when it is damaged."""
    try:
        return json.loads(read_file(path, MAX_JSON_BYTES).decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError(
            f"{path} cannot be read as JSON ({reason_of(error)}); make it again."
        ) from error


def read_manifest(folder: Path, stage: str) -> dict[str, Any]:
    """Return the manifest of an artifact that `stage` wrote.

    Raises ArtifactError when there is none, or it is of another stage or schema; the sentence
    names the command that makes the right one.
    """
    command = MADE_BY[stage]
    path = folder / MANIFEST
    if not path.is_file():
        found = "does not exist" if not folder.exists() else f"has no {MANIFEST}"
        raise ArtifactError(f"{folder} {found}: expected {stage}; make it with `{command}`.")
    try:
        manifest = read_json(path)
    except ArtifactError as error:
        raise ArtifactError(
            f"{path} cannot be read ({error.__cause__}); make it again with `{command}`."
        ) from error
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        schema = manifest.get("schema") if isinstance(manifest, dict) else type(manifest).__name__
        raise ArtifactError(
            f"{path} has schema {schema}, expected {SCHEMA}; make it again with `{command}`."
        )
    if manifest.get("stage") != stage:
        raise ArtifactError(
            f"{folder} holds {manifest.get('stage')}, expected {stage}; "
            f"give the folder that `{command}` wrote."
        )
    if not is_whole(manifest):
        raise ArtifactError(
            f"{path} is damaged: it does not have its own checksum; {remake(stage)}."
        )
    try:
        read_fields(Common, manifest)
    except UsageError as error:
        raise ArtifactError(f"{path}: {error} Make it again with `{command}`.") from error
    return manifest


class Draft:
    """An artifact in the making.

    `done` is true when `out` already holds the result of the same config and inputs. Used as a
    context manager it gives a folder beside `out`; on success the manifest is added, with the
    checksum of every file, and the folder renamed to `out`; on failure nothing stays. From its
    first moment until then no other process writes `out`.
    """

    def __init__(
        self,
        out: Path,
        *,
        stage: str,
        config: Mapping[str, Any],
        inputs: Mapping[str, str],
        overwrite: bool = False,
    ) -> None:
        """Check the target.

        Raises ArtifactError when it holds something else, is being written by another process, or
        can be written by nobody.
        """
        self.out = out
        self.extra: dict[str, Any] = {}
        self.manifest = build_manifest(stage, config, inputs)
        # Resolved, so that a link stays one and the renames stay on the target's filesystem.
        self._target = out.resolve()
        self._partial = self._target.with_name(f".{self._target.name}.partial")
        self._old = set_aside(out)
        self._lock = Lock(out, stage)
        self._lock.take()
        try:
            recover(out)
            self.done = holds_same(out, self.manifest, overwrite)
            if not self.done:
                self._lock.require()
        except BaseException:
            self._lock.release()
            raise
        if self.done:
            self._lock.release()

    def __enter__(self) -> Path:
        """Make the folder to write into, removing what an earlier kill left there."""
        self._lock.__enter__()
        try:
            self._lock.require()
            shutil.rmtree(self._partial, ignore_errors=True)
            self._partial.mkdir()
        except (OSError, ArtifactError) as error:
            self._lock.__exit__(None, None, None)
            if isinstance(error, ArtifactError):
                raise
            raise unwritable(self.out, error) from error
        return self._partial

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        """Rename the folder to its target, or remove it after an error.

        Raises ArtifactError when that was a disk that takes no more.
        """
        try:
            if kind is None:
                self._commit()
            else:
                self._report(error)
        except OSError as failure:
            raise unwritable(self.out, failure) from failure
        finally:
            shutil.rmtree(self._partial, ignore_errors=True)
            self._lock.__exit__(None, None, None)

    def _report(self, error: BaseException | None) -> None:
        """Raise the sentence of a full disk in the place of whatever a library makes of it."""
        refused = find_refusal(error) if not isinstance(error, EcofmError) else None
        # Of files elsewhere, which are read, the error itself tells more.
        is_elsewhere = refused and not str(refused.filename or self._partial).startswith(
            str(self._partial)
        )
        if refused and not is_elsewhere:
            raise ArtifactError(describe_refusal(self.out, refused)) from error

    def _commit(self) -> None:
        files = describe_files(self._partial)
        write_sealed(self._partial / MANIFEST, {**self.manifest, **self.extra, "files": files})
        sync_folder(self._partial)
        shutil.rmtree(self._old, ignore_errors=True)
        if self._target.exists():
            self._target.rename(self._old)
        self._partial.rename(self._target)
        sync(self._target.parent)
        shutil.rmtree(self._old, ignore_errors=True)


def set_aside(out: Path) -> Path:
    """Return where the artifact at `out` waits while another takes its place."""
    target = out.resolve()
    return target.with_name(f".{target.name}.old")


def recover(out: Path) -> None:
    """Bring back what a kill between the two renames of an overwrite left aside.

    After both, the new artifact stands whole, and the old one is removed.
    """
    old, target = set_aside(out), out.resolve()
    if not old.exists():
        return
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        old.rename(target)
    elif (target / MANIFEST).is_file():
        shutil.rmtree(old, ignore_errors=True)


def plain(config: Any) -> dict[str, Any]:
    """Return a config dataclass as values that JSON holds: enumerations by their value."""

    def simplify(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: simplify(inner) for name, inner in value.items()}
        return value.value if isinstance(value, Enum) else value

    fields: dict[str, Any] = simplify(asdict(config))
    return fields


def build_manifest(
    stage: str, config: Mapping[str, Any], inputs: Mapping[str, str]
) -> dict[str, Any]:
    """Return what every manifest holds; no time, host or absolute path."""
    from ecofm import __version__

    require_finite(config, "config")
    return {
        "schema": SCHEMA,
        "stage": stage,
        "config": json.loads(json.dumps(config)),
        "inputs": dict(inputs),
        "ecofm": __version__,
        "git_commit": _git_commit(),
    }


def is_same(found: Any, manifest: Mapping[str, Any]) -> bool:
    """Return whether two manifests stand for the same result, whichever commit made it."""
    return isinstance(found, Mapping) and all(
        found.get(key) == manifest[key] for key in ("schema", "stage", "config", "inputs")
    )


def holds_same(out: Path, manifest: Mapping[str, Any], overwrite: bool) -> bool:
    """Return whether `out` is the whole result of the same stage, config and inputs.

    Raises ArtifactError when `out` holds anything else, or is damaged, and `overwrite` is false; a
    folder that is no artifact is never overwritten.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    if not out.is_dir():
        raise ArtifactError(f"{out} is no folder; choose another --out.")
    # Browser extensions and web pages have a manifest.json too.
    found = read_json(out / MANIFEST) if (out / MANIFEST).is_file() else None
    if not isinstance(found, dict) or found.get("stage") not in MADE_BY or "schema" not in found:
        raise ArtifactError(f"{out} holds files that ecofm did not write; choose another --out.")
    fault = find_faults(out, found) if is_same(found, manifest) or not is_whole(found) else None
    if fault and overwrite:
        say(f"{fault}; it is made again.")
    elif fault:
        raise ArtifactError(f"{fault}; give --overwrite to make it again.")
    if is_same(found, manifest):
        return fault is None
    if overwrite:
        return False
    raise ArtifactError(
        f"{out} holds {found['stage']} of another config or input; "
        "give --overwrite to replace it, or another --out."
    )


def sync_folder(folder: Path) -> None:
    """Flush a folder to the disk, so that the rename never gets ahead of the data."""
    for path in (*folder.rglob("*"), folder):
        sync(path)


def sync(path: Path) -> None:
    """Flush a file, or a folder's list of names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
