"""The software check as it stands: what the model in use says today of stored pictures, against what it said at first; and when it is due.

Runs `check` (`inspection.check`) store pictures and scores; what differs too much is `quality.reference`'s. From run directories alone.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache

from backend import rundir
from backend.config import Check
from backend.jobs import runs
from backend.quality import reference
from backend.quality.reference import SoftwareCheck

EVERY = timedelta(days=1)
EXACT, ROUGH = reference.TOLERANCE, 0.05       # bf16 was off by 0.024 from float32 on 24 drawn plates; the same arithmetic by 2e-6


@dataclass(frozen=True)
class Software:
    """One software check. `check` is None where it could not run, or is still under way; then `words` says so."""

    run_id: str
    at: datetime
    state: str                         # of the run
    model: str
    model_id: str
    runtime: str
    first: bool                        # it stored the pictures
    check: SoftwareCheck | None
    words: str

    @property
    def passed(self) -> bool | None:
        """None: not known."""
        return self.check.passed if self.check else False if self.state == "failed" else None


def software(limit: int = 30) -> list[Software]:
    """The newest first."""
    found: list[Software] = []
    for path in rundir.find("check"):
        if len(found) < limit:
            found.append(_software(path.name, runs.state(path)["state"]))
    return found


def now() -> Software | None:
    """The newest check of the model in use that came to something; None where there is none. One that was canceled or interrupted says
    nothing, so that it ends no alarm."""
    used = rundir.promoted_model("detector")
    return next((s for s in software() if s.passed is not None and s.model_id in (used, "")), None)


@lru_cache(maxsize=256)
def _software(run_id: str, state: str) -> Software:
    path = rundir.run_path(run_id)
    at = datetime.fromisoformat(runs.job(path)["created_at"])
    if state != "completed":
        message = runs.state(path)["message"]
        ended = f"It could not run: {message}" if state == "failed" else "It ended early."
        said = "It is under way." if state in rundir.OPEN_STATES else ended
        return Software(run_id, at, state, "", "", "", False, None, said)
    head = rundir.read_json(path / "check" / "head.json")
    stored = head if not head["baseline"] else rundir.read_json(rundir.run_path(head["baseline"]) / "check" / "head.json")
    check = reference.software_check(stored["scores"], head["scores"], tolerance(stored["runtime"], head["runtime"]))
    words = f"{len(stored['scores'])} pictures and their scores are stored." if not head["baseline"] else check.words
    return Software(run_id, at, state, head["model_name"], head["model_id"], head["runtime"], not head["baseline"], check, words)


def tolerance(stored: str, today: str) -> float:
    """How far the arithmetic of two runtimes may be apart, of a score from 0 to 1. One of half precision on a GPU may be off from itself:
    cuDNN times its algorithms at each start and takes the fastest."""
    rough = ["f16" in name for name in (stored, today)]          # bf16 too
    return ROUGH if rough[0] != rough[1] or (rough[0] and (stored != today or "cuda" in today)) else EXACT


def due(started_at: datetime, moment: datetime) -> bool:
    """At each start of the supervisor, each day, and after a change of model; not while one waits or runs."""
    used = rundir.promoted_model("detector")
    newest = next(iter(software(1)), None)
    if not used or (newest and newest.state in rundir.OPEN_STATES):
        return False
    changed = newest is not None and newest.state == "completed" and newest.model_id != used
    return newest is None or changed or newest.at < max(started_at, moment - EVERY)


def begin() -> str:
    """Queue one."""
    return rundir.create("check", Check().to_json()).name
