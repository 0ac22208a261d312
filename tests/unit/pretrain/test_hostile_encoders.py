"""Encoders that were damaged on purpose or edited by hand: one sentence each, nothing run."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import ecofm
from ecofm.errors import ArtifactError
from tests.hostile import BANG, Damage, edit, rebuild, rebuild_or_break, require_refusal, write
from tests.reseal import reseal

C, W = "config.json", "model.safetensors"


def weights(change: Any) -> Damage:
    """Change the table of tensors."""

    def damage(folder: Path) -> None:
        state = load_file(str(folder / W))
        change(state)
        save_file(state, str(folder / W))

    return damage


def fill(name: str, value: float) -> Damage:
    return weights(lambda state: state[name].view(-1)[:1].fill_(value))


def swap(name: str, change: Any) -> Damage:
    return weights(lambda state: state.update({name: change(state[name]).contiguous()}))


def twice(state: dict[str, torch.Tensor]) -> None:
    state["surprise"] = torch.zeros(3)


def replaced_by_a_folder(folder: Path) -> None:
    (folder / W).unlink()
    (folder / W).mkdir()


def replaced_by_a_pipe(name: str) -> Damage:
    def damage(folder: Path) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return damage


def archive_of_arrays(folder: Path) -> None:
    with (folder / W).open("wb") as file:
        np.savez(file, mean=np.zeros(4))


def header(text: str, size: int | None = None) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data) if size is None else size) + data


STEM = "backbone.conv1.0.weight"
FIELDS: dict[str, dict[str, Any]] = {
    "width is text": {"encoder.width": "0.125"},
    "width is 99": {"encoder.width": 99},
    "width is 1e9": {"encoder.width": 1e9},
    "width is below 0": {"encoder.width": -1},
    "width is true": {"encoder.width": True},
    "width is not finite": {"encoder.width": float("nan")},
    "width is none": {"encoder.width": None},
    "backbone is a number": {"encoder.backbone": 7},
    "backbone is a list": {"encoder.backbone": ["resnet10t"]},
    "backbone is none": {"encoder.backbone": None},
    "backbone is missing": {"encoder.backbone": ...},
    "backbone is of a hub": {"encoder.backbone": "hf-hub:some/thing"},
    "backbone is a folder": {"encoder.backbone": "local-dir:/tmp"},
    "backbone is code": {"encoder.backbone": "__import__('os').system('touch bang')"},
    "backbone is another": {"encoder.backbone": "resnet18"},
    "normalization is missing": {"encoder.normalization": ...},
    "normalization is a list": {"encoder.normalization": ["archive"]},
    "pooling is a table": {"encoder.pooling": {"last": 1}},
    "pooling is another": {"encoder.pooling": "last"},
    "norm is a table": {"encoder.norm": {}},
    "norm is another": {"encoder.norm": "group"},
    "words are text": {"encoder.words": "256"},
    "words are a fraction": {"encoder.words": 2.5},
    "words are below 0": {"encoder.words": -1},
    "words are a trillion": {"encoder.words": 10**12},
    "words are beyond count": {"encoder.words": 10**40},
    "dropout is 2": {"encoder.dropout": 2},
    "dropout is text": {"encoder.dropout": "none"},
    "an import path": {"encoder._target_": "os.system"},
    "an unknown field": {"encoder.depth": 3},
    "encoder is a list": {"encoder": [1]},
    "encoder is missing": {"encoder": ...},
    "std is 0": {"contract.std": [0.0, 100.0, 100.0, 100.0]},
    "std is nearly 0": {"contract.std": [1e-300, 100.0, 100.0, 100.0]},
    "std is below 0": {"contract.std": [-1.0, 100.0, 100.0, 100.0]},
    "std is text": {"contract.std": ["1", "2", "3", "4"]},
    "std is another": {"contract.std": [100.0, 100.0, 100.0, 100.0]},
    "std is not finite": {"contract.std": [float("inf"), 1.0, 1.0, 1.0]},
    "std is a number": {"contract.std": 3},
    "mean is another": {"contract.mean": [1.0, 2.0, 3.0, 4.0]},
    "mean is beyond the number type": {"contract.mean": [1e300, 1.0, 1.0, 1.0]},
    "mean is short": {"contract.mean": [1.0]},
    "mean is nested": {"contract.mean": [[1.0], [1.0], [1.0], [1.0]]},
    "bands repeat": {"contract.bands": ["B02", "B02", "B03", "B04"]},
    "bands are none": {"contract.bands": []},
    "bands are numbers": {"contract.bands": [1, 2, 3, 4]},
    "bands are one text": {"contract.bands": "B02"},
    "bands are blank": {"contract.bands": ["", " ", "B03", "B04"]},
    "number type is of floats": {"contract.dtype": "float32"},
    "number type is a list": {"contract.dtype": ["uint16"]},
    "scale is 0": {"contract.scale": 0},
    "scale is text": {"contract.scale": "1e-4"},
    "offset is none": {"contract.offset": None},
    "valid range falls": {"contract.valid_range": [9.0, 1.0]},
    "valid range has one end": {"contract.valid_range": [1.0]},
    "resolution is text": {"contract.gsd_m": "10"},
    "resolution is below 0": {"contract.gsd_m": -10.0},
    "wavelengths are short": {"contract.wavelengths_nm": [490.0]},
    "contract is a list": {"contract": []},
    "contract is missing": {"contract": ...},
    "contract has another field": {"contract.gain": 2},
    "dim is another": {"dim": 7},
    "dim is text": {"dim": "528"},
    "dim is true": {"dim": True},
    "dim is missing": {"dim": ...},
    "columns are a list": {"columns": [1]},
    "columns overlap": {"columns.words": [0, 256]},
    "columns have three ends": {"columns.words": [0, 1, 2]},
    "columns are text": {"columns.words": "all"},
    "a sub-space that is none": {"columns.years": [528, 10**15]},
    "a sub-space that ends before it begins": {"columns.years": [528, 300]},
}
CASES: dict[str, Damage] = {
    **{name: edit(C, fields) for name, fields in FIELDS.items()},
    "config is a list": write(C, "[]"),
    "config is text": write(C, '"encoder"'),
    "config is empty": write(C, ""),
    "config is not text": write(C, b"\xff\xfe\x00"),
    "config is deep": write(C, "[" * 200_000),
    "config has a number of 10,000 digits": write(C, '{"dim": ' + "9" * 10_000 + "}"),
    "config is a pickle": write(C, BANG),
    "config is a pipe": replaced_by_a_pipe(C),
    "weights are not finite": fill(STEM, float("nan")),
    "weights are infinite": fill(STEM, float("inf")),
    "a variance is below 0": swap("backbone.bn1.running_var", lambda v: v - 1e6),
    "weights are halved": swap(STEM, lambda v: v.half()),
    "weights are whole numbers": swap(STEM, lambda v: v.long()),
    "weights are turned": swap(STEM, lambda v: v.transpose(0, 1)),
    "a tensor is missing": weights(lambda state: state.pop(STEM)),
    "a tensor is too many": weights(twice),
    "mean in the weights is another": swap("mean", lambda v: v + 1),
    "weights are empty": write(W, b""),
    "weights are a pickle": write(W, BANG),
    "weights are an archive of arrays": archive_of_arrays,
    "weights are a folder": replaced_by_a_folder,
    "weights are a pipe": replaced_by_a_pipe(W),
    "the header is longer than the file": write(W, header("{}", 2**62)),
    "the header is no JSON": write(W, header("{{{")),
    "the header promises more than there is": write(
        W, header('{"a":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4000000000000]}}')
    ),
    "weights end early": lambda folder: write(W, (folder / W).read_bytes()[:-64])(folder),
}
MANIFESTS: dict[str, Damage] = {
    "manifest is a list": write("manifest.json", "[]"),
    "manifest is empty": write("manifest.json", ""),
    "manifest is deep": write("manifest.json", "{" * 5 + "[" * 200_000),
    "schema is text": edit("manifest.json", {"schema": "1"}),
    "stage is a list": edit("manifest.json", {"stage": ["encoder"]}),
    "inputs are a list": edit("manifest.json", {"inputs": ["x"]}),
    "inputs are numbers": edit("manifest.json", {"inputs": {"archive0": 3}}),
    "config is none": edit("manifest.json", {"config": None}),
}


@pytest.fixture(scope="module")
def encoder(stages: Any) -> Path:
    return Path(stages.encoder / "encoder")


@pytest.mark.parametrize("name", CASES)
def test_what_cannot_be_is_refused_in_a_sentence(
    name: str, encoder: Path, stages: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    breaks = "pipe" in name  # which cannot be flushed to the disk
    made = rebuild_or_break(encoder, tmp_path / "encoder", CASES[name], breaks=breaks)
    out = tmp_path / "embeddings"
    command = ["embed", "--archive", stages.archive, "--encoder", made, "--out", out]
    said = require_refusal(command, out, capsys)
    assert str(made) in said and "ecofm pretrain" in said


@pytest.mark.parametrize("name", MANIFESTS)
def test_manifests_that_cannot_be(
    name: str, encoder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], stages: Any
) -> None:
    made = rebuild(encoder, tmp_path / "encoder", lambda _: None)
    MANIFESTS[name](made)
    command = ["embed", "--archive", stages.archive, "--encoder", made, "--out", tmp_path / "out"]
    assert str(made) in require_refusal(command, tmp_path / "out", capsys)


def test_the_field_is_named(encoder: Path, tmp_path: Path) -> None:
    for number, (fields, said) in enumerate(
        [
            ({"encoder.width": "0.125"}, r"encoder\.width is '0\.125', expected a finite number"),
            ({"encoder.pooling": "max"}, r"encoder\.pooling is 'max', expected last or stages"),
            ({"encoder.depth": 3}, r"encoder\.'depth' is not known; expected backbone, norm"),
            ({"contract.std": ...}, r"contract\.std is missing"),
            ({"contract.std": [1.0, None, 2.0, 3.0]}, r"contract\.std\[1\] is None"),
            ({"dim": 7}, "dim 7, and its parts add to 528"),
        ]
    ):
        made = rebuild(encoder, tmp_path / str(number), edit(C, fields))
        with pytest.raises(ArtifactError, match=said):
            ecofm.load_encoder(made)


def test_what_is_there_for_people_may_be_anything(encoder: Path, tmp_path: Path) -> None:
    """Names beside those that anything depends on do not matter, nor does an older file's lack."""
    made = rebuild(encoder, tmp_path / "a", edit(C, {"note": [1], "steps": "many"}))
    ecofm.load_encoder(made)
    made = rebuild(encoder, tmp_path / "b", edit(C, {"columns": ..., "encoder.norm": ...}))
    assert ecofm.load_encoder(made)[0].dim == ecofm.load_encoder(encoder)[0].dim


