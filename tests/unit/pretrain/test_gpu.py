"""What runs ahead on a GPU, with the CPU in its place; and `make gpu` where there is none."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from benchmarks.gpu.table import DOCS, RESULTS, render, write_docs
from ecofm.pretrain import module, prefetch
from ecofm.pretrain.encoders import EncoderConfig
from ecofm.pretrain.run import PretrainConfig, RunConfig, pretrain
from ecofm.pretrain.views import ViewConfig
from ecofm.pretrain.years import ChangePreservingConfig

ROOT = Path(__file__).parents[3]


def measure(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", *options],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_without_a_gpu_it_says_so_in_a_sentence(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("a GPU is here")
    done = measure("--out", str(tmp_path))
    assert done.returncode == 0
    assert done.stdout == "No CUDA device is here, so nothing is measured.\n"
    assert not list(tmp_path.iterdir())


def test_its_sections_run_on_a_cpu(tmp_path: Path) -> None:
    """Every line but compilation; a section that fails is recorded, so none of them may."""
    done = measure(
        "--device", "cpu", "--tiny", "--eager", "--seconds", "3000", "--out", str(tmp_path)
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "gpu_cpu.json").read_text())
    failed = {name: part["failed"] for name, part in found["sections"].items() if "failed" in part}
    assert not failed
    assert len(found["sections"]) == 10
    assert found["sections"]["resume"]["default"]["stopped and resumed"]["same_bytes"]
    for name in ("resnet18 64 px", "resnet50 224 px", "vit_small 224 px"):
        assert name in done.stdout and found["sections"][name]["ratio"]["eager"] > 0


def test_a_section_that_fails_or_takes_too_long_is_recorded(tmp_path: Path) -> None:
    from benchmarks.gpu.__main__ import run_section

    assert "not done after 0 s" in run_section(lambda: time.sleep(60) or {}, 0.05)["failed"]
    assert run_section(lambda: {"n": 1 // 0}, 60)["failed"].startswith("ZeroDivisionError")
    assert run_section(lambda: {"n": 1}, 60)["n"] == 1


def test_what_no_time_is_left_for_is_recorded(tmp_path: Path) -> None:
    done = measure(
        "--device", "cpu", "--tiny", "--eager", "--only", "resume,embedding", "--seconds", "1",
        "--out", str(tmp_path),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    sections = json.loads((tmp_path / "gpu_cpu.json").read_text())["sections"]
    assert [part["failed"] for part in sections.values()] == ["no time was left."] * 2
    assert "no time was left." in done.stdout


def test_the_tables_in_the_docs_are_made_from_the_results(tmp_path: Path) -> None:
    copy = tmp_path / "PRETRAIN.md"
    copy.write_text(DOCS.read_text())
    write_docs(copy, RESULTS)
    assert copy.read_text() == DOCS.read_text()


def test_a_table_tells_of_what_failed() -> None:
    found: dict[str, Any] = {
        "device": {"name": "card", "driver": "1"},
        "versions": {"torch": "2"},
        "sections": {"views": {"failed": "OutOfTimeError: not done after 40 s.", "seconds": 40.0}},
    }
    assert "`views` failed: OutOfTimeError: not done after 40 s." in render(found)


class Stream:
    """A stream of a CPU, which does everything at once."""

    def synchronize(self) -> None:
        pass


@pytest.mark.parametrize("accumulate", [1, 2])
def test_views_made_ahead_train_the_same_weights(
    stages: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accumulate: int
) -> None:
    config = PretrainConfig(
        steps=3, batch_size=4, accumulate=accumulate, warmup_steps=1,
        views=ViewConfig(size_px=32), method=ChangePreservingConfig(),
        encoder=EncoderConfig(backbone="resnet10t", width=0.25, words=0),
    )  # fmt: skip
    run = RunConfig(accelerator="cpu", threads=2, torch_threads=1)
    pretrain([stages.archive], tmp_path / "plain", config, run)

    taken = []

    class Ahead(prefetch.Prefetch):  # type: ignore[misc]
        def _take(self, *given: Any) -> Any:
            taken.append(1)
            return super()._take(*given)

    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream())
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream())
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: None)
    monkeypatch.setattr(module, "RUNS_AHEAD", ("cpu",))
    monkeypatch.setattr(module, "Prefetch", Ahead)
    pretrain([stages.archive], tmp_path / "ahead", config, run)
    assert len(taken) >= 3
    one, other = (
        load_file(str(tmp_path / name / "encoder" / "model.safetensors"))
        for name in ("plain", "ahead")
    )
    assert all(torch.equal(one[name], other[name]) for name in one)
