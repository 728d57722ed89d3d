"""The recipe `compare`: which runs may be compared, what a comparison says and warns of, and that equal questions are asked once."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backend import __main__ as command
from backend import jobs, rundir
from backend.config import Compare, Config, TrainDetector
from backend.data import snapshot
from backend.errors import ConfigError, NotFoundError
from backend.evaluation import cautions, compare
from backend.evaluation.entrants import Entrant, together
from backend.jobs import locks, waves, worker
from tests import mixed
from tests import small_experiment as small


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with the mixed dataset and six trainings on it: three seeds of real, three of both."""
    root = tmp_path_factory.mktemp("comparisons")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFSPECT_DATA", str(root / "data"))
        mixed.imported(root / "in")
        for seed in range(3):
            for origin in ("real", "both"):
                trained(origin, seed)
    return root / "data"


@pytest.fixture
def data(template: Path, data_folder: Path) -> Iterator[Path]:
    shutil.copytree(template, data_folder, dirs_exist_ok=True)
    yield data_folder


def trained(origin: str, seed: int, dataset: str = "mixed", skill: float | None = None, **more: Any) -> str:
    config = TrainDetector(**dict(dataset=dataset, name=f"{origin} {seed}", epochs=2, imgsz=64, batch=4, seed=seed, origin=origin, shown=10)
                           | more)
    data = snapshot.read(rundir.find_snapshot(dataset))
    return finished("train-detector", config, lambda run: small.keep(run, config, data, skill)).name


def finished(recipe: str, config: Config, do: Callable[[Path], dict[str, Any]]) -> Path:
    run = rundir.create(recipe, config.to_json())
    rundir.write_json(run / "result.json", do(run))
    rundir.set_state(run, "completed", started_at=rundir.now(), finished_at=rundir.now())
    return run


def arms(names: str = "real both") -> dict[str, list[str]]:
    found: dict[str, list[str]] = {name: [] for name in names.split()}
    for path in rundir.find("train-detector"):
        name = rundir.read_json(path / "job.json")["config"]["name"].split()[0]
        if name in found:
            found[name].append(path.name)
    return found


def silent(**progress: Any) -> None:
    """A report that nobody reads."""


def compared(**more: Any) -> dict[str, Any]:
    config = Compare(**dict(arms=arms()) | more)
    return jobs.comparison(finished("compare", config, lambda run: compare.run(config, run, silent)).name)


# ---- what it says

def test_a_comparison_tells_both_sides_and_their_difference(data: Path) -> None:
    told = compared(name="steel")
    assert list(told["arms"]) == ["real", "both"] and told["baseline"] == "real" and told["name"] == "steel"
    assert [[r["seed"] for r in arm["runs"]] for arm in told["arms"].values()] == [[0, 1, 2]] * 2, "whatever their order in the question"
    assert (told["images"], told["good_images"], told["groups"], told["grouped_by"]) == (4, 1, 4, "")
    assert (told["arms"]["both"]["real_images"], told["arms"]["both"]["synthetic_images"]) == (10, 6)
    row = told["arms"]["both"]["runs"][1]
    assert row["map50"] == rundir.read_json(rundir.run_path(row["run_id"]) / "result.json")["map50"] and row["steps"] == 6
    means = {name: arm["mean"]["map50"] for name, arm in told["arms"].items()}
    (difference,) = told["differences"]
    assert (difference["a"], difference["b"]) == ("both", "real")
    assert difference["difference"] == pytest.approx(means["both"] - means["real"], abs=1e-3)
    assert difference["low"] <= difference["difference"] <= difference["high"] and difference["provisional"]
    assert difference["missed"]["images"] == 3 and difference["false_rejects"]["images"] == 1 and difference["no_good_text"] is None
    assert sum(difference["mcnemar"][k] for k in ("only_a", "only_b", "both", "neither")) == 4
    val = {name: arm["mean"]["val_map50"] for name, arm in told["arms"].items()}
    assert told["best_on_val"] == max(val, key=lambda name: val[name])
    assert told["test_set_id"] == rundir.test_set_id(rundir.find_snapshot("mixed")) and told["margin"] == 0.01


