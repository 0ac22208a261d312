"""The web app under attack: killed while people vote, and beset by clients that say nothing."""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from tests.faults.lab import Lab, clear
from tests.faults.outcomes import Outcome, Try
from tests.faults.stages import Part

SERVER = Path(__file__).parents[1] / "unit" / "compare" / "server.py"
N_CLIENTS = 8
PATIENCE_S = 10.0
"""A person's request is answered by then, whoever else is connected."""


class Client(threading.Thread):
    """Votes over one connection; each vote is sent, with its id, until it is acknowledged."""

    def __init__(self, number, port, n_votes):
        super().__init__(daemon=True)
        self.number, self.port, self.n_votes = number, port, n_votes
        self.acknowledged = {}
        self.n_retries = 0
        self.fault = None
        self.token = ""
        self.connection = None

    def ask(self, method, path, body=None):
        """Return status and answer; OSError or HTTPException when the server is gone."""
        if self.connection is None:
            self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        headers = {"Origin": f"http://127.0.0.1:{self.port}", "X-Ecofm-Token": self.token,
                   "Content-Type": "application/json"}  # fmt: skip
        try:
            if self.connection.sock is None:
                self.connection.connect()
                self.connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            content = None if body is None else json.dumps(body)
            self.connection.request(method, path, content, headers)
            with self.connection.getresponse() as answer:
                return answer.status, json.loads(answer.read())
        except (OSError, http.client.HTTPException, ValueError):
            self.connection.close()
            self.connection = None
            raise

    def insist(self, method, path, body=None):
        """Ask until the server answers."""
        while True:
            try:
                status, answer = self.ask(method, path, body)
            except (OSError, http.client.HTTPException, ValueError):
                self.n_retries += 1
                time.sleep(0.02)
                continue
            assert status == 200, answer
            return answer

    def enter(self):
        session = self.insist("POST", "/api/session", {"annotator": f"client {self.number}"})
        self.token = session["token"]
        return self.insist("GET", "/api/pair")["edition"]

    def vote(self, edition, rng):
        left, right = rng.sample(range(7), 2)  # item 7 has another name than its number
        outcome = rng.choice(["left", "right", "tie", "skip"])
        vote = {"id": uuid.uuid4().hex, "edition": edition, "left": left, "right": right,
                "outcome": outcome, "asked": "random", "response_ms": 1}  # fmt: skip
        self.insist("POST", "/api/vote", vote)
        self.acknowledged[vote["id"]] = (f"client {self.number}", str(left), str(right), outcome)

    def run(self):
        try:
            edition, rng = self.enter(), random.Random(self.number)
            for _ in range(self.n_votes):
                self.vote(edition, rng)
        except BaseException as error:
            self.fault = error  # the main thread says so
        finally:
            self.close()

    def close(self) -> None:
        if self.connection is not None:
            self.connection.close()
            self.connection = None


