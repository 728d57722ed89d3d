"""Steps of training: a batch, the losses, one update; checkpoints, curves and a preview.

Every step's randomness follows from (seed, step), and the checkpoint holds all the rest: a killed run comes to the same losses.
Stands between the batches (`corrupt`) and the recipe (`train`). Knows nothing of snapshots or bundles.
"""

import io
import math
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from backend import rundir
from backend.anomaly import losses
from backend.anomaly.corrupt import Batch, Surface
from backend.anomaly.networks import GRIDS, AnomalyNet
from backend.config import TrainAnomaly
from backend.device import cores, in_bf16, torch_device
from backend.errors import ConfigError
from backend.teacher import quick

WARM_UP = 0.05           # of the steps, in which the learning rate rises; then half a cosine down to nothing
STUDENT = 0.4            # of the steps, with two phases: the student's; DeSTSeg gives it 1,000 of 5,000
DECAY = 0.01             # AdamW's weight decay
FINE = 2                 # pixels a side of a cell of the masks that the head learns from; its logits are enlarged to it
MEASURED = 512           # good images, at most, that mean and deviation of features are taken from
SAVE_S, CURVE = 60, 20   # seconds between two checkpoints; steps averaged into a point of the curves
PREVIEWS, SHOWN, GAP = 4, 128, 2         # rows of the preview, pixels of a picture in it and white ones between two


