"""The recipe `build-repository`, and `Repository`, which reads what it leaves: a dataset's features, compressed, by picture.

Stands between a denoiser and whatever learns from it: features are computed once, not in every step of a training. D3N
(arXiv 2408.13845) names the pieces; the stages are our choice: features of some train images into scratch, a compressor fitted
on them, then every picture of the snapshot through both. Val's and test's pictures are encoded, so that a detector that reads
features can be scored on them, but nothing is fitted on them. Each stage goes on where a killed run left it.
Knows nothing of detectors or augmentation.
"""

import hashlib
import shutil
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from backend import rundir
from backend.config import BuildRepository
from backend.data import snapshot
from backend.data.snapshot import Snapshot
from backend.device import cores, torch_device
from backend.diffusion import ddpm, features
from backend.errors import Canceled, ConfigError, InputError, NotFoundError, ResourceError
from backend.teacher import resvae
from backend.teacher.source import Rows, Source

FORMAT = 1                  # of the artifact; part of its key
LATENTS, NETWORK = "latents.f16", "resvae.safetensors"


def run(config: BuildRepository, run_dir: Path, report: Any) -> dict[str, Any]:
    data = snapshot.read(rundir.find_snapshot(config.dataset))
    denoiser = rundir.taken(run_dir, "denoiser", lambda: ddpm.find(config.denoiser, data))
    return make(config, data, denoiser, run_dir, report)


def key(config: BuildRepository, denoiser_key: str) -> str:
    """What the repository follows from; its name does not count, and dataset and diffusion model do by the latter's key."""
    settings = {k: v for k, v in config.to_json().items() if k not in ("name", "dataset", "denoiser")}
    return rundir.key_of(kind="repository", format=FORMAT, denoiser=denoiser_key, **settings)


def make(config: BuildRepository, data: Snapshot, denoiser_folder: Path, run_dir: Path, report: Any) -> dict[str, Any]:
    """Build the repository of a snapshot in `<run>/repository`. Raises ConfigError, ResourceError."""
    if not config.name:
        raise ConfigError("Give the feature repository a name.")
    denoiser, began = ddpm.load(denoiser_folder), time.monotonic()
    if denoiser.head["snapshot_id"] != data.snapshot_id:
        raise ConfigError(f"The diffusion model {denoiser.head['name']!r} was trained on another dataset, which may hold val or test "
                          "images of this one. Train one on this dataset.")
    done = rundir.own_result(run_dir, "repository", key(config, denoiser.head["key"]))
    if done and not damage(run_dir / "repository"):
        shutil.rmtree(run_dir / "building-repository", ignore_errors=True)
        return done
    scratch = rundir.bound(run_dir / "building-repository", key(config, denoiser.head["key"]))
    (scratch / "repository").mkdir(exist_ok=True)
    torch.set_num_threads(cores())
    try:
        # which features, on which grid; which pictures to learn from
        source = Source(denoiser.to(torch_device()), features.parse(config.timesteps, config.blocks, denoiser), data)
        fitted = source.to_fit(config.seed)
        steps = 0 if config.raw else config.steps
        total = len(fitted) + steps + len(source.ids)

        def tell(step: int, message: str, **metrics: float) -> None:
            report(step=step, total=total, message=message, **metrics)

        # their features, as they are, on disk
        raw = source.gather(fitted, scratch, lambda i: tell(i, f"looking at train images, {i + 1} of {len(fitted)}"))

        # the compressor: a linear one first, then the one that starts from it
        start = _basis(raw, source, config.seed, scratch, lambda i: tell(
            len(fitted), f"measuring features, image {i + 1} of {len(fitted)}"))
        network = _compressor(config, raw, source, start, scratch, lambda step, metrics: tell(
            len(fitted) + step, f"learning to compress, step {step} of {steps}", **metrics))

        # every picture through it
        scores = _encode(source, network, start, scratch, lambda i, message: tell(len(fitted) + steps + i, message))

        # the artifact
        head = _head(config, data, source, network)
        head["figures"] = _figures(source, network, scores)
        head["result"] = dict(name=config.name, dataset=head["dataset"], snapshot_id=head["snapshot_id"], images=len(source.ids),
                              **head["figures"], seconds=round(time.monotonic() - began, 1))
        _keep(scratch, run_dir, network, head)
    except torch.OutOfMemoryError as problem:
        raise ResourceError("Out of memory while features were computed. Train the diffusion model with a smaller side.") from problem
    except Canceled:
        shutil.rmtree(scratch)
        raise
    shutil.rmtree(scratch)
    tell(total, "done" if config.raw else _verdict(head["figures"]))
    return dict(head["result"])


# ---- stages

