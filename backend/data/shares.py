"""Which of a snapshot's train images a training shows: real, synthetic or both, and how many of each.

Stands between a snapshot and the folder a trainer reads (`dataset.yolo_folder`). Choices follow from content and number alone, so two
seeds of an arm see the same images, and the images of a smaller dose are among those of a larger one. How often each is shown in a
pass, where that was set, the trainer sees to. Knows nothing of trainers.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, cycle, islice, zip_longest
from typing import Any, Self

from backend.data.snapshot import Picture
from backend.errors import ConfigError


@dataclass(frozen=True)
class Share:
    """What is shown of the train images. By default all of them, once in each pass."""

    labels: int | None = None          # so many labelled real ones; no others then, and nothing made of the labelled rest
    origin: str = "both"               # both | real | synthetic
    synthetic: int | None = None       # so many synthetic ones
    shown: int | None = None           # images in each pass

    @classmethod
    def of(cls, config: Any) -> Self:
        """Of a config of a detector's training."""
        return cls(config.labels, config.origin, config.synthetic, config.shown)


ALL = Share()


@dataclass(frozen=True)
class Tally:
    """How many different images are shown, and how many in each pass."""

    real: int
    synthetic: int
    shown: int


def chosen(pictures: Sequence[Picture], share: Share) -> tuple[list[Picture], list[Picture]]:
    """Of train pictures the real and the synthetic ones that are shown, each of them once. What was made of a labelled picture that is
    left out would tell of its label, and is left out too."""
    real = [p for p in pictures if p.origin != "synthetic"]
    made = [p for p in pictures if p.origin == "synthetic" and share.origin != "real"]
    if share.labels:
        labelled = [p for p in real if p.boxes]
        real = drawn(labelled, share.labels)
        left_out = {p.image_id for p in labelled} - {p.image_id for p in real}
        made = [p for p in made if not {p.parent, p.donor} & left_out]
    return real if share.origin != "synthetic" else [], made if share.synthetic is None else drawn(made, share.synthetic)


def laid(pictures: Sequence[Picture], share: Share) -> list[Picture]:
    """The pictures of a training folder. A few labelled ones are laid again and again, until they are as many as all real ones: equal
    steps. Where the number shown was set, each lies there once, and the trainer turns to it as often as it has to."""
    real, made = chosen(pictures, share)
    if share.labels and not share.shown:
        real = list(islice(cycle(real), sum(p.origin != "synthetic" for p in pictures)))
    return real + made


def tally(pictures: Sequence[Picture], share: Share) -> Tally:
    real, made = chosen(pictures, share)
    return Tally(len(real), len(made), share.shown or len(laid(pictures, share)))


def drawn(pictures: Sequence[Picture], n: int) -> list[Picture]:
    """n of these, every class in turn, by content: more of them hold the fewer."""
    groups: dict[str, list[Picture]] = defaultdict(list)
    for p in sorted(pictures, key=lambda p: p.image_id):
        groups[max(sorted(p.classes), key=[b.class_name for b in p.boxes].count, default="")].append(p)
    turns = chain.from_iterable(zip_longest(*(groups[name] for name in sorted(groups))))
    return list(islice((p for p in turns if p is not None), n))


def refuse(pictures: Sequence[Picture], share: Share) -> None:
    """Raises ConfigError where train pictures are fewer than asked for: an arm of a comparison must be what it says."""
    labelled = sum(1 for p in pictures if p.origin != "synthetic" and p.boxes)
    made = len(chosen(pictures, Share(share.labels, "synthetic"))[1])
    if share.labels and share.origin != "synthetic" and share.labels > labelled:
        raise ConfigError(f"The dataset has {labelled} labelled train images, fewer than {share.labels}.")
    if share.origin != "real" and (share.synthetic or 0) > made:
        of = f" made of no other labels than these {share.labels}" if share.labels else ""
        raise ConfigError(f"The dataset has {made} synthetic train images{of}, fewer than {share.synthetic}.")
    if share.origin == "synthetic" and not (made if share.synthetic is None else share.synthetic):
        raise ConfigError("There is no synthetic train image to learn from. Add some to the dataset, or train on real ones.")
