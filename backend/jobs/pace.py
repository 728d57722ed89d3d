"""How long a run will take on this machine: from the pace of runs that finished here, else by a rule of thumb.

One model of work serves both: `work` guesses core seconds from what a config asks for, and finished runs say how far off
the guess is on this machine. A guided run is the sum of its stages, each estimated like a run of its own or nothing where it
is there already, and each of its finished stages is a pace for the next. From files alone; knows nothing of processes or networks.
"""

import dataclasses
import statistics
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

from backend import rundir
from backend.config import (
    RECIPES,
    BuildRepository,
    Compare,
    Config,
    Distill,
    Experiment,
    ProbeFeatures,
    Shadow,
    TeachBackbone,
    TrainAnomaly,
    TrainDetector,
    TrainDiffusion,
    TrainDistilled,
    TrainFused,
)
from backend.device import cores
from backend.errors import ConfigError, DiffspectError
from backend.jobs import arms, generation, holdings, recipes, reuse

START_S = 10.0                          # until a worker has loaded its libraries
LATEST, LOOKED = 5, 50                  # finished runs that count, and among how many they are looked for
NVIDIA = Path("/proc/driver/nvidia/version")      # where it is, core seconds say nothing about training

# Core seconds, guessed for a core of 2020. YOLO11n at 224 px is 0.8 GFLOP forward and three times that to train.
FILE_S = {"inspect": 0.06, "predict": 0.06, "shadow": 0.06, "import": 0.02}
PASS_S = 0.08                           # an image of 224 px, once through training
FUSED, DISTILLED = 1.35, 1.35           # times a plain pass: features are decoded, warped and attended to; the teacher looks too
SIZES = {"n": 1.0, "s": 3.2, "m": 10.0}
FEATURES_S = 0.2                        # an image of 256 px through the tiny network, at one timestep
FIT_S = 0.3                             # a step of the compressing network
TAUGHT_S = 0.045                        # an image of 224 px, forward and back through a backbone alone
READER_S = 4.0                          # fitting one linear reader
LEARNT_S = 0.08                         # an image of 256 px, once through training of an anomaly model
COMPARED_S = 0.1                        # a run of a comparison: a thousand draws of 360 test images; measured

# preset -> steps, crops a step, core seconds a crop; the first two are those of `diffusion.ddpm`, which is too heavy to import
PRESETS = {"tiny": (1_000, 32, 0.09), "small": (4_000, 32, 0.09), "base": (30_000, 128, 1.5)}

# Where nothing of a recipe's own has finished yet, the pace of its kin counts.
KIN = {"train-fused": ("train-detector",), "distill": ("train-detector",), "train-detector": ("distill", "train-fused"),
       "shadow": ("inspect",)}


def estimate(config: Config) -> float | None:
    """Seconds a run will take, in all; None where the size of the work or the pace is unknown."""
    if isinstance(config, TrainDistilled):
        return _sum(estimate_stages(config).values())
    if isinstance(config, Experiment):
        return _experiment(config)
    amount, recipe = work(config), recipes.name_of(config)
    if amount is None:
        return None
    found = next((p for r in (recipe, *KIN.get(recipe, ())) if (p := paces(r, config))), [])
    if found:
        return round(statistics.median(found) * amount, 1)
    return None if recipes.lane(recipe) == "heavy" and NVIDIA.exists() else round(START_S + amount / cores(), 1)


def estimate_stages(config: TrainDistilled, made: frozenset[str] = frozenset()) -> dict[str, float | None]:
    """Seconds for each stage of a guided run, in its order; 0 for one that is there already, or has its key among `made`, and will be
    reused."""
    asked = stages(config)
    try:
        there = reuse.there(config, asked) | {name for name, key in reuse.keys_of(config, asked).items() if key in made}
    except (DiffspectError, OSError):
        there = set()
    return {name: 0.0 if name in there else estimate(stage) for name, stage in asked.items()}


def estimate_all(configs: Iterable[Config]) -> Iterator[float | None]:
    """Seconds of each of these runs, carried out one after the other: a stage that one makes, the next ones reuse."""
    made, known = frozenset[str](), dict[str, float | None]()
    for config in configs:
        if not isinstance(config, TrainDistilled):                            # takes as long with any seed
            alike = rundir.key_of(kind=type(config).__name__, **config.to_json() | dict(name="", seed=0))
            known[alike] = known[alike] if alike in known else estimate(config)
            yield known[alike]
            continue
        yield _sum(estimate_stages(config, made).values())
        with suppress(DiffspectError, OSError):
            made |= set(reuse.keys_of(config, stages(config)).values())


