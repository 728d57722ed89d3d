"""Looking back with another model: which pictures, through the real engine and the real store, stopped and taken up, and what it comes to.

The models are `bright_model`'s, whose answers are known; the one in use calls a picture defective from half red on.
"""

import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest

from backend import jobs, rundir
from backend.config import Inspect, Shadow
from backend.data import images
from backend.errors import Canceled, ConfigError, InputError, NotFoundError
from backend.inspection import inspect, keeping, kept, shadow
from backend.jobs import house, pace, recipes, results, runs
from backend.records import Filters
from backend.store import engineering, ingest, queries
from backend.store import shadow as answers
from backend.store.database import Database
from tests import bright_model
from tests import small_plant as plant

DAY = timedelta(days=1)
NOON = (datetime.now(UTC) - 2 * DAY).replace(hour=12, minute=0, second=0, microsecond=0)        # of the newest day
NOW = NOON + timedelta(hours=2)


@pytest.fixture(autouse=True)
def _days_begin_at_six(data_folder: Path) -> None:
    plant.decide("calendar", time_zone="UTC", day_start="06:00", shifts=[])


@pytest.fixture
def db(request: pytest.FixtureRequest, data_folder: Path) -> Iterator[Database]:
    if "looked" in request.fixturenames:
        request.getfixturevalue("looked")                      # before the database is opened: it brings one
    db = Database()
    yield db
    db.close()


def model(name: str, gain: float = 1.0, **changes: Any) -> str:
    """A trained model of the known kind, as its run leaves it; its id."""
    run = rundir.create("train-detector", {"name": name})
    head = json.loads((bright_model.bundle(run / "model", name, gain, **changes) / "model.json").read_text())
    rundir.write_part(run, "models", [dict(head, metrics="{}", settings="{}", created_at=datetime.now(UTC))])
    rundir.write_part(run, "model_thresholds", [dict(model_id=head["model_id"], class_name=c, threshold=t)
                                                for c, t in head["thresholds"].items()])
    plant.finish(run)
    return str(head["model_id"])


def batch(pits: list[float], day: int = 0, marks: int = 0, **more: Any) -> Path:
    """Kept pictures of so much red, as the model in use (m1, from 0.5 on) recorded them, a minute apart; `day`: so many days ago."""
    at = [NOON - day * DAY + timedelta(minutes=n) for n in range(len(pits))]
    ids = [bright_model.kept(red, mark=1000 * day + marks + n) for n, red in enumerate(pits)]
    return plant.batch([dict(image_id=i, captured_at=t, ingested_at=t, boxes=[("pits", red)]) | more
                        for i, t, red in zip(ids, at, pits, strict=True)])


def chosen(learned: set[str] = frozenset(), **asked: Any) -> kept.Chosen:
    return kept.choose(Shadow(**asked), NOW, set(learned))


def look(report: Any = lambda **progress: None, run: Path | None = None, **asked: Any) -> Path:
    """A look-back, carried out here, begun or taken up."""
    config = Shadow(**asked)
    run = run or rundir.create("shadow", config.to_json(), plant=config.plant)
    result = shadow.run(config, run, report)
    rundir.write_json(run / "result.json", result)
    rundir.set_state(run, "completed", started_at=rundir.now(), finished_at=rundir.now())
    return run


def rows(run: Path) -> list[dict[str, Any]]:
    return rundir.rows(run, "shadows").to_pylist()


# ---- which pictures


