"""The size of the work of recipes around made pictures, in core seconds, guessed from what a config asks for; and of a dataset.

`pace` asks, and corrects the guess by what finished here. The constants are for one core; those marked so were measured (32-bit, CPU
time), the others follow from the size of the networks and may be off by a factor of three until a first run has ended.
From files alone; knows nothing of networks or processes.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

from backend import rundir
from backend.config import AdaptPrior, Combine, Config, MeasureSynthesis, SearchSynthesis, Synthesize, TrainClassifier, TrainPrior
from backend.errors import ConfigError, NotFoundError

SIDE = 256                              # pixels: the constants for a picture are for this side; a surface prior draws none larger
PERTURBED_S = 0.9                       # an image of 128 px through ten denoising steps of the tiny network
LAID_S = 0.15                           # a picture blended, and looked at by the feature network that says whether the defect is seen
DRAWN_S = 0.09                          # once through the surface prior's network, of the preset small; measured
CODER = 7                               # passes that the autoencoder costs, there and back; measured: 0.6 s
FOREIGN_S = 18.0                        # the same of Stable Diffusion 1.5 at 512 px: 0.8 TFLOP
LEARNT = 3                              # times a forward pass: forward and back
FEATURE_S = 0.06                        # a picture through the network that quality is measured with
LOOKED_S = 0.06                         # a picture through a detector
COMBINED_S, COPIED_S = 0.02, 0.001      # a synthetic picture taken in (decoded, hashed), and one of the dataset passed on
CLASSIFIED_S = {"resnet18": 0.05, "efficientnet-lite0": 0.05}      # an image of 128 px, once through training; both measured

# preset -> for the autoencoder, then for the diffusion network: steps, crops a step, core seconds a crop. Steps and batch are those of
# `synthesis.prior.surface`, which is too heavy to import; the seconds of tiny and small were measured.
PRIORS = {"tiny": ((300, 8, 0.05), (400, 8, 0.03)), "small": ((2_000, 16, 0.18), (6_000, 16, 0.07)),
          "base": ((20_000, 32, 2.0), (60_000, 64, 0.4))}
MAKING = (TrainPrior, AdaptPrior, Synthesize, MeasureSynthesis, SearchSynthesis, Combine, TrainClassifier)


@dataclass(frozen=True)
class Extent:
    """How large a dataset is: pictures by split ('' for all of them), synthetic ones in train, and the mean area of one, as a share of
    SIDE², at most 1."""

    splits: dict[str, int]
    synthetic: int
    share: float


def extent(dataset: str) -> Extent:
    return _extent(rundir.find_snapshot(dataset))


@lru_cache(maxsize=100)
def _extent(snapshot_run: Path) -> Extent:
    """A snapshot never changes."""
    rows = rundir.rows(snapshot_run, "snapshot_images").select(["split", "origin", "width", "height"])
    splits: list[str] = rows["split"].to_pylist()
    made = list(zip(splits, rows["origin"].to_pylist(), strict=True)).count(("train", "synthetic"))
    areas = [min(1.0, w * h / SIDE**2) for w, h in zip(rows["width"].to_pylist(), rows["height"].to_pylist(), strict=True)]
    return Extent({"": len(splits), **{s: splits.count(s) for s in set(splits)}}, made, sum(areas) / max(1, len(areas)))


def work(config: Config) -> float | None:
    """Core seconds. Raises NotFoundError where what it builds on is not there."""
    match config:
        case TrainPrior():
            asked = zip(PRIORS[config.preset], (config.autoencoder_steps, config.steps), strict=True)
            return sum((own or steps) * (config.batch or batch) * crop_s for (steps, batch, crop_s), own in asked)
        case AdaptPrior():
            steps = config.token_steps * (config.space != "lora") + config.lora_steps * (config.space != "tokens")
            return LEARNT * steps * config.batch * _pass(config.prior, config.dataset, kinds=("prior",))
        case Synthesize():
            return config.count * _made(config)
        case MeasureSynthesis():
            head = _set(config.synthetic)
            n = len(head["items"])
            return FEATURE_S * (n + extent(head["snapshot_id"]).splits.get("train", 0)) + LOOKED_S * n * bool(config.detector)
        case SearchSynthesis():
            return _searched(config)
        case Combine():
            sets = [_set(name.strip()) for name in config.sets.split(",") if name.strip()]
            return COMBINED_S * sum(len(head["items"]) for head in sets) + COPIED_S * extent(config.dataset).splits[""]
        case TrainClassifier():
            return CLASSIFIED_S[config.network] * config.steps * config.batch * (config.imgsz / 128) ** 2
    return None


def variant(config: Config) -> tuple[Any, ...]:
    """What of a config decides which of the constants holds: only runs of one variant tell each other's pace. Raises NotFoundError."""
    match config:
        case Synthesize():
            return config.method, config.source if config.method == "perturb" else _native(config.prior, config.dataset) \
                if config.method == "prior" else ""
        case AdaptPrior():
            return (_native(config.prior, config.dataset, kinds=("prior",)),)
        case SearchSynthesis():
            return (_native(config.prior, config.dataset),)
        case TrainPrior():
            return (config.preset,)
        case MeasureSynthesis():
            return config.extractor, bool(config.detector)
        case TrainClassifier():
            return (config.network,)
    return ()


