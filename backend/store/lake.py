"""The store of several plants: the same tables and the same questions, on DuckLake instead of a file.

A lake is a catalogue (Postgres, or a DuckDB file for one process) and a folder of Parquet that all plants reach. Each plant has a schema of
its own there, with the tables of schema.sql, and each plant's app takes in its own run directories. Here a database in memory stands
before it, whose views carry the tables' names: of one's own plant as they are, of the others under their names (see `plants`). So
questions are the same text as on a file. What is not: DuckLake has no keys (`_without_keys`), and `rowid` goes through no view (`place`).

**Exactly once, with several writers.** The guard is a row of `ingested` for each (run_id, part), written in the transaction that takes the
part in. In a file a key and a single writer hold it. DuckLake has no keys, and its transactions see the snapshot that they began with: two
that both find a part missing would both put it in, and since inserts do not conflict both would commit. So each plant has one row,
`turn`, and a transaction that writes (1) reads it in its own snapshot, (2) gives up where that is not the number that it had when it read
what is in, (3) writes the next number. Of two that began at the same number the second to commit is refused, because the first has
deleted the row that it deletes too: what DuckLake checks, in the Postgres transaction that commits a snapshot. And one that began
after the first had committed finds another number than it read, by (2). Either is `Outrun`: nothing of it is in, and the work is done
again from what is in now. One of them always commits, so somebody always gets on. That is a compare-and-set on the snapshot itself: it
needs no lock that could outlive or fall before its holder (an advisory lock is lost with its connection, while the holder may yet
commit), and is the same on any catalogue. A commit whose answer is lost is no matter either: what is in is read anew.

Plants never wait for each other: a conflict is one on a table, and no two share a table. (In one set of tables for all they would at each
ingest, since a derivation deletes: two deletions from one table are refused even where they touch different files, 1.5.5.)

A plant's name belongs to a data folder: it drops rows of runs that it has no directory of, so two folders under one name would empty each
other. The first to use a name writes its folder's id beside it; another is refused. Knows nothing of run directories.
"""

import importlib.util
import logging
import os
import random
import re
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import duckdb

from backend.config import data_root
from backend.errors import StoreError
from backend.store import database, plants
from backend.store.database import Cursor, Database

TRIES = 30                       # of work that others outran; with four writers of one plant no more than 9 were needed
TIDY_WRITES = 50                 # between two tidyings
INLINED = 200                    # rows: as many or fewer of one statement stay in the catalogue until `tidy`, instead of a file each
_EXTENSIONS = ("ducklake", "postgres_scanner")
_OWN = ("CREATE TABLE turn (n BIGINT); INSERT INTO turn VALUES (0); "
        "CREATE TABLE owner (name VARCHAR, folder VARCHAR, host VARCHAR); INSERT INTO owner VALUES ($name, $folder, $host)")
# What only the rows that somebody wants to put in can cause; any other error is the lake's.
_ROWS = (duckdb.ConversionException, duckdb.BinderException, duckdb.OutOfRangeException, duckdb.InvalidInputException,
         duckdb.ConstraintException, duckdb.TypeMismatchException, duckdb.InvalidTypeException, duckdb.ParserException)
# Rows that stayed in the catalogue go to files, small files become one, rows that were taken away leave theirs; what nobody sees any more
# goes. All but `turn`, whose one row is best where it is. An hour: nobody's question takes as long.
_OF_TABLES = ("CALL ducklake_flush_inlined_data('lake', schema_name => $schema, table_name => $table)",
              "CALL ducklake_rewrite_data_files('lake', $table, schema => $schema, delete_threshold => 0.2)",
              "CALL ducklake_merge_adjacent_files('lake', $table, schema => $schema)")
_OF_ALL = ("CALL ducklake_expire_snapshots('lake', older_than => now() - INTERVAL 1 HOUR)",
           "CALL ducklake_cleanup_old_files('lake', older_than => now() - INTERVAL 1 HOUR)")
_Made = TypeVar("_Made")
_log = logging.getLogger(__name__)


class Outrun(StoreError):
    """Another process of this plant wrote first."""


