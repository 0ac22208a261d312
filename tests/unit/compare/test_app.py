"""The web app: who is let in, that votes count once, and that nothing acknowledged is lost.

Longer than 400 lines: every test drives the same app by the same few helpers.
"""

import json
import re
import subprocess
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

fastapi = pytest.importorskip("fastapi", reason="the app extra is not installed")
pytest.importorskip("httpx", reason="the dev extra is not installed")

from fastapi.testclient import TestClient  # noqa: E402

from ecofm.compare.api import PAGE, TEXTS, build_app  # noqa: E402
from ecofm.compare.app import ServeConfig, listen, serve  # noqa: E402
from ecofm.compare.guard import MAX_BODY_BYTES, is_allowed_host  # noqa: E402
from ecofm.compare.invitations import invite  # noqa: E402
from ecofm.compare.items import Place  # noqa: E402
from ecofm.compare.picking import PickConfig  # noqa: E402
from ecofm.compare.store import Store  # noqa: E402
from ecofm.errors import ArtifactError, ComparisonError, EcofmError, MissingExtraError  # noqa: E402

HOST = "127.0.0.1:8000"
PNG = b"\x89PNG fake"
PLACES = re.compile(r"\{\w+\}")
HOSTILE = "<img src=x onerror=alert(1)>"


class FakeItems:
    """Twelve items of one picture each; picture 3 is damaged."""

    def __init__(self, are_clusters=True):
        self.items = [str(number) for number in range(11)] + [HOSTILE]
        self.sizes = np.ones(12)
        self.styles = ["true", "false"]
        self.can_shuffle = True
        self.are_clusters = are_clusters

    def members(self, item, draw=0):
        return [(item + draw) % 12]

    def image(self, number, style="true"):
        if number == 3:
            raise EcofmError("tile 3 is damaged")
        media_type = "image/png" if style == "true" else "image/jpeg"
        return ([PNG] * 12)[number], media_type

    def place(self, item):
        return None if self.are_clusters else Place(127.5, 38.7, "2019")


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "votes") as opened:
        yield opened


@pytest.fixture
def client(store, tmp_path):
    return connect(store, tmp_path)


def connect(store, tmp_path, source=None, **changes):
    config = ServeConfig(
        store=store.path, clusters=tmp_path, goal=7, pick=PickConfig(seed=0), **changes
    )
    return TestClient(
        build_app(source or FakeItems(), store, config),
        base_url=f"http://{HOST}",
        headers={"Origin": f"http://{HOST}"},
    )


def enter(client, annotator="ada"):
    answer = client.post("/api/session", json={"annotator": annotator})
    assert answer.status_code == 200, answer.text
    return {"X-Ecofm-Token": answer.json()["token"]}


def make_vote(client, headers, outcome="left"):
    pair = client.get("/api/pair", headers=headers).json()
    return {
        "id": uuid.uuid4().hex, "edition": pair["edition"], "left": pair["left"]["item"],
        "right": pair["right"]["item"], "outcome": outcome, "asked": pair["asked"],
        "response_ms": 1200,
    }  # fmt: skip


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


def test_own_votes_are_seen_and_deleted_for_good(client, store):
    ada, bo = enter(client, "ada"), enter(client, "bo")
    votes = [make_vote(client, ada)]
    client.post("/api/vote", json=votes[0], headers=ada)
    votes.append(make_vote(client, ada, "tie"))
    client.post("/api/vote", json=votes[1], headers=ada)
    client.post("/api/vote", json=make_vote(client, bo), headers=bo)
    seen = client.get("/api/votes", headers=ada).json()
    assert [vote["id"] for vote in seen["votes"]] == [votes[1]["id"], votes[0]["id"]]
    assert seen["votes"][0]["outcome"] == "tie" and seen["n_done"] == 2
    assert client.get("/api/votes?skip=1", headers=ada).json()["votes"] == seen["votes"][1:]
    assert client.post("/api/forget", json={"sure": False}, headers=ada).status_code == 422
    assert client.post("/api/forget", json={"sure": True}, headers=ada).json() == {"n_deleted": 2}
    assert client.get("/api/votes", headers=ada).json() == {"n_done": 0, "votes": []}
    assert [row.annotator for row in store.comparisons()] == ["bo"]
    # A late retry of a deleted vote adds nothing.
    assert client.post("/api/vote", json=votes[0], headers=ada).json()["n_done"] == 0


def test_tiers_become_an_ordering_that_replaces_the_one_before(client, store):
    headers = enter(client)
    found = client.get("/api/tiers", headers=headers).json()
    assert len(found["items"]) == 12 and found["tiers"] == []
    body = {"id": uuid.uuid4().hex, "edition": found["edition"], "tiers": [[3], [1, 0], [5]]}
    for _ in range(2):
        assert client.post("/api/tiers", json=body, headers=headers).json() == {"n_comparisons": 6}
    rows = {row[1:] for row in store.comparisons()}
    assert rows == {("3", "1", "left"), ("3", "0", "left"), ("3", "5", "left"), ("1", "0", "tie"),
                    ("1", "5", "left"), ("0", "5", "left")}  # fmt: skip
    tiers = client.get("/api/tiers", headers=headers).json()["tiers"]
    assert [sorted(tier) for tier in tiers] == [[3], [0, 1], [5]]
    again = {**body, "id": uuid.uuid4().hex, "tiers": [[5], [3]]}
    assert client.post("/api/tiers", json=again, headers=headers).json() == {"n_comparisons": 1}
    assert store.comparisons() == [("ada", "5", "3", "left")]
    assert client.get("/api/progress", headers=headers).json()["n_done"] == 0
    for wrong in ([[1, 1]], [[1], [1]], [[1]], [], [[99, 1]], [["1"], [2]], [[-1, 2]]):
        answer = client.post("/api/tiers", json={**body, "tiers": wrong}, headers=headers)
        assert answer.status_code in (409, 422)