def _made(config: Synthesize) -> float:
    """One picture."""
    if config.method == "prior":
        return LAID_S + _evaluations(config.steps, config.guidance) * _pass(config.prior, config.dataset)
    if config.method == "perturb" and config.source == "ddpm":
        share = min(1.0, (config.imgsz / SIDE) ** 2) * extent(config.dataset).share
        return LAID_S + PERTURBED_S * (SIDE / 128) ** 2 * share * config.steps / 10
    return LAID_S


def _searched(config: SearchSynthesis) -> float:
    """Every setting, with as many pictures of every class."""
    classes = 1 if config.class_name else len(rundir.read_json(rundir.find_snapshot(config.dataset) / "snapshot.json").get("classes", [""]))
    settings = [_evaluations(int(steps), guidance) for _, guidance, steps in
                product(*map(_numbers, (config.strengths, config.guidances, config.steps)))]
    each = _pass(config.prior, config.dataset)
    return config.images * classes * sum(FEATURE_S + n * each for n in settings)


def _numbers(text: str) -> list[float]:
    try:
        return [float(word) for word in text.split()]
    except ValueError as error:
        raise ConfigError(f"{text!r} is no list of numbers.") from error


def _evaluations(steps: int, guidance: float) -> int:
    """Times a picture goes through the network: all steps whatever the strength (`synthesis.prior.draw`); guidance asks it twice a step."""
    return steps * (2 if guidance > 1 else 1) + CODER


def _pass(prior: str, dataset: str, kinds: tuple[str, ...] = ("adapter", "prior")) -> float:
    return DRAWN_S * extent(dataset).share if _native(prior, dataset, kinds) else FOREIGN_S


def _native(prior: str, dataset: str, kinds: tuple[str, ...] = ("adapter", "prior")) -> bool:
    """Whether a prior, found as the recipes find it, is one of our own surface priors. Raises NotFoundError where none is there."""
    snapshot_id = rundir.snapshot_id(rundir.find_snapshot(dataset))
    for kind in kinds:
        of_dataset = {"snapshot_id": snapshot_id} if kind == "adapter" and not prior else {}
        if (folder := rundir.find_artifact(kind, prior, **of_dataset)) is not None:
            return kind == "prior" or bool(rundir.read_json(folder / "head.json")["base"]["native"])
    if not prior:
        raise NotFoundError("There is no prior yet.")
    return False


def _set(name: str) -> dict[str, Any]:
    folder = rundir.find_artifact("synthetic", name)
    if folder is None:
        raise NotFoundError(f"There is no synthetic set called {name!r}.")
    head: dict[str, Any] = rundir.read_json(folder / "head.json")
    return head
