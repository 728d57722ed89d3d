"""What people said of made pictures: the newest word wins, an undo takes it back, and a page sees it all at once and soon."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from backend import jobs, rundir, verdicts
from backend.data import images
from backend.errors import ConfigError, NotFoundError
from backend.jobs import events, house, results
from backend.store import decisions

GREY = (120, 120, 120)


def png(pixels: "np.ndarray[Any, Any]") -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def made(count: int = 4, items: list[dict[str, Any]] | None = None, **head: Any) -> str:
    """A run with a synthetic set, 40 × 30: each picture has a bright square of 10 at (5, 8), and a mask of it; the run's id."""
    run = rundir.create("synthesize", jobs.Synthesize(name="set").to_json())
    folder = run / "synthetic"
    folder.mkdir()
    result, mask = np.full((30, 40, 3), 120, np.uint8), np.zeros((30, 40), np.uint8)
    result[8:18, 5:15], mask[8:18, 5:15] = 230, 255
    parent = png(np.full((30, 40, 3), GREY, np.uint8))
    images.keep(parent, images.sha256(parent), "PNG")
    items = items or [dict(file=f"{n:06d}.png", mask=f"{n:06d}_mask.png", width=40, height=30, boxes=[["scratches", 5, 8, 15, 18]],
                           boxes_from="mask", class_name="scratches", parent=images.sha256(parent), method="paste", source="paste")
                      for n in range(count)]
    for item in items[:4]:
        (folder / item["file"]).write_bytes(png(result))
        (folder / (item["mask"] or "none.png")).write_bytes(png(mask))
    rundir.write_json(folder / "head.json", dict(key="k", name="set", classes=["scratches"], items=items) | head)
    rundir.set_state(run, "completed")
    return run.name


def opened(data: bytes) -> "np.ndarray[Any, Any]":
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def view(run_id: str, what: str, file: str = "000000.png", width: int | None = None) -> "np.ndarray[Any, Any]":
    return opened(results.synthetic_picture(run_id, file, width, what, "png"))


# ---- verdicts

def test_the_newest_word_wins_and_can_be_taken_back(data_folder: Path) -> None:
    run_id, other = made(), made()
    jobs.judge(run_id, {"000000.png": "accept", "000001.png": "accept"})
    second = jobs.judge(run_id, {"000001.png": "reject", "000002.png": "again"}, by="me")
    jobs.judge(other, {"000000.png": "reject"})
    assert verdicts.verdicts(run_id) == {"000000.png": "accept", "000001.png": "reject", "000002.png": "again"}
    jobs.undo(second)
    assert verdicts.verdicts(run_id) == {"000000.png": "accept", "000001.png": "accept"}
    jobs.judge(run_id, {"000000.png": ""})
    assert verdicts.verdicts(run_id) == {"000001.png": "accept"} and verdicts.verdicts(other) == {"000000.png": "reject"}
    assert rundir.read_json(rundir.run_path(second) / "job.json")["by"] == "me"
    assert {r.recipe for r in jobs.recent()} == {"synthesize"}, "a decision is no run to people"


def test_a_decision_that_says_nothing_known_is_passed_over(data_folder: Path) -> None:
    run_id = made(2)
    jobs.judge(run_id, {"000000.png": "accept"})
    for config in (dict(run_id=run_id), dict(run_id=run_id, verdicts=None), dict(run_id=run_id, verdicts={"000001.png": "perhaps"})):
        events.record(verdicts.RECIPE, config)
    assert verdicts.verdicts(run_id) == {"000000.png": "accept"}
    assert jobs.synthetic(run_id)["verdict_counts"] == {"accept": 1, "reject": 0, "again": 0, "": 1}


def test_unknown_verdicts_and_pictures_are_refused_with_a_sentence(data_folder: Path) -> None:
    run_id = made(2)
    for given, sentence in (({"000000.png": "maybe"}, "accept, reject, again.* not 'maybe'"), ({"9.png": "accept"}, "no picture '9.png'"),
                            ({"../head.json": "accept"}, "no picture"), ({}, "at least one")):
        with pytest.raises(ConfigError, match=sentence):
            jobs.judge(run_id, given)
    with pytest.raises(NotFoundError, match="no set of synthetic pictures yet"):
        jobs.judge(rundir.create("synthesize", {}).name, {"000000.png": "accept"})
    with pytest.raises(NotFoundError):
        jobs.judge("../..", {"000000.png": "accept"})
    assert verdicts.verdicts(run_id) == {} and not list(rundir.find("judge"))


def test_a_damaged_verdict_costs_no_other(data_folder: Path) -> None:
    run_id = made(2)
    jobs.judge(run_id, {"000000.png": "accept"})
    damaged = jobs.judge(run_id, {"000001.png": "accept"})
    (rundir.run_path(damaged) / "job.json").write_bytes(b"{")
    assert verdicts.verdicts(run_id) == {"000000.png": "accept"}


