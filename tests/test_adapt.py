"""Adapting a prior: words, low-rank changes, both; what may be learned from; what an adapter is worth, and where it fits."""

import json
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from backend import rundir
from backend.config import AdaptPrior, Import, Synthesize
from backend.data import importer, snapshot
from backend.data.marks import Box
from backend.data.snapshot import Picture
from backend.errors import Canceled, ConfigError, InputError, NotFoundError
from backend.jobs.report import Reporter
from backend.synthesis import by_prior, lots, synthesize
from backend.synthesis.prior import adapt, examples, lora, material, stable, steps, tokens
from tests import plates
from tests.squares import one_core
from tests.tiny_prior import tiny_stable, tiny_surface

SIDE = 64
CLASSES = ["up_lines", "across"]


@pytest.fixture(scope="module", autouse=True)
def _small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """On one core, previews of two steps, in a data folder of this module's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFSPECT_DATA", str(tmp_path_factory.mktemp("data")))
        patch.setattr(adapt, "cores", one_core)
        patch.setattr(adapt, "PREVIEW", 2)
        patch.setattr(steps, "TRIED", 8)
        yield


@pytest.fixture(scope="module")
def lined(tmp_path_factory: pytest.TempPathFactory) -> snapshot.Snapshot:
    return snapshot.read(imported(tmp_path_factory.mktemp("lined") / "in", "lined", train=20))


@pytest.fixture(scope="module")
def base(lined: snapshot.Snapshot) -> Path:
    return tiny_surface()


@pytest.fixture(scope="module")
def both(base: Path) -> SimpleNamespace:
    """Long enough to learn the lines. `prior` is the one that was trained, as it was left."""
    opened = list[stable.Prior]()

    def watched(*given: Any) -> stable.Prior:
        opened.append(stable_open(*given))
        return opened[-1]

    stable_open, run = stable.open_prior, rundir.create("adapt-prior", {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stable, "open_prior", watched)
        result = adapt.run(config(token_steps=10, lora_steps=40), run, Reporter(run))
    return SimpleNamespace(run=run, result=result, folder=run / "adapter", head=rundir.read_json(run / "adapter" / "head.json"),
                           prior=opened[0], curve=[json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()])


@pytest.fixture(scope="module")
def short(base: Path) -> Path:
    """Three steps in each space, as `config` says."""
    return adapted()


def config(**more: Any) -> AdaptPrior:
    few = dict(token_steps=3, lora_steps=3, batch=4, vectors=2, rank=4, token_rate=2e-2, lora_rate=2e-2, precision="f32")
    return AdaptPrior(**{"dataset": "lined", "name": "a", "prior": "tiny prior", **few, **more})


def adapted(run: Path | None = None, report: Any = plates.silent, **more: Any) -> Path:
    run = run or rundir.create("adapt-prior", {})
    adapt.run(config(**more), run, report)
    return run / "adapter"


def imported(folder: Path, name: str, *, train: int, seed: int = 0) -> Path:
    """Pictures of 64 px, in each a piece of lines of a class, up or across, that a box is round; by turns."""
    rng = np.random.default_rng(seed)
    for split, n in dict(train=train, val=2, test=2).items():
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True)
        for i in range(n):
            side = int(rng.integers(36, 50))
            y, x = (int(v) for v in rng.integers(0, SIDE - side, 2))
            pixels = lines(rng, i % 2, x, y, side)
            Image.fromarray(pixels).save(folder / "images" / split / f"{i}.png")
            (folder / "labels" / split / f"{i}.txt").write_text(f"{i % 2} {plates.label((x, y, side), (SIDE, SIDE))}\n")
    (folder / "data.yaml").write_text(f"path: .\ntrain: images/train\nval: images/val\ntest: images/test\nnames: {CLASSES}\n")
    return plates.run_of("import", lambda run: importer.run(Import(path=str(folder), name=name), run, plates.silent))


def lines(rng: np.random.Generator, kind: int, x: int, y: int, side: int) -> np.ndarray:
    pixels = rng.integers(90, 120, (SIDE, SIDE)).astype(np.uint8)
    wave = 40 + 170 * ((np.arange(side) + int(rng.integers(8))) // 4 % 2)
    pixels[y:y + side, x:x + side] = wave[None, :] if kind == 0 else wave[:, None]
    return pixels


def picture(name: str, *classes: str, group: str = "", split: str = "train") -> Picture:
    boxes = tuple(Box(c, 0, 0, 4, 4) for c in classes)
    return Picture(name, f"{name}.png", 8, 8, sha256(name.encode()).hexdigest()[:16], boxes, split, group or name)


def weights(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """As in the file, whatever adapters lie around the layers."""
    return {k.replace(".base_layer", ""): v for k, v in network.state_dict().items() if "lora_" not in k}


def differing(a: torch.nn.Module, b: torch.nn.Module) -> set[str]:
    first, second = weights(a), weights(b)
    assert first.keys() == second.keys()
    return {k for k, v in first.items() if v.shape != second[k].shape or not torch.equal(v, second[k])}


def files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != "head.json"}


# ---- what is learned

def test_both_spaces_in_turn_learn_a_texture(both: SimpleNamespace) -> None:
    """The noise is the target, so that knowing nothing costs 1, and a network of chance weights costs more."""
    told = {k: [p[k] for p in both.curve if k in p] for k in ("tokens_loss", "lora_loss")}
    assert [p["step"] for p in both.curve] == [10, 20, 30, 40, 50]
    assert told["lora_loss"][-1] < 0.95 * told["tokens_loss"][0]
    held = both.result["held_loss"]
    assert held["after"] < 0.95 * held["before"]
    assert both.result["loss"] == {"tokens": pytest.approx(np.mean(told["tokens_loss"]), abs=2e-5),
                                   "lora": pytest.approx(np.mean(told["lora_loss"]), abs=2e-5)}


def test_the_adapted_prior_draws_held_pictures_better_and_by_class(both: SimpleNamespace, lined: snapshot.Snapshot, base: Path) -> None:
    """From the files alone, in another prior. With the words of the other class it knows less of a picture."""
    shown = examples.chosen(lined, "", 0.2)
    plain, moved = stable.load(base), adapt.apply(stable.load(base), both.folder)

    def loss(prior: stable.Prior, said: dict[str, str]) -> float:
        found = steps.loss_on(prior, material.Material(prior, shown.held), lambda names: stable.encode(prior, [said[c] for c in names]),
                              lambda: None)
        assert found is not None
        return found

    own = {c: stable.prompt_for(moved, "lined", c) for c in CLASSES}
    assert loss(moved, own) == pytest.approx(both.result["held_loss"]["after"], rel=1e-4)
    assert loss(plain, {c: stable.prompt_for(plain, "lined", c) for c in CLASSES}) == both.result["held_loss"]["before"]
    assert not torch.equal(*stable.encode(moved, list(own.values())))


def test_training_leaves_all_else_as_it_was(both: SimpleNamespace, base: Path) -> None:
    plain = stable.load(base)
    assert not differing(both.prior.unet, plain.unet) and not differing(both.prior.vae, plain.vae)
    assert differing(both.prior.text_encoder, plain.text_encoder) == {"embeddings.token_embedding.weight"}


def test_tokens_alone_change_only_new_embeddings(base: Path) -> None:
    folder, plain = adapted(space="tokens"), stable.load(base)
    head, moved = rundir.read_json(folder / "head.json"), adapt.apply(stable.load(base), folder)
    assert set(files(folder)) == {tokens.FILE} and (head["rank"], head["targets"]) == (0, [])
    assert not differing(moved.unet, plain.unet) and not differing(moved.vae, plain.vae)
    name = "embeddings.token_embedding.weight"
    assert differing(moved.text_encoder, plain.text_encoder) == {name}
    old, new = plain.text_encoder.state_dict()[name], moved.text_encoder.state_dict()[name]
    assert torch.equal(new[:len(old)], old) and len(new) == len(old) + 4
    assert torch.equal(stable.encode(moved, ["steel surface", ""]), stable.encode(plain, ["steel surface", ""]))
    stored = load_file(folder / tokens.FILE)
    assert {k: tuple(v.shape) for k, v in stored.items()} == {c: (2, old.shape[1]) for c in CLASSES}
    started = load_file(adapted(space="tokens", token_rate=1e-6) / tokens.FILE)
    assert all(1e-3 < float((stored[c] - started[c]).abs().max()) < 0.1 for c in CLASSES)


def test_lora_alone_changes_only_attention(base: Path) -> None:
    folder, plain = adapted(space="lora"), stable.load(base)
    head, moved = rundir.read_json(folder / "head.json"), adapt.apply(stable.load(base), folder)
    assert set(files(folder)) == {lora.FILE} and head["tokens"] == {}
    assert not differing(moved.text_encoder, plain.text_encoder) and not differing(moved.vae, plain.vae)
    changed = differing(moved.unet, plain.unet)
    targets = {k for k in plain.unet.state_dict() if k.removesuffix(".weight").endswith(tuple(f".{t}" for t in lora.TARGETS))}
    assert changed == targets and len(targets) > 8
    assert stable.prompt_for(moved, "lined", "up_lines") == "lined surface with up lines"


def test_the_artifact_says_what_it_is(both: SimpleNamespace, lined: snapshot.Snapshot, base: Path) -> None:
    head, result = both.head, both.result
    assert set(files(both.folder)) == {tokens.FILE, lora.FILE} and not (both.run / "adapting").exists()
    assert (head["name"], head["snapshot_id"], head["classes"]) == ("a", lined.snapshot_id, CLASSES)
    assert head["base"] == dict(hash=stable.load(base).base_hash, where=rundir.read_json(base / "head.json")["key"], name="tiny prior",
                                native=True)
    assert head["tokens"]["up_lines"] == ["<lined/up-lines-0>", "<lined/up-lines-1>"]
    assert head["prompts"]["across"] == "lined surface with <lined/across-0> <lined/across-1>"
    train = {p.image_id for p in lined.by_split("train")}
    assert set(head["learned"]) | set(head["held"]) == train and not set(head["learned"]) & set(head["held"])
    assert (result["images"], result["held"]) == (16, 4) == (len(head["learned"]), len(head["held"]))
    assert result["parameters"] == sum(v.numel() for f in (tokens.FILE, lora.FILE) for v in load_file(both.folder / f).values())
    assert result["about"] == "The surface prior was trained without this dataset."
    assert result["warnings"] == ["Too few images are held apart to measure the quality of: up_lines (2), across (2). It takes 8."]
    with Image.open(both.run / "samples.png") as shown:
        assert shown.size == (3 * 160, 2 * 160)


def test_diffusers_own_loader_reads_the_adapter(both: SimpleNamespace, base: Path) -> None:
    pipe = StableDiffusionPipeline.from_pretrained(base, local_files_only=True)
    pipe.load_lora_weights(both.folder, weight_name=lora.FILE, local_files_only=True)
    moved, plain = adapt.apply(stable.load(base), both.folder), stable.load(base)
    x, t, states = torch.randn(2, 4, 16, 16), torch.tensor([100, 700]), stable.encode(moved, list(both.head["prompts"].values()))
    with torch.no_grad():
        theirs, ours, before = (u(x, t, encoder_hidden_states=states).sample for u in (pipe.unet, moved.unet, plain.unet))
    assert torch.allclose(theirs, ours, atol=1e-4) and (ours - before).abs().mean() > 100 * (theirs - ours).abs().mean()


def test_it_is_found_and_opened_as_the_dataset_s_prior(both: SimpleNamespace, lined: snapshot.Snapshot) -> None:
    found = stable.find(both.run.name, lined)
    prior = stable.open_prior(found)
    assert found.kind == "adapter" and prior.adapter_key == both.head["key"] and prior.classes_known == both.head["prompts"]
    with pytest.raises(ConfigError, match="adapted already"):
        adapted(prior=both.run.name)


def test_what_was_held_apart_is_no_parent(both: SimpleNamespace, lined: snapshot.Snapshot) -> None:
    """Else nothing is left to measure the made pictures against."""
    method = by_prior.ByPrior(Synthesize(dataset="lined", name="s", method="prior", prior=both.run.name), lined)
    parents = {c: {p.image_id for p in known.parents} for c, known in method.of_class.items()}
    assert set.union(*parents.values()) == set(both.head["learned"]) and both.head["held"]


def test_what_another_prior_held_apart_is_no_parent_either(both: SimpleNamespace, base: Path, lined: snapshot.Snapshot) -> None:
    """So a set of a prior that is not adapted has the same parents, and is measured against the same pictures."""
    run = rundir.create("synthesize", {})
    head = rundir.read_json(base / "head.json")
    settings = Synthesize(dataset="lined", name="s", method="prior", prior=head["key"], apart=both.run.name, count=2, steps=2)
    method = by_prior.ByPrior(settings, lined)
    learned, held = set(both.head["learned"]), set(both.head["held"])
    assert {p.image_id for known in method.of_class.values() for p in known.parents} == learned
    assert method.keys["apart"] == both.head["key"] != by_prior.ByPrior(replace(settings, apart=""), lined).keys.get("apart")
    synthesize.run(settings, run, plates.silent)
    told = rundir.read_json(run / "synthetic" / "head.json")
    lot = lots.lots(told, lined, known := lots.learned(told, lined), 0)[0]
    assert known.ids == learned and {p.image_id for p in lot.reference} <= held and {p.image_id for p in lot.known} <= learned
    other = replace(lined, head=lined.head | dict(snapshot_id="o" * 16))
    with pytest.raises(ConfigError, match="'a' was adapted to 'lined', or to another state of it, so what it held apart"):
        by_prior.also_apart(both.run.name, other)
    with pytest.raises(NotFoundError, match="no adapted prior called 'nobody'"):
        by_prior.also_apart("nobody", lined)


def test_a_class_whose_own_pictures_are_all_held_apart_is_drawn_from_what_else_shows_it(both: SimpleNamespace,
                                                                                        lined: snapshot.Snapshot) -> None:
    """Else there would be no picture to take a turn. Where none at all is left, that is said."""
    held = next(p for p in lined.pictures if p.image_id in both.head["held"] and p.classes == {"across"})
    large, small = Box("across", 0, 0, 9, 60, "box"), Box("up_lines", 20, 0, 50, 60, "box")
    mixed = replace(next(p for p in lined.pictures if p.image_id in both.head["learned"]), boxes=(large, small))
    for pictures in ([held, mixed], [held]):
        data = snapshot.Snapshot(lined.head, pictures, lined.images, lined.labels)
        settings = Synthesize(dataset="lined", name="s", method="prior", prior=both.run.name, class_name="across")
        if mixed in pictures:
            assert [p.image_id for p in by_prior.ByPrior(settings, data).of_class["across"].parents] == [mixed.image_id]
        else:
            with pytest.raises(ConfigError, match="All train images that show 'across' were held apart when 'a' was adapted"):
                by_prior.ByPrior(settings, data)


# ---- other bases, other arithmetic

def test_another_kind_of_checkpoint_is_adapted(tmp_path: Path, lined: snapshot.Snapshot) -> None:
    """2.x: it tells the velocity, has other heads and its own size; its pictures are not turned."""
    folder = tiny_stable(tmp_path / "second", prediction="v_prediction")
    made = adapted(prior=str(folder), classes="across")
    head = rundir.read_json(made / "head.json")
    assert head["base"]["where"] == str(folder) and not head["base"]["native"] and head["classes"] == ["across"]
    assert head["result"]["about"] == "What this checkpoint has learned from is not written in it."
    prior = stable.open_prior(stable.find(made.parent.name, lined))
    assert list(prior.classes_known) == ["across"] and not prior.native
    shown = material.Material(prior, examples.chosen(lined, "", 0.0).learned)
    for i in range(4):
        shown.batch(np.random.default_rng(i), 4)
    assert {variation & material.TURNED for _, _, variation in shown._known} == {0}


def test_the_velocity_is_the_target_where_the_checkpoint_tells_it(tmp_path: Path) -> None:
    """A network that answers 0 errs by the target itself."""
    prior = stable.load(tiny_stable(tmp_path / "second", prediction="v_prediction"))
    for p in prior.unet.conv_out.parameters():
        p.zero_()
    latents, t = torch.randn(2, 4, 16, 16), torch.tensor([0, 900])
    noise, signal = torch.randn_like(latents), prior.schedule.alphas_cumprod[t].view(-1, 1, 1, 1)
    errors = steps.denoising_errors(prior, latents, stable.encode(prior, ["", ""]), noise, t)
    assert torch.allclose(errors, (signal.sqrt() * noise - (1 - signal).sqrt() * latents).square().mean(1), atol=1e-5)


def test_what_is_drawn_says_by_which_weights(both: SimpleNamespace, base: Path, lined: snapshot.Snapshot, tmp_path: Path) -> None:
    """The key is of settings, and another machine may learn other weights with them. The files say themselves what they were learned on."""
    base_hash = stable.load(base).base_hash
    for file in (tokens.FILE, lora.FILE):
        with safe_open(both.folder / file, "pt") as opened:
            assert opened.metadata()["base"] == base_hash
    prior = stable.open_prior(stable.find(both.run.name, lined))
    assert prior.adapter_hash == both.head["hash"] == adapt.hash_of(both.folder) != ""
    for p in both.folder.iterdir():
        (tmp_path / p.name).write_bytes(p.read_bytes())
    state = load_file(tmp_path / tokens.FILE)
    save_file({k: v + 1e-3 for k, v in state.items()}, tmp_path / tokens.FILE)
    other = adapt.apply(stable.load(base), tmp_path)
    assert other.adapter_key == prior.adapter_key and other.adapter_hash != prior.adapter_hash
    method = by_prior.ByPrior(Synthesize(dataset="lined", name="s", method="prior", prior=both.run.name), lined)
    assert method.open()["prior"]["adapter_hash"] == method._about("words")["adapter_hash"] == prior.adapter_hash


def test_another_base_is_refused(both: SimpleNamespace, base: Path) -> None:
    other = stable.load(tiny_surface("other prior", seed=1))
    with pytest.raises(ConfigError, match="'a' was adapted from another prior, 'tiny prior'.*'other prior'"):
        adapt.apply(other, both.folder)
    assert other.adapter_key == ""


@pytest.mark.parametrize("file", [tokens.FILE, lora.FILE])
def test_a_damaged_adapter_is_refused(both: SimpleNamespace, base: Path, tmp_path: Path, file: str) -> None:
    for p in both.folder.iterdir():
        (tmp_path / p.name).write_bytes(p.read_bytes()[:50] if p.name == file else p.read_bytes())
    with pytest.raises(InputError, match="missing or damaged"):
        adapt.apply(stable.load(base), tmp_path)


def test_bfloat16_learns_the_same_to_its_precision(short: Path) -> None:
    """The adapters stay float32 in either."""
    exact, rounded = short, adapted(precision="bf16")
    losses = [rundir.read_json(f / "head.json")["result"]["loss"] for f in (exact, rounded)]
    assert losses[1] == pytest.approx(losses[0], rel=0.03) and losses[1] != losses[0]
    ups = [{k: v for k, v in load_file(f / lora.FILE).items() if k.endswith(lora.UP)} for f in (exact, rounded)]
    assert {v.dtype for v in ups[1].values()} == {torch.float32}
    assert torch.cosine_similarity(*(torch.cat([v.flatten() for v in up.values()]) for up in ups), dim=0) > 0.7
    with pytest.raises(ConfigError, match="fp16 needs a GPU"):
        adapted(precision="fp16")


def test_what_an_adapter_adds_is_not_lost_to_rounding(base: Path, short: Path, tmp_path: Path) -> None:
    """Changes of a thousandth are less than bf16 tells apart: they are added before the weights are rounded, and so move some of them."""
    found, plain = stable.find(short.parent.name), stable.load(base)
    small = {k: v * (1e-3 if k.endswith(lora.UP) else 1) for k, v in load_file(short / lora.FILE).items()}
    for p in short.iterdir():
        (tmp_path / p.name).write_bytes(p.read_bytes())
    save_file(small, tmp_path / lora.FILE)
    exact = adapt.apply(plain, tmp_path)
    opened = stable.open_prior(replace(found, adapter=tmp_path), "cpu", "bf16")
    assert opened.dtype == next(opened.text_encoder.parameters()).dtype == torch.bfloat16
    rounded = {k: v.to(torch.bfloat16) for k, v in weights(exact.unet).items()}
    assert all(torch.equal(v, rounded[k]) for k, v in weights(opened.unet).items())
    assert differing(opened.unet, stable.load(base, precision="bf16").unet), "the adapter is seen"


def test_checkpointing_changes_nothing(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But how often blocks are computed: the flag does something."""
    blocks, checkpoint = list[Any](), torch.utils.checkpoint.checkpoint
    monkeypatch.setattr(torch.utils.checkpoint, "checkpoint", lambda block, *args, **how: blocks.append(block) or checkpoint(
        block, *args, **how))
    adapted(space="lora", lora_steps=1)
    assert not blocks
    folder = adapted(checkpointing=True)
    assert len(blocks) > 12, "some in each of six steps"
    plain, twice = (load_file(f / lora.FILE) for f in (short, folder))
    assert all(torch.allclose(v, twice[k], atol=1e-5) for k, v in plain.items())


