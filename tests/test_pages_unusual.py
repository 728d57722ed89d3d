"""Pages where an anomaly model looked: training it, its batch, the queue of unknown defects, the trend beside the trend, its models."""

import json
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
import streamlit as st
from PIL import Image
from streamlit.testing.v1 import AppTest

from backend import jobs, rundir
from backend.jobs import pace
from backend.records import inspection_ids, pack_map
from pages.components import anomaly_form, breakdown, cards, charts, oddity, training_curves, upload, veil
from tests import test_pages_engineering as pages
from tests.test_pages_engineering import button, ingest, page, run, said

SCORES = [0.4, 0.6, 2.5, 1.0, 4.0, 3.0]             # by the model's threshold of 2, the third and the last two are unusual
REFUSED = "A false-reject rate of 1 % needs 300 good pictures that were kept from training; there are 9."
FIGURES = dict(image_auroc=0.987, pixel_auroc=None, pixel_ap=None, aupro=None, images=20, defective=8)


@pytest.fixture(autouse=True)
def _nothing_remembered() -> None:
    st.cache_data.clear()


def anomaly_model(threshold: float | None = 2.0, model_id: str = "a1", name: str = "Odd", **more: Any) -> str:
    """A trained anomaly model as its run leaves it."""
    config = jobs.TrainAnomaly(dataset="Steel", name=name, steps=100)
    head = dict(name=name, model_id=model_id, kind="anomaly", classes=["unusual"], snapshot_id="s" * 16, dataset="Steel", imgsz=64,
                thresholds={} if threshold is None else {"unusual": threshold}, pixel_threshold=2.0, map_range=[0.0, 5.0],
                metrics=dict(val={}, test=FIGURES), settings=config.to_json(), chosen=dict(normals=400))
    if threshold is None:
        head["threshold_refused"] = REFUSED
    made = run("train-anomaly", config.to_json(), result=dict(name=name), **more, models=[dict(
        model_id=model_id, name=name, kind="anomaly", created_at=datetime.now(UTC), snapshot_id="s" * 16, imgsz=64, classes=["unusual"],
        metrics=json.dumps(head["metrics"]), settings=json.dumps(head["settings"]))],
        model_thresholds=[dict(model_id=model_id, class_name="unusual", threshold=threshold)] if threshold is not None else [])
    folder = rundir.run_path(made) / "model"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(b"onnx")
    rundir.write_json(folder / "model.json", head)
    points = [dict(step=s, cosine_loss=1 / s, focal_loss=2 / s, overlap_loss=3 / s) for s in (20, 40)]
    (folder.parent / "metrics.jsonl").write_text("".join(json.dumps(p) + "\n" for p in points))
    return made


def looked(scores: list[float] = SCORES, defective: tuple[int, ...] = (4,), line: str = "Line 1", day: int = 0) -> str:
    """A batch that both models looked at; each picture's map is all of its score. `day`: so many days ago."""
    ids, at = [int(i) for i in inspection_ids(f"looked {line} {day}", len(scores))], datetime.now(UTC) - timedelta(days=day, minutes=5)
    rows = [dict(inspection_id=i, plant="real", image_id=pages.picture(60 + 8 * day + k), file_name=f"odd-{day}-{k}.png", unit_id="",
                 line=line, product="Plate", lot="", camera="", captured_at=at, captured_source="typed", ingested_at=at, width=64,
                 height=48, model_id="m1", runtime="onnxruntime", counted=True, not_counted_why="", kept=True, kept_share=1.0)
            for k, i in enumerate(ids)]
    found = [dict(inspection_id=ids[k], class_name="pits", confidence=0.9, x1=5.0, y1=5.0, x2=25.0, y2=25.0) for k in defective]
    return run("inspect", jobs.Inspect(line=line, product="Plate").to_json(), result={}, inspections=rows, detections=found, anomalies=[
        dict(inspection_id=i, model_id="a1", anomaly_score=s, side=4, anomaly_map=pack_map(np.full((4, 4), s), 0, 5))
        for i, s in zip(ids, scores, strict=True)])


