"""What a folder watch has done, so that each picture is inspected once through restarts and kills.

Two things. `WatchLog` is a run's parts: a group's tables are written under hidden names, then `watch.json` says that the group counts, then
they get their names; whoever is killed after the second step finds it done at the next start (`recover`), whoever is killed before it
inspects those files again. `Index` is a small database of a watched folder over all its runs: stamps of files that were dealt with,
contents that were inspected. It only saves time: what it lacks is read from the runs' parts when it is opened. One process has it.
Knows nothing of pictures or engines.
"""

import json
import os
import sqlite3
import time
from collections.abc import Callable
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from backend import rundir
from backend.config import data_root
from backend.errors import ConfigError
from backend.inspection.grouplog import Rows

KEEP_DAYS = 30                                   # a content that nobody has seen for so long may be inspected again
STATE = "watch.json"
T = TypeVar("T")


class WatchLog:
    """The groups of one run. `accepted` pictures have rows; `counts` are of all of them."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        recover(run_dir)
        self.notes: dict[str, Any] = state_of(run_dir)
        self.counts: dict[str, int] = dict.fromkeys(("inspected", "refused", "counted", "defective"), 0) | self.notes.get("counts", {})

    @property
    def accepted(self) -> int:
        return self.counts["inspected"]

    @property
    def number(self) -> int:
        return int(self.notes.get("number", 0))

    def note(self, **more: Any) -> None:
        self.notes |= more
        rundir.write_json(self.run_dir / STATE, self.notes)

    def begin(self, size: int, files: str) -> None:
        """A group follows. Nothing is written down: until it counts it has not been."""

    def finish(self, inspections: Rows, detections: pa.Table, refused: Rows, anomalies: Rows, masters: Rows | None = None) -> None:
        number = self.number + 1
        tables = (("detections", detections), ("anomalies", anomalies), ("masters", masters or []), ("refused", refused),
                  ("inspections", inspections))
        staged = [rundir.stage_part(self.run_dir, table, rows, number) for table, rows in tables]
        self.counts["inspected"] += len(inspections)
        self.counts["refused"] += len(refused)
        self.counts["counted"] += sum(row["counted"] for row in inspections)
        self.note(number=number, counts=self.counts)         # from here on it counts
        for path in filter(None, staged):
            os.replace(path, path.with_name(path.name.removeprefix(".")))


def state_of(run_dir: Path) -> dict[str, Any]:
    path = run_dir / STATE
    return dict(rundir.read_json(path)) if path.exists() else {}


def recover(run_dir: Path) -> bool:
    """Name the parts of the last group that counts, throw away those of one that does not. Whether there was one to name."""
    number, named = int(state_of(run_dir).get("number", 0)), False
    for staged in sorted((run_dir / "parts").glob(".*.parquet")):
        if int(staged.stem.rsplit("-", 1)[1]) <= number:
            os.replace(staged, staged.with_name(staged.name.removeprefix(".")))
            named = True
        else:
            staged.unlink()
    return named


class Index:
    """Stamps and contents of a watched folder. `known`, `name_of`, `add`. Raises ConfigError where another process watches the folder."""

    def __init__(self, folder: Path, run_dir: Path) -> None:
        self.folder, self._run_dir, self._rebuilt = str(folder.resolve()), run_dir, False
        self.refused: set[str] = set()                       # names in groups that it had not heard of: refused once is enough
        self._path = self.place(folder)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._db = self._opened(self._path)
        except sqlite3.DatabaseError:                        # a power cut in the midst of writing: the parts know it all
            self._path.unlink()
            self._db = self._opened(self._path)
        self._catch_up(run_dir)

    @staticmethod
    def place(folder: Path) -> Path:
        """Its file, which is there once the folder was watched."""
        name = blake2b(str(folder.resolve()).encode(errors="surrogateescape"), digest_size=8).hexdigest()
        return data_root() / "watched" / f"{name}.sqlite"

    def _opened(self, path: Path) -> sqlite3.Connection:
        db = sqlite3.connect(path, timeout=1.0, isolation_level=None)
        try:
            db.execute("PRAGMA locking_mode = EXCLUSIVE")
            db.execute("PRAGMA synchronous = OFF")           # what a power cut takes is read from the parts again
            db.execute("PRAGMA cache_size = -512")           # KiB; else it fills two megabytes as the file grows
            db.execute("BEGIN EXCLUSIVE")
            if (said := db.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
                raise sqlite3.DatabaseError(said)
            db.execute("CREATE TABLE IF NOT EXISTS done (stamp INTEGER PRIMARY KEY, at INTEGER, refused INTEGER)")
            if "refused" not in {column[1] for column in db.execute("PRAGMA table_info(done)")}:      # of an older program
                db.execute("ALTER TABLE done ADD COLUMN refused INTEGER DEFAULT 1")                   # unknown: those are not moved
            db.execute("CREATE TABLE IF NOT EXISTS content (id INTEGER PRIMARY KEY, name TEXT, at INTEGER)")
            db.execute("CREATE TABLE IF NOT EXISTS taken (run_id TEXT PRIMARY KEY, number INTEGER)")
            db.execute("COMMIT")
            return db
        except sqlite3.DatabaseError as error:
            db.close()
            if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
                raise ConfigError(f"The folder {self.folder} is being watched already. Stop that first.") from error
            raise

    def _whole(self, do: Callable[[sqlite3.Connection], T]) -> T:
        """Read or write; once, where the disk spoiled the file meanwhile, from the parts anew."""
        try:
            return do(self._db)
        except sqlite3.OperationalError:                     # a full disk: nothing is spoiled
            raise
        except sqlite3.DatabaseError:
            if self._rebuilt:
                raise
            self._rebuilt = True
            self._db.close()
            self._path.unlink(missing_ok=True)
            self._db = self._opened(self._path)
            self._catch_up(self._run_dir)
            return do(self._db)

    def known(self, stamps: list[int]) -> dict[int, bool]:
        """Those of these that were dealt with, and whether they were refused."""
        query = "SELECT stamp, refused FROM done WHERE stamp IN (SELECT value FROM json_each(?))"      # one statement, however many
        return {stamp: bool(refused) for stamp, refused in self._whole(partial(_rows, query, [json.dumps(stamps)]))} if stamps else {}

    def name_of(self, image_id: str) -> str | None:
        """What the file with this content was called when it was inspected; None where none was."""
        rows = self._whole(partial(_rows, "SELECT name FROM content WHERE id = ?", [_short(image_id)]))
        return str(rows[0][0]) if rows else None

    def add(self, stamps: dict[int, bool], contents: dict[str, str], number: int) -> None:
        """A group of this run is done. `stamps`: whether they were refused; `contents`: image id to name."""
        now = int(time.time())

        def do(db: sqlite3.Connection) -> None:
            db.execute("BEGIN")
            db.executemany("INSERT OR REPLACE INTO done VALUES (?, ?, ?)", [(s, now, r) for s, r in stamps.items()])
            db.executemany("INSERT OR REPLACE INTO content VALUES (?, ?, ?)", [(_short(i), name, now) for i, name in contents.items()])
            db.execute("INSERT OR REPLACE INTO taken VALUES (?, ?)", [self._run_dir.name, number])
            db.execute("COMMIT")

        self._whole(do)

    def forget(self) -> None:
        """What was dealt with long ago and lies there no more is no use."""
        self._whole(partial(_rows, "DELETE FROM content WHERE at < ?", [int(time.time()) - 86_400 * KEEP_DAYS]))

    def close(self) -> None:
        self._db.close()

    def _catch_up(self, run_dir: Path) -> None:
        """Contents of groups that count, and that a kill kept from being written here. Runs are read until one that is taken whole."""
        taken = dict(self._db.execute("SELECT run_id, number FROM taken"))
        for path in rundir.find("watch"):
            try:
                if str(Path(rundir.read_json(path / "job.json")["config"]["images"]).expanduser().resolve()) != self.folder:
                    continue
            except (OSError, ValueError, KeyError):
                continue
            if path != run_dir and recover(path):
                state = rundir.read_json(path / "state.json")
                rundir.set_state(path, state["state"])       # a new file: whoever takes rows in looks at the run again
            number, before = int(state_of(path).get("number", 0)), taken.get(path.name, 0)
            if before >= number and number:
                break
            self._take(path, before, number)

    def _take(self, run_dir: Path, before: int, number: int) -> None:
        rows: list[tuple[int, str, int]] = []
        for part in rundir.parts(run_dir, "inspections"):
            if before < int(part.stem.rsplit("-", 1)[1]) <= number:
                found = rundir.read_part(part, ["image_id", "file_name"])
                rows += [(_short(i), n, int(time.time()))
                         for i, n in zip(found["image_id"].to_pylist(), found["file_name"].to_pylist(), strict=True)]
        for part in rundir.parts(run_dir, "refused"):
            if before < int(part.stem.rsplit("-", 1)[1]) <= number:
                self.refused |= set(rundir.read_part(part, ["file_name"])["file_name"].to_pylist())
        self._db.execute("BEGIN")
        self._db.executemany("INSERT OR REPLACE INTO content VALUES (?, ?, ?)", rows)
        self._db.execute("INSERT OR REPLACE INTO taken VALUES (?, ?)", [run_dir.name, number])
        self._db.execute("COMMIT")


def _rows(query: str, values: list[Any], db: sqlite3.Connection) -> list[Any]:
    return db.execute(query, values).fetchall()


def _short(image_id: str) -> int:
    """8 of a hash's 32 bytes: with 100 million pictures two of them share these with a chance of 0.03 %."""
    return int.from_bytes(bytes.fromhex(image_id[:16]), "big", signed=True)
