"""Training on shares of real and synthetic images: which are chosen, how often each is shown, and that steps are equal."""

import json
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend import rundir
from backend.config import RECIPES, Distill, TrainDetector
from backend.data import shares, snapshot
from backend.data.marks import Box
from backend.data.shares import Share
from backend.data.snapshot import Picture
from backend.errors import ConfigError
from tests import mixed, squares


def picture(i: int, *classes: str, origin: str = "real") -> Picture:
    return Picture(f"{i * 7919 % 1000:064x}", f"{origin}-{i}.png", 10, 10, "0" * 16, tuple(Box(c, 0, 0, 5, 5) for c in classes), "train",
                   origin=origin)


REAL = [*(picture(i, "pit" if i % 3 else "dent") for i in range(12)), *(picture(i) for i in range(12, 15))]       # three are good
MADE = [picture(i, "pit" if i % 4 else "dent", origin="synthetic") for i in range(20, 30)]


def names(pictures: list[Picture]) -> set[str]:
    return {p.file_name for p in pictures}


# ---- which are shown

def test_by_default_all_are_shown_once() -> None:
    assert shares.laid(REAL + MADE, shares.ALL) == REAL + MADE
    assert shares.tally(REAL + MADE, shares.ALL) == shares.Tally(15, 10, 25)


@pytest.mark.parametrize(("origin", "expected"), [("real", names(REAL)), ("synthetic", names(MADE)), ("both", names(REAL + MADE))])
def test_of_one_origin(origin: str, expected: set[str]) -> None:
    assert names(shares.laid(REAL + MADE, Share(origin=origin))) == expected


def test_a_larger_dose_holds_the_smaller() -> None:
    """Every class in turn, whatever the order of the pictures."""
    doses = [names(shares.chosen(REAL + MADE[::step], Share(synthetic=n))[1]) for n in (0, 2, 5, 10) for step in (1, -1)]
    assert list(map(len, doses)) == [0, 0, 2, 2, 5, 5, 10, 10] and doses[::2] == doses[1::2]
    assert all(few < more for few, more in zip(doses[::2], doses[2::2], strict=False))
    two = shares.chosen(MADE, Share(synthetic=2))[1]
    assert {c for p in two for c in p.classes} == {"pit", "dent"}


def test_what_was_made_of_labels_left_out_is_left_out() -> None:
    """It would tell of them: a dose of synthetic images beside a few labels may hold no other labels' defects."""
    few = shares.chosen(REAL, Share(labels=4))[0]
    left, good = next(p for p in REAL if p.boxes and p not in few), next(p for p in REAL if not p.boxes)
    of = [replace(MADE[0], parent=few[0].image_id), replace(MADE[1], parent=left.image_id), replace(MADE[2], parent=good.image_id),
          replace(MADE[3], parent=good.image_id, donor=left.image_id), replace(MADE[4], parent=good.image_id, donor=few[1].image_id)]
    for origin in ("both", "synthetic"):
        assert names(shares.chosen(REAL + of, Share(4, origin))[1]) == names([of[0], of[2], of[4]])
    assert names(shares.chosen(REAL + of, Share())[1]) == names(of)
    with pytest.raises(ConfigError, match="has 3 synthetic train images made of no other labels than these 4, fewer than 4"):
        shares.refuse(REAL + of, Share(labels=4, synthetic=4))


def test_labels_are_of_real_images_and_synthetic_ones_come_on_top() -> None:
    real, made = shares.chosen(REAL + MADE, Share(labels=4, synthetic=3))
    assert len(real) == 4 and all(p.boxes and p.origin == "real" for p in real) and len(made) == 3
    assert names(real) == names(shares.chosen(REAL, Share(labels=4))[0]), "synthetic ones do not change which"
    laid = shares.laid(REAL + MADE, Share(labels=4, synthetic=3))
    assert len(laid) == len(REAL) + 3 and names(laid) == names(real + made)
    assert shares.tally(REAL + MADE, Share(labels=4, synthetic=3)) == shares.Tally(4, 3, 18)
    assert shares.laid(REAL + MADE, Share(labels=4, synthetic=3, shown=50)) == real + made, "the trainer turns to each as often as it must"
    assert shares.tally(REAL + MADE, Share(labels=4, synthetic=3, shown=50)) == shares.Tally(4, 3, 50)


