"""Encoders: a timm backbone that takes stored pixels and knows its radiometric contract."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any, cast

import timm
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Shaped
from safetensors.torch import save_file
from torch import Tensor, nn

from ecofm import artifact
from ecofm.errors import ContractError, UsageError
from ecofm.pretrain.views import measure_tiles
from ecofm.pretrain.words import Words, fit_words, sample_patches
from ecofm.tiles.archive import Archive
from ecofm.types import Contract

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
MAX_WIDTH = 8
"""Memory grows with its square."""
RESNET_CHANNELS = (64, 128, 256, 512)
RESNET_STEM = 32


class Normalization(Enum):
    """What pixels are measured against before the first layer."""

    archive = "archive"
    tile = "tile"


class Norm(Enum):
    """What keeps the activations in range."""

    batch = "batch"
    group = "group"


class Pooling(Enum):
    """What becomes the embedding."""

    last = "last"
    stages = "stages"


@dataclass(kw_only=True, slots=True)
class EncoderConfig:
    """What an encoder is made of."""

    backbone: str = "resnet18"
    """Any timm model; `stages` pooling needs one that offers features_only."""
    normalization: Normalization = Normalization.archive
    """`archive`: mean and std of the contract; `tile`: each tile's own, for 8-bit renderings."""
    pooling: Pooling = Pooling.stages
    """`last`: the backbone's own pooled output; `stages`: mean and spread of every stage."""
    width: float = 1.0
    """Share of a ResNet's usual channels; other backbones take 1 only."""
    norm: Norm = Norm.batch
    """`batch`: the backbone's own layers; `group`: GroupNorm in place of BatchNorm."""
    drop_path: float = 0.0
    """Highest rate at which residual branches are left out in training, at the last block."""
    dropout: float = 0.0
    """Share of the features that is left out in training."""
    words: int = 256
    """Words of the dictionary of patches at full resolution; 0 leaves it out."""

    def __post_init__(self) -> None:
        """Raise ValueError for values that cannot be used."""
        # timm also takes names that make it fetch from a hub or read any folder.
        if not timm.is_model(self.backbone) or ":" in self.backbone:
            raise UsageError(
                f"backbone {self.backbone!r} is none of timm's; see timm.list_models()."
            )
        if not 0 < self.width <= MAX_WIDTH:
            raise UsageError(
                f"backbone width {self.width}: expected a share such as 0.5 or 2, at most "
                f"{MAX_WIDTH}; for more, name a larger backbone."
            )
        if not (0 <= self.dropout < 1 and 0 <= self.drop_path < 1):
            raise UsageError("dropout and drop_path are shares: expected 0 and more, less than 1.")
        if self.words < 0 or self.words == 1:
            raise UsageError(f"words {self.words}: expected 0, or 2 and more.")


