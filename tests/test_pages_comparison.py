"""The comparison page, driven as a person would: a verdict and what stands behind it, picture by picture, planning, picking, taking away.

Runs are drawn, not trained (`small_comparison`); records, parts and verdicts are made by the real code.
"""

import base64
import dataclasses
import io
import json
import re
import shutil
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from backend import jobs, rundir
from backend.data import snapshot
from backend.jobs import waves
from pages.components import (
    comparison_curves,
    comparison_export,
    comparison_live,
    comparison_pair,
    comparison_pick,
    comparison_subject,
    words,
)
from pages.components import comparison_figures as figures
from tests import small_comparison as small
from tests.test_pages_engineering import button, ingest, page, said
from tests.test_pages_synthesis import links, param, submitted

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(autouse=True)
def _nothing_remembered() -> None:
    st.cache_data.clear()


# --- parts ----------------------------------------------------------------------------------------------------------------------

def test_a_difference_is_told_in_points_and_without_a_sign_where_it_rounds_to_nothing() -> None:
    assert [figures.points(v) for v in (0.041, -0.0123, 0.0004, -0.0004, 0.0)] == ["+4.1", "−1.2", "0.0", "0.0", "0.0"]


def test_a_long_name_leaves_room_for_the_chart() -> None:
    lines = figures.tick("real + synthetic, distilled from a fused teacher, 25 % of labels").split("<br>")
    assert len(lines) <= 3 and max(map(len, lines)) <= 30
    assert "<" not in figures.tick(HOSTILE).replace("<br>", "")


def test_the_mean_of_seeds_reaches_as_far_as_all_of_them() -> None:
    long, short = (pd.DataFrame(dict(x=range(1, n + 1), value=[v] * n)) for n, v in ((4, 1.0), (3, 2.0)))
    assert comparison_curves.mean([long.astype(float), short.astype(float)]) == ([1.0, 2.0, 3.0], [1.5, 1.5, 1.5])


def test_a_curve_is_thinned_to_what_a_screen_shows_and_smoothed_from_its_first_value() -> None:
    line = pd.DataFrame(dict(x=range(1000), value=[float(n % 2) for n in range(1000)]))
    thin = comparison_curves.smoothed(line, 0.0)
    assert len(thin) == comparison_curves.MOST and thin["x"].iloc[[0, -1]].tolist() == [0, 999]
    smooth = comparison_curves.smoothed(line.head(100), 0.9)
    assert smooth["value"].iloc[0] == 0.0 and smooth["value"].iloc[-1] == pytest.approx(0.5, abs=0.06)


def test_of_a_guided_run_the_curves_are_its_detectors() -> None:
    rows = pd.DataFrame([dict(step=100 + n, name=f"student_{name}", value=value, at_s=float(n)) for n in (1, 2)
                         for name, value in (("step", float(n)), ("map50", n / 10), ("box_loss", 3.0 - n), ("val_box_loss", 9.0))]
                        + [dict(step=5, name="diffusion_loss", value=1.0, at_s=0.5)])
    there = rows["name"].unique()
    assert comparison_curves._names("map50", there) == ["student_map50", "student_step"]
    assert comparison_curves._names("training", ["box_loss", "val_box_loss"]) == ["box_loss", "student_step"]
    found = comparison_curves._of_run(rows[rows["name"].isin(comparison_curves._names("map50", there))], "map50")
    assert found[["step", "value"]].to_numpy().tolist() == [[1, 0.1], [2, 0.2]]
    lost = comparison_curves._of_run(rows[rows["name"].isin(comparison_curves._names("training", there))], "training")
    assert lost["value"].tolist() == [2.0, 1.0]


