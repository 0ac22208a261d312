"""What came of attacks: counted by kind and part, and written as a table."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

BEGIN, END = "<!-- faults: begin -->", "<!-- faults: end -->"


class Outcome(Enum):
    """What happened; all from `traceback` on are faults."""

    noticed = "noticed"
    """Refused or named in a sentence."""
    harmless = "harmless"
    """The result is that of a run without the attack."""
    traceback = "traceback"
    """A traceback, exit code 70, or a crash of the process."""
    silent = "silent"
    """Another result, and nothing said."""
    hung = "hung"
    """Not done in the time allowed."""
    lost = "lost"
    """Data that was there, or acknowledged, is gone."""
    litter = "litter"
    """The result is right, and something half-made lies beside it."""

    @property
    def is_fault(self) -> bool:
        return self not in (Outcome.noticed, Outcome.harmless)


@dataclass(frozen=True)
class Try:
    """One attack."""

    outcome: Outcome
    what: str
    """What was done, so that it can be done again, and what was seen."""


@dataclass
class Ledger:
    """All tries, by kind and part; used by several threads."""

    counts: dict[tuple[str, str], Counter[Outcome]] = field(default_factory=dict)
    faults: dict[tuple[str, str], list[Try]] = field(default_factory=dict)
    seconds: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, kind: str, part: str, tries: Iterable[Try]) -> None:
        """Count tries as they come."""
        for found in tries:
            with self._lock:
                self.counts.setdefault((kind, part), Counter())[found.outcome] += 1
                if found.outcome.is_fault:
                    self.faults.setdefault((kind, part), []).append(found)

    @property
    def n_faults(self) -> int:
        """Number of tries that ended as none may."""
        return sum(len(found) for found in self.faults.values())

    def describe_faults(self, most: int = 3) -> str:
        """Return the first faults of each part with what leads to them again."""
        lines = []
        for (kind, part), found in sorted(self.faults.items()):
            for outcome in Outcome:
                alike = [fault for fault in found if fault.outcome is outcome]
                lines += [f"{kind} {part}: {outcome.value}: {a.what}" for a in alike[:most]]
        return "\n".join(lines)

    def table(self) -> str:
        """Return a Markdown table, one row a part."""
        names = [outcome.value for outcome in Outcome]
        rows = [["kind", "part", "tries", *names]]
        for (kind, part), counts in sorted(self.counts.items()):
            shown = [str(counts[outcome] or "") for outcome in Outcome]
            rows.append([kind, part, str(counts.total()), *shown])
        total: Counter[Outcome] = Counter()
        for counts in self.counts.values():
            total += counts
        rows.append(["all", "", str(total.total()), *(str(total[o] or "") for o in Outcome)])
        rule = ["---", "---", *["---:"] * (len(names) + 1)]
        return "\n".join("| " + " | ".join(row) + " |" for row in [rows[0], rule, *rows[1:]])


def write_report(path: Path, text: str) -> None:
    """Put a text between the markers of a document."""
    before, _, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    path.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")
