"""The web app's requests: session, questions, votes, tiers, pictures, and the page itself.

Items travel as numbers, and with them the edition: a hash of all items' names. So neither a
place nor a hostile name reaches the page unless the owner shows names, and after a restart with
other items no number can be taken for another item.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from importlib.resources import files
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, FastAPI, Header, HTTPException, Path, Query, Request, Response
from starlette.routing import Route

from ecofm import __version__
from ecofm.compare.access import Door, RefusedError
from ecofm.compare.app import ServeConfig
from ecofm.compare.bodies import (
    MAX_TIERED,
    Fault,
    ForgetBody,
    Forgotten,
    Instruction,
    Link,
    LinkBody,
    Own,
    OwnVotes,
    Pair,
    Progress,
    Saved,
    Session,
    SessionBody,
    Setup,
    Side,
    Tiers,
    TiersBody,
    UndoBody,
    VoteBody,
)
from ecofm.compare.comparison import Comparison, check_comparison
from ecofm.compare.guard import Guard
from ecofm.compare.instructions import Block, read_instructions
from ecofm.compare.items import ItemSource
from ecofm.compare.panel import build_panel
from ecofm.compare.people import Person
from ecofm.compare.picking import Picker, Question, count_mentions
from ecofm.compare.refusals import HANDLERS
from ecofm.compare.store import Store, Vote

PAGE = {
    "index.html": "text/html; charset=utf-8",
    "app.js": "text/javascript; charset=utf-8",
    "net.js": "text/javascript; charset=utf-8",
    "compare.js": "text/javascript; charset=utf-8",
    "pictures.js": "text/javascript; charset=utf-8",
    "tiers.js": "text/javascript; charset=utf-8",
    "answers.js": "text/javascript; charset=utf-8",
    "texts.js": "text/javascript; charset=utf-8",
    "style.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
N_OWN = 50
"""Own votes on one page."""
BROWSER = re.compile(r"[A-Za-z0-9_-]{43}")
BROWSER_SECONDS = 365 * 24 * 3600
Token = Annotated[str, Header(alias="X-Ecofm-Token", max_length=64)]
PictureNumber = Annotated[int, Path(ge=0, lt=2**31)]
ItemNumber = Annotated[int, Path(ge=0, lt=2**31)]


class Questions:
    """The answers to the page's requests; several annotators ask at once, from threads."""

    def __init__(self, source: ItemSource, store: Store, config: ServeConfig) -> None:
        """Take what the store holds already; raises ComparisonError for unusable instructions."""
        self.source = source
        self.store = store
        self.config = config
        self.door = Door(store, config)
        asked, others = store.comparisons(asked=True), store.comparisons(asked=False)
        counts = count_mentions(source.items, asked + others)
        panel = build_panel(source, config.embeddings, counts)
        self.picker = Picker(source.items, asked, others, config.pick, panel)
        names = json.dumps(source.items).encode()
        self.edition = hashlib.sha256(names).hexdigest()[:16]
        self.blocks: list[Block] = []
        if config.instructions is not None:
            self.blocks = read_instructions(config.instructions, set(source.items))

    def start(self, body: SessionBody, request: Request, response: Response) -> Session:
        """Begin a session under a name."""
        client = request.client.host if request.client else ""
        browser = keep_browser(request, response)
        try:
            person = self.door.enter(client, browser, body.annotator, body.password, body.invite)
        except RefusedError as error:
            raise HTTPException(error.status, str(error)) from error
        return Session(
            token=self.store.people.start_session(person),
            annotator=person.annotator,
            goal=self.config.goal,
            styles=self.source.styles,
            bands_shown=self.source.bands_shown,
            can_shuffle=self.source.can_shuffle,
            has_tiers=len(self.source.items) <= MAX_TIERED,
            has_link=self.door.access != "name",
        )

    def setup(self, request: Request, response: Response) -> Setup:
        """Say how one is let in, and in which languages the page speaks.

        The browser has its secret from here on: when the name is claimed, and the answer is lost,
        it can ask again.
        """
        keep_browser(request, response)
        return Setup(access=self.door.access, languages=LANGUAGES)

    def link(self, body: LinkBody, token: Token) -> Link:
        """Give a secret by which this person is let in elsewhere; the one before ends."""
        if self.door.access == "name":
            raise HTTPException(409, "everybody is let in by name here, a link is not needed")
        return Link(invite=self.store.people.invite(self._person(token).annotator, "self"))

    def instructions(self, token: Token) -> list[Instruction]:
        """Give the owner's instructions; none when the page's own are to be shown."""
        self._person(token)
        pieces = []
        for block in self.blocks:
            better, worse = (
                (self._side(self.picker.place(item)) for item in block.items)
                if block.items
                else (None, None)
            )
            pieces.append(Instruction(kind=block.kind, text=block.text, better=better, worse=worse))
        return pieces

    def progress(self, token: Token) -> Progress:
        """Count the annotator's answers."""
        return self._progress(self._person(token).annotator)

    def pair(self, token: Token) -> Pair:
        """Give the question that waits for this annotator's answer."""
        return self._pair(self.picker.pick(self._person(token).annotator))

    def next_pair(self, token: Token) -> Pair:
        """Guess the question after that one, so that its pictures can be loaded meanwhile."""
        return self._pair(self.picker.peek(self._person(token).annotator))

    def vote(self, body: VoteBody, token: Token) -> Progress:
        """Keep an answer; it is on the disk when this returns, and a retry changes nothing."""
        annotator, owner = self._person(token)
        left, right = self._names(body.edition, [body.left, body.right])
        comparison = check_comparison(annotator, left, right, body.outcome)
        vote = Vote(
            id=body.id, comparison=comparison, response_ms=body.response_ms, asked=body.asked,
            owner=owner,
        )  # fmt: skip
        if self.store.add(vote):
            self.picker.add(comparison)
        return self._progress(annotator)

    def undo(self, body: UndoBody, token: Token) -> Progress:
        """Delete an answer of the same annotator; a retry changes nothing."""
        person = self._person(token)
        self._unlearn([self.store.undo(body.id, person)])
        return self._progress(person.annotator)

    def votes(self, token: Token, skip: Annotated[int, Query(ge=0, lt=2**31)] = 0) -> OwnVotes:
        """Give the annotator's own answers, newest first, fifty at a time."""
        person = self._person(token)
        votes = [
            Own(
                id=vote.id, outcome=vote.outcome, created=vote.created,
                left=self._known_side(vote.left), right=self._known_side(vote.right),
            )
            for vote in self.store.own_votes(person, skip, N_OWN)
        ]  # fmt: skip
        return OwnVotes(n_done=self.store.count_own(person), votes=votes)

    def forget(self, body: ForgetBody, token: Token) -> Forgotten:
        """Delete all that this annotator said here."""
        gone = self.store.forget(self._person(token))
        self._unlearn(gone)
        return Forgotten(n_deleted=len(gone))

    def tiers(self, token: Token) -> Tiers:
        """Give all items, and how this annotator has put them into tiers."""
        person = self._person(token)
        self._check_tiered()
        items = [self._side(number) for number in range(len(self.source.items))]
        return Tiers(edition=self.edition, items=items, tiers=self._own_tiers(person))

    def save_tiers(self, body: TiersBody, token: Token) -> Saved:
        """Keep tiers in place of this annotator's tiers before; no tiers take those back."""
        person = self._person(token)
        self._check_tiered()
        tiers = [self._names(body.edition, tier) for tier in body.tiers]
        names = [name for tier in tiers for name in tier]
        if len(set(names)) < len(names) or len(names) == 1:
            raise HTTPException(422, "tiers need two items at least, and each of them once")
        rows = [
            Comparison(person.annotator, better, worse, "tie" if upper == lower else "left")
            for upper, tier in enumerate(tiers)
            for place, better in enumerate(tier)
            for lower, other in enumerate(tiers[upper:], start=upper)
            for worse in (other[place + 1 :] if upper == lower else other)
        ]
        before = self.store.own_tiers(person)
        if self.store.add_tiers(body.id, person, rows):
            self._unlearn(before)
            for row in rows:
                self.picker.add(row, asked=False)
        return Saved(n_comparisons=len(rows))

    def sheet(
        self, item: ItemNumber, token: Token, draw: Annotated[int, Query(ge=0, lt=2**31)] = 0
    ) -> Side:
        """Show an item by other pictures: draw 0 by its nearest, others at random."""
        self._person(token)
        if item >= len(self.source.items):
            raise HTTPException(404, "there is no such item")
        return self._side(item, draw)

    def picture(
        self, number: PictureNumber, token: Token, style: Literal["true", "false"] = "true"
    ) -> Response:
        """Give a picture by its number."""
        self._person(token)
        try:
            image, media_type = self.source.image(number, style)
        except IndexError:
            raise HTTPException(404, "there is no such picture") from None
        return Response(image, media_type=media_type)

    def _person(self, token: str) -> Person:
        person = self.store.people.find(token)
        if person is None:
            raise HTTPException(401, "the session is unknown; type your name again")
        return person

    def _progress(self, annotator: str) -> Progress:
        n_done = self.store.count_votes(annotator)
        times = self.store.response_times(annotator)
        left = None
        if len(times) >= 5:
            # The median: who goes for a coffee does not get slower by it.
            left = round(float(np.median(times)) * max(self.config.goal - n_done, 0) / 1000)
            left = min(left, 2**31)
        return Progress(n_done=n_done, goal=self.config.goal, seconds_left=left)

    def _pair(self, question: Question) -> Pair:
        return Pair(
            edition=self.edition,
            left=self._side(question.left),
            right=self._side(question.right),
            asked=question.asked,
        )

    def _side(self, item: int, draw: int = 0) -> Side:
        name = self.source.items[item] if self.source.are_clusters else None
        place = self.source.place(item) if self.config.show_place else None
        where = None
        if place is not None:
            known = [f"{place.latitude}, {place.longitude}"] if place.latitude is not None else []
            where = " · ".join([*known, place.period])
        return Side(item=item, images=self.source.members(item, draw), label=name, place=where)

    def _known_side(self, item: str) -> Side | None:
        return self._side(self.picker.place(item)) if item in self.picker else None

    def _names(self, edition: str, numbers: list[int]) -> list[str]:
        """Return the items' names; refuses numbers of another edition."""
        if edition != self.edition or any(n >= len(self.source.items) for n in numbers):
            raise HTTPException(409, "these items are not compared here; reload the page")
        return [self.source.items[number] for number in numbers]

    def _own_tiers(self, person: Person) -> list[list[int]]:
        """Return tiers from their comparisons: who is below as many is in the same one."""
        losses: dict[str, int] = {}
        for row in self.store.own_tiers(person):
            losses.setdefault(row.left, 0)
            losses[row.right] = losses.get(row.right, 0) + (row.outcome == "left")
        tiers: dict[int, list[int]] = {}
        for name, lost in losses.items():
            if name in self.picker:
                tiers.setdefault(lost, []).append(self.picker.place(name))
        return [tiers[lost] for lost in sorted(tiers)]

    def _check_tiered(self) -> None:
        if len(self.source.items) > MAX_TIERED:
            raise HTTPException(409, f"only up to {MAX_TIERED} items can be put into tiers")

    def _unlearn(self, votes: list[Comparison | None] | list[Comparison]) -> None:
        for vote in votes:
            if vote is not None and vote.left in self.picker and vote.right in self.picker:
                self.picker.remove(vote)