def test_runs_that_differ_in_the_seed_alone_are_one_arm() -> None:
    def row(run_id: str, seed: int, synthetic: int, name: str = "", **settings: object) -> dict[str, object]:
        return dict(run_id=run_id, name=name or f"plates · {synthetic} · seed {seed}", recipe="train-detector", origin="both",
                    labels=None, real_images=6, synthetic_images=synthetic, shown=None, epochs=2, snapshot_id="s", seed=seed,
                    promoted=False, settings=dict(seed=seed, batch=16, **settings))
    rows = pd.DataFrame([row("b1", 1, 4), row("a0", 0, 0), row("b0", 0, 4), row("a1", 1, 0), row("c", 0, 4, "other", size="s")])
    assert comparison_subject.grouped(rows) == {"plates · 0": ["a0", "a1"], "plates · 4": ["b0", "b1"], "other": ["c"]}


def test_boxes_lie_over_the_picture_as_shares_of_it_and_carry_words() -> None:
    truth = pd.DataFrame(dict(class_name=["pits", HOSTILE], x1=[10.0, 50.0], y1=[20.0, 60.0], x2=[30.0, 90.0], y2=[40.0, 90.0]))
    found = pd.DataFrame(dict(class_name=["pits", "pits"], confidence=[0.912, 0.3], x1=[10.0, 0.0], y1=[20.0, 0.0], x2=[30.0, 5.0],
                              y2=[40.0, 5.0], hit=[True, False], hit_box=[0, -1]))
    drawn = comparison_pair.marks(comparison_pair.Side("", found, truth, {0}), (100, 200))
    assert re.findall(r'class="(\w+)', drawn) == ["marks", "true", "missed", "hit", "false"]
    assert "left:10.000%;top:10.000%;width:20.000%;height:10.000%" in drawn and "✓ pits 0.91" in drawn and "✗ pits 0.30" in drawn
    assert "<script" not in drawn and "missed: &lt;script" in drawn
    assert comparison_pair.said(comparison_pair.Side("", found, truth, {0})) == "1 of 2 found, 1 false"


def test_many_boxes_hide_their_words_not_themselves() -> None:
    many = pd.DataFrame([dict(class_name="pits", confidence=0.5, x1=n, y1=0.0, x2=n + 5.0, y2=5.0, hit=False, hit_box=-1)
                         for n in range(20)])
    drawn = comparison_pair.marks(comparison_pair.Side("", many, many.head(0), set()), (100, 100))
    assert drawn.count("<i ") == 20 and "<b>" not in drawn


def test_the_grid_tells_each_state_in_words_and_a_mean_of_what_is_in() -> None:
    def member(seed: int, state: str, map50: float | None = None, run_id: str = "") -> dict[str, object]:
        return dict(seed=seed, run_id=run_id, state=state, step=3, total=10, map50=map50)
    arms = {HOSTILE: [member(0, "completed", 0.5, "r0"), member(1, "completed", 0.6, "r1"), member(2, "running", None, "r2"),
                      member(3, "waiting")]}
    drawn = comparison_live.grid(dict(arms=arms, seeds=[0, 1, 2, 3]))
    assert "<script" not in drawn and drawn.count("✓ Done") == 2 and "▶ Running" in drawn and "30%" in drawn and "Not yet" in drawn
    assert "<b>0.550</b>2 of 4" in drawn and "/runs?run=r2" in drawn


# --- the page, empty and asked for what is not there ----------------------------------------------------------------------------

@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[str]], str]:
    """A data folder with two arms of two trainings and their comparison: made once, copied for each test."""
    root = tmp_path_factory.mktemp("comparison") / "data"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFSPECT_DATA", str(root))
        return root, *small.experiment()


@pytest.fixture
def compared(template: tuple[Path, dict[str, list[str]], str], data_folder: Path) -> tuple[dict[str, list[str]], str]:
    """Arm -> its runs, and their comparison, in the database."""
    shutil.copytree(template[0], data_folder, dirs_exist_ok=True)
    ingest()
    return template[1:]


def view(at: AppTest, name: str) -> AppTest:
    at.segmented_control(key="view").set_value(name).run()
    assert not at.exception, at.exception
    return at


def figure(at: AppTest, key: str) -> Any:
    """A chart by the beginning of its widget key."""
    return json.loads(next(c.proto.spec for c in at.get("plotly_chart") if key in c.proto.id))


