"""Who owns limits: a saved chart, its period, and what a change of model does. Keys are shifts, three a day."""

import json
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from time import perf_counter
from typing import Any

import numpy as np
import pytest

from backend.errors import ConfigError
from backend.quality import rules, spc, stages
from backend.quality.stages import Promotion, SavedChart, Step, frozen, watch


def keys(n: int) -> list[str]:
    return [(datetime(2026, 3, 1, 6) + timedelta(hours=8 * i)).isoformat() for i in range(n)]


def plant(n: int, rate: float = 0.02, seed: int = 0, **later: float) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Keys, defective units, units; `from_40=0.05` is another rate from shift 40 on."""
    rates = np.full(n, rate)
    for since, other in later.items():
        rates[int(since.removeprefix("from_")):] = other
    rng = np.random.default_rng(seed)
    sizes = rng.integers(800, 1200, n)
    return keys(n), rng.binomial(sizes, rates), sizes


def chart(**more: Any) -> SavedChart:
    return SavedChart(**{"line": "Line 2", "characteristic": "pits", "since": keys(1)[0], "until": keys(30)[-1], **more})


# ---- a saved chart and its period

def test_limits_come_from_the_period_less_what_is_left_out() -> None:
    when, counts, sizes = plant(60, from_45=0.05)
    counts[7] = 120
    owned = frozen(chart(excluded={when[7]: "Roll 3 was worn, and changed."}), when, counts, sizes)
    keep = np.arange(30) != 7
    assert owned.own_limits == spc.fit("p", counts[:30], sizes[:30], keep)
    assert owned.own_limits and owned.own_limits.subgroups == 29 and owned.limits == asdict(owned.own_limits)
    assert SavedChart.from_json(json.loads(json.dumps(owned.to_json()))) == owned


def test_a_period_is_long_enough_for_its_kind() -> None:
    when, counts, sizes = plant(60)
    assert stages.progress("p", 6, "shift") == "needs 20 shifts; 6 so far" and stages.progress("p'", 25) == ""
    with pytest.raises(ConfigError, match="too short: it needs 20 shifts; 6 so far"):
        frozen(chart(until=when[5]), when, counts, sizes)
    with pytest.raises(ConfigError, match="needs 25 shifts; 24 so far"):
        frozen(chart(kind="p'", until=when[24], excluded={when[3]: "trial"}), when, counts, sizes)
    assert frozen(chart(kind="p'", until=when[24]), when, counts, sizes).own_limits


def test_what_is_left_out_has_a_reason_and_lies_in_the_period() -> None:
    when, counts, sizes = plant(60)
    with pytest.raises(ConfigError, match="Say why"):
        chart(excluded={when[3]: " "})
    with pytest.raises(ConfigError, match="is left out of the period, but is not in it"):
        frozen(chart(excluded={when[40]: "trial"}), when, counts, sizes)
    with pytest.raises(ConfigError, match="Model B was put to use within the period"):
        frozen(chart(), when, counts, sizes, [Promotion(when[12], "Model B")])


def test_a_chart_belongs_to_one_line_and_says_what_it_is() -> None:
    with pytest.raises(ConfigError, match="belongs to one line"):
        SavedChart()
    with pytest.raises(ConfigError, match="kind must be one of"):
        chart(kind="x")
    with pytest.raises(ConfigError, match="runs are no sign"):
        chart(weight=0.2)
    assert chart(weight=0.2, rules=["beyond"]).owner != chart().owner == chart(rules=["beyond"]).owner


def test_a_moved_threshold_restates_limits_in_the_same_stage() -> None:
    """Other counts from the same raw scores: the same period and the same left out, so the same stage with other limits."""
    when, counts, sizes = plant(60)
    owned = frozen(chart(excluded={when[7]: "trial"}), when, counts, sizes)
    lower = counts + np.random.default_rng(1).binomial(sizes, 0.01)
    restated = frozen(owned, when, lower, sizes)
    assert replace(restated, limits={}) == replace(owned, limits={})
    assert restated.limits["center"] == pytest.approx(owned.limits["center"] + 0.01, abs=2e-3)
    assert len(watch([restated], when, lower, sizes)) == 1


# ---- stages

def test_a_new_chart_is_provisional_until_somebody_freezes_it() -> None:
    when, counts, sizes = plant(60)
    for n, note, limits in ((6, "needs 20 shifts; 6 so far", False), (12, "needs 20 shifts; 12 so far", True),
                            (45, "45 shifts are in: limits can be frozen", True)):
        only, = watch([chart()], when[:n], counts[:n], sizes[:n])
        assert (only.first, only.last, only.note, only.provisional, only.limits is not None) == (0, n - 1, note, True, limits)
        assert (only.chart is None) == (not limits)
    assert only.limits == spc.fit("p", counts[:20], sizes[:20]), "later shifts do not pull the limits after them"
    spread, = watch([chart(kind="p'")], when[:24], counts[:24], sizes[:24])
    assert spread.limits is None and spread.note == "needs 25 shifts; 24 so far", "a spread takes more than a centre"


def test_frozen_limits_judge_what_comes_after() -> None:
    when, counts, sizes = plant(60, from_45=0.05)
    owned = frozen(chart(), when, counts, sizes)
    only, = watch([owned], when, counts, sizes)
    assert (only.why, only.note, only.provisional, only.limits) == ("Limits were frozen", "", False, owned.own_limits)
    late = [v for v in only.violations if v.at >= 45]
    assert late and late[0].at <= 46 and late[0].side == "above"
    assert only.chart is not None and rules.violations(only.chart.z, owned.rules) == list(only.violations)


def test_a_promotion_starts_a_stage_and_old_alarms_stay() -> None:
    """The new model finds half as much again. Against the old limits that would read as a change of the process."""
    when, counts, sizes = plant(70, from_50=0.03)
    counts[40] = 60
    owned = frozen(chart(), when, counts, sizes)
    change = Promotion(when[50], "Model B")
    alone, = watch([owned], when, counts, sizes)
    before, after = watch([owned], when, counts, sizes, [change])
    assert len([v for v in alone.violations if v.at >= 50]) > 0 and not after.violations
    assert (after.first, after.why, after.provisional) == (50, "Model B was put to use", True)
    assert after.note == "20 shifts are in: limits can be frozen"
    assert (before.limits, before.last, before.provisional) == (owned.own_limits, 49, False)
    assert list(before.violations) == [v for v in alone.violations if v.at < 50] and any(v.at == 40 for v in before.violations)


def test_a_young_stage_has_the_old_limits_moved_by_the_step() -> None:
    """Both models judged the same 3,000 units, so a change of the process shows from the first shift of the new model on."""
    when, counts, sizes = plant(54, from_50=0.03)
    owned = frozen(chart(), when, counts, sizes)
    step = Step(3000, both=55, only_old=5, only_new=35)
    assert (step.old, step.new) == (0.02, 0.03) and step.interval == pytest.approx((0.0058, 0.0142), abs=2e-4)
    assert step.words == ("Of the same 3,000 units the old model calls 2.00 % defective, the new one 3.00 % "
                          "(+1.00 %; +0.58 % to +1.42 %).")
    _, young = watch([owned], when, counts, sizes, [Promotion(when[50], "Model B", step)])
    assert young.provisional and young.limits and young.limits.center == pytest.approx(1.5 * owned.limits["center"])
    assert young.note == "needs 20 shifts; 4 so far; until then the old limits, moved by what the new model changed"
    assert not young.violations
    counts[52] *= 3
    _, alarmed = watch([owned], when, counts, sizes, [Promotion(when[50], "Model B", step)])
    assert [v.at for v in alarmed.violations] == [52]
    _, blank = watch([owned], when, counts, sizes, [Promotion(when[50], "Model B")])
    assert blank.limits is None and not blank.violations


def test_limits_that_cannot_be_moved_are_not() -> None:
    assert Step(100, 0, 0, 5).moved(spc.Limits("p", 0.02)) is None, "the old model found nothing"
    assert Step(100, 0, 2, 60).moved(spc.Limits("p", 0.2)) is None, "more than all"
    assert Step(100, 1, 1, 1).moved(spc.Limits("i", 0.2)) is None
    moved = Step(100, 1, 1, 3).moved(spc.Limits("u'", 0.2, 1.7, 30))
    assert moved == spc.Limits("u'", 0.4, 1.7, 30)
    with pytest.raises(ConfigError, match="at least one"):
        Step(0, 0, 0, 0)


def test_limits_frozen_again_begin_with_their_period() -> None:
    """Of three charts saved over time the last whose period had begun rules; between a promotion and its period there are no limits."""
    when, counts, sizes = plant(130, from_50=0.03)
    first = frozen(chart(), when, counts, sizes)
    change = [Promotion(when[50], "Model B")]
    second = frozen(chart(since=when[60], until=when[99]), when, counts, sizes, change)
    found = watch([first, second], when, counts, sizes, change)
    assert [(s.first, s.last, s.provisional, s.note) for s in found] == [
        (0, 49, False, ""), (50, 59, False, "before the period that the limits come from"), (60, 129, False, "")]
    assert [s.limits for s in found] == [first.own_limits, None, second.own_limits]
    better = frozen(chart(since=when[60], until=when[99], excluded={when[61]: "trial"}), when, counts, sizes, change)
    assert [s.limits for s in watch([first, second, better], when, counts, sizes, change)][2] == better.own_limits
    assert [s.note for s in watch([second], when[:70], counts[:70], sizes[:70])] == ["before the period that the limits come from", ""]


def test_two_promotions_in_a_row() -> None:
    when, counts, sizes = plant(90)
    owned = frozen(chart(), when, counts, sizes)
    found = watch([owned], when, counts, sizes, [Promotion(when[70], "C"), Promotion(when[50], "B", Step(1000, 20, 0, 0))])
    assert [(s.first, s.why, s.provisional) for s in found] == [
        (0, "Limits were frozen", False), (50, "B was put to use", True), (70, "C was put to use", True)]
    assert found[1].limits == spc.fit("p", counts[50:70], sizes[50:70]), "20 shifts of its own count for more than the old ones moved"


def test_single_values_and_gaps_are_watched_too() -> None:
    when = keys(60)
    values = np.random.default_rng(0).normal(0.3, 0.02, 60)
    values[50:] += 0.1
    saved = frozen(chart(kind="i", characteristic="brightness", subgroup="part"), when, values)
    only, = watch([saved], when, values)
    assert only.violations[0].at == 50 and only.chart is not None and only.chart.moving_range is not None
    gaps = np.append(np.random.default_rng(1).geometric(1 / 3000, 40), [2, 1, 0])
    rare = frozen(chart(kind="g", subgroup="defect"), when[:43], gaps)
    stage, = watch([rare], when[:43], gaps)
    assert stage.violations[-1].side == "below" == spc.KINDS["g"].worse


def test_a_stage_where_nothing_was_found_yet_has_no_limits() -> None:
    only, = watch([chart()], keys(10), np.zeros(10), np.full(10, 200))
    assert only.limits is None and only.note == "needs 20 shifts; 10 so far"
    assert watch([chart()], [], np.zeros(0), np.zeros(0)) == []


def test_ten_thousand_subgroups_in_stages() -> None:
    when, counts, sizes = plant(10_000)
    owned = frozen(chart(rules=list(rules.NELSON)), when, counts, sizes)
    took = []
    for _ in range(5):
        began = perf_counter()
        found = watch([owned], when, counts, sizes, [Promotion(when[5000], "Model B")])
        took.append(perf_counter() - began)
    assert len(found) == 2 and all(s.violations for s in found) and min(took) < 0.05, took
