"""The web app's requests: session, pair, vote, undo, pictures, and the page itself."""

from __future__ import annotations

import secrets
from importlib.resources import files
from typing import Annotated, Literal

from fastapi import FastAPI, Header, HTTPException, Path, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.routing import Route

from ecofm import __version__
from ecofm.compare.app import ServeConfig
from ecofm.compare.comparison import MAX_TEXT, check_comparison, check_text
from ecofm.compare.guard import Guard
from ecofm.compare.items import ItemSource
from ecofm.compare.picking import Picker
from ecofm.compare.store import Store, Vote
from ecofm.errors import ComparisonError, EcofmError

PAGE = {
    "index.html": "text/html; charset=utf-8",
    "app.js": "text/javascript; charset=utf-8",
    "style.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
Text = Annotated[str, Field(min_length=1, max_length=MAX_TEXT)]
VoteId = Annotated[str, Field(pattern="^[A-Za-z0-9-]{16,64}$")]


class Body(BaseModel):
    """What requests and answers have in common: no unknown fields, no loose types."""

    model_config = ConfigDict(extra="forbid", strict=True)


class SessionBody(Body):
    """Who wants to answer."""

    annotator: Text


class Session(Body):
    """The token for the header X-Ecofm-Token of every further request."""

    token: str
    annotator: str
    goal: int


class VoteBody(Body):
    """An answer: which of two shown items is more developed."""

    id: VoteId
    left: Text
    right: Text
    outcome: Literal["left", "right", "tie", "skip"]
    response_ms: Annotated[int, Field(ge=0, le=2**53)]


class UndoBody(Body):
    """Which answer to take back."""

    id: VoteId


class Side(Body):
    """One item as the page shows it."""

    item: str
    images: list[str]


class Pair(Body):
    """The next question."""

    left: Side
    right: Side


class Progress(Body):
    """How many answers of this annotator are on the disk."""

    n_done: int


Token = Annotated[str, Header(alias="X-Ecofm-Token", max_length=64)]
PictureNumber = Annotated[int, Path(ge=0, le=2**31)]


class Questions:
    """The answers to the page's requests; several annotators ask at once, from threads."""

    def __init__(self, source: ItemSource, store: Store, config: ServeConfig) -> None:
        """Count what the store holds already."""
        self.source = source
        self.store = store
        self.goal = config.goal
        self.picker = Picker(source.items, store.count_by_item(), store.partners, config.seed)
        # Browsers keep pictures; after a restart the same number may be another item's.
        self.edition = secrets.token_hex(4)

    def start(self, body: SessionBody) -> Session:
        """Begin a session under a name."""
        annotator = check_text(body.annotator, "your name")
        return Session(
            token=self.store.start_session(annotator), annotator=annotator, goal=self.goal
        )

    def progress(self, token: Token) -> Progress:
        """Count the annotator's answers."""
        return Progress(n_done=self.store.count_votes(self._annotator(token)))

    def pair(self, token: Token) -> Pair:
        """Choose the next question."""
        left, right = self.picker.pick(self._annotator(token))
        return Pair(left=self._side(left), right=self._side(right))

    def vote(self, body: VoteBody, token: Token) -> Progress:
        """Keep an answer; it is on the disk when this returns, and a retry changes nothing."""
        annotator = self._annotator(token)
        comparison = check_comparison(annotator, body.left, body.right, body.outcome)
        for item in (comparison.left, comparison.right):
            if item not in self.picker:
                raise HTTPException(409, "this item is not compared here; reload the page")
        vote = Vote(id=body.id, comparison=comparison, response_ms=body.response_ms)
        if self.store.add(vote):
            self.picker.count(comparison.left, comparison.right)
        return Progress(n_done=self.store.count_votes(annotator))

    def undo(self, body: UndoBody, token: Token) -> Progress:
        """Take back an answer of the same annotator; a retry changes nothing."""
        annotator = self._annotator(token)
        undone = self.store.undo(body.id, annotator)
        if undone and undone.left in self.picker and undone.right in self.picker:
            self.picker.count(undone.left, undone.right, by=-1)
        return Progress(n_done=self.store.count_votes(annotator))

    def picture(self, number: PictureNumber) -> Response:
        """Give a picture by its number."""
        try:
            image = self.source.image(number)
        except IndexError:
            raise HTTPException(404, "there is no such picture") from None
        media_type = "image/png" if image.startswith(b"\x89PNG") else "image/jpeg"
        headers = {"Cache-Control": "private, max-age=86400"}
        return Response(image, media_type=media_type, headers=headers)

    def _annotator(self, token: str) -> str:
        annotator = self.store.find_annotator(token)
        if annotator is None:
            raise HTTPException(401, "the session is unknown; type your name again")
        return annotator

    def _side(self, item: str) -> Side:
        numbers = self.source.members(self.picker.place(item))
        return Side(item=item, images=[f"/image/{n}?edition={self.edition}" for n in numbers])


def build_app(source: ItemSource, store: Store, config: ServeConfig) -> Guard:
    """Return the ASGI app behind its guard."""
    app = FastAPI(title="ecofm compare", version=__version__, docs_url=None, redoc_url=None)
    questions = Questions(source, store, config)
    app.post("/api/session")(questions.start)
    app.get("/api/progress")(questions.progress)
    app.get("/api/pair")(questions.pair)
    app.post("/api/vote")(questions.vote)
    app.post("/api/undo")(questions.undo)
    app.get("/image/{number}", response_class=Response)(questions.picture)
    add_page(app)
    app.exception_handler(RequestValidationError)(explain_form)
    app.exception_handler(ComparisonError)(explain_request)
    app.exception_handler(EcofmError)(explain_data)
    return Guard(app, config.host, config.names)


def add_page(app: FastAPI) -> None:
    """Serve the page: its files are read once, no request names a file."""
    folder = files("ecofm.compare") / "assets"
    for name, media_type in PAGE.items():
        page = Response((folder / name).read_bytes(), media_type=media_type)
        path = "/" if name == "index.html" else f"/{name}"
        app.router.routes.append(Route(path, page))


def explain_form(request: Request, error: Exception) -> Response:
    """Tell the page which field is wrong.

    FastAPI's own answer repeats the input, and fails on halves of surrogate pairs in it.
    """
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"])
    detail = f"{field}: {first['msg']}".encode("ascii", "backslashreplace").decode()
    return JSONResponse({"detail": detail}, status_code=422)


def explain_request(request: Request, error: Exception) -> Response:
    """Tell the page what is wrong with what it sent."""
    return JSONResponse({"detail": str(error)}, status_code=422)


def explain_data(request: Request, error: Exception) -> Response:
    """Tell the page that the server's own data are damaged."""
    return JSONResponse({"detail": str(error)}, status_code=500)
