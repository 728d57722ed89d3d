"""The synthesis page, driven as a person would: ways of making pictures and what they lack, judging, adding to a dataset, measuring.

Data comes from run directories as workers leave them; no network runs.
"""

import json
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
import streamlit as st
from PIL import Image
from streamlit.testing.v1 import AppTest

from backend import jobs, rundir
from pages.components import synthesis_figures, synthesis_form, synthesis_pictures, synthesis_priors, synthesis_quality, synthesis_search
from pages.components import synthesis_means as means_of
from tests.test_pages_engineering import NASTY, button, ingest, model, page, picture, run, said

SNAPSHOT = "s" * 16
ADAPTED = dict(classes=2, images=30, held=8, held_loss=dict(before=0.4, after=0.3),
               about="The surface prior was trained without this dataset.")


@pytest.fixture(autouse=True)
def _nothing_remembered() -> None:
    st.cache_data.clear()


def dataset(good: int = 3, labelled: int = 4) -> list[str]:
    """As `imported`, and in the database."""
    kept = imported(good, labelled)
    ingest()
    return kept


def imported(good: int = 3, labelled: int = 4, name: str = "Steel", snapshot_id: str = SNAPSHOT) -> list[str]:
    """Train pictures, good ones first; and one for the test. Ids of the train pictures."""
    kept = [picture(k) for k in range(good + labelled)]
    rows = [dict(image_id=i, split="train") for i in kept] + [dict(image_id=picture(99), split="test")]
    rows = [dict(snapshot_id=snapshot_id, file_name=f"steel-{k}.png", origin="real", parent="", generator_run="", width=64, height=48,
                 group_id="", phash=f"{k:016x}", **row) for k, row in enumerate(rows)]
    labels = [dict(snapshot_id=snapshot_id, image_id=i, class_name=("pits", "scratch")[k % 2], x1=4.0, y1=4.0, x2=30.0, y2=20.0,
                   source="box") for k, i in enumerate(kept[good:])]
    head = dict(snapshot_id=snapshot_id, name=name, layout="voc", created_at=datetime.now(UTC), classes=["pits", "scratch"], seed=0,
                splits_from="lists", images=len(rows), labels=len(labels), refused=0)
    made = run("import", jobs.Import(path="/x", name=name).to_json(), snapshots=[head], snapshot_images=rows, labels=labels, result={})
    rundir.write_json(rundir.run_path(made) / "snapshot.json", dict(head, created_at=str(head["created_at"])))
    return kept


def left(run_id: str, kind: str, **head: Any) -> str:
    """What a finished run has left to build on."""
    folder = rundir.run_path(run_id) / kind
    folder.mkdir()
    rundir.write_json(folder / "head.json", dict(key="k" * 16, **head))
    return run_id


def prior(name: str = "surface prior") -> str:
    made = run("train-prior", jobs.TrainPrior(name=name).to_json(), result={})
    return left(made, "prior", name=name, native=True, drawn=2000, datasets=[])


def adapter(name: str = "Steel") -> str:
    made = run("adapt-prior", jobs.AdaptPrior(dataset=SNAPSHOT, name=name).to_json(), result=ADAPTED)
    return left(made, "adapter", name=name, snapshot_id=SNAPSHOT, classes=["pits", "scratch"], learned=["x"],
                base=dict(native=True))


def made_set(parents: list[str], n: int = 5, name: str = "Steel pasted", items: list[dict[str, Any]] | None = None,
             **settings: Any) -> str:
    """A set of n small pictures with masks, as `synthesize` leaves it."""
    config = jobs.Synthesize(**{**dict(dataset=SNAPSHOT, name=name, count=n, method="paste", class_name="pits"), **settings})
    made = run("synthesize", config.to_json(), result=dict(images=n, attempts=n + 2, rejected={"no room in any scene": 2}))
    folder = rundir.run_path(made) / "synthetic"
    folder.mkdir()
    mask = np.zeros((48, 64), np.uint8)
    mask[10:20, 10:30] = 255
    listed = items or [dict(parent=parents[k % len(parents)], mask=f"{k:06d}_mask.png", boxes=[["pits", 10, 10, 30, 20]], boxes_from="mask",
                            class_name="pits", donor=parents[-1], method="paste", source="paste", seed=0, attempt=k) for k in range(n)]
    for k, item in enumerate(listed):
        Image.new("RGB", (64, 48), (30 * k, 90, 120)).save(folder / f"{k:06d}.png")
        Image.fromarray(mask).save(folder / f"{k:06d}_mask.png")
        item.update(file=f"{k:06d}.png", width=64, height=48, area=0.065)
    rundir.write_json(folder / "head.json", dict(key="k" * 16, name=name, dataset="Steel", snapshot_id=SNAPSHOT, classes=["pits"],
                                                 settings=config.to_json(), items=listed, result={}))
    return made


