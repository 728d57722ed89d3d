"""How an experiment comes about: its runs are made wave by wave (`plans`), and its state follows theirs.

In the dashboard the supervisor takes experiments on (`see_to_all`), pages open or not; their runs wait in the ordinary queue, and can be
canceled, resumed and promoted like any. On the command line the recipe (`run`) carries them out, one after the other. Both go on from what
is there. Knows nothing of training or of statistics.
"""

import logging
from pathlib import Path
from typing import Any

from backend import rundir
from backend.config import RECIPES, Compare, Config, Experiment
from backend.errors import Canceled, ConfigError, DiffspectError
from backend.jobs import locks, plans, runs, worker
from backend.jobs.plans import WAVES, Run, path_of

log = logging.getLogger("supervisor")


# ---- taken on by the supervisor

def carried(run_dir: Path, state: dict[str, Any]) -> bool:
    """Whether a run is an experiment that no process carries out, but the supervisor as it goes."""
    return rundir.recipe_of(run_dir.name) == "experiment" and (state["state"] != "running" or state["pid"] is None)


def see_to_all() -> None:
    """Take every experiment on as far as it goes by itself. One that cannot go on must not stop the others."""
    for path in rundir.find("experiment"):
        try:
            now = runs.state(path)
            if now["state"] != "completed" and carried(path, now):
                advance(path)
        except (OSError, ValueError, KeyError, TypeError):
            log.exception("%s cannot be taken on.", path.name)


def advance(run_dir: Path) -> None:
    """Make the runs that are due, and let the experiment's state follow theirs."""
    with locks.hold(run_dir / "lock") as taken:
        if not taken:
            return
        try:
            _step(run_dir)
        except DiffspectError as error:
            _state(run_dir, "failed", str(error))


def _step(run_dir: Path) -> None:
    """One that has ended goes on by itself where a person has taken up one of its runs, but not where the person stopped it."""
    state, canceled = runs.state(run_dir)["state"], (run_dir / "cancel").exists()
    going = state in rundir.OPEN_STATES
    if canceled:
        return _stop(run_dir) if going else None
    if state == "pending" and not _taken_up(run_dir):
        return
    for wave in WAVES:
        going = going or wave == "compare"
        if not going and wave not in plans.written(run_dir):
            return
        asked = plans.asked(run_dir, wave)
        for one in asked if going else ():
            _make(run_dir, one)
        states = [_state_of(one) for one in asked]
        if left := set(states) - {"completed"}:
            return _wait(run_dir, asked, states) if going or left & set(rundir.OPEN_STATES) else None
    _tell(run_dir)
    rundir.write_json(run_dir / "result.json", _result(run_dir))
    _state(run_dir, "completed")


def _taken_up(run_dir: Path) -> bool:
    """A waiting experiment begins, or begins again: with those of its runs that were stopped. False where one has yet to end."""
    for path in plans.there(run_dir):
        if runs.state(path)["state"] not in ("completed", *rundir.OPEN_STATES):
            if locks.holder(path / "lock") is not None:
                return False
            runs.resume(path.name)
    rundir.set_state(run_dir, "running", message="", pid=None, started_at=rundir.now(), finished_at=None)
    return True


def _make(run_dir: Path, one: Run) -> None:
    if not path_of(one).exists():
        job = runs.job(run_dir)
        rundir.create(one["recipe"], one["config"], plant=job["plant"], by=job["by"], run_id=one["run_id"])


def _state_of(one: Run) -> str:
    """'canceled' also of a run that never came about, because its experiment was stopped."""
    return str(runs.state(path_of(one))["state"]) if path_of(one).exists() else "canceled"


def _stop(run_dir: Path) -> None:
    """A wish to cancel is passed on to the experiment's runs; it has ended when they have."""
    left = [path for path in plans.there(run_dir) if runs.state(path)["state"] in rundir.OPEN_STATES]
    for path in left:
        runs.cancel(path.name)
    if not left:
        _state(run_dir, "canceled", "Canceled.")


