"""The target of `tile`: an archive that is begun, continued, grown or replaced, never torn."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import geopandas as gpd
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ecofm import artifact
from ecofm.checksums import describe_file, find_fault
from ecofm.errors import ArtifactError
from ecofm.tiles.archive import INDEX, REJECTED, SCENES, TABLES, next_of, table_checksums

PLAN = "plan.json"


def is_begun(out: Path) -> bool:
    """Return whether `out` is an archive that was begun and not finished."""
    return (out / PLAN).is_file() and not (out / artifact.MANIFEST).exists()


def begin(out: Path, manifest: dict[str, Any], overwrite: bool) -> None:
    """Make the folder with its plan in one step; what it replaces waits aside until the end."""
    target, old = out.resolve(), artifact.set_aside(out)
    if is_begun(out):
        if artifact.is_same(artifact.read_sealed(out / PLAN), manifest):
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
        artifact.write_sealed(beside / PLAN, manifest)
        beside.rename(target)
    except OSError as error:
        shutil.rmtree(beside, ignore_errors=True)
        withdraw(out, 0)
        raise artifact.unwritable(out, error) from error


def begin_growth(out: Path, manifest: dict[str, Any], first_shard: int) -> None:
    """Note what is to be added to a finished archive; what another growth left is removed."""
    path = out / PLAN
    if path.is_file() and artifact.is_same(artifact.read_sealed(path), manifest):
        return
    drop_shards(out, first_shard)
    try:
        artifact.write_sealed(path, manifest)
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


def write_index(out: Path, parts: Iterable[gpd.GeoDataFrame | pa.RecordBatch]) -> None:
    """Write the next index beside the present one, some rows at a time.

    Parts are tables as `Archive.index` is, or batches of another index.
    """
    writer: pq.ParquetWriter | None = None
    try:
        for part in parts:
            table = _table_of(part)
            # The first part says how columns are stored; of chips, for one, all geometry is null.
            writer = writer or pq.ParquetWriter(_place(out, INDEX), table.schema)
            writer.write_table(table.select(writer.schema.names).cast(writer.schema))
    except OSError as error:
        raise artifact.unwritable(out, error) from error
    finally:
        if writer is not None:
            writer.close()


def _table_of(part: gpd.GeoDataFrame | pa.RecordBatch) -> pa.Table:
    """Return rows of the index as they are stored, with GeoParquet's metadata."""
    if isinstance(part, pa.RecordBatch):
        table = pa.Table.from_batches([part])
    else:
        stored = io.BytesIO()
        part.to_parquet(stored, index=False)
        table = pq.read_table(stored)
    told = dict(table.schema.metadata)
    geo = json.loads(told[b"geo"])
    told_of = geo["columns"]["geometry"]
    # It would be the box of the first rows, and their types: cells may be cut further on.
    told_of.pop("bbox", None)
    if told_of["geometry_types"]:
        told_of["geometry_types"] = ["MultiPolygon", "Polygon"]
    return table.replace_schema_metadata({**told, b"geo": json.dumps(geo).encode()})


def _place(out: Path, name: str) -> Path:
    """Return where a table is written: a finished archive keeps its own until the manifest."""
    return next_of(out / name) if (out / artifact.MANIFEST).exists() else out / name


def commit(
    out: Path,
    manifest: dict[str, Any],
    rejected: pd.DataFrame,
    scenes: gpd.GeoDataFrame | None = None,
) -> None:
    """Write the small tables and, last, the manifest: with its rename the archive is the new one.

    The index was written before (`write_index`), or stays. New tables lie beside the old ones
    until then, and a reader takes those whose checksums the manifest has.
    """
    try:
        for path in (out / "shards").glob("*.partial"):  # of a killed run
            path.unlink()
        rejected.to_parquet(_place(out, REJECTED))
        if scenes is not None:
            scenes.to_parquet(_place(out, SCENES))
        else:
            next_of(out / SCENES).unlink(missing_ok=True)  # of a killed run too
        artifact.sync_folder(out)
        files = {**table_checksums(manifest).get("files", {})}
        for name in TABLES:
            path = _place(out, name)
            # What an older archive has beside its index gets its first checksum here.
            path = path if path.exists() or name in files else out / name
            if path.exists():
                files[name] = describe_file(path)
        rest = {key: value for key, value in manifest.items() if key != "index_hash"}
        artifact.write_sealed(out / artifact.MANIFEST, {**rest, "files": files})
        tidy(out)
    except OSError as error:
        raise artifact.unwritable(out, error) from error


def tidy(out: Path) -> None:
    """Do what is left after the manifest: also after a kill between its rename and here."""
    for name in TABLES:
        beside = next_of(out / name)
        if beside.exists():
            manifest = table_checksums(artifact.read_manifest(out, "archive"))
            if find_fault(out, manifest, name, beside) is None:
                beside.replace(out / name)
            else:
                beside.unlink()
    if (out / PLAN).exists():  # else nothing is written, as on a read-only disk
        (out / PLAN).unlink()
    shutil.rmtree(artifact.set_aside(out), ignore_errors=True)


def give_up_growth(out: Path) -> None:
    """Remove what a growth that was not finished left in a finished archive."""
    first_shard = artifact.read_manifest(out, "archive").get("n_shards")
    if (out / PLAN).exists() and first_shard is not None:
        drop_shards(out, int(first_shard))