def submitted(recipe: str) -> dict[str, Any]:
    return jobs.recent(limit=1, recipes=(recipe,))[0].config


def told(run_id: str) -> list[str]:
    """Verdicts of a set's pictures, in their order."""
    return [item["verdict"] for item in jobs.synthetic(run_id)["items"]]


def param(at: AppTest, name: str) -> str:
    """What stands in the URL: a list at first, as text once the page has written it."""
    value = at.query_params[name]
    return str(value[0] if isinstance(value, list) else value)


def links(at: AppTest) -> dict[str, str]:
    return {link.proto.label: link.proto.query_string for link in at.get("page_link")}


# --- ways of making pictures ----------------------------------------------------------------------------------------------------

def test_without_a_dataset_it_says_where_to_get_one(data_folder: Any) -> None:
    at = page("synthesis")
    assert "no dataset yet" in said(at) and "Import a dataset" in links(at) and not any(b.label.startswith("Make") for b in at.button)


def test_what_a_way_lacks_is_said_and_the_rest_goes_on(data_folder: Any) -> None:
    dataset(good=0)
    means = means_of.of(SNAPSHOT, "Steel")
    assert means.kinds == {"pits": 2, "scratch": 2} and means.good == 0
    assert {name: bool(means_of.missing(name, means)) for name in means_of.PRESETS} == dict(like=True, free=True, good=True, paste=False)
    at = page("synthesis")
    assert "Every picture to learn from carries a defect" in said(at) and "Import pictures" in links(at)
    assert [b.key for b in at.button if b.key and b.key.startswith("choose_")] == ["choose_paste"]
    at.selectbox(key=f"make_kind_{SNAPSHOT}").select("scratch")
    at.number_input(key="make_count").set_value(7).run()
    button(at, "Make 7 pictures").click().run()
    config = submitted("synthesize")
    assert [config[k] for k in ("method", "class_name", "count", "dataset", "name")] == ["paste", "scratch", 7, SNAPSHOT, "Steel pasted"]
    assert param(at, "set") == jobs.recent(limit=1)[0].run_id


def test_without_labels_only_good_parts_are_left_and_a_name_is_given(data_folder: Any) -> None:
    dataset(labelled=0)
    at = page("synthesis")
    assert "No defect is labelled" in said(at)
    at.segmented_control(key="make_fill").set_value("noise").run()
    button(at, "Make 60 pictures").click().run()
    config = submitted("synthesize")
    assert [config[k] for k in ("method", "source", "class_name")] == ["perturb", "noise", ""]


def test_the_prior_is_trained_then_adapted_then_draws(data_folder: Any) -> None:
    dataset()
    at = page("synthesis")
    assert "surface prior" in str(at.main).lower()
    button(at, "Train the surface prior").click().run()
    assert submitted("train-prior")["preset"] == "small"
    assert param(at, "learn").split("-")[3:5] == ["train", "prior"]
    rundir.set_state(rundir.run_path(param(at, "learn")), "canceled")
    base = prior()
    at = page("synthesis", preset="like")
    assert "Show the prior the defects of Steel" in said(at) and "2 kinds of defect from 4 labelled" in said(at)
    button(at, "Adapt it to Steel").click().run()
    assert [submitted("adapt-prior")[k] for k in ("dataset", "prior", "classes")] == [SNAPSHOT, base, ""]
    rundir.set_state(rundir.run_path(param(at, "learn")), "canceled")
    known = adapter()
    at = page("synthesis", preset="like")
    assert "Show the prior" not in said(at)
    at.slider(key="make_strength_like_0.5").set_value(0.7).run()
    button(at, "Make 60 pictures").click().run()
    config = submitted("synthesize")
    assert [config[k] for k in ("method", "start", "strength", "prior", "class_name")] == ["prior", "image", 0.7, known, ""]


def test_an_invented_picture_knows_no_strength_and_good_parts_are_drawn_on(data_folder: Any) -> None:
    dataset()
    prior()
    adapter()
    at = page("synthesis", preset="free")
    assert not [s for s in at.slider if s.label == "Strength"] and [s for s in at.slider if s.label == "Guidance"]
    button(at, "On good parts").click().run()
    assert at.segmented_control(key="make_fill").value == "prior", "an adapted prior is the best that fills a shape"
    button(at, "Make 60 pictures").click().run()
    assert [submitted("synthesize")[k] for k in ("method", "start")] == ["prior", "inpaint"]


def test_outlines_of_a_new_defect_are_shapes(data_folder: Any) -> None:
    dataset()
    masks = left(run("collect-masks", jobs.CollectMasks(name=NASTY[:40], inspections="r/1").to_json(), result=dict(masks=2)), "masks",
                 name="fibre", items=[])
    at = page("synthesis", masks=masks)
    assert at.selectbox(key="make_masks").value == masks
    button(at, "Make 60 pictures").click().run()
    config = submitted("synthesize")
    assert [config[k] for k in ("method", "masks", "class_name")] == ["perturb", masks, "fibre"]


