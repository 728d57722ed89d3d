"""The synthesis benchmark: draws are what they say, arms are equal but for what they are about, tables say what was run and reached."""

import functools
import json
import os
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from diffusers import DDPMScheduler

from backend.errors import ConfigError
from backend.evaluation import paired
from backend.evaluation.scored import Scored, average_precision
from backend.synthesis.prior import draw
from backend.synthesis.prior.words import caption
from tests.benchmarks import carry, settings, synthesis, synthesis_costs, synthesis_notes, tables
from tests.benchmarks.distillation import remember
from tests.benchmarks.record import SHARED
from tests.benchmarks.sets import NEU, true_boxes
from tests.benchmarks.synthesis_arms import INPAINT, PARTS, planned
from tests.benchmarks.synthesis_compare import PAIRS, comparisons
from tests.benchmarks.synthesis_data import ALL_TILES, LEFT, RARE, ROLLED, STEEL, TAIL, TILES, TRAIN, cut, few, kind, listed
from tests.benchmarks.synthesis_lab import BATCH, DENOISING, GUIDANCE, SHAPES, STRENGTH, Lab, steps_of
from tests.benchmarks.synthesis_record import Taken, compare
from tests.benchmarks.synthesis_score import JUDGED, NEU_TEST, detected, distances, near

CPU = SHAPES["cpu"]
CLASSES = ("crazing", "inclusion", "patches", "pitted_surface", "rolled-in_scale", "scratches")
EVERY = [(part, arm) for part, of in PARTS.items() for arm in of.all]
needs_data = pytest.mark.skipif(not (SHARED / "data" / "NEU-DET").exists(), reason="the data is not here")


