"""Which good pictures of a dataset are learned from, and which are held out to set a threshold by.

One division for all that an anomaly model is made of: the model, and a denoiser that makes defects for it. Stands between the
snapshot and the trainings. Knows nothing of networks.
"""

from backend.data.snapshot import Picture, Snapshot
from backend.errors import ConfigError

LEAST = 4                # good train images: two to learn from, two to hold out
HELD = 0.1               # of them, where val has none
MOST = 2_000             # held-out images; all are in memory at once


def divided(data: Snapshot) -> tuple[list[Picture], list[Picture]]:
    """Good pictures to learn from and good pictures held out; nothing of test is in either. Raises ConfigError.

    Held out are those of val; without any, a tenth of train by content hash, whole groups of near-duplicates together.
    """
    if any(p.origin == "synthetic" for p in data.by_split("test")):
        raise ConfigError("The test split of this dataset holds synthetic images; a model may be scored on real ones only.")
    tested = {p.image_id for p in data.by_split("test")}
    marked = {p.image_id for p in data.pictures if not p.is_good}
    good = {split: {p.image_id: p for p in data.by_split(split) if p.image_id not in tested | marked and p.origin == "real"}
            for split in ("train", "val")}
    held = [good["val"][i] for i in sorted(good["val"])][:MOST]
    train = [good["train"][i] for i in sorted(good["train"]) if i not in good["val"]]
    least = LEAST if not held else 2
    if len(train) < least:
        raise ConfigError(f"An anomaly model learns from good images, and the train split of {data.head['name']!r} has {len(train)} "
                          f"without a labelled defect; at least {least} are needed. Import images of good parts.")
    return (train, held) if held else _split_off(train)


def _split_off(good: list[Picture]) -> tuple[list[Picture], list[Picture]]:
    wanted, held = min(MOST, max(2, round(HELD * len(good)))), set[str]()
    groups: dict[str, list[Picture]] = {}
    for p in good:
        groups.setdefault(p.group_id or p.image_id, []).append(p)
    for group in sorted(groups.values(), key=lambda g: g[0].image_id):
        if len(held) < wanted and len(held) + len(group) <= len(good) // 2:
            held |= {p.image_id for p in group}
    if len(held) < 2:                                                # all of them near-duplicates of each other: nothing to keep apart
        held = {p.image_id for p in good[:2]}
    return [p for p in good if p.image_id not in held], [p for p in good if p.image_id in held]