class Nursery:
    """A server that is started again whenever it is killed (see `server.py`)."""

    def __init__(self, store: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.process = subprocess.Popen(
            [sys.executable, str(SERVER), str(store), str(self.port)],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        self.server = self._next()

    def _next(self) -> int:
        assert self.process.stdout
        return int(self.process.stdout.readline())

    def kill(self) -> None:
        os.kill(self.server, signal.SIGKILL)
        self.server = self._next()


@contextmanager
def serve(store: Path) -> Iterator[Nursery]:
    nursery = Nursery(store)
    try:
        yield nursery
        os.kill(nursery.server, signal.SIGINT)
        nursery.process.wait(20)
    finally:
        nursery.process.kill()
        if nursery.process.wait():
            os.kill(nursery.server, signal.SIGKILL)
        nursery.process.stdout.close()


def vote_over_kills(n_votes: int, n_kills: int, random: random.Random, work: Path) -> Iterator[Try]:
    """Eight people vote while the server is killed; one try a vote."""
    store = clear(work) / "votes"
    with serve(store) as nursery:
        clients = [
            Client(number, nursery.port, n_votes // N_CLIENTS) for number in range(N_CLIENTS)
        ]
        for client in clients:
            client.start()
        for kill in range(1, n_kills + 1):
            # Each server lives for its part of the votes, and dies while votes are under way.
            goal = n_votes * kill // (n_kills + 1)
            while sum(len(client.acknowledged) for client in clients) < goal:
                if any(client.fault for client in clients):
                    break
                time.sleep(0.002)
            nursery.kill()
        for client in clients:
            client.join(300)
    yield from compare_votes(store, clients)


def compare_votes(store: Path, clients: list[Client]) -> Iterator[Try]:
    """Compare what was acknowledged with what is stored."""
    from ecofm.compare.store import Store

    sent = {key: vote for client in clients for key, vote in client.acknowledged.items()}
    with Store(store, create=False) as opened:
        stored = [(row[0], tuple(row[1:5])) for row in opened.records()]
        told = opened.query("PRAGMA integrity_check")
    kept = dict(stored)
    for key, vote in sent.items():
        found = kept.get(key)
        outcome = Outcome.harmless if found == vote else Outcome.lost
        yield Try(outcome, f"vote {key}: sent {vote}, stored {found}")
    for client in clients:
        if client.is_alive() or client.fault:
            yield Try(Outcome.hung, f"client {client.number}: {client.fault or 'not done'}")
    if len(stored) != len(kept) or len(stored) != len(sent):
        yield Try(Outcome.lost, f"{len(sent)} votes acknowledged, {len(stored)} stored")
    if told != [("ok",)]:
        yield Try(Outcome.lost, f"the store's integrity check says {told}")


def beset(n_votes: int, n_silent: int, random: random.Random, work: Path) -> Iterator[Try]:
    """One person votes while others hold connections and say nothing, or a byte a second."""
    with ExitStack() as stack:
        nursery = stack.enter_context(serve(clear(work) / "votes"))
        person = Client(0, nursery.port, 0)
        edition = person.enter()
        stack.callback(person.close)
        held = [
            stack.enter_context(
                socket.create_connection(
                    ("127.0.0.1", nursery.port), 5, source_address=(f"127.0.0.{2 + n % 5}", 0)
                )
            )
            for n in range(n_silent)
        ]
        ended = threading.Event()
        drip = threading.Thread(target=drip_bytes, args=(held[::2], ended))
        drip.start()
        stack.callback(drip.join)
        stack.callback(ended.set)
        for number in range(n_votes):
            began = time.monotonic()
            try:
                person.close()
                status, answer = person.ask("GET", "/api/pair")
            except (OSError, http.client.HTTPException, ValueError) as error:
                status, answer = 0, error
            took = time.monotonic() - began
            is_fine = status == 200 and took < PATIENCE_S
            what = f"request {number} beside {n_silent} silent clients: {status} in {took:.1f} s"
            yield Try(Outcome.harmless if is_fine else Outcome.hung, f"{what} {answer!s:.80}")
            time.sleep(0.1)
        assert edition is not None


def drip_bytes(sockets: list[socket.socket], ended: threading.Event) -> None:
    """Send a request's head byte by byte, one a second, on every connection."""
    head = b"GET /api/pair HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Filler: " + b"x" * 600
    for byte in head:
        for connection in sockets:
            try:
                connection.send(bytes([byte]))
            except OSError:
                continue
        if ended.wait(1.0):
            return


def parts(lab: Lab, scale: float) -> dict[str, Part]:
    """Return the attacks on the server: 10,000 votes over 50 kills, and 250 silent clients."""
    n_kills = max(3, int(50 * scale))
    return {
        "votes over kills": partial(vote_over_kills, 200 * n_kills, n_kills),
        "slow clients": partial(beset, max(5, int(60 * scale)), 250),
    }
