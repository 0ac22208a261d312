"""python -m train.rank embeddings=DIR comparisons=FILE|target=FILE out=DIR, for sweeps."""

from __future__ import annotations

from pathlib import Path

import hydra
from omegaconf import DictConfig

from ecofm.errors import UsageError
from ecofm.rank.evidence import say_evidence
from ecofm.rank.heads import RankConfig
from ecofm.rank.opening import load_ranker
from ecofm.rank.run import rank, rank_target
from train.config import CONFIGS, pick, register, to_entry, to_paths
from train.door import at_the_door, enter

register()


@hydra.main(version_base="1.3", config_path=CONFIGS, config_name="rank")
@at_the_door
def main(config: DictConfig) -> None:
    """Compose, then hand over to the library."""
    entry = to_entry(config)
    if bool(entry.comparisons) == bool(entry.target):
        raise UsageError("give comparisons=FILE or target=FILE, one of them.")
    embeddings, out, config = to_paths(entry.embeddings), Path(entry.out), pick(entry, RankConfig)
    members = Path(entry.members) if entry.members else None
    if entry.comparisons:
        comparisons = Path(entry.comparisons)
        rank(
            embeddings, comparisons, out, config, members=members, overwrite=entry.overwrite,
            force=entry.force,
        )  # fmt: skip
    else:
        rank_target(
            embeddings, Path(entry.target), out, config, column=entry.column,
            positive=entry.positive, members=members, overwrite=entry.overwrite,
        )  # fmt: skip
    say_evidence(load_ranker(out)[1])


if __name__ == "__main__":
    enter(main)
