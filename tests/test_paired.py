"""Comparisons: the same averages as the evaluator's, and intervals that hold what they promise, on data where the truth is known."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from backend.errors import ConfigError, InputError
from backend.evaluation import detection as evaluation
from backend.evaluation import scored
from backend.evaluation.paired import Scored, average_precision, compare
from tests.benchmarks import arms, distillation, record, tables
from tests.benchmarks.arms import SHAPES, Lab
from tests.test_evaluation import SCORER, crowd, guess

SIDE = 40.0


def listed(seed: int) -> tuple[list[evaluation.Prediction], evaluation.Truth]:
    """The evaluator's crowd, without what nobody lists."""
    guesses, truth = crowd(seed)
    return [g for g in guesses if g["score"] >= evaluation.FLOOR], truth


def plates(rng: np.random.Generator, n: int) -> evaluation.Truth:
    return {f"{i:03d}.png": [("ab"[rng.integers(2)], [60.0 * k, 0.0, SIDE, SIDE]) for k in range(rng.integers(1, 4))] for i in range(n)}


def trained(rng: np.random.Generator, truth: evaluation.Truth, skill: dict[str, float], ease: np.ndarray) -> Scored:
    """A run that finds a box of class c in image i with odds exp(skill[c] + ease[i]), more or less exactly, and gives false alarms."""
    found = []
    for bonus, (name, boxes) in zip(ease, truth.items(), strict=True):
        for category, (x, y, w, h) in boxes:
            hit = rng.random() < 1 / (1 + np.exp(-skill[category] - bonus))
            off = SIDE * (rng.uniform(0, 0.25) if hit else rng.uniform(0.6, 1))
            found.append(guess(name, category, [x + off, y, w, h], float(np.clip(rng.normal(0.6 if hit else 0.4, 0.15), 0.01, 1))))
        found += [guess(name, "ab"[rng.integers(2)], [float(rng.uniform(0, 150)), 50.0, SIDE, SIDE], float(rng.uniform(0.01, 0.7)))
                  for _ in range(rng.poisson(1))]
    return Scored.from_predictions(found, truth, ["a", "b"])


def recipes(seed: int, n: int = 60, seeds: int = 3, better: float = 0.0) -> tuple[list[Scored], list[Scored]]:
    """Two recipes on one test set; `a` is better at class a. What is hard is so for both, but each has images and seeds of luck."""
    rng = np.random.default_rng(seed)
    truth, ease = plates(rng, n), rng.normal(0, 1, n)
    arms = []
    for bonus in (better, 0.0):
        own = ease + rng.normal(0, 0.5, n)
        luck = rng.normal(0, 0.3, seeds)
        arms.append([trained(rng, truth, {"a": 1 + extra + bonus, "b": 1 + extra}, own) for extra in luck])
    return arms[0], arms[1]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_equals_the_evaluator(seed: int) -> None:
    guesses, truth = listed(seed)
    expected = evaluation.evaluate(guesses, truth, list("abcde"))
    scored = Scored.from_predictions(guesses, truth, list("abcde"))
    ap50, ap50_95 = average_precision(scored, np.ones(len(truth)))
    assert 0.05 < expected["map50_95"] < expected["map50"] < 0.95
    assert dict(zip(scored.classes, ap50, strict=True)) == pytest.approx(expected["ap50"], abs=5.1e-5)
    assert (ap50.mean(), ap50_95.mean()) == pytest.approx((expected["map50"], expected["map50_95"]), abs=5.1e-5)


@pytest.mark.skipif(not SCORER.exists(), reason="the independent scorer is not here")
def test_equals_the_published_scorer(tmp_path: Path) -> None:
    guesses, truth = listed(3)
    names = {name: i for i, name in enumerate(truth)}
    marks = [(names[name], "abcd".index(c), b) for name in truth for c, b in truth[name]]
    (tmp_path / "found.json").write_text(json.dumps(guesses))
    (tmp_path / "truth.json").write_text(json.dumps(dict(
        images=[dict(id=i, file_name=n) for n, i in names.items()], categories=[dict(id=i, name=c) for i, c in enumerate("abcd")],
        annotations=[dict(id=k, image_id=i, category_id=c, bbox=b) for k, (i, c, b) in enumerate(marks)])))
    done = subprocess.run([sys.executable, str(SCORER), str(tmp_path / "found.json"), str(tmp_path / "truth.json")],
                          capture_output=True, text=True, timeout=120, check=True)
    theirs = json.loads(done.stdout)
    ap50, ap50_95 = average_precision(Scored.from_predictions(guesses, truth, list("abcd")), np.ones(len(truth)))
    assert (ap50.mean(), ap50_95.mean()) == pytest.approx((theirs["map50"], theirs["map50_95"]), abs=5.1e-5)


