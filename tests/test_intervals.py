"""Intervals of means and differences, on figures whose spread is known: what images do, what seeds do, and what is neither's alone."""

import numpy as np
import pytest
from scipy import stats

from backend.errors import ConfigError
from backend.evaluation.intervals import estimate, image_draws, spread


def side(rng: np.random.Generator, weights: np.ndarray, image: np.ndarray, seeds: int, own: float, mixed: float) -> np.ndarray:
    """Runs whose figure is a mean over the images: their level, the seed's luck, and what each seed makes of each image."""
    values = image + own * rng.standard_normal((seeds, 1)) + mixed * rng.standard_normal((seeds, len(image)))     # (seeds, images)
    return (values @ weights.T / weights.sum(axis=1))[..., None]                                                  # (seeds, 1 + rounds, 1)


def pair(seed: int, seeds: tuple[int, int] = (5, 5), n: int = 60, common: float = 1.0, apart: float = 0.5, own: float = 0.05,
         mixed: float = 0.5, rounds: int = 100) -> list[np.ndarray]:
    """Two sides of equal recipes on one test set: all find the same images hard (`common`), each recipe some of its own (`apart`)."""
    rng = np.random.default_rng(seed)
    weights, _ = image_draws(np.arange(n).astype(str), None, rounds, rng)
    hard = common * rng.standard_normal(n)
    return [side(rng, weights, hard + apart * rng.standard_normal(n), k, own, mixed) for k in seeds]


@pytest.mark.parametrize("seeds", [(5, 5), (3, 3), (2, 2), (5, 3), (1, 5)])
def test_holds_a_difference_of_zero_as_often_as_it_says(seeds: tuple[int, int]) -> None:
    """300 pairs of equal recipes: 95 % of their intervals should hold zero; less luck, 91.5 to 98.5. Of two seeds rather too many do."""
    inside = [estimate(pair(s, seeds), 60).intervals()[0] for s in range(300)]
    assert 0.915 <= np.mean([i.low <= 0 <= i.high for i in inside]) <= (0.985 if seeds != (2, 2) else 1)


@pytest.mark.parametrize(("apart", "own", "mixed"), [(0.0, 0.2, 0.0), (0.0, 0.2, 1.0), (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)])
def test_holds_it_whatever_makes_the_doubt(apart: float, own: float, mixed: float) -> None:
    inside = [estimate(pair(s, apart=apart, own=own, mixed=mixed), 60).intervals()[0] for s in range(300)]
    assert 0.91 <= np.mean([i.low <= 0 <= i.high for i in inside]) <= 0.995


def test_each_part_of_the_doubt_is_told_apart() -> None:
    """With many seeds and images the variances must be those that were put in."""
    sides = pair(0, (400, 400), n=400, own=0.1, mixed=1.0, apart=1.0)
    luck, images = spread(sides), estimate(sides, 400).doubt.images
    assert luck.mixed[0] == pytest.approx(1 / 400, rel=0.1) and luck.own[0] == pytest.approx(0.01, rel=0.15) and luck.freedom == 798
    assert images[0] == pytest.approx(2 / 400, rel=0.2)                                   # what the two recipes find hard


def test_seeds_alone_give_students_interval() -> None:
    """Where all images are alike, means of three seeds have the intervals of any textbook."""
    figures = np.tile(np.array([0.50, 0.56, 0.62])[:, None, None], (1, 9, 1))                                     # (seeds, 1 + rounds, 1)
    found, apart = (estimate(sides, 10**6).intervals()[0] for sides in ([figures], [figures + 0.1, figures]))
    expected = stats.t.interval(0.95, 2, 0.56, 0.06 / np.sqrt(3))
    assert (found.difference, found.low, found.high) == pytest.approx((0.56, *expected))
    other = stats.ttest_ind(figures[:, 0, 0] + 0.1, figures[:, 0, 0]).confidence_interval(0.95)
    assert (apart.low, apart.high) == pytest.approx((other.low, other.high))


def test_images_alone_give_the_bootstraps() -> None:
    sides = pair(3, (1, 1), n=400, own=0.0, rounds=20_000)
    found = estimate(sides, 400).intervals()[0]
    low, high = np.quantile((sides[0] - sides[1])[0, 1:, 0], [0.025, 0.975])
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.003)


def test_few_lots_are_few() -> None:
    """Five lots: their mean has Student's interval with four degrees of freedom, not a normal's."""
    lots = np.array([0.1, 0.3, 0.2, 0.6, 0.4])
    weights, n = image_draws(np.arange(5).astype(str), None, 20_000, np.random.default_rng(5))
    found = estimate([(weights @ lots / 5)[None, :, None]], n).intervals()[0]
    low, high = stats.t.interval(0.95, 4, lots.mean(), stats.sem(lots))
    assert (found.low, found.high) == pytest.approx((low, high), rel=0.02)


def test_the_same_runs_on_both_sides_leave_no_doubt() -> None:
    one, _ = pair(1)
    found = estimate([one, one], 60).intervals()[0]
    assert (found.difference, found.low, found.high) == (0, 0, 0)


def test_says_what_more_seeds_would_do() -> None:
    """The width foreseen for twenty seeds from the first five is, on average, the width with twenty."""
    foreseen, come = [], []
    for s in range(40):
        sides = pair(s, (20, 20), own=0.1)
        few, many = (estimate([x[:k] for x in sides], 60) for k in (5, 20))
        interval = many.intervals()[0]
        foreseen.append(few.doubt.half(20, 20)[0])
        come.append(many.doubt.half()[0])
        assert come[-1] == pytest.approx((interval.high - interval.low) / 2) and few.doubt.half(10, 10) < few.doubt.half(5, 5)
        assert few.doubt.half(5, 5) == pytest.approx(few.doubt.half())
    assert np.mean(foreseen) == pytest.approx(np.mean(come), rel=0.1)


def test_wider_where_it_must_hold_more_often() -> None:
    found = estimate(pair(4), 60)
    usual, sure = found.intervals()[0], found.intervals(0.05 / 6)[0]
    assert sure.low < usual.low < usual.high < sure.high


def test_one_run_a_side_says_nothing_of_seeds() -> None:
    why = estimate(pair(2, (1, 1)), 60).doubt
    assert (why.luck.freedom, why.luck.seeds[0], why.luck.mixed[0]) == (0, 0, 0) and why.images[0] > 0


def test_images_of_a_group_are_drawn_together() -> None:
    rng = np.random.default_rng(0)
    weights, n = image_draws(np.array(list("abcdef")), [["a", "c"], ["d", "e", "f"]], 50, rng)
    assert n == 3 and (weights[0] == 1).all() and (weights[1:].sum(axis=1) != 6).any()
    assert np.array_equal(weights[:, 0], weights[:, 2]) and not np.array_equal(weights[:, 0], weights[:, 1])
    for wrong, why in (([["a", "x"]], "x belongs to a group"), ([["a", "b"], ["b"]], "in two groups")):
        with pytest.raises(ConfigError, match=why):
            image_draws(np.array(list("ab")), wrong, 5, rng)
