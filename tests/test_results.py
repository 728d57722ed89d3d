"""Results as pages get them: bound to the one database, pictures drawn with their boxes, batches to take away."""

import csv
import inspect
import io
import json
import os
import zipfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from backend import jobs, rundir
from backend.data import images
from backend.errors import ConfigError, NotFoundError
from backend.inspection import annotate
from backend.jobs import house, pictures, results
from tests import small_plant as plant

PITS = "demo:417:2c:1:pits"
COMPARED = ("test_images", "contest", "boxes_of", "pr_curve", "confusion", "operating")      # ask of a training that is there


def kept(colour: tuple[int, int, int] = (128, 128, 128)) -> str:
    """A plain grey picture in the store of kept images; its id."""
    out = io.BytesIO()
    Image.new("RGB", (100, 80), colour).save(out, "PNG")
    image_id = images.sha256(out.getvalue())
    images.keep(out.getvalue(), image_id, "PNG")
    return image_id


def opened(data: bytes) -> Any:
    """The picture's pixels, (H, W, 3)."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def take_in() -> list[dict[str, Any]]:
    assert house.opened().ingest()
    return plant.facts(house.database())


@pytest.fixture
def batch(data_folder: Path) -> str:
    """Three pictures: two defects (one too weak) on a kept one, one good that was not kept, one from the demo's generator."""
    run = plant.batch([dict(image_id=kept(), file_name="=cmd()|' /C calc'!A0.png", boxes=[("pits", 0.9), ("pits", 0.1), ("stain", 0.5)]),
                       dict(image_id="f" * 64, file_name="b/../Grüße.png", lot="-1"), dict(image_id=PITS, line="+L")])
    plant.decide("policy", product="", class_name="stain", action="minor", threshold=None, min_side=0)
    take_in()
    return run.name


def test_every_question_is_answered_on_an_empty_folder(data_folder: Path) -> None:
    """Pages ask all of these before anything is there."""
    given: dict[str, Any] = {"run_ids": [], "test_set_id": "none", "plant": "real", "filters": jobs.Filters(), "by": "line",
                             "now": jobs.Filters(), "then": jobs.Filters(),
                             "inspection_ids": [], "run_id": "none",
                             "image_ids": [], "snapshot_id": "none", "chart": jobs.SavedChart(line="L1")}
    asked = 0
    for name, question in inspect.getmembers(results, inspect.isfunction):
        needed = [p.name for p in inspect.signature(question).parameters.values() if p.default is p.empty]
        if question.__module__ == results.__name__ and name not in (
                "inspection", "picture", "heat", "synthetic_picture", "export", "look_back", "changed", "anew", "looked_back",
                "shift_report", *COMPARED):
            question(**{n: given[n] for n in needed})
            asked += 1
    assert asked >= 25
    for name in COMPARED:
        with pytest.raises(NotFoundError, match="no finished training"):
            getattr(results, name)(*["none"] * (2 if name in ("contest", "boxes_of") else 1))
    with pytest.raises(NotFoundError):
        results.inspection(1)
    with pytest.raises(NotFoundError):
        results.picture(inspection_id=1)
    with pytest.raises(NotFoundError):
        results.synthetic_picture("20260610-120000-000000-synthesize-000000", "000000.png")
    with pytest.raises(NotFoundError):
        results.look_back("20260610-120000-000000-shadow-000000")
    with pytest.raises(NotFoundError):
        results.export("20260610-120000-000000-inspect-000000", "csv")


def test_a_decision_shows_when_record_returns(batch: str) -> None:
    before, revision = results.totals(jobs.Filters())["inspected"], results.revision()
    made = jobs.record("exclude", {"run_id": batch, "inspection_ids": [], "reason": "test"})
    assert (before, results.totals(jobs.Filters())["inspected"]) == (3, 0) and results.revision() > revision
    jobs.undo(made)
    assert results.totals(jobs.Filters())["inspected"] == 3
    assert results.changes("real")["undone"].tolist()[0]


def test_pictures_show_what_passes(batch: str) -> None:
    first, missing, demo = (r["inspection_id"] for r in take_in())
    plain, marked = (opened(results.picture(inspection_id=first, boxes=b, format="png")) for b in (False, True))
    assert plain.shape == (80, 100, 3) and np.ptp(plain) == 0
    assert (marked != plain).any(axis=2).mean() > 0.05
    assert opened(results.picture(inspection_id=first, width=300)).shape == (240, 300, 3)
    assert (opened(results.picture(inspection_id=first, threshold=0.95, format="png")) == plain).all(), "nothing is as sure as that"
    assert opened(results.picture(inspection_id=demo)).shape == (256, 256, 3)
    with pytest.raises(NotFoundError, match="not kept"):
        results.picture(inspection_id=missing)
    boxes = pictures.rows(results.detections([first]))
    assert [d["confidence"] for d in pictures.passing(boxes)] == pytest.approx([0.9, 0.5])
    assert [d["confidence"] for d in pictures.passing(boxes, 0.05)] == pytest.approx([0.9, 0.5, 0.1])
    assert [d["confidence"] for d in pictures.passing(boxes, {"pits": 0.05})] == pytest.approx([0.9, 0.5, 0.1])
    assert [d["class_name"] for d in pictures.passing(boxes, {"pits": 0.95, "stain": 0.4})] == ["stain"]