@pytest.fixture
def batch(data_folder: Any) -> str:
    """Six pictures, three of them unusual, of which the detector rejects one."""
    pages.model("m1", "Steel 1")
    anomaly_model()
    run_id = looked()
    ingest()
    return run_id


def choose(at: AppTest, label: str, value: str) -> None:
    next(c for c in at.segmented_control if c.label == label).set_value(value).run()
    assert not at.exception, at.exception


def shown(at: AppTest) -> list[str]:
    """Pictures in the gallery, in their order."""
    return [b.label.removeprefix("Open ").replace("\\", "") for b in at.button if b.label.startswith("Open ")]


# --- training --------------------------------------------------------------------------------------------------------------------


def good_only(n: int = 60, val: int = 0, synthetic: int = 0, tested: int = 0, near: str = "") -> None:
    """A dataset of good pictures without a label: n to train on, then those of val, synthetic ones, and ones in train and test. `near`:
    splits of further pictures that nearly equal one another."""
    def row(k: int, split: str, origin: str = "real") -> dict[str, Any]:
        return dict(snapshot_id="g" * 16, image_id=f"{k:064x}", file_name=f"{split}-{k}.png", split=split, origin=origin, parent="",
                    generator_run="", width=64, height=48, group_id="", phash=f"{k:016x}")

    rows = [row(k, "train" if k < n else "val") for k in range(n + val)] + [row(1000 + k, "train", "synthetic") for k in range(synthetic)]
    rows += [row(2000 + k, split) for k in range(tested) for split in ("train", "test")]
    rows += [row(3000 + k, split) | dict(group_id="near") for k, split in enumerate(near.split())]
    head = dict(snapshot_id="g" * 16, name="Good parts", layout="images", created_at=datetime.now(UTC), classes=[], seed=0,
                splits_from="drawn", images=n, labels=0, refused=0)
    made = run("import", jobs.Import(path="/x", name="Good parts").to_json(), snapshots=[head], snapshot_images=rows, result={})
    rundir.write_json(rundir.run_path(made) / "snapshot.json", dict(head, created_at=str(head["created_at"])))


def test_an_anomaly_model_is_asked_for_in_percent(data_folder: Any) -> None:
    good_only()
    ingest()
    at = page("training", kind="anomaly", dataset="g" * 16)
    assert "learns from 54 good pictures; 6 more are kept aside" in said(at) and "1 % cannot be told from 6 good pictures" in said(at)
    assert "Allow 50 % or more" in said(at) and "on this machine" in said(at)
    next(n for n in at.number_input if n.label.startswith("Good parts it may call unusual")).set_value(50.0).run()
    assert "cannot be told" not in said(at) and "about 500 unusual" in said(at)
    button(at, "Start training").click().run()
    made = jobs.recent(limit=1, recipes=("train-anomaly",))[0]
    assert made.config == jobs.TrainAnomaly(dataset="g" * 16, name="Good parts 1", false_rejects=0.5).to_json()
    assert at.query_params["run"] == made.run_id and not at.exception


def test_a_dataset_without_good_pictures_is_refused_before_it_costs_anything(data_folder: Any) -> None:
    pages.snapshot()                                         # one picture in nine is without a label, and it is for the test
    ingest()
    at = page("training", kind="anomaly")
    assert "has no good picture" in said(at) and not any(b.label == "Start training" for b in at.button)


@pytest.mark.parametrize(("train", "val", "expected"), [(50, 10, (50, 10)), (100, 0, (90, 10)), (8, 0, (6, 2)), (4, 0, (2, 2))])
def test_good_pictures_kept_aside(train: int, val: int, expected: tuple[int, int]) -> None:
    assert anomaly_form.divided(train, val) == expected


@pytest.mark.parametrize(("train", "val", "made", "enough"), [(1, 5, 9, False), (2, 1, 0, True), (3, 0, 9, False), (4, 0, 0, True)])
def test_as_many_good_pictures_as_the_recipe_takes(data_folder: Any, train: int, val: int, made: int, enough: bool) -> None:
    """What the recipe refuses, the form does not let through; made pictures count for neither, nor does what is in the test too."""
    good_only(train, val=val, synthetic=made, tested=3)
    ingest()
    assert anomaly_form.good("g" * 16, jobs.results.revision()) == (train, val)
    at = page("training", kind="anomaly", dataset="g" * 16)
    assert any(b.label == "Start training" for b in at.button) is enough
    assert (f"it takes {2 if val else 4}" in said(at)) is not enough


