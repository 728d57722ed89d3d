"""Train, val and test: as lists say, as folders say, or drawn; alike pictures, and those of one lot or unit, stay together when drawn.

Test is locked once it is set: nothing is ever chosen on it. So where only train and test are given, val is drawn from train,
and where test is missing it is drawn from train too, and both are said. Knows names, classes and groups; no pictures.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from unicodedata import normalize

import numpy as np

from backend.data.files import printable
from backend.errors import ConfigError, InputError

SPLITS = ("train", "val", "test")
SHARES = {"train": 0.70, "val": 0.15, "test": 0.15}
HELD_OUT = 0.15                    # of train, for a split that was not given


def from_lists(folder: Path, prefix: str, names: list[str]) -> dict[str, str]:
    """Split of each listed picture. Entries are stems, names or relative paths, one a line. Raises InputError."""
    files = {s: folder / f"{prefix}{s}.txt" for s in SPLITS if (folder / f"{prefix}{s}.txt").is_file()}
    if not files:
        raise InputError(f"There is no {prefix}train.txt, {prefix}val.txt or {prefix}test.txt in {printable(str(folder))}.")
    known = _keys(names)
    chosen: dict[str, str] = {}
    unknown, unclear, twice = list[str](), list[str](), list[str]()
    for split, path in files.items():
        for entry in _lines(path):
            found = known.get(entry, [])
            if len(found) != 1:
                (unclear if found else unknown).append(entry)
            elif chosen.setdefault(found[0], split) != split:
                twice.append(entry)
    _refuse("name pictures that are not in the data", unknown)
    _refuse("hold entries that fit more than one picture; write more of the path", unclear)
    _refuse("put one picture into two splits", twice)
    return chosen


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path.name} is not a text file in UTF-8.") from error
    return [printable(PurePosixPath(line.strip().replace("\\", "/")).as_posix()) for line in text.splitlines() if line.strip()]


def _keys(names: list[str]) -> dict[str, list[str]]:
    """Everything an entry may call a picture: each tail of its path, with and without suffix."""
    keys: dict[str, list[str]] = defaultdict(list)
    for name in names:
        parts = PurePosixPath(normalize("NFC", name)).parts
        tails = ["/".join(parts[i:]) for i in range(len(parts))]
        for key in {*tails, *(t[:-len(s)] for t in tails if (s := PurePosixPath(t).suffix))}:
            keys[key].append(name)
    return keys


def _refuse(what: str, entries: list[str]) -> None:
    if entries:
        more = f" and {len(entries) - 3:,} more" if len(entries) > 3 else ""
        raise InputError(f"The split lists {what}: {', '.join(entries[:3])}{more}.")


def by_folders(splits: list[str]) -> bool:
    """Whether folders name a division: train and at least one other."""
    return "train" in splits and len(set(splits) - {""}) > 1


def lot_finder(pattern: str | None) -> Callable[[str], str]:
    """A function from a file name to the lot or unit it names, '' where it names none. Raises ConfigError."""
    if not pattern:
        return lambda name: ""
    try:
        finder = re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise ConfigError(f"The group pattern '{printable(pattern)}' is no regular expression: {error}.") from error
    if not finder.groups:
        raise ConfigError(f"The group pattern '{printable(pattern)}' needs a group in parentheses around the lot or unit, "
                          r"such as lot_(\d+).")

    def lot(name: str) -> str:
        match = finder.search(name if "/" in pattern else PurePosixPath(name).name)
        return "/".join(match.groups("")) if match and any(match.groups()) else ""

    return lot


def draw(groups: list[str], classes: list[set[str]], shares: dict[str, float], seed: int) -> list[str]:
    """A split for each picture. Groups stay whole; each class is divided about as the shares say; the same seed, the same split."""
    members: dict[str, list[int]] = defaultdict(list)
    for i, group in enumerate(groups):
        members[group].append(i)
    strata = _strata(members, classes)
    order = np.random.default_rng(seed).permutation(len(members))
    shuffled = [g for _, g in sorted(zip(order.tolist(), sorted(members), strict=True))]
    owed = dict.fromkeys(shares, 0.0)                   # what one stratum leaves over, the next makes good
    chosen: dict[str, str] = {}
    for stratum in sorted(set(strata.values())):
        these = sorted((g for g in shuffled if strata[g] == stratum), key=lambda g: -len(members[g]))
        for split, share in shares.items():
            owed[split] += share * sum(len(members[g]) for g in these)
        for group in these:
            split = max(owed, key=lambda s: owed[s])
            owed[split] -= len(members[group])
            chosen[group] = split
    _fill_empty(chosen, members, shares)
    return [chosen[g] for g in groups]


def _strata(members: dict[str, list[int]], classes: list[set[str]]) -> dict[str, str]:
    """A group belongs to the rarest class in it, '' if all its pictures are good."""
    frequency = Counter(c for cs in classes for c in cs)
    return {g: min((c for i in idx for c in classes[i]), key=lambda c: (frequency[c], c), default="") for g, idx in members.items()}


def _fill_empty(chosen: dict[str, str], members: dict[str, list[int]], shares: dict[str, float]) -> None:
    """In a tiny set rounding may leave a split empty: it gets the smallest group of train."""
    for split in shares:
        train = [g for g, s in chosen.items() if s == "train"]
        if split not in chosen.values() and len(train) > 1:
            chosen[min(train, key=lambda g: (len(members[g]), g))] = split


def complete(splits: list[str], groups: list[str], classes: list[set[str]], seed: int) -> tuple[list[str], list[str]]:
    """Draw what was not given, val or test, from train. Returns the splits and which were drawn."""
    missing = [s for s in ("val", "test") if s not in splits]
    train = [i for i, s in enumerate(splits) if s == "train"]
    if not missing or len({groups[i] for i in train}) <= len(missing):
        return splits, []
    shares = {"train": 1 - HELD_OUT * len(missing), **dict.fromkeys(missing, HELD_OUT)}
    drawn = draw([groups[i] for i in train], [classes[i] for i in train], shares, seed)
    result = list(splits)
    for i, split in zip(train, drawn, strict=True):
        result[i] = split
    return result, missing
