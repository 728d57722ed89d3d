"""Runs on a Ray cluster: the executor's other form, behind the same three verbs: start, poll, end.

    DIFFSPECT_EXECUTOR    local (default), or ray
    DIFFSPECT_RAY         the cluster's job server; http://127.0.0.1:8265
    DIFFSPECT_RAY_CPUS    cores that a training asks for; else as many as the largest node (of those with GPUs, if any) has, at most 8
    DIFFSPECT_RAY_GPUS    GPUs that it asks for, fractions allowed; else 1 where the cluster has any
    DIFFSPECT_RAY_RUNS    runs handed over at a time, 16 at most; those that find no room wait here
    DIFFSPECT_RAY_EACH    cores of one inspector of a folder, 2

A run is a Ray job whose entrypoint is the worker's own command, so recipe, run directory, report, log and cancel are those of a local run.
Every node sees data folder and program under the same paths. Which node has died, Ray says (`LOST`); the supervisor hands the run over
again, and its recipe goes on from its last checkpoint. All talk with the job server is a thread's, once a second: nobody waits for it.
Knows nothing of recipes beyond what they ask for.
"""

import logging
import math
import os
import queue
import shlex
import signal
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from backend import __version__, rundir
from backend.config import data_root
from backend.errors import ConfigError
from backend.jobs import executor, recipes

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

LOST = -256                              # no signal's number: the node is gone, and the process with it
POLL_S = 1.0                             # between two looks at all jobs
WAITED = -257                            # nor this: it found no room for so long that the cluster gave it up
ANSWER_S = 30.0                          # the longest that an answer may take
SIZE_S = 30.0                            # between two looks at what nodes there are
UNKNOWN_S = 30.0                         # before a job that the server does not know counts as lost: it may have been restarted
MOST_CPUS = 8
# Of the supervisor's environment; never secrets, a cluster shows jobs to whoever asks.
TAKEN_ALONG = ("DIFFSPECT_RECIPES", "DIFFSPECT_RUNTIME", "DIFFSPECT_WORKER_GB", "DIFFSPECT_LOG", "DIFFSPECT_RAY_EACH")
INSTALL = "DIFFSPECT_EXECUTOR=ray needs Ray: .venv/bin/python -m pip install 'ray[default,data]==2.60.*', on every machine of the cluster."
log = logging.getLogger("supervisor")


def chosen() -> bool:
    """Whether runs go to a cluster. Raises ConfigError for another word, a number that is none, or where Ray is missing."""
    said = os.environ.get("DIFFSPECT_EXECUTOR") or "local"
    if said not in ("local", "ray"):
        raise ConfigError(f"DIFFSPECT_EXECUTOR is local or ray, not {said!r}.")
    if said == "local":
        return False
    for name in ("CPUS", "GPUS", "RUNS", "EACH"):
        _asked(name)
    from importlib.util import find_spec

    if find_spec("ray") is None:
        raise ConfigError(INSTALL)
    return True


def address() -> str:
    return os.environ.get("DIFFSPECT_RAY") or "http://127.0.0.1:8265"


def _asked(name: str) -> float | None:
    """A person's own number, None where there is none. Raises ConfigError."""
    said = os.environ.get(f"DIFFSPECT_RAY_{name}", "")
    with suppress(ValueError):
        if not said or (math.isfinite(float(said)) and (float(said) > 0 or (name == "GPUS" and float(said) == 0))):
            return float(said) if said else None
    raise ConfigError(f"DIFFSPECT_RAY_{name} is a number, not {said!r}.")


@dataclass(frozen=True)
class Size:
    """What a cluster has: cores and GPUs of each node that has cores to give."""

    nodes: tuple[tuple[float, float], ...] = ()

    @property
    def cpus(self) -> float:
        return sum(cpus for cpus, _ in self.nodes)

    @property
    def gpus(self) -> float:
        return sum(gpus for _, gpus in self.nodes)

    def largest(self, gpus: float) -> float:
        """Cores of the largest node with so many GPUs; 1 where nothing is known."""
        return max([cpus for cpus, has in self.nodes if has >= gpus], default=1.0)

    def fits(self, share: "Share") -> bool:
        """Whether one node could hold it, were it empty."""
        return any(cpus >= share.cpus and gpus >= share.gpus for cpus, gpus in self.nodes)


def size(wait_s: int = 20) -> Size:
    """Asks the cluster. Raises ConnectionError where nobody answers."""
    from ray.util.state import list_nodes

    try:
        found = [n for n in list_nodes(address(), timeout=wait_s, limit=10_000) if n.state == "ALIVE"]
    except Exception as error:           # of many kinds, as it happens: HTTP's, Ray's, its parser's
        raise ConnectionError(f"No Ray cluster answers at {address()}: {_line(error)}") from error
    each = [tuple(float((n.resources_total or {}).get(kind, 0)) for kind in ("CPU", "GPU")) for n in found]
    return Size(tuple((cpus, gpus) for cpus, gpus in each if cpus))


