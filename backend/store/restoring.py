"""Restore: a backup into an empty folder, each file checked by its SHA-256. What is in a backup `archive` says, how it lies there `vault`.

A folder that was not restored to the end says so itself (MARK): a full disk, a damaged backup. DuckDB is made from what was restored by
whoever asked for it.
"""

import json
import os
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import IO, Any

import pyarrow as pa

from backend import rundir
from backend.errors import InputError, ResourceError
from backend.store import vault
from backend.store.archive import MARK
from backend.store.vault import Head, Kept

Report = Callable[..., None]


class Reader:
    """One backup to read from: `head`, `files`, `copy`."""

    def __init__(self, source: Path) -> None:
        self._stack: list[Any] = []
        try:
            self._open(source)
        except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile, pa.ArrowException) as error:
            self.close()
            raise InputError(f"{source} is no backup that can be read: {error}.") from error
        except BaseException:
            self.close()
            raise

    def _open(self, source: Path) -> None:
        if source.is_dir() or source.suffix == ".json":
            self._folder, self._zip = source if source.is_dir() else source.parent, None
            found = [h for h in vault.heads(self._folder) if source.is_dir() or h["name"] == source.stem]
            if not found:
                raise InputError(f"There is no whole backup in {source}.")
            self.head: Head = found[0]
            self.files = vault.listed(self._folder, self.head)
            return
        self._folder, self._zip = source.parent, zipfile.ZipFile(source)
        self._stack.append(self._zip)
        self.head = json.loads(self._zip.read("head.json"))
        self.files = vault.unpacked(self._zip.read("list.parquet"), self.head)

    def copy(self, one: Kept, target: Path) -> bool:
        """Write a file where it belongs. False, and nothing is there, where the backup's copy is damaged or missing."""
        temporary = target.with_name(f".{target.name}.{os.getpid()}")
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as out, closing(self._source(one)) as source:
                said = vault.copied(source, out)
            if said != (one.size, one.digest):
                return False
            os.chmod(temporary, one.mode & 0o777)
            os.utime(temporary, ns=(one.mtime_ns, one.mtime_ns))
            os.replace(temporary, target)
            return True
        except (FileNotFoundError, KeyError, EOFError, zipfile.BadZipFile):
            return False
        finally:
            temporary.unlink(missing_ok=True)

    def _source(self, one: Kept) -> IO[bytes]:
        return self._zip.open(one.path) if self._zip else open(self._folder / "files" / one.digest[:2] / one.digest, "rb")

    def close(self) -> None:
        for one in self._stack:
            one.close()


def restore(source: Path, into: Path, report: Report) -> dict[str, Any]:
    """Put a backup (zip file, folder: its newest, or a head in that folder) into an empty folder; each file is checked by its SHA-256.

    Returns name, made_at, runs, files, bytes, left_out, into. Raises InputError where the folder is not empty, the backup cannot be read or
    parts of it are damaged (what is whole is there then, and MARK names the rest); ResourceError where the disk refuses.
    """
    into = into.expanduser().resolve()
    if into.exists() and (not into.is_dir() or any(into.iterdir())):
        raise InputError(f"{into} is not an empty folder. A restore overwrites nothing: name a new folder, then start the program on it.")
    with closing(Reader(source.expanduser().resolve())) as reader:
        head, files = reader.head, [one for one in reader.files if _safe(one.path)]
        if needed := max(0, sum(one.size for one in files) - vault.free(into)):
            raise ResourceError(f"The backup needs {needed / 1e9:.2f} GB more than are free at {into}. Nothing was restored.")
        try:
            damaged = _put_back(reader, files, into, report)
        except OSError as error:
            raise ResourceError(f"The restore stopped: {error.strerror}. What lies in {into} is not whole; empty it, free some space, then "
                                "restore again. The backup is as it was.") from error
    if damaged:
        raise InputError(f"{len(damaged):,} of {len(files):,} files of this backup are damaged or missing: {', '.join(damaged[:3])}"
                         f"{' and more' if len(damaged) > 3 else ''}. All others are in {into}, where {MARK} names them; take an earlier "
                         "backup if there is one.")
    return dict({k: head.get(k) for k in ("name", "made_at", "runs", "files", "bytes", "left_out")}, into=str(into))


def _safe(path: str) -> bool:
    """Raises InputError for a path that would lead out of the folder: a backup may come from anywhere."""
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts or "\0" in path or not parts.parts:
        raise InputError(f"This is no backup of Diffspect: it names a file outside its folder ({path!r}).")
    return True


def _put_back(reader: Reader, files: list[Kept], into: Path, report: Report) -> list[str]:
    """Write all files. Returns the paths of those that are damaged; while it works, and where some are, MARK says so."""
    into.mkdir(parents=True, exist_ok=True)
    rundir.write_json(into / MARK, dict(backup=reader.head["name"], damaged=[]))
    total, done, damaged = sum(one.size for one in files), 0, list[str]()
    for n, one in enumerate(files, 1):
        if not reader.copy(one, into / one.path):
            damaged.append(one.path)
        done += one.size
        report(step=done >> 20, total=total >> 20, message=f"{n:,} of {len(files):,} files")
    for run in (into / "runs").glob("*/"):
        (run / "parts").mkdir(exist_ok=True)                     # empty folders are in no backup, and a run that goes on writes there
    vault.settle(into)
    if damaged:
        rundir.write_json(into / MARK, dict(backup=reader.head["name"], damaged=damaged))
    else:
        (into / MARK).unlink()
    return damaged