@pytest.fixture(scope="module", autouse=True)
def _one_parser() -> Iterator[None]:
    """A plan asks the command line for the settings of each run; making its parser, with a command for each recipe, is all that takes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settings, "parser", functools.cache(settings.parser))
        yield


def lab(seed: int = 0, shape: Any = CPU) -> Lab:
    return Lab(Path(), shape, seed=seed)


# ---- what is drawn

@needs_data
def test_more_images_hold_the_fewer_and_none_is_of_val_or_test() -> None:
    draws = {(n, seed): set(few(n, seed, True).drawn()) for n in (5, 10, 20) for seed in (0, 1)}             # type: ignore[misc]
    for (n, seed), stems in draws.items():
        assert Counter(map(kind, stems)) == dict.fromkeys(CLASSES, n) and stems <= set(listed(ROLLED, "train"))
        assert few(n, seed, False).drawn() == few(n, seed, True).drawn() and len(stems) == few(n, seed, True).size    # type: ignore[misc]
    assert draws[5, 0] < draws[10, 0] < draws[20, 0] and draws[10, 0] != draws[10, 1]
    assert kind("rolled-in_scale_12") == "rolled-in_scale" and set(map(kind, listed(ROLLED, "test"))) == set(CLASSES)


@needs_data
def test_only_the_rare_class_is_cut() -> None:
    lines, cuts = listed(ALL_TILES, "train"), [set(cut(seed).drawn()) for seed in (0, 1)]                    # type: ignore[misc]
    rare = {line for line in lines if line.startswith(f"MT_{TAIL}/")}
    assert (len(lines), len(rare)) == (TRAIN, RARE) and cuts[0] != cuts[1]
    for kept in cuts:
        assert len(kept & rare) == LEFT and set(lines) - rare == kept - rare and len(kept) == cut(0).size


@needs_data
def test_a_dataset_is_imported_from_lists_of_its_own(tmp_path: Path) -> None:
    folder, *words = few(5, 3, by_class=True).words(tmp_path)
    assert {p.name for p in Path(folder).iterdir()} == set(CLASSES) and len(list(Path(folder).rglob("*.jpg"))) == 1800
    assert words[2:] == ["--layout", "class-folders"] and words[0] == "--splits"
    lists = {s: (Path(words[1]) / f"{s}.txt").read_text().split() for s in ("train", "val", "test")}
    assert [len(lists[s]) for s in lists] == [30, 180, 360] and tuple(lists["test"]) == listed(ROLLED, "test")
    assert few(5, 3, by_class=True).words(tmp_path) == (folder, *words)                                      # found again
    assert ROLLED.words(tmp_path)[1:] == ("--splits", str(ROLLED.folder / "splits")) and "det-" in ALL_TILES.words(tmp_path)


# ---- arms

@pytest.mark.parametrize(("part", "arm"), EVERY)
def test_no_prior_learns_from_the_dataset_it_is_for(part: str, arm: str) -> None:
    plan = planned(lab(3), part, arm)
    assert list(plan)[-1].startswith(PARTS[part].recipe) and len(plan) < 9
    for run, config in plan.items():
        if run.startswith("train-prior all but"):
            assert (TILES if part == "tail" else STEEL) not in config["datasets"].split(",") and config["drawn"] == CPU.drawn
        elif run.startswith("train-prior"):
            assert arm.endswith("scratch") and config["datasets"] == f"{STEEL} ({arm.split('-')[0]} 3)" and config["drawn"] == 0
        elif part != "kid" and run.startswith(("adapt-prior", "synthesize", "train-diffusion")):
            material, _, drawn = config["dataset"].removesuffix(")").removesuffix(" boxed").partition(" (")
            assert material == (TILES if part == "tail" else STEEL) and drawn.split()[-1] == "3"
            assert config.get("held_out", 0) == 0 and config["seed"] in (3, 0)


def test_prompts_are_equal_for_all_parts_of_a_material() -> None:
    """Names of datasets stand in them, and each draw has a name of its own, by which its runs are found."""
    told, names = {STEEL: set[str](), TILES: set[str]()}, set[str]()
    for part, arm in EVERY:
        for seed in (0, 3):
            for run, config in planned(lab(seed), part, arm).items():
                if run.startswith(("adapt-prior", "synthesize", "train-prior")) and " all but " not in run:
                    names.add(name := config.get("dataset") or config["datasets"])
                    told[TILES if part == "tail" else STEEL].add(caption(name, "crack"))
    assert told == {name: {f"{name} surface with crack"} for name in (STEEL, TILES)} and len(names) == 1 + 2 * (2 * 3 + 1 + 1)


def test_arms_of_a_part_differ_in_nothing_but_what_is_made() -> None:
    """The last run of each arm, its dataset aside: equal steps and equal settings."""
    for part in ("recognition", "tail", "detection"):
        last = [list(planned(lab(), part, arm).items())[-1] for arm in PARTS[part].all]
        own = ("dataset", "name", "augment", "real_share", "epochs")
        common = [{k: v for k, v in config.items() if k not in own} for _, config in last]
        assert all(c == common[0] for c in common)
    shares = {arm: planned(lab(), "recognition", arm)[f"train-classifier recognition {arm} 0"] for arm in PARTS["recognition"].all}
    assert {a for a, c in shares.items() if c["augment"] == "none"} == {"10-real", "5-real", "20-real"}
    assert {a for a, c in shares.items() if c["real_share"] is None} == {f"{n}-{m}" for n in (5, 10, 20) for m in ("real", "aug")}


def test_made_pictures_cost_no_further_steps() -> None:
    for part, sizes in (("tail", (cut(0).size, CPU.added)), ("detection", (126, 252))):
        plain, *others = (list(planned(lab(), part, arm).values())[-1]["epochs"] for arm in PARTS[part].all)
        steps = plain * steps_of(sizes[0])
        assert BATCH == 16 and others and all(e * steps_of(sum(sizes)) == steps for e in others)


def test_ratios_and_counts_are_those_that_arms_name() -> None:
    counts = {arm: next(c["count"] for r, c in planned(lab(), "recognition", arm).items() if r.startswith("synthesize"))
              for arm in ("10-prior", "10-prior-1", "10-prior-4", "10-prior-8", "5-paste", "20-scratch")}
    assert counts == {"10-prior": 120, "10-prior-1": 60, "10-prior-4": 240, "10-prior-8": 480, "5-paste": 60, "20-scratch": 240}
    starts = {arm: planned(lab(), "kid", arm)[f"synthesize kid {arm} 0"] for arm in PARTS["kid"].all}
    assert {a.split("-")[0]: c["start"] for a, c in starts.items()} == {"image": "image", "noise": "noise"}
    assert starts["image-prompt"]["prior"] == "all but steel" and starts["image-lora"]["prior"].endswith("lora")
    assert {(c["strength"], c["guidance"], c["steps"], c["count"]) for c in starts.values()} == {(STRENGTH, GUIDANCE, CPU.denoising, 120)}
    inpaint = planned(lab(), "tail", "prior")["synthesize tail prior 0"]
    assert (inpaint["start"], inpaint["class_name"], inpaint["prior"]) == ("inpaint", TAIL, "magnetic tile (0) both")


def test_arms_of_kid_share_parents_and_what_they_are_compared_with() -> None:
    """Those of plain words too, which have no adapter that holds images apart; and no setting is searched on what is compared with."""
    for arm in PARTS["kid"].all:
        plan, both = planned(lab(), "kid", arm), f"{STEEL} (by class) both"
        assert plan[f"synthesize kid {arm} 0"]["apart"] == both and f"adapt-prior {both}" in plan
        assert {c["held_out"] for run, c in plan.items() if run.startswith("adapt-prior")} == {0.4}
        assert not any(run.startswith("search") for run in plan)


def test_pasted_images_are_of_one_class_where_a_classifier_learns_from_them() -> None:
    same = {(part, arm): next(c["same_class"] for r, c in planned(lab(), part, arm).items() if r.startswith("synthesize"))
            for part, arm in EVERY if arm.endswith("paste")}
    assert {part for part, _ in same if same[part, _]} == {"recognition"} and sum(same.values()) == 3


def test_seeds_of_kid_are_the_generators_alone() -> None:
    one, other = (planned(lab(seed), "kid", "image-both") for seed in (0, 2))
    assert {r for r in one if one[r] != other.get(r)} == {"synthesize kid image-both 0", "measure-synthesis kid image-both 0"}


def test_figures_of_other_settings_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthesis, "RESULTS", tmp_path)
    path = synthesis.place(CPU, "detection", "prior", 1)
    path.parent.mkdir()
    path.write_text(json.dumps(row := dict(part="detection", arm="prior", seed=1, settings=planned(lab(1), "detection", "prior"))))
    path.with_suffix(".npz").touch()
    synthesis.one(lab(1), "detection", "prior")                                                              # is there, nothing is run
    assert synthesis.finished(CPU)["detection"] == {"prior": {1: row}}
    longer = replace(CPU, adapter=(200, 900))
    for asked in (lambda: synthesis.one(lab(1, longer), "detection", "prior"), lambda: synthesis.finished(longer)):
        with pytest.raises(ConfigError, match=r"detection-prior-1 in synthesis come .*adapt-prior .*lora_steps was 600, is 900"):
            asked()


def test_results_that_are_committed_are_of_equal_settings() -> None:
    """`finished` refuses others; and the table is of all that lies there."""
    for shape in ("cpu", "gpu"):
        file = synthesis.RESULTS / f"{SHAPES[shape].folder}.json"
        shown = json.loads(file.read_text())["arms"] if file.exists() else {}
        found = {f"{part} {arm}": len(rows) for part, arms in synthesis.finished(SHAPES[shape]).items() for arm, rows in arms.items()}
        assert found == {arm: max(map(len, told.values())) for arm, told in shown.items()}


def test_what_is_asked_comes_in_order_of_worth() -> None:
    order = list(synthesis.asked([], [], []))
    assert order[0] == ("kid", "image-both", 0) and len(order) == len(set(order)) == 24 + 5 * 18 + 12 + 9
    tens = [i for i, (part, arm, _) in enumerate(order) if part == "recognition" and arm.startswith("10-")]
    assert max(tens) < min(i for i, (part, arm, _) in enumerate(order) if arm.startswith(("5-", "20-")))
    assert list(synthesis.asked(["recognition"], ["5-aug"], [4])) == [("recognition", "5-aug", 4)]


# ---- what is compared

def answers(folder: Path, skill: float, seed: int, n: int = 20) -> Taken:
    """n test images of each class, of which this share is taken for what it is."""
    rng, stems = np.random.default_rng(seed), [f"{c}_{i}" for c in CLASSES for i in range(n)]
    rows = [dict(file_name=f"{s}.jpg", category=kind(s) if rng.random() < skill else CLASSES[0]) for s in stems]
    (folder / "p.json").write_text(json.dumps(rows))
    (folder / "test.txt").write_text("\n".join(stems))
    return Taken.of(folder / "p.json", folder / "test.txt")


def test_accuracy_counts_every_class_alike(tmp_path: Path) -> None:
    stems = ["crazing_1", "crazing_2", "crazing_3", "patches_1"]
    (tmp_path / "test.txt").write_text("\n".join(stems))
    (tmp_path / "p.json").write_text(json.dumps([dict(file_name=f"{s}.jpg", category="crazing") for s in stems]))
    taken = Taken.of(tmp_path / "p.json", tmp_path / "test.txt")
    assert taken.figures() == {"accuracy": 50.0, "accuracy crazing": 100.0, "accuracy patches": 0.0}
    taken.save(tmp_path / "kept.npz")
    assert Taken.load(tmp_path / "kept.npz").figures() == taken.figures()
    assert taken.accuracy(np.array([[0, 2, 1, 0], [1, 1, 1, 3]])).tolist()[1] == [100, 0] and np.isnan(
        taken.accuracy(np.array([[0.0, 2, 1, 0]]))[0, 1])
    (tmp_path / "p.json").write_text(json.dumps([dict(file_name="crazing_1.jpg", category="crazing")]))
    with pytest.raises(AssertionError, match="one answer for each"):
        Taken.of(tmp_path / "p.json", tmp_path / "test.txt")


def test_a_better_arm_is_told_from_an_equal_one(tmp_path: Path) -> None:
    good, equal, poor = ([answers(tmp_path, skill, s) for s in seeds] for skill, seeds in
                         ((0.9, (0, 1, 2)), (0.9, (3, 4, 5)), (0.7, (6, 7, 8))))
    better, same = compare(good, poor), compare(good, equal)
    assert better.low > 0 and 10 < better.difference < 25 and same.low < 0 < same.high
    assert better.difference == pytest.approx(np.mean([a.figures()["accuracy"] - b.figures()["accuracy"]
                                                       for a, b in zip(good, poor, strict=True)]), abs=0.01)
    with pytest.raises(AssertionError, match="different test sets"):
        compare(good[:1], [answers(tmp_path, 0.9, 0, n=19)])


def boxes(skill: float, seed: int) -> Scored:
    rng = np.random.default_rng(seed)
    truth = {f"t{i}": [((TAIL, "Break")[i % 2], [10.0, 10, 20, 20])] for i in range(40)}
    found = [dict(file_name=name, category=c, bbox=box if rng.random() < skill else [70.0, 70, 9, 9], score=float(rng.random()))
             for name, [(c, box)] in truth.items()]
    return Scored.from_predictions(found, truth, ["Break", TAIL])


def leave(part: str, arm: str, seed: int, figures: dict[str, float], record: Any = None, groups: Any = (), **told: Any) -> None:
    """A result as it would be there."""
    settings = planned(lab(seed), part, arm)
    path = synthesis.place(CPU, part, arm, seed)
    path.write_text(json.dumps(dict(part=part, arm=arm, seed=seed, commit="abc", versions={"python": "3"}, machine="m", seconds=1,
                                    figures=figures, settings=settings, groups=groups, alike=dict(train=800, near_test=len(groups)),
                                    told={run: told.get(run.split()[0], {}) for run in settings})))
    if record is not None:
        record.save(path.with_suffix(".npz"))


def test_the_table_says_what_was_run_and_what_was_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthesis, "RESULTS", tmp_path)
    monkeypatch.setattr("tests.benchmarks.record.RESULTS", tmp_path)
    (tmp_path / CPU.folder).mkdir()
    for arm, kid in (("image-both", 20.0), ("noise-both", 60.0)):
        for seed in (0, 1):
            figures = {"kid": kid + seed, "low": kid - 5, "high": kid + 5, "copied": 0.1, "copied_chance": 0.0176, "diversity": 0.9,
                       "kid crazing": kid}
            leave("kid", arm, seed, figures)
    for arm, skill in (("10-aug", 0.6), ("10-prior", 0.9), ("10-paste", 0.6)):
        for seed in range(4):
            taken = answers(tmp_path, skill, seed + int(100 * skill))
            leave("recognition", arm, seed, taken.figures(), taken, combine=dict(synthetic=90))
    found = boxes(0.8, 5)
    figures = {"map50": round(float(precision_of(found).mean()), 4), "map50_95": 0.1, "ap50 Crack": 0.5, "ap50 Break": 0.5}
    for part, added in (("tail", 100), ("detection", 252)):
        for arm in ("plain", "prior"):
            groups = [["t0", "t1"], ["t2", "t3", "t4"]] if part == "tail" else []
            told = {"train-detector": dict(images=126, epochs=99), "combine": dict(synthetic=added)}
            leave(part, arm, 0, figures, found, groups, **told)
    written = json.loads(synthesis.table(CPU).read_text())
    against = {(c["a"], c["b"], c["metric"]): c for c in written["comparisons"]}
    kid = against["kid image-both", "kid noise-both", "kid"]
    assert (kid["difference"], kid["seeds"]) == (-40, 2) and kid["low"] == pytest.approx(-40 - 50**0.5, abs=1e-3)
    assert against["recognition 10-prior", "recognition 10-aug", "accuracy"]["low"] > 0
    assert against["tail prior", "tail plain", "ap50 Crack"]["difference"] == 0 and against["tail prior", "tail plain", "map50"]
    notes = written["notes"]
    assert "Aim of recognition: 10-prior above 10-aug by 5 points of accuracy; reached: +" in notes
    assert "Aim of detection: prior above plain by 0.03 of map50; open: +0 (+0 to +0), 1 seed." in notes
    assert "Expected of kid: image start below noise start; image-both below noise-both reached: -40 (-47.1 to -32.9), 2 seeds." in notes
    assert "Expected of kid: both adaptations below either alone; not measured yet." in notes
    assert "All seeds share one adapter for each space" in notes and "leave out the luck of adapters" in notes
    assert "near-duplicates drawn together (tail 5 in 2 groups)" in notes
    assert notes.count("stand on both sides of the published lists: 2 of 800 train images nearly equal a test image") == 1
    assert "in some seeds: 10-prior 90; 10-paste 90." in notes and "in some seeds: prior 100." in notes
    assert "Strength 0.6 and guidance 2 in all arms" in notes and "where nothing is copied it is 0.018." in notes
    assert "recognition 10-aug 4" in notes and "kid image-both 2" in notes
    assert "792 steps of 16 in every arm" in notes
    shown = tables.FORMS["synthesis"](written)
    assert "| image-both | 2 | 20.5 ± 0.7 | 0.100 ± 0.000 | 0.900 ± 0.000 | 20.0 ± 0.0 |" in shown
    assert "- `10-prior` against `10-aug`, accuracy: +" in shown and shown.index("| tail |") < shown.index("| detection |")
    assert shown.endswith("Runs made at abc.")


@pytest.mark.parametrize(("low", "high", "seeds", "how"), [
    (-9.0, -1.0, 3, "reached"), (-9.0, 1.0, 3, "open"), (1.0, 9.0, 3, "not reached"), (-9.0, -1.0, 1, "open")])
def test_what_was_expected_is_judged_by_intervals(low: float, high: float, seeds: int, how: str) -> None:
    """Of KID, where less is better, and of an aim as well."""
    told = dict(metric="kid", difference=(low + high) / 2, low=low, high=high, seeds=seeds)
    pairs = synthesis_notes.EXPECTED["both adaptations below either alone"]
    assert set(pairs) <= set(PAIRS["kid"]) and len(pairs) == 4
    said = synthesis_notes.expected([dict(told, a="kid image-both", b="kid image-lora")], "both below", pairs)
    assert said.startswith(f"Expected of kid: both below; image-both below image-lora {how}: ")
    turned = dict(a="tail prior", b="tail plain", metric="map50", difference=-told["difference"], low=-high, high=-low, seeds=seeds)
    assert f"by 0 points; {how}: " in synthesis_notes.aimed([turned], "tail", "prior", "plain", "map50", 0, "points")


@pytest.mark.parametrize("shape", ["cpu", "gpu"])
def test_the_command_names_its_shape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: str) -> None:
    monkeypatch.setattr(synthesis, "RESULTS", tmp_path)
    monkeypatch.setattr("tests.benchmarks.record.RESULTS", tmp_path)
    command = json.loads(synthesis.table(SHAPES[shape]).read_text())["command"]
    assert command == f"python -m tests.benchmarks.synthesis{' --shape gpu' if shape == 'gpu' else ''} --data FOLDER"


def test_near_duplicates_are_drawn_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As each row lists them; rows that list others are of another test set."""
    monkeypatch.setattr(synthesis, "RESULTS", tmp_path)
    monkeypatch.setattr("tests.benchmarks.record.RESULTS", tmp_path)
    (tmp_path / CPU.folder).mkdir()
    groups = [[f"t{i + k}" for k in range(4)] for i in range(0, 40, 4)]
    records = {arm: [boxes(skill, seed) for seed in (1, 2)] for arm, skill in (("plain", 0.5), ("prior", 0.9))}
    for arm, found in records.items():
        for seed, record in enumerate(found):
            leave("tail", arm, seed, {"map50": round(float(precision_of(record).mean()), 4)}, record, groups)
    compared = {c["metric"]: c for c in comparisons(synthesis.finished(CPU), tmp_path / CPU.folder)}["map50"]
    apart, together = (paired.compare(records["prior"], records["plain"], groups=some) for some in (None, groups))
    assert compared["low"] == round(together.low, 4) != round(apart.low, 4) and compared["high"] == round(together.high, 4)
    leave("tail", "prior", 1, {"map50": round(float(precision_of(records["prior"][1]).mean()), 4)}, records["prior"][1], groups[1:])
    with pytest.raises(AssertionError, match="different test sets"):
        comparisons(synthesis.finished(CPU), tmp_path / CPU.folder)