def read_texts() -> dict[str, bytes]:
    """Return the page's texts by language: every file in assets/texts is one."""
    folder = files("ecofm.compare") / "assets" / "texts"
    return {
        file.name.removesuffix(".json"): file.read_bytes()
        for file in sorted(folder.iterdir(), key=lambda file: file.name)
        if file.name.endswith(".json")
    }


TEXTS = read_texts()
LANGUAGES = {code: str(json.loads(text)["language"]) for code, text in TEXTS.items()}


def build_app(source: ItemSource, store: Store, config: ServeConfig) -> Guard:
    """Return the ASGI app behind its guard; raises as `Questions` and `Door` do."""
    app = FastAPI(title="ecofm compare", version=__version__, docs_url=None, redoc_url=None)
    questions = Questions(source, store, config)
    refusals: dict[int | str, dict[str, Any]] = {
        code: {"model": Fault}
        for code in (400, 401, 403, 404, 408, 409, 413, 415, 421, 422, 429, 500, 503, 507)
    }
    api = APIRouter(prefix="/api", responses=refusals)
    api.get("/setup")(questions.setup)
    api.post("/session")(questions.start)
    api.post("/link")(questions.link)
    api.get("/instructions")(questions.instructions)
    api.get("/progress")(questions.progress)
    api.get("/pair")(questions.pair)
    api.get("/next")(questions.next_pair)
    api.post("/vote")(questions.vote)
    api.post("/undo")(questions.undo)
    api.get("/votes")(questions.votes)
    api.post("/forget")(questions.forget)
    api.get("/tiers")(questions.tiers)
    api.post("/tiers")(questions.save_tiers)
    api.get("/sheet/{item}")(questions.sheet)
    app.include_router(api)
    pictures = {**refusals, 200: {"content": {"image/jpeg": {}, "image/png": {}}}}
    app.get("/image/{number}", response_class=Response, responses=pictures)(questions.picture)
    add_page(app)
    for kind, explain in HANDLERS.items():
        app.exception_handler(kind)(explain)
    return Guard(app, config.host, config.names)


def keep_browser(request: Request, response: Response) -> str:
    """Return the secret by which a browser is known again; a new one is given with the answer.

    No script reads it, and no other site sends it. A page on HTTPS takes it from nobody else.
    """
    is_safe = request.scope["scheme"] == "https"
    name = "__Host-ecofm" if is_safe else "ecofm"
    known = request.cookies.get(name, "")
    if BROWSER.fullmatch(known):
        return known
    secret = secrets.token_urlsafe(32)
    response.set_cookie(
        name, secret, max_age=BROWSER_SECONDS, path="/", secure=is_safe, httponly=True,
        samesite="strict",
    )  # fmt: skip
    return secret


def add_page(app: FastAPI) -> None:
    """Serve the page: its files are read once, no request names a file."""
    folder = files("ecofm.compare") / "assets"
    for name, media_type in PAGE.items():
        page = Response((folder / name).read_bytes(), media_type=media_type)
        path = "/" if name == "index.html" else f"/{name}"
        app.router.routes.append(Route(path, page, methods=["GET"]))
    for code, text in TEXTS.items():
        page = Response(text, media_type="application/json")
        app.router.routes.append(Route(f"/texts/{code}.json", page, methods=["GET"]))
