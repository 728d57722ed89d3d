"""The feature repository: what is kept, that it is the features, that nothing is fitted on val or test, that it survives being killed."""

import hashlib
import math
import multiprocessing
import pickle
import shutil
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from backend import rundir
from backend.config import BuildRepository, Import, TrainDiffusion, TrainDistilled
from backend.data import importer, snapshot
from backend.diffusion import ddpm, features
from backend.errors import Canceled, ConfigError, InputError, NotFoundError
from backend.teacher import repository, resvae, source
from backend.teacher.repository import Repository

SIZES = {"train": 24, "val": 4, "test": 4}
PRESET = ddpm.Preset((16, 32, 32), 1, 32, 4, 4, 0.9)


class Stop(Exception):
    """The machine went down."""


def texture(seed: int) -> np.ndarray:
    """Stripes of some direction and width with blots, 64 × 64, every fourth 64 × 40."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:40 if seed % 4 == 3 else 64, :64]
    angle, waves = rng.uniform(0, np.pi), rng.uniform(3, 12)
    pixels = 120 + 50 * np.sin((x * np.cos(angle) + y * np.sin(angle)) / 64 * 2 * np.pi * waves) + rng.normal(0, 8, x.shape)
    for cx, cy, r in rng.integers(4, 60, (3, 3)):
        pixels[(x - cx) ** 2 + (y - cy) ** 2 < (r / 4) ** 2] -= 70
    return pixels.clip(0, 255).astype(np.uint8)


def dataset(folder: Path, name: str, changed: str = "") -> snapshot.Snapshot:
    """Import drawn textures with lists; the pixels of the split `changed` are others than usual."""
    (folder / "images").mkdir(parents=True)
    (folder / "lists").mkdir()
    first = 0
    for split, n in SIZES.items():
        names = [f"{split}-{i}" for i in range(n)]
        for i, stem in enumerate(names):
            Image.fromarray(texture(first + i + (1000 if split == changed else 0))).save(folder / "images" / f"{stem}.png")
        (folder / "lists" / f"{split}.txt").write_text("\n".join([*names, *(["twin"] if split == "test" else [])]))
        first += n
    shutil.copy(folder / "images" / "train-0.png", folder / "images" / "twin.png")      # content of train on test's list
    config = Import(path=str(folder / "images"), name=name, splits=str(folder / "lists"))
    run_dir = rundir.create("import", config.to_json())
    importer.run(config, run_dir, quiet)
    rundir.set_state(run_dir, "completed")
    return snapshot.read(run_dir)


def quiet(**_: Any) -> None:
    """A report that nobody reads."""


def denoiser_of(name: str) -> Path:
    config = TrainDiffusion(dataset=name, name=f"{name}-ddpm")
    run_dir = rundir.create("train-diffusion", config.to_json())
    ddpm.run(config, run_dir, quiet)
    return run_dir / "denoiser"


def config(**more: Any) -> BuildRepository:
    return BuildRepository(**{"dataset": "one", "name": "features", "steps": 60, **more})


def build(report: Callable[..., None] = quiet, **more: Any) -> tuple[dict[str, Any], Path]:
    wanted = config(**more)
    run_dir = rundir.create("build-repository", wanted.to_json())
    return repository.run(wanted, run_dir, report), run_dir / "repository"


@pytest.fixture(scope="module", autouse=True)
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two datasets that differ in test's pixels only, a small denoiser of each."""
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("plant")
        threads = torch.get_num_threads()
        patch.setenv("DIFFSPECT_DATA", str(root / "data"))
        patch.setitem(ddpm.PRESETS, "tiny", PRESET)
        patch.setattr(ddpm, "preview", lambda *_: None)           # samples of a network of four steps tell nothing
        for module in (ddpm, repository):
            patch.setattr(module, "cores", lambda: 1)
        patch.setattr(source, "PIXELS", 5 * 64 * 64)              # several chunks, the last one not full
        for name, changed in (("one", ""), ("other", "test")):
            dataset(root / name, name, changed)
            denoiser_of(name)
        yield root
        torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def built(plant: Path) -> tuple[dict[str, Any], Path]:
    return build()


