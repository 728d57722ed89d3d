"""The recipe `train-distilled`: all stages from a dataset to a distilled student, as one run that can be stopped and taken up.

    diffusion → repository → backbone → fused → student

Each stage leaves an artifact that follows from its key; one made before, by any run, is reused. How far it is stands in
`<run>/stages.json`; curves carry the stage's name in front, and `<stage>_step`. Knows nothing of how a stage works.
"""

import json
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Any

from backend import rundir
from backend.config import BuildRepository, Distill, TeachBackbone, TrainDetector, TrainDiffusion, TrainDistilled, TrainFused
from backend.data import leaks, shares, snapshot
from backend.data.shares import Share
from backend.detection import distill, fidelity, fuse, start, teach, train
from backend.diffusion import ddpm
from backend.errors import ConfigError, DiffspectError
from backend.teacher import repository

TITLES = {"diffusion": "Pre-train the diffusion model", "repository": "Build the feature repository", "backbone": "Teach the backbone",
          "fused": "Train the fused teacher", "student": "Train the student"}
SHARED = tuple(TrainDetector.__dataclass_fields__)           # settings that the detectors' trainings have in common
READ, FUSED = ("timesteps", "blocks"), ("spectral_filter", "dynamic")          # settings of one stage each
SIZES = {"n": 1.0, "s": 3.2, "m": 10.0}                      # work of the networks, in YOLO11n


