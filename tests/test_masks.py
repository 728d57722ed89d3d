"""Shapes of synthetic defects: of the size asked for, where they may be, of many kinds, the same from the same seed, and quick."""

import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from backend import rundir
from backend.synthesis import masks

SIZE = (96, 128)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def drawn(n: int, low: float = 0.002, high: float = 0.2, **more: object) -> list[masks.Mask]:
    dice = rng()
    return [masks.draw(dice, *SIZE, low, high, **more) for _ in range(n)]      # type: ignore[arg-type]


def pieces(mask: masks.Mask) -> int:
    return cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)[0] - 1


def elongation(mask: masks.Mask) -> float:
    """Longer over shorter axis of the pixels' spread."""
    ys, xs = np.nonzero(mask)
    low, high = np.linalg.eigvalsh(np.cov(np.stack([ys, xs]))) if len(ys) > 2 else (1.0, 1.0)
    return float(np.sqrt(high / max(low, 0.1)))


def filled(polygons: list[list[float]], height: int, width: int) -> masks.Mask:
    """Pixels whose middle lies in a polygon: ray by ray, with no code that made them."""
    y, x = np.mgrid[:height, :width] + 0.5
    inside = np.zeros((height, width), bool)
    for flat in polygons:
        points = np.array(flat).reshape(-1, 2)
        here = np.zeros_like(inside)
        for (x1, y1), (x2, y2) in zip(points, np.roll(points, 1, axis=0), strict=True):
            if y1 != y2:
                here ^= ((y1 > y) != (y2 > y)) & (x < (x2 - x1) * (y - y1) / (y2 - y1) + x1)
        inside |= here
    return inside


# ---- Perlin

@pytest.mark.parametrize("cells", [(1, 1), (4, 8), (32, 2)])
def test_perlin_is_smooth_and_without_a_lean(cells: tuple[int, int]) -> None:
    dice = rng()
    fields = np.stack([masks.perlin(dice, *SIZE, *cells) for _ in range(60)])
    assert fields.shape == (60, *SIZE) and fields.dtype == np.float32
    assert 0.3 < abs(fields).max() < 1 and abs(fields.mean()) < 0.03
    steps = abs(np.diff(fields, axis=1)).max() * SIZE[0] / cells[0], abs(np.diff(fields, axis=2)).max() * SIZE[1] / cells[1]
    assert max(steps) < 5, "no jump between cells: a cell's side climbs a little over twice its length"


def test_perlin_is_gradient_noise_by_its_definition() -> None:
    """Zero at the corners of cells, and the interpolated dot products between them, written out for one pixel at a time."""
    height, width, cells_y, cells_x = 6, 8, 2, 4
    field = masks.perlin(rng(3), height, width, cells_y, cells_x)
    angles = rng(3).random((cells_y + 1, cells_x + 1), dtype=np.float32) * 2 * np.pi
    for y in range(height):
        for x in range(width):
            v, u = (y + 0.5) * cells_y / height, (x + 0.5) * cells_x / width
            expected = 0.0
            for j in (int(v), int(v) + 1):
                for i in (int(u), int(u) + 1):
                    dy, dx = v - j, u - i
                    fade_y, fade_x = (6 * t**5 - 15 * t**4 + 10 * t**3 for t in (1 - abs(dy), 1 - abs(dx)))
                    expected += fade_y * fade_x * (np.sin(angles[j, i]) * dy + np.cos(angles[j, i]) * dx)
            assert field[y, x] == pytest.approx(expected, abs=1e-5)


# ---- draw

@pytest.mark.parametrize("low,high", [(0.002, 0.2), (0.05, 0.06), (0.4, 0.5), (1e-5, 1e-4)])
def test_areas_stay_in_the_range(low: float, high: float) -> None:
    pixels = SIZE[0] * SIZE[1]
    areas = [int(m.sum()) for m in drawn(60, low, high)]
    assert min(areas) >= max(1, low * pixels) and max(areas) <= max(1, high * pixels)


def test_small_ones_are_the_rule_and_large_ones_occur() -> None:
    shares = np.array([m.mean() for m in drawn(200)])
    assert 0.01 < np.median(shares) < 0.04 and shares.min() < 0.004 and shares.max() > 0.12


def test_shapes_are_of_many_kinds() -> None:
    """Neither all round, nor all streaks; single ones and groups; some that wind or have bays, and none that is dust."""
    found = drawn(200)
    long, count = np.array([elongation(m) for m in found]), np.array([pieces(m) for m in found])
    assert (long < 1.6).mean() > 0.15 and (long > 4).mean() > 0.1
    assert (count == 1).mean() > 0.15 and (count > 5).mean() > 0.15 and count.max() <= masks.PIECES
    solidity = []
    for m in (m for m in found if pieces(m) == 1 and m.sum() > 50):
        hull = cv2.convexHull(np.argwhere(m)[:, ::-1].astype(np.int32))
        solidity.append(m.sum() / cv2.fillConvexPoly(np.zeros(SIZE, np.uint8), hull, 1).sum())
    assert min(solidity) < 0.7 and max(solidity) > 0.85


