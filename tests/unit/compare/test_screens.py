"""The page on screens of any size, and what a reader hears."""

import re

import pytest

pytest.importorskip("uvicorn", reason="the app extra is not installed")
pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

from tests.unit.compare.browsing import (
    enter,
    expect,
    visit,
    wait_for_bar,
)

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
