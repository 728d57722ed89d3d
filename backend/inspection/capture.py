"""What is known about a picture besides its pixels: when it was taken, of which unit, and whether it counts in plant trends.

Asked by the recipe `inspect` for each file. Settings are checked when the objects are made, before the first picture is read.
Times without a zone are the plant's own; everything that leaves here is UTC. Knows nothing of models.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any
from zoneinfo import ZoneInfo

from backend import rundir
from backend.config import Inspect
from backend.data import images
from backend.errors import ConfigError

# strptime directives that may stand in a file name, as strftime writes them
_DIRECTIVES = {"Y": r"\d{4}", "y": r"\d{2}", "m": r"\d{2}", "d": r"\d{2}", "j": r"\d{3}", "H": r"\d{2}", "I": r"\d{2}", "M": r"\d{2}",
               "S": r"\d{2}", "f": r"\d{1,6}", "b": r"[^\W\d_]+\.?", "B": r"[^\W\d_]+", "p": r"[AaPp][Mm]",
               "z": r"(?:[Zz]|[+-]\d{2}:?\d{2})", "%": "%"}


class Clock:
    """Tells when a picture was taken: EXIF, else the file name, else what was typed, else when the batch arrived."""

    def __init__(self, config: Inspect, arrival: datetime, zone: ZoneInfo) -> None:
        self.arrival, self.zone = arrival, zone
        self._format = config.captured_pattern or ""
        self._stamp = _stamp_pattern(self._format) if self._format else None
        self._typed = self._utc(_typed(config.captured_at)) if config.captured_at else None

    def __call__(self, data: bytes, name: str) -> tuple[datetime, str]:
        """UTC time and its source: exif | file name | typed | arrival."""
        for naive, source in ((images.captured_at(data), "exif"), (self._in_name(name), "file name")):
            at = self._utc(naive) if naive else None
            if at:
                return at, source
        return (self._typed, "typed") if self._typed else (self.arrived(name), "arrival")

    def arrived(self, name: str) -> datetime:
        """When the file came: with its batch."""
        return self.arrival

    def _in_name(self, name: str) -> datetime | None:
        found = self._stamp.finditer(_part(name, self._format)) if self._stamp else ()
        for match in found:
            try:
                return datetime.strptime(match[0], self._format)
            except ValueError:                                    # month 13: digits that are no time
                continue
        return None

    def _utc(self, at: datetime) -> datetime | None:
        try:
            return (at if at.tzinfo else at.replace(tzinfo=self.zone)).astimezone(UTC)
        except OverflowError:                                     # the first and the last day of the calendar
            return None


def doubtful(at: datetime) -> bool:
    """Whether a capture time speaks of a camera clock that was never set or runs ahead."""
    return at.year < 2000 or at > datetime.now(UTC)


def plant_zone() -> ZoneInfo:
    """The plant's time zone: that of its calendar; UTC where there is none."""
    name = _calendar().get("time_zone", "UTC")
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError) as e:                  # KeyError: ZoneInfoNotFoundError
        raise ConfigError(f"The plant's time zone {name!r} is unknown on this machine. Set the calendar again.") from e


def day_start() -> timedelta:
    """When the plant's day begins, after midnight."""
    hour, minute = str(_calendar().get("day_start") or "06:00").split(":")[:2]
    return timedelta(hours=int(hour), minutes=int(minute))


def _calendar() -> dict[str, Any]:
    """The newest calendar that nobody took back; empty where there is none."""
    taken_back = rundir.undone()
    newest = next((p for p in rundir.completed("calendar") if p.name not in taken_back), None)
    return dict(rundir.read_json(newest / "job.json")["config"]) if newest else {}


def unit_finder(config: Inspect) -> Callable[[str], str]:
    """A function from a file name to the id of the unit it shows, unique within line, product and lot; '' where the name tells none."""
    if not config.unit_pattern:
        return lambda name: ""
    try:
        pattern = re.compile(config.unit_pattern)
    except re.error as e:
        raise ConfigError(f"The unit pattern {config.unit_pattern!r} is no regular expression: {e}.") from e
    if not pattern.groups:
        raise ConfigError(f"The unit pattern {config.unit_pattern!r} needs a group in parentheses around the unit, "
                          r"such as unit_(\d+).")

    def unit(name: str) -> str:
        match = pattern.search(_part(name, pattern.pattern))
        return f"{config.line}/{config.product}/{config.lot}/{match[1]}" if match and match[1] else ""

    return unit


def counter(config: Inspect) -> Callable[[str], tuple[bool, str]]:
    """A function from an image id to (counts in plant trends, why not)."""
    if config.master:
        return lambda image_id: (False, "master part")
    if config.line and config.count == "no":
        return lambda image_id: (False, "switched off")
    # Without a line the switch says nothing, but the dataset does: a line given later must not count these.
    known = {} if config.count == "yes" else dataset_of()
    rest = (True, "") if config.line else (False, "no line")
    return lambda image_id: (False, f"dataset {known[image_id]}") if image_id in known else rest


def dataset_of() -> dict[str, str]:
    """{image id: name of the newest dataset it belongs to}."""
    known: dict[str, str] = {}
    for name, ids in map(_images_of, list(rundir.snapshots())[::-1]):
        known |= dict.fromkeys(ids, name)
    return known


@lru_cache(maxsize=64)
def _images_of(snapshot: Path) -> tuple[str, list[str]]:
    """Its dataset's name and its images' ids. A snapshot never changes; a warm process has read it before it is asked."""
    ids = [i for part in rundir.parts(snapshot, "snapshot_images") for i in rundir.read_part(part, ["image_id"])["image_id"].to_pylist()]
    return str(rundir.read_json(snapshot / "snapshot.json")["name"]), ids


def _part(name: str, pattern: str) -> str:
    """The bare file name; the whole path where the pattern speaks of folders."""
    return name if "/" in pattern else PurePosixPath(name).name


def _typed(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError as e:
        raise ConfigError(f"The capture time {text!r} is no time. Write it like 2026-03-31T14:05.") from e


def _stamp_pattern(form: str) -> "re.Pattern[str]":
    """A regular expression for the place in a file name where a time of this strptime form may stand."""
    pieces = re.findall(r"%.|[^%]+|%$", form, re.DOTALL)
    used = {p[1:] for p in pieces if p[0] == "%"}
    unknown = sorted(used - _DIRECTIVES.keys())
    if unknown:
        raise ConfigError(f"The time pattern {form!r} uses %{unknown[0]}, which cannot be read from a file name.")
    if not (used & {"Y", "y"} and ("j" in used or ("d" in used and used & {"m", "b", "B"}))):
        raise ConfigError(f"The time pattern {form!r} needs at least year, month and day, such as %Y%m%d_%H%M%S.")
    if any(pieces.count(f"%{d}") > 1 for d in used - {"%"}):
        raise ConfigError(f"The time pattern {form!r} names one thing twice.")
    body = "".join(_DIRECTIVES[p[1:]] if p[0] == "%" else re.escape(p) for p in pieces)
    return re.compile(rf"(?<!\d){body}(?!\d)" if pieces[0][0] == "%" else rf"{body}(?!\d)")    # not out of the middle of a longer number
