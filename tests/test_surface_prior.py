"""A surface prior of our own: drawn surfaces, tokenizer, autoencoder, diffusion network, and the checkpoint they become."""

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from backend import rundir
from backend.config import TrainPrior
from backend.data import snapshot
from backend.data.marks import Box
from backend.errors import Canceled, ConfigError, NotFoundError
from backend.jobs.report import Reporter
from backend.synthesis.prior import autoencoder, bank, denoiser, drawn, flaws, learner, stable, supply, surface, tokenizer
from backend.synthesis.prior.supply import Label, said
from tests import plates
from tests.squares import one_core

SMALL = surface.Preset(autoencoder.Coder((8, 8, 16), crop=16, batch=2, steps=8),
                       denoiser.Size((16, 16, 16, 32), 1, text_width=16, text_layers=1, batch=2, steps=8, ema=0.9))


@pytest.fixture(scope="module", autouse=True)
def _small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Networks of 150,000 weights, crops of 32 px, on one core, in a data folder of this module's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFSPECT_DATA", str(tmp_path_factory.mktemp("data")))
        patch.setattr(surface, "cores", one_core)
        patch.setattr(surface, "CROP", 32)
        patch.setattr(surface, "SHOWN", 2)
        patch.setattr(surface, "STEPS", 2)
        patch.setattr(autoencoder, "MEASURED", 32)
        patch.setitem(surface.PRESETS, "tiny", SMALL)
        yield


@pytest.fixture(scope="module")
def plate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plates.imported(tmp_path_factory.mktemp("plates") / "in", "bright_plates")


@pytest.fixture(scope="module")
def made(plate: Path) -> SimpleNamespace:
    run = rundir.create("train-prior", {})
    result = surface.run(config(), run, Reporter(run))
    curve = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return SimpleNamespace(run=run, result=result, folder=run / "prior", head=rundir.read_json(run / "prior" / "head.json"), curve=curve)


def config(**more: Any) -> TrainPrior:
    return TrainPrior(**{"name": "p", "preset": "tiny", "datasets": "bright_plates", "drawn": 10, "precision": "f32", **more})


def test_a_training_that_does_not_say_what_it_minimises_is_none(tmp_path: Path) -> None:
    """It shows when it is made, not hours later in its first step."""
    class Silent(learner.Learner):
        pass

    weight = torch.nn.Linear(2, 1)
    with pytest.raises(TypeError, match="loss"):
        Silent({"one": weight}, list(weight.parameters()), tmp_path / "checkpoint.pt", steps=1, rate=0.1, seed=0)     # type: ignore[abstract]


# ---- drawn surfaces

def test_the_same_seed_draws_the_same_and_a_longer_list_begins_alike() -> None:
    some, more = list(drawn.surfaces(3, 9)), list(drawn.surfaces(3, 17))
    assert all(np.array_equal(a.pixels, b.pixels) and a.boxes == b.boxes for a, b in zip(some, more, strict=False))
    assert not np.array_equal(some[0].pixels, next(drawn.surfaces(4, 1)).pixels)
    assert [s.name for s in more].count(drawn.DEMO_NAME) == 2


