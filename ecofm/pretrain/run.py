"""The stage `pretrain`: archives to an encoder, resumable at any step."""

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from ecofm import artifact
from ecofm.errors import ArtifactError, EcofmError
from ecofm.pretrain import encoders
from ecofm.pretrain.encoders import Encoder, EncoderConfig
from ecofm.pretrain.method import MethodConfig
from ecofm.pretrain.methods import build_method, method_name
from ecofm.pretrain.module import ContrastiveModule, Positives, Schedule
from ecofm.pretrain.record import Record
from ecofm.pretrain.resume import (
    KEEP_CHECKPOINTS,
    AtomicCheckpointIO,
    StopSignals,
    newest_checkpoint,
    requeue,
    require_room,
    sweep,
)
from ecofm.pretrain.students import SimCLRConfig
from ecofm.pretrain.views import ViewConfig
from ecofm.tiles.archive import open_archives
from ecofm.tiles.loader import PairLoader
from ecofm.types import Progress, say

RUN = "run.json"


@dataclass(kw_only=True, slots=True)
class PretrainConfig:
    """Everything that the encoder depends on."""

    steps: int = 2000
    """Number of global batches; 0 writes the encoder with its random weights, as a baseline."""
    batch_size: int = 128
    """Pairs a step over all devices together."""
    accumulate: int = 1
    """Parts that a batch is worked through in, for less memory; negatives are those of a part."""
    seed: int = 0
    """Seed of weights, order, pairs and views."""
    learning_rate: float = 1e-3
    """Peak learning rate of AdamW."""
    warmup_steps: int = 50
    """Steps of linear warm-up."""
    schedule: Schedule = Schedule.cosine
    """After the warm-up: `cosine` to 0, or `constant`, under which `steps` may be raised later."""
    gradient_clip: float = 0.0
    """Largest norm of the gradient; 0 does not clip."""
    weight_decay: float = 1e-4
    """Decay of matrices and kernels; norms and biases have none."""
    positives: Positives = Positives.periods
    """`periods`: two periods of a cell where it has them; `tile`: one tile twice."""
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    """The encoder."""
    views: ViewConfig = field(default_factory=ViewConfig)
    """How two views of a place may differ."""
    method: MethodConfig = field(default_factory=SimCLRConfig)
    """SimCLR, MoCo, BYOL..., see `ecofm.pretrain.methods`."""

    def __post_init__(self) -> None:
        """Raise ValueError for values that cannot be used."""
        if self.steps < 0 or self.batch_size < 2 or self.learning_rate <= 0:
            raise ValueError("steps >= 0, batch_size >= 2 and learning_rate > 0 are needed.")
        if self.accumulate < 1 or self.batch_size % self.accumulate or self.gradient_clip < 0:
            raise ValueError(
                "accumulate >= 1 that divides batch_size, and gradient_clip >= 0 are needed."
            )
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed {self.seed}: expected 0 to {2**32 - 1}.")


