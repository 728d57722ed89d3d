"""Settings of runs: those that a command would have, and whether two runs were made alike.

Arms that are compared get equal settings, so nothing that was made with others may be taken for what is asked now. But for one, which
follows from the processor: trainings compute in bf16 where it has that, elsewhere in float32. Rows of both stand in one table, which says
which are which.
"""

from collections.abc import Iterable
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
    now = {**effective(now), "precision": before.get("precision")}
    return "; ".join(f"{k} was {before.get(k)}, is {now.get(k)}" for k in sorted(before | now) if before.get(k) != now.get(k))


def here(settings: Settings) -> Settings:
    """With what is left to the machine filled in, as this one has it."""
    return {**settings, "precision": "bf16" if computes_bf16() else "f32"} if settings.get("precision") == "auto" else dict(settings)


def effective(settings: Settings) -> Settings:
    """With what is left to the machine or the optimiser filled in."""
    found = here(settings)
    if "optimizer" in found and found["learning_rate"] is None:
        from backend.detection.trainer import LEARNING_RATES  # loads torch and more: only where it is asked for

        found["learning_rate"] = LEARNING_RATES[found["optimizer"]]
    return found


def arithmetic(rows: Iterable[dict[str, Any]]) -> str:
    """What the networks of these rows were trained in, in words; '' where none was trained. Of two kinds, those in float32 are named."""
    found: dict[str, list[str]] = {"bf16": [], "f32": []}
    for row in rows:
        if used := {run.get("precision") for run in row.get("settings", {}).values()} & {"f32", "bf16"}:
            found["f32" if "f32" in used else "bf16"].append(" ".join(str(row[k]) for k in ("part", "arm", "seed") if k in row))
    if not found["f32"] or not found["bf16"]:
        return f"Trained in {'float32, on processors without bf16' if found['f32'] else 'bf16'}." if any(found.values()) else ""
    return (f"Trained in bf16 where the processor has it, {len(found['bf16'])} rows; in float32, in whole or in part, elsewhere: "
            f"{', '.join(found['f32'])}. Where the two of a comparison differ in that, their difference holds it too.")
