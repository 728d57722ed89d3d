"""The arms of an experiment: what each is trained on, from presets or from a person's own settings, and what makes them comparable.

All arms learn from one snapshot, see `shown` images in each of as many passes, and so take as many optimiser steps, a tenth of the labels
as well as all of them; only what a preset names differs. From files alone; knows nothing of queues, of trainings or of how a result is
judged.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

from backend import rundir
from backend.config import RECIPES, Config, Experiment, TrainDetector, TrainDistilled
from backend.data import seen
from backend.data.shares import Share
from backend.errors import ConfigError
from backend.jobs.holdings import Held

DOSES, SHARES, HALF = (0, 25, 50, 100, 200), (25, 50, 100), 50    # % synthetic of the labelled real images; % of the labels
SAME = ("dataset", "name", "seed", "epochs", "batch", "shown")    # what an arm of one's own may not differ in

# name -> title, what it is, whether it needs synthetic images; in the order in which pages offer them
PRESETS: dict[str, tuple[str, str, bool]] = {
    "real": ("Real only", "Trained on the real train images.", False),
    "both": ("Real + synthetic", "Trained on the real and the synthetic train images.", True),
    "synthetic": ("Synthetic only", "Trained on the synthetic train images alone.", True),
    "distilled": ("Real, distilled", "Trained on the real train images, with a diffusion teacher.", False),
    "both-distilled": ("Real + synthetic, distilled", "Trained on real and synthetic train images, with a diffusion teacher.", True),
    "dose": ("Dose of synthetic images", "Real images, and synthetic ones: 0, 25, 50, 100 and 200 % of as many.", True),
    "labels": ("Number of labels", "Real images alone: 25, 50 and 100 % of the labelled ones.", False)}
SETTINGS: dict[str, dict[str, Any]] = {
    "real": dict(origin="real"), "both": dict(origin="both"), "synthetic": dict(origin="synthetic"),
    "distilled": dict(recipe="train-distilled", origin="real"), "both-distilled": dict(recipe="train-distilled", origin="both")}


@dataclass(frozen=True)
class Arm:
    """One side of a comparison: a training recipe, and the settings that it differs in."""

    name: str
    title: str
    about: str
    recipe: str
    settings: dict[str, Any]
    real: int                      # different images it learns from
    synthetic: int


# ---- from settings to arms

def planned(config: Experiment, there: Held) -> tuple[dict[str, Arm], list[str]]:
    """The arms, and what a person should know of them. Raises ConfigError where nothing honest can be compared."""
    _refuse(config, there)
    notes: list[str] = []
    found: dict[str, Arm] = {}
    for name, settings in _asked(config, there, notes):
        arm = _arm(name, settings, config, there)
        if all((arm.recipe, arm.settings) != (a.recipe, a.settings) for a in found.values()):       # `dose` begins with `real`
            found[name] = arm
    if len(found) < 2:
        raise ConfigError("An experiment compares at least two arms that differ. Name more, such as: real, both.")
    if config.baseline and config.baseline not in found:
        raise ConfigError(f"The baseline {config.baseline!r} is none of the arms: {', '.join(found)}.")
    return found, notes + _warnings(list(found.values()), there)


def _refuse(config: Experiment, there: Held) -> None:
    if not config.name.strip():
        raise ConfigError("Give the experiment a name.")
    if config.imgsz % 32:
        low = config.imgsz // 32 * 32
        raise ConfigError(f"The image size must be a multiple of 32: {low} or {low + 32}, not {config.imgsz}.")
    if there.made_held:
        raise ConfigError("The val or test split of this dataset holds synthetic images; a model may be judged on real ones only.")
    for split, n in (("train", there.labelled), ("val", there.val), ("test", there.test)):
        if not n:
            raise ConfigError(f"The {split} split of {there.name!r} has no labelled defect, so there is nothing to compare.")


def _asked(config: Experiment, there: Held, notes: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and settings of each arm, presets spelt out."""
    if config.arms.lstrip().startswith("{"):
        yield from _own(config.arms)
        return
    presets = list(dict.fromkeys(name.strip() for name in config.arms.split(",") if name.strip()))
    for preset in presets:
        if preset not in PRESETS:
            raise ConfigError(f"There is no arm called {preset!r}. Choose from {', '.join(PRESETS)}.")
        if PRESETS[preset][2] and not there.synthetic():
            raise ConfigError(f"{there.name!r} holds no synthetic images, which the arm {preset!r} needs. Name synthetic sets, "
                              "or add some to the dataset first.")
        if preset == "dose":
            yield from _doses(there, config.labels or (_share(there, HALF) if "labels" in presets else None), notes)
        else:
            yield from _shares(there) if preset == "labels" else [(preset, SETTINGS[preset])]


def _own(text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        given = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"The arms are no JSON: {error}.") from error
    for name, settings in given.items():
        if not isinstance(settings, dict):
            raise ConfigError(f"The arm {name!r} must list its settings, such as {{\"origin\": \"real\"}}.")
        if same := sorted(settings.keys() & set(SAME)):
            raise ConfigError(f"The arm {name!r} may not set {', '.join(same)}: compared arms are alike in these.")
        yield name, settings


