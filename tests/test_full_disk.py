"""A real disk that is full: the app says so, loses nothing, and goes on by itself once the disk takes something again."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pytest

from backend import rundir
from backend.errors import ResourceError, StoreError
from backend.jobs import events, needs
from backend.store import archive
from backend.store.database import Database
from backend.store.ingest import ingest
from tests import small_plant as plant

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a disk of its own")


def size(disk: Path, mb: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={mb}m", str(disk)], check=True)


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A data folder on a memory disk of 24 MB, which `size` makes larger."""
    folder = tmp_path / "disk"
    folder.mkdir()
    monkeypatch.setenv("DIFFSPECT_DATA", str(folder))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk: Path) -> None:
    with suppress(OSError), open(disk / "filler", "wb", buffering=0) as f:
        while True:
            f.write(b"\0" * 4096)


def put(db: Database, step: int) -> None:
    """About 700 kB that do not pack."""
    rows = pa.table({"name": [os.urandom(16).hex() for _ in range(20_000)], "step": pa.array([step] * 20_000, pa.int32())})
    with db.write() as cursor, cursor.lend("rows", rows):
        cursor.execute("INSERT INTO metrics SELECT 'r', step, name, 0, 0 FROM rows")


def count(db: Database) -> int:
    with db.cursor() as cursor:
        return int(cursor.execute("SELECT count(DISTINCT step) FROM metrics").one())


def test_full_in_the_midst_of_a_checkpoint(disk: Path) -> None:
    """DuckDB folds its log in at 16 MB; where that fails it answers nothing any more until it is opened anew."""
    db, done = Database(), 0
    with pytest.raises(StoreError, match="The disk refused in the midst"):
        for step in range(100):
            put(db, step)
            done += 1
    assert done > 5
    with suppress(StoreError), db.cursor() as cursor:                    # it may be opened anew while the disk is full, to read from
        assert cursor.execute("SELECT count(DISTINCT step) FROM metrics").one() == done
    size(disk, 200)
    assert count(db) == done, "what was committed is there, and no more"
    put(db, done)
    db.close()
    again = Database()
    assert count(again) == done + 1 and not list(disk.glob("*.aside")), "a full disk is no damage"
    again.close()


def test_full_while_results_come_in(disk: Path) -> None:
    db = Database()
    plant.batch([{}])
    ingest(db)
    run = plant.batch([{}] * 3000, end=False)                            # more than the rest of a page of the log takes
    fill(disk)
    for _ in range(2):
        with pytest.raises(StoreError, match="No space left"):
            ingest(db)
    assert len(plant.facts(db)) == 1, "pages still show what was there"
    db.close()
    opened = None
    with suppress(StoreError):
        opened = Database()                                              # a start while it is full
        opened.close()
    (disk / "filler").unlink()
    plant.finish(run)
    db = Database()
    ingest(db)
    live = plant.tables(db)
    assert len(live["facts"]) == 3001 and not list(disk.glob("*.aside"))
    db.close()


def test_a_decision_on_a_full_disk_is_none(disk: Path) -> None:
    """As any function of the facade says it; and nothing of it is left."""
    record = needs.needs("")(events.record)
    fill(disk)
    with pytest.raises(ResourceError, match="disk of the data folder is full"):
        record("note", dict(line="L1", at="2026-06-10", text="x" * 9000))
    (disk / "filler").unlink()
    assert next(rundir.find(), None) is None, "half of it is never seen"
    record("note", dict(line="L1", at="2026-06-10", text="x"))
    assert len(list(rundir.find())) == 1


def test_a_backup_to_a_full_disk_is_none(disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more than fits, though it seemed to fit when it began."""
    monkeypatch.setenv("DIFFSPECT_DATA", str(tmp_path / "data"))
    run = plant.batch([{}])
    (run / "large.bin").write_bytes(os.urandom(30 << 20))
    for to in (disk / "backups", disk / "whole.zip"):
        with pytest.raises(ResourceError, match="are free there. Nothing was copied"):
            archive.backup(to, lambda **_: None)
        with monkeypatch.context() as patch:
            patch.setattr("backend.store.vault.free", lambda at: 1 << 40)
            with pytest.raises(ResourceError, match="is full.*no backup"):
                archive.backup(to, lambda **_: None)
        assert not list(disk.rglob("backup-*.json")) and not list(disk.glob("*.zip")) and not list(disk.glob(".*.part"))
    size(disk, 200)
    assert archive.backup(disk / "whole.zip", lambda **_: None)["runs"] == 1
