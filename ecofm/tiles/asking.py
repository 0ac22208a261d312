"""Asking: requests to one server and no other, in bounded time and memory."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, TypeVar
from urllib.parse import urlsplit

from ecofm.tiles.items import shown
from ecofm.tiles.limits import (
    ANSWER_S,
    CONNECT_S,
    MAX_ANSWER_BYTES,
    MAX_RETRY_AFTER_S,
    MAX_SEARCH_BYTES,
    SEARCH_S,
    SILENCE_S,
)

CHUNK_BYTES = 2**16  # packed; gzip makes at most a thousand times as much of it
PORTS = {"http": 80, "https": 443}

Answer = TypeVar("Answer")


class OverLimit(Exception):
    """A server answers longer than anybody waits for, or with more than anybody means."""


def is_api(text: str) -> bool:
    """Return whether what was given is a URL, of a STAC API then, and no path."""
    return re.match(r"https?:/", text) is not None


def one_host(api: str) -> Any:
    """Return how pystac-client asks the server of a URL, and no other."""
    from pystac_client.stac_api_io import StacApiIO
    from requests import PreparedRequest, Response
    from requests.adapters import HTTPAdapter
    from requests.exceptions import InvalidURL
    from urllib3 import BaseHTTPResponse, Retry

    home = _origin(api)
    ends_s = time.monotonic() + SEARCH_S
    room = MAX_SEARCH_BYTES

    class Patient(Retry):
        """A server may ask for some patience, and not for a day of it."""

        def get_retry_after(self, response: BaseHTTPResponse) -> float | None:
            wanted = super().get_retry_after(response)
            return None if wanted is None else min(wanted, MAX_RETRY_AFTER_S)

    class OneHost(HTTPAdapter):
        """Also redirections pass here, and a request that leads elsewhere is never sent."""

        def send(self, request: PreparedRequest, *args: Any, **options: Any) -> Response:
            nonlocal room
            if _origin(request.url or "") != home:
                raise InvalidURL(f"it leads to {shown(str(request.url))}")
            left_s = min(ANSWER_S, ends_s - time.monotonic())

            def whole() -> Response:
                response = super(OneHost, self).send(request, *args, **options)
                response.raw = io.BytesIO(_body_of(response.raw))
                return response

            try:
                response = _within(left_s, whole)
            except TimeoutError as error:
                limit = f"an answer took more than {ANSWER_S} s; try again later"
                if left_s < ANSWER_S:
                    limit = f"the search took more than {SEARCH_S} s; narrow --dates or --area"
                raise OverLimit(limit) from error
            room -= response.raw.getbuffer().nbytes
            if room < 0:
                raise OverLimit(
                    f"its answers are longer than {MAX_SEARCH_BYTES >> 20} MiB together; narrow "
                    "--dates or --area"
                )
            return response

    class ApiIO(StacApiIO):
        """Reads URLs only: the library opens whatever else a link says as a file."""

        def read_text(self, source: Any, *args: Any, **kwargs: Any) -> str:
            if isinstance(source, str) and not is_api(source):
                raise ValueError(f"a link leads to {shown(source)}")
            return super().read_text(source, *args, **kwargs)

    retry = Patient(
        3, backoff_factor=0.3, status_forcelist=(429, 502, 503, 504), allowed_methods=None,
        raise_on_status=False,
    )  # fmt: skip
    asker = ApiIO(timeout=(CONNECT_S, SILENCE_S), max_retries=None)
    for scheme in ("http://", "https://"):
        asker.session.mount(scheme, OneHost(max_retries=retry))
    return asker


def _origin(url: str) -> tuple[str, str | None, int | None]:
    """Return the scheme, host and port of a URL; raises ValueError where it has no such."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or PORTS.get(parts.scheme)


def _body_of(raw: Any) -> bytes:
    """Return an answer's body, unpacked; raises OverLimit for one that is too long."""
    body = bytearray()
    while chunk := raw.read(CHUNK_BYTES, decode_content=True):
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            raw.close()  # the connection too, which has more to say
            raise OverLimit(f"an answer is longer than {MAX_ANSWER_BYTES >> 20} MiB")
    return bytes(body)


def _within(seconds: float, work: Callable[[], Answer]) -> Answer:
    """Return what `work` returns; raises TimeoutError when that takes longer.

    No time-out of a socket bounds the whole: each byte that arrives starts it anew, and the name
    of a host is looked up without any. A thread that is given up ends with the process.
    """
    answers: SimpleQueue[tuple[Answer | None, BaseException | None]] = SimpleQueue()

    def run() -> None:
        try:
            answers.put((work(), None))
        except BaseException as error:
            answers.put((None, error))

    Thread(target=run, daemon=True).start()
    try:
        answer, error = answers.get(timeout=max(seconds, 0))
    except Empty:
        raise TimeoutError from None
    if error is not None:
        raise error
    return answer  # type: ignore[return-value]  # one of the two is there