@pytest.mark.parametrize(("near", "expected"), [("train train test", (9, 4)), ("train val", (9, 5)), ("val test", (9, 4)),
                                                ("train train", (11, 4)), ("train val test", (9, 4))])
def test_near_duplicates_are_counted_as_the_recipe_counts_them(data_folder: Any, near: str, expected: tuple[int, int]) -> None:
    good_only(9, val=4, near=near)
    ingest()
    assert anomaly_form.good("g" * 16, jobs.results.revision()) == expected


def test_what_a_set_without_labels_is_good_for(data_folder: Any) -> None:
    good_only()
    ingest()
    at = page("datasets")
    assert "that is enough for an anomaly model" in said(at)
    links = [link.proto for link in at.get("page_link") if "anomaly" in link.proto.label]
    assert [link.query_string for link in links] == [f"kind=anomaly&dataset={'g' * 16}"]


def test_a_finished_training_tells_its_limit_and_figures(data_folder: Any) -> None:
    good_only()
    run_id = anomaly_model()
    Image.new("RGB", (512, 512)).save(rundir.run_path(run_id) / "samples.png")
    ingest()
    at = page("training", run=run_id)
    assert "called unusual from a score of **2** on, so that of good parts about 1.0 % are called so" in said(at)
    assert "Each row, from left to right: a good picture; the same with a made defect" in said(at)
    assert next(m.value for m in at.metric if m.label == "Image AUROC") == "0.987"
    assert len(at.get("plotly_chart")) == 1
    assert "more good parts unusual" not in said(at)
    learned = anomaly_model(3.0, "a3", "Published")
    path = rundir.run_path(learned) / "model" / "model.json"
    head = rundir.read_json(path)
    rundir.write_json(path, head | dict(chosen=head["chosen"] | dict(like_learned=3)))
    assert "nearly equal some of these, so it may call more good parts unusual than said" in said(page("training", run=learned))
    at = page("training", run=anomaly_model(None, "a2", "Young"))
    assert "It has no limit" in said(at) and "there are 9" in said(at) and "set a limit by eye" in said(at)


def test_curves_of_an_anomaly_model_are_not_one_loss() -> None:
    points = pages.points(dict(step=20, cosine_loss=0.5, focal_loss=0.1, overlap_loss=0.9), dict(step=20, diffusion_denoising_loss=0.3))
    drawn = {p.title: p.points(points)["value"].tolist() for p in training_curves.PANELS if len(p.points(points))}
    assert drawn == {"**Loss:** should fall": [0.3], "**What is normal, and where it ends:** each should fall": [0.5, 0.1, 0.9]}


def test_a_training_that_took_weights_says_nothing_of_the_pace(data_folder: Any) -> None:
    paths = [rundir.run_path(anomaly_model(2.0, f"a{k}", f"Odd {k}")) for k in range(2)]
    rundir.write_json(paths[1] / "result.json", dict(name="Odd 1", reused=dict(training=paths[0].name)))
    done = [pace._done(path, rundir.read_json(path / "job.json")) for path in paths]
    assert done[0] and done[1] is None
    ingest()
    assert "Its weights are those of the training Odd 0, " in said(page("training", run=paths[1].name))
    assert "Its weights are those" not in said(page("training", run=paths[0].name))


def test_the_estimate_counts_what_must_come_first(data_folder: Any) -> None:
    good_only()
    asked: dict[str, Any] = dict(dataset="g" * 16, name="x", steps=100, batch=8)
    plain, diffused = (pace.work(jobs.TrainAnomaly(source=source, **asked)) for source in ("noise", "ddpm"))
    assert plain and diffused and diffused > plain + 1000 * 32 * 0.09
    denoiser = rundir.create("train-diffusion", {}, state="completed") / "denoiser"
    denoiser.mkdir()
    rundir.write_json(denoiser / "head.json", dict(key="k", snapshot_id="g" * 16))
    there = pace.work(jobs.TrainAnomaly(source="ddpm", denoiser="k", **asked))
    assert there and plain < there < diffused - 1000


