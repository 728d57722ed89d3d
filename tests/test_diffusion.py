"""A denoiser, from train images to features: training, resuming, sampling, and what its decoder says of an image."""

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from backend import rundir
from backend.config import TrainDiffusion
from backend.data import images, snapshot
from backend.data.normals import divided
from backend.diffusion import ddpm, features, pictures, sampling
from backend.errors import Canceled, ConfigError, NotFoundError
from backend.jobs.report import Reporter
from tests import plates
from tests.squares import one_core

SMALL = ddpm.Preset((8, 16, 16, 16), 1, crop=16, batch=4, steps=12, ema=0.9)


@pytest.fixture(scope="module", autouse=True)
def _small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Networks of 70,000 weights, on one core, in a data folder of this module's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFSPECT_DATA", str(tmp_path_factory.mktemp("data")))
        patch.setattr(ddpm, "cores", one_core)
        patch.setattr(ddpm, "PREVIEW", 2)
        patch.setitem(ddpm.PRESETS, "tiny", SMALL)
        yield


@pytest.fixture(scope="module")
def grey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plates.imported(tmp_path_factory.mktemp("grey") / "in", "grey")


@pytest.fixture(scope="module")
def colour(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plates.imported(tmp_path_factory.mktemp("colour") / "in", "colour", colour=True)


@pytest.fixture(scope="module")
def made(grey: Path) -> SimpleNamespace:
    """A training long enough to learn something of plates, and the state it ended in."""
    trainings = list[ddpm.Training]()

    class Watched(ddpm.Training):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            trainings.append(self)

    run = rundir.create("train-diffusion", {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ddpm, "Training", Watched)
        result = ddpm.run(config(steps=60, learning_rate=3e-3), run, Reporter(run))
    return SimpleNamespace(run=run, result=result, training=trainings[0], denoiser=ddpm.load(run / "denoiser"),
                           curve=[json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()])


def config(**more: Any) -> TrainDiffusion:
    return TrainDiffusion(**{"dataset": "grey", "name": "d", **more})


def trained(run: Path, report: Any = plates.silent, **more: Any) -> ddpm.Denoiser:
    ddpm.run(config(**more), run, report)
    return ddpm.load(run / "denoiser")


def random_denoiser(channels: int = 1, schedule: str = "cosine", side: int = 64) -> ddpm.Denoiser:
    head = dict(widths=list(SMALL.widths), layers=1, crop=16, channels=channels, schedule=schedule, side=side)
    torch.manual_seed(0)
    return ddpm.Denoiser(ddpm.network(head).eval().requires_grad_(False), head)


def same(a: ddpm.Denoiser, b: ddpm.Denoiser) -> bool:
    first, second = a.unet.state_dict(), b.unet.state_dict()
    return first.keys() == second.keys() and all(torch.equal(v, second[k]) for k, v in first.items())


# ---- training

def test_loss_falls_clearly(made: SimpleNamespace) -> None:
    """Noise of variance 1 is the target, so that knowing nothing costs 1."""
    losses = [point["denoising_loss"] for point in made.curve]
    assert [point["step"] for point in made.curve] == [20, 40, 60]
    assert losses[0] > 0.7 and losses[-1] < 0.6 * losses[0]
    assert made.result["loss"] == pytest.approx(sum(losses) / 3, abs=2e-5)


def test_the_run_is_left_tidy_and_says_what_was_made(made: SimpleNamespace) -> None:
    assert {p.name for p in (made.run / "denoiser").iterdir()} == {"denoiser.safetensors", "head.json"}
    assert not (made.run / "training-denoiser").exists()
    head, result = made.denoiser.head, made.result
    assert (head["name"], head["dataset"], head["channels"], head["steps"], head["images"]) == ("d", "grey", 1, 60, 12)
    assert head["key"] == ddpm.key(config(steps=60, learning_rate=3e-3), head["snapshot_id"])
    assert result["parameters"] == sum(p.numel() for p in made.denoiser.unet.parameters()) and result["crops_per_second"] > 0
    with Image.open(made.run / "samples.png") as samples:
        assert samples.size == (6 * 16, 2 * 16) and samples.mode == "L"


def test_a_kept_denoiser_is_not_trained_again(grey: Path) -> None:
    """The power went between the artifact and the run's result. Made of other settings, it does not count."""
    run, told = rundir.create("train-diffusion", {}), list[dict[str, Any]]()
    first = ddpm.run(config(steps=2), run, plates.silent)
    (run / "training-denoiser").mkdir()
    assert ddpm.run(config(steps=2), run, lambda **t: told.append(t)) == first and not told
    assert not (run / "training-denoiser").exists()
    assert ddpm.run(config(steps=3), run, plates.silent)["steps"] == ddpm.load(run / "denoiser").head["steps"] == 3


def test_reloaded_it_answers_as_at_the_end_of_training(made: SimpleNamespace) -> None:
    noised, timestep = torch.randn(2, 1, 16, 16), torch.tensor([10, 600])
    with torch.no_grad():
        then, now = (d.unet(noised, timestep).sample for d in (made.training.denoiser(), made.denoiser))
    assert torch.allclose(then, now, atol=1e-5)
    raw = made.training.unet.state_dict()
    assert not any(torch.equal(raw[k], v) for k, v in made.denoiser.unet.state_dict().items() if "conv" in k)     # the average is kept


def test_average_follows_as_it_should(grey: Path, tmp_path: Path) -> None:
    known = pictures.Pictures(np.zeros(40 * 40, np.uint8), np.array([0]), np.array([[40, 40]]), 1)      # type: ignore[arg-type]
    training = ddpm.Training(config(), dict(widths=list(SMALL.widths), layers=1, crop=16, channels=1, schedule="cosine"), tmp_path)
    start = [p.detach().clone() for p in training.unet.parameters()]
    training.advance(known)
    for average, old, new in zip(training.average.parameters(), start, training.unet.parameters(), strict=True):
        assert torch.allclose(average, 0.1 * old + 0.9 * new, atol=1e-6)              # (1 + 0) / (10 + 0) of the old in step 0


def test_only_train_images_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With all other pictures gone from the disk, training is the same."""
    monkeypatch.setenv("DIFFSPECT_DATA", str(tmp_path / "data"))
    data = snapshot.read(plates.imported(tmp_path / "in", "grey", seed=5))
    whole = trained(rundir.create("train-diffusion", {}), steps=2)
    for picture in data.pictures:
        if picture.split != "train":
            picture.path.unlink()
    assert same(whole, trained(rundir.create("train-diffusion", {}), steps=2))
    gone = data.by_split("train")[3]
    gone.path.unlink()
    with pytest.raises(NotFoundError, match=gone.file_name):
        trained(rundir.create("train-diffusion", {}), steps=2)


@pytest.mark.parametrize(("dataset", "channels", "schedule"), [("grey", 1, "linear"), ("colour", 3, "cosine"), ("colour", 3, "linear")])
def test_grey_and_colour_linear_and_cosine(grey: Path, colour: Path, dataset: str, channels: int, schedule: str) -> None:
    run = rundir.create("train-diffusion", {})
    denoiser = trained(run, dataset=dataset, schedule=schedule, steps=2)
    assert denoiser.channels == channels and denoiser.schedule.config.beta_schedule == ddpm.noise_schedule(schedule).config.beta_schedule
    found = sampling.sample(denoiser, 2, 16, 24, torch.Generator().manual_seed(0), steps=3)
    assert found.shape == (2, channels, 16, 24) and found.isfinite().all()
    with Image.open(run / "samples.png") as samples:
        assert samples.mode == {1: "L", 3: "RGB"}[channels]


def test_colour_pictures_may_be_learnt_in_grey(colour: Path) -> None:
    assert trained(rundir.create("train-diffusion", {}), dataset="colour", channels="1", steps=1).channels == 1


def test_noise_schedules_are_those_of_the_papers() -> None:
    cosine, linear = (ddpm.noise_schedule(name).alphas_cumprod.double() for name in ("cosine", "linear"))
    share = torch.cos((torch.arange(1001) / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2                # Nichol & Dhariwal 2021, eq. 17
    assert torch.allclose(cosine[:990], (share[1:] / share[0])[:990].double(), rtol=1e-3)
    assert torch.allclose(linear, torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000).double(), 0), rtol=1e-3)


def test_no_steps_leave_random_weights(grey: Path) -> None:
    denoiser = trained(rundir.create("train-diffusion", {}), steps=0, seed=3)
    torch.manual_seed(3)
    assert denoiser.head["loss"] is None and same(denoiser, ddpm.Denoiser(ddpm.network(denoiser.head), denoiser.head))


def test_seeds_matter_and_repeat(grey: Path) -> None:
    first, again, other = (trained(rundir.create("train-diffusion", {}), steps=2, seed=s) for s in (0, 0, 1))
    assert same(first, again) and not same(first, other)


def test_a_long_training_shows_itself_now_and_then(grey: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    def report(*, message: str = "", **more: Any) -> None:
        said.append(message)

    quiet = trained(rundir.create("train-diffusion", {}), report, steps=9)
    assert said.count("drawing samples") == 4, "at 2, 4, 6 and 8"
    monkeypatch.setattr(ddpm, "PREVIEW_S", -1.0)
    said.clear()
    shown = trained(rundir.create("train-diffusion", {}), report, steps=9)
    assert said.count("drawing samples") == 9 and same(quiet, shown), "and learns the same"


def test_cancel_leaves_nothing(grey: Path) -> None:
    run = rundir.create("train-diffusion", {})

    def report(*, step: int, **more: Any) -> None:
        if step == 2:
            raise Canceled

    with pytest.raises(Canceled):
        trained(run, report)
    assert not (run / "training-denoiser").exists() and not (run / "denoiser").exists()


def test_a_loss_that_is_no_number_is_said(grey: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture cannot bring one about; a learning rate can, but not quickly: here the starting weights do."""
    stock = ddpm.network

    def broken(head: dict[str, Any]) -> Any:
        unet = stock(head)
        unet.conv_in.weight.data.fill_(math.nan)
        return unet

    monkeypatch.setattr(ddpm, "network", broken)
    with pytest.raises(ConfigError, match="came apart in step 1"):
        trained(rundir.create("train-diffusion", {}))


def test_what_cannot_be_trained_is_said(tmp_path: Path, grey: Path) -> None:
    run = rundir.create("train-diffusion", {})
    with pytest.raises(ConfigError, match="a name"):
        ddpm.run(TrainDiffusion(dataset="grey"), run, plates.silent)
    data = snapshot.read(grey)
    rest = snapshot.Snapshot(data.head, [p for p in data.pictures if p.split != "train"], data.images, data.labels)
    with pytest.raises(ConfigError, match="'grey' has no train images"):
        ddpm.make(config(), rest, run, plates.silent)


def test_found_by_name_run_or_key_but_only_of_the_same_snapshot(made: SimpleNamespace, grey: Path, colour: Path) -> None:
    data = snapshot.read(grey)
    assert {ddpm.find(made.run.name, data), ddpm.find(made.denoiser.head["key"], data)} == {made.run / "denoiser"}
    assert ddpm.find("", data) == ddpm.find("d", data)
    with pytest.raises(NotFoundError, match=f"No diffusion model called '{made.run.name}' has been trained on the dataset 'colour'"):
        ddpm.find(made.run.name, snapshot.read(colour))


# ---- pictures

def test_crops_are_parts_of_pictures_flipped_or_not(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    drawn = [rng.integers(0, 256, (20, 30, 3)).astype(np.uint8), rng.integers(0, 256, (12, 9, 3)).astype(np.uint8)]
    known = pictures.decoded([Path("0"), Path("1")], lambda p: Image.fromarray(drawn[int(p.name)]), tmp_path / "u8", 64, 3, lambda i: None)
    assert len(known) == 2 and all(np.array_equal(known[i], d) for i, d in enumerate(drawn))
    places = {(side[::v, ::h]).tobytes() for d in drawn for mirrored in [pictures.padded(d, 10, 10)] for v in (1, -1) for h in (1, -1)
              for y in range(mirrored.shape[0] - 9) for x in range(mirrored.shape[1] - 9) for side in [mirrored[y:y + 10, x:x + 10]]}
    crops = pictures.to_pixels(known.crops(rng, 40, 10))
    assert crops.shape == (40, 10, 10, 3) and {c.tobytes() for c in crops} <= places
    assert len({c.tobytes() for c in crops}) > 20


def test_scaling_never_enlarges_and_keeps_the_shape() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 200), np.uint8))
    assert pictures.scaled(image, 100, 1).shape == (*pictures.scaled_size(200, 90, 100), 1) == (45, 100, 1)
    assert np.array_equal(pictures.scaled(image, 300, 1)[..., 0], np.asarray(image))
    assert pictures.scaled_size(4000, 3, 256) == (1, 256)