def numbers(packed: dict[str, str]) -> list[float]:
    """Plotly sends arrays as bytes."""
    return np.frombuffer(base64.b64decode(packed["bdata"]), packed["dtype"]).tolist()


def test_with_nothing_trained_it_says_where_to_begin(data_folder: Path) -> None:
    at = page("comparison")
    assert "no dataset to plan an experiment on" in said(at) and "Import a dataset" in links(at)
    at.segmented_control(key="new_way").set_value("runs").run()
    assert "No training has finished yet" in said(at) and "Train a detector" in links(at)


@pytest.mark.parametrize("asked", [dict(run="../../etc/passwd"), dict(experiment="20200101-000000-000000-experiment-abcdef"),
                                   dict(runs="20200101-000000-000000-train-detector-abcdef,x"), dict(runs=",")])
def test_a_link_to_what_is_gone_says_so(data_folder: Path, asked: dict[str, str]) -> None:
    at = page("comparison", **asked)
    assert len(at.error) == 1 and "New comparison" in [e.label for e in at.expander]


def test_another_kind_of_run_is_not_taken_for_a_comparison(compared: tuple[dict[str, list[str]], str]) -> None:
    assert "compared nothing" in page("comparison", run=compared[0]["real"][0]).error[0].value


# --- verdict --------------------------------------------------------------------------------------------------------------------

def test_the_verdict_comes_first_with_what_speaks_against_it(compared: tuple[dict[str, list[str]], str]) -> None:
    at = page("comparison", run=compared[1])
    row = jobs.comparison(compared[1])["differences"][0]
    head = next(m.value for m in at.markdown if m.value.startswith("## "))
    assert words.plain(row["sentence"].partition(" Provisional")[0], 600) in head and "Provisional: 2 seeds" in badges(at)
    assert figures.MEANS[row["verdict"]][0] in badges(at)
    whisker = figure(at, "whisker")
    assert whisker["data"][0]["x"] == [pytest.approx(100 * row["difference"])]
    assert [s["x0"] for s in whisker["layout"]["shapes"]] == [-1.0, 0]                     # the margin, and zero
    dots = [d for d in figure(at, "seeds")["data"] if d["mode"] == "markers"]
    assert [len(d["x"]) for d in dots] == [2, 2]
    text = said(at)
    assert "looked at 4 times" in text and "24 locked test pictures of Plates, 6 of them good" in text and "McNemar" in text
    told = figure(at, "kinds")["data"][-1]["text"]
    assert sum("helps" in t for t in told) == len(row["helps"]) and sum("hurts" in t for t in told) == len(row["hurts"])
    best = jobs.comparison(compared[1])["best_on_val"]
    assert any(link.startswith("Best on validation: ") and best in link for link in links(at)), links(at)


def test_without_good_parts_it_says_what_cannot_be_measured(data_folder: Path) -> None:
    _, run_id = small.experiment(test=12, good=0, seeds=1)
    ingest()
    at = page("comparison", run=run_id)
    assert "No good parts in this test set: false rejects cannot be measured" in said(at).replace("\\", "")
    assert "McNemar" not in said(at) and "none of them good" in said(at)
    assert "no threshold can be chosen by cost" in said(view(at, "Operating point")).replace("\\", "")


def test_identical_runs_are_told_as_no_difference(data_folder: Path) -> None:
    data = small.dataset(12, 3)
    arms = {arm: [small.trained(data, "real", 0)] for arm in ("plain", "again")}
    run_id = small.compared(arms, "plain", "The same")
    ingest()
    assert "No difference" in badges(page("comparison", run=run_id))


