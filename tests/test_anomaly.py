"""An anomaly model, from good images to a scored bundle: batches, network, losses, training, resuming."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from backend import rundir
from backend.anomaly import calibrate, corrupt, learn, losses, stages, train
from backend.anomaly.corrupt import Surface, View
from backend.anomaly.memory import GRID, farthest
from backend.anomaly.networks import AnomalyNet, distance
from backend.config import Import, TrainAnomaly, TrainDiffusion
from backend.data import importer, normals, snapshot
from backend.diffusion import ddpm
from backend.errors import Canceled, ConfigError
from backend.inspection.anomaly_engine import AnomalyEngine
from backend.jobs.report import Reporter
from backend.synthesis import pool
from backend.teacher.extractors import Extractor
from pages.components import anomaly_form
from tests import plates
from tests.squares import one_core

SIDE = 64
SMALL = ddpm.Preset((8, 16, 16, 16), 1, crop=16, batch=4, steps=4, ema=0.9)


@pytest.fixture(scope="module", autouse=True)
def _small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFSPECT_DATA", str(tmp_path_factory.mktemp("data")))
        for module in (ddpm, learn, pool):
            patch.setattr(module, "cores", one_core)
        patch.setattr(ddpm, "PREVIEW", 2)
        patch.setattr(train, "DRAWN", 6)
        patch.setitem(ddpm.PRESETS, "tiny", SMALL)
        yield


@pytest.fixture(scope="module")
def paper(tmp_path_factory: pytest.TempPathFactory) -> snapshot.Snapshot:
    """MVTec AD layout: 14 good train pictures of a grainy sheet; test: 2 good, 3 with a dark spot."""
    folder, rng = tmp_path_factory.mktemp("paper"), np.random.default_rng(0)
    for split, kind, n in (("train", "good", 14), ("test", "good", 2), ("test", "spot", 3)):
        (folder / split / kind).mkdir(parents=True)
        for i in range(n):
            pixels = sheet(rng)
            if kind == "spot":
                x, y = rng.integers(8, 40, 2)
                pixels[y:y + 12, x:x + 12] = 40
                mask = np.zeros(pixels.shape[:2], np.uint8)
                mask[y:y + 12, x:x + 12] = 255
                (folder / "ground_truth" / kind).mkdir(parents=True, exist_ok=True)
                Image.fromarray(mask).save(folder / "ground_truth" / kind / f"{i}_mask.png")
            Image.fromarray(pixels).save(folder / split / kind / f"{i}.png")
    run = plates.run_of("import", lambda r: importer.run(Import(path=str(folder), name="paper"), r, plates.silent))
    return snapshot.read(run)


def sheet(rng: np.random.Generator, side: int = 60) -> np.ndarray:
    return np.clip(rng.normal(170, 10, (side, side, 1)) + rng.normal(0, 4, (side, side, 3)), 0, 255).astype(np.uint8)


def config(**more: Any) -> TrainAnomaly:
    return TrainAnomaly(**{"dataset": "paper", "name": "m", "steps": 6, "imgsz": SIDE, "batch": 4, "source": "texture", **more})


def surface(source: str = "mixed", n: int = 5, **more: Any) -> Surface:
    rng = np.random.default_rng(1)
    images = np.stack([sheet(rng, SIDE) for _ in range(n)])
    made = pool.Pool(255 - 2 * images[:2].astype(np.int16), ["0", "1"], {}) if source in ("ddpm", "mixed") else None
    return Surface(images, [str(i) for i in range(n)], source, made, **more)


class Plain(Extractor):
    """A teacher of no weights: averages of the picture and of its square, at two strides."""

    def __init__(self) -> None:
        super().__init__("plain", (6, 6), (4, 8))

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        return [torch.nn.functional.avg_pool2d(torch.cat([images, images.square()], 1), s) for s in self.strides]


# ---- batches

@pytest.mark.parametrize("source", ["ddpm", "texture", "noise", "mixed"])
def test_half_a_batch_stays_good_and_masks_tell_the_rest(source: str) -> None:
    batch = surface(source).batch((0, 0), 8)
    assert batch.clean.shape == batch.shown.shape == (8, SIDE, SIDE, 3) and batch.mask.shape == (8, SIDE, SIDE)
    assert not batch.mask[:4].any() and (batch.clean[:4] == batch.shown[:4]).all()
    assert batch.mask[4:].any((1, 2)).sum() >= 3
    assert not batch.tries[:4].any() and (batch.tries[4:] >= 1).all()
    for clean, shown, mask in zip(batch.clean[4:], batch.shown[4:], batch.mask[4:], strict=True):
        changed = np.abs(clean.astype(int) - shown).max(-1)
        assert mask.any() == changed.any()
        if mask.any():
            assert changed[mask].mean() > 6 * max(1e-9, changed[~mask].mean())


def test_a_batch_follows_from_its_seeds() -> None:
    first, again, other = (surface().batch((3, step), 6) for step in (0, 0, 1))
    assert (first.shown == again.shown).all() and (first.mask == again.mask).all()
    assert (first.shown != other.shown).any()


def test_sources_share_pictures_masks_and_opacities(monkeypatch: pytest.MonkeyPatch) -> None:
    """However much each consumes, and though a try that nobody sees is made anew: each try is the same one in all of them."""
    tried: dict[tuple[str, int], list[tuple[bytes, bytes, float]]] = {}

    def noted(clean: np.ndarray, change: np.ndarray, mask: np.ndarray, opacity: float) -> np.ndarray:
        tried.setdefault((source, step), []).append((clean.tobytes(), mask.tobytes(), opacity))
        return change * mask[..., None] + clean * ~mask[..., None]

    monkeypatch.setattr(corrupt, "blend", noted)
    monkeypatch.setattr(corrupt, "TRIES", 1)
    cleans: dict[tuple[str, int], np.ndarray] = {}
    for source in ("ddpm", "texture", "noise"):
        for step in range(4):
            cleans[source, step] = surface(source, marked=(0, 1)).batch((7, step), 6).clean
    for source in ("texture", "noise"):
        assert all((cleans[source, step] == cleans["ddpm", step]).all() for step in range(4))
        assert all(tried[source, step] == tried["ddpm", step] for step in range(4))
    opacities = [opacity for tries in tried.values() for _, _, opacity in tries]
    assert len(set(opacities)) == 12 and 0.5 <= min(opacities) < max(opacities) <= 1


def test_another_try_is_another_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = list[bytes]()
    monkeypatch.setattr(corrupt, "effective", lambda clean, shown, mask: (seen.append(mask.tobytes()), mask & False)[1])
    batch = surface("noise").batch((0, 0), 2)
    assert len(set(seen)) == corrupt.TRIES == batch.tries[1] and not batch.mask.any()


def test_a_perturbed_defect_is_the_picture_itself_drawn_again() -> None:
    """Each picture has a level of its own and a colour cast, which a grey pool leaves alone; the change is added to no other picture."""
    levels = np.array([40, 80, 120, 160], np.uint8)
    images = np.broadcast_to(levels[:, None, None, None] + np.array([0, 10, 30], np.uint8), (4, SIDE, SIDE, 3)).copy()
    changes = np.broadcast_to(np.array([50, -30], np.int16)[:, None, None, None], (2, SIDE, SIDE, 1))
    made = Surface(images, list("abcd"), "ddpm", pool.Pool(changes, ["b", "d"], {}))
    for step in range(6):
        batch = made.batch((0, step), 8)
        for clean, shown, mask in zip(batch.clean[4:], batch.shown[4:], batch.mask[4:], strict=True):
            (level,) = np.unique(clean[..., 0])
            tint = np.ptp(clean[0, 0].astype(int))
            parent = next(i for i in (1, 3) if abs(int(level) - int(levels[i])) <= levels[i] * corrupt.GAIN + corrupt.OFFSET + 1)
            off = shown[mask].astype(int) - clean[0, 0]
            assert mask.any() and (np.sign(off) == (1 if parent == 1 else -1)).all(), (level, off)
            assert abs(np.ptp(shown[mask].astype(int), axis=1) - tint).max() <= 2


def test_mixed_sources_perturb_only_pictures_of_the_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = dict[str, set[int]]()
    before = Surface._filling

    def noted(self: Surface, rng: np.random.Generator, kind: str, clean: np.ndarray, i: int, view: View) -> np.ndarray:
        asked.setdefault(kind, set()).add(i)
        return before(self, rng, kind, clean, i, view)

    monkeypatch.setattr(Surface, "_filling", noted)
    for step in range(20):
        surface("mixed").batch((0, step), 6)
    assert set(asked) == set(corrupt.KINDS) and asked["ddpm"] == {0, 1}
    assert set.union(*(asked[k] for k in corrupt.KINDS if k != "ddpm")) == set(range(5))


def test_as_many_pictures_carry_defects_whatever_fills_them(paper: snapshot.Snapshot) -> None:
    """Those that a pool holds, also where none is made."""
    train_pictures, _ = train.divided(paper)
    marked = stages.marked(config(source="noise", perturbed=5), train_pictures)
    chosen = {p.image_id for p in pool._parents(paper, train_pictures, 5, stages.SEED)}
    assert {train_pictures[i].image_id for i in marked} == chosen and len(marked) == 5
    assert len(stages.marked(config(perturbed=500), train_pictures)) == len(train_pictures)


def test_flips_can_be_switched_off() -> None:
    gradient = np.repeat(np.arange(SIDE, dtype=np.uint8)[None, :, None] * 3, SIDE, 0).repeat(3, 2)

    def rising(flips: bool) -> set[bool]:
        views = [View.drawn(np.random.default_rng(i), SIDE, flips)(gradient) for i in range(20)]
        return {bool(v[0, -1, 0] > v[0, 0, 0]) for v in views}

    assert rising(True) == {True, False} and rising(False) == {True}


def test_a_view_shows_nothing_but_the_picture() -> None:
    """Enlarged and moved, no border comes in, and brightness changes within its range."""
    flat = np.full((SIDE, SIDE, 3), 100, np.uint8)
    for i in range(20):
        seen = View.drawn(np.random.default_rng(i), SIDE, True)(flat)
        assert np.ptp(seen) == 0
        assert abs(int(seen[0, 0, 0]) - 100) <= 100 * corrupt.GAIN + corrupt.OFFSET + 1


def test_masks_keep_to_the_foreground() -> None:
    images = np.full((4, SIDE, SIDE, 3), 20, np.uint8)
    images[:, 16:48, 16:48] = sheet(np.random.default_rng(0), 32)
    batch = Surface(images, list("abcd"), "noise", foreground=True).batch((0, 0), 8)
    outside = np.array([c.max(-1) < 60 for c in batch.clean])
    assert batch.mask.any() and (batch.mask & outside).sum() < 0.1 * batch.mask.sum()


def test_drawn_defects_can_be_seen() -> None:
    for level in (10, 120, 250):
        image = np.full((SIDE, SIDE, 3), level, np.uint8)
        for i in range(12):
            shown, mask = corrupt.drawn(np.random.default_rng(i), image)
            assert 0 < mask.mean() < 0.4
            assert (np.abs(shown.astype(int) - level).max(-1)[mask] > 0).mean() > 0.9
            assert (shown[~mask] == level).all() or np.abs(shown[~mask].astype(int) - level).mean() < 3


# ---- network and losses

def test_the_distance_of_average_features_is_no_noise() -> None:
    """Standardised features near the average point anywhere; a far one is far all the same."""
    near = torch.randn(1, 8, 4, 4, generator=torch.Generator().manual_seed(0)) * 0.1
    assert distance(near, near).abs().max() < 1e-6
    assert distance(near, -near).max() < 0.05 < 0.3 < distance(near + 3, near).min()


def test_maps_have_a_quarter_of_the_side_and_teachers_of_other_strides_fit() -> None:
    net = AnomalyNet(Plain()).eval()
    images = torch.rand(2, 3, SIDE, SIDE)
    cosine, logit = net(images)
    assert cosine.shape == logit.shape == (2, 1, SIDE // 4, SIDE // 4)
    assert [m.shape for m in net.teacher(images)] == [m.shape for m in net.student(images)]


def test_teacher_features_are_standardised_by_what_was_measured() -> None:
    net = AnomalyNet(Plain())
    images = torch.rand(8, 3, SIDE, SIDE) * torch.rand(8, 3, 1, 1)
    net.measure([images[:6], images[6:]], net.extractor)
    for maps in net.teacher(images):
        assert maps.mean((0, 2, 3)).abs().max() < 1e-4 and (maps.std((0, 2, 3)) - 1).abs().max() < 1e-2


def test_a_constant_channel_does_not_blow_up() -> None:
    class Dead(Plain):
        def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
            return [torch.cat([m[:, :5], m[:, 5:] * 1e-12], 1) for m in super().forward(images)]

    net = AnomalyNet(Dead())
    net.measure([torch.rand(4, 3, SIDE, SIDE)], net.extractor)
    assert all(float(m.abs().max()) < 50 for m in net.teacher(torch.rand(1, 3, SIDE, SIDE)))


@pytest.mark.parametrize("loss", ["cosine", "segmentation"])
def test_what_was_not_learned_repeats_what_was(loss: str) -> None:
    cosine, logit = AnomalyNet(Plain(), loss).eval()(torch.rand(2, 3, SIDE, SIDE))
    assert torch.equal(cosine, logit if loss == "cosine" else logit.sigmoid())


def test_a_patch_is_as_far_as_the_nearest_that_is_remembered() -> None:
    """Against plain distances; what is remembered is at none."""
    torch.manual_seed(0)
    images, strange = torch.rand(6, 3, SIDE, SIDE) * 0.3, torch.rand(1, 3, SIDE, SIDE)
    net = AnomalyNet(Plain(), memory=1000).eval()                   # all patches of these images, and some twice
    net.remember([images[:4], images[4:]], 6, SIDE, net.extractor, 0)
    memory = net.memory
    assert memory is not None and len(memory.get_buffer("patches")) == 1000 > 6 * (SIDE // GRID) ** 2
    asked = memory.described(net.teacher(strange), SIDE)            # (1, C, h, w)
    found = memory(net.teacher(strange), SIDE)
    plain = torch.cdist(asked.flatten(2)[0].T, memory.get_buffer("patches")).amin(1).view(found.shape)
    torch.testing.assert_close(found, plain, atol=2e-3, rtol=1e-3)
    assert memory(net.teacher(images), SIDE).max() < 0.1 * found.mean()
    maps = net(strange)
    assert len(maps) == 3 and maps[2].shape == maps[0].shape == (1, 1, SIDE // 4, SIDE // 4)
    assert len(AnomalyNet(Plain()).eval()(strange)) == 2


def test_what_is_rare_is_remembered() -> None:
    patches = torch.randn(500, 8, generator=torch.Generator().manual_seed(0))
    patches[[123, 321]] += 30
    patches[321] -= 70
    chosen = farthest(patches, 10, torch.Generator().manual_seed(0)).tolist()
    assert len(set(chosen)) == 10 and {123, 321} <= set(chosen[:3])


def test_the_teacher_never_learns() -> None:
    net = AnomalyNet(Plain()).train()
    assert net.student.training and not net.extractor.training


def test_focal_loss_is_that_of_the_hardest_pixels() -> None:
    mask = torch.zeros(1, 1, 10, 10)
    logit = torch.full_like(mask, -20)
    logit[..., 0, :5] = 3                                           # five false alarms among ten hardest of a hundred
    entropy = float(torch.nn.functional.softplus(torch.tensor(3.0)))
    found = 0.5 * entropy * (1 - np.exp(-entropy)) ** losses.GAMMA
    assert float(losses.focal(logit, mask)) == pytest.approx(found, rel=1e-4)
    worse = torch.full_like(mask, 5.0)                              # of another image of the batch: each has its own hardest
    assert float(losses.focal(torch.cat([logit, worse]), torch.cat([mask, 1 - mask]))) == pytest.approx(found / 2, rel=1e-2)


def test_the_whole_images_term_asks_for_cold_good_images_and_hot_defects() -> None:
    """By the highest cells alone, whose mean is the score."""
    mask = torch.zeros(2, 1, 64, 64)
    mask[1, 0, 20:30, 20:30] = 1
    logit = torch.full((2, 1, 32, 32), -6.0)
    logit[1, 0, 8:16, 8:16] = 6
    assert float(losses.whole(logit, mask, 128)) < 0.01
    alarm, missed = logit.clone(), logit.clone()
    alarm[0, 0, 3:11, 3:11] = 6
    missed[1] = -6
    assert min(float(losses.whole(m, mask, 128)) for m in (alarm, missed)) > 0.5 * losses.WHOLE * 5
    noisy = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):                     # as in training where the processor has it: a score stays float32
        found = losses.whole(noisy, mask, 128)
    assert torch.equal(found, losses.whole(noisy, mask, 128))
    warm = logit.clone()
    warm[0, 0, 16:] = -5                                            # half of the cells, none of them hot
    assert float(losses.whole(warm, mask, 128)) < 0.01


def test_dice_counts_images_alike_and_leaves_good_ones_out() -> None:
    mask = torch.zeros(3, 1, 8, 8)
    mask[0, 0, 0, :2], mask[1, 0, :4] = 1, 1
    right = torch.where(mask > 0, 20.0, -20.0)
    assert float(losses.dice(right, mask)) == pytest.approx(0, abs=1e-4)
    missed = right.clone()
    missed[0] = -20                                                 # the small one of two: 1 - SMOOTH / (2 + SMOOTH), halved
    assert float(losses.dice(missed, mask)) == pytest.approx((1 - 1 / 3) / 2, abs=1e-3)
    assert float(losses.dice(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4))) == 0
    assert float(losses.l1(right, mask)) < 1e-4 < float(losses.l1(missed, mask))


# ---- training

def training(scratch: Path, **more: Any) -> learn.Training:
    scratch.mkdir(exist_ok=True)
    made = config(**more)
    torch.manual_seed(made.seed)
    return learn.Training(made, AnomalyNet(Plain(), made.loss), surface("noise"), scratch)


def test_training_learns(tmp_path: Path) -> None:
    """What noise on a sheet looks like is soon told from the sheet; the student comes nearer to the teacher."""
    learning = training(tmp_path, steps=32, batch=6, learning_rate=3e-3)
    told = [learning.advance() for _ in range(32)]
    first, last = ({k: np.mean([t[k] for t in part]) for k in told[0]} for part in (told[:8], told[-8:]))
    assert set(first) == {"cosine_loss", "focal_loss", "overlap_loss", "image_loss"}
    assert all(last[k] < 0.9 * first[k] for k in first), (first, last)


def test_a_killed_training_comes_to_the_same_losses(tmp_path: Path) -> None:
    straight = training(tmp_path / "a")
    expected = [straight.advance() for _ in range(6)]
    killed = training(tmp_path / "b")
    for _ in range(3):
        killed.advance()
    killed.save()
    resumed = training(tmp_path / "b")
    assert resumed.step == 3
    for want, told in zip(expected[3:], [resumed.advance() for _ in range(3)], strict=True):
        assert told == pytest.approx(want, rel=1e-3)
    assert not torch.equal(resumed.net.student.stem[0].weight, training(tmp_path / "c").net.student.stem[0].weight)


def test_two_phases_are_first_the_student_then_the_head(tmp_path: Path) -> None:
    learning = training(tmp_path, phases="two", steps=5)
    state = lambda module: torch.cat([v.float().flatten() for v in module.state_dict().values()])  # noqa: E731
    student, head = [state(learning.net.student)], [state(learning.net.head)]
    told = []
    for _ in range(5):
        told.append(set(learning.advance()))
        student.append(state(learning.net.student))
        head.append(state(learning.net.head))
    assert told[:2] == [{"cosine_loss"}] * 2 and told[2:] == [{"focal_loss", "overlap_loss", "image_loss"}] * 3
    assert not torch.equal(student[0], student[2]) and torch.equal(student[2], student[5])      # batch statistics too
    assert torch.equal(head[0], head[2]) and not torch.equal(head[2], head[5])


@pytest.mark.parametrize(("loss", "names"), [("cosine", {"cosine_loss"}), ("segmentation", {"focal_loss", "overlap_loss", "image_loss"})])
def test_one_loss_alone(tmp_path: Path, loss: str, names: set[str]) -> None:
    learning = training(tmp_path, loss=loss, overlap="l1")
    before = learning.net.student.stem[0].weight.clone()
    assert set(learning.advance()) == names
    assert not torch.equal(before, learning.net.student.stem[0].weight)             # with segmentation alone the student learns too


@pytest.mark.parametrize("coupled", [False, True])
def test_the_heads_gradient_reaches_the_student_where_it_is_asked_to(tmp_path: Path, coupled: bool) -> None:
    learning = training(tmp_path, coupled=coupled)
    found = learning._losses(learning.surface.batch((0, 0), 4))
    (found["focal_loss"] + found["overlap_loss"]).backward()
    student, head = ([p.grad for p in module.parameters() if p.grad is not None] for module in (learning.net.student, learning.net.head))
    assert head and any(bool(g.any()) for g in student) is coupled


def test_the_heads_gradient_is_clipped_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A head of a thousand times the gradient leaves the student's step as it was."""
    def step(times: float) -> torch.Tensor:
        learning = training(tmp_path / str(times), learning_rate=0.1)
        before, losses_of = learning.net.student.stem[0].weight.detach().clone(), learning._losses
        monkeypatch.setattr(learning, "_losses", lambda batch: {k: v * (1 if k == "cosine_loss" else times)
                                                                for k, v in losses_of(batch).items()})
        monkeypatch.setattr(learning, "optimizer", torch.optim.SGD(learning.optimizer.param_groups, 0.1))
        learning.advance()
        return learning.net.student.stem[0].weight.detach() - before

    assert torch.allclose(step(1.0), step(1000.0), atol=1e-7) and step(1.0).abs().max() > 1e-6


