"""Outlines found in production become a set of masks: the right cells, at the picture's size, whose is whose, and what has none."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend import rundir
from backend.config import CollectMasks
from backend.errors import Canceled, ConfigError, InputError, NotFoundError
from backend.records import pack_map
from backend.synthesis import collect, masks
from tests import plates

SIDE, LOW, HIGH, THRESHOLD = 16, -1.0, 4.0, 1.5
SIZE = (160, 96)                                  # width, height
BLOB, FAINT, DROPPED, UNSEEN, SECOND = 11, 12, 13, 14, 15


@pytest.fixture(autouse=True)
def _data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("DIFFSPECT_DATA", str(tmp_path / "data"))
    yield


def heat(top: int, left: int, value: float) -> np.ndarray:
    """float32 (SIDE, SIDE): 4 × 3 cells of a value, all else 0."""
    cells = np.zeros((SIDE, SIDE), np.float32)
    cells[top:top + 4, left:left + 3] = value
    return cells


def model(model_id: str = "aaaa") -> None:
    def write(run: Path) -> dict[str, Any]:
        (run / "model").mkdir()
        rundir.write_json(run / "model" / "model.json", dict(
            name="unusual", model_id=model_id, kind="anomaly", map_range=[LOW, HIGH], pixel_threshold=THRESHOLD))
        return {}

    plates.run_of("train-anomaly", write)


def inspected() -> Path:
    """A batch of five: two with something unusual, one without, one whose map is gone, one that no anomaly model saw."""
    at = datetime(2026, 3, 1, tzinfo=UTC)
    maps = {BLOB: heat(4, 9, 3.0), FAINT: heat(4, 9, 1.0), DROPPED: None, SECOND: heat(0, 0, 1.6)}

    def write(run: Path) -> dict[str, Any]:
        rundir.write_part(run, "inspections", [dict(
            inspection_id=i, plant="real", image_id=f"{i:064x}", file_name=f"{i}.png", width=SIZE[0], height=SIZE[1], captured_at=at,
            ingested_at=at) for i in (*maps, UNSEEN)])
        for i, m in maps.items():                  # a part each, as groups write them
            rundir.write_part(run, "anomalies", [dict(inspection_id=i, model_id="aaaa", anomaly_score=1.0, side=SIDE,
                                                      anomaly_map=None if m is None else pack_map(m, LOW, HIGH))])
        return {}

    return plates.run_of("inspect", write)


def named(batch: Path, *ids: int) -> str:
    return " ".join(f"{batch.name}/{i}" for i in ids)


def collected(inspections: str, name: str = "pitting", report: Any = plates.silent) -> tuple[Path, dict[str, Any]]:
    run = rundir.create("collect-masks", {})
    return run, collect.run(CollectMasks(name=name, inspections=inspections), run, report)


def test_outlines_are_kept_at_the_size_of_their_pictures() -> None:
    model()
    batch = inspected()
    run, result = collected(named(batch, BLOB, SECOND))
    head = rundir.read_json(run / "masks" / "head.json")
    assert result == dict(name="pitting", masks=2, left_out=[]) and head["name"] == "pitting"
    assert [(i["inspection"], i["image_id"], i["width"], i["height"]) for i in head["items"]] == [
        (f"{batch.name}/{i}", f"{i:064x}", *SIZE) for i in (BLOB, SECOND)]
    first, second = masks.collected(run / "masks")
    assert first.shape == second.shape == SIZE[::-1]
    ys, xs = np.nonzero(first)                                       # cells are 10 px wide and 6 high
    assert abs(ys.min() - 24) <= 3 and abs(ys.max() - 47) <= 3 and abs(xs.min() - 90) <= 5 and abs(xs.max() - 119) <= 5
    assert second[:20, :25].all() and not second[30:].any() and not second[:, 40:].any()
    assert not (run / "collecting-masks").exists()
    assert rundir.find_artifact("masks", "pitting") == run / "masks" == rundir.find_artifact("masks", run.name)


def test_what_has_no_outline_is_left_out_by_name_and_reason() -> None:
    model()
    batch = inspected()
    _, result = collected(named(batch, FAINT, BLOB, DROPPED, UNSEEN, BLOB))
    assert result["masks"] == 1
    assert [(r["inspection"], r["reason"]) for r in result["left_out"]] == [
        (named(batch, FAINT), collect.NOTHING), (named(batch, DROPPED), collect.NOT_KEPT), (named(batch, UNSEEN), collect.NOT_LOOKED)]


def test_a_set_of_nothing_is_refused() -> None:
    model()
    batch = inspected()
    with pytest.raises(InputError, match=f"{batch.name}/{FAINT}: nothing in it is above"):
        collected(named(batch, FAINT, DROPPED))
    assert rundir.find_artifact("masks") is None


def test_a_later_attempt_of_the_run_comes_to_the_same() -> None:
    """Failed half-way, or done already: run again, it leaves one whole set."""
    model()
    batch = inspected()
    run, result = collected(named(batch, BLOB, SECOND))
    before = {p.name: p.read_bytes() for p in (run / "masks").iterdir()}
    again = collect.run(CollectMasks(name="pitting", inspections=named(batch, BLOB, SECOND)), run, plates.silent)
    assert again == result and before == {p.name: p.read_bytes() for p in (run / "masks").iterdir()}
    keys = {rundir.read_json(collected(named(batch, *ids), name)[0] / "masks" / "head.json")["key"]
            for ids, name in (((BLOB, SECOND), "pitting"), ((BLOB,), "pitting"), ((BLOB,), "other"))}
    assert len(keys) == 3 and json.loads(before["head.json"])["key"] in keys


def test_canceled_it_leaves_nothing() -> None:
    model()
    batch = inspected()
    run, steps = rundir.create("collect-masks", {}), list[int]()

    def stop(**progress: Any) -> None:
        steps.append(progress["step"])
        if progress["step"] == 1:
            raise Canceled

    with pytest.raises(Canceled):
        collect.run(CollectMasks(name="pitting", inspections=named(batch, BLOB, SECOND)), run, stop)
    assert steps == [0, 1] and {p.name for p in run.iterdir()} == {"job.json", "state.json", "parts"}


def test_names_that_are_none_are_refused() -> None:
    batch = inspected()
    for wrong in ("", "   "):
        with pytest.raises(ConfigError, match="Choose the inspections"):
            collected(wrong)
    for wrong in (batch.name, f"{batch.name}/", f"{batch.name}/x", f"{batch.name}/-1", "/11", "../11/../x"):
        with pytest.raises(ConfigError, match="named run/inspection"):
            collected(wrong)
    with pytest.raises(ConfigError, match="Give the new class a name"):
        collected(named(batch, BLOB), name="  ")
    for missing in ("nobody/11", "../11", named(batch, 99)):
        with pytest.raises(NotFoundError):
            collected(missing)


def test_a_model_that_is_gone_is_said_to_be_gone() -> None:
    """The map's values mean nothing without its threshold and range."""
    with pytest.raises(NotFoundError, match="no anomaly model called 'aaaa'"):
        collected(named(inspected(), BLOB))


