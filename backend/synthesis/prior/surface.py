"""The recipe `train-prior`: a surface prior, which is a small Stable Diffusion of our own. Start reading here.

Nobody need download anything: drawn surfaces, and the train images of datasets that a person names, become a tokenizer, an
autoencoder, a text encoder and a diffusion network, in the layout that every Stable Diffusion has (`<run>/prior`). What it learned from
stands in its head.json, so that whoever adapts it to a dataset can say whether it has seen that one before.
Knows nothing of adapting or of drawing for datasets.
"""

import shutil
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from textwrap import wrap
from typing import Any

import diffusers
import numpy as np
import torch
import transformers
from diffusers import StableDiffusionPipeline
from PIL import Image, ImageDraw, ImageFont

from backend import rundir
from backend.config import TrainPrior
from backend.data import snapshot
from backend.data.snapshot import Snapshot
from backend.device import cores, in_bf16, torch_device
from backend.diffusion import pictures
from backend.errors import Canceled, ConfigError, ResourceError
from backend.synthesis.prior import autoencoder, bank, denoiser, draw, learner, stable, supply, tokenizer
from backend.synthesis.prior.words import called

FORMAT = 3               # of the artifact; part of its key
CROP = 128               # side that is learned, in pixels
SHOWN = 8                # pictures in a row of the preview
GUIDANCE, STEPS = 2.0, 20           # of the previews


@dataclass(frozen=True)
class Preset:
    """Both trainings. `small`: 2.9 and 1.1 core seconds a step in float32, measured on a Zen 3: 50 and 55 minutes on two cores.
    With native bf16 it should be less, as it is for other networks; nobody has measured it."""

    coder: autoencoder.Coder
    size: denoiser.Size


PRESETS = {
    "tiny": Preset(autoencoder.Coder((16, 32, 32), crop=64, batch=8, steps=300),
                   denoiser.Size((16, 32, 64, 64), 1, text_width=32, text_layers=1, batch=8, steps=400, ema=0.99)),
    "small": Preset(autoencoder.Coder((32, 64, 128), crop=64, batch=16, steps=2_000),
                    denoiser.Size((32, 64, 128, 192), 1, text_width=128, text_layers=2, batch=16, steps=6_000, ema=0.999)),
    "base": Preset(autoencoder.Coder((64, 128, 256), crop=128, batch=32, steps=20_000),
                   denoiser.Size((64, 128, 256, 384), 2, text_width=256, text_layers=4, batch=64, steps=60_000, ema=0.9995)),
}


def run(config: TrainPrior, run_dir: Path, report: Any) -> dict[str, Any]:
    """Train a prior and keep it in `<run>/prior`. Raises ConfigError, NotFoundError, ResourceError."""
    if not config.name:
        raise ConfigError("Give the prior a name.")
    datasets, preset, scratch = _datasets(config), _preset(config), run_dir / "training-prior"
    if done := rundir.own_result(run_dir, "prior", key(config, datasets)):
        shutil.rmtree(scratch, ignore_errors=True)
        return done
    rundir.bound(scratch, key(config, datasets))
    device, bf16 = torch_device(), in_bf16(config.precision)
    torch.set_num_threads(cores())
    total = preset.coder.steps + preset.size.steps
    try:
        # what it learns from: train images of the datasets, drawn surfaces, and what is said of them
        known = supply.gather(datasets, config.drawn, config.seed, scratch / "pictures.u8",
                              lambda message: report(step=0, total=total, message=message))
        spoken = supply.captions(known.labels)
        words = tokenizer.train(spoken, scratch / "tokenizer")

        # the autoencoder
        coding = autoencoder.Training(preset.coder, CROP, known, scratch / "autoencoder.pt", config.learning_rate, config.seed,
                                      device, bf16)
        learner.fit(coding, "learning to see", 0, total, report, lambda: _show(run_dir, _rows(coding.vae, known, config.seed)[0]))
        vae = coding.vae.eval().requires_grad_(False)
        autoencoder.normalise(vae, known, CROP, np.random.default_rng([config.seed, 3]))
        seen, psnr = _rows(vae, known, config.seed)

        # text encoder and diffusion network
        latents = bank.build(vae, known, CROP, scratch / "latents.f16", bf16,
                             lambda message: report(step=preset.coder.steps, total=total, message=message))
        training = denoiser.Training(preset.size, CROP // autoencoder.FACTOR, words, latents, scratch / "denoiser.pt",
                                     config.learning_rate, config.seed, device, bf16)
        learner.fit(training, "learning to draw", preset.coder.steps, total, report,
                    lambda: _show(run_dir, seen, *_samples(_prior(vae, training), config.seed, spoken, bf16)))

        # the artifact
        folder = scratch / "prior"
        _write(folder, vae, training)
        head = _head(config, datasets, known, spoken)
        head["result"] = _result(head, coding, training, psnr, total)
        rundir.keep_artifact(folder, run_dir, "prior", head)
    except torch.OutOfMemoryError as problem:
        raise ResourceError(f"Out of memory with {preset.size.batch} crops of {CROP} px a step. "
                            "Choose a smaller batch or preset.") from problem
    except Canceled:
        shutil.rmtree(scratch)
        raise
    shutil.rmtree(scratch)
    return dict(head["result"])