def test_defects_that_nobody_sees_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every second try is seen; what was counted outlives a kill."""
    tries = list[int]()
    monkeypatch.setattr(corrupt, "effective", lambda clean, shown, mask: (tries.append(1), mask & (len(tries) % 2 == 0))[1])
    learning = training(tmp_path)
    learning.advance()
    learning.save()
    monkeypatch.setattr(corrupt, "effective", lambda clean, shown, mask: mask & False)
    resumed = training(tmp_path)
    resumed.advance()
    told = resumed.told_of_defects()
    assert told == dict(drawn=4 + 2 * corrupt.TRIES, unseen=round(1 - 2 / (4 + 2 * corrupt.TRIES), 4), stayed_good=0.5)
    assert "83.3% could not be seen" in train._seen(told) and "50.0% of the images" in train._seen(told)


# ---- the recipe

@pytest.fixture(scope="module")
def done(paper: snapshot.Snapshot) -> SimpleNamespace:
    """With the diffusion model's defects, from nothing: all stages."""
    run = rundir.create("train-anomaly", {})
    result = train.run(config(source="mixed", perturbed=4, diffusion_steps=3), run, Reporter(run))
    return SimpleNamespace(run=run, result=result, head=rundir.read_json(run / "model" / "model.json"),
                           curve=[json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()])