def test_a_curve_of_doses_is_drawn_with_its_intervals(data_folder: Path) -> None:
    data = small.dataset(12, 3)
    asked = {"25": dict(labels=2), "50": dict(labels=4), "real": {}, "half": dict(origin="both", synthetic=2), "all": dict(origin="both")}
    arms = {arm: [small.trained(data, arm, 0, **dict(dict(origin="real", shown=6), **more))] for arm, more in asked.items()}
    made = [small.compared({arm: arms[arm] for arm in names}, "real") for names in (("real", "half", "all"), ("real", "25", "50"))]
    ingest()
    for run_id, by, doses in zip(made, ("synthetic", "labels"), ([0, 2, 4], [2, 4, 6]), strict=True):
        at, told = page("comparison", run=run_id), jobs.comparison(run_id)["dose"]["points"]
        line = next(d for d in figure(at, f"dose_{by}")["data"] if d["mode"] == "lines+markers")
        assert line["x"] == doses and line["y"] == pytest.approx([p["mean"] for p in told])
        assert line["error_y"]["array"] == pytest.approx([p["high"] - p["mean"] for p in told])
    at.selectbox(key="difference").select_index(1).run()
    assert not at.exception and "**Kind by kind:** 50 against real" in said(at)


def test_what_synthetic_pictures_are_worth_is_told_with_its_interval_or_not_at_all() -> None:
    def script(worth: object) -> None:
        from pages.components import comparison_dose

        points = [dict(dose=d, arm=f"{d}", mean=0.5, low=0.4, high=0.6, seeds=5) for d in (2, 4, 6)]
        comparison_dose.show(dict(metric="map50", dose=dict(by="synthetic", points=points, labels=points, equivalent=worth)))

    at = AppTest.from_function(script, default_timeout=60,
                               kwargs=dict(worth=dict(sentence="200 synthetic ≈ 60 real labels [20, 140]."))).run()
    assert "200 synthetic ≈ 60 real labels [20, 140]." in said(at).replace("\\", "") and len(at.get("plotly_chart")) == 2
    assert "cannot be told" in said(AppTest.from_function(script, default_timeout=60, kwargs=dict(worth=None)).run())


def test_more_seeds_are_planned_with_what_is_trained_already(data_folder: Path) -> None:
    data, path = experiment()
    found = finished(path, data)
    told = rundir.read_json(comparison_file(found))                              # as it would be told, had chance been less kind
    told["differences"][0] |= dict(verdict="not enough evidence", more_seeds=3, low=-0.01)
    rundir.write_json(comparison_file(found), told)
    at = page("comparison", experiment=path.name)
    assert "whoever looks after each addition, and stops once a difference shows, takes luck for a difference more often" in said(at)
    button(at, "Plan 3 more seeds").click().run()
    assert not at.exception and "with 5 seeds" in said(at)
    at.button(key="seeds_go").click().run()
    config = submitted("experiment")
    assert config["seeds"] == 5 and {k: v for k, v in config.items() if k != "seeds"} == {
        k: v for k, v in jobs.experiment(path.name)["config"].items() if k != "seeds"}


def comparison_file(run_id: str) -> Path:
    return rundir.run_path(run_id) / "comparison" / "comparison.json"


def badges(at: AppTest) -> str:
    return " ".join(str(m.value) for m in at.markdown if "badge[" in str(m.value))


def test_a_verdict_outlives_its_runs(template: tuple[Path, dict[str, list[str]], str], data_folder: Path) -> None:
    shutil.copytree(template[0], data_folder, dirs_exist_ok=True)
    for run in (lost := template[1]["both"]):
        shutil.rmtree(rundir.run_path(run))
    ingest()
    at = page("comparison", run=template[2])
    assert "Not on this machine any more: 2 runs" in at.warning[0].value and "Provisional: 2 seeds" in badges(at)
    for name in ("Curves", "Images", "Operating point", "Configuration"):
        assert not page("comparison", run=template[2], view=name).exception
    subject = comparison_subject.of_comparison(template[2])
    assert all(run in comparison_export.html(subject).decode() for run in lost)


# --- runs without a verdict -----------------------------------------------------------------------------------------------------