def test_it_takes_the_pictures_that_the_store_counts(db: Database) -> None:
    """Whatever was said of them since: the list is made from files alone, and must be the store's own."""
    first = batch([0.1, 0.6, 0.7, 0.2])
    batch([0.3], marks=50, line="")
    lineless = batch([0.4, 0.8], marks=60, line="", counted=False, not_counted_why="no line")
    other = batch([0.1] * 3, day=2, line="L2", product="Cover")
    batch([0.2, 0.9], day=1, marks=70, counted=False, not_counted_why="dataset Steel")
    taken_out, put_in = batch([0.1, 0.2], day=1), batch([0.3, 0.4], day=1, marks=80, counted=False, not_counted_why="switched off")
    batch([0.1, 0.9], ingested_at=NOW)                                 # the very picture of `first`, later, and a new one
    batch([0.5] * 4, day=40)
    ids = {run: rundir.rows(run, "inspections")["inspection_id"].to_pylist() for run in (first, other)}
    plant.decide("correct", run_id=lineless.name, inspection_ids=[], fields={"line": "L3", "product": "Plate"})
    plant.decide("correct", run_id=other.name, inspection_ids=ids[other][:1], fields={"line": "L1"})
    plant.decide("correct", run_id=first.name, inspection_ids=ids[first][3:], fields={"captured_at": f"{NOON - 40 * DAY:%Y-%m-%dT%H:%M}"})
    plant.decide("exclude", run_id=taken_out.name, inspection_ids=[])
    undone = plant.decide("exclude", run_id=first.name, inspection_ids=[])
    plant.decide("undo", run_id=undone)
    plant.decide("include", run_id=put_in.name, inspection_ids=[])
    ingest.ingest(db)
    for asked in (dict(days=7), dict(days=1), dict(days=2, line="L1"), dict(days=60, line="L1"), dict(product="Cover"), dict(line="L3")):
        found = chosen(**asked)
        with db.cursor() as cursor:
            counted = cursor.execute("SELECT image_id FROM facts WHERE counted AND captured_at BETWEEN ? AND ? AND (? = '' OR line = ?) "
                                     "AND (? = '' OR product = ?)", [found.since, found.until, *2 * [asked.get("line", "")],
                                                                     *2 * [asked.get("product", "")]]).column()
        assert sorted(found.images) == sorted(counted) and len(counted) > 0 and found.pictures == len(counted)
        there = answers.available(db, "real", asked.get("line", ""), asked.get("product", ""), asked.get("days", 14))
        assert (there["pictures"], there["kept"]) == (len(counted), len(counted))
    with pytest.raises(InputError, match="No picture of L9 counts"):
        chosen(line="L9")


@pytest.mark.parametrize(("last", "days", "first"), [
    ("2026-06-10T12:00", 1, "2026-06-10T04:00"), ("2026-06-10T03:59", 1, "2026-06-09T04:00"),       # the day begins at 6 in Berlin
    ("2026-06-10T12:00", 14, "2026-05-28T04:00"), ("2026-10-26T12:00", 3, "2026-10-24T04:00"), ("2026-10-26T12:00", 1, "2026-10-26T05:00")])
def test_days_are_the_plants(last: str, days: int, first: str) -> None:
    at, start = (datetime.fromisoformat(t).replace(tzinfo=UTC) for t in (last, first))
    assert kept.first_moment(at, days, ZoneInfo("Europe/Berlin"), timedelta(hours=6)) == start


def test_every_beginning_is_a_fair_sample() -> None:
    """Also where cameras take turns, which every second picture would not be."""
    ids = [f"demo:{n}" for n in range(4000)]
    strata = [f"line {n % 3 == 0} day {n // 400}" for n in range(4000)]
    order = kept.spread(ids, strata)
    assert sorted(order.tolist()) == list(range(4000)) and order.tolist() == kept.spread(ids, strata).tolist()
    for many in (40, 333, 2000):
        shares = pd.Series([strata[i] for i in order[:many]]).value_counts(normalize=True)
        assert (shares - pd.Series(strata).value_counts(normalize=True)).abs().max() < 1.5 / many + 1e-9
        assert abs(np.mean([i % 2 for i in order[:many]]) - 0.5) < 3 * 0.5 / many**0.5
    assert kept.spread([], []).tolist() == []


def test_who_is_left_out_is_counted(db: Database) -> None:
    ids = rundir.rows(batch([0.1, 0.2, 0.3, 0.6, 0.7, 0.8]), "inspections")["image_id"].to_pylist()
    batch([0.1] * 2, marks=20, kept=False)
    by_lot = rundir.rows(batch([0.15] * 40, marks=100, kept_share=0.25), "inspections")["image_id"].to_pylist()
    stays = [i for i in by_lot if keeping.drawn(i, 0.25)]
    gone = images.path_of(ids[0])
    assert gone is not None and 0 < len(stays) < 40
    gone.unlink()
    found = chosen(learned={ids[1], ids[5], "elsewhere"})
    assert set(found.images) == {*ids[2:5], *stays}, "what lies on disk without having been drawn stands for nothing"
    assert (found.pictures, found.unkept, found.gone, found.learned, found.there) == (48, 2 + 40 - len(stays), 1, 2, 3 + len(stays))
    few = chosen(pictures=3)
    assert few.images == chosen().images[:3] and few.there == 5 + len(stays)


