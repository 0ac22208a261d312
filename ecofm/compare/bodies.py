"""What the web app's requests and answers look like: everything that is not this is refused."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from ecofm.compare.access import Access
from ecofm.compare.comparison import MAX_TEXT
from ecofm.compare.instructions import Kind
from ecofm.compare.picking import Asked

MAX_TIERED = 60
"""More items than this nobody drags into tiers."""
Outcome = Literal["left", "right", "tie", "skip"]
Text = Annotated[str, Field(min_length=1, max_length=MAX_TEXT)]
Secret = Annotated[str, Field(pattern="^[A-Za-z0-9_-]{16,64}$")]
VoteId = Annotated[str, Field(pattern="^[A-Za-z0-9-]{16,64}$")]
TiersId = Annotated[str, Field(pattern="^[A-Za-z0-9-]{16,48}$")]
Edition = Annotated[str, Field(pattern="^[0-9a-f]{16}$")]
Number = Annotated[int, Field(ge=0, lt=2**31)]


class Body(BaseModel):
    """What requests and answers have in common: no unknown fields, no loose types."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Fault(Body):
    """Why a request was refused."""

    detail: str


class Setup(Body):
    """What the page must know before anybody is let in."""

    access: Access
    languages: dict[str, str]


class SessionBody(Body):
    """Who wants to answer: a name, with the password where one is asked for, or an invitation."""

    annotator: Text | None = None
    password: Annotated[str, Field(max_length=MAX_TEXT)] | None = None
    invite: Secret | None = None


class Session(Body):
    """The token for the header X-Ecofm-Token of every further request."""

    token: str
    annotator: str
    goal: int
    styles: list[str]
    bands_shown: list[str]
    can_shuffle: bool
    has_tiers: bool
    has_link: bool


class LinkBody(Body):
    """Make a personal link; `sure` must be true."""

    sure: Literal[True]


class Link(Body):
    """The secret of a link by which its bearer is let in as this annotator."""

    invite: str


class VoteBody(Body):
    """An answer: which of two shown items is more developed."""

    id: VoteId
    edition: Edition
    left: Number
    right: Number
    outcome: Outcome
    asked: Asked
    response_ms: Annotated[int, Field(ge=0, le=2**53)]


class UndoBody(Body):
    """Which answer to delete."""

    id: VoteId


class ForgetBody(Body):
    """Delete everything that the annotator said; `sure` must be true."""

    sure: Literal[True]


class Side(Body):
    """One item as the page shows it."""

    item: int
    images: list[int]
    label: str | None
    place: str | None


class Pair(Body):
    """A question."""

    edition: str
    left: Side
    right: Side
    asked: Asked


class Progress(Body):
    """How many answers of this annotator are on the disk, and about how long the rest takes."""

    n_done: int
    goal: int
    seconds_left: int | None


class Own(Body):
    """One of the annotator's own votes; a side is null when it is no longer compared here."""

    id: str
    left: Side | None
    right: Side | None
    outcome: Outcome
    created: str


class OwnVotes(Body):
    """Own votes, newest first."""

    n_done: int
    votes: list[Own]


class Forgotten(Body):
    """How many comparisons were deleted."""

    n_deleted: int


class Tiers(Body):
    """All items, and the annotator's tiers of them, best first, as numbers."""

    edition: str
    items: list[Side]
    tiers: list[list[int]]


class TiersBody(Body):
    """Tiers of some of the items, best first."""

    id: TiersId
    edition: Edition
    tiers: Annotated[
        list[Annotated[list[Number], Field(max_length=MAX_TIERED)]], Field(max_length=MAX_TIERED)
    ]


class Saved(Body):
    """How many comparisons the tiers hold."""

    n_comparisons: int


class Instruction(Body):
    """A piece of the owner's instructions."""

    kind: Kind
    text: str
    better: Side | None
    worse: Side | None
