"""The prior: checkpoints of every kind behind one class, and what is drawn with them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
from safetensors.torch import load_file, save_file

from backend import rundir
from backend.data import images as kept_images
from backend.data.snapshot import Picture, Snapshot
from backend.errors import Canceled, ConfigError, InputError, NotFoundError
from backend.records import SCHEMAS
from backend.synthesis.prior import checkpoint, draw, levels, stable, tokens, words
from backend.synthesis.prior.fit import fit
from backend.synthesis.prior.stable import Prior
from tests.tiny_prior import tiny_stable, tiny_surface

REAL = Path(__file__).resolve().parents[2] / "shared" / "data"
KINDS = {"1": dict(cross=32, prediction="epsilon"), "2": dict(cross=48, prediction="v_prediction")}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("checkpoints")
    return {kind: tiny_stable(root / kind, **settings) for kind, settings in KINDS.items()}


@pytest.fixture(scope="module")
def priors(folders: dict[str, Path]) -> dict[str, Prior]:
    torch.set_num_threads(1)
    return {kind: stable.load(folder) for kind, folder in folders.items()}


@pytest.fixture(scope="module")
def prior(priors: dict[str, Prior]) -> Prior:
    return priors["1"]


@pytest.fixture(scope="module")
def native(prior: Prior) -> Prior:
    """The same networks, as a surface prior of our own."""
    return Prior(**{**vars(prior), "head": dict(native=True, side=256)})


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(s) for s in seeds]


def surfaces(n: int, height: int, width: int, colour: bool = False) -> list[np.ndarray]:
    """Uneven pictures, uint8 (h, w, 3)."""
    rng = np.random.default_rng(0)
    found = [rng.normal(120, 20, (height, width, 3 if colour else 1)) + np.linspace(-40, 40, width)[None, :, None] for _ in range(n)]
    return [np.repeat(f, 1 if colour else 3, 2).clip(0, 255).astype(np.uint8) for f in found]


def as_tensor(pictures: list[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1


# ---- words

def test_words_are_plain() -> None:
    assert words.caption("NEU-DET", "rolled-in_scale") == "neu det surface with rolled in scale"
    assert words.caption("steel plate", None) == words.caption("steel plate", "") == "steel plate surface without defect"
    assert words.caption("  Tile__[3]! ", "MT_Crack") == "tile 3 surface with mt crack"
    assert words.spoken("one two three four five six seven") == "one two three four five six"
    assert words.caption("??", "crack") == "surface with crack"


def test_what_stands_in_brackets_is_left_out_of_prompts() -> None:
    """Of a dataset's name. Classes may differ in nothing else."""
    parts = ("rolled steel", "rolled steel (10, seed 0)", "Rolled_steel(by class) (2)")
    assert {words.caption(name, "edge (left)") for name in parts} == {"rolled steel surface with edge left"}
    assert {str(tokens.placeholders(name, ["crack"], 1)) for name in parts} == {"{'crack': ['<rolled-steel/crack-0>']}"}
    assert words.called("  NEU-DET ") == "  NEU-DET ", "whose keys stay as they are"


def test_learned_words_come_before_plain_ones(prior: Prior) -> None:
    taught = Prior(**{**vars(prior), "classes_known": {"crack": "<neu/crack-0> <neu/crack-1>"}})
    assert stable.prompt_for(taught, "neu", "crack") == "<neu/crack-0> <neu/crack-1>"
    assert stable.prompt_for(taught, "neu", "patches") == "neu surface with patches"
    assert stable.prompt_for(taught, "neu", None) == "neu surface without defect"


# ---- checkpoints

