"""The recipe `combine`: a dataset, pictures of synthetic sets that a person accepted, and unlabelled ones become a new snapshot.

The dataset's own pictures stay as they are, val and test above all; made ones go to train, with parent and donor, and with the run
that made them. Pictures of other datasets join as unlabelled, whatever was said of them there: diffusion models and backbones learn from
them, detectors never. What tells of val or test is refused with its reason: made of a picture there, or nearly equal to one. What was
chosen is written down before the first part: a killed run goes on with it, though people have judged more pictures since. Knows
nothing of how a picture was made; needs no torch.
"""

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from backend import rundir
from backend.config import Combine
from backend.data import alike, catalog, snapshot, splits
from backend.data.chosen import Chosen, read
from backend.data.files import Refusal
from backend.data.leaks import Held
from backend.data.snapshot import Picture, Snapshot
from backend.errors import ConfigError, NotFoundError
from backend.verdicts import verdicts

LEAK = "It was made of a picture of val or test."
NEAR = "It nearly equals a picture of val or test."
LOT = "It is of the same lot or unit as a picture of val or test."
CORRECTED = "The picture it was made of has other labels in this dataset, corrected ones perhaps. Make it anew from this dataset."
CHOSEN = "chosen.json"


def run(config: Combine, run_dir: Path, report: Callable[..., None]) -> dict[str, Any]:
    """Returns what stands in snapshot.json. Raises ConfigError, NotFoundError."""
    if not config.name.strip():
        raise ConfigError("Give the new dataset a name.")
    if done := snapshot.written(run_dir):
        return done

    # Which pictures a person wants, and which of these may be.
    data, chosen, others = _taken_up(run_dir / CHOSEN) or _asked(config)
    folders = list(dict.fromkeys(c.folder for c in chosen))
    refused = list[Refusal]()
    made = list(read(_current(chosen, data, refused), data, refused, report))
    made = _without_leaks(made, data, refused)
    made = _drawn(made, config.limit, config.seed)
    free = _free(others, [*data.pictures, *made], _lots(data), refused)
    if not made and not free:
        if not refused:
            raise ConfigError("There is nothing to add: all these pictures are in the dataset already.")
        raise ConfigError(f"None of the {len(refused):,} chosen pictures can be used. {refused[0].name}: {refused[0].reason}")

    # The new snapshot: what was there, and these.
    rundir.write_json(run_dir / CHOSEN, dict(snapshot_id=data.snapshot_id, others=[o.snapshot_id for o in others], files={
        folder.parent.name: [c.item["file"] for c in chosen if c.folder == folder] for folder in folders}))
    classes = list(dict.fromkeys([*data.classes, *sorted({b.class_name for p in made for b in p.boxes})]))
    base = {k: data.head[k] for k in ("layout", "seed", "splits_from")}
    head = snapshot.write(run_dir, data.pictures + made + free, classes, refused, dict(
        **base, name=config.name.strip(), grouped_by=data.head.get("grouped_by", []),
        explanation=_explained(data, folders, made, others, len(free)),
        notes=[*data.head.get("notes", []), *_notes(data, classes, refused)], combined_from=data.snapshot_id, synthetic=len(made),
        sets=[dict(run=f.parent.name, name=rundir.read_json(f / "head.json")["name"], images=_count(made, f)) for f in folders]))
    message = f"added {len(made)} of {len(chosen)}" + (f", and {len(free)} without labels" if others else "")
    report(step=len(chosen), total=len(chosen), message=message)
    return head


def _names(text: str) -> list[str]:
    return list(dict.fromkeys(n.strip() for n in text.split(",") if n.strip()))


def _others(text: str) -> list[Snapshot]:
    """Datasets by name; one name may hold a comma."""
    try:
        return [snapshot.read(rundir.find_snapshot(text.strip()))] if text.strip() else []
    except NotFoundError:
        if len(names := _names(text)) < 2:
            raise
        return [snapshot.read(rundir.find_snapshot(name)) for name in names]


def _folders(names: list[str]) -> list[Path]:
    found = [rundir.find_artifact("synthetic", n) for n in names]
    if missing := [n for n, folder in zip(names, found, strict=True) if folder is None]:
        raise NotFoundError(f"There is no synthetic set called {missing[0]!r}.")
    return list(dict.fromkeys(f for f in found if f is not None))


# ---- what is wanted

def _asked(config: Combine) -> tuple[Snapshot, list[Chosen], list[Snapshot]]:
    """The dataset, what of sets joins it, and the datasets whose pictures join without labels."""
    data, sets = snapshot.read(rundir.find_snapshot(config.dataset)), _names(config.sets)
    if not sets and not _names(config.unlabelled):
        raise ConfigError("Name at least one synthetic set, or a dataset whose pictures join without labels.")
    others = _others(config.unlabelled)
    if any(o.snapshot_id == data.snapshot_id for o in others):
        raise ConfigError(f"{data.head['name']!r} cannot join itself.")
    return data, [c for folder in _folders(sets) for c in _wanted(folder, data, config.which)], others


