"""NEU-DET's features in a repository: how small, how true, how fast to read beside computing them anew.

    python -m tests.benchmarks.repository --data FOLDER [--steps 1500] [--diffusion-steps N] [--threads N]

Goes through the product: import, a `tiny` diffusion model, its repository. What FOLDER has of these already is used again.
"""

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from backend import rundir
from backend.data import images, snapshot
from backend.device import cores
from backend.diffusion import ddpm, features
from backend.teacher.repository import Repository
from tests.benchmarks.record import NEU, product, write

BATCH = 64                  # latents that a training step decodes: 16 images, each a mosaic of four


def prepared(data: Path, steps: int, diffusion_steps: int | None) -> dict[str, Any]:
    """Build what is missing; what the repository's run returned."""
    if not list((data / "runs").glob("*-import-*")):
        product(data, "import", str(NEU), "--name", "neu-det", "--splits", str(NEU / "splits"))
    if rundir.find_artifact("denoiser") is None:
        more = () if diffusion_steps is None else ("--steps", str(diffusion_steps))
        product(data, "train-diffusion", "--dataset", "neu-det", "--name", "ddpm", *more)
    if rundir.find_artifact("repository") is None:
        product(data, "build-repository", "--dataset", "neu-det", "--name", "features", "--steps", str(steps))
    folder = rundir.find_artifact("repository")
    assert folder is not None, "the command above made it"
    return {"folder": folder, **rundir.read_json(folder.parent / "result.json")}


def seconds(do: Callable[[], Any], repeats: int = 10) -> float:
    """Median time of one call, after a first one that does not count."""
    do()
    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        do()
        taken.append(time.perf_counter() - began)
    return median(taken)


def measured(folder: Path) -> dict[str, float]:
    """Seconds per image to read, to read and decode, to compute anew."""
    kept, rng = Repository.open(folder), np.random.default_rng(0)

    def read() -> np.ndarray:
        return kept.rows([kept.image_ids[i] for i in rng.integers(len(kept.image_ids), size=BATCH)])

    opened, reading = seconds(lambda: Repository.open(folder), 3), seconds(read, 50) / BATCH
    decoding = seconds(lambda: kept.decode(torch.from_numpy(read()))) / BATCH
    online = seconds(online_features(kept), 5) / 8
    return {"images read a second": 1 / reading, "read + decode, ms an image": 1e3 * decoding, "computed anew, ms an image": 1e3 * online,
            "anew / read + decode": online / decoding, "open and verify, s": opened}


def online_features(kept: Repository) -> Callable[[], Any]:
    """What a training without repository would do for each image, here for eight; decoding the file is not counted."""
    denoiser = ddpm.load(rundir.find_artifact("denoiser", kept.head["denoiser"]))
    taps = features.Taps(tuple(kept.head["timesteps"]), tuple(kept.head["blocks"]))
    data = snapshot.read(rundir.find_snapshot(kept.head["snapshot_id"]))
    opened = [images.load(p.image_id) for p in data.pictures[:8]]
    return lambda: features.extract(denoiser, torch.stack([features.prepared(denoiser, i, kept.head["side"])[0] for i in opened]),
                                    taps, kept.grid)


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--data", type=Path, required=True)
    ap.add_argument("--steps", type=int, default=1500)
    ap.add_argument("--diffusion-steps", type=int)
    ap.add_argument("--threads", type=int, default=cores())
    a = ap.parse_args()
    a.data.mkdir(parents=True, exist_ok=True)
    os.environ["DIFFSPECT_DATA"] = str(a.data.resolve())
    torch.set_num_threads(a.threads)
    built = prepared(a.data.resolve(), a.steps, a.diffusion_steps)
    folder = built["folder"]
    denoiser = rundir.read_json(rundir.find_artifact("denoiser", rundir.read_json(folder / "head.json")["denoiser"]) / "head.json")
    arm = {"KiB an image": built["kib_per_image"], "times smaller, on the grid": built["ratio"],
           "times smaller, as the blocks give it": built["ratio_native"], "cosine on train": built["cosine_train"],
           "cosine on val": built["cosine_val"], "linear, on val": built["cosine_pca_val"], "s to build": built["seconds"],
           **measured(folder)}
    write("repository", f"python -m tests.benchmarks.repository --data FOLDER --steps {a.steps}",
          {f"ResVAE, {a.steps} steps": {k: [v] for k, v in arm.items()}}, [0],
          f"NEU-DET, {built['images']:,} pictures; all blocks at t = 20 of a tiny diffusion model after {denoiser['steps']:,} steps; "
          f"batches of {BATCH}, {a.threads} threads, the file in memory. Cosine between standardised features and what comes back of them.",
          ("torch", "diffusers", "safetensors", "numpy"))
    print(arm)


if __name__ == "__main__":
    main()
