"""What the page is told when a request cannot be answered, as JSON with a sentence."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from ecofm.compare.database import StoreError
from ecofm.errors import ComparisonError, EcofmError
from ecofm.types import say

REASONS = {
    500: "its store is damaged",
    503: "its store cannot be written",
    507: "its disk is full",
}
"""What annotators are told; paths are for who runs the server."""


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


def explain_store(request: Request, error: Exception) -> Response:
    """Tell the page, and who runs the server, why the store keeps nothing now."""
    assert isinstance(error, StoreError)
    say(f"error: {error}")
    detail = f"the server cannot keep answers now: {REASONS[error.status]}"
    return JSONResponse({"detail": detail}, status_code=error.status, headers={"Retry-After": "5"})


def explain_fault(request: Request, error: Exception) -> Response:
    """Tell the page of a fault of ours; `keep_serving` reports it where the server runs."""
    return JSONResponse({"detail": "the server failed at this; it goes on"}, status_code=500)


HANDLERS: dict[type[Exception], Callable[[Request, Exception], Response]] = {
    RequestValidationError: explain_form,
    ComparisonError: explain_request,
    StoreError: explain_store,
    EcofmError: explain_data,
    Exception: explain_fault,
}
"""Which of them answers which exception; the nearest class decides."""
