"""`bench dashboard`: how the store and the pages fare as a plant grows, on a plant of a given number of inspections and on a tenth of it.

    draw        run directories (bench_plant)
    take in     the real ingest, into an empty database: rows a second; then what people do: control charts, and pictures to look at
    queries     each question of the pages (bench_queries)
    pages       a server, and reruns of each page over a WebSocket; 8 visitors at once; rows that come in while pages are read (bench_pages)

Each size has a folder of its own, with its data and, in figures.json, what is measured so far: a benchmark that was stopped goes on with
the stage it was at, and one that ran to its end says again what it measured. Delete a stage from figures.json, or the folder, to measure
anew.
"""

import contextlib
import json
import math
import os
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from backend import rundir
from backend.jobs import bench_pages, bench_plant, bench_queries, events, trial
from backend.jobs.bench_plant import DAY, Plan
from backend.quality.stages import SavedChart
from backend.records import Filters
from backend.store import ingest, queries
from backend.store.database import Database

Arm = dict[str, list[float]]
Say = Callable[[str], None]
STAGES = ("draw", "take in", "queries", "pages", "together", "growing")
VISITORS, TOGETHER_S, READERS, MORE = 8, 60.0, 2, 1_000_000
CHARTS = (*(SavedChart(line=f"Line {n}") for n in range(1, 7)), SavedChart(line="Line 2", characteristic="pits"),
          SavedChart(line="Line 3", characteristic="crack", subgroup="defect", kind="g"))


def main(options: dict[str, Any], as_json: bool) -> int:
    """What the command line asks for: a table, or one JSON document; progress on stderr. Returns the exit code."""
    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    with contextlib.ExitStack() as kept:
        folder = Path(options["data"]).expanduser().resolve() if options["data"] else Path(kept.enter_context(TemporaryDirectory()))
        figures = dashboard(folder, options["rows"], options["seed"], options["rounds"], say)
    print(json.dumps(figures) if as_json else table(figures["arms"]), flush=True)
    return 0


