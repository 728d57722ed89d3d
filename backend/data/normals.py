"""Which good pictures of a dataset are learned from, and which are held out to set a threshold by.

One division for all that an anomaly model is made of: the model, and a denoiser that makes defects for it. Near-duplicates of what is
judged by are in neither part, as `synthesis.sources.usable` has it: a picture that nearly equals one of test makes figures too good,
and one that nearly equals a held-out one a threshold too low. Lists and folders may divide so; what is drawn here does not. Stands
between the snapshot and the trainings. Knows nothing of networks.
"""

from backend.data.snapshot import Picture, Snapshot
from backend.errors import ConfigError

Good = dict[str, Picture]
LEAST = 4                # good train images: two to learn from, two to hold out
HELD = 0.1               # of them, where val has none
MOST = 2_000             # held-out images; all are in memory at once. So a share of 3 / MOST is the least that can be told of


def divided(data: Snapshot, near_duplicates: bool = False) -> tuple[list[Picture], list[Picture]]:
    """Good pictures to learn from and good pictures held out; nothing of test is in either. Raises ConfigError.

    Held out are those of val; without any, a tenth of train by content hash, whole groups of near-duplicates together.
    `near_duplicates`: learn also from those that nearly equal a picture of val or test, as a published division may have it.
    """
    if any(p.origin == "synthetic" for p in data.by_split("test")):
        raise ConfigError("The test split of this dataset holds synthetic images; a model may be scored on real ones only.")
    train, val = _good(data)
    apart_train, apart_val = _apart(data, train, val)
    train, val = (train, val) if near_duplicates else (apart_train, apart_val)
    held, known = [val[i] for i in sorted(val)][:MOST], [train[i] for i in sorted(train)]
    least = LEAST if not held else 2
    if len(known) < least:
        out = left_out(data)
        but = f" and resembling none of val or test, as {out} more {'does' if out == 1 else 'do'}" if out and not near_duplicates else ""
        raise ConfigError(f"An anomaly model learns from good images, and the train split of {data.head['name']!r} has {len(known)} "
                          f"without a labelled defect{but}; at least {least} are needed. Import images of good parts.")
    return (known, held) if held else _split_off(known)


def left_out(data: Snapshot) -> int:
    """How many good pictures of train and val nearly equal one that is judged by."""
    both = _good(data)
    return sum(map(len, both)) - sum(map(len, _apart(data, *both)))


def _good(data: Snapshot) -> tuple[Good, Good]:
    """Real pictures of train and of val, by content, that show no defect anywhere and stand in no later split too."""
    tested = {p.image_id for p in data.by_split("test")}
    marked = {p.image_id for p in data.pictures if not p.is_good}
    train, val = ({p.image_id: p for p in data.by_split(split) if p.image_id not in tested | marked and p.origin == "real"}
                  for split in ("train", "val"))
    return {i: p for i, p in train.items() if i not in val}, val


def _apart(data: Snapshot, train: Good, val: Good) -> tuple[Good, Good]:
    """Those of train that nearly equal none of val or test, and those of val that nearly equal none of test."""
    tested, judged = ({p.group_id for p in data.pictures if p.split in splits and p.group_id} for splits in (("test",), ("val", "test")))
    return ({i: p for i, p in train.items() if p.group_id not in judged}, {i: p for i, p in val.items() if p.group_id not in tested})


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