@dataclass(frozen=True)
class Share:
    """What a run asks the cluster for. Recipes of the heavy lane want a GPU; a folder as much as one inspector of it; the rest one core."""

    cpus: float
    gpus: float

    @classmethod
    def of(cls, recipe: str, has: Size) -> "Share":
        some = float(has.gpus > 0)
        if recipe in recipes.SPREAD:
            return cls(min(each(), has.largest(some)), some)
        if recipes.lane(recipe) != "heavy":
            return cls(1.0, 0.0)
        cpus, gpus = _asked("CPUS"), _asked("GPUS")
        gpus = some if gpus is None else gpus
        return cls(min(MOST_CPUS, has.largest(gpus)) if cpus is None else cpus, gpus)

    @property
    def words(self) -> str:
        return f"{self.cpus:g} cores" + (f" and {self.gpus:g} GPUs" if self.gpus else "")


def each() -> float:
    """Cores of one inspector of a folder."""
    return _asked("EACH") or 2.0


@dataclass
class RayJob:
    """One attempt at a run, as a job of the cluster."""

    cluster: "Cluster"
    job_id: str

    def poll(self) -> int | None:
        """The exit code (negative: the signal, or LOST), None while it waits or runs."""
        return self.cluster.code(self.job_id)

    def signal(self, number: int) -> None:
        """Ray sends SIGTERM, and SIGKILL to what is left after it, whichever signal it is."""
        self.cluster.stop(self.job_id, again=number == signal.SIGKILL)


class Cluster:
    """The job server, asked and told by a thread of its own. It may be away for a while; what was wished is done when it is back."""

    def __init__(self) -> None:
        self.size, self._sized = Size(), 0.0
        self._wishes: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()        # "start" or "stop", and which job
        self._jobs: dict[str, _Seen] = {}
        threading.Thread(target=self._serve, name="ray", daemon=True).start()

    def has_room(self, recipe: str) -> bool:
        """Whether it may have one more, beside those that it was given. The first is always handed over, so that Ray says what it lacks;
        others wait here, in the order in which they were asked for, because Ray gives up those that wait for a quarter of an hour."""
        given = [seen.share for seen in list(self._jobs.values()) if seen.code is None and not seen.stopping]
        asked = [*given, Share.of(recipe, self.size)]
        return not given or (len(given) < (_asked("RUNS") or 16) and sum(s.cpus for s in asked) <= self.size.cpus
                             and sum(s.gpus for s in asked) <= self.size.gpus)

    def start(self, run_id: str, attempt: int) -> RayJob:
        job = self.find(f"{run_id}-{attempt}")
        self._wishes.put(("start", job.job_id))
        return job

    def find(self, job_id: str) -> RayJob:
        """A job that another supervisor may have handed over."""
        self._jobs.setdefault(job_id, _Seen(Share.of(_recipe(job_id), self.size)))
        return RayJob(self, job_id)

    def stop(self, job_id: str, again: bool = False) -> None:
        if again or not self._jobs[job_id].stopping:
            self._jobs[job_id].stopping = True
            self._wishes.put(("stop", job_id))

    def code(self, job_id: str) -> int | None:
        return self._jobs[job_id].code

    def forget(self, job_id: str) -> str:
        """Its end was seen. What is known of it that the worker could not tell itself."""
        return self._jobs.pop(job_id).said

    # the thread

    def _serve(self) -> None:
        client, told = None, ""
        while True:
            try:
                client = client or self._reach()
                self._look(client)
                self._do(client)
                told = ""
            except Exception as error:   # whatever comes over the network: it is tried again
                client = None
                if (said := _line(error)) != told:
                    log.warning("The Ray cluster at %s does not answer, runs for it wait: %s", address(), said)
                told = said
                time.sleep(4 * POLL_S)

    def _reach(self) -> "JobSubmissionClient":
        client = _client()
        self.size, self._sized = size(), time.monotonic()
        log.info("The Ray cluster at %s: %d nodes with %g cores, %g GPUs", address(), len(self.size.nodes), self.size.cpus, self.size.gpus)
        for seen in list(self._jobs.values()):
            seen.at = time.monotonic()   # nobody could have seen them while it was away
        return client

    def _look(self, client: "JobSubmissionClient") -> None:
        if time.monotonic() > self._sized + SIZE_S:              # nodes come and go
            self.size, self._sized = size(), time.monotonic()
        for job_id, seen in list(self._jobs.items()):
            if seen.code is None:
                seen.take(_info(client, job_id))

    def _do(self, client: "JobSubmissionClient") -> None:
        """What was wished meanwhile, then the rest of a second."""
        until = time.monotonic() + POLL_S
        while (left := until - time.monotonic()) > 0:
            try:
                wish, job_id = self._wishes.get(timeout=left)
            except queue.Empty:
                return
            try:
                self._submit(client, job_id) if wish == "start" else self._end(client, job_id)
            except Exception:
                self._wishes.put((wish, job_id))
                raise

    def _submit(self, client: "JobSubmissionClient", job_id: str) -> None:
        """Unless it is on its way: an earlier supervisor may have got so far. One that ended without having begun begins anew."""
        seen = self._jobs.get(job_id)
        there = _info(client, job_id)
        if seen is None or seen.stopping or (there is not None and not there.status.is_terminal()):
            return
        if there is not None:
            client.delete_job(job_id)
        run_id, recipe = job_id.rpartition("-")[0], _recipe(job_id)
        share = seen.share = Share.of(recipe, self.size)
        if self.size.nodes and not self.size.fits(share):
            seen.code, seen.said = 1, f"No machine of the cluster has {share.words}; DIFFSPECT_RAY_CPUS and DIFFSPECT_RAY_GPUS ask less."
            return
        own = Share(0, 0) if recipe in recipes.SPREAD else share         # it waits for others, at the head, by the data folder's disk
        try:
            client.submit_job(entrypoint=entrypoint(run_id), submission_id=job_id, entrypoint_num_cpus=own.cpus or None,
                              entrypoint_num_gpus=own.gpus or None, runtime_env=dict(env_vars=surroundings(job_id, own)),
                              metadata=dict(run=run_id, recipe=recipe, data=str(data_root())))
        except RuntimeError as error:    # it answers, and says no; or that it cannot yet: a head that has just begun has no agent to ask
            if "status code 5" in str(error):
                raise
            seen.code, seen.said = 1, f"The Ray cluster did not take it: {_line(error)}"
        seen.at = time.monotonic()

    def _end(self, client: "JobSubmissionClient", job_id: str) -> None:
        try:
            client.stop_job(job_id)
        except RuntimeError as error:    # it has ended meanwhile, or never came about
            if "status code 5" in str(error):
                raise


