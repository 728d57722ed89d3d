"""What an anomaly model says of a batch, from the recipe to the pages' answers; and the masks and normal-only sets it is trained from."""

import io
import json
import os
import random
import shutil
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from backend import rundir
from backend.config import Import, Inspect
from backend.data import images, importer, snapshot
from backend.errors import ConfigError, NotFoundError
from backend.evaluation import looks
from backend.inspection import anomaly_engine, heat, inspect
from backend.inspection.keeping import Keeper
from backend.jobs import house, results
from backend.records import Filters, inspection_ids, pack_map, unpack_map
from backend.store import comparison, decisions, engineering, labels, queries
from backend.store.database import Database
from backend.store.ingest import forget, ingest, rebuild
from tests import small_anomaly, tiny_model
from tests import small_plant as plant
from tests.plates import silent
from tests.small_anomaly import picture

FULL = partial(Keeper, lambda path: (10**12, 0, 4 * 10**10))
PATCH = (6, 6, 30, 24)


@pytest.fixture
def db(db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Database:
    """The store that tests share; recipes find no model of the program either."""
    monkeypatch.setattr(rundir, "demo_assets", lambda: tmp_path / "no-bundle")
    return db


def scored(scores: list[float | None], boxes: dict[int, list[Any]] | None = None, model_id: str = "a1", **more: Any) -> Path:
    """A batch of as many pictures, each looked at by an anomaly model where a score is given."""
    run = plant.batch([dict(boxes=(boxes or {}).get(n, []), **more) for n in range(len(scores))], end=False)
    ids = [int(i) for i in inspection_ids(f"{run.name}/1", len(scores))]
    rundir.write_part(run, "anomalies", [dict(inspection_id=i, model_id=model_id, anomaly_score=s, side=2,
                                              anomaly_map=pack_map(np.full((2, 2), s), 0, 10) if n % 2 == 0 else None)
                                         for n, (i, s) in enumerate(zip(ids, scores, strict=True)) if s is not None])
    plant.finish(run)
    return run


def anomaly_model(model_id: str = "a1", threshold: float | None = 2.0, name: str = "Odd") -> Path:
    return plant.model(model_id, {} if threshold is None else {"unusual": threshold}, kind="anomaly", name=name, classes=["unusual"])


def unusual(db: Database) -> list[Any]:
    ingest(db)
    return [f["is_unusual"] for f in plant.facts(db)]


# ---- a column


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-3.0, 12.5), (1.0, 1.0)])
def test_a_packed_map_comes_back(low: float, high: float) -> None:
    seen = np.random.default_rng(0).uniform(low - 1, high + 1, (16, 16)).astype(np.float32)
    back = unpack_map(pack_map(seen, low, high), 16)
    assert back.shape == (16, 16) and np.abs(low + back / 255 * (high - low) - seen.clip(low, high)).max() <= (high - low) / 510 + 1e-5
    for damaged in (b"no zlib", pack_map(seen, low, high)[:20]):
        with pytest.raises(ValueError, match="map|reshape"):
            unpack_map(damaged, 16)
    with pytest.raises(ValueError, match="reshape"):
        unpack_map(pack_map(seen, low, high), 17)


# ---- the verdict beside the verdict


def test_unusual_is_by_the_models_threshold_and_enters_no_rate(db: Database) -> None:
    anomaly_model()
    plant.model("m1", {"pits": 0.5})
    scored([1.9, 2.0, 5.0, None], {2: [("pits", 0.9)]})
    assert unusual(db) == [False, True, True, None]
    facts = plant.facts(db)
    assert [f["anomaly_model_id"] for f in facts] == ["a1", "a1", "a1", None]
    assert [f["is_defective"] for f in facts] == [False, False, True, False] and all(f["counted"] and f["defects"] < 2 for f in facts)
    assert queries.totals(db, Filters()) | {"low": 0, "high": 0} == dict(
        inspected=4, units=4, defective=1, defects=1, rate=0.25, good_first_time=0.75, defects_per_unit=0.25, low=0, high=0,
        **{k: queries.totals(db, Filters())[k] for k in ("first_day", "last_day", "last_captured_at")})


RULES: list[tuple[list[dict[str, Any]], list[Any]]] = [
    ([], [False, True]), ([dict(class_name="unusual", threshold=1.0)], [True, True]), ([dict(class_name="", threshold=0.5)], [False, True]),
    ([dict(class_name="unusual", threshold=9.0), dict(class_name="unusual", product="Plate", threshold=1.0)], [True, True]),
    ([dict(class_name="unusual", product="Other", threshold=9.0)], [False, True]),
    ([dict(class_name="unusual", threshold=9.0), dict(class_name="unusual", threshold=1.5)], [True, True]),
    ([dict(class_name="unusual", action="ignore")], [None, None]), ([dict(class_name="", action="ignore")], [False, True]),
    ([dict(class_name="unusual", threshold=None, action="reject")], [False, True])]


