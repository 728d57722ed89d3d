"""The recipe `probe-features`: which decoder block, at which timestep, lets a linear reader see the defects?

A *reader* is one linear layer per class that says, cell by cell, whether a box of the class covers the cell. Readers of each
block alone and of all blocks together are fitted on train images and ranked by average precision on val; test stays unread.
Linear probes of frozen features: Alain & Bengio 2016 (arXiv 1610.01644); cells and figures are our choice.
Looks at the denoiser's own features, before any compression. Knows nothing of repositories or detectors.
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from backend import rundir
from backend.config import ProbeFeatures
from backend.data import images, snapshot
from backend.data.snapshot import Picture
from backend.device import cores, torch_device
from backend.diffusion import ddpm, features, pictures
from backend.errors import Canceled, ConfigError

CELLS = 120_000             # of each split at most: 85 MB of `tiny` features, 170 MB of `base`
BATCH_PIXELS = 320_000      # a forward at once: 8 images of 200 px, about 1 GB with `tiny`
STEPS, BATCH = 800, 4096    # of a reader's fit
LEARNING_RATE = 0.02

Tell = Callable[..., None]  # (step, message, **metrics)


@dataclass(frozen=True)
class Cells:
    """The images of one split on disk, and which of their cells count: seeded choice, the same for every timestep."""

    known: pictures.Pictures
    chosen: list[np.ndarray]         # int64 (cells of the image,): flat numbers on the grid, per image
    covered: Tensor                  # bool (all cells, classes)


def run(config: ProbeFeatures, run_dir: Path, report: Any) -> dict[str, Any]:
    data = snapshot.read(rundir.find_snapshot(config.dataset))
    denoiser = ddpm.load(ddpm.find(config.denoiser, data))
    taps = features.parse(config.timesteps, "all", denoiser)
    scratch = run_dir / "probing"
    scratch.mkdir(exist_ok=True)
    try:
        return _probe(config, data, denoiser.to(torch_device()), taps, scratch, report)
    except Canceled:
        shutil.rmtree(scratch)
        raise


def _probe(config: ProbeFeatures, data: snapshot.Snapshot, denoiser: ddpm.Denoiser, taps: features.Taps, scratch: Path,
           report: Any) -> dict[str, Any]:
    torch.set_num_threads(cores())
    train, val = _chosen(data, config)
    classes, n = [c for c in data.classes if any(c in p.classes for p in val)], len(train) + len(val)

    def tell(step: int, message: str, **metrics: float) -> None:
        report(step=step, total=n * len(taps.timesteps), message=message, **metrics)

    # images and cells, the same for every timestep
    S = features.square(pictures.scaled_size(p.width, p.height, denoiser.head["side"]) for p in data.pictures)
    fitting, ranking = (_cells(some, classes, denoiser, S, scratch / file, config.seed, tell)
                        for some, file in ((train, "train.u8"), (val, "val.u8")))

    # each timestep once for all blocks; what is found stays found when the run is killed
    found = []
    for i, t in enumerate(taps.timesteps):
        path = scratch / f"timestep-{t}.json"
        if not path.exists():
            one = features.Taps((t,), taps.blocks)
            seen = _features(denoiser, fitting, one, S, i * n, tell), _features(denoiser, ranking, one, S, i * n + len(train), tell)
            tell((i + 1) * n, f"timestep {t}, fitting the linear readers")
            rundir.write_json(path, rank(seen[0], fitting.covered, seen[1], ranking.covered, features.widths(denoiser, one), config.seed))
        found.append(np.array(rundir.read_json(path)))                                            # (blocks + 1, classes)
        *alone, together = found[-1].mean(1)
        tell((i + 1) * n, f"timestep {t} done", together=together, **{f"block_{b}": m for b, m in zip(taps.blocks, alone, strict=True)})
    shutil.rmtree(scratch)
    return _result(np.stack(found), classes, taps, dict(
        dataset=data.head["name"], snapshot_id=data.snapshot_id, denoiser=denoiser.head["name"], denoiser_key=denoiser.head["key"],
        images=len(train), val_images=len(val)))


def _result(ap: np.ndarray, classes: Sequence[str], taps: features.Taps, about: dict[str, Any]) -> dict[str, Any]:
    """`ap` (timesteps, blocks + 1, classes), the last reader of each timestep has all blocks. Rows of figures are timesteps."""
    means = ap.mean(2)                                                                            # (timesteps, blocks + 1)
    t, b = np.unravel_index(means[:, :-1].argmax(), means[:, :-1].shape)
    return dict(
        about, timesteps=list(taps.timesteps), blocks=list(taps.blocks), classes=list(classes),
        ap=means[:, :-1].round(4).tolist(), together=means[:, -1].round(4).tolist(),
        per_class={c: ap[:, :-1, k].round(4).tolist() for k, c in enumerate(classes)},
        per_class_together={c: ap[:, -1, k].round(4).tolist() for k, c in enumerate(classes)},
        best=dict(timestep=taps.timesteps[t], block=taps.blocks[b], ap=round(float(means[t, b]), 4)))


# ---- images and cells

def _chosen(data: snapshot.Snapshot, config: ProbeFeatures) -> tuple[list[Picture], list[Picture]]:
    """The train images to fit on, drawn by seed, and all of val. Raises ConfigError where there is nothing to learn or to rank."""
    train, val = data.by_split("train"), data.by_split("val")
    drawn = np.random.default_rng(config.seed).permutation(len(train))[:config.images]
    train = [train[i] for i in sorted(drawn)]
    for split, some in (("train", train), ("val", val)):
        if not any(p.boxes for p in some):
            raise ConfigError(f"No {split} image of {data.head['name']!r} has a box. Blocks and timesteps can be ranked only by boxes in "
                              "both train and val.")
    return train, val


def _cells(some: list[Picture], classes: Sequence[str], denoiser: ddpm.Denoiser, S: int, file: Path, seed: int,
           tell: Tell) -> Cells:
    known = pictures.decoded([p.path for p in some], lambda path: images.decode(path.read_bytes(), path.name), file, denoiser.head["side"],
                             denoiser.channels, lambda i: tell(0, f"reading {file.stem} image {i + 1} of {len(some)}"))
    rng, grid = np.random.default_rng(seed), features.grid_of(S)
    chosen, covered = [], []
    for picture, (height, width) in zip(some, known.sizes, strict=True):
        inside = np.flatnonzero(shown(width / S, height / S, grid))
        chosen.append(np.sort(rng.permutation(inside)[:max(1, CELLS // len(some))]))
        covered.append(coverage(picture, classes, (width / S, height / S), grid)[:, chosen[-1]].T)
    return Cells(known, chosen, torch.from_numpy(np.concatenate(covered)))


def shown(width: float, height: float, grid: int) -> np.ndarray:
    """bool (grid * grid,): cells whose centre is image and not its mirrored rest; the cell in the corner always."""
    centres = (np.arange(grid) + 0.5) / grid
    inside = (centres < height)[:, None] & (centres < width)[None]
    inside[0, 0] = True
    return inside.ravel()


def coverage(picture: Picture, classes: Sequence[str], extent: tuple[float, float], grid: int) -> np.ndarray:
    """bool (classes, grid * grid): a box of the class covers the cell's centre. A box thinner than a cell still has one cell across."""
    covered = np.zeros((len(classes), grid, grid), bool)
    for box in picture.boxes:
        if box.class_name in classes:
            x1, x2 = _across(box.x1, box.x2, picture.width, extent[0] * grid, grid)
            y1, y2 = _across(box.y1, box.y2, picture.height, extent[1] * grid, grid)
            covered[classes.index(box.class_name), y1:y2, x1:x2] = True
    return covered.reshape(len(classes), -1)


