"""Figures of anomaly maps against an independent scorer, and how calibration chooses on maps whose answer is known."""

import json
import math
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from backend.anomaly import calibrate
from backend.evaluation import anomaly as evaluation

SCORER = Path(__file__).parents[2] / "shared" / "score" / "score_anomaly.py"
SIDE = 32


# ── figures ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def guesses() -> tuple[list[np.ndarray], np.ndarray, list[np.ndarray | None]]:
    """Maps, scores and masks of twelve pictures of several shapes, four of them good; the maps know something, not all."""
    rng = np.random.default_rng(0)
    maps, masks = list[np.ndarray](), list[np.ndarray | None]()
    for i in range(12):
        height, width = [(256, 256), (300, 200), (128, 127), (90, 400)][i % 4]
        mask = np.zeros((height, width), bool)
        if i >= 4:
            for _ in range(1 + i % 3):
                top, left = rng.integers(0, height - 20), rng.integers(0, width - 20)
                mask[top:top + rng.integers(4, 20), left:left + rng.integers(4, 20)] = True
        small = np.asarray(Image.fromarray(mask).resize((64, 64), Image.Resampling.BOX), np.float32)
        maps.append((small + rng.normal(0, 0.5, (64, 64))).astype(np.float16))
        masks.append(mask if mask.any() else None)
    return maps, np.array([m.max() for m in maps], np.float64), masks


@pytest.mark.skipif(not SCORER.exists(), reason="the shared scorer is not on this machine")
def test_the_figures_are_the_shared_scorers(tmp_path: Path) -> None:
    maps, scores, masks = guesses()
    names = [f"{'bad' if mask is not None else 'good'}/{i:02d}.jpg" for i, mask in enumerate(masks)]
    for name, amap, mask in zip(names, maps, masks, strict=True):
        file = tmp_path / "maps" / Path(name).with_suffix(".npy")
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, amap)
        if mask is not None:
            (tmp_path / "masks" / "bad").mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / "masks" / Path(name).with_suffix(".png"))
    (tmp_path / "maps" / "scores.json").write_text(json.dumps({str(Path(n).with_suffix("")): float(s)
                                                               for n, s in zip(names, scores, strict=True)}))
    (tmp_path / "list.txt").write_text("\n".join(names))
    done = subprocess.run([sys.executable, str(SCORER), str(tmp_path / "maps"), str(tmp_path / "masks"), str(tmp_path / "list.txt")],
                          capture_output=True, text=True, check=True)
    theirs, ours = json.loads(done.stdout), evaluation.evaluate(maps, scores, masks)
    assert (ours["images"], ours["defective"]) == (theirs["images"], theirs["defective"]) == (12, 8)
    for figure in ("image_auroc", "pixel_auroc", "pixel_ap", "aupro"):
        assert abs(100 * ours[figure] - theirs[figure]) < 1e-6, figure
        assert 0.1 < ours[figure] < 0.995, f"{figure} tells nothing where all are right or all wrong"


def test_figures_of_maps_whose_answer_is_known() -> None:
    mask = np.zeros((256, 256), bool)
    mask[40:60, 40:60] = mask[200:204, 100:130] = True
    blank = np.random.default_rng(0).random(mask.shape).astype(np.float32) / 2
    right = np.where(mask, 1, blank)
    assert evaluation.evaluate([right, blank], [1, 0], [mask, None]) == dict(
        image_auroc=1, pixel_auroc=1, pixel_ap=1, aupro=1, images=2, defective=1)
    wrong = evaluation.evaluate([1 - right, blank], [0, 1], [mask, None])
    assert wrong["image_auroc"] == 0 and wrong["pixel_auroc"] < 0.3
    half = right.copy()
    half[200:204] = 0                                                      # one region of two is missed
    assert evaluation.evaluate([half], [1], [mask])["aupro"] == pytest.approx(0.5, abs=0.01)