def test_finished_runs_are_put_into_arms_and_the_verdict_is_asked_for(compared: tuple[dict[str, list[str]], str]) -> None:
    runs = [r for listed in compared[0].values() for r in listed]
    at = page("comparison", runs=",".join(runs))
    assert "No verdict yet" in said(at) and "Plates · real, Plates · both" in said(at)
    button(at, "Work out the verdict").click().run()
    config = submitted("compare")
    assert {name: sorted(ids) for name, ids in config["arms"].items()} == {"Plates · real": sorted(compared[0]["real"]),
                                                                          "Plates · both": sorted(compared[0]["both"])}
    assert config["baseline"] == "Plates · real" and param(at, "run") == jobs.recent(limit=1, recipes=("compare",))[0].run_id
    for name in ("Curves", "Images", "Operating point", "Configuration"):
        assert not page("comparison", runs=",".join(runs), view=name).error


def test_runs_of_two_tests_are_refused_with_the_reason(compared: tuple[dict[str, list[str]], str]) -> None:
    other = small.trained(small.dataset(8, 2, "Others", seed=7), "real", 0)
    ingest()
    at = page("comparison", runs=f"{compared[0]['real'][0]},{other}")
    assert "2 different test sets" in at.error[0].value
    seeds = page("comparison", runs=",".join(compared[0]["real"]))
    assert "differ in their seed alone" in seeds.error[0].value


def test_the_models_page_leads_to_the_comparison_with_the_model_in_use(compared: tuple[dict[str, list[str]], str]) -> None:
    known = jobs.results.scored_runs().set_index("run_id")
    used, other = compared[0]["real"][0], compared[0]["both"][0]
    jobs.record("promote", dict(model_id=known.loc[used, "model_id"], name="x"))
    at = page("models", model=known.loc[other, "model_id"])
    assert links(at)["Compare them picture by picture"] == f"runs={other}%2C{used}"


# --- picture by picture ---------------------------------------------------------------------------------------------------------

def test_pictures_are_told_apart_by_who_found_what(compared: tuple[dict[str, list[str]], str]) -> None:
    at = page("comparison", run=compared[1], view="Images")
    (a, b), chips = (compared[0][arm][0] for arm in ("both", "real")), at.get("button_group")
    _, counts = jobs.results.contest(a, b)
    labels = [o.content for o in chips[-1].proto.options]
    assert labels[0] == f"A found, B missed {counts['a_only']}" and labels[-1] == f"All {counts['all']}" and counts["a_only"] > 1
    assert (param(at, "a"), param(at, "b"), param(at, "show")) == (a, b, "a_only")
    assert f"1 of {counts['a_only']}" in said(at)
    at.button(key="contest_Right").click().run()
    assert f"2 of {counts['a_only']}" in said(at)
    rows, _ = jobs.results.contest(a, b, kind="a_only")
    assert param(at, "picture") == rows["image_id"][1]
    assert sum("class=\"missed" in m.proto.body for m in at.get("html")) >= 1                  # what B missed is drawn


def test_a_threshold_acts_on_stored_scores_and_goes_back_to_the_models_own(compared: tuple[dict[str, list[str]], str]) -> None:
    a, b = (compared[0][arm][0] for arm in ("both", "real"))
    at = page("comparison", run=compared[1], view="Images", show="all")
    assert "Its own thresholds: pits 0.30, scratches 0.40." in said(at)
    at.slider(key=f"at_a_{a}").set_value(0.95).run()
    assert not at.exception and param(at, "at_a") == "0.95"
    _, counts = jobs.results.contest(a, b, 0.95, None)
    assert f"A found, B missed {counts['a_only']}" in [o.content for o in at.get("button_group")[-1].proto.options]
    at.button(key="own_a").click().run()
    assert "at_a" not in at.query_params and at.slider(key=f"at_a_{a}").value == 0.35
    linked = page("comparison", run=compared[1], view="Images", at_b="0.80", show="b_only")
    assert linked.slider(key=f"at_b_{b}").value == 0.8


