"""The method `paste`: a defect of a train picture, cut out and set into a good one, or into a free region of another.

The baseline that costs nothing to train. Every defect of a class comes before any comes again. A scene is a good train picture; where a
dataset has none, a picture of the same class, else of another (not where each picture is to show one class: `same_class`), whose own
boxes stay and are kept clear of. Of some by chance, the scene that looks most like the donor is taken: our choice, since a surface set
into an unlike one is seen by anybody. Behind the recipe `synthesize`; knows nothing of files or networks, but for the witness that says
whether the change is seen.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np

from backend.config import Synthesize
from backend.data import images
from backend.data.marks import Box
from backend.data.snapshot import Picture, Snapshot
from backend.device import torch_device
from backend.errors import ConfigError
from backend.synthesis import blend, keeping, masks, paste, sources
from backend.synthesis.methods import Made, Opened, Task, chosen, classes_of, judged, rng_of
from backend.teacher.extractors import extractor

SCENES = 6               # good ones looked at for an attempt; of the others MANY, since few have room
MANY = 24
UNLIKE = 0.7             # of logarithms: scenes that show another class, and look less like the donor, are none
APART = 4                # pixels between what is set in and what was there
CROSSED = 0.2            # of another box inside what is cut out: more, and it comes along
NO_ROOM = "no room in any scene"
Cluster = tuple[Picture, tuple[Box, ...]]


class ByPaste:
    """Donors by class, scenes, and what comes of an attempt."""

    def __init__(self, config: Synthesize, data: Snapshot) -> None:
        self.config, self.keys, self.advice = config, dict[str, Any](), "Take a class with smaller defects, or import images of good parts."
        self.pictures = Opened(sources.usable(data))
        self.at = {p.image_id: i for i, p in enumerate(self.pictures.parents)}
        donors = {c: list(clusters(sources.of_class(data, c), c)) for c in classes_of(config, data)}
        self.donors = {c: found for c, found in donors.items() if found}
        self.without = [c for c, found in donors.items() if not found]
        self.classes = list(self.donors)
        if not self.classes:
            raise ConfigError(f"Nothing can be cut out of {config.dataset!r}: its labels are of whole images and do not say where. "
                              "Choose the method 'prior'.")
        self.good = sources.good(data)
        self.scenes = defaultdict[str, list[Picture]](list)
        for p in self.pictures.parents:
            if p.boxes and all(b.source != "image" for b in p.boxes):
                self.scenes[sources.main_class(p)].append(p)
        self.looks: dict[str, tuple[float, float, float]] = {}

    def open(self) -> dict[str, Any]:
        self.witness = blend.Witness(extractor("efficientnet-lite0").to(torch_device()))
        return {}

    def warnings(self) -> list[str]:
        said = [f"Nothing of the class {c!r} can be cut out: its labels are of whole images." for c in self.without]
        if not self.good:
            said.append("The dataset has no good train images: defects were set into free regions of defective ones, whose boxes stay.")
        return said

    def make(self, tasks: list[Task], tick: Callable[[], None]) -> Iterator[Made | str]:
        tried = list["Pasted | str"]()
        for task in tasks:
            tick()
            tried.append(self._tried(task))
        there = [t for t in tried if isinstance(t, Pasted)]
        told = judged(self.witness, [t.before for t in there], [t.after for t in there], [t.mask for t in there])
        refusals = iter([refusal for _, refusal in told])
        for t in tried:
            yield t if isinstance(t, str) else next(refusals) or t.made()

    def _tried(self, task: Task) -> "Pasted | str":
        """What is cut out is always the same for a number; the first scene with room for it takes it."""
        rng, found = rng_of(self.config.seed, task), self.donors[task.class_name]
        donor, boxes = found[chosen(self.config, task, len(found))]
        outline, exact = outline_of(donor, boxes)
        if not outline.any():
            return "the outline is empty"
        told = tuple((b.class_name, b.x1, b.y1, b.x2, b.y2) for b in boxes)
        piece = paste.cut(self._pixels(donor), outline, told)
        for scene in self._scenes(rng, donor, task.class_name):
            stripes = self._look(donor)[2] * self._look(scene)[2]
            fitted = paste.turned(piece, rng, (scene.height, scene.width), exact, stripes)
            place = paste.spot(fitted, self._taken(scene), rng) if fitted else None
            if fitted and place:
                return Pasted(self._pixels(scene), fitted, place, scene, donor, exact, task.class_name)
        return NO_ROOM

    def _scenes(self, rng: np.random.Generator, donor: Picture, class_name: str) -> Iterator[Picture]:
        """Some of those by chance that may take the piece, the likest to its donor first."""
        other = [p for c in sorted(self.scenes) if c != class_name and not self.config.same_class for p in self.scenes[c]]
        kinds = [(self.good, SCENES, np.inf)] if self.good else [(self.scenes[class_name], MANY, np.inf), (other, MANY, UNLIKE)]
        here = np.array(self._look(donor))
        for kind, most, unlike in kinds:
            free = [p for p in kind if p.image_id != donor.image_id and not (p.group_id and p.group_id == donor.group_id)]
            some = {p.image_id: p for p in (free[i] for i in rng.permutation(len(free))[:most])}
            far = {i: float(np.abs(here - self._look(p))[:2].sum()) for i, p in some.items()}
            yield from (some[i] for i in sorted(some, key=lambda i: (far[i], i)) if far[i] <= unlike)

    def _look(self, picture: Picture) -> tuple[float, float, float]:
        """Brightness and roughness, both logarithms, and grain."""
        if picture.image_id not in self.looks:
            pixels = self._pixels(picture)
            grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32)
            rough = float(np.median(np.abs(grey - cv2.GaussianBlur(grey, (0, 0), 2.0))[::3, ::3]))
            self.looks[picture.image_id] = float(np.log(10 + np.median(grey[::3, ::3]))), float(np.log(1 + rough)), paste.grain(pixels)
        return self.looks[picture.image_id]

    def _pixels(self, picture: Picture) -> blend.Image:
        return np.asarray(self.pictures[self.at[picture.image_id]], np.uint8)

    def _taken(self, scene: Picture) -> blend.Mask:
        """Where nothing may be set in: defects that are there, and what is no object where that is asked for."""
        taken = np.zeros((scene.height, scene.width), np.uint8)
        for b in scene.boxes:
            taken[max(0, int(b.y1)):int(np.ceil(b.y2)), max(0, int(b.x1)):int(np.ceil(b.x2))] = 1
        if scene.mask:
            taken |= images.load_mask(scene.mask).astype(np.uint8)
        free = cv2.dilate(taken, np.ones((2 * APART + 1,) * 2, np.uint8)) == 0
        return ~(free & masks.foreground(self._pixels(scene))) if self.config.foreground else ~free


class Pasted:
    """A scene before and after, and what to say of it."""

    def __init__(self, before: blend.Image, piece: paste.Piece, place: tuple[int, int], scene: Picture, donor: Picture, exact: bool,
                 class_name: str) -> None:
        self.before, self.piece, self.place, self.scene, self.donor = before, piece, place, scene, donor
        self.exact, self.class_name = exact, class_name
        self.after, (top, left), (h, w) = paste.paste(before, piece, *place), place, piece.outline.shape
        self.mask = np.zeros(before.shape[:2], bool)
        self.mask[top:top + h, left:left + w] = piece.outline

    def made(self) -> Made:
        """The new boxes and those of the scene. A mask that leaves out a known defect, or stands for a box, is none to measure by."""
        (top, left), (height, width), own = self.place, self.mask.shape, self.scene.boxes
        moved = ((name, x1 + left, y1 + top, x2 + left, y2 + top) for name, x1, y1, x2, y2 in self.piece.boxes)
        new = keeping.outlines(self.mask, self.class_name) if self.exact else keeping.boxed(moved, width, height)
        kept = keeping.boxed(((b.class_name, b.x1, b.y1, b.x2, b.y2) for b in own), width, height)
        mask = self.mask | images.load_mask(self.scene.mask) if self.scene.mask else self.mask
        about = dict(parent=self.scene.image_id, donor=self.donor.image_id, source="paste")
        return Made(self.after, self.before, mask, kept + new, "mask", about, self.exact and (not own or bool(self.scene.mask)))


# ---- what is cut out

def clusters(donors: list[Picture], class_name: str) -> Iterator[Cluster]:
    """Boxes that are cut out together: one, and those of the same picture that would be cut through otherwise. Each cluster once, and
    only where it shows this class; with an outline, only this."""
    for donor in donors:
        known, seen = [b for b in donor.boxes if b.source != "image"], set[frozenset[int]]()
        for i, box in enumerate(known):
            chosen = _together(known, i, 0.0 if outlined(donor) else CROSSED)
            names = {known[k].class_name for k in chosen}
            if box.class_name == class_name and chosen not in seen and (names == {class_name} or not outlined(donor)):
                seen.add(chosen)
                yield donor, tuple(known[k] for k in sorted(chosen))


def outlined(picture: Picture) -> bool:
    """Its boxes are those of its mask."""
    return bool(picture.mask) and all(b.source == "mask" for b in picture.boxes)


def _together(boxes: list[Box], first: int, crossed: float) -> frozenset[int]:
    """Numbers of boxes: the first, and all of which more than a share lies inside, or, of none, beside one that is among them."""
    chosen, near = {first}, 0 if crossed else paste.MARGIN
    while met := {i for i, b in enumerate(boxes) if i not in chosen and any(_inside(b, boxes[k], near) > crossed for k in chosen)}:
        chosen |= met
    return frozenset(chosen)


def _inside(box: Box, other: Box, near: float) -> float:
    """The share of a box that lies in another, widened."""
    across = min(other.x2 + near, box.x2) - max(other.x1 - near, box.x1)
    down = min(other.y2 + near, box.y2) - max(other.y1 - near, box.y1)
    return max(0.0, across) * max(0.0, down) / ((box.x2 - box.x1) * (box.y2 - box.y1))


def outline_of(donor: Picture, boxes: tuple[Box, ...]) -> tuple[blend.Mask, bool]:
    """The defect's outline in its picture, and whether it is the true one: that of the mask, else what its boxes suggest."""
    if not outlined(donor):
        return suggested(donor, boxes), False
    mask, inside = images.load_mask(donor.mask), np.zeros((donor.height, donor.width), bool)
    for b in boxes:
        inside[int(b.y1):int(np.ceil(b.y2)), int(b.x1):int(np.ceil(b.x2))] = True
    n, numbers = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    whole, within = (np.bincount(where, minlength=n) for where in (numbers.ravel(), numbers[inside]))
    chosen = (2 * within > whole) & (np.arange(n) > 0)
    return np.asarray(chosen[numbers]), True


def suggested(donor: Picture, boxes: tuple[Box, ...]) -> blend.Mask:
    """An outline that boxes suggest. Never empty."""
    return np.asarray(np.any([paste.superellipse(donor.height, donor.width, (b.x1, b.y1, b.x2, b.y2)) for b in boxes], axis=0))
