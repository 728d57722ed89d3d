"""Whatever people call things, pages show it as they wrote it; and no page asks anybody but its own server."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from conftest import App, settled
from PIL import Image
from playwright.sync_api import Page, expect

from backend import rundir
from backend.config import Import
from backend.data import importer
from tests import small_plant as plant

EVIL = '"><img src=x onerror="window.hurt=1"><script>window.hurt=2</script>[a](javascript:hurt) ${hurt} %{y} {{7*7}}'
PAGES = sorted(p.stem for p in (Path(__file__).resolve().parents[2] / "pages").glob("*.py"))
FOUND = "() => [window.hurt, document.querySelectorAll('img[src=\"x\"], [onerror], a[href^=\"javascript\"]').length]"


@pytest.fixture
def named(app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> App:
    """A plant in which everything that people name is named so."""
    monkeypatch.setenv("DIFFSPECT_DATA", str(app.data))
    plant.decide("calendar", time_zone="UTC", day_start="06:00", shifts=[dict(name=EVIL[:40], start="06:00", end="18:00"),
                                                                         dict(name="Night", start="18:00", end="06:00")])
    plant.model("m1", {EVIL: 0.3}, name=EVIL, classes=[EVIL, "pits"])
    now = datetime.now(UTC)
    plant.batch([dict(captured_at=now - timedelta(hours=n % 90), line=EVIL if n % 2 else "L2", product=EVIL, lot=EVIL, camera=EVIL,
                      file_name=f"{EVIL}{n}.png", unit_id=f"{EVIL}{n}", boxes=[(EVIL, 0.9)] if n % 3 else []) for n in range(240)])
    plant.decide("note", line=EVIL, text=EVIL, at=now.isoformat(), by=EVIL)
    folder = tmp_path / "in"
    folder.mkdir()
    for n in range(12):
        Image.effect_noise((60, 60), 40 + n).save(folder / f"<img src=x onerror=window.hurt={n}>.png")
        escaped = EVIL.replace("&", "&amp;").replace("<", "&lt;")
        (folder / f"<img src=x onerror=window.hurt={n}>.xml").write_text(
            f"<annotation><object><name>{escaped}</name><bndbox><xmin>2</xmin><ymin>2</ymin><xmax>30</xmax><ymax>30</ymax></bndbox></object>"
            "</annotation>")
    config = Import(path=str(folder), name=EVIL)
    run = rundir.create("import", config.to_json(), state="running")
    rundir.write_json(run / "result.json", importer.run(config, run, lambda **_: None))
    rundir.set_state(run, "completed", started_at=rundir.now(), finished_at=rundir.now())
    return app


@pytest.mark.timeout(420)
def test_no_name_is_read_as_html_and_no_page_asks_a_foreign_host(named: App, page: Page) -> None:
    """That no other host is asked the fixture `page` says at its end; here it is asked of sockets too."""
    sockets: list[str] = []
    page.on("websocket", lambda s: sockets.append(s.url))
    page.goto(f"{named.url}/trends?plant=real")
    expect(page.get_by_text("onerror").first).to_be_visible(timeout=60_000)             # the rows are in, and shown as they were written
    for name in PAGES:
        page.goto(f"{named.url}/{name}?plant=real")
        settled(page)
        for frame in page.frames:
            hurt, made = frame.evaluate(FOUND)
            assert hurt is None and made == 0, f"{name}: {hurt}, {made} elements that nobody wrote"
    assert {s.split("/")[2] for s in sockets} == {named.url.split("/")[2]}
    assert os.environ["DIFFSPECT_DATA"] == str(named.data)
