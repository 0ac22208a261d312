"""Names belong to who claims them: by password or invitation, in any spelling."""

from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("fastapi", reason="the app extra is not installed")
pytest.importorskip("httpx", reason="the dev extra is not installed")

from ecofm.cli import main
from ecofm.compare.access import Budget
from ecofm.compare.comparison import Comparison
from ecofm.compare.invitations import invite
from ecofm.compare.people import TakenError, fold_name
from ecofm.compare.store import Store, Vote
from tests.unit.compare.client import connect, enter, make_vote

PASSWORD = "correct horse"
ADA = {"annotator": "ada", "password": PASSWORD}


@pytest.fixture
def browse(store, tmp_path):
    """Return a maker of browsers, which keep cookies, on one server with a password."""
    path = tmp_path / "password"
    path.write_text(PASSWORD)
    app = connect(store, tmp_path, password_file=path).app

    def open_browser(app=app):
        client = connect(store, tmp_path, password_file=path)
        client.app = client._transport.app = app
        return client

    return open_browser


def let_in(client, **body):
    answer = client.post("/api/session", json=body)
    assert answer.status_code == 200, answer.text
    return {"X-Ecofm-Token": answer.json()["token"]}


def vote(client, headers):
    body = make_vote(client, headers)
    assert client.post("/api/vote", json=body, headers=headers).status_code == 200
    return body


def see(client, headers):
    return [vote["id"] for vote in client.get("/api/votes", headers=headers).json()["votes"]]


@pytest.mark.parametrize(
    "name",
    ["ada", "Ada", " ADA ", "a\u200bda", "ad\u00ada", "ada\u3164", "\uff41da", "a d a",
     "ad\u2060a", "ada\ufe0f", "a\u00a0da", "\u2068ada\u2069", "\U0001d41a\U0001d41d\U0001d41a"],
)  # fmt: skip
def test_a_claimed_name_is_closed_to_other_browsers_in_every_spelling(browse, store, name):
    ada, eve = browse(), browse()
    vote(ada, let_in(ada, **ADA))
    answer = eve.post("/api/session", json={"annotator": name, "password": PASSWORD})
    assert answer.status_code == 403 and "belongs to somebody" in answer.json()["detail"]
    # The browser that claimed it comes back, however it spells the name.
    again = ada.post("/api/session", json={"annotator": name, "password": PASSWORD}).json()
    assert again["annotator"] == "ada"
    assert len(see(ada, {"X-Ecofm-Token": again["token"]})) == 1


def test_nobody_but_who_voted_sees_deletes_or_takes_back(browse, store):
    ada, eve = browse(), browse()
    headers, other = let_in(ada, **ADA), let_in(eve, annotator="eve", password=PASSWORD)
    said = vote(ada, headers)
    assert see(eve, other) == []
    eve.post("/api/undo", json={"id": said["id"]}, headers=other)
    assert eve.post("/api/forget", json={"sure": True}, headers=other).json() == {"n_deleted": 0}
    assert see(ada, headers) == [said["id"]]


def test_without_a_password_a_name_is_shared_and_votes_are_not(store, tmp_path):
    one, other = connect(store, tmp_path), connect(store, tmp_path)
    first, second = enter(one), enter(other)
    said = vote(one, first)
    assert other.post("/api/undo", json={"id": said["id"]}, headers=second).status_code == 200
    assert other.post("/api/forget", json={"sure": True}, headers=second).json()["n_deleted"] == 0
    assert see(other, second) == [] and see(one, enter(one)) == [said["id"]]


@pytest.mark.parametrize("name", ["ada", "ADA", "a\u200bda"])
def test_an_invited_name_refuses_the_password(browse, store, name):
    ((_, link),) = invite(["ada"], store.path, "http://lab")
    ada = browse()
    answer = ada.post("/api/session", json={"annotator": name, "password": PASSWORD})
    assert answer.status_code == 403 and "open the link" in answer.json()["detail"]
    headers = let_in(ada, invite=link.split("=")[1])
    said = vote(ada, headers)
    # From then on this browser is known, and no other.
    assert see(ada, let_in(ada, **ADA)) == [said["id"]]
    assert browse().post("/api/session", json=ADA).status_code == 403


def test_a_personal_link_opens_another_browser_and_replaces_the_one_before(browse, store):
    ada, phone = browse(), browse()
    headers = let_in(ada, **ADA)
    said = vote(ada, headers)
    links = [ada.post("/api/link", json={"sure": True}, headers=headers).json() for _ in range(2)]
    assert phone.post("/api/session", json=links[0]).status_code == 403
    on_phone = let_in(phone, **links[1])
    assert see(phone, on_phone) == [said["id"]]
    assert links[1]["invite"].encode() not in store.path.read_bytes()
    assert ada.post("/api/link", json={"sure": True}).status_code == 422  # no token


def test_a_lost_answer_to_the_claim_locks_nobody_out(browse):
    ada = browse()
    ada.get("/api/setup")
    cookie = ada.cookies["ecofm"]
    ada.post("/api/session", json=ADA)  # the answer is lost with its token
    assert ada.cookies["ecofm"] == cookie
    let_in(ada, **ADA)


