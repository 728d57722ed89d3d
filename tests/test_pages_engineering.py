"""Inspection, Datasets, Training, Models and Runs: each empty, filled and failed, driven as a person would.

Data comes from run directories and goes through the real ingest; nothing is pretended.
"""

import io
import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import streamlit as st
from PIL import Image
from streamlit.testing.v1 import AppTest

from backend import errors, jobs, rundir
from backend.data import images
from backend.jobs import house, pace, reuse
from backend.records import inspection_ids
from pages.components import form, model_view, stages, sweep, training_curves, whatif, words
from tests import guided_run

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("inspection", "datasets", "training", "models", "runs")
NASTY = "<img src=x onerror=alert(1)>_*[b](javascript:x)*\n.png"
CLASSES = ["pits", "scratch"]


@pytest.fixture(autouse=True)
def _nothing_remembered() -> None:
    """Answers are kept per revision of the one database of a process; here each test has its own."""
    st.cache_data.clear()


def picture(seed: int) -> str:
    """Keep a small picture; its id."""
    data = io.BytesIO()
    Image.new("RGB", (64, 48), (40 + seed, 90, 120)).save(data, "PNG")
    image_id = images.sha256(data.getvalue())
    images.keep(data.getvalue(), image_id, "PNG")
    return image_id


def run(recipe: str, config: dict[str, Any], state: str = "completed", plant: str = "real", message: str = "",
        result: dict[str, Any] | None = None, **tables: list[dict[str, Any]]) -> str:
    """A run directory as a worker leaves it."""
    path = rundir.create(recipe, config, plant=plant)
    begun = datetime.now(UTC) - timedelta(minutes=5)
    for table, rows in tables.items():
        rundir.write_part(path, table, rows)
    if result is not None:
        rundir.write_json(path / "result.json", result)
    ended = (begun + timedelta(seconds=90)).isoformat() if state in rundir.END_STATES else None
    rundir.set_state(path, state, message=message, started_at=begun.isoformat(), finished_at=ended)
    return path.name


def batch(n: int = 6, name: str = "part-{}.png", line: str = "Line 1", **more: Any) -> str:
    """A batch of n pictures; every second one carries a pit of confidence 0.6, the others one of 0.2."""
    ids, now = inspection_ids(f"batch {name} {line}", n), datetime.now(UTC)
    rows = [dict(inspection_id=int(i), plant="real", image_id=picture(k), file_name=name.format(k), unit_id="", line=line, product="Plate",
                 lot="", camera="", captured_at=now, captured_source="arrival", ingested_at=now, width=64, height=48, model_id="m1",
                 runtime="onnxruntime", counted=bool(line), not_counted_why="" if line else "no line", kept=True, kept_share=1.0)
            for k, i in enumerate(ids)]
    found = [dict(inspection_id=int(i), class_name="pits", confidence=0.6 if k % 2 == 0 else 0.2, x1=5.0, y1=5.0, x2=25.0, y2=25.0)
             for k, i in enumerate(ids)]
    config = jobs.Inspect(line=line, product="Plate").to_json()
    return run("inspect", config, inspections=rows, detections=found, result={},
               refused=[dict(file_name="broken.png", reason="The file ends too early.")], **more)


def snapshot(name: str = "Steel", snapshot_id: str = "s" * 16, last: str = "test") -> str:
    """A dataset of nine pictures, one of which stands in two splits; the last, unlabelled, is of the split `last`."""
    splits = ["train"] * 5 + ["val", "val", "test", last]
    kept = [picture(100 + k % 8) for k in range(9)]
    pictures = [dict(snapshot_id=snapshot_id, image_id=i, file_name=f"steel-{k}.png", split=s, origin="real", parent="", generator_run="",
                     width=64, height=48, group_id="", phash=f"{k % 8:016x}")
                for k, (i, s) in enumerate(zip(kept, splits, strict=True))]
    labels = [dict(snapshot_id=snapshot_id, image_id=i, class_name=CLASSES[k % 2], x1=4.0, y1=4.0, x2=30.0, y2=20.0, source="box")
              for k, i in enumerate(kept[:8])]
    head = dict(snapshot_id=snapshot_id, name=name, layout="voc", created_at=datetime.now(UTC), classes=CLASSES, seed=0,
                splits_from="lists", images=9, labels=8, refused=1)
    made = run("import", jobs.Import(path="/x", name=name).to_json(), snapshots=[head], snapshot_images=pictures, labels=labels,
               refused=[dict(file_name="notes.txt", reason="It is not a picture.")], result={})
    rundir.write_json(rundir.run_path(made) / "snapshot.json", dict(head, created_at=str(head["created_at"])))
    return made


