"""The one DuckDB connection of this process, and what is done when the file cannot be used.

DuckDB lets one process hold a file and refuses every other open, read-only too. Inside the process each use takes a
cursor of its own: 1.5.5 lets threads share a connection object silently and mixes their results up, so a cursor here
refuses any thread but the one it was made for. The file is derived: where it is damaged or of an earlier version of the schema it is set
aside and an empty one takes its place, which ingest fills again; an earlier version's goes when that is done, a damaged one stays for
whoever wants to look. `lake` opens the same tables elsewhere, for several plants. Knows nothing of run directories.
"""

import hashlib
import logging
import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

import duckdb
import pandas as pd
import pyarrow as pa

from backend.config import data_root
from backend.device import cores
from backend.errors import StoreError

VERSION = 1          # raise it when the meaning of a derived column changes; a changed schema.sql is noticed by itself
SCHEMA = Path(__file__).with_name("schema.sql").read_text()
DIGEST = hashlib.sha256(SCHEMA.encode()).hexdigest()[:16]
_DAMAGE = (duckdb.IOException, duckdb.SerializationException, duckdb.InternalException, duckdb.FatalException,
           duckdb.CatalogException, duckdb.BinderException)      # the last two: a log replayed onto other tables
REFUSALS = ("No space left", "Disk quota exceeded", "Read-only file system", "File too large")
LOST = ("The disk refused in the midst of writing the database, which is opened anew as soon as it takes something again. Nothing that was "
        "taken in is lost. See to the disk.")
_Made = TypeVar("_Made")
_log = logging.getLogger(__name__)


class _Unusable(Exception):
    """The file is damaged; whatever is in it can be made again."""


class _Earlier(_Unusable):
    """It is whole, and of an earlier schema."""


