"""Raw sockets against the web app: silent and slow clients, proxies, and who else is served."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

uvicorn = pytest.importorskip("uvicorn", reason="the app extra is not installed")
pytest.importorskip("fastapi", reason="the app extra is not installed")

from ecofm.compare import connections, guard  # noqa: E402
from ecofm.compare.addresses import name_client  # noqa: E402
from ecofm.compare.app import ServeConfig, listen  # noqa: E402
from ecofm.compare.connections import build_connection  # noqa: E402
from ecofm.compare.guard import Guard  # noqa: E402

SERVER = Path(__file__).with_name("server.py")
GET = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


async def answer(scope, receive, send):
    """An app that answers with as many bytes as the query says."""
    body = b"x" * int(scope["query_string"] or b"2")
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for start in range(0, len(body), 65536):
        part = {"body": body[start : start + 65536], "more_body": start + 65536 < len(body)}
        await send({"type": "http.response.body", **part})


@contextmanager
def run(app=answer, proxies=()):
    """A server of this process, on a free port."""
    config = uvicorn.Config(Guard(app, "127.0.0.1"), http=build_connection(proxies), lifespan="off",
                            log_level="critical", proxy_headers=False)  # fmt: skip
    server = uvicorn.Server(config)
    with listen("127.0.0.1", 0) as listener:
        listener.listen(1000)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(10)
            assert not thread.is_alive()


def connect(port):
    return socket.create_connection(("127.0.0.1", port), timeout=10)


def ask(port, request=GET):
    """Return the answer's first line."""
    with connect(port) as client:
        client.sendall(request)
        return client.recv(65536).split(b"\r\n")[0]


def seconds_until_closed(client, drip=b"", pause=0.02):
    """How long the server keeps a connection that sends `drip` again and again."""
    started = time.monotonic()
    client.settimeout(pause)
    while time.monotonic() - started < 8:
        try:
            if drip:
                client.sendall(drip)
            if not client.recv(4096):
                break
        except TimeoutError:
            continue
        except OSError:
            break
    return time.monotonic() - started


@pytest.mark.parametrize(
    ("sent", "drip"),
    [
        (b"", b""),
        (b"GET / HTTP/1.1\r\n", b""),
        (b"GET / HTTP/1.1\r\nX: ", b"a"),
        (GET, b"G"),
        (b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9000\r\n\r\n", b"a"),
        (b"POST / HTTP/1.1\r\nHost: evil\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n"),
    ],
)
def test_who_is_silent_or_slow_is_hung_up_on(monkeypatch, sent, drip):
    for phase in connections.SECONDS:
        monkeypatch.setitem(connections.SECONDS, phase, 0.5)
    with run() as port, connect(port) as client:
        client.sendall(sent)
        assert 0.2 < seconds_until_closed(client, drip) < 4
        assert ask(port) == b"HTTP/1.1 200 OK"


def test_who_does_not_read_the_answer_is_hung_up_on(monkeypatch):
    monkeypatch.setitem(connections.SECONDS, "answer", 0.5)
    with run() as port, connect(port) as client:
        client.sendall(GET.replace(b"/ ", b"/?99000000 "))
        time.sleep(1.5)
        n_read = 0
        while part := client.recv(2**20):
            n_read += len(part)
        assert n_read < 99_000_000


def test_an_honest_client_keeps_its_connection(monkeypatch):
    monkeypatch.setitem(connections.SECONDS, "head", 0.4)
    monkeypatch.setitem(connections.SECONDS, "answer", 0.4)
    with run() as port, connect(port) as client:
        for _ in range(4):
            client.sendall(GET)
            read_answers(client, 1)
            time.sleep(0.3)
        client.sendall(GET * 3)  # three at once
        read_answers(client, 3)


def read_answers(client, n):
    """Read the whole of `n` answers."""
    received = b""
    while received.count(b"\r\n\r\nxx") < n:
        part = client.recv(4096)
        assert part, received
        received += part
    assert received.count(b"HTTP/1.1 200") == n


def test_a_silent_crowd_locks_nobody_out(monkeypatch):
    monkeypatch.setattr(connections, "MAX_PER_ADDRESS", 20)
    monkeypatch.setattr(connections, "MIN_AGE_SECONDS", 0.05)
    with run() as port, ExitStack() as stack:
        silent = []
        for _ in range(60):
            silent.append(stack.enter_context(connect(port)))
            time.sleep(0.01)
            assert len(silent) % 10 or ask(port) == b"HTTP/1.1 200 OK"
        n_open = sum(is_open(client) for client in silent)
        assert n_open <= 30
        assert is_open(silent[-1]) and not is_open(silent[0])


def is_open(client):
    client.settimeout(0.01)
    try:
        return bool(client.recv(1))
    except TimeoutError:
        return True
    except OSError:
        return False


def test_where_all_together_are_too_many_the_oldest_of_the_fullest_address_makes_room(monkeypatch):
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 30)
    with run() as port, ExitStack() as stack:
        own = stack.enter_context(socket.socket())
        own.bind(("127.0.0.9", 0))  # another address of this machine
        own.connect(("127.0.0.1", port))
        silent = [stack.enter_context(connect(port)) for _ in range(60)]
        assert ask(port) == b"HTTP/1.1 200 OK"
        assert sum(map(is_open, silent)) <= 30
        own.settimeout(10)
        own.sendall(GET)
        assert own.recv(4096).startswith(b"HTTP/1.1 200")