def model(model_id: str, name: str, snapshot_id: str = "s" * 16, map50: float = 0.7) -> str:
    """A trained model as its run leaves it: parts, bundle, curves."""
    figures = dict(map50=map50, map50_95=map50 / 2, ap50=dict(pits=map50, scratch=map50), images=2, boxes=2,
                   missed=dict(pits=0.1, scratch=0.2), missed_images=0.15, recall=dict(pits=0.9, scratch=0.8))
    head = dict(name=name, model_id=model_id, classes=CLASSES, snapshot_id=snapshot_id, metrics=dict(val=figures, test=figures),
                thresholds=dict.fromkeys(CLASSES, 0.5))
    made = run("train-detector", jobs.TrainDetector(dataset="Steel", name=name).to_json(), result={},
               models=[dict(model_id=model_id, name=name, kind="detector", created_at=datetime.now(UTC), snapshot_id=snapshot_id, imgsz=224,
                            classes=CLASSES, metrics=json.dumps(head["metrics"]), settings=json.dumps({"epochs": 40}))],
               model_thresholds=[dict(model_id=model_id, class_name=c, threshold=0.5) for c in CLASSES])
    folder = rundir.run_path(made) / "model"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(b"onnx")
    rundir.write_json(folder / "model.json", head)
    points = [dict(step=k, train_box_loss=2 / k, map50=0.3 * k) for k in (1, 2)]
    (folder.parent / "metrics.jsonl").write_text("".join(json.dumps(p) + "\n" for p in points))
    return made


def ingest() -> None:
    assert house.opened().ingest()               # returns when everything before it is in


def page(name: str, **query: str) -> AppTest:
    """The page inside the app, as its link opens it."""
    at = AppTest.from_file(str(ROOT / "frame.py"), default_timeout=60).switch_page(f"pages/{name}.py")
    for key, value in query.items():
        at.query_params[key] = value
    at.run()
    until = time.monotonic() + 60
    while "Reading results into the database" in said(at) and time.monotonic() < until:
        at.run()                                     # as the page does by itself
    assert not at.exception, at.exception
    return at


def said(at: AppTest) -> str:
    """All text on the page."""
    parts: list[str] = []
    for kind in ("title", "subheader", "markdown", "caption", "info", "warning", "error", "text", "success"):
        parts += [str(e.value) for e in getattr(at, kind)]
    return "\n".join(parts)


def button(at: AppTest, label: str) -> Any:
    return next(b for b in at.button if b.label.startswith(label))


# --- each page, empty and failed ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "words_"), [
    ("inspection", "Nothing has been inspected yet"), ("datasets", "No dataset yet"), ("training", "no dataset to learn from"),
    ("runs", "Nothing was run yet")])
def test_empty(data_folder: Path, name: str, words_: str) -> None:
    assert words_ in said(page(name))


def test_models_empty_or_with_the_demo_model(data_folder: Path) -> None:
    at = page("models")
    shown = jobs.results.models()
    assert ("No model yet" in said(at)) == shown.empty


@pytest.mark.parametrize("name", ["inspection", "datasets", "runs"])
def test_a_page_runs_on_its_own(data_folder: Path, name: str) -> None:
    """A first deep link runs the page file without the frame."""
    at = AppTest.from_file(str(ROOT / "pages" / f"{name}.py"), default_timeout=60).run()
    assert not at.exception
    assert at.title[0].value.lower() == name


@pytest.mark.parametrize(("name", "recipe", "parameter"), [
    ("inspection", "inspect", "batch"), ("datasets", "import", "run"), ("training", "train-detector", "run"), ("runs", "inspect", "run")])
def test_failed(data_folder: Path, name: str, recipe: str, parameter: str) -> None:
    config = {"inspect": jobs.Inspect(), "import": jobs.Import(name="x"), "train-detector": jobs.TrainDetector(name="x")}[recipe]
    run_id = run(recipe, config.to_json(), "failed", message="The disk is <b>full</b>.")
    assert "The disk is \\<b\\>full\\</b\\>\\." in "\n".join(e.value for e in page(name, **{parameter: run_id}).error)


@pytest.mark.parametrize(("name", "parameter"), [("inspection", "batch"), ("datasets", "run"), ("training", "run")])
def test_a_link_to_a_run_that_is_gone_says_so(data_folder: Path, name: str, parameter: str) -> None:
    at = page(name, **{parameter: "../../etc/passwd"})
    assert "There is no run" in at.error[0].value


def test_interrupted_offers_resume(data_folder: Path) -> None:
    run_id = run("train-detector", jobs.TrainDetector(name="x").to_json(), "interrupted")
    at = page("runs", run=run_id)
    button(at, "Resume").click().run()
    assert jobs.status(run_id).state == "pending"
    assert jobs.status(run_id).attempt == 2


