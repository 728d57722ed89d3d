"""The main job, as a person does it: see the demo plant, drop pictures, move a threshold, find them in Trends, go down to a picture."""

import re
import shutil
from pathlib import Path

import pytest
from conftest import App, settled
from PIL import Image
from playwright.sync_api import Locator, Page, expect

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = sorted((ROOT / "data" / "demo" / "samples").glob("*.jpg"))
NEU = ROOT.parent / "shared" / "data" / "NEU-DET"
MINUTE = 60_000
DEMO = True                                     # of all tests here the same server: each has a line of its own


def numbers(text: str) -> list[int]:
    return [int(n.replace(",", "")) for n in re.findall(r"\d[\d,]*", text)]


def choose(page: Page, label: str, value: str) -> None:
    """Type a new value into a select box; Enter counts only once the list offers what was typed."""
    settled(page)                               # a page drawn anew forgets what was typed meanwhile
    box = page.get_by_role("combobox", name=re.compile(label)).first
    box.click()
    box.fill(value)
    expect(page.get_by_role("option", name=re.compile(re.escape(value))).first).to_be_visible(timeout=MINUTE)
    box.press("Enter")
    expect(box).to_have_value(value)
    settled(page)


def inspect(page: Page, app: App, files: list[Path], line: str) -> str:
    """Drop files, name the line, wait for the last result; the headline of the batch."""
    page.goto(f"{app.url}/inspection")
    page.locator("input[type=file]").first.set_input_files([str(f) for f in files])
    expect(page.get_by_text(f"{len(files)} files ready")).to_be_visible(timeout=MINUTE)
    choose(page, "Line", line)
    expect(page.get_by_text("Off: without a line")).to_have_count(0, timeout=MINUTE)      # the server knows the line
    page.get_by_role("button", name=re.compile(rf"^.*Inspect {len(files)} file")).click()
    headline = page.get_by_role("heading", name=re.compile(rf"of {len(files)} defective"))
    expect(headline).to_be_visible(timeout=3 * MINUTE)
    expect(page.get_by_role("button", name=re.compile("Take out of trends"))).to_be_visible(timeout=MINUTE)
    return headline.inner_text()


def rate_card(page: Page) -> Locator:
    """The card of the defect rate in Trends: '12 of 20' below the share."""
    return page.get_by_test_id("stMetric").filter(has_text="Defect rate")


def test_demo_plant_is_there_at_once(app: App, page: Page) -> None:
    page.goto(app.url)
    expect(page.get_by_text("Demo plant: made-up data")).to_be_visible(timeout=MINUTE)
    card = page.get_by_role("heading", name=re.compile("Line 2"))
    expect(card.first).to_be_visible(timeout=MINUTE)
    expect(page.get_by_text(re.compile(r"Pits are up: .* against usually .*")).first).to_be_visible()


@pytest.mark.timeout(420)
def test_a_batch_reaches_the_trend(app: App, page: Page) -> None:
    headline = inspect(page, app, SAMPLES, "Line A")
    defective, total = numbers(headline)[:2]
    assert total == 20 and defective > 0, headline

    # the trend knows it, of this plant and not of the demo
    batch = page.url
    page.goto(f"{app.url}/trends?plant=real&line=Line+A")
    expect(rate_card(page)).to_contain_text(f"{defective} of 20", timeout=MINUTE)
    expect(page.get_by_text("made-up data")).to_have_count(0)

    # another threshold, from the scores already logged
    page.goto(batch)
    page.get_by_text("Try another threshold").click(timeout=MINUTE)
    slider = page.get_by_role("slider")
    expect(slider).to_be_visible()
    for _ in range(30):
        slider.press("ArrowRight")
    settled(page)
    outcome = page.get_by_text(re.compile(rf"At 0\.[5-9]\d: \d+ of 20 defective; today {defective}\."))
    expect(outcome).to_be_visible()
    after = numbers(outcome.inner_text().split(":")[1])[0]
    assert after < defective, "a threshold that high must turn some of 20 pictures"
    page.get_by_role("button", name="Use this threshold").click()
    expect(page.get_by_role("heading", name=f"{after:,} of 20 defective")).to_be_visible(timeout=MINUTE)

    # the trend has moved; from its newest point down to a picture with its boxes
    page.goto(f"{app.url}/trends?plant=real&line=Line+A")
    expect(rate_card(page)).to_contain_text(f"{after} of 20", timeout=MINUTE)
    settled(page)
    page.locator(".stPlotlyChart .scatterlayer .point").first.click(force=True)
    expect(page.locator(".st-key-picked")).to_contain_text(f"{after} of 20", timeout=MINUTE)
    page.get_by_role("button", name=re.compile("Open plate-")).first.click()
    expect(page.get_by_role("dialog").locator("img").first).to_be_visible(timeout=MINUTE)


