"""Backup of a data folder, while the program runs; back comes one by `restoring`.

What is copied: every run that has ended or still waits, with all its files; of a batch or a folder watch that is going on, what it had
finished until then (it is restored as interrupted, and goes on); all kept pictures; whatever else lies in the folder, but what is made
again from it or belongs to one machine (`MADE_AGAIN`). What is left out is any other run that is going on, since its files change under
the copy; the backup names each of these, and the next one has it.

A run is taken whole or not at all: its state is the same file before and after, else it is copied anew, and after TRIES left out. Pictures
are copied after the runs that speak of them, so none of them is missing. DuckDB is derived and not in a backup: whoever restores makes it
again (`python -m backend rebuild`). Where a backup lies and how it is written, `vault` knows. Knows nothing of processes.
"""

import errno
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backend import __version__, rundir
from backend.config import data_root, demo_assets
from backend.errors import InputError, ResourceError, StoreError
from backend.store import vault
from backend.store.vault import Kept

# At the top of a data folder: derived (the database, indices of watched folders), caches, or of this machine and this moment.
MADE_AGAIN = ("inspection.duckdb", "watched", "settings", "cache", "logs", "supervisor.json", "supervisor.log", "server.log")
EARLY = "access/audit.json"                                       # before the runs: entries that come meanwhile must not be missed by it
ENDED = ("access/sessions/", "access/tries.json")                 # who is signed in here is not signed in to a copy
LOGS = {"watch": "watch.json", "inspect": "inspect.json"}        # recipes whose parts are a log: what is in them when it is copied holds
MARK = "restore-incomplete.json"                                 # in a folder that was not restored to the end
TRIES, GROUP_S = 3, 5.0                                          # of a run that changes; how long a group may take to get its names
CUT_OFF = "It was going on when the backup was made; what it had finished until then is here. Resume goes on from there."
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

Report = Callable[..., None]


class _Changed(Exception):
    """A run changed while it was copied."""


@dataclass
class _Copying:
    """One backup on its way."""

    writer: vault.Writer
    report: Report
    known: dict[str, Kept] = field(default_factory=dict)
    files: list[Kept] = field(default_factory=list)
    left_out: list[dict[str, str]] = field(default_factory=list)
    total: int = 0
    done: int = 0                      # bytes looked at, copied or not
    copied: int = 0
    copied_bytes: int = 0

    def file(self, path: Path) -> Kept:
        """One file into the backup, unless the last one has it. Raises FileNotFoundError, and OSError where the disk refuses."""
        name, seen = path.relative_to(data_root()).as_posix(), path.stat()
        before = self.known.get(name)
        if before is None or (before.size, before.mtime_ns) != (seen.st_size, seen.st_mtime_ns):
            before = self.writer.put(name, path)
            self.copied, self.copied_bytes = self.copied + 1, self.copied_bytes + before.size
        self.done += seen.st_size
        self.tell()
        return before

    def tell(self) -> None:
        self.report(step=min(self.done, self.total) >> 20, total=self.total >> 20, message=f"{len(self.files):,} files in")


def backup(to: Path, report: Report, own: str = "") -> dict[str, Any]:
    """Copy the data folder to a folder, or to a file whose name ends in .zip. `own`: the run that does this, which is not in it.

    Returns what the head says: name, made_at, runs, files, bytes, copied_files, copied_bytes, left_out [{run_id, recipe, state}]; and
    `path`. `report` counts megabytes. Raises InputError, ResourceError.
    """
    to, root = to.expanduser().resolve(), data_root()
    if to == root or to.is_relative_to(root) or root.is_relative_to(to):
        raise InputError("A backup inside the data folder is lost with it, and the other way round. Choose another place.")
    if not root.is_dir():
        raise InputError(f"There is no data folder {root}.")
    copying: _Copying | None = None
    try:
        with closing(vault.writer(to)) as writer:
            copying = _Copying(writer, report, writer.known())
            return _backup(copying, to, own)
    except OSError as error:
        if copying is None or error.errno in FULL or error.errno in (errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO):
            raise ResourceError(_refused(to, error, copying)) from error
        raise


def _refused(to: Path, error: OSError, copying: _Copying | None) -> str:
    done = f" {len(copying.files):,} files were copied; alone they are no backup, and earlier ones stay whole." if copying else ""
    full = error.errno in FULL
    return (f"The disk of {to} is full.{done} Free some space there, then make the backup again." if full
            else f"The backup cannot be written to {to}: {error.strerror}.{done}")


def _backup(copying: _Copying, to: Path, own: str) -> dict[str, Any]:
    if (data_root() / MARK).exists():
        raise StoreError(f"This folder was restored only in part, so its backup would pass for a whole one. {MARK} in it says what is "
                         "missing; take that file away to back up the rest all the same.")
    _weigh(copying, to)
    if (witness := data_root() / EARLY).exists():
        copying.files.append(copying.file(witness))
    runs = sum(_run(copying, path) for path in list(rundir.find())[::-1] if path.name != own)
    for path in (*_pictures(), *_others()):
        try:
            copying.files.append(copying.file(path))
        except FileNotFoundError:                                # let go meanwhile
            continue
    at = rundir.now()
    head = dict(format=vault.FORMAT, name=f"backup-{at[:10].replace('-', '')}-{at[11:26].replace(':', '').replace('.', '-')}", made_at=at,
                program=__version__, runs=runs, files=len(copying.files), bytes=sum(f.size for f in copying.files),
                copied_files=copying.copied, copied_bytes=copying.copied_bytes, left_out=copying.left_out, made_again=list(MADE_AGAIN))
    where = copying.writer.finish(copying.files, head)
    copying.report(step=max(copying.total >> 20, 1), total=max(copying.total >> 20, 1), message="Whole")
    return dict({k: v for k, v in head.items() if k not in ("format", "program", "made_again")}, path=where)


