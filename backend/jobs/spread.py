"""The recipe `inspect` on a cluster: a folder's files are shared out to all nodes, and what they found comes back in order.

Ray Data moves chunks of files' names out and findings in; each inspector keeps its models loaded; a chunk of a node that dies is looked at
by another. Ids, groups and rows are made by the recipe where it runs, as on one machine, so the rows are the same. Files are opened on
the nodes, under the paths that they have here. Knows nothing of models or pictures.

    DIFFSPECT_RAY_EACH    cores of one inspector, 2; one sits on each GPU where the cluster has some
"""

import logging
import math
import os
import pickle  # nosec B403  # between the nodes of one's own cluster
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from functools import partial
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

from backend import __version__
from backend.config import Inspect, data_root
from backend.errors import Canceled, DiffspectError, InputError
from backend.jobs import cluster, executor, limits
from backend.jobs.worker import OTHER

WAITS_S = 60.0                           # between two words while no inspector has found room
CHUNK = 32                               # files: some tenths of a second of a core, so that no inspector waits long for the last one
BLOCKS = 4096                            # tasks at most: a million files are eight chunks a task
GONE = "The machine {} of the cluster does not see {}. Every machine must see pictures and data folder under the same path."


def run(config: Inspect, run_dir: Path, report: Any) -> dict[str, Any]:
    """As the recipe itself, looked at by all nodes."""
    result: dict[str, Any] = import_module("backend.inspection.inspect").run(config, run_dir, report, spread=partial(spread, report))
    return result


def spread(report: Any, look: Callable[[Iterable[Any]], list[Any]], entries: Iterable[Any], folder: Path) -> Generator[Any]:
    """What `look` makes of a folder's entries, in their order, made by many. Raises ConfigError, and DiffspectErrors of the nodes."""
    import ray
    from ray import data
    from ray.exceptions import RayTaskError

    ray.init("auto", log_to_driver=False, configure_logging=False, logging_level=logging.ERROR)
    context = data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = context.print_on_execution_start = False
    chunks = [dict(files=_packed(chunk)) for chunk in _chunks(entries)]
    each = inspectors([node["Resources"] for node in ray.nodes() if node["Alive"]])          # type: ignore[no-untyped-call]
    names = dict(look=_packed(look), folders=(str(data_root()), str(folder.resolve())))
    done = threading.Event()
    threading.Thread(target=_waits, args=(done, report), daemon=True).start()
    try:
        if chunks:
            shared = data.from_items(chunks, override_num_blocks=min(len(chunks), BLOCKS))
            found = shared.map(Inspector, fn_constructor_kwargs=names, **each)       # type: ignore[arg-type]  # a class, as it says
            for row in found.iter_rows():
                done.set()
                yield from pickle.loads(row["found"])            # nosec B301
    except RayTaskError as error:
        raise _own(error) from error
    finally:
        done.set()
        ray.shutdown()


def _waits(done: threading.Event, report: Any) -> None:
    """Until the first inspector has begun, say so: others may hold all cores for hours, and who says nothing is ended."""
    while not done.wait(WAITS_S):
        with suppress(Canceled, OSError):                        # the run's own thread will hear of it too
            report(step=0, total=0, message="Waits for room at the cluster")


class Inspector:
    """On a node: looks at one chunk after another, held to the limits of an inspection."""

    def __init__(self, look: bytes, folders: tuple[str, ...]) -> None:
        limits.lay_down("inspect")
        self.look, self.folders = pickle.loads(look), folders      # nosec B301

    def __call__(self, row: dict[str, bytes]) -> dict[str, bytes]:
        """Raises InputError, which would not come through from the constructor, where this machine is not as the others."""
        node, theirs = os.uname().nodename, os.environ.get("DIFFSPECT_VERSION", __version__)
        if theirs != __version__:
            raise InputError(OTHER.format(__version__, theirs))
        for folder in self.folders:
            if not os.path.isdir(folder):
                raise InputError(GONE.format(node, folder))
        return dict(found=_packed(self.look(pickle.loads(row["files"]))))      # nosec B301


def _packed(thing: Any) -> bytes:
    """As Ray itself packs: functions too, such as those that open a file."""
    from ray import cloudpickle

    packed: bytes = cloudpickle.dumps(thing)           # type: ignore[no-untyped-call]
    return packed


def inspectors(nodes: list[dict[str, float]]) -> dict[str, Any]:
    """How many there may be on nodes that have so many CPU and GPU each, and what one asks for, as `Dataset.map` takes it. Raises
    ConfigError."""
    gpus = int(sum(node.get("GPU", 0) for node in nodes))
    each = min(cluster.each(), max((node.get("CPU", 0) for node in nodes if not gpus or node.get("GPU")), default=0) or 1.0)
    most = gpus or max(1, sum(int(node.get("CPU", 0) // each) for node in nodes))
    cores = str(max(1, math.floor(each)))
    ours = {k: os.environ[k] for k in (*cluster.TAKEN_ALONG, "DIFFSPECT_VERSION") if k in os.environ}        # a cluster shows them to all
    surroundings = {**ours, **executor.offline(), "DIFFSPECT_DATA": str(data_root()), "OMP_NUM_THREADS": cores, "DIFFSPECT_CORES": cores,
                    "PYTHONPATH": str(executor.ROOT)}
    return dict(concurrency=(1, most), num_cpus=each, num_gpus=1 if gpus else None, runtime_env=dict(env_vars=surroundings))


def _chunks(entries: Iterable[Any]) -> Iterator[list[Any]]:
    left = iter(entries)
    while chunk := list(islice(left, CHUNK)):
        yield chunk


def _own(error: Exception) -> Exception:
    """What a node said, without Ray's traceback, where it is ours."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, DiffspectError):
            return type(cause)(str(cause).splitlines()[-1])
        cause = getattr(cause, "cause", None) or cause.__cause__
    return error
