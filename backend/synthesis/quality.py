"""The recipe `measure-synthesis`: how good a synthetic set is, class by class: `<run>/quality`. Start reading here.

Four questions: how far is it from real pictures that nothing was made from (KID, with what real pictures themselves get beside it);
is it a copy of what was learned from; is it as varied as real pictures; and does a detector see what its labels say, beside labels of
real pictures that it has not learned from. Measures and
informs; keeps and refuses nothing. What is seen of a picture is on disk before the next is looked at, so a killed run goes on.
Figures of distance are times 1,000. Knows nothing of how a set was made.
"""

import shutil
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image as Pillow

from backend import rundir
from backend.config import MeasureSynthesis
from backend.data import snapshot
from backend.data.snapshot import Picture, Snapshot
from backend.device import cores
from backend.errors import Canceled, InputError, NotFoundError, ResourceError
from backend.inspection import engine
from backend.synthesis import figures, keeping, labelled, looks, lots
from backend.synthesis.blend import Image
from backend.synthesis.figures import Measured, Seen
from backend.synthesis.looks import Eye
from backend.synthesis.lots import Lot
from backend.synthesis.methods import opened

FORMAT = 2               # of the artifact; part of its key
PAIRS = 12               # of made and real pictures that are shown, the nearest first


def run(config: MeasureSynthesis, run_dir: Path, report: Any) -> dict[str, Any]:
    folder = rundir.find_artifact("synthetic", config.synthetic) if config.synthetic else None
    if folder is None:
        raise NotFoundError(f"There is no synthetic set called {config.synthetic!r}." if config.synthetic else "Name the synthetic set.")
    data = snapshot.read(rundir.find_snapshot(rundir.read_json(folder / "head.json")["snapshot_id"]))
    detector = rundir.find_model(config.detector, "detector") if config.detector else None
    return make(config, folder, data, detector, run_dir, report)


def make(config: MeasureSynthesis, folder: Path, data: Snapshot, detector: Path | None, run_dir: Path, report: Any) -> dict[str, Any]:
    """Measure the set in `folder`, made of this snapshot; `detector` is a model's folder. Raises ConfigError, ResourceError."""
    head, scratch = rundir.read_json(folder / "head.json"), run_dir / "measuring"
    eye, seen_by = looks.opened(config.extractor, data)
    learned = lots.learned(head, data)
    model = rundir.read_json(detector / "model.json") if detector else {}
    key = rundir.key_of(kind="quality", format=FORMAT, set=head["key"], snapshot_id=data.snapshot_id, extractor=seen_by, seed=config.seed,
                        learned=sorted(learned.ids | learned.base), detector=model.get("model_id", ""))
    if (done := rundir.own_result(run_dir, "quality", key)) is not None:
        shutil.rmtree(scratch, ignore_errors=True)
        return done
    rundir.bound(scratch, key)
    torch.set_num_threads(cores())
    try:
        # which pictures, and what the network sees of them
        found = lots.lots(head, data, learned, config.seed)
        real = figures.together(p for lot in found for p in lot.real + lot.known)
        known = figures.together(p for lot in found for p in lot.known)
        made = [item for lot in found for item in lot.items]
        looked = len(real) + len(known) + len(made)
        beside, told_of = lots.beside(model, found, data, folder.parent.name) if model else ([], [])
        total = looked + (len(made) + sum(map(len, beside)) if detector else 0)
        seen = see_real(eye, real, known, scratch, _told(report, 0, total, "real"))
        drawn = Seen(eye.gather(len(made), lambda some: [picture(folder, made[i]) for i in some], scratch / "made",
                                _told(report, len(real) + len(known), total, "made")), [item["file"] for item in made])

        # the figures
        measured = [figures.measured(lot, drawn.of([i["file"] for i in lot.items]), seen, config.seed) for lot in found]
        answers = _check_labels(measured, found, beside, folder, engine.load(detector), _told(report, looked, total, "labelled")) \
            if detector else {}

        # the artifact, with the pairs that are most alike
        (out := scratch / "quality").mkdir(exist_ok=True)
        pairs, shown = _pairs([n for m in measured for n in m.nearest], folder, {p.image_id: p for p in real}, out)
        result = dict(name=config.name or head["name"], synthetic=dict(run=folder.parent.name, name=head["name"], key=head["key"]),
                      dataset=data.head["name"], snapshot_id=data.snapshot_id, extractor=config.extractor, detector=model.get("name", ""),
                      images=len(made), **figures.overall(measured), classes=[m.row for m in measured], pairs=pairs,
                      warnings=learned.warnings + told_of + _unmeasured(found))
        about = {n["made"]: [n["real"], n["ratio"]] for m in measured for n in m.nearest}
        rundir.keep_artifact(out, run_dir, "quality", dict(key=key, name=result["name"], set=head["key"], nearest=about, labels=answers,
                                                          result=result))
    except torch.OutOfMemoryError as problem:
        raise ResourceError("Out of memory while features were computed. Choose another extractor.") from problem
    except Canceled:
        shutil.rmtree(scratch)
        raise
    if shown:
        rundir.write_bytes(run_dir / "samples.png", keeping.preview(shown[:keeping.ROWS]))
    shutil.rmtree(scratch)
    return result


