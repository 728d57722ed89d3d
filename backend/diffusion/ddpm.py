"""The recipe `train-diffusion`: a denoising diffusion model of a dataset's train images, labels unseen. Start reading here.

With the setting `good` it learns what an anomaly model learns from and no more: labels then say which images, and nothing else.

Ho et al. 2020 (arXiv 2006.11239), algorithm 1: a network (diffusers' UNet2DModel) learns to tell the noise in a noised image.
Trained on crops with flips; the deployed weights are their exponential moving average at the last step. Every step's
randomness follows from (seed, step), and the checkpoint holds all the rest: a killed run comes to the same losses.
Knows nothing of detectors.
"""

import io
import shutil
import time
from collections import deque
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler, UNet2DModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from backend import rundir
from backend.config import TrainDiffusion
from backend.data import images, snapshot
from backend.data.normals import divided
from backend.device import cores, in_bf16, torch_device
from backend.diffusion import pictures, sampling
from backend.errors import Canceled, ConfigError, NotFoundError, ResourceError

TIMESTEPS = 1000
FORMAT = 2                  # of the artifact; part of its key
WARM_UP = 100               # steps over which the learning rate rises
SAVE_S = 60                 # between two checkpoints
CURVE = 20                  # steps averaged into a point of the curve
PREVIEW = 20                # denoising steps of the previews
PREVIEW_S = 300             # between two of them, at most
LOSSES = 100                # steps averaged into the loss that the artifact names


@dataclass(frozen=True)
class Preset:
    """`tiny` is the network of the first experiments: 4.1 M parameters, in whose features, after 2,070 steps, a linear reader reached a
    mean AP over cells of 79."""

    widths: tuple[int, ...]
    layers: int
    crop: int
    batch: int
    steps: int
    ema: float


PRESETS = {
    "tiny": Preset((32, 64, 128, 128), 1, 64, 32, 1_000, 0.995),
    "small": Preset((32, 64, 128, 128), 1, 64, 32, 4_000, 0.998),
    "base": Preset((64, 128, 256, 256), 2, 96, 128, 30_000, 0.9995),
}


@dataclass(frozen=True)
class Denoiser:
    """A trained network with what one must know to use it. `head` is its head.json."""

    unet: UNet2DModel
    head: dict[str, Any]

    @cached_property
    def schedule(self) -> DDPMScheduler:
        return noise_schedule(self.head["schedule"])

    @property
    def channels(self) -> int:
        return int(self.head["channels"])

    def to(self, device: str) -> "Denoiser":
        return Denoiser(self.unet.to(device), self.head)


def noise_schedule(name: str) -> DDPMScheduler:
    """Cosine: Nichol & Dhariwal 2021, section 3.2. Linear: Ho et al. 2020, section 4."""
    return DDPMScheduler(TIMESTEPS, beta_schedule={"cosine": "squaredcos_cap_v2", "linear": "linear"}[name], clip_sample_range=1.0)


def network(head: dict[str, Any]) -> UNet2DModel:
    """Random weights: seed first. Attention only in the middle, at an eighth of the sides."""
    n = len(head["widths"])
    return UNet2DModel(
        sample_size=head["crop"], in_channels=head["channels"], out_channels=head["channels"], layers_per_block=head["layers"],
        block_out_channels=tuple(head["widths"]), down_block_types=("DownBlock2D",) * n, up_block_types=("UpBlock2D",) * n,
        norm_num_groups=8)


def load(folder: Path) -> Denoiser:
    """A kept denoiser, ready to use, float32 on the CPU."""
    head = rundir.read_json(folder / "head.json")
    unet = network(head)
    unet.load_state_dict(load_file(folder / "denoiser.safetensors"))
    return Denoiser(unet.to(memory_format=torch.channels_last).eval().requires_grad_(False), head)


def find(name: str, data: snapshot.Snapshot, good: bool = False) -> Path:
    """Folder of a denoiser by name, run or key; empty: the newest of this dataset. Raises NotFoundError.

    Only one of this very snapshot will do: another's train images may be val or test images here. `good`: one that learned from
    good images only comes before a newer one that did not.
    """
    found = rundir.find_artifact("denoiser", name, snapshot_id=data.snapshot_id, good=True) if good else None
    found = found or rundir.find_artifact("denoiser", name, snapshot_id=data.snapshot_id)
    if found is None:
        called = f" called {name!r}" if name else ""
        raise NotFoundError(f"No diffusion model{called} has been trained on the dataset {data.head['name']!r} as it is now. "
                            "Train one first.")
    return found


# ---- the recipe

