"""Artifacts: folders with a manifest, written beside their target and renamed when whole."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

from ecofm.errors import ArtifactError

SCHEMA = 1
MANIFEST = "manifest.json"
MADE_BY = {
    "archive": "ecofm tile",
    "encoder": "ecofm pretrain",
    "embeddings": "ecofm embed",
    "clusters": "ecofm cluster",
    "ranker": "ecofm rank",
    "scores": "ecofm score",
    "change": "ecofm change",
    "report": "ecofm benchmark",
}


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


def hash_file(path: Path) -> str:
    """Return the sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_input(path: Path) -> str:
    """Return the hash that stands for an input: of its manifest, or of the file itself."""
    return hash_file(path / MANIFEST if path.is_dir() else path)


def write_json(path: Path, value: Any) -> None:
    """Write JSON beside `path` and rename it: a reader sees all of it or nothing."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file beside `path`, fsync and rename it."""
    beside = path.with_name(f".{path.name}.partial")
    with beside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def read_json(path: Path) -> Any:
    """Read JSON; raises ArtifactError with the file's name when it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be read as JSON ({error}); make it again.") from error


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
    manifest = read_json(path)
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        found = manifest.get("schema") if isinstance(manifest, dict) else type(manifest).__name__
        raise ArtifactError(
            f"{path} has schema {found}, expected {SCHEMA}; make it again with `{command}`."
        )
    if manifest.get("stage") != stage:
        raise ArtifactError(
            f"{folder} holds {manifest.get('stage')}, expected {stage}; "
            f"give the folder that `{command}` wrote."
        )
    return manifest


class Draft:
    """An artifact in the making.

    `done` is true when `out` already holds the result of the same config and inputs. Used as a
    context manager it gives a folder beside `out`; on success the manifest is added and the
    folder renamed to `out`, on failure nothing stays.
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
        """Check the target; raises ArtifactError when it holds something else."""
        self.out = out
        self.extra: dict[str, Any] = {}
        self.manifest = build_manifest(stage, config, inputs)
        self._partial = out.parent / f".{out.name}.partial"
        self._old = out.parent / f".{out.name}.old"
        if self._old.exists() and not out.exists():
            # A kill came between the two renames of an overwrite: the old artifact is still good.
            self._old.rename(out)
        self.done = holds_same(out, self.manifest, overwrite)

    def __enter__(self) -> Path:
        """Make the folder to write into, removing what an earlier kill left there."""
        shutil.rmtree(self._partial, ignore_errors=True)
        try:
            self._partial.mkdir(parents=True)
        except OSError as error:
            raise ArtifactError(
                f"{self.out} cannot be written ({error.strerror}); choose another --out."
            ) from error
        return self._partial

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        """Rename the folder to its target, or remove it after an error."""
        if kind is not None:
            shutil.rmtree(self._partial, ignore_errors=True)
            return
        write_json(self._partial / MANIFEST, {**self.manifest, **self.extra})
        sync_folder(self._partial)
        shutil.rmtree(self._old, ignore_errors=True)
        if self.out.exists():
            self.out.rename(self._old)
        self._partial.rename(self.out)
        shutil.rmtree(self._old, ignore_errors=True)


def build_manifest(
    stage: str, config: Mapping[str, Any], inputs: Mapping[str, str]
) -> dict[str, Any]:
    """Return what every manifest holds; no time, host or absolute path."""
    from ecofm import __version__

    return {
        "schema": SCHEMA,
        "stage": stage,
        "config": json.loads(json.dumps(config)),
        "inputs": dict(inputs),
        "ecofm": __version__,
        "git_commit": _git_commit(),
    }


def holds_same(out: Path, manifest: Mapping[str, Any], overwrite: bool) -> bool:
    """Return whether `out` is the finished result of the same stage, config and inputs.

    Raises ArtifactError when `out` holds anything else and `overwrite` is false; a folder that
    is no artifact is never overwritten.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    if not (out / MANIFEST).is_file():
        raise ArtifactError(f"{out} holds files that ecofm did not write; choose another --out.")
    found = read_json(out / MANIFEST)
    if all(found.get(key) == manifest[key] for key in ("schema", "stage", "config", "inputs")):
        return True
    if overwrite:
        return False
    raise ArtifactError(
        f"{out} holds {found.get('stage')} of another config or input; "
        "give --overwrite to replace it, or another --out."
    )


def sync_folder(folder: Path) -> None:
    """Flush every file of a folder to the disk, so that the rename never gets ahead of the data."""
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
