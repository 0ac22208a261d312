"""python -m benchmarks.gpu: what one GPU makes of every stage, in eight minutes at most.

Sections run one after another, each within its own time; one that fails is recorded with its
sentence, and the others go on. After each of them the figures go to
benchmarks/results/gpu_NAME.json, where NAME is the device's; `python -m benchmarks.gpu.table` puts
them into docs/PRETRAIN.md. `--device cpu --tiny` rehearses every line without a GPU.
"""

from __future__ import annotations

import argparse
import gc
import os
import re
import signal
import subprocess
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from benchmarks.gpu.inputs import Bench, measure_seconds
from benchmarks.gpu.resume import measure_resume
from benchmarks.gpu.stages import measure_embedding, measure_faiss, measure_finetuning
from benchmarks.gpu.table import render
from benchmarks.gpu.training import CASES, measure_training
from benchmarks.gpu.views import measure_views
from benchmarks.record import describe_machine
from ecofm.artifact import write_json
from ecofm.tiles.archive import open_archive

RESULTS = Path(__file__).parents[1] / "results"
VERSIONS = ("torch", "timm", "pytorch-lightning", "numpy")
Section = tuple[str, float, Callable[[], dict[str, Any]]]
"""Name, most seconds, and what is measured."""


class OutOfTimeError(BaseException):
    """A section has used up its seconds; no Exception, for compilers catch those to carry on."""


def measure_device(bench: Bench) -> dict[str, Any]:
    """Return what the device reaches by itself: a bf16 matrix product, and copies."""
    side, n = (256, 2**20) if bench.is_tiny else (8192, 2**30)
    a, b = (torch.randn(side, side, device=bench.device, dtype=torch.bfloat16) for _ in range(2))
    source = torch.randint(0, 255, (n,), dtype=torch.uint8)
    source = source.pin_memory() if bench.on_gpu else source
    there = source.to(bench.device)
    return {
        "matmul_tflop_s": 2 * side**3 / measure_seconds(lambda: a @ b, bench) / 1e12,
        "memory_gb_s": 2 * n / measure_seconds(there.clone, bench) / 1e9,
        "to_device_gb_s": n
        / measure_seconds(lambda: source.to(bench.device, non_blocking=True), bench)
        / 1e9,
    }


def make_archives(bench: Bench) -> dict[str, Any]:
    """Return the tiles and bytes of what the other sections read."""
    found = {}
    for grid in ("utm:2560", "utm:1280"):
        archive = open_archive(bench.archive(grid))
        n_bytes = sum(path.stat().st_size for path in archive.path.glob("shards/*"))
        found[grid] = {"n_tiles": archive.n_tiles, "gb": n_bytes / 1e9}
    return found


def list_sections(bench: Bench, found: dict[str, Any]) -> list[Section]:
    """Return what is measured, the most wanted first."""

    def train(name: str) -> dict[str, Any]:
        reached = found["sections"].get("device", {}).get("matmul_tflop_s")
        return measure_training(name, bench, reached)

    budgets = {"resnet18 64 px": 80, "resnet50 224 px": 130, "vit_small 224 px": 110}
    return [
        ("archive", 100, lambda: make_archives(bench)),
        ("device", 40, lambda: measure_device(bench)),
        ("views", 60, lambda: measure_views(bench)),
        *((name, budgets[name], lambda name=name: train(name)) for name in CASES),
        ("embedding", 60, lambda: measure_embedding(bench)),
        ("resume", 90, lambda: measure_resume(bench)),
        ("finetuning", 60, lambda: measure_finetuning(bench)),
        ("faiss", 40, lambda: measure_faiss(bench)),
    ]  # type: ignore[list-item]


def run_section(measure: Callable[[], dict[str, Any]], seconds: float) -> dict[str, Any]:
    """Return what a section found, or why it failed."""

    def give_up(number: int, frame: FrameType | None) -> None:
        raise OutOfTimeError(f"not done after {seconds:.0f} s.")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, seconds, 5)
    began = time.perf_counter()
    try:
        found = measure()
    # Whatever goes wrong in one section, the others are worth having.
    except (Exception, OutOfTimeError) as error:
        signal.setitimer(signal.ITIMER_REAL, 0)
        traceback.print_exc()
        found = {"failed": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    found["seconds"] = time.perf_counter() - began
    return found


def describe_device(device: torch.device) -> dict[str, Any]:
    """Return the device's name, memory and driver."""
    if device.type == "cpu":
        return {"name": "cpu", "driver": None, "memory_gib": None}
    properties = torch.cuda.get_device_properties(device)
    asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        driver = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        driver = ""
    return {
        "name": properties.name,
        "driver": driver.split("\n")[0] or None,
        "memory_gib": properties.total_memory / 2**30,
        "cuda": torch.version.cuda,
    }


def main() -> None:
    """Measure, record after every section, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="sizes for a rehearsal on the CPU")
    parser.add_argument("--eager", action="store_true", help="leave compiled models out")
    parser.add_argument("--only", help="sections, separated by commas")
    parser.add_argument("--seconds", type=float, default=480, help="most seconds of all")
    parser.add_argument("--commit", help="the code's commit, where it is no git checkout")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the figures")
    given = parser.parse_args()
    if given.device == "cuda" and not torch.cuda.is_available():
        print("No CUDA device is here, so nothing is measured.")
        return
    end = time.monotonic() + given.seconds
    warnings.simplefilter("ignore")
    device = torch.device(given.device, 0) if given.device == "cuda" else torch.device("cpu")
    threads = max(1, min(12, (os.cpu_count() or 2) - 2))
    found: dict[str, Any] = {
        "device": describe_device(device),
        **describe_machine(VERSIONS),
        "tiny": given.tiny,
        "threads": threads,
        "sections": {},
    }
    found["commit"] = found["commit"] or given.commit
    name = re.sub(r"[^a-z0-9]+", "_", found["device"]["name"].lower()).strip("_")
    given.out.mkdir(parents=True, exist_ok=True)
    target = given.out / f"gpu_{name}.json"
    with tempfile.TemporaryDirectory() as work:
        bench = Bench(
            device=device, is_tiny=given.tiny, compiles=not given.eager, work=Path(work),
            threads=threads,
        )  # fmt: skip
        sections = list_sections(bench, found)
        wanted = given.only.split(",") if given.only else [name for name, *_ in sections]
        if unknown := set(wanted) - {name for name, *_ in sections}:
            parser.error(f"no section {', '.join(sorted(unknown))}.")
        for name, seconds, measure in sections:
            if name not in wanted:
                continue
            left = end - time.monotonic()
            print(f"{name} ({left:.0f} s are left)", flush=True)
            if left < 5:
                found["sections"][name] = {"failed": "no time was left."}
            else:
                found["sections"][name] = run_section(
                    measure, left if given.tiny else min(seconds, left)
                )
            write_json(target, found)
            gc.collect()
            torch._dynamo.reset()
            if bench.on_gpu:
                torch.cuda.empty_cache()
    print(render(found))


if __name__ == "__main__":
    main()
