"""The search for strength, guidance and steps, with a whole tiny Stable Diffusion that was really adapted."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pytest
from PIL import Image

from backend import rundir
from backend.config import AdaptPrior, SearchSynthesis
from backend.data import snapshot
from backend.errors import Canceled, ConfigError, NotFoundError
from backend.synthesis import looks, measures, quality, search
from backend.synthesis.prior import adapt, stable
from backend.teacher.extractors import extractor
from tests import plates, surfaces, tiny_prior
from tests.squares import one_core

IMAGES = 8


@pytest.fixture(scope="module", autouse=True)
def _small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFSPECT_DATA", str(tmp_path_factory.mktemp("data")))
        for module in (adapt, search):
            patch.setattr(module, "cores", one_core)
        for name, value in (("SIDE", 64), ("SMALL", 64), ("CELLS", 4)):
            patch.setattr(looks, name, value)
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> snapshot.Snapshot:
    return surfaces.imported(tmp_path_factory.mktemp("in") / "in", "surfaces", each=16, good=0)


@pytest.fixture(scope="module")
def adapted(data: snapshot.Snapshot) -> Path:
    tiny_prior.tiny_surface()
    return plates.run_of("adapt-prior", lambda run: adapt.run(
        AdaptPrior(dataset="surfaces", name="a", token_steps=1, lora_steps=1, held_out=0.5, batch=2, precision="f32"), run, plates.silent))


def config(**more: Any) -> SearchSynthesis:
    few = dict(strengths="0.04 0.9", guidances="1", steps="2", images=IMAGES)
    return SearchSynthesis(**{"dataset": "surfaces", "name": "s", "class_name": "spots", **few, **more})


def ran(**more: Any) -> tuple[Path, dict[str, Any]]:
    run = rundir.create("search-synthesis", {})
    return run, search.run(config(**more), run, plates.silent)


@pytest.fixture(scope="module")
def found(adapted: Path) -> tuple[Path, dict[str, Any]]:
    return ran()


def test_every_setting_is_measured(found: tuple[Path, dict[str, Any]], adapted: Path) -> None:
    run, result = found
    tried = [(r["class_name"], r["strength"], r["guidance"], r["steps"]) for r in result["rows"]]
    assert tried == [("spots", 0.04, 1.0, 2), ("spots", 0.9, 1.0, 2)]
    assert all(r["low"] <= r["kid"] <= r["high"] and 0 <= r["copied"] <= 1 and r["diversity"] > 0 for r in result["rows"])
    assert result["nearest"] == min(result["settings"], key=lambda s: s["kid"]) and result["best"] in result["settings"]
    assert result["floor"]["spots"]["kid"] is not None and not (run / "searching").exists()
    head = rundir.read_json(run / "search" / "head.json")
    assert head["result"] == result and head["adapter"] == rundir.read_json(adapted / "adapter" / "head.json")["key"]
    with Image.open(run / "samples.png") as shown:
        assert shown.size[0] == 2 * 160


def test_a_row_is_what_measuring_by_hand_gives(found: tuple[Path, dict[str, Any]], data: snapshot.Snapshot, tmp_path: Path) -> None:
    head = rundir.read_json(rundir.find_artifact("adapter", "a") / "head.json")
    shown = [p for p in data.pictures if p.split == "train" and "spots" in p.classes]
    parents = [quality.pixels(p) for i in (0, 1) for p in sorted(shown, key=lambda p: p.image_id) if p.image_id in head["learned"]][:IMAGES]
    held = [quality.pixels(p) for p in shown if p.image_id in head["held"]]
    again = stable.open_prior(stable.find("a", data), "cpu", "auto")
    order = [search.in_turn(0, i, IMAGES) for i in range(IMAGES)]
    seeds = [int(np.random.default_rng([0, crc32(b"spots"), i]).integers(2**63)) for i in range(IMAGES)]
    made = search.draw.redraw(again, [parents[i] for i in order], None, [again.classes_known["spots"]] * IMAGES, seeds, strength=0.9,
                              guidance=1.0, steps=2)
    eye = looks.Eye(extractor("efficientnet-lite0"))
    kinds = [eye.gather(len(v), lambda some, v=v: [v[i] for i in some], tmp_path / f"{k}", lambda i: None).kind
             for k, v in enumerate((made, held))]
    assert found[1]["rows"][1]["kid"] == pytest.approx(1000 * measures.kid(*kinds).value, abs=0.05)


def test_parents_are_learned_ones_and_the_reference_is_held_apart(data: snapshot.Snapshot, adapted: Path) -> None:
    head = rundir.read_json(adapted / "adapter" / "head.json")
    classes, left_out = search._classes(config(class_name=""), data, stable.find("", data))
    assert [lot.class_name for lot in classes] == surfaces.CLASSES and not left_out
    train = {p.image_id for p in data.pictures if p.split == "train"}
    for lot in classes:
        assert {i["parent"] for i in lot.items} <= set(head["learned"]) & train and len(lot.items) == IMAGES
        assert {p.image_id for p in lot.reference} <= set(head["held"]) & train and len(lot.reference) == 8
        assert len({i["parent"] for i in lot.items}) == IMAGES, "each parent comes before any comes again"


def test_settings_share_parents_and_noise(adapted: Path, data: snapshot.Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is drawn follows from the number, not from the setting, nor from how many are drawn together."""
    told = list[tuple[list[bytes], list[int]]]()
    drawn = search.draw.redraw

    def redraw(prior: Any, pictures: Any, masks: Any, prompts: Any, seeds: Any, **how: Any) -> Any:
        told.append(([p.tobytes() for p in pictures], seeds))
        assert set(prompts) == {prior.classes_known["spots"]}
        return drawn(prior, pictures, masks, prompts, seeds, **how)

    monkeypatch.setattr(search.draw, "redraw", redraw)
    ran(strengths="0.3 0.6", class_name="spots")
    assert told[0] == told[1] and len(set(told[0][1])) == IMAGES
    monkeypatch.setattr(looks, "CHUNK", 3)
    ran(strengths="0.3", images=9)
    assert [s for _, seeds in told[2:] for s in seeds][:IMAGES] == told[0][1]


