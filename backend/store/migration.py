"""From the file to the lake: every row of every table as it stands, in one transaction; then counted and summed on both sides.

What is summed is what the lake gives back once it is in, and where that differs all is taken out again. The file is opened for reading
only and stays as it is. The way back is `python -m backend rebuild` without the lake: everything is derived from run directories. Rows are
copied because that is less than to judge them anew.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from backend.errors import StoreError
from backend.store import database
from backend.store.database import Cursor
from backend.store.lake import Lake

BATCH = 1_000_000                                        # rows at once: some 300 MB of the widest table
Report = Callable[[str, int, int], None]                 # of a table: its name, rows copied so far, all of its rows


def migrate(source: Path, target: Lake, report: Report) -> dict[str, int]:
    """Copy the file's rows into the lake's empty schema. Returns rows by table. Raises StoreError, and then nothing is in."""
    with closing(_read(source)) as file:
        tables = [t for (t,) in file.execute("SELECT table_name FROM duckdb_tables() WHERE table_name <> 'about' ORDER BY 1").fetchall()]
        with target.write() as cursor:
            if cursor.execute("SELECT (SELECT count(*) FROM ingested) + (SELECT count(*) FROM events)").one():
                raise StoreError(f"{target.where.plant} has records in the lake already. To make them again from the results on disk: "
                                 "python -m backend rebuild")
            copied = {table: _copy(file, cursor, table, report) for table in tables}
            cursor.moved = None
        target.memory.clear()
        try:
            for table in tables:
                _check(file, target, table)
        except BaseException:
            target.clear()
            raise
    return copied


def _read(source: Path) -> duckdb.DuckDBPyConnection:
    if not source.exists():
        raise StoreError(f"There is no database {source}: nothing to take along. `python -m backend rebuild` fills the lake from the "
                         "results on disk.")
    try:
        file = database.connect(str(source), source.parent, read_only=True)
        file.execute("SET TimeZone = 'UTC'")
        about = file.execute("SELECT version, digest FROM about").fetchone()
    except duckdb.Error as error:
        raise StoreError(f"The database {source.name} cannot be read: is the app still running? Stop it first. ({error})") from error
    if about != (database.VERSION, database.DIGEST):
        file.close()
        raise StoreError(f"Another version of the program wrote {source.name}. Start the app once, so that it is made anew, or fill the "
                         "lake from the results on disk: python -m backend rebuild")
    return file


def _copy(file: duckdb.DuckDBPyConnection, cursor: Cursor, table: str, report: Report) -> int:
    """A table, in the order in which its rows stand."""
    (rows,) = file.execute(f"SELECT count(*) FROM {table}").fetchone() or (0,)
    done = 0
    for batch in _batches(file, table):
        with cursor.lend("moving", batch):
            cursor.execute(f"INSERT INTO {table} BY NAME SELECT * FROM moving")
        done += batch.num_rows
        report(table, done, rows)
    return done


def _check(file: duckdb.DuckDBPyConnection, target: Lake, table: str) -> None:
    """What anybody reads now that it is committed: as many rows, and the same sum of a hash over all columns. Raises StoreError."""
    columns = ", ".join(f'"{row[0]}"' for row in file.execute(f"SELECT column_name FROM (DESCRIBE {table})").fetchall())
    sums = f"SELECT count(*) AS n, coalesce(sum(hash({columns})), 0)::VARCHAR AS total FROM "
    rows, total = file.execute(sums + table).fetchone() or (0, "0")
    with target.cursor() as cursor:
        found = cursor.execute(f'{sums} lake."{target.where.schema}".{table}').dicts()[0]
    if (found["n"], found["total"]) != (rows, total):
        raise StoreError(f"The table {table} came to {found['n']:,} rows with the sum {found['total']}; in the file it is {rows:,} and "
                         f"{total}. Nothing was taken along.")


def _batches(file: duckdb.DuckDBPyConnection, table: str) -> Iterator[pa.Table]:
    reader: Any = file.execute(f"SELECT * FROM {table}").to_arrow_reader(BATCH)
    for batch in reader:
        yield pa.Table.from_batches([batch])