def test_which_threshold_applies(db: Database) -> None:
    """The narrower policy first, then the wider, then the model; policies on all classes speak of confidences and say nothing here."""
    anomaly_model()
    run = scored([1.6, 2.5])
    assert unusual(db) == [False, True]
    for policies, expected in RULES:
        made = [plant.decide("policy", **{"product": "", "min_side": 0, **p}) for p in policies]
        assert unusual(db) == expected, policies
        today = engineering.anomaly_scores(db, run.name)
        said = [None if np.isnan(t) else bool(s >= t) for s, t in zip(today["anomaly_score"], today["threshold"], strict=True)]
        assert said == expected, policies
        for decision in made:
            plant.decide("undo", run_id=decision)
        assert unusual(db) == [False, True], policies


LIMITS: list[tuple[list[dict[str, Any]], Any]] = [
    ([dict(model_id="a1", threshold=9.0)], ([False] * 2, [False, True])),                  # another model keeps its own
    ([dict(threshold=9.0)], ([False] * 2, [False] * 2)),                                   # written before models were named
    ([dict(threshold=9.0), dict(model_id="a1", threshold=1.0)], ([True] * 2, [False] * 2)),
    ([dict(model_id="a1", threshold=1.0), dict(threshold=9.0)], ([False] * 2, [False] * 2)),
    ([dict(model_id="a1", threshold=1.0), dict(model_id="a2", threshold=9.0)], ([True] * 2, [False] * 2)),
    ([dict(model_id="a1", threshold=9.0), dict(model_id="a1", threshold=1.0)], ([True] * 2, [False, True])),
    ([dict(product="Plate", model_id="a2", threshold=1.0), dict(threshold=9.0)], ([False] * 2, [True] * 2)),
    ([dict(product="Plate", threshold=None), dict(product="Plate", model_id="a1", threshold=9.0), dict(threshold=1.0)],
     ([False] * 2, [True] * 2))]


def test_a_limit_holds_for_the_model_it_was_set_for(db: Database) -> None:
    """Detections of a class that is called 'unusual' too are none of its business."""
    anomaly_model()
    anomaly_model("a2", 2.0)
    plant.model("m1", {"unusual": 0.5})
    scored([1.6, 2.5], {0: [("unusual", 0.6)]})
    scored([1.6, 2.5], model_id="a2")

    def said(what: str = "is_unusual") -> list[Any]:
        ingest(db)
        return [f[what] for f in sorted(plant.facts(db), key=lambda f: (f["anomaly_model_id"], f["anomaly_score"]))]

    assert said() == [False, True] * 2
    for nth, (policies, expected) in enumerate(LIMITS):
        made = [plant.decide("policy", **{"product": "", "class_name": "unusual", "action": "reject", "min_side": 0, **p})
                for p in policies]
        assert said() == [*expected[0], *expected[1]], policies
        if all("model_id" in p for p in policies):
            assert said("is_defective") == [True, False, False, False]
        for model_id in ("a1", "a2"):
            plant.decide("promote", model_id=model_id, name=model_id)
            ingest(db)
            rule = decisions.unusual_rule(db, "real", "Plate")
            assert rule and rule["model_id"] == model_id
            assert [s >= rule["threshold"] for s in (1.6, 2.5)] == expected[model_id == "a2"], policies
        if nth % 3 == 1:
            live = plant.facts(db)
            rebuild(db)
            assert plant.facts(db) == live
        for decision in made:
            plant.decide("undo", run_id=decision)
        assert said() == [False, True] * 2 and decisions.unusual_rule(db, "real")["source"] == "model"  # type: ignore[index]


def test_a_limit_is_told_with_the_model_it_was_set_for(db: Database) -> None:
    anomaly_model()
    for model_id in ("a1", "gone", ""):
        plant.decide("policy", product="Plate", class_name="unusual", action="reject", threshold=3.5, model_id=model_id)
    ingest(db)
    assert decisions.changes(db, "real")[["text", "kind"]].to_numpy().tolist() == [
        [f"Unusual pictures on Plate{by}: called so from score 3.5.", ""] for by in ("", " by a model that is gone", " by Odd")]


def test_a_model_without_a_threshold_calls_nothing_unusual_until_somebody_sets_one(db: Database) -> None:
    anomaly_model(threshold=None)
    run = scored([1.0, 50.0])
    assert unusual(db) == [None, None]
    assert engineering.batch(db, run.name)["unusual"] is None and engineering.anomaly_scores(db, run.name)["threshold"].isna().all()
    assert queries.unusual_trend(db, Filters()).empty
    plant.decide("policy", product="", class_name="unusual", threshold=10.0)
    assert unusual(db) == [False, True] and engineering.batch(db, run.name)["unusual"] == 1


