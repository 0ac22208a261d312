"""The API under schemathesis: every request that its own OpenAPI allows, and many that it forbids.

No request may end in a server fault, and every answer must be one that the schema announces.
"""

from itertools import count

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the app extra is not installed")
schemathesis = pytest.importorskip("schemathesis", reason="the dev extra is not installed")

from hypothesis import HealthCheck, given, settings  # noqa: E402
from schemathesis import GenerationMode  # noqa: E402
from schemathesis.checks import not_a_server_error  # noqa: E402
from schemathesis.specs.openapi.checks import (  # noqa: E402
    response_schema_conformance,
    status_code_conformance,
)

from ecofm.compare.api import build_app  # noqa: E402
from ecofm.compare.app import ServeConfig  # noqa: E402
from ecofm.compare.people import Person  # noqa: E402
from ecofm.compare.picking import PickConfig  # noqa: E402
from ecofm.compare.store import Store  # noqa: E402

CHECKS = [not_a_server_error, status_code_conformance, response_schema_conformance]
HOST = "127.0.0.1:8000"


class Items:
    """Six clusters of one picture each."""

    def __init__(self):
        self.items = [str(number) for number in range(6)]
        self.sizes = np.ones(6)
        self.styles = ["true", "false"]
        self.bands_shown: list[str] = []
        self.can_shuffle = True
        self.are_clusters = True

    def members(self, item, draw=0):
        return [(item + draw) % 6]

    def image(self, number, style="true"):
        return ([b"\xff\xd8\xff"] * 6)[number], "image/jpeg"

    def place(self, item):
        return None


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    with Store(folder / "votes") as store:
        config = ServeConfig(store=store.path, clusters=folder, pick=PickConfig(seed=0))
        yield build_app(Items(), store, config), store


@pytest.fixture(scope="module")
def api(app):
    guard, _ = app
    return schemathesis.openapi.from_asgi("/openapi.json", guard, headers={"Host": HOST})


def test_no_request_is_a_server_fault_and_every_answer_is_announced(app, api):
    _, store = app
    token = store.people.start_session(Person("fuzz", "owner"))
    statuses: set[tuple[str, int]] = set()
    turns = count()
    operations = [result.ok() for result in api.get_all_operations()]
    for operation in operations:

        @settings(max_examples=25, derandomize=True, database=None,
                  suppress_health_check=list(HealthCheck))  # fmt: skip
        @given(case=operation.as_strategy(generation_mode=GenerationMode.POSITIVE)
               | operation.as_strategy(generation_mode=GenerationMode.NEGATIVE))  # fmt: skip
        def fuzz(case):
            case.headers.update({"Origin": f"http://{HOST}", "Host": HOST})
            if "X-Ecofm-Token" in case.headers and next(turns) % 5:
                case.headers["X-Ecofm-Token"] = token
            answer = case.call()
            statuses.add((case.path, answer.status_code))
            case.validate_response(answer, checks=CHECKS)

        fuzz()
    assert len(operations) == 15
    assert {status for _, status in statuses} >= {200, 401, 422}, statuses
    assert all(status < 500 for _, status in statuses)
