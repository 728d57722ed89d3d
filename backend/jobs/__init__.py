"""Jobs: what pages and the command line ask of the backend, and all that pages import of it.

    submit status recent cancel resume log_tail live_metrics run_file              runs, in their directories
    estimate estimate_stages                                                       how long one will take here
    plan_experiment start_experiment experiment experiments                        matched trainings, and how far they are
    compare comparison expected_cost                                               whether finished ones really differ, what they cost
    record undo add_demo remove_demo                                               what a person decides
    synthetic judge                                                                made pictures, and what a person says of them
    results                                                                        what the database knows
    people                                                                         accounts, sign-in, the audit log
    sampling · labelling                                                           the random sample and the true rate; drawn boxes, CVAT
    system                                                                         checks of the machine, backup, restore, retention

    events (inline runs) · runs, gallery, standings (reading) · arms, holdings, plans (of experiments) · pace, reuse (estimates)
    control, points, signals, trial (control charts)
    conditions, lookout, alarms (what somebody has to know) · channels, senders, delivery (and how it is told) · software, checks, lookbacks
    (whoever inspects, inspected) · messenger (a child of the supervisor: sends, and looks while no app is there)
    shift_facts, shift_events, shift_report, shift_plan, report_runs (the shift report) · two_periods
    house (database, ingest, supervisor of the app process) · waves (experiments, taken on by the supervisor)
    supervisor → executor → worker → report, recipes, locks, memory               the other side of the process border
    logs · exposition → figures, told                                              what they say of themselves, to people and Prometheus

Each function says what it needs of whoever acts, see `needs`.
Everything opens at the first call. Loads no torch, no detector, no image code.

    DIFFSPECT_DATA         the data folder
    DIFFSPECT_STORE, DIFFSPECT_STORE_FILES, DIFFSPECT_PLANT    a store of several plants instead of a file in it, see docs/plants.md
    DIFFSPECT_SUPERVISOR   off: a service of the machine runs `python -m backend worker`, the app starts none
    DIFFSPECT_MESSENGER    off: nothing is sent, and nobody looks for alarms while no app is there
    DIFFSPECT_ALERTS       file with channels for messages, see `channels`; else alerts.toml in the data folder
    DIFFSPECT_URL          the address under which people reach the app, for links in messages
    DIFFSPECT_WARM         off: no inspector is kept ready, where memory is scarce
    HF_HUB_OFFLINE         0: a checkpoint that a person names by its hub name may be fetched; else nothing ever is
    DIFFSPECT_CANCEL_GRACE, DIFFSPECT_KILL_GRACE   seconds a canceled run gets to stop by itself (10), then after SIGTERM (5)
    DIFFSPECT_LOG          json: app, supervisor, messenger and workers log JSON lines, see `logs`; else text
    DIFFSPECT_METRICS      port of the supervisor's metrics and health on 127.0.0.1, see `exposition`; unset: none
    DIFFSPECT_RECIPES      modules with recipes of one's own, see `recipes`
"""

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from backend import comparable, device, rundir
from backend.config import (
    RECIPES,
    AdaptPrior,
    Check,
    CollectMasks,
    Combine,
    Compare,
    Config,
    Demo,
    DemoModel,
    Experiment,
    Import,
    Inspect,
    MeasureSynthesis,
    Predict,
    ProbeFeatures,
    Relabel,
    Retention,
    Score,
    SearchSynthesis,
    Shadow,
    Synthesize,
    TrainAnomaly,
    TrainClassifier,
    TrainDetector,
    TrainDistilled,
    TrainPrior,
    Watch,
)
from backend.errors import (
    AccessError,
    Canceled,
    ConfigError,
    DiffspectError,
    FormatError,
    ImageError,
    InputError,
    NotFoundError,
    ResourceError,
    StoreError,
)
from backend.jobs import audit, events, gallery, house, needs, pace, plans, recipes, runs, standings, watching
from backend.jobs.arms import PRESETS
from backend.jobs.needs import claimed, of_event, of_run, reading, signed
from backend.quality.stages import SavedChart
from backend.records import Filters, RunStatus

if TYPE_CHECKING:
    from backend.jobs import labelling, people, results, sampling, system

