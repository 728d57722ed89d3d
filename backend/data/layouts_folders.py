"""Reader of the layout in which a picture's folder is its class, as torchvision's ImageFolder has it.

The label is of the whole picture: its box is the picture's border, with the source "image". Folders may as well be lots, cameras
or days, so nobody's folders are taken for classes by themselves but those below train and val or test.
"""

from collections import defaultdict
from pathlib import PurePosixPath

from backend.data.catalog import SPLIT_FOLDERS, Catalog, Record, Tree, class_name, folder_split, is_good
from backend.data.layouts_masks import mask_beside
from backend.data.marks import Mark, Notes

PLAIN = {"imgs", "images", "img", "image", "pictures", "data", "jpegimages"}            # never a class
BESIDE = {"labels", "label", "masks", "mask", "gt", "ground_truth", "groundtruth", "annotations", "depth", "rgb"}
WHOLE = (0.0, 0.0, 1.0, 1.0)


def class_folders(tree: Tree) -> Catalog | None:
    """Every picture with the class that its folder names; folders of good parts name none."""
    notes, beside = Notes(), mask_beside(tree)
    masks = {m.mask.name for r in beside.records for m in r.marks if m.mask} if beside else set()
    if masks:
        notes.add("Masks beside pictures, left out: the folder alone says what a picture shows", *sorted(masks))
    folders = _folders([n for n in tree.pictures if n not in masks])
    if not any(folders.values()):
        return None
    if outside := [n for n, folder in folders.items() if not folder]:
        notes.add("Pictures in no folder of a class, left out", *outside)
    records = [Record(tree.entries[n], _marks(folder), folder_split(n)) for n, folder in folders.items() if folder]
    kinds = sorted({m.class_name for r in records for m in r.marks})
    good = sum(not r.marks for r in records)
    explanation = f"Read as a folder for each class: {len(records):,} pictures of {len(kinds):,} " \
                  f"{'class' if len(kinds) == 1 else 'classes'}{f', {good:,} of good parts' if good else ''}. " \
                  "A class is a label of the whole picture and does not say where."
    return Catalog("class-folders", explanation, records, kinds, notes=notes)


def certain(tree: Tree) -> bool:
    """Whether folders are classes beyond doubt: train and val or test lie side by side and hold the same two or more folders, none
    of which is called like masks, and no picture has a twin of its name in another of them."""
    below: dict[str, set[str]] = defaultdict(set)
    stems: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name in tree.pictures:
        parts = PurePosixPath(name).parts[:-1]
        if len(parts) < 2 or parts[-2].lower() not in SPLIT_FOLDERS:
            return False
        below["/".join(parts[:-1])].add(parts[-1])
        stems["/".join(parts[:-1]), PurePosixPath(name).stem].append(parts[-1])
    roots, (kinds, *others) = {str(PurePosixPath(split).parent) for split in below}, below.values() if below else [set()]
    splits = {SPLIT_FOLDERS[PurePosixPath(split).name.lower()] for split in below}
    return (len(roots) == 1 and "train" in splits and len(splits) > 1 and len(kinds) > 1 and all(o == kinds for o in others)
            and not {k.lower() for k in kinds} & (PLAIN | BESIDE) and all(len(where) == 1 for where in stems.values()))


def hint(tree: Tree) -> str:
    """To be said of pictures that were read without labels: their folders may be classes, which a person has to tell."""
    folders = {f for f in _folders(tree.pictures).values() if f}
    return f" If each of its {len(folders):,} folders is a class, choose the layout class-folders." if len(folders) > 1 else ""


def _folders(names: list[str]) -> dict[str, str]:
    """Class folder of each picture, '' where it has none: the first below what all share, split folders and 'images' passed over."""
    passed = {n: tuple(p for p in PurePosixPath(n).parts[:-1] if p.lower() not in SPLIT_FOLDERS and p.lower() not in PLAIN) for n in names}
    inside, shared = {p for p in passed.values() if p}, 0
    while len({p[:shared + 1] for p in inside}) == 1 and any(len(p) > shared + 1 for p in inside):
        shared += 1
    return {n: p[shared] if len(p) > shared else "" for n, p in passed.items()}


def _marks(folder: str) -> tuple[Mark, ...]:
    return () if is_good(folder) else (Mark(class_name(folder), WHOLE, shares=True, source="image"),)
