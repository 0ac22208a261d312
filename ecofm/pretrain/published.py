"""Published Sentinel-2 weights as initialisation, from a given file: nothing is downloaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ecofm.errors import ArtifactError, EcofmError, UsageError
from ecofm.pretrain.encoders import Encoder
from ecofm.pretrain.pickled import require_plain
from ecofm.tensors import load_tensors, require_finite_tensor
from ecofm.tiles.bands import band_name

STEMS = ("conv1.weight", "patch_embed.proj.weight")
HEADS = ("fc.", "head.", "classifier.")
COLOURS = {"red": "B04", "green": "B03", "blue": "B02", "nir": "B08"}


def published_bands(weights: str) -> tuple[str, list[str]]:
    """Return the timm backbone and the bands of torchgeo's weights, by their full name.

    The name is such as `ResNet50_Weights.SENTINEL2_ALL_MOCO`. Raises ValueError for any other.
    """
    from torchgeo.models import get_weight

    try:
        meta: dict[str, Any] = get_weight(weights).meta
        return str(meta["model"]), [str(band) for band in meta["bands"]]
    except (KeyError, ValueError, AttributeError) as error:
        raise UsageError(
            f"weights {weights!r} are none of torchgeo's; see torchgeo.models.list_models()."
        ) from error


def canonical(band: str) -> str:
    """Return one name for a band: B1, B01 and b01 are B01; B8a is B8A; red is B04."""
    return band_name(COLOURS.get(band.lower(), band.upper()))


def initialise(encoder: Encoder, weights: str, file: Path) -> None:
    """Give an encoder torchgeo's published weights, the first layer's bands mapped by name.

    Raises ArtifactError when the file does not hold them, ValueError when the encoder has
    another backbone or a band that they do not know.
    """
    backbone, bands = published_bands(weights)
    if encoder.config.backbone != backbone or encoder.config.width != 1:
        raise UsageError(
            f"{weights} are of {backbone} at width 1; give encoder.backbone={backbone} and "
            "encoder.width=1."
        )
    state = _read(file, weights)
    stem = next((name for name in STEMS if name in state), None)
    if stem is None or state[stem].ndim < 2 or state[stem].shape[1] != len(bands):
        raise ArtifactError(
            f"{file} does not hold {weights}: expected a first layer of {len(bands)} bands."
        )
    state[stem] = state[stem][:, find_bands(encoder.contract.bands, bands, weights)]
    state = {name: value for name, value in state.items() if not name.startswith(HEADS)}
    own = encoder.backbone.state_dict()
    wrong = sorted(set(own) ^ set(state)) or sorted(
        name for name in own if own[name].shape != state[name].shape
    )
    # A features_only backbone leaves out what follows the last stage.
    wrong = [name for name in wrong if name in own or not name.startswith(("norm.", "fc_norm."))]
    if wrong:
        raise ArtifactError(
            f"{file} does not fit {backbone} as configured: {', '.join(wrong[:3])} differ; "
            "give encoder.norm=batch, and pooling=last for a transformer."
        )
    encoder.backbone.load_state_dict({name: state[name] for name in own})


def find_bands(wanted: Sequence[str], known: Sequence[str], weights: str) -> list[int]:
    """Return where each wanted band stands among the known ones; ValueError for a stranger."""
    places = {canonical(band): place for place, band in enumerate(known)}
    missing = [band for band in wanted if canonical(band) not in places]
    if missing:
        raise UsageError(f"{weights} know {', '.join(known)}, and not {', '.join(missing)}.")
    return [places[canonical(band)] for band in wanted]


def _read(file: Path, weights: str) -> dict[str, Tensor]:
    if not file.is_file():
        if file.exists():
            raise ArtifactError(f"{file} is no file; give the one that holds {weights}.")
        raise ArtifactError(
            f"{file} does not exist; download {weights} from the address that torchgeo gives."
        )
    if file.suffix == ".safetensors":
        return load_tensors(file)
    try:
        require_plain(file)
        state = torch.load(file, map_location="cpu", weights_only=True)
    except EcofmError:
        raise
    except Exception as error:  # pickletools and the restricted unpickler raise nearly anything
        reason = " ".join(str(error).split())[:120]
        raise ArtifactError(
            f"{file} cannot be read as plain tensors ({reason}); download {weights} again."
        ) from error
    if not isinstance(state, dict) or not all(_is_plain(*part) for part in state.items()):
        raise ArtifactError(f"{file} holds no table of tensors, which {weights} are.")
    for name, value in state.items():
        require_finite_tensor(value, f"{file} has {name[:80]!r} with")
    return state


def _is_plain(name: object, value: object) -> bool:
    """Return whether this is a tensor whose every number is in the file."""
    if not isinstance(name, str) or not isinstance(value, Tensor):
        return False
    if value.layout is not torch.strided or value.is_quantized or value.is_complex():
        return False
    # A view may repeat a few numbers without end.
    return value.numel() * value.element_size() <= value.untyped_storage().nbytes()
