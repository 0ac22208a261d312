"""python -m train.rank embeddings=DIR comparisons=FILE out=DIR [key=value ...], for sweeps."""

from __future__ import annotations

from pathlib import Path

import hydra
from omegaconf import DictConfig

from ecofm.rank.heads import RankConfig
from ecofm.rank.run import rank
from train.config import CONFIGS, pick, register, to_entry, to_paths
from train.door import at_the_door

register()


@hydra.main(version_base="1.3", config_path=CONFIGS, config_name="rank")
@at_the_door
def main(config: DictConfig) -> None:
    """Compose, then hand over to the library."""
    entry = to_entry(config)
    rank(
        to_paths(entry.embeddings),
        Path(entry.comparisons),
        Path(entry.out),
        pick(entry, RankConfig),
        members=Path(entry.members) if entry.members else None,
        overwrite=entry.overwrite,
    )


if __name__ == "__main__":
    main()