def test_the_browsers_secret_is_out_of_reach(browse):
    answer = browse().get("/api/setup")
    told = answer.headers["set-cookie"]
    assert "HttpOnly" in told and "SameSite=strict" in told and "Path=/" in told
    assert "set-cookie" not in browse().get("/").headers  # a link from elsewhere would replace it
    secret = told.split("=")[1].split(";")[0]
    assert secret not in answer.text and len(secret) == 43


@pytest.mark.parametrize(
    "forged", ["", "x", "x" * 43 + "y", "~" * 43, "'; DROP TABLE vote", "a" * 43]
)
def test_a_forged_cookie_opens_nothing(browse, forged):
    ada, eve = browse(), browse()
    let_in(ada, **ADA)
    eve.headers["Cookie"] = f"ecofm={forged}"
    assert eve.post("/api/session", json=ADA).status_code == 403


def test_of_two_browsers_that_claim_a_name_at_once_one_gets_it(tmp_path):
    with Store(tmp_path / "a") as one, Store(tmp_path / "a") as other:

        def claim(number):
            try:
                (one, other)[number % 2].people.enter(
                    f"name {number // 8}", f"{number}", claim=True
                )
            except TakenError:
                return 0
            return 1

        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(claim, range(64))) == 8


def test_a_revoked_name_stays_closed_until_it_is_invited_again(browse, store):
    ada = browse()
    headers = let_in(ada, **ADA)
    said = vote(ada, headers)
    invite(["Ada"], store.path, "http://lab", revoke=True)
    assert ada.get("/api/pair", headers=headers).status_code == 401
    assert ada.post("/api/session", json=ADA).status_code == 403
    ((name, link),) = invite(["ADA"], store.path, "http://lab")
    assert name == "ada"
    assert see(browse(), let_in(browse(), invite=link.split("=")[1])) == [said["id"]]


def test_answers_of_before_belong_to_who_is_invited_not_to_who_claims_first(browse, store):
    store.add(Vote(id="a" * 32, comparison=Comparison("ada", "1", "2", "left"), response_ms=1))
    eve = browse()
    headers = let_in(eve, **ADA)
    assert see(eve, headers) == []
    assert eve.post("/api/forget", json={"sure": True}, headers=headers).json()["n_deleted"] == 0
    assert eve.get("/api/progress", headers=headers).json()["n_done"] == 1
    own = eve.post("/api/link", json={"sure": True}, headers=headers).json()
    assert see(eve, let_in(eve, **own)) == []  # a link of one's own vouches for nothing
    ((_, link),) = invite(["ada"], store.path, "http://lab")
    ada = browse()
    assert see(ada, let_in(ada, invite=link.split("=")[1])) == ["a" * 32]


def test_on_ones_own_machine_answers_of_before_are_ones_own(store, tmp_path):
    store.add(Vote(id="a" * 32, comparison=Comparison("ada", "1", "2", "left"), response_ms=1))
    client = connect(store, tmp_path)
    assert see(client, enter(client)) == ["a" * 32]


def test_names_are_listed_with_what_is_known_of_them(browse, store, capsys):
    vote(browse(), let_in(browse(), **ADA))
    invite(["bo"], store.path, "http://lab")
    store.add_tables([("comparison", [Comparison("cy", "1", "2", "tie")])])
    main(["compare", "names", "--store", str(store.path)])
    assert capsys.readouterr().out.splitlines() == [
        "annotator\tanswers\tclaimed\tlinks", "ada\t1\tyes\t0", "bo\t0\tno\t1", "cy\t1\tno\t0",
    ]  # fmt: skip


def test_names_that_people_tell_apart_differ():
    names = ["ada", "adam", "에이다", "에이더", "Ада", "a-da", "1", "01", "ad\u00e9", "ade"]
    assert len({fold_name(name) for name in names}) == len(names)
    assert fold_name("ad\u00e9") == fold_name("AD\u0045\u0301")
    assert fold_name("straße") == fold_name("STRASSE")


def test_a_name_that_shows_nothing_is_refused(browse):
    for name in ("\u3164", "\u2800", "\ufe0f\u034f"):
        answer = browse().post("/api/session", json={"annotator": name, "password": PASSWORD})
        assert answer.status_code == 422, name


def test_waits_for_wrong_passwords_grow_and_are_forgotten():
    budget = Budget(3)
    now = 0.0
    waits = []
    for _ in range(6):
        for _ in range(3):
            assert budget.wait(now) == 0
            budget.spend(now)
        waits.append(budget.wait(now))
        now += waits[-1]
    assert waits == [60, 120, 240, 480, 900, 900]
    now += 3601
    for _ in range(3):
        budget.spend(now)
    assert budget.wait(now) == 60
    slow = Budget(3)
    for n in range(20):
        slow.spend(31.0 * n)
        assert slow.wait(31.0 * n) == 0
