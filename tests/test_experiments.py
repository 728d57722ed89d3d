"""Experiments: what arms are made of, that each run comes about once whoever is killed, and that the verdict follows."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from backend import jobs, rundir
from backend.config import Compare, Experiment, TrainDetector, TrainDistilled
from backend.data import snapshot
from backend.detection import trainer
from backend.errors import ConfigError, NotFoundError
from backend.jobs import arms, holdings, house, locks, plans, runs, supervisor, waves, worker
from tests import mixed, plates, squares
from tests import small_experiment as small

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with the mixed dataset: 10 real train images, 9 of them labelled, and 6 synthetic ones."""
    root = tmp_path_factory.mktemp("experiments")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFSPECT_DATA", str(root / "data"))
        mixed.imported(root / "in")
    return root / "data"


@pytest.fixture
def data(template: Path, data_folder: Path) -> Iterator[Path]:
    shutil.copytree(template, data_folder, dirs_exist_ok=True)
    yield data_folder


def asked(**more: Any) -> Experiment:
    return Experiment(**dict(dataset="mixed", name="steel", epochs=3, imgsz=64, batch=4, seeds=2, arms=small.ARMS) | more)


def arms_of(config: Experiment) -> dict[str, arms.Arm]:
    return arms.planned(config, holdings.expected(config))[0]


# ---- what arms are made of

def test_arms_differ_in_what_they_name_and_in_nothing_else(data: Path) -> None:
    told = jobs.plan_experiment(asked(arms="real, both, synthetic", seeds=3))
    assert [(a["real_images"], a["synthetic_images"]) for a in told["arms"].values()] == [(10, 0), (10, 6), (0, 6)]
    members = [TrainDetector.from_json(c) for a in told["arms"].values() for c in a["runs"]]
    assert len(members) == told["runs"] == 9 and {m.dataset for m in members} == {told["snapshot_id"]}
    assert {(m.origin, m.seed) for m in members} == {(o, s) for o in ("real", "both", "synthetic") for s in range(3)}
    assert len({json.dumps(m.to_json() | dict(origin="", seed=0, name="")) for m in members}) == 1
    assert jobs.plan_experiment(asked(arms="real, both", shown=40))["steps"] == 3 * 10
    assert members[0].shown == 10 and told["steps"] == 3 * 3 and {a["images_seen"] for a in told["arms"].values()} == {30}
    assert told["baseline"] == "real" and told["seconds"] > 0
    assert members[0].name == "steel · real · seed 0"


def test_runs_wait_seed_by_seed(data: Path) -> None:
    config = asked(arms="real, both", seeds=2, first_seed=4)
    assert [(name, seed) for name, seed, _ in arms.trainings(config, arms_of(config), holdings.expected(config))] == [
        ("real", 4), ("both", 4), ("real", 5), ("both", 5)]


def test_a_dose_is_a_share_of_the_labelled_images(data: Path) -> None:
    config = asked(arms="dose")
    found, notes = arms.planned(config, holdings.expected(config))
    assert {name: (a.real, a.synthetic) for name, a in found.items()} == {
        "real": (10, 0), "25 % synthetic": (10, 2), "50 % synthetic": (10, 4), "67 % synthetic": (10, 6)}
    assert notes == ["There are 6 synthetic images to add, so the largest dose is 67 %, not 200 %."]


def test_a_dose_to_be_told_in_labels_stands_beside_half_of_them(data: Path) -> None:
    """Beside all of them, the curve of labels ends where the dose begins."""
    config = asked(arms="dose, labels")
    found, notes = arms.planned(config, holdings.expected(config))
    assert {name: (a.settings.get("labels"), a.real, a.synthetic) for name, a in found.items()} == {
        "50 % of labels": (4, 4, 0), "25 % synthetic": (4, 4, 1), "50 % synthetic": (4, 4, 2), "25 % of labels": (2, 2, 0),
        "100 % of labels": (9, 9, 0)}
    assert any("made of those" in n for n in notes) and any("largest dose is 50 %" in n for n in notes)


