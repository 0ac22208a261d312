"""`ecofm pretrain`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ecofm.pretrain.run import PretrainConfig, RunConfig
from ecofm.pretrain.run import pretrain as run_pretrain
from ecofm.recipe import read_recipe
from ecofm.types import progress_bar
from ecofm.verbs.outcome import conclude


def pretrain(
    *,
    archive: list[Path],
    out: Path,
    recipe: str = "base",
    steps: int | None = None,
    seed: int | None = None,
    threads: int = RunConfig.threads,
    checkpoint_every: int = RunConfig.checkpoint_every,
    overwrite: bool = False,
) -> None:
    """Train an encoder on archives, without labels; `python -m train.pretrain` offers every knob.

    The same command continues an interrupted run from its newest checkpoint.

    Args:
        archive: Archive folders; give the flag once for each.
        out: The run's folder; it gets `encoder/`, metrics.jsonl and checkpoints.
        recipe: One of the recipes in configs/recipe.
        steps: Number of batches; the recipe's own by default.
        seed: Seed of weights, order, pairs and views; the recipe's own by default.
        threads: Loader threads; 0 reads in the training thread.
        checkpoint_every: Steps between checkpoints.
        overwrite: Replace another run that OUT holds.
    """
    config: PretrainConfig = read_recipe(recipe)
    changes = {"steps": steps, "seed": seed}
    config = replace(config, **{k: v for k, v in changes.items() if v is not None})  # type: ignore[arg-type]
    run = RunConfig(threads=threads, checkpoint_every=checkpoint_every)
    run_pretrain(
        archive,
        out,
        config,
        run,
        overwrite=overwrite,
        progress=progress_bar("pretrain"),
        recipe=recipe,
    )
    conclude(out, f"encoder after {config.steps} steps in {out / 'encoder'}")
