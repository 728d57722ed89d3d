"""Two periods of the same selection side by side: all of it, and line by line or kind by kind, each with the interval of its difference.

    queries (counts of both, day by day) ─► quality.periods ─► Compared, which Trends and Overview show

Differences of one table are looked at together, so their intervals hold together. Which periods, the person says.
"""

from dataclasses import dataclass
from datetime import date, timedelta

from backend.jobs import pictures
from backend.quality import periods
from backend.quality.periods import Difference
from backend.records import Filters
from backend.store import queries
from backend.store.database import Database

MOST = 8                               # rows of a table: the largest; of more, few differences could ever be sure
Days = list[tuple[int, int]]           # defective and units, day by day


@dataclass(frozen=True)
class Side:
    """One line, product or kind of defect in both periods."""

    name: str
    found: Difference
    sentence: str


@dataclass(frozen=True)
class Compared:
    found: Difference
    sentence: str
    sides: list[Side]                  # the largest change first
    left_out: int                      # so many more there are


def before(asked: Filters, last: date) -> Filters:
    """The same selection in as many days right before."""
    assert asked.since is not None, "all of the past has nothing before it"
    until = asked.since - timedelta(days=1)
    return asked.but(since=until - ((asked.until or last) - asked.since), until=until)


def compared(db: Database, now: Filters, then: Filters, by: str = "", called: str = "before") -> Compared:
    """`by`: line, product, shift, camera, lot; class_name for kinds of defect; '' for the whole alone."""
    total = _difference(_days(db, now), _days(db, then))
    both = _kinds(db, now, then) if by == "class_name" else _values(db, now, then, by) if by else {}
    found = [(name, _difference(a, b, min(len(both), MOST))) for name, (a, b) in list(both.items())[:MOST]]
    rows = [Side(name, one, periods.sentence(one, called)) for name, one in found]
    rows.sort(key=lambda s: (not s.found.sure, -abs(s.found.value or 0.0), s.name))
    return Compared(total, periods.sentence(total, called), rows, max(len(both) - MOST, 0))


def _difference(now: Days, then: Days, among: int = 1) -> Difference:
    """A unit counts on the day of its first picture, so days add up."""
    whole = [(sum(k for k, _ in days), sum(n for _, n in days)) for days in (now, then)]
    return periods.difference(whole[0], whole[1], now, then, among)


def _days(db: Database, asked: Filters) -> Days:
    return [(int(r["defective"]), int(r["inspected"])) for r in pictures.rows(queries.trend(db, asked))]


def _values(db: Database, now: Filters, then: Filters, by: str) -> dict[str, list[Days]]:
    """Both periods of each value, day by day, the largest value first: two questions, however many there are."""
    found: dict[str, list[Days]] = {}
    for side, asked in enumerate((now, then)):
        for r in pictures.rows(queries.trend(db, asked, "day", by)):
            found.setdefault(str(r["group"]), [[], []])[side].append((int(r["defective"]), int(r["inspected"])))
    return dict(sorted(found.items(), key=lambda item: (-sum(n for days in item[1] for _, n in days), item[0])))


def _kinds(db: Database, now: Filters, then: Filters) -> dict[str, list[Days]]:
    """The same of kinds of defect, of all parts; of those that are looked at."""
    size: dict[str, int] = {}
    for asked in (now, then):
        for r in pictures.rows(queries.pareto(db, asked)):
            size[str(r["class_name"])] = size.get(str(r["class_name"]), 0) + (0 if r["minor"] else int(r["defects"]))
    names = sorted((n for n in size if size[n]), key=lambda n: (-size[n], n))
    found: dict[str, list[Days]] = {name: [[], []] for name in names}
    for side, asked in enumerate((now, then)):
        days = queries.trend(db, asked.but(class_name=""))
        bad = {(r["bucket"], r["class_name"]): int(r["defective"]) for r in pictures.rows(queries.trend_of_kinds(db, asked))}
        for name in names[:MOST]:
            found[name][side] = [(bad.get((b, name), 0), int(n)) for b, n in zip(days["bucket"], days["inspected"], strict=True)]
    return found