@pytest.fixture(scope="module")
def kept(built: tuple[dict[str, Any], Path]) -> Repository:
    return Repository.open(built[1])


def data() -> snapshot.Snapshot:
    return snapshot.read(rundir.find_snapshot("one"))


def looked(image_id: str) -> torch.Tensor:
    """Raw features (1, C, g, g) of a picture, without any of the repository's code."""
    denoiser = ddpm.load(rundir.find_artifact("denoiser", "one-ddpm"))
    path = next(p.path for p in data().pictures if p.image_id == image_id)
    with Image.open(path) as image:
        square, _ = features.prepared(denoiser, image, 64)
    return features.extract(denoiser, square[None], features.parse("20", "all", denoiser), 8)


def split_ids(split: str) -> list[str]:
    return sorted({p.image_id for p in data().by_split(split)})


# ---- what is kept

def test_every_picture_is_kept_small(built: tuple[dict[str, Any], Path], kept: Repository) -> None:
    result, folder = built
    assert kept.image_ids == sorted({p.image_id for p in data().pictures}) and len(kept.image_ids) == sum(SIZES.values())
    assert (kept.widths, kept.grid, kept.latent_channels) == ([32, 32, 16], 8, 32)
    assert result["images"] == 32 and result["kib_per_image"] == 4.0 <= 32 and result["ratio"] == 2.5
    assert (folder / "latents.f16").stat().st_size == 32 * 4 * 1024
    assert rundir.find_artifact("repository", "features", snapshot_id=data().snapshot_id) == folder
    assert not (folder.parent / "building-repository").exists()


def test_a_kept_repository_is_not_built_again(plant: Path) -> None:
    """The power went between the artifact and the run's result. Made of other settings, it does not count."""
    first, folder = build(steps=10)
    (folder.parent / "building-repository").mkdir()
    told: list[dict[str, Any]] = []
    assert repository.run(config(steps=10), folder.parent, lambda **t: told.append(t)) == first and not told
    assert not (folder.parent / "building-repository").exists()
    repository.run(config(steps=10, seed=1), folder.parent, quiet)
    head = Repository.open(folder).head
    assert head["key"] == repository.key(config(steps=10, seed=1), head["denoiser"])


@pytest.mark.parametrize(("grid", "channels"), [(32, 16), (28, 20), (25, 26), (8, 32)])
def test_a_latent_takes_at_most_32_kib(grid: int, channels: int) -> None:
    assert resvae.latent_channels([128, 128, 64, 32], grid) == channels
    assert 2 * channels * grid**2 <= 32 * 1024


def test_compression_is_better_than_a_linear_one(built: tuple[dict[str, Any], Path]) -> None:
    result, _ = built
    assert 0 < result["cosine_pca_val"] < result["cosine_val"] < 1 and 0.5 < result["cosine_train"] < 1


def test_ratio_against_the_blocks_own_size(built: tuple[dict[str, Any], Path]) -> None:
    denoiser, values = ddpm.load(rundir.find_artifact("denoiser", "one-ddpm")), []
    for block in denoiser.unet.up_blocks:
        block.register_forward_hook(lambda module, inputs, output: values.append(output[0].numel()))
    denoiser.unet(torch.zeros(1, 1, 64, 64), 20)
    assert built[0]["ratio_native"] == round(sum(values) / (32 * 8 * 8), 1)


# ---- reading

def test_reads_by_key_in_any_order(kept: Repository) -> None:
    whole = np.fromfile(kept.folder / "latents.f16", np.float16).reshape(32, 32, 8, 8)
    order = [31, 0, 7, 7, 12]
    found = kept.rows([kept.image_ids[r] for r in order])
    assert found.dtype == np.float16 and (found == whole[order]).all() and len({r.tobytes() for r in found}) == 4


def test_extents_tell_what_is_picture(kept: Repository) -> None:
    size = {p.image_id: (p.width, p.height) for p in data().pictures}
    expected = [(size[i][0] / 64, size[i][1] / 64) for i in kept.image_ids]
    assert np.allclose(kept.extents(kept.image_ids), expected) and {h for _, h in expected} == {1, 0.625}