class Encoder(nn.Module):
    """Stored pixels to embeddings: features of the backbone, log shares of words, sub-spaces.

    A sub-space is a linear part of the features that the method taught something of its own.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: EncoderConfig, contract: Contract) -> None:
        """Build the backbone with random weights.

        Raises ValueError when timm cannot use the backbone as configured, ContractError for a band
        without spread.
        """
        super().__init__()
        contract.require_spread()
        self.config = config
        self.contract = contract
        self.backbone, self.backbone_dim = _build_backbone(config, len(contract.bands))
        self.use_channels_last(True)
        self.words = Words(len(contract.bands), config.words) if config.words else None
        self.subspaces = nn.ModuleDict()
        self.register_buffer("mean", torch.tensor(contract.mean, dtype=torch.float32))
        self.register_buffer("std", torch.tensor(contract.std, dtype=torch.float32))

    @property
    def columns(self) -> dict[str, tuple[int, int]]:
        """Where each part of an embedding begins and ends."""
        sizes = {"features": self.backbone_dim, "words": self.config.words}
        sizes |= {name: cast(nn.Linear, part).out_features for name, part in self.subspaces.items()}
        ends = list(itertools.accumulate(sizes.values(), initial=0))
        places = zip(sizes, itertools.pairwise(ends), strict=True)
        return {name: place for name, place in places if place[1] > place[0]}

    @property
    def dim(self) -> int:
        """Dimensions of an embedding."""
        return max(end for _, end in self.columns.values())

    def find_columns(self, name: str) -> slice:
        """Return where a part of an embedding stands; ValueError when the encoder has none."""
        if name not in self.columns:
            raise UsageError(f"the encoder has no {name!r}; it has {', '.join(self.columns)}.")
        return slice(*self.columns[name])

    def use_channels_last(self, wanted: bool, *, weights: bool = True) -> None:
        """Choose the memory format of images, and of the weights with them; True at first.

        channels_last is up to three times as fast on CPU and on tensor cores.
        """
        self.memory_format = torch.channels_last if wanted else torch.contiguous_format
        self.backbone.to(memory_format=self.memory_format if weights else torch.contiguous_format)  # type: ignore[call-overload]

    def attach(self, subspaces: Mapping[str, nn.Linear]) -> None:
        """Let embeddings end with these linear parts of the features, in place of any before."""
        self.subspaces = nn.ModuleDict(subspaces)

    def require_contract(self, pixels: Shaped[Tensor, "batch band height width"]) -> None:
        """Raise ContractError for another number of bands or number type."""
        expected = (len(self.contract.bands), self.contract.dtype)
        found = (pixels.shape[1], str(pixels.dtype).removeprefix("torch."))
        if found != expected:
            raise ContractError(
                f"pixels have {found[0]} bands of {found[1]}; the encoder was trained on "
                f"{expected[0]} bands of {expected[1]} ({', '.join(self.contract.bands)})."
            )

    def measure(
        self,
        pixels: Shaped[Tensor, "batch band height width"],
        valid: Bool[Tensor, "batch height width"],
    ) -> tuple[Float[Tensor, "n band 1 1"], Float[Tensor, "n band 1 1"]]:
        """Return the centre and spread that stored numbers are measured against."""
        per_tile = self.config.normalization is Normalization.tile
        return measure_tiles(pixels, valid, self.mean, self.std, per_tile)

    def normalize(
        self,
        pixels: Shaped[Tensor, "batch band height width"],
        valid: Bool[Tensor, "batch height width"] | None = None,
    ) -> Float[Tensor, "batch band height width"]:
        """Turn stored numbers into float32 with mean 0 and unit 1; invalid pixels become 0.

        Raises ContractError for another number of bands or number type.
        """
        self.require_contract(pixels)
        if valid is None:
            shape = (pixels.shape[0], *pixels.shape[2:])
            valid = torch.ones(shape, dtype=torch.bool, device=pixels.device)
        centre, spread = self.measure(pixels, valid)
        return (pixels.float() - centre).div_(spread).mul_(valid[:, None])

    def encode(
        self,
        images: Float[Tensor, "batch band height width"],
        valid: Bool[Tensor, "batch height width"] | None = None,
    ) -> Float[Tensor, "batch backbone_dim"]:
        """Return the backbone's features of normalised images, which is what training teaches.

        Pooling looks past invalid pixels where it is told of them, except that of tokens.
        """
        images = images.contiguous(memory_format=self.memory_format)
        if self.config.pooling is Pooling.last:
            features = self._encode_last(images, valid).float()
        else:
            pooled: list[Tensor] = []
            for stage in self.backbone(images):
                weight = None if valid is None else _share_valid(valid, stage)
                pooled.extend(_pool(stage.float(), weight))
            features = torch.cat(pooled, dim=1)
        return F.dropout(features, self.config.dropout, self.training)

    def _encode_last(self, images: Tensor, valid: Tensor | None) -> Tensor:
        if valid is None or bool(valid.all()):
            return cast(Tensor, self.backbone(images))
        backbone: Any = self.backbone
        places = backbone.forward_features(images)
        if places.ndim == 4 and places.shape[1] == self.backbone_dim:
            # The head's mean over places becomes one weighted by how valid they are.
            places = places * _share_valid(valid, places) * places[0, 0].numel()
        return cast(Tensor, backbone.forward_head(places))

    def forward(
        self,
        pixels: Shaped[Tensor, "batch band height width"],
        valid: Bool[Tensor, "batch height width"] | None = None,
    ) -> Float[Tensor, "batch dim"]:
        """Embed stored pixels."""
        images = self.normalize(pixels, valid)
        features = self.encode(images, valid)
        parts = [features]
        if self.words is not None:
            known = torch.ones_like(images[:, 0], dtype=torch.bool) if valid is None else valid
            parts.append(self.words(images, known))
        parts.extend(subspace(features) for subspace in self.subspaces.values())
        return torch.cat(parts, dim=1)

    def fit_words(self, archives: Sequence[Archive], seed: int) -> None:
        """Learn the dictionary from random tiles of some archives."""
        if self.words is not None:
            fit_words(self.words, sample_patches(archives, self.normalize, seed=seed), seed=seed)


def _share_valid(valid: Tensor, stage: Tensor) -> Tensor:
    """Return each place's weight in a stage, (batch, 1, height, width), with sum 1."""
    height, width = stage.shape[2:]
    share = F.adaptive_avg_pool2d(valid[:, None].float(), (height, width)) + 1e-6
    return share / share.sum(dim=(2, 3), keepdim=True)