def test_a_row_says_what_is_nearly_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    def pictures(split: str, groups: str) -> list[SimpleNamespace]:
        return [SimpleNamespace(file_name=f"{split}/{split}-{i}.jpg", group_id=g.strip(".")) for i, g in enumerate(groups)]

    splits = {"train": pictures("train", "ac.ad"), "test": pictures("test", "ba.abf")}
    monkeypatch.setattr(Lab, "folder", lambda self, recipe, name: Path(name))
    monkeypatch.setattr(Lab, "read", lambda self, source: source.name)
    monkeypatch.setattr("tests.benchmarks.synthesis_lab.snapshot.read", lambda folder: SimpleNamespace(by_split=splits.__getitem__))
    assert near(lab(), "tail") == dict(groups=[["test-0", "test-4"], ["test-1", "test-3"]], alike=dict(train=5, near_test=2))
    assert near(lab(), "kid") == {} and JUDGED.keys() == {"tail", "detection"}


def precision_of(found: Scored) -> Any:
    return average_precision(found, np.ones(len(found.images)))[0]


def test_a_record_of_another_run_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthesis, "RESULTS", tmp_path)
    monkeypatch.setattr("tests.benchmarks.record.RESULTS", tmp_path)
    (tmp_path / CPU.folder).mkdir()
    for arm, skill in (("10-aug", 0.6), ("10-prior", 0.9)):
        leave("recognition", arm, 0, answers(tmp_path, skill, 0).figures(), answers(tmp_path, 0.5, 9))
    with pytest.raises(AssertionError, match="recognition-10-prior-0 is of another run"):
        synthesis.table(CPU)


