"""python -m tests.faults [KIND ...] [--seed N] [--scale X] [--jobs N] [--report FILE]

Attacks everything, prints what came of it and how to do it again, and fails when anything ended in
a traceback, a silent difference, a hang, a loss or litter. `make faults` runs it whole.
"""

from __future__ import annotations

import argparse
import os
import platform
import secrets
import shutil
import sys
import tempfile
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

from tests.faults.lab import Lab, clear
from tests.faults.outcomes import Ledger, Outcome, Try, write_report
from tests.faults.plan import KINDS, build_parts


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults")
    parser.add_argument("kinds", nargs="*", help=", ".join(KINDS))
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**9))
    parser.add_argument("--scale", type=float, default=1.0, help="share of the whole run")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--only", default="", help="parts with this in their name")
    parser.add_argument("--report", type=Path, help="document that the table is written to")
    given = parser.parse_args()
    if unknown := set(given.kinds) - set(KINDS):
        parser.error(f"{', '.join(unknown)}: expected {', '.join(KINDS)}")
    # Both are read by the fork server, which starts later.
    os.environ["OMP_NUM_THREADS"] = "1"
    root = Path(tempfile.mkdtemp(prefix="faults-"))
    os.environ["XDG_STATE_HOME"] = str(root / "state")
    print(f"seed {given.seed}, scale {given.scale:g}", flush=True)
    began = time.monotonic()
    ledger = Ledger()
    try:
        lab = Lab(root / "lab").build()
        attack(lab, given, ledger)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    minutes = (time.monotonic() - began) / 60
    print(f"\n{ledger.table()}\n\n{ledger.describe_faults()}".replace(str(root), "LAB"))
    print(f"\nseed {given.seed}: {ledger.n_faults} faults in {minutes:.0f} minutes")
    if given.report:
        write_report(given.report, describe(given, ledger, minutes))
    return 1 if ledger.n_faults else 0


def attack(lab: Lab, given: argparse.Namespace, ledger: Ledger) -> None:
    """Run all parts, as many at once as there are jobs."""
    found = build_parts(lab, given.scale)
    chosen = [
        (kind, name, part)
        for kind in given.kinds or KINDS
        for name, part in found[kind].items()
        if given.only in name
    ]

    def do(number: int) -> None:
        kind, name, part = chosen[number]
        # A part's attacks do not depend on which other parts run.
        random = Random(given.seed * 2**32 + zlib.crc32(f"{kind} {name}".encode()))
        since = time.monotonic()
        try:
            ledger.add(kind, name, part(random, clear(lab.root.parent / f"work{number}")))
        except Exception as error:
            ledger.add(kind, name, [Try(Outcome.lost, f"the attack itself failed: {error!r:.600}")])
        shutil.rmtree(lab.root.parent / f"work{number}", ignore_errors=True)
        print(f"{kind} {name}: {time.monotonic() - since:.0f} s", flush=True)

    with ThreadPoolExecutor(given.jobs) as pool:
        list(pool.map(do, range(len(chosen))))


def describe(given: argparse.Namespace, ledger: Ledger, minutes: float) -> str:
    """Return what the document says of this run; nothing of the machine but its cores."""
    from ecofm import __version__

    return (
        f"{time.strftime('%Y-%m-%d', time.gmtime())}, ecofm {__version__}, Python "
        f"{platform.python_version()}, {len(os.sched_getaffinity(0))} cores, seed {given.seed}, "
        f"scale {given.scale:g}: {ledger.n_faults} faults in {minutes:.0f} minutes.\n\n"
        f"{ledger.table()}"
    )


if __name__ == "__main__":
    sys.exit(main())
