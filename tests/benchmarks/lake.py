"""The store of several plants beside the file, with the same rows in the same run: writing, asking, and tidying up.

    python -m tests.benchmarks.lake [--part writers|questions|tidy] [--rows 300_000] [--each 90_000] [--rounds 3]

A Postgres of its own on this machine, on a Unix socket and without fsync, for it is the engine that is compared and not a disk; files in
a folder beside it. Writers are processes with a plant each, which begin together; a rate is all of their rows by the time until the last
is done. Each part joins the figures of the others in results/lake.json.
"""

import argparse
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median

from backend.jobs import bench_plant, bench_queries
from backend.store import queries
from backend.store.database import Database
from backend.store.ingest import ingest
from backend.store.lake import Lake, Place
from tests import lakes
from tests.benchmarks.record import ROOT, join

COMMAND = "python -m tests.benchmarks.lake"
PACKAGES = ("duckdb", "duckdb-extension-ducklake", "duckdb-extension-postgres-scanner", "pyarrow")
LAST = datetime.now(UTC).date() - timedelta(days=1)
SMALL, SMALL_ROWS = 60, 20                    # batches that a plant hands over one by one, and pictures of one
WRITER = """
import sys
from pathlib import Path
from backend.store import lake
from backend.store.database import Database
from backend.store.ingest import ingest
where, files, name = sys.argv[1:]
db = lake.Lake(lake.Place(where, Path(files), name)) if where else Database()
print("ready", flush=True)
sys.stdin.readline()
ingest(db)
print("done", flush=True)
db.close()
"""
Figures = dict[str, dict[str, list[float]]]


@contextmanager
def data_of(folder: Path) -> Iterator[Path]:
    """The program's data folder, meanwhile."""
    before = os.environ.get("DIFFSPECT_DATA")
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["DIFFSPECT_DATA"] = str(folder)
    try:
        yield folder
    finally:
        os.environ.pop("DIFFSPECT_DATA")
        os.environ |= {"DIFFSPECT_DATA": before} if before else {}


def prepared(folder: Path, rows: int, seed: int) -> None:
    with data_of(folder):
        for _ in bench_plant.prepare(bench_plant.Plan(rows, seed, LAST)):
            pass


# writing -------------------------------------------------------------------------------------------------------------------


def seconds(folders: list[Path], where: str, files: Path) -> float:
    """Until the last of as many processes has taken in what lies in its folder."""
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, where, str(files), f"Plant {n}"], cwd=ROOT, text=True, stdin=subprocess.PIPE,
                                stdout=subprocess.PIPE, env={**os.environ, "DIFFSPECT_DATA": str(folder)})
               for n, folder in enumerate(folders)]
    assert all(w.stdout and w.stdout.readline() == "ready\n" for w in writers)
    start = time.perf_counter()
    for writer in writers:
        assert writer.stdin is not None
        print("go", file=writer.stdin, flush=True)
    assert all(w.stdout and w.stdout.readline() == "done\n" for w in writers)
    took = time.perf_counter() - start
    assert [w.wait(60) for w in writers] == [0] * len(writers)
    return took


def writers(root: Path, server: lakes.Server, rows: int, rounds: int) -> Figures:
    """rows_per_s of the file's one writer and of 1, 2 and 4 plants that write at once; each round in an empty store."""
    for n in range(4):
        prepared(root / f"plant-{n}", rows, n)
    found: Figures = {}
    for turn in range(rounds):
        for file in (root / "plant-0").glob("inspection.duckdb*"):
            file.unlink()
        arms = {"file": ([root / "plant-0"], "")} | {f"lake, {n} plant{'s' if n > 1 else ''}": (
            [root / f"plant-{k}" for k in range(n)], server.catalogue(f"w{turn}_{n}")) for n in (1, 2, 4)}
        for name, (folders, where) in arms.items():
            took = seconds(folders, where, root / f"files-{turn}-{len(folders)}")
            found.setdefault(name, {}).setdefault("rows_per_s", []).append(len(folders) * rows / took)
            print(f"{name}: {found[name]['rows_per_s'][-1]:,.0f} rows/s", flush=True)
    return found


# asking --------------------------------------------------------------------------------------------------------------------


