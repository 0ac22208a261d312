"""Rankers from disk: a manifest that is judged whole, and weights that fit it and each other."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ecofm import artifact
from ecofm.checksums import open_file
from ecofm.errors import ArtifactError, EcofmError, UsageError
from ecofm.fields import Partial, read_fields
from ecofm.rank.calibration import MAX_SCORE, Residual
from ecofm.rank.evidence import Verdict
from ecofm.rank.features import Basis, Kernel
from ecofm.rank.heads import HEADS, Head, HeadName, Heads
from ecofm.rank.losses import Floats
from ecofm.rank.targets import Classes, Ranker
from ecofm.tensors import load_tensors

WEIGHTS = "ranker.safetensors"


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape(Partial):
    """The options that say what the weights are."""

    head: HeadName
    """The map from embedding to score."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tiles(Partial):
    """Tiles that a ranker was learned on."""

    tile_px: list[int] | None = None
    """Height and width."""
    gsd_m: float | None = None
    """Ground resolution."""

    def __post_init__(self) -> None:
        """Raise UsageError for a size that is none."""
        if self.tile_px is not None and len(self.tile_px) != 2:
            raise UsageError(f"tile_px is {self.tile_px}, expected height and width.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Rate(Partial):
    """How often the higher score won."""

    n: float
    """Of so many comparisons."""
    won: float
    """Share."""
    lower: float
    """Of its interval."""
    upper: float
    """Of its interval."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Noted(Partial):
    """What held-out answers said of a ranker."""

    verdict: Verdict
    """Whether to believe it."""
    by_new_people: bool = False
    """Whether the answers were of people that it had not heard."""
    new_places: Rate | None = None
    """Of places that it had not seen."""
    one_known_place: Rate | None = None
    """Of one such place and a known one."""
    consensus_alone: float | None = None
    """How often the consensus of the other answers named the winner of these."""

    def __post_init__(self) -> None:
        """Raise UsageError for a rate without what it is compared with."""
        if self.one_known_place is not None and self.consensus_alone is None:
            raise UsageError("consensus_alone is missing.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Notes(Partial):
    """What the manifest of a ranker says of it, as far as anything depends on it."""

    encoder: str
    """Which encoder's embeddings it takes."""
    config: Shape
    """The options that made it."""
    residual: float | None
    """How far places stray at score 0; None: not known."""
    residual_tilt: float | None = None
    """How that grows with the score; the oldest rankers have none."""
    residual_limit: float | None = None
    """And up to which score."""
    classes: list[str] = field(default_factory=list)
    """The classes of a target."""
    positive: str | None = None
    """The class whose probability is the score."""
    target: str | None = None
    """The column that it was fitted to; None: comparisons."""
    tiles: list[Tiles] = field(default_factory=list)
    """What it was learned on."""
    held_out: dict[str, float] = field(default_factory=dict)
    """How well a target was foretold."""
    shares: list[float] = field(default_factory=list)
    """How much a transferred ranker was corrected."""
    evidence: Noted | None = None
    """What held-out answers said; the oldest rankers do not say."""

    def __post_init__(self) -> None:
        """Raise UsageError for values that cannot stand together."""
        if self.residual is not None and self.residual < 0:
            raise UsageError(f"residual is {self.residual:g}, expected 0 or more.")
        if self.residual_limit is not None and self.residual_limit < 0:
            raise UsageError(f"residual_limit is {self.residual_limit:g}, expected 0 or more.")
        if self.classes and len(set(self.classes)) != max(2, len(self.classes)):
            raise UsageError(f"classes are {self.classes}, expected two or more that differ.")
        if self.classes and self.positive not in self.classes:
            raise UsageError(f"positive is {self.positive!r}, which is none of its classes.")

    def build_residual(self) -> Residual | None:
        """Return how far places stray."""
        if self.residual is None:
            return None
        limit = MAX_SCORE if self.residual_limit is None else self.residual_limit
        return Residual(self.residual, self.residual_tilt or 0.0, limit)


def load_ranker(path: Path) -> tuple[Ranker, dict[str, Any]]:
    """Return a ranker's heads and manifest; raises ArtifactError when it is none or damaged."""
    manifest = artifact.read_manifest(path, "ranker")
    weights = open_file(path, manifest, WEIGHTS)
    try:
        notes = read_fields(Notes, manifest)
        stored = {name: value.numpy() for name, value in load_tensors(weights).items()}
        if not notes.classes:
            return _read_heads(stored, notes), manifest
        # Of two classes one is modelled, and the other is the rest.
        n_modelled = 1 if len(notes.classes) == 2 else len(notes.classes)
        found = [_read_heads(stored, notes, f"{n}." if n else "") for n in range(n_modelled)]
        assert notes.positive is not None
        return Classes(notes.classes, notes.positive, found), manifest
    except EcofmError as error:
        reason = str(error).removesuffix(".")
        raise ArtifactError(
            f"{path} is damaged ({reason}); make it again with `ecofm rank`."
        ) from error


def _read_heads(stored: dict[str, Floats], notes: Notes, prefix: str = "") -> Heads:
    own = {
        name.removeprefix(prefix): np.asarray(value, dtype=np.float64)
        for name, value in stored.items()
        if name.startswith(prefix)
    }
    head = HEADS[notes.config.head]
    _require_shapes(own, head)
    basis = Basis(own["mean"], own["projection"])
    features: Basis | Kernel = basis
    if "landmarks" in own:
        features = Kernel(basis, own["landmarks"], own["whitening"], float(own["width"][0]))
    parts = (own["parameters"], own["offset"], own["unit"])
    return Heads(head, features, *parts, notes.build_residual())


def _require_shapes(own: dict[str, Floats], head: Head) -> None:
    """Raise ArtifactError unless the weights of an ensemble fit each other."""
    names = ["mean", "projection", "parameters", "offset", "unit"]
    if "landmarks" in own:
        names += ["whitening", "width"]
    if missing := [name for name in names if name not in own]:
        raise ArtifactError(f"{WEIGHTS} has no {missing[0]}")
    (n_heads, *_), (_, *components) = own["parameters"].shape or (0,), own["projection"].shape
    wanted = {"mean": own["projection"].shape[:1], "offset": (n_heads,), "unit": (n_heads,)}
    n_features = components
    if "landmarks" in own:
        n_features = list(own["whitening"].shape[1:])
        wanted |= {"landmarks": (len(own["landmarks"]), *components), "width": (1,)}
        wanted["whitening"] = (len(own["landmarks"]), *n_features)
    if len(components) != 1 or len(n_features) != 1:
        raise ArtifactError(f"projection or whitening of {WEIGHTS} is no matrix")
    n_parameters = len(head.start(n_features[0], np.random.default_rng(0)))
    wanted["parameters"] = (n_heads, n_parameters)
    for name, shape in wanted.items():
        if own[name].shape != shape:
            raise ArtifactError(f"{name} of {WEIGHTS} is {own[name].shape}, expected {shape}")
    if n_heads < 2:
        raise ArtifactError(f"{WEIGHTS} has {n_heads} heads, expected two or more")
    for name in {"unit", "width"} & own.keys():
        if not own[name].min() > 0:
            raise ArtifactError(
                f"{name} of {WEIGHTS} has {own[name].min():g}, expected more than 0"
            )