@pytest.mark.parametrize("kind", KINDS)
def test_it_draws_what_the_vendors_pipeline_draws(folders: dict[str, Path], priors: dict[str, Prior], kind: str) -> None:
    """Words, guidance, epsilon or velocity, solver and scaling of latents: the same image to the last digits."""
    pipe = StableDiffusionPipeline.from_pretrained(folders[kind], local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config, timestep_spacing="trailing")
    assert sum(p.numel() for n in (pipe.vae, pipe.unet, pipe.text_encoder) for p in n.parameters()) < 300_000
    prompts = ["steel surface with scratches", "tile"]
    noise = torch.stack([torch.randn(4, 16, 24, generator=g) for g in generators(3, 4)])
    with pytest.warns(DeprecationWarning):              # diffusers' own: see draw.solver
        theirs = pipe(prompts, height=64, width=96, num_inference_steps=4, guidance_scale=3.0, latents=noise, output_type="pt").images
    ours = draw.draw(priors[kind], prompts, generators(3, 4), size=(64, 96), guidance=3.0, steps=4)
    assert ours.shape == (2, 3, 64, 96) and ours.std() > 0.01
    torch.testing.assert_close((ours + 1) / 2, theirs, atol=2e-5, rtol=0)


def test_kinds_differ(priors: dict[str, Prior]) -> None:
    one, two = priors["1"], priors["2"]
    assert one.schedule.config.prediction_type == "epsilon" and two.schedule.config.prediction_type == "v_prediction"
    assert stable.encode(one, ["a", "b c"]).shape == (2, 77, 32) and stable.encode(two, ["a"]).shape == (1, 77, 48)
    assert not torch.equal(*stable.encode(one, ["crack", "patches"]))
    assert one.base_hash != two.base_hash and len(one.base_hash) == 16
    assert not one.native and one.name == "1" and stable.multiple(one) == 8


def test_latents_are_the_posteriors_mean_scaled(prior: Prior) -> None:
    images = as_tensor(surfaces(2, 32, 48))
    found = stable.latents(prior, images)
    with torch.no_grad():
        torch.testing.assert_close(found, prior.vae.encode(images).latent_dist.mode() * 6.0)
        torch.testing.assert_close(stable.pictures(prior, found), prior.vae.decode(found / 6.0).sample.clamp(-1, 1))
    assert found.shape == (2, 4, 8, 12)


def copied(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to))


def test_the_names_of_published_files_and_half_precision_files(folders: dict[str, Path], prior: Prior, tmp_path: Path) -> None:
    """Published text encoders have their tensors under text_model, with position ids; some checkpoints come in fp16 only."""
    folder = copied(folders["1"], tmp_path / "published")
    state = load_file(folder / "text_encoder" / "model.safetensors")
    renamed = {f"text_model.{k}": v for k, v in state.items()} | {"text_model.embeddings.position_ids": torch.arange(77)[None]}
    save_file(renamed, folder / "text_encoder" / "model.safetensors", metadata={"format": "pt"})
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({k: v.half() for k, v in load_file(file).items()}, file.with_name("diffusion_pytorch_model.fp16.safetensors"))
    file.unlink()
    vae = folder / "vae" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(vae), vae.with_suffix(".bin"))
    vae.unlink()
    found = stable.load(folder)
    torch.testing.assert_close(stable.encode(found, ["crack"]), stable.encode(prior, ["crack"]))
    assert torch.equal(found.unet.conv_in.weight, prior.unet.conv_in.weight.half().float())
    assert torch.equal(found.vae.quant_conv.weight, prior.vae.quant_conv.weight)
    assert found.base_hash != prior.base_hash


def test_what_is_no_checkpoint_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no model_index.json"):
        stable.load(tmp_path)
    part = copied(folders["1"], tmp_path / "part")
    (part / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    shutil.rmtree(part / "scheduler")
    with pytest.raises(InputError, match="not whole: vae, scheduler missing"):
        stable.load(part)
    index = json.loads((folders["1"] / "model_index.json").read_text())
    large = copied(folders["1"], tmp_path / "large")
    (large / "model_index.json").write_text(json.dumps({**index, "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"]}))
    with pytest.raises(InputError, match="no Stable Diffusion 1.x or 2.x"):
        stable.load(large)


