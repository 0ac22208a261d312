"""python -m train.finetune archive=DIR encoder=DIR comparisons=FILE out=DIR [key=value ...]."""

from __future__ import annotations

from pathlib import Path

import hydra
from omegaconf import DictConfig

from ecofm.rank.evidence import say_evidence
from ecofm.rank.finetune import FinetuneConfig, finetune
from ecofm.rank.opening import load_ranker
from ecofm.types import progress_bar
from train.config import CONFIGS, pick, register, to_entry, to_paths
from train.door import at_the_door, enter

register()


@hydra.main(version_base="1.3", config_path=CONFIGS, config_name="finetune")
@at_the_door
def main(config: DictConfig) -> None:
    """Compose, then hand over to the library."""
    entry = to_entry(config)
    finetune(
        to_paths(entry.archive),
        Path(entry.encoder),
        Path(entry.comparisons),
        Path(entry.out),
        pick(entry, FinetuneConfig),
        members=Path(entry.members) if entry.members else None,
        overwrite=entry.overwrite,
        force=entry.force,
        progress=progress_bar("finetune"),
    )
    say_evidence(load_ranker(Path(entry.out) / "ranker")[1])


if __name__ == "__main__":
    enter(main)