def test_small_pictures_are_drawn_once_and_follow_their_boxes(batch: str) -> None:
    pictures._small.cache_clear()
    first = take_in()[0]["inspection_id"]
    small = [results.picture(inspection_id=first, width=200, format="png") for _ in range(2)]
    assert small[0] == small[1] and pictures._small.cache_info()[:2] == (1, 1)
    boxes = pictures.passing(pictures.rows(results.detections([first])))
    full = annotate.draw(images.load(results.inspection(first)["image_id"]), boxes, 200)
    assert (opened(small[0]) == np.asarray(full)).all(), "drawn from what is kept of each box"
    plant.decide("policy", product="", class_name="pits", action="reject", threshold=0.95, min_side=0)
    take_in()
    other = results.picture(inspection_id=first, width=200, format="png")
    assert other != small[0], "another box passes"
    images.path_of(results.inspection(first)["image_id"]).unlink()
    with pytest.raises(NotFoundError, match="not kept"):
        results.picture(inspection_id=first, width=200, format="png")


def test_dataset_pictures_show_labels(data_folder: Path) -> None:
    run, image_id = rundir.create("import", {}), kept()
    rundir.write_part(run, "snapshots", [dict(snapshot_id="s1", name="Steel", created_at=plant.NOON, classes=["pits"])])
    ours = dict(snapshot_id="s1", image_id=image_id)
    rundir.write_part(run, "snapshot_images", [ours | dict(file_name="a.png", split="train", width=100, height=80)])
    rundir.write_part(run, "labels", [ours | dict(class_name="pits", x1=10, y1=10, x2=60, y2=50, source="box")])
    plant.finish(run)
    take_in()
    assert results.dataset_images("s1")["boxes"].tolist() == [1]
    plain, marked = (opened(results.picture(image_id=image_id, boxes=b, format="png")) for b in (False, True))
    assert (plain != marked).any()

    # a newer dataset has the same picture with another label: each shows its own
    again = rundir.create("relabel", {})
    rundir.write_part(again, "snapshots", [dict(snapshot_id="s2", name="Steel 2", created_at=plant.NOON + timedelta(1), classes=["pits"])])
    theirs = dict(snapshot_id="s2", image_id=image_id)
    rundir.write_part(again, "snapshot_images", [theirs | dict(file_name="a.png", split="train", width=100, height=80)])
    rundir.write_part(again, "labels", [theirs | dict(class_name="pits", x1=30, y1=30, x2=90, y2=70, source="person")])
    plant.finish(again)
    take_in()
    first, second = (opened(results.picture(image_id=image_id, snapshot_id=s, format="png")) for s in ("s1", "s2"))
    assert (first == marked).all() and (first != second).any()
    assert (opened(results.picture(image_id=image_id, format="png")) == second).all()


def test_csv_and_parquet(batch: str) -> None:
    made = results.export(batch, "csv")
    assert isinstance(made, bytes)
    rows = list(csv.DictReader(io.StringIO(made.decode("utf-8-sig"))))
    assert [(r["Verdict"], r["Defect"], r["Action"]) for r in rows] == [
        ("good", "", ""), ("defective", "pits", "reject"), ("defective", "stain", "minor"), ("good", "", "")]
    assert not [v for r in rows for v in r.values() if v.startswith(("=", "+", "-", "@", "\t"))]
    assert {r["Line"] for r in rows} == {"L1", "'+L"} and {r["Lot"] for r in rows} == {"", "'-1"}
    assert {r["File"] for r in rows if r["Defect"]} == {"'=cmd()|' /C calc'!A0.png"}
    parquet = results.export(batch, "parquet")
    assert isinstance(parquet, bytes)
    frame = pd.read_parquet(io.BytesIO(parquet))
    assert len(frame) == 4 and frame["Confidence"].max() == pytest.approx(0.9) and "=cmd()|' /C calc'!A0.png" in set(frame["File"])


def test_coco(batch: str) -> None:
    found = json.loads(results.export(batch, "coco"))
    assert len(found["images"]) == 3 and {c["name"] for c in found["categories"]} == {"pits", "stain"}
    names = {i["id"]: i["file_name"] for i in found["images"]}
    assert {names[a["image_id"]] for a in found["annotations"]} == {"=cmd()|' /C calc'!A0.png"}
    assert sorted(a["score"] for a in found["annotations"]) == [0.5, 0.9]
    assert found["annotations"][0]["bbox"] == [10, 10, 20, 30] and found["annotations"][0]["area"] == 600


def test_zip_of_pictures(batch: str, data_folder: Path) -> None:
    path = results.export(batch, "zip")
    assert isinstance(path, Path) and path.is_relative_to(data_folder)
    with zipfile.ZipFile(path) as z:
        names = z.namelist()
        assert z.read("missing.txt").decode().splitlines()[1:] == ["b/../Grüße.png"]
        assert z.read("results.csv") == results.export(batch, "csv")
        drawn = [n for n in names if n.endswith(".jpg")]
        assert len(drawn) == 2 and len([n for n in drawn if n.startswith("defective/")]) == 1
        assert not [n for n in names if ".." in n or n.startswith("/")]
        assert {opened(z.read(n)).shape for n in drawn} == {(80, 100, 3), (256, 256, 3)}
    for kept in (data_folder / "images").rglob("*.*"):
        kept.write_bytes(kept.read_bytes()[:200])
    damaged = results.export(batch, "zip")
    assert isinstance(damaged, Path)
    with zipfile.ZipFile(damaged) as z:
        assert len(z.read("missing.txt").decode().splitlines()) == 3, "a picture that cannot be read any more costs nobody the download"
    os.utime(path, (0, 0))
    again = results.export(batch, "zip")
    assert isinstance(again, Path) and again.exists() and not path.exists(), "a download that nobody fetched goes"
    with pytest.raises(ConfigError):
        results.export(batch, "xlsx")