def test_no_plate_of_the_demo_s_datasets_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever seeds both have: its val and test pictures would be known to the prior."""
    rendered, render = list[str](), drawn.demo.render
    monkeypatch.setattr(drawn.demo, "render", lambda image_id: rendered.append(image_id) or render(image_id))
    for seed in (0, 1):
        list(drawn.surfaces(seed, 24))
    assert len(set(rendered)) == 6
    assert not set(rendered) & {i for seed in (0, 1, 2) for i in drawn.demo.training_set(900, seed)}


@pytest.mark.parametrize("flaw", flaws.FLAWS)
def test_a_defect_changes_its_box_and_little_else(flaw: str) -> None:
    """Against the same dice without a defect: most of what differs lies in the box."""
    shares = []
    for seed in range(3):
        gain = flaws.FLAWS[flaw](np.random.default_rng(seed), drawn.SIDE)
        box = flaws.bounds(gain)
        assert box is not None, "a defect is drawn where it can be seen"
        inside = np.zeros(gain.shape, bool)
        inside[box[1]:box[3], box[0]:box[2]] = True
        change = np.abs(gain - 1)
        assert gain.dtype == np.float32 and change.max() > 0.1
        assert change[~inside].max(initial=0) <= flaws.SEEN * change.max() + 1e-6
        shares.append(change[inside].sum() / change.sum())
    assert min(shares) > 0.8


def test_kinds_of_surface_differ() -> None:
    """Brightness of the spectrum near and far from its middle tells kinds apart, and a grey camera sees no colour."""
    def look(name: str) -> tuple[float, float]:
        grey = drawn.draw(np.random.default_rng(0), name, "").pixels.astype(float).mean(2)
        steps = [np.abs(np.diff(grey, axis=axis)).mean() / grey.std() for axis in (0, 1)]
        return round(steps[0], 3), round(steps[1], 3)

    assert len({look(name) for name in drawn.KINDS}) == len(drawn.KINDS)
    grey = [bool((np.ptp(s.pixels, axis=2) == 0).all()) for s in islice(drawn.surfaces(0, 40), 40)]
    assert 10 < sum(grey) < 35


# ---- what is said of a crop

@pytest.mark.parametrize(("left", "top", "side", "text"), [
    (0, 0, 100, "old steel surface with scratches"),         # most of a small box
    (0, 0, 20, None),                                        # a corner of it: neither with nor without
    (60, 60, 30, "old steel surface without defect"),
    (210, 0, 40, "old steel surface with patches"),          # a small part of a large box, which fills the crop
])
def test_a_crop_is_called_what_it_shows(left: int, top: int, side: int, text: str | None) -> None:
    label = Label("old_steel", (Box("scratches", 15, 15, 35, 35), Box("patches", 200, 0, 300, 200)), known=True)
    assert said(label, left, top, side) == text


def test_nothing_is_said_of_a_picture_that_nobody_looked_at() -> None:
    assert said(Label("old", (), known=False), 0, 0, 50) is None
    assert said(Label("old", (), known=True), 0, 0, 50) == "old surface without defect"


def test_flips_take_the_boxes_with_them() -> None:
    pixels = np.zeros((40, 60), np.uint8)
    pixels[5:15, 10:30] = 1
    for down, across in bank.FLIPS:
        box = bank._flipped(Label("x", (Box("a", 10, 5, 30, 15),), True), 40, 60, down, across).boxes[0]
        flipped = pixels[::down, ::across]
        assert flipped[int(box.y1):int(box.y2), int(box.x1):int(box.x2)].sum() == flipped.sum() == 200


# ---- tokenizer

def test_any_text_becomes_tokens_and_known_words_are_one(tmp_path: Path) -> None:
    made = tokenizer.train(drawn.captions(), tmp_path)
    assert [t.removesuffix("</w>") for t in made.tokenize("rolled steel surface with pitted holes")] \
        == "rolled steel surface with pitted holes".split()
    for text in ("Straße 12 µm", "错误 🙂", "a<b>c_d"):
        ids = made(text).input_ids
        assert ids[0] == made.bos_token_id and ids[-1] == made.eos_token_id and made.unk_token_id not in ids[1:-1]
    assert len(made(["x", "surface with scratches"], padding="max_length").input_ids[1]) == 77
    vocabulary, merges = json.loads((tmp_path / "vocab.json").read_text()), (tmp_path / "merges.txt").read_text().splitlines()[1:]
    assert sorted(vocabulary.values()) == list(range(len(made))) and len(merges) == len(set(merges)) > 400


# ---- autoencoder

@torch.no_grad()
def test_normalising_changes_the_latents_and_not_the_pictures(tmp_path: Path) -> None:
    known = supply.gather([], 4, 0, tmp_path / "p.u8", lambda message: None)
    torch.manual_seed(1)
    vae = autoencoder.network((8, 8, 16), 32).eval()
    rng = np.random.default_rng(5)
    images = torch.cat([known.crops(rng, 16, 32) for _ in range(2)])                # those that are measured
    before = vae.encode(images).latent_dist
    pixels = vae.decode(before.mean).sample
    autoencoder.normalise(vae, known, 32, np.random.default_rng(5))
    after = vae.encode(images).latent_dist
    assert after.mean.mean((0, 2, 3)).abs().max() < 1e-3 and (after.mean.std((0, 2, 3)) - 1).abs().max() < 1e-3
    deviation = before.mean.std((0, 2, 3))[None, :, None, None]
    torch.testing.assert_close(after.std * deviation, before.std, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(vae.decode(after.mean).sample, pixels, atol=1e-4, rtol=1e-3)


def test_the_autoencoder_learns_to_see(tmp_path: Path) -> None:
    known = supply.gather([], 6, 0, tmp_path / "p.u8", lambda message: None)
    coder = autoencoder.Coder((8, 8, 16), crop=16, batch=4, steps=40)
    training = autoencoder.Training(coder, 32, known, tmp_path / "a.pt", 5e-3, 0, "cpu", False)
    _, before = autoencoder.pairs(training.vae, known, np.random.default_rng(0), 6, 32)
    learner.fit(training, "learning", 0, 40, plates.silent, lambda: None)
    _, after = autoencoder.pairs(training.vae.eval(), known, np.random.default_rng(0), 6, 32)
    assert after > before + 6, "dB"


# ---- the recipe

def test_the_time_that_it_takes_is_said_with_the_arithmetic() -> None:
    """The same wherever a time is given."""
    preset = TrainPrior.__dataclass_fields__["preset"].metadata["help"]
    (line,) = [s for s in (Path(__file__).parents[1] / "Makefile").read_text().splitlines() if s.startswith("demo-prior:")]
    assert "two hours on a CPU, less where it has bf16 of its own" in preset
    assert "two hours on two cores, less with native bf16" in line
    assert "50 and 55 minutes on two cores" in (surface.Preset.__doc__ or "")


def test_the_artifact_says_what_it_learned_from(made: SimpleNamespace, plate: Path) -> None:
    data = snapshot.read(plate)
    assert made.head["learned"] == sorted(p.image_id for p in data.learnable())
    assert made.head["datasets"] == [dict(name="bright_plates", snapshot_id=data.snapshot_id, images=len(data.learnable()))]
    assert not {p.image_id for p in data.pictures if p.split != "train"} & set(made.head["learned"])
    assert (made.head["native"], made.head["side"], made.head["crop"]) == (True, 256, 32)
    assert {"bright plates surface with bright", "surface with bright", "surface without defect"} <= set(made.head["captions"])
    assert made.result == made.head["result"] and made.result["learned_from"] == "12 train images of bright_plates and 10 drawn surfaces."
    assert not (made.run / "training-prior").exists()


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")      # diffusers 0.42 hands numpy a tensor in the old way
def test_any_stable_diffusion_program_opens_it(made: SimpleNamespace) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(made.folder, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    found = pipeline("surface with bright", num_inference_steps=2, guidance_scale=2.0, output_type="np",
                     generator=torch.Generator().manual_seed(0)).images
    assert found.shape == (1, 32, 32, 3) and np.isfinite(found).all() and found.std() > 0


def test_our_own_loader_finds_it(made: SimpleNamespace) -> None:
    prior = stable.open_prior(stable.find("p"))
    assert prior.native and prior.head["name"] == "p" and prior.schedule.config.prediction_type == "v_prediction"
    assert stable.factor(prior) == 4 and stable.multiple(prior) == 32
    states = stable.encode(prior, ["surface with bright", ""])
    assert states.shape == (2, 77, 16) and not torch.equal(states[0], states[1])


def test_curves_and_preview_are_there(made: SimpleNamespace) -> None:
    names = {name for row in made.curve for name in row}
    assert {"autoencoder_loss", "denoising_loss"} <= names
    with Image.open(made.run / "samples.png") as shown:
        assert shown.size == (2 * 32, 2 * 32 + 32 + 36), "two rows of pairs, one of samples with their captions"


def test_a_kept_prior_is_not_trained_again(made: SimpleNamespace) -> None:
    def never(**progress: Any) -> None:
        raise AssertionError("it trains")

    assert surface.run(config(), made.run, never) == made.result
    other = surface.key(config(seed=1), [])
    assert other not in (surface.key(config(), []), made.head["key"])


class Killed(BaseException):
    """What a power cut is to a recipe: nothing that it could catch."""


@pytest.mark.parametrize("at", [5, 12], ids=["autoencoder", "diffusion"])
def test_a_killed_run_comes_to_the_same(made: SimpleNamespace, at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed in either training, taken up again: the same weights to the last bit."""
    run, seen = rundir.create("train-prior", {}), list[int]()

    def report(step: int = 0, total: int = 1, **more: Any) -> None:
        seen.append(step)
        if step == at:
            raise Killed

    with pytest.raises(Killed), monkeypatch.context() as patch:
        patch.setattr(learner, "SAVE_S", 0.0)
        surface.run(config(), run, report)
    assert (run / "training-prior").exists() and not (run / "prior").exists()
    first = len(seen)
    surface.run(config(), run, lambda step=0, **more: seen.append(step))
    trained = [s for s in seen[first:] if s]
    assert min(trained) >= at - 1 or at > 8, "it goes on from its checkpoint"
    for part in ("vae", "unet"):
        files = [f / "prior" / part / "diffusion_pytorch_model.safetensors" for f in (run, made.run)]
        assert files[0].read_bytes() == files[1].read_bytes(), part
    assert rundir.read_json(run / "prior" / "head.json")["result"]["loss"] == made.result["loss"]


