"""Large pictures in tiles: every pixel is looked at, and an object counts once however many tiles see it or see a piece of it."""

from itertools import pairwise

import numpy as np
import pytest

from backend.config import demo_assets
from backend.data import demo
from backend.device import REFERENCE
from backend.errors import ImageError
from backend.inspection import tiles
from backend.inspection.engine import Engine


@pytest.mark.parametrize(("width", "height", "side", "overlap"), [
    (4096, 4096, 640, 100), (8000, 900, 640, 64), (300, 8192, 256, 200), (1001, 997, 512, 0), (961, 100, 640, 80)])
def test_tiles_cover_the_picture_and_overlap(width: int, height: int, side: int, overlap: int) -> None:
    where = tiles.places(width, height, side, overlap)
    seen = np.zeros((height, width), bool)
    for x, y, w, h in where:
        assert 0 <= x and x + w <= width and 0 <= y and y + h <= height and (w, h) == (min(side, width), min(side, height))
        seen[y:y + h, x:x + w] = True
    assert seen.all() and len(where) == len(set(where)) == tiles.number(width, height, side, overlap)
    shared = int(np.clip(overlap, side / 8, side / 2))
    for axis in (0, 1):
        starts = sorted({place[axis] for place in where})
        assert all(a + min(side, (width, height)[axis]) - b >= shared - 1 for a, b in pairwise(starts))


def test_a_picture_hardly_larger_than_a_tile_stays_whole() -> None:
    assert tiles.places(900, 700, 640) == [(0, 0, 900, 700)] == tiles.places(900, 700, 0)
    assert len(tiles.places(970, 700, 640)) > 1


def scattered(rng: np.random.Generator, side: int, largest: float) -> np.ndarray:
    """Objects (n, 6) that keep apart, of two classes."""
    found: list[list[float]] = []
    for _ in range(400):
        w, h = rng.uniform(12, largest, 2)
        x, y = rng.uniform(0, side - w), rng.uniform(0, side - h)
        if all(x > b[2] + 25 or b[0] > x + w + 25 or y > b[3] + 25 or b[1] > y + h + 25 for b in found):
            found.append([x, y, x + w, y + h, round(rng.uniform(0.4, 0.99), 3), float(rng.integers(2))])
    return np.array(found, np.float32)


def as_tiles_see(objects: np.ndarray, where: list[tiles.Place], rng: np.random.Generator) -> list[np.ndarray]:
    """What a good detector says of each tile: the visible part of every object of which it sees a quarter, its edges off by a pixel."""
    found = []
    for x, y, w, h in where:
        low, high = np.maximum(objects[:, :2], [x, y]), np.minimum(objects[:, 2:4], [x + w, y + h])
        shown = (high - low).clip(0).prod(axis=1) >= 0.25 * (objects[:, 2:4] - objects[:, :2]).prod(axis=1)
        boxes = np.column_stack([low - [x, y], high - [x, y], objects[:, 4] * rng.uniform(0.8, 1, len(objects)), objects[:, 5]])[shown]
        boxes[:, :4] = (boxes[:, :4] + rng.uniform(-1, 1, (len(boxes), 4))).clip(0, [w, h, w, h])
        found.append(boxes.astype(np.float32))
    return found


@pytest.mark.parametrize("largest", [60, 110, 300])          # within the overlap, about as long, and far longer
@pytest.mark.parametrize("seed", range(6))
def test_planted_objects_are_counted_once_across_seams(largest: float, seed: int) -> None:
    rng, side = np.random.default_rng(seed), 3000
    objects, where = scattered(rng, side, largest), tiles.places(side, side, 640, 110)
    found = tiles.joined(as_tiles_see(objects, where, rng), where, side, side)
    assert len(found) == len(objects) > 30
    assert (np.diff(found[:, 4]) <= 0).all()
    for one in objects:
        off = np.abs(found[:, :4] - one[:4]).max(axis=1) + 1000 * (found[:, 5] != one[5])
        assert off.min() < 8, "each object where it is, of its class"