def test_an_unknown_picture_is_named(kept: Repository) -> None:
    with pytest.raises(NotFoundError, match="'features' holds nothing of the picture abc. Build one"):
        kept.rows([kept.image_ids[0], "abc"])


def test_decoded_rows_are_the_pictures_features(kept: Repository, built: tuple[dict[str, Any], Path]) -> None:
    """The figure on val, worked out anew from pixels, and no other picture's features are as near."""
    ids, stats = split_ids("val"), load_file(kept.folder / "resvae.safetensors")
    raw = torch.cat([looked(i) for i in ids])
    wanted = (raw - stats["mean"][:, None, None]) / stats["std"][:, None, None]
    decoded = kept.decode(torch.from_numpy(kept.rows(ids)))
    assert decoded.shape == (4, 80, 8, 8) and not decoded.requires_grad and decoded.dtype in (torch.float32, torch.bfloat16)
    own = resvae.cosine(decoded, wanted)
    assert own.mean().item() == pytest.approx(built[0]["cosine_val"], abs=2e-3)
    assert (own > resvae.cosine(decoded, wanted.roll(1, 0))).all()


def test_the_last_layer_can_be_left_to_the_reader(kept: Repository) -> None:
    latents = torch.from_numpy(kept.rows(kept.image_ids[:3]))
    hidden, (weight, bias) = kept.hidden(latents).float(), kept.expansion
    assert hidden.shape == (3, 32 + 96, 8, 8) and not hidden.requires_grad and not weight.requires_grad
    whole = torch.einsum("nchw,dc->ndhw", hidden, weight) + bias[:, None, None]
    assert (whole - kept.decode(latents).float()).abs().max() < 0.02 * whole.abs().max()       # bf16 may have rounded one of them


def test_several_processes_may_open_it(kept: Repository) -> None:
    """A child that forked, and one the object was sent to: it travels as a place, not as an array."""
    sent = pickle.dumps(kept)
    assert len(sent) < 1000 and (pickle.loads(sent).rows(kept.image_ids[:3]) == kept.rows(kept.image_ids[:3])).all()
    with multiprocessing.get_context("fork").Pool(2) as pool:
        asked = [(kept.folder, i) for i in kept.image_ids[:6]]
        assert pool.starmap(digest, asked) == [hashlib.sha256(kept.rows([i]).tobytes()).hexdigest() for _, i in asked]


def digest(folder: Path, image_id: str) -> str:
    return hashlib.sha256(Repository.open(folder).rows([image_id]).tobytes()).hexdigest()


def test_reads_are_fast_and_hold_no_more_than_was_asked_for(tmp_path: Path, kept: Repository) -> None:
    """10,000 pictures of 32 KiB, a file of 330 MB with holes."""
    n = 10_000
    head = {**kept.head, "image_ids": [f"{i:064x}" for i in range(n)], "extents": [[1, 1]] * n, "grid": 32, "latent_channels": 16}
    shutil.copy(kept.folder / "resvae.safetensors", tmp_path)
    with open(tmp_path / "latents.f16", "wb") as f:
        f.truncate(n * 32 * 1024)
    rundir.write_json(tmp_path / "head.json", head)
    large, rng = Repository.open(tmp_path, verify=False), np.random.default_rng(0)

    def read() -> float:
        ids, began = [large.image_ids[i] for i in rng.integers(n, size=64)], time.perf_counter()
        assert large.rows(ids).nbytes == 64 * 32 * 1024
        return time.perf_counter() - began

    tracemalloc.start()
    try:
        fastest = min(read() for _ in range(20))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert 64 / fastest > 2000 and peak < 3 * 64 * 32 * 1024


# ---- honest

