"""`ecofm compare serve|import|export|invite|names|recover|consensus|report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ecofm import compare
from ecofm.artifact import read_manifest
from ecofm.compare.answers import MAX_SHOWN
from ecofm.compare.app import ServeConfig
from ecofm.compare.consensus import ConsensusConfig
from ecofm.compare.exchange import name_rejected
from ecofm.errors import UsageError
from ecofm.types import print_result, say
from ecofm.verbs.outcome import conclude


def serve_(*, config: Annotated[ServeConfig, Parameter(name="*")]) -> None:
    """Serve the page on which people compare; stop it with Ctrl-C.

    Args:
        config: What is compared and where votes are kept.
    """
    compare.serve(config)


def import_(*file: Path, store: Path, strict: bool = False) -> None:
    """Read comparisons or orderings into a store.

    An outcome is left, right, tie or skip; l, r, tied, equal, same, draw, =, skipped, can't tell,
    cannot tell, unsure and ? are read so too. Items 01 and 1.0 are 1. Capitals, outer blanks and
    blank rows count for nothing. What cannot be read is left out and named; a file that is mostly
    at fault is refused, and then nothing is written.

    Args:
        file: CSV (commas, semicolons or tabs) or Parquet: annotator, left, right, outcome or
            annotator, ordering; Label Studio's Pairwise tag as JSON, JSON-MIN or CSV; .txt of
            lines a<b and a=b, named by its annotator; another store.
        store: The store; it is made when it does not exist.
        strict: Import nothing when anything cannot be read.
    """
    if not file:
        raise UsageError("name the files to import, CSV or Parquet.")
    found = compare.import_files(file, store, strict=strict)
    left_out = found.rejected
    for sentence in left_out[:MAX_SHOWN]:
        say(sentence)
    say(f"{store}: {found.n_added} comparisons added, {found.n_known} known already")
    if left_out:
        were = "answer was" if len(left_out) == 1 else "answers were"
        say(f"{len(left_out)} {were} left out; {name_rejected(store)} names each with its reason.")


def export_(*, store: Path, out: Path, annotator: str | None = None, full: bool = False) -> None:
    """Write a store's comparisons.

    Args:
        store: The store.
        out: The file; its suffix decides: .csv, .parquet, .json for Label Studio, or .txt for one
            annotator's ordering file (lines a<b and a=b).
        annotator: Only what this annotator said.
        full: With side shown, reason asked, response time, time and version, in CSV or Parquet.
    """
    say(f"{out}: {compare.export(store, out, annotator, full=full)} comparisons")


def invite_(
    *name: str, store: Path, url: str = "http://127.0.0.1:8000", revoke: bool = False
) -> None:
    """Print one secret link for each annotator; whoever has it answers as them.

    A name with an invitation cannot be entered by password. For an annotator whose browser or link
    is lost, invite them again; their earlier answers become theirs to see and delete.

    Args:
        name: The annotators.
        store: The store; it is made when it does not exist.
        url: Where browsers reach the server.
        revoke: End their links and sessions instead; the name stays closed until it is invited.
    """
    if not name:
        raise UsageError("name the annotators to invite.")
    for annotator, link in compare.invite(name, store, url, revoke=revoke):
        print_result(f"{annotator}\t{link}")


def names_(*, store: Path) -> None:
    """List each annotator's answers, whether the name is claimed, and how many links are valid.

    Args:
        store: The store.
    """
    print_result("annotator\tanswers\tclaimed\tlinks")
    for found in compare.list_names(store):
        claimed = "yes" if found.is_claimed else "no"
        print_result(f"{found.annotator}\t{found.n_votes}\t{claimed}\t{found.n_links}")


def recover_(*, store: Path, out: Path) -> None:
    """Save what can be read of a damaged store in a new one.

    Args:
        store: The damaged store; it is left as it is.
        out: The new store.
    """
    found = compare.recover(store, out)
    for sentence in found.lost[:MAX_SHOWN]:
        say(sentence)
    say(f"{out}: {found.n_kept} comparisons saved, {found.n_lost} rows of {store} lost")


def consensus_(
    *,
    store: Path,
    out: Path,
    config: Annotated[ConsensusConfig | None, Parameter(name="*")] = None,
) -> None:
    """Write what the annotators agree on: item, score, lower, upper; higher is more developed.

    Args:
        store: A store, or a CSV or Parquet file of comparisons.
        out: CSV or Parquet by suffix.
        config: The consensus model.
    """
    compare.write_consensus(store, out, config or ConsensusConfig())
    say(f"{out}: the consensus")


def report_(
    *,
    store: Path,
    out: Path,
    config: Annotated[ConsensusConfig | None, Parameter(name="*")] = None,
    overwrite: bool = False,
) -> None:
    """Write what annotators agree on and where they differ: tables, pictures and report.md.

    Args:
        store: A store, or a CSV or Parquet file of comparisons.
        out: The folder.
        config: The consensus model.
        overwrite: Replace another report that OUT holds.
    """
    compare.write_report(store, out, config, overwrite=overwrite)
    found = read_manifest(out, "agreement")
    conclude(
        out,
        f"{found['n_annotators']} annotators, {found['n_disputes']} pairs in dispute; "
        f"{found['n_doubtful']} of the annotators not shown to be better than chance",
    )
