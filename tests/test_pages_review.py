"""Review: a random sample behind a veil, the true rate beside the counted one, what becomes of drawn boxes. Pages run inside the frame."""

import json
import re
import zipfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from backend import jobs, rundir
from backend.config import data_root
from backend.data import coco, relabel
from backend.jobs import house, sampling
from pages.components import label_view, review_rate
from tests import plates
from tests import small_plant as plant
from tests.test_pages_plant import page, words


@pytest.fixture
def filled(data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Forty pieces of a line, drawn by the demo's hand: each fourth rejected, two others near the limit."""
    st.cache_data.clear()
    monkeypatch.setattr(sampling, "FIRST", 4)
    monkeypatch.setattr(sampling, "LEAST", 2)
    plant.model("m1", {"pits": 0.5})
    boxes = {**{i: [("pits", 0.9)] for i in range(0, 40, 4)}, 1: [("pits", 0.45)], 2: [("pits", 0.48)]}
    yield plant.add(plant.batch([]), [dict(image_id=f"demo:{i}:2a:1:good", width=256, height=256, boxes=boxes.get(i, []), model_id="m1",
                                           captured_at=plant.NOON + timedelta(minutes=i), file_name=f"part {i}.png") for i in range(40)])
    house.close()


def answer(at: AppTest, word: str) -> str:
    at.button(key=f"say_{word}").click().run()
    assert not at.exception
    return words(at)


def test_the_sample_hides_what_the_model_said_until_all_is_answered(filled: list[int]) -> None:
    house.opened().ingest()
    assert "The counted rate is what the model says" in words(page("trends", period="All"))
    at = page("review", queue="Random sample")
    assert "How often is the automatic verdict right?" in words(at)
    at.button(key="draw_sample").click().run()
    found = sampling.sampled("real")
    assert found is not None and f"#### {found.left} to look at" in words(at)
    at.text_input(key="reviewer").set_value("Kim").run()
    said = answer(at, "defective")
    assert f"#### {found.left - 1} to look at" in said and "You said defective" in said
    assert not re.search("pits|% sure|Defective: |:red", said) and not at.metric                      # a rate that moves would tell
    at.button(key="undo_last").click().run()
    assert f"#### {found.left} to look at" in words(at) and "Taken back" in words(at)
    at.button(key="skip").click().run()
    assert f"#### {found.left} to look at" in words(at)                    # put off, not answered
    for n in range(found.left):
        said = answer(at, "good" if n else "defective")
    assert "All parts of this sample were looked at" in said and "people said otherwise than the model" in said
    done = sampling.sampled("real")
    assert done is not None and {r.reviewer for r in done.first} == {"Kim"} and done.true.all.rate is not None
    shown = {m.label: f"{m.value} {m.delta}" for m in at.metric}
    assert shown["Counted defect rate"].startswith("25 %") and "looked at" in shown["True defect rate"]
    assert jobs.results.totals(jobs.Filters())["rate"] == 0.25
    assert "more** parts have to be looked at" in said and any("Rejected, but good" in c.value for c in at.caption)
    at.button(key="ask_more").click().run()
    assert "to look at" in words(at)
    assert "True defect rate **" in words(page("trends", period="All"))


def test_none_found_is_at_most_three_in_n(filled: list[int]) -> None:
    house.opened().ingest()
    sampling.draw_sample("real", plant.NOON.date(), plant.NOON.date())
    while (found := sampling.sampled("real")) is not None and found.left:
        sampling.read("real", found.sample_id, found.queue[0], "defective" if filled.index(found.queue[0][0]) % 4 == 0 else "good")
    shown = {m.label: f"{m.value} {m.delta}" for m in page("review", queue="Random sample").metric}
    assert found is not None and found.true.missed.k == 0
    least = min(s.read / s.units for s in found.strata if not s.rejected) * sum(s.units for s in found.strata if not s.rejected)
    assert shown["Missed, of parts passed"] == f"≤ {review_rate.text.percent(min(3 / least, 1))} none in {found.true.missed.n} looked at"


@pytest.mark.parametrize(("n", "kappa", "said"), [(3, 1.0, "Too few"), (20, None, "nothing is known"), (20, 0.8, "can be trusted"),
                                                  (20, 0.5, "limit samples"), (20, 0.1, "not to be trusted")])
def test_low_agreement_says_what_to_do(n: int, kappa: float | None, said: str) -> None:
    assert said in review_rate.advice(n, kappa)


def test_drawn_boxes_become_a_dataset_and_travel(filled: list[int], tmp_path: Path) -> None:
    plates.imported(tmp_path / "in", "plates")
    house.opened().ingest()
    at = page("review", queue="Label")
    assert "12 to label" in words(at) and "The boxes are the model's." not in words(at)       # the most doubtful one: below its limit
    about = _about(at)
    assert (about["width"], about["boxes"], about["kinds"]) == (256, [], ["pits"]) and about["name"].startswith("part ")
    at.button(key="label_skip").click().run()
    assert "11 to label" in words(at) and _about(at)["id"] != about["id"]
    at.selectbox(key="label_source").set_value(jobs.results.datasets()["snapshot_id"].iloc[0]).run()
    assert "21 to label" in words(at) and _about(at)["boxes"][0][0] == "bright"

    # to CVAT and back, one box gone
    at.button(key="cvat_zip").click().run()
    path = next(p for p in (data_root() / ".downloads").iterdir())
    with zipfile.ZipFile(path) as z:
        content = z.read(coco.ANNOTATIONS)
    at.file_uploader(key="cvat_back_0").set_value(("back.json", content.replace(b"bright", b"dull"), "application/json")).run()
    assert "**21 pictures** came back, 18 with other boxes than known here; 3 without a box." in words(at)
    at.button(key="cvat_take").click().run()
    assert jobs.labelling.count("real") == 21 and "21 pictures taken over" in words(at)

    # the new dataset
    at.button(key="make_dataset").click().run()
    run = jobs.recent(limit=1, recipes=("relabel",))[0]
    assert run.config["name"] == "plates 2" and run.state == "pending" and "Dataset **plates 2**" in words(at)
    made = relabel.run(jobs.Relabel.from_json(run.config), rundir.run_path(run.run_id), plates.silent)
    assert made["relabelled"] == 18 and made["classes"] == ["bright", "dull"]
    at.file_uploader(key="cvat_back_1").set_value(("back.json", b"[]", "application/json")).run()
    assert any("holds no COCO annotations" in e.value for e in at.error)


def test_a_dataset_can_be_labelled_before_anything_was_inspected(data_folder: Path, tmp_path: Path) -> None:
    st.cache_data.clear()
    house.opened().ingest()
    assert "Nothing inspected yet" in words(page("review", queue="Label"))
    made = plates.imported(tmp_path / "in", "plates")
    house.opened().ingest()
    for query in ({}, dict(queue="Doubtful"), dict(queue="Label", pictures=jobs.results.datasets()["snapshot_id"].iloc[0])):
        at = page("review", **query)
        assert "21 to label" in words(at) and made.exists()
        assert at.selectbox(key="label_source").options == ["Dataset plates"]
    house.close()


def test_what_is_drawn_on_a_dataset_outlasts_the_demo(data_folder: Path, tmp_path: Path) -> None:
    """The demo plant is what a new user looks at while labelling a dataset of his own."""
    st.cache_data.clear()
    plant.add(plant.batch([], plant="demo"), [dict(image_id="demo:1:2a:1:good", width=256, height=256, model_id="m1")])
    plates.imported(tmp_path / "in", "plates")
    house.opened().ingest()
    at = page("review", queue="Label", plant="demo", pictures=jobs.results.datasets()["snapshot_id"].iloc[0])
    assert "21 to label" in words(at) and "Demo plant" in words(at)
    at.button(key="cvat_zip").click().run()
    with zipfile.ZipFile(next(p for p in (data_root() / ".downloads").iterdir())) as z:
        content = z.read(coco.ANNOTATIONS)
    at.file_uploader(key="cvat_back_0").set_value(("back.json", content, "application/json")).run()
    at.button(key="cvat_take").click().run()
    at.button(key="make_dataset").click().run()
    run = jobs.recent(limit=1, recipes=("relabel",))[0]
    assert (run.plant, run.config["plant"]) == ("real", "real") and jobs.labelling.count("demo") == 0
    relabel.run(jobs.Relabel.from_json(run.config), rundir.run_path(run.run_id), plates.silent)
    jobs.remove_demo()
    assert jobs.labelling.count("real") == 21 and (rundir.run_path(run.run_id) / "snapshot.json").exists()
    house.close()


def test_an_older_dataset_of_the_same_name_is_the_one_that_opens(data_folder: Path, tmp_path: Path,
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    st.cache_data.clear()
    monkeypatch.setattr(label_view, "SITTING", 2)
    for seed in (0, 1):
        plates.imported(tmp_path / f"in{seed}", "plates", seed=seed)
    house.opened().ingest()
    newer, older = jobs.results.datasets()["snapshot_id"]
    at = page("review", queue="Label", pictures=older)
    assert at.selectbox(key="label_source").value == older and len(at.selectbox(key="label_source").options) == 2
    at.selectbox(key="label_source").set_value(newer).run()
    names = set()
    for _ in range(21):                                          # more than a sitting: each but the last is followed by another one
        names.add(_about(at)["name"])
        at.button(key="label_skip").click().run()
    assert len(names) == 21 and "Nothing here waits to be labelled" in words(at)
    at.button(key="label_unskip").click().run()
    assert _about(at)["name"] in names
    house.close()


def test_nobody_signs_with_the_name_of_a_made_up_person(data_folder: Path, tmp_path: Path) -> None:
    st.cache_data.clear()
    ids = plant.add(plant.batch([], plant="demo"), [dict(image_id="demo:1:2a:1:good", width=256, height=256, model_id="m1")])
    plant.decide("review", plant="demo", inspection_id=str(ids[0]), verdict="good", reviewer="Ines")
    plates.imported(tmp_path / "in", "plates")
    house.opened().ingest()
    assert page("review", queue="Label", plant="demo").text_input(key="reviewer").value == ""
    house.close()


def test_pictures_of_the_demo_join_no_dataset_of_ones_own(data_folder: Path, tmp_path: Path) -> None:
    st.cache_data.clear()
    ids = plant.add(plant.batch([], plant="demo"), [dict(image_id="demo:1:2a:1:good", width=256, height=256, model_id="m1")])
    plates.imported(tmp_path / "in", "plates")
    house.opened().ingest()
    one = dict(image_id="demo:1:2a:1:good", file_name="x.png", width=256, height=256, boxes=[["pits", 1, 1, 9, 9]], unit="")
    jobs.labelling.save("demo", [one])
    at = page("review", queue="Label", plant="demo")
    assert ids and at.selectbox(key="label_base_doubtful").options == ["None: labelled pictures alone"]
    house.close()


def _about(at: AppTest) -> dict[str, Any]:
    """What the canvas was given."""
    return dict(json.loads(next(e.proto.json for e in at.get("bidi_component"))))


def test_boxes_that_wait_in_the_browser_are_of_one_person_and_plant(filled: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """At a shift change the next person in the same tab is given none of what the one before drew and did not save."""
    house.opened().ingest()
    ids = []
    for name in ("Kim", "Lee"):
        monkeypatch.setattr(label_view.person, "named", lambda name=name: name)
        ids.append(str(_about(page("review", queue="Label"))["id"]))
    assert ids[0] != ids[1] and [i.split("/")[:2] for i in ids] == [["Kim", "real"], ["Lee", "real"]]
    assert ids[0].split("/")[2:] == ids[1].split("/")[2:]


def test_a_picture_that_is_gone_is_passed_over(filled: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    house.opened().ingest()

    def gone(*_: object, **__: object) -> bytes:
        raise jobs.NotFoundError("This picture was not kept.")

    monkeypatch.setattr(jobs.results, "picture", gone)
    at = page("review", queue="Label")
    assert "This picture was not kept" in words(at)
    at.button(key="label_skip").click().run()
    assert "11 to label" in words(at) and not at.exception
