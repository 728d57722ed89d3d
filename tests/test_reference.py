"""The inspector inspected: what passes, what fails, where a hint points, and what agreement is worth."""

import numpy as np
import pytest

from backend.errors import ConfigError
from backend.quality import reference as ref
from backend.quality import spc

STORED = {"a.png": [0.91, 0.34], "b.png": [0.02], "c.png": []}


# ---- software check

def test_the_same_scores_pass_and_others_fail() -> None:
    same = ref.software_check(STORED, {"a.png": [0.9104, 0.34], "b.png": [0.02], "c.png": [], "new.png": [1.0]})
    assert same.passed and same.compared == 3 and same.worst == pytest.approx(4e-4) and same.worst_name == "a.png"
    assert same.words == "Passed: 3 stored pictures, largest deviation 0.0004 (a.png), allowed 0.001."
    off = ref.software_check(STORED, {**STORED, "b.png": [0.03]})
    assert not off.passed and off.worst == pytest.approx(0.01)
    assert off.words == "Failed: 3 stored pictures, largest deviation 0.01 (b.png), allowed 0.001."
    assert ref.software_check({"a": 0.5}, {"a": 0.505}, tolerance=0.01).passed


def test_missing_pictures_lost_boxes_and_no_numbers_fail() -> None:
    missing = ref.software_check(STORED, {"a.png": [0.91, 0.34]})
    assert not missing.passed and missing.missing == ("b.png", "c.png")
    assert missing.words == "Failed: 2 of 3 stored pictures were not scored, for instance b.png."
    for other in ([0.91], [0.91, float("nan")], [0.91, 0.34, 0.2]):
        found = ref.software_check(STORED, {**STORED, "a.png": other})
        assert not found.passed and found.worst == float("inf") and found.worst_name == "a.png"
    assert not ref.software_check(STORED, {}).passed
    with pytest.raises(ConfigError, match="No picture is stored"):
        ref.software_check({}, {})


# ---- imaging check

def test_a_shift_without_all_parts_is_left_out() -> None:
    shifts = ["s1", "s1", "s2", "s3", "s3", "s3", "s0", "s0"]
    parts = ["A", "B", "A", "B", "A", "A", "B", "A"]
    when, values = ref.by_shift(shifts, parts, [1.0, 3, 9, 5, 1, 2, 4, 2])
    assert when == ["s0", "s1", "s3"] and values.tolist() == [3, 2, 3.25]
    assert ref.by_shift([], [], [])[0] == []


def readings(n: int = 40, **moved: float) -> dict[str, np.ndarray]:
    """Steady measures; `brightness=-10` moves the last two shifts by ten standard deviations."""
    rng = np.random.default_rng(2)
    found = {m: rng.normal(level, spread, n) for m, level, spread in (("score", 0.9, 0.01), ("brightness", 120, 2), ("sharpness", 300, 10))}
    for measure, by in moved.items():
        found[measure][-2:] += by * found[measure][:20].std()
    return found


def test_steady_measures_and_one_that_moved() -> None:
    assert all(s.chart is not None and not s.now for s in ref.imaging_check(readings()))
    score, brightness, sharpness = ref.imaging_check(readings(brightness=-10))
    assert not score.now and not sharpness.now and brightness.now[0].side == "below" and brightness.now[0].at == 38
    assert brightness.words == "Brightness of the master parts: 2 in a row below the limits." and score.words.endswith(": steady.")
    assert brightness.chart is not None and brightness.chart.limits == spc.fit("i", readings()["brightness"][:20])


def test_an_old_violation_is_not_now() -> None:
    values = readings()
    values["score"][25] += 1.0
    score = ref.imaging_check(values)[0]
    assert score.violations and not score.now


def test_limits_need_twenty_shifts_or_are_frozen() -> None:
    young = ref.imaging_check(readings(6))[0]
    assert young.chart is None and young.words == "Score of the master parts needs 20 shifts; 6 so far."
    frozen = ref.imaging_check(readings(6), {"score": spc.Limits("i", 0.9, 0.01, 30)})[0]
    assert frozen.chart is not None and not frozen.violations
    dead = ref.imaging_check({"score": np.full(30, 0.9)})[0]
    assert dead.chart is None and "All values of the period are the same" in dead.words


# ---- process, camera or model?

GOOD = ref.software_check({"a": 0.5}, {"a": 0.5})
BAD = ref.software_check({"a": 0.5}, {"a": 0.6})


@pytest.mark.parametrize(("alarm", "moved", "software", "new_model", "cause"), [
    (True, {}, GOOD, "", "process"), (False, {}, GOOD, "", "none"), (True, {}, BAD, "", "model"), (False, {}, BAD, "", "model"),
    (True, {"brightness": -10}, GOOD, "", "camera"), (True, {"sharpness": -10}, None, "", "camera"),
    (True, {"score": -10}, GOOD, "", "camera"), (True, {"score": -10}, None, "", "unclear"),
    (True, {"score": -10}, GOOD, "Model B", "unclear"), (True, {}, GOOD, "Model B", "model"),
    (False, {}, GOOD, "Model B", "none"), (True, {}, None, "", "unclear"),
    (True, {"brightness": -10}, BAD, "", "model")])