class Stages:
    """The stages of one run, in order, and the report of each."""

    def __init__(self, work: dict[str, int], run_dir: Path, report: Any) -> None:
        self.names, self.run_dir, self.report = list(work), run_dir, report
        self.ends = dict(zip(work, accumulate(work.values()), strict=True))
        self.work, self.total = work, sum(work.values())
        path = run_dir / "stages.json"
        before = {row["name"]: row for row in rundir.read_json(path)} if path.exists() else {}
        fresh: dict[str, Any] = dict(state="waiting", seconds=None, figures={}, from_run="")
        self.rows = [dict(name=n, title=TITLES[n], **{k: before.get(n, fresh)[k] for k in fresh}) for n in self.names]
        self.told = _told(run_dir / "metrics.jsonl")
        self._write()

    def go(self, name: str, kind: str, key: str, make: Callable[[Any], dict[str, Any]],
           find: Callable[[str], Path | None] | None = None) -> Path:
        """The artifact of a stage: one that is there, or a new one. `find` looks for it by its key, where not every one will do."""
        row = self.rows[self.names.index(name)]
        found = find(key) if find else rundir.find_artifact(kind, key)
        if found is not None:
            own, head = found.parent == self.run_dir, rundir.read_json(found / "head.json")
            told = head.get("result", head)                            # killed before it was told, its own stage took its time all the same
            self._set(row, state="done" if own else "reused", from_run="" if own else found.parent.name,
                      seconds=row["seconds"] or (told.get("seconds") if own else None), figures=row["figures"] or _numbers(told))
            return found
        self.last(name, make)
        made = self.run_dir / kind                                     # the newest of this key may be another run's, damaged
        assert rundir.own_result(self.run_dir, kind, key) is not None, f"the stage {name} leaves what it promised"
        return made

    def last(self, name: str, make: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        """Carry out a stage; its result."""
        row = self.rows[self.names.index(name)]
        self._set(row, state="running")
        result = make(self._report(name))
        self._set(row, state="done", seconds=result.get("seconds"), figures=_numbers(result))
        return result

    def _report(self, name: str) -> Callable[..., None]:
        end, work = self.ends[name], self.work[name]

        def report(*, step: int, total: int, message: str = "", **metrics: float) -> None:
            done = end - work + int(work * step / max(1, total))
            new = metrics if metrics and (name, step) not in self.told else {}
            if new:
                self.told.add((name, step))
                new = {f"{name}_{k}": v for k, v in metrics.items()} | {f"{name}_step": step}
            self.report(step=min(done, end - 1), total=self.total, message=f"{TITLES[name]}: {message}", **new)

        return report

    def _set(self, row: dict[str, Any], **changes: Any) -> None:
        row.update(changes)
        self._write()

    def _write(self) -> None:
        rundir.write_json(self.run_dir / "stages.json", self.rows)


def _numbers(result: dict[str, Any]) -> dict[str, float]:
    return {k: v for k, v in result.items() if isinstance(v, (int, float)) and not isinstance(v, bool)}


def _told(path: Path) -> set[tuple[str, int]]:
    """(stage, its step) of every point of a curve so far."""
    lines = map(json.loads, path.read_text().splitlines()) if path.exists() else ()
    return {(k.removesuffix("_step"), int(v)) for line in lines for k, v in line.items() if k.endswith("_step")}


def run(config: TrainDistilled, run_dir: Path, report: Any) -> dict[str, Any]:
    train.check_settings(config)
    snapshot_run = rundir.taken_snapshot(run_dir, config.dataset)
    data = snapshot.read(snapshot_run)
    if not config.teach and not config.distill:
        raise ConfigError("Without teaching and without distilling nothing of the diffusion model reaches the detector.")
    if config.teach and (config.backbone or config.weights):
        raise ConfigError("A backbone that is taught takes the place of one that training would start from. Switch teaching off, or start "
                          "from nothing.")
    leaks.refuse(data.pictures)                                            # before hours of work, not after
    config = start.settle(config, data.snapshot_id, {p.image_id: p.split for p in data.pictures})
    share = Share.of(config)
    train.refuse_few(data, share)
    shown = shares.tally(data.by_split("train"), share).shown
    stages = Stages(work(config, len(data.pictures), shown), run_dir, report)
    # seed 0 up to the backbone, so that a student of another seed reuses it
    about: dict[str, Any] = dict(dataset=data.snapshot_id, name=config.name)

    # what the images are, without labels
    diffusion = TrainDiffusion(**about, preset=config.preset, steps=config.diffusion_steps, precision=config.precision)
    denoiser = stages.go("diffusion", "denoiser", ddpm.key(diffusion, data.snapshot_id),
                         lambda r: ddpm.make(diffusion, data, run_dir, r))

    # what the diffusion model sees in each of them
    build = BuildRepository(**about, denoiser=denoiser.parent.name, steps=config.repository_steps, **_of(config, READ))
    built = stages.go("repository", "repository", repository.key(build, rundir.read_json(denoiser / "head.json")["key"]),
                      lambda r: repository.make(build, data, denoiser, run_dir, r), repository.whole)
    built_key = rundir.read_json(built / "head.json")["key"]

    # a backbone that sees it too
    shared = _of(config, SHARED) | about
    if config.teach:
        lesson = TeachBackbone(**about, steps=config.teach_steps, imgsz=config.imgsz, size=config.size, precision=config.precision)
        backbone = stages.go("backbone", "backbone", teach.key(lesson, built_key), lambda r: teach.make(lesson, data, built, run_dir, r))
        shared["backbone"] = backbone.parent.name

    # a detector that reads it, and a light one that learns from both
    if config.distill:
        fusing = TrainFused(**shared, repository=built.parent.name, **_of(config, FUSED))
        teacher = stages.go("fused", "fused", fuse.key(fusing, data.snapshot_id, built_key), lambda r: fuse.make(
            fusing, fuse.laid(fusing, snapshot_run, built, run_dir), built, run_dir, r))
        follows = str(rundir.read_json(teacher / "head.json")["key"])
    material = train.from_snapshot(snapshot_run, run_dir / "training" / "data", share, follows if config.distill else "")
    how: dict[str, Any] = dict(loss=config.neck_loss, weight=config.distill_weight, logit_weight=config.logit_weight)
    result = stages.last("student", lambda r: distill.make(Distill(**shared, **how), material, teacher, run_dir, r) if config.distill else
                         train.make(TrainDetector(**shared), material, run_dir, r))

    # how well the student holds what the diffusion model sees
    _look_at(run_dir, data, built, lambda step, total, message: report(step=stages.total, total=stages.total, message=message))
    return dict(result, seconds=round(sum(row["seconds"] or 0 for row in stages.rows), 1))


def _of(config: TrainDistilled, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(config, name) for name in names}


def _look_at(run_dir: Path, data: snapshot.Snapshot, built: Path, report: Any) -> None:
    """Fidelity is a view, not a result: where it cannot be had, the finished student stands all the same."""
    try:
        fidelity.write(run_dir, data, built, report)
    except (RuntimeError, ValueError, DiffspectError) as problem:
        print(f"The fidelity of the student could not be measured: {problem}", flush=True)


def work(config: TrainDistilled, images: int, shown: int) -> dict[str, int]:
    """The stages that these settings ask for, and about how many core seconds each is: the steps of the run's progress."""
    preset, network = ddpm.PRESETS[config.preset], SIZES[config.size] * (config.imgsz / 224) ** 2
    crop = 1.5 if config.preset == "base" else 0.09
    epoch = 0.08 * shown * network
    found = dict(diffusion=crop * (config.diffusion_steps or preset.steps) * preset.batch,
                 repository=0.2 * images + 0.3 * config.repository_steps,
                 backbone=0.045 * config.teach_steps * TeachBackbone().batch * network if config.teach else 0,
                 fused=1.5 * epoch * config.epochs if config.distill else 0,
                 student=(1.6 if config.distill else 1.0) * epoch * config.epochs)
    return {name: 1 + round(seconds) for name, seconds in found.items() if seconds}