def test_the_same_runs_on_both_sides_do_not_differ(data: Path) -> None:
    ids = arms()["real"]
    told = compared(arms={"one": ids, "two": ids})
    assert told["differences"][0]["verdict"] == "no difference" and told["baseline"] == "one"


def test_every_other_arm_is_compared_with_the_baseline(data: Path) -> None:
    trained("synthetic", 0)
    told = compared(arms=arms("real both synthetic"), baseline="both", metric="map50_95")
    assert [(d["a"], d["b"], d["metric"]) for d in told["differences"]] == [("real", "both", "map50_95"), ("synthetic", "both", "map50_95")]
    with pytest.raises(ConfigError, match="baseline 'none' is none of the arms: real, both"):
        compared(baseline="none")


# ---- curves

def test_arms_with_more_and_more_synthetic_images_make_a_curve(data: Path) -> None:
    for n in (2, 4):
        for seed in range(2):
            trained("both", seed, synthetic=n, name=f"dose{n} {seed}")
    told = compared(arms=arms("real dose2 dose4 both"))["dose"]
    assert told["by"] == "synthetic" and told["labels"] is None and told["equivalent"] is None
    assert [(p["dose"], p["arm"], p["seeds"]) for p in told["points"]] == [(0, "real", 3), (2, "dose2", 2), (4, "dose4", 2), (6, "both", 3)]
    assert all(p["low"] <= p["mean"] <= p["high"] for p in told["points"])
    assert compared()["dose"] is None, "two arms make no curve"


def test_a_dose_is_told_in_labels_where_both_curves_are_there(data: Path) -> None:
    """Skill by labels and synthetic images: 4 labels and 2 synthetic ones find what 6 labels or so find."""
    for seed in range(3):
        for n in (2, 4, 9):
            trained("real", seed, labels=n, name=f"labels{n} {seed}", skill=0.1 * n)
        for n in (1, 2):
            trained("both", seed, labels=4, synthetic=n, name=f"plus{n} {seed}", skill=0.4 + 0.1 * n)
    told = compared(arms=arms("labels4 plus1 plus2 labels2 labels9"))["dose"]
    assert [(p["dose"], p["arm"]) for p in told["points"]] == [(0, "labels4"), (1, "plus1"), (2, "plus2")]
    assert [(p["dose"], p["arm"]) for p in told["labels"]] == [(2, "labels2"), (4, "labels4"), (9, "labels9")]
    worth = told["equivalent"]
    assert (worth["synthetic"], worth["base"]) == (2, 4) and worth["sentence"].startswith("2 synthetic ≈")
    only = compared(arms=arms("labels2 labels4 labels9"))["dose"]
    assert only["by"] == "labels" and [p["dose"] for p in only["points"]] == [2, 4, 9]


# ---- what it refuses

def refusal(arms: dict[str, list[str]]) -> str:
    """The reason, the same from the page and in the recipe."""
    with pytest.raises(ConfigError) as asked:
        jobs.compare(arms)
    with pytest.raises(ConfigError) as carried_out:
        compared(arms=arms)
    assert str(asked.value) == str(carried_out.value)
    return str(asked.value)


def test_different_test_sets_are_not_compared(data: Path, tmp_path: Path) -> None:
    mixed.imported(tmp_path / "in", "other")
    real = snapshot.read(rundir.find_snapshot("other"))
    moved = [p for p in real.pictures if not (p.split == "test" and not p.boxes)]
    run = rundir.create("combine", {}, state="completed")
    snapshot.write(run, moved, real.classes, [], dict(name="fewer", layout="yolo", seed=0, splits_from="lists"))
    stranger = trained("real", 0, "fewer", name="stranger")
    assert "and 'stranger' were scored on different test sets" in refusal({"real": arms()["real"], "other": [stranger]})
    assert trained("real", 5, "mixed real") and compared(arms={"a": arms()["real"], "b": arms()["both"]}), "train may differ"