def test_undo_takes_a_batch_back_out_of_the_trend(app: App, page: Page, tmp_path: Path) -> None:
    for sample in SAMPLES[:4]:                              # other pictures: the same do not count twice
        with Image.open(sample) as image:
            image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / sample.name)
    inspect(page, app, sorted(tmp_path.glob("*.jpg")), "Line U")
    page.get_by_role("button", name=re.compile("Take out of trends")).click()
    expect(page.get_by_role("button", name=re.compile("Count them anyway"))).to_be_visible(timeout=MINUTE)
    page.get_by_role("button", name=re.compile("Undo")).first.click()
    expect(page.get_by_role("button", name=re.compile("Take out of trends"))).to_be_visible(timeout=MINUTE)


def test_bad_files_are_named_and_the_rest_goes_on(app: App, page: Page, tmp_path: Path) -> None:
    broken = tmp_path / "<b>broken&lt;.jpg"
    broken.write_bytes(SAMPLES[0].read_bytes()[:2000])
    twin = tmp_path / "twin.jpg"
    twin.write_bytes(SAMPLES[1].read_bytes())
    page.goto(f"{app.url}/inspection")
    page.locator("input[type=file]").first.set_input_files([str(f) for f in (broken, SAMPLES[1], twin, SAMPLES[2])])
    expect(page.get_by_text("4 files ready")).to_be_visible(timeout=MINUTE)
    choose(page, "Line", "Line B")
    page.get_by_role("button", name=re.compile("Inspect 4 files")).click()
    expect(page.get_by_role("heading", name=re.compile(r"of 2 defective · 2 not usable"))).to_be_visible(timeout=3 * MINUTE)


@pytest.mark.skipif(not NEU.exists(), reason="NEU-DET is not here")
@pytest.mark.timeout(600)
def test_real_images_from_import_to_model(app: App, page: Page, tmp_path: Path) -> None:
    """A few pictures of NEU-DET: import with lists, train for one pass, see the model's figures."""
    folder = tmp_path / "neu"
    for kind in ("IMAGES", "ANNOTATIONS", "splits"):
        (folder / kind).mkdir(parents=True)
    for split, n in (("train", 24), ("val", 6), ("test", 6)):
        stems = (NEU / "splits" / f"{split}.txt").read_text().split()
        stems = stems[::max(1, len(stems) // n)][:n]
        (folder / "splits" / f"{split}.txt").write_text("\n".join(stems))
        for stem in stems:
            shutil.copy(NEU / "IMAGES" / f"{stem}.jpg", folder / "IMAGES")
            shutil.copy(NEU / "ANNOTATIONS" / f"{stem}.xml", folder / "ANNOTATIONS")
    page.goto(f"{app.url}/datasets")
    page.get_by_label("or a folder or zip on this machine").fill(str(folder))
    page.get_by_label("or a folder or zip on this machine").press("Enter")
    settled(page)
    page.get_by_text("Advanced", exact=True).first.click()
    page.get_by_role("textbox", name="Folder with split lists").fill(str(folder / "splits"))
    page.get_by_role("textbox", name="Folder with split lists").press("Enter")
    settled(page)
    page.get_by_role("button", name=re.compile("Import$")).last.click()
    expect(page.get_by_text(re.compile("Read as Pascal VOC")).first).to_be_visible(timeout=2 * MINUTE)

    page.goto(f"{app.url}/training")
    page.get_by_text("Quick", exact=True).click()
    settled(page)
    page.get_by_text("Advanced", exact=True).first.click()
    for label, value in (("Epochs", "1"), ("Image side", "64")):
        field = page.get_by_role("spinbutton", name=label)
        field.fill(value)
        field.press("Enter")
        settled(page)
    page.get_by_role("button", name=re.compile("Start training")).click()
    expect(page.get_by_text(re.compile("See the model and put it to use"))).to_be_visible(timeout=6 * MINUTE)
    page.goto(f"{app.url}/models")
    expect(page.get_by_test_id("stMetricLabel").filter(has_text="mAP50 on test")).to_be_visible(timeout=MINUTE)
