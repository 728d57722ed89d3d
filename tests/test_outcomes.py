"""Verdicts on images at any threshold: by hand, and the same as the evaluator's rates on data that no hand can follow."""

from pathlib import Path

import numpy as np
import pytest

from backend.errors import InputError
from backend.evaluation import detection as evaluation
from backend.evaluation.outcomes import Outcomes
from backend.evaluation.scored import Scored
from tests.test_evaluation import crowd, guess

TRUTH: evaluation.Truth = {
    "c.png": [("pit", [0.0, 0.0, 20.0, 20.0]), ("pit", [40.0, 0.0, 20.0, 20.0])],
    "a.png": [("crack", [0.0, 0.0, 20.0, 20.0])],
    "b.png": []}
GUESSES = [
    guess("c.png", "pit", [0, 0, 20, 20], 0.6),          # hits
    guess("c.png", "pit", [1, 0, 20, 20], 0.5),          # the same defect once more: no hit
    guess("c.png", "pit", [80, 0, 20, 20], 0.7),         # where there is nothing
    guess("a.png", "pit", [0, 0, 20, 20], 0.8),          # right place, wrong class
    guess("b.png", "crack", [0, 0, 20, 20], 0.3),
    guess("b.png", "crack", [0, 0, 20, 20], 0.0005),     # below what is listed
    guess("elsewhere.png", "pit", [0, 0, 20, 20], 0.9)]


def test_by_hand() -> None:
    told = Outcomes.from_predictions(GUESSES, TRUTH, ["pit", "crack"])
    assert list(told.images) == ["a.png", "b.png", "c.png"] and list(told.classes) == ["crack", "pit"]
    assert told.defective.tolist() == [True, False, True] and told.shows.tolist() == [[1, 0], [0, 0], [0, 1]]
    assert told.score == pytest.approx(np.array([[0, 0.8], [0.3, 0], [0, 0.7]]))
    assert told.found == pytest.approx(np.array([[0, 0], [0, 0], [0, 0.6]]))
    assert told.rejects(0.5).tolist() == [True, False, True] and told.finds(0.5).tolist() == [False, False, True]
    assert told.rejects({"pit": 0.75, "crack": 0.3}).tolist() == [True, True, False]
    assert told.finds({"pit": 0.65, "crack": 0.3}).tolist() == [False, False, False]


def test_a_threshold_of_nothing_rejects_only_where_something_was_found() -> None:
    told = Outcomes.from_predictions(GUESSES[:1], TRUTH, ["pit", "crack"])
    assert told.rejects(0).tolist() == told.finds(0).tolist() == [False, False, True]


@pytest.mark.parametrize("seed", [0, 1])
def test_agrees_with_the_evaluator(seed: int) -> None:
    guesses, truth = crowd(seed)
    told = Outcomes.from_predictions(guesses, truth, list("abcd"))
    rng = np.random.default_rng(seed)
    seen = set()
    for _ in range(20):
        thresholds = dict(zip("abcd", rng.uniform(0.3, 1, 4).tolist(), strict=True))
        expected, rejected = evaluation.rates(guesses, truth, thresholds), told.rejects(thresholds)
        assert round(float(rejected[~told.defective].mean()), 4) == expected["false_rejects"]
        assert round(float((~rejected)[told.defective].mean()), 4) == expected["missed_images"]
        for k, name in enumerate("abcd"):
            assert round(float((~rejected)[told.shows[:, k]].mean()), 4) == expected["missed"][name]
        seen.add(expected["false_rejects"])
    assert len(seen) > 3
    assert (told.found <= told.score).all() and (told.found[~told.shows] == 0).all() and (told.found < told.score).any()


def test_agrees_with_the_record_of_boxes() -> None:
    guesses, truth = crowd(2)
    told, scored = Outcomes.from_predictions(guesses, truth, list("abcde")), Scored.from_predictions(guesses, truth, list("abcde"))
    assert np.array_equal(told.images, scored.images) and np.array_equal(told.shows[:, :4], scored.boxes > 0)
    assert list(told.classes) == list("abcde") and not told.shows[:, 4].any()


def test_survives_the_disk_and_refuses_other_records(tmp_path: Path) -> None:
    guesses, truth = crowd(3)
    told = Outcomes.from_predictions(guesses, truth, list("abcd"))
    told.save(tmp_path / "images.npz")
    back = Outcomes.load(tmp_path / "images.npz")
    assert all(np.array_equal(getattr(told, name), getattr(back, name)) for name in ("images", "classes", "shows", "score", "found"))
    assert back.score.dtype == back.found.dtype == np.float32 and [p.name for p in tmp_path.iterdir()] == ["images.npz"]
    Scored.from_predictions(guesses, truth, list("abcd")).save(tmp_path / "boxes.npz")
    with pytest.raises(InputError, match=r"boxes\.npz is not a record"):
        Outcomes.load(tmp_path / "boxes.npz")


def test_a_test_set_without_defects_or_without_images() -> None:
    good = Outcomes.from_predictions([guess("a.png", "pit", [0, 0, 9, 9], 0.4)], {"a.png": [], "b.png": []}, ["pit"])
    assert not good.defective.any() and good.rejects(0.3).tolist() == [True, False]
    assert Outcomes.from_predictions([], {}, ["pit"]).rejects(0.5).shape == (0,)
