"""Public data sets: downloaded once, checked always, told in one sentence when out of reach."""

from __future__ import annotations

import hashlib
import re
import threading
import zipfile
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ecofm.cli import main
from ecofm.errors import EcofmError
from ecofm.tiles import fetch as room
from ecofm.tiles.fetch import SETS, DataSet, fetch

Said = pytest.CaptureFixture[str]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Path, list[str]]]:
    """Return the address of a server on this machine, its folder, and what was asked of it."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(room, "N_RETRIES", 0)
    asked: list[str] = []
    folder = tmp_path / "site"
    folder.mkdir()

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, directory=str(folder), **options)

        def do_GET(self) -> None:
            asked.append(self.path)
            if self.path == "/cut.zip":  # the connection ends before the file does
                self.send_response(200)
                self.send_header("Content-Length", "1000")
                self.end_headers()
                self.wfile.write(b"PK")
                return
            super().do_GET()

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", folder, asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def publish(
    monkeypatch: pytest.MonkeyPatch, files: dict[str, tuple[str, str | None]], kept: str = ""
) -> None:
    data = DataSet(what="A test", licence="CC0", files=files, kept=kept, then="ecofm tile FOLDER")
    monkeypatch.setitem(SETS, "test", data)


def pack(path: Path, files: dict[str, str]) -> None:
    with zipfile.ZipFile(path, "w") as packed:
        for name, text in files.items():
            packed.writestr(name, text)


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def names(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_a_set_is_downloaded_once_and_unpacked(
    site: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Said
) -> None:
    url, folder, asked = site
    (folder / "a.tif").write_bytes(b"pixels")
    pack(folder / "b.zip", {"top/data/1.png": "1", "top/data/../../../evil": "2", "top/x": "3"})
    md5 = "md5:" + hashlib.md5((folder / "b.zip").read_bytes()).hexdigest()
    files = {"a.tif": (f"{url}/a.tif", sha256(b"pixels")), "b.zip": (f"{url}/b.zip", md5)}
    publish(monkeypatch, files, kept="[^/]+/data/")
    for _ in range(2):
        main(["fetch", "test", "--out", str(tmp_path / "data")])
    out = tmp_path / "data" / "test"
    assert names(out) == ["a.tif", "b.zip", "b/data/1.png", "b/data/evil", "registry.txt"]
    assert sorted(asked) == ["/a.tif", "/b.zip"]
    assert f"Go on with: ecofm tile {out}" in capsys.readouterr().err
    assert not (tmp_path / "evil").exists()


def test_a_file_without_a_checksum_is_pinned_at_its_first_download(
    site: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, folder, asked = site
    publish(monkeypatch, {"a.csv": (f"{url}/a.csv", None)})
    (folder / "a.csv").write_bytes(b"first")
    out = fetch("test", tmp_path / "out")
    assert f"a.csv {sha256(b'first')} {url}/a.csv" in (out / "registry.txt").read_text()
    (folder / "a.csv").write_bytes(b"second")
    fetch("test", out)
    assert (out / "a.csv").read_bytes() == b"first" and len(asked) == 1
    (out / "a.csv").unlink()
    with pytest.raises(EcofmError, match="not the file that was published before"):
        fetch("test", out)
    assert names(out) == ["registry.txt"], "nothing of the other file stays"
    publish(monkeypatch, {"a.csv": (f"{url}/a.csv?v=2", None)})
    fetch("test", out)
    assert (out / "a.csv").read_bytes() == b"second", "of another URL the note says nothing"


def test_another_file_than_the_known_one_is_refused_and_yours_is_not_replaced(
    site: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, folder, asked = site
    (folder / "a.tif").write_bytes(b"other")
    publish(monkeypatch, {"a.tif": (f"{url}/a.tif", sha256(b"pixels"))})
    with pytest.raises(EcofmError, match=f"{sha256(b'other')}, expected {sha256(b'pixels')}"):
        fetch("test", tmp_path / "out")
    assert names(tmp_path / "out") == []
    (tmp_path / "out" / "a.tif").write_bytes(b"mine")
    n_asked = len(asked)
    with pytest.raises(EcofmError, match=r"out/a\.tif has .*; remove it"):
        fetch("test", tmp_path / "out")
    assert (tmp_path / "out" / "a.tif").read_bytes() == b"mine" and len(asked) == n_asked


def test_out_of_reach_is_one_sentence_and_a_file_by_hand_will_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Said
) -> None:
    monkeypatch.setattr(room, "N_RETRIES", 0)
    publish(monkeypatch, {"a.tif": ("http://127.0.0.1:1/a.tif", sha256(b"pixels"))})
    with pytest.raises(SystemExit) as ended:
        main(["fetch", "test", "--out", str(tmp_path)])
    said = capsys.readouterr().err
    assert ended.value.code == 1 and "Traceback" not in said
    assert "http://127.0.0.1:1/a.tif cannot be reached" in said.splitlines()[-1]
    assert f"put the file as a.tif into {tmp_path / 'test'}" in said.splitlines()[-1]
    assert names(tmp_path) == []
    (tmp_path / "test" / "a.tif").write_bytes(b"pixels")
    main(["fetch", "test", "--out", str(tmp_path)])
    assert names(tmp_path / "test") == ["a.tif", "registry.txt"]


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("cut.zip", "cannot be reached"),
        ("page.zip", "answers with no zip file"),
        ("none.zip", "answers 404; connect"),
        ("empty.zip", "holds nothing of what is looked for"),
        ("bent.zip", "is damaged"),
    ],
)
def test_a_zip_that_is_none_is_told_and_never_pinned(
    site: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, reason: str
) -> None:
    url, folder, _ = site
    (folder / "page.zip").write_text("<html>Sign in</html>")
    pack(folder / "empty.zip", {"top/readme": "1"})
    pack(folder / "bent.zip", {"top/data/a": "1" * 1000})
    data = bytearray((folder / "bent.zip").read_bytes())
    data[200] ^= 1
    (folder / "bent.zip").write_bytes(data)
    publish(monkeypatch, {file: (f"{url}/{file}", None)}, kept="[^/]+/data/")
    with pytest.raises(EcofmError, match=reason):
        fetch("test", tmp_path / "out")
    assert set(names(tmp_path / "out")) <= {file}
    assert not [path for path in (tmp_path / "out").iterdir() if path.is_dir()]


def test_a_killed_download_leaves_nothing_that_counts(
    site: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, folder, _ = site
    (folder / "a.tif").write_bytes(b"pixels")
    publish(monkeypatch, {"a.tif": (f"{url}/a.tif", None)})
    (tmp_path / "out" / ".partial").mkdir(parents=True)
    (tmp_path / "out" / ".partial" / "a.tif").write_bytes(b"pix")
    fetch("test", tmp_path / "out")
    assert (tmp_path / "out" / "a.tif").read_bytes() == b"pixels"


def test_a_registry_of_nonsense_and_an_unknown_name_are_refused(
    site: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(monkeypatch, {"a.tif": (f"{site[0]}/a.tif", None)})
    (tmp_path / "registry.txt").write_text("a.tif\n")
    with pytest.raises(EcofmError, match=r"registry\.txt: expected lines `name checksum url`"):
        fetch("test", tmp_path)
    with pytest.raises(ValueError, match="'none' is no data set; there are north-korea, oscd"):
        fetch("none", tmp_path)


def test_without_a_name_the_sets_are_listed(capsys: Said) -> None:
    main(["fetch"])
    shown = capsys.readouterr().out
    assert all(f"{name}: " in shown for name in SETS) and shown.count("Licence: ") == len(SETS)


def test_every_url_names_what_it_is_a_commit_of_or_has_a_checksum() -> None:
    for data in SETS.values():
        re.compile(data.kept)
        for url, checksum in data.files.values():
            assert url.startswith("https://") and data.then.startswith("ecofm tile FOLDER")
            assert re.search("/[0-9a-f]{40}(/|$)", url) or checksum
            assert checksum is None or re.fullmatch(
                "sha256:[0-9a-f]{64}|md5:[0-9a-f]{32}", checksum
            )
