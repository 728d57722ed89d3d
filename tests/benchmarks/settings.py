"""Settings of runs: those that a command would have, and whether two runs were made alike.

Arms that are compared get equal settings, so nothing that was made with others may be taken for what is asked now.
"""

from importlib import import_module
from typing import Any

from backend.__main__ import parser
from backend.config import RECIPES, Config
from backend.device import computes_bf16

OWN = "tests.benchmarks.rival"       # adds the recipe train-rival
Settings = dict[str, Any]            # every setting of a run, as in its job.json


def asked(recipe: str, *words: str) -> Settings:
    """What job.json will say of a command."""
    kind = _class(recipe)                              # before the parser, which has a command for each recipe
    given = vars(parser(False).parse_args([recipe, *words]))
    return kind.from_json({k: v for k, v in given.items() if k not in ("command", "json")}).to_json()


def _class(recipe: str) -> type[Config]:
    if recipe not in RECIPES:
        import_module(OWN)
    return RECIPES[recipe]


def differing(recipe: str, before: Settings, now: Settings) -> str:
    """'optimizer was SGD, is MuSGD', or ''. What a run of an older program does not name was as it is by default."""
    before = effective({**_class(recipe)().to_json(), **before})
    now = effective(now)
    return "; ".join(f"{k} was {before.get(k)}, is {now.get(k)}" for k in sorted(before | now) if before.get(k) != now.get(k))


def effective(settings: Settings) -> Settings:
    """With what is left to the machine or the optimiser filled in, as here."""
    found = dict(settings)
    if found.get("precision") == "auto":
        found["precision"] = "bf16" if computes_bf16() else "f32"
    if "optimizer" in found and found["learning_rate"] is None:
        from backend.detection.trainer import LEARNING_RATES  # loads torch and more: only where it is asked for

        found["learning_rate"] = LEARNING_RATES[found["optimizer"]]
    return found
