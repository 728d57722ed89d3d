"""Where the arms of the synthesis benchmark are made: the product's commands on a data folder, each thing once, found again by name.

Surface priors learn from drawn surfaces and the train images of other datasets, never of the one they are for. Adapters and sets see
what the seed's dataset shows of train. An arm with made pictures gets the optimiser steps of the one without. Knows nothing of
which arms there are.
"""

import math
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backend import rundir
from backend.data import snapshot
from tests.benchmarks import arms
from tests.benchmarks.sets import write_truth
from tests.benchmarks.settings import Settings, asked, here
from tests.benchmarks.synthesis_data import ALL_PAPER, ALL_TILES, ROLLED, Source

# Of all parts, chosen beforehand (steps of drawing: half as many on a CPU): low-shot ones have no further images to search on, and
# settings that were searched for one arm of kid on the images that all are compared with would favour this one
STRENGTH, GUIDANCE, DENOISING = 0.6, 2.0, 20
BATCH = 16               # of a detector


@dataclass(frozen=True)
class Shape:
    """How long everything is. `folder` of results."""

    folder: str
    preset: str              # of surface priors
    drawn: int               # surfaces to draw
    prior: tuple[int, int]   # steps of autoencoder and diffusion network
    scratch: tuple[int, int]         # the same, of a prior from a few images alone
    batch: int               # crops a step
    adapter: tuple[int, int]         # steps of tokens and of the low-rank changes
    denoising: int           # steps of drawing a picture
    made: int                # images of each class to measure
    classifier: int          # steps
    denoiser: int            # steps of the diffusion model that perturbs
    tail: int                # epochs of the arm without made pictures
    added: int               # pictures of the rare class in an arm's train split
    detection: int           # epochs of the arm without made pictures
    imgsz: int = 224         # of detectors
    side: int = 128          # of classifiers
    known: int = 0           # train images of each class in the part kid; 0: all


