"""How many defects a second the DDPM route makes: pictures of 128 px, ten steps, the preset `tiny`.

    python -m tests.benchmarks.perturbation --data FOLDER [--count 60] [--rounds 5]

On a kind of PIPED, whose pictures have that size. Whole: `synthesize` as the product runs it, masks, windows, blending, files, and tries
that were rejected, without the start of its process. Bare: as many pictures, whole, through the denoiser's ten forwards, as many at once
as the product takes. Rounds of both follow one another, so that a slow minute is slow for both. The denoiser is trained where it is
missing, for a few steps: weights do not change a forward's speed, but may how many tries are rejected.
"""

import argparse
import os
import time
from pathlib import Path

import numpy as np
import torch

from backend import rundir
from backend.config import Synthesize
from backend.data import snapshot
from backend.device import computes_bf16, cores
from backend.diffusion import ddpm
from backend.errors import NotFoundError
from backend.synthesis.filling import FORWARD
from backend.synthesis.perturb import perturb
from tests.benchmarks.anomaly_arms import PARTS
from tests.benchmarks.record import product, write

PART, SIDE, STEPS = "PA_BFT01_TL", 128, 10
TRAINED = 150                    # steps of a denoiser that is missing
AIM = 4.0                        # pictures a second on two cores
WHOLE, BARE = "synthesize", "bare denoiser"
Rates = dict[str, dict[str, list[float]]]


def denoiser(data: Path) -> ddpm.Denoiser:
    """A denoiser of the part in this data folder, made where there is none."""
    os.environ["DIFFSPECT_DATA"] = str(data)
    try:
        found = rundir.find_snapshot(PART)
    except NotFoundError:
        root = PARTS[PART]
        product(data, "import", str(root), "--name", PART, "--splits", str(root / "splits"))
        found = rundir.find_snapshot(PART)
    if rundir.find_artifact("denoiser", snapshot_id=snapshot.read(found).snapshot_id) is None:
        product(data, "train-diffusion", "--dataset", PART, "--name", f"{PART} ddpm", "--preset", "tiny", "--steps", str(TRAINED))
    folder = rundir.find_artifact("denoiser", snapshot_id=snapshot.read(found).snapshot_id)
    assert folder is not None
    return ddpm.load(folder)


def whole(data: Path, model: ddpm.Denoiser, count: int, seed: int) -> float:
    """Pictures a second, as the run tells it."""
    told = product(data, "synthesize", "--dataset", PART, "--method", "perturb", "--source", "ddpm", "--denoiser", model.head["name"],
                   "--count", str(count), "--steps", str(STEPS), "--seed", str(seed), "--name", f"speed {seed} {time.time():.0f}")
    return float(told["result"]["images_per_second"])


def bare(model: ddpm.Denoiser, count: int, seed: int) -> float:
    """Pictures a second, noised to the depth that the product takes, and back in ten forwards."""
    torch.set_num_threads(cores())
    generator, depth = torch.Generator().manual_seed(seed), Synthesize().depth
    most, images = max(1, FORWARD // SIDE**2), torch.rand(count, model.channels, SIDE, SIDE, generator=generator) * 2 - 1
    began = time.perf_counter()
    for first in range(0, count, most):
        perturb(model, images[first:first + most], generator, steps=STEPS, depth=depth, variance=0.1)
    return count / (time.perf_counter() - began)


def told(rates: Rates) -> str:
    """How near the whole comes to the bare denoiser, and whether the aim is reached."""
    middle = {name: float(np.median(values["images a second"])) for name, values in rates.items()}
    how = "reached" if middle[WHOLE] >= AIM else "not reached"
    return (f"Median of the ratio whole / bare: {np.median(np.divide(*(rates[n]['images a second'] for n in (WHOLE, BARE)))):.2f}; the "
            f"product draws a window around each mask, half the pixels on average. Aim, {AIM:g} pictures a second on two cores: {how}.")


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--data", type=Path, required=True)
    ap.add_argument("--count", type=int, default=60)
    ap.add_argument("--rounds", type=int, default=5)
    a = ap.parse_args()
    a.data.mkdir(parents=True, exist_ok=True)
    data = a.data.resolve()
    model, rates = denoiser(data), {name: {"images a second": list[float]()} for name in (WHOLE, BARE)}
    for turn in range(a.rounds + 1):
        pair = {WHOLE: whole(data, model, a.count, turn), BARE: bare(model, a.count, turn)}
        for name, value in pair.items():
            rates[name]["images a second"] += [round(value, 2)] if turn else []                     # the first round warms up
    print(write("perturbation", f"python -m tests.benchmarks.perturbation --data FOLDER --count {a.count} --rounds {a.rounds}", rates, [],
                notes(model, a.count, a.rounds, rates), ("torch", "diffusers", "numpy", "opencv-python-headless", "pillow")))


def notes(model: ddpm.Denoiser, count: int, rounds: int, rates: Rates) -> str:
    return (f"{PART}, pictures of {SIDE} px, {STEPS} steps, preset {model.head['preset']}, {cores()} cores, in "
            f"{'bf16' if computes_bf16() else 'float32'}; {count} pictures a round, {rounds} rounds of both in turn. {told(rates)}")


if __name__ == "__main__":
    main()
