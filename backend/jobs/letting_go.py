"""Recipe `retention`: lets go what `retention.plan` says, once it is written down.

    plan ─► part `let_go` (inspections whose picture goes: the store's `facts.kept` follows) and plan.json ─► each piece:
            set aside, so that nobody finds it ─► looked at once more ─► gone, or put back

So the database is the same made anew, and killed in between the run goes on: of what was written down, what still lies there and still may
go. What is promised: a reference that was there before its picture or set was set aside keeps it, however late in the run it came. From
then on nobody finds the thing, so nobody comes to refer to it but by what a page showed before: of a set that person is told
(`gallery.judge`), of a picture the page says that it was let go. Between the last look and the end of a picture lies one call of the
system. What stays after all was written down as let go: it is shown, but nobody is asked about it any more. Logs and leftovers go while the
run's lock is held, which whoever takes the run up holds too.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from backend import rundir
from backend.config import Retention, data_root
from backend.jobs import locks, references, retention
from backend.jobs.retention import Piece, Sorted
from backend.jobs.runs import LET_GO, SET_ASIDE
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
        if _GOES[piece.kind](piece, config, asked_at, found):
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
    """What a kill left between being set aside and its end: looked at again, or, where that was done, brought to its end."""
    for hidden in (data_root() / "images").glob(f"[0-9a-f][0-9a-f]/.*{GONE}"):
        _back(hidden, hidden.with_name(hidden.name[1:].removesuffix(GONE)))
    for run in rundir.find():
        folder = run / "synthetic"
        if (folder / SET_ASIDE).exists():
            os.rename(folder / SET_ASIDE, folder / "head.json")
        elif (folder / LET_GO).exists():
            _empty(folder)


def _picture(piece: Piece, config: Retention, at: datetime, found: Sorted) -> bool:
    """`images.keep` renews a file's time, and finding none writes it anew, whichever of us comes first."""
    assert config.pictures is not None and found.held is not None and piece.newest is not None
    folder, cutoff = data_root() / "images" / piece.name[:2], (at - timedelta(days=config.pictures)).timestamp()
    for path in folder.glob(f"{piece.name}.*"):
        hidden = path.with_name(f".{path.name}{GONE}")
        with suppress(FileNotFoundError), _aside(path, hidden) as end:
            if hidden.stat().st_mtime > cutoff or found.held.again().why(piece.name, piece.inspections, piece.newest):
                return False                                     # which puts it back
            end()
    return True


@contextmanager
def _aside(path: Path, hidden: Path, end: str = "") -> Iterator[Callable[[], None]]:
    """A file under a hidden name for the length of the block; put back unless its end, or its last name, came. An interruption puts it
    back too."""
    os.rename(path, hidden)
    try:
        yield (lambda: os.rename(hidden, path.with_name(end))) if end else hidden.unlink
    finally:
        with suppress(FileNotFoundError):
            _back(hidden, path)


def _back(hidden: Path, path: Path) -> None:
    """Somebody may have written the same content anew meanwhile, whose time says that it is used."""
    hidden.unlink() if path.exists() else os.rename(hidden, path)


@contextmanager
def _quiet(path: Path) -> Iterator[bool]:
    """Whether a run is there and has ended; while the block lasts nobody takes it up again."""
    if not path.exists():
        yield False
        return
    with locks.hold(path / "lock") as taken:
        yield taken and rundir.read_json(path / "state.json")["state"] not in rundir.OPEN_STATES


def _log(piece: Piece, config: Retention, at: datetime, found: Sorted) -> bool:
    path = rundir.runs_root() / piece.name
    with _quiet(path) as ended:
        if ended:
            rundir.write_bytes(path / "log.txt", SENTENCE.format(at, config.logs).encode())
    return ended


def _leftovers(piece: Piece, config: Retention, at: datetime, found: Sorted) -> bool:
    """What a person took up meanwhile needs them."""
    name, _, folder = piece.name.partition("/")
    path = rundir.runs_root() / name
    with _quiet(path) as ended:
        goes = ended and name not in retention.experimenting()
        if goes:
            rundir.write_json(path / LET_GO, dict(at=at, days=config.leftovers))         # from here on nobody takes it up
    if goes:
        shutil.rmtree(path / folder, ignore_errors=True)
    return goes


def _synthetic(piece: Piece, config: Retention, at: datetime, found: Sorted) -> bool:
    """Its head goes first, so that nobody finds half a set."""
    assert found.wanted is not None
    folder, goes = rundir.runs_root() / piece.name / "synthetic", False
    with suppress(FileNotFoundError), _aside(folder / "head.json", folder / SET_ASIDE, LET_GO) as end:
        goes = not found.wanted.again().why(folder)
        if goes:
            end()
    if goes:
        _empty(folder)
    return goes


def _empty(folder: Path) -> None:
    for path in vault.walk(folder):
        if path.name != LET_GO:
            path.unlink()


_GOES: dict[str, Callable[[Piece, Retention, datetime, Sorted], bool]] = {
    "pictures": _picture, "logs": _log, "leftovers": _leftovers, "synthetic": _synthetic}
