"""The page in headless Chromium: mouse, keyboard, restarts, tiers, own answers and help."""

import os
import signal
import time

import pytest

pytest.importorskip("uvicorn", reason="the app extra is not installed")
pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

from tests.unit.compare.browsing import (
    enter,
    expect,
    visit,
    wait_for_count,
    wait_for_pair,
)


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


def test_the_page_speaks_korean_and_remembers_the_choice(browser, server):
    with visit(browser, server, locale="ko-KR") as page:
        expect(page.locator("#start h1")).to_have_text("어느 곳이 더 발전해 보이나요?")
        assert page.evaluate("document.documentElement.lang") == "ko"
        page.select_option("#language", "en")
        expect(page.locator("#start h1")).to_have_text("Which place looks more developed?")
        page.reload()
        expect(page.locator("#start h1")).to_have_text("Which place looks more developed?")
