"""Verdicts on images, two arms side by side: McNemar against published figures and other programs; differences with intervals that hold."""

from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest

from backend.errors import ConfigError
from backend.evaluation.agreement import agreement, mcnemar
from backend.evaluation.outcomes import Outcomes
from tests.simulated import plant, recipe

# only a, only b, exact p, mid-p: the examples of Fagerland, Lydersen & Laake 2013 (data of Bentur et al. and of Cavo et al.)
PUBLISHED = [(1, 7, 0.070, 0.039), (6, 16, 0.052, 0.035)]

# only a, only b, exact p: statsmodels 0.15.0, stats.contingency_tables.mcnemar(table, exact=True).pvalue
STATSMODELS = [(0, 1, 1.0), (0, 5, 0.0625), (0, 6, 0.03125), (1, 7, 0.0703125), (2, 8, 0.109375), (5, 5, 1.0),
               (6, 16, 0.052478790283203125), (10, 25, 0.016673847800120715), (31, 52, 0.027534178012294533),
               (150, 86, 3.7159361395713866e-05),
               (400, 520, 8.549170923883781e-05)]


@pytest.mark.parametrize(("only_a", "only_b", "exact", "mid"), PUBLISHED)
def test_mcnemar_as_published(only_a: int, only_b: int, exact: float, mid: float) -> None:
    assert mcnemar(only_a, only_b) == pytest.approx((exact, mid), abs=6e-4)
    assert mcnemar(only_b, only_a) == mcnemar(only_a, only_b)


@pytest.mark.parametrize(("only_a", "only_b", "exact"), STATSMODELS)
def test_mcnemar_as_in_statsmodels(only_a: int, only_b: int, exact: float) -> None:
    assert mcnemar(only_a, only_b)[0] == pytest.approx(exact, rel=1e-9)


def test_mcnemar_is_the_binomial_test_of_the_images_that_differ() -> None:
    for a in range(16):
        for b in range(16):
            exact, mid = mcnemar(a, b)
            at_least = 1.0 if a + b == 0 else binomtest(a, a + b).pvalue
            assert exact == pytest.approx(at_least) and mid <= exact
            if a + b:                # the mid-p value is the mean of this p and the next that is more extreme
                beyond = binomtest(min(a, b) - 1, a + b).pvalue if min(a, b) else 0.0
                assert mid == pytest.approx((at_least + beyond) / 2) or a == b


def told(rejects: list[int], defective: list[int]) -> Outcomes:
    """One run that rejects these images, of which these are defective."""
    names, score = np.array([f"{i:03d}" for i in range(len(rejects))]), 0.9 * np.array(rejects, np.float32)[:, None]
    return Outcomes(names, np.array(["pit"]), np.array(defective, bool)[:, None], score, score)


def test_by_hand() -> None:
    defective = [1, 1, 1, 1, 0, 0, 0, 0]
    a, b = told([1, 1, 1, 0, 1, 0, 0, 0], defective), told([1, 0, 0, 0, 1, 1, 0, 0], defective)
    found = agreement([(a, 0.5)], [(b, 0.5)], rounds=200)
    assert found["mcnemar"] == dict(only_a=3, only_b=0, both=3, neither=2, p=0.25, mid_p=0.125) and found["no_good_text"] is None
    assert {k: found["false_rejects"][k] for k in ("a", "b", "difference", "images")} == dict(a=0.25, b=0.5, difference=-0.25, images=4)
    assert {k: found["missed"][k] for k in ("a", "b", "difference", "images")} == dict(a=0.25, b=0.75, difference=-0.5, images=4)
    assert -1 <= found["missed"]["low"] < -0.5 < found["missed"]["high"] <= 1
    high = agreement([(a, 0.95)], [(b, {"pit": 0.5})], rounds=50)
    assert (high["missed"]["a"], high["missed"]["b"], high["false_rejects"]["a"]) == (1, 0.75, 0)


def test_several_seeds_judge_by_majority() -> None:
    defective = [1, 1, 0]
    seeds = [told(r, defective) for r in ([1, 0, 0], [1, 0, 1], [0, 1, 1])]
    found = agreement([(s, 0.5) for s in seeds], [(told([0, 1, 0], defective), 0.5)], rounds=100)
    assert (found["mcnemar"]["only_a"], found["mcnemar"]["only_b"], found["mcnemar"]["neither"]) == (1, 2, 0)
    assert found["false_rejects"]["a"] == pytest.approx(2 / 3) and found["missed"]["a"] == pytest.approx(0.5)


def test_without_good_parts_says_so() -> None:
    a, b = told([1, 0, 1], [1, 1, 1]), told([1, 1, 1], [1, 1, 1])
    found = agreement([(a, 0.5)], [(b, 0.5)], rounds=100)
    assert found["mcnemar"] is found["false_rejects"] is None and found["missed"]["difference"] == pytest.approx(1 / 3)
    assert found["no_good_text"] == "No good parts in this test set: false rejects cannot be measured."
    good = agreement([(told([1, 0], [0, 0]), 0.5)], [(told([0, 0], [0, 0]), 0.5)], rounds=100)
    assert good["missed"] is None and good["false_rejects"]["difference"] == 0.5 and good["no_good_text"] is None


def test_images_of_one_lot_give_no_p_value() -> None:
    a, b = told([1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 0, 0]), told([0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0])
    alone, lots = (agreement([(a, 0.5)], [(b, 0.5)], groups) for groups in (None, [["000", "001", "002", "003"]]))
    assert alone["mcnemar"]["p"] == 0.125 and lots["mcnemar"]["p"] is lots["mcnemar"]["mid_p"] is None
    assert lots["mcnemar"]["only_a"] == 4
    assert lots["missed"]["high"] - lots["missed"]["low"] > alone["missed"]["high"] - alone["missed"]["low"]


def test_none_in_thirty_is_not_none_at_all() -> None:
    """Neither rejects one of 60 good parts: up to 3 in 60 more or fewer are still possible."""
    runs = [(told([1, 1] + [0] * 60, [1, 1] + [0] * 60), 0.5)] * 2
    found = agreement(runs[:1], runs[1:])["false_rejects"]
    assert found["difference"] == 0 and -found["low"] == pytest.approx(found["high"]) and 0.03 < found["high"] < 0.06


def test_other_images_are_refused() -> None:
    with pytest.raises(ConfigError, match="different images"):
        agreement([(told([1, 0], [1, 0]), 0.5)], [(told([1, 0], [1, 1]), 0.5)])


def test_intervals_hold_no_difference() -> None:
    """Equal recipes with five seeds on 60 good and 60 defective images: 95 % of the intervals should hold zero; less luck, 90."""
    held: dict[str, list[bool]] = dict(false_rejects=[], missed=[])
    for seed in range(100):
        rng = np.random.default_rng(seed)
        on = plant(rng, 120, good=60)
        arms: list[Any] = [[(one.outcomes(rng), 0.5) for _ in range(5)] for one in (recipe(rng, on), recipe(rng, on))]
        found = agreement(*arms, rounds=200)
        for figure, inside in held.items():
            inside.append(found[figure]["low"] <= 0 <= found[figure]["high"])
    assert all(np.mean(inside) >= 0.9 for inside in held.values()), held
