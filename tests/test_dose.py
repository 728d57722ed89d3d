"""Dose and response: points with intervals, and how many real labels so many synthetic images are worth, on curves that are known."""

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression

from backend.evaluation import dose
from backend.evaluation.dose import equivalent, points
from backend.evaluation.intervals import image_draws
from backend.evaluation.paired import Measured, measure
from tests.simulated import experiment
from tests.test_intervals import side

LABELS = {"real 50": 50, "real 100": 100, "real 200": 200, "real 400": 400}


def curve(labels: float) -> float:
    """0.08 of map50 for each doubling."""
    return 0.4 + 0.08 * float(np.log2(labels / 50))


def measured(seed: int, worth: float, seeds: int = 5, own: float = 0.01) -> Measured:
    """The four points of that curve, and an arm with 100 labels whose synthetic images do what `worth` labels more would."""
    rng = np.random.default_rng(seed)
    weights, n = image_draws(np.arange(100).astype(str), None, 400, rng)
    hard = rng.normal(0, 0.15, 100)
    levels = {**{arm: curve(k) for arm, k in LABELS.items()}, "both": curve(100 + worth)}
    arms = {arm: side(rng, weights, level + hard + rng.normal(0, 0.05, 100), seeds, own, 0.05) for arm, level in levels.items()}
    return Measured({arm: np.repeat(one, 2, axis=2) for arm, one in arms.items()}, ["pit"], "map50", 100, n)


def test_points_have_intervals_and_stand_in_order() -> None:
    told = points(measured(0, 60), {"both": 300, "real 100": 0, "real 50": 25})
    assert [(p["dose"], p["arm"], p["seeds"]) for p in told] == [(0, "real 100", 5), (25, "real 50", 5), (300, "both", 5)]
    assert all(p["low"] < p["mean"] < p["high"] for p in told) and told[1]["low"] < curve(50) < told[1]["high"]


def test_points_of_real_records() -> None:
    a, b, _ = experiment(0, 0.5, seeds=2, images=90)
    told = points(measure({"real": b, "both": a}, rounds=100), {"real": 0, "both": 200})
    assert told[0]["mean"] < told[1]["mean"] and told[0]["low"] < told[0]["mean"] < told[0]["high"]


def test_finds_what_synthetic_images_are_worth() -> None:
    found = equivalent(measured(1, 60), LABELS, "both", base=100, synthetic=200)
    assert found is not None and (found["synthetic"], found["base"]) == (200, 100) and found["low"] < 60 < found["high"]
    assert abs(found["real"] - 60) < 25
    assert found["sentence"] == f"200 synthetic ≈ {found['real']} real labels [{found['low']}, {found['high']}]."


def test_intervals_hold_the_true_worth() -> None:
    """95 of 100; less luck, 90."""
    found = [equivalent(measured(seed, 60), LABELS, "both", 100, 200) for seed in range(100)]
    assert sum(f is not None and (f["low"] is None or f["low"] <= 60) and (f["high"] is None or f["high"] >= 60) for f in found) >= 90
    worth = [f["real"] for f in found if f]
    assert abs(np.median(worth) - 60) < 10


def test_an_end_that_the_curve_does_not_reach_is_left_open() -> None:
    found = equivalent(measured(2, 230), LABELS, "both", 100, 1500)
    assert found is not None and found["high"] is None and found["low"] > 100
    assert found["sentence"].startswith(f"1,500 synthetic ≈ {found['real']} real labels [") and found["sentence"].endswith(", above 300].")


def test_nothing_is_read_beyond_the_curve() -> None:
    assert equivalent(measured(3, 500), LABELS, "both", 100, 200) is None
    assert equivalent(measured(3, -70), LABELS, "both", 100, 200) is None


def test_images_that_harm_are_worth_no_labels() -> None:
    found = equivalent(measured(4, -25), LABELS, "both", 100, 200)
    assert found is not None and found["real"] < 0 and found["sentence"].startswith("200 synthetic are worth no real labels: -")


def test_one_seed_an_arm_leaves_the_images() -> None:
    found = equivalent(measured(5, 60, seeds=1, own=0.0), LABELS, "both", 100, 200)
    assert found is not None and found["low"] < found["real"] < found["high"]


def test_a_curve_that_falls_is_pooled() -> None:
    heights = np.random.default_rng(0).normal(0, 1, (50, 5)) + np.arange(5)
    expected = [IsotonicRegression().fit_transform(np.arange(5), row) for row in heights]
    assert dose._rising(heights) == pytest.approx(np.array(expected)) and (np.diff(heights) < 0).any()


def test_read_between_the_points() -> None:
    heights = np.array([[0.4, 0.5, 0.5, 0.6]] * 6)
    read = dose._read(heights, np.array([50, 100, 200, 400]), np.array([0.3, 0.4, 0.45, 0.5, 0.55, 0.61]))
    assert read.tolist() == pytest.approx([-np.inf, 50, 50 * 2**0.5, 100, 200 * 2**0.5, np.inf])


def test_a_curve_that_is_nearly_level_is_read_without_overflow() -> None:
    height = np.array([[0.5, 0.5 + 1e-17, 0.5], [0.4, 0.4 + 1e-16, 0.6]])
    read = dose._read(height, np.array([10.0, 20.0, 40.0]), np.array([0.5, 0.5]))
    assert np.isfinite(read).all() and (read >= 10).all() and (read <= 40).all()