def test_a_clock_that_runs_ahead_does_not_move_the_days(db: Database) -> None:
    batch([0.1, 0.2])
    batch([0.9], marks=9, captured_at=NOW + 400 * DAY)
    assert len(chosen().images) == 2 and chosen().until < NOW


# ---- the run


def test_the_same_model_says_the_same(db: Database) -> None:
    """By the same engine, from the kept picture, to the last digit; and nothing is counted anew."""
    mine = model("mine")
    run = rundir.create("inspect", Inspect(model="mine", line="L1").to_json(), state="running")
    (run / "inbox").mkdir()
    for n in range(12):
        (run / "inbox" / f"{n:06}.bin").write_bytes(bright_model.encoded(n / 12, 1 - n / 12, n))
    rundir.write_json(run / "inbox" / "inbox.json", [dict(file=f"{n:06}.bin", name=f"{n}.png") for n in range(12)])
    inspect.run(Inspect(model="mine", line="L1", anomaly="none"), run, lambda **progress: None)
    plant.finish(run)
    ingest.ingest(db)
    before = plant.facts(db)
    ingest.ingest(db, [(made := look(model="mine")).name])
    assert plant.facts(db) == before
    logged = rundir.rows(run, "detections").to_pylist()
    of = {r["inspection_id"]: r["image_id"] for r in rundir.rows(run, "inspections").to_pylist()}
    assert {(r["image_id"], *b.values()) for r in rows(made) for b in r["boxes"]} \
        == {(of[d.pop("inspection_id")], *d.values()) for d in logged} and len(logged) == 12
    found = answers.look_back(db, made.name)["figures"]
    assert (found["difference"], found["more"], found["fewer"], found["looked"], found["model_id"]) == (0, 0, 0, 12, mine)
    assert -0.2 < found["low"] < 0 < found["high"] < 0.2 and found["was"] == found["would"]


class Stop:
    """A report that stops the run at the n-th call."""

    def __init__(self, at: int, how: type[BaseException] = Canceled) -> None:
        self.left, self.how, self.said = at, how, []

    def __call__(self, *, step: int, total: int, message: str) -> None:
        self.said.append((step, total))
        self.left -= 1
        if not self.left:
            raise self.how


def test_stopped_and_taken_up_it_makes_the_same_rows(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadow, "MOST", 4)
    model("mine")
    for day in range(3):
        batch(np.linspace(0, 1, 15).tolist(), day=day)
    whole = rows(look(model="mine"))
    assert len(whole) == 45 and all(r["why"] == "" and len(r["boxes"]) == (r["boxes"] != []) for r in whole)
    run = rundir.create("shadow", Shadow(model="mine").to_json())
    said: list[tuple[int, int]] = []
    for stop in (Stop(4), Stop(3, KeyboardInterrupt), Stop(1)):
        with pytest.raises((Canceled, KeyboardInterrupt)):
            look(stop, run, model="mine")
        said += stop.said
        ingest.ingest(db)
        model("later", gain=2.0)                               # neither a new model nor new pictures move it
        batch([0.9] * 3, marks=500 + len(said))
    sofar = answers.look_back(db, run.name)["figures"]
    assert sofar["looked"] == len(rows(run)) == 16 and sofar["planned"] == 45, "what was looked at is kept, and shown"
    assert said == [(0, 1), (0, 45), (4, 45), (8, 45), (8, 45), (12, 45), (16, 45), (16, 45)]
    assert rows(look(run=run, model="mine")) == whole
    assert [p.name for p in rundir.parts(run)] == [f"shadows-{n:06}.parquet" for n in range(1, len(rundir.parts(run)) + 1)]
    ingest.ingest(db)
    assert answers.look_back(db, run.name)["figures"]["looked"] == 45


def test_a_part_that_was_cut_off_is_done_again(db: Database) -> None:
    """Killed before its part was renamed: what there is of it counts for nothing."""
    model("mine")
    batch([0.2, 0.8, 0.4])
    run = rundir.create("shadow", Shadow(model="mine").to_json())
    with pytest.raises(Canceled):
        look(Stop(1), run, model="mine")
    (run / "parts" / ".shadows-000001.parquet").write_bytes(b"half")
    assert len(rows(look(run=run, model="mine"))) == 3