# --- a batch ---------------------------------------------------------------------------------------------------------------------


def test_what_is_unusual_is_counted_filtered_and_ordered(batch: str) -> None:
    at = page("inspection", batch=batch)
    assert "3 unusual to Odd, 2 of them good by the detector." in said(at) and "1 of 6 defective" in said(at)
    assert said(at).count("violet-badge[Unusual]") == 3
    choose(at, "Show", "Unusual")
    assert shown(at) == ["odd-0-2.png", "odd-0-4.png", "odd-0-5.png"]
    choose(at, "Show", "Good, but unusual")
    assert shown(at) == ["odd-0-2.png", "odd-0-5.png"]
    choose(at, "Show", "All")
    at.selectbox(key="batch_order").set_value("oddest").run()
    assert shown(at) == [f"odd-0-{k}.png" for k in (4, 5, 2, 3, 1, 0)]


def test_a_limit_is_tried_kept_and_taken_back(batch: str) -> None:
    at = page("inspection", batch=batch)
    at.toggle(key="odd_on").set_value(True).run()
    at.slider(key="odd_at").set_value(3.5).run()
    assert "From **3.5** on: 1 of 6 unusual, 0 of them good by the detector; today 3." in said(at)
    assert said(at).count("violet-badge[Unusual]") == 1 and jobs.results.batch(batch)["unusual"] == 3
    button(at, "Keep this threshold").click().run()
    assert not at.exception and (jobs.results.batch(batch)["unusual"], jobs.results.batch(batch)["defective"]) == (1, 1)
    assert jobs.results.anomaly_scores(batch)["threshold"].tolist() == [3.5] * 6
    assert "called so from score 3.5" in jobs.results.changes("real")["text"][0] and "by Odd" in jobs.results.changes("real")["text"][0]
    button(at, "Undo").click().run()
    assert jobs.results.batch(batch)["unusual"] == 3


def test_without_a_limit_one_is_set_by_eye(data_folder: Any) -> None:
    pages.model("m1", "Steel 1")
    anomaly_model(None)
    run_id = looked()
    ingest()
    at = page("inspection", batch=run_id)
    assert "has no limit: nothing is called unusual" in said(at) and "Set one by eye" in said(at) and "violet-badge" not in said(at)
    assert "Unusual" not in next(c for c in at.segmented_control if c.label == "Show").options
    at.toggle(key="odd_on").set_value(True).run()
    assert "0 of 6 unusual" in said(at)                      # the slider begins where nothing is
    at.slider(key="odd_at").set_value(2.0).run()
    button(at, "Keep this threshold").click().run()
    assert jobs.results.batch(run_id)["unusual"] == 3 and "Set one by eye" not in said(at)


def test_a_batch_without_an_anomaly_model_speaks_of_none(data_folder: Any) -> None:
    pages.model("m1", "Steel 1")
    run_id = pages.batch()
    ingest()
    at = page("inspection", batch=run_id)
    assert "nusual" not in said(at) and not any(t.label == "Heat map" for t in at.toggle)


def test_the_heat_map_is_laid_over_and_fades(batch: str) -> None:
    odd = int(jobs.results.anomaly_scores(batch).query("anomaly_score == 4.0")["inspection_id"].iloc[0])
    plain = lambda key, width, boxes: jobs.results.picture(inspection_id=key, width=width, boxes=boxes)  # noqa: E731
    drawn = [veil.over(plain, opacity, None)(odd, 64, False) for opacity in (0, 20, 100)]
    assert len(set(drawn)) == 3 and drawn[0] == plain(odd, 64, False)
    at = page("inspection", batch=batch)
    at.toggle(key="batch_heat").set_value(True).run()
    assert at.slider(key="batch_opacity").value == 60
    next(b for b in at.button if b.label.startswith("Open odd")).click().run()
    assert at.toggle(key="batch_large_heat").value and "How unlike good parts: **0.4**, unusual from 2" in said(at)
    choose(at, "Zoom", "4×")


