"""Connections of the web app: how long each may take, and how many one address may hold.

uvicorn closes a connection that is silent after an answer, and waits without end for one that has
not sent its first request, sends it byte by byte, or does not read its answer. Here each of these
has a deadline; and where an address, or everyone together, holds too many connections, the one
that has waited longest for its next request makes room. So nobody is locked out by others.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from ecofm.compare.addresses import name_client

if TYPE_CHECKING:
    from uvicorn import Config
    from uvicorn.server import ServerState

SECONDS = {"head": 10.0, "body": 30.0, "answer": 60.0, "rest": 60.0}
"""How long a connection may stay in each phase: sending a request's head, its body (the guard
answers a slow one before this), being answered, and reading the answer's last bytes."""
MAX_PER_ADDRESS = 100
"""Connections of one address that wait for their next request; a browser opens six."""
MAX_CONNECTIONS = 800
"""Connections in all: many systems allow a process 1024 open files."""
MIN_AGE_SECONDS = 1.0
"""A connection younger than this makes no room for others: its request may be under way."""


class Crowd:
    """The open connections, and which of them makes room for another."""

    def __init__(self, unlimited: Collection[str] = ()) -> None:
        """Begin with none; `unlimited` are proxies, which stand for many addresses."""
        self.unlimited = {name_client(address) for address in unlimited}
        self.n_open = 0
        self._waiting: dict[str, dict[Connection, float]] = {}

    def enter(self, connection: Connection) -> bool:
        """Count a new connection in; return whether there is room for it."""
        self.n_open += 1
        if self.n_open > MAX_CONNECTIONS:
            # The address with the most pays: whoever floods the server meets itself.
            fullest = max(self._waiting.values(), key=len, default={})
            return self._drop_oldest(fullest, 0.0)
        own = self._waiting.get(connection.address, {})
        if len(own) >= MAX_PER_ADDRESS and connection.address not in self.unlimited:
            self._drop_oldest(own, MIN_AGE_SECONDS)
        return True

    def leave(self, connection: Connection) -> None:
        """Count a closed connection out."""
        self.n_open -= 1
        self.stop_waiting(connection)

    def wait(self, connection: Connection) -> None:
        """Note that a connection waits for its next request."""
        self._waiting.setdefault(connection.address, {})[connection] = time.monotonic()

    def stop_waiting(self, connection: Connection) -> None:
        """Note that a request has come, or that none will."""
        own = self._waiting.get(connection.address, {})
        own.pop(connection, None)
        if not own:
            self._waiting.pop(connection.address, None)

    def _drop_oldest(self, waiting: dict[Connection, float], min_age: float) -> bool:
        for oldest, since in waiting.items():
            if time.monotonic() - since < min_age:
                break
            self.stop_waiting(oldest)
            oldest.transport.abort()
            return True
        return False


class Connection(H11Protocol):
    """uvicorn's connection with a deadline for every phase, counted by its address."""

    crowd: Crowd

    def __init__(
        self, config: Config, server_state: ServerState, app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:  # fmt: skip
        """Begin before anything is connected."""
        super().__init__(config, server_state, app_state, _loop)
        self.address = ""
        self._phase = ""
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the deadline of the first request, or hang up when there is no room."""
        super().connection_made(transport)
        self.address = name_client(self.client[0] if self.client else "")
        if not self.crowd.enter(self):
            transport.abort()
        else:
            self._begin("head")

    def data_received(self, data: bytes) -> None:
        """Take bytes of a request."""
        super().data_received(data)
        self._review()

    def on_response_complete(self) -> None:
        """Give the client time to read the answer; the next request may be here already."""
        self._begin("rest")
        super().on_response_complete()
        if self.conn.their_state is not h11.IDLE:
            self._review()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        super().connection_lost(exc)
        if self._deadline is not None:
            self._deadline.cancel()
        self.crowd.leave(self)

    def _review(self) -> None:
        """Find out what the client is doing, and begin the deadline of a phase that is new."""
        phases = {h11.IDLE: "head", h11.SEND_BODY: "body"}
        phase = phases.get(self.conn.their_state, "answer")
        if phase != self._phase:
            self._begin(phase)

    def _begin(self, phase: str) -> None:
        self._phase = phase
        if self._deadline is not None:
            self._deadline.cancel()
        # Not close(): that waits until the client has read everything.
        self._deadline = self.loop.call_later(SECONDS[phase], self.transport.abort)
        if phase in ("head", "rest"):
            self.crowd.wait(self)
        else:
            self.crowd.stop_waiting(self)


def build_connection(proxies: Collection[str]) -> type[Connection]:
    """Return the class of a server's connections, which share one crowd."""
    return type("Connection", (Connection,), {"crowd": Crowd(proxies)})
