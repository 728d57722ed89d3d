"""How many pictures a second the anomaly model takes through the engine, against its bare forward pass, in turn.

    python -m tests.benchmarks.anomaly_speed --data FOLDER [--rounds 8] [--runtimes auto onnxruntime-cpu]

Of a model with a memory of patches, as the default is, and of one without. Whole: files on disk, decoded ahead by threads, fitted,
mapped, scored, as `predict` does but for writing. Bare: the same network in the engine's own runtime on one batch that is ready in
memory, sent again and again, with as many requests in flight as the engine has.
Rounds of both follow one another, so that a slow minute is slow for both.
What is missing in the folder is trained, in two steps: weights do not change the speed.
"""

import argparse
import os
import time
from collections.abc import Callable
from functools import partial
from itertools import islice, repeat
from pathlib import Path

import numpy as np

from backend import rundir
from backend.data import files
from backend.device import REFERENCE, cores
from backend.errors import NotFoundError
from backend.inspection import reading
from backend.inspection.anomaly_engine import AnomalyEngine
from backend.inspection.inspect import MOST
from backend.inspection.predict import Maps
from tests.benchmarks.anomaly_arms import PARTS
from tests.benchmarks.record import product, write

PART, TRAINED = "magnetic-tile", "PA_BDP01_TL"
PICTURES, BATCHES = 64, 8                # at least, of a round
AIM = 60                                # images a second on two cores
MODELS = {"default": (), "without memory": ("--memory", "0")}
KINDS = ("through the engine", "bare forward")
Rates = dict[str, dict[str, list[float]]]


def model(data: Path, name: str) -> Path:
    os.environ["DIFFSPECT_DATA"] = str(data)
    try:
        return rundir.find_model(name, "anomaly")
    except NotFoundError:
        root = PARTS[TRAINED]
        product(data, "import", str(root), "--name", TRAINED, "--splits", str(root / "splits"))
        product(data, "train-anomaly", "--dataset", TRAINED, "--name", name, "--source", "noise", "--steps", "2", *MODELS[name])
        return rundir.find_model(name, "anomaly")


def whole(engine: AnomalyEngine, entries: list[files.Entry | files.Refusal]) -> int:
    """Pictures that got a map and a score."""
    done = 0
    with reading.pictures(entries, Maps(engine, Path())) as found:
        while group := [p.prepared.pixels for p in islice(found, MOST) if isinstance(p, reading.Picture)]:
            done += len(engine.scores(engine.maps(group)))
    return done


def bare(engine: AnomalyEngine, batch: np.ndarray) -> int:
    """Pictures whose maps were made, in one stream: a stream of one batch would have one request in flight."""
    return sum(map(len, engine.raw(repeat(batch, max(BATCHES, PICTURES // len(batch))))))


def rate(work: Callable[[], int]) -> float:
    began = time.perf_counter()
    done = work()
    return done / (time.perf_counter() - began)


def measured(engines: dict[str, AnomalyEngine], rounds: int) -> Rates:
    root = PARTS[PART]
    names = (root / "splits" / "test.txt").read_text().split()[::10]
    rates: Rates = {f"{name}, {kind}": {"images a second": []} for name in engines for kind in KINDS}
    with files.listing(root) as listed:
        wanted = set(names)
        entries = [e for e in listed if e.name in wanted]
        for turn in range(rounds + 1):
            for name, engine in engines.items():
                some = entries[:max(PICTURES, min(len(entries), BATCHES * engine.batch))]
                batch = np.random.default_rng(0).integers(0, 256, (engine.batch, engine.imgsz, engine.imgsz, 3), np.uint8)
                pair = rate(partial(whole, engine, some)), rate(partial(bare, engine, batch))
                for kind, value in zip(KINDS, pair, strict=True):
                    rates[f"{name}, {kind}"]["images a second"] += [round(value, 2)] if turn else []          # the first round warms up
    return rates


def told(arms: Rates) -> str:
    """How near the engine comes to the bare pass, and whether the aim is reached."""
    middle = {name: float(np.median(values["images a second"])) for name, values in arms.items()}
    names = list(dict.fromkeys(name.rpartition(", ")[0] for name in arms))
    ratios = "; ".join(f"{name} {middle[f'{name}, {KINDS[0]}'] / middle[f'{name}, {KINDS[1]}']:.2f}" for name in names)
    best = max(names, key=lambda name: middle[f"{name}, {KINDS[0]}"])
    how = "reached" if middle[f"{best}, {KINDS[0]}"] >= AIM else "not reached"
    return f"Median through the engine / bare: {ratios}. Aim, {AIM} images a second on two cores: {how} (fastest: {best})."


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--data", type=Path, required=True)
    ap.add_argument("--rounds", type=int, default=8)
    ap.add_argument("--runtimes", nargs="+", default=["auto", REFERENCE])
    a = ap.parse_args()
    a.data.mkdir(parents=True, exist_ok=True)
    opened = [(name, AnomalyEngine(model(a.data.resolve(), name), runtime)) for runtime in a.runtimes for name in MODELS]
    engines = {f"{name}, {engine.runtime.split()[0]}": engine for name, engine in opened}
    arms, first = measured(engines, a.rounds), opened[0][1]
    suffix = "-gpu" if "cuda" in first.runtime else ""
    batches = ", ".join(f"{engine.runtime} {engine.batch}" for engine in {e.runtime: e for _, e in opened}.values())
    print(write(f"anomaly_speed{suffix}", f"python -m tests.benchmarks.anomaly_speed --data FOLDER --rounds {a.rounds}", arms, [],
                f"Magnetic tiles as JPEG files, network input {first.imgsz} px, {cores()} cores, images a batch: {batches}; at least "
                f"{PICTURES} pictures a round, {a.rounds} rounds of all in turn. {told(arms)}",
                ("openvino", "onnxruntime", "numpy", "opencv-python-headless", "pillow")))


if __name__ == "__main__":
    main()
