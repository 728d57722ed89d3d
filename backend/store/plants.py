"""The plants of a lake as questions find them: views under the tables' names, one's own rows as they are, the others' under their names.

In its own records a plant is called `real` (and the made-up one `demo`); to others it goes by its name, so a question about a plant needs
nothing but that name. Of others there is what such questions look at: counts, verdicts, and what people decided about lines. What belongs
to a machine stays with it: runs, models, datasets, labels, the demo; and decisions are made where the pictures are. See `lake`.
"""

import re

import duckdb

from backend.store.database import SCHEMA

# Tables whose rows name a plant, and tables whose rows belong to an inspection, which is of one plant.
_NAMED = ("facts", "tallies", "kind_tallies", "spread", "inspections", "events")
_WITH_THEM = ("defects", "detections", "anomalies", "model_thresholds")
# Of decisions those that a page of that plant shows, each of which names its plant.
_TOLD = ("policy", "review", "note", "acknowledge", "calendar", "chart", "retire", "explain", "target", "alarm", "alarm-over", "alarm-seen",
         "alarm-rest")
_VIEWS = re.findall(r"CREATE VIEW (.*?);", SCHEMA, re.DOTALL)


def named(connection: duckdb.DuckDBPyConnection, same: tuple[int, str]) -> dict[str, str]:
    """Plants of the lake by name, with their schemas: those whose tables are of the `same` version and digest. The others' programs are to
    be updated first."""
    schemas = connection.execute("SELECT DISTINCT schema_name FROM duckdb_tables() WHERE database_name = 'lake' AND table_name = 'owner' "
                                 "ORDER BY 1").fetchall()
    found = {}
    for (schema,) in schemas:
        row = connection.execute(f'SELECT name, version, digest FROM lake."{schema}".owner, lake."{schema}".about').fetchone()
        if row and row[1:] == same:
            found[row[0]] = schema
    return found


def turns(connection: duckdb.DuckDBPyConnection, named: dict[str, str]) -> dict[str, int]:
    """How often each plant was written."""
    rows = " UNION ALL ".join(f"SELECT '{name}', n FROM lake.\"{schema}\".turn" for name, schema in named.items())
    return dict(connection.execute(rows).fetchall())


def see(connection: duckdb.DuckDBPyConnection, named: dict[str, str], own: str) -> None:
    """Make the views anew, of these plants. Whoever asks meanwhile sees the old ones."""
    mine = named[own]
    tables = connection.execute("SELECT table_name FROM duckdb_tables() WHERE database_name = 'lake' AND schema_name = ?",
                                [mine]).fetchall()
    connection.execute("BEGIN")
    for (table,) in tables:
        rows = [f'SELECT * FROM lake."{mine}".{table}']
        if table in _NAMED + _WITH_THEM:
            rows += [_others(table, name, schema) for name, schema in sorted(named.items()) if name != own]
        connection.execute(f"CREATE OR REPLACE VIEW {table} AS {' UNION ALL '.join(rows)}")
    for view in _VIEWS:
        connection.execute(f"CREATE OR REPLACE VIEW {view}")
    connection.execute("COMMIT")


def _others(table: str, name: str, schema: str) -> str:
    """The name has passed `lake.Place` where it was written: letters, digits, spaces, hyphens."""
    if table not in _NAMED:
        return f'SELECT * FROM lake."{schema}".{table}'
    told = f" AND recipe IN {_TOLD}" if table == "events" else ""
    return f"SELECT * REPLACE ('{name}' AS plant) FROM lake.\"{schema}\".{table} WHERE plant = 'real'{told}"
