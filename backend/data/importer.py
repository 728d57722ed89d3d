"""The recipe `import`: a folder, zip or upload becomes an immutable snapshot.

files -> catalog (layout, marks) -> splits by list or folder -> measured (decoded, hashed, boxes) -> duplicates, drawn splits
-> snapshot. One bad picture is refused with its reason; the rest goes on.
"""

import shutil
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from backend.config import Import
from backend.data import alike, catalog, files, images, marks, snapshot, splits
from backend.data.catalog import Catalog, Record
from backend.data.files import Refusal
from backend.data.leaks import Held
from backend.data.marks import Notes
from backend.data.snapshot import UNLABELLED, Picture
from backend.device import cores
from backend.errors import ConfigError, InputError

MIN_SIDE = 10                      # pixels; the trainer refuses smaller pictures
TOLD = "Unlabelled pictures that nearly equal one of val or test, or are of the same lot or unit, left out"
NO_DEFECT = "No picture carries a labelled defect. Where all show good parts, an anomaly model can learn from them; a detector needs labels"


def run(config: Import, run_dir: Path, report: Callable[..., None]) -> dict[str, Any]:
    """Import `config.path`, or the run's inbox where no path is given. Returns what stands in snapshot.json."""
    if done := snapshot.written(run_dir):
        shutil.rmtree(run_dir / "inbox", ignore_errors=True)
        return done
    where, lot_of = _where(config, run_dir), splits.lot_finder(config.group_pattern)
    report(step=0, total=1, message="Looking at the files")

    # Which pictures are there, what marks them, and which split was given to them.
    with files.listing(where) as entries:
        found = catalog.read(entries, config.layout)
        given, splits_from = _given(config, found)
        if splits_from == "lists" and any(r.split == UNLABELLED and given.get(r.name) != UNLABELLED for r in found.records):
            found = catalog.read(entries, config.layout, unlabelled=False)       # the lists say what each is: the folder's name does not
            given, splits_from = _given(config, found)
        records = [replace(r, split=given[r.name]) for r in found.records if r.name in given]
        if splits_from == "drawn" and (lists := [e.name for e in entries if e.name.endswith("train.txt")]):
            found.notes.add("Split lists lie in the data but were not asked for; the split was drawn", *lists)
        if len(records) < len(found.records):
            found.notes.add("Pictures in no split, left out", *(r.name for r in found.records if r.name not in given))

        # Every picture is decoded once, on all cores, and kept under its content's hash.
        pictures = _measure(records, found, report)
    free = [p for p in pictures if p.split == UNLABELLED]
    pictures = [p for p in pictures if p.split != UNLABELLED]
    if not pictures:
        first = f" {found.refused[0].name}: {found.refused[0].reason}" if found.refused else ""
        raise InputError(f"None of the {len(records) - len(free):,} pictures can be used.{first}")

    # The same content twice, alike pictures, and the splits that are still to be drawn.
    report(step=len(records), total=len(records), message="Comparing the pictures")
    lots = _lots(pictures, lot_of, config.group_pattern, found.notes)
    pictures = _doubles(pictures, found.notes, keep=splits_from == "lists")
    pictures, drawn = _divided(pictures, lots, splits_from, config.seed, found.notes)
    pictures += _unlabelled(free, pictures, lots, lot_of, found.notes)
    if not any(p.boxes for p in pictures):
        found.notes.add(NO_DEFECT)
    grouped_by = ["near-duplicate group", *(["lot or unit"] if lots else [])] if drawn else []

    classes = found.classes or sorted({m.class_name for r in records for m in r.marks if m.class_name})
    about = dict(name=config.name.strip(), layout=found.layout, explanation=found.explanation, seed=config.seed, splits_from=splits_from,
                 grouped_by=grouped_by, notes=found.notes.lines())
    head = snapshot.write(run_dir, pictures, classes, found.refused, about)
    shutil.rmtree(run_dir / "inbox", ignore_errors=True)
    return head


def _where(config: Import, run_dir: Path) -> Path:
    if not config.name.strip():
        raise ConfigError("Give the dataset a name.")
    if config.path:
        return Path(config.path).expanduser()
    if (run_dir / "inbox" / "inbox.json").exists():
        return run_dir / "inbox"
    raise ConfigError("Choose a folder or zip file to read.")