def _told(report: Any, before: int, total: int, kind: str) -> Callable[[int], None]:
    return lambda i: report(step=before + i, total=total, message=f"looking at {kind} images, {i + 1}")


def see_real(eye: Eye, real: list[Picture], known: list[Picture], scratch: Path, tell: Callable[[int], None]) -> Seen:
    """All real pictures, and those that could be copied in all turns."""
    found = eye.gather(len(real), lambda some: [pixels(real[i]) for i in some], scratch / "real", tell)
    turned = eye.turned(len(known), lambda some: [pixels(known[i]) for i in some], scratch / "known", lambda i: tell(len(real) + i))
    return Seen(found, [p.image_id for p in real], turned, [p.image_id for p in known])


def pixels(real: Picture) -> Image:
    return np.asarray(opened(real))


def picture(folder: Path, item: dict[str, Any]) -> Image:
    """Raises InputError."""
    try:
        return np.asarray(Pillow.open(folder / item["file"]).convert("RGB"))
    except OSError as problem:
        raise InputError(f"The image {item['file']} of the synthetic set is missing or damaged. Make the set again.") from problem


# ---- what a detector sees

def _check_labels(measured: list[Measured], found: list[Lot], beside: list[list[Picture]], folder: Path, detector: engine.Engine,
                  tell: Callable[[int], None]) -> dict[str, list[bool]]:
    """Adds to each row the shares of its labels that the detector finds, and the same of real pictures that it has not learned from.
    Of each made picture's file, which of its labels of the class were found."""
    number, each = count(), dict[str, list[bool]]()
    for m, lot, real in zip(measured, found, beside, strict=True):
        tally = labelled.checked(detector, _made(lot, folder, number, tell), lot.class_name)
        each |= {item["file"]: told for item, told in zip(lot.items, tally.pictures, strict=False)}
        m.row |= tally.shares()
        of_real = labelled.checked(detector, _real(real, number, tell), lot.class_name).shares()
        m.row |= {f"real_{k}": v for k, v in of_real.items()}
    return each


def _made(lot: Lot, folder: Path, number: Iterator[int], tell: Callable[[int], None]) -> Iterator[tuple[Image, list[Any]]]:
    for item in lot.items:
        tell(next(number))
        yield picture(folder, item), labels(folder, item, lot.class_name)


def _real(real: list[Picture], number: Iterator[int], tell: Callable[[int], None]) -> Iterator[tuple[Image, list[Any]]]:
    for p in real:
        tell(next(number))
        yield pixels(p), [[b.class_name, b.x1, b.y1, b.x2, b.y2] for b in p.boxes]


def labels(folder: Path, item: dict[str, Any], class_name: str) -> list[Any]:
    """[class, x1, y1, x2, y2] of a made picture; those of sets from before there were boxes are read off the mask."""
    if "boxes" in item or not item.get("mask"):
        return list(item.get("boxes", ()))
    mask = np.asarray(Pillow.open(folder / item["mask"]).convert("L")) > 127
    found = [label["bbox"] for label in keeping.outlines(mask, class_name)]
    return [[class_name, x, y, x + w, y + h] for x, y, w, h in found]


def _unmeasured(found: list[Lot]) -> list[str]:
    """Why there is no distance, where no class has one."""
    return [f"No class has a distance. {found[0].class_name}: {found[0].why}"] if all(lot.why for lot in found) else []


# ---- the pairs

def _pairs(nearest: list[dict[str, Any]], folder: Path, real: dict[str, Picture], out: Path
           ) -> tuple[list[dict[str, Any]], list[list[Image]]]:
    """The nearest of all, in measures of their class's limit, written as pair_000.png: made, real. And these pictures."""
    chosen = sorted(nearest, key=lambda n: (n["ratio"], n["made"]))[:PAIRS]
    shown = [[picture(folder, dict(file=n["made"])), pixels(real[n["real"]])] for n in chosen]
    for i, row in enumerate(shown):
        rundir.write_bytes(out / f"pair_{i:03d}.png", keeping.preview([row]))
    return [n | dict(file=f"pair_{i:03d}.png") for i, n in enumerate(chosen)], shown
