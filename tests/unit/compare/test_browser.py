"""The page in headless Chromium: mouse, keyboard, phone, restarts, and what a reader hears."""

import os
import re
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
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH")
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


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def server(tmp_path):
    running = Server(tmp_path / "votes")
    yield running
    running.stop()


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


def test_votes_by_mouse_and_keyboard_and_undo(browser, server):
    with visit(browser, server) as page:
        enter(page)
        page.click("[data-outcome=left]")
        wait_for_count(page, 1)
        page.click("[data-outcome=skip]")
        wait_for_count(page, 2)
        for n, key in enumerate(("ArrowRight", " ", "?", "="), start=3):
            page.keyboard.press(key)
            wait_for_count(page, n)
        outcomes = [row.outcome for row in server.rows()]
        assert outcomes == ["left", "skip", "right", "tie", "skip", "tie"]
        page.keyboard.press("Backspace")
        wait_for_count(page, 5)
        expect(page.locator("#status")).to_contain_text("taken back")
        page.click("#undo")
        wait_for_count(page, 4)
        assert [row.outcome for row in server.rows()] == outcomes[:4]


def test_tab_and_space_press_buttons_as_everywhere(browser, server):
    with visit(browser, server) as page:
        page.wait_for_selector("#name:focus")
        page.keyboard.type("ada")
        page.keyboard.press("Enter")
        page.wait_for_selector("#guide:not([hidden])")
        page.locator("#begin").focus()
        page.keyboard.press("Enter")
        wait_for_pair(page)
        for _ in range(40):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.dataset.outcome") == "left":
                break
        page.keyboard.press("Space")
        wait_for_count(page, 1)
        assert [row.outcome for row in server.rows()] == ["left"]


def test_a_restart_in_mid_session_loses_nothing(browser, server):
    with visit(browser, server) as page:
        enter(page)
        page.keyboard.press("ArrowLeft")
        wait_for_count(page, 1)
        server.kill()
        page.keyboard.press("ArrowLeft")
        wait_for_count(page, 2)
        page.reload()
        wait_for_pair(page)
        wait_for_count(page, 2)
        os.kill(server.process, signal.SIGSTOP)
        page.keyboard.press("ArrowRight")
        time.sleep(0.2)
        server.kill()
        wait_for_count(page, 3)
        page.keyboard.press("Backspace")
        wait_for_count(page, 2)
        assert len(server.rows()) == 2


def test_two_annotators_at_once(browser, server):
    with visit(browser, server) as one, visit(browser, server) as other:
        enter(one, "ada")
        enter(other, "<b>bo</b>")
        expect(other.locator("#who")).to_have_text("<b>bo</b>")
        for n in range(1, 6):
            one.keyboard.press("ArrowLeft")
            other.keyboard.press("ArrowRight")
            wait_for_count(one, n)
            wait_for_count(other, n)
    said = [(row.annotator, row.outcome) for row in server.rows()]
    assert sorted(said) == [("<b>bo</b>", "right")] * 5 + [("ada", "left")] * 5


def test_zoom_and_pan_are_linked(browser, server):
    with visit(browser, server, viewport={"width": 1200, "height": 800}) as page:
        enter(page)

        def transforms():
            return [page.locator(f"#{side} .sheet").evaluate("e => e.style.transform")
                    for side in ("left", "right")]  # fmt: skip

        box = page.locator("#left").bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.mouse.wheel(0, -400)
        page.wait_for_selector("#left.zoomed")
        left, right = transforms()
        assert left == right and "scale(2.7" in left
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] / 2 + 60, box["y"] + box["height"] / 2, steps=4)
        page.mouse.up()
        moved = transforms()
        assert moved[0] == moved[1] != left
        assert not page.locator("#large").is_visible()  # a drag enlarges nothing
        page.keyboard.press("Shift+ArrowDown")
        assert transforms()[0] == transforms()[1] != moved[0]
        page.keyboard.press("0")
        assert "scale(1)" in transforms()[1]
        assert server.rows() == []


def test_sheets_are_enlarged_reshuffled_and_shown_in_false_colour(browser, server):
    with visit(browser, server) as page:
        enter(page)
        page.click("#left .cell >> nth=2")
        page.wait_for_selector("#large[open] img[src]")
        page.keyboard.press("ArrowLeft")  # looks at the large picture: no vote
        page.keyboard.press("Escape")
        address = page.locator("#left img").first.get_attribute("src")
        page.click("#colours")
        expect(page.locator("#left img").first).not_to_have_attribute("src", address)
        page.wait_for_selector("#left img[src]")
        assert page.locator("#colours").get_attribute("aria-pressed") == "true"
        red = page.locator("#left img").first.evaluate(
            """async image => { await image.decode(); const c = new OffscreenCanvas(1, 1);
            const x = c.getContext('2d'); x.drawImage(image, 0, 0, 1, 1);
            const [r, , b] = x.getImageData(0, 0, 1, 1).data; return r - b; }"""
        )
        assert red > 20
        before = page.locator("#left img").first.get_attribute("src")
        page.keyboard.press("r")
        expect(page.locator("#left img").first).not_to_have_attribute("src", before)
        assert server.rows() == []


