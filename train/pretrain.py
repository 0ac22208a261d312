"""python -m train.pretrain archive=DIR out=DIR [recipe=NAME] [method=NAME] [key=value ...]."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig

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
from train.door import at_the_door

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
    """Return a wandb logger when it is asked for; the run's id is its folder's name."""
    if entry.wandb.mode is WandbMode.disabled:
        return []
    from pytorch_lightning.loggers import WandbLogger

    name = Path(entry.out).name
    return [
        WandbLogger(
            project=entry.wandb.project,
            name=name,
            id=name,
            resume="allow",
            offline=entry.wandb.mode is WandbMode.offline,
            save_dir=entry.out,
        )
    ]


if __name__ == "__main__":
    main()