@dataclass(frozen=True)
class Place:
    """Where a lake is (`postgres:` and a libpq connection string, or a DuckDB file), where its files are, and which of its plants this
    is. Raises StoreError."""

    catalogue: str
    files: Path
    plant: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\w[\w -]{0,39}", self.plant) or self.schema in ("real", "demo", "main"):
            raise StoreError("A lake needs the name of this plant in DIFFSPECT_PLANT: up to 40 letters, digits, spaces and hyphens, not "
                             f"\"real\", \"demo\" or \"main\". It is {self.plant!r}.")
        if not str(self.files).startswith("/"):
            raise StoreError("A lake needs the folder of its files in DIFFSPECT_STORE_FILES, with its whole path, the same folder for all "
                             f"plants. Object storage has to be mounted as one. It is {str(self.files)!r}.")

    @property
    def schema(self) -> str:
        return re.sub(r"[ -]", "_", self.plant.lower())

    @property
    def told(self) -> str:
        """The catalogue, without a password."""
        return re.sub(r"password\s*=\s*('[^']*'|\S+)", "password=…", self.catalogue)


def chosen() -> Place | None:
    """The lake of the environment, None for a file. Raises StoreError."""
    catalogue = os.environ.get("DIFFSPECT_STORE", "")
    if catalogue in ("", "embedded"):
        return None
    return Place(catalogue, Path(os.environ.get("DIFFSPECT_STORE_FILES", "")), os.environ.get("DIFFSPECT_PLANT", ""))


def opened(path: Path | None = None) -> Database:
    """This plant's store: in the lake where one is chosen, else the file. Raises StoreError."""
    where = chosen()
    return Lake(where, path) if where else Database(path)