def test_many_items_cannot_be_put_into_tiers(store, tmp_path):
    many = FakeItems()
    many.items = [str(n) for n in range(61)]
    many.sizes = np.ones(61)
    client = connect(store, tmp_path, many)
    assert client.get("/api/tiers", headers=enter(client)).status_code == 409


def test_place_and_names_of_tiles_are_shown_only_if_the_owner_allows(store, tmp_path):
    for show, place in ((False, None), (True, "38.7, 127.5 · 2019")):
        client = connect(store, tmp_path, FakeItems(are_clusters=False), show_place=show)
        side = client.get("/api/sheet/4?draw=2", headers=enter(client)).json()
        assert side == {"item": 4, "images": [6], "label": None, "place": place}
    assert client.get("/api/sheet/12", headers=enter(client)).status_code == 404


def test_the_time_that_is_left_follows_the_median(client):
    headers = enter(client)
    for number in range(5):
        vote = {**make_vote(client, headers), "response_ms": 10**9 if number == 2 else 4000}
        left = client.post("/api/vote", json=vote, headers=headers).json()["seconds_left"]
    assert left == 8


def test_instructions_are_the_owners_text_with_examples(store, tmp_path):
    path = tmp_path / "guide.txt"
    path.write_text("# Look\nfirst line\nsecond line\n\n- <b>point</b>\n03 > 5: roads\n")
    client = connect(store, tmp_path, instructions=path)
    pieces = client.get("/api/instructions", headers=enter(client)).json()
    assert [(piece["kind"], piece["text"]) for piece in pieces] == [
        ("heading", "Look"), ("text", "first line second line"), ("point", "<b>point</b>"),
        ("example", "roads"),
    ]  # fmt: skip
    assert (pieces[3]["better"]["item"], pieces[3]["worse"]["item"]) == (3, 5)
    for text, words in (("99 > 1: x", "line 1: item '99' is not compared"), (" ", "expected instr"),
                        ("x" * 70_000, "70000 bytes")):  # fmt: skip
        path.write_text(text)
        with pytest.raises(ComparisonError, match=words):
            connect(store, tmp_path, instructions=path)
    with pytest.raises(ComparisonError, match="cannot be read"):
        connect(store, tmp_path, instructions=tmp_path / "none")


def test_a_server_that_others_reach_asks_for_a_password_or_invitations(store, tmp_path):
    for public in ({"host": "0.0.0.0"}, {"names": ("lab.example",)}):
        with pytest.raises(ComparisonError, match="ecofm compare invite NAME"):
            connect(store, tmp_path, **public)
    ((_, link),) = invite(["ada"], store.path, "https://lab.example/x")
    address, secret = link.split("#invite=")
    assert address == "https://lab.example/"
    assert secret.encode() not in store.path.read_bytes()
    client = connect(store, tmp_path, host="0.0.0.0")
    assert client.get("/api/setup").json()["access"] == "invite"
    assert client.post("/api/session", json={"annotator": "ada"}).status_code == 403
    assert client.post("/api/session", json={"invite": "x" * 32}).status_code == 403
    session = client.post("/api/session", json={"invite": secret, "annotator": "eve"}).json()
    assert session["annotator"] == "ada"
    headers = {"X-Ecofm-Token": session["token"]}
    assert client.get("/api/pair", headers=headers).status_code == 200
    assert invite(["ada"], store.path, "http://x", revoke=True) == [("ada", "1 revoked")]
    assert client.get("/api/pair", headers=headers).status_code == 401
    assert client.post("/api/session", json={"invite": secret}).status_code == 403
    with pytest.raises(ComparisonError, match="is no address"):
        invite(["ada"], store.path, "lab.example")


def test_a_password_is_asked_for_and_guessing_is_slowed(store, tmp_path):
    path = tmp_path / "password"
    path.write_text("short\n")
    with pytest.raises(ComparisonError, match="has 5 characters, expected at least 8"):
        connect(store, tmp_path, password_file=path)
    path.write_text("correct horse\nsecond line\n")
    client = connect(store, tmp_path, host="0.0.0.0", password_file=path)
    assert client.get("/api/setup").json()["access"] == "password"
    good = {"annotator": "ada", "password": "correct horse"}
    assert client.post("/api/session", json=good).status_code == 200
    for body in ({"annotator": "ada"}, {**good, "password": ""}, *[{**good, "password": "é"}] * 8):
        assert client.post("/api/session", json=body).status_code == 403
    assert client.post("/api/session", json=good).status_code == 429


def test_every_language_has_the_same_texts_and_places_in_them():
    texts = {code: json.loads(text) for code, text in TEXTS.items()}
    assert {"en", "ko"} <= set(texts)
    for code, words in texts.items():
        assert words.keys() == texts["en"].keys(), code
        for key, text in words.items():
            assert sorted(PLACES.findall(text)) == sorted(PLACES.findall(texts["en"][key]))
            assert text.strip(), (code, key)


def test_every_text_that_the_page_asks_for_exists(client):
    page = "".join(client.get(f"/{name}").text for name in PAGE if name.endswith((".js", ".html")))
    page += client.get("/").text
    asked = set(re.findall(r"\bt\(\"(\w+)\"", page))
    asked |= set(re.findall(r"data-(?:text|label)=\"(\w+)\"", page))
    assert len(asked) > 50 and asked <= json.loads(TEXTS["en"]).keys()
    assert client.get("/texts/ko.json").json()["language"] == "한국어"
    assert client.get("/texts/xx.json").status_code == 404
