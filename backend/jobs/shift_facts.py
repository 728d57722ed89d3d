"""What a shift report says, as plain data: counts of the store, judged as Overview judges, with the sentences that go with them.

    store.shifts, queries, control charts ─► facts (a JSON document) ─► quality.report, which makes the HTML of it

A line is compared with what it showed in the 28 days before, by the rules of `store.rises`. Pictures are named here and drawn later, by
whoever makes the HTML: the process that has the database has others waiting. Times are the plant's.
"""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pandas as pd

from backend.jobs import control, pictures
from backend.jobs import shift_events as events
from backend.jobs.shift_events import iso
from backend.quality import periods, rates
from backend.records import Filters
from backend.store import lines, queries, rises, shifts
from backend.store.calendar import Calendar, Span
from backend.store.database import Database

PICTURES, EACH = 12, 3                 # pictures in all, and of one kind on one line as long as there are others
CANDIDATES = 200                       # of the surest ones, from which they are chosen
BEFORE_DAYS = 7                        # of the chart of shifts
FEWEST = rises.LOOK_DEFECTIVE          # parts with a kind of defect, below which it does not speak: one rare defect in a shift is chance
Row = dict[str, Any]


def facts(db: Database, plant: str, day: date, shift: str, at: datetime | None = None) -> Row:
    """All that a report of this shift says. `at` is the present moment. Raises NotFoundError for a shift that is not in the calendar."""
    plan, now = shifts.plan(db), at or datetime.now(UTC)
    span = plan.span(day, shift)
    asked = Filters(plant, shift=shift, since=day, until=day)
    counts, kinds = shifts.counts(db, plant, day, shift)
    called = events.called_by_charts(control.charts(db, plant, min(span.end, now)), plan, span)
    of_lines = _lines(counts, kinds, plan, _sparks(db, asked, plan.local(span.start)), called)
    usually, still = shifts.weeks(db, plant, day, shift), events.still(db, plant, span)
    return _named(plan, span, plant, now) | dict(
        totals=_totals(counts, True), usual=_totals(counts, False), compared=_compared(db, asked, counts), lines=of_lines,
        products=_products(counts), kinds=_kinds(counts, kinds), hours_of=_points(queries.trend(db, asked, "hour")),
        shifts=_before(db, asked, plan.local(span.start)), unusual=_unusual(db, asked), pictures=_pictures(db, asked),
        missing=events.missing(of_lines, usually, still), quiet=events.quiet(of_lines, usually, still),
        fell_silent=events.fell_silent(of_lines, plan, span, now), targets=events.targets(db, asked),
        changes=events.changes(shifts.decided(db, plant, span.start, span.end), plan, span),
        reviewed=shifts.reviewed(db, plant, span.start, span.end), alarms=called + events.raised(db, plant, plan, span))


def _named(plan: Calendar, span: Span, plant: str, now: datetime) -> Row:
    """Which shift it is, and when that was. `planned`: its hours by the clock, which differ from the real ones where clocks change."""
    minutes = next(s.minutes for s in plan.shifts if s.name == span.name)
    return dict(plant=plant, day=span.day.isoformat(), shift=span.name, start=iso(plan, span.start), end=iso(plan, span.end),
                zone=plan.time_zone, hours=span.hours, planned=minutes / 60, made_at=iso(plan, now), under_way=now < span.end)


def figures(found: Row) -> dict[str, int]:
    """The numbers by which one knows whether a report has been overtaken."""
    return {name: int(found["totals"][name]) for name in ("units", "defective", "defects")}


# numbers -------------------------------------------------------------------------------------------------------------------


def _totals(counts: pd.DataFrame, recent: bool) -> Row:
    rows = counts[counts["recent"] == recent]
    found: Row = {n: int(rows[n].sum()) for n in ("units", "defective", "defects", "pictures", "named", "named_defective")}
    rate, known = rates.share(found["defective"], found["units"]), rates.ppm(found["named"], found["named_defective"])
    return found | dict(rate=rate.rate, low=rate.low, high=rate.high, good_first_time=None if rate.rate is None else 1 - rate.rate,
                        defects_per_unit=found["defects"] / found["units"] if found["units"] else None,
                        ppm=known.rate, ppm_low=known.low, ppm_high=known.high)