def test_memory_grows_by_the_pixels_alone() -> None:
    """0.26 MB an image, and what an array that grows leaves free. Before, sorting took 4 MB."""
    def peak(n: int) -> int:
        rng, mask = np.random.default_rng(0), np.pad(np.ones((20, 20), bool), 118)
        tracemalloc.start()
        evaluation.evaluate((rng.normal(size=(256, 256)) for _ in range(n)), np.arange(n), [mask if i % 2 else None for i in range(n)])
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert (peak(64) - peak(4)) / 60 < 0.6e6


def test_what_cannot_be_told_is_none() -> None:
    blank, nothing = np.zeros((64, 64), np.float32), dict(image_auroc=None, pixel_auroc=None, pixel_ap=None, aupro=None)
    assert evaluation.evaluate([blank] * 2, [0, 1], [None, None]) == nothing | dict(images=2, defective=0)
    boxes_only = evaluation.evaluate([blank] * 2, [0, 1], [None, None], defective=[False, True])
    assert boxes_only == nothing | dict(image_auroc=1.0, images=2, defective=1)


def test_a_defect_that_nobody_outlined_does_not_count_in_pixels() -> None:
    maps, scores, masks = guesses()
    loud = np.full((64, 64), 9, np.float16)
    known = evaluation.evaluate(maps, scores, masks)
    more = evaluation.evaluate([*maps, loud], [*scores, 9], [*masks, None], [m is not None for m in masks] + [True])
    assert more["pixel_ap"] == known["pixel_ap"] and more["aupro"] == known["aupro"] and more["defective"] == 9
    assert evaluation.evaluate([*maps, loud], [*scores, 9], [*masks, None])["pixel_ap"] < known["pixel_ap"], "as a good picture it does"


# ── thresholds ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_threshold_is_the_conformal_quantile() -> None:
    scores = np.random.default_rng(0).permutation(np.arange(1, 401)).astype(np.float32)
    limit, refused = calibrate.threshold(scores, 0.01)                     # ceil(401 × 0.99) = 397
    assert limit is not None and refused == "" and 397 < limit < 397.001
    assert (scores >= limit).sum() == 3
    assert calibrate.threshold(scores[:300], 0.01)[0] == pytest.approx(np.sort(scores[:300])[297], abs=1e-3)


def test_the_threshold_holds_its_rate_on_good_pictures_never_seen() -> None:
    """Of uniform scores the rate above a threshold is 1 - threshold: 5 of 101 on average, since the 96th of 100 is taken."""
    rng = np.random.default_rng(1)
    limits = [calibrate.threshold(rng.random(100), 0.05)[0] for _ in range(3000)]
    assert 1 - np.mean(np.array(limits, float)) == pytest.approx(5 / 101, abs=0.0015)


@pytest.mark.parametrize(("n", "rate", "said"), [
    (71, 0.01, "A false-reject rate of 1 % needs 300 good pictures that were kept from training; there are 71. "
               "Choose 4.3 % or more, or add good pictures."),
    (299, 0.01, "there are 299. Choose 1.1 % or more"),
    (1, 0.25, "needs 12 good pictures that were kept from training; there is 1. Add good pictures."),
    (5, 0.5, "A false-reject rate of 50 % needs 6 good"),
    (1500, 0.001, "A false-reject rate of 0.1 % needs 3,000 good pictures that were kept from training; there are 1,500. Choose 0.2 % or"),
])
def test_too_few_good_pictures_set_no_threshold(n: int, rate: float, said: str) -> None:
    limit, refused = calibrate.threshold(np.arange(n, dtype=np.float32), rate)
    assert limit is None and said in refused
    if "Choose" in refused:                                                # and what it advises is accepted
        advised = float(refused.split("Choose ")[1].split(" %")[0]) / 100
        assert calibrate.threshold(np.arange(n, dtype=np.float32), advised)[0] is not None


