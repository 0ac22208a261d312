"""python -m train.finetune archive=DIR encoder=DIR comparisons=FILE out=DIR [key=value ...]."""

from __future__ import annotations

from pathlib import Path

import hydra
from omegaconf import DictConfig

from ecofm.artifact import read_manifest
from ecofm.rank.evidence import say_evidence
from ecofm.rank.finetune import FinetuneConfig, finetune
from ecofm.types import progress_bar
from train.config import CONFIGS, pick, register, to_entry, to_paths
from train.door import at_the_door

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
    say_evidence(read_manifest(Path(entry.out) / "ranker", "ranker"))


if __name__ == "__main__":
    at_the_door(main)()