def _basis(raw: np.ndarray, source: Source, seed: int, scratch: Path, tell: Callable[[int], None]) -> resvae.Basis:
    path = scratch / "basis.safetensors"
    if not path.exists():
        found = resvae.basis(raw, resvae.latent_channels(source.widths, source.grid), seed, tell)
        save_file(vars(found), path.with_suffix(".half"))
        path.with_suffix(".half").rename(path)
    return resvae.Basis(**load_file(path))


def _compressor(config: BuildRepository, raw: np.ndarray, source: Source, start: resvae.Basis, scratch: Path,
                tell: resvae.Tell) -> resvae.Plain:
    if config.raw:
        plain = resvae.Plain(source.widths)
        plain.start_from(start)
        return plain
    return resvae.fit(raw, source.widths, start, config.steps, config.seed, scratch, tell)


def _encode(source: Source, network: resvae.Plain, start: resvae.Basis, scratch: Path,
            tell: Callable[[int, str], None]) -> np.ndarray:
    """Latents of every picture into the artifact's file. Cosines (n, 2): of what comes back, and by the linear compressor."""
    latents = Rows(scratch / "repository" / LATENTS, scratch / "latents.rows", (network.latent, source.grid, source.grid), "<f2")
    scores = Rows(scratch / "scores.f32", scratch / "scores.rows", (2,), "<f4")
    network = network.to(torch_device())
    for first in range(latents.done, len(source.ids), source.chunk):
        tell(first, f"looking at all pictures, {first + 1} of {len(source.ids)}")
        found = source.raw(source.ids[first:first + source.chunk])
        with torch.no_grad():
            wanted = network.standardised(found.to(network.mean.device))
            z = network.encode(found.to(network.mean.device))[0].half()                          # (n, c, g, g)
        mine, linear = resvae.cosine(resvae.decoded(network, z), wanted), resvae.cosine(start.rebuilt(found), wanted.cpu())
        scores.put(first, torch.stack([mine.cpu(), linear], 1).numpy())
        latents.put(first, z.cpu().numpy())
    network.cpu()
    return scores.read()


# ---- the artifact

def _head(config: BuildRepository, data: Snapshot, source: Source, network: resvae.Plain) -> dict[str, Any]:
    denoiser = source.denoiser.head["key"]
    return dict(key=key(config, denoiser), name=config.name, dataset=data.head["name"], snapshot_id=data.snapshot_id, denoiser=denoiser,
                timesteps=list(source.taps.timesteps), blocks=list(source.taps.blocks), widths=source.widths, raw=config.raw,
                side=source.side, grid=source.grid, latent_channels=network.latent, image_ids=source.ids, extents=source.extents,
                control=config.raw or bool(source.denoiser.head.get("control")))


def _figures(source: Source, network: resvae.Plain, scores: np.ndarray) -> dict[str, Any]:
    """`ratio` is against the stacked maps on the grid, `ratio_native` against the blocks' outputs at their own size; all float16.

    Cosines are means over images and over positions, the mirrored border included.
    """
    kept, stacked = network.latent * source.grid**2, int(np.prod(source.shape))
    rows = {split: [r for r, i in enumerate(source.ids) if i in source.splits[split]] for split in ("train", "val")}

    def mean(split: str, column: int) -> float | None:
        return round(float(scores[rows[split], column].mean()), 4) if rows[split] else None

    return dict(kib_per_image=round(2 * kept / 1024, 2), ratio=round(stacked / kept, 1), ratio_native=round(source.native / kept, 1),
                cosine_train=mean("train", 0), cosine_val=mean("val", 0), cosine_pca_val=mean("val", 1))


def _verdict(figures: dict[str, Any]) -> str:
    """What a person should know of the compression, in a sentence."""
    mine, linear = figures["cosine_val"], figures["cosine_pca_val"]
    if mine is None:
        return "done; no val images to check the compression on"
    if mine <= linear:
        return f"done, but the compression (cosine {mine:.3f} on val) is no better than a plain linear one ({linear:.3f}): try more steps"
    return f"done; compressed features have a cosine of {mine:.3f} with the whole ones on val (a plain linear compression {linear:.3f})"


def _keep(scratch: Path, run_dir: Path, network: resvae.Plain, head: dict[str, Any]) -> None:
    folder = scratch / "repository"
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, folder / NETWORK)
    head["sha256"] = {name: _digest(folder / name) for name in (LATENTS, NETWORK)}
    rundir.keep_artifact(folder, run_dir, "repository", head)


