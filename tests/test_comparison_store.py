"""Finished trainings side by side, from the store: which there are, and what two of them say of each test image, by known answers."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest

from backend import rundir
from backend.errors import ConfigError, NotFoundError
from backend.store import comparison, contests, scan, worth
from backend.store.database import Database
from backend.store.ingest import ingest, rebuild
from tests import small_plant as plant
from tests import small_trainings as trainings
from tests.small_trainings import A, B


@pytest.fixture
def pair(db: Database) -> tuple[str, str]:
    """The trainings a and b, on one test set."""
    return both(db)


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Database, str, str]]:
    """The same in a store that nobody adds to."""
    root = tmp_path_factory.mktemp("known")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFSPECT_DATA", str(root))
        patch.setattr(scan, "demo_assets", lambda: root / "no-bundle")
        db = Database()
        yield (db, *both(db))
        db.close()


def both(db: Database) -> tuple[str, str]:
    trainings.dataset()
    runs = [trainings.training(name, answers).name for name, answers in (("a", A), ("b", B))]
    ingest(db)
    return runs[0], runs[1]


def column(frame: pd.DataFrame, name: str) -> dict[str, Any]:
    return dict(zip(frame["image_id"], frame[name].tolist(), strict=True))


# ---- which there are

def test_scored_runs(db: Database, pair: tuple[str, str]) -> None:
    told = dict(real_images=2, synthetic_images=1, steps=8, images_seen=16)
    both = trainings.training("both", A, result=told, origin="both", shown=8)
    old = trainings.training("old", None, labels=1, batch=4, result=dict(images=10))
    plant.decide("promote", model_id="m-b")
    plant.finish(rundir.create("train-detector", {"name": "failed"}), "failed")
    ingest(db)
    runs = comparison.scored_runs(db).set_index("name")
    assert list(runs.index) == ["old", "both", "b", "a"]
    assert list(comparison.scored_runs(db).columns) == list(comparison._COLUMNS)
    assert (runs["test_set_id"] == "T").all() and (runs["dataset"] == "steel").all()
    assert runs["scored"].tolist() == [False, True, True, True] and runs["promoted"].tolist() == [False, False, True, False]
    row = runs.loc["both"]
    assert (row.run_id, row.seed, row.origin, row.shown, row.epochs, row.steps, row.images_seen, row.seconds) == (
        both.name, 3, "both", 8, 2, 8, 16, 20.0)
    assert (row.images, row.good_images, row.boxes, row.map50, row.val_map50_95, row.missed_images) == (5, 1, 5, 0.5, 0.3, 0.25)
    assert row.ap50 == {"pits": 0.4} and row.settings["shown"] == 8 and row.thresholds == pytest.approx(trainings.THRESHOLDS)
    assert pd.isna(row.false_rejects), "nothing says it"
    before = runs.loc["old"]
    assert (before.run_id, before.real_images, before.synthetic_images, before.origin) == (old.name, 1, 1, "both"), "by labels and snapshot"
    assert (before.images_seen, before.steps) == (20, 6), "two passes of three steps"


def test_a_model_that_two_runs_delivered_is_two_runs(db: Database, pair: tuple[str, str]) -> None:
    """The same settings and seed on the same machine: the same model, each with its own look."""
    again = trainings.training("a", B)
    ingest(db)
    assert comparison.scored_runs(db)["model_id"].tolist() == ["m-a", "m-b", "m-a"]
    assert contests.contest(db, pair[0], again.name)[1]["a_only"] > 0


def test_the_newest_scoring_counts_for_a_training_without_a_look(db: Database) -> None:
    trainings.dataset()
    old = trainings.training("old", None)
    ingest(db)
    with pytest.raises(NotFoundError, match="'old' was trained before answers .* Score it once more"):
        contests.boxes_of(db, old.name, "t0")
    for minutes, answers in ((60, A), (90, B)):
        trainings.scoring("m-old", answers, minutes)
    ingest(db)
    assert comparison.scored_runs(db)["scored"].tolist() == [True]
    found, _ = contests.boxes_of(db, old.name, "t0")
    assert found["confidence"].tolist() == pytest.approx([0.6, 0.55]), "what B says"


def test_a_training_that_came_without_its_model(db: Database, pair: tuple[str, str]) -> None:
    """As those of the demo plant: its look says what it was; nobody can promote it."""
    bare = trainings.training("bare", B, result=dict(map50=0.7, val_map50=0.8, missed_images=0.5), modelled=False)
    ingest(db)
    row = comparison.scored_runs(db).set_index("name").loc["bare"]
    assert (row.run_id, row.model_id, row.test_set_id, row.scored, row.promoted, row.seed) == (bare.name, "m-bare", "T", True, False, 3)
    assert (row.map50, row.val_map50, row.missed_images, row.classes) == (0.7, 0.8, 0.5, ["pits", "scratch"])
    assert row.thresholds == pytest.approx(trainings.THRESHOLDS)
    assert contests.contest(db, pair[0], bare.name)[1] == contests.contest(db, *pair)[1]
    assert worth.operating(db, bare.name).equals(worth.operating(db, pair[1]))


def test_looks_are_counted(db: Database, pair: tuple[str, str]) -> None:
    trainings.scoring("m-a", A)
    teacher = rundir.create("train-fused", {"name": "teacher"})
    trainings.look(teacher, "", {})
    plant.finish(teacher)
    trainings.training("elsewhere", A, test_set_id="other")
    ingest(db)
    seen = comparison.looks(db, "T")
    assert sorted(zip(seen["name"], seen["recipe"], strict=True)) == [
        ("a", "score"), ("a", "train-detector"), ("b", "train-detector"), ("teacher", "train-fused")]
    assert seen["recipe"].iloc[0] == "score", "the newest first"
    assert len(comparison.looks(db, "nobody's")) == 0


def test_curves(known: tuple[Database, str, str]) -> None:
    db, *pair = known
    found = comparison.curves(db, [pair[1], pair[0]], ("map50",))
    assert found[["run_id", "step", "name", "value", "at_s"]].values.tolist() == [
        [run, e, "map50", e / 10, 10.0 * e] for run in sorted(pair) for e in (1, 2)]
    assert len(comparison.curves(db, [pair[0]])) == 4 and comparison.curve_names(db, [pair[0]]) == ["loss", "map50"]
    assert comparison.curves(db, []).empty


def test_an_older_snapshot_is_given_its_test_set(db: Database) -> None:
    """By its manifest, when it is taken in and when all is made again."""
    run = trainings.dataset(test_set_id=None)
    entries = [dict(image_id="t0", split="test", boxes=[["pits", 1.0, 2.0, 3.0, 4.0, "box"]])]
    rundir.write_json(run / "manifest.json", dict(classes=["pits"], images=entries))
    old = trainings.training("old", None)
    for take_in in (ingest, rebuild):
        take_in(db)
        runs = comparison.scored_runs(db)
        assert runs["run_id"].tolist() == [old.name] and runs["test_set_id"].tolist() == [rundir.test_set_of(entries)]


def test_made_again_the_rows_are_the_same(db: Database, pair: tuple[str, str]) -> None:
    trainings.training("later", A)
    trainings.scoring("m-b", B)
    ingest(db)
    before = plant.tables(db)
    rebuild(db)
    assert plant.tables(db) == before and len(before["predictions"]) == 2 * (6 + 5) and len(before["looks"]) == 8


# ---- image by image

def test_test_images(known: tuple[Database, str, str]) -> None:
    db, *pair = known
    found = comparison.test_images(db, pair[0])
    assert found["image_id"].tolist() == ["t0", "t1", "t2", "t3"], "a content that lists hold twice is one"
    assert column(found, "boxes") == {"t0": 2, "t1": 1, "t2": 0, "t3": 1} and column(found, "is_good")["t2"]
    assert column(found, "classes")["t1"] == "scratch" and column(found, "group_id")["t3"] == "g-t3"


def test_contest_at_the_models_own_thresholds(known: tuple[Database, str, str]) -> None:
    db, *pair = known
    images, counts = contests.contest(db, *pair)
    assert images["image_id"].tolist() == ["t0", "t1", "t2", "t3"]
    assert column(images, "found_a") == {"t0": 1, "t1": 1, "t2": 0, "t3": 0} == column(images, "found_b")
    assert column(images, "missed_b") == {"t0": 1, "t1": 0, "t2": 0, "t3": 1} == column(images, "missed_a")
    assert column(images, "only_a")["t0"] == column(images, "only_b")["t0"] == 1, "as many, but not the same"
    assert column(images, "false_a") == {"t0": 0, "t1": 1, "t2": 1, "t3": 1}
    assert column(images, "false_b") == {"t0": 1, "t1": 0, "t2": 0, "t3": 0}
    assert column(images, "top_a") == pytest.approx({"t0": 0.9, "t1": 0.8, "t2": 0.7, "t3": 0.9})
    assert counts == dict(a_only=1, b_only=1, both=1, neither=1, a_false=3, b_false=1, all=4)


@pytest.mark.parametrize(("at_a", "at_b", "expected"), [
    (0.3, 0.2, dict(a_only=1, b_only=1, both=1, neither=0)),             # A finds both of t0, B one of it, and t3
    (0.95, 0.95, dict(a_only=0, b_only=0, both=0, neither=3)),
    ({"pits": 0.1, "scratch": 0.9}, 0.55, dict(a_only=1, b_only=0, both=0, neither=2)),
    (0.3, None, dict(a_only=1, b_only=0, both=1, neither=1))])
def test_thresholds_move_on_stored_answers(known: tuple[Database, str, str], at_a: Any, at_b: Any, expected: dict[str, int]) -> None:
    db, *pair = known
    _, counts = contests.contest(db, *pair, at_a, at_b)
    assert {k: counts[k] for k in expected} == expected


def test_back_and_forth(known: tuple[Database, str, str]) -> None:
    db, *pair = known
    there, back = (contests.contest(db, *runs, kind=kind) for runs, kind in ((pair, "a_false"), (pair[::-1], "b_false")))
    assert there[0]["image_id"].tolist() == back[0]["image_id"].tolist() == ["t3", "t1", "t2"], "of as many, the surest first"
    assert there[1]["a_false"] == back[1]["b_false"] == 3 and there[1]["b_only"] == back[1]["a_only"]


def test_a_page_of_one_class(known: tuple[Database, str, str]) -> None:
    """Whatever is of other classes does not count."""
    db, *pair = known
    images, counts = contests.contest(db, *pair, class_name="scratch")
    assert column(images, "boxes") == {"t0": 0, "t1": 1, "t2": 0, "t3": 0} and counts["both"] == 1
    assert column(images, "false_a") == {"t0": 0, "t1": 0, "t2": 0, "t3": 1} and images["is_good"].tolist() == [True, False, True, True]
    page, counts = contests.contest(db, *pair, kind="a_false", limit=2, offset=1)
    assert len(page) == 2 and counts["a_false"] == 3
    with pytest.raises(ConfigError, match="a_only, b_only"):
        contests.contest(db, *pair, kind="best")


def test_different_test_sets_are_not_compared(db: Database, pair: tuple[str, str]) -> None:
    trainings.dataset("s2", "U", "other steel")
    other = trainings.training("other", B, "s2", "U")
    ingest(db)
    with pytest.raises(ConfigError, match="'a' and 'other' were scored on different test sets"):
        contests.contest(db, pair[0], other.name)
    with pytest.raises(NotFoundError, match="no finished training"):
        contests.contest(db, pair[0], "nobody")


def test_snapshots_that_differ_in_train_pair(db: Database, pair: tuple[str, str]) -> None:
    trainings.dataset("s2", "T", "steel and more")
    more = trainings.training("more", B, "s2", "T")
    ingest(db)
    assert contests.contest(db, pair[0], more.name)[1] == contests.contest(db, *pair)[1]


def test_boxes_of_an_image(known: tuple[Database, str, str]) -> None:
    db, *pair = known
    found, there = contests.boxes_of(db, pair[0], "t0")
    assert found[["class_name", "hit", "hit_box"]].values.tolist() == [["pits", True, 0], ["pits", True, 1]]
    assert there[["class_name", "x1"]].values.tolist() == [["pits", 10.0], ["pits", 60.0]]
    assert there["found_at"].tolist() == pytest.approx([0.9, 0.3])
    _, missed = contests.boxes_of(db, pair[1], "t0")
    assert missed["found_at"].tolist() == pytest.approx([np.nan, 0.6], nan_ok=True)
    assert all(table.empty == empty for table, empty in zip(contests.boxes_of(db, pair[0], "t2"), (False, True), strict=True))
    with pytest.raises(NotFoundError, match="no test image"):
        contests.boxes_of(db, pair[0], "r0")


# ---- what one is worth

def test_precision_and_recall(known: tuple[Database, str, str]) -> None:
    db, *pair = known
    found = worth.pr_curve(db, pair[0])
    assert sorted(set(found["class_name"])) == ["", "pits", "scratch"]
    pits = found[found["class_name"] == "pits"]
    assert pits["confidence"].tolist() == pytest.approx([0.9, 0.7, 0.6, 0.3])
    assert pits["precision"].tolist() == pytest.approx([1, 1 / 2, 1 / 3, 2 / 4])
    assert pits["recall"].tolist() == pytest.approx([1 / 3] * 3 + [2 / 3])
    pooled = found[found["class_name"] == ""]
    assert pooled["confidence"].iloc[0] == pytest.approx(0.9) and pooled["precision"].iloc[0] == 1 / 2, "equal confidences are one point"
    assert worth.pr_curve(db, pair[0], "pits")["class_name"].unique().tolist() == ["pits"]
    assert worth.pr_curve(db, pair[0], "unknown").empty


def test_a_long_curve_is_thinned(known: tuple[Database, str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    db, *pair = known
    monkeypatch.setattr(worth, "POINTS", 2)
    pits = worth.pr_curve(db, pair[0], "pits")
    assert pits["confidence"].tolist() == pytest.approx([0.9, 0.3]), "its ends stay"


def test_confusion(known: tuple[Database, str, str]) -> None:
    db, *pair = known
    found = worth.confusion(db, pair[0])
    assert {(t, p): n for t, p, n in found.values.tolist()} == {
        ("pits", "pits"): 1, ("pits", ""): 1, ("pits", "scratch"): 1, ("scratch", "scratch"): 1, ("", "pits"): 2}
    lower = worth.confusion(db, pair[1], 0.15)
    assert {(t, p): n for t, p, n in lower.values.tolist()} == {("pits", "pits"): 3, ("scratch", "scratch"): 1}, "a box goes where it fits"


def test_operating(known: tuple[Database, str, str]) -> None:
    db, *pair = known
    table = worth.operating(db, pair[0]).set_index("threshold")
    assert table.index[0] == 0.05 and table.index[-1] == 0.99
    images = dict(defective_images=3, good_images=1)
    assert table.loc[0.05].to_dict() == dict(found=3, missed=1, false=3, missed_images=0, rejected_good=1, **images)
    assert table.loc[0.75].to_dict() == dict(found=2, missed=2, false=1, missed_images=0, rejected_good=0, **images)
    assert table.loc[0.85, "missed_images"] == 1 and table.loc[0.99, "missed_images"] == 3
    assert table.loc[0.9, "found"] == 1, "a threshold as high as the confidence lets it through"
    scratch = worth.operating(db, pair[0], "scratch").set_index("threshold")
    assert (scratch.loc[0.5, "defective_images"], scratch.loc[0.5, "false"], scratch.loc[0.5, "good_images"]) == (1, 1, 1)