def test_neighbours_stay_apart_and_classes_too() -> None:
    where = [(0, 0, 100, 100), (60, 0, 100, 100)]
    left = np.array([[70, 10, 95, 30, 0.9, 0], [70, 50, 95, 70, 0.8, 0]], np.float32)
    right = np.array([[10, 10, 35, 30, 0.7, 1], [10, 50, 35, 70, 0.6, 0]], np.float32)
    found = tiles.joined([left, right], where, 160, 100)
    assert found[:, 5].tolist() == [0, 0, 1] and found[:, 4] == pytest.approx([0.9, 0.8, 0.7])


def test_nothing_found_is_an_empty_array() -> None:
    none = np.zeros((0, 6), np.float32)
    assert tiles.joined([none, none], [(0, 0, 9, 9), (5, 0, 9, 9)], 14, 9).shape == (0, 6)


def test_the_engine_looks_at_a_large_picture_in_the_scale_it_learned() -> None:
    """Sixteen plates as one picture of 1,024 px: in tiles it finds what it finds on each plate; shrunk to 224 px it does not."""
    ids = [demo.image_id(100 + k, 1, "a", 1, ("pits",) if k % 2 else ("scratch",)) for k in range(16)]
    plates = [np.asarray(demo.render(i).image) for i in ids]
    large = np.concatenate([np.concatenate(plates[r:r + 4], axis=1) for r in range(0, 16, 4)], axis=0)
    engine = Engine(demo_assets() / "model", REFERENCE)
    shrunk, engine.tile = engine.predict([large], 0.25)[0], (256, 90)
    whole = engine.predict([large, plates[0]], 0.25)
    alone = [b + np.array([256 * (k % 4), 256 * (k // 4)] * 2 + [0, 0], np.float32) for k, p in enumerate(plates)
             for b in engine.predict([p], 0.25)]
    expected = np.concatenate(alone)
    hit = sum(any(b[5] == e[5] and overlap(b, e) > 0.4 for b in whole[0]) for e in expected)
    assert len(expected) > 15 and hit >= 0.85 * len(expected) and len(whole[0]) < 1.4 * len(expected)
    assert len(shrunk) < 0.5 * len(expected)
    np.testing.assert_allclose(whole[1], alone[0], atol=0.01)              # a small picture beside it is looked at as ever


def test_more_tiles_than_fit_into_memory_are_refused() -> None:
    """All of a picture are held at once: 8,000 × 2,000 pixels in tiles of 10 took 7 GB in twelve seconds, and went on."""
    engine = Engine(demo_assets() / "model", REFERENCE)
    with pytest.raises(ImageError, match="would be cut into .* tiles of 1 pixels"):
        engine.cutting(1).prepare(np.zeros((2000, 8000, 3), np.uint8))
    assert len(engine.cutting(640).prepare(np.zeros((2000, 8000, 3), np.uint8)).tiles) == tiles.number(8000, 2000, 640)


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    sides = (np.minimum(a[2:4], b[2:4]) - np.maximum(a[:2], b[:2])).clip(0)
    areas = [(x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)]
    return float(sides.prod() / (sum(areas) - sides.prod()))


def test_a_model_says_of_which_scale_it_learned() -> None:
    said = tiles.learned([(200, 200), (300, 180), (190, 240)], [10, 20, 30.5])
    assert said == dict(side=300, object=30) and tiles.learned([], []) == dict(side=0, object=0)
    assert tiles.learned([(640, 480)] * 19 + [(8000, 2000)] * 2, [])["side"] == 640, "a few whole ones among crops set no scale"
    assert tiles.learned([(640, 480)] * 8 + [(1280, 960)] * 2, [])["side"] == 1280, "a camera's own pictures are not cut"
    assert tiles.places(440, 400, said["side"]) == [(0, 0, 440, 400)] and len(tiles.places(460, 400, said["side"])) > 1