def _compared(db: Database, asked: Filters, counts: pd.DataFrame) -> str:
    """The shift against the days before, in one sentence."""
    now, before = ((int(r["defective"].sum()), int(r["units"].sum())) for r in (counts[counts["recent"]], counts[~counts["recent"]]))
    assert asked.since is not None
    usual = Filters(asked.plant, since=asked.since - timedelta(days=lines.USUAL_DAYS), until=asked.since - timedelta(days=1))
    days = [(int(r["defective"]), int(r["inspected"])) for r in pictures.rows(queries.trend(db, usual))]
    return periods.sentence(periods.difference(now, before, (), days), "usual")


def _lines(counts: pd.DataFrame, kinds: pd.DataFrame, plan: Calendar, sparks: dict[str, list[Row | None]], charts: list[Row]) -> list[Row]:
    """Every line of the shift, and those that had worked in the days before; the worst first."""
    found = []
    for name, rows in counts.groupby("line", sort=True):
        row = _judged(rows, kinds[(kinds["line"] == name) & ~kinds["minor"]])
        last = rows.loc[rows["recent"], "last"].max()
        found.append(row | _called(row, str(name), charts) | dict(
            name=str(name), last=None if pd.isna(last) else iso(plan, last.to_pydatetime()), recent=sparks.get(str(name), [])))
    return rises.worst_first(found, "name")


def _called(row: Row, name: str, charts: list[Row]) -> Row:
    """As on Overview: where a control chart calls, a line is not normal, whatever one shift shows."""
    own = next((a for a in charts if a["line"] == name and a["current"] and a["worse"]), None)
    if own is None or row["state"] == "none":
        return {}
    said = own["words"][:1].upper() + own["words"][1:] + (f" ({own['kind'].replace('_', ' ')})" if own["kind"] else "")
    if row["state"] == "normal":
        return dict(state="look", reason=f"{said}. This shift {row['reason'][:1].lower()}{row['reason'][1:]}")
    return dict(reason=f"{row['reason']}. {said}")


def _judged(rows: pd.DataFrame, kinds: pd.DataFrame) -> Row:
    """State, reason and figures of a line or a product; state 'none' where it sent nothing."""
    now, before = rows[rows["recent"]], rows[~rows["recent"]]
    n, bad, n0, bad0 = (int(r[c].sum()) for r in (now, before) for c in ("units", "defective"))
    units = {(str(r["class_name"]), bool(r["recent"])): int(r["units"]) for r in pictures.rows(kinds)}
    of_kinds = [rises.Rise(c, n, k, n0, units.get((c, False), 0)) for c, of_now in sorted(units)
                if of_now and (k := units[c, True]) >= FEWEST]
    said = rises.judge(rises.Rise("", n, bad, n0, bad0), of_kinds, "")
    rate = rates.share(bad, n)
    empty = dict(state="none", reason="Sent nothing in this shift") if not n else {}
    return dict(state=said["state"], reason=said["reason"], excess=said["excess"], units=n, defective=bad,
                defects=int(now["defects"].sum()), rate=rate.rate, low=rate.low, high=rate.high, usual=bad0 / n0 if n0 else None,
                usual_units=n0) | empty


def _products(counts: pd.DataFrame) -> list[Row]:
    """Products of the shift, the largest first."""
    nothing = pd.DataFrame(columns=["class_name", "recent", "units"])
    found = [_judged(rows, nothing) | dict(name=str(name)) for name, rows in counts.groupby("product", sort=True)]
    return sorted((r for r in found if r["units"]), key=lambda r: (-r["units"], r["name"]))


