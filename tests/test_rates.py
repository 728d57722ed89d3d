"""Rates and true rates: against published intervals, and against the truth in simulation, also where nothing was found."""

import numpy as np
import pytest

from backend.errors import ConfigError
from backend.quality import rates, truth
from backend.quality.truth import Stratum, stratified


def close(rate: rates.Rate, low: float, high: float, within: float) -> bool:
    return (rate.low, rate.high) == (pytest.approx(low, abs=within), pytest.approx(high, abs=within))


# ---- plain rates

@pytest.mark.parametrize(("k", "n", "wilson", "exact"), [
    (81, 263, (0.2553, 0.3662), (0.2527, 0.3676)), (15, 148, (0.0624, 0.1605), (0.0578, 0.1617)),
    (0, 20, (0.0000, 0.1611), (0.0000, 0.1684)), (1, 29, (0.0061, 0.1718), (0.0009, 0.1776)), (29, 29, (0.8830, 1.0000), (0.8806, 1.0000))])
def test_intervals_of_newcombe(k: int, n: int, wilson: tuple[float, float], exact: tuple[float, float]) -> None:
    """Newcombe, Statistics in Medicine 17, 1998, table I: methods 3 (Wilson) and 5 (Clopper-Pearson)."""
    assert close(rates.share(k, n), *wilson, 1e-4) and close(rates.share(k, n, exact=True), *exact, 1e-4)


def test_good_first_time_ppm_and_defects_per_unit() -> None:
    good = rates.good_first_time(2000, 50)
    assert (good.k, good.rate) == (1950, 0.975) and good.low == pytest.approx(1 - rates.share(50, 2000).high)
    million = rates.ppm(200_000, 3)
    assert million.rate == 15 and close(million, 3.09, 43.84, 0.01)
    dpu = rates.defects_per_unit(500, 20)
    assert dpu.rate == 0.04 and close(dpu, 12.217 / 500, 30.888 / 500, 1e-5), "the exact interval of a count of 20 is 12.2 to 30.9"
    assert close(rates.defects_per_unit(100, 0), 0, 0.03689, 1e-5)
    assert rates.share(0, 0) == rates.Rate(0, 0, None, 0.0, 1.0) and rates.ppm(0, 0).rate is None
    assert rates.defects_per_unit(0, 0).high == float("inf")
    for wrong in (lambda: rates.share(3, 2), lambda: rates.good_first_time(1, 2), lambda: rates.defects_per_unit(-1, 0)):
        with pytest.raises(ConfigError):
            wrong()


def test_nothing_found_is_not_nothing_there() -> None:
    assert rates.none_in(300) == "none in 300 reads: at most 1.0 % (3/n)"
    assert rates.none_in(3000) == "none in 3,000 reads: at most 0.10 % (3/n)"
    assert rates.none_in(1) == "none in 1 read: at most 100.0 % (3/n)" and rates.none_in(0) == "no reads yet, so nothing is known"
    assert (1 - 3 / 300) ** 300 == pytest.approx(0.05, abs=2e-3), "at 3/n one would have met none in 5 of 100 cases"


def test_as_many_as_needed() -> None:
    for rate, half in ((0.02, 0.005), (0.5, 0.05), (0.0, 0.01), (0.3, 0.02)):
        n = rates.needed(rate, half)
        low, high = rates.wilson(rate * n, n)
        before = rates.wilson(rate * (n - 1), n - 1)
        assert (high - low) / 2 <= half < (before[1] - before[0]) / 2
    assert rates.needed(0.5, 0.05) == 381, "385 of the usual formula, less z squared"
    with pytest.raises(ConfigError):
        rates.needed(0.1, 0.0)


# ---- true rates

def plant(units: list[int], read: list[int], bad: list[int]) -> list[Stratum]:
    """Passed low, passed high, rejected low, rejected high."""
    names = [(False, "low"), (False, "high"), (True, "low"), (True, "high")]
    return [Stratum(rejected, band, *row) for (rejected, band), *row in zip(names, units, read, bad, strict=False)]


