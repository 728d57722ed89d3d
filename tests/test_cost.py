"""The operating point by cost: by hand, against trying every threshold, chosen on val alone, with intervals that hold the true cost."""

import time

import numpy as np
import pytest

from backend.errors import ConfigError
from backend.evaluation.cost import Costs, curve, operating_point, recommended
from backend.evaluation.outcomes import Outcomes
from tests.simulated import plant, recipe

COSTS = Costs(missed=50.0, false_reject=2.0, defect_rate=0.02)


def scores(good: list[float], defective: list[float]) -> Outcomes:
    """A run whose surest box on each good and each defective image has this confidence."""
    score = np.array(good + defective, np.float32)[:, None]
    names = np.array([f"{i:03d}" for i in range(len(score))])
    return Outcomes(names, np.array(["pit"]), (np.arange(len(score)) >= len(good))[:, None], score, score)


def test_by_hand() -> None:
    """Two of four good parts above 0.3; of five defective ones four above 0.6."""
    val = scores([0.1, 0.2, 0.4, 0.5], [0.3, 0.6, 0.7, 0.8, 0.9])
    assert recommended(val, Costs(missed=1, false_reject=1, defect_rate=0.5)) == pytest.approx(0.55)        # misses 1 of 5, rejects none
    assert recommended(val, Costs(missed=10, false_reject=1, defect_rate=0.5)) == pytest.approx(0.25)       # misses none, rejects 2 of 4
    found = operating_point([val], [val], Costs(missed=100, false_reject=5, defect_rate=0.02), rounds=200)
    assert found["thresholds"] == [pytest.approx(0.55)] and (found["missed"], found["false_rejects"]) == (pytest.approx(0.2), 0)
    assert found["cost"] == pytest.approx(1000 * 0.02 * 100 * 0.2) and 0 <= found["low"] < found["cost"] < found["high"]
    assert (found["images"], found["good_images"], found["seeds"], found["text"]) == (9, 4, 1, None)


def test_a_dear_miss_lowers_the_threshold_and_a_dear_reject_raises_it() -> None:
    rng = np.random.default_rng(0)
    val = recipe(rng, plant(rng, 360, good=180)).outcomes(rng)
    chosen = [recommended(val, Costs(missed, 1.0, 0.05)) for missed in (0, 1, 5, 20, 100, 1e6)]
    assert chosen == sorted(chosen, reverse=True) and len(set(chosen)) >= 4
    assert not val.rejects(chosen[0])[~val.defective].any() and val.rejects(max(chosen[-1] - 0.001, 0.05))[val.defective].mean() > 0.97
    assert chosen[-1] >= 0.05


@pytest.mark.parametrize("seed", range(5))
def test_no_threshold_costs_less_on_val(seed: int) -> None:
    rng = np.random.default_rng(seed)
    val = recipe(rng, plant(rng, 120, good=60)).outcomes(rng)

    def cost(threshold: float) -> float:
        rejects = val.rejects(threshold)
        return float(COSTS.of((~rejects)[val.defective].mean(), rejects[~val.defective].mean()))

    assert cost(recommended(val, COSTS)) <= min(cost(t) for t in np.arange(0.05, 1, 0.0005)) + 1e-9


def test_thresholds_come_from_val_alone() -> None:
    rng = np.random.default_rng(1)
    on = [recipe(rng, plant(rng, 120, good=60)) for _ in range(3)]
    val, test, other = ([r.outcomes(rng) for _ in range(3)] for r in on)
    found, elsewhere = operating_point(val, test, COSTS, rounds=50), operating_point(val, other, COSTS, rounds=50)
    assert found["thresholds"] == elsewhere["thresholds"] and found["cost"] != elsewhere["cost"] and len(set(found["thresholds"])) > 1
    expected = np.mean([[(~t.rejects(at))[t.defective].mean(), t.rejects(at)[~t.defective].mean()]
                        for t, at in zip(test, found["thresholds"], strict=True)], axis=0)
    assert (found["missed"], found["false_rejects"]) == pytest.approx(tuple(expected))
    assert found["cost"] == pytest.approx(COSTS.of(*expected))