def _across(low: float, high: float, pixels: int, cells: float, grid: int) -> tuple[int, int]:
    """Pixels from `low` to `high` of an image side, as a range of cells: those whose centres lie between, or the one in the middle."""
    low, high = low / pixels * cells, high / pixels * cells
    first, end = round(low), round(high)
    if end <= first:
        first = int((low + high) / 2)
        end = first + 1
    first = min(max(first, 0), grid - 1)
    return first, min(max(end, first + 1), grid)


def _features(denoiser: ddpm.Denoiser, cells: Cells, taps: features.Taps, S: int, done: int, tell: Tell) -> Tensor:
    """What the denoiser sees in the chosen cells: float16 (all cells, channels). `done` images were looked at before."""
    found, grid, n = list[Tensor](), features.grid_of(S), max(1, BATCH_PIXELS // S**2)
    for start in range(0, len(cells.known), n):
        tell(done + start, f"timestep {taps.timesteps[0]}, what the denoiser sees in image {start + 1} of {len(cells.known)}")
        some = range(start, min(start + n, len(cells.known)))
        squares = torch.stack([features.squared(cells.known[i], S)[0] for i in some])             # (B, C, S, S)
        maps = features.extract(denoiser, squares, taps, grid).flatten(2)                         # (B, channels, grid * grid)
        found += [maps[k][:, cells.chosen[i]].T.half() for k, i in enumerate(some)]
    return torch.cat(found)


# ---- readers

def rank(train: Tensor, train_covered: Tensor, val: Tensor, val_covered: Tensor, widths: Sequence[int], seed: int) -> list[list[float]]:
    """Average precision on val of each block's reader and, last, of the reader of all blocks: (blocks + 1, classes).

    `train` and `val` are (cells, sum of widths), `covered` (cells, classes).
    """
    scores = read(fit(train, train_covered, widths, seed), val).numpy()                           # (cells, blocks + 1, classes)
    covered = val_covered.numpy()
    return [[average_precision(scores[:, r, k], covered[:, k]) for k in range(covered.shape[1])] for r in range(scores.shape[1])]


@dataclass(frozen=True)
class Readers:
    """All readers of a timestep side by side: each has weights of its own channels, and zeros elsewhere."""

    weight: Tensor                   # (channels, readers * classes)
    bias: Tensor                     # (readers * classes,)
    classes: int


def fit(cells: Tensor, covered: Tensor, widths: Sequence[int], seed: int) -> Readers:
    """Logistic regression by Adam on standardised features. All readers at once: one pass over the features serves them all."""
    n, classes = covered.shape
    mean, deviation = _moments(cells)                                                             # (channels,) each
    own = _own_channels(widths).repeat_interleave(classes, 1)                                     # (channels, readers * classes)
    share = covered.float().mean(0).clamp(1 / n, 1 - 1 / n)
    weight = torch.zeros_like(own, requires_grad=True)
    bias = torch.logit(share).repeat(len(widths) + 1).requires_grad_()
    optimizer = torch.optim.Adam([weight, bias], LEARNING_RATE)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, STEPS)
    generator = torch.Generator().manual_seed(seed)

    def of_raw() -> Readers:
        """The same readers on features as they are, so that nobody need standardise them: weights are fewer."""
        scaled = weight * own / deviation[:, None]
        return Readers(scaled, bias - mean @ scaled, classes)

    for _ in range(STEPS):
        some = torch.randint(n, (min(BATCH, n),), generator=generator)
        truth = covered[some].float()[:, None].expand(-1, len(widths) + 1, -1)                    # (batch, readers, classes)
        loss = nn.functional.binary_cross_entropy_with_logits(read(of_raw(), cells[some]), truth, reduction="none").mean(0).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()
    with torch.no_grad():
        return of_raw()