def test_tiers_are_dragged_put_and_moved_by_keys_and_saved(browser, server):
    with visit(browser, server) as page:
        enter(page)
        page.click("[data-view=tiers]")
        page.drag_and_drop(".group[data-item='3']", ".zone.fresh >> nth=0")
        expect(page.locator("#tiers-status")).to_contain_text("Group 3 is now in tier 1")
        page.drag_and_drop(".group[data-item='5']", ".zone:not(.fresh) >> nth=0")
        page.click(".group[data-item='0']")
        page.click(".zone.fresh >> nth=1 >> .put")
        page.focus(".group[data-item='1']")
        page.keyboard.press("ArrowUp")
        page.reload()  # the draft is kept
        wait_for_pair(page)
        page.click("[data-view=tiers]")
        expect(page.locator(".zone:not(.fresh)")).to_have_count(4)
        page.click("#tiers-save")
        expect(page.locator("#tiers-status")).to_have_text("Saved: 6 comparisons.")
    assert {row[1:] for row in server.rows(asked=False)} == {
        ("3", "5", "tie"), ("3", "0", "left"), ("5", "0", "left"), ("3", "1", "left"),
        ("5", "1", "left"), ("0", "1", "left"),
    }  # fmt: skip


def test_saved_tiers_are_among_the_own_answers_and_can_be_taken_back(browser, server):
    with visit(browser, server) as page:
        enter(page)
        page.click("[data-view=mine]")
        expect(page.locator("#mine-status")).to_have_text("You have not answered yet.")
        page.click("[data-view=tiers]")
        page.drag_and_drop(".group[data-item='3']", ".zone.fresh >> nth=0")
        page.drag_and_drop(".group[data-item='5']", ".zone.fresh >> nth=0")
        page.click("#tiers-save")
        expect(page.locator("#tiers-status")).to_have_text("Saved: 1 comparisons.")
        page.click("[data-view=mine]")
        expect(page.locator(".own-tiers ol > li")).to_have_count(2)
        expect(page.locator(".own-tiers img").first).to_have_attribute("title", "5")
        expect(page.locator("#mine-status")).to_have_text("")
        page.click(".own-tiers button")
        expect(page.locator("#mine-status")).to_have_text("Deleted.")
        expect(page.locator(".own-tiers")).to_have_count(0)
        page.click("[data-view=tiers]")
        expect(page.locator(".zone:not(.fresh)")).to_have_count(1)
    assert server.rows(asked=False) == []


def test_help_promises_only_what_works_in_this_session(browser, server):
    with visit(browser, server) as page:
        enter(page)
        page.click("[data-view=guide]")
        for shown in ("#guide-enlarge", "#guide-reshuffle", "#guide-colours"):
            expect(page.locator(shown)).to_be_visible()
        page.evaluate(
            """() => { const session = JSON.parse(sessionStorage.session);
            sessionStorage.session = JSON.stringify(
                { ...session, can_shuffle: false, styles: ["true"] }); }"""
        )
        page.click("[data-view=guide]")
        for shown in ("#guide-enlarge", "#guide-reshuffle", "#guide-colours"):
            expect(page.locator(shown)).to_be_hidden()
        assert "R shows" not in page.locator("#guide").inner_text()


def test_own_answers_are_seen_and_deleted(browser, server):
    with visit(browser, server) as page:
        enter(page)
        for n in range(1, 4):
            page.keyboard.press("ArrowLeft")
            wait_for_count(page, n)
        page.click("[data-view=mine]")
        expect(page.locator("#mine-list li")).to_have_count(3)
        expect(page.locator("#mine-list li").first).to_contain_text("left more developed")
        page.click("#mine-list li:first-child button")
        expect(page.locator("#mine-list li")).to_have_count(2)
        assert len(server.rows()) == 2
        page.click("#mine-forget")
        page.click("#sure button[value=no]")
        assert len(server.rows()) == 2
        page.click("#mine-forget")
        page.click("#sure-yes")
        expect(page.locator("#mine-status")).to_have_text("Everything you said was deleted.")
        assert server.rows() == []


# The width that each picture has at least; before, 184 px on a telephone of 360.
SCREENS = {
    (320, 568): 165, (360, 640): 205, (360, 740): 240, (390, 844): 300, (768, 1024): 400,
    (640, 360): 220, (844, 390): 290, (1280, 720): 400,
}  # fmt: skip


