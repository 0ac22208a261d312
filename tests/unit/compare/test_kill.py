"""10,000 votes from 8 clients over 50 kill -9 of the server: none is lost, none is doubled."""

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
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the app extra is not installed")
pytest.importorskip("uvicorn", reason="the app extra is not installed")

from ecofm.compare.app import listen
from ecofm.compare.store import Store

N_VOTES, N_CLIENTS, N_KILLS = 10_000, 8, 50
SERVER = Path(__file__).with_name("server.py")


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

    def run(self):
        try:
            session = self.insist("POST", "/api/session", {"annotator": f"client {self.number}"})
            self.token = session["token"]
            edition = self.insist("GET", "/api/pair")["edition"]
            rng = random.Random(self.number)
            for _ in range(self.n_votes):
                left, right = rng.sample(range(7), 2)  # item 7 has another name than its number
                outcome = rng.choice(["left", "right", "tie", "skip"])
                vote = {"id": uuid.uuid4().hex, "edition": edition, "left": left, "right": right,
                        "outcome": outcome, "asked": "random", "response_ms": 1}  # fmt: skip
                self.insist("POST", "/api/vote", vote)
                names = (f"client {self.number}", str(left), str(right), outcome)
                self.acknowledged[vote["id"]] = names
        except BaseException as error:
            self.fault = error  # the main thread raises it again
        finally:
            if self.connection is not None:
                self.connection.close()


def test_no_acknowledged_vote_is_lost_or_doubled_over_50_kills(tmp_path):
    with listen("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    clients = [Client(number, port, N_VOTES // N_CLIENTS) for number in range(N_CLIENTS)]
    nursery = subprocess.Popen(
        [sys.executable, str(SERVER), str(tmp_path / "votes"), str(port)],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        server = int(nursery.stdout.readline())
        for client in clients:
            client.start()
        for kill in range(1, N_KILLS + 1):
            # Each server lives for a fiftieth of the votes, and dies while votes are under way.
            goal = N_VOTES * kill // (N_KILLS + 1)
            while sum(len(client.acknowledged) for client in clients) < goal:
                assert not [client.fault for client in clients if client.fault]
                time.sleep(0.002)
            os.kill(server, signal.SIGKILL)
            server = int(nursery.stdout.readline())
        for client in clients:
            client.join(120)
            assert not client.is_alive() and client.fault is None, client.fault
        os.kill(server, signal.SIGINT)
        assert nursery.wait(20) == 0
    finally:
        nursery.kill()
        if nursery.wait():
            os.kill(server, signal.SIGKILL)
        nursery.stdout.close()
    sent = {key: vote for client in clients for key, vote in client.acknowledged.items()}
    with Store(tmp_path / "votes", create=False) as store:
        stored = [(row[0], tuple(row[1:5])) for row in store.records()]
        assert store.query("PRAGMA integrity_check") == [("ok",)]
    assert len(sent) == N_VOTES and len(stored) == N_VOTES and dict(stored) == sent
    assert sum(client.n_retries for client in clients) > N_KILLS