@pytest.mark.parametrize(("share", "sentence"), [
    (Share(labels=13), "12 labelled train images, fewer than 13"), (Share(synthetic=11), "10 synthetic train images, fewer than 11"),
    (Share(origin="synthetic", synthetic=0), "no synthetic train image")])
def test_more_than_there_are_is_refused(share: Share, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        shares.refuse(REAL + MADE, share)


def test_what_is_not_asked_for_is_not_refused() -> None:
    shares.refuse(REAL, Share(origin="real", synthetic=5))
    shares.refuse(MADE, Share(origin="synthetic", labels=5))
    with pytest.raises(ConfigError, match="no synthetic train image"):
        shares.refuse(REAL, Share(origin="synthetic"))


# ---- how often

@pytest.mark.parametrize(("images", "shown"), [(1, 3), (3, 7), (5, 5), (7, 3), (10, 25), (64, 64), (100, 1), (9, 8)])
def test_every_image_is_shown_equally_often(images: int, shown: int) -> None:
    """To within one, in each pass and in all so far; the remainder moves on."""
    from backend.detection.turns import Turns

    turns, so_far = Turns(images, shown, seed=3), np.zeros(images, int)
    for epoch in range(3 * images):
        turns.epoch = epoch
        seen = np.bincount(list(turns), minlength=images)
        so_far += seen
        assert seen.sum() == shown and np.ptp(seen) <= 1 and np.ptp(so_far) <= 1
    assert np.ptp(so_far) == 0, "after as many passes as there are images, all are even"


def test_a_pass_follows_from_seed_and_epoch_alone() -> None:
    from backend.detection.turns import Turns

    def shown(seed: int, epoch: int) -> list[int]:
        turns = Turns(10, 25, seed)
        turns.epoch = epoch
        return list(turns)

    assert shown(0, 5) == shown(0, 5) != shown(0, 6) and shown(0, 5) != shown(1, 5)
    assert sorted(shown(0, 5)) != sorted(shown(0, 6)), "the remainder is another"


# ---- training

@pytest.fixture(autouse=True)
def _one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    from backend.detection import trainer

    monkeypatch.setattr(trainer, "cores", squares.one_core)


class Killed(BaseException):
    """Stands for a kill where a process of its own would only cost time."""


def fit(folder: Path, config: TrainDetector, stop_at: str = "") -> dict[str, Any]:
    """Train on squares in a folder, or go on there; the checkpoint it ends with."""
    from backend.detection import trainer

    def tell(epoch: int, message: str, metrics: dict[str, float]) -> None:
        if stop_at and message == stop_at:
            raise Killed

    with suppress(Killed):
        trainer.fit(config, folder / "data" / "data.yaml", folder, tell)
    saved = trainer.load_checkpoint(folder)
    assert saved is not None
    return saved


@pytest.mark.slow                                   # that a pass follows from seed and epoch alone is shown above
def test_resumed_with_turns_is_undisturbed(tmp_path: Path) -> None:
    from tests.test_resume import assert_same

    config = squares.config(2, shown=7)
    for name in ("whole", "killed"):
        squares.draw(tmp_path / name / "data")
    whole = fit(tmp_path / "whole", config)
    assert fit(tmp_path / "killed", config, "epoch 2, batch 2 of 2")["epoch"] == 1
    assert_same(whole, fit(tmp_path / "killed", config))


def test_two_images_take_the_steps_of_ten(tmp_path: Path) -> None:
    """As many steps, of as many images each, though a step takes more images than there are; mosaics are made of the two."""
    for kept in (10, 2):
        one, data = loading(tmp_path / str(kept), kept, shown=11)
        loader = one.get_dataloader(one.data["train"], 4, -1)
        shown = [batch["im_file"] for batch in loader]
        times = Counter(file for files in shown for file in files)
        assert [len(files) for files in shown] == [4, 4, 3] and len(loader) == 3
        assert len(times) == kept and max(times.values()) - min(times.values()) <= 1
        assert {Path(file).stem for file in times} == {f"train-{i}" for i in range(kept)} == {p.stem for p in data.iterdir()}


def loading(folder: Path, kept: int, **more: Any) -> tuple[Any, Path]:
    """A trainer of so many of the squares, and the folder of its train images."""
    from backend.detection import trainer

    squares.draw(folder / "data")
    images = folder / "data" / "images" / "train"
    for i in range(kept, squares.COUNTS["train"]):
        (images / f"train-{i}.png").unlink()
    one = trainer.DetectorTrainer(squares.config(1, **more), folder / "data" / "data.yaml", folder, lambda *_: None, trainer.Course())
    one.data = one.get_dataset()
    return one, images


def test_without_a_number_the_loader_is_the_stock_one(tmp_path: Path) -> None:
    from torch.utils.data import RandomSampler

    one, _ = loading(tmp_path, 10)
    assert isinstance(one.get_dataloader(one.data["train"], 4, -1).sampler, RandomSampler)


@pytest.mark.parametrize(("share", "expected"), [
    (dict(), (10, 6, 16)), (dict(origin="real"), (10, 0, 10)), (dict(origin="synthetic", shown=5), (0, 6, 5)),
    (dict(labels=5, synthetic=2), (5, 2, 12)), (dict(labels=5, synthetic=2, shown=40), (5, 2, 40))])
def test_a_mixed_dataset_is_laid_out_by_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: dict[str, Any],
                                              expected: tuple[int, int, int]) -> None:
    from backend.detection import train

    monkeypatch.setenv("DIFFSPECT_DATA", str(tmp_path / "data"))
    run = mixed.imported(tmp_path / "in")
    data = snapshot.read(run)
    material = train.from_snapshot(run, tmp_path / "work" / "yolo", Share(**share))
    assert material.train == shares.Tally(*expected)
    files = list((material.data.parent / "images" / "train").iterdir())
    origins = {p.image_id: p.origin for p in data.pictures}
    laid = {f.name[:64] for f in files}
    assert [sum(origins[i] == o for i in laid) for o in ("real", "synthetic")] == list(expected[:2])
    assert len(files) == (len(laid) if "shown" in share else expected[2])
    assert len(material.truth["test"]) == squares.COUNTS["test"]


