"""Run directories of the diffusion-teacher recipes as their workers leave them, written by hand: stages, curves, samples, fidelity."""

import io
import json
import math
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from backend import rundir
from backend.config import ProbeFeatures, TrainDiffusion, TrainDistilled

TITLES = {"diffusion": "Pre-train the diffusion model", "repository": "Build the feature repository", "backbone": "Teach the backbone",
          "fused": "Train the fused teacher", "student": "Train the student"}
SECONDS = {"diffusion": 1400.0, "repository": 420.0, "backbone": 610.0, "fused": 2900.0, "student": 3100.0}
FIGURES: dict[str, dict[str, float]] = {
    "diffusion": {"steps": 1000, "loss": 0.0412, "images": 1260, "parameters": 4_100_000},
    "repository": {"images": 1800, "ratio": 26.4, "cosine_val": 0.981}, "backbone": {"steps": 1600, "loss": 0.27},
    "fused": {"map50": 0.664, "map50_95": 0.33, "val_map50": 0.694, "epochs": 40},
    "student": {"map50": 0.651, "map50_95": 0.32, "val_map50": 0.681, "epochs": 40}}
CLASSES = ["crazing", "inclusion", "patches", "pitted_surface", "rolled-in_scale", "scratches"]


def guided(dataset: str, at: str = "fused", state: str = "running", reused: str = "", gate: float = 0.01, **more: Any) -> str:
    """A guided run that stands in stage `at`, or that is through; its id. `reused`: the run whose denoiser it took over."""
    path = rundir.create("train-distilled", TrainDistilled(dataset=dataset, name="Steel guided", **more).to_json())
    names, through = list(TITLES), state == "completed"
    listed = []
    for name in names:
        now = "done" if through or names.index(name) < names.index(at) else "running" if name == at else "waiting"
        now = "reused" if reused and name == "diffusion" else now
        listed.append(dict(name=name, title=TITLES[name], state=now, seconds=SECONDS[name] if now == "done" else None,
                           figures=FIGURES[name] if now in ("done", "reused") else {}, from_run=reused if now == "reused" else ""))
    rundir.write_json(path / "stages.json", listed)
    begun = [name for name in names if through or names.index(name) <= names.index(at)]
    curves = [p for name in begun if not (reused and name == "diffusion") for p in _curve(name, gate)]
    write_curves(path, curves)
    if not reused:
        rundir.write_bytes(path / "samples.png", samples())
    if through:
        rundir.write_json(path / "fidelity.json", fidelity())
        rundir.write_json(path / "result.json", dict(name="Steel guided"))
    rundir.write_json(path / "progress.json", dict(step=620, total=1000, message=f"{TITLES[at].lower()}, epoch 12", eta_s=1800.0))
    finish(path, state)
    return path.name


def finish(path: Path, state: str) -> None:
    begun = datetime.now(UTC) - timedelta(hours=2)
    ended = datetime.now(UTC).isoformat() if state in rundir.END_STATES else None
    rundir.set_state(path, state, started_at=begun.isoformat(), finished_at=ended)


def write_curves(path: Path, points: list[dict[str, float]]) -> None:
    (path / "metrics.jsonl").write_text("".join(json.dumps(p) + "\n" for p in points))


def _curve(stage: str, gate: float) -> list[dict[str, float]]:
    """A stage's lines: the run counts a thousand steps a stage, the stage its own."""
    lines = _lines(stage, gate)
    last, at = max(line["step"] for line in lines), 1000 * list(TITLES).index(stage)
    return [{"step": at + int(1000 * line["step"] / last), **{f"{stage}_{k}": v for k, v in line.items()}} for line in lines]