def outlines(kind: str = "fibre") -> str:
    """Outlines of unknown defects, collected under this name; the run."""
    made = run("collect-masks", jobs.CollectMasks(name=kind, inspections="r/1").to_json(), result=dict(masks=2))
    return left(made, "masks", name=kind, items=[])


def test_the_later_of_a_link_and_a_click_counts(data_folder: Any) -> None:
    """A card was clicked, then outlines are linked to on another page; and the other way round."""
    dataset()
    prior()
    masks = outlines()

    def chosen() -> str:
        cards = (b for b in at.button if b.key and b.key.startswith("choose_"))
        return str(next(b.key for b in cards if b.label.endswith("chosen"))).removeprefix("choose_")

    def follow(**query: str) -> None:
        at.query_params.clear()
        at.switch_page("pages/review.py").run()
        at.switch_page("pages/synthesis.py")
        for key, value in query.items():
            at.query_params[key] = value
        at.run()
        assert not at.exception, at.exception

    at = page("synthesis")
    at.button(key="choose_like").click().run()
    follow(masks=masks)
    assert chosen() == "good" and at.selectbox(key="make_masks").value == masks
    assert at.run().button and chosen() == "good"
    at.button(key="choose_like").click().run()
    assert at.run().button and chosen() == "like", "no rerun takes the click back"
    at.button(key="choose_good").click().run()
    assert at.selectbox(key="make_masks").value == masks, "the outlines linked to are still those"
    at.button(key="choose_free").click().run()
    follow(masks=masks)
    assert chosen() == "good", "the same link once more"
    follow()
    assert chosen() == "good", "without a link the last way stays"


def test_no_prior_draws_a_kind_that_it_has_not_learned(data_folder: Any) -> None:
    """It would draw one that it knows into the new kind's outlines, and label it so."""
    dataset()
    prior()
    adapter()
    masks, known = outlines(), outlines("scratch")
    at = page("synthesis", masks=masks)
    assert at.segmented_control(key="make_fill_new").options == ["Another surface", "Noise"]
    assert "No prior has learned fibre yet" in said(at)
    button(at, "Make 60 pictures").click().run()
    config = submitted("synthesize")
    assert [config[k] for k in ("method", "source", "masks", "class_name")] == ["perturb", "texture", masks, "fibre"]
    at = page("synthesis", masks=known)
    assert at.segmented_control(key="make_fill").value == "prior"
    button(at, "Make 60 pictures").click().run()
    config = submitted("synthesize")
    assert [config[k] for k in ("method", "masks", "class_name")] == ["prior", known, "scratch"], "a known one is labelled as what it is"
    at = page("synthesis", masks=known)
    at.selectbox(key="make_masks").select(masks).run()
    assert at.segmented_control(key="make_fill_new").value == "texture", "chosen without a link it is the same"
    at.selectbox(key="make_masks").select("").run()
    assert at.segmented_control(key="make_fill").value == "prior" and at.selectbox(key=f"make_kind_{SNAPSHOT}").value == ""


def test_what_cannot_be_is_said_before_it_is_asked(data_folder: Any) -> None:
    dataset()
    prior()
    at = page("synthesis", preset="like")
    at.text_input(key="make_elsewhere").set_value("owner/name").run()
    button(at, "Make 60 pictures").click().run()
    assert submitted("synthesize")["prior"] == "owner/name"


# --- while it is made -----------------------------------------------------------------------------------------------------------

def test_the_newest_pictures_are_shown_while_it_runs(data_folder: Any) -> None:
    dataset()
    made = run("synthesize", jobs.Synthesize(dataset=SNAPSHOT, name="Now", method="paste").to_json(), "running")
    at = page("synthesis", set=made)
    assert "first pictures appear here" in said(at)
    Image.new("RGB", (30, 10)).save(rundir.run_path(made) / "samples.png")
    rundir.write_json(rundir.run_path(made) / "progress.json", dict(step=3, total=60, message="making", eta_s=120, metrics={}))
    at = page("synthesis", set=made)
    assert "The newest pictures" in said(at) and "first pictures appear here" not in said(at)


def test_a_set_that_failed_says_why(data_folder: Any) -> None:
    dataset()
    made = run("synthesize", jobs.Synthesize(dataset=SNAPSHOT, name="Bad").to_json(), "failed", message="None of 64 attempts *fits*.")
    at = page("synthesis", set=made)
    assert [e.value.replace("\\", "") for e in at.error] == ["None of 64 attempts *fits*."]
    assert any("Try again" in b.label for b in at.button)
    at = page("synthesis", set="20200101-000000-000000-synthesize-abcdef")
    assert "There is no run" in " ".join(e.value.replace("\\", "") for e in at.error)


