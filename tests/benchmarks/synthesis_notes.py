"""What the table of the synthesis benchmark says of itself: what it was made with, whether the aims are met, what is not run yet.

Knows nothing of how arms are made or compared.
"""

from collections.abc import Callable
from typing import Any

from tests.benchmarks.settings import arithmetic
from tests.benchmarks.synthesis_arms import HELD, INPAINT, PARTS, RATIO, REAL_SHARE, SPACES, STARTS, TENTH
from tests.benchmarks.synthesis_compare import Row, Runs, together
from tests.benchmarks.synthesis_data import LEFT, TAIL
from tests.benchmarks.synthesis_lab import BATCH, GUIDANCE, STRENGTH, Shape, steps_of

Seeds = dict[str, dict[int, Row]]                                                  # arm -> seed -> its file

# part, arm, the one it is to beat, metric, by how much, in what
AIMS = (("recognition", "10-prior", "10-aug", "accuracy", 5.0, "points of accuracy"),
        ("detection", "prior", "plain", "map50", 0.03, "of map50"))
# what is expected of KID, which is better the lower: the first arm below the second
EXPECTED = {"image start below noise start": [(f"image-{space}", f"noise-{space}") for space in SPACES],
            "both adaptations below either alone": [(f"{s}-both", f"{s}-{alone}") for s in STARTS for alone in ("tokens", "lora")]}


def notes(runs: Runs, compared: list[dict[str, Any]], shape: Shape) -> str:
    rows = [row for arms in runs.values() for seeds in arms.values() for row in seeds.values()]
    (coder, prior), (tokens, lora) = shape.prior, shape.adapter
    return " ".join(filter(None, [
        f"Surface priors of the preset {shape.preset}, {coder:,} and {prior:,} steps of {shape.batch} crops, from {shape.drawn:,} drawn "
        "surfaces, PIPED's good paper and the train list of the other dataset: never of the one they are for. Adapters: "
        f"{tokens:,} steps of tokens, {lora:,} of low rank. Every picture is drawn in {shape.denoising} steps.",
        arithmetic(rows),
        *(ABOUT[part](runs[part], shape) for part in PARTS if runs[part]),
        f"Differences: 95 %, of a paired bootstrap over seeds and images where there is a test{_near(runs)}; of KID from both sides' own "
        "intervals, which is rather too wide. One prior serves all seeds, so they leave out how another one would have come out.",
        *(aimed(compared, *aim) for aim in AIMS), *(expected(compared, *those) for those in EXPECTED.items()), _missing(runs),
        f"Runs made at {', '.join(sorted({row['commit'] for row in rows}))}." if rows else ""]))


def aimed(compared: list[dict[str, Any]], part: str, arm: str, other: str, metric: str, aim: float, what: str) -> str:
    told = _found(compared, part, arm, other, metric)
    said = judged(told["low"] - aim, told["high"] - aim, told) if told else "not measured yet"
    return f"Aim of {part}: {arm} above {other} by {aim:g} {what}; {said}."


def expected(compared: list[dict[str, Any]], what: str, pairs: list[tuple[str, str]]) -> str:
    told = {pair: c for pair in pairs if (c := _found(compared, "kid", *pair, "kid"))}
    said = [f"{a} below {b} {judged(-c['high'], -c['low'], c)}" for (a, b), c in told.items()]
    return f"Expected of kid: {what}; {'; '.join(said) or 'not measured yet'}."


def judged(low: float, high: float, told: dict[str, Any]) -> str:
    """'reached: +5.2 (+3.1 to +7.4), 3 seeds': by the whole interval of what is too much or too little, else open. So is one seed a
    side, which shows no spread."""
    how = "open" if told["seeds"] == 1 else "reached" if low >= 0 else "not reached" if high < 0 else "open"
    seeds = f"{told['seeds']} seed{'s' * (told['seeds'] > 1)}"
    return f"{how}: {told['difference']:+.3g} ({told['low']:+.3g} to {told['high']:+.3g}), {seeds}"


def _found(compared: list[dict[str, Any]], part: str, arm: str, other: str, metric: str) -> dict[str, Any] | None:
    return next((c for c in compared if (c["a"], c["b"], c["metric"]) == (f"{part} {arm}", f"{part} {other}", metric)), None)


def _near(runs: Runs) -> str:
    """What the intervals make of near-duplicates among the test images, part by part."""
    groups = {part: together([row for seeds in arms.values() for row in seeds.values()]) for part, arms in runs.items()}
    told = [f"{part} {sum(map(len, some))} in {len(some)} groups" for part, some in groups.items() if some]
    return f", near-duplicates drawn together ({', '.join(told)})" if told else ""


def _missing(runs: Runs) -> str:
    left = [f"{part} {arm} {', '.join(map(str, seeds))}" for part, of in PARTS.items() for arm in of.all
            if (seeds := [s for s in of.seeds if s not in runs[part].get(arm, {})])]
    return f"Not run yet (part, arm, seeds): {'; '.join(left)}." if left else ""


# ---- part by part

