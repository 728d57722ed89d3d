"""When the demo plant works: which line makes which product in which shift, how many pieces, and how often they are bad.

`schedule` lays out every shift of the demo's days; `demo_inspections` then draws each day's inspections. What is planted
for visitors to find (a process shift, a model change, an excursion with its note, a missed shift) is decided here.
Knows nothing of pictures, detections or files.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
from numpy.random import PCG64, Generator

from backend.data.demo_defects import CLASSES

LINES = ("Line 1", "Line 2", "Line 3")
PRODUCTS = {"a": "Panel 300", "b": "Panel 450", "c": "Cover S", "d": "Frame X"}
CAMERAS = {line: (f"{line[-1]}A", f"{line[-1]}B") for line in LINES}
CALENDAR: dict[str, Any] = {"time_zone": "UTC", "day_start": "06:00", "shifts": [
    {"name": "Early", "start": "06:00", "end": "14:00"}, {"name": "Late", "start": "14:00", "end": "22:00"},
    {"name": "Night", "start": "22:00", "end": "06:00"}]}

# Share of pictures a line's defects are *found* on, by class; line 2's pits are the planted 2 %.
RATES = {"Line 1": dict(crack=0.0006, dent=0.0022, pits=0.0020, scale=0.0012, scratch=0.0050, stain=0.0040),
         "Line 2": dict(crack=0.0008, dent=0.0016, pits=0.0200, scale=0.0012, scratch=0.0040, stain=0.0045),
         "Line 3": dict(crack=0.0012, dent=0.0022, pits=0.0024, scale=0.0080, scratch=0.0034, stain=0.0040)}
PITS_AFTER = 0.06
# A product's share of its line's usual rate; pits are a matter of the line alone.
PRODUCT_FACTOR = {"a": dict(), "b": dict(scratch=1.3, dent=1.2), "c": dict(stain=1.25, scale=0.8), "d": dict(scratch=0.75, crack=1.5)}
SPREAD = 0.15                                    # from shift to shift, the true rate varies by this share of itself
LINE_VOLUME = {"Line 1": 1.0, "Line 2": 1.05, "Line 3": 1.15}
WEEKEND = {"Line 1": 0.4, "Line 2": 1.0, "Line 3": 0.9}


@dataclass(frozen=True)
class Planted:
    """What visitors can find, as moments in UTC. All are starts of shifts but `noted`."""

    process_shift: datetime                      # line 2, pits, 2 % -> 6 %, until now
    model_change: datetime                       # from here the new model inspects: it finds more stains
    excursion: tuple[datetime, datetime]         # line 1, scratches, three times as many ...
    noted: datetime                              # ... until the roll was changed, and somebody wrote so
    missed: datetime                             # line 3: a shift without data


@dataclass(frozen=True)
class Shift:
    """One line in one shift, up to now. `rates` (6,) are shares of pictures, in the order of CLASSES."""

    line: str
    day: date
    name: str
    start: datetime
    end: datetime                                # planned; pieces stop at `until`
    until: datetime
    product: str
    lot: str
    volume: float                                # relative, per second of work
    gaps: tuple[tuple[float, float], ...]        # (start, length) of breaks and stops, in seconds from the start, in order
    rates: np.ndarray

    def working(self) -> float:
        """Seconds the line has worked in this shift so far."""
        elapsed = (self.until - self.start).total_seconds()
        return elapsed - sum(min(length, max(0.0, elapsed - start)) for start, length in self.gaps)

    def moments(self, u: np.ndarray) -> np.ndarray:
        """Shares of the working time so far (n,), 0..1 -> seconds from the start, none inside a gap."""
        at = u * self.working()
        for start, length in self.gaps:
            at = at + length * (at >= start)
        return np.minimum(at, (self.until - self.start).total_seconds())


def windows(calendar: dict[str, Any], now: datetime, days: int) -> list[tuple[date, str, datetime, datetime]]:
    """Every shift (production day, name, start, end in UTC) of so many production days, the last one under way."""
    zone, day_start = ZoneInfo(calendar["time_zone"]), time.fromisoformat(calendar["day_start"])
    local = now.astimezone(zone)
    today = local.date() - timedelta(days=local.time() < day_start)
    found = []
    for n in range(days):
        day = today - timedelta(days=days - 1 - n)
        for shift in calendar["shifts"] or CALENDAR["shifts"]:
            begin, finish = time.fromisoformat(shift["start"]), time.fromisoformat(shift["end"])
            start = datetime.combine(day + timedelta(days=begin < day_start), begin, zone)
            end = datetime.combine(start.date() + timedelta(days=finish <= begin), finish, zone)
            found.append((day, shift["name"], start.astimezone(UTC), end.astimezone(UTC)))
    return sorted((w for w in found if w[2] < now), key=lambda w: w[2])


def plant(slots: list[tuple[date, str, datetime, datetime]], now: datetime, days: int) -> Planted:
    """Choose the moments; with fewer than 90 days they move closer, the process shift excepted."""
    starts = [s[2] for s in slots]

    def ago(n: float) -> datetime:
        return max((s for s in starts if s <= now - timedelta(days=n)), default=starts[0])

    near = min(1.0, days / 90)
    begin, end = ago(22 * near), ago(21 * near)
    return Planted(ago(2.5), ago(40 * near), (begin, end), end + timedelta(minutes=40), ago(9 * near))


def schedule(seed: int, now: datetime, days: int, calendar: dict[str, Any]) -> tuple[list[Shift], Planted]:
    """All shifts of all lines in order of time, and what is planted in them."""
    slots = windows(calendar, now, days)
    planted = plant(slots, now, days)
    shifts = [shift for i, line in enumerate(LINES) for shift in _line(Generator(PCG64([seed, 1, i])), line, slots, now, planted)]
    return sorted(shifts, key=lambda s: (s.start, s.line)), planted


def _line(rng: Generator, line: str, slots: list[tuple[date, str, datetime, datetime]], now: datetime, planted: Planted) -> list[Shift]:
    """One line's shifts: product campaigns of 2 to 6 shifts, a lot a shift, its breaks and stops."""
    product, left, shifts = "", 0, []
    for number, (day, name, start, end) in enumerate(slots):
        if not left:
            product, left = str(rng.choice([p for p in PRODUCTS if p != product])), int(rng.integers(2, 7))
        left -= 1
        volume = LINE_VOLUME[line] * (WEEKEND[line] if day.weekday() >= 5 else 1.0) * rng.uniform(0.88, 1.12)
        gaps, rates = _gaps(rng, (end - start).total_seconds()), _rates(rng, line, product, start, planted)
        if not (line == "Line 3" and start == planted.missed):
            shifts.append(Shift(line, day, name, start, end, min(end, now), product, f"{line[-1]}{product.upper()}-{1000 + number}",
                                volume, gaps, rates))
    return shifts


def _gaps(rng: Generator, length: float) -> tuple[tuple[float, float], ...]:
    """Hand-over, two breaks, and now and then the line stands still."""
    gaps = [(0.0, 300.0), (0.27 * length, 900.0), (0.53 * length, 1800.0)]
    at, stop = rng.uniform(0.6, 0.85) * length, rng.uniform(900, 4200)
    if rng.random() < 0.15:
        gaps.append((at, min(stop, 0.12 * length)))
    return tuple(gaps)


def _rates(rng: Generator, line: str, product: str, start: datetime, planted: Planted) -> np.ndarray:
    usual = dict(RATES[line])
    for class_name, factor in PRODUCT_FACTOR[product].items():
        usual[class_name] *= factor
    if line == "Line 2" and start >= planted.process_shift:
        usual["pits"] = PITS_AFTER
    if line == "Line 1" and planted.excursion[0] <= start < planted.excursion[1]:
        usual["scratch"] *= 3
    return np.array([usual[c] for c in CLASSES]) * rng.gamma(1 / SPREAD**2, SPREAD**2, len(CLASSES))