def run(config: TrainDiffusion, run_dir: Path, report: Any) -> dict[str, Any]:
    data = snapshot.read(rundir.find_snapshot(config.dataset))
    return make(config, data, run_dir, report)


def make(config: TrainDiffusion, data: snapshot.Snapshot, run_dir: Path, report: Any) -> dict[str, Any]:
    """Train on the train split of a snapshot, and on what nobody labelled, and keep the denoiser in `<run>/denoiser`. Raises ConfigError,
    ResourceError."""
    if not config.name:
        raise ConfigError("Give the diffusion model a name.")
    preset, scratch = PRESETS[config.preset], run_dir / "training-denoiser"
    steps = preset.steps if config.steps is None else config.steps
    if done := rundir.own_result(run_dir, "denoiser", key(config, data.snapshot_id)):
        shutil.rmtree(scratch, ignore_errors=True)
        return done
    rundir.bound(scratch, key(config, data.snapshot_id))
    try:
        # its images: those of train, and those that nobody labelled
        paths = [p.path for p in (divided(data)[0] if config.good else data.learnable(snapshot.UNLABELLED))]
        if not paths:
            raise ConfigError(f"The dataset {config.dataset!r} has no train images to learn from.")
        channels = int(config.channels) if config.channels != "auto" else 1 if _all_grey(paths) else 3
        known = pictures.decoded(paths, _open, scratch / "pictures.u8", config.side, channels, lambda i: report(
            step=0, total=max(1, steps), message=f"reading image {i + 1} of {len(paths)}"))

        # the network, from the checkpoint if there is one
        head = dict(key=key(config, data.snapshot_id), name=config.name, dataset=data.head["name"], snapshot_id=data.snapshot_id,
                    preset=config.preset, widths=list(preset.widths), layers=preset.layers, crop=preset.crop, channels=channels,
                    side=config.side, schedule=config.schedule, steps=steps, seed=config.seed, good=config.good,
                    images=len(paths), control=not steps)
        training = Training(config, head, scratch)
        _fit(training, known, run_dir, report)

        # the artifact
        unet = training.denoiser().unet
        folder = scratch / "denoiser"
        folder.mkdir(exist_ok=True)
        save_file({k: v.contiguous() for k, v in unet.state_dict().items()}, folder / "denoiser.safetensors")
        head["loss"] = training.mean_loss()
        rate = steps * training.batch / training.seconds if steps else None
        head["result"] = dict(name=config.name, dataset=head["dataset"], snapshot_id=head["snapshot_id"], steps=steps, loss=head["loss"],
                              images=len(paths), channels=channels, parameters=sum(p.numel() for p in unet.parameters()),
                              seconds=round(training.seconds, 1), crops_per_second=rate and round(rate, 1))
        rundir.keep_artifact(folder, run_dir, "denoiser", head)
    except torch.OutOfMemoryError as problem:
        raise ResourceError(f"Out of memory with {training.batch} crops of {preset.crop} px a step. "
                            "Choose a smaller batch or preset.") from problem
    except Canceled:
        shutil.rmtree(scratch)
        raise
    shutil.rmtree(scratch)
    return dict(head["result"])


def key(config: TrainDiffusion, snapshot_id: str) -> str:
    """What the denoiser follows from; its name and the dataset's do not count, nor `good` where it is off: it came after the format."""
    preset = PRESETS[config.preset]
    settings = {k: v for k, v in config.to_json().items() if k not in ("name", "dataset") and (k, v) != ("good", False)}
    settings |= dict(steps=preset.steps if config.steps is None else config.steps, batch=config.batch or preset.batch)
    return rundir.key_of(kind="denoiser", format=FORMAT, snapshot_id=snapshot_id, **settings)


def _open(path: Path) -> Any:
    return images.decode(path.read_bytes(), path.name)