def test_damaged_weights_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    """A network filled up with random numbers would draw, and nobody would know."""
    folder = copied(folders["1"], tmp_path / "damaged")
    file = folder / "text_encoder" / "model.safetensors"
    state = load_file(file)
    state.pop("final_layer_norm.weight")
    save_file(state, file, metadata={"format": "pt"})
    with pytest.raises(InputError, match="text_encoder are not whole: 1 tensors"):
        stable.load(folder)
    file.write_bytes(b"no weights")
    with pytest.raises(InputError, match="text_encoder of the checkpoint .* cannot be read"):
        stable.load(folder)


def test_a_checkpoint_for_inpainting_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = copied(folders["1"], tmp_path / "inpainting")
    file, config = folder / "unet" / "diffusion_pytorch_model.safetensors", folder / "unet" / "config.json"
    state = load_file(file)
    state["conv_in.weight"] = torch.zeros(16, 9, 3, 3)
    save_file(state, file, metadata={"format": "pt"})
    config.write_text(json.dumps({**json.loads(config.read_text()), "in_channels": 9}))
    with pytest.raises(InputError, match="draws from 9 channels"):
        stable.load(folder)


def test_the_hash_is_of_the_weights_alone(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = copied(folders["1"], tmp_path / "same")
    (folder / "unet" / "notes.txt").write_text("anything")
    assert checkpoint.base_hash(folder) == checkpoint.base_hash(folders["1"])
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    state = load_file(file)
    state["conv_in.bias"] += 1
    save_file(state, file, metadata={"format": "pt"})
    assert checkpoint.base_hash(folder) != checkpoint.base_hash(folders["1"])


def test_precision(folders: dict[str, Path], prior: Prior) -> None:
    half = stable.load(folders["1"], precision="bf16")
    assert half.dtype == torch.bfloat16 and half.vae.dtype == torch.float32
    ours, theirs = (draw.draw(p, ["crack"], generators(0), size=(64, 64), guidance=2.0, steps=3) for p in (half, prior))
    assert ours.dtype == torch.float32
    assert 0 < (ours - theirs).abs().mean() < 0.05 * theirs.std()
    with pytest.raises(ConfigError, match="fp16 needs a GPU"):
        stable.open_prior(stable.find(str(folders["1"])), "cpu", "fp16")


# ---- the hub

@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub cache of one's own, and no way out."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def test_offline_the_hub_is_one_clear_sentence(offline: Path, data_folder: Path) -> None:
    found = stable.find("somebody/steel-diffusion")
    assert (found.kind, found.name, found.key) == ("hub", "somebody/steel-diffusion", "somebody/steel-diffusion")
    with pytest.raises(NotFoundError, match="no folder 'somebody/steel-diffusion', and the hub.* cannot be reached"):
        stable.open_prior(found)


def test_a_name_that_the_hub_cannot_have_is_said(offline: Path) -> None:
    with pytest.raises(NotFoundError, match="no checkpoint 'somebody/steel..diffusion'"):
        stable.load("somebody/steel..diffusion")


def test_what_the_hub_left_here_is_used_offline(offline: Path, folders: dict[str, Path], prior: Prior) -> None:
    kept = offline / "models--somebody--steel"
    copied(folders["1"], kept / "snapshots" / ("a" * 40))
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text("a" * 40)
    found = stable.load("somebody/steel")
    assert found.name == found.where == "somebody/steel" and found.base_hash == prior.base_hash
    shutil.rmtree(kept / "snapshots" / ("a" * 40) / "vae")
    with pytest.raises(InputError, match="not whole: vae missing"):
        stable.load("somebody/steel")


def test_large_pictures_pass_the_autoencoder_one_by_one(data_folder: Path, prior: Prior) -> None:
    """A gigabyte each at 512 px. Ours are small and go together."""
    for one, most in ((prior, 1), (stable.load(tiny_surface()), 3)):
        seen = list[int]()
        hooks = [part.register_forward_hook(lambda _, given, __, seen=seen: seen.append(len(given[0])))
                 for part in (one.vae.encoder, one.vae.decoder)]
        stable.pictures(one, stable.latents(one, torch.zeros(3, 3, 64, 64)))
        assert seen == [most] * (2 * 3 // most)
        for hook in hooks:
            hook.remove()


# ---- finding

def snapshot_with(*splits: str) -> Snapshot:
    """A snapshot whose pictures are called by their number."""
    pictures = [Picture(f"image{i}", f"{i}.png", 8, 8, "0" * 16, split=split) for i, split in enumerate(splits)]
    return Snapshot(dict(name="plates", snapshot_id="here", classes=["crack"]), pictures, SCHEMAS["snapshot_images"].empty_table(),
                    SCHEMAS["labels"].empty_table())


def adapter_of(base: Path, name: str, snapshot_id: str, learned: list[str]) -> Path:
    """What `find` reads of an adapted prior: its head."""
    folder = rundir.create("adapt-prior", dict(name=name), state="completed") / "adapter"
    folder.mkdir()
    rundir.write_json(folder / "head.json", dict(key=f"key of {name}", name=name, snapshot_id=snapshot_id, learned=learned,
                                                 base=dict(where=base.parent.name, name="ours")))
    return folder


def test_nothing_there_is_said_with_what_to_do(data_folder: Path) -> None:
    with pytest.raises(NotFoundError, match="There is no surface prior yet. Train one with train-prior"):
        stable.find("", snapshot_with("train"))
    with pytest.raises(NotFoundError, match="no prior or folder called 'my prior'. Train one with train-prior"):
        stable.find("my prior")


def test_which_prior_a_name_leads_to(data_folder: Path, folders: dict[str, Path]) -> None:
    older, data = tiny_surface("ours"), snapshot_with("train", "test")
    assert stable.find("").base == stable.find("ours", data).base == stable.find(older.parent.name).base == older
    newer = tiny_surface("newer", seed=1)
    assert stable.find("", data).base == newer
    elsewhere = adapter_of(older, "of others", "elsewhere", [])
    assert stable.find("", data).base == newer, "another dataset's adapter is taken by name only"
    adapter = adapter_of(older, "adapted", "here", ["image0"])
    found = stable.find("", data)
    assert (found.kind, found.adapter, found.base, found.name, found.key) == ("adapter", adapter, older, "adapted", "key of adapted")
    assert stable.find("of others", data).adapter == elsewhere
    assert stable.find("").base == newer, "without a dataset, the newest surface prior"
    assert stable.find(str(folders["2"])).kind == "folder"
    shutil.rmtree(older.parent)
    with pytest.raises(NotFoundError, match="The prior 'ours', which 'adapted' was adapted from, is not there any more"):
        stable.find("adapted")


def test_a_surface_prior_is_native(data_folder: Path) -> None:
    found = stable.open_prior(stable.find(tiny_surface("ours").parent.name))
    assert found.native and found.name == "ours" and found.adapter_key == "" and found.classes_known == {}


def test_a_prior_that_knows_what_it_is_judged_by_is_refused(data_folder: Path) -> None:
    data = snapshot_with("train", "val", "test")
    ours = tiny_surface("fair", learned=("image0", "unknown"))
    assert stable.find("fair", data).base == ours
    leaky = tiny_surface("leaky", learned=("image0", "image1", "image2"))
    with pytest.raises(ConfigError, match="'leaky' has learned from 2 of the val and test images of 'plates'"):
        stable.find("leaky", data)
    adapter_of(leaky, "on leaky", "here", ["image0"])
    with pytest.raises(ConfigError, match="'on leaky' has learned from 2"):
        stable.find("on leaky", data)
    adapter_of(ours, "elsewhere trained", "elsewhere", ["image2"])
    with pytest.raises(ConfigError, match="'elsewhere trained' has learned from 1"):
        stable.find("elsewhere trained", data)


# ---- drawing

def test_little_strength_gives_the_picture_back(prior: Prior) -> None:
    """Up to the autoencoder, and less and less of it with strength."""
    images = as_tensor(surfaces(1, 64, 64))
    through = stable.pictures(prior, stable.latents(prior, images))
    drawn = [draw.draw(prior, ["crack"], generators(5), images=images, strength=s, steps=4) for s in (0.001, 0.3, 1.0)]
    off = [(d - through).abs().mean() for d in drawn]
    assert off[0] < 0.1 * off[1] and off[1] < off[2]


def test_the_chain_begins_where_strength_says() -> None:
    assert draw.timesteps(1000, 4, 1.0) == [999, 749, 499, 249]
    assert draw.timesteps(1000, 4, 0.5) == [499, 374, 249, 124]
    assert draw.timesteps(1000, 10, 0.002) == [1, 0] and draw.timesteps(1000, 3, 0.0) == [0]


def test_a_cosine_schedule_starts_where_it_can(prior: Prior) -> None:
    """Its last timesteps hold no signal at all: the solver would divide by nothing."""
    cosine = type(prior.schedule)(beta_schedule="squaredcos_cap_v2", clip_sample=False)
    found = Prior(**{**vars(prior), "schedule": cosine})
    first = int(draw.solver(found, 5, 1.0).timesteps[0])
    assert 950 < first < 999 and int(draw.solver(prior, 5, 1.0).timesteps[0]) == 999
    assert draw.draw(found, ["crack"], generators(0), size=(64, 64), steps=5).isfinite().all()


@pytest.mark.parametrize("guidance, forwards", [(1.0, 1), (2.5, 2)])
def test_one_forward_a_step(prior: Prior, guidance: float, forwards: int) -> None:
    """Two halves in it with guidance, one without; as many steps as were asked for, whatever the strength."""
    seen: list[int] = []
    hook = prior.unet.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    draw.draw(prior, ["crack"] * 3, generators(0, 1, 2), images=as_tensor(surfaces(3, 32, 32)), strength=0.4, guidance=guidance, steps=5)
    hook.remove()
    assert seen == [3 * forwards] * 5


def test_words_and_seeds_count(prior: Prior) -> None:
    def drawn(prompt: str, seed: int) -> torch.Tensor:
        return draw.draw(prior, [prompt], generators(seed), size=(32, 32), guidance=4.0, steps=3)

    assert torch.equal(drawn("crack", 0), drawn("crack", 0))
    assert not torch.equal(drawn("crack", 0), drawn("patches", 0)) and not torch.equal(drawn("crack", 0), drawn("crack", 1))


def test_company_changes_nothing(native: Prior) -> None:
    """A picture's result is its own, whatever is drawn with it, and in whichever batch it falls."""
    pictures = surfaces(6, 40, 56) + surfaces(3, 64, 64)
    prompts, seeds = ["crack", "patches", "tile"] * 3, list(range(9))
    more = dict(strength=0.7, guidance=2.0, steps=3)
    together = draw.redraw(native, pictures, None, prompts, seeds, **more)
    for i in (0, 5, 7):
        alone, = draw.redraw(native, [pictures[i]], None, [prompts[i]], [seeds[i]], **more)
        assert alone.shape == pictures[i].shape
        assert np.abs(alone.astype(int) - together[i]).max() <= 1, "sums in another order may round otherwise"


def test_nothing_outside_a_mask_changes(prior: Prior) -> None:
    images, masks = as_tensor(surfaces(2, 64, 64)), torch.zeros(2, 1, 64, 64)
    masks[0, 0, 20:44, 10:50], masks[1, 0, :30, 40:] = 1, 1
    found = draw.draw(prior, ["crack"] * 2, generators(0, 1), images=images, masks=masks, strength=1.0, steps=4)
    outside = (masks == 0).expand_as(images)
    assert torch.equal(found[outside], images[outside])
    inside = (masks == 1).expand_as(images)
    assert (found - images)[inside].abs().mean() > 0.05


def test_what_is_drawn_inside_is_drawn_beside_the_surface_as_it_is(prior: Prior) -> None:
    """Outside, the UNet sees the picture noised as far as the step, and the autoencoder decodes the picture's own latents."""
    images, masks = as_tensor(surfaces(1, 64, 64)), torch.zeros(1, 1, 64, 64)
    masks[..., 12:22] = 1                               # latents 3 to 5, of four pixels each
    seen, decoded = list[tuple[torch.Tensor, int]](), list[torch.Tensor]()
    hooks = [prior.unet.register_forward_pre_hook(lambda _, given: seen.append((given[0], int(given[1])))),
             prior.vae.post_quant_conv.register_forward_pre_hook(lambda _, given: decoded.append(given[0]))]
    draw.draw(prior, ["crack"], generators(0), images=images, masks=masks, strength=0.9, steps=4)
    for hook in hooks:
        hook.remove()
    known, noise = stable.latents(prior, images), torch.randn(1, 4, 16, 16, generator=generators(0)[0])
    free = torch.zeros(16, dtype=torch.bool)
    free[3:6] = True
    for x, t in seen:
        torch.testing.assert_close(x[..., ~free], prior.schedule.add_noise(known, noise, torch.tensor([t]))[..., ~free])
    inside, outside = ((decoded[0] * 6.0 - known)[..., where].abs().mean() for where in (free, ~free))
    assert len(seen) == 4 and outside < 1e-5 < 0.1 < inside


def test_redrawn_inside_masks_at_any_size(prior: Prior, native: Prior) -> None:
    pictures = surfaces(1, 50, 70, colour=True) + surfaces(1, 200, 90) + surfaces(1, 300, 280)
    masks = [np.zeros(p.shape[:2], bool) for p in pictures]
    for mask in masks:
        mask[10:40, 20:60] = True
    for which in (prior, native):
        found = draw.redraw(which, pictures, masks, ["crack"] * 3, [1, 2, 3], strength=0.9, guidance=1.5, steps=2)
        for before, after, mask in zip(pictures, found, masks, strict=True):
            assert after.dtype == np.uint8 and np.array_equal(before[~mask], after[~mask])
            assert (before[mask] != after[mask]).mean() > 0.5


def test_grey_stays_grey(native: Prior) -> None:
    pictures = surfaces(1, 48, 48) + surfaces(1, 48, 48, colour=True)
    found = draw.redraw(native, pictures, None, ["crack"] * 2, [0, 1], strength=0.8, guidance=2.0, steps=2)
    assert np.ptp(found[0], axis=2).max() == 0 < np.ptp(found[1], axis=2).max()
    grey, colour = (draw.invent(native, ["crack"], [0], (40, 40), 2.0, 2, wanted)[0] for wanted in (True, False))
    assert np.ptp(grey, axis=2).max() == 0 < np.ptp(colour, axis=2).max()


@pytest.mark.parametrize("size", [(64, 64), (45, 70), (300, 500)])
def test_noise_start_has_the_size_asked_for(prior: Prior, native: Prior, size: tuple[int, int]) -> None:
    for which in (prior, native):
        one, two = draw.invent(which, ["crack"] * 2, [1, 2], size, 1.0, 2, grey=False)
        assert one.shape == two.shape == (*size, 3) and not np.array_equal(one, two)


def test_a_person_may_cancel_between_steps(prior: Prior) -> None:
    told: list[int] = []

    def tick() -> None:
        told.append(1)
        if len(told) == 2:
            raise Canceled

    with pytest.raises(Canceled):
        draw.invent(prior, ["crack"], [0], (64, 64), 1.0, 5, True, each=tick)
    assert len(told) == 2


# ---- sizes

def test_our_own_prior_keeps_a_pictures_scale(native: Prior) -> None:
    assert fit(native, 200, 200).scaled == (200, 200) and fit(native, 200, 201).padded == (200, 208)
    large = fit(native, 300, 512)
    assert large.scaled == (150, 256) and large.padded == (152, 256)
    picture = surfaces(1, 50, 70)[0]
    shape = fit(native, 50, 70)
    assert np.array_equal(shape.back(shape.picture(picture)), picture), "nothing is resampled"


def test_another_checkpoint_draws_at_its_own_size(prior: Prior) -> None:
    """64 px here; 512 for most."""
    assert fit(prior, 200, 200).padded == (64, 64) and fit(prior, 20, 20).scaled == (64, 64)
    assert fit(prior, 100, 150).scaled == (64, 96)
    thin = fit(prior, 30, 300)
    assert thin.scaled == (13, 128) and thin.padded == (64, 128)
    assert thin.back(thin.picture(surfaces(1, 30, 300)[0])).shape == (30, 300, 3)


def test_a_mask_loses_no_pixel_on_the_way(prior: Prior) -> None:
    mask = np.zeros((640, 640), bool)
    mask[321, 77] = True
    shape = fit(prior, 640, 640)
    assert shape.mask(mask).sum() == 1 and shape.mask(mask)[32, 7]


# ---- levels

def test_half_of_a_drift_is_taken_back() -> None:
    source = np.random.default_rng(0).normal(120, 20, (64, 64, 3)).astype(np.float32)
    back = levels.drift(source + 30, source)
    np.testing.assert_allclose(back.mean() - source.mean(), 15, atol=0.1)
    flat = levels.drift((source - 120) * 0.5 + 120, source)
    np.testing.assert_allclose(flat.std() / source.std(), 0.5 * 1.25, atol=0.01)
    np.testing.assert_allclose(levels.drift(source, source), source, atol=1e-3)


def test_a_seam_is_closed() -> None:
    source = np.full((64, 64, 3), 100, np.float32)
    mask = np.zeros((64, 64), bool)
    mask[20:40, 20:40] = True
    drawn = np.full((64, 64, 3), 110, np.float32)
    drawn[mask] = 60
    back = levels.seam(drawn, source, mask)
    assert np.allclose(back[mask], 50) and np.allclose(back[~mask], 100)
    assert np.array_equal(levels.seam(drawn, source, np.ones((64, 64), bool)), drawn), "there is nothing around it"


# ---- real pictures

@pytest.mark.skipif(not REAL.exists(), reason="no real pictures here")
@pytest.mark.parametrize("pattern", ["NEU-DET/IMAGES/scratches_1*.jpg", "magnetic-tile/MT_Crack/Imgs/*.jpg"])
def test_real_pictures(native: Prior, prior: Prior, pattern: str) -> None:
    """Structure, not beauty: the networks are random. Sizes, greyness, levels, and what a mask protects."""
    paths = sorted(REAL.glob(pattern))[:3]
    pictures = [np.asarray(kept_images.decode(p.read_bytes(), p.name).convert("RGB")) for p in paths]
    masks = [np.zeros(p.shape[:2], bool) for p in pictures]
    for mask in masks:
        mask[mask.shape[0] // 4:mask.shape[0] // 2, mask.shape[1] // 4:mask.shape[1] // 2] = True
    for which in (native, prior):
        whole = draw.redraw(which, pictures, None, ["crack"] * 3, [0, 1, 2], strength=0.5, guidance=2.0, steps=2)
        part = draw.redraw(which, pictures, masks, ["crack"] * 3, [0, 1, 2], strength=1.0, guidance=1.0, steps=2)
        for before, one, other, mask in zip(pictures, whole, part, masks, strict=True):
            assert one.shape == other.shape == before.shape and np.ptp(one, axis=2).max() == 0
            assert np.array_equal(other[~mask], before[~mask]) and not np.array_equal(other[mask], before[mask])
