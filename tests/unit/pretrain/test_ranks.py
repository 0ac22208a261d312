"""Two processes of half a batch each are one process with the whole batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ecofm.pretrain.encoders import Encoder, EncoderConfig, Norm
from ecofm.pretrain.methods import METHODS, MoCoConfig, build_method
from ecofm.pretrain.module import ContrastiveModule
from ecofm.pretrain.run import PretrainConfig
from ecofm.tiles.archive import open_archives
from tests.unit.pretrain.ranks import free_port, run_ranks, torchrun

Tiny = Callable[..., PretrainConfig]
STEPS, BATCH = 2, 4


class Trainer:
    """What the module asks of Lightning's trainer."""

    def __init__(self, world_size: int) -> None:
        self.world_size = world_size


def gradients(config: PretrainConfig, archive: Path, rank: int, world_size: int) -> dict[str, Any]:
    """Each step's pairs and averaged gradients, without updates in between."""
    import torch.distributed as dist

    opened, contract = open_archives([archive])
    torch.manual_seed(0)
    encoder = Encoder(config.encoder, contract)
    method = build_method(config.method, encoder, distributed=world_size > 1)
    module = ContrastiveModule(
        method, config.views, opened, batch_size=BATCH, seed=0, steps=STEPS, warmup_steps=1,
        learning_rate=1e-3, weight_decay=0.0, threads=0, accumulate=config.accumulate,
    )  # fmt: skip
    module._trainer = Trainer(world_size)  # type: ignore[assignment]
    type(module).global_rank = property(lambda self: rank)  # type: ignore[assignment]
    module.manual_backward = lambda loss: loss.backward()  # type: ignore[method-assign]
    loader = module.train_dataloader()
    found: dict[str, Any] = {}
    for step, batch in zip(range(STEPS), loader, strict=False):
        module._accumulate(batch)
        for name, parameter in method.named_parameters():
            if parameter.grad is not None:
                if world_size > 1:
                    dist.all_reduce(parameter.grad)
                    parameter.grad /= world_size
                found[f"{step}/{name}"] = parameter.grad.clone()
                parameter.grad = None
        found[f"{step}/pairs"] = torch.from_numpy(loader.pairs(step))
    for name, buffer in method.named_buffers():
        # Without a queue lightly leaves its pointer uninitialised.
        if "center" in name or ("bank" in name and isinstance(config.method, MoCoConfig)):
            found[f"buffer/{name}"] = buffer
    return found


def measure(rank: int, jobs: list[tuple[PretrainConfig, Path]], out: Path) -> None:
    import torch.distributed as dist

    dist.init_process_group("gloo", rank=rank, world_size=2)
    for number, (config, archive) in enumerate(jobs):
        torch.save(gradients(config, archive, rank, 2), out / f"{number}-{rank}.pt")
    dist.destroy_process_group()


def test_sample_order_and_gradients_are_those_of_one_process(
    make_archive: Callable[..., Path], tiny: Tiny, tmp_path: Path
) -> None:
    archive = make_archive(tmp_path / "archive")
    encoder = EncoderConfig(backbone="resnet10t", width=0.25, norm=Norm.group, words=0)
    configs = [
        tiny(name, encoder=encoder, accumulate=parts)
        for name in METHODS
        for parts in ((1, 2) if name in ("moco", "change_preserving") else (1,))
    ]
    run_ranks(measure, [(config, archive) for config in configs], tmp_path)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    for number, config in enumerate(configs):
        one = gradients(config, archive, 0, 1)
        two = [torch.load(tmp_path / f"{number}-{rank}.pt") for rank in range(2)]
        assert set(one) == set(two[0]) and len(one) > 10
        # One number rounds to 2e-5 where VICReg divides by a small spread: the whole is judged.
        values = [name for name in one if not name.endswith("pairs")]
        expected = torch.cat([one[name].flatten().double() for name in values])
        for part in two:
            found = torch.cat([part[name].flatten().double() for name in values])
            error = float((found - expected).norm() / expected.norm())
            assert error <= 1e-5, (config.method, error)
        for name in set(one) - set(values):
            assert torch.equal(torch.cat([part[name] for part in two]), one[name]), name
    torch.set_num_threads(before)


def test_a_run_of_two_ranks_ends_near_that_of_one(
    make_archive: Callable[..., Path], tmp_path: Path
) -> None:
    """Through the command, as torchrun starts it: Lightning's DDP on gloo."""
    archive = make_archive(tmp_path / "archive")
    root = Path(__file__).parents[3]
    overrides = [
        f"archive={archive}", "steps=4", "batch_size=4", "warmup_steps=1", "views.size_px=32",
        "encoder.backbone=resnet10t", "encoder.width=0.25", "encoder.norm=group",
        "encoder.words=8", "accelerator=cpu", "torch_threads=1", "checkpoint_every=2",
        "log_every=1", "threads=1", "precision=32-true",
    ]  # fmt: skip
    found = {}
    for size in (1, 2):
        out = tmp_path / f"run{size}"
        port = free_port()
        command = [
            sys.executable, "-m", "train.pretrain", *overrides, f"out={out}",
            *([f"devices={size}", "strategy=ddp"] if size > 1 else []),
        ]  # fmt: skip
        ranks = []
        for rank in range(size):
            more = torchrun(rank, port) if size > 1 else {}
            env = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"} | more
            ranks.append(
                subprocess.Popen(command, cwd=tmp_path, env=env, stderr=subprocess.PIPE, text=True)
            )
        for process in ranks:
            _, said = process.communicate(timeout=300)
            assert process.returncode == 0, said
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        # So small a batch may be called collapsed, which is an event beside the steps.
        lines = [line for line in lines if "event" not in line]
        assert [line["step"] for line in lines] == [1, 2, 3, 4]
        found[size] = torch.tensor([line["gradient_norm"] for line in lines])
    assert torch.allclose(found[1], found[2], rtol=2e-3), found
    assert float(found[1].std()) > 0