def test_a_picture_no_anomaly_model_looked_at_shows_as_it_is(data_folder: Any) -> None:
    pages.model("m1", "Steel 1")
    run_id = pages.batch()
    ingest()
    some = int(jobs.results.images(jobs.Filters(run_id=run_id, counted=False))["inspection_id"].iloc[0])
    assert veil.over(lambda key, width, boxes: b"plain", 60, None)(some, 64, True) == b"plain"


def test_the_anomaly_model_of_a_batch_is_chosen(data_folder: Any) -> None:
    pages.model("m1", "Steel 1")
    anomaly_model()
    ingest()
    at = page("inspection")
    assert at.selectbox(key="batch_anomaly").options == ["None is in use", "Odd"] and "Beside it" not in said(at)
    jobs.record("promote", dict(model_id="a1", name="Odd", kind="anomaly"))
    at = page("inspection")
    assert at.selectbox(key="batch_anomaly").options == ["The one in use: Odd", "None", "Odd"]
    assert "Beside it Odd marks what is unlike good parts." in said(at)
    at.selectbox(key="batch_anomaly").set_value("none")
    at.text_input(key="batch_path").set_value("/pictures").run()
    button(at, "Inspect").click().run()
    assert jobs.recent(limit=1, recipes=("inspect",))[0].config["anomaly"] == "none"
    made = upload.submit_samples([])                         # of the demo's parts the model knows nothing
    assert made and jobs.status(made).config["anomaly"] == "none"


def test_a_histogram_counts_each_picture_once() -> None:
    odd = oddity.Odd(pd.Series(SCORES, dtype="float32"), "Odd", 2.0, None)
    good, unusual = oddity.histogram(odd).data
    assert (sum(good.y), sum(unusual.y)) == (3, 3)
    crowd = oddity.Odd(pd.Series([1.0] * 500 + [4.0]), "Odd", None, 3.0)
    figure = oddity.histogram(crowd)
    assert figure.layout.yaxis.type == "log" and sum(figure.data[1].y) == 1
    low, high, step = oddity.reach(crowd)
    assert low <= 1.0 and high > 4.0 and (high - low) / step < 1000


# --- review ----------------------------------------------------------------------------------------------------------------------


def test_unknown_defects_are_a_queue_of_their_own(batch: str) -> None:
    at = page("review", queue="Unknown defects")
    assert "#### 2 to look at" in said(at) and "Unusual" in said(at)
    first, second = [str(i) for i in jobs.results.review_queue("real", 9, "disagreement")["inspection_id"]]
    assert at.selectbox(key=f"kind_{first}").value is None
    at.button(key="heat_switch").click().run()
    assert at.button(key="heat_switch").label == "Show the colours"
    at.selectbox(key=f"kind_{first}").set_value("pits")
    at.button(key="say_defective").click().run()
    assert "#### 1 to look at" in said(at) and at.selectbox(key=f"kind_{second}").value == "pits"
    assert "New kinds of defect" not in said(at)             # that one is known
    at.button(key="say_good").click().run()
    assert "Nothing left to look at" in said(at) and "No other picture of the last seven days looks so." in said(at)
    assert jobs.results.totals(jobs.Filters())["defective"] == 1


def test_a_new_kind_becomes_a_class(batch: str) -> None:
    queue = jobs.results.review_queue("real", 9, "disagreement")["inspection_id"].astype(int).tolist()
    for i in queue:
        jobs.record("review", dict(inspection_id=i, verdict="defective", class_name="<b>fibre", reviewer="Kim"))
    at = page("review", queue="Unknown defects")
    assert "**\\<b\\>fibre** · 2 pictures" in said(at)
    button(at, "Make a new class from these").click().run()
    assert not at.exception
    made = jobs.recent(limit=1, recipes=("collect-masks",))[0]
    assert (made.config["name"], made.plant) == ("<b>fibre", "real")
    assert made.config["inspections"].split() == sorted(f"{batch}/{i}" for i in queue)
    assert "on its way" in said(at) and not any("class from these" in b.label for b in at.button)
    rundir.write_json(rundir.run_path(made.run_id) / "result.json", dict(masks=2))
    rundir.set_state(rundir.run_path(made.run_id), "completed", started_at=rundir.now(), finished_at=rundir.now())
    at = page("review", queue="Unknown defects")
    assert "2 outlines kept" in said(at)
    assert any(link.proto.query_string == f"masks={made.run_id}" for link in at.get("page_link"))
    assert "New kinds" not in said(page("review"))