def test_weights_are_copies_of_images() -> None:
    """An image of weight 3 counts as three images would; one of weight 0 as none."""
    rng = np.random.default_rng(0)
    guesses, truth = listed(4)
    guesses = [{**g, "score": float(s)} for g, s in zip(guesses, rng.permutation(len(guesses)) / len(guesses) + 0.001, strict=True)]
    scored = Scored.from_predictions(guesses, truth, list("abcd"))
    weights = rng.integers(0, 4, (3, len(truth)))
    ours = [ap.mean(axis=1) for ap in average_precision(scored, weights)]
    for k, row in enumerate(weights):
        times = dict(zip(map(str, scored.images), row, strict=True))
        expected = evaluation.evaluate([{**g, "file_name": f"{g['file_name']}+{i}"} for g in guesses for i in range(times[g["file_name"]])],
                                       {f"{name}+{i}": boxes for name, boxes in truth.items() for i in range(times[name])}, list("abcd"))
        assert (ours[0][k], ours[1][k]) == pytest.approx((expected["map50"], expected["map50_95"]), abs=5.1e-5)


def test_on_thousands_of_images_it_counts_otherwise_and_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    guesses, truth = listed(5)
    record, weights = Scored.from_predictions(guesses, truth, list("abcd")), np.random.default_rng(0).integers(0, 4, (30, len(truth)))
    product = average_precision(record, weights)
    monkeypatch.setattr(scored, "PRODUCT", 0)
    assert np.array_equal(average_precision(record, weights), product)


def test_a_class_that_was_not_drawn_has_no_figure() -> None:
    truth: evaluation.Truth = {"a.png": [("pit", [0, 0, 9, 9])], "b.png": [("crack", [0, 0, 9, 9])], "good.png": []}
    scored = Scored.from_predictions([guess("a.png", "pit", [0, 0, 9, 9], 0.5), guess("b.png", "pit", [0, 0, 9, 9], 0.9)], truth,
                                     ["crack", "pit", "spot"])
    ap50, _ = average_precision(scored, np.array([[1, 0, 5], [1, 1, 0], [0, 1, 0]]))
    assert list(scored.classes) == ["crack", "pit"]
    assert ap50 == pytest.approx(np.array([[np.nan, 1], [0, 0.5], [0, np.nan]]), nan_ok=True)


def test_record_survives_the_disk_and_is_small(tmp_path: Path) -> None:
    guesses, truth = listed(5)
    scored = Scored.from_predictions(guesses, truth, list("abcd"))
    scored.save(tmp_path / "run.npz")
    back = Scored.load(tmp_path / "run.npz")
    assert list(back.images) == sorted(truth) and (tmp_path / "run.npz").stat().st_size < 4 * len(guesses) + 4000
    assert compare([back], [scored], "map50_95", rounds=50).difference == 0
    assert np.array_equal(average_precision(back, np.ones(40)), average_precision(scored, np.ones(40)))


