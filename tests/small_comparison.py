"""Finished trainings of a detector in miniature: drawn plates with two kinds of defect, and runs that find them with a chance of their own.

What a run found is drawn, not trained; snapshot, records, parts and verdicts are made by the real code.
"""

import io
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from backend import jobs, rundir
from backend.config import Compare
from backend.data import images, shares, snapshot
from backend.data.marks import Box
from backend.data.snapshot import Picture
from backend.evaluation import compare, looks

KINDS = ("pits", "scratches")
SIZE, MADE = (128, 96), 4         # pixels; synthetic train images
SKILL = {"real": {"pits": 0.62, "scratches": 0.55}, "both": {"pits": 0.6, "scratches": 0.85}}          # chance of finding one, without luck


def plate(rng: np.random.Generator, defects: int, size: tuple[int, int] = SIZE) -> tuple[Image.Image, list[Box]]:
    """A brushed grey plate with dark pits and bright scratches."""
    wide, high = size
    rows = rng.normal(0, 5, (high, 1)) + rng.normal(0, 4, (high, wide))
    picture = Image.fromarray((128 + rows).clip(0, 255).astype(np.uint8)).convert("RGB")
    pen, boxes = ImageDraw.Draw(picture), []
    for _ in range(defects):
        kind = KINDS[int(rng.integers(2))]
        w, h = (int(wide * s) for s in (rng.uniform(.1, .18), rng.uniform(.1, .16)))
        x, y = int(rng.integers(2, wide - w - 2)), int(rng.integers(2, high - h - 2))
        if kind == "pits":
            for _ in range(6):
                cx, cy, r = x + rng.uniform(.15, .85) * w, y + rng.uniform(.15, .85) * h, wide * rng.uniform(.008, .018)
                pen.ellipse([cx - r, cy - r, cx + r, cy + r], fill=(52, 50, 48))
        else:
            pen.line([x, y + h, x + w * .4, y + h * .5, x + w, y], fill=(205, 203, 196), width=max(1, wide // 90))
        boxes.append(Box(kind, float(x), float(y), float(x + w), float(y + h)))
    return picture, boxes


def dataset(test: int = 24, good: int = 6, name: str = "Plates", seed: int = 0, size: tuple[int, int] = SIZE,
            train: int = 6) -> snapshot.Snapshot:
    """As imported; val and test with good plates, train with a few synthetic ones."""
    rng, pictures = np.random.default_rng(seed), []
    for split, n in (("train", train + MADE), ("val", max(4, test // 2)), ("test", test)):
        for k in range(n):
            clean = k < {"train": 0, "val": good // 2, "test": good}[split]
            picture, boxes = plate(rng, 0 if clean else int(rng.integers(1, 4)), size)
            data = io.BytesIO()
            picture.save(data, "PNG")
            image_id = images.sha256(data.getvalue())
            images.keep(data.getvalue(), image_id, "PNG")
            made = dict(origin="synthetic", parent=pictures[0].image_id) if split == "train" and k >= train else {}
            pictures.append(Picture(image_id, f"{split}-{k:03d}.png", *size, phash=f"{len(pictures):016x}", boxes=tuple(boxes), split=split,
                                    **made))
    made = rundir.create("import", jobs.Import(path="/x", name=name).to_json())
    snapshot.write(made, pictures, list(KINDS), [], dict(name=name, layout="yolo", seed=0, splits_from="folders", explanation=""))
    rundir.write_json(made / "result.json", {})
    rundir.set_state(made, "completed", finished_at=rundir.now())
    return snapshot.read(made)


def found(pictures: list[Picture], skill: dict[str, float], seed: int) -> list[dict[str, Any]]:
    """What a run found: how hard a defect is hangs on the picture, the same for all runs; luck on the seed."""
    rng, listed = np.random.default_rng(seed + 1), []
    for p in pictures:
        hard = np.random.default_rng(int(p.image_id[:8], 16))
        for b in p.boxes:
            chance = skill[b.class_name] + hard.normal(0, .18) + rng.normal(0, .08)
            if chance > .5:
                listed.append(_box(p, b.class_name, [b.x1, b.y1, b.x2, b.y2], min(.97, chance), rng))
        if rng.random() < .25:
            w, h = p.width * .14, p.height * .14
            x, y = rng.uniform(0, p.width - w), rng.uniform(0, p.height - h)
            listed.append(_box(p, KINDS[int(rng.integers(2))], [x, y, x + w, y + h], float(rng.uniform(.1, .5)), rng))
    return listed


def _box(p: Picture, kind: str, sides: list[float], score: float, rng: np.random.Generator) -> dict[str, Any]:
    x1, y1, x2, y2 = (s + rng.normal(0, 1.0) for s in sides)
    return dict(file_name=p.file_name, category=kind, bbox=[x1, y1, x2 - x1, y2 - y1], score=round(float(score), 4))


def trained(data: snapshot.Snapshot, arm: str, seed: int, **settings: Any) -> str:
    """A training that has ended, on real images or on both kinds. Id of its run."""
    config = jobs.TrainDetector(dataset=data.snapshot_id, name=f"Plates · {arm} · seed {seed}", epochs=4, seed=seed,
                                origin=settings.pop("origin", arm), **settings)
    return finish(rundir.create("train-detector", config.to_json()), data)


def finish(path: Path, data: snapshot.Snapshot) -> str:
    """What a training leaves when it ends: model, records, curves, result."""
    config = jobs.TrainDetector.from_json(rundir.read_json(path / "job.json")["config"])
    tally = shares.tally(data.by_split("train"), shares.Share.of(config))
    known = {split: looks.truth(data, split) for split in looks.SPLITS}
    skill = {kind: chance - .15 / (config.labels or 100) for kind, chance in SKILL[config.origin].items()}
    answers = {split: found(data.by_split(split), skill, config.seed) for split in looks.SPLITS}
    head: dict[str, Any] = dict(name=config.name, model_id=rundir.key_of(run=path.name), kind="detector", created_at=rundir.now(),
                                classes=data.classes, imgsz=config.imgsz, snapshot_id=data.snapshot_id, dataset=data.head["name"],
                                thresholds={"pits": .3, "scratches": .4}, settings=config.to_json())
    head["metrics"] = {split: looks.score(answers[split], known[split], head) for split in looks.SPLITS}
    _model(path, head)
    about = looks.described(head, data.test_set_id)
    (scratch := path / "training").mkdir()
    looks.keep(scratch, path, about, answers, known, {p.file_name: p.image_id for p in data.pictures})
    _curves(path, config.epochs, head["metrics"]["val"]["map50"])
    steps = config.epochs * -(-tally.shown // config.batch)
    rundir.write_json(path / "result.json", dict(
        name=config.name, **looks.said(about, head["metrics"]), real_images=tally.real, synthetic_images=tally.synthetic, shown=tally.shown,
        images_seen=config.epochs * tally.shown, steps=steps, seconds=12.0,
        good_images=sum(p.is_good for p in data.by_split("test"))))
    rundir.set_state(path, "completed", started_at=rundir.now(), finished_at=rundir.now())
    return path.name


def _model(path: Path, head: dict[str, Any]) -> None:
    (path / "model").mkdir()
    (path / "model" / "model.onnx").write_bytes(b"onnx")
    rundir.write_json(path / "model" / "model.json", head)
    rundir.write_part(path, "models", [{k: head[k] for k in ("model_id", "name", "kind", "snapshot_id", "imgsz", "classes")} | dict(
        created_at=datetime.now(UTC), metrics=json.dumps(head["metrics"]), settings=json.dumps(head["settings"]))])
    rundir.write_part(path, "model_thresholds", [dict(model_id=head["model_id"], class_name=c, threshold=t)
                                                 for c, t in head["thresholds"].items()])


def _curves(path: Path, epochs: int, best: float) -> None:
    points = [dict(step=k, at_s=3.0 * k, train_box_loss=2 / k, val_box_loss=2.2 / k, map50=best * k / epochs,
                   map50_95=best * k / epochs / 2)
              for k in range(1, epochs + 1)]
    (path / "metrics.jsonl").write_text("".join(json.dumps(p) + "\n" for p in points))


def compared(arms: dict[str, list[str]], baseline: str = "", name: str = "") -> str:
    """A comparison that has ended, made by the recipe. Id of its run."""
    return work_out(rundir.create("compare", Compare(arms=arms, baseline=baseline, name=name).to_json()))


def work_out(path: Path) -> str:
    """What a worker does with a comparison that waits."""
    config = Compare.from_json(rundir.read_json(path / "job.json")["config"])
    rundir.write_json(path / "result.json", compare.run(config, path, lambda **progress: None))
    rundir.set_state(path, "completed", finished_at=rundir.now())
    return path.name


def experiment(test: int = 24, good: int = 6, seeds: int = 2, size: tuple[int, int] = SIZE) -> tuple[dict[str, list[str]], str]:
    """Two arms of trainings on one dataset, and their comparison."""
    data = dataset(test, good, size=size)
    arms = {arm: [trained(data, arm, seed) for seed in range(seeds)] for arm in ("real", "both")}
    return arms, compared(arms, "real", "Does synthetic help?")
