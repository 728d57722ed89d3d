"""Which function carries out which recipe, and in which lane. Resolved by name, in the worker only.

`DIFFSPECT_RECIPES` is the seam for recipes of one's own: names of modules, separated by spaces, that call `add` when
imported. They get a form, a command and a queue like the built-in ones. Knows nothing of processes.
"""

import os
from collections.abc import Callable
from importlib import import_module
from typing import Any

from backend.config import RECIPES, Config

Recipe = Callable[..., dict[str, Any]]

FUNCTIONS: dict[str, str] = {
    "import": "backend.data.importer:run",
    "train-detector": "backend.detection.train:run",
    "train-diffusion": "backend.diffusion.ddpm:run",
    "probe-features": "backend.teacher.probe:run",
    "build-repository": "backend.teacher.repository:run",
    "teach-backbone": "backend.detection.teach:run",
    "train-fused": "backend.detection.fuse:run",
    "distill": "backend.detection.distill:run",
    "train-distilled": "backend.detection.guided:run",
    "train-prior": "backend.synthesis.prior.surface:run",
    "adapt-prior": "backend.synthesis.prior.adapt:run",
    "synthesize": "backend.synthesis.synthesize:run",
    "measure-synthesis": "backend.synthesis.quality:run",
    "search-synthesis": "backend.synthesis.search:run",
    "combine": "backend.data.combine:run",
    "relabel": "backend.data.relabel:run",
    "train-classifier": "backend.recognition.train:run",
    "collect-masks": "backend.synthesis.collect:run",
    "train-anomaly": "backend.anomaly.train:run",
    "score": "backend.evaluation.looks:run",
    "experiment": "backend.jobs.waves:run",
    "compare": "backend.evaluation.compare:run",
    "inspect": "backend.inspection.inspect:run",
    "watch": "backend.inspection.watch:run",
    "predict": "backend.inspection.predict:run",
    "measure-precision": "backend.evaluation.precision:run",
    "export-model": "backend.inspection.bundle:run",
    "shadow": "backend.inspection.shadow:run",
    "shift-report": "backend.jobs.shift_report:run",
    "check": "backend.inspection.check:run",
    "draw-plates": "backend.data.demo_plates:run",
    "demo": "backend.data.demo_plant:run",
    "demo-model": "backend.detection.demo_model:run",
    "demo-experiment": "backend.jobs.demo_experiment:run",
    "backup": "backend.jobs.archives:backup",
    "restore": "backend.jobs.archives:restore",
    "retention": "backend.jobs.letting_go:run",
}
HEAVY = {"train-detector", "train-diffusion", "probe-features", "build-repository", "teach-backbone", "train-fused", "distill",
         "train-distilled", "train-prior", "adapt-prior", "synthesize", "measure-synthesis", "search-synthesis", "train-classifier",
         "train-anomaly", "demo-model", "demo-experiment", "shadow",
         "measure-precision"}                     # one at a time per device; the rest goes past them
STANDING = {"watch", "backup", "restore", "retention"}           # nobody waits for the last three
INSPECTOR = {"inspect", "predict"}                # what the warm worker is ready for
# What stays with the app where there is a cluster: it sees to the app's own machine, or takes less time than a cluster takes to begin.
HERE = STANDING | {"experiment", "shift-report", "check", "demo", "export-model"}
SPREAD = {"inspect": "backend.jobs.spread:run"}   # what a cluster carries out on all its nodes at once


def add(name: str, config: type[Config], function: str, *, heavy: bool = False) -> None:
    """Add a recipe: its name (a-z and dashes), its config class, its "module:function"."""
    RECIPES[name] = config
    FUNCTIONS[name] = function
    if heavy:
        HEAVY.add(name)


def lane(recipe: str) -> str:
    """heavy and light: one at a time each; standing: for days or by the way, beside all others."""
    return "heavy" if recipe in HEAVY else "standing" if recipe in STANDING else "light"


def for_cluster(recipe: str, config: dict[str, Any]) -> bool:
    """Whether a run goes to the cluster, where there is one. Uploaded pictures go to the warm worker: somebody waits for them."""
    return recipe not in HERE and not (recipe in INSPECTOR and not config.get("images"))


def load(recipe: str, spread: bool = False) -> Recipe:
    """`spread`: in its form for several machines, where it has one."""
    module, _, function = ((SPREAD.get(recipe) if spread else None) or FUNCTIONS[recipe]).partition(":")
    found: Recipe = getattr(import_module(module), function)
    return found


def name_of(config: Config) -> str:
    """The recipe that a config belongs to."""
    return next(name for name, kind in RECIPES.items() if type(config) is kind)


for _module in os.environ.get("DIFFSPECT_RECIPES", "").split():
    import_module(_module)
