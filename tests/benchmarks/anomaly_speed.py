"""How many pictures a second the anomaly model takes through the engine, against its bare forward pass, in turn.

    python -m tests.benchmarks.anomaly_speed --data FOLDER [--model NAME] [--rounds 8]

Whole: files on disk, decoded ahead by threads, fitted, mapped, scored, as `predict` does but for writing. Bare: the same network in the
engine's own runtime on one batch that is ready in memory, sent again and again, with as many requests in flight as the engine has.
Rounds of both follow one another, so that a slow minute is slow for both.
Without a model of that name in the folder one of two steps is trained: weights do not change the speed.
"""

import argparse
import os
import time
from collections.abc import Callable
from itertools import islice, repeat
from pathlib import Path

import numpy as np

from backend import rundir
from backend.data import files
from backend.device import cores
from backend.errors import NotFoundError
from backend.inspection import reading
from backend.inspection.anomaly_engine import AnomalyEngine, load_anomaly
from backend.inspection.inspect import MOST
from backend.inspection.predict import Maps
from tests.benchmarks.anomaly_arms import PARTS
from tests.benchmarks.record import product, write

PART, TRAINED = "magnetic-tile", "PA_BDP01_TL"
PICTURES = 64


def model(data: Path, name: str) -> Path:
    os.environ["DIFFSPECT_DATA"] = str(data)
    try:
        return rundir.find_model(name, "anomaly")
    except NotFoundError:
        root = PARTS[TRAINED]
        product(data, "import", str(root), "--name", TRAINED, "--splits", str(root / "splits"))
        product(data, "train-anomaly", "--dataset", TRAINED, "--name", name, "--source", "noise", "--steps", "2")
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
    return sum(map(len, engine.raw(repeat(batch, PICTURES // len(batch)))))


def rate(work: Callable[[], int]) -> float:
    began = time.perf_counter()
    done = work()
    return done / (time.perf_counter() - began)


def measured(engine: AnomalyEngine, rounds: int) -> dict[str, dict[str, list[float]]]:
    root = PARTS[PART]
    names = (root / "splits" / "test.txt").read_text().split()[::10][:PICTURES]
    with files.listing(root) as listed:
        wanted = set(names)
        entries = [e for e in listed if e.name in wanted]
        batch = np.random.default_rng(0).integers(0, 256, (engine.batch, engine.imgsz, engine.imgsz, 3), np.uint8)
        rates: dict[str, dict[str, list[float]]] = {kind: {"images a second": []} for kind in ("through the engine", "bare forward")}
        for turn in range(rounds + 1):
            pair = rate(lambda: whole(engine, entries)), rate(lambda: bare(engine, batch))
            for kind, value in zip(rates, pair, strict=True):
                rates[kind]["images a second"] += [round(value, 2)] if turn else []          # the first round warms up
    return rates


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--data", type=Path, required=True)
    ap.add_argument("--model", default="speed")
    ap.add_argument("--rounds", type=int, default=8)
    a = ap.parse_args()
    a.data.mkdir(parents=True, exist_ok=True)
    engine = load_anomaly(model(a.data.resolve(), a.model))
    arms = measured(engine, a.rounds)
    ratio = np.median(arms["through the engine"]["images a second"]) / np.median(arms["bare forward"]["images a second"])
    suffix = "-gpu" if "cuda" in engine.runtime else ""
    print(write(f"anomaly_speed{suffix}", f"python -m tests.benchmarks.anomaly_speed --data FOLDER --rounds {a.rounds}", arms, [],
                f"Magnetic tiles as JPEG files, network input {engine.imgsz} px, batches of {engine.batch}, {engine.runtime}, "
                f"{cores()} cores; {PICTURES} pictures a round, {a.rounds} rounds of both in turn. "
                f"Median through the engine / bare: {ratio:.2f}.",
                ("onnxruntime", "numpy", "opencv-python-headless", "pillow")))


if __name__ == "__main__":
    main()
