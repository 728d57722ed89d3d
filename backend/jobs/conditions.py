"""What a plant is to be told of at this moment: each kind of rule looks where its facts are and says what it finds, as conditions.

    silence    store.arrivals: lines that are planned now and send nothing
    target     the newest shift that is over, against each target
    chart      control charts that speak at their newest point
    rise       lines whose last shifts are far above what is usual, as Overview has it
    software, imaging     the inspector's own checks; they need no rule

A condition that is not `on` keeps an alarm open that is there: a shift that chance may explain, a rise that is not gone, a change that a
model was put to use in the midst of, master parts that are watched anew. Which of them become alarms is `lookout`'s; why nothing speaks of
one any more, `why_over` says.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from backend.jobs import alarms, checks, control, signals, software
from backend.jobs.alarms import Alarm
from backend.jobs.control import Watched
from backend.quality import alertness, targets
from backend.quality.alertness import AlertRule, Condition, cause, rule_for
from backend.quality.targets import Outcome, Target
from backend.records import Filters
from backend.store import alerts, arrivals, lines
from backend.store import spc as counts
from backend.store.database import Database

STILL_UP = 1.2                         # a rise is gone below this many times the usual rate: it does not come and go with each batch
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plant:
    """What all kinds of rules ask of. `at` is the present moment."""

    db: Database
    name: str
    rules: list[AlertRule]
    open: list[Alarm]
    clock: counts.Clock
    at: datetime | None

    @property
    def now(self) -> datetime:
        """The present moment in UTC; the demo plant's stands still for two days."""
        return self.clock.now

    def utc(self, local: datetime) -> datetime:
        return local.replace(tzinfo=ZoneInfo(self.clock.plan.time_zone)).astimezone(UTC)

    def opened(self, kind: str) -> list[Alarm]:
        return [a for a in self.open if a.kind == kind]

    def rule(self, kind: str, line: str) -> AlertRule | None:
        return rule_for(self.rules, kind, line)


@dataclass(frozen=True)
class Judged:
    """A target and the newest shift that is over; None where there was none of late."""

    target: Target
    bucket: datetime | None
    outcome: Outcome | None


def conditions(db: Database, plant: str, at: datetime | None = None) -> tuple[list[Condition], set[str]]:
    """Conditions, and the kinds that could not be looked at: of these nothing is known, so none of their alarms is over."""
    asked = _asked(db, plant, at)
    found: list[Condition] = []
    unknown: set[str] = set()
    for kind, look in KINDS.items():
        try:
            found += look(asked)
        except Exception:                                        # one damaged chart must not silence the rest
            _log.exception("What alarms of the kind %s rest on could not be looked at.", kind)
            unknown.add(kind)
    return found, unknown


def _asked(db: Database, plant: str, at: datetime | None) -> Plant:
    open_ = [a for a in alarms.alarms(db, plant) if a.is_open]
    return Plant(db, plant, alarms.rules(db, plant), open_, counts.clock(db, plant, at), at)


def why_over(db: Database, plant: str, alarm: Alarm, at: datetime | None = None) -> str:
    """Of an open alarm that no condition speaks of any more: that all is well again, or that nobody asks, or can know."""
    asked = _asked(db, plant, at)
    if alarm.kind in alertness.KINDS and asked.rule(alarm.kind, alarm.line) is None:
        return alertness.GONE
    other = _OTHERWISE[alarm.kind](asked, alarm) if alarm.kind in _OTHERWISE else ""
    return other or alertness.OVER.get(alarm.kind, alertness.GONE)


# ---- one kind after the other


