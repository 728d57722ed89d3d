"""The chain whose noise is too strong: against diffusers' own, aligned where shallow, stranger with more variance; and its pool."""

import itertools
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler

from backend import rundir
from backend.config import TrainDiffusion
from backend.data import images, snapshot
from backend.diffusion import ddpm, pictures
from backend.errors import Canceled, ConfigError
from backend.synthesis import perturb as module
from backend.synthesis import pool, sources
from backend.synthesis.perturb import perturb
from tests import plates
from tests.squares import one_core

SMALL = ddpm.Preset((8, 16, 16, 16), 1, crop=16, batch=4, steps=12, ema=0.9)
ABOUT = dict(count=5, imgsz=32, steps=2, depth=200, variance=0.25, start="image", seed=3)


@pytest.fixture(scope="module", autouse=True)
def _small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Networks of 70,000 weights, on one core, in float32, in a data folder of this module's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFSPECT_DATA", str(tmp_path_factory.mktemp("data")))
        patch.setattr(ddpm, "cores", one_core)
        patch.setattr(pool, "cores", one_core)
        patch.setattr(ddpm, "PREVIEW", 2)
        patch.setattr(module, "computes_bf16", lambda: False)
        patch.setitem(ddpm.PRESETS, "tiny", SMALL)
        yield


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> snapshot.Snapshot:
    return snapshot.read(plates.imported(tmp_path_factory.mktemp("good") / "in", "good", boxes="none"))


@pytest.fixture(scope="module")
def folder(good: snapshot.Snapshot) -> Path:
    run = rundir.create("train-diffusion", {})
    ddpm.run(TrainDiffusion(dataset="good", name="d", steps=40, learning_rate=4e-3), run, plates.silent)
    return run / "denoiser"


@pytest.fixture(scope="module")
def denoiser(folder: Path) -> ddpm.Denoiser:
    return ddpm.load(folder)


@pytest.fixture(scope="module")
def x(good: snapshot.Snapshot) -> torch.Tensor:
    """Four plates, (4, 1, 40, 56)."""
    return pictures.to_tensor(np.stack([pool.stretched(opened(p), 56)[:40] for p in sources.good(good)[:4]]))


def opened(picture: snapshot.Picture, side: int = 256) -> np.ndarray:
    return pictures.scaled(images.load(picture.image_id), side, 1)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(denoiser: ddpm.Denoiser, x: torch.Tensor, seed: int = 0, **more: Any) -> torch.Tensor:
    return perturb(denoiser, x, seeded(seed), **{"steps": 6, "depth": 300, "variance": 0.0, "start": "image", **more})


# ---- the chain

def test_timesteps_go_down_evenly() -> None:
    assert module.timesteps(10, 300) == [300, 270, 240, 210, 180, 150, 120, 90, 60, 30]
    assert module.timesteps(3, 999) == [999, 666, 333]
    assert module.timesteps(250, 10) == list(range(10, 0, -1))


@pytest.mark.parametrize("start", ["image", "noise"])
def test_without_surplus_it_is_ancestral_sampling(denoiser: ddpm.Denoiser, x: torch.Tensor, start: str) -> None:
    """diffusers' DDPMScheduler on the same timesteps, with the same noise."""
    chain, generator = module.timesteps(6, 300 if start == "image" else 999), seeded()
    sampler = DDPMScheduler.from_config(denoiser.schedule.config)
    sampler.set_timesteps(timesteps=chain)
    noise = torch.randn(x.shape, generator=generator)
    expected = sampler.add_noise(x, noise, torch.tensor(chain[:1])) if start == "image" else noise
    for t in chain:
        expected = sampler.step(denoiser.unet(expected, t).sample, t, expected, generator=generator).prev_sample
    assert torch.allclose(drawn(denoiser, x, start=start), expected, atol=2e-3)