def test_a_dataset_that_differs_in_train_only_is_comparable(data: Path) -> None:
    plain = trained("real", 0, "mixed real", name="plain 0")
    told = compared(arms={"with": arms()["both"], "without": [plain]})
    assert len(told["snapshot_ids"]) == 2 and told["images"] == 4


def test_synthetic_images_in_a_test_split_are_refused(data: Path) -> None:
    real = snapshot.read(rundir.find_snapshot("mixed"))
    turned = [mixed.synthetic(9, "", real.classes)]
    run = rundir.create("combine", {}, state="completed")
    pictures = [*real.pictures, *(p.__class__(**{**vars(p), "split": "test"}) for p in turned)]
    snapshot.write(run, pictures, real.classes, [], dict(name="made", layout="yolo", seed=0, splits_from="lists"))
    assert "holds synthetic images; models are compared on real ones only" in refusal(
        {name: [trained(name, 0, "made")] for name in ("real", "both")})


@pytest.mark.parametrize(("change", "sentence"), [
    (lambda run: rundir.set_state(run, "failed"), "is not finished (it is failed)"),
    (lambda run: shutil.rmtree(run / "scored"), "Score it once more: python -m backend score --model "),
    (lambda run: [shutil.rmtree(run / part) for part in ("scored", "model")], "is no training of a detector"),
])
def test_what_has_no_answers_is_refused(data: Path, change: Callable[[Path], None], sentence: str) -> None:
    asked = arms()
    change(rundir.run_path(asked["both"][0]))
    assert sentence in refusal(asked)


def test_sides_are_two_and_a_training_counts_once(data: Path) -> None:
    real, both = arms().values()
    assert "at least two arms" in refusal({"real": real}) and "at least two arms" in refusal({"real": real, "both": []})
    assert "'both' names a run twice" in refusal({"real": real, "both": [*both, both[0]]})
    with pytest.raises(NotFoundError, match="no run 'x'"):
        jobs.compare({"real": real, "both": ["x"]})


def test_a_model_scored_later_is_comparable(data: Path) -> None:
    """Trained before records were kept, then scored once more by a run of its own."""
    asked = arms()
    old = rundir.run_path(asked["real"][0])
    later = rundir.create("score", {}, state="completed")
    shutil.move(old / "scored", later / "scored")
    head, result = (rundir.read_json(path) for path in (later / "scored" / "head.json", old / "result.json"))
    rundir.write_json(later / "scored" / "head.json", head | dict(result=result))
    rundir.write_json(old / "result.json", {k: result[k] for k in ("model_id", "snapshot_id", "dataset", "map50", "map50_95")})
    told = compared(arms=asked)
    assert [r["val_map50_95"] for r in told["arms"]["real"]["runs"]].count(None) == 0


# ---- what it warns of

def kinds(told: dict[str, Any]) -> dict[str, str]:
    return {w["kind"]: w["text"] for w in told["warnings"]}


def test_arms_that_were_treated_alike_raise_no_warning(data: Path) -> None:
    assert compared()["warnings"] == []


def test_unequal_steps_and_settings_are_told(data: Path) -> None:
    longer = [trained("both", s, epochs=4, learning_rate=0.02, name=f"longer {s}") for s in range(2)]
    told = kinds(compared(arms={"real": arms()["real"], "longer": longer}))
    assert "real 6, longer 12" in told["steps"] and told["settings"] == "The arms also differ in epochs, learning_rate."
    odd = kinds(compared(arms={"real": arms()["real"], "mixed": [longer[0], *arms()["both"]]}))
    assert odd["settings"].startswith("The runs of the arm 'mixed' differ in epochs, learning_rate")


def test_what_all_seeds_of_an_arm_build_on_is_told(data: Path) -> None:
    started = [trained("both", s, weights="steel start", name=f"started {s}") for s in range(2)]
    told = kinds(compared(arms={"real": arms()["real"], "started": started}))
    assert told["shared"].startswith("All seeds of 'started' build on one start. How far another one")
    guided = [cautions.Entrant(Path(), "train-distilled", {"seed": seed}, "", {}, Path(), {}, Path()) for seed in range(2)]
    ((kind, text),) = cautions._shared({"distilled": guided, "once": guided[:1]})
    assert kind == "shared" and "one diffusion model and one taught backbone." in text
    ((_, text),) = cautions._shared({"distilled": [replace(e, settings={**e.settings, "teach": False}) for e in guided]})
    assert "one diffusion model." in text