def _digest(path: Path) -> str:
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def whole(key: str) -> Path | None:
    """The newest kept repository of this key whose files are what was written. Whoever reuses by key would else meet a damaged one in every
    attempt; each is passed over with a printed sentence."""
    for folder in rundir.artifacts("repository"):
        if rundir.read_json(folder / "head.json")["key"] != key:
            continue
        if not (why := damage(folder)):
            return folder
        print(f"Of the run {folder.parent.name} nothing is taken over: {why.removesuffix(' Build it again.')}", flush=True)
    return None


def damage(folder: Path) -> str:
    """What keeps a repository from being read, '' where nothing does. Reads all of it, about a second for a GB."""
    try:
        Repository.open(folder)
    except InputError as problem:
        return str(problem)
    return ""


class Repository:
    """Features of a dataset's pictures by image id, read one by one from disk. Any number of processes may open it."""

    def __init__(self, folder: Path, head: dict[str, Any]) -> None:
        self.folder, self.head = folder, head
        self.image_ids: list[str] = head["image_ids"]
        self.widths: list[int] = head["widths"]
        self.taps = [f"t{t}_b{b}" for t in head["timesteps"] for b in head["blocks"]]            # as `widths` counts them
        self.grid, self.latent_channels = int(head["grid"]), int(head["latent_channels"])
        self._row = {image_id: r for r, image_id in enumerate(self.image_ids)}
        self._extents = np.array(head["extents"], np.float32).reshape(-1, 2)
        shape = (len(self.image_ids), self.latent_channels, self.grid, self.grid)
        self._latents = np.memmap(folder / LATENTS, "<f2", "r", shape=shape)
        self._device = "cpu"

    @classmethod
    def open(cls, folder: Path, verify: bool = True) -> Self:
        """A kept repository; its files are what was written. Raises InputError."""
        head = rundir.read_json(folder / "head.json")
        _check(folder, head, verify)
        return cls(folder, head)

    def __reduce__(self) -> Any:
        """To another process the place travels, not the array."""
        return type(self).open, (self.folder, False)

    def rows(self, image_ids: Sequence[str]) -> np.ndarray:
        """Latents, float16 (n, c, g, g), in the order asked for. Raises NotFoundError."""
        return np.asarray(self._latents[self._places(image_ids)])

    def extents(self, image_ids: Sequence[str]) -> np.ndarray:
        """Share (of width, of height) of the square map that the picture covers, the rest is its mirror image: float32 (n, 2)."""
        found: np.ndarray = self._extents[self._places(image_ids)]
        return found

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (n, c, g, g) to standardised features (n, C, g, g), without gradients; bf16 where that is native, else float32."""
        return resvae.decoded(self._network, latents)

    def hidden(self, latents: Tensor) -> Tensor:
        """As `decode`, but for its last layer: (n, fewer than C, g, g). For who reads features through a matrix anyway."""
        return resvae.hidden(self._network, latents)

    @property
    def expansion(self) -> tuple[Tensor, Tensor] | None:
        """That layer, 1×1: weight (C, fewer) and bias (C,), frozen. None in a raw repository, where nothing is left out."""
        return self._network.expansion()

    def to(self, device: str) -> Self:
        """Decode there from now on."""
        self._device = device
        self.__dict__.pop("_network", None)
        return self

    @cached_property
    def _network(self) -> resvae.Plain:
        with torch.random.fork_rng(devices=[]):                    # a resumed training reads its first features where another reads on
            network = resvae.Plain(self.widths) if self.head["raw"] else resvae.ResVAE(self.widths, self.latent_channels)
        network.load_state_dict(load_file(self.folder / NETWORK))
        return network.eval().requires_grad_(False).to(self._device, memory_format=torch.channels_last)

    def _places(self, image_ids: Sequence[str]) -> list[int]:
        try:
            return [self._row[i] for i in image_ids]
        except KeyError as problem:
            raise NotFoundError(f"The feature repository {self.head['name']!r} holds nothing of the picture {problem.args[0]}. "
                                "Build one of this dataset.") from problem


def _check(folder: Path, head: dict[str, Any], verify: bool) -> None:
    """Raises InputError for a file that is missing, cut short or changed; contents are only read with `verify`."""
    name, expected = head["name"], 2 * len(head["image_ids"]) * head["latent_channels"] * head["grid"] ** 2
    for file in (LATENTS, NETWORK):
        if not (folder / file).exists():
            raise InputError(f"The feature repository {name!r} lacks its file {file}. Build it again.")
    size = (folder / LATENTS).stat().st_size
    if size != expected:
        raise InputError(f"The feature repository {name!r} is damaged: {LATENTS} has {size:,} bytes, not {expected:,}. Build it again.")
    for file, digest in head["sha256"].items() if verify else ():
        if _digest(folder / file) != digest:
            raise InputError(f"The feature repository {name!r} is damaged: {file} is not what was written. Build it again.")
