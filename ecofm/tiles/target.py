"""The target of `tile`: an archive that is begun, continued, grown or replaced, never torn."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pandas as pd

from ecofm import artifact
from ecofm.errors import ArtifactError
from ecofm.tiles.archive import INDEX, NEXT_INDEX

PLAN = "plan.json"


def is_begun(out: Path) -> bool:
    """Return whether `out` is an archive that was begun and not finished."""
    return (out / PLAN).is_file() and not (out / artifact.MANIFEST).exists()


def begin(out: Path, manifest: dict[str, Any], overwrite: bool) -> None:
    """Make the folder with its plan in one step; what it replaces waits aside until the end."""
    target, old = out.resolve(), artifact.set_aside(out)
    if is_begun(out):
        if artifact.is_same(artifact.read_json(out / PLAN), manifest):
            return
        if not overwrite:
            raise ArtifactError(
                f"{out} was begun with other scenes or options; give --overwrite, or another --out."
            )
        shutil.rmtree(target)
    elif (target / artifact.MANIFEST).exists():
        shutil.rmtree(old, ignore_errors=True)
        target.rename(old)
    beside = target.with_name(f".{target.name}.partial")
    try:
        shutil.rmtree(beside, ignore_errors=True)
        (beside / "shards").mkdir(parents=True)
        artifact.write_json(beside / PLAN, manifest)
        beside.rename(target)
    except OSError as error:
        shutil.rmtree(beside, ignore_errors=True)
        withdraw(out, 0)
        raise artifact.unwritable(out, error) from error


def begin_growth(out: Path, manifest: dict[str, Any], first_shard: int) -> None:
    """Note what is to be added to a finished archive; what another growth left is removed."""
    path = out / PLAN
    if path.is_file() and artifact.is_same(artifact.read_json(path), manifest):
        return
    drop_shards(out, first_shard)
    try:
        artifact.write_json(path, manifest)
    except OSError as error:
        raise artifact.unwritable(out, error) from error


def drop_shards(out: Path, first_shard: int) -> None:
    """Remove the shards from a number on: no index names them."""
    for path in (out / "shards").glob("*"):
        if (
            path.name.partition(".")[0].isdigit()
            and int(path.name.partition(".")[0]) >= first_shard
        ):
            path.unlink()


def withdraw(out: Path, first_shard: int) -> None:
    """Undo what was begun; an archive that grew or was to be replaced is as before."""
    if (out / artifact.MANIFEST).exists():
        drop_shards(out, first_shard)
        (out / PLAN).unlink(missing_ok=True)
        return
    target, old = out.resolve(), artifact.set_aside(out)
    shutil.rmtree(target, ignore_errors=True)
    if old.exists():
        old.rename(target)


def commit(
    out: Path, manifest: dict[str, Any], index: pd.DataFrame, rejected: pd.DataFrame
) -> None:
    """Write the tables and, last, the manifest: with its rename the archive is the new one.

    The index lies beside the old one until then, and a reader takes that whose hash the manifest
    has.
    """
    beside = out / NEXT_INDEX if (out / artifact.MANIFEST).exists() else out / INDEX
    try:
        for path in (out / "shards").glob("*.partial"):  # of a killed run
            path.unlink()
        index.to_parquet(beside)
        rejected.to_parquet(out / "rejected.partial")
        artifact.sync_folder(out)
        (out / "rejected.partial").replace(out / "rejected.parquet")
        artifact.write_json(
            out / artifact.MANIFEST, {**manifest, "index_hash": artifact.hash_file(beside)}
        )
        tidy(out)
    except OSError as error:
        raise artifact.unwritable(out, error) from error


def tidy(out: Path) -> None:
    """Do what is left after the manifest: also after a kill between its rename and here."""
    if (out / NEXT_INDEX).exists():
        manifest = artifact.read_manifest(out, "archive")
        if artifact.hash_file(out / NEXT_INDEX) == manifest.get("index_hash"):
            (out / NEXT_INDEX).replace(out / INDEX)
        else:
            (out / NEXT_INDEX).unlink()
    (out / PLAN).unlink(missing_ok=True)
    shutil.rmtree(artifact.set_aside(out), ignore_errors=True)


def give_up_growth(out: Path) -> None:
    """Remove what a growth that was not finished left in a finished archive."""
    first_shard = artifact.read_manifest(out, "archive").get("n_shards")
    if (out / PLAN).exists() and first_shard is not None:
        drop_shards(out, int(first_shard))
