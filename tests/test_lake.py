"""The store of several plants: rows and answers are the file's, whoever else writes; what is in stays exactly once."""

import copy
import hashlib
import importlib.util
import os
import random
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from backend import rundir
from backend.errors import ConfigError, NotFoundError, StoreError
from backend.jobs import bench_queries, events, gone
from backend.records import Filters
from backend.store import annotations, counting, database, decisions, founding, lake, lines, migration, named, queries, scan, shifts
from backend.store.database import Database
from backend.store.ingest import ingest, rebuild
from backend.store.lake import Lake, Outrun, Place
from tests import lakes
from tests import small_plant as plant
from tests import test_tally as past
from tests.lakes import rows, same

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("Linz", "Graz", "Steyr")
NOW = datetime(2026, 10, 26, 12, tzinfo=UTC)
# A writer: takes in what its plant has, look by look, until nothing is new; says how much it took in and how often it was outrun.
WRITER = """
import sys
from pathlib import Path
from backend.store import lake, scan
from backend.store.ingest import ingest
scan.demo_assets = lambda: Path("/nowhere")
scan.LOT_BYTES = 1
outrun = []
rest = lake.time.sleep
lake.time.sleep = lambda s: (outrun.append(s), rest(s))
db = lake.Lake(lake.Place(sys.argv[1], Path(sys.argv[2]), sys.argv[3]))
print("ready", flush=True)
sys.stdin.readline()
taken = ingest(db)
print(taken + ingest(db), len(outrun))
db.close()
"""


@pytest.fixture(scope="module")
def server() -> Iterator[lakes.Server]:
    if lakes.PROGRAMS is None:
        pytest.skip(lakes.NONE_HERE)
    with lakes.postgres() as server:
        yield server


@pytest.fixture
def of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Go to the data folder of a plant."""
    monkeypatch.setattr(scan, "demo_assets", lambda: tmp_path / "no-bundle")

    def go(name: str) -> Path:
        monkeypatch.setenv("DIFFSPECT_DATA", str(tmp_path / name))
        (tmp_path / name).mkdir(exist_ok=True)
        return tmp_path / name
    return go


@pytest.fixture(params=["file", pytest.param("postgres", marks=pytest.mark.slow)])
def catalogue(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "file":
        return str(tmp_path / "lake.ducklake")
    server: lakes.Server = request.getfixturevalue("server")
    return server.catalogue(re.sub(r"\W", "_", request.node.name.lower()))


@pytest.fixture
def linz(of: Callable[[str], Path], tmp_path: Path) -> Iterator[Lake]:
    """A plant alone in a lake whose catalogue is a file."""
    of("linz")
    db = Lake(Place(str(tmp_path / "lake.ducklake"), tmp_path / "files", "Linz"))
    yield db
    db.close()


def test_a_random_past_comes_to_the_rows_of_a_file(of: Callable[[str], Path], tmp_path: Path, catalogue: str) -> None:
    of("linz")
    db, file, rng = Lake(Place(catalogue, tmp_path / "files", "Linz")), Database(), random.Random(5)
    for step, _ in enumerate(past.happen(rng, 4)):
        if step % 2:                                         # several things at once, and things that went meanwhile
            ingest(db)
    ingest(db)
    ingest(file)
    assert rows(db) == rows(file) and len(rows(file)["facts"]) > 50
    past.compare(db, past.Rows(db), past.asked(rng), rng)
    db.tidy()
    assert rows(db) == rows(file)
    rebuild(db)
    assert rows(db) == rows(file)
    db.close()
    file.close()


def test_only_keys_differ_from_the_schema_of_a_file() -> None:
    ours = founding.without_keys(database.SCHEMA)
    assert "PRIMARY KEY" in database.SCHEMA and "PRIMARY KEY" not in ours
    lines_of = (text.splitlines() for text in (database.SCHEMA, ours))
    moved = [(a.strip(), b.strip()) for a, b in zip(*lines_of, strict=True) if a != b]
    assert [a.replace(" PRIMARY KEY,", ",").replace(", PRIMARY KEY (run_id, part)", "") for a, _ in moved] == [b for _, b in moved]
    assert len(moved) == 2, "the two keys that `turn` stands for: another key needs another thought"


def test_whoever_read_before_another_wrote_is_outrun(linz: Lake) -> None:
    """The two ways of it. The other writer is a second connection that does what `write` does."""
    plant.batch([{}])
    assert ingest(linz) == 2
    other = linz._connection.cursor()
    with pytest.raises(Outrun), linz.write() as cursor:          # the other commits while ours goes on: the commit is refused
        other.execute("UPDATE lake.linz.turn SET n = n + 1")
        cursor.execute("INSERT INTO refused VALUES ('a', 'b', 'c', 'd')")
    assert rows(linz)["refused"] == []
    with pytest.raises(Outrun), linz.write():                    # it has committed since we read what is in
        raise AssertionError("nothing is done for what was read before")
    plant.batch([{}])
    assert ingest(linz) == 2, "what is in is read anew, and the work done again"
    assert Counter(rows(linz)["ingested"]).most_common(1)[0][1] == 1 and len(rows(linz)["facts"]) == 2


def test_what_another_process_took_in_is_not_taken_in_again(linz: Lake) -> None:
    """Everything that one remembers is older than the other's commit."""
    ingest(linz)
    stale = copy.deepcopy(linz.memory)
    before = linz.revision
    plant.batch([dict(boxes=[("pits", 0.9)])])
    ingest(linz)
    linz.memory.clear()
    linz.memory.update(stale)
    assert ingest(linz) == 0 and len(rows(linz)["facts"]) == 1 and linz.revision > before


