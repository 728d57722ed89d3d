"""What a dashboard process does, without the browser: `python -m tests.benchmarks.chaos_app SCENE`, on the data folder of DIFFSPECT_DATA.

    upload      hands 24 pictures over, twice, and waits for their rows       training   asks for a detector, and waits
    ingest      takes in runs that come from elsewhere, moved in one by one   promotion  promotes, reviews, sets a rule, takes back, …
    retention   lets old pictures go                                         backup     backs up to the folder beside
    finish      what a person does after the crash: starts again, resumes what was cut off, waits until nothing is open

Each thing that was promised to a person is printed as a JSON line as soon as the call has returned: what was said must not be lost.
"""

import io
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from backend import jobs, rundir
from backend.config import Backup, Inspect, Retention
from backend.errors import DiffspectError
from backend.jobs import house
from tests import squares

PICTURES, SIDE = 24, 64
T = TypeVar("T")
LONG = 500.0


def pictures(seed: int) -> Iterator[tuple[str, io.BytesIO]]:
    """As many different ones as PICTURES, always the same for a seed."""
    rng = np.random.default_rng(seed)
    for n in range(PICTURES):
        out = io.BytesIO()
        Image.fromarray(rng.integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)).save(out, "PNG")
        yield f"plate-{seed}-{n:02d}.png", out


def kept(source: str, target: str) -> None:
    """Copy a file for good, as a worker writes: what it promises is on the disk."""
    shutil.copy2(source, target)
    with open(target, "rb") as f:
        os.fsync(f.fileno())


def said(**what: Any) -> None:
    print(json.dumps(what), flush=True)


def tried(ask: Callable[[], T]) -> T:
    """What a person does who gets a sentence: again, a little later. Anything else than a sentence would be a traceback on a page."""
    until = time.monotonic() + LONG
    while True:
        try:
            return ask()
        except DiffspectError as error:
            if time.monotonic() > until:
                raise
            said(refused=str(error))
            time.sleep(0.3)


def until_ended(*run_ids: str) -> None:
    """And until their rows are in."""
    until = time.monotonic() + LONG
    while time.monotonic() < until:
        try:
            if all(not jobs.status(r).is_open and jobs.results.settled(r) for r in run_ids):
                return
        except DiffspectError:                                   # a disk that is full or read-only for the moment
            pass
        time.sleep(0.1)


def upload() -> None:
    made = []
    for seed in (1, 2):
        asked = Inspect(line="L1", product="Plate", runtime="onnxruntime-cpu")
        made.append(tried(lambda: jobs.submit(asked, pictures(seed))))                                   # noqa: B023
        said(run=made[-1], inspected=PICTURES)
    until_ended(*made)


def training() -> None:
    made = tried(lambda: jobs.submit(squares.config(2)))
    said(run=made)
    until_ended(made)


def ingest() -> None:
    """Runs of `stock`, beside the data folder, appear one after the other, as by a worker of this machine."""
    made = []
    jobs.recent()
    for path in sorted((rundir.runs_root().parents[1] / "stock").iterdir()):
        hidden = rundir.runs_root() / f".{path.name}"
        shutil.rmtree(hidden, ignore_errors=True)
        shutil.copytree(path, hidden, copy_function=kept)
        os.rename(hidden, rundir.runs_root() / path.name)
        said(run=path.name)
        made.append(path.name)
        house.opened().wake()
    until_ended(*(r for r in made if rundir.recipe_of(r) == "inspect"))


def promotion() -> None:
    """A row of decisions; each is promised when the call returns."""
    assert tried(lambda: jobs.caught_up(LONG))
    models = [rundir.read_json(f / "model.json")["model_id"] for f in rundir.model_folders()]
    shown = tried(lambda: jobs.results.images(jobs.Filters())["inspection_id"].tolist()[:6])
    decided = []
    for turn in range(4):
        for recipe, config in (
                ("promote", dict(model_id=models[turn % len(models)], name="m", kind="detector")),
                ("review", dict(inspection_id=shown[turn % len(shown)], verdict="good", class_name="", reviewer="Ines")),
                ("policy", dict(product="", class_name="red", action="reject", threshold=0.2 + turn / 10, min_side=0)),
                ("note", dict(line="L1", at=rundir.now(), text=f"turn {turn}"))):
            decided.append(tried(lambda: jobs.record(recipe, config)))          # noqa: B023
            said(event=decided[-1])
        said(event=tried(lambda: jobs.undo(decided[-2])))


def retention() -> None:
    made = tried(lambda: jobs.submit(Retention(pictures=7, logs=7, leftovers=7, apply=True)))
    said(run=made)
    until_ended(made)


def backup() -> None:
    made = tried(lambda: jobs.submit(Backup(to=str(rundir.runs_root().parents[1] / "backups"))))
    said(run=made)
    until_ended(made)


def finish() -> None:
    """Resume whatever offers it, until nothing is open. A run that fails again and again is told of by its state."""
    until, tries = time.monotonic() + LONG, dict[str, int]()
    while time.monotonic() < until:
        every = jobs.recent(limit=500)
        for run in every:
            if run.state in ("interrupted", "failed") and tries.setdefault(run.run_id, 0) < 3:
                tries[run.run_id] += 1
                jobs.resume(run.run_id)
                said(resumed=run.run_id, message=run.message)
        if not any(r.is_open for r in jobs.recent(limit=500)) and jobs.caught_up():
            break
        time.sleep(0.1)
    house.opened().ingest()
    said(states={r.run_id: [r.state, r.message] for r in jobs.recent(limit=500)})


SCENES = {"upload": upload, "training": training, "ingest": ingest, "promotion": promotion, "retention": retention, "backup": backup}

if __name__ == "__main__":
    {**SCENES, "finish": finish}[sys.argv[1]]()
    house.close()