@pytest.mark.parametrize("width", [8, 99])
def test_a_false_width_takes_no_memory(encoder: Path, tmp_path: Path, width: int) -> None:
    """Built whole, encoders of these widths take more than 1 GB; the second is none at all."""
    made = rebuild(encoder, tmp_path / "encoder", edit(C, {"encoder.width": width}))
    code = (
        "import resource, sys, ecofm\n"
        f"before = ecofm.load_encoder({str(encoder)!r}) and resource.getrusage(0).ru_maxrss\n"
        f"try:\n    ecofm.load_encoder({str(made)!r})\n"
        "except ecofm.errors.ArtifactError as error:\n"
        "    print((resource.getrusage(0).ru_maxrss - before) // 1024)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert int(done.stdout) < 100, done.stderr


def test_an_archive_with_a_constant_band_trains_no_encoder(
    stages: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fields = json.loads((stages.archive / "manifest.json").read_text())["contract"]
    made = rebuild(stages.archive, tmp_path / "archive", lambda _: None)
    edit("manifest.json", {"contract.std": [0.0, *fields["std"][1:]]})(made)
    reseal(made)
    command = ["pretrain", "--archive", made, "--out", tmp_path / "run", "--steps", "0"]
    assert "band B02 has the same number" in require_refusal(command, tmp_path / "run", capsys)