def test_a_run_leaves_a_scored_model(done: SimpleNamespace) -> None:
    assert {p.name for p in done.run.iterdir() if p.is_dir()} == {"parts", "model", "anomaly", "denoiser", "perturbed"}
    head, result = done.head, done.result
    assert head["kind"] == "anomaly" and head["model_id"] == result["model_id"] and head["settings"]["source"] == "mixed"
    assert head["metrics"]["test"]["images"] == 5 and head["metrics"]["test"]["defective"] == 3
    assert result["image_auroc"] == head["metrics"]["test"]["image_auroc"] is not None
    assert head["thresholds"] == {} and "300 good pictures" in result["threshold_refused"]
    assert result["images"] + result["held_out"] == 14 and result["held_out"] == 2 and result["reused"] == {}
    assert result["near_duplicates"] == 0 and result["defects"]["drawn"] >= 6 * 2
    (look,) = [r for r in rundir.rows(done.run, "looks").to_pylist() if r["split"] == "test"]
    assert (look["model_id"], look["images"], look["good_images"]) == (head["model_id"], 5, 2)
    assert look["test_set_id"] == rundir.test_set_id(rundir.find_snapshot("paper"))
    assert rundir.rows(done.run, "models").to_pylist()[0]["kind"] == "anomaly"
    assert {"cosine_loss", "focal_loss", "overlap_loss", "image_loss"} <= done.curve[-1].keys()
    with Image.open(done.run / "samples.png") as samples:
        step, pixels = learn.SHOWN + learn.GAP, np.asarray(samples)
        assert samples.size == (4 * step - learn.GAP, learn.PREVIEWS * step - learn.GAP) and learn.GAP == 2
        assert all((pixels[k * step - 2:k * step] == 255).all() and (pixels[:, k * step - 2:k * step] == 255).all() for k in (1, 2, 3))
    engine = AnomalyEngine(done.run / "model")
    assert engine.maps([engine.prepare(sheet(np.random.default_rng(9)))]).shape == (1, SIDE // 4, SIDE // 4)


def test_what_is_there_is_used_again(done: SimpleNamespace, paper: snapshot.Snapshot) -> None:
    run = rundir.create("train-anomaly", {})
    result = train.run(config(source="ddpm", perturbed=4, steps=1, diffusion_steps=3), run, plates.silent)
    assert result["reused"] == {"denoiser": done.run.name, "perturbed": done.run.name}
    assert not (run / "denoiser").exists() and not (run / "perturbed").exists()


def test_what_follows_training_is_asked_anew_without_it(done: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another threshold, another name, no memory: the same weights. Another seed: others."""
    settings, run = dict(source="mixed", perturbed=4, diffusion_steps=3), rundir.create("train-anomaly", {})
    with monkeypatch.context() as patch:
        patch.setattr(learn.Training, "advance", lambda self: pytest.fail("it was trained again"))
        result = train.run(config(**settings, name="again", false_rejects=0.4, memory=0), run, plates.silent)
        with pytest.raises(pytest.fail.Exception, match="trained again"):
            train.run(config(**settings, seed=5), rundir.create("train-anomaly", {}), plates.silent)
    assert result["reused"] == {"denoiser": done.run.name, "perturbed": done.run.name, "training": done.run.name}
    told = ("steps", "losses", "defects", "seconds", "seconds_per_step")
    assert {k: result[k] for k in told} == {k: done.result[k] for k in told} and result["name"] == "again"
    weights, before = (load_file(r / "anomaly" / "network.safetensors") for r in (run, done.run))
    assert set(before) - set(weights) == {"memory.patches"} and all(torch.equal(weights[k], before[k]) for k in weights)
    head = rundir.read_json(run / "model" / "model.json")
    kept = (run / "anomaly" / "network.safetensors").read_bytes()
    (run / "anomaly" / "network.safetensors").write_bytes(b"cut")       # the newest of that training
    monkeypatch.setattr(learn.Training, "advance", lambda self: pytest.fail("it was trained again"))
    with pytest.raises(pytest.fail.Exception, match="trained again"):
        train.run(config(**settings, name="third"), rundir.create("train-anomaly", {}), plates.silent)
    (run / "anomaly" / "network.safetensors").write_bytes(kept)
    assert "memory_weight" in done.head["chosen"] and "memory_weight" not in head["chosen"] and head["chosen"]["step"] == result["steps"]


def test_cosine_alone_makes_the_student_of_both(tmp_path: Path) -> None:
    """To the last bit, whatever the head learns beside it; one that learned from both gradients is another."""
    students = {}
    for name, more in dict(both={}, cosine=dict(loss="cosine"), l1=dict(overlap="l1"), coupled=dict(coupled=True)).items():
        learning = training(tmp_path / name, **more)
        for _ in range(2):
            learning.advance()
        students[name] = learning.net.student.state_dict()
    same = {n: all(torch.equal(of[k], students["cosine"][k]) for k in of) for n, of in students.items()}
    assert same == dict(both=True, cosine=True, l1=True, coupled=False)


def test_cosine_alone_takes_the_student_of_both(done: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of no other training, nor the other way round; and what it says of itself is not the other's."""
    settings, run = dict(source="mixed", perturbed=4, diffusion_steps=3), rundir.create("train-anomaly", {})
    asked, find = list[str](), rundir.find_artifact
    with monkeypatch.context() as patch:
        patch.setattr(learn.Training, "advance", lambda self: pytest.fail("it was trained again"))
        patch.setattr(rundir, "find_artifact", lambda kind, **of: (asked.extend(of.get("training", "").split()), find(kind, **of))[1])
        result = train.run(config(**settings, loss="cosine"), run, plates.silent)
        with pytest.raises(pytest.fail.Exception, match="trained again"):
            train.run(config(**settings, loss="cosine", seed=5), rundir.create("train-anomaly", {}), plates.silent)
    head = rundir.read_json(done.run / "anomaly" / "head.json")
    assert result["reused"]["training"] and head["training"] == asked[1] and set(result["losses"]) == {"cosine_loss"}
    assert result["defects"] == done.result["defects"] and not {"seconds", "seconds_per_step"} & set(result)
    taken, made = (load_file(r / "anomaly" / "network.safetensors") for r in (run, done.run))
    assert all(torch.equal(taken[k], made[k]) for k in made if k.startswith("student."))
    others = [config(**more) for more in ({}, dict(loss="segmentation"), dict(coupled=True), dict(phases="two"))]
    assert [train.same_lessons(one) for one in others] == [[one] for one in others]
    told = {(c.loss, c.overlap, c.coupled, c.phases) for c in train.same_lessons(config(loss="cosine"))[1:]}
    assert told == {("both", "dice", False, "joint"), ("both", "l1", False, "joint")}


def test_a_run_that_was_killed_with_all_done_says_the_same(done: SimpleNamespace) -> None:
    (done.run / "training-anomaly").mkdir()
    again = train.run(config(source="mixed", perturbed=4, diffusion_steps=3), done.run, plates.silent)
    assert again == done.result and not (done.run / "training-anomaly").exists()


def test_canceled_leaves_nothing(paper: snapshot.Snapshot) -> None:
    run = rundir.create("train-anomaly", {})

    def report(*, step: int, total: int, message: str = "", **metrics: float) -> None:
        if step == 2:
            raise Canceled

    with pytest.raises(Canceled):
        train.run(config(), run, report)
    assert {p.name for p in run.iterdir() if p.is_dir()} == {"parts"}


def test_test_images_are_never_learned_from(paper: snapshot.Snapshot) -> None:
    known, held = train.divided(paper)
    tested = {p.image_id for p in paper.by_split("test")}
    assert len(known) == 12 and len(held) == 2
    assert not {p.image_id for p in known} & {p.image_id for p in held} and not {p.image_id for p in known + held} & tested


def test_good_val_images_are_held_out_and_marked_ones_are_nowhere(tmp_path: Path) -> None:
    """Plates: train and val have one good picture each, so there is too little to learn from."""
    data = snapshot.read(plates.imported(tmp_path / "in", "plates"))
    with pytest.raises(ConfigError, match="has 1 without a labelled defect; at least 2"):
        train.divided(data)
    without = snapshot.read(plates.imported(tmp_path / "bare", "bare", boxes="none"))
    known, held = train.divided(without)
    assert {p.split for p in known} == {"train"} and {p.split for p in held} == {"val"}


def test_synthetic_images_are_no_test_and_no_normal(paper: snapshot.Snapshot) -> None:
    def changed(split: str) -> snapshot.Snapshot:
        pictures = [replace(p, origin="synthetic") if p.split == split and i % 2 else p for i, p in enumerate(paper.pictures)]
        return replace(paper, pictures=pictures)

    with pytest.raises(ConfigError, match="real ones only"):
        train.divided(changed("test"))
    known, held = train.divided(changed("train"))
    assert 0 < len(known + held) < 14 and all(p.origin == "real" for p in known + held)


@pytest.mark.parametrize(("more", "said"), [
    (dict(name=""), "a name"), (dict(imgsz=100), "multiple of 32"), (dict(phases="two", loss="cosine"), "both losses"),
    (dict(coupled=True, phases="two"), "to couple"), (dict(coupled=True, loss="segmentation"), "to couple"),
    (dict(overlap="l1", loss="cosine"), "nothing is segmented"), (dict(denoiser="d"), "texture take no diffusion model"),
    (dict(diffusion_steps=3), "texture take no diffusion model"),
    (dict(source="ddpm", denoiser="d", diffusion_steps=3), "used as it is")])
def test_settings_that_do_not_fit(more: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        train.run(config(**more), Path("unused"), plates.silent)


def test_what_nothing_asks_for_does_not_count() -> None:
    def key(**more: Any) -> str:
        return train.key_of(config(**more), "s", [])

    assert key() == key(preset="small") == key(diffusion_steps=5) == key(denoiser="d") == key(dataset="other")
    assert key(loss="cosine") == key(loss="cosine", overlap="l1") != key()
    assert len({key(), key(overlap="l1"), key(coupled=True), key(near_duplicates=True), key(perturbed=5), key(steps=7)}) == 6


def test_near_duplicates_of_what_is_judged_by_are_left_out(paper: snapshot.Snapshot) -> None:
    """Two train pictures nearly equal one of test, one nearly equals one of val, and one of val one of test."""
    good = [p for p in paper.by_split("train") if p.is_good]
    split = {p.image_id: "val" if p in good[:4] else p.split for p in paper.pictures}
    group = dict(zip((p.image_id for p in (*good[5:7], good[0], good[7], good[1])), "ttvvu", strict=True))
    group |= dict(zip((p.image_id for p in paper.by_split("test")[:2]), "tu", strict=True))
    data = replace(paper, pictures=[replace(p, split=split[p.image_id], group_id=group.get(p.image_id, p.image_id))
                                    for p in paper.pictures])
    known, held = train.divided(data)
    ids, already = (lambda some: {p.image_id for p in some}), paper.by_split("val")
    assert ids(known) == ids([good[4], *good[8:]]) and ids(held) == ids([good[0], good[2], good[3], *already])
    assert train.left_out(data) == 4 and train.left_out(paper) == 0
    known, held = train.divided(data, near_duplicates=True)
    assert ids(known) == ids(good[4:]) and ids(held) == ids([*good[:4], *already])
    few = replace(data, pictures=[p for p in data.pictures if p.split != "train" or p.group_id in "tv"])
    with pytest.raises(ConfigError, match="has 0 without a labelled defect and resembling none of val or test, as 4 more do; at least 2"):
        train.divided(few)


def test_a_denoiser_of_near_duplicates_is_not_used_again(done: SimpleNamespace, paper: snapshot.Snapshot) -> None:
    """One of the same settings that has learned from another number of good images is of an earlier version."""
    group = {p.image_id: "t" for p in (train.divided(paper)[0][0], paper.by_split("test")[0])}
    data = replace(paper, pictures=[replace(p, group_id=group.get(p.image_id, p.image_id)) for p in paper.pictures])
    assert len(train.divided(data)[0]) != done.result["images"]
    asked = config(source="ddpm", diffusion_steps=3)
    reused, run = dict[str, str](), rundir.create("train-anomaly", {})
    made = stages.denoiser(asked, data, run, stages.Plan(asked, plates.silent), reused)
    assert made == run / "denoiser" and not reused
    with pytest.raises(ConfigError, match="has learned from 12 images, and 11 are good"):
        named = replace(asked, denoiser=done.run.name, diffusion_steps=None)
        stages.denoiser(named, data, run, stages.Plan(named, plates.silent), reused)
    shutil.rmtree(run / "denoiser")                                  # of these pictures only: others must not find it


def test_the_least_share_is_what_the_most_held_out_images_can_tell() -> None:
    assert pytest.approx(calibrate.ENOUGH / 0.0015) == normals.MOST == anomaly_form.MOST
    assert calibrate.threshold(np.arange(normals.MOST, dtype=np.float32), 0.0015)[0] is not None
    with pytest.raises(ConfigError, match="false_rejects"):
        config(false_rejects=0.0014)


def test_a_denoiser_that_is_not_there(paper: snapshot.Snapshot) -> None:
    from backend.errors import NotFoundError

    with pytest.raises(NotFoundError, match="'other'"):
        train.run(config(source="ddpm", denoiser="other"), rundir.create("train-anomaly", {}), plates.silent)


def test_the_lesson_of_a_new_denoiser_is_the_config_s(done: SimpleNamespace) -> None:
    head = rundir.read_json(done.run / "denoiser" / "head.json")
    lesson = TrainDiffusion(dataset="paper", name="x", steps=3, precision="auto", good=True)
    assert head["key"] == ddpm.key(lesson, done.head["snapshot_id"]) and head["good"] and head["images"] == done.result["images"] == 12


def test_only_a_denoiser_of_good_images_will_do(paper: snapshot.Snapshot) -> None:
    """One that may have learned defects is refused by name; without a name it is passed over, though it is newer."""
    plain, good = (plates.run_of("train-diffusion", lambda run, good=good: ddpm.run(TrainDiffusion(     # type: ignore[misc]
        dataset="paper", name=f"good {good}", steps=0, good=good), run, plates.silent)) for good in (False, True))
    plan = stages.Plan(config(source="ddpm"), plates.silent)
    with pytest.raises(ConfigError, match="'good False' was not trained on good images only"):
        stages.denoiser(config(source="ddpm", denoiser="good False"), paper, plain, plan, {})
    assert stages.denoiser(config(source="ddpm", denoiser="good True"), paper, plain, plan, {}) == good / "denoiser"
    run, reused = rundir.create("train-anomaly", {}), dict[str, str]()
    made = stages.denoiser(config(source="ddpm", diffusion_steps=2), paper, run, plan, reused)
    assert made == run / "denoiser" and not reused, "a control of no steps is no match"
    again = stages.denoiser(config(source="ddpm", diffusion_steps=2), paper, rundir.create("train-anomaly", {}), plan, reused)
    assert again == made and reused == {"denoiser": run.name}


@pytest.mark.parametrize("seed", [67555, 82025, 85138])
@pytest.mark.parametrize("level", [255, 0, 128])
def test_a_drawn_defect_can_be_seen_on_any_surface(seed: int, level: int) -> None:
    """On white, each of these seeds chose white nine times."""
    surface = np.full((SIDE, SIDE, 3), level, np.uint8)
    shown, mask = corrupt.drawn(np.random.default_rng([7, seed]), surface)
    assert mask.any() and (shown[mask] != level).any()


def test_held_out_images_are_scored_up_to_a_limit(done: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    normals = [sheet(np.random.default_rng(i), SIDE) for i in range(12)]
    defects = train.made(normals, 0)
    for most, good, bad in ((4, 4, 3), (100, 12, 6)):
        monkeypatch.setattr(train, "SCORED", most)
        found = train._on_held_out(done.run / "model", normals, defects)
        assert (found["images"], found["defective"]) == (good + bad, bad) and len(defects) == 6
