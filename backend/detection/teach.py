"""The recipe `teach-backbone`: a YOLO backbone learns, without labels, to see what the denoiser saw. Our choice, not the paper's.

The three maps of a random YOLO11 backbone, brought to stride 8 and read by one 1×1 convolution, are to give the repository's
decoded features; the convolution is thrown away. After ten minutes on two cores a linear reader reached 85 mean AP over NEU-DET's cells
with such a backbone, 24 with a random one. Takes train images and unlabelled ones; labels are never read.
Knows nothing of boxes.
"""

import io
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from backend import rundir
from backend.config import TeachBackbone, TrainDetector
from backend.data import images, snapshot
from backend.data.snapshot import Picture
from backend.detection.fuse import STRIDE, find_repository
from backend.detection.network import BACKBONE, Detector, build
from backend.detection.warp import Sources, warp
from backend.device import cores, in_bf16, torch_device
from backend.diffusion import pictures
from backend.errors import Canceled, ConfigError
from backend.teacher.repository import Repository

FORMAT = 1
SCALES = (0.7, 1.4)                  # of the image in the network input; detection training varies 0.5 to 1.5 too
PAD = 114 / 255                      # grey around an image, as detection training and the engine have it
WARM_UP, SAVE_S, CURVE = 50, 60, 20


def run(config: TeachBackbone, run_dir: Path, report: Any) -> dict[str, Any]:
    data = snapshot.read(rundir.taken_snapshot(run_dir, config.dataset))
    repository = rundir.taken(run_dir, "repository", lambda: find_repository(config.repository, data.snapshot_id))
    return make(config, data, repository, run_dir, report)


def key(config: TeachBackbone, repository_key: str) -> str:
    settings = {k: v for k, v in config.to_json().items() if k not in ("name", "dataset", "repository")}
    return rundir.key_of(kind="backbone", format=FORMAT, repository=repository_key, **settings)


def make(config: TeachBackbone, data: snapshot.Snapshot, repository: Path, run_dir: Path, report: Any) -> dict[str, Any]:
    """Teach, and keep layers 0 to 10 in `<run>/backbone`."""
    if not config.name:
        raise ConfigError("Give the backbone a name.")
    if config.imgsz % 32:
        raise ConfigError(f"The image size must be a multiple of 32, not {config.imgsz}.")
    scratch = run_dir / "training-backbone"
    repository_key = rundir.read_json(repository / "head.json")["key"]
    if done := rundir.own_result(run_dir, "backbone", key(config, repository_key)):
        shutil.rmtree(scratch, ignore_errors=True)
        return done
    rundir.bound(scratch, key(config, repository_key))
    try:
        # the images, decoded once, and what the denoiser saw in them
        known = data.learnable(snapshot.UNLABELLED)
        if not known:
            raise ConfigError(f"The dataset {config.dataset!r} has no images to learn from.")
        pixels = pictures.decoded([p.path for p in known], _open, scratch / "pictures.u8", config.imgsz, 3, lambda i: report(
            step=0, total=config.steps, message=f"reading image {i + 1} of {len(known)}"))

        # learning
        teaching = Teaching(config, known, pixels, Repository.open(repository), scratch)
        _fit(teaching, report)

        # the artifact
        folder = scratch / "backbone"
        folder.mkdir(exist_ok=True)
        save_file(teaching.state(), folder / "backbone.safetensors")
        head = dict(key=key(config, repository_key), name=config.name, dataset=data.head["name"], snapshot_id=data.snapshot_id,
                    repository=repository_key, size=config.size, imgsz=config.imgsz, steps=config.steps, seed=config.seed,
                    images=len(known), loss=teaching.recent())
        rate = config.steps * config.batch / teaching.seconds
        head["result"] = dict(name=config.name, dataset=head["dataset"], snapshot_id=head["snapshot_id"], steps=config.steps,
                              loss=head["loss"], images=len(known), seconds=round(teaching.seconds, 1), images_per_second=round(rate, 1))
        rundir.keep_artifact(folder, run_dir, "backbone", head)
    except Canceled:
        shutil.rmtree(scratch)
        raise
    shutil.rmtree(scratch)
    return dict(head["result"])


def _open(path: Path) -> Any:
    return images.decode(path.read_bytes(), path.name)