def test_damaged_record_is_refused(tmp_path: Path) -> None:
    scored = Scored.from_predictions(*listed(5), list("abcd"))
    scored.save(tmp_path / "run.npz")
    whole = (tmp_path / "run.npz").read_bytes()
    for bad in (b"", b"no record", whole[:len(whole) // 2], whole[:300] + b"\xff" * 200 + whole[500:]):
        (tmp_path / "bad.npz").write_bytes(bad)
        with pytest.raises(InputError, match=r"bad\.npz is not a record"):
            Scored.load(tmp_path / "bad.npz")


def test_a_run_does_not_differ_from_itself() -> None:
    a, _ = recipes(0, n=30)
    same = compare(a, a, "map50_95", rounds=200)
    assert (same.difference, same.low, same.high) == (0, 0, 0)
    assert all((c.difference, c.low, c.high) == (0, 0, 0) for c in same.classes.values())


def test_finds_a_planted_improvement_where_it_was_planted() -> None:
    a, b = recipes(1, n=120, better=2.5)
    found, back = compare(a, b, rounds=500), compare(b, a, rounds=500)
    assert 0 < found.low < found.difference < found.high and back.high < 0
    assert back.difference == -found.difference
    assert found.corrected["a"].low > 0 and found.classes["b"].low < 0 < found.classes["b"].high
    assert compare(a, b, "map50_95", rounds=500).low > 0
    each = [np.mean([average_precision(s, np.ones(120))[0] for s in arm], axis=0) for arm in (a, b)]      # (classes,)
    assert found.difference == pytest.approx((each[0] - each[1]).mean())
    assert found.classes["a"].difference == pytest.approx(each[0][0] - each[1][0])


def test_interval_covers_a_difference_of_zero() -> None:
    """A hundred pairs of equal recipes, three seeds each: 95 of their intervals should hold zero; less luck, 90 to 99."""
    intervals = [compare(*recipes(s, n=36), rounds=200, seed=s) for s in range(100)]
    assert 90 <= sum(i.low <= 0 <= i.high for i in intervals) <= 99
    assert np.std([i.difference for i in intervals]) > 0.02                   # the recipes of a pair do come out differently


def test_says_what_it_covers() -> None:
    one = compare(*recipes(0, n=30, seeds=1), rounds=100)
    assert one.seeds == (1, 1) and one.low < one.high and one.covers.startswith("30 images; one seed, so it says nothing of how another")
    a, b = recipes(7, seeds=3)
    assert compare(a, b, rounds=50).covers == "3 seeds and 60 images"
    assert compare(a, b[:2], rounds=50).covers == "2 and 3 seeds and 60 images"


def test_unequally_many_seeds_are_drawn_apart() -> None:
    a, b = recipes(2, better=3.0)
    uneven = compare(a, b[:2], rounds=500)
    assert uneven.seeds == (3, 2) and uneven.low > 0
    assert uneven.difference == pytest.approx(np.mean([compare([x], [y], rounds=1).difference for x in a for y in b[:2]]))


def test_copies_of_one_image_are_no_new_evidence() -> None:
    """Each image four times: taken for 160 images the interval is half as wide as it should be; as groups it is as with 40."""
    rng = np.random.default_rng(3)
    truth, ease = plates(rng, 40), rng.normal(0, 1, 40)
    four = [f"{i:03d}.png" for i in range(160)]
    runs = [trained(rng, truth, {"a": skill, "b": skill}, ease) for skill in (1.5, 1.0)]
    copies = [replace(r, images=np.array(four), boxes=np.tile(r.boxes, (4, 1)), ends=r.ends * 4, score=np.repeat(r.score, 4),
                      hits=np.repeat(r.hits, 4), image=(np.repeat(r.image, 4) + np.tile([0, 40, 80, 120], len(r.image)))) for r in runs]
    once, naive, honest = (compare([x[0]], [x[1]], rounds=1000, groups=groups) for x, groups in (
        (runs, None), (copies, None), (copies, [four[i::40] for i in range(40)])))
    width = once.high - once.low
    assert once.difference == pytest.approx(naive.difference, abs=0.01) and (naive.groups, honest.groups) == (160, 40)
    assert naive.high - naive.low == pytest.approx(width / 2, rel=0.2)
    assert honest.high - honest.low == pytest.approx(width, rel=0.1)


def test_correction_widens() -> None:
    found = compare(*recipes(4), rounds=1000)
    assert all(found.corrected[c].low < found.classes[c].low < found.classes[c].high < found.corrected[c].high for c in "ab")


def test_different_test_sets_are_refused() -> None:
    guesses, truth = listed(6)
    whole = Scored.from_predictions(guesses, truth, list("abcd"))
    fewer = Scored.from_predictions(guesses, {k: v for k, v in truth.items() if k not in ("image-3.png", "image-7.png")}, list("abcd"))
    moved = Scored.from_predictions(guesses, {**truth, "image-0.png": [("a", [0.0, 0.0, 9.0, 9.0])]}, list("abcd"))
    with pytest.raises(ConfigError, match=r"different test sets: 2 images .* instance image-3\.png\. Score all"):
        compare([whole], [fewer])
    with pytest.raises(ConfigError, match="different labels of the same images"):
        compare([whole, whole], [whole, moved])
    good = Scored.from_predictions([], {"a.png": [], "b.png": []}, ["pit"])
    with pytest.raises(ConfigError, match="no labelled defect"):
        compare([good], [good])


def test_groups_that_do_not_fit_are_refused() -> None:
    scored = Scored.from_predictions(*listed(6), list("abcd"))
    with pytest.raises(ConfigError, match=r"elsewhere\.png belongs to a group"):
        compare([scored], [scored], groups=[["image-1.png", "elsewhere.png"]])
    for twice in ([["image-1.png", "image-2.png"], ["image-2.png", "image-3.png"]], [["image-2.png"], ["image-2.png"]]):
        with pytest.raises(ConfigError, match="in two groups"):
            compare([scored], [scored], groups=twice)


def test_benchmark_table_comes_from_the_files_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two seeds of one arm, three of another, one record lost: what can be compared is, and the notes say what cannot."""
    for module in (record, distillation):
        monkeypatch.setattr(module, "RESULTS", tmp_path)
    for module in (arms, distillation):
        monkeypatch.setattr(module, "ARMS", {arm: arms.ARMS[arm] for arm in ("plain", "self", "ddpm-distilled", "no-filter")})
    labs = [Lab(tmp_path, SHAPES["cpu"], seed=seed) for seed in range(3)]
    (tmp_path / "distillation").mkdir()
    ours, plain = recipes(5, n=60, better=3.0)
    runs = [("plain", k, run) for k, run in enumerate(plain)] + [("ddpm-distilled", k, run) for k, run in enumerate(ours[:2])]
    for arm, seed, run in [*runs, ("self", 0, plain[2])]:
        ap50, ap50_95 = (ap.round(4) for ap in average_precision(run, np.ones(60)))
        told = {"map50": ap50.mean(), "map50_95": ap50_95.mean(), "ap50 crazing": ap50[0], "ap50 rolled-in_scale": ap50[1]}
        result = dict(val_map50=0.5, epoch_seconds=30.0 if arm == "plain" else 45.0)
        distillation.place(labs[seed], arm).write_text(json.dumps(dict(arm=arm, seed=seed, commit="abc1234", figures=told, result=result,
                                                                       settings=arms.planned(labs[seed], arm))))
        run.save(distillation.place(labs[seed], arm).with_suffix(".npz"))
    distillation.place(labs[2], "plain").with_suffix(".npz").unlink()
    result = json.loads(distillation.table(labs[0]).read_text())
    assert list(result["arms"]) == ["plain", "self", "ddpm-distilled"] and result["seeds"] == [0, 1, 2]
    assert [len(told["map50"]) for told in result["arms"].values()] == [3, 1, 2]
    found = {(c["a"], c["b"], c["metric"]): c for c in result["comparisons"]}
    assert {k[:2] for k in found} == {("self", "plain"), ("ddpm-distilled", "plain"), ("ddpm-distilled", "self")} and len(found) == 6
    main = found["ddpm-distilled", "plain", "map50"]
    both = compare(ours[:2], plain[:2])
    assert main["seeds"] == 2 and both.difference > 0.1
    assert (main["difference"], main["low"]) == (round(both.difference, 4), round(both.low, 4))
    assert "self 1, 2; ddpm-distilled 2; no-filter 0." in result["notes"] and "want of a record: plain 2." in result["notes"]
    shown = tables.distilled(result).splitlines()
    assert shown[4].startswith("| ddpm-distilled | 2 | 0.") and f"| {main['difference']:+.3f} ({main['low']:+.3f} to " in shown[4]
    assert shown[6].startswith("- `ddpm-distilled` against `self`, map50: +") and shown[6].endswith("), 2 seeds against 1")
    ours[2].save(distillation.place(labs[1], "plain").with_suffix(".npz"))
    with pytest.raises(AssertionError, match=r"plain-1\.npz is of another run"):
        distillation.table(labs[0])