class Lake(Database):
    """One plant's part of a lake, to read and write; the other plants' to read."""

    place = "inspection_id"

    def __init__(self, where: Place, path: Path | None = None) -> None:
        self.where = where
        self._snapshot = -1                                          # of the lake, when we looked last
        self._turn, self._next = -1, 0                               # ours, and the one that a transaction makes of it
        self._turns: dict[str, int] = {}                             # of the other plants
        self._tidied = -TIDY_WRITES                                  # at which turn; the first quiet time after a start is one
        super().__init__(path)
        self.remade = False

    def turn(self) -> int | None:
        with self.cursor() as cursor:
            return int(cursor.execute("SELECT n FROM turn").one())

    def in_turn(self, work: Callable[[], _Made]) -> _Made:
        for tries in range(TRIES):
            try:
                return work()
            except Outrun:
                self.memory.clear()
                time.sleep(random.uniform(0, 0.02 * (tries + 1)))
        return work()

    def elsewhere(self) -> tuple[str, ...]:
        return tuple(sorted(self._turns))

    def refresh(self) -> None:
        """Take note of what other processes wrote; of who has joined, too. Costs one look at the catalogue where nobody did."""
        with self.lock, self.cursor():                               # the cursor: whatever fails is said as anywhere
            self._look(self._connection.cursor())

    def _look(self, connection: duckdb.DuckDBPyConnection) -> None:
        (snapshot,) = connection.execute("SELECT id FROM lake.current_snapshot()").fetchone() or (-1,)
        if snapshot == self._snapshot:
            return
        named = plants.named(connection, (database.VERSION, database.DIGEST))
        if self._snapshot < 0 or set(named) != {self.where.plant, *self._turns}:
            plants.see(connection, named, self.where.plant)
        self._note(plants.turns(connection, named))
        self._snapshot = snapshot

    def tidy(self) -> None:
        """Keep this plant's files few. Each batch leaves a dozen small ones or as many rows in the catalogue, and each question opens all
        of them. Costs nothing where little was written since the last time; no row changes, and whoever writes meanwhile is refused at
        worst, and tries again."""
        if self._turn - self._tidied < TIDY_WRITES:
            return
        with self.lock, self.cursor() as cursor:
            tables = cursor.execute("SELECT table_name FROM duckdb_tables() WHERE database_name = 'lake' AND schema_name = ? "
                                    "AND table_name <> 'turn' ORDER BY 1", [self.where.schema]).column()
            try:
                for table in tables:
                    for call in _OF_TABLES:
                        cursor.execute(_bound(call, schema=self.where.schema, table=table))
                for call in _OF_ALL:
                    cursor.execute(call)
            except duckdb.TransactionException:          # another process was at it, or wrote: at the next quiet time
                _log.debug("The lake was not tidied.", exc_info=True)
                return
            self._tidied = self._turn

    def _note(self, turns: dict[str, int]) -> None:
        """Whatever was counted or remembered before others wrote does not hold any more."""
        own = turns.pop(self.where.plant)
        if own != self._turn:
            self.memory.clear()
        if (own, turns) != (self._turn, self._turns):
            self._counted_all = self.revision + 1
            self.revision += 1
        self._turn, self._turns = own, turns

    @contextmanager
    def cursor(self) -> Iterator[Cursor]:
        with super().cursor() as cursor:
            try:
                yield cursor
            except duckdb.Error as error:
                if refusal := self._refusal(error):
                    raise refusal from error
                raise

    def _connect(self) -> duckdb.DuckDBPyConnection:
        connection = database.connect(":memory:", self.path.parent)
        try:
            _load(connection)
            self.where.files.mkdir(parents=True, exist_ok=True)
            _attach(connection, self.where)
            _settle(connection, self.where)
            self._snapshot = -1                                      # the views are made anew
            self._look(connection)
            _shut(connection, self.where.files)
            return connection
        except OSError as error:
            connection.close()
            raise StoreError(f"The folder of the lake {self.where.files} cannot be used: {error.strerror}.") from error
        except duckdb.Error as error:
            connection.close()
            raise _explained(self.where, error) from error
        except BaseException:
            connection.close()
            raise

    def _begin(self, cursor: Cursor) -> None:
        cursor.execute(f'USE lake."{self.where.schema}"')
        cursor.execute("BEGIN")
        found = int(cursor.execute("SELECT n FROM turn").one())
        if self.memory.get("turn", found) != found:
            raise Outrun(f"Another process of {self.where.plant} wrote meanwhile. Try again.")
        self._next = found + 1
        cursor.execute("UPDATE turn SET n = ?", [self._next])

    def _written(self) -> None:
        self._turn = self._next
        if "turn" in self.memory:
            self.memory["turn"] = self._next

    def _refusal(self, error: BaseException) -> StoreError | None:
        if isinstance(error, duckdb.Error) and _conflicts(error):
            return Outrun(f"Another process of {self.where.plant} wrote meanwhile. Try again.")
        if isinstance(error, duckdb.Error) and not isinstance(error, _ROWS):
            return StoreError(f"The records of the plants ({self.where.told}) cannot be reached now: {error}")
        return None


def _bound(call: str, **values: str) -> str:
    """A CALL takes no parameters."""
    return re.sub(r"\$(\w+)", lambda name: _quoted(values[name[1]]), call)


def _conflicts(error: duckdb.Error) -> bool:
    return "conflict" in str(error).lower() or "retry count" in str(error)


# opening -------------------------------------------------------------------------------------------------------------------


def _load(connection: duckdb.DuckDBPyConnection) -> None:
    """The engine's extensions, from their wheels: nothing is fetched. Raises StoreError."""
    for name in _EXTENSIONS:
        found = importlib.util.find_spec(f"duckdb_extension_{name}")
        file = Path(str(found.origin)).parent / "extensions" / f"v{duckdb.__version__}" / f"{name}.duckdb_extension" if found else None
        if file is None or not file.exists():
            raise StoreError(f"A store of several plants needs the package duckdb-extension-{name.replace('_', '-')} {duckdb.__version__}; "
                             "README, \"Several plants\", says how to install it.")
        connection.execute(f"LOAD {_quoted(str(file))}")


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _attach(connection: duckdb.DuckDBPyConnection, where: Place) -> None:
    """The folder may be mounted elsewhere at each plant: paths in the catalogue are within it."""
    connection.execute("SET ducklake_max_retry_count = 100")             # of a commit that another plant's came before
    connection.execute(f"ATTACH {_quoted(f'ducklake:{where.catalogue}')} AS lake "
                       f"(DATA_PATH {_quoted(f'{where.files}/')}, OVERRIDE_DATA_PATH true, DATA_INLINING_ROW_LIMIT {INLINED})")


