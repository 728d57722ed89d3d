"""The store of several plants: the same tables and the same questions, on DuckLake instead of a file.

A lake is a catalogue (Postgres, or a DuckDB file for one process) and a folder of Parquet that all plants reach. Each plant has a schema of
its own there, with the tables of schema.sql, and each plant's app takes in its own run directories. Here a database in memory stands
before it, whose views carry the tables' names: of one's own plant as they are, of the others under their names (see `plants`). So
questions are the same text as on a file. What is not: DuckLake has no keys (`founding.without_keys`), and `rowid` goes through no view
(`place`).

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

Plants need not wait for each other: a conflict is one on a table, and no two share a table. (Once in three runs on a machine under heavy
load a plant was refused nevertheless, why is not known; it did its work again. In one set of tables for all they would at each
ingest, since a derivation deletes: two deletions from one table are refused even where they touch different files, 1.5.5.)

A plant's name belongs to a data folder: it drops rows of runs that it has no directory of, so two folders under one name would empty each
other. The first to use a name writes its folder's id beside it; another is refused. Knows nothing of run directories.
"""

import logging
import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import duckdb

from backend.errors import StoreError
from backend.store import database, founding, plants
from backend.store.database import Cursor, Database
from backend.store.founding import conflicts, quoted
from backend.store.place import Place, chosen, without_password

TRIES = 30                       # of work that others outran
HEED_S = 30.0                    # between two times that an open page hears of other plants
TIDY_WRITES = 50                 # between two tidyings
# What only the rows that somebody wants to put in can cause; any other error is the lake's.
_ROWS = (duckdb.ConversionException, duckdb.BinderException, duckdb.OutOfRangeException, duckdb.InvalidInputException,
         duckdb.ConstraintException, duckdb.TypeMismatchException, duckdb.InvalidTypeException, duckdb.ParserException,
         duckdb.NotImplementedException)
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
        self._told: dict[str, int] = {}                              # the revision that says what they wrote last
        self._heed_at = 0.0
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

    def counted(self, plant: str, line: str = "") -> int:
        return max(super().counted(plant, line), self._told.get(plant, 0))

    def known(self, plant: str) -> int:
        return max(super().known(plant), self._told.get(plant, 0))

    def _look(self, connection: duckdb.DuckDBPyConnection) -> None:
        (snapshot,) = connection.execute("SELECT id FROM lake.current_snapshot()").fetchone() or (-1,)
        if snapshot == self._snapshot:
            return
        named = plants.named(connection, (database.VERSION, database.DIGEST))
        if self._snapshot < 0 or set(named) != {self.where.plant, *self._turns}:
            plants.see(connection, named, self.where.plant)
            self._heed_at = 0.0
        turns = plants.turns(connection, named)
        self._note_own(turns.pop(self.where.plant))
        if self._note_others(turns):
            self._snapshot = snapshot

    def _note_own(self, turn: int) -> None:
        """Whatever was counted or remembered before another process of this plant wrote does not hold any more."""
        if turn != self._turn:
            self.memory.clear()
            self._counted_all = self._about_all = self.revision + 1
            self.revision += 1
        self._turn = turn

    def _note_others(self, turns: dict[str, int]) -> bool:
        """False where it is too early: an open page is drawn anew with each revision, and ten plants write all the time."""
        if turns != self._turns:
            if time.monotonic() < self._heed_at:
                return False
            self._told |= {name: self.revision + 1 for name, turn in turns.items() if turn != self._turns.get(name)}
            self._turns, self._heed_at = turns, time.monotonic() + HEED_S
            self.revision += 1
        return True

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

    @contextmanager
    def cursor(self) -> Iterator[Cursor]:
        with super().cursor() as cursor:
            try:
                yield cursor
            except duckdb.Error as error:
                if refusal := self._refusal(error):
                    raise refusal from None                              # the engine's own words may quote the password
                raise

    def _connect(self) -> duckdb.DuckDBPyConnection:
        connection = database.connect(":memory:", self.path.parent)
        try:
            founding.load(connection)
            self.where.files.mkdir(parents=True, exist_ok=True)
            founding.attach(connection, self.where)
            founding.settle(connection, self.where)
            self._snapshot = -1                                          # the views are made anew
            self._look(connection)
            founding.shut(connection, self.where.files)
            return connection
        except OSError as error:
            connection.close()
            raise StoreError(f"The folder of the lake {self.where.files} cannot be used: {error.strerror}.") from error
        except duckdb.Error as error:
            connection.close()
            raise founding.explained(self.where, error) from None        # the engine's own words quote the password
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
        if isinstance(error, duckdb.Error) and conflicts(error):
            return Outrun(f"Another process of {self.where.plant} wrote meanwhile. Try again.")
        if isinstance(error, duckdb.Error) and not isinstance(error, _ROWS):
            return StoreError(f"The records of the plants ({self.where.told}) cannot be reached now: {without_password(str(error))}")
        return None


def _bound(call: str, **values: str) -> str:
    """A CALL takes no parameters."""
    return re.sub(r"\$(\w+)", lambda name: quoted(values[name[1]]), call)