@pytest.mark.parametrize("seed", range(2))
def test_any_order_gives_the_rows_of_a_rebuild(db: Database, tmp_path: Path, seed: int) -> None:
    made = [anomaly_model(), scored([1.0, 3.0, None], {1: [("pits", 0.9)]}), scored([5.0, 2.0], model_id="a2"), anomaly_model("a2", 4.0),
            rundir.run_path(plant.decide("policy", product="Plate", class_name="unusual", threshold=2.5))]
    for run in made:
        shutil.move(run, tmp_path / "source" / run.name)
    files = [f for run in made for f in (tmp_path / "source" / run.name).rglob("*") if f.parent.name == "parts"]
    rng = random.Random(seed)
    for run in rng.sample(made[:-1], len(made) - 1):         # each goes on until its last part is there
        shutil.copytree(tmp_path / "source" / run.name, run, ignore=lambda folder, names: names if folder.endswith("parts") else [])
        rundir.set_state(run, "running")
    for step in rng.sample([*files, made[-1]], len(files) + 1):
        if step in files:
            shutil.copy(step, rundir.runs_root() / step.parents[1].name / "parts" / step.name)
        else:
            shutil.copytree(tmp_path / "source" / step.name, step)
        ingest(db)
    for run in made[:-1]:
        shutil.copy(tmp_path / "source" / run.name / "state.json", run / "state.json")
    ingest(db)
    live = plant.tables(db)
    assert [f["is_unusual"] for f in plant.facts(db)].count(True) == 2 and len(live["anomalies"]) == 4
    rebuild(db)
    assert plant.tables(db) == live
    forget(db, [made[1].name])
    assert len(plant.tables(db)["anomalies"]) == 2 and len(plant.facts(db)) == 2


# ---- what pages ask


@pytest.fixture
def filled(db: Database) -> Database:
    """Two days; on the first one unit of two views, one of them unusual. The detector rejects one that is unusual and one that is not."""
    anomaly_model()
    plant.model("m1", {"pits": 0.5})
    scored([1.0, 3.0, 4.0, 1.0, None], {2: [("pits", 0.9)], 3: [("pits", 0.8)]})
    scored([2.5, 1.0], captured_at=plant.NOON + timedelta(days=1), unit_id="u")
    ingest(db)
    return db


def test_the_trend_of_unusual_units_stands_beside_the_other(filled: Database) -> None:
    trend = queries.unusual_trend(filled, Filters())
    assert trend.columns.tolist() == ["bucket", "inspected", "unusual", "rate", "low", "high", "disagree"]
    assert trend[["inspected", "unusual", "disagree"]].to_numpy().tolist() == [[4, 2, 1], [1, 1, 1]]
    assert trend["rate"].tolist() == [0.5, 1.0] and (trend["low"] < trend["rate"]).all()
    assert queries.trend(filled, Filters())[["inspected", "defective"]].to_numpy().tolist() == [[5, 2], [1, 0]]
    assert queries.unusual_trend(filled, Filters(since=(plant.NOON + timedelta(days=1)).date()), "week")["unusual"].tolist() == [1]
    assert queries.unusual_trend(filled, Filters(line="L9")).empty
    with pytest.raises(ConfigError):
        queries.unusual_trend(filled, Filters(), "minute")


def test_lists_of_unusual_pictures(filled: Database) -> None:
    counts = {v: queries.images_count(filled, Filters(verdict=v)) for v in ("", "defective", "good", "unusual", "disagree")}
    assert counts == {"": 7, "defective": 2, "good": 5, "unusual": 3, "disagree": 2}
    assert queries.images(filled, Filters(verdict="disagree"), "oddest")["anomaly_score"].tolist() == [3.0, 2.5]
    assert queries.images(filled, Filters(), "oddest")["anomaly_score"].isna().tolist() == [False] * 6 + [True]
    with pytest.raises(ConfigError, match="'bad' is none of"):
        queries.images_count(filled, Filters(verdict="bad"))


def test_the_queue_of_disagreements(filled: Database) -> None:
    queue = queries.review_queue(filled, "real", 30, "disagreement")
    assert queue["anomaly_score"].tolist() == [3.0, 2.5] and not queue["is_defective"].any()
    assert sorted(queries.review_queue(filled, "real")["top_confidence"]) == pytest.approx([0.8, 0.9])
    plant.decide("review", inspection_id=int(queue["inspection_id"][0]), verdict="good", class_name="", reviewer="")
    ingest(filled)
    assert queries.review_queue(filled, "real", 30, "disagreement")["anomaly_score"].tolist() == [2.5]
    with pytest.raises(ConfigError):
        queries.review_queue(filled, "real", 30, "odd")


def test_scores_of_two_models_are_compared_by_their_limits(db: Database) -> None:
    """One tells of thousands, the other of tenths; a third has no limit, so it comes last; a person's limit counts before the model's."""
    for model_id, threshold in (("a1", 1000.0), ("a2", 0.2), ("a3", None)):
        anomaly_model(model_id, threshold)
    scored([1100.0, 3000.0], model_id="a1")
    scored([0.25, 0.75], model_id="a2")
    scored([50.0], model_id="a3")
    ingest(db)
    assert queries.images(db, Filters(), "oddest")["anomaly_score"].tolist() == [0.75, 3000.0, 0.25, 1100.0, 50.0]
    assert queries.images(db, Filters(), "oddest", limit=2, offset=1)["anomaly_score"].tolist() == [3000.0, 0.25]
    assert queries.review_queue(db, "real", 30, "disagreement")["anomaly_score"].tolist() == [0.75, 3000.0, 0.25, 1100.0]
    found = {row.file_name: row.inspection_id for row in queries.images(db, Filters()).itertuples()}
    assert [found[n] for n in labels.waiting(db, "real", "unusual", 9)["file_name"]] == queries.review_queue(
        db, "real", 30, "disagreement")["inspection_id"].tolist()
    plant.decide("policy", product="", class_name="unusual", action="reject", threshold=500.0, model_id="a1", min_side=0)
    ingest(db)
    assert queries.images(db, Filters(), "oddest")["anomaly_score"].tolist() == [3000.0, 0.75, 1100.0, 0.25, 50.0]