# --- judging --------------------------------------------------------------------------------------------------------------------

@pytest.fixture
def made(data_folder: Any) -> str:
    return made_set(dataset())


def test_pictures_are_judged_one_after_the_other_and_taken_back(made: str) -> None:
    at = page("synthesis", set=made)
    assert "1 of 5" in said(at) and "from steel\\-0\\.png" in said(at) and "with a defect of steel\\-6\\.png" in said(at)
    for verdict in ("accept", "reject", "again"):
        at.button(key=f"say_{verdict}").click().run()
        assert not at.exception, at.exception
    assert told(made) == ["accept", "reject", "again", "", ""] and "1 of 2" in said(at)
    assert param(at, "picture") == "000003.png" and param(at, "show") == "undecided"
    at.button(key="made_undo").click().run()
    assert told(made) == ["accept", "reject", "", "", ""] and param(at, "picture") == "000002.png"
    at.button(key="made_undo").click().run()
    at.button(key="made_undo").click().run()
    assert told(made) == [""] * 5 and at.button(key="made_undo").disabled


def test_the_keys_are_those_that_are_said(made: str) -> None:
    at = page("synthesis", set=made)
    keys = {b.key: b.proto.shortcut for b in at.button}
    assert [keys[k] for k in ("say_accept", "say_again", "made_to_Left", "made_to_Right", "made_undo")] == ["a", "g", "left", "right", "u"]


def test_the_arrows_and_the_sheet_move(made: str) -> None:
    at = page("synthesis", set=made)
    assert at.button(key="made_to_Left").disabled
    at.button(key="made_to_Right").click().run()
    assert param(at, "picture") == "000001.png"
    button(at, "Look at 000004.png").click().run()
    assert param(at, "picture") == "000004.png" and at.button(key="made_to_Right").disabled
    at.button(key="say_reject").click().run()
    assert param(at, "picture") == "000003.png", "the last one judged leaves the one before it"


def test_the_rest_is_accepted_at_once_and_filters_count(made: str) -> None:
    at = page("synthesis", set=made)
    at.button(key="say_reject").click().run()
    button(at, "Accept the rest (4)").click().run()
    assert told(made) == ["reject", *["accept"] * 4] and "Every picture is judged" in said(at)
    at.segmented_control(key="made_show").set_value("rejected").run()
    assert "1 of 1" in said(at) and param(at, "picture") == "000000.png"
    at.button(key="made_undo").click().run()
    assert told(made) == ["reject", "", "", "", ""], "all of them in one"


def test_a_link_shows_the_same_choice(made: str) -> None:
    jobs.judge(made, {"000001.png": "accept", "000003.png": "accept"})
    at = page("synthesis", set=made, show="accepted", picture="000003.png")
    assert "2 of 2" in said(at) and at.button(key="say_accept").proto.type == "primary"


def test_those_marked_are_made_again_with_the_next_seed(made: str) -> None:
    at = page("synthesis", set=made)
    for _ in range(2):
        at.button(key="say_again").click().run()
    button(at, "Make 2 again").click().run()
    config = submitted("synthesize")
    assert [config[k] for k in ("count", "seed", "name", "method", "class_name")] == [2, 1, "Steel pasted again", "paste", "pits"]
    numbers = [item["attempt"] for item in jobs.synthetic(made)["items"][:2]]
    assert json.loads(config["again"]) == dict(seed=0, attempts=dict(pits=numbers))
    assert param(at, "set") == jobs.recent(limit=1)[0].run_id
    whole = jobs.synthetic(made)
    third = synthesis_form.again(whole, whole["items"][:1])
    assert (third.seed, third.name) == (2, "Steel pasted again 2"), "no two of a kind have the same seed"


def test_those_of_each_kind_are_made_again_and_no_others(data_folder: Any) -> None:
    """Two scratches and a pit, and not one of each kind in turn; marked once more, those that they stem from."""
    made = jobs.synthetic(made_set(dataset(), class_name=""))
    for item, kind, number in zip(made["items"], ("scratch", "pits", "scratch", "pits"), (4, 2, 7, 9), strict=False):
        item |= dict(class_name=kind, attempt=number)
    config = synthesis_form.again(made, made["items"][:3])
    assert json.loads(config.again) == dict(seed=0, attempts=dict(scratch=[4, 7], pits=[2])) and config.count == 3
    later = made | dict(settings=config.to_json(), items=[made["items"][0] | dict(seed=config.seed, attempt=0, again=4)])
    assert json.loads(synthesis_form.again(later, later["items"]).again) == dict(seed=0, attempts=dict(scratch=[4]))
    old = [dict(class_name="pits", attempt=None)] * 2
    assert json.loads(synthesis_form.again(made, old).again)["attempts"] == dict(pits=[0, 1]), "as many, where nobody knows which"