def asks(name: str) -> list[tuple[Callable[..., Any], tuple[Any, ...]]]:
    """What pages ask about a plant, by its name, all that draws a chart."""
    found: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []
    for f in (Filters(name), Filters(name, line="L1"), Filters(name, class_name="pits"), Filters(name, product="Plate", camera="cam1"),
              Filters(name, counted=False, verdict="defective"), Filters(name, since=datetime(2026, 10, 24).date())):
        found += [(queries.totals, (f,)), (queries.pareto, (f,)), (named.named, (f,)), (queries.images_count, (f,)),
                  *((queries.trend, (f, by, "line")) for by in counting.BUCKETS), (queries.trend_of_kinds, (f,)),
                  (queries.unusual_trend, (f,)), *((queries.breakdown, (f, by)) for by in counting.GROUPS),
                  *((queries.images, (f, order)) for order in queries.ORDERS)]
    found += [(question, (name,)) for question in (queries.choices, queries.review_queue, decisions.notes, decisions.reviews,
                                                   annotations.annotations)]
    return [*found, (lines.lines_now, (name, NOW)), (shifts.counts, (name, NOW.date(), "Day")), (decisions.calendar_now, (name,))]


@pytest.mark.slow                                                # 40 s
def test_four_processes_write_and_every_answer_is_the_files(of: Callable[[str], Path], tmp_path: Path, server: lakes.Server) -> None:
    """Two of one plant, over the same runs, part by part, and two of others, all at once: each part is in once, all is as in a file."""
    where, files = server.catalogue("four"), tmp_path / "files"
    writers: list[subprocess.Popen[str]] = []
    for seed, name in enumerate(NAMES):
        of(name.lower())
        for _ in past.happen(random.Random(seed), 5):
            pass
        plant.decide("note", line="L1", day="2026-10-24", text=f"seen in {name}")
        for _ in range(2 if name == "Linz" else 1):
            writers.append(subprocess.Popen([sys.executable, "-c", WRITER, where, str(files), name], cwd=ROOT, text=True,
                                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ.copy()))
    for writer in writers:
        assert writer.stdout is not None and writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        print("go", file=writer.stdin, flush=True)
    said = [writer.communicate(timeout=600)[0].split() for writer in writers]
    assert [writer.returncode for writer in writers] == [0] * 4
    of("linz")
    ours = Lake(Place(where, files, "Linz"))
    assert ours.elsewhere() == ("Graz", "Steyr")
    for nth, name in enumerate(NAMES):
        folder = of(name.lower())
        file = Database(folder / "inspection.duckdb")
        taken = ingest(file)
        own = ours if name == "Linz" else Lake(Place(where, files, name))
        assert rows(own) == rows(file), name
        mine = sum(int(n) for n, _ in (said[:2] if name == "Linz" else said[2:3] if name == "Graz" else said[3:]))
        assert mine <= taken, "nothing was taken in by two of them; a writer that was outrun tells of its last try alone"
        there = "real" if name == "Linz" else name               # as Linz's app calls it
        for (question, given), (_, called) in list(zip(asks("real"), asks(there), strict=True))[nth::3]:      # all are asked, of one each
            same(question(file, *given), question(ours, *called), there)
        if name == "Linz":
            for (said_of, told), others in zip(bench_queries.questions(file).items(), bench_queries.questions(ours).values(), strict=True):
                if said_of in ("shift_report", "elsewhere"):     # says when it was made, of the others; other plants are in the lake alone
                    continue
                which = random.Random(len(told)).randrange(len(told))
                same(told[which](), others[which]())
        else:
            assert queries.elsewhere(ours)[name] == len(plant.facts(file))
            own.close()
        file.close()
    ours.close()