def _doses(there: Held, labels: int | None, notes: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Beside so many labels, none: all. Beside all of them, nobody can read off the curve of labels what a dose is worth, for it ends
    there; so it is half of them where that curve is asked for too."""
    base, most, given = labels or there.labelled, there.synthetic(labels), dict(labels=labels) if labels else {}
    for share in DOSES:
        wanted = round(base * share / 100)
        if not wanted:
            part = next((s for s in SHARES if _share(there, s) == labels), round(100 * base / there.labelled))
            yield (f"{part} % of labels" if labels else "real"), dict(origin="real", **given)
        elif wanted < most:
            yield f"{share} % synthetic", dict(origin="both", synthetic=wanted, **given)
        else:                                               # all there are; what is asked beyond would be the same arm again
            if share < DOSES[-1] or wanted > most:
                notes.append(f"There are {most:,} synthetic images to add, so the largest dose is {100 * most / base:.0f} %, "
                             f"not {DOSES[-1]} %.")
            yield f"{100 * most / base:.0f} % synthetic", dict(origin="both", **given)
            return


def _shares(there: Held) -> Iterator[tuple[str, dict[str, Any]]]:
    """Without the images that show no defect in all three, since a choice of labels leaves them out."""
    for share in SHARES:
        wanted = _share(there, share)
        whole = wanted == there.real
        yield "real" if whole else f"{share} % of labels", dict(origin="real") if whole else dict(origin="real", labels=wanted)


def _share(there: Held, share: int) -> int:
    return max(1, round(there.labelled * share / 100))


def _arm(name: str, settings: dict[str, Any], config: Experiment, there: Held) -> Arm:
    recipe, own = settings.get("recipe", "train-detector"), {k: v for k, v in settings.items() if k != "recipe"}
    if weights := own.get("weights", config.weights):
        own["weights"] = _start(str(weights), own.get("size", config.size), there)
    kind = RECIPES.get(recipe)
    if kind is None or not issubclass(kind, TrainDetector):
        raise ConfigError(f"The arm {name!r} must be trained by train-detector, distill or train-distilled, not by {recipe!r}.")
    asked = kind.from_json(_common(kind, config) | own | dict(name=name, dataset=there.snapshot_id))
    assert isinstance(asked, TrainDetector)
    seen = there.seen(Share.of(asked))
    title, about, _ = PRESETS.get(name, (name, "", False))
    return Arm(name, title, about or f"Trained on {seen.real:,} real and {seen.synthetic:,} synthetic train images.", recipe, own,
               seen.real, seen.synthetic)


def _warnings(found: list[Arm], there: Held) -> list[str]:
    said = []
    if there.crossing:
        said.append("Near-duplicate images stand on both sides, in train and in val or test: figures on test will flatter every arm "
                    f"(groups: {there.crossing:,}).")
    if {a.recipe for a in found} & {"train-distilled", "distill"} and len({a.recipe for a in found}) > 1:
        said.append("Arms with a teacher take more work: their students see as many images in as many steps, their teachers come on top.")
    if any(a.settings.get("weights") and a.recipe == "train-distilled" and a.settings.get("teach", True) for a in found):
        said.append("In arms with a teacher the diffusion model teaches the backbone anew: of the model that all start from, they keep "
                    "the layers after it.")
    if any(a.settings.get("labels") and a.synthetic for a in found):
        said.append("Beside fewer labels stand only synthetic images that were made of those. A generator that has learned from all labels "
                    "tells of the others all the same.")
    return said


# ---- from arms to trainings

def shown(config: Experiment, there: Held) -> int:
    """Images in each pass: as many as real ones there are, so that a pass of the real arm is an ordinary one; or as asked."""
    return config.shown or there.real


def steps(config: Experiment, there: Held) -> int:
    return config.epochs * ceil(shown(config, there) / config.batch)


def seeds(config: Experiment) -> list[int]:
    return list(range(config.first_seed, config.first_seed + config.seeds))


def baseline(config: Experiment, names: list[str]) -> str:
    """What the others are compared with: the arm that was named, else real images alone, else the first."""
    return config.baseline or ("real" if "real" in names else names[0])


def training(config: Experiment, arm: Arm, seed: int, there: Held) -> Config:
    """One run of an arm. Where sets are still to join, its dataset is the one they will join."""
    kind = RECIPES[arm.recipe]
    return kind.from_json(_common(kind, config) | arm.settings | dict(
        dataset=there.snapshot_id or config.dataset, name=f"{config.name.strip()} · {arm.name} · seed {seed}", seed=seed,
        shown=shown(config, there)))


def trainings(config: Experiment, found: dict[str, Arm], there: Held) -> list[tuple[str, int, Config]]:
    """Arm, seed and settings of each run: all arms of one seed, then the next."""
    return [(name, seed, training(config, arm, seed, there)) for seed in seeds(config) for name, arm in found.items()]


def _common(kind: type[Config], config: Experiment) -> dict[str, Any]:
    """What all arms share."""
    found = {k: getattr(config, k) for k in ("epochs", "imgsz", "batch", "size", "labels", "optimizer", "learning_rate", "precision")}
    return found | (dict(preset=config.preset) if issubclass(kind, TrainDistilled) else {})


def _start(weights: str, size: str, there: Held) -> str:
    """What an arm starts from, by run, so that all its seeds start alike though a later model takes the name. Raises ConfigError, also
    where it knows pictures that are to judge; of a file nobody can say that."""
    if Path(weights).is_file():
        return weights
    if (folder := rundir.find_artifact("weights", weights)) is None:
        raise ConfigError(f"There is neither a model called {weights!r} nor such a file to start from.")
    if (found := rundir.read_json(folder / "head.json").get("size", size)) != size:
        raise ConfigError(f"The model {weights!r} is of size {found}, the arms of size {size}: no start for them.")
    seen.refuse(folder, there.judging)
    return folder.parent.name
