"""A small STAC API for the tests: a root, a search with pages, and files with ranges."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

CORE = "https://api.stacspec.org/v1.0.0"
PAGE = 2


class Api:
    """What the server answers; the tests make it lie."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = ""
        self.items: list[dict[str, Any]] = []
        self.conforms = [f"{CORE}/core", f"{CORE}/item-search", f"{CORE}/item-search#query"]
        self.search_link = "{url}/search"
        self.next_link = "{url}/search"
        self.page_again = False
        self.root: bytes | None = None
        self.asked: list[tuple[str, Any]] = []

    def answer(self, path: str, body: Any) -> bytes | None:
        """Return the JSON of a path, None for a file."""
        if path == "/":
            links = [
                {"rel": rel, "href": href, "type": "application/json"}
                for rel, href in (("self", f"{self.url}/"), ("root", f"{self.url}/"))
            ]
            links += [
                {"rel": "search", "href": self.search_link.format(url=self.url), "method": method,
                 "type": "application/geo+json"} for method in ("GET", "POST")
            ]  # fmt: skip
            root = {
                "type": "Catalog", "stac_version": "1.0.0", "id": "api", "description": "A test.",
                "conformsTo": self.conforms, "links": links,
            }  # fmt: skip
            return self.root or json.dumps(root).encode()
        if path != "/search":
            return None
        start = int(body.get("token", 0))
        links = []
        if start + PAGE < len(self.items) or self.page_again:
            following = {**body, "token": start if self.page_again else start + PAGE}
            links = [
                {"rel": "next", "href": self.next_link.format(url=self.url), "method": "POST",
                 "body": following}
            ]  # fmt: skip
        found = self.items[start : start + PAGE]
        return json.dumps({"type": "FeatureCollection", "features": found, "links": links}).encode()


def _handler(api: Api) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None: ...

        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            self._give(json.loads(self.rfile.read(length) or b"{}"))

        def do_GET(self) -> None:
            self._give({})

        def _give(self, body: Any) -> None:
            path, _, query = self.path.partition("?")
            api.asked.append((self.path, body))
            if path == "/elsewhere":
                self.send_response(302)
                self.send_header("Location", "http://localhost:1/secret")
                self.end_headers()
                return
            answer, status = api.answer(path, body), 200
            if answer is None:
                file = api.folder / path.lstrip("/")
                is_allowed = file.is_file() and (not path.startswith("/signed") or query == "key=1")
                answer, status = (file.read_bytes(), 200) if is_allowed else (b"no", 403)
                asked = self.headers.get("Range")
                if asked and status == 200:
                    first, _, last = asked.removeprefix("bytes=").partition("-")
                    whole = len(answer)
                    answer, status = answer[int(first) : int(last or whole) + 1], 206
                    self.send_response(status)
                    end = int(first) + len(answer) - 1
                    self.send_header("Content-Range", f"bytes {first}-{end}/{whole}")
            if status != 206:
                self.send_response(status)
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

    return Handler


@contextmanager
def serve(folder: Path) -> Iterator[Api]:
    """Serve a folder on this machine alone until the end of the block."""
    api = Api(folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(api))
    api.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
