"""Encoders from disk: a config that is judged whole, and weights that fit it.

What config.json says is built on the meta device first, where it takes no memory, and compared with
the header of the weights: nothing is allocated for a config that does not fit them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from ecofm import artifact
from ecofm.checksums import open_file
from ecofm.errors import ArtifactError, EcofmError, UsageError
from ecofm.fields import Partial, read_fields
from ecofm.pretrain.encoders import CONFIG, WEIGHTS, Encoder, EncoderConfig, encoder_folder
from ecofm.tensors import load_tensors, require_header
from ecofm.types import Contract


@dataclass(frozen=True, kw_only=True, slots=True)
class Stored(Partial):
    """What config.json says of an encoder; what else it holds is for people."""

    encoder: EncoderConfig
    """What it is made of."""
    contract: Contract
    """The pixels that it takes."""
    dim: int
    """Dimensions of an embedding."""
    columns: dict[str, tuple[int, int]] | None = None
    """Where each part of an embedding begins and ends; the oldest encoders do not say."""


def load(path: Path) -> tuple[Encoder, Contract]:
    """Read an encoder from a run folder or its `encoder/`; see `ecofm.load_encoder`.

    Raises ArtifactError, which says what is wrong with the folder.
    """
    folder = encoder_folder(path)
    manifest = artifact.read_manifest(folder, "encoder")
    config, stored_weights = (open_file(folder, manifest, name) for name in (CONFIG, WEIGHTS))
    try:
        stored = _read_config(config)
        with torch.device("meta"):
            planned = _build(stored)
        require_header(stored_weights, planned.state_dict())
        _require_columns(stored, planned)
        weights = load_tensors(stored_weights)
        encoder = _build(stored)
        measured = {"mean": encoder.mean, "std": encoder.std}
        for name, value in measured.items():
            if not torch.equal(value, weights[name]):
                raise ArtifactError(
                    f"{CONFIG} has another {name} of the bands than {WEIGHTS}, which hold "
                    f"{[round(v, 4) for v in weights[name].tolist()]}."
                )
        encoder.load_state_dict(weights)
    # After our own: what timm and torch raise for a backbone that they cannot build.
    except (EcofmError, AssertionError, KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300].removesuffix(".")
        raise ArtifactError(
            f"{folder} is no whole encoder ({reason}); make it again with `ecofm pretrain`."
        ) from error
    return encoder.eval(), encoder.contract


def _read_config(path: Path) -> Stored:
    """Return what config.json says; raises EcofmError for what cannot be."""
    given = artifact.read_json(path)
    stored = read_fields(Stored, given)
    # Their defaults may change, and the weights do not tell what they were.
    if missing := {"backbone", "normalization", "pooling"} - given["encoder"].keys():
        raise UsageError(f"encoder.{min(missing)} is missing.")
    stored.contract.require_sense()
    stored.contract.require_spread()
    return stored


def _build(stored: Stored) -> Encoder:
    """Build an encoder with its sub-spaces, on the device that is current."""
    encoder = Encoder(stored.encoder, stored.contract)
    parts = sorted((stored.columns or {}).items(), key=lambda item: item[1])
    encoder.attach(
        {
            name: nn.Linear(encoder.backbone_dim, end - start)
            for name, (start, end) in parts
            if name not in ("features", "words")
        }
    )
    return encoder


def _require_columns(stored: Stored, encoder: Encoder) -> None:
    """Raise ArtifactError unless an embedding's parts are what config.json says."""
    if stored.dim != encoder.dim:
        raise ArtifactError(f"{CONFIG} has dim {stored.dim}, and its parts add to {encoder.dim}.")
    if stored.columns is not None and stored.columns != encoder.columns:
        raise ArtifactError(f"{CONFIG} has columns {stored.columns}, expected {encoder.columns}.")
