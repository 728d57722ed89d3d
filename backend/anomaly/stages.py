"""What defects of the source `ddpm` need before training can begin: a denoiser, and images it has perturbed.

Both are artifacts: one that is there is used again, and the run says whose. Stands before `learn`; `train` calls it.
Knows nothing of networks that look for defects.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from backend import rundir
from backend.config import TrainAnomaly, TrainDiffusion
from backend.data.normals import divided
from backend.data.snapshot import Picture, Snapshot
from backend.diffusion import ddpm
from backend.errors import ConfigError
from backend.synthesis import pool

SEED = 0                 # of which images are perturbed, and how
PERTURBED = dict(steps=10, depth=500, variance=1.0, start="image")           # as `synthesize` makes them
STEPS = 2                # of training take about as long as one perturbed image (2.4 and 1.2 core seconds): for the progress only


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
    """The one that is named, else one of these settings, by whichever run, else a new one. Raises ConfigError, NotFoundError."""
    if not diffuses(config):
        return None
    known = len(divided(data)[0])            # what `good` stands for, which it has not always: once near-duplicates of test were in it
    if config.denoiser:
        return _noted("denoiser", _named(config.denoiser, data, known), run_dir, reused)
    lesson = TrainDiffusion(dataset=data.snapshot_id, name=config.name, preset=config.preset, steps=config.diffusion_steps,
                            precision=config.precision, good=True)
    if found := rundir.find_artifact("denoiser", key=ddpm.key(lesson, data.snapshot_id), images=known):
        return _noted("denoiser", found, run_dir, reused)
    ddpm.make(lesson, data, run_dir, plan.stage("diffusion", lesson.steps or ddpm.PRESETS[lesson.preset].steps))
    return run_dir / "denoiser"


def diffuses(config: TrainAnomaly) -> bool:
    """Does it take a diffusion model?"""
    return config.source in ("ddpm", "mixed") or config.teacher == "ddpm"


def _named(name: str, data: Snapshot, known: int) -> Path:
    """One that knows neither labelled defects nor held-out images: else the model would learn from both, through its pictures."""
    found = ddpm.find(name, data, good=True)
    head = rundir.read_json(found / "head.json")
    if not head.get("good"):
        raise ConfigError(f"The diffusion model {name!r} was not trained on good images only: it may have learned labelled defects, or "
                          "images that the threshold is set by. Name one that was trained with the setting 'good', or none.")
    if head.get("images") != known:
        raise ConfigError(f"The diffusion model {name!r} has learned from {head.get('images')} images, and {known} are good and resemble "
                          "none of val or test: an earlier version did not leave those out. Train it again, or name none.")
    return found


def marked(config: TrainAnomaly, train: list[Picture]) -> list[int]:
    """Which of these images a pool would have, whether or not one is made: those that defects of one source alone lie on."""
    ids = {p.image_id for p in pool.chosen_of(train, config.perturbed, SEED)}
    return [i for i, p in enumerate(train) if p.image_id in ids]


def perturbed(config: TrainAnomaly, data: Snapshot, train: list[Picture], maker: Path | None, run_dir: Path, plan: Plan,
              reused: dict[str, str]) -> Path | None:
    """The pool of perturbed train images."""
    if maker is None or config.source not in ("ddpm", "mixed"):
        return None
    found = pool.make(maker, data, run_dir, plan.stage("perturbing", STEPS * config.perturbed), count=config.perturbed,
                      imgsz=config.imgsz, seed=SEED, good=train, **PERTURBED)           # type: ignore[arg-type]
    return _noted("perturbed", found, run_dir, reused)


def _noted(kind: str, folder: Path, run_dir: Path, reused: dict[str, str]) -> Path:
    if folder.parent != run_dir:
        reused[kind] = folder.parent.name
        print(f"The {kind} of {folder.parent.name} is used again.", flush=True)
    return folder
