"""The Inspection page's folders: how each stands in words, stopped and started again by a button, and the form that starts one."""

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from backend import jobs, rundir
from backend.jobs import house

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def watched(data_folder: Path, tmp_path: Path) -> dict[str, str]:
    """Runs of three folders: one is watched, one's was stopped, one of the command line has lost its folder."""
    made = {}
    for name, state, by in (("a", "running", ""), ("b", "completed", ""), ("c", "running", "command line")):
        config = jobs.Watch(images=f"/cameras/{name}", line="L1").to_json()
        run_dir = rundir.create("watch", config, by=by, state=state)
        rundir.set_state(run_dir, state, started_at=rundir.now(), finished_at=rundir.now() if state == "completed" else None)
        rundir.write_json(run_dir / "watching.json", dict(
            at=rundir.now(), last_at=rundir.now(), inspected=1234, refused=3, images_per_s=49.8, waiting=0, gone=name == "c", closed=[]))
        made[name] = run_dir.name
    return made


def test_the_page_shows_stops_and_starts(watched: dict[str, str]) -> None:
    page = AppTest.from_file(str(ROOT / "pages" / "inspection.py"), default_timeout=60).run()
    assert not page.exception
    said = [c.value for c in page.caption]
    assert any(c.startswith("49.8 images/s · last picture") and "1,234 inspected · 3 not usable" in c for c in said)
    assert any("/cameras/a" in m.value for m in page.markdown) and any("Cannot reach the folder" in m.value for m in page.markdown)
    assert {b.key for b in page.button if b.key and b.key.startswith("watch_stop")} == {f"watch_stop_{watched['a']}"}

    page.button(key=f"watch_stop_{watched['a']}").click().run()
    assert (rundir.run_path(watched["a"]) / "cancel").exists() and not page.exception
    assert page.button(key=f"watch_stop_{watched['a']}").disabled

    page.button(key=f"watch_again_{watched['b']}").click().run()
    page.text_input(key="watch_folder").input("/cameras/new").run()
    page.button(key="watch_go").click().run()
    assert not page.exception
    house.close()
    submitted = [rundir.read_json(p / "job.json")["config"]["images"] for p in rundir.find("watch")][:2]
    assert submitted == ["/cameras/new", "/cameras/b"]
