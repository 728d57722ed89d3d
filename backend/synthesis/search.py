"""The recipe `search-synthesis`: which strength, guidance and steps of an adapted prior come nearest to real pictures: `<run>/search`.

As StableSDG iterates by FID (arXiv 2405.01872), by KID here: with as few pictures as this, FID is biased. Every setting draws the same
parents with the same noise, so that settings differ by nothing else. Parents are pictures that the adapter learned from, the
reference is what it held apart: val and test are never looked at. A distance alone would always choose to leave the parent as it is, so
copies are counted beside it. What is drawn is seen and forgotten, chunk by chunk; a killed run goes on. Start reading at `run`.
"""

import json
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import torch

from backend import rundir
from backend.config import SearchSynthesis, Synthesize
from backend.data import snapshot
from backend.data.snapshot import Snapshot
from backend.device import cores, torch_device
from backend.errors import Canceled, ConfigError, ResourceError
from backend.synthesis import figures, keeping, looks, lots, measures, sources
from backend.synthesis.blend import Image
from backend.synthesis.figures import Seen
from backend.synthesis.looks import Eye, Looks
from backend.synthesis.lots import Lot
from backend.synthesis.methods import in_turn
from backend.synthesis.prior import draw, stable
from backend.synthesis.prior.stable import Prior
from backend.synthesis.quality import pixels, see_real

FORMAT = 2               # of the artifact; part of its key
EXTRACTOR = "efficientnet-lite0"
WHAT = ("strength", "guidance", "steps")


@dataclass(frozen=True)
class Setting:
    strength: float
    guidance: float
    steps: int


def run(config: SearchSynthesis, run_dir: Path, report: Any) -> dict[str, Any]:
    data = snapshot.read(rundir.find_snapshot(config.dataset))
    found = stable.find(config.prior, data)
    if found.kind != "adapter":
        raise ConfigError(f"{found.name!r} has not been adapted to {data.head['name']!r}, so nothing is held apart to measure against. "
                          "Adapt it first.")
    if found.head["snapshot_id"] != data.snapshot_id:
        raise ConfigError(f"{found.name!r} was adapted to {found.head['dataset']!r}, or to another state of it. Adapt a prior to "
                          f"{data.head['name']!r} as it is now.")
    return make(config, data, found, run_dir, report)


def make(config: SearchSynthesis, data: Snapshot, found: stable.Found, run_dir: Path, report: Any) -> dict[str, Any]:
    """Try all settings with an adapted prior. Raises ConfigError, ResourceError."""
    settings, (classes, left_out) = _settings(config), _classes(config, data, found)
    key, scratch = key_of(config, data, found), run_dir / "searching"
    if (done := rundir.own_result(run_dir, "search", key)) is not None:
        shutil.rmtree(scratch, ignore_errors=True)
        return done
    rundir.bound(scratch, key)
    torch.set_num_threads(cores())
    try:
        # what is measured against, and who draws
        eye, _ = looks.opened(EXTRACTOR, data)
        real = figures.together(p for lot in classes for p in lot.real)
        known = figures.together(p for lot in classes for p in lot.known)
        total = len(settings) * len(classes) * config.images
        seen = see_real(eye, real, known, scratch, lambda i: report(step=0, total=total, message=f"looking at real images, {i + 1}"))
        prior = stable.open_prior(found, torch_device(), "auto")

        # every setting with every class
        search = Search(config, data, prior, eye, seen, scratch, run_dir)
        rows = [search.row(s, lot, tell) for s, lot, tell in _told(settings, classes, config.images, total, report)]

        # which is best
        summed = [_summed(s, [r for r in rows if _same(r, s)], config.images) for s in settings]
        best, warnings = chosen(summed)
        result = dict(name=config.name or found.name, dataset=data.head["name"], snapshot_id=data.snapshot_id, prior=found.name,
                      adapter=found.key, images=config.images, rows=rows, settings=summed,
                      best=best, nearest=min(summed, key=lambda s: s["kid"]),
                      floor={lot.class_name: figures.thousandths(figures.floor_of(lot, seen, config.seed)) for lot in classes},
                      seconds=round(sum(r["seconds"] for r in rows), 1), warnings=left_out + warnings)
        (out := scratch / "search").mkdir(exist_ok=True)
        rundir.keep_artifact(out, run_dir, "search", dict(key=key, name=result["name"], snapshot_id=data.snapshot_id, adapter=found.key,
                                                          settings=config.to_json(), result=result))
    except torch.OutOfMemoryError as problem:
        raise ResourceError("Out of memory while the prior was drawing. Choose a prior of smaller pictures.") from problem
    except Canceled:
        shutil.rmtree(scratch)
        raise
    shutil.rmtree(scratch)
    return result