def collected(batch: str, state: str, **ended: Any) -> AppTest:
    """The page after both unknown defects were named and their outlines asked for."""
    queue = jobs.results.review_queue("real", 9, "disagreement")["inspection_id"].astype(int).tolist()
    for i in queue:
        jobs.record("review", dict(inspection_id=i, verdict="defective", class_name="fibre", reviewer="Kim"))
    config = jobs.CollectMasks(name="fibre", inspections=" ".join(sorted(f"{batch}/{i}" for i in queue)))
    run("collect-masks", config.to_json(), state, **ended)
    ingest()
    return page("review", queue="Unknown defects")


def test_a_new_kind_that_could_not_be_made_says_why(batch: str) -> None:
    at = collected(batch, "failed", message="There is no outline to keep. Of *7*: nothing.")
    assert [e.value.replace("\\", "") for e in at.error] == ["There is no outline to keep. Of *7*: nothing."]
    assert "fibre**: not made" in said(at)
    button(at, "Make it again from these").click().run()
    assert jobs.recent(limit=1, recipes=("collect-masks",))[0].state == "pending"
    assert not at.error and "on its way" in said(at)


def test_what_gave_no_outline_is_counted_with_its_reason(batch: str) -> None:
    left = [dict(inspection=f"r/{k}", reason=reason) for k, reason in enumerate(["it was not kept", "nothing is there", "it was not kept"])]
    at = collected(batch, "completed", result=dict(masks=1, left_out=left))
    assert "1 outline kept" in said(at) and not at.error
    assert "3 pictures gave no outline: it was not kept (2); nothing is there (1)." in said(at).replace("\\", "")


def test_a_new_kind_is_gathered_from_what_is_unusual_today(batch: str) -> None:
    ids = jobs.results.anomaly_scores(batch).query("not is_defective")["inspection_id"].astype(int).tolist()
    for i in ids:                                            # scores 0.4, 0.6, 2.5, 1.0, 3.0
        jobs.record("review", dict(inspection_id=i, verdict="defective", class_name="fibre", reviewer="Kim"))
    assert "**fibre** · 2 pictures" in said(page("review", queue="Unknown defects"))
    jobs.record("policy", dict(product="Plate", class_name="unusual", action="reject", threshold=0.9, min_side=0, model_id="a1"))
    assert "**fibre** · 3 pictures" in said(page("review", queue="Unknown defects"))


def test_a_new_kind_stays_however_many_verdicts_follow(batch: str) -> None:
    scores = jobs.results.anomaly_scores(batch)
    odd, good = (int(scores.query(f"anomaly_score == {s}")["inspection_id"].iloc[0]) for s in (2.5, 0.4))
    jobs.record("review", dict(inspection_id=odd, verdict="defective", class_name="fibre", reviewer="Kim"))
    for _ in range(201):
        run("review", dict(inspection_id=good, verdict="good", class_name="", reviewer="Ole"))
    ingest()
    assert len(jobs.results.reviews("real")) == 202
    at = page("review", queue="Unknown defects")
    assert "**fibre** · 1 picture" in said(at) and button(at, "Make a new class from these")


def test_where_nothing_looks_for_unknown_defects_it_is_said(data_folder: Any) -> None:
    pages.model("m1", "Steel 1")
    pages.batch()
    ingest()
    at = page("review", queue="Unknown defects")
    assert "Nothing looks for unknown defects yet" in said(at)
    assert [link.proto.query_string for link in at.get("page_link")] == ["kind=anomaly"]


# --- trends and overview ---------------------------------------------------------------------------------------------------------