def test_a_training_of_an_anomaly_model_is_a_look_but_no_detectors_training(db: Database) -> None:
    run = rundir.create("train-anomaly", {"name": "Odd"})
    head = dict(model_id="a1", name="Odd", dataset="d", snapshot_id="s1", classes=["unusual"], thresholds={})
    looks.count(run, 1, looks.described(head, "T"), {"val": {}, "test": {"a.png": [], "b.png": [("spot", [1.0, 1.0, 2.0, 2.0])]}})
    plant.finish(run)
    ingest(db)
    assert comparison.looks(db, "T")[["model_id", "name", "images", "good_images"]].to_numpy().tolist() == [["a1", "Odd", 2, 1]]
    assert comparison.scored_runs(db).empty


def test_a_batch_with_and_without_an_anomaly_model(filled: Database) -> None:
    without = plant.batch([{}])
    ingest(filled)
    runs = [r for r in rundir.find("inspect") if r != without]
    about = engineering.batch(filled, runs[-1].name)
    assert (about["unusual"], about["disagree"], about["anomaly_models"], about["defective"]) == (2, 1, ["Odd"], 2)
    assert not {"unusual", "disagree", "anomaly_models"} & set(engineering.batch(filled, without.name))
    scores = engineering.anomaly_scores(filled, runs[-1].name)
    assert scores.columns.tolist() == ["inspection_id", "model_id", "model", "anomaly_score", "threshold", "is_unusual", "is_defective"]
    assert scores["anomaly_score"].tolist() == [1.0, 3.0, 4.0, 1.0] and scores["threshold"].tolist() == [2.0] * 4
    assert set(scores["model"]) == {"Odd"} and scores["is_defective"].tolist() == [False, False, True, True]
    assert engineering.anomaly_scores(filled, without.name).empty
    one = queries.inspection(filled, int(scores["inspection_id"][0]))
    assert one["anomaly_model"] == "Odd" and one["model"] == "Model m1"


def test_kinds_that_people_named(filled: Database) -> None:
    """By a person's newest word, on what is unusual and rejected by nothing; however many other verdicts followed."""
    rows = plant.facts(filled, "inspection_id, file_name, run_id, is_unusual, is_defective")
    odd = [r for r in rows if r["is_unusual"] and not r["is_defective"]]
    others = [r for r in rows if r not in odd]

    def named() -> Any:
        ingest(filled)
        return decisions.named_kinds(filled, "real").to_dict("records")

    for row in rows:
        plant.decide("review", inspection_id=row["inspection_id"], verdict="defective", class_name="fibre", reviewer="Kim")
    for row in others:
        plant.decide("review", inspection_id=row["inspection_id"], verdict="good", class_name="", reviewer="Kim")
    told = [{"class_name": "fibre", **{k: r[k] for k in ("inspection_id", "run_id", "file_name")}} for r in odd]
    by_id = lambda found: sorted(found, key=lambda r: r["inspection_id"])  # noqa: E731
    assert len(odd) == 2 and by_id(named()) == by_id(told)
    last = plant.decide("review", inspection_id=odd[0]["inspection_id"], verdict="good", class_name="", reviewer="Kim")
    assert [r["inspection_id"] for r in named()] == [odd[1]["inspection_id"]]
    plant.decide("review", inspection_id=odd[1]["inspection_id"], verdict="defective", class_name="hair", reviewer="Kim")
    plant.decide("undo", run_id=last)
    assert [r["class_name"] for r in named()] == ["hair", "fibre"] and decisions.named_kinds(filled, "demo").empty


def test_a_heat_map_is_read_from_its_part(filled: Database) -> None:
    run = list(rundir.find("inspect"))[-1]
    ids = engineering.anomaly_scores(filled, run.name)["inspection_id"].tolist()
    found = queries.anomaly_map(filled, ids[0])
    assert found["model_id"] == "a1" and found["values"].tolist() == [[26, 26], [26, 26]]                # 1 of 0 … 10
    with pytest.raises(NotFoundError, match="was not kept"):
        queries.anomaly_map(filled, ids[1])
    with pytest.raises(NotFoundError, match="No anomaly model"):
        queries.anomaly_map(filled, 1)
    rundir.parts(run, "anomalies")[0].write_bytes(b"PAR1")
    with pytest.raises(NotFoundError, match="cannot be read"):
        queries.anomaly_map(filled, ids[0])


# ---- two kinds of models


