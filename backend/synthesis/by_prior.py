"""The method `prior`: a diffusion prior draws. Over a train picture of the class, from noise, or into a masked part of a good picture.

Starting from a real picture is StableSDG's (arXiv 2405.01872, "image-oriented generation"): the result keeps the picture's boxes and
outline, since defects stay about where they were; how far, the strength decides, and a person or a detector must judge. So the
outline is shown, but is none to learn pixels by; and only pictures of one class are drawn over while there are some, as the words are
of one. From noise nobody knows where the defect is: one box runs round the whole picture. Inside a mask the outline is what one sees
change.
Behind the recipe `synthesize`; knows nothing of files, of checkpoints or of solvers.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from backend import rundir
from backend.config import Synthesize
from backend.data import images
from backend.data.snapshot import Picture, Snapshot
from backend.device import torch_device
from backend.errors import ConfigError, NotFoundError
from backend.synthesis import blend, keeping, sources
from backend.synthesis.by_paste import clusters, outline_of, suggested
from backend.synthesis.by_perturbation import good_parents, key_in, shape_for, shapes_folder, shapes_of
from backend.synthesis.methods import Made, Opened, Task, chosen, classes_of, judged, rng_of
from backend.synthesis.prior import draw, levels, stable
from backend.synthesis.prior.fit import fit
from backend.teacher.extractors import extractor

FAR = 0.8                        # strength from which on little of a parent is left, its defects' places among it. Our choice


class ByPrior:
    """Which picture, mask, words and seed an attempt has, and what comes of it."""

    def __init__(self, config: Synthesize, data: Snapshot) -> None:
        self.config, self.data, self.classes = config, data, classes_of(config, data)
        self.found = stable.find(config.prior, data)
        self.keys = {"prior": self.found.key}
        self.advice = "Raise strength or area." if config.start == "inpaint" else ""
        held = set(self.found.head.get("held", ()))          # apart, so that what is made can be measured against them
        if config.apart.strip():
            also = rundir.read_json(also_apart(config.apart.strip(), data) / "head.json")
            self.keys["apart"], held = str(also["key"]), held | set(also["held"])
        shown = {c: sources.of_class(data, c, without=held) for c in self.classes}
        self.of_class = {c: Opened(sources.alone(some) if config.start == "image" else some) for c, some in shown.items()}
        if bare := [c for c, known in self.of_class.items() if not len(known)]:
            adapter = self.found.name if self.found.adapter else config.apart.strip()
            raise ConfigError(f"All train images that show {bare[0]!r} were held apart when {adapter!r} was adapted, so there is none "
                              "to draw from. Adapt it to this dataset with a smaller share held apart.")
        if config.start == "inpaint":
            if folder := shapes_folder(config.masks):
                refuse_new_kind(folder, data)
            self.good, collected = Opened(good_parents(config, data)), shapes_of(config, folder)
            self.shapes = {c: collected or Outlines(self.of_class[c].parents, c) for c in self.classes}
            self.keys["shapes"] = key_in(folder)

    def open(self) -> dict[str, Any]:
        self.prior = stable.open_prior(self.found, torch_device(), "auto")
        if self.config.start == "inpaint":
            self.witness = blend.Witness(extractor("efficientnet-lite0").to(torch_device()))
        said = dict(name=self.found.name, key=self.found.key, adapter=self.prior.adapter_key, adapter_hash=self.prior.adapter_hash,
                    base=self.prior.base_hash)
        return dict(prior=said, apart=self.keys.get("apart", ""), shapes=self.keys.get("shapes", ""),
                    prompts={c: self._prompt(c) for c in self.classes})

    def warnings(self) -> list[str]:
        return [said for said in (self._strange(), self._coarse(), self._doubtful()) if said]

    def _strange(self) -> str:
        """What the prior has not learned of this dataset."""
        name, head = self.found.name, self.found.head
        if self.config.prompt.strip():
            return ""
        if self.found.kind != "adapter":
            return f"The prior {name!r} was not adapted to this dataset: it draws what plain words tell it. Adapt it first."
        if head["dataset"] != self.data.head["name"]:
            return f"The prior {name!r} was adapted to {head['dataset']!r}, not to this dataset."
        new = [c for c in self.classes if c not in self.prior.classes_known]
        return f"The prior {name!r} has not learned {', '.join(new)}: these were drawn from plain words." if new else ""

    def _coarse(self) -> str:
        """What is lost where pictures are larger than those that the prior draws."""
        sizes = [(p.height, p.width) for p in (self.good.parents if self.config.start == "inpaint" else self._parents())]
        larger = sum(fit(self.prior, *size).scaled[0] < size[0] for size in sizes)
        return f"{larger} of {len(sizes)} images are larger than the prior draws: what it drew for them was enlarged and is less sharp." \
            if larger else ""

    def _doubtful(self) -> str:
        """What labels may not say."""
        if self.config.start == "image" and self.config.strength >= FAR:
            return f"At a strength of {self.config.strength:g} little of a parent is left: its boxes may not be where the defects are."
        if self.config.start == "image" and (mixed := [c for c, known in self.of_class.items() if len(known.parents[0].classes) > 1]):
            return f"Of {', '.join(mixed)} there are only images that show other classes too: what was drawn anew there may be of " \
                   "another class than its box says."
        if self.config.start == "noise" and any(b.source != "image" for p in self._parents() for b in p.boxes):
            return "Nobody knows where the defects are in images drawn from noise: each has one box round the whole of it, which no " \
                   "detector should learn from."
        return ""

    def _parents(self) -> list[Picture]:
        return [p for known in self.of_class.values() for p in known.parents]

    def make(self, tasks: list[Task], tick: Callable[[], None]) -> Iterator[Made | str]:
        seeds = [int(rng_of(self.config.seed, t, 2).integers(2**63)) for t in tasks]
        how = {"image": self._over_pictures, "noise": self._from_noise, "inpaint": self._into_good_ones}[self.config.start]
        return how(tasks, [self._prompt(t.class_name) for t in tasks], seeds, tick)

    def _prompt(self, class_name: str) -> str:
        return self.config.prompt.strip() or stable.prompt_for(self.prior, self.data.head["name"], class_name)

    def _about(self, prompt: str, **more: Any) -> dict[str, Any]:
        config, strength = self.config, 1.0 if self.config.start == "noise" else self.config.strength
        return dict(source=config.start, prompt=prompt, adapter=self.prior.adapter_key, adapter_hash=self.prior.adapter_hash,
                    strength=strength, guidance=config.guidance, steps=config.steps, **more)

    def _redrawn(self, known: list[blend.Image], shapes: list[blend.Mask] | None, prompts: list[str], seeds: list[int],
                 tick: Callable[[], None]) -> list[blend.Image]:
        return draw.redraw(self.prior, known, shapes, prompts, seeds, strength=self.config.strength, guidance=self.config.guidance,
                           steps=self.config.steps, each=tick)

    # ---- over a picture of the class

    def _over_pictures(self, tasks: list[Task], prompts: list[str], seeds: list[int], tick: Callable[[], None]) -> Iterator[Made]:
        taken = [chosen(self.config, t, len(self.of_class[t.class_name])) for t in tasks]
        parents = [self.of_class[t.class_name].parents[i] for t, i in zip(tasks, taken, strict=True)]
        known = [self.of_class[t.class_name][i] for t, i in zip(tasks, taken, strict=True)]
        results = self._redrawn(known, None, prompts, seeds, tick)
        for parent, before, after, prompt in zip(parents, known, results, prompts, strict=True):
            yield self._of_parent(parent, before, after, prompt)

    def _of_parent(self, parent: Picture, before: blend.Image, after: blend.Image, prompt: str) -> Made:
        labels = keeping.boxed(((b.class_name, b.x1, b.y1, b.x2, b.y2) for b in parent.boxes), parent.width, parent.height)
        whole = all(b.source == "image" for b in parent.boxes)
        mask = images.load_mask(parent.mask) if parent.mask else None
        return Made(after, before, mask, labels, "whole" if whole else "parent", self._about(prompt, parent=parent.image_id), exact=False)

    # ---- from noise

    def _from_noise(self, tasks: list[Task], prompts: list[str], seeds: list[int], tick: Callable[[], None]) -> Iterator[Made]:
        """Each of the size and the colours of a picture of its class; pictures of one size are drawn together."""
        models = [self._model(t) for t in tasks]
        found = dict[int, blend.Image]()
        for kind in dict.fromkeys(models):
            same = [i for i, model in enumerate(models) if model == kind]
            made = draw.invent(self.prior, [prompts[i] for i in same], [seeds[i] for i in same], kind[:2], self.config.guidance,
                               self.config.steps, kind[2], each=tick)
            found |= zip(same, made, strict=True)
        for i, task in enumerate(tasks):
            height, width = found[i].shape[:2]
            labels = keeping.boxed([(task.class_name, 0, 0, width, height)], width, height)
            yield Made(found[i], None, None, labels, "whole", self._about(prompts[i], parent=""))

    def _model(self, task: Task) -> tuple[int, int, bool]:
        """Height, width and whether it is grey, of a picture of the class, by chance."""
        known = self.of_class[task.class_name]
        pixels = known[int(rng_of(self.config.seed, task, 3).integers(len(known)))]
        return (*pixels.shape[:2], levels.is_grey(pixels))

    # ---- into good pictures

    def _into_good_ones(self, tasks: list[Task], prompts: list[str], seeds: list[int], tick: Callable[[], None]) -> Iterator[Made | str]:
        taken = [chosen(self.config, t, len(self.good)) for t in tasks]
        known = [self.good[i] for i in taken]
        shapes = [shape_for(self.config, rng_of(self.config.seed, t), normal, self.shapes[t.class_name])
                  for t, normal in zip(tasks, known, strict=True)]
        results = self._redrawn(known, shapes, prompts, seeds, tick)
        told = judged(self.witness, known, results, shapes)
        for task, i, before, after, (seen, refusal), prompt in zip(tasks, taken, known, results, told, prompts, strict=True):
            about = self._about(prompt, parent=self.good.parents[i].image_id)
            yield refusal or Made(after, before, seen, keeping.outlines(seen, task.class_name), "mask", about)


def also_apart(name: str, data: Snapshot) -> Path:
    """The adapter whose images held apart are left alone. Raises NotFoundError, ConfigError."""
    folder = rundir.find_artifact("adapter", name)
    if folder is None:
        raise NotFoundError(f"There is no adapted prior called {name!r}.")
    head = rundir.read_json(folder / "head.json")
    if head["snapshot_id"] != data.snapshot_id:
        raise ConfigError(f"{head['name']!r} was adapted to {head['dataset']!r}, or to another state of it, so what it held apart says "
                          "nothing here.")
    return folder


def refuse_new_kind(folder: Path, data: Snapshot) -> None:
    """Raises ConfigError where no train image shows the kind of these outlines: classes that are known would be drawn in them, and be
    labelled so."""
    kind = str(rundir.read_json(folder / "head.json")["name"])
    if kind not in {c for p in sources.usable(data) for c in p.classes}:
        raise ConfigError(f"The outlines are of {kind!r}, which no train image of {data.head['name']!r} shows, so no prior has learned it: "
                          "it would draw another kind in them. Fill them by the method 'perturb', which labels them as their own kind.")


class Outlines(Sequence[blend.Mask]):
    """Shapes that defects of a class have, worked out when asked for: true outlines, or what their boxes suggest; each in the frame of
    its picture."""

    def __init__(self, known: list[Picture], class_name: str) -> None:
        self.clusters = list(clusters(known, class_name))

    def __len__(self) -> int:
        return len(self.clusters)

    def __getitem__(self, i: Any) -> Any:
        outline = outline_of(*self.clusters[i])[0]
        return outline if outline.any() else suggested(*self.clusters[i])
