"""Perturbed images kept in advance, since a training cannot wait for a denoiser in every step: `<run>/perturbed`.

Of each, what changes when the denoiser draws a good train picture again (`perturb`), at the scale that it has learned, and only then
stretched to a square. The difference is kept, not the image: added to the picture itself, it leaves alone what the denoiser never saw,
its colours where the denoiser is grey and its finest grain where it was scaled. Stands between the denoiser and the training of an
anomaly model, which cuts masks out of these. Goes on where a killed run left it; one made from the same inputs is used again. Knows
nothing of masks.
"""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from backend import rundir
from backend.data import images
from backend.data.snapshot import Picture, Snapshot
from backend.device import cores, torch_device
from backend.diffusion import ddpm, pictures
from backend.errors import Canceled, ConfigError, ResourceError
from backend.synthesis import sources
from backend.synthesis.perturb import perturb
from backend.teacher.source import Rows

FORMAT = 3                  # of the artifact; part of its key
PIXELS = "changes.i2"
FORWARD = 150_000           # pixels in one forward on a CPU; sixteen times that on a GPU


@dataclass(frozen=True)
class Pool:
    """What drawing a picture again changes in it, and which good picture each comes from."""

    changes: np.ndarray              # int16 (n, S, S, C) of a file; C is 1 or 3
    parents: list[str]               # image ids
    head: dict[str, Any]

    def __len__(self) -> int:
        return len(self.parents)

    def drawn_again(self, i: int, picture: np.ndarray) -> np.ndarray:
        """The picture that number i comes from, uint8 (S, S, 3), as the denoiser would have it; what is grey is added to all three."""
        return np.clip(picture + self.changes[i], 0, 255).astype(np.uint8)

    def of(self, image_id: str) -> list[int]:
        """Which of them come from this picture."""
        return [i for i, parent in enumerate(self.parents) if parent == image_id]


def load(folder: Path) -> Pool:
    head = rundir.read_json(folder / "head.json")
    shape = (len(head["parents"]), head["imgsz"], head["imgsz"], head["channels"])
    return Pool(np.memmap(folder / PIXELS, np.int16, "r", shape=shape), list(head["parents"]), head)


def make(denoiser_folder: Path, data: Snapshot, run_dir: Path, report: Any, *, count: int, imgsz: int, steps: int, depth: int,
         variance: float, start: str, seed: int, good: Sequence[Picture] | None = None) -> Path:
    """The folder of a pool with these inputs: one that is there already, or a new one in `<run>/perturbed`.

    `good`: the pictures it may come from; none given: all good ones of train. Raises ConfigError, ResourceError.
    """
    denoiser = ddpm.load(denoiser_folder)
    chosen = sorted(_parents(data, good, count, seed), key=lambda p: _room(p, denoiser.head["side"]))      # neighbours share a forward
    about = dict(imgsz=imgsz, steps=steps, depth=depth, variance=variance, start=start, seed=seed)
    key = rundir.key_of(kind="perturbed", format=FORMAT, denoiser=denoiser.head["key"], parents=[p.image_id for p in chosen], **about)
    if found := rundir.find_artifact("perturbed", key=key):
        return found
    torch.set_num_threads(cores())
    scratch = rundir.bound(run_dir / "perturbing", key)
    try:
        (folder := scratch / "perturbed").mkdir(exist_ok=True)
        rows = Rows(folder / PIXELS, scratch / "rows", (imgsz, imgsz, denoiser.channels), "<i2")
        _fill(rows, denoiser.to(torch_device()), chosen, about, report)
        head = dict(key=key, name=denoiser.head["name"], dataset=data.head["name"], snapshot_id=data.snapshot_id,
                    denoiser=denoiser.head["key"], channels=denoiser.channels, parents=[p.image_id for p in chosen], **about)
        kept = rundir.keep_artifact(folder, run_dir, "perturbed", head)
    except torch.OutOfMemoryError as problem:
        raise ResourceError(f"Out of memory while images of up to {denoiser.head['side']} px were perturbed. "
                            "Take a diffusion model of a smaller side.") from problem
    except Canceled:
        shutil.rmtree(scratch)
        raise
    shutil.rmtree(scratch)
    return kept


def _parents(data: Snapshot, good: Sequence[Picture] | None, count: int, seed: int) -> list[Picture]:
    known = sources.good(data) if good is None else good
    if not known:
        raise ConfigError(f"The dataset {data.head['name']!r} has no good train images: each carries a box. "
                          "Import images of good parts too.")
    return chosen_of(known, count, seed)


def chosen_of(good: Sequence[Picture], count: int, seed: int) -> list[Picture]:
    """`count` pictures by chance, every one before any comes again: those that a pool holds, whether or not one is made."""
    known, rng = sorted(good, key=lambda p: p.image_id), np.random.default_rng(seed)
    order = np.concatenate([rng.permutation(len(known)) for _ in range(-(-count // len(known)))])[:count]
    return [known[i] for i in order]


def _fill(rows: Rows, denoiser: ddpm.Denoiser, chosen: list[Picture], about: dict[str, Any], report: Any) -> None:
    """Batch after batch, from where the file ends. An image's noise follows from (seed, its number), whatever the batch."""
    side, settings = denoiser.head["side"], {k: about[k] for k in ("steps", "depth", "variance", "start")}
    for some in _batches(chosen, side, rows.done):
        report(step=some.start, total=len(chosen), message=f"perturbing good images, {some.start + 1} of {len(chosen)}")
        known = [pictures.scaled(_opened(chosen[i]), side, denoiser.channels) for i in some]
        height, width = _room(chosen[some.start], side)
        before = pictures.to_tensor(np.stack([pictures.padded(k, height, width) for k in known]))     # (b, C, H, W)
        found = pictures.to_pixels(perturb(denoiser, before, [generator(about["seed"], i) for i in some], **settings))
        rows.put(some.start, np.stack([_change(k, f[:k.shape[0], :k.shape[1]], about["imgsz"]) for f, k in zip(found, known, strict=True)]))


def _batches(chosen: Sequence[Picture], side: int, first: int) -> Iterator[range]:
    """Numbers from `first` on: neighbours that need the same room, as many as fit one forward."""
    while first < len(chosen):
        height, width = _room(chosen[first], side)
        most = max(1, FORWARD * (1 if torch_device() == "cpu" else 16) // (height * width))
        alike = takewhile(lambda p: _room(p, side) == (height, width), chosen[first:first + most])            # noqa: B023
        yield (some := range(first, first + len(list(alike))))
        first = some.stop


def _room(picture: Picture, side: int) -> tuple[int, int]:
    """(H, W) of a picture at the denoiser's scale, which learned crops of pictures scaled so, and padded to what halves thrice."""
    height, width = pictures.scaled_size(picture.width, picture.height, side)
    return tuple(-(-length // pictures.MULTIPLE) * pictures.MULTIPLE for length in (height, width))  # type: ignore[return-value]


def _opened(picture: Picture) -> Image.Image:
    return images.decode(picture.path.read_bytes(), picture.file_name)


def _change(before: np.ndarray, after: np.ndarray, side: int) -> np.ndarray:
    """Of uint8 (h, w, C) both, stretched: int16 (S, S, C)."""
    return stretched(after, side).astype(np.int16) - stretched(before, side)


def stretched(pixels: np.ndarray, side: int) -> np.ndarray:
    """uint8 (h, w, C) to (S, S, C)."""
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR)).reshape(side, side, -1)


def generator(*seeds: int) -> torch.Generator:
    """One whose numbers follow from all of these."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence(seeds).generate_state(1, np.uint64)[0] >> 1))


