"""A real Ray cluster of nodes on this machine, a core each, beside the same runs without one: same results, a killed node's work, scaling.

    python -m tests.benchmarks.ray [--images 3000] [--kills 10] [--rounds 3]

`same`: a detector trained and a folder inspected, by the cluster and by this machine alone, compared row by row. `killed`: a node dies
while runs are on it; what is lost or doubled of their rows. `scaling`: images a second of a folder inspection by one and by two nodes,
and by one process with one core; in turn, round after round. `seeds`: an experiment of six trainings, one after another and by two nodes.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests import ray_cluster
from tests.benchmarks.record import ROOT, write

MODEL, SAMPLES = ROOT / "data" / "demo" / "model", ROOT / "data" / "demo" / "samples"
WAIT_S = 900.0


@contextmanager
def plant(folder: Path, address: str = "", **more: str) -> Iterator[Path]:
    """A data folder with a supervisor of its own, which hands its runs to the cluster at `address`, or keeps them."""
    data = (folder / "data").resolve()
    data.mkdir(parents=True)
    there = dict(DIFFSPECT_DATA=str(data), DIFFSPECT_RECIPES="tests.recipes", DIFFSPECT_WARM="off", DIFFSPECT_MESSENGER="off",
                 DIFFSPECT_EXECUTOR="ray" if address else "local", DIFFSPECT_RAY=address, DIFFSPECT_RAY_EACH="1", **more)
    before = dict(os.environ)
    os.environ.update(there)
    boss = subprocess.Popen([sys.executable, "-m", "backend", "worker"], cwd=ROOT)
    try:
        yield data
    finally:
        boss.terminate()
        boss.wait(60)
        os.environ.clear()
        os.environ.update(before)


def submitted(config: Any) -> str:
    """The id of a run that waits for the supervisor."""
    from backend import rundir
    from backend.jobs import recipes

    return rundir.create(recipes.name_of(config), config.to_json(), by="benchmark").name


def ended(*run_ids: str) -> list[dict[str, Any]]:
    """States of runs that have ended. Raises AssertionError where one did not complete."""
    from backend import rundir

    until = time.monotonic() + WAIT_S
    while True:
        states = [rundir.read_json(rundir.run_path(r) / "state.json") for r in run_ids]
        if all(s["state"] in rundir.END_STATES for s in states):
            assert {s["state"] for s in states} == {"completed"}, states
            return states
        assert time.monotonic() < until, states
        time.sleep(0.1)


def pictures(folder: Path, count: int) -> Path:
    """Drawn plates, each a file of its own content: the demo's twenty, with a number behind the picture's end."""
    samples = sorted(SAMPLES.glob("*.jpg"))
    folder.mkdir()
    for k in range(count):
        (folder / f"{k:05d}.jpg").write_bytes(samples[k % len(samples)].read_bytes() + f"{k}".encode())
    return folder


def rows(run_id: str) -> dict[str, list[dict[str, Any]]]:
    """All that a folder inspection says, without moments and ids."""
    from backend import rundir

    found = {}
    for table in ("inspections", "detections", "refused"):
        listed = [row for p in rundir.parts(rundir.run_path(run_id), table) for row in rundir.read_part(p).to_pylist()]
        first = min((r["inspection_id"] for r in listed if "inspection_id" in r), default=0)
        found[table] = [{k: v - first if k == "inspection_id" else v for k, v in row.items() if k not in ("ingested_at", "captured_at")}
                        for row in listed]
    return found


def same(folder: Path, photos: Path) -> dict[str, list[float]]:
    """A training and a folder, by cluster and by command line."""
    from backend import rundir
    from backend.config import DrawPlates, Inspect, TrainDetector

    few = pictures(folder / "few", 300)
    train = TrainDetector(dataset="plates", name="same", epochs=2, imgsz=64, seed=0)
    told = []
    for where in ("local", "ray"):
        with _cluster(where == "ray", 2) as nodes, plant(folder / f"same-{where}", nodes.address if nodes else "", DIFFSPECT_CORES="1",
                                                         OMP_NUM_THREADS="1"):
            deployed()
            ended(submitted(DrawPlates(name="plates", train=60)))
            trained, inspected = submitted(train), submitted(Inspect(model="demo", images=str(few), line="L1"))
            ended(trained, inspected)
            head = rundir.read_json(rundir.run_path(trained) / "model" / "model.json")
            told.append((head["model_id"], head["metrics"], rows(inspected)))
    (one, metrics, here), (other, theirs, there) = told
    return {"weights equal": [float(one == other)], "metrics equal": [float(metrics == theirs)],
            "rows": [float(sum(map(len, here.values())))],
            "rows that differ": [float(sum(a != b for t in here for a, b in zip(here[t], there[t], strict=True)))]}


@contextmanager
def _cluster(wanted: bool, count: int) -> Iterator[ray_cluster.Nodes | None]:
    if not wanted:
        yield None
        return
    with ray_cluster.nodes(count) as made:
        yield made


def deployed() -> None:
    """The demo's model in this data folder, under the name demo."""
    from backend import rundir

    run = rundir.create("train-detector", {}, state="completed")
    shutil.copytree(MODEL, run / "model")


