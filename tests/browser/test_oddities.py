"""Unknown defects in a browser: the colours go at a key, a point of their trend leads to the pictures, the large view zooms."""

import re

import pytest
from conftest import App, settled
from playwright.sync_api import Page, expect

from tests import test_pages_engineering as pages
from tests import test_pages_unusual as unusual

MINUTE = 60_000


def picture_of(page: Page) -> str:
    return str(page.get_by_test_id("stImage").locator("img").first.get_attribute("src"))


@pytest.mark.timeout(420)
def test_unknown_defects_are_looked_at(app: App, page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFSPECT_DATA", str(app.data))
    pages.model("m1", "Steel 1")
    unusual.anomaly_model()
    batch = unusual.looked()

    # the queue, and the key that takes the colours off
    page.goto(f"{app.url}/review?plant=real&queue=Unknown+defects")
    expect(page.get_by_text("2 to look at")).to_be_visible(timeout=2 * MINUTE)
    settled(page)
    colours = picture_of(page)
    page.keyboard.press("h")
    expect(page.get_by_role("button", name=re.compile("Show the colours"))).to_be_visible(timeout=MINUTE)
    expect(page.get_by_test_id("stImage").locator("img").first).not_to_have_attribute("src", colours)

    # from a point of the trend to the pictures behind it
    page.goto(f"{app.url}/trends?plant=real")
    card = page.locator(".st-key-unusual_card")
    expect(card).to_be_visible(timeout=MINUTE)
    settled(page)
    card.locator(".scatterlayer .point").first.click(force=True)
    expect(page.locator(".st-key-picked")).to_contain_text("50 % (3 of 6) unusual", timeout=MINUTE)
    expect(page.get_by_role("button", name=re.compile("Open odd-"))).to_have_count(3)

    # the large view, enlarged: it begins in the middle and is dragged
    page.goto(f"{app.url}/inspection?batch={batch}")
    page.get_by_role("button", name=re.compile("Open odd-")).first.click(timeout=MINUTE)
    page.get_by_role("dialog").get_by_text("4×", exact=True).click(timeout=MINUTE)
    page.wait_for_function("() => { const b = document.querySelector('.st-key-viewer_picture'); return b && b.scrollLeft > 50; }")
    page.wait_for_timeout(1200)
    box = page.locator(".st-key-viewer_picture")
    before, at = box.evaluate("b => b.scrollLeft"), box.bounding_box()
    assert at is not None
    page.mouse.move(at["x"] + 150, at["y"] + 80)
    page.mouse.down()
    page.mouse.move(at["x"] + 250, at["y"] + 80, steps=4)
    page.mouse.up()
    assert box.evaluate("b => b.scrollLeft") == pytest.approx(before - 100, abs=3)