class Training:
    """Network, optimiser, steps done. Taken up from `<scratch>/checkpoint.pt`."""

    def __init__(self, config: TrainAnomaly, net: AnomalyNet, surface: Surface, scratch: Path) -> None:
        self.config, self.surface, self.scratch = config, surface, scratch
        self.device = torch_device()
        self.bf16 = in_bf16(config.precision)
        torch.set_num_threads(cores())
        self.see = quick.seeing(net.extractor, config.imgsz, self.bf16, self.device)
        self.net = net.to(self.device, memory_format=torch.channels_last).train()
        learning: list[nn.Module] = [net.student, *([net.head] if config.loss != "cosine" else [])]
        self.optimizer = torch.optim.AdamW([dict(params=list(m.parameters())) for m in learning], config.learning_rate, weight_decay=DECAY)
        self.step, self.seconds = 0, 0.0
        self.defects = dict(wanted=0, drawn=0, seen=0)           # images to have one, tries, images that have one
        self.told: dict[str, deque[float]] = {}
        if not self._take_up():
            net.measure(self._good(), self.see)

    def advance(self) -> dict[str, float]:
        """One optimiser step; its losses."""
        began = time.monotonic()
        batch = self.surface.batch((self.config.seed, self.step), self.config.batch)
        self._count(batch)
        found = self._losses(batch)
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * self._rate()
        self.optimizer.zero_grad()
        torch.stack(list(found.values())).sum().backward()
        for group in self.optimizer.param_groups:                # each by itself: a steep head is no reason to slow the student
            nn.utils.clip_grad_norm_(group["params"], 1.0)
        self.optimizer.step()
        self.step += 1
        self.seconds += time.monotonic() - began
        for name, loss in found.items():
            self.told.setdefault(name, deque(maxlen=CURVE)).append(loss.item())
        return {name: told[-1] for name, told in self.told.items() if name in found}

    # ---- one step

    @property
    def phase(self) -> str:
        """student, head or both: what learns in this step. With two phases, first the student, then the head on what it became."""
        if self.config.phases == "joint" or self.config.loss != "both":
            return "both"
        return "student" if self.step < self._border else "head"

    @property
    def _border(self) -> int:
        return max(1, round(STUDENT * self.config.steps))

    def _rate(self) -> float:
        """Share of the highest learning rate; each phase has its own rise and fall."""
        first, last = {"both": (0, self.config.steps), "student": (0, self._border), "head": (self._border, self.config.steps)}[self.phase]
        done, steps = self.step - first, max(1, last - first)
        return min((done + 1) / max(1.0, WARM_UP * steps), 0.5 * (1 + math.cos(math.pi * done / steps)))

    def _losses(self, batch: Batch) -> dict[str, Tensor]:
        """The losses that this phase minimises, by the names of their curves.

        The student learns from cosine alone wherever there is one, unless `coupled`: with the head's gradient, ten times as strong at
        first, it learns to mark defects rather than to know what is normal.
        """
        phase, half = self.phase, len(batch.clean) // 2
        through = self.config.coupled or self.config.loss == "segmentation"
        self.net.student.train(phase != "head")
        clean, shown = self._pixels(batch.clean), self._pixels(batch.shown)                      # (B, 3, S, S)
        with torch.autocast(shown.device.type, torch.bfloat16, enabled=self.bf16):
            # what is wanted of the student are features of the clean images; the first half of both is the same
            with torch.no_grad():
                maps = self.net.standardised(self.see(torch.cat([shown, clean[half:]])), self.config.imgsz)
            seen, wanted = [m[:len(shown)] for m in maps], [torch.cat([m[:half], m[len(shown):]]) for m in maps]
            with torch.set_grad_enabled(phase != "head"):
                told = [m.float() for m in self.net.student(shown)]
            found = {}
            if self.config.loss != "segmentation" and phase != "head":
                found["cosine_loss"] = losses.cosine(wanted, told)
            if self.config.loss != "cosine" and phase != "student":
                logit = self.net.head(seen, told if through else [m.detach() for m in told]).float()
                found |= self._segmentation(logit, batch.mask)
        return found

    def _segmentation(self, logit: Tensor, masks: np.ndarray) -> dict[str, Tensor]:
        mask = torch.from_numpy(masks).to(self.device)[:, None].float()                          # (B, 1, S, S)
        mask = (F.avg_pool2d(mask, FINE) >= 0.5).float()                                         # (B, 1, S/2, S/2)
        image_loss = losses.whole(logit, mask, self.config.imgsz)
        logit = F.interpolate(logit, mask.shape[-2:], mode="bilinear", align_corners=False)
        return dict(focal_loss=losses.focal(logit, mask), overlap_loss=losses.OVERLAPS[self.config.overlap](logit, mask),
                    image_loss=image_loss)

    def _pixels(self, images: np.ndarray) -> Tensor:
        """uint8 (B, S, S, 3) to float32 (B, 3, S, S), 0 to 1."""
        pixels = torch.from_numpy(images).to(self.device).permute(0, 3, 1, 2).float() / 255
        return pixels.contiguous(memory_format=torch.channels_last)

    def _good(self) -> Iterator[Tensor]:
        """Good images as they are, evenly chosen, batch by batch."""
        chosen = np.unique(np.linspace(0, len(self.surface.images) - 1, MEASURED).round().astype(int))
        for start in range(0, len(chosen), self.config.batch):
            yield self._pixels(self.surface.images[chosen[start:start + self.config.batch]])

    # ---- after it

    def take(self, weights: dict[str, Tensor]) -> None:
        """Of another training, with all that it learned; a memory has a size of its own and is filled anew."""
        own_memory = {k for k in weights if k.startswith("memory.")}
        missing, unexpected = self.net.load_state_dict({k: v for k, v in weights.items() if k not in own_memory}, strict=False)
        assert not unexpected and all(k.startswith(("extractor.", "memory.")) for k in missing), (missing, unexpected)

    def remember(self) -> None:
        """Fill the network's memory, where it has one."""
        self.net.remember(self._good(), min(MEASURED, len(self.surface.images)), self.config.imgsz, self.see, self.config.seed)

    # ---- what is kept

    def _count(self, batch: Batch) -> None:
        for name, of in (("wanted", batch.tries > 0), ("drawn", batch.tries), ("seen", batch.mask.any((1, 2)))):
            self.defects[name] += int(of.sum())

    def told_of_defects(self) -> dict[str, Any]:
        """How many defects were drawn; the share of them that nobody would see, and of the images that stayed good for want of another."""
        wanted, drawn, seen = (self.defects[k] for k in ("wanted", "drawn", "seen"))
        return dict(drawn=drawn, unseen=round(1 - seen / max(1, drawn), 4), stayed_good=round(1 - seen / max(1, wanted), 4))

    def recent(self, last: int = CURVE) -> dict[str, float]:
        return {name: round(float(np.mean(list(told)[-last:])), 5) for name, told in self.told.items()}

    def save(self) -> None:
        buffer = io.BytesIO()
        torch.save(dict(step=self.step, seconds=self.seconds, told={n: list(t) for n, t in self.told.items()}, defects=self.defects,
                        net=own(self.net), optimizer=self.optimizer.state_dict()), buffer)
        rundir.write_bytes(self.scratch / "checkpoint.pt", buffer.getvalue())

    def _take_up(self) -> bool:
        path = self.scratch / "checkpoint.pt"
        if path.exists():
            saved = torch.load(path, map_location=self.device, weights_only=True)
            self.net.load_state_dict(saved["net"], strict=False)
            self.optimizer.load_state_dict(saved["optimizer"])
            self.step, self.seconds, self.defects = saved["step"], saved["seconds"], saved["defects"]
            self.told = {name: deque(told, maxlen=CURVE) for name, told in saved["told"].items()}
        return path.exists()


