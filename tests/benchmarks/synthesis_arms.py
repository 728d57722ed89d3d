"""The arms of the synthesis benchmark: what is made of what, part by part.

    kid           NEU-DET: {noise, image} start × {prompt, tokens, lora, both}. One adapter a space; the seed is the generator's.
                  All arms draw over the same images and are compared with the same
    recognition   NEU-DET by class, 5, 10 or 20 images of each: real, aug, and aug + paste, scratch, prior
    tail          magnetic-tile with 5 train images of one class: plain, + paste, + prior (inpaint), + perturb
    detection     NEU-DET with a tenth of its train list: plain, + paste, + prior (image start)

In all parts but the first, whatever makes pictures sees the few images of that seed alone. Knows nothing of scores.
"""

from collections.abc import Callable
from dataclasses import dataclass

from tests.benchmarks.settings import Settings
from tests.benchmarks.synthesis_data import BY_CLASS, CLASSES, TAIL, cut, few
from tests.benchmarks.synthesis_lab import GUIDANCE, STRENGTH, Lab, Plan

HELD = 0.4               # of each class's train images kept apart to measure against, in the part kid
RATIO = 2                # made pictures for each real one, where an arm does not say otherwise
TENTH = 21               # images a class: a tenth of NEU-DET's train list
REAL_SHARE = 0.5         # of a classifier's step, whatever the ratio: more made pictures are then more various, and no more often seen
INPAINT = 0.9            # strength: a mask is drawn nearly anew
SPARE = 1.5              # times as many tiles are made as are added: up to a quarter nearly equals a test tile and is refused


def kid(lab: Lab, arm: str) -> str:
    start, space = arm.split("-")
    data, base = lab.read(few(lab.shape.known, 0, by_class=True) if lab.shape.known else BY_CLASS), lab.prior("steel")
    both = lab.adapted(data, base, "both", HELD, 0)          # of all arms it says which images are parents, and which are compared with
    prior = {"prompt": base, "both": both}.get(space) or lab.adapted(data, base, space, HELD, 0)
    name = lab.drawn(f"kid {arm} {lab.seed}", data, prior, CLASSES * lab.shape.made, start, STRENGTH, GUIDANCE, "--apart", both)
    return lab.done("measure-synthesis", name, "--synthetic", name)


def recognition(lab: Lab, arm: str) -> str:
    number, method, *ratio = arm.split("-")
    n, data = int(number), lab.read(few(int(number), lab.seed, by_class=True))
    name, count = f"recognition {arm} {lab.seed}", CLASSES * n * int(ratio[0] if ratio else RATIO)
    learned = data if method in ("real", "aug") else lab.joined(data, SETS[method](lab, name, data, n, count))
    shares = () if learned == data else ("--real-share", str(REAL_SHARE))
    augment = "none" if method == "real" else "standard"
    return lab.done("train-classifier", name, "--dataset", learned, "--network", "resnet18", "--steps", str(lab.shape.classifier),
                    "--imgsz", str(lab.shape.side), "--augment", augment, "--seed", str(lab.seed), *shares)


def _pasted(lab: Lab, name: str, data: str, n: int, count: int) -> str:
    """From the same images with their boxes: a label of the whole picture says nothing of what to cut out. Into images of the same
    class alone: set into another's, it would be a picture of both, labelled by the larger."""
    return lab.set(name, lab.read(few(n, lab.seed, by_class=False)), "paste", count, "--same-class")


def _from_scratch(lab: Lab, name: str, data: str, n: int, count: int) -> str:
    """A diffusion model of these few images and nothing else, told of classes by words, drawing from noise: a Stable Diffusion in
    small, as the surface prior is, and not the product's `train-diffusion`."""
    prior = lab.learned(f"{data} alone", [data], 0, lab.shape.scratch, lab.seed)
    return lab.drawn(name, data, prior, count, "noise")


def _adapted(lab: Lab, name: str, data: str, n: int, count: int) -> str:
    return lab.drawn(name, data, lab.adapted(data, lab.prior("steel")), count, "image")


SETS: dict[str, Callable[[Lab, str, str, int, int], str]] = {"paste": _pasted, "scratch": _from_scratch, "prior": _adapted}


def tail(lab: Lab, arm: str) -> str:
    data, name, count = lab.read(cut(lab.seed)), f"tail {arm} {lab.seed}", round(SPARE * lab.shape.added)
    makers: dict[str, Callable[[], str]] = {
        "paste": lambda: lab.set(name, data, "paste", count, "--class", TAIL),
        "prior": lambda: lab.drawn(name, data, lab.adapted(data, lab.prior("tile")), count, "inpaint", INPAINT, GUIDANCE, "--class", TAIL),
        "perturb": lambda: lab.set(name, data, "perturb", count, "--class", TAIL, "--source", "ddpm", "--denoiser", lab.done(
            "train-diffusion", f"{data} ddpm", "--dataset", data, "--steps", str(lab.shape.denoiser), "--good"))}
    learned = data if arm == "plain" else lab.joined(data, makers[arm](), lab.shape.added)
    return lab.detector(name, data, learned, lab.shape.tail)


def detection(lab: Lab, arm: str) -> str:
    data, name = lab.read(few(TENTH, lab.seed, by_class=False)), f"detection {arm} {lab.seed}"
    count = CLASSES * TENTH * RATIO
    makers: dict[str, Callable[[], str]] = {
        "paste": lambda: lab.set(name, data, "paste", count),
        "prior": lambda: lab.drawn(name, data, lab.adapted(data, lab.prior("steel")), count, "image")}
    return lab.detector(name, data, data if arm == "plain" else lab.joined(data, makers[arm]()), lab.shape.detection)


@dataclass(frozen=True)
class Part:
    """`arms` in groups, in order of worth: all seeds of one before the next. `recipe` is that of an arm's last run."""

    make: Callable[[Lab, str], str]
    recipe: str
    arms: tuple[tuple[str, ...], ...]
    seeds: tuple[int, ...]

    @property
    def all(self) -> tuple[str, ...]:
        return sum(self.arms, ())


SPACES, STARTS = ("both", "prompt", "tokens", "lora"), ("image", "noise")
METHODS, RATIOS = ("aug", "prior", "paste", "scratch", "real"), (1, 4, 8)
PARTS = {
    "kid": Part(kid, "measure-synthesis", (tuple(f"{start}-{space}" for space in SPACES for start in STARTS),), (0, 1, 2)),
    "recognition": Part(recognition, "train-classifier", (
        tuple(f"10-{m}" for m in METHODS), tuple(f"10-prior-{r}" for r in RATIOS), tuple(f"5-{m}" for m in METHODS),
        tuple(f"20-{m}" for m in METHODS)), (0, 1, 2, 3, 4)),
    "tail": Part(tail, "train-detector", (("plain", "prior", "paste", "perturb"),), (0, 1, 2)),
    "detection": Part(detection, "train-detector", (("plain", "prior", "paste"),), (0, 1, 2)),
}


def planned(lab: Lab, part: str, arm: str) -> dict[str, Settings]:
    """Settings of an arm and of all that it builds on, by recipe and name."""
    plan = Plan(lab.data, lab.shape, seed=lab.seed)
    PARTS[part].make(plan, arm)
    return plan.noted
