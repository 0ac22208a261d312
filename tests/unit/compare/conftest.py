"""A store and a client of the web app on it, for tests."""

import pytest

from ecofm.compare.store import Store


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "votes") as opened:
        yield opened


@pytest.fixture
def client(store, tmp_path):
    from tests.unit.compare.client import connect  # needs the app extra

    return connect(store, tmp_path)


@pytest.fixture(scope="module")
def browser():
    from tests.unit.compare.browsing import start_browser  # needs playwright

    with start_browser() as opened:
        yield opened


@pytest.fixture
def server(tmp_path):
    from tests.unit.compare.browsing import Server

    running = Server(tmp_path / "votes")
    yield running
    running.stop()
