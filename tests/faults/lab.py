"""A tiny world with one artifact of every stage, and the command that makes each."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from tests.faults.forge import LIMIT_S, Command, Ended, run, start

N_CELLS, CELL_PX, PERIODS = 5, 32, ("2019", "2021")
TINY = (
    "recipe=base", "encoder.backbone=resnet10t", "encoder.width=0.125", "encoder.words=8",
    "views.size_px=32", "method.hidden_dim=16", "method.projection_dim=8", "batch_size=4",
    "warmup_steps=1", "threads=0", "torch_threads=1", "accelerator=cpu", "checkpoint_every=2",
    "log_every=1",
)  # fmt: skip


@dataclass(frozen=True)
class Stage:
    """A stage's command, once and with other options; `out` is added by `Lab.command`."""

    name: str
    tokens: tuple[str, ...]
    other: tuple[str, ...]
    """The command of another result, which `--overwrite` replaces."""
    parts: tuple[str, ...] = ("",)
    """The artifacts in `out`, each whole or absent by itself."""
    in_place: bool = False
    """Whether `out` is worked in: it counts as absent until its manifest is there."""


def build_stages(root: Path) -> dict[str, Stage]:
    """Return every stage on the inputs below a folder, in the order of the chain."""
    path = {name: str(root / name) for name in (
        "country/scenes", "archive", "run", "embeddings", "clusters", "answers.csv", "others.csv",
        "ranker", "scores", "truth.parquet",
    )}  # fmt: skip
    archive, embeddings = path["archive"], ("--embeddings", path["embeddings"])
    answers = ("--comparisons", path["answers.csv"], "--force")
    train = ("train.pretrain", f"archive={archive}", *TINY)
    tune = (
        "train.finetune", f"archive={archive}", f"encoder={path['run']}", "steps=2", "pairs=2",
        f"comparisons={path['answers.csv']}", "views.size_px=32", "exemplars=2", "force=true",
        "rank.n_heads=2",
    )  # fmt: skip
    stages = (
        Stage("tile", ("tile", path["country/scenes"], "--grid", "utm:320", "--workers", "1",
                       "--shard-tiles", "7"), ("--min-valid-share", "0.1"), in_place=True),
        Stage("pretrain", (*train, "steps=4"), ("seed=1",), ("encoder",), in_place=True),
        Stage("embed", ("embed", "--archive", archive, "--encoder", path["run"]),
              ("--columns", "words")),
        Stage("cluster", ("cluster", *embeddings, "--archive", archive, "--k", "3"),
              ("--seed", "1")),
        Stage("rank", ("rank", *embeddings, *answers, "--n-heads", "2", "--folds", "2"),
              ("--seed", "1")),
        Stage("transfer", ("transfer", path["ranker"], *embeddings, *answers, "--folds", "2"),
              ("--seed", "1")),
        Stage("finetune", tune, ("seed=1",), ("encoder", "embeddings", "ranker")),
        Stage("score", ("score", *embeddings, "--ranker", path["ranker"]), ("--cog",)),
        Stage("change", ("change", "--scores", path["scores"], "--from", "2019", "--to", "2021"),
              ("--min-cells", "11")),
        Stage("benchmark", ("benchmark", "--scores", path["scores"], "--proxies",
                            path["truth.parquet"], "--n-bootstrap", "1000"), ("--seed", "1")),
        Stage("compare import", ("compare", "import", path["answers.csv"]), (), in_place=True),
    )  # fmt: skip
    found = {stage.name: replace(stage, other=(*stage.tokens, *stage.other)) for stage in stages}
    others = ("compare", "import", path["others.csv"])
    found["compare import"] = replace(found["compare import"], other=others)
    return found


