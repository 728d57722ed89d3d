"""The random sample and what follows from it: strata with known weights, answers, blind repeats, and that nothing else enters."""

from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import pytest
import streamlit as st

from backend import jobs
from backend.errors import ConfigError
from backend.jobs import house, sampling
from backend.quality import reference
from backend.store import sampling as stored
from pages.components import review_rate, review_sample
from tests import small_plant as plant

DAY = date(2026, 6, 10)
BAD = set(range(0, 300, 10)) | {5}                       # truth: every tenth piece, and one that the model passes


def pieces(n: int = 300) -> list[dict[str, object]]:
    """n pieces: each tenth surely rejected, five others near the limit and passed, the rest silent."""
    boxes = {**{i: [("pits", 0.9)] for i in range(0, n, 10)}, **{i: [("pits", 0.45)] for i in range(5, n, 60)}}
    return [dict(boxes=boxes.get(i, []), file_name=f"{i}.png", captured_at=plant.NOON + timedelta(seconds=i)) for i in range(n)]


@pytest.fixture
def filled(data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The pieces' inspections, in their order. A sample begins with half as many units: each read costs 20 ms."""
    monkeypatch.setattr(sampling, "FIRST", 30)
    plant.model("m1", {"pits": 0.5})
    run = plant.batch([])
    ids = plant.add(run, pieces())
    house.opened().ingest()
    yield ids


def answer(found: sampling.Sampled, ids: list[int], by: str = "Kim") -> str:
    """The next unit, judged as it is."""
    unit = found.queue[0]
    verdict = "defective" if ids.index(unit[0]) in BAD else "good"
    return sampling.read("real", found.sample_id, unit, verdict, reviewer=by)


def test_a_sample_tells_the_true_rate_and_alters_nothing(filled: list[int]) -> None:
    before = jobs.results.totals(jobs.Filters())
    sampling.draw_sample("real", DAY, DAY, by="Kim")
    found = sampling.sampled("real")
    assert found is not None and found.left == sum(found.wanted) + sum(found.wanted) // sampling.EVERY
    assert [(s.rejected, s.band, s.units) for s in found.strata] == \
        [(True, "clear", 30), (False, "clear", 265), (False, "near the limit", 5)]
    assert min(found.wanted) >= sampling.LEAST and found.true.all.rate is None and found.true.unread

    asked = set()
    while found.left:
        asked.add(found.queue[0])
        answer(found, filled)
        found = sampling.sampled("real")
        assert found is not None
    assert len(asked) == len(found.first) == sum(found.wanted) and len(found.again) == len(found.first) // sampling.EVERY
    assert found.true.apparent == pytest.approx(0.1)
    assert found.true.false_rejects.k == 0 and found.true.missed.k == 1                # piece 5, one of five near the limit: all were read
    assert found.true.all.rate == pytest.approx(31 / 300) and found.true.all.low < 31 / 300 < found.true.all.high
    assert found.wrong == {filled[5]: "missed"} and found.agreement is not None and found.agreement.observed == 1

    # it asks for what it still needs, and gets it from the same strata
    more = found.more(0.02)
    assert found.needed(0.02) == more > 0 and not found.short(0.02)
    sampling.ask_more("real", found.sample_id, 0.02)
    grown = sampling.sampled("real")
    assert grown is not None and sum(grown.wanted) == sum(found.wanted) + more and grown.strata == found.strata
    assert not set(grown.queue) & asked - {grown.queue[0]}
    with pytest.raises(ConfigError, match="enough"):
        sampling.ask_more("real", found.sample_id, 0.02)

    # the weights stand though a rule moves every verdict, and reviews of doubtful pictures do not enter
    jobs.record("review", dict(inspection_id=filled[0], verdict="good", class_name="", reviewer="Kim"))
    assert jobs.results.totals(jobs.Filters()) == before
    jobs.record("policy", dict(class_name="pits", action="ignore"))
    after = sampling.sampled("real")
    assert jobs.results.totals(jobs.Filters())["defective"] == 0 and after == grown


def test_repeats_are_blind_late_and_can_be_taken_back(filled: list[int]) -> None:
    sampling.draw_sample("real", DAY, DAY)
    found = sampling.sampled("real")
    assert found is not None
    for _ in range(sampling.EVERY):
        answer(found, filled)
        sampling.read("real", found.sample_id, found.queue[0], "defective", reviewer="pressed twice")
        found = sampling.sampled("real")
        assert found is not None
    repeat = found.queue[0]
    assert repeat in [(r.unit,) for r in found.first[:-sampling.GAP]]
    other = "good" if found.first[[r.unit for r in found.first].index(repeat[0])].verdict == "defective" else "defective"
    said = sampling.read("real", found.sample_id, repeat, other, reviewer="Lee")
    again = sampling.sampled("real")
    assert again is not None and again.first == found.first and again.strata == found.strata          # the first answer counts
    assert [(a.reviewer, b.reviewer) for a, b in again.again] == [("Kim", "Lee")]
    assert again.agreement is not None and again.agreement.n == 1 and again.agreement.observed == 0
    jobs.undo(said)
    assert sampling.sampled("real") == found
    jobs.undo(found.sample_id)
    assert sampling.sampled("real") is None


def test_a_key_pressed_twice_is_one_answer(filled: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    state: dict[str, object] = {"kinds_real": set()}
    monkeypatch.setattr(st, "session_state", state)
    st.cache_data.clear()
    sample_id = sampling.draw_sample("real", DAY, DAY)
    unit = sampling.sampled("real").queue[0]                         # type: ignore[union-attr]
    for _ in range(2):
        review_sample._say(sample_id, unit, "good", "real")
    assert len(stored.reads(house.database(), sample_id)) == 1
    jobs.undo(str(state["last_answer"]["made"]))                     # type: ignore[index]
    review_sample._say(sample_id, unit, "defective", "real")
    assert [r["verdict"] for r in stored.reads(house.database(), sample_id)] == ["defective"]


def test_a_rare_answer_or_a_few_repeats_accuse_and_praise_nobody() -> None:
    """19 of 20 alike, and kappa is 0, for the one defective part was called good the second time; 10 of 10 alike, and it is 1."""
    rare, few = (reference.agreement(*judged) for judged in (
        (["defective"] + ["good"] * 19, ["good"] * 20), (["defective"] * 5 + ["good"] * 5,) * 2))
    assert rare.kappa == pytest.approx(0) and rare.observed == 0.95 and few.kappa == 1
    said = [review_rate.advice(a.n, a.kappa, a.low, bool(a.note)) for a in (rare, few)]
    assert "not to be trusted" not in said[0] and "kappa says little here" in said[0]
    assert "can be trusted" not in said[1] and "too few were judged twice" in said[1]


def test_a_unit_of_two_views_is_read_as_one_and_unkept_ones_are_none_of_the_readable(data_folder: Path) -> None:
    plant.model("m1", {"pits": 0.5})
    views = [dict(unit_id=f"u{i // 2}", boxes=[("pits", 0.9)] if i == 1 else [], kept_share=1.0) for i in range(20)]
    lot = [dict(image_id=f"{0 if i < 3 else 255:02x}{i:062x}", kept_share=0.01, kept=i != 4, file_name=f"lot {i}") for i in range(10)]
    plant.add(plant.batch([]), [*views, *lot])
    house.opened().ingest()
    strata = stored.frame(house.database(), "real", DAY, DAY, "", "seed")
    assert [(s["rejected"], s["band"], s["units"], len(s["order"])) for s in strata] == \
        [(True, "clear", 1, 1), (False, "clear", 9, 9), (False, "clear, few kept", 10, 3)]         # 7 of 10 were not drawn to stay
    assert {len(v) for s in strata[:2] for v in s["order"]} == {2}
    assert stored.frame(house.database(), "real", DAY, DAY, "", "other")[1]["order"] != strata[1]["order"]
    with pytest.raises(ConfigError, match="longer period"):
        sampling.draw_sample("real", DAY - timedelta(days=9), DAY - timedelta(days=8))
    with pytest.raises(ConfigError, match="judged defective or good"):
        sampling.read("real", "x", (1,), "perhaps")


def test_where_no_picture_was_kept_nobody_is_promised_a_true_rate(data_folder: Path) -> None:
    plant.model("m1", {"pits": 0.5})
    plant.add(plant.batch([]), [dict(boxes=[("pits", 0.9)] if i < 5 else [], kept=i < 5, file_name=f"{i}.png") for i in range(40)])
    house.opened().ingest()
    sampling.draw_sample("real", DAY, DAY)
    while (found := sampling.sampled("real")) is not None and found.left:
        sampling.read("real", found.sample_id, found.queue[0], "defective")
    assert found is not None and len(found.first) == 5 and found.true.all.rate is None
    assert "stays unknown: of 35 other parts no picture is here" in review_rate._said(found)
    assert "as soon as" not in review_rate._said(found)


def test_measured_elsewhere(filled: list[int]) -> None:
    sample = sampling.draw_sample("real", DAY, DAY)
    assert sampling.ability("real", sample, 30, 300) is None
    jobs.record("promote", dict(model_id="m1"))
    with pytest.raises(ConfigError, match="no better than a coin"):
        sampling.note_ability("real", 50, 100, 50, 100)
    sampling.note_ability("real", 95, 100, 98, 100, by="Kim")
    said = sampling.ability("real", sample, 30, 300)
    assert isinstance(said, tuple) and said[0]["found"] == 95 and said[1].rate == pytest.approx((0.1 + 0.98 - 1) / (0.95 + 0.98 - 1))
    assert any("measured" in t for t in jobs.results.changes("real")["text"])

    # another model is put to use: what it was measured to do says nothing of what the one before it judged
    plant.model("m2", {"pits": 0.5})
    house.opened().ingest()
    jobs.record("promote", dict(model_id="m2"))
    assert sampling.ability("real", sample, 30, 300) is None
    sampling.note_ability("real", 90, 100, 90, 100)
    assert sampling.ability("real", sample, 30, 300) == sampling.OTHER_MODEL
    plant.add(plant.batch([]), [dict(boxes=[], model_id="m2", file_name="new.png", captured_at=plant.NOON)])
    house.opened().ingest()
    both = sampling.draw_sample("real", DAY, DAY)
    assert sampling.ability("real", both, 30, 301) == sampling.OTHER_MODEL


def test_events_of_review_come_again_after_a_rebuild(filled: list[int]) -> None:
    from backend.store import ingest

    sampling.draw_sample("real", DAY, DAY)
    found = sampling.sampled("real")
    assert found is not None
    answer(found, filled)
    before, tables = sampling.sampled("real"), plant.tables(house.database())
    ingest.rebuild(house.database())
    assert sampling.sampled("real") == before and plant.tables(house.database()) == tables
