"""The optimiser's steps of an adaptation: the denoising loss of a latent diffusion model, whatever of it learns.

Rombach et al. 2022 (arXiv 2112.10752), equation 2, weighed by place. One class serves both spaces: what learns is handed in, all else is
frozen. Every step's randomness follows from (seed, space, step), and the checkpoint holds the rest. Knows nothing of runs or artifacts.
"""

import io
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from backend import rundir
from backend.config import AdaptPrior
from backend.data.snapshot import Picture
from backend.synthesis.prior.material import Batch, Material
from backend.synthesis.prior.stable import Prior

SPACES = ("tokens", "lora")
WARM_UP = 0.05            # of the steps: the learning rate rises; then it falls to nothing, linearly. Our choice
DROPPED = 0.1             # of the captions when adapters learn, as the base was trained: guidance needs an adapted 'without words' too
OWN_RATE, OTHER_RATE = 1e-3, 1e-4      # of adapters: small networks take larger steps; 1e-4 is usual for Stable Diffusion itself
LOSSES = 100              # steps averaged into the loss that the artifact names
TOLD = (0.1, 0.3, 0.5, 0.7, 0.9)    # shares of the trajectory at which held pictures are tried
TRIED = 60                # held pictures, at most

Encoder = Callable[[list[str]], Tensor]


class Training:
    """One space's training: what learns, the optimiser, steps done. Taken up from `<scratch>/<space>.pt`."""

    def __init__(self, config: AdaptPrior, space: str, prior: Prior, learned: list[nn.Parameter], material: Material, encoder: Encoder,
                 scratch: Path) -> None:
        self.config, self.space, self.prior, self.learned = config, space, prior, learned
        self.material, self.encoder, self.scratch = material, encoder, scratch
        tokens = space == "tokens"
        lora_rate = config.lora_rate or (OWN_RATE if prior.native else OTHER_RATE)
        self.steps, self.rate = (config.token_steps, config.token_rate) if tokens else (config.lora_steps, lora_rate)
        self.optimizer = torch.optim.AdamW(learned, self.rate, weight_decay=0.0)
        self.scaler = torch.amp.GradScaler(prior.device.type, enabled=prior.dtype == torch.float16)      # small gradients vanish in fp16
        self.step, self.seconds, self.losses = 0, 0.0, deque[float](maxlen=LOSSES)
        self._take_up()

    def advance(self) -> float:
        """One optimiser step; its loss."""
        began = time.monotonic()
        rng = np.random.default_rng([self.config.seed, SPACES.index(self.space), self.step])
        batch = self.material.batch(rng, self.config.batch)
        silent = self.space == "lora" and rng.random(self.config.batch) < DROPPED
        heard = ["" if s else c for s, c in zip(np.broadcast_to(silent, self.config.batch), batch.classes, strict=True)]
        noise, timestep = drawn(self.prior, batch.latents, int(rng.integers(2**63)))
        loss = self._loss(batch, heard, noise, timestep)
        self._learn(loss)
        self.step += 1
        self.losses.append(loss.item())
        self.seconds += time.monotonic() - began
        return self.losses[-1]

    def _loss(self, batch: Batch, heard: list[str], noise: Tensor, timestep: Tensor) -> Tensor:
        with torch.autocast(self.prior.device.type, self.prior.dtype, enabled=self.prior.dtype != torch.float32):
            states = self.encoder(heard)                                                     # (B, L, D)
            errors = denoising_errors(self.prior, batch.latents, states, noise, timestep)    # (B, h, w)
        return weighed(errors, batch.weights).mean()

    def _learn(self, loss: Tensor) -> None:
        self.optimizer.param_groups[0]["lr"] = self.rate * pace(self.step, self.steps)
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.learned, 1.0)
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def mean_loss(self, last: int = LOSSES) -> float | None:
        losses = list(self.losses)[-last:]
        return round(sum(losses) / len(losses), 5) if losses else None

    def save(self) -> None:
        buffer = io.BytesIO()
        torch.save(dict(step=self.step, seconds=self.seconds, losses=list(self.losses), learned=[p.detach() for p in self.learned],
                        optimizer=self.optimizer.state_dict(), scaler=self.scaler.state_dict()), buffer)
        rundir.write_bytes(self.scratch / f"{self.space}.pt", buffer.getvalue())

    def _take_up(self) -> None:
        path = self.scratch / f"{self.space}.pt"
        if not path.exists():
            return
        saved = torch.load(path, map_location="cpu", weights_only=True)      # the optimiser puts them in their place
        with torch.no_grad():
            for mine, kept in zip(self.learned, saved["learned"], strict=True):
                mine.copy_(kept)
        self.optimizer.load_state_dict(saved["optimizer"])
        self.scaler.load_state_dict(saved["scaler"])
        self.step, self.seconds = saved["step"], saved["seconds"]
        self.losses.extend(saved["losses"])


def pace(step: int, steps: int) -> float:
    """Share of the learning rate: up over the first steps, then down."""
    return min((step + 1) / max(1.0, WARM_UP * steps), (steps - step) / steps, 1.0)


def drawn(prior: Prior, latents: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Noise like the latents, and a timestep for each, drawn on the CPU: the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(latents.shape, generator=generator)
    return noise, torch.randint(0, prior.schedule.config.num_train_timesteps, (len(latents),), generator=generator)


def denoising_errors(prior: Prior, latents: Tensor, states: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
    """Squared errors of what the UNet tells, place by place: (B, h, w). It tells the noise, or the velocity (Salimans & Ho 2022)."""
    device, schedule = prior.device, prior.schedule
    noised = schedule.add_noise(latents, noise, timestep).to(device, prior.dtype)
    velocity = schedule.config.prediction_type == "v_prediction"
    target = schedule.get_velocity(latents, noise, timestep) if velocity else noise
    noised = noised.contiguous(memory_format=torch.channels_last)
    told = prior.unet(noised, timestep.to(device), encoder_hidden_states=states.to(prior.dtype)).sample        # (B, c, h, w)
    return (told.float() - target.to(device)).square().mean(1)


def weighed(errors: Tensor, weights: Tensor) -> Tensor:
    """Each picture's mean error, (B,): a small defect counts as much as a large one."""
    weights = weights.to(errors.device)
    return (errors * weights).sum((1, 2)) / weights.sum((1, 2))


@torch.no_grad()
def loss_on(prior: Prior, material: Material, encoder: Encoder, each: Callable[[], None]) -> float | None:
    """The loss over pictures that nothing learned from, classes evenly, always with the same noise; None where there are none.

    `each` is called for every picture: it may raise, to cancel.
    """
    means = []
    for class_name, pictures in material.pictures.items():
        some = pictures[:max(1, TRIED // len(material.pictures))]
        if some:
            means.append(np.mean([_loss_of(prior, material, encoder, p, class_name, each) for p in some]))
    return round(float(np.mean(means)), 5) if means else None


def _loss_of(prior: Prior, material: Material, encoder: Encoder, picture: Picture, class_name: str, each: Callable[[], None]) -> float:
    each()
    latents, weights = (x.expand(len(TOLD), *x.shape) for x in material.encoded(picture, class_name))
    timestep = torch.tensor([int(share * prior.schedule.config.num_train_timesteps) for share in TOLD])
    noise, _ = drawn(prior, latents, int(picture.image_id[:15], 16))
    errors = denoising_errors(prior, latents, encoder([class_name] * len(TOLD)), noise, timestep)
    return float(weighed(errors, weights).mean())