class Teaching:
    """Backbone, reader, optimiser, steps done. Every step's randomness follows from (seed, step)."""

    def __init__(self, config: TeachBackbone, known: list[Picture], pixels: pictures.Pictures, repository: Repository,
                 scratch: Path) -> None:
        self.config, self.ids, self.pixels, self.scratch = config, [p.image_id for p in known], pixels, scratch
        self.device = torch_device()
        self.repository = repository.to(self.device)
        torch.set_num_threads(cores())
        torch.manual_seed(config.seed)
        like = TrainDetector(dataset="-", name="-", size=config.size, imgsz=config.imgsz, precision=config.precision)
        whole: Detector = build(like, {0: "-"})
        self.layers = whole.model[:BACKBONE[-1] + 1].to(self.device, memory_format=torch.channels_last).train()
        self.reader = nn.Conv2d(_width(whole), sum(repository.widths), 1).to(self.device)
        self.bf16 = in_bf16(config.precision)
        self.optimizer = torch.optim.AdamW([*self.layers.parameters(), *self.reader.parameters()], config.learning_rate, weight_decay=1e-4)
        self.step, self.seconds, self.losses = 0, 0.0, list[float]()
        self._take_up()

    def advance(self) -> float:
        """One optimiser step; its mean squared error, of features with variance 1."""
        began, rng = time.monotonic(), np.random.default_rng([self.config.seed, self.step])
        chosen = rng.choice(len(self.ids), self.config.batch, replace=len(self.ids) < self.config.batch)
        seen, wanted, visible = self._batch(chosen, rng)
        with torch.autocast(seen.device.type, torch.bfloat16, enabled=self.bf16):
            told = self.reader(self._look(seen))
        loss = ((told.float() - wanted).square() * visible).sum() / (visible.sum() * wanted.shape[1])
        left = 1 - self.step / self.config.steps
        self.optimizer.param_groups[0]["lr"] = self.config.learning_rate * min(left, (self.step + 1) / WARM_UP)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.step += 1
        self.losses = [*self.losses[-99:], loss.item()]
        self.seconds += time.monotonic() - began
        return self.losses[-1]

    def _batch(self, chosen: np.ndarray, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Images (B, 3, S, S), features (B, C, S/8, S/8), and where an image is visible (B, 1, S/8, S/8), turned alike."""
        side, sources, squares = self.config.imgsz, [], []
        for row, i in enumerate(chosen):
            pixels = self.pixels[i]
            sources.append((row, self.ids[i], _placed(pixels.shape[:2], rng)))
            squares.append(torch.from_numpy(pictures.padded(pixels, side, side)[:side, :side].copy()).permute(2, 0, 1))
        whole = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).repeat(len(sources), 1)
        where = Sources(torch.tensor([s[0] for s in sources]), [s[1] for s in sources],
                        torch.from_numpy(np.stack([s[2] for s in sources])).float(), whole).to(self.device)
        extents = torch.from_numpy(self.pixels.sizes[chosen][:, ::-1] / side).float().to(self.device)
        stack = torch.stack(squares).to(self.device).float() / 255
        n, small = len(sources), (side // STRIDE, side // STRIDE)
        shown = warp(torch.cat([stack, torch.ones_like(stack[:, :1])], 1), where, extents, n, (side, side))
        seen = shown[:, :3] + (1 - shown[:, 3:]) * PAD
        latents = torch.from_numpy(self.repository.rows(where.key)).to(self.device)
        features = self.repository.decode(latents).float()                                       # (B, C, g, g)
        reach = torch.from_numpy(self.repository.extents(where.key)).to(self.device)
        found = warp(torch.cat([features, torch.ones_like(features[:, :1])], 1), where, reach, n, small)
        return seen, found[:, :-1], found[:, -1:]

    def _look(self, x: Tensor) -> Tensor:
        """The backbone's three maps at stride 8, one behind the other."""
        kept, x = [], x.contiguous(memory_format=torch.channels_last)
        for i, layer in enumerate(self.layers):
            x = layer(x)
            if i in BACKBONE:
                kept.append(x)
        return torch.cat([kept[0], *(F.interpolate(m, scale_factor=2.0**k, mode="nearest") for k, m in enumerate(kept[1:], 1))], 1)

    def recent(self) -> float:
        return round(sum(self.losses) / max(1, len(self.losses)), 5)

    def state(self) -> dict[str, Tensor]:
        """Layers 0 to 10, named as in the whole network."""
        return {f"model.{k}": v.contiguous().cpu() for k, v in self.layers.state_dict().items()}

    def save(self) -> None:
        buffer = io.BytesIO()
        torch.save(dict(step=self.step, seconds=self.seconds, losses=self.losses, layers=self.layers.state_dict(),
                        reader=self.reader.state_dict(), optimizer=self.optimizer.state_dict()), buffer)
        rundir.write_bytes(self.scratch / "checkpoint.pt", buffer.getvalue())

    def _take_up(self) -> None:
        path = self.scratch / "checkpoint.pt"
        if path.exists():
            saved = torch.load(path, map_location=self.device, weights_only=True)
            for name in ("layers", "reader", "optimizer"):
                getattr(self, name).load_state_dict(saved[name])
            self.step, self.seconds, self.losses = saved["step"], saved["seconds"], saved["losses"]


def _placed(size: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """A random flip, scale and place of an image (h, w) in a square input: 3×3, from the input's coordinates to the image's."""
    scale = rng.uniform(*SCALES)
    matrix = np.eye(3)
    for axis, length in enumerate((size[1], size[0])):
        share = scale * length / max(size)                               # of the input that the image covers; above 1 it is cut
        start = rng.uniform(min(0.0, 1 - share), max(0.0, 1 - share))
        matrix[axis, axis], matrix[axis, 2] = 1 / share, -start / share
        if rng.random() < 0.5:
            matrix[axis, axis], matrix[axis, 2] = -matrix[axis, axis], 1 - matrix[axis, 2]
    return matrix


def _width(network: Detector) -> int:
    from backend.detection.fuse import backbone_channels

    return sum(backbone_channels(network))


def _fit(teaching: Teaching, report: Any) -> None:
    steps, saved_at = teaching.config.steps, time.monotonic()
    while teaching.step < steps:
        loss = teaching.advance()
        if not np.isfinite(loss):
            raise ConfigError(f"Teaching came apart in step {teaching.step}: the loss is no number. Choose a lower learning rate.")
        curve = teaching.step % CURVE == 0 or teaching.step == steps
        metrics = {"loss": sum(teaching.losses[-CURVE:]) / len(teaching.losses[-CURVE:])} if curve else {}
        report(step=teaching.step, total=steps, message=f"teaching the backbone, step {teaching.step} of {steps}", **metrics)
        if time.monotonic() - saved_at > SAVE_S or teaching.step == steps:
            teaching.save()
            saved_at = time.monotonic()