def test_a_canceled_run_leaves_nothing(made: SimpleNamespace) -> None:
    run = rundir.create("train-prior", {})

    def report(step: int = 0, **more: Any) -> None:
        if step == 3:
            raise Canceled

    with pytest.raises(Canceled):
        surface.run(config(), run, report)
    assert not (run / "training-prior").exists() and not (run / "prior").exists()


@pytest.mark.parametrize(("more", "error"), [
    (dict(name=""), ConfigError), (dict(datasets="", drawn=0), ConfigError), (dict(datasets="nobody"), NotFoundError)])
def test_what_cannot_be_is_said(made: SimpleNamespace, more: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        surface.run(config(**more), rundir.create("train-prior", {}), plates.silent)


def test_it_needs_no_dataset(made: SimpleNamespace) -> None:
    run = rundir.create("train-prior", {})
    result = surface.run(config(name="drawn", datasets="", drawn=3, steps=1, autoencoder_steps=1), run, plates.silent)
    assert result["learned_from"] == "3 drawn surfaces; no photograph." and rundir.read_json(run / "prior" / "head.json")["learned"] == []


def test_the_captions_steer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two captions, two kinds of latents: after a short training the network tells them apart by the words alone."""
    monkeypatch.setattr(bank, "GENERAL", 0.0)
    monkeypatch.setattr(bank, "SILENT", 0.0)
    words, rng = tokenizer.train(["bright surface", "dark surface"], tmp_path / "t"), np.random.default_rng(0)
    numbers = np.concatenate([rng.normal(level, 0.9, 1024) for _ in range(32) for level in (0.5, -0.5)]).astype(np.float16)
    labels = [Label(name, (), known=True) for name in ("bright", "dark")]
    known = bank.Bank(numbers, [bank.Entry(1024 * i, 16, 16, labels[i % 2]) for i in range(64)], [range(64)])
    size = replace(SMALL.size, widths=(16, 16, 32, 48), text_width=32, batch=8, steps=400)
    training = denoiser.Training(size, 16, words, known, tmp_path / "d.pt", 3e-3, 0, "cpu", False)
    for _ in range(75):
        training.advance()
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0)).expand(2, -1, -1, -1)
    with torch.no_grad():
        states = training.states(["bright surface without defect", "dark surface without defect"])
        velocity = training.averages[0](noise, torch.full((2,), 998), states).sample
    bright, dark = (-velocity).mean((1, 2, 3)).tolist()
    assert bright > dark + 0.3, "at pure noise the velocity is minus the picture"