# "cpu" is what two cores without bf16 end in days, not weeks. With 771 train images `tail` takes 49 steps an epoch, with `added` 56: 24 and
# 21 epochs, 1,176 steps each; `detection` 8 and 24, 792 steps each.
SHAPES = {
    "cpu": Shape("synthesis", "small", 2000, (1500, 6000), (400, 1200), 16, (200, 600), DENOISING // 2, 20, 300, 600, 24, 120, 99),
    "gpu": Shape("synthesis-gpu", "small", 6000, (4000, 15_000), (1500, 5000), 64, (500, 1500), DENOISING, 100, 2000, 8000, 80, 120, 300),
    "check": Shape("synthesis-check", "tiny", 8, (2, 2), (2, 2), 2, (2, 2), 2, 8, 2, 2, 1, 8, 1, 64, 32, 40),
}


@dataclass(frozen=True)
class Lab(arms.Lab):
    """A data folder of the product, in which arms are made for one seed."""

    shape: Shape = SHAPES["cpu"]     # type: ignore[assignment]

    # ---- what arms build on

    def read(self, source: Source) -> str:
        """A dataset, imported."""
        return self.done("import", source.name, *source.words(self.data))

    def prior(self, without: str) -> str:
        """The surface prior for a dataset: from drawn surfaces, paper, and the other one of steel and tiles."""
        other = ALL_TILES if without == "steel" else ROLLED
        return self.learned(f"all but {without}", [self.read(other), self.read(ALL_PAPER)], self.shape.drawn, self.shape.prior, 0)

    def learned(self, name: str, datasets: list[str], drawn: int, steps: tuple[int, int], seed: int) -> str:
        return self.done("train-prior", name, "--datasets", ",".join(datasets), "--preset", self.shape.preset, "--drawn", str(drawn),
                         "--autoencoder-steps", str(steps[0]), "--steps", str(steps[1]), "--batch", str(self.shape.batch),
                         "--seed", str(seed))

    def adapted(self, data: str, prior: str, space: str = "both", held: float = 0.0, seed: int | None = None) -> str:
        tokens, lora = self.shape.adapter
        return self.done("adapt-prior", f"{data} {space}", "--dataset", data, "--prior", prior, "--space", space, "--held-out", str(held),
                         "--token-steps", str(tokens), "--lora-steps", str(lora), "--seed", str(self.seed if seed is None else seed))

    def drawn(self, name: str, data: str, prior: str, count: int, start: str, strength: float = STRENGTH, guidance: float = GUIDANCE,
              *words: str) -> str:
        return self.set(name, data, "prior", count, "--prior", prior, "--start", start, "--strength", str(strength), "--guidance",
                        str(guidance), "--steps", str(self.shape.denoising), *words)

    def set(self, name: str, data: str, method: str, count: int, *words: str) -> str:
        return self.done("synthesize", name, "--dataset", data, "--method", method, "--count", str(count), "--seed", str(self.seed), *words)

    def joined(self, data: str, made: str, most: int | None = None) -> str:
        """A dataset with a set in its train split, all of it or so many by chance; but for what nearly equals a test picture."""
        limit = () if most is None else ("--limit", str(most))
        return self.done("combine", f"{data} + {made}", "--dataset", data, "--sets", made, "--which", "all", *limit)

    def detector(self, name: str, data: str, with_made: str, epochs: int) -> str:
        """YOLO11n; `epochs` on `data` alone, as many steps on what made pictures were added to."""
        plain, more = (steps_of(self.size(d)) for d in (data, with_made))
        return self.done("train-detector", name, "--dataset", with_made, "--epochs", str(max(1, round(epochs * plain / more))),
                         "--imgsz", str(self.shape.imgsz), "--batch", str(BATCH), "--optimizer", "MuSGD",
                         "--seed", str(self.seed))

    def size(self, data: str) -> int:
        """How many train images a dataset has."""
        recipe = next(r for r in rundir.SNAPSHOT_MAKERS if self._found(r, data)[1])
        return int(rundir.read_json(self.folder(recipe, data) / "snapshot.json")["images"]["train"])

    def near(self, source: Source) -> dict[str, Any]:
        """Near-duplicates of a published dataset, by the product's rule: `groups` of test images that belong together, by stem; `alike`,
        how many train images nearly equal a test image. Equal for all arms and seeds."""
        data, together = snapshot.read(self.folder("import", self.read(source))), defaultdict[str, list[str]](list)
        for p in data.by_split("test"):
            together[p.group_id].append(Path(p.file_name).stem)
        together.pop("", None)
        train = data.by_split("train")
        return dict(groups=sorted(sorted(stems) for stems in together.values() if len(stems) > 1),
                    alike=dict(train=len(train), near_test=sum(p.group_id in together for p in train)))

    def truth(self) -> Path:
        """Folder of the tiles' true boxes."""
        self.read(ALL_TILES)
        with self._alone("truth"):
            folder = self.data / "tile-truth"
            return folder if folder.exists() else write_truth(self.folder("import", ALL_TILES.name), folder)


def steps_of(images: int) -> int:
    """Of an epoch."""
    return math.ceil(images / BATCH)


@dataclass(frozen=True)
class Plan(Lab):
    """Makes nothing: notes what would be made, by recipe and name. What only a run can tell is as asked for."""

    noted: dict[str, Settings] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)

    def read(self, source: Source) -> str:
        self.sizes[source.name] = source.size
        return source.name

    def done(self, recipe: str, name: str, *words: str) -> str:
        self.noted[f"{recipe} {name}"] = here(asked(recipe, "--name", name, *words))
        return name

    def set(self, name: str, data: str, method: str, count: int, *words: str) -> str:
        self.sizes[name] = count
        return super().set(name, data, method, count, *words)

    def joined(self, data: str, made: str, most: int | None = None) -> str:
        name = super().joined(data, made, most)
        self.sizes[name] = self.sizes[data] + min(self.sizes[made], self.sizes[made] if most is None else most)
        return name

    def size(self, data: str) -> int:
        return self.sizes[data]