def _kinds(counts: pd.DataFrame, kinds: pd.DataFrame) -> list[Row]:
    """Kinds of defect of the shift, the most frequent first, minor ones after; with their share of parts, now and usually."""
    n, n0 = (int(counts.loc[counts["recent"] == r, "units"].sum()) for r in (True, False))
    both = pictures.rows(kinds.groupby(["class_name", "minor", "recent"])[["defects", "units"]].sum().reset_index())
    before = {(r["class_name"], r["minor"]): int(r["units"]) for r in both if not r["recent"]}
    now = sorted((r for r in both if r["recent"]), key=lambda r: (r["minor"], -r["defects"], r["class_name"]))
    whole, running, found = sum(int(r["defects"]) for r in now if not r["minor"]), 0, []
    for r in now:
        name, minor, defects = str(r["class_name"]), bool(r["minor"]), int(r["defects"])
        running += 0 if minor else defects
        rise = rises.Rise(name, n, int(r["units"]), n0, before.get((name, minor), 0))
        act = rise.act and rise.defective >= FEWEST
        found.append(dict(name=name, minor=minor, defects=defects, units=rise.defective, rate=rise.rate, usual=rise.usual if n0 else None,
                          state="minor" if minor else "act" if act else "normal",
                          cumulative=running / whole if whole and not minor else None))
    return found


def _points(frame: pd.DataFrame) -> list[Row]:
    return [dict(at=r["bucket"].isoformat(), units=int(r["inspected"]), defective=int(r["defective"]), rate=float(r["rate"]),
                 low=float(r["low"]), high=float(r["high"])) for r in pictures.rows(frame)]


def _before(db: Database, asked: Filters, start: datetime) -> list[Row]:
    """The shifts of the last days, with this one at their end."""
    return [p for p in _points(queries.trend(db, _recently(asked), "shift")) if p["at"] <= start.isoformat()]


def _sparks(db: Database, asked: Filters, start: datetime) -> dict[str, list[Row | None]]:
    """The same of every line, in slots that all share; None where a line sent nothing. The last slot is this shift."""
    frame = queries.trend(db, _recently(asked), "shift", "line")
    of_lines = {str(name): {p["at"]: p for p in _points(rows)} for name, rows in frame.groupby("group")}
    slots = sorted({at for points in of_lines.values() for at in points if at <= start.isoformat()} | {start.isoformat()})
    return {name: [points.get(at) for at in slots] for name, points in of_lines.items()}


def _recently(asked: Filters) -> Filters:
    assert asked.since is not None
    return asked.but(shift="", since=asked.since - timedelta(days=BEFORE_DAYS))


def _unusual(db: Database, asked: Filters) -> Row | None:
    """Parts that look unlike good ones; None where no anomaly model looked."""
    frame = queries.unusual_trend(db, asked)
    return {n: int(frame[n].sum()) for n in ("inspected", "unusual", "disagree")} if len(frame) else None


def _pictures(db: Database, asked: Filters) -> list[Row]:
    """The surest defects, each kind of each line in turn; kept pictures only."""
    frame = queries.images(db, asked.but(verdict="defective"), "surest", CANDIDATES)
    frame = frame[frame["kept"]]
    nth = frame.groupby(["line", "top_class"]).cumcount()
    chosen = frame.assign(round=nth.clip(upper=EACH)).sort_values(["round", "top_confidence"], ascending=[True, False],
                                                                  kind="stable").head(PICTURES)
    boxes = queries.detections(db, chosen["inspection_id"].tolist()) if len(chosen) else pd.DataFrame(columns=["inspection_id"])
    rows = {i: pictures.passing(pictures.rows(own)) for i, own in boxes.groupby("inspection_id")}
    return [dict(image_id=r["image_id"], line=r["line"], product=r["product"], kind=r["top_class"], at=r["captured_local"].isoformat(),
                 unit="" if r["unit_id"] == str(r["inspection_id"]) else r["unit_id"], file_name=r["file_name"],
                 boxes=[_box(b) for b in rows.get(r["inspection_id"], [])]) for r in pictures.rows(chosen)]


def _box(box: Row) -> Row:
    return {n: float(box[n]) for n in ("x1", "y1", "x2", "y2", "confidence")} | {n: str(box[n]) for n in ("class_name", "action")}