def test_label_arms_leave_out_good_images_alike_and_take_as_many_steps(data: Path) -> None:
    told = jobs.plan_experiment(asked(arms="labels"))
    assert {name: a["real_images"] for name, a in told["arms"].items()} == {"25 % of labels": 2, "50 % of labels": 4, "100 % of labels": 9}
    assert len({(a["steps"], a["images_seen"]) for a in told["arms"].values()}) == 1


def test_presets_that_come_to_the_same_are_one_arm(data: Path) -> None:
    assert list(arms_of(asked(arms="real, both, dose"))) == ["real", "both", "25 % synthetic", "50 % synthetic"]


def test_an_experiment_takes_what_its_trainings_take(data: Path) -> None:
    one = TrainDetector(dataset="mixed", name="x", epochs=3, imgsz=64, batch=4, shown=10)
    told = jobs.plan_experiment(asked(arms="real, both"))
    assert told["seconds"] == pytest.approx(4 * jobs.estimate(one), abs=0.3)
    assert told["seconds"] < jobs.estimate(asked(arms="real, both")) < told["seconds"] + 5, "and the comparison on top"
    assert jobs.estimate(asked(dataset="nowhere")) is None
    few, many = (jobs.estimate(Compare(arms={"a": ["r"] * n, "b": ["s"] * n})) for n in (2, 2000))
    assert few < 20 < many


def test_distilled_arms_reuse_what_the_first_has_made(data: Path) -> None:
    told = jobs.plan_experiment(asked(arms="distilled, both-distilled", seeds=1))
    first, second = told["arms"].values()
    assert isinstance(TrainDistilled.from_json(first["runs"][0]), TrainDistilled) and first["recipe"] == "train-distilled"
    assert first["seconds"] > 10 * second["seconds"] > 0
    assert any("teacher" in w for w in jobs.plan_experiment(asked(arms="real, distilled"))["warnings"])


