"""Defects that nobody labelled: our anomaly model against PatchCore and others, on magnetic tiles and six kinds of paper (PIPED).

    python -m tests.benchmarks.anomaly --data FOLDER [--arms ours anchor ...] [--parts magnetic-tile ...] [--seeds 0 1 2]
    python -m tests.benchmarks.anomaly --data FOLDER --shape short      the ablation, shorter and at 128 px: masks' sources and losses
    python -m tests.benchmarks.anomaly --data FOLDER --arms draem stfpm padim --python VENV/bin/python        see anomaly_peers.py
    python -m tests.benchmarks.anomaly --table [--shape short]                                  figures so far, as JSON

Runs what is missing. Each (part, arm, seed) leaves two files in results/anomaly/, which are committed: its figures (.json), and what
it said of each image (.npz), from which arms are compared image by image. So a stopped benchmark goes on elsewhere. A row names the
code it was made by; rows of another are refused. Everything of ours goes through the product's own commands; scores are the published
scorer's, on the locked list, once, with last-step weights.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from backend.errors import ConfigError
from tests.benchmarks.anomaly_arms import (
    ABLATED,
    ABLATION,
    ARMS,
    MAIN,
    OUTSIDE,
    PARTS,
    PEERS,
    SETS,
    SHAPES,
    SOURCES,
    Lab,
    Shape,
    code,
    odd,
    planned,
    same_as,
    same_code,
    stretched,
)
from tests.benchmarks.anomaly_maps import METRICS, Record, compare
from tests.benchmarks.arms import commit
from tests.benchmarks.record import RESULTS, SHARED, machine, versions, write
from tests.benchmarks.settings import arithmetic

SEEDS, ABLATED_SEEDS = (0, 1, 2), (0, 1)
# Of a source, both losses first: cosine alone then takes the student of both
FIRST = (*(f"{source}-{loss}" for loss in ("both", "cosine", "segmentation") for source in SOURCES), "ddpm-coupled")
PACKAGES = ("torch", "diffusers", "onnxruntime", "scikit-learn", "efficientnet-lite-pytorch")
# What ours should reach, in percent; PIPED's image AUROC should not lie below the anchor's
AIMS = {"magnetic-tile image_auroc": 98.0, "magnetic-tile pixel_auroc": 92.0, "magnetic-tile pixel_ap": 55.0, "magnetic-tile aupro": 85.0,
        "PIPED pixel_auroc": 98.5, "PIPED pixel_ap": 72.0, "PIPED aupro": 88.0}
Parts = dict[str, dict[int, dict[str, Any]]]                                       # part -> seed -> its file
Runs = dict[str, Parts]                                                            # arm -> that


def place(part: str, arm: str, seed: int, shape: Shape) -> Path:
    return RESULTS / shape.folder / f"{part}-{arm}-{seed}.json"


def one(lab: Lab, arm: str) -> None:
    """Train and score one arm on one part with one seed, unless it is done. Raises ConfigError where that was with other settings or by
    another program."""
    data, path, settings = lab.dataset, place(lab.dataset.name, arm, lab.seed, lab.shape), planned(lab, arm)
    before = json.loads(path.read_text()) if path.exists() else {}
    if before and (why := odd(before.get("settings", {}), settings)):
        raise ConfigError(f"The result {path.stem} in {path.parent.name} comes from other settings ({why}). "
                          "Remove it, or go back to its settings.")
    if before and not same_code(before.get("code", ""), code(arm)):
        raise ConfigError(f"The result {path.stem} in {path.parent.name} comes from other code of ours, of commit {before.get('commit')}. "
                          "Remove it, or go back to its code.")
    if path.exists() and path.with_suffix(".npz").exists():
        return
    began = time.monotonic()
    maps = lab.theirs(arm) if arm in OUTSIDE else lab.ours(arm)
    figures = scored(maps, data.folder, data.test)
    path.parent.mkdir(exist_ok=True)
    Record.of(maps, data.folder, data.test).save(path.with_suffix(".npz"))
    where = dict(cores=len(os.sched_getaffinity(0)), machine=machine(), seconds=round(time.monotonic() - began))
    path.write_text(json.dumps(dict(part=data.name, arm=arm, seed=lab.seed, commit=commit(), code=code(arm), versions=versions(PACKAGES),
                                    **where, figures={m: figures[m] for m in METRICS}, result=lab.told(arm), settings=settings,
                                    alike=lab.alike(), groups=lab.groups()), indent=1) + "\n")


def scored(maps: Path, root: Path, listing: Path) -> dict[str, Any]:
    """The published scorer's figures, in percent, in a process of its own."""
    done = subprocess.run([sys.executable, str(SHARED / "score" / "score_anomaly.py"), str(maps), str(root), str(listing)],
                          check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout))