def test_unknown_defects_have_a_trend_beside_the_other(batch: str) -> None:
    at = page("trends")
    assert "#### Unknown defects" in said(at) and "They are not part of the defect rate." in said(at)
    assert "1 of 6" in " ".join(str(m.delta) for m in at.metric if m.label == "Defect rate")
    assert breakdown._share(jobs.Filters(since=date(2020, 1, 1), verdict="unusual")) == "50 % (3 of 6) unusual"


def test_no_trend_of_what_nothing_looked_for(data_folder: Any) -> None:
    pages.model("m1", "Steel 1")
    pages.batch()
    ingest()
    assert "Unknown defects" not in said(page("trends"))


def test_the_chart_of_unusual_parts_stands_over_the_days_of_the_other() -> None:
    days = pd.DataFrame(dict(bucket=pd.to_datetime(["2026-06-10", "2026-06-11"]), inspected=[10, 10], unusual=[1, 2], rate=[0.1, 0.2],
                             low=[0.0, 0.1], high=[0.3, 0.4]))
    beside = pd.Series(pd.date_range("2026-05-20", "2026-06-11"))
    figure = charts.trend(days, "day", "unusual", charts.VIOLET, beside)
    start, end = figure.layout.xaxis.range
    assert start < beside.min() and end > beside.max() and figure.data[2].customdata[0] == "2026-06-10T00:00:00"


@pytest.mark.parametrize(("today", "before", "rises"), [((9, 17), (9, 49), True), ((2, 3), (1, 50), False), ((3, 17), (9, 49), False),
                                                        ((5, 5), (0, 0), False)])
def test_overview_speaks_only_of_a_sure_rise(today: tuple[int, int], before: tuple[int, int], rises: bool) -> None:
    from backend.store.queries import wilson

    k, n = (np.array([float(b), float(t)]) for b, t in zip(before, today, strict=True))
    days = pd.DataFrame(dict(bucket=pd.to_datetime(["2026-06-09", "2026-06-10"]), unusual=k, inspected=n, low=wilson(k, n)[0]))
    assert bool(cards.risen(days, date(2026, 6, 10))) is rises
    if rises:
        assert "53 % (9 of 17) against usually 18 %" in cards.risen(days, date(2026, 6, 10))


def test_overview_says_in_one_line_that_unusual_parts_rose(data_folder: Any) -> None:
    pages.model("m1", "Steel 1")
    anomaly_model()
    looked([0.5] * 8, (), day=2)
    looked([3.0] * 6, ())
    ingest()
    assert "More parts than usual look unlike good ones: 100 % (6 of 6)" in said(page("overview"))


# --- models ----------------------------------------------------------------------------------------------------------------------


def test_anomaly_models_are_listed_and_put_to_use_apart(data_folder: Any) -> None:
    pages.model("m1", "Steel 1")
    anomaly_model()
    jobs.record("promote", dict(model_id="m1", name="Steel 1"))
    at = page("models", kind="Anomaly models")
    assert at.dataframe[0].value["Name"].tolist() == ["Odd"] and at.dataframe[0].value["Unusual from"].tolist() == [2.0]
    assert not any(b.label.startswith("Roll back") for b in at.button)          # the detector's is no business of theirs
    button(at, "Put to use …").click().run()
    assert "beside the detector" in said(at)
    at.button(key="promote_yes").click().run()
    assert (rundir.promoted_model("anomaly"), rundir.promoted_model()) == ("a1", "m1")
    assert page("models").dataframe[0].value["Name"].tolist()[0] == "Steel 1"
    at = page("models", kind="Anomaly models")
    button(at, "Roll back …").click().run()
    at.button(key="roll_back_yes").click().run()
    assert (rundir.promoted_model("anomaly"), rundir.promoted_model()) == ("", "m1")


def test_no_anomaly_model_yet(data_folder: Any) -> None:
    pages.model("m1", "Steel 1")
    ingest()
    at = page("models", kind="Anomaly models")
    assert "No anomaly model yet" in said(at) and [link.proto.query_string for link in at.get("page_link")] == ["kind=anomaly"]
