"""Files of weights and checkpoints from others: nothing runs, nothing grows, nothing is torn."""

from __future__ import annotations

import io
import json
import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import nn

from ecofm.errors import ArtifactError
from ecofm.pretrain.encoders import Encoder, EncoderConfig
from ecofm.pretrain.folder import read_record
from ecofm.pretrain.published import initialise
from ecofm.pretrain.resume import newest_checkpoint
from ecofm.types import Contract
from tests.hostile import BANG, Bang

WEIGHTS = "ResNet18_Weights.SENTINEL2_ALL_MOCO"
State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def state() -> State:
    torch.manual_seed(0)
    return timm.create_model("resnet18", in_chans=13, num_classes=5).state_dict()


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    contract = Contract(
        bands=("B02", "B03"), dtype="uint16", units="reflectance", scale=1e-4, offset=0.0,
        valid_range=(0.0, 65535.0), gsd_m=10.0, mean=(1e3, 1e3), std=(5e2, 5e2),
    )  # fmt: skip
    return Encoder(EncoderConfig(backbone="resnet18", words=0), contract)


def store(value: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def repack(
    data: bytes, change: Callable[[bytes], bytes] = bytes, kind: int = zipfile.ZIP_STORED
) -> bytes:
    """Return torch's archive with another pickle inside, or packed."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(file, "w", kind) as new:
        for name in old.namelist():
            part = old.read(name)
            new.writestr(name, change(part) if name.endswith("data.pkl") else part)
    return file.getvalue()


def ask(name: str) -> Callable[[bytes], bytes]:
    """A pickle that calls a function with 2^34."""
    module, _, function = name.rpartition(".")
    call = f"c{module}\n{function}\n".encode() + b"\x8a\x05\x00\x00\x00\x00\x04\x85R"
    return lambda _: b"\x80\x02}X\x01\x00\x00\x00a" + call + b"s."


def tar(_: State) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        info = tarfile.TarInfo("pickle")
        info.size = len(BANG)
        archive.addfile(info, io.BytesIO(BANG))
    return file.getvalue()


def arrays(state: State) -> bytes:
    file = io.BytesIO()
    np.savez(file, **{name: value.numpy() for name, value in list(state.items())[:3]})
    return file.getvalue()


def with_stem(state: State, stem: Any) -> bytes:
    return store(state | {"conv1.weight": stem})


CASES: dict[str, Callable[[State], bytes]] = {
    "empty": lambda s: b"",
    "text": lambda s: b"<html>not found</html>",
    "a pickle that runs": lambda s: BANG,
    "a module that runs": lambda s: store({"conv1.weight": Bang()}),
    "a whole model": lambda s: store(nn.Linear(2, 2)),
    "an archive that runs": lambda s: repack(store(s), lambda _: BANG),
    "bytes without end": lambda s: repack(store(s), ask("builtins.bytearray")),
    "a tensor without end": lambda s: repack(store(s), ask("torch.Tensor")),
    "a packed archive": lambda s: repack(store(s), kind=zipfile.ZIP_DEFLATED),
    "a bomb": lambda s: repack(store(torch.zeros(5_000_000)), kind=zipfile.ZIP_DEFLATED),
    "no pickle inside": lambda s: repack(store(s), lambda _: b""),
    "cut": lambda s: store(s)[:-1000],
    "cut in the middle": lambda s: store(s)[: len(store(s)) // 2],
    "an old archive": tar,
    "arrays": arrays,
    "a pickle of arrays": lambda s: pickle.dumps({"a": np.zeros(3)}),
    "a list": lambda s: store([1, 2]),
    "a tensor": lambda s: store(torch.zeros(3)),
    "numbers for names": lambda s: store({1: torch.zeros(3)}),
    "text for a tensor": lambda s: with_stem(s, "none"),
    "a table for a tensor": lambda s: store({"state_dict": s}),
    "not finite": lambda s: with_stem(s, s["conv1.weight"] * np.nan),
    "a variance below 0": lambda s: store(s | {"bn1.running_var": -s["bn1.running_var"]}),
    "a view without end": lambda s: with_stem(s, torch.zeros(1).expand(2**30, 13, 7, 7)),
    "a stem of no axes": lambda s: with_stem(s, torch.tensor(1.0)),
    "a stem of other bands": lambda s: with_stem(s, torch.zeros(64, 4, 7, 7)),
    "a stem of another size": lambda s: with_stem(s, torch.zeros(64, 13, 3, 3)),
    "sparse": lambda s: with_stem(s, s["conv1.weight"].to_sparse()),
    "complex": lambda s: with_stem(s, s["conv1.weight"].to(torch.complex64)),
    "nowhere": lambda s: with_stem(s, s["conv1.weight"].to("meta")),
}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("name", CASES)
def test_what_is_no_table_of_tensors_is_refused(
    name: str, suffix: str, state: State, encoder: Encoder, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(CASES[name](state))
    with pytest.raises(ArtifactError, match="weights") as raised:
        initialise(encoder, WEIGHTS, path)
    assert "\n" not in str(raised.value) and not Path("bang").exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_what_is_no_file_is_refused(suffix: str, encoder: Encoder, tmp_path: Path) -> None:
    pipe = tmp_path / f"pipe{suffix}"
    os.mkfifo(pipe)
    for path in (pipe, tmp_path, tmp_path / "none.pth"):
        with pytest.raises(ArtifactError, match=r"is no file|does not exist"):
            initialise(encoder, WEIGHTS, path)


@pytest.mark.parametrize("is_new", [True, False])
def test_plain_tables_are_taken(
    is_new: bool, state: State, encoder: Encoder, tmp_path: Path
) -> None:
    """As torch writes them, before version 1.6 and since; parameters too."""
    held = {name: nn.Parameter(v) if v.is_floating_point() else v for name, v in state.items()}
    torch.save(held, tmp_path / "w.pth", _use_new_zipfile_serialization=is_new)
    initialise(encoder, WEIGHTS, tmp_path / "w.pth")
    assert torch.equal(encoder.backbone.conv1.weight, state["conv1.weight"][:, [1, 2]])


class Model(nn.Linear):
    """What stands for a run's module: a weight and a counter of steps."""

    def __init__(self) -> None:
        super().__init__(2, 2)
        self.register_buffer("step", torch.tensor(3))


def checkpoint(**changes: Any) -> dict[str, Any]:
    held = {
        "optimizer_states": [],
        "loops": {},
        "callbacks": {},
        "state_dict": Model().state_dict(),
    }
    return {name: value for name, value in (held | changes).items() if value is not None}


def states(**changes: torch.Tensor) -> dict[str, Any]:
    return checkpoint(state_dict=Model().state_dict() | changes)


CHECKPOINTS: dict[str, bytes] = {
    "a pickle that runs": BANG,
    "an archive that runs": repack(store(checkpoint()), lambda _: BANG),
    "packed": repack(store(checkpoint()), kind=zipfile.ZIP_DEFLATED),
    "a list": store([1]),
    "no weights": store(checkpoint(state_dict=None)),
    "no optimizer": store(checkpoint(optimizer_states=None)),
    "loops that are text": store(checkpoint(loops="none")),
    "another model": store(checkpoint(state_dict=nn.Conv2d(1, 1, 1).state_dict())),
    "another shape": store(states(weight=torch.zeros(3, 3))),
    "not finite": store(states(weight=torch.full((2, 2), torch.inf))),
    "another step": store(states(step=torch.tensor(900))),
    "text for a weight": store(checkpoint(state_dict=Model().state_dict() | {"weight": "w"})),
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_checkpoints_that_cannot_be_are_passed_over(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    whole = states(step=torch.tensor(2))
    (tmp_path / "step-000000002.ckpt").write_bytes(store(whole))
    (tmp_path / "step-000000003.ckpt").write_bytes(CHECKPOINTS[name])
    found = newest_checkpoint(tmp_path, Model())
    assert found is not None and found.name == "step-000000002.ckpt"
    said = capsys.readouterr().err
    assert "step-000000003.ckpt is damaged" in said and len(said.splitlines()) == 1
    assert not Path("bang").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"machine": [1]}, {"machine": {"precision": 7}}, {"machine": {"torch_threads": "two"}},
        {"machine": {"torch_threads": 0}}, {"machine": {"sharded": "no"}}, {"config": None},
        {"config": {"steps": "many"}}, {"config": {}}, {"inputs": [1]}, {"inputs": {"archive0": 3}},
    ],
    ids=str,
)  # fmt: skip
def test_records_of_runs_that_cannot_be(change: dict[str, Any], tmp_path: Path) -> None:
    held = {"config": {"steps": 3}, "inputs": {}, "machine": {"torch_threads": 1}}
    (tmp_path / "run.json").write_text(json.dumps(held))
    assert read_record(tmp_path) == held
    (tmp_path / "run.json").write_text(json.dumps(held | change))
    with pytest.raises(ArtifactError, match=r"run\.json is damaged: .*Remove"):
        read_record(tmp_path)
