"""Which synthetic pictures tell of those that a model is judged by: the one rule for importer, `combine` and every training.

Val and test are real. A made picture tells of them where it nearly equals one, or was made of one, be it as parent or as donor of
its defect; one that nearly equals a picture there counts as that picture, though lists may have put it into train. Knows pictures
with splits and near-duplicate groups; nothing of how they were made, of files or of trainings.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

from backend.data.snapshot import Picture
from backend.errors import ConfigError


@dataclass(frozen=True)
class Held:
    """What is judged by: pictures of val and test, and those that nearly equal one, wherever they lie."""

    ids: frozenset[str]
    groups: frozenset[str]

    @classmethod
    def of(cls, pictures: Sequence[Picture]) -> Self:
        held = [p for p in pictures if p.judges]
        groups = frozenset(p.group_id for p in held if p.group_id)
        return cls(frozenset(p.image_id for p in held) | {p.image_id for p in pictures if p.group_id in groups}, groups)

    def made_of(self, picture: Picture) -> bool:
        return bool({picture.parent, picture.donor} & self.ids)

    def told_by(self, pictures: Iterable[Picture]) -> list[Picture]:
        """Synthetic ones among these that were made of held ones, or nearly equal one."""
        return [p for p in pictures if p.origin == "synthetic" and (self.made_of(p) or p.group_id in self.groups)]


def refuse(pictures: Sequence[Picture]) -> None:
    """Raises ConfigError for a dataset on which nothing can be judged honestly."""
    if any(p.origin == "synthetic" for p in pictures if p.judges):
        raise ConfigError("The val or test split of this dataset holds synthetic images; a model may be judged on real ones only.")
    if leaks := Held.of(pictures).told_by(pictures):
        raise ConfigError(f"{len(leaks)} synthetic images of this dataset come from images of its val or test split, or nearly equal "
                          f"them, for instance {leaks[0].file_name}. Make them from the training split.")