__all__ = [
    "PRESETS", "RECIPES", "AccessError", "AdaptPrior", "Canceled", "Check", "CollectMasks", "Combine", "Compare", "Config", "ConfigError",
    "Demo", "DemoModel",
    "DiffspectError", "Experiment", "Filters", "FormatError", "ImageError", "Import", "InputError", "Inspect", "MeasureSynthesis",
    "NotFoundError",
    "Predict", "ProbeFeatures", "Relabel", "ResourceError", "Retention", "RunStatus", "SavedChart", "Score", "SearchSynthesis", "Shadow",
    "StoreError",
    "Synthesize", "TrainAnomaly", "TrainClassifier", "TrainDetector", "TrainDistilled", "TrainPrior", "Watch", "add_demo", "arithmetics",
    "cancel",
    "caught_up", "compare", "comparison", "estimate", "estimate_stages", "expected_cost", "experiment", "experiments", "exported",
    "judge",
    "labelling", "live_metrics", "log_tail", "people", "plan_experiment", "recent", "record", "remade", "remove_demo", "results", "resume",
    "run_file", "sampling", "start_experiment", "status", "submit", "synthetic", "system", "undo", "watches", "worker_alive",
]


def __getattr__(name: str) -> Any:
    """`jobs.results` and the like, loaded when first asked for: a worker that starts needs neither DuckDB nor pandas."""
    if name in ("results", "sampling", "labelling", "people", "system"):
        from importlib import import_module

        return import_module(f"backend.jobs.{name}")
    raise AttributeError(name)


# Asked by the other side of the process border too, where nobody is signed in: so they are guarded here.
estimate, estimate_stages = needs.needs("read")(pace.estimate), needs.needs("read")(pace.estimate_stages)
live_metrics, log_tail = needs.needs("read")(runs.live_metrics), needs.needs("read")(runs.log_tail)
watches = needs.needs("read")(watching.watches)
arithmetics = needs.needs("read")(device.arithmetics)            # of this machine's processor, beside float32


@needs.needs(lambda config, *_, **__: of_run(recipes.name_of(config)))
def submit(config: Config, files: Iterable[tuple[str, BinaryIO]] = (), plant: str = "real", by: str = "") -> str:
    """Queue a run of the config's recipe and return its id. Files are copied into its inbox as they are, without a look inside."""
    assert getattr(config, "plant", plant) == plant, "a run and its rows belong to one plant"
    opened = house.opened()
    staged = rundir.create(recipes.name_of(config), config.to_json(), plant=plant, by=signed(by), state="staged")
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
        names.append({"file": file, "name": name.encode("utf-8", "replace").decode()})          # half a character is none
    if names:
        rundir.write_json(inbox / "inbox.json", names)


def status(run_id: str) -> RunStatus:
    house.opened()
    return runs.status(run_id)


def recent(limit: int = 50, recipes: tuple[str, ...] = (), plant: str | None = None, open_only: bool = False) -> list[RunStatus]:
    """Runs, newest first; what a person decided (inline runs) is not among them."""
    house.opened()
    return runs.recent(limit, recipes, plant, open_only)


def _of_run(run_id: str) -> str:
    """What stopping a run, or taking it up again, needs: as much as starting it."""
    return needs.of_run(rundir.recipe_of(run_id))


@needs.needs(_of_run)
def cancel(run_id: str) -> None:
    """Ask a run to stop. A finished one stays as it is."""
    house.opened()
    watching.stop(run_id)


@needs.needs(_of_run)
def resume(run_id: str) -> None:
    """Queue a failed, canceled or interrupted run again. Raises ConfigError for any other."""
    runs.resume(run_id)
    house.opened().wake()


def plan_experiment(config: Experiment) -> dict[str, Any]:
    """What an experiment would do: its arms with their images and steps, its runs, seconds. Raises ConfigError or NotFoundError with the
    reason why it cannot be."""
    return plans.outlook(config)


@needs.needs("run")
def start_experiment(config: Experiment, by: str = "") -> str:
    """Queue an experiment. Its runs follow, all arms of one seed first, then their comparison; `cancel` and `resume` reach all of them.
    Raises as `plan_experiment`."""
    plans.outlook(config)
    return submit(config, by=by)


def experiment(run_id: str) -> dict[str, Any]:
    """An experiment and how far each of its runs is; cheap. Raises NotFoundError."""
    return standings.experiment(run_id)


def experiments() -> list[dict[str, Any]]:
    """All of them, newest first."""
    return list(standings.experiments())


@needs.needs("run")
def compare(arms: dict[str, list[str]], baseline: str = "", name: str = "", metric: str = "map50") -> str:
    """Whether finished trainings really differ: the comparison that has these inputs, or a new one, queued. Raises ConfigError with the
    reason where they cannot be compared."""
    config = Compare(name=name, arms=arms, baseline=baseline, metric=metric)
    comparable.test_set(config.arms)
    return plans.compared(config, *rundir.OPEN_STATES) or submit(config)


def comparison(run_id: str) -> dict[str, Any]:
    """What a comparison came to. Raises NotFoundError while it is not made."""
    return standings.comparison(run_id)


