"""Features follow the augmentation: a picture warped by the matrices that a batch carries is the picture in that batch."""

import pickle
import random
from collections.abc import Iterator
from copy import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from ultralytics.cfg import DEFAULT_CFG
from ultralytics.utils import IterableSimpleNamespace

from backend.detection import warp
from backend.detection.trainer import Boxes
from backend.detection.warp import Sources, Tracked

SIDE, SQUARE = 160, 200                                     # network input; the square that maps cover
SIZES = [(160, 160), (160, 104), (112, 160), (200, 140), (120, 90), (90, 180)]          # w, h: as they are, shrunk, enlarged
GREY = 114                                                  # what Ultralytics fills with
STILL = dict(hsv_h=0.0, hsv_s=0.0, hsv_v=0.0)
PLAIN = dict(STILL, mosaic=0.0, degrees=0.0, translate=0.0, scale=0.0, flipud=0.0, fliplr=0.0)
WILD = dict(STILL, degrees=25.0, translate=0.2, scale=0.4, shear=12.0, perspective=0.0015, flipud=0.5, fliplr=0.5)


# ---- pictures

def waves(w: int, h: int, i: int) -> np.ndarray:
    """A smooth pattern that is nowhere and in no picture the same, and a few blobs."""
    y, x = np.mgrid[:h, :w] + 0.5
    rng = np.random.default_rng(i)
    angles, periods, phases = rng.uniform(0, np.pi, 3), rng.uniform(40, 60, 3), rng.uniform(0, 6, 3)
    pixels = [128 + 80 * np.sin(2 * np.pi * (x * np.cos(a) + y * np.sin(a)) / p + f)
              for a, p, f in zip(angles, periods, phases, strict=True)]
    for cx, cy in rng.uniform(0, 1, (5, 2)) * (w, h):
        pixels[rng.integers(3)] += 40 * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 2 / 7 ** 2)
    return np.stack(pixels, -1)


def mark(i: int) -> tuple[float, float]:
    """Where the one blob of a picture is, in shares. Near the middle: a mosaic cuts the rest away."""
    return 0.42 + 0.03 * i, 0.6 - 0.04 * i


def blob(w: int, h: int, i: int) -> np.ndarray:
    y, x = np.mgrid[:h, :w] + 0.5
    cx, cy = mark(i)
    bump = 140 * np.exp(-((x - cx * w) ** 2 + (y - cy * h) ** 2) / 2 / 4 ** 2)
    return np.repeat(GREY + bump[..., None], 3, -1)


def flat(w: int, h: int, i: int) -> np.ndarray:
    return np.full((h, w, 3), 30 * i + 10.0)                # 10, 40, ... 160: never the filling


BOXES = [[0.3, 0.3, 0.2, 0.15], [0.7, 0.6, 0.12, 0.3]]      # of every picture: cx, cy, w, h


class Plant:
    """A YOLO folder of drawn pictures, and the pictures as maps over a common square."""

    def __init__(self, folder: Path, paint: Any) -> None:
        self.images, self.maps, self.extents = folder / "images", {}, {}
        self.images.mkdir(parents=True)
        (folder / "labels").mkdir()
        for i, (w, h) in enumerate(SIZES):
            pixels = paint(w, h, i).round().astype(np.uint8)
            Image.fromarray(pixels).save(self.images / f"p{i}.png")
            (folder / "labels" / f"p{i}.txt").write_text("".join(f"0 {' '.join(map(str, b))}\n" for b in BOXES))
            square = np.pad(pixels, ((0, SQUARE - h), (0, SQUARE - w), (0, 0)), "symmetric")
            self.maps[f"p{i}"] = torch.from_numpy(square).permute(2, 0, 1).float()
            self.extents[f"p{i}"] = torch.tensor([w / SQUARE, h / SQUARE])

    def dataset(self, kind: type[Boxes] = Tracked, augment: bool = True, **hyp: Any) -> Boxes:
        settings = IterableSimpleNamespace(**{**vars(DEFAULT_CFG), **hyp})
        return kind(img_path=str(self.images), imgsz=SIDE, batch_size=4, augment=augment, hyp=settings, rect=False, stride=32,
                    pad=0.0, task="detect", data={"names": {0: "a"}, "channels": 3})

    def warped(self, sources: Sources, batch: int, size: tuple[int, int] = (SIDE, SIDE)) -> Tensor:
        maps, extents = (torch.stack([of[k] for k in sources.key]) for of in (self.maps, self.extents))
        return warp.warp(maps, sources, extents, batch, size)


