"""Finished trainings as a comparison takes them: what each found on val and test, its figures and settings; and which test images belong
together.

Stands between run directories and `compare`. Knows nothing of statistics.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backend import comparable, rundir
from backend.data import alike, snapshot, splits
from backend.evaluation.outcomes import Outcomes
from backend.evaluation.scored import Scored

FIGURES = ("map50", "map50_95", "val_map50", "val_map50_95", "false_rejects", "missed_images", "steps", "images_seen", "seconds")
MEANS = FIGURES[:6]


@dataclass(frozen=True)
class Entrant:
    """One training."""

    run_dir: Path
    recipe: str
    settings: dict[str, Any]
    code_version: str
    result: dict[str, Any]
    kept: Path                         # what it answered on val and test
    thresholds: dict[str, float]
    snapshot_run: Path

    @classmethod
    def of(cls, run_id: str) -> "Entrant":
        run_dir = rundir.run_path(run_id)
        kept, job = rundir.scored(run_id), rundir.read_json(run_dir / "job.json")
        assert kept is not None, "`comparable` has seen to it"
        head = rundir.read_json(kept / "head.json")
        result = head.get("result", {}) | rundir.read_json(run_dir / "result.json")              # an older one was told by `score` since
        return cls(run_dir, job["recipe"], job["config"], str(job.get("code_version") or ""), result, kept, head["thresholds"],
                   comparable.snapshot_of(run_dir))

    @property
    def seed(self) -> int:
        return int(self.settings.get("seed", 0))

    def scored(self, split: str = "test") -> Scored:
        return Scored.load(self.kept / f"{split}.npz")

    def outcomes(self, split: str = "test") -> Outcomes:
        return Outcomes.load(self.kept / f"{split}-images.npz")

    def row(self) -> dict[str, Any]:
        """The training as comparison.json tells it. A figure that an older program did not write is None."""
        return dict(run_id=self.run_dir.name, name=comparable.name(self.run_dir), seed=self.seed, model_id=self.result.get("model_id"),
                    **{k: self.result.get(k) for k in FIGURES})


def arm(entrants: list[Entrant]) -> dict[str, Any]:
    """One side: its trainings, their means, and what they were trained on."""
    rows, first = [e.row() for e in entrants], entrants[0]
    known = {k: [r[k] for r in rows if r[k] is not None] for k in MEANS}
    return dict(runs=rows, mean={k: sum(v) / len(v) if len(v) == len(rows) else None for k, v in known.items()}, recipe=first.recipe,
                origin=first.settings.get("origin", "both"), labels=first.settings.get("labels"),
                real_images=first.result.get("real_images"), synthetic_images=first.result.get("synthetic_images"))


# ---- test images that belong together

def together(entrant: Entrant, names: list[str]) -> tuple[list[list[str]], str]:
    """Groups of test images that are near-duplicates, or of one lot or unit where file names tell; and by what, '' where none are."""
    rows = rundir.rows(entrant.snapshot_run, "snapshot_images").select(["split", "image_id", "group_id", "file_name"]).to_pylist()
    rows = [r for r in rows if r["split"] == "test"]
    lot_of = splits.lot_finder(snapshot.lot_pattern(entrant.snapshot_run))
    lots = [{lot} if (lot := lot_of(r["file_name"])) else set() for r in rows]
    whole = alike.united([r["group_id"] or r["image_id"] for r in rows], lots)
    group_of = {r["image_id"]: group for r, group in zip(rows, whole, strict=True)}
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(group_of[name.partition("-")[0]], []).append(name)             # the second copy of a content is '<id>-2'
    found = [members for members in groups.values() if len(members) > 1]
    return found, "lot or unit" if found and any(lots) else "near-duplicates" if found else ""