def _shut(connection: duckdb.DuckDBPyConnection, files: Path) -> None:
    """Lock the door to all files but the lake's, and to the network but for the catalogue, which is open already."""
    connection.execute(f"SET allowed_directories = [{_quoted(f'{files}/')}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET GLOBAL TimeZone = 'UTC'")
    connection.execute("SET python_enable_replacements = false")
    connection.execute("SET lock_configuration = true")


def _explained(where: Place, error: duckdb.Error) -> StoreError:
    if "Unique file handle" in str(error) or "Conflicting lock" in str(error) or "Could not set lock" in str(error):
        return StoreError(f"Another Diffspect is using the catalogue {where.told}. A file serves one process; several need Postgres.")
    return StoreError(f"The lake {where.told} cannot be opened: {error}")


def _without_keys(schema: str) -> str:
    """schema.sql as DuckLake takes it: the same tables without the two keys, which `turn` stands for."""
    return re.sub(r",?\s*PRIMARY KEY(\s*\([^)]*\))?", "", schema)


def _settle(connection: duckdb.DuckDBPyConnection, where: Place) -> None:
    """See to this plant's schema: made where it is new, made anew where an earlier version of the program wrote it. Raises StoreError."""
    for tries in range(TRIES):
        try:
            return _settled(connection, where)
        except duckdb.TransactionException as error:                     # another process of this plant does the same
            connection.execute("ROLLBACK")
            if not _conflicts(error) or tries == TRIES - 1:
                raise


def _settled(connection: duckdb.DuckDBPyConnection, where: Place) -> None:
    name, folder = f'lake."{where.schema}"', _folder_id()
    connection.execute("BEGIN")
    if connection.execute("SELECT 1 FROM duckdb_schemas() WHERE database_name = 'lake' AND schema_name = ?", [where.schema]).fetchone():
        _check_owner(connection.execute(f"SELECT name, folder, host FROM {name}.owner").fetchone(), where, folder)
        version, digest = connection.execute(f"SELECT version, digest FROM {name}.about").fetchone() or (0, "")
        if version > database.VERSION:
            raise StoreError(f"A newer Diffspect wrote the records of {where.plant}. Update this one.")
        if (version, digest) == (database.VERSION, database.DIGEST):
            connection.execute("COMMIT")
            return
        _log.warning("An earlier version wrote the records of %s in the lake. They are made again from the results on disk.", where.plant)
        connection.execute(f"DROP SCHEMA {name} CASCADE")
        connection.execute("COMMIT")
        connection.execute("BEGIN")
    connection.execute(f"CREATE SCHEMA {name}")
    connection.execute(f"USE {name}")
    connection.execute(_without_keys(database.SCHEMA))
    connection.execute("INSERT INTO about VALUES (?, ?)", [database.VERSION, database.DIGEST])
    own: dict[str, Any] = {"name": where.plant, "folder": folder, "host": socket.gethostname()}
    for statement in _OWN.split("; "):
        connection.execute(statement, own if "$" in statement else None)
    connection.execute("COMMIT")
    connection.execute("USE memory")


def _check_owner(found: tuple[str, str, str] | None, where: Place, folder: str) -> None:
    if found is None or found[1] != folder or found[0] != where.plant:
        told = f"{found[0]!r}, kept by the data folder of another Diffspect, on {found[2]}" if found else "nobody's"
        raise StoreError(f"The plant {where.plant!r} in this lake is {told}. Give this plant a name of its own in DIFFSPECT_PLANT. Where "
                         "that data folder is gone for good, give this one its id: see docs/plants.md.")


def _folder_id() -> str:
    """What tells this data folder from any other, for as long as it lives, on whichever machine."""
    path = data_root() / "plant-id"
    if not path.exists():
        made = path.with_name(f".{path.name}.{os.getpid()}")
        made.write_text(uuid.uuid4().hex + "\n")
        try:
            os.link(made, path)                                          # the first one's; rename would replace it
        except FileExistsError:
            pass
        finally:
            made.unlink()
    return path.read_text().strip()
