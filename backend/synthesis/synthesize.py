"""The recipe `synthesize`: pictures with a defect that nobody has photographed, and their labels: `<run>/synthetic`. Start reading here.

A method (`methods`) makes an attempt of each class in turn, until there are as many of each as asked for; what one does not see, or
what does not fit, is refused and counted. Every attempt's randomness follows from (seed, class, its number), so a killed run comes to
the same set. Knows nothing of how a picture is made, or of detectors.
"""

import shutil
import time
from collections import Counter
from collections.abc import Iterable
from functools import partial
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch

from backend import rundir
from backend.config import Synthesize
from backend.data import snapshot
from backend.device import cores, torch_device
from backend.errors import Canceled, ConfigError, ResourceError
from backend.synthesis import blend, keeping
from backend.synthesis.by_paste import ByPaste
from backend.synthesis.by_perturbation import ByPerturbation
from backend.synthesis.methods import Again, Made, Method, Task

FORMAT = 3                       # of the artifact; part of its key
CHUNK = 16                       # attempts between two checkpoints, on a CPU; four times that on a GPU
TRIES = 4                        # attempts for each image asked for, at most, and EXTRA more for each class
EXTRA = 64
PREVIEW_S = 5                    # seconds between two previews
USED = {"perturb": {"source", "start", "steps", "depth", "variance", "low_opacity", "high_opacity", "low_area", "high_area", "foreground",
                    "imgsz"},
        "prior": {"start", "strength", "guidance", "prompt", "steps", "low_area", "high_area", "foreground"},
        "paste": {"foreground", "same_class"}}      # settings that a method's pictures hang on, besides count, class, seed and again

ROOM = {"perturb": "Choose an image size below {0.imgsz} px.", "prior": "Choose a prior of smaller pictures.",
        "paste": "Free some, then resume the run."}


def run(config: Synthesize, run_dir: Path, report: Any) -> dict[str, Any]:
    _check(config)
    data = snapshot.read(rundir.find_snapshot(config.dataset))
    return make(config, data, method_of(config, data), run_dir, report)


def method_of(config: Synthesize, data: snapshot.Snapshot) -> Method:
    """What the config names, for this dataset. Raises ConfigError and NotFoundError where it cannot be."""
    if config.method == "perturb":
        return ByPerturbation(config, data)
    if config.method == "paste":
        return ByPaste(config, data)
    from backend.synthesis.by_prior import ByPrior  # imports transformers: seconds that the other methods do without

    return ByPrior(config, data)


def make(config: Synthesize, data: snapshot.Snapshot, method: Method, run_dir: Path, report: Any) -> dict[str, Any]:
    """Make the set. Raises ConfigError, ResourceError."""
    key, scratch = key_of(config, data.snapshot_id, method.keys), run_dir / "synthesizing"
    if (kept := rundir.own_result(run_dir, "synthetic", key)) is not None:
        shutil.rmtree(scratch, ignore_errors=True)
        return kept
    rundir.bound(scratch, key)
    (scratch / "synthetic").mkdir(exist_ok=True)
    torch.set_num_threads(cores())
    try:
        # attempts, until there are as many as asked for
        about, progress = method.open(), keeping.taken_up(scratch / "done.jsonl")
        again = Again.of(config)
        wanted = again.counts(method.classes) if again else shares(config.count, method.classes)
        _fill(config, method, wanted, progress, run_dir, report)
        if not progress.items:
            raise ConfigError(f"None of {progress.attempts.total()} attempts made a change that one sees (refused: "
                              f"{_listed(progress.reasons())}). {method.advice}")

        # the artifact
        shown = [c for c in dict.fromkeys([*data.classes, *method.classes])
                 if c in method.classes or any(b[0] == c for item in progress.items for b in item["boxes"])]
        rundir.write_json(scratch / "synthetic" / "labels.json", keeping.coco(progress, shown))
        result = _result(config, data, method, wanted, progress)
        head = dict(key=key, name=config.name, dataset=data.head["name"], snapshot_id=data.snapshot_id, method=config.method, classes=shown,
                    source=_source(config), settings=config.to_json(), items=progress.items, attempts=progress.attempts.total(),
                    rejected=progress.reasons(), **about, result=result)
        rundir.keep_artifact(scratch / "synthetic", run_dir, "synthetic", head)
    except torch.OutOfMemoryError as problem:
        raise ResourceError(f"Out of memory. {ROOM[config.method].format(config)}") from problem
    except Canceled:
        shutil.rmtree(scratch)
        raise
    shutil.rmtree(scratch)
    most = sum(wanted.values())
    short = "" if result["images"] == most else f" of {most}; the rest of {result['attempts']} attempts came to nothing"
    report(step=most, total=most, message=f"made {result['images']}{short}")
    return result


def _check(config: Synthesize) -> None:
    if not config.name:
        raise ConfigError("Give the synthetic set a name.")
    for what in ("opacity", "area"):
        low, high = getattr(config, f"low_{what}"), getattr(config, f"high_{what}")
        if low > high:
            raise ConfigError(f"The lowest {what}, {low}, is above the highest, {high}.")