def test_a_proxy_stands_for_many_and_has_no_limit_of_its_own(monkeypatch):
    monkeypatch.setattr(connections, "MAX_PER_ADDRESS", 5)
    monkeypatch.setattr(connections, "MIN_AGE_SECONDS", 0.0)
    with run(proxies=["127.0.0.1"]) as port, ExitStack() as stack:
        silent = [stack.enter_context(connect(port)) for _ in range(20)]
        assert ask(port) == b"HTTP/1.1 200 OK"
        assert all(map(is_open, silent))


def test_no_address_has_more_than_its_share_of_the_work():
    at_once, most = 0, 0

    async def slow(scope, receive, send):
        nonlocal at_once, most
        import asyncio

        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.02)
        at_once -= 1
        await answer(scope, receive, send)

    with run(slow) as port, ThreadPoolExecutor(100) as pool:
        answers = list(pool.map(lambda _: ask(port), range(100)))
    assert answers == [b"HTTP/1.1 200 OK"] * 100
    assert 1 < most <= guard.MAX_AT_ONCE


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: http://127.0.0.1\r\n"
         b"Content-Type: application/json\r\nContent-Length: 5\r\n"
         b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
         b"400"),
        (b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil\r\n\r\n", b"400"),
        (b"TRACE / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", b"403"),
        (b"OPTIONS / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", b"403"),
        (b"CONNECT evil:80 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", b"403"),
        (b"HEAD / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", b"200"),
        (b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"a" * 200_000 + b"\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\x01", b"400"),
    ],
)  # fmt: skip
def test_ambiguous_and_strange_requests_are_refused(request_, status):
    with run() as port:
        assert ask(port, request_).split()[1] == status
        assert ask(port) == b"HTTP/1.1 200 OK"


def test_addresses_are_counted_by_who_owns_them():
    assert name_client("10.0.0.1") != name_client("10.0.0.2")
    assert name_client("2001:db8::1") == name_client("2001:db8::ffff:1")
    assert name_client("2001:db8:0:1::1") != name_client("2001:db8:0:2::1")
    assert name_client("::ffff:10.0.0.1") == name_client("10.0.0.1")
    assert name_client("fe80::1%eth0") == name_client("fe80::2%eth1")
    assert name_client("unknown") == "unknown"


