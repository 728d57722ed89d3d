"""The recipe `relabel`: a dataset with the boxes that people drew becomes a new snapshot.

`labelling` says what they drew, the newest word on each picture. In the new snapshot a picture of the dataset keeps its split, test
pictures above all; a new one goes to train, or is refused where it nearly equals one of val or test or is a view of the same unit; one
of another dataset (`of`) stays there. A word may be older than the datasets that were made with it, so those are asked as well (`_held`):
what stands in val or test of any dataset so far never goes to train. From files alone: knows nothing of pages, of DuckDB or of CVAT.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from backend import rundir
from backend.config import Relabel
from backend.data import catalog, snapshot
from backend.data.files import Refusal
from backend.data.labelling import Labelled, labelled
from backend.data.marks import Box
from backend.data.snapshot import Picture, Snapshot
from backend.errors import ConfigError, InputError, NotFoundError

CHOSEN = "chosen.json"
NEAR = "It nearly equals a picture of val or test, so it can be in neither train nor test."
VIEW = "It is another view of a part in val or test, so it can be in neither train nor test."
BETWEEN = "It nearly equals, or shows the same part as, pictures that an earlier dataset has in different splits."


def run(config: Relabel, run_dir: Path, report: Callable[..., None]) -> dict[str, Any]:
    """Returns what stands in snapshot.json. Raises ConfigError, NotFoundError."""
    if not config.name.strip():
        raise ConfigError("Give the new dataset a name.")
    if done := snapshot.written(run_dir):
        return done

    # What people said until now: a killed run goes on with it, though they have gone on labelling.
    base, said = _taken_up(run_dir, config)
    if not said:
        raise ConfigError("Nobody has labelled a picture yet. Draw boxes on the page Review, under Label.")

    # Pictures of the dataset with their new boxes, each in its split; then the new ones.
    notes: list[str] = []
    refused: list[Refusal] = []
    free = [p for p in base.pictures if p.split == snapshot.UNLABELLED and p.image_id in said] if base else []     # no longer, perhaps
    bare = {p.image_id for p in free}
    stay = [p for p in base.pictures if p.image_id not in bare] if base else []
    old = [_anew(p, said, notes) for p in stay]
    there = {p.image_id for p in old}
    others = [word.file_name for word in said.values() if word.of and word.image_id not in there | bare]
    fresh = {i: word for i, word in said.items() if i in bare or (config.new or not base) and not word.of and i not in there}
    held = _held(fresh)
    tested = {i for i, split in held.items() if split in ("val", "test")}
    new = list(_new({i: word for i, word in fresh.items() if not base or i not in tested}, refused, report))
    new = _placed(new, old, said, tested, refused, _lots(base)) if base else _drawn(new, said, held, config.seed, refused)
    if not old and not new:
        why = f"{refused[0].name}: {refused[0].reason}" if refused else "They are all pictures of a dataset: start from that one."
        raise ConfigError(f"None of the {len(said)} labelled pictures can be used. {why}")

    known = base.classes if base else []
    classes = list(dict.fromkeys([*known, *sorted({b.class_name for p in [*old, *new] for b in p.boxes})]))
    about = {k: base.head[k] for k in ("layout", "seed", "splits_from")} if base else dict(layout="images", seed=config.seed,
                                                                                          splits_from="drawn")
    lines = _lines(notes, others, [fresh[i].file_name for i in sorted(tested)], bool(base))
    changed = sum(a.boxes != b.boxes or a.mask != b.mask for a, b in zip(old, stay, strict=True))
    taken = {p.image_id for p in new}
    head = snapshot.write(run_dir, old + new + [p for p in free if p.image_id not in taken], classes, refused, dict(
        **about, name=config.name.strip(), grouped_by=base.head.get("grouped_by", []) if base else ["near-duplicate group", "lot or unit"],
        explanation=_explained(base, changed, len(new)), notes=[*(base.head.get("notes", []) if base else []), *lines],
        relabelled_from=base.snapshot_id if base else "", relabelled=changed, added=len(new), held=len(tested)))
    report(step=len(said), total=len(said), message=f"{changed} changed, {len(new)} added")
    return head


def _taken_up(run_dir: Path, config: Relabel) -> tuple[Snapshot | None, dict[str, Labelled]]:
    file = run_dir / CHOSEN
    if file.exists():
        asked = rundir.read_json(file)
        return (snapshot.read(rundir.find_snapshot(asked["snapshot_id"])) if asked["snapshot_id"] else None,
                labelled(config.plant, set(asked["labels"])))
    base = snapshot.read(rundir.find_snapshot(config.dataset)) if config.dataset else None
    said = labelled(config.plant)
    rundir.write_json(file, dict(snapshot_id=base.snapshot_id if base else "", labels=sorted({one.run_id for one in said.values()})))
    return base, said


def _anew(picture: Picture, said: dict[str, Labelled], notes: list[str]) -> Picture:
    """With the boxes that people drew. One that stands where it stood keeps what it is from; a mask holds only where all of them do."""
    word = said.get(picture.image_id)
    if word is None:
        return picture
    before = {_place(b): b for b in picture.boxes}
    boxes = tuple(before.get(_place(b), b) for b in word.boxes)
    if sorted(map(_place, boxes)) == sorted(before) and (boxes or not picture.mask):     # without a box nothing is defective, mask or not
        return picture
    if picture.mask:
        notes.append(picture.file_name)
    return replace(picture, boxes=boxes, mask="")


def _place(box: Box) -> tuple[str, ...]:
    return box.class_name, *(f"{v:.1f}" for v in (box.x1, box.y1, box.x2, box.y2))


def _held(image_ids: Collection[str]) -> dict[str, str]:
    """The split in which each of these stands in any dataset so far, whatever plant it is of; test before val before train."""
    found: dict[str, str] = {}
    for path in rundir.snapshots():
        for part in rundir.parts(path, "snapshot_images"):
            table = rundir.read_part(part, ["image_id", "split"])
            for image_id, split in zip(table["image_id"].to_pylist(), table["split"].to_pylist(), strict=True):
                if image_id in image_ids and split and split != snapshot.UNLABELLED:
                    found[image_id] = max(found.get(image_id, "train"), split, key=("train", "val", "test").index)
    return found


def _new(said: dict[str, Labelled], refused: list[Refusal], report: Callable[..., None]) -> Iterable[Picture]:
    """Labelled pictures that the dataset does not have, decoded for their likeness to others."""
    from backend.data import alike, images  # hashes of pictures: a page that asks what is labelled needs neither

    for done, word in enumerate(said.values()):
        if done % 20 == 0:
            report(step=done, total=len(said), message="Reading pictures")
        try:
            image = images.load(word.image_id)
        except (InputError, NotFoundError) as error:
            refused.append(Refusal(word.file_name, str(error)))
            continue
        if image.size != (word.width, word.height):
            refused.append(Refusal(word.file_name, "It is of another size than when it was labelled."))
            continue
        yield Picture(word.image_id, word.file_name, *image.size, alike.phash(image), word.boxes)


def _lots(base: Snapshot) -> Callable[[str], str]:
    """By which names tell lots or units, as the dataset's import was told."""
    from backend.data import splits

    return splits.lot_finder(snapshot.lot_pattern(rundir.find_snapshot(base.snapshot_id)))


