"""Signals that end a run: what is saved first, and when SLURM is asked to start it again."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ecofm.errors import EcofmError
from ecofm.pretrain.resume import newest_checkpoint
from ecofm.pretrain.run import pretrain
from tests.unit.pretrain.test_resume import Tiny, lines, run_config, send, weights


@pytest.fixture(scope="module")
def archive(make_archive: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_archive(tmp_path_factory.mktemp("archive") / "archive")


@pytest.fixture
def scontrol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A stand-in for SLURM's scontrol that writes down how it was called."""
    called = tmp_path / "scontrol-calls"
    called.touch()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {called}\n')
    (tmp_path / "bin" / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    for name in [name for name in os.environ if name.startswith("SLURM")]:
        monkeypatch.delenv(name)
    yield called


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_saves_and_ends_the_run(
    number: signal.Signals, archive: Path, tiny: Tiny, tmp_path: Path, scontrol: Path
) -> None:
    before = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGUSR1)}
    config = tiny("byol", steps=5)
    with pytest.raises(EcofmError, match=f"{number.name} after step 3, .*command continues"):
        pretrain([archive], tmp_path / "run", config, run_config(), progress=send(number, 2))
    # The step that the signal came in is made whole, and none after it.
    assert newest_checkpoint(tmp_path / "run" / "checkpoints").name == "step-000000003.ckpt"
    assert {n: signal.getsignal(n) for n in before} == before
    assert scontrol.read_text() == "" and not (tmp_path / "run" / "encoder").exists()
    pretrain([archive], tmp_path / "run", config, run_config())
    pretrain([archive], tmp_path / "whole", config, run_config())
    assert weights(tmp_path / "run") == weights(tmp_path / "whole")
    assert {"event": "resume", "step": 3} in lines(tmp_path / "run")


@pytest.mark.parametrize(
    ("more", "call"),
    [
        ({}, "requeue 77"),
        ({"SLURM_ARRAY_JOB_ID": "70", "SLURM_ARRAY_TASK_ID": "3"}, "requeue 70_3"),
        ({"SLURM_JOB_NAME": "bash"}, None),
    ],
    ids=["job", "array", "interactive"],
)
def test_under_slurm_it_is_requeued_once(
    more: dict[str, str], call: str | None, archive: Path, tiny: Tiny, tmp_path: Path,
    scontrol: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    for name, value in {"SLURM_JOB_ID": "77", "SLURM_JOB_NAME": "ecofm", **more}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(EcofmError, match="SIGUSR1"):
        pretrain(
            [archive], tmp_path / "run", tiny(), run_config(),
            progress=send(signal.SIGUSR1, 1, times=3),
        )  # fmt: skip
    assert scontrol.read_text().splitlines() == ([call] if call else [])


def test_without_scontrol_the_run_is_saved_all_the_same(
    archive: Path, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setenv("SLURM_JOB_NAME", "bash")  # or Lightning takes this for a SLURM step
    monkeypatch.setattr("ecofm.pretrain.resume.INTERACTIVE", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EcofmError, match="SIGTERM"):
        pretrain(
            [archive], tmp_path / "run", tiny(), run_config(), progress=send(signal.SIGTERM, 1)
        )
    assert "job 77 is not requeued" in capsys.readouterr().err
    assert newest_checkpoint(tmp_path / "run" / "checkpoints") is not None