def test_open_run_shows_its_place_and_can_be_canceled(data_folder: Path) -> None:
    run_id = run("train-detector", jobs.TrainDetector(name="x").to_json(), "pending")
    at = page("training", run=run_id)
    assert any("Waiting for the worker" in str(p.text) for p in at.get("progress"))
    button(at, "Cancel").click().run()
    assert jobs.status(run_id).state == "canceled"


# --- Inspection -----------------------------------------------------------------------------------------------------------------


def test_a_batch_is_summed_up_and_shown(data_folder: Path) -> None:
    model("m1", "Steel 1")
    run_id = batch()
    ingest()
    at = page("inspection", batch=run_id)
    assert "3 of 6 defective · 1 not usable" in [s.value for s in at.subheader]
    assert sum(b.label.startswith("Open ") for b in at.button) == 6
    assert any("The file ends too early." in str(d.value) for d in at.dataframe)


def test_filter_and_order(data_folder: Path) -> None:
    model("m1", "Steel 1")
    run_id = batch()
    ingest()
    at = page("inspection", batch=run_id)
    next(c for c in at.segmented_control if c.label == "Show").set_value("Good").run()
    assert sum(b.label.startswith("Open ") for b in at.button) == 3


def test_what_if_needs_no_inference_and_can_be_put_to_use_and_taken_back(data_folder: Path) -> None:
    model("m1", "Steel 1")
    run_id = batch()
    ingest()
    at = page("inspection", batch=run_id)
    next(t for t in at.toggle if t.label == "Try another threshold").set_value(True).run()
    at.slider[0].set_value(0.15).run()
    assert "At **0.15**: 6 of 6 defective; today 3." in said(at)
    button(at, "Use this threshold").click().run()
    assert not at.exception
    assert jobs.results.batch(run_id)["defective"] == 6
    assert "6 of 6 defective" in said(at)
    button(at, "Undo").click().run()
    assert jobs.results.batch(run_id)["defective"] == 3


def test_out_of_the_trends_and_back(data_folder: Path) -> None:
    model("m1", "Steel 1")
    run_id = batch()
    ingest()
    at = page("inspection", batch=run_id)
    button(at, "Take out of trends").click().run()
    assert jobs.results.batch(run_id)["counted"] == 0
    button(at, "Count them anyway").click().run()
    assert jobs.results.batch(run_id)["counted"] == 6


def test_details_are_corrected_for_the_whole_batch(data_folder: Path) -> None:
    model("m1", "Steel 1")
    run_id = batch(line="")
    ingest()
    at = page("inspection", batch=run_id)
    assert button(at, "Count them anyway").disabled
    button(at, "Correct details").click().run()
    at.text_input(key="correct_lot").set_value("L-7")
    button(at, "Save").click().run()
    shown = jobs.results.images(jobs.Filters(run_id=run_id, counted=False))
    assert set(shown["lot"]) == {"L-7"}


def test_a_second_correction_starts_from_the_first(data_folder: Path) -> None:
    model("m1", "Steel 1")
    run_id = batch()
    batch(2, name="other-{}.png")                                  # keeps Plate among the names to choose from
    ingest()
    jobs.record("correct", dict(run_id=run_id, inspection_ids=[], fields=dict(lot="L-7", product="Bracket")))
    at = page("inspection", batch=run_id)
    button(at, "Correct details").click().run()
    assert (at.text_input(key="correct_lot").value, at.selectbox(key="correct_product").value) == ("L-7", "Bracket")
    at.text_input(key="correct_lot").set_value("")
    at.selectbox(key="correct_product").set_value("Plate")         # back to what the batch came with
    button(at, "Save").click().run()
    shown = jobs.results.images(jobs.Filters(run_id=run_id, counted=False))
    assert set(shown["lot"]) == {""} and set(shown["product"]) == {"Plate"}
    jobs.record("correct", dict(run_id=run_id, inspection_ids=[], fields=dict(product="Bracket")))
    at = page("inspection", batch=run_id)
    at.button(key="ask_rules").click().run()
    assert at.selectbox(key="rules_product").value == "Bracket"