def _taken_up(file: Path) -> tuple[Snapshot, list[Chosen], list[Snapshot]] | None:
    """What an attempt that was killed had chosen: the store may have taken in a part of it already."""
    if not file.exists():
        return None
    said, chosen = rundir.read_json(file), list[Chosen]()
    for run_id, files in said["files"].items():
        folder = rundir.run_path(run_id) / "synthetic"
        head, wanted = rundir.read_json(folder / "head.json"), set(files)
        chosen += [Chosen(folder, head, item) for item in head["items"] if item["file"] in wanted]
    data, *others = (snapshot.read(rundir.find_snapshot(i)) for i in (said["snapshot_id"], *said.get("others", ())))
    return data, chosen, others


def _wanted(folder: Path, data: Snapshot, which: str) -> list[Chosen]:
    """Items that somebody accepted; with 'all' those that nobody has put aside, be it for good or to be made again."""
    head, said = rundir.read_json(folder / "head.json"), verdicts(folder.parent.name)
    _refuse_stranger(head, data)
    keep = {"accept"} if which == "accepted" else {"accept", ""}
    found = [Chosen(folder, head, item) for item in head["items"] if said.get(item["file"], "") in keep]
    if not found and which == "accepted":
        raise ConfigError(f"Nobody has accepted a picture of {head['name']!r} yet. Accept some on the page Synthesis, or choose 'all'.")
    if not found:
        raise ConfigError(f"Every picture of {head['name']!r} was put aside.")
    return found


def _current(chosen: list[Chosen], data: Snapshot, refused: list[Refusal]) -> list[Chosen]:
    """Without what was made of pictures whose labels somebody corrected since: its labels are the old ones'. Asked of datasets that come
    from one import alone; another import may label the same pictures otherwise, a class for each instead of boxes."""
    now, kept, family = _labels(data), list[Chosen](), snapshot.ancestors(data.snapshot_id)
    others = {i for i in {c.head["snapshot_id"] for c in chosen} - {data.snapshot_id} if snapshot.ancestors(i) & family}
    then = {i: _labels(snapshot.read(rundir.find_snapshot(i))) for i in others}
    for one in chosen:
        before = then.get(one.head["snapshot_id"], now)
        if any(before.get(i) != now.get(i) for i in (one.item["parent"], one.item.get("donor", "")) if i):
            refused.append(Refusal(one.name, CORRECTED))
        else:
            kept.append(one)
    return kept


def _labels(data: Snapshot) -> dict[str, Any]:
    """By image id, of real pictures: kinds and places of the boxes, and the mask."""
    return {p.image_id: (sorted((b.class_name, *(f"{v:.1f}" for v in (b.x1, b.y1, b.x2, b.y2))) for b in p.boxes), p.mask)
            for p in data.pictures if p.origin == "real"}


def _refuse_stranger(head: dict[str, Any], data: Snapshot) -> None:
    """A set of another snapshot may be used where all that it was made of is train here, and nothing of what its generator may have
    learned from is val or test here. Raises ConfigError."""
    if head["snapshot_id"] == data.snapshot_id:
        return
    train = {p.image_id for p in data.pictures if p.split == "train" and p.origin == "real"}
    sources = {i for item in head["items"] for i in (item["parent"], item.get("donor", "")) if i}
    if strange := len(sources - train):
        raise ConfigError(f"The set {head['name']!r} belongs to another snapshot, of {head['dataset']!r}: {strange} of the pictures it was "
                          f"made of are no train images of {data.head['name']!r}. Make it anew from this dataset.")
    try:
        other = snapshot.read(rundir.find_snapshot(head["snapshot_id"]))
    except NotFoundError as problem:
        raise ConfigError(f"The set {head['name']!r} was made of a dataset that is gone, so nobody can tell what its generator has learned "
                          "from. Make it anew from this dataset.") from problem
    held = [p for p in data.pictures if p.judges]
    own = train - {p.image_id for p in held}
    learned = [p for p in other.pictures if p.split in ("train", snapshot.UNLABELLED) and p.origin == "real" and p.image_id not in own]
    leaked = {p.image_id for p in held} & (_learned(head) | {p.image_id for p in learned})
    leaked |= alike.near([(p.image_id, p.phash) for p in held], [p.phash for p in learned])
    if leaked:
        raise ConfigError(f"The set {head['name']!r} was made of {head['dataset']!r}: its generator may have learned from {len(leaked)} of "
                          f"the val and test images of {data.head['name']!r}, or from near copies. Make it anew from this dataset.")


