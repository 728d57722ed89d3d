"""The probe: cells, readers, average precision, and the recipe on plates whose squares are plain to see."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from backend import rundir
from backend.config import ProbeFeatures, TrainDiffusion
from backend.data import snapshot
from backend.data.marks import Box
from backend.data.snapshot import Picture
from backend.diffusion import ddpm, features
from backend.errors import Canceled, ConfigError, NotFoundError
from backend.jobs.report import Reporter
from backend.teacher import probe
from tests import plates
from tests.squares import one_core

SMALL = ddpm.Preset((8, 16, 16, 16), 1, crop=16, batch=4, steps=0, ema=0.9)       # random weights tell bright from dark


@pytest.fixture(scope="module", autouse=True)
def _small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFSPECT_DATA", str(tmp_path_factory.mktemp("data")))
        patch.setattr(ddpm, "cores", one_core)
        patch.setattr(probe, "cores", one_core)
        patch.setitem(ddpm.PRESETS, "tiny", SMALL)
        patch.setattr(probe, "STEPS", 200)
        yield


def silent_tell(step: int, message: str, **metrics: float) -> None:
    """Progress that nobody reads, as parts of the recipe tell it."""


def with_denoiser(folder: Path, name: str, **how: Any) -> snapshot.Snapshot:
    """A dataset of plates and a denoiser of it."""
    data = snapshot.read(plates.imported(folder / "in", name, **how))
    plates.run_of("train-diffusion", lambda run: ddpm.run(TrainDiffusion(dataset=name, name=f"d-{name}"), run, plates.silent))
    return data


def config(dataset: str, **more: Any) -> ProbeFeatures:
    return ProbeFeatures(**{"dataset": dataset, "timesteps": "20 300", **more})


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """The probe of plates, with its curves; nothing of test is on the disk while it runs."""
    data = with_denoiser(tmp_path_factory.mktemp("planted"), "planted")
    for picture in data.by_split("test"):
        picture.path.unlink()
    run = rundir.create("probe-features", {})
    said = list[dict[str, Any]]()
    report = Reporter(run)
    result = probe.run(config("planted"), run, lambda **k: (said.append(k), report(**k)))
    return SimpleNamespace(data=data, run=run, result=result, said=said)


# ---- the recipe

def test_squares_that_are_plain_to_see_are_found_and_dice_are_not(planted: SimpleNamespace, tmp_path: Path) -> None:
    with_denoiser(tmp_path, "dice", boxes="random")
    dice = probe.run(config("dice"), rundir.create("probe-features", {}), plates.silent)
    assert planted.result["best"]["ap"] > 0.7 and min(planted.result["together"]) > 0.7
    assert max(dice["together"]) < 0.4 and dice["best"]["ap"] < 0.4
    assert np.all(np.array(planted.result["ap"]) > np.array(dice["ap"]) + 0.1)


def test_result_is_a_heat_map(planted: SimpleNamespace) -> None:
    result = planted.result
    assert json.loads(json.dumps(result)) == result
    assert (result["timesteps"], result["blocks"], result["classes"]) == ([20, 300], [0, 1, 2, 3], ["bright"])
    assert (result["images"], result["val_images"], result["denoiser"], result["dataset"]) == (12, 6, "d-planted", "planted")
    ap, best = np.array(result["ap"]), result["best"]
    assert ap.shape == (2, 4) and len(result["together"]) == 2 and np.array_equal(result["per_class"]["bright"], ap)
    assert ap[[20, 300].index(best["timestep"]), best["block"]] == best["ap"] == ap.max()


def test_progress_rises_to_the_end_with_curves(planted: SimpleNamespace) -> None:
    steps = [s["step"] for s in planted.said]
    assert steps == sorted(steps) and steps[-1] == 36 and {s["total"] for s in planted.said} == {36}      # 2 timesteps of 12 + 6 images
    curves = [json.loads(line) for line in (planted.run / "metrics.jsonl").read_text().splitlines()]
    assert [c["step"] for c in curves] == [18, 36] and set(curves[0]) == {"step", "at_s", "together", *(f"block_{b}" for b in range(4))}
    assert curves[1]["together"] == pytest.approx(planted.result["together"][1], abs=1e-4)
    assert not (planted.run / "probing").exists()


def test_killed_and_resumed_gives_the_same_and_looks_at_no_timestep_twice(planted: SimpleNamespace) -> None:
    run, messages = rundir.create("probe-features", {}), list[str]()

    def killing(*, step: int, message: str, **more: Any) -> None:
        if step > 18:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        probe.run(config("planted"), run, killing)
    assert (run / "probing" / "timestep-20.json").exists()
    assert probe.run(config("planted"), run, lambda message, **more: messages.append(message)) == planted.result
    assert any("timestep 300, what" in m for m in messages) and not any("timestep 20, what" in m for m in messages)


def test_cancel_leaves_nothing(planted: SimpleNamespace) -> None:
    run = rundir.create("probe-features", {})

    def report(*, step: int, **more: Any) -> None:
        if step > 0:
            raise Canceled

    with pytest.raises(Canceled):
        probe.run(config("planted"), run, report)
    assert not (run / "probing").exists()


def test_only_so_many_train_images_are_read(planted: SimpleNamespace) -> None:
    messages = list[str]()
    result = probe.run(config("planted", timesteps="20", images=10), rundir.create("probe-features", {}),
                       lambda message, **more: messages.append(message))
    assert result["images"] == 10 and "reading train image 10 of 10" in messages and "reading val image 6 of 6" in messages


def test_what_cannot_be_probed_is_said(planted: SimpleNamespace, tmp_path: Path) -> None:
    run = rundir.create("probe-features", {})
    with pytest.raises(NotFoundError, match="No diffusion model called 'other'"):
        probe.run(config("planted", denoiser="other"), run, plates.silent)
    with pytest.raises(ConfigError, match="Timesteps go from 0 to 999"):
        probe.run(config("planted", timesteps="20 2000"), run, plates.silent)
    with_denoiser(tmp_path, "bare", boxes="none")
    with pytest.raises(ConfigError, match="No train image of 'bare' has a box"):
        probe.run(config("bare"), run, plates.silent)


# ---- cells

def picture(*boxes: tuple[str, float, float, float, float], size: tuple[int, int] = (40, 20)) -> Picture:
    return Picture("0" * 64, "p.png", *size, phash="", boxes=tuple(Box(*b, source="box") for b in boxes))


def test_a_box_covers_the_cells_whose_centres_it_holds() -> None:
    """40 × 20 px on a square of 80: a cell is 10 px of the square, and the image is its upper left."""
    covered = probe.coverage(picture(("pit", 4, 0, 16, 20), ("dent", 38, 18, 40, 20)), ["dent", "pit"], (0.5, 0.25), 8).reshape(2, 8, 8)
    assert np.argwhere(covered[1]).tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert np.argwhere(covered[0]).tolist() == [[1, 3]]


def test_a_thin_box_has_one_cell_across_and_none_reaches_out() -> None:
    scratch = probe.coverage(picture(("scratch", 0, 11, 40, 12)), ["scratch"], (1.0, 1.0), 4).reshape(4, 4)
    assert np.argwhere(scratch).tolist() == [[2, 0], [2, 1], [2, 2], [2, 3]]
    corner = probe.coverage(picture(("scratch", 39.9, 19.9, 40, 20)), ["scratch"], (1.0, 1.0), 4).reshape(4, 4)
    assert np.argwhere(corner).tolist() == [[3, 3]]
    assert not probe.coverage(picture(("other", 0, 0, 40, 20)), ["scratch"], (1.0, 1.0), 4).any()


def test_mirrored_cells_do_not_count() -> None:
    assert np.argwhere(probe.shown(0.5, 0.25, 8).reshape(8, 8)).tolist() == [[y, x] for y in range(2) for x in range(4)]
    assert probe.shown(1.0, 1.0, 5).all() and probe.shown(0.01, 0.01, 5).sum() == 1


def test_features_lie_where_the_labels_lie(planted: SimpleNamespace, tmp_path: Path) -> None:
    """Cells are drawn, stacked and transposed on the way; here the brightness of each cell must still be its label."""
    denoiser = ddpm.load(ddpm.find("", planted.data))
    cells = probe._cells(planted.data.by_split("train"), ["bright"], denoiser, 64, tmp_path / "train.u8", 0, silent_tell)
    assert cells.covered.shape == (sum(map(len, cells.chosen)), 1) and len(cells.chosen[0]) == 7 * 5      # of 60 × 44 px: centres
    bright = [features.on_grid(features.squared(cells.known[i], 64)[0][None], 8).flatten()[cells.chosen[i]] for i in range(12)]
    assert probe.average_precision(torch.cat(bright).numpy(), cells.covered[:, 0].numpy()) > 0.97
    found = probe._features(denoiser, cells, features.Taps((20,), (3,)), 64, 0, silent_tell)
    assert found.shape == (len(cells.covered), 8) and found.dtype == torch.float16
    alone = features.extract(denoiser, features.squared(cells.known[5], 64)[0][None], features.Taps((20,), (3,)), 8)[0].flatten(1)
    start = sum(map(len, cells.chosen[:5]))
    assert torch.allclose(found[start:start + 3].float(), alone[:, cells.chosen[5][:3]].T, atol=0.05)


def test_cells_of_many_images_are_drawn_by_seed(planted: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "CELLS", 60)
    denoiser, train = ddpm.load(ddpm.find("", planted.data)), planted.data.by_split("train")
    first, again, other = (probe._cells(train, ["bright"], denoiser, 64, tmp_path / "train.u8", seed, silent_tell) for seed in (0, 0, 1))
    assert [len(c) for c in first.chosen] == [5] * 12 and first.covered.shape == (60, 1)
    assert np.array_equal(first.chosen, again.chosen) and not np.array_equal(first.chosen, other.chosen)


# ---- readers

def test_each_reader_sees_its_own_channels_only() -> None:
    """The answer lies in the second of three blocks, at another scale than the rest."""
    generator = torch.Generator().manual_seed(0)
    cells = torch.randn(3000, 9, generator=generator)
    covered = torch.stack([cells[:, 4] > 1, cells[:, 3] + cells[:, 5] < -1.5], 1)
    cells[:, 3:6] = cells[:, 3:6] * 50 + 300
    ap = np.array(probe.rank(cells[:2000].half(), covered[:2000], cells[2000:].half(), covered[2000:], [3, 3, 3], 0))
    assert ap.shape == (4, 2)
    assert ap[1].min() > 0.95 and ap[3].min() > 0.9 and ap[[0, 2]].max() < 0.3


def test_readers_are_the_same_for_the_same_seed() -> None:
    cells, covered = torch.randn(300, 4, generator=torch.Generator().manual_seed(0)).half(), torch.arange(300)[:, None] % 5 == 0
    first, again, other = (probe.fit(cells, covered, [2, 2], seed) for seed in (0, 0, 1))
    assert torch.equal(first.weight, again.weight)
    assert probe.read(first, cells).shape == (300, 3, 1) and not first.weight.requires_grad and other.classes == 1


def test_a_channel_that_never_changes_does_no_harm() -> None:
    cells = torch.cat([torch.full((400, 1), 7.0), torch.randn(400, 1, generator=torch.Generator().manual_seed(0))], 1)
    scores = probe.read(probe.fit(cells, cells[:, 1:] > 0, [1, 1], 0), cells)
    assert scores.isfinite().all() and probe.average_precision(scores[:, 2, 0].numpy(), (cells[:, 1] > 0).numpy()) > 0.99


@pytest.mark.parametrize(("scores", "covered", "expected"), [
    ([0.9, 0.8, 0.7, 0.1], [1, 0, 1, 0], (1 + 2 / 3) / 2), ([0.1, 0.7, 0.8, 0.9], [1, 0, 0, 0], 1 / 4), ([3, 2, 1], [1, 1, 0], 1.0),
    ([5, 5, 5, 5], [1, 0, 0, 0], 1 / 4), ([5, 5, 1, 1], [0, 1, 0, 1], (1 / 2 + 2 / 4) / 2), ([1, 2], [0, 0], 0.0)])
def test_average_precision(scores: list[float], covered: list[int], expected: float) -> None:
    for order in (slice(None), slice(None, None, -1)):                                # equal scores: their order must not matter
        assert probe.average_precision(np.array(scores)[order], np.array(covered, bool)[order]) == pytest.approx(expected)