def test_what_is_made_again_is_made_with_what_the_set_was_made_with(data_folder: Any) -> None:
    """Though its settings name none, and there is a newer one by now."""
    parents = dataset()
    first = left(run("adapt-prior", jobs.AdaptPrior(dataset=SNAPSHOT, name="Steel").to_json(), result=ADAPTED), "adapter")
    rundir.write_json(rundir.run_path(first) / "adapter" / "head.json", dict(key="a" * 16, name="Steel", snapshot_id=SNAPSHOT,
                                                                             classes=["pits"], base=dict(native=True)))
    made = made_set(parents, method="prior", start="image")
    head = rundir.run_path(made) / "synthetic" / "head.json"
    rundir.write_json(head, rundir.read_json(head) | dict(prior=dict(name="Steel", key="a" * 16, adapter="a" * 16), apart="h" * 16))
    newer = adapter()
    jobs.judge(made, {"000000.png": "again"})
    at = page("synthesis", set=made, show="all")
    button(at, "Make 1 again").click().run()
    config = submitted("synthesize")
    assert (config["prior"], config["apart"]) == ("a" * 16, "h" * 16)
    assert [p.parent.name for p in (rundir.find_artifact("adapter", n) for n in (config["prior"], "")) if p] == [first, newer]
    whole = jobs.synthetic(made)
    assert synthesis_form.again(whole, whole["items"][:1]).seed == config["seed"] + 1, "it is one of its kind, though it names the prior"
    filled = synthesis_form.again(whole | dict(prior=None, apart="", denoiser="d" * 16, shapes="m" * 16), whole["items"][:1])
    assert (filled.prior, filled.denoiser, filled.masks) == ("", "d" * 16, "m" * 16)
    old = synthesis_form.again(whole | dict(prior=dict(name="surface prior", adapter="")), whole["items"][:1])
    assert old.prior == "surface prior", "of a set from before keys were written down, as much as it says"


def test_what_is_known_of_a_picture_is_told_and_escaped(data_folder: Any) -> None:
    parents = dataset()
    item = dict(parent=parents[0], mask="", boxes=[["pits", 4, 4, 30, 20]], boxes_from="parent", class_name=NASTY, donor="", method="prior",
                source="image", seed=3, attempt=9, prompt="steel *surface*", adapter="abc", strength=0.5, guidance=2.0, steps=20)
    free = dict(item, parent="", boxes_from="whole", boxes=[["pits", 0, 0, 64, 48]])
    made = made_set(parents, items=[item, free], method="prior")
    at = page("synthesis", set=made)
    for part in ("steel \\*surface\\*", "seed 3", "attempt 9", "strength 0.5", "guidance 2", "steps 20", "adapter abc"):
        assert part in said(at), part
    assert "<img src" not in said(at).replace("\\<img src", "")
    items = jobs.synthetic(made)["items"]
    assert synthesis_pictures.panels(items[0], True) == ["original", "mask", "outlined"]
    assert synthesis_pictures.panels(items[1], False) == ["mask", "result"]
    at.toggle(key="made_outlines").set_value(True).run()
    assert not at.exception and "Made, outlined" in said(at)


def test_a_picture_is_enlarged_and_judged_there(made: str) -> None:
    at = page("synthesis", set=made)
    button(at, "Enlarge").click().run()
    assert at.button(key="made_Right").proto.shortcut == "right" and not at.button(key="say_accept").proto.shortcut
    at.button(key="large_accept").click().run()
    assert told(made)[0] == "accept" and at.session_state["made_open"] == "000001.png"


def test_a_large_set_has_pages_that_follow(data_folder: Any) -> None:
    made = made_set(dataset(), n=30)
    at = page("synthesis", set=made, picture="000013.png", show="all")
    assert "14 of 30" in said(at)
    assert [b.label for b in at.button if b.label.startswith("Look at")][0] == "Look at 000012.png"


# --- into a dataset -------------------------------------------------------------------------------------------------------------

def test_nothing_accepted_is_nothing_to_add(made: str) -> None:
    at = page("synthesis", set=made, view="Add to a dataset")
    assert "No picture is accepted yet" in said(at) and button(at, "Make a dataset with 0").disabled
    at.segmented_control(key="add_which").set_value("all").run()
    assert not button(at, "Make a dataset with 5").disabled