def test_a_killed_search_goes_on_to_the_same(found: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    run, steps = rundir.create("search-synthesis", {}), list[int]()

    def killed(**said: Any) -> None:
        steps.append(said["step"])
        if said["step"] >= IMAGES:
            raise SystemExit

    with pytest.raises(SystemExit):
        search.run(config(), run, killed)
    drawn, rest = search.draw.redraw, list[float]()
    monkeypatch.setattr(search.draw, "redraw", lambda *args, **how: rest.append(how["strength"]) or drawn(*args, **how))
    monkeypatch.setattr(quality, "pixels", lambda p: pytest.fail("looked at again"))
    result = search.run(config(), run, plates.silent)
    whole = found[1]
    assert [{k: v for k, v in r.items() if k != "seconds"} for r in result["rows"]] == \
        [{k: v for k, v in r.items() if k != "seconds"} for r in whole["rows"]]
    assert set(rest) == {0.9} and steps == sorted(steps)
    monkeypatch.setattr(search.draw, "redraw", lambda *args, **how: pytest.fail("drawn again"))
    assert search.run(config(), run, plates.silent) == result


def test_canceling_in_the_middle_of_drawing_leaves_nothing(adapted: Path) -> None:
    run = rundir.create("search-synthesis", {})

    def canceled(**said: Any) -> None:
        if "strength" in said["message"]:
            raise Canceled

    with pytest.raises(Canceled):
        search.run(config(), run, canceled)
    assert not (run / "searching").exists() and not (run / "search").exists()


def test_the_best_is_the_nearest_that_does_not_copy() -> None:
    told = [dict(kid=k, copied=c, copying=many) for k, c, many in ((1.0, 0.9, True), (5.0, 0.12, False), (9.0, 0.0, False))]
    assert search.chosen(told) == (told[1], [])
    best, warnings = search.chosen([dict(kid=k, copied=c, copying=True) for k, c in ((1.0, 0.9), (7.0, 0.4), (5.0, 0.4))])
    assert best["kid"] == 5.0 and "fewest (40%)" in warnings[0]
    assert search.chosen([dict(kid=k, copied=None, copying=None) for k in (3.0, 2.0)])[0]["kid"] == 2.0


def test_few_copies_of_a_small_class_are_no_fault_of_a_setting() -> None:
    """Where 8 pictures are known 12 of 100 new ones count as copies, and often twice as many; beside 400 these are copies indeed."""
    def row(beside: int, copied: float) -> dict[str, Any]:
        return dict(kid=1.0, low=0.0, high=2.0, copied=copied, beside=beside, diversity=1.0)

    few, many = (search._summed(search.Setting(0.5, 1, 10), [row(n, 0.25)], 48) for n in (8, 400))
    assert (few["copying"], many["copying"], few["copied_chance"], many["copied_chance"]) == (False, True, 0.1189, 0.0124)
    assert search._summed(search.Setting(0.5, 1, 10), [row(8, 0.75), row(400, 0.0)], 48)["copied"] == 0.375


@pytest.mark.parametrize("more, words", [
    (dict(strengths="0.5 x"), "strength must be numbers"), (dict(steps="2.5"), "steps must be whole numbers"),
    (dict(guidances=" "), "at least one guidance"), (dict(strengths="0.5 1.5"), "strength must be between"),
    (dict(class_name="dent"), "has not learned the class 'dent'. It has learned spots, scratch"),
])
def test_settings_that_cannot_be_are_refused(adapted: Path, more: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        ran(**more)


def test_without_pictures_held_apart_nothing_is_searched(adapted: Path, data: snapshot.Snapshot, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'tiny prior' has not been adapted"):
        ran(prior="tiny prior")
    with pytest.raises(NotFoundError, match="no prior or folder called 'nobody'"):
        ran(prior="nobody")
    plates.run_of("adapt-prior", lambda run: adapt.run(AdaptPrior(
        dataset="surfaces", name="few", prior="tiny prior", space="tokens", token_steps=1, held_out=0.2, batch=2, precision="f32"), run,
        plates.silent))
    with pytest.raises(ConfigError, match="No class can be measured. spots: Too few of the 16 train images"):
        ran(prior="few")
    surfaces.imported(tmp_path / "other", "other", each=9, good=1)
    with pytest.raises(ConfigError, match="'a' was adapted to 'surfaces'"):
        ran(prior="a", dataset="other")


def test_numbers_may_be_parted_by_commas_and_come_once() -> None:
    found = search._settings(config(strengths="0.5,0.3 0.5", guidances="2", steps="10 20"))
    assert [(s.strength, s.steps) for s in found] == [(0.3, 10), (0.3, 20), (0.5, 10), (0.5, 20)]
    assert np.isclose(found[0].guidance, 2)