def _kid(arms: Seeds, shape: Shape) -> str:
    return (f"kid: NEU-DET's train images by class, {HELD:.0%} of each kept apart: no arm learns from them or draws over them, those of "
            f"plain words neither, and all are compared with these; {shape.made} pictures a class and seed of the generator; times 1,000, "
            "features of EfficientNet-Lite0. copied: share nearer to an image of the others than 99 % of real ones are"
            f"{_by_chance(arms)}. Strength {STRENGTH:g} and guidance {GUIDANCE:g} in all arms, chosen beforehand: a search would have "
            "fitted them to one arm, on the images that all are compared with. All seeds share one adapter for each space, and are the "
            "generator's alone, so differences leave out the luck of adapters. Noise start draws at 224 px what the prior has learned from "
            "crops of 128 px, and levels that drift are corrected in image start alone, against the picture drawn over: a part of the "
            "difference between the two starts may be these.")


def _by_chance(arms: Seeds) -> str:
    found = [row["figures"]["copied_chance"] for seeds in arms.values() for row in seeds.values() if "copied_chance" in row["figures"]]
    return f"; where nothing is copied it is {sum(found) / len(found):.2g}" if found else ""


def _recognition(arms: Seeds, shape: Shape) -> str:
    return (f"recognition: NEU-DET, so many train images of each class, drawn by seed; ResNet-18 from scratch, {shape.classifier:,} steps "
            f"of 32 at {shape.side} px in every arm; percent of the locked test list, each class alike; val sets thresholds, which "
            f"accuracy does not ask. real: without augmentation; all others with. {RATIO} made pictures for each real one, or as many as "
            f"the name ends in; {REAL_SHARE:.0%} of a step is real. prior: image start, strength {STRENGTH:g} and guidance {GUIDANCE:g}, "
            "chosen beforehand. paste: the same images with their boxes, since a label of the whole picture does not say what to cut out. "
            "It is set into images of the same class alone. scratch: what a diffusion model comes to without a prior. It is a Stable "
            f"Diffusion in small, trained on these images alone ({shape.scratch[0]:,} and {shape.scratch[1]:,} steps), told of classes by "
            "words, drawing from noise; the product's own DDPM perturbs good images, of which NEU-DET has none."
            f"{_short(arms)}")


def _tail(arms: Seeds, shape: Shape) -> str:
    return (f"tail: magnetic-tile's det- lists with {LEFT} train images of {TAIL}, drawn by seed; YOLO11n from scratch, {_steps(arms)}; "
            f"{shape.added} made pictures of {TAIL}, on good train tiles (prior: strength {INPAINT:g} inside a mask); 17 of 401 test "
            f"images show it; none of these models is scored on the anomaly list.{_alike(arms)}{_short(arms)}")


def _detection(arms: Seeds, shape: Shape) -> str:
    return (f"detection: NEU-DET, {TENTH} train images of each class, drawn by seed; YOLO11n from scratch, {_steps(arms)}; {RATIO} made "
            "pictures for each real one; the prior draws over them and keeps their boxes; weights chosen on val epoch by epoch, of which "
            f"arms with made pictures have fewer; locked test by the published scorer.{_alike(arms)}{_short(arms)}")


ABOUT: dict[str, Callable[[Seeds, Shape], str]] = {"kid": _kid, "recognition": _recognition, "tail": _tail, "detection": _detection}


def _steps(arms: Seeds) -> str:
    counted = {t["epochs"] * steps_of(t["images"]) for seeds in arms.values() for row in seeds.values() for run, t in row["told"].items()
               if run.startswith("train-detector")}
    least, most = min(counted), max(counted)
    return f"{least:,} steps of {BATCH} in every arm" if least == most else f"{least:,} to {most:,} steps of {BATCH}, as whole epochs allow"


def _alike(arms: Seeds) -> str:
    """Where near-duplicates stand on both sides."""
    found = next((row["alike"] for seeds in arms.values() for row in seeds.values() if row.get("alike")), {"near_test": 0})
    return (f" Near-duplicates stand on both sides of the published lists: {found['near_test']:,} of {found['train']:,} train images "
            "nearly equal a test image, by the product's rule, which flatters all arms.") if found["near_test"] else ""


def _short(arms: Seeds) -> str:
    """Where fewer pictures were added than were to be: they could not be made, or nearly equal a picture of val or test."""
    few = {arm: [n for row in seeds.values() for run, t in row["told"].items() if run.startswith("combine")
                 and (n := t["synthetic"]) < _wanted(row["settings"], run)] for arm, seeds in arms.items()}
    told = [f"{arm} {min(n)}{f' to {max(n)}' if max(n) > min(n) else ''}" for arm, n in few.items() if n]
    return f" Fewer made pictures than asked for, in some seeds: {'; '.join(told)}." if told else ""


def _wanted(settings: dict[str, Any], run: str) -> int:
    """How many made pictures a dataset was to have."""
    limit = settings[run]["limit"]
    return next(c["count"] for r, c in settings.items() if r.startswith("synthesize")) if limit is None else limit