@dataclass
class _Seen:
    """What is known of a job. `code` is None while it waits or runs; `at`: when the server knew it last, 0 before it was asked."""

    share: Share
    at: float = 0.0
    code: int | None = None
    said: str = ""
    stopping: bool = False

    def take(self, info: "JobDetails | None") -> None:
        now = time.monotonic()
        self.at = now if info is not None else self.at or now
        if info is None:
            self.code = -signal.SIGTERM if self.stopping else LOST if now - self.at > UNKNOWN_S else None
        elif info.status.is_terminal():
            ended = 0 if info.status.value == "SUCCEEDED" else -signal.SIGTERM if info.status.value == "STOPPED" else LOST
            ended = WAITED if ended == LOST and "failed to start within" in (info.message or "") else ended
            self.said = ((info.message or "").strip().splitlines() or [""])[-1][:300]       # of a program's output the last line says why
            self.code = info.driver_exit_code if info.driver_exit_code is not None else ended


def _recipe(job_id: str) -> str:
    return rundir.recipe_of(job_id.rpartition("-")[0])


def _info(client: "JobSubmissionClient", job_id: str) -> "JobDetails | None":
    """None where the server knows no such job."""
    try:
        return client.get_job_info(job_id)
    except RuntimeError as error:
        if "status code 404" in str(error):
            return None
        raise


def _client() -> "JobSubmissionClient":
    from ray.job_submission import JobSubmissionClient

    class Client(JobSubmissionClient):
        """Ray's own waits for ever for a head that has gone in the midst of an answer."""

        def _do_request(self, *words: Any, **more: Any) -> Any:
            return super()._do_request(*words, **{"timeout": ANSWER_S, **more})

    return Client(address())


def entrypoint(run_id: str) -> str:
    """The worker's command, for a shell of any node."""
    return f"cd {shlex.quote(str(executor.ROOT))} && exec {shlex.quote(sys.executable)} -m backend run {shlex.quote(run_id)}"


def surroundings(job_id: str, share: Share) -> dict[str, str]:
    """Environment of a job. Its settings are this machine's, its secrets are not: a cluster shows jobs to whoever asks."""
    ours = {k: os.environ[k] for k in TAKEN_ALONG if k in os.environ}
    cores = str(max(1, int(share.cpus)))
    return {**ours, **executor.offline(), "DIFFSPECT_DATA": str(data_root()), "DIFFSPECT_ON_CLUSTER": job_id,
            "DIFFSPECT_VERSION": __version__, "DIFFSPECT_CORES": cores, "OMP_NUM_THREADS": cores, "PYTHONUNBUFFERED": "1",
            "PYTHONFAULTHANDLER": "1", "RAY_JOB_STOP_WAIT_TIME_S": "5"}


def _line(error: Any) -> str:
    text = str(error).strip()
    return (text.splitlines()[0] if text else "" if isinstance(error, str) else type(error).__name__)[:300]