# No slots: the Hydra entry inherits from this class and PretrainConfig, and only one may have them.
@dataclass(kw_only=True)
class RunConfig:
    """How the run is carried out; none of it changes the encoder beyond rounding."""

    threads: int = 2
    """Loader threads; 0 reads in the training thread."""
    checkpoint_every: int = 500
    """Steps between checkpoints."""
    log_every: int = 20
    """Steps between lines of metrics.jsonl."""
    max_skipped: int = 10
    """Steps in a row without a finite loss and gradient, after which the run stops."""
    accelerator: str = "auto"
    """Lightning's accelerator: auto, cpu, gpu."""
    devices: int = 1
    """Devices a node."""
    nodes: int = 1
    """Nodes."""
    strategy: str = "auto"
    """Lightning's strategy: auto, ddp, fsdp."""
    precision: str = "auto"
    """Lightning's precision: 32-true, bf16-mixed; auto is bf16-mixed where the device has it."""
    torch_threads: int | None = None
    """Threads of torch itself; None keeps the run's first choice, which is torch's own."""

    def __post_init__(self) -> None:
        """Raise ValueError for values that cannot be used."""
        if self.threads < 0 or min(self.checkpoint_every, self.log_every, self.max_skipped) < 1:
            raise ValueError(
                "threads >= 0, and checkpoint_every, log_every, max_skipped >= 1 are needed."
            )


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
    opened, contract = open_archives(list(archives))
    inputs = artifact.hash_inputs(archive=archives)
    manifest = artifact.build_manifest("encoder", plain(config), inputs)
    if is_finished(out, manifest, overwrite):
        say(f"{out} is done already: the same archives and options.")
        return out
    run = _settle(run, _read_record(out), manifest)
    torch_threads = torch.get_num_threads()
    torch.set_num_threads(run.torch_threads or torch_threads)
    try:
        with StopSignals() as signals:
            # Whatever the options ask for in vain is refused before anything is written.
            torch.manual_seed(config.seed)
            encoder = Encoder(config.encoder, contract)
            if config.steps:
                # A second's work; a checkpoint has the same.
                encoder.fit_words(opened, config.seed)
            module = _build_module(encoder, opened, config, run)
            record = Record(
                out,
                checkpoint_every=run.checkpoint_every,
                log_every=run.log_every,
                max_skipped=run.max_skipped,
                signals=signals,
                progress=progress,
            )
            trainer = _build_trainer(out, run, loggers, record)
            if trainer.is_global_zero:
                _begin(out, manifest, run)
                if config.steps:
                    _make_room(out, module)
            _warn_of_pairs(opened, config)
            if config.steps:
                _fit(trainer, module, newest_checkpoint(out / "checkpoints"))
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
        draft = artifact.Draft(
            out / "encoder", stage="encoder", config=plain(config), inputs=inputs, overwrite=True
        )
        draft.extra = {"torch": torch.__version__, "recipe": recipe}
        with draft as folder:
            encoders.save(folder, encoder.cpu(), {"steps": config.steps, "recipe": recipe})
    return out


def _build_module(
    encoder: Encoder, archives: list[Any], config: PretrainConfig, run: RunConfig
) -> ContrastiveModule:
    n_devices = run.devices * run.nodes
    if config.batch_size % (n_devices * config.accumulate):
        raise ValueError(
            f"batch_size {config.batch_size} is no multiple of {n_devices} devices times "
            f"accumulate {config.accumulate}."
        )
    return ContrastiveModule(
        build_method(config.method, encoder, distributed=n_devices > 1),
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
    )


def _read_record(out: Path) -> dict[str, Any]:
    """Return what `_begin` noted of the run in `out`; empty when there is none."""
    found = artifact.read_json(out / RUN) if (out / RUN).is_file() else {}
    return found if isinstance(found, dict) else {}


def _settle(run: RunConfig, found: dict[str, Any], manifest: dict[str, Any]) -> RunConfig:
    """Return the run's options with what is left open settled as when the run began.

    Another number of torch's threads adds up in another order, and another precision rounds
    otherwise: left to the machine, a resumed run would not be the unbroken one.
    """
    kept = found.get("machine", {}) if _is_same_run(found, manifest) else {}
    return replace(
        run,
        torch_threads=run.torch_threads or kept.get("torch_threads") or torch.get_num_threads(),
        precision=choose_precision(run, kept.get("precision")),
    )


def plain(config: Any) -> dict[str, Any]:
    """Return a config dataclass as plain values, with the class of a method by its name."""

    def simplify(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: simplify(inner) for name, inner in value.items()}
        return value.value if isinstance(value, Enum) else value

    fields: dict[str, Any] = simplify(asdict(config))
    if isinstance(config, PretrainConfig):
        fields["method"]["name"] = method_name(config.method)
    return fields


