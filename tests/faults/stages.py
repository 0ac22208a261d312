"""Attacks on every stage while it writes: kills, signals, a second process, a full disk.

After each the target is absent, wholly old or wholly new, and the same command makes the same
bytes as an unbroken run and leaves nothing beside them.
"""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from random import Random

from tests.faults.forge import Command, Ended, run, run_together
from tests.faults.lab import Lab, clear, digest, digests, find_litter
from tests.faults.outcomes import Outcome, Try

Part = Callable[[Random, Path], Iterator[Try]]
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
MIN_FILE_BYTES = 4096
"""What a command says goes to a file too, and must have room."""


@dataclass
class Target:
    """A stage's target in a folder of its own, before and after the unbroken command."""

    lab: Lab
    name: str
    work: Path
    overwrite: bool

    @cached_property
    def out(self) -> Path:
        return self.work / "try" / "out"

    @cached_property
    def stage(self):
        return self.lab.stages[self.name]

    @cached_property
    def old(self) -> tuple[str | None, ...]:
        """What is there before: nothing, or the other result."""
        if not self.overwrite:
            return tuple(None for _ in self.stage.parts)
        place = clear(self.work / "old") / "out"
        ended = run(self.lab.command(self.name, place, other=True))
        assert ended.code == 0, ended.said
        return digests(place, self.stage.parts)

    @cached_property
    def unbroken(self) -> Ended:
        """The command without an attack."""
        self.prepare()
        ended = run(self.command())
        assert ended.code == 0, f"{self.name}: {ended.said}"
        assert not find_litter(self.out), find_litter(self.out)
        return ended

    @cached_property
    def new(self) -> tuple[str | None, ...]:
        """What the unbroken command makes."""
        assert self.unbroken
        return digests(self.out, self.stage.parts)

    def prepare(self) -> None:
        """Put the target back as it was before."""
        old = self.old
        clear(self.out.parent)
        if any(old):
            source = self.work / "old" / "out"
            if source.is_file():
                shutil.copy2(source, self.out)
            else:
                shutil.copytree(source, self.out)

    def command(self, **attack) -> Command:
        return self.lab.command(self.name, self.out, overwrite=self.overwrite, **attack)

    def judge(self, ended: Ended, what: str, good: Outcome = Outcome.harmless) -> Try:
        """Look at the target after an attack, and run the command again."""
        what = f"{self.name}{' --overwrite' if self.overwrite else ''}, {what}"
        if fault := self._find_torn():
            return Try(Outcome.silent, f"{what}: {fault}")
        if self._is_lost():
            return Try(Outcome.lost, f"{what}: what was there before is gone")
        again = run(self.command())
        if again.code is None:
            return Try(Outcome.hung, f"{what}; again: {again.tail}")
        if again.broke:
            return Try(Outcome.traceback, f"{what}; again: {again.tail}")
        if again.code:
            return Try(Outcome.lost, f"{what}; again: {again.tail}")
        if digests(self.out, self.stage.parts) != self.new:
            return Try(Outcome.silent, f"{what}; again: other bytes than the unbroken run")
        if litter := find_litter(self.out):
            return Try(Outcome.litter, f"{what}; again: {litter}")
        return Try(good, what)

    def _find_torn(self) -> str | None:
        found = digests(self.out, self.stage.parts)
        for part, now, old, new in zip(self.stage.parts, found, self.old, self.new, strict=True):
            if now not in (None, old, new):
                return f"{part or 'the result'} is neither the old nor the new one"
        return None

    def _is_lost(self) -> bool:
        """Whether an old artifact is neither there nor aside; runs are begun anew in place."""
        if self.name == "pretrain":
            return False
        for part, old, new in zip(self.stage.parts, self.old, self.new, strict=True):
            place = self.out / part if part else self.out
            aside = place.with_name(f".{place.name}.old")
            if old and digest(place) not in (old, new) and digest(aside) != old:
                return True
        return False


def kill(lab: Lab, name: str, overwrite: bool, n: int, random: Random, work: Path) -> Iterator[Try]:
    """SIGKILL, by turns before a change of the file system and at any time."""
    target = Target(lab, name, work, overwrite)
    assert target.new
    for number in range(n):
        target.prepare()
        if number % 2:
            after = random.uniform(0, target.unbroken.seconds)
            attack = {"signal_after": (signal.SIGKILL, after)}
            what = f"killed after {after:.3f} s"
        else:
            change = random.randint(1, target.unbroken.changes)
            attack = {"kill_at": change}
            what = f"killed before change {change} of {target.unbroken.changes}"
        ended = run(target.command(**attack))
        yield target.judge(ended, what)


BEGUN_S = 0.05