def test_what_cannot_be_measured_is_left_out() -> None:
    row = dict(class_name="crazing", kid=None, low=None, high=None, floor=None, copied=0.2, diversity=0.5)
    assert distances(dict(kid=1.0, low=0.0, high=2.0, copied=0.2, copied_chance=None, of_parent=None, diversity=0.5, classes=[row])) == {
        "kid": 1.0, "low": 0.0, "high": 2.0, "copied": 0.2, "diversity": 0.5, "copied crazing": 0.2, "diversity crazing": 0.5}


@needs_data
def test_who_finds_nothing_has_nothing(tmp_path: Path) -> None:
    """As has who finds what is not there, by the published scorer."""
    boxes, figures = true_boxes(NEU / "ANNOTATIONS", NEU_TEST), []
    wrong = [dict(file_name="crazing_1.jpg", category="crazing", bbox=[0, 0, 1, 1], score=0.5)]
    for found in ([], wrong):
        (tmp_path / "found.json").write_text(json.dumps(found))
        figures.append(detected(tmp_path / "found.json", boxes, NEU / "ANNOTATIONS", NEU_TEST))
        remember(tmp_path / "found.json", boxes, tmp_path / "found.npz")
        assert precision_of(Scored.load(tmp_path / "found.npz")).mean() == 0
    assert figures[0] == figures[1] and len(figures[0]) == 8 and not any(figures[0].values())