def questions(root: Path, server: lakes.Server, rows: int, rounds: int) -> Figures:
    """Median milliseconds of each question of the pages; the two stores take turns."""
    prepared(root / "asked", rows, 0)
    with data_of(root / "asked"):
        file, lake = Database(), Lake(Place(server.catalogue("asked"), root / "files-asked", "Asked"))
        with closing(file), closing(lake):
            for db in (file, lake):
                ingest(db)
            lake.tidy()
            found: Figures = {"file": {}, "lake": {}, "lake / file": {}}
            for (name, ours), (_, theirs) in zip(*(bench_queries.timed(db, rounds, 0) for db in (file, lake)), strict=True):
                found["file"][name], found["lake"][name] = [median(ours)], [median(theirs)]
                found["lake / file"][name] = [median(theirs) / median(ours)]
                print(f"{name}: {median(ours):.1f} ms, {median(theirs):.1f} ms", flush=True)
    ratios = [r for (r,) in found["lake / file"].values()]
    found["lake / file"] |= {"of all, geometric mean": [math.exp(sum(map(math.log, ratios)) / len(ratios))], "of all, worst": [max(ratios)]}
    return found


# tidying -------------------------------------------------------------------------------------------------------------------


def tidy(root: Path, server: lakes.Server, rows: int, rounds: int) -> Figures:
    """A plant whose last hours came in many small batches: how long each took to be in, and what its pages take before and after."""
    prepared(root / "small", rows, 0)
    with data_of(root / "small"):
        file, lake = Database(), Lake(Place(server.catalogue("small"), root / "files-small", "Small"))
        with closing(file), closing(lake):
            for db in (file, lake):
                ingest(db)
            found: Figures = {"file": {}, "lake, before": {}, "lake, after": {}}
            took: dict[Database, list[float]] = {file: [], lake: []}
            for _ in range(SMALL):
                run = bench_plant.late(SMALL_ROWS).name
                for db in (file, lake):
                    took[db].append(milliseconds(lambda db=db, run=run: ingest(db, [run])))      # type: ignore[misc]
            found["file"]["ms until a batch is in"], found["lake, before"]["ms until a batch is in"] = took[file], took[lake]
            found["file"] |= asked(file, rounds)
            found["lake, before"] |= asked(lake, rounds) | {"files": [float(files(lake))]}
            lake._tidied = -1000
            found["lake, after"]["ms of tidying"] = [milliseconds(lake.tidy)]
            found["lake, after"] |= asked(lake, rounds) | {"files": [float(files(lake))]}
            for name, figures in found.items():
                print(name, {key: round(median(values), 1) for key, values in figures.items()}, flush=True)
    return found


def asked(db: Database, rounds: int) -> dict[str, list[float]]:
    known = queries.choices(db, "real")
    f = bench_queries.filters(known)[7]                          # a month, the whole plant
    return {f"ms, {name}": [milliseconds(lambda q=question: q(db, f)) for _ in range(4 * rounds)]      # type: ignore[misc]
            for name, question in (("totals", queries.totals), ("trend", queries.trend), ("images", queries.images))}


def files(db: Lake) -> int:
    with db.cursor() as cursor:
        return int(cursor.execute("SELECT sum(file_count + delete_file_count) FROM ducklake_table_info('lake')").one())


def milliseconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - start)


def main() -> None:
    asked_for = argparse.ArgumentParser()
    asked_for.add_argument("--part", choices=("writers", "questions", "tidy"))
    asked_for.add_argument("--rows", type=int, default=300_000)
    asked_for.add_argument("--each", type=int, default=90_000)
    asked_for.add_argument("--rounds", type=int, default=3)
    given = asked_for.parse_args()
    parts = {"writers": (writers, given.each), "questions": (questions, given.rows), "tidy": (tidy, given.rows)}
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="lake-bench-") as root, lakes.postgres() as server:
        for part, (measure, rows) in parts.items():
            if given.part in (None, part):
                figures = measure(Path(root), server, rows, given.rounds)
                notes = f"{rows:,} pictures{' each' if part == 'writers' else ''}, {given.rounds} rounds, Postgres on the same machine"
                print(join("lake", part, f"{COMMAND} --part {part}", figures, [0], notes, PACKAGES))


if __name__ == "__main__":
    main()