def _experiment(config: Experiment) -> float | None:
    try:
        there = holdings.expected(config)
        asked = [c for _, _, c in arms.trainings(config, arms.planned(config, there)[0], there)]
    except (DiffspectError, OSError):
        return None
    return _sum([*estimate_all(asked), COMPARED_S * len(asked)])


def _sum(parts: Iterable[float | None]) -> float | None:
    """Seconds of all; None where one is unknown."""
    known = list(parts)
    return None if None in known else round(sum(p for p in known if p is not None), 1)


def stages(config: TrainDistilled) -> dict[str, Config]:
    """What a guided run asks of each stage, as `detection.guided` does: seed 0 up to the backbone. Only what it points to is left out."""
    common: dict[str, Any] = dict(dataset=config.dataset, name=config.name)
    detector = {f.name: getattr(config, f.name) for f in dataclasses.fields(TrainDetector)}
    built = BuildRepository(steps=config.repository_steps, timesteps=config.timesteps, blocks=config.blocks, **common)
    found: dict[str, Config] = dict(diffusion=_diffusion(config), repository=built)
    if config.teach:
        found["backbone"] = TeachBackbone(steps=config.teach_steps, imgsz=config.imgsz, size=config.size, precision=config.precision,
                                          **common)
    if config.distill:
        found["fused"] = TrainFused(**detector, spectral_filter=config.spectral_filter, dynamic=config.dynamic)
    lesson: dict[str, Any] = dict(loss=config.neck_loss, weight=config.distill_weight, logit_weight=config.logit_weight)
    return {**found, "student": Distill(**detector, **lesson) if config.distill else TrainDetector(**detector)}


def _diffusion(config: TrainDistilled | TrainAnomaly) -> TrainDiffusion:
    """The diffusion model that a run trains on its way, with no choice left to the preset."""
    steps, batch, _ = PRESETS[config.preset]
    steps = steps if config.diffusion_steps is None else config.diffusion_steps
    return TrainDiffusion(dataset=config.dataset, name=config.name, preset=config.preset, steps=steps, batch=batch,
                          precision=config.precision, good=isinstance(config, TrainAnomaly))


# ---- the size of the work

def work(config: Config) -> float | None:
    """Core seconds, guessed; None where it cannot be known, such as for files of an upload."""
    try:
        return _work(config)
    except (DiffspectError, OSError):
        return None


def _work(config: Config) -> float | None:
    match config:
        case TrainDetector():
            kind = FUSED if isinstance(config, TrainFused) else DISTILLED if isinstance(config, Distill) else 1.0
            return PASS_S * kind * _shown(config) * config.epochs * _network(config)
        case TrainDiffusion():
            steps, batch, crop_s = PRESETS[config.preset]
            return crop_s * (steps if config.steps is None else config.steps) * (config.batch or batch)
        case BuildRepository():
            return FEATURES_S * _count(config.dataset) * _many(config.timesteps) + FIT_S * config.steps
        case TeachBackbone():
            return TAUGHT_S * config.steps * config.batch * _network(config)
        case ProbeFeatures():
            read = min(config.images, _count(config.dataset, "train")) + _count(config.dataset, "val")
            return _many(config.timesteps) * (FEATURES_S * read + 5 * READER_S)      # four blocks, and all together
        case Compare():
            return COMPARED_S * sum(map(len, config.arms.values()))
        case Shadow():                               # how many there are the database knows; whoever asks says it
            return FILE_S["shadow"] * config.pictures if config.pictures else None
        case TrainAnomaly():
            snapshot_id = rundir.snapshot_id(rundir.find_snapshot(config.dataset))
            return _anomaly(config, bool(config.denoiser) or reuse.denoiser(_diffusion(config), snapshot_id) is not None)
    return generation.work(config) if isinstance(config, generation.MAKING) else _files(config)


