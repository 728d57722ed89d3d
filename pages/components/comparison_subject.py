"""What is compared: arms, each with its runs, as the URL names them: a finished comparison, or any finished runs.

Every view of the page takes a `Subject`. The baseline comes first. Knows nothing of how a verdict is reached or shown.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from backend import jobs
from pages.components import words
from pages.components.cached import cached

LIKE = ("recipe", "origin", "labels", "real_images", "synthetic_images", "shown", "epochs", "snapshot_id")
OWN = ("seed", "name", "dataset")                    # settings that two runs of one arm may differ in
_SEED = re.compile(r"[\s·,_-]*\bseed[ _-]?\d+$", re.IGNORECASE)


@dataclass(frozen=True)
class Subject:
    """What all views share."""

    name: str
    arms: dict[str, list[str]]                       # arm -> its runs, by seed; the baseline first
    rows: pd.DataFrame                               # `scored_runs` of those runs, with `arm`
    result: dict[str, Any] = field(default_factory=dict)      # comparison.json; empty while there is no verdict
    run_id: str = ""                                 # of the `compare` run
    experiment: str = ""

    @property
    def baseline(self) -> str:
        return next(iter(self.arms))

    def runs(self, arm: str) -> pd.DataFrame:
        found: pd.DataFrame = self.rows[self.rows["arm"] == arm]
        return found


def of_comparison(run_id: str) -> Subject:
    """A finished `compare` run. Raises NotFoundError."""
    found = jobs.comparison(run_id)
    first = found["baseline"]
    named = {arm: [r["run_id"] for r in found["arms"][arm]["runs"]] for arm in [first, *(a for a in found["arms"] if a != first)]}
    return Subject(str(found["name"]), named, _rows(named), found, run_id, str(jobs.status(run_id).config.get("experiment", "")))


def of_runs(run_ids: Iterable[str]) -> Subject:
    """Any finished runs, those alike but for the seed together in an arm. Raises ConfigError where they cannot be compared."""
    asked = list(dict.fromkeys(run_ids))
    known = cached("scored_runs")
    rows = known[known["run_id"].isin(asked)].sort_values("run_id", key=lambda ids: ids.map(asked.index))
    if gone := [r for r in asked if r not in set(rows["run_id"])]:
        raise jobs.NotFoundError(f"{len(gone)} of these {len(asked)} runs is not here, has not ended, or trained no detector: {gone[0]}.")
    if not rows["test_set_id"].fillna("").all():
        raise jobs.ConfigError("On which test pictures some of these runs were scored is not known any more, so they cannot be compared.")
    if (tests := rows["test_set_id"].nunique()) > 1:
        raise jobs.ConfigError(f"These runs were scored on {tests} different test sets: their figures do not compare. Choose runs of one.")
    named = grouped(rows)
    if len(named) < 2:
        raise jobs.ConfigError("These runs differ in their seed alone, so there is nothing to compare. Choose runs of at least two kinds.")
    return Subject(" against ".join(reversed(list(named))), named, _rows(named))


def _rows(arms: dict[str, list[str]]) -> pd.DataFrame:
    """Of runs that are gone since, nothing."""
    known = cached("scored_runs").set_index("run_id", drop=False)
    there = [(arm, run) for arm, runs in arms.items() for run in runs if run in known.index]
    return known.loc[[run for _, run in there]].assign(arm=[arm for arm, _ in there]).reset_index(drop=True)


def grouped(rows: pd.DataFrame) -> dict[str, list[str]]:
    """Arm -> its runs, by seed: runs whose settings differ in the seed alone belong together. The one with fewest synthetic first."""
    alike: dict[str, list[Any]] = {}
    for row in rows.itertuples():
        alike.setdefault(_signature(row), []).append(row)
    order = sorted(alike.values(), key=lambda arm: (not arm[0].promoted, arm[0].synthetic_images or 0))
    names = _distinct([_stem(arm) for arm in order], [said(arm[0]) for arm in order])
    return {name: [r.run_id for r in sorted(arm, key=lambda r: (r.seed is None, r.seed))] for name, arm in zip(names, order, strict=True)}


def _signature(row: Any) -> str:
    settings = {k: v for k, v in (row.settings or {}).items() if k not in OWN}
    return repr([getattr(row, name) for name in LIKE] + sorted(settings.items(), key=lambda item: item[0]))


def _stem(arm: list[Any]) -> str:
    """What its runs are called, without the seed."""
    return _SEED.sub("", words.short(arm[0].name, 40)) or words.short(arm[0].name, 40)


def said(row: Any) -> str:
    """What a run learned from, in words: 'real only', 'real and 200 synthetic'."""
    synthetic, real = int(row.synthetic_images or 0), int(row.real_images or 0)
    taught = {"train-distilled": ", with a teacher", "distill": ", distilled"}.get(row.recipe, "")
    if not synthetic:
        return f"{real:,} real{taught}"
    return f"{synthetic:,} synthetic{taught}" if not real else f"{real:,} real and {synthetic:,} synthetic{taught}"


def _distinct(names: list[str], otherwise: list[str]) -> list[str]:
    """Their own names where these differ, else what they learned from, else numbered."""
    for listed in (names, otherwise):
        if len(set(listed)) == len(listed):
            return listed
    return [f"{name} ({n})" for n, name in enumerate(names, 1)]