def test_a_kind_without_a_picture_says_so(compared: tuple[dict[str, list[str]], str]) -> None:
    a, b = (compared[0][arm][0] for arm in ("both", "real"))
    kind = next(k for k, n in jobs.results.contest(a, b, 0.95, 0.95)[1].items() if not n)
    at = page("comparison", run=compared[1], view="Images", show=kind, at_a="0.95", at_b="0.95")
    assert "No picture is of this kind at these thresholds" in said(at)


# --- curves, operating point, configuration -------------------------------------------------------------------------------------

def test_curves_lie_over_each_other_with_the_model_in_use(compared: tuple[dict[str, list[str]], str]) -> None:
    known = jobs.results.scored_runs().set_index("run_id")
    jobs.record("promote", dict(model_id=known.loc[compared[0]["real"][0], "model_id"], name="x"))
    at = page("comparison", run=compared[1], view="Curves")
    drawn = figure(at, "overlay_map50")
    thick = [d for d in drawn["data"] if d["line"]["width"] > 3]
    assert [d["name"] for d in thick] == ["real", "both"] and len(drawn["data"]) == 6
    assert drawn["layout"]["shapes"][0]["y0"] == pytest.approx(known.loc[compared[0]["real"][0], "val_map50"])
    table = at.dataframe[0].value
    assert table["Against the baseline"][0] == "baseline" and table["Against the model in use"][1].startswith("+")
    at.segmented_control(key="along").set_value("time").run()
    assert max(numbers(figure(at, "overlay_map50_time")["data"][0]["x"])) == pytest.approx(0.2)         # 12 seconds
    at.segmented_control(key="curve").set_value("training").run()
    assert not at.exception and "in use" not in said(at)


def test_prices_move_the_threshold_and_one_in_use_becomes_a_rule(compared: tuple[dict[str, list[str]], str]) -> None:
    known = jobs.results.scored_runs().set_index("run_id")
    used = compared[0]["both"][0]
    at = page("comparison", run=compared[1], view="Operating point")
    usual = jobs.expected_cost(compared[0]["both"], 10, 1, 0.02)["point"]
    assert f"{usual['cost']:.3g} [" in at.dataframe[0].value["Cost of 1,000 parts"][1] and "Models" in links(at)
    at.number_input(key="cost_reject").set_value(0.0).run()
    free = jobs.expected_cost(compared[0]["both"], 10, 0, 0.02)["point"]
    assert free["thresholds"] < usual["thresholds"] and param(at, "cost_reject") == "0"
    assert at.dataframe[0].value["Without inspection"][1] == "200"
    jobs.record("promote", dict(model_id=known.loc[used, "model_id"], name="x"))
    at = page("comparison", run=compared[1], view="Operating point", cost_reject="0")
    threshold = round(free["thresholds"][0], 2)
    button(at, f"Reject from {threshold:.2f}").click().run()
    at.button(key="cost_yes").click().run()
    assert not at.exception and in_force() == {threshold}
    button(at, "Undo").click().run()
    assert in_force() == {0.3, 0.4}


def in_force() -> set[float]:
    return {round(float(t), 2) for t in jobs.results.rules("real")["threshold"]}


def test_only_what_differs_is_told_of_the_settings(compared: tuple[dict[str, list[str]], str]) -> None:
    at = page("comparison", run=compared[1], view="Configuration")
    rows = at.dataframe[0].value.set_index("Setting")
    assert rows.loc["Synthetic pictures"].tolist() == ["0", "4"] and "Seed" not in rows.index and "Passes" not in rows.index
    at.toggle(key="only_differences").set_value(False).run()
    assert at.dataframe[0].value.set_index("Setting").loc["Seed"].tolist() == ["0, 1", "0, 1"]


# --- an experiment --------------------------------------------------------------------------------------------------------------

