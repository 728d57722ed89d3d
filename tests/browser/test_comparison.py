"""The comparison page in a browser: two finished trainings, their verdict, pictures won and lost by keyboard, a threshold, taken away."""

import re
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest
from conftest import App, settled
from playwright.sync_api import Page, TimeoutError, expect

from tests import small_comparison as small

MINUTE = 60_000
SHOWN = ".st-key-contest_tools"


def press(page: Page, key: str, then: str) -> None:
    page.keyboard.press(key)
    expect(page.locator(SHOWN).get_by_text(then, exact=True)).to_be_visible(timeout=MINUTE)


def widths(page: Page) -> list[float]:
    """Of the two pictures, in pixels."""
    return [page.locator(f".st-key-stage_{n} img").evaluate("i => i.getBoundingClientRect().width") for n in (0, 1)]


def lefts(page: Page) -> list[float]:
    """How far each picture is moved within its pane."""
    return [page.locator(f".st-key-stage_{n}").evaluate("s => parseFloat(getComputedStyle(s).left)") for n in (0, 1)]


@pytest.mark.timeout(420)
def test_two_trainings_are_compared(app: App, page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFSPECT_DATA", str(app.data))
    data = small.dataset()
    runs = [small.trained(data, arm, 0) for arm in ("real", "both")]

    # from two runs to a verdict, in a run of its own
    verdict = page.get_by_role("button", name=re.compile("Work out the verdict"))
    for _ in range(12):                                          # until the server has taken the two in
        page.goto(f"{app.url}/comparison?runs={','.join(runs)}")
        with suppress(TimeoutError):
            verdict.wait_for(timeout=10_000)
            break
    verdict.click()
    expect(page.get_by_role("heading", name=re.compile(r"map50 \[.*1 seed"))).to_be_visible(timeout=2 * MINUTE)
    expect(page).to_have_url(re.compile("run=.*-compare-"))
    expect(page.get_by_text("Provisional: 1 seed").first).to_be_visible()

    # pictures that one run wins, by keyboard
    page.get_by_role("radio", name="Images").click()
    expect(page.locator(SHOWN).get_by_text(re.compile("^1 of "))).to_be_visible(timeout=MINUTE)
    of = int(page.locator(SHOWN).get_by_text(re.compile("^1 of ")).inner_text().split()[-1])
    assert of > 2
    settled(page)
    press(page, "ArrowRight", f"2 of {of}")
    press(page, "ArrowRight", f"3 of {of}")
    press(page, "ArrowLeft", f"2 of {of}")
    expect(page.locator(".st-key-pane_1 .marks .missed")).not_to_have_count(0)
    expect(page.locator(".st-key-pane_0 .marks .hit")).not_to_have_count(0)

    # enlarged, both alike, and dragged together
    settled(page)                                                # a picture that has just come begins whole
    whole = widths(page)
    page.keyboard.press("+")
    page.keyboard.press("+")
    assert widths(page) == [pytest.approx(4 * w, rel=0.01) for w in whole]
    box = page.locator(".st-key-pane_0").bounding_box()
    assert box is not None
    before = lefts(page)
    page.mouse.move(box["x"] + 150, box["y"] + 100)
    page.mouse.down()
    page.mouse.move(box["x"] + 210, box["y"] + 100, steps=4)
    page.mouse.up()
    assert lefts(page) == [pytest.approx(at + 60, abs=2) for at in before]
    page.keyboard.press("Shift+ArrowRight")
    assert lefts(page) == [pytest.approx(at + 60 - whole[0] / 4, abs=2) for at in before]
    page.keyboard.press("0")
    assert widths(page) == [pytest.approx(w, rel=0.01) for w in whole]

    # a threshold acts at once, and is in the address with the picture
    found = page.locator(".st-key-contest_kind").inner_text()
    page.locator(".st-key-threshold_a input[type=range]").focus()
    page.keyboard.press("End")
    expect(page).to_have_url(re.compile("at_a=0.95"), timeout=MINUTE)
    expect(page.locator(".st-key-contest_kind")).not_to_have_text(found, timeout=MINUTE)
    settled(page)
    page.get_by_role("radio", name=re.compile("^B found, A missed")).click()
    expect(page).to_have_url(re.compile("show=b_only"), timeout=MINUTE)
    settled(page)
    lost, shown = page.locator(SHOWN).get_by_text(re.compile(r"^\d+ of ")).inner_text(), page.url
    page.goto("about:blank")
    page.goto(shown)
    expect(page.locator(SHOWN).get_by_text(lost, exact=True)).to_be_visible(timeout=MINUTE)
    assert page.locator(".st-key-threshold_a input[type=range]").input_value() == "0.95"

    # taken away
    for label, check in (("One page (HTML)", _whole), ("Figures (CSV)", _figures)):
        page.get_by_role("button", name="Export").click()
        with page.expect_download(timeout=MINUTE) as download:
            page.get_by_role("button", name=label).click()
        download.value.save_as(tmp_path / "taken")
        check(tmp_path / "taken")
        page.keyboard.press("Escape")


def _whole(path: Path) -> None:
    written = path.read_text()
    assert "Plotly.newPlot" in written and "map50 [" in written and "default-src 'none'" in written


def _figures(path: Path) -> None:
    assert pd.read_csv(path)["what"].tolist().count("run") == 4