def is_finished(out: Path, manifest: dict[str, Any], overwrite: bool) -> bool:
    """Return whether `out` holds the finished run of this config and these inputs.

    Raises ArtifactError when it holds anything else, unless that is a run and `overwrite` is set.
    """
    record = out / RUN
    if not out.is_dir() or not any(out.iterdir()):
        if out.exists() and not out.is_dir():
            raise ArtifactError(f"{out} is no folder; choose another --out.")
        return False
    if not record.is_file():
        raise ArtifactError(f"{out} holds files that are no run; choose another --out.")
    found = artifact.read_json(record)
    if not isinstance(found, dict):
        raise ArtifactError(f"{record} is damaged; remove {out}, or choose another --out.")
    if _is_same_run(found, manifest):
        is_as_long = found["config"]["steps"] == manifest["config"]["steps"]
        return is_as_long and (out / "encoder" / artifact.MANIFEST).is_file()
    if not overwrite:
        keys = ("config", "inputs")
        differing = [key for key in keys if found.get(key) != manifest[key]]
        raise ArtifactError(
            f"{out} holds a run with another {' and '.join(differing)}{_hint(found, manifest)}; "
            "give --overwrite to start it anew, or another --out."
        )
    return False


def _is_same_run(found: dict[str, Any], manifest: dict[str, Any]) -> bool:
    """Return whether a run's record stands for this run, or for a shorter one that may go on."""
    if found.get("inputs") != manifest["inputs"]:
        return False
    old, new = found.get("config"), manifest["config"]
    if not isinstance(old, dict) or {**old, "steps": new["steps"]} != new:
        return False
    may_go_on = new["schedule"] == Schedule.constant.value and old["steps"] < new["steps"]
    return bool(old == new or may_go_on)


def _hint(found: dict[str, Any], manifest: dict[str, Any]) -> str:
    old, new = found.get("config"), manifest["config"]
    if isinstance(old, dict) and {**old, "steps": new["steps"]} == new:
        return (
            f" (steps {old.get('steps')} in place of {new['steps']}: only schedule=constant "
            "lets a run grow longer)"
        )
    return ""


def _begin(out: Path, manifest: dict[str, Any], run: RunConfig) -> None:
    """Make the run's folder, empty unless it holds this run, and note what it is."""
    machine = {"torch_threads": run.torch_threads, "precision": run.precision}
    if (out / RUN).is_file() and not _is_same_run(_read_record(out), manifest):
        shutil.rmtree(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        artifact.write_json(out / RUN, {**manifest, "machine": machine})
    except OSError as error:
        raise ArtifactError(f"{out} cannot be written ({error.strerror}).") from error


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


def _warn_of_pairs(archives: list[Any], config: PretrainConfig) -> None:
    loader = PairLoader(archives, batch_size=config.batch_size, seed=config.seed)
    if not loader.has_temporal_pairs:
        say("warning: no cell has two periods, so both views of a pair show the same tile.")


def _build_trainer(out: Path, run: RunConfig, loggers: Sequence[Any], record: Record) -> pl.Trainer:
    # Lightning announces devices and products; our own lines say what a run does.
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    return pl.Trainer(
        accelerator=run.accelerator,
        devices=run.devices,
        num_nodes=run.nodes,
        strategy=run.strategy,
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


def choose_precision(run: RunConfig, kept: str | None = None) -> str:
    """Return the run's precision; a device without bf16 emulates it ten times as slowly.

    `kept` is what an earlier part of the run settled on.
    """
    if run.precision != "auto":
        return run.precision
    if kept:
        return kept
    if run.accelerator != "cpu" and torch.cuda.is_available():
        has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        has_bf16 = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return "bf16-mixed" if has_bf16 else "32-true"


def _fit(trainer: pl.Trainer, module: ContrastiveModule, checkpoint: Path | None) -> None:
    if checkpoint:
        # Lightning would take one step more of a run that has made its last one.
        state = AtomicCheckpointIO().load_checkpoint(checkpoint)["state_dict"]
        if int(state["step"]) >= module.steps:
            module.load_state_dict(state)
            return
    with warnings.catch_warnings():
        # Our loader is no DataLoader: it has threads of its own, so Lightning's advice on workers
        # does not apply.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        # Lightning-AI/pytorch-lightning#20910: torch deprecated what its pytree helper calls.
        warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
        trainer.fit(module, ckpt_path=str(checkpoint) if checkpoint else None)