@pytest.mark.parametrize(("more", "sentence"), [
    (dict(arms="real"), "at least two arms"),
    (dict(arms="real, realest"), "no arm called 'realest'"),
    (dict(dataset="mixed real"), "holds no synthetic images, which the arm 'both' needs"),
    (dict(dataset="mixed real", arms='{"a": {"origin": "real"}, "b": {"origin": "synthetic"}}'), "no synthetic train image to learn from"),
    (dict(arms='{"a": {"labels": 5, "synthetic": 4}, "b": {}}'), "3 synthetic train images made of no other labels than these 5"),
    (dict(arms='{"a": {"origin": "real"}, "b": {"seed": 3}}'), "may not set seed"),
    (dict(arms='{"a": {"origin": "real"}, "b": {"colour": 3}}'), "Unknown setting: colour"),
    (dict(arms='{"a": {"recipe": "demo"}, "b": {}}'), "must be trained by"),
    (dict(arms='{"a": {"labels": 50}, "b": {}}'), "9 labelled train images, fewer than 50"),
    (dict(arms='{"a": 1, "b": {}}'), "must list its settings"),
    (dict(arms='{"a": '), "no JSON"),
    (dict(baseline="none"), "baseline 'none' is none of the arms"),
    (dict(imgsz=100), "multiple of 32: 96 or 128"),
    (dict(name=" "), "a name"),
    (dict(labels=10), "fewer than 10"),
    (dict(weights="nobody"), "neither a model called 'nobody' nor such a file"),
    (dict(sets="made"), "holds 6 synthetic images already"),
])
def test_what_cannot_be_compared_is_refused_with_the_reason(data: Path, more: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        jobs.start_experiment(asked(**dict(arms="real, both") | more))
    assert not list(rundir.find("experiment"))


def test_all_arms_start_from_one_model(data: Path) -> None:
    """By run, so that a model trained later under that name starts none of the arms that are left."""
    runs_ = [rundir.create("train-detector", {}, state="completed") for _ in range(2)]
    for n, run in enumerate(runs_):
        (run / "weights").mkdir()
        rundir.write_json(run / "weights" / "head.json", dict(key=f"k{n}", name="plates", snapshot_id=holdings.held("mixed").snapshot_id))
        told = jobs.plan_experiment(asked(arms="real, both", weights="plates"))
        assert {c["weights"] for a in told["arms"].values() for c in a["runs"]} == {run.name}
    assert not any("teaches the backbone" in w for w in told["warnings"])
    guided = jobs.plan_experiment(asked(arms="real, distilled", weights=runs_[0].name))
    assert {c["weights"] for a in guided["arms"].values() for c in a["runs"]} == {runs_[0].name}
    assert any("teaches the backbone anew" in w for w in guided["warnings"])
    own = jobs.plan_experiment(asked(arms='{"a": {"origin": "real", "weights": "plates"}, "b": {"origin": "both"}}'))
    assert [{c["weights"] for c in own["arms"][name]["runs"]} for name in ("a", "b")] == [{runs_[1].name}, {None}]
    rundir.write_json(runs_[1] / "weights" / "head.json", dict(key="k1", name="plates", size="s"))
    with pytest.raises(ConfigError, match="of size s, the arms of size n"):
        jobs.plan_experiment(asked(arms="real, both", weights="plates"))


def test_a_dataset_that_is_not_there_is_named(data: Path) -> None:
    with pytest.raises(NotFoundError, match="no dataset called 'nowhere'"):
        jobs.plan_experiment(asked(dataset="nowhere"))


# ---- carried out

def silent(progress: dict[str, Any]) -> None:
    """Progress that nobody reads."""


def begun(**more: Any) -> Path:
    """An experiment as a page submits it, and the first look of a supervisor."""
    run_dir = rundir.create("experiment", asked(**more).to_json())
    waves.advance(run_dir)
    return run_dir


def work(*names: str) -> list[str]:
    """Carry out what waits in the queue, as its workers would; only these recipes, if given. Ids in the order of the queue."""
    done = [p for p, s in runs.open_runs() if s["state"] == "pending" and (not names or rundir.recipe_of(p.name) in names)
            and rundir.recipe_of(p.name) != "experiment"]
    for run_dir in done:
        with locks.hold(run_dir / "lock"):
            worker.carry_out(run_dir)
    return [p.name for p in done]


def state_of(run_dir: Path) -> str:
    return str(runs.state(run_dir)["state"])


def carried_out(run_dir: Path) -> Path:
    """To the end."""
    for _ in range(5):
        waves.advance(run_dir)
        work()
    return run_dir


def names_of(recipe: str = "trial-training") -> list[str]:
    return [runs.job(p)["config"]["name"] for p in rundir.find(recipe)][::-1]


def test_members_are_ordinary_runs_in_the_queue_and_the_verdict_follows(data: Path) -> None:
    run_dir = begun()
    assert names_of() == [f"steel · {arm} · seed {seed}" for seed in (0, 1) for arm in ("real", "both")]
    assert state_of(run_dir) == "running" and not list(rundir.find("compare"))
    told = jobs.experiment(run_dir.name)
    assert (told["done"], told["total"], told["comparison"], told["sentence"]) == (0, 5, "", "") and told["eta_s"] > 0
    assert {arm: [(r["seed"], r["state"], r["map50"]) for r in rows] for arm, rows in told["arms"].items()} == {
        arm: [(0, "pending", None), (1, "pending", None)] for arm in ("real", "both")}

    work("trial-training")
    waves.advance(run_dir)
    told = jobs.experiment(run_dir.name)
    assert (told["state"], told["done"], told["sentence"]) == ("running", 4, "") and told["comparison"]
    assert all(r["map50"] > 0 for rows in told["arms"].values() for r in rows), "seeds are shown before there is a verdict"

    work()
    waves.advance(run_dir)
    told, comparison = jobs.experiment(run_dir.name), jobs.comparison(told["comparison"])
    assert (told["state"], told["done"], told["eta_s"]) == ("completed", 5, None)
    assert told["sentence"] == rundir.read_json(run_dir / "result.json")["sentence"] == comparison["differences"][0]["sentence"]
    (row,) = jobs.experiments()
    assert (row["name"], row["arms"], row["seeds"], row["done"], row["total"]) == ("steel", ["real", "both"], 2, 5, 5)


class Killed(BaseException):
    """kill -9."""


def test_each_run_comes_about_once_whoever_is_killed(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The supervisor is killed before the n-th thing that it writes down, for every n, and another takes over."""
    writes, publish, left = rundir.write_bytes, rundir.publish, 0

    def deadly(do: Any) -> Any:
        def call(*args: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                raise Killed
            return do(*args)
        return call

    for n in range(1, 100):
        left, killed = n, False
        run_dir = rundir.create("experiment", asked(name=f"n{n}", seeds=1, first_seed=n).to_json())
        for _ in range(4):
            with monkeypatch.context() as patch:
                patch.setattr(rundir, "write_bytes", deadly(writes))
                patch.setattr(rundir, "publish", deadly(publish))
                try:
                    waves.advance(run_dir)
                except Killed:
                    killed = True
            work("trial-training")
        if not killed:
            break
        told = plans.written(run_dir)
        assert sorted(names_of()) == sorted(f"n{i} · {arm} · seed {i}" for i in range(1, n + 1) for arm in ("real", "both"))
        assert [p.name for p in rundir.find("compare")][0] == told["compare"][0]["run_id"] and len(list(rundir.find("compare"))) == n
        assert [p.name for p in rundir.find("trial-training")][:2] == [m["run_id"] for m in reversed(told["members"])]
    assert n > 15, "two members and a comparison take many writes"


def test_a_run_that_fails_ends_the_experiment_when_the_others_are_through(data: Path) -> None:
    run_dir = begun(seeds=1)
    (data / "broken").touch()
    work()
    waves.advance(run_dir)
    told = jobs.experiment(run_dir.name)
    assert told["state"] == "failed" and told["message"] == (
        "2 of 2 runs did not finish. real, seed 0: The lamp is broken. Resume goes on with what is left.")
    assert jobs.status(run_dir.name).message == told["message"] and not list(rundir.find("compare"))

    (data / "broken").unlink()
    jobs.resume(run_dir.name)
    carried_out(run_dir)
    assert state_of(run_dir) == "completed" and len(names_of()) == 2
    assert {runs.state(p)["attempt"] for p in rundir.find("trial-training")} == {2}


def test_a_run_taken_up_by_itself_takes_its_experiment_on(data: Path) -> None:
    run_dir = begun(seeds=1)
    (data / "broken").touch()
    work()
    waves.advance(run_dir)
    (data / "broken").unlink()
    for path in rundir.find("trial-training"):
        runs.resume(path.name)
    waves.advance(run_dir)
    assert state_of(run_dir) == "running"
    assert state_of(carried_out(run_dir)) == "completed"


def test_runs_that_were_finished_while_nobody_looked_are_seen(data: Path) -> None:
    run_dir = begun(seeds=1)
    (data / "broken").touch()
    work()
    waves.advance(run_dir)
    (data / "broken").unlink()
    for path in rundir.find("trial-training"):
        worker.again(path.name, silent)
    assert state_of(carried_out(run_dir)) == "completed"


def test_cancel_reaches_every_run_and_resume_takes_them_up(data: Path) -> None:
    run_dir = begun(seeds=1)
    work("trial-training")
    waves.advance(run_dir)
    jobs.cancel(run_dir.name)
    waves.advance(run_dir)
    waves.advance(run_dir)
    assert {state_of(p) for p in rundir.find("compare")} == {"canceled"} and state_of(run_dir) == "canceled"
    waves.advance(run_dir)
    assert state_of(run_dir) == "canceled" and not work()
    jobs.resume(run_dir.name)
    assert state_of(carried_out(run_dir)) == "completed" and len(list(rundir.find("compare"))) == 1


def test_an_experiment_canceled_before_it_began_has_no_runs(data: Path) -> None:
    run_id = jobs.start_experiment(asked())
    jobs.cancel(run_id)
    waves.see_to_all()
    assert jobs.experiment(run_id)["state"] == "canceled" and not names_of()


def test_one_run_canceled_by_itself_stays_so_until_resumed(data: Path) -> None:
    run_dir = begun(seeds=1)
    jobs.cancel(next(rundir.find("trial-training")).name)
    work()
    waves.advance(run_dir)
    told = jobs.experiment(run_dir.name)
    assert told["state"] == "canceled" and told["message"].startswith("1 of 2 runs did not finish. both, seed 0: Canceled.")
    jobs.resume(run_dir.name)
    assert state_of(carried_out(run_dir)) == "completed"


def test_more_seeds_train_only_what_is_new(data: Path) -> None:
    carried_out(begun(seeds=2))
    before = set(names_of())
    told = jobs.plan_experiment(asked(name="more", seeds=3))
    assert told["seconds"] == pytest.approx(2 * jobs.estimate(small.TrialTraining.from_json(told["arms"]["real"]["runs"][2])), abs=0.2)
    run_dir = carried_out(begun(name="more", seeds=3))
    assert set(names_of()) - before == {"more · real · seed 2", "more · both · seed 2"}
    assert state_of(run_dir) == "completed" and jobs.experiment(run_dir.name)["done"] == 7
    rows = jobs.comparison(jobs.experiment(run_dir.name)["comparison"])["arms"]["both"]["runs"]
    assert [r["seed"] for r in rows] == [0, 1, 2]


def test_a_plan_that_cannot_be_read_does_not_stop_the_others(data: Path) -> None:
    first, second = begun(name="a", seeds=1), begun(name="b", seeds=1, first_seed=9)
    (second / "plan.json").write_text("{")
    work()
    waves.see_to_all()
    assert len(list(rundir.find("compare"))) == 1 and state_of(first) == "running"
    assert [e["name"] for e in jobs.experiments()] == ["a"]
    rundir.create("experiment", dict(asked().to_json(), colour="red"))
    assert [e["name"] for e in jobs.experiments()] == ["a"], "nor does one of another program"


# ---- with synthetic sets that join first

def made_set(n: int) -> Path:
    """A set called `made`, of drawn pictures with one box each, as `synthesize` leaves it."""
    real = snapshot.read(rundir.find_snapshot("mixed real"))
    run, parent = rundir.create("synthesize", {}, state="completed"), real.by_split("train")[0].image_id
    (folder := run / ".synthetic").mkdir()
    items, rng = [], np.random.default_rng(0)
    for i in range(n):
        Image.fromarray(rng.integers(0, 255, (64, 64)).astype(np.uint8)).save(folder / f"{i}.png")
        items.append(dict(file=f"{i}.png", mask="", width=64, height=64, boxes=[["red", 5.0, 6.0, 25.0, 26.0]], boxes_from="box",
                          exact=False, class_name="red", parent=parent, donor="", method="paste", source="paste"))
    rundir.keep_artifact(folder, run, "synthetic", dict(key=run.name, name="made", dataset="mixed real", snapshot_id=real.snapshot_id,
                                                        method="paste", classes=["red"], items=items))
    return run


def judged(run: Path, **said: str) -> None:
    """`_0="accept"` is said of the first picture."""
    given = {f"{k[1:]}.png": v for k, v in said.items()}
    rundir.create("judge", dict(run_id=run.name, verdicts=given), state="completed")


def test_sets_join_the_dataset_once_for_all_arms(data: Path) -> None:
    made = made_set(5)
    judged(made, _0="accept", _1="accept", _2="reject", _3="accept")
    told = jobs.plan_experiment(asked(dataset="mixed real", sets="made"))
    assert told["snapshot_id"] == "" and told["arms"]["both"]["synthetic_images"] == 3 and told["sets"] == ["made"]

    run_dir = begun(dataset="mixed real", sets="made")
    assert not names_of() and jobs.experiment(run_dir.name)["arms"]["both"][1]["state"] == "waiting"
    assert (jobs.experiment(run_dir.name)["done"], jobs.experiment(run_dir.name)["total"]) == (0, 6)
    carried_out(run_dir)
    combined, _ = rundir.find("combine")                                  # the older one is the mixed dataset's own
    head = rundir.read_json(combined / "snapshot.json")
    members = [runs.job(p)["config"] for p in rundir.find("trial-training")]
    assert head["name"] == "steel · images" and head["synthetic"] == 3 and {m["dataset"] for m in members} == {head["snapshot_id"]}
    assert {(m["origin"], rundir.read_json(p / "result.json")["synthetic_images"]) for m, p in
            zip(members, rundir.find("trial-training"), strict=True)} == {("real", 0), ("both", 3)}
    assert state_of(run_dir) == "completed"


def test_sets_without_an_accepted_picture_are_refused(data: Path) -> None:
    made_set(2)
    with pytest.raises(ConfigError, match="Nobody has accepted a picture of 'made'"):
        jobs.plan_experiment(asked(dataset="mixed real", sets="made"))
    assert jobs.plan_experiment(asked(dataset="mixed real", sets="made", which="all"))["arms"]["both"]["synthetic_images"] == 2
    with pytest.raises(NotFoundError, match="no synthetic set called 'nothing'"):
        jobs.plan_experiment(asked(dataset="mixed real", sets="nothing"))


# ---- on the command line

def test_in_the_foreground_runs_follow_one_another_and_a_failure_is_told_by_its_name(data: Path) -> None:
    (data / "broken").touch()
    run_dir = worker.foreground(asked(), "real", silent)
    assert runs.state(run_dir)["message"].startswith("real, seed 0: The lamp is broken. The log is ") and len(names_of()) == 1
    (data / "broken").unlink()
    said: list[str] = []
    worker.again(waves.standing(asked()).name, lambda progress: said.append(progress["message"]))
    assert state_of(run_dir) == "completed" and len(names_of()) == 4 and jobs.experiment(run_dir.name)["done"] == 5
    assert said[0] == "real, seed 0" and any(line.startswith("The comparison") for line in said), "as often as progress is written"
    assert {rundir.read_json(p / "job.json")["by"] for p in rundir.find("trial-training", "compare")} == {"command line"}


def test_ctrl_c_cancels_the_run_and_the_experiment(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pressed(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(small.time, "sleep", pressed)
    run_dir = worker.foreground(asked(), "real", silent)
    assert {state_of(p) for p in rundir.find("trial-training", "experiment")} == {"canceled"} and len(names_of()) == 1
    waves.see_to_all()
    assert state_of(run_dir) == "canceled" and len(names_of()) == 1, "no supervisor goes on with it"


def test_one_whose_command_line_was_killed_waits_for_resume(data: Path) -> None:
    """A supervisor leaves it as it is; resumed from a page, it goes on there."""
    run_dir = rundir.create("experiment", asked(seeds=1).to_json(), by="command line")
    first = plans.asked(run_dir, "combine") + plans.asked(run_dir, "members")[:1]
    killed = rundir.create(first[0]["recipe"], first[0]["config"], run_id=first[0]["run_id"])
    for path in (killed, run_dir):
        rundir.set_state(path, "running", pid=1)
    waves.see_to_all()
    assert runs.state(run_dir) == rundir.read_json(run_dir / "state.json") and state_of(run_dir) == "running", "its process may live"
    for path in (killed, run_dir):
        rundir.set_state(path, "interrupted", message="The worker stopped.")
    waves.see_to_all()
    assert (state_of(run_dir), runs.state(run_dir)["message"]) == ("interrupted", "The worker stopped.") and len(names_of()) == 1
    jobs.resume(run_dir.name)
    assert state_of(carried_out(run_dir)) == "completed" and len(names_of()) == 2


def test_what_the_dashboard_carries_out_is_left_to_it(data: Path) -> None:
    begun()
    with pytest.raises(ConfigError, match="The dashboard carries out this experiment already"):
        waves.standing(asked())


# ---- in processes of their own

def slow(pause: float) -> str:
    return json.dumps({name: settings | dict(pause=pause) for name, settings in json.loads(small.ARMS).items()})


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.02)


def test_the_command_line_goes_on_where_it_was_killed(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFSPECT_RECIPES", "tests.small_experiment")
    asked_for = dict(dataset="mixed", name="cli", epochs=3, imgsz=64, batch=4, seeds=1, arms=slow(0.3))
    flags = [str(word) for k, v in asked_for.items() for word in (f"--{k}", v)]
    command = [sys.executable, "-m", "backend", "experiment", *flags, "--json"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: len(list(rundir.find("trial-training"))) == 2)
    process.kill()
    process.wait()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert "both adds" in told["result"]["sentence"].lower() and told["result"]["runs"] == 2
    assert Counter(runs.state(p)["attempt"] for p in rundir.find("trial-training")) == {1: 1, 2: 1}
    assert names_of() == ["cli · real · seed 0", "cli · both · seed 0"] and len(list(rundir.find("compare"))) == 1
    assert waves.standing(Experiment(**asked_for)) == rundir.run_path(told["run_id"]), "asked again, there is nothing to do"


def kill(lock: Path) -> None:
    """kill -9 whoever holds this lock."""
    if (pid := locks.holder(lock)) is not None:
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: locks.holder(lock) != pid)


def test_supervisors_and_workers_may_die(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next supervisor goes on with the experiment; a run whose worker was killed is taken up with it."""
    monkeypatch.setenv("DIFFSPECT_RECIPES", "tests.small_experiment")
    monkeypatch.setenv("DIFFSPECT_SUPERVISOR", "on")
    run_id = jobs.start_experiment(asked(arms=slow(0.2), seeds=1))
    run_dir = rundir.run_path(run_id)
    for made in (0, 2):
        wait_for(lambda: supervisor.alive() and len(list(rundir.find("trial-training"))) >= made)      # noqa: B023
        kill(supervisor.lock_path())
        house.opened().wake()
    second = plans.path_of(plans.written(run_dir)["members"][1])
    wait_for(lambda: locks.holder(second / "lock") is not None)
    kill(second / "lock")
    wait_for(lambda: state_of(run_dir) in rundir.END_STATES)
    assert jobs.experiment(run_id)["message"].startswith("1 of 2 runs did not finish. both, seed 0: The worker stopped")
    jobs.resume(run_id)
    wait_for(lambda: state_of(run_dir) in ("completed", "failed"))
    assert jobs.experiment(run_id)["sentence"] and len(names_of()) == 2 and len(list(rundir.find("compare"))) == 1
    assert Counter(runs.state(p)["attempt"] for p in rundir.find("trial-training")) == {1: 1, 2: 1}


@pytest.mark.slow
def test_real_trainings_take_equal_steps_and_are_compared(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing small in place of anything: plain detectors, one pass, from the dataset to the sentence."""
    monkeypatch.setattr(trainer, "cores", squares.one_core)
    run_dir = worker.foreground(asked(arms="real, both", seeds=1, epochs=1), "real", silent)
    assert state_of(run_dir) == "completed", runs.state(run_dir)["message"]
    told = jobs.comparison(jobs.experiment(run_dir.name)["comparison"])
    assert {(r["steps"], r["images_seen"]) for arm in told["arms"].values() for r in arm["runs"]} == {(3, 10)}
    assert [(a["real_images"], a["synthetic_images"]) for a in told["arms"].values()] == [(10, 0), (10, 6)]
    assert told["warnings"] == [] and told["looks"] == 2 and told["differences"][0]["seeds"] == [1, 1]
    assert all((p / "model" / "model.onnx").exists() for p in rundir.find("train-detector")), "members are models to promote"


def test_asked_again_on_a_dataset_that_was_imported_anew_it_is_another_experiment(data_folder: Path, tmp_path: Path) -> None:
    """A nightly command would else tell last week's verdict for ever."""
    first = rundir.snapshot_id(plates.imported(tmp_path / "first", "plates"))
    config = Experiment(name="nightly", dataset="plates")
    for plan in (dict(combine=[], snapshot_id=first), dict(combine=[dict(run_id="x", config=dict(dataset=first))], snapshot_id="combined")):
        run = rundir.create("experiment", config.to_json(), state="completed")
        rundir.write_json(run / "plan.json", plan)
        assert waves.standing(config) == run
    plates.imported(tmp_path / "second", "plates", seed=1)
    assert waves.standing(config) is None