def test_what_if_says_when_it_does_not_cover_all(data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pages.components import batch as shown

    monkeypatch.setattr(shown, "MOST", 4)
    model("m1", "Steel 1")
    run_id = batch()
    ingest()
    at = page("inspection", batch=run_id)
    next(t for t in at.toggle if t.label == "Try another threshold").set_value(True).run()
    assert "This covers the newest 4 of 6 pictures." in said(at)


def test_a_rule_starts_where_logging_does() -> None:
    def script() -> None:
        import pandas as pd

        from pages.components import rules

        rules.table(pd.DataFrame(dict(class_name=["a"], action=["reject"], threshold=[0.5], min_side=[0], source=["model"])), "t")

    at = AppTest.from_function(script).run()
    assert json.loads(at.dataframe[0].proto.columns)["threshold"]["type_config"]["min_value"] == 0.05


def test_names_of_files_are_shown_never_interpreted(data_folder: Path) -> None:
    model("m1", "Steel 1")
    run_id = batch(2, name=NASTY + "{}")
    ingest()
    at = page("inspection", batch=run_id)
    label = next(b.label for b in at.button if b.label.startswith("Open "))
    assert "\\<img" in label
    assert "](javascript" not in label
    assert not any("onerror" in str(m.value) and "\\<" not in str(m.value) for m in at.markdown)


def test_a_click_opens_the_large_view(data_folder: Path) -> None:
    model("m1", "Steel 1")
    run_id = batch()
    ingest()
    at = page("inspection", batch=run_id)
    button(at, "Open ").click().run()
    assert not at.exception
    assert "1 of 6" in said(at)
    button(at, "Next").click().run()
    assert "2 of 6" in said(at)


def test_upload_hands_over_and_lets_go(data_folder: Path) -> None:
    model("m1", "Steel 1")
    ingest()
    at = page("inspection")
    at.file_uploader[0].set_value([("a.png", b"not a picture", "image/png"), ("../b.png", b"", "image/png")]).run()
    assert "2 files ready" in said(at)
    assert at.session_state["batch_round"] == 1          # another uploader: Streamlit keeps nothing
    button(at, "Inspect 2 files").click().run()
    assert not at.exception
    made = jobs.recent(limit=1, recipes=("inspect",))[0]
    inbox = rundir.run_path(made.run_id) / "inbox"
    assert [entry["name"] for entry in rundir.read_json(inbox / "inbox.json")] == ["a.png", "../b.png"]
    assert (inbox / "000000.bin").read_bytes() == b"not a picture"
    assert at.query_params["batch"] == made.run_id
    assert made.config["count"] == "no"                  # no line was given
    assert "batch_shelf" not in at.session_state


def test_a_shelf_keeps_bytes_and_names_apart_and_goes_with_its_session() -> None:
    from pages.components.shelf import Shelf

    shelf = Shelf()
    for name in ("../../evil.png", "../../evil.png", "b<script>.png"):
        shelf.add(name, io.BytesIO(name.encode()))
    folder = shelf._folder
    assert sorted(p.name for p in folder.iterdir()) == ["000000", "000001", "000002"]
    assert [(name, f.read().decode()) for name, f in shelf.files()] == [(n, n) for n in shelf.names]
    assert shelf.bytes == sum(map(len, shelf.names))
    del shelf
    assert not folder.exists()


def test_nothing_usable_is_said(data_folder: Path) -> None:
    run_id = run("inspect", jobs.Inspect().to_json(), result={"inspected": 0},
                 refused=[dict(file_name=f"{k}.txt", reason="It is not a picture.") for k in range(3)])
    ingest()
    assert "None of 3 files could be used" in said(page("inspection", batch=run_id))


def test_details_are_remembered(data_folder: Path) -> None:
    model("m1", "Steel 1")
    batch(line="Line 7")
    ingest()
    at = page("inspection")
    assert at.selectbox(key="batch_line").value == "Line 7"
    assert at.toggle(key="batch_count").value is True


def test_rules_are_recorded_only_where_they_changed(data_folder: Path) -> None:
    from pages.components import rules

    today = pd.DataFrame(dict(class_name=["pits", "scratch"], action=["reject", "reject"], threshold=[0.5, 0.5], min_side=[0, 0]))
    edited = today.assign(action=["reject", "minor"])
    assert rules.changed(today, edited)["class_name"].tolist() == ["scratch"]
    assert rules.changed(today, today.copy()).empty


# --- Datasets, Training, Models, Runs -------------------------------------------------------------------------------------------


def test_dataset_is_laid_open(data_folder: Path) -> None:
    snapshot()
    ingest()
    at = page("datasets")
    text = said(at)
    assert "Read as Pascal VOC" in text
    assert "The split lists that came with it were used." in text
    assert "repeat in another split (2 exact)" in "\n".join(w.value for w in at.warning)
    assert [m.value for m in at.metric] == ["9", "8", "2", "1"]
    assert any("It is not a picture." in str(d.value) for d in at.dataframe)
    assert sum(b.label.startswith("Open ") for b in at.button) == 9


def test_pictures_without_labels_are_told_and_join_from_another_dataset(data_folder: Path) -> None:
    snapshot("Pile", "p" * 16)
    snapshot(last="unlabelled")
    ingest()
    at = page("datasets", dataset="s" * 16)
    assert next(c for c in at.segmented_control if c.label == "Split").options == ["all", "train", "val", "test", "unlabelled"]
    assert "1 picture has no label" in said(at)
    button(at, "Add pictures without labels").click().run()
    next(m for m in at.multiselect if m.label == "Datasets whose pictures join").set_value(["p" * 16]).run()
    button(at, "Make the dataset").click().run()
    made = jobs.recent(limit=1, recipes=("combine",))[0]
    assert (made.config["dataset"], made.config["unlabelled"], made.config["name"]) == ("s" * 16, "p" * 16, "Steel + unlabelled")
    assert at.query_params["run"] == made.run_id
    assert "learns from the 1 picture without labels too" in said(page("training", dataset="s" * 16, kind="teacher"))


def test_an_unlabelled_twin_of_a_training_picture_flatters_nobody(data_folder: Path) -> None:
    """The ninth picture is the first one again: in test that is said, unlabelled it is none of the model's business."""
    snapshot(last="unlabelled")
    ingest()
    assert jobs.results.duplicates("s" * 16).empty
    snapshot("Other", "o" * 16)
    ingest()
    assert set(jobs.results.duplicates("o" * 16)["split"]) == {"train", "test"}


def test_import_is_asked_with_a_suggested_name(data_folder: Path) -> None:
    at = page("datasets")
    at.text_input(key="set_path").set_value("/plant/NEU-DET.zip").run()
    assert next(t for t in at.text_input if t.label == "Name of the dataset").value == "NEU-DET"
    button(at, "Import").click().run()
    made = jobs.recent(limit=1, recipes=("import",))[0]
    assert (made.config["path"], made.config["name"], made.config["layout"]) == ("/plant/NEU-DET.zip", "NEU-DET", "auto")
    assert at.query_params["run"] == made.run_id


def test_training_is_started_from_a_preset(data_folder: Path) -> None:
    snapshot()
    ingest()
    at = page("training")
    assert "on this machine" in said(at)
    next(c for c in at.segmented_control if c.label == "How long").set_value("Quick").run()
    button(at, "Start training").click().run()
    made = jobs.recent(limit=1, recipes=("train-detector",))[0]
    assert (made.config["epochs"], made.config["imgsz"], made.config["name"]) == (10, 224, "Steel 1")
    assert made.config["dataset"] == "s" * 16


def test_a_training_starts_from_an_earlier_model(data_folder: Path) -> None:
    """Chosen by its name, asked for by its run; a file is typed."""
    snapshot()
    earlier = model("m1", "first try")
    ingest()
    at = page("training")
    start = at.selectbox(key="train_start")
    assert start.value is None and start.options[0].startswith("first try")
    start.set_value(earlier).run()
    button(at, "Start training").click().run()
    assert jobs.recent(limit=1, recipes=("train-detector",))[0].config["weights"] == earlier


def test_curves_of_a_training(data_folder: Path) -> None:
    snapshot()
    run_id = model("m1", "Steel 1")
    ingest()
    at = page("training", run=run_id)
    assert len(at.get("plotly_chart")) == 2


def with_a_teacher(at: AppTest) -> AppTest:
    """The form, turned to a guided run."""
    next(c for c in at.segmented_control if c.label == "What to train").set_value("teacher").run()
    assert not at.exception
    return at


def steps(at: AppTest) -> list[str]:
    """Labels of the stages on the page."""
    return [e.label for e in at.expander if e.label.startswith("**")]


def test_a_guided_training_is_started_with_its_plan(data_folder: Path) -> None:
    snapshot()
    ingest()
    at = with_a_teacher(page("training"))
    assert [label.split(" · ")[0].strip("*") for label in steps(at)] == [title for title, _ in stages.STAGES.values()]
    assert all("about" in label for label in steps(at))
    config = jobs.TrainDistilled(dataset="s" * 16, name="-")
    guided_run.denoiser("s" * 16, key=reuse.keys(config, pace.stages(config), "s" * 16)["diffusion"])
    at.run()
    assert [label for label in steps(at) if "already there" in label] == steps(at)[:1] and "About" in said(at)
    next(c for c in at.segmented_control if c.label == "Diffusion model").set_value("small").run()
    button(at, "Start training").click().run()
    made = jobs.recent(limit=1, recipes=("train-distilled",))[0]
    assert made.config == jobs.TrainDistilled(dataset="s" * 16, name="Steel 1", preset="small").to_json()
    assert len(steps(at)) == 10                     # of the form, and of the run that waits
    assert not at.exception


def test_stages_that_are_left_out_are_not_planned(data_folder: Path) -> None:
    snapshot()
    ingest()
    at = with_a_teacher(page("training"))
    next(t for t in at.toggle if t.label == form.label("distill")).set_value(False).run()
    assert [label.split(" · ")[0].strip("*") for label in steps(at)][2:] == ["Teach the backbone", "Train the student"]
    next(t for t in at.toggle if t.label == form.label("teach")).set_value(False).run()
    assert not steps(at) and "Turn one on" in said(at)
    assert not any(b.label == "Start training" for b in at.button)


def test_a_running_guided_training_shows_where_it_is(data_folder: Path) -> None:
    snapshot()
    run_id = guided_run.guided("s" * 16, "fused")
    ingest()
    at = page("training", run=run_id)
    shown = steps(at)[-5:]
    assert ["Done" in label for label in shown] == [True, True, True, False, False]
    assert "23 min" in shown[0] and "loss 0.0412" in shown[0] and "26.4 times smaller" in shown[1] and "1260" not in shown[0]
    assert "Running" in shown[3] and "Waiting" in shown[4]
    assert len(at.get("plotly_chart")) == 3                      # of the running stage alone: loss, found, gates
    assert stages.of_stage(jobs.live_metrics(run_id), "fused").query("name == 'map50'")["step"].tolist() == list(range(1, 13))
    packing = stages.of_stage(jobs.live_metrics(run_id), "repository")
    assert [p.title for p in training_curves.PANELS if len(p.points(packing))] == [
        "**Loss:** should fall", "**Likeness of what is unpacked:** should come near 1"]
    assert "Pictures it draws by itself" not in said(at)         # behind a stage that is done
    assert "Open: P3 0.120, P4 0.060, P5 0.040." in said(at)


def test_the_diffusion_model_shows_what_it_draws(data_folder: Path) -> None:
    snapshot()
    drawing, alone = guided_run.guided("s" * 16, "diffusion"), guided_run.denoiser("s" * 16)
    ingest()
    at = page("training", run=drawing)
    assert len(at.get("plotly_chart")) == 1 and "Pictures it draws by itself" in said(at)
    assert "Pictures it draws by itself" in said(page("training", run=alone))


def test_a_guided_training_that_was_cut_off_says_where(data_folder: Path) -> None:
    snapshot()
    run_id = guided_run.guided("s" * 16, "student", "interrupted", reused=guided_run.denoiser("s" * 16))
    ingest()
    at = page("training", run=run_id)
    assert "Reused" in steps(at)[-5] and "Stopped here" in steps(at)[-1]
    assert "Distillation is on: its term is 0.9 times the box loss." in said(at)
    button(at, "Resume").click().run()
    assert "Goes on from here" in steps(at)[-1]


def test_a_finished_guided_training_shows_its_fidelity(data_folder: Path) -> None:
    snapshot()
    run_id = guided_run.guided("s" * 16, state="completed")
    ingest()
    at = page("training", run=run_id)
    figure = json.loads(at.get("plotly_chart")[-1].proto.spec)
    heat, bars = figure["data"]
    assert heat["y"][-1] == "patches" and heat["y"][0] == "crazing" and heat["x"] == ["P3", "P4", "P5"]      # the best on top
    assert heat["z"][0] == [0.555, 0.505, 0.455] and heat["text"][-1] == ["0.80", "0.75", "0.70"]
    assert bars["text"][0] == "0.41" and list(bars["y"]) == list(heat["y"])
    assert "On 180 validation pictures" in said(at)
    assert at.get("page_link")


def test_features_are_ranked_where_there_is_a_diffusion_model(data_folder: Path) -> None:
    snapshot()
    ingest()
    assert not any(b.label == "Rank them" for b in with_a_teacher(page("training")).button)
    guided_run.denoiser("other" + "s" * 11)
    guided_run.denoiser("s" * 16, "Unfinished", "failed")
    assert sweep.denoisers("s" * 16) == []
    guided_run.denoiser("s" * 16)
    at = with_a_teacher(page("training"))
    button(at, "Rank them").click().run()
    made = jobs.recent(limit=1, recipes=("probe-features",))[0]
    assert made.config == jobs.ProbeFeatures(dataset="s" * 16, denoiser="Steel DDPM").to_json()
    assert made.name == "Steel DDPM" and at.query_params["run"] == made.run_id


def test_a_ranking_marks_the_best(data_folder: Path) -> None:
    snapshot()
    run_id = guided_run.ranking("s" * 16)
    ingest()
    at = page("training", run=run_id)
    assert "Best: **all blocks** at timestep **20**, 0.791" in said(at)
    figure = json.loads(at.get("plotly_chart")[0].proto.spec)
    assert figure["data"][0]["text"][1] == ["0.708", "0.711", "0.710", "0.671", "0.589"]
    mark = figure["layout"]["shapes"][0]
    assert (round(mark["x0"] + mark["x1"]) / 2, round(mark["y0"] + mark["y1"]) / 2) == (1, 4)


def test_training_while_another_process_has_the_database(data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def taken() -> pd.DataFrame:
        raise errors.StoreError("Another process has the database.")

    monkeypatch.setattr(jobs.results, "datasets", taken)
    at = page("training")
    assert [e.value for e in at.error] == ["Another process has the database\\."]
    assert [b.label for b in at.button] == ["Try again"]


def test_changes_of_one_kind(data_folder: Path) -> None:
    """So that a promotion is found however many other changes came after it."""
    model("m1", "Steel 1")
    made = jobs.record("promote", dict(model_id="m1", name="Steel 1"))
    for text in ("new lamp", "new roll"):
        jobs.record("note", dict(line="", at="2026-01-01T00:00:00Z", text=text))
    ingest()
    assert jobs.results.changes("real", 1, "promote")["run_id"].tolist() == [made]
    assert len(jobs.results.changes("real")) == 3 and jobs.results.changes("real", recipe="x' OR 1 = 1 --").empty
    assert any(b.label.startswith("Roll back") for b in page("models").button)


def test_promote_and_roll_back(data_folder: Path) -> None:
    snapshot()
    model("m1", "Steel 1", map50=0.6)
    model("m2", "Steel 2", map50=0.7)
    jobs.record("promote", dict(model_id="m1", name="Steel 1"))
    at = page("models", model="m2")
    assert "on the same" in said(at)
    assert any("Counts from confidence" in d.value for d in at.dataframe)
    button(at, "Put to use …").click().run()
    assert not at.exception
    at.button(key="promote_yes").click().run()
    assert not at.exception
    assert rundir.promoted_model() == "m2"
    button(at, "Roll back …").click().run()
    at.button(key="roll_back_yes").click().run()
    assert rundir.promoted_model() == "m1"


def test_models_of_different_tests_are_not_compared(data_folder: Path) -> None:
    model("m1", "Steel 1", snapshot_id="a" * 16)
    model("m2", "Steel 2", snapshot_id="b" * 16)
    jobs.record("promote", dict(model_id="m1", name="Steel 1"))
    assert "their figures do not compare" in said(page("models", model="m2"))


def test_the_bundle_holds_what_runs_elsewhere(data_folder: Path) -> None:
    import zipfile

    run_id = model("m1", "Steel 1")
    assert zipfile.ZipFile(io.BytesIO(model_view.bundle(run_id)())).namelist() == ["model.onnx", "model.json", "infer.py", "tiles.py"]


def test_runs_are_listed_with_their_state(data_folder: Path) -> None:
    batch()
    run("import", jobs.Import(name="Steel").to_json(), "failed", message="No.")
    ingest()
    at = page("runs")
    table = at.dataframe[0].value
    assert [list(state) for state in table["State"]] == [["Failed"], ["Done"]]
    assert table["What"].tolist() == ["Dataset", "Inspection"]


# --- parts ----------------------------------------------------------------------------------------------------------------------


def test_what_if_agrees_with_the_rules() -> None:
    raw = pd.DataFrame(dict(inspection_id=[1, 1, 2, 3, 4], class_name=["a", "b", "a", "b", "c"], confidence=[0.9, 0.3, 0.4, 0.8, 0.9],
                            side=[9.0, 9.0, 9.0, 2.0, 9.0]))
    rules = {"a": ("reject", 0.5, 0.0), "b": ("minor", 0.2, 5.0), "c": ("ignore", 0.0, 0.0)}
    rows = pd.DataFrame(dict(inspection_id=[1, 2, 3, 4]))
    judged = whatif.verdicts(rows, whatif.found(raw, rules))
    assert judged["defective"].tolist() == [True, False, False, False]
    assert judged["kind"].tolist() == ["a", "", "", ""]
    moved = whatif.moved(rules, ["a", "b", "c"], whatif.Tried("a", 0.3))
    assert whatif.verdicts(rows, whatif.found(raw, moved))["defective"].tolist() == [True, True, False, False]


def test_what_if_of_nothing() -> None:
    kinds = dict(inspection_id="int64", class_name="str", confidence="float64", side="float64")
    raw = pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in kinds.items()})
    judged = whatif.verdicts(pd.DataFrame(dict(inspection_id=[1])), whatif.found(raw, {}))
    assert judged["defective"].tolist() == [False]