def test_an_experiment_is_planned_from_cards_and_what_each_arm_sees_is_told_first(data_folder: Path) -> None:
    data = small.dataset(12, 3)
    ingest()
    at = page("comparison", new="plan")
    assert [b.label for b in at.button if b.label.endswith(", taken")] == ["Real only, taken", "Real + synthetic, taken"]
    table = at.dataframe[0].value
    assert table["Real pictures"].tolist() == [6, 6] and table["Synthetic pictures"].tolist() == [0, 4]
    assert len(set(table["Optimiser steps"])) == len(set(table["Pictures seen"])) == 1
    assert "10 runs: 2 arms of 5 seeds" in said(at) and "on this machine" in said(at)
    button(at, "Synthetic only").click().run()
    at.number_input(key="plan_seeds").set_value(3).run()
    assert "the verdict will be provisional" in said(at)
    button(at, "Start 9 runs").click().run()
    config = submitted("experiment")
    assert [config[k] for k in ("dataset", "arms", "seeds", "sets")] == [data.snapshot_id, "real, both, synthetic", 3, ""]
    assert param(at, "experiment") == jobs.recent(limit=1, recipes=("experiment",))[0].run_id


def test_what_cannot_be_planned_says_why_and_offers_no_start(data_folder: Path) -> None:
    small.dataset(12, 3)
    ingest()
    at = page("comparison", new="plan")
    button(at, "Real + synthetic, taken").click().run()
    assert "at least two arms" in at.warning[0].value and not any(b.label.startswith("Start") for b in at.button)


def test_seeds_arrive_in_a_grid_without_a_verdict_until_all_are_in(data_folder: Path) -> None:
    data, path = experiment()
    ingest()
    members = jobs.experiment(path.name)["arms"]
    small.finish(rundir.run_path(members["real"][0]["run_id"]), data)
    broken = rundir.run_path(members["both"][0]["run_id"])
    rundir.set_state(broken, "failed", message="The <b>disk</b> is full.", finished_at=rundir.now())
    at = page("comparison", experiment=path.name)
    grid = next(h.proto.body for h in at.get("html") if "<table>" in h.proto.body)
    assert grid.count("✓ Done") == 1 and grid.count("✗ Failed") == 1 and grid.count("◷ Waiting") == 2
    assert "No verdict yet" in at.info[0].value and "seed 0** · The \\<b\\>disk" in said(at)
    assert not [m for m in at.markdown if m.value.startswith("## ")]
    rundir.set_state(broken, "pending", message="", finished_at=None)
    finished(path, data)
    at = page("comparison", experiment=path.name)
    assert [m for m in at.markdown if m.value.startswith("## ")] and not at.info
    assert "Every run of the experiment" in [e.label for e in at.expander]
    assert links(page("runs", run=path.name))["See the experiment"] == f"experiment={path.name}"


def experiment(seeds: int = 2) -> tuple[snapshot.Snapshot, Path]:
    """Planned and queued, its trainings waiting."""
    data = small.dataset(12, 3)
    config = jobs.Experiment(dataset=data.snapshot_id, name="Does it help?", arms="real, both", seeds=seeds, epochs=4, imgsz=64)
    path = rundir.create("experiment", config.to_json())
    waves.advance(path)
    return data, path


def finished(path: Path, data: snapshot.Snapshot) -> str:
    """All of its runs have ended, and so has their comparison. Id of that."""
    for member in [m for listed in jobs.experiment(path.name)["arms"].values() for m in listed]:
        if member["state"] != "completed":
            small.finish(rundir.run_path(member["run_id"]), data)
    waves.advance(path)
    run_id = jobs.experiment(path.name)["comparison"]
    small.work_out(rundir.run_path(run_id))
    waves.advance(path)
    ingest()
    return str(run_id)


# --- picked -----------------------------------------------------------------------------------------------------------------------

