"""The stage `pretrain`: archives to an encoder, resumable at any step."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.exceptions import MisconfigurationException  # type: ignore[attr-defined]

from ecofm import artifact
from ecofm.errors import EcofmError, UsageError
from ecofm.lock import Lock
from ecofm.pretrain import encoders
from ecofm.pretrain.card import write_card
from ecofm.pretrain.config import PretrainConfig, RunConfig, plain
from ecofm.pretrain.devices import build_strategy, lay_out
from ecofm.pretrain.encoders import Encoder
from ecofm.pretrain.folder import (
    begin,
    drop_unreadable,
    is_finished,
    is_first_process,
    read_record,
    settle,
    wait_for_first,
)
from ecofm.pretrain.look import draw_views
from ecofm.pretrain.methods import build_method
from ecofm.pretrain.module import ContrastiveModule
from ecofm.pretrain.monitor import Monitor
from ecofm.pretrain.published import initialise
from ecofm.pretrain.record import Record
from ecofm.pretrain.resume import (
    KEEP_CHECKPOINTS,
    AtomicCheckpointIO,
    StopSignals,
    newest_checkpoint,
    requeue,
    require_room,
    step_of,
    sweep,
)
from ecofm.tiles.archive import open_archives
from ecofm.tiles.loader import PairLoader
from ecofm.tiles.pairs import PairConfig
from ecofm.types import Contract, Progress, say

__all__ = ["PretrainConfig", "RunConfig", "pretrain"]


def pretrain(
    archives: Sequence[Path],
    out: Path,
    config: PretrainConfig,
    run: RunConfig | None = None,
    *,
    loggers: Sequence[Any] = (),
    overwrite: bool = False,
    progress: Progress | None = None,
    recipe: str | None = None,
) -> Path:
    """Train an encoder on some archives and return `out`, which holds `encoder/`.

    The same call continues an interrupted run from its newest checkpoint, or says that it is
    done. Raises ArtifactError when `out` holds another run.
    """
    run = run or RunConfig()
    if run.n_devices > 1 and not is_first_process():
        return _pretrain(archives, out, config, run, loggers, overwrite, progress, recipe)
    # Of processes that were started together for a run the first one writes.
    with Lock(out, "pretrain") as lock:
        return _pretrain(archives, out, config, run, loggers, overwrite, progress, recipe, lock)


def _pretrain(
    archives: Sequence[Path],
    out: Path,
    config: PretrainConfig,
    run: RunConfig,
    loggers: Sequence[Any],
    overwrite: bool,
    progress: Progress | None,
    recipe: str | None,
    lock: Lock | None = None,
) -> Path:
    opened, contract = open_archives(list(archives))
    inputs = artifact.hash_inputs(archive=archives)
    init_file = Path(run.init_file) if run.init_file else None
    if (init_file is None) != (config.init_weights == ""):
        raise UsageError("init_weights and init_file are given together, or neither is.")
    if init_file and init_file.is_file():
        inputs |= artifact.hash_inputs(init=init_file)
    manifest = artifact.build_manifest("encoder", plain(config), inputs)
    if lock is None:
        wait_for_first(out, manifest)
    may_write = lock is not None and lock.refused is None
    if may_write:
        artifact.recover(out)
    if is_finished(out, manifest, overwrite):
        if may_write:
            with Lock(out / "encoder", "encoder"):
                pass  # what a run left that was killed at its end goes with the lock
        say(f"{out} is done already: the same archives and options.")
        return out
    if lock is not None:
        lock.require()
    run = settle(run, read_record(out), manifest)
    torch_threads = torch.get_num_threads()
    torch.set_num_threads(run.torch_threads or torch_threads)
    try:
        with StopSignals() as signals:
            # Whatever the options ask for in vain is refused before anything is written.
            torch.manual_seed(config.seed)
            encoder = Encoder(config.encoder, contract)
            if init_file:
                initialise(encoder, config.init_weights, init_file)
            if config.steps:
                # A second's work; a checkpoint has the same.
                encoder.fit_words(opened, config.seed)
            module = _build_module(encoder, opened, config, run)
            _warn_of_pairs(module, config)
            record = Record(
                out,
                checkpoint_every=run.checkpoint_every,
                log_every=run.log_every,
                max_skipped=run.max_skipped,
                on_collapse=run.on_collapse,
                monitor=_build_monitor(opened, contract, run),
                monitor_every=run.monitor_every,
                signals=signals,
                progress=progress,
            )
            trainer = _build_trainer(out, run, loggers, record)
            if trainer.is_global_zero:
                begin(out, manifest, run)
                if config.steps:
                    _make_room(out, module)
                    draw_views(module, out / "views.png")
            for archive in opened:
                contract.warn_of_resolution(archive.contract, "the run", str(archive.path))
            if config.steps:
                _fit(trainer, module, newest_checkpoint(out / "checkpoints", module))
            if record.stopped:
                if trainer.is_global_zero:
                    requeue()
                raise EcofmError(
                    f"stopped by {record.stopped} after step {int(module.step)}, which is saved; "
                    "the same command continues."
                )
    finally:
        torch.set_num_threads(torch_threads)
    if trainer.is_global_zero:
        _say_replaced(module)
        if run.is_sharded and config.steps:
            # Its parameters are parts now; the checkpoint of the last step has them whole.
            encoder = Encoder(config.encoder, contract)
            module = _build_module(encoder, opened, config, run)
            _restore(module, newest_checkpoint(out / "checkpoints", module))
        drop_unreadable(out / "encoder")
        draft = artifact.Draft(
            out / "encoder", stage="encoder", config=plain(config), inputs=inputs, overwrite=True
        )
        draft.extra = {"torch": torch.__version__, "recipe": recipe, **_count_pairs(module)}
        extra = {
            "steps": config.steps,
            "recipe": recipe,
            "commit": manifest["git_commit"],
            "data": inputs,
        }
        encoder.attach(module.method.subspaces())
        with draft as folder:
            fields = encoders.save(folder, encoder.cpu(), extra)
            write_card(folder, plain(config), fields, out / "metrics.jsonl", opened[0].attribution)
    return out


def _build_module(
    encoder: Encoder, archives: list[Any], config: PretrainConfig, run: RunConfig
) -> ContrastiveModule:
    if config.batch_size % (run.n_devices * config.accumulate):
        raise UsageError(
            f"batch_size {config.batch_size} is no multiple of {run.n_devices} devices times "
            f"accumulate {config.accumulate}."
        )
    return ContrastiveModule(
        lay_out(
            build_method(config.method, encoder, distributed=run.n_devices > 1),
            channels_last=run.channels_last is not False,
            compile=bool(run.compile),
            is_sharded=run.is_sharded,
            n_devices=run.n_devices,
            on_gpu=run.on_gpu,
        ),
        config.views,
        archives,
        batch_size=config.batch_size,
        seed=config.seed,
        steps=config.steps,
        warmup_steps=config.warmup_steps,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        threads=run.threads,
        accumulate=config.accumulate,
        schedule=config.schedule,
        gradient_clip=config.gradient_clip,
        positives=config.positives,
        pairs=config.pairs,
    )


def _build_monitor(archives: list[Any], contract: Contract, run: RunConfig) -> Monitor | None:
    chips, proxies = (
        Path(p) if p is not None else None for p in (run.monitor_chips, run.monitor_proxies)
    )
    if chips is None and proxies is None:
        return None
    return Monitor(archives, contract, chips=chips, proxies=proxies)


def _count_pairs(module: ContrastiveModule) -> dict[str, int]:
    """Return how many pairs were seen, and how many of them stood in for others."""
    return {
        "n_pairs": int(module.step) * module.batch_size,
        "n_pairs_replaced": int(module.n_replaced),
    }


def _say_replaced(module: ContrastiveModule) -> None:
    counts = _count_pairs(module)
    if counts["n_pairs_replaced"]:
        say(
            f"{counts['n_pairs_replaced']} of {counts['n_pairs']} pairs have no place where every "
            f"view shows {module.views.min_valid_share:.0%} valid pixels; others stood in for them."
        )


def _make_room(out: Path, module: ContrastiveModule) -> None:
    """Sweep what a kill left half-written, and refuse a disk without room for checkpoints."""
    folder = out / "checkpoints"
    sweep(folder)
    values = [*module.method.parameters(), *module.method.buffers()]
    trained = [p for p in module.method.parameters() if p.requires_grad]
    # AdamW remembers two numbers for each that it trains.
    size = sum(v.nbytes for v in values) + 2 * sum(p.nbytes for p in trained)
    n_missing = KEEP_CHECKPOINTS + 1 - len(list(folder.glob("step-*.ckpt")))
    require_room(folder, size * max(1, n_missing))


def _warn_of_pairs(module: ContrastiveModule, config: PretrainConfig) -> None:
    loader = PairLoader(
        module.archives,
        batch_size=config.batch_size,
        seed=config.seed,
        pairs=config.pairs,
        places=module.places,
    )
    if loader.n_left_out:
        say(
            f"{loader.n_left_out} of {loader.n_tiles} tiles have too few valid pixels for any view "
            "and are in no pair."
        )
    if not loader.has_temporal_pairs:
        what = "that may be paired" if config.pairs != PairConfig() else ""
        said = " ".join(f"no cell has two periods {what}".split())
        say(f"warning: {said}, so both views of a pair show the same tile.")


def _build_trainer(out: Path, run: RunConfig, loggers: Sequence[Any], record: Record) -> pl.Trainer:
    # Lightning announces devices and products; our own lines say what a run does.
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    given = {
        name: getattr(run, name) for name in ("accelerator", "devices", "strategy", "precision")
    }
    try:
        return pl.Trainer(
            accelerator=run.accelerator,
            devices=run.devices,
            num_nodes=run.nodes,
            strategy=build_strategy(run.strategy, run.n_devices),
            precision=run.precision,  # type: ignore[arg-type]
            max_steps=-1,  # the record stops at our own count
            max_epochs=-1,
            logger=list(loggers) or False,
            callbacks=[record],
            plugins=[AtomicCheckpointIO()],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            log_every_n_steps=run.log_every,
            use_distributed_sampler=False,
            default_root_dir=out,
        )
    except (ValueError, MisconfigurationException) as error:
        reason = " ".join(str(error).split())
        told = ", ".join(f"{name}={value}" for name, value in given.items())
        raise UsageError(f"{told} cannot be used together here: {reason}") from error


def _restore(module: ContrastiveModule, checkpoint: Path | None) -> None:
    if checkpoint is None:
        raise EcofmError("the last checkpoint cannot be read; the same command trains on from it.")
    module.load_state_dict(AtomicCheckpointIO().load_checkpoint(checkpoint)["state_dict"])


def _fit(trainer: pl.Trainer, module: ContrastiveModule, checkpoint: Path | None) -> None:
    if checkpoint and step_of(checkpoint) >= module.steps:
        # Lightning would take one step more of a run that has made its last one.
        _restore(module, checkpoint)
        return
    with warnings.catch_warnings():
        # Our loader is no DataLoader: it has threads of its own, so Lightning's advice on workers
        # does not apply.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        # Lightning-AI/pytorch-lightning#20910: torch deprecated what its pytree helper calls.
        warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
        trainer.fit(module, ckpt_path=str(checkpoint) if checkpoint else None)
