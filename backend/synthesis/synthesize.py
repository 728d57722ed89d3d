"""The recipe `synthesize`: good images become images with a defect whose outline is known: `<run>/synthetic`. Start reading here.

An attempt takes a good train picture, draws a mask, fills it (denoiser, other surface, noise), blends, and looks at what came
out; what one does not see is refused and counted. Every attempt's randomness follows from (seed, its number), so a killed run
comes to the same set. Attempts are judged at `imgsz`; a larger picture keeps its own size, its change is enlarged. Knows
nothing of detectors.
"""

import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image as Pillow

from backend import rundir
from backend.config import Synthesize
from backend.data import images, snapshot
from backend.data.snapshot import Picture
from backend.device import cores, torch_device
from backend.diffusion import ddpm, pictures
from backend.errors import Canceled, ConfigError, NotFoundError, ResourceError
from backend.synthesis import blend, keeping, masks, sources
from backend.synthesis.filling import Filling
from backend.teacher.extractors import extractor

FORMAT = 1                       # of the artifact; part of its key
CHUNK = 16                       # attempts between two checkpoints, on a CPU; four times that on a GPU
TRIES = 4                        # attempts for each image asked for, at most, and EXTRA more
EXTRA = 64
LEFT = 0.25                      # of a mask must be seen, and FEWEST pixels
FEWEST = 12
CLASS = "defect"                 # where no collected masks name one
FAINT, UNSEEN = "too faint in pixels", "unseen by features"
PREVIEW_S = 5                    # seconds between two previews


@dataclass(frozen=True)
class Attempt:
    """One try, at the size at which it is made."""

    number: int
    parent: Picture
    normal: blend.Image
    mask: blend.Mask
    opacity: float
    rng: np.random.Generator


def run(config: Synthesize, run_dir: Path, report: Any) -> dict[str, Any]:
    _check(config)
    data = snapshot.read(rundir.find_snapshot(config.dataset))
    denoiser = ddpm.find(config.denoiser, data, good=bool(sources.defective(data))) if config.source == "ddpm" else None
    shapes = _shapes(config.masks)
    return make(config, data, denoiser, shapes, run_dir, report)


def make(config: Synthesize, data: snapshot.Snapshot, denoiser: Path | None, shapes: Path | None, run_dir: Path,
         report: Any) -> dict[str, Any]:
    """Make the set of a snapshot's good pictures. `denoiser` and `shapes` are folders. Raises ConfigError, ResourceError."""
    keys = {"denoiser": _key_in(denoiser), "shapes": _key_in(shapes)}
    key, scratch = key_of(config, data.snapshot_id, keys), run_dir / "synthesizing"
    if (kept := run_dir / "synthetic" / "head.json").exists() and rundir.read_json(kept)["key"] == key:
        shutil.rmtree(scratch, ignore_errors=True)
        return dict(rundir.read_json(kept)["result"])
    rundir.bound(scratch, key)
    (scratch / "synthetic").mkdir(exist_ok=True)
    torch.set_num_threads(cores())
    try:
        # what to work on, what to fill masks with, who judges
        work = Work(config, data, shapes)
        filling = Filling(config, ddpm.load(denoiser).to(torch_device()) if denoiser else None, work.pictures)
        witness = blend.Witness(extractor("efficientnet-lite0").to(torch_device()))

        # attempts, until there are as many as asked for
        progress = keeping.taken_up(scratch / "done.jsonl")
        _fill(config, work, filling, witness, progress, run_dir, report)
        if not progress.items:
            raise ConfigError(f"None of {progress.attempts} attempts made a change that one sees. Raise opacity, area"
                              f"{', variance or depth' if config.source == 'ddpm' else ''}.")

        # the artifact
        named = rundir.read_json(shapes / "head.json")["name"] if shapes else CLASS
        rundir.write_json(scratch / "synthetic" / "labels.json", keeping.coco(progress, named))
        result = dict(_result(config, data, progress), warnings=_learned(denoiser, data))
        head = dict(key=key, name=config.name, dataset=data.head["name"], snapshot_id=data.snapshot_id, classes=[named], **keys,
                    source=config.source, settings=config.to_json(), items=progress.items, attempts=progress.attempts,
                    rejected=dict(progress.rejected), result=result)
        rundir.keep_artifact(scratch / "synthetic", run_dir, "synthetic", head)
    except torch.OutOfMemoryError as problem:
        raise ResourceError(f"Out of memory at {config.imgsz} px. Choose a smaller image size.") from problem
    except Canceled:
        shutil.rmtree(scratch)
        raise
    shutil.rmtree(scratch)
    short = "" if result["images"] == config.count else f" of {config.count}; the rest of {progress.attempts} attempts were hard to see"
    report(step=config.count, total=config.count, message=f"made {result['images']}{short}")
    return result