def test_a_verdict_is_an_event_that_no_chart_minds(data_folder: Path) -> None:
    run_id = made()
    first = jobs.judge(run_id, {"000000.png": "accept", "000001.png": "accept", "000002.png": "reject"})
    jobs.record("note", {"text": "new lamp"})
    assert house.opened().ingest()
    database = house.database()
    assert decisions.changes(database, "real")["text"].tolist() == ["Note: new lamp"], "key presses would push all else out of the list"
    told = decisions.changes(database, "real", recipe="judge")
    assert told[["run_id", "text", "undone"]].to_numpy().tolist() == [[first, "Made pictures: 2 accepted, 1 rejected.", False]]
    jobs.undo(first)
    assert decisions.changes(database, "real", recipe="judge")["undone"].tolist() == [True]


# ---- what pages see

def test_a_set_is_read_with_its_verdicts(data_folder: Path) -> None:
    run_id = made(3, source="paste", result={"images": 3})
    jobs.judge(run_id, {"000001.png": "reject"})
    seen = jobs.synthetic(run_id)
    assert (seen["run_id"], seen["name"], seen["source"], seen["result"]) == (run_id, "set", "paste", {"images": 3})
    assert [(i["file"], i["verdict"]) for i in seen["items"]] == [("000000.png", ""), ("000001.png", "reject"), ("000002.png", "")]
    assert seen["verdict_counts"] == {"accept": 0, "reject": 1, "again": 0, "": 2} and seen["verdicts"] == {"000001.png": "reject"}
    seen["items"][0]["verdict"] = "spoilt"
    assert jobs.synthetic(run_id)["items"][0]["verdict"] == "", "what a page does to it stays on that page"


def test_a_set_of_an_earlier_program_has_all_keys(data_folder: Path) -> None:
    old = dict(file="000000.png", mask="000000_mask.png", width=40, height=30, area=0.08, parent="p", source="ddpm", seed=0, attempt=0,
               opacity=0.7)
    run_id = made(items=[old])
    item = jobs.synthetic(run_id)["items"][0]
    assert item.items() >= (old | dict(method="perturb", class_name="scratches", boxes=[], donor="", prompt="", verdict="")).items()
    assert (view(run_id, "outlined") != view(run_id, "result")).any()


def test_views_of_a_made_picture(data_folder: Path) -> None:
    run_id = made()
    result, original, mask, outlined = (view(run_id, what) for what in ("result", "original", "mask", "outlined"))
    assert {v.shape for v in (result, original, mask, outlined)} == {(30, 40, 3)}
    assert result[12, 8].tolist() == [230, 230, 230] and np.unique(original).tolist() == [120]
    assert np.unique(mask[8:18, 5:15]).tolist() == [255] and (mask > 0).all(2).sum() == 100
    assert (outlined[12, 4] != result[12, 4]).any(), "a line runs around the mask"
    assert view(run_id, "result", width=200).shape == (150, 200, 3)
    with pytest.raises(ConfigError, match="not as 'thumbnail'"):
        view(run_id, "thumbnail")
    for file in ("9.png", "../head.json", "head.json", ""):
        with pytest.raises(NotFoundError, match="no picture"):
            view(run_id, "result", file)
    (rundir.run_path(run_id) / "synthetic" / "000001.png").unlink()
    with pytest.raises(NotFoundError, match="missing"):
        view(run_id, "result", "000001.png")
    assert results.synthetic_picture(run_id, "000000.png", 64)[:3] == b"\xff\xd8\xff"


def test_a_picture_drawn_from_noise_has_boxes_for_a_mask_and_no_original(data_folder: Path) -> None:
    run_id = made(items=[dict(file="000000.png", mask="", width=40, height=30, boxes=[["pits", 0, 0, 20, 30]], boxes_from="whole",
                              class_name="pits", parent="", method="prior")])
    mask = view(run_id, "mask")
    assert np.unique(mask[:, :20]).tolist() == [255] and np.unique(mask[:, 20:]).tolist() == [0]
    with pytest.raises(NotFoundError, match="without a real one"):
        view(run_id, "original")


def test_each_of_two_thousand_verdicts_is_read_once(data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each a key press of its own: the set opens at once when it is looked at again."""
    run_id = made(2000)
    template = rundir.read_json(rundir.run_path(events.record("judge", {"run_id": run_id, "verdicts": {}})) / "job.json")
    for n in range(2000):                                        # by hand: `judge` puts each on disk before it returns, which takes time
        path = rundir.runs_root() / f"20300101-000000-{n:06d}-judge-abcdef"
        path.mkdir()
        config = {"run_id": run_id, "verdicts": {f"{n:06d}.png": "accept" if n % 2 else "reject"}}
        (path / "job.json").write_text(json.dumps(template | {"run_id": path.name, "config": config}))
        (path / "state.json").write_text('{"state": "completed"}')
    read: list[Path] = []
    real = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda self: read.append(self) or real(self))
    for least, most in ((2000, 2 * 2000 + 50), (0, 50)):
        read.clear()
        assert jobs.synthetic(run_id)["verdict_counts"] == {"accept": 1000, "reject": 1000, "again": 0, "": 0}
        assert least <= len(read) <= most
