"""What a method of making defects owes the recipe `synthesize`: which classes, and for each attempt a labelled picture or a refusal.

    by_perturbation   a masked part of a good picture is replaced
    by_prior          a diffusion prior draws: over a picture, from noise, or into a good picture
    by_paste          a real defect is cut out and set in elsewhere

An attempt is a class and a number; all its randomness follows from these and the seed. Stands between the recipe and the three. Knows
nothing of files.
"""

import json
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol
from zlib import crc32

import numpy as np

from backend.config import Synthesize
from backend.data import images
from backend.data.snapshot import Picture, Snapshot
from backend.diffusion import pictures
from backend.errors import ConfigError
from backend.synthesis import blend, sources

LEFT = 0.25                      # of a mask must be seen, and FEWEST pixels
FEWEST = 12
FAINT, UNSEEN = "too faint in pixels", "unseen by features"
OPEN = 256 * 2**20               # bytes of decoded pictures at hand


@dataclass(frozen=True)
class Task:
    """One attempt: the class, and the how-manieth of it."""

    class_name: str
    number: int
    again: int | None = None         # an attempt of an earlier set, whose parent it takes; none: what its own number gives


@dataclass(frozen=True)
class Again:
    """Attempts of an earlier set that are made once more: the seed that chose their parents, and their numbers class by class."""

    seed: int
    attempts: dict[str, list[int]]

    @classmethod
    def of(cls, config: Synthesize) -> "Again | None":
        """None where the config asks for none. Raises ConfigError."""
        if not config.again:
            return None
        try:
            told = json.loads(config.again)
            found = cls(int(told["seed"]), {str(c): [int(n) for n in numbers] for c, numbers in told["attempts"].items()})
        except (ValueError, TypeError, KeyError, AttributeError) as problem:
            raise ConfigError("Attempts to make again are given as JSON: "
                              '{"seed": 0, "attempts": {"scratch": [3, 7]}}.') from problem
        if found.seed < 0 or not all(found.attempts.values()) or any(n < 0 for some in found.attempts.values() for n in some):
            raise ConfigError("Attempts to make again have numbers from 0 on, at least one of each class.")
        return found

    def counts(self, classes: list[str]) -> dict[str, int]:
        """As many of each class as were made. Raises ConfigError."""
        if unknown := sorted(self.attempts.keys() - set(classes)):
            raise ConfigError(f"There is nothing to make {', '.join(unknown)} of again. Classes are: {', '.join(classes)}.")
        return {c: len(self.attempts.get(c, ())) for c in classes}

    def tasks(self, tasks: Sequence["Task"], items: Sequence[dict[str, Any]]) -> list["Task"]:
        """The attempts with the parents of earlier ones, each in turn: of each class those that are not among the `items` made so far, so
        that where one was refused the next try is its own."""
        left = {c: _without(numbers, [i["again"] for i in items if i["class_name"] == c]) for c, numbers in self.attempts.items()}
        return [replace(t, again=left[t.class_name][t.number % len(left[t.class_name])]) for t in tasks]


def _without(numbers: list[int], some: list[int]) -> list[int]:
    """In their order, each as often as it is there more than among `some`."""
    left = list(numbers)
    for number in some:
        if number in left:                       # an older program made one twice where another was refused
            left.remove(number)
    return left


@dataclass(frozen=True)
class Made:
    """A picture with its labels, as COCO has them but for "class_name". `original` and `outline` are for people to see.

    `mask` is the outline of what was made, None where nobody knows one; `exact` says that it tells of every defective pixel.
    """

    image: blend.Image
    original: blend.Image | None
    mask: blend.Mask | None
    labels: list[dict[str, Any]]
    boxes_from: str                  # mask | parent | whole
    about: dict[str, Any]            # parent, donor, source, opacity ...
    exact: bool = True


class Method(Protocol):
    """Light to create, so that what cannot be is said at once; `open` loads the networks."""

    classes: list[str]
    keys: dict[str, Any]             # of what it is made with, by which a finished set is known again
    advice: str                      # for a person none of whose attempts came to anything

    def open(self) -> dict[str, Any]:
        """Load what it takes; what the artifact's head says of that."""

    def make(self, tasks: list[Task], tick: Callable[[], None]) -> Iterator[Made | str]:
        """Of each task, in order, what was made, or why nothing was. `tick` is called now and then, and may raise, to cancel."""

    def warnings(self) -> list[str]:
        """Sentences that a person should know before trusting the set."""


def rng_of(seed: int, task: Task, *more: int) -> np.random.Generator:
    """The same for a class whether it is made alone or together with others."""
    return np.random.default_rng([seed, crc32(task.class_name.encode()), task.number, *more])


def in_turn(seed: int, number: int, n: int) -> int:
    """Which of n things an attempt takes: every one comes before any comes again."""
    turn, place = divmod(number, n)
    return int(np.random.default_rng([seed, turn, 1]).permutation(n)[place])


def chosen(config: Synthesize, task: Task, n: int) -> int:
    """Which of n things an attempt takes, or an earlier one took that it repeats: all else of it is by a chance of its own."""
    again = Again.of(config)
    if again is None or task.again is None:
        return in_turn(config.seed, task.number, n)
    return in_turn(again.seed, task.again, n)


def classes_of(config: Synthesize, data: Snapshot) -> list[str]:
    """The classes to make, of which train shows at least one picture. Raises ConfigError."""
    known = {c for p in sources.usable(data) for c in p.classes}
    named = config.class_name.strip()
    if named and named not in known:
        there = f" It has {', '.join(sorted(known))}." if known else " None of them carries a box."
        raise ConfigError(f"No train image of {config.dataset!r} shows the class {named!r}.{there}")
    if not known:
        raise ConfigError(f"No train image of {config.dataset!r} carries a box, so there is no defect to learn from or to cut out.")
    return [named] if named else [c for c in data.classes if c in known]


def judged(witness: blend.Witness, normals: Sequence[blend.Image], results: Sequence[blend.Image], masks: Sequence[blend.Mask]
           ) -> list[tuple[blend.Mask, str]]:
    """Of each change, the effective mask and why it is refused ('' kept)."""
    seen = [blend.effective(n, r, m) for n, r, m in zip(normals, results, masks, strict=True)]
    clear = [int(s.sum()) >= max(min(FEWEST, int(m.sum())), LEFT * int(m.sum())) for s, m in zip(seen, masks, strict=True)]
    there = [i for i, c in enumerate(clear) if c]
    told = witness.sees([normals[i] for i in there], [results[i] for i in there], [seen[i] for i in there])
    known = dict(zip(there, told, strict=True))
    return [(s, FAINT if not clear[i] else "" if known[i] else UNSEEN) for i, s in enumerate(seen)]


class Opened(Sequence[blend.Image]):
    """Pictures, opened when asked for: uint8 (h, w, 3), the longer side at most `side` (none: their own size)."""

    def __init__(self, parents: list[Picture], side: int | None = None) -> None:
        self.parents, self.side = parents, side
        self._kept: OrderedDict[int, blend.Image] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self.parents)

    def __getitem__(self, i: Any) -> Any:
        if i in self._kept:
            self._kept.move_to_end(i)
            return self._kept[i]
        image = opened(self.parents[i])
        self._kept[i] = found = pictures.scaled(image, self.side or max(image.size), 3)
        self._bytes += found.nbytes
        while self._bytes > OPEN and len(self._kept) > 1:
            self._bytes -= self._kept.popitem(last=False)[1].nbytes
        return found


def opened(picture: Picture) -> Any:
    """A Pillow picture, upright, RGB."""
    return images.decode(picture.path.read_bytes(), picture.file_name)