def key_of(config: SearchSynthesis, data: Snapshot, found: stable.Found) -> str:
    settings = {k: v for k, v in config.to_json().items() if k not in ("name", "dataset", "prior")}
    return rundir.key_of(kind="search", format=FORMAT, looks=looks.FORMAT, snapshot_id=data.snapshot_id, adapter=found.key, **settings)


# ---- what is tried

def _settings(config: SearchSynthesis) -> list[Setting]:
    """All combinations, within what `synthesize` takes. Raises ConfigError."""
    tried = [_numbers(text, what) for text, what in zip((config.strengths, config.guidances, config.steps), WHAT, strict=True)]
    return [Setting(strength, guidance, int(steps)) for strength, guidance, steps in product(*tried)]


def _numbers(text: str, what: str) -> list[float]:
    try:
        found = sorted({int(word) if what == "steps" else float(word) for word in text.replace(",", " ").split()})
    except ValueError as problem:
        raise ConfigError(f"{what} must be {'whole ' if what == 'steps' else ''}numbers separated by spaces, not {text!r}.") from problem
    if not found:
        raise ConfigError(f"Give at least one {what} to try.")
    for number in found:
        Synthesize.from_json({what: number})                  # raises where it is outside the range
    return found


def _classes(config: SearchSynthesis, data: Snapshot, found: stable.Found) -> tuple[list[Lot], list[str]]:
    """The classes that can be measured, and why others cannot. Raises ConfigError where none can."""
    known, named = list(found.head["classes"]), config.class_name.strip()
    if named and named not in known:
        raise ConfigError(f"{found.name!r} has not learned the class {named!r}. It has learned {', '.join(known)}.")
    tried = [_lot(config, c, data, found) for c in ([named] if named else known)]
    if all(lot.why for lot in tried):
        raise ConfigError(f"No class can be measured. {tried[0].class_name}: {tried[0].why} Adapt the prior with a larger share held "
                          "apart.")
    return [lot for lot in tried if not lot.why], [f"{lot.class_name} was left out. {lot.why}" for lot in tried if lot.why]


def _lot(config: SearchSynthesis, class_name: str, data: Snapshot, found: stable.Found) -> Lot:
    """A class with the pictures that will be drawn: over learned ones in turn, to be measured against those held apart."""
    held, learned, shown = set(found.head["held"]), set(found.head["learned"]), lots.real_of(data, class_name)
    parents = sources.alone([p for p in shown if p.image_id in learned])
    turns = [in_turn(config.seed, i, len(parents)) for i in range(config.images if parents else 0)]
    items = [dict(file=f"{i:06d}", parent=parents[turn].image_id) for i, turn in enumerate(turns)]
    return Lot(class_name, items, [p for p in shown if p.image_id in held], parents, parents, [lots.group(parents[turn]) for turn in turns])


# ---- drawing and measuring

def _told(settings: list[Setting], classes: list[Lot], images: int, total: int, report: Any
          ) -> Iterable[tuple[Setting, Lot, Callable[[int], None]]]:
    """Each setting with each class, and how to report what is drawn of it."""
    for number, (s, lot) in enumerate(product(settings, classes)):
        def tell(done: int, before: int = number * images, s: Setting = s, lot: Lot = lot) -> None:
            report(step=before + done, total=total,
                   message=f"{lot.class_name}: strength {s.strength:g}, guidance {s.guidance:g}, {s.steps} steps")
        yield s, lot, tell


