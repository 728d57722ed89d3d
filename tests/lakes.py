"""Lakes for tests: a Postgres server of their own where its programs are found, and what a plant's rows and answers are compared by."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from backend.store.database import Database
from backend.store.lake import Lake

_ON_PATH = shutil.which("pg_ctl")
PROGRAMS = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), Path(_ON_PATH).parent if _ON_PATH else None)
NONE_HERE = "no Postgres server is installed here (Debian: apt-get install postgresql)"


class Server:
    """A Postgres of one's own, on a Unix socket in its folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def call(self, program: str, *words: str) -> None:
        """As `postgres` where we are root: the server refuses to be root's."""
        assert PROGRAMS is not None, NONE_HERE
        who = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.getuid() == 0 else []
        with open(self.folder / "said", "w") as said:                    # a file: the server would keep a pipe open
            done = subprocess.run([*who, str(PROGRAMS / program), *words], stdout=said, stderr=said, cwd=self.folder, timeout=600)
        assert done.returncode == 0, (self.folder / "said").read_text()

    def start(self) -> None:
        options = f"-k {self.folder} -c listen_addresses='' -c fsync=off"
        self.call("pg_ctl", "-D", str(self.folder / "db"), "-l", str(self.folder / "log"), "-o", options, "-w", "start")

    def stop(self) -> None:
        self.call("pg_ctl", "-D", str(self.folder / "db"), "-m", "immediate", "-w", "stop")

    def catalogue(self, name: str) -> str:
        """A new database, as DIFFSPECT_STORE names it."""
        self.call("createdb", "-h", str(self.folder), "-U", "postgres", name)
        return f"postgres:host={self.folder} user=postgres dbname={name}"


@contextmanager
def postgres() -> Iterator[Server]:
    with tempfile.TemporaryDirectory(prefix="lake-", dir="/tmp", ignore_cleanup_errors=True) as folder:      # a socket's path is short
        if os.getuid() == 0:
            shutil.chown(folder, "postgres", "postgres")
        server = Server(Path(folder))
        server.call("initdb", "-D", str(server.folder / "db"), "-A", "trust", "-U", "postgres", "--no-sync")
        server.start()
        try:
            yield server
        finally:
            server.stop()


def rows(db: Database) -> dict[str, list[str]]:
    """Every row of every table of this plant, as text, in an order of its own."""
    with db.cursor() as cursor:
        if isinstance(db, Lake):
            cursor.execute(f'USE lake."{db.where.schema}"')
        names = cursor.execute("SELECT table_name FROM duckdb_tables() WHERE NOT temporary AND schema_name = current_schema() "
                               "AND table_name NOT IN ('turn', 'owner') ORDER BY 1").column()
        return {n: sorted(map(repr, cursor.execute(f"SELECT * FROM {n}").dicts())) for n in names}


def same(one: Any, other: Any, name: str = "real") -> None:
    """Two answers, to the last digit of each number; `name` is what the other store calls the plant."""
    if isinstance(one, pd.DataFrame):
        renamed = other.assign(plant="real") if "plant" in other and name != "real" else other
        pd.testing.assert_frame_equal(one, renamed, check_exact=True)
    elif is_dataclass(one):
        assert type(one) is type(other)
        for field in fields(one):
            same(getattr(one, field.name), getattr(other, field.name), name)
    elif isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            same(one[key], other[key], name)
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            same(a, b, name)
    else:
        assert one == other or (one != one and other != other) or (one, other) == ("real", name), (one, other)