def test_nothing_is_fitted_on_test(built: tuple[dict[str, Any], Path]) -> None:
    """Other pixels in test: the same compressor and the same latents but test's. The denoiser sees train alone, so it is equal too."""
    _, folder = build(dataset="other", name="else")
    assert (folder / "resvae.safetensors").read_bytes() == (built[1] / "resvae.safetensors").read_bytes()
    one, other = Repository.open(built[1]), Repository.open(folder)
    common = sorted(set(one.image_ids) & set(other.image_ids))
    assert len(common) == 32 - SIZES["test"] and set(split_ids("val")) < set(common)
    # bf16 rounds differently in chunks of other sizes
    assert np.abs(one.rows(common).astype(np.float32) - other.rows(common)).mean() < 1e-2 < np.abs(one.rows(common)).mean()


def test_a_train_picture_that_is_also_in_test_teaches_nothing(plant: Path) -> None:
    seen = source.Source(ddpm.load(rundir.find_artifact("denoiser", "one-ddpm")), features.Taps((20,), (0,)), data())
    twin = next(p.image_id for p in data().pictures if p.file_name == "twin.png")
    assert twin in split_ids("train") and twin in split_ids("test")
    assert seen.to_fit(0) == sorted(set(split_ids("train")) - {twin})


def test_no_more_is_gathered_than_scratch_may_hold(plant: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = source.Source(ddpm.load(rundir.find_artifact("denoiser", "one-ddpm")), features.Taps((20,), (0,)), data())
    monkeypatch.setattr(source, "SCRATCH", 5 * 2 * math.prod(seen.shape))
    assert len(seen.to_fit(0)) == 5 and seen.to_fit(0) == seen.to_fit(0) != seen.to_fit(1)


def test_a_denoiser_of_another_dataset_is_refused(plant: Path) -> None:
    foreign = rundir.find_artifact("denoiser", "other-ddpm")
    with pytest.raises(ConfigError, match="'other-ddpm' was trained on another dataset"):
        repository.make(config(), data(), foreign, plant, quiet)
    with pytest.raises(NotFoundError, match="No diffusion model called 'other-ddpm' has been trained on the dataset 'one'"):
        build(denoiser="other-ddpm")


def test_the_key_is_what_the_repository_follows_from() -> None:
    keys = [repository.key(config(**more), k) for more, k in (
        ({}, "a"), ({}, "b"), ({"steps": 61}, "a"), ({"seed": 1}, "a"), ({"timesteps": "20 50"}, "a"), ({"blocks": "0"}, "a"),
        ({"raw": True}, "a"))]
    assert len(set(keys)) == len(keys)
    assert repository.key(config(name="x", dataset="y", denoiser="z"), "a") == keys[0]


# ---- killed, canceled, damaged

def test_a_killed_build_goes_on_to_the_same_bytes(built: tuple[dict[str, Any], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed in every stage: looking at train (23 pictures), fitting (60 steps), encoding (32 pictures)."""
    monkeypatch.setattr(resvae, "SAVE_S", 0)
    wanted = config()
    run_dir, seen = rundir.create("build-repository", wanted.to_json()), list[int]()

    def killed_at(limit: int) -> Callable[..., None]:
        def report(*, step: int, **_: Any) -> None:
            seen.append(step)
            if step >= limit:
                raise Stop
        return report

    for limit in (10, 23 + 7, 23 + 41, 23 + 60 + 15):
        seen.clear()
        with pytest.raises(Stop):
            repository.run(wanted, run_dir, killed_at(limit))
        assert not (run_dir / "repository").exists()
    seen.clear()
    repository.run(wanted, run_dir, killed_at(10**6))
    assert seen[0] == 23 + 60 + 15                       # nothing of what was done is done again
    for file in ("latents.f16", "resvae.safetensors"):
        assert (run_dir / "repository" / file).read_bytes() == (built[1] / file).read_bytes(), file
    assert rundir.read_json(run_dir / "repository" / "head.json")["figures"] == rundir.read_json(built[1] / "head.json")["figures"]


def test_scratch_of_other_settings_is_not_taken_up(tmp_path: Path) -> None:
    """A dataset imported anew between two attempts has another snapshot behind its name, so another key."""
    scratch = rundir.bound(tmp_path / "building", "a")
    (scratch / "raw.rows").write_text("23")
    assert (rundir.bound(tmp_path / "building", "a") / "raw.rows").exists()
    assert not (rundir.bound(tmp_path / "building", "b") / "raw.rows").exists()


def test_a_canceled_build_leaves_nothing(plant: Path) -> None:
    def cancel(*, step: int, **_: Any) -> None:
        if step > 30:
            raise Canceled

    before = set(rundir.artifacts("repository"))
    with pytest.raises(Canceled):
        build(cancel)
    newest = next(rundir.find("build-repository"))
    assert set(rundir.artifacts("repository")) == before and not (newest / "building-repository").exists()


@pytest.mark.parametrize(("file", "damage", "said"), [
    ("latents.f16", lambda b: b[:5000] + bytes([b[5000] ^ 1]) + b[5001:], "latents.f16 is not what was written"),
    ("resvae.safetensors", lambda b: b[:-1] + bytes([b[-1] ^ 1]), "resvae.safetensors is not what was written"),
    ("latents.f16", lambda b: b[:-1], "has 131,071 bytes, not 131,072"),
])
def test_damage_is_seen_on_opening(tmp_path: Path, kept: Repository, file: str, damage: Callable[[bytes], bytes], said: str) -> None:
    folder = shutil.copytree(kept.folder, tmp_path / "repository")
    (folder / file).write_bytes(damage((folder / file).read_bytes()))
    with pytest.raises(InputError, match=said):
        Repository.open(folder)
    (folder / file).unlink()
    with pytest.raises(InputError, match=f"lacks its file {file}"):
        Repository.open(folder, verify=False)


# ---- the control without compression

def test_raw_keeps_the_features_as_they_are(plant: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "PIXELS", 64 * 64)                # one by one: bf16 rounds differently in chunks of other sizes
    result, folder = build(raw=True, name="raw")
    kept, ids = Repository.open(folder), split_ids("val")
    assert kept.latent_channels == 80 and result["ratio"] == 1 and result["cosine_val"] == pytest.approx(1, abs=1e-4)
    stats = load_file(folder / "resvae.safetensors")
    rows = torch.from_numpy(kept.rows(ids))
    assert (kept.decode(rows) == rows.float()).all() and (kept.hidden(rows) == rows.float()).all() and kept.expansion is None
    wanted = (torch.cat([looked(i) for i in ids]) - stats["mean"][:, None, None]) / stats["std"][:, None, None]
    assert (rows == wanted.half()).all()
    train = torch.from_numpy(kept.rows(sorted(set(split_ids("train")) - set(split_ids("test"))))).float()
    assert train.mean((0, 2, 3)).abs().max() < 1e-2 and (train.std((0, 2, 3)) - 1).abs().max() < 1e-2


def test_a_control_is_taken_by_name_or_where_there_is_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFSPECT_DATA", str(tmp_path / "data"))

    def kept(name: str, **head: Any) -> Path:
        run_dir = rundir.create("build-repository", {}, state="completed")
        (scratch := tmp_path / name).mkdir()
        return rundir.keep_artifact(scratch, run_dir, "repository", dict(key=name, name=name, snapshot_id="s", **head))

    random = kept("of random weights", control=True)
    assert rundir.find_artifact("repository", snapshot_id="s") == random
    ours = kept("ours")
    raw = kept("raw", control=True)
    assert rundir.find_artifact("repository", snapshot_id="s") == ours, "not the newest, which was made to do worse"
    assert rundir.find_artifact("repository", "raw") == raw

    run_dir = rundir.create("train-fused", {}, state="running")
    assert rundir.taken(run_dir, "repository", lambda: ours) == ours == rundir.taken(run_dir, "repository", lambda: raw)
    shutil.rmtree(ours.parent)
    assert rundir.taken(run_dir, "repository", lambda: raw) == raw, "what is gone cannot be built on"


def test_the_literatures_timesteps_have_a_name(plant: Path) -> None:
    by_name = [made(timesteps=" literature").timesteps for made in (config, TrainDistilled)]
    assert by_name == [features.PRESETS["literature"][0]] * 2
    told, folder = build(timesteps="literature", blocks="2")
    assert rundir.read_json(folder / "head.json")["timesteps"] == [50, 150, 250] and len(Repository.open(folder).taps) == 3