def _silence(asked: Plant) -> Iterator[Condition]:
    """Open ones last until a newer picture comes, also after the shift is over; or until somebody says that the line stands still."""
    still = alarms.standstills(asked.db, asked.name)
    came = alerts.came(asked.db, asked.name, asked.clock.until)
    rules = {line: rule for line in came if (rule := asked.rule("silence", line))}

    def stands_still(line: str, at: datetime) -> bool:
        return any(s["line"] in ("", line) and s["since"] <= at < s["until"] for s in still)

    if not rules:
        return
    plans = {line: rule.planned for line, rule in rules.items()}
    for quiet in arrivals.silences(asked.db, asked.name, asked.clock, lambda line: plans.get(line, {}), stands_still):
        rule = rules.get(quiet.line)
        if rule and quiet.minutes >= rule.minutes:
            yield Condition("silence", cause("silence", quiet.line), quiet.words, asked.utc(quiet.since), True, quiet.line, page="trends",
                            query=(("line", quiet.line),), send=rule.send)
    for alarm in asked.opened("silence"):
        if alarm.line in rules and came[alarm.line] <= alarm.since and not stands_still(alarm.line, asked.now):
            yield _held(alarm)


def _target(asked: Plant) -> Iterator[Condition]:
    for target in alarms.targets(asked.db, asked.name):
        rule = asked.rule("target", target.line)
        if rule is None:
            continue
        why, (bucket, outcome) = cause("target", target.target_id), _judged(asked.db, asked.name, asked.clock, target, rule.least)
        if bucket is None or outcome is None:
            yield from (_held(a) for a in asked.opened("target") if a.cause == why)
            continue
        if outcome.state == "met":
            continue
        on = outcome.state == "missed" or (outcome.state == "near" and not rule.sure)
        text = f"{target.where[:1].upper()}{target.where[1:]}: {outcome.words}, in the shift from {signals.when(bucket.isoformat())}"
        query = [("line", target.line), ("product", target.product), ("kind", target.class_name),
                 ("since", (bucket - timedelta(minutes=asked.clock.plan.day_start)).date().isoformat())]         # its production day
        yield Condition("target", why, text, asked.utc(bucket), on, target.line, target.product, target.class_name, "trends",
                        tuple((k, v) for k, v in query if v), rule.send)


def _judged(db: Database, plant: str, clock: counts.Clock, target: Target, least: int) -> tuple[datetime | None, Outcome | None]:
    """When the newest shift began that is over (plant time), and how it stands against a target."""
    filters = Filters(plant, target.line, target.product, class_name=target.class_name)
    shift = alerts.newest_shift(db, filters, clock.plan, clock.local)
    return (None, None) if shift is None else (shift["bucket"], targets.judge(target, shift["defective"], shift["units"], least))


def judged(db: Database, plant: str, at: datetime | None = None) -> list[Judged]:
    """Every target, as a page shows it."""
    clock = counts.clock(db, plant, at)
    return [Judged(target, *_judged(db, plant, clock, target, 1)) for target in alarms.targets(db, plant)]


def _chart(asked: Plant) -> Iterator[Condition]:
    """A chart speaks at its newest point. Once its stage was ended by another model, nobody knows whether the process is back: the alarm
    stays until a person has seen it."""
    if not any(r.kind == "chart" for r in asked.rules):
        return
    for watched in _charts(asked):
        rule, chart, now = asked.rule("chart", watched.chart.line), watched.chart, watched.now
        if rule is None:
            continue
        if now:
            query = (("chart", watched.chart_id),)
            yield Condition("chart", cause("chart", watched.chart_id, now.side), f"{chart.line}: {signals.sentence(watched)}"
                            + (f" ({chart.characteristic.replace('_', ' ')})" if chart.characteristic else ""),
                            asked.utc(datetime.fromisoformat(now.at)), now.open, chart.line, chart.product, chart.characteristic,
                            "control", query, rule.send, now.at)
        for alarm in asked.opened("chart"):
            if _is_of(alarm, watched) and not alarm.seen_at and _taken_over(alarm, watched):
                yield _held(alarm)


def _charts(asked: Plant) -> list[Watched]:
    """As of this minute. Without a moment they stay as they were until something comes in, and a shift ends though nothing does."""
    return control.charts(asked.db, asked.name, asked.at or datetime.now(UTC).replace(second=0, microsecond=0))