@pytest.mark.parametrize("locale", ["en-US", "ko-KR"])
def test_question_pictures_and_answers_fit_the_screen_and_fingers(browser, server, locale):
    with visit(browser, server, locale=locale, has_touch=True) as page:
        enter(page)
        for (width, height), least in SCREENS.items():
            page.set_viewport_size({"width": width, "height": height})
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            asked = page.locator("#compare h1").bounding_box()
            assert asked["height"] > 15 and asked["y"] >= 0
            for side in ("left", "right"):
                box = page.locator(f"#{side}").bounding_box()
                assert box["width"] >= least, (width, height)
                assert abs(box["width"] - box["height"]) < 1
                assert box["y"] >= asked["y"] + asked["height"]
            for selector in ("[data-outcome=left]", "[data-outcome=right]", "[data-outcome=tie]",
                             "[data-outcome=skip]", "#undo"):  # fmt: skip
                box = page.locator(selector).bounding_box()
                assert box["height"] >= 24 and box["x"] >= 0 and box["x"] + box["width"] <= width
                assert box["y"] + box["height"] <= height, (width, height, selector)
        page.set_viewport_size({"width": 360, "height": 640})
        page.tap("[data-outcome=right]")
        wait_for_bar(page, 1)
    assert [row.outcome for row in server.rows()] == ["right"]


def test_a_screen_too_small_for_all_keeps_the_answers_in_reach(browser, server):
    with visit(browser, server, viewport={"width": 320, "height": 256}) as page:  # zoom 400 %
        enter(page)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        box = page.locator("[data-outcome=tie]").bounding_box()
        assert box["y"] + box["height"] <= 256
        page.click("[data-outcome=tie]")
        wait_for_bar(page, 1)


def test_small_screens_show_what_matters_and_only_say_the_rest(browser, server):
    with visit(browser, server, viewport={"width": 360, "height": 640}) as page:
        enter(page)
        page.keyboard.press("ArrowLeft")
        expect(page.locator("#status")).to_contain_text("New pair")
        assert page.locator("#status").bounding_box()["width"] <= 1  # heard, not seen
        page.wait_for_selector("#compare:not(.busy)")
        page.keyboard.press("Backspace")
        expect(page.locator("#status")).to_contain_text("taken back")
        assert page.locator("#status").bounding_box()["width"] > 200


def test_the_page_speaks_korean_and_remembers_the_choice(browser, server):
    with visit(browser, server, locale="ko-KR") as page:
        expect(page.locator("#start h1")).to_have_text("어느 곳이 더 발전해 보이나요?")
        assert page.evaluate("document.documentElement.lang") == "ko"
        page.select_option("#language", "en")
        expect(page.locator("#start h1")).to_have_text("Which place looks more developed?")
        page.reload()
        expect(page.locator("#start h1")).to_have_text("Which place looks more developed?")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_names_roles_and_contrast_serve_readers_and_weak_eyes(browser, server, scheme):
    with visit(browser, server, color_scheme=scheme) as page:
        enter(page)
        for view in ("compare", "tiers", "mine", "guide"):
            page.click(f"[data-view={view}]")
            page.wait_for_timeout(300)
            nameless = page.evaluate(
                """() => [...document.querySelectorAll('button, img, input, select, dialog')]
                .filter(e => e.checkVisibility() && !(e.getAttribute('aria-label') ||
                e.textContent.trim() || e.alt !== undefined && e.hasAttribute('alt') ||
                e.labels?.length)).map(e => e.outerHTML)"""
            )
            assert nameless == []
            assert page.locator("main:not([hidden])").count() == 1
            assert page.locator("[aria-current=page]").count() == 1
            assert find_low_contrast(page) == []
        page.click("[data-view=compare]")
        label = page.locator("#left img").first.get_attribute("alt")
        assert re.fullmatch(r"Satellite picture of the left place .+, 1 of 4", label)


def find_low_contrast(page):
    """Texts whose contrast with what is behind them is under WCAG's 4.5 to 1."""
    return page.evaluate(
        """() => {
        const light = rgb => { const [r, g, b] = rgb.map(v => v / 255).map(v =>
            v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
            return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
        const parse = text => text.match(/[\\d.]+/g).map(Number);
        const behind = e => { for (; e; e = e.parentElement) {
            const c = parse(getComputedStyle(e).backgroundColor);
            if (c.length < 4 || c[3] > 0) return c; } return [255, 255, 255]; };
        const found = [];
        for (const e of document.querySelectorAll('button, p, h1, h2, span, label, kbd, li')) {
            const own = [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim());
            if (!own || !e.checkVisibility() || e.closest(':disabled, .put')) continue;
            const [a, b] = [light(parse(getComputedStyle(e).color)), light(behind(e))];
            const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
            if (ratio < 4.5) found.push(`${e.textContent.trim()}: ${ratio.toFixed(2)}`);
        }
        return found; }"""
    )