def test_accepted_pictures_become_a_dataset(made: str) -> None:
    jobs.judge(made, {"000000.png": "accept", "000001.png": "accept", "000002.png": "again"})
    other = made_set(rundir_parents(made), n=3, name="Other", method="prior")
    jobs.judge(other, {"000000.png": "accept"})
    at = page("synthesis", set=made, view="Add to a dataset")
    assert "The 1 to be made again stay out" in said(at)
    button(at, "Make a dataset with 3").click().run()
    config = submitted("combine")
    assert [config[k] for k in ("dataset", "sets", "which", "name")] == [SNAPSHOT, f"{made}, {other}", "accepted", "Steel + 3 made"]
    asked = jobs.recent(limit=1, recipes=("combine",))[0].run_id
    rundir.write_json(rundir.run_path(asked) / "result.json", dict(snapshot_id="n" * 16, refused=0))
    rundir.set_state(rundir.run_path(asked), "completed", started_at=rundir.now(), finished_at="2020-01-01T00:00:00+00:00")
    at = page("synthesis", set=made, view="Add to a dataset")
    assert links(at) | {"See the dataset": f"dataset={'n' * 16}", "Train on it": f"dataset={'n' * 16}"} == links(at)


def rundir_parents(run_id: str) -> list[str]:
    return [item["parent"] for item in jobs.synthetic(run_id)["items"]]


# --- quality --------------------------------------------------------------------------------------------------------------------

def figures(class_name: str, kid: float | None, low: float, high: float, chance: float, **more: Any) -> dict[str, Any]:
    """A row as `measure-synthesis` gives it; without a distance where `kid` is None."""
    row = dict(class_name=class_name, made=20, reference=12, why="", kid=kid, low=low, high=high, floor=1.0, floor_low=-4.0, floor_high=6.0,
               chance=chance, diversity=0.8, copied=0.2, of_parent=0.9, distances=[0.1, 0.2, 0.3, 0.4, 0.5],
               real_distances=[0.25, 0.31, 0.4, 0.55, 0.7], **more)
    without = dict.fromkeys(("low", "high", "floor", "floor_low", "floor_high", "chance"))
    return row if kid is not None else row | without | dict(why="The dataset has no train image with such a defect to compare with.")


def measurement(set_id: str, rows: list[dict[str, Any]], **more: Any) -> str:
    pair = dict(class_name="pits", made="000000.png", real="r", distance=0.1, ratio=0.4, parent=True, file="pair_000.png")
    result = dict(name="Steel pasted", synthetic=dict(run=set_id, name="Steel pasted", key="k"), dataset="Steel", snapshot_id=SNAPSHOT,
                  extractor="efficientnet-lite0", detector="", images=20, kid=12.0, low=2.0, high=22.0, measured=1, copied=0.2,
                  of_parent=0.9, diversity=0.8, found=None, classes=rows, pairs=[pair], warnings=["Distances may be too small."])
    made = run("measure-synthesis", jobs.MeasureSynthesis(synthetic=set_id).to_json(), result=result | more)
    folder = rundir.run_path(made) / "quality"
    folder.mkdir()
    Image.new("RGB", (20, 10)).save(folder / "pair_000.png")
    return made


def test_a_set_is_measured_with_a_detector_of_its_dataset(made: str) -> None:
    model("m9", "Other", snapshot_id="o" * 16)
    model("m1", "Steel 1", snapshot_id=SNAPSHOT)
    model("m8", "Another", snapshot_id="o" * 16)
    ingest()
    at = page("synthesis", set=made, view="Quality")
    assert "Not measured yet" in said(at)
    button(at, "Measure it").click().run()
    assert [submitted("measure-synthesis")[k] for k in ("synthetic", "detector", "name")] == [made, "m1", "Steel pasted"]
    assert not at.exception and "Not measured yet" not in said(at)


def test_what_was_measured_is_told_in_words(made: str) -> None:
    rows = [figures("pits", 12.0, 8.0, 16.0, 4.0), figures("scratch", 2.0, -3.0, 7.0, 4.0), figures("dent", 5.0, -3.0, 13.0, 4.0),
            figures("hole", None, 0, 0, 0)]
    measurement(made, rows)
    at = page("synthesis", set=made, view="Quality")
    whole = said(at)
    assert "1 of 3 kinds lies" not in whole and "1 of 3 kinds lie no farther from real pictures" in whole
    assert "1 surely farther: pits" in whole and "of 1 nothing sure can be said" in whole
    assert "**hole** has no distance" in whole and "no train image with such a defect" in whole
    assert "That is meant here" in whole, "a pasted picture is its parent, but for the defect"
    assert "differ 80 % as much as real ones" in whole and "No detector looked" in whole
    assert [m.value for m in at.metric] == ["12.0", "20 %", "80 %", "–"]
    assert "made from it · 0.40 · 0.10 apart, real ones 0.31 to 0.55" in whole
    assert [i.proto.imgs[0].alt for i in at.get("image")] == ["000000.png beside the real picture it is most like"]
    assert any("too small" in w.value for w in at.warning)


