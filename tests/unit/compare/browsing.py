"""The page in headless Chromium: its server, and the steps that every test of it takes."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("uvicorn", reason="the app extra is not installed")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

from ecofm.compare.app import listen  # noqa: E402
from ecofm.compare.store import Store  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SERVER = Path(__file__).with_name("server.py")
expect = playwright.expect


class Server:
    """The web app, started again by its nursery whenever it is killed."""

    def __init__(self, store):
        self.store = store
        with listen("127.0.0.1", 0) as free:
            self.port = free.getsockname()[1]
        self.nursery = subprocess.Popen(
            [sys.executable, str(SERVER), str(store), str(self.port)],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        self.process = int(self.nursery.stdout.readline())
        self.url = f"http://127.0.0.1:{self.port}/"
        for _ in range(600):
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.05)

    def kill(self):
        os.kill(self.process, signal.SIGKILL)
        self.process = int(self.nursery.stdout.readline())

    def stop(self):
        self.nursery.kill()
        self.nursery.wait()
        os.kill(self.process, signal.SIGKILL)
        self.nursery.stdout.close()

    def rows(self, asked=True):
        with Store(self.store, create=False) as store:
            return store.comparisons(asked)


@contextmanager
def start_browser():
    """Chromium without a window; skips the test where there is none."""
    if CHROMIUM is None:
        pytest.skip("no chromium on the PATH")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@contextmanager
def visit(browser, server, **context):
    """A page of the app; a script error or a message on the console fails the test."""
    opened = browser.new_context(**{"locale": "en-US", **context})
    page = opened.new_page()
    faults = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("dialog", lambda dialog: faults.append(dialog.message))
    page.goto(server.url)
    yield page
    opened.close()
    assert faults == []


def enter(page, name="ada"):
    page.fill("#name", name)
    page.click("#start-form .primary")
    page.click("#begin")
    wait_for_pair(page)


def wait_for_pair(page):
    page.wait_for_selector("#compare:not(.busy) #right .cell:nth-child(4) img[src]")


def wait_for_count(page, n):
    expect(page.locator("#count")).to_contain_text(f"{n} of 100", timeout=20_000)
    page.wait_for_selector("#compare:not(.busy)")


def wait_for_bar(page, n):
    """As `wait_for_count`, in any language."""
    expect(page.locator("#bar")).to_have_js_property("value", n, timeout=20_000)
    page.wait_for_selector("#compare:not(.busy)")