def killed(folder: Path, kills: int) -> dict[str, list[float]]:
    """Two runs that write rows, on two of three nodes; again and again a node dies and another comes."""
    from backend import rundir
    from tests.recipes import HeavyTrial

    told = {"kills": [0.0], "runs": [0.0], "went on elsewhere": [0.0], "rows lost": [0.0], "rows doubled": [0.0]}
    rng = random.Random(0)
    with ray_cluster.nodes(2) as nodes, plant(folder / "killed", nodes.address):
        alive = [0, 1]
        for number in range(kills):
            both = [submitted(HeavyTrial(do="write", steps=150, pause=0.1)) for _ in range(2)]
            wait(lambda both=both: all(step(r) > 2 for r in both))
            time.sleep(rng.uniform(0, 5))
            nodes.kill(alive.pop(rng.randrange(2)))
            nodes.add()
            alive.append(number + 2)
            told["kills"][0] += 1
            states = ended(*both)
            for run_id, state in zip(both, states, strict=True):
                parts = rundir.parts(rundir.run_path(run_id), "inspections")
                ids = [i for p in parts for i in rundir.read_part(p)["inspection_id"].to_pylist()]
                told["runs"][0] += 1
                told["went on elsewhere"][0] += state["attempt"] > 1
                told["rows lost"][0] += 1500 - len(set(ids))
                told["rows doubled"][0] += len(ids) - len(set(ids))
    return told


def step(run_id: str) -> int:
    from backend import rundir

    path = rundir.run_path(run_id) / "progress.json"
    return int(rundir.read_json(path)["step"]) if path.exists() else 0


def wait(until: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_S
    while not until():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


def scaling(folder: Path, photos: Path, rounds: int) -> dict[str, dict[str, list[float]]]:
    """The same folder by one process of one core, by one node and by two."""
    from backend.config import Inspect

    arms: dict[str, dict[str, list[float]]] = {}
    for k in range(rounds):
        for name, count in (("folder, no cluster, 1 core", 0), ("folder, 1 node", 1), ("folder, 2 nodes", 2)):
            with _cluster(count > 0, count) as nodes:            # one after the other: two on one machine find each other
                with plant(folder / f"scaling-{k}-{name}", nodes.address if nodes else "", DIFFSPECT_CORES="1", OMP_NUM_THREADS="1"):
                    deployed()
                    run_id = submitted(Inspect(model="demo", images=str(photos), line="L1"))
                    began = time.monotonic()
                    ended(run_id)
                    arm = arms.setdefault(name, {"images/s": [], "s, whole run": []})
                    arm["images/s"].append(pace(run_id))
                    arm["s, whole run"].append(round(time.monotonic() - began, 1))
                    print(name, arm, flush=True)
    return arms


def pace(run_id: str) -> float:
    """Images a second between the first group of rows and the last, by when they were written: without the start of job and inspectors."""
    from backend import rundir

    parts = rundir.parts(rundir.run_path(run_id), "inspections")
    written = sorted((p.stat().st_mtime, rundir.read_part(p).num_rows) for p in parts)
    return round(sum(rows for _, rows in written[1:]) / (written[-1][0] - written[0][0]), 1)


def seeds(folder: Path) -> dict[str, dict[str, list[float]]]:
    """An experiment of two arms and three seeds, on this machine alone (one core) and on two nodes of one core."""
    from backend.config import DrawPlates, Experiment

    arms = json.dumps({"all": {"origin": "real"}, "few": {"origin": "real", "labels": 20}})
    found = {}
    for name, count in (("experiment, no cluster, 1 core", 0), ("experiment, 2 nodes", 2)):
        with _cluster(count > 0, count) as nodes, plant(folder / name, nodes.address if nodes else "", DIFFSPECT_CORES="1",
                                                        OMP_NUM_THREADS="1"):
            ended(submitted(DrawPlates(name="plates", train=60)))
            began = time.monotonic()
            ended(submitted(Experiment(dataset="plates", name="seeds", arms=arms, seeds=3, epochs=3, imgsz=96)))
            found[name] = {"s, whole run": [round(time.monotonic() - began, 1)], "trainings at once, most": [float(at_once())]}
    return found


def at_once() -> int:
    """How many trainings of the data folder went on at the same moment, at most."""
    from backend import rundir

    states = [rundir.read_json(path / "state.json") for path in rundir.find("train-detector")]
    return max(sum(s["started_at"] <= one["started_at"] < s["finished_at"] for s in states) for one in states)


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--images", type=int, default=3000)
    ap.add_argument("--kills", type=int, default=10)
    ap.add_argument("--rounds", type=int, default=3)
    a = ap.parse_args()
    with tempfile.TemporaryDirectory(prefix="diffspect-ray-") as scratch:
        folder = Path(scratch)
        photos = pictures(folder / "photos", a.images)
        arms = {"same results": same(folder, photos), "killed nodes": killed(folder, a.kills),
                **scaling(folder, photos, a.rounds), **seeds(folder)}
    print(json.dumps(arms, indent=1))
    write("ray", f"python -m tests.benchmarks.ray --images {a.images} --kills {a.kills} --rounds {a.rounds}", arms, [0],
          f"{a.images:,} drawn plates (JPEG), the demo model at 224 px; nodes of one core each on this one machine, beside a head without "
          "cores; images/s from the first picture to the last row, without the start of job and inspectors (seconds of the whole run are "
          "beside it). A killed node's processes are killed with it; the run goes on at another node from its last checkpoint.",
          ("ray", "pyarrow", "openvino", "ultralytics"))


if __name__ == "__main__":
    main()
