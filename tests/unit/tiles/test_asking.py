"""A server that does not end: each answer, and all together, have an end in time and size."""

from __future__ import annotations

import gzip
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ecofm.errors import SceneError
from ecofm.tiles import asking
from ecofm.tiles.area import read_area
from ecofm.tiles.search import SearchConfig, search

CORE = "https://api.stacspec.org/v1.0.0"
AREA = read_area("126,38,127,39")
DATES = SearchConfig(dates="2019", max_items=20)
ANSWER_S = 1.0

Give = Callable[["Handler", str], Any]


def item(name: Any, **more: Any) -> dict[str, Any]:
    corners = [[126, 38], [128, 38], [128, 40], [126, 38]]
    return {
        "type": "Feature", "stac_version": "1.0.0", "id": name, "links": [], "assets": {},
        "geometry": {"type": "Polygon", "coordinates": [corners]},
        "properties": {"datetime": "2019-06-12T02:00:00Z", "eo:cloud_cover": 5}, **more,
    }  # fmt: skip


class Handler(BaseHTTPRequestHandler):
    """What a server answers; the tests make it misbehave."""

    misbehave: Give
    url: str
    stop: threading.Event
    n_asked: int = 0
    token = 0

    def log_message(self, *_: Any) -> None: ...

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        self.token = json.loads(self.rfile.read(length) or b"{}").get("token", 0)
        self.do_GET()

    def do_GET(self) -> None:
        type(self).n_asked += 1
        try:
            found = type(self).misbehave(self, self.path)
            if found is not None:
                self.give(found)
        except OSError:
            pass  # the other side has enough

    def give(self, found: Any, status: int = 200, **headers: str) -> None:
        body = found if isinstance(found, bytes) else json.dumps(found).encode()
        self.send_response(status)
        for name, value in {"Content_Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def drip(self, data: bytes) -> None:
        """Write a byte at a time, each long before a time-out between two bytes."""
        for byte in data:
            self.wfile.write(bytes([byte]))
            self.wfile.flush()
            if self.stop.wait(0.05):
                return

    def root(self) -> dict[str, Any]:
        links = [{"rel": "self", "href": self.url}, {"rel": "root", "href": self.url}]
        links.append({"rel": "search", "href": f"{self.url}search", "method": "POST"})
        return {
            "type": "Catalog", "stac_version": "1.0.0", "id": "a", "description": "x",
            "conformsTo": [f"{CORE}/core", f"{CORE}/item-search"], "links": links,
        }  # fmt: skip

    def page(self, items: list[Any], **more: Any) -> dict[str, Any]:
        following = {"rel": "next", "href": f"{self.url}search", "method": "POST",
                     "body": {"token": self.token + 1}}  # fmt: skip
        return {"type": "FeatureCollection", "features": items, "links": [following], **more}


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Give], type[Handler]]]:
    """Return how to start a server that misbehaves; answers may take a second."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(asking, "ANSWER_S", ANSWER_S)
    stop = threading.Event()
    servers: list[tuple[ThreadingHTTPServer, threading.Thread]] = []

    def start(misbehave: Give) -> type[Handler]:
        handler = type("OneHandler", (Handler,), {"misbehave": misbehave, "stop": stop})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        handler.url = f"http://127.0.0.1:{server.server_address[1]}/"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        servers.append((server, thread))
        return handler

    yield start
    stop.set()
    for server, thread in servers:
        server.shutdown()
        server.server_close()
        thread.join()


def drip_head(handler: Handler, _: str) -> None:
    handler.drip(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 10_000)


def drip_body(handler: Handler, _: str) -> None:
    handler.send_response(200)
    handler.end_headers()
    handler.drip(b" " * 10_000)


def be_silent(handler: Handler, _: str) -> None:
    handler.stop.wait(20)


def drip_a_page(handler: Handler, path: str) -> Any:
    if path == "/":
        return handler.root()
    drip_body(handler, path)
    return None


def never_end(handler: Handler, _: str) -> None:
    handler.send_response(200)
    handler.end_headers()
    while not handler.stop.is_set():
        handler.wfile.write(b" " * 2**16)


def unpack_without_end(handler: Handler, _: str) -> None:
    handler.give(gzip.compress(b" " * 2**22), Content_Encoding="gzip")


def ask_for_patience(handler: Handler, _: str) -> None:
    handler.give(b"{}", 429, Retry_After="99999")


def lead_in_circles(handler: Handler, path: str) -> None:
    handler.give(b"", 302, Location=f"{handler.url}x{path[1:]}")


def cut_short(handler: Handler, _: str) -> None:
    handler.give(json.dumps(handler.root()).encode(), Content_Length="100000")


def be_cut_by_its_length(handler: Handler, _: str) -> None:
    handler.give(json.dumps(handler.root()).encode(), Content_Length="10")


def have_ever_new_pages(handler: Handler, path: str) -> Any:
    return handler.root() if path == "/" else handler.page([item("a"), item(f"i{handler.token}")])


def have_one_page(handler: Handler, path: str) -> Any:
    return handler.root() if path == "/" else handler.page([item("a")])


@pytest.mark.parametrize(
    ("misbehave", "sentence"),
    [
        (drip_head, "an answer took more than 1.0 s"),
        (drip_body, "an answer took more than 1.0 s"),
        (drip_a_page, "an answer took more than 1.0 s"),
        (be_silent, "an answer took more than 1.0 s"),
        (ask_for_patience, "an answer took more than 1.0 s"),
        (never_end, "longer than 1 MiB"),
        (unpack_without_end, "longer than 1 MiB"),
        (lead_in_circles, "redirects"),
        (cut_short, "more expected"),
        (be_cut_by_its_length, "no STAC API that can be searched"),
        (have_ever_new_pages, "more than 20 items"),
        (have_one_page, "the same page again and again"),
    ],
)
def test_a_server_that_does_not_end_is_named_in_time(
    tmp_path: Path, serve: Any, monkeypatch: pytest.MonkeyPatch, misbehave: Give, sentence: str
) -> None:
    monkeypatch.setattr(asking, "MAX_ANSWER_BYTES", 2**20)
    api = serve(misbehave).url
    start_s = time.monotonic()
    with pytest.raises(SceneError, match=sentence) as raised:
        search(api, tmp_path / "items", AREA, DATES)
    assert time.monotonic() - start_s < 30, "not the hours that the server would take"
    assert str(raised.value).startswith(api) and not (tmp_path / "items").exists()


def test_a_search_has_an_end_in_time_and_in_size(
    tmp_path: Path, serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def be_slow(handler: Handler, path: str) -> Any:
        handler.stop.wait(0.2)
        return have_ever_new_pages(handler, path)

    api = serve(be_slow).url
    monkeypatch.setattr(asking, "SEARCH_S", 0.7)
    with pytest.raises(SceneError, match=r"the search took more than 0.7 s; narrow --dates"):
        search(api, tmp_path / "items", AREA, DATES)
    monkeypatch.setattr(asking, "SEARCH_S", 60)
    monkeypatch.setattr(asking, "MAX_SEARCH_BYTES", 3000)
    with pytest.raises(SceneError, match=r"answers are longer than .* together; narrow --dates"):
        search(api, tmp_path / "items", AREA, DATES)


def test_a_server_may_ask_for_a_little_patience(
    tmp_path: Path, serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "ANSWER_S", 30)
    monkeypatch.setattr(asking, "MAX_RETRY_AFTER_S", 0.1)

    def be_busy_once(handler: Handler, path: str) -> Any:
        if type(handler).n_asked == 1:
            handler.give(b"{}", 503, Retry_After="86400")
            return None
        return handler.root() if path == "/" else {**handler.page([item("a")]), "links": []}

    handler = serve(be_busy_once)
    items = search(handler.url, tmp_path / "items", AREA, DATES)
    assert (items / "a.json").is_file() and handler.n_asked == 3


def test_what_an_api_keeps_back_is_said(
    tmp_path: Path, serve: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    def give_less(handler: Handler, path: str) -> Any:
        if path == "/":
            return handler.root()
        return handler.page([item("a")] if handler.token == 0 else [], numberMatched=7)

    search(serve(give_less).url, tmp_path / "items", AREA, DATES)
    assert "says that it has 7 items, and gave 1" in capsys.readouterr().err


def test_odd_items_are_left_out_by_name(tmp_path: Path, serve: Any) -> None:
    deep: Any = 1
    for _ in range(400):
        deep = [deep]
    star = [[126 + k % 2, 38 + k / 2000] for k in range(2000)]
    outline = {"type": "Polygon", "coordinates": [[*star, star[0]]]}
    huge = {"type": "Polygon", "coordinates": [[[10**400, 1], [2, 2], [3, 3], [10**400, 1]]]}
    odd = {
        "has an id that is no file name": [
            item("manifest"), item("a\0"), item("../a"), item("C:a"), item("x" * 201), item(None),
            item([1]), item(True),
        ],
        "nested in more than": [item("deep", extra=deep)],
        "has 1001 assets": [item("assets", assets={str(k): {} for k in range(1001)})],
        "corners": [item("corners", geometry=outline)],
        "has no geometry": [item("huge", geometry=huge), item("none", geometry=None)],
        "which --max-cloud asks for": [
            item(f"cloud{n}", properties={"eo:cloud_cover": cloud})
            for n, cloud in enumerate((10**400, True, float("nan"), "5", -1))
        ],
        "JSON has no word for": [item("nan", extra=float("nan"))],
        "is no STAC item": [7, "x", {"type": "Feature", "id": "y"}],
    }  # fmt: skip
    items = [one for several in odd.values() for one in several]

    def give_odd(handler: Handler, path: str) -> Any:
        good = item("good", assets={"red": {"href": "http://["}})
        good["links"] = [{"rel": "self", "href": "http://[x/"}]
        found = {**handler.page([good, *items]), "links": []}
        return handler.root() if path == "/" else found

    config = SearchConfig(dates="2019", max_cloud=50)
    out = search(serve(give_odd).url, tmp_path / "items", AREA, config)
    assert {path.name for path in out.iterdir()} == {
        "good.json", "manifest.json", "rejected.parquet",
    }  # fmt: skip
    reasons = pd.read_parquet(out / "rejected.parquet")["reason"]
    assert len(reasons) == len(items)
    for sentence, several in odd.items():
        assert reasons.str.contains(sentence, regex=False).sum() == len(several), sentence


def test_a_password_in_the_url_of_an_api_is_told_to_nobody(
    tmp_path: Path, serve: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    def give_one(handler: Handler, path: str) -> Any:
        return handler.root() if path == "/" else {**handler.page([item("a")]), "links": []}

    api = serve(give_one).url.replace("//", "//me:hidden@")
    out = search(api, tmp_path / "items", AREA, DATES)
    assert "hidden" not in (out / "manifest.json").read_text() + capsys.readouterr().err
    with pytest.raises(SceneError) as raised:
        search(
            serve(be_cut_by_its_length).url.replace("//", "//me:hidden@"),
            out,
            AREA,
            DATES,
            again=True,
        )
    assert "hidden" not in str(raised.value)