@pytest.mark.parametrize(("share", "images"), [
    (dict(), 16), (dict(origin="real"), 10), (dict(origin="synthetic", synthetic=4), 4), (dict(labels=3, synthetic=2), 12),
    (dict(labels=3, shown=40), 40)])
def test_an_estimate_knows_how_many_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: dict[str, Any], images: int) -> None:
    from backend.jobs import pace

    monkeypatch.setenv("DIFFSPECT_DATA", str(tmp_path / "data"))
    mixed.imported(tmp_path / "in")
    config = TrainDetector(dataset="mixed", name="x", epochs=3, **share)
    assert pace.work(config) == pytest.approx(pace.PASS_S * images * 3)


# ---- what was there before

def test_older_settings_still_read() -> None:
    before = {k: v for k, v in Distill(dataset="x", name="y").to_json().items() if k not in ("origin", "synthetic", "shown")}
    assert RECIPES["distill"].from_json(json.loads(json.dumps(before))) == Distill(dataset="x", name="y")


def test_a_teacher_made_before_is_found() -> None:
    """Its key does not name settings that came later, where they say nothing."""
    from backend.config import LATER, TrainFused
    from backend.detection import fuse

    config = TrainFused(dataset="x", name="y")
    settings = {k: v for k, v in config.to_json().items() if k not in ("name", "dataset", "repository", "backbone", "weights")
                and k not in dict(LATER)}
    before = rundir.key_of(kind="fused", format=fuse.FORMAT, snapshot_id="s", repository="r", backbone="", weights="", **settings)
    assert fuse.key(config, "s", "r") == before
    assert fuse.key(TrainFused(dataset="x", name="y", shown=9), "s", "r") != before