def _check(config: Synthesize) -> None:
    if not config.name:
        raise ConfigError("Give the synthetic set a name.")
    for what in ("opacity", "area"):
        low, high = getattr(config, f"low_{what}"), getattr(config, f"high_{what}")
        if low > high:
            raise ConfigError(f"The lowest {what}, {low}, is above the highest, {high}.")


def _shapes(name: str) -> Path | None:
    folder = rundir.find_artifact("masks", name) if name else None
    if name and folder is None:
        raise NotFoundError(f"There is no set of masks called {name!r}.")
    return folder


def _key_in(folder: Path | None) -> str:
    return str(rundir.read_json(folder / "head.json")["key"]) if folder else ""


def key_of(config: Synthesize, snapshot_id: str, keys: dict[str, str]) -> str:
    """What the set follows from; its name and the dataset's do not count, and denoiser and shapes do by their keys."""
    settings = {k: v for k, v in config.to_json().items() if k not in ("name", "dataset", "denoiser", "masks")}
    return rundir.key_of(kind="synthetic", format=FORMAT, snapshot_id=snapshot_id, **settings, **keys)


def _learned(denoiser: Path | None, data: snapshot.Snapshot) -> list[str]:
    """A sentence, where what is put into good pictures was learned from labelled defects: such a set is not made without them."""
    head, known = rundir.read_json(denoiser / "head.json") if denoiser else {}, sources.defective(data)
    if not head.get("steps") or head.get("good") or not known:
        return []
    return [f"The diffusion model {head['name']!r} has learned from {len(known)} {'image' if len(known) == 1 else 'images'} with a "
            "labelled defect: a model trained on this set owes something to those labels. Train one with the setting 'good' to do without."]


def _result(config: Synthesize, data: snapshot.Snapshot, progress: keeping.Progress) -> dict[str, Any]:
    n, seconds = len(progress.items), progress.seconds
    return dict(name=config.name, dataset=data.head["name"], snapshot_id=data.snapshot_id, source=config.source, images=n,
                attempts=progress.attempts, rejected=dict(progress.rejected), seconds=round(seconds, 1),
                images_per_second=round(n / seconds, 2))


# ---- attempts

class Work:
    """Which picture, mask and opacity an attempt has."""

    def __init__(self, config: Synthesize, data: snapshot.Snapshot, shapes: Path | None) -> None:
        self.config, self.parents = config, sources.good(data)
        if not self.parents:
            raise ConfigError(f"The dataset {config.dataset!r} has no good train images: each carries a box. "
                              "Import images of good parts too.")
        self.shapes = masks.collected(shapes) if shapes else []
        if shapes and not self.shapes:
            raise ConfigError(f"The set of masks {config.masks!r} is empty.")
        self.pictures = Opened(self.parents, config.imgsz)

    def attempt(self, number: int) -> Attempt:
        config, rng = self.config, np.random.default_rng([self.config.seed, number])
        chosen = self._chosen(number)
        normal = self.pictures[chosen]
        height, width = normal.shape[:2]
        allowed = masks.foreground(normal) if config.foreground else None
        mask = masks.place(rng, self.shapes[int(rng.integers(len(self.shapes)))], height, width, allowed) if self.shapes else \
            masks.draw(rng, height, width, config.low_area, config.high_area, allowed)
        return Attempt(number, self.parents[chosen], normal, mask, float(rng.uniform(config.low_opacity, config.high_opacity)), rng)

    def _chosen(self, number: int) -> int:
        """Every picture comes before any comes again."""
        turn, place = divmod(number, len(self.parents))
        return int(np.random.default_rng([self.config.seed, turn, 1]).permutation(len(self.parents))[place])


class Opened(Sequence[blend.Image]):
    """Good pictures, opened when asked for: uint8 (h, w, 3), the longer side at most `side`."""

    def __init__(self, parents: list[Picture], side: int) -> None:
        self.parents, self.side = parents, side

    def __len__(self) -> int:
        return len(self.parents)

    def __getitem__(self, i: Any) -> Any:
        return pictures.scaled(opened(self.parents[i]), self.side, 3)