def test_where_to_look_first(alarm: bool, moved: dict[str, float], software: ref.SoftwareCheck | None, new_model: str, cause: str) -> None:
    found = ref.hint(alarm, ref.imaging_check(readings(**moved)), software, new_model)
    assert found.cause == cause and found.words == ref.LOOK[cause]
    assert (software.words if software else "The software was not checked.") in found.reasons
    assert sum("of the master parts" in r for r in found.reasons) == 3
    assert (f"{new_model} was put to use." in found.reasons) == bool(new_model)


def test_what_is_not_measured_is_said() -> None:
    nothing = ref.hint(True, [], GOOD)
    assert nothing.cause == "unclear" and "Brightness of the master parts is not known." in nothing.reasons
    young = ref.hint(True, ref.imaging_check(readings(6)), GOOD)
    assert young.cause == "unclear" and "Score of the master parts needs 20 shifts; 6 so far." in young.reasons


# ---- agreement

def judged(both: int, first: int, second: int, neither: int) -> tuple[list[str], list[str]]:
    return (["defective"] * (both + first) + ["good"] * (second + neither),
            ["defective"] * both + ["good"] * first + ["defective"] * second + ["good"] * neither)


def test_kappa_of_the_textbooks() -> None:
    """Two readers of 50 proposals, 20 + 15 alike: 0.40. Feinstein & Cicchetti, J. Clin. Epidemiol. 43, 1990: 85 % alike is 0.70 or 0.32."""
    assert ref.agreement(*judged(20, 5, 10, 15)).kappa == pytest.approx(0.40)
    even, skewed = ref.agreement(*judged(40, 9, 6, 45)), ref.agreement(*judged(80, 10, 5, 5))
    assert (even.kappa, skewed.kappa) == (pytest.approx(0.70, abs=5e-3), pytest.approx(0.32, abs=5e-3))
    assert even.observed == skewed.observed == 0.85 and even.pabak == skewed.pabak == pytest.approx(0.70)


def test_kappa_of_three_categories() -> None:
    """Fleiss, Statistical Methods for Rates and Proportions, ch. 18: 100 subjects, kappa 0.68."""
    table = np.array([[75, 1, 4], [5, 4, 1], [0, 0, 10]])
    pairs = [(str(i), str(j)) for i in range(3) for j in range(3) for _ in range(table[i, j])]
    found = ref.agreement([a for a, _ in pairs], [b for _, b in pairs])
    assert found.kappa == pytest.approx(0.68, abs=5e-3) and found.low < 0.51 and found.high > 0.81 and found.rarest == 0.075


def test_a_rare_category_gets_a_word_of_caution() -> None:
    rare = ref.agreement(*judged(1, 2, 1, 96))
    assert rare.kappa is not None and rare.kappa < 0.5 < 0.9 < rare.pabak
    assert "One category is rare (2 %)" in rare.note and "PABAK (0.94)" in rare.note
    assert not ref.agreement(*judged(20, 5, 10, 15)).note
    one = ref.agreement(["good"] * 30, ["good"] * 30)
    assert one.kappa is None and (one.low, one.high) == (-1, 1) and "agreement on anything else is unknown" in one.note
    for wrong in ([], ["good"]):
        with pytest.raises(ConfigError, match="judged twice"):
            ref.agreement(wrong, ["good", "good"])


def test_full_agreement_in_twenty_is_no_proof() -> None:
    found = ref.agreement(*judged(8, 0, 0, 12))
    assert found.kappa == 1 == found.high and 0.6 < found.low < 0.7
    assert ref.agreement(*judged(80, 0, 0, 120)).low > 0.95


@pytest.mark.parametrize(("n", "bad", "sure"), [(40, 0.5, 0.9), (60, 0.3, 0.8), (30, 0.5, 0.98), (200, 0.05, 0.97)])
def test_kappas_interval_holds_the_truth(n: int, bad: float, sure: float) -> None:
    """Readers who see the truth with some certainty, and err by themselves."""
    rng = np.random.default_rng(0)
    alike, often = sure**2 + (1 - sure) ** 2, bad * sure + (1 - bad) * (1 - sure)
    chance = often**2 + (1 - often) ** 2
    held = []
    for _ in range(400):
        truth = rng.random(n) < bad
        first, second = (np.where(truth ^ (rng.random(n) > sure), "bad", "good").tolist() for _ in range(2))
        found = ref.agreement(first, second)
        held.append(found.low <= (alike - chance) / (1 - chance) <= found.high)
    assert np.mean(held) >= 0.94
