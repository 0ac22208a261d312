"""The door of the web app: who may ask, how much, and what browsers may do with the answer.

Plain ASGI, so that it stands before everything else, routing and parsing included.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

from ecofm.compare.addresses import name_client

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MAX_BODY_BYTES = 16384
"""A vote takes under 1,000; tiers of 60 clusters under 1,000 too."""
MAX_BODY_SECONDS = 20.0
"""A slow sender is cut off, so that nobody can hold connections open for nothing."""
MAX_AT_ONCE = 16
"""Requests of one address that are worked on at the same time; its others wait their turn."""
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; object-src 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class TooLargeError(Exception):
    """A request's body is over the limit."""


def split_port(host: str) -> str:
    """Return a Host header without its port: `[::1]:8000` gives `[::1]`."""
    name, colon, port = host.rpartition(":")
    return name.lower() if colon and port.isdigit() else host.lower()


def is_allowed_host(host: str, bound: str, names: tuple[str, ...]) -> bool:
    """Return whether a Host header is one of ours.

    A page of another site can make a browser come here under that site's name (DNS rebinding);
    the name then stands in the header. When bound to all addresses, any IP address is ours: an
    address cannot be rebound.
    """
    name = split_port(host)
    bracketed = f"[{bound}]" if ":" in bound else bound
    if name in {*LOOPBACK, bracketed.lower(), *(known.lower() for known in names)}:
        return True
    if bound not in ("0.0.0.0", "::"):
        return False
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


class Turns:
    """Lets each address have a few requests worked on, so that none has all the threads."""

    def __init__(self) -> None:
        """Begin with nobody."""
        self._lines: dict[str, tuple[asyncio.Semaphore, int]] = {}

    @asynccontextmanager
    async def take(self, client: str) -> AsyncIterator[None]:
        """Wait until it is this client's turn."""
        line, n_in_line = self._lines.get(client, (asyncio.Semaphore(MAX_AT_ONCE), 0))
        self._lines[client] = line, n_in_line + 1
        try:
            async with line:
                yield
        finally:
            line, n_in_line = self._lines[client]
            self._lines[client] = line, n_in_line - 1
            if n_in_line == 1:
                del self._lines[client]


class Guard:
    """Refuses strange hosts, foreign origins, other bodies than JSON, and large ones."""

    def __init__(self, app: App, bound: str, names: tuple[str, ...] = ()) -> None:
        """Stand before `app`; `bound` is the address listened on, `names` further host names."""
        self.app = app
        self.bound = bound
        self.names = names
        self.turns = Turns()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        send = self._add_headers(send)
        fault = self._find_fault(scope)
        if fault:
            await refuse(send, *fault)
            return
        try:
            async with asyncio.timeout(MAX_BODY_SECONDS):
                body = await read_body(receive)
        except TimeoutError:
            await refuse(send, 408, "the request came too slowly")
            return
        except TooLargeError:
            await refuse(send, 413, f"the request is over {MAX_BODY_BYTES} bytes")
            return
        async with self.turns.take(name_client((scope.get("client") or [""])[0])):
            await self.app(scope, replay(body, receive), send)

    def _find_fault(self, scope: Scope) -> tuple[int, str] | None:
        """Return status and reason when the request must not be answered."""
        headers: dict[str, list[str]] = {}
        for key, value in scope["headers"]:
            headers.setdefault(key.decode("latin-1").lower(), []).append(value.decode("latin-1"))
        if "transfer-encoding" in headers and "content-length" in headers:
            # Where a proxy goes by the one and we by the other, a second request hides in the body.
            return 400, "the request tells its length twice"
        hosts = headers.get("host", [])
        if len(hosts) != 1 or not is_allowed_host(hosts[0], self.bound, self.names):
            return 421, "this host name is not served here; see `ecofm compare serve --help`"
        if scope["method"] in ("GET", "HEAD"):
            return None
        # Browsers send Origin with every POST; the port counts, so Host must match as a whole.
        origins = headers.get("origin", [])
        if origins not in ([f"http://{hosts[0]}"], [f"https://{hosts[0]}"]):
            return 403, "the request comes from another site"
        media_type = headers.get("content-type", [""])[0].split(";")[0].strip().lower()
        if media_type != "application/json":
            return 415, "the request is not JSON"
        return None

    def _add_headers(self, send: Send) -> Send:
        added = [(k.lower().encode(), v.encode()) for k, v in SECURITY_HEADERS.items()]

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [*message.get("headers", []), *added]
                if not any(key.lower() == b"cache-control" for key, _ in headers):
                    headers.append((b"cache-control", b"no-store"))
                message = {**message, "headers": headers}
            await send(message)

        return send_with_headers


async def read_body(receive: Receive) -> bytes:
    """Return the whole body; raises TooLargeError as soon as it passes the limit."""
    body: bytes = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return body
        body += bytes(message.get("body", b""))
        if len(body) > MAX_BODY_BYTES:
            raise TooLargeError
        if not message.get("more_body"):
            return body


def replay(body: bytes, receive: Receive) -> Receive:
    """Return a receive that gives the body that was read already, then what follows."""
    is_given = False

    async def receive_again() -> Message:
        nonlocal is_given
        if is_given:
            return await receive()
        is_given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_again


async def refuse(send: Send, status: int, reason: str) -> None:
    """Answer with a status and a reason as JSON, in the form that FastAPI gives its own."""
    body = json.dumps({"detail": reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