def _weigh(copying: _Copying, to: Path) -> None:
    """How much there is, and whether it fits. Raises ResourceError."""
    new = 0
    for path in (*(p for run in rundir.find() for p in vault.walk(run)), *_pictures(), *_others()):
        try:
            seen = path.stat()
        except FileNotFoundError:
            continue
        before = copying.known.get(path.relative_to(data_root()).as_posix())
        same = before is not None and (before.size, before.mtime_ns) == (seen.st_size, seen.st_mtime_ns)
        copying.total, new = copying.total + seen.st_size, new + (0 if same else seen.st_size)
    if new > (there := vault.free(to)):
        raise ResourceError(f"The backup needs {new / 1e9:.2f} GB at {to}, and {there / 1e9:.2f} GB are free there. Nothing was copied.")


# runs ----------------------------------------------------------------------------------------------------------------------


def _run(copying: _Copying, path: Path) -> bool:
    """Take a run in, whole or not at all. Whether it is in."""
    done = copying.done
    for _ in range(TRIES):
        copying.done = done
        try:
            copying.files += _whole(copying, path)
            return True
        except (FileNotFoundError, NotADirectoryError, _Changed):
            if not path.exists():                                # taken away by a person meanwhile
                return False
    copying.left_out.append(dict(run_id=path.name, recipe=rundir.recipe_of(path.name), state=_state(path)[0]))
    return False


def _whole(copying: _Copying, path: Path) -> list[Kept]:
    """The files of a run as they were at one moment. Raises _Changed."""
    before = _state(path)
    if before[0] == "running":
        if (recipe := rundir.recipe_of(path.name)) not in LOGS:
            raise _Changed
        return _finished(copying, path, LOGS[recipe])
    files = [copying.file(file) for file in vault.walk(path) if file.name != "lock"]
    if _state(path) != before:
        raise _Changed
    return files


def _state(path: Path) -> tuple[Any, ...]:
    """The state, and what tells its file from any other: each state is a new file."""
    try:
        seen = os.stat(path / "state.json")
        return str(rundir.read_json(path / "state.json")["state"]), seen.st_ino, seen.st_mtime_ns
    except (ValueError, KeyError, TypeError):
        return ("damaged",)                                      # copied as it is: the store names it


def _finished(copying: _Copying, path: Path, said: str) -> list[Kept]:
    """Of a log that grows: what counts at this moment, as a run that was cut off. Its parts are never changed once they count, and those of
    the last group may have no names yet. Raises _Changed where it ended, or its names do not come."""
    before, state = _state(path), rundir.read_json(path / "state.json")
    content = (path / said).read_bytes() if (path / said).exists() else b""
    number, until = int(json.loads(content or b"{}").get("number", 0)), time.monotonic() + GROUP_S
    while said == "watch.json" and any(_number(p) <= number for p in (path / "parts").glob(".*.parquet")):
        if time.monotonic() > until:
            raise _Changed
        time.sleep(0.02)
    taken = [path / "job.json", *(p for p in rundir.parts(path) if _number(p) <= number), *vault.walk(path / "inbox")]
    files = [copying.file(p) for p in taken]
    if content:
        files.append(copying.writer.put_bytes(_name(path / said), content))
    ended = json.dumps({**state, "state": "interrupted", "message": CUT_OFF, "finished_at": rundir.now(), "pid": None}).encode()
    if _state(path) != before:
        raise _Changed
    return [*files, copying.writer.put_bytes(_name(path / "state.json"), ended)]


def _number(part: Path) -> int:
    return int(part.stem.rsplit("-", 1)[1])


def _name(path: Path) -> str:
    return path.relative_to(data_root()).as_posix()


# all else ------------------------------------------------------------------------------------------------------------------


def _pictures() -> Iterator[Path]:
    """Kept pictures. Those of the demo plant that were drawn as files are drawn again."""
    root = data_root() / "images"
    for folder in sorted(p for p in root.glob("[0-9a-f][0-9a-f]") if p.is_dir()):
        yield from (p for p in vault.walk(folder) if not p.name.startswith("."))


def _others() -> Iterator[Path]:
    """Whatever else a person or a part of the program put there; beside the runs too, where it stands which version wrote them."""
    yield from sorted(p for p in rundir.runs_root().glob("[!.]*") if p.is_file())
    for path in sorted(data_root().iterdir()):
        passed = path.name in (*MADE_AGAIN, "runs", "images", MARK) or path.name.startswith((".", MADE_AGAIN[0]))
        if passed or path.suffix == ".lock" or path == demo_assets() or path.is_symlink():
            continue
        for file in vault.walk(path) if path.is_dir() else [path] if path.is_file() else []:
            if not file.relative_to(data_root()).as_posix().startswith((EARLY, *ENDED)):
                yield file
