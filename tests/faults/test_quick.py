"""A share of every attack with a fixed seed: `make faults` does the whole."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from tests.faults.lab import Lab
from tests.faults.outcomes import Ledger
from tests.faults.plan import KINDS, build_parts

pytest.importorskip("fastapi", reason="the app extra is not installed")

SCALE = 0.02
CHOSEN = {
    "kills": ("embed", "score --overwrite", "tile", "compare import"),
    "disks": ("embed", "score"),
    "races": ("embed",),
    "signals": ("score",),
}
"""Of kinds that attack every stage: the code that writes is the same in all."""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    root = tmp_path_factory.mktemp("faults")
    with pytest.MonkeyPatch.context() as patch:
        # For the fork server, which starts with the first stage.
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("XDG_STATE_HOME", str(root / "state"))
        yield Lab(root / "lab").build()


@pytest.mark.parametrize("kind", KINDS)
def test_a_share_of_each_attack_finds_no_fault(kind: str, lab: Lab, tmp_path: Path) -> None:
    ledger = Ledger()
    for name, part in build_parts(lab, SCALE)[kind].items():
        if name not in CHOSEN.get(kind, (name,)):
            continue
        work = tmp_path / str(zlib.crc32(name.encode()))
        work.mkdir()
        ledger.add(kind, name, part(Random(f"{kind} {name}"), work))
    assert ledger.counts
    assert not ledger.n_faults, ledger.describe_faults()
    assert os.environ["OMP_NUM_THREADS"] == "1"