class Search:
    """Who draws, who looks, and what there is to compare with."""

    def __init__(self, config: SearchSynthesis, data: Snapshot, prior: Prior, eye: Eye, seen: Seen, scratch: Path, run_dir: Path) -> None:
        self.config, self.prior, self.eye, self.seen, self.scratch, self.run_dir = config, prior, eye, seen, scratch, run_dir
        self.dataset = str(data.head["name"])

    def row(self, setting: Setting, lot: Lot, tell: Callable[[int], None]) -> dict[str, Any]:
        """The figures of a setting and a class; those of a finished one are read again."""
        name = f"{setting.strength:g}-{setting.guidance:g}-{setting.steps}-{crc32(lot.class_name.encode()):08x}"
        kept = self.scratch / f"{name}.json"
        if kept.exists():
            return dict(json.loads(kept.read_bytes()))
        began = time.monotonic()
        made = self.eye.gather(len(lot.items), lambda some: self._drawn(setting, lot, some, tell), self.scratch / name, tell)
        row = dict(vars(setting), class_name=lot.class_name, **self._figures(lot, made), seconds=round(time.monotonic() - began, 2))
        rundir.write_json(kept, row)
        (self.scratch / f"{name}.f4").unlink()
        return row

    def _figures(self, lot: Lot, made: Looks) -> dict[str, Any]:
        kid, near = figures.distance(lot, made, self.seen), figures.copies(made, self.seen, lot.known, lot.real)
        return dict(**figures.thousandths(kid), **figures.counted([near.counted] if near else []), beside=len(near.real) if near else None,
                    diversity=figures.diversity(made, self.seen.real(lot.real)))

    def _drawn(self, setting: Setting, lot: Lot, some: range, tell: Callable[[int], None]) -> list[Image]:
        """Pictures of these numbers: parent and seed follow from the number and the class, and from no setting."""
        parents = {p.image_id: p for p in lot.known}
        before = [pixels(parents[lot.items[i]["parent"]]) for i in some]
        seeds = [int(np.random.default_rng([self.config.seed, crc32(lot.class_name.encode()), i]).integers(2**63)) for i in some]
        prompt = stable.prompt_for(self.prior, self.dataset, lot.class_name)
        found = draw.redraw(self.prior, before, None, [prompt] * len(before), seeds, strength=setting.strength, guidance=setting.guidance,
                            steps=setting.steps, each=lambda: tell(some.start))
        rows = [list(pair) for pair in zip(before, found, strict=True)][:keeping.ROWS]
        rundir.write_bytes(self.run_dir / "samples.png", keeping.preview(rows))
        return found


# ---- the best

def _same(row: dict[str, Any], setting: Setting) -> bool:
    return all(row[what] == getattr(setting, what) for what in WHAT)


def _summed(setting: Setting, rows: list[dict[str, Any]], images: int) -> dict[str, Any]:
    """A setting over its classes, each with the same weight: so many images."""
    kid = measures.mean([measures.Estimate(*(r[k] / 1000 for k in ("kid", "low", "high"))) for r in rows])
    varied = [r["diversity"] for r in rows if r["diversity"] is not None]
    copies = [measures.Counted(round(r["copied"] * images), images, r["beside"]) for r in rows if r["copied"] is not None]
    return dict(vars(setting), **figures.thousandths(kid), **figures.counted(copies),
                diversity=round(float(np.mean(varied)), 4) if varied else None)


def chosen(summed: list[dict[str, Any]]) -> tuple[dict[str, Any], list[str]]:
    """The setting with the smallest distance of those that copy little; where all copy, the one that copies least, and a sentence."""
    honest = [s for s in summed if not s["copying"]]
    if honest:
        return min(honest, key=lambda s: s["kid"]), []
    best = min(summed, key=lambda s: (s["copied"], s["kid"]))
    return best, [f"With every setting more of the images lie nearer to one learned from than real ones do than chance would make; the "
                  f"best is the one with the fewest ({best['copied']:.0%}). Try greater strengths."]

