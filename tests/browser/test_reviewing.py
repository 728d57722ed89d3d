"""Labelling in a browser: a box drawn by mouse, named by key, taken back, changed, saved; and the dataset that comes of it."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from conftest import App, settled
from playwright.sync_api import Page, expect

from tests import plates
from tests import small_plant as plant

MINUTE = 60_000


def boxes(page: Page) -> list[list[Any]]:
    found: list[list[Any]] = json.loads(str(page.locator(".canvas").get_attribute("data-boxes")))
    return found


@pytest.mark.timeout(300)
def test_a_box_is_drawn_named_undone_saved_and_trained_on(app: App, page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFSPECT_DATA", str(app.data))
    plates.imported(tmp_path / "in", "plates")
    plant.model("m1", {"pits": 0.5})
    plant.decide("promote", model_id="m1")
    plant.add(plant.batch([]), [dict(image_id=f"demo:{i}:2a:1:good", width=256, height=256, file_name=f"part {i}.png",
                                     captured_at=plant.NOON + timedelta(minutes=i), boxes=[("pits", 0.45)] if i < 2 else [])
                                for i in range(20)])

    # by mouse and by key
    page.goto(f"{app.url}/review?plant=real&queue=Label")
    expect(page.get_by_text("2 to label")).to_be_visible(timeout=2 * MINUTE)
    settled(page)
    at = page.locator(".canvas svg").bounding_box()
    assert at is not None and boxes(page) == []
    page.locator(".canvas input").fill("scratch")
    page.keyboard.press("Enter")
    page.mouse.move(at["x"] + 50, at["y"] + 60)
    page.mouse.down()
    page.mouse.move(at["x"] + 150, at["y"] + 160, steps=3)
    page.mouse.up()
    px = 256 / at["width"]
    assert boxes(page)[0] == ["scratch", *[pytest.approx(v * px, abs=1) for v in (50, 60, 150, 160)]]
    page.keyboard.press("1")
    assert boxes(page)[0][0] == "pits"
    page.keyboard.press("n")
    assert len(boxes(page)) == 2
    page.keyboard.press("Control+z")
    page.keyboard.press("Control+z")
    assert [b[0] for b in boxes(page)] == ["scratch"]
    page.mouse.move(at["x"] + 150, at["y"] + 160)                        # a corner: the box grows; its middle: it moves
    page.mouse.down()
    page.mouse.move(at["x"] + 200, at["y"] + 180)
    page.mouse.up()
    page.mouse.move(at["x"] + 100, at["y"] + 100)
    page.mouse.down()
    page.mouse.move(at["x"] + 90, at["y"] + 120)
    page.mouse.up()
    assert boxes(page)[0][1:] == [pytest.approx(v * px, abs=1) for v in (40, 80, 190, 200)]
    drawn = boxes(page)[0]

    # put off, and what was drawn comes back with it
    page.keyboard.press("s")
    expect(page.get_by_text("1 to label")).to_be_visible(timeout=MINUTE)
    expect(page.locator(".canvas")).to_have_attribute("data-boxes", "[]")
    page.keyboard.press("s")
    page.get_by_role("button", name="Look again at 2 pictures").click(timeout=MINUTE)
    expect(page.get_by_text("2 to label")).to_be_visible(timeout=MINUTE)
    expect(page.locator(".canvas")).to_have_attribute("data-boxes", json.dumps([drawn], separators=(",", ":")))
    page.locator(".canvas svg").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_text("1 to label")).to_be_visible(timeout=MINUTE)
    expect(page.locator(".st-key-last_answer_line")).to_contain_text("1 box")

    # the new dataset
    page.get_by_role("button", name="New dataset").click()
    page.get_by_role("button", name="Make the dataset").click()
    page.keyboard.press("Escape")
    expect(page.locator(".st-key-relabelled_run")).to_contain_text("0 corrected, 1 added", timeout=MINUTE)
    made = json.loads(next((app.data / "runs").glob("*-relabel-*/manifest.json")).read_bytes())
    assert [i["boxes"] for i in made["images"] if i["image_id"].startswith("demo:")] == [[[*drawn, "box"]]]
    page.get_by_role("link", name="See it").click()
    expect(page.get_by_text("1 added to train")).to_be_visible(timeout=MINUTE)