def test_good_pictures_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that an anomaly model learns from: with all others gone from the disk it is the same, and its key differs from plain ones."""
    monkeypatch.setenv("DIFFSPECT_DATA", str(tmp_path / "data"))
    whole = snapshot.read(plates.imported(tmp_path / "in", "grey", boxes="none", seed=6))
    marked = {p.image_id for p in whole.by_split("train")[:2]}
    data = replace(whole, pictures=[replace(p, mask="some") if p.image_id in marked else p for p in whole.pictures
                                    if p.split != "val"])
    known, held = divided(data)
    assert known and held and len(known) + len(held) == plates.COUNTS["train"] - 2
    for picture in data.pictures:
        if picture.image_id not in {p.image_id for p in known}:
            picture.path.unlink()
    run = rundir.create("train-diffusion", {})
    ddpm.make(config(steps=1, good=True), data, run, plates.silent)
    head = ddpm.load(run / "denoiser").head
    assert (head["good"], head["images"]) == (True, len(known))
    with pytest.raises(NotFoundError):
        ddpm.make(config(steps=1), data, rundir.create("train-diffusion", {}), plates.silent)


def test_keys_of_denoisers_before_good_pictures_were_asked_for_stand() -> None:
    settings = dict(preset="tiny", steps=12, seed=0, side=256, channels="auto", schedule="cosine", batch=4, learning_rate=3e-4,
                    precision="auto")
    assert ddpm.key(config(), "s") == rundir.key_of(kind="denoiser", format=2, snapshot_id="s", **settings)
    assert ddpm.key(config(good=True), "s") == rundir.key_of(kind="denoiser", format=2, snapshot_id="s", good=True, **settings)


def test_a_denoiser_of_good_pictures_comes_first_where_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFSPECT_DATA", str(tmp_path / "data"))
    data = snapshot.read(plates.imported(tmp_path / "in", "grey", boxes="none"))
    older, newer = (rundir.create("train-diffusion", {}) for _ in range(2))
    for run, good in ((older, True), (newer, False)):
        trained(run, steps=0, good=good)
    assert [ddpm.find("d", data, good=good) for good in (True, False)] == [older / "denoiser", newer / "denoiser"]
    assert ddpm.find(newer.name, data, good=True) == newer / "denoiser"


def test_grey_is_told_from_colour_though_jpeg_disturbs_it() -> None:
    pixels = np.random.default_rng(0).integers(80, 130, (50, 50, 3)).astype(np.int16)
    grey = np.repeat(pixels[..., :1], 3, -1) + np.random.default_rng(1).integers(-1, 2, pixels.shape)
    assert pictures.is_grey(Image.fromarray(grey.astype(np.uint8))) and not pictures.is_grey(Image.fromarray(pixels.astype(np.uint8)))


# ---- samples

@pytest.mark.parametrize("sampler", sampling.SAMPLERS)
@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_samplers_draw_from_noise(sampler: str, schedule: str) -> None:
    denoiser = random_denoiser(schedule=schedule)
    first, again, other = (sampling.sample(denoiser, 2, 24, 16, torch.Generator().manual_seed(s), 4, sampler) for s in (0, 0, 1))
    assert first.shape == (2, 1, 24, 16) and first.dtype == torch.float32 and first.isfinite().all()
    assert torch.equal(first, again) and not torch.equal(first, other) and not torch.equal(first[0], first[1])


@pytest.mark.parametrize("sampler", sampling.SAMPLERS)
def test_samplers_reach_what_the_denoiser_knows(sampler: str) -> None:
    """A denoiser that knows one image, exactly: every sampler must arrive at it."""
    denoiser = random_denoiser()
    truth = torch.linspace(-0.8, 0.8, 64).view(1, 1, 8, 8)

    class Knowing(torch.nn.Module):
        device = torch.device("cpu")

        def forward(self, x: torch.Tensor, timestep: torch.Tensor) -> SimpleNamespace:
            share = denoiser.schedule.alphas_cumprod[int(timestep)]
            return SimpleNamespace(sample=(x - share.sqrt() * truth) / (1 - share).sqrt())

    knowing = ddpm.Denoiser(Knowing(), denoiser.head)                                 # type: ignore[arg-type]
    found = sampling.sample(knowing, 3, 8, 8, torch.Generator().manual_seed(0), 20, sampler)
    assert torch.allclose(found, truth.expand_as(found), atol=0.05)


def test_chains_start_where_only_noise_is_left() -> None:
    denoiser = random_denoiser()
    starts = {sampler: int(sampling.scheduler(denoiser, sampler, 10).timesteps[0]) for sampler in sampling.SAMPLERS}
    assert starts["ancestral"] == starts["ddim"] == 999
    assert 990 <= starts["dpm-solver"] < 999 and denoiser.schedule.alphas_cumprod[starts["dpm-solver"]] < 1e-4


def test_sides_are_multiples_of_eight() -> None:
    with pytest.raises(AssertionError, match="multiples of 8"):
        sampling.sample(random_denoiser(), 1, 20, 16, torch.Generator(), 2)


# ---- features

def views(n: int, S: int = 40, channels: int = 1) -> torch.Tensor:
    return torch.rand(n, channels, S, S, generator=torch.Generator().manual_seed(1)) * 2 - 1


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal but for bf16, whose rounding follows how a machine splits the work."""
    return bool((a - b).abs().max() < 0.05 * b.std())


