"""Published weights come from a file, their bands go by name, and what does not fit is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

import ecofm
from ecofm.errors import ArtifactError
from ecofm.pretrain.encoders import EncoderConfig, Norm, Pooling
from ecofm.pretrain.published import canonical, find_bands, published_bands
from ecofm.pretrain.run import PretrainConfig, RunConfig, pretrain

Tiny = Callable[..., PretrainConfig]
WEIGHTS = "ResNet18_Weights.SENTINEL2_ALL_MOCO"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.Tensor]]:
    """A file as torchgeo publishes it: timm's names, 13 bands, here with random numbers."""
    torch.manual_seed(0)
    state = timm.create_model("resnet18", in_chans=13, num_classes=5).state_dict()
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(state, path)
    return path, state


def config(tiny: Tiny, **changes: Any) -> PretrainConfig:
    fields: dict[str, Any] = {"backbone": "resnet18", "words": 0, **changes}
    return tiny(steps=0, init_weights=WEIGHTS, encoder=EncoderConfig(**fields))


def run_config(file: Path | None) -> RunConfig:
    return RunConfig(accelerator="cpu", torch_threads=1, init_file=str(file) if file else None)


@pytest.mark.parametrize("pooling", Pooling)
def test_bands_are_mapped_by_name(
    pooling: Pooling, published: tuple[Path, dict[str, torch.Tensor]], tiny: Tiny,
    make_archive: Callable[..., Path], tmp_path: Path,
) -> None:  # fmt: skip
    file, state = published
    archive = make_archive(tmp_path / "archive", bands=("B08", "B02", "B8A"))
    run = pretrain([archive], tmp_path / "run", config(tiny, pooling=pooling), run_config(file))
    encoder, _ = ecofm.load_encoder(run)
    # torchgeo's order is B1 B2 B3 B4 B5 B6 B7 B8 B8a B9 B10 B11 B12.
    assert torch.equal(encoder.backbone.conv1.weight, state["conv1.weight"][:, [7, 1, 8]])
    assert torch.equal(
        encoder.backbone.state_dict()["layer4.1.bn2.running_var"], state["layer4.1.bn2.running_var"]
    )
    manifest = json.loads((run / "encoder" / "manifest.json").read_text())
    assert set(manifest["inputs"]) == {"archive0", "init"}
    assert str(file.parent) not in (run / "run.json").read_text()
    card = (run / "encoder" / "README.md").read_text()
    assert WEIGHTS in card and "B08, B02, B8A" in card and "Not trained" in card


def test_a_safetensors_file_does_too(
    published: tuple[Path, dict[str, torch.Tensor]], tiny: Tiny,
    make_archive: Callable[..., Path], tmp_path: Path,
) -> None:  # fmt: skip
    file = tmp_path / "w.safetensors"
    save_file(published[1], str(file))
    archive = make_archive(tmp_path / "archive", bands=("red",), dtype="uint8")
    run = pretrain([archive], tmp_path / "run", config(tiny), run_config(file))
    found = ecofm.load_encoder(run)[0].backbone.conv1.weight
    assert torch.equal(found, published[1]["conv1.weight"][:, [3]])


def test_band_names() -> None:
    assert [canonical(b) for b in ("B1", "B01", "B8a", "red", "B12")] == [
        "B01", "B01", "B8A", "B04", "B12",
    ]  # fmt: skip
    assert published_bands(WEIGHTS)[0] == "resnet18" and len(published_bands(WEIGHTS)[1]) == 13
    with pytest.raises(ValueError, match="and not B99"):
        find_bands(["B02", "B99"], ["B1", "B2"], WEIGHTS)
    with pytest.raises(ValueError, match="none of torchgeo's"):
        published_bands("ResNet18_Weights.NO_SUCH")


def test_what_does_not_fit_is_refused_and_leaves_nothing(
    published: tuple[Path, dict[str, torch.Tensor]], tiny: Tiny,
    make_archive: Callable[..., Path], tmp_path: Path,
) -> None:  # fmt: skip
    archive = make_archive(tmp_path / "archive")
    file = published[0]
    (tmp_path / "bad.pth").write_bytes(b"no weights")
    torch.save({"conv1.weight": torch.zeros(64, 4, 7, 7)}, tmp_path / "rgbn.pth")
    for changes, given, error, said in [
        ({}, tmp_path / "none.pth", ArtifactError, "does not exist; download"),
        ({}, tmp_path / "bad.pth", ArtifactError, "bad.pth"),
        ({}, tmp_path / "rgbn.pth", ArtifactError, "first layer of 13 bands"),
        ({"backbone": "resnet34"}, file, ValueError, "give encoder.backbone=resnet18"),
        ({"norm": Norm.group}, file, ArtifactError, "norm=batch"),
        ({}, None, ValueError, "given together"),
    ]:
        with pytest.raises(error, match=said):
            pretrain([archive], tmp_path / "run", config(tiny, **changes), run_config(given))
    assert not (tmp_path / "run").exists()


def test_another_resolution_is_warned_of(
    make_archive: Callable[..., Path], tiny: Tiny, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    from ecofm.embed import embed

    fine = make_archive(tmp_path / "fine")  # 40 m
    coarse = make_archive(tmp_path / "coarse", tile_px=20)  # 64 m
    run = pretrain([fine], tmp_path / "run", tiny(steps=0), run_config(None))
    fields = json.loads((run / "encoder" / "config.json").read_text())
    assert fields["contract"]["gsd_m"] == 40 and len(fields["data"]["archive0"]) == 64
    assert set(fields) >= {"steps", "recipe", "commit", "data", "encoder", "contract", "dim"}
    embed([fine], run, tmp_path / "same")
    assert "resolution" not in capsys.readouterr().err
    embed([coarse], run, tmp_path / "other")
    assert "resolution of 40 m and" in capsys.readouterr().err
