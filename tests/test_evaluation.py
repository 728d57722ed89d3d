"""The figures: by hand where a hand can, and against the independent scorer on data that no hand can."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend.evaluation import detection as evaluation

SCORER = Path(__file__).parents[2] / "shared" / "score" / "score_detection.py"


def guess(name: str, category: str, box: list[float], score: float) -> dict[str, Any]:
    return dict(file_name=name, category=category, bbox=box, score=score)


def crowd(seed: int) -> tuple[list[dict[str, Any]], evaluation.Truth]:
    """Forty images of four classes, one in five good, and guesses that hit, nearly hit, miss and repeat."""
    rng, truth, guesses = np.random.default_rng(seed), {}, []
    for i in range(40):
        name = f"image-{i}.png"
        truth[name] = [] if i % 5 == 0 else [
            ("abcd"[rng.integers(4)], [*rng.uniform(0, 200, 2), *rng.uniform(4, 120, 2)]) for _ in range(rng.integers(1, 5))]
        for category, box in truth[name]:
            for _ in range(rng.integers(0, 4)):
                near = list(np.array(box) + rng.normal(0, 0.12, 4) * np.array([box[2], box[3], box[2], box[3]]))
                guesses.append(guess(name, category if rng.random() < 0.8 else "abcd"[rng.integers(4)],
                                     [near[0], near[1], abs(near[2]) + 1, abs(near[3]) + 1], round(float(rng.random()), 2)))
        guesses += [guess(name, "abcd"[rng.integers(4)], [*rng.uniform(0, 200, 2), 20.0, 20.0], round(float(rng.random()) / 2, 2))
                    for _ in range(rng.integers(0, 130))]      # now and then more than the hundred that COCO looks at
    return guesses, truth


@pytest.mark.skipif(not SCORER.exists(), reason="the independent scorer is not here")
@pytest.mark.parametrize("seed", [0, 1])
def test_agrees_with_the_scorer(tmp_path: Path, seed: int) -> None:
    guesses, truth = crowd(seed)
    names = {name: i for i, name in enumerate(truth)}
    boxes = [(name, c, b) for name in truth for c, b in truth[name]]
    document = dict(images=[dict(id=i, file_name=n) for n, i in names.items()],
                    categories=[dict(id=i, name=c) for i, c in enumerate("abcd")],
                    annotations=[dict(id=i, image_id=names[n], category_id="abcd".index(c), bbox=b) for i, (n, c, b) in enumerate(boxes)])
    (tmp_path / "truth.json").write_text(json.dumps(document))
    (tmp_path / "predictions.json").write_text(json.dumps(guesses))
    done = subprocess.run([sys.executable, str(SCORER), str(tmp_path / "predictions.json"), str(tmp_path / "truth.json")],
                          capture_output=True, text=True, timeout=60, check=True)
    theirs, ours = json.loads(done.stdout), evaluation.evaluate(guesses, truth, list("abcde"))
    assert 0.05 < ours["map50_95"] < ours["map50"] < 0.95            # a comparison of zeros would prove nothing
    assert ours == {k: theirs[k] for k in ours}


def test_perfect_and_empty() -> None:
    truth: evaluation.Truth = {"a.png": [("pit", [10, 10, 20, 20])], "b.png": []}
    perfect = evaluation.evaluate([guess("a.png", "pit", [10, 10, 20, 20], 0.9)], truth, ["pit", "crack"])
    assert perfect == dict(map50=1.0, map50_95=1.0, ap50={"pit": 1.0}, images=2, boxes=1)
    assert evaluation.evaluate([], truth, ["pit"])["map50"] == 0
    assert evaluation.evaluate([], {"b.png": []}, ["pit"]) == dict(map50=None, map50_95=None, ap50={}, images=1, boxes=0)


def test_a_false_alarm_on_a_good_image_costs() -> None:
    truth: evaluation.Truth = {"a.png": [("pit", [10, 10, 20, 20])], "good.png": []}
    hit, alarm = guess("a.png", "pit", [10, 10, 20, 20], 0.5), guess("good.png", "pit", [0, 0, 9, 9], 0.9)
    assert evaluation.evaluate([hit, alarm], truth, ["pit"])["map50"] == 0.5


def test_iou() -> None:
    assert evaluation.iou([0, 0, 10, 10], [0, 0, 10, 10]) == 1
    assert evaluation.iou([0, 0, 10, 10], [5, 0, 10, 10]) == pytest.approx(1 / 3)
    assert evaluation.iou([0, 0, 10, 10], [10, 0, 10, 10]) == 0


def test_a_box_is_found_once() -> None:
    truth: evaluation.Truth = {"a.png": [("pit", [0, 0, 10, 10])]}
    surer, second, other = guess("a.png", "pit", [0, 0, 10, 10], 0.8), guess("a.png", "pit", [0, 0, 10, 9], 0.7), guess(
        "a.png", "crack", [0, 0, 10, 10], 0.9)
    assert [hit for _, hit in evaluation.match([second, surer, other], truth)] == [False, True, False]


def test_threshold_has_the_best_f1() -> None:
    """Five pits. Down to 0.6 four are found with one alarm (F1 8/10); the fifth, at 0.1, comes with five alarms more."""
    truth: evaluation.Truth = {f"{i}.png": [("pit", [0, 0, 10, 10])] for i in range(5)}
    hits = [guess(f"{i}.png", "pit", [0, 0, 10, 10], s) for i, s in enumerate([0.9, 0.8, 0.7, 0.6, 0.1])]
    alarms = [guess("0.png", "pit", [50 + 20 * i, 50, 10, 10], s) for i, s in enumerate([0.75, 0.4, 0.3, 0.25, 0.2, 0.15])]
    chosen = evaluation.choose_thresholds(hits + alarms, truth, ["pit", "unseen"])
    assert chosen == {"pit": 0.5, "unseen": 0.25}                   # halfway between 0.6 and 0.4


def test_threshold_by_trying_every_one() -> None:
    guesses, truth = crowd(2)
    chosen = evaluation.choose_thresholds(guesses, truth, list("abcd"))

    def f1(class_name: str, threshold: float) -> float:
        kept = [p for p in guesses if p["category"] == class_name and p["score"] >= threshold]
        boxes = sum(c == class_name for found in truth.values() for c, _ in found)
        return 2 * sum(hit for _, hit in evaluation.match(kept, truth)) / (len(kept) + boxes)

    for class_name in "abcd":
        scores = sorted({p["score"] for p in guesses})
        assert f1(class_name, chosen[class_name]) == pytest.approx(max(f1(class_name, s) for s in scores))


def test_threshold_never_lets_all_through() -> None:
    truth: evaluation.Truth = {"a.png": [("pit", [0, 0, 10, 10])]}
    assert evaluation.choose_thresholds([guess("a.png", "pit", [0, 0, 10, 10], 0.01)], truth, ["pit"]) == {"pit": 0.05}


def test_rates() -> None:
    """One pit is found and one is not; the crack's box is missed, but its image is rejected for a pit that is not there."""
    truth: evaluation.Truth = {"a.png": [("pit", [0, 0, 10, 10])], "b.png": [("pit", [0, 0, 10, 10])],
                               "c.png": [("crack", [0, 0, 10, 10])], "d.png": [], "e.png": [], "f.png": [], "g.png": []}
    guesses = [guess("a.png", "pit", [0, 0, 10, 10], 0.9), guess("b.png", "pit", [0, 0, 10, 10], 0.3),
               guess("c.png", "pit", [40, 0, 10, 10], 0.6),
               guess("d.png", "crack", [0, 0, 5, 5], 0.3), guess("e.png", "pit", [0, 0, 5, 5], 0.4)]
    assert evaluation.rates(guesses, truth, {"pit": 0.5, "crack": 0.2}) == dict(
        recall={"crack": 0.0, "pit": 0.5}, missed={"crack": 0.0, "pit": 0.5}, missed_images=0.3333, false_rejects=0.25, good_images=4)
    assert "false_rejects" not in evaluation.rates(guesses, {"a.png": truth["a.png"]}, {"pit": 0.5, "crack": 0.2})