def test_a_form_is_its_config() -> None:
    def script() -> None:
        from backend import jobs
        from pages.components import form

        form.fields(jobs.TrainDetector, key="t")

    at = AppTest.from_function(script).run()
    assert [n.label for n in at.number_input] == ["Images per step", "Labelled images", "Synthetic images", "Images in each pass",
                                                      "Learning rate"]
    assert at.number_input[0].max == 512
    assert at.selectbox[0].options == ["n", "s", "m"]
    assert form.label("imgsz") == "Image side (pixels)"


@pytest.mark.parametrize("zone", ["Etc/Unknown", "Etc", "../x", "", None])
def test_a_zone_nobody_knows_is_utc(monkeypatch: pytest.MonkeyPatch, zone: str | None) -> None:
    monkeypatch.setattr(words.st, "context", SimpleNamespace(timezone=zone))
    at = words.moment("2026-11-01T12:00:00+00:00")
    assert at is not None and at.isoformat() == "2026-11-01T12:00:00+00:00"


@pytest.mark.parametrize(("text", "shown"), [("a_b", "a\\_b"), ("<b>", "\\<b\\>"), ("a\nb\u202ec", "a b c"), (":red[x]", "\\:red\\[x\\]")])
def test_names_lose_their_power(text: str, shown: str) -> None:
    assert words.plain(text) == shown


