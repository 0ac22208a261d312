"""Disks that are full or read-only: a limit on the size of files, and where the system lets us
mount, a small file system in memory, on which mapped files end in SIGBUS as on a real full disk."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from random import Random

from tests.faults.forge import run
from tests.faults.lab import Lab, clear, digests, find_litter
from tests.faults.outcomes import Outcome, Try
from tests.faults.stages import Part, Target, fill

ENOUGH = "256m"


@contextmanager
def small_disk(place: Path) -> Iterator[Path | None]:
    """Mount a file system in memory; None where that is not allowed."""
    place.mkdir(parents=True, exist_ok=True)
    if os.geteuid() or not mount("-t", "tmpfs", "-o", f"size={ENOUGH}", "faults", str(place)):
        yield None
        return
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=False)


def mount(*words: str) -> bool:
    if shutil.which("mount") is None:
        return False
    return subprocess.run(["mount", *words], capture_output=True, check=False).returncode == 0


def run_short(lab: Lab, name: str, n: int, random: Random, work: Path) -> Iterator[Try]:
    """On a disk that is too small, or may only be read; then on the same with room."""
    target = Target(lab, name, work / "whole", overwrite=False)
    files = [path for path in target.work.rglob("*") if path.is_file()] if target.new else []
    room = sum(path.stat().st_size for path in files)
    with small_disk(clear(work) / "disk") as disk:
        if disk is None:
            return
        for number in range(n):
            out = disk / "out"
            size = random.randint(4096, max(8192, room))
            is_read_only = number % 5 == 4
            mount("-o", "remount,ro" if is_read_only else f"remount,size={size}", str(disk))
            ended = run(lab.command(name, out))
            mount("-o", f"remount,rw,size={ENOUGH}", str(disk))
            what = f"{name}, " + ("a read-only disk" if is_read_only else f"a disk of {size} bytes")
            yield judge(lab, target, out, ended, what)
            for path in disk.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def judge(lab: Lab, target: Target, out: Path, ended, what: str) -> Try:
    parts = target.stage.parts
    if ended.code is None:
        return Try(Outcome.hung, what)
    if ended.broke or (ended.code and not ended.refused):
        return Try(Outcome.traceback, f"{what}: {ended.code} {ended.tail}")
    if any(
        now not in (None, new) for now, new in zip(digests(out, parts), target.new, strict=True)
    ):
        return Try(Outcome.silent, f"{what}: neither absent nor whole")
    again = run(lab.command(target.name, out))
    if again.code or digests(out, parts) != target.new:
        return Try(Outcome.lost, f"{what}; again with room: {again.code} {again.tail}")
    if litter := find_litter(out):
        return Try(Outcome.litter, f"{what}; again with room: {litter}")
    return Try(Outcome.noticed if ended.code else Outcome.harmless, what)


def attack(lab: Lab, name: str, n: int, random: Random, work: Path) -> Iterator[Try]:
    """Half of the tries by a limit on files, half by a small disk."""
    yield from fill(lab, name, -(-n // 2), random, work / "limit")
    yield from run_short(lab, name, n // 2, random, work / "mount")


def parts(lab: Lab, n: int) -> dict[str, Part]:
    """Return the attack on each stage."""
    return {name: partial(attack, lab, name, n) for name in lab.stages}