def _datasets(config: TrainPrior) -> list[Snapshot]:
    """The datasets named, each once. Raises ConfigError, NotFoundError."""
    names = [n.strip() for n in config.datasets.split(",") if n.strip()]
    found = {d.snapshot_id: d for d in (snapshot.read(rundir.find_snapshot(n)) for n in names)}
    empty = [d.head["name"] for d in found.values() if not d.learnable()]
    if empty:
        raise ConfigError(f"The dataset {empty[0]!r} has no train images to learn from.")
    if not found and not config.drawn:
        raise ConfigError("There is nothing to learn from. Name datasets, or have surfaces drawn.")
    return sorted(found.values(), key=lambda d: d.snapshot_id)


def _preset(config: TrainPrior) -> Preset:
    """The preset with what the config says otherwise."""
    chosen = PRESETS[config.preset]
    coder = replace(chosen.coder, batch=config.batch or chosen.coder.batch, steps=config.autoencoder_steps or chosen.coder.steps)
    return Preset(coder, replace(chosen.size, batch=config.batch or chosen.size.batch, steps=config.steps or chosen.size.steps))


def key(config: TrainPrior, datasets: list[Snapshot]) -> str:
    """What the prior follows from. Names of datasets count, as captions hold them."""
    preset = _preset(config)
    settings = {k: v for k, v in config.to_json().items() if k not in ("name", "datasets")}
    settings |= dict(steps=preset.size.steps, autoencoder_steps=preset.coder.steps, batch=[preset.coder.batch, preset.size.batch])
    return rundir.key_of(kind="prior", format=FORMAT, datasets=[[called(d.head["name"]), d.snapshot_id] for d in datasets], **settings)


# ---- the artifact

def _write(folder: Path, vae: Any, training: denoiser.Training) -> None:
    """Everything in diffusers' layout, safetensors. The tokenizer's own vocab.json and merges.txt go beside what it writes."""
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    shutil.rmtree(folder, ignore_errors=True)
    unet, text = training.averages
    StableDiffusionPipeline(
        vae=vae.cpu(), text_encoder=text.cpu(), tokenizer=training.tokenizer, unet=unet.cpu(), scheduler=denoiser.sampler(),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False).save_pretrained(str(folder))


def _head(config: TrainPrior, datasets: list[Snapshot], known: supply.Supply, spoken: list[str]) -> dict[str, Any]:
    seen = [dict(name=d.head["name"], snapshot_id=d.snapshot_id, images=len(d.learnable())) for d in datasets]
    learned = sorted({p.image_id for d in datasets for p in d.learnable()})
    return dict(key=key(config, datasets), name=config.name, native=True, side=supply.SIDE, crop=CROP, preset=config.preset,
                drawn=config.drawn, datasets=seen, learned=learned, captions=spoken, pictures=len(known.labels), seed=config.seed)


def _result(head: dict[str, Any], coding: autoencoder.Training, training: denoiser.Training, psnr: float, total: int) -> dict[str, Any]:
    """What the run came to, with a sentence of what the prior knows."""
    parts = [f"{d['images']:,} train images of {d['name']}" for d in head["datasets"]]
    parts += [f"{head['drawn']:,} drawn surfaces"] if head["drawn"] else []
    return dict(
        name=head["name"], learned_from=" and ".join(parts) + ("." if head["datasets"] else "; no photograph."),
        images=len(head["learned"]), drawn=head["drawn"], steps=total, loss=training.mean_loss(),
        autoencoder_loss=coding.mean_loss(), psnr=psnr,
        parameters=sum(autoencoder.parameters(n) for n in (coding.vae, training.unet, training.text)),
        seconds=round(coding.seconds + training.seconds, 1))


# ---- previews

def _rows(vae: Any, known: supply.Supply, seed: int) -> tuple[list[Any], float]:
    """Crops beside what the autoencoder makes of them, always the same ones; their mean PSNR."""
    was = vae.training
    found, psnr = autoencoder.pairs(vae.eval(), known, np.random.default_rng([seed, 4]), SHOWN, CROP)
    vae.train(was)
    return [np.concatenate(list(found[i:i + SHOWN // 2]), 1) for i in range(0, SHOWN, SHOWN // 2)], psnr


def _prior(vae: Any, training: denoiser.Training) -> stable.Prior:
    unet, text = training.averages
    return stable.Prior(vae, unet, text, training.tokenizer, training.schedule, name="", where="", base_hash="")


def _samples(prior: stable.Prior, seed: int, spoken: list[str], bf16: bool) -> list[Any]:
    """A row of samples with their captions below, always from the same noise: one sees the training and not the dice."""
    prompts = [spoken[i] for i in np.linspace(0, len(spoken) - 1, SHOWN).astype(int)]
    generators = [torch.Generator().manual_seed(seed + i) for i in range(SHOWN)]
    with torch.autocast(prior.device.type, torch.bfloat16, enabled=bf16):
        found = pictures.to_pixels(draw.draw(prior, prompts, generators, guidance=GUIDANCE, steps=STEPS, size=(CROP, CROP)))
    return [np.concatenate([np.concatenate([pixels, _written(text)]) for pixels, text in zip(found, prompts, strict=True)], 1)]


def _written(text: str) -> Any:
    """A caption as a strip, uint8 (36, CROP, 3)."""
    strip = Image.new("RGB", (CROP, 36), "white")
    ImageDraw.Draw(strip).multiline_text((3, 1), "\n".join(wrap(text, 24)[:3]), fill="black", font=ImageFont.load_default(10), spacing=1)
    return np.asarray(strip)


def _show(run_dir: Path, rows: list[Any], *more: Any) -> None:
    """Rows of equal width, one below the other, as `<run>/samples.png`."""
    buffer = BytesIO()
    Image.fromarray(np.concatenate([*rows, *more])).save(buffer, "PNG")
    rundir.write_bytes(run_dir / "samples.png", buffer.getvalue())