def test_twins_across_splits_raise_a_banner(data: Path) -> None:
    real = snapshot.read(rundir.find_snapshot("mixed"))
    twin = next(p for p in real.pictures if p.split == "test")
    pictures = [p.__class__(**{**vars(p), "group_id": twin.group_id}) if i == 0 else p for i, p in enumerate(real.by_split("train"))]
    rest = [p for p in real.pictures if p.split != "train"]
    run = rundir.create("combine", {}, state="completed")
    snapshot.write(run, [*pictures, *rest], real.classes, [], dict(name="twins", layout="yolo", seed=0, splits_from="lists"))
    told = kinds(compared(arms={name: [trained(name, 0, "twins")] for name in ("real", "both")}))
    assert "images of 'twins' stand on both sides" in told["near-duplicates"] and "(groups: 1)" in told["near-duplicates"]


def test_looks_of_others_at_the_test_set_are_counted(data: Path) -> None:
    assert compared()["looks"] == 6
    trained("synthetic", 0)
    told = compared()
    assert told["looks"] == 7 and "looked at 7 times, 1 of them for models that are not compared" in kinds(told)["looks"]
    assert cautions.looks("0" * 16) == 0


# ---- which test images belong together

def test_twins_and_lots_are_drawn_together(data: Path) -> None:
    one = Entrant.of(arms()["real"][0])
    ids = sorted(p.image_id for p in snapshot.read(one.snapshot_run).by_split("test"))
    assert together(one, ids) == ([], "")
    first = rundir.find_snapshot("mixed real")
    head, origin = (rundir.read_json(run / "snapshot.json") for run in (one.snapshot_run, first))
    rundir.write_json(one.snapshot_run / "snapshot.json", head | dict(combined_from=origin["snapshot_id"]))
    job = rundir.read_json(first / "job.json")
    rundir.write_json(first / "job.json", job | dict(config=dict(group_pattern=r"(test)-\d")))
    groups, by = together(one, [*ids, f"{ids[0]}-2"])
    assert by == "lot or unit" and list(map(sorted, groups)) == [sorted([*ids, f"{ids[0]}-2"])]


# ---- asked once

def test_equal_questions_have_one_answer(data: Path) -> None:
    asked = arms()
    run_id = jobs.compare(asked)
    assert jobs.compare(asked) == run_id, "also while it waits"
    with pytest.raises(NotFoundError, match="compared nothing yet"):
        jobs.comparison(run_id)
    run_dir = rundir.run_path(run_id)
    with locks.hold(run_dir / "lock"):
        assert worker.carry_out(run_dir) == "completed"
    assert jobs.compare({name: ids[::-1] for name, ids in reversed(asked.items())}, baseline="real", name="again") == run_id
    assert jobs.compare(asked, baseline="both") != run_id
    assert jobs.status(run_id).name == "real / both" and jobs.status(run_id).result["sentence"]


def test_a_comparison_killed_at_its_end_says_the_same(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = Compare(arms=arms())
    run = rundir.create("compare", config.to_json())
    first = compare.run(config, run, silent)
    monkeypatch.setattr(compare, "measure", None)
    assert compare.run(config, run, silent) == first


def test_the_command_line_compares(data: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(command.signal, "signal", lambda *_: None)               # the test's process keeps its own
    assert command.main(["compare", "--arms", ";".join(f"{name}={','.join(ids)}" for name, ids in arms().items()), "--json"]) == 0
    told = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert "both adds" in told["result"]["sentence"].lower() and jobs.comparison(told["run_id"])["differences"][0]["a"] == "both"
    assert waves.standing(Compare(arms=arms())) == rundir.run_path(told["run_id"]), "asked again, nothing is worked out anew"
