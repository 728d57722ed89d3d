"""The inspector inspected in the product: stored pictures scored again, master parts that never count, and where to look first."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend import jobs, rundir
from backend.config import Check, Inspect
from backend.inspection import check, imaging, inspect
from backend.jobs import alarms, channels, checks, events, house, lookbacks, lookout, messenger, runs, software
from backend.records import Filters
from backend.store import queries
from backend.store.database import Database
from backend.store.ingest import ingest
from tests import bright_model as bright
from tests import small_plant as plant

SHIFT = datetime(2026, 6, 1, 6, 0, tzinfo=UTC)


def deployed(name: str = "bright", gain: float = 1.0, **more: Any) -> str:
    """A model in use; its id."""
    folder = bright.bundle(rundir.create("train-detector", {"name": name}, state="completed") / "model", name, gain, **more)
    head = rundir.read_json(folder / "model.json")
    events.record("promote", dict(model_id=head["model_id"], name=name, kind="detector"))
    return str(head["model_id"])


def checked(state: str = "completed") -> Path:
    """One check as the worker makes it."""
    run = rundir.create("check", Check(pictures=4).to_json(), state="running")
    if state == "completed":
        result = check.run(Check(pictures=4), run, lambda **more: None)
        rundir.write_json(run / "result.json", result)
    rundir.set_state(run, state, message="" if state == "completed" else "The model 'bright' is damaged.")
    return run


# ---- software check


def test_the_first_check_stores_and_later_ones_compare(db: Database) -> None:
    deployed()
    first = checked()
    head = rundir.read_json(first / "check" / "head.json")
    assert len(list((first / "check").glob("*.bin"))) == 4 and head["classes"] == bright.CLASSES and not head["baseline"]
    checked()
    now, stored = software.software()
    assert now.passed and now.check and now.check.compared == 4 and now.check.worst == 0 and now.words.startswith("Passed: 4 stored pic")
    assert stored.first and stored.words == "4 pictures and their scores are stored." and now.runtime == head["runtime"]
    assert software.now() == now
    again = rundir.read_json(next(rundir.find("check")) / "result.json")
    assert (again["first"], again["largest_deviation"], again["not_scored"]) == (False, 0.0, 0)


def test_a_model_is_checked_on_what_it_did_not_learn_from(db: Database) -> None:
    seen = [bright.kept(0.1 * n, mark=n) for n in range(6)]
    run = rundir.create("import", {}, state="completed")
    rundir.write_json(run / "snapshot.json", dict(snapshot_id="s9", name="plates"))
    rundir.write_part(run, "snapshot_images", [dict(snapshot_id="s9", image_id=i, split="train" if n < 3 else "test") for n, i in
                                               enumerate(seen)])
    deployed(snapshot_id="s9")
    scores = rundir.read_json(checked() / "check" / "head.json")["scores"]
    assert sorted(s[0] for s in scores.values()) == pytest.approx([0.3, 0.4, 0.5], abs=0.01)


def test_other_scores_fail_with_an_alarm_until_they_are_right_again(db: Database) -> None:
    deployed()
    plant.batch([{}])
    first = checked()
    head = rundir.read_json(first / "check" / "head.json")
    rundir.write_json(first / "check" / "head.json", head | {"scores": head["scores"] | {"001": [0.9, 0.9]}})
    checked()
    ingest(db)
    lookout.look(db)
    lookout.look(db)
    alarm, = alarms.alarms(db, "real")
    assert alarm.kind == "software" and alarm.is_open and "Software check of bright: Failed: 4 stored pictures" in alarm.text
    assert checks.hint(db, "real", "L1").cause == "model"
    rundir.write_json(first / "check" / "head.json", head)
    checked()
    ingest(db)
    lookout.look(db)
    assert alarms.alarms(db, "real")[0].over_text == "The check passes again."
    (first / "check" / "002.bin").write_bytes(b"no picture")
    checked()
    assert software.now().words == "Failed: 1 of 4 stored pictures were not scored, for instance 002."          # type: ignore[union-attr]
    checked("failed")
    assert software.software(1)[0].words == "It could not run: The model 'bright' is damaged." and not software.software(1)[0].passed
    checked("interrupted")
    checked("canceled")
    assert software.now().state == "failed", "a check that ended early says nothing"                             # type: ignore[union-attr]


def test_arithmetic_may_differ_by_what_it_is(db: Database) -> None:
    f32, bf16, other = "openvino-cpu-f32 2026.4", "openvino-cpu-bf16 2026.4", "onnxruntime-cpu 1.31"
    assert [software.tolerance(*p) for p in ((f32, f32), (f32, other), (bf16, bf16))] == [software.EXACT] * 3
    assert [software.tolerance(*p) for p in (("cuda-f16 torch 2.9", f32), ("cuda-f16 torch 2.9",) * 2)] == [software.ROUGH] * 2
    assert software.tolerance("cuda-f32 torch 2.9", f32) == software.EXACT
    assert software.tolerance(f32, bf16) == software.tolerance(bf16, "openvino-cpu-bf16 2027.1") == software.ROUGH


def test_it_is_due_at_a_start_each_day_and_after_a_change_of_model(db: Database) -> None:
    started = datetime.now(UTC) - timedelta(seconds=5)
    deployed()
    assert software.due(started, datetime.now(UTC))
    run = rundir.run_path(software.begin())
    assert runs.status(run.name).recipe == "check" and not software.due(started, datetime.now(UTC)), "one waits already"
    rundir.set_state(run, "failed", message="…")
    assert not software.due(started, datetime.now(UTC)) and software.due(started, datetime.now(UTC) + timedelta(hours=25))
    assert software.due(datetime.now(UTC), datetime.now(UTC)), "the supervisor was started again"
    checked()
    assert not software.due(started, datetime.now(UTC))
    deployed("newer", 0.5)
    assert software.due(started, datetime.now(UTC))
    checked()
    assert not software.due(started, datetime.now(UTC)) and software.software(1)[0].first, "each model has pictures of its own"


# ---- imaging check


def test_brightness_and_sharpness_of_a_picture() -> None:
    rng = np.random.default_rng(0)
    fine = np.kron(rng.integers(0, 200, (40, 40)), np.ones((2, 2))).astype(np.float32)
    blurred = sum(np.roll(fine, (y, x), (0, 1)) for y in range(3) for x in range(3)) / 9
    (bright_, sharp), (_, soft) = imaging.measures(fine), imaging.measures(np.asarray(blurred))
    assert bright_ == pytest.approx(fine.mean(), rel=1e-5) and soft < 0.7 * sharp
    assert imaging.measures(fine * 0.5)[1] == pytest.approx(sharp, rel=1e-4), "a dim lamp is no lens out of focus"
    assert imaging.measures(np.zeros((1, 1), np.float32)) == (0.0, 0.0)


def test_master_parts_are_measured_and_never_count(db: Database, tmp_path: Path) -> None:
    deployed()
    folder = tmp_path / "masters"
    folder.mkdir()
    for piece in "AB":
        (folder / f"master_{piece}.png").write_bytes(bright.encoded(0.9, mark=ord(piece)))
    config = Inspect(images=str(folder), line="L1", count="yes", master=True, unit_pattern="master_(.)")
    run = rundir.create("inspect", config.to_json(), state="running")
    result = inspect.run(config, run, lambda **more: None)
    rundir.write_json(run / "result.json", result)
    rundir.set_state(run, "completed")
    events.record("include", {"run_id": run.name, "inspection_ids": []})
    ingest(db)
    assert result["counted"] == 0 and {f["why"] for f in plant.facts(db)} == {"it shows a master part"}
    assert queries.totals(db, Filters("real", "L1"))["units"] == 0 and [f["is_defective"] for f in plant.facts(db)] == [True, True]
    assert queries.review_queue(db, "real").empty, "nor is anybody asked what they show"
    line, = checks.imaging(db, "real")
    assert line.pieces == 2 and line.measured["score"].tolist() == [pytest.approx(0.9, abs=0.01)] and line.line == "L1"
    assert line.found[0].words == "Score of the master parts needs 20 shifts; 1 so far."


def photographed(n: int, dim: int = 0, model_id: str = "m1", first: int = 0, pieces: Sequence[str] = "AB") -> None:
    """Two master parts in so many shifts, the last ones under a dim lamp."""
    rng, rows, masters = np.random.default_rng(3), list[dict[str, Any]](), list[dict[str, Any]]()
    for shift in range(n):
        for piece in pieces:
            rows.append(dict(captured_at=SHIFT + timedelta(hours=8 * (first + shift)), model_id=model_id, counted=False,
                             not_counted_why="master part", boxes=[("pits", 0.9 + rng.normal(0, 0.004))]))
            masters.append(dict(piece=piece, brightness=120 + rng.normal(0, 1) - 30 * (shift >= n - dim),
                                sharpness=0.8 + rng.normal(0, 0.01)))
    run = plant.batch(rows)
    ids = rundir.rows(run, "inspections")["inspection_id"].to_pylist()
    rundir.write_part(run, "masters", [m | {"inspection_id": i} for i, m in zip(ids, masters, strict=True)])


def test_a_dim_lamp_is_an_alarm_and_points_to_the_camera(db: Database) -> None:
    photographed(24, dim=2)
    ingest(db)
    lookout.look(db)
    alarm, = alarms.alarms(db, "real")
    assert alarm.kind == "imaging" and alarm.text == "L1: Brightness of the master parts: 2 in a row below the limits."
    assert alarm.since == SHIFT + timedelta(hours=8 * 22)
    hint = checks.hint(db, "real", "L1")
    assert hint.cause == "camera" and hint.words == "Look at camera, lens and light first."
    assert checks.hint(db, "real", "L9").cause == "unclear"
    photographed(4, first=24)
    ingest(db)
    lookout.look(db)
    assert not alarms.alarms(db, "real")[0].is_open, "three steady shifts later"


def test_scores_begin_anew_with_another_model(db: Database) -> None:
    photographed(22)
    photographed(2, model_id="m2", first=22)
    ingest(db)
    line, = checks.imaging(db, "real")
    assert [s.note for s in line.found] == ["needs 20 shifts; 2 so far.", "", ""] and not line.moved
    assert line.measured["score"].notna().sum() == 2 and len(line.measured) == 24


def test_a_part_in_anothers_place_begins_a_chart_of_its_own(db: Database) -> None:
    photographed(22)
    photographed(21, first=22, pieces="AC")
    ingest(db)
    line, = checks.imaging(db, "real")
    assert line.pieces == 2 and len(line.measured) == 21 and all(s.chart for s in line.found)


def test_a_name_mistyped_once_ends_no_chart(db: Database) -> None:
    photographed(22)
    photographed(1, first=22, pieces=("A", "B", "Bb"))
    photographed(3, first=23)
    ingest(db)
    line, = checks.imaging(db, "real")
    assert line.pieces == 2 and len(line.measured) == 26 and all(s.chart for s in line.found)


def test_parts_that_are_watched_anew_are_not_called_steady(db: Database) -> None:
    photographed(24, dim=2)
    ingest(db)
    lookout.look(db)
    photographed(1, first=24, pieces="AC")
    ingest(db)
    lookout.look(db)
    alarm, = alarms.alarms(db, "real")
    assert alarm.is_open, "nobody knows whether the lamp is dim, and nobody has seen the alarm"
    events.record("alarm-seen", dict(alarm=alarm.alarm_id, text="A new lamp", by="Kim"))
    ingest(db)
    lookout.look(db)
    alarm, = alarms.alarms(db, "real")
    assert alarm.over_text == "The parts are watched anew, so nobody knows whether it went on."


# ---- a model that is put to use


def test_a_promotion_looks_back_once_with_the_new_model(db: Database) -> None:
    model_id = deployed()
    ingest(db)
    assert lookbacks.begin(db, model_id, "detector") == "", "there is nothing to look back on"
    plant.batch([{}, {}])
    ingest(db)
    assert lookbacks.begin(db, model_id, "anomaly") == lookbacks.begin(db, "0" * 16, "detector") == ""
    run = rundir.run_path(lookbacks.begin(db, model_id, "detector"))
    assert runs.status(run.name).config["model"] == model_id and runs.status(run.name).name == "bright"
    assert lookbacks.begin(db, model_id, "detector") == "", "one is on its way"
    rundir.set_state(run, "failed")
    run = rundir.run_path(lookbacks.begin(db, model_id, "detector"))

    # Only one of the whole plant that looked at pictures of the model before stands in.
    def looked(run: Path, image_ids: list[str]) -> str:
        rundir.write_part(run, "shadows", [dict(plant="real", image_id=i, model_id=model_id, why="", boxes=[]) for i in image_ids])
        plant.finish(run)
        rundir.write_json(run / "result.json", {"model_id": model_id})
        ingest(db)
        return lookbacks.begin(db, model_id, "detector")

    pictures = [f["image_id"] for f in plant.facts(db)]
    rundir.set_state(run, "failed")
    narrow = rundir.create("shadow", dict(model=model_id, line="L1"))
    run = rundir.run_path(looked(narrow, pictures))
    run = rundir.run_path(looked(run, ["of another model"]))
    assert looked(run, pictures) == ""


def test_a_promotion_that_is_undone_looks_back_too(data_folder: Path) -> None:
    old, new = deployed("old"), deployed("new", 0.5)
    promoted = next(rundir.find("promote"))
    plant.batch([dict(model_id=new)])
    assert house.opened().ingest()
    jobs.undo(promoted.name)
    run, = rundir.find("shadow")
    assert runs.job(run)["config"]["model"] == old and rundir.promoted_model() == old


# ---- with nobody at a page


def test_without_an_app_the_messenger_looks_and_sends(data_folder: Path) -> None:
    plant.model("m1")
    plant.batch([{}])
    run = checked("failed")
    rundir.write_json(data_folder / "supervisor.json", {"started_at": rundir.now()})
    events.record("channel", channels.Channel("MES", "file", folder="mes").to_json())
    deployed()
    rounds = messenger.Rounds()
    assert house.opened().ingest()
    rounds.step()
    assert not list(rundir.find("alarm")), "an app is there: it looks itself"
    assert len(list(rundir.find("check"))) == 2, "a model in use is to be checked"
    house.close()
    rounds.step()
    alarm, = rundir.find("alarm")
    assert "It could not run" in runs.job(alarm)["config"]["text"] and run.exists()
    rounds.step()
    rounds.look_at = 0.0
    rounds.step()
    assert [p.stem for p in (data_folder / "alerts" / "mes").iterdir()] == [alarm.name] and len(list(rundir.find("alarm"))) == 1