def test_they_lie_everywhere_and_point_everywhere() -> None:
    found = drawn(300)
    often = np.mean(found, axis=0)
    quarters = [often[y:y + 48, x:x + 64].mean() for y in (0, 48) for x in (0, 64)]
    assert max(quarters) < 2 * min(quarters)
    angles = [0.5 * np.arctan2(2 * c[0, 1], c[1, 1] - c[0, 0]) for m in found if elongation(m) > 3 for c in [np.cov(np.argwhere(m).T)]]
    from_axis = np.abs(np.mod(angles, np.pi / 2) - np.pi / 4)       # pi/4 along a side of the image, 0 along a diagonal
    assert 0.35 < np.mean(from_axis < np.pi / 8) < 0.65, "turned by any angle, not only along the image's sides"


def test_the_same_seed_draws_the_same() -> None:
    first, again, other = (masks.draw(rng(s), *SIZE, 0.01, 0.1) for s in (5, 5, 6))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_they_keep_to_what_is_allowed() -> None:
    allowed = np.zeros(SIZE, bool)
    allowed[20:50, 30:90] = True
    for mask in drawn(40, 0.005, 0.1, allowed=allowed):
        assert mask.any() and not (mask & ~allowed).any() and 0.005 <= mask.mean() <= 0.1


def test_where_little_is_allowed_it_takes_what_there_is() -> None:
    """An object smaller than the smallest mask: covered in whole at most, never nothing."""
    allowed = np.zeros(SIZE, bool)
    allowed[10, 10] = allowed[11, 10:13] = True
    assert all(0 < m.sum() <= 4 and not (m & ~allowed).any() for m in drawn(5, 0.05, 0.2, allowed=allowed))
    with pytest.raises(AssertionError):
        drawn(1, allowed=np.zeros(SIZE, bool))


def test_it_is_quick() -> None:
    """Ten times slower than measured would still pass: 2.5 to 5 ms of one core's time at 256 px."""
    dice, began = rng(), time.thread_time()
    for _ in range(20):
        masks.draw(dice, 256, 256, 0.002, 0.2)
    assert time.thread_time() - began < 20 * 0.05


# ---- foreground

def picture(object_grey: float, ground: float, noise: float) -> tuple[np.ndarray, masks.Mask]:
    """uint8 (120, 160, 3) with an ellipse of another brightness, and where that is."""
    y, x = np.mgrid[:120, :160]
    ellipse = ((y - 60) / 40) ** 2 + ((x - 75) / 50) ** 2 < 1
    grey = np.where(ellipse, object_grey, ground) + rng().normal(0, noise, ellipse.shape)
    return np.clip(grey, 0, 255).astype(np.uint8)[..., None].repeat(3, 2), ellipse


@pytest.mark.parametrize("grey,ground,noise", [(200, 40, 10), (60, 220, 15), (150, 100, 12)])
def test_an_object_is_found_bright_or_dark(grey: int, ground: int, noise: int) -> None:
    image, ellipse = picture(grey, ground, noise)
    found = masks.foreground(image)
    assert (found & ellipse).sum() / (found | ellipse).sum() > 0.96


def test_a_hole_in_the_object_is_closed_and_dust_is_not_the_object() -> None:
    image, ellipse = picture(200, 40, 8)
    image[60:62, 70:72], image[5:7, 150:152] = 20, 250
    found = masks.foreground(image)
    assert found[61, 71] and not found[5:7, 150:152].any()


def test_where_nothing_stands_out_all_is_surface() -> None:
    noise = rng().integers(90, 160, (120, 160, 3)).astype(np.uint8)
    ramp = np.tile(np.linspace(0, 255, 160), (120, 1)).astype(np.uint8)[..., None].repeat(3, 2)
    y, x = np.mgrid[:120, :160]
    lamp = (255 * np.exp(-((y - 60) ** 2 + (x - 80) ** 2) / 60**2)).astype(np.uint8)[..., None].repeat(3, 2)
    halves = np.where(np.arange(160) < 80, 40, 200).astype(np.uint8)[None, :, None].repeat(120, 0).repeat(3, 2)
    for image in (noise, ramp, lamp, halves, np.zeros((40, 50, 3), np.uint8), np.full((1, 1, 3), 9, np.uint8)):
        assert masks.foreground(image).all()


