"""python -m train.pretrain archive=DIR out=DIR [recipe=NAME] [method=NAME] [key=value ...]."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig

from ecofm.pretrain.config import plain
from ecofm.pretrain.run import PretrainConfig, RunConfig, pretrain
from ecofm.types import progress_bar
from train.config import (
    CONFIGS,
    PretrainEntry,
    WandbMode,
    pick,
    register,
    to_entry,
    to_paths,
)
from train.door import at_the_door, enter

register()


@hydra.main(version_base="1.3", config_path=CONFIGS, config_name="pretrain")
@at_the_door
def main(config: DictConfig) -> None:
    """Compose, then hand over to the library."""
    entry = to_entry(config)
    pretrain(
        to_paths(entry.archive),
        Path(entry.out),
        pick(entry, PretrainConfig),
        pick(entry, RunConfig),
        loggers=build_loggers(entry),
        overwrite=entry.overwrite,
        progress=progress_bar("pretrain"),
        recipe=str(hydra.core.hydra_config.HydraConfig.get().runtime.choices.get("recipe")),
    )


def build_loggers(entry: PretrainEntry) -> list[Any]:
    """Return a wandb logger when it is asked for."""
    if entry.wandb.mode is WandbMode.disabled:
        return []
    from pytorch_lightning.loggers import WandbLogger

    return [
        WandbLogger(
            project=entry.wandb.project,
            name=Path(entry.out).name,
            id=wandb_id(entry),
            resume="allow",
            offline=entry.wandb.mode is WandbMode.offline,
            save_dir=entry.out,
        )
    ]


def wandb_id(entry: PretrainEntry) -> str:
    """Return the same id after a requeue, and another one for any other run.

    Folders of one name are told apart by where they lie, and runs that follow each other in one
    folder by their config; a run that grows longer stays the same one.
    """
    out = Path(entry.out).resolve()
    config = plain(pick(entry, PretrainConfig)) | {"steps": None}
    told = json.dumps([str(out), config], sort_keys=True)
    # Names of folders may hold what wandb refuses.
    name = re.sub("[^A-Za-z0-9_.-]", "-", out.name)[:80]
    return f"{name}-{hashlib.sha256(told.encode()).hexdigest()[:10]}"


if __name__ == "__main__":
    enter(main)