# ---- a map at its picture's size

def test_a_cell_at_the_threshold_counts() -> None:
    cells = np.zeros((8, 8), np.uint8)
    cells[2:4, 5] = 100
    value = 100 / 255
    at, above = (collect.at_size(cells, (0.0, 1.0), t, 64, 64) for t in (value, value + 0.003))
    assert at[20:28, 44].all() and not above.any()


def test_a_smooth_outline_is_no_stairs_and_follows_the_threshold() -> None:
    y, x = np.mgrid[:16, :16]
    hill = np.clip(255 - 30 * np.hypot(y - 7, x - 8), 0, 255).astype(np.uint8)
    areas = [collect.at_size(hill, (0.0, 255.0), t, 256, 256).sum() for t in (150.0, 100.0, 50.0)]
    for area, cells in zip(areas, (105 / 30, 155 / 30, 205 / 30), strict=True):
        assert area == pytest.approx(np.pi * (cells * 16) ** 2, rel=0.03)


def test_a_map_finer_than_its_picture_loses_no_defect() -> None:
    cells = np.zeros((64, 64), np.uint8)
    cells[40:44, 10:14] = 255
    mask = collect.at_size(cells, (0.0, 1.0), 0.9, 20, 24)
    assert mask.shape == (24, 20) and 1 <= mask.sum() <= 4 and mask[15, 3]
