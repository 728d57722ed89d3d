"""The demo plant's experiment: made by the recipes that anybody uses, laid out with the plant and gone with it."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from backend import jobs, rundir
from backend.config import Compare, DemoExperiment, demo_assets
from backend.data import demo_plant, snapshot
from backend.evaluation import compare
from backend.jobs import demo_experiment, house, runs
from tests.test_demo_plates import drawn

KEPT = demo_assets() / "experiment"


def silent(**progress: Any) -> None:
    """A report that nobody reads."""


@pytest.fixture
def laid_out(data_folder: Path) -> str:
    """The demo plant's experiment in an empty data folder; its run id."""
    demo_plant.lay_out_experiment()
    return str(next(rundir.find("experiment")).name)


def test_it_is_small_and_holds_no_model() -> None:
    files = [p for p in KEPT.rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in files) < 1_500_000
    assert {p.parent.name for p in files} <= {"parts", "scored", "comparison", *(p.name for p in KEPT.iterdir())}
    assert not [p for p in files if p.name.startswith(("models-", "model_thresholds-", "snapshots-", "log"))]


def test_it_is_finished_with_a_verdict(laid_out: str) -> None:
    told = jobs.experiment(laid_out)
    assert (told["state"], told["done"]) == ("completed", told["total"]) and list(told["arms"]) == ["real", "both"]
    found = jobs.comparison(told["comparison"])
    assert found["differences"][0]["sentence"] == told["sentence"] and found["warnings"] == []
    assert len({(r["steps"], r["images_seen"]) for arm in found["arms"].values() for r in arm["runs"]}) == 1
    assert found["good_images"] > 0 and found["looks"] == sum(len(arm["runs"]) for arm in found["arms"].values())
    assert {runs.job(p)["plant"] for p in rundir.find()} - {"real"} == {"demo"}


def test_its_verdict_follows_from_its_records(laid_out: str) -> None:
    """Worked out anew from what the trainings found, the comparison says the same."""
    committed = jobs.comparison(jobs.experiment(laid_out)["comparison"])
    config = Compare.from_json(runs.job(rundir.run_path(jobs.experiment(laid_out)["comparison"]))["config"])
    run = rundir.create("compare", config.to_json())
    compare.run(config, run, silent)
    again = jobs.comparison(run.name)
    assert again["differences"] == committed["differences"]
    assert {k: again[k] for k in ("images", "groups", "looks", "best_on_val", "arms")} == {
        k: committed[k] for k in ("images", "groups", "looks", "best_on_val", "arms")}


def test_its_test_images_are_drawn_when_asked_for(laid_out: str) -> None:
    house.opened().ingest()
    member = jobs.experiment(laid_out)["arms"]["both"][0]["run_id"]
    shown = jobs.results.test_images(member)
    assert len(shown) == jobs.comparison(jobs.experiment(laid_out)["comparison"])["images"]
    assert len(jobs.results.picture(image_id=shown["image_id"][0])) > 1000
    assert len(jobs.results.scored_runs()) == jobs.experiment(laid_out)["total"] - 2, "members, without combination and comparison"
    assert jobs.results.models().empty or set(jobs.results.models()["run_id"]) == {""}, "none of them can be promoted"
    assert jobs.results.datasets().empty


def test_it_goes_with_the_demo_plant_and_comes_again(laid_out: str) -> None:
    own = rundir.create("trial", {}, state="completed")
    house.opened().remove("demo")
    assert [p.name for p in rundir.find()] == [own.name, *(p.name for p in rundir.find("calendar"))]
    demo_plant.lay_out_experiment()
    demo_plant.lay_out_experiment()
    assert jobs.experiment(laid_out)["state"] == "completed"


def test_what_it_learned_from_is_drawn_alike_everywhere(data_folder: Path, laid_out: str) -> None:
    """The plates of its dataset are those that `draw-plates` draws today, to the last box."""
    config = DemoExperiment()
    run = drawn(name="today", train=config.images, val=config.val, test=config.test, good=demo_experiment.GOOD,
                classes=config.classes)
    combined = next(p for p in rundir.find("combine"))
    ours = {p.image_id: p.boxes for p in snapshot.read(combined).pictures if p.origin == "real"}
    assert ours == {p.image_id: p.boxes for p in snapshot.read(run).pictures}


@pytest.mark.slow
def test_it_is_made_anew_by_one_command(data_folder: Path, tmp_path: Path) -> None:
    config = DemoExperiment(images=12, synthetic=4, val=8, test=8, seeds=1, epochs=1, shown=12, imgsz=64, out=str(tmp_path / "out"))
    run = rundir.create("demo-experiment", config.to_json())
    told = demo_experiment.run(config, run, silent)
    assert told["sentence"] and told["bytes"] == sum(p.stat().st_size for p in (tmp_path / "out").rglob("*") if p.is_file())
    kept = sorted(p.name[23:-7] for p in (tmp_path / "out").iterdir())
    assert kept == ["combine", "compare", "experiment", "train-detector", "train-detector"]
    shutil.rmtree(data_folder / "runs")
    shutil.copytree(tmp_path / "out", data_folder / "runs")
    assert jobs.experiment(next(rundir.find("experiment")).name)["sentence"] == told["sentence"]
