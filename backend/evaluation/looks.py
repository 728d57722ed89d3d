"""One look of a detector at a locked test set: what it answered is kept, and the look is counted. Also the recipe `score`.

Stands after the answers of a training's artifact, or of one trained before (`score`: once more, which is one more look). Whoever
compares runs reads what is kept and asks no model. In `<run>/scored/`, names of images are those of their content, so that records
pair where two snapshots differ in train only:

    val.npz test.npz                    `scored.Scored`: all boxes in order, without the boxes themselves
    val-images.npz test-images.npz      `outcomes.Outcomes`: one row per image
    head.json                           model, test set, thresholds

and parts for the store: `looks`, and `predictions` on test down to confidence 0.05, box by box, each with what it hits. Knows
nothing of training.
"""

import shutil
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from backend import rundir
from backend.config import Score
from backend.data import images, leaks, snapshot
from backend.errors import ConfigError
from backend.evaluation import detection as evaluation
from backend.evaluation.detection import LOWEST_THRESHOLD, Prediction, Truth
from backend.evaluation.outcomes import Outcomes
from backend.evaluation.scored import MOST, Scored, match_boxes

SPLITS = ("val", "test")                     # thresholds are chosen on the one; the other is looked at
Answers = Mapping[str, list[Prediction]]     # per split


def truth(data: snapshot.Snapshot, split: str) -> Truth:
    """True boxes of a split, by file name."""
    return {p.file_name: [(b.class_name, [b.x1, b.y1, b.x2 - b.x1, b.y2 - b.y1]) for b in p.boxes] for p in data.by_split(split)}


def keep(scratch: Path, run_dir: Path, about: dict[str, Any], found: Answers, known: Mapping[str, Truth], ids: Mapping[str, str]) -> None:
    """Keep a look in the run: records and parts. `about` is what `described` made; its classes are all that the model knows."""
    (folder := scratch / "scored").mkdir(exist_ok=True)
    renamed = {split: _by_content(found[split], known[split], ids) for split in SPLITS}
    for split, (answers, boxes) in renamed.items():
        Scored.from_predictions(answers, boxes, about["classes"]).save(folder / f"{split}.npz")
        Outcomes.from_predictions(answers, boxes, about["classes"]).save(folder / f"{split}-images.npz")
    rundir.write_part(run_dir, "predictions", list(rows(about["model_id"], *renamed["test"])), 1)
    at = count(run_dir, 1, about, known)
    rundir.keep_artifact(folder, run_dir, "scored", dict(about, key=about["model_id"], looked_at=at))


def count(run_dir: Path, number: int, about: dict[str, Any], known: Mapping[str, Truth]) -> datetime:
    """Count a look as part `number`, since a run of several stages looks several times; when it was. Looked at before it was killed, a
    resumed run has looked once: the store may know of it already."""
    told = run_dir / "parts" / f"looks-{number:06d}.parquet"
    at: datetime = rundir.read_part(told)["looked_at"][0].as_py() if told.exists() else datetime.now(UTC)
    rundir.write_part(run_dir, "looks", [dict(
        model_id=about["model_id"], snapshot_id=about["snapshot_id"], test_set_id=about["test_set_id"], split=split,
        images=len(known[split]), good_images=sum(not boxes for boxes in known[split].values()),
        boxes=sum(map(len, known[split].values())), looked_at=at, classes=about["classes"],
        thresholds=[about["thresholds"].get(c) for c in about["classes"]]) for split in SPLITS], number)
    return at


def _by_content(found: list[Prediction], known: Truth, ids: Mapping[str, str]) -> tuple[list[Prediction], Truth]:
    """Answers and true boxes with images named by content."""
    names = by_content(known, ids)
    return [{**p, "file_name": names[p["file_name"]]} for p in found], {names[n]: boxes for n, boxes in known.items()}


def by_content(known: Truth, ids: Mapping[str, str]) -> dict[str, str]:
    """The name of each file's content; of a second file of one content, as lists may hold it, '<id>-2'."""
    seen, found = Counter[str](), {}
    for name in sorted(known):
        content = ids.get(name, name)
        seen[content] += 1
        found[name] = content if seen[content] == 1 else f"{content}-{seen[content]}"
    return found


