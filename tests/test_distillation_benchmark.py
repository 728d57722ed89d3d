"""The harness of the distillation benchmark: equal settings for all arms, nothing reused that was made with others, true boxes."""

import functools
import importlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from backend import rundir
from backend.config import TrainDetector
from backend.errors import ConfigError
from tests.benchmarks import carry, distillation, settings
from tests.benchmarks.arms import ARMS, SHAPES, Lab, planned
from tests.benchmarks.record import scored
from tests.benchmarks.sets import SETS, TILE, true_boxes

CPU = SHAPES["cpu"]
TILES = SETS["magnetic-tile"]
WORDS = ("--steps", str(CPU.denoiser))           # of the denoiser


@pytest.fixture(scope="module", autouse=True)
def _one_parser() -> Iterator[None]:
    """A plan asks the command line for the settings of each run; making its parser, with a command for each recipe, is all that takes."""
    importlib.import_module(settings.OWN)                   # its recipe has a command too
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settings, "parser", functools.cache(settings.parser))
        yield


@pytest.fixture
def lab(data_folder: Path) -> Lab:
    return Lab(data_folder, CPU)


def kept(lab: Lab, recipe: str, name: str, *words: str, state: str = "completed", **others: Any) -> str:
    """A run as it would be there, some settings others; its id."""
    config = settings.asked(recipe, "--dataset", lab.dataset.name, "--name", name, *words)
    run = rundir.create(recipe, {k: v for k, v in {**config, **others}.items() if v != "unsaid"})
    rundir.set_state(run, state)
    return run.name


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW", "MuSGD"])
def test_every_detector_has_the_same_optimiser(lab: Lab, optimizer: str) -> None:
    """Teachers and rivals too: one word changes it."""
    changed, detectors, odd = replace(lab, shape=replace(CPU, optimizer=optimizer)), set(), []
    for arm in ARMS:
        for run, config in planned(changed, arm).items():
            if "epochs" in config:
                detectors.add(run.split()[1])
                odd += [run] if (config["optimizer"], config["learning_rate"]) != (optimizer, None) else []
    assert not odd and {f"{arm}-0" for arm in ARMS} | {"larger-0", "fused-10-0"} <= detectors


def test_a_plan_names_what_an_arm_builds_on(lab: Lab) -> None:
    plan = planned(replace(lab, seed=2, dataset=TILES), "ddpm-taught-distilled")
    assert list(plan) == ["train-diffusion ddpm", "build-repository features", "teach-backbone backbone-2", "train-fused fused-taught-2",
                          "distill ddpm-taught-distilled-2"]
    assert {config["dataset"] for config in plan.values()} == {"magnetic-tile"} and not list(lab.data.glob("runs/*train*"))
    assert plan["distill ddpm-taught-distilled-2"]["teacher"] == "fused-taught-2"
    longer = planned(lab, "plain-longer")["train-detector plain-longer-0"]
    assert longer["epochs"] == 180 and planned(lab, "plain")["train-detector plain-0"]["epochs"] == 40


def test_a_finished_run_is_found_where_its_settings_are_equal(lab: Lab) -> None:
    """One of an older program that left the choice to the machine or did not have the setting yet is equal too."""
    words = ("--epochs", "40", "--imgsz", "224", "--precision", "bf16", "--seed", "0")
    kept(lab, "train-diffusion", "ddpm", *WORDS)
    kept(lab, "train-detector", "plain-0", *words, optimizer="unsaid", labels="unsaid", learning_rate=0.01)
    lab = replace(lab, shape=replace(CPU, optimizer="SGD"))
    assert lab.denoiser() == "ddpm" and lab.plain() == "plain-0"
    assert len(list(lab.data.glob("runs/*-train-*"))) == 2


@pytest.mark.parametrize(("state", "others", "sentence"), [
    ("completed", dict(steps=2000), "steps was 2000, is 1200"), ("interrupted", dict(side=128), "side was 128, is 256"),
    ("completed", dict(steps=7, dataset="magnetic-tile"), "dataset was magnetic-tile, is neu-det; steps was 7, is 1200")])
def test_a_run_of_other_settings_is_not_reused(lab: Lab, state: str, others: dict[str, Any], sentence: str) -> None:
    run = kept(lab, "train-diffusion", "ddpm", *WORDS, state=state, **others)
    with pytest.raises(ConfigError, match=f"ddpm is there already, as the run {run}, but with other settings: {sentence}. Take another"):
        lab.features()
    assert len(list(lab.data.glob("runs/*-train-*"))) == 1


