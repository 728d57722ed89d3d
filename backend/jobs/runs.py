"""The reading side of runs: status, lists, queue places, logs, live curves. From files alone, never DuckDB.

Fast with thousands of runs: names say the recipe and the order, a state is read again only when its file has changed,
and a list stops at its limit. The two changes made from the outside, cancel and resume, are here as well.
Knows nothing of processes.
"""

import json
import os
import time
from collections.abc import Iterator
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backend import rundir
from backend.config import RECIPES
from backend.errors import ConfigError, NotFoundError
from backend.jobs import locks, recipes
from backend.records import RunStatus

if TYPE_CHECKING:
    import pandas as pd

DEMOS = {"demo": "Demo plant", "demo-model": "Demo model", "demo-experiment": "Demo experiment", "retention": "What is old"}
LET_GO = "let-go.json"                  # in a run, what retention took of it (see `letting_go`): there is nothing to go on from
SET_ASIDE = ".head.json.gone"           # the head of a synthetic set while retention looks for the last time what refers to it
ASK_S = 2.0                             # a worker that starts or ends holds the lock; a supervisor does for a moment
LATELY_NS = 10_000_000_000              # so long after one went on, all are looked at: its state may be on its way to the disk yet
_states: dict[Path, tuple[tuple[int, int, int], dict[str, Any]]] = {}
_ended: dict[Path, tuple[int, set[tuple[str, int]]]] = {}                # of each data folder: as of which reopening, and which runs


def state(run_dir: Path) -> dict[str, Any]:
    """state.json, read only if it is another file than last time (each write is a new file)."""
    path = run_dir / "state.json"
    seen = path.stat()
    signature = (seen.st_ino, seen.st_mtime_ns, seen.st_size)
    known = _states.get(path)
    if known is None or known[0] != signature:
        known = _states[path] = (signature, rundir.read_json(path))
    return known[1]


@lru_cache(maxsize=20_000)
def job(run_dir: Path) -> dict[str, Any]:
    """job.json, which never changes."""
    head: dict[str, Any] = rundir.read_json(run_dir / "job.json")
    return head


def readable(run_dir: Path) -> bool:
    """Whether job.json says what it must: one that is damaged may not keep others from being seen or told of."""
    try:
        head = job(run_dir)
        datetime.fromisoformat(head["created_at"])
        return isinstance(head["config"], dict) and all(isinstance(head[k], str) and head[k] for k in ("plant", "recipe"))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def status(run_id: str) -> RunStatus:
    """Raises NotFoundError, also for a run whose description is damaged."""
    path = rundir.run_path(run_id)
    if not readable(path):
        raise NotFoundError(f"The run {run_id} cannot be shown: its description, job.json, is damaged.")
    return _status(path, queue())


def recent(limit: int = 50, names: tuple[str, ...] = (), plant: str | None = None, open_only: bool = False) -> list[RunStatus]:
    """Newest first; inline runs are not among them."""
    still = open_runs()
    places = _places(still)
    found: list[RunStatus] = []
    for path in (p for p, _ in reversed(still) if not names or rundir.recipe_of(p.name) in names) if open_only else _all(names):
        if len(found) == limit:
            break
        if not rundir.known(path):                   # a newer program's; the store names it
            continue
        try:
            if readable(path) and plant in (None, job(path)["plant"]):             # damaged: the store names it
                found.append(_status(path, places))
        except (FileNotFoundError, ValueError):      # taken away while we looked: the demo was removed
            continue
    return found


def open_runs() -> list[tuple[Path, dict[str, Any]]]:
    """Pending and running runs with their states, oldest first. A run that was seen to have ended is not looked at again before one goes
    on: with 1,100 runs a look at each took 100 ms, at every run of a page."""
    root, reopened = rundir.runs_root(), rundir.reopened_ns()
    known, lately = _ended.get(root, (0, set())), time.time_ns() - reopened < LATELY_NS
    ended, still, found = known[1] if known[0] == reopened and not lately else set(), set(), []
    for one in rundir.listed():
        if one in ended:
            still.add(one)
        elif rundir.recipe_of(one[0]) in RECIPES:
            try:
                now = state(root / one[0])
            except (FileNotFoundError, ValueError):      # one damaged file must not stop the rest
                continue
            if not rundir.known(root / one[0]):      # a newer program's: it knows what to do with it
                continue
            if now["state"] in rundir.OPEN_STATES:
                found.append((root / one[0], now))
            else:
                still.add(one)
    _ended[root] = reopened, still
    return found[::-1]


def queue() -> dict[str, int]:
    """run_id -> place in its lane's queue, 1 is next."""
    return _places(open_runs())


def _places(still: list[tuple[Path, dict[str, Any]]]) -> dict[str, int]:
    places: dict[str, int] = {}
    waiting = {"heavy": 0, "light": 0, "standing": 0}
    for path, now in still:
        if now["state"] == "pending":
            lane = recipes.lane(rundir.recipe_of(path.name))
            waiting[lane] += 1
            places[path.name] = waiting[lane]
    return places