def _wait(run_dir: Path, asked: list[Run], states: list[str]) -> None:
    """Not all of a wave are completed: the experiment goes on while one of them does."""
    if set(states) & set(rundir.OPEN_STATES):
        _state(run_dir, "running")
    else:
        worst = next(s for s in ("failed", "interrupted", "canceled") if s in states)
        one, lost = asked[states.index(worst)], sum(s != "completed" for s in states)
        why = runs.state(path_of(one))["message"] if path_of(one).exists() else "Canceled."
        _state(run_dir, worst, f"{lost} of {len(asked)} runs did not finish. {plans.title(one)}: {why} Resume goes on with what is left.")
    _tell(run_dir)


def _state(run_dir: Path, state: str, message: str = "") -> None:
    """Written only where something changes: whoever watches reads a state that is a new file."""
    now = runs.state(run_dir)
    if (now["state"], now["message"]) != (state, message):
        ended = state in rundir.END_STATES
        rundir.set_state(run_dir, state, message=message, pid=None, finished_at=rundir.now() if ended else None)


def _tell(run_dir: Path) -> None:
    done, total = plans.count(run_dir)
    failed = sum(runs.state(path)["state"] == "failed" for path in plans.there(run_dir))
    message = f"{done} of {total} runs done" + (f", {failed} failed" if failed else "")
    told = dict(step=done, total=total, message=message, eta_s=None, metrics={})
    if rundir.progress(run_dir) != told:
        rundir.write_json(run_dir / "progress.json", told, lasting=False)


def _result(run_dir: Path) -> dict[str, Any]:
    """What a finished experiment came to."""
    found = plans.written(run_dir)
    comparison = path_of(found["compare"][0])
    told = rundir.read_json(comparison / "result.json")
    return dict(name=plans.config_of(run_dir).name.strip(), sentence=told["sentence"], baseline=told["baseline"],
                runs=len(found["members"]), comparison=comparison.name)


# ---- carried out on the command line

def run(config: Experiment, run_dir: Path, report: Any) -> dict[str, Any]:
    """The recipe where no supervisor is: every run of the experiment here, one after the other. What is completed is not made again."""
    for wave in WAVES:
        for one in plans.asked(run_dir, wave):
            _carry_out(run_dir, one, report)
    return _result(run_dir)


def _carry_out(run_dir: Path, one: Run, report: Any) -> None:
    """Raises Canceled, or DiffspectError with the run's own sentence."""
    path, title, (done, total) = path_of(one), plans.title(one), plans.count(run_dir)

    def echo(progress: dict[str, Any]) -> None:
        report(step=done, total=total, message=f"{title}: {progress['step']} of {progress['total']}, {progress['message']}")

    report(step=done, total=total, message=title)
    if not path.exists():
        worker.foreground(RECIPES[one["recipe"]].from_json(one["config"]), runs.job(run_dir)["plant"], echo, one["run_id"])
    elif _state_of(one) != "completed":
        worker.again(path.name, echo, waiting=True)
    now = runs.state(path)
    if now["state"] == "canceled":
        raise Canceled
    if now["state"] != "completed":
        raise DiffspectError(f"{title}: {now['message']} The log is {path / 'log.txt'}")


def standing(config: Config) -> Path | None:
    """The run that such a command began before: a comparison of equal inputs, or an experiment of equal settings, done or not, on the
    dataset as it is now. Raises ConfigError where the dashboard is at it."""
    if isinstance(config, Compare):
        found = plans.compared(config)
        return rundir.run_path(found) if found else None
    if not isinstance(config, Experiment):
        return None
    path = next((p for p in rundir.find("experiment") if runs.job(p)["config"] == config.to_json()), None)
    if path and runs.state(path)["state"] in rundir.OPEN_STATES and carried(path, runs.state(path)):
        raise ConfigError("The dashboard carries out this experiment already. Follow it there, or cancel it first.")
    return None if path and plans.outdated(config, path) else path