def test_each_kind_is_promoted_apart(db: Database) -> None:
    for name, kind in (("m1", "detector"), ("m2", "detector"), ("a1", "anomaly"), ("a2", "anomaly")):
        run = anomaly_model(name, name=name) if kind == "anomaly" else plant.model(name, {"pits": 0.5})
        recipe = run.rename(run.with_name(run.name.replace("train-detector", "train-anomaly"))) if kind == "anomaly" else run
        (recipe / "model").mkdir()
        rundir.write_json(recipe / "model" / "model.json", dict(name=name, model_id=name, kind=kind))

    def in_use() -> tuple[str, ...]:
        ingest(db)
        shown = [engineering.models(db, kind).query("promoted")["model_id"].tolist() for kind in ("detector", "anomaly")]
        promoted = [rundir.promoted_model(kind) for kind in ("detector", "anomaly")]
        assert shown == [[p] if p not in ("", "gone") else [] for p in promoted]
        assert engineering.models(db, "").query("promoted")["model_id"].nunique() == sum(map(len, shown))
        return tuple(promoted)

    assert in_use() == ("", "") and engineering.models(db)["model_id"].tolist() == ["m2", "m1"] and len(engineering.models(db, "")) == 4
    with pytest.raises(NotFoundError, match="No anomaly model is in use"):
        rundir.find_model("", "anomaly")
    for name in ("m1", "a1", "a2"):
        last = plant.decide("promote", model_id=name, name=name)
    assert in_use() == ("m1", "a2") and rundir.find_model("") == rundir.find_model("m1") == rundir.find_model("", "detector")
    assert rundir.find_model("", "anomaly") == rundir.find_model("a2")
    assert decisions.rules(db, "real")["class_name"].tolist() == ["pits", "scratch"]
    assert decisions.unusual_rule(db, "real", "Plate") == dict(model_id="a2", model="a2", action="reject", threshold=2.0, source="model")
    assert decisions.changes(db, "real")[["text", "kind"]].to_numpy().tolist() == [
        ["Anomaly model a2 was put to use.", "anomaly"], ["Anomaly model a1 was put to use.", "anomaly"],
        ["Model Model m1 was put to use.", "detector"]]
    with pytest.raises(NotFoundError, match="'a1' is no detector; it is of the kind anomaly"):
        rundir.find_model("a1", "detector")
    plant.decide("undo", run_id=last)
    assert in_use() == ("m1", "a1")
    plant.decide("policy", product="", class_name="unusual", threshold=7.5)
    plant.decide("promote", model_id="gone", name="gone", kind="anomaly")                  # its files went; it was no detector
    assert in_use() == ("m1", "gone")
    assert decisions.unusual_rule(db, "real") is None
    assert decisions.changes(db, "real")["text"].tolist()[1] == "Unusual pictures: called so from score 7.5."


def test_an_anomaly_model_is_no_teacher_of_detectors(data_folder: Path) -> None:
    from backend.detection import distill  # loads the trainer: only here

    made = {}
    for recipe, more in (("train-detector", {}), ("train-anomaly", {"kind": "anomaly"})):
        run = rundir.create(recipe, {}, state="completed")
        (run / "scratch").mkdir()
        made[recipe] = rundir.keep_artifact(run / "scratch", run, "weights", dict(key="k", name="same", snapshot_id="s1", **more))
    assert distill.find_teacher("same", "s1") == made["train-detector"]
    with pytest.raises(ConfigError, match="no teacher"):
        distill.find_teacher(made["train-anomaly"].parent.name, "s1")


# ---- a batch through both models


