"""Jobs: what pages and the command line ask of the backend, and all that pages import of it.

    submit status recent cancel resume log_tail live_metrics run_file              runs, in their directories
    estimate estimate_stages                                                       how long one will take here
    record undo add_demo remove_demo                                               what a person decides
    results                                                                        what the database knows

    events (inline runs) · runs (reading) · pace, reuse (estimates) · house (database, ingest, supervisor of the app process)
    supervisor → executor → worker → report, recipes, locks, memory               the other side of the process border

Everything opens at the first call. Loads no torch, no detector, no image code.

    DIFFSPECT_DATA         the data folder
    DIFFSPECT_SUPERVISOR   off: a service of the machine runs `python -m backend worker`, the app starts none
    DIFFSPECT_WARM         off: no inspector is kept ready, where memory is scarce
    DIFFSPECT_CANCEL_GRACE, DIFFSPECT_KILL_GRACE   seconds a canceled run gets to stop by itself (10), then after SIGTERM (5)
    DIFFSPECT_RECIPES      modules with recipes of one's own, see `recipes`
"""

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from backend import rundir
from backend.config import (
    RECIPES,
    CollectMasks,
    Config,
    Demo,
    DemoModel,
    Import,
    Inspect,
    Predict,
    ProbeFeatures,
    TrainAnomaly,
    TrainDetector,
    TrainDistilled,
)
from backend.errors import (
    Canceled,
    ConfigError,
    DiffspectError,
    ImageError,
    InputError,
    NotFoundError,
    ResourceError,
    StoreError,
)
from backend.jobs import events, house, recipes, runs
from backend.jobs.house import caught_up, worker_alive
from backend.jobs.pace import estimate, estimate_stages
from backend.jobs.runs import live_metrics, log_tail
from backend.records import Filters, RunStatus

if TYPE_CHECKING:
    from backend.jobs import results

__all__ = [
    "RECIPES", "Canceled", "CollectMasks", "Config", "ConfigError", "Demo", "DemoModel", "DiffspectError", "Filters", "ImageError",
    "Import", "InputError", "Inspect", "NotFoundError", "Predict", "ProbeFeatures", "ResourceError", "RunStatus", "StoreError",
    "TrainAnomaly", "TrainDetector", "TrainDistilled", "add_demo", "cancel", "caught_up", "estimate", "estimate_stages",
    "live_metrics", "log_tail", "recent", "record", "remove_demo", "results", "resume", "run_file", "status", "submit", "undo",
    "worker_alive",
]


def __getattr__(name: str) -> Any:
    """`jobs.results`, loaded when first asked for: a worker that starts needs neither DuckDB nor pandas."""
    if name == "results":
        from importlib import import_module

        return import_module("backend.jobs.results")
    raise AttributeError(name)


def submit(config: Config, files: Iterable[tuple[str, BinaryIO]] = (), plant: str = "real", by: str = "") -> str:
    """Queue a run of the config's recipe and return its id. Files are copied into its inbox as they are, without a look inside."""
    assert getattr(config, "plant", plant) == plant, "a run and its rows belong to one plant"
    opened = house.opened()
    staged = rundir.create(recipes.name_of(config), config.to_json(), plant=plant, by=by, state="staged")
    try:
        _fill(staged / "inbox", files)
        run_id = rundir.publish(staged).name
    except OSError as error:
        raise ResourceError(f"The files could not be stored: {error.strerror}. Nothing was submitted.") from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)                # gone already unless something failed
    opened.wake()
    return run_id


def _fill(inbox: Path, files: Iterable[tuple[str, BinaryIO]]) -> None:
    """Names from outside never reach the file system; they travel in inbox.json."""
    names = []
    for number, (name, stream) in enumerate(files):
        inbox.mkdir(exist_ok=True)
        file = f"{number:06d}.bin"
        if stream.seekable():
            stream.seek(0)
        with open(inbox / file, "wb") as f:
            shutil.copyfileobj(stream, f, 1 << 20)
        names.append({"file": file, "name": name})
    if names:
        rundir.write_json(inbox / "inbox.json", names)


def status(run_id: str) -> RunStatus:
    house.opened()
    return runs.status(run_id)


def recent(limit: int = 50, recipes: tuple[str, ...] = (), plant: str | None = None, open_only: bool = False) -> list[RunStatus]:
    """Runs, newest first; what a person decided (inline runs) is not among them."""
    house.opened()
    return runs.recent(limit, recipes, plant, open_only)


def cancel(run_id: str) -> None:
    """Ask a run to stop. A finished one stays as it is."""
    house.opened()
    runs.cancel(run_id)


def resume(run_id: str) -> None:
    """Queue a failed, canceled or interrupted run again. Raises ConfigError for any other."""
    runs.resume(run_id)
    house.opened().wake()


def record(recipe: str, config: dict[str, Any], plant: str = "real", by: str = "") -> str:
    """Write down what a person decided. It shows in results when this returns, unless the database is busy elsewhere."""
    opened = house.opened()
    run_id = events.record(recipe, config, plant, by)
    opened.ingest()
    return run_id


def undo(run_id: str) -> str:
    """Take back what a person decided."""
    target = rundir.read_json(rundir.run_path(run_id) / "job.json")
    if target["recipe"] in RECIPES:
        raise ConfigError("Only a decision can be undone, not a run. Take its images out of the trends instead.")
    if target["recipe"] == "undo":
        raise ConfigError("What was taken back stays so. Make the decision again instead.")
    return record("undo", {"run_id": run_id}, target["plant"])


def run_file(run_id: str, relative: str) -> Path:
    """A file that a run made. Raises NotFoundError for anything outside its directory."""
    root = rundir.run_path(run_id).resolve()
    path = (root / relative.replace("\0", "?")).resolve()
    if not path.is_relative_to(root) or not path.is_file():
        raise NotFoundError(f"This run has no file {relative!r}.")
    return path


def add_demo() -> str:
    """Queue the demo plant, unless it is there or on its way."""
    opened = house.opened()
    run_id = events.add_demo()
    opened.wake()
    return run_id


def remove_demo() -> None:
    """Take the demo plant away: its run directories and their rows. Raises ConfigError where one of its runs does not end."""
    house.opened().remove("demo")