def _placed(new: list[Picture], old: list[Picture], said: dict[str, Labelled], tested: set[str], refused: list[Refusal],
            lot_of: Callable[[str], str]) -> list[Picture]:
    """New pictures in train, each in its near-duplicate group; one that nearly equals a picture of val or test is refused, and one that
    is another view of a unit there, or of one that another dataset has there (`tested`), as far as the units of labelled pictures tell, or
    names by the dataset's own pattern."""
    from backend.data import alike

    old = [p for p in old if p.split != snapshot.UNLABELLED]                    # a long row of these would tie others together
    everything = [*old, *new]
    joint = alike.groups([p.image_id for p in everything], [p.phash for p in everything])
    near = defaultdict[str, list[Picture]](list)
    for picture, group in zip(old, joint, strict=False):
        near[group].append(picture)
    tested = tested | {p.image_id for p in old if p.judges}
    held = {said[i].unit for i in tested & said.keys()} - {""}
    lots = {lot_of(p.file_name) for p in old if p.judges} - {""}
    kept = []
    for picture, group in zip(new, joint[len(old):], strict=True):
        if any(p.judges for p in near[group]):
            refused.append(Refusal(picture.file_name, NEAR))
        elif said[picture.image_id].unit in held or lot_of(catalog.without_folder(picture.file_name)) in lots:
            refused.append(Refusal(picture.file_name, VIEW))
        else:
            kept.append(replace(picture, split="train", group_id=min((p.group_id for p in near[group]), default=group)))
    return kept


def _drawn(new: list[Picture], said: dict[str, Labelled], held: dict[str, str], seed: int, refused: list[Refusal]) -> list[Picture]:
    """Where there is no dataset to build on, splits are drawn as an import draws them. What an earlier dataset has keeps its split
    (`held`), and what nearly equals it or shows the same unit goes with it."""
    from backend.data import alike, splits

    if not new:
        return []
    groups = alike.groups([p.image_id for p in new], [p.phash for p in new])
    units = [{said[p.image_id].unit} - {""} for p in new]
    joint, fixed = alike.united(groups, units), defaultdict[str, set[str]](set)
    for picture, lot in zip(new, joint, strict=True):
        fixed[lot] |= {held[picture.image_id]} if picture.image_id in held else set()
    free = [k for k, lot in enumerate(joint) if not fixed[lot]]
    chosen = dict(zip(free, splits.draw([joint[k] for k in free], [new[k].classes for k in free], splits.SHARES, seed) if free else [],
                      strict=True))
    kept = []
    for k, (picture, group, lot) in enumerate(zip(new, groups, joint, strict=True)):
        split = held.get(picture.image_id) or chosen.get(k) or (min(fixed[lot]) if len(fixed[lot]) == 1 else "")
        if split:
            kept.append(replace(picture, split=split, group_id=group))
        else:
            refused.append(Refusal(picture.file_name, BETWEEN))
    return kept


def _explained(base: Snapshot | None, changed: int, added: int) -> str:
    if base is None:
        return f"{added:,} pictures that people labelled here."
    return f"The dataset {base.head['name']!r} with labels that people drew: {changed:,} of its pictures corrected, {added:,} added to " \
           "train. Val and test have the pictures they had."


def _lines(without: list[str], others: list[str], tested: list[str], left_out: bool) -> list[str]:
    what = "left out, so that none is trained on" if left_out else "kept there"
    said = {"Masks of pictures whose boxes were changed, left out": without, "Labelled pictures of other datasets, left out": others,
            f"Labelled pictures that stand in val or test of an earlier dataset, {what}": tested}
    return [f"{what}: {len(names):,} ({', '.join(names[:3])})." for what, names in said.items() if names]