def interrupt(lab: Lab, name: str, n: int, random: Random, work: Path) -> Iterator[Try]:
    """The signals that people and schedulers send, at any time."""
    target = Target(lab, name, work, overwrite=False)
    assert target.new
    for number in range(n):
        target.prepare()
        sent = SIGNALS[number % len(SIGNALS)]
        # A fork that has not yet begun its command is not the command.
        after = BEGUN_S + random.uniform(0, target.unbroken.seconds)
        ended = run(target.command(signal_after=(sent, after)))
        what = f"{sent.name} after {after:.3f} s"
        heeded = ended.code == 1 and "stopped by" in ended.said
        if ended.code is None:
            yield Try(Outcome.hung, f"{name}, {what}")
        elif "Traceback" in ended.said or ended.code == 70:
            yield Try(Outcome.traceback, f"{name}, {what}: {ended.tail}")
        elif ended.code not in (0, -sent, 128 + sent) and not heeded:
            yield Try(Outcome.traceback, f"{name}, {what}: exit code {ended.code}: {ended.tail}")
        else:
            yield target.judge(ended, what)


def race(lab: Lab, name: str, n: int, random: Random, work: Path) -> Iterator[Try]:
    """Two processes on one target: the same, another result, or one that is killed later."""
    target = Target(lab, name, work, overwrite=False)
    assert target.new
    other = Target(lab, name, work / "other", overwrite=True).old
    for number in range(n):
        target.prepare()
        delay = random.uniform(0, target.unbroken.seconds)
        kind = ("the same", "another", "one killed")[number % 3]
        attack = {}
        if kind == "one killed":
            attack = {"signal_after": (signal.SIGKILL, random.uniform(0.5, 2) * (delay + 0.1))}
        second = target.lab.command(
            name, target.out, other=kind == "another", delay_s=delay, **attack
        )
        both = run_together([target.command(), second])
        yield _judge_race(target, other, both, f"two processes, {kind} after {delay:.3f} s")


def _judge_race(target: Target, other: tuple[str | None, ...], both: list[Ended], what: str) -> Try:
    what = f"{target.name}, {what}: {[ended.code for ended in both]}"
    first, second = both
    if first.code is None or second.code is None:
        return Try(Outcome.hung, what)
    for ended in both:
        if ended.broke and ended.code != -signal.SIGKILL:
            return Try(Outcome.traceback, f"{what}: {ended.tail}")
    if "another" in what and target.name != "compare import":
        found = digests(target.out, target.stage.parts)
        if found not in (target.new, other):
            return Try(Outcome.silent, f"{what}: the result is of neither; {first.tail}")
        if litter := find_litter(target.out):
            return Try(Outcome.litter, f"{what}: {litter}")
        good = Outcome.harmless if first.code == second.code == 0 else Outcome.noticed
        return Try(good, what)
    if target.name == "compare import" and "another" in what:
        return Try(Outcome.harmless if first.code == second.code == 0 else Outcome.noticed, what)
    if first.code != 0 and second.code != 0:
        return Try(Outcome.lost, f"{what}: neither wrote: {first.tail}")
    if digests(target.out, target.stage.parts) != target.new:
        return Try(Outcome.silent, f"{what}: other bytes than the unbroken run")
    return target.judge(first, what)


def fill(lab: Lab, name: str, n: int, random: Random, work: Path) -> Iterator[Try]:
    """No file may grow beyond some bytes, as on a full disk."""
    target = Target(lab, name, work, overwrite=False)
    assert target.new
    largest = max(p.stat().st_size for p in target.out.parent.rglob("*") if p.is_file())
    for _ in range(n):
        target.prepare()
        limit = random.randint(MIN_FILE_BYTES, max(MIN_FILE_BYTES + 1, largest))
        ended = run(target.command(max_file_bytes=limit))
        what = f"no file above {limit} bytes"
        if ended.code is None:
            yield Try(Outcome.hung, f"{name}, {what}")
        elif ended.broke or (ended.code and not ended.refused):
            yield Try(Outcome.traceback, f"{name}, {what}: {ended.code} {ended.tail}")
        else:
            good = Outcome.noticed if ended.code else Outcome.harmless
            yield target.judge(ended, what, good)


def parts_of_kills(lab: Lab, n: int) -> dict[str, Part]:
    """Return the attack of each stage, with and without `--overwrite`."""
    return {
        f"{name}{' --overwrite' if overwrite else ''}": partial(kill, lab, name, overwrite, n)
        for name in lab.stages
        for overwrite in (False, True)
    }


def parts_of(attack: Callable[..., Iterator[Try]], lab: Lab, n: int) -> dict[str, Part]:
    """Return one attack on each stage."""
    return {name: partial(attack, lab, name, n) for name in lab.stages}
