"""Of which version the layout of run directories is: the one place that says the newest, and what each was.

    1   `format` may be missing from job.json; `test_set_id` from parts of snapshots, `at_s` from metrics.jsonl (see store.scan)

Each job.json names the version it was written in, and `runs/format.json` the newest that ever wrote beside it. This program reads all
up to NEWEST; what a newer one wrote it leaves as it is, with a sentence: half of it might be read, and the rest taken for missing. Who
changes what an older program would read wrongly raises NEWEST, adds a line above, and keeps runs of the version before
(tests/fixtures/README.md).
"""

import json
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any

from backend import __version__
from backend.errors import FormatError

NEWEST = 1


def of(job: dict[str, Any]) -> int:
    """The version that a job.json was written in."""
    return int(job.get("format") or 1)


def check(job: dict[str, Any]) -> None:
    """Raises FormatError for a run that a newer program made."""
    if of(job) > NEWEST:
        raise FormatError(f"A newer Diffspect made the run {job.get('run_id')} (format {of(job)}; this one reads up to {NEWEST}). It is "
                          "left as it is. Update this program to see it.")


def enter(root: Path) -> None:
    """Before anything is read or written among the runs in `root`: refuse a folder that a newer program has written in, and leave word
    that this one has. Raises FormatError."""
    found = _written(root / "format.json")
    if found > NEWEST:
        raise FormatError(f"A newer Diffspect has written in this data folder (format {found}; this one reads up to {NEWEST}). Nothing in "
                          "it was touched. Update this program, or choose another folder.")
    if found < NEWEST and root.is_dir():
        with suppress(OSError):                                  # a disk that takes nothing takes no run either
            temporary = root / f".format.{os.getpid()}.{secrets.token_hex(2)}"
            temporary.write_text(json.dumps(dict(format=NEWEST, code_version=__version__)))
            os.replace(temporary, root / "format.json")


def _written(mark: Path) -> int:
    """0 where nobody left word, or nothing that can be read."""
    try:
        return int(json.loads(mark.read_bytes())["format"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0
