"""The web app: who is let in, that votes count once, and that nothing acknowledged is lost."""

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

fastapi = pytest.importorskip("fastapi", reason="the app extra is not installed")
pytest.importorskip("httpx", reason="the dev extra is not installed")

from ecofm.compare.api import PAGE  # noqa: E402
from ecofm.compare.app import ServeConfig, listen, serve  # noqa: E402
from ecofm.compare.guard import MAX_BODY_BYTES, is_allowed_host  # noqa: E402
from ecofm.compare.store import Store  # noqa: E402
from ecofm.errors import ArtifactError, ComparisonError, MissingExtraError  # noqa: E402
from tests.unit.compare.client import (  # noqa: E402
    HOST,
    HOSTILE,
    PNG,
    FakeItems,
    connect,
    enter,
    make_vote,
)


def name(number):
    return FakeItems().items[number]


def test_a_session_answers_votes_and_takes_the_last_one_back(client, store):
    headers = enter(client, " ada ")
    for n_done, outcome in enumerate(("left", "right", "tie", "skip"), start=1):
        vote = make_vote(client, headers, outcome)
        answer = client.post("/api/vote", json=vote, headers=headers)
        assert answer.json() == {"n_done": n_done, "goal": 7, "seconds_left": None}
    names = name(vote["left"]), name(vote["right"])
    assert store.comparisons()[-1] == ("ada", *names, "skip")
    record = store.records()[-1]
    assert record[5:8] == (names[0], vote["asked"], 1200) and record[10] == "web"
    for _ in range(2):
        undone = client.post("/api/undo", json={"id": vote["id"]}, headers=headers)
        assert undone.json()["n_done"] == 3
    assert client.get("/api/progress", headers=headers).json()["n_done"] == 3


def test_a_retried_vote_counts_once_and_a_changed_one_is_refused(client, store):
    headers = enter(client)
    vote = make_vote(client, headers)
    answers = [client.post("/api/vote", json=vote, headers=headers) for _ in range(3)]
    assert [answer.json()["n_done"] for answer in answers] == [1] * 3
    changed = client.post("/api/vote", json={**vote, "outcome": "tie"}, headers=headers)
    assert changed.status_code == 422 and "another answer" in changed.json()["detail"]
    assert len(store.comparisons()) == 1


def test_nobody_takes_back_the_vote_of_another(client, store):
    ada, bo = enter(client, "ada"), enter(client, "bo")
    vote = make_vote(client, ada)
    client.post("/api/vote", json=vote, headers=ada)
    assert client.post("/api/undo", json={"id": vote["id"]}, headers=bo).json()["n_done"] == 0
    assert len(store.comparisons()) == 1


@pytest.mark.parametrize(
    "path",
    ["/api/pair", "/api/next", "/api/progress", "/api/votes", "/api/tiers", "/api/instructions",
     "/api/sheet/1", "/image/0"],
)  # fmt: skip
def test_reading_needs_a_token(client, path):
    assert client.get(path).status_code == 422
    assert client.get(path, headers={"X-Ecofm-Token": "wrong"}).status_code == 401


def test_voting_needs_a_token(client, store):
    headers = enter(client)
    vote = make_vote(client, headers)
    assert client.post("/api/vote", json=vote).status_code == 422
    for token in ("", "wrong", headers["X-Ecofm-Token"][:-1]):
        answer = client.post("/api/vote", json=vote, headers={"X-Ecofm-Token": token})
        assert answer.status_code == 401
        undone = client.post("/api/undo", json={"id": vote["id"]}, headers={"X-Ecofm-Token": token})
        assert undone.status_code == 401
    assert store.comparisons() == []


@pytest.mark.parametrize("path", ["/", "/api/pair", "/image/0"])
@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "", "127.0.0.1.evil.example"]
)
def test_strange_hosts_are_refused(client, path, host):
    assert client.get(path, headers={"Host": host}).status_code == 421


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "null", "", f"http://{HOST}.evil.example", "http://127.0.0.1:9000",
     "http://localhost:8000"],
)  # fmt: skip
def test_foreign_origins_are_refused(client, store, origin):
    headers = enter(client)
    vote = make_vote(client, headers)
    for path, body in (("/api/vote", vote), ("/api/session", {"annotator": "eve"})):
        answer = client.post(path, json=body, headers={**headers, "Origin": origin})
        assert answer.status_code == 403
    assert store.comparisons() == []


