"""What the two trainings of a surface prior have in common: steps, rate, checkpoint, curve.

Every step's randomness follows from (seed, stream, step), and the checkpoint holds the rest: a killed run comes to the same losses.
Knows nothing of pictures or of what is learned.
"""

import io
import math
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from backend import rundir
from backend.errors import ConfigError

WARM_UP = 100               # steps over which the learning rate rises; a tenth of them where there are fewer than 1,000
SAVE_S = 60                 # between two checkpoints
CURVE = 20                  # steps averaged into a point of the curve
LOSSES = 100                # steps averaged into the loss that the artifact names
N = TypeVar("N", bound=nn.Module)


class Learner(ABC):
    """A training: steps done, optimiser, and the networks by name. Taken up from its file. What is minimised a training says itself."""

    STREAM = 0              # of random numbers; another one for each training
    NAME = "loss"

    def __init__(self, networks: dict[str, nn.Module], learned: list[nn.Parameter], file: Path, steps: int, rate: float, seed: int) -> None:
        self.networks, self.learned, self.file, self.steps, self.rate, self.seed = networks, learned, file, steps, rate, seed
        self.optimizer = torch.optim.AdamW(learned, rate, weight_decay=1e-4)
        self.step, self.seconds, self.losses = 0, 0.0, deque[float](maxlen=LOSSES)
        self._take_up()

    @abstractmethod
    def loss(self, rng: np.random.Generator) -> Tensor:
        """Of the next step's batch, drawn from `rng`: one number that leads back to what is learned."""

    def follow(self) -> None:  # noqa: B027  # a training without averages does nothing here
        """After each step: averages, where there are any."""

    def advance(self) -> float:
        """One optimiser step; its loss."""
        began = time.monotonic()
        loss = self.loss(np.random.default_rng([self.seed, self.STREAM, self.step]))
        self.optimizer.param_groups[0]["lr"] = self.rate * pace(self.step, self.steps)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.learned, 1.0)
        self.optimizer.step()
        self.follow()
        self.step += 1
        self.losses.append(loss.item())
        self.seconds += time.monotonic() - began
        return self.losses[-1]

    def mean_loss(self, last: int = LOSSES) -> float | None:
        losses = list(self.losses)[-last:]
        return round(sum(losses) / len(losses), 5) if losses else None

    def save(self) -> None:
        buffer = io.BytesIO()
        torch.save(dict(step=self.step, seconds=self.seconds, losses=list(self.losses), optimizer=self.optimizer.state_dict(),
                        networks={k: v.state_dict() for k, v in self.networks.items()}), buffer)
        rundir.write_bytes(self.file, buffer.getvalue())

    def _take_up(self) -> None:
        if self.file.exists():
            saved = torch.load(self.file, map_location=self.learned[0].device, weights_only=True)
            for name, network in self.networks.items():
                network.load_state_dict(saved["networks"][name])
            self.optimizer.load_state_dict(saved["optimizer"])
            self.step, self.seconds = saved["step"], saved["seconds"]
            self.losses.extend(saved["losses"])


def calm(network: N) -> N:
    """A network whose residual blocks begin by adding nothing, as in the code of Ho et al. 2020: input comes through at once."""
    for block in network.modules():
        if isinstance(block, ResnetBlock2D):
            nn.init.zeros_(block.conv2.weight)
    return network


def pace(step: int, steps: int) -> float:
    """Share of the highest learning rate: up over the first steps, then half a cosine down to nothing."""
    return min(1.0, (step + 1) / max(1.0, min(WARM_UP, steps / 10))) * (1 + math.cos(math.pi * step / steps)) / 2


def fit(learner: Learner, doing: str, before: int, total: int, report: Any, preview: Callable[[], None]) -> None:
    """Steps to the end, with curve, checkpoints and a preview at every quarter. `before`: steps of the run that came before these."""
    saved_at, steps = time.monotonic(), learner.steps
    while learner.step < steps:
        if not np.isfinite(learner.advance()):
            raise ConfigError(f"Training came apart in step {learner.step}: the loss is no number. Choose a lower learning rate.")
        metrics = {}
        if learner.step % CURVE == 0 or learner.step == steps:
            metrics[learner.NAME] = learner.mean_loss((learner.step - 1) % CURVE + 1)
        report(step=before + learner.step, total=total, message=f"{doing}, step {learner.step} of {steps}", **metrics)
        if learner.step % max(1, steps // 4) == 0:
            report(step=before + learner.step, total=total, message="drawing samples")
            preview()
        if time.monotonic() - saved_at > SAVE_S or learner.step == steps:
            learner.save()
            saved_at = time.monotonic()
