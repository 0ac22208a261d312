"""How a run is laid out on devices: shards, batch norms, memory formats, compilation."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ecofm.errors import ArtifactError, EcofmError
from ecofm.pretrain.devices import find_blocks, lay_out
from ecofm.pretrain.encoders import WEIGHTS, Encoder, EncoderConfig, Norm, Pooling
from ecofm.pretrain.folder import RUN
from ecofm.pretrain.methods import build_method
from ecofm.pretrain.run import PretrainConfig, RunConfig, pretrain
from ecofm.tiles.archive import open_archive
from tests.unit.pretrain.ranks import run_ranks

Tiny = Callable[..., PretrainConfig]
GROUPED = EncoderConfig(backbone="resnet10t", width=0.125, norm=Norm.group, words=8)


def run_config(**changes: Any) -> RunConfig:
    fields: dict[str, Any] = {
        "threads": 0, "checkpoint_every": 2, "log_every": 1, "accelerator": "cpu",
        "torch_threads": 1, "precision": "32-true",
    }  # fmt: skip
    return RunConfig(**(fields | changes))


def weights(run: Path) -> bytes:
    return (run / "encoder" / WEIGHTS).read_bytes()


def lines(run: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in found if "event" not in line]


@pytest.fixture(scope="module")
def archive(make_archive: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_archive(tmp_path_factory.mktemp("archive") / "archive")


def stop_at_2(done: int, total: int) -> None:
    if done == 2:
        os.kill(os.getpid(), signal.SIGTERM)


def carry_out(rank: int, jobs: list[tuple[Path, Path, PretrainConfig, RunConfig]]) -> None:
    """Carry out runs as one of two ranks; those named broken are stopped first."""
    for archive, out, config, run in jobs:
        if out.name == "broken":
            with pytest.raises(EcofmError, match="after step 3, which is saved"):
                pretrain([archive], out, config, run, progress=stop_at_2)
        pretrain([archive], out, config, run)


def test_a_sharded_run_is_the_run_of_one_process(
    archive: Path, make_archive: Callable[..., Path], tiny: Tiny, tmp_path: Path
) -> None:
    """FSDP on two gloo ranks: the same losses and gradients, one checkpoint file, one encoder."""
    chips = make_archive(tmp_path / "chips", grid="none", n_cells=30)
    configs = {name: tiny(name, encoder=GROUPED) for name in ("simclr", "moco")}
    sharded = run_config(devices=2, strategy="fsdp", monitor_chips=str(chips), monitor_every=2)
    jobs = [(archive, tmp_path / name, config, sharded) for name, config in configs.items()]
    jobs.append((archive, tmp_path / "broken", configs["moco"], sharded))
    run_ranks(carry_out, jobs)
    assert weights(tmp_path / "broken") == weights(tmp_path / "moco")
    for name, config in configs.items():
        one = tmp_path / f"{name}-one"
        pretrain([archive], one, config, run_config(monitor_chips=str(chips), monitor_every=2))
        for found, expected in zip(lines(tmp_path / name), lines(one), strict=True):
            assert found["loss"] == pytest.approx(expected["loss"], rel=1e-3)
            assert found["gradient_norm"] == pytest.approx(expected["gradient_norm"], rel=1e-3)
            assert ("knn" in found) == ("knn" in expected)
        kept = sorted(path.name for path in (tmp_path / name / "checkpoints").iterdir())
        assert kept == ["step-000000002.ckpt", "step-000000004.ckpt"]
        states = [
            torch.load(out / "checkpoints" / kept[-1], weights_only=True)["state_dict"]
            for out in (tmp_path / name, one)
        ]
        assert list(states[0]) == list(states[1])
        # AdamW divides by what may be no more than rounding: a weight is off by a step at most.
        for key, value in states[1].items():
            assert torch.allclose(states[0][key].float(), value.float(), atol=4e-3), key
        # What began sharded does not go on otherwise: the optimizer's states are numbered so.
        with pytest.raises(ArtifactError, match="began with fsdp"):
            (tmp_path / name / "encoder" / "manifest.json").unlink()
            pretrain([archive], tmp_path / name, config, run_config())


def build(tiny: Tiny, archive: Path, encoder: EncoderConfig, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    config = tiny("byol", encoder=encoder)
    method = build_method(config.method, Encoder(encoder, open_archive(archive).contract))
    fields: dict[str, Any] = {
        "channels_last": True, "compile": False, "is_sharded": False, "n_devices": 1,
        "on_gpu": False,
    }  # fmt: skip
    return lay_out(method, **(fields | options))


@pytest.mark.parametrize("backbone", ["resnet10t", "test_efficientnet"])
def test_batch_norms_are_taken_over_all_gpus(backbone: str, archive: Path, tiny: Tiny) -> None:
    """Activations inside timm's layers stay; without other processes the numbers are the same."""
    encoder = EncoderConfig(backbone=backbone, words=0, pooling=Pooling.last)
    plain = build(tiny, archive, encoder)
    synced = build(tiny, archive, encoder, n_devices=2, on_gpu=True)
    norms = [m for m in synced.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert norms and all(isinstance(norm, nn.SyncBatchNorm) for norm in norms)
    assert list(plain.state_dict()) == list(synced.state_dict())
    views = torch.randn(2, 4, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(plain(*views)[0], synced(*views)[0], atol=1e-6)
    assert not any(isinstance(m, nn.SyncBatchNorm) for m in plain.modules())


def test_batch_norms_on_several_cpus_are_warned_of(
    archive: Path, tiny: Tiny, capsys: pytest.CaptureFixture[str]
) -> None:
    build(tiny, archive, GROUPED, n_devices=2)
    assert capsys.readouterr().err == ""
    build(tiny, archive, EncoderConfig(backbone="resnet10t", width=0.125), n_devices=2)
    assert "encoder.norm=group" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("backbone", "pooling", "n"),
    [("resnet10t", Pooling.stages, 4), ("resnet18", Pooling.last, 8), ("test_vit", "last", 6)],
)
def test_blocks_are_found_whatever_the_backbone(
    backbone: str, pooling: Pooling, n: int, archive: Path
) -> None:
    config = EncoderConfig(backbone=backbone, pooling=Pooling(pooling), words=0)
    encoder = Encoder(config, open_archive(archive).contract)
    blocks = list(find_blocks(encoder.backbone))
    assert len(blocks) == n and all("Block" in type(block).__name__ for block in blocks)


@pytest.mark.parametrize("channels_last", [True, False])
def test_the_memory_format_is_that_of_images_and_kernels(
    channels_last: bool, archive: Path, tiny: Tiny
) -> None:
    method = build(tiny, archive, GROUPED, channels_last=channels_last)
    kernels = [p for p in method.parameters() if p.ndim == 4 and p.shape[1] > 1 < p.shape[2]]
    wanted = torch.channels_last if channels_last else torch.contiguous_format
    assert kernels and all(kernel.is_contiguous(memory_format=wanted) for kernel in kernels)
    seen: list[torch.Tensor] = []
    encoder = method.encoder
    encoder.backbone.register_forward_pre_hook(lambda _, images: seen.append(images[0]))
    encoder.encode(torch.zeros(2, 4, 32, 32))
    assert seen[0].is_contiguous(memory_format=wanted)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("options", [{"compile": True}, {"channels_last": False}], ids=str)
def test_options_compose_and_a_resumed_run_keeps_them(
    options: dict[str, bool], precision: str, archive: Path, tiny: Tiny, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    compiled = []
    compile_ = nn.Module.compile

    def without_a_compiler(self: nn.Module, **how: Any) -> None:
        compiled.append(how)  # graphs and gradients as torch.compile has them; C++ takes minutes
        compile_(self, backend="aot_eager", **how)

    monkeypatch.setattr(nn.Module, "compile", without_a_compiler)
    encoder = EncoderConfig(backbone="resnet10t", width=0.125, words=8, dropout=0.1, drop_path=0.1)
    config = tiny("moco", encoder=encoder)
    run = run_config(precision=precision, **options)
    whole = pretrain([archive], tmp_path / "whole", config, run)
    with pytest.raises(EcofmError, match="after step 3"):
        pretrain([archive], tmp_path / "run", config, run, progress=stop_at_2)
    untold = run_config(precision="auto")
    pretrain([archive], tmp_path / "run", config, untold)
    assert weights(tmp_path / "run") == weights(whole)
    # The encoder and its slow copy, in each of the three parts.
    assert compiled == [{"dynamic": False}] * (6 if "compile" in options else 0)
    machine = json.loads((tmp_path / "run" / RUN).read_text())["machine"]
    assert options.items() <= machine.items() and machine["precision"] == precision
