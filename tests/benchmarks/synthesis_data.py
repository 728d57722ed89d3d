"""What the synthesis benchmark imports: published datasets as they are, and parts of their train lists drawn by seed.

Of NEU-DET there are two forms: with its boxes, and with a folder for each class, made of links, since a file's name gives its class.
Val and test are always the published lists. Knows nothing of what is learned from any of it.
"""

import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.benchmarks.record import SHARED
from tests.benchmarks.sets import NEU, TILE

PIPED = SHARED / "data" / "PIPED"
# Names stand in captions, so they say what one sees. What tells parts of one material apart stands in brackets, which captions leave out:
# else prompts would differ by part and seed
STEEL, TILES, PAPER = "rolled steel", "magnetic tile", "paper"
# The class of the long tail, chosen before anything was run: few in train, the second fewest, and 17 in test. Of Fray, the
# rarest, test has 9, too few to see a difference by.
TAIL, LEFT = "Crack", 5
TRAIN, RARE, CLASSES = 800, 34, 6    # images of the tiles' train list, those with such a defect among them; classes of NEU-DET


@dataclass(frozen=True)
class Source:
    """A dataset to import. `drawn` gives the lines of its train list (none: the published one), `size` is how many these are."""

    name: str
    folder: Path
    prefix: str = ""                 # of its published lists; none there: split by folders
    drawn: Callable[[], tuple[str, ...]] | None = None
    size: int = 0
    by_class: bool = False           # a folder for each class

    def words(self, data: Path) -> tuple[str, ...]:
        """Of the command that imports it; what that reads is written into the benchmark's data folder."""
        folder = class_folders(data / "by-class") if self.by_class else self.folder
        layout = ("--layout", "class-folders") if self.by_class else ()
        splits = self.folder / "splits"
        if not splits.exists():
            return str(folder), *layout
        if self.drawn is None:
            return str(folder), "--splits", str(splits), *(("--split-prefix", self.prefix) if self.prefix else ()), *layout
        lists = written(data / "lists" / self.name, dict(train=self.drawn(), **{s: listed(self, s) for s in ("val", "test")}))
        return str(folder), "--splits", str(lists), *layout


def listed(source: Source, split: str) -> tuple[str, ...]:
    return tuple((source.folder / "splits" / f"{source.prefix}{split}.txt").read_text().split())


def kind(name: str) -> str:
    """The class that the name of a NEU-DET file gives: 'rolled-in_scale_12' is rolled-in_scale."""
    return Path(name).stem.rsplit("_", 1)[0]


# ---- the sources

ROLLED, BY_CLASS = Source(STEEL, NEU), Source(f"{STEEL} (by class)", NEU, by_class=True)
ALL_TILES, ALL_PAPER = Source(TILES, TILE, "det-"), Source(PAPER, PIPED)


def few(n: int, seed: int, by_class: bool) -> Source:
    """n images of each class of NEU-DET's train list. More of the same seed hold the fewer; both forms hold the same."""
    return Source(f"{STEEL} ({n} {seed}{'' if by_class else ' boxed'})", NEU, "", lambda: drawn(listed(ROLLED, "train"), n, seed),
                  CLASSES * n, by_class)


def cut(seed: int) -> Source:
    """magnetic-tile's det- lists with LEFT train images of the class TAIL."""
    return Source(f"{TILES} ({seed})", TILE, "det-", lambda: without(listed(ALL_TILES, "train"), seed), TRAIN - RARE + LEFT)


def without(lines: tuple[str, ...], seed: int) -> tuple[str, ...]:
    rare = {line for line in lines if line.split("/")[0] == f"MT_{TAIL}"}
    kept = set(some(rare, LEFT, np.random.default_rng(seed)))
    return tuple(line for line in lines if line not in rare or line in kept)


def drawn(stems: Iterable[str], n: int, seed: int) -> tuple[str, ...]:
    """n of each class, by chance."""
    groups: dict[str, list[str]] = defaultdict(list)
    for stem in stems:
        groups[kind(stem)].append(stem)
    return tuple(s for i, c in enumerate(sorted(groups)) for s in sorted(some(groups[c], n, np.random.default_rng([seed, i]))))


def some(names: Iterable[str], n: int, rng: np.random.Generator) -> Iterator[str]:
    """The first n of a chance order."""
    order = sorted(names)
    assert len(order) >= n, f"{n} of {len(order)}"
    return (order[i] for i in rng.permutation(len(order))[:n])


# ---- files

def class_folders(folder: Path) -> Path:
    """NEU-DET's images as <class>/<file>, linked, where that cannot be copied. The folder appears when it is whole."""
    def fill(half: Path) -> None:
        for picture in sorted((NEU / "IMAGES").iterdir()):
            target = half / kind(picture.name) / picture.name
            target.parent.mkdir(exist_ok=True)
            try:
                os.link(picture, target)
            except OSError:                             # another file system, or one without links
                shutil.copyfile(picture, target)

    return whole(folder, fill)


def written(folder: Path, lists: dict[str, tuple[str, ...]]) -> Path:
    def fill(half: Path) -> None:
        for split, lines in lists.items():
            (half / f"{split}.txt").write_text("\n".join(lines) + "\n")

    return whole(folder, fill)


def whole(folder: Path, fill: Callable[[Path], None]) -> Path:
    """A folder that appears when all of it is there; of two that make it at once, one is first."""
    if not folder.exists():
        half = folder.with_name(f".{folder.name}.{os.getpid()}")
        half.mkdir(parents=True)
        fill(half)
        with suppress(OSError):
            half.rename(folder)
        shutil.rmtree(half, ignore_errors=True)
    return folder
