"""The web app for annotators: own votes, tiers, instructions, invitations, and languages."""

import json
import re
import uuid

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the app extra is not installed")
pytest.importorskip("httpx", reason="the dev extra is not installed")

from ecofm.compare.api import PAGE, TEXTS
from ecofm.compare.invitations import invite
from ecofm.errors import ComparisonError
from tests.unit.compare.client import FakeItems, connect, enter, make_vote

PLACES = re.compile(r"\{\w+\}")


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
    for wrong in ([[1, 1]], [[1], [1]], [[1]], [[], [1]], [[99, 1]], [["1"], [2]], [[-1, 2]]):
        answer = client.post("/api/tiers", json={**body, "tiers": wrong}, headers=headers)
        assert answer.status_code in (409, 422)


def test_no_tiers_take_back_those_before(client, store):
    headers = enter(client)
    edition = client.get("/api/tiers", headers=headers).json()["edition"]
    for tiers, n in (([[3], [1]], 1), ([], 0), ([], 0), ([[], []], 0), ([[2], [4]], 1)):
        body = {"id": uuid.uuid4().hex, "edition": edition, "tiers": tiers}
        assert client.post("/api/tiers", json=body, headers=headers).json() == {"n_comparisons": n}
        assert len(store.comparisons()) == n


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