def test_each_step_has_its_deviation_raised_by_the_root(denoiser: ddpm.Denoiser, x: torch.Tensor) -> None:
    signal = denoiser.schedule.alphas_cumprod.tolist()
    plain, more, most = (module._step(denoiser, x, 200, signal[200], signal[150], v, seeded()) for v in (0.0, 0.25, 3.0))
    noise = torch.randn(x.shape, generator=seeded())
    deviation = ((1 - signal[150]) / (1 - signal[200]) * (1 - signal[200] / signal[150])) ** 0.5
    assert torch.allclose(more - plain, (1.25**0.5 - 1) * deviation * noise, atol=1e-5)
    assert torch.allclose(most - plain, deviation * noise, atol=1e-5)


def test_a_shallow_chain_stays_with_its_image(denoiser: ddpm.Denoiser, x: torch.Tensor) -> None:
    away = [float((drawn(denoiser, x, depth=depth) - x).abs().mean()) for depth in (20, 200, 800)]
    assert away[0] < away[1] < away[2]
    shallow = drawn(denoiser, x, depth=20)
    assert np.corrcoef(shallow.flatten(), x.flatten())[0, 1] > 0.95
    assert float((drawn(denoiser, x, start="noise") - x).abs().mean()) > away[1]


def test_variance_makes_it_stranger(denoiser: ddpm.Denoiser, x: torch.Tensor) -> None:
    """How far it is from the same chain without surplus, averaged over four images."""
    normal = drawn(denoiser, x)
    away = [float((drawn(denoiser, x, variance=v) - normal).abs().mean()) for v in (0.1, 0.25, 1.0, 4.0)]
    assert all(b > 1.2 * a for a, b in itertools.pairwise(away)) and away[0] > 0


def test_company_changes_nothing(denoiser: ddpm.Denoiser, x: torch.Tensor) -> None:
    settings: dict[str, Any] = dict(steps=3, depth=300, variance=0.25)
    together = perturb(denoiser, x, [seeded(i) for i in range(4)], **settings)
    alone = torch.cat([perturb(denoiser, x[i:i + 1], [seeded(i)], **settings) for i in range(4)])
    assert torch.allclose(together, alone, atol=1e-3)
    assert not torch.allclose(together[0], perturb(denoiser, x[:1], [seeded(9)], **settings)[0], atol=0.05)


def test_pure_noise_forgets_the_image(denoiser: ddpm.Denoiser, x: torch.Tensor) -> None:
    assert torch.equal(drawn(denoiser, x, start="noise"), drawn(denoiser, -x, start="noise"))


# ---- the pool

def made(data: snapshot.Snapshot, denoiser_folder: Path, run: Path | None = None, report: Any = plates.silent, **more: Any) -> Path:
    return pool.make(denoiser_folder, data, run or rundir.create("train-anomaly", {}), report, **{**ABOUT, **more})


def test_a_pool_holds_good_pictures_drawn_again(good: snapshot.Snapshot, folder: Path) -> None:
    found = pool.load(made(good, folder, count=17))
    assert found.changes.shape == (17, 32, 32, 1) and found.changes.dtype == np.int16 and len(found) == 17
    parents = {p.image_id: p for p in sources.good(good)}
    assert set(found.parents) == set(parents), "each comes before any comes again"
    assert all(i in found.of(parent) for i, parent in enumerate(found.parents))
    originals = np.stack([pool.stretched(opened(parents[i]), 32) for i in found.parents])
    again = np.stack([found.drawn_again(i, np.repeat(one, 3, 2)) for i, one in enumerate(originals)])
    assert again.shape == (17, 32, 32, 3) and again.dtype == np.uint8
    off, other = (np.abs(again - images.astype(int)).mean() for images in (originals, np.roll(originals, 1, 0)))
    assert 1 < off < other


