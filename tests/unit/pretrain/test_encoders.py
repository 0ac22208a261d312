"""Encoders: what they take, refuse, and give back after a round trip over the disk."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import ecofm
from ecofm.artifact import Draft
from ecofm.errors import ArtifactError, ContractError
from ecofm.pretrain import encoders
from ecofm.pretrain.encoders import Encoder, EncoderConfig, Normalization, Pooling
from ecofm.types import Contract

SMALL = {"backbone": "resnet10t", "width": 0.125}


def contract(dtype: str = "uint16", n_bands: int = 4) -> Contract:
    return Contract(
        bands=tuple(f"B{n:02d}" for n in range(n_bands)),
        dtype=dtype,
        units="digital number",
        scale=1.0,
        offset=0.0,
        valid_range=(0.0, 250.0),
        gsd_m=10.0,
        mean=(100.0,) * n_bands,
        std=(40.0,) * n_bands,
    )


def pixels(dtype: str = "uint16", n_bands: int = 4, size_px: int = 32) -> torch.Tensor:
    random = torch.Generator().manual_seed(0)
    values = torch.randint(0, 250, (3, n_bands, size_px, size_px), generator=random)
    return values.to(getattr(torch, dtype))


def write(out: Path, encoder: Encoder) -> Path:
    with Draft(out, stage="encoder", config={}, inputs={}) as folder:
        encoders.save(folder, encoder, {"steps": 0, "recipe": None})
    return out


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    return write(tmp_path / "run" / "encoder", Encoder(EncoderConfig(**SMALL), contract()))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16"])
@pytest.mark.parametrize("normalization", list(Normalization))
def test_every_stored_type_gives_the_same_embedding(
    dtype: str, normalization: Normalization
) -> None:
    config = EncoderConfig(**SMALL, normalization=normalization)
    embeddings = []
    for kind in ("uint16", dtype):
        torch.manual_seed(0)
        with torch.inference_mode():
            embeddings.append(Encoder(config, contract(kind)).eval()(pixels(kind)))
    assert embeddings[0].shape == (3, Encoder(config, contract()).dim)
    assert embeddings[0].dtype == torch.float32 and torch.equal(*embeddings)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (pixels(n_bands=3), "3 bands of uint16.*4 bands of uint16"),
        (pixels("uint8"), "4 bands of uint8.*4 bands of uint16"),
        (pixels().float(), "float32"),
    ],
    ids=["bands", "type", "floats"],
)
def test_pixels_that_break_the_contract_are_refused(given: torch.Tensor, said: str) -> None:
    with pytest.raises(ContractError, match=said):
        Encoder(EncoderConfig(**SMALL), contract())(given)


def test_invalid_pixels_do_not_matter() -> None:
    torch.manual_seed(0)
    encoder = Encoder(EncoderConfig(**SMALL), contract()).eval()
    valid = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(1)) > 0.2
    spoilt = pixels().int().where(valid[:, None], 60_000).to(torch.uint16)
    assert torch.equal(encoder(spoilt, valid), encoder(pixels(), valid))
    assert not torch.equal(encoder(spoilt), encoder(pixels()))


@pytest.mark.parametrize("backbone", ["resnet10t", "test_efficientnet", "test_vit"])
@pytest.mark.parametrize("pooling", list(Pooling))
def test_a_tile_half_of_which_is_missing_is_that_tile(pooling: Pooling, backbone: str) -> None:
    """Ground alike on both sides: the features of one are about those of the whole."""
    if (backbone, pooling) == ("test_vit", Pooling.last):
        pytest.skip("tokens are not weighed")
    torch.manual_seed(0)
    encoder = Encoder(EncoderConfig(backbone=backbone, words=0, pooling=pooling), contract())
    ground = pixels().repeat(1, 1, 5, 5)
    valid = torch.ones(3, 160, 160, dtype=torch.bool)
    valid[:, :80] = False
    with torch.inference_mode():
        whole, half, unsaid = (
            encoder.eval().encode(*given)
            for given in (
                (encoder.normalize(ground),),
                (encoder.normalize(ground, valid), valid),
                (encoder.normalize(ground, valid),),
            )
        )
    missed = [float((found - whole).norm() / whole.norm()) for found in (half, unsaid)]
    assert missed[0] < 0.8 * missed[1], missed


@pytest.mark.parametrize("pooling", list(Pooling))
def test_round_trip_gives_bit_equal_embeddings(tmp_path: Path, pooling: Pooling) -> None:
    torch.manual_seed(0)
    config = EncoderConfig(**SMALL, pooling=pooling, normalization=Normalization.tile)
    encoder = Encoder(config, contract())
    encoder.train()(pixels())  # BatchNorm's statistics must travel too
    encoder.eval()
    write(tmp_path / "run" / "encoder", encoder)
    for path in (tmp_path / "run", tmp_path / "run" / "encoder"):
        found, known = ecofm.load_encoder(path)
        assert known == contract() and found.config == config and not found.training
        with torch.inference_mode():
            assert torch.equal(found(pixels()), encoder(pixels()))
    assert known is found.contract


def test_loading_imports_neither_lightning_nor_hydra(saved: Path) -> None:
    code = (
        "import sys, ecofm\n"
        f"for path in ({str(saved)!r}, {str(saved.parent)!r}):\n"
        "    ecofm.load_encoder(path)\n"
        "bad = {'pytorch_lightning', 'lightning', 'hydra', 'omegaconf', 'lightly'}\n"
        "print(sorted(bad & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def edit_config(**fields: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / encoders.CONFIG
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))

    return edit


def cut_weights(folder: Path) -> None:
    path = folder / encoders.WEIGHTS
    path.write_bytes(path.read_bytes()[:-100])


STORED = {**SMALL, "normalization": "archive", "pooling": "stages"}


@pytest.mark.parametrize(
    "damage",
    [
        cut_weights,
        lambda folder: (folder / encoders.WEIGHTS).write_bytes(b""),
        lambda folder: (folder / encoders.WEIGHTS).unlink(),
        lambda folder: (folder / encoders.CONFIG).unlink(),
        lambda folder: (folder / encoders.CONFIG).write_text("{"),
        lambda folder: (folder / encoders.CONFIG).write_text("[]"),
        lambda folder: (folder / encoders.CONFIG).write_text('{"encoder": 3}'),
        edit_config(contract={"bands": ["B02"]}),
        edit_config(contract=None),
        edit_config(encoder=STORED | {"backbone": "no_such_net"}),
        edit_config(encoder=STORED | {"backbone": 7}),
        edit_config(encoder=STORED | {"width": 0.25}),
        edit_config(encoder=STORED | {"pooling": "max"}),
        edit_config(encoder=STORED | {"surprise": 1}),
        edit_config(columns={"features": [0, 120], "invariant": [120, 128]}),
        edit_config(columns={"years": "all"}),
        edit_config(columns=[1]),
    ],
)
def test_damaged_encoders_are_refused_by_name(saved: Path, damage: Callable[[Path], None]) -> None:
    damage(saved)
    with pytest.raises(ArtifactError, match="encoder"):
        ecofm.load_encoder(saved)


def test_what_is_no_encoder_is_refused(tmp_path: Path, saved: Path) -> None:
    with pytest.raises(ArtifactError, match=r"does not exist.*ecofm pretrain"):
        ecofm.load_encoder(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArtifactError, match="ecofm pretrain"):
        ecofm.load_encoder(str(tmp_path / "empty"))
    manifest = saved / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"encoder"', '"scores"'))
    with pytest.raises(ArtifactError, match="holds scores, expected encoder"):
        ecofm.load_encoder(saved)


@pytest.mark.parametrize(
    "wrong",
    [
        {"backbone": "no_such_net"},
        {"backbone": "resnet10t", "width": 0.0},
        {"backbone": "resnet10t", "width": float("nan")},
        {"backbone": "vit_tiny_patch16_224", "width": 0.5, "pooling": Pooling.last},
        {"backbone": ""},
        {"backbone": "hf-hub:somebody/something"},
        {"backbone": "local-dir:/tmp"},
    ],
)
def test_unknown_backbones_are_wrong_arguments(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="backbone"):
        Encoder(EncoderConfig(**wrong), contract())


@pytest.mark.parametrize("size_px", [64, 224])
def test_a_vision_transformer_serves_with_its_own_pooling(size_px: int) -> None:
    config = EncoderConfig(backbone="vit_tiny_patch16_224", pooling=Pooling.last)
    encoder = Encoder(config, contract()).eval()
    with torch.inference_mode():
        found = encoder(pixels(size_px=size_px))
    assert (
        encoder.backbone_dim == 192 and found.shape == (3, encoder.dim) and found.isfinite().all()
    )