def test_a_catalogue_that_goes_away_and_comes_back(of: Callable[[str], Path], tmp_path: Path, server: lakes.Server) -> None:
    of("linz")
    db = Lake(Place(server.catalogue("away"), tmp_path / "files", "Linz"))
    plant.batch([{}])
    ingest(db)
    before = rows(db)
    server.stop()
    try:
        plant.batch([dict(boxes=[("pits", 0.9)])])
        with pytest.raises(StoreError, match="cannot be reached"):
            ingest(db)
        with pytest.raises(StoreError, match="cannot be reached"):
            queries.totals(db, Filters())
        with pytest.raises(StoreError, match="cannot be opened"):
            Lake(db.where)
    finally:
        server.start()
    for _ in range(3):                                           # connections that are dead are found out one by one
        try:
            ingest(db)
            break
        except StoreError:
            continue
    found = rows(db)
    assert found["set_aside"] == [] and len(found["facts"]) == 2 and set(before["facts"]) < set(found["facts"])
    db.close()


def test_a_name_belongs_to_a_data_folder(of: Callable[[str], Path], tmp_path: Path, linz: Lake) -> None:
    plant.batch([{}])
    ingest(linz)
    linz.close()
    of("graz")
    with pytest.raises(StoreError, match="kept by the data folder of another Diffspect"):
        Lake(linz.where)
    graz = Lake(Place(linz.where.catalogue, linz.where.files, "Graz"))
    picture = plant.batch([dict(boxes=[("pits", 0.9)], file_name="ours.png")])
    ingest(graz)
    assert queries.plants(graz)["real"] == 1 and queries.elsewhere(graz) == {"Linz": 1}
    listed = queries.images(graz, Filters("Linz"))
    assert len(listed) == 1 and queries.inspection(graz, int(listed["inspection_id"][0]))["plant"] == "Linz"
    with pytest.raises(NotFoundError, match="Pictures of Linz are kept there"), gone.explained(graz, int(listed["inspection_id"][0])):
        raise NotFoundError("This picture was not kept.")
    own = int(rundir.rows(picture, "inspections")["inspection_id"][0].as_py())
    with pytest.raises(NotFoundError, match="was not kept"), gone.explained(graz, own):
        raise NotFoundError("This picture was not kept.")
    with pytest.raises(ConfigError, match="Linz is looked after by a Diffspect of its own"):
        events.record("note", dict(line="L1", text="from afar"), plant="Linz")
    graz.close()


