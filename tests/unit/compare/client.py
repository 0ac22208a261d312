"""The web app on made-up items and a client that enters and votes, for tests."""

import uuid

import numpy as np
from fastapi.testclient import TestClient

from ecofm.compare.api import build_app
from ecofm.compare.app import ServeConfig
from ecofm.compare.items import Place
from ecofm.compare.picking import PickConfig
from ecofm.errors import EcofmError

HOST = "127.0.0.1:8000"
PNG = b"\x89PNG fake"
HOSTILE = "<img src=x onerror=alert(1)>"


class FakeItems:
    """Twelve items of one picture each; picture 3 is damaged."""

    def __init__(self, are_clusters=True):
        self.items = [str(number) for number in range(11)] + [HOSTILE]
        self.sizes = np.ones(12)
        self.styles = ["true", "false"]
        self.bands_shown: list[str] = []
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