def _all_grey(paths: list[Path]) -> bool:
    return all(pictures.is_grey(_open(p)) for p in paths[::max(1, len(paths) // 50)])


# ---- training

class Training:
    """The state of a training: network, its average, optimiser, steps done. Taken up from `<scratch>/checkpoint.pt`."""

    def __init__(self, config: TrainDiffusion, head: dict[str, Any], scratch: Path) -> None:
        self.config, self.head, self.scratch = config, head, scratch
        self.device = torch_device()
        self.batch = config.batch or PRESETS[config.preset].batch
        self.ema = PRESETS[config.preset].ema
        self.bf16 = in_bf16(config.precision)
        self.schedule = noise_schedule(config.schedule)
        torch.set_num_threads(cores())
        torch.manual_seed(config.seed)
        # float32 on a processor learns faster in planes: a step of `tiny` takes 0.86 of the time on a Zen 3, medians of five
        planes = self.device == "cpu" and not self.bf16
        self.layout = torch.contiguous_format if planes else torch.channels_last
        self.unet = network(head).to(self.device, memory_format=self.layout).train()
        self.average = deepcopy(self.unet).requires_grad_(False)
        self.optimizer = torch.optim.AdamW(self.unet.parameters(), config.learning_rate, weight_decay=1e-4)
        self.step, self.seconds, self.losses = 0, 0.0, deque[float](maxlen=LOSSES)
        self._take_up()

    def advance(self, known: pictures.Pictures) -> float:
        """One optimiser step; its loss."""
        began = time.monotonic()
        rng = np.random.default_rng([self.config.seed, self.step])
        x_start = known.crops(rng, self.batch, self.head["crop"])                                # (B, C, S, S)
        generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
        noise = torch.randn(x_start.shape, generator=generator)
        timestep = torch.randint(0, TIMESTEPS, (self.batch,), generator=generator)               # (B,)
        noised = self.schedule.add_noise(x_start, noise, timestep)
        loss = self._loss(noised.to(self.device), noise.to(self.device), timestep.to(self.device))
        self.optimizer.param_groups[0]["lr"] = self.config.learning_rate * min(1.0, (self.step + 1) / WARM_UP)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.unet.parameters(), 1.0)
        self.optimizer.step()
        self._average()
        self.step += 1
        self.losses.append(loss.item())
        self.seconds += time.monotonic() - began
        return self.losses[-1]

    def _loss(self, noised: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
        with torch.autocast(noised.device.type, torch.bfloat16, enabled=self.bf16):
            told = self.unet(noised.contiguous(memory_format=self.layout), timestep).sample
        return nn.functional.mse_loss(told.float(), noise)

    def _average(self) -> None:
        """The average follows faster at first, or it would still hold random weights after a short training."""
        decay = min(self.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.parameters()), list(self.unet.parameters()), 1 - decay)

    def mean_loss(self, last: int = LOSSES) -> float | None:
        losses = list(self.losses)[-last:]
        return round(sum(losses) / len(losses), 5) if losses else None

    def denoiser(self) -> Denoiser:
        return Denoiser(self.average.eval(), self.head)

    def save(self) -> None:
        buffer = io.BytesIO()
        torch.save(dict(step=self.step, seconds=self.seconds, losses=list(self.losses), unet=self.unet.state_dict(),
                        average=self.average.state_dict(), optimizer=self.optimizer.state_dict()), buffer)
        rundir.write_bytes(self.scratch / "checkpoint.pt", buffer.getvalue())

    def _take_up(self) -> None:
        path = self.scratch / "checkpoint.pt"
        if path.exists():
            saved = torch.load(path, map_location=self.device, weights_only=True)
            self.unet.load_state_dict(saved["unet"])
            self.average.load_state_dict(saved["average"])
            self.optimizer.load_state_dict(saved["optimizer"])
            self.step, self.seconds = saved["step"], saved["seconds"]
            self.losses.extend(saved["losses"])


def _fit(training: Training, known: pictures.Pictures, run_dir: Path, report: Any) -> None:
    """Steps to the end, with curves, checkpoints and a preview at every quarter, and every few minutes of a long training."""
    steps, saved_at, drawn_at = training.head["steps"], time.monotonic(), time.monotonic()
    while training.step < steps:
        if not np.isfinite(training.advance(known)):
            raise ConfigError(f"Training came apart in step {training.step}: the loss is no number. Choose a lower learning rate.")
        metrics = {}
        if training.step % CURVE == 0 or training.step == steps:
            metrics["denoising_loss"] = training.mean_loss((training.step - 1) % CURVE + 1)
        report(step=training.step, total=steps, message=f"learning to denoise, step {training.step} of {steps}", **metrics)
        if training.step % max(1, steps // 4) == 0 or time.monotonic() - drawn_at > PREVIEW_S:
            report(step=training.step, total=steps, message="drawing samples")
            preview(training, run_dir)
            drawn_at = time.monotonic()
        if time.monotonic() - saved_at > SAVE_S or training.step == steps:
            training.save()
            saved_at = time.monotonic()


def preview(training: Training, run_dir: Path) -> None:
    """A grid of samples as `<run>/samples.png`; always from the same noise, so that one sees the training and not the dice."""
    generator = torch.Generator().manual_seed(training.config.seed)
    side = training.head["crop"]
    found = sampling.sample(training.denoiser().to(training.device), 12, side, side, generator, steps=PREVIEW)
    rundir.write_bytes(run_dir / "samples.png", sampling.grid(found, columns=6))