def _is_of(alarm: Alarm, watched: Watched) -> bool:
    return alarm.cause.startswith(cause("chart", watched.chart_id))


def _taken_over(alarm: Alarm, watched: Watched) -> bool:
    """Whether another model judges since it spoke."""
    return any(p.at > alarm.key for p in watched.promotions)


def _rise(asked: Plant) -> Iterator[Condition]:
    if not any(r.kind == "rise" for r in asked.rules):
        return
    for row in lines.lines_now(asked.db, asked.name, asked.at).to_dict("records"):
        rule = asked.rule("rise", row["line"])
        up = bool(row["usual_rate"]) and row["rate"] >= STILL_UP * row["usual_rate"]
        if rule and (row["state"] == "act" or up):
            query = (("line", row["line"]), *((("kind", row["class_name"]),) if row["class_name"] else ()))
            yield Condition("rise", cause("rise", row["line"]), f"{row['line']}: {row['reason']}", asked.now, row["state"] == "act",
                            row["line"], class_name=row["class_name"], page="trends", query=query, send=rule.send)


def _software(asked: Plant) -> Iterator[Condition]:
    """Of the plant that is real: the demo's own model is the one that comes with the program."""
    if asked.name == "real" and (checked := software.now()) and checked.passed is False:
        yield Condition("software", cause("software"), f"Software check of {checked.model or 'the model in use'}: {checked.words}",
                        checked.at, page="control", query=(("charts_view", "Checks"),))


def _imaging(asked: Plant) -> Iterator[Condition]:
    """Two shifts in a row: one point in a hundred lies outside by chance, and three measures are looked at each shift. What is no more
    judged, as where a part was replaced, keeps its alarm until a person has seen it."""
    for alarm in asked.opened("imaging"):
        if not alarm.seen_at and _watched_anew(asked, alarm):
            yield _held(alarm)
    for imaging in checks.imaging(asked.db, asked.name):
        for steady in imaging.moved:
            buckets = imaging.measured.dropna(subset=[steady.measure])["bucket"]
            yield Condition("imaging", cause("imaging", imaging.line, steady.measure), f"{imaging.line}: {steady.words}",
                            asked.utc(buckets.iloc[steady.now[-1].at].to_pydatetime()),
                            any(v.rule == "beyond" and v.last > v.first for v in steady.now), imaging.line, page="control",
                            query=(("charts_view", "Checks"),))


def _held(alarm: Alarm) -> Condition:
    return Condition(alarm.kind, alarm.cause, alarm.text, alarm.since, on=False)


# ---- over, but not because all is well again


def _still(asked: Plant, alarm: Alarm) -> str:
    newest = alerts.came(asked.db, asked.name, asked.clock.until).get(alarm.line)
    return "" if newest and newest > alarm.since else alertness.STILL


def _no_target(asked: Plant, alarm: Alarm) -> str:
    there = {cause("target", t.target_id) for t in alarms.targets(asked.db, asked.name)}
    return "" if alarm.cause in there else alertness.NO_TARGET


def _no_chart(asked: Plant, alarm: Alarm) -> str:
    own = next((w for w in _charts(asked) if _is_of(alarm, w)), None)
    return alertness.NO_CHART if own is None else alertness.OTHER_MODEL if _taken_over(alarm, own) else ""


def _watched_anew(asked: Plant, alarm: Alarm) -> str:
    judged = {cause("imaging", i.line, s.measure) for i in checks.imaging(asked.db, asked.name) for s in i.found if s.chart}
    return "" if alarm.cause in judged else alertness.ANEW


_OTHERWISE: dict[str, Callable[[Plant, Alarm], str]] = {
    "silence": _still, "target": _no_target, "chart": _no_chart, "imaging": _watched_anew}
KINDS: dict[str, Callable[[Plant], Iterator[Condition]]] = {
    "silence": _silence, "target": _target, "chart": _chart, "rise": _rise, "software": _software, "imaging": _imaging}