def table(shape: Shape = SHAPES["cpu"]) -> Path:
    """results/anomaly.json (or -short, -gpu) from all the files in the folder of that name."""
    runs = finished(shape)
    rows = [row for parts in runs.values() for seeds in parts.values() for row in seeds.values()]
    arms = {arm: figures_of(parts) for arm, parts in runs.items()}
    which = "" if shape == SHAPES["cpu"] else f" --shape {next(name for name, of in SHAPES.items() if of == shape)}"
    return write(shape.folder, f"python -m tests.benchmarks.anomaly{which} --data FOLDER", arms, sorted({row["seed"] for row in rows}),
                 notes(runs, shape), PACKAGES, comparisons(runs, shape), "; ".join(sorted({row["machine"] for row in rows})),
                 rows[-1]["versions"] if rows else None)


def finished(shape: Shape) -> Runs:
    """{arm: {part: {seed: its file}}}; an arm of the settings of another stands under both names. Raises ConfigError where a row has other
    lengths than the shape gives its part, where the rows of an arm differ in other settings, or any of ours in code."""
    codes = dict[str, str]()
    found: Runs = defaultdict(lambda: defaultdict(dict))
    for path in sorted(place("", "", 0, shape).parent.glob("*.json")):
        row = json.loads(path.read_text())
        settings, long = row.get("settings", {}), shape.lengths(row["part"])
        if why := odd(settings, stretched(settings, long)):
            raise ConfigError(f"The result {path.stem} in {path.parent.name} has other lengths than the shape gives this part ({why}). "
                              "Remove it, or go back to its lengths.")
        first = next((r for seeds in found[row["arm"]].values() for r in seeds.values()), row)
        if why := odd(stretched(first.get("settings", {}), long), settings):
            raise ConfigError(f"The results {first['part']}-{first['arm']}-{first['seed']} and {path.stem} in {path.parent.name} come from "
                              f"different settings ({why}). An arm has one: remove those that are not meant.")
        if row["arm"] not in OUTSIDE:
            codes.setdefault(row.get("code", ""), path.stem)
        if not all(same_code(c, next(iter(codes))) for c in codes):
            both = " and ".join(codes.values())
            raise ConfigError(f"The results {both} in {path.parent.name} come from different code of ours. Remove those of the older.")
        found[row["arm"]][row["part"]][row["seed"]] = row
    runs = {arm: found[same_as(arm)] for arm in ("anchor", *ARMS, *PEERS) if same_as(arm) in found}
    return {arm: {part: dict(sorted(seeds.items())) for part, seeds in parts.items()} for arm, parts in runs.items()}


def figures_of(parts: Parts) -> dict[str, list[float]]:
    """{'<set or part> <metric>': one value per seed}; a set's mean only of seeds that all its parts have."""
    groups = {**{part: (part,) for part in parts}, **SETS, **ABLATED}
    told = {}
    for name, members in groups.items():
        seeds = whole(parts, members)
        for metric in METRICS if seeds else ():
            told[f"{name} {metric}"] = [round(mean(parts[part][seed]["figures"][metric] for part in members), 2) for seed in seeds]
    return told


def comparisons(runs: Runs, shape: Shape) -> list[dict[str, Any]]:
    """Ours, and the arm that is nearest to the paper, against anchor and peers on each set; of the ablation what the paper claims:
    diffusion against noise, two losses against one; and jointly with one gradient against ours."""
    pairs = [(arm, other, SETS) for arm in MAIN[1:] for other in OUTSIDE] + [("ours", other, SETS) for other in MAIN[2:]]
    pairs += [("ddpm-both", arm, ABLATED) for arm in ("noise-both", "texture-both", "ddpm-cosine", "ddpm-segmentation")]
    pairs += [("ddpm-coupled", "ddpm-both", ABLATED), ("coupled", "ours", ABLATED)]
    found = []
    for a, b, groups in pairs:
        for name, members in groups.items():
            ours, theirs = (whole(runs.get(arm, {}), members) for arm in (a, b))
            if b != "anchor":                                                      # it has no seed: one run for all of ours
                ours = theirs = sorted(set(ours) & set(theirs))
            if not ours or not theirs:
                continue
            sides = [kept(runs, arm, members, seeds, shape) for arm, seeds in ((a, ours), (b, theirs))]
            images = sum(len(records[0].images) for records in sides[0].values())
            together = {part: groups_of(runs, part) for part in members}
            found += [dict(a=a, b=b, metric=f"{name} {metric}", **{k: round(v, 2) for k, v in vars(interval).items()},
                           seeds=len(ours), images=images)
                      for metric, interval in compare(*sides, groups=together, seedless=b == "anchor").items()]
    return found