def _pool(stage: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return mean and log spread over space, in fp32: a spread is a small difference."""
    if weight is None:
        mean, square = stage.mean(dim=(2, 3)), stage.square().mean(dim=(2, 3))
    else:
        mean = (stage * weight).sum(dim=(2, 3))
        square = (stage.square() * weight).sum(dim=(2, 3))
    return mean, ((square - mean.square()).clamp(min=0) + 1e-6).log() / 2


def _build_backbone(config: EncoderConfig, n_bands: int) -> tuple[nn.Module, int]:
    options: dict[str, Any] = {"in_chans": n_bands}
    if config.drop_path:
        options["drop_path_rate"] = config.drop_path
    if config.width != 1:
        options["channels"] = tuple(max(1, int(n * config.width)) for n in RESNET_CHANNELS)
        options["stem_width"] = max(8, int(RESNET_STEM * config.width))
    if config.pooling is Pooling.last:
        options["num_classes"] = 0
        if config.backbone.startswith("vit_"):
            options["dynamic_img_size"] = True  # views are smaller than tiles
    else:
        options["features_only"] = True
    try:
        model: Any = timm.create_model(config.backbone, **options)
    except (RuntimeError, TypeError) as error:
        raise UsageError(
            f"backbone {config.backbone!r} cannot be built by timm with {options}: {error}"
        ) from error
    if config.norm is Norm.group:
        use_group_norm(model)
    if config.pooling is Pooling.last:
        return model, int(model.num_features)
    return model, 2 * sum(model.feature_info.channels())


def use_group_norm(module: nn.Module) -> None:
    """Put GroupNorm in the place of every BatchNorm inside a module.

    A batch statistic over one process's share is another one than over the whole batch, and
    torch's SyncBatchNorm takes no CPU tensors. Groups hold 8 channels at least.
    """
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d):
            channels = child.num_features
            groups = math.gcd(32, channels // 8) if channels % 8 == 0 else 1
            norm = nn.GroupNorm(groups, channels, child.eps)
            if child.affine:
                norm.load_state_dict({"weight": child.weight, "bias": child.bias})
            # timm's BatchNormAct2d does the activation too.
            more = [part for key in ("drop", "act") if (part := getattr(child, key, None))]
            module.register_module(name, nn.Sequential(norm, *more) if more else norm)
        else:
            use_group_norm(child)


def save(folder: Path, encoder: Encoder, extra: dict[str, Any]) -> dict[str, Any]:
    """Write weights and config.json into a folder, and return what config.json holds."""
    weights = {name: value.contiguous() for name, value in encoder.state_dict().items()}
    save_file(weights, str(folder / WEIGHTS))
    config = {
        name: value.value if isinstance(value, Enum) else value
        for name, value in asdict(encoder.config).items()
    }
    fields = {
        "encoder": config,
        "contract": encoder.contract.to_json(),
        "dim": encoder.dim,
        "columns": {name: list(place) for name, place in encoder.columns.items()},
    }
    artifact.write_json(folder / CONFIG, {**extra, **fields})
    return {**extra, **fields}


def encoder_folder(path: Path) -> Path:
    """Return the encoder's folder for a run folder or the folder itself."""
    return path / "encoder" if (path / "encoder").is_dir() else path
