"""The method `perturb`: a good train picture, a mask, and in it what a denoiser, another surface or noise puts there.

Attempts are made and judged at `imgsz`; a larger picture keeps its own size, its change is enlarged. Behind the recipe
`synthesize`; knows nothing of files.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from backend import rundir
from backend.config import Synthesize
from backend.data.snapshot import Picture, Snapshot
from backend.device import torch_device
from backend.diffusion import ddpm
from backend.errors import ConfigError, NotFoundError
from backend.synthesis import blend, keeping, masks, sources
from backend.synthesis.filling import Filling
from backend.synthesis.methods import Made, Opened, Task, chosen, judged, opened
from backend.teacher.extractors import extractor

CLASS = "defect"                 # where nobody names one


@dataclass(frozen=True)
class Attempt:
    """One try, at the size at which it is made."""

    number: int
    parent: Picture
    normal: blend.Image
    mask: blend.Mask
    opacity: float
    rng: np.random.Generator


class ByPerturbation:
    """Which picture, mask and opacity an attempt has, and what comes of it."""

    def __init__(self, config: Synthesize, data: Snapshot) -> None:
        if config.start == "inpaint":
            raise ConfigError("A perturbation starts from the image or from noise; 'inpaint' is for the method 'prior'.")
        self.config, self.data = config, data
        ddpm_wanted = config.source == "ddpm"
        self.denoiser = ddpm.find(config.denoiser, data, good=bool(sources.defective(data))) if ddpm_wanted else None
        folder = shapes_folder(config.masks)
        self.parents, self.shapes = good_parents(config, data), shapes_of(config, folder)
        named = rundir.read_json(folder / "head.json")["name"] if folder else CLASS
        self.classes = [config.class_name.strip() or named]
        self.keys = {"denoiser": key_in(self.denoiser), "shapes": key_in(folder)}
        self.advice = f"Raise opacity, area{', variance or depth' if ddpm_wanted else ''}."
        self.pictures = Opened(self.parents, config.imgsz)

    def open(self) -> dict[str, Any]:
        denoiser = ddpm.load(self.denoiser).to(torch_device()) if self.denoiser else None
        self.filling = Filling(self.config, denoiser, self.pictures)
        self.witness = blend.Witness(extractor("efficientnet-lite0").to(torch_device()))
        return dict(self.keys)

    def make(self, tasks: list[Task], tick: Callable[[], None]) -> Iterator[Made | str]:
        attempts = [self.attempt(t) for t in tasks]
        normals, shapes = [a.normal for a in attempts], [a.mask for a in attempts]
        changes = self.filling.changes(normals, shapes, [a.rng for a in attempts])
        results = [blend.blend(a.normal, c, a.mask, a.opacity) for a, c in zip(attempts, changes, strict=True)]
        for attempt, change, (seen, refusal) in zip(attempts, changes, judged(self.witness, normals, results, shapes), strict=True):
            yield refusal or self._made(attempt, change, seen)

    def _made(self, attempt: Attempt, change: blend.Image, seen: blend.Mask) -> Made:
        result, mask = own_size(attempt, change, seen)
        about = dict(parent=attempt.parent.image_id, source=self.config.source, opacity=round(attempt.opacity, 4))
        return Made(result, attempt.normal, mask, keeping.outlines(mask, self.classes[0]), "mask", about)

    def warnings(self) -> list[str]:
        """A sentence, where what is put into good pictures was learned from labelled defects: such a set is not made without them."""
        head, known = rundir.read_json(self.denoiser / "head.json") if self.denoiser else {}, sources.defective(self.data)
        if not head.get("steps") or head.get("good") or not known:
            return []
        return [f"The diffusion model {head['name']!r} has learned from {len(known)} {'image' if len(known) == 1 else 'images'} with a "
                "labelled defect: a model trained on this set owes something to those labels. Train one with the setting 'good' to do "
                "without."]

    def attempt(self, task: Task) -> Attempt:
        rng = np.random.default_rng([self.config.seed, task.number])
        parent = chosen(self.config, task, len(self.parents))
        normal = self.pictures[parent]
        mask = shape_for(self.config, rng, normal, self.shapes)
        opacity = float(rng.uniform(self.config.low_opacity, self.config.high_opacity))
        return Attempt(task.number, self.parents[parent], normal, mask, opacity, rng)


# ---- shared with other methods that change good pictures

def good_parents(config: Synthesize, data: Snapshot) -> list[Picture]:
    """Raises ConfigError where there is none."""
    if found := sources.good(data):
        return found
    raise ConfigError(f"The dataset {config.dataset!r} has no good train images: each carries a box. Import images of good parts too.")


def shapes_folder(name: str) -> Path | None:
    folder = rundir.find_artifact("masks", name) if name else None
    if name and folder is None:
        raise NotFoundError(f"There is no set of masks called {name!r}.")
    return folder


def shapes_of(config: Synthesize, folder: Path | None) -> list[blend.Mask]:
    found = masks.collected(folder) if folder else []
    if folder and not found:
        raise ConfigError(f"The set of masks {config.masks!r} is empty.")
    return found


def shape_for(config: Synthesize, rng: np.random.Generator, normal: blend.Image, shapes: Sequence[blend.Mask]) -> blend.Mask:
    """One of the shapes, by chance, somewhere in the picture; Perlin noise where there are none."""
    height, width = normal.shape[:2]
    allowed = masks.foreground(normal) if config.foreground else None
    if len(shapes):
        return masks.place(rng, shapes[int(rng.integers(len(shapes)))], height, width, allowed)
    return masks.draw(rng, height, width, config.low_area, config.high_area, allowed)


def key_in(folder: Path | None) -> str:
    return str(rundir.read_json(folder / "head.json")["key"]) if folder else ""


def own_size(attempt: Attempt, change: blend.Image, seen: blend.Mask) -> tuple[blend.Image, blend.Mask]:
    """The result and its effective mask at the parent's own size: what was changed in a reduced picture is enlarged, and nothing else."""
    normal, mask, size = attempt.normal, attempt.mask, (attempt.parent.width, attempt.parent.height)
    if size != (normal.shape[1], normal.shape[0]):
        difference = cv2.resize(change.astype(np.float32) - normal, size)
        mask, seen = (cv2.resize(m.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0 for m in (mask, seen))
        normal = np.asarray(opened(attempt.parent))
        change = np.clip(np.rint(normal + difference), 0, 255).astype(np.uint8)
    return blend.blend(normal, change, mask, attempt.opacity), seen