def groups_of(runs: Runs, part: str) -> list[list[str]]:
    """Near-duplicates among a part's test images, as any row of it tells them; rows of an earlier program do not."""
    told = (row["groups"] for parts in runs.values() for row in parts.get(part, {}).values() if row.get("groups"))
    return list(next(told, []))


def whole(parts: Parts, members: tuple[str, ...]) -> list[int]:
    """Seeds that all members of a set have."""
    return sorted(set.intersection(*(set(parts.get(part, {})) for part in members)))


def kept(runs: Runs, arm: str, members: tuple[str, ...], seeds: list[int], shape: Shape) -> dict[str, list[Record]]:
    return {part: [checked(runs[arm][part][seed], place(part, same_as(arm), seed, shape)) for seed in seeds] for part in members}


def checked(row: dict[str, Any], path: Path) -> Record:
    record = Record.load(path.with_suffix(".npz"))
    ours, theirs = record.figures(np.ones((1, len(record.images))))[0], [row["figures"][m] for m in METRICS]
    assert np.allclose(ours, theirs, atol=0.5), f"{path.stem}: the record is of another run than its figures: {ours}, not {theirs}"
    return record


def notes(runs: Runs, shape: Shape) -> str:
    wanted = [(arm, part, seed) for arm in MAIN for part in PARTS for seed in (SEEDS[:1] if arm == "anchor" else SEEDS) if shape.main]
    wanted += [(arm, part, seed) for arm in ABLATION for part in sum(ABLATED.values(), ()) for seed in ABLATED_SEEDS if shape.ablation]
    missing: dict[str, set[str]] = defaultdict(set)
    for arm, part, seed in wanted:
        if seed not in runs.get(arm, {}).get(part, {}):
            missing[arm].add(f"{part} {seed}")
    asked = Counter(arm for arm, _, _ in wanted)
    unseen = [arm for arm in (*PEERS, *ARMS) if arm not in asked and arm not in runs and shape.main
              and (shape.ablation or arm not in ABLATION)]
    left = "; ".join(f"{arm}: " + (f"all {asked[arm]}" if len(parts) == asked[arm] else ", ".join(sorted(parts)))
                     for arm, parts in missing.items())
    commits = sorted({row["commit"] for parts in runs.values() for seeds in parts.values() for row in seeds.values()})
    return " ".join(filter(None, [
        "magnetic-tile: 714 good tiles to learn from, 238 good and 392 defective ones in the test; PIPED: six kinds of paper, 32 good to "
        "learn from, 16 good and 48 defective in the test of each. Of ours 15 % of train are kept from learning: they set units, the maps' "
        "weights, k and the threshold. Percent, by the published "
        f"scorer, last-step weights, one configuration{f' at {shape.imgsz} px' if shape.imgsz else ''}: {lengths(shape)}."
        + (" The anchor is PatchCore on EfficientNet-Lite0, which has no seed." if shape.main else ""),
        arithmetic(row for parts in runs.values() for seeds in parts.values() for row in seeds.values()),
        SHAPED if shape.main else SHAPED_TOO, UNLIKE if shape.ablation else "",
        "" if shape.ablation else "What masks are filled with, and each loss alone: see the ablation, in a table of its own.",
        *near_duplicates(runs),
        "Differences in points: 95 % intervals of a paired bootstrap of the images, near-duplicates together where a row tells them"
        f"{alike_in(runs)}, to which the variance between seeds is added; from one seed it says nothing of others. One diffusion model and "
        "one pool of perturbed images serve all seeds, so the intervals leave out the variance of these.",
        f"Peers are anomalib's, {shape.peer:,} steps, on the same lists; DRAEM with Perlin noise for textures, the others on "
        "EfficientNet-Lite0." if set(PEERS) & set(runs) else "",
        *(f"{arm} is the run of {same_as(arm)}." for arm in runs if same_as(arm) != arm),
        aimed(runs), so_far(runs), earlier(runs),
        f"Not run yet: {left}." if left else "", f"No row at all of: {', '.join(unseen)}." if unseen else "",
        f"Runs made at {', '.join(commits)}."]))


def lengths(shape: Shape) -> str:
    if shape.many == shape.few:
        return str(shape.many)
    return f"on magnetic-tile {shape.many}; on PIPED, where a pass is a twentieth as long, {shape.few}"


def alike_in(runs: Runs) -> str:
    found = {part: groups for part in PARTS if (groups := groups_of(runs, part))}
    told = "; ".join(f"{part}: {sum(map(len, groups))} images in {len(groups)} groups" for part, groups in found.items())
    return f" ({told})" if told else ""