class Cursor:
    """One thread's view of the database for one use; results come out as Arrow, pandas or plain Python."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, lost: Callable[[], None]) -> None:
        self._connection, self._thread, self._lost = connection, threading.get_ident(), lost
        self.moved: set[tuple[str, str]] | None = set()  # plants and lines whose verdicts a transaction changes; None: any may
        self.about: set[str] | None = None               # plants that anything in it is about; None: any

    def execute(self, sql: str, parameters: Sequence[Any] | dict[str, Any] = ()) -> Self:
        assert threading.get_ident() == self._thread, "a cursor belongs to the thread that asked for it"
        try:
            self._connection.execute(sql, parameters)
        except duckdb.FatalException as error:
            self._lost()
            raise StoreError(LOST) from error
        return self

    def table(self) -> pa.Table:
        assert threading.get_ident() == self._thread, "a cursor belongs to the thread that asked for it"
        return self._connection.to_arrow_table()

    def frame(self) -> pd.DataFrame:
        """The result for pandas; by way of Arrow, because DuckDB's own `df()` warns under pandas 3."""
        frame: pd.DataFrame = self.table().to_pandas()
        return frame

    def dicts(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.table().to_pylist()
        return rows

    def column(self) -> list[Any]:
        """The values of the first column."""
        values: list[Any] = self.table().column(0).to_pylist()
        return values

    def one(self) -> Any:
        """The first value of the first row, None where there is no row."""
        return next(iter(self.column()), None)

    @contextmanager
    def lend(self, name: str, table: pa.Table) -> Iterator[None]:
        """Let queries read an Arrow table under a name, meanwhile."""
        self._connection.register(name, table)
        try:
            yield
        finally:
            self._connection.unregister(name)

    def close(self) -> None:
        self._connection.close()


class Database:
    """The process's one read-write connection. `cursor()` to read, `write()` for one transaction at a time."""

    place = "rowid"                                      # finds a row of facts again, within a question

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or data_root() / "inspection.duckdb"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.revision = 0                                # grows with every write: the pages' cache key
        self._counted: dict[tuple[str, str], int] = {}   # by plant and line, the revision that changed its verdicts last
        self._counted_all = 0
        self._about: dict[str, int] = {}                 # by plant, the revision that changed anything that is known of it last
        self._about_all = 0
        self.lock = threading.RLock()                    # whoever writes, or decides from reading what to write
        self.memory: dict[str, Any] = {}                 # what ingest need not look at again; empty after a restart
        self._opening = threading.Lock()
        self.progress = (0, 0)                           # runs looked at and all of them, at the last look at all
        self._lost, self._in_use = False, 0
        self._connection = self._connect()
        self.remade = any(file.exists() for file in _before(self.path))          # and not yet whole, perhaps since an earlier start

    def _connect(self) -> duckdb.DuckDBPyConnection:
        try:
            return _open(self.path)
        except _Unusable as reason:
            _set_aside(self.path, reason)
            return _open(self.path)

    @contextmanager
    def cursor(self) -> Iterator[Cursor]:
        """A cursor for this use on this thread, closed afterwards. Raises StoreError."""
        with self._opening:
            try:
                self._revive()
                cursor = Cursor(self._connection.cursor(), self._lose)
            except duckdb.ConnectionException as error:
                raise StoreError("The database is closed; start the program again.") from error
            self._in_use += 1
        try:
            yield cursor
        finally:
            cursor.close()
            with self._opening:
                self._in_use -= 1

    def _lose(self) -> None:
        self._lost = True

    def _revive(self) -> None:
        """Open it anew once nobody uses it. A disk that is full in the midst of a checkpoint ends a database for good, as DuckDB has it: it
        answers nothing any more, though all that was committed is in the file. Raises StoreError while the disk refuses."""
        if self._lost:
            if self._in_use:
                raise StoreError(LOST)
            self._connection.close()
            self._connection, self._lost = self._connect(), False
            self.memory.clear()
            self._counted_all = self._about_all = self.revision + 1      # what failed last may be in after all
            self.revision += 1

    @contextmanager
    def write(self) -> Iterator[Cursor]:
        """One transaction: all of it or nothing. Raises StoreError where the disk refuses."""
        with self.lock, self.cursor() as cursor:
            try:
                self._begin(cursor)
                yield cursor
                cursor.execute("COMMIT")
            except BaseException as error:
                _roll_back(cursor)
                if refusal := self._refusal(error):
                    raise refusal from error
                raise
            self._written()
            if cursor.moved is None:                     # before the revision: who sees the new one must not find counts of the old
                self._counted_all = self.revision + 1
            else:
                self._counted |= dict.fromkeys(cursor.moved, self.revision + 1)
            if cursor.about is None:
                self._about_all = self.revision + 1
            else:
                self._about |= dict.fromkeys(cursor.about, self.revision + 1)
            self.revision += 1

    def _begin(self, cursor: Cursor) -> None:
        cursor.execute("BEGIN")

    def _refusal(self, error: BaseException) -> StoreError | None:
        """What to say of an error that is the database's own; None for one of whoever wrote."""
        failed = isinstance(error, duckdb.TransactionException) and "Failed to commit" in str(error)
        return StoreError(f"The database cannot be written now: {error}") if failed or isinstance(error, duckdb.IOException) else None

    def _written(self) -> None:
        """A transaction is in."""

    def refresh(self) -> None:
        """See what others wrote; nobody else writes to a file."""

    def in_turn(self, work: Callable[[], _Made]) -> _Made:
        """Do what writes because of what it read; again where somebody else wrote in between, which nobody does to a file."""
        return work()

    def tidy(self) -> None:
        """What is better done at a quiet time; a file sees to itself."""

    def turn(self) -> int | None:
        """How often was written, where others write too: what was read before does not hold after another has written. See `lake`."""
        return None

    def elsewhere(self) -> tuple[str, ...]:
        """Plants whose records are here too and are looked after elsewhere."""
        return ()

    def counted(self, plant: str, line: str = "") -> int:
        """The revision at which a verdict on this line (empty: on any) changed last: what was counted since then still holds."""
        own = (r for (p, name), r in self._counted.copy().items() if p == plant and line in ("", name))
        return max(self._counted_all, *own, 0)

    def known(self, plant: str) -> int:
        """The revision at which anything that is known of this plant changed last."""
        return max(self._about_all, self._about.get(plant, 0))

    def clear(self) -> None:
        """Empty every table."""
        self.memory.clear()                              # it decides nothing here
        with self.write() as cursor:
            for name in cursor.execute("SELECT table_name FROM duckdb_tables() WHERE table_name NOT IN ('about', 'turn', 'owner') "
                                       "AND NOT temporary AND schema_name = current_schema()").column():
                cursor.execute(f"DELETE FROM {name}")
            cursor.moved = None
        self.memory.clear()

    def whole(self) -> None:
        """All that is on disk is in: the file of an earlier version has done its duty."""
        if self.remade:
            for file in _before(self.path):
                file.unlink(missing_ok=True)
            self.remade = False
            _log.info("The database has been made again.")

    def close(self) -> None:
        with self.lock, self._opening:
            self._connection.close()


def _roll_back(cursor: Cursor) -> None:
    try:
        cursor.execute("ROLLBACK")
    except (duckdb.Error, StoreError):                           # a failed COMMIT has rolled back already
        _log.debug("nothing to roll back", exc_info=True)


def _open(path: Path) -> duckdb.DuckDBPyConnection:
    """Connect, lock the door to files and network, and see to the schema. Raises StoreError or _Unusable."""
    connection = _connect(path)
    try:
        connection.execute("SET enable_external_access = false")         # not in `settings`: it would forbid temp_directory there
        connection.execute("SET GLOBAL TimeZone = 'UTC'")
        connection.execute("SET python_enable_replacements = false")     # no query reads a Python variable by its name
        connection.execute("SET lock_configuration = true")
        _schema(connection, path)
        return connection
    except duckdb.Error as error:
        connection.close()
        raise _explain(path, error) from error
    except BaseException:
        connection.close()
        raise


def connect(target: str, folder: Path, read_only: bool = False) -> duckdb.DuckDBPyConnection:
    """A connection to a file, or to `:memory:`; what does not fit into memory is spilled into the folder. Raises duckdb.Error."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20 if hasattr(os, "sysconf") else 8192
    settings: dict[str, str | bool | int | float | list[str]] = {
        "threads": str(min(cores(), 4)), "memory_limit": f"{min(max(memory // 4, 512), 4096)}MB",   # the rest is the workers'
        "temp_directory": str(folder / ".duckdb-spill"),
        "autoinstall_known_extensions": "false", "autoload_known_extensions": "false", "allow_community_extensions": "false"}
    return duckdb.connect(target, read_only=read_only, config=settings)


def _connect(path: Path) -> duckdb.DuckDBPyConnection:
    try:
        return connect(str(path), path.parent)
    except duckdb.Error as error:
        raise _explain(path, error) from error


def _explain(path: Path, error: duckdb.Error) -> Exception:
    """What to raise for a failed open: only an error that damage can cause lets the file be set aside."""
    message = str(error)
    holder = re.search(r"Conflicting lock is held in .*?\(PID (\d+)\)", message)
    if holder or "Could not set lock" in message:
        who = f"process {holder[1]}" if holder else "another process"
        return StoreError(f"Another Diffspect is using the database {path.name} ({who}). Use its page in the browser, or stop it first.")
    if "newer version of DuckDB" in message and "version number" in message:
        return _too_new(path)
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.R_OK | os.W_OK):
        return StoreError(f"The database {path} cannot be read and written: check who may use this file and folder.")
    if any(refusal in message for refusal in REFUSALS):              # nothing is wrong with the file
        return StoreError(f"The database {path.name} cannot be opened while the disk refuses: {message}")
    damaged = isinstance(error, _DAMAGE) or "replaying WAL" in message       # a damaged log may even ask for absurd memory
    return _Unusable(message) if damaged else StoreError(f"The database {path} cannot be opened: {message}")


def _too_new(path: Path) -> StoreError:
    return StoreError(f"A newer Diffspect wrote the database {path.name}. Update this one, or delete that file: "
                      "it is made again from the results on disk.")


def _schema(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    """Make the tables in a new file; check that an old one has the same. Raises StoreError or _Unusable."""
    tables = [name for (name,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()]
    if not tables:
        connection.execute("BEGIN")
        connection.execute(SCHEMA)
        connection.execute("INSERT INTO about VALUES (?, ?)", [VERSION, DIGEST])
        connection.execute("COMMIT")
        return
    found = connection.execute("SELECT version, digest FROM about").fetchone() if "about" in tables else None
    if found and found[0] > VERSION:
        raise _too_new(path)
    if found != (VERSION, DIGEST):
        raise _Earlier("an earlier version of the program wrote it")


def _before(path: Path) -> tuple[Path, Path]:
    """Where the file of an earlier version and its log wait until the new one is whole."""
    return path.with_name(path.name + ".before"), path.with_name(path.name + ".wal.before")


def _set_aside(path: Path, reason: _Unusable) -> None:
    """Move the file and its write-ahead log out of the way, over what was set aside before; but one that never became whole, because a
    third version came meanwhile, must not take the place of one that was."""
    suffix = ".before" if isinstance(reason, _Earlier) else ".aside"
    unfinished = suffix == ".before" and _before(path)[0].exists()
    _log.warning("The database %s cannot be used (%s). It is set aside as %s%s and made again from the results on disk.",
                 path, reason, path.name, suffix)
    for file in (path, path.with_name(path.name + ".wal")):
        if unfinished:
            file.unlink(missing_ok=True)
        elif file.exists():
            os.replace(file, file.with_name(file.name + suffix))