def test_a_grey_change_leaves_colours_alone() -> None:
    changes = np.array([[[[40]]], [[[-40]]]], np.int16)
    found = pool.Pool(changes, ["a", "b"], {})
    picture = np.array([[[100, 120, 150]]], np.uint8)
    assert found.drawn_again(0, picture).tolist() == [[[140, 160, 190]]] and found.drawn_again(1, picture).tolist() == [[[60, 80, 110]]]
    assert found.drawn_again(0, np.full((1, 1, 3), 250, np.uint8)).tolist() == [[[255] * 3]]


def test_the_denoiser_sees_pictures_at_the_scale_it_has_learned(good: snapshot.Snapshot, folder: Path, tmp_path: Path,
                                                                monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither stretched nor enlarged, and mirrored up to multiples of 8; reduced only where its side asks for it."""
    seen = list[torch.Tensor]()
    monkeypatch.setattr(pool, "perturb", lambda denoiser, x, generators, **_: (seen.append(x), -x)[1])
    chosen = sources.good(good)[:1]
    found = pool.load(made(good, folder, seed=21, count=1, good=chosen, imgsz=96))
    before = opened(chosen[0])
    assert torch.equal(seen[0], pictures.to_tensor(pictures.padded(before, 48, 64))[None])
    assert np.abs(found.changes[0] - (255 - 2 * pool.stretched(before, 96).astype(int))).max() <= 1, "the margin is gone"
    shutil.copytree(folder, tmp_path / "denoiser")
    rundir.write_json(tmp_path / "denoiser" / "head.json", rundir.read_json(folder / "head.json") | dict(side=30, key="smaller"))
    made(good, tmp_path / "denoiser", seed=21, count=1, good=chosen, imgsz=96)
    assert torch.equal(seen[1], pictures.to_tensor(pictures.padded(opened(chosen[0], 30), 24, 32))[None])


def test_pictures_of_one_size_share_a_forward(good: snapshot.Snapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    some = [replace(p, width=w, height=40) for p, w in zip(sources.good(good), (60, 64, 64, 57, 90, 90, 20), strict=False)]
    monkeypatch.setattr(pool, "FORWARD", 3 * 40 * 64)
    assert list(pool._batches(some, 256, 0)) == [range(3), range(3, 4), range(4, 6), range(6, 7)]
    assert list(pool._batches(some, 256, 5)) == [range(5, 6), range(6, 7)]


def test_a_killed_pool_goes_on_to_the_same(good: snapshot.Snapshot, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "FORWARD", 2 * 48 * 64)                     # a plate of 44 by 60, padded
    whole = pool.load(made(good, folder, seed=7)).changes.copy()
    monkeypatch.setattr(rundir, "artifacts", lambda kind: iter(()))
    run, steps = rundir.create("train-anomaly", {}), list[int]()

    def killed(step: int, **_: Any) -> None:
        steps.append(step)
        if step == 2 and steps.count(2) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made(good, folder, run, killed, seed=7)
    again = pool.load(made(good, folder, run, killed, seed=7))
    assert steps == [0, 2, 2, 4] and np.abs(again.changes - whole).max() <= 1
    assert not (run / "perturbing").exists()


def test_a_pool_of_the_same_inputs_is_used_again(good: snapshot.Snapshot, folder: Path) -> None:
    first = made(good, folder, seed=11)
    assert made(good, folder, seed=11) == first
    assert made(good, folder, seed=11, variance=0.5) != first
    assert made(good, folder, seed=11, good=sources.good(good)[:3]) != first


def test_a_canceled_pool_leaves_nothing(good: snapshot.Snapshot, folder: Path) -> None:
    run = rundir.create("train-anomaly", {})

    def cancel(**_: Any) -> None:
        raise Canceled

    with pytest.raises(Canceled):
        made(good, folder, run, cancel, seed=12)
    assert not (run / "perturbing").exists() and not (run / "perturbed").exists()


def test_no_good_picture_is_said(good: snapshot.Snapshot, folder: Path) -> None:
    with pytest.raises(ConfigError, match="no good train images"):
        made(good, folder, good=[])