def test_arithmetic_follows_from_the_processor_and_the_table_says_so(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = []
    for native in (True, False, False):
        monkeypatch.setattr(settings, "computes_bf16", lambda native=native: native)
        rows.append(dict(arm="ddpm-taught", seed=len(rows), settings=planned(lab, "ddpm-taught")))
        for row in rows:
            distillation.refuse_others(lab, row)                       # made on the other kind of processor, and no other for that
    assert {run["precision"] for run in rows[0]["settings"].values() if "precision" in run} == {"bf16"}
    assert "1 rows; in float32, in whole or in part, elsewhere: ddpm-taught 1, ddpm-taught 2." in settings.arithmetic(rows)
    assert settings.arithmetic(rows[:1]) == "Trained in bf16."
    assert settings.arithmetic(rows[1:]) == "Trained in float32, on processors without bf16."
    assert settings.arithmetic([dict(settings={})]) == ""

    kept(lab, "train-diffusion", "ddpm", *WORDS, precision="bf16")         # found as it was made, by a program that asked for bf16
    used = lab.used(planned(lab, "ddpm-taught"))
    assert used["train-diffusion ddpm"]["precision"] == "bf16" and used["teach-backbone backbone-0"]["precision"] == "f32"


def test_another_optimiser_is_another_run(lab: Lab) -> None:
    kept(lab, "train-detector", "plain-0", "--epochs", "40", "--imgsz", "224", "--precision", "bf16", "--seed", "0")
    with pytest.raises(ConfigError, match=r"learning_rate was 0\.01, is 0\.001; optimizer was SGD, is AdamW"):
        replace(lab, shape=replace(CPU, optimizer="AdamW")).plain()


def test_a_canceled_run_of_other_settings_is_begun_anew(lab: Lab) -> None:
    """It left nothing. What is begun is the product's command, which fails here for want of a dataset."""
    kept(lab, "train-diffusion", "ddpm", *WORDS, state="canceled", steps=2000)
    with pytest.raises(subprocess.CalledProcessError):
        lab.denoiser()
    runs = [rundir.read_json(p) for p in lab.data.glob("runs/*-train-diffusion-*/job.json")]
    assert sorted(r["config"]["steps"] for r in runs) == [1200, 2000]


def test_figures_of_other_settings_are_refused(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where only what an arm builds on has changed; a result that is there is neither kept nor tabled beside others."""
    monkeypatch.setattr(distillation, "RESULTS", tmp_path)
    row = dict(arm="ddpm-taught", seed=0, settings=planned(lab, "ddpm-taught"))
    path = distillation.place(lab, "ddpm-taught")
    path.parent.mkdir()
    path.write_text(json.dumps(row))
    path.with_suffix(".npz").touch()
    distillation.one(lab, "ddpm-taught")
    assert distillation.finished(lab) == {"ddpm-taught": {0: row}}
    longer = replace(lab, shape=replace(CPU, denoiser=4000))
    for asked in (lambda: distillation.one(longer, "ddpm-taught"), lambda: distillation.finished(longer)):
        with pytest.raises(ConfigError, match=r"ddpm-taught-0 in distillation come .*train-diffusion ddpm: steps was 1200, is 4000\)"):
            asked()


def test_results_that_are_committed_are_of_equal_settings() -> None:
    """`finished` refuses others; and what README shows is all that lies there."""
    for shape in ("cpu", "gpu"):
        for dataset in SETS.values():
            lab = Lab(Path(), SHAPES[shape], dataset)
            table = distillation.RESULTS / f"{lab.results}.json"
            shown = json.loads(table.read_text())["arms"] if table.exists() else {}
            found = {arm: len(rows) for arm, rows in distillation.finished(lab).items()}
            assert found == {arm: len(told["map50"]) for arm, told in shown.items()}


def test_each_dataset_has_its_own_results() -> None:
    names = {Lab(Path(), SHAPES[shape], dataset).results for shape in ("cpu", "gpu") for dataset in SETS.values()}
    assert names == {"distillation", "distillation-gpu", "distillation-tile", "distillation-tile-gpu"}


# ---- the second dataset

def few_tiles(folder: Path) -> None:
    """Two listed tiles of each kind for each list, with their masks."""
    (folder / "splits").mkdir(parents=True)
    for split in ("train", "val", "test"):
        listed = (TILE / "splits" / f"det-{split}.txt").read_text().split()
        kinds = sorted({line.split("/")[0] for line in listed})
        chosen = [line for kind in kinds for line in [x for x in listed if x.startswith(f"{kind}/")][:2]]
        for line in chosen:
            (folder / line).parent.mkdir(parents=True, exist_ok=True)
            for suffix in (".jpg", ".png"):
                shutil.copy(TILE / Path(line).with_suffix(suffix), folder / Path(line).with_suffix(suffix))
        (folder / "splits" / f"det-{split}.txt").write_text("\n".join(chosen))


@pytest.mark.skipif(not TILE.exists(), reason="the dataset is not here")
def test_magnetic_tile_is_imported_and_its_truth_is_what_the_masks_say(data_folder: Path, tmp_path: Path) -> None:
    few_tiles(tmp_path / "tiles")
    few = replace(TILES, folder=tmp_path / "tiles", images=tmp_path / "tiles")
    lab = Lab(data_folder, CPU, few)
    lab.imported()
    lab.imported()
    assert len(list(lab.data.glob("runs/*-import-*"))) == 1
    head = rundir.read_json(lab.folder("import", "magnetic-tile") / "snapshot.json")
    assert head["layout"] == "mask-beside" and head["classes"] == ["Blowhole", "Break", "Crack", "Fray", "Uneven"]
    assert head["images"] == dict(train=12, val=12, test=12)

    found = true_boxes(lab.annotations, few.test)
    expected = {Path(line).stem: boxes_of(tmp_path / "tiles" / line) for line in few.test.read_text().split()}
    assert {k: sorted(v) for k, v in found.items()} == expected and sum(not v for v in expected.values()) >= 2
    answers = [dict(file_name=f"{stem}.jpg", category=c, bbox=box, score=0.9) for stem, boxes in expected.items() for c, box in boxes]
    (tmp_path / "found.json").write_text(json.dumps(answers))
    score = scored(tmp_path / "found.json", lab.annotations, few.test)
    assert (score["map50_95"], score["images"], score["boxes"]) == (1.0, 12, len(answers)) and len(score["ap50"]) == 5
    distillation.remember(tmp_path / "found.json", found, tmp_path / "found.npz")
    assert distillation.Scored.load(tmp_path / "found.npz").boxes.sum() == len(answers)


def boxes_of(picture: Path) -> list[tuple[str, list[float]]]:
    """Boxes of the white regions of the mask beside a picture."""
    kind = picture.parent.parent.name.removeprefix("MT_")
    labelled, _ = ndimage.label(np.asarray(Image.open(picture.with_suffix(".png")).convert("L")) > 127, np.ones((3, 3)))
    large = [s for n, s in enumerate(ndimage.find_objects(labelled), 1) if (labelled == n).sum() >= 4 and kind != "Free"]
    return sorted((kind, [float(x.start), float(y.start), float(x.stop - x.start), float(y.stop - y.start)]) for y, x in large)


# ---- the machine with a GPU

@pytest.mark.parametrize("name", list(SETS))
def test_the_gpu_script_runs_the_arms_that_are_asked(name: str) -> None:
    script = Path(distillation.__file__).parent / "gpu.sh"
    done = subprocess.run(["bash", str(script), "chains"], env={**os.environ, "SET": name}, capture_output=True, text=True, check=True)
    first, *chains = done.stdout.splitlines()
    named: dict[str, set[int]] = {}
    for seed, *arms in map(str.split, chains):
        for arm in arms:
            named.setdefault(arm, set()).add(int(seed))
    wanted = SETS[name].arms or ("plain", "self", *distillation.OURS, "fused", "fused-taught")
    assert first == "shared" and named == {arm: set(SETS[name].seeds) for arm in wanted}
    assert set(distillation.OURS) | set(distillation.RIVALS) | set(distillation.CONTROLS) | set(wanted) <= set(ARMS)


def test_what_is_too_large_travels_with_a_second_command() -> None:
    parts = carry.calls(12.6, 21.4, {"NEU-DET": 24.6, "magnetic-tile": 48.7})
    assert [list(p) for p in parts] == [["site", "NEU-DET"], ["magnetic-tile"]]
    assert len(carry.calls(12.6, 21.4, {"NEU-DET": 24.6})) == 1
    with pytest.raises(SystemExit, match="magnetic-tile is too large to travel: 64.7 of 64 MiB"):
        carry.calls(16.0, 21.4, {"magnetic-tile": 48.7})


def test_settings_that_a_command_has_are_those_of_its_run(data_folder: Path) -> None:
    assert settings.asked("train-detector", "--name", "x", "--optimizer", "MuSGD") == TrainDetector(name="x", optimizer="MuSGD").to_json()
    rival = settings.asked("train-rival", "--name", "x", "--teacher", "larger-0")
    assert rival["teacher"] == "larger-0" and settings.differing("train-rival", rival, {**rival, "teacher": "y"}) == (
        "teacher was larger-0, is y")


def test_what_is_worth_most_is_run_first() -> None:
    order = distillation.order(list(ARMS), (0, 1, 2))
    assert order[:5] == [(arm, 0) for arm in distillation.FIRST] and order[10:15] == [(arm, 2) for arm in distillation.FIRST]
    assert order[-5:] == [(arm, 0) for arm in distillation.CONTROLS], "controls last, and with one seed"
    assert len(order) == len(set(order)) == 3 * (len(ARMS) - 5) + 5
    assert distillation.order(["plain", "fused"], [1]) == [("plain", 1), ("fused", 1)]


def test_aims_are_told_by_their_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    """One seed against one shows no spread between seeds, so whatever its interval says is open."""
    def compared(a: str, b: str, difference: float, low: float, high: float, seeds: int = 3, other: int = 3) -> dict[str, Any]:
        return dict(a=a, b=b, metric="map50", difference=difference, low=low, high=high, seeds=seeds, seeds_b=other)

    found = [compared("fused", "plain", 0.07, 0.061, 0.08), compared("ddpm-taught", "plain", 0.05, 0.03, 0.07, 1),
             compared("ddpm-taught-10", "plain-10", 0.02, -0.01, 0.05), compared("ddpm-distilled-10", "plain-10", 0.02, -0.01, 0.05, 1, 1),
             compared("self", "plain", 0.2, 0.1, 0.3), compared("ddpm-taught", "self", 0.02, 0.01, 0.03),
             compared("ddpm-distilled", "shuffled-keys", -0.02, -0.03, -0.01), compared("ddpm-distilled", "no-filter", 0.1, 0.1, 0.1)]
    monkeypatch.setattr(distillation, "comparisons", lambda *_: found)
    monkeypatch.setattr(distillation, "best_of_ours", lambda runs: ["ddpm-taught"])
    said = distillation.aimed({}, None)                                        # type: ignore[arg-type]
    assert said == ("Aims, map50: fused above plain reached (+7.0 of 6 points); ddpm-taught above plain open (+5.0 of 6 points); "
                    "ddpm-taught-10 above plain-10 not reached (+2.0 of 10 points); ddpm-distilled-10 above plain-10 open (+2.0 of 10 "
                    "points); ddpm-taught above self reached (+2.0); ddpm-distilled above shuffled-keys not reached (-2.0).")


def test_all_seeds_of_both_arms_and_near_duplicates_together_make_an_interval() -> None:
    """From the committed records: with the spread of three seeds of plain an interval is wider than from one; a row that tells of
    near-duplicates tells it for all."""
    lab = Lab(Path(), CPU)
    runs = {arm: rows for arm, rows in distillation.finished(lab).items() if arm in ("plain", "ddpm-taught")}
    alone = {arm: {0: {**rows[0], "groups": []}} for arm, rows in runs.items()}
    rows = {arm: {seed: {**row, "groups": []} for seed, row in rows.items()} for arm, rows in runs.items()}
    all_, one = ({c["metric"]: c for c in distillation.comparisons(some, lab)}["map50"] for some in (rows, alone))
    assert (one["seeds"], one["seeds_b"], all_["seeds_b"], all_["groups"]) == (1, 1, len(runs["plain"]), 360) and all_["seeds_b"] > 1
    assert all_["high"] - all_["low"] > 1.3 * (one["high"] - one["low"])
    names = [str(n) for n in distillation.recorded(lab, runs["plain"][0]).images]            # type: ignore[union-attr]
    rows["plain"][1]["groups"] = [names[:3], names[7:9]]
    assert {c["groups"] for c in distillation.comparisons(rows, lab)} == {357}
    assert "5 near-duplicates of them in 2 groups" in distillation.grouped(rows) and distillation.grouped(alone) == ", each by itself"


def test_the_best_of_ours_is_best_on_seeds_that_all_of_them_have() -> None:
    runs = {arm: {seed: dict(result=dict(val_map50=v)) for seed, v in told.items()} for arm, told in
            (("plain", {0: 0.9}), ("ddpm-taught", {0: 0.72, 1: 0.80}), ("ddpm-distilled", {0: 0.73}))}
    assert distillation.best_of_ours(runs) == ["ddpm-distilled"]
    assert distillation.best_of_ours({**runs, "ddpm-distilled": {2: dict(result=dict(val_map50=0.73))}}) == []