@dataclass
class Lab:
    """The world's folder and its stages."""

    root: Path

    @property
    def stages(self) -> dict[str, Stage]:
        return build_stages(self.root)

    def build(self) -> Lab:
        """Make everything, each stage by its own command."""
        self.root.mkdir(parents=True, exist_ok=True)
        self._fork(draw_country)
        for name, out in (("tile", "archive"), ("pretrain", "run"), ("embed", "embeddings"),
                          ("cluster", "clusters")):  # fmt: skip
            self.make(name, self.root / out)
        self._fork(ask_people)
        for name, out in (("rank", "ranker"), ("score", "scores"), ("change", "change"),
                          ("benchmark", "report"), ("compare import", "store")):  # fmt: skip
            self.make(name, self.root / out)
        return self

    def _fork(self, function: Callable[[Path], None]) -> None:
        process = start(function, self.root)
        process.join(300)
        assert process.exitcode == 0, f"the lab cannot be built: {function.__name__}"

    def make(self, name: str, out: Path, *more: str) -> Ended:
        """Run a stage to its end; it must succeed."""
        ended = run(self.command(name, out, *more))
        assert ended.code == 0, f"{name}: {ended.said}"
        return ended

    def command(
        self, name: str, out: Path, *more: str, other: bool = False, overwrite: bool = False,
        kill_at: int | None = None, signal_after: tuple[int, float] | None = None,
        max_file_bytes: int | None = None, delay_s: float = 0.0, limit_s: float = LIMIT_S,
    ) -> Command:  # fmt: skip
        """Return a stage's command line, run in the folder that holds `out`."""
        stage = self.stages[name]
        is_train = stage.tokens[0].startswith("train.")
        if name == "compare import":
            target = ("--store", str(out))
        else:
            target = (f"out={out}",) if is_train else ("--out", str(out))
        tokens = [*(stage.other if other else stage.tokens), *target, *more]
        if overwrite and name != "compare import":
            tokens.append("overwrite=true" if is_train else "--overwrite")
        return Command(
            tokens=tuple(tokens), cwd=str(out.parent), kill_at=kill_at, limit_s=limit_s,
            signal_after=signal_after, max_file_bytes=max_file_bytes, delay_s=delay_s,
        )  # fmt: skip


def draw_country(root: Path) -> None:
    """Write scenes with known truth, and the truth as a proxy."""
    import pandas as pd

    from ecofm.synth import CountryConfig, generate_country

    config = CountryConfig(seed=3, n_cells=N_CELLS, cell_px=CELL_PX, periods=PERIODS, cloud_share=0)
    generate_country(root / "country", config)
    truth = pd.read_parquet(root / "country" / "truth.parquet")
    truth[["cell_id", "period", "development"]].to_parquet(root / "truth.parquet")


def ask_people(root: Path) -> None:
    """Write answers about tiles by people who nearly see the truth."""
    import numpy as np
    import pandas as pd

    from ecofm.synth import AnnotatorConfig, simulate_comparisons

    truth = pd.read_parquet(root / "country" / "truth.parquet")
    tiles = pd.read_parquet(root / "archive" / "index.parquet")["tile_id"]
    known = truth.set_index(truth["cell_id"] + "@" + truth["period"])["development"]
    drawn = np.random.default_rng(0).choice(tiles.to_numpy(), (150, 2)).tolist()
    pairs = [(left, right) for left, right in drawn if left != right]
    table = simulate_comparisons(pairs, known.to_dict(), AnnotatorConfig(), 0)
    table.to_csv(root / "answers.csv", index=False)
    table["annotator"] = "other " + table["annotator"]
    table.to_csv(root / "others.csv", index=False)


def digest(path: Path) -> str | None:
    """Return what a result is, whatever made it: None where it is absent or unfinished.

    An artifact is its files, a store its answers, a run its encoder.
    """
    if path.is_file():
        return digest_store(path)
    if not (path / "manifest.json").is_file():
        return None
    found = hashlib.sha256()
    for file in sorted(path.rglob("*")):
        # The plan of an archive that is whole waits for the next command to remove it.
        if file.is_file() and file.name != "plan.json":
            found.update(f"{file.relative_to(path)}\0".encode() + file.read_bytes())
    return found.hexdigest()


def digest_store(path: Path) -> str | None:
    """Return what a store's answers are; None when it has no tables yet."""
    try:
        with sqlite3.connect(path, timeout=30) as store:
            rows = store.execute(
                'SELECT annotator, "left", "right", outcome FROM vote WHERE undone IS NULL'
            ).fetchall()
    except sqlite3.OperationalError:
        return None
    finally:
        store.close()
    return hashlib.sha256(json.dumps(sorted(rows)).encode()).hexdigest() if rows else None


def digests(out: Path, parts: tuple[str, ...]) -> tuple[str | None, ...]:
    """Return the digest of each artifact in a target."""
    return tuple(digest(out / part if part else out) for part in parts)


def find_litter(out: Path) -> list[str]:
    """Return what lies beside a finished target, or half-made in it; empty locks may stay."""
    of_store = {f"{out.name}-wal", f"{out.name}-shm"}
    beside = [p for p in out.parent.iterdir() if p != out and p.name not in of_store]
    within = [p for p in out.rglob("*") if ".partial" in p.name or p.name.startswith(".")]
    return [
        path.name
        for path in beside + within
        if path.is_dir() or path.stat().st_size or ".partial" in path.name
    ]


def clear(folder: Path) -> Path:
    """Return an empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    return folder