def earlier(runs: Runs) -> str:
    """That rows of ours come from a program before this one, where they do."""
    old = {row["commit"] for arm, parts in runs.items() if arm not in OUTSIDE for seeds in parts.values() for row in seeds.values()
           if not same_code(row.get("code", ""), code(arm))}
    return f"Rows of ours at {', '.join(sorted(old))} are of an earlier program: how it trains has changed since." if old else ""


def aimed(runs: Runs) -> str:
    """Means of ours over its seeds beside what was aimed at."""
    found, anchor = (figures_of(runs.get(arm, {})) for arm in ("ours", "anchor"))
    aims = AIMS | ({"PIPED image_auroc": mean(anchor["PIPED image_auroc"])} if "PIPED image_auroc" in anchor else {})
    told = [f"{metric.replace('_', ' ')} {mean(found[metric]):.1f} of {aim:g}, {'reached' if mean(found[metric]) >= aim else 'not reached'}"
            for metric, aim in aims.items() if metric in found]
    return f"Aims for ours: {'; '.join(told)}." if told else ""


def so_far(runs: Runs) -> str:
    """Of a set that is not whole yet, the parts that ours has, beside the anchor's: no row of the table shows them."""
    ours, anchor = runs.get("ours", {}), runs.get("anchor", {})
    some = [part for members in SETS.values() if not whole(ours, members) for part in members if part in ours and part in anchor]
    told = [f"{part} " + ", ".join(f"{metric.replace('_', ' ')} {mean(r['figures'][metric] for r in ours[part].values()):.1f} "
                                   f"({anchor[part][0]['figures'][metric]:.1f})" for metric in METRICS) for part in some]
    return f"Single parts so far, ours (anchor): {'; '.join(told)}." if told else ""


UNLIKE = ("Arms of a single source share pictures, views, masks and opacities (0.5 to 1); only what fills the masks differs. Of one "
          "source, both and cosine have the very same student, which learns from cosine alone: they differ by what the head adds. In "
          "ddpm-coupled the head's gradient reaches the student too.")
SHAPED_TOO = ("The masks (least area, whole sides) and the constant coordinate in the cosine were shaped with the defects of both sets "
              "known, which all lie in the test lists: figures are no blind test, differences between arms are less touched by it.")
SHAPED = ("The default, ours, was shaped with the defects of both sets known, and all of these lie in the test lists: least area and whole "
          "sides among its masks, the fillings tone and moved, the constant coordinate in its cosine. So ours is no blind test; ddpm-both "
          "has none of those fillings and is the arm nearest to the paper, with the same masks and the same cosine.")


def near_duplicates(runs: Runs) -> list[str]:
    """How many train images resemble test images, part by part, as the rows tell it."""
    told = {part: row["alike"] for parts in runs.values() for part, seeds in parts.items() for row in seeds.values() if row.get("alike")}
    counts = "; ".join(f"{part}: {n['near_test']} of {n['train']}" for part, n in sorted(told.items()) if n["near_test"])
    return [f"Good train images that are near-duplicates of test images by the product's own perceptual-hash rule: {counts}. They are "
            "there for all arms, the anchor alike, as the published lists have it; by default the product leaves them out, and so does the "
            "training of the diffusion model."] if counts else []


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--data", type=Path)
    ap.add_argument("--shape", choices=list(SHAPES), default="cpu")
    ap.add_argument("--table", action="store_true", help="only write results/anomaly.json from the files there are")
    ap.add_argument("--ablation", action="store_true", help="its arms, parts and seeds instead of the main ones, in a shape that has both")
    ap.add_argument("--arms", nargs="+", choices=["anchor", *ARMS, *PEERS])
    ap.add_argument("--parts", nargs="+", choices=list(PARTS))
    ap.add_argument("--seeds", type=int, nargs="+")
    ap.add_argument("--python", default=sys.executable, help="Python of an environment that holds anomalib, for the peers")
    a = ap.parse_args()
    if a.table:
        try:
            print(table(SHAPES[a.shape]))
        except ConfigError as problem:
            sys.exit(str(problem))
        return
    if not a.data:
        ap.error("--data is needed to run anything")
    if a.ablation and not SHAPES[a.shape].ablation:
        ap.error(f"the ablation has a shape of its own: --shape short, not {a.shape}")
    a.data.mkdir(parents=True, exist_ok=True)
    ablation = a.ablation or not SHAPES[a.shape].main
    for seed in a.seeds or (ABLATED_SEEDS if ablation else SEEDS):
        for part in a.parts or (sum(ABLATED.values(), ()) if ablation else PARTS):
            for arm in a.arms or (FIRST if ablation else MAIN):
                if arm != "anchor" or seed == 0:
                    try:
                        one(Lab.of(a.data.resolve(), SHAPES[a.shape], part, seed, a.python), same_as(arm))
                    except ConfigError as problem:
                        sys.exit(str(problem))


if __name__ == "__main__":
    main()