@pytest.fixture
def place(data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with a detector, 'tiny', that passes everything, and an anomaly model, 'odd'."""
    monkeypatch.setattr(inspect, "Keeper", partial(Keeper, lambda path: (10**12, 0, 8 * 10**11)))
    tiny_model.bundle(rundir.create("train-detector", {}, state="completed") / "model", thresholds=dict.fromkeys(tiny_model.CLASSES, 1.0))
    head = rundir.read_json(small_anomaly.bundle(rundir.create("train-anomaly", {}, state="completed") / "model") / "model.json")
    rundir.write_part(rundir.find_model("odd").parent, "model_thresholds", [
        dict(model_id=head["model_id"], class_name="unusual", threshold=small_anomaly.THRESHOLD)])
    return data_folder


UPLOAD = [(f"{k}.png", picture(k, PATCH if k % 4 == 1 else None)) for k in range(10)] + [("broken.png", b"x"), ("twin.png", picture(3))]


def new_run(uploads: list[tuple[str, bytes]], **settings: Any) -> tuple[Inspect, Path]:
    config = Inspect(model="tiny", line="L1", **settings)
    run_dir = rundir.create("inspect", config.to_json(), state="running")
    (run_dir / "inbox").mkdir()
    for k, (_, data) in enumerate(uploads):
        (run_dir / "inbox" / f"{k:06}.bin").write_bytes(data)
    rundir.write_json(run_dir / "inbox" / "inbox.json", [{"file": f"{k:06}.bin", "name": n} for k, (n, _) in enumerate(uploads)])
    return config, run_dir


def inspected(uploads: list[tuple[str, bytes]], **settings: Any) -> tuple[dict[str, Any], Path]:
    config, run_dir = new_run(uploads, **settings)
    return inspect.run(config, run_dir, silent), run_dir


def rows(run_dir: Path, table: str) -> list[dict[str, Any]]:
    """Rows without the columns that tell when, and under which run, they were written."""
    hidden = {"ingested_at", "inspection_id", "captured_at"}
    return [{k: v for k, v in r.items() if k not in hidden} for r in rundir.rows(run_dir, table).to_pylist()]


def test_both_models_look_at_each_picture(place: Path) -> None:
    alone, bare = inspected(UPLOAD, anomaly="none")
    result, run_dir = inspected(UPLOAD, anomaly="odd")
    assert all(rows(run_dir, t) == rows(bare, t) for t in ("inspections", "detections", "refused")), "nothing else changes"
    assert {k: result[k] for k in alone if k not in ("seconds", "images_per_s")} == \
        {k: v for k, v in alone.items() if k not in ("seconds", "images_per_s")}
    assert (result["unusual"], result["anomaly_model_name"], result["refused"]) == (3, "odd", 2)
    assert not rundir.parts(bare, "anomalies") and not {"unusual", "anomaly_model_id"} & set(alone)

    model = anomaly_engine.load_anomaly(rundir.find_model("odd"))
    names = {r["inspection_id"]: r["file_name"] for r in rundir.rows(run_dir, "inspections").to_pylist()}
    anomalies = rundir.rows(run_dir, "anomalies").to_pylist()
    assert {names[a["inspection_id"]] for a in anomalies if a["anomaly_score"] >= small_anomaly.THRESHOLD} == {"1.png", "5.png", "9.png"}
    for row in anomalies:
        maps = model.maps([model.prepare(np.asarray(Image.open(io.BytesIO(dict(UPLOAD)[names[row["inspection_id"]]]))))])
        assert row["anomaly_score"] == pytest.approx(float(model.scores(maps)[0]), abs=1e-6) and row["model_id"] == model.model_id
        assert np.abs(unpack_map(row["anomaly_map"], row["side"]) * 0.6 / 255 - maps[0]).max() < 0.6 / 500


def test_an_unusual_picture_is_kept_like_a_reject(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspect, "Keeper", FULL)
    _, run_dir = inspected(UPLOAD, anomaly="odd")
    found = {r["file_name"]: r for r in rundir.rows(run_dir, "inspections").to_pylist()}
    assert {n for n, r in found.items() if r["kept"]} == {"1.png", "5.png", "9.png"}
    assert found["1.png"]["kept_share"] == 1.0 and found["0.png"]["kept_share"] == pytest.approx(0.01)
    maps = {a["inspection_id"] for a in rundir.rows(run_dir, "anomalies").to_pylist() if a["anomaly_map"] is not None}
    assert maps == {r["inspection_id"] for r in found.values() if r["kept"]} and rundir.rows(run_dir, "anomalies").num_rows == 10


def test_which_anomaly_model_runs(place: Path) -> None:
    assert "unusual" not in inspected(UPLOAD[:2])[0], "none is in use"
    plant.decide("promote", model_id=json.loads((rundir.find_model("odd") / "model.json").read_text())["model_id"], name="odd")
    assert inspected(UPLOAD[:2])[0]["unusual"] == 1 and "unusual" not in inspected(UPLOAD[:2], anomaly="none")[0]
    for wrong in (dict(anomaly="tiny"), dict(anomaly="other")):
        with pytest.raises(NotFoundError, match="anomaly model"):
            inspected(UPLOAD[:2], **wrong)
    config, run_dir = new_run(UPLOAD[:2])
    with pytest.raises(NotFoundError, match="'odd' is no detector"):
        inspect.run(Inspect(model="odd"), run_dir, silent)
    inspect.warm_up()


def test_a_model_without_a_threshold_says_so(place: Path) -> None:
    small_anomaly.bundle(rundir.create("train-anomaly", {}, state="completed") / "model", name="young", thresholds={},
                         threshold_refused="Too few good pictures: 20; 300 are needed.")
    result, run_dir = inspected(UPLOAD[:4], anomaly="young")
    assert result["unusual"] is None and result["warnings"] == ["Too few good pictures: 20; 300 are needed."]
    assert rundir.rows(run_dir, "anomalies").num_rows == 4


class Killed(BaseException):
    """Stands for the end of the process: nothing catches it."""


def test_a_kill_at_any_write_loses_and_doubles_nothing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspect, "FIRST", 2)
    monkeypatch.setattr(inspect, "MOST", 3)
    config, template = new_run(UPLOAD[:5], anomaly="odd")
    whole = shutil.copytree(template, place / "whole" / template.name)
    expected = inspect.run(config, whole, silent)
    real = os.replace
    for nth in range(1, 200):
        run_dir = shutil.copytree(template, place / f"killed{nth}" / template.name)
        left = [nth]

        def replace(a: Any, b: Any, left: list[int] = left, run_dir: Path = run_dir) -> None:
            left[0] -= run_dir in Path(b).parents
            if not left[0]:
                raise Killed
            real(a, b)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", replace)
            try:
                inspect.run(config, run_dir, silent)
                break
            except Killed:
                pass
        result = inspect.run(config, run_dir, silent)
        assert rundir.rows(run_dir, "anomalies").equals(rundir.rows(whole, "anomalies")), nth
        assert all(result[k] == expected[k] for k in ("inspected", "unusual", "defective", "counted", "anomaly_model_id"))
    assert nth > 9, "not one write of each kind was met"


def test_a_batch_goes_on_with_the_anomaly_model_it_began_with(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspect, "FIRST", 2)

    def stop(*, step: int, **progress: Any) -> None:
        if step:
            raise Killed

    begun = [new_run(UPLOAD[:7]), new_run(UPLOAD[:7], anomaly="odd")]
    for config, run_dir in begun:
        with pytest.raises(Killed):
            inspect.run(config, run_dir, stop)
    newer = small_anomaly.bundle(rundir.create("train-anomaly", {}, state="completed") / "model", small_anomaly.onnx_bytes() + b"\x72\x00",
                                 name="newer")                                             # one empty field more: another model
    plant.decide("promote", model_id=rundir.read_json(newer / "model.json")["model_id"], name="newer")
    older = rundir.create("inspect", {}, state="running")                                  # begun before there were anomaly models
    shutil.copytree(begun[0][1], older, dirs_exist_ok=True)
    notes = rundir.read_json(older / "inspect.json")
    rundir.write_json(older / "inspect.json", {k: v for k, v in notes.items() if k != "anomaly_model_id"})
    assert "unusual" not in inspect.run(*begun[0], silent) and "unusual" not in inspect.run(begun[0][0], older, silent)
    result = inspect.run(*begun[1], silent)
    assert result["anomaly_model_name"] == "odd" and len({a["model_id"] for a in rows(begun[1][1], "anomalies")}) == 1


# ---- what is drawn and taken away


def test_the_ramp_grows_evenly_lighter() -> None:
    """Order must be seen without hue: CIE L* of sRGB, D65."""
    share = heat.ramp() / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    lightness = 116 * np.cbrt(np.maximum(linear @ [0.2126, 0.7152, 0.0722], 216 / 24389)) - 16
    assert np.diff(lightness[5:]).min() > 0 and np.ptp(np.diff(lightness[::51])) < 8 and lightness[-1] - lightness[0] > 80


def test_heat_is_transparent_where_all_is_normal() -> None:
    grey = Image.new("RGB", (80, 60), (120, 120, 120))
    values = np.zeros((8, 8), np.uint8)
    values[2:5, 4:7], values[7, 0] = 255, 40                # 40 is below half of the start, 128
    laid, bare = (np.asarray(heat.lay(grey, values, opacity, 128)).astype(int) for opacity in (0.6, 0.0))
    assert (bare == 120).all() and (laid[:, :30] == 120).all() and (laid[45:, :] == 120).all()
    expected = 0.6 * heat.ramp()[255] + 0.4 * 120
    assert np.abs(laid[24, 55] - expected).max() <= 2, "the middle of the patch"
    assert (np.asarray(heat.lay(grey, values, 1.0, 400.0)).astype(int)[45:, :] == 120).all(), "a threshold beyond the map's range"


@pytest.fixture
def shown(place: Path) -> tuple[str, dict[str, int]]:
    """An ingested batch through both models; ids by file name."""
    _, run_dir = inspected(UPLOAD, anomaly="odd")
    plant.finish(run_dir)
    assert house.opened().ingest()
    return run_dir.name, {r["file_name"]: r["inspection_id"] for r in rundir.rows(run_dir, "inspections").to_pylist()}


def opened(data: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def test_the_heat_of_a_picture(shown: tuple[str, dict[str, int]], monkeypatch: pytest.MonkeyPatch) -> None:
    _, ids = shown
    plain, hot = (opened(results.heat(ids["1.png"], 120, opacity, format="png")) for opacity in (0.0, 0.8))
    assert plain.shape == hot.shape == (96, 120, 3)
    changed = np.abs(hot - plain).max(2)
    assert changed[20:40, 20:50].min() > 60 and changed[70:, 80:].max() == 0
    for boxes in (False, True):                                                            # a normal picture stays as it is
        normal = opened(results.heat(ids["0.png"], 120, boxes=boxes, format="png"))
        assert np.abs(normal - opened(results.picture(ids["0.png"], width=120, boxes=boxes, format="png"))).max() == 0
    assert Image.open(io.BytesIO(results.heat(ids["1.png"], 64))).format == "JPEG"
    with monkeypatch.context() as patch:                                                   # the model's run was removed since
        patch.setattr(rundir, "model_folders", lambda: iter(()))
        assert np.abs(opened(results.heat(ids["1.png"], 120, 0.8, format="png")) - plain).max() > 60
    with pytest.raises(NotFoundError):
        results.heat(1)


def test_an_export_names_what_is_unusual_only_where_somebody_looked(shown: tuple[str, dict[str, int]]) -> None:
    run_id, _ = shown
    text = results.export(run_id, "csv")
    assert isinstance(text, bytes)
    lines = {line.split(",")[0]: line for line in text.decode("utf-8-sig").splitlines()}
    assert lines["File"].endswith("Unusual,Anomaly score,Anomaly model")
    assert ",yes,0." in lines["1.png"] and ",no,0." in lines["0.png"]
    _, bare = inspected(UPLOAD[2:3], anomaly="none")
    plant.finish(bare)
    assert house.opened().ingest()
    alone = results.export(bare.name, "csv")
    assert isinstance(alone, bytes) and b"Unusual" not in alone


# ---- what a model is trained from


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DIFFSPECT_DATA", str(tmp_path / "data"))
    return tmp_path / "in"


def written(root: Path, name: str, data: bytes | np.ndarray) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    if isinstance(data, bytes):
        (root / name).write_bytes(data)
    else:
        Image.fromarray(data).save(root / name)


def imported(path: Path, **more: Any) -> tuple[dict[str, Any], Path]:
    config = Import(path=str(path), **{"name": "set", **more})
    run = rundir.create("import", config.to_json())
    return importer.run(config, run, silent), run


def blocks(seed: int) -> bytes:
    """48 × 60 pixels, unlike any other seed's."""
    out = io.BytesIO()
    small = np.random.default_rng(seed).integers(0, 255, (8, 8), np.uint8)
    Image.fromarray(small).resize((60, 48), Image.Resampling.BICUBIC).save(out, "PNG")
    return out.getvalue()


def test_a_snapshot_keeps_masks(empty: Path) -> None:
    for k in range(6):
        written(empty, f"train/good/{k}.png", blocks(k))
    for k in range(4):
        written(empty, f"test/hole/{k}.png", blocks(10 + k))
    masks = [np.zeros((48, 60), np.uint8) for _ in range(3)]
    masks[0][5:15, 5:20], masks[1][30:40, 40:50] = 255, 128
    masks[2][3:9, 3:9] = 255
    for n in (0, 1):                                        # two masks of one picture are united
        written(empty, f"ground_truth/hole/0/{n}.png", masks[n])
    written(empty, "ground_truth/hole/1_mask.png", masks[2][::2, ::2])                     # of half the size
    written(empty, "ground_truth/hole/2_mask.png", np.zeros((48, 60), np.uint8))
    head, run = imported(empty)
    data = snapshot.read(run)
    by_name = {p.file_name: p for p in data.pictures}
    assert {n for n, p in by_name.items() if p.mask} == {f"test/hole/{k}.png" for k in range(4)}
    for blank in (by_name["test/hole/2.png"], by_name["test/hole/3.png"]):
        assert not blank.boxes and not images.load_mask(blank.mask).any() and not blank.is_good       # a defect that nobody outlined
    assert (images.load_mask(by_name["test/hole/0.png"].mask) == (masks[0] > 0) | (masks[1] > 0)).all()
    scaled = images.load_mask(by_name["test/hole/1.png"].mask)
    assert scaled.shape == (48, 60) and abs(int(scaled.sum()) - 36) <= 16
    assert sum("mask" in e for e in rundir.read_json(run / "manifest.json")["images"]) == 4
    assert data.classes == ["hole"] and not any(p.mask for p in data.learnable())
    assert images.keep_mask(images.load_mask(by_name["test/hole/0.png"].mask)) == by_name["test/hole/0.png"].mask
    with pytest.raises(NotFoundError):
        images.load_mask("0" * 64)
    masks[0][14, 5] = 0                                     # its box stays the same
    written(empty, "ground_truth/hole/0/0.png", masks[0])
    assert imported(empty)[0]["snapshot_id"] != head["snapshot_id"]


def test_a_mask_of_another_shape_is_another_mask(empty: Path) -> None:
    assert len({images.keep_mask(np.ones(shape, bool)) for shape in ((8, 4), (4, 8), (8, 5), (2, 16))}) == 4


def test_a_snapshot_without_masks_keeps_its_id(empty: Path) -> None:
    """Made with the program before there were masks: an id that names models and figures must not change."""
    for k in range(3):
        written(empty, f"{k}.png", np.full((16, 16), 40 + 60 * k, np.uint8))
        written(empty, f"{k}.txt", b"0 0.5 0.5 0.25 0.5")
    lists = empty.parent / "lists"
    for k, split in enumerate(("train", "val", "test")):
        written(lists, f"{split}.txt", f"{k}".encode())
    _, run = imported(empty, splits=str(lists))
    [first, *_] = rundir.read_json(run / "manifest.json")["images"]
    assert list(first) == ["split", "image_id", "origin", "parent", "boxes"]


@pytest.mark.parametrize(("names", "layout", "folders"), [
    ([f"{k}.png" for k in range(20)], "images", False), ([f"good/{k}.png" for k in range(20)], "images", False),
    ([f"tile/train/good/{k}.png" for k in range(20)], "mvtec", False),
    ([f"train/good/{k}.png" for k in range(15)] + [f"test/good/{k}.png" for k in range(15, 20)], "mvtec", True)])
def test_a_normal_only_set(empty: Path, names: list[str], layout: str, folders: bool) -> None:
    for k, name in enumerate(names):
        written(empty, name, blocks(k))
    head, run = imported(empty)
    assert head["layout"] == layout and head["classes"] == [] and head["labels"] == head["refused"] == 0
    assert all(head["images"].values()) and sum(head["images"].values()) == 20
    assert (head["splits_from"] == "folders") is folders and f"{importer.NO_DEFECT}." in head["notes"]
    assert snapshot.read(run).learnable()


def test_folders_beside_a_good_one_are_no_labels_and_that_is_said(empty: Path) -> None:
    for k in range(9):
        written(empty, f"{'good' if k < 6 else 'scratch'}/{k}.png", blocks(k))
    head, _ = imported(empty)
    said = "Pictures beside a folder of good ones; without a box or a mask they count as free of defects too: 3 (scratch/6.png, "
    assert any(n.startswith(said) for n in head["notes"])


def test_a_train_folder_of_good_and_bad_is_not_read_as_mvtec(empty: Path) -> None:
    for k in range(9):
        written(empty, f"train/{'good' if k < 6 else 'bad'}/{k}.png", blocks(k))
    assert imported(empty)[0]["layout"] == "images" and imported(empty)[0]["images"]["train"] > 0