def _learned(head: dict[str, Any]) -> set[str]:
    """Ids of pictures that the prior which drew a set, and the one that this was adapted from, have learned from, where they are here."""
    about = head.get("prior") or {}
    adapter = rundir.find_artifact("adapter", about["adapter"]) if about.get("adapter") else None
    said = rundir.read_json(adapter / "head.json") if adapter else {}
    where = str(said["base"]["where"] if said else about.get("key") or about.get("name", ""))      # a key, or a folder; of old sets a name
    prior = (rundir.find_artifact("prior", where) or Path(where).expanduser()) / "head.json" if where else None
    base = rundir.read_json(prior) if prior and prior.is_file() else {}
    return {*said.get("learned", ()), *base.get("learned", ())}


def _drawn(made: list[Picture], limit: int | None, seed: int) -> list[Picture]:
    if limit is None or len(made) <= limit:
        return made
    kept = np.random.default_rng(seed).choice(len(made), limit, replace=False)
    return [made[i] for i in sorted(kept)]


# ---- leaks

def _without_leaks(made: list[Picture], data: Snapshot, refused: list[Refusal]) -> list[Picture]:
    """Made pictures with their near-duplicate group; those that tell of val or test are refused. Groups of real ones stay as they are."""
    held = Held.of(data.pictures)
    everything = data.pictures + made
    joint = alike.groups([p.image_id for p in everything], [p.phash for p in everything])
    near = defaultdict[str, list[Picture]](list)
    for picture, group in zip(data.pictures, joint, strict=False):
        near[group].append(picture)
    kept = []
    for picture, group in zip(made, joint[len(data.pictures):], strict=True):
        if held.made_of(picture):
            refused.append(Refusal(picture.file_name, LEAK))
        elif any(p.image_id in held.ids for p in near[group]):
            refused.append(Refusal(picture.file_name, NEAR))
        else:
            kept.append(replace(picture, group_id=min((p.group_id for p in near[group]), default=group)))
    return kept


# ---- without labels

def _lots(data: Snapshot) -> Callable[[str], str]:
    """By which names tell lots or units, as the dataset's import was told."""
    return splits.lot_finder(snapshot.lot_pattern(rundir.find_snapshot(data.snapshot_id)))


def _free(others: list[Snapshot], there: list[Picture], lot_of: Callable[[str], str], refused: list[Refusal]) -> list[Picture]:
    """Real pictures of other datasets, whatever was said of them there, each content once; none that nearly equals one of val or test, or
    is of the lot or unit of one. Grouped among themselves: a long row of alike pictures must not tie labelled ones together."""
    known, held = {p.image_id for p in there}, [p for p in there if p.judges]
    every = [p for o in others for p in o.pictures if p.origin == "real" and p.image_id not in known]
    near = alike.near([(p.image_id, p.phash) for p in every], [p.phash for p in held]) if held else set[str]()
    lots = {lot_of(p.file_name) for p in held} - {""}
    same = {p.image_id for p in every if lot_of(catalog.without_folder(p.file_name)) in lots}
    new = {p.image_id: p for p in every}
    refused += [Refusal(p.file_name, NEAR if i in near else LOT) for i, p in new.items() if i in near | same]
    kept = [p for i, p in new.items() if i not in near | same]
    groups = alike.groups([p.image_id for p in kept], [p.phash for p in kept])
    return [replace(p, split=snapshot.UNLABELLED, boxes=(), mask="", group_id=g) for p, g in zip(kept, groups, strict=True)]


# ---- words

def _explained(data: Snapshot, folders: list[Path], made: list[Picture], others: list[Snapshot], free: int) -> str:
    names = ", ".join(f"{_count(made, f):,} of {rundir.read_json(f / 'head.json')['name']!r}" for f in folders)
    said = [f"{len(made):,} synthetic pictures in train: {names}"] if folders else []
    said += [f"{free:,} pictures without labels, of {', '.join(repr(o.head['name']) for o in others)}"] if others else []
    return f"The dataset {data.head['name']!r} with {'; and '.join(said)}. Val and test are its own."


def _count(made: list[Picture], folder: Path) -> int:
    return sum(p.generator_run == folder.parent.name for p in made)


def _notes(data: Snapshot, classes: list[str], refused: list[Refusal]) -> list[str]:
    new = [c for c in classes if c not in data.classes]
    said = [f"Classes that only synthetic pictures show: {', '.join(new)}."] if new else []
    return said + [f"Pictures left out, {n:,}: {reason}" for reason, n in Counter(r.reason for r in refused).most_common()]