REAL = Path(__file__).parents[2] / "shared" / "data" / "PIPED"


@pytest.mark.skipif(not REAL.exists(), reason="the real data is not here")
def test_real_surfaces_are_surface() -> None:
    from PIL import Image

    for file in sorted(REAL.glob("*/train/good/*"))[::16]:
        assert masks.foreground(np.asarray(Image.open(file).convert("RGB"))).all(), file.name


# ---- polygons

def test_polygons_run_round_their_pixels() -> None:
    mask = np.zeros((10, 12), bool)
    mask[2:5, 3:9] = True
    mask[7, 1] = True
    found = sorted(masks.polygons(mask))
    corners = [{(x, y) for x, y in np.array(p).reshape(-1, 2).tolist()} for p in found]
    assert corners == [{(1, 7), (2, 7), (2, 8), (1, 8)}, {(3, 2), (9, 2), (9, 5), (3, 5)}]


def test_polygons_give_the_mask_back_but_for_holes() -> None:
    ring = np.zeros((30, 30), bool)
    ring[5:25, 5:25] = True
    ring[10:20, 10:20] = False
    assert np.array_equal(filled(masks.polygons(ring), 30, 30), cv2.fillPoly(
        np.zeros((30, 30), np.uint8), [np.array([[5, 5], [24, 5], [24, 24], [5, 24]])], 1) > 0)
    for mask in drawn(25):
        outer, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        solid = cv2.drawContours(np.zeros(SIZE, np.uint8), outer, -1, 1, cv2.FILLED) > 0
        polygons = masks.polygons(mask)
        back = filled(polygons, *SIZE)
        assert (back & solid).sum() / (back | solid).sum() > 0.9
        assert len(polygons) == pieces(mask) and all(6 <= len(p) <= 2 * masks.POINTS for p in polygons)


def test_a_ragged_piece_gets_no_more_points_than_allowed() -> None:
    comb = np.zeros((200, 400), bool)
    comb[100:110], comb[20:180, ::4] = True, True
    assert [len(p) <= 2 * masks.POINTS for p in masks.polygons(comb)] == [True]
    assert masks.polygons(np.zeros((5, 5), bool)) == []


# ---- collected masks

def test_a_collected_mask_is_put_down_whole_in_all_sizes_and_turns() -> None:
    shape = np.zeros((200, 300), bool)
    shape[60:80, 40:130] = shape[60:150, 40:65] = True                 # an L
    dice, share = rng(), shape.sum() / 300**2
    placed = [masks.place(dice, shape, 96, 128) for _ in range(60)]
    sizes = np.array([m.sum() / 128**2 for m in placed]) / share
    assert all(m.shape == (96, 128) and pieces(m) == 1 for m in placed)
    assert sizes.min() > 0.2 and sizes.min() < 0.6 and 1.5 < sizes.max() < 4.2, "between half and twice its width and height"
    middles = np.array([np.argwhere(m).mean(0) for m in placed])
    assert middles.std(0).min() > 12 and len({m.tobytes() for m in placed}) == 60


def test_a_collected_mask_keeps_to_what_is_allowed() -> None:
    shape, allowed = np.zeros((50, 50), bool), np.zeros(SIZE, bool)
    shape[10:22, 10:40], allowed[30:80, 40:100] = True, True
    dice = rng()
    placed = [masks.place(dice, shape, *SIZE, allowed) for _ in range(40)]
    assert all(m.any() and not (m & ~allowed).any() for m in placed)
    corner = np.zeros(SIZE, bool)
    corner[0, 0] = True
    assert all(masks.place(dice, shape, *SIZE, corner).sum() == 1 for _ in range(10))


@pytest.mark.parametrize("shape", [np.eye(2000, dtype=bool), np.ones((300, 2), bool), np.ones((1, 1), bool), np.ones((64, 64), bool)])
def test_thin_huge_and_tiny_shapes_can_be_put_down(shape: masks.Mask) -> None:
    dice = rng()
    for _ in range(6):
        placed = masks.place(dice, shape, 48, 40)
        assert placed.any() and placed.mean() < 0.7
        assert shape.shape != (2000, 2000) or placed.sum() < 48 * 8, "a line stays a line"


def test_a_set_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    kept = drawn(3)
    for i, mask in enumerate(kept):
        masks.write(tmp_path / f"{i}.png", mask)
    rundir.write_json(tmp_path / "head.json", dict(key="k", name="n", items=[dict(file=f"{i}.png") for i in (2, 0, 1)]))
    assert all(np.array_equal(a, kept[i]) for a, i in zip(masks.collected(tmp_path), (2, 0, 1), strict=True))