def key_of(config: Synthesize, snapshot_id: str, keys: dict[str, Any]) -> str:
    """What the set follows from: the settings that its method uses, and what it is made with, by its key. Names do not count."""
    used = {"count", "method", "class_name", "seed", "again"} | USED[config.method]
    settings = {k: v for k, v in config.to_json().items() if k in used}
    return rundir.key_of(kind="synthetic", format=FORMAT, snapshot_id=snapshot_id, **settings, **keys)


def _source(config: Synthesize) -> str:
    """What the change comes from, in a word; of the prior where it starts."""
    return {"perturb": config.source, "prior": config.start, "paste": "paste"}[config.method]


def shares(count: int, classes: list[str]) -> dict[str, int]:
    """So many pictures of each class, evenly; the first ones get one more where it does not divide."""
    return {c: count // len(classes) + (i < count % len(classes)) for i, c in enumerate(classes)}


def _result(config: Synthesize, data: snapshot.Snapshot, method: Method, wanted: dict[str, int], progress: keeping.Progress
            ) -> dict[str, Any]:
    n, seconds, kept = len(progress.items), progress.seconds, progress.kept
    few = [f"Of {c!r} there are {kept[c]} of {most}: {_listed(progress.rejected.get(c, {}))}." for c, most in wanted.items()
           if kept[c] < most]
    return dict(name=config.name, dataset=data.head["name"], snapshot_id=data.snapshot_id, method=config.method, source=_source(config),
                images=n, classes={c: kept[c] for c in wanted}, attempts=progress.attempts.total(), rejected=progress.reasons(),
                seconds=round(seconds, 1), images_per_second=round(n / max(seconds, 1e-9), 2), warnings=method.warnings() + few)


def _listed(reasons: dict[str, int]) -> str:
    return ", ".join(f"{reason} {n}" for reason, n in reasons.items()) or "no attempt was left"


# ---- attempts

def tasks(progress: keeping.Progress, wanted: dict[str, int], most: int) -> list[Task]:
    """The next attempts, one of each class in turn, as many as it still lacks. None where all is made or tried."""
    left = {c: min(n - progress.kept[c], (TRIES * n + EXTRA if n else 0) - progress.attempts[c], most) for c, n in wanted.items()}
    rows = [[Task(c, progress.attempts[c] + i) for i in range(n)] for c, n in left.items()]
    return list(islice((t for turn in zip_longest(*rows) for t in turn if t), most))


def _fill(config: Synthesize, method: Method, wanted: dict[str, int], progress: keeping.Progress, run_dir: Path, report: Any) -> None:
    """Chunk after chunk; each is on disk, whole, before its line says so."""
    scratch, shown, drawn_at = run_dir / "synthesizing", list[list[blend.Image]](), -np.inf
    most, again = sum(wanted.values()), Again.of(config)
    while some := tasks(progress, wanted, CHUNK * (1 if torch_device() == "cpu" else 4)):
        some = again.tasks(some, progress.items) if again else some
        told = dict(step=len(progress.items), total=most, message=f"making image {len(progress.items) + 1} of {most}")
        report(**told)
        began = time.monotonic()
        line, rows = _made(config, method.make(some, partial(report, **told)), some, scratch / "synthetic", len(progress.items))
        line |= dict(attempts=progress.attempts + Counter(t.class_name for t in some), seconds=time.monotonic() - began)
        keeping.append(scratch / "done.jsonl", line)
        progress.add(line)
        shown = [*shown, *rows][-keeping.ROWS:]
        if shown and (time.monotonic() - drawn_at > PREVIEW_S or len(progress.items) == most):
            rundir.write_bytes(run_dir / "samples.png", keeping.preview(shown))
            drawn_at = time.monotonic()


def _made(config: Synthesize, results: Iterable[Made | str], some: list[Task], folder: Path, number: int
          ) -> tuple[dict[str, Any], list[list[blend.Image]]]:
    """A chunk's images, written from this number on: what `done.jsonl` says of them, and rows of the preview."""
    items, labels, rejected, rows = list[dict[str, Any]](), [], dict[str, Counter[str]](), []
    for task, made in zip(some, results, strict=True):
        if not isinstance(made, Made):
            rejected.setdefault(task.class_name, Counter())[made] += 1
            continue
        items.append(keeping.write(folder, number + len(items), made) | _item(config, task, made))
        labels.append(made.labels)
        rows.append(keeping.row(made))
    return dict(items=items, labels=labels, rejected=rejected), rows


def _item(config: Synthesize, task: Task, made: Made) -> dict[str, Any]:
    """Where an image comes from."""
    nothing = dict(parent="", donor="", source="", opacity=1.0, prompt="", adapter="", adapter_hash="", strength=None, guidance=None,
                   steps=None)
    return dict(class_name=task.class_name, method=config.method, seed=config.seed, attempt=task.number, again=task.again,
                **(nothing | made.about))
