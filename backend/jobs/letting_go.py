"""Recipe `retention`: lets go what `retention.plan` says, once it is written down.

    plan ─► part `let_go` (inspections whose picture goes: the store's `facts.kept` follows) and plan.json ─► files go, one by one

So the database is the same made anew, and killed in between the run goes on: of what was written down, what still lies there and still may
go. What somebody used again meanwhile stays after all.
"""

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from backend import rundir
from backend.config import Retention, data_root
from backend.jobs import references, retention
from backend.jobs.retention import Piece, Sorted
from backend.jobs.runs import LET_GO
from backend.store import vault

SENTENCE = "This log was let go by retention on {:%Y-%m-%d}, {} days or more after the run ended."
PLAN = "plan.json"
GONE = ".gone"                          # ending of a picture's hidden name for the moment between the last look and its end

Report = Callable[..., None]


def run(config: Retention, run_dir: Path, report: Report) -> dict[str, Any]:
    """The days count from the moment when it was asked for, also where it is taken up again. Without `apply` it only tells."""
    if not config.apply:
        return retention.outlook(config)
    report(step=0, total=1, message="Looking what refers to what")
    _mend()
    asked_at = references.moment(rundir.read_json(run_dir / "job.json")["created_at"])
    found = retention.plan(config, asked_at)
    going = _written_down(config, run_dir, found, asked_at)

    # Written down; now it goes.
    freed = stayed = 0
    for n, piece in enumerate(going, 1):
        if _GOES[piece.kind](piece, config, asked_at):
            freed += piece.size
        else:
            stayed += 1
        report(step=n, total=len(going), message=f"{freed / 1e6:,.0f} MB let go")
    vault.settle(data_root())
    return dict(rundir.read_json(run_dir / PLAN), freed=freed, stayed_after_all=stayed)


def _written_down(config: Retention, run_dir: Path, found: Sorted, at: datetime) -> list[Piece]:
    """The part and PLAN, once. Returns what goes; taken up again, only what was written down."""
    if not (run_dir / PLAN).exists():
        rundir.write_part(run_dir, "let_go", [dict(inspection_id=i, at=at) for piece in found.going for i in piece.inspections], number=1)
        rundir.write_json(run_dir / PLAN, retention.told(config, found))
        return found.going
    there = set(rundir.rows(run_dir, "let_go")["inspection_id"].to_pylist())
    return [piece for piece in found.going if there.issuperset(piece.inspections)]


def _mend() -> None:
    """Pictures that a kill left between their last look and their end are looked at again."""
    for hidden in (data_root() / "images").glob(f"[0-9a-f][0-9a-f]/.*{GONE}"):
        path = hidden.with_name(hidden.name[1:].removesuffix(GONE))
        hidden.unlink() if path.exists() else os.rename(hidden, path)


def _picture(piece: Piece, config: Retention, at: datetime) -> bool:
    """Unless somebody used it again: `images.keep` renews a file's time, and finding none writes it anew, whichever of us comes first."""
    assert config.pictures is not None
    folder, cutoff = data_root() / "images" / piece.name[:2], (at - timedelta(days=config.pictures)).timestamp()
    for path in folder.glob(f"{piece.name}.*"):
        hidden = path.with_name(f".{path.name}{GONE}")
        with suppress(FileNotFoundError):
            os.rename(path, hidden)
            if hidden.stat().st_mtime > cutoff:
                os.rename(hidden, path)
                return False
            hidden.unlink()
    return True


def _log(piece: Piece, config: Retention, at: datetime) -> bool:
    path = rundir.runs_root() / piece.name
    if _is_open(path):
        return False
    rundir.write_bytes(path / "log.txt", SENTENCE.format(at, config.logs).encode())
    return True


def _leftovers(piece: Piece, config: Retention, at: datetime) -> bool:
    """What a person took up meanwhile needs them."""
    name, _, folder = piece.name.partition("/")
    path = rundir.runs_root() / name
    if _is_open(path):
        return False
    rundir.write_json(path / LET_GO, dict(at=at, days=config.leftovers))
    shutil.rmtree(path / folder, ignore_errors=True)
    return True


def _synthetic(piece: Piece, config: Retention, at: datetime) -> bool:
    """Its head goes first, so that nobody finds half a set."""
    folder = rundir.runs_root() / piece.name / "synthetic"
    with suppress(FileNotFoundError):
        os.rename(folder / "head.json", folder / LET_GO)
    for path in vault.walk(folder):
        if path.name != LET_GO:
            path.unlink()
    return True


def _is_open(path: Path) -> bool:
    return not path.exists() or rundir.read_json(path / "state.json")["state"] in rundir.OPEN_STATES


_GOES: dict[str, Callable[[Piece, Retention, datetime], bool]] = {"pictures": _picture, "logs": _log, "leftovers": _leftovers,
                                                                 "synthetic": _synthetic}
