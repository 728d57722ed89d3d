"""The recipe `adapt-prior`: a diffusion prior is moved towards the defects of a dataset: `<run>/adapter`. Start reading here.

Tai et al. 2024 (StableSDG, arXiv 2405.01872): first words for the classes are learned while the network stands still, then low-rank
changes of the network while the words do; or one of the two alone. Only train images, a share of each class kept apart. Every step's
randomness follows from (seed, space, step), so a killed run comes to the same adapter. Knows nothing of drawing sets.
"""

import shutil
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch

from backend import rundir
from backend.config import AdaptPrior
from backend.data import images, snapshot
from backend.data.snapshot import Snapshot
from backend.device import cores, torch_device
from backend.errors import Canceled, ConfigError, ResourceError
from backend.synthesis import keeping
from backend.synthesis.prior import draw, examples, levels, lora, stable, steps, tokens, words
from backend.synthesis.prior.material import Material
from backend.synthesis.prior.stable import Prior

FORMAT = 2                       # of the artifact; part of its key
SAVE_S = 60                      # between two checkpoints
CURVE = 10                       # steps averaged into a point of the curve
SHOWN = 6                        # classes in the preview
PREVIEW, STRENGTH, GUIDANCE = 12, 0.6, 2.0      # denoising steps and settings of the preview
FEW = 8                          # pictures held apart, below which quality cannot be measured


def run(config: AdaptPrior, run_dir: Path, report: Any) -> dict[str, Any]:
    if not config.name:
        raise ConfigError("Give the adapted prior a name.")
    data, found = snapshot.read(rundir.find_snapshot(config.dataset)), stable.find(config.prior)
    if found.kind == "adapter":
        raise ConfigError(f"{found.name!r} is adapted already. Name the prior it was adapted from: {found.head['base']['name']!r}.")
    return make(config, data, found, run_dir, report)


def make(config: AdaptPrior, data: Snapshot, found: stable.Found, run_dir: Path, report: Any) -> dict[str, Any]:
    """Learn what the config names and keep it in `<run>/adapter`. Raises ConfigError, NotFoundError, ResourceError."""
    report(step=0, total=1, message="opening the prior")
    prior = stable.open_prior(found, torch_device(), config.precision)
    key, scratch = key_of(config, data, prior.base_hash), run_dir / "adapting"
    if done := rundir.own_result(run_dir, "adapter", key):
        shutil.rmtree(scratch, ignore_errors=True)
        return done
    rundir.bound(scratch, key)
    torch.set_num_threads(cores())
    try:
        # what may be learned from, and what is measured on
        about, warnings = _base(prior, data)
        shown = examples.chosen(data, config.classes, config.held_out)
        adaptation = Adaptation(config, prior, data, shown, scratch)
        before = adaptation.tried("before", report)

        # words first, then the network
        adaptation.learn(run_dir, report)
        after = adaptation.tried("after", report)

        # the artifact
        head = dict(key=key, name=config.name, snapshot_id=data.snapshot_id, dataset=data.head["name"], base=_where(found, prior),
                    space=config.space, classes=shown.classes, tokens=adaptation.words, prompts=adaptation.prompts,
                    hash=hash_of(scratch / "adapter"), learned=shown.ids(shown.learned), held=shown.ids(shown.held),
                    rank=config.rank if adaptation.lora else 0,
                    targets=list(lora.TARGETS) if adaptation.lora else [], settings=config.to_json())
        head["result"] = dict(
            name=config.name, dataset=head["dataset"], snapshot_id=data.snapshot_id, prior=prior.name, space=config.space,
            classes=len(shown.classes), images=len(head["learned"]), held=len(head["held"]), loss=adaptation.losses,
            held_loss=dict(before=before, after=after), parameters=adaptation.parameters, seconds=round(adaptation.seconds, 1),
            about=about, warnings=warnings + _few(data, shown))
        rundir.keep_artifact(scratch / "adapter", run_dir, "adapter", head)
    except torch.OutOfMemoryError as problem:
        raise ResourceError(f"Out of memory with {config.batch} images a step. Choose a smaller batch, or 'checkpointing'.") from problem
    except Canceled:
        shutil.rmtree(scratch)
        raise
    shutil.rmtree(scratch)
    return dict(head["result"])