def rows(model_id: str, found: list[Prediction], known: Truth) -> Iterator[dict[str, Any]]:
    """Rows of `predictions`, by image and class from sure to unsure. `hit_box`: which true box of its class in this image it hits at
    IoU 0.5, in the order of x1, y1; -1: none. A threshold moves nothing in this, as the surer box comes first."""
    groups: dict[tuple[str, str], list[Prediction]] = defaultdict(list)
    for p in found:
        groups[p["file_name"], p["category"]].append(p)
    for (name, kind), some in sorted(groups.items()):
        ranked = sorted(some, key=lambda p: -p["score"])
        boxes = np.array(sorted(b for c, b in known[name] if c == kind), float).reshape(-1, 4)
        hits, which = match_boxes(np.array([p["bbox"] for p in ranked[:MOST]], float), boxes)
        for i, p in enumerate(ranked):
            if p["score"] >= LOWEST_THRESHOLD:
                x, y, w, h = p["bbox"]
                yield dict(model_id=model_id, split="test", image_id=name, class_name=kind, confidence=p["score"], x1=x, y1=y, x2=x + w,
                           y2=y + h, hits=int(hits[i]) if i < MOST else 0, hit_box=int(which[i]) if i < MOST else -1)


def score(found: list[Prediction], known: Truth, head: dict[str, Any]) -> dict[str, Any]:
    """A split's figures as model.json has them: averages, and what is missed and wrongly rejected at the model's thresholds."""
    return {**evaluation.evaluate(found, known, head["classes"]), **evaluation.rates(found, known, head["thresholds"])}


# ---- the recipe

def run(config: Score, run_dir: Path, report: Any) -> dict[str, Any]:
    """Ask a model that was trained before once more for its own val and test images, and keep what it says. Raises ConfigError."""
    folder = rundir.find_model(config.model, "detector")
    head = rundir.read_json(folder / "model.json")
    if rundir.kind_of(head) != "detector":
        raise ConfigError(f"{head['name']!r} is a {rundir.kind_of(head)}; only detectors are scored box by box.")
    if done := rundir.own_result(run_dir, "scored", head["model_id"]):
        return done
    snapshot_run = rundir.find_snapshot(head["snapshot_id"])
    data = snapshot.read(snapshot_run)
    leaks.refuse(data.pictures)

    # its answers, through the artifact
    ids, known = {p.file_name: p.image_id for p in data.pictures}, {split: truth(data, split) for split in SPLITS}
    found = {split: evaluation.predict(folder, sorted(known[split]), lambda name: np.asarray(images.load(ids[name])),
                                       partial(_tell, report, split, known)) for split in SPLITS}

    # kept, as a training keeps them
    figures = {split: score(found[split], known[split], head) for split in SPLITS}
    about = described(head, rundir.test_set_id(snapshot_run))
    result = dict(name=head["name"], **said(about, figures))
    scratch = run_dir / "scoring"
    scratch.mkdir(exist_ok=True)
    keep(scratch, run_dir, about | dict(result=result), found, known, ids)
    shutil.rmtree(scratch)
    return result


def _tell(report: Any, split: str, known: Mapping[str, Truth], n: int) -> None:
    before, total = len(known["val"]) * (split == "test"), sum(map(len, known.values()))
    report(step=before + n, total=total, message=f"scoring on {split}, image {n + 1} of {len(known[split])}")


def described(head: dict[str, Any], test_set_id: str) -> dict[str, Any]:
    """What is kept of a model.json beside its answers."""
    kept = ("model_id", "name", "dataset", "snapshot_id", "classes", "thresholds")
    return {k: head[k] for k in kept} | dict(test_set_id=test_set_id)


def said(about: dict[str, Any], figures: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """What a run's result says of its look. A share that the images cannot tell is None."""
    val, test = figures["val"], figures["test"]
    return dict(model_id=about["model_id"], snapshot_id=about["snapshot_id"], dataset=about["dataset"], test_set_id=about["test_set_id"],
                map50=test["map50"], map50_95=test["map50_95"], val_map50=val["map50"], val_map50_95=val["map50_95"],
                missed_images=test.get("missed_images"), false_rejects=test.get("false_rejects"))