# ---- stopped and taken up

def test_killed_and_resumed_it_is_the_same_adapter(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed once in each space; no step is done twice but the one that the kill met."""
    whole, run, done = files(short), rundir.create("adapt-prior", {}), list[tuple[str, int]]()
    advance = steps.Training.advance

    def counted(self: steps.Training) -> float:
        done.append((self.space, self.step))
        return advance(self)

    monkeypatch.setattr(adapt, "SAVE_S", -1)
    monkeypatch.setattr(steps.Training, "advance", counted)
    for deadly in (2, 5):
        with pytest.raises(KeyboardInterrupt):
            adapted(run, killing(deadly))
    assert files(adapted(run)) == whole
    assert done == [("tokens", 0), ("tokens", 1), ("tokens", 1), ("tokens", 2), ("lora", 0), ("lora", 1), ("lora", 1), ("lora", 2)]
    told = list[dict[str, Any]]()
    adapted(run, lambda **said: told.append(said))
    assert [t["message"] for t in told] == ["opening the prior"], "a kept adapter is not made again"


def killing(deadly: int) -> Any:
    """A report that dies at the message of a step, before it is saved."""
    def report(**said: Any) -> None:
        if said["message"].startswith("learning") and said["step"] == deadly:
            raise KeyboardInterrupt
    return report


def test_canceled_it_leaves_nothing(base: Path) -> None:
    run = rundir.create("adapt-prior", {})

    def report(**said: Any) -> None:
        if said["step"] == 2:
            raise Canceled

    with pytest.raises(Canceled):
        adapted(run, report)
    assert not (run / "adapting").exists() and not (run / "adapter").exists()


# ---- what may be learned from

def test_held_pictures_follow_from_content_alone() -> None:
    """Not from names, order or chance; near copies stay together, and every class keeps something to learn from."""
    some = [picture(f"{i:02d}", "a" if i % 3 else "b", group=f"g{i // 2}" if i < 8 else "") for i in range(24)]
    found = {c: [p for p in some if c in p.classes] for c in "ab"}
    apart = examples.held_apart(found, 0.25)
    renamed = {c: [Picture(p.image_id, "x.png", 9, 9, "", p.boxes, "train", p.group_id) for p in reversed(found[c])] for c in "ba"}
    assert examples.held_apart(renamed, 0.25) == apart
    assert {c: sum(p.image_id in apart for p in found[c]) for c in "ab"} == {"a": 4, "b": 2}
    assert all((f"{i:02d}" in apart) == (f"{i + 1:02d}" in apart) for i in range(0, 8, 2))
    assert examples.held_apart(found, 0.0) == set()
    few = {"a": [picture("1", "a", "b"), picture("2", "a")], "b": [picture("1", "a", "b")]}
    assert examples.held_apart(few, 0.9) == {"2"}, "the only one of b is learned from"


def test_only_train_is_learned_from_and_near_copies_of_test_are_not(lined: snapshot.Snapshot) -> None:
    data = snapshot.Snapshot({"classes": ["a", "b"], "name": "d"}, [
        picture("1", "a"), picture("2", "a", group="g"), picture("3", "a", group="g", split="test"), picture("4", "a", split="val"),
        picture("5"), picture("6", "a", "b")], lined.images, lined.labels)
    shown = examples.chosen(data, "", 0.0)
    assert {c: [p.image_id for p in some] for c, some in shown.learned.items()} == {"a": ["1", "6"], "b": ["6"]} and shown.near == 1
    assert list(examples.chosen(data, "b", 0.0).learned) == ["b"]
    with pytest.raises(ConfigError, match="no class 'c'. Its classes: a, b"):
        examples.chosen(data, "a, c", 0.0)
    bare = snapshot.Snapshot({"classes": ["a"], "name": "d"}, [picture("5")], lined.images, lined.labels)
    with pytest.raises(ConfigError, match="no train image with a labelled defect"):
        examples.chosen(bare, "", 0.0)


def test_a_base_that_knows_test_is_refused_and_one_that_knows_train_says_so(lined: snapshot.Snapshot) -> None:
    test, train = lined.by_split("test")[0].image_id, lined.by_split("train")[0].image_id
    tiny_surface("leaky", learned=(train, test))
    with pytest.raises(ConfigError, match="'leaky' has learned from 1 of the val and test images of 'lined'"):
        adapted(prior="leaky")
    tiny_surface("kin", learned=(train,))
    result = rundir.read_json(adapted(prior="kin", space="tokens") / "head.json")["result"]
    said = "The surface prior has itself learned from 1 of this dataset's train images, or from near copies of them."
    assert result["about"] == said and said in result["warnings"]


def test_near_copies_in_the_base_s_own_datasets_are_found(lined: snapshot.Snapshot, tmp_path: Path) -> None:
    """One grey level in a corner: another content, the same picture."""
    held = lined.by_split("val")[0]
    pixels = np.asarray(Image.open(held.path)).copy()
    pixels[0, 0] ^= 1
    Image.fromarray(pixels).save(tmp_path / "copy.png")
    other = snapshot.read(plates.run_of("import", lambda run: importer.run(Import(path=str(tmp_path), name="other"), run, plates.silent)))
    copy = other.pictures[0].image_id
    assert copy != held.image_id and examples.seen("p", lined, [copy], []) == 0
    with pytest.raises(ConfigError, match="near copies"):
        examples.seen("p", lined, [copy], [other.snapshot_id])
    assert examples.seen("p", lined, [], [other.snapshot_id]) == 0, "it stands in that dataset, but was not learned from"
    to_learn = replace(lined, pictures=[replace(held, split="train")])
    assert examples.seen("p", to_learn, [copy], [other.snapshot_id]) == 1, "of train it is told"
    kin = tiny_surface("near kin", learned=(copy,))
    head = rundir.read_json(kin / "head.json")
    rundir.write_json(kin / "head.json", head | dict(datasets=[dict(snapshot_id=other.snapshot_id)]))
    with pytest.raises(ConfigError, match="'near kin' has learned from 1 .* near copies"):
        stable.find("near kin", lined)
    same = [picture("1", "a", group="g"), picture("2", "a", group="g", split="val")]
    with pytest.raises(ConfigError, match="near copies"):
        examples.seen("p", snapshot.Snapshot({"classes": ["a"], "name": "d"}, same, lined.images, lined.labels), ["1"], [])


# ---- what a step sees

def test_boxes_weigh_and_follow_the_picture(lined: snapshot.Snapshot, base: Path) -> None:
    prior = stable.load(base)
    one = lined.by_split("train")[1]
    shown = material.Material(prior, {"across": [one]})
    latents, weight = shown.encoded(one, "across")
    box = one.boxes[0]
    assert latents.shape[1:] == weight.shape == (16, 16)
    inside = np.zeros((SIDE, SIDE))
    inside[int(box.y1):int(box.y2), int(box.x1):int(box.x2)] = 1
    expected = material.OUTSIDE + (1 - material.OUTSIDE) * inside.reshape(16, 4, 16, 4).mean((1, 3))
    assert np.allclose(weight.numpy(), expected, atol=0.02)
    for variation in range(8):
        _, moved = shown.encoded(one, "across", variation)
        turned = np.rot90(expected) if variation & material.TURNED else expected
        turned = turned[::-1] if variation & material.DOWN else turned
        assert np.allclose(moved.numpy(), turned[:, ::-1] if variation & material.ACROSS else turned, atol=0.02)
    assert float(shown.encoded(one, "up_lines")[1].max()) == pytest.approx(material.OUTSIDE), "its boxes are of another class"


def test_batches_follow_from_the_generator_and_classes_come_evenly(lined: snapshot.Snapshot, base: Path) -> None:
    prior, found = stable.load(base), examples.chosen(lined, "", 0.0).learned
    rare = {"up_lines": found["up_lines"], "across": found["across"][:1]}
    shown, again = material.Material(prior, rare), material.Material(prior, rare)
    batches = [shown.batch(np.random.default_rng(i), 8) for i in range(8)]
    repeated = again.batch(np.random.default_rng(5), 8)
    assert torch.equal(repeated.latents, batches[5].latents) and repeated.classes == batches[5].classes
    assert 20 <= sum(b.classes.count("across") for b in batches) <= 44
    assert {v for _, _, v in shown._known} == set(range(8))


def test_pictures_of_many_sizes_share_a_window_with_the_defect(tmp_path: Path, base: Path) -> None:
    plates.imported(tmp_path / "wide", "wide", size=(40, 96))
    wide = examples.chosen(snapshot.read(rundir.find_snapshot("wide")), "", 0.0).learned["bright"]
    plates.imported(tmp_path / "high", "high", size=(88, 56), seed=1)
    high = examples.chosen(snapshot.read(rundir.find_snapshot("high")), "", 0.0).learned["bright"]
    shown = material.Material(stable.load(base), {"bright": wide[:2] + high[:2]})
    sizes = set()
    for i in range(6):
        batch = shown.batch(np.random.default_rng(i), 8)
        assert batch.latents.shape[-2:] == batch.weights.shape[-2:]
        assert (batch.weights.amax((1, 2)) > 0.9).all(), "each window has a part of the square"
        sizes.add(tuple(batch.weights.shape[-2:]))
    assert (10, 14) in sizes


def test_a_small_defect_counts_as_much_as_a_large_one() -> None:
    errors = torch.tensor([[[1.0, 3.0]], [[1.0, 3.0]]])
    found = steps.weighed(errors, torch.tensor([[[1.0, 1.0]], [[0.2, 1.0]]]))
    assert found.tolist() == pytest.approx([2.0, 3.2 / 1.2])


def test_the_pace_rises_and_falls() -> None:
    paces = [steps.pace(i, 100) for i in range(100)]
    assert paces[0] == pytest.approx(0.2) and max(paces) == paces[4] == pytest.approx(0.96) and paces[-1] == pytest.approx(0.01)
    assert steps.pace(0, 1) == 1


# ---- words

def test_placeholders_are_words_of_their_own(base: Path) -> None:
    found = tokens.placeholders("NEU-DET", ["Rolled_in scale", "rolled in-scale", "裂纹"], 2)
    assert found == {"Rolled_in scale": ["<neu-det/rolled-in-scale-0>", "<neu-det/rolled-in-scale-1>"],
                     "rolled in-scale": ["<neu-det/rolled-in-scale.1-0>", "<neu-det/rolled-in-scale.1-1>"],
                     "裂纹": ["<neu-det/x-0>", "<neu-det/x-1>"]}
    prior = stable.load(base)
    before = len(prior.tokenizer)
    learned = tokens.begin(prior.text_encoder, prior.tokenizer, found, seed=0)
    said = tokens.prompt("NEU-DET", "Rolled_in scale", found["Rolled_in scale"])
    assert said == "neu det surface with <neu-det/rolled-in-scale-0> <neu-det/rolled-in-scale-1>"
    assert prior.tokenizer(said).input_ids[-3:-1] == [before, before + 1] and learned.first == before
    assert tokens.prompt("d", "%%", ["<d/x-0>"]) == "d surface with <d/x-0>"
    stable.encode(prior, [said]).sum().backward()
    assert learned.rows.grad is not None and (learned.rows.grad[:2].abs().sum(1) > 0).all() and learned.rows.grad[2:].abs().sum() == 0
    assert all(p.grad is None for p in prior.text_encoder.parameters() if p is not learned.rows)