def test_a_missing_origin_is_refused(store, tmp_path):
    client = connect(store, tmp_path)
    del client.headers["Origin"]
    assert client.post("/api/session", json={"annotator": "eve"}).status_code == 403
    assert client.get("/").status_code == 200


def test_forms_of_other_sites_are_refused_by_type(client):
    answer = client.post("/api/session", content=b'{"annotator": "eve"}')
    assert answer.status_code == 415
    answer = client.post("/api/session", data={"annotator": "eve"})
    assert answer.status_code == 415


def test_large_bodies_are_refused(client):
    answer = client.post("/api/session", json={"annotator": "x" * MAX_BODY_BYTES})
    assert answer.status_code == 413


@pytest.mark.parametrize(
    "change",
    [{"left": 99}, {"left": 3, "right": 3}, {"left": -1}, {"outcome": "best"}, {"left": "3"},
     {"outcome": None}, {"response_ms": -1}, {"response_ms": 1.5}, {"response_ms": "1"},
     {"response_ms": 2**63}, {"id": "short"}, {"id": "x" * 65}, {"id": "a" * 20 + "\n"},
     {"left": "../../etc/passwd"}, {"left": [1]}, {"annotator": "bo"}, {"asked": "never"},
     {"edition": "0" * 16}, {"edition": "x"}],
)  # fmt: skip
def test_malformed_votes_are_refused(client, store, change):
    headers = enter(client)
    vote = {**make_vote(client, headers), **change}
    answer = client.post("/api/vote", json=vote, headers=headers)
    assert answer.status_code in (409, 422), answer.text
    assert store.comparisons() == []


def test_broken_json_is_refused(client):
    headers = {"Content-Type": "application/json"}
    for content in (
        b"",
        b"{",
        b"[]",
        b"\xff",
        b'{"annotator": "\\ud800"}',
        b'{"\\ud800": 1}',
        b"[" * 4000,
    ):
        answer = client.post("/api/session", content=content, headers=headers)
        assert answer.status_code in (400, 422), (content, answer.text)


@pytest.mark.parametrize("name", ["", " ", "x" * 201, "a\nb", "\u0000", 3, None])
def test_unusable_names_are_refused(client, name):
    assert client.post("/api/session", json={"annotator": name}).status_code == 422


def test_pictures_are_found_by_number_only(client):
    client.headers.update(enter(client))
    assert client.get("/image/0").headers["content-type"] == "image/png"
    assert client.get("/image/1?style=false").headers["content-type"] == "image/jpeg"
    assert client.get("/image/0").content == PNG
    assert client.get("/image/12").status_code == 404
    assert client.get("/image/1?style=x").status_code == 422
    for path in ("/image/-1", "/image/a.png", "/image/99999999999999", "/image/%2e%2e%2fapp.js"):
        assert client.get(path).status_code in (404, 422)
    for path in ("/..%2fapi.py", "/assets/../api.py", "/api.py", "/style.css/../../api.py"):
        assert client.get(path).status_code == 404
    damaged = client.get("/image/3")
    assert damaged.status_code == 500 and damaged.json() == {"detail": "tile 3 is damaged"}


@pytest.mark.parametrize("path", ["/", "/app.js", "/style.css", "/icon.svg", "/image/0", "/none"])
def test_every_answer_has_security_headers(client, path):
    headers = client.get(path).headers
    assert headers["content-security-policy"].startswith("default-src 'self';")
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"
    assert "server" not in headers or "uvicorn" not in headers["server"]