def expected_cost(run_ids: list[str], missed: float, false_reject: float, defect_rate: float) -> dict[str, Any]:
    """What the runs of one arm cost per 1,000 parts: `point`, at the thresholds recommended for them, and `curve`, at each threshold; as
    `evaluation.cost` tells them. Raises ConfigError, NotFoundError."""
    from backend.evaluation.cost import Costs
    from backend.jobs import costs

    return costs.expected(run_ids, Costs(missed, false_reject, defect_rate))


@needs.needs(lambda recipe, *_, **__: of_event(recipe))
def record(recipe: str, config: dict[str, Any], plant: str = "real", by: str = "") -> str:
    """Write down what a person decided. It shows in results when this returns, unless the database is busy elsewhere. Where people sign in,
    a name in it (`by`, `reviewer`) is that of whoever is signed in."""
    opened = house.opened()
    run_id = _recorded(recipe, claimed(config), plant, by, recipe if recipe in audit.DECISIONS and plant == "real" else "")
    if recipe == "promote":
        _look_back(opened, config)
    return run_id


def _recorded(recipe: str, config: dict[str, Any], plant: str, by: str = "", what: str = "") -> str:
    """Written and taken in; with `what`, in the audit log too."""
    def entry(staged: Path) -> None:
        audit.write(what, audit.subject(config), run=staged)

    run_id = events.record(recipe, config, plant, signed(by), entry if what else None)
    house.opened().ingest(run_ids=[run_id])      # not a look at all runs: a key press waits for it
    return run_id


def _look_back(opened: house.House, config: dict[str, Any]) -> None:
    """With a model that was just put to use, on the pictures of the last days: see `lookbacks`."""
    from backend.jobs import lookbacks

    try:
        lookbacks.begin(opened.database(), str(config.get("model_id")), str(config.get("kind") or ""))
        opened.wake()
    except (StoreError, OSError):                # another process has the database, or the disk is full: a person may look back later
        return


@needs.needs(lambda run_id, *_, **__: of_event(rundir.recipe_of(run_id)))
def undo(run_id: str) -> str:
    """Take back what a person decided."""
    target = rundir.read_json(rundir.run_path(run_id) / "job.json")
    if target["recipe"] in RECIPES:
        raise ConfigError("Only a decision can be undone, not a run. Take its images out of the trends instead.")
    if target["recipe"] == "undo":
        raise ConfigError("What was taken back stays so. Make the decision again instead.")
    what = "undo" if target["recipe"] in audit.DECISIONS and target["plant"] == "real" else ""
    if target["recipe"] != "promote":
        return _recorded("undo", {"run_id": run_id}, target["plant"], what=what)
    kind = str(target["config"].get("kind") or "detector")
    used = rundir.promoted_model(kind)
    made = _recorded("undo", {"run_id": run_id}, target["plant"], what=what)
    if (now := rundir.promoted_model(kind)) != used:
        _look_back(house.opened(), dict(model_id=now, kind=kind))          # the model before takes over, as if it were promoted
    return made


def synthetic(run_id: str) -> dict[str, Any]:
    """A synthetic set: what its head.json says, its items with what people said of each. Raises NotFoundError while it is not made."""
    return gallery.synthetic(run_id)


@needs.needs("review")
def judge(run_id: str, verdicts: dict[str, str], by: str = "") -> str:
    """Write down what a person said of made pictures: {file: accept | reject | again | '' (take it back)}.

    `synthetic` shows it when this returns. Returns the id that `undo` takes. Raises ConfigError, NotFoundError.
    """
    made = gallery.judge(run_id, verdicts, signed(by))
    house.opened().wake()                        # not `ingest`: a key press waits for no database
    return made


def run_file(run_id: str, relative: str) -> Path:
    """A file that a run made. Raises NotFoundError for anything outside its directory."""
    root = rundir.run_path(run_id).resolve()
    path = (root / relative.replace("\0", "?")).resolve()
    if not path.is_relative_to(root) or not path.is_file():
        raise NotFoundError(f"This run has no file {relative!r}.")
    return path


@needs.needs("read")
def exported(what: str) -> None:
    """Somebody takes something away that a page made: tell the audit log."""
    audit.write("export", what)


@needs.needs("run")
def add_demo() -> str:
    """Queue the demo plant, unless it is there or on its way."""
    opened = house.opened()
    run_id = events.add_demo()
    opened.wake()
    return run_id


@needs.needs("retention")
def remove_demo() -> None:
    """Take the demo plant away: its run directories and their rows. Raises ConfigError where one of its runs does not end."""
    audit.write("delete", "the demo plant")
    house.opened().remove("demo")


caught_up, remade, worker_alive = needs.needs("")(house.caught_up), needs.needs("")(house.remade), needs.needs("")(house.worker_alive)
reading(globals())