def test_copies_of_what_was_drawn_anew_are_a_fault() -> None:
    drawn = dict(method="prior", start="image")
    assert "More strength" in synthesis_quality.copies(dict(copied=0.3), drawn).replace("more strength", "More strength")
    assert "meant here" in synthesis_quality.copies(dict(copied=0.3), dict(method="prior", start="inpaint"))
    assert synthesis_quality.copies(dict(copied=0.02), drawn).endswith("it would be about 1.0 %.")
    few = dict(copied=0.125, copied_chance=0.12, copying=False)
    assert synthesis_quality.copies(few, drawn).endswith("it would be about 12 %."), "no fault where few real pictures set the limit"
    assert "They teach" in synthesis_quality.copies(few | dict(copying=True), drawn)
    assert "could not" in synthesis_quality.copies(dict(copied=None), drawn)


def test_what_the_detector_found_stands_beside_real_pictures() -> None:
    rows = [figures("pits", 12.0, 8.0, 16.0, 4.0, labels=10, found=0.5, real_labels=30, real_found=0.9),
            figures("scratch", 2.0, 1.0, 3.0, 4.0, labels=10, found=0.7, real_labels=10, real_found=0.5),
            figures("new", 2.0, 1.0, 3.0, 4.0, labels=0, found=None, real_labels=0, real_found=None)]
    result = dict(classes=rows, copied=None, diversity=None, detector="Steel 1", found=0.6)
    told = " ".join(synthesis_quality.said(result, {}))
    assert "Steel 1 finds 60 % of the made labels; of real ones it finds 80 %" in told
    table = synthesis_quality.table(rows)
    assert table["Apart"].tolist()[0] == "0.20 to 0.40" and table["Real ones apart"].tolist()[0] == "0.31 to 0.55"
    assert table["Labels found"].tolist() == ["50 %", "70 %", "–"] and table["Interval"].tolist()[0] == "8.0 to 16.0"


# --- settings searched ----------------------------------------------------------------------------------------------------------

def searched(**asked: Any) -> str:
    rows = [dict(strength=s, guidance=g, steps=n, class_name="pits", kid=10 * s + g, low=1.0, high=9.0, copied=0.5 if s < 0.4 else 0.01,
                 diversity=1.0) for s in (0.3, 0.5) for g in (1.0, 2.0) for n in (10, 20)]
    best = next(r for r in rows if (r["strength"], r["guidance"], r["steps"]) == (0.5, 1.0, 10))
    result = dict(name="Steel", dataset="Steel", snapshot_id=SNAPSHOT, prior="Steel", adapter="k" * 16, images=8, rows=rows, settings=rows,
                  best=best, nearest=rows[0], floor={}, warnings=[])
    return run("search-synthesis", jobs.SearchSynthesis(dataset=SNAPSHOT, name="Steel settings", **asked).to_json(), result=result)


def test_settings_are_searched_and_taken_over(data_folder: Any) -> None:
    dataset()
    prior()
    known = adapter()
    at = page("synthesis", preset="like")
    button(at, "Search").click().run()
    config = submitted("search-synthesis")
    assert [config[k] for k in ("dataset", "prior", "strengths")] == [SNAPSHOT, known, "0.3 0.5 0.7"]
    rundir.set_state(rundir.run_path(param(at, "learn")), "canceled")
    found = searched()
    at = page("synthesis", preset="like", learn=found)
    assert "Best: strength **0.5**, guidance **1**, **10** steps: 6.0, with 1.0 % copies" in said(at)
    at.button(key=f"use_{found}").click().run()
    assert at.slider(key="make_guidance_1.0").value == 1.0
    button(at, "Make 60 pictures").click().run()
    assert [submitted("synthesize")[k] for k in ("strength", "guidance", "steps")] == [0.5, 1.0, 10]


def test_what_was_searched_for_something_else_does_not_count(data_folder: Any) -> None:
    """Neither as the best so far nor in the form: another prior, or another kind."""
    dataset()
    prior()
    known = adapter()
    means = means_of.of(SNAPSHOT, "Steel")
    found = searched(class_name="pits")
    other = searched()
    rundir.write_json(rundir.run_path(other) / "result.json", jobs.status(other).result | dict(adapter="o" * 16))
    assert synthesis_search.key_of(means, known) == "k" * 16 and synthesis_search.key_of(means, "surface prior") == ""
    assert [r.run_id for r in synthesis_search.found(means, "k" * 16, "pits")] == [found]
    assert synthesis_search.found(means, "k" * 16, "") == [] == synthesis_search.found(means, "", "pits")
    at = page("synthesis", preset="like", learn=found)
    at.button(key=f"use_{found}").click().run()
    assert at.selectbox(key=f"make_kind_{SNAPSHOT}").value == "pits" and at.slider(key="make_guidance_1.0").value == 1.0
    at.selectbox(key=f"make_kind_{SNAPSHOT}").select("scratch").run()
    assert "were searched for pits with the prior Steel; here the usual ones stand" in said(at)
    assert at.slider(key="make_guidance_2.0").value == 2.0