def _given(config: Import, found: Catalog) -> tuple[dict[str, str], str]:
    """Split of each picture to import, '' where it is still to be drawn, and where the splits come from."""
    made = {r.name: "train" for r in found.records if r.origin == "synthetic"}      # never measured on, whatever is said of them
    free = {r.name: UNLABELLED for r in found.records if r.split == UNLABELLED}
    real = [r for r in found.records if r.origin == "real" and r.name not in free]
    if config.splits is not None:
        names = [r.name for r in found.records] + [r.name for r in found.refused]
        listed = splits.from_lists(Path(config.splits).expanduser(), config.split_prefix, names)
        if held := [n for n in made if listed.get(n, "train") != "train"]:
            found.notes.add("Synthetic pictures that the lists put into val or test; they are of train", *held)
        return free | listed | made, "lists"
    if splits.by_folders([r.split for r in real]):
        return {r.name: r.split for r in real if r.split} | made | free, "folders"
    return {r.name: "" for r in real} | made | free, "drawn"


def _measure(records: list[Record], found: Catalog, report: Callable[..., None]) -> list[Picture]:
    pictures: list[Picture] = []
    with ThreadPoolExecutor(cores()) as pool:
        for done, (result, notes) in enumerate(_ahead(pool, _picture, records), 1):
            for what, names in notes.names.items():
                found.notes.add(what, *names)
            if isinstance(result, Picture):
                pictures.append(result)
            else:
                found.refused.append(result)
            if done % 20 == 0 or done == len(records):
                report(step=done, total=len(records), message="Reading pictures")
    return pictures


