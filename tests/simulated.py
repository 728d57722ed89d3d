"""Runs that no network made: of recipes whose true difference is known, on test sets drawn anew, for tests and benchmarks of comparisons.

Like NEU-DET's test set and the YOLO11n trained on it here: 360 images, six classes, map50 near 0.7; two seeds of one recipe differ by a
point, about half of it by what each makes of just these images. What is hard is so for all runs; each recipe finds some images hard
that the other does not; each seed has its luck, with a class or with all.
"""

from dataclasses import dataclass

import numpy as np

from backend.evaluation.outcomes import Outcomes
from backend.evaluation.scored import Scored

# how clear the defects of each class are: AP50 from about 0.45 to 0.9
CLARITY = {"crazing": -0.6, "inclusion": 1.2, "patches": 2.8, "pitted_surface": 1.2, "rolled-in_scale": 0.3, "scratches": 2.6}
NAMES = list(CLARITY)

# points of map50 -> the extra clarity in all classes that adds them, on the mean of 600 test sets
PLANTED = {0: 0.0, 2: 0.177, 6: 0.549}


@dataclass(frozen=True)
class Plant:
    """A test set: for each thing that might be boxed, its image, class, whether it is a defect, and how much like one it looks."""

    images: int
    lot: np.ndarray          # (images,)
    image: np.ndarray        # (things,)
    kind: np.ndarray         # (things,)
    true: np.ndarray         # (things,) bool
    looks: np.ndarray        # (things,)

    @property
    def names(self) -> np.ndarray:
        return np.array([f"{i:04d}.png" for i in range(self.images)])

    @property
    def groups(self) -> list[list[str]]:
        return [list(self.names[self.lot == k]) for k in np.unique(self.lot)]

    @property
    def boxes(self) -> np.ndarray:
        """(images, classes) number of true ones."""
        count = np.zeros((self.images, len(NAMES)), np.uint16)
        np.add.at(count, (self.image[self.true], self.kind[self.true]), 1)
        return count


def plant(rng: np.random.Generator, images: int = 360, good: int = 0, lots: int = 0, alike: float = 0.0) -> Plant:
    """Defects and, in every image, things that resemble them. `alike`: how much images of one lot share in being hard or easy."""
    main, lot = np.arange(images) % len(NAMES), np.arange(images) % lots if lots else np.arange(images)
    hard = rng.normal(0, np.sqrt(1 - alike**2), images) + rng.normal(0, alike, images)[lot]
    count = 1 + rng.poisson(1.3, images)
    count[images - good:] = 0
    defects = np.repeat(np.arange(images), count)
    kinds = np.where(rng.random(len(defects)) < 0.05, rng.integers(len(NAMES), size=len(defects)), main[defects])
    clear = np.array(list(CLARITY.values()))[kinds] + hard[defects] + rng.normal(0, 1, len(defects))
    others = np.repeat(np.arange(images), rng.poisson(2.5 * np.exp(rng.normal(0, 0.7, images))))
    taken = np.where(rng.random(len(others)) < 0.7, main[others], rng.integers(len(NAMES), size=len(others)))
    return Plant(images, lot, np.concatenate([defects, others]), np.concatenate([kinds, taken]),
                 np.arange(len(defects) + len(others)) < len(defects), np.concatenate([clear, rng.normal(-0.7, 1.2, len(others))]))


@dataclass(frozen=True)
class Recipe:
    """What all its runs share: extra clarity of each class's defects, and the images that it finds harder or easier than others do."""

    plant: Plant
    bonus: np.ndarray        # (classes,)
    own: np.ndarray          # (images,)

    def confidence(self, rng: np.random.Generator, luck: float = 1.0) -> np.ndarray:
        """(things,) of one run; 0 where it boxes nothing. `luck` scales what seeds alone do."""
        p, n = self.plant, len(self.plant.image)
        clearer = self.bonus + luck * (rng.normal(0, 0.04) + rng.normal(0, 0.08, len(NAMES)))
        sure = p.looks + p.true * (clearer[p.kind] + self.own[p.image]) + rng.normal(0, 0.9, n)
        return np.where(p.true & (rng.random(n) < 0.03), 0, 1 / (1 + np.exp(-sure / 1.5)))

    def scored(self, rng: np.random.Generator, luck: float = 1.0) -> Scored:
        p, score = self.plant, self.confidence(rng, luck)
        order = np.lexsort((-score, p.kind))
        order = order[score[order] > 0]
        ends = np.searchsorted(p.kind[order], np.arange(len(NAMES)), side="right")
        return Scored(p.names, np.array(NAMES), p.boxes, ends, p.image[order], score[order].astype(np.float16),
                      p.true[order].astype(np.uint16))

    def outcomes(self, rng: np.random.Generator, luck: float = 1.0) -> Outcomes:
        p, score = self.plant, self.confidence(rng, luck)
        surest, found = np.zeros((2, p.images, len(NAMES)), np.float32)
        np.maximum.at(surest, (p.image, p.kind), score)
        np.maximum.at(found, (p.image, p.kind), score * p.true)
        return Outcomes(p.names, np.array(NAMES), p.boxes > 0, surest, found)


def recipe(rng: np.random.Generator, on: Plant, bonus: float | dict[str, float] = 0.0, own: float = 0.5) -> Recipe:
    """`bonus`: in all classes, or in those named. `own`: how much it differs from other recipes in what it finds hard, by image or lot."""
    each = np.array([bonus.get(c, 0.0) if isinstance(bonus, dict) else bonus for c in NAMES])
    return Recipe(on, each, rng.normal(0, own, on.images)[on.lot])


def experiment(seed: int, bonus: float | dict[str, float], seeds: int = 5, images: int = 360, lots: int = 0,
               luck: float = 1.0) -> tuple[list[Scored], list[Scored], Plant]:
    """A recipe with this bonus and one without, on a test set of their own."""
    rng = np.random.default_rng(seed)
    on = plant(rng, images, lots=lots, alike=0.6 if lots else 0.0)
    arms = recipe(rng, on, bonus), recipe(rng, on)
    a, b = ([arm.scored(rng, luck) for _ in range(seeds)] for arm in arms)
    return a, b, on