def test_the_costs_follow_the_shape() -> None:
    told, longer = synthesis_costs.pieces(CPU), synthesis_costs.pieces(replace(CPU, classifier=2 * CPU.classifier))
    assert {n for n in told if longer[n] > told[n]} == {n for n in told if n.startswith("recognition")}
    assert all(f"{part}, " in "".join(told) for part in PARTS) and "recognition, 10-scratch" in synthesis_costs.estimated(CPU)


def test_drawing_costs_all_its_steps_whatever_the_strength() -> None:
    """As the solver's own chain has them."""
    prior = SimpleNamespace(schedule=DDPMScheduler(1000))
    assert {len(draw.solver(prior, DENOISING, s).timesteps) for s in (STRENGTH, INPAINT, 1.0)} == {DENOISING}      # type: ignore[arg-type]
    one, two = (synthesis_costs.pieces(replace(CPU, denoising=n))["kid, an arm"] for n in (DENOISING, 2 * DENOISING))
    assert two - one == pytest.approx(6 * CPU.made * DENOISING * 2 * synthesis_costs.PASS / 60)


# ---- the machine with a GPU

def test_the_gpu_script_runs_the_arms_that_are_asked() -> None:
    script = Path(synthesis.__file__).parent / "gpu_synthesis.sh"
    clean = {k: v for k, v in os.environ.items() if k not in ("SEEDS", "PARTS")}
    done = subprocess.run(["bash", str(script), "chains"], env=clean, capture_output=True, text=True, check=True)
    lines = [line.split() for line in done.stdout.splitlines()]
    named = [(part, arm, int(seed)) for _, part, seed, *arms in lines if part != "shared" for arm in arms]
    assert len(named) == len(set(named)) and set(named) == set(synthesis.asked([], [], []))
    assert [rest for _, *rest in lines[:2]] == [["shared", "steel"], ["shared", "tile"]]
    early = {arm.split("-")[1] for data, _, _, *arms in lines if data == "NEU-DET" for arm in arms}
    assert early == {"aug", "real", "paste", "scratch"}                                                         # these need no prior