def test_runs_of_other_tests_are_listed_last_with_the_reason(compared: tuple[dict[str, list[str]], str]) -> None:
    small.trained(small.dataset(8, 2, "Others", seed=7), "real", 0)
    ingest()
    runs = jobs.results.scored_runs()
    test = runs.set_index("run_id").loc[compared[0]["real"][0], "test_set_id"]
    rows = comparison_pick.listed(runs, test, "")
    assert rows["why"].tolist() == ["", "", "", "", "Scored on other test pictures: Others"]
    lost = comparison_pick.listed(runs.assign(test_set_id=[""] + runs["test_set_id"].tolist()[1:]), test, "")
    assert lost["why"].tolist()[-1] == "Its test pictures are not known any more"
    assert comparison_pick.listed(runs, test, "both · seed 1")["run_id"].tolist() == [compared[0]["both"][1]]
    at = page("comparison")
    assert at.segmented_control(key="new_way").value == "runs" and at.dataframe[0].value["Not with these"].iloc[-1] == rows["why"].iloc[-1]
    assert "of at least two kinds" in said(at)


def test_chosen_runs_are_put_into_arms_by_themselves_and_compared(compared: tuple[dict[str, list[str]], str]) -> None:
    def script() -> None:
        from backend import jobs
        from pages.components import comparison_pick

        comparison_pick._arms(jobs.results.scored_runs().set_index("run_id", drop=False))

    at = AppTest.from_function(script, default_timeout=60).run()
    assert at.dataframe[0].value["Arm"].tolist() == ["Plates · both"] * 2 + ["Plates · real"] * 2
    assert at.selectbox[0].value == "Plates · real" and "The smallest arm has 2 runs" in said(at)
    button(at, "Compare").click().run()
    assert submitted("compare")["baseline"] == "Plates · real" and submitted("compare")["name"] == "Plates · both against Plates · real"


# --- taken away -------------------------------------------------------------------------------------------------------------------

def test_the_page_to_take_away_needs_nothing_from_outside_and_says_it_all(compared: tuple[dict[str, list[str]], str]) -> None:
    subject = comparison_subject.of_comparison(compared[1])
    named = dataclasses.replace(subject, name=HOSTILE)
    written = comparison_export.html(named).decode()
    body = written[written.index("<main>"):]
    assert HOSTILE not in written and "&lt;script&gt;" in body
    assert not re.findall(r"""(?:src|href)=["']?(?!data:)[a-z]+:""", body) and "default-src 'none'" in written
    assert escape(subject.result["differences"][0]["sentence"]) in body and "Plotly.newPlot" in body and "@media print" in written
    for run in (r for listed in compared[0].values() for r in listed):
        assert run in body
    assert body.count('class="plotly-graph-div"') == 4 and "McNemar" in body and "looked at 4 times" in body


def test_the_table_to_take_away_holds_every_figure_and_no_formula(compared: tuple[dict[str, list[str]], str]) -> None:
    subject = comparison_subject.of_comparison(compared[1])
    row = subject.result["differences"][0]
    row["a"] = "=cmd|' /C calc'!A0"
    rows = pd.read_csv(io.BytesIO(comparison_export.csv(subject)))
    assert rows["what"].value_counts().to_dict() == {"run": 8, "difference of a kind": 2, "difference": 1}
    assert rows.loc[rows["what"] == "difference", ["value", "low", "high"]].to_numpy()[0] == pytest.approx(
        [row["difference"], row["low"], row["high"]])
    assert set(rows.loc[rows["what"] != "run", "arm"]) == {"'" + row["a"]}


def test_runs_without_a_verdict_can_be_taken_away_too(compared: tuple[dict[str, list[str]], str]) -> None:
    subject = comparison_subject.of_runs([r for listed in compared[0].values() for r in listed])
    assert "No verdict has been worked out" in comparison_export.html(subject).decode()
    assert len(pd.read_csv(io.BytesIO(comparison_export.csv(subject)))) == 8


def test_where_only_anomaly_models_were_trained_the_form_is_there(data_folder: Path) -> None:
    """Nothing of theirs will ever be compared, so nothing is waited for."""
    st.cache_data.clear()
    for recipe in ("train-anomaly", "train-classifier"):
        rundir.create(recipe, dict(name=recipe), state="completed")
    ingest()
    at = page("comparison")
    assert "Reading results into the database" not in said(at) and any(e.label == "New comparison" for e in at.expander)