def _ahead(pool: ThreadPoolExecutor, work: Callable[[Record], Any], items: Iterable[Record]) -> Iterator[Any]:
    """Results in order, a few items ahead only: `pool.map` would read the whole dataset before the first is used."""
    waiting: deque[Future[Any]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > 4 * cores():
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:                          # a cancel unwinds through here
            future.cancel()


def _picture(record: Record) -> tuple[Picture | Refusal, Notes]:
    """One picture decoded, hashed, kept, its marks as boxes and a mask."""
    notes = Notes()
    try:
        data = record.entry.read()
        image = images.decode(data, record.name)
        if min(image.size) < MIN_SIDE:
            raise InputError(f"It is only {image.width} × {image.height} pixels; at least {MIN_SIDE} a side are needed.")
        found, mask = marks.look(record.marks, image.size, record.name, notes)
    except InputError as error:
        return Refusal(record.name, str(error)), Notes()
    if image.info["changed"]:
        notes.add(f"Pictures {image.info['changed']}", record.name)
    image_id = images.sha256(data)
    images.keep(data, image_id, str(image.format))
    return Picture(image_id, record.name, *image.size, alike.phash(image), tuple(found), record.split, origin=record.origin,
                   parent=record.parent, donor=record.donor, mask="" if mask is None else images.keep_mask(mask)), notes


def _doubles(pictures: list[Picture], notes: Notes, keep: bool) -> list[Picture]:
    """One record for each content. Across splits test keeps it, then val, so that nothing leaks into train.

    `keep`: lists say where each file belongs, so both stay, and it is only said. A copy of a synthetic picture is synthetic too.
    """
    same: dict[str, list[Picture]] = defaultdict(list)
    for picture in pictures:
        same[picture.image_id].append(picture)
    dropped: set[int] = set()
    for twins in (t for t in same.values() if len(t) > 1):
        crosses = len({p.split for p in twins}) > 1
        where = "in two splits" if crosses else "in one split" if twins[0].split else "twice"
        made = any(p.origin == "synthetic" for p in twins)
        done = "kept once, as synthetic" if made else "kept as listed" if keep else \
            "kept once, test before val before train" if crosses else "kept once"
        names = " = ".join(p.file_name for p in twins)
        notes.add(f"Same content {where}, {done}", names)
        if any(p.boxes != twins[0].boxes for p in twins):
            notes.add("Same content with different boxes", names)
        best = min(twins, key=lambda p: (p.origin == "real", ("test", "val", "train", "").index(p.split), -len(p.boxes), p.file_name))
        dropped |= set() if keep and not made else {id(p) for p in twins if p is not best}
    return [p for p in pictures if id(p) not in dropped]


def _lots(pictures: list[Picture], lot_of: Callable[[str], str], pattern: str | None, notes: Notes) -> dict[str, set[str]]:
    """Lots or units of each content by its image id: the same bytes under two names belong to both. Empty where no name tells one."""
    lots: dict[str, set[str]] = defaultdict(set)
    without = []
    for picture in (p for p in pictures if p.origin == "real"):
        if lot := lot_of(picture.file_name):
            lots[picture.image_id].add(lot)
        else:
            without.append(picture.file_name)
    if pattern and not lots:
        notes.add(f"The group pattern '{files.printable(pattern)}' finds no lot or unit in any file name")
    elif pattern and without:
        notes.add("File names in which the group pattern finds no lot or unit", *without)
    return dict(lots)


def _divided(pictures: list[Picture], lots: dict[str, set[str]], splits_from: str, seed: int, notes: Notes) -> tuple[list[Picture], bool]:
    """Groups of alike pictures, a split for every real picture that has none yet, and whether any was drawn.

    A lot or unit is drawn as a whole but does not become the group: the store takes pictures of one group for near duplicates.
    """
    grouped = zip(pictures, alike.groups([p.image_id for p in pictures], [p.phash for p in pictures]), strict=True)
    everything = [replace(p, group_id=g) for p, g in grouped]
    pictures, made = ([p for p in everything if p.origin == o] for o in ("real", "synthetic"))
    groups, classes = [p.group_id for p in pictures], [p.classes for p in pictures]
    whole = alike.united(groups, [lots.get(p.image_id, set()) for p in pictures])
    if splits_from == "drawn" and pictures:
        chosen, drawn = splits.draw(whole, classes, splits.SHARES, seed), list(splits.SPLITS)
    else:
        chosen, drawn = splits.complete([p.split for p in pictures], whole, classes, seed)
        for split in drawn:
            notes.add(f"No {split} split was given: {splits.HELD_OUT:.0%} of train became {split}, drawn with seed {seed}")
    if lots and "train" in chosen and (empty := [s for s in ("val", "test") if s not in chosen]):
        notes.add(f"No picture is in {' or '.join(empty)}: the lots or units are too few to divide")
    if n := _crossing(zip(groups, chosen, strict=True)):
        notes.add(f"Groups of alike pictures that cross splits as given: {n:,}")
    if n := _crossing((lot, s) for p, s in zip(pictures, chosen, strict=True) for lot in lots.get(p.image_id, ())):
        notes.add(f"Lots or units that cross splits as given: {n:,}")
    divided = [replace(p, split=s) for p, s in zip(pictures, chosen, strict=True)]
    return divided + _of_train(made, divided, notes), bool(drawn)


def _of_train(made: list[Picture], real: list[Picture], notes: Notes) -> list[Picture]:
    """Synthetic pictures without those that tell of val or test: made of a picture there, or nearly equal to one."""
    told = Held.of(real).told_by(made)
    if told:
        notes.add("Synthetic pictures made of pictures of val or test, or nearly equal to some, left out", *(p.file_name for p in told))
    if made and not real:
        notes.add("All pictures are synthetic, so there is no val and no test: they can only be trained on together with real pictures. "
                  "Import a folder that holds both")
    gone = {id(p) for p in told}
    return [p for p in made if id(p) not in gone]


def _unlabelled(free: list[Picture], others: list[Picture], lots: dict[str, set[str]], lot_of: Callable[[str], str],
                notes: Notes) -> list[Picture]:
    """Unlabelled pictures, each content once, without those that tell of val or test: nearly equal to one there, or of its lot or unit.
    Grouped among themselves: a long row of alike pictures must not tie labelled ones together."""
    held, known = [p for p in others if p.judges], {p.image_id for p in others}
    held_lots = set[str]().union(*(lots.get(p.image_id, set()) for p in held))
    near = alike.near([(p.image_id, p.phash) for p in free], [p.phash for p in held]) if held else set[str]()
    own: dict[str, set[str]] = defaultdict(set)                         # of a content that has several names, all its lots
    for picture in free:
        own[picture.image_id].add(lot_of(catalog.without_folder(picture.file_name)))
    kept: dict[str, Picture] = {}
    for picture in free:
        if picture.image_id in near or own[picture.image_id] & held_lots - {""}:
            notes.add(TOLD, picture.file_name)
        elif picture.image_id in known or picture.image_id in kept:
            notes.add("Unlabelled pictures that are there already, left out", picture.file_name)
        else:
            kept[picture.image_id] = picture
    if lots and (without := [p.file_name for p in kept.values() if own[p.image_id] == {""}]):
        notes.add("Unlabelled pictures in whose names no lot or unit was found, so that none was compared", *without)
    groups = alike.groups(list(kept), [p.phash for p in kept.values()])
    return [replace(p, group_id=g) for p, g in zip(kept.values(), groups, strict=True)]


def _crossing(placed: Iterable[tuple[str, str]]) -> int:
    """How many groups stand in more than one split."""
    across: dict[str, set[str]] = defaultdict(set)
    for group, split in placed:
        across[group].add(split)
    return sum(len(s) > 1 for s in across.values())
