"""Steps of training a classifier: a batch, cross-entropy, one update; checkpoints, curves and a preview.

Every step's randomness follows from (seed, step), and the checkpoint holds all the rest: a killed run comes to the same weights.
Stands between the batches and the recipe. Knows nothing of snapshots, splits or bundles.
"""

import io
import math
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn

from backend import rundir
from backend.config import TrainClassifier
from backend.device import cores, in_bf16, torch_device
from backend.errors import ConfigError
from backend.recognition.batches import Order, augmented, pixels

WARM_UP = 0.05           # of the steps, in which the learning rate rises; then half a cosine down to nothing
DECAY = 0.01             # AdamW's weight decay
SAVE_S, CURVE = 60, 20   # seconds between two checkpoints; steps averaged into a point of the curves
SHOWN, COLUMNS, TILE, TEXT = 24, 6, 112, 14      # pictures of the preview, in a row, pixels of one and of the words below it


class Training:
    """Network, optimiser, steps done. Taken up from `<scratch>/checkpoint.pt`."""

    def __init__(self, config: TrainClassifier, net: nn.Module, images: np.ndarray, labels: np.ndarray, order: Order,
                 scratch: Path) -> None:
        self.config, self.images, self.labels, self.order, self.scratch = config, images, labels, order, scratch
        self.device = torch_device()
        self.bf16 = in_bf16(config.precision)
        torch.set_num_threads(cores())
        self.net = net.to(self.device, memory_format=torch.channels_last).train()
        self.optimizer = torch.optim.AdamW(self.net.parameters(), config.learning_rate, weight_decay=DECAY)
        self.step, self.seconds = 0, 0.0
        self.told: dict[str, deque[float]] = {}
        self._take_up()

    def advance(self) -> float:
        """One optimiser step; its loss."""
        began = time.monotonic()
        shown, labels = self.batch(self.step)
        torch.manual_seed(int(np.random.default_rng([self.config.seed, self.step, 2**32]).integers(2**63)))      # dropout's
        with torch.autocast(shown.device.type, torch.bfloat16, enabled=self.bf16):
            logits = self.net(shown)                                                             # (B, classes)
        loss = nn.functional.cross_entropy(logits.float(), labels)
        self.optimizer.param_groups[0]["lr"] = self.config.learning_rate * self._rate()
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        self._tell(classification_loss=loss.item(), train_accuracy=float((logits.argmax(1) == labels).float().mean()))
        self.seconds += time.monotonic() - began
        return loss.item()

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """What a step sees: images (B, 3, S, S), 0 to 1, and labels (B,)."""
        rng, rows = np.random.default_rng([self.config.seed, step]), self.order.step(step)
        shown = pixels(self.images[rows])
        shown = augmented(shown, rng) if self.config.augment == "standard" else shown
        return (shown.to(self.device).contiguous(memory_format=torch.channels_last), torch.from_numpy(self.labels[rows]).to(self.device))

    def _rate(self) -> float:
        """Share of the highest learning rate."""
        steps = self.config.steps
        return min((self.step + 1) / max(1.0, WARM_UP * steps), 0.5 * (1 + math.cos(math.pi * self.step / steps)))

    # ---- what is kept

    def _tell(self, **values: float) -> None:
        for name, value in values.items():
            self.told.setdefault(name, deque(maxlen=CURVE)).append(value)

    def recent(self, last: int = CURVE) -> dict[str, float]:
        return {name: round(float(np.mean(list(told)[-last:])), 5) for name, told in self.told.items()}

    def save(self) -> None:
        buffer = io.BytesIO()
        torch.save(dict(step=self.step, seconds=self.seconds, told={n: list(t) for n, t in self.told.items()},
                        net=self.net.state_dict(), optimizer=self.optimizer.state_dict()), buffer)
        rundir.write_bytes(self.scratch / "checkpoint.pt", buffer.getvalue())

    def _take_up(self) -> None:
        path = self.scratch / "checkpoint.pt"
        if path.exists():
            saved = torch.load(path, map_location=self.device, weights_only=True)
            self.net.load_state_dict(saved["net"])
            self.optimizer.load_state_dict(saved["optimizer"])
            self.step, self.seconds = saved["step"], saved["seconds"]
            self.told = {name: deque(told, maxlen=CURVE) for name, told in saved["told"].items()}


def fit(training: Training, classes: Sequence[str], run_dir: Path, report: Any) -> None:
    """Steps to the end, with curves, checkpoints and a preview at every quarter."""
    steps, saved_at = training.config.steps, time.monotonic()
    while training.step < steps:
        if not math.isfinite(training.advance()):
            raise ConfigError(f"Training came apart in step {training.step}: the loss is no number. Choose a lower learning rate.")
        curve = training.step % CURVE == 0 or training.step == steps
        metrics = training.recent((training.step - 1) % CURVE + 1) if curve else {}
        report(step=training.step, total=steps, message=f"learning to tell classes apart, step {training.step} of {steps}", **metrics)
        if training.step % max(1, steps // 4) == 0:
            preview(training, classes, run_dir)
        if time.monotonic() - saved_at > SAVE_S or training.step == steps:
            training.save()
            saved_at = time.monotonic()


def preview(training: Training, classes: Sequence[str], run_dir: Path) -> None:
    """`<run>/samples.png`: pictures as training shows them, and below each what it is taken for; white words are right."""
    shown, labels = (part[:SHOWN] for part in training.batch(0))
    training.net.eval()
    with torch.inference_mode():
        taken = training.net(shown).argmax(1).tolist()
    training.net.train()
    rows = -(-len(shown) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * TILE, rows * (TILE + TEXT)), (24, 24, 24))
    brush = ImageDraw.Draw(sheet)
    for i, (pixels_, label) in enumerate(zip(shown.cpu().numpy(), labels.tolist(), strict=True)):
        x, y = i % COLUMNS * TILE, i // COLUMNS * (TILE + TEXT)
        sheet.paste(Image.fromarray((pixels_.transpose(1, 2, 0) * 255).astype(np.uint8)).resize((TILE - 2, TILE - 2)), (x, y))
        said = classes[taken[i]] if taken[i] == label else f"not {classes[taken[i]]}"
        ink = (255, 255, 255) if taken[i] == label else (230, 159, 0)
        brush.text((x + 2, y + TILE - 1), "".join(c if c.isascii() and c.isprintable() else "?" for c in said)[:18], fill=ink)
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    rundir.write_bytes(run_dir / "samples.png", buffer.getvalue())