def test_long_names_keep_their_end() -> None:
    assert words.short("x" * 60 + "_0042.png", 20).endswith("42.png")
    assert len(words.short("x" * 60, 20)) == 20


def points(*lines: dict[str, float]) -> pd.DataFrame:
    rows = [(line["step"], k, v) for line in lines for k, v in line.items() if k != "step"]
    return pd.DataFrame(rows, columns=["step", "name", "value"])


def test_a_stage_counts_its_own_steps() -> None:
    """Whatever the run counts: a stage that says its step is drawn by it."""
    found = stages.of_stage(points(dict(step=400, fused_step=1, fused_map50=0.1, student_map50=0.9),
                                   dict(step=425, fused_step=2, fused_map50=0.2)), "fused")
    assert found[["step", "name", "value"]].values.tolist() == [[1, "map50", 0.1], [2, "map50", 0.2]]
    plain_ = stages.of_stage(points(dict(step=7, fused_map50=0.1)), "fused")
    assert plain_[["step", "name", "value"]].values.tolist() == [[7, "map50", 0.1]]


def test_the_distillation_term_is_not_in_the_loss_but_beside_it() -> None:
    shown = points(dict(step=1, box_loss=1.0, cls_loss=2.0, val_box_loss=1.5, distill_loss=0.5, val_distill_loss=0.0))
    assert dict(training_curves.losses(shown)[["name", "value"]].values) == {"training": 3.0, "validation": 1.5}
    assert set(training_curves.term(shown)["name"]) == {"boxes", "distillation"}
    assert "on: its term is 0.5 times" in training_curves.said_of_term(training_curves.term(shown))
    answers = points(dict(step=1, box_loss=1.0, cls_loss=2.0, val_box_loss=3.0, logit_loss=0.25, val_logit_loss=0.0))
    assert dict(training_curves.losses(answers)[["name", "value"]].values) == {"training": 3.0, "validation": 3.0}
    assert set(training_curves.term(answers)["name"]) == {"boxes", "class answers"}
    assert "on: its term is 0.2 times" in training_curves.said_of_term(training_curves.term(answers))
    off = points(dict(step=1, box_loss=1.0, distill_loss=0.0))
    assert "Distillation is off" in training_curves.said_of_term(training_curves.term(off))
    assert training_curves.term(points(dict(step=1, box_loss=1.0))).empty


def test_closed_gates_are_said_to_be_closed() -> None:
    shown = training_curves.gates(points(dict(step=1, gate_p3=0.0, gate_p4=0.0)))
    assert "Closed" in training_curves.said_of_gates(shown)


def test_each_feature_map_has_a_curve_of_its_weight() -> None:
    told = points(dict(step=1, gate_p3=0.1, tap_t20_b0=0.25, tap_t20_b3=0.75), dict(step=2, tap_t20_b0=0.5, tap_t20_b3=0.5))
    shown = training_curves.taps(told)
    assert shown[["step", "name", "value"]].values.tolist() == [
        [1, "step 20, block 0", 0.25], [1, "step 20, block 3", 0.75], [2, "step 20, block 0", 0.5], [2, "step 20, block 3", 0.5]]
    assert any(panel.points is training_curves.taps for panel in training_curves.PANELS)
    assert training_curves.taps(points(dict(step=1, gate_p3=0.1))).empty


def test_a_loss_that_is_no_number_is_a_gap() -> None:
    assert training_curves.losses(points(dict(step=1, box_loss=float("nan"))))["value"].isna().all()
