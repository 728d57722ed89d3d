"""Figures of this plant and machine in Prometheus' form, worked out at the moment of asking, in the supervisor.

    diffspect_runs{recipe,state}  diffspect_queue_length{lane}                     run directories
    diffspect_images_inspected_total{plant,line}  diffspect_image_seconds          since the supervisor started; seconds for each
    diffspect_last_picture_timestamp_seconds{plant,line}  diffspect_alarms_open{plant,kind}
    diffspect_ingest_last_success_timestamp_seconds  diffspect_ingest_lag_seconds  what the pages show is so old
    diffspect_message_failures_total{channel}  diffspect_messages_waiting{channel}
    diffspect_disk_free_bytes  diffspect_disk_size_bytes  diffspect_app_up  diffspect_app_resident_memory_bytes  diffspect_build_info

From files alone; of the database what `told` says. What is damaged is passed over: the store names it.
"""

import logging
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.registry import Collector

from backend import __version__, rundir
from backend.config import RECIPES, data_root
from backend.jobs import delivery, locks, messenger, recipes, runs, told

MESSAGES = 500                          # the newest that are looked through
_log = logging.getLogger(__name__)
Labels = tuple[str, ...]


class Figures(Collector):
    """What is counted is counted from its making on; counters begin anew with the supervisor, which Prometheus expects of them."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._since = datetime.now(UTC).isoformat()
        self._parts: dict[str, set[str]] = {}                    # of runs that go on: parts that were counted
        self._over: set[str] = set()                             # runs that ended and are counted
        self._pictures: Counter[Labels] = Counter()
        self._seconds, self._timed = 0.0, 0
        self._last: dict[Labels, datetime] = {}
        self._written_ns = 0                                     # when a part came last
        self._failures: dict[Labels, int] = {}
        _sound(self._begin)

    def _begin(self) -> list[Metric]:
        self._count(baseline=True)
        return []

    def collect(self) -> Iterator[Metric]:
        with self._guard:
            for figures in (self._runs, self._inspected, self._store, self._messages, self._machine):
                yield from _sound(figures)

    def describe(self) -> list[Metric]:
        """Nothing beforehand: it would have everything worked out at the start."""
        return []

    # runs ----------------------------------------------------------------------------------------------------------------

    def _runs(self) -> Iterator[Metric]:
        states: Counter[Labels] = Counter()
        waiting: Counter[Labels] = Counter({(lane,): 0 for lane in ("heavy", "light", "standing")})
        for path in rundir.find(*RECIPES):
            if (state := _state(path)) and rundir.known(path):
                recipe = rundir.recipe_of(path.name)
                states[recipe, state["state"]] += 1
                waiting[(recipes.lane(recipe),)] += state["state"] == "pending"
        yield _gauge("diffspect_runs", "Runs by recipe and state.", ("recipe", "state"), states.items())
        yield _gauge("diffspect_queue_length", "Runs that wait, by lane.", ("lane",), waiting.items())

    # pictures ------------------------------------------------------------------------------------------------------------

    def _inspected(self) -> Iterator[Metric]:
        self._count()
        yield _counter("diffspect_images_inspected", "Pictures inspected since the supervisor started.", ("plant", "line"),
                       self._pictures.items())
        yield SummaryMetricFamily("diffspect_image_seconds", "Seconds that a picture took, of batches that have ended.",
                                  count_value=self._timed, sum_value=self._seconds)

    def _count(self, baseline: bool = False) -> None:
        """Parts that came since the last look; what was there at the first is not counted."""
        for path in rundir.find("inspect", "watch"):
            if path.name in self._over or not (state := _state(path)) or not rundir.known(path):
                continue
            ended = state["state"] in rundir.END_STATES
            if not (baseline and ended):
                self._look(path, baseline)
            if ended:
                self._parts.pop(path.name, None)
                self._over.add(path.name)
                if not baseline and rundir.recipe_of(path.name) == "inspect":
                    self._time(path)

    def _look(self, path: Path, baseline: bool) -> None:
        seen = self._parts.setdefault(path.name, set())
        for part in rundir.parts(path, "inspections"):
            if part.name in seen:
                continue
            seen.add(part.name)
            with suppress(OSError, ValueError, pa.ArrowException):                   # taken away meanwhile, or damaged
                self._written_ns = max(self._written_ns, part.stat().st_mtime_ns)
                if not baseline:
                    self._add(part)

    def _add(self, part: Path) -> None:
        rows = rundir.read_part(part, ["plant", "line", "captured_at"])
        told_of = rows.group_by(["plant", "line"]).aggregate([("captured_at", "max"), ("captured_at", "count")]).to_pylist()
        for row in told_of:
            key = (row["plant"], row["line"] or "")
            self._pictures[key] += row["captured_at_count"]
            self._last[key] = max(row["captured_at_max"], self._last.get(key, row["captured_at_max"]))

    def _time(self, path: Path) -> None:
        try:
            result = rundir.read_json(path / "result.json")
            self._seconds += float(result["seconds"])
            self._timed += int(result["inspected"])
        except (OSError, ValueError, KeyError, TypeError):       # it failed, or was stopped
            return

    # the database --------------------------------------------------------------------------------------------------------

    def _store(self) -> Iterator[Metric]:
        said = told.read()
        last: dict[Labels, datetime] = {(row["plant"], row["line"] or ""): row["at"] for row in said["lines"]}
        last |= {key: max(at, last.get(key, at)) for key, at in self._last.items()}
        yield _gauge("diffspect_last_picture_timestamp_seconds", "When the newest picture of a line was taken.", ("plant", "line"),
                     [(key, at.timestamp()) for key, at in sorted(last.items())])
        yield _gauge("diffspect_alarms_open", "Open alarms.", ("plant", "kind"),
                     [((plant, kind), n) for plant, kinds in said["alarms"].items() for kind, n in kinds.items()])
        if said["taken_in"] is not None:
            then = said["taken_in"].timestamp()
            waits = self._written_ns / 1e9 > then
            yield _gauge("diffspect_ingest_last_success_timestamp_seconds", "When results were taken in last.", (), [((), then)])
            yield _gauge("diffspect_ingest_lag_seconds", "For how long results have been waiting to be taken in.", (),
                         [((), max(0.0, time.time() - then) if waits else 0.0)])

    def _messages(self) -> Iterator[Metric]:
        waiting: Counter[Labels] = Counter()
        for entry, path in _deliveries():
            channel = (str(entry.get("channel")),)
            self._failures[(path.name, *channel)] = int(entry.get("attempts", 0)) - (entry.get("state") in ("sent", "sending"))
            waiting[channel] += entry.get("state") == "waiting"
        failed: Counter[Labels] = Counter()
        for (_, name), n in self._failures.items():
            failed[(name,)] += n
        yield _counter("diffspect_message_failures", "Attempts to send a message that failed.", ("channel",), failed.items())
        yield _gauge("diffspect_messages_waiting", "Messages that wait for another attempt.", ("channel",), waiting.items())

    # the machine ---------------------------------------------------------------------------------------------------------

    def _machine(self) -> Iterator[Metric]:
        yield InfoMetricFamily("diffspect_build", "Which Diffspect this is.", value={"version": __version__})
        disk = shutil.disk_usage(data_root())
        yield _gauge("diffspect_disk_free_bytes", "Free space where the data folder lies.", (), [((), disk.free)])
        yield _gauge("diffspect_disk_size_bytes", "Size of the disk where the data folder lies.", (), [((), disk.total)])
        app = locks.holder(messenger.app_lock())
        yield _gauge("diffspect_app_up", "Whether the dashboard runs.", (), [((), float(app is not None))])
        if app is not None:
            held = psutil.Process(app).memory_info().rss
            yield _gauge("diffspect_app_resident_memory_bytes", "Memory that the dashboard holds.", (), [((), held)])


def _sound(figures: Callable[[], Iterable[Metric]]) -> list[Metric]:
    """What cannot be worked out at this moment is left out, and the rest is told."""
    try:
        return list(figures())
    except (OSError, ValueError, KeyError, TypeError, psutil.Error):
        _log.exception("%s could not be worked out.", figures.__name__)
        return []


def _state(path: Path) -> dict[str, Any]:
    try:
        return runs.state(path)
    except (OSError, ValueError):                                # taken away meanwhile, or damaged
        return {}


def _deliveries() -> Iterator[tuple[dict[str, Any], Path]]:
    for _, path in zip(range(MESSAGES), rundir.find(*delivery.RECIPES), strict=False):
        try:
            entries = rundir.read_json(path / "deliveries.json")
        except (OSError, ValueError):
            continue
        yield from ((entry, path) for entry in entries.values())


def _gauge(name: str, about: str, labels: Labels, values: Iterable[tuple[Labels, float]]) -> Metric:
    family = GaugeMetricFamily(name, about, labels=labels)
    for key, value in values:
        family.add_metric(list(key), value)
    return family


def _counter(name: str, about: str, labels: Labels, values: Iterable[tuple[Labels, float]]) -> Metric:
    family = CounterMetricFamily(name, about, labels=labels)
    for key, value in values:
        family.add_metric(list(key), value)
    return family
