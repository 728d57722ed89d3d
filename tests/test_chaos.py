"""A few moments of `tests.benchmarks.chaos`: the app dies within a commit, a rename, a flush: nothing is lost; a loss would be found."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from backend import rundir
from backend.jobs import events
from backend.store.database import Database
from backend.store.ingest import ingest
from tests import small_plant as plant
from tests.benchmarks import chaos, chaos_check
from tests.benchmarks.chaos_scene import Moment, carried_out, end

SLOW = pytest.mark.slow
MOMENTS = [Moment(0, "ingest", "app", "commit", 2, "inside", 0.0003), Moment(1, "promotion", "app", "replace", 9, "inside"),
           pytest.param(Moment(2, "ingest", "app", "rename", 5, "before"), marks=SLOW),
           pytest.param(Moment(3, "ingest", "app", "checkpoint", 1, "inside", 0.001), marks=SLOW),
           pytest.param(Moment(4, "promotion", "app", "fsync", 12, "after"), marks=SLOW),
           pytest.param(Moment(5, "promotion", "app", "commit", 6, "before"), marks=SLOW)]


@pytest.fixture(scope="module")
def seed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A plant with one batch, and runs beside it that are to be taken in."""
    folder = tmp_path_factory.mktemp("chaos")
    with pytest.MonkeyPatch.context() as patch:
        chaos.stock(folder)
        patch.setenv("DIFFSPECT_DATA", str(folder / "seed"))
        events.set_calendar()
        plant.batch([dict(boxes=[("pits", 0.9)], kept=False)] * 8)
        yield folder / "seed"


@pytest.mark.parametrize("moment", MOMENTS, ids=lambda m: f"{m.scene}, {m.words}")
def test_nothing_is_lost(seed: Path, tmp_path: Path, moment: Moment) -> None:
    outcome = carried_out(moment, seed, tmp_path / "moment", {"answers": {}})
    assert outcome.happened and outcome.where.startswith(f"{moment.point} {moment.when}"), "the moment came"
    assert outcome.problems == []


def test_what_is_lost_is_found(seed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = shutil.copytree(seed, tmp_path / "data")
    monkeypatch.setenv("DIFFSPECT_DATA", str(data))
    half = rundir.create("inspect", {}, state="running")
    database = Database()
    ingest(database)
    with database.write() as cursor:
        cursor.execute("DELETE FROM facts WHERE inspection_id = (SELECT min(inspection_id) FROM facts)")
    database.close()
    found = chaos_check.problems(data, "promotion", [dict(event="20260101-000000-000000-note-000000")], {}, {"answers": {}})
    end(data)
    assert any(f.startswith("rebuild differs in facts: 7 rows live, 8 anew") for f in found)
    assert any("promised and gone" in f for f in found) and any("left running" in f for f in found) and half.exists()
