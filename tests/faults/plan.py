"""Which attacks there are, and how many of each: one knob, the share of the whole run."""

from __future__ import annotations

from tests.faults import disks, flips, hostile, numbers, pretraining, soak, stages, votes
from tests.faults.lab import Lab
from tests.faults.stages import Part

KILLS, FLIPS, HOSTILE, DISKS, RACES, SIGNALS = 50, 10_000, 60, 10, 12, 12
"""Of each stage, over all artifacts, of each kind of input, and of each stage again."""
KINDS = (
    "kills", "pretraining", "flips", "hostile", "disks", "races", "signals", "numbers", "votes",
    "soak",
)  # fmt: skip


def build_parts(lab: Lab, scale: float) -> dict[str, dict[str, Part]]:
    """Return the parts of each kind by name."""

    def some(whole: int) -> int:
        return max(1, round(whole * scale))

    return {
        "kills": stages.parts_of_kills(lab, some(KILLS)),
        "pretraining": pretraining.parts(lab, some(KILLS)),
        "flips": flips.parts(lab, some(FLIPS)),
        "hostile": hostile.parts(lab, some(HOSTILE), is_full=scale >= 0.2),
        "disks": disks.parts(lab, max(2, some(DISKS))),
        "races": stages.parts_of(stages.race, lab, max(3, some(RACES))),
        "signals": stages.parts_of(stages.interrupt, lab, max(2, some(SIGNALS))),
        "numbers": numbers.parts(lab, is_full=scale >= 0.2),
        "votes": votes.parts(lab, scale),
        "soak": soak.parts(lab, scale),
    }