def test_what_goes_while_it_looks_is_left_out(db: Database) -> None:
    model("mine")
    ids = rundir.rows(batch([0.9, 0.8, 0.1, 0.2]), "inspections")["image_id"].to_pylist()

    def clear(**progress: Any) -> None:
        if progress["message"].startswith("Looking for"):
            return
        assert progress["total"] == 4

    run = rundir.create("shadow", Shadow(model="mine").to_json())
    with pytest.raises(Canceled):
        look(Stop(1), run, model="mine")
    shadow._plan(Shadow(model="mine"), run, clear)             # the list is made; then a disk is cleared
    paths = [images.path_of(i) for i in ids]
    paths[0].unlink()
    paths[3].write_bytes(b"\x89PNG\r\n\x1a\n cut short")
    done = look(clear, run, model="mine")
    why = {r["image_id"]: r["why"] for r in rows(done)}
    assert why[ids[0]] == "gone" and "damaged" in why[ids[3]] and why[ids[1]] == why[ids[2]] == ""
    result = rundir.read_json(done / "result.json")
    assert (result["looked"], result["gone"], result["damaged"], result["planned"]) == (2, 1, 1, 4)
    ingest.ingest(db)
    found = answers.look_back(db, done.name)["figures"]
    assert (found["looked"], found["gone"], found["damaged"], found["pictures"]) == (2, 1, 1, 4)


def test_demo_pictures_are_drawn_for_it(db: Database) -> None:
    model("mine")
    ids = [f"demo:{n}:1a:1:{'good' if n else 'crack'}" for n in range(3)]
    plant.batch([dict(image_id=i, width=256, height=256, captured_at=NOON) for i in ids], plant="demo")
    run = look(model="mine", plant="demo", days=3, pictures=2)
    assert {r["image_id"] for r in rows(run)} <= set(ids) and [r["plant"] for r in rows(run)] == ["demo"] * 2
    assert all(0.3 < r["boxes"][0]["confidence"] < 0.9 for r in rows(run)), "steel is grey"
    ingest.ingest(db)
    assert answers.look_back(db, run.name)["figures"]["looked"] == 2
    with pytest.raises(InputError, match="nothing to look back on"):
        look(model="mine")


def test_what_a_person_may_have_set_wrongly(db: Database) -> None:
    model("mine")
    with pytest.raises(InputError, match="No picture of this plant counts"):
        look(model="mine")
    batch([0.3, 0.4], kept=False)
    with pytest.raises(InputError, match="None of the 2 pictures .* 2 were not kept, 0 are not on disk any more"):
        look(model="mine")
    with pytest.raises(NotFoundError, match="no detector called 'other'"):
        look(model="other")
    with pytest.raises(ConfigError):
        Shadow(days=0)


def test_pictures_that_the_model_learned_from_are_left_out(db: Database) -> None:
    ids = rundir.rows(batch([0.1, 0.2, 0.3, 0.9]), "inspections")["image_id"].to_pylist()
    dataset = rundir.create("import", {}, state="completed")
    rundir.write_json(dataset / "snapshot.json", dict(snapshot_id="s1", name="Steel"))
    rundir.write_part(dataset, "snapshot_images", [
        dict(snapshot_id="s1", image_id=i, split=split, origin="real") for i, split in zip(ids, ("train", "val", "test"), strict=False)])
    model("mine", snapshot_id="s1")
    result = rundir.read_json(look(model="mine") / "result.json")
    assert (result["looked"], result["learned"], result["notes"]) == (2, 2, [])
    shutil.rmtree(dataset)
    result = rundir.read_json(look(model="mine") / "result.json")
    assert (result["looked"], result["learned"]) == (4, 0) and "not here any more" in result["notes"][0]