def dashboard(folder: Path, rows: int, seed: int, rounds: int, say: Say) -> dict[str, Any]:
    """Arms by size, in the form that benchmarks of this project write."""
    arms: dict[str, Arm] = {}
    for size in sorted({max(rows // 10, 10_000), rows}):
        with _data(folder / f"{size}"):
            arms[f"{size:,} inspections"] = _size(Plan(size, seed, _last(folder)), rounds, lambda text, n=size: say(f"{n:,}: {text}"))  # type: ignore[misc]
    return dict(name="dashboard", command=f"python -m backend bench dashboard --rows {rows}", seeds=[seed], arms=arms, comparisons=[],
                notes=f"Milliseconds of every asking, {rounds} rounds. Pages: from the question to the last byte over a WebSocket. Fresh: "
                      "20 pictures of one line came in before. A third of the pictures that lists show are kept as files of 640 × 512.")


def _size(plan: Plan, rounds: int, say: Say) -> Arm:
    """All stages of one size; those that were measured before are read."""
    file = Path(os.environ["DIFFSPECT_DATA"]) / "figures.json"
    told: dict[str, Arm] = rundir.read_json(file) if file.exists() else {}
    does: dict[str, Callable[[], Arm]] = {
        "draw": lambda: _draw(plan, say), "take in": lambda: _take_in(say), "queries": lambda: _queries(rounds, plan.seed, say),
        "pages": lambda: _pages(plan, rounds, say), "together": lambda: _together(say), "growing": lambda: _growing(plan, say)}
    for stage in STAGES:
        if stage not in told:
            told[stage] = does[stage]()
            rundir.write_json(file, told)
    return {metric: values for stage in STAGES for metric, values in told[stage].items()}


def _draw(plan: Plan, say: Say) -> Arm:
    start = time.perf_counter()
    for done in bench_plant.prepare(plan):
        if done % (10 * DAY) < DAY:
            say(f"drawn {done:,} of {plan.rows:,}")
    return {"draw s": [time.perf_counter() - start]}


def _take_in(say: Say) -> Arm:
    """An ingest that was stopped is no measurement: it begins anew."""
    root = Path(os.environ["DIFFSPECT_DATA"])
    for file in root.glob("inspection.duckdb*"):
        file.unlink()
    say("taking in all rows; nothing is said until they are in")
    start = time.perf_counter()
    db = Database()
    try:
        ingest.ingest(db)
        seconds, rows = time.perf_counter() - start, queries.plants(db)["real"]
        for chart in CHARTS:
            events.record("chart", trial.trial(db, "real", chart).chart.to_json())
        ingest.ingest(db)
        _pictures(db)
    finally:
        db.close()
    say(f"{rows:,} rows in {seconds:.0f} s: {rows / seconds:,.0f} a second")
    return {"ingest rows/s": [rows / seconds],
            "peak memory of the benchmark so far MB": [resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024],
            "database MB": [(root / "inspection.duckdb").stat().st_size / 1e6]}


def _pictures(db: Database) -> None:
    """A file for every picture that a list may show first, so that pages draw pictures and not their absence."""
    from PIL import Image

    from backend.data import images

    out = BytesIO()
    Image.effect_noise((640, 512), 40).convert("RGB").save(out, "JPEG", quality=85)
    newest = queries.images(db, Filters(), limit=1).iloc[0]
    lists = [queries.review_queue(db, "real", 120, kind) for kind in queries.DOUBTS]
    lists.append(queries.images(db, Filters(run_id=newest["run_id"], counted=False), limit=10_000).sort_values("inspection_id").head(48))
    behind = Filters(verdict="defective")
    lists += [queries.images(db, behind.but(line=line, class_name=kind)) for line in ("", "Line 2") for kind in ("", "pits")]
    for image_id in {i for rows in lists for i in rows["image_id"]}:
        images.keep(out.getvalue(), image_id, "JPEG", durable=False)


def _queries(rounds: int, seed: int, say: Say) -> Arm:
    db, arm = Database(), Arm()
    try:
        for name, values in bench_queries.timed(db, rounds, seed):
            arm[f"query ms: {name}"] = values
            say(f"query {name}: {_told(values)}")
    finally:
        db.close()
    return arm


def _pages(plan: Plan, rounds: int, say: Say) -> Arm:
    arm = Arm()
    with bench_pages.serving() as server:
        pages = bench_pages.PAGES | {"Inspection of a batch": ("inspection", f"batch={plan.run_id(0)}")}
        for name, values in bench_pages.reruns(server, pages, rounds):
            arm[f"page ms: {name}"] = values
            say(f"page {name}: {_told(values)}")
        return arm | {"memory of the server MB": [server.memory()]}


def _together(say: Say) -> Arm:
    with bench_pages.serving() as server:
        values = bench_pages.together(server, VISITORS, TOGETHER_S)
        say(f"{VISITORS} visitors at once: {_told(values)}")
        return {f"page ms: {VISITORS} visitors at once": values, "memory of the server with them MB": [server.memory()]}


def _growing(plan: Plan, say: Say) -> Arm:
    """A tenth as many rows again come in, at most a million, from before the plant's past, while two visitors read."""
    staged = _more(plan)
    say(f"{len(staged) * DAY:,} more rows come in while pages are read")
    with bench_pages.serving() as server:
        start = time.monotonic()
        for run in staged:
            rundir.publish(run)
        reading = _Reading(server)
        last = bench_pages.arrived(server, "inspection", f"batch={plan.run_id(plan.days)}", f" of {DAY:,} defective")
        values = reading.end()
    rate = len(staged) * DAY / (last - start)
    say(f"{rate:,.0f} rows a second, pages meanwhile: {_told(values)}")
    return {"rows/s while pages are read": [rate], "page ms: while rows come in": values}


def _more(plan: Plan) -> list[Path]:
    """Their days, written and not yet seen. What an earlier try brought goes first, and its rows: it would pass for what comes in now."""
    days = max(1, min(plan.rows // 10, MORE) // DAY)
    backs = range(plan.days + days - 1, plan.days - 1, -1)
    asked = {plan.run_id(back) for back in backs}
    if there := [path for path in rundir.find("inspect") if path.name in asked]:
        for path in there:
            shutil.rmtree(path)
        db = Database()
        try:
            ingest.ingest(db)
        finally:
            db.close()
    return [bench_plant.staged(plan, back) for back in backs]


class _Reading:
    """Visitors who read until they are told to end."""

    def __init__(self, server: bench_pages.Server) -> None:
        from concurrent.futures import ThreadPoolExecutor

        self._going, self._pool = [True], ThreadPoolExecutor(1)
        self._values = self._pool.submit(bench_pages.together, server, READERS, bench_pages.START_S, self._going)

    def end(self) -> list[float]:
        self._going.clear()
        values = self._values.result()
        self._pool.shutdown()
        return values


# the table -----------------------------------------------------------------------------------------------------------------


def table(arms: dict[str, Arm]) -> str:
    """A row for each metric, a column for each size: p50 and p95 of what was asked several times."""
    metrics = dict.fromkeys(metric for arm in arms.values() for metric in arm)
    width = max(map(len, metrics), default=0) + 2
    head = " " * width + "".join(f"{size:>26}" for size in arms)
    return "\n".join([head, *(f"{m:<{width}}" + "".join(f"{_told(arm.get(m, [])):>26}" for arm in arms.values()) for m in metrics)])


def quantile(values: list[float], share: float) -> float:
    """The smallest value that a share of them does not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def _told(values: list[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:,.0f}" if values else ""
    return f"p50 {quantile(values, 0.5):,.0f}, p95 {quantile(values, 0.95):,.0f}"


@contextlib.contextmanager
def _data(folder: Path) -> Iterator[None]:
    """This process's data folder, meanwhile."""
    before = os.environ.get("DIFFSPECT_DATA")
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["DIFFSPECT_DATA"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["DIFFSPECT_DATA"]
        else:
            os.environ["DIFFSPECT_DATA"] = before


def _last(folder: Path) -> date:
    """The last production day: the day before the benchmark was begun, so that nothing seems to be missing."""
    file = folder / "last_day.json"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        rundir.write_json(file, str((datetime.now(UTC) - timedelta(days=2)).date()))
    return date.fromisoformat(rundir.read_json(file))
