"""What defects of the source `ddpm` need before training can begin: a denoiser, and images it has perturbed.

Both are artifacts: one that is there is used again, and the run says whose. Stands before `learn`; `train` calls it.
Knows nothing of networks that look for defects.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from backend.config import TrainAnomaly, TrainDiffusion
from backend.data.snapshot import Picture, Snapshot
from backend.diffusion import ddpm
from backend.errors import NotFoundError
from backend.synthesis import pool

PERTURBED = dict(steps=10, depth=500, variance=1.0, start="image")           # as `synthesize` makes them
PER_STEP = 4             # perturbed images that take about as long as a training step: for the progress only


class Plan:
    """One progress for all stages: a stage that must be carried out puts its work before that of training."""

    def __init__(self, config: TrainAnomaly, report: Any) -> None:
        self.config, self.report, self.done = config, report, 0

    def stage(self, prefix: str, work: int) -> Callable[..., None]:
        start = self.done
        self.done += work

        def report(*, step: int, total: int, message: str = "", **metrics: float) -> None:
            self.report(step=start + int(work * step / max(1, total)), total=start + work + self.config.steps, message=message,
                        **{f"{prefix}_{k}": v for k, v in metrics.items()})

        return report

    def last(self, work: int) -> Callable[..., None]:
        start = self.done

        def report(*, step: int, total: int, message: str = "", **metrics: float) -> None:
            self.report(step=start + step, total=start + work, message=message, **metrics)

        return report


def denoiser(config: TrainAnomaly, data: Snapshot, run_dir: Path, plan: Plan, reused: dict[str, str]) -> Path | None:
    """The one that is named, else this run's own, else the newest of this dataset, else a new one."""
    if config.source not in ("ddpm", "mixed") and config.teacher != "ddpm":
        return None
    lesson = TrainDiffusion(dataset=data.snapshot_id, name=config.name, preset=config.preset, steps=config.diffusion_steps,
                            precision=config.precision)
    own = run_dir / "denoiser"
    try:
        found = own if not config.denoiser and (own / "head.json").exists() else ddpm.find(config.denoiser, data)
    except NotFoundError:
        if config.denoiser:
            raise
        ddpm.make(lesson, data, run_dir, plan.stage("diffusion", lesson.steps or ddpm.PRESETS[lesson.preset].steps))
        return own
    return _noted("denoiser", found, run_dir, reused)


def perturbed(config: TrainAnomaly, data: Snapshot, train: list[Picture], maker: Path | None, run_dir: Path, plan: Plan,
              reused: dict[str, str]) -> Path | None:
    """The pool of perturbed train images."""
    if maker is None or config.source not in ("ddpm", "mixed"):
        return None
    found = pool.make(maker, data, run_dir, plan.stage("perturbing", -(-config.perturbed // PER_STEP)), count=config.perturbed,
                      imgsz=config.imgsz, seed=0, good=train, **PERTURBED)           # type: ignore[arg-type]
    return _noted("perturbed", found, run_dir, reused)


def _noted(kind: str, folder: Path, run_dir: Path, reused: dict[str, str]) -> Path:
    if folder.parent != run_dir:
        reused[kind] = folder.parent.name
        print(f"The {kind} of {folder.parent.name} is used again.", flush=True)
    return folder