# ── choices ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class Plates(nn.Module):
    """A network whose maps are read off the picture: red is the cosine map, green the segmentation logit, blue, where it has one, the
    distance to its memory. Cells of 4 pixels."""

    def __init__(self, maps: int = 2) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor([[1.0], [20.0], [5.0]]))     # the maps' units differ, as those of real ones do
        self.maps = maps

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        maps = nn.functional.avg_pool2d(images, 4)
        return tuple(maps[:, i:i + 1] * self.gain[i] - 9 * (i == 1) for i in range(self.maps))


def pictures(n: int, red: float, green: float, seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Noise around 80, and in a patch by so much more in red and in green."""
    rng, made = np.random.default_rng(seed), []
    for _ in range(n):
        mask = np.zeros((SIDE * 4, SIDE * 4), bool)
        top, left = rng.integers(0, SIDE * 4 - 24, 2)
        mask[top:top + 24, left:left + 24] = True
        picture = rng.normal(80, 12, (SIDE, SIDE, 3)).repeat(4, 0).repeat(4, 1)
        picture[mask] += (red, green, 0)
        made.append((picture.clip(0, 255).astype(np.uint8), mask))
    return made


def calibrated(red: float, green: float, rate: float = 0.1) -> calibrate.Calibration:
    return calibrate.calibrate(Plates(), [p for p, _ in pictures(40, 0, 0, 1)], pictures(12, red, green), rate)


def test_equal_weights_stand_while_both_maps_tell_as_much() -> None:
    found = calibrated(40, 40)
    assert found.weights == (0.5, 0.5) and found.chosen["normals"] == 40 and found.chosen["defects"] == 12


def test_a_map_that_tells_nothing_loses_its_weight() -> None:
    assert calibrated(14, 0).weights[0] > 0.5
    assert calibrated(0, 14).weights[0] < 0.5


@pytest.mark.parametrize(("loss", "weight"), [("cosine", 1.0), ("segmentation", 0.0)])
def test_what_was_not_learned_gets_no_weight(loss: str, weight: float) -> None:
    net = Plates()
    net.loss = loss
    assert calibrate.calibrate(net, [p for p, _ in pictures(6, 0, 0)], pictures(3, 40, 40), 0.5).weights == (weight, 1 - weight)


def test_a_lead_of_the_segmentation_must_be_twice_as_large() -> None:
    """Mirrored maps, so that the lead is the same on both sides: believed of the cosine, not of the segmentation."""
    one, other = calibrated(14, 4), calibrated(4, 14)
    leads = [next(r["lead"] for r in f.chosen["weights"] if r["cosine"] == w) for f, w in ((one, 0.75), (other, 0.25))]
    assert one.weights[0] > 0.5 and other.weights[0] == 0.5 and min(leads) > 0.02, leads


def test_three_maps_stand_alike_and_one_that_tells_most_gains() -> None:
    good = [p for p, _ in pictures(40, 0, 0, 1)]
    alike = calibrate.calibrate(Plates(3), good, [(p[..., [0, 1, 0]], m) for p, m in pictures(12, 40, 40)], 0.1)
    assert alike.weights == pytest.approx((1 / 3,) * 3) and len(alike.centre) == len(alike.scale) == 3
    blue = calibrate.calibrate(Plates(3), good, [(p[..., [2, 1, 0]], m) for p, m in pictures(12, 14, 0)], 0.1)
    assert blue.weights[2] > 0.5 and sum(blue.weights) == 1 and blue.chosen["memory_weight"] == blue.weights[2]


@pytest.mark.parametrize(("used", "wanted"), [([True, True], 5), ([True, True, True], 16), ([True, False, True], 5), ([True, False], 1)])
def test_candidates_begin_with_equal_weights_and_move_away(used: list[bool], wanted: int) -> None:
    found = calibrate.candidates(used)
    assert len(set(found)) == len(found) == wanted and all(sum(w) == pytest.approx(1) for w in found)
    assert found[0] == tuple(u / sum(used) for u in used) and all(u or not w for c in found for u, w in zip(used, c, strict=True))
    moved = [sum(abs(w - e) for w, e in zip(c, found[0], strict=True)) for c in found]
    assert moved == sorted(moved, key=lambda m: round(m, 9))


def test_many_defects_on_few_pictures_are_little_evidence() -> None:
    """The error of a lead: as of so many pictures, whatever lies on them; with one picture nothing is known."""
    rng = np.random.default_rng(0)
    lead = np.repeat(rng.normal(0, 1, (1, 10)), 40, 0).repeat(30, 1) * 0.1                        # 300 defects on 10 pictures
    on, apart = np.arange(10).repeat(30), np.arange(300)
    alone = lead[0, ::30].std(ddof=1) / math.sqrt(10)
    assert calibrate._error(lead, on) == pytest.approx(alone) and calibrate._error(lead, apart) < 0.3 * alone
    goods = np.repeat(rng.normal(0, 1, (12, 1)), 300, 1)                                          # the good pictures differ, defects do not
    assert calibrate._error(goods, on) == pytest.approx(goods[:, 0].std(ddof=1) / math.sqrt(12))
    assert calibrate._error(lead, np.zeros(300, int)) == calibrate._error(lead[:1], on) == math.inf


def test_both_maps_come_to_one_unit() -> None:
    maps = calibrate.smoothed(calibrate.maps_of(Plates(), [p for p, _ in pictures(40, 0, 0, 1)]), 1.0).numpy()
    found = calibrated(40, 40)
    for i in (0, 1):
        unit = (maps[:, i] - found.centre[i]) / found.scale[i]
        assert abs(np.median(unit)) < 1e-3 and abs(np.quantile(unit, 0.995) - 1) < 1e-3
    assert found.scale[1] > 15 * found.scale[0]


def test_few_cells_for_small_defects_and_the_middle_where_all_do() -> None:
    assert calibrated(60, 60).cells == calibrate.cells_of(calibrate.SHARES[calibrate.MIDDLE], SIDE)
    rng, normal = np.random.default_rng(0), np.random.default_rng(1).normal(size=(40, 64, 64))
    small = rng.normal(size=(20, 64, 64))
    small[:, 30, 30] = 4.5                                                 # one cell
    assert calibrate._cells(normal, small)[0] == 1
    wide = rng.normal(size=(20, 64, 64))
    wide[:, :16, :16] += 0.8                                               # 256 cells, no one of them loud
    assert calibrate._cells(normal, wide)[0] >= 41


def test_the_cut_for_cells_parts_defect_from_good() -> None:
    found, (picture, mask) = calibrated(60, 60), pictures(1, 60, 60, 9)[0]
    maps = calibrate.smoothed(calibrate.maps_of(Plates(), [picture]), found.sigma).numpy()
    unit = (maps - np.array(found.centre)[:, None, None]) / np.array(found.scale)[:, None, None]
    cut = calibrate.combined(unit, found.weights)[0] >= found.pixel_threshold
    truth = calibrate.on_cells(mask, SIDE)
    assert (cut & truth).sum() / (cut | truth).sum() > 0.6
    assert found.map_range[0] < found.pixel_threshold <= sum(found.map_range) / 2 + 1e-3


def test_without_defects_and_with_few_pictures_there_is_a_model_all_the_same() -> None:
    found = calibrate.calibrate(Plates(), [p for p, _ in pictures(4, 0, 0)], [], 0.01)
    assert found.weights == (0.5, 0.5) and found.threshold is None and "there are 4" in found.refused
    assert found.map_range[1] > found.pixel_threshold > found.map_range[0]


def test_thin_masks_keep_a_cell() -> None:
    mask = np.zeros((128, 128), bool)
    mask[64, 10:60] = True
    cells = calibrate.on_cells(mask, 32)
    assert cells[16, 3:14].all() and cells.sum() < 16