@pytest.fixture(scope="module")
def plants(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    root = tmp_path_factory.mktemp("warp")
    return SimpleNamespace(**{paint.__name__: Plant(root / paint.__name__, paint) for paint in (waves, blob, flat)})


@pytest.fixture(autouse=True)
def _one_thread_and_seed() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    seed(0)
    yield
    torch.set_num_threads(threads)


def seed(n: int) -> None:
    random.seed(n)
    np.random.seed(n)
    torch.manual_seed(n)


def batches(dataset: Boxes, rounds: int = 1, size: int = 3) -> Iterator[dict[str, Any]]:
    for _ in range(rounds):
        for start in range(0, len(dataset), size):
            yield dataset.collate_fn([dataset[i] for i in range(start, start + size)])


def shown(sources: Sources) -> Tensor:
    """Where each source shows, at every pixel: float (N, 1, H, W)."""
    return warp.look_up(sources.matrix, sources.clip, (SIDE, SIDE))[1].view(-1, 1, SIDE, SIDE).float()


def inner(masks: Tensor, by: int) -> Tensor:
    """Masks (N, 1, H, W) without `by` pixels along their edges and the input's, where interpolation mixes in what lies beyond."""
    return 1 - F.max_pool2d(F.pad(1 - masks, (by,) * 4, value=1.0), 2 * by + 1, 1)


def check(plant: Plant, batch: dict[str, Any]) -> float:
    """The batch's images are its sources, warped; where none shows there is filling. Returns the share of pixels compared."""
    sources, images = batch["sources"], batch["img"].float()
    masks = shown(sources)
    away = torch.zeros(len(images), 1, SIDE, SIDE).index_add(0, sources.image, inner(masks, 3)) == 1
    off = (plant.warped(sources, len(images)) - images).abs()[away.expand_as(images)]
    assert off.max() < 3 and off.mean() < 0.45, f"off by {off.mean():.2f} in the mean, {off.max():.1f} at most"
    nothing = torch.zeros(len(images), 1, SIDE, SIDE).index_add(0, sources.image, masks) == 0
    nothing = inner(nothing.float(), warp.CELL) == 1
    assert (images[nothing.expand_as(images)] == GREY).all()
    return float(away.float().mean())


# ---- what batches carry

CASES = {
    "as it comes": dict(STILL, mosaic=1.0, flipud=0.5),
    "mosaic": dict(PLAIN, mosaic=1.0),
    "mosaic, wild": dict(WILD, mosaic=1.0),
    "alone": PLAIN,
    "alone, wild": dict(WILD, mosaic=0.0),
    "turned": dict(PLAIN, degrees=90.0),
    "sheared": dict(PLAIN, shear=25.0),
    "perspective": dict(PLAIN, perspective=0.004),
    "flipped": dict(PLAIN, flipud=1.0, fliplr=1.0),
    "flipped, wild": dict(WILD, mosaic=1.0, flipud=1.0, fliplr=0.0),
}


@pytest.mark.parametrize("hyp", CASES.values(), ids=CASES)
def test_the_warped_picture_is_the_augmented_one(plants: SimpleNamespace, hyp: dict[str, Any]) -> None:
    compared = [check(plants.waves, batch) for batch in batches(plants.waves.dataset(**hyp), rounds=2)]
    assert np.mean(compared) > 0.35


def test_after_mosaic_closes(plants: SimpleNamespace) -> None:
    dataset = plants.waves.dataset(**WILD, mosaic=1.0)
    assert max(len(batch["sources"]) for batch in batches(dataset)) > 3
    dataset.close_mosaic(IterableSimpleNamespace(**{**vars(DEFAULT_CFG), **WILD}))
    for batch in batches(dataset, rounds=2):
        assert batch["sources"].image.tolist() == [0, 1, 2]
        check(plants.waves, batch)


def test_val(plants: SimpleNamespace) -> None:
    """Letterboxed: the whole picture, in the middle."""
    for n, batch in enumerate(batches(plants.waves.dataset(augment=False))):
        assert batch["sources"].key == [f"p{3 * n + i}" for i in range(3)]
        assert batch["sources"].clip.tolist() == [[0, 0, 1, 1]] * 3
        assert check(plants.waves, batch) > 0.5


def test_letterbox_that_scales(plants: SimpleNamespace) -> None:
    """The loader has scaled before; to another shape, letterboxing does it. Sides are rounded apart from each other."""
    dataset, size = plants.waves.dataset(augment=False), (97, 128)
    dataset.transforms.transforms[0].new_shape = size
    for i in range(len(SIZES)):
        batch = dataset.collate_fn([dataset[i]])
        sources, image = batch["sources"], batch["img"].float()
        away = inner(warp.look_up(sources.matrix, sources.clip, size)[1].view(1, 1, *size).float(), 3).expand_as(image) == 1
        off = (plants.waves.warped(sources, 1, size) - image)[away].abs()
        assert away.float().mean() > 0.3 and off.max() < 3 and off.mean() < 0.45


POSITIONS = {
    "shrunk": dict(PLAIN, scale=(0.6, 0.7)),
    "enlarged": dict(PLAIN, scale=(1.35, 1.45)),
    "flipped": dict(PLAIN, scale=(0.75, 0.8), flipud=1.0, fliplr=1.0),
    "mosaic": dict(PLAIN, mosaic=1.0, scale=(0.7, 0.8), translate=0.1),
    "turned": dict(PLAIN, scale=(0.7, 0.7), degrees=40.0, shear=5.0),
}


@pytest.mark.parametrize("hyp", POSITIONS.values(), ids=POSITIONS)
def test_position_to_a_twentieth_of_a_pixel(plants: SimpleNamespace, hyp: dict[str, Any]) -> None:
    """Half a pixel forgotten shifts all by half of (1 - scale)."""
    off = np.array([e for batch in batches(plants.blob.dataset(**hyp), rounds=8) for e in displacements(batch)])
    assert len(off) >= 20
    assert np.abs(off.mean(0)).max() < 0.05 and np.abs(off).max() < 0.1, off.mean(0)


def displacements(batch: dict[str, Any], reach: int = 22) -> Iterator[np.ndarray]:
    """Centre of gravity of each blob, less where the matrix says it is: px. A blob counts if its whole window shows nothing else."""
    sources, masks = batch["sources"], shown(batch["sources"])[:, 0]
    for n, key in enumerate(sources.key):
        i = int(key[1:])
        x, y, w = np.linalg.solve(sources.matrix[n].double().numpy(), [*mark(i), 1])
        x, y = SIDE * x / w, SIDE * y / w
        top, left = int(y) - reach, int(x) - reach
        if min(top, left) >= 0 and max(top, left) + 2 * reach < SIDE:
            window = np.s_[top:top + 2 * reach + 1, left:left + 2 * reach + 1]
            excess = batch["img"][sources.image[n], 0][window].double().numpy() - GREY
            down, right = np.mgrid[window] + 0.5
            if masks[n][window].all():
                yield np.array([(right * excess).sum() / excess.sum() - x, (down * excess).sum() / excess.sum() - y])


@pytest.mark.parametrize(("hyp", "seam"), [(dict(STILL, mosaic=1.0), 1), (dict(WILD, mosaic=1.0), 4)], ids=["plain", "wild"])
def test_mosaic_parts_do_not_leak(plants: SimpleNamespace, hyp: dict[str, Any], seam: int) -> None:
    """Flat colours: a source shows where the image has its colour, up to the `seam` px in which interpolation mixes two, and only there."""
    compared = []
    for batch in batches(plants.flat.dataset(**hyp), rounds=3):
        sources, images, masks = batch["sources"], batch["img"].float(), shown(batch["sources"])
        count = torch.zeros(len(images), 1, SIDE, SIDE).index_add(0, sources.image, masks)
        assert count.max() <= 1
        for mask, b, key in zip(inner(masks, seam), sources.image, sources.key, strict=True):
            colours = images[b][mask.expand(3, -1, -1) == 1]
            assert (colours == 30 * int(key[1:]) + 10).all()
        off = (plants.flat.warped(sources, len(images)) - images)[count.expand_as(images) == 1].abs()
        assert (off > 0.01).float().mean() < 0.04 * seam
        compared.append(float(count.mean()))
    assert np.mean(compared) > 0.7


def test_boxes_lead_back_to_the_labels(plants: SimpleNamespace) -> None:
    truth = np.array([[x - w / 2, y - h / 2, x + w / 2, y + h / 2] for x, y, w, h in BOXES])
    found = 0
    for batch in batches(plants.waves.dataset(**dict(STILL, mosaic=1.0, flipud=0.5)), rounds=6):
        sources = batch["sources"]
        for b, (cx, cy, w, h) in zip(batch["batch_idx"], batch["bboxes"].tolist(), strict=True):
            corners = np.array([[cx - w / 2, cy - h / 2, 1], [cx + w / 2, cy + h / 2, 1], [cx, cy, 1]])
            if corners[:2, :2].min() < 0.01 or corners[:2, :2].max() > 0.99:
                continue                                    # cut at the input's edge
            for n in (sources.image == b).nonzero().flatten().tolist():
                back = (corners @ sources.matrix[n].double().numpy().T)[:, :2]
                box, clip = np.concatenate([back[:2].min(0), back[:2].max(0)]), sources.clip[n].numpy()
                if (back >= clip[:2] + 0.01).all() and (back <= clip[2:] - 0.01).all():
                    # Ultralytics moves boxes by the matrix between pixel indices: up to half a pixel of the picture beside the image
                    assert np.abs(truth - box).max(1).min() < 0.5 / 90 + 1e-3
                    found += 1
    assert found > 30


def test_all_else_is_equal_bit_by_bit(plants: SimpleNamespace) -> None:
    """Arms with and without features must see the same batches, and leave the same random state behind."""
    hyp = {**WILD, "hsv_h": 0.02, "hsv_s": 0.7, "hsv_v": 0.4, "mosaic": 0.7}
    for augment in (True, False):
        ends = []
        for kind in (Boxes, Tracked):
            seed(3)
            dataset = plants.waves.dataset(kind, augment, **hyp)
            made = list(batches(dataset, rounds=2))
            dataset.close_mosaic(IterableSimpleNamespace(**{**vars(DEFAULT_CFG), **hyp}))
            ends.append((made + list(batches(dataset)), random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()))
        (plain, *state), (tracked, *tracked_state) = ends
        assert state[:2] == tracked_state[:2] and torch.equal(state[2], tracked_state[2])
        for a, b in zip(plain, tracked, strict=True):
            assert set(b) == set(a) | {"sources"}
            assert all(torch.equal(a[k], b[k]) for k in ("img", "cls", "bboxes", "batch_idx"))
            assert a["im_file"] == b["im_file"] and a["ori_shape"] == b["ori_shape"]


def test_through_worker_processes(plants: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = plants.waves.dataset(**WILD, mosaic=1.0)
    monkeypatch.setattr(torch._utils, "cpu_count", lambda: 2)          # with one core, torch warns of two workers
    loader = DataLoader(dataset, batch_size=3, num_workers=2, collate_fn=dataset.collate_fn, pin_memory=False)
    assert [check(plants.waves, batch) > 0.2 for batch in loader] == [True, True]


def test_pickled_as_for_spawned_workers(plants: SimpleNamespace) -> None:
    dataset = pickle.loads(pickle.dumps(plants.waves.dataset(**WILD, mosaic=1.0)))
    compared = [check(plants.waves, pickle.loads(pickle.dumps(batch))) for batch in batches(dataset)]
    assert min(compared) > 0.2, "a share of the picture that was really compared"


def test_what_does_not_show_is_not_carried(plants: SimpleNamespace) -> None:
    """Each source costs a decode."""
    few = [len(b["sources"]) for b in batches(plants.waves.dataset(**dict(PLAIN, mosaic=1.0, scale=(2.5, 2.5), translate=0.5)), rounds=3)]
    all_ = [len(b["sources"]) for b in batches(plants.waves.dataset(**dict(PLAIN, mosaic=1.0, scale=(0.5, 0.5))), rounds=3)]
    assert all_ == [12] * 6 and max(few) < 10


def test_a_sample_can_come_out_empty(plants: SimpleNamespace) -> None:
    """Pushed out of the picture: no source, and an empty map."""
    dataset = plants.waves.dataset(**PLAIN)
    for transform in dataset.transforms.transforms[0].transforms:
        transform.translate = 40.0
    batch = dataset.collate_fn([dataset[0]])
    assert len(batch["sources"]) == 0 and (batch["img"] == GREY).all()
    made = warp.warp(torch.ones(0, 5, 4, 4), batch["sources"], torch.ones(0, 2), 1, (7, 7))
    assert made.shape == (1, 5, 7, 7) and not made.any()


@pytest.mark.parametrize("blend", ["mixup", "cutmix", "copy_paste"])
def test_blends_are_refused(plants: SimpleNamespace, blend: str) -> None:
    with pytest.raises(AssertionError, match="cannot follow"):
        plants.waves.dataset(**{blend: 0.5})


def test_image_id() -> None:
    sha = "0123456789abcdef" * 4
    drawn = "demo:900:3b:1:scratch+stain"
    for one in (sha, drawn):
        assert {warp.image_id(f"/x/{one}{again}") for again in (".png", "-2.jpg", "-13.png")} == {one}
    assert warp.image_id("/x/plate-2.png") == "plate-2" and warp.image_id(f"/x/{sha[1:]}-2.png") == f"{sha[1:]}-2"


# ---- warp by itself

def some(n: int = 6, batch: int = 3) -> tuple[Tensor, Sources, Tensor]:
    """Random maps and homographies; sources may overlap here."""
    matrix = torch.eye(3) + 0.4 * torch.randn(n, 3, 3) * torch.tensor([[1, 1, 1], [1, 1, 1], [0.5, 0.5, 0]])
    clip = torch.cat([torch.rand(n, 2) * 0.3, 0.7 + torch.rand(n, 2) * 0.3], 1)
    sources = Sources(torch.randint(batch, (n,)), [str(i) for i in range(n)], matrix, clip)
    return torch.randn(n, 8, 9, 11), sources, 0.6 + 0.4 * torch.rand(n, 2)


def by_grid_sample(maps: Tensor, sources: Sources, extents: Tensor, batch: int, size: tuple[int, int]) -> Tensor:
    places, shows = warp.look_up(sources.matrix, sources.clip, size)
    grid = (places * extents[:, None] * 2 - 1).view(len(maps), *size, 2)
    read = F.grid_sample(maps, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return torch.zeros(batch, maps.shape[1], *size).index_add(0, sources.image, read * shows.view(-1, 1, *size))


def test_is_grid_sample_masked_and_summed() -> None:
    for trial in range(5):
        seed(trial)
        maps, sources, extents = some()
        maps.requires_grad_()
        upstream, results = torch.randn(3, 8, 14, 12), []
        for way in (warp.warp, by_grid_sample):
            made = way(maps, sources, extents, 3, (14, 12))
            results.append((made, *torch.autograd.grad((made * upstream).sum(), maps)))
        (made, gradient), (expected, expected_gradient) = results
        assert made.any() and torch.allclose(made, expected, atol=1e-5)
        assert torch.allclose(gradient, expected_gradient, atol=1e-5)


def test_a_picture_that_shows_several_times_needs_one_map() -> None:
    """The same inputs and gradients as with a copy of the map at each source."""
    maps, sources, extents = some()
    sources = Sources(sources.image, ["b", "a", "b", "c", "a", "b"], sources.matrix, sources.clip)
    keys, picture = sources.pictures()
    assert keys == ["b", "a", "c"] and picture.tolist() == [0, 1, 0, 2, 1, 0]
    maps, extents, upstream = maps[:3].requires_grad_(), extents[:3], torch.randn(3, 8, 14, 12)
    once = warp.warp(maps, sources, extents, 3, (14, 12), picture)
    copied = warp.warp(maps[picture], sources, extents[picture], 3, (14, 12))
    assert torch.equal(once, copied) and once.any()
    one, other = (torch.autograd.grad((made * upstream).sum(), maps)[0] for made in (once, copied))
    assert torch.allclose(one, other, atol=1e-5)


def test_gradient_reaches_the_maps_that_show() -> None:
    maps, _, extents = some(3, 1)
    clip = torch.tensor([[0.0, 0, 0.4, 1], [2, 2, 3, 3], [0.6, 0, 1, 1]])
    sources = Sources(torch.zeros(3, dtype=torch.int64), ["a", "b", "c"], torch.eye(3).expand(3, 3, 3), clip)
    maps.requires_grad_()
    warp.warp(maps, sources, extents, 1, (14, 14)).square().sum().backward()
    assert [bool(g.any()) for g in maps.grad] == [True, False, True]


def test_bf16() -> None:
    """Maps may be coarse; places may not: 8 bits of them are off by a tenth of a cell at 28 x 28."""
    maps, sources, extents = some()
    exact = warp.warp(maps, sources, extents, 3, (28, 28))
    made = warp.warp(maps.bfloat16(), sources, extents, 3, (28, 28))
    assert made.dtype == torch.bfloat16 and torch.allclose(made.float(), exact, atol=0.03)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(warp.warp(maps, sources, extents, 3, (28, 28)), exact)


def test_behind_the_horizon_nothing_shows() -> None:
    matrix = torch.tensor([[[1.0, 0, 0], [0, 1, 0], [-2, 0, 1]]])           # w = 1 - 2x
    sources = Sources(torch.zeros(1, dtype=torch.int64), ["a"], matrix, torch.tensor([[-1e6, -1e6, 1e6, 1e6]]))
    made = warp.warp(torch.ones(1, 1, 4, 4), sources, torch.ones(1, 2), 1, (2, 9))      # the fifth centre lies on it
    assert made[0, 0].tolist() == [[1, 1, 1, 1, 0, 0, 0, 0, 0]] * 2


def test_a_seam_through_a_cell_s_centre_counts_once() -> None:
    halves = Sources(torch.zeros(2, dtype=torch.int64), ["a", "b"], torch.eye(3).expand(2, 3, 3),
                     torch.tensor([[0, 0, 0.5, 1], [0.5, 0, 1, 1]]))
    assert (warp.warp(torch.ones(2, 1, 4, 4), halves, torch.ones(2, 2), 1, (3, 5)) == 1).all()


def test_one_cell_and_to_device() -> None:
    """A map of one cell is that value everywhere; `to` keeps the rows."""
    _, sources, extents = some(2, 1)
    copied = copy(sources).to("cpu")
    assert copied.key == sources.key and torch.equal(copied.matrix, sources.matrix)
    made = warp.warp(torch.full((2, 1, 1, 1), 3.0), copied, extents, 1, (5, 5))
    assert set(made.flatten().round().tolist()) <= {0.0, 3.0, 6.0} and made.any()