def _all(names: tuple[str, ...] = ()) -> Iterator[Path]:
    return rundir.find(*(names or tuple(RECIPES)))


def _status(path: Path, places: dict[str, int]) -> RunStatus:
    head, now = job(path), state(path)
    progress = rundir.progress(path)
    running = now["state"] == "running"
    return RunStatus(
        run_id=path.name, recipe=head["recipe"], name=name(head["recipe"], head["config"]), state=now["state"],
        message=progress.get("message", "") if running else now["message"], plant=head["plant"], config=head["config"],
        created_at=head["created_at"], started_at=now["started_at"], finished_at=now["finished_at"], attempt=now["attempt"],
        step=progress.get("step", 0), total=progress.get("total", 0), eta_s=progress.get("eta_s") if running else None,
        position=places.get(path.name), result=_json(path / "result.json"),
        canceling=now["state"] in rundir.OPEN_STATES and (path / "cancel").exists())


def _json(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = rundir.read_json(path)
        return content
    except FileNotFoundError:
        return {}


def name(recipe: str, config: dict[str, Any]) -> str:
    """What a person calls a run: the dataset, the model, the batch."""
    if recipe == "measure-synthesis":
        return str(config.get("name") or config.get("synthetic", ""))
    if recipe in ("shadow", "score", "measure-precision"):
        return str(config.get("name") or config.get("model", ""))
    if recipe == "probe-features":
        return str(config.get("denoiser") or config.get("dataset", ""))
    if recipe == "compare":
        return str(config.get("name") or " / ".join(config.get("arms", {})))
    if recipe in DEMOS:
        return DEMOS[recipe]
    if config.get("name"):
        return str(config["name"])
    where = [str(config[k]) for k in ("line", "product", "lot") if config.get(k)]
    folder = next((config[k] for k in ("images", "path", "to", "into") if config.get(k)), None)
    return " · ".join(where) or (Path(str(folder)).name if folder else "Upload")


def log_tail(run_id: str, lines: int = 200) -> str:
    """The end of the log. Of a progress bar that rewrites its line, the last state."""
    path = rundir.run_path(run_id) / "log.txt"
    if not path.exists():
        return ""
    with open(path, "rb") as f:
        f.seek(max(0, os.fstat(f.fileno()).st_size - 400 * lines))
        text = f.read().decode(errors="replace")
    return "\n".join(line.rstrip("\r").rsplit("\r", 1)[-1] for line in text.split("\n")[-lines - 1:]).strip("\n")


def live_metrics(run_id: str) -> "pd.DataFrame":
    """step, name, value, at_s (seconds at work until then). A step that a resumed run repeats counts once, as it was the last time."""
    import pandas as pd  # half a second that a starting worker need not pay

    path = rundir.run_path(run_id) / "metrics.jsonl"
    values: dict[tuple[int, str], tuple[float | None, float | None]] = {}
    for line in path.read_bytes().split(b"\n")[:-1] if path.exists() else []:      # what follows the last newline is half a line
        point = json.loads(line)
        values.update({(point["step"], k): (v, point.get("at_s")) for k, v in point.items() if k not in ("step", "at_s")})
    rows = [(step, k, *values[step, k]) for step, k in sorted(values)]
    return pd.DataFrame(rows, columns=["step", "name", "value", "at_s"]).astype(
        {"step": "int64", "name": "str", "value": "float64", "at_s": "float64"})


def cancel(run_id: str) -> None:
    """Ask a run to stop; a pending one is canceled on the spot. A finished one stays as it is."""
    path = rundir.run_path(run_id)
    if state(path)["state"] not in rundir.OPEN_STATES:
        return
    (path / "cancel").touch()
    with locks.hold(path / "lock") as taken:
        if taken and rundir.read_json(path / "state.json")["state"] == "pending":
            rundir.set_state(path, "canceled", message="Canceled.", finished_at=rundir.now())


def resume(run_id: str) -> None:
    """Queue a run again. Its recipe goes on from its last good checkpoint, or from the start where it has none."""
    path = rundir.run_path(run_id)
    with locks.hold(path / "lock", ASK_S) as taken:
        now = rundir.read_json(path / "state.json")
        if not taken or now["state"] in rundir.OPEN_STATES:
            raise ConfigError("This run is still going on. Wait for it to end, or cancel it first.")
        if now["state"] == "completed":
            raise ConfigError("This run is complete; there is nothing to resume.")
        if (path / LET_GO).exists():
            raise ConfigError("What this run had left to go on from was let go by retention. Start it anew.")
        (path / "cancel").unlink(missing_ok=True)
        rundir.set_state(path, "pending", message="", attempt=now["attempt"] + 1, finished_at=None, lost=0)
