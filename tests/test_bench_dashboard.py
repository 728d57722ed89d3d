"""`bench dashboard`: the plant it draws, what it asks of the store, and the protocol of its visitors, held against Streamlit's own."""

import ast
import re
import shutil
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from streamlit.proto.Alert_pb2 import Alert
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

from backend import rundir
from backend.errors import DiffspectError
from backend.jobs import bench_client, bench_dashboard, bench_pages, bench_plant, bench_queries
from backend.jobs.bench_dashboard import quantile, table
from backend.jobs.bench_plant import DAY, Plan
from backend.store import queries
from backend.store.database import Database
from backend.store.ingest import ingest
from tests.recipes import inspection

ROOT = Path(__file__).resolve().parents[1]
LAST = date(2026, 11, 28)
PLANT_PAGES = {page for page, _ in bench_pages.PAGES.values()} | {"inspection"}
# Asked by these pages and not timed: of run directories, files or a few events alone, of one picture; or made of what is timed.
ELSEWHERE = {"control_charts", "control_choices", "control_trial", "datasets", "export", "heat", "images", "known", "picture", "revision",
             "scored_runs", "software_checks",
             "lines_elsewhere"}                 # lines_now, of plants that only a lake holds


def test_a_larger_plant_has_a_longer_past_and_the_same_end() -> None:
    small, large = Plan(400, 3, LAST), Plan(DAY + 700, 3, LAST)
    assert (small.days, large.days, large.size(1), large.size(0), large.size(2)) == (1, 2, 700, DAY, DAY)
    assert [large.run_id(b) for b in (1, 0)] == sorted(large.run_id(b) for b in (0, 1)) and small.run_id(0) == large.run_id(0)
    one, other = (bench_plant.inspections(np.random.default_rng([3, 0]), plan, 0) for plan in (large, Plan(5 * DAY, 3, LAST)))
    assert one.equals(other) and one.num_rows == DAY


@pytest.fixture
def small(data_folder: Path) -> Plan:
    """A plant of half an hour, drawn, stopped in between, and drawn to its end."""
    for path in list(rundir.find("calendar")):
        shutil.rmtree(path)
    plan = Plan(600, 3, LAST)
    assert list(bench_plant.prepare(plan)) == [600]
    before = {p.name for p in rundir.find()}
    gone = rundir.run_path(plan.run_id(0))
    parts = [rundir.read_part(p) for p in rundir.parts(gone)]
    shutil.rmtree(gone)
    assert list(bench_plant.prepare(plan)) == [600] and {p.name for p in rundir.find()} == before
    assert all(a.equals(rundir.read_part(p)) for a, p in zip(parts, rundir.parts(gone), strict=True))
    return plan


def test_a_few_pictures_come_late(small: Plan) -> None:
    db = Database()
    ingest(db)
    for more in (5, 10):
        bench_plant.late(5)
        ingest(db)
        assert queries.plants(db)["real"] == 600 + more and queries.choices(db, "real")["last_day"] == LAST
    db.close()


def test_every_question_has_an_answer(small: Plan) -> None:
    db = Database()
    ingest(db)
    assert queries.plants(db)["real"] == 600 and queries.choices(db, "real")["last_day"] == LAST
    with db.cursor() as cursor:
        assert cursor.execute("SELECT count(*) FROM set_aside").one() == 0
    asked = bench_queries.questions(db)
    for name, asks in asked.items():
        assert asks[0]() is not None, name
    db.close()
    assert {"counts of a shift", "weeks of a shift", "decided in a shift"} < asked.keys()
    called = {name.split(",")[0] for name in asked}
    missing = set().union(*map(results_of, PLANT_PAGES)) - called - ELSEWHERE
    assert not missing, f"the pages ask for {sorted(missing)}: time it in bench_queries, or say why not in ELSEWHERE"


def test_a_stage_that_was_stopped_begins_anew(small: Plan) -> None:
    """Rows that an earlier try brought are not among those that come in."""
    before = rundir.create("inspect", {}, run_id=small.run_id(small.days))
    rundir.write_part(before, "inspections", [inspection(1)])
    db = Database()
    ingest(db)
    assert queries.plants(db)["real"] == 601
    db.close()
    staged, = bench_dashboard._more(small)
    assert staged.name == f".{before.name}" and not before.exists()
    assert sum(rundir.read_part(p).num_rows for p in rundir.parts(staged, "inspections")) == DAY
    db = Database()
    assert queries.plants(db)["real"] == 600
    db.close()


def test_every_page_of_the_plant_is_timed() -> None:
    group = re.search(r'"Plant": \[(.+?)\]', (ROOT / "frame.py").read_text(), re.DOTALL)
    assert group and set(re.findall(r'\("(\w+)", ', group[1])) <= PLANT_PAGES


def results_of(page: str) -> set[str]:
    """Questions to `jobs.results` of a page and of the components that it imports, whatever for."""
    found: set[str] = set()
    seen, todo = set(), [ROOT / "pages" / f"{page}.py"]
    while todo:
        path = todo.pop()
        if path in seen or not path.exists():
            continue
        seen.add(path)
        text = path.read_text()
        found |= {*re.findall(r'cached\(\s*"(\w+)"', text), *re.findall(r"jobs\.results\.(\w+)", text)}
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and node.module == "pages.components":
                todo += [ROOT / "pages" / "components" / f"{a.name}.py" for a in node.names]
    return found


def test_visitors_speak_streamlits_protocol() -> None:
    state = bench_client._text(1, "period=All") + bench_client._text(4, "trends") + bench_client._text(3, "x" * 300)
    asked = BackMsg.FromString(bench_client._message(11, state)).rerun_script
    assert (asked.query_string, asked.page_name, asked.page_script_hash) == ("period=All", "trends", "x" * 300)
    told = ForwardMsg()
    told.navigation.page_script_hash = "abc"
    told.metadata.delta_path.extend([1, 300])
    assert bench_client.find(told.SerializeToString(), 23, 4) == b"abc" and bench_client.find(told.SerializeToString(), 23, 9) is None
    done = ForwardMsg(script_finished=ForwardMsg.FINISHED_SUCCESSFULLY)
    assert dict(bench_client.fields(done.SerializeToString())) == {6: bench_client._WHOLE}
    broken, sorry = ForwardMsg(), ForwardMsg()
    broken.delta.new_element.exception.message = "x"
    sorry.delta.new_element.alert.body = "Try again"
    sorry.delta.new_element.alert.format = Alert.ERROR
    for message, words in ((broken, "failed"), (sorry, "Try again")):
        with pytest.raises(DiffspectError, match=words):
            bench_client._sound("trends", bench_client.find(message.SerializeToString(), 5))


def test_the_table_says_median_and_95_percent() -> None:
    assert quantile([3.0, 1.0, 2.0, 4.0], 0.5) == 2.0 and quantile([float(n) for n in range(1, 21)], 0.95) == 19.0
    rows = table({"10 rows": {"ingest": [5000.0], "query": [1.0, 3.0]}, "100 rows": {"query": [7.0, 9.0]}}).splitlines()
    assert rows[1].split() == ["ingest", "5,000"] and rows[2].split("p50")[1:] == [" 1, p95 3              ", " 7, p95 9"]