def test_where_all_settings_copy_the_one_that_copies_least_is_starred() -> None:
    """As the recipe has it, and not the nearest of them."""
    rows = [dict(kid=1.0, copied=0.9, copying=True), dict(kid=5.0, copied=0.4, copying=True), dict(kid=4.0, copied=0.4, copying=True)]
    assert synthesis_search.best_of(rows) is rows[2]
    assert synthesis_search.best_of([*rows, few := dict(kid=9.0, copied=0.12, copying=False)]) is few
    assert synthesis_search.best_of([dict(kid=1.0, copied=0.9), old := dict(kid=2.0, copied=0.01)]) is old, "of an older search"


def test_a_label_that_the_detector_missed_is_marked_and_can_be_asked_for(made: str) -> None:
    measured = measurement(made, [figures("pits", 12.0, 8.0, 16.0, 4.0)], detector="Steel 1")
    rundir.write_json(rundir.run_path(measured) / "quality" / "head.json", dict(labels={
        "000000.png": [True], "000001.png": [True, False], "000003.png": [False]}))
    at = page("synthesis", set=made, show="missed")
    assert "1 of 2" in said(at) and param(at, "picture") == "000001.png" and "Label missed" in said(at)
    at.segmented_control(key="made_show").set_value("all").run()
    assert "of 5" in said(at)
    assert synthesis_quality.missed(made) == {"000000.png": 0, "000001.png": 1, "000003.png": 1}


def test_the_map_has_a_cell_for_each_setting(data_folder: Any) -> None:
    result = jobs.status(searched()).result
    figure = synthesis_figures.map_of(result["rows"], result["best"])
    cells = figure.data[0]
    assert list(cells.x) == ["strength 0.3", "strength 0.5"] and len(cells.y) == 4
    assert list(cells.z[0]) == [4.0, 6.0] and cells.y[0] == "guidance 1, 10 steps"
    frame = figure.layout.shapes[0]
    assert (frame.x0, frame.y0) == (0.51, -0.49), "round strength 0.5, guidance 1, 10 steps"


def test_without_an_adapted_prior_there_is_nothing_to_search(data_folder: Any) -> None:
    dataset()
    prior()
    assert not any(b.label == "Search" for b in page("synthesis", preset="like").button)


# --- watching a prior learn -----------------------------------------------------------------------------------------------------

def test_a_prior_is_watched_while_it_learns(data_folder: Any) -> None:
    dataset()
    made = run("train-prior", jobs.TrainPrior(name="surface prior").to_json(), "running")
    folder = rundir.run_path(made)
    Image.new("RGB", (30, 10)).save(folder / "samples.png")
    (folder / "metrics.jsonl").write_text("".join(json.dumps(dict(step=k, loss=1 / k)) + "\n" for k in (1, 2)))
    at = page("synthesis", learn=made)
    assert "What it draws" in said(at) and "Train the surface prior" not in [b.label for b in at.button], "one is on its way"
    at = page("synthesis")
    assert "is being trained" in said(at)
    button(at, "Watch it").click().run()
    assert param(at, "learn") == made and "What it draws" in said(at)
    left(made, "prior", name="surface prior", native=True, drawn=2000, datasets=[dict(name="Other")])
    rundir.write_json(folder / "result.json", dict(learned_from="40 train images of Other and 2,000 drawn surfaces."))
    rundir.set_state(folder, "completed", started_at=rundir.now(), finished_at=rundir.now())
    at = page("synthesis", learn=made)
    assert "It can draw surfaces now, learned from 40 train images of Other" in said(at)


def test_what_adapting_came_to_is_told(data_folder: Any) -> None:
    dataset()
    at = page("synthesis", learn=adapter())
    assert "It can draw pits, scratch now, learned from 30 pictures; 8 are kept apart" in said(at)
    assert "trained without this dataset" in said(at) and "its error fell by 25 %" in said(at)


def test_what_a_prior_learned_from_is_told() -> None:
    assert synthesis_priors.from_what(dict(drawn=2000, datasets=[])) == "learned from 2,000 drawn surfaces"
    assert synthesis_priors.from_what(dict(drawn=10, datasets=[dict(name="A"), dict(name="B")])).endswith("training pictures of A, B")


# --- earlier sets ---------------------------------------------------------------------------------------------------------------

def test_earlier_sets_are_listed_with_what_was_said(made: str) -> None:
    jobs.judge(made, {"000000.png": "accept"})
    at = page("synthesis")
    assert "5 pictures, 1 accepted · real defects set in elsewhere" in said(at)
    button(at, "Steel pasted").click().run()
    assert param(at, "set") == made and "1 of 4" in said(at)


def test_how_it_was_made_is_told(made: str) -> None:
    at = page("synthesis", set=made, view="About")
    assert "Of 7 attempts 2 were set aside by the program: 2 no room in any scene" in said(at)
    assert json.dumps("paste")[1:-1] in at.dataframe[0].value["Value"].tolist()