def test_taps_are_read_as_a_person_writes_them() -> None:
    denoiser = random_denoiser()
    taps = features.parse(*features.PRESETS["default"], denoiser)
    assert taps == features.Taps((20,), (0, 1, 2, 3)) and features.widths(denoiser, taps) == [16, 16, 16, 8]
    assert features.parse(" 150  50", "3 1", denoiser).pairs == [(150, 3), (150, 1), (50, 3), (50, 1)]


@pytest.mark.parametrize(("timesteps", "blocks", "said"), [
    ("", "all", "Timesteps are whole numbers"), ("20, 50", "all", "Timesteps are whole numbers"), ("-1", "all", "whole numbers"),
    ("1.5", "all", "whole numbers"), ("²", "all", "whole numbers"), ("1000", "all", "Timesteps go from 0 to 999, 1000 is too large"),
    ("20 20", "all", "Timesteps are named twice"), ("20", "4", "Blocks go from 0 to 3, 4 is too large"),
    ("20", "1 1", "Blocks are named twice"), ("20", "", "blocks may also be: all"), ("all", "all", "Timesteps are whole numbers")])
def test_other_taps_are_refused(timesteps: str, blocks: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        features.parse(timesteps, blocks, random_denoiser())


@pytest.mark.parametrize("channels", [1, 3])
def test_literature_preset_stacks_taps_in_order(channels: int) -> None:
    denoiser, given = random_denoiser(channels), views(2, 40, channels)
    taps = features.parse(*features.PRESETS["literature"], denoiser)
    widths = features.widths(denoiser, taps)
    assert taps.timesteps == (50, 150, 250) and widths == [16, 16, 16, 8] * 3
    found = features.extract(denoiser, given, taps, features.grid_of(40))
    assert found.shape == (2, sum(widths), 5, 5) and found.dtype == torch.float32 and found.isfinite().all()
    for tap, part in zip(taps.pairs, found.split(widths, 1), strict=True):
        assert close(part, features.extract(denoiser, given, features.Taps((tap[0],), (tap[1],)), 5))
    assert not close(found[:, :56], found[:, 56:112])


def test_features_are_the_decoders_outputs_under_the_shared_noise() -> None:
    """Worked out once more by hand, in float32 and without hooks of ours."""
    denoiser, given, heard = random_denoiser(), views(2), list[torch.Tensor]()
    share = denoiser.schedule.alphas_cumprod[150]
    noised = share.sqrt() * given + (1 - share).sqrt() * features.shared_noise(1, 40)
    hook = denoiser.unet.up_blocks[2].register_forward_hook(lambda m, i, output: heard.append(output))
    denoiser.unet(noised, 150)
    hook.remove()
    assert heard[0].shape == (2, 16, 40, 40)
    by_hand = heard[0].reshape(2, 16, 5, 8, 5, 8).mean((3, 5))
    assert close(features.extract(denoiser, given, features.Taps((150,), (2,)), 5), by_hand)


def test_one_image_has_the_same_features_in_any_company() -> None:
    denoiser, given, taps = random_denoiser(), views(3), features.Taps((20, 250), (0, 1, 2, 3))
    twice = features.extract(denoiser, torch.stack([given[0], given[1], given[0]]), taps, 5)
    assert close(twice[0], twice[2]) and not close(twice[0], twice[1])
    assert close(features.extract(denoiser, given[:1], taps, 5)[0], twice[0])
    torch.manual_seed(7)                                                              # the noise hangs on no dice of the process
    assert close(features.extract(denoiser, given, taps, 5)[0], twice[0])


def test_the_network_is_left_as_it_was() -> None:
    denoiser = random_denoiser()
    features.extract(denoiser, views(1), features.Taps((20,), (0, 1, 2, 3)), 5)
    with pytest.raises(RuntimeError):                                                 # three channels into a grey network
        features.extract(denoiser, views(1, channels=3), features.Taps((20,), (0, 1, 2, 3)), 5)
    assert not any(block._forward_hooks for block in denoiser.unet.up_blocks)


def test_one_square_holds_all_images() -> None:
    assert features.square([(44, 60), (20, 61)]) == 64 and features.square([(200, 200)]) == 200 and features.square([(1, 3)]) == 8
    assert [features.grid_of(S) for S in (8, 200, 224, 256, 1024)] == [1, 25, 28, 32, 32]


def test_an_image_of_any_size_is_scaled_and_mirrored_to_the_square() -> None:
    denoiser = random_denoiser(side=64)
    pixels = np.random.default_rng(0).integers(0, 256, (43, 61), np.uint8)
    given, extent = features.prepared(denoiser, Image.fromarray(pixels), 64)
    assert given.shape == (1, 64, 64) and extent == (61 / 64, 43 / 64)
    assert np.array_equal(pictures.to_pixels(given)[:43, :61, 0], pixels)
    assert torch.equal(given[0, 43:], given[0, 22:43].flip(0)) and torch.equal(given[0, :, 61:], given[0, :, 58:61].flip(1))
    large, extent = features.prepared(denoiser, Image.fromarray(pixels).resize((128, 32)).convert("RGB"), 64)
    assert large.shape == (1, 64, 64) and extent == (1.0, 0.25) and -1 <= large.min() < large.max() <= 1
    assert features.extract(denoiser, given[None], features.Taps((20,), (0, 3)), 8).shape == (1, 24, 8, 8)
    with pytest.raises(AssertionError, match="larger than the square"):
        features.prepared(denoiser, Image.fromarray(pixels), 56)


def test_maps_come_to_one_grid() -> None:
    fine = torch.arange(64.0).view(1, 1, 8, 8)
    assert torch.equal(features.on_grid(fine, 4), fine.view(1, 1, 4, 2, 4, 2).mean((3, 5)))
    assert torch.equal(features.on_grid(fine.bfloat16(), 8), fine)
    coarse = features.on_grid(torch.tensor([[[[0.0, 4.0], [0.0, 4.0]]]]), 4)
    assert torch.equal(coarse, torch.tensor([0.0, 1.0, 3.0, 4.0]).expand(1, 1, 4, 4))


def test_a_trained_denoiser_on_a_picture_of_its_dataset(made: SimpleNamespace, grey: Path) -> None:
    """The way the repository goes: 60 × 44 px, no multiple of 8."""
    data = snapshot.read(grey)
    S = features.square(pictures.scaled_size(p.width, p.height, made.denoiser.head["side"]) for p in data.pictures)
    picture = data.by_split("val")[0]
    given, extent = features.prepared(made.denoiser, images.decode(picture.path.read_bytes(), picture.file_name), S)
    taps = features.parse("20", "all", made.denoiser)
    assert S == 64 and extent == (60 / 64, 44 / 64)
    found = features.extract(made.denoiser, given[None], taps, features.grid_of(S))
    assert found.shape == (1, 56, 8, 8) and found.isfinite().all() and found.std() > 0.01


# ---- killed and resumed

class Killed(Exception):
    """Stands for what ends a process in the middle."""


@pytest.fixture(scope="module")
def undisturbed(grey: Path) -> Iterator[tuple[Path, ddpm.Denoiser]]:
    """A whole run; while it is used, every step leaves a checkpoint and every fourth a point of the curve."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ddpm, "CURVE", 4)
        patch.setattr(ddpm, "SAVE_S", 0)
        run = rundir.create("train-diffusion", {})
        yield run, trained(run, Reporter(run))


def curve(run: Path) -> set[tuple[int, float]]:
    return {(p["step"], p["denoising_loss"]) for p in map(json.loads, (run / "metrics.jsonl").read_text().splitlines())}


@pytest.mark.parametrize("at", [1, 7, 10])
def test_killed_and_resumed_reaches_the_same_losses_and_weights(undisturbed: tuple[Path, ddpm.Denoiser], at: int) -> None:
    run, steps = rundir.create("train-diffusion", {}), list[int]()
    first, second = Reporter(run), Reporter(run)

    def killing(*, step: int, **more: Any) -> None:
        first(step=step, **more)
        if step == at:
            raise Killed

    def watching(*, step: int, **more: Any) -> None:
        second(step=step, **more)
        steps.extend([step] * (step > 0))

    with pytest.raises(Killed):
        trained(run, killing)
    torch.manual_seed(99)                                                             # another process has other dice
    resumed = trained(run, watching)
    assert steps[0] == at                                                             # from the checkpoint of the step before
    assert same(undisturbed[1], resumed) and undisturbed[1].head["loss"] == resumed.head["loss"]
    assert len(curve(run)) == 3 and curve(run) == curve(undisturbed[0])
    assert (run / "samples.png").read_bytes() == (undisturbed[0] / "samples.png").read_bytes()


def test_nothing_is_learned_from_what_a_generator_made() -> None:
    made, held, real = (snapshot.Picture(name, f"{name}.png", 8, 8, "0" * 16, split=split, origin=origin)
                        for name, split, origin in (("a", "train", "synthetic"), ("b", "test", "real"), ("c", "train", "real")))
    assert snapshot.Snapshot(dict(classes=[]), [made, held, real], None, None).learnable() == [real]      # type: ignore[arg-type]