def _anomaly(config: TrainAnomaly, there: bool) -> float:
    """An anomaly model, and before it the diffusion model, unless one is there, and the pictures that it perturbs."""
    diffuses = config.source in ("ddpm", "mixed")
    found = LEARNT_S * config.steps * config.batch * (config.imgsz / 256) ** 2
    if not there and (diffuses or config.teacher == "ddpm"):
        found += _work(_diffusion(config)) or 0.0
    return found + generation.PERTURBED_S * config.perturbed * (TrainDiffusion().side / 128) ** 2 * diffuses     # at its scale, at most


def _shown(config: TrainDetector) -> int:
    """Images in each pass: as many as were asked for, else all of the share, a few labelled real ones as often as all."""
    if config.shown:
        return config.shown
    extent = generation.extent(config.dataset)
    real = extent.splits.get("train", 0) - extent.synthetic
    made = extent.synthetic if config.synthetic is None else min(config.synthetic, extent.synthetic)
    return real * (config.origin != "synthetic") + made * (config.origin != "real")


def _network(config: TrainDetector | TeachBackbone) -> float:
    return (config.imgsz / 224) ** 2 * SIZES[config.size]


def _many(timesteps: str) -> int:
    return max(1, len(timesteps.split()))


def _files(config: Config) -> float | None:
    folder, each = getattr(config, "images", "") or getattr(config, "path", ""), FILE_S.get(recipes.name_of(config))
    if not isinstance(folder, str) or not folder or each is None:
        return None
    from backend.data import images  # Pillow: only where it is asked for

    return each * images.count(Path(folder))


def _count(dataset: str, split: str = "") -> int:
    return generation.extent(dataset).splits.get(split, 0)


# ---- the pace of what finished here

def paces(recipe: str, config: Config) -> list[float]:
    """Seconds per guessed core second, of the newest runs of a recipe that did the like, and of guided runs that had it as a stage."""
    wanted = _variant(config)
    alone = (p for path in islice(rundir.completed(recipe), LOOKED)
             if _variant(_config(rundir.read_json(path / "job.json"))) == wanted and (p := _pace(path)) is not None)
    return [*islice(alone, LATEST), *_as_stage(recipe)]


def _variant(config: Config | None) -> tuple[Any, ...] | None:
    """Pasting a defect says nothing of how long a diffusion network takes. None where what a config points to is gone."""
    try:
        return generation.variant(config) if config else ()
    except (DiffspectError, OSError):
        return None


def _pace(path: Path) -> float | None:
    """Of a run that went through in one go; not of those that came with the demo plant, from another machine."""
    state, head = rundir.read_json(path / "state.json"), rundir.read_json(path / "job.json")
    if state["attempt"] != 1 or not state["started_at"] or not state["finished_at"] or head["plant"] == "demo":
        return None
    seconds = (datetime.fromisoformat(state["finished_at"]) - datetime.fromisoformat(state["started_at"])).total_seconds()
    amount = _done(path, head)
    return seconds / amount if amount else None


def _done(path: Path, head: dict[str, Any]) -> float | None:
    """Core seconds guessed for a finished run. Uploads have left their folder: their progress says how many they were."""
    if head["recipe"] in FILE_S:
        return FILE_S[head["recipe"]] * int(rundir.progress(path).get("total", 0))
    config = _config(head)
    if isinstance(config, TrainAnomaly):             # by now there is a diffusion model in any case; it may be its own
        result = rundir.read_json(path / "result.json") if (path / "result.json").exists() else {}
        took = "training" in result.get("reused", {})            # the weights of another: it says nothing of how long training takes
        return None if took else _anomaly(config, not (path / "denoiser").exists())
    return work(config) if config else None


def _as_stage(recipe: str) -> Iterator[float]:
    for path in islice(rundir.completed("train-distilled"), LATEST):
        config, listed = _config(rundir.read_json(path / "job.json")), path / "stages.json"
        whole = rundir.read_json(path / "state.json")["attempt"] == 1       # else a stage may have counted its last attempt alone
        if not isinstance(config, TrainDistilled) or not listed.exists() or not whole:
            continue
        asked = stages(config)
        for stage in rundir.read_json(listed):
            known = asked.get(stage["name"])
            if known and recipes.name_of(known) == recipe and stage["state"] == "done" and stage["seconds"] and (amount := work(known)):
                yield stage["seconds"] / amount


def _config(head: dict[str, Any]) -> Config | None:
    """What was asked then; None where today's program knows its settings no more."""
    try:
        return RECIPES[head["recipe"]].from_json(head["config"])
    except ConfigError:
        return None