# ---- what it comes to


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two lines, three days; the new model is 1.5 times as sure, so what was from 1/3 to 1/2 turns. Looked back, and taken in."""
    root = tmp_path_factory.mktemp("looked") / "data"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFSPECT_DATA", str(root))
        plant.decide("calendar", time_zone="UTC", day_start="06:00", shifts=[])
        model("m1", model_id="m1")                             # the record's: only its name and thresholds matter here
        model("new", gain=1.5)
        for day in range(3):
            batch([0.1, 0.2, 0.4, 0.6, 0.45], day=day)
            batch([0.1, 0.05, 0.3, 0.9, 0.2], day=day, marks=50, line="L2", unit_id=f"u{day}")
        look(model="new")
        db = Database()
        ingest.ingest(db)
        db.close()
    return root


@pytest.fixture
def looked(template: Path, data_folder: Path) -> Path:
    """The look-back, in a data folder of its own."""
    shutil.rmtree(data_folder)                                 # its calendar: another would place everything anew
    shutil.copytree(template, data_folder)
    return next(rundir.find("shadow"))


def test_both_models_on_the_same_pictures(db: Database, looked: Path) -> None:
    found = answers.look_back(db, looked.name)
    figures = found["figures"]
    assert (figures["looked"], figures["more"], figures["fewer"]) == (30, 6, 0)
    assert (figures["was"], figures["would"]) == pytest.approx((6 / 30, 12 / 30)) and figures["difference"] == pytest.approx(0.2)
    assert -0.05 < figures["low"] < 0.1 < 0.3 < figures["high"] < 0.45 and figures["models"] == {"m1": 30}
    assert figures["pictures"] == queries.totals(db, Filters())["inspected"] and figures["rejected"] == 6, "as the trends have it"
    days, lines, kinds = found["days"], found["lines"].set_index("value"), found["kinds"].set_index("value")
    assert days["pictures"].tolist() == [10] * 3 and days["would"].tolist() == pytest.approx([0.4] * 3)
    assert days["bucket"].dt.date.tolist() == [(NOON - n * DAY).date() for n in (2, 1, 0)]
    assert (days["was_low"] < days["was"]).all() and (days["would"] < days["would_high"]).all()
    assert lines.loc["L1", ["looked", "more"]].tolist() == [15, 6] and lines.loc["L2", "more"] == 0
    assert lines.loc["L2", "low"] < 0 < lines.loc["L2", "high"] and lines.loc["L1", "low"] > 0
    assert kinds.index.tolist() == ["pits"] and kinds.loc["pits", ["more", "fewer"]].tolist() == [6, 0]


def test_pictures_that_would_turn(db: Database, looked: Path) -> None:
    turned = answers.changed(db, looked.name, "reject")
    assert turned["would_confidence"].tolist() == pytest.approx([0.675] * 3 + [0.6] * 3, abs=0.01)
    assert set(turned["would_class"]) == {"pits"} and not turned["was"].any() and turned["would"].all() and set(turned["line"]) == {"L1"}
    assert len(answers.changed(db, looked.name, "reject", "L1", "pits", limit=4)) == 4
    assert len(answers.changed(db, looked.name, "reject", limit=4, offset=4)) == 2
    assert answers.changed(db, looked.name, "reject", "L2").empty and answers.changed(db, looked.name, "reject", kind="scratch").empty
    assert answers.changed(db, looked.name, "pass").empty
    with pytest.raises(ConfigError):
        answers.changed(db, looked.name, "1=1")
    box = answers.boxes(db, looked.name, int(turned["inspection_id"].iloc[0])).iloc[0]
    assert (box["class_name"], bool(box["passes"])) == ("pits", True) and box["confidence"] == pytest.approx(0.675, abs=0.01)
    assert box["threshold"] == 0.5 and [box[side] for side in ("x1", "y1", "x2", "y2")] == [8, 8, 24, 24]


def test_rules_restate_it_as_they_restate_the_record(db: Database, looked: Path) -> None:
    policy = plant.decide("policy", product="Plate", class_name="pits", action="reject", threshold=0.65)
    ingest.ingest(db)
    found = answers.look_back(db, looked.name)["figures"]
    assert (found["was"], found["would"]) == pytest.approx((3 / 30, 9 / 30)) and found["by_hand"] == ["pits"]
    plant.decide("policy", class_name="pits", action="minor", product="Plate")
    ingest.ingest(db)
    assert answers.look_back(db, looked.name)["figures"]["would"] == 0 and answers.look_back(db, looked.name)["kinds"].empty
    plant.decide("undo", run_id=policy)
    ingest.ingest(db)
    assert answers.look_back(db, looked.name)["figures"]["was"] == 0, "the later rule stands"


def test_a_person_agrees_with_one_of_them(db: Database, looked: Path) -> None:
    turned = answers.changed(db, looked.name, "reject")["inspection_id"].tolist()
    for inspection_id, verdict in zip(turned, ("defective", "good", "defective"), strict=False):
        plant.decide("review", inspection_id=inspection_id, verdict=verdict)
    ingest.ingest(db)
    found = answers.look_back(db, looked.name)["figures"]
    assert (found["judged"], found["agreed"]) == (3, 2)


def test_pictures_kept_by_lot_stand_for_their_like(db: Database) -> None:
    """200 good ones of which a tenth stays, and a quarter would be rejected; 20 rejects that all stay, and half would pass."""
    model("m1", model_id="m1")
    model("new", gain=0.8, thresholds={"pits": 0.25, "scratch": 0.5})
    batch([0.4 if n % 4 == 0 else 0.1 for n in range(200)], kept_share=0.1)
    batch([0.3 if n % 2 else 0.9 for n in range(20)], marks=500, boxes=[("pits", 0.9)])
    run = look(model="new")
    ingest.ingest(db)
    found = answers.look_back(db, run.name)["figures"]
    stayed = found["looked"] - 20
    assert (found["pictures"], found["rejected"], found["lot"], found["fewer"]) == (220, 20, stayed, 10) and 10 < stayed < 30
    assert found["was"] == pytest.approx(20 / 220), "known of all, whatever was kept"
    assert found["would"] == pytest.approx((200 * found["more"] / stayed + 10) / 220)
    assert found["low"] < (50 - 10) / 220 < found["high"] and found["high"] - found["low"] > 0.2
    even = answers.step(pd.DataFrame(dict(was=[True] * 30 + [False] * 30, would=[False] * 60, weight=1.0, unit=range(60), lot=range(60))))
    lots = answers.step(pd.DataFrame(dict(was=[True] * 30 + [False] * 30, would=[False] * 60, weight=[1.0] * 30 + [10.0] * 30,
                                          unit=range(60), lot=range(60))))
    assert even["difference"] == -0.5 and lots["difference"] == pytest.approx(-30 / 330)
    assert lots["high"] - lots["low"] > 0.1, "thirty pictures that stand for ten each do not weigh like 330"


def test_views_of_a_part_and_pictures_of_a_lot_are_not_so_many_proofs() -> None:
    rng = np.random.default_rng(0)
    turns = np.repeat(rng.random(40) < 0.2, 10)
    frame = pd.DataFrame(dict(was=False, would=turns, weight=1.0, unit=np.arange(400), lot=np.arange(400)))
    found = {of: answers.step(frame.assign(**{of: np.arange(400) // 10})) for of in ("lot", "unit")} | {"alone": answers.step(frame)}
    width = {of: s["high"] - s["low"] for of, s in found.items()}
    assert 2.5 < width["lot"] / width["alone"] < 4 and 2.5 < width["unit"] / width["alone"] < 4


@pytest.mark.parametrize(("up", "down"), [(0.0, 0.0), (0.004, 0.0), (0.02, 0.02), (0.1, 0.03), (0.3, 0.3)])
def test_intervals_hold_what_they_say(up: float, down: float) -> None:
    rng = np.random.default_rng(7)
    inside = 0
    for _ in range(200):
        lot = rng.random(250)
        frame = pd.DataFrame(dict(was=(lot < down) | (lot > 0.9), would=(lot > 1 - 0.1) | ((lot > 0.5) & (lot < 0.5 + up)), weight=1.0,
                                  unit=range(250), lot=range(250)))
        found = answers.step(frame)
        inside += found["low"] <= up - down <= found["high"]
    assert 0.92 <= inside / 200 <= 1.0 and (up + down < 0.03 or inside / 200 <= 0.99)


def test_no_picture_no_figure(db: Database, looked: Path) -> None:
    plant.decide("exclude", run_id=next(rundir.find("inspect")).name, inspection_ids=[])
    for run in rundir.find("inspect"):
        plant.decide("exclude", run_id=run.name, inspection_ids=[])
    ingest.ingest(db)
    found = answers.look_back(db, looked.name)
    assert found["figures"]["looked"] == found["figures"]["pictures"] == 0 and found["figures"]["difference"] is None
    assert found["days"].empty and found["lines"].empty and found["kinds"].empty
    with pytest.raises(NotFoundError, match="has not begun"):
        answers.look_back(db, rundir.create("shadow", {}).name)
    assert answers.available(db, "real") == dict(pictures=0, kept=0, since=None, until=None)


# ---- as part of the whole


def test_rebuilt_it_is_the_same(db: Database, looked: Path) -> None:
    before = plant.tables(db)
    assert len(before["shadows"]) == 30
    ingest.rebuild(db)
    assert plant.tables(db) == before
    shutil.rmtree(looked)
    ingest.ingest(db)
    assert plant.tables(db)["shadows"] == [] and len(plant.facts(db)) == 30


def test_the_demo_takes_its_look_backs_along(data_folder: Path) -> None:
    model("mine")
    plant.batch([dict(image_id=f"demo:{n}:1a:1:good", captured_at=NOON) for n in range(3)], plant="demo")
    batch([0.2, 0.8])
    demo, real = look(model="mine", plant="demo"), look(model="mine")
    house.opened().ingest()
    assert results.look_back(demo.name)["figures"]["looked"] == 3
    jobs.remove_demo()
    assert not demo.exists() and real.exists() and results.look_back(real.name)["figures"]["looked"] == 2
    with house.database().cursor() as cursor:
        assert cursor.execute("SELECT DISTINCT run_id FROM shadows").column() == [real.name]


def test_a_worker_carries_it_out(supervised: Path) -> None:
    """The whole way: submitted, carried out by a worker, in the lane that leaves uploads alone, taken in."""
    from tests.test_jobs import wait_for, wait_state

    assert recipes.lane("shadow") == "heavy", "a long look-back must not hold up an upload"
    model("mine")
    batch(np.linspace(0, 1, 20).tolist())
    run_id = jobs.submit(Shadow(model="mine", name="Mine"))
    done = wait_state(run_id, "completed", "failed")
    assert (done.state, done.step, done.total, done.name, done.result["looked"]) == ("completed", 20, 20, "Mine", 20)
    wait_for(lambda: engineering.settled(house.database(), run_id))
    assert results.look_back(run_id)["figures"]["looked"] == 20
    assert runs.name("shadow", {"model": "x"}) == "x"


def test_how_long_it_takes(data_folder: Path) -> None:
    config = Shadow(model="mine", pictures=1000)
    assert jobs.estimate(Shadow(model="mine")) is None, "unknown how many"
    rule = pace.START_S + 1000 * pace.FILE_S["shadow"] / pace.cores()
    if not pace.NVIDIA.exists():
        assert jobs.estimate(config) == pytest.approx(rule, abs=0.1)
    for recipe, seconds in (("inspect", 10), ("shadow", 5)):   # the pace of inspections counts until a look-back has finished
        run = rundir.create(recipe, {} if recipe == "inspect" else config.to_json())
        rundir.write_json(run / "progress.json", dict(step=100, total=100))
        began = datetime.now(UTC)
        rundir.set_state(run, "completed", started_at=began.isoformat(), finished_at=(began + timedelta(seconds=seconds)).isoformat())
        assert jobs.estimate(config) == pytest.approx(10 * seconds, rel=0.01)


def test_the_picture_with_the_boxes_of_both(data_folder: Path) -> None:
    from io import BytesIO

    from PIL import Image

    model("m1", model_id="m1")
    model("new", gain=1.5)
    batch([0.4])
    run = look(model="new")
    house.opened().ingest()
    one = results.changed(run.name, "reject")["inspection_id"].iloc[0]
    drawn = {whose: np.asarray(Image.open(BytesIO(results.looked_back(run.name, int(one), whose, width=300, format="png"))), int)
             for whose in ("was", "would", "both")}
    assert drawn["was"].shape == drawn["would"].shape == (300, 300, 3) and drawn["both"].shape[0] == 150
    assert drawn["both"].shape[1] > 300
    blue = {name: np.ptp(pixels[20:, :, 2]) for name, pixels in (*drawn.items(), ("left", drawn["both"][:, :150]),
                                                                ("right", drawn["both"][:, -150:]))}
    assert blue["was"] == blue["left"] == 0 and blue["would"] > 100 and blue["right"] > 100, "only the new model marks anything"
    assert len(results.anew(run.name, int(one))) == 1 and results.to_look_back_on("real")["kept"] == 1