def key_of(config: AdaptPrior, data: Snapshot, base: str) -> str:
    """What the adapter follows from. The dataset's name counts, as prompts hold it; checkpointing changes no result."""
    settings = {k: v for k, v in config.to_json().items() if k not in ("name", "dataset", "prior", "checkpointing")}
    named = words.called(data.head["name"])
    return rundir.key_of(kind="adapter", format=FORMAT, snapshot_id=data.snapshot_id, called=named, base=base, **settings)


def _where(found: stable.Found, prior: Prior) -> dict[str, Any]:
    return dict(hash=prior.base_hash, where=found.key, name=prior.name, native=prior.native)


def _base(prior: Prior, data: Snapshot) -> tuple[str, list[str]]:
    """What the base prior knows of this dataset, in a sentence, and as a warning where it knows some. Raises ConfigError."""
    if not prior.native:
        return "What this checkpoint has learned from is not written in it.", []
    known = examples.seen(prior.name, data, prior.head["learned"], [d["snapshot_id"] for d in prior.head["datasets"]])
    if known:
        said = f"The surface prior has itself learned from {known} of this dataset's train images, or from near copies of them."
        return said, [said]
    return "The surface prior was trained without this dataset.", []


def _few(data: Snapshot, shown: examples.Examples) -> list[str]:
    few = [f"{c} ({len(shown.held[c])})" for c in shown.classes if len(shown.held[c]) < FEW]
    said = [f"Too few images are held apart to measure the quality of: {', '.join(few)}. It takes {FEW}."] if few else []
    if shown.near:
        said.append(f"{shown.near} train images were left out: they are nearly equal to val or test images.")
    return said


# ---- learning