def test_the_true_rate_weighs_strata_by_their_units() -> None:
    strata = plant([9000, 600, 300, 100], [180, 60, 60, 40], [1, 6, 30, 38])
    found = truth.true_rate(strata)
    assert found.apparent == 0.04 and not found.unread
    assert found.all.rate == pytest.approx((9000 / 180 + 600 * 0.1 + 300 * 0.5 + 100 * 0.95) / 10_000)
    assert found.missed.rate == pytest.approx((50 + 60) / 9600) and found.false_rejects.rate == pytest.approx((150 + 5) / 400)
    assert found.all.low < 0.0355 < found.all.high and (found.all.k, found.all.n) == (75, 340)
    assert found.missed_words.startswith("Missed defects: 1.1 % of the units passed (0.")
    pooled = sum(s.defective for s in strata) / sum(s.read for s in strata)
    assert pooled > 5 * (found.all.rate or 1), "what was read says nothing without its weights"


def test_zero_misses_say_at_most() -> None:
    alike = truth.true_rate(plant([9000, 1000, 100], [270, 30, 50], [0, 0, 45]))
    assert alike.missed_words == "Missed defects: none in 300 reads: at most 1.0 % (3/n)"
    uneven = truth.true_rate(plant([9000, 1000, 100], [90, 210, 50], [0, 0, 45]))
    assert uneven.missed_words == "Missed defects: none in 300 reads: at most 3.0 % (3/100, by the part read least)"
    assert alike.missed.rate == 0 and alike.missed.low == 0 and alike.missed.high == pytest.approx(3.689 / 300, rel=1e-3)


def test_what_nobody_read_is_uncertain() -> None:
    found = truth.true_rate(plant([9000, 600, 300, 100], [200, 0, 60, 40], [0, 0, 30, 38]))
    assert found.unread == ("passed, high",) and found.all.rate is None and found.all.high > 0.06
    assert found.missed_words == "Missed defects: unknown, some of the units passed had no chance to be read"
    nobody = truth.true_rate(plant([100], [0], [0]))
    assert nobody.all == rates.Rate(0, 0, None, 0.0, 1.0)
    assert truth.true_rate([Stratum(True, "", 10, 5, 5)]).missed_words == "Missed defects: none, no unit was passed"
    with pytest.raises(ConfigError):
        truth.true_rate([])
    with pytest.raises(ConfigError):
        Stratum(False, "", 10, 11, 0)


def test_one_stratum_is_a_plain_rate() -> None:
    assert stratified([Stratum(False, "", 5000, 120, 3)]) == rates.share(3, 120, exact=True)


def test_strata_alike_are_one_exact_count() -> None:
    """Fay & Feuer, Stat. Med. 16, 1997: with equal weights their interval is the exact one of the whole count."""
    eight = stratified([Stratum(False, str(i), 1000, 50, i % 2) for i in range(8)])
    assert (eight.low, eight.high) == pytest.approx((1.0899 / 400, 10.2416 / 400), rel=1e-4)
    assert stratified([Stratum(False, str(i), 1000, 50, 0) for i in range(8)]).high == pytest.approx(3.689 / 400, rel=1e-3)


@pytest.mark.parametrize(("units", "read", "true"), [
    ([9000, 600, 300, 100], [50, 50, 50, 50], [0.001, 0.02, 0.3, 0.95]), ([9000, 600, 300, 100], [200, 50, 50, 50], [0.0, 0.0, 0.1, 0.95]),
    ([5000, 5000], [10, 10], [0.1, 0.0]), ([5000, 5000], [10, 100], [0.0, 0.02]), ([2500] * 4, [30] * 4, [0.01] * 4),
    ([9000, 1000], [100, 10], [0.001, 0.1]), ([9900, 60, 20, 20], [300, 20, 10, 10], [0.002, 0.5, 0.7, 0.9])])