def holds_the_truth(rng: np.random.Generator) -> bool:
    """At a threshold chosen on 120 val images, told on 120 test images; the truth from 8,000."""
    whole = recipe(rng, plant(rng, 8000, good=4000)).outcomes(rng)
    val, test = (part(whole, np.r_[k:k + 60, 7900 - k:7960 - k]) for k in (0, 60))
    found = operating_point([val], [test], COSTS, rounds=200)
    rejects = whole.rejects(found["thresholds"][0])
    true = COSTS.of((~rejects)[whole.defective].mean(), rejects[~whole.defective].mean())
    return bool(found["low"] <= true <= found["high"])


def test_intervals_hold_the_true_cost() -> None:
    """95 of 100 should; less luck, 88."""
    assert sum(holds_the_truth(np.random.default_rng(seed)) for seed in range(100)) >= 88


def part(whole: Outcomes, rows: np.ndarray) -> Outcomes:
    return Outcomes(whole.images[rows], whole.classes, whole.shows[rows], whole.score[rows], whole.found[rows])


def test_nothing_missed_in_fifty_may_still_cost() -> None:
    perfect = scores([0.0] * 50, [0.9] * 50)
    found = operating_point([perfect], [perfect], COSTS)
    assert found["cost"] == found["low"] == 0 and 0.6 < found["high"] / (1000 * 0.02 * 50 * 3 / 50 + 1000 * 0.98 * 2 * 3 / 50) < 1.1


def test_without_good_or_defective_parts_it_says_so() -> None:
    both, bad, good = scores([0.1, 0.2], [0.8, 0.9]), scores([], [0.1, 0.9]), scores([0.1, 0.2], [])
    found = operating_point([bad], [both], COSTS)
    assert found["thresholds"] is found["cost"] is None and found["text"] == "The val images hold no good parts, so no threshold can be " \
        "chosen by cost."
    assert operating_point([good], [both], COSTS)["text"].startswith("The val images hold no defective parts")
    found = operating_point([both], [bad], COSTS)
    assert found["text"] == "No good parts in this test set: false rejects cannot be measured." and found["cost"] is None
    assert found["thresholds"] == [pytest.approx(0.5)] and found["missed"] == 0.5 and found["false_rejects"] is None
    assert operating_point([both], [good], COSTS)["text"] == "No defective parts in this test set: missed defects cannot be measured."
    assert curve([bad], COSTS) is curve([good], COSTS) is None


def test_curve_tells_the_cost_at_each_threshold() -> None:
    test = scores([0.1, 0.2, 0.4, 0.5], [0.3, 0.6, 0.7, 0.8, 0.9])
    told = curve([test], Costs(missed=100, false_reject=5, defect_rate=0.02))
    assert told is not None and told["threshold"][0] == 0.05 and told["threshold"][-1] == 0.95
    at = dict(zip(told["threshold"], told["cost"], strict=True))
    assert at[0.05] == pytest.approx(1000 * 0.98 * 5) and at[0.95] == pytest.approx(1000 * 0.02 * 100)
    assert at[0.45] == pytest.approx(1000 * (0.02 * 100 / 5 + 0.98 * 5 / 4))
    assert all(low <= cost <= high for low, cost, high in zip(told["low"], told["cost"], told["high"], strict=True))


def test_lots_widen_the_interval() -> None:
    test = scores([0.1, 0.9] * 20, [0.9, 0.1] * 20)
    alone, lots = (operating_point([test], [test], COSTS, groups)
                   for groups in (None, [[f"{i:03d}" for i in range(start, 80, 8)] for start in range(8)]))
    assert lots["high"] - lots["low"] > 1.5 * (alone["high"] - alone["low"]) and lots["cost"] == alone["cost"]


@pytest.mark.parametrize("wrong", [(-1, 1, 0.1), (1, float("nan"), 0.1), (1, 1, 0.0), (1, 1, 1.0), (1, 1, 2.0)])
def test_impossible_prices_are_refused(wrong: tuple[float, float, float]) -> None:
    with pytest.raises(ConfigError):
        Costs(*wrong)


def test_can_be_asked_while_a_person_drags() -> None:
    rng = np.random.default_rng(0)
    arm = recipe(rng, plant(rng, 400, good=200))
    runs = [arm.outcomes(rng) for _ in range(5)]
    operating_point(runs, runs, COSTS, rounds=10)                        # scipy is loaded once
    began = time.process_time()
    operating_point(runs, runs, COSTS)
    curve(runs, COSTS)
    assert time.process_time() - began < 0.3