def opened(picture: Picture) -> Pillow.Image:
    return images.decode(picture.path.read_bytes(), picture.file_name)


def _fill(config: Synthesize, work: Work, filling: Filling, witness: blend.Witness, progress: keeping.Progress, run_dir: Path,
          report: Any) -> None:
    """Chunk after chunk; each is on disk, whole, before its line says so."""
    scratch, shown, drawn_at = run_dir / "synthesizing", list[list[blend.Image]](), -np.inf
    most = TRIES * config.count + EXTRA
    while (missing := config.count - len(progress.items)) and progress.attempts < most:
        report(step=len(progress.items), total=config.count, message=f"making image {len(progress.items) + 1} of {config.count}")
        began, first = time.monotonic(), progress.attempts
        numbers = range(first, min(most, first + min(missing, CHUNK * (1 if torch_device() == "cpu" else 4))))
        line, rows = _made([work.attempt(n) for n in numbers], filling, witness, scratch / "synthetic", len(progress.items))
        line |= dict(attempts=numbers.stop, seconds=time.monotonic() - began)
        keeping.append(scratch / "done.jsonl", line)
        progress.add(line)
        shown = [*shown, *rows][-keeping.ROWS:]
        if shown and (time.monotonic() - drawn_at > PREVIEW_S or len(progress.items) == config.count):
            rundir.write_bytes(run_dir / "samples.png", keeping.preview(shown))
            drawn_at = time.monotonic()


def _made(attempts: list[Attempt], filling: Filling, witness: blend.Witness, folder: Path, number: int
          ) -> tuple[dict[str, Any], list[list[blend.Image]]]:
    """A chunk's images, written from this number on: what `done.jsonl` says of them, and rows of the preview."""
    items, outlines, rejected, rows = list[dict[str, Any]](), [], Counter[str](), []
    for attempt, change, seen, refusal in judged(attempts, filling, witness):
        if refusal:
            rejected[refusal] += 1
            continue
        result, mask = own_size(attempt, change, seen)
        about = dict(parent=attempt.parent.image_id, source=filling.config.source, seed=filling.config.seed, attempt=attempt.number,
                     opacity=round(attempt.opacity, 4))
        items.append(keeping.write(folder, number + len(items), result, mask) | about)
        outlines.append(keeping.outlines(mask))
        rows.append([attempt.normal, keeping.grey(mask), result])
    return dict(items=items, outlines=outlines, rejected=rejected), rows


def judged(attempts: list[Attempt], filling: Filling, witness: blend.Witness
           ) -> Iterator[tuple[Attempt, blend.Image, blend.Mask, str]]:
    """Attempts with their change, their effective mask, and why they are refused ('' kept), in order."""
    changes = filling.changes([a.normal for a in attempts], [a.mask for a in attempts], [a.rng for a in attempts])
    results = [blend.blend(a.normal, c, a.mask, a.opacity) for a, c in zip(attempts, changes, strict=True)]
    seen = [blend.effective(a.normal, r, a.mask) for a, r in zip(attempts, results, strict=True)]
    clear = [int(s.sum()) >= max(FEWEST, LEFT * int(a.mask.sum())) for a, s in zip(attempts, seen, strict=True)]
    there = [i for i, c in enumerate(clear) if c]
    told = witness.sees([attempts[i].normal for i in there], [results[i] for i in there], [seen[i] for i in there])
    known = dict(zip(there, told, strict=True))
    for i, attempt in enumerate(attempts):
        yield attempt, changes[i], seen[i], FAINT if not clear[i] else "" if known[i] else UNSEEN


def own_size(attempt: Attempt, change: blend.Image, seen: blend.Mask) -> tuple[blend.Image, blend.Mask]:
    """The result and its effective mask at the parent's own size: what was changed in a reduced picture is enlarged, and nothing else."""
    normal, mask, size = attempt.normal, attempt.mask, (attempt.parent.width, attempt.parent.height)
    if size != (normal.shape[1], normal.shape[0]):
        difference = cv2.resize(change.astype(np.float32) - normal, size)
        mask, seen = (cv2.resize(m.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0 for m in (mask, seen))
        normal = np.asarray(opened(attempt.parent))
        change = np.clip(np.rint(normal + difference), 0, 255).astype(np.uint8)
    return blend.blend(normal, change, mask, attempt.opacity), seen