@pytest.mark.parametrize("address", ["*", "proxy.example", "10.0.0.0/8", ""])
def test_a_proxy_is_trusted_by_its_address_only(tmp_path, address):
    with pytest.raises(ValueError, match="expected an IP address"):
        ServeConfig(store=tmp_path / "votes", clusters=tmp_path, trusted_proxy=(address,))


@contextmanager
def serve(folder, **settings):
    """The whole app in a process of its own; yields its port."""
    with listen("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    nursery = subprocess.Popen(
        [sys.executable, str(SERVER), str(folder / "votes"), str(port), json.dumps(settings)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    process = int(nursery.stdout.readline())
    try:
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield port
    finally:
        nursery.kill()
        nursery.wait()
        os.kill(process, signal.SIGKILL)
        nursery.stdout.close()


def post(port, body, path="/api/session", **headers):
    """Return status and answer of a request over a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    headers = {"Origin": f"http://127.0.0.1:{port}", "Content-Type": "application/json", **headers}
    try:
        connection.request("POST" if body else "GET", path, json.dumps(body), headers)
        with connection.getresponse() as found:
            return found.status, json.loads(found.read())
    finally:
        connection.close()


@pytest.fixture(scope="module")
def password_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("secret") / "password"
    path.write_text("correct horse\n")
    return str(path)


def test_a_forwarded_address_that_nobody_vouches_for_gives_a_guesser_no_further_try(
    tmp_path, password_file
):
    with serve(tmp_path, password_file=password_file) as port:
        statuses = [
            post(port, {"annotator": "eve", "password": f"wrong {n}"},
                 **{"X-Forwarded-For": f"10.0.0.{n}"})[0]
            for n in range(30)
        ]  # fmt: skip
        assert statuses == [403] * 10 + [429] * 20


def test_the_client_that_a_trusted_proxy_names_is_counted(tmp_path, password_file):
    with serve(tmp_path, password_file=password_file, trusted_proxy=["127.0.0.1"]) as port:

        def guess(forwarded):
            body = {"annotator": "eve", "password": "wrong"}
            return post(port, body, **{"X-Forwarded-For": forwarded})[0]

        # What the client wrote itself stands at the left, what the proxy saw at the right.
        assert [guess(f"10.9.9.{n}, 10.0.0.1") for n in range(12)] == [403] * 10 + [429] * 2
        assert guess("10.0.0.1, 10.0.0.2") == 403
        assert [guess(f"2001:db8::{n}") for n in range(12)] == [403] * 10 + [429] * 2
        known = {"annotator": "ada", "password": "correct horse"}
        status, session = post(port, known, **{"X-Forwarded-For": "10.0.1.1"})
        assert status == 200
        found = [guess(f"10.1.{n}.1") for n in range(100)]
        assert 0 < found.index(429) <= 80 and set(found[found.index(429) :]) == {429}
        # Who is in goes on, and so would who has an invitation.
        token = {"X-Ecofm-Token": session["token"]}
        assert post(port, None, "/api/pair", **token)[0] == 200


def test_300_silent_connections_do_not_disturb_a_voter(tmp_path):
    with serve(tmp_path) as port, ExitStack() as stack:
        for n in range(300):
            silent = stack.enter_context(connect(port))
            if n % 3:
                silent.sendall(b"GET / HTTP/1.1\r\nX: y" if n % 3 == 1 else b"POST /api/vote HT")
        started = time.monotonic()
        _, session = post(port, {"annotator": "ada"})
        token = {"X-Ecofm-Token": session["token"]}
        for n in range(20):
            _, pair = post(port, None, "/api/pair", **token)
            vote = {"id": f"{n:032d}", "edition": pair["edition"], "left": pair["left"]["item"],
                    "right": pair["right"]["item"], "outcome": "tie", "asked": "random",
                    "response_ms": 1}  # fmt: skip
            status, progress = post(port, vote, "/api/vote", **token)
            assert status == 200 and progress["n_done"] == n + 1
        assert time.monotonic() - started < 10