def test_the_page_needs_nothing_from_elsewhere(client):
    paths = ["/" if name == "index.html" else f"/{name}" for name in PAGE if name != "icon.svg"]
    page = "".join(client.get(path).text for path in paths)
    assert len(page) > 20_000
    assert set(re.findall(r"https?://[^\s\"')]+", page)) == set()
    assert "innerHTML" not in page and "eval(" not in page and " style=" not in page
    assert client.get("/").headers["content-type"].startswith("text/html")


def test_hostile_item_names_are_plain_data(client):
    headers = enter(client, "<script>alert(1)</script>")
    vote = {**make_vote(client, headers), "left": 11, "right": 0}
    answer = client.post("/api/vote", json=vote, headers=headers)
    own = client.get("/api/votes", headers=headers).json()["votes"][0]
    assert own["left"]["label"] == HOSTILE
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"


def test_several_annotators_at_once(client, store):
    def answer_twenty(annotator):
        headers = enter(client, annotator)
        for _ in range(20):
            vote = make_vote(client, headers)
            for _ in range(2):
                assert client.post("/api/vote", json=vote, headers=headers).status_code == 200
        return client.get("/api/progress", headers=headers).json()["n_done"]

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(answer_twenty, "abcdef")) == [20] * 6
    assert len(store.comparisons()) == 120


def test_a_restart_keeps_sessions_votes_and_ids(client, store, tmp_path):
    headers = enter(client)
    vote = make_vote(client, headers)
    client.post("/api/vote", json=vote, headers=headers)
    with Store(store.path) as again:
        restarted = connect(again, tmp_path)
        retried = restarted.post("/api/vote", json=vote, headers=headers)
        assert retried.json()["n_done"] == 1
        asked = make_vote(restarted, headers)
        assert {asked["left"], asked["right"]} != {vote["left"], vote["right"]}


def test_hosts_by_where_the_server_listens():
    assert is_allowed_host("localhost:9000", "127.0.0.1", ())
    assert is_allowed_host("[::1]:8000", "::1", ()) and is_allowed_host("[::1]", "127.0.0.1", ())
    assert is_allowed_host("10.0.0.5:8000", "10.0.0.5", ())
    assert is_allowed_host("10.0.0.5:8000", "0.0.0.0", ())
    assert is_allowed_host("Lab.example", "0.0.0.0", ("lab.example",))
    assert not is_allowed_host("lab.example", "0.0.0.0", ())
    assert not is_allowed_host("10.0.0.5:8000", "127.0.0.1", ())
    assert not is_allowed_host("", "0.0.0.0", ())


def test_wrong_config_is_refused(tmp_path):
    clusters = {"clusters": tmp_path}
    for wrong in ({}, {**clusters, "members": tmp_path}, {**clusters, "port": 70000},
                  {**clusters, "goal": 0}, {"members": tmp_path}):  # fmt: skip
        with pytest.raises(ValueError, match=r"give|expected"):
            ServeConfig(store=tmp_path / "votes", **wrong)


def test_a_folder_that_is_no_artifact_is_refused_before_a_store_is_made(tmp_path):
    for config in ({"clusters": tmp_path}, {"archive": (tmp_path,)}):
        with pytest.raises(ArtifactError, match=r"manifest\.json"):
            serve(ServeConfig(store=tmp_path / "votes", **config))
    assert list(tmp_path.iterdir()) == []


def test_a_taken_port_is_told(tmp_path):
    with listen("127.0.0.1", 0) as taken:
        taken.listen()
        with pytest.raises(ComparisonError, match="give another --port"):
            listen("127.0.0.1", taken.getsockname()[1])


@pytest.mark.parametrize("module", ["fastapi", "uvicorn"])
def test_a_missing_extra_is_answered_in_one_sentence(tmp_path, monkeypatch, module):
    monkeypatch.delitem(sys.modules, "ecofm.compare.api", raising=False)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=r"install it with `pip install 'ecofm\[app\]'`"):
        serve(ServeConfig(store=tmp_path / "votes", clusters=tmp_path))


def test_importing_the_package_loads_neither_fastapi_nor_pandas():
    code = "import sys, ecofm.compare; assert not {'fastapi', 'pandas', 'scipy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