def _moments(cells: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel, float32, in double sums over parts: no copy of all."""
    parts = cells.split(BATCH)
    mean = sum((part.sum(0, dtype=torch.float64) for part in parts), torch.zeros(())) / len(cells)
    variance = sum((((part - mean) ** 2).sum(0) for part in parts), torch.zeros(())) / len(cells)
    return mean.float(), variance.sqrt().clamp(min=1e-4).float()


def _own_channels(widths: Sequence[int]) -> Tensor:
    """float32 (channels, blocks + 1): 1 where a channel belongs to a reader; the last reader has them all."""
    alone = torch.block_diag(*(torch.ones(w, 1) for w in widths))
    return torch.cat([alone, torch.ones(sum(widths), 1)], 1)


def read(readers: Readers, cells: Tensor) -> Tensor:
    """float32 (cells, readers, classes): the larger, the surer."""
    scores = torch.cat([part.float() @ readers.weight for part in cells.split(BATCH)])
    return (scores + readers.bias).unflatten(1, (-1, readers.classes))


def average_precision(scores: np.ndarray, covered: np.ndarray) -> float:
    """Mean precision at each covered cell, the surest first; equal scores share one place. 0 where nothing is covered."""
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(covered[order])
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)                     # last of equal scores
    gained = np.diff(hits[ends], prepend=0)
    return float((gained * hits[ends] / (ends + 1)).sum() / max(hits[-1], 1))