class Adaptation:
    """Both spaces of one prior, in turn: what is learned, from what, and the words in use meanwhile."""

    def __init__(self, config: AdaptPrior, prior: Prior, data: Snapshot, shown: examples.Examples, scratch: Path) -> None:
        self.config, self.prior, self.scratch, self.shown = config, prior, scratch, shown
        self.lora = config.space != "tokens"
        self.material, self.held = Material(prior, shown.learned), Material(prior, shown.held)
        called = str(data.head["name"])
        self.words = {} if config.space == "lora" else tokens.placeholders(called, shown.classes, config.vectors)
        self.plain = {c: words.caption(called, c) for c in shown.classes}
        self.prompts = {c: tokens.prompt(called, c, self.words[c]) if self.words else self.plain[c] for c in shown.classes}
        self.total = (config.token_steps if self.words else 0) + (config.lora_steps if self.lora else 0)
        self.done, self.parameters, self.seconds = 0, 0, 0.0
        self.losses: dict[str, float | None] = {}
        (scratch / "adapter").mkdir(exist_ok=True)

    def encoded(self, classes: list[str]) -> torch.Tensor:
        """States of the words a class has now, '' for none: (B, L, D)."""
        told = sorted(set(classes))
        found = stable.encode(self.prior, [self.prior.classes_known.get(c, self.plain.get(c, "")) for c in told])
        return found[[told.index(c) for c in classes]]

    def tried(self, when: str, report: Any) -> float | None:
        """The loss on the pictures held apart."""
        return steps.loss_on(self.prior, self.held, self.encoded, lambda: report(
            step=self.done, total=self.total, message=f"trying it on pictures held apart, {when} learning"))

    def learn(self, run_dir: Path, report: Any) -> None:
        if self.config.checkpointing:
            self.prior.unet.enable_gradient_checkpointing()
        if self.words:
            learned = tokens.begin(self.prior.text_encoder, self.prior.tokenizer, self.words, self.config.seed)
            self.prior.classes_known.update(self.prompts)
            self._fit("tokens", [learned.rows], run_dir, report)
            tokens.finish(self.prior.text_encoder, learned)
            tokens.save(learned, self.words, self.scratch / "adapter", self.prior.base_hash)
        self.prior.classes_known.update(self.prompts)
        if self.lora:
            self._fit("lora", lora.begin(self.prior.unet, self.config.rank, self.config.seed), run_dir, report)
            lora.save(self.prior.unet, self.scratch / "adapter", self.prior.base_hash)

    def _fit(self, space: str, learned: list[torch.nn.Parameter], run_dir: Path, report: Any) -> None:
        """Steps to the end, with curves, checkpoints, and a preview at every half."""
        encoder = self.encoded if space == "tokens" else Kept(self)
        training = steps.Training(self.config, space, self.prior, learned, self.material, encoder, self.scratch)
        saved_at = time.monotonic()
        while training.step < training.steps:
            if not np.isfinite(training.advance()):
                raise ConfigError(f"Training came apart in step {training.step}: the loss is no number. Choose a lower learning rate.")
            self._tell(training, report)
            if training.step % max(1, training.steps // 2) == 0:
                rundir.write_bytes(run_dir / "samples.png", self.preview(lambda: report(
                    step=self.done + training.step, total=self.total, message="drawing samples")))
            if time.monotonic() - saved_at > SAVE_S or training.step == training.steps:
                training.save()
                saved_at = time.monotonic()
        self.done += training.steps
        self.parameters += sum(p.numel() for p in learned)
        self.seconds += training.seconds
        self.losses[space] = training.mean_loss()

    def _tell(self, training: steps.Training, report: Any) -> None:
        last, metrics = training.step == training.steps, {}
        if training.step % CURVE == 0 or last:
            metrics[f"{training.space}_loss"] = training.mean_loss((training.step - 1) % CURVE + 1)
        learning = "words for the classes" if training.space == "tokens" else "the network"
        report(step=self.done + training.step, total=self.total, message=f"learning {learning}, step {training.step} of {training.steps}",
               **metrics)

    def preview(self, each: Callable[[], None]) -> bytes:
        """A class a row: a real picture, drawn again from it, and drawn from noise. Always from the same noise."""
        real = [np.asarray(images.decode(some[0].path.read_bytes(), some[0].file_name))
                for some in (self.shown.learned[c] for c in self.shown.classes[:SHOWN])]
        said, seeds = [self.prompts[c] for c in self.shown.classes[:SHOWN]], [self.config.seed] * len(real)
        again = draw.redraw(self.prior, real, None, said, seeds, strength=STRENGTH, guidance=GUIDANCE, steps=PREVIEW,
                            each=each)
        new = draw.invent(self.prior, said, seeds, real[0].shape[:2], guidance=GUIDANCE, steps=PREVIEW,
                          grey=all(map(levels.is_grey, real)), each=each)
        return keeping.preview([list(row) for row in zip(real, again, new, strict=True)])


class Kept:
    """States of words that do not change any more, each worked out once."""

    def __init__(self, adaptation: Adaptation) -> None:
        with torch.no_grad():
            self.names = [*adaptation.shown.classes, ""]
            self.states = adaptation.encoded(self.names)                             # (n, L, D)

    def __call__(self, classes: list[str]) -> torch.Tensor:
        return self.states[[self.names.index(c) for c in classes]]


# ---- using it

def hash_of(folder: Path) -> str:
    """16 digits of an adapter's weights as they lie there: its key says only how they were learned, which another machine's rounding may
    have made others of."""
    digest = sha256()
    for file in sorted(folder.glob("*.safetensors")):
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


def apply(prior: Prior, folder: Path) -> Prior:
    """Give a prior the words and the changes of an adapter, in place. Raises ConfigError where it was learned on another one."""
    head = rundir.read_json(folder / "head.json")
    if head["base"]["hash"] != prior.base_hash:
        raise ConfigError(f"{head['name']!r} was adapted from another prior, {head['base']['name']!r}: its weights are not those of "
                          f"{prior.name!r}. Adapt this one too, or choose that one.")
    if head["tokens"]:
        tokens.apply(prior.text_encoder, prior.tokenizer, head["tokens"], folder)
    if head["rank"]:
        lora.apply(prior.unet, folder / lora.FILE)
    prior.adapter_key, prior.adapter_hash = str(head["key"]), hash_of(folder)
    prior.classes_known = dict(head["prompts"])
    return prior