def test_intervals_hold_the_truth(units: list[int], read: list[int], true: list[float]) -> None:
    """At least 95 of 100, and neither end fails more often than in 2.5: also in tiny samples, at zero, and where strata are mostly bad."""
    rng = np.random.default_rng(0)
    rate = float(np.dot(units, true) / sum(units))
    found = [stratified(plant(units, read, rng.binomial(read, true).tolist())) for _ in range(500)]
    assert np.mean([f.low <= rate <= f.high for f in found]) >= 0.95
    assert np.mean([f.low > rate for f in found]) < 0.04 and np.mean([f.high < rate for f in found]) < 0.04
    assert np.mean([f.rate for f in found if f.rate is not None]) == pytest.approx(rate, rel=0.15)


def test_asks_for_what_it_still_needs_and_then_knows_enough() -> None:
    rng = np.random.default_rng(0)
    units, true = np.array([9000, 600, 300, 100]), np.array([0.004, 0.1, 0.5, 0.95])
    read = np.full(4, 30)
    bad = rng.binomial(read, true)
    first = stratified(plant(units.tolist(), read.tolist(), bad.tolist()))
    for _ in range(3):
        more = np.array(truth.still_needed(plant(units.tolist(), read.tolist(), bad.tolist()), 0.01))
        read, bad = read + more, bad + rng.binomial(more, true)
    assert more.sum() < 100 and more[0] >= more[3] and (read <= units).all()
    after = stratified(plant(units.tolist(), read.tolist(), bad.tolist()))
    assert (after.high - after.low) / 2 < 0.0125 < (first.high - first.low) / 2
    assert truth.still_needed(plant([100, 0], [0, 0], [0, 0]), 0.01) == [100, 0] and truth.still_needed(plant([0], [0], [0]), 0.01) == [0]
    with pytest.raises(ConfigError):
        truth.still_needed([], 0.0)


# ---- Rogan and Gladen

def test_rogan_gladen_of_known_tests() -> None:
    """epiR's example: 23 of 150 cows positive in a test of sensitivity 96 % and specificity 89 % are 5.1 % truly so."""
    found = truth.rogan_gladen(23, 150, 9600, 10_000, 8900, 10_000)
    assert found.rate == pytest.approx(0.051, abs=5e-4) and close(found, 0.0, 0.125, 0.01)
    assert truth.rogan_gladen(0, 150, 90, 100, 95, 100).rate == 0, "fewer rejects than false ones alone: none, not less than none"


def test_rogan_gladen_wants_both_measured() -> None:
    with pytest.raises(ConfigError, match="each measured on pieces whose truth is known"):
        truth.rogan_gladen(23, 150, 0, 0, 89, 100)
    with pytest.raises(ConfigError, match="no better than a coin"):
        truth.rogan_gladen(23, 150, 40, 100, 50, 100)
    few = truth.rogan_gladen(5, 100, 1, 1, 1, 10)                            # barely better than a coin, by eleven pieces
    assert (few.low, few.high) == (0, 1)


@pytest.mark.parametrize(("true", "sensitivity", "specificity", "units", "bad", "good"), [
    (0.02, 0.9, 0.98, 2000, 100, 200), (0.1, 0.8, 0.95, 300, 50, 50), (0.001, 0.9, 0.98, 500, 100, 100)])
def test_rogan_gladens_interval_holds_the_truth(true: float, sensitivity: float, specificity: float, units: int, bad: int,
                                                good: int) -> None:
    """With sensitivity and specificity measured on few pieces: leaving that out covers 55 to 75 of 100."""
    rng = np.random.default_rng(0)
    held, naive = 0, 0
    for _ in range(600):
        k = int(rng.binomial(units, true * sensitivity + (1 - true) * (1 - specificity)))
        found, passed = int(rng.binomial(bad, sensitivity)), int(rng.binomial(good, specificity))
        rate = truth.rogan_gladen(k, units, found, bad, passed, good)
        held += rate.low <= true <= rate.high
        plain = [(p + passed / good - 1) / (found / bad + passed / good - 1) for p in rates.wilson(k, units)]
        naive += plain[0] <= true <= plain[1]
    assert held / 600 > 0.94 and 0.5 < naive / 600 < 0.8
