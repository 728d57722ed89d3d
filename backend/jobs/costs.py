"""What it costs to reject from a given confidence on, for the prices that a person types: from what finished trainings kept of their val
and test images.

Stands between pages and `evaluation.cost`, which is numpy alone, so that the dashboard may ask it at each price. Knows nothing of models.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any

from backend import rundir
from backend.errors import NotFoundError
from backend.evaluation import cost
from backend.evaluation.outcomes import Outcomes


def expected(run_ids: list[str], costs: cost.Costs) -> dict[str, Any]:
    """Of trainings that are the seeds of one arm: `point`, each at the threshold recommended for it (see `operating_point`), and `curve`,
    the cost of 1,000 parts against the threshold, None where it cannot be told. Raises NotFoundError, ConfigError."""
    val, test = ([_outcomes(run_id, split) for run_id in run_ids] for split in ("val", "test"))
    return dict(point=cost.operating_point(val, test, costs), curve=cost.curve(test, costs))


def _outcomes(run_id: str, split: str) -> Outcomes:
    folder = rundir.scored(run_id)
    if folder is None:
        raise NotFoundError("What this run said of its val and test images was not kept.")
    return _read(folder / f"{split}-images.npz")


@lru_cache(maxsize=200)                  # 10 KB for 360 images; a record never changes
def _read(path: Path) -> Outcomes:
    return Outcomes.load(path)
