"""A lake is opened: the engine's extensions, the catalogue, this plant's schema in it, and the door is shut behind. See `lake`."""

import importlib.util
import logging
import os
import re
import socket
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

import duckdb

from backend.config import data_root
from backend.errors import StoreError
from backend.store import database
from backend.store.place import Place, without_password

TRIES = 30                       # to make a schema, where another process of the plant does so at the same time
# Rows: as many or fewer of one statement stay in the catalogue until `tidy`, instead of a file each. Not of tables with FLOAT or DOUBLE:
# 1.5.5 writes these as text that is too short, and one in ten came back another in its last digit.
INLINED = 200
_EXTENSIONS = ("ducklake", "postgres_scanner")
_OWN = ("CREATE TABLE turn (n BIGINT); INSERT INTO turn VALUES (0); "
        "CREATE TABLE owner (name VARCHAR, folder VARCHAR, host VARCHAR); INSERT INTO owner VALUES ($name, $folder, $host)")
_EXACT = ("SELECT table_name FROM duckdb_columns() SEMI JOIN duckdb_tables() USING (database_name, schema_name, table_name) "
          "WHERE database_name = 'lake' AND schema_name = ? GROUP BY table_name "
          "HAVING NOT bool_or(contains(data_type, 'FLOAT') OR contains(data_type, 'DOUBLE')) ORDER BY 1")
_log = logging.getLogger(__name__)


def load(connection: duckdb.DuckDBPyConnection) -> None:
    """The engine's extensions, from their wheels: nothing is fetched. Raises StoreError."""
    for name in _EXTENSIONS:
        found = importlib.util.find_spec(f"duckdb_extension_{name}")
        file = Path(str(found.origin)).parent / "extensions" / f"v{duckdb.__version__}" / f"{name}.duckdb_extension" if found else None
        if file is None or not file.exists():
            raise StoreError(f"A store of several plants needs the package duckdb-extension-{name.replace('_', '-')} {duckdb.__version__}; "
                             "docs/plants.md says how to install it.")
        connection.execute(f"LOAD {quoted(str(file))}")


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def attach(connection: duckdb.DuckDBPyConnection, where: Place) -> None:
    """The folder may be mounted elsewhere at each plant: paths in the catalogue are within it."""
    connection.execute("SET enable_progress_bar = false")                # a slow catalogue would print into somebody's JSON
    connection.execute("SET ducklake_max_retry_count = 100")             # of a commit that another plant's came before
    connection.execute("SET ducklake_default_data_inlining_row_limit = 0")
    for tries in range(TRIES):
        try:
            connection.execute(f"ATTACH {quoted(f'ducklake:{where.catalogue}')} AS lake "
                               f"(DATA_PATH {quoted(f'{where.files}/')}, OVERRIDE_DATA_PATH true)")
            break
        except duckdb.Error as error:                                    # two plants that are the first of an empty catalogue
            if "already exists" not in str(error) or tries == TRIES - 1:
                raise
            time.sleep(0.1)


def shut(connection: duckdb.DuckDBPyConnection, files: Path) -> None:
    """Lock the door to all files but the lake's, and to the network but for the catalogue, which is open already."""
    connection.execute(f"SET allowed_directories = [{quoted(f'{files}/')}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET GLOBAL TimeZone = 'UTC'")
    connection.execute("SET python_enable_replacements = false")
    connection.execute("SET lock_configuration = true")


def explained(where: Place, error: duckdb.Error) -> StoreError:
    if "Unique file handle" in str(error) or "Conflicting lock" in str(error) or "Could not set lock" in str(error):
        return StoreError(f"Another Diffspect is using the catalogue {where.told}. A file serves one process; several need Postgres.")
    return StoreError(f"The lake {where.told} cannot be opened: {without_password(str(error))}")


def without_keys(schema: str) -> str:
    """schema.sql as DuckLake takes it: the same tables without the two keys, which `turn` stands for."""
    return re.sub(r",?\s*PRIMARY KEY(\s*\([^)]*\))?", "", schema)


def settle(connection: duckdb.DuckDBPyConnection, where: Place) -> None:
    """See to this plant's schema: made where it is new, made anew where an earlier version of the program wrote it. Raises StoreError."""
    for tries in range(TRIES):
        try:
            _settled(connection, where)
            break
        except duckdb.TransactionException as error:                     # another process of this plant does the same
            if not conflicts(error) or tries == TRIES - 1:
                raise
            with suppress(duckdb.Error):                                 # a failed COMMIT has rolled back already
                connection.execute("ROLLBACK")
    connection.execute("USE memory")


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
    connection.execute(without_keys(database.SCHEMA))
    connection.execute("INSERT INTO about VALUES (?, ?)", [database.VERSION, database.DIGEST])
    own: dict[str, Any] = {"name": where.plant, "folder": folder, "host": socket.gethostname()}
    for statement in _OWN.split("; "):
        connection.execute(statement, own if "$" in statement else None)
    connection.execute("COMMIT")
    for (table,) in connection.execute(_EXACT, [where.schema]).fetchall():
        connection.execute(f"CALL ducklake_set_option('lake', 'data_inlining_row_limit', {INLINED}, schema => {quoted(where.schema)}, "
                           f"table_name => {quoted(table)})")


def _check_owner(found: tuple[str, str, str] | None, where: Place, folder: str) -> None:
    if found is None:
        raise StoreError(f"The records of {where.plant!r} in this lake are not whole. Give this plant another name in DIFFSPECT_PLANT.")
    if found[1] != folder or found[0] != where.plant:
        raise StoreError(f"The plant {where.plant!r} in this lake is {found[0]!r}, kept by the data folder of another Diffspect, on "
                         f"{found[2]}. Give this plant a name of its own in DIFFSPECT_PLANT. Only where that folder is gone for good: "
                         f"write {found[1]} into {data_root() / 'plant-id'}.")


def _folder_id() -> str:
    """What tells this data folder from any other, for as long as it lives, on whichever machine."""
    path = data_root() / "plant-id"
    if not path.exists():
        made = path.with_name(f".{path.name}.{os.getpid()}")
        made.write_text(uuid.uuid4().hex + "\n")
        with suppress(FileExistsError):
            os.link(made, path)                                          # the first one's; rename would replace it
        made.unlink()
    return path.read_text().strip()


def conflicts(error: duckdb.Error) -> bool:
    return "conflict" in str(error).lower() or "retry count" in str(error)