def test_chains_wait_for_their_data(tmp_path: Path) -> None:
    script, environment = Path(synthesis.__file__).parent / "gpu_synthesis.sh", {**os.environ, "BASE": str(tmp_path), "SHAPE": "check",
                                                                                 "WAIT": "0", "SEEDS": "0", "PARTS": "recognition"}
    (tmp_path / "synthesis-check").mkdir()
    told = []
    for part in ("NEU-DET", "PIPED", "magnetic-tile"):
        (tmp_path / f"{part}.tar.xz").touch()
        done = subprocess.run(["bash", str(script), "fed"], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
        told.append(done.stdout.splitlines())
    assert told[0] == told[1] == ["recognition 0 10-aug 10-real 10-paste 10-scratch"] and len(told[2]) == 5


def test_what_travels_fits_the_commands() -> None:
    """Sizes as packed; the working tree may grow by a MiB."""
    sizes = dict(zip(carry.SYNTHESIS, (6.6, 16.4, 24.6, 7.7, 48.7), strict=True))
    found = carry.calls(14.9, 21.4, sizes)
    assert [list(parts) for parts in found] == [["site", "peft", "lite0"], ["NEU-DET", "PIPED"], ["magnetic-tile"]]
    assert all(14.9 + sum(parts.values()) <= carry.LIMIT for parts in found)
    assert "transformers" in carry.pins((Path(carry.ROOT) / "requirements.lock").read_text(), carry.PRIOR)


@pytest.mark.slow
@needs_data
def test_an_arm_goes_through_the_products_own_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthesis, "RESULTS", tmp_path / "results")
    (tmp_path / "results").mkdir()
    (tmp_path / "data").mkdir()
    here = Lab(tmp_path / "data", SHAPES["check"], seed=1)
    synthesis.one(here, "recognition", "5-paste")
    told = json.loads((tmp_path / "results" / "synthesis-check" / "recognition-5-paste-1.json").read_text())
    assert set(told["figures"]) == {"accuracy", *(f"accuracy {c}" for c in CLASSES)}
    assert told["told"]["synthesize recognition 5-paste 1"]["images"] > 30
    trained = told["told"]["train-classifier recognition 5-paste 1"]
    assert trained["synthetic"] > 30 and trained["steps"] == SHAPES["check"].classifier
    before = sorted((tmp_path / "data" / "runs").iterdir())
    synthesis.one(here, "recognition", "5-paste")
    assert sorted((tmp_path / "data" / "runs").iterdir()) == before