def _lines(stage: str, gate: float) -> list[dict[str, float]]:
    """As the stage's own recipe would write them."""
    if stage in ("diffusion", "backbone"):
        name = "denoising_loss" if stage == "diffusion" else "loss"
        return [{"step": s, name: 0.04 + 0.9 * math.exp(-s / 150)} for s in range(20, 1001, 20)]
    if stage == "repository":
        return [{"step": s, "resvae_loss": 0.03 + 0.5 * math.exp(-s / 200), "resvae_cosine": 0.98 - 0.5 * math.exp(-s / 200)}
                for s in range(20, 1501, 40)]
    epochs, gate_ = (12, gate) if stage == "fused" else (40, None)
    return [{"step": e, **detector(e, gate_, stage == "student")} for e in range(1, epochs + 1)]


def detector(epoch: int, gate: float | None = None, distilled: bool = False) -> dict[str, float]:
    """An epoch's points of a detector, as the trainer tells them."""
    falls = math.exp(-epoch / 12)
    found = dict(box_loss=0.8 + 2 * falls, cls_loss=0.6 + 3 * falls, dfl_loss=1 + falls, val_box_loss=0.9 + 2 * falls,
                 val_cls_loss=0.8 + 3 * falls, val_dfl_loss=1.1 + falls, map50=0.68 * (1 - falls), map50_95=0.34 * (1 - falls),
                 learning_rate=0.01 * (1 - epoch / 41))
    gates = {} if gate is None else {f"gate_{level}": gate * epoch / i for i, level in enumerate(("p3", "p4", "p5"), 1)}
    return {**found, **gates, **(dict(distill_loss=0.7 + 1.6 * falls, val_distill_loss=0.0) if distilled else {})}


def samples() -> bytes:
    noise = np.random.default_rng(0).normal(120, 18, (130, 394)).clip(0, 255).astype(np.uint8)
    data = io.BytesIO()
    Image.fromarray(noise).save(data, "PNG")
    return data.getvalue()


def fidelity() -> dict[str, Any]:
    ap = dict(zip(CLASSES, (0.41, 0.74, 0.9, 0.79, 0.52, 0.83), strict=True))
    return dict(levels=["P3", "P4", "P5"], classes=CLASSES, ap50=ap, images=180, split="val",
                cosine=[[round(0.35 + 0.5 * ap[c] - 0.05 * level, 3) for c in CLASSES] for level in range(3)])


def denoiser(dataset: str, name: str = "Steel DDPM", state: str = "completed", seconds: float = 1000.0, key: str = "0" * 16) -> str:
    """A finished diffusion model, as far as pages look at it."""
    path = rundir.create("train-diffusion", TrainDiffusion(dataset=dataset, name=name).to_json())
    (path / "denoiser").mkdir()
    rundir.write_json(path / "denoiser" / "head.json", dict(key=key, name=name, snapshot_id=dataset))
    rundir.write_bytes(path / "samples.png", samples())
    write_curves(path, [{"step": s, "denoising_loss": 1 / s} for s in (20, 40)])
    rundir.write_json(path / "result.json", dict(name=name, seconds=seconds))
    rundir.set_state(path, state, started_at="2026-01-01T00:00:00+00:00",
                     finished_at=(datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)).isoformat())
    return path.name


def ranking(dataset: str) -> str:
    """A finished `probe-features` run, with the numbers of the first experiment."""
    path = rundir.create("probe-features", ProbeFeatures(dataset=dataset, denoiser="Steel DDPM").to_json())
    rundir.write_json(path / "result.json", dict(
        timesteps=[5, 20, 50, 150, 300], blocks=[0, 1, 2, 3], together=[0.789, 0.791, 0.783, 0.76, 0.72],
        ap=[[0.637, 0.708, 0.714, 0.66], [0.64, 0.711, 0.716, 0.656], [0.627, 0.71, 0.719, 0.644], [0.583, 0.671, 0.663, 0.571],
            [0.518, 0.589, 0.579, 0.496]], best=dict(timestep=20, blocks="all", ap=0.791)))
    finish(path, "completed")
    return path.name