def own(net: AnomalyNet) -> dict[str, Tensor]:
    """What the network has learned: all but the teacher, which has its weights from elsewhere."""
    return {k: v for k, v in net.state_dict().items() if not k.startswith("extractor.")}


def fit(training: Training, run_dir: Path, report: Any) -> None:
    """Steps to the end, with curves, checkpoints and a preview at every quarter."""
    steps, saved_at = training.config.steps, time.monotonic()
    while training.step < steps:
        if not all(map(math.isfinite, training.advance().values())):
            raise ConfigError(f"Training came apart in step {training.step}: the loss is no number. Choose a lower learning rate.")
        curve = training.step % CURVE == 0 or training.step == steps
        metrics = training.recent((training.step - 1) % CURVE + 1) if curve else {}
        report(step=training.step, total=steps, message=f"learning what is normal, step {training.step} of {steps}", **metrics)
        if training.step % max(1, steps // 4) == 0:
            preview(training, run_dir)
        if time.monotonic() - saved_at > SAVE_S or training.step == steps:
            training.save()
            saved_at = time.monotonic()


def preview(training: Training, run_dir: Path) -> None:
    """`<run>/samples.png`: image, the same with a defect, its mask, what the network says of it. Always the same four."""
    batch = training.surface.batch((training.config.seed, 2**31), 2 * PREVIEWS)
    training.net.eval()
    with torch.inference_mode():
        shown = training._pixels(batch.shown)
        cosine, logit = training.net.disagreement(training.net.teacher(shown), training.net.student(shown), shown.shape[-1] // GRIDS[0])
    training.net.train()
    segmented = training.config.loss != "cosine" and training.phase != "student"
    maps = (logit.float().sigmoid() if segmented else cosine.float() / cosine.float().max())[:, 0].cpu().numpy()      # (B, m, m)
    grey = [np.repeat((m * 255).astype(np.uint8)[..., None], 3, -1) for m in (batch.mask, maps)]
    tiles = np.stack([[_small(part[i]) for part in (batch.clean, batch.shown, *grey)] for i in range(PREVIEWS, 2 * PREVIEWS)])
    tiles = np.pad(tiles, ((0, 0), (0, 0), (0, GAP), (0, GAP), (0, 0)), constant_values=255)       # (rows, 4, side, side, 3)
    sheet = tiles.swapaxes(1, 2).reshape(-1, tiles.shape[1] * tiles.shape[3], 3)[:-GAP, :-GAP]
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(sheet)).save(buffer, "PNG")
    rundir.write_bytes(run_dir / "samples.png", buffer.getvalue())


def _small(image: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((SHOWN, SHOWN), Image.Resampling.BILINEAR))
