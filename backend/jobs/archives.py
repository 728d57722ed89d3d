"""Backup and restore as runs and as commands: recipes `backup` and `restore` over `store.archive` and `store.restoring`.

A backup is a run like any other, with progress, time left and a place in the list of runs; it goes past both lanes, so that nobody waits
for it. Where the data disk takes no more run (full, read-only) the command line makes one without: that is when it is wanted most. A
restore fills an empty folder, which another start of the program then serves (`DIFFSPECT_DATA`), and makes its database there. Both are
for whoever looks after the machine: role admin.
"""

import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from backend.config import Backup, Restore
from backend.errors import ConfigError, ResourceError
from backend.jobs.executor import ROOT
from backend.store import archive, mounts, restoring

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
Report = Callable[..., None]


def backup(config: Backup, run_dir: Path | None, report: Report) -> dict[str, Any]:
    """Recipe. Without a run directory where none can be made."""
    if not config.to.strip():
        raise ConfigError("Say where the backup goes (to): a folder, which later backups share, or a file that ends in .zip.")
    made = archive.backup(Path(config.to), report, run_dir.name if run_dir else "")
    return made | dict(notes=notes(made))


def restore(config: Restore, run_dir: Path | None, report: Report) -> dict[str, Any]:
    """Recipe: the files, then the database from them."""
    if not config.file.strip() or not config.into.strip():
        raise ConfigError("Name the backup (file) and an empty folder for it (into).")
    into = Path(config.into).expanduser().resolve()
    mounts.refuse_share(into)
    made = restoring.restore(Path(config.file), into, report)
    return made | dict(parts=rebuilt(into), notes=[*notes(made), f"Start the program on it with DIFFSPECT_DATA={into}"])


def notes(made: dict[str, Any]) -> list[str]:
    """What a person should know: which runs were going on."""
    names = [one["run_id"] for one in made["left_out"] or []]
    shown = ", ".join(names[:5]) + (" and more" if len(names) > 5 else "")
    return [f"Going on at that moment and so not in it: {shown}. The next backup has what comes of them."] if names else []


def rebuilt(into: Path) -> int:
    """Make the database of a restored folder, a file whatever store this machine has, in a process of its own that knows no other folder.
    Returns from how many parts."""
    done = subprocess.run([sys.executable, "-m", "backend", "rebuild", "--json"], cwd=ROOT, capture_output=True, text=True,
                          env={**os.environ, "DIFFSPECT_DATA": str(into), "DIFFSPECT_STORE": ""})
    told = json.loads(done.stdout.splitlines()[-1]) if done.stdout.strip() else {}
    if "parts" not in told:
        raise ResourceError(f"All files are in {into}, but its database could not be made: {told.get('error') or done.stderr[-300:]} "
                            "It is made when the program starts there.")
    return int(told["parts"])


class Told:
    """Progress without a run directory: `echo` gets what a run's progress.json would say."""

    def __init__(self, echo: Callable[[dict[str, Any]], None]) -> None:
        self.echo, self.began = echo, time.monotonic()

    def __call__(self, *, step: int, total: int, message: str = "") -> None:
        left = (time.monotonic() - self.began) * (total - step) / step if step else None
        self.echo(dict(step=step, total=total, message=message, eta_s=left))
