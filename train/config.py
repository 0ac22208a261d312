"""The library's config dataclasses, registered as Hydra's structured configs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from ecofm.errors import UsageError
from ecofm.fields import require_finite
from ecofm.pretrain.method import MethodConfig
from ecofm.pretrain.methods import METHODS
from ecofm.pretrain.run import PretrainConfig, RunConfig
from ecofm.rank.finetune import FinetuneConfig
from ecofm.rank.heads import RankConfig
from train.door import guard_composition

CONFIGS = str(Path(__file__).resolve().parents[1] / "configs")


class WandbMode(Enum):
    """Whether Weights & Biases is used, and whether over the network."""

    disabled = "disabled"
    offline = "offline"
    online = "online"


@dataclass(kw_only=True)
class WandbConfig:
    """Where Weights & Biases mirrors metrics.jsonl."""

    mode: WandbMode = WandbMode.disabled
    """disabled, offline or online."""
    project: str = "ecofm"
    """Project name."""


@dataclass(kw_only=True)
class PretrainEntry(PretrainConfig, RunConfig):
    """`python -m train.pretrain`."""

    archive: Any = MISSING
    """One archive folder or a list of them."""
    out: str = MISSING
    """The run's folder."""
    overwrite: bool = False
    """Replace another run that `out` holds."""
    method: MethodConfig = MISSING
    """The group `method` decides: a default here would forbid every other one."""
    wandb: WandbConfig = field(default_factory=WandbConfig)
    """Weights & Biases."""


@dataclass(kw_only=True)
class RankEntry(RankConfig):
    """`python -m train.rank`."""

    embeddings: Any = MISSING
    """One embeddings folder or a list of them."""
    comparisons: str | None = None
    """A store, CSV or Parquet file."""
    target: str | None = None
    """In its place: a table of values."""
    column: str | None = None
    """The target's column, where it has several."""
    positive: str | None = None
    """The class whose probability is the score."""
    members: str | None = None
    """A clusters folder, or a table tile_id, item."""
    out: str = MISSING
    """The ranker's folder."""
    overwrite: bool = False
    """Replace another ranker that `out` holds."""
    force: bool = False
    """Write a ranker that is no better than chance all the same, marked."""


@dataclass(kw_only=True)
class FinetuneEntry(FinetuneConfig):
    """`python -m train.finetune`."""

    archive: Any = MISSING
    """One archive folder or a list of them."""
    encoder: str = MISSING
    """The encoder to start from."""
    comparisons: str = MISSING
    """A store, CSV or Parquet file."""
    members: str | None = None
    """A clusters folder, or a table tile_id, item."""
    out: str = MISSING
    """Gets `encoder/` and `ranker/`."""
    overwrite: bool = False
    """Replace what another call left in `out`."""
    force: bool = False
    """Write a ranker that is no better than chance all the same, marked."""


def register() -> None:
    """Tell Hydra the schemas; a wrong key or type then fails when the config is composed."""
    guard_composition()
    store = ConfigStore.instance()
    store.store(name="pretrain_schema", node=PretrainEntry)
    store.store(name="rank_schema", node=RankEntry)
    store.store(name="finetune_schema", node=FinetuneEntry)
    for name, node in METHODS.items():
        store.store(group="method", name=name, node=node)


def to_entry(config: DictConfig) -> Any:
    """Return the dataclass that a composed config stands for; UsageError where it lacks a value."""
    if missing := sorted(OmegaConf.missing_keys(config)):
        raise UsageError(f"{', '.join(missing)} must be given, as {missing[0]}=VALUE.")
    entry = OmegaConf.to_object(config)
    require_finite(dataclasses.asdict(entry), "config")  # type: ignore[call-overload]
    return entry


def to_paths(value: Any) -> list[Path]:
    """Return a list of folders from one folder or several; ValueError when there is none."""
    values = value if isinstance(value, list | tuple) else [value]
    if wrong := [item for item in values if not isinstance(item, str | int | float | Path)]:
        raise UsageError(f"{wrong[0]!r} is no folder; give a path, or a list as [ONE,TWO].")
    if not values:
        raise UsageError("an empty list of folders was given, as in archive=[]; name one at least.")
    return [Path(str(item)) for item in values]


def pick(entry: Any, kind: type) -> Any:
    """Return the part of an entry that is one of the library's dataclasses."""
    return kind(**{f.name: getattr(entry, f.name) for f in dataclasses.fields(kind)})
