"""What `bench dashboard` asks the store: every question that the plant's pages ask, with the filters that people set, timed one by one.

Each is asked for each of its filters, several times, in a shuffled order; nothing is kept between two answers but what the database itself
keeps. A test holds the list against what the pages call. Knows nothing of pages.
"""

import itertools
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

from backend.jobs import alarms, checks, conditions, control, points, shift_facts, shift_report, two_periods
from backend.records import Filters
from backend.store import annotations, counting, decisions, engineering, lines, named, queries, shifts, spc
from backend.store.database import Database

PERIODS = (7, 28, 90, 0)                       # days; 0: all
PAGE = 24
Ask = Callable[[], Any]


def filters(known: dict[str, Any]) -> list[Filters]:
    """Of each period the whole plant, a line, a class of it, a class, a product, a camera, a shift; and one lot."""
    found = []
    for days in PERIODS:
        whole = Filters(since=known["last_day"] - timedelta(days=days - 1) if days else None)
        line = whole.but(line="Line 2")
        found += [whole, line, line.but(class_name="pits"), whole.but(class_name="pits"), whole.but(product="Plate"),
                  whole.but(camera=known["cameras"][-1]), whole.but(shift=known["shifts"][-1])]
    return [*found, Filters(lot=known["lots"][-1])]


def questions(db: Database) -> dict[str, list[Ask]]:
    """name -> the same question with all that it may be asked with."""
    known = queries.choices(db, "real")
    every = filters(known)
    month = Filters(since=known["last_day"] - timedelta(days=27))
    told: dict[str, list[Ask]] = defaultdict(list)

    def ask(name: str, question: Callable[..., Any], *given: Any) -> None:
        told[name].append(lambda: question(db, *given))

    for f in every:
        ask("totals", queries.totals, f)
        ask("unusual_trend", queries.unusual_trend, f)
        ask("pareto", queries.pareto, f)
        ask("per_million", named.named, f)
        for by in ("day", "shift", "week"):
            ask("trend", queries.trend, f, by)
        for by in counting.GROUPS:
            ask("breakdown", queries.breakdown, f, by)
        for verdict in ("defective", "", "unusual"):
            shown = f.but(verdict=verdict)
            there = queries.images_count(db, shown)
            ask("images_count", queries.images_count, shown)
            for offset in {0, 4 * PAGE, max(there - there % PAGE, 0)}:
                ask("images, newest first", queries.images, shown, "newest", PAGE, offset)
        for order in ("surest", "unsure"):
            ask("images, other orders", queries.images, f.but(verdict="defective"), order)
    ask("trend", queries.trend, month, "day", "line")
    for by in ("", "line", "class_name"):
        ask("compared", two_periods.compared, month, two_periods.before(month, known["last_day"]), by)
    for kind in queries.DOUBTS:
        ask("review_queue", queries.review_queue, "real", 120, kind)
    one = queries.images(db, Filters(), limit=1).iloc[0]
    for name, question in (("batch", engineering.batch), ("raw_scores", engineering.raw_scores), ("refused", engineering.refused),
                           ("anomaly_scores", engineering.anomaly_scores), ("settled", engineering.settled)):
        ask(name, question, one["run_id"])
    ask("images of a batch", queries.images, Filters(run_id=one["run_id"], counted=False), "newest", 10_000, 0)
    ask("detections", queries._detections, queries.images(db, month)["inspection_id"].tolist())
    ask("inspection", queries.inspection, int(one["inspection_id"]))
    for name, plain in (("plants", queries.plants), ("calendar", decisions.calendar_now), ("models", engineering.models),
                        ("damaged", engineering.damaged), ("elsewhere", queries.elsewhere)):
        ask(name, plain)
    for name, of_plant in (("choices", queries.choices), ("lines_now", lines.lines_now), ("notes", decisions.notes),
                           ("changes", decisions.changes), ("put_to_use", decisions.put_to_use), ("reviews", decisions.reviews),
                           ("rules", decisions.rules), ("named_kinds", decisions.named_kinds),
                           ("annotations", annotations.annotations), ("alarms", alarms.alarms), ("imaging", checks.imaging),
                           ("hint", checks.hint), ("targets", alarms.targets), ("alert_rules", alarms.rules),
                           ("standstills", alarms.standstills), ("target_outcomes", conditions.judged)):
        ask(name, of_plant, "real")
    plan = shifts.plan(db)
    ask("shifts", shift_report.listed, "real")                   # shifts.shifts, and which of the calendar's there were
    for day, name in itertools.product((known["last_day"], known["last_day"] - timedelta(days=1)), known["shifts"]):
        span = plan.span(day, name)
        ask("counts of a shift", shifts.counts, "real", day, name)
        ask("weeks of a shift", shifts.weeks, "real", day, name)
        ask("decided in a shift", shifts.decided, "real", span.start, span.end)
        ask("shift_report", shift_facts.facts, "real", day, name)                  # all that it says, without its pictures
    for watched in control.charts(db, "real"):                   # from where its limits begin, as the page asks
        kept, now = watched.chart, spc.clock(db, "real")
        told["points of a chart"].append(lambda c=kept, at=now: points.points(db, "real", c, at, c.since))     # type: ignore[misc]
    return dict(told)


def timed(db: Database, rounds: int, seed: int) -> Iterator[tuple[str, list[float]]]:
    """name, milliseconds of each asking; each a time that was not the first."""
    rng = random.Random(seed)
    for name, asks in questions(db).items():
        turns = asks * max(rounds, -(-20 // len(asks)))          # 20 times at least, or a p95 says nothing
        rng.shuffle(turns)
        asks[0]()
        yield name, [_milliseconds(turn) for turn in turns]


def _milliseconds(turn: Ask) -> float:
    start = time.perf_counter()
    turn()
    return 1000 * (time.perf_counter() - start)