@pytest.mark.parametrize(("name", "files"), [("", "/lake"), ("real", "/lake"), ("a'b", "/lake"), ("Linz", ""), ("Linz", "s3://lake")])
def test_a_place_says_what_it_lacks(name: str, files: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in (("STORE", "postgres:host=db password=secret"), ("STORE_FILES", files), ("PLANT", name)):
        monkeypatch.setenv(f"DIFFSPECT_{key}", value)
    with pytest.raises(StoreError, match="A lake needs"):
        lake.chosen()


def test_a_password_is_not_said() -> None:
    assert "secret" not in Place("postgres:host=db password=secret user=me", Path("/lake"), "Linz").told
    assert Place("postgres:host=db password='my secret' user=me", Path("/lake"), "Linz").told == "postgres:host=db password=… user=me"


def test_without_its_packages_a_sentence(of: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of("linz")
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if "ducklake" in name else found(name, *more))
    with pytest.raises(StoreError, match="duckdb-extension-ducklake"):
        Lake(Place(str(tmp_path / "lake.ducklake"), tmp_path / "files", "Linz"))


def test_few_files_after_a_quiet_time(linz: Lake) -> None:
    """Files of the lake that questions open, before and after; those that nobody sees any more go an hour later."""
    for _ in range(5):
        plant.batch([dict(boxes=[("pits", 0.9)])])
        ingest(linz)
    before, files = rows(linz), _files(linz)
    linz.tidy()
    assert rows(linz) == before and _files(linz) < files / 2
    plant.batch([{}])
    ingest(linz)
    rebuild(linz)
    assert len(rows(linz)["facts"]) == 6


def _files(db: Lake) -> int:
    with db.cursor() as cursor:
        return int(cursor.execute("SELECT sum(file_count + delete_file_count) FROM ducklake_table_info('lake')").one())


def test_rows_move_from_the_file_and_back(of: Callable[[str], Path], tmp_path: Path) -> None:
    folder = of("linz")
    for _ in past.happen(random.Random(1), 3):
        pass
    file = Database()
    ingest(file)
    expected = rows(file)
    told: list[str] = []
    db = Lake(Place(str(tmp_path / "lake.ducklake"), tmp_path / "files", "Linz"))
    with pytest.raises(StoreError, match="still running"):
        migration.migrate(file.path, db, lambda table, done, of: None)
    file.close()
    content = hashlib.sha256(file.path.read_bytes()).hexdigest()
    copied = migration.migrate(file.path, db, lambda table, done, of: told.append(f"{table} {done} {of}"))
    assert rows(db) == expected and copied["facts"] == len(expected["facts"]) and f"facts {copied['facts']} {copied['facts']}" in told
    assert hashlib.sha256(file.path.read_bytes()).hexdigest() == content
    assert ingest(db) == 0, "all that is on disk is in"
    with pytest.raises(StoreError, match="has records in the lake already"):
        migration.migrate(file.path, db, lambda table, done, of: None)
    db.close()
    (folder / "inspection.duckdb").unlink()
    back = Database()
    rebuild(back)
    assert rows(back) == expected
    back.close()


def test_a_sum_that_differs_takes_nothing_along(of: Callable[[str], Path], linz: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    plant.batch([{}, {}])
    file = Database()
    ingest(file)
    file.close()
    whole = migration._batches
    monkeypatch.setattr(migration, "_batches", lambda source, table: (b.slice(1) if table == "facts" else b for b in whole(source, table)))
    with pytest.raises(StoreError, match="The table facts came to 1 rows"):
        migration.migrate(file.path, linz, lambda table, done, of: None)
    assert not any(found for table, found in rows(linz).items() if table != "about")


def test_an_earlier_versions_records_are_made_again(of: Callable[[str], Path], tmp_path: Path, linz: Lake,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    """And a plant whose program is of another version is not shown until it is the same."""
    plant.batch([dict(boxes=[("pits", 0.9)])])
    ingest(linz)
    expected = rows(linz)
    linz.close()
    monkeypatch.setattr(database, "DIGEST", "another")
    of("graz")
    graz = Lake(Place(linz.where.catalogue, linz.where.files, "Graz"))
    assert graz.elsewhere() == ()
    graz.close()
    of("linz")
    again = Lake(linz.where)
    assert rows(again)["facts"] == []
    ingest(again)
    assert {n: r for n, r in rows(again).items() if n != "about"} == {n: r for n, r in expected.items() if n != "about"}
    again.close()
    monkeypatch.setattr(database, "VERSION", 0)
    with pytest.raises(StoreError, match="A newer Diffspect"):
        Lake(linz.where)


def test_pages_of_two_plants(data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Overview lists the other plant's lines, and shows it under its name."""
    import streamlit as st

    from backend.jobs import house
    from tests.test_pages_plant import inspect, page, words

    st.cache_data.clear()
    where = dict(DIFFSPECT_STORE=str(tmp_path / "lake.ducklake"), DIFFSPECT_STORE_FILES=str(tmp_path / "files"))
    for key, value in where.items():
        monkeypatch.setenv(key, value)
    for name in ("graz", "linz"):
        monkeypatch.setenv("DIFFSPECT_PLANT", name.title())
        monkeypatch.setenv("DIFFSPECT_DATA", str(data_folder / name))
        (data_folder / name).mkdir(parents=True)
        events.set_calendar()
        inspect(f"Line of {name}", days=2, until=datetime.now(UTC) - timedelta(minutes=5))
        if name == "graz":                                       # without an app: a catalogue in a file serves one at a time
            db = lake.opened()
            ingest(db)
            db.close()
    assert house.opened().caught_up.wait(120)
    at = page("overview")
    assert "Line of linz" in words(at) and at.dataframe[0].value["Line"].tolist() == ["Line of graz"]
    at.segmented_control(key="plant").set_value("Graz").run()
    assert not at.exception and "Line of graz" in words(at) and "Line of linz" not in words(at)
    assert "Graz is looked after by a Diffspect of its own" in words(at)
