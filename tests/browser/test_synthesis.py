"""The synthesis page in a browser: judging by keyboard, R among the keys, a picture enlarged, and a card chosen by a click."""

import re

import pytest
from conftest import App, settled
from playwright.sync_api import Page, expect

from tests import test_pages_synthesis as synthesis

MINUTE = 60_000


def press(page: Page, key: str, then: str) -> None:
    """A key, and the place among the pictures that it leads to."""
    settled(page)
    page.keyboard.press(key)
    expect(page.locator(".st-key-say").get_by_text(then, exact=True)).to_be_visible(timeout=MINUTE)


@pytest.mark.timeout(420)
def test_pictures_are_judged_by_keyboard(app: App, page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFSPECT_DATA", str(app.data))
    made = synthesis.made_set(synthesis.imported())

    # each key does what it says, and U takes it back
    page.goto(f"{app.url}/synthesis?set={made}")
    expect(page.locator(".st-key-say").get_by_text("1 of 5", exact=True)).to_be_visible(timeout=2 * MINUTE)
    expect(page.locator(".st-key-trio img")).to_have_count(3, timeout=MINUTE)
    for key, then in (("a", "1 of 4"), ("r", "1 of 3"), ("g", "1 of 2"), ("ArrowRight", "2 of 2"), ("ArrowLeft", "1 of 2"),
                      ("u", "1 of 3")):
        press(page, key, then)
    assert synthesis.told(made) == ["accept", "reject", "", "", ""]
    assert "picture=000002.png" in page.url

    # a click anywhere on a small one makes it the large one, once the sheet has caught up with the picture above it
    third = page.locator(".st-key-made_cell_to_open_2")
    expect(third.get_by_role("button", name="Look at 000004.png")).to_be_attached(timeout=MINUTE)
    settled(page)
    third.click(position={"x": 200, "y": 60})
    expect(page.locator(".st-key-say").get_by_text("3 of 3", exact=True)).to_be_visible(timeout=MINUTE)
    press(page, "ArrowLeft", "2 of 3")
    press(page, "ArrowLeft", "1 of 3")

    # a letter typed into a field judges nothing
    page.get_by_text("Make pictures", exact=True).click()
    field = page.get_by_label("Name of the set")
    field.fill("bar")
    field.press("r")
    page.wait_for_timeout(1000)
    assert synthesis.told(made) == ["accept", "reject", "", "", ""]
    page.get_by_text("Make pictures", exact=True).click()

    # one enlarged, its original in the same place, and judged there
    page.get_by_role("button", name=re.compile("Enlarge")).click()
    dialog = page.get_by_role("dialog")
    shown = dialog.locator("img").first
    expect(shown).to_be_visible(timeout=MINUTE)
    made_src = shown.get_attribute("src") or ""
    dialog.get_by_text("Original", exact=True).click(timeout=MINUTE)
    expect(shown).not_to_have_attribute("src", made_src, timeout=MINUTE)
    page.keyboard.press("r")
    expect(dialog.get_by_text("000003.png", exact=True)).to_be_visible(timeout=MINUTE)
    assert synthesis.told(made) == ["accept", "reject", "reject", "", ""]
    page.keyboard.press("Escape")
    expect(page.locator(".st-key-say").get_by_text("1 of 2", exact=True)).to_be_visible(timeout=MINUTE)


def test_a_way_of_making_pictures_is_a_card(app: App, page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFSPECT_DATA", str(app.data))
    synthesis.imported()
    page.goto(f"{app.url}/synthesis")
    expect(page.locator(".st-key-preset_on_good")).to_be_visible(timeout=2 * MINUTE)
    expect(page.locator(".st-key-preset_to_paste").get_by_role("button", name="Pasted")).to_have_count(1, timeout=MINUTE)
    page.locator(".st-key-preset_to_paste").click()                # anywhere on it
    expect(page.locator(".st-key-preset_on_paste")).to_be_visible(timeout=MINUTE)
    expect(page.locator(".preset img").first).to_be_visible()
    page.get_by_role("button", name=re.compile("Make 60 pictures")).click()
    expect(page).to_have_url(re.compile("set=.*-synthesize-"), timeout=MINUTE)
